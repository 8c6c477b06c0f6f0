//! Stands in for `calico/star-probe` and `calico/star-collect`, the stars demo.
//!
//! A probe asks its targets again and again and serves who answered at `/status`. The collector
//! asks every probe for that, serves what it got at `/responses`, and draws it at `/`. Both look
//! once a second where the originals take five, so that a page shows a policy's change soon.
//! Bounds: [`TARGETS`] targets; an answer that takes longer than [`LIMIT`] is none.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::run;
use crate::images::http::client;
use crate::images::http::server::{Answer, Request, Response};
use crate::images::options::{Argument, Syntax};

/// Targets of a probe, and probes of a collector.
const TARGETS: usize = 64;
/// How long a target may take to answer.
const LIMIT: Duration = Duration::from_secs(1);
/// Seconds between two looks, where the command line does not say.
const PAUSE_S: u64 = 1;

const PAGE: &str = include_str!("star.html");

/// The probes that the collector's image knows: those of the demo's manifests.
const RESOURCES: [(&str, &str); 3] = [
    ("B", "http://backend.stars:6379/status"),
    ("F", "http://frontend.stars:80/status"),
    ("C", "http://client.client:9000/status"),
];

const SYNTAX: Syntax = Syntax {
    short: "",
    long: &[
        ("http-address", true, 'a'),
        ("http-port", true, 'p'),
        ("http-probe-seconds", true, 's'),
        ("http-request-seconds", true, 's'),
        ("urls", true, 'u'),
        ("resources-file", true, 'r'),
        ("logfile", true, 'l'),
    ],
};

/// A target, and what it said last.
#[derive(Clone, Debug)]
struct Target {
    id: String,
    url: String,
    /// Status and JSON.
    answer: Option<(u16, Value)>,
}

type Targets = Arc<Mutex<Vec<Target>>>;

struct Plan {
    port: u16,
    pause: Duration,
    targets: Vec<Target>,
}

fn target(id: &str, url: &str) -> Target {
    Target {
        id: id.to_owned(),
        url: url.to_owned(),
        answer: None,
    }
}

impl Plan {
    fn read(arguments: &[String], port: u16, targets: Vec<Target>) -> Result<Plan, String> {
        let mut plan = Plan {
            port,
            pause: Duration::from_secs(PAUSE_S),
            targets,
        };
        for argument in SYNTAX.read(arguments)? {
            let Argument::Option(letter, Some(value)) = argument else {
                return Err("operands are not taken".into());
            };
            let number = || value.parse().map_err(|_| format!("{value} is no number"));
            match letter {
                'p' => plan.port = value.parse().map_err(|_| format!("{value} is no port"))?,
                's' => plan.pause = Duration::from_secs(number()?),
                'u' => {
                    let urls = value.split(',').filter(|url| !url.is_empty());
                    plan.targets = urls.map(|url| target(url, url)).collect();
                }
                'r' => plan.targets = read_resources(&value)?,
                // It listens on every address, and its log is its output.
                _ => {}
            }
        }
        match plan.targets.len() {
            count if count > TARGETS => Err(format!("{count} targets are more than {TARGETS}")),
            _ => Ok(plan),
        }
    }
}

fn read_resources(path: &str) -> Result<Vec<Target>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let list: Vec<Value> =
        serde_json::from_str(&text).map_err(|error| format!("{path}: {error}"))?;
    list.iter()
        .map(|entry| resource(entry).ok_or_else(|| format!("{path}: a resource needs id and url")))
        .collect()
}

fn resource(entry: &Value) -> Option<Target> {
    Some(target(entry["id"].as_str()?, entry["url"].as_str()?))
}

/// Runs as `probe`.
pub fn probe(arguments: &[String]) -> u8 {
    start(
        "probe",
        Plan::read(arguments, 9000, Vec::new()),
        |targets| Arc::new(move |request| probe_answer(request, &targets)),
    )
}

/// Runs as `collect`.
pub fn collect(arguments: &[String]) -> u8 {
    let known = RESOURCES.map(|(id, url)| target(id, url)).to_vec();
    start("collect", Plan::read(arguments, 9001, known), |targets| {
        Arc::new(move |request| collect_answer(request, &targets))
    })
}

fn start(name: &str, plan: Result<Plan, String>, answer: impl Fn(Targets) -> Answer) -> u8 {
    let plan = match plan {
        Ok(plan) => plan,
        Err(wrong) => {
            eprintln!("{name}: {wrong}");
            return 1;
        }
    };
    for target in &plan.targets {
        println!("{name}: target {}", target.url);
    }
    let targets = Arc::new(Mutex::new(plan.targets));
    let watched = targets.clone();
    std::thread::spawn(move || watch(&watched, plan.pause));
    run(name, plan.port, &answer(targets))
}

fn lock(targets: &Targets) -> std::sync::MutexGuard<'_, Vec<Target>> {
    targets.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks every target, all at once, for good.
fn watch(targets: &Targets, pause: Duration) {
    loop {
        let begun = Instant::now();
        look(targets);
        std::thread::sleep(pause.saturating_sub(begun.elapsed()));
    }
}

fn look(targets: &Targets) {
    let urls: Vec<String> = lock(targets)
        .iter()
        .map(|target| target.url.clone())
        .collect();
    std::thread::scope(|scope| {
        for url in &urls {
            scope.spawn(move || {
                let answer = client::get(url, LIMIT).ok().and_then(|answer| {
                    let json = serde_json::from_slice(&answer.body).ok()?;
                    Some((answer.status, json))
                });
                // Removed or added meanwhile: found by what it is.
                for target in lock(targets).iter_mut().filter(|target| target.url == *url) {
                    if target.answer.is_some() != answer.is_some() {
                        let word = if answer.is_some() {
                            "reached"
                        } else {
                            "not reached"
                        };
                        println!("{word}: {url}");
                    }
                    target.answer.clone_from(&answer);
                }
            });
        }
    });
}

fn probe_answer(request: &Request, targets: &Targets) -> Response {
    if (request.method.as_str(), request.path()) != ("GET", "/status") {
        return Response::default_with(404);
    }
    let found = lock(targets);
    let list = found.iter().map(|target| {
        let reachable = matches!(target.answer, Some((200, _)));
        json!({"url": target.url, "reachable": reachable})
    });
    Response::json(
        200,
        &json!({"status": {"targets": list.collect::<Vec<_>>()}}),
    )
}

fn collect_answer(request: &Request, targets: &Targets) -> Response {
    match (request.method.as_str(), request.path()) {
        ("GET", "/") => Response::new(200, "text/html; charset=utf-8", PAGE),
        ("GET", "/resources") => {
            let found = lock(targets);
            let list = found
                .iter()
                .map(|target| json!({"id": target.id, "url": target.url}));
            Response::json(200, &json!({"resources": list.collect::<Vec<_>>()}))
        }
        ("POST", "/resources") => {
            let entry: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let Some(added) = resource(&entry) else {
                return Response::text(400, "a resource needs id and url\n");
            };
            let mut found = lock(targets);
            found.retain(|target| target.id != added.id);
            if found.len() >= TARGETS {
                return Response::text(400, format!("there are {TARGETS} resources already\n"));
            }
            let shown = json!({"id": added.id, "url": added.url});
            found.push(added);
            Response::json(200, &shown)
        }
        ("GET", "/responses") => {
            let mut responses = serde_json::Map::new();
            for target in lock(targets).iter() {
                let response = target.answer.as_ref().map(
                    |(status, json)| json!({"url": target.url, "statusCode": status, "json": json}),
                );
                responses.insert(target.id.clone(), json!(response));
            }
            Response::json(200, &json!({"responses": responses}))
        }
        _ => Response::default_with(404),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::images::http::server::{serve, tests::served};

    #[test]
    fn command_lines_of_the_manifests_are_understood() {
        let words: Vec<String> = [
            "--http-port=6379",
            "--urls=http://a:80/status,http://b/status,",
        ]
        .map(str::to_owned)
        .to_vec();
        let plan = Plan::read(&words, 9000, Vec::new()).unwrap();
        assert_eq!(plan.port, 6379);
        assert_eq!(plan.targets.len(), 2);
        let wrong = |word: &str| Plan::read(&[word.to_owned()], 9000, Vec::new()).is_err();
        assert!(wrong("--http-port=x") && wrong("x") && wrong("--none=1"));
    }

    #[test]
    fn who_does_not_answer_is_not_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/status", listener.local_addr().unwrap());
        let dead = TcpListener::bind("127.0.0.1:0").unwrap();
        let dead_url = format!("http://{}/status", dead.local_addr().unwrap());
        drop(dead);
        let own: Targets = Arc::default();
        let answer: Answer = Arc::new(move |request| probe_answer(request, &own));
        std::thread::spawn(move || serve(&listener, &answer));
        let targets = Arc::new(Mutex::new(vec![target("F", &url), target("B", &dead_url)]));
        look(&targets);
        let shown = targets.clone();
        let text = served(
            Arc::new(move |request| probe_answer(request, &shown)),
            b"GET /status HTTP/1.0\r\n\r\n",
        );
        let body: Value = serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        let expected = json!({"status": {"targets": [
            {"url": url, "reachable": true}, {"url": dead_url, "reachable": false},
        ]}});
        assert_eq!(body, expected);
        let collector: Answer = Arc::new(move |request| collect_answer(request, &targets));
        let text = served(collector.clone(), b"GET /responses HTTP/1.0\r\n\r\n");
        let body: Value = serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(body["responses"]["B"], Value::Null);
        assert_eq!(
            body["responses"]["F"]["json"],
            json!({"status": {"targets": []}})
        );
        let text = served(collector, b"GET / HTTP/1.0\r\n\r\n");
        assert!(
            text.contains("text/html") && !text.contains("https://"),
            "{text}"
        );
    }
}
