//! Bytes in and out of a worker's sockets, and what the replies in them mean.

use std::io::{self, Read, Write};
use std::time::Duration;

use super::{CLOSED_BY_SERVER, HOUSEKEEPING_MIN, HOUSEKEEPINGS_PER_TIMEOUT, Slot, Stretch, Work, Worker};
use crate::load::error::LoadError;
use crate::load::fan_out::Watch;
use crate::load::session::{Heard, Phase, Violation};
use crate::load::workload::Op;
use crate::types::error_code::ErrorCode;
use crate::types::time::Time;
use crate::wire::client_encode as encode;

/// A server that closes with bytes unread resets the connection.
fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => CLOSED_BY_SERVER.to_owned(),
        _ => error.to_string(),
    }
}

impl Worker {
    pub(super) fn on_ready(&mut self, index: usize, read_closed: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.read(index, read_closed, &mut buffer);
        self.buffer = buffer;
        if self.slots[index].stream.is_some() {
            self.flush(index, self.clock.now());
        }
    }

    /// A read that does not fill the buffer has emptied the socket: what comes later is another edge, so no second
    /// read is needed, unless the end of the stream was announced with it.
    fn read(&mut self, index: usize, read_closed: bool, buffer: &mut [u8]) {
        while let Some(stream) = &mut self.slots[index].stream {
            match stream.read(buffer) {
                Ok(0) => return self.lose(index, self.clock.now(), CLOSED_BY_SERVER),
                Ok(n) => {
                    self.take_in(index, &buffer[..n]);
                    if n < buffer.len() && !read_closed {
                        return;
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected => return,
                    io::ErrorKind::Interrupted => {}
                    _ => return self.lose(index, self.clock.now(), &why(&error)),
                },
            }
        }
    }

    pub(super) fn flush(&mut self, index: usize, now: Time) {
        let slot = &mut self.slots[index];
        while let Some(stream) = &mut slot.stream
            && !slot.session.unsent().is_empty()
        {
            match stream.write(slot.session.unsent()) {
                Ok(0) => return self.lose(index, now, CLOSED_BY_SERVER),
                Ok(n) => {
                    self.recorder.sent(n);
                    slot.session.sent(n, now);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected => return,
                    io::ErrorKind::Interrupted => {}
                    _ => return self.lose(index, now, &why(&error)),
                },
            }
        }
    }

    fn take_in(&mut self, index: usize, bytes: &[u8]) {
        let now = self.clock.now();
        let phase = self.slots[index].session.phase();
        let heard = self.hear(index, bytes, now);
        self.recount(index);
        if let Err(violation) = heard {
            return self.on_violation(index, now, phase, violation);
        }
        match (phase, self.slots[index].session.phase()) {
            (Phase::Handshake, Phase::Down) => self.lose(index, now, "no session was given"),
            (Phase::Handshake, Phase::Up) => {
                self.slots[index].failures = 0;
                let timeout = Duration::from_millis(self.slots[index].session.timeout_ms().max(0) as u64);
                self.housekeeping = self.housekeeping.min(timeout / HOUSEKEEPINGS_PER_TIMEOUT).max(HOUSEKEEPING_MIN);
                self.progress_at = now;
                self.refill(index, now);
            }
            (Phase::Up, Phase::Up) => self.refill(index, now),
            (_, _) => {}
        }
    }

    fn on_violation(&mut self, index: usize, now: Time, phase: Phase, violation: Violation) {
        let server = self.plan.servers[self.slots[index].server];
        match (phase, self.has_opened) {
            (Phase::Handshake, false) => self.fail(LoadError::NotZooKeeper { server, why: violation.to_string() }),
            (_, _) => self.recorder.violation(now, format!("{server}: {violation}")),
        }
        self.lose(index, now, "the server broke the protocol");
    }

    fn hear(&mut self, index: usize, bytes: &[u8], now: Time) -> Result<(), Violation> {
        let Worker { slots, recorder, stretch, plan, answered_at, failover, .. } = self;
        let Slot { session, since, watch, .. } = &mut slots[index];
        let fan_out = match &*stretch {
            Some(Stretch { work: Work::Watch(fan_out), .. }) => Some(fan_out),
            _ => None,
        };
        recorder.received(bytes.len());
        session.receive(bytes, now, |heard| match heard {
            Heard::Reply { asked, err, record } => {
                *answered_at = now;
                let err = match (asked.op, err) {
                    (Op::Multi, 0) => encode::multi_error(record).unwrap_or(ErrorCode::MarshallingError.code()),
                    (_, err) => err,
                };
                if let Some(failover) = failover.as_mut().filter(|_| asked.op == Op::Set) {
                    // An answer without a Stat breaks the protocol; a version that cannot be is found out.
                    let version = encode::set_version(record).unwrap_or(i32::MIN);
                    failover.on_answer(index, now, if err == 0 { Ok(version) } else { Err(err) });
                }
                match err {
                    0 => recorder.record(asked.op, asked.since, now),
                    err => recorder.error(asked.op, err, now),
                }
                if asked.op == Op::Arm {
                    *watch = fan_out.filter(|_| err == 0).map_or(Watch::Unarmed, |fan_out| fan_out.armed());
                }
            }
            Heard::Pong { since } => recorder.record(Op::Ping, since, now),
            Heard::Connected { resumed } => {
                recorder.record(Op::Connect, *since, now);
                recorder.link(now, |links| links.resumed += resumed as u64);
                if let Some(failover) = failover {
                    failover.writers[index].on_connected(resumed);
                }
            }
            Heard::Refused => {
                recorder.link(now, |links| links.expired += 1);
                if let Some(failover) = failover {
                    failover.writers[index].on_expired();
                }
            }
            Heard::Event => {
                let Some(fan_out) = fan_out else { return };
                if let Some(arrival) = fan_out.arrived(*watch) {
                    recorder.record(Op::Event, arrival.set_at, now);
                    if arrival.is_last {
                        recorder.record(Op::LastEvent, arrival.set_at, now);
                    }
                }
                *watch = if plan.persistent_watches { fan_out.armed() } else { Watch::Unarmed };
            }
        })
    }
}
