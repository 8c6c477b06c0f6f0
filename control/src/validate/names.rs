//! Names, labels and port names (apimachinery `pkg/util/validation/validation.go`). Each check
//! gives the API server's complaints, none if the text is valid.

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', \
regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters \
or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', \
regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or \
'-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  \
or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start \
and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used \
for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric \
characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
'MyValue',  or 'my_value',  or '12345', regex used for validation is \
'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn too_long(text: &str, most: usize) -> Option<String> {
    (text.len() > most).then(|| format!("must be no more than {most} characters"))
}

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = bytes.first().is_some_and(|&b| lower(b)) && bytes.last().is_some_and(|&b| lower(b));
    ends && bytes.iter().all(|&b| lower(b) || b == b'-')
}

fn is_qualified(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_alphanumeric();
    let ends = bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
    ends && bytes.iter().all(|b| alphanumeric(b) || b"-_.".contains(b))
}

fn complaints(parts: [Option<String>; 2]) -> Vec<String> {
    parts.into_iter().flatten().collect()
}

/// Complaints about a DNS-1123 subdomain: most objects' names.
pub fn is_dns_1123_subdomain(text: &str) -> Vec<String> {
    let valid = text.split('.').all(is_label);
    complaints([too_long(text, 253), (!valid).then(|| SUBDOMAIN.to_owned())])
}

/// Complaints about a DNS-1123 label: names of namespaces, containers and volumes.
pub fn is_dns_1123_label(text: &str) -> Vec<String> {
    complaints([
        too_long(text, 63),
        (!is_label(text)).then(|| LABEL.to_owned()),
    ])
}

/// Complaints about a DNS-1035 label: names of Services.
pub(super) fn is_dns_1035_label(text: &str) -> Vec<String> {
    let valid = is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase());
    complaints([too_long(text, 63), (!valid).then(|| LABEL_1035.to_owned())])
}

/// Complaints about a label's key, an annotation's key.
pub(super) fn is_qualified_name(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                found.push("prefix part must be non-empty".to_owned());
            } else {
                let prefixed = is_dns_1123_subdomain(prefix);
                found.extend(prefixed.into_iter().map(|m| format!("prefix part {m}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        found.push("name part must be non-empty".to_owned());
    } else if let Some(long) = too_long(name, 63) {
        found.push(format!("name part {long}"));
    }
    if !is_qualified(name) {
        found.push(format!("name part {QUALIFIED}"));
    }
    found
}

/// Complaints about a label's value.
pub(super) fn is_label_value(text: &str) -> Vec<String> {
    let valid = text.is_empty() || is_qualified(text);
    complaints([too_long(text, 63), (!valid).then(|| LABEL_VALUE.to_owned())])
}

/// Complaints about a port's name (IANA service names, RFC 6335).
pub(super) fn is_port_name(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    found.extend(too_long(text, 15));
    if !bytes.iter().all(|&b| lower(b) || b == b'-') || bytes.is_empty() {
        found.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !bytes.iter().any(u8::is_ascii_lowercase) {
        found.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        found.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        found.push("must not begin or end with a hyphen".to_owned());
    }
    found
}
