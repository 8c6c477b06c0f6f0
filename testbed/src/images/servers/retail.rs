//! Stands in for the EKS workshop's shop: `ui`, `catalog`, `carts`, `checkout` and `orders` of
//! `retail-store-sample-*`.
//!
//! Paths and environment variables are the originals', versions 0 and 1. What a part keeps in a
//! database it keeps there, over a connection made for each request, or in memory where no
//! database is configured. What it asks of another part, it asks over the network. Either failing
//! is a 500 (`ui`: as Spring says it). Health is its own: the originals do not look further.
//! Bounds: [`KEPT`] carts, orders and checkouts; what another part answers, [`LIMIT`] for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::retail_catalog::Database;
use super::{port, run, variable};
use crate::images::http::client;
use crate::images::http::server::{Answer, Request, Response};
use crate::images::redis;

/// How long another part or a database may take.
pub(super) const LIMIT: Duration = Duration::from_secs(5);
/// Things kept in memory, of each kind.
const KEPT: usize = 1000;

/// What went wrong behind a request.
pub(super) type Failed = String;
pub(super) type Outcome = Result<Response, Failed>;
type Kept = Arc<Mutex<BTreeMap<String, Value>>>;

/// The first of these environment variables that is set.
pub(super) fn first(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| variable(name))
}

pub(super) fn start(
    name: &'static str,
    part: impl Fn(&Request) -> Outcome + Send + Sync + 'static,
) -> u8 {
    let number = match port("PORT", 8080) {
        Ok(number) => number,
        Err(wrong) => {
            eprintln!("{name}: {wrong}");
            return 1;
        }
    };
    println!("{name}: listening on port {number}");
    let answer: Answer = Arc::new(move |request: &Request| {
        let response = part(request).unwrap_or_else(|why| {
            println!("{name}: {} {}: {why}", request.method, request.target);
            let error = "Internal Server Error";
            let path = request.path();
            Response::json(
                500,
                &json!({"status": 500, "error": error, "message": why, "path": path}),
            )
        });
        if !request.path().contains("health") {
            println!("{}", request.log_line(&response));
        }
        response
    });
    run(name, number, &answer)
}

pub(super) fn not_found(request: &Request) -> Response {
    let path = request.path();
    Response::json(
        404,
        &json!({"status": 404, "error": "Not Found", "path": path}),
    )
}

/// Spring Boot's health, for all groups.
pub(super) fn actuator(request: &Request) -> Option<Response> {
    let path = request.path().strip_prefix("/actuator/health")?;
    let known = ["", "/", "/liveness", "/readiness"].contains(&path);
    known.then(|| Response::json(200, &json!({"status": "UP"})))
}

pub(super) fn parts(request: &Request) -> Vec<&str> {
    request
        .path()
        .split('/')
        .filter(|part| !part.is_empty())
        .collect()
}

fn body(request: &Request) -> Result<Value, Failed> {
    serde_json::from_slice(&request.body).map_err(|error| format!("the body is no JSON: {error}"))
}

/// Keeps something, and forgets nothing for it: at the bound it is refused.
fn keep(kept: &Kept, id: &str, value: Value) -> Result<(), Failed> {
    let mut all = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if all.len() >= KEPT && !all.contains_key(id) {
        return Err(format!("{KEPT} are kept already"));
    }
    all.insert(id.to_owned(), value);
    Ok(())
}

fn kept(kept: &Kept, id: &str) -> Option<Value> {
    let all = kept.lock().unwrap_or_else(PoisonError::into_inner);
    all.get(id).cloned()
}

/// Runs as `carts`.
pub fn carts(_arguments: &[String]) -> u8 {
    let provider = variable("RETAIL_CART_PERSISTENCE_PROVIDER");
    let endpoint = first(&[
        "RETAIL_CART_PERSISTENCE_DYNAMODB_ENDPOINT",
        "CARTS_DYNAMODB_ENDPOINT",
    ]);
    let table = first(&[
        "RETAIL_CART_PERSISTENCE_DYNAMODB_TABLE_NAME",
        "CARTS_DYNAMODB_TABLENAME",
    ]);
    let dynamo = endpoint.filter(|_| provider.as_deref() != Some("in-memory"));
    let carts = Carts {
        dynamo,
        table: table.unwrap_or_else(|| "Items".into()),
        kept: Kept::default(),
    };
    start("carts", move |request| carts_answer(request, &carts))
}

struct Carts {
    dynamo: Option<String>,
    table: String,
    kept: Kept,
}

impl Carts {
    fn ask(&self, endpoint: &str, operation: &str, body: &Value) -> Result<Value, Failed> {
        let url = format!("{}/?Operation={operation}", endpoint.trim_end_matches('/'));
        let text = body.to_string();
        let kind = "application/x-amz-json-1.0";
        let answer = client::ask("POST", &url, Some((kind, text.as_bytes())), LIMIT);
        let answer = answer.map_err(|error| format!("{endpoint}: {error}"))?;
        match answer.status {
            200 => serde_json::from_slice(&answer.body).map_err(|error| error.to_string()),
            status => Err(format!("{endpoint} answers {status}")),
        }
    }

    fn items(&self, id: &str) -> Result<Vec<Value>, Failed> {
        let found = match &self.dynamo {
            None => kept(&self.kept, id),
            Some(endpoint) => {
                let body = json!({"TableName": self.table, "Key": {"id": {"S": id}}});
                let item = self.ask(endpoint, "GetItem", &body)?;
                let text = item["Item"]["items"]["S"]
                    .as_str()
                    .unwrap_or("[]")
                    .to_owned();
                serde_json::from_str(&text).ok()
            }
        };
        Ok(found
            .and_then(|value| value.as_array().cloned())
            .unwrap_or_default())
    }

    fn set(&self, id: &str, items: &[Value]) -> Result<(), Failed> {
        let Some(endpoint) = &self.dynamo else {
            return keep(&self.kept, id, json!(items));
        };
        let text = json!(items).to_string();
        let item = json!({"id": {"S": id}, "items": {"S": text}});
        self.ask(
            endpoint,
            "PutItem",
            &json!({"TableName": self.table, "Item": item}),
        )?;
        Ok(())
    }
}

fn carts_answer(request: &Request, carts: &Carts) -> Outcome {
    if let Some(health) = actuator(request) {
        return Ok(health);
    }
    let path = parts(request);
    Ok(match (request.method.as_str(), path.as_slice()) {
        ("GET", ["topology"]) => {
            let provider = if carts.dynamo.is_some() {
                "dynamodb"
            } else {
                "in-memory"
            };
            let endpoint = carts.dynamo.as_deref().unwrap_or("N/A");
            Response::json(
                200,
                &json!({"persistenceProvider": provider, "databaseEndpoint": endpoint}),
            )
        }
        ("GET", ["carts", id]) => {
            Response::json(200, &json!({"customerId": id, "items": carts.items(id)?}))
        }
        ("DELETE", ["carts", id]) => {
            carts.set(id, &[])?;
            Response::json(202, &json!({"customerId": id, "items": []}))
        }
        ("GET", ["carts", id, "items"]) => Response::json(200, &json!(carts.items(id)?)),
        ("POST", ["carts", id, "items"]) => {
            let item = body(request)?;
            let mut items = carts.items(id)?;
            if items.len() >= KEPT {
                return Err(format!("the cart has {KEPT} items already"));
            }
            items.retain(|other| other["itemId"] != item["itemId"]);
            items.push(item.clone());
            carts.set(id, &items)?;
            Response::json(201, &item)
        }
        _ => not_found(request),
    })
}

/// Runs as `orders`.
pub fn orders(_arguments: &[String]) -> u8 {
    let provider = variable("RETAIL_ORDERS_PERSISTENCE_PROVIDER");
    let postgres = variable("RETAIL_ORDERS_PERSISTENCE_ENDPOINT");
    let postgres = postgres.filter(|_| provider.as_deref() != Some("in-memory"));
    // Version 0: jdbc:mariadb://orders-mysql:3306/orders.
    let writer = variable("SPRING_DATASOURCE_WRITER_URL");
    let writer = writer
        .as_deref()
        .and_then(|text| text.split_once("://"))
        .map(|(_, rest)| {
            let (endpoint, name) = rest.split_once('/').unwrap_or((rest, "orders"));
            (
                endpoint.to_owned(),
                name.split('?').next().unwrap_or("orders").to_owned(),
            )
        });
    let mysql = writer.map(|(endpoint, name)| Database {
        endpoint,
        name,
        user: variable("SPRING_DATASOURCE_WRITER_USERNAME").unwrap_or_default(),
        password: variable("SPRING_DATASOURCE_WRITER_PASSWORD").unwrap_or_default(),
    });
    let orders = Orders {
        postgres,
        mysql,
        kept: Kept::default(),
    };
    start("orders", move |request| orders_answer(request, &orders))
}

struct Orders {
    postgres: Option<String>,
    mysql: Option<Database>,
    kept: Kept,
}

impl Orders {
    /// Goes to the database first: orders are there or nowhere.
    fn check(&self) -> Result<(), Failed> {
        if let Some(endpoint) = &self.postgres {
            crate::images::postgres::greet(endpoint, LIMIT)
                .map_err(|error| format!("{endpoint}: {error}"))?;
        }
        if let Some(database) = &self.mysql {
            database.connect()?;
        }
        Ok(())
    }
}

fn orders_answer(request: &Request, orders: &Orders) -> Outcome {
    if let Some(health) = actuator(request) {
        return Ok(health);
    }
    let path = parts(request);
    Ok(match (request.method.as_str(), path.as_slice()) {
        ("GET", ["topology"]) => {
            let mysql = orders
                .mysql
                .as_ref()
                .map(|database| database.endpoint.as_str());
            let (provider, endpoint) = match (orders.postgres.as_deref(), mysql) {
                (Some(endpoint), _) => ("postgres", endpoint),
                (None, Some(endpoint)) => ("mysql", endpoint),
                (None, None) => ("in-memory", "N/A"),
            };
            Response::json(
                200,
                &json!({"persistenceProvider": provider, "databaseEndpoint": endpoint}),
            )
        }
        ("GET", ["orders"]) => {
            orders.check()?;
            let all = orders.kept.lock().unwrap_or_else(PoisonError::into_inner);
            Response::json(200, &json!(all.values().collect::<Vec<_>>()))
        }
        ("POST", ["orders"]) => {
            let mut order = body(request)?;
            orders.check()?;
            let count = orders
                .kept
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .len();
            let id = format!("order-{:06}", count + 1);
            if let Some(fields) = order.as_object_mut() {
                fields.insert("id".into(), json!(id));
            }
            keep(&orders.kept, &id, order.clone())?;
            Response::json(200, &order)
        }
        _ => not_found(request),
    })
}

/// Runs as `checkout`.
pub fn checkout(_arguments: &[String]) -> u8 {
    let provider = variable("RETAIL_CHECKOUT_PERSISTENCE_PROVIDER");
    let redis = first(&["RETAIL_CHECKOUT_PERSISTENCE_REDIS_URL", "REDIS_URL"]);
    let checkouts = Checkouts {
        redis: redis.filter(|_| provider.as_deref() != Some("in-memory")),
        orders: first(&["RETAIL_CHECKOUT_ENDPOINTS_ORDERS", "ENDPOINTS_ORDERS"]),
        kept: Kept::default(),
    };
    start("checkout", move |request| {
        checkout_answer(request, &checkouts)
    })
}

struct Checkouts {
    redis: Option<String>,
    orders: Option<String>,
    kept: Kept,
}

impl Checkouts {
    fn ask(&self, endpoint: &str, command: &[&str]) -> Result<Option<String>, Failed> {
        redis::ask(endpoint, command, LIMIT).map_err(|error| format!("{endpoint}: {error}"))
    }

    fn get(&self, id: &str) -> Result<Option<Value>, Failed> {
        match &self.redis {
            None => Ok(kept(&self.kept, id)),
            Some(endpoint) => {
                let text = self.ask(endpoint, &["GET", id])?;
                Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
            }
        }
    }

    fn set(&self, id: &str, value: Value) -> Result<(), Failed> {
        match &self.redis {
            None => keep(&self.kept, id, value),
            Some(endpoint) => self
                .ask(endpoint, &["SET", id, &value.to_string()])
                .map(|_| ()),
        }
    }
}

fn checkout_answer(request: &Request, checkouts: &Checkouts) -> Outcome {
    let path = parts(request);
    Ok(match (request.method.as_str(), path.as_slice()) {
        ("GET", ["health"]) => {
            let up = json!({"chaos": {"status": "up"}});
            let body = json!({"status": "ok", "info": up, "error": {}, "details": up});
            Response::json(200, &body)
        }
        ("GET", ["topology"]) => {
            let provider = if checkouts.redis.is_some() {
                "redis"
            } else {
                "in-memory"
            };
            let endpoint = checkouts.redis.as_deref().unwrap_or("N/A");
            Response::json(
                200,
                &json!({"persistenceProvider": provider, "databaseEndpoint": endpoint}),
            )
        }
        ("GET", ["checkout", id]) => match checkouts.get(id)? {
            Some(found) => Response::json(200, &found),
            None => not_found(request),
        },
        ("POST", ["checkout", id, "update"]) => {
            let mut checkout = body(request)?;
            let cost = |item: &Value| {
                item["price"].as_f64().unwrap_or(0.0) * item["quantity"].as_f64().unwrap_or(0.0)
            };
            let subtotal: f64 = checkout["items"]
                .as_array()
                .into_iter()
                .flatten()
                .map(cost)
                .sum();
            if let Some(fields) = checkout.as_object_mut() {
                fields.insert("subtotal".into(), json!(subtotal));
                fields.insert("total".into(), json!(subtotal));
            }
            checkouts.set(id, checkout.clone())?;
            Response::json(201, &checkout)
        }
        ("POST", ["checkout", id, "submit"]) => {
            let Some(checkout) = checkouts.get(id)? else {
                return Err("Checkout not found".into());
            };
            let items = checkout["items"].clone();
            let order = json!({"shippingAddress": checkout["shippingAddress"], "items": items});
            let order = match &checkouts.orders {
                None => order,
                Some(endpoint) => fetch("POST", endpoint, "/orders", Some(&order))?,
            };
            Response::json(201, &json!({"orderId": order["id"], "items": items}))
        }
        _ => not_found(request),
    })
}

/// Asks another part; anything but success is a failure here.
fn fetch(method: &str, endpoint: &str, path: &str, body: Option<&Value>) -> Result<Value, Failed> {
    let url = format!("{}{path}", endpoint.trim_end_matches('/'));
    let text = body.map(ToString::to_string);
    let body = text
        .as_ref()
        .map(|text| ("application/json", text.as_bytes()));
    let answer =
        client::ask(method, &url, body, LIMIT).map_err(|error| format!("{url}: {error}"))?;
    match answer.status {
        200..=299 => Ok(serde_json::from_slice(&answer.body).unwrap_or_default()),
        status => Err(format!("{url} answers {status}")),
    }
}
