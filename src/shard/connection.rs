//! One client connection: frames in, replies out, and what waits in between.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::auth::AuthIds;
use super::stats::ConnectionStats;
use crate::types::ids::{ConnectionId, SessionId};
use crate::types::limits;
use crate::types::time::{Time, WallTime};
use crate::wire::client::OpCode;

/// Buffers that grew beyond this are given back when they are empty, bytes.
const KEPT_BYTES: usize = 64 << 10;
/// Slots of the waiting line that are kept when it is empty.
const KEPT_WAITING: usize = 64;

/// ```text
/// New ──ConnectRequest──► Connecting ──session settled──► Established ──closeSession──► Closing
///  └──first bytes are no frame──► Command
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Nothing but bytes so far.
    New,
    /// The zab core has the session in hand; nothing behind the ConnectRequest is looked at yet.
    Connecting {
        read_only: Option<bool>,
    },
    Established {
        session: SessionId,
        timeout_ms: i32,
    },
    /// A closeSession is on its way; whatever comes behind it has no effect.
    Closing {
        session: SessionId,
    },
    /// A four-letter word, or something that is no client at all: the answer comes from elsewhere.
    Command,
}

/// A request whose turn has not come.
#[derive(Debug)]
pub enum Waiting {
    /// A write on its way through the one order; `len` is that of its payload.
    Write { op: OpCode, xid: i32, len: usize, since: Time },
    /// A read, or anything else that must not overtake: its whole frame payload.
    Read { payload: Box<[u8]>, since: Time },
    /// It waited too long for the request throttle: only its answer is left.
    Throttled { op: OpCode, xid: i32, since: Time },
}

#[derive(Debug)]
pub struct Connection {
    pub id: ConnectionId,
    pub peer: SocketAddr,
    pub phase: Phase,
    pub auth: Arc<AuthIds>,
    /// Bytes that are not a whole frame yet, or whose turn has not come.
    pub inbound: Vec<u8>,
    /// Replies and events that were not handed to the socket yet.
    pub out: Vec<u8>,
    /// A send is under way, since then: `out` has to wait for it.
    pub sending_since: Option<Time>,
    /// The shard has a date on which it looks at `sending_since`.
    pub is_in_sending: bool,
    /// On the shard's list of those with something to send.
    pub is_dirty: bool,
    /// The socket is not read.
    pub is_paused: bool,
    /// Since when the request throttle keeps what was read from being served.
    pub throttled_since: Option<Time>,
    /// Heard from since the last report to the zab core.
    pub is_touched: bool,
    /// When everything in `out` is sent, it closes.
    pub closes_when_sent: bool,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    pub established: WallTime,
    pub stats: ConnectionStats,
}

impl Connection {
    pub fn new(id: ConnectionId, peer: SocketAddr, auth: Arc<AuthIds>, wall: WallTime) -> Connection {
        Connection {
            id,
            peer,
            phase: Phase::New,
            auth,
            inbound: Vec::new(),
            out: Vec::new(),
            sending_since: None,
            is_in_sending: false,
            is_dirty: false,
            is_paused: false,
            throttled_since: None,
            is_touched: false,
            closes_when_sent: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            established: wall,
            stats: ConnectionStats::default(),
        }
    }

    pub fn session(&self) -> Option<SessionId> {
        match self.phase {
            Phase::Established { session, .. } | Phase::Closing { session } => Some(session),
            Phase::New | Phase::Connecting { .. } | Phase::Command => None,
        }
    }

    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Requests that were read and not answered.
    pub fn outstanding(&self) -> usize {
        self.waiting.len()
    }

    /// Writes among them.
    pub fn writes_outstanding(&self) -> usize {
        self.waiting.iter().filter(|waiting| matches!(waiting, Waiting::Write { .. })).count()
    }

    /// Too much waits already: no more is read until some of it is answered.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= limits::PENDING_PER_CONNECTION_MAX
            || self.waiting_bytes >= limits::PENDING_BYTES_PER_CONNECTION_MAX
            || self.out.len() >= limits::UNSENT_BYTES_PAUSE
    }

    pub fn wait(&mut self, waiting: Waiting) {
        if let Waiting::Read { payload, .. } = &waiting {
            self.waiting_bytes += payload.len();
        }
        self.waiting.push_back(waiting);
    }

    /// Lengths of the payloads of all that wait to be served.
    pub fn waiting_lengths(&self) -> impl Iterator<Item = usize> + '_ {
        self.waiting.iter().filter_map(|waiting| match waiting {
            Waiting::Write { len, .. } => Some(*len),
            Waiting::Read { payload, .. } => Some(payload.len()),
            Waiting::Throttled { .. } => None,
        })
    }

    /// Takes the write at the front, whose answer has come: opcode, xid, length of its payload, when it came.
    pub fn take_write(&mut self) -> Option<(OpCode, i32, usize, Time)> {
        let Some(Waiting::Write { op, xid, len, since }) = self.waiting.front() else { return None };
        let write = (*op, *xid, *len, *since);
        self.waiting.pop_front();
        self.release_waiting();
        Some(write)
    }

    /// Takes the next that this shard can answer alone, if no write stands before it.
    pub fn take_read(&mut self) -> Option<Waiting> {
        if !self.has_read_in_front() {
            return None;
        }
        let waiting = self.waiting.pop_front();
        if let Some(Waiting::Read { payload, .. }) = &waiting {
            self.waiting_bytes -= payload.len();
        }
        self.release_waiting();
        waiting
    }

    pub fn has_read_in_front(&self) -> bool {
        matches!(self.waiting.front(), Some(Waiting::Read { .. } | Waiting::Throttled { .. }))
    }

    fn release_waiting(&mut self) {
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT_WAITING {
            self.waiting = VecDeque::new();
        }
    }

    /// Drops the first `consumed` of the kept bytes, and memory that a large frame needed.
    pub fn consume_inbound(&mut self, consumed: usize) {
        self.inbound.drain(..consumed);
        if self.inbound.is_empty() && self.inbound.capacity() > KEPT_BYTES {
            self.inbound = Vec::new();
        }
    }
}

/// What the front of a byte stream is.
#[derive(PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// Not all of it is here.
    Incomplete,
    /// A length that no frame may have.
    Bad,
    Whole(&'a [u8]),
}

/// Looks at the front of a stream; a whole frame takes four bytes more than its payload. `payload_max`:
/// `jute.maxbuffer`.
pub fn split_frame(bytes: &[u8], payload_max: usize) -> Frame<'_> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Frame::Incomplete };
    match usize::try_from(i32::from_be_bytes(*length)) {
        Ok(length) if length <= payload_max => rest.get(..length).map_or(Frame::Incomplete, Frame::Whole),
        _ => Frame::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_split_at_their_length() {
        assert_eq!(split_frame(&[0, 0, 0], 10), Frame::Incomplete);
        assert_eq!(split_frame(&[0, 0, 0, 2, 7], 10), Frame::Incomplete);
        assert_eq!(split_frame(&[0, 0, 0, 2, 7, 8, 9], 10), Frame::Whole(&[7, 8]));
        assert_eq!(split_frame(&[0, 0, 0, 10], 10), Frame::Incomplete);
        assert_eq!(split_frame(&[0, 0, 0, 11], 10), Frame::Bad);
        assert_eq!(split_frame(&[255; 4], 10), Frame::Bad);
        assert_eq!(split_frame(b"ruok", 1 << 20), Frame::Bad);
    }
}
