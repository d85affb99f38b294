//! Noticing that this thread itself stood still.

use std::time::Duration;

use crate::types::time::Time;

/// Notices that the thread did not run although it should have: a paused VM, SIGSTOP, a step that took far too long.
///
/// Sleeping is no stall as long as it ends about when it was meant to, so tell it before each sleep how long that may take.
#[derive(Debug)]
pub struct Pauses {
    /// Gaps up to this long are ordinary scheduling.
    tolerated: Duration,
    expected: Time,
}

impl Pauses {
    pub fn new(now: Time, tolerated: Duration) -> Pauses {
        Pauses { tolerated, expected: now }
    }

    /// The thread goes to sleep until `deadline` or, without one, for as long as nothing happens.
    pub fn on_sleep(&mut self, deadline: Option<Time>) {
        self.expected = deadline.map_or(Time(u64::MAX), |deadline| self.expected.max(deadline));
    }

    /// A turn begins. Returns how much too late that is, if it is more than tolerated: take it off every timer.
    pub fn on_turn(&mut self, now: Time) -> Option<Duration> {
        let late = now.saturating_since(self.expected);
        self.expected = now;
        (late > self.tolerated).then_some(late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERATED: Duration = Duration::from_millis(20);

    #[test]
    fn a_gap_between_two_turns_is_a_stall() {
        let mut pauses = Pauses::new(Time::from_ms(0), TOLERATED);
        assert_eq!(pauses.on_turn(Time::from_ms(5)), None);
        assert_eq!(pauses.on_turn(Time::from_ms(105)), Some(Duration::from_millis(100)));
        assert_eq!(pauses.on_turn(Time::from_ms(110)), None);
    }

    #[test]
    fn sleep_is_a_stall_only_beyond_its_deadline() {
        let mut pauses = Pauses::new(Time::from_ms(0), TOLERATED);
        pauses.on_sleep(Some(Time::from_ms(500)));
        assert_eq!(pauses.on_turn(Time::from_ms(501)), None);
        pauses.on_sleep(Some(Time::from_ms(600)));
        assert_eq!(pauses.on_turn(Time::from_ms(800)), Some(Duration::from_millis(200)));
        pauses.on_sleep(None);
        assert_eq!(pauses.on_turn(Time::from_ms(90_000)), None);
    }
}
