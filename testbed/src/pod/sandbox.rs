//! The agent's side of a pod's init.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use control::netlink::Namespace;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::UnshareFlags;

use super::message::{self, FromInit, RootSpec, ToInit};

/// This program, copied where nobody can write it: a pod's root may reach the file it runs from
/// through `/proc`, and the machine's own copy must not be within its reach (CVE-2019-5736).
#[derive(Debug)]
pub struct Program {
    sealed: OwnedFd,
}

impl Program {
    /// Copies and seals it; `path` is where `weir-lab` lies.
    pub fn seal(path: &Path) -> io::Result<Program> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let sealed = rustix::fs::memfd_create("weir-lab", flags)?;
        let mut copy = File::from(sealed);
        io::copy(&mut File::open(path)?, &mut copy)?;
        copy.seek(SeekFrom::Start(0))?;
        let sealed = OwnedFd::from(copy);
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        rustix::fs::fcntl_add_seals(&sealed, seals)?;
        Ok(Program { sealed })
    }
}

/// A running init.
#[derive(Debug)]
pub struct Sandbox {
    socket: Arc<OwnedFd>,
    init: Mutex<Child>,
}

impl Sandbox {
    /// Starts init in the network namespace and in PID, mount, UTS and IPC namespaces of its own,
    /// and waits until the pod's root stands.
    pub fn start(
        program: &Program,
        network: &Namespace,
        root: RootSpec,
        stderr: File,
    ) -> io::Result<Sandbox> {
        let flags = SocketFlags::CLOEXEC;
        let kind = SocketType::SEQPACKET;
        let (near, far) = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)?;
        for socket in [&near, &far] {
            rustix::net::sockopt::set_socket_send_buffer_size(socket, 4 * message::MESSAGE_BYTES)?;
        }
        let path = format!("/proc/self/fd/{}", program.sealed.as_raw_fd());
        let init = std::thread::scope(|scope| {
            let thread = scope.spawn(move || -> io::Result<Child> {
                network.enter().map_err(io::Error::other)?;
                let own = UnshareFlags::NEWPID
                    | UnshareFlags::NEWNS
                    | UnshareFlags::NEWUTS
                    | UnshareFlags::NEWIPC;
                // Descriptors stay shared; this thread ends with its child's start.
                #[expect(deprecated, reason = "the successor is unsafe only for FILES")]
                rustix::thread::unshare(own)?;
                Command::new(path)
                    .arg0("weir-lab")
                    .arg("__pod-init")
                    .env_clear()
                    .stdin(Stdio::from(far))
                    .stdout(Stdio::null())
                    .stderr(stderr)
                    .spawn()
            });
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the starter panicked")))
        })?;
        let sandbox = Sandbox {
            socket: Arc::new(near),
            init: Mutex::new(init),
        };
        sandbox.tell(&ToInit::Root(Box::new(root)), None)?;
        match message::receive(&*sandbox.socket, &mut Vec::new())? {
            Some((FromInit::Ready, _)) => Ok(sandbox),
            Some((FromInit::Broken(why), _)) => Err(io::Error::other(why)),
            _ => Err(io::Error::other(
                "the pod's init ended before its root stood",
            )),
        }
    }

    /// Tells init something.
    pub fn tell(&self, message: &ToInit, fd: Option<&OwnedFd>) -> io::Result<()> {
        message::send(&*self.socket, message, fd)
    }

    /// Waits for what init tells next; `None` when it has ended. For one thread.
    pub fn listen(&self, buffer: &mut Vec<u8>) -> Option<FromInit> {
        let heard = message::receive(self.socket.as_fd(), buffer);
        heard.ok().flatten().map(|(message, _)| message)
    }

    /// Init's process, in the agent's PID namespace.
    pub fn pid(&self) -> u32 {
        self.init
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .id()
    }

    /// Ends init and with it every process and mount of the pod, and waits until they are gone.
    pub fn end(&self) {
        let mut init = self.init.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have ended by itself.
        let _gone = init.kill();
        let _gone = init.wait();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.end();
    }
}
