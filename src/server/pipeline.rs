//! The zab core: a write's whole way, from the shard's batch to the publication.
//!
//! ```text
//! Batch ─► prepare at the head, apply ─► log entry ─► (EndOfTurn) durable write ─► own ack ─► quorum ─► commit ─► publish
//! ```
//!
//! The head is the end of the log; *committed* is a second mark behind it. What is published is committed.

use std::collections::VecDeque;
use std::time::Duration;

use ahash::AHashMap;
use smallvec::SmallVec;

use super::reaper::Reaper;
use super::reply::put_write_reply;
use super::snapshots::{ContainerSettings, SnapshotSchedule, SnapshotSettings, random_fraction};
use crate::shard::messages::{Ask, Batch, Forwarded, Tell, Told};
use crate::shard::throttle::{Admission, ConnectionThrottle, ThrottleSettings};
use crate::storage::log::{self, BLOCK_BYTES, Log, LogConfig};
use crate::storage::log_file::{ENTRY_EXTRA_BYTES, EntryWriter};
use crate::tree::Tree;
use crate::tree::effects::Effects;
use crate::tree::prepare::RequestContext;
use crate::tree::publication::{Block, Origin, PublishedTxn, Publisher, SessionChange, Span};
use crate::tree::store::Reader as TreeReader;
use crate::types::error_code::ErrorCode;
use crate::types::ids::{ServerId, SessionId, ShardId};
use crate::types::limits;
use crate::types::mutant::{self, Mutant};
use crate::types::time::{Time, WallTime};
use crate::types::zxid::Zxid;
use crate::wire::client::{OpCode, WriteRequest, put_reply};
use crate::wire::jute::Reader;
use crate::wire::peek;
use crate::wire::txn::{Txn, TxnHeader};
use crate::zab::leader::Leader;
use crate::zab::leases::{Leases, SessionState};
use crate::zab::quorum::Quorum;

/// The history of digests (`DataTree`): every 128th zxid, so many of them.
const DIGEST_EVERY_MASK: u64 = 0x7f;
const DIGESTS_MAX: usize = 1024;

/// Garbage that a sleeping server still has is looked at this often.
const RECLAIM_AGAIN: Duration = Duration::from_millis(20);

/// A log that has no room for longer than this has kept clients from being heard.
const TOLERATED_PAUSE: Duration = Duration::from_millis(200);

/// Both clocks, read once per turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    pub time: Time,
    pub wall: WallTime,
}

/// What of the configuration the zab core needs.
#[derive(Clone, Debug)]
pub struct ZabSettings {
    pub server: ServerId,
    pub tick: Duration,
    /// `jute.maxbuffer` plus `jute.maxbuffer.extrasize`, bytes: longer log entries could not be read back.
    pub entry_bytes_max: usize,
    pub snapshots: SnapshotSettings,
    pub containers: ContainerSettings,
    pub log: LogConfig,
    pub connection_throttle: ThrottleSettings,
    /// Seeds what is drawn at random.
    pub seed: u64,
}

/// What happened.
#[derive(Debug)]
pub enum Input<B> {
    Batch {
        shard: ShardId,
        batch: Batch,
    },
    Log(log::Input<B>),
    /// Everything that came with this wake-up has been stepped.
    EndOfTurn,
    SnapshotDone {
        bytes: u64,
    },
    /// This process did not run for so long: nobody's lease is to suffer for it.
    Stalled(Duration),
    Timeout,
    /// Finish what was accepted, then stop.
    Stop,
}

/// What to do.
pub enum Output<B> {
    Log(log::Output<B>),
    Tell(Told),
    /// Shards have something to follow.
    Published,
    /// A spent batch goes back to its shard.
    Spent {
        shard: ShardId,
        batch: Batch,
    },
    Snapshot(SnapshotJob),
    /// Everything accepted is durable and published.
    Stopped,
    Fatal {
        what: String,
    },
}

/// A version to be written down, held by a reader of its own.
pub struct SnapshotJob {
    pub reader: TreeReader,
    pub zxid: Zxid,
    pub digest: Option<u64>,
}

/// A batch of which the log has no room for the rest.
struct HeldBatch {
    shard: ShardId,
    batch: Batch,
    /// The first of its asks that waits.
    next: usize,
}

pub struct ZabCore<B> {
    settings: ZabSettings,
    tree: Tree,
    log: Log<B>,
    log_out: Vec<log::Output<B>>,
    leader: Leader,
    leases: Leases,
    publisher: Publisher,
    /// The connection that each session was last attached with.
    attached: AHashMap<SessionId, Origin>,
    next_session: SessionId,
    /// Every shard's ConnectRequests come by here, so the limit is the server's.
    throttle: ConnectionThrottle,
    effects: Effects,
    entry: Vec<u8>,
    reply: Vec<u8>,
    /// Proposed and not committed, oldest first, with the digest after each.
    proposed: VecDeque<(Block, u64)>,
    committed_digest: u64,
    /// Every 128th zxid with the digest behind it, newest last (`hash`).
    digests: VecDeque<(Zxid, u64)>,
    snapshots: SnapshotSchedule,
    reaper: Reaper,
    expired: Vec<SessionId>,
    /// There is garbage, and perhaps no turn of its own accord.
    reclaim_at: Option<Time>,
    /// While there is one, no further batch is taken.
    held: Option<HeldBatch>,
    /// Since when the log has had no room.
    no_room_since: Option<Time>,
    is_stopping: bool,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> ZabCore<B> {
    /// Leads an ensemble of one from a recovered tree. Every session gets its full timeout.
    pub fn standalone(
        settings: ZabSettings,
        tree: Tree,
        publisher: Publisher,
        buffers: Vec<B>,
        now: Now,
        out: &mut Vec<Output<B>>,
    ) -> ZabCore<B> {
        let head = tree.head();
        assert_eq!(tree.published(), head, "a recovered tree is committed to its end");
        let mut leases = Leases::new(settings.tick);
        for (session, timeout_ms) in tree.sessions() {
            leases.open(now.time, session, Duration::from_millis(timeout_ms.max(0) as u64));
        }
        let mut log_out = Vec::new();
        let log = Log::new(settings.log.clone(), head, buffers, &mut log_out);
        let committed_digest = tree.digest();
        let mut core = ZabCore {
            leader: Leader::new(Quorum::majority([settings.server]), head),
            snapshots: SnapshotSchedule::new(settings.snapshots, settings.seed),
            reaper: Reaper::new(settings.containers, now.time),
            next_session: SessionId::first(settings.server, now.wall.0),
            throttle: ConnectionThrottle::new(settings.connection_throttle, now.time),
            settings,
            tree,
            log,
            log_out,
            leases,
            publisher,
            attached: AHashMap::new(),
            effects: Effects::default(),
            entry: Vec::new(),
            reply: Vec::new(),
            proposed: VecDeque::new(),
            committed_digest,
            digests: VecDeque::new(),
            expired: Vec::new(),
            reclaim_at: None,
            held: None,
            no_room_since: None,
            is_stopping: false,
        };
        core.start_snapshot(out);
        core.drain_log(out);
        core
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    pub fn digests(&self) -> impl Iterator<Item = (Zxid, u64)> + '_ {
        self.digests.iter().copied()
    }

    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    pub fn step(&mut self, now: Now, input: Input<B>, out: &mut Vec<Output<B>>) {
        match input {
            Input::Batch { shard, batch } => self.on_batch(now, shard, batch, out),
            Input::Log(input) => {
                self.log.step(now.time, input, &mut self.log_out);
                self.drain_log(out);
                self.go_on(now, out);
            }
            Input::EndOfTurn => self.end_turn(now, out),
            Input::SnapshotDone { bytes } => self.snapshots.on_done(bytes),
            Input::Stalled(stall) => self.leases.push_out(stall),
            Input::Timeout => self.on_timeout(now, out),
            Input::Stop => {
                self.is_stopping = true;
                self.close_block();
                self.log.step(now.time, log::Input::Stop, &mut self.log_out);
                self.drain_log(out);
                self.go_on(now, out);
            }
        }
    }

    /// Whether a batch may come. While the log has no room their queues fill and the shards stop reading; the log's own
    /// inputs make room again.
    pub fn takes_batches(&self) -> bool {
        self.held.is_none() && (self.is_stopping || self.has_room())
    }

    fn has_room(&self) -> bool {
        self.log.has_room(self.settings.entry_bytes_max + ENTRY_EXTRA_BYTES)
    }

    /// When `Timeout` should come.
    pub fn deadline(&self) -> Option<Time> {
        // What a stopping server would no longer do must not wake it.
        let logged = match self.has_room() && !self.is_stopping {
            true => [self.leases.next_deadline(), Some(self.reaper.deadline())],
            false => [None, None],
        };
        logged.into_iter().chain([self.log.deadline(), self.reclaim_at]).flatten().min()
    }

    fn on_batch(&mut self, now: Now, shard: ShardId, batch: Batch, out: &mut Vec<Output<B>>) {
        assert!(self.held.is_none(), "asked for with `takes_batches`");
        for session in &batch.touched {
            self.leases.touch(now.time, *session);
        }
        self.work_off(now, HeldBatch { shard, batch, next: 0 }, out);
    }

    /// Works a batch off, as far as the log has room. A few bytes of request can become a long entry (the ephemerals of
    /// a session, the ids behind `auth`), so each is looked at alone.
    fn work_off(&mut self, now: Now, held: HeldBatch, out: &mut Vec<Output<B>>) {
        let HeldBatch { shard, mut batch, next } = held;
        for (at, ask) in batch.asks.iter().enumerate().skip(next) {
            if (at - next) % limits::WARMED_AT_ONCE == 0 {
                self.warm(&batch, at);
            }
            if !self.is_stopping && !self.has_room() {
                self.no_room_since.get_or_insert(now.time);
                self.held = Some(HeldBatch { shard, batch, next: at });
                return;
            }
            match ask {
                Ask::Write(request) => self.on_write(now, shard, request, &batch.bytes[request.body.range()]),
                &Ask::OpenSession { connection, timeout_ms } => {
                    let origin = Origin { shard, connection };
                    if self.lets_in(now, origin, Admission::GlobalSession, out) {
                        self.open_session(now, origin, timeout_ms);
                    }
                }
                &Ask::RenewSession { connection, session, timeout_ms } => {
                    let origin = Origin { shard, connection };
                    if self.lets_in(now, origin, Admission::RenewSession, out) {
                        self.renew_session(now, origin, session, timeout_ms, out);
                    }
                }
                &Ask::Detached { connection, session } => {
                    if self.attached.get(&session) == Some(&Origin { shard, connection }) {
                        self.attached.remove(&session);
                    }
                }
            }
        }
        batch.clear();
        out.push(Output::Spent { shard, batch });
    }

    /// Fetches from memory what the writes from `at` on will look at.
    fn warm(&self, batch: &Batch, at: usize) {
        let path = |ask: &Ask| match ask {
            Ask::Write(request) => peek::first_path(&batch.bytes[request.body.range()]),
            Ask::OpenSession { .. } | Ask::RenewSession { .. } | Ask::Detached { .. } => None,
        };
        // Parents of creates are few and at hand; what is not there costs one look at the index.
        let paths: SmallVec<[&str; limits::WARMED_AT_ONCE]> =
            SmallVec::from_iter(batch.asks[at..].iter().take(limits::WARMED_AT_ONCE).filter_map(path));
        if paths.len() > 1 {
            self.tree.warm(&paths);
        }
    }

    /// Goes on with what waited for the log. Who could not be heard meanwhile gets the time back.
    fn go_on(&mut self, now: Now, out: &mut Vec<Output<B>>) {
        if !self.is_stopping && !self.has_room() {
            self.no_room_since.get_or_insert(now.time);
            return;
        }
        if let Some(since) = self.no_room_since.take() {
            let pause = now.time.saturating_since(since);
            if pause > TOLERATED_PAUSE {
                tracing::warn!(pause_ms = pause.as_millis() as u64, "the log took nothing; sessions get the time back");
                self.leases.push_out(pause);
            }
        }
        if let Some(held) = self.held.take() {
            self.work_off(now, held, out);
        }
    }

    fn on_write(&mut self, now: Now, shard: ShardId, request: &Forwarded, body: &[u8]) {
        if self.is_stopping {
            return;
        }
        let origin = Origin { shard, connection: request.connection };
        if !self.log.accepts_writes() && request.op != OpCode::CloseSession {
            return self.refuse_unnumbered(origin, request.xid);
        }
        let is_live = self.leases.touch(now.time, request.session);
        let header = self.next_header(now, request.session, request.xid);
        let context = RequestContext {
            header,
            auth: request.auth.ids(),
            session_error: if is_live { None } else { Some(ErrorCode::SessionExpired) },
        };
        match WriteRequest::decode(request.op, &mut Reader::with_limit(body, self.settings.entry_bytes_max)) {
            Err(_) => {
                self.propose(&header, Some(origin), request.op, |tree, payload, effects| {
                    tree.refuse(&header, ErrorCode::MarshallingError, payload, effects);
                });
            }
            Ok(write) => {
                self.propose(&header, Some(origin), request.op, |tree, payload, effects| {
                    tree.process(&context, &write, payload, effects);
                });
                if request.op == OpCode::CloseSession {
                    self.leases.set_closing(request.session);
                }
            }
        }
    }

    /// The disk is full: the answer takes its place in the order, without a zxid of its own.
    fn refuse_unnumbered(&mut self, origin: Origin, xid: i32) {
        let zxid = self.tree.head();
        self.reply.clear();
        put_reply(&mut self.reply, xid, zxid.as_i64(), ErrorCode::NotReadOnly);
        self.push_published(zxid, SessionChange::None, Span::default(), Some(origin));
    }

    fn next_header(&self, now: Now, session: SessionId, cxid: i32) -> TxnHeader {
        TxnHeader { session, cxid, zxid: self.tree.head().next(), time: now.wall }
    }

    /// Makes the next version with `make`, logs it, and adds its changes and its reply to the block at hand.
    fn propose(
        &mut self,
        header: &TxnHeader,
        origin: Option<Origin>,
        op: OpCode,
        make: impl FnOnce(&mut Tree, &mut Vec<u8>, &mut Effects),
    ) {
        let writer = EntryWriter { payload_bytes_max: self.settings.entry_bytes_max };
        let mark = self.effects.begin();
        self.entry.clear();
        let (tree, effects) = (&mut self.tree, &mut self.effects);
        if writer.append(&mut self.entry, |payload| make(tree, payload, effects)).is_err() {
            // What does not fit into a log entry could not be read back, by us or by Java.
            self.tree.undo();
            self.effects.take_back(mark);
            let (tree, effects) = (&mut self.tree, &mut self.effects);
            let refused = writer.append(&mut self.entry, |payload| {
                tree.refuse(header, ErrorCode::MarshallingError, payload, effects);
            });
            refused.expect("an error txn is a few bytes");
        }
        if header.zxid.0 & DIGEST_EVERY_MASK == 0 {
            if self.digests.len() == DIGESTS_MAX {
                self.digests.pop_front();
            }
            self.digests.push_back((header.zxid, self.tree.digest()));
        }
        if self.effects.is_refused && mutant::is_active(Mutant::RefusedWithoutZxid) {
            self.tree.undo();
            self.reply.clear();
            put_write_reply(&mut self.reply, op, header.cxid, header.zxid, &self.effects);
            return self.push_published(self.tree.head(), SessionChange::None, Span::default(), origin);
        }
        self.log.append(header.zxid, &self.entry, &mut self.log_out);
        debug_assert!(self.log.unflushed_bytes() <= in_flight_bytes_max(self.settings.entry_bytes_max));
        self.leader.on_proposed(header.zxid);
        self.snapshots.on_logged(self.entry.len());
        self.reply.clear();
        if origin.is_some() {
            put_write_reply(&mut self.reply, op, header.cxid, header.zxid, &self.effects);
        }
        let session = match op {
            OpCode::CloseSession => SessionChange::Closed(header.session),
            _ => SessionChange::None,
        };
        self.push_published(header.zxid, session, self.effects.changes_since(mark), origin);
    }

    fn push_published(&mut self, zxid: Zxid, session: SessionChange, changes: Span, origin: Option<Origin>) {
        let block = &mut self.effects.block;
        let start = block.bytes.len();
        block.bytes.extend_from_slice(&self.reply);
        let reply = Span::new(start..block.bytes.len());
        block.txns.push(PublishedTxn { zxid, session, changes, origin, reply });
        if block.bytes.len() >= limits::BLOCK_BYTES_MAX {
            self.close_block();
        }
    }

    /// A txn of our own making.
    fn propose_internal(&mut self, header: &TxnHeader, txn: &Txn<'_>, session: SessionChange, origin: Option<Origin>) {
        let op = OpCode::Check;
        self.propose(header, None, op, |tree, payload, effects| {
            tree.process_internal(header, txn, payload, effects);
        });
        if let Some(published) = self.last_published() {
            (published.session, published.origin) = (session, origin);
        }
    }

    fn last_published(&mut self) -> Option<&mut PublishedTxn> {
        match self.effects.block.txns.last_mut() {
            Some(txn) => Some(txn),
            None => self.proposed.back_mut()?.0.txns.last_mut(),
        }
    }

    /// Who is turned away hears nothing: its connection closes, and it tries again elsewhere or later.
    fn lets_in(&mut self, now: Now, origin: Origin, admission: Admission, out: &mut Vec<Output<B>>) -> bool {
        let is_let_in = self.throttle.admit(now.time, admission, || random_fraction(&mut self.settings.seed));
        if !is_let_in {
            let tell = Tell::TurnedAway { connection: origin.connection };
            out.push(Output::Tell(Told { shard: origin.shard, tell }));
        }
        is_let_in
    }

    fn open_session(&mut self, now: Now, origin: Origin, timeout_ms: i32) {
        if self.is_stopping {
            return;
        }
        let session = self.next_session;
        self.next_session = session.next();
        self.leases.open(now.time, session, Duration::from_millis(timeout_ms.max(0) as u64));
        self.attached.insert(session, origin);
        let header = self.next_header(now, session, 0);
        let change = SessionChange::Opened { session, timeout_ms };
        self.propose_internal(&header, &Txn::CreateSession { timeout_ms }, change, Some(origin));
    }

    fn renew_session(
        &mut self,
        now: Now,
        origin: Origin,
        session: SessionId,
        timeout_ms: i32,
        out: &mut Vec<Output<B>>,
    ) {
        let timeout = Duration::from_millis(timeout_ms.max(0) as u64);
        let is_alive = self.leases.renew(now.time, session, timeout);
        if is_alive
            && let Some(old) = self.attached.insert(session, origin)
            && old != origin
        {
            let tell = Tell::Detach { connection: old.connection };
            out.push(Output::Tell(Told { shard: old.shard, tell }));
        }
        let tell = Tell::Renewed { connection: origin.connection, session, timeout_ms, is_alive };
        out.push(Output::Tell(Told { shard: origin.shard, tell }));
    }

    fn end_turn(&mut self, now: Now, out: &mut Vec<Output<B>>) {
        self.close_block();
        self.log.step(now.time, log::Input::Submit, &mut self.log_out);
        self.drain_log(out);
        if self.snapshots.is_due() && !self.is_stopping {
            self.start_snapshot(out);
            self.log.step(now.time, log::Input::Roll, &mut self.log_out);
            self.drain_log(out);
        }
        self.reclaim(now);
    }

    /// Gives memory back, a bounded piece at a time: more than one turn makes, so that it keeps up.
    fn reclaim(&mut self, now: Now) {
        let more = self.tree.reclaim(limits::RECLAIMED_PER_TURN);
        self.reclaim_at = more.then(|| now.time + RECLAIM_AGAIN);
    }

    fn close_block(&mut self) {
        if !self.effects.block.txns.is_empty() {
            let block = std::mem::take(&mut self.effects.block);
            self.proposed.push_back((block, self.tree.digest()));
        }
    }

    /// Hands the log's wishes on, and takes its flushes as this server's ack.
    fn drain_log(&mut self, out: &mut Vec<Output<B>>) {
        let mut outputs = std::mem::take(&mut self.log_out);
        for output in outputs.drain(..) {
            match output {
                log::Output::Flushed { upto } => {
                    self.leader.on_ack(self.settings.server, upto);
                }
                log::Output::Fatal { what } => out.push(Output::Fatal { what }),
                log::Output::Full(is_full) => report_full_disk(is_full),
                log::Output::Stopped => {
                    self.publish_committed(out);
                    out.push(Output::Stopped);
                }
                output @ (log::Output::Prepare { .. }
                | log::Output::Name { .. }
                | log::Output::Extend { .. }
                | log::Output::Write { .. }
                | log::Output::Finish { .. }
                | log::Output::Discard { .. }) => out.push(Output::Log(output)),
            }
        }
        self.log_out = outputs;
        self.publish_committed(out);
    }

    /// Publishes every block whose last txn is committed.
    fn publish_committed(&mut self, out: &mut Vec<Output<B>>) {
        let committed = self.leader.committed();
        let mut is_published = false;
        while self.proposed.front().is_some_and(|(block, _)| block.last() <= Some(committed)) {
            let Some((block, digest)) = self.proposed.pop_front() else { return };
            for txn in &block.txns {
                if let SessionChange::Closed(session) = txn.session {
                    self.leases.remove(session);
                    self.attached.remove(&session);
                }
            }
            if let Some(last) = block.last() {
                self.tree.publish(last);
            }
            self.committed_digest = digest;
            self.publisher.publish(block);
            is_published = true;
        }
        if is_published {
            out.push(Output::Published);
        }
    }

    fn start_snapshot(&mut self, out: &mut Vec<Output<B>>) {
        self.snapshots.on_started();
        let digest = self.tree.settings().digest_enabled.then_some(self.committed_digest);
        let reader = self.tree.reader().expect("one reader per shard and one snapshot at a time");
        let is_wrong = mutant::is_active(Mutant::SnapshotOfUncommitted);
        let zxid = if is_wrong { self.tree.head() } else { self.tree.published() };
        out.push(Output::Snapshot(SnapshotJob { reader, zxid, digest }));
    }

    fn on_timeout(&mut self, now: Now, out: &mut Vec<Output<B>>) {
        self.log.step(now.time, log::Input::Timeout, &mut self.log_out);
        self.drain_log(out);
        self.go_on(now, out);
        if self.is_stopping {
            return;
        }
        // What finds no room now is still due at the next timeout.
        for _ in 0..limits::SLICE_TXNS {
            if self.held.is_some() || !self.has_room() {
                return;
            }
            self.leases.expire(now.time, 1, &mut self.expired);
            let Some(session) = self.expired.pop() else { break };
            tracing::info!(%session, "session expired");
            self.close_session(now, session);
        }
        while self.has_room()
            && let Some(path) = self.reaper.next(now.time, now.wall, &self.tree)
        {
            let header = self.next_header(now, SessionId::NONE, 0);
            let txn = Txn::DeleteContainer { path: path.into() };
            self.propose_internal(&header, &txn, SessionChange::None, None);
        }
    }

    fn close_session(&mut self, now: Now, session: SessionId) {
        let header = self.next_header(now, session, 0);
        let txn = self.tree.close_session_txn(session.0);
        self.propose_internal(&header, &txn, SessionChange::Closed(session), None);
    }

    /// What a session is worth, for those who ask from outside.
    pub fn session_state(&self, session: SessionId) -> SessionState {
        self.leases.state(session)
    }
}

/// Bytes of the log that may be on their way to the disk, for recovery: more than [`limits::LOG_IN_FLIGHT_BYTES_MAX`]
/// only if a single entry may be longer (`jute.maxbuffer`).
pub fn in_flight_bytes_max(entry_bytes_max: usize) -> usize {
    limits::LOG_IN_FLIGHT_BYTES_MAX.max(entry_bytes_max + ENTRY_EXTRA_BYTES + 2 * BLOCK_BYTES)
}

fn report_full_disk(is_full: bool) {
    if is_full {
        tracing::error!("the log's disk is full: writes are refused with NotReadOnly until there is space again");
    } else {
        tracing::warn!("the log's disk has space again: writes are accepted");
    }
}

#[cfg(test)]
mod tests;
