//! What pods may take and what they ask for: quotas, limits, budgets, priorities, and a node's sums, as
//! `kubectl describe` prints them.

use config::Quantity;
use serde_json::Value;

use crate::cli::columns::{seconds_since_1970, selector};
use crate::cli::table::human_duration;

use super::containers::sorted;
use super::page::{Page, items, joined, text};

/// A number or a quantity of a map, as it is written.
fn amount(map: &Value, name: &str) -> Option<String> {
    match map.get(name)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// What a scope of a quota means.
fn scope_help(scope: &str) -> Option<&'static str> {
    Some(match scope {
        "Terminating" => {
            "Matches all pods that have an active deadline. These pods have a limited lifespan on a \
             node before being actively terminated by the system."
        }
        "NotTerminating" => {
            "Matches all pods that do not have an active deadline. These pods usually include long \
             running pods whose container command is not expected to terminate."
        }
        "BestEffort" => {
            "Matches all pods that do not have resource requirements set. These pods have a best \
             effort quality of service."
        }
        "NotBestEffort" => {
            "Matches all pods that have at least one resource requirement set. These pods have a \
             burstable or guaranteed quality of service."
        }
        _ => return None,
    })
}

/// Scopes and sums of a quota, `level` steps in.
fn quota_lines(page: &mut Page, object: &Value, level: usize, bullet: &str, rule: &str) {
    let scopes = items(object, "/spec/scopes").iter();
    let mut scopes: Vec<&str> = scopes.filter_map(Value::as_str).collect();
    scopes.sort_unstable();
    if !scopes.is_empty() {
        page.field(level, "Scopes", scopes.join(", "));
    }
    for help in scopes.iter().filter_map(|scope| scope_help(scope)) {
        page.line(level, format!("{bullet} {help}"));
    }
    page.line(level, "Resource\tUsed\tHard");
    page.line(level, format!("--------\t{rule}\t{rule}"));
    let used = &object["status"]["used"];
    for (name, hard) in sorted(object.pointer("/status/hard")) {
        let used = amount(used, name).unwrap_or_else(|| "0".to_owned());
        let hard = hard
            .as_str()
            .map_or_else(|| hard.to_string(), str::to_owned);
        page.line(level, format!("{name}\t{used}\t{hard}"));
    }
}

/// `ResourceQuota`.
pub fn quota(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(object, "/metadata/name"));
    page.field(0, "Namespace", text(object, "/metadata/namespace"));
    quota_lines(page, object, 0, " *", "----");
}

/// A namespace's quotas.
pub fn quotas(page: &mut Page, quotas: &[&Value]) {
    if quotas.is_empty() {
        return page.line(0, "No resource quota.");
    }
    page.line(0, "Resource Quotas");
    for one in quotas {
        page.field(1, "Name", text(one, "/metadata/name"));
        quota_lines(page, one, 1, "*", "---");
    }
}

/// `LimitRange`.
pub fn limit_range(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(object, "/metadata/name"));
    page.field(0, "Namespace", text(object, "/metadata/namespace"));
    limit_lines(page, "", &[object]);
}

/// A namespace's limits.
pub fn limit_ranges(page: &mut Page, ranges: &[&Value]) {
    if ranges.is_empty() {
        return page.line(0, "No LimitRange resource.");
    }
    page.line(0, "Resource Limits");
    limit_lines(page, " ", ranges);
}

fn limit_lines(page: &mut Page, indent: &str, ranges: &[&Value]) {
    const COLUMNS: [&str; 7] = [
        "Type",
        "Resource",
        "Min",
        "Max",
        "Default Request",
        "Default Limit",
        "Max Limit/Request Ratio",
    ];
    const FIELDS: [&str; 5] = [
        "min",
        "max",
        "defaultRequest",
        "default",
        "maxLimitRequestRatio",
    ];
    let rules = COLUMNS.map(|name| "-".repeat(name.len()));
    page.line(0, format!("{indent}{}", COLUMNS.join("\t")));
    page.line(0, format!("{indent}{}", rules.join("\t")));
    let limits = ranges.iter().flat_map(|range| items(range, "/spec/limits"));
    for limit in limits {
        let mut names: Vec<&str> = { FIELDS.iter() }
            .flat_map(|field| sorted(limit.get(*field)))
            .map(|(name, _)| name)
            .collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let cells = FIELDS.map(|field| {
                let found = limit.get(field).and_then(|map| amount(map, name));
                found.unwrap_or_else(|| "-".to_owned())
            });
            let kind = text(limit, "/type");
            page.line(0, format!("{indent}{kind}\t{name}\t{}", cells.join("\t")));
        }
    }
}

/// `PodDisruptionBudget`.
pub fn disruption_budget(page: &mut Page, object: &Value) {
    let spec = &object["spec"];
    page.field(0, "Name", text(object, "/metadata/name"));
    page.field(0, "Namespace", text(object, "/metadata/namespace"));
    let bound = amount(spec, "minAvailable").map(|bound| ("Min available", bound));
    let bound =
        bound.or_else(|| amount(spec, "maxUnavailable").map(|bound| ("Max unavailable", bound)));
    if let Some((label, bound)) = bound {
        page.field(0, label, bound);
    }
    let chosen = match spec["selector"].is_object() {
        true => selector(spec.get("selector")),
        false => "<unset>".to_owned(),
    };
    page.field(0, "Selector", chosen);
    page.line(0, "Status:");
    for (label, field) in [
        ("Allowed disruptions", "disruptionsAllowed"),
        ("Current", "currentHealthy"),
        ("Desired", "desiredHealthy"),
        ("Total", "expectedPods"),
    ] {
        let number = object["status"][field].as_i64().unwrap_or(0);
        page.field(2, label, number.to_string());
    }
}

/// `PriorityClass`.
pub fn priority_class(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(object, "/metadata/name"));
    let value = object["value"].as_i64().unwrap_or(0);
    page.field(0, "Value", value.to_string());
    let default = object["globalDefault"].as_bool() == Some(true);
    page.field(0, "GlobalDefault", default.to_string());
    let policy = match text(object, "/preemptionPolicy") {
        "" => "PreemptLowerPriority",
        policy => policy,
    };
    page.field(0, "PreemptionPolicy", policy);
    page.field(0, "Description", text(object, "/description"));
    page.field(
        0,
        "Annotations",
        joined(object.pointer("/metadata/annotations")),
    );
}

/// What a node's sums are made of.
const RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// `Non-terminated Pods:` and `Allocated resources:` of a node.
pub fn pods_of_node(page: &mut Page, node: &Value, pods: &[&Value], now: i64) {
    let total = format!("({} in total)", pods.len());
    page.field(0, "Non-terminated Pods", total);
    page.line(
        1,
        "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge",
    );
    page.line(
        1,
        "---------\t----\t\t------------\t----------\t---------------\t-------------\t---",
    );
    let status = &node["status"];
    let all = match status["allocatable"].is_object() {
        true => &status["allocatable"],
        false => &status["capacity"],
    };
    let share = |asked: Quantity, resource: &str| {
        let all = all[resource].as_str().and_then(Quantity::parse);
        let percent = asked.percent_of(all.unwrap_or_default());
        format!("{asked} ({percent}%)")
    };
    for pod in pods {
        let created = seconds_since_1970(text(pod, "/metadata/creationTimestamp"));
        let age = created.map_or("<unknown>".to_owned(), |then| human_duration(now - then));
        let cells: Vec<String> = ["cpu", "memory"]
            .iter()
            .flat_map(|resource| {
                ["requests", "limits"].map(|kind| share(asked(pod, kind, resource), resource))
            })
            .collect();
        let (namespace, name) = (
            text(pod, "/metadata/namespace"),
            text(pod, "/metadata/name"),
        );
        let cells = cells.join("\t");
        page.line(1, format!("{namespace}\t{name}\t\t{cells}\t{age}"));
    }
    page.line(0, "Allocated resources:");
    page.line(
        1,
        "(Total limits may be over 100 percent, i.e., overcommitted.)",
    );
    page.line(1, "Resource\tRequests\tLimits");
    page.line(1, "--------\t--------\t------");
    for resource in RESOURCES {
        let sum = |kind: &str| {
            let each = pods.iter().map(|pod| asked(pod, kind, resource));
            share(each.fold(Quantity::default(), Quantity::plus), resource)
        };
        let (requests, limits) = (sum("requests"), sum("limits"));
        page.line(1, format!("{resource}\t{requests}\t{limits}"));
    }
}

/// What a pod asks for: all its containers together, or its largest init container if that is more.
/// A container with a limit alone requests as much.
fn asked(pod: &Value, kind: &str, resource: &str) -> Quantity {
    let of = |container: &Value| {
        let wanted = |kind: &str| {
            let text = container["resources"][kind][resource].as_str()?;
            Quantity::parse(text)
        };
        let other = || wanted("limits").filter(|_| kind == "requests");
        wanted(kind).or_else(other).unwrap_or_default()
    };
    let containers = items(pod, "/spec/containers").iter().map(of);
    let together = containers.fold(Quantity::default(), Quantity::plus);
    let initial = items(pod, "/spec/initContainers").iter().map(of);
    initial.fold(together, Quantity::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_nodes_pods_are_summed_up() {
        let node = json!({"status": {"capacity": {"cpu": "2", "memory": "1Gi"}}});
        let container = |requests: Value, limits: Value| json!({"resources": {"requests": requests, "limits": limits}});
        let pod = json!({"metadata": {"namespace": "shop", "name": "web",
            "creationTimestamp": "1970-01-01T00:00:00Z"}, "spec": {
                "containers": [container(json!({"cpu": "250m"}), json!({"memory": "64Mi"})),
                    container(json!({"cpu": "0.5"}), json!({}))],
                "initContainers": [container(json!({"cpu": "1"}), json!({}))]}});
        let mut page = Page::default();
        pods_of_node(&mut page, &node, &[&pod, &pod], 90);
        assert_eq!(
            page.render(),
            "\
Non-terminated Pods:  (2 in total)
  Namespace           Name    CPU Requests  CPU Limits  Memory Requests  Memory Limits  Age
  ---------           ----    ------------  ----------  ---------------  -------------  ---
  shop                web     1 (50%)       0 (0%)      64Mi (6%)        64Mi (6%)      90s
  shop                web     1 (50%)       0 (0%)      64Mi (6%)        64Mi (6%)      90s
Allocated resources:
  (Total limits may be over 100 percent, i.e., overcommitted.)
  Resource           Requests     Limits
  --------           --------     ------
  cpu                2 (100%)     0 (0%)
  memory             128Mi (12%)  128Mi (12%)
  ephemeral-storage  0 (0%)       0 (0%)
"
        );
    }

    #[test]
    fn quotas_and_limits_read_as_kubectls() {
        let mut page = Page::default();
        let object = json!({"metadata": {"name": "q", "namespace": "shop"},
            "spec": {"scopes": ["BestEffort"]},
            "status": {"hard": {"pods": "4"}, "used": {"pods": "1"}}});
        quota(&mut page, &object);
        let text = page.render();
        for line in [
            "Scopes:     BestEffort",
            "Resource  Used  Hard",
            "pods      1     4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
        let mut page = Page::default();
        let range = json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"},
            "default": {"memory": "1Gi"}}]}});
        limit_ranges(&mut page, &[&range]);
        let text = page.render();
        for line in [
            " Container  cpu       -    1    -                -              -",
            " Container  memory    -    -    -                1Gi            -",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
    }
}
