//! Notices a shard that does not move any more.

use crate::types::limits::SHARD_STALL_LIMIT;
use crate::types::time::{Time, Wait};
use crate::types::zxid::Zxid;

/// What has been published and not adopted by all shards, and for how long nobody behind has moved.
#[derive(Debug, Default)]
pub struct ShardStalls {
    /// All shards have adopted this, when last looked.
    adopted: Zxid,
    behind: Option<Wait>,
}

impl ShardStalls {
    /// When to look again.
    pub fn deadline(&self) -> Option<Time> {
        self.behind.map(Wait::deadline)
    }

    /// Whether a shard has been standing still for too long: it is behind `published`, and what all have adopted is what
    /// it was. `adopted` is asked for once a second, and only while somebody may be behind.
    pub fn is_stuck(&mut self, now: Time, published: Zxid, adopted: impl FnOnce() -> Zxid) -> bool {
        let Some(behind) = &mut self.behind else {
            self.behind = (published > self.adopted).then(|| Wait::since(now));
            return false;
        };
        if now < behind.deadline() {
            return false;
        }
        let adopted = adopted();
        if adopted > self.adopted || adopted >= published {
            self.adopted = adopted;
            self.behind = (published > adopted).then(|| Wait::since(now));
            return false;
        }
        behind.has_reached(SHARD_STALL_LIMIT, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_stuck_at(stalls: &mut ShardStalls, s: u64, published: u64, adopted: u64) -> bool {
        stalls.is_stuck(Time::from_ms(1000 * s), Zxid(published), || Zxid(adopted))
    }

    #[test]
    fn a_shard_that_stands_still_is_noticed_after_the_limit() {
        let mut stalls = ShardStalls::default();
        let limit = SHARD_STALL_LIMIT.as_secs();
        assert!((0..limit).all(|s| !is_stuck_at(&mut stalls, s, 5 + s, 3)));
        // The first look found that it had moved up to 3.
        assert!(!is_stuck_at(&mut stalls, limit, 40, 3));
        assert!(is_stuck_at(&mut stalls, limit + 1, 40, 3));
    }

    #[test]
    fn a_shard_that_moves_slowly_is_alive() {
        let mut stalls = ShardStalls::default();
        assert!((0..1000).all(|s| !is_stuck_at(&mut stalls, s, 2000, s / 20)));
    }

    #[test]
    fn a_pause_of_the_process_is_nobody_standing_still() {
        let mut stalls = ShardStalls::default();
        assert!(!is_stuck_at(&mut stalls, 0, 5, 3));
        assert!(!is_stuck_at(&mut stalls, 1000, 5, 3));
        assert!(!is_stuck_at(&mut stalls, 2000, 5, 3));
        assert!(!is_stuck_at(&mut stalls, 3000, 5, 5));
        assert_eq!(stalls.deadline(), None, "all have it: nothing to look at");
    }
}
