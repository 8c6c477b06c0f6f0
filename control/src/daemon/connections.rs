//! `conntrack.list` and `conntrack.flush`, a part of the table at a time: the table may hold a
//! million connections, and other clients wait meanwhile.

use super::plane::{Connection, Plane, monotonic};
use super::server::{refused, rpc_error};
use super::state::Daemon;
use crate::flow::filter::Matcher;
use crate::flow::{Flow, FlowEnd, FlowVerdict, protocol_name};
use crate::protocol::{
    ConntrackEntry, ConntrackFilter, ConntrackFlushParams, ConntrackFlushReply,
    ConntrackListParams, ConntrackListReply, DENIED_STATE, ErrorObject, Reason,
};
use crate::selector::Selector;

/// Slots that one call looks at: some milliseconds.
const SLOTS: u32 = 4096;
/// Names of one question.
const NAMES: usize = 256;
/// Entries of one reply.
const ENTRIES: u32 = 500;
/// Bytes of labels behind which a reply takes no further entry: a pod may have any number of them.
/// With [`ENTRIES`] this makes messages of less than a megabyte, unless one pod's labels alone are more.
const LABEL_BYTES: usize = 256 << 10;

/// What a connection must be, ready to be used.
struct Wanted {
    matcher: Matcher,
    namespace: Option<String>,
    selector: Option<Selector>,
    states: Vec<String>,
    names: Vec<String>,
}

impl Wanted {
    fn new(filter: &ConntrackFilter) -> Result<Wanted, ErrorObject> {
        let wrong = |text: String| refused(Reason::BadRequest, text);
        if let Some(unknown) = filter.states.iter().find(|state| !is_state(state)) {
            return Err(wrong(format!("unknown state {unknown:?}")));
        }
        if filter.names.len() > NAMES {
            return Err(wrong(format!("at most {NAMES} names at once")));
        }
        let selector = filter.selector.as_ref().map(|text| {
            Selector::parse(text).map_err(|error| wrong(format!("selector {text:?}: {error}")))
        });
        Ok(Wanted {
            matcher: Matcher::new(&filter.allow, &filter.deny).map_err(wrong)?,
            namespace: filter.namespace.clone(),
            selector: selector.transpose()?,
            states: filter.states.clone(),
            names: filter.names.clone(),
        })
    }

    fn takes(&self, flow: &Flow, connection: &Connection) -> bool {
        let state = state_name(connection);
        let ends = [&flow.source, &flow.destination];
        let pods = ends.into_iter().filter(|end| end.pod.is_some());
        let is_here = |namespace: &String| {
            let mut pods = pods.clone();
            pods.any(|end| end.namespace.as_ref() == Some(namespace))
        };
        let is_selected = |selector: &Selector| {
            let mut pods = pods.clone();
            pods.any(|end| selector.matches(|key| end.labels.get(key).map(String::as_str)))
        };
        let is_wanted = |wanted: &String| wanted.eq_ignore_ascii_case(state);
        self.namespace.as_ref().is_none_or(is_here)
            && self.selector.as_ref().is_none_or(is_selected)
            && (self.states.is_empty() || self.states.iter().any(is_wanted))
            && self.matcher.matches(flow)
            && (self.names.is_empty() || self.names.contains(&name_of(flow, connection)))
    }
}

fn is_state(name: &str) -> bool {
    let mut all = dataplane::conntrack::State::ALL.iter();
    name.eq_ignore_ascii_case(DENIED_STATE)
        || all.any(|state| state.name().eq_ignore_ascii_case(name))
}

fn state_name(connection: &Connection) -> &'static str {
    if connection.entry.verdict.accept {
        connection.entry.state.name()
    } else {
        DENIED_STATE
    }
}

fn name_of(flow: &Flow, connection: &Connection) -> String {
    let key = &connection.entry.key;
    let (source, destination) = (flow.source.ip, flow.destination.ip);
    let ports = [key.source_port, key.destination_port];
    let protocol = flow.protocol.to_lowercase();
    format!(
        "{protocol}_{source}_{}_{destination}_{}",
        ports[0], ports[1]
    )
}

impl<P: Plane> Daemon<P> {
    /// Connections of a part of the table, as their initiators see them.
    pub(super) fn list_connections(
        &self,
        params: &ConntrackListParams,
    ) -> Result<ConntrackListReply, ErrorObject> {
        let wanted = Wanted::new(&params.filter)?;
        let limit = params.limit.unwrap_or(ENTRIES).clamp(1, ENTRIES) as usize;
        let (connections, mut next) = self.part(params.cursor);
        let (mut entries, mut labels) = (Vec::new(), 0);
        for connection in connections {
            let flow = self.flow_of(&connection);
            if !wanted.takes(&flow, &connection) {
                continue;
            }
            if entries.len() == limit || labels >= LABEL_BYTES {
                next = Some(connection.entry.handle.slot());
                break;
            }
            labels += label_bytes(&flow.source) + label_bytes(&flow.destination);
            entries.push(listed(flow, &connection));
        }
        Ok(ConntrackListReply {
            total: self.plane.conntrack().entries,
            entries,
            next,
        })
    }

    /// Removes connections of a part of the table.
    pub(super) fn flush_connections(
        &mut self,
        params: &ConntrackFlushParams,
    ) -> Result<ConntrackFlushReply, ErrorObject> {
        if params.filter == ConntrackFilter::default() && !params.all {
            let text = "a flush wants a filter, or all";
            return Err(rpc_error(-32602, text.to_owned()));
        }
        let wanted = Wanted::new(&params.filter)?;
        let (connections, next) = self.part(params.cursor);
        let mut flushed = 0;
        for connection in connections {
            if wanted.takes(&self.flow_of(&connection), &connection) {
                let gone = params.dry_run || self.plane.remove_connection(&connection);
                flushed += u64::from(gone);
            }
        }
        if flushed > 0 && !params.dry_run {
            tracing::info!("removed {flushed} connections that a client asked to have removed");
        }
        Ok(ConntrackFlushReply { flushed, next })
    }

    /// What one call looks at from there on, and where the next one goes on.
    fn part(&self, cursor: Option<u32>) -> (Vec<Connection>, Option<u32>) {
        let begin = cursor.unwrap_or(0);
        let end = begin.saturating_add(SLOTS);
        let more = end < self.plane.connection_slots();
        (self.plane.connections_in(begin..end), more.then_some(end))
    }

    /// A connection as filters see it.
    fn flow_of(&self, connection: &Connection) -> Flow {
        let entry = &connection.entry;
        let (key, by) = (&entry.key, entry.verdict.provenance);
        let policy = self.flow_policy(entry.verdict);
        let translation = entry.translation.as_ref().filter(|t| t.is_service(key));
        Flow {
            time: String::new(),
            verdict: if entry.verdict.accept {
                FlowVerdict::Forwarded
            } else {
                FlowVerdict::Dropped
            },
            reason: String::new(),
            direction: policy.is_some().then_some(by.direction.into()),
            source: self.end(entry.ends.source, key.source, key.source_port, key.protocol),
            destination: self.end(
                entry.ends.destination,
                key.destination,
                key.destination_port,
                key.protocol,
            ),
            service: translation.map(|translation| self.flow_service(translation.service)),
            protocol: protocol_name(key.protocol),
            tcp_flags: Vec::new(),
            policy,
            generation: 0,
            node: String::new(),
        }
    }
}

fn label_bytes(end: &FlowEnd) -> usize {
    let labels = end.labels.iter();
    labels.map(|(key, value)| key.len() + value.len()).sum()
}

fn listed(flow: Flow, connection: &Connection) -> ConntrackEntry {
    let entry = &connection.entry;
    let idle = connection.idle.as_secs();
    ConntrackEntry {
        name: name_of(&flow, connection),
        protocol: flow.protocol,
        source: flow.source,
        destination: flow.destination,
        service: flow.service.map(|service| service.label()),
        state: state_name(connection).to_owned(),
        verdict: flow.verdict,
        policy: flow.policy.map(|policy| policy.full_name()),
        idle_seconds: idle,
        age_seconds: monotonic().since(entry.created) / 1_000_000_000,
        expires_seconds: u64::from(entry.timeout_s).saturating_sub(idle),
    }
}
