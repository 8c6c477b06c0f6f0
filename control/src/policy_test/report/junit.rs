//! `weir test -o junit`: JUnit's XML as CI systems read it (the schema of Jenkins' xUnit plugin,
//! <https://github.com/jenkinsci/xunit-plugin/blob/master/src/main/resources/org/jenkinsci/plugins/xunit/types/model/xsd/junit-10.xsd>).
//! One suite a file, one case a test; with `--strict` one case more for every untouched policy.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Entry, Report, headline, trace_lines};
use crate::policy_test::run::Verdict;

/// What a case says beside its name.
enum Body {
    Passed,
    Skipped(String),
    Failure { message: String, text: String },
    Error(String),
}

struct Case {
    name: String,
    file: String,
    line: Option<usize>,
    elapsed: Duration,
    body: Body,
}

impl Report {
    /// For CI systems.
    pub fn junit(&self) -> String {
        let mut suites: Vec<(&str, Vec<Case>)> = Vec::new();
        for entry in &self.entries {
            let cases = suite(&mut suites, &entry.file);
            cases.push(case(entry));
            let untouched = entry.outcome.untouched.iter();
            cases.extend(untouched.map(|policy| {
                let name = format!("{}: {policy} is touched", entry.name);
                untouched_case(&entry.file, name)
            }));
        }
        for (file, policies) in &self.untouched {
            let cases = policies
                .iter()
                .map(|policy| untouched_case(file, format!("{policy} is touched")));
            suite(&mut suites, file).extend(cases);
        }
        let all = suites.iter().flat_map(|(_, cases)| cases);
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        // Writing into a String cannot fail.
        let _ = writeln!(xml, "<testsuites name=\"weir test\"{}>", counts(all));
        for (file, cases) in &suites {
            let name = escape(file);
            let _ = writeln!(xml, "  <testsuite name=\"{name}\"{}>", counts(cases.iter()));
            for case in cases {
                write_case(&mut xml, case);
            }
            xml.push_str("  </testsuite>\n");
        }
        xml.push_str("</testsuites>\n");
        xml
    }
}

fn suite<'a, 'b>(suites: &'b mut Vec<(&'a str, Vec<Case>)>, file: &'a str) -> &'b mut Vec<Case> {
    let at = match suites.iter().position(|(name, _)| *name == file) {
        Some(at) => at,
        None => {
            suites.push((file, Vec::new()));
            suites.len() - 1
        }
    };
    &mut suites[at].1
}

fn case(entry: &Entry) -> Case {
    let mut line = entry.line;
    let body = match &entry.outcome.verdict {
        Verdict::Passed => Body::Passed,
        Verdict::Skipped(reason) => Body::Skipped(reason.clone()),
        Verdict::Broken { line: at, message } => {
            line = at.or(line);
            Body::Error(message.clone())
        }
        Verdict::Failed => {
            let failures = &entry.outcome.failures;
            line = failures.first().and_then(|failure| failure.line).or(line);
            let mut text = String::new();
            for failure in failures {
                let _ = writeln!(text, "{}", headline(failure));
                for line in trace_lines(failure) {
                    let _ = writeln!(text, "  {line}");
                }
            }
            let more = entry.outcome.failed - failures.len();
            if more > 0 {
                let _ = writeln!(text, "and {more} more");
            }
            let first = failures.first().map(headline).unwrap_or_default();
            let message = match entry.outcome.failed {
                1 => first,
                count => format!("{first} (and {} more)", count - 1),
            };
            Body::Failure { message, text }
        }
    };
    Case {
        name: entry.name.clone(),
        file: entry.file.clone(),
        line,
        elapsed: entry.elapsed,
        body,
    }
}

fn untouched_case(file: &str, name: String) -> Case {
    let message = "no expectation touches this policy".to_owned();
    Case {
        name,
        file: file.to_owned(),
        line: None,
        elapsed: Duration::ZERO,
        body: Body::Failure {
            message,
            text: String::new(),
        },
    }
}

fn counts<'a>(cases: impl Iterator<Item = &'a Case>) -> String {
    let (mut tests, mut failures, mut errors, mut skipped) = (0, 0, 0, 0);
    let mut elapsed = Duration::ZERO;
    for case in cases {
        tests += 1;
        elapsed += case.elapsed;
        match case.body {
            Body::Passed => {}
            Body::Skipped(_) => skipped += 1,
            Body::Failure { .. } => failures += 1,
            Body::Error(_) => errors += 1,
        }
    }
    format!(
        " tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" \
         time=\"{:.3}\"",
        elapsed.as_secs_f64()
    )
}

fn write_case(xml: &mut String, case: &Case) {
    let line = case
        .line
        .map_or(String::new(), |line| format!(" line=\"{line}\""));
    let file = escape(&case.file);
    let _ = write!(
        xml,
        "    <testcase classname=\"{file}\" name=\"{}\" file=\"{file}\"{line} time=\"{:.3}\"",
        escape(&case.name),
        case.elapsed.as_secs_f64()
    );
    let _ = match &case.body {
        Body::Passed => writeln!(xml, "/>"),
        Body::Skipped(reason) => {
            writeln!(xml, "><skipped message=\"{}\"/></testcase>", escape(reason))
        }
        Body::Failure { message, text } => writeln!(
            xml,
            "><failure type=\"expectation\" message=\"{}\">{}</failure></testcase>",
            escape(message),
            escape(text)
        ),
        Body::Error(message) => writeln!(
            xml,
            "><error type=\"notRunnable\" message=\"{}\"/></testcase>",
            escape(message)
        ),
    };
}

/// Text as XML 1.0 takes it, in attributes and between tags; characters that XML does not have
/// become U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // In an attribute a bare line break would become a blank.
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push_str("&#9;"),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_does_not_have_is_not_written() {
        assert_eq!(
            escape("a<b> & \"c\"\n\u{1b}[31m\r"),
            "a&lt;b&gt; &amp; &quot;c&quot;&#10;\u{fffd}[31m\u{fffd}"
        );
    }
}
