//! A timer of the kernel's, because epoll's own timeout knows only milliseconds.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::types::time::Time;

#[derive(Debug)]
pub struct Timer {
    fd: TimerFd,
    /// What it is set for.
    at: Option<Time>,
}

impl Timer {
    pub fn new(registry: &Registry, token: Token) -> io::Result<Timer> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let fd = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        registry.register(&mut SourceFd(&fd.as_fd().as_raw_fd()), token, Interest::READABLE)?;
        Ok(Timer { fd, at: None })
    }

    /// Fires at `at`. What is already due needs no timer: it waits for room in a pipeline, not for time.
    pub fn set(&mut self, now: Time, at: Time) {
        if self.at == Some(at) || at <= now {
            return;
        }
        let wait: Duration = at.saturating_since(now);
        let once = Expiration::OneShot(TimeSpec::from_duration(wait));
        // A timer that cannot be set leaves the polling interval, which shows as latency.
        self.at = self.fd.set(once, TimerSetTimeFlags::empty()).is_ok().then_some(at);
    }

    /// It fired. Setting it again clears its readiness.
    pub fn clear(&mut self) {
        self.at = None;
    }
}
