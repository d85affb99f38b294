//! Seeded dice. The same seed throws the same numbers on every machine.

/// SplitMix64 (Steele, Lea and Flood 2014): one word of state, good enough to choose operations.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// `salt` keeps two streams of one seed apart.
    pub fn new(seed: u64, salt: u64) -> Random {
        let mut random = Random(seed ^ salt.rotate_left(32));
        random.next();
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True in `percent` of 100 throws.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// An index, chosen with the given weights, of which one at least must not be 0.
    pub fn weighted(&mut self, weights: &[usize]) -> usize {
        let mut at = self.below(weights.iter().sum());
        for (index, weight) in weights.iter().enumerate() {
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return index,
            }
        }
        unreachable!("at is below the sum of the weights")
    }
}
