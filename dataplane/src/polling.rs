//! How long a worker without packets goes on looking for them before it sleeps.
//!
//! Waking a sleeping core takes tens of microseconds on a virtual machine; a request and its
//! response leave less than that between them. So a worker polls on for a window behind its last
//! packet, as the kernel's guests do before they halt (`drivers/cpuidle/governors/haltpoll.c`): the
//! window doubles when a packet comes soon after the worker went to sleep, and is halved when one
//! did not, down to what groups of packets on a busy core need. A node at rest sleeps.
//!
//! A worker that polls takes its core from whoever else wants it, pods mostly, and a core that
//! others keep busy wakes in no time. So it offers the core to others with every look
//! (`sched_yield`, which reaches those of its own scheduling group), and takes a setback as a sign to
//! pause: somebody took the core for long; or a packet came soon after all when the longest window
//! was over, perhaps because its sender had waited for this very core. While it pauses it polls no
//! longer than the least, and each pause is twice as long as the one before until polling has paid
//! for as long.

use std::time::Duration;

use crate::Time;

/// When a worker sleeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Polling {
    /// After a window that follows the traffic, at most this long.
    Adaptive {
        /// The longest window.
        longest: Duration,
    },
    /// Never: the core is the worker's alone.
    Always,
}

/// The window at least: groups of packets come closer together than this.
const SHORTEST_NS: u64 = 10_000;
/// A look that took this much longer than one does was somebody else's turn on the core. A client's
/// turn, from a response to its next request, is shorter.
const CORE_LOST_NS: u64 = 50_000;
/// How long a worker pauses behind a setback, at first and at most.
const PAUSE_NS: [u64; 2] = [10_000_000, 1_000_000_000];

/// What to do before the next look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Look again.
    Poll,
    /// Let others have the core, then look again.
    Yield,
    /// Sleep until something is there; then say so by [`PollWindow::woke`].
    Sleep,
}

/// A worker's window.
#[derive(Clone, Debug)]
pub struct PollWindow {
    polling: Polling,
    window_ns: u64,
    last_packet: Time,
    yielded: Option<Time>,
    paused_until: Time,
    /// How long the next pause is.
    pause_ns: u64,
}

impl PollWindow {
    /// Of a worker that begins at `now`.
    pub fn new(polling: Polling, now: Time) -> PollWindow {
        PollWindow {
            polling,
            window_ns: 0,
            last_packet: now,
            yielded: None,
            paused_until: now,
            pause_ns: PAUSE_NS[0],
        }
    }

    /// After a look that began at `time` and found work or not.
    pub fn looked(&mut self, found: bool, time: Time) -> Next {
        let Polling::Adaptive { longest } = self.polling else {
            return Next::Poll;
        };
        let yielded = self.yielded.take();
        if yielded.is_some_and(|yielded| time.since(yielded) > CORE_LOST_NS) {
            self.pause(time);
        }
        let quiet = time.since(self.last_packet);
        let shortest = SHORTEST_NS.min(nanos(longest));
        if found {
            self.last_packet = time;
            if quiet > shortest && time.since(self.paused_until) > self.pause_ns {
                self.pause_ns = PAUSE_NS[0];
            }
            return Next::Poll;
        }
        let pauses = time < self.paused_until;
        let window = if pauses {
            shortest
        } else {
            self.window_ns.max(shortest)
        };
        if quiet >= window {
            Next::Sleep
        } else if pauses {
            Next::Poll
        } else {
            self.yielded = Some(time);
            Next::Yield
        }
    }

    /// Behind a setback.
    fn pause(&mut self, time: Time) {
        self.window_ns = 0;
        self.paused_until = time.plus_nanos(self.pause_ns);
        self.pause_ns = (2 * self.pause_ns).min(PAUSE_NS[1]);
    }

    /// It woke at `time`, with a packet or for another reason.
    pub fn woke(&mut self, by_packet: bool, time: Time) {
        let Polling::Adaptive { longest } = self.polling else {
            return;
        };
        let (longest, quiet) = (nanos(longest), time.since(self.last_packet));
        let soon = by_packet && quiet <= longest.saturating_mul(2);
        if soon && self.window_ns >= longest {
            self.pause(time);
        } else if quiet > longest {
            self.window_ns /= 2;
        } else if soon && time >= self.paused_until {
            self.window_ns = (2 * self.window_ns.max(SHORTEST_NS)).min(longest);
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADAPTIVE: Polling = Polling::Adaptive {
        longest: Duration::from_micros(200),
    };

    /// A worker with a core, on which a look takes a microsecond and waking up 90.
    struct Core {
        window: PollWindow,
        now: u64,
        /// What others take of the core whenever it is theirs to have.
        others: u64,
        slept: u32,
        polled: u64,
    }

    impl Core {
        fn new(polling: Polling) -> Core {
            Core {
                window: PollWindow::new(polling, Time(0)),
                now: 0,
                others: 0,
                slept: 0,
                polled: 0,
            }
        }

        /// The next packet comes at this many microseconds; how late it is found, microseconds.
        fn packet_at(&mut self, micros: u64) -> u64 {
            let due = micros * 1000;
            loop {
                let (found, time) = (self.now >= due, Time(self.now));
                let next = self.window.looked(found, time);
                if found {
                    return (self.now - due) / 1000;
                }
                self.now += 1000;
                self.polled += 1;
                match next {
                    Next::Poll => {}
                    Next::Yield => self.now += self.others,
                    Next::Sleep => {
                        self.slept += 1;
                        self.now = self.now.max(due) + 90_000;
                        self.window.woke(true, Time(self.now));
                    }
                }
            }
        }

        /// Packets so many microseconds apart; how late the last one was found.
        fn packets(&mut self, count: u64, gap: u64) -> u64 {
            let mut late = 0;
            for _ in 0..count {
                late = self.packet_at(self.now / 1000 + gap);
            }
            late
        }
    }

    #[test]
    fn requests_and_responses_find_the_worker_awake() {
        let mut core = Core::new(ADAPTIVE);
        assert_eq!(core.packets(1, 80), 90, "the first one wakes it");
        core.packets(3, 80);
        let slept = core.slept;
        assert!((1..=4).contains(&slept), "{slept}");
        assert!(core.packets(1000, 80) <= 1);
        assert_eq!(core.slept, slept, "and it sleeps no more");
    }

    #[test]
    fn what_comes_too_rarely_is_not_waited_for() {
        let mut core = Core::new(ADAPTIVE);
        core.packets(100, 80);
        core.packets(20, 1000);
        let polled = core.polled;
        core.packets(1000, 1000);
        let each = (core.polled - polled) / 1000;
        assert!(each <= 11, "{each} µs of a thousand");
    }

    #[test]
    fn a_node_at_rest_looks_once_each_time_it_wakes() {
        let mut window = PollWindow::new(ADAPTIVE, Time(0));
        for tenth in 1..100 {
            let time = Time(tenth * 100_000_000);
            window.woke(false, time);
            assert_eq!(window.looked(false, time), Next::Sleep);
        }
    }

    #[test]
    fn a_window_is_never_longer_than_the_longest() {
        for micros in [0, 5, 200] {
            let longest = Duration::from_micros(micros);
            let mut core = Core::new(Polling::Adaptive { longest });
            core.packets(1000, micros + 10);
            let polled = core.polled;
            core.packet_at(core.now / 1000 + 10_000);
            assert!(core.polled - polled <= micros.max(1) + 1, "{micros}");
        }
    }

    #[test]
    fn who_polls_always_never_sleeps_and_never_yields() {
        let mut core = Core::new(Polling::Always);
        assert!(core.packets(10, 10_000) <= 1);
        assert_eq!(core.slept, 0);
        assert_eq!(core.window.looked(false, Time(u64::MAX)), Next::Poll);
    }

    #[test]
    fn a_core_that_others_want_is_theirs() {
        let mut core = Core::new(ADAPTIVE);
        core.packets(100, 80);
        core.others = 3_000_000;
        // The first look is their chance; behind it the worker sleeps, and is woken at once.
        assert!(core.packet_at(core.now / 1000 + 80) > 2000);
        let polled = core.polled;
        assert!(core.packets(50, 80) <= 90);
        assert!(core.polled - polled <= 50 * 12);
        // It tries again after 10 ms, 20 ms, and so on: not for ever at their cost.
        let begun = core.now;
        let mut lost = 0;
        while core.now - begun < 1_000_000_000 {
            lost += u64::from(core.packets(1, 80) > 2000);
        }
        assert!((4..=7).contains(&lost), "{lost}");
        core.others = 0;
        core.packets(15_000, 80);
        assert!(core.packets(10, 80) <= 1, "the core is its own again");
    }

    /// What a client on this core, in a scheduling group of its own, makes of a worker that does not
    /// sleep: it gets its turn, and sends, only when the worker is asleep.
    #[test]
    fn who_waits_for_the_core_to_send_is_not_made_to_wait() {
        let mut window = PollWindow::new(ADAPTIVE, Time(0));
        let (mut now, mut polled, mut turns) = (0, 0, 0);
        while now < 10_000_000_000 {
            now += 1000;
            window.looked(true, Time(now));
            loop {
                now += 1000;
                polled += 1;
                if window.looked(false, Time(now)) == Next::Sleep {
                    break;
                }
            }
            now += 15_000;
            window.woke(true, Time(now));
            turns += 1;
        }
        // Ten microseconds each, as without windows, and a few trials.
        assert!(polled < 11 * turns + 20_000, "{polled} µs in {turns} turns");
        assert!(turns > 350_000, "{turns}");
    }

    #[test]
    fn a_clients_turn_on_the_same_core_is_no_loss() {
        let mut core = Core::new(ADAPTIVE);
        core.packets(100, 80);
        core.others = 20_000;
        let slept = core.slept;
        assert!(core.packets(1000, 80) <= 21);
        assert_eq!(core.slept, slept);
    }
}
