//! Policy unit tests: files that say what may reach what, judged by the table that workers run.
//!
//! A file holds YAML documents of kind `PolicyTest` and, beside them, plain objects that all its
//! tests have in common. `docs/testing-policies.md` describes the format for its users; [`model`]
//! is the format itself, [`load`] reads it strictly, [`run`] judges one test. No daemon and no
//! privilege is needed: the objects of a test make a cluster of their own, which is lowered and
//! compiled as the daemon's is.

mod decode;
mod flows;
mod judge;
mod lines;
mod load;
pub mod model;
pub mod report;
mod run;
mod scene;

pub use flows::{Ends, Flow, Flows, FlowsError, MAX_FLOWS};
pub use load::{File, LoadError, LoadOptions, load};
pub use model::PolicyTest;
pub use run::{
    Failure, MAX_FAILURES, Options, Outcome, PolicyKey, Shared, Verdict, run, untouched,
};
pub use scene::{Scene, StepError};
