//! `describe`: one object after another, as kubectl describes it, with what only the daemon knows:
//! whom a policy is about, what its rules have decided, which policies are about a pod.

mod containers;
mod generic;
mod ingress;
mod network_policy;
mod page;
mod plain_objects;
mod pod;
mod roles;
mod scheduling;
mod service;
mod storage;
mod workloads;
mod world;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::cli::columns::seconds_since_1970;
use crate::cli::flags::{Flag, switch, value};
use crate::cli::session::{Session, VerbError};
use crate::cli::table::Table;
use crate::client::Client;
use crate::objects::kinds;
use crate::protocol::{
    GetReply, HitsParams, PodPoliciesParams, PodPoliciesReply, PolicyHits, Reason,
};

use super::{
    ALL_NAMESPACES, FILES, Named, SELECTOR, categories, fetch, find as found, hits, named,
};
use page::{Page, text};
use world::World;

/// Flags of `describe`.
pub const FLAGS: &[Flag] = &[
    ALL_NAMESPACES,
    SELECTOR,
    FILES[0],
    FILES[1],
    FILES[2],
    switch("show-events", None, "Events at the end (default true)"),
    value("chunk-size", None, ""),
];

/// Runs `describe`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let by_files = session.parsed.was_given("filename") || session.parsed.was_given("kustomize");
    let wanted = categories::expand(session, named(&session.parsed.arguments)?);
    let shows_events = session.parsed.value("show-events") != Some("false");
    if wanted.is_empty() && !by_files {
        return Err(VerbError::Usage(
            "You must specify the type of resource to describe.".into(),
        ));
    }
    let mut client = session.connect()?;
    let mut pages = Vec::new();
    let mut failed = false;
    if by_files {
        let (objects, missing) = found::find(session, &mut client, true)?;
        for one in &objects {
            let kind = one.object["kind"].as_str().unwrap_or_default();
            pages.push(describe(&mut client, kind, &one.object, shows_events)?);
        }
        for error in &missing {
            error.report("describe");
            failed = true;
        }
    }
    for one in wanted {
        for (kind, object) in find(session, &mut client, &one, &mut failed)? {
            pages.push(describe(&mut client, &kind, &object, shows_events)?);
        }
    }
    print!("{}", pages.join("\n\n"));
    if failed {
        return Err(VerbError::Status(1));
    }
    if pages.is_empty() {
        let namespace = session.namespace().unwrap_or_else(|| "default".to_owned());
        if session.parsed.is_on("all-namespaces") {
            eprintln!("No resources found");
        } else {
            eprintln!("No resources found in {namespace} namespace.");
        }
    }
    Ok(())
}

/// The objects that an argument names. A name that nobody has stands for all that begin with it.
fn find(
    session: &Session,
    client: &mut Client,
    wanted: &Named,
    failed: &mut bool,
) -> Result<Vec<(String, Value)>, VerbError> {
    let objects = |reply: GetReply| {
        let kind = reply.kind;
        reply
            .items
            .into_iter()
            .map(move |item| (kind.clone(), item))
    };
    let mut found = Vec::new();
    if wanted.names.is_empty() {
        for (reply, _) in fetch(session, client, std::slice::from_ref(wanted))? {
            found.extend(objects(reply));
        }
    }
    for name in &wanted.names {
        let only = |names| Named {
            resource: wanted.resource.clone(),
            names,
        };
        match fetch(session, client, &[only(vec![name.clone()])]) {
            Ok(replies) => found.extend(replies.into_iter().flat_map(|(reply, _)| objects(reply))),
            Err(VerbError::Client(error)) if error.reason() == Some(Reason::NotFound) => {
                let all = fetch(session, client, &[only(Vec::new())])?;
                let before = found.len();
                let begins = |(_, item): &(String, Value)| {
                    text(item, "/metadata/name").starts_with(name.as_str())
                };
                let all = all.into_iter().flat_map(|(reply, _)| objects(reply));
                found.extend(all.filter(begins));
                if found.len() == before {
                    VerbError::Client(error).report("describe");
                    *failed = true;
                }
            }
            Err(other) => return Err(other),
        }
    }
    Ok(found)
}

fn describe(
    client: &mut Client,
    kind: &str,
    object: &Value,
    shows_events: bool,
) -> Result<String, VerbError> {
    // A kind of the same name in a group that somebody else has defined is another one.
    let known = kinds::find(text(object, "/apiVersion"), kind);
    let kind = known.map_or("", |known| known.kind);
    let world = World::gather(client, kind, object)?;
    let mut page = Page::default();
    let name = text(object, "/metadata/name").to_owned();
    let namespace = Some(text(object, "/metadata/namespace"))
        .filter(|namespace| !namespace.is_empty())
        .map(str::to_owned);
    match kind {
        "NetworkPolicy" => network_policy::describe(&mut page, object),
        "Pod" => {
            let params = PodPoliciesParams {
                namespace: namespace.clone().unwrap_or_default(),
                name: name.clone(),
            };
            let reply: PodPoliciesReply = client.call("pod.policies", params)?;
            let told = pod::Told {
                policies: reply.policies,
                services: world.services_of(object),
                reachable_from: world::reachable_from(client, object)?,
            };
            pod::describe(&mut page, object, &told);
        }
        kind if workloads::KINDS.contains(&kind) => {
            workloads::describe(&mut page, kind, object, &world);
        }
        "Service" => {
            let reachable = world::service_reachable_from(client, object)?;
            service::service(&mut page, object, &world.slices_of(&name), &reachable);
        }
        "Endpoints" => service::endpoints(&mut page, object),
        "EndpointSlice" => service::endpoint_slice(&mut page, object),
        "Ingress" => ingress::ingress(&mut page, object, &world),
        "IngressClass" => ingress::class(&mut page, object),
        "PersistentVolume" => storage::volume(&mut page, object),
        "PersistentVolumeClaim" => {
            storage::claim(&mut page, object, &world.pods_with_claim(&name));
        }
        "StorageClass" => storage::class(&mut page, object),
        "Role" | "ClusterRole" => roles::role(&mut page, object),
        "RoleBinding" | "ClusterRoleBinding" => roles::binding(&mut page, object),
        "ResourceQuota" => scheduling::quota(&mut page, object),
        "LimitRange" => scheduling::limit_range(&mut page, object),
        "PodDisruptionBudget" => scheduling::disruption_budget(&mut page, object),
        "PriorityClass" => scheduling::priority_class(&mut page, object),
        "Namespace" => plain_objects::namespace(&mut page, object, &world),
        "Node" => plain_objects::node(&mut page, object, &world, now()),
        "ConfigMap" => plain_objects::config_map(&mut page, object),
        "Secret" => plain_objects::secret(&mut page, object),
        "ServiceAccount" => plain_objects::service_account(&mut page, object),
        _ => generic::describe(&mut page, object),
    }
    if hits::is_policy(kind) {
        let params = HitsParams {
            kind: Some(kind.to_owned()),
            namespace,
            name: Some(name),
        };
        let reply = hits::fetch(client, &params)?;
        if let Some(policy) = reply.policies.first() {
            policy_hits(&mut page, object, policy, now());
        }
    }
    // kubectl shows none of these.
    const SILENT: [&str; 9] = [
        "ClusterRole",
        "ClusterRoleBinding",
        "LimitRange",
        "Namespace",
        "NetworkPolicy",
        "ResourceQuota",
        "Role",
        "RoleBinding",
        "Secret",
    ];
    if shows_events && !SILENT.contains(&kind) {
        world::events(&mut page, client, object, now())?;
    }
    Ok(page.render())
}

/// Whom a policy is about and what its rules have decided.
fn policy_hits(page: &mut Page, object: &Value, policy: &PolicyHits, now: i64) {
    let mode = if policy.audit {
        "audit (reports what it would decide, decides nothing)"
    } else {
        "enforced"
    };
    page.field(0, "Mode", mode);
    page.list(0, "Pods", &policy.pods);
    let silent = policy.never_matched();
    page.list(0, "Never Matched", &silent);
    if policy.rules.is_empty() {
        return page.field(0, "Rule Hits", "<none>");
    }
    page.line(0, "Rule Hits:");
    let mut table = Table::new(["  Rule", "Connections", "Packets", "Last Hit"]);
    table.push(
        ["  ----", "-----------", "-------", "--------"]
            .map(str::to_owned)
            .into(),
    );
    for rule in &policy.rules {
        let direction = rule.direction.name().to_lowercase();
        let name = match rule.rule {
            Some(index) => {
                let path = format!("/spec/{direction}/{index}/name");
                let called = object.pointer(&path).and_then(Value::as_str);
                let called = called.filter(|name| !name.is_empty());
                let called = called.map_or(String::new(), |name| format!(" {name:?}"));
                format!("  {direction}[{index}]{called}")
            }
            None => format!("  {direction} default (no rule matches)"),
        };
        let cells = if rule.is_counted {
            let last = hits::ago(rule.last_hit.as_deref(), now);
            [rule.connections.to_string(), rule.packets.to_string(), last]
        } else {
            ["-", "-", "<not counted>"].map(str::to_owned)
        };
        table.push([vec![name], cells.into()].concat());
    }
    for line in table.render(true).lines() {
        page.line(0, line);
    }
}

/// `2026-11-21 02:00:00 +0000 UTC`, as Go prints a time.
fn created_on(object: &Value) -> String {
    let stamp = text(object, "/metadata/creationTimestamp");
    match stamp.split_once('T') {
        Some((day, rest)) if seconds_since_1970(stamp).is_some() => {
            let clock = rest.trim_end_matches('Z');
            format!("{day} {clock} +0000 UTC")
        }
        _ => "0001-01-01 00:00:00 +0000 UTC".to_owned(),
    }
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::FlowDirection;
    use crate::protocol::RuleHit;

    #[test]
    fn hits_name_every_rule_and_the_silent_ones_apart() {
        let rule = |direction, rule, packets, is_counted| RuleHit {
            direction,
            rule,
            is_counted,
            connections: packets,
            packets,
            last_hit: (packets > 0).then(|| "1970-01-01T00:01:00Z".to_owned()),
        };
        let policy = PolicyHits {
            pods: vec!["shop/web-0".into(), "shop/web-1".into()],
            rules: vec![
                rule(FlowDirection::Ingress, Some(0), 3, true),
                rule(FlowDirection::Ingress, Some(1), 0, true),
                rule(FlowDirection::Ingress, None, 2, true),
                rule(FlowDirection::Egress, Some(0), 0, false),
            ],
            ..PolicyHits::default()
        };
        let mut page = Page::default();
        let named = serde_json::json!({"spec": {"ingress": [{"name": "deny-rest"}, {"name": ""}]}});
        policy_hits(&mut page, &named, &policy, 65);
        assert_eq!(
            page.render(),
            "\
Mode:           enforced
Pods:           shop/web-0
                shop/web-1
Never Matched:  ingress[1]
Rule Hits:
  Rule                                Connections   Packets   Last Hit
  ----                                -----------   -------   --------
  ingress[0] \"deny-rest\"              3             3         5s ago
  ingress[1]                          0             0         <never>
  ingress default (no rule matches)   2             2         5s ago
  egress[0]                           -             -         <not counted>
"
        );
    }
}
