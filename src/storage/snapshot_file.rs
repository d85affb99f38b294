//! Snapshots as files: packed or not, and never under their name before they are whole and durable.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::compression::{Sink, Source};
use super::files::{self, TMP_PREFIX};
use super::recovery::{self, RecoveryError, RecoveryOptions};
use super::snapshot::{self, SnapshotReader};
use crate::types::compression::Compression;
use crate::types::zxid::Zxid;

/// A snapshot whose content is durable, and which nobody will find before it has its name.
#[derive(Debug)]
pub struct Unnamed {
    dir: PathBuf,
    tmp: PathBuf,
    path: PathBuf,
}

impl Unnamed {
    /// Gives it its name, durably; a snapshot of that name is replaced as a whole. On an error nothing is left behind.
    pub fn name(self) -> io::Result<PathBuf> {
        if let Err(error) = fs::rename(&self.tmp, &self.path) {
            // The first error is the one to tell.
            let _ = fs::remove_file(&self.tmp);
            return Err(error);
        }
        files::sync_dir(&self.dir)?;
        Ok(self.path)
    }
}

/// Writes a snapshot under its name. `fill` writes the content, usually with a
/// [`SnapshotWriter`](super::snapshot::SnapshotWriter), and hands the sink back. Content and name are durable on return;
/// a snapshot of that name is replaced as a whole. On an error nothing is left behind.
pub fn write(
    dir: &Path,
    zxid: Zxid,
    compression: Compression,
    fill: impl FnOnce(Sink) -> io::Result<Sink>,
) -> io::Result<PathBuf> {
    write_unnamed(dir, zxid, compression, fill)?.name()
}

/// The same up to the name.
pub fn write_unnamed(
    dir: &Path,
    zxid: Zxid,
    compression: Compression,
    fill: impl FnOnce(Sink) -> io::Result<Sink>,
) -> io::Result<Unnamed> {
    let name = files::snapshot_file_name(zxid, compression);
    let tmp = dir.join(format!("{TMP_PREFIX}{name}"));
    let path = dir.join(name);
    let written = File::create(&tmp)
        .and_then(|file| Sink::new(file, compression))
        .and_then(fill)
        .and_then(Sink::finish)
        .and_then(|file| file.sync_all());
    if let Err(error) = written {
        // The first error is the one to tell.
        let _ = fs::remove_file(&tmp);
        return Err(error);
    }
    Ok(Unnamed { dir: dir.to_owned(), tmp, path })
}

/// A leader's snapshot takes the place of everything that the directories hold. Durable on return, and after a crash at
/// any moment they hold what a server may have: all of the old history, the old one without the txns behind `zxid`, which no
/// leader has, or the snapshot. So the log is cut after the snapshot is durable and before it has its name: a log that
/// goes on behind the snapshot could be another history's. What is older goes too: the log that is written next does not
/// follow it, and where it begins with an epoch that could not be told any more. Nobody else writes to the directories
/// meanwhile.
pub fn install(
    options: &RecoveryOptions,
    zxid: Zxid,
    compression: Compression,
    fill: impl FnOnce(Sink) -> io::Result<Sink>,
) -> Result<PathBuf, RecoveryError> {
    let dir = options.dirs.snapshots();
    let io_error = |error| RecoveryError::Io { path: dir.clone(), error };
    let unnamed = write_unnamed(&dir, zxid, compression, fill).map_err(io_error)?;
    recovery::truncate_logs(options, zxid)?;
    let path = unnamed.name().map_err(io_error)?;
    // Snapshots before logs: none of them is ever without the log that continues it.
    let snapshots = files::list_snapshots(&dir).map_err(io_error)?.into_iter().map(|file| file.path);
    let older: Vec<PathBuf> = snapshots.filter(|other| *other != path).collect();
    older.iter().try_for_each(fs::remove_file).and_then(|()| files::sync_dir(&dir)).map_err(io_error)?;
    let logs = options.dirs.logs();
    let io_error = |error| RecoveryError::Io { path: logs.clone(), error };
    for log in files::list_logs(&logs).map_err(io_error)? {
        fs::remove_file(&log.path).map_err(io_error)?;
    }
    files::sync_dir(&logs).map_err(io_error)?;
    Ok(path)
}

/// The bytes of a snapshot file, unpacked.
pub type SnapshotFileReader = SnapshotReader<Source>;

/// Opens a snapshot; the last part of its name tells how it is packed. `bytes_max`: see [`SnapshotReader::open`].
pub fn open(path: &Path, bytes_max: usize) -> snapshot::Result<SnapshotFileReader> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let source = Source::new(File::open(path)?, Compression::of_file_name(name));
    SnapshotReader::open(source, bytes_max)
}
