//! Stands in for Kubernetes' `agnhost`: the subcommands that its network tests use.
//!
//! SCTP is spoken by `connect` where the kernel has it; declared SCTP ports are served by the
//! built-in responder. Bounds: HTTP's, [`DIALS`] tries of a dial.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};
use serde_json::json;

use super::plain::{hostname, pause};
use super::run;
use crate::images::http::client;
use crate::images::http::server::{Answer, Request, Response, accept, listen};
use crate::images::sockets;

/// Tries of one dial.
const DIALS: usize = 100;
/// Connections of a plain TCP port at once.
const CONNECTIONS: usize = 256;

/// How long `liveness` is well.
const WELL: Duration = Duration::from_secs(10);

/// Runs it.
pub fn main(arguments: &[String]) -> u8 {
    let (name, rest) = match arguments.split_first() {
        Some((name, rest)) => (name.as_str(), rest),
        None => ("pause", arguments),
    };
    let outcome = match name {
        "pause" => return pause(rest),
        "connect" => return connect(rest),
        "netexec" => netexec(rest),
        "serve-hostname" => serve_hostname(rest),
        "porter" => porter(),
        "liveness" => {
            run("agnhost", 8080, &liveness(Instant::now()));
            Ok(())
        }
        _ => Err(format!(
            "unknown command \"{name}\": this stand-in has connect, liveness, netexec, pause, \
             porter and serve-hostname"
        )),
    };
    if let Err(wrong) = outcome {
        eprintln!("agnhost: {wrong}");
    }
    1
}

/// The value of `--NAME VALUE` or `--NAME=VALUE`; a bare one is `true`.
fn flag(arguments: &[String], name: &str) -> Option<String> {
    let mut words = arguments.iter().peekable();
    while let Some(word) = words.next() {
        let word = word.trim_start_matches('-');
        match word.strip_prefix(name) {
            Some("") => {
                let value = words.peek().filter(|next| !next.starts_with('-'));
                return Some(value.map_or_else(|| "true".to_owned(), |value| (*value).clone()));
            }
            Some(rest) if rest.starts_with('=') => return Some(rest[1..].to_owned()),
            _ => {}
        }
    }
    None
}

fn port_flag(arguments: &[String], name: &str, usual: u16) -> Result<Option<u16>, String> {
    match flag(arguments, name) {
        None => Ok(Some(usual)),
        Some(text) if text == "-1" => Ok(None),
        Some(text) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(format!("--{name}={text} is no port")),
        },
    }
}

/// A duration as Go writes it: `3s`, `1500ms`, `1m30s`.
fn duration(text: &str) -> Option<Duration> {
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at(end);
        let end = unit
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(unit.len());
        let scale = match &unit[..end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number.parse::<f64>().ok()? * scale).ok()?;
        rest = &unit[end..];
    }
    Some(total)
}

fn connect(arguments: &[String]) -> u8 {
    let timeout = flag(arguments, "timeout").map_or(Some(Duration::from_secs(1)), |t| duration(&t));
    let protocol = flag(arguments, "protocol").unwrap_or_else(|| "tcp".into());
    let destination = arguments
        .iter()
        .find(|word| !word.starts_with('-') && word.contains(':'));
    let (Some(destination), Some(timeout)) = (destination, timeout) else {
        eprintln!("OTHER: connect takes HOST:PORT, and --timeout a duration such as 3s");
        return 1;
    };
    let address = match destination.to_socket_addrs().map(|mut found| found.next()) {
        Ok(Some(address)) => address,
        Ok(None) => return say("DNS: no address"),
        Err(error) => return say(&format!("DNS: {error}")),
    };
    let outcome = match protocol.as_str() {
        "tcp" => sockets::connect(address, None, SocketType::STREAM, Some(timeout)).map(drop),
        "udp" => ask_datagram(address, b"echo x", timeout).map(drop),
        "sctp" => connect_sctp(address, timeout),
        other => return say(&format!("OTHER: {other} is no protocol here")),
    };
    match outcome {
        Ok(()) => 0,
        Err(error) => say(&match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "TIMEOUT".into(),
            io::ErrorKind::ConnectionRefused => "REFUSED".into(),
            _ => format!("OTHER: {error}"),
        }),
    }
}

fn say(why: &str) -> u8 {
    eprintln!("{why}");
    1
}

fn connect_sctp(address: SocketAddr, limit: Duration) -> io::Result<()> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let protocol = Some(rustix::net::ipproto::SCTP);
    let socket = rustix::net::socket(family, SocketType::STREAM, protocol)?;
    sockets::connect_within(&socket, address, Some(limit))
}

/// Sends a datagram and waits for the answer.
fn ask_datagram(address: SocketAddr, bytes: &[u8], limit: Duration) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind(sockets::unspecified(&address, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(limit))?;
    socket.send(bytes)?;
    let mut answer = vec![0; 2048];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

fn serve_datagrams(port: u16, answer: impl Fn(&str, SocketAddr) -> String) -> io::Result<()> {
    let both = [
        SocketAddr::from(([0_u16; 8], port)),
        SocketAddr::from(([0_u8; 4], port)),
    ];
    let socket = UdpSocket::bind(&both[..])?;
    let mut buffer = vec![0; 2048];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let text = String::from_utf8_lossy(&buffer[..length]).trim().to_owned();
        let _gone = socket.send_to(answer(&text, peer).as_bytes(), peer);
    }
}

/// An address as Go prints it: IPv4 stays IPv4 on a socket of both families.
fn plain(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

fn netexec(arguments: &[String]) -> Result<(), String> {
    let http = port_flag(arguments, "http-port", 8080)?;
    let udp = port_flag(arguments, "udp-port", 8081)?;
    if let Some(port) = udp {
        std::thread::spawn(move || {
            let served = serve_datagrams(port, |text, peer| {
                match text.split_once(' ').unwrap_or((text, "")) {
                    ("echo", words) => words.to_owned(),
                    (word, _) if word.eq_ignore_ascii_case("clientip") => plain(peer).to_string(),
                    (word, _) if word.eq_ignore_ascii_case("hostname") => hostname(),
                    _ => String::new(),
                }
            });
            if let Err(error) = served {
                eprintln!("agnhost: UDP port {port}: {error}");
            }
        });
    }
    let answer: Answer = Arc::new(execute);
    match http {
        Some(port) => {
            run("agnhost", port, &answer);
        }
        None => loop {
            std::thread::park();
        },
    }
    Ok(())
}

fn execute(request: &Request) -> Response {
    let parameter = |name: &str| request.parameter(name).unwrap_or_default();
    println!("{} {}", request.method, request.target);
    match request.path() {
        "/" => Response::text(200, format!("NOW: {:?}", std::time::SystemTime::now())),
        "/clientip" => Response::text(200, plain(request.peer).to_string()),
        "/hostname" | "/hostName" => Response::text(200, hostname()),
        "/echo" => Response::text(200, parameter("msg")),
        "/healthz" => Response::text(200, ""),
        "/dial" => dial(request),
        "/shell" => {
            let command = parameter("shellCommand") + &parameter("cmd");
            let shown = match Command::new("/bin/sh").args(["-c", &command]).output() {
                Ok(output) => {
                    let text = [&output.stdout[..], &output.stderr[..]].concat();
                    let text = String::from_utf8_lossy(&text).into_owned();
                    match output.status.success() {
                        true => json!({"output": text}),
                        false => json!({"output": text, "error": output.status.to_string()}),
                    }
                }
                Err(error) => json!({"error": error.to_string()}),
            };
            Response::json(200, &shown)
        }
        _ => Response::text(404, "404 page not found\n"),
    }
}

/// Asks another pod, as `/dial?host=…&port=…&protocol=…&request=…&tries=…` says.
fn dial(request: &Request) -> Response {
    let parameter = |name: &str| request.parameter(name).unwrap_or_default();
    let (host, port) = (parameter("host"), parameter("port"));
    let what = request
        .parameter("request")
        .unwrap_or_else(|| "hostname".into());
    let tries = parameter("tries").parse().unwrap_or(1).clamp(1, DIALS);
    let limit = Duration::from_secs(5);
    let target = match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let protocol = parameter("protocol");
    let (mut responses, mut errors) = (Vec::new(), Vec::new());
    for _ in 0..tries {
        let answer = match protocol.as_str() {
            "udp" => target
                .to_socket_addrs()
                .and_then(|mut found| found.next().ok_or_else(|| io::ErrorKind::NotFound.into()))
                .and_then(|address| ask_datagram(address, what.as_bytes(), limit)),
            _ => client::get(&format!("http://{target}/{what}"), limit).map(|answer| answer.body),
        };
        match answer {
            Ok(bytes) => responses.push(String::from_utf8_lossy(&bytes).trim().to_owned()),
            Err(error) => errors.push(error.to_string()),
        }
    }
    let body = match errors.is_empty() {
        true => json!({"responses": responses}),
        false => json!({"responses": responses, "errors": errors}),
    };
    Response::json(200, &body)
}

fn serve_hostname(arguments: &[String]) -> Result<(), String> {
    let on = |name: &str, usual: bool| match flag(arguments, name) {
        Some(text) => text != "false",
        None => usual,
    };
    let port = port_flag(arguments, "port", 9376)?.ok_or("--port is missing")?;
    let (udp, tcp, http) = (on("udp", false), on("tcp", false), on("http", true));
    if udp {
        let serving = move || serve_datagrams(port, |_, _| hostname());
        if !tcp && !http {
            return serving().map_err(|error| format!("UDP port {port}: {error}"));
        }
        std::thread::spawn(serving);
    }
    if tcp {
        let listener = listen(port).map_err(|error| error.to_string())?;
        tell_name(&listener);
    } else if http {
        run(
            "agnhost",
            port,
            &(Arc::new(|_: &Request| Response::text(200, hostname())) as Answer),
        );
    }
    Ok(())
}

/// Writes the pod's name to whoever connects.
fn tell_name(listener: &TcpListener) {
    accept(listener, CONNECTIONS, |mut stream: TcpStream, _| {
        let _gone = stream.write_all(hostname().as_bytes());
        let _gone = stream.shutdown(std::net::Shutdown::Write);
        // What the peer sends is read, so that closing does not reset what it has not read yet.
        let _late = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let _gone = (&stream).take(4096).read_to_end(&mut Vec::new());
    });
}

/// Serves `$SERVE_PORT_NUMBER`'s value on each such port.
fn porter() -> Result<(), String> {
    let mut any = false;
    for (name, value) in std::env::vars() {
        let Some(number) = name.strip_prefix("SERVE_PORT_") else {
            if name.starts_with("SERVE_TLS_PORT_") {
                eprintln!("agnhost: {name}: stand-ins have no TLS");
            }
            continue;
        };
        let port: u16 = number
            .parse()
            .map_err(|_| format!("{name} names no port"))?;
        let answer: Answer = Arc::new(move |_: &Request| Response::text(200, value.clone()));
        std::thread::spawn(move || run("agnhost", port, &answer));
        any = true;
    }
    if !any {
        eprintln!("agnhost: porter: no SERVE_PORT_NUMBER is set");
    }
    loop {
        std::thread::park();
    }
}

/// Well for ten seconds, and ill from then on, so that a liveness probe has something to find.
fn liveness(started: Instant) -> Answer {
    Arc::new(move |request: &Request| {
        let since = started.elapsed();
        match request.path() {
            "/started" => Response::text(200, format!("{since:?}")),
            "/healthz" if since > WELL => {
                Response::text(500, format!("error: {}", since.as_secs_f64()))
            }
            "/healthz" => Response::text(200, "ok"),
            _ => Response::text(404, "404 page not found\n"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::http::server::tests::served;

    #[test]
    fn flags_and_durations_are_gos() {
        let words: Vec<String> = ["--tcp", "--port", "80", "--http=false", "a:1"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(flag(&words, "tcp").as_deref(), Some("true"));
        assert_eq!(flag(&words, "port").as_deref(), Some("80"));
        assert_eq!(flag(&words, "http").as_deref(), Some("false"));
        assert_eq!(flag(&words, "udp"), None);
        assert_eq!(duration("3s"), Some(Duration::from_secs(3)));
        assert_eq!(duration("1m1500ms"), Some(Duration::from_millis(61_500)));
        assert_eq!(duration("3"), None);
        assert_eq!(duration("x"), None);
    }

    #[test]
    fn liveness_is_well_for_ten_seconds() {
        let ask = |started| {
            let request = b"GET /healthz HTTP/1.0\r\n\r\n";
            served(liveness(started), request)
        };
        assert!(ask(Instant::now()).starts_with("HTTP/1.1 200"));
        let long_ago = Instant::now().checked_sub(WELL * 2).unwrap();
        assert!(ask(long_ago).starts_with("HTTP/1.1 500"));
    }

    #[test]
    fn netexec_dials_itself() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer: Answer = Arc::new(execute);
        let own = answer.clone();
        std::thread::spawn(move || crate::images::http::server::serve(&listener, &own));
        let ask = |path: &str| {
            let text = served(
                answer.clone(),
                format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes(),
            );
            text.split("\r\n\r\n").nth(1).unwrap().to_owned()
        };
        assert_eq!(ask("/echo?msg=a+b"), "a b");
        assert_eq!(ask("/hostname"), hostname());
        let dialled = ask(&format!(
            "/dial?host=127.0.0.1&port={port}&protocol=http&request=hostName&tries=2"
        ));
        let expected = json!({"responses": [hostname(), hostname()]});
        assert_eq!(dialled, expected.to_string());
        assert!(ask("/dial?host=127.0.0.1&port=1&protocol=http").contains("errors"));
        assert!(ask("/shell?cmd=echo+hi").contains("hi\\n"));
    }
}
