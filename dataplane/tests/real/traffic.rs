//! What the pods send each other: plain sockets of the standard library.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::world::{World, enter};

/// How long one probe waits.
const PROBE: Duration = Duration::from_millis(300);
/// How long a lost datagram is waited for before it is sent again.
const RESEND: Duration = Duration::from_millis(500);

/// A stream of bytes that depends on where it is, so that any shift or mix shows.
fn pattern(seed: u64, at: u64) -> u8 {
    let mixed = (at / 8 + 1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed)
        .rotate_left(23);
    (mixed.wrapping_mul(0xff51_afd7_ed55_8ccd) >> (at % 8 * 8)) as u8
}

fn in_namespace<T: Send>(namespace: String, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let task = scope.spawn(move || {
            enter(&namespace);
            work()
        });
        task.join().unwrap()
    })
}

fn socket(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(PROBE)).unwrap();
    socket
}

/// Sends `count` datagrams of sizes up to `largest` from the first pod to the second, which sends
/// each back; every byte of every answer is compared. Over both families.
pub fn udp_echo(world: &World, count: u64, largest: u64) {
    for (here, there) in [
        ("10.9.0.1:0", "10.9.0.2:7000"),
        ("[fd09::1]:0", "[fd09::2]:7000"),
    ] {
        let server = in_namespace(world.pod(1), || socket(there));
        let client = in_namespace(world.pod(0), || socket(here));
        client.set_read_timeout(Some(RESEND)).unwrap();
        client.connect(there).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = vec![0; 65536];
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    if let Ok((len, from)) = server.recv_from(&mut buffer) {
                        server.send_to(&buffer[..len], from).unwrap();
                    }
                }
            });
            let mut buffer = vec![0; 65536];
            let mut lost = 0;
            for number in 0..count {
                let sent = datagram(number, largest);
                while !answered(&client, &mut buffer, &sent, number, largest) {
                    lost += 1;
                    assert!(lost < 20, "{lost} answers of {number} lost");
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}

/// A datagram that starts with its number; its size and every other byte follow from that.
fn datagram(number: u64, largest: u64) -> Vec<u8> {
    let len = number * 37 % (largest - 28);
    let head = number.to_be_bytes().into_iter();
    head.chain((0..len).map(|at| pattern(number, at))).collect()
}

/// Sends a datagram and waits for its echo. A late echo of an earlier one, sent again on a busy
/// machine, must be unharmed too.
fn answered(client: &UdpSocket, buffer: &mut [u8], sent: &[u8], number: u64, largest: u64) -> bool {
    client.send(sent).unwrap();
    while let Ok(len) = client.recv(buffer) {
        if buffer[..len] == *sent {
            return true;
        }
        let earlier = buffer[..len]
            .first_chunk()
            .map_or(u64::MAX, |head| u64::from_be_bytes(*head));
        assert!(
            earlier < number,
            "an echo of {earlier} while {number} is awaited"
        );
        assert!(
            buffer[..len] == datagram(earlier, largest),
            "the echo of {earlier} is changed"
        );
    }
    false
}

/// Moves `bytes` by TCP from the first pod to the second and compares every one. Both families.
pub fn tcp_transfer(world: &World, bytes: u64) {
    for there in ["10.9.0.2:7001", "[fd09::2]:7001"] {
        let address: SocketAddr = there.parse().unwrap();
        let listener = in_namespace(world.pod(1), || TcpListener::bind(address).unwrap());
        let receiver = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = vec![0; 1 << 18];
            let mut at = 0;
            loop {
                let got = stream.read(&mut buffer).unwrap();
                if got == 0 {
                    return at;
                }
                for byte in &buffer[..got] {
                    assert_eq!(*byte, pattern(1, at % (1 << 20)), "byte {at}");
                    at += 1;
                }
            }
        });
        let block: Vec<u8> = (0..1 << 20).map(|at| pattern(1, at)).collect();
        let mut stream = in_namespace(world.pod(0), || {
            TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap()
        });
        stream
            .set_write_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        for _ in 0..bytes >> 20 {
            stream.write_all(&block).unwrap();
        }
        drop(stream);
        assert_eq!(receiver.join().unwrap(), bytes);
    }
}

/// Whether a datagram from the first pod reaches the second.
pub fn pod_reaches_pod(world: &World) -> bool {
    let server = in_namespace(world.pod(1), || socket("10.9.0.2:7002"));
    let client = in_namespace(world.pod(0), || socket("10.9.0.1:0"));
    arrives(&client, &server, [10, 9, 0, 2].into())
}

/// Whether a datagram from the node's own stack reaches the first pod.
pub fn node_reaches_pod(world: &World) -> bool {
    let server = in_namespace(world.pod(0), || socket("10.9.0.1:7002"));
    // The ARP question goes the same way as the datagram; the answer comes by the pod's port, so
    // that it must not be needed: the neighbour is told.
    let client = socket("10.9.0.254:0");
    world.tell_neighbour();
    arrives(&client, &server, [10, 9, 0, 1].into())
}

/// Whether a probe succeeds within a few seconds: links and bridges take their time on a busy
/// machine. What must not pass is probed without this.
pub fn soon(probe: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(8) {
        if probe() {
            return true;
        }
    }
    false
}

fn arrives(client: &UdpSocket, server: &UdpSocket, to: IpAddr) -> bool {
    let mut buffer = [0; 64];
    // A first datagram may wait for address resolution, so there are several; none may arrive late
    // and be taken for a later probe's, so each probe has its own number.
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER
        .fetch_add(1, std::sync::atomic::Ordering::Relaxed)
        .to_be_bytes();
    for _ in 0..3 {
        // An error here is an answer too: the node may know that nobody is there.
        let _ = client.send_to(&number, SocketAddr::new(to, 7002));
        while let Ok((len, _)) = server.recv_from(&mut buffer) {
            if buffer[..len] == number {
                return true;
            }
        }
    }
    false
}
