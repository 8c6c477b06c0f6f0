//! Headless Chromium, driven by W3C WebDriver (<https://www.w3.org/TR/webdriver2/>): JSON over HTTP to
//! Debian's chromedriver.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longer than anything here takes, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// The key that WebDriver's `actions` and `value` take for a name (WebDriver, 17.4.2).
pub fn key(name: &str) -> &str {
    match name {
        "Tab" => "\u{e004}",
        "Enter" => "\u{e007}",
        "Shift" => "\u{e008}",
        "Escape" => "\u{e00c}",
        "ArrowLeft" => "\u{e012}",
        "ArrowUp" => "\u{e013}",
        "ArrowRight" => "\u{e014}",
        "ArrowDown" => "\u{e015}",
        other => other,
    }
}

/// A browser with one window.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    profile: PathBuf,
}

impl Browser {
    pub fn start(width: u32, height: u32) -> Browser {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let port = port_of(&mut driver);
        let profile = std::env::temp_dir().join(format!("weir-ui-chromium-{}", std::process::id()));
        std::fs::create_dir_all(&profile).unwrap();
        let mut browser = Browser {
            driver,
            port,
            session: String::new(),
            profile,
        };
        let data = format!("--user-data-dir={}", browser.profile.display());
        let size = format!("--window-size={width},{height}");
        let options = json!({
            "args": ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                "--no-first-run", "--disable-background-networking", "--disable-component-update",
                "--disable-sync", data, size],
        });
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let begun = browser.request("POST", "/session", Some(&wanted));
        browser.session = begun["sessionId"].as_str().unwrap().to_owned();
        browser.resize(width, height);
        browser
    }

    fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let body = body.map_or(String::new(), Value::to_string);
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        )
        .unwrap();
        let (status, body) = read_answer(&mut BufReader::new(stream));
        assert!(status.contains(" 200 "), "{method} {path}: {body}");
        let mut answer: Value = serde_json::from_str(&body).unwrap();
        answer["value"].take()
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = (method == "POST").then_some(body);
        self.request(method, &format!("/session/{}{path}", self.session), body)
    }

    pub fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({"url": url}));
    }

    /// Runs a function's body in the page.
    pub fn run(&self, script: &str) -> Value {
        let script = json!({"script": script, "args": []});
        self.command("POST", "/execute/sync", &script)
    }

    /// Waits until an expression is true, or anything but false, null, 0 and "".
    pub fn wait(&self, what: &str, expression: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.run(&format!("return ({expression}) || null"));
            if !found.is_null() {
                return found;
            }
            assert!(Instant::now() < deadline, "{what}: {expression}");
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    fn element(&self, selector: &str) -> String {
        let wanted = json!({"using": "css selector", "value": selector});
        let found = self.command("POST", "/element", &wanted);
        let (_, reference) = found.as_object().unwrap().iter().next().unwrap();
        reference.as_str().unwrap().to_owned()
    }

    /// A click of the mouse, where the element is.
    pub fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.command("POST", &format!("/element/{element}/click"), &json!({}));
    }

    /// Types into a field, in place of what is there.
    pub fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.command("POST", &format!("/element/{element}/clear"), &json!({}));
        let text = json!({"text": text});
        self.command("POST", &format!("/element/{element}/value"), &text);
    }

    /// Presses keys one after the other, whatever has the focus.
    pub fn press(&self, names: &[&str]) {
        let stroke = |name: &&str| {
            ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key(name)}))
        };
        let strokes: Vec<Value> = names.iter().flat_map(stroke).collect();
        let actions = json!({"actions": [{"type": "key", "id": "keys", "actions": strokes}]});
        self.command("POST", "/actions", &actions);
    }

    pub fn protocol(&self, command: &str, params: &Value) {
        let command = json!({"cmd": command, "params": params});
        self.command("POST", "/goog/cdp/execute", &command);
    }

    pub fn resize(&self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.protocol("Emulation.setDeviceMetricsOverride", &size);
    }

    /// What the system is said to prefer, `light` or `dark`.
    pub fn prefer(&self, scheme: &str) {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.protocol("Emulation.setEmulatedMedia", &media);
    }

    pub fn picture(&self, file: &Path) {
        let picture = self.command("GET", "/screenshot", &Value::Null);
        let mut decoder = Command::new("base64")
            .arg("-d")
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(file).unwrap())
            .spawn()
            .unwrap();
        let text = picture.as_str().unwrap().as_bytes();
        decoder.stdin.take().unwrap().write_all(text).unwrap();
        assert!(decoder.wait().unwrap().success());
    }

    /// Errors that the page has told its console since the last time.
    pub fn errors(&self) -> Vec<String> {
        let told = self.command("POST", "/se/log", &json!({"type": "browser"}));
        let bad = |entry: &&Value| entry["level"] == "SEVERE";
        let entries = told.as_array().unwrap().iter().filter(bad);
        entries.map(|entry| entry["message"].to_string()).collect()
    }

    /// The addresses that have been asked for since the last time.
    pub fn requested(&self) -> Vec<String> {
        let told = self.command("POST", "/se/log", &json!({"type": "performance"}));
        let messages = told.as_array().unwrap().iter();
        messages
            .filter_map(|entry| {
                let message: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
                let message = &message["message"];
                (message["method"] == "Network.requestWillBeSent").then(|| {
                    message["params"]["request"]["url"]
                        .as_str()
                        .map(str::to_owned)
                })?
            })
            .collect()
    }
}

/// The status line and the body, which is as long as the head says: the driver keeps connections open.
fn read_answer(reader: &mut impl BufRead) -> (String, String) {
    let mut status = String::new();
    reader.read_line(&mut status).unwrap();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (status, String::from_utf8(body).unwrap())
}

/// The port that the driver says it has.
fn port_of(driver: &mut Child) -> u16 {
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let line = lines.find_map(|line| {
        let line = line.ok()?;
        line.contains("started successfully on port")
            .then_some(line)
    });
    // Whatever it says later has to go somewhere.
    std::thread::spawn(move || lines.for_each(drop));
    let line = line.expect("chromedriver starts");
    let port = line.rsplit(' ').next().unwrap().trim_end_matches('.');
    port.parse().unwrap_or_else(|_| panic!("{line:?}"))
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let quit = std::panic::AssertUnwindSafe(|| self.command("DELETE", "", &Value::Null));
            let _ = std::panic::catch_unwind(quit);
        } else {
            // A browser that was started and not heard of ends with its driver, if that is told.
            let shutdown = || self.request("GET", "/shutdown", None);
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(shutdown));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}
