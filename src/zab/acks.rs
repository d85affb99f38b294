//! The leader's count of acknowledgements (`Leader.processAck`, spec `LeaderProcessACK`).
//!
//! Acks are cumulative: whoever has acked a zxid has every earlier one on stable storage too. The leader is a voter
//! like any other: its own ack is its own durable write. An ensemble of one is a quorum of itself.
//!
//! - `committed ≤ proposed`, and it only rises.
//! - `acked[s] ≤ proposed`, for voters only.
//! - An ack is worth what its link is: a learner that left may come back without what it had acked there.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::quorum::Quorum;
use crate::types::ids::ServerId;
use crate::types::zxid::Zxid;

#[derive(Debug)]
pub struct Acks {
    quorum: Quorum,
    /// The newest zxid each voter has on stable storage.
    acked: BTreeMap<ServerId, Zxid>,
    proposed: Zxid,
    committed: Zxid,
}

impl Acks {
    /// Counts on from a history that ends at `last`, all of it committed.
    pub fn new(quorum: Quorum, last: Zxid) -> Acks {
        Acks { quorum, acked: BTreeMap::new(), proposed: last, committed: last }
    }

    pub fn proposed(&self) -> Zxid {
        self.proposed
    }

    pub fn committed(&self) -> Zxid {
        self.committed
    }

    /// The next proposal is on its way to the log and to the learners.
    pub fn on_proposed(&mut self, zxid: Zxid) {
        assert!(zxid > self.proposed, "zxids rise: {zxid} after {}", self.proposed);
        self.proposed = zxid;
    }

    /// `server` has everything up to `zxid` on stable storage. Returns the newest zxid that is now committed, if that
    /// moved.
    pub fn on_ack(&mut self, server: ServerId, zxid: Zxid) -> Option<Zxid> {
        assert!(zxid <= self.proposed, "{server} acked {zxid}, which nobody proposed");
        if !self.quorum.contains(server) {
            return None;
        }
        let acked = self.acked.entry(server).or_default();
        *acked = zxid.max(*acked);
        let decided = self.decided()?;
        (decided > self.committed).then(|| {
            self.committed = decided;
            decided
        })
    }

    /// The link of `server` is gone, and what it acked over it counts no longer. What is committed stays so.
    pub fn forget(&mut self, server: ServerId) {
        self.acked.remove(&server);
    }

    /// Membership has changed: others decide from here on.
    pub fn set_quorum(&mut self, quorum: Quorum) {
        self.acked.retain(|server, _| quorum.contains(*server));
        self.quorum = quorum;
    }

    /// The newest zxid that `server` has acked.
    pub fn acked(&self, server: ServerId) -> Option<Zxid> {
        self.acked.get(&server).copied()
    }

    /// The newest zxid that a quorum has acked.
    fn decided(&self) -> Option<Zxid> {
        let mut candidates: SmallVec<[Zxid; 8]> = self.acked.values().copied().collect();
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        let has = |server, zxid| self.acked.get(&server).is_some_and(|acked| *acked >= zxid);
        candidates.into_iter().find(|zxid| self.quorum.is_quorum(|server| has(server, *zxid)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ensemble_of_one_commits_with_its_own_durable_write() {
        let mut acks = Acks::new(Quorum::majority([ServerId(1)]), Zxid(5));
        acks.on_proposed(Zxid(6));
        acks.on_proposed(Zxid(7));
        assert_eq!(acks.on_ack(ServerId(1), Zxid(6)), Some(Zxid(6)));
        assert_eq!(acks.on_ack(ServerId(1), Zxid(6)), None);
        assert_eq!(acks.on_ack(ServerId(1), Zxid(7)), Some(Zxid(7)));
    }

    #[test]
    fn three_servers_need_two_and_observers_never_count() {
        let mut acks = Acks::new(Quorum::majority((1..=3).map(ServerId)), Zxid(0));
        acks.on_proposed(Zxid(1));
        acks.on_proposed(Zxid(2));
        assert_eq!(acks.on_ack(ServerId(9), Zxid(2)), None);
        assert_eq!(acks.on_ack(ServerId(2), Zxid(2)), None);
        assert_eq!(acks.on_ack(ServerId(1), Zxid(1)), Some(Zxid(1)));
        assert_eq!(acks.on_ack(ServerId(3), Zxid(2)), Some(Zxid(2)));
        assert_eq!(acks.committed(), acks.proposed());
    }

    #[test]
    fn what_was_acked_over_a_lost_link_does_not_count() {
        let mut acks = Acks::new(Quorum::majority((1..=3).map(ServerId)), Zxid(0));
        acks.on_proposed(Zxid(1));
        assert_eq!(acks.on_ack(ServerId(2), Zxid(1)), None);
        acks.forget(ServerId(2));
        assert_eq!(acks.on_ack(ServerId(1), Zxid(1)), None);
        assert_eq!(acks.on_ack(ServerId(2), Zxid(1)), Some(Zxid(1)));
        acks.forget(ServerId(2));
        assert_eq!(acks.committed(), Zxid(1));
    }
}
