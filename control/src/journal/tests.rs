//! The journal over ends of every kind.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::cluster::Cluster;
use crate::objects::{Key, kinds};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("weir-journal-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Folder(path)
    }

    /// Every file's name and content.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(&self.0).unwrap().map(Result::unwrap);
        entries
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read(entry.path()).unwrap())
            })
            .collect()
    }

    fn restore(&self, files: &BTreeMap<String, Vec<u8>>) {
        let _ = fs::remove_dir_all(&self.0);
        fs::create_dir_all(&self.0).unwrap();
        for (name, content) in files {
            fs::write(self.0.join(name), content).unwrap();
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn config_map(name: &str, text: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"}, "data": {"text": text},
    })
}

fn record(generation: u64) -> Record {
    Record {
        generation,
        resource_version: generation * 10,
        put: vec![config_map("a", &format!("{generation}\nb \u{1f980}"))],
        ..Record::default()
    }
}

fn append(journal: &mut Journal, record: &Record) -> Result<(), JournalError> {
    journal.append(Record {
        generation: record.generation,
        resource_version: record.resource_version,
        put: record.put.iter().collect(),
        delete: record.delete.clone(),
        ..Record::default()
    })
}

/// What the records say of the store, without what they say of the disk.
fn changes(records: Vec<Record>) -> Vec<Record> {
    let changes = records.into_iter().map(|record| Record {
        synced: None,
        ..record
    });
    changes
        .filter(|record| record.reset || !(record.put.is_empty() && record.delete.is_empty()))
        .collect()
}

/// Another test's child holds the lock between its fork and its exec, as every descriptor.
fn open(folder: &Folder) -> (Journal, Vec<Record>) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match Journal::open(&folder.0) {
            Err(JournalError::InUse(_)) if Instant::now() < deadline => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

/// Why it is not opened.
fn refusal(folder: &Folder) -> JournalError {
    loop {
        match Journal::open(&folder.0).unwrap_err() {
            JournalError::InUse(_) => std::thread::yield_now(),
            error => return error,
        }
    }
}

fn read(folder: &Folder) -> Vec<Record> {
    changes(open(folder).1)
}

/// A store with as many objects, the last of them of that generation.
fn everything(generation: u64, objects: u64) -> Everything {
    let mut cluster = Cluster::empty();
    for number in 0..objects {
        let text = if number + 1 == objects { generation } else { 0 };
        let value = config_map(&format!("c{number}"), &text.to_string());
        cluster.restore(value).unwrap();
    }
    Everything {
        generation,
        cluster,
        policies: Vec::new(),
    }
}

fn compact(journal: &mut Journal, everything: Everything) {
    journal.compact(everything).unwrap();
    while journal.compaction.is_some() {
        journal.tick();
    }
}

#[test]
fn what_is_appended_is_read_again() {
    let folder = Folder::new("append");
    let (mut journal, records) = open(&folder);
    assert_eq!(records, []);
    append(&mut journal, &record(1)).unwrap();
    append(&mut journal, &record(2)).unwrap();
    drop(journal);
    assert_eq!(read(&folder), [record(1), record(2)]);
}

#[test]
fn nobody_else_reads_what_is_stored() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("private");
    let (mut journal, _) = open(&folder);
    append(&mut journal, &record(1)).unwrap();
    journal.next_generation().unwrap();
    compact(&mut journal, everything(2, 100));
    append(&mut journal, &record(3)).unwrap();
    for name in ["journal", "journal.1", "generation"] {
        let mode = fs::metadata(folder.0.join(name)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_torn_tail_is_discarded_at_every_length_and_appending_goes_on() {
    let folder = Folder::new("torn");
    let (mut journal, _) = open(&folder);
    append(&mut journal, &record(1)).unwrap();
    append(&mut journal, &record(2)).unwrap();
    drop(journal);
    let path = folder.0.join("journal");
    let whole = fs::read(&path).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for length in first..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let (mut journal, records) = open(&folder);
        assert_eq!(changes(records), [record(1)], "{length}");
        append(&mut journal, &record(3)).unwrap();
        drop(journal);
        assert_eq!(read(&folder), [record(1), record(3)], "{length}");
    }
}

#[test]
fn what_is_appended_is_on_disk_within_a_second_and_a_line_says_so() {
    let folder = Folder::new("second");
    let (mut journal, _) = open(&folder);
    append(&mut journal, &record(1)).unwrap();
    let (begun, end) = (Instant::now(), journal.segment.position());
    while journal.syncer.synced().unwrap() < end {
        assert!(begun.elapsed() < Duration::from_secs(1), "not on disk");
        std::thread::sleep(Duration::from_millis(5));
    }
    journal.tick();
    assert_eq!(journal.stated, end);
    let stated = journal.segment.position();
    journal.tick();
    assert_eq!(journal.segment.position(), stated, "it is said once");
}

#[test]
fn damage_of_what_was_on_disk_is_an_error_wherever_it_is() {
    let folder = Folder::new("damage");
    let (mut journal, _) = open(&folder);
    append(&mut journal, &record(1)).unwrap();
    append(&mut journal, &record(2)).unwrap();
    let safe = journal.segment.position().1 as usize;
    journal.close().unwrap();
    let path = folder.0.join("journal");
    let whole = fs::read(&path).unwrap();
    for at in 0..safe {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = refusal(&folder);
        assert!(
            matches!(error, JournalError::Damaged { .. }),
            "{at}: {error}"
        );
    }
}

#[test]
fn what_was_not_on_disk_when_the_machine_lost_power_ends_the_journal() {
    let folder = Folder::new("power");
    let (mut journal, _) = open(&folder);
    append(&mut journal, &record(1)).unwrap();
    journal.sync().unwrap();
    let lost = journal.segment.position().1 as usize;
    for generation in 2..5 {
        append(&mut journal, &record(generation)).unwrap();
    }
    drop(journal);
    // A page that did not get there, with others behind it that did.
    let path = folder.0.join("journal");
    let mut bytes = fs::read(&path).unwrap();
    bytes[lost..lost + 40].fill(0);
    fs::write(&path, bytes).unwrap();
    let (mut journal, records) = open(&folder);
    assert_eq!(changes(records), [record(1)]);
    append(&mut journal, &record(9)).unwrap();
    drop(journal);
    assert_eq!(read(&folder), [record(1), record(9)]);
}

#[test]
fn a_hole_before_a_new_segment_ends_the_journal_there() {
    let folder = Folder::new("hole");
    let (mut journal, _) = open(&folder);
    append(&mut journal, &record(1)).unwrap();
    journal.sync().unwrap();
    let synced = journal.segment.position();
    drop(journal);
    let mut files = folder.files();
    // Appending had moved on when the power went, and the newer segment came to disk first.
    files.get_mut("journal").unwrap().extend([0; 60]);
    let mut line = Vec::new();
    let later = Record {
        synced: Some(synced),
        ..record(3)
    };
    record::encode(&later, &mut line).unwrap();
    files.insert("journal.1".into(), line.clone());
    folder.restore(&files);
    assert_eq!(read(&folder), [record(1)]);
    assert!(!folder.0.join("journal.1").exists());
    // With nothing missing before it, it counts.
    files
        .get_mut("journal")
        .unwrap()
        .truncate(synced.1 as usize);
    folder.restore(&files);
    assert_eq!(read(&folder), [record(1), record(3)]);
    // And if the hole had been on disk, the disk has lost it.
    let lost = Record {
        synced: Some(Position(0, synced.1 + 60)),
        ..record(3)
    };
    record::encode(&lost, &mut line).unwrap();
    files.insert("journal.1".into(), line);
    files.get_mut("journal").unwrap().extend([0; 60]);
    folder.restore(&files);
    let error = Journal::open(&folder.0).unwrap_err();
    assert!(
        matches!(error, JournalError::Damaged { line: 2, .. }),
        "{error}"
    );
}

#[test]
fn compaction_keeps_the_whole_and_drops_the_past() {
    let folder = Folder::new("compact");
    let (mut journal, _) = open(&folder);
    for generation in 1..50 {
        append(&mut journal, &record(generation)).unwrap();
    }
    let long = journal.grown();
    compact(&mut journal, everything(49, 70));
    append(&mut journal, &record(50)).unwrap();
    assert!(journal.grown() < long / 10);
    drop(journal);
    for round in 0..3 {
        let (mut journal, records) = open(&folder);
        let (first, rest) = records.split_first().unwrap();
        assert!(first.reset && first.objects == 70 && first.generation == 49);
        let rest = changes(rest.to_vec());
        let (last, base) = rest.split_last().unwrap();
        assert_eq!(last, &record(50 + round));
        let objects: usize = base.iter().map(|record| record.put.len()).sum();
        assert_eq!(objects as u64, 70 + round);
        append(&mut journal, &record(51 + round)).unwrap();
    }
}

#[test]
fn what_defines_a_kind_comes_before_its_objects() {
    let folder = Folder::new("definitions");
    let (mut journal, _) = open(&folder);
    let mut cluster = Cluster::empty();
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.a.example"},
        "spec": {
            "group": "a.example", "names": {"kind": "Thing", "plural": "things"},
            "scope": "Cluster", "versions": [{"name": "v1", "served": true}],
        },
    });
    cluster.restore(definition).unwrap();
    // More than a line of the base holds, and by their kind's name ahead of the definition.
    for number in 0..70 {
        let name = format!("t{number}");
        let thing =
            json!({"apiVersion": "a.example/v1", "kind": "Thing", "metadata": {"name": name}});
        cluster.restore(thing).unwrap();
    }
    let whole = Everything {
        generation: 1,
        cluster,
        policies: Vec::new(),
    };
    compact(&mut journal, whole);
    drop(journal);
    let mut cluster = Cluster::empty();
    for record in open(&folder).1 {
        for value in record.put {
            cluster.restore(value).unwrap();
        }
    }
    assert_eq!(cluster.len(), 71);
}

#[test]
fn a_compaction_that_is_cut_off_anywhere_changes_nothing() {
    let folder = Folder::new("cut");
    let (mut journal, _) = open(&folder);
    append(&mut journal, &record(1)).unwrap();
    compact(&mut journal, everything(1, 40));
    append(&mut journal, &record(2)).unwrap();
    journal.sync().unwrap();
    let before = folder.files();
    compact(&mut journal, everything(2, 40));
    append(&mut journal, &record(3)).unwrap();
    drop(journal);
    let after = folder.files();
    assert!(!after.contains_key("journal.1") && after.contains_key("journal.2"));
    let found = |files: &BTreeMap<String, Vec<u8>>| {
        folder.restore(files);
        let records = changes(open(&folder).1);
        records.iter().map(|record| record.generation).max()
    };
    // Appending has moved on, the base is half written or has not got its name.
    let mut files = before.clone();
    files.insert("journal.2".into(), after["journal.2"].clone());
    assert_eq!(found(&files), Some(3));
    let base = &after["journal"];
    for length in [0, 1, base.len() / 2, base.len()] {
        files.insert("journal.new".into(), base[..length].to_vec());
        assert_eq!(found(&files), Some(3), "{length}");
    }
    // It has, and what it stands for is still there.
    let mut files = after.clone();
    files.insert("journal.1".into(), before["journal.1"].clone());
    assert_eq!(found(&files), Some(3));
    assert!(!folder.0.join("journal.1").exists());
    // A base has its name only when it is whole: if it is not, the disk has lost it.
    for length in (0..base.len()).step_by(97) {
        let mut files = after.clone();
        files.insert("journal".into(), base[..length].to_vec());
        folder.restore(&files);
        let error = refusal(&folder);
        assert!(matches!(error, JournalError::Damaged { .. }), "{length}");
    }
}

#[test]
fn a_disk_that_refuses_is_not_written_to_again() {
    let folder = Folder::new("refuses");
    let (mut journal, _) = open(&folder);
    append(&mut journal, &record(1)).unwrap();
    // What is not a file cannot be synced: EINVAL.
    let (_reader, writer) = std::io::pipe().unwrap();
    let file = File::from(std::os::fd::OwnedFd::from(writer));
    let real = Segment::open(&folder.0, 1, 0).unwrap();
    journal.segment = Arc::new(Segment { file, ..real });
    journal.syncer.follow(journal.segment.clone());
    let deadline = Instant::now() + Duration::from_secs(5);
    while journal.failure().is_none() {
        assert!(Instant::now() < deadline, "nobody noticed");
        std::thread::sleep(Duration::from_millis(5));
    }
    let error = append(&mut journal, &record(2)).unwrap_err();
    assert!(error.to_string().contains("journal.1"), "{error}");
    assert!(matches!(error, JournalError::NotOnDisk(_)));
    assert!(journal.close().is_err());
}

#[test]
fn generations_rise_over_crashes_and_orderly_ends() {
    let folder = Folder::new("generations");
    let mut last = 0;
    for orderly in [false, true, true, false, true] {
        let (mut journal, _) = open(&folder);
        for _ in 0..3 * GENERATION_BLOCK {
            let generation = journal.next_generation().unwrap();
            assert!(generation > last);
            last = generation;
            assert!(journal.syncer.reserved() > last);
        }
        if orderly {
            journal.close().unwrap();
        }
    }
    fs::remove_file(folder.0.join("generation")).unwrap();
    let (mut journal, _) = open(&folder);
    append(&mut journal, &record(last + 7)).unwrap();
    drop(journal);
    fs::remove_file(folder.0.join("generation")).unwrap_or_default();
    let (mut journal, _) = open(&folder);
    assert_eq!(journal.next_generation().unwrap(), last + 8);
}

#[test]
fn a_second_daemon_is_kept_out() {
    let folder = Folder::new("lock");
    let _journal = Journal::open(&folder.0).unwrap();
    let error = Journal::open(&folder.0).unwrap_err();
    assert!(matches!(error, JournalError::InUse(_)), "{error}");
}

/// Objects that the killed process changes in turn.
const OBJECTS: u64 = 60;
const KILLED: &str = "WEIR_TEST_JOURNAL";

/// The objects' texts by name, as a daemon would restore them.
fn restored(records: Vec<Record>) -> (Cluster, BTreeMap<String, String>) {
    let mut cluster = Cluster::empty();
    for record in records {
        if record.reset {
            cluster = Cluster::empty();
        }
        for value in record.put {
            cluster.restore(value).unwrap();
        }
        for gone in record.delete {
            let kind = kinds::find(&gone.api_version, &gone.kind).unwrap();
            cluster.forget(&Key::new(kind, &gone.namespace, &gone.name), 0);
        }
    }
    let texts = cluster.objects().map(|object| {
        let text = object.value()["data"]["text"].as_str().unwrap();
        (object.name().to_owned(), text.to_owned())
    });
    let texts = texts.collect();
    (cluster, texts)
}

/// Changes objects and tells of each change when it may be published, until it is killed.
#[test]
#[ignore = "a part of a_killed_process_loses_nothing_that_it_told"]
fn changes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(KILLED) else {
        return;
    };
    let (mut journal, records) = Journal::open(Path::new(&folder)).unwrap();
    let (mut cluster, _) = restored(records);
    loop {
        let generation = journal.next_generation().unwrap();
        let name = format!("c{}", generation % OBJECTS);
        let gone = generation % 7 == 0;
        let value = config_map(&name, &generation.to_string());
        let mut change = Record {
            generation,
            resource_version: generation,
            ..Record::default()
        };
        if gone {
            let kind = kinds::find("v1", "ConfigMap").unwrap();
            cluster.forget(&Key::new(kind, "default", &name), generation);
            change.delete.push(Gone {
                api_version: "v1".into(),
                kind: "ConfigMap".into(),
                namespace: "default".into(),
                name: name.clone(),
            });
        } else {
            cluster.restore(value.clone()).unwrap();
            change.put.push(&value);
        }
        journal.append(change).unwrap();
        println!("\ntold {name} {generation} {gone}");
        if generation % 16 == 0 {
            let everything = Everything {
                generation,
                cluster: cluster.clone(),
                policies: Vec::new(),
            };
            journal.compact(everything).unwrap();
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_that_it_told() {
    let folder = Folder::new("killed");
    let mut model: BTreeMap<String, String> = BTreeMap::new();
    for round in 0..25_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["journal::tests::changes_until_it_is_killed", "--exact"])
            .args(["--ignored", "--nocapture"])
            .env(KILLED, &folder.0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = 0;
        let end = 5 + round * round * 17 % 300;
        for line in lines {
            let Ok(line) = line else { break };
            let words: Vec<&str> = line.split(' ').collect();
            let ["told", name, generation, gone] = words[..] else {
                continue;
            };
            match gone {
                "true" => model.remove(name),
                _ => model.insert(name.to_owned(), generation.to_owned()),
            };
            told += 1;
            if told == end {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(told >= end, "round {round}: it ended by itself");
        let (journal, records) = open(&folder);
        let newest = records.iter().map(|record| record.generation).max();
        let (_, found) = restored(records);
        // One more change may have been written than was told.
        let untold = newest.map(|generation| format!("c{}", generation % OBJECTS));
        let others = |texts: &BTreeMap<String, String>| -> Vec<(String, String)> {
            let others = texts
                .iter()
                .filter(|(name, _)| Some(*name) != untold.as_ref());
            others
                .map(|(name, text)| (name.clone(), text.clone()))
                .collect()
        };
        assert_eq!(others(&found), others(&model), "round {round}");
        let untold = untold.unwrap();
        let number = |texts: &BTreeMap<String, String>| {
            texts.get(&untold).and_then(|text| text.parse::<u64>().ok())
        };
        let gone = newest.is_some_and(|generation| generation % 7 == 0);
        assert!(gone || number(&found) >= number(&model), "round {round}");
        model = found;
        drop(journal);
    }
}
