//! From txns to what shards follow: blocks, their publication once they are committed, and snapshots of that.

use std::time::Duration;

use super::pipeline::{Now, Output, SnapshotJob, ZabCore};
use crate::tree::publication::{Origin, PublishedTxn, SessionChange, Span};
use crate::types::limits;
use crate::types::zxid::Zxid;

/// Garbage that a sleeping server still has is looked at this often.
const RECLAIM_AGAIN: Duration = Duration::from_millis(20);

impl<B: AsRef<[u8]> + AsMut<[u8]>> ZabCore<B> {
    pub(super) fn push_published(&mut self, zxid: Zxid, session: SessionChange, changes: Span, origin: Option<Origin>) {
        let block = &mut self.effects.block;
        let start = block.bytes.len();
        block.bytes.extend_from_slice(&self.reply);
        let reply = Span::new(start..block.bytes.len());
        block.txns.push(PublishedTxn { zxid, session, changes, origin, reply });
        if block.bytes.len() >= limits::BLOCK_BYTES_MAX {
            self.close_block();
        }
    }

    pub(super) fn last_published(&mut self) -> Option<&mut PublishedTxn> {
        match self.effects.block.txns.last_mut() {
            Some(txn) => Some(txn),
            None => self.proposed.back_mut()?.0.txns.last_mut(),
        }
    }

    pub(super) fn close_block(&mut self) {
        if !self.effects.block.txns.is_empty() {
            let block = std::mem::take(&mut self.effects.block);
            self.proposed.push_back((block, self.tree.digest()));
        }
    }

    /// Publishes every block whose last txn is committed.
    pub(super) fn publish_committed(&mut self, out: &mut Vec<Output<B>>) {
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

    pub(super) fn start_snapshot(&mut self, out: &mut Vec<Output<B>>) {
        self.snapshots.on_started();
        let digest = self.tree.settings().digest_enabled.then_some(self.committed_digest);
        let reader = self.tree.reader().expect("one reader per shard and one snapshot at a time");
        out.push(Output::Snapshot(SnapshotJob { reader, zxid: self.tree.published(), digest }));
    }

    /// Gives memory back, a bounded piece at a time: more than one turn makes, so that it keeps up.
    pub(super) fn reclaim(&mut self, now: Now) {
        let more = self.tree.reclaim(limits::RECLAIMED_PER_TURN);
        self.reclaim_at = more.then(|| now.time + RECLAIM_AGAIN);
    }
}
