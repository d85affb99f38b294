//! The learner's part of the zab core: own clients' requests go to the leader, and come back as txns.
//!
//! ```text
//! own client ─► Pending ─► Request ─► leader … Append ─► apply at the head ─► log
//!                  └──────────── matched ◄──────┘          └─► block with the reply ─► Commit ─► shards
//! ```

use bumpalo::Bump;

use super::pending::{Match, PendingSync, PendingWrite, Wish};
use super::pipeline::{Attached, Now, Output, ZabCore};
use super::reply::put_write_reply;
use crate::shard::messages::Forwarded;
use crate::storage::log_file::{EntryWriter, payload_of};
use crate::tree::publication::{Origin, SessionChange};
use crate::types::error_code::ErrorCode;
use crate::types::ids::SessionId;
use crate::types::zxid::Zxid;
use crate::wire::client::{OpCode, WriteRequest};
use crate::wire::jute::Reader;
use crate::wire::txn::{self, DIGEST_VERSION, DecodedTxn, Txn, TxnDigest};
use crate::zab;

impl<B: AsRef<[u8]> + AsMut<[u8]>> ZabCore<B> {
    /// A write, or a sync, of an own client goes to the leader. What no leader could read is answered here, at its place:
    /// Java's gives no answer at all, and every later request of this server would wait for it.
    pub(super) fn forward(&mut self, now: Now, origin: Origin, request: &Forwarded, body: &[u8]) {
        if request.op == OpCode::Sync {
            let sync = PendingSync::new(origin, request.session, request.xid, &request.auth, body);
            self.zab.step(now.time, zab::Input::Request(sync.request()));
            return self.pending.push_sync(sync);
        }
        let arena = Bump::new();
        let mut record = Reader::with_limit(body, self.settings.entry_bytes_max);
        let decoded = WriteRequest::decode(request.op, &mut record, &arena);
        let wish = match decoded {
            Ok(_) => Wish::Write(request.op),
            Err(_) => Wish::Refused(ErrorCode::MarshallingError),
        };
        let write = PendingWrite::new(origin, request.session, request.xid, wish, self.tree.head());
        self.pending.push(write.with_auth(&request.auth), body);
        match wish {
            Wish::Refused(_) => self.answer_refused(),
            Wish::Write(_) | Wish::Open { .. } => self.hand_last_over(now),
        }
    }

    /// The same for a new session.
    pub(super) fn forward_open(&mut self, now: Now, session: SessionId, attached: Attached) {
        let Attached { origin, timeout_ms } = attached;
        let write = PendingWrite::new(origin, session, 0, Wish::Open { timeout_ms }, self.tree.head());
        self.pending.push(write, &timeout_ms.to_be_bytes());
        self.hand_last_over(now);
    }

    fn hand_last_over(&mut self, now: Now) {
        if let Some(request) = self.pending.last_request() {
            self.zab.step(now.time, zab::Input::Request(request));
        }
    }

    /// Answers what this server has to answer itself and what stands behind nothing else any more.
    pub(super) fn answer_refused(&mut self) {
        while let Some((write, error)) = self.pending.take_refused(self.tree.head()) {
            self.push_answer(write.origin, write.cxid, error);
        }
    }

    pub(super) fn pass_touches_on(&mut self, now: Now, touched: &[SessionId]) {
        for session in touched {
            if let Some(Attached { timeout_ms, .. }) = self.attached.get(session).copied() {
                let touched = zab::Input::Touched { session: *session, timeout_ms };
                self.zab.step(now.time, touched);
            }
        }
    }

    /// Whoever is connected has been heard from meanwhile, by this server frozen or by the one that it was: the leader begins
    /// to count with it now, as it did with everybody's when it was established.
    pub(super) fn touch_attached(&mut self, now: Now) {
        let mut sessions: Vec<SessionId> = self.attached.keys().copied().collect();
        sessions.sort_unstable();
        self.pass_touches_on(now, &sessions);
    }

    /// A client wants its session back: the leader knows whether it lives. Whoever else waits for the same answer is an
    /// older connection of that client.
    pub(super) fn ask_revalidation(
        &mut self,
        now: Now,
        attached: Attached,
        session: SessionId,
        out: &mut Vec<Output<B>>,
    ) {
        if let Some(old) = self.revalidating.insert(session, attached)
            && old.origin != attached.origin
        {
            self.turn_away(old.origin, out);
        }
        let revalidate = zab::Input::Revalidate { session, timeout_ms: attached.timeout_ms };
        self.zab.step(now.time, revalidate);
    }

    pub(super) fn on_revalidated(&mut self, session: SessionId, is_alive: bool, out: &mut Vec<Output<B>>) {
        if let Some(attached) = self.revalidating.remove(&session) {
            self.attach(attached, session, is_alive, out);
        }
    }

    /// The leader has answered the oldest sync; what was committed before that is published.
    pub(super) fn on_synced(&mut self, out: &mut Vec<Output<B>>) {
        match self.pending.take_sync() {
            Some(sync) => {
                self.publish_sync_reply(sync.origin, sync.cxid, &sync.body, out);
                self.answer_refused();
            }
            None => tracing::warn!("the leader has answered a sync that nobody asked for"),
        }
    }

    /// The next txn of the leader: applied at the head, and given to the log.
    pub(super) fn on_append(&mut self, zxid: Zxid, out: &mut Vec<Output<B>>) {
        let Some(txn) = self.zab.txn(zxid) else {
            return out.push(Output::Fatal { what: format!("txn {zxid} is to be applied, but nobody has its bytes") });
        };
        let writer = EntryWriter { payload_bytes_max: self.settings.entry_bytes_max };
        self.entry.clear();
        if let Err(error) = writer.append(&mut self.entry, |payload| payload.extend_from_slice(txn)) {
            let what = format!("txn {zxid}: {error}. Set jute.maxbuffer as on the leader, then start anew");
            return out.push(Output::Fatal { what });
        }
        let entry = std::mem::take(&mut self.entry);
        match payload_of(&entry).map(txn::decode) {
            Some(Ok(decoded)) if decoded.header.zxid == zxid => self.append(&decoded, &entry, out),
            Some(Ok(decoded)) => {
                let what = format!("txn {zxid} says that it is {}", decoded.header.zxid);
                out.push(Output::Fatal { what });
            }
            Some(Err(error)) => {
                let what = format!("txn {zxid} of the leader cannot be read: {error}. Is it of a newer version?");
                out.push(Output::Fatal { what });
            }
            None => unreachable!("it was framed above"),
        }
        self.entry = entry;
    }

    fn append(&mut self, decoded: &DecodedTxn<'_>, entry: &[u8], out: &mut Vec<Output<B>>) {
        let DecodedTxn { header, txn, digest } = decoded;
        let ours = self.match_pending(decoded, out);
        let mark = self.effects.begin();
        self.tree.apply(header, txn, &mut self.effects);
        self.compare_digest(header.zxid, *digest);
        self.note_digest(header.zxid);
        self.log.append(header.zxid, entry, &mut self.log_out);
        self.snapshots.on_logged(entry.len());
        let mut session = match txn {
            Txn::CloseSession { .. } => SessionChange::Closed(header.session),
            _ => SessionChange::None,
        };
        self.reply.clear();
        if let Some(write) = &ours {
            match write.wish {
                Wish::Write(op) if !self.effects.is_moved() => {
                    put_write_reply(&mut self.reply, op, header.cxid, header.zxid, &self.effects);
                }
                Wish::Open { timeout_ms } if matches!(txn, Txn::CreateSession { .. }) => {
                    session = SessionChange::Opened { session: header.session, timeout_ms };
                }
                // The empty reply closes the connection.
                Wish::Write(_) | Wish::Open { .. } | Wish::Refused(_) => {}
            }
        }
        let changes = self.effects.changes_since(mark);
        self.push_published(header.zxid, session, changes, ours.as_ref().map(|write| write.origin));
        if ours.is_some() {
            self.answer_refused();
        }
    }

    /// The request of ours that this txn answers, if it is one.
    fn match_pending(&mut self, decoded: &DecodedTxn<'_>, out: &mut Vec<Output<B>>) -> Option<PendingWrite> {
        let DecodedTxn { header, txn, .. } = decoded;
        let attached = &self.attached;
        match self.pending.on_txn(header, txn.kind(), |session| attached.contains_key(&session)) {
            Match::Foreign => None,
            Match::Ours(write) => Some(write),
            Match::Skipped { ours, lost } => {
                tracing::error!(
                    zxid = %header.zxid,
                    session = %header.session,
                    lost = lost.len(),
                    "the leader has answered a request before older ones of this server: their clients are disconnected"
                );
                lost.iter().for_each(|write| self.turn_away(write.origin, out));
                Some(ours)
            }
        }
    }

    /// A tree that differs from the leader's is an alarm; whoever is asked about it compares servers with `hash`.
    fn compare_digest(&mut self, zxid: Zxid, expected: Option<TxnDigest>) {
        let Some(expected) = expected.filter(|expected| expected.version == DIGEST_VERSION) else { return };
        let digest = self.tree.digest();
        if !self.tree.settings().digest_enabled || digest == expected.tree_digest {
            return;
        }
        self.digest_mismatches += 1;
        if self.digest_mismatches.is_power_of_two() {
            let (expected, mismatches) = (expected.tree_digest, self.digest_mismatches);
            tracing::error!(%zxid, digest, expected, mismatches, "the tree's digest differs from the leader's");
        }
    }

    /// A new leader hears again of everything that the last one has not answered.
    pub(super) fn hand_over_again(&mut self, now: Now) {
        let agreement = &mut self.zab;
        self.pending.hand_over(self.tree.head(), |request| agreement.step(now.time, zab::Input::Request(request)));
        for (session, attached) in &self.revalidating {
            let revalidate = zab::Input::Revalidate { session: *session, timeout_ms: attached.timeout_ms };
            agreement.step(now.time, revalidate);
        }
        self.answer_refused();
    }
}

#[cfg(test)]
mod tests;
