//! Process 1 of a pod.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use control::lab_protocol::WindowSize;
use rustix::process::{Pid, Signal};

use super::message::{self, FromInit, ProcessSpec, ToInit};
use super::process::{self, Processes};
use super::streams::{self, End, Input, Output};
use super::{root, stage};

/// A container's process as init knows it.
struct Container {
    pid: Pid,
    output: Arc<Output>,
    stdin: Option<File>,
    stdin_once: bool,
    terminal: Option<OwnedFd>,
    /// Whether its process has ended: who attaches just then still gets what it said.
    ended: bool,
}

/// Containers that have ended and are still known, at most.
const ENDED: usize = 16;

/// What init knows of containers' processes, by number.
type Containers = HashMap<u64, Container>;

fn has_ended(containers: &mut Containers, id: u64) {
    if let Some(container) = containers.get_mut(&id) {
        container.ended = true;
        container.stdin = None;
    }
    let ended = containers.iter().filter(|(_, container)| container.ended);
    let mut ended: Vec<u64> = ended.map(|(id, _)| *id).collect();
    ended.sort_unstable();
    for id in &ended[..ended.len().saturating_sub(ENDED)] {
        containers.remove(id);
    }
}

struct Init {
    /// To the agent. Threads share it: a datagram is sent whole or not at all.
    agent: OwnedFd,
    processes: Processes,
    containers: Mutex<Containers>,
}

/// Runs until the agent goes; the kernel then ends every process of the pod.
pub fn run() -> io::Result<()> {
    let agent = io::stdin().as_fd().try_clone_to_owned()?;
    let mut buffer = Vec::new();
    let Some((ToInit::Root(spec), _)) = message::receive(&agent, &mut buffer)? else {
        return Err(io::Error::other("the first message is no root"));
    };
    if let Err(error) = root::enter(&spec) {
        return message::send(&agent, &FromInit::Broken(error.to_string()), None);
    }
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    let init = Arc::new(Init {
        agent,
        processes: Processes::default(),
        containers: Mutex::new(HashMap::new()),
    });
    let reaper = init.clone();
    std::thread::spawn(move || reaper.processes.reap());
    init.tell(&FromInit::Ready);
    while let Some((message, fd)) = message::receive(&init.agent, &mut buffer)? {
        init.clone().obey(message, fd);
    }
    Ok(())
}

impl Init {
    fn tell(&self, message: &FromInit) {
        // Without an agent the pod ends anyway.
        let _agent_gone = message::send(&self.agent, message, None);
    }

    fn obey(self: Arc<Init>, message: ToInit, fd: Option<OwnedFd>) {
        match (message, fd) {
            (ToInit::Start { id, process }, Some(log)) => self.start(id, &process, log.into()),
            (ToInit::Exec { container, process }, Some(client)) => {
                std::thread::spawn(move || self.exec(container, *process, client.into()));
            }
            (
                ToInit::Attach {
                    container,
                    size,
                    stdin,
                },
                Some(client),
            ) => {
                std::thread::spawn(move || self.attach(container, size, stdin, client.into()));
            }
            (ToInit::Forward { port }, Some(client)) => {
                std::thread::spawn(move || {
                    // A client that goes in the middle is its own business.
                    let _client_gone = streams::carry_connection(client.into(), port);
                });
            }
            (ToInit::Files { volume, files }, _) => {
                if let Err(error) = root::replace_files(&volume, &files) {
                    eprintln!("volume {volume}: {error}");
                }
            }
            (ToInit::Signal { id, signal }, _) => self.signal(id, signal),
            (ToInit::Unserved { id, ports }, _) => {
                let ports = unserved(ports);
                self.tell(&FromInit::Unserved { id, ports });
            }
            _ => {}
        }
    }

    fn start(self: Arc<Init>, id: u64, spec: &ProcessSpec, log: File) {
        if spec.responder.is_none()
            && let Err(wrong) = stage::find_program(spec)
        {
            let (code, message) = (wrong.code, wrong.message);
            self.tell(&FromInit::NotStarted { id, code, message });
            return;
        }
        let (on_exit, told) = streams::exit_channel();
        let mut started = match self.processes.start(spec, on_exit) {
            Ok(started) => started,
            Err(error) => {
                let message = error.to_string();
                self.tell(&FromInit::NotStarted {
                    id,
                    code: 128,
                    message,
                });
                return;
            }
        };
        let output = Arc::new(Output::new(log));
        let outputs = std::mem::take(&mut started.outputs);
        let container = Container {
            pid: started.pid,
            output: output.clone(),
            stdin: started.stdin,
            stdin_once: spec.stdin_once,
            terminal: started.terminal,
            ended: false,
        };
        if let Ok(mut containers) = self.containers.lock() {
            containers.insert(id, container);
        }
        self.tell(&FromInit::Started { id });
        let init = self.clone();
        streams::carry_container(outputs, output, told, move |code| {
            if let Ok(mut containers) = init.containers.lock() {
                has_ended(&mut containers, id);
            }
            init.tell(&FromInit::Exited { id, code });
        });
    }

    /// A container's process, while it runs.
    fn pid_of(&self, id: u64) -> Option<Pid> {
        let containers = self.containers.lock().ok()?;
        let found = containers.get(&id).filter(|container| !container.ended);
        found.map(|container| container.pid)
    }

    fn exec(&self, container: u64, mut spec: ProcessSpec, mut client: UnixStream) {
        let Some(pid) = self.pid_of(container) else {
            streams::report_exit(&mut client, 128, Some("container not running".into()));
            return;
        };
        spec.join = Some(pid.as_raw_nonzero().get());
        if let Err(wrong) = stage::find_program(&spec) {
            streams::report_exit(&mut client, wrong.code, Some(wrong.message));
            return;
        }
        let (on_exit, told) = streams::exit_channel();
        let result = match self.processes.start(&spec, on_exit) {
            Ok(started) => client
                .try_clone()
                .and_then(|client| streams::carry_command(started, &told, client)),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            streams::report_exit(&mut client, 128, Some(error.to_string()));
        }
    }

    fn attach(
        self: Arc<Init>,
        id: u64,
        size: Option<WindowSize>,
        stdin: bool,
        mut client: UnixStream,
    ) {
        let found = self.containers.lock().ok().and_then(|containers| {
            let container = containers.get(&id)?;
            let stdin = container.stdin.as_ref().filter(|_| stdin);
            let stdin = stdin.and_then(|file| file.try_clone().ok());
            let terminal = container
                .terminal
                .as_ref()
                .and_then(|fd| fd.try_clone().ok());
            Some((
                container.output.clone(),
                stdin,
                terminal,
                container.stdin_once,
            ))
        });
        let Some((output, stdin, terminal, once)) = found else {
            streams::report_exit(&mut client, 128, Some("container not running".into()));
            return;
        };
        if let (Some(terminal), Some(size)) = (&terminal, size) {
            process::resize(terminal, size);
        }
        let Ok(reader) = client.try_clone() else {
            return;
        };
        if output.attach(client).is_err() {
            return;
        }
        let mut reader = reader;
        let init = self.clone();
        let end = match (&terminal, once) {
            // The other clients' input goes on.
            (_, false) => End::Unheard,
            (Some(_), true) => End::Marks,
            (None, true) => End::Closes(Box::new(move || {
                if let Ok(mut containers) = init.containers.lock() {
                    containers
                        .entry(id)
                        .and_modify(|container| container.stdin = None);
                }
            })),
        };
        let input = Input::new(stdin, end);
        streams::carry_input(&mut reader, input, |size| {
            if let Some(terminal) = &terminal {
                process::resize(terminal, size);
            }
        });
    }

    fn signal(&self, id: u64, number: i32) {
        if let (Some(pid), Some(signal)) = (self.pid_of(id), Signal::from_named_raw(number)) {
            process::signal(pid, signal);
        }
    }
}

/// Those of the ports that nobody in the pod listens on.
fn unserved(ports: Vec<(String, u16)>) -> Vec<(String, u16)> {
    let read = |name: &str| fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
    let (tcp, udp) = (
        listening(&(read("tcp") + &read("tcp6")), "0A"),
        listening(&(read("udp") + &read("udp6")), "07"),
    );
    let served = |(protocol, port): &(String, u16)| match protocol.as_str() {
        "UDP" => udp.contains(port),
        _ => tcp.contains(port),
    };
    ports.into_iter().filter(|port| !served(port)).collect()
}

/// Local ports in a state, from `/proc/net/tcp` and the like.
fn listening(text: &str, state: &str) -> Vec<u16> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (_, port) = fields.next()?.rsplit_once(':')?;
            (fields.nth(1)? == state).then(|| u16::from_str_radix(port, 16).ok())?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_ports_are_read_from_the_kernels_table() {
        let text = "  sl  local_address rem_address   st tx_queue\n\
                    0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:0 0 0 1\n\
                    1: 0100007F:0050 0100007F:9C40 01 00000000:00000000 00:0 0 0 1\n";
        assert_eq!(listening(text, "0A"), [8080]);
        assert_eq!(listening(text, "01"), [80]);
    }
}
