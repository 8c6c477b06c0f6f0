//! Which ports there are, and how one is added and removed.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::{EngineError, PortSpec, QUEUES_MAX};
use crate::snapshot::{PortId, Role};
use crate::worker::{Command, PortEnds, SharedEnd, WorkerHandle};
use crate::xdp::{Attachment, Programs};
use crate::xsk::{self, Pool, PortOptions, PortSocket, Statistics, TransmitSocket, Umem};

/// How long a worker may take to give back a port's sockets: it does so between two rounds.
const GIVE_BACK_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Entry {
    role: Role,
    zero_copy: bool,
    attachment: Attachment,
    /// Second descriptors of all its sockets, by which the kernel's counters are read: the first ones
    /// are the workers'.
    sockets: Vec<OwnedFd>,
}

/// Queues to bind, and what they are bound by.
struct Binding {
    role: Role,
    ifindex: u32,
    zero_copy: bool,
    queues: Range<u16>,
}

/// A port's sockets.
struct Bound {
    /// For each worker.
    ends: Vec<PortEnds>,
    /// Each queue's owner and pool.
    queues: Vec<(usize, Arc<Pool>)>,
    /// As [`Entry::sockets`].
    sockets: Vec<OwnedFd>,
}

/// Ports by number.
#[derive(Debug)]
pub(super) struct PortRegister {
    entries: Vec<Option<Entry>>,
    /// Queues that each worker owns, to spread them.
    load: Vec<usize>,
    /// By port, the owner of each queue.
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

    /// The worker that owns each queue of a port; none if there is no such port.
    pub fn owners(&self, port: PortId) -> &[usize] {
        self.owners
            .get(usize::from(port.0))
            .map_or(&[], Vec::as_slice)
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
        check_queues(spec.queues)?;
        self.load.resize(workers.len(), 0);
        // The program goes first: until a socket stands behind it, it drops.
        let attachment = programs.attach(spec.role, spec.ifindex)?;
        let binding = Binding {
            role: spec.role,
            ifindex: spec.ifindex,
            zero_copy: spec.zero_copy,
            queues: 0..spec.queues,
        };
        let bound = self
            .bind(&[], &binding, programs, workers, umem)
            .and_then(|mut bound| {
                share(&mut bound, spec.transmit_queues, workers)?;
                Ok(bound)
            });
        match bound {
            Ok(bound) => {
                self.entries[usize::from(port.0)] = Some(Entry {
                    role: spec.role,
                    zero_copy: spec.zero_copy,
                    attachment,
                    sockets: Vec::new(),
                });
                self.hand_out(port, bound, workers);
                Ok(port)
            }
            Err(error) => {
                leave(spec.role, attachment, programs)?;
                umem.reclaim();
                Err(error)
            }
        }
    }

    /// See [`Engine::add_queues`](super::Engine::add_queues).
    pub fn add_queues(
        &mut self,
        port: PortId,
        queues: u16,
        programs: &mut Programs,
        workers: &[WorkerHandle],
        umem: &Arc<Umem>,
    ) -> Result<u16, EngineError> {
        check_queues(queues)?;
        let index = usize::from(port.0);
        let entry = self.entries.get(index).and_then(Option::as_ref);
        let entry = entry.ok_or(EngineError::UnknownPort(port))?;
        let present = self.owners[index].len() as u16;
        let binding = Binding {
            role: entry.role,
            ifindex: entry.attachment.ifindex,
            zero_copy: entry.zero_copy,
            queues: present..queues,
        };
        match self.bind(&self.owners[index], &binding, programs, workers, umem) {
            Ok(bound) => {
                self.hand_out(port, bound, workers);
                programs.renew(binding.role, binding.ifindex)?;
                Ok(present.max(queues))
            }
            Err(error) => {
                for queue in binding.queues {
                    programs.clear_socket(binding.ifindex, queue.into())?;
                }
                umem.reclaim();
                Err(error)
            }
        }
    }

    fn hand_out(&mut self, port: PortId, bound: Bound, workers: &[WorkerHandle]) {
        for (worker, ends) in workers.iter().zip(bound.ends) {
            if !ends.owned.is_empty() || ends.shared.is_some() {
                worker.send(Command::AddPort(port, Box::new(ends)));
            }
        }
        if let Some(Some(entry)) = self.entries.get_mut(usize::from(port.0)) {
            entry.sockets.extend(bound.sockets);
        }
        for (owner, _) in bound.queues {
            self.load[owner] += 1;
            self.owners[usize::from(port.0)].push(owner);
        }
    }

    /// Opens the sockets that receive. A port's queues go to as many workers as there are, first to
    /// those that own the fewest of all; `owners` are those of the queues that it has already.
    fn bind(
        &self,
        owners: &[usize],
        binding: &Binding,
        programs: &mut Programs,
        workers: &[WorkerHandle],
        umem: &Arc<Umem>,
    ) -> Result<Bound, EngineError> {
        let mut bound = Bound {
            ends: workers.iter().map(|_| PortEnds::default()).collect(),
            queues: Vec::new(),
            sockets: Vec::new(),
        };
        let mut load = self.load.clone();
        let mut own = vec![0usize; workers.len()];
        owners.iter().for_each(|owner| own[*owner] += 1);
        for queue in binding.queues.clone().map(u32::from) {
            let owner = (0..workers.len())
                .min_by_key(|worker| (own[*worker], load[*worker]))
                .unwrap_or(0);
            let mut options = PortOptions {
                zero_copy: binding.zero_copy,
                // A wire's packets fit a chunk, and few drivers take more without copies.
                multi_buffer: self.multi_buffer && !binding.zero_copy,
                ..PortOptions::new(binding.ifindex, queue)
            };
            if binding.role == Role::Uplink {
                options.fill_idle = uplink_frames(umem.chunks(), options.fill_idle);
            }
            let socket = PortSocket::open(umem, &options)?;
            programs.set_socket(binding.ifindex, queue, socket.as_fd())?;
            bound.queues.push((owner, Arc::clone(socket.pool())));
            bound.sockets.push(second(&socket)?);
            bound.ends[owner].owned.push(socket);
            own[owner] += 1;
            load[owner] += 1;
        }
        Ok(bound)
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
            ..
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

/// Frames that an idle uplink's queue has waiting: there are few of these, and the whole network may
/// send to them at once. A hundred and twenty-eighth of all frames, at most 256, no fewer than a pod's.
fn uplink_frames(chunks: u32, of_pods: u32) -> u32 {
    (chunks / 128).clamp(of_pods, 256)
}

fn check_queues(queues: u16) -> Result<(), EngineError> {
    if (1..=QUEUES_MAX).contains(&queues) {
        return Ok(());
    }
    Err(EngineError::Options(format!(
        "{queues} queues: a port has 1 to {QUEUES_MAX}"
    )))
}

/// Gives every worker a way to send: by a queue of its own, else by a TX-only socket into another's.
/// Only the first `transmit_queues` serve: the kernel looks for a transmit queue of the same number
/// and does not check that there is one (`__dev_direct_xmit`).
fn share(
    bound: &mut Bound,
    transmit_queues: u16,
    workers: &[WorkerHandle],
) -> Result<(), EngineError> {
    let sending = usize::from(transmit_queues).clamp(1, bound.queues.len().max(1));
    let ways = bound.queues.get(..sending).unwrap_or_default();
    for (index, end) in bound.ends.iter_mut().enumerate() {
        if ways.iter().any(|(owner, _)| *owner == index) {
            continue;
        }
        let Some((owner, pool)) = ways.get(index % sending) else {
            continue;
        };
        let socket = TransmitSocket::open(pool)?;
        bound.sockets.push(second(&socket)?);
        let owner = Arc::clone(&workers[*owner].wake);
        end.shared = Some(SharedEnd { socket, owner });
    }
    Ok(())
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
                zero_copy: false,
                attachment: Attachment { ifindex: 9 },
                sockets: Vec::new(),
            });
        }
        assert_eq!(number(&register, Role::HostNode, None), None);
        assert_eq!(number(&register, Role::Pod, None), None);
        assert_eq!(number(&register, Role::Uplink, Some(2)), None);
    }
}
