//! `weir-applets`: the programs of the images that labs know ([`testbed::images`]).

use std::process::ExitCode;

fn main() -> ExitCode {
    testbed::images::applets::run(std::env::args_os().map(|argument| {
        // Programs here take hosts, ports and paths: bytes that are no UTF-8 name none of these.
        argument.to_string_lossy().into_owned()
    }))
}
