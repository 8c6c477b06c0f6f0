//! Who has talked to whom, as far as one page has seen it: flows with the same ends, protocol and
//! port make an edge, and each edge knows what policy says of it now.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use control::flow::{Flow, FlowEnd, FlowVerdict};
use control::protocol::TraceParams;
use serde_json::{Value, json};

/// Edges of one page. Beyond it those that were quiet for longest go.
pub const EDGES: usize = 4096;

/// What an edge is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    from: String,
    to: String,
    protocol: String,
    port: Option<u16>,
}

/// What policy says of an edge at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// `allow` or `deny`; none where it cannot be asked.
    pub verdict: Option<String>,
    /// The decision in a line, or why it cannot be asked.
    pub reason: String,
}

#[derive(Clone, Debug)]
struct Edge {
    id: u64,
    forwarded: u64,
    dropped: u64,
    audited: u64,
    last: String,
    verdict: FlowVerdict,
    reason: String,
    by_policy: bool,
    policy: Option<String>,
    question: Option<TraceParams>,
    judged: Option<(u64, Judgement)>,
    is_new: bool,
}

/// The edges of one page.
#[derive(Debug, Default)]
pub struct Edges {
    edges: BTreeMap<Key, Edge>,
    nodes: HashSet<IpAddr>,
    removed: Vec<u64>,
    last_id: u64,
}

/// What the page calls the node itself.
const NODE: &str = "node";

impl Edges {
    /// An address of the node itself: what it sends is not judged as a stranger's.
    pub fn add_node_address(&mut self, address: &str) {
        if let Ok(address) = address.parse() {
            self.nodes.insert(address);
        }
    }

    /// Takes note of a flow. What goes to many at once, or comes from an address of one link alone,
    /// says nothing of who talks to whom.
    pub fn add(&mut self, flow: &Flow) {
        let is_housekeeping = flow.destination.ip.is_multicast()
            || [&flow.source, &flow.destination]
                .iter()
                .any(|end| is_of_a_link(end.ip));
        if is_housekeeping {
            return;
        }
        let key = Key {
            from: self.name(&flow.source),
            to: self.name(&flow.destination),
            protocol: flow.protocol.clone(),
            port: flow.destination.port,
        };
        if !self.edges.contains_key(&key) {
            self.make_room();
            self.last_id += 1;
        }
        let (id, question) = (self.last_id, self.question(flow));
        let edge = self.edges.entry(key).or_insert_with(|| Edge {
            id,
            forwarded: 0,
            dropped: 0,
            audited: 0,
            last: String::new(),
            verdict: flow.verdict,
            reason: String::new(),
            by_policy: false,
            policy: None,
            question,
            judged: None,
            is_new: true,
        });
        match flow.verdict {
            FlowVerdict::Forwarded => edge.forwarded += 1,
            FlowVerdict::Dropped => edge.dropped += 1,
            FlowVerdict::Audit => edge.audited += 1,
        }
        edge.is_new = true;
        // What audit mode thinks is not what became of it.
        if flow.verdict != FlowVerdict::Audit && flow.time >= edge.last {
            edge.last.clone_from(&flow.time);
            edge.verdict = flow.verdict;
            edge.reason.clone_from(&flow.reason);
            edge.by_policy = flow.is_policy_verdict();
            edge.policy = flow.policy.as_ref().map(|policy| policy.full_name());
        }
    }

    fn name(&self, end: &FlowEnd) -> String {
        match end.pod_name() {
            Some(pod) => pod,
            None if self.nodes.contains(&end.ip) => NODE.to_owned(),
            None => end.ip.to_string(),
        }
    }

    /// The question whether policy allows the flow; none if it is not policy's alone. The node
    /// always reaches its pods, which depends on the way a packet comes and not on an address.
    fn question(&self, flow: &Flow) -> Option<TraceParams> {
        let end = |end: &FlowEnd| match end.pod_name() {
            Some(pod) => Some(format!("pod/{pod}")),
            None if self.nodes.contains(&end.ip) => None,
            None => Some(end.ip.to_string()),
        };
        let protocol = match flow.protocol.as_str() {
            "ICMPV6" => "ICMP",
            known @ ("TCP" | "UDP" | "SCTP" | "ICMP") => known,
            _ => return None,
        };
        let (from, mut to) = (end(&flow.source)?, end(&flow.destination)?);
        let mut port = flow.destination.port;
        // Its own address is nobody's to deny; by a Service's it is.
        if let Some(service) = flow.service.as_ref().filter(|_| from == to) {
            (to, port) = (service.ip.to_string(), Some(service.port));
        }
        Some(TraceParams {
            from,
            to,
            port: port.map(|port| port.to_string()),
            protocol: Some(protocol.to_owned()),
            namespace: None,
        })
    }

    /// Many go at once, so that a scan of ports does not look for the oldest at each of them.
    fn make_room(&mut self) {
        if self.edges.len() < EDGES {
            return;
        }
        let mut times: Vec<&String> = self.edges.values().map(|edge| &edge.last).collect();
        let (_, newest_to_go, _) = times.select_nth_unstable(EDGES / 8);
        let newest_to_go = newest_to_go.clone();
        let mut left = EDGES / 8;
        let removed = &mut self.removed;
        self.edges.retain(|_, edge| {
            let goes = left > 0 && edge.last <= newest_to_go;
            if goes {
                left -= 1;
                removed.push(edge.id);
            }
            !goes
        });
    }

    /// A pod (`NS/POD`) is gone, and its edges with it.
    pub fn forget(&mut self, pod: &str) {
        let removed = &mut self.removed;
        self.edges.retain(|key, edge| {
            let stays = key.from != pod && key.to != pod;
            if !stays {
                removed.push(edge.id);
            }
            stays
        });
    }

    /// Questions whose answers are of an older generation, at most so many, the most recent edges
    /// first, each with its edge's number.
    pub fn unjudged(&self, generation: u64, limit: usize) -> Vec<(u64, TraceParams)> {
        let is_open = |edge: &&Edge| edge.judged.as_ref().is_none_or(|(at, _)| *at < generation);
        let mut open: Vec<&Edge> = self.edges.values().filter(is_open).collect();
        open.retain(|edge| edge.question.is_some());
        open.sort_by(|a, b| b.last.cmp(&a.last));
        let asked = open.into_iter().take(limit);
        asked
            .filter_map(|edge| Some((edge.id, edge.question.clone()?)))
            .collect()
    }

    /// What policy says of an edge.
    pub fn judge(&mut self, id: u64, generation: u64, judgement: Judgement) {
        let edge = self.edges.values_mut().find(|edge| edge.id == id);
        let Some(edge) = edge else { return };
        let before = edge.judged.replace((generation, judgement));
        let now = edge.judged.as_ref().map(|(_, judgement)| judgement);
        edge.is_new |= before.as_ref().map(|(_, judgement)| judgement) != now;
    }

    /// What has changed since the last time, for the page; none if nothing has.
    pub fn take(&mut self) -> Option<Value> {
        let changed = self.edges.iter_mut().filter(|(_, edge)| edge.is_new);
        let shown: Vec<Value> = changed
            .map(|(key, edge)| {
                edge.is_new = false;
                shown(key, edge)
            })
            .collect();
        let removed = std::mem::take(&mut self.removed);
        let nothing = shown.is_empty() && removed.is_empty();
        (!nothing).then(|| json!({"edges": shown, "removed": removed}))
    }
}

fn is_of_a_link(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_unspecified(),
    }
}

fn shown(key: &Key, edge: &Edge) -> Value {
    let judgement = edge.judged.as_ref().map(|(_, judgement)| judgement);
    json!({
        "id": edge.id,
        "from": key.from,
        "to": key.to,
        "protocol": key.protocol,
        "port": key.port,
        "forwarded": edge.forwarded,
        "dropped": edge.dropped,
        "audited": edge.audited,
        "last": edge.last,
        "verdict": edge.verdict,
        "reason": edge.reason,
        "byPolicy": edge.by_policy,
        "policy": edge.policy,
        "now": judgement.and_then(|judgement| judgement.verdict.clone()),
        "nowReason": judgement.map(|judgement| &judgement.reason),
    })
}

#[cfg(test)]
mod tests {
    use control::flow::FlowService;

    use super::*;

    fn end(ip: &str, pod: Option<&str>, port: u16) -> FlowEnd {
        FlowEnd {
            ip: ip.parse().unwrap(),
            port: Some(port),
            namespace: pod.map(|_| "shop".into()),
            pod: pod.map(Into::into),
            labels: Default::default(),
            workload: None,
        }
    }

    fn flow(from: FlowEnd, to: FlowEnd, verdict: FlowVerdict, second: u32) -> Flow {
        Flow {
            time: format!("2026-11-30T01:00:{second:02}.000000000Z"),
            verdict,
            reason: "because".into(),
            direction: None,
            source: from,
            destination: to,
            service: None,
            protocol: "TCP".into(),
            tcp_flags: Vec::new(),
            policy: None,
            generation: 1,
            node: "n".into(),
        }
    }

    fn a_to_b(verdict: FlowVerdict, second: u32) -> Flow {
        let (a, b) = (
            end("10.0.0.1", Some("a"), 4000),
            end("10.0.0.2", Some("b"), 80),
        );
        flow(a, b, verdict, second)
    }

    #[test]
    fn flows_of_one_pair_and_port_are_one_edge_that_knows_the_last() {
        let mut edges = Edges::default();
        edges.add(&a_to_b(FlowVerdict::Forwarded, 1));
        edges.add(&a_to_b(FlowVerdict::Dropped, 3));
        edges.add(&a_to_b(FlowVerdict::Forwarded, 2));
        edges.add(&a_to_b(FlowVerdict::Audit, 4));
        let told = edges.take().unwrap();
        let [edge] = told["edges"].as_array().unwrap().as_slice() else {
            panic!("{told}");
        };
        assert_eq!(
            (&edge["from"], &edge["to"]),
            (&json!("shop/a"), &json!("shop/b"))
        );
        assert_eq!(edge["forwarded"], 2);
        assert_eq!(edge["dropped"], 1);
        assert_eq!(edge["audited"], 1);
        assert_eq!(edge["verdict"], "DROPPED");
        assert_eq!(edges.take(), None);
    }

    #[test]
    fn a_new_generation_asks_again_and_tells_only_what_changed() {
        let mut edges = Edges::default();
        edges.add(&a_to_b(FlowVerdict::Forwarded, 1));
        let asked = edges.unjudged(7, 10);
        assert_eq!(asked[0].1.from, "pod/shop/a");
        let judgement = |verdict: &str| Judgement {
            verdict: Some(verdict.into()),
            reason: "r".into(),
        };
        edges.judge(asked[0].0, 7, judgement("allow"));
        assert_eq!(edges.take().unwrap()["edges"][0]["now"], "allow");
        assert!(edges.unjudged(7, 10).is_empty());
        assert_eq!(edges.unjudged(8, 10).len(), 1);
        edges.judge(asked[0].0, 8, judgement("allow"));
        assert_eq!(edges.take(), None);
        edges.judge(asked[0].0, 9, judgement("deny"));
        assert_eq!(edges.take().unwrap()["edges"][0]["now"], "deny");
    }

    #[test]
    fn a_pod_that_reaches_itself_by_a_service_is_asked_about_by_that() {
        let mut edges = Edges::default();
        let own = |port| end("10.0.0.1", Some("a"), port);
        let service = FlowService {
            ip: "10.96.0.1".parse().unwrap(),
            port: 80,
            namespace: None,
            name: None,
        };
        edges.add(&Flow {
            service: Some(service.clone()),
            ..flow(own(4000), own(8080), FlowVerdict::Dropped, 1)
        });
        edges.add(&Flow {
            service: Some(service),
            ..a_to_b(FlowVerdict::Forwarded, 1)
        });
        let asked = edges.unjudged(1, 10).into_iter();
        let mut asked: Vec<(String, String)> = asked
            .map(|(_, question)| (question.to, question.port.unwrap_or_default()))
            .collect();
        asked.sort();
        let expected = [("10.96.0.1", "80"), ("pod/shop/b", "80")];
        assert_eq!(asked, expected.map(|(to, port)| (to.into(), port.into())));
    }

    #[test]
    fn what_the_node_sends_is_the_nodes_and_not_judged() {
        let mut edges = Edges::default();
        edges.add_node_address("192.0.2.1");
        let probe = flow(
            end("192.0.2.1", None, 4000),
            end("10.0.0.2", Some("b"), 80),
            FlowVerdict::Forwarded,
            1,
        );
        edges.add(&probe);
        assert!(edges.unjudged(1, 10).is_empty());
        assert_eq!(edges.take().unwrap()["edges"][0]["from"], "node");
    }

    #[test]
    fn what_a_link_says_to_itself_is_no_edge() {
        let mut edges = Edges::default();
        let own = end("fe80::1", None, 0);
        edges.add(&flow(
            own,
            end("ff02::16", None, 0),
            FlowVerdict::Dropped,
            1,
        ));
        let pod = end("10.0.0.1", Some("a"), 0);
        edges.add(&flow(
            pod,
            end("224.0.0.22", None, 0),
            FlowVerdict::Dropped,
            1,
        ));
        assert_eq!(edges.take(), None);
    }

    #[test]
    fn edges_are_bounded_and_go_with_their_pods() {
        let mut edges = Edges::default();
        edges.add(&a_to_b(FlowVerdict::Forwarded, 0));
        let first = edges.take().unwrap()["edges"][0]["id"].clone();
        for port in 0..EDGES as u16 {
            let mut other = a_to_b(FlowVerdict::Forwarded, 1);
            other.destination.port = Some(1000 + port);
            edges.add(&other);
        }
        let told = edges.take().unwrap();
        let removed = told["removed"].as_array().unwrap();
        assert_eq!(removed.len(), EDGES / 8);
        assert!(removed.contains(&first));
        let left = told["edges"].as_array().unwrap().len();
        assert_eq!(left, EDGES + 1 - EDGES / 8);
        edges.forget("shop/b");
        let told = edges.take().unwrap();
        assert_eq!(told["removed"].as_array().unwrap().len(), left);
        assert!(edges.unjudged(1, 10).is_empty());
    }
}
