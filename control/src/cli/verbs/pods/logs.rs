//! `logs`: of one container, or of several pods' together (kubectl `pkg/cmd/logs`).

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::cli::flags::{Flag, switch, value};
use crate::cli::session::{Session, VerbError};
use crate::cli::values;
use crate::cli::verbs::SELECTOR;
use crate::client::Client;
use crate::flow::{normalize_time, time_text};
use crate::lab_protocol::{self, LabError, LogsRequest};
use crate::protocol::{GetParams, GetReply};

use super::choose::{self, Purpose};
use super::exec::target;
use super::{CONTAINER, POD_RUNNING_TIMEOUT};

/// Flags of `logs`.
pub const FLAGS: &[Flag] = &[
    CONTAINER,
    SELECTOR,
    switch("follow", Some('f'), "Go on as lines come"),
    switch("previous", Some('p'), "The container's run before this one"),
    value(
        "tail",
        None,
        "Only so many lines from the end; -1 for all, the default but with -l, where it is 10",
    ),
    value("since", None, "Only lines younger than this, as 5s or 2m"),
    value(
        "since-time",
        None,
        "Only lines since this moment (RFC 3339)",
    ),
    value("limit-bytes", None, "At most so many bytes of each log"),
    switch("timestamps", None, "The time before each line"),
    switch("all-containers", None, "The logs of all containers"),
    switch("all-pods", None, "The logs of all pods, with --prefix"),
    switch("prefix", None, "Pod and container before each line"),
    switch(
        "ignore-errors",
        None,
        "Go on with the others after an error",
    ),
    value(
        "max-log-requests",
        None,
        "How many logs may be followed at once (5)",
    ),
    POD_RUNNING_TIMEOUT,
    switch("insecure-skip-tls-verify-backend", None, ""),
];

/// How long to wait for a pod of a Deployment and the like.
const POD_TIMEOUT: Duration = Duration::from_secs(20);
/// Logs that may be followed at once.
const FOLLOWED: i64 = 5;
/// Lines of each log that a selector chooses.
const SELECTED_TAIL: u64 = 10;
/// Bytes of a line that has no end yet, at most, before it is printed as it is.
const LINE_BYTES: usize = 1 << 20;

const USAGE: &str = "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or \
                     TYPE/NAME is a required argument for the logs command";

/// One container's log, and what stands before its lines.
struct Source {
    request: LogsRequest,
    prefix: String,
}

/// Runs `logs`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let (word, container) = arguments(session)?;
    let request = options(session)?;
    let limit = super::pod_timeout(&session.parsed, POD_TIMEOUT)?;
    let bytes = limit_bytes(session)?;
    let most = values::integer(&session.parsed, "max-log-requests")?.unwrap_or(FOLLOWED);
    let mut client = session.connect()?;
    let pods = pods(session, &mut client, word.as_deref(), limit)?;
    let sources = sources(session, &pods, container.as_deref(), &request)?;
    if request.follow && sources.len() > 1 && sources.len() as i64 > most {
        return Err(VerbError::Local(format!(
            "you are attempting to follow {} log streams, but maximum allowed concurrency is \
             {most}, use --max-log-requests to increase the limit",
            sources.len()
        )));
    }
    if sources.is_empty() {
        return Ok(());
    }
    let socket = session.lab_socket()?;
    let ignore = session.parsed.is_on("ignore-errors");
    let together = request.follow && sources.len() > 1;
    print(&socket, sources, bytes, ignore, together)
}

fn local(text: &str) -> VerbError {
    VerbError::Local(text.to_owned())
}

/// The word that names a pod or what stands for pods, and the container behind it or after `-c`.
fn arguments(session: &Session) -> Result<(Option<String>, Option<String>), VerbError> {
    let parsed = &session.parsed;
    let flag = parsed.value("container").filter(|name| !name.is_empty());
    let selected = parsed
        .value("selector")
        .is_some_and(|text| !text.is_empty());
    let (word, container) = match &parsed.arguments[..] {
        [] if selected => (None, flag),
        [] => return Err(VerbError::Usage(USAGE.into())),
        [_] if selected => {
            let text = "only a selector (-l) or a POD name is allowed";
            return Err(VerbError::Usage(text.into()));
        }
        [word] => (Some(word.clone()), flag),
        [_, _] if flag.is_some() => {
            return Err(local(
                "only one of -c or an inline [CONTAINER] arg is allowed",
            ));
        }
        [word, container] => (Some(word.clone()), Some(container.as_str())),
        _ => return Err(VerbError::Usage(USAGE.into())),
    };
    if let Some(name) = container
        && parsed.is_on("all-containers")
    {
        return Err(VerbError::Local(format!(
            "--all-containers=true should not be specified with container name {name}"
        )));
    }
    Ok((word, container.map(str::to_owned)))
}

/// What is the same of every log that is asked for.
fn options(session: &Session) -> Result<LogsRequest, VerbError> {
    let parsed = &session.parsed;
    let tail = match values::integer(parsed, "tail")? {
        None if parsed.value("selector").is_some() => Some(SELECTED_TAIL),
        None | Some(-1) => None,
        Some(lines) => Some(
            u64::try_from(lines)
                .map_err(|_| local("--tail must be greater than or equal to -1"))?,
        ),
    };
    let since = values::duration(parsed, "since")?.filter(|seconds| *seconds != 0.0);
    let moment = parsed.value("since-time").filter(|text| !text.is_empty());
    let since = match (since, moment) {
        (Some(_), Some(_)) => {
            let text = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            return Err(local(text));
        }
        (Some(seconds), None) => {
            let ago = Duration::try_from_secs_f64(seconds.round())
                .map_err(|_| local("--since must be greater than 0"))?;
            let begin = SystemTime::now().checked_sub(ago);
            Some(time_text(begin.unwrap_or(SystemTime::UNIX_EPOCH)))
        }
        (None, Some(text)) => Some(normalize_time(text).ok_or_else(|| {
            VerbError::Local(format!("\"{text}\" is no moment in RFC 3339's form"))
        })?),
        (None, None) => None,
    };
    Ok(LogsRequest {
        follow: parsed.is_on("follow"),
        previous: parsed.is_on("previous"),
        tail,
        since,
        timestamps: parsed.is_on("timestamps"),
        ..LogsRequest::default()
    })
}

fn limit_bytes(session: &Session) -> Result<Option<u64>, VerbError> {
    match values::integer(&session.parsed, "limit-bytes")? {
        None | Some(0) => Ok(None),
        Some(bytes) => u64::try_from(bytes)
            .map(Some)
            .map_err(|_| local("--limit-bytes must be greater than 0")),
    }
}

/// The pods whose logs are meant.
fn pods(
    session: &Session,
    client: &mut Client,
    word: Option<&str>,
    limit: Duration,
) -> Result<Vec<Value>, VerbError> {
    let namespace = super::namespace(session);
    let Some(word) = word else {
        let params = GetParams {
            resource: "pods".into(),
            namespace: Some(namespace.clone()),
            label_selector: session.parsed.value("selector").map(str::to_owned),
            ..GetParams::default()
        };
        let pods = client.call::<GetReply>("get", params)?.items;
        if pods.is_empty() {
            eprintln!("No resources found in {namespace} namespace.");
        }
        return Ok(pods);
    };
    let named =
        choose::object(client, &namespace, &[word.to_owned()]).map_err(|error| match error {
            VerbError::Client(error)
                if error.reason() == Some(crate::protocol::Reason::NotFound) =>
            {
                VerbError::Local(format!(
                    "error from server (NotFound): {error} in namespace \"{namespace}\""
                ))
            }
            other => other,
        })?;
    if session.parsed.is_on("all-pods") && named["kind"] != "Pod" {
        return choose::pods_of(client, &named, Purpose::Logs, limit);
    }
    let chosen = choose::pod(client, named, Purpose::Logs, limit)?;
    if chosen.among > 1 {
        let name = chosen.pod["metadata"]["name"].as_str().unwrap_or_default();
        eprintln!("Found {} pods, using pod/{name}", chosen.among);
    }
    Ok(vec![chosen.pod])
}

fn sources(
    session: &Session,
    pods: &[Value],
    container: Option<&str>,
    request: &LogsRequest,
) -> Result<Vec<Source>, VerbError> {
    let parsed = &session.parsed;
    let prefixed = parsed.is_on("prefix") || parsed.is_on("all-pods");
    let mut sources = Vec::new();
    for pod in pods {
        let chosen: Vec<&Value> = if parsed.is_on("all-containers") {
            let lists = ["initContainers", "containers", "ephemeralContainers"];
            let all = lists.iter().flat_map(|list| choose::containers(pod, list));
            all.collect()
        } else {
            vec![choose::container(pod, container, parsed.is_on("all-pods"))?]
        };
        for container in chosen {
            let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let name = container["name"].as_str().unwrap_or_default();
            sources.push(Source {
                request: LogsRequest {
                    target: target(pod, &container["name"]),
                    ..request.clone()
                },
                prefix: match prefixed {
                    true => format!("[pod/{pod_name}/{name}] "),
                    false => String::new(),
                },
            });
        }
    }
    Ok(sources)
}

type Output = Arc<Mutex<io::Stdout>>;

fn lock(output: &Output) -> MutexGuard<'_, io::Stdout> {
    output.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prints the logs, one after the other or as their lines come.
fn print(
    socket: &Path,
    sources: Vec<Source>,
    bytes: Option<u64>,
    ignore: bool,
    together: bool,
) -> Result<(), VerbError> {
    let output: Output = Arc::new(Mutex::new(io::stdout()));
    let one = |socket: &Path, source: &Source, output: Output| {
        let mut lines = Lines {
            output,
            prefix: source.prefix.clone(),
            partial: Vec::new(),
            left: bytes,
        };
        let outcome = lab_protocol::logs(socket, &source.request, &mut lines);
        let flushed = lines.finish().map_err(LabError::Io);
        match outcome.and(flushed) {
            Err(error) if ignore => {
                println!("error: {error}");
                Ok(())
            }
            Err(LabError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                Err(VerbError::Pipe)
            }
            // As much as was asked for is here.
            Err(_) if lines.left == Some(0) => Ok(()),
            other => Ok(other?),
        }
    };
    if !together {
        return sources
            .iter()
            .try_for_each(|source| one(socket, source, output.clone()));
    }
    let outcomes = std::thread::scope(|scope| {
        let begin = |source| {
            let output = output.clone();
            scope.spawn(move || one(socket, source, output))
        };
        let threads: Vec<_> = sources.iter().map(begin).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<(), VerbError>>| {
            let panicked = |_| Err(local("a log's thread has panicked"));
            thread.join().unwrap_or_else(panicked)
        };
        threads.into_iter().map(join).collect::<Vec<_>>()
    });
    VerbError::all(outcomes.into_iter().filter_map(Result::err).collect())
}

/// Whole lines with something before each, so that several logs do not meet within a line.
struct Lines {
    output: Output,
    prefix: String,
    partial: Vec<u8>,
    /// Bytes that may still be printed.
    left: Option<u64>,
}

impl Lines {
    fn put(&mut self, line: &[u8]) -> io::Result<()> {
        let mut line = line;
        if let Some(left) = &mut self.left {
            line = &line[..line.len().min(*left as usize)];
            *left -= line.len() as u64;
        }
        if !line.is_empty() {
            let mut output = lock(&self.output);
            output.write_all(self.prefix.as_bytes())?;
            output.write_all(line)?;
            output.flush()?;
        }
        match self.left {
            Some(0) => Err(io::Error::other("as many bytes as wanted")),
            _ => Ok(()),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.partial);
        if rest.is_empty() {
            Ok(())
        } else {
            self.put(&rest)
        }
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.partial.extend_from_slice(bytes);
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let rest = self.partial.split_off(end + 1);
            let line = std::mem::replace(&mut self.partial, rest);
            self.put(&line)?;
        }
        // A log of one container need not wait for a line's end.
        if self.prefix.is_empty() || self.partial.len() > LINE_BYTES {
            self.finish()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
