//! What the zab core tells the shards: committed txns, in order, with their changes and answers.
//!
//! A block is one stretch of the order, immutable once it is linked. Blocks form a list that the zab core extends at its
//! end and every shard walks with a cursor of its own, so the zab core never waits for a shard, and a block is freed
//! when the slowest shard has left it.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::types::acl::AclList;
use crate::types::ids::{ConnectionId, SessionId, ShardId};
use crate::types::zxid::Zxid;

/// A place in a block's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub fn new(range: Range<usize>) -> Span {
        let fits = |at| u32::try_from(at).expect("a block holds less than 4 GiB: batches are bounded");
        Span { start: fits(range.start), end: fits(range.end) }
    }

    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The same place after `by` bytes before it went. An empty one, which names no place, stays empty.
    fn moved_down(self, by: usize) -> Span {
        Span::new((self.start as usize).saturating_sub(by)..(self.end as usize).saturating_sub(by))
    }
}

/// What happened to one znode; watches are matched against it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    Created,
    Deleted,
    DataChanged,
}

/// One change of the tree, in the order in which a txn made them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    pub kind: ChangeKind,
    pub path: Span,
    /// The znode's ACL (at creation, at the change, or before deletion): who may hear of it.
    pub acl: AclList,
    /// The parent's, for `NodeChildrenChanged`; `Open` where the parent does not change.
    pub parent_acl: AclList,
}

/// The session table's part of a txn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SessionChange {
    #[default]
    None,
    Opened {
        session: SessionId,
        timeout_ms: i32,
    },
    Closed(SessionId),
}

/// The connection that asked, on this server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Origin {
    pub shard: ShardId,
    pub connection: ConnectionId,
}

/// One txn as the shards see it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PublishedTxn {
    pub zxid: Zxid,
    /// Of the whole tree behind it.
    pub digest: u64,
    pub session: SessionChange,
    /// Into the block's `changes`.
    pub changes: Span,
    /// Whose request it was, and the framed reply in the block's `bytes`: an empty one closes the connection without a
    /// word, unless a session is opened.
    pub origin: Option<Origin>,
    pub reply: Span,
}

/// One stretch of committed txns.
#[derive(Debug, Default)]
pub struct Block {
    /// Never empty once linked.
    pub txns: Vec<PublishedTxn>,
    pub changes: Vec<Change>,
    /// Paths of changes, and framed replies.
    pub bytes: Vec<u8>,
}

impl Block {
    pub fn path(&self, change: &Change) -> &str {
        std::str::from_utf8(&self.bytes[change.path.range()]).expect("paths are copied from &str")
    }

    pub fn changes(&self, txn: &PublishedTxn) -> &[Change] {
        &self.changes[txn.changes.range()]
    }

    pub fn reply(&self, txn: &PublishedTxn) -> &[u8] {
        &self.bytes[txn.reply.range()]
    }

    /// Zxid of the last txn.
    pub fn last(&self) -> Option<Zxid> {
        self.txns.last().map(|txn| txn.zxid)
    }

    /// Zxid of the first txn.
    pub fn first(&self) -> Option<Zxid> {
        self.txns.first().map(|txn| txn.zxid)
    }

    /// Cuts the block behind `upto`, and returns what was behind it. Everything of a txn lies behind everything of the one
    /// before it.
    pub fn split_behind(&mut self, upto: Zxid) -> Block {
        let kept = self.txns.partition_point(|txn| txn.zxid <= upto);
        let (changes_at, bytes_at) = match kept.checked_sub(1).and_then(|last| self.txns.get(last)) {
            Some(last) => (last.changes.range().end, last.reply.range().end),
            None => (0, 0),
        };
        let mut rest = Block {
            txns: self.txns.split_off(kept),
            changes: self.changes.split_off(changes_at),
            bytes: self.bytes.split_off(bytes_at),
        };
        for txn in &mut rest.txns {
            txn.changes = txn.changes.moved_down(changes_at);
            txn.reply = txn.reply.moved_down(bytes_at);
        }
        for change in &mut rest.changes {
            change.path = change.path.moved_down(bytes_at);
        }
        rest
    }
}

/// An element of the list: a block, and the one behind it once there is one.
#[derive(Debug, Default)]
struct Link {
    block: Block,
    next: OnceLock<Arc<Link>>,
}

impl Drop for Link {
    /// A cursor that was left behind holds a long list: it is taken apart in a loop, not by recursion.
    fn drop(&mut self) {
        let mut next = self.next.take();
        while let Some(link) = next {
            next = Arc::into_inner(link).and_then(|mut link| link.next.take());
        }
    }
}

/// The writing end: the zab core's.
#[derive(Debug, Default)]
pub struct Publisher {
    last: Arc<Link>,
}

impl Publisher {
    /// Links a block behind all others. The tree's version must have been published before.
    pub fn publish(&mut self, block: Block) {
        debug_assert!(!block.txns.is_empty());
        let link = Arc::new(Link { block, next: OnceLock::new() });
        self.last.next.set(Arc::clone(&link)).expect("only the publisher links blocks, each once");
        self.last = link;
    }

    /// A reader that will see what is published from now on.
    pub fn cursor(&self) -> Cursor {
        Cursor { link: Arc::clone(&self.last) }
    }
}

/// The reading end: one per shard. It holds on to the block that it is at.
#[derive(Clone, Debug)]
pub struct Cursor {
    link: Arc<Link>,
}

impl Cursor {
    /// Steps to the next block, if one was linked since.
    pub fn advance(&mut self) -> bool {
        match self.link.next.get() {
            None => false,
            Some(next) => {
                self.link = Arc::clone(next);
                true
            }
        }
    }

    pub fn block(&self) -> &Block {
        &self.link.block
    }

    pub fn has_next(&self) -> bool {
        self.link.next.get().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(zxid: u64) -> Block {
        Block { txns: vec![PublishedTxn { zxid: Zxid(zxid), ..Default::default() }], ..Default::default() }
    }

    #[test]
    fn a_cursor_sees_what_is_published_after_it_was_made() {
        let mut publisher = Publisher::default();
        publisher.publish(block(1));
        let mut cursor = publisher.cursor();
        assert!(!cursor.advance());
        publisher.publish(block(2));
        publisher.publish(block(3));
        assert!(cursor.advance());
        assert_eq!(cursor.block().last(), Some(Zxid(2)));
        assert!(cursor.has_next());
        assert!(cursor.advance());
        assert_eq!(cursor.block().last(), Some(Zxid(3)));
        assert!(!cursor.has_next());
    }

    /// Three txns, each with a change and a reply that name it.
    fn three() -> Block {
        let mut block = Block::default();
        for zxid in 1..=3_u64 {
            let start = block.bytes.len();
            block.bytes.extend_from_slice(format!("/path-{zxid}").as_bytes());
            let path = Span::new(start..block.bytes.len());
            let kind = ChangeKind::Created;
            block.changes.push(Change { kind, path, acl: AclList::Open, parent_acl: AclList::Open });
            let start = block.bytes.len();
            block.bytes.extend_from_slice(format!("reply {zxid}").as_bytes());
            block.txns.push(PublishedTxn {
                zxid: Zxid(zxid),
                changes: Span::new(block.changes.len() - 1..block.changes.len()),
                reply: Span::new(start..block.bytes.len()),
                ..Default::default()
            });
        }
        block
    }

    #[test]
    fn a_block_is_cut_between_two_txns_and_loses_nothing() {
        for upto in 0..=3 {
            let mut first = three();
            let rest = first.split_behind(Zxid(upto));
            assert_eq!((first.txns.len() as u64, rest.txns.len() as u64), (upto, 3 - upto));
            for (block, txn) in first.txns.iter().map(|txn| (&first, txn)).chain(rest.txns.iter().map(|t| (&rest, t))) {
                let paths: Vec<&str> = block.changes(txn).iter().map(|change| block.path(change)).collect();
                assert_eq!(paths, [format!("/path-{}", txn.zxid.0)]);
                assert_eq!(block.reply(txn), format!("reply {}", txn.zxid.0).as_bytes());
            }
        }
    }

    #[test]
    fn a_long_list_is_dropped_without_recursion() {
        let mut publisher = Publisher::default();
        let cursor = publisher.cursor();
        for zxid in 1..200_000 {
            publisher.publish(block(zxid));
        }
        drop(cursor);
    }
}
