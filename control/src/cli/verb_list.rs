//! The verbs: their names, what `--help` says of them, their flags and what they do.

use super::completion;
use super::flags::{self, Flag};
use super::session::{Session, VerbError};
use super::verbs::label::MetadataMap;
use super::verbs::mutate::Way;
use super::verbs::{
    api_resources, capture, check, cluster, config, delete, describe, diff, edit, events, explain,
    expose, get, label, metrics, mutate, observe, patch, pods, questions, rollout, scale, set,
    status, test, top, version, wait,
};

/// One verb.
pub struct Verb {
    /// As it is typed.
    pub name: &'static str,
    /// One line, without a full stop.
    pub about: &'static str,
    /// Behind the program's name.
    pub usage: &'static str,
    /// Lines.
    pub examples: &'static str,
    /// Beside those that every verb has.
    pub flags: &'static [Flag],
    /// What it does.
    pub run: fn(&mut Session) -> Result<(), VerbError>,
}

/// Every verb, in the order of `--help`.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "apply",
        about: "Create or change the objects of files, in one transaction",
        usage: "apply (-f FILE… | -k FOLDER | view-last-applied TYPE NAME…)",
        examples: "weir apply -f policy.yaml\nhelm template . | weir apply -f -\n\
                   weir apply -f policies/ --dry-run=server",
        flags: mutate::APPLY_FLAGS,
        run: |session| mutate::run(session, Way::Apply),
    },
    Verb {
        name: "create",
        about: "Create objects, from files or by name",
        usage: "create (-f FILE… | KIND NAME)",
        examples: "weir create -f pod.yaml\nweir create namespace stars\n\
                   weir create deployment web --image=nginx --replicas=2 --port=80\n\
                   weir create service clusterip web --tcp=80:8080\n\
                   weir create configmap settings --from-literal=color=blue --from-file=app.conf\n\
                   weir create secret generic login --from-literal=password=s3cret\n\
                   weir create job once --image=busybox -- date",
        flags: mutate::CREATE_FLAGS,
        run: |session| mutate::run(session, Way::Create),
    },
    Verb {
        name: "replace",
        about: "Put the objects of files in place of those that are there",
        usage: "replace (-f FILE… | -k FOLDER) [--force]",
        examples: "weir replace -f policy.yaml\nweir replace --force -f pod.yaml",
        flags: mutate::REPLACE_FLAGS,
        run: |session| mutate::run(session, Way::Replace),
    },
    Verb {
        name: "edit",
        about: "Change objects in an editor: $KUBE_EDITOR, $EDITOR or vi",
        usage: "edit (TYPE NAME… | TYPE/NAME… | -f FILE…)",
        examples: "weir edit netpol web -n shop\nKUBE_EDITOR=nano weir edit deploy/web -o json",
        flags: edit::FLAGS,
        run: edit::run,
    },
    Verb {
        name: "diff",
        about: "What apply would change: 0 nothing, 1 something, more if that cannot be told",
        usage: "diff (-f FILE… | -k FOLDER)",
        examples: "weir diff -f policy.yaml\nKUBECTL_EXTERNAL_DIFF='diff -u -N --color=always' weir diff -f web.yaml",
        flags: diff::FLAGS,
        run: diff::run,
    },
    Verb {
        name: "get",
        about: "List objects",
        usage: "get (TYPE[,TYPE…] [NAME…] | TYPE/NAME…)",
        examples: "weir get pods -A -o wide\nweir get netpol\n\
                   weir get pod web -o jsonpath='{.status.podIP}'\n\
                   weir get pods -L app -w\n\
                   weir get pods -o custom-columns=NAME:.metadata.name,IP:.status.podIP\n\
                   weir get pods -o go-template='{{range .items}}{{.metadata.name}} {{end}}'\n\
                   weir get conntrack -A --to-pod shop/web --protocol tcp -o wide",
        flags: get::FLAGS,
        run: get::run,
    },
    Verb {
        name: "kustomize",
        about: "Print what apply -k applies",
        usage: "kustomize FOLDER",
        examples: "weir kustomize overlays/test",
        flags: &[],
        run: mutate::kustomize,
    },
    Verb {
        name: "expose",
        about: "Make a Service for a pod, a Deployment, a ReplicaSet or another Service",
        usage: "expose (TYPE NAME | TYPE/NAME | -f FILE) [--port=PORT] [--target-port=PORT] [--name=NAME]",
        examples: "weir expose deployment web --port=80 --target-port=8080\n\
                   weir expose pod web --port=53 --protocol=UDP --name=dns\n\
                   weir expose service web --name=web-headless --cluster-ip=None",
        flags: expose::FLAGS,
        run: expose::run,
    },
    Verb {
        name: "describe",
        about: "Show objects in full: of policies whom they are about and what their rules decided",
        usage: "describe (TYPE [NAME_PREFIX…] | TYPE/NAME… | TYPE -l SELECTOR | -f FILE…)",
        examples: "weir describe netpol web -n shop\nweir describe pod bb1\nweir describe cnp",
        flags: describe::FLAGS,
        run: describe::run,
    },
    Verb {
        name: "delete",
        about: "Delete objects",
        usage: "delete (-f FILE… | TYPE NAME… | TYPE/NAME… | TYPE -l SELECTOR | TYPE --all)",
        examples: "weir delete -f policy.yaml\nweir delete netpol default-deny -n stars\n\
                   weir delete conntrack -n shop -l app=web --dry-run=server",
        flags: delete::FLAGS,
        run: delete::run,
    },
    Verb {
        name: "label",
        about: "Set, change or remove labels",
        usage: "label (TYPE NAME… | TYPE/NAME… | TYPE --all | TYPE -l SELECTOR | -f FILE…) KEY=VALUE… KEY-…",
        examples: "weir label pod web role=frontend\nweir label ns client role-\n\
                   weir label pods --all tier=web --overwrite\nweir label pod web --list",
        flags: label::FLAGS,
        run: |session| label::run(session, MetadataMap::Labels),
    },
    Verb {
        name: "annotate",
        about: "Set, change or remove annotations",
        usage: "annotate (TYPE NAME… | TYPE/NAME… | TYPE --all | TYPE -l SELECTOR | -f FILE…) KEY=VALUE… KEY-…",
        examples: "weir annotate pod web note='a word'",
        flags: label::FLAGS,
        run: |session| label::run(session, MetadataMap::Annotations),
    },
    Verb {
        name: "scale",
        about: "Set how many pods a Deployment, ReplicaSet, StatefulSet or ReplicationController has",
        usage: "scale --replicas=COUNT (TYPE NAME… | TYPE/NAME… | TYPE --all | -f FILE…)",
        examples: "weir scale deployment web --replicas=3\n\
                   weir scale --current-replicas=2 --replicas=3 deployment/web\n\
                   weir scale statefulset -l app=db --replicas=0 --timeout=1m",
        flags: scale::FLAGS,
        run: scale::run,
    },
    Verb {
        name: "set",
        about: "Change images, variables, a Service's selector or an account",
        usage: "set (image | env | selector | serviceaccount) (TYPE NAME… | TYPE/NAME… | TYPE --all | -f FILE…) …",
        examples: "weir set image deployment/web web=nginx:1.27\n\
                   weir set env deploy/web COLOR=blue OLD-\nweir set selector svc web app=web",
        flags: set::FLAGS,
        run: set::run,
    },
    Verb {
        name: "rollout",
        about: "Replace the pods of a Deployment, StatefulSet or DaemonSet, and wait until that is done",
        usage: "rollout (restart | status) (TYPE [NAME…] | TYPE/NAME… | TYPE -l SELECTOR | -f FILE…)",
        examples: "weir rollout restart deployment/web\n\
                   weir rollout status deployment/web --timeout=2m\n\
                   weir rollout status deployment/web --watch=false",
        flags: rollout::FLAGS,
        run: rollout::run,
    },
    Verb {
        name: "wait",
        about: "Wait until objects are there, gone, or as wanted",
        usage: "wait --for=CONDITION (TYPE NAME… | TYPE/NAME… | TYPE -l SELECTOR | TYPE --all | -f FILE…)",
        examples: "weir wait --for=condition=Ready pod/web --timeout=60s\n\
                   weir wait --for=jsonpath='{.status.readyReplicas}'=3 deployment/web\n\
                   weir wait --for=create pod -l app=web\n\
                   weir wait --for=delete pod --all -n shop",
        flags: wait::FLAGS,
        run: wait::run,
    },
    Verb {
        name: "patch",
        about: "Change fields of objects",
        usage: "patch (TYPE NAME… | TYPE/NAME… | -f FILE…) (-p PATCH | --patch-file FILE)",
        examples: "weir patch deployment web -p '{\"spec\":{\"replicas\":2}}'\n\
                   weir patch netpol web --type=json \
                   -p '[{\"op\":\"remove\",\"path\":\"/spec/ingress/0\"}]'\n\
                   weir patch svc web --type=merge --patch-file=patch.yaml --dry-run=server",
        flags: patch::FLAGS,
        run: patch::run,
    },
    Verb {
        name: "run",
        about: "Run an image in a pod of a lab, with a session in it if wanted",
        usage: "run NAME --image=IMAGE [-it] [--rm] [--restart=Never] [-- COMMAND…]",
        examples: "weir run web --image=nginx --port=80\n\
                   weir run -it --rm --restart=Never bb --image=busybox -- wget -qO- web\n\
                   weir run web --image=nginx --dry-run=client -o yaml",
        flags: pods::run::FLAGS,
        run: pods::run::run,
    },
    Verb {
        name: "exec",
        about: "Run a command in a lab's pod",
        usage: "exec (POD | TYPE/NAME) [-c CONTAINER] [-it] -- COMMAND [ARGUMENT…]",
        examples: "weir exec bb1 -- curl -m 2 http://10.0.0.3\nweir exec -it bb1 -- sh\n\
                   weir exec deployment/web -- date",
        flags: pods::exec::FLAGS,
        run: pods::exec::run,
    },
    Verb {
        name: "attach",
        about: "Join the standard streams of a container of a lab's pod",
        usage: "attach (POD | TYPE/NAME) [-c CONTAINER] [-it]",
        examples: "weir attach bb1 -it",
        flags: pods::attach::FLAGS,
        run: pods::attach::run,
    },
    Verb {
        name: "logs",
        about: "Print what containers of a lab's pods have written",
        usage: "logs (POD | TYPE/NAME | -l SELECTOR) [-c CONTAINER] [-f]",
        examples: "weir logs -f web --tail=20\nweir logs deployment/web --since=5m\n\
                   weir logs -f -l app=web --all-containers --prefix",
        flags: pods::logs::FLAGS,
        run: pods::logs::run,
    },
    Verb {
        name: "port-forward",
        about: "Listen on local ports that lead to a pod's, past every policy",
        usage: "port-forward (POD | TYPE/NAME) [LOCAL:]REMOTE…",
        examples: "weir port-forward service/management-ui -n management-ui 9001\n\
                   weir port-forward deployment/web 8080:80\n\
                   weir port-forward --address 0.0.0.0 pod/web :80",
        flags: pods::port_forward::FLAGS,
        run: pods::port_forward::run,
    },
    Verb {
        name: "debug",
        about: "A container beside a pod's own, a copy of a pod, or a shell on the node",
        usage: "debug (POD | TYPE/NAME | node/NODE) --image=IMAGE [-it] [-- COMMAND…]",
        examples: "weir debug node/lab-node -it --image=ubuntu\n\
                   weir debug -it web --image=busybox\n\
                   weir debug web --copy-to=web-copy --set-image=*=busybox",
        flags: pods::debug::FLAGS,
        run: pods::debug::run,
    },
    Verb {
        name: "cp",
        about: "Copy files to and from a container of a lab's pod",
        usage: "cp [[NAMESPACE/]POD:]PATH [[NAMESPACE/]POD:]PATH",
        examples: "weir cp notes.txt bb1:/tmp\nweir cp shop/web:/etc/hosts hosts",
        flags: pods::copy::FLAGS,
        run: pods::copy::run,
    },
    Verb {
        name: "trace",
        about: "One flow's verdict: every policy consulted, the deciding rule, the nearest miss",
        usage: "trace --from NS/POD|IP --to NS/POD|NS/SERVICE|IP --port N [-f FILE…]",
        examples: "weir trace --from shop/client --to shop/web --port 80\n\
                   weir trace -f policies/ --from a/x --to a/y --port 80 --expect deny",
        flags: questions::TRACE_FLAGS,
        run: questions::trace,
    },
    Verb {
        name: "matrix",
        about: "Who may reach whom, over all pairs of pods and ports",
        usage: "matrix [-f FILE… | --live] [--port 80/TCP,icmp] [--with CIDR|NS/SERVICE]",
        examples: "weir matrix\nweir matrix -f manifests/ -o json\nweir matrix --live",
        flags: questions::MATRIX_FLAGS,
        run: questions::matrix,
    },
    Verb {
        name: "test",
        about: "Policy unit tests: offline, without a daemon and without root",
        usage: "test FILE… [-f OBJECTS…] [--strict] [-o text|json|junit]",
        examples: "weir test policies_test.yaml\n\
                   helm template . | weir test policies_test.yaml -f -\n\
                   kubectl get ns,sa,pods,svc,netpol -A -o yaml | weir test policies_test.yaml -f -\n\
                   weir test tests/ -f manifests/ --strict -o junit >weir.xml\n\n\
                   A FILE holds documents such as\n\
                   \x20 apiVersion: weir.dev/v1alpha1\n\
                   \x20 kind: PolicyTest\n\
                   \x20 metadata: {name: only-the-api-reaches-the-database}\n\
                   \x20 files: [policies/database.yaml]\n\
                   \x20 expect:\n\
                   \x20 - {from: \"*\", to: shop/db, port: 5432, allow: false}\n\
                   \x20 - {from: shop/api, to: shop/db, port: 5432, allow: true, because: shop/db}\n\
                   docs/testing-policies.md has the whole format. Exit status: 0 everything holds,\n\
                   1 something does not, 2 something cannot be judged",
        flags: test::FLAGS,
        run: test::run,
    },
    Verb {
        name: "observe",
        about: "Who talks to whom, what is dropped, by which policy and why",
        usage: "observe [-f] [--last N] [--verdict FORWARDED|DROPPED|AUDIT] [FILTER…] [-o FORM]",
        examples: "weir observe -f\nweir observe --verdict DROPPED --to-pod shop/web --last 5\n\
                   weir observe -f --namespace shop --not --to-port 53 -o json",
        flags: observe::FLAGS,
        run: observe::run,
    },
    Verb {
        name: "capture",
        about: "Packets as the dataplane sees them, with what became of them",
        usage: "capture POD|PORT|any… [-w FILE.pcapng|-] [-c N] [--duration TIME] [FILTER…] [-o text|json]",
        examples: "weir capture web-0 -n shop\n\
                   weir capture shop/web-0 -w web.pcapng --duration 10s\n\
                   weir capture any --verdict DROPPED -w - | tshark -r -\n\
                   weir capture uplink0 -c 20 --to-port 443",
        flags: capture::FLAGS,
        run: capture::run,
    },
    Verb {
        name: "top",
        about: "What pods, the node and flows do at present",
        usage: "top pod [NAME…] | node | flows [-n NS|-A] [--sort-by KEY] [-w] [-o json]",
        examples: "weir top pod -A --sort-by packets\nweir top node -w\n\
                   weir top flows --limit 5",
        flags: top::FLAGS,
        run: top::run,
    },
    Verb {
        name: "metrics",
        about: "Counters and gauges in Prometheus' text format",
        usage: "metrics",
        examples: "weir metrics | grep weir_dropped",
        flags: metrics::FLAGS,
        run: metrics::run,
    },
    Verb {
        name: "completion",
        about: "A script that completes commands in a shell",
        usage: "completion SHELL",
        examples: "source <(weir completion bash)\nsource <(weir completion zsh)\n\
                   weir completion fish | source",
        flags: &[],
        run: completion::run,
    },
    Verb {
        name: "api-resources",
        about: "The kinds of objects, with their short names",
        usage: "api-resources [--namespaced=true|false] [--api-group GROUP] [-o wide|name]",
        examples: "weir api-resources\nweir api-resources --api-group=networking.k8s.io -o name",
        flags: api_resources::FLAGS,
        run: api_resources::run,
    },
    Verb {
        name: "explain",
        about: "The fields of a kind, and what they mean",
        usage: "explain TYPE[.FIELD…] [--recursive]",
        examples: "weir explain netpol.spec.ingress\nweir explain cnp --recursive\n\
                   weir explain pod.spec.containers",
        flags: explain::FLAGS,
        run: explain::run,
    },
    Verb {
        name: "events",
        about: "What happened to objects, the newest last",
        usage: "events [-A] [--for TYPE/NAME] [--types=Warning] [-w]",
        examples: "weir events --for pod/web\nweir events -A --types=Warning -w",
        flags: events::FLAGS,
        run: events::run,
    },
    Verb {
        name: "api-versions",
        about: "The versions of the API that objects may have",
        usage: "api-versions",
        examples: "weir api-versions",
        flags: &[],
        run: cluster::api_versions,
    },
    Verb {
        name: "cluster-info",
        about: "Where the daemon and the Services of kube-system answer",
        usage: "cluster-info",
        examples: "weir cluster-info",
        flags: &[],
        run: cluster::info,
    },
    Verb {
        name: "auth",
        about: "Whether an action is allowed",
        usage: "auth can-i VERB TYPE",
        examples: "weir auth can-i create networkpolicies -n shop",
        flags: cluster::AUTH_FLAGS,
        run: cluster::auth,
    },
    Verb {
        name: "config",
        about: "Which lab or daemon is meant, and which namespace there",
        usage: "config (get-contexts | current-context | use-context NAME | set-context (NAME | --current) --namespace=NS | view)",
        examples: "weir config set-context --current --namespace=stars\nweir config get-contexts\n\
                   weir config use-context three-tier\nweir config view -o jsonpath='{.current-context}'",
        flags: config::FLAGS,
        run: config::run,
    },
    Verb {
        name: "version",
        about: "The versions of this program and of the daemon",
        usage: "version [--client] [-o json|yaml]",
        examples: "weir version\nweir version --client -o json",
        flags: version::FLAGS,
        run: version::run,
    },
    Verb {
        name: "daemon",
        about: "Run the dataplane daemon in the foreground",
        usage: "daemon [--config FILE]",
        examples: "weir daemon --config /etc/weir/weir.toml",
        flags: &[flags::value(
            "config",
            None,
            "Configuration; default /etc/weir/weir.toml",
        )],
        run: |session| {
            let config = session.parsed.value("config").map(std::path::Path::new);
            crate::daemon::run(config).map_err(|error| VerbError::Local(error.to_string()))
        },
    },
    Verb {
        name: "check",
        about: "What this machine has and lacks, with the command that mends it",
        usage: "check [--config FILE] [-o json]",
        examples: "sudo weir check",
        flags: check::FLAGS,
        run: check::run,
    },
    Verb {
        name: "status",
        about: "Health, workers, ports and generation of the daemon",
        usage: "status [-o json]",
        examples: "weir status\nweir status -o json",
        flags: status::FLAGS,
        run: status::run,
    },
];

/// Verbs that other programs beside this one bring.
pub const COMPANIONS: &[(&str, &str)] = &[
    (
        "lab",
        "Labs: pods on this machine, without a cluster (up, down, run, list, shell)",
    ),
    (
        "ui",
        "A page that shows who talks to whom, what is denied and why, and who may reach whom",
    ),
    ("bench", "Benchmarks"),
];
