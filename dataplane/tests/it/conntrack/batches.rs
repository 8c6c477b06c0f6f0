//! Look-ups in batches say what look-ups one by one say.

use dataplane::conntrack::BATCH;
use proptest::prelude::*;

use super::*;

fn entry(key: FlowKey, ends: Ends, accept: bool) -> NewEntry {
    let verdict = verdict(accept, 2, key.source_port);
    NewEntry {
        translation: None,
        key,
        ends,
        verdict,
        counters: counters(&verdict),
        epochs: epochs(2),
        facts: Facts::Udp,
    }
}

fn flow(number: u16) -> (FlowKey, Ends) {
    let (source, destination) = (1 + u32::from(number % 5), 7 + u32::from(number % 3));
    let key = key(Protocol::UDP, source, destination, number);
    (key, ends(source, destination))
}

proptest! {
    #[test]
    fn a_batch_is_its_look_ups_one_by_one(
        inserted in proptest::collection::vec((0..300_u16, any::<bool>(), 0..50_u64), 0..300),
        asked in proptest::collection::vec((0..400_u16, any::<bool>(), 0..10_u8), 0..150),
        later in 0..80_u64,
    ) {
        // Of this size buckets run over into their others.
        let table = table(settings(256));
        for (number, accept, second) in inserted {
            let (key, ends) = flow(number);
            let _ = table.insert(&entry(key, ends, accept), at(second));
        }
        let questions: Vec<(FlowKey, Ends)> = asked
            .into_iter()
            .map(|(number, reply, odd)| {
                let (key, mut ends) = flow(number);
                match odd {
                    0 => ends.source.0 += 1,
                    1 => ends.ingress.0 += 1,
                    2 => ends.destination.0 += 1,
                    _ => {}
                }
                if reply { (key.reversed(), back(ends)) } else { (key, ends) }
            })
            .collect();
        let mut hits = vec![None; questions.len()];
        table.lookup_batch(&questions, at(later), &mut hits);
        for ((key, ends), hit) in questions.iter().zip(hits) {
            prop_assert_eq!(hit, table.lookup(key, ends, at(later)));
        }
    }
}

#[test]
fn everything_in_a_full_table_is_found() {
    let table = table(settings(4096));
    let flows: Vec<_> = (0..4096).map(flow).collect();
    for (key, ends) in &flows {
        table.insert(&entry(*key, *ends, true), at(0)).unwrap();
    }
    let mut hits = vec![None; flows.len()];
    table.lookup_batch(&flows, at(1), &mut hits);
    for ((key, _), hit) in flows.iter().zip(&hits) {
        let rule = hit.unwrap().verdict.provenance.rule;
        assert_eq!(rule, Some(key.source_port));
    }
    assert!(flows.len() % BATCH == 0 && table.counters().evicted == 0);
}

/// Packets that come often are seldom noted, and yet nothing expires before its time.
#[test]
fn silence_counts_from_the_last_packet_whether_noted_or_not() {
    for gap_ns in [1_000_000, 100_000_000, 300_000_000, 500_000_000] {
        let table = table(settings(4));
        let (key, ends) = flow(1);
        let mut now = at(0);
        table.insert(&entry(key, ends, true), now).unwrap();
        for _ in 0..200 {
            now = now.plus_nanos(gap_ns);
            let hit = table.lookup(&key, &ends, now).unwrap();
            table.track(&hit, &Facts::Udp, now).unwrap();
        }
        let timeout_s = u64::from(Timeouts::default().udp_s);
        let until = now.plus_seconds(timeout_s);
        assert!(table.lookup(&key, &ends, until).is_some(), "{gap_ns}");
        let gone = until.plus_seconds(1);
        assert!(table.lookup(&key, &ends, gone).is_none(), "{gap_ns}");
    }
}
