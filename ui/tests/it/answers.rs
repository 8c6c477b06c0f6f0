//! Single questions.

use ui::assets::ASSETS;
use ui::server::Bounds;

use crate::http::{ask, get, site};
use crate::toy::Daemon;

#[test]
fn the_page_and_its_files_are_served_and_nothing_else_may_run_in_it() {
    let daemon = Daemon::start("files");
    let site = site(&daemon, Bounds::default());
    let page = get(site, "/");
    assert_eq!(page.status, 200);
    assert!(page.body.contains("<title>Weir</title>"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self'"),
        "{policy}"
    );
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("access-control-allow-origin"), None);
    for asset in ASSETS {
        let answer = get(site, asset.path);
        assert_eq!(answer.header("content-type"), Some(asset.media));
        assert_eq!(answer.body.as_bytes(), asset.bytes, "{}", asset.path);
    }
    assert_eq!(get(site, "/../Cargo.toml").status, 404);
    assert_eq!(get(site, "/nothing").status, 404);
}

#[test]
fn metrics_are_the_daemons() {
    let daemon = Daemon::start("metrics");
    let site = site(&daemon, Bounds::default());
    let answer = get(site, "/metrics");
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(answer.body.contains("weir_policy_mismatch_total 5\n"));
    assert_eq!(ask(site, "HEAD", "/metrics").body, "");
}

#[test]
fn questions_are_answered_in_the_daemons_words() {
    let daemon = Daemon::start("questions");
    let site = site(&daemon, Bounds::default());
    let trace = get(
        site,
        "/api/trace?from=shop%2Fa&to=shop/b&port=80&protocol=TCP",
    )
    .json();
    assert_eq!(trace["json"]["verdict"], "allow");
    assert_eq!(trace["json"]["from"], "shop/a");
    assert_eq!(trace["text"], "words");
    let refused = get(site, "/api/trace?from=shop/a&to=nobody/x&port=80");
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["error"], "\"nobody/x\" is no pod");
    assert_eq!(
        get(site, "/api/trace?from=shop/a").json()["error"],
        "to is missing"
    );
    let odd = get(site, "/api/trace?from=a&to=b&apply=1");
    assert_eq!(odd.status, 400);

    let pod = get(site, "/api/pod?namespace=shop&name=b").json();
    assert_eq!(pod["policies"][0]["name"], "deny");
    assert_eq!(pod["hits"][0]["rules"][0]["connections"], 4);

    let policy = get(
        site,
        "/api/policy?kind=NetworkPolicy&namespace=shop&name=deny",
    )
    .json();
    assert_eq!(
        policy["yaml"],
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: deny\nspec:\n  \
         podSelector: {}\n"
    );
    assert_eq!(policy["hits"]["name"], "deny");
    let gone = get(
        site,
        "/api/policy?kind=NetworkPolicy&namespace=shop&name=gone",
    );
    assert_eq!(gone.status, 404);
    let secret = get(site, "/api/policy?kind=Secret&namespace=shop&name=x");
    assert_eq!(secret.status, 400);
}

#[test]
fn a_matrix_is_computed_once_for_a_generation() {
    let daemon = Daemon::start("matrix");
    let site = site(&daemon, Bounds::default());
    let asked = || {
        let told = daemon.told();
        told.asked
            .iter()
            .filter(|method| *method == "matrix")
            .count()
    };
    for _ in 0..3 {
        let matrix = get(site, "/api/matrix").json();
        assert_eq!(matrix["generation"], 7);
        assert_eq!(matrix["from"][0], "shop/a");
        assert_eq!(matrix["columns"][0]["marks"], "1");
    }
    assert_eq!(asked(), 1);
    {
        let mut told = daemon.told();
        (told.generation, told.denies) = (8, true);
    }
    assert_eq!(get(site, "/api/matrix").json()["columns"][0]["marks"], "0");
    assert_eq!(asked(), 2);
}

#[test]
fn filters_are_those_of_observe_and_refused_in_its_words() {
    let daemon = Daemon::start("filters");
    let site = site(&daemon, Bounds::default());
    let filters = get(site, "/api/filters").json();
    let names: Vec<&str> = filters
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["name"].as_str().unwrap())
        .collect();
    for name in [
        "verdict",
        "pod",
        "from-namespace",
        "to-label",
        "ip",
        "to-port",
        "protocol",
        "traffic-direction",
    ] {
        assert!(names.contains(&name), "{name} of {names:?}");
    }
    assert!(!names.contains(&"follow"));
    for (query, expected) in [
        ("?verdict=MAYBE", "invalid --verdict value: MAYBE"),
        (
            "?from-pod=a&namespace=b",
            "filters --from-pod and --namespace cannot be combined",
        ),
        ("?follow=true", "unknown filter: follow"),
        ("?not=", "trailing --not found in the arguments"),
        ("?ip=x", "\"x\" is neither an IP address nor a CIDR"),
    ] {
        let answer = get(site, &format!("/api/stream{query}"));
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.json()["error"], expected, "{query}");
        assert_eq!(
            ask(site, "HEAD", &format!("/api/stream{query}")).status,
            400
        );
    }
    assert_eq!(ask(site, "HEAD", "/api/stream?verdict=DROPPED").status, 200);
    assert_eq!(daemon.told().pages(), 0);
}

#[test]
fn without_a_daemon_the_page_is_there_and_questions_say_why_not() {
    let mut daemon = Daemon::start("absent");
    let site = site(&daemon, Bounds::default());
    daemon.stop();
    assert_eq!(get(site, "/").status, 200);
    for path in ["/metrics", "/api/matrix", "/api/trace?from=a&to=b"] {
        let answer = get(site, path);
        assert_eq!(answer.status, 503, "{path}");
        let error = answer.json()["error"].to_string();
        assert!(error.contains("cannot reach the daemon"), "{error}");
    }
    daemon.go_on();
    assert_eq!(get(site, "/metrics").status, 200);
}
