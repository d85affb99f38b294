//! One session's side of the protocol: what it asked, what came back, and whether the server kept its promises.
//!
//! ```text
//!          open                     ConnectResponse              close
//! Down ──────────────▶ Handshake ──────────────────▶ Up ──────────────────▶ Closing ──▶ Down, identity forgotten
//!   ▲                      │ lost, refused           │ lost                    │ lost
//!   └──────────────────────┴─────────────────────────┴─────────────────────────┘
//! ```

use std::collections::VecDeque;

use super::workload::Op;
use crate::types::ids::{PASSWORD_BYTES, SessionId};
use crate::types::time::Time;
use crate::types::zxid::Zxid;
use crate::wire::client::xid;
use crate::wire::client_encode::{
    self as encode, ConnectRequest, ConnectResponse, FRAME_PREFIX_BYTES, REPLY_HEADER_BYTES, ReplyHeader,
};
use crate::wire::jute::JuteError;

/// Longest reply that is believed, bytes: a directory of some millions of children still fits.
pub const REPLY_BYTES_MAX: usize = 256 << 20;

/// Sent bytes that may stay in front of unsent ones.
const FLUSHED_BYTES_MAX: usize = 64 << 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Down,
    Handshake,
    Up,
    Closing,
}

/// A request whose reply is awaited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InFlight {
    /// When it was sent, or should have been under a fixed rate.
    pub since: Time,
    /// The key of a fill or of its removal, so that a lost one can be asked again.
    pub key: Option<u32>,
    pub op: Op,
}

/// What the server said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard<'a> {
    /// The session stands: a new one, or the old one on another connection.
    Connected {
        resumed: bool,
    },
    /// The session has expired, or the server wants none.
    Refused,
    Reply {
        asked: InFlight,
        err: i32,
        record: &'a [u8],
    },
    Pong {
        since: Time,
    },
    Event,
}

/// A promise of the protocol that the server broke. The connection is of no use afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// A frame that is too short or too long for what it must be.
    FrameLength(i32),
    /// Bytes that are no record of the kind that is due.
    Record(JuteError),
    /// Replies come in the order of the requests.
    Xid { expected: Option<i32>, got: i32 },
    /// zxids of replies never go back within a session.
    ZxidWentBack { from: Zxid, to: Zxid },
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Violation::FrameLength(len) => write!(f, "a frame of {len} bytes"),
            Violation::Record(error) => write!(f, "{error}"),
            Violation::Xid { expected: Some(expected), got } => write!(f, "xid {got} where {expected} was due"),
            Violation::Xid { expected: None, got } => write!(f, "xid {got} where nothing was asked"),
            Violation::ZxidWentBack { from, to } => write!(f, "zxid went back from {from} to {to}"),
        }
    }
}

#[derive(Debug)]
pub struct Session {
    phase: Phase,
    timeout_wish_ms: i32,
    /// As negotiated.
    timeout_ms: i32,
    id: SessionId,
    password: [u8; PASSWORD_BYTES],
    last_zxid: Zxid,
    /// Of the request that was sent last; they count 1, 2, … and wrap behind `i32::MAX`.
    xid: i32,
    in_flight: VecDeque<InFlight>,
    /// When pings were sent that are not answered.
    pings: VecDeque<Time>,
    /// A frame whose end has not come yet.
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    /// `flushed ≤ outbox.len()`: what the socket has taken.
    flushed: usize,
    pub last_sent: Time,
    pub last_heard: Time,
}

impl Session {
    pub fn new(timeout_wish_ms: i32, depth: usize) -> Session {
        Session {
            phase: Phase::Down,
            timeout_wish_ms,
            timeout_ms: timeout_wish_ms,
            id: SessionId::NONE,
            password: [0; PASSWORD_BYTES],
            last_zxid: Zxid::ZERO,
            xid: 0,
            in_flight: VecDeque::with_capacity(depth.min(1024)),
            pings: VecDeque::new(),
            inbox: Vec::new(),
            outbox: Vec::new(),
            flushed: 0,
            last_sent: Time(0),
            last_heard: Time(0),
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    pub fn timeout_ms(&self) -> i32 {
        self.timeout_ms
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// What was asked and is not answered yet.
    pub fn waiting(&self) -> impl Iterator<Item = &InFlight> {
        self.in_flight.iter()
    }

    /// A connection begins: the first frame is queued.
    pub fn open(&mut self, now: Time) {
        self.phase = Phase::Handshake;
        (self.last_sent, self.last_heard) = (now, now);
        let request = ConnectRequest {
            last_zxid_seen: self.last_zxid,
            timeout_ms: self.timeout_wish_ms,
            session: self.id,
            password: self.password,
            read_only: false,
        };
        request.encode(&mut self.outbox);
    }

    /// Queues the request that `encode` appends under the given xid. The session must be up.
    pub fn ask(&mut self, since: Time, key: Option<u32>, encode: impl FnOnce(&mut Vec<u8>, i32) -> Op) {
        debug_assert!(self.is_up());
        self.xid = next_xid(self.xid);
        let op = encode(&mut self.outbox, self.xid);
        self.in_flight.push_back(InFlight { since, key, op });
    }

    pub fn ping(&mut self, now: Time) {
        encode::ping(&mut self.outbox);
        self.pings.push_back(now);
    }

    /// Ends the session: nothing may be asked behind this.
    pub fn close(&mut self, now: Time) {
        self.ask(now, None, |out, xid| {
            encode::close_session(out, xid);
            Op::Close
        });
        self.phase = Phase::Closing;
    }

    /// The connection is gone. Gives back what was asked and not answered; the session may be resumed by `open`.
    pub fn disconnect(&mut self) -> impl Iterator<Item = InFlight> + '_ {
        if self.phase == Phase::Closing {
            self.forget();
        }
        self.phase = Phase::Down;
        self.pings.clear();
        self.inbox.clear();
        self.outbox.clear();
        self.flushed = 0;
        self.in_flight.drain(..)
    }

    /// The next `open` asks for a new session.
    fn forget(&mut self) {
        (self.id, self.password, self.last_zxid) = (SessionId::NONE, [0; PASSWORD_BYTES], Zxid::ZERO);
    }

    /// What waits for the socket.
    pub fn unsent(&self) -> &[u8] {
        &self.outbox[self.flushed..]
    }

    /// The socket took `bytes` of `unsent`.
    pub fn sent(&mut self, bytes: usize, now: Time) {
        self.flushed += bytes;
        self.last_sent = now;
        if self.flushed == self.outbox.len() {
            self.outbox.clear();
            self.flushed = 0;
        } else if self.flushed > FLUSHED_BYTES_MAX && self.flushed > self.outbox.len() / 2 {
            // A socket that is never quite empty must not make the outbox grow.
            self.outbox.drain(..self.flushed);
            self.flushed = 0;
        }
    }

    /// Takes in what the socket gave and tells each message. After an error the connection must be dropped.
    pub fn receive(&mut self, bytes: &[u8], now: Time, mut on: impl FnMut(Heard<'_>)) -> Result<(), Violation> {
        self.last_heard = now;
        if self.inbox.is_empty() {
            let used = self.frames(bytes, &mut on)?;
            self.inbox.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut inbox = std::mem::take(&mut self.inbox);
        inbox.extend_from_slice(bytes);
        let used = self.frames(&inbox, &mut on)?;
        inbox.drain(..used);
        self.inbox = inbox;
        Ok(())
    }

    /// Tells every whole frame at the front and how many bytes they took.
    fn frames(&mut self, bytes: &[u8], on: &mut impl FnMut(Heard<'_>)) -> Result<usize, Violation> {
        let mut rest = bytes;
        while let Some((prefix, behind)) = rest.split_first_chunk::<FRAME_PREFIX_BYTES>() {
            let len = i32::from_be_bytes(*prefix);
            if len < 0 || len as usize > REPLY_BYTES_MAX {
                return Err(Violation::FrameLength(len));
            }
            let Some((payload, next)) = behind.split_at_checked(len as usize) else { break };
            match self.phase {
                Phase::Handshake => on(self.on_connect_response(payload)?),
                Phase::Up | Phase::Closing => on(self.on_reply(payload)?),
                Phase::Down => return Err(Violation::FrameLength(len)),
            }
            rest = next;
        }
        Ok(bytes.len() - rest.len())
    }

    fn on_connect_response(&mut self, payload: &[u8]) -> Result<Heard<'static>, Violation> {
        let response = ConnectResponse::decode(payload).map_err(Violation::Record)?;
        if response.is_refused() {
            self.forget();
            self.phase = Phase::Down;
            return Ok(Heard::Refused);
        }
        let resumed = self.id != SessionId::NONE && self.id == response.session;
        self.timeout_ms = response.timeout_ms;
        (self.id, self.password) = (response.session, response.password);
        self.phase = Phase::Up;
        Ok(Heard::Connected { resumed })
    }

    fn on_reply<'a>(&mut self, payload: &'a [u8]) -> Result<Heard<'a>, Violation> {
        let header = ReplyHeader::decode(payload).map_err(Violation::Record)?;
        match header.xid {
            xid::NOTIFICATION => return Ok(Heard::Event),
            xid::PING => {
                let since = self.pings.pop_front().ok_or(Violation::Xid { expected: None, got: xid::PING })?;
                return Ok(Heard::Pong { since });
            }
            _ => {}
        }
        let expected = nth_before(self.xid, self.in_flight.len());
        if expected != header.xid || self.in_flight.is_empty() {
            let expected = (!self.in_flight.is_empty()).then_some(expected);
            return Err(Violation::Xid { expected, got: header.xid });
        }
        if header.zxid > Zxid::ZERO && header.zxid.as_i64() > 0 {
            if header.zxid < self.last_zxid {
                return Err(Violation::ZxidWentBack { from: self.last_zxid, to: header.zxid });
            }
            self.last_zxid = header.zxid;
        }
        let asked = self.in_flight.pop_front().ok_or(Violation::Xid { expected: None, got: header.xid })?;
        Ok(Heard::Reply { asked, err: header.err, record: &payload[REPLY_HEADER_BYTES..] })
    }
}

fn next_xid(xid: i32) -> i32 {
    if xid == i32::MAX { 1 } else { xid + 1 }
}

/// The xid of the oldest of `count` requests whose youngest is `last`.
fn nth_before(last: i32, count: usize) -> i32 {
    let oldest = last as i64 - count as i64 + 1;
    if oldest >= 1 { oldest as i32 } else { (oldest + i32::MAX as i64) as i32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::client::OpCode;
    use crate::wire::jute::Write;

    fn framed(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_buffer(Some(payload));
        out
    }

    fn connect_response(timeout_ms: i32, id: i64) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_i32(0);
        out.put_i32(timeout_ms);
        out.put_i64(id);
        out.put_buffer(Some(&SessionId(id).password()));
        out.put_bool(false);
        framed(&out)
    }

    fn reply(xid: i32, zxid: u64, err: i32) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_i32(xid);
        out.put_zxid(Zxid(zxid));
        out.put_i32(err);
        framed(&out)
    }

    fn up() -> Session {
        let mut session = Session::new(30_000, 4);
        session.open(Time(0));
        session.sent(session.unsent().len(), Time(0));
        session.receive(&connect_response(20_000, 5), Time(1), |_| {}).unwrap();
        session
    }

    fn get(session: &mut Session, at: u64) {
        session.ask(Time(at), None, |out, xid| {
            encode::read(out, xid, OpCode::GetData, "/a", false);
            Op::Get
        });
    }

    /// What is heard, one line each.
    fn hear(session: &mut Session, bytes: &[u8]) -> Result<Vec<String>, Violation> {
        let mut heard = Vec::new();
        session.receive(bytes, Time(9), |message| {
            heard.push(match message {
                Heard::Reply { asked, err, .. } => format!("{}@{} {err}", asked.op.name(), asked.since.0),
                other => format!("{other:?}"),
            });
        })?;
        Ok(heard)
    }

    #[test]
    fn a_session_opens_asks_and_is_answered_in_order() {
        let mut session = up();
        assert!(session.is_up());
        assert_eq!(session.timeout_ms(), 20_000);
        get(&mut session, 10);
        get(&mut session, 20);
        let bytes = [reply(1, 7, 0), reply(2, 7, -101)].concat();
        assert_eq!(hear(&mut session, &bytes).unwrap(), ["get@10 0", "get@20 -101"]);
        assert_eq!(session.in_flight(), 0);
    }

    #[test]
    fn frames_may_come_in_any_pieces() {
        let bytes = [reply(1, 7, 0), reply(2, 8, 0), reply(xid::NOTIFICATION, 8, 0)].concat();
        for cut in 0..bytes.len() {
            let mut session = up();
            get(&mut session, 1);
            get(&mut session, 2);
            let mut heard = hear(&mut session, &bytes[..cut]).unwrap();
            heard.extend(hear(&mut session, &bytes[cut..]).unwrap());
            assert_eq!(heard, ["get@1 0", "get@2 0", "Event"], "cut at {cut}");
        }
    }

    #[test]
    fn broken_promises_are_named() {
        let check = |bytes: Vec<u8>, expected| {
            let mut session = up();
            get(&mut session, 1);
            get(&mut session, 2);
            assert_eq!(hear(&mut session, &bytes), Err(expected));
        };
        check(reply(2, 7, 0), Violation::Xid { expected: Some(1), got: 2 });
        check(reply(xid::PING, 7, 0), Violation::Xid { expected: None, got: -2 });
        let back = [reply(1, 7, 0), reply(2, 6, 0)].concat();
        check(back, Violation::ZxidWentBack { from: Zxid(7), to: Zxid(6) });
        check((-1_i32).to_be_bytes().to_vec(), Violation::FrameLength(-1));
        check(framed(b"short"), Violation::Record(JuteError::Short));
        assert_eq!(hear(&mut up(), &reply(1, 1, 0)), Err(Violation::Xid { expected: None, got: 1 }));
    }

    #[test]
    fn a_lost_connection_gives_back_what_was_asked_and_the_session_resumes() {
        let mut session = up();
        get(&mut session, 1);
        hear(&mut session, &reply(1, 7, 0)).unwrap();
        get(&mut session, 2);
        assert_eq!(session.disconnect().map(|lost| lost.since.0).collect::<Vec<_>>(), [2]);
        session.open(Time(3));
        let mut expected = Vec::new();
        let (session_id, password) = (SessionId(5), SessionId(5).password());
        let last_zxid_seen = Zxid(7);
        ConnectRequest { last_zxid_seen, timeout_ms: 30_000, session: session_id, password, read_only: false }
            .encode(&mut expected);
        assert_eq!(session.unsent(), expected);
        assert_eq!(hear(&mut session, &connect_response(20_000, 5)).unwrap(), ["Connected { resumed: true }"]);
        get(&mut session, 4);
        assert_eq!(hear(&mut session, &reply(2 + 1, 8, 0)).unwrap(), ["get@4 0"]);
    }

    #[test]
    fn an_expired_session_starts_anew() {
        let mut session = up();
        let _ = session.disconnect().count();
        session.open(Time(3));
        assert_eq!(hear(&mut session, &connect_response(0, 0)).unwrap(), ["Refused"]);
        assert_eq!((session.phase(), session.id), (Phase::Down, SessionId::NONE));
    }

    #[test]
    fn a_socket_that_is_never_empty_does_not_make_the_outbox_grow() {
        let mut session = up();
        for _ in 0..10_000 {
            get(&mut session, 1);
            session.sent(session.unsent().len() - 1, Time(1));
        }
        assert_eq!(session.unsent().len(), 1);
        assert!(session.outbox.len() < 3 * FLUSHED_BYTES_MAX, "{}", session.outbox.len());
    }

    #[test]
    fn xids_wrap_behind_the_largest() {
        assert_eq!(next_xid(i32::MAX), 1);
        assert_eq!(nth_before(5, 3), 3);
        assert_eq!(nth_before(1, 2), i32::MAX);
        assert_eq!(nth_before(0, 0), 1);
    }
}
