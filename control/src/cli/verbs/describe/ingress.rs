//! Ingresses and their classes as `kubectl describe` prints them.

use serde_json::Value;

use crate::cli::columns::load_balancer;

use super::page::{Page, items, text};
use super::service::ready;
use super::world::World;

/// `Ingress`.
pub fn ingress(page: &mut Page, object: &Value, world: &World) {
    page.field(0, "Name", text(object, "/metadata/name"));
    page.labels(object);
    page.field(0, "Namespace", text(object, "/metadata/namespace"));
    page.field(0, "Address", load_balancer(object, true));
    let class = match text(object, "/spec/ingressClassName") {
        "" => "<none>",
        class => class,
    };
    page.field(0, "Ingress Class", class);
    let default = &object["spec"]["defaultBackend"];
    let default = match default.is_object() {
        true => backend(default, world),
        false => "<default>".to_owned(),
    };
    page.field(0, "Default backend", &default);
    let tls = items(object, "/spec/tls");
    if !tls.is_empty() {
        page.line(0, "TLS:");
    }
    for one in tls {
        let hosts = items(one, "/hosts").iter().filter_map(Value::as_str);
        let hosts = hosts.collect::<Vec<_>>().join(",");
        match text(one, "/secretName") {
            "" => page.line(1, format!("SNI routes {hosts}")),
            secret => page.line(1, format!("{secret} terminates {hosts}")),
        }
    }
    page.line(0, "Rules:");
    page.line(1, "Host\tPath\tBackends");
    page.line(1, "----\t----\t--------");
    let rules = items(object, "/spec/rules").iter();
    let mut rules = rules.filter(|rule| rule["http"].is_object()).peekable();
    if rules.peek().is_none() {
        page.line(1, format!("*\t*\t{default}"));
    }
    for rule in rules {
        let host = match text(rule, "/host") {
            "" => "*",
            host => host,
        };
        page.line(1, format!("{host}\t"));
        for path in items(rule, "/http/paths") {
            let to = backend(&path["backend"], world);
            page.line(2, format!("\t{} \t{to}", text(path, "/path")));
        }
    }
    page.annotations(object);
}

/// `web:80 (10.0.0.1:8080)`.
fn backend(backend: &Value, world: &World) -> String {
    let service = &backend["service"];
    if !service.is_object() {
        let resource = &backend["resource"];
        let group = match text(resource, "/apiGroup") {
            "" => "<none>",
            group => group,
        };
        let (kind, name) = (text(resource, "/kind"), text(resource, "/name"));
        return format!("APIGroup: {group}, Kind: {kind}, Name: {name}");
    }
    let (name, wanted) = (text(service, "/name"), &service["port"]);
    let shown = match &wanted["number"] {
        Value::Null => text(wanted, "/name").to_owned(),
        number => number.to_string(),
    };
    let mut services = world.others("Service").into_iter();
    let Some(object) = services.find(|object| text(object, "/metadata/name") == name) else {
        return format!("{name}:{shown} (<error: services \"{name}\" not found>)");
    };
    let ports = items(object, "/spec/ports").iter();
    let mut meant = ports.filter(|port| match &wanted["number"] {
        Value::Null => port["name"] == wanted["name"],
        number => port["port"] == *number,
    });
    let port = meant.next().map_or("", |port| text(port, "/name"));
    let endpoints = ready(&world.slices_of(name), port);
    format!("{name}:{shown} ({endpoints})")
}

/// `IngressClass`.
pub fn class(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(object, "/metadata/name"));
    page.labels(object);
    page.annotations(object);
    page.field(0, "Controller", text(object, "/spec/controller"));
    let parameters = &object["spec"]["parameters"];
    if parameters.is_object() {
        page.line(0, "Parameters:");
        for (label, field) in [
            ("APIGroup", "/apiGroup"),
            ("Kind", "/kind"),
            ("Name", "/name"),
        ] {
            match text(parameters, field) {
                "" => {}
                found => page.field(1, label, found),
            }
        }
    }
}
