//! One connection to another server, from the attempt to the close.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::io::ring::Ring;
use crate::types::ids::ConnectionId;
use crate::types::time::Time;

/// Messages are collected into writes of about this size, in bytes.
const WRITE_BYTES: usize = 256 << 10;

pub(super) struct Link {
    pub state: State,
}

/// Closed ones are forgotten.
pub(super) enum State {
    Connecting(Attempts),
    Open {
        conn: ConnectionId,
        queue: SendQueue,
        /// The machine wants nothing from it for now.
        is_held: bool,
        /// What came while nothing was taken from anybody: a few buffers of the ring, until it stops receiving.
        kept: Vec<u8>,
    },
    /// The machine has let go of it; what was sent before leaves first.
    Closing {
        conn: ConnectionId,
        queue: SendQueue,
        until: Time,
    },
    /// The connection has ended; the machine is still to hear what came before.
    Gone {
        kept: Vec<u8>,
        is_refused: bool,
    },
}

/// The ways in which one connection is tried; the first that succeeds is taken.
#[derive(Default)]
pub(super) struct Attempts {
    /// Names that are being looked up.
    pub look_ups: usize,
    /// Further addresses of names.
    pub waiting: VecDeque<SocketAddr>,
    pub under_way: Vec<ConnectionId>,
    /// When the next of `waiting` is tried beside those under way.
    pub next_at: Option<Time>,
    /// Some host answered that nobody listens.
    pub is_refused: bool,
}

impl Attempts {
    pub fn is_hopeless(&self) -> bool {
        self.look_ups == 0 && self.waiting.is_empty() && self.under_way.is_empty()
    }
}

impl Link {
    pub fn connecting(attempts: Attempts) -> Link {
        Link { state: State::Connecting(attempts) }
    }

    pub fn open(conn: ConnectionId) -> Link {
        Link { state: State::Open { conn, queue: SendQueue::default(), is_held: false, kept: Vec::new() } }
    }

    pub fn connection(&self) -> Option<ConnectionId> {
        match &self.state {
            State::Connecting(_) | State::Gone { .. } => None,
            State::Open { conn, .. } | State::Closing { conn, .. } => Some(*conn),
        }
    }

    /// There is something that the machine has not been given yet.
    pub fn has_kept(&self) -> bool {
        match &self.state {
            State::Open { kept, .. } => !kept.is_empty(),
            State::Gone { .. } => true,
            State::Connecting(_) | State::Closing { .. } => false,
        }
    }

    pub fn unsent(&self) -> usize {
        match &self.state {
            State::Connecting(_) | State::Gone { .. } => 0,
            State::Open { queue, .. } | State::Closing { queue, .. } => queue.unsent(),
        }
    }

    pub fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Connecting(attempts) => attempts.next_at,
            State::Open { .. } | State::Gone { .. } => None,
            State::Closing { until, .. } => Some(*until),
        }
    }

    /// The write in flight has left. Whether the link is closing.
    pub fn on_sent(&mut self) -> bool {
        match &mut self.state {
            State::Connecting(_) | State::Gone { .. } => false,
            State::Open { queue, .. } => {
                queue.in_flight = 0;
                false
            }
            State::Closing { queue, .. } => {
                queue.in_flight = 0;
                true
            }
        }
    }

    /// Gives the ring the next write, unless one is in flight.
    pub fn send_next(&mut self, ring: &mut Ring) {
        let (State::Open { conn, queue, .. } | State::Closing { conn, queue, .. }) = &mut self.state else { return };
        if queue.in_flight == 0
            && let Some(bytes) = queue.waiting.pop_front()
        {
            queue.waiting_bytes -= bytes.len();
            queue.in_flight = bytes.len();
            ring.send(*conn, bytes);
        }
    }
}

/// What has not left yet: `unsent = waiting_bytes + in_flight`.
#[derive(Default)]
pub(super) struct SendQueue {
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// Bytes of the one write that the ring has.
    in_flight: usize,
}

impl SendQueue {
    /// Adds a message; small ones are put together.
    pub fn push(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        self.waiting_bytes += bytes.len();
        match self.waiting.back_mut() {
            Some(last) if last.len() + bytes.len() <= WRITE_BYTES => last.extend_from_slice(&bytes),
            Some(_) | None => self.waiting.push_back(bytes),
        }
    }

    pub fn unsent(&self) -> usize {
        self.waiting_bytes + self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_messages_are_one_write_and_large_ones_stay_apart() {
        let mut queue = SendQueue::default();
        for byte in 0..10 {
            queue.push(vec![byte; 100]);
        }
        queue.push(vec![10; WRITE_BYTES]);
        queue.push(Vec::new());
        queue.push(vec![11; 1]);
        let lengths: Vec<usize> = queue.waiting.iter().map(Vec::len).collect();
        assert_eq!(lengths, [1000, WRITE_BYTES, 1]);
        assert_eq!(queue.unsent(), 1001 + WRITE_BYTES);
    }
}
