//! Carries the log machine's wishes to the ring and to the disk helper, and their results back.

use std::path::PathBuf;
use std::time::Duration;

use ahash::AHashMap;

use super::clock;
use super::disk::{Disk, DiskEvent, DiskRequest, Errand, Pace};
use super::ring::{ForceSync, LOG_BLOCK_BYTES, LogBuffer, LogFile, Ring, WriteToken};
use crate::storage::files::{self, TMP_PREFIX};
use crate::storage::log::{self, FileId, WriteId};
use crate::storage::log_file::FILE_HEADER;
use crate::types::summary::{LatencySummary, Summary};
use crate::types::time::Time;

/// A stretch that was used up in less than this was written at 40 MB/s or more: the gentle pace is not far above.
const URGENT_WITHIN: Duration = Duration::from_millis(100);

/// A log file on its way through its life.
struct OpenLog {
    path: PathBuf,
    /// Until the helper has made it there is nothing to write to.
    file: Option<LogFile>,
}

/// A durable write under way.
struct LogWrite {
    id: WriteId,
    file: FileId,
    offset: u64,
    bytes: usize,
    since: Time,
}

/// What the log's writes took, for metrics.
#[derive(Clone, Debug, Default)]
pub struct LogTimes {
    pub fsync: LatencySummary,
    pub bytes_per_write: Summary,
    pub threshold_exceeded: u64,
}

pub struct LogDriver {
    directory: PathBuf,
    sync: ForceSync,
    warn_after: Duration,
    disk: Disk,
    files: AHashMap<FileId, OpenLog>,
    writes: AHashMap<WriteToken, LogWrite>,
    /// When the last stretch was asked for.
    extended_at: Time,
    /// Files by the path that the helper knows them by.
    by_path: AHashMap<PathBuf, FileId>,
    pub times: LogTimes,
}

impl LogDriver {
    /// `directory`: `version-2` of the logs. `warn_after`: `fsync.warningthresholdms`.
    pub fn new(directory: PathBuf, sync: ForceSync, warn_after: Duration, disk: Disk) -> LogDriver {
        LogDriver {
            directory,
            sync,
            warn_after,
            disk,
            files: AHashMap::new(),
            writes: AHashMap::new(),
            extended_at: Time(0),
            by_path: AHashMap::new(),
            times: LogTimes::default(),
        }
    }

    /// Nobody waits for the helper any more.
    pub fn abandon_helper(&mut self) {
        self.disk.abandon();
    }

    /// Starts what the machine asks for.
    ///
    /// Errors: the helper does not keep up with a handful of requests, or the machine names a file that is not open.
    pub fn carry_out(&mut self, ring: &mut Ring, output: log::Output<LogBuffer>) -> Result<(), String> {
        match output {
            log::Output::Prepare { file, upto } => self.prepare(file, upto),
            log::Output::Name { file, first } => {
                let to = self.directory.join(files::log_file_name(first));
                let log = self.files.get_mut(&file).ok_or("a file without a path is named")?;
                let from = std::mem::replace(&mut log.path, to.clone());
                self.by_path.remove(&from);
                self.by_path.insert(to.clone(), file);
                self.ask(DiskRequest::Rename { from, to })
            }
            log::Output::Extend { file, from, upto } => {
                let path = self.path(file)?;
                let pace = self.pace();
                self.ask(DiskRequest::ZeroAhead { path, from, upto, pace })
            }
            log::Output::Write { write, file, offset, len, buffer } => {
                let log = self.files.get(&file).and_then(|log| log.file).ok_or("a file that is not open is written")?;
                let token = ring.write_log(log, offset, buffer, len);
                let write = LogWrite { id: write, file, offset, bytes: len, since: clock::now() };
                self.writes.insert(token, write);
                Ok(())
            }
            log::Output::Finish { file, used } => {
                let path = self.close(ring, file)?;
                self.ask(DiskRequest::Truncate { path, length: used })
            }
            log::Output::Discard { file } => {
                let path = self.close(ring, file)?;
                self.ask(DiskRequest::Remove { path })
            }
            log::Output::Flushed { .. } | log::Output::Full(_) | log::Output::Stopped | log::Output::Fatal { .. } => {
                Ok(())
            }
        }
    }

    fn prepare(&mut self, file: FileId, upto: u64) -> Result<(), String> {
        let path = self.directory.join(format!("{TMP_PREFIX}log-{}-{}", std::process::id(), file.0));
        self.files.insert(file, OpenLog { path: path.clone(), file: None });
        self.by_path.insert(path.clone(), file);
        let mut first_block = Box::new([0; LOG_BLOCK_BYTES]);
        first_block[..FILE_HEADER.len()].copy_from_slice(&FILE_HEADER);
        self.ask(DiskRequest::MakeLog { path, first_block, length: upto, zeroed: upto })
    }

    /// Gently, unless the log is already on its way to the end of the last stretch: it waits for a stretch that is being
    /// zeroed, and then the gentle pace would be the pace of every write.
    fn pace(&mut self) -> Pace {
        let now = clock::now();
        let since = now.saturating_since(std::mem::replace(&mut self.extended_at, now));
        if since < URGENT_WITHIN { Pace::Urgent } else { Pace::Background }
    }

    fn path(&self, file: FileId) -> Result<PathBuf, String> {
        self.files.get(&file).map(|log| log.path.clone()).ok_or_else(|| "a file without a path is extended".to_owned())
    }

    fn close(&mut self, ring: &mut Ring, file: FileId) -> Result<PathBuf, String> {
        let log = self.files.remove(&file).ok_or("a file that is not open is closed")?;
        if let Some(open) = log.file {
            drop(ring.remove_log(open));
        }
        self.by_path.remove(&log.path);
        Ok(log.path)
    }

    /// Has something done behind everything that was asked about files so far.
    pub fn run_errand(&mut self, errand: Errand) -> Result<(), String> {
        self.ask(DiskRequest::Errand(errand))
    }

    fn ask(&mut self, request: DiskRequest) -> Result<(), String> {
        self.disk.ask(request).map_err(|_| "the disk helper is stuck".to_owned())
    }

    /// What the helper did, as the machine wants to hear it.
    pub fn on_disk(&mut self, ring: &mut Ring, event: DiskEvent) -> Option<log::Input<LogBuffer>> {
        match event {
            DiskEvent::LogMade { path, file, zeroed } => {
                let id = *self.by_path.get(&path)?;
                let log = self.files.get_mut(&id)?;
                log.file = Some(ring.add_log(file, self.sync));
                Some(log::Input::Prepared { file: id, zeroed_upto: zeroed })
            }
            DiskEvent::ZeroedAhead { path, upto } => {
                Some(log::Input::Extended { file: *self.by_path.get(&path)?, upto })
            }
            DiskEvent::Renamed { to } => Some(log::Input::Named { file: *self.by_path.get(&to)? }),
            DiskEvent::Truncated { .. } | DiskEvent::Removed { .. } => None,
            DiskEvent::Failed { path, doing, error } => {
                let Some(file) = self.by_path.get(&path).copied() else {
                    tracing::warn!(path = %path.display(), doing, %error, "file left as it is");
                    return None;
                };
                if error.kind() == std::io::ErrorKind::StorageFull {
                    return Some(log::Input::NoSpace { file });
                }
                Some(log::Input::Failed { what: format!("{doing} {}: {error}", path.display()) })
            }
        }
    }

    /// A write ended.
    pub fn on_written(
        &mut self,
        token: WriteToken,
        buffer: LogBuffer,
        result: std::io::Result<()>,
    ) -> Option<log::Input<LogBuffer>> {
        let LogWrite { id: write, file, offset, bytes, since } = self.writes.remove(&token)?;
        let took = clock::now().saturating_since(since);
        self.times.fsync.record(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        if took > self.warn_after {
            self.times.threshold_exceeded += 1;
            tracing::warn!(
                took_ms = took.as_millis() as u64,
                bytes,
                "fsync-ing the write ahead log took longer than fsync.warningthresholdms; \
                 every write of this server waits for it: look at the disk and at what else uses it"
            );
        }
        Some(match result {
            Ok(()) => log::Input::Written { write, buffer },
            Err(error) => {
                let path = self.files.get(&file).map(|log| log.path.display().to_string()).unwrap_or_default();
                log::Input::Failed {
                    what: format!(
                        "durable write of {bytes} bytes to the log {path} at offset {offset} failed: {error}. \
                         Nothing of it was acknowledged, and it is not tried again: look at the disk, then start anew"
                    ),
                }
            }
        })
    }
}
