//! Stands in for `solsson/http-echo` and its descendant `mendhak/http-https-echo`: answers with
//! the request as Express sees it, and writes it to its log. Silent until one comes. `$PORT` or 80.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{port, run};
use crate::images::digest::{base64, sha1};
use crate::images::http::Headers;
use crate::images::http::server::{Answer, Request, Response};

/// Runs it.
pub fn main(_arguments: &[String]) -> u8 {
    match port("PORT", 80) {
        Ok(number) => run("http-echo", number, &answer()),
        Err(wrong) => {
            eprintln!("http-echo: {wrong}");
            1
        }
    }
}

fn answer() -> Answer {
    Arc::new(|request: &Request| {
        let text = serde_json::to_string_pretty(&echo(request)).unwrap_or_default();
        let response = express(200, "application/json; charset=utf-8", text);
        println!("{}", request.log_line(&response));
        println!("{}", String::from_utf8_lossy(&response.body));
        response
    })
}

/// An answer with the headers that Express sets, in its order.
fn express(status: u16, kind: &str, body: String) -> Response {
    let headers = [
        ("X-Powered-By", "Express".to_owned()),
        ("Content-Type", kind.to_owned()),
        ("Content-Length", body.len().to_string()),
        ("ETag", entity_tag(body.as_bytes())),
    ];
    let headers = headers
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    Response {
        status,
        headers: Headers(headers.collect()),
        body: body.into_bytes(),
    }
}

/// As the npm package `etag` makes them, weak: length in hexadecimal, SHA-1 in base64.
fn entity_tag(body: &[u8]) -> String {
    format!("W/\"{:x}-{}\"", body.len(), base64(&sha1(body)))
}

fn echo(request: &Request) -> Value {
    let mut headers = Map::new();
    for (name, value) in &request.headers.0 {
        // Node keeps the first of most headers that come twice.
        let name = name.to_ascii_lowercase();
        headers.entry(name).or_insert_with(|| json!(value));
    }
    let host = request.headers.get("Host").unwrap_or_default();
    let hostname = match host.find(']') {
        Some(end) => &host[..=end],
        None => host.split(':').next().unwrap_or_default(),
    };
    let mut query = Map::new();
    for (name, value) in request.query() {
        query.insert(name, json!(value));
    }
    let ajax = request.headers.get("X-Requested-With").unwrap_or_default();
    json!({
        "path": request.path(),
        "headers": headers,
        "method": request.method,
        "body": String::from_utf8_lossy(&request.body),
        "fresh": false,
        "hostname": hostname,
        "ip": request.peer.ip().to_string(),
        "ips": [],
        "protocol": "http",
        "query": query,
        "subdomains": subdomains(hostname),
        "xhr": ajax.eq_ignore_ascii_case("xmlhttprequest"),
    })
}

/// What is left of the two last labels, from the right; an address has none.
fn subdomains(hostname: &str) -> Vec<&str> {
    if hostname.parse::<IpAddr>().is_ok() || hostname.starts_with('[') {
        return Vec::new();
    }
    hostname.rsplit('.').skip(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::http::server::tests::served;

    #[test]
    fn entity_tags_are_expresss() {
        // `require('etag')("Hello World", {weak: true})`, from the package's own README.
        assert_eq!(
            entity_tag(b"Hello World"),
            "W/\"b-Ck1VqNd45QIvq3AZd8XYQLvEhtA\""
        );
        assert_eq!(entity_tag(b""), "W/\"0-2jmj7l5rSw0yVb/vlWAYkK/YBwk\"");
    }

    #[test]
    fn requests_come_back_as_express_sees_them() {
        let text = served(
            answer(),
            b"POST /test?a=b HTTP/1.1\r\nHost: http-echo.ns-1.svc.cluster.local:80\r\nUser-Agent: Wget\r\n\
              Connection: close\r\nContent-Length: 19\r\n\r\n{\"message\":\"hello\"}",
        );
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let names: Vec<&str> = head
            .lines()
            .filter_map(|line| line.split(": ").next())
            .collect();
        let expected = [
            "HTTP/1.1 200 OK",
            "X-Powered-By",
            "Content-Type",
            "Content-Length",
            "ETag",
            "Date",
            "Connection",
        ];
        assert_eq!(names, expected);
        assert!(
            head.contains("Content-Type: application/json; charset=utf-8\r\n"),
            "{head}"
        );
        assert!(head.ends_with("Connection: close"), "{head}");
        let echo: Value = serde_json::from_str(body).unwrap();
        assert_eq!(echo["path"], "/test");
        assert_eq!(echo["body"], "{\"message\":\"hello\"}");
        assert_eq!(echo["headers"]["user-agent"], "Wget");
        assert_eq!(echo["query"], json!({"a": "b"}));
        assert_eq!(echo["subdomains"], json!(["svc", "ns-1", "http-echo"]));
        assert!(subdomains("10.0.0.1").is_empty());
    }
}
