//! `edit`: objects in an editor, as kubectl's `pkg/cmd/util/editor` has it.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cli::files::FILE_BYTES;
use crate::cli::flags::{Flag, optional, switch, value};
use crate::cli::output::{indented, list, yaml};
use crate::cli::session::{Session, VerbError};
use crate::client::{Client, ClientError};
use crate::cluster::patch;
use crate::objects::yaml::documents;
use crate::protocol::{Mutation, PatchParams, PatchType, Reason};

use super::done::Done;
use super::find::{Found, find};
use super::mutate::{DryRun, validation};
use super::{FILES, SELECTOR};

/// Flags of `edit`.
pub const FLAGS: &[Flag] = &[
    FILES[0],
    FILES[1],
    FILES[2],
    SELECTOR,
    value(
        "output",
        Some('o'),
        "yaml (default) or json: what is edited",
    ),
    switch("output-patch", None, "Print the patch that is sent"),
    optional(
        "validate",
        "strict",
        "strict, warn or ignore: what to do with unknown fields",
    ),
    switch("show-managed-fields", None, ""),
    switch("save-config", None, ""),
    value("field-manager", None, ""),
];

const HEADER: &str = "\
# Please edit the object below. Lines beginning with a '#' will be ignored,
# and an empty file will abort the edit. If an error occurs while saving this file will be
# reopened with the relevant failures.
#
";

/// Kubernetes' own groups of what is stored here, whose lists have keys. Custom resources' have none,
/// and those of `apiextensions.k8s.io` kubectl does not know.
const OWN_GROUPS: [&str; 12] = [
    "",
    "admissionregistration.k8s.io",
    "apps",
    "autoscaling",
    "batch",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// Why a file has to be edited again.
struct Reasons {
    head: String,
    causes: Vec<String>,
}

/// Runs `edit`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let as_json = match session.parsed.value("output") {
        None | Some("" | "yaml") => false,
        Some("json") => true,
        Some(other) => {
            return Err(VerbError::Usage(format!(
                "The flag 'output' must be one of yaml|json, not {other:?}"
            )));
        }
    };
    session.parsed.forget("output");
    let mut client = session.connect()?;
    let (found, errors) = find(session, &mut client, true)?;
    VerbError::all(errors)?;
    if found.is_empty() {
        return Err(local("edit cancelled, no objects found"));
    }
    Edit {
        session,
        client,
        found,
        as_json,
    }
    .run()
}

fn local(text: impl Into<String>) -> VerbError {
    VerbError::Local(text.into())
}

struct Edit<'s> {
    session: &'s Session,
    client: Client,
    found: Vec<Found>,
    as_json: bool,
}

impl Edit<'_> {
    fn run(&mut self) -> Result<(), VerbError> {
        let original = self.text(&self.objects())?;
        let (mut reasons, mut before): (Vec<Reasons>, Option<String>) = (Vec::new(), None);
        loop {
            let shown = before.as_deref().map_or(original.as_str(), without_head);
            let file = write(&format!("{}{shown}", head(&reasons)), self.as_json)?;
            let kept = Kept(&file);
            let edited = kept.told(launch(&file).and_then(|()| read(&file)))?;
            if before
                .as_deref()
                .is_some_and(|old| uncommented(old) == uncommented(&edited))
            {
                return kept.told(Err(local("Edit cancelled, no valid changes were saved.")));
            }
            if uncommented(&original) == uncommented(&edited) {
                kept.removed();
                eprintln!("Edit cancelled, no changes made.");
                return Ok(());
            }
            if uncommented(&edited).trim().is_empty() {
                kept.removed();
                eprintln!("Edit cancelled, saved file was empty.");
                return Ok(());
            }
            let objects = match parse(&edited) {
                Ok(objects) => objects,
                Err(why) => {
                    reasons = vec![Reasons {
                        head: format!("The edited file had a syntax error: {why}"),
                        causes: Vec::new(),
                    }];
                    kept.removed();
                    before = Some(edited);
                    continue;
                }
            };
            reasons = kept.told(self.send(&objects, &file))?;
            if reasons.is_empty() {
                kept.removed();
                return Ok(());
            }
            kept.removed();
            before = Some(edited);
        }
    }

    fn objects(&self) -> Vec<Value> {
        self.found.iter().map(|one| one.object.clone()).collect()
    }

    fn text(&self, objects: &[Value]) -> Result<String, VerbError> {
        let value = match objects {
            [one] => one.clone(),
            several => list(several.to_vec()),
        };
        match self.as_json {
            true => Ok(indented(&value)),
            false => yaml(&value),
        }
    }

    /// Sends what differs; the reasons to edit again.
    fn send(&mut self, objects: &[Value], file: &Path) -> Result<Vec<Reasons>, VerbError> {
        let mut done = Done::new(self.session, DryRun::None)?;
        let mut again = Vec::new();
        for object in objects {
            let uid = &object["metadata"]["uid"];
            let Some(one) = self
                .found
                .iter()
                .find(|one| *uid == one.object["metadata"]["uid"])
            else {
                return Err(local(format!("no original object found for {object}")));
            };
            let (patch_type, patch) = changes(&one.object, object);
            let Some(patch) = patch else {
                done.print(&one.shown, object, "skipped")?;
                continue;
            };
            let renamed = patch["metadata"].get("name").is_some();
            if renamed || patch.get("kind").is_some() || patch.get("apiVersion").is_some() {
                return Err(local(
                    "At least one of apiVersion, kind and name was changed",
                ));
            }
            if self.session.parsed.is_on("output-patch") {
                println!("Patch: {patch}");
            }
            let params = PatchParams {
                target: one.target(),
                patch_type,
                patch,
                dry_run: false,
                field_validation: validation(self.session.parsed.value("validate"))?,
            };
            match self.client.call::<Mutation>("patch", params) {
                Ok(mutation) => {
                    let edited = mutation
                        .results
                        .first()
                        .map_or(object, |result| &result.object);
                    done.print(&one.shown, edited, "edited")?;
                    self.session.report_mutation(&mutation)?;
                }
                Err(error) => again.push(refused(one, &error, file)?),
            }
        }
        Ok(again)
    }
}

/// The patch that makes one object of another, and its type: Kubernetes' own kinds are patched
/// strategically, so that what others change of the same lists meanwhile stays; custom resources have
/// no keys to join lists by.
pub fn changes(before: &Value, after: &Value) -> (PatchType, Option<Value>) {
    let version = before["apiVersion"].as_str().unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    match OWN_GROUPS.contains(&group) {
        true => (
            PatchType::Strategic,
            patch::strategic_difference(before, after),
        ),
        false => (PatchType::Merge, patch::merge_difference(before, after)),
    }
}

/// Why the object has to be edited again; an error if that would not help.
fn refused(one: &Found, error: &ClientError, file: &Path) -> Result<Reasons, VerbError> {
    let (what, name) = (&one.resource, one.name());
    match error.reason() {
        Some(Reason::Invalid | Reason::BadRequest) => {
            eprintln!("error: {what} {name:?} is invalid");
            Ok(Reasons {
                head: format!("{what} {name:?} was not valid"),
                causes: causes(&error.to_string()),
            })
        }
        Some(Reason::NotFound) => {
            eprintln!("error: {what} {name:?} could not be found on the server");
            let kept = file.display();
            eprintln!("The edits you made on deleted resources have been saved to \"{kept}\"");
            Err(VerbError::Status(1))
        }
        _ => {
            eprintln!("error: {what} {name:?} could not be patched: {error}");
            let kept = file.display();
            eprintln!("You can run `weir replace -f {kept}` to try this update again.");
            Err(VerbError::Status(1))
        }
    }
}

/// The single objections of a refusal.
fn causes(message: &str) -> Vec<String> {
    let told = message
        .split_once(" is invalid: ")
        .map_or(message, |(_, told)| told);
    let lines = told
        .lines()
        .map(|line| line.trim_start_matches("* ").trim());
    lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

fn head(reasons: &[Reasons]) -> String {
    let mut text = HEADER.to_owned();
    let commented = |text: &str| text.replace('\n', "\n# ");
    for Reasons { head, causes } in reasons {
        let colon = if causes.is_empty() { "" } else { ":" };
        text.push_str(&format!("# {}{colon}\n", commented(head)));
        for cause in causes {
            text.push_str(&format!("# * {}\n", commented(cause)));
        }
        text.push_str("#\n");
    }
    text
}

/// What stands below the comments at the top.
fn without_head(text: &str) -> &str {
    let mut rest = text;
    while rest.starts_with('#') {
        rest = rest.split_once('\n').map_or("", |(_, below)| below);
    }
    rest
}

fn uncommented(text: &str) -> String {
    let kept = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    kept.map(|line| format!("{line}\n")).collect()
}

fn parse(text: &str) -> Result<Vec<Value>, String> {
    let documents = documents(text).map_err(|error| error.message)?;
    let mut objects = Vec::new();
    for document in documents {
        match document["items"].as_array() {
            Some(items) if document["kind"] == "List" => objects.extend(items.iter().cloned()),
            _ => objects.push(document),
        }
    }
    match objects.iter().find(|object| !object.is_object()) {
        Some(wrong) => Err(format!("{wrong} is no object")),
        None => Ok(objects),
    }
}

/// A new file that nobody else can read.
fn write(text: &str, as_json: bool) -> Result<PathBuf, VerbError> {
    let ending = if as_json { "json" } else { "yaml" };
    let mut chance = std::process::id();
    for _ in 0..1000 {
        let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        chance = chance.wrapping_mul(31) ^ nanos.map_or(0, |since| since.subsec_nanos());
        let path = std::env::temp_dir().join(format!("weir-edit-{chance}.{ending}"));
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
        {
            Ok(mut file) => {
                file.write_all(text.as_bytes())?;
                return Ok(path);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(local(format!("{}: {error}", path.display()))),
        }
    }
    Err(local("no name is free for the file to edit"))
}

fn read(file: &Path) -> Result<String, VerbError> {
    let at = |error: std::io::Error| local(format!("{}: {error}", file.display()));
    if std::fs::metadata(file).map_err(at)?.len() > FILE_BYTES {
        return Err(local(format!(
            "{} is larger than {FILE_BYTES} bytes",
            file.display()
        )));
    }
    std::fs::read_to_string(file).map_err(at)
}

/// Runs the editor that `KUBE_EDITOR` or `EDITOR` names, else vi.
fn launch(file: &Path) -> Result<(), VerbError> {
    let set = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let editor = set("KUBE_EDITOR")
        .or_else(|| set("EDITOR"))
        .unwrap_or_else(|| "vi".to_owned());
    let mut command = if editor.contains(['"', '\'', '\\']) {
        let mut shell = Command::new(set("SHELL").unwrap_or_else(|| "/bin/sh".to_owned()));
        shell
            .arg("-c")
            .arg(format!("{editor} '{}'", file.display()));
        shell
    } else {
        let mut words = editor.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or("vi"));
        command.args(words).arg(file);
        command
    };
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(local(format!(
            "there was a problem with the editor {editor:?}"
        ))),
        Err(_) => Err(local(format!("unable to launch the editor {editor:?}"))),
    }
}

/// The file that is edited, which outlives what goes wrong.
struct Kept<'f>(&'f Path);

impl Kept<'_> {
    fn removed(&self) {
        let _ = std::fs::remove_file(self.0);
    }

    /// Says where the changes are if `done` failed.
    fn told<T>(&self, done: Result<T, VerbError>) -> Result<T, VerbError> {
        if done.is_err() && self.0.exists() {
            let kept = self.0.display();
            eprintln!("A copy of your changes has been stored to \"{kept}\"");
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objections_stand_at_the_top_and_go() {
        let causes = causes("The Pod \"x\" is invalid: \n* spec.a: Required value\n* spec.b: no");
        assert_eq!(causes, ["spec.a: Required value", "spec.b: no"]);
        let text = head(&[Reasons {
            head: "pods \"x\" was not valid".into(),
            causes,
        }]);
        assert!(text.ends_with(
            "# pods \"x\" was not valid:\n# * spec.a: Required value\n# * spec.b: no\n#\n"
        ));
        assert_eq!(without_head(&format!("{text}a: b\n# c\n")), "a: b\n# c\n");
        assert_eq!(uncommented(&format!("{text}a: b\n # c\n")), "a: b\n");
    }
}
