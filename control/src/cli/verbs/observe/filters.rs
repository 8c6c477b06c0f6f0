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
];

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
            "label" => {
                self.left.source_label.push(value.into());
                self.right.destination_label.push(value.into());
            }
            "from-label" => self.both(|filter| filter.source_label.push(value.into())),
            "to-label" => self.both(|filter| filter.destination_label.push(value.into())),
            "protocol" => self.both(|filter| filter.protocol.extend(parts(value))),
            "tcp-flags" => self.both(|filter| filter.tcp_flags.push(value.into())),
            "policy" => self.both(|filter| filter.policy.extend(parts(value))),
            "ipv4" if is_on => self.both(|filter| filter.ip_version.push(4)),
            "ipv6" if is_on => self.both(|filter| filter.ip_version.push(6)),
            "ip-version" => {
                let version = match value.to_ascii_lowercase().as_str() {
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
                    let verdict = verdict.ok_or_else(|| invalid(flag, &part))?;
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
            _ => return Ok(false),
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
            ("--type trace", "invalid --type value: trace"),
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
