//! The files of `testbed/cases` on real packets: what is allowed must connect, what is denied must
//! be met with silence, and must have connected before the policies of its case came. Of connections
//! to Services the daemon's `trace` must say what the packets do.

mod prober;
mod raw;
mod world;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use control::policy_test::model::{Expect, PolicyTest, Step};
use control::policy_test::{Flow, Flows, LoadOptions, Scene, load};

use serde_json::Value;

use self::prober::Seen;
use self::world::World;
use crate::lab::needs;
use crate::{Outcome, Test};

pub const TESTS: &[Test] = &[
    ("cases_of_networkpolicy", || play("networkpolicy")),
    ("cases_of_bugs", || play("bugs")),
    ("cases_of_updates", || play("updates")),
    ("cases_of_tiers", || play("tiers")),
    ("cases_of_security_groups", || play("security-groups")),
    ("cases_of_services", || play("services")),
    ("cases_of_upstream_kubernetes", || {
        play("upstream/kubernetes-e2e")?;
        play("upstream/kubernetes-docs")?;
        play("upstream/tutorials")
    }),
    ("cases_of_upstream_conformance", || {
        play("upstream/conformance")
    }),
    ("cases_of_upstream_cyclonus", || play("upstream/cyclonus")),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}

/// Every case below a folder, with the shared objects of its file left out: no file has any.
fn tests(below: &str) -> Vec<PolicyTest> {
    let mut paths = Vec::new();
    let mut folders = vec![folder().join(below)];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(extension) if extension == "yaml" => paths.push(path),
                _ => {}
            }
        }
    }
    paths.sort();
    let mut tests = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(folder()).unwrap().display().to_string();
        let parent = path.parent().unwrap();
        let file = load(&name, &text, parent, &LoadOptions::default());
        let file = file.unwrap_or_else(|error| panic!("{error}"));
        assert!(file.objects.is_empty(), "{name}: objects beside its cases");
        tests.extend(file.tests);
    }
    tests
}

/// Plays every case below a folder in one lab.
fn play(below: &str) -> Outcome {
    needs(&[])?;
    let begin = Instant::now();
    let filter = std::env::var("WEIR_CASE").unwrap_or_default();
    let tests = tests(below);
    let mut world = World::up();
    let mut playing = Playing::default();
    for test in tests.iter().filter(|test| test.name.contains(&filter)) {
        if let Some(reason) = &test.skip.packets {
            playing.skipped += 1;
            println!("  {}: {}: skipped: {reason}", test.file, test.name);
            continue;
        }
        playing.cases += 1;
        if let Err(message) = playing.test(&mut world, test) {
            let line = test.line.unwrap_or_default();
            playing
                .wrong
                .push(format!("{}:{line}: {}: {message}", test.file, test.name));
        }
    }
    let mismatches = world.mismatches().unwrap();
    let Playing {
        cases,
        skipped,
        connections,
        unproven,
        wrong,
        ..
    } = playing;
    println!(
        "  {below}: {cases} cases, {skipped} skipped, {connections} connections ({unproven} denials of \
         pods that came with a step), {:.1} s",
        begin.elapsed().as_secs_f32()
    );
    assert_eq!(mismatches, 0, "flows that the self-check decides otherwise");
    let shown = wrong.len().min(60);
    assert!(
        wrong.is_empty(),
        "{} lines do not hold on packets:\n{}",
        wrong.len(),
        wrong[..shown].join("\n")
    );
    Ok(())
}

#[derive(Default)]
struct Playing {
    cases: usize,
    skipped: usize,
    connections: usize,
    /// Denials of connections that were not seen to succeed without policy: one end came later.
    unproven: usize,
    wrong: Vec<String>,
}

impl Playing {
    fn test(&mut self, world: &mut World, test: &PolicyTest) -> Result<(), String> {
        let mut scene = Scene::new(&[], test).map_err(|error| error.to_string())?;
        world.settle(test)?;
        self.without_policy(world, &scene, test)?;
        world.enforce(test)?;
        self.judge(world, &scene, test, "at first", &test.expect)?;
        let mut last = &test.expect;
        for (index, step) in test.steps.iter().enumerate() {
            let name = match &step.name {
                Some(name) => name.clone(),
                None => format!("step {}", index + 1),
            };
            if step.skip.packets.is_some() {
                continue;
            }
            let changed = scene.change(step);
            if step.refused.is_none() {
                changed.map_err(|error| format!("{name}: {error}"))?;
            }
            world
                .change(step)
                .map_err(|error| format!("{name}: {error}"))?;
            if !step.expect.is_empty() || step.refused.is_none() {
                last = &step.expect;
            }
            self.judge(world, &scene, test, &name, last)?;
        }
        Ok(())
    }

    /// Everything that the case will deny connects, as long as there is no policy. Lines of steps
    /// whose pods are not there yet say nothing now.
    fn without_policy(
        &mut self,
        world: &mut World,
        scene: &Scene,
        test: &PolicyTest,
    ) -> Result<(), String> {
        let steps = test.steps.iter();
        let lines = steps.filter(|step| step.skip.packets.is_none());
        let lines = lines
            .flat_map(|step: &Step| &step.expect)
            .chain(&test.expect);
        let denials = lines.filter(|line| !line.allow && line.skip.packets.is_none());
        let mut flows: Vec<Flow> = Vec::new();
        for line in denials {
            match Flows::expand(scene.view(), std::slice::from_ref(line)) {
                Ok(expanded) => {
                    // Where nobody is nothing connects, whatever the policies.
                    let served = expanded.flows.iter().filter(|f| f.unserved.is_none());
                    for flow in served.filter(|flow| flow.service.is_some()) {
                        world.trace(&expanded, flow)?;
                    }
                    let served = expanded.flows.iter().filter(|f| f.unserved.is_none());
                    flows.extend(served);
                }
                Err(_) => self.unproven += 1,
            }
        }
        for (flow, seen) in world.probe_without_policy(&flows)? {
            self.connections += 1;
            if seen != Seen::Connected {
                self.wrong.push(format!(
                    "{}: {}: {}: without any policy it must connect, but {seen:?}",
                    test.file,
                    test.name,
                    describe(&flow)
                ));
            }
        }
        Ok(())
    }

    fn judge(
        &mut self,
        world: &mut World,
        scene: &Scene,
        test: &PolicyTest,
        step: &str,
        lines: &[Expect],
    ) -> Result<(), String> {
        let expanded = Flows::expand(scene.view(), lines).map_err(|error| error.to_string())?;
        let asked: Vec<(Flow, bool)> = expanded
            .flows
            .iter()
            .filter(|flow| lines[flow.line].skip.packets.is_none())
            .map(|flow| (*flow, lines[flow.line].allow))
            .collect();
        let mut traced = Vec::new();
        for (flow, _) in &asked {
            traced.push(match flow.service {
                Some(_) => Some(world.trace(&expanded, flow)?),
                None => None,
            });
        }
        let seen = world.probe(&asked)?;
        for (((flow, allow), trace), seen) in asked.iter().zip(traced).zip(seen) {
            self.connections += 1;
            let promised = trace.map(|trace| promise(&expanded, flow, &trace));
            let expected = match (allow, &promised) {
                (true, _) => Seen::Connected,
                // Who is refused is denied, too: which of the two is for `trace` to say.
                (false, Some(Seen::Refused)) if flow.unserved.is_some() => Seen::Refused,
                (false, _) => Seen::Silence,
            };
            let agreed = promised.is_none_or(|promised| promised == seen);
            if seen != expected || !agreed {
                let line = lines[flow.line].line.unwrap_or_default();
                let trace = if agreed { "" } else { ", against trace" };
                self.wrong.push(format!(
                    "{}:{line}: {}: {step}: {}: expected {expected:?}, seen {seen:?}{trace}",
                    test.file,
                    test.name,
                    describe(flow)
                ));
            }
        }
        Ok(())
    }
}

/// What the daemon's `trace` says that the packets of a connection to a Service will see.
fn promise(flows: &Flows, flow: &Flow, trace: &Value) -> Seen {
    match trace["withoutBackend"].as_str() {
        Some("reset" | "unreachable") => return Seen::Refused,
        Some(_) => return Seen::Silence,
        None => {}
    }
    let to = flows.ends.get(flow.to).name.as_str();
    let backends = trace["backends"].as_array().into_iter().flatten();
    let mut of_it = backends.filter(|backend| backend["to"] == to);
    match of_it.all(|backend| backend["verdict"] == "allow") {
        true => Seen::Connected,
        false => Seen::Silence,
    }
}

fn describe(flow: &Flow) -> String {
    let port = flow.port.map_or(String::new(), |port| format!(" {port}"));
    let protocol = flow.transport.name();
    let by = flow.service.map_or(String::new(), |(address, port)| {
        format!(" by {}", SocketAddr::new(address, port))
    });
    let (source, destination) = (flow.source, flow.destination);
    format!("{source} -> {destination} {protocol}{port}{by}")
}
