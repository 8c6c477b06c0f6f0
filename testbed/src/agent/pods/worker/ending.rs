//! A pod's end.

use std::time::{Duration, Instant};

use control::protocol::{EndpointRemoveParams, Mutation};
use k8s_openapi::api::core::v1::{LifecycleHandler, Probe};

use super::super::{Condition, Order, Pod, forget, status};
use super::Worker;
use crate::agent::events::Tone;
use crate::agent::{lock, probes};
use crate::pod::message::{FromInit, ToInit};

/// How long a command before a container's end may take, whatever grace there is.
const LONGEST_HOOK: Duration = Duration::from_secs(60);

impl Worker<'_> {
    /// Ends the containers, then removes whatever the pod had.
    pub(super) fn tear_down(mut self, grace_s: u64) {
        let own = self.spec.termination_grace_period_seconds;
        let own = own.and_then(|s| u64::try_from(s).ok()).unwrap_or(30);
        self.end_containers(Duration::from_secs(grace_s.min(own)));
        if let Some(sandbox) = self.pod.sandbox.get() {
            sandbox.end();
        }
        self.release_network();
        let status = status::status(&lock(&self.pod.state));
        let ended = ["Succeeded", "Failed"].contains(&status["phase"].as_str().unwrap_or(""));
        if ended {
            self.write_status();
        }
        if let Err(error) = self.agent.remove("pods", self.object)
            && !self.agent.is_stopping()
        {
            self.agent
                .complain(format_args!("pod {}: {error}", self.pod.name));
        }
        forget(self.agent, self.pod);
    }

    fn end_containers(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        for at in running(self.pod) {
            if !self.agent.is_stopping() {
                let name = lock(&self.pod.state).containers[at].name.clone();
                let message = format!("Stopping container {name}");
                self.note(Some(at), Tone::Normal, "Killing", message);
                self.before_stop(at, deadline);
            }
            let id = lock(&self.pod.state).containers[at].process_id;
            self.tell(&ToInit::Signal { id, signal: 15 }, None);
        }
        self.spec.restart_policy = Some("Never".into());
        while !running(self.pod).is_empty() && !self.agent.is_stopping() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            match self
                .inbox
                .recv_timeout(left.min(Duration::from_millis(200)))
            {
                Ok(Order::Heard(FromInit::Exited { id, code })) => self.exited(id, code),
                Ok(Order::InitEnded) => return,
                Ok(Order::Stop { grace_s: 0 }) => return,
                _ => {}
            }
        }
    }

    /// The container's `preStop`: it has the grace that there is.
    fn before_stop(&self, at: usize, deadline: Instant) {
        let lifecycle = self.container(at).lifecycle.as_ref();
        let Some(hook) = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else {
            return;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = left.min(LONGEST_HOOK);
        if let Err(why) = self.run_hook(at, hook, limit) {
            let message = format!("PreStopHook failed: {why}");
            self.note(Some(at), Tone::Warning, "FailedPreStopHook", message);
        }
    }

    fn run_hook(&self, at: usize, hook: &LifecycleHandler, limit: Duration) -> Result<(), String> {
        if limit.is_zero() {
            return Err("there is no grace left for it".into());
        }
        if let Some(sleep) = &hook.sleep {
            let wanted = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
            std::thread::sleep(wanted.min(limit));
            return Ok(());
        }
        if let Some(action) = &hook.exec {
            let command = action.command.clone().unwrap_or_default();
            let ended = self.run_inside(at, &command, limit)?;
            return match ended.code {
                0 => Ok(()),
                code => Err(format!("exit status {code}: {}", ended.text)),
            };
        }
        let address = lock(&self.pod.state).addresses.first().copied();
        let (Some(address), true) = (address, hook.http_get.is_some()) else {
            return Ok(());
        };
        let asked = Probe {
            http_get: hook.http_get.clone(),
            ..Probe::default()
        };
        let node = &self.agent.topology.node;
        match probes::run(&asked, self.container(at), address, node) {
            probes::Finding::Bad(why) => Err(why),
            _ => Ok(()),
        }
    }

    pub(super) fn release_network(&mut self) {
        let (endpoint, addresses) = {
            let mut state = lock(&self.pod.state);
            (state.endpoint.take(), std::mem::take(&mut state.addresses))
        };
        if endpoint.is_some() && !self.agent.is_stopping() {
            let uid = self.pod.uid.clone();
            let removed = self
                .agent
                .call::<Mutation>("endpoint.remove", EndpointRemoveParams { uid });
            // Unknown to a daemon that was just started; then there is nothing to remove.
            let _unknown = removed;
        }
        if let Some(network) = self.network.take() {
            self.agent.topology.remove_pod(&network);
        }
        if !self.is_on_host() {
            self.agent.free_addresses(&addresses);
        }
    }
}

/// The containers that run.
fn running(pod: &Pod) -> Vec<usize> {
    let state = lock(&pod.state);
    let all = state.containers.iter().enumerate();
    let running = all.filter(|(_, c)| c.condition == Condition::Running);
    running.map(|(at, _)| at).collect()
}
