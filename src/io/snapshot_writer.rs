//! The helper thread that writes snapshots and removes what is no longer needed.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::mesh::Outbox;
use crate::server::pipeline::SnapshotJob;
use crate::storage::compression::Sink;
use crate::storage::files::{self, DataDirs};
use crate::storage::recovery::{RecoveryError, RecoveryOptions};
use crate::storage::snapshot::{AclIds, SnapshotDigest, SnapshotEnd, SnapshotWriter};
use crate::storage::snapshot_file;
use crate::tree::store::Reader;
use crate::types::compression::Compression;
use crate::types::ids::SessionId;
use crate::types::path;
use crate::wire::txn::TxnDigest;

/// Znodes after which the writer tells that it holds no reference, so that others' garbage can go.
const REFRESH_EVERY: usize = 4096;

/// How snapshots are written and kept.
#[derive(Clone, Debug)]
pub struct SnapshotWriterSettings {
    pub dirs: DataDirs,
    pub compression: Compression,
    /// `serializeLastProcessedZxid.enabled`.
    pub with_last_processed: bool,
    /// `autopurge.snapRetainCount`, and how often (`autopurge.purgeInterval`); `None` keeps everything.
    pub purge: Option<(usize, Duration)>,
}

/// A snapshot was written, or could not be.
#[derive(Debug)]
pub struct SnapshotDone {
    pub result: io::Result<u64>,
    pub took: Duration,
}

/// The handle. Dropping it lets the snapshot at hand be finished.
pub struct SnapshotHelper {
    jobs: Option<Sender<SnapshotJob>>,
    thread: Option<JoinHandle<()>>,
}

impl SnapshotHelper {
    pub fn start(settings: SnapshotWriterSettings, done: Outbox<SnapshotDone>) -> io::Result<SnapshotHelper> {
        let (jobs, receiver) = channel();
        let thread =
            thread::Builder::new().name("snapshot".to_owned()).spawn(move || run(&settings, &receiver, done))?;
        Ok(SnapshotHelper { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Lets go of the helper without waiting for the snapshot at hand.
    pub fn abandon(&mut self) {
        self.thread = None;
    }

    /// One job at a time: the schedule waits for the last one.
    pub fn write(&self, job: SnapshotJob) {
        if let Some(jobs) = &self.jobs {
            // The helper ends only when this handle goes.
            let _ = jobs.send(job);
        }
    }
}

impl Drop for SnapshotHelper {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(settings: &SnapshotWriterSettings, jobs: &Receiver<SnapshotJob>, mut done: Outbox<SnapshotDone>) {
    // Java purges at start as well.
    let mut purge_at = settings.purge.map(|_| Instant::now());
    loop {
        let job = match purge_at {
            None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => jobs.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match job {
            Ok(job) => {
                let start = Instant::now();
                let result = write(settings, job);
                // The zab core has one snapshot under way at most, so there is room.
                let _ = done.push(SnapshotDone { result, took: start.elapsed() });
                done.notify();
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some((retain, interval)) = settings.purge {
                    purge(&settings.dirs, retain);
                    purge_at = Some(Instant::now() + interval);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Writes one version down. Returns the size of the file in bytes.
pub fn write(settings: &SnapshotWriterSettings, job: SnapshotJob) -> io::Result<u64> {
    let (dir, zxid) = (settings.dirs.snapshots(), job.zxid);
    let path = snapshot_file::write(&dir, zxid, settings.compression, |sink| fill(settings, job, sink))?;
    Ok(path.metadata()?.len())
}

/// The same for a leader's snapshot, which stands for everything that the directories hold.
pub fn install(
    settings: &SnapshotWriterSettings,
    recovery: &RecoveryOptions,
    job: SnapshotJob,
) -> Result<u64, RecoveryError> {
    let zxid = job.zxid;
    let path = snapshot_file::install(recovery, zxid, settings.compression, |sink| fill(settings, job, sink))?;
    match path.metadata() {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) => Err(RecoveryError::Io { path, error }),
    }
}

fn fill(settings: &SnapshotWriterSettings, mut job: SnapshotJob, sink: Sink) -> io::Result<Sink> {
    let reader = &mut job.reader;
    let acls = acls_in_use(reader);
    let sessions: Vec<_> = reader.sessions().map(|(id, timeout_ms)| (SessionId(id), timeout_ms)).collect();
    let digest = job.digest.map(|digest| SnapshotDigest { zxid: job.zxid, digest: TxnDigest::new(digest) });
    let end = SnapshotEnd { digest, last_processed: settings.with_last_processed.then_some(job.zxid) };
    let mut writer = SnapshotWriter::begin(sink, sessions.into_iter(), &acls)?;
    let mut walk = reader.walk();
    let mut count = 0;
    while let Some(node) = reader.walk_on(&mut walk) {
        let path = if node.path() == path::ROOT { "" } else { node.path() };
        writer.node(path, node.data(), node.acl(), &node.stat())?;
        count += 1;
        if count % REFRESH_EVERY == 0 {
            reader.refresh();
        }
    }
    writer.finish(&end)
}

/// Java wants every list before the znodes that use it.
fn acls_in_use(reader: &mut Reader) -> AclIds {
    let mut acls = AclIds::default();
    let mut walk = reader.walk();
    let mut count = 0;
    while let Some(node) = reader.walk_on(&mut walk) {
        acls.add(node.acl());
        count += 1;
        if count % REFRESH_EVERY == 0 {
            reader.refresh();
        }
    }
    acls
}

/// Removes snapshots and logs that no retained snapshot needs.
fn purge(dirs: &DataDirs, retain: usize) {
    match files::find_purgeable(dirs, retain) {
        Err(error) => tracing::warn!(%error, "purge could not list the data directories"),
        Ok(paths) => {
            for path in paths {
                match std::fs::remove_file(&path) {
                    Ok(()) => tracing::info!(path = %path.display(), "removed by autopurge"),
                    Err(error) => tracing::warn!(path = %path.display(), %error, "autopurge could not remove a file"),
                }
            }
        }
    }
}
