use std::time::Duration;

use dataplane::Direction;

use super::*;

const FIRST: PolicyId = PolicyId(1);
const SECOND: PolicyId = PolicyId(2);

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(second)
}

fn packets(packets: u64) -> RuleHits {
    RuleHits {
        connections: packets / 2,
        packets,
    }
}

/// Every counter says the same.
fn all(number: u64) -> impl Fn(CounterId, &mut [RuleHits]) {
    move |_, readings| readings.fill(packets(number))
}

#[test]
fn a_counter_that_is_given_away_begins_anew_and_nothing_is_lost_in_between() {
    let compounds = Compounds::default();
    let mut counters = Counters::new(100);
    let mut hits = Hits::default();
    counters.claim(FIRST, Direction::Ingress, false, 1);
    let counter = counters.rule(FIRST, Direction::Ingress, 0);
    let update = |hits: &mut Hits, counters: &Counters, number, second| {
        let owners = Owners {
            counters,
            compounds: &compounds,
        };
        hits.update(owners, all(number), at(second));
    };
    // Hit before it was ever looked at.
    update(&mut hits, &counters, 4, 1);
    assert_eq!(hits.of(counter), (packets(4), Some(at(1))));
    update(&mut hits, &counters, 4, 2);
    assert_eq!(hits.of(counter).1, Some(at(1)), "no hit since");
    update(&mut hits, &counters, 10, 3);
    assert_eq!(hits.of(counter), (packets(10), Some(at(3))));
    counters.leave(FIRST);
    counters.keep();
    counters.claim(SECOND, Direction::Egress, false, 1);
    assert_ne!(counters.rule(SECOND, Direction::Egress, 0), counter);
    counters.have_read();
    // Workers still count by an older table.
    update(&mut hits, &counters, 12, 4);
    counters.have_read();
    counters.claim(SECOND, Direction::Egress, false, 2);
    assert_eq!(counters.rule(SECOND, Direction::Egress, 1), counter);
    // Hit before it was looked at, by whoever has it now.
    update(&mut hits, &counters, 14, 5);
    assert_eq!(hits.of(counter), (packets(2), Some(at(5))));
    let other = counters.rule(SECOND, Direction::Egress, 0);
    assert_eq!(
        hits.by_policy()[&SECOND].packets,
        2 + hits.of(other).0.packets
    );
    let owners = Owners {
        counters: &counters,
        compounds: &compounds,
    };
    hits.restart(owners, counter, |_| packets(20), at(6));
    assert_eq!(hits.of(counter), (RuleHits::default(), None));
    update(&mut hits, &counters, 22, 7);
    assert_eq!(hits.of(counter), (packets(2), Some(at(7))));
}

#[test]
fn policies_that_were_never_published_leave_their_counters_free() {
    let mut counters = Counters::new(2);
    counters.claim(FIRST, Direction::Ingress, false, 1);
    counters.leave(FIRST);
    counters.take_back();
    counters.claim(SECOND, Direction::Ingress, false, 1);
    assert_eq!(counters.without(), 0);
}
