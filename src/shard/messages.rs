//! What a shard and the zab core say to each other.

use std::fmt;
use std::sync::Arc;

use super::auth::AuthIds;
use crate::tree::publication::{Cursor, Span};
use crate::tree::store::Reader as TreeReader;
use crate::types::ids::{ConnectionId, SessionId, ShardId};
use crate::wire::client::OpCode;

/// A write on its way to the one order.
#[derive(Debug)]
pub struct Forwarded {
    pub connection: ConnectionId,
    pub session: SessionId,
    pub xid: i32,
    pub op: OpCode,
    /// The record behind the request header, in the batch's bytes.
    pub body: Span,
    /// The connection's ids when the request was read.
    pub auth: Arc<AuthIds>,
}

/// One thing that a shard asks of the zab core.
#[derive(Debug)]
pub enum Ask {
    Write(Forwarded),
    /// A client wants a new session.
    OpenSession {
        connection: ConnectionId,
        timeout_ms: i32,
    },
    /// A client brought the id and the password of a session.
    RenewSession {
        connection: ConnectionId,
        session: SessionId,
        timeout_ms: i32,
    },
    /// The connection of a session is gone; the session lives on.
    Detached {
        connection: ConnectionId,
        session: SessionId,
    },
}

/// Everything that a shard has to say in one turn, in order.
#[derive(Debug, Default)]
pub struct Batch {
    pub asks: Vec<Ask>,
    pub bytes: Vec<u8>,
    /// Sessions heard from since the last report.
    pub touched: Vec<SessionId>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.asks.is_empty() && self.touched.is_empty()
    }

    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.asks.clear();
        self.bytes.clear();
        self.touched.clear();
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} asks, {} bytes, {} touched", self.asks.len(), self.bytes.len(), self.touched.len())
    }
}

/// What the zab core tells one shard outside the publications.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tell {
    /// The answer to `RenewSession`.
    Renewed { connection: ConnectionId, session: SessionId, timeout_ms: i32, is_alive: bool },
    /// The session of this connection re-attached elsewhere.
    Detach { connection: ConnectionId },
    /// More connect than may (`connection_throttle_tokens`), or a full disk has no room for another session.
    TurnedAway { connection: ConnectionId },
    /// What became of its request cannot be known, or its session is elsewhere: it closes without a word.
    Undecided { connection: ConnectionId },
    /// There is no leader: clients wait, and hear nothing but answers to pings.
    Freeze,
    /// This server leads and serves nobody meanwhile (`leaderServes=no`): clients go elsewhere at once.
    Shun,
    /// There is one. `forwards_syncs`: it is another server, so a `sync` is a question to it.
    Thaw { forwards_syncs: bool },
}

impl fmt::Display for Tell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tell::Renewed { connection, session, timeout_ms, is_alive } => write!(
                f,
                "renewed connection={} session={session} timeout_ms={timeout_ms} is_alive={is_alive}",
                connection.0
            ),
            Tell::Detach { connection } => write!(f, "detach connection={}", connection.0),
            Tell::TurnedAway { connection } => write!(f, "turned_away connection={}", connection.0),
            Tell::Undecided { connection } => write!(f, "undecided connection={}", connection.0),
            Tell::Freeze => f.write_str("freeze"),
            Tell::Shun => f.write_str("shun"),
            Tell::Thaw { forwards_syncs } => write!(f, "thaw forwards_syncs={forwards_syncs}"),
        }
    }
}

/// A store that takes the place of the one that a shard reads.
pub struct NewStore {
    pub reader: TreeReader,
    /// What follows behind it, if it has nothing to do with what was followed so far: then every connection closes.
    /// `None`: it shows what the old one showed, and the same cursor goes on.
    pub cursor: Option<Cursor>,
}

impl fmt::Debug for NewStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store at version {}, closes={}", self.reader.version(), self.cursor.is_some())
    }
}

/// To whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    pub shard: ShardId,
    pub tell: Tell,
}
