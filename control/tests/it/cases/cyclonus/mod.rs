//! The cases that cyclonus generates (mattfenwick/cyclonus `pkg/generator`), made anew: 230 of them,
//! over three namespaces x, y, z with pods a, b, c and ports 80 and 81 of TCP, UDP and SCTP.
//!
//! What they prove: the truth tables come neither from the engine nor from the specification. Every
//! building block, a peer or a port item, is written down with its meaning beside it, as a list of
//! pods or of ports that somebody worked out by hand; [`table::allowed`] combines these lists by the
//! API's three sentences (isolated or not, any rule, peers and ports). So the files under
//! `testbed/cases/upstream/cyclonus` are right if the lists are, and whoever disagrees with one can
//! point at its line. What they do not prove is selectors: no selector is evaluated here.
//!
//! `WEIR_WRITE_CASES=1 cargo test -p weir-control --test it cyclonus` writes the files again.

mod generate;
mod steps;
mod table;

use std::path::PathBuf;

use super::folder;

/// The files and how many cases each has.
const FILES: [(&str, usize); 9] = [
    ("targets", 6),
    ("rules", 4),
    ("peers-of-ingress", 56),
    ("peers-of-egress", 56),
    ("ports-of-ingress", 35),
    ("ports-of-egress", 35),
    ("conflicts", 16),
    ("actions", 7),
    ("end-to-end", 15),
];

#[test]
fn the_files_of_cyclonus_cases_are_what_the_generator_makes() {
    let write = std::env::var_os("WEIR_WRITE_CASES").is_some();
    let mut all = 0;
    for (name, count) in FILES {
        let cases = generate::cases(name);
        assert_eq!(cases.len(), count, "{name}");
        all += count;
        let text = table::file(name, &cases);
        let path: PathBuf = folder()
            .join("upstream/cyclonus")
            .join(format!("{name}.yaml"));
        if write {
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == text,
            "{} is not what the generator makes; WEIR_WRITE_CASES=1 writes it",
            path.display()
        );
    }
    assert_eq!(all, 230);
}
