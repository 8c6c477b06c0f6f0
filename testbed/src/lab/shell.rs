//! A shell that means a lab: where it begins and what it finds.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{CommandError, Lab, LabFile, system};

/// Programs of the machine that tutorials pipe into, or run in pods.
const PROGRAMS: &[&str] = &["jq", "curl"];

/// Writes `prepare-environment`, as the EKS workshop's tutorials call it.
pub(super) fn write_prepare_environment(bin: &Path) -> Result<(), CommandError> {
    let program = std::env::current_exe().map_err(system("find this program"))?;
    let quoted = program.display().to_string().replace('\'', r"'\''");
    let text = format!(
        "#!/bin/sh\n# Brings the lab back to its tutorial's start.\nexec '{quoted}' prepare \"$@\"\n"
    );
    let path = bin.join("prepare-environment");
    fs::write(&path, text)
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
        .map_err(system(format!("write {}", path.display())))
}

/// What a shell of the lab has in its environment beyond the user's: `kubectl` is Weir, and both
/// mean this lab.
pub fn variables(lab: &Lab, file: &LabFile) -> Result<Vec<(String, OsString)>, CommandError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = vec![lab.folder().join("bin")];
    folders.extend(file.weir.parent().map(Path::to_owned));
    folders.extend(std::env::split_paths(&path));
    let path =
        std::env::join_paths(folders).map_err(|error| CommandError::Refused(error.to_string()))?;
    let mut variables = vec![
        ("PATH".into(), path),
        ("WEIR_LAB".into(), lab.name.clone().into()),
        ("WEIR_SOCKET".into(), lab.control_socket().into()),
    ];
    if let Some(home) = &file.home {
        variables.push(("HOME".into(), home.into()));
    }
    Ok(variables)
}

/// Becomes a shell in which `kubectl` is Weir and means this lab.
pub fn shell(lab: &Lab) -> Result<std::convert::Infallible, CommandError> {
    let file = lab.read_file().map_err(|_| {
        let name = &lab.name;
        CommandError::Refused(format!(
            "no lab called {name} runs; bring it up at its tutorial's start with: sudo weir lab \
             up {name} --tutorial"
        ))
    })?;
    let mut program = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    if !Path::new(&program).exists() {
        program = "/bin/sh".into();
    }
    let mut shell = Command::new(&program);
    shell.envs(variables(lab, &file)?);
    if let Some(folder) = file.folder.filter(|folder| folder.is_dir()) {
        println!("The files of lab {} are in {}", lab.name, folder.display());
        shell.current_dir(folder);
    }
    for program in missing_programs() {
        println!(
            "{program} is missing on this machine; to follow the tutorials: sudo apt-get install \
             {program}"
        );
    }
    let error = shell.exec();
    Err(CommandError::System {
        what: format!("run {}", program.display()),
        source: error,
    })
}

/// Those of the programs that tutorials need and the machine lacks.
fn missing_programs() -> Vec<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let lacks = |name: &&str| !folders.iter().any(|folder| folder.join(name).exists());
    PROGRAMS.iter().copied().filter(lacks).collect()
}
