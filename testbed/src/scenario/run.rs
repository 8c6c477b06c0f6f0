//! `weir lab run`: a scenario from nothing to nothing.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::play::{Stage, chosen, play};
use super::{Report, Scenario};
use crate::lab::{self, CommandError, Lab, UpOptions};
use crate::tutorial::Tutorial;
use crate::tutorial::terminal::Surroundings;

/// The files of a scenario: path below its folder, text.
#[derive(Clone, Debug, Default)]
pub struct Collection {
    files: BTreeMap<String, String>,
    /// Where it lies, if it is somebody's own.
    folder: Option<PathBuf>,
}

/// How much of a scenario a lab comes up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What the tutorial presupposes.
    TutorialsStart,
    /// Also what the tutorial applies before its policies.
    WithApplication,
}

/// How a scenario is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// Whether policy is enforced.
    pub enforcement: config::Enforcement,
    /// Leave the lab up afterwards.
    pub keep: bool,
}

fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> CommandError {
    let what = path.display().to_string();
    move |source| CommandError::System { what, source }
}

impl Collection {
    /// One that comes with Weir.
    pub fn built_in(name: &str) -> Option<Collection> {
        let lab = config::labs::Lab::named(name)?;
        let files = lab
            .files
            .iter()
            .map(|(path, text)| (path.to_string(), text.to_string()));
        Some(Collection {
            files: files.collect(),
            folder: None,
        })
    }

    /// Somebody's own folder.
    pub fn read(folder: &Path) -> Result<Collection, CommandError> {
        let mut files = BTreeMap::new();
        // Shells begin in it, and may call it their home.
        let folder = folder.canonicalize().map_err(file_error(folder))?;
        read_below(&folder, "", &mut files)?;
        Ok(Collection {
            files,
            folder: Some(folder),
        })
    }

    /// The scenario that `scenario.yaml` tells.
    pub fn scenario(&self) -> Result<Scenario, CommandError> {
        let text = self
            .files
            .get("scenario.yaml")
            .ok_or_else(|| CommandError::Refused("the folder has no scenario.yaml".into()))?;
        Scenario::parse(text).map_err(|error| CommandError::Refused(error.to_string()))
    }

    /// Where the files lie: those that come with Weir in the lab's own folder, once
    /// [`Collection::unpacked`] has put them there.
    pub fn folder(&self, lab: &Lab) -> PathBuf {
        self.folder.clone().unwrap_or_else(|| lab.tutorial_folder())
    }

    /// Every address that the lab has a copy of, and where that lies.
    pub fn urls(&self, lab: &Lab) -> Result<BTreeMap<String, PathBuf>, CommandError> {
        let (scenario, folder) = (self.scenario()?, self.folder(lab));
        let mut urls = BTreeMap::new();
        for (prefix, inside) in &scenario.urls {
            for file in self.files.keys() {
                if let Ok(rest) = Path::new(file).strip_prefix(inside.trim_start_matches("./")) {
                    urls.insert(format!("{prefix}{}", rest.display()), folder.join(file));
                }
            }
        }
        Ok(urls)
    }

    /// The paths of the files that the lab runs, put on disk if they come with Weir.
    fn unpacked(&self, lab: &Lab, extent: Extent) -> Result<Vec<String>, CommandError> {
        let (scenario, folder) = (self.scenario()?, self.folder(lab));
        if self.folder.is_none() {
            for (path, text) in &self.files {
                let place = folder.join(path);
                if let Some(parent) = place.parent() {
                    std::fs::create_dir_all(parent).map_err(file_error(parent))?;
                }
                std::fs::write(&place, text).map_err(file_error(&place))?;
            }
            give_to_owner(&folder)?;
        }
        let mut wanted = scenario.manifests;
        if extent == Extent::WithApplication {
            wanted.extend(scenario.application);
        }
        let on_disk = |(path, _): &(String, String)| folder.join(path).display().to_string();
        Ok(self.chosen(&wanted).iter().map(on_disk).collect())
    }

    /// The files that these paths of files and folders choose: path and text.
    pub fn chosen(&self, paths: &[String]) -> Vec<(String, String)> {
        chosen(paths, &self.files)
    }

    /// The tutorial whose commands the scenario plays, if it is of one.
    pub fn tutorial(&self) -> Result<Option<Tutorial>, CommandError> {
        let text = self.files.get("tutorial.yaml").map(String::as_str);
        let read = self.scenario()?.tutorial(text);
        read.map_err(|error| CommandError::Refused(error.to_string()))
    }

    /// How a lab of these files comes up.
    pub fn up_options(&self, lab: &Lab, extent: Extent) -> Result<UpOptions, CommandError> {
        let (scenario, folder) = (self.scenario()?, self.folder(lab));
        Ok(UpOptions {
            manifests: self.unpacked(lab, extent)?,
            // Without the `.` that means the folder itself.
            home: scenario
                .home
                .map(|home| folder.join(home).components().collect()),
            urls: self.urls(lab)?,
            kubectl: scenario.kubectl,
            folder: Some(folder),
            ..UpOptions::default()
        })
    }
}

/// Gives what was unpacked to the user behind sudo, who may want to change a manifest.
fn give_to_owner(folder: &Path) -> Result<(), CommandError> {
    let Some((user, group)) = lab::owner() else {
        return Ok(());
    };
    let mut left = vec![folder.to_owned()];
    while let Some(path) = left.pop() {
        std::os::unix::fs::lchown(&path, Some(user), Some(group)).map_err(file_error(&path))?;
        if path.is_dir() && !path.is_symlink() {
            let inside = std::fs::read_dir(&path).map_err(file_error(&path))?;
            left.extend(inside.flatten().map(|entry| entry.path()));
        }
    }
    Ok(())
}

fn read_below(
    folder: &Path,
    prefix: &str,
    files: &mut BTreeMap<String, String>,
) -> Result<(), CommandError> {
    for entry in std::fs::read_dir(folder)
        .map_err(file_error(folder))?
        .flatten()
    {
        let (path, name) = (entry.path(), entry.file_name());
        let name = format!("{prefix}{}", name.to_string_lossy());
        if path.is_dir() {
            read_below(&path, &format!("{name}/"), files)?;
        } else if name.ends_with(".yaml") || name.ends_with(".yml") || name.ends_with(".json") {
            files.insert(
                name,
                std::fs::read_to_string(&path).map_err(file_error(&path))?,
            );
        }
    }
    Ok(())
}

/// Brings the scenario's lab up, plays it, takes the lab down, and says whether every promise held.
///
/// The lab goes whatever happens meanwhile, SIGINT and SIGTERM included.
pub fn run(
    collection: &Collection,
    options: &RunOptions,
    out: &mut dyn Write,
) -> Result<bool, CommandError> {
    let scenario = collection.scenario()?;
    let begin = Instant::now();
    say(
        out,
        &format!("{}: {}", scenario.metadata.name, scenario.title),
    )?;
    // A name of its own, so that a lab of the same scenario that somebody works in stays.
    let name = format!("{}-run-{}", scenario.metadata.name, std::process::id());
    let lab = Lab::named(&name)?;
    if !options.keep {
        clean_up_on_signals(&lab)?;
    }
    let played = up_and_play(collection, &scenario, &lab, options, out);
    if !options.keep {
        take_down(&lab)?;
    }
    let report = played?;
    if options.keep {
        say(
            out,
            &format!("the lab stays: weir lab shell {name}; weir lab down {name}"),
        )?;
    }
    say(out, &summary(&report, begin.elapsed().as_secs_f64()))?;
    Ok(report.failures.is_empty())
}

fn say(out: &mut dyn Write, text: &str) -> Result<(), CommandError> {
    writeln!(out, "{text}").map_err(file_error(Path::new("stdout")))
}

fn up_and_play(
    collection: &Collection,
    scenario: &Scenario,
    lab: &Lab,
    options: &RunOptions,
    out: &mut dyn Write,
) -> Result<Report, CommandError> {
    let begin = Instant::now();
    let tutorial = collection.tutorial()?;
    let up = UpOptions {
        enforcement: options.enforcement,
        ..collection.up_options(lab, Extent::TutorialsStart)?
    };
    let status = lab::up(lab, &up)?;
    let seconds = begin.elapsed().as_secs_f64();
    say(
        out,
        &format!("{} pods are ready after {seconds:.1} s", status.pods.len()),
    )?;
    let program = std::env::current_exe().map_err(file_error(Path::new("this program")))?;
    let file = lab.read_file().map_err(file_error(Path::new("lab.json")))?;
    let surroundings = Surroundings {
        program: program.clone(),
        folder: collection.folder(lab),
        variables: lab::variables(lab, &file)?,
    };
    let stage = Stage {
        lab,
        files: &collection.files,
        program,
        tutorial: tutorial.as_ref(),
        surroundings,
    };
    play(scenario, &stage, out).map_err(|error| CommandError::Refused(error.to_string()))
}

/// Takes the lab down, once: a signal may come while the scenario's own end is at it.
fn take_down(lab: &Lab) -> Result<(), CommandError> {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if lab.exists() { lab::down(lab) } else { Ok(()) }
}

/// Takes the lab down and ends this process when somebody ends it.
fn clean_up_on_signals(lab: &Lab) -> Result<(), CommandError> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])
        .map_err(file_error(Path::new("signals")))?;
    let lab = lab.clone();
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            if let Err(error) = take_down(&lab) {
                eprintln!("error: {error}");
            }
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

fn summary(report: &Report, seconds: f64) -> String {
    let mut text = String::from("\n");
    for failure in &report.failures {
        text += &format!("FAILED: {failure}\n");
    }
    if report.commands > 0 {
        text += &format!(
            "{} commands typed, {} outputs held against the tutorial's\n",
            report.commands, report.compared
        );
    }
    let verdict = if report.failures.is_empty() {
        "every promise held"
    } else {
        "FAILED"
    };
    text += &format!(
        "{verdict}: {} connections tried, {} denials found in the log, {} failures, {seconds:.1} s",
        report.probes,
        report.denials_logged,
        report.failures.len()
    );
    text
}
