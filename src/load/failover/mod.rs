//! Writers that stay with their servers, whatever happens to these, and what their acknowledgements tell.
//! Never: sockets or a clock; `worker/stay.rs` carries, `read_back.rs` asks at the end.
//! Owner: the worker of the run, then the starting thread.
//! Start at `Failover`, then `writer.rs` for what is proved about each write.

pub mod read_back;
mod silence;
mod writer;

use std::time::{Duration, SystemTime};

use super::schedule::Schedule;
use super::worker::Stretch;
use crate::types::time::Time;
pub use silence::{Gap, Silence};
pub use writer::{Found, GAP_TOLD, Writer, value};

/// Sets per second of each writer, unless told.
pub const RATE_DEFAULT: f64 = 250.0;
/// Time between two attempts to connect: short against any failover, so that it is the server that is measured.
pub const RETRY: Duration = Duration::from_millis(10);

/// All writers of a run, one to a server.
#[derive(Clone, Debug)]
pub struct Failover {
    /// Measured from here …
    pub from: Time,
    /// … until here: what is answered later ends the gap here.
    pub until: Option<Time>,
    /// `from` by the clock on the wall.
    pub from_wall: SystemTime,
    pub writers: Vec<Writer>,
    /// Of all writers together.
    pub silence: Silence,
    /// Why what was written could not be read back, if so.
    pub unread: Option<String>,
}

impl Failover {
    /// `rate`: of each writer, per second. Writers set in turn, so that all of them together are even.
    pub fn new(writers: usize, rate: f64, stretch: &Stretch, from_wall: SystemTime) -> Failover {
        let Stretch { start, measure_from: from, until, .. } = *stretch;
        let schedule = |number| Schedule::new(start, rate, number, writers);
        Failover {
            from,
            until,
            from_wall,
            writers: (0..writers).map(|number| Writer::new(number as u32, schedule(number), from)).collect(),
            silence: Silence::new(from),
            unread: None,
        }
    }

    /// The answer to the oldest set of a writer. `version`: that of the znode behind it, if the answer was good.
    pub fn on_answer(&mut self, writer: usize, now: Time, answer: Result<i32, i32>) {
        let now = self.until.map_or(now, |until| now.min(until));
        if answer.is_ok() {
            self.silence.end_at(now);
            for (number, other) in self.writers.iter_mut().enumerate() {
                if number != writer {
                    other.silence_without.end_at(now);
                }
            }
        }
        if let Some(writer) = self.writers.get_mut(writer) {
            writer.on_answer(now, answer);
        }
    }

    /// Nothing is measured any more.
    pub fn end(&mut self, now: Time) {
        self.silence.end_at(now);
        self.silence.close();
        for writer in &mut self.writers {
            writer.end(now);
        }
    }

    pub fn lost(&self) -> u64 {
        self.writers.iter().map(|writer| writer.counts.lost).sum()
    }

    pub fn doubled(&self) -> u64 {
        self.writers.iter().map(|writer| writer.counts.doubled).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::worker::Work;

    fn at(ms: u64) -> Time {
        Time::from_ms(ms)
    }

    #[test]
    fn the_pause_is_of_all_writers_and_of_all_but_one() {
        let work = Work::Failover { rate: 250.0 };
        let stretch = Stretch { work, start: at(0), measure_from: at(100), until: Some(at(500)), schedule: None };
        let mut failover = Failover::new(3, 250.0, &stretch, SystemTime::UNIX_EPOCH);
        let mut versions = [0; 3];
        let mut answer = |failover: &mut Failover, writer: usize, ms| {
            failover.writers[writer].ask(at(ms)).unwrap();
            versions[writer] += 1;
            failover.on_answer(writer, at(ms), Ok(versions[writer]));
        };
        for ms in (4..=200).step_by(4) {
            (0..3).for_each(|writer| answer(&mut failover, writer, ms));
        }
        // The first goes on for a while where the others are silent.
        for ms in (204..=300).step_by(4) {
            answer(&mut failover, 0, ms);
        }
        answer(&mut failover, 1, 450);
        // Too late: for the gap, not for what is acknowledged.
        answer(&mut failover, 2, 700);
        failover.end(at(500));
        let longest = |silence: &Silence| (silence.longest().from, silence.longest().until);
        assert_eq!(longest(&failover.silence), (at(300), at(450)));
        assert_eq!(longest(&failover.writers[0].silence_without), (at(200), at(450)));
        assert_eq!(longest(&failover.writers[1].silence_without), (at(300), at(500)));
        assert_eq!(longest(&failover.writers[2].silence), (at(200), at(500)));
        assert_eq!((failover.lost(), failover.doubled()), (0, 0));
    }
}
