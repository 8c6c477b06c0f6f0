//! Traffic between two pods of the node, through its workers.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::netlink::Namespace;

use crate::error::BenchError;

/// The pods' port.
const PORT: u16 = 9;
/// Bytes of a datagram: 60 with its headers.
const BYTES: usize = 18;
/// Datagrams are sent in groups, one group in this time.
const GROUP: Duration = Duration::from_micros(500);
/// How long a rate is tried.
const PROBE: Duration = Duration::from_millis(700);
/// The share that may be lost of what still counts as sustained.
const LOSS: f64 = 0.02;
/// The first rate that is tried, datagrams a second.
const FIRST: f64 = 2_000.0;
/// How often the range between a rate that is sustained and one that is not is halved.
const HALVINGS: u32 = 4;

fn setup(error: impl std::fmt::Display) -> BenchError {
    BenchError::Setup(error.to_string())
}

/// Datagrams under way until it is dropped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
    begun: Instant,
}

/// What went through.
#[derive(Clone, Copy, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throughput {
    /// Datagrams a second that were sent.
    pub sent_per_second: f64,
    /// Datagrams a second that arrived.
    pub received_per_second: f64,
}

impl Load {
    /// Sends from the first pod to the second, so many a second.
    pub fn start(
        talkers: &[Namespace; 2],
        addresses: [&str; 2],
        rate: f64,
    ) -> Result<Load, BenchError> {
        let bind = |index: usize, port: u16| -> Result<UdpSocket, BenchError> {
            let bound = talkers[index].run(|| UdpSocket::bind((addresses[index], port)));
            bound.map_err(setup)?.map_err(setup)
        };
        let (sender, receiver) = (bind(0, 0)?, bind(1, PORT)?);
        sender.connect((addresses[1], PORT)).map_err(setup)?;
        receiver
            .set_read_timeout(Some(Duration::from_millis(50)))
            .map_err(setup)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (sent, received) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let sending = {
            let (stop, sent) = (stop.clone(), sent.clone());
            std::thread::spawn(move || send(&sender, rate, &stop, &sent))
        };
        let receiving = {
            let (stop, received) = (stop.clone(), received.clone());
            std::thread::spawn(move || {
                let mut buffer = [0; 2048];
                while !stop.load(Ordering::Relaxed) {
                    if receiver.recv(&mut buffer).is_ok() {
                        received.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        };
        Ok(Load {
            stop,
            sent,
            received,
            threads: vec![sending, receiving],
            begun: Instant::now(),
        })
    }

    /// What went through so far.
    pub fn throughput(&self) -> Throughput {
        let seconds = self.begun.elapsed().as_secs_f64();
        let rate = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64 / seconds;
        Throughput {
            sent_per_second: rate(&self.sent),
            received_per_second: rate(&self.received),
        }
    }

    /// The most datagrams a second of which fewer than [`LOSS`] are lost.
    pub fn most(talkers: &[Namespace; 2], addresses: [&str; 2]) -> Result<f64, BenchError> {
        let sustains = |rate: f64| -> Result<bool, BenchError> {
            let load = Load::start(talkers, addresses, rate)?;
            std::thread::sleep(PROBE);
            let Throughput {
                sent_per_second,
                received_per_second,
            } = load.throughput();
            let all_sent = sent_per_second >= rate * (1.0 - LOSS);
            Ok(all_sent && received_per_second >= sent_per_second * (1.0 - LOSS))
        };
        let mut good = FIRST;
        if !sustains(good)? && !sustains(good)? {
            return Err(setup(format!(
                "not even {good} datagrams a second go from pod to pod"
            )));
        }
        while sustains(good * 2.0)? {
            good *= 2.0;
        }
        let mut bad = good * 2.0;
        for _ in 0..HALVINGS {
            let middle = (good + bad) / 2.0;
            if sustains(middle)? {
                good = middle;
            } else {
                bad = middle;
            }
        }
        Ok(good)
    }
}

fn send(socket: &UdpSocket, rate: f64, stop: &AtomicBool, sent: &AtomicU64) {
    let (begun, mut count) = (Instant::now(), 0_u64);
    while !stop.load(Ordering::Relaxed) {
        let due = (begun.elapsed().as_secs_f64() * rate) as u64;
        while count < due && !stop.load(Ordering::Relaxed) {
            // A full queue is a loss like any other.
            let _ = socket.send(&[0; BYTES]);
            count += 1;
        }
        sent.store(count, Ordering::Relaxed);
        std::thread::sleep(GROUP);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
