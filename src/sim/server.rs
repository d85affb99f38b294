//! One server through all its runs: its disk stays, its process comes and goes.

use std::time::Duration;

use super::dice::{Dice, Salt};
use super::disk::Disk;
use super::faults::Caught;
use super::logged::Logged;
use super::process::{Clock, Process};
use super::scenario::ServerScenario;

pub struct Server {
    pub scenario: ServerScenario,
    pub disk: Disk,
    pub logged: Logged,
    pub dice: Dice,
    /// `None`: it is down.
    pub process: Option<Box<Process>>,
    /// Runs so far.
    pub boots: u32,
    pub wall_offset_ms: i64,
    /// Killed when its disk is at this; it stays away for so long then.
    pub caught: Option<(Caught, Duration)>,
    /// A write has been made to fail: the process must end.
    pub must_end: bool,
}

impl Server {
    pub fn new(seed: u64, index: usize, scenario: ServerScenario) -> Server {
        Server {
            scenario,
            disk: Disk::new(Dice::new(seed, Salt::Disk, index as u64)),
            logged: Logged::default(),
            dice: Dice::new(seed, Salt::Server, index as u64),
            process: None,
            boots: 0,
            wall_offset_ms: 0,
            caught: None,
            must_end: false,
        }
    }

    /// The clocks of its next run.
    pub fn next_clock(&mut self) -> Clock {
        Clock { since_boot: self.dice.millis(1..=100_000), wall_offset_ms: self.wall_offset_ms }
    }
}
