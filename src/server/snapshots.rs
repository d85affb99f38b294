//! When a snapshot is due (`SyncRequestProcessor.shouldSnapshot`).

use std::time::Duration;

/// `snapCount` and its companions.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotSettings {
    /// `snapCount`, txns.
    pub txns: u64,
    /// `snapSizeLimitInKb`, in bytes; `None` is off.
    pub log_bytes: Option<u64>,
}

/// Counts what the log has taken since the last snapshot. Each draw is random, so that the servers of an ensemble do
/// not all write at once. One snapshot at a time, and none before the log has outgrown the last one: at the speed of a
/// group-committed log, a count of txns alone would ask for several a second.
#[derive(Debug)]
pub struct SnapshotSchedule {
    settings: SnapshotSettings,
    seed: u64,
    txns: u64,
    log_bytes: u64,
    txns_due: u64,
    log_bytes_due: u64,
    /// Size of the last snapshot.
    last_bytes: u64,
    is_running: bool,
}

impl SnapshotSchedule {
    pub fn new(settings: SnapshotSettings, seed: u64) -> SnapshotSchedule {
        let mut schedule = SnapshotSchedule {
            settings,
            seed,
            txns: 0,
            log_bytes: 0,
            txns_due: 0,
            log_bytes_due: 0,
            last_bytes: 0,
            is_running: false,
        };
        schedule.draw();
        schedule
    }

    pub fn on_logged(&mut self, bytes: usize) {
        self.txns += 1;
        self.log_bytes += bytes as u64;
    }

    pub fn is_due(&self) -> bool {
        let is_reached = self.txns > self.txns_due || self.log_bytes > self.log_bytes_due;
        is_reached && !self.is_running && self.log_bytes >= self.last_bytes
    }

    pub fn on_started(&mut self) {
        self.is_running = true;
        (self.txns, self.log_bytes) = (0, 0);
        self.draw();
    }

    pub fn on_done(&mut self, bytes: u64) {
        self.is_running = false;
        self.last_bytes = bytes;
    }

    /// A leader's snapshot has become a file here: the log starts anew behind it.
    pub fn on_installed(&mut self, bytes: u64) {
        (self.txns, self.log_bytes, self.last_bytes) = (0, 0, bytes);
        self.draw();
    }

    pub fn is_running(&self) -> bool {
        self.is_running
    }

    /// Thresholds between half of the setting and all of it.
    fn draw(&mut self) {
        let txns = self.settings.txns.max(2);
        self.txns_due = txns / 2 + random(&mut self.seed) % (txns / 2);
        self.log_bytes_due = match self.settings.log_bytes {
            None | Some(0..=1) => u64::MAX,
            Some(bytes) => bytes / 2 + random(&mut self.seed) % (bytes / 2),
        };
    }
}

/// SplitMix64.
pub(super) fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// From 0 up to but not including 1.
pub(super) fn random_fraction(seed: &mut u64) -> f64 {
    const BITS: u32 = f64::MANTISSA_DIGITS;
    (random(seed) >> (u64::BITS - BITS)) as f64 / (1_u64 << BITS) as f64
}

/// How often leftovers of deleted containers and expired TTL nodes are looked for (`znode.container.*`).
#[derive(Clone, Copy, Debug)]
pub struct ContainerSettings {
    pub check_interval: Duration,
    pub per_minute_max: u32,
    /// Containers that never had a child go after so long without a change; `None` keeps them.
    pub never_used_max: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_between_half_of_snap_count_and_all_of_it() {
        for seed in 0..50 {
            let mut schedule = SnapshotSchedule::new(SnapshotSettings { txns: 100, log_bytes: None }, seed);
            let due = (1..).find(|_| {
                schedule.on_logged(100);
                schedule.is_due()
            });
            assert!((51..=100).contains(&due.unwrap()), "{due:?}");
        }
    }

    #[test]
    fn a_snapshot_waits_until_the_log_has_outgrown_the_last_one() {
        let mut schedule = SnapshotSchedule::new(SnapshotSettings { txns: 2, log_bytes: None }, 1);
        (0..2).for_each(|_| schedule.on_logged(10));
        assert!(schedule.is_due());
        schedule.on_started();
        (0..50).for_each(|_| schedule.on_logged(10));
        assert!(!schedule.is_due(), "one at a time");
        schedule.on_done(1000);
        assert!(!schedule.is_due());
        (0..50).for_each(|_| schedule.on_logged(10));
        assert!(schedule.is_due());
    }
}
