//! Reading a tutorial's text, in Markdown or AsciiDoc.
//!
//! Commands stand in fenced blocks, in AsciiDoc's literal paragraphs (indented ones), in code spans
//! within prose, and sometimes bare in a line of their own. What a block holds besides commands is
//! what they answer. A line is a command if a prompt stands before it or, in a block without
//! prompts, if it begins with a program's name or an assignment.

use super::{Entry, Part, Tutorial};

/// First words of commands.
const PROGRAMS: &[&str] = &[
    "kubectl",
    "cat",
    "curl",
    "export",
    "grep",
    "nc",
    "prepare-environment",
    "wget",
];
/// Prompts of the reader's own shell and of busybox's.
const PROMPTS: &[&str] = &["$ ", "/ # "];
/// Languages of fenced blocks that hold manifests.
const MANIFESTS: &[&str] = &["yaml", "yml", "json"];

/// Extracts what `text` tells its reader to type and shows; `lines` bounds what is read, first and
/// last from 1. The same text gives the same entries, in order.
pub fn extract(name: &str, text: &str, lines: Option<(usize, usize)>) -> Tutorial {
    let (first, last) = lines.unwrap_or((1, usize::MAX));
    let ascii_doc = text.lines().find(|line| !line.trim().is_empty());
    let ascii_doc = ascii_doc.is_some_and(|line| line.starts_with("= "));
    let numbered: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(|(number, _)| (first..=last).contains(number))
        .collect();
    let mut entries = Vec::new();
    let mut rest = numbered.as_slice();
    let mut after_blank = true;
    while let Some((&(number, line), following)) = rest.split_first() {
        let open = line.trim_start();
        rest = following;
        if let Some(language) = open.strip_prefix("```") {
            if let Some(inside) = language.strip_suffix("```").filter(|text| !text.is_empty()) {
                block(&[(number, inside)], false, &mut entries);
                continue;
            }
            let end = rest.iter().position(|(_, line)| line.trim() == "```");
            let end = end.unwrap_or(rest.len());
            block(&rest[..end], MANIFESTS.contains(&language), &mut entries);
            rest = rest.get(end + 1..).unwrap_or_default();
        } else if ascii_doc && after_blank && line.starts_with(' ') {
            let ends = |line: &str| line.trim().is_empty() || line == "+";
            let end = rest.iter().position(|(_, line)| ends(line));
            let end = end.unwrap_or(rest.len());
            let mut paragraph = vec![(number, line)];
            paragraph.extend_from_slice(&rest[..end]);
            block(&paragraph, false, &mut entries);
            rest = &rest[end..];
        } else if begins_command(line) && line.contains("--") {
            // In a line of its own, where somebody forgot the fence.
            entries.push(command(number, line.trim_end().to_owned(), None));
        } else {
            let spans = code_spans(line).filter(|span| typed_in_prose(span));
            entries.extend(spans.map(|span| command(number, span.to_owned(), None)));
        }
        after_blank = line.trim().is_empty() || line == "+";
    }
    Tutorial {
        text: name.to_owned(),
        lines,
        entries,
    }
}

fn command(line: usize, text: String, prompt: Option<&str>) -> Entry {
    Entry {
        line,
        part: Part::Command(text),
        prompt: prompt.map(str::to_owned),
    }
}

/// One block's commands and outputs.
fn block(lines: &[(usize, &str)], manifest: bool, entries: &mut Vec<Entry>) {
    let indented = lines.iter().filter(|(_, line)| !line.trim().is_empty());
    let margin = indented
        .map(|(_, line)| line.len() - line.trim_start_matches(' ').len())
        .min()
        .unwrap_or(0);
    let lines: Vec<(usize, &str)> = lines
        .iter()
        .map(|(number, line)| (*number, line.get(margin..).unwrap_or_default()))
        .collect();
    if manifest {
        entries.extend(shown(&lines, Part::Manifest));
        return;
    }
    let prompted = lines.iter().any(|(_, line)| prompt_of(line).is_some());
    let mut output: Vec<(usize, &str)> = Vec::new();
    let mut index = 0;
    while index < lines.len() {
        let (number, line) = lines[index];
        let prompt = prompt_of(line);
        let is_command = match prompted {
            true => prompt.is_some(),
            false => begins_command(line),
        };
        index += 1;
        if !is_command {
            output.push((number, line));
            continue;
        }
        entries.extend(shown(&output, Part::Output));
        output.clear();
        let prompt = prompt.unwrap_or_default();
        let mut text = line[prompt.len()..].to_owned();
        while text.ends_with('\\') && index < lines.len() {
            text.push('\n');
            text.push_str(lines[index].1);
            index += 1;
        }
        entries.push(command(
            number,
            text,
            Some(prompt).filter(|text| !text.is_empty()),
        ));
    }
    entries.extend(shown(&output, Part::Output));
}

/// Lines without the blank ones around them, as one entry; none if nothing is left.
fn shown(lines: &[(usize, &str)], part: fn(String) -> Part) -> Option<Entry> {
    let filled = |(_, line): &(usize, &str)| !line.trim().is_empty();
    let (begin, end) = (
        lines.iter().position(filled)?,
        lines.iter().rposition(filled)?,
    );
    let text: Vec<&str> = lines[begin..=end].iter().map(|(_, line)| *line).collect();
    Some(Entry {
        line: lines[begin].0,
        part: part(text.join("\n")),
        prompt: None,
    })
}

/// The prompt that a command stands behind. A prompt alone is output.
fn prompt_of(line: &str) -> Option<&'static str> {
    let behind = |prompt: &&&str| line.strip_prefix(**prompt).is_some_and(begins_command);
    PROMPTS.iter().find(behind).copied()
}

fn begins_command(line: &str) -> bool {
    let word = line.split([' ', '\t']).next().unwrap_or_default();
    let assigned = word.split_once("=$(").is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    });
    assigned || (PROGRAMS.contains(&word) && line.len() > word.len())
}

/// What stands between single backticks in a line of prose.
fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    let parts: Vec<&str> = line.split('`').collect();
    let closed = parts.len() / 2;
    parts.into_iter().skip(1).step_by(2).take(closed)
}

/// A span is for typing if a path or a flag follows the program: `kubectl logs` is only a name.
fn typed_in_prose(span: &str) -> bool {
    let mut words = span.split_whitespace();
    begins_command(span)
        && words.next().is_some()
        && words.any(|word| word.contains('/') || word.starts_with('-'))
}
