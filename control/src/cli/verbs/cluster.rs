//! What is asked of a cluster as such: `cluster-info`, `api-versions`, `auth can-i`.

use std::collections::BTreeSet;

use crate::cli::flags::{Flag, switch};
use crate::cli::session::{Session, VerbError};
use crate::objects::kinds::{KINDS, find_resource};
use crate::protocol::{GetParams, GetReply, Status};

/// Flags of `auth`.
pub const AUTH_FLAGS: &[Flag] = &[
    super::ALL_NAMESPACES,
    switch("quiet", Some('q'), "Print nothing: the exit status tells"),
];

/// `api-versions`.
pub fn api_versions(session: &mut Session) -> Result<(), VerbError> {
    refuse_arguments(session)?;
    let definitions = session.definitions();
    let defined = definitions.iter().flat_map(|definition| {
        let (group, versions) = (definition.kind.group(), definition.versions().iter());
        versions.map(move |version| format!("{group}/{}", version.name))
    });
    let known = KINDS.iter().map(|kind| kind.api_version.to_owned());
    let versions: BTreeSet<String> = known.chain(defined).collect();
    versions.iter().for_each(|version| println!("{version}"));
    Ok(())
}

fn refuse_arguments(session: &Session) -> Result<(), VerbError> {
    let arguments = &session.parsed.arguments;
    if arguments.is_empty() {
        return Ok(());
    }
    let text = format!("unexpected arguments: [{}]", arguments.join(" "));
    Err(VerbError::Usage(text))
}

/// `cluster-info`.
pub fn info(session: &mut Session) -> Result<(), VerbError> {
    if session.parsed.arguments.first().map(String::as_str) == Some("dump") {
        return Err(VerbError::Local(
            "cluster-info dump is not supported; `weir status -o json` and `weir get all -A -o \
             yaml` tell what there is"
                .into(),
        ));
    }
    refuse_arguments(session)?;
    let mut client = session.connect()?;
    let _: Status = client.call("status", serde_json::json!({}))?;
    println!(
        "Kubernetes control plane is running at unix://{}",
        session.socket()?.display()
    );
    let params = GetParams {
        resource: "services".into(),
        namespace: Some("kube-system".into()),
        ..GetParams::default()
    };
    let reply: GetReply = client.call("get", params)?;
    for service in &reply.items {
        let text = |pointer: &str| {
            let found = service.pointer(pointer);
            found.and_then(|value| value.as_str()).unwrap_or_default()
        };
        let port = &service["spec"]["ports"][0];
        let protocol = port["protocol"].as_str().unwrap_or("TCP").to_lowercase();
        println!(
            "{} is running at {protocol}://{}:{}",
            text("/metadata/name"),
            text("/spec/clusterIP"),
            port["port"]
        );
    }
    println!("\nTo further debug and diagnose cluster problems, use 'weir status'.");
    Ok(())
}

/// `auth can-i`: whoever may speak to the daemon may do everything.
pub fn auth(session: &mut Session) -> Result<(), VerbError> {
    let words: Vec<&str> = { session.parsed.arguments.iter() }
        .map(String::as_str)
        .collect();
    let resource = match words[..] {
        ["can-i", _, resource] | ["can-i", _, resource, _] => resource.to_owned(),
        ["can-i", ..] => {
            return Err(VerbError::Usage(
                "you must specify two arguments: verb resource or verb resource/resourceName"
                    .into(),
            ));
        }
        _ => {
            return Err(VerbError::Usage(
                "auth takes can-i: whoever may open the daemon's socket may do everything".into(),
            ));
        }
    };
    let plain = resource.split('/').next().unwrap_or_default();
    let is_named = plain != "*" && !resource.starts_with('/');
    let is_known = || {
        find_resource(plain)
            .or_else(|| session.definitions().find_resource(plain))
            .is_some()
    };
    if is_named && !is_known() {
        eprintln!("Warning: the server doesn't have a resource type '{plain}'\n");
    }
    let mut client = session.connect()?;
    let _: Status = client.call("status", serde_json::json!({}))?;
    if !session.parsed.is_on("quiet") {
        println!("yes");
    }
    Ok(())
}
