//! When: the intended times of a fixed rate, independent of how fast answers come.

use crate::types::time::Time;

/// Evenly spaced intended times. Whoever is late still finds each of them, so waiting in the generator counts as
/// latency and a stalled server is not spared the requests that it held up.
#[derive(Clone, Debug)]
pub struct Schedule {
    start: Time,
    /// Nanoseconds between two intended times.
    period_ns: f64,
    taken: u64,
}

impl Schedule {
    /// `rate` in operations per second, above 0. One of `of` schedules that share `total rate = rate × of`: the
    /// first times are shifted so that all of them together are even.
    pub fn new(start: Time, rate: f64, index: usize, of: usize) -> Schedule {
        let period_ns = 1e9 / rate;
        let shift = (period_ns * index as f64 / of.max(1) as f64) as u64;
        Schedule { start: Time(start.0.saturating_add(shift)), period_ns, taken: 0 }
    }

    /// The intended time of the next operation.
    pub fn next_at(&self) -> Time {
        Time(self.start.0.saturating_add((self.taken as f64 * self.period_ns) as u64))
    }

    /// Takes the next operation if it is due.
    pub fn pop(&mut self, now: Time) -> Option<Time> {
        let at = self.next_at();
        (at <= now).then(|| {
            self.taken += 1;
            at
        })
    }

    /// How many operations were due before `end` and have not been taken.
    pub fn overdue(&self, end: Time) -> u64 {
        let due = (end.0.saturating_sub(self.start.0) as f64 / self.period_ns).ceil() as u64;
        due.saturating_sub(self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_due_at_their_time_and_not_before() {
        let mut schedule = Schedule::new(Time::from_ms(100), 1000.0, 0, 1);
        assert_eq!(schedule.pop(Time::from_ms(99)), None);
        assert_eq!(schedule.pop(Time::from_ms(100)), Some(Time::from_ms(100)));
        assert_eq!(schedule.pop(Time::from_ms(100)), None);
        assert_eq!(schedule.next_at(), Time::from_ms(101));
    }

    #[test]
    fn after_a_stall_every_missed_time_is_still_there() {
        let mut schedule = Schedule::new(Time(0), 1000.0, 0, 1);
        let taken: Vec<u64> = std::iter::from_fn(|| schedule.pop(Time::from_ms(5))).map(Time::as_ms).collect();
        assert_eq!(taken, [0, 1, 2, 3, 4, 5]);
        assert_eq!(schedule.overdue(Time::from_ms(10)), 4);
    }

    #[test]
    fn workers_take_turns() {
        let first = |index| Schedule::new(Time::from_ms(0), 1000.0, index, 2).next_at();
        assert_eq!(first(0), Time(0));
        assert_eq!(first(1), Time(500_000));
    }

    #[test]
    fn the_rate_holds_over_a_day() {
        let mut schedule = Schedule::new(Time(0), 333_333.0, 0, 1);
        schedule.taken = 333_333 * 86_400;
        assert_eq!(schedule.next_at().as_ms(), 86_400_000);
    }
}
