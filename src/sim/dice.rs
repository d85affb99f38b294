//! The one source of chance. Each part of a simulation has a stream of its own, so that a change of one leaves the
//! others as they were.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Keeps the streams of one seed apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Salt {
    Scenario = 1,
    Faults,
    Network,
    Disk,
    Client,
    Server,
}

/// SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The stream of a seed for one purpose; `number` tells several of a kind apart.
    pub fn new(seed: u64, salt: Salt, number: u64) -> Dice {
        let mut dice = Dice(seed ^ (salt as u64).rotate_left(56) ^ number.rotate_left(40));
        Dice(dice.next() ^ seed.rotate_left(17))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    /// True once in `of` throws.
    pub fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    /// True in `percent` of 100 throws.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    /// One of several, by weight; one weight at least is not 0.
    pub fn weighted<T: Copy>(&mut self, from: &[(u64, T)]) -> T {
        let mut at = self.below(from.iter().map(|(weight, _)| weight).sum());
        for (weight, value) in from {
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return *value,
            }
        }
        unreachable!("`at` is below the sum of the weights")
    }

    /// Microseconds, drawn evenly.
    pub fn micros(&mut self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_micros(self.within(range))
    }

    /// Milliseconds, drawn evenly, to the microsecond.
    pub fn millis(&mut self, range: RangeInclusive<u64>) -> Duration {
        self.micros(range.start() * 1000..=range.end() * 1000)
    }

    /// Drawn so that every order of magnitude is as likely as the next: short is common, long happens.
    pub fn spread(&mut self, range: RangeInclusive<u64>) -> Duration {
        let (low, high) = ((*range.start()).max(1), *range.end());
        let doublings = u64::from((high / low).max(1).ilog2());
        let scale = low << self.within(0..=doublings);
        self.micros(scale..=(2 * scale).min(high.max(scale)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_a_seed_differ_and_repeat() {
        let draw = |seed, salt, number| {
            let mut dice = Dice::new(seed, salt, number);
            [dice.next(), dice.next(), dice.next()]
        };
        assert_eq!(draw(1, Salt::Disk, 0), draw(1, Salt::Disk, 0));
        assert_ne!(draw(1, Salt::Disk, 0), draw(1, Salt::Disk, 1));
        assert_ne!(draw(1, Salt::Disk, 0), draw(1, Salt::Network, 0));
        assert_ne!(draw(1, Salt::Disk, 0), draw(2, Salt::Disk, 0));
    }

    #[test]
    fn draws_stay_within_their_range() {
        let mut dice = Dice::new(7, Salt::Scenario, 0);
        for _ in 0..1000 {
            assert!((3..=5).contains(&dice.within(3..=5)));
            let span = dice.spread(50..=200_000);
            assert!((Duration::from_micros(50)..=Duration::from_micros(200_000)).contains(&span), "{span:?}");
            assert!(dice.weighted(&[(0, 'a'), (1, 'b'), (9, 'c')]) != 'a');
        }
    }
}
