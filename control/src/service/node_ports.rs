//! Node ports (alloc.go, `initNodePorts`, `updateNodePorts`, `allocHealthCheckNodePort`;
//! `portallocator`). A number belongs to one Service, whatever the protocols.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Named, full, kind, needs_node_ports, put, text};
use crate::cluster::{Cluster, Refusal};
use crate::validate::Findings;

fn number(port: &Value) -> u16 {
    let number = port["nodePort"].as_u64().unwrap_or(0);
    u16::try_from(number).unwrap_or(0)
}

fn ports(spec: &Value) -> &[Value] {
    spec["ports"].as_array().map_or(&[], Vec::as_slice)
}

fn numbers(spec: &Value) -> Vec<u16> {
    let numbers = ports(spec).iter().map(number);
    numbers.filter(|&number| number != 0).collect()
}

/// Whether probes of a load balancer need a port of their own.
pub(super) fn needs_health_check(spec: &Value) -> bool {
    kind(spec) == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

/// Puts back the numbers that were handed out and the client left out, by the ports' names.
pub(super) fn keep(spec: &mut Value, old: &Value) {
    if needs_health_check(old)
        && needs_health_check(spec)
        && spec["healthCheckNodePort"].as_u64().unwrap_or(0) == 0
    {
        put(
            spec,
            "healthCheckNodePort",
            old["healthCheckNodePort"].clone(),
        );
    }
    if !needs_node_ports(old) || !needs_node_ports(spec) {
        return;
    }
    let stated = numbers(spec);
    let had = numbers(old).into_iter();
    let mut used: Vec<u16> = had.filter(|number| stated.contains(number)).collect();
    let by_name: BTreeMap<&str, u16> = ports(old)
        .iter()
        .map(|port| (text(port, "name"), number(port)))
        .collect();
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        let known = by_name.get(text(port, "name")).copied().unwrap_or(0);
        if number(port) == 0 && known != 0 && !used.contains(&known) {
            put(port, "nodePort", known.into());
            used.push(known);
        }
    }
}

/// Gives each port the number that it states, or one that nobody has. Ports with one number, such
/// as DNS by UDP and TCP, share a node port.
pub(super) fn hand_out(
    named: &Named,
    spec: &mut Value,
    old: Option<&Value>,
    cluster: &Cluster,
) -> Result<(), Refusal> {
    let health_check = needs_health_check(spec);
    let mut given = Given {
        named,
        cluster,
        // On an update ports of one number are not looked at together.
        by_port: old.is_none().then(BTreeMap::new),
        taken: numbers(spec),
    };
    let automatic = spec["allocateLoadBalancerNodePorts"] != false;
    if needs_node_ports(spec) {
        let mut all = ports(spec).to_vec();
        for index in 0..all.len() {
            if number(&all[index]) == 0 && !automatic {
                continue;
            }
            let number = given.number_of(index, &all)?;
            put(&mut all[index], "nodePort", number.into());
        }
        spec["ports"] = all.into();
    }
    if !health_check {
        return Ok(());
    }
    match spec["healthCheckNodePort"].as_u64().unwrap_or(0) {
        0 => {
            let free = given.free("healthCheckNodePort")?;
            put(spec, "healthCheckNodePort", free.into());
        }
        stated => {
            let stated = u16::try_from(stated).unwrap_or(0);
            if let Some(why) = given.objection(stated) {
                let message = format!(
                    "Internal error occurred: failed to allocate requested HealthCheck NodePort \
                     {stated}: {why}"
                );
                let reason = crate::cluster::Reason::InternalError;
                return Err(Refusal::new(reason, message));
            }
        }
    }
    Ok(())
}

struct Given<'a> {
    named: &'a Named,
    cluster: &'a Cluster,
    /// Node ports by Service ports.
    by_port: Option<BTreeMap<u64, u16>>,
    /// Those of this Service.
    taken: Vec<u16>,
}

impl Given<'_> {
    fn number_of(&mut self, index: usize, all: &[Value]) -> Result<u16, Refusal> {
        let port = all[index]["port"].as_u64().unwrap_or(0);
        let mut stated = number(&all[index]);
        if stated == 0
            && let Some(by_port) = &self.by_port
        {
            if let Some(shared) = by_port.get(&port) {
                return Ok(*shared);
            }
            let mut same = all[index..].iter().filter(|p| p["port"] == port);
            stated = same
                .find_map(|p| Some(number(p)).filter(|&n| n != 0))
                .unwrap_or(0);
        }
        let chosen = match stated {
            0 => {
                let free = self.free(&format!("{port}"))?;
                self.taken.push(free);
                free
            }
            stated => {
                if let Some(why) = self.objection(stated) {
                    let mut findings = Findings::default();
                    let path = format!("spec.ports[{index}].nodePort");
                    findings.invalid(path, stated, &why);
                    return Err(self.named.refusal(&findings));
                }
                stated
            }
        };
        if let Some(by_port) = &mut self.by_port {
            by_port.insert(port, chosen);
        }
        Ok(chosen)
    }

    /// Why the Service may not have the number.
    fn objection(&self, number: u16) -> Option<String> {
        let pools = self.cluster.pools();
        let range = pools.services.node_ports;
        match self.cluster.claims().port(number) {
            Some(holder) if self.named.is(holder) => None,
            Some(_) => Some("provided port is already allocated".to_owned()),
            None if pools.foreign || range.contains(number) => None,
            None => Some(format!(
                "provided port is not in the valid range. The range of valid ports is {range}"
            )),
        }
    }

    /// A number that nobody has: from a place that follows from the Service's name on, above those
    /// that are left to people's choice.
    fn free(&self, what: &str) -> Result<u16, Refusal> {
        let range = self.cluster.pools().services.node_ports;
        let size = u64::from(range.last - range.first) + 1;
        let chosen = match size {
            0..=16 => 0,
            _ => (size / 32).clamp(16, 128),
        };
        let start = self.named.start(what) % (size - chosen);
        let behind = (0..size - chosen).map(|step| chosen + (start + step) % (size - chosen));
        let numbers = behind.chain(0..chosen);
        let mut numbers = numbers.map(|offset| range.first + offset as u16);
        let is_free = |number: &u16| {
            !self.taken.contains(number) && self.cluster.claims().port(*number).is_none()
        };
        numbers.find(is_free).ok_or_else(|| full("nodePort"))
    }
}

/// The numbers of a Service that no longer has any, unless the client changed them.
pub(super) fn let_go(spec: &mut Value, old: &Value) {
    let sorted = |spec: &Value| {
        let mut numbers = numbers(spec);
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    };
    if needs_node_ports(old) && !needs_node_ports(spec) && sorted(spec) == sorted(old) {
        for port in spec["ports"].as_array_mut().into_iter().flatten() {
            put(port, "nodePort", Value::Null);
        }
    }
    let same = spec["healthCheckNodePort"] == old["healthCheckNodePort"];
    if needs_health_check(old) && !needs_health_check(spec) && same {
        put(spec, "healthCheckNodePort", Value::Null);
    }
}
