//! `Config`: every setting that a server obeys, typed, with defaults filled in and derived values resolved.

use super::ensemble::{HostPort, Member, Membership, Role};
use crate::types::compression::Compression;
use crate::types::digest_algorithm::DigestAlgorithm;
use crate::types::ids::ServerId;
use std::fmt;
use std::path::PathBuf;

/// Standalone, or member of an ensemble.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Standalone,
    /// More than one voter, or at least one with `standaloneEnabled=false`.
    Distributed,
}

/// Text that must not show up in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// `4lw.commands.whitelist`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FourLetterWhitelist {
    All,
    /// As written. `srvr` is allowed besides, and `isro` if `readonlymode.enabled`: see `Config::allows_word`.
    Only(Vec<String>),
}

impl Default for FourLetterWhitelist {
    fn default() -> FourLetterWhitelist {
        FourLetterWhitelist::Only(Vec::new())
    }
}

/// `oxkeeper.zabCore`: whether the zab core has a CPU of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ZabCore {
    #[default]
    Auto,
    Dedicated,
    Shared,
}

/// `oxkeeper.extensions`: what two servers of ours may agree on beyond ZooKeeper's own protocol. Java never sees any of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Extensions {
    /// One ack stands for all txns before it.
    pub cumulative_acks: bool,
    pub heartbeats: bool,
    /// Many proposals in one packet.
    pub batched_proposals: bool,
    /// Proposals and heartbeats tell what is committed.
    pub commit_index: bool,
    /// A leader that stops hands over first.
    pub leadership_transfer: bool,
}

impl Extensions {
    pub const NAMES: [&str; 5] =
        ["cumulativeAcks", "heartbeats", "batchedProposals", "commitIndex", "leadershipTransfer"];

    fn flags(&mut self) -> [&mut bool; 5] {
        [
            &mut self.cumulative_acks,
            &mut self.heartbeats,
            &mut self.batched_proposals,
            &mut self.commit_index,
            &mut self.leadership_transfer,
        ]
    }

    /// `all`, `none`, or names with commas between them; a list of names with `-` before them is all but those.
    pub fn parse(text: &str) -> Option<Extensions> {
        let words: Vec<&str> = text.split(',').map(str::trim).collect();
        let mut extensions = Extensions::default();
        if words == ["none"] {
            return Some(extensions);
        }
        if words.iter().all(|word| *word == "all" || word.starts_with('-')) {
            extensions.flags().into_iter().for_each(|flag| *flag = true);
        }
        for word in words.into_iter().filter(|word| *word != "all") {
            let (name, is_on) = word.strip_prefix('-').map_or((word, true), |name| (name, false));
            let at = Extensions::NAMES.iter().position(|known| *known == name)?;
            *extensions.flags()[at] = is_on;
        }
        Some(extensions)
    }
}

/// `connection_throttle_*`: a token bucket for ConnectRequests (`BlueThrottle`).
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ConnectionThrottle {
    /// 0 switches it off.
    pub tokens: u32,
    pub fill_time_ms: u32,
    pub fill_count: u32,
    /// Between two changes of the drop probability. None: connections are never dropped at random.
    pub freeze_time_ms: Option<u32>,
    pub drop_increase: f64,
    pub drop_decrease: f64,
    pub decrease_ratio: f64,
    pub weight_enabled: bool,
    pub global_session_weight: u32,
    pub local_session_weight: u32,
    pub renew_session_weight: u32,
}

/// Declares `Config` once and derives from that an empty one, which the table of settings then fills with its
/// defaults. A derived `Default` would be the empty one and too easy to take for the real thing.
macro_rules! config {
    ($($(#[$meta:meta])* $name:ident: $type:ty,)*) => {
        /// Every setting of a server. Names are ZooKeeper's keys in snake case, with the unit where there is one.
        #[derive(Clone, PartialEq, Debug)]
        pub struct Config {
            $($(#[$meta])* pub $name: $type,)*
        }

        impl Config {
            /// Nothing but zeros.
            pub(super) fn empty() -> Config {
                Config { $($name: <$type>::default(),)* }
            }
        }
    };
}

config! {
    // Directories and files.
    data_dir: PathBuf,
    data_log_dir: PathBuf,
    /// Make missing `version-2` directories; if not, a missing one ends the start with exit code 3.
    datadir_autocreate: bool,
    /// Trust an empty database without the marker file `initialize`.
    db_autocreate: bool,

    // The log.
    pre_alloc_bytes: u64,
    force_sync: bool,
    fsync_warning_threshold_ms: u64,
    txn_log_size_limit_bytes: Option<u64>,
    flush_delay_ms: u64,
    max_write_queue_poll_time_ms: u64,
    /// 0: no limit.
    max_batch_size: u32,

    // Snapshots and the tree.
    /// Txns, at least 2.
    snap_count: u32,
    snap_size_limit_bytes: Option<u64>,
    snapshot_compression: Compression,
    snapshot_trust_empty: bool,
    serialize_last_processed_zxid: bool,
    digest_enabled: bool,
    close_session_txn_enabled: bool,
    extended_types_enabled: bool,
    enforce_quota: bool,
    /// At least 3.
    autopurge_snap_retain_count: u32,
    /// None: never.
    autopurge_purge_interval_hours: Option<u32>,
    znode_container_check_interval_ms: u64,
    znode_container_max_per_minute: u32,
    /// None: containers that never had a child stay.
    znode_container_max_never_used_interval_ms: Option<u64>,

    // Clients.
    /// None: no plaintext listener. Port 0: one that the kernel chooses.
    client_port_address: Option<HostPort>,
    /// None: the system's own.
    client_port_listen_backlog: Option<u32>,
    client_tcp_keep_alive: bool,
    tick_time_ms: u32,
    min_session_timeout_ms: u32,
    max_session_timeout_ms: u32,
    /// Connections of one address, 0: no limit.
    max_client_cnxns: u32,
    /// Connections in all, 0: no limit.
    max_cnxns: u32,
    nio_sessionless_cnxn_timeout_ms: u32,
    local_sessions_enabled: bool,
    local_sessions_upgrading_enabled: bool,
    jute_maxbuffer_bytes: usize,
    jute_maxbuffer_extrasize_bytes: usize,
    /// Requests. Already divided by the other voters if there are more than two.
    global_outstanding_limit: u32,
    /// Requests, 0: off.
    request_throttle_max_requests: u32,
    request_throttle_stall_time_ms: u32,
    request_throttle_drop_stale: bool,
    request_stale_latency_check: bool,
    request_stale_connection_check: bool,
    /// 0: off.
    throttled_op_wait_time_ms: u32,
    large_request_max_bytes: u32,
    /// None: no request is large.
    large_request_threshold_bytes: Option<u32>,
    connection_throttle: ConnectionThrottle,

    // Who may do what.
    skip_acl: bool,
    enable_eager_acl_check: bool,
    digest_auth_enabled: bool,
    /// `super:<base64>`.
    super_digest: Option<Secret>,
    digest_alg: DigestAlgorithm,
    /// The scheme `ensemble` is registered.
    ensemble_auth_enabled: bool,
    /// Empty: any name will do.
    ensemble_auth_names: Vec<String>,
    /// Schemes of which a connection needs one. Empty: not enforced.
    enforce_auth_schemes: Vec<String>,

    // Operators.
    four_letter_whitelist: FourLetterWhitelist,
    read_only_mode_enabled: bool,
    reconfig_enabled: bool,

    // The ensemble.
    standalone_enabled: bool,
    server_id: Option<ServerId>,
    /// As zoo.cfg or its dynamic file says; empty without server lines.
    membership: Membership,
    /// The membership of a `.dynamic.next`: proposed, perhaps never committed.
    last_seen_membership: Option<Membership>,
    /// The server list has the last word.
    peer_type: Role,
    init_limit_ticks: u32,
    sync_limit_ticks: u32,
    connect_to_learner_master_limit_ticks: u32,
    sync_enabled: bool,
    quorum_listen_on_all_ips: bool,
    observer_master_port: Option<u16>,
    leader_serves: bool,
    cnx_timeout_ms: u32,
    /// None: syncLimit ticks.
    quorum_cnxn_timeout_ms: Option<u32>,
    /// 0: for ever.
    election_port_bind_retry: u32,
    tcp_keep_alive: bool,
    leader_nodelay: bool,
    follower_nodelay: bool,
    fastleader_min_notification_interval_ms: u32,
    fastleader_max_notification_interval_ms: u32,
    leader_max_time_to_wait_for_epoch_ms: Option<u32>,
    leader_max_concurrent_snap_syncs: u32,
    leader_max_concurrent_diff_syncs: u32,
    leader_connect_delay_during_retry_ms: u32,
    observer_reconnect_delay_ms: u32,
    observer_election_delay_ms: u32,
    observer_master_size_limit_bytes: u32,
    force_snapshot_sync: bool,
    /// Txns, at least 500.
    commit_log_count: u32,
    /// Share of the snapshot's size up to which the log is used to sync. None: never.
    snapshot_size_factor: Option<f64>,
    multi_address_enabled: bool,
    multi_address_reachability_check_enabled: bool,
    multi_address_reachability_check_timeout_ms: u32,

    // Ours alone.
    extensions: Extensions,
    /// Between servers of ours: how often each is heard at least, and after how long a silence it counts as dead.
    heartbeat_ms: u32,
    heartbeat_timeout_ms: u32,
    /// How long an election that has a quorum waits for better votes of servers that may be alive.
    election_grace_ms: u32,
    /// 0: choose.
    shards: u32,
    /// CPUs to run on. None: those of the affinity mask.
    cores: Option<Vec<u16>>,
    zab_core: ZabCore,
    /// None: choose.
    pin: Option<bool>,
    spin_us: u32,
    /// Writes of the log that may be under way at once. 0: choose.
    log_writes_in_flight: u32,
}

impl Config {
    /// `QuorumPeerConfig.isDistributed`.
    pub fn mode(&self) -> Mode {
        let voters = self.membership.participants().count();
        if voters > 1 || (voters == 1 && !self.standalone_enabled) { Mode::Distributed } else { Mode::Standalone }
    }

    /// Our own server line.
    pub fn own_member(&self) -> Option<&Member> {
        self.membership.members.get(&self.server_id?)
    }

    /// Whether the whitelist lets a four-letter word through (`FourLetterCommands.isEnabled`).
    pub fn allows_word(&self, word: &str) -> bool {
        let listed = match &self.four_letter_whitelist {
            FourLetterWhitelist::All => true,
            FourLetterWhitelist::Only(words) => words.iter().any(|listed| listed == word),
        };
        listed || word == "srvr" || (word == "isro" && self.read_only_mode_enabled)
    }
}
