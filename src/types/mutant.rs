//! Known bugs that the simulator can put back, one at a time, to show that it finds them.
//!
//! A machine asks `is_active(Mutant::…)` at the one place where the bug would be. Built for release, the answer is the
//! constant `false`; with debug assertions or the feature `mutants` it is what this thread was told with `activate`.

use std::fmt;

/// One bug.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mutant {
    /// A server counts its own ack when a txn is given to the log, not when it is durable (design §4; ZOOKEEPER-4646).
    AckBeforeFlush,
    /// Completions of durable writes count in the order in which they come, not as a prefix (design §5).
    FlushOutOfOrder,
    /// A flush counts although its file has no durable name yet (design §11).
    FlushBeforeName,
    /// The next write starts while the one that shares its first block is under way (design §5).
    WritesShareBlock,
    /// A durable write that failed is taken for a good one (design §4; ZOOKEEPER-4882). In the driver.
    FailedFlushIgnored,
    /// Recovery takes an entry whose checksum is wrong (design §5).
    TornEntryAccepted,
    /// Recovery stops at a torn tail and leaves it in the file (design §11).
    TornTailLeft,
    /// A shard answers a write and goes on serving the version before it (design §3).
    ReplyBeforeAdoption,
    /// Reads that wait behind a write are served at the newest version, not at the write's (design §3).
    ReadsBehindWriteJump,
    /// Reads do not wait for the writes before them (design §3).
    ReadsOvertakeWrites,
    /// A write is answered before the events of its txn are out (design §1).
    ReplyBeforeEvents,
    /// A watch that is set again after a reconnect is registered without looking at what has happened (`SetWatches`).
    WatchCatchUpSkipped,
    /// What clients say does not keep their sessions alive (design §11).
    TouchesIgnored,
    /// A pause of this process counts as silence of its clients (design §11).
    StallCountsAsSilence,
    /// A client that has seen a newer version than this server has is let in (design §11).
    LastZxidSeenIgnored,
    /// A closed session leaves its last ephemeral behind (ZOOKEEPER-2355, -3144).
    EphemeralLeftBehind,
    /// A refused write has no place in the order (N1: every error txn has the next zxid).
    RefusedWithoutZxid,
    /// A multi whose last part fails keeps what the parts before it did (design §3).
    MultiHalfApplied,
    /// A closed session keeps its lease and is closed again (design §11).
    SessionClosedTwice,
    /// A snapshot is named after the head, of which not all is committed (ZOOKEEPER-4837).
    SnapshotOfUncommitted,
}

impl Mutant {
    pub const ALL: &[Mutant] = &[
        Mutant::AckBeforeFlush,
        Mutant::FlushOutOfOrder,
        Mutant::FlushBeforeName,
        Mutant::WritesShareBlock,
        Mutant::FailedFlushIgnored,
        Mutant::TornEntryAccepted,
        Mutant::TornTailLeft,
        Mutant::ReplyBeforeAdoption,
        Mutant::ReadsBehindWriteJump,
        Mutant::ReadsOvertakeWrites,
        Mutant::ReplyBeforeEvents,
        Mutant::WatchCatchUpSkipped,
        Mutant::TouchesIgnored,
        Mutant::StallCountsAsSilence,
        Mutant::LastZxidSeenIgnored,
        Mutant::EphemeralLeftBehind,
        Mutant::RefusedWithoutZxid,
        Mutant::MultiHalfApplied,
        Mutant::SessionClosedTwice,
        Mutant::SnapshotOfUncommitted,
    ];

    /// By its name, as `Display` writes it.
    pub fn from_name(name: &str) -> Option<Mutant> {
        Mutant::ALL.iter().copied().find(|mutant| mutant.to_string() == name)
    }
}

/// `AckBeforeFlush`.
impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Whether this build has the switch.
pub const IS_SWITCHABLE: bool = cfg!(any(debug_assertions, feature = "mutants"));

#[cfg(any(debug_assertions, feature = "mutants"))]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Puts a bug back on this thread, or none.
    pub fn activate(mutant: Option<Mutant>) {
        ACTIVE.set(mutant);
    }

    #[inline]
    pub fn is_active(mutant: Mutant) -> bool {
        ACTIVE.get() == Some(mutant)
    }
}

#[cfg(not(any(debug_assertions, feature = "mutants")))]
mod switch {
    use super::Mutant;

    pub fn activate(_: Option<Mutant>) {}

    #[inline(always)]
    pub const fn is_active(_: Mutant) -> bool {
        false
    }
}

pub use switch::{activate, is_active};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutant_is_active_on_the_thread_that_asked_for_it_and_nowhere_else() {
        activate(Some(Mutant::AckBeforeFlush));
        assert!(is_active(Mutant::AckBeforeFlush) && !is_active(Mutant::FlushBeforeName));
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(!is_active(Mutant::AckBeforeFlush)));
        });
        activate(None);
        assert!(!is_active(Mutant::AckBeforeFlush));
    }

    #[test]
    fn every_mutant_is_found_by_its_name() {
        for mutant in Mutant::ALL {
            assert_eq!(Mutant::from_name(&mutant.to_string()), Some(*mutant));
        }
        assert_eq!(Mutant::from_name("None"), None);
    }
}
