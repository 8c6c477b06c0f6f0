//! `api-resources`: the kinds there are.

use crate::cli::flags::{Flag, switch, value};
use crate::cli::session::{Session, VerbError};
use crate::cli::table::Table;
use crate::objects::Kind;
use crate::objects::kinds::KINDS;

use super::OUTPUT;
use super::categories::ALL;

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
    let order: fn(&Row) -> String = match parsed.value("sort-by").unwrap_or_default() {
        "" => |row| row.kind.group().to_owned(),
        "name" => |row| row.kind.plural.to_owned(),
        "kind" => |row| row.kind.kind.to_owned(),
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
    let definitions = session.definitions();
    let defined = definitions.iter().map(|definition| Row {
        kind: definition.kind,
        short_names: definition.short_names.join(","),
        categories: definition.categories.join(","),
    });
    let mut rows: Vec<Row> = { KINDS.iter().map(Row::known).chain(defined) }
        .filter(|row| known && scope.is_none_or(|namespaced| namespaced == row.kind.namespaced))
        .filter(|row| group.is_none_or(|group| group == row.kind.group()))
        .collect();
    rows.sort_by_cached_key(|row| (order(row), row.kind.plural));
    if output == "name" {
        for row in rows {
            println!("{}", row.kind.qualified_plural());
        }
        return Ok(());
    }
    print!(
        "{}",
        table(&rows, output == "wide").render(!parsed.is_on("no-headers"))
    );
    Ok(())
}

/// A kind, with its other names.
struct Row {
    kind: &'static Kind,
    short_names: String,
    categories: String,
}

impl Row {
    fn known(kind: &'static Kind) -> Row {
        let all = if ALL.contains(&kind.plural) {
            "all"
        } else {
            ""
        };
        Row {
            kind,
            short_names: kind.short_names.join(","),
            categories: all.to_owned(),
        }
    }
}

fn table(rows: &[Row], wide: bool) -> Table {
    let mut header = vec!["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"];
    if wide {
        header.extend(["VERBS", "CATEGORIES"]);
    }
    let mut table = Table::new(header);
    for Row {
        kind,
        short_names,
        categories,
    } in rows
    {
        let mut row = vec![
            kind.plural.to_owned(),
            short_names.clone(),
            kind.api_version.to_owned(),
            kind.namespaced.to_string(),
            kind.kind.to_owned(),
        ];
        if wide {
            row.extend([VERBS.join(","), categories.clone()]);
        }
        table.push(row);
    }
    table
}
