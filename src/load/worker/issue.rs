//! What a worker asks next, and of which session.

use std::ops::Range;

use super::{Slot, Stretch, Work, Worker};
use crate::load::fan_out::Watch;
use crate::load::workload::Op;
use crate::types::time::Time;
use crate::wire::client::OpCode;
use crate::wire::client_encode::{self as encode, ANY_VERSION};

/// `AddWatchMode.PERSISTENT`.
const PERSISTENT: i32 = 0;

impl Worker {
    /// Gives one session what it may ask now.
    pub(super) fn refill(&mut self, index: usize, now: Time) {
        if !self.started || self.draining_since.is_some() || !self.slots[index].session.is_up() {
            return;
        }
        match self.stretch.as_ref().map(|stretch| &stretch.work) {
            None | Some(Work::Idle) => {}
            Some(Work::Failover { .. }) => self.ask_writer(index, now),
            Some(Work::Storm) => self.slots[index].session.close(now),
            Some(Work::Watch(_)) if self.writer == Some(index) => self.begin_round(index, now),
            Some(Work::Watch(_)) => self.arm(index, now),
            Some(Work::Mix | Work::Fill(_) | Work::Remove(_)) => {
                while self.slots[index].session.in_flight() < self.plan.depth {
                    let Some(since) = self.intended(now) else { break };
                    if !self.ask(index, since) {
                        break;
                    }
                }
            }
        }
    }

    /// The time of the next operation: now in a closed loop, else the schedule's if one is due.
    fn intended(&mut self, now: Time) -> Option<Time> {
        let stretch = self.stretch.as_mut()?;
        if stretch.until.is_some_and(|until| now >= until) {
            return None;
        }
        match &mut stretch.schedule {
            None => Some(now),
            Some(schedule) => schedule.pop(now),
        }
    }

    /// Queues the next request of the stretch. False: there is none.
    fn ask(&mut self, index: usize, since: Time) -> bool {
        let Worker { slots, stretch, generator, templates, again, .. } = self;
        let Slot { session, own, .. } = &mut slots[index];
        let mut next_key = |keys: &mut Range<u32>| again.pop().or_else(|| keys.next());
        match stretch.as_mut().map(|stretch| &mut stretch.work) {
            Some(Work::Mix) => {
                let Some(generator) = generator else { return false };
                session.ask(since, None, |out, xid| generator.put_next(templates, own, out, xid));
            }
            Some(Work::Fill(keys)) => {
                let Some(key) = next_key(keys) else { return false };
                session.ask(since, Some(key), |out, xid| {
                    templates.create_key(out, xid, key);
                    Op::Fill
                });
            }
            Some(Work::Remove(keys)) => {
                let Some(key) = next_key(keys) else { return false };
                session.ask(since, Some(key), |out, xid| {
                    templates.delete_key(out, xid, key);
                    Op::Delete
                });
            }
            Some(Work::Watch(_) | Work::Storm | Work::Idle | Work::Failover { .. }) | None => return false,
        }
        true
    }

    /// What is due by time rather than by an answer: operations of a fixed rate, rounds of watches. Sets the timer for
    /// what comes next.
    pub(super) fn issue_due(&mut self, now: Time) {
        let Some(stretch) = &self.stretch else { return };
        if !self.started || self.draining_since.is_some() {
            return;
        }
        match (&stretch.work, &stretch.schedule) {
            (Work::Watch(_), _) => {
                if let Some(writer) = self.writer {
                    self.begin_round(writer, now);
                    self.flush(writer, now);
                }
            }
            (Work::Failover { .. }, _) => return self.ask_writers(now),
            (_, None) => return,
            (Work::Storm, Some(_)) => self.unpark(now),
            (Work::Mix | Work::Fill(_) | Work::Remove(_) | Work::Idle, Some(_)) => self.deal(now),
        }
        if let Some(schedule) = self.stretch.as_ref().and_then(|stretch| stretch.schedule.as_ref()) {
            self.timer.set(now, schedule.next_at());
        }
    }

    /// One operation to each session in turn, as long as some are due and some session has room.
    fn deal(&mut self, now: Time) {
        let mut without_room = 0;
        while without_room < self.slots.len() {
            let index = self.round_robin;
            self.round_robin = (index + 1) % self.slots.len();
            let session = &self.slots[index].session;
            if !session.is_up() || session.in_flight() >= self.plan.depth {
                without_room += 1;
                continue;
            }
            let Some(since) = self.intended(now) else { break };
            if !self.ask(index, since) {
                break;
            }
            without_room = 0;
            self.dealt.push(index);
        }
        while let Some(index) = self.dealt.pop() {
            // A session that was dealt several has nothing unsent the second time.
            self.flush(index, now);
        }
    }

    /// Storm at a fixed rate: connections that are due.
    fn unpark(&mut self, now: Time) {
        while !self.parked.is_empty()
            && let Some(since) = self.intended(now)
            && let Some(slot) = self.parked.pop()
        {
            self.connect(slot, since, now);
        }
    }

    /// A watcher sets its watch, unless it stands.
    fn arm(&mut self, index: usize, now: Time) {
        let Worker { slots, watched, plan, .. } = self;
        let slot = &mut slots[index];
        if slot.watch != Watch::Unarmed {
            return;
        }
        slot.watch = Watch::Arming;
        slot.session.ask(now, None, |out, xid| {
            match plan.persistent_watches {
                true => encode::add_watch(out, xid, watched, PERSISTENT),
                false => encode::read(out, xid, OpCode::GetData, watched, true),
            }
            Op::Arm
        });
    }

    /// The writer sets when all watches stand, and again when its set was lost.
    fn begin_round(&mut self, writer: usize, now: Time) {
        let Some(Stretch { work: Work::Watch(fan_out), .. }) = &self.stretch else { return };
        let session = &self.slots[writer].session;
        if !session.is_up() || session.in_flight() > 0 {
            return;
        }
        if self.set_was_lost && fan_out.is_waiting() {
            self.set_was_lost = false;
            return self.set_watched(writer, now);
        }
        if !fan_out.is_ready() {
            return;
        }
        let fan_out = fan_out.clone();
        if let Some(since) = self.intended(now)
            && fan_out.begin(since)
        {
            self.set_watched(writer, since);
        }
    }

    fn set_watched(&mut self, writer: usize, since: Time) {
        let Worker { slots, watched, value, .. } = self;
        slots[writer].session.ask(since, None, |out, xid| {
            encode::set_data(out, xid, watched, value, ANY_VERSION);
            Op::Set
        });
    }
}
