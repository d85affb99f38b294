//! What a txn did: changes for watches, results for its reply.

use super::publication::{Block, Change, ChangeKind, Span};
use crate::types::acl::AclList;
use crate::types::error_code::ErrorCode;
use crate::types::stat::Stat;

/// The outcome of one operation, in the order of the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The path lies in the block's bytes: it may carry a sequence number. `is_plain`: type create (1), whose client
    /// is told the path only.
    Created {
        path: Span,
        stat: Stat,
        is_plain: bool,
    },
    /// setData and setACL.
    Stat(Stat),
    Deleted,
    /// check, and sessions.
    Done,
    /// Replayed from a log, onto a tree that does not fit (fuzzy snapshots), or refused.
    Error(ErrorCode),
}

/// Collects the effects of txns into the block that will be published.
#[derive(Debug, Default)]
pub struct Effects {
    pub block: Block,
    /// Of the txn at hand.
    pub outcomes: Vec<Outcome>,
    /// The one outcome is an error that stands for the whole request, whatever kind of request it was.
    pub is_refused: bool,
}

/// Where a block stood, to take back what a refused multi added.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    changes: usize,
    bytes: usize,
}

impl Effects {
    /// Starts the next txn.
    pub fn begin(&mut self) -> Mark {
        self.outcomes.clear();
        self.is_refused = false;
        Mark { changes: self.block.changes.len(), bytes: self.block.bytes.len() }
    }

    /// The session is another server's: whoever asked is not to hear a word, whatever the request was.
    pub fn is_moved(&self) -> bool {
        self.outcomes.contains(&Outcome::Error(ErrorCode::SessionMoved))
    }

    /// The changes since `mark`.
    pub fn changes_since(&self, mark: Mark) -> Span {
        Span::new(mark.changes..self.block.changes.len())
    }

    pub fn take_back(&mut self, mark: Mark) {
        self.block.changes.truncate(mark.changes);
        self.block.bytes.truncate(mark.bytes);
        self.outcomes.clear();
    }

    /// A path of the block at hand.
    pub fn text(&self, span: Span) -> &str {
        std::str::from_utf8(&self.block.bytes[span.range()]).expect("paths are copied from &str")
    }

    pub fn changed(&mut self, kind: ChangeKind, path: &str, acl: AclList, parent_acl: AclList) -> Span {
        let start = self.block.bytes.len();
        self.block.bytes.extend_from_slice(path.as_bytes());
        let path = Span::new(start..self.block.bytes.len());
        self.block.changes.push(Change { kind, path, acl, parent_acl });
        path
    }
}
