//! From files to state at start: one snapshot, then every later txn of the logs, in order and without a gap.
//!
//! What is found wrong falls into two kinds. Unfinished writes at the end of the last log were never acknowledged: they
//! are cut, with a note. Everything else may be acknowledged txns that are lost: recovery refuses, names file, offset and
//! zxid, and says what can be done. Source: `FileTxnSnapLog.restore`, `FileTxnLog.FileTxnIterator`, ZOOKEEPER-4925.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use smallvec::SmallVec;

use super::files::{self, DataDirs, DirError, NamedFile};
use super::log_file::{self, LogReader, OpenError, Stop, Verdict, Why};
use super::read_ahead::{Batch, read_ahead};
use super::snapshot::{Item, NodeRecord, SnapshotDigest, SnapshotEnd, SnapshotError};
use super::snapshot_file::{self, SnapshotFileReader};
use crate::types::acl::AclList;
use crate::types::ids::SessionId;
use crate::types::limits;
use crate::types::mutant::{self, Mutant};
use crate::types::stat::StatPersisted;
use crate::types::zxid::Zxid;
use crate::wire::peek;
use crate::wire::txn::{self, DecodedTxn};

/// Takes what recovery reads. Errors are sentences for the operator.
pub trait Replay {
    /// Back to nothing: neither session nor znode. Called before each snapshot that is tried.
    fn reset(&mut self);
    fn load_session(&mut self, id: SessionId, timeout_ms: i32);
    fn load_acl(&mut self, id: i64, list: AclList);
    /// Parents come first. An error, such as a parent that is missing, makes the snapshot invalid.
    fn load_node(&mut self, node: NodeRecord<'_>) -> std::result::Result<(), String>;
    /// The snapshot is whole; its state is that of `zxid`, or fuzzily later if Java wrote it under load.
    fn snapshot_loaded(&mut self, zxid: Zxid, digest: Option<SnapshotDigest>);
    /// Txns or znodes with these paths are next: fetch what they will need from memory.
    fn warm(&mut self, _paths: &[&str]) {}
    /// A txn newer than the snapshot; may already be part of a fuzzy one. An error stops recovery.
    fn apply(&mut self, txn: DecodedTxn<'_>) -> std::result::Result<(), String>;
    /// The bytes of every txn of the logs that are read, before it is applied, also of those that are part of the snapshot.
    fn passed(&mut self, zxid: Zxid, payload: &[u8]) {
        let _ = (zxid, payload);
    }
}

/// Settings that recovery depends on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecoveryOptions {
    pub dirs: DataDirs,
    /// `snapshot.trust.empty`: logs without any snapshot are replayed from nothing.
    pub trust_empty_snapshot: bool,
    /// `db.autocreate`: an empty database may serve.
    pub db_autocreate: bool,
    /// `jute.maxbuffer` and its extra size, bytes.
    pub payload_bytes_max: usize,
    /// See [`limits::LOG_IN_FLIGHT_BYTES_MAX`].
    pub in_flight_bytes_max: u64,
    /// Change nothing on disk: for checks.
    pub read_only: bool,
}

impl RecoveryOptions {
    /// Java's defaults.
    pub fn new(dirs: DataDirs) -> RecoveryOptions {
        RecoveryOptions {
            dirs,
            trust_empty_snapshot: false,
            db_autocreate: true,
            payload_bytes_max: log_file::PAYLOAD_BYTES_MAX,
            in_flight_bytes_max: limits::LOG_IN_FLIGHT_BYTES_MAX as u64,
            read_only: false,
        }
    }
}

/// What recovery arrived at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    pub state: RecoveredState,
    /// What the operator should know, in the order it was found.
    pub notes: Vec<Note>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecoveredState {
    /// Neither snapshot nor txn. Trusted: start from zxid 0 and write `snapshot.0`. Otherwise the member has zxid -1 until
    /// it has synced.
    Empty { trusted: bool },
    /// A state with a history.
    Loaded {
        /// The snapshot it started from; `None` only with `snapshot.trust.empty`.
        snapshot: Option<NamedFile>,
        /// Of the last txn, or of the snapshot if there was none behind it.
        zxid: Zxid,
        txns: u64,
    },
}

/// Something that was put right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    SnapshotInvalid { path: PathBuf, why: String },
    TornTail { path: PathBuf, offset: u64, bytes: u64, why: Why },
    EmptyLogRemoved { path: PathBuf },
    TemporaryRemoved { path: PathBuf },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::SnapshotInvalid { path, why } => {
                write!(f, "snapshot {} is not valid ({why}); trying an older one", path.display())
            }
            Note::TornTail { path, offset, bytes, why } => write!(
                f,
                "log {} ended in writes that never finished: {bytes} bytes from offset {offset} cut ({why}); \
                 nothing in them was acknowledged",
                path.display()
            ),
            Note::EmptyLogRemoved { path } => write!(f, "log {} held no txn: removed", path.display()),
            Note::TemporaryRemoved { path } => write!(f, "unfinished file {} removed", path.display()),
        }
    }
}

/// Why the server must not start. The text names what is damaged and what can be done.
#[derive(Debug)]
pub enum RecoveryError {
    Dirs(DirError),
    Io { path: PathBuf, error: io::Error },
    NoValidSnapshot { dir: PathBuf, tried: usize, newest: String },
    LogWithoutSnapshot { path: PathBuf },
    Open { path: PathBuf, error: OpenError },
    Damaged { path: PathBuf, stop: Stop, last: Zxid },
    Txn { path: PathBuf, offset: u64, zxid: Zxid, error: txn::TxnError },
    Gap { path: PathBuf, offset: u64, last: Zxid, found: Zxid },
    Apply { path: PathBuf, offset: u64, zxid: Zxid, why: String },
}

impl RecoveryError {
    /// Of the process.
    pub fn exit_code(&self) -> i32 {
        match self {
            RecoveryError::Dirs(_) => 3,
            _ => 1,
        }
    }
}

/// What an operator of an ensemble does about a damaged member, and of a single server.
const ADVICE: &str = "In an ensemble, move version-2 of this member away and let it sync from the others; \
                      otherwise restore a backup, or have zkTxnLogToolkit write a copy of the log without the entry";

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoveryError::Dirs(error) => error.fmt(f),
            RecoveryError::Io { path, error } => write!(f, "{}: {error}", path.display()),
            RecoveryError::NoValidSnapshot { dir, tried, newest } => {
                write!(f, "Not able to find valid snapshots in {} ({tried} tried, {newest}). {ADVICE}", dir.display())
            }
            RecoveryError::LogWithoutSnapshot { path } => write!(
                f,
                "No snapshot found, but there are log entries ({}). Something is broken! If the logs start with the \
                 first txn ever, snapshot.trust.empty=true lets the server start from them once",
                path.display()
            ),
            RecoveryError::Open { path, error } => {
                write!(f, "{} is no transaction log: {error}. Move it away if it is not one. {ADVICE}", path.display())
            }
            RecoveryError::Damaged { path, stop, last } => write!(
                f,
                "{} is damaged at offset {}, behind zxid {last}: {}. It cannot be cut there without losing \
                 acknowledged txns. {ADVICE}",
                path.display(),
                stop.offset,
                stop.why
            ),
            RecoveryError::Txn { path, offset, zxid, error } => {
                write!(f, "{} at offset {offset}, zxid {zxid}: {error}. {ADVICE}", path.display())
            }
            RecoveryError::Gap { path, offset, last, found } => write!(
                f,
                "{} at offset {offset}: zxid {found} follows {last}, so txns are missing or out of order. {ADVICE}",
                path.display()
            ),
            RecoveryError::Apply { path, offset, zxid, why } => {
                write!(f, "{} at offset {offset}, zxid {zxid}: {why}", path.display())
            }
        }
    }
}

impl std::error::Error for RecoveryError {}

impl From<DirError> for RecoveryError {
    fn from(error: DirError) -> RecoveryError {
        RecoveryError::Dirs(error)
    }
}

type Result<T> = std::result::Result<T, RecoveryError>;

/// Loads the newest state into `replay`. The directories are prepared and locked by the caller.
pub fn recover(options: &RecoveryOptions, replay: &mut impl Replay) -> Result<Recovered> {
    let mut recovery = Recovery { options, notes: Vec::new() };
    recovery.remove_temporary()?;
    let state = recovery.run(replay)?;
    Ok(Recovered { state, notes: recovery.notes })
}

struct Recovery<'a> {
    options: &'a RecoveryOptions,
    notes: Vec<Note>,
}

/// A log with the zxid of its first entry; `None` for one that holds none.
struct Log {
    file: NamedFile,
    first: Option<Zxid>,
}

impl Recovery<'_> {
    fn run(&mut self, replay: &mut impl Replay) -> Result<RecoveredState> {
        let dirs = &self.options.dirs;
        let marker = !self.options.read_only && at(&dirs.data_log, dirs.take_initialize_marker())?;
        let trusted = marker || self.options.db_autocreate;
        let snapshot = self.load_snapshot(replay)?;
        let logs = self.open_logs(snapshot.as_ref().map_or(Zxid::ZERO, |s| s.zxid))?;
        if snapshot.is_none() {
            match logs.iter().find(|log| log.first.is_some()) {
                None => return Ok(RecoveredState::Empty { trusted }),
                Some(log) if !self.options.trust_empty_snapshot => {
                    return Err(RecoveryError::LogWithoutSnapshot { path: log.file.path.clone() });
                }
                Some(_) => {}
            }
        }
        let start = snapshot.as_ref().map_or(Zxid::ZERO, |s| s.zxid);
        let (zxid, txns) = self.replay_logs(&logs, start, replay)?;
        Ok(RecoveredState::Loaded { snapshot, zxid, txns })
    }

    fn remove_temporary(&mut self) -> Result<()> {
        if self.options.read_only {
            return Ok(());
        }
        let mut dirs = vec![self.options.dirs.snapshots(), self.options.dirs.logs()];
        dirs.dedup();
        for dir in dirs {
            let removed = at(&dir, files::remove_temporary(&dir))?;
            self.notes.extend(removed.into_iter().map(|path| Note::TemporaryRemoved { path }));
        }
        Ok(())
    }

    /// The newest snapshot that loads, from an empty state each time; `None` if there is no candidate.
    fn load_snapshot(&mut self, replay: &mut impl Replay) -> Result<Option<NamedFile>> {
        let dir = self.options.dirs.snapshots();
        let all = at(&dir, files::list_snapshots(&dir))?;
        // A broken `snapshot.0` is what a server leaves that was killed at its first start: the logs decide.
        let only_first = all.iter().all(|file| file.zxid == Zxid::ZERO);
        let (mut tried, mut newest) = (0, String::new());
        for file in all {
            if tried == files::SNAPSHOT_CANDIDATES_MAX {
                break;
            }
            replay.reset();
            let why = match files::looks_like_snapshot(&file.path) {
                Ok(true) => match load_snapshot(&file, self.options.payload_bytes_max, replay) {
                    Ok(()) => return Ok(Some(file)),
                    Err(error) => error.to_string(),
                },
                Ok(false) => "it is cut short or something else".to_owned(),
                Err(error) => error.to_string(),
            };
            tried += 1;
            if newest.is_empty() {
                newest = format!("the newest, {}, is not valid: {why}", file.path.display());
            }
            self.notes.push(Note::SnapshotInvalid { path: file.path, why });
        }
        replay.reset();
        if tried > 0 && !only_first {
            return Err(RecoveryError::NoValidSnapshot { dir, tried, newest });
        }
        Ok(None)
    }

    /// The logs that may hold txns newer than `snapshot`, oldest first. A newest one without a byte is removed.
    fn open_logs(&mut self, snapshot: Zxid) -> Result<Vec<Log>> {
        let dir = self.options.dirs.logs();
        let files = at(&dir, files::list_logs(&dir))?;
        let newest = files.len().saturating_sub(1);
        let mut logs = Vec::new();
        for (index, file) in files.into_iter().enumerate().rev() {
            let first = match self.first_zxid(&file.path) {
                Err(RecoveryError::Open { path, error: OpenError::Empty }) if index == newest => {
                    self.remove_log(path)?;
                    continue;
                }
                first => first?,
            };
            // The log that continues the snapshot is the last one needed, but not while it holds nothing: then the
            // txns in question, if any, are in the one before.
            let is_last = file.zxid.0 <= snapshot.0.saturating_add(1) && first.is_some();
            logs.push(Log { file, first });
            if is_last {
                break;
            }
        }
        logs.reverse();
        Ok(logs)
    }

    fn open(&self, path: &Path) -> Result<LogReader<File>> {
        let file = at(path, File::open(path))?;
        match LogReader::open(file, self.options.payload_bytes_max) {
            Ok(reader) => Ok(reader),
            Err(OpenError::Io(error)) => Err(RecoveryError::Io { path: path.to_owned(), error }),
            Err(error) => Err(RecoveryError::Open { path: path.to_owned(), error }),
        }
    }

    fn first_zxid(&self, path: &Path) -> Result<Option<Zxid>> {
        let mut reader = self.open(path)?;
        Ok(at(path, reader.next_entry())?.ok().map(|entry| entry.header.zxid))
    }

    /// Where the last entry that is not newer than `last` ends.
    fn end_of(&self, path: &Path, last: Zxid) -> Result<u64> {
        let mut reader = self.open(path)?;
        let mut end = log_file::FILE_HEADER_BYTES as u64;
        while let Ok(entry) = at(path, reader.next_entry())?
            && entry.header.zxid <= last
        {
            end = entry.end;
        }
        Ok(end)
    }

    fn remove_log(&mut self, path: PathBuf) -> Result<()> {
        if !self.options.read_only {
            at(&path, fs::remove_file(&path).and_then(|()| files::sync_dir(&self.options.dirs.logs())))?;
        }
        self.notes.push(Note::EmptyLogRemoved { path });
        Ok(())
    }

    /// Applies what is newer than `start`; returns the last zxid and the number of txns.
    fn replay_logs(&mut self, logs: &[Log], start: Zxid, replay: &mut impl Replay) -> Result<(Zxid, u64)> {
        let mut progress = Progress { last: start, seen: None, txns: 0 };
        let last_with_entries = logs.iter().rposition(|log| log.first.is_some());
        for (index, log) in logs.iter().enumerate() {
            let stop = self.replay_log(&log.file.path, &mut progress, replay)?;
            // Only behind the last whole entry of all logs can there be writes that nobody has acknowledged.
            if last_with_entries.is_none_or(|last| index >= last) {
                self.end_of_last_log(log, &stop, progress.seen.unwrap_or(start))?;
            } else if matches!(stop.why, Why::Checksum | Why::Length(_) | Why::Txn(_)) {
                let last = progress.seen.unwrap_or(start);
                return Err(RecoveryError::Damaged { path: log.file.path.clone(), stop, last });
            }
        }
        Ok((progress.last, progress.txns))
    }

    fn replay_log(&self, path: &Path, progress: &mut Progress, replay: &mut impl Replay) -> Result<Stop> {
        let mut reader = self.open(path)?;
        read_ahead(
            |batch| at(path, read_entries(&mut reader, batch)),
            |batch: &Batch<LogItem>| {
                for group in batch.items.chunks(limits::WARMED_AT_ONCE) {
                    warm(group, |item| peek::txn_path(item.payload(batch)), replay);
                    for item in group {
                        replay_entry(path, item, item.payload(batch), progress, replay)?;
                    }
                }
                Ok(())
            },
        )
    }

    /// Cuts what was never acknowledged, and the padding with it. A log without any entry goes: left in place, it would
    /// stand before the log that is written next, and be taken for the one that continues a later snapshot.
    fn end_of_last_log(&mut self, log: &Log, stop: &Stop, last: Zxid) -> Result<()> {
        let path = &log.file.path;
        let file = at(path, File::options().read(true).write(!self.options.read_only).open(path))?;
        match at(path, log_file::judge(&file, stop, last, self.options.in_flight_bytes_max))? {
            Verdict::Clean => {}
            Verdict::Torn { bytes } => {
                let (path, why) = (path.clone(), stop.why);
                self.notes.push(Note::TornTail { path, offset: stop.offset, bytes, why });
            }
            Verdict::Rot => return Err(RecoveryError::Damaged { path: path.clone(), stop: *stop, last }),
        }
        if log.first.is_none() {
            return self.remove_log(path.clone());
        }
        let cuts = !self.options.read_only && !mutant::is_active(Mutant::TornTailLeft);
        if cuts && at(path, file.metadata())?.len() > stop.offset {
            at(path, file.set_len(stop.offset).and_then(|()| file.sync_all()))?;
        }
        Ok(())
    }
}

/// An entry of a log, its payload in the batch.
struct LogItem {
    offset: u64,
    zxid: Zxid,
    payload: Range<usize>,
}

impl LogItem {
    fn payload<'a>(&self, batch: &'a Batch<LogItem>) -> &'a [u8] {
        &batch.bytes[self.payload.clone()]
    }
}

fn read_entries(reader: &mut LogReader<File>, batch: &mut Batch<LogItem>) -> io::Result<Option<Stop>> {
    while !batch.is_full() {
        match reader.next_entry()? {
            Err(stop) => return Ok(Some(stop)),
            Ok(entry) => {
                let start = batch.bytes.len();
                batch.bytes.extend_from_slice(entry.payload);
                let payload = start..batch.bytes.len();
                batch.items.push(LogItem { offset: entry.offset, zxid: entry.header.zxid, payload });
            }
        }
    }
    Ok(None)
}

fn replay_entry(
    path: &Path,
    &LogItem { offset, zxid, .. }: &LogItem,
    payload: &[u8],
    progress: &mut Progress,
    replay: &mut impl Replay,
) -> Result<()> {
    if !progress.may_follow(zxid) {
        let last = progress.seen.unwrap_or(progress.last);
        return Err(RecoveryError::Gap { path: path.to_owned(), offset, last, found: zxid });
    }
    progress.seen = Some(zxid);
    replay.passed(zxid, payload);
    if zxid <= progress.last {
        return Ok(());
    }
    let txn = txn::decode(payload);
    let txn = txn.map_err(|error| RecoveryError::Txn { path: path.to_owned(), offset, zxid, error })?;
    replay.apply(txn).map_err(|why| RecoveryError::Apply { path: path.to_owned(), offset, zxid, why })?;
    progress.last = zxid;
    progress.txns += 1;
    Ok(())
}

/// Fetches what a group of items will need, all at once.
fn warm<'a, T>(group: &'a [T], path_of: impl Fn(&'a T) -> Option<&'a str>, replay: &mut impl Replay) {
    let paths: SmallVec<[&str; limits::WARMED_AT_ONCE]> = group.iter().filter_map(path_of).collect();
    if paths.len() > 1 {
        replay.warm(&paths);
    }
}

struct Progress {
    /// Zxid of the state.
    last: Zxid,
    /// Zxid of the entry before, applied or skipped.
    seen: Option<Zxid>,
    txns: u64,
}

impl Progress {
    /// Zxids of an epoch have no gaps; a new epoch starts at 1. Entries before the snapshot may start anywhere.
    fn may_follow(&self, zxid: Zxid) -> bool {
        let before = match self.seen {
            Some(seen) => seen,
            None if zxid <= self.last => return true,
            None => self.last,
        };
        follows(before, zxid)
    }
}

/// Whether no txn can be missing between the two. Java's first zxid of an epoch has counter 1; its standalone server carries
/// from a full counter into the epoch.
fn follows(before: Zxid, zxid: Zxid) -> bool {
    before.0.checked_add(1) == Some(zxid.0) || (zxid.epoch() > before.epoch() && zxid.counter() == 1)
}

/// An item of a snapshot, its path and data in the batch.
enum SnapshotItem {
    Session { id: SessionId, timeout_ms: i32 },
    Acl { id: i64, list: AclList },
    Node { offset: u64, path: Range<usize>, data: Option<Range<usize>>, acl_id: i64, stat: StatPersisted },
}

fn load_snapshot(
    file: &NamedFile,
    bytes_max: usize,
    replay: &mut impl Replay,
) -> std::result::Result<(), SnapshotError> {
    let mut reader = snapshot_file::open(&file.path, bytes_max)?;
    let end = read_ahead(
        |batch| read_items(&mut reader, batch),
        |batch: &Batch<SnapshotItem>| {
            for group in batch.items.chunks(limits::WARMED_AT_ONCE) {
                let path_of = |item: &SnapshotItem| match item {
                    SnapshotItem::Node { path, .. } => Some(&batch.text[path.clone()]),
                    SnapshotItem::Session { .. } | SnapshotItem::Acl { .. } => None,
                };
                warm(group, path_of, replay);
                for item in group {
                    load_item(item, batch, replay)?;
                }
            }
            Ok(())
        },
    )?;
    replay.snapshot_loaded(file.zxid, end.digest);
    Ok(())
}

fn read_items(
    reader: &mut SnapshotFileReader,
    batch: &mut Batch<SnapshotItem>,
) -> std::result::Result<Option<SnapshotEnd>, SnapshotError> {
    while !batch.is_full() {
        let offset = reader.offset();
        let item = match reader.next_item()? {
            Item::Session { id, timeout_ms } => SnapshotItem::Session { id, timeout_ms },
            Item::Acl { id, list } => SnapshotItem::Acl { id, list },
            Item::Node(NodeRecord { path, data, acl_id, stat }) => {
                let (text, bytes) = (batch.text.len(), batch.bytes.len());
                batch.text.push_str(&path);
                batch.bytes.extend_from_slice(data.unwrap_or_default());
                let data = data.map(|_| bytes..batch.bytes.len());
                SnapshotItem::Node { offset, path: text..batch.text.len(), data, acl_id, stat }
            }
            Item::End(end) => return Ok(Some(end)),
        };
        batch.items.push(item);
    }
    Ok(None)
}

fn load_item(
    item: &SnapshotItem,
    batch: &Batch<SnapshotItem>,
    replay: &mut impl Replay,
) -> std::result::Result<(), SnapshotError> {
    match item {
        SnapshotItem::Session { id, timeout_ms } => replay.load_session(*id, *timeout_ms),
        SnapshotItem::Acl { id, list } => replay.load_acl(*id, list.clone()),
        SnapshotItem::Node { offset, path, data, acl_id, stat } => {
            let node = NodeRecord {
                path: batch.text[path.clone()].into(),
                data: data.clone().map(|data| &batch.bytes[data]),
                acl_id: *acl_id,
                stat: *stat,
            };
            replay.load_node(node).map_err(|what| SnapshotError::Item { offset: *offset, what })?;
        }
    }
    Ok(())
}

/// Drops every txn newer than `last`, as a leader orders by TRUNC: the log that holds it is cut behind it, later logs and
/// newer snapshots are removed. Afterwards the state is recovered anew. Durable on return; oldest changes last, so that a
/// crash in between leaves a history without a gap. Java keeps one txn too many when `last` is not in the log, and keeps
/// the snapshots.
pub fn truncate_logs(options: &RecoveryOptions, last: Zxid) -> Result<()> {
    assert!(!options.read_only);
    let (snapshots, logs) = (options.dirs.snapshots(), options.dirs.logs());
    for snapshot in at(&snapshots, files::list_snapshots(&snapshots))?.iter().filter(|s| s.zxid > last) {
        at(&snapshot.path, fs::remove_file(&snapshot.path))?;
    }
    at(&snapshots, files::sync_dir(&snapshots))?;
    let recovery = Recovery { options, notes: Vec::new() };
    for log in at(&logs, files::list_logs(&logs))?.iter().rev() {
        let path = &log.path;
        if log.zxid > last {
            at(path, fs::remove_file(path))?;
            continue;
        }
        let end = recovery.end_of(path, last)?;
        if end == log_file::FILE_HEADER_BYTES as u64 {
            at(path, fs::remove_file(path))?;
            continue;
        }
        let file = at(path, File::options().write(true).open(path))?;
        at(path, file.set_len(end).and_then(|()| file.sync_all()))?;
        break;
    }
    at(&logs, files::sync_dir(&logs))
}

/// Says which file an error belongs to.
fn at<T>(path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|error| RecoveryError::Io { path: path.to_owned(), error })
}
