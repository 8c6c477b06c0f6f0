//! The self-check: a share of the new flows is decided again by the naive specification, which has
//! nothing in common with the engine but the object types, and the two must agree.
//!
//! The workers choose one of `self_check.sample_one_in` new flows. The control thread gives each to
//! a thread of low priority, with the objects of the generation that decided: a cluster never
//! changes under its reader's hands, and to keep the last [`SELF_CHECK_GENERATIONS`] costs only
//! what differs between them. Everything is bounded: samples a second, samples that wait, the
//! thread's share of a core. What is beyond a bound, and what was decided by a generation that is
//! no longer kept, is skipped and counted. A disagreement is counted as
//! `weir_policy_mismatch_total`, and told with all that is needed to see it again.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use config::limits::{SELF_CHECK_FILES, SELF_CHECK_GENERATIONS, SELF_CHECK_QUEUE};
use dataplane::events::Event;
use dataplane::snapshot::{Incarnation, Role};
use dataplane::{Address, Direction, Tier, Verdict};
use serde_json::json;
use tracing::error;

use super::endpoints::{Endpoint, Endpoints};
use super::plane::Plane;
use super::state::Daemon;
use crate::cluster::Cluster;
use crate::flow::{FlowPolicy, protocol_name};
use crate::specification::{self, Decision, Traffic, World};

/// Kinds that decide, in what is kept of a disagreement.
const DECIDING: &[&str] = &[
    "Namespace",
    "Pod",
    "Node",
    "ServiceAccount",
    "NetworkPolicy",
    "ClusterNetworkPolicy",
    "AdminNetworkPolicy",
    "BaselineAdminNetworkPolicy",
    "SecurityGroup",
    "SecurityGroupPolicy",
];

/// A local pod's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Attached {
    incarnation: Incarnation,
    namespace: String,
    name: String,
    uid: String,
    addresses: Vec<IpAddr>,
}

impl Attached {
    fn of(endpoint: &Endpoint) -> Attached {
        Attached {
            incarnation: endpoint.incarnation(),
            namespace: endpoint.record.namespace.clone(),
            name: endpoint.record.name.clone(),
            uid: endpoint.record.uid.clone(),
            addresses: endpoint.record.addresses.clone(),
        }
    }
}

/// All that a generation's verdicts follow from.
#[derive(Debug)]
struct Grounds {
    generation: u64,
    cluster: Cluster,
    attached: Arc<Vec<Attached>>,
    /// The node's own addresses, if what pods send there is exempt.
    exempt: Vec<Address>,
    enforced: bool,
}

/// A flow that was decided, and by what.
#[derive(Debug)]
struct Sample {
    event: Event,
    verdict: Verdict,
    /// The policy that the verdict names.
    policy: Option<FlowPolicy>,
    grounds: Arc<Grounds>,
}

/// What became of the samples.
#[derive(Debug, Default)]
pub struct Counts {
    checked: AtomicU64,
    skipped: AtomicU64,
    mismatches: AtomicU64,
    reasons: AtomicU64,
}

impl Counts {
    /// Samples decided again.
    pub fn checked(&self) -> u64 {
        self.checked.load(Ordering::Relaxed)
    }

    /// Samples that could not be: beyond a bound, or of a generation that is gone.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Samples that the specification decides otherwise.
    pub fn mismatches(&self) -> u64 {
        self.mismatches.load(Ordering::Acquire)
    }

    /// Samples that it decides alike, but by another policy or rule.
    pub fn reason_mismatches(&self) -> u64 {
        self.reasons.load(Ordering::Acquire)
    }
}

/// The control thread's side.
#[derive(Debug)]
pub struct Verifier {
    queue: SyncSender<Sample>,
    counts: Arc<Counts>,
    grounds: VecDeque<Arc<Grounds>>,
    attached: Arc<Vec<Attached>>,
    /// The endpoints' revision that `attached` is of.
    attached_at: u64,
    per_second: u32,
    second: Instant,
    in_second: u32,
}

impl Verifier {
    /// Starts the thread. Disagreements are kept in `folder`.
    pub fn start(settings: &config::SelfCheck, folder: &Path) -> io::Result<Verifier> {
        let (queue, samples) = sync_channel(SELF_CHECK_QUEUE);
        let counts = Arc::new(Counts::default());
        let checker = Checker {
            samples,
            counts: counts.clone(),
            world: None,
            cpu_percent: settings.cpu_percent,
            folder: folder.to_owned(),
            files: 0,
        };
        std::thread::Builder::new()
            .name("weir-verify".into())
            .spawn(move || checker.run())?;
        Ok(Verifier {
            queue,
            counts,
            grounds: VecDeque::new(),
            attached: Arc::default(),
            attached_at: 0,
            per_second: settings.samples_per_second,
            second: Instant::now(),
            in_second: 0,
        })
    }

    /// What became of the samples.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The endpoints as a sample needs them; the same list as before if none has changed.
    fn attach(&mut self, endpoints: &Endpoints) -> Arc<Vec<Attached>> {
        let revision = endpoints.revision();
        if self.attached_at != revision {
            self.attached = Arc::new(endpoints.iter().map(Attached::of).collect());
            self.attached_at = revision;
        }
        self.attached.clone()
    }

    fn remember(&mut self, grounds: Grounds) {
        if self.grounds.len() >= SELF_CHECK_GENERATIONS {
            self.grounds.pop_front();
        }
        self.grounds.push_back(Arc::new(grounds));
    }

    fn submit(
        &mut self,
        event: &Event,
        verdict: Verdict,
        policy: Option<FlowPolicy>,
        now: Instant,
    ) {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.in_second = 0;
        }
        let known = |grounds: &&Arc<Grounds>| grounds.generation == event.generation.0;
        let grounds = self.grounds.iter().rev().find(known);
        let sample = grounds
            .filter(|_| self.in_second < self.per_second)
            .map(|grounds| Sample {
                event: *event,
                verdict,
                policy,
                grounds: grounds.clone(),
            });
        let sent = sample.is_some_and(|sample| self.queue.try_send(sample).is_ok());
        if sent {
            self.in_second += 1;
        } else {
            self.counts.skipped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<P: Plane> Daemon<P> {
    /// Keeps what the newest generation's verdicts follow from.
    pub(super) fn keep_grounds(&mut self) {
        let Some(verifier) = &mut self.verifier else {
            return;
        };
        let attached = verifier.attach(&self.endpoints);
        let exempt = match self.config.node_egress {
            config::NodeEgress::Policy => Vec::new(),
            config::NodeEgress::Allow => self.facts.node_addresses.clone(),
        };
        verifier.remember(Grounds {
            generation: self.live.generation,
            cluster: self.cluster.clone(),
            attached,
            exempt,
            enforced: self.config.enforcement == config::Enforcement::On,
        });
    }

    /// Has a sample decided again.
    pub(super) fn verify(&mut self, event: &Event, verdict: Verdict, now: Instant) {
        let policy = self.flow_policy(verdict);
        if let Some(verifier) = &mut self.verifier {
            verifier.submit(event, verdict, policy, now);
        }
    }
}

/// The thread.
struct Checker {
    samples: Receiver<Sample>,
    counts: Arc<Counts>,
    /// The specification's view of the generation that was looked at last.
    world: Option<(Arc<Grounds>, World)>,
    cpu_percent: u32,
    folder: PathBuf,
    files: usize,
}

impl Checker {
    fn run(mut self) {
        // Of this thread only (setpriority(2), "C library/kernel differences").
        let _ = rustix::process::nice(19);
        loop {
            match self.samples.recv_timeout(Duration::from_secs(60)) {
                Ok(sample) => {
                    let started = Instant::now();
                    self.check(&sample);
                    self.rest(started.elapsed());
                }
                // What a quiet hour does not need is not kept.
                Err(RecvTimeoutError::Timeout) => self.world = None,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Sleeps so long that the work is no more than its share of a core.
    fn rest(&self, worked: Duration) {
        let percent = self.cpu_percent.clamp(1, 100);
        let rest = worked * (100 - percent) / percent;
        if !rest.is_zero() {
            std::thread::sleep(rest);
        }
    }

    fn check(&mut self, sample: &Sample) {
        let grounds = &sample.grounds;
        if !matches!(&self.world, Some((known, _)) if Arc::ptr_eq(known, grounds)) {
            let ends = grounds.attached.iter();
            let local = ends.map(|end| (end.uid.as_str(), end.addresses.as_slice()));
            self.world = Some((grounds.clone(), World::new(&grounds.cluster, local)));
        }
        let Some((_, world)) = &self.world else {
            return;
        };
        let Some(specified) = specified(grounds, world, &sample.event) else {
            self.counts.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.counts.checked.fetch_add(1, Ordering::Relaxed);
        let counter: fn(&Counts) -> &AtomicU64 = match specified.agrees(sample) {
            Agreement::Whole => return,
            Agreement::Verdict => |counts| &counts.reasons,
            Agreement::None => |counts| &counts.mismatches,
        };
        // Whoever sees the counter finds the log line and the file.
        self.report(sample, &specified);
        counter(&self.counts).fetch_add(1, Ordering::Release);
    }

    fn report(&mut self, sample: &Sample, specified: &Specified) {
        let Sample {
            event,
            verdict,
            policy,
            grounds,
        } = sample;
        let policy = policy.as_ref().map(FlowPolicy::full_name);
        let kept = match self.keep(sample, specified) {
            Ok(Some(path)) => format!("the objects are in {}", path.display()),
            Ok(None) => format!("the objects of the first {SELF_CHECK_FILES} are kept"),
            Err(error) => format!("the objects are not kept: {error}"),
        };
        let pod = |incarnation: Incarnation| match attached(grounds, incarnation) {
            Some(end) => format!(" ({}/{}, uid {})", end.namespace, end.name, end.uid),
            None => String::new(),
        };
        error!(
            "POLICY MISMATCH: {} from {}{} port {} to {}{} port {}, which came in by a {:?} port: \
             the engine says {verdict:?} by {}, the specification says {specified}; \
             generation {}; {kept}. This is a mistake in Weir: please report it",
            protocol_name(event.key.protocol),
            event.key.source.to_ip(),
            pod(event.source),
            event.key.source_port,
            event.key.destination.to_ip(),
            pod(event.destination),
            event.key.destination_port,
            event.ingress_role,
            policy.as_deref().unwrap_or("no policy"),
            grounds.generation,
        );
    }

    /// Writes what a disagreement follows from, for the first few.
    fn keep(&mut self, sample: &Sample, specified: &Specified) -> io::Result<Option<PathBuf>> {
        if self.files >= SELF_CHECK_FILES {
            return Ok(None);
        }
        let Sample { event, grounds, .. } = sample;
        let deciding = grounds
            .cluster
            .objects()
            .filter(|object| DECIDING.contains(&object.kind().kind));
        let attached = grounds.attached.iter().map(|end| {
            json!({
                "namespace": end.namespace, "name": end.name, "uid": end.uid,
                "addresses": end.addresses, "incarnation": end.incarnation.0,
            })
        });
        let whole = json!({
            "apiVersion": "v1", "kind": "List",
            "items": deciding.map(|object| object.to_value()).collect::<Vec<_>>(),
            "mismatch": {
                "generation": grounds.generation, "engine": format!("{:?}", sample.verdict),
                "specification": specified.to_string(),
                "protocol": event.key.protocol.0,
                "source": event.key.source.to_ip(), "sourcePort": event.key.source_port,
                "sourceIncarnation": event.source.0,
                "destination": event.key.destination.to_ip(),
                "destinationPort": event.key.destination_port,
                "destinationIncarnation": event.destination.0,
                "service": event.service.map(|service| service.to_string()),
                "ingress": format!("{:?}", event.ingress_role),
                "attached": attached.collect::<Vec<_>>(),
            },
        });
        let name = format!("mismatch-{}-{}.json", grounds.generation, self.files);
        let path = self.folder.join(name);
        let mut options = File::options();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(&serde_json::to_vec_pretty(&whole)?)?;
        self.files += 1;
        Ok(Some(path))
    }
}

fn attached(grounds: &Grounds, incarnation: Incarnation) -> Option<&Attached> {
    let mut ends = grounds.attached.iter();
    ends.find(|end| end.incarnation == incarnation)
}

/// What the specification says of a flow.
#[derive(Debug)]
struct Specified {
    direction: Direction,
    decision: Decision,
}

/// How far two verdicts agree.
enum Agreement {
    /// In all.
    Whole,
    /// In what happens, not in why.
    Verdict,
    /// Not at all.
    None,
}

impl Specified {
    /// No direction has a say.
    fn exempt() -> Specified {
        Specified {
            direction: Direction::Ingress,
            decision: Decision {
                accept: true,
                tier: specification::Tier::Default,
                policy: None,
                rule: None,
            },
        }
    }

    fn agrees(&self, sample: &Sample) -> Agreement {
        let decision = &self.decision;
        let provenance = sample.verdict.provenance;
        if decision.accept != sample.verdict.accept {
            return Agreement::None;
        }
        let same_policy = match (&decision.policy, &sample.policy) {
            (None, None) => true,
            (Some(key), Some(policy)) => {
                key.kind.kind == policy.kind
                    && *key.namespace == *policy.namespace.as_deref().unwrap_or_default()
                    && *key.name == *policy.name
            }
            _ => false,
        };
        // The engine's last number stands for all rules from there on.
        let rule = decision
            .rule
            .map(|rule| u16::try_from(rule).unwrap_or(u16::MAX));
        let same_tier = tier(decision.tier) == provenance.tier;
        let same_direction = self.direction == provenance.direction;
        if same_policy && rule == provenance.rule && same_tier && same_direction {
            Agreement::Whole
        } else {
            Agreement::Verdict
        }
    }
}

impl std::fmt::Display for Specified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let decision = &self.decision;
        f.write_str(if decision.accept { "accept" } else { "drop" })?;
        write!(f, " ({:?} {:?}", self.direction, decision.tier)?;
        if let Some(policy) = &decision.policy {
            write!(f, " policy {}", policy.display())?;
        }
        if let Some(rule) = decision.rule {
            write!(f, " rule {rule}")?;
        }
        f.write_str(")")
    }
}

fn tier(tier: specification::Tier) -> Tier {
    match tier {
        specification::Tier::SecurityGroup => Tier::SecurityGroup,
        specification::Tier::Admin => Tier::Admin,
        specification::Tier::NetworkPolicy => Tier::NetworkPolicy,
        specification::Tier::Baseline => Tier::Baseline,
        specification::Tier::Default => Tier::Default,
    }
}

/// What the specification says of the flow's first packet; none if an end is not known to the
/// generation.
///
/// Which directions have a say is written down here once more: what the node itself sends to its
/// pod always passes (D6), a pod reaches itself, directly always and through a Service unless a tier
/// beside NetworkPolicy denies it (D7), and its node if that is exempt.
fn specified(grounds: &Grounds, world: &World, event: &Event) -> Option<Specified> {
    let key = &event.key;
    let is_local = |incarnation: Incarnation| incarnation != Incarnation::NONE;
    let to_itself = is_local(event.source) && event.source == event.destination;
    if !grounds.enforced || (to_itself && event.service.is_none()) {
        return Some(Specified::exempt());
    }
    let port = key.protocol.has_ports().then_some(key.destination_port);
    let decide = |incarnation: Incarnation, direction, peer: Address| {
        let end = attached(grounds, incarnation)?;
        let traffic = Traffic {
            peer: peer.to_ip(),
            protocol: key.protocol,
            port,
        };
        let named = world.pod(&end.namespace, &end.name);
        let decision = match named.filter(|pod| pod.uid() == end.uid) {
            Some(pod) => world.decide(pod, direction, traffic),
            // An interface whose pod nobody knows may do nothing.
            None => Decision {
                accept: false,
                ..Specified::exempt().decision
            },
        };
        Some(Specified {
            direction,
            decision: match to_itself {
                true => decision.on_the_way_to_itself(),
                false => decision,
            },
        })
    };
    let mut said = Specified::exempt();
    if is_local(event.source) && !grounds.exempt.contains(&key.destination) {
        said = decide(event.source, Direction::Egress, key.destination)?;
        if !said.decision.accept {
            return Some(said);
        }
    }
    let by_node = event.ingress_role == Role::HostNode && !is_local(event.source);
    if is_local(event.destination) && !by_node {
        said = decide(event.destination, Direction::Ingress, key.source)?;
    }
    Some(said)
}
