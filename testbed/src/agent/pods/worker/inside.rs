//! Commands inside a container: probes and hooks. Whoever runs one waits for it, so that it has what
//! it needs of the pod in hand.

use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::lab_protocol::{Channel, ExitReport, read_frame};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Probe};
use serde_json::Value;

use super::super::Pod;
use crate::agent::events::{Tone, container_part};
use crate::agent::probes::{self, Finding};
use crate::agent::{Agent, lock};
use crate::images;
use crate::pod::message::{ProcessSpec, ToInit};

/// Bytes of a command's output that are kept to be told.
const OUTPUT_BYTES: usize = 4 << 10;
/// How long a command before a container's end may take, whatever grace there is.
const LONGEST_HOOK: Duration = Duration::from_secs(60);

/// A container's process, for commands beside it.
pub(super) struct Inside {
    pub(super) pod: Arc<Pod>,
    at: usize,
    /// Its number.
    pub(super) process_id: u64,
}

/// How a command inside a container ended.
enum Ended {
    /// With an exit status, and what it said.
    Exited { code: i32, said: String },
    /// It could not be run: 126 and above, and why.
    NotRun { code: i32, why: String },
    /// It had not ended in time, or nobody tells.
    Lost(String),
}

impl Inside {
    pub(super) fn of(pod: &Arc<Pod>, at: usize) -> Inside {
        Inside {
            pod: pod.clone(),
            at,
            process_id: lock(&pod.state).containers[at].process_id,
        }
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        lock(&self.pod.state).addresses.first().copied()
    }

    /// As a kubelet does: by the command's exit status. A stand-in does not have its original's
    /// programs, which is no failure of what it serves.
    pub(super) fn probe(&self, command: &[String], limit: Duration) -> Finding {
        match self.run(command, limit) {
            Ended::Exited { code: 0, .. } => Finding::Good,
            Ended::Exited { said, .. } => Finding::Bad(said.trim_end().to_owned()),
            Ended::NotRun {
                code: 126 | 127,
                why,
            } if self.has_stand_in() => {
                let told = format!("{why}: a stand-in does not have it, so this counts as success");
                Finding::Unknown(Some(told))
            }
            Ended::NotRun { why, .. } => Finding::Errored(why),
            Ended::Lost(why) => Finding::Bad(why),
        }
    }

    fn has_stand_in(&self) -> bool {
        let state = lock(&self.pod.state);
        let container = &state.containers[self.at];
        container.stand_in || images::find(&container.image).is_some()
    }

    /// Runs a command in the container, as `exec` does, for so long at most.
    fn run(&self, command: &[String], limit: Duration) -> Ended {
        match self.try_to_run(command, limit) {
            Ok(ended) => ended,
            Err(error) => Ended::Lost(error.to_string()),
        }
    }

    fn try_to_run(&self, command: &[String], limit: Duration) -> std::io::Result<Ended> {
        let (mut near, far) = UnixStream::pair()?;
        let process = {
            let state = lock(&self.pod.state);
            Box::new(ProcessSpec {
                command: command.to_vec(),
                responder: None,
                tty: false,
                stdin: false,
                size: None,
                mounts: Vec::new(),
                ..state.containers[self.at].process.clone()
            })
        };
        let container = self.process_id;
        if let Some(sandbox) = self.pod.sandbox.get() {
            sandbox.tell(&ToInit::Exec { container, process }, Some(&far.into()))?;
        }
        let deadline = Instant::now() + limit;
        let mut said = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let why = format!("command timed out: {command:?} timed out after {limit:?}");
                return Ok(Ended::Lost(why));
            }
            near.set_read_timeout(Some(left))?;
            match read_frame(&mut near) {
                Ok(Some(frame)) if frame.channel == Channel::Status => {
                    let report: ExitReport = serde_json::from_slice(&frame.payload)?;
                    let code = report.exit_code;
                    return Ok(match report.error {
                        Some(why) => Ended::NotRun { code, why },
                        None => Ended::Exited { code, said },
                    });
                }
                Ok(Some(frame)) if said.len() < OUTPUT_BYTES => {
                    said.push_str(&String::from_utf8_lossy(&frame.payload));
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(Ended::Lost("the pod's init is gone".to_owned())),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The container's `preStop`: it has the grace that there is.
    pub(super) fn before_stop(
        &self,
        agent: &Agent,
        object: &Value,
        container: &Container,
        hook: &LifecycleHandler,
        deadline: Instant,
    ) {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = left.min(LONGEST_HOOK);
        if let Err(why) = self.run_hook(agent, container, hook, limit) {
            let message = format!("PreStopHook failed: {why}");
            let about = (object, container_part("containers", &container.name));
            let reason = "FailedPreStopHook";
            agent
                .events
                .note("kubelet", about, Tone::Warning, reason, message);
        }
    }

    fn run_hook(
        &self,
        agent: &Agent,
        container: &Container,
        hook: &LifecycleHandler,
        limit: Duration,
    ) -> Result<(), String> {
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
            return match self.run(&command, limit) {
                Ended::Exited { code: 0, .. } => Ok(()),
                Ended::Exited { code, said } => Err(format!("exit status {code}: {said}")),
                Ended::NotRun { why, .. } | Ended::Lost(why) => Err(why),
            };
        }
        let (Some(address), true) = (self.address(), hook.http_get.is_some()) else {
            return Ok(());
        };
        let asked = Probe {
            http_get: hook.http_get.clone(),
            ..Probe::default()
        };
        match probes::run(&asked, container, address, &agent.topology.node) {
            Finding::Bad(why) | Finding::Errored(why) => Err(why),
            Finding::Good | Finding::Unknown(_) => Ok(()),
        }
    }
}
