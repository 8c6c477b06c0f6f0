//! What `run` makes of its command line: a Pod, or what an older kubectl made; a Service beside it
//! (kubectl `pkg/cmd/run`, and its generators up to 1.17).

use serde_json::{Map, Value, json};

use crate::cli::flags::Parsed;
use crate::cli::kubectl_version::KubectlVersion;
use crate::cli::session::VerbError;
use crate::cluster::patch;

/// What `run` was asked for.
#[derive(Debug)]
pub struct Options {
    /// Of the pod, or what makes it; and of its container.
    pub name: String,
    /// What follows the name.
    arguments: Vec<String>,
    image: String,
    /// `Always`, `OnFailure` or `Never`.
    pub restart_policy: String,
    labels: Map<String, Value>,
    annotations: Map<String, Value>,
    environment: Vec<Value>,
    port: Option<u16>,
    replicas: i64,
    /// Whether to attach.
    pub attach: bool,
    /// Whether a Service is wanted too.
    pub expose: bool,
    /// Whether what was made goes at the end.
    pub remove: bool,
    /// Whether later clients can write to it.
    pub leave_stdin_open: bool,
    stdin: bool,
    tty: bool,
    command: bool,
    privileged: bool,
    pull_policy: Option<String>,
    kind: WorkloadKind,
}

/// What runs the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WorkloadKind {
    Pod,
    Deployment,
    Job,
}

fn local(text: impl Into<String>) -> VerbError {
    VerbError::Local(text.into())
}

impl Options {
    /// Reads and checks the command line.
    pub fn read(parsed: &Parsed, kubectl: KubectlVersion) -> Result<Options, VerbError> {
        let mut arguments = parsed.arguments.clone();
        if arguments.is_empty() || parsed.before_dashes == Some(0) {
            return Err(local("NAME is required for run"));
        }
        let name = arguments.remove(0);
        let image = parsed.value("image").unwrap_or_default().to_owned();
        if image.is_empty() {
            return Err(match parsed.was_given("image") {
                true => local("--image is required"),
                false => local("required flag(s) \"image\" not set"),
            });
        }
        if !is_image(&image) {
            return Err(local(format!(
                "invalid image name \"{image}\": invalid reference format"
            )));
        }
        let (stdin, tty) = (parsed.is_on("stdin"), parsed.is_on("tty"));
        if tty && !stdin {
            return Err(local(
                "-i/--stdin is required for containers with -t/--tty=true",
            ));
        }
        let port = parsed.value("port").filter(|text| !text.is_empty());
        let expose = parsed.is_on("expose");
        if expose && port.is_none() {
            return Err(local("--port must be set when exposing a service"));
        }
        let port = port.map(|text| text.parse::<u16>());
        let port = port
            .transpose()
            .map_err(|_| local("--port must be a number"))?;
        let attach = match parsed.was_given("attach") {
            true => parsed.is_on("attach"),
            false => stdin,
        };
        let remove = parsed.is_on("rm");
        if remove && !attach {
            return Err(local("--rm should only be used for attached containers"));
        }
        let restart_policy = restart_policy(parsed, stdin)?;
        let kind = kind(parsed, kubectl, &restart_policy)?;
        let labels = labels(parsed.value("labels").unwrap_or_default())?;
        let pull_policy = parsed.value("image-pull-policy");
        if let Some(other) = pull_policy
            && !["", "Always", "IfNotPresent", "Never"].contains(&other)
        {
            return Err(local(format!(
                "invalid image pull policy: {other}, valid values are: Always, IfNotPresent, Never"
            )));
        }
        let replicas = crate::cli::values::integer(parsed, "replicas")?.unwrap_or(1);
        Ok(Options {
            name,
            arguments,
            image,
            restart_policy,
            labels,
            annotations: annotations(parsed)?,
            environment: environment(parsed)?,
            port,
            replicas,
            attach,
            expose,
            remove,
            leave_stdin_open: parsed.is_on("leave-stdin-open"),
            stdin,
            tty,
            command: parsed.is_on("command"),
            privileged: parsed.is_on("privileged"),
            pull_policy: pull_policy.map(str::to_owned).filter(|p| !p.is_empty()),
            kind,
        })
    }

    /// The generator that an older kubectl would name, if it is not a pod's.
    pub fn generator(&self) -> Option<&'static str> {
        match self.kind {
            WorkloadKind::Pod => None,
            WorkloadKind::Deployment => Some("deployment/apps.v1"),
            WorkloadKind::Job => Some("job/v1"),
        }
    }

    /// Whether its end is waited for, and its exit status is ours.
    pub fn has_status(&self) -> bool {
        self.kind == WorkloadKind::Pod && !self.leave_stdin_open && self.restart_policy != "Always"
    }

    fn labels_or_name(&self) -> Value {
        match self.labels.is_empty() {
            true => json!({"run": self.name}),
            false => self.labels.clone().into(),
        }
    }

    fn container(&self) -> Value {
        let mut container = json!({"name": self.name, "image": self.image, "resources": {}});
        let mut put = |field: &str, value: Value| container[field] = value;
        if !self.environment.is_empty() {
            put("env", self.environment.clone().into());
        }
        if !self.arguments.is_empty() {
            let field = if self.command { "command" } else { "args" };
            put(field, self.arguments.clone().into());
        }
        if let Some(port) = self.port {
            put("ports", json!([{"containerPort": port}]));
        }
        if self.stdin {
            put("stdin", true.into());
            if !self.leave_stdin_open {
                put("stdinOnce", true.into());
            }
        }
        if self.tty {
            put("tty", true.into());
        }
        if self.privileged {
            put("securityContext", json!({"privileged": true}));
        }
        if let Some(policy) = &self.pull_policy {
            put("imagePullPolicy", policy.as_str().into());
        }
        container
    }

    /// What runs the container.
    pub fn workload(&self) -> Value {
        let labels = self.labels_or_name();
        let mut metadata = json!({"name": self.name, "labels": labels});
        if !self.annotations.is_empty() {
            metadata["annotations"] = self.annotations.clone().into();
        }
        let containers = json!([self.container()]);
        match self.kind {
            WorkloadKind::Pod => json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
                "spec": {
                    "containers": containers, "dnsPolicy": "ClusterFirst",
                    "restartPolicy": self.restart_policy,
                },
                "status": {},
            }),
            WorkloadKind::Deployment => json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
                "spec": {
                    "replicas": self.replicas, "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
                },
            }),
            WorkloadKind::Job => json!({
                "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata,
                "spec": {"template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": containers, "restartPolicy": self.restart_policy},
                }},
            }),
        }
    }

    /// The Service of `--expose`.
    pub fn service(&self) -> Value {
        let mut metadata = json!({"name": self.name});
        if !self.labels.is_empty() {
            metadata["labels"] = self.labels.clone().into();
        }
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {
                "ports": [{"port": self.port, "protocol": "TCP", "targetPort": self.port}],
                "selector": self.labels_or_name(),
            },
            "status": {"loadBalancer": {}},
        })
    }
}

fn restart_policy(parsed: &Parsed, stdin: bool) -> Result<String, VerbError> {
    let restart = parsed.value("restart").unwrap_or("Always");
    match restart {
        "" if stdin => Ok("OnFailure".into()),
        "" => Ok("Always".into()),
        "Always" | "OnFailure" | "Never" => Ok(restart.into()),
        other => Err(local(format!(
            "invalid restart policy: {other}, valid values are: Always, OnFailure, Never"
        ))),
    }
}

/// Up to 1.17 the restart policy, or `--generator`, says what is made.
fn kind(
    parsed: &Parsed,
    kubectl: KubectlVersion,
    restart_policy: &str,
) -> Result<WorkloadKind, VerbError> {
    let generator = parsed.value("generator").unwrap_or_default();
    if !kubectl.run_makes_workloads() {
        let unknown = ["generator", "replicas"];
        if let Some(flag) = unknown.into_iter().find(|flag| parsed.was_given(flag)) {
            let error = crate::cli::flags::FlagError::UnknownLong(flag.to_owned());
            return Err(error.into());
        }
        return Ok(WorkloadKind::Pod);
    }
    match generator.split('/').next().unwrap_or_default() {
        "" => Ok(match restart_policy {
            "Never" => WorkloadKind::Pod,
            "OnFailure" => WorkloadKind::Job,
            _ => WorkloadKind::Deployment,
        }),
        "run-pod" => Ok(WorkloadKind::Pod),
        "deployment" => Ok(WorkloadKind::Deployment),
        "job" => Ok(WorkloadKind::Job),
        _ => Err(local(format!("generator \"{generator}\" not found"))),
    }
}

/// `a=b,c=d`.
fn labels(text: &str) -> Result<Map<String, Value>, VerbError> {
    let mut labels = Map::new();
    for term in text.split(',').filter(|_| !text.is_empty()) {
        match term.split('=').collect::<Vec<_>>()[..] {
            ["", _] => return Err(local("unexpected empty label key")),
            [key, value] => _ = labels.insert(key.to_owned(), value.into()),
            _ => return Err(local(format!("unexpected label spec: {term}"))),
        }
    }
    Ok(labels)
}

fn annotations(parsed: &Parsed) -> Result<Map<String, Value>, VerbError> {
    let pair = |text: &str| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.into())),
        _ => Err(local(format!("invalid annotations format: {text}"))),
    };
    parsed.each("annotations").map(pair).collect()
}

/// `NAME=VALUE`, as the shell's variables are called.
fn environment(parsed: &Parsed) -> Result<Vec<Value>, VerbError> {
    let variable = |text: &str| {
        let invalid = || local(format!("invalid env: {text}"));
        let (name, value) = text.split_once('=').ok_or_else(invalid)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if name.is_empty()
            || !name.chars().all(plain)
            || name.starts_with(|c: char| c.is_ascii_digit())
        {
            return Err(invalid());
        }
        Ok(json!({"name": name, "value": value}))
    };
    parsed.each("env").map(variable).collect()
}

/// Whether a text can be an image's reference; its parts are the registry's business.
fn is_image(text: &str) -> bool {
    let (path, digest) = text
        .split_once('@')
        .map_or((text, None), |(path, digest)| (path, Some(digest)));
    let last = path.rsplit('/').next().unwrap_or_default();
    let tag = last.split_once(':').map(|(_, tag)| tag);
    let name = match tag {
        Some(tag) => &path[..path.len() - tag.len() - 1],
        None => path,
    };
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/:".contains(c);
    let ends = |text: &str| {
        let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        end(text.chars().next()) && end(text.chars().next_back())
    };
    // A registry may be written in capitals.
    let (host, rest) = name.split_once('/').unwrap_or(("", name));
    let host_is_name = !host.contains(['.', ':']) && host.chars().any(|c| c.is_ascii_uppercase());
    !rest.is_empty()
        && !name.starts_with('/')
        && rest.chars().all(lower)
        && !rest.contains(':')
        && rest.split('/').all(ends)
        && !host_is_name
        && tag.is_none_or(|tag| {
            !tag.is_empty()
                && tag
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
        })
        && digest.is_none_or(|digest| digest.contains(':'))
}

/// Applies `--overrides`, by `--override-type`.
pub fn override_with(parsed: &Parsed, object: &mut Value) -> Result<(), VerbError> {
    let Some(text) = parsed.value("overrides").filter(|text| !text.is_empty()) else {
        return Ok(());
    };
    let change: Value = serde_json::from_str(text)
        .or_else(|_| serde_yaml_ng::from_str(text))
        .map_err(|error| local(format!("Invalid JSON/YAML in --overrides: {error}")))?;
    match parsed.value("override-type").unwrap_or("merge") {
        "merge" => {
            patch::merge(object, &change);
            Ok(())
        }
        "strategic" => patch::strategic(object, &change).map_err(local),
        "json" => patch::json(object, &change).map_err(local),
        other => Err(local(format!(
            "invalid override type: {other}, valid values are: merge, strategic, json"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags::parse;

    fn read(text: &str, version: &str) -> Result<Options, String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let parsed = parse(super::super::run::FLAGS, &words).map_err(|e| e.to_string())?;
        let kubectl = KubectlVersion::parse(version).unwrap();
        Options::read(&parsed, kubectl).map_err(|error| error.to_string())
    }

    #[test]
    fn a_pod_is_labelled_by_its_name_and_has_what_was_asked_for() {
        let text =
            "-it --rm --image=busybox --restart=Never bb --env=A=1,2 --port=80 -- wget -qO- x";
        let made = read(text, "1.34").unwrap().workload();
        assert_eq!(made["kind"], "Pod");
        assert_eq!(made["metadata"]["labels"], json!({"run": "bb"}));
        let container = &made["spec"]["containers"][0];
        assert_eq!(container["args"], json!(["wget", "-qO-", "x"]));
        assert_eq!(container["env"], json!([{"name": "A", "value": "1,2"}]));
        assert_eq!(container["ports"], json!([{"containerPort": 80}]));
        assert_eq!(
            (&container["stdinOnce"], &container["tty"]),
            (&true.into(), &true.into())
        );
    }

    #[test]
    fn older_kubectls_make_what_the_restart_policy_says() {
        let kind = |text: &str| read(text, "1.8").unwrap().workload()["kind"].clone();
        assert_eq!(kind("web --image=nginx"), "Deployment");
        assert_eq!(kind("web --image=nginx --restart=OnFailure"), "Job");
        assert_eq!(kind("web --image=nginx --restart=Never"), "Pod");
        assert_eq!(kind("web --image=nginx --generator=run-pod/v1"), "Pod");
        let error = read("web --image=nginx --generator=run-pod/v1", "1.34").unwrap_err();
        assert_eq!(error, "unknown flag: --generator");
        let labels = read("web --image=nginx", "1.8").unwrap().workload();
        let selected = labels.pointer("/spec/selector/matchLabels/run");
        assert_eq!(selected, Some(&"web".into()));
    }

    #[test]
    fn what_cannot_be_run_is_refused_in_kubectls_words() {
        let cases = [
            ("--image=nginx", "NAME is required for run"),
            ("web", "required flag(s) \"image\" not set"),
            (
                "web --image=NGINX",
                "invalid image name \"NGINX\": invalid reference format",
            ),
            (
                "web --image=x -t",
                "-i/--stdin is required for containers with -t/--tty=true",
            ),
            (
                "web --image=x --rm",
                "--rm should only be used for attached containers",
            ),
            (
                "web --image=x --expose",
                "--port must be set when exposing a service",
            ),
            ("web --image=x --port=http", "--port must be a number"),
            ("web --image=x --env=1A=2", "invalid env: 1A=2"),
            ("web --image=x --labels=a", "unexpected label spec: a"),
            (
                "web --image=x --restart=Often",
                "invalid restart policy: Often, valid values are: Always, OnFailure, Never",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text, "1.34").unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn images_are_names_with_a_registry_a_tag_and_a_digest() {
        for good in [
            "busybox",
            "solsson/http-echo",
            "localhost:5000/a/b:v1.2",
            "a@sha256:0123",
        ] {
            assert!(is_image(good), "{good}");
        }
        for wrong in ["", "Busy", "a b", "a/", "a:", "/a", "a:b:c"] {
            assert!(!is_image(wrong), "{wrong}");
        }
    }
}
