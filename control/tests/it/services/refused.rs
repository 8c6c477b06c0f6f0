//! What a Service cannot be, in the API server's words.

use serde_json::{Value, json};

use super::{both, cluster, create, plain, service};

/// That a new Service is refused with exactly these complaints.
fn refused(spec: Value, complaints: &[&str]) {
    let message = both(|t| {
        t.create(service("web", spec.clone()))
            .unwrap_err()
            .to_string()
    });
    let expected = expected(complaints);
    assert_eq!(message, expected, "{spec}");
}

/// That a Service cannot become another.
fn fixed(before: Value, after: Value, complaints: &[&str]) {
    let message = both(|t| {
        create(t, service("web", before));
        let refused = t.replace(service("web", after.clone()));
        refused.unwrap_err().to_string()
    });
    assert_eq!(message, expected(complaints), "{after}");
}

fn expected(complaints: &[&str]) -> String {
    crate::cases::scene::refusal_text("The Service \"web\" is invalid: ", complaints)
}

fn ports() -> Value {
    json!([{"port": 80}])
}

#[test]
fn ports_and_types() {
    refused(json!({}), &["spec.ports: Required value"]);
    refused(
        json!({"type": "X", "ports": ports()}),
        &[
            "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \
           \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ],
    );
    refused(
        json!({"ports": [{"port": 0, "name": "a"}, {"port": 80}, {"port": 80, "name": "a"}]}),
        &[
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[1].name: Required value",
            "spec.ports[2].name: Duplicate value: \"a\"",
            "spec.ports[2]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\
             \"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}",
        ],
    );
    refused(
        json!({"ports": [{"port": 80, "targetPort": "a--b", "protocol": "X"}]}),
        &[
            "spec.ports[0].protocol: Unsupported value: \"X\": supported values: \"TCP\", \
             \"UDP\", \"SCTP\"",
            "spec.ports[0].targetPort: Invalid value: \"a--b\": must not contain consecutive \
             hyphens",
        ],
    );
    refused(
        json!({"type": "NodePort", "clusterIP": "None", "ports": ports()}),
        &[
            "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort \
           services",
        ],
    );
    refused(
        json!({"ports": [{"port": 80, "nodePort": 30100}]}),
        &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
    );
}

#[test]
fn external_names() {
    refused(
        json!({"type": "ExternalName", "clusterIP": "10.96.0.7", "ipFamilies": ["IPv4"]}),
        &[
            "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
            "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
            "spec.externalName: Required value",
        ],
    );
}

#[test]
fn affinity_and_traffic_policies() {
    refused(
        json!({"sessionAffinity": "Cookie", "ports": ports()}),
        &[
            "spec.sessionAffinity: Unsupported value: \"Cookie\": supported values: \
           \"ClientIP\", \"None\"",
        ],
    );
    let config = json!({"clientIP": {"timeoutSeconds": 86401}});
    refused(
        json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config, "ports": ports()}),
        &[
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be \
           greater than 0 and less than 86400",
        ],
    );
    refused(
        json!({"externalTrafficPolicy": "Local", "internalTrafficPolicy": "X", "ports": ports()}),
        &[
            "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for \
             externally-accessible services",
            "spec.internalTrafficPolicy: Unsupported value: \"X\": supported values: \
             \"Cluster\", \"Local\"",
        ],
    );
    let balanced = json!({
        "loadBalancerSourceRanges": ["x"], "healthCheckNodePort": 30100, "ports": ports(),
    });
    refused(
        balanced,
        &[
            "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is \
             'LoadBalancer'",
            "spec.LoadBalancerSourceRanges[0]: Invalid value: \"x\": must be a valid CIDR value, \
             (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            "spec.healthCheckNodePort: Invalid value: 30100: may only be set when `type` is \
             'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ],
    );
}

#[test]
fn addresses_and_families() {
    for (spec, complaint) in [
        (
            json!({"clusterIP": "10.96.0"}),
            "spec.clusterIPs[0]: Invalid value: \"10.96.0\": must be a valid IP address, (e.g. \
             10.9.8.7 or 2001:db8::ffff)",
        ),
        (
            json!({"clusterIPs": ["10.96.0.7"]}),
            "spec.clusterIPs: Invalid value: [\"10.96.0.7\"]: must be empty when `clusterIP` is \
             not specified",
        ),
        (
            json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.8"]}),
            "spec.clusterIPs: Invalid value: [\"10.96.0.8\"]: first value must match `clusterIP`",
        ),
        (
            json!({"clusterIP": "10.96.0.7", "ipFamilies": ["IPv6"]}),
            "spec.clusterIPs[0]: Invalid value: \"10.96.0.7\": expected an IPv6 value as \
             indicated by `ipFamilies[0]`",
        ),
        (
            json!({"ipFamilies": ["IPv4", "IPv6"]}),
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or \
             'PreferDualStack' when multiple IP families are specified",
        ),
        (
            json!({"ipFamilies": ["IPv5"]}),
            "spec.ipFamilies[0]: Unsupported value: \"IPv5\": supported values: \"IPv4\", \
             \"IPv6\"",
        ),
        (
            json!({"clusterIP": "10.97.0.7"}),
            "spec.clusterIPs: Invalid value: [\"10.97.0.7\"]: failed to allocate IP 10.97.0.7: \
             the provided IP (10.97.0.7) is not in the valid range. The range of valid IPs is \
             10.96.0.0/16",
        ),
    ] {
        let mut spec = spec;
        spec["ports"] = ports();
        refused(spec, &[complaint]);
    }
    let (one, mut source) = cluster(&["10.96.0.0/16"]);
    let spec = json!({"ipFamilyPolicy": "RequireDualStack", "ports": ports()});
    let refusal = one.begin(&mut source).create(service("web", spec));
    let complaint = "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not \
                     configured for dual-stack services";
    assert_eq!(refusal.unwrap_err().to_string(), expected(&[complaint]));
}

#[test]
fn what_others_have() {
    both(|t| {
        let first = create(t, plain("first"));
        let address = first["clusterIP"].as_str().unwrap();
        let spec = json!({"clusterIP": address, "ports": ports()});
        let refusal = t.create(service("web", spec)).unwrap_err().to_string();
        let complaint = format!(
            "spec.clusterIPs: Invalid value: [\"{address}\"]: failed to allocate IP {address}: \
             provided IP is already allocated"
        );
        assert_eq!(refusal, expected(&[&complaint]));

        let wants =
            |number: u16| json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": number}]});
        create(t, service("second", wants(30_001)));
        for (number, why) in [
            (30_001, "provided port is already allocated"),
            (
                80,
                "provided port is not in the valid range. The range of valid ports is 30000-32767",
            ),
        ] {
            let refusal = t.create(service("web", wants(number))).unwrap_err();
            let complaint = format!("spec.ports[0].nodePort: Invalid value: {number}: {why}");
            assert_eq!(refusal.to_string(), expected(&[&complaint]));
        }
    });
}

#[test]
fn what_may_not_change() {
    let base = json!({"clusterIP": "10.96.0.7", "ports": ports()});
    fixed(
        base.clone(),
        json!({"clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8"], "ports": ports()}),
        &["spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set"],
    );
    fixed(
        base.clone(),
        json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports()}),
        &["spec.clusterIPs[0]: Invalid value: [\"None\"]: may not change once set"],
    );
    fixed(
        base,
        json!({"clusterIP": "10.96.0.8", "ports": ports()}),
        &["spec.clusterIPs: Required value"],
    );
    fixed(
        json!({"ipFamilyPolicy": "PreferDualStack", "ports": ports()}),
        json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4"], "ports": ports()}),
        &[
            "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be 'SingleStack' to \
           release the secondary IP family",
        ],
    );
    fixed(
        json!({"type": "LoadBalancer", "loadBalancerClass": "a.b/c", "ports": ports()}),
        json!({"type": "LoadBalancer", "loadBalancerClass": "a.b/d", "ports": ports()}),
        &["spec.loadBalancerClass: Invalid value: \"a.b/d\": may not change once set"],
    );
}
