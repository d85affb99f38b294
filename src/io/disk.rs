//! File work that takes its time, on a helper thread: preparing logs, zeroing ahead, cutting, renaming and removing files.
//!
//! A log is written fast only where blocks were zeroed before (measurements.md §1), so the helper keeps ahead of it. It does
//! so in small steps with pauses between them: zeroing at full speed would take the disk away from the log.
//! Requests are worked off in order; zeroing gives way to them between two pieces.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use super::kernel::calls;
use super::kernel::memory::Pages;
use super::mesh::{Full, Outbox};
use super::ring::LOG_BLOCK_BYTES;

/// Requests that may wait. There are never more than a few: one log ahead, one purge.
const REQUESTS_MAX: usize = 64;
/// One write of zeros.
const PIECE_BYTES: u64 = 256 << 10;
/// Zeros between two `fdatasync`s, after which they are reported.
const STEP_BYTES: u64 = 4 << 20;
/// Zeroing in the background: 20 to 200 MB/s were harmless to the log beside it, 2,000 were not.
const BACKGROUND_BYTES_PER_S: u64 = 100 << 20;
/// How long the helper waits before it looks again whether the zab core has taken its reports.
const REPORT_RETRY: Duration = Duration::from_millis(1);

/// What the helper is asked to do. Paths are absolute or relative to the working directory.
#[derive(Debug)]
pub enum DiskRequest {
    /// Makes `path` (which must not exist) durable with `first_block` at its start, `length` bytes reserved and the first
    /// `zeroed` of them, at least one block, zeroed. Until that is done it is called `<path>.new`.
    MakeLog { path: PathBuf, first_block: Box<[u8; LOG_BLOCK_BYTES]>, length: u64, zeroed: u64 },
    /// Reserves and zeroes `from..upto` of a file, both multiples of a block, in steps that are reported one by one.
    ZeroAhead { path: PathBuf, from: u64, upto: u64, pace: Pace },
    /// Cuts a file to `length` bytes, durably.
    Truncate { path: PathBuf, length: u64 },
    /// Renames within a directory, durably.
    Rename { from: PathBuf, to: PathBuf },
    /// Removes a file; one that is not there is removed already.
    Remove { path: PathBuf },
    /// Something rare that must come behind all of these. It tells those who wait for it by itself.
    Errand(Errand),
}

/// What is done on the helper's thread.
pub struct Errand(pub Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Errand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Errand")
    }
}

/// How fast to zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// So that the log hardly notices.
    Background,
    /// As fast as it goes, because the log is about to arrive there.
    Urgent,
}

/// What has been done. A failure ends its request; nothing is tried again.
#[derive(Debug)]
pub enum DiskEvent {
    /// The file is open for writing, with O_DIRECT if the file system has it; `zeroed` bytes of it are.
    LogMade {
        path: PathBuf,
        file: File,
        zeroed: u64,
    },
    /// Zeroed and durable up to there.
    ZeroedAhead {
        path: PathBuf,
        upto: u64,
    },
    Truncated {
        path: PathBuf,
    },
    Renamed {
        to: PathBuf,
    },
    Removed {
        path: PathBuf,
    },
    /// `storage is full` is `ErrorKind::StorageFull`.
    Failed {
        path: PathBuf,
        doing: &'static str,
        error: io::Error,
    },
}

/// The handle of the helper thread. Dropping it lets the helper finish what was asked, but for zeroing ahead.
pub struct Disk {
    requests: Option<Sender<DiskRequest>>,
    thread: Option<JoinHandle<()>>,
}

impl Disk {
    /// Starts the helper. Its events go to `events`.
    pub fn start(events: Outbox<DiskEvent>) -> io::Result<Disk> {
        let (sender, receiver) = bounded(REQUESTS_MAX);
        let helper =
            Helper { requests: receiver, events, zeroing: VecDeque::new(), zeros: Pages::new(PIECE_BYTES as usize)? };
        let thread = thread::Builder::new().name("disk".to_owned()).spawn(move || helper.run())?;
        Ok(Disk { requests: Some(sender), thread: Some(thread) })
    }

    /// Lets go of the helper without waiting for what it was asked.
    pub fn abandon(&mut self) {
        self.thread = None;
    }

    /// Queues a request, without waiting.
    pub fn ask(&self, request: DiskRequest) -> Result<(), Full<DiskRequest>> {
        let requests = self.requests.as_ref().expect("taken away in `drop` only");
        requests.try_send(request).map_err(|refused| match refused {
            TrySendError::Full(request) | TrySendError::Disconnected(request) => Full(request),
        })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the helper has ended the process (panic = "abort") or is a test's own.
            let _ = thread.join();
        }
    }
}

struct Helper {
    requests: Receiver<DiskRequest>,
    events: Outbox<DiskEvent>,
    zeroing: VecDeque<Zeroing>,
    /// Never written to, so it costs no memory.
    zeros: Pages,
}

/// A `ZeroAhead` under way.
struct Zeroing {
    path: PathBuf,
    file: File,
    /// Zeroed up to here, durable up to `synced`.
    next: u64,
    synced: u64,
    upto: u64,
    pace: Pace,
    /// When the next piece is due.
    at: Instant,
}

impl Helper {
    fn run(mut self) {
        loop {
            let request = match self.zeroing.front() {
                None => self.requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(zeroing) => self.requests.recv_deadline(zeroing.at),
            };
            match request {
                Ok(request) => self.on_request(request),
                Err(RecvTimeoutError::Timeout) => self.zero_piece(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn on_request(&mut self, request: DiskRequest) {
        let event = match request {
            DiskRequest::ZeroAhead { path, from, upto, pace } => return self.start_zeroing(path, from, upto, pace),
            DiskRequest::Errand(Errand(run)) => return run(),
            DiskRequest::MakeLog { path, first_block, length, zeroed } => {
                let made = make_log(&path, &*first_block, length, zeroed, &self.zeros);
                done(path, "making the log file", made, |path, file| DiskEvent::LogMade { path, file, zeroed })
            }
            DiskRequest::Truncate { path, length } => {
                let cut = truncate(&path, length);
                done(path, "cutting the file", cut, |path, ()| DiskEvent::Truncated { path })
            }
            DiskRequest::Rename { from, to } => {
                let renamed = fs::rename(&from, &to).and_then(|()| sync_directory_of(&to));
                done(to, "renaming the file", renamed, |to, ()| DiskEvent::Renamed { to })
            }
            DiskRequest::Remove { path } => {
                let removed = remove(&path);
                done(path, "removing the file", removed, |path, ()| DiskEvent::Removed { path })
            }
        };
        self.report(event);
    }

    /// The zab core takes its inbox each turn, so this waits for long only if it is stuck, and then nothing here is urgent.
    fn report(&mut self, event: DiskEvent) {
        let mut event = event;
        while let Err(Full(back)) = self.events.push(event) {
            self.events.notify();
            thread::sleep(REPORT_RETRY);
            event = back;
        }
        self.events.notify();
    }

    fn start_zeroing(&mut self, path: PathBuf, from: u64, upto: u64, pace: Pace) {
        assert!(from.is_multiple_of(LOG_BLOCK_BYTES as u64) && upto.is_multiple_of(LOG_BLOCK_BYTES as u64));
        let file = open_direct(&path, File::options().write(true)).and_then(|file| {
            reserve(&file, from, upto.saturating_sub(from))?;
            Ok(file)
        });
        match file {
            Ok(file) => {
                let zeroing = Zeroing { path, file, next: from, synced: from, upto, pace, at: Instant::now() };
                match pace {
                    Pace::Background => self.zeroing.push_back(zeroing),
                    Pace::Urgent => self.zeroing.push_front(zeroing),
                }
            }
            Err(error) => self.report(DiskEvent::Failed { path, doing: "reserving room for the log", error }),
        }
    }

    fn zero_piece(&mut self) {
        let Some(mut zeroing) = self.zeroing.pop_front() else { return };
        match zeroing.piece(&self.zeros) {
            Ok(durable) => {
                if durable {
                    self.report(DiskEvent::ZeroedAhead { path: zeroing.path.clone(), upto: zeroing.synced });
                }
                if zeroing.synced < zeroing.upto {
                    self.zeroing.push_front(zeroing);
                }
            }
            Err(error) => self.report(DiskEvent::Failed { path: zeroing.path, doing: "zeroing ahead", error }),
        }
    }
}

impl Zeroing {
    /// Zeroes the next piece; true if all so far is durable.
    fn piece(&mut self, zeros: &[u8]) -> io::Result<bool> {
        let length = PIECE_BYTES.min(self.upto - self.next);
        self.file.write_all_at(&zeros[..length as usize], self.next)?;
        self.next += length;
        let due = self.next == self.upto || self.next - self.synced >= STEP_BYTES;
        if due {
            self.file.sync_data()?;
            self.synced = self.next;
        }
        if self.pace == Pace::Background {
            // Counted from the end of the last piece: a disk that is busy gets longer pauses.
            self.at = Instant::now() + Duration::from_nanos(length * 1_000_000_000 / BACKGROUND_BYTES_PER_S);
        }
        Ok(due)
    }
}

fn done<T>(
    path: PathBuf,
    doing: &'static str,
    result: io::Result<T>,
    event: impl FnOnce(PathBuf, T) -> DiskEvent,
) -> DiskEvent {
    match result {
        Ok(value) => event(path, value),
        Err(error) => DiskEvent::Failed { path, doing, error },
    }
}

fn make_log(path: &Path, first_block: &[u8], length: u64, zeroed: u64, zeros: &[u8]) -> io::Result<File> {
    let block = LOG_BLOCK_BYTES as u64;
    assert!(zeroed >= block && zeroed.is_multiple_of(block) && length.is_multiple_of(block) && zeroed <= length);
    if path.try_exists()? {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let file = open_direct(&new, File::options().read(true).write(true).create(true).truncate(true))?;
    let filled = fill(&file, first_block, length, zeroed, zeros).and_then(|()| fs::rename(&new, path));
    if let Err(error) = filled {
        // What it took on a full disk is needed elsewhere. If even this fails the next attempt overwrites it.
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    sync_directory_of(path)?;
    Ok(file)
}

fn fill(file: &File, first_block: &[u8], length: u64, zeroed: u64, zeros: &[u8]) -> io::Result<()> {
    reserve(file, 0, length)?;
    let mut head = Pages::new(LOG_BLOCK_BYTES)?;
    head.copy_from_slice(first_block);
    file.write_all_at(&head, 0)?;
    let mut at = LOG_BLOCK_BYTES as u64;
    while at < zeroed {
        let piece = PIECE_BYTES.min(zeroed - at);
        file.write_all_at(&zeros[..piece as usize], at)?;
        at += piece;
    }
    file.sync_all()
}

/// Opens a file with O_DIRECT, or without it on a file system that refuses (some kernels' tmpfs).
pub fn open_direct(path: &Path, options: &mut fs::OpenOptions) -> io::Result<File> {
    match options.clone().custom_flags(libc::O_DIRECT).open(path) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => options.open(path),
        other => other,
    }
}

/// So that a full disk is known before there is something to write. File systems without `fallocate` find out when it is zeroed.
fn reserve(file: &File, from: u64, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    match calls::reserve(file.as_fd(), from, length) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        other => other,
    }
}

fn truncate(path: &Path, length: u64) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.set_len(length)?;
    file.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_directory_of(path),
    }
}

/// Makes names in the directory of `path` durable.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::mesh::{Inbox, Sleeper, channel};

    struct Bench {
        disk: Disk,
        events: Inbox<DiskEvent>,
        directory: tempfile::TempDir,
    }

    fn bench_in(parent: &Path) -> Bench {
        let sleeper = Sleeper::new().expect("an eventfd");
        let (outbox, events) = channel(2, &sleeper.doorbell());
        let directory = tempfile::tempdir_in(parent).expect("a writable directory");
        Bench { disk: Disk::start(outbox).expect("a thread"), events, directory }
    }

    fn bench() -> Bench {
        bench_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("target"))
    }

    impl Bench {
        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn ask(&mut self, request: DiskRequest) -> DiskEvent {
            self.disk.ask(request).expect("room");
            self.next()
        }

        fn next(&mut self) -> DiskEvent {
            let limit = Instant::now() + Duration::from_secs(20);
            loop {
                if let Some(event) = self.events.pop() {
                    return event;
                }
                assert!(Instant::now() < limit, "no event");
                thread::sleep(Duration::from_millis(1));
            }
        }

        fn make_log(&mut self, name: &str, length: u64, zeroed: u64) -> DiskEvent {
            let mut first_block = Box::new([0; LOG_BLOCK_BYTES]);
            first_block[..4].copy_from_slice(b"ZKLG");
            self.ask(DiskRequest::MakeLog { path: self.path(name), first_block, length, zeroed })
        }
    }

    fn check_make_log(mut bench: Bench) {
        let event = bench.make_log("log.100000001", 8 << 20, 1 << 20);
        let DiskEvent::LogMade { path, file, zeroed } = event else { panic!("{event:?}") };
        assert_eq!((path.clone(), zeroed), (bench.path("log.100000001"), 1 << 20));
        assert_eq!(file.metadata().expect("open").len(), 8 << 20);
        let bytes = fs::read(&path).expect("named");
        assert_eq!(&bytes[..4], b"ZKLG");
        assert!(bytes[4..].iter().all(|byte| *byte == 0));
        assert_eq!(fs::read_dir(bench.directory.path()).expect("listed").count(), 1);
        let event = bench.make_log("log.100000001", 8 << 20, 1 << 20);
        let DiskEvent::Failed { error, .. } = event else { panic!("an existing log is never overwritten: {event:?}") };
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_log_is_made_with_its_head_and_its_name() {
        check_make_log(bench());
        check_make_log(bench_in(Path::new("/dev/shm")));
    }

    #[test]
    fn zeroing_ahead_is_reported_in_steps_and_gives_way() {
        let mut bench = bench();
        assert!(matches!(bench.make_log("log.1", 1 << 20, 4096), DiskEvent::LogMade { .. }));
        let (path, upto) = (bench.path("log.1"), 10 << 20);
        let request = DiskRequest::ZeroAhead { path: path.clone(), from: 4096, upto, pace: Pace::Background };
        bench.disk.ask(request).expect("room");
        bench.disk.ask(DiskRequest::Remove { path: bench.path("nothing") }).expect("room");
        assert!(matches!(bench.next(), DiskEvent::Removed { .. }));
        let mut reported = vec![4096];
        while reported.last() != Some(&upto) {
            let event = bench.next();
            let DiskEvent::ZeroedAhead { upto, .. } = event else { panic!("{event:?}") };
            assert!(reported.last().is_some_and(|last| (1..=STEP_BYTES).contains(&(upto - last))));
            reported.push(upto);
        }
        assert_eq!(reported.len(), 4);
        assert_eq!(fs::metadata(&path).expect("there").len(), upto);
    }

    #[test]
    fn files_are_cut_renamed_and_removed() {
        let mut bench = bench();
        let (one, two) = (bench.path("log.1"), bench.path("log.2"));
        fs::write(&one, [1; 10_000]).expect("a file");
        assert!(matches!(
            bench.ask(DiskRequest::Truncate { path: one.clone(), length: 5_000 }),
            DiskEvent::Truncated { .. }
        ));
        assert!(matches!(bench.ask(DiskRequest::Rename { from: one, to: two.clone() }), DiskEvent::Renamed { .. }));
        assert_eq!(fs::read(&two).expect("renamed"), [1; 5_000]);
        assert!(matches!(bench.ask(DiskRequest::Remove { path: two.clone() }), DiskEvent::Removed { .. }));
        assert!(!two.exists());
        let event = bench.ask(DiskRequest::Truncate { path: two, length: 0 });
        assert!(matches!(event, DiskEvent::Failed { doing: "cutting the file", .. }));
    }

    #[test]
    fn a_log_larger_than_the_disk_is_refused_early_and_leaves_nothing() {
        let mut bench = bench();
        let event = bench.make_log("log.1", 1 << 50, 4096);
        let DiskEvent::Failed { error, .. } = event else { panic!("{event:?}") };
        assert!(matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge), "{error}");
        assert_eq!(fs::read_dir(bench.directory.path()).expect("listed").count(), 0);
    }

    #[test]
    fn what_was_asked_is_finished_before_the_helper_ends() {
        let bench = bench();
        let path = bench.path("log.1");
        fs::write(&path, [1; 10]).expect("a file");
        bench.disk.ask(DiskRequest::Truncate { path: path.clone(), length: 3 }).expect("room");
        drop(bench.disk);
        assert_eq!(fs::read(&path).expect("there"), [1; 3]);
    }
}
