//! A server's start, and its work on whole files: its disk becomes a real directory, on which the real code works.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::Disk;
use super::scenario::ServerScenario;
use super::snapshots::serialize;
use crate::server::pipeline::{SnapshotJob, in_flight_bytes_max};
use crate::server::recovery::{self, TreeReplay, TruncateJob};
use crate::storage::epochs;
use crate::storage::files::{DataDirs, find_purgeable, snapshot_file_name};
use crate::storage::recovery::{RecoveredState, RecoveryOptions, recover};
use crate::storage::snapshot_file;
use crate::tree::Tree;
use crate::types::compression::Compression;
use crate::types::zxid::Zxid;
use crate::zab::Epochs;
use crate::zab::history::History;

/// Numbers the directories of this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A directory in memory, gone with this value.
pub struct Scratch {
    root: PathBuf,
    dirs: DataDirs,
}

impl Scratch {
    pub fn new() -> io::Result<Scratch> {
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = parent.join(format!("oxkeeper-sim-{}-{number}", std::process::id()));
        let dirs = DataDirs::new(root.clone(), None);
        fs::create_dir_all(dirs.snapshots())?;
        Ok(Scratch { root, dirs })
    }

    pub fn dirs(&self) -> &DataDirs {
        &self.dirs
    }

    /// Where everything lies.
    pub fn directory(&self) -> PathBuf {
        self.dirs.snapshots()
    }

    fn options(&self, scenario: &ServerScenario) -> RecoveryOptions {
        RecoveryOptions {
            payload_bytes_max: scenario.zab.entry_bytes_max,
            in_flight_bytes_max: in_flight_bytes_max(scenario.zab.entry_bytes_max) as u64,
            ..RecoveryOptions::new(self.dirs.clone())
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is a few files in memory.
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// What the real recovery makes of a disk.
pub struct Recovered {
    pub tree: Tree,
    /// What it says about it.
    pub notes: Vec<String>,
    pub member: Option<RecoveredMember>,
}

/// What a member knows besides.
pub struct RecoveredMember {
    pub history: History,
    pub epochs: Epochs,
    /// Of the newest snapshot.
    pub committed: Zxid,
}

/// Starts on a disk, which is then as recovery leaves it. As `io/recovered.rs`.
pub fn recover_state(scratch: &Scratch, disk: &mut Disk, scenario: &ServerScenario) -> Result<Recovered, String> {
    let directory = scratch.directory();
    disk.write_out(&directory).map_err(io_error)?;
    let tree_settings = scenario.tree.clone();
    let mut replay = match scenario.member {
        Some(_) => TreeReplay::of_member(tree_settings),
        None => TreeReplay::new(tree_settings),
    };
    let options = scratch.options(scenario);
    let recovered = recover(&options, &mut replay).map_err(|error| format!("J-09: recovery refuses: {error}"))?;
    let notes = recovered.notes.iter().map(ToString::to_string).collect();
    let history = replay.take_history();
    let (loaded, mismatches) = replay.finish();
    if mismatches > 0 {
        return Err(format!("J-17: {mismatches} txns did not lead to the digest that their writer had"));
    }
    let (mut tree, repairs) = loaded.finish();
    if !repairs.without_acl.is_empty() || !repairs.orphans.is_empty() {
        return Err(format!("a recovered tree needs repairs: {repairs:?}"));
    }
    tree.publish(tree.head());
    let committed = match &recovered.state {
        RecoveredState::Empty { .. } => {
            write_first_snapshot(scratch, &tree)?;
            Zxid::ZERO
        }
        RecoveredState::Loaded { snapshot, .. } => snapshot.as_ref().map_or(Zxid::ZERO, |file| file.zxid),
    };
    let member = history.map(|history| recover_member(scratch, &tree, history, committed)).transpose()?;
    if let Some(retain) = scenario.retain {
        for path in find_purgeable(&scratch.dirs, retain).map_err(io_error)? {
            fs::remove_file(path).map_err(io_error)?;
        }
    }
    disk.read_back(&directory).map_err(io_error)?;
    Ok(Recovered { tree, notes, member })
}

fn recover_member(
    scratch: &Scratch,
    tree: &Tree,
    history: History,
    committed: Zxid,
) -> Result<RecoveredMember, String> {
    let stored = epochs::load(&scratch.directory(), Some(tree.head()))
        .map_err(|error| format!("J-01: the epochs are refused: {error}"))?;
    let epoch = |epoch: i64| u32::try_from(epoch.max(0)).unwrap_or(u32::MAX);
    let epochs = Epochs { accepted: epoch(stored.accepted), current: epoch(stored.current) };
    Ok(RecoveredMember { history, epochs, committed: committed.min(tree.head()) })
}

fn write_first_snapshot(scratch: &Scratch, tree: &Tree) -> Result<(), String> {
    let mut reader = tree.reader().ok_or("no reader for the first snapshot")?;
    reader.hold();
    let bytes = serialize(SnapshotJob { reader, zxid: tree.head(), digest: Some(tree.digest()) }).map_err(io_error)?;
    let name = snapshot_file_name(tree.head(), Compression::None);
    fs::write(scratch.directory().join(name), bytes).map_err(io_error)
}

/// Cuts the log as a leader orders, and recovers the tree.
pub fn truncate(
    scratch: &Scratch,
    disk: &mut Disk,
    scenario: &ServerScenario,
    job: TruncateJob,
) -> Result<Tree, String> {
    disk.write_out(&scratch.directory()).map_err(io_error)?;
    let tree = recovery::truncate(&scratch.options(scenario), &scenario.tree, job)
        .map_err(|error| format!("the log could not be cut behind {}: {error}", job.to))?;
    disk.read_back(&scratch.directory()).map_err(io_error)?;
    Ok(tree)
}

/// Makes a leader's snapshot the server's own.
pub fn install(scratch: &Scratch, disk: &mut Disk, scenario: &ServerScenario, job: SnapshotJob) -> Result<u64, String> {
    disk.write_out(&scratch.directory()).map_err(io_error)?;
    let zxid = job.zxid;
    let bytes = serialize(job).map_err(io_error)?;
    let fill = |mut sink: crate::storage::compression::Sink| {
        sink.write_all(&bytes)?;
        Ok(sink)
    };
    snapshot_file::install(&scratch.options(scenario), zxid, Compression::None, fill)
        .map_err(|error| format!("the leader's snapshot could not be written: {error}"))?;
    disk.read_back(&scratch.directory()).map_err(io_error)?;
    Ok(bytes.len() as u64)
}

fn io_error(error: io::Error) -> String {
    format!("the directory in memory: {error}")
}
