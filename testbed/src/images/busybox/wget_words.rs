//! What `wget` takes on its command line and from an answer's head.

use crate::images::options::Syntax;

/// What is said of a wrong command line.
pub const USAGE: &str = "\
Usage: wget [-cqS] [--spider] [-O FILE] [-o LOGFILE] [--header STR]
\t[--post-data STR | --post-file FILE] [-Y on/off]
\t[-P DIR] [-U AGENT] [-T SEC] URL...

Retrieve files via HTTP

\t--spider\tOnly check URL existence: $? is 0 if exists
\t--header STR\tAdd STR (of form 'header: value') to headers
\t--post-data STR\tSend STR using POST method
\t--post-file FILE\tSend FILE using POST method
\t-c\t\tContinue retrieval of aborted transfer
\t-q\t\tQuiet
\t-P DIR\t\tSave to DIR (default .)
\t-S    \t\tShow server response
\t-T SEC\t\tNetwork read timeout is SEC seconds
\t-O FILE\t\tSave to FILE ('-' for stdout)
\t-o LOGFILE\tLog messages to FILE
\t-U STR\t\tUse STR for User-Agent header
\t-Y on/off\tUse proxy";

/// Its options.
pub const SYNTAX: Syntax = Syntax {
    short: "cqSO:o:P:Y:U:T:t:",
    long: &[
        ("continue", false, 'c'),
        ("quiet", false, 'q'),
        ("server-response", false, 'S'),
        ("output-document", true, 'O'),
        ("output-file", true, 'o'),
        ("directory-prefix", true, 'P'),
        ("proxy", true, 'Y'),
        ("user-agent", true, 'U'),
        ("timeout", true, 'T'),
        ("tries", true, 't'),
        ("header", true, 'H'),
        ("post-data", true, 'D'),
        ("post-file", true, 'F'),
        ("spider", false, 's'),
        ("no-check-certificate", false, 'n'),
    ],
};

/// What of an answer's head matters.
#[derive(Debug, Default)]
pub struct Head {
    /// Status code.
    pub status: u16,
    /// Bytes of the body.
    pub length: Option<u64>,
    /// Whether the body comes in chunks.
    pub chunked: bool,
    /// Where to ask instead.
    pub location: Option<String>,
}

impl Head {
    /// Takes note of a header line.
    pub fn note(&mut self, line: &str) -> Result<(), String> {
        let Some((name, value)) = line.split_once(':') else {
            return Err(format!("bad header line: {line}"));
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                let length = value.parse();
                let length = length.map_err(|_| format!("content-length {value} is garbage"))?;
                self.length = Some(length);
            }
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => self.chunked = true,
            "transfer-encoding" => {
                return Err(format!("transfer encoding '{value}' is not supported"));
            }
            "location" => self.location = Some(value.to_owned()),
            _ => {}
        }
        Ok(())
    }
}
