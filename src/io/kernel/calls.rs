//! System calls that std does not wrap, each behind a safe function.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// An eventfd as a file: writing a `u64` adds, reading takes all.
/// When it is 0, reading fails with `WouldBlock` if `nonblocking`; else it waits, which is what a ring needs to wait for it.
pub fn event_counter(nonblocking: bool) -> io::Result<File> {
    let flags = if nonblocking { libc::EFD_NONBLOCK } else { 0 };
    // SAFETY: no pointers are passed; the new descriptor is owned by nobody else.
    unsafe {
        let fd = check(libc::eventfd(0, libc::EFD_CLOEXEC | flags))?;
        Ok(File::from(OwnedFd::from_raw_fd(fd)))
    }
}

/// The socket that an accept completion handed out.
///
/// The number must come from such a completion, once: the kernel gave it to nobody else.
pub(super) fn adopt_socket(fd: i32) -> OwnedFd {
    assert!(fd >= 0);
    // SAFETY: called once per accept completion (see `Uring::next`), so the descriptor is new and owned by nobody else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// `CLOCK_MONOTONIC` or `CLOCK_REALTIME` in nanoseconds.
pub fn clock_ns(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for one timespec.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(result, 0, "the clocks that we ask for exist on every Linux");
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Clears O_DIRECT, for a file whose file system refuses to write that way.
pub fn make_buffered(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_GETFL and F_SETFL take and return integers only; the descriptor is open as long as it is borrowed.
    unsafe {
        let flags = check(libc::fcntl(file.as_raw_fd(), libc::F_GETFL))?;
        check(libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags & !libc::O_DIRECT))?;
    }
    Ok(())
}

/// Reserves blocks for `length` bytes from `offset` and extends the file over them.
pub fn reserve(file: BorrowedFd<'_>, offset: u64, length: u64) -> io::Result<()> {
    let (offset, length) = (offset as libc::off64_t, length as libc::off64_t);
    // SAFETY: integers only; the descriptor is open as long as it is borrowed.
    check(unsafe { libc::fallocate64(file.as_raw_fd(), 0, offset, length) })?;
    Ok(())
}

/// Soft and hard limit of open file descriptors.
pub fn open_files_limit() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for one rlimit64.
    check(unsafe { libc::getrlimit64(libc::RLIMIT_NOFILE, &mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets the soft limit of open file descriptors; the hard one stays as it is.
pub fn set_open_files_limit(soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is a valid rlimit64.
    check(unsafe { libc::setrlimit64(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(())
}
