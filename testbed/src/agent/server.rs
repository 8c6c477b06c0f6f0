//! `lab.sock`: exec, attach, logs, port-forward, status, shutdown.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use control::lab_protocol::{
    AgentStatus, Channel, ContainerTarget, LogsRequest, REQUEST_BYTES, Reply, Request, write_frame,
};

use super::pods::{Condition, ContainerState, Pod, Role, log_file};
use super::{Agent, daemon, lock, names, pods};
use crate::pod::message::{ProcessSpec, ToInit};
use crate::pod::streams::report_exit;
use crate::topology;

/// Clients at once; one more is closed.
const CLIENTS: usize = 128;
/// How long a request may stay half sent.
const HALF_REQUEST: Duration = Duration::from_secs(5);
/// Between two looks at a log that is followed.
const FOLLOW: Duration = Duration::from_millis(100);

/// Why a request is refused: a `metav1.StatusReason` and a message.
type Refusal = (&'static str, String);

/// Serves until the lab is shut down.
pub fn serve(agent: &Arc<Agent>) -> io::Result<()> {
    let path = agent.lab.agent_socket();
    let _left_over = fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    if let Some((user, group)) = agent.lab.read_file()?.owner {
        std::os::unix::fs::chown(&path, Some(user), Some(group))?;
    }
    let clients = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if clients.fetch_add(1, Ordering::AcqRel) >= CLIENTS {
            clients.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        let (agent, clients) = (agent.clone(), clients.clone());
        std::thread::spawn(move || {
            // A client that goes in the middle is its own business.
            let _client_gone = answer(&agent, stream);
            clients.fetch_sub(1, Ordering::AcqRel);
        });
    }
    Ok(())
}

fn read_request(stream: &UnixStream) -> io::Result<Request> {
    stream.set_read_timeout(Some(HALF_REQUEST))?;
    // Frames come only after our reply, so that the buffer holds nothing but the line.
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream.take(REQUEST_BYTES as u64));
    reader.read_until(b'\n', &mut line)?;
    stream.set_read_timeout(None)?;
    Ok(serde_json::from_slice(&line)?)
}

fn reply(stream: &mut UnixStream, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn answer(agent: &Arc<Agent>, mut stream: UnixStream) -> io::Result<()> {
    let request = match read_request(&stream) {
        Ok(request) => request,
        Err(error) => {
            let (reason, message) = ("BadRequest".into(), error.to_string());
            return reply(&mut stream, &Reply::Error { reason, message });
        }
    };
    let refused = match request {
        Request::Status => return reply(&mut stream, &Reply::Status(status(agent))),
        Request::Shutdown => shut_down(agent, stream),
        Request::Logs(request) => logs(agent, &request, &mut stream)?,
        other => start_stream(agent, other, &mut stream)?,
    };
    match refused {
        Ok(()) => Ok(()),
        Err((reason, message)) => reply(
            &mut stream,
            &Reply::Error {
                reason: reason.into(),
                message,
            },
        ),
    }
}

fn status(agent: &Agent) -> AgentStatus {
    AgentStatus {
        lab: agent.lab.name.clone(),
        pid: std::process::id(),
        daemon_pid: agent.daemon.pid(),
        daemon_restarts: agent.daemon.restarts.load(Ordering::Relaxed),
        node_namespace: topology::node_name(&agent.lab.name),
        external_namespace: topology::external_name(&agent.lab.name),
        pods: pods::summaries(agent),
        settled: names::is_settled(agent),
        trouble: lock(&agent.trouble).clone(),
    }
}

/// Ends the daemon, then this process and with it every pod. Names, interfaces and files are
/// removed by whoever asked ([`crate::lab::clean`]), as after a crash.
fn shut_down(agent: &Agent, mut stream: UnixStream) -> ! {
    agent.stopping.store(true, Ordering::Release);
    let ready = Reply::Ready {
        container: String::new(),
        among: Vec::new(),
    };
    let _client_gone = reply(&mut stream, &ready);
    let pods: Vec<_> = lock(&agent.pods).values().cloned().collect();
    for pod in pods {
        if let Some(sandbox) = pod.sandbox.get() {
            sandbox.end();
        }
    }
    daemon::stop(agent);
    std::process::exit(0)
}

fn find_pod(agent: &Agent, namespace: &str, name: &str) -> Result<Arc<Pod>, Refusal> {
    let pods = lock(&agent.pods);
    let found = pods
        .values()
        .find(|pod| pod.namespace == namespace && pod.name == name);
    found
        .cloned()
        .ok_or_else(|| ("NotFound", format!("pods \"{name}\" not found")))
}

/// The container meant, and the names it was chosen among.
fn find_container(
    agent: &Agent,
    pod: &Pod,
    target: &ContainerTarget,
) -> Result<(ContainerState, Vec<String>), Refusal> {
    let state = lock(&pod.state);
    let annotation = agent
        .mirror
        .get("Pod", &pod.namespace, &pod.name)
        .and_then(|object| {
            let annotations = &object["metadata"]["annotations"];
            annotations["kubectl.kubernetes.io/default-container"]
                .as_str()
                .map(str::to_owned)
        });
    let mains = state.containers.iter().filter(|c| c.role == Role::Main);
    let mains: Vec<&ContainerState> = mains.collect();
    let among = mains.iter().map(|c| c.name.clone()).collect();
    let wanted = target.container.clone().or(annotation);
    let found = match &wanted {
        Some(name) => state.containers.iter().find(|c| c.name == *name),
        None => mains.first().copied(),
    };
    match (found, wanted) {
        (Some(container), _) => Ok((container.clone(), among)),
        (None, Some(name)) => {
            let pod = &pod.name;
            Err((
                "BadRequest",
                format!("container {name} is not valid for pod {pod}"),
            ))
        }
        (None, None) => Err(("BadRequest", not_running(pod, ""))),
    }
}

fn not_running(pod: &Pod, container: &str) -> String {
    format!(
        "container not found (\"{container}\") in pod {}/{}",
        pod.namespace, pod.name
    )
}

/// Hands the connection to the pod's init, which speaks frames on it.
fn start_stream(
    agent: &Agent,
    request: Request,
    stream: &mut UnixStream,
) -> io::Result<Result<(), Refusal>> {
    let chosen = (|| -> Result<_, Refusal> {
        let (pod, target) = match &request {
            Request::Exec(exec) => (&exec.target, Some(&exec.target)),
            Request::Attach(attach) => (&attach.target, Some(&attach.target)),
            Request::PortForward(forward) => {
                let pod = find_pod(agent, &forward.namespace, &forward.pod)?;
                return Ok((pod, None));
            }
            _ => return Err(("BadRequest", "not a stream".into())),
        };
        let pod = find_pod(agent, &pod.namespace, &pod.pod)?;
        let container = target
            .map(|target| find_container(agent, &pod, target))
            .transpose()?;
        Ok((pod, container))
    })();
    let (pod, container) = match chosen {
        Ok(chosen) => chosen,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let (message, name, among) = match (request, container) {
        (Request::PortForward(forward), _) => (
            ToInit::Forward { port: forward.port },
            String::new(),
            Vec::new(),
        ),
        (Request::Exec(exec), Some((container, among))) => {
            if container.condition != Condition::Running {
                return Ok(Err(("InternalError", not_running(&pod, &container.name))));
            }
            let mut environment = container.process.environment.clone();
            if exec.tty {
                environment.retain(|(key, _)| key != "TERM");
                environment.push(("TERM".into(), exec.term.unwrap_or_else(|| "xterm".into())));
            }
            let process = Box::new(ProcessSpec {
                command: exec.command,
                responder: None,
                environment,
                tty: exec.tty,
                stdin: exec.stdin,
                size: exec.size,
                mounts: Vec::new(),
                ..container.process
            });
            (
                ToInit::Exec {
                    container: container.process_id,
                    process,
                },
                container.name,
                among,
            )
        }
        (Request::Attach(attach), Some((container, among))) => {
            if let Condition::Ended { code } = container.condition {
                return late_attach(agent, &pod, &container, code, stream).map(Ok);
            }
            let (id, size, stdin) = (container.process_id, attach.size, attach.stdin);
            (
                ToInit::Attach {
                    container: id,
                    size,
                    stdin,
                },
                container.name,
                among,
            )
        }
        _ => return Ok(Err(("BadRequest", "not a stream".into()))),
    };
    let Some(sandbox) = pod.sandbox.get() else {
        return Ok(Err(("InternalError", not_running(&pod, &name))));
    };
    reply(
        stream,
        &Reply::Ready {
            container: name,
            among,
        },
    )?;
    let fd: OwnedFd = stream.try_clone()?.into();
    sandbox.tell(&message, Some(&fd))?;
    Ok(Ok(()))
}

/// Who attaches to a container that has ended gets what it wrote and how it ended.
fn late_attach(
    agent: &Agent,
    pod: &Pod,
    container: &ContainerState,
    code: i32,
    stream: &mut UnixStream,
) -> io::Result<()> {
    reply(
        stream,
        &Reply::Ready {
            container: container.name.clone(),
            among: Vec::new(),
        },
    )?;
    let path = log_file(agent, &pod.uid, &container.name, container.restarts);
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        if let Some(line) = LogLine::parse(line) {
            write_frame(stream, line.channel, line.text(false).as_bytes())?;
        }
    }
    report_exit(stream, code, None);
    Ok(())
}

/// A line of a container's log, as [`crate::pod::streams::LogWriter`] writes it.
struct LogLine<'a> {
    time: &'a str,
    channel: Channel,
    whole: bool,
    content: &'a str,
}

impl LogLine<'_> {
    fn parse(line: &str) -> Option<LogLine<'_>> {
        let mut parts = line.splitn(4, ' ');
        let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
        let channel = if stream == "stderr" {
            Channel::Stderr
        } else {
            Channel::Stdout
        };
        let content = parts.next().unwrap_or_default();
        Some(LogLine {
            time,
            channel,
            whole: tag == "F",
            content,
        })
    }

    fn text(&self, timestamps: bool) -> String {
        let end = if self.whole { "\n" } else { "" };
        match timestamps {
            true => format!("{} {}{end}", self.time, self.content),
            false => format!("{}{end}", self.content),
        }
    }
}

fn logs(
    agent: &Agent,
    request: &LogsRequest,
    stream: &mut UnixStream,
) -> io::Result<Result<(), Refusal>> {
    let target = &request.target;
    let found = find_pod(agent, &target.namespace, &target.pod)
        .and_then(|pod| find_container(agent, &pod, target).map(|found| (pod, found)));
    let (pod, (container, among)) = match found {
        Ok(found) => found,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let name = &container.name;
    let run = match (request.previous, container.restarts) {
        (false, restarts) => restarts,
        (true, 0) => {
            let message = format!(
                "previous terminated container \"{name}\" in pod \"{}\" not found",
                pod.name
            );
            return Ok(Err(("BadRequest", message)));
        }
        (true, restarts) => restarts - 1,
    };
    let run = match log_file(agent, &pod.uid, name, run).exists() {
        true => run,
        // Waiting to be started again: its last run is the newest there is.
        false => run.saturating_sub(1),
    };
    let Ok(mut file) = File::open(log_file(agent, &pod.uid, name, run)) else {
        let message = format!(
            "container \"{name}\" in pod \"{}\" is waiting to start: ContainerCreating",
            pod.name
        );
        return Ok(Err(("BadRequest", message)));
    };
    reply(
        stream,
        &Reply::Ready {
            container: name.clone(),
            among,
        },
    )?;
    let since = request.since.as_deref();
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let end = text.rfind('\n').map_or(0, |at| at + 1);
    let mut lines: Vec<LogLine<'_>> = text[..end].lines().filter_map(LogLine::parse).collect();
    lines.retain(|line| since.is_none_or(|since| line.time >= since));
    let skip = request
        .tail
        .map_or(0, |tail| lines.len().saturating_sub(tail as usize));
    for line in &lines[skip..] {
        let shown = line.text(request.timestamps);
        write_frame(stream, Channel::Stdout, shown.as_bytes())?;
    }
    if request.follow && !request.previous {
        let mut rest = text[end..].to_owned();
        follow(&pod, &container, &mut file, &mut rest, request, stream)?;
    }
    Ok(Ok(()))
}

/// Goes on until the container's run has ended and everything is sent.
fn follow(
    pod: &Pod,
    container: &ContainerState,
    file: &mut File,
    rest: &mut String,
    request: &LogsRequest,
    stream: &mut UnixStream,
) -> io::Result<()> {
    loop {
        let over = {
            let state = lock(&pod.state);
            let now = state.containers.iter().find(|c| c.name == container.name);
            now.is_none_or(|now| {
                now.restarts != container.restarts || now.condition != Condition::Running
            })
        };
        // Shorter than where we are: its older half was forgotten.
        if file.metadata()?.len() < file.stream_position()? {
            file.seek(SeekFrom::Start(0))?;
            rest.clear();
        }
        let mut more = Vec::new();
        file.read_to_end(&mut more)?;
        rest.push_str(&String::from_utf8_lossy(&more));
        let end = rest.rfind('\n').map_or(0, |at| at + 1);
        for line in rest[..end].lines().filter_map(LogLine::parse) {
            write_frame(
                stream,
                Channel::Stdout,
                line.text(request.timestamps).as_bytes(),
            )?;
        }
        rest.drain(..end);
        if over && more.is_empty() {
            return Ok(());
        }
        if client_gone(stream)? {
            return Ok(());
        }
        std::thread::sleep(FOLLOW);
    }
}

fn client_gone(stream: &UnixStream) -> io::Result<bool> {
    let mut byte = [0_u8];
    let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
    match rustix::net::recv(stream, &mut byte, flags) {
        Ok((0, _)) => Ok(true),
        Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
