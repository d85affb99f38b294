//! The leader's part of the zab core: requests become txns at the head, sessions are opened, renewed and closed.

use std::time::Duration;

use super::pipeline::{DIGEST_EVERY_MASK, DIGESTS_MAX, Now, Output, ZabCore, in_flight_bytes_max};
use super::reply::put_write_reply;
use crate::shard::messages::{Forwarded, Tell, Told};
use crate::storage::log_file::EntryWriter;
use crate::tree::Tree;
use crate::tree::effects::Effects;
use crate::tree::prepare::RequestContext;
use crate::tree::publication::{Origin, SessionChange, Span};
use crate::types::error_code::ErrorCode;
use crate::types::ids::{SessionId, ShardId};
use crate::wire::client::{OpCode, WriteRequest, put_reply};
use crate::wire::jute::Reader;
use crate::wire::txn::{Txn, TxnHeader};

impl<B: AsRef<[u8]> + AsMut<[u8]>> ZabCore<B> {
    pub(super) fn on_write(&mut self, now: Now, shard: ShardId, request: &Forwarded, body: &[u8]) {
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
    pub(super) fn refuse_unnumbered(&mut self, origin: Origin, xid: i32) {
        let zxid = self.tree.head();
        self.reply.clear();
        put_reply(&mut self.reply, xid, zxid.as_i64(), ErrorCode::NotReadOnly);
        self.push_published(zxid, SessionChange::None, Span::default(), Some(origin));
    }

    pub(super) fn next_header(&self, now: Now, session: SessionId, cxid: i32) -> TxnHeader {
        TxnHeader { session, cxid, zxid: self.tree.head().next(), time: now.wall }
    }

    /// Makes the next version with `make`, logs it, and adds its changes and its reply to the block at hand.
    pub(super) fn propose(
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

    /// A txn of our own making.
    pub(super) fn propose_internal(
        &mut self,
        header: &TxnHeader,
        txn: &Txn<'_>,
        session: SessionChange,
        origin: Option<Origin>,
    ) {
        let op = OpCode::Check;
        self.propose(header, None, op, |tree, payload, effects| {
            tree.process_internal(header, txn, payload, effects);
        });
        if let Some(published) = self.last_published() {
            (published.session, published.origin) = (session, origin);
        }
    }

    pub(super) fn open_session(&mut self, now: Now, origin: Origin, timeout_ms: i32) {
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

    pub(super) fn renew_session(
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

    pub(super) fn close_session(&mut self, now: Now, session: SessionId) {
        let header = self.next_header(now, session, 0);
        let txn = self.tree.close_session_txn(session.0);
        self.propose_internal(&header, &txn, SessionChange::Closed(session), None);
    }
}
