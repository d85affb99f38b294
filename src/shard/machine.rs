//! The machine of one shard core.
//!
//! A turn is: publications first (so that requests see the newest version), then what the sockets brought, then
//! `EndOfTurn`, which hands out one send per connection and one batch for the zab core.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use smallvec::SmallVec;

use super::auth::{AuthIds, AuthSettings};
use super::connection::{Connection, Frame, Phase, Waiting, split_frame};
use super::freeze::Freeze;
use super::messages::{Ask, Batch, Forwarded, NewStore, Tell};
use super::stats::ShardStats;
use super::throttle::{LargeRequests, RequestThrottle};
use super::watch::{Fired, WatchTable};
use crate::tree::access::AccessSettings;
use crate::tree::publication::{Cursor, Span};
use crate::tree::store::Reader as TreeReader;
use crate::tree::zxid_of;
use crate::types::error_code::ErrorCode;
use crate::types::ids::{ConnectionId, SessionId, ShardId};
use crate::types::limits;
use crate::types::mutant::{self, Mutant};
use crate::types::time::{Time, WallTime};
use crate::types::zxid::Zxid;
use crate::wire::client::{self, AuthPacket, OpCode, RequestHeader};
use crate::wire::jute::{Reader, Write};
use crate::wire::peek;

/// Reply zxid of an unknown opcode.
const NO_ZXID: i64 = -1;

/// What of the configuration a shard needs.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    pub id: ShardId,
    /// `jute.maxbuffer`, bytes.
    pub payload_bytes_max: usize,
    pub session_timeout_min_ms: i32,
    pub session_timeout_max_ms: i32,
    /// This shard's part of `globalOutstandingLimit`.
    pub outstanding_max: usize,
    /// `largeRequestThreshold`: longer frames share a budget. `None`: no frame is large.
    pub large_request_threshold: Option<usize>,
    /// This shard's part of `largeRequestMaxBytes`.
    pub large_request_bytes_max: usize,
    /// `None`: any number of requests may be in process.
    pub request_throttle: Option<RequestThrottle>,
    /// `nio.sessionlessCnxnTimeout`.
    pub sessionless_timeout: Duration,
    /// How often the zab core hears who was heard from.
    pub touch_report_delay: Duration,
    /// `extendedTypesEnabled`.
    pub extended_types: bool,
    pub auth: AuthSettings,
    pub access: AccessSettings,
}

/// What happened.
#[derive(Debug)]
pub enum Input<'a> {
    Accepted {
        connection: ConnectionId,
        peer: SocketAddr,
        wall: WallTime,
    },
    Received {
        connection: ConnectionId,
        bytes: &'a [u8],
    },
    /// A send is done; its buffer comes back.
    Sent {
        connection: ConnectionId,
        buffer: Vec<u8>,
    },
    /// The peer sends no more.
    EndOfStream {
        connection: ConnectionId,
    },
    /// The peer is gone.
    Closed {
        connection: ConnectionId,
    },
    /// There is something new to follow.
    Published,
    Told(Tell),
    /// Another store takes the place of the one that is read.
    Store(NewStore),
    /// The text for a connection that is no client's.
    Respond {
        connection: ConnectionId,
        text: Vec<u8>,
    },
    /// The queue to the zab core is full, or has room again.
    ZabIsFull(bool),
    /// Everything that came with this wake-up has been stepped.
    EndOfTurn,
    Timeout,
}

/// What to do.
#[derive(Debug)]
pub enum Output {
    /// At most one per connection until `Sent`.
    Send {
        connection: ConnectionId,
        bytes: Vec<u8>,
    },
    /// Stop reading the socket, or go on.
    Pause(ConnectionId),
    Resume(ConnectionId),
    /// Once what was sent is out.
    Close(ConnectionId),
    /// At once.
    Abort(ConnectionId),
    Ask(Batch),
    /// The first bytes of a connection are no frame: a four-letter word, HTTP, TLS, or garbage.
    Unframed {
        connection: ConnectionId,
        bytes: Vec<u8>,
    },
}

/// What becomes of a frame, and of its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    Done,
    /// Not yet: it stays where it is.
    Hold,
    Close,
    CloseWhenSent,
}

pub struct Shard {
    pub(super) connections: AHashMap<ConnectionId, Box<Connection>>,
    pub(super) desk: Desk,
}

/// Everything of a shard but its connections, so that one of them can be served while the rest stands by.
pub(super) struct Desk {
    pub settings: ShardSettings,
    pub reader: TreeReader,
    pub cursor: Cursor,
    pub watches: WatchTable,
    pub fired: Fired,
    /// The frame of the event at hand.
    pub event: Vec<u8>,
    pub sessions: AHashMap<SessionId, ConnectionId>,
    batch: Batch,
    is_zab_full: bool,
    /// While there is no leader.
    pub freeze: Freeze,
    /// A `sync` goes to a leader that is another server.
    forwards_syncs: bool,
    /// Writes that were forwarded and not answered.
    pub outstanding: usize,
    /// Reads that were taken in and wait for writes before them.
    pub waiting_reads: usize,
    /// Large requests that were read and not answered.
    pub large: LargeRequests,
    dirty: Vec<ConnectionId>,
    pub held: Vec<ConnectionId>,
    /// Those of the held ones that were served and are held again: they go behind the others.
    held_again: Vec<ConnectionId>,
    /// The held ones are being looked at.
    pub is_looking_at_held: bool,
    /// Something was answered or adopted since the held ones were last looked at.
    pub is_moving: bool,
    /// The last txn whose events are out.
    pub followed: Zxid,
    touched: Vec<ConnectionId>,
    report_at: Option<Time>,
    sessionless: VecDeque<(Time, ConnectionId)>,
    /// When to look whether a send has been under way for too long: at most one entry per connection, whose
    /// `is_in_sending` says so, however often it sends.
    sending: BinaryHeap<Reverse<(Time, ConnectionId)>>,
    spare: Vec<Vec<u8>>,
    /// The memory of a list that was worked off, for the next one.
    spare_ids: Vec<ConnectionId>,
    pub stats: ShardStats,
}

impl Shard {
    /// `seed` keys the hash tables.
    pub fn new(settings: ShardSettings, reader: TreeReader, cursor: Cursor, seed: [u64; 4]) -> Shard {
        let followed = zxid_of(reader.version());
        let large = LargeRequests::new(settings.large_request_threshold, settings.large_request_bytes_max);
        let desk = Desk {
            settings,
            reader,
            cursor,
            watches: WatchTable::new(seed),
            fired: Fired::default(),
            event: Vec::new(),
            sessions: AHashMap::new(),
            batch: Batch::default(),
            is_zab_full: false,
            freeze: Freeze::default(),
            forwards_syncs: false,
            outstanding: 0,
            waiting_reads: 0,
            large,
            dirty: Vec::new(),
            held: Vec::new(),
            held_again: Vec::new(),
            is_looking_at_held: false,
            is_moving: false,
            followed,
            touched: Vec::new(),
            report_at: None,
            sessionless: VecDeque::new(),
            sending: BinaryHeap::new(),
            spare: Vec::new(),
            spare_ids: Vec::new(),
            stats: ShardStats::default(),
        };
        Shard { connections: AHashMap::new(), desk }
    }

    pub fn step(&mut self, now: Time, input: Input<'_>, out: &mut Vec<Output>) {
        match input {
            Input::Accepted { connection, peer, wall } => self.on_accepted(now, connection, peer, wall),
            Input::Received { connection, bytes } => self.on_received(now, connection, bytes, out),
            Input::Sent { connection, buffer } => self.on_sent(now, connection, buffer, out),
            Input::EndOfStream { connection } => self.on_end_of_stream(connection, out),
            Input::Closed { connection } => self.forget(connection),
            Input::Published => self.follow(now, out),
            Input::Told(tell) => self.on_told(now, tell, out),
            Input::Store(store) => self.on_store(now, store, out),
            Input::Respond { connection, text } => self.on_respond(connection, &text, out),
            Input::ZabIsFull(is_full) => {
                self.desk.is_moving |= self.desk.is_zab_full && !is_full;
                self.desk.is_zab_full = is_full;
            }
            Input::EndOfTurn => self.end_turn(now, out),
            Input::Timeout => self.on_timeout(now, out),
        }
    }

    /// When `Timeout` should come.
    pub fn deadline(&self) -> Option<Time> {
        let desk = &self.desk;
        let sessionless_at = desk.sessionless.front().map(|(at, _)| *at);
        let sending_at = desk.sending.peek().map(|Reverse((at, _))| *at);
        [sessionless_at, sending_at, desk.report_at, desk.freeze.deadline()].into_iter().flatten().min()
    }

    /// A spent batch, for its memory.
    pub fn recycle(&mut self, mut batch: Batch) {
        batch.clear();
        if self.desk.batch.is_empty() {
            self.desk.batch = batch;
        }
    }

    fn on_accepted(&mut self, now: Time, id: ConnectionId, peer: SocketAddr, wall: WallTime) {
        let auth = Arc::new(AuthIds::of_peer(peer));
        self.connections.insert(id, Box::new(Connection::new(id, peer, auth, wall)));
        self.desk.sessionless.push_back((now + self.desk.settings.sessionless_timeout, id));
    }

    fn on_received(&mut self, now: Time, id: ConnectionId, bytes: &[u8], out: &mut Vec<Output>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let next = self.desk.receive(now, connection, bytes, out);
        self.carry_out(id, next, out);
    }

    /// A client that sends no more gets its answers no more either, as in ZooKeeper; `echo ruok | nc` gets its own.
    fn on_end_of_stream(&mut self, id: ConnectionId, out: &mut Vec<Output>) {
        let Some(connection) = self.connections.get(&id) else { return };
        if connection.phase != Phase::Command && !connection.closes_when_sent {
            self.carry_out(id, Next::Close, out);
        }
    }

    /// A close that a frame, a reply or a rule asked for.
    pub(super) fn carry_out(&mut self, id: ConnectionId, next: Next, out: &mut Vec<Output>) {
        match next {
            Next::Done | Next::Hold => {}
            Next::Close => {
                self.forget(id);
                out.push(Output::Close(id));
            }
            Next::CloseWhenSent => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.closes_when_sent = true;
                    self.desk.mark_dirty(connection);
                }
            }
        }
    }

    /// The connection is gone, or is about to be; its session lives on.
    pub(super) fn forget(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else { return };
        let desk = &mut self.desk;
        desk.watches.close(id);
        desk.outstanding -= connection.writes_outstanding();
        desk.waiting_reads -= connection.outstanding() - connection.writes_outstanding();
        connection.waiting_lengths().for_each(|len| desk.large.end(len));
        desk.is_moving = true;
        if connection.is_touched {
            // The next report would not find it, and its session would be taken for silent since the one before.
            desk.batch.touched.extend(connection.session());
        }
        if let Some(session) = connection.session()
            && desk.sessions.get(&session) == Some(&id)
        {
            desk.sessions.remove(&session);
            desk.batch.asks.push(Ask::Detached { connection: id, session });
        }
    }

    fn on_sent(&mut self, now: Time, id: ConnectionId, buffer: Vec<u8>, out: &mut Vec<Output>) {
        self.desk.recycle_buffer(buffer);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.sending_since = None;
        if connection.has_read_in_front() {
            self.desk.serve_waiting_reads(now, connection);
            self.desk.is_moving = true;
        }
        if !connection.out.is_empty() {
            self.desk.mark_dirty(connection);
        } else if connection.closes_when_sent {
            self.carry_out(id, Next::Close, out);
        } else if connection.is_paused {
            self.desk.is_moving = true;
        }
    }

    fn on_told(&mut self, now: Time, tell: Tell, out: &mut Vec<Output>) {
        match tell {
            Tell::Renewed { connection: id, session, timeout_ms, is_alive } => {
                let Some(connection) = self.connections.get_mut(&id) else { return };
                let next = self.desk.on_renewed(connection, session, timeout_ms, is_alive);
                self.carry_out(id, next, out);
            }
            Tell::TurnedAway { connection: id } => {
                self.desk.stats.connection_drop_count += 1;
                if self.connections.contains_key(&id) {
                    self.carry_out(id, Next::Close, out);
                }
            }
            Tell::Detach { connection: id } => {
                let Some(connection) = self.connections.get(&id) else { return };
                if let Some(session) = connection.session()
                    && self.desk.sessions.get(&session) == Some(&id)
                {
                    // The session is another connection's now: nobody is to be told that it lost this one.
                    self.desk.sessions.remove(&session);
                }
                self.carry_out(id, Next::Close, out);
            }
            Tell::Undecided { connection: id } => {
                if self.connections.contains_key(&id) {
                    self.carry_out(id, Next::Close, out);
                }
            }
            Tell::Freeze => self.on_freeze(now),
            Tell::Shun => self.on_shun(now, out),
            Tell::Thaw { forwards_syncs } => {
                self.desk.forwards_syncs = forwards_syncs;
                self.desk.freeze = Freeze::default();
                self.desk.is_moving = true;
            }
        }
    }

    fn on_respond(&mut self, id: ConnectionId, text: &[u8], out: &mut Vec<Output>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if text.is_empty() {
            return self.carry_out(id, Next::Close, out);
        }
        connection.out.extend_from_slice(text);
        self.carry_out(id, Next::CloseWhenSent, out);
    }

    fn end_turn(&mut self, now: Time, out: &mut Vec<Output>) {
        if !self.desk.freeze.is_frozen() && std::mem::take(&mut self.desk.is_moving) {
            self.look_at_held(now, out);
        }
        self.send_all(now, out);
        if self.desk.report_at.is_some_and(|at| at <= now) {
            self.report_touches();
        }
        if !self.desk.batch.is_empty() && !self.desk.is_zab_full {
            out.push(Output::Ask(std::mem::take(&mut self.desk.batch)));
        }
    }

    /// Serves what was kept of connections that had to wait, and reads their sockets again. Whoever is served and has to
    /// wait again does so behind those who were not.
    fn look_at_held(&mut self, now: Time, out: &mut Vec<Output>) {
        self.desk.is_looking_at_held = true;
        // Whoever is held again goes into the list that comes next.
        let mut held = std::mem::replace(&mut self.desk.held, std::mem::take(&mut self.desk.spare_ids));
        for id in held.drain(..) {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            connection.is_paused = false;
            let (before, kept) = (out.len(), connection.inbound.len());
            let next = self.desk.receive(now, connection, &[], out);
            if connection.is_paused {
                // Held again: the socket was not told otherwise meanwhile.
                out.truncate(before);
                if connection.inbound.len() < kept {
                    self.desk.held_again.extend(self.desk.held.pop());
                }
            } else {
                out.push(Output::Resume(id));
            }
            self.carry_out(id, next, out);
        }
        self.desk.spare_ids = held;
        let desk = &mut self.desk;
        desk.held.append(&mut desk.held_again);
        desk.is_looking_at_held = false;
    }

    fn send_all(&mut self, now: Time, out: &mut Vec<Output>) {
        let mut dirty = std::mem::replace(&mut self.desk.dirty, std::mem::take(&mut self.desk.spare_ids));
        for id in dirty.drain(..) {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            connection.is_dirty = false;
            if connection.sending_since.is_some() {
                if connection.out.len() > limits::UNSENT_BYTES_MAX {
                    self.forget(id);
                    out.push(Output::Abort(id));
                }
                continue;
            }
            if connection.out.is_empty() {
                if connection.closes_when_sent {
                    self.carry_out(id, Next::Close, out);
                }
                continue;
            }
            let spare = self.desk.spare.pop().unwrap_or_default();
            let bytes = std::mem::replace(&mut connection.out, spare);
            connection.sending_since = Some(now);
            if !connection.is_in_sending {
                connection.is_in_sending = true;
                self.desk.sending.push(Reverse((now + self.desk.patience(connection), id)));
            }
            out.push(Output::Send { connection: id, bytes });
        }
        self.desk.spare_ids = dirty;
    }

    fn report_touches(&mut self) {
        self.desk.report_at = None;
        for id in self.desk.touched.drain(..) {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.is_touched = false;
                self.desk.batch.touched.extend(connection.session());
            }
        }
    }

    fn on_timeout(&mut self, now: Time, out: &mut Vec<Output>) {
        while let Some((at, id)) = self.desk.sessionless.front().copied()
            && at <= now
        {
            self.desk.sessionless.pop_front();
            if self.connections.get(&id).is_some_and(|c| matches!(c.phase, Phase::New | Phase::Command)) {
                self.carry_out(id, Next::Close, out);
            }
        }
        self.close_frozen(now, out);
        // A client that takes nothing for a whole session timeout is not there.
        while let Some(Reverse((at, id))) = self.desk.sending.peek().copied()
            && at <= now
        {
            self.desk.sending.pop();
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            let Some(since) = connection.sending_since else {
                connection.is_in_sending = false;
                continue;
            };
            let patience = self.desk.patience(connection);
            if since + patience <= now {
                self.forget(id);
                out.push(Output::Abort(id));
            } else {
                self.desk.sending.push(Reverse((since + patience, id)));
            }
        }
    }
}

impl Desk {
    /// Takes bytes off the socket and serves the frames that are whole.
    fn receive(&mut self, now: Time, c: &mut Connection, bytes: &[u8], out: &mut Vec<Output>) -> Next {
        let next = if c.inbound.is_empty() {
            let (consumed, next) = self.serve_stream(now, c, bytes, out);
            c.inbound.extend_from_slice(&bytes[consumed..]);
            next
        } else {
            c.inbound.extend_from_slice(bytes);
            let inbound = std::mem::take(&mut c.inbound);
            let (consumed, next) = self.serve_stream(now, c, &inbound, out);
            c.inbound = inbound;
            c.consume_inbound(consumed);
            next
        };
        if next != Next::Hold {
            c.throttled_since = None;
        } else if !c.is_paused {
            c.is_paused = true;
            self.held.push(c.id);
            out.push(Output::Pause(c.id));
        }
        next
    }

    /// Serves frames off the front of `bytes`; returns how much it took.
    fn serve_stream(&mut self, now: Time, c: &mut Connection, bytes: &[u8], out: &mut Vec<Output>) -> (usize, Next) {
        let mut at = 0;
        let mut warmed = 0;
        while at < bytes.len() {
            if at >= warmed {
                warmed = at + self.warm(&bytes[at..]);
            }
            if c.closes_when_sent || matches!(c.phase, Phase::Closing { .. } | Phase::Command) {
                return (bytes.len(), Next::Done);
            }
            if self.freeze.is_frozen() && matches!(c.phase, Phase::Established { .. }) {
                let (consumed, next) = self.serve_frozen(now, c, &bytes[at..]);
                return (at + consumed, next);
            }
            if self.must_hold(c) || self.throttles(now, c) {
                return (at, Next::Hold);
            }
            let payload = match split_frame(&bytes[at..], self.settings.payload_bytes_max) {
                Frame::Whole(payload) => payload,
                Frame::Incomplete if self.announces_too_much(&bytes[at..]) => return (at, self.refuse_large(c)),
                Frame::Incomplete => break,
                Frame::Bad if c.phase == Phase::New && at == 0 => {
                    c.phase = Phase::Command;
                    out.push(Output::Unframed { connection: c.id, bytes: bytes.to_vec() });
                    return (bytes.len(), Next::Done);
                }
                Frame::Bad => return (at, Next::Close),
            };
            let next = match c.phase {
                Phase::New => self.on_connect_request(now, c, payload),
                Phase::Established { session, .. } => self.on_request(now, c, session, payload),
                Phase::Connecting { .. } | Phase::Closing { .. } | Phase::Command => Next::Done,
            };
            match next {
                Next::Done => at += 4 + payload.len(),
                Next::Hold => return (at, Next::Hold),
                Next::Close | Next::CloseWhenSent => return (bytes.len(), next),
            }
        }
        (at, Next::Done)
    }

    /// Fetches from memory what the next reads will look at, if there are several. Returns how far it looked.
    fn warm(&self, bytes: &[u8]) -> usize {
        let mut paths: SmallVec<[&str; limits::WARMED_AT_ONCE]> = SmallVec::new();
        let mut at = 0;
        while paths.len() < limits::WARMED_AT_ONCE {
            let Frame::Whole(payload) = split_frame(&bytes[at..], self.settings.payload_bytes_max) else {
                at = bytes.len();
                break;
            };
            paths.extend(peek::read_path(payload));
            at += 4 + payload.len();
        }
        if paths.len() > 1 {
            self.reader.warm(&paths);
        }
        at.max(1)
    }

    fn must_hold(&self, c: &Connection) -> bool {
        matches!(c.phase, Phase::Connecting { .. })
            || c.is_full()
            || self.is_zab_full
            || self.batch.bytes.len() >= limits::BATCH_BYTES_MAX
            || (self.outstanding > self.settings.outstanding_max && c.is_waiting())
    }

    fn on_request(&mut self, now: Time, c: &mut Connection, session: SessionId, payload: &[u8]) -> Next {
        let mut body = Reader::with_limit(payload, 2 * self.settings.payload_bytes_max);
        let Ok(header) = RequestHeader::decode(&mut body) else { return Next::Close };
        let Some(op) = OpCode::from_i32(header.op).filter(|op| *op != OpCode::Check) else {
            client::put_reply(&mut c.out, header.xid, NO_ZXID, ErrorCode::Unimplemented);
            return Next::CloseWhenSent;
        };
        let is_forwarded = op.is_write() || (op == OpCode::Sync && self.forwards_syncs);
        if op == OpCode::Sync && !is_forwarded && !c.is_waiting() && self.is_behind() {
            return Next::Hold;
        }
        c.stats.packets_received += 1;
        self.stats.packets_received += 1;
        match op {
            OpCode::Auth => return self.on_auth(c, header.xid, &mut body),
            OpCode::Sasl => {
                self.refuse_sasl(c, header.xid);
                return Next::Done;
            }
            _ => {}
        }
        if !self.settings.auth.is_admitted(&c.auth) {
            client::put_reply(&mut c.out, header.xid, 0, ErrorCode::SessionClosedRequireSaslAuth);
            return Next::CloseWhenSent;
        }
        self.touch(now, c);
        if let Some(next) = self.judge_throttled(now, c, op, header.xid) {
            return next;
        }
        if !self.large.begin(payload.len()) {
            return self.refuse_large(c);
        }
        if is_forwarded {
            c.wait(Waiting::Write { op, xid: header.xid, len: payload.len(), since: now });
            self.forward(c, session, header.xid, op, body.rest());
        } else if c.is_waiting() && !mutant::is_active(Mutant::ReadsOvertakeWrites) {
            c.wait(Waiting::Read { payload: payload.into(), since: now });
            self.waiting_reads += 1;
        } else {
            self.serve_read(now, c, now, payload);
            self.large.end(payload.len());
        }
        Next::Done
    }

    /// Whether the frame whose beginning this is would go beyond the budget: then the rest of it need not come.
    fn announces_too_much(&self, bytes: &[u8]) -> bool {
        let announced = bytes.first_chunk().map_or(0, |length| u32::from_be_bytes(*length) as usize);
        !self.large.has_room_for(announced)
    }

    fn refuse_large(&mut self, c: &Connection) -> Next {
        tracing::warn!(peer = %c.peer, "too many bytes in large requests: closed (largeRequestMaxBytes)");
        self.stats.large_requests_rejected += 1;
        Next::Close
    }

    /// Whether there are versions that this shard has not adopted.
    pub fn is_behind(&self) -> bool {
        self.version() < self.published()
    }

    fn forward(&mut self, c: &mut Connection, session: SessionId, xid: i32, op: OpCode, body: &[u8]) {
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(body);
        let body = Span::new(start..self.batch.bytes.len());
        let auth = Arc::clone(&c.auth);
        self.batch.asks.push(Ask::Write(Forwarded { connection: c.id, session, xid, op, body, auth }));
        self.outstanding += 1;
        if op == OpCode::CloseSession {
            c.phase = Phase::Closing { session };
        }
    }

    /// Takes effect for everything read after it, and its reply may overtake.
    fn on_auth(&mut self, c: &mut Connection, xid: i32, body: &mut Reader<'_>) -> Next {
        let Ok(packet) = AuthPacket::decode(body) else {
            client::put_reply(&mut c.out, xid, 0, ErrorCode::AuthFailed);
            return Next::CloseWhenSent;
        };
        self.mark_dirty(c);
        self.authenticate(c, xid, &packet)
    }

    /// This server has no SASL: an empty answer, and the client goes on without.
    fn refuse_sasl(&mut self, c: &mut Connection, xid: i32) {
        client::put_frame(&mut c.out, |out| {
            client::put_reply_header(out, xid, 0, ErrorCode::Ok);
            out.put_buffer(None);
        });
        self.mark_dirty(c);
    }

    pub(super) fn touch(&mut self, now: Time, c: &mut Connection) {
        if !c.is_touched {
            c.is_touched = true;
            self.touched.push(c.id);
            self.report_at.get_or_insert(now + self.settings.touch_report_delay);
        }
    }

    pub fn ask(&mut self, ask: Ask) {
        self.batch.asks.push(ask);
    }

    /// It has something to send, or to close.
    pub fn mark_dirty(&mut self, c: &mut Connection) {
        if !c.is_dirty {
            c.is_dirty = true;
            self.dirty.push(c.id);
        }
    }

    fn recycle_buffer(&mut self, mut buffer: Vec<u8>) {
        if (1..=limits::KEPT_BUFFER_BYTES).contains(&buffer.capacity()) && self.spare.len() < limits::KEPT_BUFFERS {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// How long a send may take.
    fn patience(&self, c: &Connection) -> Duration {
        match c.phase {
            Phase::Established { timeout_ms, .. } => Duration::from_millis(timeout_ms.max(1) as u64),
            _ => self.settings.sessionless_timeout,
        }
    }
}

#[cfg(test)]
mod tests;
