//! Words that stand for several kinds: `all`, and the categories that CustomResourceDefinitions name.

use crate::cli::session::Session;
use crate::objects::kinds::find_resource;

use super::Named;

/// The kinds of `all` that everybody knows.
pub const ALL: &[&str] = &[
    "pods",
    "replicationcontrollers",
    "services",
    "daemonsets",
    "deployments",
    "replicasets",
    "statefulsets",
    "horizontalpodautoscalers",
    "cronjobs",
    "jobs",
];

/// What is named, with the kinds of a category in its place.
pub fn expand(session: &Session, wanted: Vec<Named>) -> Vec<Named> {
    let is_known = |one: &Named| one.resource != "all" && find_resource(&one.resource).is_some();
    if wanted.iter().all(is_known) {
        return wanted;
    }
    let definitions = session.definitions();
    let mut expanded = Vec::new();
    for one in wanted {
        if is_known(&one) || definitions.find_resource(&one.resource).is_some() {
            expanded.push(one);
            continue;
        }
        let own = if one.resource == "all" { ALL } else { &[] };
        let defined = definitions
            .iter()
            .filter(|definition| definition.categories.contains(&one.resource));
        let kinds: Vec<Named> = { own.iter().map(|kind| (*kind).to_owned()) }
            .chain(defined.map(|definition| definition.name()))
            .map(|resource| Named {
                resource,
                names: one.names.clone(),
            })
            .collect();
        match kinds.is_empty() {
            true => expanded.push(one),
            false => expanded.extend(kinds),
        }
    }
    expanded
}
