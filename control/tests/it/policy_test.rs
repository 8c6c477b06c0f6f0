//! The format of policy tests, how they are judged, and `weir test` as a program.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use control::policy_test::report::{Entry, Report};
use control::policy_test::{
    File, LoadOptions, Options, Outcome, Shared, Verdict, load, run, untouched,
};

/// Two pods, a Service, and a policy that lets only `api` reach the database.
const OBJECTS: &str = "
- {apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: red}}}
- apiVersion: v1
  kind: Pod
  metadata: {namespace: shop, name: db, labels: {app: db}}
  spec: {containers: [{name: c, image: i, ports: [{name: sql, containerPort: 5432}]}]}
- apiVersion: v1
  kind: Pod
  metadata: {namespace: shop, name: api, labels: {app: api}}
  spec: {containers: [{name: c, image: i}]}
- apiVersion: v1
  kind: Pod
  metadata: {namespace: shop, name: web, labels: {app: web}}
  spec: {containers: [{name: c, image: i}]}
- apiVersion: v1
  kind: Service
  metadata: {namespace: shop, name: sql}
  spec: {selector: {app: db}, ports: [{port: 15432, targetPort: sql}]}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {namespace: shop, name: db}
  spec:
    podSelector: {matchLabels: {app: db}}
    ingress: [{from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: sql}]}]
";

/// A test of [`OBJECTS`] with these further fields.
fn document(rest: &str) -> String {
    let head = "apiVersion: weir.dev/v1alpha1\nkind: PolicyTest\nmetadata: {name: t}\n";
    format!("{head}objects:{OBJECTS}{rest}")
}

fn loaded(text: &str) -> File {
    load("t.yaml", text, Path::new(""), &LoadOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn error(text: &str) -> String {
    let loaded = load("t.yaml", text, Path::new(""), &LoadOptions::default());
    loaded.unwrap_err().to_string()
}

/// Judged with the specification and trace beside the compiled table.
fn judged(rest: &str) -> Outcome {
    let file = loaded(&document(rest));
    let options = Options {
        strict: true,
        check: true,
    };
    run(&file.tests[0], &Shared::default(), &options)
}

fn passes(rest: &str) -> Outcome {
    let outcome = judged(rest);
    assert_eq!(outcome.verdict, Verdict::Passed, "{rest}\n{outcome:#?}");
    outcome
}

/// The failures in a line each.
fn fails(rest: &str) -> Vec<String> {
    let outcome = judged(rest);
    assert_eq!(outcome.verdict, Verdict::Failed, "{rest}\n{outcome:#?}");
    let failures = outcome.failures.iter();
    failures
        .map(|f| format!("{}: expected {}, found {}", f.flow, f.expected, f.found))
        .collect()
}

fn breaks(rest: &str) -> String {
    match judged(rest).verdict {
        Verdict::Broken { message, .. } => message,
        other => panic!("{rest}\n{other:?}"),
    }
}

#[test]
fn later_lines_take_the_place_of_earlier_ones() {
    let outcome = passes(
        "expect:
- {from: '*', to: '*', port: 5432, allow: true}
- {from: '*', to: shop/db, port: 5432, allow: false, because: shop/db}
- {from: shop/api, to: shop/db, port: sql, allow: true, because: shop/db}
",
    );
    // Three pods, each to the two others.
    assert_eq!(outcome.flows, 6);
    assert_eq!(outcome.untouched.len(), 0);
    assert_eq!(outcome.touched.len(), 1);
}

#[test]
fn every_kind_of_end() {
    passes(
        "expect:
- {from: [shop/web, 192.0.2.1], to: {namespace: shop, labels: {app: db}}, port: 5432, allow: false}
- {from: {labels: {app: api}}, to: shop/sql, port: 15432, allow: true}
- {from: {namespace: shop}, to: 192.0.2.1, port: 53, protocol: UDP, allow: true}
- {from: shop/db, to: shop/db, port: 80, allow: true}
- {from: shop/web, to: shop/db, protocol: ICMP, allow: false}
- {from: shop/web, to: shop/api, protocol: ICMP, family: IPv4, allow: true}
- {from: shop/web, to: shop/db, protocol: SCTP, port: [1, 2], allow: false}
- {from: shop/api, to: [shop/db], port: [sql, 5432], allow: true}
",
    );
}

#[test]
fn what_does_not_hold_says_what_is() {
    assert_eq!(
        fails(
            "expect:
- {from: '*', to: shop/db, port: 5432, allow: true}
- {from: shop/api, to: shop/db, port: 5432, allow: true, because: shop/other}
- {from: shop/web, to: shop/api, port: 80, allow: true, because: shop/db}
"
        ),
        [
            "shop/api -> shop/db TCP 5432: expected allow by shop/other, found allow by shop/db",
            "shop/web -> shop/db TCP 5432: expected allow, found deny",
            "shop/web -> shop/api TCP 80: expected allow by shop/db, found allow by no policy",
        ]
    );
}

#[test]
fn steps_go_on_from_one_another() {
    passes(
        "expect:
- {from: shop/web, to: shop/db, port: 5432, allow: false}
steps:
- name: web becomes an api
  label: [{kind: Pod, namespace: shop, name: web, labels: {app: api, since: today}}]
  expect:
  - {from: shop/web, to: shop/db, port: 5432, allow: true}
- name: and loses its labels
  label: [{kind: pods, namespace: shop, name: web, labels: {app: null, since: null}}]
  expect:
  - {from: shop/web, to: shop/db, port: 5432, allow: false}
- name: the policy is made anew under its name, closed
  delete: [{kind: netpol, namespace: shop, name: db}]
  apply:
  - apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata: {namespace: shop, name: db}
    spec: {podSelector: {}}
  expect:
  - {from: '*', to: '*', port: 5432, allow: false, because: shop/db}
- name: what is refused changes nothing
  apply:
  - apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata: {namespace: shop, name: db}
    spec: {podSelector: {}, policyTypes: [Nonsense]}
  refused: 'Unsupported value: \"Nonsense\"'
- name: nor does what cannot be read
  apply:
  - {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: db},
     spec: {podSelector: {}, ingres: []}}
  refused: unknown field \"spec.ingres\"
- name: it goes
  delete: [{kind: NetworkPolicy, namespace: shop, name: db}]
  expect:
  - {from: '*', to: '*', port: 5432, allow: true}
- name: a pod takes another's address
  delete: [{kind: Pod, namespace: shop, name: api}]
  apply:
  - {apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: late},
     spec: {containers: [{name: c, image: i}]}, status: {phase: Running, podIP: 10.0.0.7}}
  expect:
  - {from: shop/late, to: shop/db, port: 80, allow: true}
",
    );
}

#[test]
fn a_step_that_is_refused_otherwise_or_not_at_all_fails() {
    let step = |refused: &str, kind: &str| {
        format!(
            "steps:
- apply: [{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy,
            metadata: {{namespace: shop, name: x}},
            spec: {{podSelector: {{}}, policyTypes: [{kind}]}}}}]
  refused: {refused}
"
        )
    };
    assert_eq!(
        fails(&step("anything", "Ingress")),
        [": expected refused: anything, found accepted"]
    );
    assert!(fails(&step("something else", "Nonsense"))[0].starts_with(
        ": expected refused: something else, found refused, but: The NetworkPolicy \"x\" is \
             invalid"
    ));
    let unexpected = step("x", "Nonsense").replace(
        "  refused: x",
        "  expect: [{from: '*', to: '*', port: 1, allow: true}]",
    );
    assert!(breaks(&unexpected).starts_with("step 1: The NetworkPolicy \"x\" is invalid"));
}

#[test]
fn each_family_is_judged() {
    let rest = "
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {namespace: six, name: only-v4}
  spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}
- {apiVersion: v1, kind: Pod, metadata: {namespace: six, name: a},
   spec: {containers: [{name: c, image: i}]}, status: {podIPs: [{ip: 10.1.0.1}, {ip: 'fd00::1'}]}}
- {apiVersion: v1, kind: Pod, metadata: {namespace: six, name: b},
   spec: {containers: [{name: c, image: i}]}, status: {podIPs: [{ip: 10.1.0.2}, {ip: 'fd00::2'}]}}
expect:
";
    let line = "- {from: six/a, to: six/b, port: 80, allow: true}\n";
    assert_eq!(
        fails(&format!("{}{line}", &rest[1..])),
        ["six/a -> six/b TCP 80 (IPv6): expected allow, found deny"]
    );
    let outcome = passes(&format!(
        "{}{line}- {{from: six/a, to: six/b, port: 80, family: IPv6, allow: false}}\n\
         - {{from: 'fd00::1', to: 'fd00::2', port: 80, allow: false}}\n",
        &rest[1..]
    ));
    assert_eq!(outcome.flows, 3);
}

#[test]
fn what_is_skipped_is_not_judged_and_says_so() {
    let outcome = passes(
        "expect:
- {from: '*', to: shop/db, port: 5432, allow: false}
- {from: shop/api, to: shop/db, port: 5432, allow: false, skip: {offline: 'only on packets'}}
- {from: shop/web, to: shop/api, port: 80, allow: true, skip: {packets: 'only offline'}}
steps:
- {delete: [{kind: netpol, namespace: shop, name: db}], skip: {offline: 'left out'}}
- expect: [{from: shop/web, to: shop/db, port: 5432, allow: false}]
",
    );
    assert_eq!((outcome.flows, outcome.skipped), (3, 1));
    let all = judged(
        "expect: [{from: '*', to: '*', port: 1, allow: true}]\nskip: {offline: 'no kernel here'}\n",
    );
    assert_eq!(all.verdict, Verdict::Skipped("no kernel here".to_owned()));
}

#[test]
fn what_cannot_be_judged_says_why() {
    for (line, why) in [
        (
            "{from: shop/nobody, to: shop/db, port: 1, allow: true}",
            "\"shop/nobody\" is neither an address nor a pod or Service",
        ),
        (
            "{from: shop/sql, to: shop/db, port: 1, allow: true}",
            "shop/sql is a Service: only a receiver can be one",
        ),
        (
            "{from: shop/web, to: shop/db, port: http, allow: true}",
            "port \"http\" is no number from 1 to 65535, and shop/db calls no port so",
        ),
        (
            "{from: shop/web, to: '*', port: http, allow: true}",
            "none of these pods has a TCP port called \"http\"",
        ),
        (
            "{from: {labels: {app: x}}, to: '*', port: 1, allow: true}",
            "no pod has the labels {app=x}",
        ),
        (
            "{from: shop/web, to: 'fd00::1', port: 1, allow: true}",
            "speaks of no connection",
        ),
        (
            "{from: shop/web, to: shop/db, port: 1, family: IPv6, allow: true}",
            "speaks of no connection",
        ),
        (
            "{from: shop/web, to: shop/sql, port: 5432, allow: true}",
            "Service shop/sql has no port 5432/TCP: it has 15432/TCP",
        ),
    ] {
        let message = breaks(&format!("expect:\n- {line}\n"));
        assert!(message.starts_with(why), "{line}: {message}");
    }
}

#[test]
fn the_format_is_read_strictly_and_errors_say_where() {
    let line = |text: &str| {
        let head = "# two documents\napiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n---\n\
                    apiVersion: weir.dev/v1alpha1\nkind: PolicyTest\nmetadata: {name: t}\nexpect:\n\
                    - {from: '*', to: '*', port: 1, allow: true}\n- ";
        error(&format!("{head}{text}\n"))
    };
    for (text, message) in [
        (
            "{from: '*', to: '*', port: 80, alow: true}",
            "t.yaml:11: document 2: expect[1]: unknown field \"alow\"; there are: from, to, port, \
             protocol, family, allow, because, skip",
        ),
        (
            "from: '*'\n  to: '*'\n  port: http2\n  allow: 'yes'",
            "t.yaml:14: document 2: expect[1].allow: must be true or false, not text",
        ),
        (
            "{from: '*', to: '*', allow: true}",
            "t.yaml:11: document 2: expect[1]: TCP needs a port",
        ),
        (
            "{from: '*', to: '*', port: 1, protocol: ICMP, allow: true}",
            "t.yaml:11: document 2: expect[1]: ICMP has no port",
        ),
        (
            "{from: web, to: '*', port: 1, allow: true}",
            "t.yaml:11: document 2: expect[1].from: \"web\" is no end: write NAMESPACE/POD, \
             NAMESPACE/SERVICE, an address, \"*\", or {namespace: …, labels: {…}}",
        ),
        (
            "{from: '*', to: [a/b, [c/d]], port: 1, allow: true}",
            "t.yaml:11: document 2: expect[1].to[1]: a list in a list",
        ),
        (
            "{from: '*', to: {label: {}}, port: 1, allow: true}",
            "t.yaml:11: document 2: expect[1].to: unknown field \"label\"; there are: namespace, \
             labels",
        ),
        (
            "{from: '*', to: '*', port: 0, allow: true}",
            "t.yaml:11: document 2: expect[1].port: must be a name or a number from 1 to 65535",
        ),
        (
            "{from: '*', to: '*', port: '80', allow: true}",
            "t.yaml:11: document 2: expect[1].port: must be a name or a number from 1 to 65535",
        ),
        (
            "{from: '*', to: '*', port: 1, protocol: tcp, allow: true}",
            "t.yaml:11: document 2: expect[1].protocol: must be TCP, UDP, SCTP or ICMP, not \
             \"tcp\"",
        ),
        (
            "{from: '*', to: '*', port: [], allow: true}",
            "t.yaml:11: document 2: expect[1].port: names no port",
        ),
        (
            "{from: '*', port: 1, allow: true}",
            "t.yaml:11: document 2: expect[1]: \"to\" is missing",
        ),
        (
            "{from: '*', to: '*', port: 1, allow: true, skip: {packet: x}}",
            "t.yaml:11: document 2: expect[1].skip: unknown field \"packet\"; there are: offline, \
             packets",
        ),
    ] {
        assert_eq!(line(text), message);
    }
    for (rest, message) in [
        ("", "t.yaml:1: document 1: expects nothing"),
        (
            "steps: [{name: x}]\n",
            "t.yaml:28: document 1: steps[0]: changes nothing and expects nothing",
        ),
        (
            "steps: [{refused: x}]\n",
            "t.yaml:28: document 1: steps[0]: nothing is changed that could be refused",
        ),
        (
            "steps: [{delete: [{kind: unicorn, name: x}]}]\n",
            "t.yaml:28: document 1: steps[0].delete[0].kind: there is no kind \"unicorn\"",
        ),
        (
            "files: [nowhere.yaml]\nexpect: [{from: '*', to: '*', port: 1, allow: true}]\n",
            "t.yaml:28: document 1: files[0]: the path \"nowhere.yaml\" does not exist",
        ),
    ] {
        assert_eq!(error(&document(rest)), message);
    }
    assert_eq!(
        error("kind: PolicyTest\napiVersion: weir.dev/v2\nmetadata: {name: t}\n"),
        "t.yaml:2: document 1: apiVersion: must be weir.dev/v1alpha1"
    );
    assert_eq!(
        error("kind: PolicyTest\n  apiVersion: weir.dev/v1alpha1\n"),
        "t.yaml:2: document 1: no YAML: mapping values are not allowed in this context"
    );
    assert_eq!(
        error("# one\n---\na: 1\n---\nb: 1\nc: d: e\n"),
        "t.yaml:6: document 2: no YAML: mapping values are not allowed in this context"
    );
    let listed = "apiVersion: v1\nkind: List\nitems: [{kind: PolicyTest}]\n";
    assert_eq!(
        error(listed),
        "t.yaml:1: document 1: a List holds no PolicyTest: let each be a document of its own"
    );
}

#[test]
fn plain_objects_beside_tests_are_everybodys() {
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
                  metadata: {namespace: shop, name: NAME}\nspec: {podSelector: {}}\n---\n";
    let text = format!(
        "{}{}{}---\n{}",
        policy.replace("NAME", "everybody"),
        policy
            .replace("NAME", "nobody")
            .replace("shop", "elsewhere"),
        document(
            "expect: [{from: '*', to: '*', port: 1, allow: false, because: shop/everybody}]\n"
        ),
        "apiVersion: weir.dev/v1alpha1\nkind: PolicyTest\nmetadata: {name: bare}\n\
         expect: [{from: 192.0.2.1, to: 192.0.2.2, port: 1, allow: true}]\n",
    );
    let file = loaded(&text);
    let shared = Shared::new(file.objects.clone());
    let options = Options {
        strict: true,
        check: true,
    };
    let outcomes: Vec<Outcome> = file
        .tests
        .iter()
        .map(|test| run(test, &shared, &options))
        .collect();
    for outcome in &outcomes {
        assert_eq!(outcome.verdict, Verdict::Passed, "{outcome:#?}");
    }
    let policies: Vec<String> = untouched(&file.objects, &outcomes)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(policies, ["NetworkPolicy elsewhere/nobody"]);
    // The test's own is isolated by both.
    assert_eq!(outcomes[0].untouched.len(), 0);
}

/// Nobody is behind a Service: that is a denial like others, and says what it is.
#[test]
fn a_service_without_a_ready_backend_is_a_plain_denial() {
    let service = |name: &str, more: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{namespace: shop, name: {name}}}, spec: \
             {{selector: {{app: none}}, ports: [{{port: 80}}]{more}}}}}"
        )
    };
    let [plain, headless] = [
        service("plain", ""),
        service("headless", ", clusterIP: None"),
    ];
    let steps = |allow: bool, more: &str| {
        format!(
            "steps:\n- apply: [{plain}, {headless}]\n  expect:\n\
             \x20 - {{from: shop/web, to: shop/plain, port: 80, allow: {allow}{more}}}\n\
             \x20 - {{from: shop/web, to: shop/headless, port: 80, allow: {allow}{more}}}\n\
             \x20 - {{from: shop/web, to: [shop/plain, shop/db], port: 80, allow: {allow}{more}}}\n"
        )
    };
    passes(&steps(false, ""));
    let outcome = judged(&steps(true, ""));
    assert_eq!(outcome.verdict, Verdict::Failed, "{outcome:#?}");
    let found: Vec<(&str, &str)> = outcome
        .failures
        .iter()
        .map(|failure| (failure.flow.as_str(), failure.found.as_str()))
        .collect();
    assert!(
        found.contains(&(
            "shop/web -> shop/plain TCP 80",
            "deny, since Service shop/plain has no ready backend: refused at once (TCP reset)"
        )),
        "{found:#?}"
    );
    assert!(
        found.contains(&(
            "shop/web -> shop/headless TCP 80",
            "deny, since Service shop/headless has no ready backend: its name has no address"
        )),
        "{found:#?}"
    );
    for failure in &outcome.failures {
        let trace = serde_json::to_value(&failure.trace).unwrap();
        crate::schemas::holds("trace.v1.schema.json", &trace);
    }
    // No policy has denied it.
    let outcome = judged(&steps(false, ", because: shop/db"));
    assert_eq!(outcome.verdict, Verdict::Failed, "{outcome:#?}");
    assert_eq!(outcome.failures[0].found, "deny by no policy");
}

/// A Deployment `jobs` whose pods are labelled `app: APP`.
fn jobs(app: &str, replicas: u32) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{namespace: shop, name: jobs}}, spec: \
         {{replicas: {replicas}, selector: {{matchLabels: {{run: jobs}}}}, template: {{metadata: \
         {{labels: {{run: jobs, app: {app}}}}}, spec: {{containers: [{{name: c, image: i}}]}}}}}}}}"
    )
}

#[test]
fn a_workload_that_changes_or_goes_takes_its_pods_along() {
    let [friends, strangers] = [jobs("api", 2), jobs("web", 1)];
    let friendly = format!(
        "steps:\n- apply: [{friends}]\n  expect:\n\
         \x20 - {{from: [shop/jobs-0, shop/jobs-1], to: shop/db, port: sql, allow: true}}\n"
    );
    let strange = format!(
        "{friendly}- apply: [{strangers}]\n  expect:\n\
         \x20 - {{from: shop/jobs-0, to: shop/db, port: sql, allow: false}}\n"
    );
    passes(&strange);
    let delete = "- delete: [{kind: Deployment, namespace: shop, name: jobs}]\n  expect:\n";
    for (before, pod) in [
        (strange, "jobs-1"),
        (format!("{friendly}{delete}"), "jobs-0"),
    ] {
        let gone = judged(&format!(
            "{before}  - {{from: shop/{pod}, to: shop/db, port: sql, allow: true}}\n"
        ));
        assert!(matches!(gone.verdict, Verdict::Broken { .. }), "{gone:#?}");
    }
}

#[test]
fn a_cron_job_stands_for_the_pods_of_its_jobs() {
    let cron = |app: &str| {
        format!(
            "{{apiVersion: batch/v1, kind: CronJob, metadata: {{namespace: shop, name: nightly}}, \
             spec: {{schedule: '0 3 * * *', jobTemplate: {{spec: {{parallelism: 2, template: \
             {{metadata: {{labels: {{app: {app}}}}}, spec: {{restartPolicy: Never, containers: \
             [{{name: c, image: i}}]}}}}}}}}}}}}"
        )
    };
    let [friendly, strange] = [cron("api"), cron("web")];
    let steps = format!(
        "steps:\n- apply: [{friendly}]\n  expect:\n\
         \x20 - {{from: [shop/nightly-0, shop/nightly-1], to: shop/db, port: sql, allow: true}}\n\
         - apply: [{strange}]\n  expect:\n\
         \x20 - {{from: shop/nightly-0, to: shop/db, port: sql, allow: false}}\n"
    );
    assert_eq!(passes(&steps).flows, 3);
    // As a cluster prints them: the pod is a Job's, which is the CronJob's.
    let pod = "{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: nightly-29391-x, \
               labels: {app: api}, ownerReferences: [{apiVersion: batch/v1, kind: Job, name: \
               nightly-29391, uid: '7'}]}, spec: {containers: [{name: c, image: i}]}}";
    let gone = judged(&format!(
        "steps:\n- apply: [{friendly}, {pod}]\n  expect:\n\
         \x20 - {{from: shop/nightly-0, to: shop/db, port: sql, allow: true}}\n"
    ));
    assert!(matches!(gone.verdict, Verdict::Broken { .. }), "{gone:#?}");
}

#[test]
fn a_workload_whose_pods_stand_beside_it_makes_none() {
    let pod = "{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: jobs-5d4f-x, labels: \
               {run: jobs, app: api}, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, \
               name: jobs-5d4f, uid: '7'}]}, spec: {containers: [{name: c, image: i}]}}";
    let friends = jobs("api", 2);
    let outcome = passes(&format!(
        "steps:\n- apply: [{friends}, {pod}]\n  expect:\n\
         \x20 - {{from: {{labels: {{run: jobs}}}}, to: shop/db, port: sql, allow: true}}\n"
    ));
    assert_eq!(outcome.flows, 1);
}

#[test]
fn reports_count_what_there_is() {
    let text = [
        document("expect: [{from: '*', to: shop/db, port: 1, allow: true}]\n"),
        document("expect: [{from: '*', to: shop/db, port: 1, allow: false}]\n"),
        document("expect: [{from: '*', to: shop/x, port: 1, allow: false}]\n"),
        document("expect: [{from: '*', to: '*', port: 1, allow: false}]\nskip: {offline: no}\n")
            .replace("no}", "'<no>'}"),
    ]
    .join("---\n");
    let file = loaded(&text);
    let mut report = Report::default();
    for test in &file.tests {
        let outcome = run(test, &Shared::default(), &Options::default());
        let elapsed = std::time::Duration::from_millis(2);
        report.entries.push(Entry::new(test, outcome, elapsed));
    }
    let totals = report.totals();
    assert_eq!(
        (totals.passed, totals.failed, totals.broken, totals.skipped),
        (1, 1, 1, 1)
    );
    assert_eq!(report.status(), 2);
    let text = report.text();
    for line in [
        "  FAIL  t (2 failed, 2 connections judged)",
        "        line 28: shop/api -> shop/db TCP 1: expected allow, found deny",
        "  ok    t (2 connections)",
        "  skip  t: <no>",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    crate::schemas::holds("test.v1.schema.json", &report.json());
    let failures = report.json()["tests"][0]["failures"].take();
    for failure in failures.as_array().unwrap() {
        crate::schemas::holds("trace.v1.schema.json", &failure["trace"]);
    }
    let xml = report.junit();
    assert!(
        xml.contains(
            "<testsuites name=\"weir test\" tests=\"4\" failures=\"1\" errors=\"1\" \
             skipped=\"1\" time=\"0.008\">"
        ),
        "{xml}"
    );
    assert!(xml.contains("<skipped message=\"&lt;no&gt;\"/>"), "{xml}");
    assert!(
        xml.contains("<failure type=\"expectation\" message=\"line 28: shop/api -&gt; shop/db"),
        "{xml}"
    );
}

/// A folder with files, gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &str)]) -> Folder {
        let folder = std::env::temp_dir().join(format!("weir-test-{}-{name}", std::process::id()));
        for (file, text) in files {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Folder(folder)
    }

    fn weir(&self, arguments: &[&str], input: &str) -> Output {
        use std::io::Write;
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(arguments)
            .current_dir(&self.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A program that does not read its input has closed it.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// [`OBJECTS`] as a live cluster's `kubectl get … -o yaml` gives them, kinds that nobody knows
/// among them.
fn live_cluster() -> String {
    format!(
        "apiVersion: v1\nitems:{OBJECTS}- {{apiVersion: example.com/v1, kind: Widget, metadata: \
         {{name: w}}}}\nkind: List\nmetadata: {{resourceVersion: ''}}\n"
    )
}

const BARE: &str = "apiVersion: weir.dev/v1alpha1\nkind: PolicyTest\nmetadata: {name: bare}\n";

#[test]
fn a_file_that_is_no_test_makes_a_document_with_an_error_all_the_same() {
    let expect = "expect:\n- {from: shop/web, to: shop/db, port: 5432, allow: false}\n";
    let folder = Folder::new(
        "malformed",
        &[
            ("good.yaml", format!("{BARE}{expect}").as_str()),
            ("field.yaml", &format!("{BARE}expects: []\n")),
            ("yaml.yaml", "kind: [PolicyTest\n"),
            (
                "other.yaml",
                "apiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n",
            ),
        ],
    );
    for (name, file, line) in [
        ("field.yaml", "field.yaml", Some(4)),
        ("yaml.yaml", "yaml.yaml", None),
        ("other.yaml", "other.yaml", None),
        ("missing.yaml", "good.yaml missing.yaml", None),
    ] {
        let plain = ["test", "good.yaml", name];
        let arguments = if name == "other.yaml" {
            &["test", name][..]
        } else {
            &plain
        };
        let (expected, stdout, complaint) = said(&folder.weir(arguments, ""));
        assert_eq!((expected, stdout.as_str()), (Some(2), ""), "{name}");
        let run = |form| {
            let (status, stdout, stderr) =
                said(&folder.weir(&[arguments, &["-o", form]].concat(), ""));
            assert_eq!((status, &stderr), (expected, &complaint), "{name}");
            stdout
        };
        let json: serde_json::Value = serde_json::from_str(&run("json")).unwrap();
        crate::schemas::holds("test.v1.schema.json", &json);
        assert_eq!(json["summary"]["errors"], 1, "{json}");
        let test = &json["tests"][0];
        assert_eq!(
            (&test["file"], &test["result"]),
            (&file.into(), &"error".into()),
            "{json}"
        );
        let message = test["message"].as_str().unwrap();
        assert!(complaint.contains(message), "{complaint}");
        if let Some(line) = line {
            assert_eq!(test["line"], line, "{json}");
        }
        let xml = run("junit");
        for part in [
            "<testsuites name=\"weir test\" tests=\"1\" failures=\"0\" errors=\"1\" skipped=\"0\"",
            " name=\"reading the tests\"",
            "<error type=\"notRunnable\" message=\"",
            "</testsuites>\n",
        ] {
            assert!(xml.contains(part), "{part}: {xml}");
        }
    }
}

#[test]
fn the_program_takes_objects_from_files_and_from_a_pipe() {
    let expect = "expect:\n- {from: shop/web, to: shop/db, port: 5432, allow: false}\n";
    let by_file = format!("{BARE}files: [../cluster.yaml]\n{expect}");
    let folder = Folder::new(
        "pipe",
        &[
            ("tests/by_file.yaml", by_file.as_str()),
            ("bare.yaml", &format!("{BARE}{expect}")),
            ("cluster.yaml", &live_cluster()),
        ],
    );
    let skipped = "Warning: skipped Widget \"w\": nothing is known of example.com/v1 Widget";
    let (status, stdout, stderr) = said(&folder.weir(&["test", "tests/by_file.yaml"], ""));
    assert_eq!(status, Some(0), "{stdout}{stderr}");
    assert!(stderr.contains(skipped), "{stderr}");
    let arguments = ["test", "bare.yaml", "-f", "-", "--strict"];
    let (status, stdout, stderr) = said(&folder.weir(&arguments, &live_cluster()));
    assert_eq!(status, Some(0), "{stdout}{stderr}");
    assert!(
        stdout.contains("1 tests: 1 passed; 1 connections judged"),
        "{stdout}"
    );
    assert!(stderr.contains(skipped), "{stderr}");
    // The test itself through the pipe.
    let arguments = ["test", "-", "-f", "cluster.yaml"];
    let (status, ..) = said(&folder.weir(&arguments, &format!("{BARE}{expect}")));
    assert_eq!(status, Some(0));
    // A policy that somebody else enforces is no matter for a warning.
    let foreign = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: c}\n";
    let cluster = format!("{}---\n{foreign}", live_cluster());
    let arguments = ["test", "bare.yaml", "-f", "-"];
    let (status, _, stderr) = said(&folder.weir(&arguments, &cluster));
    assert_eq!(status, Some(2));
    assert!(
        stderr.contains("--ignore-kinds=CiliumNetworkPolicy"),
        "{stderr}"
    );
    let arguments = [&arguments[..], &["--ignore-kinds=CiliumNetworkPolicy"]].concat();
    assert_eq!(said(&folder.weir(&arguments, &cluster)).0, Some(0));
}

#[test]
fn the_program_s_exit_status_tells_wrong_from_unrunnable() {
    let expectation = |to: &str, allow: bool| {
        format!("{BARE}expect: [{{from: shop/web, to: {to}, port: 80, allow: {allow}}}]\n")
    };
    let folder = Folder::new(
        "status",
        &[
            ("wrong.yaml", &expectation("shop/db", true)),
            ("unrunnable.yaml", &expectation("shop/nobody", true)),
            ("none.yaml", OBJECTS),
            ("untouching.yaml", &expectation("shop/api", true)),
            ("cluster.yaml", &live_cluster()),
        ],
    );
    for (arguments, status) in [
        (vec!["wrong.yaml"], 1),
        (vec!["untouching.yaml"], 0),
        (vec!["untouching.yaml", "--strict"], 1),
        (vec!["unrunnable.yaml"], 2),
        (vec!["wrong.yaml", "unrunnable.yaml"], 2),
        (vec!["none.yaml"], 2),
        (vec!["nowhere.yaml"], 2),
        (vec![], 2),
        (vec!["wrong.yaml", "--unknown"], 2),
        (vec!["wrong.yaml", "-o", "xml"], 2),
        (vec!["-", "-f", "-"], 2),
    ] {
        let all = [vec!["test", "-f", "cluster.yaml"], arguments.clone()].concat();
        let (found, stdout, stderr) = said(&folder.weir(&all, ""));
        assert_eq!(found, Some(status), "{arguments:?}\n{stdout}{stderr}");
    }
    let arguments = ["test", "untouching.yaml", "--strict", "-f", "cluster.yaml"];
    let (_, stdout, _) = said(&folder.weir(&arguments, ""));
    assert!(
        stdout.contains("-f cluster.yaml\n  FAIL  no expectation touches NetworkPolicy shop/db"),
        "{stdout}"
    );
}
