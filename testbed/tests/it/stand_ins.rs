//! Stand-ins beside their originals and their originals' clients, on the loopback interface. What
//! is not installed is not compared, and says so.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use testbed::images::http::server::{self, Response};

const APPLETS: &str = env!("CARGO_BIN_EXE_weir-applets");

/// A server that ends with its test.
struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Starts an applet with a free port and waits until it listens.
fn start(
    applet: &str,
    arguments: impl Fn(u16) -> Vec<String>,
    environment: &[(&str, &str)],
) -> Server {
    let port = free_port();
    let child = Command::new(APPLETS)
        .arg(applet)
        .args(arguments(port))
        .envs(environment.iter().copied())
        .env("PORT", port.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server { child, port };
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "{applet} does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    server
}

/// Whether a program is there; otherwise the test is skipped, and says so.
fn installed(program: &str) -> bool {
    let there = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status()
        .unwrap()
        .success();
    if !there {
        eprintln!("skipped: {program} is not installed");
    }
    there
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("weir-it-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// What busybox 1.27 did not say and later ones do.
fn is_new(line: &str) -> bool {
    line.starts_with("saving to '")
        || line.ends_with("' saved")
        || line == "written to stdout"
        || line == "writing to stdout"
}

#[test]
fn wget_says_what_busyboxs_says() {
    if !installed("busybox") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer: server::Answer = Arc::new(|request| match request.path() {
        "/there" => Response::text(200, request.body.clone()),
        "/away" => {
            let mut away = Response::text(302, "");
            away.headers.add_missing("Location", "/there");
            away
        }
        _ => Response::text(404, "no\n"),
    });
    std::thread::spawn(move || server::serve(&listener, &answer));
    let folder = folder("wget");
    let closed = free_port();
    for arguments in [
        vec![
            "-S",
            "http://127.0.0.1:PORT/there",
            "--post-data",
            "hello",
            "-O",
            "test",
        ],
        vec!["http://127.0.0.1:PORT/nothing"],
        vec!["http://127.0.0.1:CLOSED/"],
        vec!["-qO-", "--post-data", "words", "127.0.0.1:PORT/away"],
        vec!["http://no-such-host.invalid/x"],
        vec!["-q", "--spider", "http://127.0.0.1:PORT/there"],
    ] {
        let arguments: Vec<String> = arguments
            .iter()
            .map(|word| word.replace("PORT", &port.to_string()))
            .map(|word| word.replace("CLOSED", &closed.to_string()))
            .collect();
        let run = |program: &str| {
            let output = Command::new(program)
                .arg("wget")
                .args(&arguments)
                .current_dir(&folder)
                .output()
                .unwrap();
            let said = text(&output);
            let lines = said
                .lines()
                .filter(|line| !is_new(line) && !line.contains("Date: "));
            // Later ones put the remaining time one column to the left.
            let lines: Vec<String> = lines
                .map(|line| line.replace("   0:00:00", "  0:00:00"))
                .collect();
            (output.status.code(), lines)
        };
        assert_eq!(run(APPLETS), run("busybox"), "{arguments:?}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn mariadbs_client_logs_in_and_asks() {
    if !installed("mariadb") {
        return;
    }
    let environment = [
        ("MYSQL_ROOT_PASSWORD", "password"),
        ("MYSQL_DATABASE", "mydb"),
    ];
    for applet in ["mysqld", "mariadbd"] {
        let server = start(applet, |port| vec![format!("--port={port}")], &environment);
        let ask = |password: &str, statements: &str| {
            let output = Command::new("mariadb")
                .args(["--no-defaults", "-h", "127.0.0.1", "-uroot", "-N", "-P"])
                .args([&server.port.to_string(), password, "mydb", "-e", statements])
                .output()
                .unwrap();
            text(&output)
        };
        let said = ask(
            "-ppassword",
            "CREATE TABLE blogs (id INT AUTO_INCREMENT, title TEXT); INSERT INTO blogs (title) \
             VALUES ('a'), (NULL); SELECT * FROM blogs; SHOW TABLES",
        );
        assert_eq!(said, "1\ta\n2\tNULL\nblogs\n", "{applet}");
        let refused = ask("-pwrong", "SELECT 1");
        let expected =
            "ERROR 1045 (28000): Access denied for user 'root'@'127.0.0.1' (using password: YES)\n";
        assert_eq!(refused, expected, "{applet}");
    }
}

#[test]
fn mysql_ends_who_does_not_log_in_after_ten_seconds() {
    let server = start("mysqld", |port| vec![format!("--port={port}")], &[]);
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let begun = Instant::now();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    assert!(
        said[4] == 10 && said.ends_with(b"caching_sha2_password\0"),
        "{said:?}"
    );
    let took = begun.elapsed().as_secs_f64();
    assert!((9.5..20.0).contains(&took), "{took}");
}

#[test]
fn psql_logs_in_and_asks() {
    if !installed("psql") {
        return;
    }
    let port_of = |port: u16| vec!["-p".to_owned(), port.to_string()];
    let server = start("postgres", port_of, &[("POSTGRES_PASSWORD", "secret")]);
    let ask = |password: &str| {
        let output = Command::new("psql")
            .env("PGPASSWORD", password)
            .args([
                "-h",
                "127.0.0.1",
                "-U",
                "postgres",
                "-At",
                "-p",
                &server.port.to_string(),
            ])
            .args([
                "-c",
                "CREATE TABLE t (a text)",
                "-c",
                "INSERT INTO t VALUES ('x')",
            ])
            .args(["-c", "SELECT a, 1 FROM t"])
            .output()
            .unwrap();
        text(&output)
    };
    assert_eq!(ask("secret"), "CREATE TABLE\nINSERT 0 1\nx|1\n");
    assert!(ask("wrong").contains("password authentication failed for user \"postgres\""));
}

/// Headless Chromium draws the page as it is without any network but this machine's.
#[test]
fn the_stars_page_draws_whom_the_collector_reaches() {
    if !installed("chromium") {
        return;
    }
    let port_of = |port: u16| vec![format!("--http-port={port}")];
    let probe = start(
        "probe",
        |port| {
            let own = format!("--urls=http://127.0.0.1:{port}/status,http://127.0.0.1:1/status");
            [port_of(port), vec![own]].concat()
        },
        &[],
    );
    let folder = folder("stars");
    let resources = folder.join("probes.json");
    let own = format!("http://127.0.0.1:{}/status", probe.port);
    let list = format!(
        "[{{\"id\": \"F\", \"url\": \"{own}\"}}, {{\"id\": \"B\", \"url\": \"http://127.0.0.1:1/status\"}}]"
    );
    std::fs::write(&resources, list).unwrap();
    let collect = start(
        "collect",
        |port| {
            [
                port_of(port),
                vec![format!("--resources-file={}", resources.display())],
            ]
            .concat()
        },
        &[],
    );
    let deadline = Instant::now() + Duration::from_secs(60);
    let drawn = loop {
        let output = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--virtual-time-budget=2500",
            ])
            .arg(format!(
                "--user-data-dir={}",
                folder.join("profile").display()
            ))
            .args(["--dump-dom", &format!("http://127.0.0.1:{}/", collect.port)])
            .output()
            .unwrap();
        let drawn = String::from_utf8_lossy(&output.stdout).into_owned();
        if drawn.contains("F answers, B not") || Instant::now() > deadline {
            break drawn;
        }
    };
    assert!(drawn.contains("F answers, B not"), "{drawn}");
    assert_eq!(drawn.matches("<g class=\"node\"").count(), 1, "{drawn}");
    std::fs::remove_dir_all(folder).unwrap();
}
