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
/// How long the most that goes through is looked for.
const SEARCH: Duration = Duration::from_secs(3);

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
    /// Sends from the first pod to the second, so many a second; none sends as many as it can.
    pub fn start(
        talkers: &[Namespace; 2],
        addresses: [&str; 2],
        rate: Option<f64>,
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

    /// The most that arrives when as many are sent as can be.
    pub fn most(talkers: &[Namespace; 2], addresses: [&str; 2]) -> Result<Throughput, BenchError> {
        let load = Load::start(talkers, addresses, None)?;
        std::thread::sleep(SEARCH);
        let throughput = load.throughput();
        if throughput.received_per_second < 1.0 {
            return Err(setup("nothing goes from pod to pod"));
        }
        Ok(throughput)
    }
}

fn send(socket: &UdpSocket, rate: Option<f64>, stop: &AtomicBool, sent: &AtomicU64) {
    let (begun, mut count) = (Instant::now(), 0_u64);
    while !stop.load(Ordering::Relaxed) {
        let due = match rate {
            Some(rate) => (begun.elapsed().as_secs_f64() * rate) as u64,
            None => count + 64,
        };
        while count < due {
            // A full queue is a loss like any other.
            let _ = socket.send(&[0; BYTES]);
            count += 1;
        }
        sent.store(count, Ordering::Relaxed);
        if rate.is_some() {
            std::thread::sleep(GROUP);
        }
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
