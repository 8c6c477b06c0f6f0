//! The dataplane daemon: objects in, snapshots out, one thread beside the workers.
//!
//! [`run`] puts the parts together. [`server`] is the control socket's loop and knows nothing of
//! what is asked; [`state`] is what the daemon knows and how a change becomes live; [`plane`] is
//! what it drives.

mod addresses;
pub mod calls;
mod captures;
pub mod connection;
mod connections;
pub mod endpoints;
mod events;
mod hits;
mod load;
mod metrics;
pub mod network;
mod objects;
mod observe;
mod outside;
mod packets;
pub mod plane;
mod pods;
pub mod preview;
mod publication;
mod readings;
mod report;
pub mod server;
pub mod state;
mod verify;
pub mod watches;

use std::fs;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use config::{Config, limits};
use dataplane::engine::{ConntrackOptions, Engine, Options};
use dataplane::polling::Polling;
use rustix::mount::MountFlags;
use signal_hook::consts::{SIGINT, SIGTERM};
use tracing::{info, warn};

use crate::check::BPFFS;
use crate::denial_log::{self, DenialLog};
use crate::journal::{Journal, JournalError};
use calls::Serving;
use connection::Bounds;
use plane::{KernelPlane, PlaneError};
use server::{Access, Server, ServerBounds};
use state::Daemon;

/// Where a configuration is looked for if none is named.
const CONFIG: &str = "/etc/weir/weir.toml";
/// Events that one worker can have waiting between two turns of the control thread.
const EVENTS: usize = 4096;

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration was refused.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// The state directory cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The dataplane does not start.
    #[error(transparent)]
    Plane(#[from] PlaneError),
    /// What was stored does not become live.
    #[error("{0}")]
    Start(String),
    /// The machine lacks something.
    #[error("this machine cannot run the daemon:\n{0}")]
    Machine(String),
    /// A worker panicked: what came by its ports was dropped.
    #[error("worker {0} has ended by a panic: start the daemon again")]
    WorkerGone(usize),
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> DaemonError {
    let what = what.into();
    move |source| DaemonError::System { what, source }
}

/// Runs the daemon in the foreground until SIGTERM or SIGINT.
///
/// `config_path` is the configuration; none takes `/etc/weir/weir.toml` if it exists and the
/// defaults otherwise.
pub fn run(config_path: Option<&Path>) -> Result<(), DaemonError> {
    let config = load_config(config_path)?;
    let subscriber = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false);
    // A caller that has one of its own keeps it.
    let _ = tracing::subscriber::set_global_default(subscriber.finish());
    mount_bpffs();
    crate::check::demand(&config).map_err(DaemonError::Machine)?;

    let signals = signals().map_err(system("listen to signals"))?;
    let (journal, records) = Journal::open(&config.state_dir)?;
    let log = open_log(&config)?;
    fs::create_dir_all(&config.runtime_dir).map_err(system("make runtime_dir"))?;
    let engine = Engine::start(options(&config)?).map_err(PlaneError::from)?;
    let mtu_max = engine.mtu_max(false);
    if mtu_max < u32::from(u16::MAX) {
        let why = "this kernel takes no larger packets by AF_XDP, or umem.chunk_bytes is not 4096";
        warn!("interfaces may have an MTU of at most {mtu_max} bytes: {why}");
    }
    let plane = KernelPlane::new(engine, &config)?;
    let monitors: Vec<RawFd> = plane.monitor_fds().collect();
    let mut daemon = Daemon::start(config, plane, journal, records, log)?;

    let config = &daemon.config;
    let access = Access {
        user: config.socket_user,
        group: config.socket_group,
    };
    let mut sources = vec![signals.as_raw_fd()];
    sources.extend(monitors);
    let mut server = Server::bind(&config.socket, access, bounds(config), &sources)
        .map_err(system(format!("listen at {}", config.socket.display())))?;
    info!(
        "generation {} live on {}/{} workers, listening at {}",
        daemon.live.generation,
        daemon.live.workers.live,
        daemon.live.workers.total,
        daemon.config.socket.display()
    );
    let mut serving = Serving {
        daemon: &mut daemon,
        signals: &signals,
        stopped: false,
        dead_worker: None,
    };
    server
        .run(&mut serving)
        .map_err(system("serve the control socket"))?;
    let dead_worker = serving.dead_worker;
    daemon.follow_events();
    let Daemon { plane, journal, .. } = daemon;
    plane.stop();
    journal.close()?;
    dead_worker.map_or(Ok(()), |worker| Err(DaemonError::WorkerGone(worker)))
}

/// Mounts the BPF file system where nobody has yet, as systemd does elsewhere. What is wrong with it
/// otherwise is for [`crate::check::demand`] to say.
fn mount_bpffs() {
    // Two daemons that start at once must not mount one over the other's pins.
    let Ok(lock) = fs::File::create("/run/weir-bpffs.lock") else {
        return;
    };
    let locked = rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive);
    if locked.is_err() || crate::check::has_bpffs() {
        return;
    }
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match rustix::mount::mount("bpf", BPFFS, "bpf", safe, c"mode=700") {
        Ok(()) => info!("mounted a BPF file system at {BPFFS}"),
        Err(error) => warn!("cannot mount a BPF file system at {BPFFS}: {error}"),
    }
}

/// The configuration named; if none is, `/etc/weir/weir.toml` if it exists, else the defaults.
pub fn load_config(path: Option<&Path>) -> Result<Config, config::ConfigError> {
    match path {
        Some(path) => Config::load(path),
        None if Path::new(CONFIG).exists() => Config::load(Path::new(CONFIG)),
        None => Ok(Config::default()),
    }
}

/// The end of a pipe that SIGTERM and SIGINT write to.
fn signals() -> std::io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    for signal in [SIGTERM, SIGINT] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read)
}

fn open_log(config: &Config) -> Result<DenialLog, DaemonError> {
    let log = &config.log;
    let settings = denial_log::Settings {
        path: log.path.clone(),
        format: log.format,
        file_bytes: log.file_bytes,
        files: log.files,
        aggregation_s: log.aggregation_s,
        node: config.node_name.clone(),
    };
    let path = log.path.display();
    DenialLog::open(settings, Instant::now()).map_err(system(format!("open the log {path}")))
}

fn options(config: &Config) -> Result<Options, DaemonError> {
    let pin_dir: PathBuf = [BPFFS, "weir", &config.instance].iter().collect();
    fs::create_dir_all(&pin_dir).map_err(system(format!("make {}", pin_dir.display())))?;
    let path = config.runtime_dir.join("conntrack");
    let mut file = fs::File::options();
    let file = file
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        // It tells who talks to whom, and the secret of its hash.
        .mode(0o600)
        .open(&path);
    let file = file.map_err(system(format!("open {}", path.display())))?;
    let conntrack = &config.conntrack;
    Ok(Options {
        cores: config.workers.iter().map(|core| *core as usize).collect(),
        ports_max: config.max_ports as u16,
        umem_chunks: config.umem.chunks,
        umem_chunk_bytes: config.umem.chunk_bytes,
        pin_dir,
        conntrack: ConntrackOptions {
            file: Some(file.into()),
            capacity: conntrack.capacity,
            quota_percent: conntrack.quota_percent,
            strict_tcp: conntrack.strict_tcp,
            adoption_window_s: conntrack.adoption_window_s,
            boot: boot_id()?,
            timeouts: timeouts(&conntrack.timeouts),
        },
        fragments: fragment_bounds(&config.limits),
        affinity_bonds: config.limits.affinity_clients,
        rule_counters: config.limits.rule_counters + config.limits.compound_counters,
        events_max: EVENTS,
        polling: polling(&config.polling),
        publish_patience: Duration::from_millis(limits::PUBLISH_WAIT_MS),
    })
}

fn fragment_bounds(limits: &config::Limits) -> dataplane::fragments::Bounds {
    dataplane::fragments::Bounds {
        datagrams: limits.fragment_datagrams,
        frames: limits.fragment_frames,
        port_percent: limits.fragment_port_percent,
        pieces: limits.fragment_pieces,
        timeout_ms: limits.fragment_timeout_ms,
    }
}

fn polling(polling: &config::Polling) -> Polling {
    if polling.busy_poll {
        return Polling::Always;
    }
    Polling::Adaptive {
        longest: Duration::from_micros(polling.window_max_us.into()),
    }
}

/// This boot's identity, as a number.
fn boot_id() -> Result<u128, DaemonError> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path).map_err(system(path))?;
    let digits = text.trim().replace('-', "");
    u128::from_str_radix(&digits, 16)
        .map_err(|_| DaemonError::Start(format!("{path} holds {text:?}, which is no UUID")))
}

fn timeouts(timeouts: &config::ConntrackTimeouts) -> dataplane::conntrack::Timeouts {
    dataplane::conntrack::Timeouts {
        tcp_syn_s: timeouts.tcp_syn_s,
        tcp_established_s: timeouts.tcp_established_s,
        tcp_closing_s: timeouts.tcp_closing_s,
        tcp_closed_s: timeouts.tcp_closed_s,
        udp_s: timeouts.udp_s,
        udp_replied_s: timeouts.udp_replied_s,
        icmp_s: timeouts.icmp_s,
        sctp_opening_s: timeouts.sctp_opening_s,
        sctp_established_s: timeouts.sctp_established_s,
        other_s: timeouts.other_s,
        denied_s: timeouts.denied_s,
    }
}

fn bounds(config: &Config) -> ServerBounds {
    let limits = &config.limits;
    ServerBounds {
        clients: limits.clients as usize,
        connection: Bounds {
            message_bytes: limits.message_bytes as usize,
            output_bytes: limits.output_bytes as usize,
            half_message: Duration::from_secs(u64::from(limits.half_message_s)),
        },
    }
}
