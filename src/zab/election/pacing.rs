//! How often a server may begin to look.

use std::time::Duration;

use crate::types::time::Time;

/// So many elections may follow one another at once …
const BURST: u32 = 5;

/// … and behind them one in this time: with a link that flaps a server could otherwise drive the rounds of all others
/// up as fast as messages travel.
const INTERVAL: Duration = Duration::from_millis(200);

/// A bucket of `BURST` that gains one every `INTERVAL`.
#[derive(Debug, Default)]
pub struct Pacing {
    /// When the bucket would be full again.
    full_at: Time,
}

impl Pacing {
    /// When an election that is wanted now may begin.
    pub fn start(&mut self, now: Time) -> Time {
        self.full_at = self.full_at.max(now) + INTERVAL;
        now.max(self.full_at - INTERVAL * BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_elections_begin_at_once_and_more_of_them_a_fifth_of_a_second_apart() {
        let mut pacing = Pacing::default();
        let mut starts =
            |now: u64, n: usize| -> Vec<u64> { (0..n).map(|_| pacing.start(Time::from_ms(now)).as_ms()).collect() };
        assert_eq!(starts(10_000, 8), [10_000, 10_000, 10_000, 10_000, 10_000, 10_200, 10_400, 10_600]);
        assert_eq!(starts(60_000, 6), [60_000, 60_000, 60_000, 60_000, 60_000, 60_200]);
    }
}
