//! The page that `describe` prints: lines, and fields whose values stand below one another.

use serde_json::Value;

/// Characters of an annotation beyond which its value gets lines of its own, as kubectl's.
const ANNOTATION: usize = 140;
/// What kubectl keeps to itself.
const HIDDEN: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The lines so far. A tab ends a label; labels of lines that follow one another are as wide as
/// the widest and two spaces, as Go's tabwriter has it for kubectl.
#[derive(Debug, Default)]
pub struct Page {
    lines: Vec<String>,
}

impl Page {
    /// A line, `level` steps of two spaces in.
    pub fn line(&mut self, level: usize, text: impl AsRef<str>) {
        let indent = "  ".repeat(level);
        self.lines.push(format!("{indent}{}", text.as_ref()));
    }

    /// `Label:  value`.
    pub fn field(&mut self, level: usize, label: &str, value: impl AsRef<str>) {
        self.line(level, format!("{label}:\t{}", value.as_ref()));
    }

    /// A field of several lines; `<none>` if there are none.
    pub fn list(&mut self, level: usize, label: &str, values: &[String]) {
        let Some((first, rest)) = values.split_first() else {
            return self.field(level, label, "<none>");
        };
        self.field(level, label, first);
        for value in rest {
            self.line(level, format!("\t{value}"));
        }
    }

    /// `Labels:` of an object, sorted by key.
    pub fn labels(&mut self, object: &Value) {
        let labels = pairs(object.pointer("/metadata/labels"));
        let texts: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        self.list(0, "Labels", &texts);
    }

    /// `Annotations:` of an object, sorted by key.
    pub fn annotations(&mut self, object: &Value) {
        let mut texts = Vec::new();
        for (key, value) in pairs(object.pointer("/metadata/annotations")) {
            if key == HIDDEN {
                continue;
            }
            if key.len() + value.len() + 2 <= ANNOTATION && !value.contains('\n') {
                texts.push(format!("{key}: {value}"));
                continue;
            }
            texts.push(format!("{key}:"));
            for line in value.lines() {
                let short: String = line.chars().take(ANNOTATION).collect();
                let dots = if short.len() < line.len() { "..." } else { "" };
                texts.push(format!("  {short}{dots}"));
            }
        }
        self.list(0, "Annotations", &texts);
    }

    /// The text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut at = 0;
        while at < self.lines.len() {
            let tabbed = |line: &&String| line.contains('\t');
            let block = self.lines[at..].iter().take_while(tabbed).count();
            let label = |line: &String| line.split('\t').next().unwrap_or("").chars().count();
            let width = self.lines[at..at + block]
                .iter()
                .map(label)
                .max()
                .unwrap_or(0);
            for line in &self.lines[at..at + block] {
                if let Some((label, value)) = line.split_once('\t') {
                    let padding = width + 2 - label.chars().count();
                    text.push_str(&format!("{label}{}{value}\n", " ".repeat(padding)));
                }
            }
            at += block;
            if let Some(line) = self.lines.get(at) {
                text.push_str(line);
                text.push('\n');
                at += 1;
            }
        }
        text
    }
}

/// A map of texts, sorted by key.
fn pairs(map: Option<&Value>) -> Vec<(&str, &str)> {
    let Some(Value::Object(map)) = map else {
        return Vec::new();
    };
    let mut pairs: Vec<(&str, &str)> = map
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or("")))
        .collect();
    pairs.sort_unstable();
    pairs
}

/// A text of an object; empty if it is not there.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or("")
}

/// A list of an object; empty if it is not there.
pub fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_stand_below_one_another_until_a_line_without_a_label() {
        let mut page = Page::default();
        page.field(0, "A", "1");
        page.field(0, "Longer", "2");
        page.list(0, "B", &["x".into(), "y".into()]);
        page.line(0, "Spec:");
        page.field(1, "C", "3");
        assert_eq!(
            page.render(),
            "A:       1\nLonger:  2\nB:       x\n         y\nSpec:\n  C:  3\n"
        );
    }

    #[test]
    fn long_annotations_get_lines_of_their_own_and_kubectls_is_hidden() {
        let mut page = Page::default();
        page.annotations(&json!({"metadata": {"annotations": {
            HIDDEN: "{}", "b": "short", "a": "x".repeat(200), "c": "1\n2"}}}));
        let text = page.render();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "Annotations:  a:");
        assert!(lines[1].ends_with("x...") && lines[1].len() < 180, "{text}");
        assert_eq!(lines[2].trim(), "b: short");
        assert_eq!(lines.len(), 6, "{text}");
    }
}
