//! Holding what a terminal showed against what a tutorial shows.

use std::fmt::Write;

use super::mask::mask;

/// How much of the terminal's text the tutorial shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// Lines of it, in order.
    Within,
    /// All, up to where it was interrupted; at least one line.
    Interrupted,
}

/// The lines that a person sees once `text` has been written to a terminal: without escape
/// sequences, with what a carriage return overwrote gone.
pub fn seen_lines(text: &str) -> Vec<String> {
    let plain = without_escapes(text);
    let mut lines: Vec<String> = plain
        .split('\n')
        .map(|line| {
            let mut cells: Vec<char> = Vec::new();
            let mut column = 0_usize;
            for c in line.trim_end_matches('\r').chars() {
                match c {
                    '\r' => column = 0,
                    '\u{8}' => column = column.saturating_sub(1),
                    c if c.is_control() && c != '\t' => {}
                    c => {
                        match cells.get_mut(column) {
                            Some(cell) => *cell = c,
                            None => cells.push(c),
                        }
                        column += 1;
                    }
                }
            }
            let line: String = cells.into_iter().collect();
            line.trim_end().to_owned()
        })
        .collect();
    let filled = lines.iter().rposition(|line| !line.is_empty());
    lines.truncate(filled.map_or(0, |last| last + 1));
    let blank = lines.iter().take_while(|line| line.is_empty()).count();
    lines.drain(..blank);
    lines
}

/// Without `ESC [ … letter` and `ESC ] … BEL`.
fn without_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c != '\u{1b}' {
            plain.push(c);
            continue;
        }
        match characters.next() {
            Some('[') => {
                let _last = characters.find(|c| ('@'..='~').contains(c));
            }
            Some(']') => {
                let _bell = characters.find(|c| *c == '\u{7}');
            }
            _ => {}
        }
    }
    plain
}

/// Whether a line is one that Weir adds to kubectl's on standard error: who has adopted a change,
/// what of it has no effect here, what was read in place of an address.
pub fn is_own(line: &str) -> bool {
    let generation = line
        .strip_prefix("generation ")
        .is_some_and(|rest| rest.ends_with(" µs") && rest.split(' ').nth(1) == Some("live"));
    let warning = line
        .strip_prefix("Warning: ")
        .is_some_and(|rest| rest.ends_with("is stored but has no effect here"));
    generation || warning || line.contains(": nothing is fetched, this is the lab's copy, ")
}

/// What differs, in words; `None` if what the terminal showed is what the tutorial shows.
pub fn difference(tutorial: &str, terminal: &str, extent: Extent) -> Option<String> {
    let masked =
        |text: &str| -> Vec<String> { seen_lines(text).iter().map(|line| mask(line)).collect() };
    let (wanted, mut seen) = (masked(tutorial), masked(terminal));
    seen.retain(|line| !is_own(line));
    let same = match extent {
        Extent::Whole => wanted == seen,
        Extent::Within => {
            let mut rest = seen.iter();
            wanted.iter().all(|line| rest.any(|other| other == line))
        }
        Extent::Interrupted => {
            // The terminal's own echo of Ctrl-C.
            seen.retain(|line| line != "^C");
            !seen.is_empty() && wanted.starts_with(&seen)
        }
    };
    if same {
        return None;
    }
    let mut text = String::new();
    for line in &wanted {
        let sign = if seen.contains(line) { ' ' } else { '-' };
        let _infallible = writeln!(text, "    {sign} {line}");
    }
    for line in seen.iter().filter(|line| !wanted.contains(line)) {
        let _infallible = writeln!(text, "    + {line}");
    }
    Some(text)
}
