//! Times in which nothing was acknowledged.

use std::time::Duration;

use crate::types::time::Time;

/// From one acknowledgement to the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Gap {
    pub from: Time,
    pub until: Time,
}

impl Gap {
    pub fn length(&self) -> Duration {
        self.until.saturating_since(self.from)
    }
}

/// The longest gap within the measured time, whose two ends count as acknowledgements.
#[derive(Clone, Debug)]
pub struct Silence {
    last: Time,
    longest: Gap,
    is_closed: bool,
}

impl Silence {
    pub fn new(from: Time) -> Silence {
        Silence { last: from, longest: Gap { from, until: from }, is_closed: false }
    }

    /// Something was acknowledged. Gives the gap that ends with it, unless it lies outside the measured time.
    pub fn end_at(&mut self, now: Time) -> Option<Gap> {
        if self.is_closed || now <= self.last {
            return None;
        }
        let gap = Gap { from: self.last, until: now };
        self.last = now;
        if gap.length() > self.longest.length() {
            self.longest = gap;
        }
        Some(gap)
    }

    /// What comes from now on comes too late.
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    pub fn longest(&self) -> Gap {
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_before_and_behind_the_measured_time_does_not_count() {
        let mut silence = Silence::new(Time(100));
        assert_eq!(silence.end_at(Time(50)), None);
        assert_eq!(silence.end_at(Time(130)), Some(Gap { from: Time(100), until: Time(130) }));
        silence.end_at(Time(150));
        silence.close();
        assert_eq!(silence.end_at(Time(900)), None);
        assert_eq!(silence.longest(), Gap { from: Time(100), until: Time(130) });
    }
}
