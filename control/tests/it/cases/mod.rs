//! NetworkPolicy by hand: manifests, and what becomes of connections under them.
//!
//! Every case says in a line what must happen, and is judged by the compiled engine (lowered, then
//! looked up in the table that the workers run), by the executable specification and by `trace`.
//! It is judged twice: as the store keeps it (defaults filled in, validated) and as it was written
//! (nothing filled in), because files and tests hold what no API server has seen.

mod bugs;
mod limits;
mod rules;
mod scene;
mod truth_table;
mod validation;

pub(crate) use scene::Scene;

/// The standard scene with these policies (`NAMESPACE/NAME`, spec), and what must happen.
fn judge(policies: &[(&str, &str)], expectations: &str) {
    let mut scene = Scene::new();
    for (name, spec) in policies {
        scene.policy(name, spec);
    }
    scene.holds(expectations);
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
