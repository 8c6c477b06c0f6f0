//! Fragments: the first one is judged, the others follow it (D9).

use super::stage::{Stage, View};
use super::{Inbound, Outcome};
use crate::DropReason;
use crate::conntrack::{Facts, Storage, TcpFacts};
use crate::counters::Counter;
use crate::events::EventKind;
use crate::fragments::{Entered, First, Key, Piece, Refused, Ticket};
use crate::wire::{Fragment, Transport, Version};

impl<S: Storage> Stage<'_, '_, S> {
    /// A fragment that has passed all checks that do not ask for its flow.
    pub fn fragment(
        &mut self,
        inbound: &mut Inbound<'_>,
        view: &View<'_>,
        fragment: &Fragment,
    ) -> Result<Outcome, DropReason> {
        let entered = match &inbound.held {
            Some(ticket) => self.tables.fragments.resume(ticket, self.now),
            None => self.enter_fragment(view, fragment),
        };
        match entered {
            Ok(Entered::First { ticket, length }) => {
                self.first_fragment(inbound, view, &ticket, length)
            }
            Ok(Entered::Follows {
                ticket,
                first,
                segment,
            }) => self.later_fragment(inbound, view, &ticket, &first, segment),
            // A held fragment is one frame.
            Ok(Entered::Waits(ticket)) if !inbound.rest.is_empty() => {
                let reason = DropReason::MultiBuffer;
                self.tables.fragments.abandon(&ticket, reason, self.now);
                Err(reason)
            }
            Ok(Entered::Waits(ticket)) => {
                self.tables.counters.add(Counter::FragmentsHeld, 1);
                Ok(Outcome::Hold(ticket))
            }
            Err(refused) => Err(self.refuse_fragment(view, &refused)),
        }
    }

    /// A fragment that has just come.
    fn enter_fragment(&self, view: &View<'_>, fragment: &Fragment) -> Result<Entered, Refused> {
        self.tables.counters.add(Counter::Fragments, 1);
        let ip = view.ip;
        let key = Key {
            ends: view.ends(),
            source: ip.source,
            destination: ip.destination,
            identification: fragment.identification,
            protocol: (ip.version == Version::V4).then_some(ip.protocol),
        };
        // The parser has seen to it that it ends within 65,535 octets.
        let end = u32::from(fragment.offset) + fragment.length;
        let piece = Piece {
            start: fragment.offset,
            end: u16::try_from(end).unwrap_or(u16::MAX),
            is_last: !fragment.more,
        };
        self.tables.fragments.enter(&key, piece, self.now)
    }

    /// The first fragment: judged as a whole packet is.
    fn first_fragment(
        &mut self,
        inbound: &mut Inbound<'_>,
        view: &View<'_>,
        ticket: &Ticket,
        length: Option<u32>,
    ) -> Result<Outcome, DropReason> {
        let mut view = *view;
        let headers = headers_before_payload(&view);
        let mut segment = None;
        if let Facts::Tcp(tcp) = &mut view.facts {
            match length {
                Some(length) => tcp.payload_len = length.saturating_sub(headers),
                // To be tracked once more when the last fragment comes: what the receiver will
                // acknowledge is the whole segment.
                None => segment = Some(*tcp),
            }
        }
        let admitted = self.admit(&view, None);
        let ended = self.go_on(inbound, &view, &admitted);
        let first = First {
            protocol: view.key.protocol,
            source_port: view.key.source_port,
            destination_port: view.key.destination_port,
            segment,
            headers,
        };
        let decided = dropped(&ended).map_or(Ok(first), Err);
        self.tables.fragments.decide(ticket, decided, self.now);
        ended
    }

    /// A later fragment, whose first was accepted.
    fn later_fragment(
        &mut self,
        inbound: &mut Inbound<'_>,
        view: &View<'_>,
        ticket: &Ticket,
        first: &First,
        segment: Option<TcpFacts>,
    ) -> Result<Outcome, DropReason> {
        let view = View {
            key: first.flow_key(view.key),
            facts: segment.map_or(Facts::Other, Facts::Tcp),
            ..*view
        };
        let ended = self.admit_later(&view);
        let ended = ended.and_then(|real| self.forward(inbound, real.as_ref().unwrap_or(&view)));
        if let Some(reason) = dropped(&ended) {
            self.tables.fragments.decide(ticket, Err(reason), self.now);
        }
        ended
    }

    /// Why the fragment is dropped; tells of its datagram, if nobody has yet.
    fn refuse_fragment(&mut self, view: &View<'_>, refused: &Refused) -> DropReason {
        if refused.is_news {
            let key = view.key;
            let key = refused.first.map_or(key, |first| first.flow_key(key));
            let view = View { key, ..*view };
            let event = self.event(&view, EventKind::Dropped(refused.reason), false);
            self.announce(event);
        }
        refused.reason
    }
}

fn dropped(ended: &Result<Outcome, DropReason>) -> Option<DropReason> {
    match ended {
        Ok(outcome) => outcome.drop_reason(),
        Err(reason) => Some(*reason),
    }
}

/// Bytes of a first fragment's fragmentable part before a TCP segment's payload: extension headers
/// behind IPv6's fragment header, and TCP's own.
fn headers_before_payload(view: &View<'_>) -> u32 {
    let Transport::Tcp(tcp) = view.ip.transport else {
        return 0;
    };
    let part = view.ip.fragment.map_or(0, |fragment| fragment.length);
    part.saturating_sub(tcp.payload_length)
}
