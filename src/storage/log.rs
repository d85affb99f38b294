//! The log as a machine: groups entries into durable writes and rolls from file to file.
//!
//! ```text
//!  append ─► pending ─► Write ─► disk ─► Written ─► Flushed{upto}, strictly a prefix
//!                         ▲ at most `writes_in_flight`, never two on one block
//!  helper:  Prepare ► Prepared      a next file, under a temporary name, with its header and a zeroed stretch, durable
//!           Name    ► Named         it gets its name, `log.<first zxid>`, durable, while the first write is under way
//!           Extend  ► Extended      zeroes a further stretch, ahead of need; `NoSpace` means the disk is full
//!           Finish, Discard         cut the tail, close; remove a file that was never used
//! ```
//!
//! A write covers everything that arrived while the last one was under way. It starts and ends on block borders (O_DIRECT):
//! the last block is filled up with zeros, kept, and written again from its start by the next write. With more than one
//! write in flight the last entry is padded instead, behind its digest, where every reader ignores it.

mod open_file;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use self::open_file::{LogFile, WriteRange, Zeroing};
use super::log_file;
use crate::types::limits::{FLUSH_LIMIT, LOG_IN_FLIGHT_BYTES_MAX, STOP_ON_FULL_DISK_LIMIT};
use crate::types::mutant::{self, Mutant};
use crate::types::time::{Time, Wait};
use crate::types::zxid::Zxid;

/// Alignment of offsets, lengths and buffers.
pub const BLOCK_BYTES: usize = 4096;
const BLOCK: u64 = BLOCK_BYTES as u64;

/// A log file, from its preparation on. Counts up; never used twice in a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(pub u32);

/// A write, in order of their starts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WriteId(pub u64);

/// How the log behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// Durable writes that may be under way at once. Above 1, entries are padded to whole blocks.
    pub writes_in_flight: usize,
    /// A file that has reached this is followed by the next one, bytes.
    pub roll_bytes: u64,
    /// Zeroed at once by the helper, bytes: a multiple of the block.
    pub stretch_bytes: u64,
    /// Zeroing starts when less than this is left ahead of the writes, bytes. What remains of it when the disk is full
    /// is the reserve.
    pub ahead_bytes: u64,
    /// How long to wait before a full disk is tried again.
    pub retry_after: Duration,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            writes_in_flight: 1,
            roll_bytes: 256 << 20,
            stretch_bytes: 4 << 20,
            ahead_bytes: 8 << 20,
            retry_after: Duration::from_secs(1),
        }
    }
}

/// What happened outside.
#[derive(PartialEq, Eq, Debug)]
pub enum Input<B> {
    /// No more entries in this turn: start writing.
    Submit,
    /// The helper has made the file; its header, and zeros up to an offset, are durable.
    Prepared { file: FileId, zeroed_upto: u64 },
    /// The file has its name, durably.
    Named { file: FileId },
    /// Zeros up to an offset are durable.
    Extended { file: FileId, upto: u64 },
    /// The disk is too full to prepare or to extend this file.
    NoSpace { file: FileId },
    /// The write is durable. The buffer comes back.
    Written { write: WriteId, buffer: B },
    /// A write, or the helper's work on a file, failed for another reason than a full disk.
    Failed { what: String },
    /// The next file, please: a snapshot is being taken.
    Roll,
    /// No entry will follow: files are cut and closed once everything is durable.
    Stop,
    /// A deadline has passed.
    Timeout,
}

/// What to do outside.
#[derive(PartialEq, Eq, Debug)]
pub enum Output<B> {
    /// Make a file under a temporary name, write [`log_file::FILE_HEADER`], zero up to an offset, make it all durable.
    Prepare { file: FileId, upto: u64 },
    /// Give the file the name of its first txn and make that durable. A file of that name, which holds nothing that was
    /// ever acknowledged, is replaced.
    Name { file: FileId, first: Zxid },
    /// Allocate everything below `upto` and zero `from..upto`, without touching what is written before `from`.
    Extend { file: FileId, from: u64, upto: u64 },
    /// Write the first `len` bytes of the buffer; durable on completion.
    Write { write: WriteId, file: FileId, offset: u64, len: usize, buffer: B },
    /// Every txn up to here is durable, under its file's name.
    Flushed { upto: Zxid },
    /// Nothing will be written to the file any more: cut it behind its last entry and close it.
    Finish { file: FileId, used: u64 },
    /// Remove the file: nothing was ever written to it.
    Discard { file: FileId },
    /// The disk is full, or has space again: [`Log::accepts_writes`] has changed.
    Full(bool),
    /// After [`Input::Stop`]: everything is durable.
    Stopped,
    /// Stop the process: a durable write failed, and is never tried again.
    Fatal { what: String },
}

impl<B> fmt::Display for Input<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Submit => f.write_str("submit"),
            Input::Prepared { file, zeroed_upto } => write!(f, "prepared file={} zeroed_upto={zeroed_upto}", file.0),
            Input::Named { file } => write!(f, "named file={}", file.0),
            Input::Extended { file, upto } => write!(f, "extended file={} upto={upto}", file.0),
            Input::NoSpace { file } => write!(f, "no_space file={}", file.0),
            Input::Written { write, .. } => write!(f, "written write={}", write.0),
            Input::Failed { what } => write!(f, "failed {what}"),
            Input::Roll => f.write_str("roll"),
            Input::Stop => f.write_str("stop"),
            Input::Timeout => f.write_str("timeout"),
        }
    }
}

impl<B> fmt::Display for Output<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::Prepare { file, upto } => write!(f, "prepare file={} upto={upto}", file.0),
            Output::Name { file, first } => write!(f, "name file={} first={first}", file.0),
            Output::Extend { file, from, upto } => write!(f, "extend file={} from={from} upto={upto}", file.0),
            Output::Write { write, file, offset, len, .. } => {
                write!(f, "write write={} file={} offset={offset} len={len}", write.0, file.0)
            }
            Output::Flushed { upto } => write!(f, "flushed upto={upto}"),
            Output::Finish { file, used } => write!(f, "finish file={} used={used}", file.0),
            Output::Discard { file } => write!(f, "discard file={}", file.0),
            Output::Full(full) => write!(f, "full {full}"),
            Output::Stopped => f.write_str("stopped"),
            Output::Fatal { what } => write!(f, "fatal {what}"),
        }
    }
}

/// The file that is made ahead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Spare {
    /// Not asked for: the disk was full, or the log is stopping.
    None,
    /// The helper is at work.
    Preparing {
        file: FileId,
    },
    Ready {
        file: FileId,
        zeroed_upto: u64,
    },
}

/// What the helper could not allocate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct NoSpace {
    /// The file after this one.
    prepare: bool,
    /// The next stretch of this one.
    extend: bool,
}

impl NoSpace {
    fn is_full(self) -> bool {
        self.prepare || self.extend
    }
}

/// A durable write under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct InFlight {
    write: WriteId,
    file: FileId,
    /// The last txn that is whole with it.
    upto: Option<Zxid>,
    len: usize,
    /// Whether its last block will be written again.
    partial: bool,
    done: bool,
}

/// The log of one server. Generic over the buffers of the driver, each a multiple of [`BLOCK_BYTES`] long.
///
/// Invariants: `flushed ≤ submitted ≤ appended`; files are written in order, and only the last is not sealed.
pub struct Log<B> {
    config: LogConfig,
    buffers: Vec<B>,
    /// Oldest first; empty until the first file is prepared.
    files: VecDeque<LogFile>,
    spare: Spare,
    next_file: FileId,
    next_write: WriteId,
    /// In order of their starts.
    in_flight: VecDeque<InFlight>,
    /// Entries that came before the first file was there.
    early: Vec<(Zxid, Vec<u8>)>,
    early_bytes: usize,
    appended: Zxid,
    flushed: Zxid,
    roll_wanted: bool,
    /// What the disk has no space for.
    no_space: NoSpace,
    /// When to try again on a full disk.
    retry_at: Option<Time>,
    /// The oldest write that is under way, or has no name yet, and how long it has been.
    slowest: Option<(WriteId, Wait)>,
    /// Bytes of the reserve when the disk became full.
    reserve_at_first: u64,
    stopping: bool,
    /// How long a stop has been waiting for space.
    stop_waits: Option<Wait>,
    stopped: bool,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Log<B> {
    /// A log whose last durable txn is `last`; asks for its first file at once. There must be as many buffers as writes
    /// in flight, and each must hold a block.
    pub fn new(config: LogConfig, last: Zxid, buffers: Vec<B>, out: &mut Vec<Output<B>>) -> Log<B> {
        assert!(config.writes_in_flight > 0);
        assert!(buffers.len() >= config.writes_in_flight);
        assert!(buffers.iter().all(|b| !b.as_ref().is_empty() && b.as_ref().len().is_multiple_of(BLOCK_BYTES)));
        assert!(config.stretch_bytes >= BLOCK && config.stretch_bytes.is_multiple_of(BLOCK));
        let mut log = Log {
            config,
            buffers,
            files: VecDeque::new(),
            spare: Spare::None,
            next_file: FileId(0),
            next_write: WriteId(0),
            in_flight: VecDeque::new(),
            early: Vec::new(),
            early_bytes: 0,
            appended: last,
            flushed: last,
            roll_wanted: false,
            no_space: NoSpace::default(),
            retry_at: None,
            slowest: None,
            reserve_at_first: 0,
            stopping: false,
            stop_waits: None,
            stopped: false,
        };
        log.prepare_spare(out);
        log
    }

    /// Takes one framed entry. It is written from the next [`Input::Submit`] on.
    pub fn append(&mut self, zxid: Zxid, entry: &[u8], out: &mut Vec<Output<B>>) {
        assert!(zxid > self.appended, "{zxid} behind {}", self.appended);
        assert!(!self.stopping);
        assert!(log_file::payload_of(entry).is_some_and(|payload| !payload.is_empty()));
        self.appended = zxid;
        let must_roll = match self.files.back() {
            None => true,
            Some(file) if file.is_empty() => false,
            Some(file) => self.roll_wanted || file.end() + entry.len() as u64 > self.config.roll_bytes,
        };
        if must_roll {
            self.roll(zxid, out);
        }
        match self.files.back_mut() {
            Some(file) => file.append(zxid, entry),
            None => {
                self.early_bytes += entry.len();
                self.early.push((zxid, entry.to_vec()));
            }
        }
    }

    /// Goes on behind `last` after [`Output::Stopped`], in a file of its own: the files were cut, or a snapshot stands for
    /// everything in them.
    pub fn reopen(&mut self, last: Zxid, out: &mut Vec<Output<B>>) {
        assert!(
            self.stopped && self.files.is_empty() && self.in_flight.is_empty(),
            "a log is closed before it is reopened"
        );
        (self.stopping, self.stopped, self.roll_wanted) = (false, false, false);
        (self.appended, self.flushed) = (last, last);
        self.no_space = NoSpace::default();
        self.retry_at = None;
        self.prepare_spare(out);
    }

    /// Whether everything that was appended is durable.
    pub fn is_settled(&self) -> bool {
        self.flushed == self.appended && self.in_flight.is_empty()
    }

    /// `false` while the disk is full: refuse what is new before it gets a zxid.
    pub fn accepts_writes(&self) -> bool {
        !self.no_space.is_full()
    }

    /// Bytes that a full disk still takes, which are kept for the closing of sessions.
    pub fn reserve_bytes(&self) -> u64 {
        match self.files.back() {
            Some(file) => file.zeroed_upto.saturating_sub(file.end()),
            None => 0,
        }
    }

    /// Whether a new session may still be opened: on a full disk the second half of the reserve is for closing those that
    /// there are.
    pub fn accepts_sessions(&self) -> bool {
        self.accepts_writes() || 2 * self.reserve_bytes() > self.reserve_at_first
    }

    /// Whether an entry of up to `bytes` may be appended now. If not, an input will come after which it may: a write's
    /// end, or word of the helper. Two things are kept by asking first: `unflushed_bytes` stays within
    /// [`LOG_IN_FLIGHT_BYTES_MAX`] (unless one entry alone is longer), and what is appended lies where the disk has
    /// space already, so that a disk found full refuses only what comes later. On a full disk the second gives way:
    /// the caller appends only what must not be refused.
    pub fn has_room(&self, bytes: usize) -> bool {
        let unflushed = self.unflushed_bytes();
        if unflushed > 0 && unflushed + bytes + 2 * BLOCK_BYTES > LOG_IN_FLIGHT_BYTES_MAX {
            return false;
        }
        let spare_is_ready = matches!(self.spare, Spare::Ready { .. });
        let is_allocated = self.files.back().map_or(spare_is_ready, |file| {
            let end = file.end() + bytes as u64;
            // Where less is kept ahead than one entry may need (`preAllocSize=0`), the write itself allocates.
            end <= file.zeroed_upto
                || self.config.ahead_bytes < bytes as u64
                || (end > self.config.roll_bytes && spare_is_ready)
        });
        is_allocated || self.no_space.is_full()
    }

    /// Bytes that are not durable yet, those under way in whole blocks. What recovery takes for unfinished writes rests
    /// on their limit: see [`Log::has_room`].
    pub fn unflushed_bytes(&self) -> usize {
        let waiting = self.files.iter().map(|file| file.waiting_bytes()).sum::<usize>();
        let under_way = self.in_flight.iter().map(|write| write.len).sum::<usize>();
        waiting + under_way + self.early_bytes
    }

    pub fn appended(&self) -> Zxid {
        self.appended
    }

    pub fn flushed(&self) -> Zxid {
        self.flushed
    }

    /// Whether a durable write is under way.
    pub fn is_writing(&self) -> bool {
        !self.in_flight.is_empty()
    }

    pub fn deadline(&self) -> Option<Time> {
        let slowest = self.slowest.map(|(_, wait)| wait.deadline());
        let stop = self.stop_waits.map(Wait::deadline);
        [self.retry_at, slowest, stop].into_iter().flatten().min()
    }

    pub fn step(&mut self, now: Time, input: Input<B>, out: &mut Vec<Output<B>>) {
        let was_full = self.no_space.is_full();
        match input {
            Input::Submit => {}
            Input::Prepared { file, zeroed_upto } => self.on_prepared(file, zeroed_upto, out),
            Input::Named { file } => self.on_named(file),
            Input::Extended { file, upto } => self.on_extended(file, upto),
            Input::NoSpace { file } => self.on_no_space(file),
            Input::Written { write, buffer } => self.on_written(write, buffer),
            Input::Failed { what } => out.push(Output::Fatal { what }),
            Input::Roll => self.roll_wanted = self.files.back().is_some_and(|file| !file.is_empty()),
            Input::Stop => self.on_stop(out),
            Input::Timeout => {}
        }
        if self.no_space.is_full() != was_full {
            self.reserve_at_first = self.reserve_bytes();
            out.push(Output::Full(!was_full));
        }
        self.retry_full_disk(now, out);
        self.publish_flushed(out);
        self.stop_without_space(now);
        self.finish_files(out);
        if !self.no_space.extend {
            self.extend(out);
        }
        self.start_writes(out);
        self.watch_writes(now, out);
    }

    /// A write that never ends is as bad as one that fails, and says less.
    fn watch_writes(&mut self, now: Time, out: &mut Vec<Output<B>>) {
        let oldest = self.in_flight.front().map(|write| write.write);
        self.slowest = oldest.map(|id| match self.slowest {
            Some((known, wait)) if known == id => (id, wait),
            _ => (id, Wait::since(now)),
        });
        if let Some((_, wait)) = &mut self.slowest
            && wait.has_reached(FLUSH_LIMIT, now)
        {
            let what = format!(
                "a durable write of the log has not ended within {} s: nothing of it was acknowledged. Look at the disk, then \
                 start anew",
                FLUSH_LIMIT.as_secs()
            );
            out.push(Output::Fatal { what });
        }
    }

    fn on_prepared(&mut self, file: FileId, zeroed_upto: u64, out: &mut Vec<Output<B>>) {
        if self.spare != (Spare::Preparing { file }) {
            return;
        }
        if self.stopping && self.early.is_empty() {
            self.spare = Spare::None;
            out.push(Output::Discard { file });
            return;
        }
        self.spare = Spare::Ready { file, zeroed_upto };
        self.no_space.prepare = false;
        if self.files.is_empty() && !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            self.early_bytes = 0;
            self.roll(early[0].0, out);
            if let Some(log_file) = self.files.back_mut() {
                early.iter().for_each(|(zxid, entry)| log_file.append(*zxid, entry));
                log_file.sealed = self.stopping;
            }
        }
    }

    fn on_named(&mut self, id: FileId) {
        if let Some(file) = self.file_mut(id) {
            file.named = true;
        }
    }

    fn on_extended(&mut self, id: FileId, upto: u64) {
        self.no_space.extend = false;
        if let Some(file) = self.file_mut(id) {
            file.zeroing = None;
            file.zeroed_upto = file.zeroed_upto.max(upto);
        }
    }

    fn on_no_space(&mut self, id: FileId) {
        if self.spare == (Spare::Preparing { file: id }) {
            self.spare = Spare::None;
            self.no_space.prepare = self.wants_spare();
        }
        let is_last = self.files.back().is_some_and(|file| file.id == id);
        if let Some(file) = self.file_mut(id) {
            file.zeroing = None;
            self.no_space.extend |= is_last;
        }
    }

    /// A completion takes effect in its turn: what is behind it on the disk counts only when all before it is there.
    fn on_written(&mut self, write: WriteId, buffer: B) {
        self.buffers.push(buffer);
        if let Some(done) = self.in_flight.iter_mut().find(|w| w.write == write) {
            done.done = true;
        }
    }

    fn on_stop(&mut self, out: &mut Vec<Output<B>>) {
        self.stopping = true;
        self.no_space.prepare &= self.wants_spare();
        if let Some(file) = self.files.back_mut() {
            file.sealed = true;
        }
        if let Spare::Ready { file, .. } = self.spare
            && self.early.is_empty()
        {
            self.spare = Spare::None;
            out.push(Output::Discard { file });
        }
    }

    fn file_mut(&mut self, id: FileId) -> Option<&mut LogFile> {
        self.files.iter_mut().find(|file| file.id == id)
    }

    /// Asks again for what the disk had no space for; it stays full until that has come.
    fn retry_full_disk(&mut self, now: Time, out: &mut Vec<Output<B>>) {
        let Some(at) = self.retry_at.filter(|_| self.no_space.is_full()) else {
            self.retry_at = self.no_space.is_full().then(|| now + self.config.retry_after);
            return;
        };
        if now >= at {
            self.retry_at = Some(now + self.config.retry_after);
            self.prepare_spare(out);
            self.extend(out);
        }
    }

    /// A log that is stopping needs another file only for what came before it had one.
    fn wants_spare(&self) -> bool {
        !self.stopping || !self.early.is_empty()
    }

    fn prepare_spare(&mut self, out: &mut Vec<Output<B>>) {
        if self.spare != Spare::None || !self.wants_spare() {
            return;
        }
        let file = self.next_file;
        self.next_file = FileId(file.0 + 1);
        self.spare = Spare::Preparing { file };
        out.push(Output::Prepare { file, upto: self.config.stretch_bytes });
    }

    /// Goes on in the spare file, if it is there; otherwise the old one has to do for longer.
    fn roll(&mut self, first: Zxid, out: &mut Vec<Output<B>>) {
        let Spare::Ready { file, zeroed_upto } = self.spare else { return };
        if let Some(old) = self.files.back_mut() {
            old.sealed = true;
        }
        self.roll_wanted = false;
        self.spare = Spare::None;
        self.no_space.extend = false;
        out.push(Output::Name { file, first });
        self.files.push_back(LogFile::new(file, zeroed_upto));
        self.prepare_spare(out);
    }

    /// Hands out what is durable as a strict prefix of what was written.
    fn publish_flushed(&mut self, out: &mut Vec<Output<B>>) {
        let before = self.flushed;
        while let Some(write) = self.in_flight.front().copied()
            && write.done
        {
            let Some(file) = self.files.iter_mut().find(|file| file.id == write.file) else { break };
            if !file.named && !mutant::is_active(Mutant::FlushBeforeName) {
                break;
            }
            self.flushed = write.upto.unwrap_or(self.flushed).max(self.flushed);
            self.in_flight.pop_front();
        }
        let is_early = |write: &&InFlight| write.done && mutant::is_active(Mutant::FlushOutOfOrder);
        let early = self.in_flight.iter().filter(|write| is_early(write) || mutant::is_active(Mutant::AckBeforeFlush));
        self.flushed = early.filter_map(|write| write.upto).fold(self.flushed, Zxid::max);
        if self.flushed > before {
            out.push(Output::Flushed { upto: self.flushed });
        }
    }

    /// Lets go of files that are whole and durable.
    fn finish_files(&mut self, out: &mut Vec<Output<B>>) {
        while let Some(file) = self.files.front() {
            let busy = file.zeroing.is_some() || self.in_flight.iter().any(|write| write.file == file.id);
            if !file.sealed || busy || !file.is_started() {
                return;
            }
            let (file, used) = (file.id, file.used());
            // A file of that name without an entry would make Java skip what comes before it.
            let is_used = used > log_file::FILE_HEADER_BYTES as u64;
            out.push(if is_used { Output::Finish { file, used } } else { Output::Discard { file } });
            self.files.pop_front();
        }
        if self.stopping && self.early.is_empty() && !matches!(self.spare, Spare::Preparing { .. }) && !self.stopped {
            self.stopped = true;
            out.push(Output::Stopped);
        }
    }

    /// A stop on a full disk waits for a while for what still has to be written, and then goes without. None of it was
    /// acknowledged.
    fn stop_without_space(&mut self, now: Time) {
        let must_wait = self.stopping && !self.stopped && self.no_space.is_full();
        self.stop_waits = must_wait.then(|| self.stop_waits.unwrap_or(Wait::since(now)));
        if let Some(wait) = &mut self.stop_waits
            && wait.has_reached(STOP_ON_FULL_DISK_LIMIT, now)
        {
            self.files.iter_mut().for_each(LogFile::give_up);
            self.early.clear();
            self.early_bytes = 0;
        }
    }

    /// Keeps a zeroed stretch ahead of the writes.
    fn extend(&mut self, out: &mut Vec<Output<B>>) {
        let Some(file) = self.files.back_mut() else { return };
        let wanted = (file.end() + self.config.ahead_bytes).min(self.config.roll_bytes);
        if (file.sealed && !self.no_space.extend) || file.zeroing.is_some() || file.zeroed_upto >= wanted {
            return;
        }
        // Where the writes have overtaken the zeros, they get a head start again.
        let from = match file.end() < file.zeroed_upto {
            true => file.zeroed_upto,
            false => file.end().next_multiple_of(BLOCK) + self.config.stretch_bytes,
        };
        let upto = from + self.config.stretch_bytes;
        file.zeroing = Some(Zeroing { from, upto });
        out.push(Output::Extend { file: file.id, from, upto });
    }

    fn start_writes(&mut self, out: &mut Vec<Output<B>>) {
        while self.in_flight.iter().filter(|write| !write.done).count() < self.config.writes_in_flight {
            if self.buffers.is_empty() || !self.start_write(out) {
                return;
            }
        }
    }

    /// Starts one write, of the oldest file that has anything to write. `false`: there is nothing, or it has to wait.
    fn start_write(&mut self, out: &mut Vec<Output<B>>) -> bool {
        let Some(file) = self.files.iter_mut().find(|file| !file.is_started()) else { return false };
        // The block that the last write ended in is written again, so that write must be over; and a file starts only
        // once the one before it is whole, or a crash would leave a hole between the two.
        let must_wait = |write: &InFlight| {
            let shares_block = write.partial && !mutant::is_active(Mutant::WritesShareBlock);
            !write.done && (shares_block || write.file != file.id)
        };
        if self.in_flight.iter().any(must_wait) {
            return false;
        }
        let Some(mut buffer) = self.buffers.pop() else { return false };
        if self.config.writes_in_flight > 1 {
            file.pad(buffer.as_ref().len());
        }
        let full = self.no_space.is_full();
        let Some(write) = file.fill(buffer.as_mut(), full) else {
            self.buffers.push(buffer);
            return false;
        };
        let id = self.next_write;
        self.next_write = WriteId(id.0 + 1);
        let WriteRange { offset, len, upto, partial } = write;
        self.in_flight.push_back(InFlight { write: id, file: file.id, upto, len, partial, done: false });
        out.push(Output::Write { write: id, file: file.id, offset, len, buffer });
        true
    }
}

#[cfg(test)]
mod tests;
