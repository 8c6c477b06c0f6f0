//! `capture`: packets as the dataplane sees them, with verdict and rule, for Wireshark, tshark and
//! tcpdump, or as lines.

mod pcapng;
mod text;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGINT, SIGTERM};

use self::pcapng::PcapNg;
use super::observe::{FILTERS, Filters};
use crate::cli::flags::{Flag, joined, switch, value};
use crate::cli::session::{Session, VerbError};
use crate::cli::values;
use crate::client::Client;
use crate::flow::filter::Matcher;
use crate::protocol::{
    CaptureEvent, CaptureParams, CaptureReply, CaptureStopParams, CaptureSummary, CapturedPacket,
    Lost,
};

const OWN: [Flag; 6] = [
    value(
        "write",
        Some('w'),
        "Write pcapng to this file, or with - to stdout, instead of lines",
    ),
    value("count", Some('c'), "End after so many packets"),
    value("duration", None, "End after this time, as 10s or 1m"),
    value(
        "snaplen",
        None,
        "Bytes of a packet at most, from 128 (default: all)",
    ),
    value(
        "output",
        Some('o'),
        "Form of the lines: text (default) or json (one object a line)",
    ),
    switch("silent-errors", Some('s'), "Say nothing on stderr"),
];

/// Flags of `capture`.
pub const FLAGS: &[Flag] = &joined::<{ OWN.len() + FILTERS.len() }>(&OWN, &FILTERS);

/// Where packets go.
enum Sink {
    File(PcapNg<Box<dyn Write>>),
    Text,
    Json,
}

/// Runs `capture`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    if session.parsed.arguments.is_empty() {
        return Err(VerbError::Usage(
            "what to capture is missing: a pod, a port's interface as `weir status` names it, or any"
                .into(),
        ));
    }
    let params = request(session)?;
    let limit = match session.parsed.value("count") {
        None => u64::MAX,
        Some(text) => match text.parse() {
            Ok(0) | Err(_) => return Err(invalid("count", text, "not a number from 1 on")),
            Ok(limit) => limit,
        },
    };
    let duration = match session.parsed.value("duration") {
        None => None,
        Some(text) => {
            let seconds = values::seconds(text).map_err(|why| invalid("duration", text, &why))?;
            let duration = Duration::try_from_secs_f64(seconds);
            Some(duration.map_err(|why| invalid("duration", text, &why.to_string()))?)
        }
    };
    let stop = signals()?;
    let mut client = session.connect()?;
    let reply: CaptureReply = client.call("capture", &params)?;
    let sink = open_sink(session, &reply)?;
    let capture = Running {
        sink,
        silent: session.parsed.is_on("silent-errors"),
        left: limit,
        packets: 0,
        lost: Lost::default(),
    };
    let deadline = duration.and_then(|duration| Instant::now().checked_add(duration));
    match capture.follow(&mut client, stop.as_fd(), deadline, reply.subscription) {
        // Whoever read has seen enough, as `| head` has.
        Err(VerbError::Pipe) => Ok(()),
        other => other,
    }
}

fn invalid(flag: &str, text: &str, why: &str) -> VerbError {
    VerbError::Usage(format!(
        "invalid argument {text:?} for \"--{flag}\" flag: {why}"
    ))
}

/// What the flags ask for.
fn request(session: &Session) -> Result<CaptureParams, VerbError> {
    let parsed = &session.parsed;
    // -n says where the pods are that are to be captured, as for kubectl's verbs.
    let filters: Vec<_> = parsed
        .in_order
        .iter()
        .filter(|(flag, _)| *flag != "namespace")
        .cloned()
        .collect();
    let Filters { allow, deny } = Filters::read(&filters)?;
    // Refused here already, so that the words are the same with and without a daemon.
    Matcher::new(&allow, &deny).map_err(VerbError::Usage)?;
    let snaplen = match parsed.value("snaplen") {
        None => None,
        Some(text) => {
            let bytes = text
                .parse()
                .map_err(|_| invalid("snaplen", text, "not a whole number"))?;
            Some(bytes)
        }
    };
    Ok(CaptureParams {
        targets: parsed.arguments.clone(),
        namespace: session.namespace(),
        snaplen,
        flows: parsed.value("write").is_none(),
        allow,
        deny,
    })
}

fn open_sink(session: &Session, reply: &CaptureReply) -> Result<Sink, VerbError> {
    let out: Box<dyn Write> = match session.parsed.value("write") {
        None => {
            return match session.parsed.value("output") {
                None | Some("text") => Ok(Sink::Text),
                Some("json") => Ok(Sink::Json),
                Some(other) => {
                    let text = format!("invalid output format: {other}");
                    Err(VerbError::Usage(text))
                }
            };
        }
        Some("-") => {
            if rustix::termios::isatty(io::stdout()) {
                let text = "a terminal cannot show pcapng: pipe it, as in `-w - | tshark -r -`";
                return Err(VerbError::Usage(text.into()));
            }
            Box::new(io::stdout())
        }
        Some(path) => {
            let file = File::create(path);
            let file = file.map_err(|error| VerbError::Local(format!("{path}: {error}")))?;
            Box::new(file)
        }
    };
    let out: Box<dyn Write> = Box::new(BufWriter::new(out));
    let begin = || -> io::Result<PcapNg<Box<dyn Write>>> {
        let mut file = PcapNg::new(out, reply.snaplen, now_ns())?;
        for interface in &reply.interfaces {
            file.interface(interface)?;
        }
        file.flush()?;
        Ok(file)
    };
    Ok(Sink::File(begin().map_err(broken)?))
}

/// An error of a pipe that nobody reads any more is no error.
fn broken(error: io::Error) -> VerbError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => VerbError::Pipe,
        _ => error.into(),
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// The end of a pipe that SIGINT and SIGTERM write to, so that an interrupted file is whole.
fn signals() -> Result<UnixStream, VerbError> {
    let (read, write) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read)
}

/// A capture under way.
struct Running {
    sink: Sink,
    silent: bool,
    /// Packets that are still wanted.
    left: u64,
    packets: u64,
    lost: Lost,
}

impl Running {
    fn follow(
        mut self,
        client: &mut Client,
        stop: BorrowedFd<'_>,
        deadline: Option<Instant>,
        subscription: u64,
    ) -> Result<(), VerbError> {
        let mut ended = None;
        while self.left > 0 && ended.is_none() && wait(client, Some(stop), deadline)? {
            let event = client.next_capture()?;
            ended = event.ended.clone();
            self.take(&event)?;
        }
        let summary = match ended {
            // The daemon has forgotten it already.
            Some(_) => CaptureSummary::default(),
            None => {
                let mut taken = Ok(());
                let summary = self::stop(client, subscription, |event| {
                    if taken.is_ok() {
                        taken = self.take(event);
                    }
                })?;
                taken?;
                summary
            }
        };
        self.lost.client += summary.lost.client;
        self.lost.daemon += summary.lost.daemon;
        if let Sink::File(file) = self.sink {
            file.finish(&summary, now_ns()).map_err(broken)?;
        }
        if !self.silent {
            if let Some(why) = ended {
                eprintln!("{why}");
            }
            eprintln!("{} packets captured", self.packets);
            let Lost { client, daemon } = self.lost;
            if client + daemon > 0 {
                eprintln!(
                    "{client} packets that this program did not take in time, {daemon} that were \
                     too many for the daemon"
                );
            }
        }
        Ok(())
    }

    fn take(&mut self, event: &CaptureEvent) -> Result<(), VerbError> {
        if let Sink::File(file) = &mut self.sink {
            for interface in &event.interfaces {
                file.interface(interface).map_err(broken)?;
            }
        }
        if let Some(lost) = event.lost {
            self.lost += lost;
            if let Sink::File(file) = &mut self.sink {
                file.lose(lost.client + lost.daemon);
            }
        }
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX);
        for packet in event.packets.iter().take(wanted) {
            self.left -= 1;
            self.packets += 1;
            self.write(packet).map_err(broken)?;
        }
        match &mut self.sink {
            Sink::File(file) => file.flush().map_err(broken),
            Sink::Text | Sink::Json => io::stdout().flush().map_err(broken),
        }
    }

    fn write(&mut self, packet: &CapturedPacket) -> io::Result<()> {
        match &mut self.sink {
            Sink::File(file) => file.packet(packet).map(drop),
            Sink::Text => io::stdout().write_all(text::line(packet).as_bytes()),
            Sink::Json => {
                let mut line = serde_json::to_vec(packet)?;
                line.push(b'\n');
                io::stdout().write_all(&line)
            }
        }
    }
}

/// Ends a capture; `each` gets what was under way.
pub(super) fn stop(
    client: &mut Client,
    subscription: u64,
    mut each: impl FnMut(&CaptureEvent),
) -> Result<CaptureSummary, VerbError> {
    let summary = client.call("capture.stop", CaptureStopParams { subscription })?;
    loop {
        let event = client.next_capture()?;
        if event.subscription != subscription {
            continue;
        }
        each(&event);
        if event.ended.is_some() {
            return Ok(summary);
        }
    }
}

/// Waits until the daemon says something; false if it is time to end, or `stop` can be read.
pub(super) fn wait(
    client: &Client,
    stop: Option<BorrowedFd<'_>>,
    deadline: Option<Instant>,
) -> Result<bool, VerbError> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(false);
        }
        if client.has_buffered() {
            return Ok(true);
        }
        let left = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let stream = client.stream();
        let mut fds = vec![PollFd::new(stream, PollFlags::IN)];
        fds.extend(stop.as_ref().map(|stop| PollFd::new(stop, PollFlags::IN)));
        match poll(&mut fds, left.as_ref()) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(io::Error::from)?,
        };
        if fds.get(1).is_some_and(|stop| !stop.revents().is_empty()) {
            return Ok(false);
        }
        if !fds[0].revents().is_empty() {
            return Ok(true);
        }
    }
}
