//! Two clocks that must never be mixed up.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Monotonic time in nanoseconds since an arbitrary start. Timers and leases use it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    pub const fn from_ms(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    pub const fn as_ms(self) -> u64 {
        self.0 / 1_000_000
    }

    pub fn saturating_since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, span: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;
    fn sub(self, span: Duration) -> Time {
        Time(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// How long something has been waited for while this process ran: between two looks at most [`Wait::LOOK_EVERY`] counts,
/// so a pause of the whole process (SIGSTOP, a suspended VM) is worth one look, however long it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wait {
    looked: Time,
    waited: Duration,
}

impl Wait {
    pub const LOOK_EVERY: Duration = Duration::from_secs(1);

    pub fn since(now: Time) -> Wait {
        Wait { looked: now, waited: Duration::ZERO }
    }

    /// When to look again.
    pub fn deadline(self) -> Time {
        self.looked + Wait::LOOK_EVERY
    }

    /// Whether it has been `limit` or longer. Counts whole looks, so a limit is never reached too early.
    pub fn has_reached(&mut self, limit: Duration, now: Time) -> bool {
        if now >= self.deadline() {
            self.looked = now;
            self.waited += Wait::LOOK_EVERY;
        }
        self.waited >= limit
    }
}

/// Milliseconds since 1970: what is stored in `ctime`, `mtime` and txn headers. Never used for timers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct WallTime(pub i64);

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn a_wait_reaches_its_limit_in_looks() {
        let mut wait = Wait::since(Time::from_ms(0));
        for ms in (0..30_000).step_by(250) {
            assert!(!wait.has_reached(LIMIT, Time::from_ms(ms)), "{ms} ms");
        }
        assert!(wait.has_reached(LIMIT, Time::from_ms(30_000)));
    }

    #[test]
    fn a_pause_of_the_process_is_one_look() {
        let mut wait = Wait::since(Time::from_ms(0));
        assert!(!wait.has_reached(LIMIT, Time::from_ms(1_000_000)));
        assert_eq!(wait.deadline(), Time::from_ms(1_001_000));
    }
}
