//! The same node as rules of the kernel's packet filter, changed by its own tools.
//!
//! Only what concerns the node's pods is there, as an agent would have it: a chain per pod, a chain
//! per policy that selects one of them, a set of addresses per policy. A change rewrites a policy's
//! chain and set. The tools are run as an agent runs them: a process per change.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use control::netlink::Namespace;

use crate::cluster_objects::Objects;
use crate::error::BenchError;

fn setup(error: impl std::fmt::Display) -> BenchError {
    BenchError::Setup(error.to_string())
}

/// A tool that changes the kernel's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// `nft -f -`.
    Nft,
    /// `iptables-restore --noflush`, in the given flavour.
    Iptables(&'static str),
}

impl Tool {
    /// All that are compared with.
    pub const ALL: [Tool; 3] = [
        Tool::Nft,
        Tool::Iptables("iptables-nft-restore"),
        Tool::Iptables("iptables-legacy-restore"),
    ];

    /// Its command line.
    pub fn command(self) -> String {
        match self {
            Tool::Nft => "nft -f -".to_owned(),
            Tool::Iptables(program) => format!("{program} --noflush"),
        }
    }
}

/// The rules of a policy: its port and the addresses that it lets in.
#[derive(Debug)]
struct Rules {
    port: u64,
    peers: Vec<String>,
}

/// A namespace with the rules in it.
#[derive(Debug)]
pub struct Filter {
    name: String,
    namespace: Namespace,
    tool: Tool,
    objects: Objects,
    /// Pods by namespace and app, for selectors.
    by_app: HashMap<(String, String), Vec<u32>>,
    /// Policies that select a pod of this node.
    pub policies: Vec<u32>,
}

impl Filter {
    /// Makes the namespace and loads the rules; none if the tool is not installed or does not work
    /// here, and why.
    pub fn start(tool: Tool, objects: &Objects) -> Result<Filter, BenchError> {
        let name = format!("weir-bench-{}-peer", std::process::id());
        let mut by_app: HashMap<(String, String), Vec<u32>> = HashMap::new();
        for pod in 0..objects.counts.pods {
            let place = (objects.pod_name(pod).0, objects.app(pod, 0));
            by_app.entry(place).or_default().push(pod);
        }
        let mut filter = Filter {
            namespace: Namespace::create(&name).map_err(setup)?,
            name,
            tool,
            objects: *objects,
            by_app,
            policies: Vec::new(),
        };
        let all = 0..objects.counts.policies;
        filter.policies = all
            .filter(|policy| objects.selects_local(*policy))
            .collect();
        let sets = filter.sets();
        if !sets.is_empty() {
            filter.run("ipset", &["restore"], &sets)?;
        }
        let rules = filter.rules();
        filter.apply(&rules)?;
        Ok(filter)
    }

    /// Changes a policy's port and peers, as [`Objects::policy`] does in that turn.
    pub fn change(&self, policy: u32, turn: u32) -> Result<Duration, BenchError> {
        let Rules { port, peers } = self.policy(policy, turn);
        let mut text = String::new();
        match self.tool {
            Tool::Nft => {
                let _ = writeln!(text, "flush chain ip weir p{policy}");
                let _ = writeln!(text, "flush set ip weir s{policy}");
                if !peers.is_empty() {
                    let peers = peers.join(", ");
                    let _ = writeln!(text, "add element ip weir s{policy} {{ {peers} }}");
                }
                let _ = writeln!(text, "add rule ip weir {}", nft_rule(policy, port));
            }
            Tool::Iptables(_) => {
                let _ = writeln!(text, "*filter\n:P{policy} - [0:0]");
                let _ = writeln!(text, "{}\nCOMMIT", iptables_rule(policy, port));
            }
        }
        let begun = Instant::now();
        self.apply(&text)?;
        Ok(begun.elapsed())
    }

    fn policy(&self, policy: u32, turn: u32) -> Rules {
        let value = self.objects.policy(policy, turn);
        let rule = &value["spec"]["ingress"][0];
        let app = &rule["from"][0]["podSelector"]["matchLabels"]["app"];
        let app = app.as_str().unwrap_or_default().to_owned();
        let team = rule["from"][1]["namespaceSelector"]["matchLabels"]["team"].as_str();
        let own = self.objects.policy_name(policy).0;
        let mut namespaces = vec![own.clone()];
        let all = 0..self.objects.namespaces();
        let of_team = all.filter_map(|number| {
            let value = self.objects.namespace(number);
            let is = team.is_some() && value["metadata"]["labels"]["team"].as_str() == team;
            let name = value["metadata"]["name"].as_str()?.to_owned();
            (is && name != own).then_some(name)
        });
        namespaces.extend(of_team);
        let pods = namespaces.into_iter().flat_map(|namespace| {
            let found = self.by_app.get(&(namespace, app.clone()));
            found.into_iter().flatten().copied()
        });
        Rules {
            port: rule["ports"][0]["port"].as_u64().unwrap_or_default(),
            peers: pods.map(|pod| self.objects.pod_address(pod)).collect(),
        }
    }

    /// The policies that select a pod of this node.
    fn selecting(&self, pod: u32) -> impl Iterator<Item = u32> {
        let (namespace, _) = self.objects.pod_name(pod);
        let app = self.objects.app(pod, 0);
        self.policies.iter().copied().filter(move |policy| {
            let value = self.objects.policy(*policy, 0);
            let selector = &value["spec"]["podSelector"]["matchLabels"]["app"];
            value["metadata"]["namespace"] == *namespace && *selector == *app
        })
    }

    /// Sets of addresses, for iptables; nft has its own.
    fn sets(&self) -> String {
        let mut text = String::new();
        if self.tool == Tool::Nft {
            return text;
        }
        for policy in &self.policies {
            let _ = writeln!(text, "create s{policy} hash:ip family inet");
            for peer in self.policy(*policy, 0).peers {
                let _ = writeln!(text, "add s{policy} {peer}");
            }
        }
        text
    }

    fn rules(&self) -> String {
        let local = 0..self.objects.counts.local;
        let mut text = String::new();
        match self.tool {
            Tool::Nft => {
                text += "table ip weir {\n";
                for policy in &self.policies {
                    let Rules { port, peers } = self.policy(*policy, 0);
                    let _ = write!(text, "set s{policy} {{ type ipv4_addr;");
                    if !peers.is_empty() {
                        let _ = write!(text, " elements = {{ {} }};", peers.join(", "));
                    }
                    let rule = nft_rule(*policy, port);
                    let rule = rule.split_once(' ').map_or("", |(_, rule)| rule);
                    let _ = writeln!(text, " }}\nchain p{policy} {{ {rule}; }}");
                }
                let mut jumps = Vec::new();
                for pod in local {
                    let _ = write!(text, "chain pod{pod} {{");
                    for policy in self.selecting(pod) {
                        let _ = write!(text, " jump p{policy};");
                    }
                    text += " drop; }\n";
                    jumps.push(format!("{} : jump pod{pod}", self.objects.pod_address(pod)));
                }
                let jumps = jumps.join(", ");
                let _ = writeln!(
                    text,
                    "chain forward {{ type filter hook forward priority 0; \
                     ct state established,related accept; ip daddr vmap {{ {jumps} }}; }}\n}}"
                );
            }
            Tool::Iptables(_) => {
                text += "*filter\n";
                for policy in &self.policies {
                    let _ = writeln!(text, ":P{policy} - [0:0]");
                }
                for pod in local.clone() {
                    let _ = writeln!(text, ":POD{pod} - [0:0]");
                }
                text += "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n";
                for pod in local.clone() {
                    let address = self.objects.pod_address(pod);
                    let _ = writeln!(text, "-A FORWARD -d {address}/32 -j POD{pod}");
                }
                for policy in &self.policies {
                    let port = self.policy(*policy, 0).port;
                    let _ = writeln!(text, "{}", iptables_rule(*policy, port));
                }
                for pod in local {
                    for policy in self.selecting(pod) {
                        let _ = writeln!(text, "-A POD{pod} -j P{policy}");
                    }
                    let _ = writeln!(text, "-A POD{pod} -j DROP");
                }
                text += "COMMIT\n";
            }
        }
        text
    }

    fn apply(&self, text: &str) -> Result<(), BenchError> {
        match self.tool {
            Tool::Nft => self.run("nft", &["-f", "-"], text),
            Tool::Iptables(program) => self.run(program, &["--noflush"], text),
        }
    }

    fn run(&self, program: &str, arguments: &[&str], input: &str) -> Result<(), BenchError> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let child = self.namespace.run(|| command.spawn()).map_err(setup)?;
        let mut child = child.map_err(|error| setup(format!("{program}: {error}")))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).map_err(setup)?;
        }
        let output = child.wait_with_output().map_err(setup)?;
        if output.status.success() {
            return Ok(());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint = complaint.lines().next().unwrap_or_default().to_owned();
        Err(setup(format!("{program}: {complaint}")))
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        let _ = Namespace::delete(&self.name);
    }
}

/// A policy's rule behind the name of its chain.
fn nft_rule(policy: u32, port: u64) -> String {
    format!("p{policy} ip saddr @s{policy} tcp dport {port} accept")
}

fn iptables_rule(policy: u32, port: u64) -> String {
    format!("-A P{policy} -p tcp -m set --match-set s{policy} src -m tcp --dport {port} -j ACCEPT")
}
