//! A pod's probes: asked beside the pod's thread, one answer at a time each, and what follows from it.

use std::time::{Duration, Instant};

use super::super::{Condition, Order, Role};
use super::Worker;
use super::inside::Inside;
use crate::agent::events::Tone;
use crate::agent::lock;
use crate::agent::probes::{self, Finding, Kind, Probing, Turn};
use crate::pod::message::ToInit;

/// What is left to a container of its grace whatever its hook took, as a kubelet leaves it.
const LEAST_GRACE: Duration = Duration::from_secs(2);

impl Worker<'_> {
    pub(super) fn plan_probes(&mut self, at: usize) {
        let role = lock(&self.pod.state).containers[at].role;
        self.probes[at] = match role {
            Role::Main => Probing::new(self.container(at), Instant::now()),
            Role::Init | Role::Ephemeral => Probing::new(&Default::default(), Instant::now()),
        };
    }

    pub(super) fn run_probes(&mut self) {
        for at in 0..self.probes.len() {
            for kind in self.probes[at].take_due(Instant::now()) {
                self.ask(at, kind);
            }
        }
        self.settle_ready();
    }

    /// Asks in a thread of its own, so that nobody waits for who does not answer.
    fn ask(&self, at: usize, kind: Kind) {
        let container = self.container(at).clone();
        let Some(probe) = kind.of(&container).cloned() else {
            return;
        };
        let (agent, inside) = (self.agent.clone(), Inside::of(self.pod, at));
        std::thread::spawn(move || {
            let finding = match (&probe.exec, inside.address()) {
                (Some(action), _) => {
                    let command = action.command.clone().unwrap_or_default();
                    inside.probe(&command, probes::time_limit(&probe))
                }
                (None, Some(address)) => {
                    probes::run(&probe, &container, address, &agent.topology.node)
                }
                (None, None) => Finding::Errored("the pod has no address".into()),
            };
            let id = inside.process_id;
            inside.pod.order(Order::Probed { id, kind, finding });
        });
    }

    /// Takes a probe's answer. One about a process that has ended meanwhile is nothing.
    pub(super) fn take_finding(&mut self, id: u64, kind: Kind, finding: &Finding) {
        let Some(at) = self.position(id) else { return };
        let turn = self.probes[at].answer(kind, finding, Instant::now());
        let name = kind.name();
        let told = match finding {
            Finding::Good | Finding::Unknown(None) => None,
            Finding::Unknown(Some(why)) => Some(("ProbeWarning", format!("warning: {why}"))),
            Finding::Bad(why) => Some(("Unhealthy", format!("failed: {why}"))),
            Finding::Errored(why) => {
                let told = format!("errored and resulted in unknown state: {why}");
                Some(("Unhealthy", told))
            }
        };
        let warns = matches!(finding, Finding::Unknown(_));
        if let Some((reason, told)) = told.filter(|_| warns || turn != Turn::None) {
            let message = format!("{name} probe {told}");
            self.note(Some(at), Tone::Warning, reason, message);
        }
        if turn == Turn::Ends {
            self.end_broken(at, kind);
        }
        self.settle_ready();
    }

    /// Ends a container that a probe has found broken; what is to be done before takes of its grace.
    fn end_broken(&mut self, at: usize, kind: Kind) {
        let container = self.container(at);
        let own = kind
            .of(container)
            .and_then(|probe| probe.termination_grace_period_seconds);
        let grace = own
            .or(self.spec.termination_grace_period_seconds)
            .unwrap_or(30);
        let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let what = kind.name().to_lowercase();
        let mut message = format!("Container {} failed {what} probe", container.name);
        if self.spec.restart_policy.as_deref() != Some("Never") {
            message += ", will be restarted";
        }
        self.note(Some(at), Tone::Normal, "Killing", message);
        let deadline = Instant::now() + grace;
        self.ending[at] = Some(deadline);
        let inside = Inside::of(self.pod, at);
        let lifecycle = self.container(at).lifecycle.clone();
        let Some(hook) = lifecycle.and_then(|lifecycle| lifecycle.pre_stop) else {
            return self.terminate(inside.process_id);
        };
        let (agent, object) = (self.agent.clone(), self.object.clone());
        let container = self.container(at).clone();
        std::thread::spawn(move || {
            inside.before_stop(&agent, &object, &container, &hook, deadline);
            let id = inside.process_id;
            inside.pod.order(Order::HookEnded { id });
        });
    }

    /// Tells a container that a probe has found broken to end.
    pub(super) fn terminate(&mut self, id: u64) {
        let Some(at) = self.position(id) else { return };
        // However long its hook took, it may still say good-bye.
        let soonest = Instant::now() + LEAST_GRACE;
        if let Some(kill) = &mut self.ending[at] {
            *kill = soonest.max(*kill);
            self.tell(&ToInit::Signal { id, signal: 15 }, None);
        }
    }

    /// Kills what should have ended by now.
    pub(super) fn kill_overdue(&mut self) {
        for at in 0..self.ending.len() {
            if self.ending[at].is_some_and(|kill| kill <= Instant::now()) {
                let id = lock(&self.pod.state).containers[at].process_id;
                self.tell(&ToInit::Signal { id, signal: 9 }, None);
                self.ending[at] = Some(Instant::now() + LEAST_GRACE);
            }
        }
    }

    /// Ready: runs, has started up, serves what it declares, and its readiness probe succeeds.
    pub(super) fn settle_ready(&mut self) {
        let mut state = lock(&self.pod.state);
        for (at, container) in state.containers.iter_mut().enumerate() {
            let runs = container.condition == Condition::Running;
            container.up = runs && self.probes[at].is_up();
            if container.role == Role::Main {
                let probed = self.probes[at].is_ready();
                container.ready = runs && probed && self.unserved[at].is_none();
            }
        }
    }
}
