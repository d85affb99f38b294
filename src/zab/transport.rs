//! Byte streams between servers, as the machines see them: who opened which, what came, what goes.
//!
//! The driver carries bytes and decides nothing: no framing, no retry, no time limit. A simulated network carries the
//! same bytes.

use crate::config::HostPort;

/// One connection between two servers. Never reused while the process lives. Ids of connections that came in are chosen by
/// the driver and odd; those of connections that a machine asked for are chosen by the machine and even.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketId(pub u64);

/// Which of a server's two listeners.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Port {
    /// Votes; bound for the life of the process.
    Election,
    /// Learner to leader; always bound by us, only while leading by Java.
    Quorum,
}

/// What happened to a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SocketInput<'a> {
    /// Somebody connected to our `port`.
    Accepted { socket: SocketId, port: Port },
    /// A `Connect` succeeded.
    Connected { socket: SocketId },
    /// Bytes in their order, at any boundary.
    Received { socket: SocketId, bytes: &'a [u8] },
    /// So many bytes handed over with `Send` have not left yet, counted after every `Send` so far was carried out. Comes
    /// whenever some left after it was not zero.
    Unsent { socket: SocketId, bytes: usize },
    /// Gone, or never came to be. `is_refused`: the host answered that nobody listens or reset the connection: that
    /// process is dead, or not yet there. Nothing more comes from this socket.
    Closed { socket: SocketId, is_refused: bool },
}

impl SocketInput<'_> {
    pub fn socket(&self) -> SocketId {
        match self {
            SocketInput::Accepted { socket, .. }
            | SocketInput::Connected { socket }
            | SocketInput::Received { socket, .. }
            | SocketInput::Unsent { socket, .. }
            | SocketInput::Closed { socket, .. } => *socket,
        }
    }
}

/// What to do with a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SocketOutput {
    /// Try these addresses at once, first success wins; names are resolved anew.
    Connect { socket: SocketId, addresses: Vec<HostPort> },
    /// One write where possible: Java reads the election port's first message with a single read.
    Send { socket: SocketId, bytes: Vec<u8> },
    /// Stop reading from it, or go on: what the other side sends then waits in the kernels. `Received` may still come for
    /// what was read before, `Closed` comes as always.
    Hold { socket: SocketId, is_held: bool },
    /// Close after what was sent has left, or at once with `is_abrupt`. Nothing more comes from this socket.
    Close { socket: SocketId, is_abrupt: bool },
}
