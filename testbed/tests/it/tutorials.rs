//! Tutorials as data: what is extracted from their texts, and what counts as the same output.

use std::path::PathBuf;

use config::labs::{LABS, Lab};
use testbed::scenario::Scenario;
use testbed::tutorial::compare::{Extent, difference};
use testbed::tutorial::extract::extract;
use testbed::tutorial::mask::mask;
use testbed::tutorial::{Part, Tutorial};

/// The folder that holds the tutorials' texts, which are not ours to keep here.
const TEXTS: &str = "WEIR_TUTORIALS";

fn entries(text: &str) -> Vec<(usize, Part)> {
    let tutorial = extract("t", text, None);
    let parts = tutorial.entries.into_iter();
    parts.map(|entry| (entry.line, entry.part)).collect()
}

fn command(line: usize, text: &str) -> (usize, Part) {
    (line, Part::Command(text.into()))
}

fn output(line: usize, text: &str) -> (usize, Part) {
    (line, Part::Output(text.into()))
}

#[test]
fn markdown_s_fences_hold_commands_and_what_they_answer() {
    let text = "# Title\n\n   ```bash\n   kubectl apply -f a.yaml \n\n   kubectl get po \\\n     -A\n   \
        pod/a created\n   ```\n\nOutput:\n\n```\nnc: bad address 'b'\ncommand terminated\n```\n";
    assert_eq!(
        entries(text),
        [
            command(4, "kubectl apply -f a.yaml "),
            command(6, "kubectl get po \\\n  -A"),
            output(8, "pod/a created"),
            output(14, "nc: bad address 'b'\ncommand terminated"),
        ]
    );
}

#[test]
fn manifests_are_kept_apart() {
    let text = "```yaml\n  kind: Pod\n  spec:\n    a: b\n```\n";
    assert_eq!(
        entries(text),
        [(2, Part::Manifest("kind: Pod\nspec:\n  a: b".into()))]
    );
}

#[test]
fn commands_in_prose_are_those_that_one_could_type() {
    let text = "See `kubectl debug --help`, then the `kubectl logs` command; `cat t/a.yaml` shows.\n\
        kubectl get pods --watch\n```kubectl port-forward service/a 9001```\n\
        The ```nc: bad address``` message, and an open ` tick: kubectl get --all\n";
    assert_eq!(
        entries(text),
        [
            command(1, "kubectl debug --help"),
            command(1, "cat t/a.yaml"),
            command(2, "kubectl get pods --watch"),
            command(3, "kubectl port-forward service/a 9001"),
        ]
    );
}

#[test]
fn ascii_doc_s_indented_paragraphs_have_prompts() {
    let text = "= Title\n\n. Do:\n\n  $ kubectl run \\\n    -i \\\n    -- sh\n  If you don't\n  / #\n+\nThen\n+\n\
        ```\n/ # wget -S http://a\nConnecting\n\n  HTTP/1.1 200 OK\n```\n\n  spec:\n    a: b\n";
    let tutorial = extract("t", text, None);
    let prompts: Vec<_> = tutorial
        .entries
        .iter()
        .filter_map(|entry| entry.prompt.as_deref())
        .collect();
    assert_eq!(prompts, ["$ ", "/ # "]);
    assert_eq!(
        entries(text),
        [
            command(5, "kubectl run \\\n  -i \\\n  -- sh"),
            output(8, "If you don't\n/ #"),
            command(14, "wget -S http://a"),
            output(15, "Connecting\n\n  HTTP/1.1 200 OK"),
            output(20, "spec:\n  a: b"),
        ]
    );
}

#[test]
fn only_the_lines_that_are_asked_for_are_read() {
    let text = "```\nkubectl a -b\n```\n```\nkubectl c -d\n```\n";
    let tutorial = extract("t", text, Some((4, 6)));
    let lines: Vec<usize> = tutorial.entries.iter().map(|entry| entry.line).collect();
    assert_eq!(lines, [5]);
    let again = Tutorial::parse(&tutorial.to_yaml().unwrap()).unwrap();
    assert_eq!(again, tutorial);
}

/// The labs whose commands come from a text, with what they keep of it.
fn labs() -> impl Iterator<Item = (&'static Lab, Tutorial)> {
    LABS.iter().map(|lab| {
        let text = lab.file("tutorial.yaml").expect(lab.name);
        (lab, Tutorial::parse(text).expect(lab.name))
    })
}

#[test]
fn what_the_labs_keep_is_what_the_texts_say() {
    let Some(folder) = std::env::var_os(TEXTS).map(PathBuf::from) else {
        println!("skipped: {TEXTS} does not name the folder of the tutorials' texts");
        return;
    };
    for (lab, kept) in labs() {
        let text = std::fs::read_to_string(folder.join(&kept.text)).expect(lab.name);
        assert_eq!(extract(&kept.text, &text, kept.lines), kept, "{}", lab.name);
    }
}

#[test]
fn every_manifest_that_a_tutorial_prints_is_a_file_of_its_lab() {
    let documents = |text: &str| -> Option<Vec<serde_json::Value>> {
        let all = serde_yaml_ng::Deserializer::from_str(text);
        all.map(|one| serde::Deserialize::deserialize(one).ok())
            .collect()
    };
    let mut seen = 0;
    for (lab, tutorial) in labs() {
        for entry in &tutorial.entries {
            let Part::Manifest(printed) = &entry.part else {
                continue;
            };
            seen += 1;
            let same = |text: &str| {
                text.trim_end() == printed
                    || documents(text).is_some_and(|all| Some(all) == documents(printed))
            };
            assert!(
                lab.files.iter().any(|(_, text)| same(text)),
                "{}: line {}",
                lab.name,
                entry.line
            );
        }
    }
    assert!(seen >= 8, "{seen}");
}

#[test]
fn readme_tells_how_many_exceptions_there_are() {
    let scenarios = LABS
        .iter()
        .map(|lab| Scenario::parse(lab.file("scenario.yaml").unwrap()).unwrap());
    let count: usize = scenarios.map(|one| one.exceptions().count()).sum();
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"));
    let wanted = format!("{count} named exceptions");
    assert!(readme.unwrap().contains(&wanted), "{wanted}");
}

#[test]
fn addresses_hashes_times_and_lengths_may_differ() {
    for (tutorial, ours) in [
        (
            "100.115.37.81 (100.115.37.81:8888) open",
            "10.0.0.3 (10.0.0.3:8888) open",
        ),
        (
            "connect to [::ffff:100.115.37.81]:8888 from [::ffff:100.106.133.221]:40439 \
             ([::ffff:100.106.133.221]:40439)",
            "connect to [::ffff:10.0.0.1]:8888 from [::ffff:10.0.0.2]:51200 ([::ffff:10.0.0.2]:51200)",
        ),
        (
            "pod \"http-echo-1790350443-z2v7n\" labeled",
            "pod \"http-echo-7c9d4f8b6d-x8k2p\" labeled",
        ),
        (
            "  ETag: W/\"215-KyoPN1JoGjQlzW9TxpIay22VPF8\"",
            "  ETag: W/\"1f0-xgvU8WZSN+2SEyOX6Q2R/AhLuRM\"",
        ),
        (
            "  Date: Thu, 26 Oct 2017 00:53:21 GMT",
            "  Date: Mon, 30 Nov 2026 11:12:13 GMT",
        ),
        ("  Content-Length: 533", "  Content-Length: 496"),
        (
            "test                 100% |*********|   533   0:00:00 ETA",
            "test         100% |*****************|   496  0:00:00 ETA",
        ),
    ] {
        assert_eq!(mask(tutorial), mask(ours));
        assert_eq!(difference(tutorial, ours, Extent::Whole), None, "{ours}");
    }
}

#[test]
fn nothing_else_may_differ() {
    for (tutorial, ours) in [
        ("bb1 (100.115.37.81:8888) open", "bb1 (10.0.0.3:8889) open"),
        ("bb1 (100.115.37.81:8888) open", "bb2 (10.0.0.3:8888) open"),
        (
            "nc: mysqldb (1.2.3.4:3306): Connection timed out",
            "nc: mysqldb (1.2.3.4:3306): Connection refused",
        ),
        ("nc: bad address 'bb1'", "nc: bad address 'bb1:8888'"),
        (
            "networkpolicy.networking.k8s.io/default-deny-egress created",
            "networkpolicy.networking.k8s.io/default-deny-except-dns-egress created",
        ),
        ("pod \"busybox\" labeled", "pod \"busybox\" not labeled"),
        ("  HTTP/1.1 200 OK", "  HTTP/1.1 500 OK"),
        ("  Connection: close", "Connection: close"),
        (
            "test   99% |***  |   533   0:00:00 ETA",
            "test  100% |*****|   533   0:00:00 ETA",
        ),
    ] {
        assert!(
            difference(tutorial, ours, Extent::Whole).is_some(),
            "{ours}"
        );
    }
}

#[test]
fn a_terminal_s_text_is_compared_as_it_is_seen() {
    let progress = "\rtest  10% |*  |  53  0:00:10 ETA\rtest 100% |***| 533  0:00:00 ETA\r\n";
    let wanted = "test 100% |***|   533   0:00:00 ETA";
    assert_eq!(difference(wanted, progress, Extent::Whole), None);
    let colour = "\u{1b}[1mopen\u{1b}[0m\r\n\u{1b}]0;title\u{7}";
    assert_eq!(difference("open", colour, Extent::Whole), None);
}

#[test]
fn lines_that_weir_adds_are_no_difference() {
    let ours = "a created\ngeneration 42 live on 2/2 workers in 83 µs\n\
        Warning: persistentvolumes is stored but has no effect here\n";
    assert_eq!(difference("a created", ours, Extent::Whole), None);
    for other in ["Warning: a is deprecated", "generation 42 is lost", "a"] {
        let ours = format!("a created\n{other}\n");
        assert!(
            difference("a created", &ours, Extent::Whole).is_some(),
            "{other}"
        );
    }
}

#[test]
fn lines_within_come_in_order() {
    let ours = "a\nb\nc\n";
    assert_eq!(difference("a\nc", ours, Extent::Within), None);
    assert!(difference("c\na", ours, Extent::Within).is_some());
    assert!(difference("a\nc", ours, Extent::Whole).is_some());
}

#[test]
fn what_was_interrupted_shows_a_beginning() {
    let tutorial = "Connecting to a (1.2.3.4:80)\nwget: can't connect: Connection timed out";
    let interrupted = "Connecting to a (10.0.0.1:80)\r\n^C\r\n";
    assert_eq!(difference(tutorial, interrupted, Extent::Interrupted), None);
    assert!(difference(tutorial, "^C\r\n", Extent::Interrupted).is_some());
    let answered = "Connecting to a (10.0.0.1:80)\r\n  HTTP/1.1 200 OK\r\n^C";
    assert!(difference(tutorial, answered, Extent::Interrupted).is_some());
}
