//! Small servers whose originals say one thing: web servers with their first page, hello-app,
//! hashicorp's http-echo, and the pod that pauses.

use std::path::{Component, Path};
use std::sync::Arc;

use super::{port, run};
use crate::images::http::server::{Answer, Request, Response};

/// A file that a web server serves, at most.
const FILE_BYTES: u64 = 16 << 20;

/// A web server: its folder, its first page where the folder has none, its name.
#[derive(Clone, Copy)]
struct Site {
    folder: &'static str,
    first: &'static str,
    name: &'static str,
}

const NGINX: Site = Site {
    folder: "/usr/share/nginx/html",
    first: "<!DOCTYPE html>\n<html>\n<head>\n<title>Welcome to nginx!</title>\n</head>\n<body>\n\
            <h1>Welcome to nginx!</h1>\n<p>A lab's stand-in says so.</p>\n\
            <p><em>Thank you for using nginx.</em></p>\n</body>\n</html>\n",
    name: "nginx/1.27.3",
};
const APACHE: Site = Site {
    folder: "/usr/local/apache2/htdocs",
    first: "<html><body><h1>It works!</h1></body></html>\n",
    name: "Apache/2.4.62 (Unix)",
};

/// Runs as `nginx`.
pub fn nginx(_arguments: &[String]) -> u8 {
    run("nginx", 80, &answer(NGINX))
}

/// Runs as `httpd`.
pub fn httpd(_arguments: &[String]) -> u8 {
    run("httpd", 80, &answer(APACHE))
}

fn answer(site: Site) -> Answer {
    Arc::new(move |request: &Request| {
        let mut response = site.serve(request);
        response
            .headers
            .0
            .insert(0, ("Server".into(), site.name.into()));
        println!("{}", request.log_line(&response));
        response
    })
}

impl Site {
    fn serve(&self, request: &Request) -> Response {
        if !["GET", "HEAD"].contains(&request.method.as_str()) {
            return self.error(405, "Not Allowed");
        }
        let path = request.path().trim_start_matches('/');
        // Nothing leads out of the folder.
        let plain = |part| matches!(part, Component::Normal(_));
        if !Path::new(path).components().all(plain) {
            return self.error(404, "Not Found");
        }
        let mut file = Path::new(self.folder).join(path);
        if file.is_dir() {
            file.push("index.html");
        }
        let found = std::fs::metadata(&file)
            .ok()
            .filter(std::fs::Metadata::is_file);
        if found.is_some_and(|found| found.len() <= FILE_BYTES)
            && let Ok(bytes) = std::fs::read(&file)
        {
            let kind = match file.extension().and_then(|extension| extension.to_str()) {
                Some("html" | "htm") => "text/html",
                Some("css") => "text/css",
                Some("js") => "application/javascript",
                Some("json") => "application/json",
                Some("txt") => "text/plain",
                _ => "application/octet-stream",
            };
            return Response::new(200, kind, bytes);
        }
        match path {
            "" | "index.html" => Response::new(200, "text/html", self.first),
            _ => self.error(404, "Not Found"),
        }
    }

    fn error(&self, status: u16, words: &str) -> Response {
        let body = format!(
            "<html>\n<head><title>{status} {words}</title></head>\n<body>\n\
             <center><h1>{status} {words}</h1></center>\n<hr><center>{}</center>\n</body>\n</html>\n",
            self.name
        );
        Response::new(status, "text/html", body)
    }
}

/// This pod's name.
pub fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Runs as `hello-app`.
pub fn hello_app(_arguments: &[String]) -> u8 {
    match port("PORT", 8080) {
        Ok(number) => run("hello-app", number, &hello()),
        Err(wrong) => {
            eprintln!("hello-app: {wrong}");
            1
        }
    }
}

fn hello() -> Answer {
    Arc::new(|request: &Request| {
        println!("Serving request: {}", request.path());
        let text = format!("Hello, world!\nVersion: 1.0.0\nHostname: {}\n", hostname());
        Response::text(200, text)
    })
}

/// Runs as hashicorp's `http-echo`: `-text=WORDS`, `-listen=:PORT`.
pub fn text_echo(arguments: &[String]) -> u8 {
    let option = |name: &str| {
        let mut words = arguments.iter().map(|word| word.trim_start_matches('-'));
        while let Some(word) = words.next() {
            if word == name {
                return words.next().map(str::to_owned);
            }
            if let Some(value) = word
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('='))
            {
                return Some(value.to_owned());
            }
        }
        None
    };
    let text = option("text").or_else(|| std::env::var("ECHO_TEXT").ok());
    let Some(text) = text else {
        eprintln!("Missing -text option!");
        return 127;
    };
    let listen = option("listen").unwrap_or_else(|| ":5678".into());
    let Some(number) = listen.rsplit(':').next().and_then(|port| port.parse().ok()) else {
        eprintln!("-listen={listen} names no port");
        return 127;
    };
    let answer: Answer = Arc::new(move |request: &Request| {
        let mut response = Response::text(200, format!("{text}\n"));
        response.headers.add_missing("X-App-Name", "http-echo");
        println!("{}", request.log_line(&response));
        response
    });
    run("http-echo", number, &answer)
}

/// Runs as `pause`, until a signal ends it.
pub fn pause(_arguments: &[String]) -> u8 {
    let signals = [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM];
    if let Ok(mut signals) = signal_hook::iterator::Signals::new(signals) {
        // Process 1 ends by no signal that it does not ask for.
        let _first = signals.forever().next();
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::http::server::tests::served;

    #[test]
    fn web_servers_have_their_first_page_and_no_other() {
        let site = Site {
            folder: "/no/such/folder",
            ..NGINX
        };
        let ask = |path: &str| {
            served(
                answer(site),
                format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes(),
            )
        };
        assert!(ask("/").contains("Welcome to nginx!"));
        assert!(ask("/").starts_with("HTTP/1.1 200 OK\r\nServer: nginx/"));
        assert!(ask("/health").starts_with("HTTP/1.1 404 "));
        for outside in ["/../../etc/passwd", "//etc/passwd/../passwd"] {
            assert!(ask(outside).starts_with("HTTP/1.1 404 "), "{outside}");
        }
        let etc = Site {
            folder: "/etc",
            ..APACHE
        };
        let text = served(answer(etc), b"GET /passwd HTTP/1.0\r\n\r\n");
        assert!(text.contains("root:"), "{text}");
    }

    #[test]
    fn hello_names_its_pod() {
        let text = served(hello(), b"GET / HTTP/1.0\r\n\r\n");
        let expected = format!(
            "\r\n\r\nHello, world!\nVersion: 1.0.0\nHostname: {}\n",
            hostname()
        );
        assert!(text.ends_with(&expected), "{text}");
    }
}
