//! The cells of events.

use serde_json::Value;

use super::{or, seconds_since_1970, text};
use crate::cli::table::human_duration;

/// An Event's columns with `-o wide`, which puts some in between.
pub const WIDE: &[&str] = &[
    "LAST SEEN",
    "TYPE",
    "REASON",
    "OBJECT",
    "SUBOBJECT",
    "SOURCE",
    "MESSAGE",
    "FIRST SEEN",
    "COUNT",
    "NAME",
];

fn ago(stamp: &str, now: i64) -> String {
    match seconds_since_1970(stamp) {
        Some(then) => human_duration(now - then),
        None => "<unknown>".to_owned(),
    }
}

/// When an event was first and last seen, and how often; none stands for once.
fn seen(event: &Value, now: i64) -> (String, String, Option<i64>) {
    let first = or(text(event, "/firstTimestamp"), &text(event, "/eventTime"));
    let (last, count) = match event["series"]["count"].as_i64() {
        Some(count) => (text(event, "/series/lastObservedTime"), Some(count)),
        None => {
            let repeated = event["count"].as_i64().filter(|count| *count > 1);
            (or(text(event, "/lastTimestamp"), &first), repeated)
        }
    };
    (ago(&first, now), ago(&last, now), count)
}

/// `5s (x3 over 100s)`, as `kubectl events` has it where `kubectl get events` says when only.
pub fn seen_interval(event: &Value, now: i64) -> String {
    match seen(event, now) {
        (first, last, Some(count)) => format!("{last} (x{count} over {first})"),
        (_, last, None) => last,
    }
}

/// The cells of an event.
pub fn event(object: &Value, name: String, now: i64, wide: bool) -> Vec<String> {
    let (first, last, count) = seen(object, now);
    let object_of = object.get("involvedObject").unwrap_or(&Value::Null);
    let kind_of = text(object_of, "/kind").to_lowercase();
    let target = match text(object_of, "/name").as_str() {
        "" => kind_of,
        name => format!("{kind_of}/{name}"),
    };
    let (kind, reason) = (text(object, "/type"), text(object, "/reason"));
    let message = text(object, "/message").trim().to_owned();
    if !wide {
        return vec![last, kind, reason, target, message];
    }
    let source: Vec<String> = [
        ("/source/component", "/reportingComponent"),
        ("/source/host", "/reportingInstance"),
    ]
    .map(|(path, other)| or(text(object, path), &text(object, other)))
    .into_iter()
    .filter(|part| !part.is_empty())
    .collect();
    vec![
        last,
        kind,
        reason,
        target,
        text(object_of, "/fieldPath"),
        source.join(", "),
        message,
        first,
        count.unwrap_or(1).to_string(),
        name,
    ]
}

/// When an event was last seen, for sorting.
pub fn last_seen(event: &Value) -> String {
    let paths = [
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/eventTime",
        "/firstTimestamp",
        "/metadata/creationTimestamp",
    ];
    let stamps = paths.map(|path| text(event, path));
    stamps
        .into_iter()
        .find(|stamp| !stamp.is_empty())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::{Layout, table};
    use super::*;
    use serde_json::json;

    fn shown(event: &Value, wide: bool) -> Vec<String> {
        let layout = Layout {
            wide,
            ..Layout::default()
        };
        let events = std::slice::from_ref(event);
        let text = table("Event", "event", events, layout, 100).render(true);
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn events_say_when_and_how_often() {
        let event = json!({"metadata": {"name": "web.1"}, "type": "Warning", "reason": "Unhealthy",
            "message": "probe failed\n", "count": 3, "firstTimestamp": "1970-01-01T00:00:00Z",
            "lastTimestamp": "1970-01-01T00:01:35Z", "source": {"component": "kubelet", "host": "n1"},
            "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{c}"}});
        assert_eq!(
            shown(&event, false),
            [
                "LAST SEEN   TYPE      REASON      OBJECT    MESSAGE",
                "5s          Warning   Unhealthy   pod/web   probe failed"
            ]
        );
        assert_eq!(seen_interval(&event, 100), "5s (x3 over 100s)");
        let wide = shown(&event, true);
        assert!(
            wide[0].contains("SUBOBJECT") && wide[1].contains("kubelet, n1"),
            "{wide:?}"
        );
    }
}
