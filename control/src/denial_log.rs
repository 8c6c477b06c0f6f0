//! The denial log: a line per denied flow, in the AWS network policy agent's form, and one per flow
//! of which a policy in audit mode thinks otherwise (`PolicyVerdict: AUDIT`).
//!
//! The form is that agent's `Node: …;SIP: …;…;PolicyVerdict: DENY`, with more fields behind, so
//! that parsers of its log go on working. The first denial of a flow is written at once; further
//! ones within [`Settings::aggregation_s`] are counted, and written as one line with `Repeated: N`
//! at its end when that time has passed. The log never slows packets: it has a rate and a size, and
//! what it does not write it counts.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use config::LogFormat;
use config::limits::{LOG_FLOWS, LOG_LINES_PER_SECOND};
use dataplane::{Direction, Protocol, Tier};
use serde_json::json;

use crate::flow::protocol_name;

/// How the log is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file.
    pub path: PathBuf,
    /// Form of a line.
    pub format: LogFormat,
    /// Bytes before the file is rotated.
    pub file_bytes: u64,
    /// Rotated files kept.
    pub files: u32,
    /// Seconds over which denials of a flow make one line.
    pub aggregation_s: u32,
    /// The node's name, in every line.
    pub node: String,
}

/// What became of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogVerdict {
    /// It passed.
    Accept,
    /// It was dropped.
    Deny,
    /// It was dropped; the policies in audit mode would let it pass. The entry's policy is theirs.
    WouldAccept,
    /// It passed; the policies in audit mode would drop it. The entry's policy is theirs.
    WouldDeny,
}

impl LogVerdict {
    const fn name(self) -> &'static str {
        match self {
            LogVerdict::Accept => "ACCEPT",
            LogVerdict::Deny => "DENY",
            LogVerdict::WouldAccept | LogVerdict::WouldDeny => "AUDIT",
        }
    }

    /// What the policies in audit mode would do.
    const fn would(self) -> Option<&'static str> {
        match self {
            LogVerdict::WouldAccept => Some("ACCEPT"),
            LogVerdict::WouldDeny => Some("DENY"),
            LogVerdict::Accept | LogVerdict::Deny => None,
        }
    }
}

/// What names a flow and what became of it: equal ones are aggregated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Initiator.
    pub source: IpAddr,
    /// Its port.
    pub source_port: u16,
    /// Responder.
    pub destination: IpAddr,
    /// Its port.
    pub destination_port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// What became of it.
    pub verdict: LogVerdict,
    /// The tier that decided; none where the drop has nothing to do with policy.
    pub tier: Option<Tier>,
    /// The direction that decided.
    pub direction: Option<Direction>,
    /// The source's pod, `NS/POD`.
    pub source_pod: Option<String>,
    /// The destination's pod, `NS/POD`.
    pub destination_pod: Option<String>,
    /// The Service that the initiator asked for, `NS/NAME:PORT`.
    pub service: Option<String>,
    /// The policy that decided, `NS/NAME`.
    pub policy: Option<String>,
    /// Why.
    pub reason: String,
    /// The generation that decided.
    pub generation: u64,
}

#[derive(Debug)]
struct Flow {
    since: Instant,
    repeated: u64,
}

/// The open log.
#[derive(Debug)]
pub struct DenialLog {
    settings: Settings,
    file: Option<File>,
    bytes: u64,
    waiting: Vec<u8>,
    flows: HashMap<Entry, Flow>,
    second: Instant,
    lines_in_second: u32,
    lines: u64,
    lost: u64,
    /// Lines of the last batch, for followers.
    fresh: Vec<String>,
}

impl DenialLog {
    /// Opens the log, which goes on where it was; its folder is made if need be.
    pub fn open(settings: Settings, now: Instant) -> io::Result<DenialLog> {
        if let Some(folder) = settings.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let (file, bytes) = open_file(&settings.path)?;
        Ok(DenialLog {
            settings,
            file: Some(file),
            bytes,
            waiting: Vec::new(),
            flows: HashMap::new(),
            second: now,
            lines_in_second: 0,
            lines: 0,
            lost: 0,
            fresh: Vec::new(),
        })
    }

    /// Takes note of `count` packets of a flow. The first of a flow is written, later ones are
    /// counted.
    pub fn record(&mut self, entry: Entry, count: u64, now: Instant) {
        if let Some(flow) = self.flows.get_mut(&entry) {
            flow.repeated += count;
            return;
        }
        self.write(&entry, 0, now);
        let flow = Flow {
            since: now,
            repeated: count.saturating_sub(1),
        };
        if self.flows.len() < LOG_FLOWS {
            self.flows.insert(entry, flow);
        }
    }

    /// Counts events that were lost on the way here.
    pub fn add_lost(&mut self, count: u64) {
        self.lost += count;
    }

    /// Writes what aggregation held back for long enough, and everything to the file. Gives the
    /// lines written since the last call.
    pub fn flush(&mut self, now: Instant) -> Vec<String> {
        let window = Duration::from_secs(u64::from(self.settings.aggregation_s));
        let due = |flow: &Flow| now.duration_since(flow.since) >= window;
        let ended: Vec<(Entry, Flow)> = self.flows.extract_if(|_, flow| due(flow)).collect();
        for (entry, flow) in ended {
            if flow.repeated > 0 {
                self.write(&entry, flow.repeated, now);
            }
        }
        self.write_out();
        std::mem::take(&mut self.fresh)
    }

    /// Lines written since the start.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Events and lines lost since the start.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.settings.path
    }

    fn write(&mut self, entry: &Entry, repeated: u64, now: Instant) {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.lines_in_second = 0;
        }
        if self.lines_in_second >= LOG_LINES_PER_SECOND {
            self.lost += 1;
            return;
        }
        self.lines_in_second += 1;
        let line = match self.settings.format {
            LogFormat::Text => text_line(&self.settings.node, entry, repeated),
            LogFormat::Json => json_line(&self.settings.node, entry, repeated, SystemTime::now()),
        };
        self.waiting.extend_from_slice(line.as_bytes());
        self.waiting.push(b'\n');
        self.lines += 1;
        self.fresh.push(line);
    }

    fn write_out(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let written = self.rotate().and_then(|()| match &mut self.file {
            Some(file) => file.write_all(&self.waiting),
            None => Err(io::ErrorKind::NotFound.into()),
        });
        match written {
            Ok(()) => self.bytes += self.waiting.len() as u64,
            // A full or vanished disk must not take the daemon along. The next batch tries again.
            Err(_) => {
                self.lost += self.waiting.iter().filter(|byte| **byte == b'\n').count() as u64;
                self.file = None;
            }
        }
        self.waiting.clear();
    }

    fn rotate(&mut self) -> io::Result<()> {
        let path = &self.settings.path;
        if self.bytes >= self.settings.file_bytes {
            self.file = None;
            let numbered = |n: u32| {
                let mut name = path.clone().into_os_string();
                name.push(format!(".{n}"));
                PathBuf::from(name)
            };
            for n in (1..self.settings.files).rev() {
                match fs::rename(numbered(n), numbered(n + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            if self.settings.files == 0 {
                fs::remove_file(path)?;
            } else {
                fs::rename(path, numbered(1))?;
            }
        }
        if self.file.is_none() {
            let (file, bytes) = open_file(path)?;
            self.file = Some(file);
            self.bytes = bytes;
        }
        Ok(())
    }
}

fn open_file(path: &Path) -> io::Result<(File, u64)> {
    let file = File::options().append(true).create(true).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

/// A tier as it is written; `NONE` if none decided.
pub fn tier_name(tier: Option<Tier>) -> &'static str {
    match tier {
        Some(Tier::SecurityGroup) => "SECURITY_GROUP",
        Some(Tier::Admin) => "ADMIN",
        Some(Tier::NetworkPolicy) => "NETWORK_POLICY",
        Some(Tier::Baseline) => "BASELINE",
        Some(Tier::Default) => "DEFAULT",
        None => "NONE",
    }
}

/// A direction as it is written; `NONE` if none decided.
pub fn direction_name(direction: Option<Direction>) -> &'static str {
    match direction {
        Some(Direction::Ingress) => "INGRESS",
        Some(Direction::Egress) => "EGRESS",
        None => "NONE",
    }
}

/// One line of text. Absent names are `-`, so that a value is never empty.
fn text_line(node: &str, entry: &Entry, repeated: u64) -> String {
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".into());
    let mut line = format!(
        "Node: {node};SIP: {};SPORT: {};DIP: {};DPORT: {};PROTOCOL: {};PolicyVerdict: {};\
         Tier: {};Direction: {};Source: {};Destination: {};Policy: {};Reason: {};Generation: {}",
        entry.source,
        entry.source_port,
        entry.destination,
        entry.destination_port,
        protocol_name(entry.protocol),
        entry.verdict.name(),
        tier_name(entry.tier),
        direction_name(entry.direction),
        name(&entry.source_pod),
        name(&entry.destination_pod),
        name(&entry.policy),
        // A rule's name, which its author has chosen, must not look like a field.
        entry.reason.replace(';', ","),
        entry.generation,
    );
    if let Some(service) = &entry.service {
        line.push_str(&format!(";Service: {service}"));
    }
    if let Some(would) = entry.verdict.would() {
        line.push_str(&format!(";Would: {would}"));
    }
    if repeated > 0 {
        line.push_str(&format!(";Repeated: {repeated}"));
    }
    line
}

fn json_line(node: &str, entry: &Entry, repeated: u64, now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "timeMicros": u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
        "node": node,
        "sourceIP": entry.source,
        "sourcePort": entry.source_port,
        "destinationIP": entry.destination,
        "destinationPort": entry.destination_port,
        "protocol": protocol_name(entry.protocol),
        "verdict": entry.verdict.name(),
        "tier": tier_name(entry.tier),
        "direction": direction_name(entry.direction),
        "source": entry.source_pod,
        "destination": entry.destination_pod,
        "policy": entry.policy,
        "reason": entry.reason,
        "generation": entry.generation,
        "service": entry.service,
        "would": entry.verdict.would(),
        "repeated": repeated,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(source_port: u16) -> Entry {
        Entry {
            source: "10.0.1.20".parse().unwrap(),
            source_port,
            destination: "10.0.2.30".parse().unwrap(),
            destination_port: 3306,
            protocol: Protocol::TCP,
            verdict: LogVerdict::Deny,
            tier: Some(Tier::NetworkPolicy),
            direction: Some(Direction::Ingress),
            source_pod: Some("orders/orders-0".into()),
            destination_pod: Some("catalog/catalog-mysql-0".into()),
            service: None,
            policy: Some("catalog/allow-catalog-ingress-db".into()),
            reason: "no rule matches peer".into(),
            generation: 42,
        }
    }

    fn open(name: &str, file_bytes: u64) -> (DenialLog, Instant, PathBuf) {
        let folder = std::env::temp_dir().join(format!("weir-log-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let settings = Settings {
            path: folder.join("network-policy.log"),
            format: LogFormat::Text,
            file_bytes,
            files: 2,
            aggregation_s: 10,
            node: "n1".into(),
        };
        let now = Instant::now();
        (DenialLog::open(settings, now).unwrap(), now, folder)
    }

    #[test]
    fn the_line_is_the_one_that_is_promised() {
        assert_eq!(
            text_line("n1", &entry(41234), 0),
            "Node: n1;SIP: 10.0.1.20;SPORT: 41234;DIP: 10.0.2.30;DPORT: 3306;PROTOCOL: TCP;\
             PolicyVerdict: DENY;Tier: NETWORK_POLICY;Direction: INGRESS;Source: orders/orders-0;\
             Destination: catalog/catalog-mysql-0;Policy: catalog/allow-catalog-ingress-db;\
             Reason: no rule matches peer;Generation: 42"
        );
    }

    #[test]
    fn a_service_that_was_asked_for_stands_behind() {
        let through = Entry {
            service: Some("catalog/catalog-mysql:3306".into()),
            ..entry(1)
        };
        let line = text_line("n1", &through, 0);
        let end = ";Generation: 42;Service: catalog/catalog-mysql:3306";
        assert!(line.ends_with(end), "{line}");
    }

    #[test]
    fn a_policy_in_audit_mode_says_at_the_end_what_it_would_do() {
        let audited = Entry {
            verdict: LogVerdict::WouldDeny,
            reason: "would be denied: no rule matches".into(),
            ..entry(1)
        };
        let line = text_line("n1", &audited, 3);
        assert!(
            line.contains(";PolicyVerdict: AUDIT;Tier: NETWORK_POLICY;"),
            "{line}"
        );
        assert!(
            line.ends_with(";Generation: 42;Would: DENY;Repeated: 3"),
            "{line}"
        );
    }

    #[test]
    fn repeated_denials_make_one_more_line_when_their_time_has_passed() {
        let (mut log, now, folder) = open("aggregate", 1 << 20);
        for _ in 0..5 {
            log.record(entry(1), 1, now);
        }
        log.record(entry(2), 1, now);
        assert_eq!(log.flush(now).len(), 2);
        assert_eq!(log.flush(now + Duration::from_secs(9)).len(), 0);
        let later = log.flush(now + Duration::from_secs(10));
        assert_eq!(later.len(), 1, "{later:?}");
        assert!(
            later[0].ends_with(";Generation: 42;Repeated: 4"),
            "{later:?}"
        );
        let text = fs::read_to_string(log.path()).unwrap();
        assert_eq!(text.lines().count(), 3);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn files_are_rotated_and_the_oldest_goes() {
        let (mut log, now, folder) = open("rotate", 1000);
        for port in 0..100 {
            log.record(entry(port), 1, now);
            log.flush(now);
        }
        let mut names: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let expected = [
            "network-policy.log",
            "network-policy.log.1",
            "network-policy.log.2",
        ];
        assert_eq!(names, expected);
        for name in names {
            assert!(fs::metadata(folder.join(name)).unwrap().len() < 1400);
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn beyond_the_rate_lines_are_lost_and_counted() {
        let (mut log, now, folder) = open("rate", 1 << 30);
        let sent = LOG_LINES_PER_SECOND + 100;
        for n in 0..sent {
            let mut flow = entry(n as u16);
            flow.destination_port = (n >> 16) as u16;
            log.record(flow, 1, now);
        }
        assert_eq!(
            (log.lines(), log.lost()),
            (u64::from(LOG_LINES_PER_SECOND), 100)
        );
        let mut other = entry(1);
        other.generation += 1;
        log.record(other, 1, now + Duration::from_secs(1));
        let lines = u64::from(LOG_LINES_PER_SECOND) + 1;
        assert_eq!((log.lines(), log.lost()), (lines, 100));
        fs::remove_dir_all(folder).unwrap();
    }
}
