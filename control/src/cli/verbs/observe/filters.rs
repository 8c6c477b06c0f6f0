//! From flags to filters, as Hubble combines them: values of one flag are alternatives, different
//! flags must all hold, `--not` turns the one flag behind it round, and a flag about either end
//! makes two filters of which one must hold.

use crate::cli::session::VerbError;
use crate::flow::filter::{FlowFilter, FlowType};
use crate::flow::{FlowDirection, FlowVerdict};

/// Flags that contradict each other, as Hubble's.
const CONFLICTS: &[&[&str]] = &[
    &[
        "from-ip",
        "ip",
        "from-namespace",
        "namespace",
        "from-all-namespaces",
        "all-namespaces",
    ],
    &["from-ip", "ip", "from-pod", "pod"],
    &[
        "to-ip",
        "ip",
        "to-namespace",
        "namespace",
        "to-all-namespaces",
        "all-namespaces",
    ],
    &["to-ip", "ip", "to-pod", "pod"],
    &["to-pod", "namespace", "all-namespaces"],
    &["from-pod", "namespace", "all-namespaces"],
    &["label", "from-label"],
    &["label", "to-label"],
    &["port", "to-port"],
    &["port", "from-port"],
    &["workload", "from-workload"],
    &["workload", "to-workload"],
];

/// Hubble's filters about what is not known here, and why it is not.
pub const REFUSED: [(&str, &str); 23] = [
    ("fqdn", NAMES),
    ("from-fqdn", NAMES),
    ("to-fqdn", NAMES),
    ("http-status", LAYER_7),
    ("http-method", LAYER_7),
    ("http-path", LAYER_7),
    ("http-url", LAYER_7),
    ("http-header", LAYER_7),
    ("trace-id", LAYER_7),
    ("ip-trace-id", LAYER_7),
    ("identity", IDENTITIES),
    ("from-identity", IDENTITIES),
    ("to-identity", IDENTITIES),
    ("from-cluster", CLUSTERS),
    ("to-cluster", CLUSTERS),
    ("node-label", "nodes have no labels here: use --node-name"),
    (
        "from-service",
        "connections are opened by pods, never by Services: use --to-service",
    ),
    (
        "snat-ip",
        "flows are told with the addresses that policy judges, before any translation",
    ),
    ("uuid", "flows have no identifiers"),
    (
        "interface",
        "flows are told with pods, not with interfaces: use `weir capture INTERFACE`",
    ),
    ("cel-expression", "use --verdict, --policy and the like"),
    ("allowlist", RAW),
    ("denylist", RAW),
];

const NAMES: &str = "no names of the outside are known here: use --ip, --from-ip or --to-ip";
const LAYER_7: &str = "packets are not read beyond layer 4";
const IDENTITIES: &str =
    "there are no identities here, pods are known by their labels: use --label";
const CLUSTERS: &str = "flows are of one cluster";
const RAW: &str = "Hubble's own form of filters is not read here: use the flags";

/// Both lists of filters.
#[derive(Debug, Default)]
pub struct Filters {
    /// One of them must take a flow.
    pub allow: Vec<FlowFilter>,
    /// None of them may.
    pub deny: Vec<FlowFilter>,
}

/// The flags of one list.
#[derive(Debug, Default)]
struct Gathered {
    /// For flags about either end: this filter has them for the source,
    left: FlowFilter,
    /// and this one for the destination.
    right: FlowFilter,
    /// Namespaces of either end, of the source, of the destination.
    namespaces: [Vec<String>; 3],
    given: Vec<&'static str>,
}

impl Filters {
    /// Reads the flags in the order in which they stand.
    pub fn read(flags: &[(&'static str, String)]) -> Result<Filters, VerbError> {
        let (mut allow, mut deny) = (Gathered::default(), Gathered::default());
        let mut negated = false;
        for (flag, value) in flags {
            if *flag == "not" {
                if std::mem::replace(&mut negated, true) {
                    return Err(VerbError::Usage("consecutive --not statements".into()));
                }
                continue;
            }
            let gathered = if negated { &mut deny } else { &mut allow };
            if gathered.take(flag, value)? {
                negated = false;
            }
        }
        if negated {
            let text = "trailing --not found in the arguments";
            return Err(VerbError::Usage(text.into()));
        }
        Ok(Filters {
            allow: allow.finish()?,
            deny: deny.finish()?,
        })
    }
}

/// A comma-separated value in its parts.
fn parts(value: &str) -> impl Iterator<Item = String> {
    value
        .split(',')
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
}

/// Hubble knows more verdicts, of what Cilium does and Weir does not.
fn unknown_verdict(value: &str) -> VerbError {
    let others = ["REDIRECTED", "ERROR", "TRACED", "TRANSLATED"];
    if others.iter().any(|other| other.eq_ignore_ascii_case(value)) {
        return VerbError::Usage(format!(
            "--verdict {value}: nothing has it here; there are FORWARDED, DROPPED and AUDIT"
        ));
    }
    invalid("verdict", value)
}

fn invalid(flag: &str, value: &str) -> VerbError {
    VerbError::Usage(format!("invalid --{flag} value: {value}"))
}

impl Gathered {
    /// Takes a flag; whether it is a filter.
    fn take(&mut self, flag: &'static str, value: &str) -> Result<bool, VerbError> {
        let is_on = value == "true";
        match flag {
            "pod" => {
                self.left.source_pod.push(value.into());
                self.right.destination_pod.push(value.into());
            }
            "from-pod" => self.both(|filter| filter.source_pod.push(value.into())),
            "to-pod" => self.both(|filter| filter.destination_pod.push(value.into())),
            "namespace" => self.namespaces[0].extend(parts(value)),
            "from-namespace" => self.namespaces[1].extend(parts(value)),
            "to-namespace" => self.namespaces[2].extend(parts(value)),
            "all-namespaces" if is_on => self.namespaces[0].push(String::new()),
            "from-all-namespaces" if is_on => self.namespaces[1].push(String::new()),
            "to-all-namespaces" if is_on => self.namespaces[2].push(String::new()),
            "ip" => {
                self.left.source_ip.extend(parts(value));
                self.right.destination_ip.extend(parts(value));
            }
            "from-ip" => self.both(|filter| filter.source_ip.extend(parts(value))),
            "to-ip" => self.both(|filter| filter.destination_ip.extend(parts(value))),
            "port" => {
                let ports = ports(flag, value)?;
                self.left.source_port.extend(&ports);
                self.right.destination_port.extend(&ports);
            }
            "from-port" => {
                let ports = ports(flag, value)?;
                self.both(|filter| filter.source_port.extend(&ports));
            }
            "to-port" => {
                let ports = ports(flag, value)?;
                self.both(|filter| filter.destination_port.extend(&ports));
            }
            "workload" => {
                self.left.source_workload.extend(parts(value));
                self.right.destination_workload.extend(parts(value));
            }
            "from-workload" => self.both(|filter| filter.source_workload.extend(parts(value))),
            "to-workload" => self.both(|filter| filter.destination_workload.extend(parts(value))),
            "service" | "to-service" => {
                self.both(|filter| filter.destination_service.push(value.into()));
            }
            "node-name" => self.both(|filter| filter.node_name.extend(parts(value))),
            "label" => {
                self.left.source_label.push(value.into());
                self.right.destination_label.push(value.into());
            }
            "from-label" => self.both(|filter| filter.source_label.push(value.into())),
            "to-label" => self.both(|filter| filter.destination_label.push(value.into())),
            "protocol" => {
                let is_layer_7 = |name: &String| {
                    ["dns", "http", "kafka"]
                        .iter()
                        .any(|known| known.eq_ignore_ascii_case(name))
                };
                if let Some(name) = parts(value).find(is_layer_7) {
                    return Err(VerbError::Usage(format!("--protocol {name}: {LAYER_7}")));
                }
                self.both(|filter| filter.protocol.extend(parts(value)));
            }
            "tcp-flags" => self.both(|filter| filter.tcp_flags.push(value.into())),
            "policy" => self.both(|filter| filter.policy.extend(parts(value))),
            "ipv4" if is_on => self.both(|filter| filter.ip_version.push(4)),
            "ipv6" if is_on => self.both(|filter| filter.ip_version.push(6)),
            "ip-version" => {
                let version = match value.to_ascii_lowercase().as_str() {
                    "none" => {
                        let text =
                            "--ip-version none: flows are IP's; ARP is shown by `weir capture`";
                        return Err(VerbError::Usage(text.into()));
                    }
                    "4" | "v4" | "ipv4" | "ip4" => 4,
                    "6" | "v6" | "ipv6" | "ip6" => 6,
                    _ => return Err(invalid(flag, value)),
                };
                self.both(|filter| filter.ip_version.push(version));
            }
            "verdict" => {
                for part in parts(value) {
                    let named = |v: &FlowVerdict| v.name().eq_ignore_ascii_case(&part);
                    let verdict = FlowVerdict::ALL.into_iter().find(named);
                    let verdict = verdict.ok_or_else(|| unknown_verdict(&part))?;
                    self.both(|filter| filter.verdict.push(verdict));
                }
            }
            "drop-reason-desc" => {
                let reason = value.to_ascii_uppercase();
                let mut known = dataplane::DropReason::ALL.iter().map(|r| r.name());
                let is_known = known.any(|name| name.eq_ignore_ascii_case(&reason));
                if !is_known {
                    return Err(invalid(flag, value));
                }
                self.both(|filter| filter.drop_reason.push(reason.clone()));
            }
            "type" => {
                let kind = match value {
                    "drop" => FlowType::Drop,
                    "policy-verdict" => FlowType::PolicyVerdict,
                    "trace" | "trace-sock" | "l7" | "capture" => {
                        return Err(VerbError::Usage(format!(
                            "--type {value}: there are drop and policy-verdict here; single packets \
                             are shown by `weir capture`"
                        )));
                    }
                    _ => return Err(invalid(flag, value)),
                };
                self.both(|filter| filter.event_type.push(kind));
            }
            "traffic-direction" => {
                let direction = match value.to_ascii_lowercase().as_str() {
                    "ingress" => FlowDirection::Ingress,
                    "egress" => FlowDirection::Egress,
                    _ => return Err(invalid(flag, value)),
                };
                self.both(|filter| filter.direction.push(direction));
            }
            _ => {
                if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == flag) {
                    return Err(VerbError::Usage(format!("--{flag} cannot be had: {why}")));
                }
                return Ok(false);
            }
        }
        self.given.push(flag);
        Ok(true)
    }

    fn both(&mut self, mut change: impl FnMut(&mut FlowFilter)) {
        change(&mut self.left);
        change(&mut self.right);
    }

    fn finish(mut self) -> Result<Vec<FlowFilter>, VerbError> {
        for group in CONFLICTS {
            let mut present = group.iter().filter(|flag| self.given.contains(flag));
            if let (Some(one), Some(other)) = (present.next(), present.next()) {
                return Err(VerbError::Usage(format!(
                    "filters --{one} and --{other} cannot be combined"
                )));
            }
        }
        let [either, source, destination] = std::mem::take(&mut self.namespaces);
        in_namespaces(&mut self.left.source_pod, &either)?;
        in_namespaces(&mut self.right.destination_pod, &either)?;
        for filter in [&mut self.left, &mut self.right] {
            in_namespaces(&mut filter.source_pod, &source)?;
            in_namespaces(&mut filter.destination_pod, &destination)?;
        }
        if self.left == self.right {
            let nothing = self.left == FlowFilter::default();
            return Ok(if nothing { Vec::new() } else { vec![self.left] });
        }
        Ok(vec![self.left, self.right])
    }
}

/// Gives pods the namespaces; without pods any pod of them is meant.
fn in_namespaces(pods: &mut Vec<String>, namespaces: &[String]) -> Result<(), VerbError> {
    if namespaces.is_empty() {
        return Ok(());
    }
    if pods.is_empty() {
        pods.push(String::new());
    }
    let mut named = Vec::new();
    for pod in pods.iter() {
        for namespace in namespaces {
            match pod.split_once('/') {
                Some((own, _)) if own != namespace => {
                    return Err(VerbError::Usage(format!(
                        "namespace conflict: {namespace:?} does not contain {pod:?}"
                    )));
                }
                Some(_) => named.push(pod.clone()),
                None => named.push(format!("{namespace}/{pod}")),
            }
        }
    }
    *pods = named;
    Ok(())
}

fn ports(flag: &str, value: &str) -> Result<Vec<u16>, VerbError> {
    parts(value)
        .map(|part| part.parse().map_err(|_| invalid(flag, &part)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags;

    fn read(text: &str) -> Result<Filters, VerbError> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let parsed = flags::parse(super::super::FLAGS, &words).unwrap();
        Filters::read(&parsed.in_order)
    }

    #[test]
    fn a_flag_about_either_end_makes_a_filter_for_each() {
        let Filters { allow, deny } = read("--pod shop/web --to-port 80,81 -f").unwrap();
        assert!(deny.is_empty());
        let [left, right] = allow.as_slice() else {
            panic!("{allow:?}");
        };
        assert_eq!(left.source_pod, ["shop/web"]);
        assert!(left.destination_pod.is_empty());
        assert_eq!(right.destination_pod, ["shop/web"]);
        assert_eq!(left.destination_port, [80, 81]);
        assert_eq!(right.destination_port, [80, 81]);
    }

    #[test]
    fn not_turns_one_flag_round() {
        let filters = read("--not --protocol udp --verdict DROPPED --not --to-port 53").unwrap();
        assert_eq!(filters.allow[0].verdict, [FlowVerdict::Dropped]);
        assert!(filters.allow[0].protocol.is_empty());
        assert_eq!(filters.deny[0].protocol, ["udp"]);
        assert_eq!(filters.deny[0].destination_port, [53]);
    }

    #[test]
    fn namespaces_qualify_pods_and_stand_for_all_of_theirs() {
        let filters = read("-n shop").unwrap();
        assert_eq!(filters.allow[0].source_pod, ["shop/"]);
        assert_eq!(filters.allow[1].destination_pod, ["shop/"]);
        let filters = read("-n shop --pod web").unwrap();
        assert_eq!(filters.allow[0].source_pod, ["shop/web"]);
        let filters = read("--to-namespace shop --to-pod web").unwrap();
        assert_eq!(filters.allow.len(), 1);
        assert_eq!(filters.allow[0].destination_pod, ["shop/web"]);
        let filters = read("-A").unwrap();
        assert_eq!(filters.allow[0].source_pod, ["/"]);
    }

    #[test]
    fn contradictions_and_nonsense_are_refused_in_hubbles_words() {
        for (text, expected) in [
            (
                "--from-pod a -n b",
                "filters --from-pod and --namespace cannot be combined",
            ),
            (
                "--port 1 --to-port 2",
                "filters --port and --to-port cannot be combined",
            ),
            (
                "--pod a/b -n c",
                "namespace conflict: \"c\" does not contain \"a/b\"",
            ),
            ("--verdict MAYBE", "invalid --verdict value: MAYBE"),
            ("--type sideways", "invalid --type value: sideways"),
            (
                "--type trace",
                "--type trace: there are drop and policy-verdict here; single packets are shown by \
                 `weir capture`",
            ),
            (
                "--verdict redirected",
                "--verdict redirected: nothing has it here; there are FORWARDED, DROPPED and AUDIT",
            ),
            (
                "--protocol tcp,http",
                "--protocol http: packets are not read beyond layer 4",
            ),
            (
                "--to-fqdn *.example",
                "--to-fqdn cannot be had: no names of the outside are known here: use --ip, \
                 --from-ip or --to-ip",
            ),
            (
                "--workload a --to-workload b",
                "filters --workload and --to-workload cannot be combined",
            ),
            (
                "--drop-reason-desc X",
                "invalid --drop-reason-desc value: X",
            ),
            ("--not", "trailing --not found in the arguments"),
            ("--not --not --port 1", "consecutive --not statements"),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), expected, "{text}");
        }
        assert_eq!(read("").unwrap().allow, []);
    }
}
