//! Waiting through glommio for a descriptor of any kind.

use std::os::fd::{AsFd, FromRawFd, IntoRawFd};

use futures_lite::AsyncReadExt;
use glommio::net::TcpStream;

/// Ends when `source` is readable. Spurious ends are possible.
///
/// glommio polls descriptors only for its own streams. A new stream polls for readiness before it first tries to receive, and
/// receiving from what is no socket then fails: both together are all that is wanted.
pub async fn readable(source: &impl AsFd) {
    let Ok(own) = source.as_fd().try_clone_to_owned() else { return };
    // SAFETY: the duplicate is owned by the stream alone, which closes it.
    let mut stream = unsafe { TcpStream::from_raw_fd(own.into_raw_fd()) };
    let _ = stream.read(&mut [0]).await;
}
