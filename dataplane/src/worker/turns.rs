//! Whose turn it is. Queues take turns, a burst each; but a new flow costs several times what a packet
//! of an established one does, and whoever floods a node with connections would have most of the
//! worker's time. So a queue that has brought more new flows than its share gives up turns, as long
//! as others have packets. Nothing is dropped for it: what waits, waits on the queue's own RX ring,
//! and what does not fit there is lost to who sent it.

/// New flows that a turn is worth.
const NEW_FLOWS_PER_TURN: u32 = 16;

/// What a queue owes to others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Debt {
    turns: u32,
}

impl Debt {
    /// After a burst in which policy was asked about so many flows.
    pub fn incur(&mut self, new_flows: u64) {
        let new_flows = u32::try_from(new_flows).unwrap_or(u32::MAX);
        self.turns = new_flows.saturating_sub(1) / NEW_FLOWS_PER_TURN;
    }

    /// Whether the queue gives up this turn.
    pub fn gives_up(&mut self, round: &Round) -> bool {
        if !round.is_contended() {
            self.turns = 0;
        }
        let gives_up = self.turns > 0;
        self.turns = self.turns.saturating_sub(1);
        gives_up
    }
}

/// How many queues had packets in the last round and have in this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Round {
    last: usize,
    now: usize,
}

impl Round {
    /// A queue has packets: it brought some, or gave up its turn.
    pub fn has_packets(&mut self) {
        self.now += 1;
    }

    /// The round is over.
    pub fn end(&mut self) {
        self.last = std::mem::take(&mut self.now);
    }

    /// Whether somebody gains when a queue gives up its turn.
    fn is_contended(&self) -> bool {
        self.last > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue's packets, of which each turn takes at most a burst.
    struct Queue {
        debt: Debt,
        waiting: u64,
        /// Of so many packets one opens a flow; 0 is none.
        one_in: u64,
        taken: u64,
        opened: u64,
    }

    const BURST: u64 = 64;

    fn queue(waiting: u64, one_in: u64) -> Queue {
        Queue {
            debt: Debt::default(),
            waiting,
            one_in,
            taken: 0,
            opened: 0,
        }
    }

    fn turns(queues: &mut [Queue], rounds: u32) {
        let mut round = Round::default();
        for _ in 0..rounds {
            for queue in queues.iter_mut() {
                if queue.debt.gives_up(&round) {
                    round.has_packets();
                    continue;
                }
                let burst = queue.waiting.min(BURST);
                if burst == 0 {
                    continue;
                }
                round.has_packets();
                let opened = burst.checked_div(queue.one_in).unwrap_or(0);
                queue.waiting -= burst;
                queue.taken += burst;
                queue.opened += opened;
                queue.debt.incur(opened);
            }
            round.end();
        }
    }

    #[test]
    fn a_flood_of_new_flows_gets_a_quarter_of_the_turns() {
        let mut queues = [queue(u64::MAX, 1), queue(u64::MAX, 0)];
        turns(&mut queues, 4000);
        assert_eq!(queues[1].taken, 4000 * BURST, "the others lose none");
        let mean = queues[0].opened / 4000;
        assert!((15..=17).contains(&mean), "{mean} new flows a round");
    }

    #[test]
    fn few_new_flows_among_many_packets_cost_no_turn() {
        let mut queues = [queue(u64::MAX, 4), queue(u64::MAX, 0)];
        turns(&mut queues, 100);
        assert_eq!(queues[0].taken, queues[1].taken);
    }

    #[test]
    fn alone_a_queue_may_open_as_many_as_it_will() {
        let mut queues = [queue(u64::MAX, 1), queue(640, 0)];
        turns(&mut queues, 1000);
        let turns = queues[0].taken / BURST;
        // Ten rounds are contended, and the one behind them is not known to be free yet.
        assert!((990..=994).contains(&turns), "{turns}");
    }

    #[test]
    fn of_two_floods_neither_waits_longer_than_the_other() {
        let mut queues = [queue(u64::MAX, 1), queue(u64::MAX, 1)];
        turns(&mut queues, 4000);
        assert!(queues[0].taken.abs_diff(queues[1].taken) <= 4 * BURST);
        assert!(queues[0].taken > 0);
    }
}
