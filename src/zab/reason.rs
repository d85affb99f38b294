//! Why a role or a link has ended, in one line of the log.

use std::fmt;

use crate::types::ids::ServerId;
use crate::types::zxid::Zxid;
use crate::wire::jute::JuteError;
use crate::wire::snapshot_stream::SnapshotStreamError;

/// Why a role has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Leave {
    // A leader's.
    /// Nobody came, or not enough.
    NoQuorum,
    QuorumLost,
    /// Who had elected us has changed its mind.
    SupporterLooks(ServerId),
    /// A voter has a history that ours does not cover: it should lead.
    VoterAhead(ServerId),
    /// A voter has promised a later epoch than ours, and can only join the next one.
    LaterEpochPromised(ServerId),
    /// The counter of the epoch comes to its end.
    CounterSpent,
    // A learner's.
    Unreachable,
    LeaderClosed,
    LeaderSilent,
    /// Whom we had elected looks for a leader itself.
    LeaderLooks,
    /// It leads an epoch that is older than what we have promised.
    OldEpoch(u32),
    Packet(JuteError),
    OutOfPhase(i32),
    Snapshot(SnapshotStreamError),
    /// The core could not make a tree of the snapshot.
    Load(String),
    /// What came does not follow what we have.
    Gap {
        last: Zxid,
        next: Zxid,
    },
    /// A txn that we have already, and with other bytes: the ensemble has two histories.
    OtherTxn(Zxid),
    /// The oldest undecided txn is another one.
    CommitMismatch {
        expected: Option<Zxid>,
        commit: Zxid,
    },
    /// It would take away what is decided.
    BelowCommitted {
        zxid: Zxid,
        committed: Zxid,
    },
    /// Something that no version can be made of.
    Malformed(&'static str),
    // Anybody's.
    HandedOver {
        to: ServerId,
    },
    Stopped,
}

impl fmt::Display for Leave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Leave::NoQuorum => f.write_str("no quorum came in time"),
            Leave::QuorumLost => f.write_str("the quorum is lost"),
            Leave::SupporterLooks(server) => write!(f, "server {server}, which had elected us, looks again"),
            Leave::VoterAhead(server) => write!(f, "server {server} has the longer history"),
            Leave::LaterEpochPromised(server) => write!(f, "server {server} has promised a later epoch"),
            Leave::CounterSpent => f.write_str("the epoch's counter comes to its end"),
            Leave::Unreachable => f.write_str("the leader cannot be reached"),
            Leave::LeaderClosed => f.write_str("the leader closed the link"),
            Leave::LeaderLooks => f.write_str("the leader looks for one itself"),
            Leave::LeaderSilent => f.write_str("the leader is silent"),
            Leave::OldEpoch(epoch) => write!(f, "the leader's epoch, {epoch}, is older than what we have promised"),
            Leave::Packet(error) => write!(f, "the leader sent what is no packet: {error}"),
            Leave::OutOfPhase(kind) => write!(f, "the leader sent a packet of type {kind} out of its phase"),
            Leave::Snapshot(error) => write!(f, "the leader sent {error}"),
            Leave::Load(what) => write!(f, "the leader's snapshot could not be loaded: {what}"),
            Leave::Gap { last, next } => write!(f, "the leader sent {next}, which does not follow {last}"),
            Leave::OtherTxn(zxid) => write!(f, "ALARM: the leader has another {zxid} than we have"),
            Leave::CommitMismatch { expected: Some(expected), commit } => {
                write!(f, "ALARM: the leader decided {commit} before {expected}")
            }
            Leave::CommitMismatch { expected: None, commit } => {
                write!(f, "ALARM: the leader decided {commit}, which it never proposed here")
            }
            Leave::BelowCommitted { zxid, committed } => {
                write!(f, "ALARM: the leader wants to go back to {zxid}, but everything up to {committed} is decided")
            }
            Leave::Malformed(what) => write!(f, "the leader sent {what}"),
            Leave::HandedOver { to } => write!(f, "server {to} leads from here on"),
            Leave::Stopped => f.write_str("the server stops"),
        }
    }
}

/// Why a leader has closed a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkEnd {
    Closed,
    /// Nothing was heard of it in time.
    Silent,
    /// It answers, but does not ack.
    Unacked(Zxid),
    Packet(JuteError),
    OutOfPhase(i32),
    OldProtocol(i32),
    /// It knows a newer configuration than we do.
    ConfigAhead(i64),
    /// It has promised a later epoch than ours.
    LaterEpochPromised(u32),
    /// It claims a txn of our own epoch that we never proposed.
    NeverProposed(Zxid),
    /// It comes over another link.
    Replaced,
    TooManyLinks,
    TooManySyncs,
    /// It does not take what it asked for.
    Overrun,
    /// What it needs next is in no file any more.
    LogGone(Zxid),
    RoleEnded,
}

impl fmt::Display for LinkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkEnd::Closed => f.write_str("closed by the learner"),
            LinkEnd::Silent => f.write_str("silent"),
            LinkEnd::Unacked(zxid) => write!(f, "{zxid} is not acked"),
            LinkEnd::Packet(error) => write!(f, "no packet: {error}"),
            LinkEnd::OutOfPhase(kind) => write!(f, "a packet of type {kind} out of its phase"),
            LinkEnd::OldProtocol(version) => write!(f, "protocol version {version:#x}"),
            LinkEnd::ConfigAhead(version) => write!(f, "it is ahead, with configuration {version:#x}"),
            LinkEnd::LaterEpochPromised(epoch) => write!(f, "it has promised epoch {epoch}"),
            LinkEnd::NeverProposed(zxid) => write!(f, "ALARM: it has {zxid}, which nobody proposed"),
            LinkEnd::Replaced => f.write_str("replaced by a newer one"),
            LinkEnd::TooManyLinks => f.write_str("too many learners"),
            LinkEnd::TooManySyncs => f.write_str("too many learners synchronise"),
            LinkEnd::Overrun => f.write_str("it does not read"),
            LinkEnd::LogGone(zxid) => write!(f, "what follows {zxid} is in no file any more"),
            LinkEnd::RoleEnded => f.write_str("we lead no longer"),
        }
    }
}
