//! Values of flags as Go's `strconv` and `time` read them, and complain of them.

use std::time::Duration;

use super::flags::{FlagError, Parsed};

pub use crate::go_duration::seconds;

/// The whole number that a flag has, if it was given.
pub fn integer(parsed: &Parsed, flag: &'static str) -> Result<Option<i64>, FlagError> {
    let Some(text) = parsed.value(flag) else {
        return Ok(None);
    };
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().map(Some).map_err(|_| {
        let what = if plain {
            "value out of range"
        } else {
            "invalid syntax"
        };
        invalid(
            flag,
            text,
            format!("strconv.ParseInt: parsing \"{text}\": {what}"),
        )
    })
}

/// The seconds that a flag has, negative ones too, if it was given.
pub fn duration(parsed: &Parsed, flag: &'static str) -> Result<Option<f64>, FlagError> {
    let Some(text) = parsed.value(flag) else {
        return Ok(None);
    };
    let read = seconds(text).map(Some);
    read.map_err(|why| invalid(flag, text, format!("time: {why}")))
}

/// The time that a flag gives to wait at most; none if it was not given, or is zero.
pub fn limit(parsed: &Parsed, flag: &'static str) -> Result<Option<Duration>, FlagError> {
    let given = duration(parsed, flag)?.filter(|seconds| *seconds != 0.0);
    Ok(given.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
}

fn invalid(flag: &'static str, value: &str, why: String) -> FlagError {
    FlagError::Invalid {
        flag,
        value: value.to_owned(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags::{parse, value};

    #[test]
    fn numbers_as_go_reads_them() {
        let flags = [value("replicas", None, "x")];
        let read = |text: &str| {
            let parsed = parse(&flags, &[format!("--replicas={text}")]).unwrap();
            integer(&parsed, "replicas").map_err(|error| error.to_string())
        };
        assert_eq!(read("3"), Ok(Some(3)));
        assert_eq!(read("-1"), Ok(Some(-1)));
        assert_eq!(
            read("x").unwrap_err(),
            "invalid argument \"x\" for \"--replicas\" flag: strconv.ParseInt: parsing \"x\": \
             invalid syntax"
        );
        assert!(read("99999999999999999999").unwrap_err().ends_with("range"));
        assert_eq!(integer(&Parsed::default(), "replicas"), Ok(None));
    }
}
