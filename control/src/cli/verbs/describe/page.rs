//! The page that `describe` prints: lines, and fields whose values stand below one another.

use serde_json::Value;

use crate::cli::columns::seconds_since_1970;

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

    /// Text as it is: tabs in it end no cell.
    pub fn verbatim(&mut self, text: impl AsRef<str>) {
        self.lines.push(text.as_ref().replace('\t', "        "));
    }

    /// `Labels:` of an object, sorted by key.
    pub fn labels(&mut self, object: &Value) {
        self.pairs(0, "Labels", object.pointer("/metadata/labels"));
    }

    /// A map, a line for each pair.
    pub fn pairs(&mut self, level: usize, label: &str, map: Option<&Value>) {
        let texts: Vec<String> = pairs(map).iter().map(|(k, v)| format!("{k}={v}")).collect();
        self.list(level, label, &texts);
    }

    /// `Annotations:` of an object, sorted by key.
    pub fn annotations(&mut self, object: &Value) {
        self.annotations_of(0, "Annotations", object);
    }

    /// The annotations of an object or a template.
    pub fn annotations_of(&mut self, level: usize, label: &str, object: &Value) {
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
        self.list(level, label, &texts);
    }

    /// The text.
    pub fn render(&self) -> String {
        let whole = self.lines.join("\n");
        let lines: Vec<Vec<&str>> = whole
            .split('\n')
            .map(|line| line.split('\t').collect())
            .collect();
        let mut text = String::new();
        if !self.lines.is_empty() {
            columns(&lines, &mut Vec::new(), &mut text);
        }
        text
    }
}

/// Blanks behind the widest cell of a column.
const PADDING: usize = 2;

/// Writes lines of cells as Go's tabwriter does: a column is as wide as its widest cell as far as lines
/// follow one another that have it; a line's last cell is in no column.
fn columns(lines: &[Vec<&str>], widths: &mut Vec<usize>, out: &mut String) {
    let column = widths.len();
    let has = |line: &Vec<&str>| column + 1 < line.len();
    let mut written = 0;
    while written < lines.len() {
        let rest = &lines[written..];
        let plain = rest.iter().take_while(|line| !has(line)).count();
        write_lines(&rest[..plain], widths, out);
        let block = rest[plain..].iter().take_while(|line| has(line)).count();
        if block > 0 {
            let cells = rest[plain..plain + block]
                .iter()
                .map(|line| line[column].chars().count());
            widths.push(cells.max().unwrap_or(0) + PADDING);
            columns(&rest[plain..plain + block], widths, out);
            widths.pop();
        }
        written += plain + block;
    }
}

fn write_lines(lines: &[Vec<&str>], widths: &[usize], out: &mut String) {
    for line in lines {
        let Some((last, cells)) = line.split_last() else {
            continue;
        };
        for (cell, width) in cells.iter().zip(widths) {
            out.push_str(cell);
            out.extend(std::iter::repeat_n(
                ' ',
                width.saturating_sub(cell.chars().count()),
            ));
        }
        out.push_str(last);
        out.push('\n');
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

/// `a=b,c=d`, sorted by key.
pub fn joined(map: Option<&Value>) -> String {
    let texts: Vec<String> = pairs(map).iter().map(|(k, v)| format!("{k}={v}")).collect();
    match texts.is_empty() {
        true => "<none>".to_owned(),
        false => texts.join(","),
    }
}

/// `Sat, 21 Nov 2026 02:00:00 +0000`.
pub fn rfc1123(stamp: &str) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let Some(seconds) = seconds_since_1970(stamp) else {
        return "Mon, 01 Jan 0001 00:00:00 +0000".to_owned();
    };
    // The first of January 1970 was a Thursday.
    let day = DAYS[seconds.div_euclid(86_400).rem_euclid(7) as usize];
    let month: usize = stamp[5..7].parse().unwrap_or(1);
    let month = MONTHS[month.clamp(1, 12) - 1];
    let (year, date, clock) = (&stamp[..4], &stamp[8..10], &stamp[11..19]);
    format!("{day}, {date} {month} {year} {clock} +0000")
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
    fn columns_end_where_lines_lack_them() {
        let mut page = Page::default();
        page.line(0, "Type\tReason\tMessage");
        page.line(0, "Warning\tX\tone");
        page.line(0, "N\tlast");
        page.line(0, "end");
        assert_eq!(
            page.render(),
            "Type     Reason  Message\nWarning  X       one\nN        last\nend\n"
        );
        assert_eq!(
            rfc1123("2026-11-21T02:00:00Z"),
            "Sat, 21 Nov 2026 02:00:00 +0000"
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
