//! `api-resources`: the kinds there are.

use crate::cli::flags::{Flag, switch, value};
use crate::cli::session::{Session, VerbError};
use crate::cli::table::Table;
use crate::objects::Kind;
use crate::objects::kinds::KINDS;

use super::OUTPUT;
use super::get::ALL;

/// Flags of `api-resources`.
pub const FLAGS: &[Flag] = &[
    switch(
        "namespaced",
        None,
        "Only kinds that live in namespaces; =false: only those that do not",
    ),
    value(
        "api-group",
        None,
        "Only kinds of this group; '' is the core group",
    ),
    value("verbs", None, "Only kinds that know all these verbs"),
    value("sort-by", None, "name or kind, in place of the group"),
    switch("no-headers", None, "Leave out the header"),
    OUTPUT,
];

/// What can be done with objects of every kind.
const VERBS: [&str; 7] = [
    "create", "delete", "get", "list", "patch", "update", "watch",
];

/// Runs `api-resources`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let parsed = &session.parsed;
    if !parsed.arguments.is_empty() {
        let extra = parsed.arguments.join(" ");
        return Err(VerbError::Usage(format!("unexpected arguments: [{extra}]")));
    }
    let output = parsed.value("output").unwrap_or_default();
    if !["", "wide", "name"].contains(&output) {
        return Err(VerbError::Local(format!(
            "--output {output} is not available"
        )));
    }
    let order: fn(&Kind) -> &'static str = match parsed.value("sort-by").unwrap_or_default() {
        "" => Kind::group,
        "name" => |kind| kind.plural,
        "kind" => |kind| kind.kind,
        _ => {
            return Err(VerbError::Local(
                "--sort-by accepts only name or kind".into(),
            ));
        }
    };
    let scope = parsed
        .was_given("namespaced")
        .then(|| parsed.is_on("namespaced"));
    let group = parsed.value("api-group");
    let known = parsed
        .values("verbs")
        .iter()
        .all(|verb| VERBS.contains(verb));
    let mut kinds: Vec<&Kind> = KINDS
        .iter()
        .filter(|kind| known && scope.is_none_or(|namespaced| namespaced == kind.namespaced))
        .filter(|kind| group.is_none_or(|group| group == kind.group()))
        .collect();
    kinds.sort_by_key(|kind| (order(kind), kind.plural));
    if output == "name" {
        for kind in kinds {
            println!("{}", kind.qualified_plural());
        }
        return Ok(());
    }
    print!(
        "{}",
        table(&kinds, output == "wide").render(!parsed.is_on("no-headers"))
    );
    Ok(())
}

fn table(kinds: &[&Kind], wide: bool) -> Table {
    let mut header = vec!["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"];
    if wide {
        header.extend(["VERBS", "CATEGORIES"]);
    }
    let mut table = Table::new(header);
    for kind in kinds {
        let mut row = vec![
            kind.plural.to_owned(),
            kind.short_names.join(","),
            kind.api_version.to_owned(),
            kind.namespaced.to_string(),
            kind.kind.to_owned(),
        ];
        if wide {
            let all = ALL.contains(&kind.plural);
            row.extend([VERBS.join(","), if all { "all" } else { "" }.to_owned()]);
        }
        table.push(row);
    }
    table
}
