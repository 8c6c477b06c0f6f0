//! The shop's `ui`: every page is made of what the other parts answer.

use std::time::Duration;

use serde_json::{Value, json};

use super::retail::{Outcome, actuator, first, not_found, start};
use crate::images::http::client::{self, Answer};
use crate::images::http::server::{Request, Response};

/// How long another part may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The other parts, and what is asked of each to know that it answers.
const PARTS: [(&str, &str); 4] = [
    ("catalog", "/catalog/size"),
    ("carts", "/carts/1"),
    ("checkout", "/health"),
    ("orders", "/orders"),
];

struct Ui {
    /// By part; none where the environment names none.
    endpoints: Vec<(&'static str, Option<String>)>,
}

/// Runs as `ui`.
pub fn ui(_arguments: &[String]) -> u8 {
    let endpoints = PARTS.map(|(part, _)| {
        let name = part.to_uppercase();
        let endpoint = first(&[
            &format!("RETAIL_UI_ENDPOINTS_{name}"),
            &format!("ENDPOINTS_{name}"),
        ]);
        (part, endpoint.filter(|endpoint| endpoint != "false"))
    });
    let ui = Ui {
        endpoints: endpoints.to_vec(),
    };
    start("ui", move |request| ui.answer(request))
}

impl Ui {
    fn answer(&self, request: &Request) -> Outcome {
        if let Some(health) = actuator(request) {
            return Ok(health);
        }
        let path = request.path().to_owned();
        let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            [] | ["home"] => Ok(self.home()),
            ["topology"] => Ok(self.topology()),
            ["info"] => Ok(Response::json(200, &json!({"application": {"name": "ui"}}))),
            ["catalog"] => self.page("catalog", "/catalog/products"),
            ["catalog", id] => self.page("catalog", &format!("/catalog/products/{id}")),
            ["cart"] => self.page("carts", "/carts/1"),
            ["checkout"] => self.page("checkout", "/health"),
            ["orders"] => self.page("orders", "/orders"),
            ["proxy", part, ..] => {
                let target = request.target.strip_prefix("/proxy").unwrap_or_default();
                let answer = self.ask(part, target)?;
                let kind = answer.headers.get("Content-Type").unwrap_or("text/plain");
                Ok(Response::new(answer.status, kind, answer.body.clone()))
            }
            _ => Ok(not_found(request)),
        }
    }

    fn ask(&self, part: &str, path: &str) -> Result<Answer, String> {
        let endpoint = self.endpoints.iter().find(|(name, _)| *name == part);
        let Some((_, Some(endpoint))) = endpoint else {
            return Err(format!("no endpoint of {part} is configured"));
        };
        let url = format!("{}{path}", endpoint.trim_end_matches('/'));
        client::get(&url, LIMIT).map_err(|error| format!("{url}: {error}"))
    }

    fn page(&self, part: &str, path: &str) -> Outcome {
        let answer = self.ask(part, path)?;
        if answer.status >= 400 {
            return Err(format!("{part} answers {}", answer.status));
        }
        let text = String::from_utf8_lossy(&answer.body);
        let title = format!("Retail store: {part}");
        Ok(html(&title, &format!("<pre>{}</pre>", escaped(&text))))
    }

    /// Every part, asked at once: what does it say?
    fn survey(&self) -> Vec<(&'static str, String, Option<String>)> {
        std::thread::scope(|scope| {
            let asked = PARTS.map(|(part, path)| {
                let thread = scope.spawn(move || match self.ask(part, path) {
                    Ok(answer) if answer.status < 400 => Ok(()),
                    Ok(answer) => Err(format!("answers {}", answer.status)),
                    Err(why) => Err(why),
                });
                (part, thread)
            });
            let heard = asked.into_iter().map(|(part, thread)| {
                let outcome = thread.join().unwrap_or_else(|_| Err("not asked".into()));
                let endpoint = self.endpoints.iter().find(|(name, _)| *name == part);
                let endpoint = endpoint.and_then(|(_, endpoint)| endpoint.clone());
                (part, endpoint.unwrap_or_default(), outcome.err())
            });
            heard.collect()
        })
    }

    fn home(&self) -> Response {
        let rows: String = self
            .survey()
            .iter()
            .map(|(part, endpoint, trouble)| {
                let state = trouble.as_deref().unwrap_or("answers");
                let (endpoint, state) = (escaped(endpoint), escaped(state));
                format!("<tr><td>{part}<td>{endpoint}<td>{state}")
            })
            .collect();
        html(
            "Retail store",
            &format!("<table><tr><th>part<th>endpoint<th>state{rows}</table>"),
        )
    }

    fn topology(&self) -> Response {
        let parts: Vec<Value> = self
            .survey()
            .into_iter()
            .map(|(part, endpoint, trouble)| {
                let status = if trouble.is_some() {
                    "UNHEALTHY"
                } else {
                    "HEALTHY"
                };
                json!({"serviceName": part, "endpoint": endpoint, "status": status})
            })
            .collect();
        Response::json(200, &json!(parts))
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn html(title: &str, body: &str) -> Response {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>:root {{ color-scheme: light dark; font-family: sans-serif }} \
         td, th {{ text-align: left; padding: .2em 1em }}</style>\n\
         <h1>{title}</h1>\n{body}\n</html>\n"
    );
    Response::new(200, "text/html; charset=utf-8", page)
}
