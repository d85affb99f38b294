//! Page-aligned memory, and the buffers that the kernel fills with what sockets receive.

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// Anonymous pages: zero at first, page-aligned, resident only once touched.
pub struct Pages {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: `Pages` owns its mapping alone, as a `Box<[u8]>` owns its heap block; no thread is special to it.
unsafe impl Send for Pages {}
// SAFETY: through `&Pages` bytes can only be read.
unsafe impl Sync for Pages {}

impl Pages {
    /// `length` bytes, more than 0; the mapping is rounded up to whole pages by the kernel.
    pub fn new(length: usize) -> io::Result<Pages> {
        assert!(length > 0);
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap without MAP_FIXED never returns null");
        Ok(Pages { start, length })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length and is unmapped once, here.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `length` bytes from `start` are mapped and initialised (anonymous pages read as zero) for as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` excludes other readers and writers.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

/// Aligned memory for one write of the log. Made by `Ring::log_buffer`.
pub struct LogBuffer {
    pages: Pages,
    /// Its place among the registered buffers of the ring that made it.
    pub(super) registered: Option<u16>,
}

impl LogBuffer {
    pub fn new(length: usize) -> io::Result<LogBuffer> {
        Ok(LogBuffer { pages: Pages::new(length)?, registered: None })
    }
}

impl Deref for LogBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.pages
    }
}

impl DerefMut for LogBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.pages
    }
}

impl AsRef<[u8]> for LogBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for LogBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl std::fmt::Debug for LogBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogBuffer({} bytes, registered {:?})", self.len(), self.registered)
    }
}

/// Buffers of one size that the kernel takes when something was received (an io_uring "buffer ring").
///
/// A buffer is either the kernel's (it may be written at any moment) or lent (it is not, until `give_back`).
pub(super) struct Provided {
    entries: Pages,
    memory: Pages,
    buffer_bytes: u32,
    count: u16,
    tail: u16,
    /// `lent[i]`: the kernel has handed buffer `i` out and not got it back.
    lent: Vec<bool>,
}

impl Provided {
    /// `count` buffers (a power of two, at most 32,768) of `buffer_bytes` each, none of them the kernel's yet.
    pub(super) fn new(count: u16, buffer_bytes: u32) -> io::Result<Provided> {
        assert!(count.is_power_of_two() && count <= 1 << 15);
        assert!(buffer_bytes > 0);
        Ok(Provided {
            entries: Pages::new(usize::from(count) * size_of::<BufRingEntry>())?,
            memory: Pages::new(usize::from(count) * buffer_bytes as usize)?,
            buffer_bytes,
            count,
            tail: 0,
            lent: vec![true; usize::from(count)],
        })
    }

    pub(super) fn entries_address(&self) -> u64 {
        self.entries.start.as_ptr() as u64
    }

    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// The kernel chose `buffer`: from now on it is ours to read.
    pub(super) fn on_taken(&mut self, buffer: u16) {
        let lent = &mut self.lent[usize::from(buffer)];
        assert!(!*lent, "the kernel handed out buffer {buffer} twice");
        *lent = true;
    }

    /// The first `length` bytes of a lent buffer.
    pub(super) fn bytes(&self, buffer: u16, length: u32) -> &[u8] {
        assert!(self.lent[usize::from(buffer)], "buffer {buffer} is the kernel's");
        assert!(length <= self.buffer_bytes);
        let from = usize::from(buffer) * self.buffer_bytes as usize;
        // SAFETY: in bounds of `memory` (`buffer < count`, or `lent` would have panicked). The kernel writes to a buffer only
        // between `give_back` (`&mut self`, so after this borrow) and `on_taken`.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr().add(from), length as usize) }
    }

    /// The kernel may write to `buffer` again.
    pub(super) fn give_back(&mut self, buffer: u16) {
        let index = usize::from(buffer);
        assert!(self.lent[index], "buffer {buffer} was not lent");
        self.lent[index] = false;
        let at = usize::from(self.tail & (self.count - 1));
        let address = self.memory.start.as_ptr() as u64 + (index * self.buffer_bytes as usize) as u64;
        // SAFETY: `at < count`, so the entry lies within `entries`, which is page-aligned and sized for `count` entries. The kernel
        // reads an entry only once the tail has moved past it, below. Entries are plain integers.
        unsafe {
            let base = self.entries.start.as_ptr().cast::<BufRingEntry>();
            let entry = &mut *base.add(at);
            entry.set_addr(address);
            entry.set_len(self.buffer_bytes);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(base).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_aligned_zero_and_writable() {
        let mut pages = Pages::new(10_000).expect("10,000 bytes of memory");
        assert_eq!(pages.as_ptr() as usize % 4096, 0);
        assert!(pages.iter().all(|byte| *byte == 0));
        pages[9_999] = 7;
        assert_eq!(pages[9_999], 7);
    }

    #[test]
    #[should_panic(expected = "is the kernel's")]
    fn a_buffer_that_the_kernel_owns_cannot_be_read() {
        let mut provided = Provided::new(2, 64).expect("memory");
        provided.give_back(1);
        provided.bytes(1, 10);
    }
}
