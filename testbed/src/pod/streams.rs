//! Where the output of processes goes: a container's to its log and to whoever is attached, a
//! command's to its client.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use control::lab_protocol::{Channel, ExitReport, WindowSize, read_frame, write_frame};
use rustix::process::{Pid, Signal};

use super::process::{self, OnExit, Started};
use crate::clock;

/// Bytes of a container's log. At the bound its older half is forgotten.
pub const LOG_BYTES: u64 = 8 << 20;
/// Bytes of a line before it is written in parts, as containerd does.
const LINE_BYTES: usize = 16 << 10;
/// Bytes of output kept for the first who attaches.
const EARLY_BYTES: usize = 64 << 10;
/// After a process's end, how long its outputs may stay open in the hands of others.
const DRAIN: Duration = Duration::from_millis(200);
/// A client that takes nothing for so long is dropped.
const SLOW_CLIENT: Duration = Duration::from_secs(10);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a container's log as the kubelet expects it of a runtime:
/// `2026-01-31T23:59:59.123456789Z stdout F line`.
#[derive(Debug)]
pub struct LogWriter {
    file: File,
    bytes: u64,
    partial: [Vec<u8>; 2],
}

impl LogWriter {
    /// Goes on at the file's end; the file must be open for reading too.
    pub fn new(file: File) -> LogWriter {
        let bytes = file.metadata().map_or(0, |found| found.len());
        LogWriter {
            file,
            bytes,
            partial: [Vec::new(), Vec::new()],
        }
    }

    /// Takes output as it comes.
    pub fn write(&mut self, channel: Channel, bytes: &[u8]) {
        let which = usize::from(channel == Channel::Stderr);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let partial = &mut self.partial[which];
            partial.extend_from_slice(piece);
            let whole = partial.last() == Some(&b'\n');
            if whole {
                partial.pop();
            } else if partial.len() < LINE_BYTES {
                continue;
            }
            let line = std::mem::take(partial);
            self.line(channel, if whole { 'F' } else { 'P' }, &line);
        }
    }

    /// Writes what has no line's end yet.
    pub fn flush(&mut self) {
        for (which, channel) in [(0, Channel::Stdout), (1, Channel::Stderr)] {
            let line = std::mem::take(&mut self.partial[which]);
            if !line.is_empty() {
                self.line(channel, 'P', &line);
            }
        }
    }

    fn line(&mut self, channel: Channel, tag: char, line: &[u8]) {
        let name = if channel == Channel::Stderr {
            "stderr"
        } else {
            "stdout"
        };
        let time = clock::rfc3339_nanos(SystemTime::now());
        let mut text = format!("{time} {name} {tag} ").into_bytes();
        text.extend_from_slice(line);
        text.push(b'\n');
        if self.bytes + text.len() as u64 > LOG_BYTES {
            // A disk that is full loses log lines, not the container.
            let _disk_full = self.forget_half();
        }
        if self.file.write_all(&text).is_ok() {
            self.bytes += text.len() as u64;
        }
    }

    fn forget_half(&mut self) -> io::Result<()> {
        let mut kept = Vec::new();
        self.file
            .seek(SeekFrom::Start(self.bytes.saturating_sub(LOG_BYTES / 2)))?;
        self.file.read_to_end(&mut kept)?;
        let start = kept
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&kept[start..])?;
        self.bytes = (kept.len() - start) as u64;
        Ok(())
    }
}

/// A container's output: log, attached clients, and what came before the first of them.
#[derive(Debug)]
pub struct Output {
    state: Mutex<OutputState>,
}

#[derive(Debug)]
struct OutputState {
    log: LogWriter,
    clients: Vec<UnixStream>,
    early: Option<Vec<(Channel, Vec<u8>)>>,
    early_bytes: usize,
    exit: Option<i32>,
}

impl Output {
    /// Of a container whose log is `file`.
    pub fn new(file: File) -> Output {
        Output {
            state: Mutex::new(OutputState {
                log: LogWriter::new(file),
                clients: Vec::new(),
                early: Some(Vec::new()),
                early_bytes: 0,
                exit: None,
            }),
        }
    }

    fn write(&self, channel: Channel, bytes: &[u8]) {
        let mut state = lock(&self.state);
        state.log.write(channel, bytes);
        state.early_bytes += bytes.len();
        if state.early_bytes > EARLY_BYTES {
            state.early = None;
        }
        if let Some(early) = &mut state.early {
            early.push((channel, bytes.to_vec()));
        }
        state
            .clients
            .retain_mut(|client| write_frame(client, channel, bytes).is_ok());
    }

    /// Adds a client. The first gets what came before, if that is not too much.
    pub fn attach(&self, mut client: UnixStream) -> io::Result<()> {
        client.set_write_timeout(Some(SLOW_CLIENT))?;
        let mut state = lock(&self.state);
        for (channel, bytes) in state.early.take().unwrap_or_default() {
            write_frame(&mut client, channel, &bytes)?;
        }
        match state.exit {
            Some(code) => report_exit(&mut client, code, None),
            None => state.clients.push(client),
        }
        Ok(())
    }

    fn finish(&self, code: i32) {
        let mut state = lock(&self.state);
        state.log.flush();
        state.exit = Some(code);
        for mut client in std::mem::take(&mut state.clients) {
            report_exit(&mut client, code, None);
        }
    }
}

/// Tells a client how its command ended, and ends the connection.
pub fn report_exit(client: &mut UnixStream, exit_code: i32, error: Option<String>) {
    let report = ExitReport { exit_code, error };
    let payload = serde_json::to_vec(&report).unwrap_or_default();
    // A client that left does not need to know.
    let _gone = write_frame(client, Channel::Status, &payload);
    let _gone = client.shutdown(Shutdown::Both);
}

/// Copies every output to `sink` on threads of their own; the receiver's channel closes when all
/// have ended.
fn drain(
    outputs: Vec<(Channel, File)>,
    sink: impl Fn(Channel, &[u8]) + Send + Sync + 'static,
) -> Receiver<()> {
    let (open, closed) = channel();
    let sink = Arc::new(sink);
    for (channel, mut file) in outputs {
        let (open, sink) = (open.clone(), sink.clone());
        std::thread::spawn(move || {
            let mut buffer = vec![0_u8; 32 << 10];
            loop {
                match file.read(&mut buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // EIO is how a terminal says that nobody is at its other end.
                    Ok(0) | Err(_) => break,
                    Ok(length) => sink(channel, &buffer[..length]),
                }
            }
            drop::<Sender<()>>(open);
        });
    }
    closed
}

/// Waits until every output has ended, but not for long.
fn wait_drained(closed: &Receiver<()>) {
    let deadline = Instant::now() + DRAIN;
    while let Err(RecvTimeoutError::Timeout) =
        closed.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        if Instant::now() >= deadline {
            return;
        }
    }
}

/// An exit status on its way from the reaper.
pub fn exit_channel() -> (OnExit, Receiver<i32>) {
    let (tell, told) = channel();
    let on_exit = Box::new(move |code| {
        let _nobody_waits = tell.send(code);
    });
    (on_exit, told)
}

/// Carries a container's output until it ends, then calls `on_end`.
pub fn carry_container(
    outputs: Vec<(Channel, File)>,
    output: Arc<Output>,
    told: Receiver<i32>,
    on_end: impl FnOnce(i32) + Send + 'static,
) {
    std::thread::spawn(move || {
        let sink = output.clone();
        let closed = drain(outputs, move |channel, bytes| sink.write(channel, bytes));
        let code = told.recv().unwrap_or(255);
        wait_drained(&closed);
        output.finish(code);
        on_end(code);
    });
}

/// Carries a client's command: its input, its outputs, its end. Returns when it has ended.
pub fn carry_command(started: Started, told: &Receiver<i32>, client: UnixStream) -> io::Result<()> {
    client.set_write_timeout(Some(SLOW_CLIENT))?;
    let ended = Arc::new(AtomicBool::new(false));
    let writer = Arc::new(Mutex::new(client.try_clone()?));
    let sink = writer.clone();
    let closed = drain(started.outputs, move |channel, bytes| {
        let _client_gone = write_frame(&mut *lock(&sink), channel, bytes);
    });
    let (pid, ended_too) = (started.pid, ended.clone());
    let (stdin, terminal) = (started.stdin, started.terminal);
    let mut reader = client;
    std::thread::spawn(move || {
        let end = match &terminal {
            Some(_) => End::Marks,
            None => End::Closes(Box::new(|| {})),
        };
        let input = Input::new(stdin, end);
        carry_input(&mut reader, input, |size| {
            if let Some(terminal) = &terminal {
                process::resize(terminal, size);
            }
        });
        hang_up(pid, &ended_too);
    });
    let code = told.recv().unwrap_or(255);
    ended.store(true, Ordering::Release);
    wait_drained(&closed);
    report_exit(&mut lock(&writer), code, None);
    Ok(())
}

/// What a client's end of input is to the process.
pub enum End {
    /// Nothing: others may still write to it.
    Unheard,
    /// The end of a pipe; whoever else holds it open lets go of it.
    Closes(Box<dyn FnOnce() + Send>),
    /// The end of what is typed on a terminal.
    Marks,
}

/// A process's standard input.
pub struct Input {
    file: Option<File>,
    end: End,
    at_line_start: bool,
    /// Tells that the client is gone.
    gone: Arc<AtomicBool>,
}

impl Input {
    /// A pipe's or a terminal's near end; nothing where it is closed.
    pub fn new(file: Option<File>, end: End) -> Input {
        Input {
            file,
            end,
            at_line_start: true,
            gone: Arc::default(),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.at_line_start = bytes.last() == Some(&b'\n');
        // A program that closed its input goes on without.
        if let Some(file) = &mut self.file
            && file.write_all(bytes).is_err()
        {
            self.file = None;
        }
    }

    /// The client has no more. A pipe says so by closing. A terminal says it by a character, once
    /// for each read, and loses what was said while a program changed the terminal's mode (bash's
    /// line editor does): so it is said again until the session is over.
    fn end(&mut self) {
        let file = self.file.take();
        let mut terminal = match (std::mem::replace(&mut self.end, End::Unheard), file) {
            (End::Marks, Some(terminal)) => terminal,
            (End::Closes(let_go), _) => return let_go(),
            _ => return,
        };
        const END: u8 = 4;
        let mut marks = if self.at_line_start {
            vec![END]
        } else {
            vec![END; 2]
        };
        let gone = self.gone.clone();
        std::thread::spawn(move || {
            let mut pause = Duration::from_millis(100);
            while !gone.load(Ordering::Acquire) && terminal.write_all(&marks).is_ok() {
                marks = vec![END];
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_secs(5));
            }
        });
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Release);
    }
}

/// Carries a client's frames to a process until the client goes.
pub fn carry_input(client: &mut UnixStream, mut input: Input, resize: impl Fn(WindowSize)) {
    while let Ok(Some(frame)) = read_frame(client) {
        match frame.channel {
            Channel::Stdin if frame.payload.is_empty() => input.end(),
            Channel::Stdin => input.write(&frame.payload),
            Channel::Resize => {
                if let Ok(size) = serde_json::from_slice(&frame.payload) {
                    resize(size);
                }
            }
            _ => return,
        }
    }
}

/// Ends a command whose client is gone.
fn hang_up(pid: Pid, ended: &AtomicBool) {
    for (signal, pause) in [(Signal::HUP, 2000), (Signal::KILL, 0)] {
        if ended.load(Ordering::Acquire) {
            return;
        }
        process::signal(pid, signal);
        let deadline = Instant::now() + Duration::from_millis(pause);
        while Instant::now() < deadline && !ended.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Carries a client's connection to a TCP port of the pod, or says why that port does not take it.
pub fn carry_connection(mut client: UnixStream, port: u16) -> io::Result<()> {
    let addresses = [
        ([127, 0, 0, 1], port).into(),
        ([0, 0, 0, 0, 0, 0, 0, 1_u16], port).into(),
    ];
    let mut connection = match TcpStream::connect(&addresses[..]) {
        Ok(connection) => connection,
        Err(error) => {
            let text = error.to_string().to_lowercase();
            let why = text.split(" (os error").next().unwrap_or_default();
            let why = format!("dial tcp4 127.0.0.1:{port}: connect: {why}");
            report_exit(&mut client, 1, Some(why));
            return Ok(());
        }
    };
    let mut reader = client.try_clone()?;
    let mut to = connection.try_clone()?;
    std::thread::spawn(move || {
        while let Ok(Some(frame)) = read_frame(&mut reader) {
            let sent = match frame.payload.is_empty() {
                true => to.shutdown(Shutdown::Write),
                false => to.write_all(&frame.payload),
            };
            if sent.is_err() {
                break;
            }
        }
        let _closed_already = to.shutdown(Shutdown::Both);
    });
    let mut buffer = vec![0_u8; 32 << 10];
    loop {
        let length = connection.read(&mut buffer)?;
        write_frame(&mut client, Channel::Stdout, &buffer[..length])?;
        if length == 0 {
            return client.shutdown(Shutdown::Write);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch_file(name: &str) -> (File, std::path::PathBuf) {
        let path = std::env::temp_dir().join(format!("weir-{name}-{}", std::process::id()));
        let file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .unwrap();
        (file, path)
    }

    #[test]
    fn lines_are_whole_and_a_cut_one_says_so() {
        let (file, path) = scratch_file("log");
        let mut log = LogWriter::new(file);
        log.write(Channel::Stdout, b"one\ntw");
        log.write(Channel::Stderr, b"err\n");
        log.write(Channel::Stdout, b"o\nthree");
        log.flush();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        let shown: Vec<_> = text
            .lines()
            .map(|line| line.split_once(' ').unwrap().1)
            .collect();
        let expected = [
            "stdout F one",
            "stderr F err",
            "stdout F two",
            "stdout P three",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_log_stays_within_its_bound_and_keeps_the_newest() {
        let (file, path) = scratch_file("bound");
        let mut log = LogWriter::new(file);
        let line = [b'x'; 1000];
        for number in 0..2 * LOG_BYTES / 1000 {
            log.write(Channel::Stdout, &line);
            log.write(Channel::Stdout, format!("{number}\n").as_bytes());
        }
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        assert!(text.len() as u64 <= LOG_BYTES);
        assert!(text.len() as u64 > LOG_BYTES / 3);
        assert!(
            text.trim_end()
                .ends_with(&(2 * LOG_BYTES / 1000 - 1).to_string())
        );
    }
}
