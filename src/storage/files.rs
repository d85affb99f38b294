//! Names and places: the two directories, what the files in them are called, which of them are kept.
//!
//! ```text
//! <dataDir>/myid
//! <dataDir>/version-2/snapshot.<zxid>[.gz|.snappy], currentEpoch, acceptedEpoch
//! <dataLogDir>/version-2/log.<zxid>
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::compression;
use crate::types::compression::Compression;
use crate::types::zxid::Zxid;

/// The one version of the layout there is.
const VERSION_DIR: &str = "version-2";
/// Files under way carry it, so that no server takes them for logs or snapshots.
pub const TMP_PREFIX: &str = "tmp-";
/// Keeps a second server of ours out of the directory; Java ignores it.
const LOCK_FILE: &str = "oxkeeper.lock";
/// Lets an empty database be trusted.
const INITIALIZE_FILE: &str = "initialize";
const MYID_FILE: &str = "myid";
/// Fewest snapshots that a purge leaves.
pub const SNAPSHOTS_RETAINED_MIN: usize = 3;
/// Snapshots that are looked at for the newest valid ones.
pub const SNAPSHOT_CANDIDATES_MAX: usize = 100;

/// Why the directories cannot be used. The process exits with 3, as Java does.
#[derive(Debug)]
pub enum DirError {
    /// Missing, and `datadir.autocreate` is off.
    Missing(PathBuf),
    /// Could not be made, listed or written to.
    Io(PathBuf, io::Error),
    /// The directories differ, and a snapshot lies in that of the logs.
    SnapshotInLogDir(PathBuf),
    /// The directories differ, and a log lies in that of the snapshots.
    LogInSnapshotDir(PathBuf),
    /// Another server of ours is at work here.
    InUse(PathBuf),
}

impl std::fmt::Display for DirError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DirError::Missing(path) => {
                write!(f, "Missing data directory {}, and datadir.autocreate is off: create it", path.display())
            }
            DirError::Io(path, error) => write!(f, "Cannot use data directory {}: {error}", path.display()),
            DirError::SnapshotInLogDir(path) => {
                write!(
                    f,
                    "Log directory has snapshot files. Check if dataLogDir and dataDir configuration is correct: "
                )?;
                write!(f, "move {} into the data directory", path.display())
            }
            DirError::LogInSnapshotDir(path) => {
                write!(
                    f,
                    "Snapshot directory has log files. Check if dataLogDir and dataDir configuration is correct: "
                )?;
                write!(f, "move {} into the log directory", path.display())
            }
            DirError::InUse(path) => write!(f, "Another server is using {}: stop it first", path.display()),
        }
    }
}

impl std::error::Error for DirError {}

/// The two directories of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataDirs {
    /// `dataDir`: `myid`, and the parent of [`DataDirs::snapshots`].
    pub data: PathBuf,
    /// `dataLogDir`, or `dataDir` if it is not set: the parent of [`DataDirs::logs`].
    pub data_log: PathBuf,
}

/// Keeps the directories ours until it is dropped.
#[derive(Debug)]
pub struct DirLocks {
    _files: Vec<File>,
}

impl DataDirs {
    pub fn new(data: impl Into<PathBuf>, data_log: Option<PathBuf>) -> DataDirs {
        let data = data.into();
        DataDirs { data_log: data_log.unwrap_or_else(|| data.clone()), data }
    }

    /// Where snapshots and epochs lie.
    pub fn snapshots(&self) -> PathBuf {
        self.data.join(VERSION_DIR)
    }

    /// Where logs lie.
    pub fn logs(&self) -> PathBuf {
        self.data_log.join(VERSION_DIR)
    }

    /// Makes what is missing if `autocreate` allows it, tries to write, and looks for misplaced files.
    /// Source: `FileTxnSnapLog`.
    pub fn prepare(&self, autocreate: bool) -> Result<(), DirError> {
        for dir in [self.logs(), self.snapshots()] {
            if !dir.exists() {
                if !autocreate {
                    return Err(DirError::Missing(dir));
                }
                fs::create_dir_all(&dir).map_err(|error| DirError::Io(dir.clone(), error))?;
            }
            if let Err(error) = check_writable(&dir) {
                return Err(DirError::Io(dir, error));
            }
        }
        self.check_not_mixed()
    }

    /// Only names that differ are compared: Java does not resolve links either.
    fn check_not_mixed(&self) -> Result<(), DirError> {
        let (logs, snapshots) = (self.logs(), self.snapshots());
        if logs == snapshots {
            return Ok(());
        }
        let find = |dir: &Path, prefix: &str| -> Result<Option<PathBuf>, DirError> {
            let names = file_names(dir).map_err(|error| DirError::Io(dir.to_owned(), error))?;
            Ok(names.into_iter().find(|name| name.starts_with(prefix)).map(|name| dir.join(name)))
        };
        if let Some(path) = find(&logs, "snapshot.")? {
            return Err(DirError::SnapshotInLogDir(path));
        }
        if let Some(path) = find(&snapshots, "log.")? {
            return Err(DirError::LogInSnapshotDir(path));
        }
        Ok(())
    }

    /// Takes both directories, which must exist.
    pub fn lock(&self) -> Result<DirLocks, DirError> {
        let mut dirs = vec![self.snapshots(), self.logs()];
        dirs.dedup();
        let mut files = Vec::new();
        for dir in dirs {
            let path = dir.join(LOCK_FILE);
            let open = File::options().create(true).truncate(false).write(true).open(&path);
            let file = open.map_err(|error| DirError::Io(dir.clone(), error))?;
            match file.try_lock() {
                Ok(()) => files.push(file),
                Err(TryLockError::WouldBlock) => return Err(DirError::InUse(dir)),
                Err(TryLockError::Error(error)) => return Err(DirError::Io(dir, error)),
            }
        }
        Ok(DirLocks { _files: files })
    }

    /// Removes the `initialize` marker and tells whether there was one. Java looks in `dataLogDir` alone, its documents
    /// say `dataDir`; both are honoured.
    pub fn take_initialize_marker(&self) -> io::Result<bool> {
        let mut found = false;
        for dir in [&self.data_log, &self.data] {
            match fs::remove_file(dir.join(INITIALIZE_FILE)) {
                Ok(()) => found = true,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Reads `myid`. Errors are worded for the operator; the process exits with 2.
    pub fn read_myid(&self) -> Result<i64, String> {
        let path = self.data.join(MYID_FILE);
        let text = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(format!("{} file is missing", path.display()));
            }
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        parse_myid(&text).ok_or_else(|| format!("{} does not hold a number in its first line", path.display()))
    }

    /// Apparent size of all files in the log and in the snapshot directory, bytes (`dirs`).
    pub fn sizes(&self) -> io::Result<DirSizes> {
        Ok(DirSizes { log_bytes: dir_bytes(&self.logs())?, snapshot_bytes: dir_bytes(&self.snapshots())? })
    }
}

/// What `dirs` and `conf` report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirSizes {
    pub log_bytes: u64,
    pub snapshot_bytes: u64,
}

fn dir_bytes(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        match entry?.metadata() {
            Ok(meta) if meta.is_dir() => {}
            Ok(meta) => bytes += meta.len(),
            // Purged meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// First line as a signed decimal number; a carriage return ends a line, too, and nothing is trimmed.
fn parse_myid(bytes: &[u8]) -> Option<i64> {
    let line = bytes.split(|&b| b == b'\n' || b == b'\r').next()?;
    std::str::from_utf8(line).ok()?.parse().ok()
}

fn check_writable(dir: &Path) -> io::Result<()> {
    let path = dir.join(format!("{TMP_PREFIX}writable"));
    File::create(&path)?;
    fs::remove_file(path)
}

/// Names in a directory; such as are not Unicode belong to nobody here.
fn file_names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

/// `log.<zxid>`, in lower case without leading zeros.
pub fn log_file_name(first: Zxid) -> String {
    format!("log.{:x}", first.0)
}

/// `snapshot.<zxid>`, with what tells its compression.
pub fn snapshot_file_name(zxid: Zxid, compression: Compression) -> String {
    format!("snapshot.{:x}{}", zxid.0, compression.suffix())
}

/// The zxid in a file name whose first part is `kind`. Parts behind the second do not matter (`Util.getZxidFromName`),
/// so a renamed backup counts. The number is a signed one, and so is Java's parser: a sign is read.
fn zxid_of_name(name: &str, kind: &str) -> Option<Zxid> {
    let mut parts = name.split('.');
    if parts.next() != Some(kind) {
        return None;
    }
    let zxid = i64::from_str_radix(parts.next()?, 16).ok()?;
    u64::try_from(zxid).ok().map(Zxid)
}

/// A log or a snapshot by its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedFile {
    pub zxid: Zxid,
    pub path: PathBuf,
}

/// The logs of a directory, oldest first.
pub fn list_logs(dir: &Path) -> io::Result<Vec<NamedFile>> {
    list(dir, "log")
}

/// The snapshots of a directory, newest first, valid or not.
pub fn list_snapshots(dir: &Path) -> io::Result<Vec<NamedFile>> {
    let mut files = list(dir, "snapshot")?;
    files.reverse();
    Ok(files)
}

fn list(dir: &Path, kind: &str) -> io::Result<Vec<NamedFile>> {
    let mut files = Vec::new();
    for name in file_names(dir)? {
        if let Some(zxid) = zxid_of_name(&name, kind) {
            let path = dir.join(name);
            if path.is_file() {
                files.push(NamedFile { zxid, path });
            }
        }
    }
    files.sort_by(|a, b| (a.zxid, &a.path).cmp(&(b.zxid, &b.path)));
    Ok(files)
}

/// Whether a snapshot's ends look right, by which candidates are picked (`SnapStream.isValidSnapshot`).
pub fn looks_like_snapshot(path: &Path) -> io::Result<bool> {
    const SNAPSHOT_BYTES_MIN: u64 = 10;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let has = |at: u64, expected: &[u8]| -> io::Result<bool> {
        let mut bytes = vec![0; expected.len()];
        match file.read_exact_at(&mut bytes, at) {
            Ok(()) => Ok(bytes == expected),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    };
    match Compression::of_file_name(name) {
        Compression::None if len < SNAPSHOT_BYTES_MIN => Ok(false),
        Compression::None => has(len - 5, b"\0\0\0\x01/"),
        Compression::Gzip => has(0, &compression::GZIP_MAGIC),
        Compression::Snappy => has(0, &compression::SNAPPY_MAGIC),
    }
}

/// The newest snapshots that look right, newest first, at most `max`.
pub fn find_snapshots(dir: &Path, max: usize) -> io::Result<Vec<NamedFile>> {
    let mut found = Vec::new();
    for file in list_snapshots(dir)? {
        if found.len() == max {
            break;
        }
        if looks_like_snapshot(&file.path)? {
            found.push(file);
        }
    }
    Ok(found)
}

/// Files that nothing needs any more once the `retain` newest valid snapshots are kept: older snapshots, and logs older
/// than the one that the oldest kept snapshot is continued by. Source: `PurgeTxnLog`.
///
/// `retain` below [`SNAPSHOTS_RETAINED_MIN`] is raised to it.
pub fn find_purgeable(dirs: &DataDirs, retain: usize) -> io::Result<Vec<PathBuf>> {
    let kept = find_snapshots(&dirs.snapshots(), retain.max(SNAPSHOTS_RETAINED_MIN))?;
    let Some(oldest) = kept.last() else { return Ok(Vec::new()) };
    let logs = list_logs(&dirs.logs())?;
    let needed = logs.iter().map(|log| log.zxid).filter(|&zxid| zxid <= oldest.zxid).max();
    let logs = logs.into_iter().filter(|log| log.zxid < oldest.zxid && Some(log.zxid) != needed);
    let snapshots = list_snapshots(&dirs.snapshots())?;
    Ok(snapshots.into_iter().filter(|s| s.zxid < oldest.zxid).chain(logs).map(|file| file.path).collect())
}

/// A log that is made ahead and has no name yet; `n` tells those of one process apart.
pub fn tmp_log_file_name(n: u32) -> String {
    format!("{TMP_PREFIX}log-{n}")
}

/// Files of a run that ended before they were whole.
pub fn remove_temporary(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for name in file_names(dir)? {
        if name.starts_with(TMP_PREFIX) {
            let path = dir.join(name);
            if path.is_file() {
                fs::remove_file(&path)?;
                removed.push(path);
            }
        }
    }
    Ok(removed)
}

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
