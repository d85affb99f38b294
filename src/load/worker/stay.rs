//! The writers of a failover: each sets its own znode at its own server, and comes back to it.

use std::time::SystemTime;

use super::{Report, Stretch, Work, Worker};
use crate::load::failover::{Failover, RETRY, value};
use crate::load::workload::Op;
use crate::types::time::Time;
use crate::wire::client_encode::{self as encode, ANY_VERSION};

impl Worker {
    pub(super) fn begin_failover(&mut self, stretch: &Stretch) {
        if let Work::Failover { rate } = stretch.work {
            let from_wall = SystemTime::now() + stretch.measure_from.saturating_since(self.clock.now());
            let failover = Failover::new(self.slots.len(), rate, stretch, from_wall);
            self.failover = Some(Box::new(failover));
        }
    }

    /// Tells what became of the writers, and how many sets were due and not sent.
    pub(super) fn end_failover(&mut self, end: Time) -> u64 {
        let Some(mut failover) = self.failover.take() else { return 0 };
        failover.end(end);
        let skipped = failover.writers.iter().map(|writer| writer.counts.skipped).sum();
        self.report(Report::Failover(failover));
        skipped
    }

    /// The next attempt goes to the same server.
    pub(super) fn stay(&mut self, index: usize, now: Time) {
        // The first one at once: a server that has dropped its clients may still be there.
        let wait = if self.slots[index].failures == 0 { RETRY / 10 } else { RETRY };
        if !self.is_closing {
            self.down.insert((now + wait, index));
        }
    }

    /// What is due of all writers, and the timer for what is due next.
    pub(super) fn ask_writers(&mut self, now: Time) {
        for index in 0..self.slots.len() {
            self.ask_writer(index, now);
            self.flush(index, now);
        }
        let Some(failover) = &self.failover else { return };
        let has_room = |index: &usize| {
            let session = &self.slots[*index].session;
            session.is_up() && session.in_flight() < self.plan.depth
        };
        let next = (0..self.slots.len()).filter(has_room).map(|index| failover.writers[index].next_at()).min();
        if let Some(next) = next {
            self.timer.set(now, next);
        }
    }

    /// Queues the next set of a writer if it is due and there is room for it.
    pub(super) fn ask_writer(&mut self, index: usize, now: Time) {
        let until = self.stretch.as_ref().and_then(|stretch| stretch.until);
        let Worker { slots, failover: Some(failover), own_paths, own_value, value: filler, plan, .. } = self else {
            return;
        };
        let session = &mut slots[index].session;
        let may_ask = session.is_up() && session.in_flight() < plan.depth && until.is_none_or(|until| now < until);
        if may_ask && let Some((sequence, since)) = failover.writers[index].ask(now) {
            value(index as u32, sequence, filler, own_value);
            session.ask(since, None, |out, xid| {
                encode::set_data(out, xid, &own_paths[index], own_value, ANY_VERSION);
                Op::Set
            });
        }
    }
}
