//! Local endpoints as packets ask for them: by address, with all that delivery needs side by side.

use super::{Endpoint, EndpointSlot, Incarnation, Port, PortId};
use crate::{Address, Mac};

/// What forwarding to and from an endpoint needs to know of it and of its port: one cache line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(align(64))]
pub(crate) struct Local {
    /// Its first addresses; the last of them again where there are fewer. Of an endpoint without any,
    /// unspecified ones, which no packet on the short way carries.
    addresses: [Address; Local::ADDRESSES],
    /// The Ethernet addresses of a frame for it, as its header has them: its own, and our port's.
    pub ethernet: [u8; 12],
    pub slot: EndpointSlot,
    pub port: PortId,
    pub mtu: u16,
    pub incarnation: Incarnation,
    /// Whether the snapshot has its port.
    pub has_port: bool,
}

const _: () = assert!(size_of::<Local>() == 64);

impl Local {
    /// One of each family is what nearly every pod has.
    const ADDRESSES: usize = 2;

    fn new(endpoint: &Endpoint, port: Option<&Port>) -> Local {
        let mut last = Address::default();
        let addresses = std::array::from_fn(|nth| {
            last = endpoint.addresses.get(nth).copied().unwrap_or(last);
            last
        });
        let mut ethernet = [0; 12];
        ethernet[..6].copy_from_slice(&endpoint.mac.0);
        if let Some(port) = port {
            ethernet[6..].copy_from_slice(&port.mac.0);
        }
        Local {
            addresses,
            ethernet,
            slot: endpoint.slot,
            port: endpoint.port,
            mtu: port.map_or(0, |port| port.mtu),
            incarnation: endpoint.incarnation,
            has_port: port.is_some(),
        }
    }

    /// Whether this is one of its first addresses.
    #[inline]
    pub fn begins_with(&self, address: Address) -> bool {
        (self.addresses[0] == address) | (self.addresses[1] == address)
    }

    /// The Ethernet address of its interface.
    #[inline]
    pub fn mac(&self) -> Mac {
        let [a, b, c, d, e, f, ..] = self.ethernet;
        Mac([a, b, c, d, e, f])
    }
}

/// The local endpoints, by slot and by address.
#[derive(Debug, Default)]
pub(super) struct Locals {
    by_slot: Vec<Option<Local>>,
    /// An open-addressed hash table of each address' slot + 1; 0 ends a search. A power of two, at
    /// most a quarter of it in use.
    by_address: Vec<u32>,
}

impl Locals {
    /// No two of `endpoints` have an address in common.
    pub fn new(endpoints: &[Option<Endpoint>], ports: &[Option<Port>]) -> Locals {
        let port = |id: PortId| ports.get(usize::from(id.0))?.as_ref();
        let local = |endpoint: &Endpoint| Local::new(endpoint, port(endpoint.port));
        let addresses = |endpoint: &Endpoint| endpoint.addresses.len();
        let count: usize = endpoints.iter().flatten().map(addresses).sum();
        let mut locals = Locals {
            by_slot: endpoints
                .iter()
                .map(|endpoint| endpoint.as_ref().map(local))
                .collect(),
            by_address: vec![0; (4 * count).next_power_of_two()],
        };
        for endpoint in endpoints.iter().flatten() {
            for address in &endpoint.addresses {
                locals.insert(*address, endpoint.slot);
            }
        }
        locals
    }

    fn insert(&mut self, address: Address, slot: EndpointSlot) {
        let mask = self.by_address.len() - 1;
        let mut place = hash(address) & mask;
        while self.by_address[place] != 0 {
            place = (place + 1) & mask;
        }
        self.by_address[place] = u32::from(slot.0) + 1;
    }

    pub fn get(&self, slot: EndpointSlot) -> Option<&Local> {
        self.by_slot.get(usize::from(slot.0))?.as_ref()
    }

    /// The endpoint with this address. `endpoints` are those that this was made of.
    #[inline]
    pub fn at(&self, address: Address, endpoints: &[Option<Endpoint>]) -> Option<&Local> {
        let mask = self.by_address.len().wrapping_sub(1);
        let mut place = hash(address) & mask;
        // Three places of four are empty, so this ends.
        loop {
            let slot = self.by_address.get(place)?.checked_sub(1)? as usize;
            let local = self.by_slot.get(slot)?.as_ref()?;
            if local.begins_with(address) || has(endpoints, slot, address) {
                return Some(local);
            }
            place = (place + 1) & mask;
        }
    }
}

/// Whether an endpoint has this address, among those a [`Local`] has no room for, too.
#[inline]
fn has(endpoints: &[Option<Endpoint>], slot: usize, address: Address) -> bool {
    let endpoint = endpoints.get(slot).and_then(Option::as_ref);
    endpoint.is_some_and(|endpoint| {
        let rest = endpoint.addresses.get(Local::ADDRESSES..);
        rest.is_some_and(|rest| rest.contains(&address))
    })
}

/// Which addresses are hashed here, control decides: nobody can crowd a place by what he sends.
#[inline]
fn hash(address: Address) -> usize {
    let (high, low) = ((address.0 >> 64) as u64, address.0 as u64);
    let mixed = (low ^ high.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(slot: u16, addresses: &[Address]) -> Endpoint {
        Endpoint {
            slot: EndpointSlot(slot),
            incarnation: Incarnation(u32::from(slot) + 1),
            port: PortId(slot + 2),
            mac: Mac([2, 0, 0, 0, 0, slot as u8]),
            addresses: addresses.iter().copied().collect(),
        }
    }

    #[test]
    fn every_address_finds_its_endpoint_and_no_other_does() {
        // Slots with gaps; up to eight addresses each, so that those beyond a Local's are asked for.
        let address = |slot: u16, nth: u16| match nth % 2 {
            0 => Address::v4(0x0a00_0000 | u32::from(slot) << 8 | u32::from(nth)),
            _ => Address::v6(0xfd00 << 112 | u128::from(slot) << 64 | u128::from(nth)),
        };
        let endpoints: Vec<Option<Endpoint>> = (0..500)
            .map(|slot: u16| {
                let addresses: Vec<Address> = (0..slot % 9).map(|nth| address(slot, nth)).collect();
                (!slot.is_multiple_of(7)).then(|| endpoint(slot, &addresses))
            })
            .collect();
        let locals = Locals::new(&endpoints, &[]);
        for slot in 0..500 {
            for nth in 0..10 {
                let found = locals.at(address(slot, nth), &endpoints);
                let expected = !slot.is_multiple_of(7) && nth < slot % 9;
                assert_eq!(found.map(|local| local.slot.0), expected.then_some(slot));
            }
            let found = locals.get(EndpointSlot(slot));
            assert_eq!(found.is_some(), !slot.is_multiple_of(7));
        }
        assert_eq!(locals.at(Address::default(), &endpoints), None);
        assert_eq!(Locals::default().at(address(1, 0), &[]), None);
    }
}
