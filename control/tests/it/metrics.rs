//! What stands around the metrics: the dashboard and the alerts, whose names must be the exporter's.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::flows::parse;
use crate::store::{Scene, deny, pod};

fn deployed(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("config/deploy").join(name)
}

/// The exposition of a daemon that has seen something of everything.
fn exposition() -> String {
    let mut scene = Scene::new("deployed");
    scene.must("apply", json!({"objects": [pod("a"), deny("d")]}));
    scene.add("a", "u1", "10.0.0.2").unwrap();
    let worker = control::daemon::plane::WorkerState {
        alive: true,
        ..Default::default()
    };
    scene.memory.borrow_mut().workers = vec![worker];
    // Rules that nobody has read yet have no samples.
    scene.must("hits", json!({}));
    let reply = scene.must("metrics", json!({}));
    reply["text"].as_str().unwrap().to_owned()
}

/// The labels that each series has, by its name.
fn labels(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for series in parse(text).keys() {
        let (name, rest) = series.split_once('{').unwrap_or((series, ""));
        let own = known.entry(name.to_owned()).or_default();
        let pairs = rest.trim_end_matches('}').split("\",");
        own.extend(pairs.filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())));
    }
    for line in text.lines() {
        // Families that have no sample at present are known all the same.
        if let Some(name) = line.strip_prefix("# TYPE ") {
            known
                .entry(name.split(' ').next().unwrap().to_owned())
                .or_default();
        }
    }
    known
}

/// The metrics that an expression names, each with the labels that its matchers name.
fn selectors(expression: &str) -> Vec<(String, Vec<String>)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find("weir_") {
        let begins = !rest[..at].ends_with(is_part);
        let behind = &rest[at..];
        let end = behind.find(|c| !is_part(c)).unwrap_or(behind.len());
        let (name, after) = behind.split_at(end);
        let mut matchers = Vec::new();
        if let Some(inside) = after.strip_prefix('{') {
            let inside = inside.split('}').next().unwrap();
            let names = inside
                .split(',')
                .filter_map(|one| one.split(['=', '!']).next());
            matchers.extend(names.map(str::to_owned));
        }
        if begins {
            found.push((name.to_owned(), matchers));
        }
        rest = after;
    }
    found
}

/// Labels that Prometheus adds to every series.
const ADDED: [&str; 2] = ["instance", "job"];

fn hold(what: &str, expressions: &[String], least: usize) {
    assert!(expressions.len() >= least, "{what}: {}", expressions.len());
    let known = labels(&exposition());
    for expression in expressions {
        let used = selectors(expression);
        assert!(
            !used.is_empty(),
            "{what}: {expression} is about nothing of ours"
        );
        for (name, matchers) in used {
            let Some(own) = known.get(&name) else {
                panic!("{what}: {expression}: there is no metric {name}");
            };
            for label in matchers
                .iter()
                .filter(|label| !ADDED.contains(&label.as_str()))
            {
                assert!(
                    own.contains(label),
                    "{what}: {expression}: {name} has no {label}"
                );
            }
        }
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let text = std::fs::read_to_string(deployed("grafana-weir.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut expressions = Vec::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let place = &panel["gridPos"];
        let right = place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap();
        assert!(right <= 24, "{panel}");
        for target in panel["targets"].as_array().into_iter().flatten() {
            expressions.push(target["expr"].as_str().unwrap().to_owned());
        }
    }
    hold("grafana-weir.json", &expressions, 30);
}

#[test]
fn the_alerts_ask_for_metrics_that_there_are() {
    let text = std::fs::read_to_string(deployed("prometheus-rules.yaml")).unwrap();
    let rules: Value = serde_yaml_ng::from_str(&text).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    let mut expressions = Vec::new();
    for rule in rules {
        expressions.push(rule["expr"].as_str().unwrap().to_owned());
        for text in ["summary", "description"] {
            assert!(rule["annotations"][text].is_string(), "{rule}");
        }
        assert!(rule["labels"]["severity"].is_string(), "{rule}");
    }
    hold("prometheus-rules.yaml", &expressions, 8);
}

/// Runs promtool; none where there is none.
fn promtool(arguments: &[&str], input: &str) -> Option<(bool, String)> {
    let child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        println!("skipped: needs promtool (apt-get install prometheus)");
        return None;
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8(said).unwrap()))
}

#[test]
fn promtool_has_nothing_to_say_of_the_metrics_and_the_alerts() {
    if let Some((holds, said)) = promtool(&["check", "metrics"], &exposition()) {
        assert!(holds && said.is_empty(), "{said}");
    }
    let rules = deployed("prometheus-rules.yaml");
    if let Some((holds, said)) = promtool(&["check", "rules", rules.to_str().unwrap()], "") {
        assert!(holds, "{said}");
    }
}

#[test]
fn an_unknown_metric_or_label_would_be_noticed() {
    let found =
        selectors(r#"sum by (pod) (rate(weir_a_total{x="1",y!~"2"}[5m])) / weir_b > not_weir_c"#);
    let expected = [
        (
            "weir_a_total".to_owned(),
            vec!["x".to_owned(), "y".to_owned()],
        ),
        ("weir_b".to_owned(), vec![]),
    ];
    assert_eq!(found, expected);
}
