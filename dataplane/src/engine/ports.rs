//! Which ports there are, and how one is added and removed.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::{EngineError, PortSpec};
use crate::snapshot::{PortId, Role};
use crate::worker::{Command, PortEnds, SharedEnd, WorkerHandle};
use crate::xdp::{Attachment, Programs};
use crate::xsk::{self, Pool, PortOptions, PortSocket, Statistics, TransmitSocket, Umem};

/// How long a worker may take to give back a port's sockets: it does so between two rounds.
const GIVE_BACK_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Entry {
    role: Role,
    attachment: Attachment,
    /// Second descriptors of all its sockets, by which the kernel's counters are read: the first ones
    /// are the workers'.
    sockets: Vec<OwnedFd>,
}

/// A port's sockets.
struct Bound {
    /// For each worker.
    ends: Vec<PortEnds>,
    /// The worker of each queue.
    owners: Vec<usize>,
    /// As [`Entry::sockets`].
    sockets: Vec<OwnedFd>,
}

/// Ports by number.
#[derive(Debug)]
pub(super) struct PortRegister {
    entries: Vec<Option<Entry>>,
    /// Queues that each worker owns, to spread them.
    load: Vec<usize>,
    owners: Vec<Vec<usize>>,
    /// Whether the kernel takes packets of several frames.
    multi_buffer: bool,
}

impl PortRegister {
    pub fn new(ports_max: u16, multi_buffer: bool) -> PortRegister {
        let ports = usize::from(ports_max);
        PortRegister {
            entries: (0..ports).map(|_| None).collect(),
            owners: vec![Vec::new(); ports],
            load: Vec::new(),
            multi_buffer,
        }
    }

    /// The worker that owns a port's first queue.
    pub fn owner(&self, port: PortId) -> Option<usize> {
        let index = usize::from(port.0);
        self.entries.get(index)?.as_ref()?;
        self.owners.get(index)?.first().copied()
    }

    /// The kernel's counters of a port's sockets, summed.
    pub fn statistics(&self, port: PortId) -> Option<Statistics> {
        let entry = self.entries.get(usize::from(port.0))?.as_ref()?;
        let mut sum = Statistics::default();
        for socket in &entry.sockets {
            sum += xsk::statistics(socket.as_fd()).ok()?;
        }
        Some(sum)
    }

    /// The role's own number; else the number asked for, or the lowest that is free.
    fn number(&self, role: Role, wanted: Option<PortId>) -> Result<PortId, EngineError> {
        let wanted = match role {
            Role::HostNode => Some(PortId::HOST_NODE),
            Role::HostTransit => Some(PortId::HOST_TRANSIT),
            Role::Pod | Role::Uplink => wanted,
        };
        let reserved = if matches!(role, Role::Pod | Role::Uplink) {
            usize::from(PortId::FIRST_FREE.0)
        } else {
            0
        };
        let is_free = |index: &usize| *index >= reserved && self.entries[*index].is_none();
        if let Some(port) = wanted {
            let index = usize::from(port.0);
            return if index < self.entries.len() && is_free(&index) {
                Ok(port)
            } else {
                Err(EngineError::NumberTaken(port))
            };
        }
        let free = (0..self.entries.len()).find(is_free);
        let free = free.and_then(|index| u16::try_from(index).ok());
        free.map(PortId)
            .ok_or(EngineError::NoPort(self.entries.len() as u16))
    }

    /// See [`Engine::add_port`](super::Engine::add_port).
    pub fn add(
        &mut self,
        spec: &PortSpec,
        programs: &mut Programs,
        workers: &[WorkerHandle],
        umem: &Arc<Umem>,
    ) -> Result<PortId, EngineError> {
        let port = self.number(spec.role, spec.number)?;
        if spec.queues == 0 {
            return Err(EngineError::Options("a port has at least one queue".into()));
        }
        self.load.resize(workers.len(), 0);
        // The program goes first: until a socket stands behind it, it drops.
        let attachment = programs.attach(spec.role, spec.ifindex)?;
        match self.bind(spec, programs, workers, umem) {
            Ok(Bound {
                ends,
                owners,
                sockets,
            }) => {
                for (worker, ends) in workers.iter().zip(ends) {
                    worker.send(Command::AddPort(port, Box::new(ends)));
                }
                for owner in &owners {
                    self.load[*owner] += 1;
                }
                self.owners[usize::from(port.0)] = owners;
                self.entries[usize::from(port.0)] = Some(Entry {
                    role: spec.role,
                    attachment,
                    sockets,
                });
                Ok(port)
            }
            Err(error) => {
                leave(spec.role, attachment, programs)?;
                umem.reclaim();
                Err(error)
            }
        }
    }

    /// Opens the sockets of every worker: who owns a queue has its rings; who owns none of the
    /// port's queues shares one of them.
    fn bind(
        &self,
        spec: &PortSpec,
        programs: &mut Programs,
        workers: &[WorkerHandle],
        umem: &Arc<Umem>,
    ) -> Result<Bound, EngineError> {
        let mut ends: Vec<PortEnds> = workers.iter().map(|_| PortEnds::default()).collect();
        let mut load = self.load.clone();
        let (mut owners, mut sockets) = (Vec::new(), Vec::new());
        let mut pools: Vec<(usize, Arc<Pool>)> = Vec::new();
        for queue in 0..u32::from(spec.queues) {
            let owner = (0..workers.len())
                .min_by_key(|worker| load[*worker])
                .unwrap_or(0);
            let options = PortOptions {
                zero_copy: spec.zero_copy,
                // A wire's packets fit a chunk, and few drivers take more without copies.
                multi_buffer: self.multi_buffer && !spec.zero_copy,
                ..PortOptions::new(spec.ifindex, queue)
            };
            let socket = PortSocket::open(umem, &options)?;
            programs.set_socket(spec.ifindex, queue, socket.as_fd())?;
            pools.push((owner, Arc::clone(socket.pool())));
            sockets.push(second(&socket)?);
            ends[owner].owned.push(socket);
            owners.push(owner);
            load[owner] += 1;
        }
        for (index, end) in ends.iter_mut().enumerate() {
            if end.owned.is_empty() {
                let (owner, pool) = &pools[index % pools.len()];
                let socket = TransmitSocket::open(pool)?;
                sockets.push(second(&socket)?);
                let owner = Arc::clone(&workers[*owner].wake);
                end.shared = Some(SharedEnd { socket, owner });
            }
        }
        Ok(Bound {
            ends,
            owners,
            sockets,
        })
    }

    /// See [`Engine::remove_port`](super::Engine::remove_port).
    pub fn remove(
        &mut self,
        port: PortId,
        programs: &mut Programs,
        workers: &[WorkerHandle],
    ) -> Result<(), EngineError> {
        let index = usize::from(port.0);
        let entry = self.entries.get_mut(index).and_then(Option::take);
        let Entry {
            role,
            attachment,
            sockets,
        } = entry.ok_or(EngineError::UnknownPort(port))?;
        let mut gone = None;
        let mut shared = Vec::new();
        let mut owned = Vec::new();
        for (index, worker) in workers.iter().enumerate() {
            let (reply, given_back) = sync_channel(1);
            worker.send(Command::RemovePort(port, reply));
            match given_back.recv_timeout(GIVE_BACK_PATIENCE) {
                Ok(ends) => {
                    owned.extend(ends.owned);
                    shared.extend(ends.shared);
                }
                Err(_) => gone = Some(EngineError::WorkerGone(index)),
            }
        }
        for owner in self.owners[index].drain(..) {
            self.load[owner] -= 1;
        }
        drop(sockets);
        drop(shared);
        drop(owned);
        leave(role, attachment, programs)?;
        gone.map_or(Ok(()), Err)
    }
}

/// A second descriptor of a socket.
fn second(socket: &impl AsFd) -> Result<OwnedFd, EngineError> {
    let second = socket.as_fd().try_clone_to_owned();
    second.map_err(|source| EngineError::System {
        what: "duplicate a socket's descriptor".into(),
        source,
    })
}

/// Gives an interface up. An uplink is the node's own again. A pod may still be running behind its
/// veth: that stays shut, or the pod's packets would take the node's stack past all policy.
fn leave(role: Role, attachment: Attachment, programs: &mut Programs) -> Result<(), EngineError> {
    if role == Role::Uplink {
        programs.detach(attachment)?;
    } else {
        programs.leave_shut(attachment)?;
    }
    // Of pods that have gone meanwhile.
    programs.sweep()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_node_originates_has_a_port_number_that_nothing_else_ever_has() {
        let mut register = PortRegister::new(4, true);
        let number = |register: &PortRegister, role, wanted: Option<u16>| {
            register
                .number(role, wanted.map(PortId))
                .ok()
                .map(|id| id.0)
        };
        for role in [Role::Pod, Role::Uplink] {
            // As without a host port: its numbers stay free.
            assert_eq!(number(&register, role, None), Some(2));
            assert_eq!(number(&register, role, Some(3)), Some(3));
            assert_eq!(number(&register, role, Some(0)), None);
            assert_eq!(number(&register, role, Some(1)), None);
            assert_eq!(number(&register, role, Some(4)), None);
        }
        for wanted in [None, Some(3)] {
            assert_eq!(number(&register, Role::HostNode, wanted), Some(0));
            assert_eq!(number(&register, Role::HostTransit, wanted), Some(1));
        }
        for index in [0, 2, 3] {
            register.entries[index] = Some(Entry {
                role: Role::Pod,
                attachment: Attachment { ifindex: 9 },
                sockets: Vec::new(),
            });
        }
        assert_eq!(number(&register, Role::HostNode, None), None);
        assert_eq!(number(&register, Role::Pod, None), None);
        assert_eq!(number(&register, Role::Uplink, Some(2)), None);
    }
}
