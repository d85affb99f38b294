//! The leader's count of acknowledgements (`Leader.processAck`, spec `LeaderProcessACK`).
//!
//! Acks are cumulative: whoever has acked a zxid has every earlier one on stable storage too. The leader is a voter
//! like any other: its own ack is its own durable write. An ensemble of one is a quorum of itself.

use std::collections::BTreeMap;

use super::quorum::Quorum;
use crate::types::ids::ServerId;
use crate::types::zxid::Zxid;

/// Invariant: `committed ≤ proposed`, and `acked[s] ≤ proposed` for every server.
#[derive(Debug)]
pub struct Leader {
    quorum: Quorum,
    /// The newest zxid each voter has on stable storage.
    acked: BTreeMap<ServerId, Zxid>,
    proposed: Zxid,
    committed: Zxid,
}

impl Leader {
    /// Leads from a history that ends at `last`, all of it committed.
    pub fn new(quorum: Quorum, last: Zxid) -> Leader {
        Leader { quorum, acked: BTreeMap::new(), proposed: last, committed: last }
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

    /// The newest zxid that a quorum has acked.
    fn decided(&self) -> Option<Zxid> {
        let mut candidates: Vec<Zxid> = self.acked.values().copied().collect();
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
        let mut leader = Leader::new(Quorum::majority([ServerId(1)]), Zxid(5));
        leader.on_proposed(Zxid(6));
        leader.on_proposed(Zxid(7));
        assert_eq!(leader.on_ack(ServerId(1), Zxid(6)), Some(Zxid(6)));
        assert_eq!(leader.on_ack(ServerId(1), Zxid(6)), None);
        assert_eq!(leader.on_ack(ServerId(1), Zxid(7)), Some(Zxid(7)));
    }

    #[test]
    fn three_servers_need_two_and_observers_never_count() {
        let mut leader = Leader::new(Quorum::majority((1..=3).map(ServerId)), Zxid(0));
        leader.on_proposed(Zxid(1));
        leader.on_proposed(Zxid(2));
        assert_eq!(leader.on_ack(ServerId(9), Zxid(2)), None);
        assert_eq!(leader.on_ack(ServerId(2), Zxid(2)), None);
        assert_eq!(leader.on_ack(ServerId(1), Zxid(1)), Some(Zxid(1)));
        assert_eq!(leader.on_ack(ServerId(3), Zxid(2)), Some(Zxid(2)));
        assert_eq!(leader.committed(), leader.proposed());
    }
}
