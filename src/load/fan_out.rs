//! The watch workload: rounds of one set and the events it causes at every watcher.
//!
//! A round begins when all watches are armed; the writer sets the znode; each watcher gets its event and arms again.
//! Watchers live on several workers, so the count of who is where stands behind one lock.

use std::sync::{Arc, Mutex};

use mio::Waker;

use crate::types::time::Time;

/// Where one watcher stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Watch {
    #[default]
    Unarmed,
    /// Asked for, not yet answered.
    Arming,
    /// Since the given round: an event is due once a later one has begun.
    Armed { round: u64 },
}

#[derive(Debug, Default)]
struct Rounds {
    round: u64,
    /// When the set of this round was sent or meant to be sent.
    set_at: Time,
    /// Watchers that wait for the next round.
    armed: usize,
    /// Watchers whose event of this round is still due.
    due: usize,
}

/// Shared by all workers.
#[derive(Debug)]
pub struct FanOut {
    watchers: usize,
    rounds: Mutex<Rounds>,
    /// Wakes the worker that has the writer.
    writer: Arc<Waker>,
}

/// What an event at a watcher means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    pub set_at: Time,
    /// It was the last one that was due.
    pub is_last: bool,
}

impl FanOut {
    pub fn new(watchers: usize, writer: Arc<Waker>) -> FanOut {
        FanOut { watchers, rounds: Mutex::default(), writer }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Rounds> {
        // A worker that panicked has taken the process with it (panic = "abort").
        self.rounds.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A watch was set.
    pub fn armed(&self) -> Watch {
        let mut rounds = self.lock();
        rounds.armed += 1;
        let watch = Watch::Armed { round: rounds.round };
        let all = rounds.armed == self.watchers;
        drop(rounds);
        if all {
            // A failing wake-up costs the writer at most its polling interval.
            let _ = self.writer.wake();
        }
        watch
    }

    /// Every watch is armed and nothing is due, so a round may begin.
    pub fn is_ready(&self) -> bool {
        let rounds = self.lock();
        rounds.armed == self.watchers && rounds.due == 0
    }

    /// Begins a round if one may: the set is about to be sent.
    pub fn begin(&self, set_at: Time) -> bool {
        let mut rounds = self.lock();
        if rounds.armed != self.watchers || rounds.due != 0 {
            return false;
        }
        rounds.round += 1;
        rounds.set_at = set_at;
        (rounds.due, rounds.armed) = (self.watchers, 0);
        true
    }

    /// An event came to a watcher that stood at `watch`. `None`: it belongs to no round.
    pub fn arrived(&self, watch: Watch) -> Option<Arrival> {
        let mut rounds = self.lock();
        match watch {
            Watch::Armed { round } if round < rounds.round => {
                rounds.due -= 1;
                Some(Arrival { set_at: rounds.set_at, is_last: rounds.due == 0 })
            }
            Watch::Armed { .. } => {
                rounds.armed -= 1;
                None
            }
            Watch::Unarmed | Watch::Arming => None,
        }
    }

    /// A watcher lost its connection, and its watch with it. Tells whether an event was due that will never come.
    pub fn lost(&self, watch: Watch) -> bool {
        self.arrived(watch).is_some()
    }

    /// Time of this round's set: for a set that was lost and is sent again.
    pub fn is_waiting(&self) -> bool {
        self.lock().due > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fan_out(watchers: usize) -> (mio::Poll, FanOut) {
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        (poll, FanOut::new(watchers, waker))
    }

    #[test]
    fn a_round_ends_with_the_last_event() {
        let (_poll, fan_out) = fan_out(2);
        let first = fan_out.armed();
        assert!(!fan_out.begin(Time(1)));
        let second = fan_out.armed();
        assert!(fan_out.begin(Time(5)));
        assert_eq!(fan_out.arrived(first), Some(Arrival { set_at: Time(5), is_last: false }));
        let again = fan_out.armed();
        assert_eq!(fan_out.arrived(second), Some(Arrival { set_at: Time(5), is_last: true }));
        assert!(!fan_out.is_ready());
        fan_out.armed();
        assert!(fan_out.begin(Time(9)));
        assert_eq!(fan_out.arrived(again), Some(Arrival { set_at: Time(9), is_last: false }));
    }

    #[test]
    fn a_lost_watcher_does_not_hold_up_the_round() {
        let (_poll, fan_out) = fan_out(2);
        let (first, second) = (fan_out.armed(), fan_out.armed());
        assert!(!fan_out.lost(first), "nothing was due yet");
        assert!(!fan_out.begin(Time(1)));
        let first = fan_out.armed();
        assert!(fan_out.begin(Time(2)));
        assert!(fan_out.lost(first));
        assert_eq!(fan_out.arrived(second).map(|arrival| arrival.is_last), Some(true));
        assert!(!fan_out.lost(Watch::Arming));
    }
}
