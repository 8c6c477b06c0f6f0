//! Neighbour discovery, RFC 4861, validated as its sections 6.1, 7.1 and 8.1 demand.

use super::icmp::{self, v6};
use super::ip::{Header, chunk};
use super::{Neighbour, NeighbourMessage};
use crate::{Address, DropReason, Mac};

/// Messages that crossed a router have less.
const HOP_LIMIT: u8 = 255;

const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;

/// `ff02::1:ff00:0/104` without its last 24 bits.
const SOLICITED_NODE: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;

/// In a neighbour advertisement's fifth byte.
const SOLICITED: u8 = 0x40;

/// The message in `message`, which has at least 8 bytes and a type from 133 to 137.
pub(super) fn read(header: &Header, message: &[u8]) -> Result<Neighbour, DropReason> {
    // No fragment header of any kind (RFC 6980).
    if header.hop_limit != HOP_LIMIT || header.fragment_header || message[1] != 0 {
        return Err(DropReason::MalformedNeighbour);
    }
    icmp::verify(header, message)?;
    let (kind, fixed, link_option) = match message[0] {
        v6::ROUTER_SOLICITATION => (NeighbourMessage::RouterSolicitation, 8, SOURCE_LINK_ADDRESS),
        v6::ROUTER_ADVERTISEMENT => (
            NeighbourMessage::RouterAdvertisement,
            16,
            SOURCE_LINK_ADDRESS,
        ),
        v6::NEIGHBOUR_SOLICITATION => (NeighbourMessage::Solicitation, 24, SOURCE_LINK_ADDRESS),
        v6::NEIGHBOUR_ADVERTISEMENT => (NeighbourMessage::Advertisement, 24, TARGET_LINK_ADDRESS),
        _ => (NeighbourMessage::Redirect, 40, TARGET_LINK_ADDRESS),
    };
    let options = message.get(fixed..).ok_or(DropReason::MalformedNeighbour)?;
    let link_address = options_walked(options, link_option)?;
    let target = match kind {
        NeighbourMessage::RouterSolicitation | NeighbourMessage::RouterAdvertisement => {
            Address::v6(0)
        }
        _ => {
            let bytes = chunk::<16>(message, 8).ok_or(DropReason::MalformedNeighbour)?;
            Address::v6(u128::from_be_bytes(*bytes))
        }
    };
    let from_nobody = header.source.is_unspecified();
    let possible = match kind {
        NeighbourMessage::Solicitation => {
            let to_solicited_node = header.destination.0 >> 24 == SOLICITED_NODE >> 24;
            is_station(target) && (!from_nobody || to_solicited_node && link_address.is_none())
        }
        NeighbourMessage::Advertisement => {
            let answers_group = header.destination.is_multicast() && message[4] & SOLICITED != 0;
            is_station(target) && !from_nobody && !answers_group
        }
        NeighbourMessage::RouterSolicitation => !from_nobody || link_address.is_none(),
        NeighbourMessage::RouterAdvertisement => header.source.is_link_local(),
        NeighbourMessage::Redirect => header.source.is_link_local() && is_station(target),
    };
    if !possible {
        return Err(DropReason::MalformedNeighbour);
    }
    Ok(Neighbour {
        message: kind,
        target,
        link_address,
    })
}

/// Whether one interface can have the address.
fn is_station(address: Address) -> bool {
    !(address.is_multicast()
        || address.is_unspecified()
        || address.is_loopback()
        || address.is_v4())
}

/// Walks the options, at least 8 bytes a step, for the link-layer address of type `wanted`.
fn options_walked(mut options: &[u8], wanted: u8) -> Result<Option<Mac>, DropReason> {
    let mut link_address = None;
    while !options.is_empty() {
        let length = match options {
            [_, units, ..] if *units != 0 => usize::from(*units) * 8,
            _ => return Err(DropReason::MalformedNeighbour),
        };
        let Some((option, rest)) = options.split_at_checked(length) else {
            return Err(DropReason::MalformedNeighbour);
        };
        if option[0] == wanted {
            // Ethernet's fill one unit exactly (RFC 2464, section 6).
            let [_, 1, a, b, c, d, e, f] = *option else {
                return Err(DropReason::MalformedNeighbour);
            };
            let mac = Mac([a, b, c, d, e, f]);
            if mac.is_group() || mac == Mac([0; 6]) {
                return Err(DropReason::MalformedNeighbour);
            }
            link_address = Some(mac);
        }
        options = rest;
    }
    Ok(link_address)
}
