//! Playing a scenario in a lab that runs.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::client::{Client, ClientError};
use control::lab_protocol::{self, LabError};
use control::objects::{DecodeOptions, Definitions, Object, decode_documents_with};
use control::protocol::{ApplyParams, GetParams, GetReply, Mutation, ResourcesReply, Status};
use serde_json::{Value, json};

use super::denials::missing;
use super::matrix::{self, Listeners};
use super::replay::Replay;
use super::{Grid, Scenario, Step};
use crate::lab::{self, Lab};
use crate::tutorial::Tutorial;
use crate::tutorial::terminal::Surroundings;

/// How long the log may lag behind a denial.
const LOG_LIMIT: Duration = Duration::from_secs(3);
/// How long pods may take to be ready before a matrix is measured.
const SETTLED_LIMIT: Duration = Duration::from_secs(60);
/// What decides about packets: a step that changes any of it promises a matrix.
const POLICIES: &[&str] = &[
    "networkpolicies",
    "clusternetworkpolicies",
    "adminnetworkpolicies",
    "baselineadminnetworkpolicies",
    "securitygrouppolicies",
    "securitygroups",
];

/// Why a scenario could not be played to its end.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// The daemon refused or went away.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The agent refused or went away.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// Writing what happens, or reading a file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A manifest is wrong, a pod is missing, a probe did not run.
    #[error("{0}")]
    Failed(String),
}

/// What a play showed.
#[derive(Debug, Default)]
pub struct Report {
    /// Connections tried.
    pub probes: usize,
    /// Denials that were found in the log with their policy and generation.
    pub denials_logged: usize,
    /// Commands typed.
    pub commands: usize,
    /// Outputs of the tutorial that were held against ours.
    pub compared: usize,
    /// Every promise that did not hold, in words.
    pub failures: Vec<String>,
}

/// The lab that a scenario is played in.
#[derive(Debug)]
pub struct Stage<'a> {
    /// The lab.
    pub lab: &'a Lab,
    /// The scenario's files: path to text.
    pub files: &'a BTreeMap<String, String>,
    /// This program, as pods see it.
    pub program: PathBuf,
    /// The tutorial whose commands are typed.
    pub tutorial: Option<&'a Tutorial>,
    /// Where its commands are typed.
    pub surroundings: Surroundings,
}

/// Plays every step and writes what happens to `out`; promises that do not hold are in the report.
pub fn play(
    scenario: &Scenario,
    stage: &Stage<'_>,
    out: &mut dyn Write,
) -> Result<Report, PlayError> {
    let mut client = Client::connect(lab_protocol::control_socket(&stage.lab.name))?;
    let surroundings = stage.surroundings.clone();
    let mut replay = Replay::new(stage.lab, scenario, stage.tutorial, surroundings);
    let mut listeners = Listeners::default();
    let mut report = Report::default();
    let mut last_seen: Option<Grid> = None;
    for (index, step) in scenario.steps.iter().enumerate() {
        let (number, steps) = (index + 1, scenario.steps.len());
        writeln!(out, "\nStep {number} of {steps}: {}", step.title)?;
        let before = policies(&mut client)?;
        let applied = apply(step, stage, &mut client, out)?;
        for typed in &step.play {
            replay.play(typed, out)?;
            let failures = replay.failures.drain(..);
            report
                .failures
                .extend(failures.map(|text| format!("step {number}: {text}")));
        }
        let changed = policies(&mut client)? != before;
        let Some(promise) = &step.matrix else {
            let gone = matrix::find_pods(scenario, &mut client)?.is_empty();
            if changed && !gone {
                let what = "changes policies, but promises no matrix";
                report.failures.push(format!("step {number}: {what}"));
            }
            continue;
        };
        if changed {
            match &last_seen {
                Some(grid) => show_grid(grid, "before:", out)?,
                None => {
                    let what = "changes policies before any matrix was measured";
                    report.failures.push(format!("step {number}: {what}"));
                }
            }
        }
        lab::wait_settled(stage.lab, SETTLED_LIMIT);
        let generation = match applied {
            Some(generation) => generation,
            None => {
                client
                    .call::<Status>("status", serde_json::json!({}))?
                    .generation
            }
        };
        let pods = matrix::find_pods(scenario, &mut client)?;
        let absent = matrix::absent(scenario, promise, &pods);
        if !absent.is_empty() {
            let what = format!("no pod is there for {}", absent.join(", "));
            report.failures.push(format!("step {number}: {what}"));
            continue;
        }
        listeners.start(scenario, promise, stage, &pods)?;
        let measured = matrix::measure(scenario, promise, stage, &pods)?;
        if changed {
            writeln!(out, "  after:")?;
        }
        last_seen = Some(matrix::judge(promise, &measured, number, &mut report, out)?);
        let wanted = matrix::wanted_denials(scenario, step, &measured, &pods, generation);
        let log = lab_protocol::lab_dir(&stage.lab.name).join("network-policy.log");
        let absent = missing(&log, &wanted, LOG_LIMIT);
        report.denials_logged += wanted.len() - absent.len();
        for one in &absent {
            report.failures.push(format!(
                "step {number}: the log has no denial of {} to port {} by {} at generation {} or \
                 later",
                one.source, one.port, one.policy, one.generation
            ));
        }
        if !wanted.is_empty() {
            let found = wanted.len() - absent.len();
            let total = wanted.len();
            writeln!(out, "  denials in the log, with policy: {found} of {total}")?;
        }
    }
    report.commands = replay.commands;
    report.compared = replay.compared;
    report.denials_logged += replay.denials_logged;
    Ok(report)
}

fn show_grid(grid: &Grid, title: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "  {title}")?;
    for line in grid.render(|_, _| ' ').lines() {
        writeln!(out, "    {line}")?;
    }
    Ok(())
}

/// Every policy there is, without what only counts or tells.
fn policies(client: &mut Client) -> Result<Vec<(Value, Value)>, PlayError> {
    let mut all = Vec::new();
    for resource in POLICIES {
        let params = GetParams {
            resource: (*resource).into(),
            all_namespaces: true,
            ..GetParams::default()
        };
        let reply: GetReply = client.call("get", &params)?;
        let named = |item: &Value| (item["metadata"]["uid"].clone(), item["spec"].clone());
        all.extend(reply.items.iter().map(named));
    }
    Ok(all)
}

/// Applies the step's files and gives the generation that is live afterwards; none without files.
fn apply(
    step: &Step,
    stage: &Stage<'_>,
    client: &mut Client,
    out: &mut dyn Write,
) -> Result<Option<u64>, PlayError> {
    let mut generation = None;
    for one in &step.apply {
        let text = stage
            .files
            .get(&one.file)
            .ok_or_else(|| PlayError::Failed(format!("{} is not there", one.file)))?;
        let reply: ResourcesReply = client.call("resources", json!({}))?;
        let options = DecodeOptions {
            definitions: Definitions::told(&reply.resources),
            namespace: one.namespace.as_deref(),
            ..DecodeOptions::default()
        };
        let objects = decode_documents_with(text, &one.file, &options)
            .map_err(|error| PlayError::Failed(error.to_string()))?
            .objects;
        let params = ApplyParams {
            objects: objects.iter().map(Object::to_value).collect(),
            namespace: one.namespace.clone(),
            ..ApplyParams::default()
        };
        let mutation: Mutation = client.call("apply", &params)?;
        let namespace = one
            .namespace
            .as_ref()
            .map(|n| format!(" -n {n}"))
            .unwrap_or_default();
        writeln!(
            out,
            "  apply -f {}{namespace}: {}",
            one.file,
            mutation.summary()
        )?;
        generation = Some(mutation.generation);
    }
    Ok(generation)
}

/// The files that these paths of files and folders choose, in order.
pub fn chosen(paths: &[String], files: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut chosen = Vec::new();
    for wanted in paths {
        let inside = |path: &str| path == wanted || Path::new(path).starts_with(wanted);
        let matching = files.iter().filter(|(path, _)| inside(path));
        chosen.extend(matching.map(|(path, text)| (path.clone(), text.clone())));
    }
    chosen
}
