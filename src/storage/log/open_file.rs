//! One file of the log from the machine's point of view: what is pending, and how it becomes writes.

use std::collections::VecDeque;

use super::{BLOCK_BYTES, FileId};
use crate::storage::log_file::{self, ENTRY_HEAD_BYTES, FILE_HEADER, FILE_HEADER_BYTES, PAYLOAD_BYTES_MAX};
use crate::types::zxid::Zxid;

/// Work of the helper on the end of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Zeroing {
    pub from: u64,
    pub upto: u64,
}

/// A file with entries, or about to get its first.
#[derive(Debug)]
pub struct LogFile {
    pub id: FileId,
    /// Whether its name is durable.
    pub named: bool,
    /// Bytes that exist on disk as zeros or entries.
    pub zeroed_upto: u64,
    pub zeroing: Option<Zeroing>,
    /// Where `pending` starts: a block border.
    pending_at: u64,
    /// Bytes not yet durable or in the last, partial block: `pending_at..`.
    pending: Vec<u8>,
    /// How much of `pending` is in writes that have started.
    started: usize,
    /// Entries that end in `pending` behind `started`.
    entries: VecDeque<EntryEnd>,
    /// No further entry goes here.
    pub sealed: bool,
    /// What no write covers yet never will be written.
    is_given_up: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct EntryEnd {
    zxid: Zxid,
    /// Offset in the file.
    start: u64,
    end: u64,
}

/// A write that has been copied into a buffer.
pub struct WriteRange {
    pub offset: u64,
    pub len: usize,
    pub upto: Option<Zxid>,
    pub partial: bool,
}

impl LogFile {
    pub fn new(id: FileId, zeroed_upto: u64) -> LogFile {
        LogFile {
            id,
            named: false,
            zeroed_upto,
            zeroing: None,
            pending_at: 0,
            pending: FILE_HEADER.to_vec(),
            started: FILE_HEADER_BYTES,
            entries: VecDeque::new(),
            sealed: false,
            is_given_up: false,
        }
    }

    /// Behind the last entry.
    pub fn end(&self) -> u64 {
        self.pending_at + self.pending.len() as u64
    }

    pub fn is_empty(&self) -> bool {
        self.end() == FILE_HEADER_BYTES as u64
    }

    /// Behind the last entry that is wholly on its way.
    pub fn used(&self) -> u64 {
        self.entries.front().map_or(self.end(), |entry| entry.start)
    }

    /// Whether everything is at least on its way.
    pub fn is_started(&self) -> bool {
        self.started == self.pending.len() || self.is_given_up
    }

    /// Leaves unwritten what is not on its way.
    pub fn give_up(&mut self) {
        self.is_given_up = true;
    }

    /// Bytes that no write covers yet.
    pub fn waiting_bytes(&self) -> usize {
        self.pending.len() - self.started
    }

    pub fn append(&mut self, zxid: Zxid, entry: &[u8]) {
        assert!(!self.sealed);
        let start = self.end();
        self.pending.extend_from_slice(entry);
        self.entries.push_back(EntryEnd { zxid, start, end: self.end() });
    }

    /// Fills the last entry up to a block border, with zeros behind its txn, if all that is pending fits into one write.
    pub fn pad(&mut self, buffer_bytes: usize) {
        let padding = self.pending.len().next_multiple_of(BLOCK_BYTES) - self.pending.len();
        let Some(last) = self.entries.back_mut() else { return };
        // An entry whose first blocks are on their way can no longer change.
        if padding == 0 || last.start < self.pending_at {
            return;
        }
        let start = (last.start - self.pending_at) as usize;
        let payload = self.pending.len() - start - ENTRY_HEAD_BYTES - 1;
        if self.pending.len() + padding > buffer_bytes || payload + padding > PAYLOAD_BYTES_MAX {
            return;
        }
        self.pending.pop();
        self.pending.resize(self.pending.len() + padding, 0);
        self.pending.push(log_file::ENTRY_MARK);
        log_file::seal_entry(&mut self.pending[start..]);
        last.end += padding as u64;
    }

    /// Copies what the buffer takes, and keeps the last, partial block. `None`: the range is not to be written now.
    pub fn fill(&mut self, buffer: &mut [u8], full: bool) -> Option<WriteRange> {
        let data = self.pending.len().min(buffer.len());
        let len = data.next_multiple_of(BLOCK_BYTES);
        let offset = self.pending_at;
        let upto = offset + len as u64;
        // The helper's zeros must not land on entries; and on a full disk only what is allocated can be written.
        if self.zeroing.is_some_and(|zeroing| upto > zeroing.from) || (full && upto > self.zeroed_upto) {
            return None;
        }
        buffer[..data].copy_from_slice(&self.pending[..data]);
        buffer[data..len].fill(0);
        let end = offset + data as u64;
        let mut last = None;
        while let Some(entry) = self.entries.front()
            && entry.end <= end
        {
            last = Some(entry.zxid);
            self.entries.pop_front();
        }
        let whole = data - data % BLOCK_BYTES;
        self.pending.drain(..whole);
        self.pending_at += whole as u64;
        self.started = data - whole;
        self.zeroed_upto = self.zeroed_upto.max(upto);
        Some(WriteRange { offset, len, upto: last, partial: data != whole })
    }
}
