//! What all cores of the process share: the wish to stop, doorbells, and what an operator may know about it.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::mesh::Doorbell;
use crate::server::pipeline::Now;
use crate::server::status::{Environment, ProcessStatus, Settings, TRACE_MASK_DEFAULT};
use crate::shard::status::Needs;
use crate::storage::files::DataDirs;
use crate::types::time::Time;

pub struct Process {
    pub settings: Settings,
    pub environment: Environment,
    dirs: DataDirs,
    started: Time,
    files_max: u64,
    is_stopping: AtomicBool,
    trace_mask: AtomicI64,
    zab: Doorbell,
    shards: Vec<Doorbell>,
}

impl Process {
    pub fn new(
        settings: Settings,
        dirs: DataDirs,
        started: Time,
        files_max: u64,
        zab: Doorbell,
        shards: Vec<Doorbell>,
    ) -> Process {
        Process {
            settings,
            environment: environment(),
            dirs,
            started,
            files_max,
            is_stopping: AtomicBool::new(false),
            trace_mask: AtomicI64::new(TRACE_MASK_DEFAULT),
            zab,
            shards,
        }
    }

    /// Asks for a clean stop.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.zab.ring();
    }

    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// Something was published: wakes every shard that sleeps.
    pub fn ring_shards(&self) {
        self.shards.iter().for_each(Doorbell::ring);
    }

    pub fn set_trace_mask(&self, mask: i64) {
        self.trace_mask.store(mask, Ordering::Relaxed);
    }

    pub fn status(&self, needs: Needs, now: Now) -> ProcessStatus {
        let sizes = if needs.directories { self.dirs.sizes().ok() } else { None };
        ProcessStatus {
            wall_now: now.wall,
            uptime_ms: now.time.saturating_since(self.started).as_millis() as u64,
            open_file_descriptors: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
            max_file_descriptors: self.files_max,
            data_dir_bytes: sizes.as_ref().map_or(0, |sizes| sizes.snapshot_bytes),
            log_dir_bytes: sizes.as_ref().map_or(0, |sizes| sizes.log_bytes),
            trace_mask: self.trace_mask.load(Ordering::Relaxed),
        }
    }
}

/// What `envi` tells.
fn environment() -> Environment {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let memory = read("/proc/meminfo");
    let memory_mb = |key: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.split_whitespace().next().and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1024
    };
    Environment {
        host_name: read("/proc/sys/kernel/hostname"),
        os_name: read("/proc/sys/kernel/ostype"),
        os_arch: std::env::consts::ARCH.to_owned(),
        os_version: read("/proc/sys/kernel/osrelease"),
        user_name: variable("USER"),
        user_home: variable("HOME"),
        user_dir: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")).display().to_string(),
        temp_dir: std::env::temp_dir().display().to_string(),
        memory_free_mb: memory_mb("MemAvailable:"),
        memory_max_mb: memory_mb("MemTotal:"),
        memory_total_mb: memory_mb("MemTotal:"),
    }
}
