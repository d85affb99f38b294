//! Votes that were received, and the rules by which they are compared and counted.

use std::collections::{BTreeMap, BTreeSet};

use super::super::quorum::Quorum;
use crate::types::ids::ServerId;
use crate::wire::election::{PeerState, Vote};

/// A vote with what decides how it is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ballot {
    pub vote: Vote,
    pub state: PeerState,
    /// Of the notification. 0 also stands for "was not kept", as Java does in its `recvset`.
    pub version: i32,
}

impl Ballot {
    pub fn looking(vote: Vote) -> Ballot {
        Ballot { vote, state: PeerState::Looking, version: 0 }
    }

    /// `Vote.equals`: while either is LOOKING every field counts. Among members of an established ensemble zxid and
    /// round may be stale, and with a peer from before versions the epoch too (ZOOKEEPER-1732, ZOOKEEPER-1805).
    pub fn agrees(&self, other: &Ballot) -> bool {
        let (a, b) = (&self.vote, &other.vote);
        if self.state == PeerState::Looking || other.state == PeerState::Looking {
            return a == b;
        }
        let is_mixed = (self.version > 0) != (other.version > 0);
        a.leader == b.leader && (is_mixed || a.peer_epoch == b.peer_epoch)
    }
}

/// The latest vote of each voter.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ballots {
    by_sender: BTreeMap<ServerId, Ballot>,
}

impl Ballots {
    pub fn put(&mut self, sender: ServerId, ballot: Ballot) {
        self.by_sender.insert(sender, ballot);
    }

    pub fn remove(&mut self, sender: ServerId) {
        self.by_sender.remove(&sender);
    }

    pub fn clear(&mut self) {
        self.by_sender.clear();
    }

    /// Who voted as `ballot` does, if these are a quorum (`SyncedLearnerTracker`).
    pub fn quorum_for(&self, ballot: &Ballot, quorum: &Quorum) -> Option<BTreeSet<ServerId>> {
        let agreeing = self.by_sender.iter().filter(|(_, other)| ballot.agrees(other));
        let agreeing: BTreeSet<ServerId> = agreeing.map(|(sender, _)| *sender).collect();
        quorum.is_quorum(|server| agreeing.contains(&server)).then_some(agreeing)
    }

    /// Whether `server` itself says that it leads.
    pub fn is_leading(&self, server: ServerId) -> bool {
        self.by_sender.get(&server).is_some_and(|ballot| ballot.state == PeerState::Leading)
    }
}

/// Whether `new` wins over `old` (`totalOrderPredicate`): epoch, then zxid, then sid. Who may not lead loses against
/// everybody; in Java it only never wins.
pub fn is_better(quorum: &Quorum, new: &Vote, old: &Vote) -> bool {
    let rank = |vote: &Vote| (quorum.may_lead(vote.leader), vote.peer_epoch, vote.zxid, vote.leader);
    quorum.may_lead(new.leader) && rank(new) > rank(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(leader: i64, zxid: i64, round: i64, peer_epoch: i64) -> Vote {
        Vote { leader: ServerId(leader), zxid, round, peer_epoch }
    }

    //
    #[test]
    fn epoch_goes_before_zxid_and_zxid_before_sid() {
        let quorum = Quorum::majority((1..=3).map(ServerId));
        let check = |new: (i64, i64, i64), old: (i64, i64, i64), expected| {
            let vote = |(epoch, zxid, leader)| vote(leader, zxid, 1, epoch);
            assert_eq!(is_better(&quorum, &vote(new), &vote(old)), expected, "{new:?} over {old:?}");
        };
        check((2, 0, 1), (1, 9, 3), true);
        check((1, 9, 3), (2, 0, 1), false);
        check((1, 9, 1), (1, 8, 3), true);
        check((1, 8, 3), (1, 9, 1), false);
        check((1, 8, 3), (1, 8, 2), true);
        check((1, 8, 2), (1, 8, 2), false);
        check((0, 0, 1), (i64::MIN, i64::MIN, i64::MIN), true);
        check((i64::MIN, i64::MIN, i64::MIN), (0, 0, 1), false);
        check((9, 9, 4), (1, 1, 1), false);
    }

    //
    #[test]
    fn votes_of_established_members_are_equal_in_leader_and_epoch() {
        let check = |a: (PeerState, i32, Vote), b: (PeerState, i32, Vote), expected| {
            let ballot = |(state, version, vote)| Ballot { vote, state, version };
            let (a, b) = (ballot(a), ballot(b));
            assert_eq!((a.agrees(&b), b.agrees(&a)), (expected, expected), "{a:?} {b:?}");
        };
        use PeerState::{Following, Leading, Looking};
        check((Looking, 2, vote(3, 5, 1, 1)), (Looking, 0, vote(3, 5, 1, 1)), true);
        check((Looking, 2, vote(3, 5, 1, 1)), (Looking, 2, vote(3, 6, 1, 1)), false);
        check((Looking, 2, vote(3, 5, 1, 1)), (Looking, 2, vote(3, 5, 2, 1)), false);
        check((Looking, 2, vote(3, 5, 1, 1)), (Leading, 2, vote(3, 6, 1, 1)), false);
        check((Following, 2, vote(3, 5, 1, 1)), (Leading, 2, vote(3, 6, 7, 1)), true);
        check((Following, 2, vote(3, 5, 1, 1)), (Leading, 2, vote(3, 5, 1, 2)), false);
        check((Following, 0, vote(3, 5, 1, 1)), (Leading, 2, vote(3, 5, 1, 2)), true);
        check((Following, 0, vote(3, 5, 1, 1)), (Leading, 0, vote(3, 5, 1, 2)), false);
        check((Following, 2, vote(3, 5, 1, 1)), (Leading, 2, vote(2, 5, 1, 1)), false);
    }
}
