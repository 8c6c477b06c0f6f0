//! Flows as `weir observe` shows them: what a packet was, what became of it, by whom and why.
//!
//! One [`Flow`] is one thing that happened: a new connection that passed, a packet that was
//! dropped, or a connection of which a policy in audit mode thinks otherwise. The words are
//! Hubble's where it has them.

pub mod filter;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use dataplane::{Direction, Protocol};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum FlowVerdict {
    /// It passed, and opened a connection.
    Forwarded,
    /// It was dropped.
    Dropped,
    /// What became of it is told elsewhere; a policy in audit mode would have decided otherwise.
    Audit,
}

impl FlowVerdict {
    /// Every verdict.
    pub const ALL: [FlowVerdict; 3] = [
        FlowVerdict::Forwarded,
        FlowVerdict::Dropped,
        FlowVerdict::Audit,
    ];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            FlowVerdict::Forwarded => "FORWARDED",
            FlowVerdict::Dropped => "DROPPED",
            FlowVerdict::Audit => "AUDIT",
        }
    }
}

/// The direction of the policy that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum FlowDirection {
    /// Of the destination's.
    Ingress,
    /// Of the source's.
    Egress,
}

impl FlowDirection {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            FlowDirection::Ingress => "INGRESS",
            FlowDirection::Egress => "EGRESS",
        }
    }
}

impl From<Direction> for FlowDirection {
    fn from(direction: Direction) -> FlowDirection {
        match direction {
            Direction::Ingress => FlowDirection::Ingress,
            Direction::Egress => FlowDirection::Egress,
        }
    }
}

/// An end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowEnd {
    /// Its address.
    pub ip: IpAddr,
    /// Its port; null where the protocol has none.
    #[serde(default)]
    pub port: Option<u16>,
    /// The namespace of the pod behind the address, if it is a pod's.
    #[serde(default)]
    pub namespace: Option<String>,
    /// That pod's name.
    #[serde(default)]
    pub pod: Option<String>,
    /// That pod's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What the pod is one of, `Deployment/web`; absent of pods that nobody has made from a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
}

impl FlowEnd {
    /// `NS/POD`, if a pod is there.
    pub fn pod_name(&self) -> Option<String> {
        let pod = self.pod.as_ref()?;
        Some(match &self.namespace {
            Some(namespace) => format!("{namespace}/{pod}"),
            None => pod.clone(),
        })
    }
}

/// The Service that a flow is to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowService {
    /// The address that the client knows.
    pub ip: IpAddr,
    /// The port there.
    pub port: u16,
    /// The Service's namespace, if there is a Service with that address by now.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
}

impl FlowService {
    /// `NS/NAME:PORT`, or the address and port of one that is gone.
    pub fn label(&self) -> String {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name}:{}", self.port),
            _ => SocketAddr::new(self.ip, self.port).to_string(),
        }
    }
}

/// The policy that decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowPolicy {
    /// `NetworkPolicy`.
    pub kind: String,
    /// Its namespace; null for kinds without.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Index of the rule in its list for the direction; null where no rule matched and the policy
    /// isolates.
    #[serde(default)]
    pub rule: Option<u16>,
    /// What its author calls that rule; null where rules have no names.
    #[serde(default, rename = "ruleName")]
    pub rule_name: Option<String>,
}

impl FlowPolicy {
    /// `NS/NAME`, or `NAME` of a policy without namespace.
    pub fn full_name(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

/// One thing that happened. Its JSON form is what `observe -o json` prints, one a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// When: RFC 3339 in UTC with nine digits behind the second, so that times sort as texts.
    pub time: String,
    /// What became of it.
    pub verdict: FlowVerdict,
    /// Why, in words; of a drop that has nothing to do with policy the reason's name, as
    /// `weir_dropped_packets_total` has it.
    pub reason: String,
    /// The direction of the policy that decided; null where none did.
    #[serde(default)]
    pub direction: Option<FlowDirection>,
    /// Who opened the connection.
    pub source: FlowEnd,
    /// To whom.
    pub destination: FlowEnd,
    /// The Service that it is to; the destination is the pod that was chosen. Absent where none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<FlowService>,
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPV6`, or the protocol's number.
    pub protocol: String,
    /// TCP flags of the packet, `SYN` and so on.
    #[serde(default)]
    pub tcp_flags: Vec<String>,
    /// The policy that decided; null where none did.
    #[serde(default)]
    pub policy: Option<FlowPolicy>,
    /// The generation that decided.
    pub generation: u64,
    /// The node.
    pub node: String,
}

impl Flow {
    /// Whether policy decided, and not something about the packet itself.
    pub fn is_policy_verdict(&self) -> bool {
        self.direction.is_some()
    }

    /// Of a dropped flow the drop reason in Hubble's spelling, `POLICY_DENIED`.
    pub fn drop_reason(&self) -> Option<String> {
        match self.verdict {
            FlowVerdict::Dropped if self.is_policy_verdict() => Some("POLICY_DENIED".to_owned()),
            FlowVerdict::Dropped => Some(self.reason.replace(' ', "_").to_uppercase()),
            FlowVerdict::Forwarded | FlowVerdict::Audit => None,
        }
    }
}

/// A moment as [`Flow::time`] has it. Moments before 1970 are 1970.
pub fn time_text(at: SystemTime) -> String {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let moment = Timestamp::new(since.as_secs() as i64, since.subsec_nanos() as i32);
    normal(moment.unwrap_or_default())
}

/// An RFC 3339 text as [`Flow::time`] has it; none if it is no such text.
pub fn normalize_time(text: &str) -> Option<String> {
    text.parse::<Timestamp>().ok().map(normal)
}

fn normal(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

/// `TCP`, or the number of a protocol without a name here.
pub fn protocol_name(protocol: Protocol) -> String {
    match protocol {
        Protocol::TCP => "TCP".into(),
        Protocol::UDP => "UDP".into(),
        Protocol::SCTP => "SCTP".into(),
        Protocol::ICMP => "ICMP".into(),
        Protocol::ICMPV6 => "ICMPV6".into(),
        Protocol(other) => other.to_string(),
    }
}

/// Names of the bits of the TCP flags byte, the lowest first (RFC 9293, section 3.1).
const TCP_FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

/// The flags that are set, in Hubble's order.
pub fn tcp_flag_names(flags: u8) -> Vec<String> {
    const ORDER: [usize; 8] = [1, 4, 0, 2, 3, 5, 6, 7];
    let set = ORDER.iter().filter(|bit| flags >> **bit & 1 == 1);
    set.map(|bit| TCP_FLAGS[*bit].to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::time::Duration;

    /// The promised shape: every key is there, null where there is nothing.
    #[test]
    fn the_json_is_the_one_that_is_promised() {
        let flow = Flow {
            time: time_text(SystemTime::UNIX_EPOCH + Duration::new(1_795_226_400, 5)),
            verdict: FlowVerdict::Dropped,
            reason: "no rule matches peer".into(),
            direction: Some(FlowDirection::Ingress),
            source: FlowEnd {
                ip: "10.0.1.20".parse().unwrap(),
                port: Some(41234),
                namespace: Some("orders".into()),
                pod: Some("orders-0".into()),
                labels: [("app".to_owned(), "orders".to_owned())].into(),
                workload: None,
            },
            destination: FlowEnd {
                ip: "10.0.2.30".parse().unwrap(),
                port: Some(3306),
                namespace: None,
                pod: None,
                labels: BTreeMap::new(),
                workload: None,
            },
            service: None,
            protocol: protocol_name(Protocol::TCP),
            tcp_flags: tcp_flag_names(0x12),
            policy: Some(FlowPolicy {
                kind: "NetworkPolicy".into(),
                namespace: Some("catalog".into()),
                name: "db".into(),
                rule: None,
                rule_name: None,
            }),
            generation: 42,
            node: "n1".into(),
        };
        let value = serde_json::to_value(&flow).unwrap();
        assert_eq!(
            value,
            json!({
                "time": "2026-11-21T02:00:00.000000005Z", "verdict": "DROPPED",
                "reason": "no rule matches peer", "direction": "INGRESS",
                "source": {"ip": "10.0.1.20", "port": 41234, "namespace": "orders",
                    "pod": "orders-0", "labels": {"app": "orders"}},
                "destination": {"ip": "10.0.2.30", "port": 3306, "namespace": null, "pod": null,
                    "labels": {}},
                "protocol": "TCP", "tcpFlags": ["SYN", "ACK"],
                "policy": {"kind": "NetworkPolicy", "namespace": "catalog", "name": "db",
                    "rule": null, "ruleName": null},
                "generation": 42, "node": "n1",
            })
        );
        assert_eq!(serde_json::from_value::<Flow>(value.clone()).unwrap(), flow);
        let schema = include_str!("../../schemas/observe.v1.schema.json");
        let schema: Value = serde_json::from_str(schema).unwrap();
        for (schema, value) in [
            (&schema, &value),
            (&schema["$defs"]["end"], &value["source"]),
            (&schema["$defs"]["policy"], &value["policy"]),
        ] {
            let required: Vec<&str> = schema["required"]
                .as_array()
                .unwrap()
                .iter()
                .map(|name| name.as_str().unwrap())
                .collect();
            let object = value.as_object().unwrap();
            let properties = schema["properties"].as_object().unwrap();
            assert_eq!(required.len(), object.len());
            assert!(
                required.iter().all(|name| object.contains_key(*name)),
                "{schema}"
            );
            assert!(
                object.keys().all(|name| properties.contains_key(name)),
                "{schema}"
            );
        }
    }

    #[test]
    fn times_sort_as_texts_whatever_zone_they_were_given_in() {
        let early = normalize_time("2026-11-21T03:00:00+01:00").unwrap();
        assert_eq!(early, "2026-11-21T02:00:00.000000000Z");
        assert!(early < normalize_time("2026-11-21T02:00:00.1Z").unwrap());
        assert_eq!(normalize_time("yesterday"), None);
    }
}
