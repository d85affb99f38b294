//! One writer: what it sent, what came of it, and whether that can be.
//!
//! Its znode is its own, so the version counts the sets that were applied to it. An acknowledgement brings the version
//! behind its set: `version - version of the acknowledgement before - 1` sets of unknown outcome were applied between
//! the two. Less than none: one that was acknowledged is gone. More than are unknown: one was applied twice.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::silence::{Gap, Silence};
use crate::load::schedule::Schedule;
use crate::types::time::Time;

/// Gaps from here on are told one by one.
pub const GAP_TOLD: Duration = Duration::from_millis(5);
/// Gaps of one writer that are told; the rest are counted. An hour of a server that always answers too late.
const GAPS_MAX: usize = 1_000_000;
/// Contradictions of one writer that are told in words; the rest are only counted.
const FINDINGS_MAX: usize = 20;

/// What happened to one writer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub acknowledged: u64,
    /// Refused sets by error code.
    pub errors: BTreeMap<i32, u64>,
    /// Connections that ended without being asked to, once the session stood.
    pub disconnects: u64,
    pub resumed: u64,
    pub expired: u64,
    /// Sets in flight when a connection was lost, or never answered.
    pub unknown: u64,
    /// Of these, sets that turned out to have been applied.
    pub unknown_applied: u64,
    /// Sets that were due while the one before was not answered.
    pub skipped: u64,
    /// Acknowledged sets that are not there.
    pub lost: u64,
    /// Sets that were applied although nobody asked for them, or once more than asked.
    pub doubled: u64,
    pub gaps_left_out: u64,
}

/// A set whose connection was lost before its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Unknown {
    sequence: u64,
    /// Which session of the writer's asked, counting from 0.
    session: u64,
}

/// The znode of a writer at the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    pub data: Vec<u8>,
    pub version: i32,
}

#[derive(Clone, Debug)]
pub struct Writer {
    number: u32,
    schedule: Schedule,
    /// Of the set that was sent last; they count 1, 2, …
    sequence: u64,
    /// Sequence numbers; the oldest first, which is the order of the answers.
    in_flight: VecDeque<u64>,
    /// Sequence number and version of the last acknowledgement; 0 of the fresh znode.
    acknowledged: (u64, i64),
    unknown: Vec<Unknown>,
    pub counts: Counts,
    pub silence: Silence,
    /// Of all other writers.
    pub silence_without: Silence,
    /// Those of `GAP_TOLD` and longer.
    pub gaps: Vec<Gap>,
    /// Contradictions, in words.
    pub findings: Vec<String>,
}

/// `[writer, 6 digits] [sequence number, 12 digits] [filler]`.
pub fn value(writer: u32, sequence: u64, filler: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(format!("{writer:06} {sequence:012} ").as_bytes());
    let rest = filler.len().saturating_sub(out.len());
    out.extend_from_slice(&filler[filler.len() - rest..]);
}

/// Writer and sequence number of a value.
fn parse(data: &[u8]) -> Option<(u32, u64)> {
    let text = std::str::from_utf8(data).ok()?;
    let mut words = text.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

impl Writer {
    pub fn new(number: u32, schedule: Schedule, from: Time) -> Writer {
        Writer {
            number,
            schedule,
            sequence: 0,
            in_flight: VecDeque::new(),
            acknowledged: (0, 0),
            unknown: Vec::new(),
            counts: Counts::default(),
            silence: Silence::new(from),
            silence_without: Silence::new(from),
            gaps: Vec::new(),
            findings: Vec::new(),
        }
    }

    pub fn next_at(&self) -> Time {
        self.schedule.next_at()
    }

    /// The next set if one is due: its sequence number, and when it was due. Those that were due before are let go,
    /// so that a server that comes back finds the pace it knows and no burst.
    pub fn ask(&mut self, now: Time) -> Option<(u64, Time)> {
        let mut since = self.schedule.pop(now)?;
        while let Some(later) = self.schedule.pop(now) {
            since = later;
            self.counts.skipped += 1;
        }
        self.sequence += 1;
        self.in_flight.push_back(self.sequence);
        Some((self.sequence, since))
    }

    /// The answer to the oldest set: the version of the znode, or an error code.
    pub fn on_answer(&mut self, now: Time, answer: Result<i32, i32>) {
        let Some(sequence) = self.in_flight.pop_front() else { return };
        match answer {
            Err(code) => *self.counts.errors.entry(code).or_default() += 1,
            Ok(version) => {
                self.counts.acknowledged += 1;
                self.count_gap(now);
                self.on_version(sequence, version as i64);
            }
        }
    }

    fn count_gap(&mut self, now: Time) {
        if let Some(gap) = self.silence.end_at(now).filter(|gap| gap.length() >= GAP_TOLD) {
            match self.gaps.len() < GAPS_MAX {
                true => self.gaps.push(gap),
                false => self.counts.gaps_left_out += 1,
            }
        }
    }

    fn on_version(&mut self, sequence: u64, version: i64) {
        let (before, expected) = (self.acknowledged.0, self.acknowledged.1 + 1);
        let said = || format!("set {sequence} was acknowledged with version {version}, where {expected} was due");
        if version < expected {
            let lost = (expected - version) as u64;
            self.find_lost(lost, format!("{} behind set {before}: {lost} acknowledged sets are gone", said()));
        }
        self.settle_unknown((version - expected).max(0) as u64, said);
        // A session's sets are applied in their order: what it asked before this one is decided.
        let session = self.counts.expired;
        self.unknown.retain(|unknown| unknown.session != session);
        self.acknowledged = (sequence, version);
    }

    /// So many sets were applied that nobody has acknowledged.
    fn settle_unknown(&mut self, applied: u64, said: impl Fn() -> String) {
        let unknown = self.unknown.len() as u64;
        self.counts.unknown_applied += applied.min(unknown);
        if applied > unknown {
            self.find_doubled(applied - unknown, format!("{}, with {unknown} of unknown outcome", said()));
        }
        if applied >= unknown {
            self.unknown.clear();
        }
    }

    pub fn on_connected(&mut self, resumed: bool) {
        self.counts.resumed += resumed as u64;
    }

    pub fn on_expired(&mut self) {
        self.counts.expired += 1;
    }

    /// The connection is gone. `was_up`: its session stood.
    pub fn on_lost(&mut self, was_up: bool) {
        self.counts.disconnects += was_up as u64;
        self.give_up_in_flight();
    }

    fn give_up_in_flight(&mut self) {
        let session = self.counts.expired;
        self.counts.unknown += self.in_flight.len() as u64;
        self.unknown.extend(self.in_flight.drain(..).map(|sequence| Unknown { sequence, session }));
    }

    pub(super) fn end(&mut self, now: Time) {
        self.count_gap(now);
        self.silence.close();
        self.silence_without.end_at(now);
        self.silence_without.close();
    }

    /// What stands in the znode when all is over; `None`: there is no znode.
    pub fn check_final(&mut self, found: Option<Found>) {
        self.give_up_in_flight();
        let (sequence, version) = self.acknowledged;
        let Some(found) = found else {
            return self.find_lost(self.counts.acknowledged.max(1), "its znode is gone".to_owned());
        };
        let said = || {
            let value = String::from_utf8_lossy(&found.data[..found.data.len().min(20)]).into_owned();
            let found = found.version;
            format!(
                "at the end \"{value}\" stands in version {found}; acknowledged are set {sequence} and version {version}"
            )
        };
        let applied = found.version as i64 - version;
        if applied < 0 {
            return self.find_lost(applied.unsigned_abs(), said());
        }
        let stands =
            if found.version == 0 && found.data.is_empty() { Some((self.number, 0)) } else { parse(&found.data) };
        let may_stand = |at: u64| match applied {
            0 => at == sequence,
            _ => self.unknown.iter().any(|unknown| unknown.sequence == at),
        };
        match stands {
            Some((writer, at)) if writer == self.number && may_stand(at) => {}
            // Enough sets of unknown outcome are there, and it is none of them.
            Some((writer, at)) if writer == self.number && at <= sequence && applied > 0 => {
                return self.find_doubled(applied as u64, said());
            }
            Some(_) | None => self.find_lost(1, said()),
        }
        self.settle_unknown(applied as u64, said);
    }

    fn find_lost(&mut self, count: u64, what: String) {
        self.counts.lost += count;
        self.find(what);
    }

    fn find_doubled(&mut self, count: u64, what: String) {
        self.counts.doubled += count;
        self.find(what);
    }

    fn find(&mut self, what: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(format!("writer {}: {what}", self.number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_ms(ms)
    }

    /// A writer that is asked every millisecond.
    struct Bench {
        writer: Writer,
        now: u64,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { writer: Writer::new(3, Schedule::new(at(0), 1000.0, 0, 1), at(0)), now: 0 }
        }

        fn ask(&mut self) -> u64 {
            self.now += 1;
            self.writer.ask(at(self.now)).unwrap().0
        }

        fn set(&mut self, version: i32) {
            self.ask();
            self.writer.on_answer(at(self.now), Ok(version));
        }

        fn found(&mut self, sequence: u64, version: i32) -> (u64, u64) {
            let mut data = Vec::new();
            value(3, sequence, b"", &mut data);
            self.writer.check_final(Some(Found { data, version }));
            self.verdict()
        }

        fn verdict(&self) -> (u64, u64) {
            (self.writer.counts.lost, self.writer.counts.doubled)
        }
    }

    #[test]
    fn a_value_tells_its_writer_and_its_number_and_has_its_size() {
        let mut out = Vec::new();
        value(7, 12_345, &[b'x'; 100], &mut out);
        assert_eq!((out.len(), parse(&out)), (100, Some((7, 12_345))));
        value(7, 1, b"", &mut out);
        assert_eq!(parse(&out), Some((7, 1)));
        assert_eq!(parse(b"nonsense"), None);
    }

    #[test]
    fn what_was_acknowledged_is_there() {
        let mut bench = Bench::new();
        (1..=5).for_each(|version| bench.set(version));
        assert_eq!(bench.found(5, 5), (0, 0));
        assert_eq!(Bench::new().found(0, 0), (0, 0));
    }

    #[test]
    fn an_acknowledged_set_that_is_gone_is_lost() {
        let mut bench = Bench::new();
        (1..=5).for_each(|version| bench.set(version));
        bench.set(4);
        assert_eq!(bench.verdict(), (2, 0), "the sets with versions 4 and 5");
        assert_eq!(bench.found(6, 4), (2, 0));
        assert_eq!(bench.writer.findings.len(), 1);
    }

    #[test]
    fn what_is_gone_at_the_end_is_lost() {
        let check = |sequence, version, expected| {
            let mut bench = Bench::new();
            (1..=5).for_each(|version| bench.set(version));
            assert_eq!(bench.found(sequence, version), expected, "{sequence}, {version}");
        };
        check(3, 3, (2, 0));
        check(4, 5, (1, 0));
        let mut bench = Bench::new();
        bench.set(1);
        bench.writer.check_final(None);
        assert_eq!(bench.verdict(), (1, 0));
        let mut bench = Bench::new();
        bench.set(1);
        bench.writer.check_final(Some(Found { data: b"of somebody else".to_vec(), version: 1 }));
        assert_eq!(bench.verdict(), (1, 0));
    }

    #[test]
    fn a_set_that_was_applied_twice_is_doubled() {
        let mut bench = Bench::new();
        bench.set(1);
        bench.set(3);
        assert_eq!(bench.verdict(), (0, 1));
        assert_eq!(bench.found(2, 4), (0, 2), "and once more behind its answer");
    }

    #[test]
    fn an_unknown_set_may_be_there_once_or_not_at_all() {
        let check = |version, expected, applied| {
            let mut bench = Bench::new();
            bench.set(1);
            bench.ask();
            bench.ask();
            bench.writer.on_lost(true);
            bench.writer.on_connected(true);
            bench.set(version);
            assert_eq!((bench.verdict(), bench.writer.counts.unknown_applied), (expected, applied), "{version}");
            assert_eq!(bench.writer.counts.unknown, 2);
        };
        check(2, (0, 0), 0);
        check(3, (0, 0), 1);
        check(4, (0, 0), 2);
        check(5, (0, 1), 2);
        check(1, (1, 0), 0);
    }

    #[test]
    fn behind_the_next_answer_of_its_session_an_unknown_set_can_no_longer_come() {
        let mut bench = Bench::new();
        bench.ask();
        bench.writer.on_lost(true);
        bench.writer.on_connected(true);
        bench.set(1);
        bench.set(3);
        assert_eq!(bench.verdict(), (0, 1));
    }

    #[test]
    fn what_an_expired_session_asked_may_still_come() {
        let mut bench = Bench::new();
        bench.ask();
        bench.writer.on_lost(true);
        bench.writer.on_expired();
        bench.writer.on_connected(false);
        bench.set(1);
        bench.set(3);
        assert_eq!((bench.verdict(), bench.writer.counts.unknown_applied), ((0, 0), 1));
        bench.set(5);
        assert_eq!(bench.verdict(), (0, 1), "but once only");
    }

    #[test]
    fn at_the_end_an_unknown_set_may_stand_there() {
        let check = |sequence, version, expected| {
            let mut bench = Bench::new();
            bench.set(1);
            bench.ask();
            bench.ask();
            assert_eq!(bench.found(sequence, version), expected, "{sequence}, {version}");
        };
        check(1, 1, (0, 0));
        check(2, 2, (0, 0));
        check(3, 2, (0, 0));
        check(3, 3, (0, 0));
        check(1, 2, (0, 1));
        check(3, 4, (0, 1));
        check(9, 2, (1, 0));
    }

    #[test]
    fn a_refused_set_counts_as_an_error_and_was_not_applied() {
        let mut bench = Bench::new();
        bench.set(1);
        bench.ask();
        bench.writer.on_answer(at(2), Err(-101));
        bench.set(2);
        assert_eq!((bench.verdict(), bench.writer.counts.errors.get(&-101)), ((0, 0), Some(&1)));
    }

    #[test]
    fn what_was_due_while_nothing_could_be_sent_is_let_go() {
        let mut writer = Writer::new(0, Schedule::new(at(0), 1000.0, 0, 1), at(0));
        assert_eq!(writer.ask(at(0)), Some((1, at(0))));
        assert_eq!(writer.ask(at(10)), Some((2, at(10))));
        assert_eq!(writer.counts.skipped, 9);
        assert_eq!(writer.next_at(), at(11));
    }
}
