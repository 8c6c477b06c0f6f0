//! Services: which backends stand behind an address and a port.
//!
//! Control computes the lists (traffic policies, readiness, terminating endpoints) and builds a
//! [`ServiceTable`], which a [`Snapshot`](crate::Snapshot) carries; the dataplane only chooses. What
//! was chosen is remembered by the connection's entry, so that a connection keeps its backend whatever
//! becomes of the list.
//!
//! [`ServiceTable::lookup`] is what packets ask, and `trace` without packets: there is no second way to
//! find out.

mod affinity;
mod shards;
mod table;

pub use affinity::{Affinity, Chosen};
pub use table::{Found, ServiceTable};

use std::sync::Arc;

use crate::{Address, Protocol, SocketAddress};

/// Frontends there can be: ports of Services, for each of their addresses and node ports.
pub const FRONTENDS_MAX: usize = 1 << 16;
/// Node ports there can be, of all protocols: each once, whatever addresses have it.
pub const NODE_PORTS_MAX: usize = 1 << 14;
/// The node's addresses that node ports can be reached at.
pub const NODE_ADDRESSES_MAX: usize = 256;
/// Backends that one list of a frontend can have.
pub const BACKENDS_OF_FRONTEND_MAX: usize = 1 << 13;
/// Backends that all lists together can have.
pub const BACKENDS_MAX: usize = 1 << 20;

/// What a [`ServiceTable`] is built from.
#[derive(Clone, Debug, Default)]
pub struct ServiceParts {
    /// The ports of all Services.
    pub frontends: Vec<Frontend>,
    /// Addresses that belong to Services (ClusterIP, external and load balancer addresses) beside
    /// those of `frontends` that are no node ports: nobody sends from them, and what is addressed to
    /// a port that no frontend has goes nowhere ([`Lookup::NoSuchPort`]).
    pub addresses: Vec<Address>,
    /// The node's IPv4 address for connections that have to come back to this node: neither the client
    /// nor the backend is a pod of ours. Without it they are dropped
    /// ([`ServiceNoSource`](crate::DropReason::ServiceNoSource)).
    pub source_v4: Option<Address>,
    /// The same for IPv6.
    pub source_v6: Option<Address>,
}

/// What makes the next [`ServiceTable`] of one. What goes goes first.
#[derive(Clone, Debug, Default)]
pub struct ServiceChange {
    /// The addresses and ports of frontends that go, or that others come in place of. One that is not
    /// there has gone already.
    pub gone: Vec<(SocketAddress, Protocol)>,
    /// Frontends that come.
    pub frontends: Vec<Arc<Frontend>>,
    /// Of [`ServiceParts::addresses`] those that go, each as often as it does.
    pub gone_addresses: Vec<Address>,
    /// And those that come.
    pub addresses: Vec<Address>,
}

impl ServiceChange {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty()
            && self.frontends.is_empty()
            && self.gone_addresses.is_empty()
            && self.addresses.is_empty()
    }
}

/// A port of a Service, by which clients reach it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frontend {
    /// The Service's address, or for a node port one of the node's.
    pub address: Address,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// What clients ask for: the Service's port, or the node port.
    pub port: u16,
    /// Where connections of the node's pods and of the node itself go (internalTrafficPolicy): pods'
    /// addresses and real ports, in any order. May be empty.
    pub internal: Vec<SocketAddress>,
    /// Where connections from elsewhere go (externalTrafficPolicy): those that come by an uplink, or
    /// that the node forwards.
    pub external: Vec<SocketAddress>,
    /// For how many seconds after a client's last new connection its next one goes to the same
    /// backend, as long as there is that backend (`sessionAffinity: ClientIP`); none spreads by
    /// connection.
    pub affinity_s: Option<u32>,
    /// Whether `address` is the node's own and no Service's: its other ports are the node's.
    pub node_port: bool,
    /// The port that backends have or would have, if the Service names it by number: without a
    /// backend, a connection is refused only if its sender's egress policy would allow this port at
    /// all (semantics D19). None takes `port`.
    pub target_port: Option<u16>,
}

/// Where a connection to an address and a port leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lookup<'t> {
    /// It is no Service's: routed as it is.
    NotAService,
    /// The address is a Service's, the port is not: refused, or dropped in silence, never routed on.
    NoSuchPort,
    /// There is no backend for connections from there: refused if egress policy would allow
    /// `policy_port` at all, else dropped in silence.
    NoBackend {
        /// [`Frontend::target_port`], or the Service's port.
        policy_port: u16,
    },
    /// One of these, never none: policy is judged on it.
    Backends(&'t [SocketAddress]),
}

/// Why parts make no table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// Two frontends with one address, protocol and port.
    #[error("{at} of protocol {} stands twice among the Services", .protocol.0)]
    FrontendTwice {
        /// The address and port.
        at: SocketAddress,
        /// The protocol.
        protocol: Protocol,
    },
    /// A frontend whose protocol has no ports.
    #[error("{at}: protocol {} has no ports", .protocol.0)]
    NoPorts {
        /// The address and port.
        at: SocketAddress,
        /// The protocol.
        protocol: Protocol,
    },
    /// A backend of the other family (semantics D14).
    #[error("{at} has a backend of the other address family: {backend}")]
    OtherFamily {
        /// The frontend's address and port.
        at: SocketAddress,
        /// The backend.
        backend: SocketAddress,
    },
    /// More than [`FRONTENDS_MAX`].
    #[error("{0} ports of Services are more than the {FRONTENDS_MAX} that there can be")]
    TooManyFrontends(usize),
    /// More than [`NODE_PORTS_MAX`] ports or [`NODE_ADDRESSES_MAX`] addresses.
    #[error(
        "node ports: {ports} of {NODE_PORTS_MAX} possible at {addresses} of {NODE_ADDRESSES_MAX} addresses"
    )]
    TooManyNodePorts {
        /// Node ports.
        ports: usize,
        /// The node's addresses that have some.
        addresses: usize,
    },
    /// More than [`BACKENDS_OF_FRONTEND_MAX`].
    #[error(
        "{at} has {count} backends, more than the {BACKENDS_OF_FRONTEND_MAX} that one port can have"
    )]
    TooManyOfFrontend {
        /// The frontend's address and port.
        at: SocketAddress,
        /// Its backends.
        count: usize,
    },
    /// More than [`BACKENDS_MAX`].
    #[error("{0} backends of all Services are more than the {BACKENDS_MAX} that there can be")]
    TooManyBackends(usize),
}
