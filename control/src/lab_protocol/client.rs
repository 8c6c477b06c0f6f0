//! The command line's side.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::termios::{self, OptionalActions, Termios};

use super::{
    AttachRequest, Channel, ExecRequest, ExitReport, LogsRequest, PortForwardRequest, Reply,
    Request, WindowSize, read_frame, write_frame,
};

/// Why a verb on a lab's pod failed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// No agent answers.
    #[error("no lab runs this pod")]
    NoLab,
    /// More than one lab runs.
    #[error("several labs run ({0}): choose one with --lab or WEIR_LAB")]
    SeveralLabs(String),
    /// The socket is there but cannot be used.
    #[error("cannot reach the lab's agent at {path}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the lab's agent broke: {0}")]
    Io(#[from] io::Error),
    /// The agent refused.
    #[error("{message}")]
    Refused {
        /// As Kubernetes' `metav1.StatusReason`.
        reason: String,
        /// What was wrong.
        message: String,
    },
}

/// Sends a request and reads the first line of the answer.
pub(crate) fn begin(socket: &Path, request: &Request) -> Result<(UnixStream, Reply), LabError> {
    let mut stream = UnixStream::connect(socket).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => LabError::NoLab,
        _ => LabError::Connect {
            path: socket.to_owned(),
            source,
        },
    })?;
    let mut line = serde_json::to_vec(request).map_err(io::Error::from)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let reply = read_line(&mut stream)?;
    match serde_json::from_slice(&reply).map_err(io::Error::from)? {
        Reply::Error { reason, message } => Err(LabError::Refused { reason, message }),
        other => Ok((stream, other)),
    }
}

/// Byte by byte: frames follow the line, and a buffer would swallow them.
fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0_u8];
    loop {
        if stream.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if byte[0] == b'\n' {
            return Ok(line);
        }
        line.push(byte[0]);
    }
}

/// Says what kubectl says when it chose the container among several.
fn tell_default(reply: &Reply, named: bool) {
    if let Reply::Ready { container, among } = reply
        && !named
        && among.len() > 1
    {
        eprintln!(
            "Defaulted container \"{container}\" out of: {}",
            among.join(", ")
        );
    }
}

/// Runs a command with this process's own standard streams and returns its exit status.
///
/// As kubectl: without standard input there is no terminal, and with a standard input that is no
/// terminal a line on stderr says that none is used. With a terminal this one is raw meanwhile
/// and its size is followed.
pub fn exec(socket: &Path, request: &ExecRequest, quiet: bool) -> Result<i32, LabError> {
    let mut request = request.clone();
    request.tty = request.tty && has_terminal(request.stdin, quiet);
    if request.tty {
        request.size = request.size.or_else(window_size);
        request.term = request.term.or_else(|| std::env::var("TERM").ok());
    }
    let (stdin, tty, named) = (
        request.stdin,
        request.tty,
        request.target.container.is_some(),
    );
    let (stream, reply) = begin(socket, &Request::Exec(request))?;
    tell_default(&reply, named);
    pump(stream, stdin, tty)
}

/// Joins a running container's standard streams with this process's own; with `tty` this one's
/// input has to be a terminal, and the container's too.
pub fn attach(socket: &Path, request: &AttachRequest) -> Result<i32, LabError> {
    let mut request = request.clone();
    if request.tty {
        request.size = request.size.or_else(window_size);
    }
    let (stdin, tty, named) = (
        request.stdin,
        request.tty,
        request.target.container.is_some(),
    );
    let (stream, reply) = begin(socket, &Request::Attach(request))?;
    tell_default(&reply, named);
    pump(stream, stdin, tty)
}

/// Runs a command with the input given and returns its exit status and both outputs.
pub fn exec_captured(
    socket: &Path,
    request: &ExecRequest,
    input: &[u8],
) -> Result<(i32, Vec<u8>, Vec<u8>), LabError> {
    let (mut stream, _) = begin(socket, &Request::Exec(request.clone()))?;
    let mut writer = stream.try_clone()?;
    let (stdin, input) = (request.stdin, input.to_owned());
    // A thread of its own: a command that prints before it has read everything must not block us.
    let feeder = std::thread::spawn(move || {
        if stdin && (input.is_empty() || write_frame(&mut writer, Channel::Stdin, &input).is_ok()) {
            let _ended_already = write_frame(&mut writer, Channel::Stdin, &[]);
        }
    });
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = receive(&mut stream, &mut out, &mut err);
    let _thread_result = feeder.join();
    Ok((code?, out, err))
}

/// Runs a command whose input, if it has one, is read from a stream and whose output is written to one
/// as it comes, and returns its exit status. What it says of itself goes to this process's stderr.
pub fn exec_streamed(
    socket: &Path,
    request: &ExecRequest,
    input: Option<&mut (dyn Read + Send)>,
    out: &mut dyn Write,
) -> Result<i32, LabError> {
    let request = ExecRequest {
        stdin: input.is_some(),
        ..request.clone()
    };
    let (mut stream, _) = begin(socket, &Request::Exec(request))?;
    let mut writer = stream.try_clone()?;
    std::thread::scope(|scope| {
        if let Some(mut input) = input {
            scope.spawn(move || send_all(&mut input, &mut writer));
        }
        let code = receive(&mut stream, out, &mut io::stderr().lock());
        // A command that has ended reads no more, so that who feeds it must not wait.
        let _closed_already = stream.shutdown(Shutdown::Both);
        code
    })
}

/// Writes a container's log to `out`.
pub fn logs(socket: &Path, request: &LogsRequest, out: &mut dyn Write) -> Result<(), LabError> {
    let named = request.target.container.is_some();
    let (stream, reply) = begin(socket, &Request::Logs(request.clone()))?;
    tell_default(&reply, named);
    let mut stream = BufReader::new(stream);
    while let Some(frame) = read_frame(&mut stream)? {
        out.write_all(&frame.payload)?;
        if stream.buffer().is_empty() {
            out.flush()?;
        }
    }
    Ok(())
}

/// Carries one accepted TCP connection to a pod's port, until both sides have ended; or says why the
/// pod did not take it.
pub fn port_forward(
    socket: &Path,
    request: &PortForwardRequest,
    connection: TcpStream,
) -> Result<Option<String>, LabError> {
    let (mut stream, _) = begin(socket, &Request::PortForward(request.clone()))?;
    let mut writer = stream.try_clone()?;
    let mut from = connection.try_clone()?;
    let feeder = std::thread::spawn(move || {
        send_all(&mut from, &mut writer);
    });
    let mut to = connection;
    let mut refused = None;
    let result = (|| -> io::Result<()> {
        while let Some(frame) = read_frame(&mut stream)? {
            match frame.channel {
                Channel::Stdout if frame.payload.is_empty() => to.shutdown(Shutdown::Write)?,
                Channel::Stdout => to.write_all(&frame.payload)?,
                Channel::Status => {
                    let report: ExitReport = serde_json::from_slice(&frame.payload)?;
                    refused = report.error;
                    // What we still send then breaks the connection, which is no news.
                    return Ok(());
                }
                _ => {}
            }
        }
        Ok(())
    })();
    let _closed_already = to.shutdown(Shutdown::Both);
    let _thread_result = feeder.join();
    result?;
    Ok(refused)
}

/// Whether a terminal that is asked for can be had: standard input is passed on and is one. Says so
/// if it is none.
pub fn has_terminal(stdin: bool, quiet: bool) -> bool {
    let terminal = termios::isatty(io::stdin());
    if stdin && !terminal && !quiet {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    stdin && terminal
}

fn window_size() -> Option<WindowSize> {
    let size = termios::tcgetwinsize(io::stdin()).ok()?;
    Some(WindowSize {
        columns: size.ws_col,
        rows: size.ws_row,
    })
}

/// Puts the terminal back when it goes.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> io::Result<RawTerminal> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(RawTerminal(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _terminal_gone = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Copies between the connection and this process's streams until the exit report.
fn pump(mut stream: UnixStream, stdin: bool, tty: bool) -> Result<i32, LabError> {
    let _raw = if tty {
        Some(RawTerminal::enter()?)
    } else {
        None
    };
    // Both threads write whole frames to one socket, so they take turns.
    let writer = std::sync::Arc::new(std::sync::Mutex::new(stream.try_clone()?));
    if tty {
        follow_window_size(writer.clone())?;
    }
    if stdin {
        // Never joined: it may be blocked in a read of the terminal when the command ends.
        std::thread::spawn(move || {
            send_stdin(&writer);
        });
    }
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    receive(&mut stream, &mut out, &mut err)
}

type SharedWriter = std::sync::Arc<std::sync::Mutex<UnixStream>>;

fn follow_window_size(writer: SharedWriter) -> Result<(), LabError> {
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGWINCH])?;
    std::thread::spawn(move || {
        for _signal in signals.forever() {
            let Some(size) = window_size() else { return };
            let payload = serde_json::to_vec(&size).unwrap_or_default();
            let Ok(mut writer) = writer.lock() else {
                return;
            };
            if write_frame(&mut *writer, Channel::Resize, &payload).is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn send_stdin(writer: &SharedWriter) {
    let mut input = io::stdin().lock();
    loop {
        let (length, result) = match input.fill_buf() {
            Ok(bytes) => {
                let Ok(mut writer) = writer.lock() else {
                    return;
                };
                (
                    bytes.len(),
                    write_frame(&mut *writer, Channel::Stdin, bytes),
                )
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        if length == 0 || result.is_err() {
            return;
        }
        input.consume(length);
    }
}

fn send_all(from: &mut impl Read, writer: &mut UnixStream) {
    let mut buffer = vec![0_u8; 32 << 10];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => 0,
        };
        if write_frame(writer, Channel::Stdin, &buffer[..length]).is_err() || length == 0 {
            return;
        }
    }
}

/// Reads frames until the exit report; a connection that ends without one broke.
fn receive(
    stream: &mut UnixStream,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<i32, LabError> {
    while let Some(frame) = read_frame(stream)? {
        match frame.channel {
            Channel::Stdout => {
                out.write_all(&frame.payload)?;
                out.flush()?;
            }
            Channel::Stderr => err.write_all(&frame.payload)?,
            Channel::Status => {
                let report: ExitReport =
                    serde_json::from_slice(&frame.payload).map_err(io::Error::from)?;
                if let Some(message) = report.error {
                    writeln!(err, "error: {message}")?;
                }
                return Ok(report.exit_code);
            }
            Channel::Stdin | Channel::Resize => {}
        }
    }
    Err(LabError::Io(io::ErrorKind::UnexpectedEof.into()))
}

/// Asks the agent for its state.
pub fn status(socket: &Path) -> Result<super::AgentStatus, LabError> {
    match begin(socket, &Request::Status)? {
        (_, Reply::Status(status)) => Ok(status),
        _ => Err(LabError::Io(io::ErrorKind::InvalidData.into())),
    }
}

/// Asks the agent to take its lab down, and waits until it has.
pub fn shutdown(socket: &Path) -> Result<(), LabError> {
    let (mut stream, _) = begin(socket, &Request::Shutdown)?;
    while read_frame(&mut stream)?.is_some() {}
    Ok(())
}
