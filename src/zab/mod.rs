//! Agreement, from election to broadcast: who leads, what is proposed, and what is decided.
//! Never: sockets, files, clocks, or the meaning of a txn.
//! Owner: the zab core.
//! Start at `Zab` below, the machine; `leader.rs` and `learner.rs` are its roles, `election.rs` how it gets one.
//!
//! ```text
//!             ┌────────────────────────── lost quorum, link or leader ──────────────────────────┐
//!             ▼                                                                                 │
//!  Settle ─► LOOKING ──elected me──► LEADING    DISCOVERY ─► SYNCHRONIZATION ─► BROADCAST ──────┤
//!                 └────elected N───► FOLLOWING/ DISCOVERY ─► SYNCHRONIZATION ─► BROADCAST ──────┘
//!                                    OBSERVING
//! ```
//!
//! The machine keeps no tree and no log. What it must know of them comes in (`Settled`, `Flushed`, `Installed`), what it
//! wants done with them goes out (`Append`, `Commit`, `Truncate`, `Load…`). The txns themselves lie in its `History`,
//! the in-memory end of the log, from which learners are served, each with a cursor of its own: a slow learner costs no
//! memory, and falls back to the log's files and then to a snapshot.

pub mod leader;
pub mod leases;
pub mod quorum;
pub mod transport;

use std::time::Duration;

use crate::types::acl::Id;
use crate::types::ids::{ServerId, SessionId};
use crate::types::zxid::Zxid;
use transport::{SocketId, SocketInput, SocketOutput};

/// What a server is to the others, as four-letter words and metrics name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoleName {
    Looking,
    Leading,
    Following,
    Observing,
}

/// What is on stable storage of the two promises (`storage::epochs` has the files).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Epochs {
    /// The last epoch that was promised.
    pub accepted: u32,
    /// The last epoch that was joined.
    pub current: u32,
}

/// A write, or a sync, that a learner passes on for one of its clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LearnerRequest<'a> {
    pub session: SessionId,
    pub cxid: i32,
    pub op: i32,
    /// The record behind the request header.
    pub body: &'a [u8],
    pub auth: &'a [Id],
}

/// The same, on its way to the leader's core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnedRequest {
    pub session: SessionId,
    pub cxid: i32,
    pub op: i32,
    pub body: Vec<u8>,
    pub auth: Vec<Id>,
}

/// What happened.
pub enum Input<'a> {
    Socket(SocketInput<'a>),
    /// Answer to `Settle`: no write is in flight; the log ends at `last`, durable; nothing behind `committed` is known
    /// to be decided.
    Settled {
        last: Zxid,
        committed: Zxid,
    },
    /// Everything up to here is on stable storage.
    Flushed {
        upto: Zxid,
    },
    /// Answer to `StoreEpochs`.
    EpochsStored(Epochs),
    /// Answer to `Truncate` and `LoadEnd`: tree and log now end at `last`, durable.
    Installed {
        last: Zxid,
    },
    /// Answer to `ReadLog`: these entries lie behind each other; `None`: the files do not reach back so far.
    LogRead {
        socket: SocketId,
        entries: Option<Vec<(Zxid, Vec<u8>)>>,
        is_end: bool,
    },
    /// Answer to `ReadSnapshot`, in pieces: the stream of reference 2.7.
    SnapshotPiece {
        socket: SocketId,
        bytes: Vec<u8>,
        is_end: bool,
    },
    /// Learner: a request of one of our clients, for the leader.
    Request(LearnerRequest<'a>),
    /// Learner: a client re-attached; is its session alive?
    Revalidate {
        session: SessionId,
        timeout_ms: i32,
    },
    /// Leader: answer to `Output::Revalidate`.
    Revalidated {
        socket: SocketId,
        session: SessionId,
        is_alive: bool,
    },
    /// Learner: heard from a client. Told to the leader with the next ping.
    Touched {
        session: SessionId,
        timeout_ms: i32,
    },
    /// Leader, BROADCAST: the next txn, already applied at the head and given to the log.
    Propose {
        zxid: Zxid,
        txn: &'a [u8],
    },
    /// Everything that came with this wake-up has been stepped: what is to be sent goes out now.
    EndOfTurn,
    /// Our own process did not run for so long: nobody's silence.
    Stalled(Duration),
    Timeout,
    /// A planned stop: hand leadership over if there is anybody to take it, then close every link.
    Stop,
}

/// What to do.
pub enum Output {
    Socket(SocketOutput),
    /// Wait until every write in flight has landed, then `Settled`. Clients freeze until `Established`.
    Settle,
    StoreEpochs(Epochs),
    /// A proposal (or what a learner gets in its synchronisation): apply it at the head, give it to the log. Its bytes are
    /// `history().txn(zxid)`.
    Append {
        zxid: Zxid,
    },
    /// Everything up to here is decided: publish it.
    Commit {
        upto: Zxid,
    },
    /// Cut the log behind `to` and go back to the tree as it was then; then `Installed`.
    Truncate {
        to: Zxid,
    },
    /// A whole tree comes instead of ours: forget ours. Then its stream in pieces, then `LoadEnd`: write it down, durable, with
    /// nothing behind it in the log, then `Installed`.
    LoadBegin {
        zxid: Zxid,
    },
    LoadPiece {
        bytes: Vec<u8>,
    },
    LoadEnd,
    /// Clients are served from here on. Leader: a new epoch begins, the next txn is `zxid.next()`; sessions get their
    /// full timeouts. Learner: requests that were forwarded and did not come back as txns go to the new leader.
    Established {
        role: RoleName,
        leader: ServerId,
        zxid: Zxid,
    },
    /// Leader: a learner's client wants this done. `socket` is the link, for session ownership.
    Request {
        socket: SocketId,
        request: Box<OwnedRequest>,
    },
    /// Leader: a learner heard from this session.
    Touch {
        session: SessionId,
        timeout_ms: i32,
    },
    /// Leader: a learner asks whether this session is alive; it is served there from now on.
    Revalidate {
        socket: SocketId,
        session: SessionId,
        timeout_ms: i32,
    },
    /// Learner: the leader's answer.
    Revalidated {
        session: SessionId,
        is_alive: bool,
    },
    /// Learner: the oldest `sync` that was passed on is answered, after every `Commit` that came before this.
    Synced,
    /// Read the log's files from behind `after` on, at most to `upto`; then `LogRead`, in bounded pieces.
    ReadLog {
        socket: SocketId,
        after: Zxid,
        upto: Zxid,
    },
    /// Stream the newest version, whose zxid is the head or committed zxid that is told with the first piece.
    ReadSnapshot {
        socket: SocketId,
    },
    /// Stop reading for this link.
    CancelRead {
        socket: SocketId,
    },
    /// Everything is handed over and closed.
    Stopped,
    Fatal {
        what: String,
    },
}
