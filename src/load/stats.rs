//! What was measured: a worker records into the current second, the coordinator adds the seconds up.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::workload::Op;
use crate::types::time::Time;

/// Longest latency that is told apart from longer ones, ns.
const LATENCY_NS_MAX: u64 = 120_000_000_000;
/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;
pub const SECOND_NS: u64 = 1_000_000_000;

/// An empty histogram of latencies in ns.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS).expect("the bounds are constants in range")
}

/// Latencies of good answers, and counts of bad ones by code.
#[derive(Clone, Debug, Default)]
pub struct OpStats {
    /// In ns. `None` until the first answer: most operations never happen in a run.
    pub latency: Option<Box<Histogram<u64>>>,
    pub errors: BTreeMap<i32, u64>,
}

impl OpStats {
    pub fn count(&self) -> u64 {
        self.latency.as_ref().map_or(0, |latency| latency.len())
    }

    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    fn add(&mut self, other: &OpStats) {
        if let Some(latency) = &other.latency {
            self.latency.get_or_insert_with(|| Box::new(histogram())).add(&**latency).expect("one shape for all");
        }
        for (code, count) in &other.errors {
            *self.errors.entry(*code).or_default() += count;
        }
    }
}

/// Things that happen to connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Links {
    /// Connections that ended without being asked to.
    pub lost: u64,
    /// Sessions that went on over a new connection.
    pub resumed: u64,
    /// Sessions that a server no longer knew.
    pub expired: u64,
    /// Connections that were dropped because the server broke a promise of the protocol.
    pub violations: u64,
}

impl Links {
    pub fn add(&mut self, other: &Links) {
        self.lost += other.lost;
        self.resumed += other.resumed;
        self.expired += other.expired;
        self.violations += other.violations;
    }
}

/// One second of one worker, or of all when added up.
#[derive(Clone, Debug, Default)]
pub struct Interval {
    pub ops: [OpStats; Op::COUNT],
    pub links: Links,
    /// Longest time without any good answer that ended in this second.
    pub gap_ns_max: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// Sessions that stood at its end.
    pub sessions: u64,
    /// The first promises that servers broke, in words.
    pub violations: Vec<String>,
}

impl Interval {
    pub fn record(&mut self, op: Op, since: Time, now: Time) {
        let latency = self.ops[op.index()].latency.get_or_insert_with(|| Box::new(histogram()));
        latency.saturating_record(now.0.saturating_sub(since.0).max(1));
    }

    pub fn error(&mut self, op: Op, code: i32) {
        *self.ops[op.index()].errors.entry(code).or_default() += 1;
    }

    /// Adds what another worker did in the same second, or this one in another; sessions only in the first case.
    pub fn add(&mut self, other: &Interval) {
        self.ops.iter_mut().zip(&other.ops).for_each(|(mine, theirs)| mine.add(theirs));
        self.links.add(&other.links);
        self.gap_ns_max = self.gap_ns_max.max(other.gap_ns_max);
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
        self.violations.extend_from_slice(&other.violations);
    }

    /// The latencies of several operations together.
    pub fn merged(&self, counts: impl Fn(Op) -> bool) -> OpStats {
        let mut all = OpStats::default();
        for op in Op::ALL.into_iter().filter(|op| counts(*op)) {
            all.add(&self.ops[op.index()]);
        }
        all
    }
}

/// Which second of the phase `now` falls in.
pub fn second_of(from: Time, now: Time) -> u32 {
    (now.0.saturating_sub(from.0) / SECOND_NS).min(u32::MAX as u64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_add_up() {
        let (mut first, mut second) = (Interval::default(), Interval::default());
        first.record(Op::Get, Time(0), Time(1_000));
        second.record(Op::Get, Time(0), Time(3_000));
        second.record(Op::Set, Time(0), Time(9_000));
        second.error(Op::Set, -101);
        first.add(&second);
        assert_eq!(first.ops[Op::Get.index()].count(), 2);
        assert_eq!(first.ops[Op::Set.index()].error_count(), 1);
        let all = first.merged(|op| op != Op::Get);
        assert_eq!((all.count(), all.error_count()), (1, 1));
    }

    #[test]
    fn a_latency_beyond_the_range_is_counted_as_the_longest() {
        let mut interval = Interval::default();
        interval.record(Op::Get, Time(0), Time(u64::MAX));
        interval.record(Op::Get, Time(9), Time(0));
        assert_eq!(interval.ops[Op::Get.index()].count(), 2);
    }

    #[test]
    fn seconds_are_counted_from_the_start() {
        assert_eq!(second_of(Time::from_ms(500), Time::from_ms(100)), 0);
        assert_eq!(second_of(Time::from_ms(500), Time::from_ms(1_499)), 0);
        assert_eq!(second_of(Time::from_ms(500), Time::from_ms(1_500)), 1);
    }
}
