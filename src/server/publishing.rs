//! From txns to what shards follow: blocks, their publication once they are committed, and snapshots of that.

use std::time::Duration;

use super::pipeline::{DIGEST_EVERY_MASK, DIGESTS_MAX, Now, Output, SnapshotJob, ZabCore};
use crate::shard::messages::{Tell, Told};
use crate::tree::publication::{Block, Origin, PublishedTxn, SessionChange, Span};
use crate::types::error_code::ErrorCode;
use crate::types::limits;
use crate::types::mutant::{self, Mutant};
use crate::types::zxid::Zxid;
use crate::wire::client::{put_frame, put_reply, put_reply_header};
use crate::wire::jute::{Reader, Write};
use crate::zab::RoleName;

/// Garbage that a sleeping server still has is looked at this often.
const RECLAIM_AGAIN: Duration = Duration::from_millis(20);

impl<B: AsRef<[u8]> + AsMut<[u8]>> ZabCore<B> {
    /// Adds a txn to the block at hand, with `self.reply`.
    pub(super) fn push_published(&mut self, zxid: Zxid, session: SessionChange, changes: Span, origin: Option<Origin>) {
        let digest = self.tree.digest();
        let block = &mut self.effects.block;
        let start = block.bytes.len();
        block.bytes.extend_from_slice(&self.reply);
        let reply = Span::new(start..block.bytes.len());
        block.txns.push(PublishedTxn { zxid, digest, session, changes, origin, reply });
        if block.bytes.len() >= limits::BLOCK_BYTES_MAX {
            self.close_block();
        }
    }

    /// An answer that takes its place in the order without a zxid of its own.
    pub(super) fn push_answer(&mut self, origin: Origin, xid: i32, error: ErrorCode) {
        self.reply.clear();
        put_reply(&mut self.reply, xid, self.tree.head().as_i64(), error);
        self.push_reply(origin);
    }

    /// The same for a `sync`, which echoes its path, null included.
    pub(super) fn answer_sync(&mut self, origin: Origin, xid: i32, body: &[u8]) {
        self.reply.clear();
        put_sync_reply(&mut self.reply, xid, self.tree.head(), body);
        self.push_reply(origin);
    }

    fn push_reply(&mut self, origin: Origin) {
        let at = self.effects.block.changes.len();
        self.push_published(self.tree.head(), SessionChange::None, Span::new(at..at), Some(origin));
    }

    /// What is published is answered at once, behind everything that is published already.
    pub(super) fn publish_sync_reply(&mut self, origin: Origin, xid: i32, body: &[u8], out: &mut Vec<Output<B>>) {
        let zxid = self.tree.published();
        let mut block = Block::default();
        put_sync_reply(&mut block.bytes, xid, zxid, body);
        let reply = Span::new(0..block.bytes.len());
        let (digest, origin) = (self.committed_digest, Some(origin));
        block.txns.push(PublishedTxn { zxid, digest, origin, reply, ..PublishedTxn::default() });
        self.publisher.publish(block);
        out.push(Output::Published);
    }

    /// This connection's session is elsewhere, or what became of its request cannot be known: it closes without a word.
    pub(super) fn turn_away(&self, origin: Origin, out: &mut Vec<Output<B>>) {
        let tell = Tell::Undecided { connection: origin.connection };
        out.push(Output::Tell(Told { shard: origin.shard, tell }));
    }

    pub(super) fn close_block(&mut self) {
        if !self.effects.block.txns.is_empty() {
            self.proposed.push_back(std::mem::take(&mut self.effects.block));
        }
    }

    /// Publishes everything that is committed.
    pub(super) fn publish_committed(&mut self, out: &mut Vec<Output<B>>) {
        let committed = self.committed;
        let mut is_published = false;
        if self.effects.block.first().is_some_and(|first| first <= committed) && self.is_member {
            self.close_block();
        }
        while let Some(front) = self.proposed.front_mut()
            && front.first().is_some_and(|first| first <= committed)
        {
            let rest = match front.last() > Some(committed) {
                // One server alone decides in whole writes; what is behind is about to follow.
                true if !self.is_member => break,
                true => Some(front.split_behind(committed)),
                false => None,
            };
            let Some(block) = self.proposed.pop_front() else { return };
            if let Some(rest) = rest {
                self.proposed.push_front(rest);
            }
            self.publish_after_syncs(block, out);
            is_published = true;
        }
        if is_published {
            self.pending.on_committed(committed);
            out.push(Output::Published);
        }
    }

    /// A sync whose leader died before it was answered comes before the writes that were handed over behind it.
    fn publish_after_syncs(&mut self, mut block: Block, out: &mut Vec<Output<B>>) {
        while let Some((sync, overtaker)) = block.last().and_then(|last| self.pending.take_overtaken(last)) {
            let rest = block.split_behind(Zxid(overtaker.0.saturating_sub(1)));
            if !block.txns.is_empty() {
                self.publish(block);
            }
            self.publish_sync_reply(sync.origin, sync.cxid, &sync.body, out);
            block = rest;
        }
        if !block.txns.is_empty() {
            self.publish(block);
        }
    }

    fn publish(&mut self, block: Block) {
        for txn in &block.txns {
            if let SessionChange::Closed(session) = txn.session {
                self.leases.remove(session);
                self.attached.remove(&session);
            }
        }
        if let Some(last) = block.txns.last() {
            self.tree.publish(last.zxid);
            self.committed_digest = last.digest;
        }
        self.publisher.publish(block);
    }

    /// Every 128th digest is kept for whoever compares servers.
    pub(super) fn note_digest(&mut self, zxid: Zxid) {
        if zxid.0 & DIGEST_EVERY_MASK == 0 {
            if self.digests.len() == DIGESTS_MAX {
                self.digests.pop_front();
            }
            self.digests.push_back((zxid, self.tree.digest()));
        }
    }

    /// Only what is decided may go into a snapshot (ZOOKEEPER-4837).
    pub(super) fn may_take_snapshot(&self) -> bool {
        let is_decided = self.tree.published() <= self.committed;
        !self.is_stopping && self.role != RoleName::Looking && self.install.is_idle() && is_decided
    }

    pub(super) fn start_snapshot(&mut self, out: &mut Vec<Output<B>>) {
        self.snapshots.on_started();
        let digest = self.tree.settings().digest_enabled.then_some(self.committed_digest);
        let mut reader = self.tree.reader().expect("one reader per shard and one snapshot at a time");
        reader.hold();
        let is_wrong = mutant::is_active(Mutant::SnapshotOfUncommitted);
        let zxid = if is_wrong { self.tree.head() } else { self.tree.published() };
        out.push(Output::Snapshot(SnapshotJob { reader, zxid, digest }));
    }

    /// Gives memory back, a bounded piece at a time: more than one turn makes, so that it keeps up.
    pub(super) fn reclaim(&mut self, now: Now) {
        let more = self.tree.reclaim(limits::RECLAIMED_PER_TURN);
        self.reclaim_at = more.then(|| now.time + RECLAIM_AGAIN);
    }
}

fn put_sync_reply(out: &mut Vec<u8>, xid: i32, zxid: Zxid, body: &[u8]) {
    match Reader::new(body).string() {
        Ok(path) => put_frame(out, |out| {
            put_reply_header(out, xid, zxid.as_i64(), ErrorCode::Ok);
            out.put_buffer(path.as_deref().map(str::as_bytes));
        }),
        Err(_) => put_reply(out, xid, zxid.as_i64(), ErrorCode::MarshallingError),
    }
}
