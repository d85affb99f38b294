//! How a learner gets what it lacks: from its last zxid and our history (`LearnerHandler.syncFollower`, reference 2.6).
//!
//! Two logs that both hold a zxid agree on everything before it: its leader proposed it behind the history that it had
//! brought every one of its learners to. From that follow the rules:
//!
//! - What we have as well is the common prefix, and DIFF sends what is behind it.
//! - What we do not have was never decided. If the last txn that we have of that epoch is one of the same epoch, the learner
//!   has that too, because an epoch has no gaps, and TRUNC takes it back there. If we have none of that epoch, nobody knows
//!   where the histories part: SNAP, never TRUNC.
//! - Counter 0 is an image: all that the leader of that epoch began with, once it was decided. DIFF if our history
//!   has it too: because something behind it is there, or because we have joined that epoch ourselves.
//! - What Java gets as SNAP must be at least as new as the end of its log, which it keeps and would replay (N8).
//! - Of this epoch we proposed everything: a learner that has more than is decided waits until that is decided.
//!
//! `target` is where the synchronisation ends: all that we began with, or what is decided by now. Nothing undecided of
//! our own epoch is ever part of it.

use super::history::History;
use crate::types::zxid::Zxid;
use crate::wire::quorum::NO_ZXID;

/// What is to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plan {
    /// Everything behind this, which it has.
    Diff {
        after: Zxid,
    },
    /// Back to this, then everything behind it.
    Trunc {
        to: Zxid,
    },
    Snap,
    /// Our memory does not reach back so far; what stands in the files decides.
    AskLog,
    /// Not yet.
    Wait,
    /// It has what nobody proposed.
    Refuse,
}

/// The leader's side of the decision.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub history: &'a History,
    /// The epoch that we lead.
    pub epoch: u32,
    /// The epoch that we had joined when we began to lead.
    pub joined: u32,
    /// Where our history ended when we began to lead.
    pub initial: Zxid,
    pub is_established: bool,
    pub committed: Zxid,
    /// `zookeeper.forceSnapshotSync`.
    pub force_snapshot: bool,
}

impl Source<'_> {
    pub fn target(&self) -> Zxid {
        if self.is_established { self.committed } else { self.initial }
    }

    /// For a learner whose log ends at `last`.
    pub fn plan(&self, last: Zxid, is_ours: bool) -> Plan {
        if last == NO_ZXID {
            return Plan::Snap;
        }
        if last.epoch() >= self.epoch {
            let proposed = self.history.last().max(self.start());
            if !self.is_established || last > proposed {
                return Plan::Refuse;
            }
            if last > self.committed.max(self.start()) {
                return Plan::Wait;
            }
        }
        if self.force_snapshot {
            return self.snap(last, is_ours);
        }
        match self.history.at_or_before(last) {
            None => Plan::AskLog,
            Some(neighbour) => self.beside(last, neighbour, is_ours),
        }
    }

    /// The same, once `neighbour` is known: the last zxid of our log that is not behind `last`.
    pub fn beside(&self, last: Zxid, neighbour: Zxid, is_ours: bool) -> Plan {
        assert!(neighbour <= last, "{neighbour} is behind {last}");
        if neighbour == last {
            return Plan::Diff { after: last };
        }
        if last.counter() == 0 {
            let is_ours_as_well = last < self.history.last() || last.epoch() <= self.joined || last == self.start();
            return if is_ours_as_well { Plan::Diff { after: neighbour } } else { self.snap(last, is_ours) };
        }
        if neighbour.epoch() == last.epoch() && neighbour.counter() > 0 {
            return Plan::Trunc { to: neighbour };
        }
        self.snap(last, is_ours)
    }

    /// The zxid of our epoch's beginning.
    fn start(&self) -> Zxid {
        Zxid::new(self.epoch, 0)
    }

    fn snap(&self, last: Zxid, is_ours: bool) -> Plan {
        let is_new_enough = self.is_established || self.initial >= last;
        if is_ours || is_new_enough { Plan::Snap } else { Plan::Wait }
    }

    /// What a SNAP is called whose image is `zxid`. Once established, what we began with is newer than whatever else
    /// is left of earlier epochs.
    pub fn snapshot_name(&self, zxid: Zxid) -> Zxid {
        if self.is_established && zxid == self.initial { zxid.max(self.start()) } else { zxid }
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::HistoryLimits;
    use super::*;

    /// Behind 0x100000003: 0x100000004, 0x100000005, 0x300000001, 0x300000002.
    fn history() -> History {
        let mut history = History::new(Zxid::new(1, 3), HistoryLimits::default());
        for (epoch, counter) in [(1, 4), (1, 5), (3, 1), (3, 2)] {
            history.append(Zxid::new(epoch, counter), b"");
        }
        history
    }

    fn before_establishment(history: &History) -> Source<'_> {
        Source {
            history,
            epoch: 7,
            joined: 3,
            initial: Zxid::new(3, 2),
            is_established: false,
            committed: Zxid::new(3, 1),
            force_snapshot: false,
        }
    }

    fn check(source: &Source<'_>, (epoch, counter): (u32, u32), expected: Plan) {
        assert_eq!(source.plan(Zxid::new(epoch, counter), false), expected, "{epoch} {counter}");
    }

    //
    #[test]
    fn what_the_learner_has_as_well_is_the_start_of_a_diff() {
        let history = history();
        let source = before_establishment(&history);
        for at in [(3, 2), (3, 1), (1, 5), (1, 4), (1, 3)] {
            check(&source, at, Plan::Diff { after: Zxid::new(at.0, at.1) });
        }
        check(&source, (1, 2), Plan::AskLog);
        check(&source, (0, 0), Plan::AskLog);
        assert_eq!(source.target(), Zxid::new(3, 2));
    }

    //
    #[test]
    fn a_tail_of_an_epoch_that_we_know_is_cut_and_that_of_another_needs_a_snapshot() {
        let history = history();
        let source = before_establishment(&history);
        check(&source, (3, 3), Plan::Trunc { to: Zxid::new(3, 2) });
        check(&source, (1, 9), Plan::Trunc { to: Zxid::new(1, 5) });
        check(&source, (2, 4), Plan::Snap);
        // Newer than what a snapshot can show by now: Java would keep it.
        check(&source, (5, 1), Plan::Wait);
        assert_eq!(source.plan(Zxid::new(5, 1), true), Plan::Snap);
        let source = Source { is_established: true, committed: Zxid::new(3, 2), ..source };
        check(&source, (5, 1), Plan::Snap);
        assert_eq!(source.snapshot_name(Zxid::new(3, 2)), Zxid::new(7, 0));
        assert_eq!(source.snapshot_name(Zxid::new(3, 1)), Zxid::new(3, 1));
    }

    //
    #[test]
    fn images_of_an_epochs_beginning_are_known_by_what_follows_them() {
        let history = history();
        let source = before_establishment(&history);
        check(&source, (3, 0), Plan::Diff { after: Zxid::new(1, 5) });
        check(&source, (2, 0), Plan::Diff { after: Zxid::new(1, 5) });
        // We never joined epoch 5, so what it began with need not be ours.
        check(&source, (5, 0), Plan::Wait);
        let source = Source { joined: 5, ..source };
        check(&source, (5, 0), Plan::Diff { after: Zxid::new(3, 2) });
        let source = Source { is_established: true, committed: Zxid::new(3, 2), ..source };
        check(&source, (7, 0), Plan::Diff { after: Zxid::new(3, 2) });
    }

    #[test]
    fn in_our_own_epoch_nothing_is_cut_but_waited_for() {
        let mut history = history();
        for counter in 1..=4 {
            history.append(Zxid::new(7, counter), b"");
        }
        let source = Source { is_established: true, committed: Zxid::new(7, 2), ..before_establishment(&history) };
        check(&source, (7, 2), Plan::Diff { after: Zxid::new(7, 2) });
        check(&source, (7, 1), Plan::Diff { after: Zxid::new(7, 1) });
        check(&source, (7, 3), Plan::Wait);
        check(&source, (7, 4), Plan::Wait);
        check(&source, (7, 5), Plan::Refuse);
        check(&source, (8, 0), Plan::Refuse);
        assert_eq!(source.target(), Zxid::new(7, 2));
    }

    #[test]
    fn behind_an_image_of_our_own_nothing_can_be_cut() {
        let history = History::new(Zxid::new(3, 0), HistoryLimits::default());
        let source = Source { initial: Zxid::new(3, 0), committed: Zxid::new(3, 0), ..before_establishment(&history) };
        check(&source, (3, 0), Plan::Diff { after: Zxid::new(3, 0) });
        check(&source, (3, 4), Plan::Wait);
        assert_eq!(source.plan(Zxid::new(3, 4), true), Plan::Snap);
        assert_eq!(source.plan(NO_ZXID, false), Plan::Snap);
    }

    #[test]
    fn a_forced_snapshot_is_one_for_everybody_who_can_take_it() {
        let history = history();
        let source = Source { force_snapshot: true, ..before_establishment(&history) };
        check(&source, (3, 1), Plan::Snap);
        check(&source, (3, 2), Plan::Wait);
    }
}
