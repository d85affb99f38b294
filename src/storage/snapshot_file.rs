//! Snapshots as files: packed or not, and never under their name before they are whole and durable.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::compression::{Sink, Source};
use super::files::{self, TMP_PREFIX};
use super::snapshot::{self, SnapshotReader};
use crate::types::compression::Compression;
use crate::types::zxid::Zxid;

/// Writes a snapshot under its name. `fill` writes the content, usually with a
/// [`SnapshotWriter`](super::snapshot::SnapshotWriter), and hands the sink back. Content and name are durable on return;
/// a snapshot of that name is replaced as a whole. On an error nothing is left behind.
pub fn write(
    dir: &Path,
    zxid: Zxid,
    compression: Compression,
    fill: impl FnOnce(Sink) -> io::Result<Sink>,
) -> io::Result<PathBuf> {
    let name = files::snapshot_file_name(zxid, compression);
    let tmp = dir.join(format!("{TMP_PREFIX}{name}"));
    let path = dir.join(name);
    let written = File::create(&tmp)
        .and_then(|file| Sink::new(file, compression))
        .and_then(fill)
        .and_then(Sink::finish)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&tmp, &path));
    if let Err(error) = written {
        // The first error is the one to tell.
        let _ = fs::remove_file(&tmp);
        return Err(error);
    }
    files::sync_dir(dir)?;
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
