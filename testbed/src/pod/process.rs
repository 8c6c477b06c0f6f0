//! Processes as a pod's init keeps them: started, reaped, their ends told.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use control::lab_protocol::{Channel, WindowSize};
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::message::ProcessSpec;

/// What happens once with a process's exit status.
pub type OnExit = Box<dyn FnOnce(i32) + Send>;

/// A started process and this side of its streams.
#[derive(Debug)]
pub struct Started {
    /// Its number in the pod's PID namespace; it leads a session and a process group.
    pub pid: Pid,
    /// To it, if it was wanted: a pipe, or the terminal.
    pub stdin: Option<File>,
    /// From it. With a terminal the one is both.
    pub outputs: Vec<(Channel, File)>,
    /// The terminal.
    pub terminal: Option<OwnedFd>,
}

/// The processes that init started and has not reaped yet. Init is process 1, so orphans of all
/// of them come to it too.
#[derive(Default)]
pub struct Processes {
    waiting: Mutex<HashMap<i32, OnExit>>,
    began: Condvar,
}

impl Processes {
    /// Starts a process; `on_exit` is called from the reaper's thread.
    pub fn start(&self, spec: &ProcessSpec, on_exit: OnExit) -> io::Result<Started> {
        let text = serde_json::to_string(spec)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("__stage").arg(text).current_dir("/");
        let terminal = if spec.tty {
            Some(open_terminal(spec.size)?)
        } else {
            None
        };
        match &terminal {
            Some((_, far)) => {
                command.stdin(Stdio::from(far.try_clone()?));
                command.stdout(Stdio::from(far.try_clone()?));
                command.stderr(Stdio::from(far.try_clone()?));
            }
            None => {
                let stdin = if spec.stdin {
                    Stdio::piped()
                } else {
                    Stdio::null()
                };
                command
                    .stdin(stdin)
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped());
            }
        }
        // Held over both steps, so that the reaper finds whoever ends at once.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = command.spawn()?;
        let pid = child.id() as i32;
        waiting.insert(pid, on_exit);
        self.began.notify_all();
        drop(waiting);
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
        let mut started = Started {
            pid,
            stdin: child
                .stdin
                .take()
                .map(|pipe| File::from(OwnedFd::from(pipe))),
            outputs: Vec::new(),
            terminal: None,
        };
        if let Some((near, _)) = terminal {
            started.stdin = Some(File::from(near.try_clone()?));
            started
                .outputs
                .push((Channel::Stdout, File::from(near.try_clone()?)));
            started.terminal = Some(near);
        } else {
            let out = child.stdout.take().map(OwnedFd::from);
            let err = child.stderr.take().map(OwnedFd::from);
            let both = [(Channel::Stdout, out), (Channel::Stderr, err)];
            let files = both
                .into_iter()
                .filter_map(|(channel, fd)| Some((channel, fd?)));
            started.outputs = files
                .map(|(channel, fd)| (channel, File::from(fd)))
                .collect();
        }
        Ok(started)
    }

    /// Reaps for good; for a thread of its own.
    pub fn reap(&self) -> ! {
        loop {
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) => {
                    let code = status
                        .exit_status()
                        .or_else(|| status.terminating_signal().map(|signal| 128 + signal));
                    let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    let on_exit = waiting.remove(&pid.as_raw_nonzero().get());
                    drop(waiting);
                    if let (Some(on_exit), Some(code)) = (on_exit, code) {
                        on_exit(code);
                    }
                }
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    // No child at all. The time-out covers a start between the two calls.
                    let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    let pause = Duration::from_millis(20);
                    drop(self.began.wait_timeout(waiting, pause));
                }
            }
        }
    }
}

/// Signals a process and whatever it started in its group.
pub fn signal(pid: Pid, signal: Signal) {
    // It may have ended, or not lead its group yet.
    if rustix::process::kill_process_group(pid, signal).is_err() {
        let _gone = rustix::process::kill_process(pid, signal);
    }
}

/// A terminal of the pod's own `/dev/pts`: our end and the process's.
fn open_terminal(size: Option<WindowSize>) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let near = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&near)?;
    let far = rustix::pty::ioctl_tiocgptpeer(&near, flags)?;
    if let Some(size) = size {
        resize(&near, size);
    }
    Ok((near, far))
}

/// Tells a terminal its size; the kernel tells the programs on it.
pub fn resize(terminal: impl AsFd, size: WindowSize) {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // A terminal whose program has ended has no size to set.
    let _gone = rustix::termios::tcsetwinsize(terminal, size);
}
