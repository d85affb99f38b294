//! Following what the zab core publishes: events, then the answer, then the reads that waited for it.
//!
//! Txns are walked in order. For each, its events go out before its reply, and before anything that is read at its
//! version or later; the reads of that session that stood behind the write are served exactly at its version.

use super::auth::AuthIds;
use super::connection::{Connection, Phase, Waiting};
use super::machine::{Desk, Next, Output, Shard};
use super::stats::{OpKind, Response};
use super::watch::Fired;
use crate::tree::access;
use crate::tree::publication::{Block, Change, Origin, PublishedTxn, SessionChange};
use crate::tree::{version_of, zxid_of};
use crate::types::acl::{AclList, perms};
use crate::types::ids::{ConnectionId, SessionId};
use crate::types::limits;
use crate::types::mutant::{self, Mutant};
use crate::types::time::Time;
use crate::types::zxid::Zxid;
use crate::wire::client::{self, OpCode};

impl Shard {
    /// Walks every block that was linked since.
    pub(super) fn follow(&mut self, now: Time, out: &mut Vec<Output>) {
        while self.desk.cursor.advance() {
            let cursor = self.desk.cursor.clone();
            let block = cursor.block();
            for txn in &block.txns {
                self.follow_txn(now, block, txn, out);
                self.desk.followed = txn.zxid;
            }
            if let Some(last) = block.last().filter(|_| !mutant::is_active(Mutant::ReplyBeforeAdoption)) {
                self.desk.adopt(last);
            }
            self.desk.is_moving = true;
        }
    }

    fn follow_txn(&mut self, now: Time, block: &Block, txn: &PublishedTxn, out: &mut Vec<Output>) {
        let own = txn.origin.filter(|origin| origin.shard == self.desk.settings.id);
        if let Some(origin) = own {
            self.catch_up(now, origin.connection, out);
            if mutant::is_active(Mutant::ReplyBeforeEvents) {
                self.answer(now, block, txn, origin, out);
            }
        }
        if self.desk.watches.paths() > 0 {
            for change in block.changes(txn) {
                self.fire(txn.zxid, block, change);
            }
        }
        if let Some(origin) = own.filter(|_| !mutant::is_active(Mutant::ReplyBeforeEvents)) {
            self.answer(now, block, txn, origin, out);
        }
        if let SessionChange::Closed(session) = txn.session {
            self.on_session_closed(session, out);
        }
    }

    /// Reads that were kept back because the client is slow stand before its own next write: they are answered before
    /// it is, at the version before it. A client that lets too much pile up this way is disconnected.
    fn catch_up(&mut self, now: Time, id: ConnectionId, out: &mut Vec<Output>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !connection.has_read_in_front() {
            return;
        }
        let desk = &mut self.desk;
        desk.adopt(desk.followed);
        while connection.out.len() <= limits::UNSENT_BYTES_MAX
            && !connection.closes_when_sent
            && desk.serve_next(now, connection)
        {}
        if connection.has_read_in_front() {
            self.forget(id);
            out.push(Output::Abort(id));
        }
    }

    fn fire(&mut self, zxid: Zxid, block: &Block, change: &Change) {
        let mut fired = std::mem::take(&mut self.desk.fired);
        fired.clear();
        self.desk.watches.fire(change.kind, block.path(change), &mut fired);
        self.notify(zxid, change, &fired);
        self.desk.fired = fired;
    }

    /// One event reads the same for all who watch, so it is written once.
    fn notify(&mut self, zxid: Zxid, change: &Change, fired: &Fired) {
        let mut frame = std::mem::take(&mut self.desk.event);
        for step in fired.steps() {
            let acl = step.acl(change);
            frame.clear();
            client::put_notification(&mut frame, zxid.as_i64(), step.event, step.path);
            for id in step.connections {
                let Some(connection) = self.connections.get_mut(id) else { continue };
                if self.desk.may_read(acl, &connection.auth) {
                    connection.out.extend_from_slice(&frame);
                    connection.stats.packets_sent += 1;
                    self.desk.stats.packets_sent += 1;
                    self.desk.mark_dirty(connection);
                }
            }
        }
        self.desk.event = frame;
    }

    /// The answer to one of this shard's own: a reply, or a session.
    fn answer(&mut self, now: Time, block: &Block, txn: &PublishedTxn, origin: Origin, out: &mut Vec<Output>) {
        let Some(connection) = self.connections.get_mut(&origin.connection) else { return };
        let desk = &mut self.desk;
        if let SessionChange::Opened { session, timeout_ms } = txn.session {
            desk.adopt(txn.zxid);
            return desk.establish(connection, session, timeout_ms);
        }
        let reply = block.reply(txn);
        if reply.is_empty() {
            // The session is another server's by now.
            return self.carry_out(origin.connection, Next::Close, out);
        }
        let Some((op, xid, len, since)) = connection.take_write() else { return };
        desk.outstanding -= 1;
        desk.large.end(len);
        connection.out.extend_from_slice(reply);
        desk.count_answer(connection, op, xid, txn.zxid, since, now);
        desk.mark_dirty(connection);
        if connection.has_read_in_front() {
            desk.adopt(if mutant::is_active(Mutant::ReadsBehindWriteJump) { desk.published() } else { txn.zxid });
            desk.serve_waiting_reads(now, connection);
        }
        if let Phase::Closing { .. } = connection.phase
            && matches!(txn.session, SessionChange::Closed(_))
        {
            self.carry_out(origin.connection, Next::CloseWhenSent, out);
        }
    }

    /// The session is over. Whoever closed it has its reply before the connection ends; an expired one ends without a
    /// word.
    fn on_session_closed(&mut self, session: SessionId, out: &mut Vec<Output>) {
        let Some(id) = self.desk.sessions.remove(&session) else { return };
        if self.connections.get(&id).is_some_and(|connection| !connection.closes_when_sent) {
            self.close_expired(id, out);
        }
    }

    fn close_expired(&mut self, id: ConnectionId, out: &mut Vec<Output>) {
        // Events of its own ephemerals still go out.
        self.carry_out(id, Next::CloseWhenSent, out);
    }
}

impl Desk {
    /// Serves the reads whose turn has come, until the client has enough to take; the rest follows when it has taken it.
    pub fn serve_waiting_reads(&mut self, now: Time, c: &mut Connection) {
        while c.out.len() < limits::UNSENT_BYTES_PAUSE && !c.closes_when_sent && self.serve_next(now, c) {}
    }

    /// Answers the next in a connection's line, unless that is a write. Returns whether it did.
    fn serve_next(&mut self, now: Time, c: &mut Connection) -> bool {
        match c.take_read() {
            Some(Waiting::Read { payload, since }) => {
                self.serve_read(now, c, since, &payload);
                self.large.end(payload.len());
            }
            Some(Waiting::Throttled { op, xid, since }) => self.refuse_throttled(now, c, op, xid, since),
            Some(Waiting::Write { .. }) | None => return false,
        }
        self.waiting_reads -= 1;
        true
    }

    /// Serves from this version on. Versions only rise.
    pub fn adopt(&mut self, zxid: Zxid) {
        if self.version() < zxid {
            self.reader.adopt(version_of(zxid));
        }
    }

    /// What this shard serves.
    pub fn version(&self) -> Zxid {
        zxid_of(self.reader.version())
    }

    /// What it may adopt.
    pub fn published(&self) -> Zxid {
        zxid_of(self.reader.published())
    }

    pub fn count_answer(&mut self, c: &mut Connection, op: OpCode, cxid: i32, zxid: Zxid, since: Time, now: Time) {
        let latency_us = u32::try_from(now.saturating_since(since).as_micros()).unwrap_or(u32::MAX);
        c.stats.packets_sent += 1;
        self.stats.packets_sent += 1;
        let Some(kind) = OpKind::of(op) else { return };
        self.stats.op_counts.record(kind);
        let summary = if op.is_write() { &mut self.stats.updatelatency } else { &mut self.stats.readlatency };
        summary.record(latency_us);
        let response = Response { op: kind, cxid, zxid: zxid.as_i64(), now_ms: now.as_ms(), latency_us };
        c.stats.record_response(&response);
    }

    pub fn may_read(&self, acl: &AclList, auth: &AuthIds) -> bool {
        access::check(acl, perms::READ, auth.ids(), &self.settings.access)
    }
}
