//! Readiness and start-up of a pod's containers, and commands inside them.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use control::lab_protocol::{Channel, ExitReport, read_frame};
use k8s_openapi::api::core::v1::Probe;

use super::super::{Condition, Role};
use super::Worker;
use crate::agent::events::Tone;
use crate::agent::lock;
use crate::agent::probes::{self, Finding};
use crate::pod::message::{ProcessSpec, ToInit};

/// Bytes of a command's output that are kept to be told.
const OUTPUT_BYTES: usize = 4 << 10;

/// Where a container's probes are.
#[derive(Default)]
pub(super) struct Probing {
    pub(super) next: Option<Instant>,
    started: bool,
    good: u32,
    bad: u32,
}

/// How a command inside a container ended.
pub(super) struct Ended {
    /// Its exit status; 126 and above 127 and 128 are those of what could not run.
    pub code: i32,
    /// What it said, or why it did not run.
    pub text: String,
}

impl Worker<'_> {
    pub(super) fn plan_probes(&mut self, at: usize) {
        let container = self.container(at);
        let probe = container
            .startup_probe
            .as_ref()
            .or(container.readiness_probe.as_ref());
        let started = container.startup_probe.is_none();
        let next = probe.map(|probe| {
            let delay = probe.initial_delay_seconds.unwrap_or(0).max(0) as u64;
            Instant::now() + Duration::from_secs(delay)
        });
        self.probes[at].next = next;
        self.probes[at].started = started;
        self.settle_ready();
    }

    pub(super) fn run_probes(&mut self) {
        for at in 0..self.probes.len() {
            if self.probes[at]
                .next
                .is_none_or(|next| next > Instant::now())
            {
                continue;
            }
            let container = self.container(at);
            let starting = !self.probes[at].started;
            let chosen = match starting {
                true => container.startup_probe.clone(),
                false => container.readiness_probe.clone(),
            };
            let address = lock(&self.pod.state).addresses.first().copied();
            let (Some(probe), Some(address)) = (chosen, address) else {
                self.probes[at].next = None;
                continue;
            };
            let finding = match &probe.exec {
                Some(action) => {
                    let command = action.command.clone().unwrap_or_default();
                    self.probe_inside(at, &command, probes::time_limit(&probe))
                }
                None => {
                    let container = container.clone();
                    probes::run(&probe, &container, address, &self.agent.topology.node)
                }
            };
            self.judge_probe(at, &probe, starting, finding);
        }
        self.settle_ready();
    }

    /// As a kubelet does: by the command's exit status. A stand-in does not have its original's
    /// programs, which is no failure of what it serves.
    fn probe_inside(&self, at: usize, command: &[String], limit: Duration) -> Finding {
        let stand_in = lock(&self.pod.state).containers[at].stand_in;
        match self.run_inside(at, command, limit) {
            Ok(Ended { code: 0, .. }) => Finding::Good,
            Ok(Ended {
                code: 126..=128, ..
            }) if stand_in => Finding::Unknown,
            Ok(ended) => Finding::Bad(ended.text),
            Err(why) => Finding::Bad(why),
        }
    }

    /// Runs a command in a container, as `exec` does, for so long at most.
    pub(super) fn run_inside(
        &self,
        at: usize,
        command: &[String],
        limit: Duration,
    ) -> Result<Ended, String> {
        let text = |error: std::io::Error| error.to_string();
        let (mut near, far) = UnixStream::pair().map_err(text)?;
        let (container, process) = {
            let state = lock(&self.pod.state);
            let container = &state.containers[at];
            let process = ProcessSpec {
                command: command.to_vec(),
                responder: None,
                tty: false,
                stdin: false,
                size: None,
                mounts: Vec::new(),
                ..container.process.clone()
            };
            (container.process_id, Box::new(process))
        };
        self.tell(&ToInit::Exec { container, process }, Some(&far.into()));
        let deadline = Instant::now() + limit;
        let mut said = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("command timed out after {}s", limit.as_secs()));
            }
            near.set_read_timeout(Some(left)).map_err(text)?;
            match read_frame(&mut near) {
                Ok(Some(frame)) if frame.channel == Channel::Status => {
                    let report: ExitReport = serde_json::from_slice(&frame.payload)
                        .map_err(|error| error.to_string())?;
                    let code = report.exit_code;
                    return Ok(Ended {
                        code,
                        text: report.error.unwrap_or(said),
                    });
                }
                Ok(Some(frame)) if said.len() < OUTPUT_BYTES => {
                    said.push_str(&String::from_utf8_lossy(&frame.payload));
                }
                Ok(Some(_)) => {}
                Ok(None) => return Err("the pod's init is gone".to_owned()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn judge_probe(&mut self, at: usize, probe: &Probe, starting: bool, finding: Finding) {
        let readiness = self.container(at).readiness_probe.is_some();
        let probing = &mut self.probes[at];
        let mut told = None;
        match finding {
            Finding::Good | Finding::Unknown => (probing.good, probing.bad) = (probing.good + 1, 0),
            Finding::Bad(why) => {
                (probing.good, probing.bad) = (0, probing.bad + 1);
                told = Some(why);
            }
        }
        // A program that comes up should not have to wait a whole period for being found so.
        let soon = Duration::from_millis(200);
        let period = probes::period(probe);
        let pause = if probing.good == 0 && probing.bad < 25 {
            soon
        } else {
            period
        };
        probing.next = Some(Instant::now() + pause.min(period));
        // As often as a kubelet would have tried.
        let due = probing.bad == 1 || pause >= period;
        if !probing.started && probing.good > 0 {
            probing.started = true;
            probing.good = 0;
            probing.next = readiness.then(Instant::now);
        }
        if let Some(why) = told.filter(|_| due) {
            let kind = if starting { "Startup" } else { "Readiness" };
            let message = format!("{kind} probe failed: {why}");
            self.note(Some(at), Tone::Warning, "Unhealthy", message);
        }
    }

    /// Ready: runs, has started up, serves what it declares, and its readiness probe succeeds.
    pub(super) fn settle_ready(&mut self) {
        let mut state = lock(&self.pod.state);
        for (at, container) in state.containers.iter_mut().enumerate() {
            if container.role != Role::Main {
                continue;
            }
            let probing = &self.probes[at];
            let probed = match &self.declared[at].readiness_probe {
                None => true,
                Some(probe) => {
                    let good = probe.success_threshold.unwrap_or(1).max(1) as u32;
                    let bad = probe.failure_threshold.unwrap_or(3).max(1) as u32;
                    probing.good >= good || (container.ready && probing.bad < bad)
                }
            };
            let runs = container.condition == Condition::Running;
            container.ready = runs && probing.started && probed && self.unserved[at].is_none();
        }
    }
}
