//! One server through all its runs: its disk stays, its process comes and goes.

use std::time::Duration;

use super::dice::{Dice, Salt};
use super::disk::Disk;
use super::faults::Caught;
use super::logged::Logged;
use super::process::{Clock, Process};
use super::scenario::ServerScenario;
use crate::types::zxid::Zxid;

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
    /// Everything up to here was durable when it was killed last.
    pub durable: Zxid,
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
            durable: Zxid::ZERO,
            must_end: false,
        }
    }

    /// Whether a crash at this moment leaves this txn: in the log, or as part of a snapshot.
    pub fn has_durable(&self, zxid: Zxid) -> bool {
        self.logged.is_durable(&self.disk, zxid) || self.disk.newest_snapshot() >= Some(zxid)
    }

    /// What must be there when it starts again: all that follows without a gap on its newest snapshot.
    pub fn note_durable(&mut self) {
        let snapshot = self.disk.newest_snapshot().unwrap_or_default();
        self.durable = self.logged.durable_end(&self.disk, snapshot);
    }

    /// The clocks of its next run.
    pub fn next_clock(&mut self) -> Clock {
        Clock { since_boot: self.dice.millis(1..=100_000), wall_offset_ms: self.wall_offset_ms }
    }
}
