//! The control socket under clients that do what they should not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::client::{Client, ClientError};
use control::daemon::connection::Bounds;
use control::daemon::server::{Access, ClientId, Server, ServerBounds, Service, refused};
use control::daemon::watches::{Droppable, Outgoing};
use control::protocol::{ErrorObject, Reason, Response};
use serde_json::{Value, json};

/// Answers `echo` with its params, `count` with the calls so far, and after `flood` sends the
/// caller a notification of a kilobyte at every tick and call; after `drip` such that may be left
/// out, of which `left_out` counts those that were.
#[derive(Default)]
struct Toy {
    calls: usize,
    flooded: Vec<ClientId>,
    dripped: Vec<ClientId>,
    left_out: usize,
    gone: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Service for Toy {
    fn call(
        &mut self,
        client: ClientId,
        method: &str,
        params: Value,
        _arrived: Instant,
    ) -> Result<String, ErrorObject> {
        self.calls += 1;
        match method {
            "echo" => Ok(params.to_string()),
            "count" => Ok(self.calls.to_string()),
            "flood" => {
                self.flooded.push(client);
                Ok("{}".to_owned())
            }
            "drip" => {
                self.dripped.push(client);
                Ok("{}".to_owned())
            }
            "leftOut" => Ok(self.left_out.to_string()),
            _ => Err(refused(Reason::NotFound, "no such method")),
        }
    }

    fn gone(&mut self, client: ClientId) {
        self.flooded.retain(|flooded| *flooded != client);
        self.dripped.retain(|dripped| *dripped != client);
        self.gone.fetch_add(1, Ordering::SeqCst);
    }

    fn take_notifications(&mut self) -> Vec<Outgoing> {
        let text = "x".repeat(1024);
        let line = json!({"jsonrpc": "2.0", "method": "watch", "params": text}).to_string();
        let outgoing = |client: &ClientId, droppable| Outgoing {
            client: *client,
            line: line.clone().into_bytes(),
            droppable,
        };
        let flooded = self.flooded.iter().map(|client| outgoing(client, None));
        let flow = Some(Droppable::Flow(1));
        let dripped = self.dripped.iter().map(|client| outgoing(client, flow));
        flooded.chain(dripped).collect()
    }

    fn not_taken(&mut self, client: ClientId, line: Droppable) {
        assert!(self.dripped.contains(&client) && line == Droppable::Flow(1));
        self.left_out += 1;
    }

    fn tick(&mut self, _source: Option<usize>, _clients: usize) {}

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

struct Daemon {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    gone: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

const MESSAGE_BYTES: usize = 1 << 20;

impl Daemon {
    fn start(name: &str) -> Daemon {
        let folder =
            std::env::temp_dir().join(format!("weir-hostile-{}-{name}", std::process::id()));
        let path = folder.join("weir.sock");
        let bounds = ServerBounds {
            clients: 8,
            connection: Bounds {
                message_bytes: MESSAGE_BYTES,
                output_bytes: 4 << 20,
                half_message: Duration::from_millis(400),
            },
        };
        let mut server = Server::bind(&path, Access::default(), bounds, &[]).unwrap();
        let mut toy = Toy::default();
        let (stop, gone) = (toy.stop.clone(), toy.gone.clone());
        let thread = std::thread::spawn(move || server.run(&mut toy).unwrap());
        Daemon {
            path,
            stop,
            gone,
            thread: Some(thread),
        }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
    }

    /// A well-behaved client is served, and at once.
    fn serves_others(&self) {
        let begun = Instant::now();
        let mut client = Client::connect(&self.path).unwrap();
        client.set_timeout(Some(Duration::from_secs(5))).unwrap();
        let answer: Value = client.call("echo", json!({"a": 1})).unwrap();
        assert_eq!(answer, json!({"a": 1}));
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
    }

    fn wait_gone(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.gone.load(Ordering::SeqCst) < count {
            assert!(Instant::now() < deadline, "the daemon did not notice");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
            assert!(!self.path.exists(), "the socket is left behind");
        }
        let _ = std::fs::remove_dir_all(self.path.parent().unwrap());
    }
}

fn line(stream: &UnixStream) -> Response {
    let mut text = String::new();
    let mut reader = BufReader::with_capacity(1, stream);
    reader.read_line(&mut text).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

fn error(stream: &UnixStream) -> ErrorObject {
    line(stream).error.unwrap()
}

fn echo(id: u64) -> Vec<u8> {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"echo\",\"params\":{{\"n\":{id}}}}}\n")
        .into_bytes()
}

#[test]
fn nonsense_is_answered_and_the_connection_goes_on() {
    let daemon = Daemon::start("nonsense");
    let mut stream = daemon.connect();
    let deep = format!("{}\n", "[".repeat(100_000));
    for (bytes, code) in [
        (&b"not json\n"[..], -32700),
        (b"\xff\xfe\x00\n", -32700),
        (deep.as_bytes(), -32700),
        (b"[]\n", -32600),
        (b"{}\n", -32600),
        (
            b"{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"echo\"}\n",
            -32600,
        ),
        (b"{\"jsonrpc\":\"2.0\",\"method\":\"echo\"}\n", -32600),
        (
            b"{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"echo\"}\n",
            -32600,
        ),
        (
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"nonsense\"}\n",
            -32000,
        ),
    ] {
        stream.write_all(bytes).unwrap();
        assert_eq!(
            error(&stream).code,
            code,
            "{}",
            String::from_utf8_lossy(&bytes[..20.min(bytes.len())])
        );
    }
    stream.write_all(b"\n \r\n").unwrap();
    stream.write_all(&echo(7)).unwrap();
    assert_eq!(line(&stream).result.unwrap(), json!({"n": 7}));
}

#[test]
fn a_message_in_single_bytes_is_a_message() {
    let daemon = Daemon::start("bytes");
    let mut stream = daemon.connect();
    for byte in echo(3) {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(line(&stream).id, json!(3));
}

#[test]
fn pipelined_requests_are_answered_in_order_even_behind_a_closed_half() {
    let daemon = Daemon::start("pipeline");
    let mut stream = daemon.connect();
    let mut bytes = Vec::new();
    (0..1000).for_each(|id| bytes.extend(echo(id)));
    bytes.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":9999,\"method\":\"ec");
    stream.write_all(&bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let ids: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Response>(line).unwrap().id)
        .collect();
    assert_eq!(ids, (0..1000).map(|id| json!(id)).collect::<Vec<_>>());
}

#[test]
fn a_half_message_is_given_up_after_its_time_and_others_are_served_meanwhile() {
    let daemon = Daemon::start("half");
    let mut stream = daemon.connect();
    stream.write_all(&echo(1)).unwrap();
    stream.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1").unwrap();
    assert_eq!(line(&stream).id, json!(1));
    daemon.serves_others();
    let error = error(&stream);
    assert!(
        error.message.contains("still not whole"),
        "{}",
        error.message
    );
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
}

#[test]
fn an_oversized_message_is_refused_without_being_kept() {
    let daemon = Daemon::start("oversized");
    for ending in [true, false] {
        let mut stream = daemon.connect();
        let mut written = stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            let chunk = vec![b'a'; 1 << 16];
            for _ in 0..(16 * MESSAGE_BYTES / (1 << 16)) {
                if written.write_all(&chunk).is_err() {
                    return;
                }
            }
            if ending {
                let _ = written.write_all(b"\n");
                let _ = written.write_all(&echo(1));
            }
        });
        let error = error(&stream);
        assert_eq!(error.data.unwrap().reason, Reason::RequestEntityTooLarge);
        daemon.serves_others();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        let rest = String::from_utf8(rest).unwrap();
        assert!(
            !rest.contains("result"),
            "what comes behind was executed: {rest}"
        );
        writer.join().unwrap();
    }
    let mut client = Client::connect(&daemon.path).unwrap();
    let fits = "a".repeat(MESSAGE_BYTES - 200);
    assert_eq!(
        client.call::<Value>("echo", json!([fits])).unwrap(),
        json!([fits])
    );
    let too_long = client
        .call::<Value>("echo", json!(["a".repeat(MESSAGE_BYTES)]))
        .unwrap_err();
    assert_eq!(too_long.reason(), Some(Reason::RequestEntityTooLarge));
}

#[test]
fn clients_that_vanish_are_forgotten() {
    let daemon = Daemon::start("vanish");
    for round in 0..50 {
        let mut stream = daemon.connect();
        let mut request = echo(1);
        if round % 2 == 0 {
            request.truncate(20);
        }
        stream.write_all(&request).unwrap();
        drop(stream);
        daemon.wait_gone(round + 1);
    }
    daemon.serves_others();
}

#[test]
fn a_client_that_reads_nothing_stalls_nobody_and_loses_nothing() {
    let daemon = Daemon::start("slow");
    let mut stream = daemon.connect();
    let mut written = stream.try_clone().unwrap();
    const REQUESTS: u64 = 40;
    let text = "y".repeat(MESSAGE_BYTES / 2);
    let writer = std::thread::spawn(move || {
        for id in 0..REQUESTS {
            let request = json!({"jsonrpc": "2.0", "id": id, "method": "echo", "params": [text]});
            writeln!(written, "{request}").unwrap();
        }
    });
    for _ in 0..20 {
        daemon.serves_others();
    }
    assert!(
        !writer.is_finished(),
        "the daemon must stop reading a client that does not read"
    );
    let mut reader = BufReader::new(&mut stream);
    for id in 0..REQUESTS {
        let mut text = String::new();
        reader.read_line(&mut text).unwrap();
        let response: Response = serde_json::from_str(&text).unwrap();
        assert_eq!(response.id, json!(id));
        assert!(response.result.is_some());
    }
    writer.join().unwrap();
}

#[test]
fn a_watcher_that_reads_nothing_is_given_up_at_its_bound() {
    let daemon = Daemon::start("watcher");
    let mut stream = daemon.connect();
    stream
        .write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"flood\"}\n")
        .unwrap();
    assert_eq!(line(&stream).id, json!(1));
    let mut other = Client::connect(&daemon.path).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while daemon.gone.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < deadline, "the watcher was not given up");
        other.call::<Value>("count", json!({})).unwrap();
    }
    daemon.serves_others();
}

#[test]
fn an_observer_that_reads_nothing_loses_flows_and_stays() {
    let daemon = Daemon::start("drip");
    let mut slow = Client::connect(&daemon.path).unwrap();
    slow.send("drip", json!({})).unwrap();
    let mut other = Client::connect(&daemon.path).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while other.call_value("leftOut", json!({})).unwrap() == json!(0) {
        assert!(Instant::now() < deadline);
    }
    daemon.serves_others();
    // It reads again: what it was not sent is gone, and it is served as before.
    slow.set_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(slow.receive_reply(1).unwrap(), json!({}));
    assert!(slow.call_value("count", json!({})).unwrap().as_u64() > Some(0));
}

#[test]
fn one_client_too_many_is_told_so() {
    let daemon = Daemon::start("many");
    let clients: Vec<UnixStream> = (0..8).map(|_| daemon.connect()).collect();
    // All eight are in once the last one is answered.
    (&clients[7]).write_all(&echo(1)).unwrap();
    assert_eq!(line(&clients[7]).id, json!(1));
    let mut ninth = Client::connect(&daemon.path).unwrap();
    let refusal = match ninth.call::<Value>("echo", json!({})) {
        Err(ClientError::Refused(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal.data.unwrap().reason, Reason::TooManyRequests);
    drop(clients);
    daemon.wait_gone(8);
    daemon.serves_others();
}

#[test]
fn a_flood_of_requests_leaves_others_their_turn() {
    let daemon = Daemon::start("flood");
    let stop = Arc::new(AtomicBool::new(false));
    let begun = Arc::new(Barrier::new(4));
    let floods: Vec<_> = (0..3)
        .map(|_| {
            let stream = daemon.connect();
            let mut writer = stream.try_clone().unwrap();
            let (stop, begun) = (stop.clone(), begun.clone());
            let bytes: Vec<u8> = (0..100).flat_map(echo).collect();
            let write = std::thread::spawn(move || {
                writer.write_all(&bytes).unwrap();
                begun.wait();
                while !stop.load(Ordering::SeqCst) && writer.write_all(&bytes).is_ok() {}
                let _ = writer.shutdown(Shutdown::Write);
            });
            let read = std::thread::spawn(move || BufReader::new(stream).lines().count());
            (write, read)
        })
        .collect();
    begun.wait();
    for _ in 0..20 {
        daemon.serves_others();
    }
    stop.store(true, Ordering::SeqCst);
    for (write, read) in floods {
        write.join().unwrap();
        let answered = read.join().unwrap();
        assert!(answered > 0 && answered % 100 == 0, "{answered}");
    }
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let daemon = Daemon::start("stale");
    let bounds = ServerBounds {
        clients: 1,
        connection: Bounds {
            message_bytes: 1,
            output_bytes: 1,
            half_message: Duration::from_secs(1),
        },
    };
    let taken = Server::bind(&daemon.path, Access::default(), bounds, &[]).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    let stale = daemon.path.with_file_name("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    Server::bind(&stale, Access::default(), bounds, &[]).unwrap();
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&stale).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
