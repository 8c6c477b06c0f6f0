//! Terminals that a tutorial's commands are typed into: a pseudo terminal with bash in it, as a
//! reader has one.
//!
//! bash tells where a command's output begins and ends, and its exit status, by the escape
//! sequences that terminals know from it (OSC 133). A shell within, such as one in a pod, is known
//! by its prompt.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

/// A command's output begins.
const BEGINS: &str = "\u{1b}]133;C\u{7}";
/// A command has ended; its status and a BEL follow.
const ENDED: &str = "\u{1b}]133;D;";
/// A screen wide enough that no command of a tutorial wraps.
const SCREEN: Winsize = Winsize {
    ws_row: 50,
    ws_col: 240,
    ws_xpixel: 0,
    ws_ypixel: 0,
};
/// Bytes that a terminal remembers. A command that prints more loses its beginning, and fails its
/// comparison.
const REMEMBERED_BYTES: usize = 4 << 20;

/// Where and as whom terminals' shells run.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// This program, which gives the shell its terminal.
    pub program: PathBuf,
    /// Working directory.
    pub folder: PathBuf,
    /// Variables on top of this process's.
    pub variables: Vec<(String, OsString)>,
}

/// A terminal and what it has shown.
#[derive(Debug)]
pub struct Terminal {
    screen: Arc<Screen>,
    keyboard: File,
    shell: Child,
    /// Prompt of the shell within bash that takes what is typed, if there is one.
    within: Option<String>,
    /// Where the output of what was typed last begins.
    typed_at: usize,
}

#[derive(Debug, Default)]
struct Screen {
    text: Mutex<Shown>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Shown {
    bytes: Vec<u8>,
    ended: bool,
}

impl Screen {
    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `found` finds something in the text from `start` on; `None` past the deadline
    /// or when the shell has ended without it.
    fn wait<T>(
        &self,
        start: usize,
        deadline: Instant,
        found: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let mut shown = self.lock();
        loop {
            let text = String::from_utf8_lossy(shown.bytes.get(start..).unwrap_or_default());
            if let Some(result) = found(&text) {
                return Some(result);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || shown.ended {
                return None;
            }
            let waited = self.changed.wait_timeout(shown, left);
            shown = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// bash has its prompt back; the command's exit status.
    Status(i32),
    /// A shell within shows its prompt.
    Prompt,
    /// Neither within the time.
    Late,
    /// bash has ended.
    Gone,
}

impl Terminal {
    /// Opens a terminal and waits for its first prompt.
    pub fn open(surroundings: &Surroundings, limit: Duration) -> io::Result<Terminal> {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        rustix::termios::tcsetwinsize(&master, SCREEN)?;
        let name = rustix::pty::ptsname(&master, Vec::new())?;
        let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?;
        let slave = File::from(slave);
        let mut shell = Command::new(&surroundings.program);
        shell.args(["__terminal", "bash", "--norc", "--noprofile", "--noediting"]);
        shell.arg("-i").current_dir(&surroundings.folder);
        shell.envs(surroundings.variables.iter().map(|(k, v)| (k, v)));
        shell.env("PS0", r"\e]133;C\a");
        shell.env("PS1", r"\e]133;D;$?\a$ ");
        shell.env("PS2", "").env("TERM", "xterm");
        // An empty name: the home that a tutorial has keeps no history.
        shell.env("HISTFILE", "").env_remove("PROMPT_COMMAND");
        shell.stdin(Stdio::from(slave.try_clone()?));
        shell.stdout(Stdio::from(slave.try_clone()?));
        let shell = shell.stderr(Stdio::from(slave)).spawn()?;
        let keyboard = File::from(master);
        let screen = Arc::new(Screen::default());
        let (reader, shown) = (keyboard.try_clone()?, Arc::clone(&screen));
        std::thread::spawn(move || watch(reader, &shown));
        let terminal = Terminal {
            screen,
            keyboard,
            shell,
            within: None,
            typed_at: 0,
        };
        match terminal.end(Instant::now() + limit, true) {
            End::Late | End::Gone => Err(io::Error::other("bash shows no prompt")),
            End::Status(_) | End::Prompt => Ok(terminal),
        }
    }

    /// Types a line, or several.
    pub fn type_text(&mut self, text: &str) -> io::Result<()> {
        self.typed_at = self.screen.lock().bytes.len();
        self.keyboard.write_all(format!("{text}\n").as_bytes())
    }

    /// Presses Ctrl and C.
    pub fn interrupt(&mut self) -> io::Result<()> {
        self.keyboard.write_all(b"\x03")
    }

    /// Says which prompt a shell within has that what was typed last leads into.
    pub fn enters(&mut self, prompt: &str) {
        self.within = Some(prompt.to_owned());
    }

    /// Waits for the end of what was typed last.
    pub fn wait_end(&mut self, limit: Duration) -> End {
        let end = self.end(Instant::now() + limit, false);
        if matches!(end, End::Status(_)) {
            self.within = None;
        }
        end
    }

    fn end(&self, deadline: Instant, first: bool) -> End {
        let found = |text: &str| {
            // Whatever ended before the command began is none of its business.
            let begun = match self.within.is_some() || first {
                true => Some(0),
                false => text.find(BEGINS),
            };
            let rest = &text[begun?..];
            if let Some((_, after)) = rest.split_once(ENDED)
                && let Some((status, prompt)) = after.split_once('\u{7}')
                && prompt.ends_with("$ ")
            {
                return Some(End::Status(status.parse().unwrap_or(-1)));
            }
            let prompt = self.within.as_deref()?;
            // The echo of what was typed ends its line; a line that is the prompt alone waits.
            let (_, last) = rest.rsplit_once('\n')?;
            is_prompt(last, prompt).then_some(End::Prompt)
        };
        match self.screen.wait(self.typed_at, deadline, found) {
            Some(end) => end,
            None if self.screen.lock().ended => End::Gone,
            None => End::Late,
        }
    }

    /// Waits until what was typed last has printed `text`.
    pub fn wait_for(&self, text: &str, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let found = |_: &str| self.output().contains(text).then_some(());
        // `output` takes the lock that `wait` holds: look without it.
        while Instant::now() < deadline {
            if found("").is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// What was typed last has printed, without its echo and the prompt behind it.
    pub fn output(&self) -> String {
        let shown = self.screen.lock();
        let bytes = shown.bytes.get(self.typed_at..).unwrap_or_default();
        output_of(&String::from_utf8_lossy(bytes), self.within.as_deref())
    }
}

/// Whether a line is a prompt that ends as this one: before it may stand a host's name.
fn is_prompt(line: &str, prompt: &str) -> bool {
    let line = super::compare::seen_lines(line).concat();
    line.trim_end().ends_with(prompt.trim_end())
}

/// The part of a terminal's text that is a command's output. `within` is the prompt of the shell
/// that shows it, if that is not bash.
fn output_of(text: &str, within: Option<&str>) -> String {
    // A command of bash: what it prints stands between two marks.
    let output = match text.split_once(BEGINS) {
        Some((_echo, output)) => output,
        None => text.split_once('\n').map_or("", |(_echo, output)| output),
    };
    let output = output.split(ENDED).next().unwrap_or_default();
    match within {
        Some(prompt) => {
            let kept = output
                .rsplit_once('\n')
                .filter(|(_, last)| is_prompt(last, prompt));
            kept.map_or(output, |(before, _)| before).to_owned()
        }
        None => output.to_owned(),
    }
}

fn watch(mut master: File, screen: &Screen) {
    let mut buffer = [0_u8; 4096];
    loop {
        // Reading fails once nobody has the other end open.
        let read = master.read(&mut buffer).unwrap_or(0);
        let mut shown = screen.lock();
        let room = REMEMBERED_BYTES.saturating_sub(shown.bytes.len());
        shown.bytes.extend_from_slice(&buffer[..read.min(room)]);
        shown.ended = read == 0;
        screen.changed.notify_all();
        if read == 0 {
            return;
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A shell that has ended already can be neither killed nor is that a loss. What runs in it
        // gets SIGHUP from the terminal.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// `weir-lab __terminal PROGRAM…`: makes its standard input the controlling terminal of a session
/// of its own and becomes the program.
pub fn become_session_leader(command: &[String]) -> io::Error {
    let begin = || -> io::Result<()> {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(std::io::stdin())?;
        Ok(())
    };
    if let Err(error) = begin() {
        return error;
    }
    match command.split_first() {
        Some((program, arguments)) => {
            std::os::unix::process::CommandExt::exec(Command::new(program).args(arguments))
        }
        None => io::Error::other("no program is named"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_stands_between_bash_s_marks() {
        let text = "echo hi\r\n\u{1b}]133;C\u{7}hi\r\n\u{1b}]133;D;0\u{7}$ ";
        assert_eq!(output_of(text, None), "hi\r\n");
    }

    #[test]
    fn output_of_a_shell_within_ends_before_its_prompt() {
        let text = "ls\r\nbin  etc\r\n\u{1b}[6n/ # ";
        assert_eq!(output_of(text, Some("/ # ")), "bin  etc\r");
        let entered = "kubectl run\r\n\u{1b}]133;C\u{7}If you don't see\r\n/ # ";
        assert_eq!(output_of(entered, Some("/ # ")), "If you don't see\r");
    }
}
