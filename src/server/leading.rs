//! The leader's part of the zab core: requests become txns at the head, sessions are opened, renewed and closed.
//!
//! Requests come from own shards and from learners. Those of one link are prepared in their order, each becomes exactly one
//! txn, and what is refused becomes an error txn in its place: learners wait for them in that order.

use std::time::Duration;

use bumpalo::Bump;

use super::pending::{PendingWrite, Unanswered, Wish};
use super::pipeline::{Attached, Now, Output, ZabCore, in_flight_bytes_max};
use super::reply::put_write_reply;
use crate::shard::messages::{Forwarded, Tell, Told};
use crate::storage::log_file::{EntryWriter, payload_of};
use crate::tree::Tree;
use crate::tree::effects::Effects;
use crate::tree::prepare::RequestContext;
use crate::tree::publication::{Origin, SessionChange, Span};
use crate::types::acl::Id;
use crate::types::error_code::ErrorCode;
use crate::types::ids::SessionId;
use crate::types::limits;
use crate::types::mutant::{self, Mutant};
use crate::types::zxid::Zxid;
use crate::wire::client::{OpCode, WriteRequest};
use crate::wire::jute::Reader;
use crate::wire::txn::{Txn, TxnHeader, txn_type};
use crate::zab::leases::Owner;
use crate::zab::transport::SocketId;
use crate::zab::{self, OwnedRequest, RoleName};

/// A write that is to be prepared, wherever it comes from.
pub(super) struct Asked<'a> {
    pub session: SessionId,
    pub cxid: i32,
    pub op: OpCode,
    pub body: &'a [u8],
    pub ids: &'a [Id],
    /// Which way it came.
    pub owner: Owner,
}

/// What stands beside a txn when it is published.
#[derive(Clone, Copy, Default)]
pub(super) struct Publishing {
    /// Whose request it is, on this server.
    pub origin: Option<Origin>,
    /// What kind of reply that request gets; `None` for sessions.
    pub op: Option<OpCode>,
    pub session: SessionChange,
}

fn timeout_of(timeout_ms: i32) -> Duration {
    Duration::from_millis(timeout_ms.max(0) as u64)
}

fn owner_of(origin: Origin) -> Owner {
    Owner::Here { shard: origin.shard, connection: origin.connection }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> ZabCore<B> {
    /// Every session that the head knows gets its full timeout, and nobody speaks for it yet.
    pub(super) fn track_sessions(&mut self, now: Now) {
        self.leases.clear();
        for (session, timeout_ms) in self.tree.sessions() {
            self.leases.open(now.time, session, timeout_of(timeout_ms));
        }
    }

    /// A write of an own client.
    pub(super) fn on_write(
        &mut self,
        now: Now,
        origin: Origin,
        request: &Forwarded,
        body: &[u8],
        out: &mut Vec<Output<B>>,
    ) {
        if self.is_stopping {
            return;
        }
        if self.is_member && !self.is_attached(request.session, origin) {
            return self.turn_away(origin, out);
        }
        if self.role != RoleName::Leading {
            return self.forward(now, origin, request, body);
        }
        if request.op == OpCode::Sync {
            return self.answer_sync(origin, request.xid, body);
        }
        if !self.log.accepts_writes() && request.op != OpCode::CloseSession {
            return self.push_answer(origin, request.xid, ErrorCode::NotReadOnly);
        }
        let asked = Asked {
            session: request.session,
            cxid: request.xid,
            op: request.op,
            body,
            ids: request.auth.ids(),
            owner: owner_of(origin),
        };
        let zxid = self.prepare(now, &asked, Some(origin));
        if self.is_member {
            let wish = Wish::Write(request.op);
            let write = PendingWrite::new(origin, request.session, request.xid, wish, zxid);
            self.pending.push_proposed(write.with_auth(&request.auth), body, zxid);
        }
    }

    /// Prepares a write at the head and proposes what comes of it; returns its zxid.
    fn prepare(&mut self, now: Now, asked: &Asked<'_>, origin: Option<Origin>) -> Zxid {
        let session_error = self.leases.claim(now.time, asked.session, asked.owner).err();
        let header = self.next_header(now, asked.session, asked.cxid);
        let arena = std::mem::take(&mut self.arena);
        let context = RequestContext { header, auth: asked.ids, session_error, arena: &arena };
        let session = match asked.op {
            OpCode::CloseSession => SessionChange::Closed(asked.session),
            _ => SessionChange::None,
        };
        let publishing = Publishing { origin, op: Some(asked.op), session };
        let mut body = Reader::with_limit(asked.body, self.settings.entry_bytes_max);
        match WriteRequest::decode(asked.op, &mut body, &arena) {
            Err(_) => self.refuse(now, &header, ErrorCode::MarshallingError, publishing),
            Ok(write) => {
                self.propose(now, &header, publishing, |tree, payload, effects| {
                    tree.process(&context, &write, payload, effects);
                });
                if asked.op == OpCode::CloseSession {
                    self.leases.set_closing(asked.session);
                }
            }
        }
        self.keep(arena);
        header.zxid
    }

    /// The arena, for the next write.
    fn keep(&mut self, mut arena: Bump) {
        if arena.allocated_bytes() <= limits::KEPT_ARENA_BYTES {
            arena.reset();
            self.arena = arena;
        }
    }

    /// An error txn.
    fn refuse(&mut self, now: Now, header: &TxnHeader, error: ErrorCode, publishing: Publishing) {
        let publishing = Publishing { session: SessionChange::None, ..publishing };
        self.propose(now, header, publishing, |tree, payload, effects| tree.refuse(header, error, payload, effects));
    }

    fn next_header(&self, now: Now, session: SessionId, cxid: i32) -> TxnHeader {
        let zxid = self.tree.head().max(self.epoch_start).next();
        TxnHeader { session, cxid, zxid, time: now.wall }
    }

    /// Makes the next version with `make`, logs and proposes it, and adds its changes and its reply to the block at hand.
    fn propose(
        &mut self,
        now: Now,
        header: &TxnHeader,
        publishing: Publishing,
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
            let shorter = writer.append(&mut self.entry, |payload| match publishing.session {
                // A session always ends: without the list, every version deletes what the session owns.
                SessionChange::Closed(_) => {
                    tree.process_internal(header, &Txn::CloseSession { paths: None }, payload, effects);
                }
                SessionChange::None | SessionChange::Opened { .. } => {
                    tree.refuse(header, ErrorCode::MarshallingError, payload, effects);
                }
            });
            shorter.expect("either is a few bytes");
        }
        if self.effects.is_refused && mutant::is_active(Mutant::RefusedWithoutZxid) {
            return self.answer_without_zxid(header, publishing);
        }
        self.note_digest(header.zxid);
        self.log.append(header.zxid, &self.entry, &mut self.log_out);
        debug_assert!(self.log.unflushed_bytes() <= in_flight_bytes_max(self.settings.entry_bytes_max));
        let txn = payload_of(&self.entry).expect("it was framed above");
        self.proposal_size.record(txn.len());
        self.zab.step(now.time, zab::Input::Propose { zxid: header.zxid, txn });
        self.snapshots.on_logged(self.entry.len());
        self.reply.clear();
        if let Some(op) = publishing.op
            && publishing.origin.is_some()
            && !self.effects.is_moved()
        {
            put_write_reply(&mut self.reply, op, header.cxid, header.zxid, &self.effects);
        }
        let changes = self.effects.changes_since(mark);
        self.push_published(header.zxid, publishing.session, changes, publishing.origin);
    }

    /// The mutant's way to refuse a write.
    fn answer_without_zxid(&mut self, header: &TxnHeader, publishing: Publishing) {
        self.tree.undo();
        self.reply.clear();
        if let Some(op) = publishing.op {
            put_write_reply(&mut self.reply, op, header.cxid, header.zxid, &self.effects);
        }
        let at = self.effects.block.changes.len();
        self.push_published(self.tree.head(), SessionChange::None, Span::new(at..at), publishing.origin);
    }

    /// A txn of our own making, or about a session.
    fn propose_internal(&mut self, now: Now, header: &TxnHeader, txn: &Txn<'_>, publishing: Publishing) {
        self.propose(now, header, publishing, |tree, payload, effects| {
            tree.process_internal(header, txn, payload, effects);
        });
    }

    /// A new session of an own client. Its id is chosen here, whoever leads.
    pub(super) fn open_session(&mut self, now: Now, attached: Attached) {
        if self.is_stopping {
            return;
        }
        let session = self.next_session;
        self.next_session = session.next();
        self.attached.insert(session, attached);
        let Attached { origin, timeout_ms } = attached;
        if self.role != RoleName::Leading {
            return self.forward_open(now, session, attached);
        }
        let zxid = self.create_session(now, session, 0, timeout_ms, owner_of(origin), Some(origin));
        if self.is_member {
            let write = PendingWrite::new(origin, session, 0, Wish::Open { timeout_ms }, zxid);
            self.pending.push_proposed(write, &timeout_ms.to_be_bytes(), zxid);
        }
    }

    fn create_session(
        &mut self,
        now: Now,
        session: SessionId,
        cxid: i32,
        timeout_ms: i32,
        owner: Owner,
        origin: Option<Origin>,
    ) -> Zxid {
        self.leases.open(now.time, session, timeout_of(timeout_ms));
        self.leases.set_owner(session, owner);
        let header = self.next_header(now, session, cxid);
        let change = match origin {
            Some(_) => SessionChange::Opened { session, timeout_ms },
            None => SessionChange::None,
        };
        let publishing = Publishing { origin, op: None, session: change };
        self.propose_internal(now, &header, &Txn::CreateSession { timeout_ms }, publishing);
        header.zxid
    }

    /// A client of this server wants its session back.
    pub(super) fn renew_session(&mut self, now: Now, attached: Attached, session: SessionId, out: &mut Vec<Output<B>>) {
        if self.role != RoleName::Leading {
            return self.ask_revalidation(now, attached, session, out);
        }
        let is_alive = self.leases.renew(now.time, session, timeout_of(attached.timeout_ms));
        if is_alive {
            self.leases.set_owner(session, owner_of(attached.origin));
        }
        self.attach(attached, session, is_alive, out);
    }

    /// Tells a client whether it has its session back; the connection that had it before loses it.
    pub(super) fn attach(&mut self, attached: Attached, session: SessionId, is_alive: bool, out: &mut Vec<Output<B>>) {
        let Attached { origin, timeout_ms } = attached;
        if is_alive
            && let Some(old) = self.attached.insert(session, attached)
            && old.origin != origin
        {
            let tell = Tell::Detach { connection: old.origin.connection };
            out.push(Output::Tell(Told { shard: old.origin.shard, tell }));
        }
        let tell = Tell::Renewed { connection: origin.connection, session, timeout_ms, is_alive };
        out.push(Output::Tell(Told { shard: origin.shard, tell }));
    }

    /// A learner's client wants something done.
    pub(super) fn on_learner_request(
        &mut self,
        now: Now,
        socket: SocketId,
        request: &OwnedRequest,
        out: &mut Vec<Output<B>>,
    ) {
        if self.role != RoleName::Leading {
            return;
        }
        let OwnedRequest { session, cxid, op, body, auth } = request;
        let (session, cxid, owner) = (*session, *cxid, Owner::There(socket));
        if *op == OpCode::Sync as i32 {
            return self.step_zab(now, zab::Input::Sync { socket }, out);
        }
        let is_open = *op == txn_type::CREATE_SESSION;
        if let Some(timeout) = body.first_chunk::<4>().filter(|_| is_open && self.log.accepts_sessions()) {
            self.create_session(now, session, cxid, i32::from_be_bytes(*timeout), owner, None);
            return;
        }
        match OpCode::from_i32(*op).filter(|op| op.is_write()) {
            Some(op) if self.log.accepts_writes() || op == OpCode::CloseSession => {
                self.prepare(now, &Asked { session, cxid, op, body, ids: auth, owner }, None);
            }
            op => {
                // It waits for a txn, whatever it was.
                let is_known = is_open || op.is_some();
                let error = if is_known { ErrorCode::NotReadOnly } else { ErrorCode::Unimplemented };
                let header = self.next_header(now, session, cxid);
                self.refuse(now, &header, error, Publishing::default());
            }
        }
    }

    /// A learner heard from a client.
    pub(super) fn on_touch(&mut self, now: Now, session: SessionId, timeout_ms: i32) {
        if self.role == RoleName::Leading {
            self.leases.touch_for(now.time, session, timeout_of(timeout_ms));
        }
    }

    /// A client has moved to a learner.
    pub(super) fn on_revalidate(
        &mut self,
        now: Now,
        socket: SocketId,
        session: SessionId,
        timeout_ms: i32,
        out: &mut Vec<Output<B>>,
    ) {
        if self.role != RoleName::Leading {
            return;
        }
        let is_alive = self.leases.renew(now.time, session, timeout_of(timeout_ms));
        if is_alive {
            self.leases.set_owner(session, Owner::There(socket));
        }
        self.step_zab(now, zab::Input::Revalidated { socket, session, is_alive }, out);
    }

    /// What own clients had handed to a leader that is none any more, and what this server proposed and nobody has, is
    /// prepared again, in order.
    pub(super) fn prepare_again(&mut self, now: Now, out: &mut Vec<Output<B>>) {
        while self.role == RoleName::Leading && self.has_room() {
            self.answer_refused();
            let mut body = std::mem::take(&mut self.body);
            let next = self.pending.next_unanswered(&mut body);
            match &next {
                Some(Unanswered::Write(write)) => {
                    let zxid = self.prepare_pending(now, write, &body);
                    self.pending.on_proposed(zxid);
                }
                Some(Unanswered::Sync(sync)) => self.answer_sync(sync.origin, sync.cxid, &sync.body),
                None => {}
            }
            self.body = body;
            if next.is_none() {
                return;
            }
            self.carry_out(now, out);
        }
    }

    fn prepare_pending(&mut self, now: Now, write: &PendingWrite, body: &[u8]) -> Zxid {
        let (origin, owner) = (Some(write.origin), owner_of(write.origin));
        match write.wish {
            Wish::Open { timeout_ms } => self.create_session(now, write.session, write.cxid, timeout_ms, owner, origin),
            Wish::Write(op) => {
                let asked = Asked { session: write.session, cxid: write.cxid, op, body, ids: write.ids(), owner };
                self.prepare(now, &asked, origin)
            }
            Wish::Refused(_) => unreachable!("answered before"),
        }
    }

    /// Closes sessions whose time is up, and removes containers and TTL nodes. What finds no room now is still due at the
    /// next timeout.
    pub(super) fn expire(&mut self, now: Now, out: &mut Vec<Output<B>>) {
        for _ in 0..limits::SLICE_TXNS {
            if !self.may_propose() {
                return;
            }
            self.leases.expire(now.time, 1, &mut self.expired);
            let Some(session) = self.expired.pop() else { break };
            tracing::info!(%session, "session expired");
            self.close_session(now, session);
            self.carry_out(now, out);
        }
        while self.may_propose()
            && let Some(path) = self.reaper.next(now.time, now.wall, &self.tree)
        {
            let header = self.next_header(now, SessionId::NONE, 0);
            let txn = Txn::DeleteContainer { path: path.into() };
            self.propose_internal(now, &header, &txn, Publishing::default());
            self.carry_out(now, out);
        }
    }

    fn may_propose(&self) -> bool {
        self.role == RoleName::Leading && self.held.is_empty() && self.has_room()
    }

    fn close_session(&mut self, now: Now, session: SessionId) {
        let header = self.next_header(now, session, 0);
        let arena = std::mem::take(&mut self.arena);
        let txn = self.tree.close_session_txn(session.0, &arena);
        let publishing = Publishing { session: SessionChange::Closed(session), ..Publishing::default() };
        self.propose_internal(now, &header, &txn, publishing);
        drop(txn);
        self.keep(arena);
    }
}

#[cfg(test)]
mod tests;
