//! Durable writes of the log: O_DIRECT with RWF_DSYNC, from registered buffers to registered files where the kernel allows it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use super::{Event, LogBuffer, Ring, Tag};
use crate::io::kernel::calls;
use crate::io::kernel::uring::{Completed, FileTarget, Held, Operation};

/// Offsets and lengths of log writes are multiples of this: no disk has larger blocks that O_DIRECT must respect.
pub const LOG_BLOCK_BYTES: usize = 4096;

/// An open log of this ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogFile(u16);

/// One log write. Rises by one with each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WriteToken(pub u64);

/// `forceSync` of zoo.cfg.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForceSync {
    /// `Written` means that it survives a power cut.
    Yes,
    /// `Written` means that the kernel has it.
    No,
}

#[derive(Default)]
pub(super) struct LogWrites {
    files: Vec<Option<OpenLog>>,
    writes: Vec<Option<LogWrite>>,
    next_token: u64,
    /// That writes are buffered is said once, not for each file.
    said: bool,
}

struct OpenLog {
    file: File,
    target: FileTarget,
    how: How,
    in_flight: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// RWF_DSYNC on each write.
    Durable,
    /// Through the page cache, then `fdatasync`: the file system refused the above.
    ThenSync,
    /// Without any sync, because forceSync=no.
    Plain,
}

struct LogWrite {
    token: WriteToken,
    file: u16,
    how: How,
    offset: u64,
    length: usize,
    written: usize,
    /// Ours while it is synced, the kernel's while it is written.
    buffer: Option<LogBuffer>,
}

impl Ring {
    /// Takes a log file over. It should have been opened with O_DIRECT; without it, or where the file system refuses it,
    /// writes go through the page cache.
    pub fn add_log(&mut self, file: File, sync: ForceSync) -> LogFile {
        let target = self.uring.add_file(file.as_fd());
        let how = match sync {
            ForceSync::Yes => How::Durable,
            ForceSync::No => How::Plain,
        };
        let place = place_in(&mut self.log.files, OpenLog { file, target, how, in_flight: 0 });
        LogFile(u16::try_from(place).expect("a handful of logs are open at a time"))
    }

    /// Hands the file back. No write to it may be in flight.
    pub fn remove_log(&mut self, file: LogFile) -> File {
        let log = self.log.files[usize::from(file.0)].take().expect("an open log");
        assert_eq!(log.in_flight, 0);
        self.uring.remove_file(log.target);
        log.file
    }

    /// A buffer of at least `length` bytes, page-aligned. Its content is whatever it was: zero what you do not fill.
    pub fn log_buffer(&mut self, length: usize) -> io::Result<LogBuffer> {
        self.uring.log_buffer(length.next_multiple_of(LOG_BLOCK_BYTES))
    }

    /// Returns the buffer of a `Written` event for reuse.
    pub fn give_back_log_buffer(&mut self, buffer: LogBuffer) {
        self.uring.give_back_log_buffer(buffer);
    }

    /// Writes `buffer[..length]` at `offset`; `Written` says when it is durable. Several writes may be in flight, and complete
    /// in any order; no two of them may touch the same block.
    pub fn write_log(&mut self, file: LogFile, offset: u64, buffer: LogBuffer, length: usize) -> WriteToken {
        assert!(length > 0 && length.is_multiple_of(LOG_BLOCK_BYTES) && length <= buffer.len());
        assert!(offset.is_multiple_of(LOG_BLOCK_BYTES as u64));
        let token = WriteToken(self.log.next_token);
        self.log.next_token += 1;
        let log = self.log.files[usize::from(file.0)].as_mut().expect("an open log");
        log.in_flight += 1;
        let write = LogWrite { token, file: file.0, how: log.how, offset, length, written: 0, buffer: None };
        let place = place_in(&mut self.log.writes, write);
        self.start_write(place, buffer);
        token
    }

    /// Log writes that have not ended.
    pub fn log_writes_in_flight(&self) -> usize {
        self.log.writes.iter().flatten().count()
    }

    fn start_write(&mut self, place: u32, buffer: LogBuffer) {
        let write = self.log.writes[place as usize].as_mut().expect(IN_FLIGHT);
        let log = self.log.files[usize::from(write.file)].as_ref().expect(OPEN);
        write.how = log.how;
        let operation = Operation::Write {
            file: log.target,
            offset: write.offset + write.written as u64,
            buffer,
            range: write.written..write.length,
            durable: log.how == How::Durable,
        };
        self.uring.start(Tag::Write(place), operation);
    }

    pub(super) fn on_write(&mut self, place: u32, completed: Completed<Tag>, events: &mut Vec<Event>) {
        let Held::Log(buffer) = completed.held else { unreachable!("a write hands its buffer back") };
        let write = self.log.writes[place as usize].as_mut().expect(IN_FLIGHT);
        let errno = match usize::try_from(completed.result) {
            Ok(0) => libc::EIO,
            Ok(written) => {
                write.written += written;
                if write.written < write.length {
                    return self.start_write(place, buffer);
                }
                if write.how != How::ThenSync {
                    return events.push(self.written(place, buffer, Ok(())));
                }
                write.buffer = Some(buffer);
                let log = self.log.files[usize::from(write.file)].as_ref().expect(OPEN);
                self.uring.start(Tag::Sync(place), Operation::Sync(log.target));
                return;
            }
            Err(_) => -completed.result,
        };
        let refused = matches!(errno, libc::EINVAL | libc::EOPNOTSUPP) && write.how == How::Durable;
        if errno == libc::EINTR || (refused && self.write_buffered(place)) {
            return self.start_write(place, buffer);
        }
        events.push(self.written(place, buffer, Err(io::Error::from_raw_os_error(errno))));
    }

    /// The file system knows no O_DIRECT or no RWF_DSYNC. False if it cannot be helped.
    fn write_buffered(&mut self, place: u32) -> bool {
        let write = self.log.writes[place as usize].as_ref().expect(IN_FLIGHT);
        let log = self.log.files[usize::from(write.file)].as_mut().expect(OPEN);
        if calls::make_buffered(log.file.as_fd()).is_err() {
            return false;
        }
        log.how = How::ThenSync;
        if !self.log.said {
            self.log.said = true;
            tracing::warn!(
                "the file system of the transaction log has no durable direct writes (tmpfs?): it is written through the page \
                 cache with fdatasync, which is slower"
            );
        }
        true
    }

    pub(super) fn on_sync(&mut self, place: u32, completed: Completed<Tag>, events: &mut Vec<Event>) {
        let write = self.log.writes[place as usize].as_mut().expect(IN_FLIGHT);
        let buffer = write.buffer.take().expect("kept while it is synced");
        // A failed fdatasync is not tried again: what it was to write may be lost already.
        let result = if completed.result < 0 { Err(io::Error::from_raw_os_error(-completed.result)) } else { Ok(()) };
        events.push(self.written(place, buffer, result));
    }

    fn written(&mut self, place: u32, buffer: LogBuffer, result: io::Result<()>) -> Event {
        let write = self.log.writes[place as usize].take().expect(IN_FLIGHT);
        self.log.files[usize::from(write.file)].as_mut().expect(OPEN).in_flight -= 1;
        Event::Written { token: write.token, buffer, result }
    }
}

const IN_FLIGHT: &str = "a write keeps its place until its last completion";
const OPEN: &str = "a file stays while writes to it are in flight";

/// Puts `item` into the first free place. The tables are a few dozen long at most.
fn place_in<T>(table: &mut Vec<Option<T>>, item: T) -> u32 {
    let place = table.iter().position(Option::is_none).unwrap_or_else(|| {
        table.push(None);
        table.len() - 1
    });
    table[place] = Some(item);
    place as u32
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;
    use crate::io::ring::RingSettings;

    /// No file system here refuses, so the refusal is made up.
    #[test]
    fn a_refused_direct_write_is_done_again_through_the_page_cache() {
        let directory = tempfile::tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/target")).expect("a directory");
        let path = directory.path().join("log.1");
        let mut options = File::options();
        options.write(true).create_new(true).custom_flags(libc::O_DIRECT);
        let mut ring = Ring::new(RingSettings { log_buffers: 1, ..RingSettings::default() }).expect("a ring");
        let log = ring.add_log(options.open(&path).expect("a new file"), ForceSync::Yes);
        let mut buffer = ring.log_buffer(4096).expect("memory");
        buffer[..4096].fill(b'x');
        let write = LogWrite {
            token: WriteToken(7),
            file: log.0,
            how: How::Durable,
            offset: 4096,
            length: 4096,
            written: 0,
            buffer: None,
        };
        let place = place_in(&mut ring.log.writes, write);
        ring.log.files[0].as_mut().expect("just added").in_flight += 1;
        let held = Held::Log(buffer);
        let mut events = Vec::new();
        ring.on_write(
            place,
            Completed { tag: Tag::Write(place), result: -libc::EOPNOTSUPP, more: false, held },
            &mut events,
        );
        while events.is_empty() {
            ring.wait(None);
            ring.drain(&mut events);
        }
        let Some(Event::Written { token: WriteToken(7), result: Ok(()), .. }) = events.pop() else { panic!("written") };
        let open = ring.log.files[0].as_ref().expect("still open");
        assert_eq!((open.how, open.in_flight), (How::ThenSync, 0));
        assert_eq!(std::fs::read(&path).expect("the file"), [vec![0; 4096], vec![b'x'; 4096]].concat());
    }
}
