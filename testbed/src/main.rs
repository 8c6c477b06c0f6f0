//! `weir-lab`: the lab's resident agent and its commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("__pod-init") => match testbed::pod::init::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("pod init: {error}");
                ExitCode::FAILURE
            }
        },
        Some("__stage") => {
            let spec = arguments.next().unwrap_or_default();
            ExitCode::from(testbed::pod::stage::become_program(&spec) as u8)
        }
        _ => ExitCode::FAILURE,
    }
}
