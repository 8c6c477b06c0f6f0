//! What the daemon makes of the kernel's network, and how it follows it: interfaces that go, come
//! back, or change their MAC, MTU or queues; routes, addresses and neighbours.

use std::sync::Arc;

use dataplane::Mac;
use dataplane::route::RouteTable;
use dataplane::snapshot::{PortId, Role};
use ipnet::IpNet;
use tracing::{error, info, warn};

use super::DaemonError;
use super::network::{Facts, Interface, Queues};
use super::plane::{Outside, Plane, PlaneError};
use super::state::{Daemon, services_node};
use crate::netlink::{Channels, Link};
use crate::protocol::EndpointRemoveParams;

impl<P: Plane> Daemon<P> {
    /// Makes the host port, and ports of the uplinks.
    pub(super) fn take_up_infrastructure(&mut self) -> Result<(), DaemonError> {
        for interface in self.plane.set_up(&self.config)? {
            self.take_up_interface(interface)?;
        }
        let ours: Vec<IpNet> = self.config.our_ranges().collect();
        self.plane.set_local_prefixes(&ours)?;
        let facts = self.plane.facts()?;
        self.take_facts(facts);
        Ok(())
    }

    fn take_up_interface(&mut self, interface: Interface) -> Result<(), PlaneError> {
        let is_uplink = interface.role == Role::Uplink;
        let number = if is_uplink {
            self.endpoints.uplink_number(&interface.name)
        } else {
            None
        };
        let port = self.plane.add_port(&interface, number)?;
        if is_uplink {
            self.endpoints.remember_uplink(&interface.name, port);
        }
        complain(&interface);
        self.infrastructure.push((interface, port));
        Ok(())
    }

    fn take_facts(&mut self, facts: Facts) {
        self.routes = Arc::new(RouteTable::new(&facts.routes));
        self.facts = facts;
        match self.services.at(services_node(&self.config, &self.facts)) {
            Ok(services) => self.services = services,
            Err(error) => error!("node ports are at the addresses from before: {error}"),
        }
    }

    /// Follows changes of the kernel's network.
    pub(super) fn follow_outside(&mut self) {
        let Outside {
            gone,
            links,
            channels,
            mut facts,
        } = self.plane.outside();
        for index in gone {
            self.lose_interface(index);
        }
        let mut changed = false;
        for link in &links {
            changed |= self.follow_link(link);
            if link.up && self.regain_uplink(&link.name) {
                changed = true;
                // Its routes may have been told before it was a port.
                facts = true;
            }
        }
        for channels in &channels {
            self.follow_channels(channels);
        }
        if facts && self.read_facts() {
            changed = true;
        }
        if changed && let Err(error) = self.refresh() {
            error!("the network's change is not live: {}", error.message);
        }
    }

    /// Reads the kernel's network anew; whether it has changed.
    fn read_facts(&mut self) -> bool {
        match self.plane.facts() {
            Ok(facts) if facts == self.facts => false,
            Ok(facts) => {
                self.take_facts(facts);
                true
            }
            Err(error) => {
                error!("the network cannot be read: {error}");
                false
            }
        }
    }

    /// A port's interface and its port.
    fn known(&mut self, index: u32) -> Option<(&mut Interface, PortId)> {
        let infrastructure = self.infrastructure.iter_mut();
        let infrastructure = infrastructure.map(|(interface, port)| (interface, *port));
        let endpoints = self.endpoints.iter_mut();
        let endpoints = endpoints.map(|endpoint| (&mut endpoint.interface, endpoint.port));
        infrastructure
            .chain(endpoints)
            .find(|(interface, _)| interface.index == index)
    }

    /// Takes over a link's MAC and MTU; whether anything has changed.
    fn follow_link(&mut self, link: &Link) -> bool {
        let Some((interface, _)) = self.known(link.index) else {
            return false;
        };
        let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
        let (mac, before) = (Mac(link.mac), (interface.mac, interface.mtu));
        (interface.mac, interface.mtu) = (mac, mtu);
        before != (mac, mtu)
    }

    /// Drives the queues that an interface has got. Packets of the others go on meanwhile.
    fn follow_channels(&mut self, channels: &Channels) {
        let uplinks = self.config.uplinks.clone();
        let Some((interface, port)) = self.known(channels.interface) else {
            return;
        };
        let uplink = uplinks.iter().find(|u| u.interface == interface.name);
        let most = uplink.and_then(|uplink| uplink.queues);
        let queues = match interface.role {
            Role::Pod | Role::Uplink => Queues::of(channels.receive, channels.transmit, most),
            Role::HostNode | Role::HostTransit => return,
        };
        let (before, name) = (interface.queues, interface.name.clone());
        let driven = queues.driven.max(before.driven);
        // Those that are not driven need the program, too, which drops what comes by them.
        if queues.receive > before.receive {
            if let Err(error) = self.plane.add_queues(port, driven) {
                error!("what comes by {name}'s new queues is dropped: {error}");
                return;
            }
            info!("{name}: {driven} receive queues are driven");
        }
        if let Some((interface, _)) = self.known(channels.interface) {
            interface.queues = Queues { driven, ..queues };
            complain(interface);
        }
    }

    /// Makes a port of an uplink that is back; whether there is one.
    fn regain_uplink(&mut self, name: &str) -> bool {
        let mut infrastructure = self.infrastructure.iter();
        if infrastructure.any(|(interface, _)| interface.name == name) {
            return false;
        }
        let uplinks = self.config.uplinks.clone();
        let Some(uplink) = uplinks.iter().find(|u| u.interface == name) else {
            return false;
        };
        let interface = self.plane.uplink(uplink);
        match interface.and_then(|interface| self.take_up_interface(interface)) {
            Ok(()) => {
                info!("uplink {name} is back");
                true
            }
            // It is tried again with its next change.
            Err(error) => {
                warn!("uplink {name} is back, but not driven: {error}");
                false
            }
        }
    }

    /// An interface is gone: its port and its endpoint go too.
    fn lose_interface(&mut self, index: u32) {
        let lost = self
            .endpoints
            .iter()
            .find(|endpoint| endpoint.interface.index == index);
        if let Some(uid) = lost.map(|endpoint| endpoint.record.uid.clone()) {
            if let Err(error) = self.remove_endpoint(&EndpointRemoveParams { uid }) {
                warn!("an endpoint whose interface is gone: {}", error.message);
            }
            return;
        }
        let lost = self
            .infrastructure
            .iter()
            .position(|(known, _)| known.index == index);
        if let Some(at) = lost {
            let (interface, port) = self.infrastructure.remove(at);
            let then = match interface.role {
                Role::Uplink => "it is driven again when it is back",
                _ => "restart the daemon",
            };
            warn!("interface {} is gone: {then}", interface.name);
            let published = self.refresh();
            if let Err(error) = self.remove_port(port) {
                warn!("port {} is left behind: {error}", port.0);
            }
            if let Err(error) = published {
                warn!("its end is not live: {}", error.message);
            }
        }
    }
}

/// Says what is wrong with an interface's queues.
fn complain(interface: &Interface) {
    if let Some(problem) = interface.queues.problem() {
        warn!("{}: {problem}", interface.name);
    }
}
