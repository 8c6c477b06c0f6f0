//! `apply view-last-applied`: what `apply` remembers of objects.

use serde_json::Value;

use crate::cli::output::{Form, unmatched};
use crate::cli::session::{Session, VerbError};
use crate::cluster::LAST_APPLIED;

use super::find::find;

const WORD: &str = "view-last-applied";
/// What kubectl does beside, and the daemon's `apply` makes needless.
const FOREIGN: [&str; 2] = ["edit-last-applied", "set-last-applied"];

/// Whether the arguments of `apply` ask for it.
pub fn is_meant(arguments: &[String]) -> bool {
    let first = arguments.first().map(String::as_str);
    first.is_some_and(|first| first == WORD || FOREIGN.contains(&first))
}

/// Prints it.
pub fn view(session: &mut Session) -> Result<(), VerbError> {
    let word = session.parsed.arguments.remove(0);
    if word != WORD {
        let text = format!("apply {word} is not supported: apply the file again");
        return Err(VerbError::Local(text));
    }
    let form = match session.parsed.value("output") {
        None | Some("" | "yaml") => Form::Yaml,
        Some("json") => Form::Json,
        Some(other) => return Err(unmatched(other, false)),
    };
    let mut client = session.connect()?;
    let (found, mut errors) = find(session, &mut client, false)?;
    for one in &found {
        let remembered = one.object["metadata"]["annotations"][LAST_APPLIED].as_str();
        let Some(text) = remembered else {
            errors.push(VerbError::Local(format!(
                "no last-applied-configuration annotation found on resource: {}",
                one.name()
            )));
            continue;
        };
        let value: Value = serde_json::from_str(text)
            .map_err(|error| VerbError::Local(format!("{}: {error}", one.name())))?;
        print!("{}", form.render(&value)?);
    }
    VerbError::all(errors)
}
