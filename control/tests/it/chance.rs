//! Random cases: how many, and which.

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// A runner of as many cases as `WEIR_CASES` says, else of `usual`. They are the same ones every
/// time; another number in `WEIR_SEED` makes others.
pub fn runner(usual: u32, config: Config) -> TestRunner {
    let seed = number("WEIR_SEED").unwrap_or(0);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let cases = number("WEIR_CASES").map_or(usual, |cases| cases as u32);
    let config = Config {
        cases,
        // A counterexample is printed, and becomes a test of its own.
        failure_persistence: None,
        ..config
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// A variable's number. What is set and is none would quietly run the usual cases.
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let parsed = text.parse();
    Some(parsed.unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}
