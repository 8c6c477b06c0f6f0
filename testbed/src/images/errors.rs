//! Errors in the C library's words, which is what the originals print.

use std::io;

/// The error as `strerror` says it.
pub fn strerror(error: &io::Error) -> String {
    match (error.raw_os_error(), error.kind()) {
        (None, io::ErrorKind::TimedOut) => "Connection timed out".into(),
        (None, _) => error.to_string(),
        (Some(_), _) => {
            let text = error.to_string();
            let end = text.find(" (os error").unwrap_or(text.len());
            text[..end].to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_c_librarys() {
        let refused = io::Error::from(rustix::io::Errno::CONNREFUSED);
        assert_eq!(strerror(&refused), "Connection refused");
        let late = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!(strerror(&late), "Connection timed out");
        let timed_out = io::Error::from(rustix::io::Errno::TIMEDOUT);
        assert_eq!(strerror(&timed_out), "Connection timed out");
    }
}
