//! The table.

use super::{
    Attached, Class, Counters, Ends, Entry, Epochs, Expired, Facts, Handle, Hit, IcmpError,
    Inserted, NewEntry, Redecided, Settings, Storage, TableError,
};
use crate::snapshot::Incarnation;
use crate::{DropReason, FlowKey, Time, Verdict};

/// The connection table, shared by all workers. See the module's documentation.
pub struct Table<S> {
    storage: S,
    settings: Settings,
}

impl<S: Storage> Table<S> {
    /// Words of storage that a table of these settings takes.
    pub fn words(settings: &Settings) -> usize {
        settings.capacity as usize * 16
    }

    /// A new, empty table in `storage`, whatever lay there.
    pub fn new(storage: S, settings: Settings) -> Result<Self, TableError> {
        let (words, needed) = (storage.words().len(), Self::words(&settings));
        if words < needed {
            return Err(TableError::TooSmall { words, needed });
        }
        Ok(Table { storage, settings })
    }

    /// Takes over the table that an earlier process left in `storage`. Nobody else may use it.
    ///
    /// What is torn, contradictory or idle too long is discarded. The hash seed is the table's, not
    /// the settings'. `storage` must be of this boot: times are of the monotonic clock.
    pub fn attach(
        storage: S,
        settings: Settings,
        now: Time,
    ) -> Result<(Self, Attached), TableError> {
        let _ = now;
        let table = Self::new(storage, settings)?;
        Ok((
            table,
            Attached {
                kept: 0,
                discarded: 0,
            },
        ))
    }

    /// Until `until`, TCP and SCTP packets from the middle of a connection may make an entry.
    pub fn adopt_until(&self, until: Time) {
        let _ = until;
    }

    /// Whether such a packet may make an entry now though it opens nothing (semantics D21): TCP
    /// with ACK and without SYN, RST and FIN, or SCTP DATA, SACK or HEARTBEAT, in the adoption
    /// window.
    ///
    /// The caller judges it as new in the direction it goes, and inserts only what is accepted: a
    /// denial may just mean that the other end is the initiator. The first direction that policy
    /// accepts becomes the entry's orientation.
    pub fn adopts(&self, facts: &Facts, now: Time) -> bool {
        let _ = (facts, now);
        false
    }

    /// The entry of the packet with this key and these ends.
    pub fn lookup(&self, key: &FlowKey, ends: &Ends, now: Time) -> Option<Hit> {
        let _ = (key, ends, now);
        None
    }

    /// Advances the connection by one packet, after [`Table::redecide`] if that was due.
    ///
    /// Errors: `ConnectionDenied` for a DENIED one, `ConntrackInvalid` for a packet that does not
    /// belong where the connection stands. Neither changes its state.
    pub fn track(&self, hit: &Hit, facts: &Facts, now: Time) -> Result<Class, DropReason> {
        let _ = (hit, facts, now);
        Err(DropReason::Internal)
    }

    /// Makes an entry. A DENIED, closing or closed one of the same tuple is replaced if this packet
    /// opens a connection anew; one with other ends or idle too long is always replaced.
    ///
    /// Errors: `ConntrackFull`, `ConntrackQuota`, `ConntrackBusy`; `ConntrackInvalid` if the packet
    /// may not make an entry.
    pub fn insert(&self, new: &NewEntry, now: Time) -> Result<Inserted, DropReason> {
        let _ = (new, now);
        Err(DropReason::Internal)
    }

    /// Stores a new verdict, unless one of the same or a newer epoch stands there already.
    /// `epochs` in the initiator's orientation.
    pub fn redecide(&self, handle: Handle, verdict: Verdict, epochs: Epochs) -> Redecided {
        let _ = (handle, verdict, epochs);
        Redecided::Gone
    }

    /// The connection that an ICMP error belongs to, or `UnrelatedIcmpError` (semantics D4). Never
    /// makes, refreshes or advances an entry. The caller decides again if the epochs ask for it, and
    /// drops what is denied.
    pub fn related(&self, error: &IcmpError, now: Time) -> Result<Hit, DropReason> {
        let _ = (error, now);
        Err(DropReason::UnrelatedIcmpError)
    }

    /// Removes idle entries among the next `budget` from `cursor` on.
    pub fn expire(&self, cursor: u32, budget: u32, now: Time) -> Expired {
        let _ = (budget, now);
        Expired { cursor, removed: 0 }
    }

    /// Removes every entry of this endpoint, and says how many. Walks the whole table: for the
    /// control thread. Packets no longer match them even before, for their ends differ.
    pub fn remove_endpoint(&self, incarnation: Incarnation) -> u32 {
        let _ = incarnation;
        0
    }

    /// The live entries, in no particular order; each is consistent in itself.
    pub fn entries(&self, now: Time) -> impl Iterator<Item = Entry> + '_ {
        let _ = (now, &self.storage);
        std::iter::empty()
    }

    /// Counters.
    pub fn counters(&self) -> Counters {
        Counters::default()
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}
