//! ICMP errors and the connections they belong to (semantics D4).

use super::layout::Canonical;
use super::{Handle, Hit, IcmpError, Storage, Table, window};
use crate::{DropReason, Protocol, Time};

/// The least MTU that an error may announce, octets: RFC 791 §3.1's 576 for IPv4, RFC 8200 §5's
/// 1280 for IPv6.
const LEAST_MTU: [u32; 2] = [576, 1280];

impl<S: Storage> Table<S> {
    /// The connection that an ICMP error belongs to, or `UnrelatedIcmpError`. Never makes,
    /// refreshes or advances an entry. The caller decides again if the epochs ask for it, and drops
    /// what is denied.
    ///
    /// The quoted packet must be of a connection in the table, go to its sender, come from who could
    /// have seen it (the endpoint it was for, or, if it was for nobody local, from no endpoint), announce no absurd MTU, and with `strict_tcp` quote a sequence number that was sent.
    /// [`Hit::original_direction`] is that of the *quoted* packet.
    pub fn related(&self, error: &IcmpError, now: Time) -> Result<Hit, DropReason> {
        let unrelated = Err(DropReason::UnrelatedIcmpError);
        let least_mtu = LEAST_MTU[usize::from(!error.inner.source.is_v4())];
        if error.destination != error.inner.source
            || error.sender != error.inner_destination
            || error.mtu.is_some_and(|mtu| mtu < least_mtu)
        {
            return unrelated;
        }
        // The error goes where the quoted packet came from, as an answer to it would.
        let canonical = Canonical::of(&error.inner.reversed());
        let place = self.place(&canonical);
        let found = self.find(&canonical, &place);
        let Some((image, original)) = found.map(|(image, answer)| {
            // Of a flow whose two ends are one, an answer looks like what it answers.
            let inner = Canonical::of(&error.inner);
            let original = if image.is_translated() {
                !answer
            } else {
                image.is_original(inner.from_lower)
            };
            (image, original)
        }) else {
            return unrelated;
        };
        let hit = self.hit(&image, original, place.first);
        let ends = image.ends();
        let [sender, receiver] = if original {
            [ends.source, ends.destination]
        } else {
            [ends.destination, ends.source]
        };
        // The quoted packet's source may be a Service, which is no endpoint.
        let is_its = receiver == error.inner_destination
            && (hit.translated.is_some() || sender == error.inner_source);
        if !is_its || self.is_expired(&image, now) {
            return unrelated;
        }
        if self.settings.strict_tcp
            && error.inner.protocol == Protocol::TCP
            && !self.was_sent(hit.handle, hit.original_direction, error.tcp_sequence)
        {
            return unrelated;
        }
        Ok(hit)
    }

    fn was_sent(&self, handle: Handle, original: bool, sequence: Option<u32>) -> bool {
        let (own, other) = (usize::from(!original), usize::from(original));
        let (sender, receiver) = (self.side(handle, own), self.side(handle, other));
        sequence.is_some_and(|sequence| window::quoted(&sender, &receiver, sequence))
    }
}
