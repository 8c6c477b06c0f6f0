//! Flows as text: Hubble's compact, dict and table forms, our JSON, and Hubble's JSON.

use std::net::SocketAddr;

use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::cli::flags::Parsed;
use crate::cli::session::VerbError;
use crate::cli::table::Table;
use crate::flow::{Flow, FlowEnd, FlowVerdict};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Compact,
    Dict,
    Table,
    Json,
    JsonPb,
}

/// Prints flows.
#[derive(Debug)]
pub struct Printer {
    form: Form,
    /// For `strftime`.
    time_format: &'static str,
    node: bool,
    pods: bool,
    color: bool,
    printed: usize,
    /// Rows of a table, whose columns are known at the end.
    table: Table,
}

const RULER: &str = "------------";

impl Printer {
    /// As the flags want it; `terminal` is whether stdout is one.
    pub fn new(parsed: &Parsed, terminal: bool) -> Result<Printer, VerbError> {
        let usage = |text: String| Err(VerbError::Usage(text));
        let form = match parsed.value("output") {
            None | Some("compact") => Form::Compact,
            Some("dict") => Form::Dict,
            Some("table" | "tab") => Form::Table,
            Some("json" | "JSON") => Form::Json,
            Some("jsonpb") => Form::JsonPb,
            Some(other) => return usage(format!("invalid output format: {other}")),
        };
        if form == Form::Table && parsed.is_on("follow") {
            return usage("table output format is not compatible with follow mode".into());
        }
        let time_format = match parsed.value("time-format") {
            None | Some("StampMilli") => "%b %e %H:%M:%S.%3f",
            Some("YearMonthDay") => "%Y-%m-%d",
            Some("YearMonthDayHourMinute") => "%Y-%m-%dT%H:%MZ",
            Some("RFC3339") => "%Y-%m-%dT%H:%M:%SZ",
            Some("RFC3339Milli") => "%Y-%m-%dT%H:%M:%S.%3fZ",
            Some("RFC3339Micro") => "%Y-%m-%dT%H:%M:%S.%6fZ",
            Some("RFC3339Nano") => "%Y-%m-%dT%H:%M:%S.%9fZ",
            Some(other) => return usage(format!("invalid --time-format value: {other}")),
        };
        let color = match parsed.value("color") {
            None | Some("auto") => terminal,
            Some("always") => true,
            Some("never") => false,
            Some(other) => return usage(format!("invalid --color value: {other}")),
        };
        let translated = match parsed.value("ip-translation") {
            None | Some("true") => true,
            Some("false") => false,
            Some(other) => return usage(format!("invalid --ip-translation value: {other}")),
        };
        let node = parsed.is_on("print-node-name");
        let mut header = vec!["TIMESTAMP"];
        header.extend(node.then_some("NODE"));
        header.extend(["SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY"]);
        Ok(Printer {
            form,
            time_format,
            node,
            pods: translated && !parsed.is_on("numeric"),
            color: color && matches!(form, Form::Compact | Form::Dict),
            printed: 0,
            table: Table::new(header),
        })
    }

    /// A flow's text.
    pub fn flow(&mut self, flow: &Flow) -> String {
        let first = self.printed == 0;
        self.printed += 1;
        match self.form {
            Form::Compact => self.compact(flow),
            Form::Dict if first => self.dict(flow),
            Form::Dict => format!("{RULER}\n{}", self.dict(flow)),
            Form::Table => {
                let mut row = vec![self.time(flow)];
                row.extend(self.node.then(|| flow.node.clone()));
                row.extend([
                    self.end(&flow.source),
                    self.end(&flow.destination),
                    kind(flow),
                    flow.verdict.name().to_owned(),
                    summary(flow),
                ]);
                self.table.push(row);
                String::new()
            }
            Form::Json => line(flow),
            Form::JsonPb => line(&hubble(flow)),
        }
    }

    /// What is to be printed behind the last flow.
    pub fn finish(&mut self) -> String {
        match self.form {
            Form::Table if self.printed > 0 => self.table.render(true),
            _ => String::new(),
        }
    }

    fn compact(&self, flow: &Flow) -> String {
        let node = if self.node {
            format!(" [{}]", flow.node)
        } else {
            String::new()
        };
        format!(
            "{}{node}: {} -> {} {} {} ({})\n",
            self.time(flow),
            self.end(&flow.source),
            self.end(&flow.destination),
            kind(flow),
            self.verdict(flow.verdict),
            summary(flow),
        )
    }

    fn dict(&self, flow: &Flow) -> String {
        let mut text = format!("  TIMESTAMP: {}\n", self.time(flow));
        if self.node {
            text.push_str(&format!("       NODE: {}\n", flow.node));
        }
        text.push_str(&format!(
            "     SOURCE: {}\nDESTINATION: {}\n       TYPE: {}\n    VERDICT: {}\n    SUMMARY: {}\n",
            self.end(&flow.source),
            self.end(&flow.destination),
            kind(flow),
            self.verdict(flow.verdict),
            summary(flow),
        ));
        text
    }

    fn time(&self, flow: &Flow) -> String {
        match flow.time.parse::<Timestamp>() {
            Ok(at) => at
                .to_zoned(TimeZone::UTC)
                .strftime(self.time_format)
                .to_string(),
            Err(_) => "N/A".to_owned(),
        }
    }

    /// `NS/POD:PORT`, `ADDRESS:PORT`, without the port where there is none.
    fn end(&self, end: &FlowEnd) -> String {
        let pod = end.pod_name().filter(|_| self.pods);
        match (pod, end.port) {
            (Some(pod), Some(port)) => format!("{pod}:{port}"),
            (Some(pod), None) => pod,
            (None, Some(port)) => SocketAddr::new(end.ip, port).to_string(),
            (None, None) => end.ip.to_string(),
        }
    }

    fn verdict(&self, verdict: FlowVerdict) -> String {
        let name = verdict.name();
        if !self.color {
            return name.to_owned();
        }
        let color = match verdict {
            FlowVerdict::Forwarded => 32,
            FlowVerdict::Dropped => 31,
            FlowVerdict::Audit => 33,
        };
        format!("\x1b[{color}m{name}\x1b[0m")
    }
}

/// `policy-verdict:NS/NAME INGRESS`, or the reason of a drop that policy has nothing to do with.
fn kind(flow: &Flow) -> String {
    let Some(direction) = flow.direction else {
        return flow.reason.clone();
    };
    let policy = flow.policy.as_ref().map(|policy| policy.full_name());
    let policy = policy.as_deref().unwrap_or("none");
    format!("policy-verdict:{policy} {}", direction.name())
}

/// `TCP Flags: SYN; no rule matches peer`.
fn summary(flow: &Flow) -> String {
    let mut text = match flow.protocol.as_str() {
        "TCP" => format!("TCP Flags: {}", flow.tcp_flags.join(", ")),
        other => other.to_owned(),
    };
    if flow.is_policy_verdict() {
        text.push_str("; ");
        text.push_str(&flow.reason);
    }
    if let Some(service) = &flow.service {
        text.push_str(&format!("; Service {}", service.label()));
    }
    text
}

fn line(value: &impl serde::Serialize) -> String {
    // Strings, numbers and maps with string keys: there is nothing that JSON could not hold.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    text
}

/// The flow as Hubble's `GetFlowsResponse` in proto3's JSON mapping, with its own names.
fn hubble(flow: &Flow) -> Value {
    let l4 = match flow.protocol.as_str() {
        "TCP" | "UDP" | "SCTP" => {
            let mut ports = json!({
                "source_port": flow.source.port, "destination_port": flow.destination.port,
            });
            if flow.protocol == "TCP" {
                let flags = flow
                    .tcp_flags
                    .iter()
                    .map(|flag| (flag.clone(), json!(true)));
                ports["flags"] = Value::Object(flags.collect());
            }
            json!({ (flow.protocol.as_str()): ports })
        }
        "ICMP" => json!({"ICMPv4": {}}),
        "ICMPV6" => json!({"ICMPv6": {}}),
        _ => json!({}),
    };
    let end = |end: &FlowEnd| {
        let mut value = json!({});
        if let (Some(namespace), Some(pod)) = (&end.namespace, &end.pod) {
            value["namespace"] = json!(namespace);
            value["pod_name"] = json!(pod);
        } else {
            value["labels"] = json!(["reserved:unknown"]);
        }
        if let Some((kind, name)) = end.workload.as_deref().and_then(|own| own.split_once('/')) {
            value["workloads"] = json!([{"name": name, "kind": kind}]);
        }
        if !end.labels.is_empty() {
            let labels = end.labels.iter();
            value["labels"] = labels.map(|(k, v)| json!(format!("k8s:{k}={v}"))).collect();
        }
        value
    };
    let version = if flow.source.ip.is_ipv4() {
        "IPv4"
    } else {
        "IPv6"
    };
    let mut whole = json!({
        "time": flow.time, "verdict": flow.verdict, "node_name": flow.node,
        "IP": {
            "source": flow.source.ip, "destination": flow.destination.ip, "ipVersion": version,
        },
        "l4": l4, "source": end(&flow.source), "destination": end(&flow.destination),
        "Type": "L3_L4", "is_reply": false, "Summary": summary(flow),
    });
    if let Some(service) = &flow.service {
        whole["destination_service"] = json!({
            "name": service.name.as_deref().unwrap_or(""),
            "namespace": service.namespace.as_deref().unwrap_or(""),
        });
    }
    if let Some(reason) = flow.drop_reason() {
        whole["drop_reason_desc"] = json!(reason);
    }
    if let Some(direction) = flow.direction {
        whole["traffic_direction"] = json!(direction);
    }
    if let (Some(policy), Some(direction)) = (&flow.policy, flow.direction) {
        let denied = match flow.verdict {
            FlowVerdict::Forwarded => "allowed",
            FlowVerdict::Dropped => "denied",
            // Hubble has no word for what would have been.
            FlowVerdict::Audit => "",
        };
        if !denied.is_empty() {
            let field = format!("{}_{denied}_by", direction.name().to_lowercase());
            whole[field] = json!([{
                "name": policy.name, "namespace": policy.namespace.as_deref().unwrap_or(""),
                "kind": policy.kind,
            }]);
        }
    }
    json!({"flow": whole, "node_name": flow.node, "time": flow.time})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags;
    use crate::flow::{FlowDirection, FlowPolicy};

    fn flow() -> Flow {
        let end = |ip: &str, port, pod: Option<&str>| FlowEnd {
            ip: ip.parse().unwrap(),
            port: Some(port),
            namespace: pod.map(|_| "shop".into()),
            pod: pod.map(Into::into),
            labels: [("app".to_owned(), "x".to_owned())].into(),
            workload: None,
        };
        Flow {
            time: "2026-11-01T02:03:04.567890123Z".into(),
            verdict: FlowVerdict::Dropped,
            reason: "no rule matches peer".into(),
            direction: Some(FlowDirection::Ingress),
            source: end("fd00::1", 4000, None),
            destination: end("fd00::2", 80, Some("web-0")),
            service: None,
            protocol: "TCP".into(),
            tcp_flags: vec!["SYN".into()],
            policy: Some(FlowPolicy {
                kind: "NetworkPolicy".into(),
                namespace: Some("shop".into()),
                name: "web".into(),
                rule: None,
                rule_name: None,
            }),
            generation: 3,
            node: "n1".into(),
        }
    }

    fn printed(text: &str) -> String {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let parsed = flags::parse(super::super::FLAGS, &words).unwrap();
        let mut printer = Printer::new(&parsed, false).unwrap();
        let mut text = printer.flow(&flow());
        text.push_str(&printer.flow(&flow()));
        text.push_str(&printer.finish());
        text
    }

    #[test]
    fn the_forms_are_hubbles() {
        let line = "Nov  1 02:03:04.567: [fd00::1]:4000 -> shop/web-0:80 \
                    policy-verdict:shop/web INGRESS DROPPED (TCP Flags: SYN; no rule matches peer)\n";
        assert_eq!(printed(""), line.repeat(2));
        let numeric = printed("--numeric --print-node-name --time-format RFC3339");
        assert!(
            numeric.starts_with("2026-11-01T02:03:04Z [n1]: [fd00::1]:4000 -> [fd00::2]:80 "),
            "{numeric}"
        );
        let dict = printed("-o dict");
        assert_eq!(dict.matches(RULER).count(), 1);
        assert!(dict.contains("\nDESTINATION: shop/web-0:80\n"), "{dict}");
        let table = printed("-o table");
        assert!(table.starts_with("TIMESTAMP "), "{table}");
        assert_eq!(table.lines().count(), 3);
        assert!(printed("--color always").contains("\x1b[31mDROPPED\x1b[0m"));
    }

    #[test]
    fn both_jsons_are_one_object_a_line() {
        let ours = printed("-o json");
        let first: Flow = serde_json::from_str(ours.lines().next().unwrap()).unwrap();
        assert_eq!(first, flow());
        let theirs: Value =
            serde_json::from_str(printed("-o jsonpb").lines().next().unwrap()).unwrap();
        for (pointer, expected) in [
            ("/flow/IP/ipVersion", json!("IPv6")),
            ("/flow/l4/TCP/destination_port", json!(80)),
            ("/flow/l4/TCP/flags/SYN", json!(true)),
            ("/flow/destination/pod_name", json!("web-0")),
            ("/flow/destination/labels/0", json!("k8s:app=x")),
            ("/flow/drop_reason_desc", json!("POLICY_DENIED")),
            ("/flow/ingress_denied_by/0/name", json!("web")),
            ("/node_name", json!("n1")),
        ] {
            assert_eq!(theirs.pointer(pointer), Some(&expected), "{pointer}");
        }
    }
}
