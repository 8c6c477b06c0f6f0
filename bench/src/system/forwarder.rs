//! Who forwards between the two pods: Weir and its peers.

use super::topology::Topology;
use crate::error::BenchError;

/// One forwarder with a node and pods of its own. At rest until it is entered.
pub trait Forwarder: Send + Sync {
    /// What its rows are called.
    fn name(&self) -> &str;

    /// What a reader must know of how it forwards: copy mode, which cores.
    fn mode(&self) -> &str;

    /// Its node and pods.
    fn topology(&self) -> &Topology;

    /// Processes that work for it, beside this one.
    fn processes(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Whether TCP between the pods' own stacks passes.
    fn passes_tcp(&self) -> bool {
        true
    }

    /// Whether it keeps connections, so that new ones have a price.
    fn tracks_connections(&self) -> bool {
        false
    }

    /// Makes it ready to forward.
    fn enter(&mut self) -> Result<(), BenchError> {
        Ok(())
    }

    /// Lets the other forwarders have the machine.
    fn leave(&mut self) {}
}
