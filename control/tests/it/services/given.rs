//! Defaults, addresses and node ports.

use std::collections::BTreeSet;
use std::net::IpAddr;

use control::cluster::Cluster;
use serde_json::{Value, json};

use super::{both, cluster, create, delete, plain, replace, service};

fn text(spec: &Value, field: &str) -> String {
    spec[field].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_plain_service_has_what_the_api_server_fills_in() {
    let spec = both(|t| create(t, plain("web")));
    let address = text(&spec, "clusterIP");
    assert!(address.starts_with("10.96."), "{address}");
    let expected = json!({
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "sessionAffinity": "None", "type": "ClusterIP", "internalTrafficPolicy": "Cluster",
        "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"],
        "clusterIP": address, "clusterIPs": [address],
    });
    assert_eq!(spec, expected);
}

#[test]
fn types_and_affinity_bring_their_own() {
    both(|t| {
        let spec = json!({
            "type": "NodePort", "sessionAffinity": "ClientIP",
            "ports": [{"port": 53, "protocol": "UDP", "name": "u"}, {"port": 53, "name": "t"}],
        });
        let spec = create(t, service("dns", spec));
        assert_eq!(spec["externalTrafficPolicy"], "Cluster");
        assert_eq!(
            spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"],
            10_800
        );
        let number = spec["ports"][0]["nodePort"].as_u64().unwrap();
        assert!((30_086..=32_767).contains(&number), "{number}");
        assert_eq!(
            spec["ports"][1]["nodePort"], number,
            "one number for both protocols"
        );

        let balanced = json!({
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}],
        });
        let balanced = create(t, service("lb", balanced));
        assert_eq!(balanced["allocateLoadBalancerNodePorts"], true);
        let ports = [
            &balanced["ports"][0]["nodePort"],
            &balanced["healthCheckNodePort"],
        ];
        assert!(ports[0].is_u64() && ports[1].is_u64() && ports[0] != ports[1]);

        let name = json!({"type": "ExternalName", "externalName": "example.com."});
        let name = create(t, service("out", name));
        let filled = json!({
            "type": "ExternalName", "externalName": "example.com.", "sessionAffinity": "None",
        });
        assert_eq!(name, filled);
    });
}

#[test]
fn families_follow_policy_addresses_and_ranges() {
    both(|t| {
        let families = |spec: &Value| (spec["ipFamilies"].clone(), text(spec, "ipFamilyPolicy"));
        let ports = json!([{"port": 80}]);
        let dual = json!({"ipFamilyPolicy": "PreferDualStack", "ports": ports});
        let dual = create(t, service("dual", dual));
        assert_eq!(families(&dual).0, json!(["IPv4", "IPv6"]));
        let second = dual["clusterIPs"][1].as_str().unwrap();
        assert!(second.starts_with("fd00:10:96::"), "{second}");
        assert_eq!(dual["clusterIP"], dual["clusterIPs"][0]);

        let six = create(
            t,
            service("six", json!({"ipFamilies": ["IPv6"], "ports": ports})),
        );
        assert!(text(&six, "clusterIP").contains(':'));
        let stated = json!({"clusterIP": "fd00:10:96::7", "ports": ports});
        let stated = create(t, service("stated", stated));
        assert_eq!(families(&stated), (json!(["IPv6"]), "SingleStack".into()));

        let headless = json!({"clusterIP": "None", "selector": {"app": "web"}});
        let headless = create(t, service("headless", headless));
        assert_eq!(headless["clusterIPs"], json!(["None"]));
        assert_eq!(families(&headless), (json!(["IPv4"]), "SingleStack".into()));
        let by_hand = create(t, service("by-hand", json!({"clusterIP": "None"})));
        let expected = (json!(["IPv4", "IPv6"]), "RequireDualStack".into());
        assert_eq!(families(&by_hand), expected);
    });
}

#[test]
fn nothing_is_handed_out_twice_and_a_full_range_says_so() {
    let (cluster, mut source) = cluster(&["10.96.0.0/28"]);
    let mut t = cluster.begin(&mut source);
    let addresses: BTreeSet<IpAddr> = (0..14)
        .map(|n| text(&create(&mut t, plain(&format!("s{n}"))), "clusterIP"))
        .map(|address| address.parse().unwrap())
        .collect();
    assert_eq!(addresses.len(), 14);
    let expected: BTreeSet<IpAddr> = (1..15).map(|n| IpAddr::from([10, 96, 0, n])).collect();
    assert_eq!(
        addresses, expected,
        "neither the network's address nor the broadcast address"
    );
    let full = t.create(plain("late")).unwrap_err().to_string();
    let message = "Internal error occurred: failed to allocate a serviceIP: range is full";
    assert_eq!(full, message);
    delete(&mut t, "s3");
    create(&mut t, plain("late"));
}

#[test]
fn a_service_that_is_made_again_has_what_it_had() {
    both(|t| {
        let spec = || service("web", json!({"type": "NodePort", "ports": [{"port": 80}]}));
        let first = create(t, spec());
        delete(t, "web");
        let other = create(t, plain("other"));
        assert_ne!(other["clusterIP"], first["clusterIP"]);
        assert_eq!(create(t, spec()), first);
    });
}

#[test]
fn what_was_handed_out_stays_with_who_leaves_it_out() {
    both(|t| {
        let spec = json!({"type": "NodePort", "ports": [{"port": 80, "name": "a"}]});
        let first = create(t, service("web", spec));
        let ports = json!([{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]);
        let more = replace(
            t,
            service("web", json!({"type": "NodePort", "ports": ports})),
        );
        assert_eq!(more["clusterIP"], first["clusterIP"]);
        assert_eq!(more["ports"][0]["nodePort"], first["ports"][0]["nodePort"]);
        let second = more["ports"][1]["nodePort"].as_u64();
        assert!(second.is_some() && more["ports"][0]["nodePort"].as_u64() != second);

        // What only node ports need goes with them; the number is free again.
        let mut kept = more.clone();
        kept["type"] = "ClusterIP".into();
        let plain = replace(t, service("web", kept));
        assert!(plain["ports"][0].get("nodePort").is_none(), "{plain}");
        assert!(plain.get("externalTrafficPolicy").is_none(), "{plain}");
        let number = more["ports"][0]["nodePort"].clone();
        let wants = json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": number}]});
        create(t, service("next", wants));
    });
}

#[test]
fn a_second_family_comes_and_goes() {
    both(|t| {
        let first = create(t, plain("web"));
        let ports = json!([{"port": 80}]);
        let spec = json!({"ipFamilyPolicy": "PreferDualStack", "ports": ports});
        let dual = replace(t, service("web", spec));
        assert_eq!(dual["clusterIPs"][0], first["clusterIP"]);
        assert_eq!(dual["ipFamilies"], json!(["IPv4", "IPv6"]));
        let mut single = dual.clone();
        single["ipFamilyPolicy"] = "SingleStack".into();
        let single = replace(t, service("web", single));
        assert_eq!(single["clusterIPs"], json!([first["clusterIP"]]));
        assert_eq!(single["ipFamilies"], json!(["IPv4"]));
    });
}

#[test]
fn an_external_name_gives_up_its_address_and_gets_one_again() {
    both(|t| {
        let first = create(t, plain("web"));
        let mut out = first.clone();
        out["type"] = "ExternalName".into();
        out["externalName"] = "example.com".into();
        let out = replace(t, service("web", out));
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            assert!(out.get(field).is_none(), "{field}: {out}");
        }
        let wants = json!({"clusterIP": first["clusterIP"], "ports": [{"port": 80}]});
        create(t, service("taker", wants));
        let back = replace(
            t,
            service("web", json!({"type": "ClusterIP", "ports": [{"port": 80}]})),
        );
        assert_ne!(back["clusterIP"], first["clusterIP"]);
    });
}

#[test]
fn a_store_that_is_read_again_knows_who_has_what() {
    let (cluster, mut source) = cluster(&["10.96.0.0/16"]);
    let mut t = cluster.begin(&mut source);
    let spec = create(&mut t, plain("web"));
    let mut restored = Cluster::empty();
    for object in t.commit().cluster.objects() {
        restored.restore(object.to_value()).unwrap();
    }
    let taken = json!({"clusterIP": spec["clusterIP"], "ports": [{"port": 1}]});
    let refusal = restored.begin(&mut source).create(service("x", taken));
    let message = refusal.unwrap_err().to_string();
    assert!(
        message.ends_with("provided IP is already allocated"),
        "{message}"
    );
}
