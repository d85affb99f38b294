//! The format of one log file, `log.<zxid of its first entry>`.
//!
//! ```text
//! file    [magic "ZKLG":i32][version 2:i32][dbid 0:i64] entry… zeros…
//! entry   [Adler-32 of the payload:i64][length:i32][payload]['B']
//! payload a txn, see `wire::txn`
//! ```
//!
//! Source: `FileTxnLog`. The checksum covers neither the length nor the mark; nothing is aligned; the zeros behind the
//! last entry may be absent.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use super::window::Window;
use crate::types::limits;
use crate::types::mutant::{self, Mutant};
use crate::types::zxid::Zxid;
use crate::wire::txn::{self, TxnHeader};

/// `ZKLG`.
const MAGIC: [u8; 4] = *b"ZKLG";
/// Bytes before the first entry.
pub const FILE_HEADER_BYTES: usize = 16;
/// What opens every file. The version is not looked at when reading, as in Java.
pub const FILE_HEADER: [u8; FILE_HEADER_BYTES] = *b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0";
/// Checksum and length.
pub const ENTRY_HEAD_BYTES: usize = 12;
/// Ends every entry.
pub const ENTRY_MARK: u8 = b'B';
/// What an entry adds to its payload.
pub const ENTRY_EXTRA_BYTES: usize = ENTRY_HEAD_BYTES + 1;
/// Longest payload that a Java server with its default `jute.maxbuffer` reads back.
pub const PAYLOAD_BYTES_MAX: usize = limits::FRAME_BYTES_MAX + limits::EXTRA_BYTES_MAX;
/// What a disk writes as a whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// Appends entries to a buffer, as they lie in the file.
#[derive(Clone, Copy, Debug)]
pub struct EntryWriter {
    /// Longest payload, bytes.
    pub payload_bytes_max: usize,
}

impl Default for EntryWriter {
    fn default() -> EntryWriter {
        EntryWriter { payload_bytes_max: PAYLOAD_BYTES_MAX }
    }
}

/// A payload of so many bytes would make the directory unreadable, for Java as for us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PayloadTooLong(pub usize);

impl fmt::Display for PayloadTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a txn of {} bytes does not fit into a log entry", self.0)
    }
}

impl std::error::Error for PayloadTooLong {}

impl EntryWriter {
    /// Appends one entry whose payload `write` produces, and returns the payload's length. On an error the buffer is
    /// as it was.
    pub fn append(&self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Result<usize, PayloadTooLong> {
        let start = out.len();
        out.extend_from_slice(&[0; ENTRY_HEAD_BYTES]);
        write(out);
        let length = out.len() - start - ENTRY_HEAD_BYTES;
        if length > self.payload_bytes_max || length > i32::MAX as usize {
            out.truncate(start);
            return Err(PayloadTooLong(length));
        }
        assert!(length > 0, "an empty payload reads as the end of the file");
        out.push(ENTRY_MARK);
        seal_entry(&mut out[start..]);
        Ok(length)
    }
}

/// Fills in checksum and length of an entry whose payload and mark are in place.
pub(super) fn seal_entry(entry: &mut [u8]) {
    let (head, rest) = entry.split_at_mut(ENTRY_HEAD_BYTES);
    let payload = &rest[..rest.len() - 1];
    let checksum = u64::from(simd_adler32::adler32(&payload));
    head[..8].copy_from_slice(&checksum.to_be_bytes());
    head[8..].copy_from_slice(&(payload.len() as i32).to_be_bytes());
}

/// The payload of one framed entry, without any check; `None` if it is too short to be one.
pub fn payload_of(entry: &[u8]) -> Option<&[u8]> {
    entry.get(ENTRY_HEAD_BYTES..entry.len().checked_sub(1)?)
}

/// One whole entry.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Where it starts in its file.
    pub offset: u64,
    /// Where the next one starts.
    pub end: u64,
    pub header: TxnHeader,
    pub payload: &'a [u8],
}

/// Why there is no further entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// End of the file, or a length of 0: padding.
    End,
    /// The file ends inside the entry.
    Short,
    /// The mark is another byte.
    Mark(u8),
    /// The payload is not the one that was written.
    Checksum,
    /// No entry has this length.
    Length(i32),
    /// A whole entry that does not hold a txn.
    Txn(txn::TxnError),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::End => f.write_str("end of entries"),
            Why::Short => f.write_str("the file ends inside the entry"),
            Why::Mark(mark) => write!(f, "the entry ends with 0x{mark:02x} instead of its mark"),
            Why::Checksum => f.write_str("CRC check failed"),
            Why::Length(len) => write!(f, "Unreasonable length = {len}"),
            Why::Txn(error) => error.fmt(f),
        }
    }
}

/// Where reading stopped, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stop {
    /// Right behind the last whole entry.
    pub offset: u64,
    /// Where the entry that is none would end, as far as its head tells.
    pub end: u64,
    pub why: Why,
}

/// What is wrong with the first bytes of a log file.
#[derive(Debug)]
pub enum OpenError {
    Io(io::Error),
    /// Not a single byte.
    Empty,
    /// Less than a header.
    ShortHeader(usize),
    Magic([u8; 4]),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> OpenError {
        OpenError::Io(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Io(error) => error.fmt(f),
            OpenError::Empty => f.write_str("the file is empty"),
            OpenError::ShortHeader(len) => write!(f, "the file ends inside its header, after {len} bytes"),
            OpenError::Magic(magic) => write!(f, "the file starts with {magic:02x?} instead of ZKLG"),
        }
    }
}

impl std::error::Error for OpenError {}

/// Reads the entries of one file from the front, in bounded memory.
pub struct LogReader<R> {
    window: Window<R>,
    payload_bytes_max: usize,
}

impl<R: Read> LogReader<R> {
    /// Reads the file header. `payload_bytes_max`: what a length may say, bytes.
    pub fn open(source: R, payload_bytes_max: usize) -> Result<LogReader<R>, OpenError> {
        let mut window = Window::new(source);
        if !window.fill(FILE_HEADER_BYTES)? {
            return Err(match window.bytes().len() {
                0 => OpenError::Empty,
                len => OpenError::ShortHeader(len),
            });
        }
        if let Some(&magic) = window.bytes().first_chunk::<4>()
            && magic != MAGIC
        {
            return Err(OpenError::Magic(magic));
        }
        window.consume(FILE_HEADER_BYTES);
        Ok(LogReader { window, payload_bytes_max })
    }

    /// The next entry, or why there is none. After a stop every further call stops at the same place.
    /// Errors: the file could not be read.
    pub fn next_entry(&mut self) -> io::Result<Result<Entry<'_>, Stop>> {
        let offset = self.window.offset();
        let stop = |end, why| Ok(Err(Stop { offset, end, why }));
        if !self.window.fill(ENTRY_HEAD_BYTES)? {
            let rest = self.window.bytes();
            let why = if rest.iter().all(|&b| b == 0) { Why::End } else { Why::Short };
            return stop(offset + rest.len() as u64, why);
        }
        let (checksum, length) = split_head(self.window.bytes());
        if length == 0 {
            return stop(offset + ENTRY_HEAD_BYTES as u64, Why::End);
        }
        if length < 0 || length as usize > self.payload_bytes_max {
            return stop(offset + ENTRY_HEAD_BYTES as u64, Why::Length(length));
        }
        let len = length as usize + ENTRY_EXTRA_BYTES;
        let end = offset + len as u64;
        if !self.window.fill(len)? {
            return stop(offset + self.window.bytes().len() as u64, Why::Short);
        }
        let (payload, mark) = self.window.bytes()[ENTRY_HEAD_BYTES..len].split_at(length as usize);
        if mark != [ENTRY_MARK] {
            return stop(end, Why::Mark(mark[0]));
        }
        let is_whole = checksum == u64::from(simd_adler32::adler32(&payload));
        if !is_whole && !mutant::is_active(Mutant::TornEntryAccepted) {
            return stop(end, Why::Checksum);
        }
        let header = match TxnHeader::peek(payload) {
            Ok((header, _)) => header,
            Err(error) => return stop(end, Why::Txn(error)),
        };
        // The borrow of the payload has to start after the window has moved on.
        let passed = self.window.pass(len);
        Ok(Ok(Entry { offset, end, header, payload: &passed[ENTRY_HEAD_BYTES..len - 1] }))
    }
}

/// Checksum and length of an entry; the slice holds at least its head.
fn split_head(head: &[u8]) -> (u64, i32) {
    let mut checksum = [0; 8];
    let mut length = [0; 4];
    checksum.copy_from_slice(&head[..8]);
    length.copy_from_slice(&head[8..ENTRY_HEAD_BYTES]);
    (u64::from_be_bytes(checksum), i32::from_be_bytes(length))
}

/// What a stop in the last log file means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing but zeros follows.
    Clean,
    /// Writes that did not finish before the power went or the process died: nothing from here on was acknowledged.
    /// `bytes`: from here to the last byte that is not zero.
    Torn { bytes: u64 },
    /// It was whole once: acknowledged txns are lost if it is cut here.
    Rot,
}

/// Tells unfinished writes from rot, in the last log file.
///
/// Files are zeroed ahead, so a sector that was under way when the power went reads as zeros, or ends in them where its
/// older form was. Several may have been under way, so whole entries behind a hole prove nothing, as long as all of it
/// fits into what may be in flight. Without such a hole an incomplete entry is torn only if no whole entry follows, and
/// one with its mark in place but another checksum is rot (Java refuses it, too).
///
/// `last`: zxid of the last whole entry; `in_flight_max`: [`limits::LOG_IN_FLIGHT_BYTES_MAX`].
pub fn judge(file: &File, stop: &Stop, last: Zxid, in_flight_max: u64) -> io::Result<Verdict> {
    let Some(used) = last_nonzero(file, stop.offset)? else { return Ok(Verdict::Clean) };
    let bytes = used - stop.offset;
    let torn = Verdict::Torn { bytes };
    let whole_behind = || find_entry(file, (stop.offset + 1).min(used), used, last);
    if bytes > in_flight_max {
        // Java ignores what follows a length of 0; only whole entries there were ever of worth.
        return Ok(if stop.why == Why::End && !whole_behind()? { torn } else { Verdict::Rot });
    }
    Ok(match stop.why {
        Why::End => torn,
        Why::Txn(_) => Verdict::Rot,
        Why::Short | Why::Mark(_) => {
            if has_hole(file, stop)? || !whole_behind()? {
                torn
            } else {
                Verdict::Rot
            }
        }
        Why::Checksum | Why::Length(_) => {
            if has_hole(file, stop)? {
                torn
            } else {
                Verdict::Rot
            }
        }
    })
}

/// End of the last byte from `from` on that is not zero.
fn last_nonzero(file: &File, from: u64) -> io::Result<Option<u64>> {
    const STRIDE: u64 = 1 << 20;
    let rest = file.metadata()?.len().saturating_sub(from);
    let mut buffer = vec![0; rest.clamp(1, STRIDE) as usize];
    let (mut at, mut found) = (from, None);
    loop {
        let len = read_at_most(file, &mut buffer, at)?;
        if len == 0 {
            return Ok(found);
        }
        if let Some(last) = buffer[..len].iter().rposition(|&b| b != 0) {
            found = Some(at + last as u64 + 1);
        }
        at += len as u64;
    }
}

/// Whether a sector's share of the damaged entry was never written.
fn has_hole(file: &File, stop: &Stop) -> io::Result<bool> {
    let mut bytes = vec![0; (stop.end - stop.offset) as usize];
    let len = read_at_most(file, &mut bytes, stop.offset)?;
    // The upper half of the checksum is zero by itself.
    let mut from = 4;
    while from < len {
        let in_sector = SECTOR_BYTES - (stop.offset + from as u64) % SECTOR_BYTES;
        let to = len.min(from + in_sector as usize);
        if bytes[from..to].iter().all(|&b| b == 0) {
            return Ok(true);
        }
        from = to;
    }
    Ok(false)
}

/// Whether a whole entry newer than `last` starts anywhere in `from..to`.
fn find_entry(file: &File, from: u64, to: u64, last: Zxid) -> io::Result<bool> {
    const STRIDE: usize = 4 << 20;
    let mut buffer = vec![0; ((to - from) as usize).min(STRIDE + PAYLOAD_BYTES_MAX + ENTRY_EXTRA_BYTES)];
    let mut at = from;
    while at < to {
        let len = read_at_most(file, &mut buffer, at)?;
        let bytes = &buffer[..len];
        if (0..len.min(STRIDE)).any(|start| is_entry(&bytes[start..], last)) {
            return Ok(true);
        }
        at += STRIDE as u64;
    }
    Ok(false)
}

/// Whether the bytes start with a whole entry that could follow `last`. Cheap for those that do not.
fn is_entry(bytes: &[u8], last: Zxid) -> bool {
    const EPOCHS_AHEAD_MAX: u32 = 256;
    if bytes.len() < ENTRY_HEAD_BYTES + txn::HEADER_BYTES || bytes[..4] != [0; 4] || bytes[4..8] == [0; 4] {
        return false;
    }
    let (checksum, length) = split_head(bytes);
    if !(txn::HEADER_BYTES as i32..=PAYLOAD_BYTES_MAX as i32).contains(&length) {
        return false;
    }
    let end = ENTRY_HEAD_BYTES + length as usize;
    if bytes.get(end) != Some(&ENTRY_MARK) {
        return false;
    }
    let payload = &bytes[ENTRY_HEAD_BYTES..end];
    TxnHeader::peek(payload)
        .is_ok_and(|(header, _)| header.zxid > last && header.zxid.epoch() - last.epoch() <= EPOCHS_AHEAD_MAX)
        && checksum == u64::from(simd_adler32::adler32(&payload))
}

/// Reads from `at` until the buffer is full or the file ends.
fn read_at_most(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read_at(&mut buffer[len..], at + len as u64) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}
