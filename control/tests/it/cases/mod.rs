//! What policy must do. Most of it is data, `testbed/cases`, which [`files`] judges; here is what
//! data cannot say: objects that neither defaults nor validation have seen, warnings, and sizes.

mod as_written;
mod batch;
mod cyclonus;
mod files;
mod limits;
pub(crate) mod scene;
mod validation;

use scene::Scene;

/// The cases that are data.
fn folder() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../testbed/cases")
}

/// The standard scene with these policies (`NAMESPACE/NAME`, spec), and what must happen.
fn judge(policies: &[(&str, &str)], expectations: &str) {
    let mut scene = Scene::new();
    for (name, spec) in policies {
        scene.policy(name, spec);
    }
    scene.holds_as_written(expectations);
}

/// Several ways to write one policy, each of which must do the same.
fn judge_each(specs: &[&str], expectations: &str) {
    for spec in specs {
        judge(&[("x/p", spec)], expectations);
    }
}

/// A spec that validation refuses with exactly these complaints, and that, met anyway (in a file,
/// in a store written by another version), must do this.
fn judge_refused(spec: &str, complaints: &[&str], expectations: &str) {
    let mut scene = Scene::new();
    scene.policy("x/p", spec);
    scene.refused("The NetworkPolicy \"p\" is invalid: ", complaints);
    scene.holds_as_written(expectations);
}
