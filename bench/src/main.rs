//! `weir-bench`, the program.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir_bench::command_line::main()
}
