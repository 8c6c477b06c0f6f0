//! `weir`: the command line and the daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    control::cli::main(std::env::args().skip(1).collect())
}
