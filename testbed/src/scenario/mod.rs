//! Scenarios: a tutorial as data, played on real packets.
//!
//! A scenario's folder holds `scenario.yaml` and the tutorial's manifests. [`play`] brings every
//! step about, measures its matrix with real connections and holds it against the promise. This
//! code reads neither policies nor verdicts: it applies files, connects, and reads the denial log.

pub mod denials;
pub mod grid;
pub mod matrix;
pub mod play;
pub mod replay;
pub mod run;
pub mod typed;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use grid::Grid;
pub use play::{PlayError, Report, play};
pub use typed::Typed;

use crate::tutorial::Tutorial;
pub use run::{Collection, Extent, RunOptions, run};

/// The `apiVersion` of `scenario.yaml`.
pub const API_VERSION: &str = "weir.dev/v1alpha1";

/// A scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Scenario {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `Scenario`.
    pub kind: String,
    /// Its name.
    pub metadata: Metadata,
    /// A line for a person.
    pub title: String,
    /// Files and folders, relative to the scenario's, that hold what the lab runs at the tutorial's
    /// start.
    #[serde(default)]
    pub manifests: Vec<String>,
    /// The kubectl that the tutorial was written for, as `1.8`; default Weir's own.
    #[serde(default)]
    pub kubectl: Option<String>,
    /// Files and folders that the tutorial applies before its policies: `lab up` brings them up,
    /// too.
    #[serde(default)]
    pub application: Vec<String>,
    /// The folder, relative to the scenario's, that the tutorial's `~` means.
    #[serde(default)]
    pub home: Option<String>,
    /// What the tutorial gives `prepare-environment` to name its start.
    #[serde(default)]
    pub module: Option<String>,
    /// Addresses that the tutorial names, and the folders, relative to the scenario's, that hold
    /// copies of what lies below them: `apply -f` of such an address reads the copy.
    #[serde(default)]
    pub urls: BTreeMap<String, String>,
    /// Who takes part, by the letters that the matrices use.
    pub ends: BTreeMap<String, End>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// `metadata`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// The scenario's and the lab's name.
    pub name: String,
}

/// One that connects, is connected to, or both.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct End {
    /// Namespace of its pod; absent for an end outside.
    pub pods: Option<String>,
    /// Label selector of its pod, which must choose exactly one.
    pub selector: Option<String>,
    /// The name that others connect to.
    pub name: Option<String>,
    /// The TCP port that others connect to.
    pub port: Option<u16>,
    /// The pod's port, if a Service has another: the one that the denial log names.
    pub target_port: Option<u16>,
    /// Start a process in the pod that listens on the port.
    #[serde(default)]
    pub listen: bool,
}

/// One step.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// A line for a person.
    pub title: String,
    /// What is applied first.
    #[serde(default)]
    pub apply: Vec<Apply>,
    /// What is typed then.
    #[serde(default)]
    pub play: Vec<Typed>,
    /// The promise. A step without one changes no policy.
    #[serde(default)]
    pub matrix: Option<Grid>,
    /// By column, or `*` for all: the policy, `NAMESPACE/NAME`, that the log must name.
    #[serde(default)]
    pub denied_by: BTreeMap<String, String>,
}

/// A file to apply.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// Relative to the scenario's folder.
    pub file: String,
    /// As kubectl's `-n`.
    pub namespace: Option<String>,
}

/// Why a `scenario.yaml` is refused.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It is no scenario.
    #[error("scenario.yaml: {0}")]
    Parse(#[from] serde_yaml_ng::Error),
    /// It contradicts itself.
    #[error("scenario {scenario}, step \"{step}\": {what}")]
    Wrong {
        /// The scenario's name.
        scenario: String,
        /// The step's title.
        step: String,
        /// What is wrong.
        what: String,
    },
    /// What is typed does not fit the tutorial.
    #[error("scenario {scenario}: {what}")]
    Play {
        /// The scenario's name.
        scenario: String,
        /// What is wrong.
        what: String,
    },
}

impl Scenario {
    /// Reads and checks a `scenario.yaml`.
    ///
    /// A denial counts only after the same probe has succeeded in an earlier step: a `-` or `?`
    /// without that is refused here, so that no promise can hold for a wrong reason.
    pub fn parse(text: &str) -> Result<Scenario, ScenarioError> {
        let scenario: Scenario = serde_yaml_ng::from_str(text)?;
        let mut succeeded = std::collections::HashSet::new();
        for step in &scenario.steps {
            let wrong = |what: String| ScenarioError::Wrong {
                scenario: scenario.metadata.name.clone(),
                step: step.title.clone(),
                what,
            };
            for cell in step.matrix.iter().flat_map(Grid::cells) {
                let (from, to) = (cell.row.to_owned(), cell.column.to_owned());
                scenario.check_cell(&from, &to).map_err(&wrong)?;
                match cell.sign {
                    '+' => _ = succeeded.insert((from, to)),
                    '-' | '?' if !succeeded.contains(&(from.clone(), to.clone())) => {
                        let what = "is denied before it has ever succeeded";
                        return Err(wrong(format!("{from} to {to} {what}")));
                    }
                    '-' | '?' if step.denying_policy(&to).is_none() => {
                        let what = "is denied, but denied_by names no policy for it";
                        return Err(wrong(format!("{from} to {to} {what}")));
                    }
                    _ => {}
                }
            }
        }
        Ok(scenario)
    }

    /// The tutorial that the play is of, if the collection has one, held against the play.
    pub fn tutorial(&self, text: Option<&str>) -> Result<Option<Tutorial>, ScenarioError> {
        let wrong = |what: String| ScenarioError::Play {
            scenario: self.metadata.name.clone(),
            what,
        };
        let Some(text) = text else {
            let line = self.typed().find_map(|typed| typed.line);
            return match line {
                None => Ok(None),
                Some(line) => Err(wrong(format!("line {line} is of no tutorial.yaml"))),
            };
        };
        let tutorial = Tutorial::parse(text).map_err(|error| wrong(error.to_string()))?;
        self.check_play(&tutorial).map_err(wrong)?;
        Ok(Some(tutorial))
    }

    fn check_cell(&self, from: &str, to: &str) -> Result<(), String> {
        let row = self
            .ends
            .get(from)
            .ok_or_else(|| format!("no end is called {from}"))?;
        let column = self
            .ends
            .get(to)
            .ok_or_else(|| format!("no end is called {to}"))?;
        if row.pods.is_none() || row.selector.is_none() {
            return Err(format!("{from} has no pod, so that it cannot connect"));
        }
        if column.name.is_none() || column.port.is_none() {
            return Err(format!(
                "{to} has no name or no port, so that nobody can connect to it"
            ));
        }
        Ok(())
    }
}

impl Step {
    /// The policy that the log must name for a denial on the way to `column`.
    pub fn denying_policy(&self, column: &str) -> Option<&str> {
        self.denied_by
            .get(column)
            .or_else(|| self.denied_by.get("*"))
            .map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: weir.dev/v1alpha1\nkind: Scenario\nmetadata: {name: t}\n\
        title: t\nmanifests: []\nends:\n  A: {pods: n, selector: a=b, name: a, port: 1}\n  \
        B: {pods: n, selector: b=b, name: b, port: 2}\nsteps:\n";

    fn parse(steps: &str) -> Result<Scenario, String> {
        Scenario::parse(&format!("{HEAD}{steps}")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_denial_without_an_earlier_success_is_refused() {
        let denied =
            "- title: closed\n  matrix: |\n    from A B\n    A . -\n  denied_by: {B: n/p}\n";
        assert!(
            parse(denied)
                .unwrap_err()
                .contains("before it has ever succeeded")
        );
        let open = "- title: open\n  matrix: |\n    from A B\n    A . +\n";
        assert_eq!(parse(&format!("{open}{denied}")).unwrap().steps.len(), 2);
    }

    #[test]
    fn a_denial_must_name_its_policy() {
        let steps = "- title: open\n  matrix: |\n    from A B\n    A . +\n\
            - title: closed\n  matrix: |\n    from A B\n    A . -\n";
        assert!(
            parse(steps)
                .unwrap_err()
                .contains("denied_by names no policy")
        );
    }

    #[test]
    fn an_end_that_is_not_declared_is_refused() {
        let steps = "- title: open\n  matrix: |\n    from Z\n    A +\n";
        assert!(parse(steps).unwrap_err().contains("no end is called Z"));
    }

    #[test]
    fn the_scenarios_that_come_with_weir_are_sound() {
        for lab in config::labs::LABS {
            let text = lab.file("scenario.yaml").unwrap();
            let scenario = Scenario::parse(text).unwrap();
            assert_eq!(scenario.metadata.name, lab.name);
            scenario.tutorial(lab.file("tutorial.yaml")).unwrap();
            assert_eq!(
                (scenario.api_version.as_str(), scenario.kind.as_str()),
                (API_VERSION, "Scenario")
            );
            let applied = scenario
                .steps
                .iter()
                .flat_map(|step| &step.apply)
                .map(|a| &a.file);
            for file in applied {
                assert!(lab.file(file).is_some(), "{}: {file}", lab.name);
            }
        }
    }
}
