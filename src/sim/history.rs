//! What clients did and what they were told, in the order in which each of them saw it.

use super::request::Request;
use super::scheduler::ClientIndex;
use crate::types::ids::SessionId;
use crate::types::time::Time;
use crate::types::zxid::Zxid;

/// A request in the history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct OperationIndex(pub usize);

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    pub at: Time,
    pub zxid: Zxid,
    pub err: i32,
    pub body: Vec<u8>,
}

/// One request and what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    pub client: ClientIndex,
    pub session: SessionId,
    /// Counts the client's connections.
    pub attachment: u32,
    pub xid: i32,
    pub request: Request,
    pub sent: Time,
    /// The newest zxid that any client had been told of when this was sent.
    pub told_before: Zxid,
    /// `None`: the connection broke first, or the run ended.
    pub reply: Option<Reply>,
}

/// One thing that a client saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// A connection with this session. `remembers`: the client is the one that had the session before, with its watches
    /// and its last zxid.
    Attached {
        session: SessionId,
        attachment: u32,
        remembers: bool,
    },
    Reply(OperationIndex),
    Event {
        zxid: i64,
        kind: i32,
        path: String,
    },
    /// The connection is gone; what was not answered has an unknown outcome.
    Detached,
    /// The server says that there is no such session.
    Expired(SessionId),
}

#[derive(Debug, Default)]
pub struct History {
    pub operations: Vec<Operation>,
    /// By client.
    pub seen: Vec<Vec<Seen>>,
    /// The newest zxid that any client has been told of.
    pub told: Zxid,
}

impl History {
    pub fn new(clients: usize) -> History {
        History { operations: Vec::new(), seen: vec![Vec::new(); clients], told: Zxid::ZERO }
    }

    /// The number that the next operation will have.
    pub fn next_index(&self) -> OperationIndex {
        OperationIndex(self.operations.len())
    }

    pub fn push(&mut self, operation: Operation) -> OperationIndex {
        let index = self.next_index();
        self.operations.push(operation);
        index
    }

    pub fn saw(&mut self, client: ClientIndex, seen: Seen) {
        self.seen[client.0].push(seen);
    }

    pub fn get(&self, index: OperationIndex) -> &Operation {
        &self.operations[index.0]
    }

    pub fn answered(&self) -> usize {
        self.operations.iter().filter(|operation| operation.reply.is_some()).count()
    }
}
