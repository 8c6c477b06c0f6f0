//! When a container's probes are asked, and what their answers add up to, as the kubelet has it
//! (`pkg/kubelet/prober/worker.go`). Time is an argument.
//!
//! An attempt comes each period, the first one when the initial delay is over, or a period where there
//! is none: the kubelet's ticker goes before the container does. A start-up probe keeps the two others
//! waiting. Beside these attempts lie glances, soon after the container's start, which count when they
//! succeed and never when they fail: a program that comes up should not have to wait a whole period
//! for being found so.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Probe};

use super::{Finding, Kind, period};

/// Between two glances.
const GLANCE: Duration = Duration::from_millis(200);
/// Glances after a container's start, at most.
const GLANCES: u32 = 25;

/// What an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// One that counts whatever it finds.
    Due,
    /// One that counts if it succeeds.
    Glance,
}

/// What an answer changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing that anybody is told of.
    None,
    /// An attempt failed, and that is told.
    Unhealthy,
    /// Attempts have failed as often as they may: the container ends.
    Ends,
}

/// One probe of a container that runs.
#[derive(Debug)]
struct Rounds {
    period: Duration,
    successes: u32,
    failures: u32,
    due: Instant,
    glance: Option<Instant>,
    glances: u32,
    asked: Option<Attempt>,
    good: u32,
    bad: u32,
    /// What the answers have added up to.
    holds: bool,
    /// No more attempts: a start-up probe's work is done, or the container is to end.
    over: bool,
}

impl Rounds {
    fn new(kind: Kind, probe: &Probe, started: Instant) -> Rounds {
        let count = |wanted: Option<i32>, usual: u32| match wanted {
            Some(wanted) => u32::try_from(wanted).map_or(usual, |wanted| wanted.max(1)),
            None => usual,
        };
        let seconds = probe.initial_delay_seconds.unwrap_or(0);
        let delay = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let period = period(probe);
        let first = if delay.is_zero() { period } else { delay };
        Rounds {
            period,
            successes: count(probe.success_threshold, 1),
            failures: count(probe.failure_threshold, 3),
            due: started + first,
            glance: (kind != Kind::Liveness).then_some(started + delay),
            glances: GLANCES,
            asked: None,
            good: 0,
            bad: 0,
            holds: kind == Kind::Liveness,
            over: false,
        }
    }

    fn next(&self) -> Option<Instant> {
        let waits = self.asked.is_none() && !self.over;
        waits.then(|| self.glance.map_or(self.due, |glance| glance.min(self.due)))
    }

    /// Takes the attempt that is due, if one is.
    fn take(&mut self, now: Instant) -> bool {
        if self.next().is_none_or(|next| next > now) {
            return false;
        }
        let attempt = if self.due <= now {
            self.tick_on(now);
            Attempt::Due
        } else {
            Attempt::Glance
        };
        self.asked = Some(attempt);
        true
    }

    /// Puts the next attempt behind `now`, as a ticker does, which makes up for nothing that it missed.
    fn tick_on(&mut self, now: Instant) {
        let behind = now.saturating_duration_since(self.due);
        let missed = behind.as_nanos() / self.period.as_nanos();
        let ticks = u32::try_from(missed + 1).unwrap_or(u32::MAX);
        self.due += self.period.saturating_mul(ticks);
    }

    fn answer(&mut self, kind: Kind, finding: &Finding, now: Instant) -> Turn {
        let Some(attempt) = self.asked.take() else {
            return Turn::None;
        };
        match finding {
            Finding::Good | Finding::Unknown(_) => {
                if attempt == Attempt::Glance {
                    self.due = now + self.period;
                }
                self.glance = None;
                (self.good, self.bad) = (self.good.saturating_add(1), 0);
                if self.good >= self.successes {
                    self.holds = true;
                    self.over = kind == Kind::Startup;
                }
                Turn::None
            }
            // Nothing was found out, so nothing changes.
            Finding::Errored(_) if attempt == Attempt::Due => Turn::Unhealthy,
            Finding::Bad(_) if attempt == Attempt::Due => {
                (self.good, self.bad) = (0, self.bad.saturating_add(1));
                self.glance_again(now);
                if self.bad < self.failures {
                    return Turn::Unhealthy;
                }
                self.holds = false;
                if kind == Kind::Readiness {
                    return Turn::Unhealthy;
                }
                self.over = true;
                Turn::Ends
            }
            Finding::Bad(_) | Finding::Errored(_) => {
                self.glance_again(now);
                Turn::None
            }
        }
    }

    fn glance_again(&mut self, now: Instant) {
        self.glances = self.glances.saturating_sub(1);
        let more = self.glance.is_some() && self.glances > 0;
        self.glance = more.then_some(now + GLANCE);
    }
}

/// The probes of a container that runs. Of one that does not: none, and it has not started up.
#[derive(Debug, Default)]
pub struct Probing {
    rounds: [Option<Rounds>; 3],
    up: bool,
}

impl Probing {
    /// The probes of a container that has just been started.
    pub fn new(container: &Container, started: Instant) -> Probing {
        let rounds = Kind::ALL.map(|kind| {
            kind.of(container)
                .map(|probe| Rounds::new(kind, probe, started))
        });
        let up = rounds[Kind::Startup as usize].is_none();
        Probing { rounds, up }
    }

    /// Which probes may be asked now.
    fn open(&self, kind: Kind) -> bool {
        (kind == Kind::Startup) != self.up
    }

    /// When something is due next.
    pub fn next(&self) -> Option<Instant> {
        let open = Kind::ALL.into_iter().filter(|kind| self.open(*kind));
        open.filter_map(|kind| self.rounds[kind as usize].as_ref()?.next())
            .min()
    }

    /// The probes that are due, which their answers are now awaited from.
    pub fn take_due(&mut self, now: Instant) -> Vec<Kind> {
        let mut due = Vec::new();
        for kind in Kind::ALL {
            let open = self.open(kind);
            let rounds = self.rounds[kind as usize].as_mut();
            if rounds.is_some_and(|rounds| open && rounds.take(now)) {
                due.push(kind);
            }
        }
        due
    }

    /// Takes a probe's answer.
    pub fn answer(&mut self, kind: Kind, finding: &Finding, now: Instant) -> Turn {
        let Some(rounds) = self.rounds[kind as usize].as_mut() else {
            return Turn::None;
        };
        let turn = rounds.answer(kind, finding, now);
        if kind == Kind::Startup && rounds.holds && !self.up {
            self.up = true;
            if let Some(readiness) = &mut self.rounds[Kind::Readiness as usize] {
                readiness.due = readiness.due.max(now);
            }
            if let Some(liveness) = &mut self.rounds[Kind::Liveness as usize] {
                // Its ticker has gone on meanwhile.
                if liveness.due <= now {
                    liveness.tick_on(now);
                }
            }
        }
        if turn == Turn::Ends {
            // What is about to end is not asked any more whether it lives.
            for kind in [Kind::Startup, Kind::Liveness] {
                if let Some(rounds) = &mut self.rounds[kind as usize] {
                    rounds.over = true;
                }
            }
        }
        turn
    }

    /// Whether the container has started up.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Whether it is ready, as far as probes tell.
    pub fn is_ready(&self) -> bool {
        let readiness = self.rounds[Kind::Readiness as usize].as_ref();
        self.up && readiness.is_none_or(|readiness| readiness.holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const SECOND: Duration = Duration::from_secs(1);

    /// A container whose probes answer as they are told, second by second.
    struct Played {
        probing: Probing,
        begin: Instant,
        now: Instant,
    }

    impl Played {
        fn new(probes: Value) -> Played {
            let mut container = json!({"name": "c", "image": "i"});
            for (name, probe) in probes.as_object().unwrap() {
                container[name] = probe.clone();
                container[name]["tcpSocket"] = json!({"port": 80});
            }
            let begin = Instant::now();
            let container = serde_json::from_value(container).unwrap();
            Played {
                probing: Probing::new(&container, begin),
                begin,
                now: begin,
            }
        }

        /// Goes on until `seconds` after the start; what was told: when, of which, and what.
        fn until(&mut self, seconds: u64, good: impl Fn(Kind) -> bool) -> Vec<(u64, Kind, Turn)> {
            let end = self.begin + SECOND * u32::try_from(seconds).unwrap();
            let mut told = Vec::new();
            while let Some(next) = self.probing.next().filter(|next| *next <= end) {
                self.now = self.now.max(next);
                for kind in self.probing.take_due(self.now) {
                    let finding = match good(kind) {
                        true => Finding::Good,
                        false => Finding::Bad("it is broken".into()),
                    };
                    let turn = self.probing.answer(kind, &finding, self.now);
                    if turn != Turn::None {
                        told.push(((self.now - self.begin).as_secs(), kind, turn));
                    }
                }
            }
            self.now = end;
            told
        }
    }

    #[test]
    fn a_container_ends_when_it_has_failed_as_often_as_it_may() {
        let mut played = Played::new(json!({"livenessProbe":
            {"initialDelaySeconds": 5, "periodSeconds": 3, "failureThreshold": 2}}));
        assert_eq!(played.until(8, |_| true), []);
        assert_eq!(played.probing.next(), Some(played.begin + SECOND * 11));
        let liveness = Kind::Liveness;
        let expected = [(11, liveness, Turn::Unhealthy), (14, liveness, Turn::Ends)];
        assert_eq!(played.until(60, |_| false), expected);
        assert_eq!(played.probing.next(), None);
    }

    #[test]
    fn one_success_between_failures_begins_anew() {
        let mut played = Played::new(json!({"livenessProbe":
            {"periodSeconds": 1, "failureThreshold": 2}}));
        let told = |at, turn| [(at, Kind::Liveness, turn)];
        assert_eq!(played.until(1, |_| false), told(1, Turn::Unhealthy));
        assert_eq!(played.until(2, |_| true), []);
        assert_eq!(played.until(3, |_| false), told(3, Turn::Unhealthy));
        assert_eq!(played.until(4, |_| false), told(4, Turn::Ends));
    }

    #[test]
    fn start_up_keeps_the_others_waiting_and_ends_what_never_comes_up() {
        let probes = json!({"startupProbe": {"periodSeconds": 10, "failureThreshold": 3},
            "livenessProbe": {"periodSeconds": 4}, "readinessProbe": {"periodSeconds": 4}});
        let mut slow = Played::new(probes.clone());
        let startup = Kind::Startup;
        let first = [
            (10, startup, Turn::Unhealthy),
            (20, startup, Turn::Unhealthy),
        ];
        assert_eq!(slow.until(25, |_| false), first);
        assert!(!slow.probing.is_up() && !slow.probing.is_ready());
        assert_eq!(slow.until(30, |_| true), []);
        assert!(slow.probing.is_up() && slow.probing.is_ready());
        let liveness = slow.until(32, |kind| kind != Kind::Liveness);
        assert_eq!(liveness, [(32, Kind::Liveness, Turn::Unhealthy)]);

        let mut never = Played::new(probes);
        let ends = (30, startup, Turn::Ends);
        assert_eq!(never.until(60, |_| false), [first[0], first[1], ends]);
        assert_eq!(never.probing.next(), None);
    }

    #[test]
    fn readiness_comes_soon_goes_by_its_threshold_and_never_ends_a_container() {
        let mut played = Played::new(json!({"readinessProbe":
            {"periodSeconds": 10, "failureThreshold": 2, "successThreshold": 2}}));
        assert_eq!(played.until(1, |_| false), [], "glances are not told");
        assert_eq!(played.until(2, |_| true), []);
        assert!(!played.probing.is_ready(), "one success of two");
        assert_eq!(played.until(12, |_| true), []);
        assert!(played.probing.is_ready());
        assert_eq!(played.until(22, |_| false).len(), 1);
        assert!(played.probing.is_ready(), "one failure of two");
        assert_eq!(played.until(32, |_| false).len(), 1);
        assert!(!played.probing.is_ready());
        assert!(played.probing.next().is_some());
    }

    #[test]
    fn what_nothing_was_found_out_of_changes_nothing() {
        let mut played = Played::new(json!({"livenessProbe":
            {"periodSeconds": 1, "failureThreshold": 1}}));
        let now = played.begin + SECOND;
        assert_eq!(played.probing.take_due(now), [Kind::Liveness]);
        assert_eq!(played.probing.take_due(now), [], "one answer at a time");
        let errored = Finding::Errored("no such program".into());
        let turn = played.probing.answer(Kind::Liveness, &errored, now);
        assert_eq!(turn, Turn::Unhealthy);
        assert!(played.probing.next().is_some());
    }

    #[test]
    fn an_answer_that_takes_long_is_followed_by_one_attempt_and_not_by_all_that_were_missed() {
        let mut played = Played::new(json!({"livenessProbe": {"periodSeconds": 1}}));
        let begun = played.begin + SECOND;
        assert_eq!(played.probing.take_due(begun), [Kind::Liveness]);
        let late = begun + SECOND * 7;
        played.probing.answer(Kind::Liveness, &Finding::Good, late);
        assert_eq!(played.probing.take_due(late), [Kind::Liveness]);
        played.probing.answer(Kind::Liveness, &Finding::Good, late);
        assert_eq!(played.probing.next(), Some(late + SECOND));
    }
}
