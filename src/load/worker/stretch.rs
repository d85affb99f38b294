//! The stretch that a worker is in: its begin, its seconds, its end.

use std::collections::BTreeSet;

use super::{DRAIN_LIMIT, Report, Stretch, Work, Worker};
use crate::load::recorder::Recorder;
use crate::load::session::Phase;
use crate::types::time::Time;

impl Worker {
    pub(super) fn begin(&mut self, stretch: Stretch) {
        self.recorder = Recorder::new(stretch.measure_from, stretch.until, stretch.schedule.is_some());
        self.started = false;
        self.answered_at = stretch.start;
        self.draining_since = None;
        self.again.clear();
        let idle = (0..self.slots.len()).filter(|slot| self.slots[*slot].session.phase() == Phase::Down);
        match (&stretch.work, &stretch.schedule) {
            (Work::Storm, Some(_)) => (self.down, self.parked) = (BTreeSet::new(), idle.collect()),
            (Work::Storm, None) => self.down = idle.map(|slot| (stretch.start, slot)).collect(),
            (_, _) => self.down = idle.map(|slot| (Time(0), slot)).collect(),
        }
        self.begin_failover(&stretch);
        self.stretch = Some(stretch);
    }

    /// What time brings to the stretch: its start, due operations, seconds that end, its end.
    pub(super) fn go_on(&mut self, now: Time) {
        let Some(stretch) = &self.stretch else { return };
        if !self.started && now >= stretch.start {
            self.started = true;
            for index in 0..self.slots.len() {
                self.refill(index, now);
                self.flush(index, now);
            }
        }
        self.issue_due(now);
        while let Some(second) = self.recorder.ended_second(now, self.up as u64) {
            self.report(second);
        }
        if self.draining_since.is_none() && self.started && self.is_over(now) {
            self.draining_since = Some(now);
        }
        if let Some(since) = self.draining_since {
            self.drain(now, since);
        }
    }

    fn is_over(&self, now: Time) -> bool {
        let Some(stretch) = &self.stretch else { return true };
        match (stretch.until, &stretch.work) {
            (Some(until), _) => now >= until,
            (None, Work::Fill(keys) | Work::Remove(keys)) => {
                keys.is_empty() && self.again.is_empty() && self.slots.iter().all(|slot| slot.session.in_flight() == 0)
            }
            (None, Work::Mix | Work::Watch(_) | Work::Storm | Work::Idle | Work::Failover { .. }) => false,
        }
    }

    /// Nothing is asked any more; what was asked gets some time to be answered.
    fn drain(&mut self, now: Time, since: Time) {
        let is_quiet = match self.is_storming() {
            true => {
                self.close_storm(now);
                self.up == 0 && self.handshakes == 0
            }
            false => self.slots.iter().all(|slot| slot.session.in_flight() == 0),
        };
        if !is_quiet && now.saturating_since(since) < DRAIN_LIMIT {
            return;
        }
        let Some(stretch) = self.stretch.take() else { return };
        let end = stretch.until.unwrap_or(now).min(since);
        let unsent = stretch.schedule.as_ref().map_or(0, |schedule| schedule.overdue(end));
        let unsent = unsent + self.end_failover(end);
        let unfinished = self.slots.iter().flat_map(|slot| slot.session.waiting()).map(|asked| asked.op);
        self.recorder.unfinished(unfinished);
        self.parked.clear();
        let last = self.recorder.last_second(end, self.up as u64);
        self.report(last);
        self.report(Report::Done { unsent });
    }

    /// The sessions of a storm that stand when it ends.
    fn close_storm(&mut self, now: Time) {
        self.down.clear();
        for index in 0..self.slots.len() {
            if self.slots[index].session.is_up() {
                self.slots[index].session.close(now);
                self.flush(index, now);
            }
        }
    }
}
