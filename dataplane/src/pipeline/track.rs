//! The packet and its connection: follow what was decided, decide what is new or out of date.

use super::decide::{Decision, Flow};
use super::service::{self, Met, Reached, SOURCE_PORT_TRIES};
use super::stage::{Stage, View};
use crate::conntrack::{
    Class, Epochs, Facts, Hit, Inserted, NewEntry, Redecided, Storage, Translation,
};
use crate::counters::{Counter, RuleCounters};
use crate::events::EventKind;
use crate::snapshot::{Endpoint, Epoch, ExistingConnections, Role, Snapshot};
use crate::wire::{Icmp, Transport};
use crate::{DropReason, Verdict};

/// Looks at the table once more when another worker changed the entry meanwhile, so often.
const ATTEMPTS: u32 = 4;

/// A connection in its initiator's orientation, as an entry records it.
pub(super) struct Connection<'s> {
    pub flow: Flow<'s>,
    pub epochs: Epochs,
}

/// Whether a packet may pass: with what it is when it is sent on, if that is not as it came.
pub(super) type Admitted<'s> = Result<Option<View<'s>>, DropReason>;

/// How a hit ended.
enum Followed {
    /// The packet may pass, or may not.
    Done(Result<(), DropReason>),
    /// The packet opens the connection anew: decide as if there were no entry. Of one that was DENIED
    /// whether this very packet cut it.
    Opens(Option<bool>),
    /// The entry went away meanwhile: look again.
    Gone,
}

/// A DENIED connection that its initiator tries to open once more.
#[derive(Clone, Copy)]
struct Denied {
    hit: Hit,
    /// Whether this very packet cut it.
    newly: bool,
}

/// The epochs of a packet's ends, in the packet's orientation.
pub(super) fn epochs(
    snapshot: &Snapshot,
    source: Option<&Endpoint>,
    destination: Option<&Endpoint>,
) -> Epochs {
    let epoch = |endpoint: Option<&Endpoint>| {
        endpoint.map_or(Epoch::NONE, |endpoint| snapshot.epoch(endpoint.slot))
    };
    Epochs {
        source: epoch(source),
        destination: epoch(destination),
    }
}

impl<'a, S: Storage> Stage<'a, '_, S> {
    /// Whether the packet may pass, by its connection and by policy. `ahead`: what policy says of its
    /// flow as a new one, if that is known.
    pub fn admit<'v>(&mut self, view: &View<'v>, ahead: Option<&Decision>) -> Admitted<'v>
    where
        'a: 'v,
    {
        if let Transport::Icmp(Icmp::Error(error)) = &view.ip.transport {
            return self.admit_error(view, error);
        }
        let ends = view.ends();
        for _ in 0..ATTEMPTS {
            let mut denied = None;
            if let Some(mut hit) = self.tables.conntrack.lookup(&view.key, &ends, self.now) {
                let real = match self.meet(view, &hit)? {
                    Met::AsItCame => None,
                    Met::Real(real) => Some(real),
                    Met::Gone => continue,
                };
                match self.follow(real.as_ref().unwrap_or(view), &mut hit) {
                    Followed::Done(result) => return result.map(|()| real),
                    Followed::Gone => continue,
                    Followed::Opens(newly) => denied = newly.map(|newly| Denied { hit, newly }),
                }
            }
            if let Some(result) = self.open(view, denied.as_ref(), ahead) {
                return result;
            }
        }
        Err(DropReason::ConntrackBusy)
    }

    /// A packet of a connection that has an entry.
    fn follow(&mut self, view: &View<'_>, hit: &mut Hit) -> Followed {
        let mut newly = false;
        let connection = self.orient(view, hit);
        if connection.epochs.is_newer_than(hit.epochs) {
            let Some(cut) = self.redecide(view, &connection, hit) else {
                return Followed::Gone;
            };
            newly = cut;
        }
        let result = match self.tables.conntrack.track(hit, &view.facts, self.now) {
            Ok(Class::New) => {
                let denied = hit.denied && hit.original_direction;
                return Followed::Opens(denied.then_some(newly));
            }
            Ok(Class::Established | Class::Reply) if hit.denied => {
                Err(DropReason::ConnectionDenied)
            }
            Ok(Class::Established | Class::Reply) => Ok(()),
            Err(reason) => Err(reason),
        };
        match result {
            Err(DropReason::ConnectionDenied) => {
                return Followed::Done(Err(self.drop_denied(view, hit, newly)));
            }
            // What does not belong to the connection is no hit of its rules.
            Err(reason) => {
                let event = self.event(view, EventKind::Dropped(reason), false);
                self.announce(event);
            }
            Ok(()) => self.tables.counters.rule_packet(hit.counters),
        }
        Followed::Done(result)
    }

    /// Whether a fragment behind its datagram's first may pass: with the first one's connection, if
    /// that is still accepted under the epochs in force. Nothing of it is announced, but that newer
    /// policy has cut the connection.
    pub fn admit_later<'v>(&mut self, view: &View<'v>) -> Admitted<'v>
    where
        'a: 'v,
    {
        let ends = view.ends();
        let Some(mut hit) = self.tables.conntrack.lookup(&view.key, &ends, self.now) else {
            // The first one passed without an entry, or its entry has gone meanwhile.
            self.pass_untracked(view, &view.flow(), DropReason::ConntrackInvalid)?;
            return Ok(None);
        };
        let real = match self.meet(view, &hit)? {
            Met::AsItCame => None,
            Met::Real(real) => Some(real),
            Met::Gone => return Err(DropReason::ConntrackInvalid),
        };
        let view = real.as_ref().unwrap_or(view);
        let connection = self.orient(view, &hit);
        if connection.epochs.is_newer_than(hit.epochs) {
            let cut = self.redecide(view, &connection, &mut hit);
            if cut.ok_or(DropReason::ConntrackInvalid)? {
                return Err(self.drop_denied(view, &hit, true));
            }
        }
        if !hit.denied && matches!(view.facts, Facts::Tcp(_)) {
            self.tables.conntrack.track(&hit, &view.facts, self.now)?;
        }
        self.tables.counters.rule_packet(hit.counters);
        if hit.denied {
            return Err(DropReason::ConnectionDenied);
        }
        Ok(real)
    }

    /// Counts and announces a packet of a DENIED connection; `newly` if it is the one that cut it.
    fn drop_denied(&mut self, view: &View<'_>, hit: &Hit, newly: bool) -> DropReason {
        self.tables.counters.rule_packet(hit.counters);
        let reversed = !hit.original_direction;
        if newly {
            let event = self.event(view, EventKind::Denied(hit.verdict), reversed);
            self.announce_first(event);
            return DropReason::PolicyDenied;
        }
        let event = self.event(view, EventKind::DeniedAgain(hit.verdict), reversed);
        self.announce(event);
        DropReason::ConnectionDenied
    }

    /// The connection of a hit in its initiator's orientation, under the snapshot in force.
    pub(super) fn orient<'v>(&self, view: &View<'v>, hit: &Hit) -> Connection<'v> {
        let flow = view.flow();
        let epochs = epochs(self.snapshot, view.source, view.destination);
        if hit.original_direction {
            return Connection { flow, epochs };
        }
        // Only the role that the initiator's packets come in by tells what the node originates.
        // A port that is gone exempts nothing.
        let ingress = self
            .snapshot
            .port(hit.ingress)
            .map_or(Role::Uplink, |port| port.role);
        let flow = Flow {
            key: flow.key.reversed(),
            source: flow.destination,
            destination: flow.source,
            ingress,
            ..flow
        };
        Connection {
            flow,
            epochs: epochs.reversed(),
        }
    }

    /// Decides a connection again (D2), always in its initiator's orientation. Whether that cut it;
    /// none if its entry is gone.
    pub(super) fn redecide(
        &mut self,
        view: &View<'_>,
        connection: &Connection<'_>,
        hit: &mut Hit,
    ) -> Option<bool> {
        let keep = self.snapshot.settings().existing_connections == ExistingConnections::Keep;
        let mut decision = connection.flow.decide(self.snapshot);
        if keep && hit.verdict.accept && !decision.verdict.accept {
            // No rule lets it pass any more, and the counters of those that did may be others' by
            // now, or soon.
            decision = Decision {
                verdict: hit.verdict,
                counters: RuleCounters::default(),
            };
        }
        let Decision { verdict, counters } = decision;
        let was_accepted = hit.verdict.accept;
        let conntrack = self.tables.conntrack;
        let stored = conntrack.redecide(hit.handle, verdict, counters, connection.epochs);
        if let Redecided::Newer { verdict, counters } = stored {
            // Another worker was first: its verdict counts, and its announcement.
            set_verdict(hit, verdict, counters);
            return Some(false);
        }
        if stored == Redecided::Gone {
            return None;
        }
        set_verdict(hit, verdict, counters);
        let Redecided::Stored { before } = stored else {
            return Some(false);
        };
        let cut = was_accepted && !verdict.accept;
        let shard = self.tables.counters;
        shard.add(Counter::Redecided, 1);
        shard.add(Counter::RedecidedDenied, u64::from(cut));
        for (old, new) in [
            (before.egress, counters.egress),
            (before.ingress, counters.ingress),
        ] {
            if old != new {
                shard.rule_connection(new);
            }
        }
        self.audit(view, &connection.flow, verdict, !hit.original_direction);
        Some(cut)
    }

    /// Tells what the policies in audit mode would have decided of a flow, if otherwise.
    fn audit(&mut self, view: &View<'_>, flow: &Flow<'_>, enforced: Verdict, reversed: bool) {
        let Some(would) = flow.audit(self.snapshot) else {
            return;
        };
        if would.accept != enforced.accept {
            self.tables.counters.add(Counter::FlowsAudited, 1);
            let event = self.event(view, EventKind::Audited { enforced, would }, reversed);
            self.announce(event);
        }
    }

    /// A packet without entry, or one that opens its connection anew, perhaps a DENIED one. None if
    /// another worker made an entry meanwhile.
    // Apart, as is what it does, so that each takes the registers and the stack that it needs.
    #[inline(never)]
    fn open<'v>(
        &mut self,
        view: &View<'v>,
        denied: Option<&Denied>,
        ahead: Option<&Decision>,
    ) -> Option<Admitted<'v>>
    where
        'a: 'v,
    {
        match &self.reach(view) {
            Ok(Reached::AsItCame) => self.begin(view, None, denied, ahead),
            // What was asked ahead was asked of the packet as it came.
            Ok(Reached::Backend { real, translation }) => {
                self.begin(real, Some(*translation), denied, None)
            }
            // Told with the answer, if there is one.
            Err(reason) if service::is_refusal(*reason) => Some(Err(*reason)),
            Err(reason) => Some(Err(self.drop_invalid(view, *reason))),
        }
    }

    /// Begins a connection by its first packet, of which `view` shows the real ends.
    #[inline(never)]
    fn begin<'v>(
        &mut self,
        view: &View<'v>,
        translation: Option<Translation>,
        denied: Option<&Denied>,
        ahead: Option<&Decision>,
    ) -> Option<Admitted<'v>>
    where
        'a: 'v,
    {
        let opens = view.facts.opens();
        let flow = view.flow();
        if !opens && !self.tables.conntrack.adopts(&view.facts, self.now) {
            let passed = self.pass_untracked(view, &flow, DropReason::ConntrackInvalid);
            return Some(passed.map(|()| None));
        }
        self.tables.counters.add(Counter::FlowDecisions, 1);
        let decided = ahead.copied();
        let decided = decided.unwrap_or_else(|| flow.decide(self.snapshot));
        debug_assert_eq!(decided, flow.decide(self.snapshot));
        let Decision { verdict, counters } = decided;
        if let Some(denied) = denied
            && denied.hit.verdict == verdict
            && self.tables.conntrack.refresh(denied.hit.handle, self.now)
        {
            // A SYN sent once more, by all one can tell: no news, and the entry stays.
            return Some(Err(self.drop_denied(view, &denied.hit, denied.newly)));
        }
        if !opens && !verdict.accept {
            // Adopted flows are judged in either direction: perhaps the other one is allowed (D21).
            return Some(Err(self.drop_invalid(view, DropReason::ConntrackInvalid)));
        }
        let mut entry = NewEntry {
            key: view.key,
            translation,
            ends: view.ends(),
            verdict,
            counters,
            epochs: epochs(self.snapshot, view.source, view.destination),
            facts: view.facts,
        };
        let inserted = self.insert(&mut entry);
        if let Ok(Inserted::Raced(_)) = inserted {
            return None;
        }
        self.tables.counters.rule_packet(counters);
        if inserted.is_ok() {
            self.count_new(view, &flow, verdict, counters);
        }
        if !verdict.accept {
            return Some(Err(self.deny(view, verdict, inserted.is_ok())));
        }
        if let Err(reason) = inserted {
            return Some(match entry.translation {
                None => self.pass_untracked(view, &flow, reason).map(|()| None),
                Some(_) => Err(self.drop_invalid(view, reason)),
            });
        }
        self.tables.counters.add(Counter::FlowsAccepted, 1);
        if !opens {
            self.tables.counters.add(Counter::Adopted, 1);
        }
        if self.snapshot.settings().accept_events {
            let event = self.event(view, EventKind::Accepted(verdict), false);
            self.announce(event);
        }
        let translation = entry.translation.as_ref();
        Some(Ok(
            translation.map(|translation| service::sent_on(view, translation))
        ))
    }

    /// Makes the entry of a new connection, with another source port if it needs one.
    fn insert(&mut self, entry: &mut NewEntry) -> Result<Inserted, DropReason> {
        for attempt in 0..=SOURCE_PORT_TRIES {
            // Where another source address is needed, or the packets could not be told from another
            // connection's, with a source port of our choice.
            let is_given = attempt > 0 || entry.translation.is_some_and(|t| t.source.is_some());
            if is_given {
                entry.translation = Some(self.with_source_port(entry, attempt));
            }
            let inserted = self.tables.conntrack.insert(entry, self.now);
            if inserted != Ok(Inserted::Taken) {
                if is_given && matches!(inserted, Ok(Inserted::New(_))) {
                    self.tables.counters.add(Counter::SourcePortsGiven, 1);
                }
                return inserted;
            }
            if !entry.key.protocol.has_ports() {
                break;
            }
        }
        Err(DropReason::SourcePorts)
    }

    /// Counts a new entry for the rules that decided it, and chooses some for the self-check.
    fn count_new(
        &mut self,
        view: &View<'_>,
        flow: &Flow<'_>,
        verdict: Verdict,
        counters: RuleCounters,
    ) {
        self.tables.counters.rule_connection(counters.egress);
        self.tables.counters.rule_connection(counters.ingress);
        self.audit(view, flow, verdict, false);
        let one_in = self.snapshot.settings().sample_one_in;
        if self.tables.limiters.samples(one_in) {
            self.tables.counters.add(Counter::FlowsSampled, 1);
            let event = self.event(view, EventKind::Sampled(verdict), false);
            if !self.tables.events.push_sample(event) {
                self.tables.counters.add(Counter::SamplesLost, 1);
            }
        }
    }

    /// Counts and announces a denial of a new flow. Without an entry for it every packet is a
    /// first one, so that none of them may use the whole event queue.
    fn deny(&mut self, view: &View<'_>, verdict: Verdict, has_entry: bool) -> DropReason {
        let kind = EventKind::Denied(verdict);
        let event = self.event(view, kind, false);
        if has_entry {
            self.tables.counters.add(Counter::FlowsDenied, 1);
            self.announce_first(event);
        } else {
            self.announce(event);
        }
        DropReason::PolicyDenied
    }

    /// A packet that cannot have an entry: it passes only where no tier may deny anything at either
    /// end (D15), so that the table's limits never cut off whom nobody restricts.
    fn pass_untracked(
        &mut self,
        view: &View<'_>,
        flow: &Flow<'_>,
        reason: DropReason,
    ) -> Result<(), DropReason> {
        // What is for a Service, or comes back from one, cannot go on as it is.
        let is_strange = view.source.is_none() && view.destination.is_none()
            || self.snapshot.services().concerns(&view.key);
        if is_strange || flow.may_be_denied(self.snapshot) {
            return Err(self.drop_invalid(view, reason));
        }
        self.tables.counters.add(Counter::Untracked, 1);
        Ok(())
    }

    /// Announces a packet that is dropped for this reason.
    pub(super) fn drop_invalid(&mut self, view: &View<'_>, reason: DropReason) -> DropReason {
        let event = self.event(view, EventKind::Dropped(reason), false);
        self.announce(event);
        reason
    }
}

fn set_verdict(hit: &mut Hit, verdict: Verdict, counters: RuleCounters) {
    hit.counters = counters;
    hit.verdict = verdict;
    hit.denied = !verdict.accept;
}
