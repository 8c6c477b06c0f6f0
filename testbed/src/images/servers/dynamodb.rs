//! Stands in for `amazon/dynamodb-local`: puts, gets and deletes items by their first key. Bounds:
//! [`ITEMS`] items, a request as HTTP has it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::run;
use crate::images::http::server::{Answer, Request, Response};

/// Items of all tables.
const ITEMS: usize = 10_000;
const PORT: u16 = 8000;

type Items = Mutex<BTreeMap<(String, String), Value>>;

/// Runs it.
pub fn main(_arguments: &[String]) -> u8 {
    println!("Initializing DynamoDB Local with the following configuration:\nPort:\t{PORT}");
    let items = Items::default();
    let answer: Answer = Arc::new(move |request| answer(request, &items));
    run("dynamodb-local", PORT, &answer)
}

fn refused(kind: &str, message: &str) -> Response {
    let kind = format!("com.amazonaws.dynamodb.v20120810#{kind}");
    let body = json!({"__type": kind, "message": message});
    Response::new(400, "application/x-amz-json-1.0", body.to_string())
}

fn answer(request: &Request, items: &Items) -> Response {
    let target = request
        .headers
        .get("X-Amz-Target")
        .and_then(|target| target.split('.').nth(1));
    let operation = target
        .map(str::to_owned)
        .or_else(|| request.parameter("Operation"));
    let Some(operation) = operation else {
        let message = "Request must contain either a valid (registered) AWS access key ID or X.509 \
                       certificate.";
        return refused("MissingAuthenticationToken", message);
    };
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        return refused("SerializationException", "The body is no JSON.");
    };
    let table = body["TableName"].as_str().unwrap_or_default().to_owned();
    let key = |fields: &Value| {
        let fields = fields.as_object()?;
        let first = fields.get("id").or_else(|| fields.values().next())?;
        Some((table.clone(), first.to_string()))
    };
    let mut all = items.lock().unwrap_or_else(PoisonError::into_inner);
    let done = match (operation.as_str(), key(&body["Item"]), key(&body["Key"])) {
        ("PutItem", Some(key), _) => {
            if all.len() >= ITEMS && !all.contains_key(&key) {
                let message = format!("This stand-in keeps at most {ITEMS} items.");
                return refused("LimitExceededException", &message);
            }
            all.insert(key, body["Item"].clone());
            json!({})
        }
        ("GetItem", _, Some(key)) => match all.get(&key) {
            Some(item) => json!({"Item": item}),
            None => json!({}),
        },
        ("DeleteItem", _, Some(key)) => {
            all.remove(&key);
            json!({})
        }
        ("ListTables", ..) => {
            let mut names: Vec<&String> = all.keys().map(|(table, _)| table).collect();
            names.dedup();
            json!({"TableNames": names})
        }
        ("CreateTable" | "DescribeTable", ..) => {
            json!({"Table": {"TableName": table, "TableStatus": "ACTIVE"}})
        }
        _ => {
            return refused(
                "UnknownOperationException",
                "This stand-in does not do that.",
            );
        }
    };
    Response::new(200, "application/x-amz-json-1.0", done.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::http::server::tests::served;

    #[test]
    fn items_come_back_and_strangers_are_told_off() {
        let items = Items::default();
        let answer: Answer = Arc::new(move |request| answer(request, &items));
        let ask = |operation: &str, body: &str| {
            let text = format!(
                "POST / HTTP/1.1\r\nX-Amz-Target: DynamoDB_20120810.{operation}\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let said = served(answer.clone(), text.as_bytes());
            said.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned()
        };
        let put = r#"{"TableName":"t","Item":{"id":{"S":"1"},"a":{"S":"x"}}}"#;
        assert_eq!(ask("PutItem", put), "{}");
        let key = r#"{"TableName":"t","Key":{"id":{"S":"1"}}}"#;
        assert_eq!(
            ask("GetItem", key),
            r#"{"Item":{"id":{"S":"1"},"a":{"S":"x"}}}"#
        );
        assert_eq!(ask("DeleteItem", key), "{}");
        assert_eq!(ask("GetItem", key), "{}");
        assert!(ask("Scan", "{}").contains("UnknownOperation"));
        let said = served(answer.clone(), b"GET / HTTP/1.1\r\n\r\n");
        assert!(said.contains("MissingAuthenticationToken"), "{said}");
    }
}
