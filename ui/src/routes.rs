//! What can be asked, all of it with GET:
//!
//! | path | answer |
//! | --- | --- |
//! | `/` and the page's files | |
//! | `/metrics` | the daemon's metrics, Prometheus' text |
//! | `/api/filters` | the filters that a stream takes: those of `weir observe` |
//! | `/api/stream?FILTER=VALUE…` | [`stream`](crate::stream): filters in the order of flags, `not` turns the next one round |
//! | `/api/trace?from=&to=&port=&protocol=` | `trace`'s answer, as the command line's `-o json` and as its text |
//! | `/api/matrix` | [`Reachability`](crate::reach::Reachability) |
//! | `/api/pod?namespace=&name=` | the pod's policies with their rules' hits |
//! | `/api/policy?kind=&namespace=&name=` | a policy as YAML, with its rules' hits |

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use control::cli::flags::Takes;
use control::cli::output::Form;
use control::cli::verbs::observe::{Filters, filter_flags};
use control::client::{Client, ClientError};
use control::flow::filter::Matcher;
use control::protocol::{
    GetParams, GetReply, HitsParams, HitsReply, MetricsReply, PodPoliciesParams, PodPoliciesReply,
    PolicyHits, TraceParams,
};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::guard::{self, Refusal};
use crate::server::Site;
use crate::{assets, objects, stream};

/// Pairs of a query.
const PAIRS: usize = 64;
/// Policies of a pod whose rules are shown.
const POLICIES: usize = 100;

/// An answer's body.
#[derive(Debug)]
pub enum Reply {
    /// All of it; none once it is sent.
    Whole(Option<Bytes>),
    /// Events as they come.
    Events(stream::Events),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Reply::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Reply::Events(events) => Pin::new(events).poll_frame(context),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Reply::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Reply::Events(_) => SizeHint::default(),
        }
    }
}

/// What a question comes to: a media type and a body.
type Answer = Result<(&'static str, Reply), Refusal>;

fn whole(media: &'static str, bytes: impl Into<Bytes>) -> (&'static str, Reply) {
    (media, Reply::Whole(Some(bytes.into())))
}

fn as_json(value: &impl serde::Serialize) -> Answer {
    let broken = |error: serde_json::Error| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    };
    let bytes = serde_json::to_vec(value).map_err(broken)?;
    Ok(whole("application/json", bytes))
}

/// Answers one request.
pub async fn answer(site: &Arc<Site>, request: Request<Incoming>) -> Response<Reply> {
    let (parts, _body) = request.into_parts();
    let answer = match guard::check(&parts, &site.hosts) {
        Ok(()) => {
            let query = parts.uri.query().unwrap_or_default();
            route(site, &parts.method, parts.uri.path(), query).await
        }
        Err(refusal) => Err(refusal),
    };
    let (status, (media, body)) = match answer {
        Ok(found) => (StatusCode::OK, found),
        Err(refusal) => {
            let text = json!({"error": refusal.text}).to_string();
            (refusal.status, whole("application/json", text))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    guard::protect(status, headers);
    response
}

async fn route(site: &Arc<Site>, method: &Method, path: &str, query: &str) -> Answer {
    let query = Query::new(query)?;
    match path {
        "/metrics" => metrics(site).await,
        "/api/filters" => as_json(&filters()),
        "/api/stream" => begin_stream(site, method, &query),
        "/api/trace" => trace(site, &query).await,
        "/api/matrix" => as_json(&*site.reach.get(&site.daemon).await?),
        "/api/pod" => pod(site, &query).await,
        "/api/policy" => policy(site, &query).await,
        _ => match assets::find(path) {
            Some(asset) => Ok(whole(asset.media, asset.bytes)),
            None => Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "there is no such page here",
            )),
        },
    }
}

/// A query's pairs in their order.
struct Query<'q>(Vec<(Cow<'q, str>, Cow<'q, str>)>);

impl<'q> Query<'q> {
    fn new(text: &'q str) -> Result<Query<'q>, Refusal> {
        let pairs: Vec<_> = form_urlencoded::parse(text.as_bytes())
            .take(PAIRS + 1)
            .collect();
        if pairs.len() > PAIRS {
            return Err(bad(format!("a query has at most {PAIRS} parts")));
        }
        Ok(Query(pairs))
    }

    /// A value that may be left out, or empty.
    fn value(&self, name: &str) -> Option<String> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found
            .map(|(_, value)| value.to_string())
            .filter(|value| !value.is_empty())
    }

    fn needed(&self, name: &str) -> Result<String, Refusal> {
        self.value(name)
            .ok_or_else(|| bad(format!("{name} is missing")))
    }

    fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        let unknown = self
            .0
            .iter()
            .find(|(key, _)| !known.contains(&key.as_ref()));
        match unknown {
            Some((key, _)) => Err(bad(format!(
                "{key:?} means nothing here: {}",
                known.join(", ")
            ))),
            None => Ok(()),
        }
    }
}

fn bad(text: String) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, text)
}

async fn metrics(site: &Site) -> Answer {
    let reply: MetricsReply = site
        .daemon
        .ask(|client| client.call("metrics", json!({})))
        .await?;
    Ok(whole(
        "text/plain; version=0.0.4; charset=utf-8",
        reply.text,
    ))
}

fn filters() -> Vec<Value> {
    let flags = filter_flags().map(|flag| {
        json!({
            "name": flag.long,
            "isSwitch": flag.takes == Takes::Switch,
            "help": flag.help,
        })
    });
    flags.collect()
}

/// HEAD only says whether the filters can be read: a browser's EventSource does not tell why not.
fn begin_stream(site: &Arc<Site>, method: &Method, query: &Query<'_>) -> Answer {
    let mut flags = Vec::new();
    for (name, value) in &query.0 {
        let known = filter_flags().find(|flag| flag.long == name);
        let flag = known.ok_or_else(|| bad(format!("unknown filter: {name}")))?;
        let value = match flag.takes {
            Takes::Switch => "true".to_owned(),
            _ => value.to_string(),
        };
        flags.push((flag.long, value));
    }
    let filters = Filters::read(&flags).map_err(|error| bad(error.to_string()))?;
    let wanted = Matcher::new(&filters.allow, &filters.deny).map_err(bad)?;
    if method == Method::HEAD {
        return Ok(whole("text/event-stream", ""));
    }
    let full = |_| {
        let text = format!(
            "{} pages are open, which is all there can be",
            site.bounds.streams
        );
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text)
    };
    let permit = site.streams.clone().try_acquire_owned().map_err(full)?;
    let broken =
        |error: std::io::Error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
    let events = stream::begin(site.clone(), wanted, permit).map_err(broken)?;
    Ok(("text/event-stream", Reply::Events(events)))
}

async fn trace(site: &Site, query: &Query<'_>) -> Answer {
    query.only(&["from", "to", "port", "protocol"])?;
    let params = TraceParams {
        from: query.needed("from")?,
        to: query.needed("to")?,
        port: query.value("port"),
        protocol: query.value("protocol"),
        namespace: None,
    };
    let asked = site
        .daemon
        .ask(move |client| client.call_value("trace", &params));
    as_json(&asked.await?)
}

/// The rules' hits of some policies.
fn hits(
    client: &mut Client,
    named: &[(&str, Option<&str>, &str)],
) -> Result<Vec<PolicyHits>, ClientError> {
    let mut asked = Vec::new();
    for (kind, namespace, name) in named {
        let params = HitsParams {
            kind: Some((*kind).to_owned()),
            name: Some((*name).to_owned()),
            namespace: namespace.map(str::to_owned),
        };
        asked.push(client.send("hits", &params)?);
    }
    let mut found = Vec::new();
    for question in asked {
        match client.receive_reply(question) {
            Ok(reply) => {
                let reply: HitsReply = serde_json::from_value(reply)
                    .map_err(|error| ClientError::Protocol(error.to_string()))?;
                found.extend(reply.policies);
            }
            // Gone between the two questions.
            Err(ClientError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

async fn pod(site: &Site, query: &Query<'_>) -> Answer {
    query.only(&["namespace", "name"])?;
    let (namespace, name) = (query.needed("namespace")?, query.needed("name")?);
    let asked = site.daemon.ask(move |client| {
        let params = PodPoliciesParams { namespace, name };
        let reply: PodPoliciesReply = client.call("pod.policies", &params)?;
        let shown = reply.policies.iter().take(POLICIES);
        let named: Vec<_> = shown
            .map(|policy| {
                (
                    policy.kind.as_str(),
                    policy.namespace.as_deref(),
                    policy.name.as_str(),
                )
            })
            .collect();
        let hits = hits(client, &named)?;
        let left_out = reply.policies.len().saturating_sub(POLICIES);
        Ok(json!({"policies": reply.policies, "hits": hits, "hitsLeftOut": left_out}))
    });
    as_json(&asked.await?)
}

async fn policy(site: &Site, query: &Query<'_>) -> Answer {
    query.only(&["kind", "namespace", "name"])?;
    let (kind, name) = (query.needed("kind")?, query.needed("name")?);
    let namespace = query.value("namespace");
    if !objects::is_policy(&json!({"kind": kind})) {
        return Err(bad(format!("{kind} is no kind of policy")));
    }
    let asked = site.daemon.ask(move |client| {
        let params = GetParams {
            resource: kind.to_lowercase(),
            namespace: namespace.clone(),
            name: Some(name.clone()),
            ..GetParams::default()
        };
        let reply: GetReply = client.call("get", &params)?;
        let object = reply
            .items
            .first()
            .map(objects::authored)
            .unwrap_or_default();
        let yaml = Form::Yaml
            .render(&object)
            .unwrap_or_else(|error| error.to_string());
        let hits = hits(client, &[(&kind, namespace.as_deref(), &name)])?;
        Ok(json!({"yaml": yaml, "hits": hits.first()}))
    });
    as_json(&asked.await?)
}
