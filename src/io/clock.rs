//! Reading the clocks.

use super::kernel::calls::clock_ns;
use crate::types::time::{Time, WallTime};

/// `CLOCK_MONOTONIC`: the same on every core of this machine, and it stands still while the machine sleeps.
pub fn now() -> Time {
    Time(clock_ns(libc::CLOCK_MONOTONIC) as u64)
}

pub fn wall_now() -> WallTime {
    WallTime(clock_ns(libc::CLOCK_REALTIME).div_euclid(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_go_forward_and_wall_time_is_in_milliseconds() {
        let (before, after) = (now(), now());
        assert!(before <= after);
        let system = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        assert!((wall_now().0 - system.as_millis() as i64).abs() < 1000);
    }
}
