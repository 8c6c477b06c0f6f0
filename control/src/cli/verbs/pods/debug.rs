//! `debug`: a container beside a pod's own, a copy of a pod, or a shell on the node (kubectl
//! `pkg/cmd/debug`).

mod profile;

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::flags::{Flag, switch, value};
use crate::cli::session::{Session, VerbError};
use crate::protocol::{ApplyParams, Mutation, PatchParams, PatchType};

use profile::Profile;

use super::attach::{Streams, attach};
use super::choose;
use super::run::{print_log, wait_for};
use super::{QUIET, STDIN, TTY, random_suffix};
use crate::cli::verbs::target;

/// Flags of `debug`.
pub const FLAGS: &[Flag] = &[
    value("image", None, "The image of the debugging container"),
    value(
        "container",
        Some('c'),
        "Its name; with --copy-to perhaps that of one that the pod has",
    ),
    value(
        "target",
        None,
        "The container whose processes are to be seen: in a lab all of the pod's are",
    ),
    value("copy-to", None, "Make a copy of the pod, of this name"),
    value(
        "set-image",
        None,
        "With --copy-to: images of the copy's containers, as web=nginx or *=busybox",
    ),
    switch("replace", None, "With --copy-to: delete the original"),
    switch("same-node", None, "With --copy-to: on the same node"),
    switch("keep-labels", None, "With --copy-to: keep the pod's labels"),
    value("env", None, "NAME=VALUE for the container; may be repeated"),
    switch(
        "arguments-only",
        None,
        "What follows -- is arguments of the image's command, not a command",
    ),
    switch("attach", None, "Attach; default with -i"),
    STDIN,
    TTY,
    QUIET,
    value(
        "profile",
        None,
        "general (default): as a lab's containers are; baseline: on a node, nothing of the node's; \
         restricted: not root, no capabilities; netadmin: NET_ADMIN and NET_RAW; legacy: general's \
         old name; sysadmin is refused",
    ),
    value("image-pull-policy", None, ""),
];

/// How long the container may take to run.
const CONTAINER_TIMEOUT: Duration = Duration::from_secs(60);
fn local(text: impl Into<String>) -> VerbError {
    VerbError::Local(text.into())
}

/// Runs `debug`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let parsed = &session.parsed;
    let at = parsed.before_dashes.unwrap_or(parsed.arguments.len());
    let (words, command) = parsed.arguments.split_at(at);
    let (words, command) = (words.to_vec(), command.to_vec());
    check(session, &words, &command)?;
    if Profile::of(session)? == Profile::Legacy {
        eprintln!(
            "--profile=legacy is deprecated and will be removed in the future. It is recommended to \
             explicitly specify a profile, for example \"--profile=general\"."
        );
    }
    if let Some(name) = parsed.value("target")
        && !parsed.is_on("quiet")
    {
        println!(
            "Targeting container \"{name}\". If you don't see processes from this container it may \
             be because the container runtime doesn't support this feature."
        );
    }
    let namespace = super::namespace(session);
    let mut client = session.connect()?;
    for word in words {
        let named = choose::object(&mut client, &namespace, &[word])?;
        let (pod, container) = match named["kind"].as_str() {
            Some("Node") => on_node(session, &named, &command)?,
            Some("Pod") if parsed_value(session, "copy-to").is_some() => {
                copy(session, &named, &command)?
            }
            Some("Pod") => beside(session, &named, &command)?,
            kind => {
                let version = named["apiVersion"].as_str().unwrap_or_default();
                let kind = kind.unwrap_or_default();
                return Err(local(format!(
                    "\"{version}, Kind={kind}\" not supported by debug"
                )));
            }
        };
        let parsed = &session.parsed;
        let attaches = match parsed.was_given("attach") {
            true => parsed.is_on("attach"),
            false => parsed.is_on("stdin"),
        };
        if attaches && let Some(container) = container {
            converse(session, &pod, &container)?;
        }
    }
    Ok(())
}

fn parsed_value(session: &Session, flag: &str) -> Option<String> {
    let given = session.parsed.value(flag).filter(|text| !text.is_empty());
    given.map(str::to_owned)
}

fn check(session: &Session, words: &[String], command: &[String]) -> Result<(), VerbError> {
    let parsed = &session.parsed;
    let given = |flag: &str| parsed.value(flag).is_some_and(|text| !text.is_empty());
    let (image, copied) = (given("image"), given("copy-to"));
    if parsed.is_on("attach") && !image && !given("container") {
        return Err(local(
            "you must specify --container or create a new container using --image in order to \
             attach.",
        ));
    }
    if copied {
        if !image && !given("set-image") && command.is_empty() {
            return Err(local(
                "you must specify --image, --set-image or command arguments.",
            ));
        }
        if !command.is_empty() && !given("container") && !image {
            return Err(local(
                "you must specify an existing container or a new image when specifying args.",
            ));
        }
        if given("target") {
            return Err(local(
                "--target is incompatible with --copy-to. Use --share-processes instead.",
            ));
        }
    } else {
        let only = ["replace", "same-node", "set-image", "keep-labels"];
        let mut only = only.into_iter().filter(|flag| parsed.was_given(flag));
        if let Some(flag) = only.next() {
            return Err(local(format!("--{flag} may only be used with --copy-to.")));
        }
        if !image {
            return Err(local("you must specify --image when not using --copy-to."));
        }
    }
    if words.is_empty() {
        return Err(local("NAME or filename is required for debug"));
    }
    if parsed.is_on("tty") && !parsed.is_on("stdin") {
        return Err(local(
            "-i/--stdin is required for containers with -t/--tty=true",
        ));
    }
    Profile::of(session).map(|_| ())
}

/// The debugging container as it is asked for.
fn container(session: &Session, name: &str, command: &[String]) -> Value {
    let parsed = &session.parsed;
    let mut container = json!({
        "name": name, "image": parsed.value("image"),
        "terminationMessagePolicy": "File",
        "stdin": parsed.is_on("stdin"), "tty": parsed.is_on("tty"),
    });
    set_command(session, &mut container, command);
    // Not kubectl's: what is piped in shall have an end.
    if parsed.is_on("stdin") {
        container["stdinOnce"] = true.into();
    }
    let variables: Vec<Value> = parsed
        .each("env")
        .filter_map(|text| text.split_once('='))
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    if !variables.is_empty() {
        container["env"] = variables.into();
    }
    container
}

fn set_command(session: &Session, container: &mut Value, command: &[String]) {
    if command.is_empty() {
        return;
    }
    if session.parsed.is_on("arguments-only") {
        container["args"] = command.to_vec().into();
    } else {
        container["command"] = command.to_vec().into();
        if let Some(fields) = container.as_object_mut() {
            fields.shift_remove("args");
        }
    }
}

/// A pod in the node's network, with the node's files at `/host`.
fn on_node(
    session: &mut Session,
    node: &Value,
    command: &[String],
) -> Result<(Value, Option<String>), VerbError> {
    let node = node["metadata"]["name"].as_str().unwrap_or_default();
    let container_name = parsed_value(session, "container").unwrap_or_else(|| "debugger".into());
    let name = format!("node-debugger-{node}-{}", random_suffix());
    if !session.parsed.is_on("quiet") {
        println!("Creating debugging pod {name} with container {container_name} on node {node}.");
    }
    let profile = Profile::of(session)?;
    let mut container = container(session, &container_name, command);
    profile.apply(&mut container);
    let mut spec = json!({
        "nodeName": node, "restartPolicy": "Never", "tolerations": [{"operator": "Exists"}],
    });
    if profile.is_on_host() {
        container["volumeMounts"] = json!([{"mountPath": "/host", "name": "host-root"}]);
        spec["volumes"] = json!([{"name": "host-root", "hostPath": {"path": "/"}}]);
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            spec[field] = true.into();
        }
    }
    spec["containers"] = json!([container]);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "spec": spec,
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "kubectl-debug"}},
    });
    Ok((create(session, pod)?, Some(container_name)))
}

fn create(session: &mut Session, pod: Value) -> Result<Value, VerbError> {
    let params = ApplyParams {
        objects: vec![pod],
        namespace: Some(super::namespace(session)),
        ..ApplyParams::default()
    };
    let mutation: Mutation = session.connect()?.call("create", params)?;
    session.report_mutation(&mutation)?;
    let made = mutation.results.into_iter().next();
    Ok(made.map(|result| result.object).unwrap_or_default())
}

/// The name of a new container: the one asked for, or one that the pod does not have.
fn new_name(session: &Session, pod: &Value) -> String {
    if let Some(name) = parsed_value(session, "container") {
        return name;
    }
    let lists = ["containers", "ephemeralContainers", "initContainers"];
    let name = loop {
        let name = format!("debugger-{}", random_suffix());
        let mut all = lists.iter().flat_map(|list| choose::containers(pod, list));
        if all.all(|container| container["name"] != name.as_str()) {
            break name;
        }
    };
    if !session.parsed.is_on("quiet") {
        println!("Defaulting debug container name to {name}.");
    }
    name
}

/// A container added to the pod while it runs: it shares the pod's network and processes.
fn beside(
    session: &mut Session,
    pod: &Value,
    command: &[String],
) -> Result<(Value, Option<String>), VerbError> {
    let name = new_name(session, pod);
    let mut container = container(session, &name, command);
    Profile::of(session)?.apply(&mut container);
    if let Some(target) = parsed_value(session, "target") {
        container["targetContainerName"] = target.into();
    }
    let mut all: Vec<Value> = choose::containers(pod, "ephemeralContainers")
        .cloned()
        .collect();
    all.push(container);
    let params = PatchParams {
        target: target("pods", pod),
        patch_type: PatchType::Merge,
        patch: json!({"spec": {"ephemeralContainers": all}}),
        dry_run: false,
        field_validation: Default::default(),
    };
    let mutation: Mutation = session.connect()?.call("patch", params)?;
    let patched = mutation.results.into_iter().next();
    Ok((
        patched.map(|result| result.object).unwrap_or_default(),
        Some(name),
    ))
}

/// A copy of the pod, with a container added or changed.
fn copy(
    session: &mut Session,
    pod: &Value,
    command: &[String],
) -> Result<(Value, Option<String>), VerbError> {
    let mut copied = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": parsed_value(session, "copy-to")},
        "spec": pod["spec"],
    });
    if session.parsed.is_on("keep-labels") {
        copied["metadata"]["labels"] = pod["metadata"]["labels"].clone();
    }
    if let Some(spec) = copied["spec"].as_object_mut() {
        spec.shift_remove("ephemeralContainers");
        if !session.parsed.is_on("same-node") {
            spec.shift_remove("nodeName");
        }
    }
    for container in copied["spec"]["containers"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        if let Some(fields) = container.as_object_mut() {
            for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
                fields.shift_remove(probe);
            }
        }
        let images = session.parsed.values("set-image");
        let pairs = images.iter().filter_map(|pair| pair.split_once('='));
        let (mut every, mut own) = (None, None);
        for (name, image) in pairs {
            match name {
                "*" => every = Some(image),
                name if container["name"] == name => own = Some(image),
                _ => {}
            }
        }
        if let Some(image) = own.or(every) {
            container["image"] = image.into();
        }
    }
    let profile = Profile::of(session)?;
    let name = change_copy(session, &mut copied, command)?;
    profile.apply_to_copy(&mut copied["spec"]);
    let list = copied["spec"]["containers"].as_array_mut();
    for container in list.into_iter().flatten() {
        if container["name"].as_str() == name.as_deref() {
            profile.apply(container);
        }
    }
    let made = create(session, copied)?;
    if session.parsed.is_on("replace") {
        let params = crate::protocol::DeleteParams {
            targets: vec![target("pods", pod)],
            ignore_not_found: true,
            grace_period: Some(0),
            orphan: false,
            dry_run: false,
        };
        session.connect()?.call::<Mutation>("delete", params)?;
    }
    Ok((made, name))
}

/// Changes the container that is named, or adds one; its name.
fn change_copy(
    session: &Session,
    copied: &mut Value,
    command: &[String],
) -> Result<Option<String>, VerbError> {
    let wanted = parsed_value(session, "container");
    let image = parsed_value(session, "image");
    let list = copied["spec"]["containers"].as_array_mut();
    let mut list = list.into_iter().flatten();
    let existing =
        list.find(|container| wanted.is_some() && container["name"].as_str() == wanted.as_deref());
    if let Some(existing) = existing {
        set_command(session, existing, command);
        if let Some(image) = image {
            existing["image"] = image.into();
        }
        existing["stdin"] = session.parsed.is_on("stdin").into();
        existing["tty"] = session.parsed.is_on("tty").into();
        return Ok(wanted);
    }
    if image.is_none() {
        return match session.parsed.value("set-image") {
            Some(_) => Ok(None),
            None => Err(local("you must specify image when creating new container")),
        };
    }
    let name = new_name(session, copied);
    let added = container(session, &name, command);
    if let Some(list) = copied["spec"]["containers"].as_array_mut() {
        list.push(added);
    }
    Ok(Some(name))
}

/// Waits for the container and attaches to it; prints its log if it has ended.
fn converse(session: &mut Session, pod: &Value, container: &str) -> Result<(), VerbError> {
    let begun = |pod: &Value| {
        let state = state(pod, container);
        state.is_some_and(|state| state["running"].is_object() || state["terminated"].is_object())
    };
    let pod = wait_for(session, pod, CONTAINER_TIMEOUT, begun)?;
    let over = state(&pod, container).is_some_and(|state| state["terminated"].is_object());
    if over {
        return print_log(session, &pod, Some(container));
    }
    attach(session, &pod, Some(container), Streams::of(session))
}

fn state<'a>(pod: &'a Value, container: &str) -> Option<&'a Value> {
    let lists = [
        "containerStatuses",
        "ephemeralContainerStatuses",
        "initContainerStatuses",
    ];
    let all = lists
        .iter()
        .filter_map(|list| pod["status"][list].as_array());
    let mut all = all.flatten();
    let found = all.find(|status| status["name"] == container)?;
    Some(&found["state"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags::parse;

    fn refused(text: &str) -> String {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let session = Session::new(parse(FLAGS, &words).unwrap());
        let at = session
            .parsed
            .before_dashes
            .unwrap_or(session.parsed.arguments.len());
        let (words, command) = session.parsed.arguments.split_at(at);
        let refused = check(&session, words, command);
        refused
            .err()
            .map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn what_does_not_go_together_is_refused_in_kubectls_words() {
        let cases = [
            (
                "node/n -it",
                "you must specify --image when not using --copy-to.",
            ),
            ("--image=x", "NAME or filename is required for debug"),
            (
                "p --image=x -t",
                "-i/--stdin is required for containers with -t/--tty=true",
            ),
            (
                "p --image=x --replace",
                "--replace may only be used with --copy-to.",
            ),
            (
                "p --copy-to=q",
                "you must specify --image, --set-image or command arguments.",
            ),
            ("p --image=x --profile=y", "unknown profile: y"),
            ("p --image=x --profile=restricted", ""),
            ("node/n -it --image=ubuntu", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(refused(text), expected, "{text}");
        }
    }
}
