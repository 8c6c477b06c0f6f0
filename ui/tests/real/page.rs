//! What a person does with the page.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::access;
use crate::scene::Scene;

/// A test's name and what it does.
pub type Test = (&'static str, fn(&mut Scene));

/// In this order: the last ones take the lab apart.
pub const TESTS: &[Test] = &[
    ("the_page_shows_the_labs_pods_and_the_daemons_health", opens),
    ("applying_a_policy_redraws_within_one_second", redraws),
    ("a_denial_that_is_clicked_says_why", explains),
    ("a_pod_shows_its_policies_and_who_may_reach_it", shows_a_pod),
    (
        "the_question_is_answered_and_answered_again_when_policy_changes",
        answers,
    ),
    ("the_list_is_filtered_as_observe_is", filters),
    ("everything_is_reached_by_keyboard", access::keyboard),
    ("light_and_dark_can_be_read", access::colours),
    ("a_narrow_screen_has_everything", access::narrow),
    ("a_cluster_of_many_pods_is_folded", many),
    ("a_daemon_that_goes_is_missed_and_found_again", goes),
    ("nothing_went_wrong_and_nothing_came_from_elsewhere", quiet),
];

/// The line from the client to the backend, whatever it says.
const LINE: &str = "[...document.querySelectorAll('#graph .line')].find(line => \
                    line.dataset.key.startsWith('client/client-') && \
                    line.dataset.key.includes('>stars/backend-'))";

fn opens(scene: &mut Scene) {
    scene.reload();
    let browser = &scene.browser;
    browser.wait(
        "it is live",
        "document.querySelector('#connection').dataset.state === 'live'",
    );
    let boxes =
        browser.run("return [...document.querySelectorAll('.box-name')].map(n => n.textContent)");
    for namespace in ["client", "kube-system", "management-ui", "stars"] {
        assert!(
            boxes.as_array().unwrap().contains(&namespace.into()),
            "{boxes}"
        );
    }
    let workers = browser
        .run("return document.querySelector('[data-vital=workers] .vital-value').textContent");
    assert_eq!(workers, "2/2");
    let mismatches = browser
        .run("return document.querySelector('[data-vital=mismatches] .vital-value').textContent");
    assert_eq!(mismatches, "0");
    scene.picture("opened");
}

/// Milliseconds of the wall's clock, which the browser shares.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn redraws(scene: &mut Scene) {
    scene.open_all();
    scene.reload();
    assert!(scene.client_asks_backend());
    let browser = &scene.browser;
    browser.wait(
        "what passes is a line",
        &format!("{LINE}?.dataset.state === 'allow'"),
    );
    let places = "return JSON.stringify([...document.querySelectorAll('.pill')].map(p => \
                  [p.dataset.stop, p.getAttribute('transform')]).sort())";
    let before = browser.run(places);
    // The moment is the browser's own, so that asking for it takes nothing from it.
    browser.run(&format!(
        "window.turned = null; new MutationObserver(() => {{ \
         if (window.turned === null && {LINE}?.dataset.state === 'closed') window.turned = Date.now(); }}) \
         .observe(document.querySelector('#graph'), {{subtree: true, childList: true, attributes: true}})"
    ));
    scene.policy(Some("stars"), "default-deny");
    let applied = now();
    let turned = browser
        .wait("the line turns", "window.turned")
        .as_u64()
        .unwrap();
    let took = Duration::from_millis(turned.saturating_sub(applied));
    assert!(took < Duration::from_secs(1), "{took:?}");
    println!("  redrawn {} ms after apply had returned", took.as_millis());
    assert_eq!(browser.run(places), before, "pods stay where they are");
    scene.picture("closed-by-policy");

    browser.click("input[name=mode][value=policy]");
    browser.wait(
        "the matrix is drawn",
        "document.querySelector('#graph .line[data-state=allow]')",
    );
    let open = format!("return {LINE} === undefined");
    assert_eq!(browser.run(&open), true, "no line where nothing may pass");
    scene.policy(None, "allow-ui");
    browser.wait(
        "the matrix follows",
        "[...document.querySelectorAll('#graph .line[data-state=allow]')].some(l => \
         l.dataset.key.startsWith('management-ui/') && l.dataset.key.includes('>stars/backend'))",
    );
    scene.picture("allowed-by-policy");
    browser.click("input[name=mode][value=flows]");
}

fn explains(scene: &mut Scene) {
    scene.open_all();
    scene.policy(Some("stars"), "default-deny");
    scene.policy(None, "allow-ui");
    scene.reload();
    assert!(!scene.client_asks_backend());
    let browser = &scene.browser;
    // The lab's own pods try each other, too: this one is looked for, in a list that stands still.
    browser.wait(
        "the denial is listed",
        "[...document.querySelectorAll('tr[data-verdict=DROPPED]')].some(row => \
         row.flow.source.namespace === 'client' && row.flow.destination.port === 6379)",
    );
    browser.click("#pause");
    browser.wait(
        "the denial is found",
        "[...document.querySelectorAll('tr[data-verdict=DROPPED]')].filter(row => \
         row.flow.source.namespace === 'client' && row.flow.destination.port === 6379) \
         .slice(0, 1).map(row => row.id = 'denial')[0]",
    );
    browser.click("#denial .why");
    browser.wait(
        "the sentence",
        "document.querySelector('#inspector .sentence')",
    );
    let sentence = browser.run("return document.querySelector('#inspector .sentence').textContent");
    let sentence = sentence.as_str().unwrap();
    for part in [
        "client/client-",
        "to TCP port 6379 of stars/backend-",
        "was dropped",
        "NetworkPolicy stars/",
        "isolates what",
        "no rule matches peer",
        "(generation ",
    ] {
        assert!(sentence.contains(part), "{part} in {sentence}");
    }
    browser.wait(
        "the policy",
        "document.querySelector('#inspector .yaml')?.textContent.includes('podSelector')",
    );
    browser.wait("the trace", "document.querySelector('#inspector .miss')");
    let miss = browser.run("return document.querySelector('#inspector .miss').textContent");
    let miss = miss.as_str().unwrap();
    assert!(
        miss.contains("nearest miss: rule 0 fails on peer"),
        "{miss}"
    );
    scene.picture("denial-explained");
}

fn shows_a_pod(scene: &mut Scene) {
    scene.open_all();
    scene.policy(None, "allow-ui");
    scene.policy(None, "backend-policy");
    scene.reload();
    let browser = &scene.browser;
    browser.click("[data-stop^='stars/backend']");
    browser.wait(
        "the pod",
        "document.querySelector('#inspector-title').textContent.startsWith('stars/backend')",
    );
    browser.wait(
        "who may reach it",
        "document.querySelector('#inspector .reach')",
    );
    let text = browser.run("return document.querySelector('#inspector').innerText");
    let text = text.as_str().unwrap();
    for part in [
        "role=backend",
        "6379/TCP",
        "stars/allow-ui",
        "stars/backend-policy",
        "management-ui/",
        "stars/frontend",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let (reaching, _) = text.split_once("It may reach").unwrap();
    assert!(
        !reaching.contains("client/client"),
        "the client may not: {text}"
    );
    browser.click("#inspector .policy summary");
    browser.wait(
        "its rules' hits",
        "document.querySelector('#inspector .hits-table')",
    );
    scene.picture("pod");
    browser.click("#inspector-close");
    browser.wait(
        "all policies",
        "document.querySelectorAll('#inspector .policy').length === 2",
    );
}

fn answers(scene: &mut Scene) {
    scene.open_all();
    scene.policy(Some("stars"), "default-deny");
    scene.reload();
    let browser = &scene.browser;
    let (client, _) = scene.pod("client", "client");
    let (backend, _) = scene.pod("stars", "backend");
    browser.write("#from", &format!("client/{client}"));
    browser.write("#to", &format!("stars/{backend}"));
    browser.press(&["Tab"]);
    let port = browser.run("return document.querySelector('#port').value");
    assert_eq!(port, "6379", "its port is known");
    browser.press(&["Enter"]);
    browser.wait(
        "the answer",
        "document.querySelector('#answer .badge')?.textContent === 'no'",
    );
    let text = browser.run("return document.querySelector('#answer').innerText");
    let text = text.as_str().unwrap();
    let said = scene.ok(&[
        "trace",
        "--from",
        &format!("client/{client}"),
        "--to",
        &format!("stars/{backend}"),
        "--port",
        "6379",
        "-o",
        "json",
    ]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert!(
        text.contains(said["reason"].as_str().unwrap()),
        "{said} in {text}"
    );
    assert!(text.contains("NetworkPolicy stars/default-deny"), "{text}");
    assert!(text.contains("weir trace --from client/"), "{text}");
    scene.picture("question");
    scene.open_all();
    browser.wait(
        "the new answer",
        "document.querySelector('#answer .badge')?.textContent === 'yes'",
    );
    browser.write("#to", "nowhere/nobody");
    browser.press(&["Enter"]);
    browser.wait(
        "the refusal",
        "document.querySelector('#answer .error')?.textContent.includes('nowhere/nobody')",
    );
}

fn filters(scene: &mut Scene) {
    scene.open_all();
    scene.reload();
    assert!(scene.client_asks_backend());
    scene.policy(Some("stars"), "default-deny");
    assert!(!scene.client_asks_backend());
    let browser = &scene.browser;
    let rows = |verdict: &str| {
        format!("document.querySelectorAll('#flow-rows tr[data-verdict={verdict}]').length")
    };
    browser.wait(
        "both kinds",
        &format!("{} > 0 && {} > 0", rows("FORWARDED"), rows("DROPPED")),
    );
    browser.click("input[name=verdict][value=DROPPED]");
    browser.wait(
        "drops alone",
        &format!("{} === 0 && {} > 0", rows("FORWARDED"), rows("DROPPED")),
    );
    browser.run("const s = document.querySelector('#filter-name'); s.value = 'to-port'; s.dispatchEvent(new Event('change'))");
    browser.write("#filter-value", "6379");
    browser.press(&["Enter"]);
    browser.wait("the chip", "document.querySelector('#chips .chip')");
    let command = browser.run("return document.querySelector('#command').textContent");
    assert_eq!(command, "weir observe -f --verdict DROPPED --to-port 6379");
    browser.wait("the port alone", "[...document.querySelectorAll('#flow-rows tr')].length > 0 && \
                  [...document.querySelectorAll('#flow-rows .port')].every(p => p.textContent === '6379/TCP')");
    scene.picture("filtered");
    browser.write("#filter-value", "http");
    browser.press(&["Enter"]);
    browser.wait("the refusal", "document.querySelector('#filter-error').textContent.includes('invalid --to-port value: http')");
    browser.click("#chips .chip button");
    browser.wait("no chip", "!document.querySelector('#chips .chip')");
    browser.click("input[name=verdict][value='']");
    browser.wait(
        "both again",
        &format!("{} > 0 && {} > 0", rows("FORWARDED"), rows("DROPPED")),
    );

    browser.click("#pause");
    // The newest row's number, once what was on its way is drawn.
    let newest = "return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => \
                  done(document.querySelector('#flow-rows tr').flow.number))))";
    let still = browser.run(newest);
    assert!(!scene.client_asks_backend());
    browser.wait(
        "what waits is told",
        "/paused, [1-9]\\d* flows? waiting/.test(document.querySelector('#flow-note').textContent)",
    );
    assert_eq!(browser.run(newest), still);
    browser.click("#pause");
    browser.wait(
        "it goes on",
        &format!("document.querySelector('#flow-rows tr').flow.number > {still}"),
    );
    browser.write("#text", "no such text");
    browser.wait(
        "nothing fits",
        "document.querySelector('#flow-empty').textContent === 'No flow fits.'",
    );
    browser.write("#text", "6379");
    browser.wait(
        "something fits",
        "document.querySelectorAll('#flow-rows tr').length > 0",
    );
}

/// As many pods as a node has in Weir's design.
fn many(scene: &mut Scene) {
    let mut manifest = String::new();
    for namespace in 0..10 {
        manifest += &format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: team-{namespace}}}\n---\n"
        );
        for pod in 0..25 {
            manifest += &format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: web-{pod}, namespace: team-{namespace}}}\n\
                 spec: {{containers: [{{name: c, image: x, ports: [{{containerPort: 80}}]}}]}}\n---\n"
            );
        }
    }
    scene.apply(&manifest);
    scene.wait_for_pods(255, "Running");
    scene.reload_folded();
    let browser = &scene.browser;
    browser.wait(
        "the boxes",
        "document.querySelectorAll('.box-head[aria-expanded=false]').length >= 14",
    );
    assert_eq!(
        browser.run("return document.querySelectorAll('.pill').length"),
        0
    );
    browser.click("input[name=mode][value=policy]");
    browser.wait(
        "the matrix",
        "document.querySelectorAll('#graph .line').length > 50",
    );
    scene.picture("many-folded");
    browser.click("[data-stop='[team-3]']");
    browser.wait(
        "its pods",
        "document.querySelectorAll('.pill').length === 25",
    );
    browser.click("[data-stop='team-3/web-7']");
    browser.wait("the pod", "document.querySelector('#inspector .reach')");
    scene.picture("many-unfolded");
    browser.click("#fold");
    browser.wait(
        "all pods",
        "document.querySelectorAll('.pill').length >= 255",
    );
    let took = browser.run(
        "const begun = performance.now(); document.querySelector('#show-denied').click(); \
         return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - begun))))",
    );
    println!("  255 pods are drawn in {:.0} ms", took.as_f64().unwrap());
    scene.picture("many-all");
    browser.click("input[name=mode][value=flows]");
    let namespaces: Vec<String> = (0..10).map(|n| format!("team-{n}")).collect();
    let mut arguments = vec!["delete", "ns"];
    arguments.extend(namespaces.iter().map(String::as_str));
    scene.ok(&arguments);
    scene.wait_for_pods(5, "Running");
}

fn goes(scene: &mut Scene) {
    scene.reload_folded();
    let browser = &scene.browser;
    scene.restart_lab(|| {
        browser.wait(
            "it is missed",
            "document.querySelector('#connection').dataset.state === 'daemon-gone'",
        );
        let notice = browser.run("return document.querySelector('#notice').textContent");
        assert!(
            notice.as_str().unwrap().starts_with("The daemon is gone"),
            "{notice}"
        );
        scene.picture("daemon-gone");
    });
    browser.wait(
        "it is found",
        "document.querySelector('#connection').dataset.state === 'live'",
    );
    browser.wait("its pods", "document.querySelectorAll('.pill').length >= 5");
    assert_eq!(
        browser.run("return document.querySelector('#notice').hidden"),
        true
    );
    assert!(scene.client_asks_backend());
    browser.wait("its flows", &format!("{LINE}?.dataset.state === 'allow'"));
}

fn quiet(scene: &mut Scene) {
    let expected = |error: &&String| {
        // The two refusals that were provoked, and streams that ended with a page or the lab.
        let provoked = [
            "status of 400",
            "status of 503",
            "ERR_INCOMPLETE_CHUNKED_ENCODING",
        ];
        !provoked.iter().any(|part| error.contains(part))
    };
    let errors = scene.browser.errors();
    let unexpected: Vec<&String> = errors.iter().filter(expected).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    let requested = scene.browser.requested();
    assert!(requested.len() > 50, "{}", requested.len());
    // What Chromium itself has open before the page is its own.
    let own = |url: &&String| url.starts_with("chrome://") || url.starts_with("data:");
    let foreign: Vec<&String> = requested
        .iter()
        .filter(|url| !own(url) && !url.starts_with(&scene.url))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}
