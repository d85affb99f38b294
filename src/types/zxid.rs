//! The place of a transaction in the one order.

use std::fmt;

/// Shape: `[epoch:u32][counter:u32]` in one 64-bit number, as on the wire and on disk (`long zxid`).
/// Order is numeric. A standalone server lives in epoch 0 and simply counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Zxid(pub u64);

impl Zxid {
    /// Before the first transaction.
    pub const ZERO: Zxid = Zxid(0);

    pub const fn new(epoch: u32, counter: u32) -> Zxid {
        Zxid((epoch as u64) << 32 | counter as u64)
    }

    pub const fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub const fn counter(self) -> u32 {
        self.0 as u32
    }

    /// The zxid that follows in the same epoch. Java's standalone server carries into the epoch
    /// when the counter is exhausted (2^32 txns), and so does this.
    pub const fn next(self) -> Zxid {
        Zxid(self.0 + 1)
    }

    /// As a signed `long`, the form of every stored and sent field.
    pub const fn as_i64(self) -> i64 {
        self.0 as i64
    }

    pub const fn from_i64(value: i64) -> Zxid {
        Zxid(value as u64)
    }
}

/// `0x1c`: as Java's logs and four-letter words print it.
impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

impl fmt::Debug for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoch_and_counter_share_one_number() {
        let zxid = Zxid::new(3, 7);
        assert_eq!((zxid.epoch(), zxid.counter()), (3, 7));
        assert_eq!(zxid.next(), Zxid::new(3, 8));
        assert_eq!(zxid.to_string(), "0x300000007");
    }
}
