//! What may differ between a tutorial's output and ours: addresses, hashes, times, lengths.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

/// What is looked for, and what takes its place. In order: what was put in place of addresses
/// tells ports of clients from others.
const MASKS: &[(&str, &str)] = &[
    // Addresses; a client's port is the kernel's choice, as its address is the cluster's.
    (
        r"(?:::ffff:)?(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?:\]:[3-6][0-9]{4})?",
        "<address>",
    ),
    // Hashes: pod names of a Deployment and of a ReplicaSet, and entity tags.
    (r"-[0-9a-z]{8,10}-[0-9bcdfghjklmnp-tv-xz]{5}\b", "-<hash>"),
    (r"-[2456789bcdfghjklmnp-tv-xz]{5}\b", "-<hash>"),
    (r#"W/"[0-9a-f]+-[0-9A-Za-z+/]+""#, "W/\"<hash>\""),
    // Times: dates of HTTP, time left.
    (
        r"\b[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT",
        "<time>",
    ),
    (r"\b[0-9]+:[0-9]{2}:[0-9]{2} ETA", "<time> ETA"),
    // Lengths: of a body, and of a progress bar with the columns before and after it.
    (r"Content-Length: [0-9]+", "Content-Length: <length>"),
    (r" +([0-9]+%) \|[* ]+\| +[0-9.]+[kMG]? +", " $1 <length> "),
];

static COMPILED: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let compile = |(pattern, mask): &(&'static str, &'static str)| {
        // Without Unicode's tables: what is masked is ASCII.
        let ascii = format!("(?-u){pattern}");
        Regex::new(&ascii).ok().map(|regex| (regex, *mask))
    };
    MASKS.iter().filter_map(compile).collect()
});

/// The text with everything masked that may differ.
pub fn mask(text: &str) -> String {
    let mut masked = Cow::Borrowed(text);
    for (regex, mask) in COMPILED.iter() {
        if let Cow::Owned(changed) = regex.replace_all(&masked, *mask) {
            masked = Cow::Owned(changed);
        }
    }
    masked.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mask_compiles() {
        assert_eq!(COMPILED.len(), MASKS.len());
    }
}
