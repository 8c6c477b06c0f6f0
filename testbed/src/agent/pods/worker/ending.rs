//! A pod's end.

use std::time::{Duration, Instant};

use control::protocol::{EndpointRemoveParams, Mutation};

use super::super::{Condition, Order, Pod, forget, status};
use super::Worker;
use super::inside::Inside;
use crate::agent::events::Tone;
use crate::agent::lock;
use crate::pod::message::{FromInit, ToInit};

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
        let container = self.container(at);
        let hook = container.lifecycle.as_ref();
        if let Some(hook) = hook.and_then(|lifecycle| lifecycle.pre_stop.as_ref()) {
            let inside = Inside::of(self.pod, at);
            inside.before_stop(self.agent, self.object, container, hook, deadline);
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
