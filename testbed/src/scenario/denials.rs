//! The denial log as a scenario reads it: is this denial in it, with this policy?

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// One `PolicyVerdict: DENY` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// `Source`, `NAMESPACE/POD`.
    pub source: String,
    /// `Destination`, `NAMESPACE/POD` or an address.
    pub destination: String,
    /// `DIP`.
    pub destination_address: String,
    /// `DPORT`.
    pub destination_port: u16,
    /// `Policy`, `NAMESPACE/NAME`.
    pub policy: String,
    /// `Generation`.
    pub generation: u64,
}

/// What a probe that was denied must have left in the log.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Sender, `NAMESPACE/POD`.
    pub source: String,
    /// Receiver: `NAMESPACE/POD`, or any if the name could not be looked up or lies outside.
    pub destination: Option<String>,
    /// Port.
    pub port: u16,
    /// Policy, `NAMESPACE/NAME`.
    pub policy: String,
    /// The step's generation: the denial is of this one, or of a later one.
    pub generation: u64,
}

impl Wanted {
    fn is(&self, denial: &Denial) -> bool {
        denial.source == self.source
            && self
                .destination
                .as_ref()
                .is_none_or(|wanted| *wanted == denial.destination)
            && denial.destination_port == self.port
            && denial.policy == self.policy
            && denial.generation >= self.generation
    }
}

/// Reads one line of the log; `None` if it is no denial.
pub fn parse(line: &str) -> Option<Denial> {
    let fields: HashMap<&str, &str> = line
        .split(';')
        .filter_map(|field| field.trim().split_once(": "))
        .collect();
    if fields.get("PolicyVerdict") != Some(&"DENY") {
        return None;
    }
    let text = |key: &str| fields.get(key).map(|value| (*value).to_owned());
    Some(Denial {
        source: text("Source").unwrap_or_default(),
        destination: text("Destination").unwrap_or_default(),
        destination_address: text("DIP")?,
        destination_port: text("DPORT")?.parse().ok()?,
        policy: text("Policy").unwrap_or_default(),
        generation: text("Generation")?.parse().ok()?,
    })
}

/// The wanted denials that the log at `path` does not hold, even after `limit`: it is written
/// beside the packet path and may come a moment later than the silence.
pub fn missing(path: &Path, wanted: &[Wanted], limit: Duration) -> Vec<Wanted> {
    let begin = Instant::now();
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let found: Vec<Denial> = text.lines().filter_map(parse).collect();
        let absent: Vec<Wanted> = wanted
            .iter()
            .filter(|one| !found.iter().any(|denial| one.is(denial)))
            .cloned()
            .collect();
        if absent.is_empty() || begin.elapsed() >= limit {
            return absent;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether the log at `path` gets a denial that is `wanted` behind its first `begin` bytes, at the
/// latest after `limit`. A log that has begun anew meanwhile is read from its start.
pub fn since(path: &Path, begin: u64, limit: Duration, wanted: impl Fn(&Denial) -> bool) -> bool {
    let start = Instant::now();
    loop {
        let bytes = std::fs::read(path).unwrap_or_default();
        let from = usize::try_from(begin).unwrap_or(0);
        let text = String::from_utf8_lossy(bytes.get(from..).unwrap_or(&bytes));
        if text.lines().filter_map(parse).any(|denial| wanted(&denial)) {
            return true;
        }
        if start.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "Node: n1;SIP: 10.0.1.20;SPORT: 41234;DIP: 10.0.2.30;DPORT: 3306;PROTOCOL: \
        TCP;PolicyVerdict: DENY;Tier: NETWORK_POLICY;Direction: INGRESS;Source: \
        orders/orders-0;Destination: catalog/mysql-0;Policy: catalog/allow-db;Reason: no rule \
        matches peer;Generation: 42";

    #[test]
    fn a_line_of_the_log_is_found_by_what_matters() {
        let denial = parse(LINE).unwrap();
        assert_eq!((denial.destination_port, denial.generation), (3306, 42));
        let wanted = Wanted {
            source: "orders/orders-0".into(),
            destination: Some("catalog/mysql-0".into()),
            port: 3306,
            policy: "catalog/allow-db".into(),
            generation: 42,
        };
        assert!(wanted.is(&denial));
        assert!(
            !Wanted {
                generation: 43,
                ..wanted.clone()
            }
            .is(&denial)
        );
        assert!(
            !Wanted {
                policy: "catalog/other".into(),
                ..wanted.clone()
            }
            .is(&denial)
        );
        assert!(
            !Wanted {
                source: "orders/orders-1".into(),
                ..wanted
            }
            .is(&denial)
        );
    }

    #[test]
    fn accepts_and_noise_are_no_denials() {
        assert_eq!(parse(&LINE.replace("DENY", "ACCEPT")), None);
        assert_eq!(parse("started"), None);
    }

    #[test]
    fn a_log_that_is_not_there_holds_nothing() {
        let wanted = Wanted {
            source: "a/b".into(),
            destination: None,
            port: 1,
            policy: "a/p".into(),
            generation: 1,
        };
        assert_eq!(
            missing(Path::new("/nonexistent"), &[wanted], Duration::ZERO).len(),
            1
        );
    }
}
