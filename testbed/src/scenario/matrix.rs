//! A step's matrix: every connection tried for real, held against the promise, and every denial
//! looked for in the log.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write};
use std::time::Duration;

use control::client::Client;
use control::lab_protocol::{self, ContainerTarget, ExecRequest};
use control::protocol::{GetParams, GetReply};
use serde_json::Value;

use super::denials::Wanted;
use super::play::{PlayError, Report, Stage};
use super::{End, Grid, Scenario, Step};
use crate::probe::{Outcome, Probed};

/// How long a probe waits for an answer of DNS, and again for the connection. A denial is silence
/// of this length, so that a scenario's time is about its denying steps times this.
const PROBE_LIMIT: Duration = Duration::from_millis(1500);

/// Pods by the letters of the ends that have them: namespace and name.
pub type Pods = HashMap<String, (String, String)>;

/// The pods of the ends that have one now.
pub fn find_pods(scenario: &Scenario, client: &mut Client) -> Result<Pods, PlayError> {
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
            if names.is_empty() {
                continue;
            }
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

/// The listeners that run, by end and pod.
#[derive(Default)]
pub struct Listeners {
    running: HashMap<(String, (String, String)), Listener>,
}

impl Listeners {
    /// Starts those of the promise's ends that are not running in their present pods.
    pub fn start(
        &mut self,
        scenario: &Scenario,
        promise: &Grid,
        stage: &Stage<'_>,
        pods: &Pods,
    ) -> Result<(), PlayError> {
        let columns = promise.columns.iter().collect::<HashSet<_>>();
        for (letter, end) in &scenario.ends {
            let (true, Some(port), Some(pod)) = (end.listen, end.port, pods.get(letter)) else {
                continue;
            };
            let key = (letter.clone(), pod.clone());
            if columns.contains(letter) && !self.running.contains_key(&key) {
                self.running.insert(key, listen(stage, pod, port)?);
            }
        }
        Ok(())
    }
}

fn listen(
    stage: &Stage<'_>,
    (namespace, pod): &(String, String),
    port: u16,
) -> Result<Listener, PlayError> {
    let weir = stage.program.with_file_name("weir");
    let child = std::process::Command::new(weir)
        .args(["exec", "--lab", &stage.lab.name, "-n", namespace, pod, "--"])
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
    Ok(listener)
}

/// The ends of the promise that have no pod now although they should.
pub fn absent<'a>(scenario: &Scenario, promise: &'a Grid, pods: &Pods) -> Vec<&'a str> {
    let rows = promise.rows.iter().map(|(row, _)| row);
    let outside = |letter: &String| {
        let end = scenario.ends.get(letter);
        end.is_some_and(|end| end.pods.is_none())
    };
    let mut absent: Vec<&str> = rows
        .chain(&promise.columns)
        .filter(|letter| !pods.contains_key(*letter) && !outside(letter))
        .map(String::as_str)
        .collect();
    absent.sort_unstable();
    absent.dedup();
    absent
}

/// Tries every cell of the promise, one command a row, all rows and columns at once.
pub fn measure(
    scenario: &Scenario,
    promise: &Grid,
    stage: &Stage<'_>,
    pods: &Pods,
) -> Result<HashMap<(String, String), Outcome>, PlayError> {
    let mut rows: BTreeMap<&str, Vec<(&str, String)>> = BTreeMap::new();
    for cell in promise.cells() {
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
        return Err(PlayError::Failed("an end of the matrix has no pod".into()));
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
    let socket = lab_protocol::lab_socket(&stage.lab.name);
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

/// Prints the matrix, marks what is not as promised, counts, and gives what was measured.
pub fn judge(
    promise: &Grid,
    measured: &HashMap<(String, String), Outcome>,
    number: usize,
    report: &mut Report,
    out: &mut dyn Write,
) -> Result<Grid, PlayError> {
    let sign = |row: &str, column: &str| {
        measured
            .get(&(row.to_owned(), column.to_owned()))
            .map_or('.', |outcome| outcome.sign())
    };
    let shown: Grid = promise.map(sign);
    let mark = |row: &str, column: &str| {
        if promise.at(row, column) == shown.at(row, column) {
            ' '
        } else {
            '!'
        }
    };
    for line in shown.render(mark).lines() {
        writeln!(out, "    {line}")?;
    }
    let mut wrong = 0;
    for cell in promise.cells() {
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
    let total = promise.cells().count();
    writeln!(
        out,
        "  as promised: {} of {total} connections",
        total - wrong
    )?;
    Ok(shown)
}

/// What the log must hold for the denials that were promised and measured.
pub fn wanted_denials(
    scenario: &Scenario,
    step: &Step,
    measured: &HashMap<(String, String), Outcome>,
    pods: &Pods,
    generation: u64,
) -> Vec<Wanted> {
    let pod_name = |letter: &str| pods.get(letter).map(|(ns, name)| format!("{ns}/{name}"));
    let mut wanted = Vec::new();
    for cell in step.matrix.iter().flat_map(Grid::cells) {
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
            .and_then(|end| end.target_port.or(end.port))
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
