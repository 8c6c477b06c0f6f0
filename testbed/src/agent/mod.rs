//! The lab's resident agent: a client of the daemon's socket that runs what its objects ask for.
//!
//! Threads: one watches the daemon's objects ([`mirror`]), one makes objects of objects
//! ([`controllers`]), one per pod runs it ([`pods`]), one keeps the DNS pod's records ([`names`]),
//! one writes Events ([`events`]), one keeps the daemon alive ([`daemon`]), one per client serves `lab.sock` ([`server`]). The agent reads neither policies nor verdicts.

pub mod controllers;
pub mod daemon;
pub mod endpoints;
pub mod events;
pub mod mirror;
pub mod names;
pub mod node;
pub mod objects;
pub mod pods;
pub mod probes;
pub mod server;
mod service_links;
pub mod spec;
pub mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use control::client::{Client, ClientError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::lab::{Lab, LabFile};
use crate::pod::message::{ProcessSpec, RootSpec};
use crate::pod::sandbox::{Program, Sandbox};
use crate::pod::{capability, message};
use crate::topology::{self, Topology};

/// Name of the lab's one node.
pub const NODE: &str = "lab-node";
/// Where pods look for names: the address that the lab's DNS pod has.
pub const DNS_V4: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 10);
/// As [`DNS_V4`].
pub const DNS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0x0a);
/// The DNS pod's Service, as kubeadm numbers it: what pods ask.
pub const DNS_SERVICE_V4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// As [`DNS_SERVICE_V4`].
pub const DNS_SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x0a);
/// First number of the addresses handed out; below are the node, the DNS pod and their like.
const FIRST_ADDRESS: u32 = 20;
/// Number after the last: what a /16 leaves.
const LAST_ADDRESS: u32 = 65_534;

/// Locks whatever a thread that panicked may have held: the maps behind these locks are whole
/// between any two statements that change them.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all threads of the agent share.
pub struct Agent {
    /// The lab.
    pub lab: Lab,
    /// Its network.
    pub topology: Topology,
    /// The program that pods' inits run.
    pub program: Program,
    /// Mirror of the daemon's objects.
    pub mirror: mirror::Mirror,
    /// The pods that run, by UID.
    pub pods: Mutex<BTreeMap<String, Arc<pods::Pod>>>,
    /// The daemon's process.
    pub daemon: daemon::Daemon,
    /// Takes notes that become Events.
    pub events: events::Recorder,
    /// The mirror's change up to which the DNS pod has names.
    pub named: AtomicU64,
    client: Mutex<Option<Client>>,
    addresses: Mutex<BTreeSet<IpAddr>>,
    /// The number from which on the next address is looked for.
    next_address: AtomicU32,
    next_interface: AtomicU32,
    /// Whether the lab is going down.
    pub stopping: AtomicBool,
    /// The last thing that went wrong.
    pub trouble: Mutex<Option<String>>,
}

impl Agent {
    /// Calls the daemon; a connection that broke is made again once.
    pub fn call<R: DeserializeOwned>(
        &self,
        method: &str,
        params: impl Serialize,
    ) -> Result<R, ClientError> {
        let params = serde_json::to_value(params)
            .map_err(|error| ClientError::Protocol(error.to_string()))?;
        let mut kept = lock(&self.client);
        for attempt in 0..2 {
            if kept.is_none() {
                *kept = Some(Client::connect(self.lab.control_socket())?);
            }
            let Some(client) = kept.as_mut() else { break };
            match client.call(method, &params) {
                Err(ClientError::Io(_) | ClientError::Closed) if attempt == 0 => *kept = None,
                other => return other,
            }
        }
        Err(ClientError::Closed)
    }

    /// Says something for whoever looks for the reason: in the agent's log and in `lab list`.
    pub fn complain(&self, message: impl std::fmt::Display) {
        eprintln!("{} {message}", crate::clock::now());
        *lock(&self.trouble) = Some(message.to_string());
    }

    /// Addresses for a pod: those its manifest gives, else the next of the lab's ranges. One that
    /// was given back comes again when the others have had their turn, so that a pod which takes
    /// another's place has another address.
    pub fn take_addresses(&self, given: &[IpAddr]) -> Result<Vec<IpAddr>, String> {
        let mut taken = lock(&self.addresses);
        if !given.is_empty() {
            if let Some(twice) = given.iter().find(|address| taken.contains(address)) {
                return Err(format!("address {twice} is another pod's"));
            }
            taken.extend(given);
            return Ok(given.to_vec());
        }
        let next = self.next_address.load(Ordering::Relaxed);
        for number in (next..LAST_ADDRESS).chain(FIRST_ADDRESS..next) {
            let both = numbered(number);
            if both.iter().all(|address| !taken.contains(address)) {
                taken.extend(&both);
                self.next_address.store(number + 1, Ordering::Relaxed);
                return Ok(both.to_vec());
            }
        }
        Err("the lab's pod range is used up".into())
    }

    /// Gives addresses back.
    pub fn free_addresses(&self, addresses: &[IpAddr]) {
        let mut taken = lock(&self.addresses);
        for address in addresses {
            taken.remove(address);
        }
    }

    /// A number no other interface of this lab has had.
    pub fn interface_number(&self) -> u32 {
        self.next_interface.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether the lab is going down.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// The `number`th address of both ranges.
fn numbered(number: u32) -> [IpAddr; 2] {
    let v4 = u32::from(topology::PODS_V4.network()) + number;
    let v6 = u128::from(topology::PODS_V6.network()) + u128::from(number);
    [Ipv4Addr::from(v4).into(), Ipv6Addr::from(v6).into()]
}

/// Runs the agent of a lab whose folder [`crate::lab::up`] has made. Returns when it is shut down.
pub fn run(lab: Lab) -> io::Result<()> {
    // The lock tells the others that this agent lives; it goes with the process.
    let _alive = lab.lock_agent()?;
    let file = lab.read_file()?;
    let program = Program::seal(Path::new("/proc/self/exe"))?;
    let topology = Topology::create(&lab.name, &lab.folder()).map_err(io::Error::other)?;
    let _world = start_world(&lab, &topology, &program, &file)?;
    let config = daemon::configuration(&lab, &file);
    let text = config.to_toml().map_err(io::Error::other)?;
    fs::write(lab.folder().join("weir.toml"), text)?;
    let (recorder, notes) = events::Recorder::new();
    let agent = Arc::new(Agent {
        events: recorder,
        daemon: daemon::Daemon::default(),
        named: AtomicU64::new(0),
        topology,
        program,
        mirror: mirror::Mirror::default(),
        pods: Mutex::default(),
        client: Mutex::new(None),
        addresses: Mutex::default(),
        next_address: AtomicU32::new(FIRST_ADDRESS),
        next_interface: AtomicU32::new(1),
        stopping: AtomicBool::new(false),
        trouble: Mutex::new(None),
        lab,
    });
    let keeper = agent.clone();
    std::thread::spawn(move || daemon::keep(&keeper, &file));
    let watcher = agent.clone();
    std::thread::spawn(move || mirror::watch(&watcher));
    let namer = agent.clone();
    std::thread::spawn(move || names::keep(&namer));
    let teller = agent.clone();
    std::thread::spawn(move || events::keep(&teller, &notes));
    let maker = agent.clone();
    std::thread::spawn(move || controllers::run(&maker));
    server::serve(&agent)
}

/// Starts the external world: one responder behind every address that is not the lab's.
fn start_world(
    lab: &Lab,
    topology: &Topology,
    program: &Program,
    file: &LabFile,
) -> io::Result<Sandbox> {
    let folder = lab.folder();
    let root = RootSpec {
        hostname: "external".into(),
        hosts: "127.0.0.1 localhost\n::1 localhost\n".into(),
        scratch: scratch(&folder)?,
        writable_bytes: 16 << 20,
        ..RootSpec::default()
    };
    let stderr = File::create(folder.join("external.init.log"))?;
    let world = Sandbox::start(program, &topology.external, root, stderr)?;
    let log = open_log(&folder.join("external.log"))?;
    let process = ProcessSpec {
        responder: Some(crate::responder::Spec {
            pod: "external".into(),
            image: String::new(),
            ports: file.external_ports.clone(),
        }),
        capabilities: capability::resolve(&[], &[]).0,
        ..ProcessSpec::default()
    };
    let start = message::ToInit::Start {
        id: 1,
        process: Box::new(process),
    };
    world.tell(&start, Some(&log.into()))?;
    Ok(world)
}

/// The empty folder on which pods put their roots together, each in its own mount namespace.
pub fn scratch(folder: &Path) -> io::Result<String> {
    let scratch: PathBuf = folder.join("scratch");
    fs::create_dir_all(&scratch)?;
    Ok(scratch.display().to_string())
}

/// Opens a container's log for its writer.
pub fn open_log(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
}
