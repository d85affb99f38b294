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
//!
//! # How to drive it
//!
//! - The outputs of a step are carried out, in their order, before the next input is stepped. So after `Settle` no
//!   `Propose` comes any more: it would be one of a role that is gone.
//! - `EndOfTurn` comes after the last input of a turn, also if that was a `Timeout`. What a turn has to say to a peer leaves
//!   as one `Send`.
//! - Inputs that answer an output of a role that is gone are ignored, but `Flushed`, `Settled` and `EpochsStored`, which
//!   are about the disk and always true.

pub mod acks;
mod base;
pub mod election;
pub mod election_links;
pub mod election_port;
pub mod history;
mod leader;
mod learner;
pub mod leases;
pub mod link;
mod member;
mod pulse;
pub mod quorum;
mod reason;
pub mod settings;
mod sync;
pub mod trace;
pub mod transport;

use std::time::Duration;

use crate::types::acl::Id;
use crate::types::ids::{ServerId, SessionId};
use crate::types::time::Time;
use crate::types::zxid::Zxid;
use acks::Acks;
use base::Base;
use election_port::ElectionPort;
use history::{History, HistoryLimits};
use leader::Leader;
use link::LearnerLink;
use member::Member;
use quorum::{Ensemble, Quorum};
use settings::Settings;
use transport::{SocketId, SocketInput, SocketOutput};

/// What a server is to the others, as four-letter words and metrics name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoleName {
    Looking,
    Leading,
    Following,
    Observing,
}

/// How far a role has come (`QuorumPeer.ZabState`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    Election,
    Discovery,
    Synchronization,
    Broadcast,
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
    /// Answer to `Settle`: no write is in flight; the log ends at `last`, durable. Everything up to `committed` is known to be
    /// decided (after a start: what the newest snapshot holds, or less), and `last` is where `history()` ends.
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
    /// Instead of `Installed`: no tree can be made of what was loaded, or none so old is at hand to cut the log. Tree and
    /// log are to be the old ones again before the `Settled` that is asked for now.
    LoadFailed {
        what: String,
    },
    /// Answer to `ReadLog`, exactly one each: the txns behind `after`, without a gap, the first of them directly behind
    /// `previous`, the last zxid of the log that is not behind `after`. At most `limits::LOG_READ_BYTES` of them; fewer than up
    /// to `upto` are asked for again. `None`: the files do not reach back so far, or a snapshot is cheaper.
    LogRead {
        socket: SocketId,
        read: Option<LogRead>,
    },
    /// Answer to `ReadSnapshot` and `ReadOn`, exactly one each: the next piece of the stream of reference 2.7. `zxid`: the
    /// committed version that it shows, the same in every piece.
    SnapshotPiece {
        socket: SocketId,
        zxid: Zxid,
        bytes: Vec<u8>,
        is_end: bool,
    },
    /// Learner: a request of one of our clients, for the leader. Ignored outside of BROADCAST: the core keeps what was not
    /// answered and hands it over again after `Established`.
    Request(LearnerRequest<'a>),
    /// Learner: a client re-attached; is its session alive? Ignored outside of BROADCAST, as a request.
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
    /// Leader: a `sync` that came over this link as an `Output::Request` has its turn: everything before it is proposed.
    Sync {
        socket: SocketId,
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
    /// Leader: somebody else had better lead (the disk is full or slow). Hands over if there is anybody to take it.
    Resign,
    /// A planned stop: hand leadership over if there is anybody to take it, then close every link.
    Stop,
}

/// Txns out of the log's files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRead {
    pub previous: Zxid,
    pub txns: Vec<(Zxid, Vec<u8>)>,
}

/// What to do.
#[derive(Debug)]
pub enum Output {
    Socket(SocketOutput),
    /// Wait until every write in flight has landed, then `Settled`. Clients freeze until `Established`, and nothing more is
    /// proposed.
    Settle,
    /// Write both files, durable, `accepted` first; then `EpochsStored`.
    StoreEpochs(Epochs),
    /// A proposal (or what a learner gets in its synchronisation): apply it at the head, give it to the log. Its bytes are
    /// `history().txn(zxid)`.
    Append {
        zxid: Zxid,
    },
    /// Everything up to here is decided: publish it. It need not be durable here yet.
    Commit {
        upto: Zxid,
    },
    /// Cut the log behind `to` and go back to the tree as it was then; then `Installed`.
    Truncate {
        to: Zxid,
    },
    /// A whole tree comes instead of ours: forget ours. Then its stream in pieces, then `LoadEnd`: write it down, durable, with
    /// nothing behind it in the log, then `Installed`. If the stream breaks off, `Settle` comes instead of `LoadEnd`: then
    /// the log is still the old one, and the tree is to be what it says.
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
    /// Leader: a learner's client wants this done. `socket` is the link, for session ownership. A `sync` (op 9) has its
    /// place in this order too, and is answered with `Input::Sync`.
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
    /// Leader: this link is gone, and whatever came over it and waits still is nobody's.
    LinkClosed {
        socket: SocketId,
    },
    /// Read the log's files from behind `after` on, at most to `upto`; then `LogRead`, once.
    ReadLog {
        socket: SocketId,
        after: Zxid,
        upto: Zxid,
    },
    /// Begin to stream a version: its first piece, please. Once established it is the newest committed one; before, best the
    /// head, which is all that this leader begins with.
    ReadSnapshot {
        socket: SocketId,
    },
    /// The next piece of that stream, please.
    ReadOn {
        socket: SocketId,
    },
    /// Stop reading for this link: what was asked for is not wanted any more, and its answer need not come.
    CancelRead {
        socket: SocketId,
    },
    /// Everything is handed over and closed.
    Stopped,
    Fatal {
        what: String,
    },
}

/// The machine.
pub struct Zab(Kind);

enum Kind {
    Alone(Box<Alone>),
    Member(Box<Member>),
}

/// An ensemble of one, without epoch files and without elections: it leads from the start.
struct Alone {
    server: ServerId,
    acks: Acks,
    /// Nobody learns from it: only its end is kept.
    history: History,
}

impl Zab {
    /// A standalone server, whose log ends at `last`, all of it decided. It leads at once, and its own durable write is
    /// the quorum.
    pub fn standalone(server: ServerId, last: Zxid) -> Zab {
        let acks = Acks::new(Quorum::majority([server]), last);
        let history = History::new(last, HistoryLimits::default());
        Zab(Kind::Alone(Box::new(Alone { server, acks, history })))
    }

    /// A member of an ensemble, whose log ends where `history` ends, durable. It begins with `Settle`.
    pub fn member(
        settings: Settings,
        ensemble: Ensemble,
        history: History,
        epochs: Epochs,
        out: &mut Vec<Output>,
    ) -> Zab {
        let base = Base::new(settings, ensemble, history, epochs);
        Zab(Kind::Member(Box::new(Member::new(base, out))))
    }

    /// The database is empty and nobody said that it may be (`snapshot.trust.empty`, `initialize`): it is not voted
    /// for, and its promises do not count, until a leader has filled it.
    pub fn distrust(&mut self) {
        if let Kind::Member(member) = &mut self.0 {
            member.base.is_untrusted = true;
        }
    }

    pub fn step(&mut self, now: Time, input: Input<'_>, out: &mut Vec<Output>) {
        match &mut self.0 {
            Kind::Alone(alone) => alone.step(input, out),
            Kind::Member(member) => member.step(now, input, out),
        }
    }

    /// When `Timeout` should come.
    pub fn deadline(&self) -> Option<Time> {
        match &self.0 {
            Kind::Alone(_) => None,
            Kind::Member(member) => member.deadline(),
        }
    }

    /// The configuration has changed. Whoever is linked stays so.
    pub fn reconfigure(&mut self, now: Time, ensemble: Ensemble, out: &mut Vec<Output>) {
        match &mut self.0 {
            Kind::Alone(_) => panic!("a standalone server has no configuration"),
            Kind::Member(member) => member.reconfigure(now, ensemble, out),
        }
    }

    /// The end of the log, in memory.
    pub fn history(&self) -> &History {
        match &self.0 {
            Kind::Alone(alone) => &alone.history,
            Kind::Member(member) => &member.base.history,
        }
    }

    /// Everything up to here is decided.
    pub fn committed(&self) -> Zxid {
        match &self.0 {
            Kind::Alone(alone) => alone.acks.committed(),
            Kind::Member(member) => member.base.committed,
        }
    }

    pub fn role(&self) -> RoleName {
        match &self.0 {
            Kind::Alone(_) => RoleName::Leading,
            Kind::Member(member) => member.role(),
        }
    }

    pub fn phase(&self) -> Phase {
        match &self.0 {
            Kind::Alone(_) => Phase::Broadcast,
            Kind::Member(member) => member.phase(),
        }
    }

    /// Who leads, as far as we know.
    pub fn leader(&self) -> Option<ServerId> {
        match &self.0 {
            Kind::Alone(alone) => Some(alone.server),
            Kind::Member(member) => member.leader(),
        }
    }

    /// The promises that are on stable storage.
    pub fn epochs(&self) -> Epochs {
        match &self.0 {
            Kind::Alone(_) => Epochs::default(),
            Kind::Member(member) => member.base.epochs,
        }
    }

    /// Its learners, while it leads an ensemble.
    pub fn links(&self) -> impl Iterator<Item = &LearnerLink> {
        let leader = match &self.0 {
            Kind::Alone(_) => None,
            Kind::Member(member) => member.as_leader(),
        };
        leader.into_iter().flat_map(Leader::links)
    }

    /// The votes, and the links that carry them.
    pub fn election(&self) -> Option<&ElectionPort> {
        match &self.0 {
            Kind::Alone(_) => None,
            Kind::Member(member) => Some(member.election()),
        }
    }
}

impl Alone {
    fn step(&mut self, input: Input<'_>, out: &mut Vec<Output>) {
        match input {
            Input::Propose { zxid, .. } => {
                self.acks.on_proposed(zxid);
                self.history.skip(zxid);
            }
            Input::Flushed { upto } => {
                if let Some(upto) = self.acks.on_ack(self.server, upto) {
                    out.push(Output::Commit { upto });
                }
            }
            Input::Stop => out.push(Output::Stopped),
            Input::Socket(_)
            | Input::Settled { .. }
            | Input::EpochsStored(_)
            | Input::Installed { .. }
            | Input::LoadFailed { .. }
            | Input::LogRead { .. }
            | Input::SnapshotPiece { .. }
            | Input::Request(_)
            | Input::Revalidate { .. }
            | Input::Revalidated { .. }
            | Input::Sync { .. }
            | Input::Touched { .. }
            | Input::EndOfTurn
            | Input::Stalled(_)
            | Input::Timeout
            | Input::Resign => {}
        }
    }
}

impl From<&LearnerRequest<'_>> for OwnedRequest {
    fn from(request: &LearnerRequest<'_>) -> OwnedRequest {
        OwnedRequest {
            session: request.session,
            cxid: request.cxid,
            op: request.op,
            body: request.body.to_vec(),
            auth: request.auth.to_vec(),
        }
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
