//! Servers that stand in for whole images. Each serves HTTP within the bounds of
//! [`super::http::server`] unless it says its own.

pub mod agnhost;
pub mod dynamodb;
pub mod flaskback;
pub mod http_echo;
pub mod plain;
mod products;
pub mod retail;
pub mod retail_catalog;
pub mod retail_ui;
pub mod star;

use super::http::server::{Answer, listen, serve};

/// Serves on a port for good; an exit status if that fails.
fn run(name: &str, port: u16, answer: &Answer) -> u8 {
    match listen(port) {
        Ok(listener) => {
            serve(&listener, answer);
            0
        }
        Err(error) => {
            eprintln!("{name}: {error}");
            1
        }
    }
}

/// An environment variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// A port from the environment, or else the usual one.
fn port(name: &str, usual: u16) -> Result<u16, String> {
    match variable(name) {
        None => Ok(usual),
        Some(text) => text
            .parse()
            .map_err(|_| format!("{name}={text} is no port number")),
    }
}
