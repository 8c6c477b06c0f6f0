//! Flows: the recent past in a ring, and those to come for whoever observes.
//!
//! Drops are always told by the workers, for the denial log. Connections that pass are many: the
//! workers tell of them only while somebody observes who wants them, or for the log
//! (`log.accepts`); a new generation with the other setting is published when that changes.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use config::limits::{OBSERVED_FLOWS, OBSERVED_FLOWS_PER_SECOND};
use dataplane::Time;
use tracing::warn;

use super::plane::{Plane, monotonic};
use super::server::{ClientId, rpc_error};
use super::state::Daemon;
use crate::flow::filter::Matcher;
use crate::flow::{Flow, FlowVerdict, normalize_time, time_text};
use crate::protocol::{ErrorObject, ObserveParams, ObserveReply};

/// The flows of the recent past.
#[derive(Debug)]
pub struct RecentFlows {
    flows: VecDeque<Flow>,
    second: Instant,
    in_second: u32,
    lost: u64,
}

impl RecentFlows {
    /// None yet.
    pub fn new(now: Instant) -> RecentFlows {
        RecentFlows {
            flows: VecDeque::new(),
            second: now,
            in_second: 0,
            lost: 0,
        }
    }

    /// Whether one more flow may be told of in this second; if not, it is counted as lost.
    pub fn admit(&mut self, now: Instant) -> bool {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.in_second = 0;
        }
        if self.in_second >= OBSERVED_FLOWS_PER_SECOND {
            self.lost += 1;
            return false;
        }
        self.in_second += 1;
        true
    }

    /// Adds the newest; the oldest goes if there is no room.
    pub fn push(&mut self, flow: Flow) {
        if self.flows.len() >= OBSERVED_FLOWS {
            self.flows.pop_front();
        }
        self.flows.push_back(flow);
    }

    /// Flows beyond the rate, since the start.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The wanted ones, the oldest first. `since` and `until` are as [`Flow::time`].
    fn select(&self, params: &ObserveParams, span: &Span, wanted: &Matcher) -> Vec<Flow> {
        let mut flows = self.flows.iter();
        let takes = |flow: &&Flow| span.holds(&flow.time) && wanted.matches(flow);
        let number = params.number.map_or(usize::MAX, |number| number as usize);
        if params.first {
            return flows.filter(takes).take(number).cloned().collect();
        }
        let newest = flows.by_ref().rev().filter(takes).take(number);
        let mut found: Vec<Flow> = newest.cloned().collect();
        found.reverse();
        found
    }
}

/// From when until when, as [`Flow::time`] writes moments.
#[derive(Debug, Default)]
struct Span {
    since: Option<String>,
    until: Option<String>,
}

impl Span {
    fn new(params: &ObserveParams) -> Result<Span, String> {
        let moment = |text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => match normalize_time(text) {
                Some(moment) => Ok(Some(moment)),
                None => Err(format!("{text:?} is no RFC 3339 time")),
            },
        };
        Ok(Span {
            since: moment(&params.since)?,
            until: moment(&params.until)?,
        })
    }

    fn holds(&self, time: &str) -> bool {
        self.since.as_deref().is_none_or(|since| since <= time)
            && self.until.as_deref().is_none_or(|until| time <= until)
    }
}

impl<P: Plane> Daemon<P> {
    /// Answers `observe`.
    pub(super) fn observe(
        &mut self,
        client: ClientId,
        params: &ObserveParams,
    ) -> Result<ObserveReply, ErrorObject> {
        let bad = |error: String| rpc_error(-32602, error);
        let wanted = Matcher::new(&params.allow, &params.deny).map_err(bad)?;
        let span = Span::new(params).map_err(bad)?;
        if params.follow {
            self.check_watches(client)?;
        }
        // What the workers have told by now is the past, not what comes.
        self.follow_events();
        let past = params.number.is_some() || span.since.is_some() || !params.follow;
        let flows = if past {
            self.recent.select(params, &span, &wanted)
        } else {
            Vec::new()
        };
        let subscription = params
            .follow
            .then(|| self.watches.add_flows(client, wanted));
        self.follow_observers();
        Ok(ObserveReply {
            subscription,
            flows,
            accepts: self.accept_events(),
        })
    }

    /// Whether the workers should tell of connections that pass.
    pub(super) fn accept_events(&self) -> bool {
        self.config.log.accepts || self.watches.wants(FlowVerdict::Forwarded)
    }

    /// Publishes anew if the workers tell of connections that pass and nobody wants to know, or
    /// the other way round.
    pub(super) fn follow_observers(&mut self) {
        if self.accept_events() == self.accept_events_live {
            return;
        }
        if let Err(error) = self.refresh() {
            warn!("what observers want is not live: {}", error.message);
        }
    }

    /// Tells observers of a flow, and remembers it.
    pub(super) fn tell_flow(&mut self, flow: Flow) {
        self.watches.tell_flow(&flow);
        self.recent.push(flow);
    }
}

/// The same moment on the workers' clock and on the wall.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The workers'.
    pub monotonic: Time,
    /// The wall's.
    pub wall: SystemTime,
}

impl Clock {
    /// This moment.
    pub fn now() -> Clock {
        Clock {
            monotonic: monotonic(),
            wall: SystemTime::now(),
        }
    }

    /// A moment of the workers' clock in nanoseconds since 1970.
    pub fn wall_ns(self, at: Time) -> u64 {
        let ago = Duration::from_nanos(self.monotonic.since(at));
        let wall = self.wall.checked_sub(ago).unwrap_or(self.wall);
        let since = wall.duration_since(SystemTime::UNIX_EPOCH);
        u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A moment of the workers' clock as [`Flow::time`] has it.
    pub fn wall_time(self, at: Time) -> String {
        let ago = Duration::from_nanos(self.monotonic.since(at));
        time_text(self.wall.checked_sub(ago).unwrap_or(self.wall))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::FlowEnd;

    fn flow(second: u32) -> Flow {
        let end = FlowEnd {
            ip: "10.0.0.1".parse().unwrap(),
            port: None,
            namespace: None,
            pod: None,
            labels: Default::default(),
            workload: None,
        };
        Flow {
            time: format!("2026-11-21T02:00:{second:02}.000000000Z"),
            verdict: FlowVerdict::Dropped,
            reason: "no_route".into(),
            direction: None,
            source: end.clone(),
            destination: end,
            service: None,
            protocol: "TCP".into(),
            tcp_flags: Vec::new(),
            policy: None,
            generation: u64::from(second),
            node: String::new(),
        }
    }

    #[test]
    fn the_ring_is_bounded_and_gives_the_first_the_last_and_a_span() {
        let mut recent = RecentFlows::new(Instant::now());
        for _ in 0..OBSERVED_FLOWS {
            recent.push(flow(0));
        }
        (1..=9).for_each(|second| recent.push(flow(second)));
        assert_eq!(recent.flows.len(), OBSERVED_FLOWS);
        let ask = |params: ObserveParams| -> Vec<u64> {
            let span = Span::new(&params).unwrap();
            let flows = recent.select(&params, &span, &Matcher::default());
            flows.iter().map(|flow| flow.generation).collect()
        };
        let last = ObserveParams {
            number: Some(3),
            ..ObserveParams::default()
        };
        assert_eq!(ask(last.clone()), [7, 8, 9]);
        let span = ObserveParams {
            since: Some("2026-11-21T02:00:04Z".into()),
            until: Some("2026-11-21T03:00:07+01:00".into()),
            ..ObserveParams::default()
        };
        assert_eq!(ask(span.clone()), [4, 5, 6, 7]);
        let first = ObserveParams {
            number: Some(2),
            first: true,
            ..span
        };
        assert_eq!(ask(first), [4, 5]);
        let wrong = ObserveParams {
            since: Some("noon".into()),
            ..last
        };
        assert!(Span::new(&wrong).unwrap_err().contains("RFC 3339"));
    }

    #[test]
    fn beyond_the_rate_flows_are_lost_and_counted() {
        let now = Instant::now();
        let mut recent = RecentFlows::new(now);
        let told = (0..OBSERVED_FLOWS_PER_SECOND + 5)
            .filter(|_| recent.admit(now))
            .count();
        assert_eq!(told, OBSERVED_FLOWS_PER_SECOND as usize);
        assert_eq!(recent.lost(), 5);
        assert!(recent.admit(now + Duration::from_secs(1)));
    }
}
