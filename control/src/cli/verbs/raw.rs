//! `get --raw`: what an API server would answer at a path, as far as a daemon knows it.

use serde_json::{Value, json};

use crate::cli::session::{Session, VerbError};
use crate::objects::Kind;
use crate::objects::kinds::KINDS;
use crate::protocol::{GetParams, GetReply, MetricsReply};

/// Prints the answer.
pub fn get(session: &mut Session, path: &str) -> Result<(), VerbError> {
    if !session.parsed.arguments.is_empty() {
        return Err(VerbError::Usage(
            "arguments may not be passed when --raw is specified".into(),
        ));
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let mut client = session.connect()?;
    match parts[..] {
        ["healthz" | "readyz" | "livez"] => {
            let _: Value = client.call("status", json!({}))?;
            print!("ok");
            Ok(())
        }
        ["metrics"] => {
            let reply: MetricsReply = client.call("metrics", json!({}))?;
            print!("{}", reply.text);
            Ok(())
        }
        ["api", version, ref rest @ ..] => answer(session, &mut client, version, rest, query),
        ["apis", group, version, ref rest @ ..] => answer(
            session,
            &mut client,
            &format!("{group}/{version}"),
            rest,
            query,
        ),
        _ => Err(not_found()),
    }
}

fn not_found() -> VerbError {
    eprintln!("Error from server (NotFound): the server could not find the requested resource");
    VerbError::Status(1)
}

fn answer(
    session: &Session,
    client: &mut crate::client::Client,
    api_version: &str,
    rest: &[&str],
    query: &str,
) -> Result<(), VerbError> {
    let (namespace, rest) = match *rest {
        ["namespaces", namespace, ref below @ ..] if !below.is_empty() => (Some(namespace), below),
        _ => (None, rest),
    };
    let (plural, name) = match *rest {
        [plural] => (plural, None),
        [plural, name] => (plural, Some(name)),
        _ => return Err(not_found()),
    };
    let known = |kind: &&'static Kind| kind.api_version == api_version && kind.plural == plural;
    let defined = || {
        let definitions = session.definitions();
        definitions
            .iter()
            .map(|definition| definition.kind)
            .find(known)
    };
    let Some(kind) = KINDS.iter().find(known).or_else(defined) else {
        return Err(not_found());
    };
    let parameter = |key: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(own, _)| *own == key)
            .map(|(_, value)| decoded(value))
    };
    let params = GetParams {
        resource: kind.qualified_plural(),
        namespace: namespace.map(str::to_owned),
        all_namespaces: namespace.is_none(),
        name: name.map(str::to_owned),
        label_selector: parameter("labelSelector"),
        field_selector: parameter("fieldSelector"),
    };
    let reply: GetReply = client.call("get", &params)?;
    let value = match name {
        Some(_) => reply.items.into_iter().next().unwrap_or_default(),
        None => json!({
            "kind": format!("{}List", reply.kind), "apiVersion": reply.api_version,
            "metadata": {"resourceVersion": reply.resource_version}, "items": reply.items,
        }),
    };
    println!("{value}");
    Ok(())
}

/// A parameter without its percent signs.
fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let code = (*first == b'%').then(|| behind.get(..2)).flatten();
        let code = code.and_then(|two| std::str::from_utf8(two).ok());
        match code.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &behind[2..];
            }
            None => {
                out.push(if *first == b'+' { b' ' } else { *first });
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::decoded;

    #[test]
    fn parameters_are_decoded() {
        assert_eq!(decoded("app%3Dweb%2Ctier"), "app=web,tier");
        assert_eq!(decoded("a%zz%4"), "a%zz%4");
    }
}
