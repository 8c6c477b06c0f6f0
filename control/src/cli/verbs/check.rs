//! `check`: what this machine has and lacks, each with the command that mends it.

use crate::check::{self, Weight};
use crate::cli::flags::{self, Flag};
use crate::cli::output::Form;
use crate::cli::session::{Session, VerbError};

use super::{OUTPUT, TEMPLATE};

/// Flags of `check`.
pub const FLAGS: &[Flag] = &[
    flags::value("config", None, "Configuration; default /etc/weir/weir.toml"),
    OUTPUT,
    TEMPLATE,
];

/// Runs `check`. Exit status 1 if the daemon cannot run here.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let form = Form::parse(
        session.parsed.value("output"),
        session.parsed.value("template"),
    )?;
    let path = session.parsed.value("config").map(std::path::Path::new);
    let config =
        crate::daemon::load_config(path).map_err(|error| VerbError::Local(error.to_string()))?;
    let findings = check::run(&config);
    if matches!(form, Form::Table { .. }) {
        for finding in &findings {
            println!("{}", check::line(finding));
        }
    } else {
        let value =
            serde_json::to_value(&findings).map_err(|error| VerbError::Local(error.to_string()))?;
        print!("{}", form.render(&value)?);
    }
    let missing = findings
        .iter()
        .any(|finding| finding.weight == Weight::Missing);
    if missing {
        Err(VerbError::Status(1))
    } else {
        Ok(())
    }
}
