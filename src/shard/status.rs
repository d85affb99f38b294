//! What one shard tells an operator.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::stats::{ConnectionStats, ShardStats};
use crate::types::ids::SessionId;
use crate::types::time::WallTime;

/// Which long lists an answer needs; everything else is cheap and always filled in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Needs {
    pub connections: bool,
    /// Paths of every data watch: as long as there are watches.
    pub watches: bool,
    pub sessions: bool,
    pub ephemerals: bool,
    pub digests: bool,
    /// Sizes of the directories: reads them, so ask a helper thread.
    pub directories: bool,
}

/// One connection, for `stat`, `cons` and `dump`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionStatus {
    pub peer: SocketAddr,
    /// On the TLS port: listed behind the others.
    pub secure: bool,
    /// `SessionId::NONE` until the connect request was granted.
    pub session: SessionId,
    /// 1: waits for requests; 4: has answers that the socket did not take; 5: both; 0: neither, as the asking one.
    pub interest: u8,
    /// Requests received and not yet answered.
    pub queued: u32,
    pub stats: ConnectionStats,
    pub established: WallTime,
    /// As negotiated.
    pub timeout_ms: i32,
    /// When it will be closed if nothing more comes.
    pub expires_at: WallTime,
}

/// Paths with a data watch, by the session that set it. Each path once per session.
pub type Watches = BTreeMap<SessionId, Vec<String>>;

/// What one shard core tells.
#[derive(Clone, Debug, Default)]
pub struct ShardStatus {
    pub stats: ShardStats,
    pub connections_alive: u64,
    /// Requests inside the server (`Outstanding`).
    pub outstanding: u64,
    /// Data and child watches.
    pub watch_count: u64,
    pub outstanding_tls_handshake: u64,
    /// If `Needs::connections`.
    pub connections: Vec<ConnectionStatus>,
    /// If `Needs::watches`.
    pub watches: Watches,
}
