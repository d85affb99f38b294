//! What goes wrong, and when.

use std::fmt;
use std::time::Duration;

use super::dice::{Dice, Salt};
use super::scenario::Scenario;
use super::scheduler::{ClientIndex, ServerIndex};
use crate::types::time::Time;

/// A disk operation at which a server is caught.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caught {
    Writing,
    Naming,
    Preparing,
    Snapshotting,
}

/// One thing that goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// `kill -9`; it starts again later.
    Kill {
        server: ServerIndex,
    },
    /// The power goes: nobody is told.
    PowerCut {
        server: ServerIndex,
    },
    /// Killed while its disk is at this.
    KillAt {
        server: ServerIndex,
        caught: Caught,
    },
    /// SIGTERM.
    Stop {
        server: ServerIndex,
    },
    /// SIGSTOP.
    Pause {
        server: ServerIndex,
    },
    SlowDisk {
        server: ServerIndex,
        times: u32,
    },
    FullDisk {
        server: ServerIndex,
    },
    /// The next durable write fails.
    FailedWrite {
        server: ServerIndex,
    },
    /// A client and a server do not hear each other, or one the other.
    Cut {
        client: ClientIndex,
        server: ServerIndex,
        there: bool,
        back: bool,
    },
    Lag {
        client: ClientIndex,
        server: ServerIndex,
        lag: Duration,
    },
    /// Two servers do not hear each other, or one the other.
    Part {
        one: ServerIndex,
        other: ServerIndex,
        there: bool,
        back: bool,
    },
    /// A server hears no other, or is heard by none.
    Isolate {
        server: ServerIndex,
        hears: bool,
        is_heard: bool,
    },
    /// A link between two servers is slow.
    SlowLink {
        one: ServerIndex,
        other: ServerIndex,
        lag: Duration,
    },
    /// Somebody sets the wall clock.
    ClockJump {
        server: ServerIndex,
        by_ms: i64,
    },
}

/// A fault, from when on and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Planned {
    pub at: Time,
    pub lasts: Duration,
    pub fault: Fault,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} for {:?}", self.fault, self.lasts)
    }
}

/// Draws the whole plan, in order of time.
pub fn plan(scenario: &Scenario) -> Vec<Planned> {
    let mut dice = Dice::new(scenario.seed, Salt::Faults, 0);
    let end = scenario.faults_for.as_micros() as u64;
    let mut plan: Vec<Planned> = (0..scenario.faults)
        .map(|_| {
            let at = Time(0) + dice.micros(500_000..=end);
            let (fault, lasts) = draw(scenario, &mut dice);
            Planned { at, lasts, fault }
        })
        .collect();
    plan.sort_by_key(|planned| planned.at);
    plan
}

fn draw(scenario: &Scenario, dice: &mut Dice) -> (Fault, Duration) {
    let server = ServerIndex(dice.index(scenario.servers.len()));
    let client = ClientIndex(dice.index(scenario.clients.len()));
    let away = dice.spread(20_000..=3_000_000);
    let servers = scenario.servers.len();
    if servers > 1 && dice.percent(35) {
        return draw_between(servers, server, dice);
    }
    match dice.weighted(&[(14, 0), (8, 1), (18, 2), (5, 3), (12, 4), (8, 5), (6, 6), (5, 7), (14, 8), (6, 9), (4, 10)])
    {
        0 => (Fault::Kill { server }, away),
        1 => (Fault::PowerCut { server }, away),
        2 => {
            let all = [Caught::Writing, Caught::Writing, Caught::Naming, Caught::Preparing, Caught::Snapshotting];
            (Fault::KillAt { server, caught: *dice.pick(&all) }, away)
        }
        3 => (Fault::Stop { server }, away),
        4 => (Fault::Pause { server }, dice.spread(50_000..=6_000_000)),
        5 => (Fault::SlowDisk { server, times: *dice.pick(&[5, 20, 100]) }, dice.millis(200..=4000)),
        6 => (Fault::FullDisk { server }, dice.millis(200..=4000)),
        7 => (Fault::FailedWrite { server }, away),
        8 => {
            let (there, back) = *dice.pick(&[(true, true), (true, false), (false, true)]);
            (Fault::Cut { client, server, there, back }, dice.millis(100..=8000))
        }
        9 => (Fault::Lag { client, server, lag: dice.millis(5..=300) }, dice.millis(200..=5000)),
        _ => (Fault::ClockJump { server, by_ms: dice.within(0..=7_200_000) as i64 - 3_600_000 }, Duration::ZERO),
    }
}

/// Between servers.
fn draw_between(servers: usize, one: ServerIndex, dice: &mut Dice) -> (Fault, Duration) {
    let other = ServerIndex((one.0 + 1 + dice.index(servers - 1)) % servers);
    let ways = [(true, true), (true, true), (true, false), (false, true)];
    let (there, back) = *dice.pick(&ways);
    let lasts = dice.spread(30_000..=6_000_000);
    match dice.weighted(&[(5, 0), (4, 1), (2, 2)]) {
        0 => (Fault::Part { one, other, there, back }, lasts),
        1 => (Fault::Isolate { server: one, hears: !there, is_heard: !back }, lasts),
        _ => (Fault::SlowLink { one, other, lag: dice.millis(1..=120) }, lasts),
    }
}
