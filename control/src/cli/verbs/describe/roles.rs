//! Roles and their bindings as `kubectl describe` prints them.

use serde_json::Value;

use super::page::{Page, items, text};

/// What a rule says of one resource, or of one path that is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rule<'r> {
    group: Option<&'r str>,
    resource: &'r str,
    name: Option<&'r str>,
    path: Option<&'r str>,
    verbs: Vec<&'r str>,
}

impl Rule<'_> {
    /// `deployments.apps/scale`.
    fn resource(&self) -> String {
        let (resource, below) = match self.resource.split_once('/') {
            Some((resource, below)) => (resource, format!("/{below}")),
            None => (self.resource, String::new()),
        };
        match self.group {
            None | Some("") => format!("{resource}{below}"),
            Some(group) => format!("{resource}.{group}{below}"),
        }
    }
}

/// `Role` and `ClusterRole`: a line for each resource, with all verbs that some rule gives it.
pub fn role(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(object, "/metadata/name"));
    page.labels(object);
    page.annotations(object);
    page.line(0, "PolicyRule:");
    page.line(1, "Resources\tNon-Resource URLs\tResource Names\tVerbs");
    page.line(1, "---------\t-----------------\t--------------\t-----");
    let bracketed = |one: Option<&str>| format!("[{}]", one.unwrap_or_default());
    for rule in compact(items(object, "/rules")) {
        page.line(
            1,
            format!(
                "{}\t{}\t{}\t[{}]",
                rule.resource(),
                bracketed(rule.path),
                bracketed(rule.name),
                rule.verbs.join(" ")
            ),
        );
    }
}

/// Rules of one resource each, those of the same one together, in kubectl's order: by their verbs.
fn compact(rules: &[Value]) -> Vec<Rule<'_>> {
    let mut found: Vec<Rule<'_>> = Vec::new();
    for rule in rules {
        let texts = |field: &str| -> Vec<&str> {
            let list = items(rule, field).iter();
            list.filter_map(Value::as_str).collect()
        };
        let verbs = texts("/verbs");
        let names: Vec<Option<&str>> = match texts("/resourceNames") {
            none if none.is_empty() => vec![None],
            names => names.into_iter().map(Some).collect(),
        };
        for group in texts("/apiGroups") {
            for resource in texts("/resources") {
                for name in &names {
                    let about = Rule {
                        group: Some(group),
                        resource,
                        name: *name,
                        ..Rule::default()
                    };
                    add(&mut found, about, &verbs);
                }
            }
        }
        found.extend(texts("/nonResourceURLs").into_iter().map(|path| Rule {
            path: Some(path),
            verbs: verbs.clone(),
            ..Rule::default()
        }));
    }
    found.sort_by_key(|rule| {
        let verbs = rule.verbs.join(" ");
        (verbs, rule.group, rule.resource, rule.name, rule.path)
    });
    found
}

fn add<'r>(found: &mut Vec<Rule<'r>>, about: Rule<'r>, verbs: &[&'r str]) {
    let same = |rule: &&mut Rule<'r>| {
        (rule.group, rule.resource, rule.name) == (about.group, about.resource, about.name)
    };
    match found.iter_mut().find(same) {
        Some(rule) => {
            let new = verbs.iter().filter(|verb| !rule.verbs.contains(verb));
            let new: Vec<&str> = new.copied().collect();
            rule.verbs.extend(new);
        }
        None => found.push(Rule {
            verbs: verbs.to_vec(),
            ..about
        }),
    }
}

/// `RoleBinding` and `ClusterRoleBinding`.
pub fn binding(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(object, "/metadata/name"));
    page.labels(object);
    page.annotations(object);
    page.line(0, "Role:");
    page.field(1, "Kind", text(object, "/roleRef/kind"));
    page.field(1, "Name", text(object, "/roleRef/name"));
    page.line(0, "Subjects:");
    page.line(1, "Kind\tName\tNamespace");
    page.line(1, "----\t----\t---------");
    for subject in items(object, "/subjects") {
        let [kind, name, namespace] =
            ["/kind", "/name", "/namespace"].map(|field| text(subject, field));
        page.line(1, format!("{kind}\t{name}\t{namespace}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_roles_rules_stand_together_by_resource() {
        let mut page = Page::default();
        role(
            &mut page,
            &json!({"metadata": {"name": "reader"}, "rules": [
                {"apiGroups": ["", "apps"], "resources": ["pods"], "verbs": ["watch"]},
                {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "watch"]},
                {"nonResourceURLs": ["/healthz"], "verbs": ["get"]}]}),
        );
        assert_eq!(
            page.render(),
            "\
Name:         reader
Labels:       <none>
Annotations:  <none>
PolicyRule:
  Resources  Non-Resource URLs  Resource Names  Verbs
  ---------  -----------------  --------------  -----
             [/healthz]         []              [get]
  pods/log   []                 []              [get watch]
  pods.apps  []                 []              [watch]
  pods       []                 []              [watch get]
"
        );
    }
}
