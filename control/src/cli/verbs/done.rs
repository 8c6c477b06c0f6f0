//! How verbs that change or wait for objects one by one say so: `deployment.apps/web scaled`, or
//! the object in the form that `-o` names.

use std::io::Write;

use serde_json::Value;

use crate::cli::kubectl_version::KubectlVersion;
use crate::cli::output::{Form, unmatched};
use crate::cli::session::{Session, VerbError};

use super::mutate::DryRun;

/// The printer of one invocation.
pub struct Done {
    form: Option<Form>,
    dry_run: DryRun,
    printed: usize,
    kubectl: KubectlVersion,
}

impl Done {
    /// By `-o` and `--template`.
    pub fn new(session: &Session, dry_run: DryRun) -> Result<Done, VerbError> {
        let form = match session.parsed.value("output") {
            None | Some("") if session.parsed.value("template").is_none() => None,
            None | Some("") => Some(Form::of(&session.parsed)?),
            Some("wide") => {
                return Err(unmatched("wide", false));
            }
            Some(other) => match Form::of(&session.parsed)? {
                Form::CustomColumns(_) => return Err(unmatched(other, false)),
                form => Some(form),
            },
        };
        Ok(Done {
            form,
            dry_run,
            printed: 0,
            kubectl: session.kubectl()?,
        })
    }

    /// Prints that `operation` was done to `object`; `shown` stands before its name.
    pub fn print(&mut self, shown: &str, object: &Value, operation: &str) -> Result<(), VerbError> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let text = match &self.form {
            None => {
                let line = self.kubectl.done(shown, name, operation);
                format!("{line}{}\n", self.dry_run.suffix())
            }
            Some(Form::Name) => format!("{shown}/{name}\n"),
            Some(form @ Form::Yaml) if self.printed > 0 => format!("---\n{}", form.render(object)?),
            Some(form) => form.render(object)?,
        };
        self.printed += 1;
        let mut out = std::io::stdout().lock();
        // Whoever waits for the line sees it when it is due.
        Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
    }
}
