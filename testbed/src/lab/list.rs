//! Which labs there are.

use super::{Lab, all};

/// Every lab's status as JSON; of one whose agent does not answer only the name.
pub fn list_json() -> serde_json::Value {
    let one = |lab: Lab| match lab.status() {
        Ok(status) => serde_json::to_value(status).unwrap_or_default(),
        Err(_) => serde_json::json!({"lab": lab.name}),
    };
    all().into_iter().map(one).collect()
}

/// The labs that come with Weir, a line each.
pub fn list_built_in() -> String {
    let mut text =
        String::from("\nLabs that come with Weir (weir lab up NAME, weir lab run NAME):\n");
    for lab in config::labs::LABS {
        text += &format!("{:<20} {}\n", lab.name, lab.about);
    }
    text
}

/// One line a lab: name, state, pods, daemon, where.
pub fn list() -> String {
    let mut text = format!(
        "{:<20} {:<8} {:<8} {:<10} {}\n",
        "NAME", "STATE", "PODS", "DAEMON", "SOCKET"
    );
    for lab in all() {
        let socket = lab.control_socket().display().to_string();
        let row = match lab.status() {
            Ok(status) => {
                let ready = status.pods.iter().filter(|pod| pod.ready).count();
                let daemon = status
                    .daemon_pid
                    .map_or("down".into(), |pid| pid.to_string());
                let pods = format!("{ready}/{}", status.pods.len());
                format!(
                    "{:<20} {:<8} {pods:<8} {daemon:<10} {socket}",
                    lab.name, "up"
                )
            }
            Err(_) if lab.agent_pid().is_some() => {
                format!(
                    "{:<20} {:<8} {:<8} {:<10} {socket}",
                    lab.name, "busy", "-", "-"
                )
            }
            Err(_) => format!(
                "{:<20} {:<8} {:<8} {:<10} {socket}",
                lab.name, "stale", "-", "-"
            ),
        };
        text += row.trim_end();
        text.push('\n');
    }
    text
}
