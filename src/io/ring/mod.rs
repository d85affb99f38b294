//! One core's ring: its listeners, connections, log writes and sleep, as events out and calls in.
//! Never: what the bytes mean. It knows connections by number and logs by file.
//! Owner: the core thread that made it; only a `Waker` may leave that thread.
//! Start at `Ring::drain`; then `sockets.rs`, `listen.rs`, `log.rs`.

mod listen;
mod log;
mod sockets;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::clock;
use super::kernel::calls;
pub use super::kernel::memory::LogBuffer;
use super::kernel::uring::{Completed, Operation, Sizes, Uring};
use super::ring_refused::{RingRefused, Step};
use crate::types::ids::ConnectionId;
use crate::types::time::Time;
pub use log::{ForceSync, LOG_BLOCK_BYTES, LogFile, WriteToken};
pub use sockets::{Close, CloseReason};

/// Sizes and socket options of one ring.
#[derive(Clone, Debug)]
pub struct RingSettings {
    /// Buffers for what sockets receive: how many (a power of two) and bytes of each. Memory is used once they are.
    pub receive_buffers: u16,
    pub receive_buffer_bytes: u32,
    /// Registered buffers for the log, 0 on a core that writes none. They are resident and count against RLIMIT_MEMLOCK.
    pub log_buffers: u16,
    pub log_buffer_bytes: u32,
    /// SO_KEEPALIVE on every connection, probed as often as the kernel is set to.
    pub keep_alive: bool,
    /// TCP_USER_TIMEOUT: sent data that nobody acknowledges for so long ends the connection. 0 leaves it to the kernel.
    pub user_timeout: Duration,
}

impl Default for RingSettings {
    fn default() -> RingSettings {
        RingSettings {
            receive_buffers: 256,
            receive_buffer_bytes: 16 << 10,
            log_buffers: 0,
            log_buffer_bytes: 128 << 10,
            keep_alive: false,
            user_timeout: Duration::from_secs(30),
        }
    }
}

/// Entries of the submission queue. When it is full the ring submits early.
const SUBMISSIONS: u32 = 256;
/// Entries of the completion queue. What does not fit waits in the kernel.
const COMPLETIONS: u32 = 4096;

/// A listening socket of this ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListenerId(pub u16);

/// Bytes that were received, until the next `drain`. Read them with `Ring::received`.
#[derive(PartialEq, Eq, Debug)]
pub struct Received {
    buffer: u16,
    length: u32,
    drain: u64,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Give the socket to a ring, this one or another, with `add_connection`.
    Accepted {
        listener: ListenerId,
        socket: OwnedFd,
        peer: SocketAddr,
        local: SocketAddr,
    },
    /// `connect` has succeeded.
    Connected {
        conn: ConnectionId,
    },
    Received {
        conn: ConnectionId,
        bytes: Received,
    },
    /// The peer will send no more; it may still read. The connection stays until `close`.
    EndOfStream {
        conn: ConnectionId,
    },
    /// All of it is with the kernel. `buffer` is what was given to `send`, for the next one.
    Sent {
        conn: ConnectionId,
        buffer: Vec<u8>,
        bytes: usize,
    },
    /// The last event of this connection: the kernel holds nothing of it any more.
    Closed {
        conn: ConnectionId,
        reason: CloseReason,
    },
    /// A log write ended: durable (unless the file was added with `ForceSync::No`) if `result` is Ok. Give the buffer back.
    Written {
        token: WriteToken,
        buffer: LogBuffer,
        result: io::Result<()>,
    },
}

/// Which operation a completion belongs to. Numbers are places in the ring's tables, kept until the last completion.
#[derive(Clone, Copy, Debug)]
enum Tag {
    Accept(u16),
    Connect(u32),
    Receive(u32),
    Send(u32),
    Write(u32),
    Sync(u32),
    Wake,
}

/// A turn of a core: `drain`; step its machines with the events (reading `received` bytes in place); `send`, `write_log` and so
/// on what they ask for; `wait`, which hands all of it to the kernel in one call.
pub struct Ring {
    uring: Uring<Tag>,
    settings: RingSettings,
    wake: Waker,
    /// Counts completions while the thread sleeps elsewhere. Made when that first happens.
    completions: Option<Arc<File>>,
    /// Events that no completion stands for, until the next `drain`.
    ready: Vec<Event>,
    /// Buffers lent by the last `drain`.
    lent: Vec<u16>,
    drains: u64,
    listeners: listen::Listeners,
    sockets: sockets::Sockets,
    log: log::LogWrites,
}

impl Ring {
    /// To be called on the thread that will use it.
    pub fn new(settings: RingSettings) -> Result<Ring, RingRefused> {
        let waker = Waker::new().map_err(|error| RingRefused::diagnose(Step::Setup, &error))?;
        Ring::with_waker(settings, waker)
    }

    /// As `new`, for a waker that others have already. One ring per waker.
    pub fn with_waker(settings: RingSettings, waker: Waker) -> Result<Ring, RingRefused> {
        let sizes = Sizes {
            submissions: SUBMISSIONS,
            completions: COMPLETIONS,
            receive_buffers: settings.receive_buffers,
            receive_buffer_bytes: settings.receive_buffer_bytes,
            log_buffers: settings.log_buffers,
            log_buffer_bytes: settings.log_buffer_bytes,
        };
        let mut uring = Uring::new(&sizes)?;
        uring.start(Tag::Wake, Operation::TakeCount(waker.count.as_raw_fd()));
        Ok(Ring {
            uring,
            settings,
            wake: waker,
            completions: None,
            ready: Vec::new(),
            lent: Vec::new(),
            drains: 0,
            listeners: listen::Listeners::default(),
            sockets: sockets::Sockets::default(),
            log: log::LogWrites::default(),
        })
    }

    /// Appends everything that has happened to `events`. What the `drain` before lent out goes back to the kernel.
    ///
    /// It does not ask the kernel for news: `submit` and `wait` do, so the order of a turn is `drain`, work, `wait`.
    pub fn drain(&mut self, events: &mut Vec<Event>) {
        self.drains += 1;
        for buffer in self.lent.drain(..) {
            self.uring.give_back(buffer);
        }
        self.receive_again();
        events.append(&mut self.ready);
        while let Some(completed) = self.uring.next() {
            match completed.tag {
                Tag::Accept(listener) => self.on_accept(listener, completed, events),
                Tag::Connect(place) => self.on_connect(place, completed, events),
                Tag::Receive(place) => self.on_receive(place, completed, events),
                Tag::Send(place) => self.on_send(place, completed, events),
                Tag::Write(place) => self.on_write(place, completed, events),
                Tag::Sync(place) => self.on_sync(place, completed, events),
                Tag::Wake => self.on_wake(completed),
            }
        }
        self.on_deadlines(events);
    }

    /// The bytes of a `Received` event of the last `drain`.
    pub fn received(&self, bytes: &Received) -> &[u8] {
        assert_eq!(bytes.drain, self.drains, "received bytes are lent until the next drain");
        self.uring.received(bytes.buffer, bytes.length)
    }

    /// Hands over what was asked for and lets the kernel finish what it can at once, without sleeping.
    pub fn submit(&mut self) {
        self.uring.submit();
    }

    /// As `submit`, then sleeps until something happens, somebody wakes this ring, or `deadline` passes.
    /// Other work of the same thread does not run meanwhile; see `sleep.rs`.
    pub fn wait(&mut self, deadline: Option<Time>) {
        if !self.ready.is_empty() {
            return self.uring.submit();
        }
        match self.earliest(deadline) {
            None => self.uring.wait(None),
            Some(deadline) => {
                let left = deadline.saturating_since(clock::now());
                if left.is_zero() { self.uring.submit() } else { self.uring.wait(Some(left)) }
            }
        }
    }

    /// Submits and prepares to sleep elsewhere: when something happens the returned eventfd becomes readable.
    /// None if something has happened already. `awake` ends it.
    pub fn sleep_elsewhere(&mut self) -> io::Result<Option<Arc<File>>> {
        let counter = match &self.completions {
            Some(counter) => Arc::clone(counter),
            None => {
                let counter = Arc::new(calls::event_counter(true)?);
                self.uring.count_completions(counter.as_fd())?;
                self.completions = Some(Arc::clone(&counter));
                counter
            }
        };
        // Nothing counted is as good as something.
        let _ = (&*counter).read(&mut [0; size_of::<u64>()]);
        self.uring.set_counting(true);
        self.uring.submit();
        Ok((!self.has_events()).then_some(counter))
    }

    /// The thread runs again after `sleep_elsewhere`.
    pub fn awake(&mut self) {
        self.uring.set_counting(false);
        self.uring.submit();
    }

    /// Whether `drain` would find something, without asking the kernel.
    pub fn has_events(&mut self) -> bool {
        !self.ready.is_empty() || self.uring.has_completions()
    }

    /// The earlier of `deadline` and what the ring itself has to do later.
    pub fn earliest(&self, deadline: Option<Time>) -> Option<Time> {
        [deadline, self.listeners.retry_at, self.sockets.next_deadline()].into_iter().flatten().min()
    }

    /// A handle with which other threads end this ring's sleep.
    pub fn waker(&self) -> Waker {
        self.wake.clone()
    }

    fn on_wake(&mut self, completed: Completed<Tag>) {
        debug_assert!(!completed.more);
        self.uring.start(Tag::Wake, Operation::TakeCount(self.wake.count.as_raw_fd()));
    }

    fn on_deadlines(&mut self, events: &mut Vec<Event>) {
        if self.earliest(None).is_none() {
            return;
        }
        let now = clock::now();
        self.accept_again(now);
        self.end_lingering(now, events);
    }
}

/// Ends the sleep of a ring, from any thread. A wake-up is never lost: if the ring is awake, its next sleep ends at once.
///
/// It costs a system call: use it only when the other side said that it sleeps (`mesh.rs`).
#[derive(Clone, Debug)]
pub struct Waker {
    count: Arc<File>,
}

impl Waker {
    pub fn new() -> io::Result<Waker> {
        Ok(Waker { count: Arc::new(calls::event_counter(false)?) })
    }

    pub fn wake(&self) {
        // The only refusal is a counter at its maximum: then the ring has been woken often enough.
        let _ = (&*self.count).write(&1_u64.to_ne_bytes());
    }
}
