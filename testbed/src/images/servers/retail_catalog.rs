//! The shop's `catalog`, and how its parts reach a MySQL database.

use serde_json::{Value, json};

use super::products::PRODUCTS;
use super::retail::{Failed, LIMIT, Outcome, first, not_found, parts, start};
use super::variable;
use crate::images::http::server::{Request, Response};
use crate::images::mysql::client::{Client, ClientError};
use crate::images::resolve;

/// A MySQL database from the environment.
#[derive(Clone, Debug)]
pub(super) struct Database {
    pub endpoint: String,
    pub name: String,
    pub user: String,
    pub password: String,
}

impl Database {
    pub fn connect(&self) -> Result<Client, Failed> {
        let address = resolve::address(&self.endpoint, 3306).map_err(|bad| bad.to_string())?;
        let text = |error: ClientError| format!("{}: {error}", self.endpoint);
        let mut client =
            Client::connect(address, &self.user, &self.password, LIMIT).map_err(text)?;
        client
            .query(&format!("USE `{}`", self.name))
            .map_err(text)?;
        Ok(client)
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Runs as `catalog`.
pub fn catalog(_arguments: &[String]) -> u8 {
    let in_memory = variable("RETAIL_CATALOG_PERSISTENCE_PROVIDER").as_deref() == Some("in-memory");
    let endpoint = first(&["RETAIL_CATALOG_PERSISTENCE_ENDPOINT", "DB_ENDPOINT"]);
    let database = endpoint.filter(|_| !in_memory).map(|endpoint| Database {
        endpoint,
        name: first(&["RETAIL_CATALOG_PERSISTENCE_DB_NAME", "DB_NAME"])
            .unwrap_or_else(|| "catalogdb".into()),
        user: first(&["RETAIL_CATALOG_PERSISTENCE_USER", "DB_USER"])
            .unwrap_or_else(|| "catalog_user".into()),
        password: first(&["RETAIL_CATALOG_PERSISTENCE_PASSWORD", "DB_PASSWORD"])
            .unwrap_or_default(),
    });
    start("catalog", move |request| {
        catalog_answer(request, database.as_ref())
    })
}

fn catalog_answer(request: &Request, database: Option<&Database>) -> Outcome {
    let path = parts(request);
    let known = match path.as_slice() {
        ["health"] => return Ok(Response::text(200, "OK")),
        ["topology"] => {
            let provider = if database.is_some() {
                "mysql"
            } else {
                "in-memory"
            };
            let endpoint = database.map_or("N/A", |database| &database.endpoint);
            let body = json!({"persistenceProvider": provider, "databaseEndpoint": endpoint});
            return Ok(Response::json(200, &body));
        }
        ["catalog", "products"] | ["catalogue"] => None,
        ["catalog", "size"] | ["catalogue", "size"] => Some("size"),
        ["catalog", "tags"] | ["catalogue", "tags"] => Some("tags"),
        ["catalog", "products", id] | ["catalogue", "product", id] => Some(*id),
        _ => return Ok(not_found(request)),
    };
    let products = products(database)?;
    Ok(match known {
        None => Response::json(200, &json!(products)),
        Some("size") => Response::json(200, &json!({"size": products.len()})),
        Some("tags") => {
            let mut tags: Vec<&str> = products
                .iter()
                .filter_map(|p| p["tags"][0].as_str())
                .collect();
            tags.sort_unstable();
            tags.dedup();
            let tags: Vec<Value> = tags.iter().map(|tag| json!({"name": tag})).collect();
            Response::json(200, &json!(tags))
        }
        Some(id) => match products.iter().find(|product| product["id"] == id) {
            Some(product) => Response::json(200, product),
            None => not_found(request),
        },
    })
}

fn product(id: &str, name: &str, description: &str, price: &str, tag: &str) -> Value {
    let price: u32 = price.parse().unwrap_or_default();
    json!({"id": id, "name": name, "description": description, "price": price, "tags": [tag]})
}

fn products(database: Option<&Database>) -> Result<Vec<Value>, Failed> {
    let Some(database) = database else {
        let all = PRODUCTS.iter();
        return Ok(all
            .map(|[id, name, text, price, tag]| product(id, name, text, price, tag))
            .collect());
    };
    let text = |error: ClientError| format!("{}: {error}", database.endpoint);
    let mut client = database.connect()?;
    let select = "SELECT id, name, description, price, tag FROM products ORDER BY name";
    let rows = match client.query(select) {
        Err(ClientError::Refused { number: 1146, .. }) => {
            client
                .query(
                    "CREATE TABLE IF NOT EXISTS products (id VARCHAR(40), name VARCHAR(80), \
                     description TEXT, price INT, tag VARCHAR(40))",
                )
                .map_err(text)?;
            let rows: Vec<String> = PRODUCTS
                .iter()
                .map(|row| format!("({})", row.map(quoted).join(", ")))
                .collect();
            let insert = format!("INSERT INTO products VALUES {}", rows.join(", "));
            client.query(&insert).map_err(text)?;
            client.query(select)
        }
        answer => answer,
    };
    let products = rows.map_err(text)?.into_iter().map(|row| {
        let cell = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        product(&cell(0), &cell(1), &cell(2), &cell(3), &cell(4))
    });
    Ok(products.collect())
}
