//! `wget` in busybox's words, as tutorials show them (busybox 1.27): without the lines
//! "saving to" and "saved" of later ones.
//!
//! HTTP only: `https` needs TLS, which no stand-in has, and says so. Bounds: a line of a head
//! 8 KiB, a head 256 lines, 16 redirections. A body goes to the file as it comes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::SocketType;

use super::progress::Progress;
use super::wget_words::{Head, SYNTAX, USAGE};
use crate::images::errors::strerror;
use crate::images::options::Argument;
use crate::images::url::Url;
use crate::images::{resolve, sockets};

/// Time-out of connecting and of a silent peer without `-T`.
const TIMEOUT: Duration = Duration::from_secs(900);
const REDIRECTIONS: usize = 16;
const LINE_BYTES: u64 = 8 << 10;
const HEAD_LINES: usize = 256;

#[derive(Debug, Default)]
struct Plan {
    resume: bool,
    quiet: bool,
    show_response: bool,
    output: Option<String>,
    folder: Option<String>,
    no_proxy: bool,
    agent: Option<String>,
    timeout: Option<Duration>,
    headers: Vec<String>,
    body: Option<Vec<u8>>,
    spider: bool,
    log: Option<File>,
    urls: Vec<String>,
}

/// Runs it.
pub fn main(arguments: &[String]) -> u8 {
    let plan = match Plan::read(arguments) {
        Ok(plan) => plan,
        Err(wrong) => {
            eprintln!("wget: {wrong}\n{USAGE}");
            return 1;
        }
    };
    for url in &plan.urls {
        if let Err(message) = plan.retrieve(url) {
            plan.tell(&format!("wget: {message}\n"));
            return 1;
        }
    }
    0
}

impl Plan {
    fn read(arguments: &[String]) -> Result<Plan, String> {
        let mut plan = Plan::default();
        for argument in SYNTAX.read(arguments)? {
            match argument {
                Argument::Operand(url) => plan.urls.push(url),
                Argument::Option(letter, value) => plan.set(letter, value.unwrap_or_default())?,
            }
        }
        if plan.urls.is_empty() {
            return Err("missing URL".into());
        }
        Ok(plan)
    }

    fn set(&mut self, letter: char, value: String) -> Result<(), String> {
        let cannot_open = |error: io::Error| format!("can't open '{value}': {}", strerror(&error));
        match letter {
            'c' => self.resume = true,
            'q' => self.quiet = true,
            'S' => self.show_response = true,
            'O' => self.output = Some(value),
            'P' => self.folder = Some(value),
            'Y' => self.no_proxy = value == "off",
            'U' => self.agent = Some(value),
            'T' => {
                let seconds: Option<u64> = value.parse().ok();
                let seconds = seconds.ok_or_else(|| format!("invalid number '{value}'"))?;
                self.timeout = Some(Duration::from_secs(seconds));
            }
            'H' => self.headers.push(value),
            'D' => self.body = Some(value.into_bytes()),
            'F' => {
                let mut bytes = Vec::new();
                let read = match value.as_str() {
                    "-" => io::stdin().read_to_end(&mut bytes),
                    path => File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)),
                };
                read.map_err(cannot_open)?;
                self.body = Some(bytes);
            }
            's' => self.spider = true,
            'o' => self.log = Some(File::create(&value).map_err(cannot_open)?),
            // The original does not try again either, and there is no certificate to check.
            _ => {}
        }
        Ok(())
    }

    fn tell(&self, text: &str) {
        let _closed = match &self.log {
            Some(log) => (&*log).write_all(text.as_bytes()),
            None => io::stderr().write_all(text.as_bytes()),
        };
    }

    fn limit(&self) -> Option<Duration> {
        // `-T 0` is no limit.
        Some(self.timeout.unwrap_or(TIMEOUT)).filter(|limit| !limit.is_zero())
    }

    fn proxy(&self) -> Result<Option<Url>, String> {
        let set = std::env::var("http_proxy")
            .ok()
            .filter(|text| !text.is_empty());
        match set {
            Some(text) if !self.no_proxy => Url::parse(&text).map(Some),
            _ => Ok(None),
        }
    }

    fn retrieve(&self, text: &str) -> Result<(), String> {
        let mut target = Url::parse(text)?;
        let proxy = self.proxy()?;
        let name = self.file_name(&target);
        let begin = match (&name, self.resume) {
            (Some(name), true) => std::fs::metadata(name).map_or(0, |found| found.len()),
            _ => 0,
        };
        let mut connected = None;
        for _ in 0..REDIRECTIONS {
            let server = proxy.as_ref().unwrap_or(&target).clone();
            if server.scheme != "http" {
                let scheme = &server.scheme;
                return Err(format!(
                    "{scheme} is not served here: stand-ins have no TLS"
                ));
            }
            // A redirection on the same server is not said again.
            let address = match connected.take() {
                Some((last, address)) if last == (server.host.clone(), server.port) => address,
                _ => self.look_up(&server)?,
            };
            connected = Some(((server.host, server.port), address));
            let mut stream = self.connect(address)?;
            self.request(&mut stream, &target, proxy.is_some(), begin)
                .map_err(|error| self.failed("error sending request", &error))?;
            let mut reader = BufReader::new(stream);
            let head = self.head(&mut reader, begin)?;
            match head.location {
                Some(location) if head.status >= 300 => target = target.join(&location)?,
                _ => return self.body(&mut reader, &head, name.as_deref(), begin),
            }
        }
        Err("too many redirections".into())
    }

    fn look_up(&self, server: &Url) -> Result<SocketAddr, String> {
        // The port, where one was written, is part of the name in what the original says.
        let name = &server.authority;
        let address = resolve::address(&server.host, server.port)
            .map_err(|_| format!("bad address '{name}'"))?;
        if !self.quiet {
            self.tell(&format!("Connecting to {name} ({address})\n"));
        }
        Ok(address)
    }

    fn connect(&self, address: SocketAddr) -> Result<TcpStream, String> {
        let begun = Instant::now();
        let connected = sockets::connect(address, None, SocketType::STREAM, self.limit());
        let stream = connected.map(TcpStream::from).map_err(|error| {
            let ours = self.limit().is_some_and(|limit| begun.elapsed() >= limit);
            if ours && error.raw_os_error() == Some(rustix::io::Errno::TIMEDOUT.raw_os_error()) {
                return "download timed out".to_owned();
            }
            let whom = match address {
                SocketAddr::V4(address) => format!(" ({})", address.ip()),
                SocketAddr::V6(_) => String::new(),
            };
            format!("can't connect to remote host{whom}: {}", strerror(&error))
        })?;
        let text = |error: io::Error| strerror(&error);
        stream.set_read_timeout(self.limit()).map_err(text)?;
        stream.set_write_timeout(self.limit()).map_err(text)?;
        Ok(stream)
    }

    fn failed(&self, what: &str, error: &io::Error) -> String {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "download timed out".into(),
            _ => format!("{what}: {}", strerror(error)),
        }
    }

    fn request(
        &self,
        stream: &mut TcpStream,
        target: &Url,
        proxied: bool,
        begin: u64,
    ) -> io::Result<()> {
        let given = |name: &str| {
            let begins = |header: &String| {
                let start = header.get(..name.len()).unwrap_or_default();
                start.eq_ignore_ascii_case(name)
            };
            self.headers.iter().any(begins)
        };
        let method = if self.body.is_some() { "POST" } else { "GET" };
        let mut text = match proxied {
            true => format!(
                "GET {}://{}{} HTTP/1.1\r\n",
                target.scheme, target.authority, target.path
            ),
            false => format!("{method} {} HTTP/1.1\r\n", target.path),
        };
        if !given("Host:") {
            text += &format!("Host: {}\r\n", target.authority);
        }
        if !given("User-Agent:") {
            text += &format!(
                "User-Agent: {}\r\n",
                self.agent.as_deref().unwrap_or("Wget")
            );
        }
        text += "Connection: close\r\n";
        if begin != 0 && !given("Range:") {
            text += &format!("Range: bytes={begin}-\r\n");
        }
        for header in &self.headers {
            text += &format!("{header}\r\n");
        }
        if let Some(body) = &self.body {
            if !given("Content-Type:") {
                text += "Content-Type: application/x-www-form-urlencoded\r\n";
            }
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        text += "\r\n";
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        stream.write_all(&bytes)
    }

    /// One line of a head; shown with `-S`.
    fn line(&self, reader: &mut BufReader<TcpStream>) -> Result<String, String> {
        let mut bytes = Vec::new();
        reader
            .by_ref()
            .take(LINE_BYTES)
            .read_until(b'\n', &mut bytes)
            .map_err(|error| self.failed("error getting response", &error))?;
        if bytes.is_empty() {
            return Err("error getting response: Connection reset by peer".into());
        }
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end_matches(['\r', '\n']);
        // Nothing a peer sends shall steer the terminal.
        let tame = |c: char| match c {
            '\t' => ' ',
            c if c.is_control() => '?',
            c => c,
        };
        let text: String = text.chars().map(tame).collect();
        if self.show_response {
            self.tell(&format!("  {text}\n"));
        }
        Ok(text)
    }

    fn head(&self, reader: &mut BufReader<TcpStream>, begin: u64) -> Result<Head, String> {
        loop {
            let first = self.line(reader)?;
            let code = first.split_whitespace().nth(1).unwrap_or_default();
            let status: u16 = code.parse().unwrap_or(0);
            let fine = match status {
                0 | 100 | 200..=204 | 300..=303 | 307 | 308 => true,
                206 => begin != 0,
                _ => false,
            };
            if !fine {
                return Err(format!("server returned error: {first}"));
            }
            let mut head = Head {
                status,
                ..Head::default()
            };
            for _ in 0..HEAD_LINES {
                let line = self.line(reader)?;
                if line.is_empty() {
                    break;
                }
                head.note(&line)?;
            }
            if status != 0 && status != 100 {
                return Ok(head);
            }
        }
    }

    /// Where to write, none for standard output.
    fn file_name(&self, target: &Url) -> Option<String> {
        match self.output.as_deref() {
            Some("-") => None,
            Some(name) => Some(name.to_owned()),
            None => {
                let path = target.path.split(['?', '#']).next().unwrap_or_default();
                let name = path.rsplit('/').next().filter(|name| !name.is_empty());
                let name = name.unwrap_or("index.html");
                Some(match &self.folder {
                    Some(folder) => format!("{}/{name}", folder.trim_end_matches('/')),
                    None => name.to_owned(),
                })
            }
        }
    }

    fn body(
        &self,
        reader: &mut BufReader<TcpStream>,
        head: &Head,
        name: Option<&str>,
        begin: u64,
    ) -> Result<(), String> {
        if self.spider {
            if !self.quiet {
                self.tell("remote file exists\n");
            }
            return Ok(());
        }
        let begin = if head.status == 206 { begin } else { 0 };
        let mut output: Box<dyn Write> = match name {
            None => Box::new(io::stdout()),
            Some(name) => Box::new(
                self.open(name, begin)
                    .map_err(|error| format!("can't open '{name}': {}", strerror(&error)))?,
            ),
        };
        let label = name.unwrap_or("-").rsplit('/').next().unwrap_or_default();
        let terminal = self.log.is_none() && io::stderr().is_terminal();
        let mut progress = Progress::new(label, begin, head.length, terminal);
        let mut show = |received: u64, last: bool| {
            if !self.quiet
                && let Some(text) = progress.update(received, last)
            {
                self.tell(&text);
            }
        };
        let mut received = 0;
        let result = if head.chunked {
            self.chunks(reader, &mut output, &mut received, &mut show)
        } else {
            self.copy(reader, &mut output, head.length, &mut received, &mut show)
        };
        if result.is_ok() {
            show(received, true);
        }
        if !self.quiet && terminal {
            self.tell("\n");
        }
        result
    }

    fn open(&self, name: &str, begin: u64) -> io::Result<File> {
        let mut options = File::options();
        options.write(true).create(true);
        match (begin, &self.output) {
            (0, Some(_)) => options.truncate(true),
            // Without a name of the person's own nothing is written over.
            (0, None) => options.create_new(!self.resume),
            _ => options.append(true),
        };
        options.open(name)
    }

    fn copy(
        &self,
        reader: &mut BufReader<TcpStream>,
        output: &mut dyn Write,
        length: Option<u64>,
        received: &mut u64,
        show: &mut dyn FnMut(u64, bool),
    ) -> Result<(), String> {
        let mut left = length.unwrap_or(u64::MAX);
        while left > 0 {
            let bytes = reader
                .fill_buf()
                .map_err(|error| self.failed("read error", &error))?;
            if bytes.is_empty() {
                return match length {
                    None => Ok(()),
                    Some(_) => Err("connection closed prematurely".into()),
                };
            }
            let take = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let written = output.write_all(&bytes[..take]);
            written.map_err(|error| format!("write error: {}", strerror(&error)))?;
            reader.consume(take);
            left -= take as u64;
            *received += take as u64;
            show(*received, false);
        }
        Ok(())
    }

    fn chunks(
        &self,
        reader: &mut BufReader<TcpStream>,
        output: &mut dyn Write,
        received: &mut u64,
        show: &mut dyn FnMut(u64, bool),
    ) -> Result<(), String> {
        let quiet = Plan {
            timeout: self.timeout,
            ..Plan::default()
        };
        loop {
            let line = quiet.line(reader)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size =
                u64::from_str_radix(size, 16).map_err(|_| format!("bad chunk length '{line}'"))?;
            if size == 0 {
                return Ok(());
            }
            self.copy(reader, output, Some(size), received, show)?;
            quiet.line(reader)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(words: &[&str]) -> Plan {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Plan::read(&words).unwrap()
    }

    #[test]
    fn command_lines_of_tutorials_are_understood() {
        let post = plan(&["-S", "http://echo/test", "--post-data", "{}", "-O", "test"]);
        assert!(post.show_response && !post.quiet);
        assert_eq!(post.body.as_deref(), Some(&b"{}"[..]));
        assert_eq!(post.output.as_deref(), Some("test"));
        let get = plan(&["-qO-", "-T", "5", "flaskback:5000/blogs"]);
        assert_eq!(get.timeout, Some(Duration::from_secs(5)));
        assert_eq!(get.output.as_deref(), Some("-"));
        assert!(Plan::read(&[]).is_err());
    }

    #[test]
    fn files_are_named_after_the_last_part_of_the_path() {
        for (url, expected) in [
            ("http://a/b/c.txt?x=1", "c.txt"),
            ("a", "index.html"),
            ("http://a/b/", "index.html"),
        ] {
            let name = plan(&[url]).file_name(&Url::parse(url).unwrap());
            assert_eq!(name.as_deref(), Some(expected), "{url}");
        }
        let there = plan(&["-P", "/tmp/", "a/b"]).file_name(&Url::parse("a/b").unwrap());
        assert_eq!(there.as_deref(), Some("/tmp/b"));
    }
}
