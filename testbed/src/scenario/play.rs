//! Playing a scenario in a lab that runs.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::client::{Client, ClientError};
use control::lab_protocol::{self, ContainerTarget, ExecRequest, LabError};
use control::objects::{DecodeOptions, Object, decode_documents_with};
use control::protocol::{ApplyParams, GetParams, GetReply, Mutation};
use serde_json::Value;

use super::denials::{Wanted, missing};
use super::{End, Grid, Scenario, Step};
use crate::probe::{Outcome, Probed};

/// How long a probe waits for an answer of DNS, and again for the connection. A denial is silence
/// of this length, so that a scenario's time is about its denying steps times this.
const PROBE_LIMIT: Duration = Duration::from_millis(1500);
/// How long the log may lag behind a denial.
const LOG_LIMIT: Duration = Duration::from_secs(3);

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
    /// Every promise that did not hold, in words.
    pub failures: Vec<String>,
}

/// The lab that a scenario is played in.
#[derive(Debug)]
pub struct Stage<'a> {
    /// The lab's name.
    pub lab: &'a str,
    /// The scenario's files: path to text.
    pub files: &'a BTreeMap<String, String>,
    /// This program, as pods see it.
    pub program: PathBuf,
}

/// Plays every step and writes what happens to `out`; promises that do not hold are in the report.
pub fn play(
    scenario: &Scenario,
    stage: &Stage<'_>,
    out: &mut dyn Write,
) -> Result<Report, PlayError> {
    let mut client = Client::connect(lab_protocol::control_socket(stage.lab))?;
    let pods = find_pods(scenario, &mut client)?;
    let listeners = start_listeners(scenario, stage, &pods)?;
    let mut report = Report::default();
    for (number, step) in scenario.steps.iter().enumerate() {
        writeln!(
            out,
            "\nStep {} of {}: {}",
            number + 1,
            scenario.steps.len(),
            step.title
        )?;
        let generation = apply(step, stage, &mut client, out)?;
        let measured = measure(scenario, step, stage, &pods)?;
        judge(step, &measured, number + 1, &mut report, out)?;
        let wanted = wanted_denials(scenario, step, &measured, &pods, generation);
        let log = lab_protocol::lab_dir(stage.lab).join("network-policy.log");
        let absent = missing(&log, &wanted, LOG_LIMIT);
        report.denials_logged += wanted.len() - absent.len();
        for one in &absent {
            report.failures.push(format!(
                "step {}: the log has no denial of {} to port {} by {} at generation {} or later",
                number + 1,
                one.source,
                one.port,
                one.policy,
                one.generation
            ));
        }
        if !wanted.is_empty() {
            let found = wanted.len() - absent.len();
            writeln!(
                out,
                "  denials in the log, with policy: {found} of {}",
                wanted.len()
            )?;
        }
    }
    // Ends the listeners: the agent ends a command whose client is gone.
    drop(listeners);
    Ok(report)
}

/// The pod of every end that has one: letter → (namespace, name).
fn find_pods(
    scenario: &Scenario,
    client: &mut Client,
) -> Result<HashMap<String, (String, String)>, PlayError> {
    let mut found = HashMap::new();
    for (letter, end) in &scenario.ends {
        let (Some(namespace), Some(selector)) = (&end.pods, &end.selector) else {
            continue;
        };
        let params = GetParams {
            resource: "pods".into(),
            namespace: Some(namespace.clone()),
            label_selector: Some(selector.clone()),
            ..GetParams::default()
        };
        let reply: GetReply = client.call("get", &params)?;
        let names: Vec<&str> = reply
            .items
            .iter()
            .filter_map(|pod| pod.pointer("/metadata/name").and_then(Value::as_str))
            .collect();
        let [name] = names[..] else {
            return Err(PlayError::Failed(format!(
                "end {letter}: {selector} in namespace {namespace} chooses {} pods, not one",
                names.len()
            )));
        };
        found.insert(letter.clone(), (namespace.clone(), name.to_owned()));
    }
    Ok(found)
}

/// Processes that listen where the tutorial starts one by hand; they end with the value.
struct Listener {
    child: std::process::Child,
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A child that has ended already can be neither killed nor is that a loss.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start_listeners(
    scenario: &Scenario,
    stage: &Stage<'_>,
    pods: &HashMap<String, (String, String)>,
) -> Result<Vec<Listener>, PlayError> {
    let mut listeners = Vec::new();
    for (letter, end) in &scenario.ends {
        let (true, Some(port), Some((namespace, pod))) = (end.listen, end.port, pods.get(letter))
        else {
            continue;
        };
        let weir = stage.program.with_file_name("weir");
        let child = std::process::Command::new(weir)
            .args(["exec", "--lab", stage.lab, "-n", namespace, pod, "--"])
            .arg(&stage.program)
            .args(["listen", &port.to_string()])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        let mut listener = Listener { child };
        // The first line says that it listens; its end says that it could not.
        let mut line = String::new();
        if let Some(stdout) = listener.child.stdout.take() {
            io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut line)?;
        }
        if line.is_empty() {
            return Err(PlayError::Failed(format!(
                "{namespace}/{pod} does not listen on {port}"
            )));
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Applies the step's files and gives the generation that is live afterwards.
fn apply(
    step: &Step,
    stage: &Stage<'_>,
    client: &mut Client,
    out: &mut dyn Write,
) -> Result<u64, PlayError> {
    let mut generation = 0;
    for one in &step.apply {
        let text = stage
            .files
            .get(&one.file)
            .ok_or_else(|| PlayError::Failed(format!("{} is not there", one.file)))?;
        let options = DecodeOptions {
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
        generation = mutation.generation;
    }
    Ok(generation)
}

/// Tries every cell of the step's matrix, one command a row, all rows and columns at once.
fn measure(
    scenario: &Scenario,
    step: &Step,
    stage: &Stage<'_>,
    pods: &HashMap<String, (String, String)>,
) -> Result<HashMap<(String, String), Outcome>, PlayError> {
    let mut rows: BTreeMap<&str, Vec<(&str, String)>> = BTreeMap::new();
    for cell in step.matrix.cells() {
        let target = scenario
            .ends
            .get(cell.column)
            .and_then(address)
            .unwrap_or_default();
        rows.entry(cell.row)
            .or_default()
            .push((cell.column, target));
    }
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = rows
            .iter()
            .map(|(row, targets)| {
                let targets: Vec<String> = targets.iter().map(|(_, t)| t.clone()).collect();
                (
                    *row,
                    scope.spawn(move || probe_row(stage, pods.get(*row), &targets)),
                )
            })
            .collect();
        let join = |(row, thread): (&str, std::thread::ScopedJoinHandle<'_, _>)| {
            let broke = || Err(PlayError::Failed("a probing thread broke".into()));
            (row.to_owned(), thread.join().unwrap_or_else(|_| broke()))
        };
        threads.into_iter().map(join).collect::<Vec<_>>()
    });
    let mut measured = HashMap::new();
    for (row, probed) in results {
        for ((column, _), one) in rows[row.as_str()].iter().zip(probed?) {
            measured.insert((row.clone(), (*column).to_owned()), one.outcome);
        }
    }
    Ok(measured)
}

fn address(end: &End) -> Option<String> {
    Some(format!("{}:{}", end.name.as_ref()?, end.port?))
}

fn probe_row(
    stage: &Stage<'_>,
    pod: Option<&(String, String)>,
    targets: &[String],
) -> Result<Vec<Probed>, PlayError> {
    let Some((namespace, pod)) = pod else {
        return Err(PlayError::Failed(
            "an end without a pod cannot connect".into(),
        ));
    };
    let limit = PROBE_LIMIT.as_millis().to_string();
    let mut command = vec![stage.program.display().to_string()];
    command.extend(["probe".into(), "--limit-ms".into(), limit]);
    command.extend(targets.iter().cloned());
    let request = ExecRequest {
        target: ContainerTarget {
            namespace: namespace.clone(),
            pod: pod.clone(),
            container: None,
        },
        command,
        ..ExecRequest::default()
    };
    let socket = lab_protocol::lab_socket(stage.lab);
    let (status, stdout, stderr) = lab_protocol::exec_captured(&socket, &request, &[])?;
    let probed: Vec<Probed> = String::from_utf8_lossy(&stdout)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    if status != 0 || probed.len() != targets.len() {
        let said = String::from_utf8_lossy(&stderr);
        return Err(PlayError::Failed(format!(
            "the probe in {namespace}/{pod} ended with {status}: {}",
            said.trim()
        )));
    }
    Ok(probed)
}

/// Prints the matrix, marks what is not as promised, and counts.
fn judge(
    step: &Step,
    measured: &HashMap<(String, String), Outcome>,
    number: usize,
    report: &mut Report,
    out: &mut dyn Write,
) -> Result<(), PlayError> {
    let sign = |row: &str, column: &str| {
        measured
            .get(&(row.to_owned(), column.to_owned()))
            .map_or('.', |outcome| outcome.sign())
    };
    let shown: Grid = step.matrix.map(sign);
    let mark = |row: &str, column: &str| {
        if step.matrix.at(row, column) == shown.at(row, column) {
            ' '
        } else {
            '!'
        }
    };
    for line in shown.render(mark).lines() {
        writeln!(out, "    {line}")?;
    }
    let mut wrong = 0;
    for cell in step.matrix.cells() {
        report.probes += 1;
        let got = sign(cell.row, cell.column);
        if got != cell.sign {
            wrong += 1;
            report.failures.push(format!(
                "step {number}: {} to {}: promised {}, got {got}",
                cell.row, cell.column, cell.sign
            ));
        }
    }
    let total = step.matrix.cells().count();
    writeln!(
        out,
        "  as promised: {} of {total} connections",
        total - wrong
    )?;
    Ok(())
}

/// What the log must hold for the denials that were promised and measured.
fn wanted_denials(
    scenario: &Scenario,
    step: &Step,
    measured: &HashMap<(String, String), Outcome>,
    pods: &HashMap<String, (String, String)>,
    generation: u64,
) -> Vec<Wanted> {
    let pod_name = |letter: &str| pods.get(letter).map(|(ns, name)| format!("{ns}/{name}"));
    let mut wanted = Vec::new();
    for cell in step.matrix.cells() {
        let place = (cell.row.to_owned(), cell.column.to_owned());
        let denied = matches!(
            measured.get(&place),
            Some(Outcome::TimedOut | Outcome::Unresolved)
        );
        let (Some(policy), Some(source), true) =
            (step.denying_policy(cell.column), pod_name(cell.row), denied)
        else {
            continue;
        };
        let unresolved = measured.get(&place) == Some(&Outcome::Unresolved);
        let port = scenario
            .ends
            .get(cell.column)
            .and_then(|end| end.port)
            .unwrap_or(0);
        wanted.push(Wanted {
            source,
            // A name that was not resolved was denied on its way to DNS.
            destination: if unresolved {
                None
            } else {
                pod_name(cell.column)
            },
            port: if unresolved { 53 } else { port },
            policy: policy.to_owned(),
            generation,
        });
    }
    wanted
}

/// The scenario's files that hold what the lab runs, in order.
pub fn manifests(scenario: &Scenario, files: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut chosen = Vec::new();
    for wanted in &scenario.manifests {
        let inside = |path: &str| path == wanted || Path::new(path).starts_with(wanted);
        let matching = files.iter().filter(|(path, _)| inside(path));
        chosen.extend(matching.map(|(path, text)| (path.clone(), text.clone())));
    }
    chosen
}
