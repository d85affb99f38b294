//! A sliding view over a file that is read from front to back.

use std::io::{self, ErrorKind, Read};

/// Bytes read at once. Grows only to hold one record that is longer.
const WINDOW_BYTES: usize = 1 << 20;

/// Hands out contiguous bytes of a source without a copy per field.
pub(super) struct Window<R> {
    source: R,
    buffer: Vec<u8>,
    /// What has been read and not consumed: `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Where `start` lies in the source.
    offset: u64,
}

impl<R: Read> Window<R> {
    pub fn new(source: R) -> Window<R> {
        Window { source, buffer: Vec::new(), start: 0, end: 0, offset: 0 }
    }

    /// Position of the first byte that is not consumed.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Reads until `len` bytes are there. `false`: the source ends before.
    pub fn fill(&mut self, len: usize) -> io::Result<bool> {
        if self.end - self.start >= len {
            return Ok(true);
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let wanted = len.max(WINDOW_BYTES);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        while self.end < len {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(n) => self.end += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Moves on by `len` bytes, which must have been filled.
    pub fn consume(&mut self, len: usize) {
        assert!(len <= self.end - self.start);
        self.start += len;
        self.offset += len as u64;
    }

    /// The same, and hands out the bytes that were passed.
    pub fn pass(&mut self, len: usize) -> &[u8] {
        self.consume(len);
        &self.buffer[self.start - len..self.start]
    }
}
