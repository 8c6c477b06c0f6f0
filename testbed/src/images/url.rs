//! URLs as the stand-ins' programs take them: a scheme may be left out.

/// A URL's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// `http` without one.
    pub scheme: String,
    /// Host and port as written, without a user.
    pub authority: String,
    /// Host, without an IPv6 address's brackets.
    pub host: String,
    /// Port, the scheme's own without one.
    pub port: u16,
    /// Path and query, from its slash.
    pub path: String,
}

impl Url {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Url, String> {
        let wrong = || format!("not an http or ftp url: {text}");
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let default = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return Err(wrong()),
        };
        let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let authority = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        let path = match path.split('#').next().unwrap_or_default() {
            "" => "/".to_owned(),
            path if path.starts_with('?') => format!("/{path}"),
            path => path.to_owned(),
        };
        if path.chars().any(|c| c.is_control() || c == ' ') {
            return Err(wrong());
        }
        let (host, port) = match authority.strip_prefix('[').and_then(|s| s.split_once(']')) {
            Some((host, after)) => (host, after.strip_prefix(':')),
            None => match authority.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = port.map_or(Ok(default), |port| port.parse().map_err(|_| wrong()))?;
        if host.is_empty() {
            return Err(wrong());
        }
        Ok(Url {
            scheme: scheme.to_owned(),
            authority: authority.to_owned(),
            host: host.to_owned(),
            port,
            path,
        })
    }

    /// Where a `Location` leads from here.
    pub fn join(&self, location: &str) -> Result<Url, String> {
        if location.starts_with('/') && !location.starts_with("//") {
            let path = location.to_owned();
            return Ok(Url {
                path,
                ..self.clone()
            });
        }
        Url::parse(location)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found() {
        let read = |text: &str| {
            let url = Url::parse(text).unwrap();
            format!("{} {} {} {}", url.scheme, url.host, url.port, url.path)
        };
        for (text, expected) in [
            ("flaskback:5000/blogs", "http flaskback 5000 /blogs"),
            ("http://a", "http a 80 /"),
            ("http://u:p@a/b?c#d", "http a 80 /b?c"),
            ("a?x", "http a 80 /?x"),
            ("https://[fd00::1]:8443/x", "https fd00::1 8443 /x"),
        ] {
            assert_eq!(read(text), expected);
        }
        for wrong in ["ftp://a", "http:///x", "http://a:x/", "http://a/b c"] {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
        let base = Url::parse("http://a:81/x").unwrap();
        assert_eq!(base.join("/y").unwrap().authority, "a:81");
        assert_eq!(base.join("http://b/z").unwrap().host, "b");
    }
}
