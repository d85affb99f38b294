//! One io_uring: operations in, completions out. It holds on to every byte that the kernel may still read or write.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, Fixed, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Probe, cqueue, opcode, squeue};

use socket2::SockAddr;

use super::calls::adopt_socket;
use super::memory::{LogBuffer, Provided};
use crate::io::ring_refused::{RingRefused, Step};

/// The only group of provided buffers.
const BUFFER_GROUP: u16 = 0;
/// Registered places for files: the log that is written, the one before it, the next.
const FIXED_FILES: u32 = 8;
/// `user_data` of requests whose completion nobody waits for.
const NOBODY: u64 = u64::MAX;
const HAS_BUFFERS: &str = "provided buffers are taken away in `drop` only";
/// How long a ring that goes away waits for the kernel to let go of its buffers.
const LET_GO_LIMIT: Duration = Duration::from_secs(1);

/// Sizes of one ring.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Operations handed over in one call; more are split over several.
    pub submissions: u32,
    /// Completions that may wait to be looked at.
    pub completions: u32,
    /// Buffers for what sockets receive: a power of two, and bytes of each.
    pub receive_buffers: u16,
    pub receive_buffer_bytes: u32,
    /// Buffers for the log that are registered with the kernel, and bytes of each. They count against RLIMIT_MEMLOCK.
    pub log_buffers: u16,
    pub log_buffer_bytes: u32,
}

/// What the kernel is asked to do. Descriptors must stay open until the last completion.
pub enum Operation {
    /// Completes once per connection.
    AcceptEach(RawFd),
    Connect {
        socket: RawFd,
        to: Box<SockAddr>,
    },
    /// Completes once per piece received, each in a provided buffer.
    ReceiveEach(RawFd),
    /// Sends `bytes[from..]` or a part of it.
    Send {
        socket: RawFd,
        bytes: Vec<u8>,
        from: usize,
    },
    /// Writes `buffer[range]` at `offset` of the file.
    Write {
        file: FileTarget,
        offset: u64,
        buffer: LogBuffer,
        range: Range<usize>,
        durable: bool,
    },
    /// `fdatasync`.
    Sync(FileTarget),
    /// Takes the count of an eventfd, once it is not 0.
    TakeCount(RawFd),
}

/// A file, registered if there was room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileTarget {
    Registered(u32),
    Descriptor(RawFd),
}

/// Names one operation until its last completion, and never another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    slot: u32,
    generation: u32,
}

impl Key {
    fn to_user_data(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    fn from_user_data(data: u64) -> Key {
        Key { slot: data as u32, generation: (data >> 32) as u32 }
    }
}

/// What came of an operation.
pub struct Completed<T> {
    pub tag: T,
    /// As the system call of that name returns it, with a negative error number for -1.
    pub result: i32,
    /// More completions of this operation will follow.
    pub more: bool,
    pub held: Held,
}

/// What an operation hands back.
#[derive(Default)]
pub enum Held {
    #[default]
    Nothing,
    Bytes(Vec<u8>),
    Log(LogBuffer),
    /// Kept for the kernel to read.
    Address(#[expect(dead_code, reason = "only the kernel reads it")] Box<SockAddr>),
    /// A provided buffer; read it with `received`, then `give_back`.
    Received(u16),
    Accepted(OwnedFd),
}

struct Slot<T> {
    generation: u32,
    /// None while the slot is free.
    tag: Option<T>,
    /// Its results are sockets.
    accepts: bool,
    held: Held,
}

/// One io_uring with its provided buffers, registered files and registered log buffers. Bound to the thread that made it.
pub struct Uring<T: Copy> {
    ring: IoUring,
    /// None only while it is dropped.
    provided: Option<Provided>,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    fixed_files: VecDeque<u32>,
    log_buffers: Vec<LogBuffer>,
    log_buffer_bytes: usize,
    _not_send: PhantomData<*mut ()>,
}

impl<T: Copy> Uring<T> {
    pub fn new(sizes: &Sizes) -> Result<Uring<T>, RingRefused> {
        let ring = set_up(sizes)?;
        probe(&ring)?;
        let refused = |step| move |error| RingRefused::diagnose(step, &error);
        let mut provided =
            Provided::new(sizes.receive_buffers, sizes.receive_buffer_bytes).map_err(refused(Step::Buffers))?;
        // SAFETY: the entries live in `provided`, which `Uring` keeps until the kernel has let go of the ring (see `drop`).
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(provided.entries_address(), provided.count(), BUFFER_GROUP, 0)
                .map_err(refused(Step::Buffers))?;
        }
        for buffer in 0..provided.count() {
            provided.give_back(buffer);
        }
        let fixed_files = match ring.submitter().register_files_sparse(FIXED_FILES) {
            Ok(()) => (0..FIXED_FILES).collect(),
            Err(_) => VecDeque::new(),
        };
        let log_buffer_bytes = sizes.log_buffer_bytes as usize;
        let log_buffers =
            register_log_buffers(&ring, sizes.log_buffers, log_buffer_bytes).map_err(refused(Step::Buffers))?;
        Ok(Uring {
            ring,
            provided: Some(provided),
            slots: Vec::new(),
            free: Vec::new(),
            fixed_files,
            log_buffers,
            log_buffer_bytes,
            _not_send: PhantomData,
        })
    }

    /// Queues an operation; `submit` or `wait` hands it to the kernel. `tag` comes back with each of its completions.
    pub fn start(&mut self, tag: T, operation: Operation) -> Key {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(Slot { generation: 0, tag: None, accepts: false, held: Held::Nothing });
                (self.slots.len() - 1) as u32
            }
        };
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.tag.is_none());
        let key = Key { slot: index, generation: slot.generation };
        slot.accepts = matches!(operation, Operation::AcceptEach(_));
        let (entry, held) = entry_of(operation);
        slot.tag = Some(tag);
        slot.held = held;
        self.push(entry.user_data(key.to_user_data()));
        key
    }

    /// Asks the kernel to give an operation up; its last completion says whether it did. Nothing happens if that has come already.
    pub fn cancel(&mut self, key: Key) {
        let waiting = self
            .slots
            .get(key.slot as usize)
            .is_some_and(|slot| slot.tag.is_some() && slot.generation == key.generation);
        if waiting {
            self.push(opcode::AsyncCancel::new(key.to_user_data()).build().user_data(NOBODY));
        }
    }

    fn push(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: whatever the entry points to is in the operation's slot (or needs nothing) and stays there until its last
            // completion: `next` alone takes it out.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            self.submit();
        }
    }

    /// Hands over what was queued and lets the kernel finish what it can, without waiting.
    pub fn submit(&mut self) {
        let queued = self.ring.submission().len() as u32;
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: no argument is passed; the number of entries is what the queue holds.
        let result = unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, flags, None) };
        self.tolerate(result);
    }

    /// As `submit`, then sleeps until there is a completion or `limit` has passed.
    pub fn wait(&mut self, limit: Option<Duration>) {
        if !self.ring.completion().is_empty() {
            return self.submit();
        }
        let result = match limit {
            None => self.ring.submitter().submit_and_wait(1),
            Some(limit) => {
                let limit = Timespec::from(limit);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit))
            }
        };
        self.tolerate(result);
    }

    /// Time-outs, signals and a full queue are no errors. Anything else is a bug of ours or a broken kernel.
    fn tolerate(&mut self, result: io::Result<usize>) {
        let Err(error) = result else { return };
        match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => {}
            _ => panic!("io_uring_enter failed: {error}"),
        }
    }

    pub fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    /// The next completion, in the order in which they came.
    pub fn next(&mut self) -> Option<Completed<T>> {
        loop {
            let entry = self.ring.completion().next()?;
            if entry.user_data() == NOBODY {
                continue;
            }
            return Some(self.on_entry(&entry));
        }
    }

    fn on_entry(&mut self, entry: &cqueue::Entry) -> Completed<T> {
        let key = Key::from_user_data(entry.user_data());
        let slot = &mut self.slots[key.slot as usize];
        assert_eq!(slot.generation, key.generation, "a completion of an operation that had ended");
        let tag = slot.tag.expect("an operation that was started and has not ended");
        let (more, result) = (cqueue::more(entry.flags()), entry.result());
        let accepts = slot.accepts;
        let mut held = Held::Nothing;
        if !more {
            held = mem::take(&mut slot.held);
            slot.tag = None;
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(key.slot);
        }
        if accepts && result >= 0 {
            held = Held::Accepted(adopt_socket(result));
        } else if let Some(buffer) = cqueue::buffer_select(entry.flags()) {
            self.provided_mut().on_taken(buffer);
            held = Held::Received(buffer);
        }
        Completed { tag, result, more, held }
    }

    fn provided_mut(&mut self) -> &mut Provided {
        self.provided.as_mut().expect(HAS_BUFFERS)
    }

    /// What was received into a provided buffer that has not been given back.
    pub fn received(&self, buffer: u16, length: u32) -> &[u8] {
        self.provided.as_ref().expect(HAS_BUFFERS).bytes(buffer, length)
    }

    pub fn give_back(&mut self, buffer: u16) {
        self.provided_mut().give_back(buffer);
    }

    /// Registers a file if there is room; else it is used by its descriptor. It must stay open until `remove_file`.
    pub fn add_file(&mut self, file: BorrowedFd<'_>) -> FileTarget {
        let fd = file.as_raw_fd();
        let Some(place) = self.fixed_files.pop_front() else { return FileTarget::Descriptor(fd) };
        match self.ring.submitter().register_files_update(place, &[fd]) {
            Ok(_) => FileTarget::Registered(place),
            Err(_) => FileTarget::Descriptor(fd),
        }
    }

    pub fn remove_file(&mut self, target: FileTarget) {
        let FileTarget::Registered(place) = target else { return };
        if self.ring.submitter().register_files_update(place, &[-1]).is_ok() {
            self.fixed_files.push_back(place);
        }
    }

    /// A buffer of at least `length` bytes: a registered one if it is free and large enough. Its content is whatever it was.
    pub fn log_buffer(&mut self, length: usize) -> io::Result<LogBuffer> {
        if length <= self.log_buffer_bytes
            && let Some(buffer) = self.log_buffers.pop()
        {
            return Ok(buffer);
        }
        LogBuffer::new(length)
    }

    /// Keeps a registered buffer for the next write, and drops any other.
    pub fn give_back_log_buffer(&mut self, buffer: LogBuffer) {
        if buffer.registered.is_some() {
            self.log_buffers.push(buffer);
        }
    }

    /// From now on each batch of completions adds to `counter` (an eventfd), also while the ring is not entered.
    pub fn count_completions(&mut self, counter: BorrowedFd<'_>) -> io::Result<()> {
        self.ring.submitter().register_eventfd(counter.as_raw_fd())
    }

    /// Switches that counting off and on; a ring that is entered all the time has no use for it.
    pub fn set_counting(&mut self, on: bool) {
        let completions = self.ring.completion();
        if on { completions.enable_eventfd() } else { completions.disable_eventfd() }
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Cancels all and takes what completes, until the kernel holds nothing or the limit has passed.
    fn let_go(&mut self) {
        self.submit();
        let limit = Timespec::from(LET_GO_LIMIT);
        // NotFound (nothing to cancel) is as good as success; what is still in flight shows below.
        let _ = self.ring.submitter().register_sync_cancel(Some(limit), CancelBuilder::any());
        let until = std::time::Instant::now() + LET_GO_LIMIT;
        loop {
            while self.next().is_some() {}
            let left = until.saturating_duration_since(std::time::Instant::now());
            if self.in_flight() == 0 || left.is_zero() {
                return;
            }
            self.wait(Some(left));
        }
    }
}

/// Bytes that the kernel may still touch must not be freed: if it does not let go in time they are leaked.
impl<T: Copy> Drop for Uring<T> {
    fn drop(&mut self) {
        self.let_go();
        if self.in_flight() > 0 {
            mem::forget(mem::take(&mut self.slots));
            mem::forget(self.provided.take());
        }
    }
}

fn set_up(sizes: &Sizes) -> Result<IoUring, RingRefused> {
    let builder = || {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(sizes.completions).setup_clamp().setup_submit_all().setup_single_issuer();
        builder
    };
    let deferred = builder().setup_defer_taskrun().setup_taskrun_flag().build(sizes.submissions);
    let ring = match deferred {
        // Linux 6.0 has all the rest.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            builder().setup_coop_taskrun().setup_taskrun_flag().build(sizes.submissions)
        }
        other => other,
    };
    ring.map_err(|error| RingRefused::diagnose(Step::Setup, &error))
}

/// Multishot receive cannot be asked for; it came in the same release (6.0) as SendZc, which can.
fn probe(ring: &IoUring) -> Result<(), RingRefused> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|error| RingRefused::diagnose(Step::Probe, &error))?;
    let needed =
        [opcode::Accept::CODE, opcode::Recv::CODE, opcode::Send::CODE, opcode::AsyncCancel::CODE, opcode::SendZc::CODE];
    let features = ring.params().is_feature_ext_arg() && ring.params().is_feature_nodrop();
    if features && needed.iter().all(|code| probe.is_supported(*code)) {
        return Ok(());
    }
    Err(RingRefused::too_old())
}

/// Fewer buffers, or none, if RLIMIT_MEMLOCK refuses: then the log is written from memory that is pinned for each write.
fn register_log_buffers(ring: &IoUring, count: u16, length: usize) -> io::Result<Vec<LogBuffer>> {
    let mut buffers = Vec::new();
    for index in 0..count {
        let mut buffer = LogBuffer::new(length)?;
        buffer.registered = Some(index);
        buffers.push(buffer);
    }
    while !buffers.is_empty() {
        let places: Vec<libc::iovec> = buffers
            .iter_mut()
            .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: length })
            .collect();
        // SAFETY: the kernel pins these pages itself; it uses them only for writes that name them, and `Slot` holds the buffer
        // of a write until its completion.
        if unsafe { ring.submitter().register_buffers(&places) }.is_ok() {
            break;
        }
        buffers.truncate(buffers.len() / 2);
    }
    Ok(buffers)
}

/// The entry for the queue, and what must outlive it.
fn entry_of(operation: Operation) -> (squeue::Entry, Held) {
    match operation {
        Operation::AcceptEach(fd) => {
            let entry = opcode::AcceptMulti::new(Fd(fd)).flags(libc::SOCK_CLOEXEC).build();
            (entry, Held::Nothing)
        }
        Operation::Connect { socket, to } => {
            (opcode::Connect::new(Fd(socket), to.as_ptr().cast(), to.len()).build(), Held::Address(to))
        }
        Operation::ReceiveEach(fd) => (opcode::RecvMulti::new(Fd(fd), BUFFER_GROUP).build(), Held::Nothing),
        Operation::Send { socket, bytes, from } => {
            let rest = &bytes[from..];
            let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
            let entry = opcode::Send::new(Fd(socket), rest.as_ptr(), length).flags(libc::MSG_NOSIGNAL).build();
            (entry, Held::Bytes(bytes))
        }
        Operation::Write { file, offset, buffer, range, durable } => {
            (write_entry(file, offset, &buffer, range, durable), Held::Log(buffer))
        }
        Operation::Sync(file) => {
            let flags = FsyncFlags::DATASYNC;
            let entry = match file {
                FileTarget::Registered(place) => opcode::Fsync::new(Fixed(place)).flags(flags).build(),
                FileTarget::Descriptor(fd) => opcode::Fsync::new(Fd(fd)).flags(flags).build(),
            };
            (entry, Held::Nothing)
        }
        Operation::TakeCount(fd) => {
            let mut count = vec![0; size_of::<u64>()];
            let entry = opcode::Read::new(Fd(fd), count.as_mut_ptr(), count.len() as u32).build();
            (entry, Held::Bytes(count))
        }
    }
}

fn write_entry(file: FileTarget, offset: u64, buffer: &LogBuffer, range: Range<usize>, durable: bool) -> squeue::Entry {
    let bytes = &buffer[range];
    let length = u32::try_from(bytes.len()).expect("a log write is far below 4 GiB");
    let flags = if durable { libc::RWF_DSYNC } else { 0 };
    let start = bytes.as_ptr();
    match (buffer.registered, file) {
        (Some(index), FileTarget::Registered(place)) => {
            opcode::WriteFixed::new(Fixed(place), start, length, index).offset(offset).rw_flags(flags).build()
        }
        (Some(index), FileTarget::Descriptor(fd)) => {
            opcode::WriteFixed::new(Fd(fd), start, length, index).offset(offset).rw_flags(flags).build()
        }
        (None, FileTarget::Registered(place)) => {
            opcode::Write::new(Fixed(place), start, length).offset(offset).rw_flags(flags).build()
        }
        (None, FileTarget::Descriptor(fd)) => {
            opcode::Write::new(Fd(fd), start, length).offset(offset).rw_flags(flags).build()
        }
    }
}
