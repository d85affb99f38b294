//! A worker's measuring: which answers fall into the measured time, and into which second.

use super::error::UNFINISHED;
use super::stats::{Interval, Links, SECOND_NS, second_of};
use super::worker::Report;
use super::workload::Op;
use crate::types::time::Time;

/// Broken promises that are told in full; the rest are only counted.
const VIOLATIONS_TOLD: usize = 5;

#[derive(Debug)]
pub struct Recorder {
    from: Time,
    until: Option<Time>,
    /// Answers behind the end still count: under a fixed rate they were asked within the time.
    late_counts: bool,
    second: u32,
    interval: Box<Interval>,
    last_good: Time,
    told: usize,
}

/// Measures nothing.
impl Default for Recorder {
    fn default() -> Recorder {
        Recorder::new(Time(u64::MAX), None, false)
    }
}

impl Recorder {
    pub fn new(from: Time, until: Option<Time>, late_counts: bool) -> Recorder {
        Recorder { from, until, late_counts, second: 0, interval: Box::default(), last_good: from, told: 0 }
    }

    fn counts(&self, now: Time) -> bool {
        now >= self.from && (self.late_counts || self.until.is_none_or(|until| now < until))
    }

    pub fn record(&mut self, op: Op, since: Time, now: Time) {
        if self.counts(now) {
            self.interval.record(op, since, now);
            if now > self.last_good {
                self.interval.gap_ns_max = self.interval.gap_ns_max.max(now.0 - self.last_good.0);
                self.last_good = now;
            }
        }
    }

    pub fn error(&mut self, op: Op, code: i32, now: Time) {
        if self.counts(now) {
            self.interval.error(op, code);
        }
    }

    pub fn link(&mut self, now: Time, change: impl FnOnce(&mut Links)) {
        if self.counts(now) {
            change(&mut self.interval.links);
        }
    }

    pub fn violation(&mut self, now: Time, what: String) {
        self.link(now, |links| links.violations += 1);
        if self.told < VIOLATIONS_TOLD {
            self.told += 1;
            self.interval.violations.push(what);
        }
    }

    pub fn received(&mut self, bytes: usize) {
        self.interval.received_bytes += bytes as u64;
    }

    pub fn sent(&mut self, bytes: usize) {
        self.interval.sent_bytes += bytes as u64;
    }

    /// What was asked and never answered.
    pub fn unfinished(&mut self, ops: impl Iterator<Item = Op>) {
        ops.for_each(|op| self.interval.error(op, UNFINISHED));
    }

    /// When the current second ends.
    pub fn boundary(&self) -> Time {
        Time(self.from.0.saturating_add((self.second as u64 + 1).saturating_mul(SECOND_NS)))
    }

    /// The current second if it has ended by `now`; then the next one is current. The last second of a stretch with
    /// an end is given by `last_second` only, since late answers belong to it.
    pub fn ended_second(&mut self, now: Time, sessions: u64) -> Option<Report> {
        let ended = self.boundary();
        if now < self.from {
            // The warm-up's traffic is not part of the first second.
            (self.interval.received_bytes, self.interval.sent_bytes) = (0, 0);
        }
        if now < ended || self.until.is_some_and(|until| ended >= until) {
            return None;
        }
        Some(self.take(sessions))
    }

    /// The last second, at the end of a stretch.
    pub fn last_second(&mut self, now: Time, sessions: u64) -> Report {
        let end = self.until.map_or(now, |until| now.min(until));
        self.interval.gap_ns_max = self.interval.gap_ns_max.max(end.0.saturating_sub(self.last_good.0));
        debug_assert!(second_of(self.from, end) <= self.second + 1);
        let last = self.take(sessions);
        *self = Recorder::default();
        last
    }

    fn take(&mut self, sessions: u64) -> Report {
        let mut interval = std::mem::take(&mut self.interval);
        interval.sessions = sessions;
        let second = self.second;
        self.second += 1;
        Report::Second { second, interval }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(report: Option<Report>) -> Option<(u32, u64)> {
        report.map(|report| match report {
            Report::Second { second, interval } => (second, interval.ops[Op::Get.index()].count()),
            other => panic!("{other:?}"),
        })
    }

    fn at(ms: u64) -> Time {
        Time::from_ms(ms)
    }

    #[test]
    fn the_warm_up_is_not_measured_and_seconds_are_cut() {
        let mut recorder = Recorder::new(at(1_000), Some(at(3_000)), false);
        for ms in [500, 1_000, 1_999] {
            recorder.record(Op::Get, at(ms - 1), at(ms));
        }
        assert_eq!(count(recorder.ended_second(at(1_999), 1)), None);
        assert_eq!(count(recorder.ended_second(at(2_000), 1)), Some((0, 2)));
        recorder.record(Op::Get, at(2_500), at(2_600));
        recorder.record(Op::Get, at(2_900), at(3_000));
        assert_eq!(count(recorder.ended_second(at(3_100), 1)), None, "the last one waits for the end");
        assert_eq!(count(Some(recorder.last_second(at(3_100), 1))), Some((1, 1)));
    }

    #[test]
    fn under_a_fixed_rate_late_answers_count() {
        let mut recorder = Recorder::new(at(0), Some(at(1_000)), true);
        recorder.record(Op::Get, at(900), at(1_500));
        assert_eq!(count(Some(recorder.last_second(at(1_600), 1))), Some((0, 1)));
    }

    #[test]
    fn the_longest_gap_between_good_answers_is_kept() {
        let mut recorder = Recorder::new(at(0), Some(at(1_000)), false);
        for ms in [100, 150, 600] {
            recorder.record(Op::Get, at(0), at(ms));
        }
        let Report::Second { interval, .. } = recorder.last_second(at(1_000), 1) else { panic!("a second") };
        assert_eq!(interval.gap_ns_max, 450_000_000);
    }
}
