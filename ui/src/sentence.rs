//! The sentence that says what happened and why.

use control::flow::{Flow, FlowDirection, FlowEnd, FlowPolicy, FlowVerdict};

/// What happened, by which policy and why, in one or two sentences.
pub fn of(flow: &Flow) -> String {
    let by = flow.service.as_ref().map(|service| service.label());
    let by = by.map_or(String::new(), |label| format!(" (by Service {label})"));
    let what = format!(
        "{} to {} of {}{by}",
        name(&flow.source),
        port(flow),
        name(&flow.destination)
    );
    let generation = flow.generation;
    match flow.verdict {
        FlowVerdict::Forwarded => {
            format!(
                "{what} was let through: {} (generation {generation}).",
                why(flow)
            )
        }
        FlowVerdict::Dropped if flow.is_policy_verdict() => {
            format!(
                "{what} was dropped: {} (generation {generation}).",
                why(flow)
            )
        }
        FlowVerdict::Dropped => format!(
            "{what} was dropped whatever policy says: {}.",
            flow.reason.replace('_', " ")
        ),
        FlowVerdict::Audit => {
            let policy = flow.policy.as_ref().map(named);
            let by = policy.map_or("A policy".to_owned(), |policy| policy);
            format!(
                "{by} is in audit mode and decides nothing; enforced it would have decided \
                 otherwise on {what}: {} (generation {generation}).",
                flow.reason
            )
        }
    }
}

/// The decision of the direction that decided.
fn why(flow: &Flow) -> String {
    let Some(direction) = flow.direction else {
        return flow.reason.clone();
    };
    let (own, verb, peer) = match direction {
        FlowDirection::Ingress => (&flow.destination, "receives", "ingress"),
        FlowDirection::Egress => (&flow.source, "sends", "egress"),
    };
    match (&flow.policy, flow.verdict) {
        (Some(policy), _) if policy.rule.is_some() => {
            let rule = rule(policy);
            let does = match flow.verdict {
                FlowVerdict::Dropped => "denies",
                _ => "allows",
            };
            format!(
                "{rule} of {} {does} it on {peer} of {}",
                named(policy),
                name(own)
            )
        }
        (Some(policy), FlowVerdict::Dropped) => format!(
            "{} isolates what {} {verb}, and {}",
            named(policy),
            name(own),
            flow.reason
        ),
        _ => format!("on {peer} of {} {}", name(own), flow.reason),
    }
}

fn rule(policy: &FlowPolicy) -> String {
    match (policy.rule, &policy.rule_name) {
        (Some(rule), Some(name)) => format!("rule {rule} ({name})"),
        (Some(rule), None) => format!("rule {rule}"),
        (None, _) => "no rule".to_owned(),
    }
}

fn named(policy: &FlowPolicy) -> String {
    format!("{} {}", policy.kind, policy.full_name())
}

fn name(end: &FlowEnd) -> String {
    end.pod_name().unwrap_or_else(|| end.ip.to_string())
}

fn port(flow: &Flow) -> String {
    match flow.destination.port {
        Some(port) => format!("{} port {port}", flow.protocol),
        None => flow.protocol.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::flow::FlowService;

    fn flow(verdict: FlowVerdict, rule: Option<u16>, reason: &str) -> Flow {
        let end = |ip: &str, pod: Option<&str>, port| FlowEnd {
            ip: ip.parse().unwrap(),
            port: Some(port),
            namespace: pod.map(|_| "stars".into()),
            pod: pod.map(Into::into),
            labels: Default::default(),
            workload: None,
        };
        Flow {
            time: "2026-11-30T01:00:00.000000000Z".into(),
            verdict,
            reason: reason.into(),
            direction: Some(FlowDirection::Ingress),
            source: end("10.0.0.1", Some("client"), 4000),
            destination: end("10.0.0.2", Some("backend"), 6379),
            service: None,
            protocol: "TCP".into(),
            tcp_flags: vec!["SYN".into()],
            policy: Some(FlowPolicy {
                kind: "NetworkPolicy".into(),
                namespace: Some("stars".into()),
                name: "default-deny".into(),
                rule,
                rule_name: None,
            }),
            generation: 42,
            node: "n".into(),
        }
    }

    #[test]
    fn a_denial_names_policy_reason_and_generation() {
        assert_eq!(
            of(&flow(FlowVerdict::Dropped, None, "no rule matches peer")),
            "stars/client to TCP port 6379 of stars/backend was dropped: NetworkPolicy \
             stars/default-deny isolates what stars/backend receives, and no rule matches peer \
             (generation 42)."
        );
        let mut by_rule = flow(FlowVerdict::Dropped, Some(3), "rule 3 \"telnet\" denies");
        by_rule.direction = Some(FlowDirection::Egress);
        by_rule.policy.as_mut().unwrap().rule_name = Some("telnet".into());
        assert_eq!(
            of(&by_rule),
            "stars/client to TCP port 6379 of stars/backend was dropped: rule 3 (telnet) of \
             NetworkPolicy stars/default-deny denies it on egress of stars/client (generation 42)."
        );
    }

    #[test]
    fn a_service_is_named_beside_the_pod_that_was_chosen() {
        let mut translated = flow(FlowVerdict::Dropped, None, "no rule matches peer");
        translated.service = Some(FlowService {
            ip: "10.96.0.7".parse().unwrap(),
            port: 80,
            namespace: Some("stars".into()),
            name: Some("backend".into()),
        });
        let sentence = of(&translated);
        let expected = "TCP port 6379 of stars/backend (by Service stars/backend:80) was dropped";
        assert!(sentence.contains(expected), "{sentence}");
    }

    #[test]
    fn what_passes_says_which_rule_lets_it() {
        assert_eq!(
            of(&flow(FlowVerdict::Forwarded, Some(0), "rule 0 accepts")),
            "stars/client to TCP port 6379 of stars/backend was let through: rule 0 of \
             NetworkPolicy stars/default-deny allows it on ingress of stars/backend (generation 42)."
        );
        let mut free = flow(FlowVerdict::Forwarded, None, "no policy applies");
        free.policy = None;
        assert_eq!(
            of(&free),
            "stars/client to TCP port 6379 of stars/backend was let through: on ingress of \
             stars/backend no policy applies (generation 42)."
        );
    }

    #[test]
    fn drops_without_policy_and_audits_say_so() {
        let mut strange = flow(FlowVerdict::Dropped, None, "no_route");
        (strange.direction, strange.policy) = (None, None);
        assert_eq!(
            of(&strange),
            "stars/client to TCP port 6379 of stars/backend was dropped whatever policy says: no \
             route."
        );
        let audited = of(&flow(
            FlowVerdict::Audit,
            None,
            "would be denied: no rule matches",
        ));
        assert!(
            audited.starts_with("NetworkPolicy stars/default-deny is in audit mode"),
            "{audited}"
        );
        assert!(
            audited.contains("would be denied: no rule matches"),
            "{audited}"
        );
    }
}
