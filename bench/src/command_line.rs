//! The command line of `weir-bench`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::output::Format;
use crate::{acl, change, compile, micro, policy, soak, system};

/// Measure Weir on this machine.
///
/// Results are medians of several runs with their extremes, under a line that names the machine and
/// the build. Build with `cargo build --release -p weir-bench`; other builds warn.
#[derive(Debug, Parser)]
#[command(name = "weir-bench", bin_name = "weir bench", version)]
struct CommandLine {
    #[command(subcommand)]
    benchmark: Benchmark,
    /// How to print the results.
    #[arg(short, long, value_enum, default_value_t = Format::Table, global = true)]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// The price of a new flow by five-tuple rules with random CIDRs, beside DPDK's `rte_acl`.
    Acl {
        /// Pairs of runs of each set of rules.
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
        runs: u16,
    },
    /// The dataplane's steps and the whole pipeline in memory, nanoseconds per packet.
    Micro(micro::Arguments),
    /// One change among many objects: request to last acknowledgement, idle and at half load, beside
    /// nft and iptables-restore. Needs root; works in network namespaces of its own.
    Change(change::Arguments),
    /// A whole cluster's objects compiled from scratch, and the steps of one change in it.
    Compile(compile::Arguments),
    /// Compiled policy on nodes of several sizes: time to compile, memory, time to decide.
    Policy {
        /// Runs of each measurement.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
        runs: u16,
    },
    /// Minutes of mixed load with policies and pods coming and going; fails if a frame is lost, the
    /// daemon grows, or policy is not what the self-check says. Needs root; works in network
    /// namespaces of its own.
    Soak(soak::Arguments),
    /// Real packets from pod to pod, end to end: throughput, latencies, TCP, CPU time and a node at
    /// rest, beside the kernel's filters, raw AF_XDP forwarding, XDP redirect and DPDK's testpmd.
    /// Needs root; works in network namespaces of its own.
    System(Box<system::Arguments>),
}

/// Measures what the command line asks for.
pub fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    let mut failures = Vec::new();
    let report = match &command_line.benchmark {
        Benchmark::Acl { runs } => acl::run((*runs).into()),
        Benchmark::Micro(arguments) => micro::run(arguments),
        Benchmark::Change(arguments) => change::run(arguments),
        Benchmark::Compile(arguments) => compile::run(arguments),
        Benchmark::Soak(arguments) => soak::run(arguments).map(|(report, wrong)| {
            failures = wrong;
            report
        }),
        Benchmark::System(arguments) => system::run(arguments),
        Benchmark::Policy { runs } => Ok(policy::run((*runs).into())),
    };
    match report {
        Ok(report) => {
            report.print(command_line.output);
            for failure in &failures {
                eprintln!("FAILED: {failure}");
            }
            match failures.as_slice() {
                [] => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Benchmark, CommandLine, Format};

    fn parse(words: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(["weir-bench"].into_iter().chain(words.split_whitespace()))
    }

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn micro_has_defaults_and_takes_several_counts_of_flows() {
        let CommandLine {
            benchmark: Benchmark::Micro(arguments),
            output,
        } = parse("micro").unwrap()
        else {
            panic!("not micro");
        };
        assert_eq!(
            (arguments.flows.as_slice(), output),
            (&[1_000, 100_000, 1_000_000][..], Format::Table)
        );
        let line = parse("micro --flows 1,20,300 --policies 0 --runs 3 --ipv6 -o json").unwrap();
        let Benchmark::Micro(arguments) = line.benchmark else {
            panic!("not micro");
        };
        assert_eq!(arguments.flows, [1, 20, 300]);
        assert_eq!(
            (arguments.policies, arguments.runs, arguments.ipv6),
            (0, 3, true)
        );
        assert_eq!(line.output, Format::Json);
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for words in [
            "",
            "macro",
            "micro --flows 0",
            "micro --flows 4000001",
            "micro --policies 10001",
            "micro --frame-bytes 59",
            "micro --frame-bytes 1515",
            "micro --runs 0",
            "policy --runs 0",
            "compile --local 0",
            "compile --runs 0",
            "change --local 1",
            "change --changes 0",
            "micro -o yaml",
            "soak --minutes 0",
            "soak --seconds 4",
            "system --rounds 0",
            "system --measure everything",
            "system --nice 20",
        ] {
            assert!(parse(words).is_err(), "{words}");
        }
    }
}
