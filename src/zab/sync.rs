//! How a learner gets what it lacks: from its last zxid and our history (`LearnerHandler.syncFollower`, reference 2.6).
//!
//! Two logs that both hold a zxid agree on everything before it: its leader proposed it behind the history that it had
//! brought every one of its learners to. From that follow the rules:
//!
//! - What we have as well is the common prefix, and DIFF sends what is behind it.
//! - What we do not have was never decided. If the last txn that we have of that epoch is one of the same epoch, the learner
//!   has that too, because an epoch has no gaps, and TRUNC takes it back there. If we have none of that epoch, nobody knows
//!   where the histories part: SNAP, never TRUNC.
//! - Counter 0 is an image: all that the leader of that epoch began with, whether or not that was decided. DIFF if a txn of
//!   that epoch stands in our history, which then has all of it too; otherwise SNAP.
//! - What Java gets as SNAP must be at least as new as the end of its log, which it keeps and would replay (N8). An image
//!   of all that we began with is the beginning of our epoch, which is newer than all before.
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
    pub fn plan(&self, last: Zxid) -> Plan {
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
            return Plan::Snap;
        }
        match self.history.at_or_before(last) {
            None => Plan::AskLog,
            Some(neighbour) => {
                let next = self.history.after(last).next().map(|(zxid, _)| zxid);
                self.beside(last, neighbour, next)
            }
        }
    }

    /// The same, once its place in our log is known: between `neighbour`, the last zxid that is not behind `last`, and `next`,
    /// the first one that is.
    pub fn beside(&self, last: Zxid, neighbour: Zxid, next: Option<Zxid>) -> Plan {
        assert!(neighbour <= last && next.is_none_or(|next| last < next), "{neighbour} ≤ {last} < {next:?}");
        if neighbour == last {
            return Plan::Diff { after: last };
        }
        if last.counter() == 0 {
            let is_in_ours = next.is_some_and(|next| next.epoch() == last.epoch()) || last == self.start();
            return if is_in_ours { Plan::Diff { after: neighbour } } else { Plan::Snap };
        }
        if neighbour.epoch() == last.epoch() && neighbour.counter() > 0 {
            return Plan::Trunc { to: neighbour };
        }
        Plan::Snap
    }

    /// The zxid of our epoch's beginning.
    fn start(&self) -> Zxid {
        Zxid::new(self.epoch, 0)
    }

    /// What a SNAP is called whose image is `zxid`. One of ours goes back to whatever it is told.
    pub fn snapshot_name(&self, zxid: Zxid, is_ours: bool) -> Zxid {
        if zxid == self.initial && !is_ours { zxid.max(self.start()) } else { zxid }
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
            initial: Zxid::new(3, 2),
            is_established: false,
            committed: Zxid::new(3, 1),
            force_snapshot: false,
        }
    }

    fn check(source: &Source<'_>, (epoch, counter): (u32, u32), expected: Plan) {
        assert_eq!(source.plan(Zxid::new(epoch, counter)), expected, "{epoch} {counter}");
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
        check(&source, (5, 1), Plan::Snap);
        assert_eq!(source.snapshot_name(Zxid::new(3, 2), false), Zxid::new(7, 0), "newer than all before");
        assert_eq!(source.snapshot_name(Zxid::new(3, 2), true), Zxid::new(3, 2));
        assert_eq!(source.snapshot_name(Zxid::new(3, 1), false), Zxid::new(3, 1), "not all that we began with");
        assert_eq!(source.plan(NO_ZXID), Plan::Snap);
    }

    //
    #[test]
    fn images_of_an_epochs_beginning_are_known_by_the_txn_that_follows_them() {
        let history = history();
        let source = before_establishment(&history);
        check(&source, (3, 0), Plan::Diff { after: Zxid::new(1, 5) });
        // Nobody knows what these began with.
        check(&source, (2, 0), Plan::Snap);
        check(&source, (5, 0), Plan::Snap);
        check(&source, (7, 0), Plan::Refuse);
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
        check(&source, (3, 4), Plan::Snap);
    }

    #[test]
    fn a_forced_snapshot_is_one_for_everybody() {
        let history = history();
        let source = Source { force_snapshot: true, ..before_establishment(&history) };
        check(&source, (3, 1), Plan::Snap);
        check(&source, (3, 2), Plan::Snap);
    }
}
