//! What an operator may know about a server, as one plain value.
//!
//! A four-letter word, an admin command or a scrape asks every core for its part (`ShardStatus`, `ZabStatus`), says
//! with `Needs` which of the long lists it wants, puts the parts together with `Status::collect` and gives the whole
//! to `ops/`, which writes text. What a word changes comes back as a `Command` that every core carries out.

use std::collections::BTreeMap;

use super::stats::ZabStats;
use crate::shard::stats::OpKind;
use crate::shard::status::ShardStatus;
use crate::types::ids::SessionId;
use crate::types::summary::LatencySummary;
use crate::types::time::WallTime;
use crate::types::zxid::Zxid;

/// `x.y.z` of the ZooKeeper whose behaviour this server has: what parsers of version texts look for.
const COMPATIBLE_VERSION: &str = "3.9.5";

/// When this was built, as the release process says through the environment; a fixed text otherwise, so that the
/// same source gives the same binary.
const BUILT_ON: &str = match option_env!("OXKEEPER_BUILT_ON") {
    Some(date) => date,
    None => "2026-11-21 00:00 UTC",
};

/// `3.9.5-oxkeeper-0.1.0, built on 2026-11-21 00:00 UTC`: in `srvr`, `mntr`, `envi` and the start's log line.
pub fn version_text() -> String {
    format!("{COMPATIBLE_VERSION}-oxkeeper-{}, built on {BUILT_ON}", env!("CARGO_PKG_VERSION"))
}

/// What Java remembers as trace mask until told otherwise: requests, packets of the leader, sessions, warnings.
pub const TRACE_MASK_DEFAULT: i64 = 306;

/// A change that a word asked for. Every core that it concerns carries it out; the answer does not wait for that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// `crst`: each shard resets the `ConnectionStats` of its connections.
    ResetConnectionStats,
    /// `srst`: each core resets its `ShardStats` or `ZabStats`.
    ResetServerStats,
    /// `stmk`.
    SetTraceMask(i64),
}

/// Which part this server plays right now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Starting, electing or synchronizing: most words are refused.
    NotServing,
    Standalone,
    Leader(LeaderStatus),
    Follower,
    /// The server that this observer follows: the leader, or a follower with an observer master port.
    Observer {
        master: i64,
    },
    ReadOnly,
}

impl Mode {
    /// As `srvr` and `zk_server_state` spell it.
    pub const fn name(self) -> &'static str {
        match self {
            // `ServerStats.Provider` of a server that does not exist yet; no word shows it.
            Mode::NotServing => "null",
            Mode::Standalone => "standalone",
            Mode::Leader(_) => "leader",
            Mode::Follower => "follower",
            Mode::Observer { .. } => "observer",
            Mode::ReadOnly => "read-only",
        }
    }

    /// `zk_peer_state`; a standalone server has none.
    pub const fn peer_state(self) -> Option<&'static str> {
        match self {
            Mode::NotServing | Mode::Standalone | Mode::ReadOnly => None,
            Mode::Leader(_) => Some("leading - broadcast"),
            Mode::Follower => Some("following - broadcast"),
            Mode::Observer { .. } => Some("observing - broadcast"),
        }
    }
}

/// Gauges that exist only while leading.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeaderStatus {
    pub learners: u32,
    pub synced_followers: u32,
    pub synced_observers: u32,
    pub synced_non_voting_followers: u32,
    pub pending_syncs: u32,
    pub leader_uptime_ms: u64,
}

/// Settings, fixed while the process lives or until a reconfiguration. `conf` shows them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// 0 for standalone.
    pub server_id: i64,
    /// −1: not open, as for `secure_client_port`.
    pub client_port: i32,
    pub secure_client_port: i32,
    /// −1: the system's default.
    pub client_port_listen_backlog: i32,
    /// Absolute, with `version-2`.
    pub data_dir: String,
    pub data_log_dir: String,
    pub tick_time_ms: i32,
    /// Per address; 0: no limit.
    pub max_client_cnxns: i32,
    pub min_session_timeout_ms: i32,
    pub max_session_timeout_ms: i32,
    /// `None` for standalone.
    pub ensemble: Option<EnsembleStatus>,
}

/// What `conf` adds for a member of an ensemble.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EnsembleStatus {
    pub init_limit_ticks: i32,
    pub sync_limit_ticks: i32,
    pub election_port: u16,
    pub quorum_port: u16,
    pub observer: bool,
    /// `server.1=host:2888:3888:participant;0.0.0.0:2181`, in order, without line ends.
    pub members: Vec<String>,
    /// Voters in the configuration (`zk_quorum_size`).
    pub voters: u32,
    pub config_version: i64,
}

/// The machine and the process, as `envi` shows them. Read once at start, except for the memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Environment {
    pub host_name: String,
    /// `Linux`, `amd64`, `6.1.0`: with Java's names for machines.
    pub os_name: String,
    pub os_arch: String,
    pub os_version: String,
    pub user_name: String,
    pub user_home: String,
    pub user_dir: String,
    pub temp_dir: String,
    /// What the kernel could still give; the most that this process may have; what it has.
    pub memory_free_mb: u64,
    pub memory_max_mb: u64,
    pub memory_total_mb: u64,
}

/// One session, for `dump`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionStatus {
    pub session: SessionId,
    pub timeout_ms: i32,
    /// Known to whoever expires sessions: the leader or a standalone server.
    pub expires_at: WallTime,
}

/// Limits and use of one quota, for the gauge sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QuotaStatus {
    /// −1: no limit. The larger of hard and soft limit's absence is Java's own choice (`QuotaMetricsUtils`).
    pub count_limit: i64,
    pub bytes_limit: i64,
    pub count_usage: i64,
    pub bytes_usage: i64,
}

/// What the zab core tells.
#[derive(Clone, Debug)]
pub struct ZabStatus {
    pub mode: Mode,
    /// Last committed.
    pub zxid: Zxid,
    pub stats: ZabStats,
    /// As Java counts: the root twice, so a fresh server has 5.
    pub znode_count: u64,
    pub ephemerals_count: u64,
    /// Lengths of all paths and data.
    pub approximate_data_bytes: i64,
    pub global_sessions: u64,
    pub local_sessions: u64,
    /// By the first component of the path that carries the quota.
    pub quotas: BTreeMap<String, QuotaStatus>,
    /// If `Needs::sessions`.
    pub sessions: Vec<SessionStatus>,
    /// If `Needs::ephemerals`.
    pub ephemerals: BTreeMap<SessionId, Vec<String>>,
    /// If `Needs::digests`: every 128th zxid and the tree's digest behind it, oldest first.
    pub digests: Vec<(Zxid, u64)>,
}

impl Default for ZabStatus {
    /// A server that does not serve yet.
    fn default() -> ZabStatus {
        ZabStatus {
            mode: Mode::NotServing,
            zxid: Zxid::ZERO,
            stats: ZabStats::default(),
            znode_count: 0,
            ephemerals_count: 0,
            approximate_data_bytes: 0,
            global_sessions: 0,
            local_sessions: 0,
            quotas: BTreeMap::new(),
            sessions: Vec::new(),
            ephemerals: BTreeMap::new(),
            digests: Vec::new(),
        }
    }
}

/// What only the world outside the machines knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProcessStatus {
    pub wall_now: WallTime,
    pub uptime_ms: u64,
    pub open_file_descriptors: u64,
    pub max_file_descriptors: u64,
    /// If `Needs::directories`: sums of apparent file sizes.
    pub data_dir_bytes: u64,
    pub log_dir_bytes: u64,
    pub trace_mask: i64,
}

/// All of it, put together.
#[derive(Clone, Debug)]
pub struct Status {
    /// `version_text()`.
    pub version: String,
    pub settings: Settings,
    pub environment: Environment,
    pub process: ProcessStatus,
    pub zab: ZabStatus,
    /// All shards together; connections in the order of the shards.
    pub shards: ShardStatus,
}

impl Status {
    pub fn collect(
        settings: Settings,
        environment: Environment,
        process: ProcessStatus,
        zab: ZabStatus,
        shards: impl IntoIterator<Item = ShardStatus>,
    ) -> Status {
        let mut all = ShardStatus::default();
        for shard in shards {
            all.absorb(shard);
        }
        Status { version: version_text(), settings, environment, process, zab, shards: all }
    }

    pub fn is_serving(&self) -> bool {
        self.zab.mode != Mode::NotServing
    }

    /// Received to answered, of all requests since the last `srst`.
    pub fn latency(&self) -> LatencySummary {
        let mut latency = *self.shards.stats.readlatency.summary();
        latency.merge(self.shards.stats.updatelatency.summary());
        latency
    }

    /// `op_count_<kind>`: ZooKeeper counts both versions of setWatches as one.
    pub fn op_count(&self, kind: OpKind) -> u64 {
        let counts = &self.shards.stats.op_counts;
        match kind {
            OpKind::SetWatches => counts.of(OpKind::SetWatches) + counts.of(OpKind::SetWatches2),
            kind => counts.of(kind),
        }
    }
}

impl ShardStatus {
    /// Adds what another shard tells. A session is on one shard only, so its watches never meet.
    pub fn absorb(&mut self, other: ShardStatus) {
        self.stats.merge(&other.stats);
        self.connections_alive += other.connections_alive;
        self.outstanding += other.outstanding;
        self.watch_count += other.watch_count;
        self.outstanding_tls_handshake += other.outstanding_tls_handshake;
        self.connections.extend(other.connections);
        for (session, paths) in other.watches {
            self.watches.entry(session).or_default().extend(paths);
        }
    }
}
