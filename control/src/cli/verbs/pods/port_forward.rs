//! `port-forward`: local ports that lead to a pod's (kubectl `pkg/cmd/portforward`, client-go
//! `tools/portforward`).
//!
//! Each connection is made anew inside the pod's network namespace, to its loopback address, so that
//! no policy has a say in it, as with a kubelet.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::flags::{Flag, value};
use crate::cli::session::{Session, VerbError};
use crate::cli::verbs::watched::Watched;
use crate::lab_protocol::{self, LabError, PortForwardRequest};
use crate::protocol::WatchEventType;

use super::POD_RUNNING_TIMEOUT;
use super::choose::{self, Chosen, Purpose};

/// Flags of `port-forward`.
pub const FLAGS: &[Flag] = &[
    value(
        "address",
        None,
        "Addresses to listen on, separated by commas; default localhost",
    ),
    POD_RUNNING_TIMEOUT,
];

/// How long to wait for a pod of a Deployment and the like.
const POD_TIMEOUT: Duration = Duration::from_secs(60);
/// A daemon that is away for so long takes the pod with it.
const DAEMON_AWAY: Duration = Duration::from_secs(10);

/// A local port and the pod's; local 0 is any that is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Forward {
    local: u16,
    remote: u16,
}

fn local(text: impl Into<String>) -> VerbError {
    VerbError::Local(text.into())
}

/// Runs `port-forward` until Ctrl-C, or until the pod goes.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let arguments = session.parsed.arguments.clone();
    let [word, ports @ ..] = &arguments[..] else {
        return Err(usage());
    };
    if ports.is_empty() {
        return Err(usage());
    }
    let limit = super::pod_timeout(&session.parsed, POD_TIMEOUT)?;
    let namespace = super::namespace(session);
    let mut client = session.connect()?;
    let named = choose::object(&mut client, &namespace, std::slice::from_ref(word))?;
    let chosen = choose::pod(&mut client, named, Purpose::Session, limit)?;
    let forwards: Vec<Forward> = ports
        .iter()
        .map(|text| forward(text, &chosen))
        .collect::<Result<_, _>>()?;
    let phase = &chosen.pod["status"]["phase"];
    if phase != "Running" {
        return Err(local(format!(
            "unable to forward port because pod is not running. Current status={}",
            phase.as_str().unwrap_or_default()
        )));
    }
    let socket = session.lab_socket()?;
    end_quietly_on_interrupt()?;
    let listening = listen(session.parsed.value("address"), &forwards)?;
    let (failed, failures) = channel();
    for (listener, forward) in listening {
        let (socket, failed) = (socket.clone(), failed.clone());
        let request = PortForwardRequest {
            namespace: text(&chosen.pod, "namespace"),
            pod: text(&chosen.pod, "name"),
            port: forward.remote,
        };
        std::thread::spawn(move || accept(&listener, &socket, &request, &failed));
    }
    let watcher = failed;
    let mut pod = PodWatch::begin(session, chosen.pod)?;
    std::thread::scope(|scope| {
        // Ends with the process: a wait for the pod's end has no other.
        scope.spawn(move || {
            let _first_is_enough = failures.recv();
            eprintln!("error: lost connection to pod");
            std::process::exit(1);
        });
        pod.until_gone(session);
        let _receiver_lives = watcher.send(());
    });
    Ok(())
}

fn usage() -> VerbError {
    VerbError::Usage("TYPE/NAME and list of ports are required for port-forward".into())
}

fn text(object: &Value, field: &str) -> String {
    let found = object["metadata"][field].as_str();
    found.unwrap_or_default().to_owned()
}

/// Ctrl-C is how this ends, and no failure.
fn end_quietly_on_interrupt() -> Result<(), VerbError> {
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT])?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            std::process::exit(0);
        }
    });
    Ok(())
}

/// `LOCAL:REMOTE`, `:REMOTE` or `PORT`; remote ports of a Service are its own, of a pod its
/// containers', by number or name.
fn forward(text: &str, chosen: &Chosen) -> Result<Forward, VerbError> {
    let parts: Vec<&str> = text.split(':').collect();
    let (local_text, remote_text) = match parts[..] {
        [one] => (one, one),
        [near, far] => (near, far),
        _ => return Err(local(format!("invalid port format '{text}'"))),
    };
    if remote_text.is_empty() {
        return Err(local("remote port cannot be empty"));
    }
    let (asked, remote) = match chosen.named["kind"].as_str() {
        Some("Service") => service_port(remote_text, &chosen.named, &chosen.pod)?,
        _ => pod_port(remote_text, &chosen.pod)?,
    };
    let nearby = match local_text {
        "" => 0,
        same if same == remote_text => asked,
        other => other
            .parse()
            .map_err(|error| local(format!("error parsing local port '{other}': {error}")))?,
    };
    Ok(Forward {
        local: nearby,
        remote,
    })
}

/// The number that is asked for, and the container's.
fn pod_port(text: &str, pod: &Value) -> Result<(u16, u16), VerbError> {
    let ports = || {
        let containers = choose::containers(pod, "containers");
        containers.flat_map(|container| container["ports"].as_array().into_iter().flatten())
    };
    let number = match text.parse::<u16>() {
        Ok(0) => return Err(local("remote port must be > 0")),
        Ok(number) => number,
        Err(_) => ports()
            .find(|port| port["name"] == text)
            .and_then(|port| number(&port["containerPort"]))
            .ok_or_else(|| {
                local(format!(
                    "Pod '{}' does not have a named port '{text}'",
                    pod["metadata"]["name"].as_str().unwrap_or_default()
                ))
            })?,
    };
    let protocols = ports().filter(|port| self::number(&port["containerPort"]) == Some(number));
    refuse_udp(protocols, text)?;
    Ok((number, number))
}

/// The number of the Service's port, and of the pod's port behind it.
fn service_port(text: &str, service: &Value, pod: &Value) -> Result<(u16, u16), VerbError> {
    let name = service["metadata"]["name"].as_str().unwrap_or_default();
    let ports = || service["spec"]["ports"].as_array().into_iter().flatten();
    let asked = match text.parse::<u16>() {
        Ok(number) => number,
        Err(_) => ports()
            .find(|port| port["name"] == text)
            .and_then(|port| number(&port["port"]))
            .ok_or_else(|| {
                local(format!(
                    "Service '{name}' does not have a named port '{text}'"
                ))
            })?,
    };
    let found: Vec<&Value> = ports()
        .filter(|port| number(&port["port"]) == Some(asked))
        .collect();
    refuse_udp(found.iter().copied(), text)?;
    let found = found.first().ok_or_else(|| {
        local(format!(
            "Service {name} does not have a service port {asked}"
        ))
    })?;
    // A headless Service translates nothing.
    if service["spec"]["clusterIP"] == "None" {
        return Ok((asked, asked));
    }
    match &found["targetPort"] {
        Value::Null => Ok((asked, asked)),
        Value::String(name) if name.parse::<u16>().is_err() => {
            pod_port(name, pod).map(|(_, remote)| (asked, remote))
        }
        Value::String(digits) => Ok((asked, digits.parse().unwrap_or(asked))),
        target => Ok((asked, number(target).filter(|n| *n != 0).unwrap_or(asked))),
    }
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok())
}

fn refuse_udp<'a>(ports: impl Iterator<Item = &'a Value>, text: &str) -> Result<(), VerbError> {
    let protocols: Vec<&str> = ports
        .map(|port| port["protocol"].as_str().unwrap_or("TCP"))
        .collect();
    if protocols.contains(&"UDP") && !protocols.contains(&"TCP") {
        return Err(local(format!("UDP protocol is not supported for {text}")));
    }
    Ok(())
}

/// The addresses of `--address`; whether both of localhost's need to be had.
fn addresses(given: Option<&str>) -> Result<Vec<Vec<IpAddr>>, VerbError> {
    let localhost = || vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let words = given.unwrap_or("localhost").split(',').map(str::trim);
    let one = |word: &str| match word {
        "localhost" => Ok(localhost()),
        _ => word
            .parse::<IpAddr>()
            .map(|address| vec![address])
            .map_err(|_| local(format!("{word} is not a valid IP"))),
    };
    words.map(one).collect()
}

/// Listens on every port; says where.
fn listen(
    given: Option<&str>,
    forwards: &[Forward],
) -> Result<Vec<(TcpListener, Forward)>, VerbError> {
    let addresses = addresses(given)?;
    let mut listening = Vec::new();
    for forward in forwards {
        let mut local_port = forward.local;
        for group in &addresses {
            let mut errors = Vec::new();
            let before = listening.len();
            for address in group {
                match TcpListener::bind(SocketAddr::new(*address, local_port)) {
                    Ok(listener) => {
                        local_port = listener.local_addr()?.port();
                        let at = SocketAddr::new(*address, local_port);
                        println!("Forwarding from {at} -> {}", forward.remote);
                        listening.push((listener, *forward));
                    }
                    Err(error) => errors.push(ListenError {
                        address: *address,
                        port: local_port,
                        error,
                    }),
                }
            }
            if listening.len() == before {
                let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                eprintln!(
                    "Unable to listen on port {local_port}: Listeners failed to create with the \
                     following errors: [{}]",
                    errors.join(" ")
                );
            }
        }
    }
    if listening.is_empty() {
        let wanted = forwards.iter();
        let wanted: Vec<String> = wanted
            .map(|forward| format!("{{{} {}}}", forward.local, forward.remote))
            .collect();
        return Err(local(format!(
            "unable to listen on any of the requested ports: [{}]",
            wanted.join(" ")
        )));
    }
    Ok(listening)
}

/// Why a port cannot be had, in Go's words.
struct ListenError {
    address: IpAddr,
    port: u16,
    error: std::io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = if self.address.is_ipv4() {
            "tcp4"
        } else {
            "tcp6"
        };
        let at = SocketAddr::new(self.address, self.port);
        let text = self.error.to_string().to_lowercase();
        let why = text.split(" (os error").next().unwrap_or_default();
        write!(
            f,
            "unable to create listener: Error listen {network} {at}: bind: {why}"
        )
    }
}

fn accept(
    listener: &TcpListener,
    socket: &Path,
    request: &PortForwardRequest,
    failed: &Sender<()>,
) {
    let local = listener.local_addr().map_or(0, |address| address.port());
    loop {
        let Ok((connection, _)) = listener.accept() else {
            // Out of descriptors, or a connection that was reset before we took it.
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        println!("Handling connection for {local}");
        let (socket, request, failed) = (
            socket.to_owned() as PathBuf,
            request.clone(),
            failed.clone(),
        );
        std::thread::spawn(move || carry(&socket, &request, connection, local, &failed));
    }
}

/// Carries one connection. One that the pod refuses ends the whole, as with kubectl.
fn carry(
    socket: &Path,
    request: &PortForwardRequest,
    connection: TcpStream,
    local: u16,
    failed: &Sender<()>,
) {
    let refused = match lab_protocol::port_forward(socket, request, connection) {
        // Either end has broken the connection off, which is theirs to do.
        Ok(None) | Err(LabError::Io(_)) => return,
        Ok(Some(why)) => why,
        Err(error) => error.to_string(),
    };
    eprintln!(
        "an error occurred forwarding {local} -> {port}: error forwarding port {port} to pod \
         {pod}: {refused}",
        port = request.port,
        pod = request.pod,
    );
    let _over_already = failed.send(());
}

/// Waits for a pod's end.
struct PodWatch {
    pod: Value,
    watched: Watched,
}

impl PodWatch {
    fn begin(session: &mut Session, pod: Value) -> Result<PodWatch, VerbError> {
        let watched = PodWatch::watch(session, &pod)?;
        Ok(PodWatch { pod, watched })
    }

    fn watch(session: &mut Session, pod: &Value) -> Result<Watched, VerbError> {
        Watched::begin(session, vec!["pods".into()], Some(text(pod, "namespace")))
    }

    /// Returns when the pod has ended or is gone. A daemon that is started again meanwhile is asked
    /// again.
    fn until_gone(&mut self, session: &mut Session) {
        let mut away: Option<Instant> = None;
        loop {
            let uid = text(&self.pod, "uid");
            let same = |object: &Value| text(object, "uid") == uid;
            let lives = |object: &Value| same(object) && choose::ended(object).is_none();
            if !self.watched.objects().any(lives) {
                return;
            }
            match self.watched.next(None) {
                Ok(Some(event)) => {
                    away = None;
                    let gone = event.event == WatchEventType::Deleted;
                    if gone && same(&event.object) {
                        return;
                    }
                }
                Ok(None) => {}
                Err(_) => {
                    let since = *away.get_or_insert_with(Instant::now);
                    if since.elapsed() > DAEMON_AWAY {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(100));
                    if let Ok(watched) = PodWatch::watch(session, &self.pod) {
                        self.watched = watched;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chosen(named: Value) -> Chosen {
        let pod = json!({"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{
            "name": "c", "ports": [
                {"name": "http", "containerPort": 8080},
                {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            ],
        }]}});
        let named = if named.is_null() { pod.clone() } else { named };
        Chosen {
            named,
            pod,
            among: 1,
        }
    }

    fn read(text: &str, named: Value) -> Result<(u16, u16), String> {
        let forward = forward(text, &chosen(named)).map_err(|error| error.to_string())?;
        Ok((forward.local, forward.remote))
    }

    #[test]
    fn ports_of_a_pod_by_number_and_name() {
        for (text, expected) in [
            ("9001", (9001, 9001)),
            ("8080:80", (8080, 80)),
            (":80", (0, 80)),
            ("http", (8080, 8080)),
            ("80:http", (80, 8080)),
        ] {
            assert_eq!(read(text, Value::Null), Ok(expected), "{text}");
        }
        let refused = |text| read(text, Value::Null).unwrap_err();
        assert_eq!(refused("80:"), "remote port cannot be empty");
        assert_eq!(refused("53"), "UDP protocol is not supported for 53");
        assert_eq!(refused("x"), "Pod 'p' does not have a named port 'x'");
        assert!(refused("a:b:c").starts_with("invalid port format"));
    }

    #[test]
    fn ports_of_a_service_lead_to_its_target_ports() {
        let service = || {
            json!({"kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [
                {"name": "web", "port": 80, "targetPort": "http"},
                {"name": "other", "port": 81, "targetPort": 9000},
                {"port": 82},
            ]}})
        };
        for (text, expected) in [
            ("80", (80, 8080)),
            ("9001:web", (9001, 8080)),
            ("other", (81, 9000)),
            ("82", (82, 82)),
        ] {
            assert_eq!(read(text, service()), Ok(expected), "{text}");
        }
        assert_eq!(
            read("83", service()).unwrap_err(),
            "Service s does not have a service port 83"
        );
        let mut headless = service();
        headless["spec"]["clusterIP"] = "None".into();
        assert_eq!(read("80", headless), Ok((80, 80)));
    }

    #[test]
    fn a_port_that_is_taken_is_refused_in_kubectls_words() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let forward = Forward {
            local: port,
            remote: 80,
        };
        let error = listen(Some("127.0.0.1"), &[forward]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("unable to listen on any of the requested ports: [{{{port} 80}}]")
        );
        assert!(addresses(Some("here")).is_err());
    }
}
