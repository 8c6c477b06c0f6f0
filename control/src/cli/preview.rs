//! What `--dry-run=server` says on stderr: what a change would open, close and cut.

use std::fmt::Write as _;

use crate::protocol::{AuditPreview, Preview, PreviewGroup};

/// Lines of what opens, of what closes and of what is cut, each.
const LINES: usize = 20;
/// Names on one side of a line.
const NAMES: usize = 4;

/// The preview for a person.
pub fn text(preview: &Preview) -> String {
    let mut text = String::new();
    side(&mut text, "opens", &preview.opens, preview.opened_pairs);
    side(&mut text, "closes", &preview.closes, preview.closed_pairs);
    if preview.opened_pairs + preview.closed_pairs == 0 && preview.pairs_left_out == 0 {
        text.push_str("opens and closes nothing between the present pods\n");
    }
    // Writing into a String cannot fail.
    if preview.pairs_left_out > 0 {
        let _ = writeln!(
            text,
            "{} pairs of pods were not compared: too many",
            preview.pairs_left_out
        );
    }
    if preview.cut_connections > 0 {
        let _ = writeln!(text, "cuts {} live connections:", preview.cut_connections);
    }
    for cut in preview.cuts.iter().take(LINES) {
        let _ = writeln!(
            text,
            "  {}:{} -> {}:{} {} ({})",
            cut.from, cut.source_port, cut.to, cut.destination_port, cut.protocol, cut.reason
        );
    }
    let told = preview.cuts.len().min(LINES) as u64;
    more(&mut text, preview.cut_connections - told);
    if preview.connections_left_out > 0 {
        let _ = writeln!(
            text,
            "{} connections were not looked at: too many",
            preview.connections_left_out
        );
    }
    if let Some(audited) = &preview.audited {
        audit(&mut text, audited);
    }
    text
}

/// What is only audited.
fn audit(text: &mut String, audited: &AuditPreview) {
    let _ = writeln!(
        text,
        "in audit mode, which changes nothing: {}",
        names(&audited.policies, 0)
    );
    let (opened, closed) = (audited.opened_pairs, audited.closed_pairs);
    side(text, "enforced, it would open", &audited.opens, opened);
    side(text, "enforced, it would close", &audited.closes, closed);
    if opened + closed + audited.pairs_left_out == 0 {
        text.push_str("enforced, it would open and close nothing between the present pods\n");
    }
    if audited.pairs_left_out > 0 {
        let _ = writeln!(
            text,
            "{} pairs of pods were not compared for that: too many",
            audited.pairs_left_out
        );
    }
}

fn side(text: &mut String, verb: &str, groups: &[PreviewGroup], pairs: u64) {
    if pairs == 0 {
        return;
    }
    let _ = writeln!(text, "{verb}:");
    let mut told = 0;
    for group in groups.iter().take(LINES) {
        told += group.pairs;
        let _ = writeln!(
            text,
            "  {} -> {}: {}",
            names(&group.from, group.more_from),
            names(&group.to, group.more_to),
            group.ports
        );
    }
    more(text, pairs - told.min(pairs));
}

fn more(text: &mut String, count: u64) {
    if count > 0 {
        let _ = writeln!(text, "  and {count} more");
    }
}

fn names(names: &[String], more: u64) -> String {
    let shown = &names[..names.len().min(NAMES)];
    let more = more + (names.len() - shown.len()) as u64;
    let shown = shown.join(", ");
    match more {
        0 => shown,
        _ => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::PreviewCut;

    #[test]
    fn what_does_not_fit_is_counted() {
        let group = |from: usize, ports: &str| PreviewGroup {
            from: (0..from).map(|pod| format!("a/{pod}")).collect(),
            to: vec!["b/x".into()],
            ports: ports.into(),
            pairs: from as u64,
            ..PreviewGroup::default()
        };
        let cut = PreviewCut {
            from: "a/0".into(),
            to: "b/x".into(),
            protocol: "TCP".into(),
            source_port: 40000,
            destination_port: 80,
            reason: "ingress: isolated by b/p, no rule allows it".into(),
        };
        let mut closes = vec![group(6, "TCP 80")];
        closes.extend((0..30).map(|_| group(1, "everything")));
        let preview = Preview {
            closes,
            closed_pairs: 50,
            cuts: vec![cut; 25],
            cut_connections: 100,
            pairs_left_out: 7,
            ..Preview::default()
        };
        let text = text(&preview);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "closes:");
        assert_eq!(lines[1], "  a/0, a/1, a/2, a/3 and 2 more -> b/x: TCP 80");
        assert_eq!(lines[21], "  and 25 more");
        assert_eq!(lines[22], "7 pairs of pods were not compared: too many");
        assert_eq!(lines[23], "cuts 100 live connections:");
        assert_eq!(
            lines[24],
            "  a/0:40000 -> b/x:80 TCP (ingress: isolated by b/p, no rule allows it)"
        );
        assert_eq!(lines[44], "  and 80 more");
        assert_eq!(lines.len(), 45);
    }

    #[test]
    fn what_is_audited_is_told_apart_and_said_to_change_nothing() {
        let group = PreviewGroup {
            from: vec!["a/x".into()],
            to: vec!["a/y".into()],
            ports: "TCP 80".into(),
            pairs: 1,
            ..PreviewGroup::default()
        };
        let audited = AuditPreview {
            policies: vec!["networkpolicy.networking.k8s.io/d".into()],
            closes: vec![group],
            closed_pairs: 1,
            ..AuditPreview::default()
        };
        let mut preview = Preview {
            audited: Some(audited),
            ..Preview::default()
        };
        let head = "opens and closes nothing between the present pods\n\
                    in audit mode, which changes nothing: networkpolicy.networking.k8s.io/d\n";
        assert_eq!(
            text(&preview),
            format!("{head}enforced, it would close:\n  a/x -> a/y: TCP 80\n")
        );
        let policies = vec!["networkpolicy.networking.k8s.io/d".into()];
        preview.audited = Some(AuditPreview {
            policies,
            ..AuditPreview::default()
        });
        assert_eq!(
            text(&preview),
            format!("{head}enforced, it would open and close nothing between the present pods\n")
        );
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        assert_eq!(
            text(&Preview::default()),
            "opens and closes nothing between the present pods\n"
        );
    }
}
