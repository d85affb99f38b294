//! Which znode: a seeded generator and the distributions of keys over it.

use super::error::LoadError;

/// SplitMix64: reproducible on every machine and version, and fast enough for every request.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Streams of one seed differ by their salt.
    pub fn new(seed: u64, salt: u64) -> Dice {
        let mut dice = Dice(seed ^ salt.wrapping_mul(0xd134_2543_de82_ef95));
        dice.next();
        dice
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Even over `0..bound` but for a bias below `bound / 2^32`; 0 for the bound 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * bound as u64) >> 32) as u32
    }

    /// Even over `0.0..1.0`.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// How keys are drawn. Rank 0, the hottest key of `Zipf`, is key 0.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum KeyDistribution {
    Uniform,
    Zipf { exponent: f64 },
    Sequential,
}

/// The exponent when none is given: that of YCSB.
const ZIPF_EXPONENT: f64 = 0.99;

impl KeyDistribution {
    /// Text: `uniform`, `zipf`, `zipf:1.2` or `sequential`.
    pub fn parse(text: &str) -> Result<KeyDistribution, LoadError> {
        match text.split_once(':') {
            None if text == "uniform" => Ok(KeyDistribution::Uniform),
            None if text == "sequential" => Ok(KeyDistribution::Sequential),
            None if text == "zipf" => Ok(KeyDistribution::Zipf { exponent: ZIPF_EXPONENT }),
            Some(("zipf", exponent)) => match exponent.parse::<f64>() {
                Ok(exponent) if exponent > 0.0 && exponent <= 10.0 => Ok(KeyDistribution::Zipf { exponent }),
                _ => Err(LoadError::Argument {
                    name: "--key-distribution",
                    text: text.to_owned(),
                    why: "the exponent of zipf is above 0 and at most 10, as in zipf:0.99".into(),
                }),
            },
            _ => Err(LoadError::Argument {
                name: "--key-distribution",
                text: text.to_owned(),
                why: "it is uniform, zipf, zipf:EXPONENT or sequential".into(),
            }),
        }
    }
}

impl std::fmt::Display for KeyDistribution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyDistribution::Uniform => f.write_str("uniform"),
            KeyDistribution::Zipf { exponent } => write!(f, "zipf:{exponent}"),
            KeyDistribution::Sequential => f.write_str("sequential"),
        }
    }
}

/// Draws keys in `0..count`.
#[derive(Clone, Debug)]
pub enum KeyChooser {
    Uniform { count: u32 },
    Zipf(Zipf),
    Sequential { count: u32, next: u32 },
}

impl KeyChooser {
    /// `first` is where a sequential walk starts, so that workers spread out. `count` is at least 1.
    pub fn new(distribution: KeyDistribution, count: u32, first: u32) -> KeyChooser {
        match distribution {
            KeyDistribution::Uniform => KeyChooser::Uniform { count },
            KeyDistribution::Zipf { exponent } => KeyChooser::Zipf(Zipf::new(count, exponent)),
            KeyDistribution::Sequential => KeyChooser::Sequential { count, next: first % count.max(1) },
        }
    }

    pub fn next(&mut self, dice: &mut Dice) -> u32 {
        match self {
            KeyChooser::Uniform { count } => dice.below(*count),
            KeyChooser::Zipf(zipf) => zipf.next(dice),
            KeyChooser::Sequential { count, next } => {
                let key = *next;
                *next = if key + 1 >= *count { 0 } else { key + 1 };
                key
            }
        }
    }
}

/// Zipf's law by rejection-inversion (Hörmann, Derflinger 1996): constant time and memory for any count.
#[derive(Clone, Debug)]
pub struct Zipf {
    count: f64,
    exponent: f64,
    /// Integral of the density's hat at 1.5, less the density at 1.
    hat_first: f64,
    /// Integral of the hat at the upper end.
    hat_last: f64,
    /// Below this distance from its rank a draw is accepted without looking closer.
    sure: f64,
}

impl Zipf {
    fn new(count: u32, exponent: f64) -> Zipf {
        let mut zipf = Zipf { count: count.max(1) as f64, exponent, hat_first: 0.0, hat_last: 0.0, sure: 0.0 };
        zipf.hat_first = zipf.integral(1.5) - 1.0;
        zipf.hat_last = zipf.integral(zipf.count + 0.5);
        zipf.sure = 2.0 - zipf.integral_inverse(zipf.integral(2.5) - 2_f64.powf(-exponent));
        zipf
    }

    fn is_harmonic(&self) -> bool {
        (self.exponent - 1.0).abs() < 1e-9
    }

    /// Of `x^-exponent`.
    fn integral(&self, x: f64) -> f64 {
        let rest = 1.0 - self.exponent;
        if self.is_harmonic() { x.ln() } else { (x.powf(rest) - 1.0) / rest }
    }

    fn integral_inverse(&self, y: f64) -> f64 {
        let rest = 1.0 - self.exponent;
        if self.is_harmonic() { y.exp() } else { (1.0 + y * rest).max(0.0).powf(1.0 / rest) }
    }

    fn next(&self, dice: &mut Dice) -> u32 {
        loop {
            let area = self.hat_last + dice.unit() * (self.hat_first - self.hat_last);
            let x = self.integral_inverse(area);
            let rank = x.round().clamp(1.0, self.count);
            if rank - x <= self.sure || area >= self.integral(rank + 0.5) - rank.powf(-self.exponent) {
                return rank as u32 - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(distribution: KeyDistribution, keys: u32, draws: u32) -> Vec<u32> {
        let (mut chooser, mut dice) = (KeyChooser::new(distribution, keys, 0), Dice::new(7, 3));
        let mut counts = vec![0; keys as usize];
        (0..draws).for_each(|_| counts[chooser.next(&mut dice) as usize] += 1);
        counts
    }

    #[test]
    fn the_same_seed_draws_the_same_keys_and_salts_differ() {
        let draw = |seed, salt| {
            let mut dice = Dice::new(seed, salt);
            (0..8).map(|_| dice.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
        assert_ne!(draw(1, 0), draw(2, 0));
    }

    #[test]
    fn uniform_keys_are_even() {
        assert!(counts(KeyDistribution::Uniform, 10, 100_000).iter().all(|n| (9_500..10_500).contains(n)));
    }

    #[test]
    fn zipf_keys_follow_the_law() {
        for exponent in [0.5, 0.99, 1.0, 1.5] {
            let counts = counts(KeyDistribution::Zipf { exponent }, 100, 400_000);
            let weight = |rank: usize| (rank as f64).powf(-exponent);
            let all: f64 = (1..=100).map(weight).sum();
            for rank in [1, 2, 3, 10, 50] {
                let (expected, real) = (400_000.0 * weight(rank) / all, counts[rank - 1] as f64);
                let bound = 5.0 * expected.sqrt();
                assert!((expected - real).abs() < bound, "s {exponent} rank {rank}: {expected} but {real}");
            }
        }
    }

    #[test]
    fn sequential_keys_wrap_around() {
        let (mut chooser, mut dice) = (KeyChooser::new(KeyDistribution::Sequential, 3, 4), Dice::new(0, 0));
        let drawn: Vec<u32> = (0..4).map(|_| chooser.next(&mut dice)).collect();
        assert_eq!(drawn, [1, 2, 0, 1]);
    }

    #[test]
    fn one_key_is_always_that_key() {
        for distribution in
            [KeyDistribution::Uniform, KeyDistribution::Zipf { exponent: 0.99 }, KeyDistribution::Sequential]
        {
            assert_eq!(counts(distribution, 1, 100), [100]);
        }
    }

    #[test]
    fn distributions_are_read() {
        let check = |text, expected| assert_eq!(KeyDistribution::parse(text).ok(), expected, "{text}");
        check("zipf", Some(KeyDistribution::Zipf { exponent: 0.99 }));
        check("zipf:1.2", Some(KeyDistribution::Zipf { exponent: 1.2 }));
        check("sequential", Some(KeyDistribution::Sequential));
        for wrong in ["zipf:", "zipf:-1", "zipf:nan", "normal", "uniform:1"] {
            check(wrong, None);
        }
    }
}
