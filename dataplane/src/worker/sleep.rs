//! How a worker sleeps and is woken.
//!
//! A worker without work waits in epoll on its receive sockets and on an eventfd, by which control
//! and other workers wake it. Writing an eventfd costs a system call, so others write it only when
//! the worker says that it sleeps. It says so before its last look at its mailbox and rings, and
//! the others look after they have put something there: one of the two sees the other.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use arrayvec::ArrayVec;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;

/// The part of a sleeper that others hold.
#[derive(Debug)]
pub(crate) struct Wake {
    eventfd: OwnedFd,
    asleep: AtomicBool,
}

impl Wake {
    /// Wakes the worker if it sleeps; costs one load if it does not.
    pub(crate) fn wake(&self) {
        // Pairs with the fence in `Sleeper::sleep`: what the caller put down before is seen by the
        // worker's last look, or we see here that it sleeps.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            // The only error is a full counter (EAGAIN), and then it is awake anyway.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }
}

/// The worker's part.
#[derive(Debug)]
pub(crate) struct Sleeper {
    epoll: OwnedFd,
    wake: Arc<Wake>,
}

/// The token of the eventfd among those of sockets.
const WAKE_TOKEN: u64 = u64::MAX;

/// Readiness events taken at once.
pub(crate) const READY_MAX: usize = 64;

impl Sleeper {
    pub(crate) fn new() -> io::Result<Sleeper> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let token = epoll::EventData::new_u64(WAKE_TOKEN);
        epoll::add(&epoll, &eventfd, token, epoll::EventFlags::IN)?;
        let wake = Arc::new(Wake {
            eventfd,
            asleep: AtomicBool::new(false),
        });
        Ok(Sleeper { epoll, wake })
    }

    /// The part to give to others.
    pub(crate) fn wake(&self) -> Arc<Wake> {
        Arc::clone(&self.wake)
    }

    /// Watches a receive socket; its readiness is reported as `token`.
    pub(crate) fn watch(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        let token = epoll::EventData::new_u64(token);
        Ok(epoll::add(
            &self.epoll,
            socket,
            token,
            epoll::EventFlags::IN,
        )?)
    }

    /// Watches a socket no more. A socket that is not watched is no error.
    pub(crate) fn unwatch(&self, socket: impl AsFd) {
        let _ = epoll::delete(&self.epoll, socket);
    }

    /// The tokens of sockets that are ready now, without waiting.
    pub(crate) fn poll(&self, ready: &mut ArrayVec<u64, READY_MAX>) {
        self.wait(
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
            ready,
        );
    }

    /// Sleeps until a socket is ready, somebody wakes us, or `limit` is over. `is_idle` is the last
    /// look: if it finds work, there is no sleep.
    pub(crate) fn sleep(
        &self,
        limit: &Timespec,
        ready: &mut ArrayVec<u64, READY_MAX>,
        is_idle: impl FnOnce() -> bool,
    ) {
        self.wake.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if is_idle() {
            self.wait(Some(limit), ready);
        }
        self.wake.asleep.store(false, Ordering::Relaxed);
    }

    fn wait(&self, limit: Option<&Timespec>, ready: &mut ArrayVec<u64, READY_MAX>) {
        ready.clear();
        let nothing = epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: token_zero(),
        };
        let mut events = [nothing; READY_MAX];
        let count = match epoll::wait(&self.epoll, &mut events[..], limit) {
            Ok(count) => count,
            Err(Errno::INTR) => 0,
            // Only a closed or foreign descriptor leads here, and this one is our own.
            Err(_) => 0,
        };
        for event in events.iter().take(count) {
            let token = { event.data }.u64();
            if token == WAKE_TOKEN {
                let _ = rustix::io::read(&self.wake.eventfd, &mut [0u8; 8]);
            } else if ready.try_push(token).is_err() {
                break;
            }
        }
    }
}

fn token_zero() -> epoll::EventData {
    epoll::EventData::new_u64(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    const LONG: Timespec = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };

    #[test]
    fn a_sleeper_wakes_for_others_and_for_sockets() {
        let sleeper = Sleeper::new().unwrap();
        let wake = sleeper.wake();
        let mut ready = ArrayVec::new();
        let start = Instant::now();
        let woken = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !woken.load(Ordering::Relaxed) {
                    wake.wake();
                }
            });
            sleeper.sleep(&LONG, &mut ready, || true);
            woken.store(true, Ordering::Relaxed);
        });
        assert!(ready.is_empty());
        let other = rustix::event::eventfd(1, EventfdFlags::CLOEXEC).unwrap();
        sleeper.watch(&other, 7).unwrap();
        sleeper.sleep(&LONG, &mut ready, || true);
        assert!(ready.iter().all(|token| *token == 7));
        sleeper.poll(&mut ready);
        assert_eq!(ready.as_slice(), [7]);
        sleeper.unwatch(&other);
        sleeper.poll(&mut ready);
        assert!(ready.is_empty());
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_last_look_that_finds_work_prevents_the_sleep() {
        let sleeper = Sleeper::new().unwrap();
        let start = Instant::now();
        sleeper.sleep(&LONG, &mut ArrayVec::new(), || false);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
