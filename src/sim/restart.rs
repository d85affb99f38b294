//! A server's start: its disk becomes a real directory, which the real recovery reads.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::Disk;
use super::scenario::ServerScenario;
use super::snapshots::serialize;
use crate::server::pipeline::{SnapshotJob, in_flight_bytes_max};
use crate::server::recovery::TreeReplay;
use crate::storage::compression::Compression;
use crate::storage::files::{DataDirs, find_purgeable, snapshot_file_name};
use crate::storage::recovery::{RecoveredState, RecoveryOptions, recover};
use crate::tree::Tree;

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
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is a few files in memory.
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// The tree that the real recovery makes of a disk, and what it says about it. The disk is as recovery leaves it.
pub fn recover_tree(
    scratch: &Scratch,
    disk: &mut Disk,
    scenario: &ServerScenario,
) -> Result<(Tree, Vec<String>), String> {
    let io = |error: io::Error| format!("the directory of a restart: {error}");
    let directory = scratch.dirs.snapshots();
    disk.write_out(&directory).map_err(io)?;
    let options = RecoveryOptions {
        payload_bytes_max: scenario.zab.entry_bytes_max,
        in_flight_bytes_max: in_flight_bytes_max(scenario.zab.entry_bytes_max) as u64,
        ..RecoveryOptions::new(scratch.dirs.clone())
    };
    let mut replay = TreeReplay::new(scenario.tree.clone());
    let recovered = recover(&options, &mut replay).map_err(|error| format!("J-09: recovery refuses: {error}"))?;
    let notes = recovered.notes.iter().map(ToString::to_string).collect();
    let (loaded, mismatches) = replay.finish();
    if mismatches > 0 {
        return Err(format!("J-17: {mismatches} txns did not lead to the digest that their writer had"));
    }
    let (mut tree, repairs) = loaded.finish();
    if !repairs.without_acl.is_empty() || !repairs.orphans.is_empty() {
        return Err(format!("a recovered tree needs repairs: {repairs:?}"));
    }
    tree.publish(tree.head());
    if let RecoveredState::Empty { .. } = recovered.state {
        let job = SnapshotJob {
            reader: tree.reader().ok_or("no reader for the first snapshot")?,
            zxid: tree.head(),
            digest: Some(tree.digest()),
        };
        let bytes = serialize(job).map_err(io)?;
        fs::write(directory.join(snapshot_file_name(tree.head(), Compression::None)), bytes).map_err(io)?;
    }
    if let Some(retain) = scenario.retain {
        for path in find_purgeable(&scratch.dirs, retain).map_err(io)? {
            fs::remove_file(path).map_err(io)?;
        }
    }
    disk.read_back(&directory).map_err(io)?;
    Ok((tree, notes))
}
