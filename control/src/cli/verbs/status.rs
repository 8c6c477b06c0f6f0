//! `status`: health, workers, ports, generation.

use serde_json::Value;

use crate::cli::flags::Flag;
use crate::cli::output::Form;
use crate::cli::session::{Session, VerbError};
use crate::cli::table::{Table, human_duration};
use crate::protocol::{CountersReply, Status};

use super::{OUTPUT, TEMPLATE};

/// Flags of `status`.
pub const FLAGS: &[Flag] = &[OUTPUT, TEMPLATE];

/// Runs `status`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let form = Form::parse(
        session.parsed.value("output"),
        session.parsed.value("template"),
    )?;
    let mut client = session.connect()?;
    let value: Value = client.call("status", Value::Object(Default::default()))?;
    let counters: CountersReply = client.call("counters", Value::Object(Default::default()))?;
    if !matches!(form, Form::Table { .. }) {
        let mut value = value;
        value["counters"] = serde_json::to_value(&counters).unwrap_or_default();
        print!("{}", form.render(&value)?);
        return Ok(());
    }
    let status: Status = serde_json::from_value(value).map_err(|error| {
        VerbError::Local(format!("the daemon sent what is not understood: {error}"))
    })?;
    print!("{}", text(&status, &counters));
    Ok(())
}

fn text(status: &Status, counters: &CountersReply) -> String {
    let mut out = format!(
        "Weir {} (pid {}) on node {}, instance {}: {}\nGeneration {}, up for {}\n",
        status.version,
        status.pid,
        status.node,
        status.instance,
        status.health,
        status.generation,
        human_duration(status.uptime_seconds as i64),
    );
    out.push_str(&format!(
        "Connections {} of {}; log {} ({} lines, {} lost)\n\n",
        status.conntrack.entries,
        status.conntrack.capacity,
        status.log.path,
        status.log.lines,
        status.log.lost,
    ));
    let mut workers = Table::new(["WORKER", "CORE", "GENERATION", "STATE"]);
    for worker in &status.workers {
        workers.push(vec![
            worker.index.to_string(),
            worker.core.to_string(),
            worker.generation.to_string(),
            if worker.alive { "running" } else { "dead" }.to_owned(),
        ]);
    }
    out.push_str(&workers.render(true));
    out.push('\n');
    let mut ports = Table::new([
        "PORT",
        "INTERFACE",
        "ROLE",
        "WORKERS",
        "POD",
        "ADDRESSES",
        "STATE",
    ]);
    for port in &status.ports {
        let addresses: Vec<String> = port.addresses.iter().map(ToString::to_string).collect();
        let workers: Vec<String> = port.workers.iter().map(ToString::to_string).collect();
        let state = match (&port.problem, port.ready) {
            (Some(problem), _) => problem.clone(),
            (None, true) => "ready".to_owned(),
            (None, false) => "waiting for its policy".to_owned(),
        };
        ports.push(vec![
            port.port.to_string(),
            port.interface.clone(),
            port.role.clone(),
            workers.join(","),
            port.pod.clone().unwrap_or_else(|| "-".to_owned()),
            if addresses.is_empty() {
                "-".to_owned()
            } else {
                addresses.join(",")
            },
            state,
        ]);
    }
    out.push_str(&ports.render(true));
    if !counters.drops.is_empty() {
        out.push('\n');
        let mut drops = Table::new(["DROPPED FOR", "PACKETS"]);
        for (reason, packets) in &counters.drops {
            drops.push(vec![reason.clone(), packets.to_string()]);
        }
        out.push_str(&drops.render(true));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{PortStatus, WorkerStatus};

    #[test]
    fn a_port_that_is_not_live_says_so() {
        let status = Status {
            generation: 7,
            health: "ok".into(),
            workers: vec![WorkerStatus {
                generation: 7,
                alive: true,
                ..Default::default()
            }],
            ports: vec![PortStatus {
                interface: "weir0".into(),
                role: "pod".into(),
                pod: Some("a/b".into()),
                ..Default::default()
            }],
            ..Default::default()
        };
        let drops = [("policy_denied".to_owned(), 3)].into();
        let shown = text(
            &status,
            &CountersReply {
                drops,
                ..Default::default()
            },
        );
        assert!(shown.contains("waiting for its policy"), "{shown}");
        assert!(shown.contains("policy_denied   3"), "{shown}");
    }
}
