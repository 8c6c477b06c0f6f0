//! Stands in for `pnivaggi/flaskback`: `/blogs` is what the database says.
//!
//! Each request logs in to `$MYSQL_SERVICE_HOST:$MYSQL_SERVICE_PORT` as root with
//! `$MYSQL_ROOT_PWD` and reads the table `blogs` of `$MYSQL_DEFAULT_DB`, which it makes and fills
//! where it is missing, as the tutorial's database has it. Whatever fails is a 500.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value as Json, json};

use super::{port, run, variable};
use crate::images::http::common_log_date;
use crate::images::http::server::{Answer, Request, Response};
use crate::images::mysql::client::{Client, ClientError};
use crate::images::resolve;

/// How long the database may take for each step.
const LIMIT: Duration = Duration::from_secs(3);

const BLOGS: [(&str, &str); 2] = [
    ("K8s is fun", "K8s allows to orchestrate application"),
    (
        "Network Policy",
        "it provides network security using selector/label",
    ),
];

/// Where the database is.
#[derive(Clone, Debug)]
struct Database {
    host: String,
    port: u16,
    name: String,
    password: String,
}

/// Runs it.
pub fn main(_arguments: &[String]) -> u8 {
    let number = match port("MYSQL_SERVICE_PORT", 3306) {
        Ok(number) => number,
        Err(wrong) => {
            eprintln!("flaskback: {wrong}");
            return 1;
        }
    };
    let database = Database {
        host: variable("MYSQL_SERVICE_HOST").unwrap_or_else(|| "mysql".into()),
        port: number,
        name: variable("MYSQL_DEFAULT_DB").unwrap_or_else(|| "mydb".into()),
        password: variable("MYSQL_ROOT_PWD").unwrap_or_default(),
    };
    println!(" * Running on http://0.0.0.0:5000/ (Press CTRL+C to quit)");
    run("flaskback", 5000, &answer(database))
}

fn answer(database: Database) -> Answer {
    Arc::new(move |request: &Request| {
        let response = match (request.method.as_str(), request.path()) {
            ("GET" | "HEAD", "/blogs") => match blogs(&database) {
                Ok(rows) => {
                    let text = format!("{}\n", Json::from(rows));
                    Response::new(200, "application/json", text)
                }
                Err(why) => {
                    println!("ERROR in app: Exception on /blogs [GET]: {why}");
                    page(
                        500,
                        "Internal Server Error",
                        "The server encountered an internal error and was unable to complete \
                         your request. Either the server is overloaded or there is an error in \
                         the application.",
                    )
                }
            },
            (_, "/blogs") => page(
                405,
                "Method Not Allowed",
                "The method is not allowed for the requested URL.",
            ),
            _ => page(
                404,
                "Not Found",
                "The requested URL was not found on the server. If you entered the URL manually \
                 please check your spelling and try again.",
            ),
        };
        println!(
            "{} - - [{}] \"{} {} {}\" {} -",
            request.peer.ip().to_canonical(),
            common_log_date(SystemTime::now()),
            request.method,
            request.target,
            request.version,
            response.status
        );
        response
    })
}

/// As Flask's error pages are.
fn page(status: u16, title: &str, text: &str) -> Response {
    let body = format!(
        "<!doctype html>\n<html lang=en>\n<title>{status} {title}</title>\n<h1>{title}</h1>\n\
         <p>{text}</p>\n"
    );
    Response::new(status, "text/html; charset=utf-8", body)
}

fn blogs(database: &Database) -> Result<Vec<Json>, String> {
    let text = |error: ClientError| error.to_string();
    let address = resolve::address(&database.host, database.port);
    let address = address.map_err(|bad| bad.to_string())?;
    let mut client = Client::connect(address, "root", &database.password, LIMIT).map_err(text)?;
    let name = &database.name;
    let select = format!("SELECT title, content FROM `{name}`.blogs ORDER BY id");
    let rows = match client.query(&select) {
        // No such database, no such table.
        Err(ClientError::Refused {
            number: 1049 | 1146,
            ..
        }) => {
            fill(&mut client, name).map_err(text)?;
            client.query(&select)
        }
        answer => answer,
    };
    let rows = rows.map_err(text)?;
    Ok(rows.into_iter().map(|row| json!(row)).collect())
}

fn fill(client: &mut Client, name: &str) -> Result<(), ClientError> {
    client.query(&format!("CREATE DATABASE IF NOT EXISTS `{name}`"))?;
    client.query(&format!(
        "CREATE TABLE `{name}`.blogs (id INT NOT NULL AUTO_INCREMENT, title VARCHAR(255), \
         content TEXT, PRIMARY KEY (id))"
    ))?;
    for (title, content) in BLOGS {
        client.query(&format!(
            "INSERT INTO `{name}`.blogs (title, content) VALUES ('{title}', '{content}')"
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::http::server::tests::served;
    use crate::images::mysql::{CACHING_SHA2, server};

    fn database(password: &str) -> Database {
        let address = server::tests::started("8.4.3", CACHING_SHA2);
        Database {
            host: "127.0.0.1".into(),
            port: address.port(),
            name: "mydb".into(),
            password: password.into(),
        }
    }

    #[test]
    fn the_rows_are_the_tutorials_while_the_database_answers() {
        let expected = "[[\"K8s is fun\",\"K8s allows to orchestrate application\"],\
                        [\"Network Policy\",\"it provides network security using selector/label\"]]\n";
        let answer = answer(database("password"));
        for _ in 0..2 {
            let text = served(answer.clone(), b"GET /blogs HTTP/1.1\r\n\r\n");
            assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
            assert!(text.ends_with(expected), "{text}");
        }
        let text = served(answer, b"GET / HTTP/1.1\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 404 "), "{text}");
    }

    #[test]
    fn without_the_database_it_is_an_internal_error() {
        let mut gone = database("password");
        gone.port = 1;
        for database in [gone, database("wrong")] {
            let text = served(answer(database), b"GET /blogs HTTP/1.1\r\n\r\n");
            assert!(
                text.starts_with("HTTP/1.1 500 Internal Server Error\r\n"),
                "{text}"
            );
        }
    }
}
