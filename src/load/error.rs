//! What can keep a run from running: each says what happened and what to do.

use std::fmt;
use std::net::SocketAddr;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LoadError {
    /// A part of `--mix` that means nothing.
    Mix { part: String, why: String },
    /// An argument out of its range.
    Argument { name: &'static str, text: String, why: String },
    /// No connection: refused, timed out, no route.
    Unreachable { server: SocketAddr, why: String },
    /// It answered, but not in ZooKeeper's protocol.
    NotZooKeeper { server: SocketAddr, why: String },
    /// It closed the connection instead of answering.
    Closed { server: SocketAddr, sessions: usize },
    /// It answered with an error that set-up cannot live with.
    Answer { doing: String, error: String },
    /// Znodes cannot be created or removed: nothing is answered any more.
    Stalled { seconds: u64, last_loss: Option<String> },
    /// Ctrl-C came before anything was measured.
    Interrupted,
    /// Our own machine said no.
    Local { doing: &'static str, why: String },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Mix { part, why } => write!(f, "--mix: \"{part}\" is not understood: {why}"),
            LoadError::Argument { name, text, why } => write!(f, "{name} {text}: {why}"),
            LoadError::Unreachable { server, why } => write!(
                f,
                "cannot connect to {server}: {why}\nIs a server running there? `--servers HOST:PORT[,HOST:PORT…]` names \
                 the client ports."
            ),
            LoadError::NotZooKeeper { server, why } => write!(
                f,
                "{server} does not speak ZooKeeper's protocol: {why}\nIs it the plain client port, and not that of \
                 peers, of the admin server, or one that wants TLS?"
            ),
            LoadError::Closed { server, sessions } => write!(
                f,
                "{server} closed the connection instead of opening a session ({sessions} are open)\nA server without a \
                 quorum does that, and one that is full: `maxClientCnxns` in its zoo.cfg bounds connections per host \
                 (60 unless set; 0 is no bound)."
            ),
            LoadError::Answer { doing, error } => write!(f, "{doing}: the server answered {error}"),
            LoadError::Stalled { seconds, last_loss: None } => {
                write!(f, "nothing was answered for {seconds} s while creating or removing znodes\nIs the disk full?")
            }
            LoadError::Stalled { seconds, last_loss: Some(loss) } => write!(
                f,
                "nothing was answered for {seconds} s while creating or removing znodes; connections are lost, the last \
                 of {loss}\nA server closes them at once when requests exceed its jute.maxbuffer (1 MB unless set)."
            ),
            LoadError::Interrupted => f.write_str("interrupted before anything was measured"),
            LoadError::Local { doing, why } => write!(f, "{doing}: {why}"),
        }
    }
}

impl std::error::Error for LoadError {}

/// The name of an error code in a reply, as ZooKeeper names it.
pub fn code_name(code: i32) -> String {
    use crate::types::error_code::ErrorCode;
    match code {
        CONNECTION_LOSS => "ConnectionLoss".to_owned(),
        UNFINISHED => "Unfinished".to_owned(),
        code => ErrorCode::from_code(code).map_or_else(|| format!("code {code}"), |known| format!("{known:?}")),
    }
}

/// `KeeperException.Code.CONNECTIONLOSS`: the connection went before the answer came. Never on the wire.
pub const CONNECTION_LOSS: i32 = -4;
/// `KeeperException.Code.OPERATIONTIMEOUT`: no answer although the run's end was waited out. Never on the wire.
pub const UNFINISHED: i32 = -7;
