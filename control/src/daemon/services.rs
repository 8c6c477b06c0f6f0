//! What a Service cannot be while the dataplane does not translate: its name leads to its pods, and
//! so its port must be theirs.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::objects::Object;
use crate::validate::{FieldError, invalid};

/// Checks a Service that is new or changed: a warning for a person, or why it is refused.
pub(super) fn check(object: &Object) -> Result<Option<String>, String> {
    let Some(spec) = object
        .as_service()
        .and_then(|service| service.spec.as_ref())
    else {
        return Ok(None);
    };
    let headless = spec.cluster_ip.as_deref() == Some("None");
    if headless || spec.type_.as_deref() == Some("ExternalName") {
        return Ok(None);
    }
    let mut errors = Vec::new();
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        let value = match &port.target_port {
            Some(IntOrString::Int(number)) if *number != 0 && *number != port.port => {
                number.to_string()
            }
            Some(IntOrString::String(name)) => format!("{name:?}"),
            _ => continue,
        };
        errors.push(FieldError {
            path: format!("spec.ports[{index}].targetPort"),
            message: format!(
                "Invalid value: {value}: must be the number of `port` ({}): Services are not \
                 translated yet, their names lead to their pods",
                port.port
            ),
        });
    }
    if !errors.is_empty() {
        return Err(invalid("Service", object.name(), &errors));
    }
    let (namespace, name) = (object.namespace(), object.name());
    Ok(Some(format!(
        "Service {namespace}/{name}: ClusterIPs are not translated yet; its name leads to its pods"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(spec: Value) -> Object {
        let meta = json!({"name": "web", "namespace": "shop"});
        Object::new(json!({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}))
            .unwrap()
    }

    #[test]
    fn a_port_that_translation_would_change_is_refused() {
        let moved = service(json!({"ports": [{"port": 80}, {"port": 81, "targetPort": 8080}]}));
        assert_eq!(
            check(&moved).unwrap_err(),
            "The Service \"web\" is invalid: spec.ports[1].targetPort: Invalid value: 8080: must \
             be the number of `port` (81): Services are not translated yet, their names lead to \
             their pods"
        );
        let named = service(json!({"ports": [{"port": 80, "targetPort": "http"}]}));
        assert!(
            check(&named)
                .unwrap_err()
                .contains("Invalid value: \"http\"")
        );
    }

    #[test]
    fn a_cluster_ip_warns_and_a_headless_service_is_as_it_should_be() {
        let plain = service(json!({"ports": [{"port": 80, "targetPort": 80}]}));
        assert!(check(&plain).unwrap().unwrap().contains("shop/web"));
        let headless = json!({"clusterIP": "None", "ports": [{"port": 80, "targetPort": 8080}]});
        assert_eq!(check(&service(headless)).unwrap(), None);
    }
}
