//! How a worker sleeps and is woken.
//!
//! A worker without work waits in epoll on its receive sockets and on an eventfd, by which control
//! and other workers wake it. Writing an eventfd costs a system call, so others write it only when
//! the worker says that it sleeps. It says so before its last look at its mailbox and rings, and
//! the others look after they have put something there: one of the two sees the other.
//!
//! A socket that epoll watches calls epoll for each packet that it has sent and each burst that it
//! takes, whether anybody sleeps or not: `sock_wfree` and `sock_def_readable` of net/core/sock.c wake
//! whoever stands in the socket's wait queue, and epoll always does. That is a tenth of the time of a
//! worker under load. So the few sockets that are busy are left to `poll`, which stands in their
//! queues only while the worker sleeps, and at whose side epoll watches the many that are quiet.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use arrayvec::ArrayVec;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
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

/// Sockets that are left to `poll` at most: going to sleep takes time for each.
pub(crate) const BUSY_MAX: usize = 16;

/// Sockets that epoll does not watch, with their tokens.
pub(crate) type Busy<'a> = ArrayVec<(u64, BorrowedFd<'a>), BUSY_MAX>;

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

    /// Sleeps until a socket, watched or busy, is ready, somebody wakes us, or `limit` is over.
    /// `is_idle` is the last look: if it finds work, there is no sleep.
    pub(crate) fn sleep(
        &self,
        limit: &Timespec,
        busy: &Busy<'_>,
        ready: &mut ArrayVec<u64, READY_MAX>,
        is_idle: impl FnOnce() -> bool,
    ) {
        self.wake.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        ready.clear();
        if is_idle() {
            if busy.is_empty() {
                self.wait(Some(limit), ready);
            } else {
                self.wait_for_all(limit, busy, ready);
            }
        }
        self.wake.asleep.store(false, Ordering::Relaxed);
    }

    fn wait_for_all(
        &self,
        limit: &Timespec,
        busy: &Busy<'_>,
        ready: &mut ArrayVec<u64, READY_MAX>,
    ) {
        let mut sockets: ArrayVec<PollFd<'_>, { BUSY_MAX + 1 }> = ArrayVec::new();
        sockets.extend(
            (busy.iter()).map(|(_, socket)| PollFd::from_borrowed_fd(*socket, PollFlags::IN)),
        );
        sockets.push(PollFd::new(&self.epoll, PollFlags::IN));
        // An interrupted sleep is a short one.
        if !poll(&mut sockets, Some(limit)).is_ok_and(|count| count > 0) {
            return;
        }
        if let Some(epoll) = sockets.pop()
            && !epoll.revents().is_empty()
        {
            self.poll(ready);
        }
        for ((token, _), socket) in busy.iter().zip(&sockets) {
            if !socket.revents().is_empty() && ready.try_push(*token).is_err() {
                break;
            }
        }
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
    use std::sync::atomic::AtomicU32;
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
            sleeper.sleep(&LONG, &Busy::new(), &mut ready, || true);
            woken.store(true, Ordering::Relaxed);
        });
        assert!(ready.is_empty());
        let other = rustix::event::eventfd(1, EventfdFlags::CLOEXEC).unwrap();
        sleeper.watch(&other, 7).unwrap();
        sleeper.sleep(&LONG, &Busy::new(), &mut ready, || true);
        assert!(ready.iter().all(|token| *token == 7));
        sleeper.poll(&mut ready);
        assert_eq!(ready.as_slice(), [7]);
        sleeper.unwatch(&other);
        sleeper.poll(&mut ready);
        assert!(ready.is_empty());
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    /// Each message is sent just when the worker, done with the one before, is about to sleep.
    #[test]
    fn no_message_is_slept_over() {
        const MESSAGES: u32 = 5_000;
        // Only [`LONG`] lasts so long.
        const SLEPT_OVER: Duration = Duration::from_secs(19);
        let sleeper = Sleeper::new().unwrap();
        let wake = sleeper.wake();
        let (mailbox, messages) = std::sync::mpsc::channel();
        let taken = AtomicU32::new(0);
        let mut longest = Duration::ZERO;
        let mut received = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mailbox = mailbox;
                for number in 0..MESSAGES {
                    while taken.load(Ordering::Relaxed) < number {
                        std::thread::yield_now();
                    }
                    mailbox.send(number).unwrap();
                    wake.wake();
                }
            });
            let mut ready = ArrayVec::new();
            let quiet = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
            for number in 1..=MESSAGES {
                // Both ways to sleep: with busy sockets, and without.
                let mut busy = Busy::new();
                if number % 2 == 0 {
                    busy.push((7, quiet.as_fd()));
                }
                let mut message = None;
                while message.is_none() {
                    let start = Instant::now();
                    sleeper.sleep(&LONG, &busy, &mut ready, || {
                        message = messages.try_recv().ok();
                        message.is_none()
                    });
                    longest = longest.max(start.elapsed());
                    message = message.or_else(|| messages.try_recv().ok());
                }
                received.extend(message);
                taken.store(number, Ordering::Relaxed);
                if longest >= SLEPT_OVER {
                    taken.store(MESSAGES, Ordering::Relaxed);
                    break;
                }
            }
        });
        assert!(longest < SLEPT_OVER);
        assert_eq!(received, Vec::from_iter(0..MESSAGES));
    }

    #[test]
    fn busy_sockets_wake_beside_watched_ones_and_others() {
        let sleeper = Sleeper::new().unwrap();
        let event = |count| eventfd(count, EventfdFlags::CLOEXEC).unwrap();
        let [quiet, watched] = [event(0), event(0)];
        sleeper.watch(&watched, 3).unwrap();
        let mut ready = ArrayVec::new();
        let sleep = |socket: &OwnedFd, limit: &Timespec, ready: &mut ArrayVec<u64, READY_MAX>| {
            let busy = Busy::from_iter([(7, quiet.as_fd()), (9, socket.as_fd())]);
            sleeper.sleep(limit, &busy, ready, || true);
        };
        let start = Instant::now();
        sleep(&event(1), &LONG, &mut ready);
        assert_eq!(ready.as_slice(), [9]);
        rustix::io::write(&watched, &1u64.to_ne_bytes()).unwrap();
        sleep(&event(0), &LONG, &mut ready);
        assert_eq!(ready.as_slice(), [3]);
        sleep(&event(1), &LONG, &mut ready);
        assert_eq!(ready.as_slice(), [3, 9]);
        sleeper.unwatch(&watched);
        sleeper.wake.asleep.store(true, Ordering::Relaxed);
        sleeper.wake().wake();
        sleep(&event(0), &LONG, &mut ready);
        assert!(ready.is_empty(), "woken, and by no socket");
        assert!(start.elapsed() < Duration::from_secs(10));
        let short = Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        let start = Instant::now();
        sleep(&event(0), &short, &mut ready);
        assert!(ready.is_empty() && start.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn a_last_look_that_finds_work_prevents_the_sleep() {
        let sleeper = Sleeper::new().unwrap();
        let start = Instant::now();
        sleeper.sleep(&LONG, &Busy::new(), &mut ArrayVec::new(), || false);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
