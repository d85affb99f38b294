//! Connections of a worker: opening, losing, keeping alive, closing.

use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Token};

use super::{CLOSED_BY_SERVER, HANDSHAKES_MAX, RETRY_MS_MAX, Report, STALL_LIMIT, Stretch, Work, Worker};
use crate::load::error::{CONNECTION_LOSS, LoadError};
use crate::load::session::{InFlight, Phase};
use crate::load::workload::{Op, Workload};
use crate::types::time::Time;

impl Worker {
    pub(super) fn is_storming(&self) -> bool {
        matches!(self.stretch, Some(Stretch { work: Work::Storm, .. }))
    }

    pub(super) fn handshakes_max(&self) -> usize {
        if self.is_storming() { self.slots.len() } else { HANDSHAKES_MAX }
    }

    pub(super) fn connect_due(&mut self, now: Time) {
        if !self.has_opened && self.down.is_empty() && self.handshakes == 0 {
            self.has_opened = true;
            self.report(Report::Opened);
        }
        while self.handshakes < self.handshakes_max()
            && let Some(&(at, slot)) = self.down.first()
            && at <= now
        {
            self.down.pop_first();
            self.connect(slot, now, now);
        }
    }

    /// `since` is what its latency counts from.
    pub(super) fn connect(&mut self, index: usize, since: Time, now: Time) {
        let slot = &mut self.slots[index];
        slot.since = since;
        let connected = TcpStream::connect(self.plan.servers[slot.server]).and_then(|mut stream| {
            self.poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
            stream.set_nodelay(true)?;
            Ok(stream)
        });
        slot.session.open(now);
        self.recount(index);
        let slot = &mut self.slots[index];
        match connected {
            Ok(stream) => slot.stream = Some(stream),
            Err(error) => self.lose(index, now, &error.to_string()),
        }
    }

    /// The connection of a slot is of no more use; what it was waiting for is lost.
    pub(super) fn lose(&mut self, index: usize, now: Time, why: &str) {
        let phase = self.slots[index].session.phase();
        self.drop_connection(index, now);
        if phase != Phase::Closing {
            self.last_loss = Some(format!("{}: {why}", self.plan.servers[self.slots[index].server]));
        }
        match phase {
            Phase::Closing => return self.on_closed(index, now),
            Phase::Up => self.recorder.link(now, |links| links.lost += 1),
            Phase::Handshake | Phase::Down => self.on_failed(index, now, why),
        }
        if let Some(Stretch { work: Work::Storm, schedule: Some(_), .. }) = &self.stretch {
            return self.parked.push(index);
        }
        if self.plan.workload == Workload::Failover {
            return self.stay(index, now);
        }
        let slot = &mut self.slots[index];
        slot.server = (slot.server + 1) % self.plan.servers.len();
        // The others are tried at once; only a whole round without success makes it wait.
        let wait_ms = match slot.failures as usize / self.plan.servers.len() {
            0 => 0,
            rounds => (5_u64 << rounds.min(10)).min(RETRY_MS_MAX),
        };
        if !self.is_closing {
            self.down.insert((now + Duration::from_millis(wait_ms), index));
        }
    }

    /// An attempt led to no session.
    fn on_failed(&mut self, index: usize, now: Time, why: &str) {
        let slot = &mut self.slots[index];
        slot.failures += 1;
        let server = self.plan.servers[slot.server];
        if self.is_storming() {
            self.recorder.error(Op::Connect, CONNECTION_LOSS, now);
        }
        if !self.has_opened && now.saturating_since(self.progress_at) > self.plan.connect_timeout {
            self.fail(match why {
                CLOSED_BY_SERVER => LoadError::Closed { server, sessions: self.up },
                why => LoadError::Unreachable { server, why: why.to_owned() },
            });
        }
    }

    /// Work that must be done does not go on without end; a run that ends by the clock may.
    fn look_for_stall(&mut self, now: Time) {
        if let Some(Stretch { until: None, .. }) = &self.stretch
            && self.started
            && now.saturating_since(self.answered_at) > STALL_LIMIT
        {
            self.stretch = None;
            self.fail(LoadError::Stalled { seconds: STALL_LIMIT.as_secs(), last_loss: self.last_loss.clone() });
        }
    }

    pub(super) fn drop_connection(&mut self, index: usize, now: Time) {
        let slot = &mut self.slots[index];
        slot.stream = None;
        if let Some(failover) = &mut self.failover {
            failover.writers[index].on_lost(slot.session.is_up());
        }
        for InFlight { op, key, .. } in slot.session.disconnect() {
            self.again.extend(key);
            self.set_was_lost |= op == Op::Set && self.writer == Some(index);
            self.recorder.error(op, CONNECTION_LOSS, now);
        }
        let watch = std::mem::take(&mut slot.watch);
        self.recount(index);
        if let Some(Stretch { work: Work::Watch(fan_out), .. }) = &self.stretch
            && fan_out.lost(watch)
        {
            self.recorder.error(Op::Event, CONNECTION_LOSS, now);
        }
    }

    /// Keeps `handshakes` and `up` in step with the phase of a session that may have changed.
    pub(super) fn recount(&mut self, index: usize) {
        let Worker { slots, handshakes, up, .. } = self;
        let slot = &mut slots[index];
        match std::mem::replace(&mut slot.counted, slot.session.phase()) {
            Phase::Handshake => *handshakes -= 1,
            Phase::Up | Phase::Closing => *up -= 1,
            Phase::Down => {}
        }
        match slot.counted {
            Phase::Handshake => *handshakes += 1,
            Phase::Up | Phase::Closing => *up += 1,
            Phase::Down => {}
        }
    }

    /// A session was closed as it should be.
    fn on_closed(&mut self, index: usize, now: Time) {
        self.progress_at = now;
        if self.is_closing || self.draining_since.is_some() {
            return;
        }
        match &self.stretch {
            Some(Stretch { work: Work::Storm, schedule: Some(_), .. }) => self.parked.push(index),
            Some(_) | None => {
                self.down.insert((now, index));
            }
        }
    }

    /// Pings, and connections on which nothing moves.
    pub(super) fn keep_house(&mut self, now: Time) {
        self.look_for_stall(now);
        for index in 0..self.slots.len() {
            let session = &mut self.slots[index].session;
            let timeout = Duration::from_millis(session.timeout_ms().max(0) as u64);
            let (silent, idle) = (now.saturating_since(session.last_heard), now.saturating_since(session.last_sent));
            // Between a quarter and a third, so that sessions that opened together do not ping together.
            let ping_after = timeout / 3 * (75 + index as u32 * 37 % 26) / 100;
            match session.phase() {
                Phase::Handshake if silent > self.plan.connect_timeout => self.lose(index, now, "no answer in time"),
                Phase::Up | Phase::Closing if silent > timeout * 2 / 3 => {
                    self.lose(index, now, "nothing was heard for two thirds of the session timeout");
                }
                Phase::Up if idle > ping_after => {
                    session.ping(now);
                    self.flush(index, now);
                }
                Phase::Down | Phase::Handshake | Phase::Up | Phase::Closing => {}
            }
        }
    }

    pub(super) fn close_all(&mut self) {
        let now = self.clock.now();
        (self.is_closing, self.progress_at) = (true, now);
        self.down.clear();
        for index in 0..self.slots.len() {
            match self.slots[index].session.phase() {
                Phase::Up => {
                    self.slots[index].session.close(now);
                    self.flush(index, now);
                }
                Phase::Handshake => self.drop_connection(index, now),
                Phase::Closing | Phase::Down => {}
            }
        }
    }
}
