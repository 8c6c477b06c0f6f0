//! ARP and neighbour discovery (D5): we answer for the pods' gateways, and towards the node for the
//! pods and the Services too. Nothing of it is ever forwarded.

use super::stage::Stage;
use super::{Inbound, Outcome, source};
use crate::conntrack::Storage;
use crate::snapshot::{Port, Role};
use crate::wire::{Arp, Ip, Neighbour, NeighbourMessage, Packet, reply};
use crate::{Address, DropReason, Mac};

impl<S: Storage> Stage<'_, '_, S> {
    /// Answers an ARP request for an address that is ours to answer for.
    pub fn answer_arp(
        &self,
        inbound: &mut Inbound<'_>,
        packet: &Packet,
        arp: &Arp,
        port: &Port,
    ) -> Result<Outcome, DropReason> {
        if arp.sender_mac != packet.ethernet.source {
            return Err(DropReason::SpoofedMac);
        }
        // A probe has no sender yet; it is never answered, but no spoofing either.
        let sender = (!arp.is_probe()).then_some(arp.sender);
        self.check_asker(port, packet.ethernet.source, sender)?;
        self.check_target(port, arp.target)?;
        let len = reply::arp_reply(inbound.window, packet, port.mac)?;
        Ok(Outcome::Answer(Self::answer(inbound, len)))
    }

    /// Answers a neighbour solicitation for an address that is ours to answer for.
    pub fn answer_neighbour(
        &self,
        inbound: &mut Inbound<'_>,
        packet: &Packet,
        ip: &Ip,
        neighbour: &Neighbour,
        port: &Port,
    ) -> Result<Outcome, DropReason> {
        let mac = packet.ethernet.source;
        if neighbour.link_address.is_some_and(|address| address != mac) {
            return Err(DropReason::SpoofedMac);
        }
        // A probe for a duplicate comes from `::`, much of the rest from link-local addresses,
        // which no table lists (D17).
        let unlisted = ip.source == Address::v6(0) || source::is_v6_link_local(ip.source);
        self.check_asker(port, mac, (!unlisted).then_some(ip.source))?;
        if neighbour.message != NeighbourMessage::Solicitation {
            return Err(DropReason::NeighbourNotOurs);
        }
        self.check_target(port, neighbour.target)?;
        let len = reply::neighbour_advertisement(inbound.window, packet, port.mac)?;
        Ok(Outcome::Answer(Self::answer(inbound, len)))
    }

    /// Whether the one who asks may stand behind this port.
    fn check_asker(
        &self,
        port: &Port,
        mac: Mac,
        sender: Option<Address>,
    ) -> Result<(), DropReason> {
        match (port.role, sender) {
            (Role::Pod, Some(sender)) => {
                source::check(self.snapshot, port, mac, sender)?;
            }
            (Role::Pod, None) => {
                source::sender(self.snapshot, port, mac)?;
            }
            (Role::HostNode | Role::HostTransit, Some(sender)) => {
                if !self.snapshot.is_node_address(sender) {
                    return Err(DropReason::SpoofedSource);
                }
            }
            (Role::HostNode | Role::HostTransit, None) => {}
            // An uplink's neighbours are the node's stack's to answer.
            (Role::Uplink, _) => return Err(DropReason::NeighbourNotOurs),
        }
        Ok(())
    }

    fn check_target(&self, port: &Port, target: Address) -> Result<(), DropReason> {
        let is_behind_us = self.snapshot.endpoint_at(target).is_some()
            || self.snapshot.services().is_service_address(target);
        if self.snapshot.is_gateway(target) || port.role != Role::Pod && is_behind_us {
            Ok(())
        } else {
            Err(DropReason::NeighbourNotOurs)
        }
    }
}
