//! What is refused before anything is looked up, and what every answer carries.
//!
//! The socket is its user's alone, a port of the machine is anybody's. A web page from elsewhere
//! must not read what is here through the user's browser: so the host that is asked for is checked
//! (DNS rebinding makes a stranger's name point here), and whose page asks. Nothing here changes
//! anything, so there is nothing to forge.

use std::net::IpAddr;

use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, REFERRER_POLICY, TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

/// Everything comes from here, nothing is inline, and no text becomes markup.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                              img-src 'self'; connect-src 'self'; base-uri 'none'; \
                              form-action 'none'; frame-ancestors 'none'; \
                              require-trusted-types-for 'script'; trusted-types 'none'";

/// Bytes of a path and query.
pub const TARGET_BYTES: usize = 8 << 10;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status.
    pub status: StatusCode,
    /// What was wrong and what to do.
    pub text: String,
}

impl Refusal {
    /// A refusal in words.
    pub fn new(status: StatusCode, text: impl Into<String>) -> Refusal {
        Refusal {
            status,
            text: text.into(),
        }
    }
}

/// Hosts that a request may be for.
#[derive(Clone, Debug)]
pub struct Hosts {
    listen: IpAddr,
    names: Vec<String>,
}

impl Hosts {
    /// Addresses, `localhost`, and these names.
    pub fn new(listen: IpAddr, names: Vec<String>) -> Hosts {
        let names = names.into_iter().map(|name| name.to_ascii_lowercase());
        Hosts {
            listen,
            names: names.collect(),
        }
    }

    /// Whether a `Host` header names this site. An address cannot be rebound, a name can; one that
    /// is not this machine's own has no business here if only the machine itself is listened to.
    fn takes(&self, host: &str) -> bool {
        let host = without_port(host).to_ascii_lowercase();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(address) => !self.listen.is_loopback() || address.is_loopback(),
            Err(_) => host == "localhost" || self.names.contains(&host),
        }
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            // Not the last group of a bare IPv6 address, which no `Host` has without brackets.
            if name.contains(':') && !name.ends_with(']') {
                host
            } else {
                name
            }
        }
        _ => host,
    }
}

/// Refuses what is no plain question of this page, or of a program on this machine.
pub fn check(parts: &Parts, hosts: &Hosts) -> Result<(), Refusal> {
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        let text = "only GET and HEAD: nothing can be changed here";
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text));
    }
    check_host(parts, hosts)?;
    check_origin(parts)?;
    let target = parts.uri.path_and_query().map_or("", |both| both.as_str());
    if target.len() > TARGET_BYTES {
        let text = format!("the path and query have at most {TARGET_BYTES} bytes");
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, text));
    }
    let length = parts.headers.get(CONTENT_LENGTH);
    let has_body =
        length.is_some_and(|length| length != "0") || parts.headers.contains_key(TRANSFER_ENCODING);
    if has_body {
        let text = "no question here has a body";
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    Ok(())
}

fn check_host(parts: &Parts, hosts: &Hosts) -> Result<(), Refusal> {
    let mut given = parts.headers.get_all(HOST).iter();
    let host = given.next().and_then(|host| host.to_str().ok());
    // A target in absolute form has a host of its own, which takes precedence (RFC 9112, 3.2.2).
    let absolute = parts.uri.authority().map(|authority| authority.as_str());
    let takes = |host: Option<&str>| host.is_some_and(|host| hosts.takes(host));
    if given.next().is_none() && takes(host) && absolute.is_none_or(|host| hosts.takes(host)) {
        return Ok(());
    }
    let host = absolute.or(host).unwrap_or("no host");
    let text = format!(
        "this page is not {host:?}: ask for localhost or an address; a name needs \
         `weir ui --allow-host NAME`"
    );
    Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, text))
}

/// Browsers say whose page asks: a stranger's must not, even if it could not read the answer.
fn check_origin(parts: &Parts) -> Result<(), Refusal> {
    let header = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok());
    let is_navigation = header("sec-fetch-mode") == Some("navigate");
    let site = header("sec-fetch-site").unwrap_or("none");
    let is_stranger = !matches!(site, "same-origin" | "none") && !is_navigation;
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let origin = parts.headers.get(ORIGIN).map(|origin| origin.to_str());
    let is_foreign = match origin {
        None => false,
        Some(Ok(origin)) => origin.strip_prefix("http://") != host,
        Some(Err(_)) => true,
    };
    if is_stranger || is_foreign {
        let text = "pages from elsewhere get nothing here";
        return Err(Refusal::new(StatusCode::FORBIDDEN, text));
    }
    Ok(())
}

/// Puts what every answer carries into its headers.
pub fn protect(status: StatusCode, headers: &mut HeaderMap) {
    let resource_policy = HeaderName::from_static("cross-origin-resource-policy");
    let opener_policy = HeaderName::from_static("cross-origin-opener-policy");
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (resource_policy, "same-origin"),
        (opener_policy, "same-origin"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn asked(target: &str, headers: &[(&str, &str)]) -> Result<(), StatusCode> {
        asked_of("127.0.0.1", &[], target, headers)
    }

    fn asked_of(
        listen: &str,
        names: &[&str],
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<(), StatusCode> {
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let hosts = Hosts::new(listen.parse().unwrap(), names);
        check(&parts, &hosts).map_err(|refusal| refusal.status)
    }

    #[test]
    fn a_name_that_is_not_this_sites_is_refused_and_so_is_no_name() {
        let misdirected = Err(StatusCode::MISDIRECTED_REQUEST);
        for (host, expected) in [
            ("127.0.0.1:8844", Ok(())),
            ("localhost:8844", Ok(())),
            ("LOCALHOST", Ok(())),
            ("[::1]:8844", Ok(())),
            ("[::1]", Ok(())),
            ("evil.example:8844", misdirected),
            ("127.0.0.1.evil.example", misdirected),
            ("localhost.evil.example:80", misdirected),
            ("10.0.0.1:8844", misdirected),
            ("", misdirected),
            (":8844", misdirected),
        ] {
            assert_eq!(asked("/", &[("host", host)]), expected, "{host}");
        }
        assert_eq!(asked("/", &[]), misdirected);
        let twice = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(asked("/", &twice), misdirected);
        let absolute = asked("http://evil.example/", &[("host", "localhost")]);
        assert_eq!(absolute, misdirected);
    }

    #[test]
    fn a_site_for_others_takes_addresses_and_the_names_it_was_told() {
        let asked = |host| asked_of("0.0.0.0", &["weir.lab"], "/", &[("host", host)]);
        assert_eq!(asked("10.0.0.1:8844"), Ok(()));
        assert_eq!(asked("Weir.Lab:8844"), Ok(()));
        assert_eq!(asked("other.lab"), Err(StatusCode::MISDIRECTED_REQUEST));
    }

    #[test]
    fn pages_from_elsewhere_get_nothing_but_a_link_to_here_works() {
        let with = |more: &[(&'static str, &'static str)]| {
            let mut headers = vec![("host", "localhost:8844")];
            headers.extend(more);
            asked("/api/stream", &headers)
        };
        assert_eq!(with(&[("sec-fetch-site", "same-origin")]), Ok(()));
        assert_eq!(with(&[("origin", "http://localhost:8844")]), Ok(()));
        let forbidden = Err(StatusCode::FORBIDDEN);
        assert_eq!(with(&[("sec-fetch-site", "cross-site")]), forbidden);
        assert_eq!(with(&[("sec-fetch-site", "same-site")]), forbidden);
        assert_eq!(with(&[("origin", "http://evil.example")]), forbidden);
        assert_eq!(with(&[("origin", "null")]), forbidden);
        let link = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
        ];
        assert_eq!(with(&link), Ok(()));
    }

    #[test]
    fn bodies_and_endless_targets_are_refused() {
        let host = ("host", "localhost");
        let body = asked("/", &[host, ("content-length", "5")]);
        assert_eq!(body, Err(StatusCode::PAYLOAD_TOO_LARGE));
        let chunked = asked("/", &[host, ("transfer-encoding", "chunked")]);
        assert_eq!(chunked, Err(StatusCode::PAYLOAD_TOO_LARGE));
        let long = format!("/{}", "x".repeat(TARGET_BYTES));
        assert_eq!(asked(&long, &[host]), Err(StatusCode::URI_TOO_LONG));
    }
}
