//! Tests on real namespaces, processes and packets: `cargo test -p weir-testbed --test real
//! [FILTER]`. Each is `ok`, `FAILED` or `skipped: REASON`; without root all are skipped.

mod agent;
mod cases;
mod closed;
mod enforcement;
mod jumbo;
mod lab;
mod pod;
mod scenarios;
mod services;
mod stand_ins;
mod verbs;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// A test's outcome short of a panic.
pub type Outcome = Result<(), Skipped>;

/// Why a test could not be run here.
#[derive(Debug)]
pub struct Skipped(pub String);

/// The `weir-lab` of this build.
pub const WEIR_LAB: &str = env!("CARGO_BIN_EXE_weir-lab");

/// The `weir-applets` of this build.
pub const WEIR_APPLETS: &str = env!("CARGO_BIN_EXE_weir-applets");

/// A test's name and what it does.
pub type Test = (&'static str, fn() -> Outcome);

fn main() -> ExitCode {
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let tests: Vec<Test> = [
        pod::TESTS,
        agent::TESTS,
        enforcement::TESTS,
        jumbo::TESTS,
        closed::TESTS,
        verbs::TESTS,
        cases::TESTS,
        scenarios::TESTS,
        services::TESTS,
        stand_ins::TESTS,
    ]
    .concat();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, test) in tests {
        if filter
            .as_ref()
            .is_some_and(|filter| !name.contains(filter.as_str()))
        {
            continue;
        }
        let outcome = if rustix::process::geteuid().is_root() {
            catch_unwind(AssertUnwindSafe(test))
        } else {
            Ok(Err(Skipped("needs root".into())))
        };
        match outcome {
            Ok(Ok(())) => {
                passed += 1;
                println!("test {name} ... ok");
            }
            Ok(Err(Skipped(reason))) => {
                skipped += 1;
                println!("test {name} ... skipped: {reason}");
            }
            Err(_) => {
                failed += 1;
                println!("test {name} ... FAILED");
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    ExitCode::from(u8::from(failed > 0))
}
