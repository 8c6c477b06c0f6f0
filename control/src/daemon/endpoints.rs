//! The local pods: who they are, which port they stand behind, since when their policy is what it
//! is. Kept in a file that ends with the boot, so that a restarted daemon takes them up again; the
//! uplinks' port numbers, too, under which connections from outside go on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dataplane::snapshot::{Epoch, Incarnation, PortId};
use dataplane::{Address, Mac};
use serde::{Deserialize, Serialize};

use super::network::Interface;

/// What is remembered of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
    /// The host side of its veth pair.
    pub interface: String,
    /// The MAC of the pod's end.
    pub mac: [u8; 6],
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// Its identity in the connection table.
    pub incarnation: u32,
    /// Its port's number, under which its connections go on.
    #[serde(default)]
    pub port: Option<u16>,
}

/// A live endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// What is remembered of it.
    pub record: Record,
    /// Its host side.
    pub interface: Interface,
    /// Its port.
    pub port: PortId,
    /// When its compiled policy last changed.
    pub epoch: Epoch,
}

impl Endpoint {
    /// Its incarnation.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.record.incarnation)
    }

    /// Its MAC.
    pub fn mac(&self) -> Mac {
        Mac(self.record.mac)
    }

    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = Address> {
        self.record.addresses.iter().map(|ip| Address::from(*ip))
    }

    fn remembered(&self) -> Record {
        Record {
            port: Some(self.port.0),
            ..self.record.clone()
        }
    }

    /// `NS/POD`.
    pub fn pod(&self) -> String {
        format!("{}/{}", self.record.namespace, self.record.name)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    boot_id: String,
    last_incarnation: u32,
    endpoints: Vec<Record>,
    /// Port numbers of uplinks by their interface's name.
    #[serde(default)]
    uplinks: BTreeMap<String, u16>,
}

/// The live endpoints by UID.
#[derive(Debug)]
pub struct Endpoints {
    path: PathBuf,
    boot_id: String,
    last_incarnation: u32,
    live: BTreeMap<String, Endpoint>,
    revision: u64,
    /// Of this daemon's.
    uplinks: BTreeMap<String, u16>,
    /// What the daemon before had given away: uplinks by name, and every port.
    former_uplinks: BTreeMap<String, u16>,
    former_ports: BTreeSet<u16>,
}

impl Endpoints {
    /// Reads the file; what is in it is to be added again by the caller, as far as it still exists.
    pub fn open(folder: &Path) -> io::Result<(Endpoints, Vec<Record>)> {
        fs::create_dir_all(folder)?;
        let path = folder.join("endpoints.json");
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let saved: Saved = match fs::read(&path) {
            // A file that does not parse is of another version: its endpoints are added anew by
            // whoever runs the pods, as after a boot.
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Saved::default(),
            Err(error) => return Err(error),
        };
        let saved = if saved.boot_id == boot_id {
            saved
        } else {
            Saved::default()
        };
        let pods = saved.endpoints.iter().filter_map(|record| record.port);
        let endpoints = Endpoints {
            path,
            boot_id,
            last_incarnation: saved.last_incarnation,
            live: BTreeMap::new(),
            revision: 0,
            uplinks: BTreeMap::new(),
            former_ports: pods.chain(saved.uplinks.values().copied()).collect(),
            former_uplinks: saved.uplinks,
        };
        Ok((endpoints, saved.endpoints))
    }

    /// The port number that an uplink is to have: what it had, else one that nobody had.
    pub fn uplink_number(&self, name: &str) -> Option<PortId> {
        let known = self.uplinks.get(name).or(self.former_uplinks.get(name));
        let known = known.copied();
        let taken = |number: &u16| {
            self.former_ports.contains(number) || self.uplinks.values().any(|own| own == number)
        };
        known
            .or_else(|| (PortId::FIRST_FREE.0..).find(|number| !taken(number)))
            .map(PortId)
    }

    /// Remembers an uplink's port number.
    pub fn remember_uplink(&mut self, name: &str, port: PortId) {
        self.uplinks.insert(name.to_owned(), port.0);
    }

    /// Gives no identity up to this one to a new pod: connections of it are in the table, though
    /// the file may have been lost.
    pub fn skip_incarnations(&mut self, last: Incarnation) {
        self.last_incarnation = self.last_incarnation.max(last.0);
    }

    /// An identity that no pod had before in this boot.
    pub fn next_incarnation(&mut self) -> u32 {
        self.last_incarnation = self.last_incarnation.checked_add(1).unwrap_or(1);
        self.last_incarnation
    }

    /// Writes the file as a whole.
    pub fn save(&self) -> io::Result<()> {
        let saved = Saved {
            boot_id: self.boot_id.clone(),
            last_incarnation: self.last_incarnation,
            endpoints: self.live.values().map(Endpoint::remembered).collect(),
            uplinks: self.uplinks.clone(),
        };
        let new = self.path.with_extension("new");
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new)?;
        file.write_all(&serde_json::to_vec(&saved)?)?;
        fs::rename(&new, &self.path)
    }

    /// The endpoint with that UID.
    pub fn get(&self, uid: &str) -> Option<&Endpoint> {
        self.live.get(uid)
    }

    /// Adds or replaces an endpoint.
    pub fn insert(&mut self, endpoint: Endpoint) {
        self.revision += 1;
        self.live.insert(endpoint.record.uid.clone(), endpoint);
    }

    /// Takes an endpoint out.
    pub fn remove(&mut self, uid: &str) -> Option<Endpoint> {
        self.revision += 1;
        self.live.remove(uid)
    }

    /// All of them, by UID.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.live.values()
    }

    /// The endpoint with that UID, to change.
    pub fn get_mut(&mut self, uid: &str) -> Option<&mut Endpoint> {
        self.live.get_mut(uid)
    }

    /// All of them, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Endpoint> {
        self.live.values_mut()
    }

    /// Rises whenever an endpoint comes or goes: what was made from their records is still true
    /// while this is the same.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// The endpoint of that identity.
    pub fn by_incarnation(&self, incarnation: Incarnation) -> Option<&Endpoint> {
        self.iter()
            .find(|endpoint| endpoint.incarnation() == incarnation)
    }
}
