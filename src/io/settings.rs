//! From a configuration to what each part of a server needs to know.

use std::time::Duration;

use super::member::MemberSettings;
use super::peer::PeerSettings;
use super::placement::{Allowed, Pinning, Placement};
use super::ring::RingSettings;
use super::run::ServerSettings;
use super::snapshot_writer::SnapshotWriterSettings;
use crate::config::{self, Config, FourLetterWhitelist, HostPort, Mode, Role, ZabCore};
use crate::ops::four_letter::Whitelist;
use crate::server::pipeline::ZabSettings;
use crate::server::snapshots::{ContainerSettings, SnapshotSettings};
use crate::server::status::{EnsembleStatus, Settings as StatusSettings};
use crate::shard::auth::AuthSettings;
use crate::shard::machine::ShardSettings;
use crate::shard::throttle::{RequestThrottle, ThrottleSettings, Weights};
use crate::storage::files::DataDirs;
use crate::storage::log::{BLOCK_BYTES, LogConfig};
use crate::tree::TreeSettings;
use crate::tree::access::AccessSettings;
use crate::types::ids::{ServerId, ShardId};
use crate::types::limits;
use crate::zab::quorum::Ensemble;
use crate::zab::{self, leases};

/// Log files are zeroed ahead by so much at a time, at most; a smaller `preAllocSize` is respected.
const STRETCH_BYTES: u64 = 4 << 20;
/// A new log file begins when one has reached this, unless `txnLogSizeLimitInKb` says less.
const LOG_ROLL_BYTES: u64 = 1 << 30;
/// One log write carries at most so much: more waits for the next.
const LOG_WRITE_BYTES: u32 = 1 << 20;
/// `ZooKeeperServer` of a standalone server calls itself so in session ids.
const STANDALONE_ID: ServerId = ServerId(1);

/// `seed`: what is drawn at random starts from it.
pub fn resolve(config: &Config, seed: u64) -> ServerSettings {
    let dirs = DataDirs::new(config.data_dir.clone(), Some(config.data_log_dir.clone()));
    let placement = placement(config);
    let shards = match &placement {
        Placement::Shared { .. } => 1,
        Placement::Separate { shards, .. } => shards.len(),
    };
    let access = AccessSettings {
        skip_acl: config.skip_acl,
        digest_enabled: config.digest_auth_enabled,
        ensemble_enabled: config.ensemble_auth_enabled,
    };
    let writes_in_flight = config.log_writes_in_flight.max(1);
    ServerSettings {
        datadir_autocreate: config.datadir_autocreate,
        db_autocreate: config.db_autocreate,
        trust_empty_snapshot: config.snapshot_trust_empty,
        tree: TreeSettings {
            extended_types: config.extended_types_enabled,
            digest_enabled: config.digest_enabled,
            close_session_txn: config.close_session_txn_enabled,
            enforce_quota: config.enforce_quota,
            reconfig_enabled: config.reconfig_enabled,
            access: access.clone(),
        },
        shard: shard(config, access, shards),
        zab: zab(config, seed),
        snapshots: SnapshotWriterSettings {
            dirs: dirs.clone(),
            compression: config.snapshot_compression,
            with_last_processed: config.serialize_last_processed_zxid,
            purge: config.autopurge_purge_interval_hours.map(|hours| {
                (config.autopurge_snap_retain_count as usize, Duration::from_secs(3600 * u64::from(hours)))
            }),
        },
        ring: RingSettings {
            log_buffers: writes_in_flight as u16,
            log_buffer_bytes: LOG_WRITE_BYTES,
            keep_alive: config.client_tcp_keep_alive,
            ..RingSettings::default()
        },
        force_sync: config.force_sync,
        fsync_warning_threshold: Duration::from_millis(config.fsync_warning_threshold_ms),
        listen: config.client_port_address.as_ref().map(|address| (address.host.clone(), address.port)),
        listen_backlog: config.client_port_listen_backlog,
        connections_per_address_max: config.max_client_cnxns,
        connections_max: config.max_cnxns,
        whitelist: match &config.four_letter_whitelist {
            FourLetterWhitelist::All => Whitelist::parse("*", false),
            FourLetterWhitelist::Only(words) => Whitelist::parse(&words.join(","), config.read_only_mode_enabled),
        },
        placement,
        spin: Duration::from_micros(u64::from(config.spin_us)),
        status: status(config, &dirs),
        member: member(config, seed),
        dirs,
    }
}

/// `None`: the server stands alone, or its configuration has not been checked.
fn member(config: &Config, seed: u64) -> Option<MemberSettings> {
    if config.mode() == Mode::Standalone {
        return None;
    }
    let server = config.server_id?;
    let ensemble = Ensemble::new(config.membership.clone())?;
    let on_all = |mut addresses: Vec<HostPort>| {
        if config.quorum_listen_on_all_ips {
            addresses.iter_mut().for_each(|address| *address = HostPort::wildcard(address.port));
            addresses.sort();
            addresses.dedup();
        }
        addresses
    };
    Some(MemberSettings {
        zab: zab::settings::Settings::of(config, server, seed),
        peers: PeerSettings {
            election: on_all(ensemble.election_addresses(server)),
            quorum: on_all(ensemble.quorum_addresses(server)),
            bind_retries_max: Some(config.election_port_bind_retry).filter(|retries| *retries > 0),
            keep_alive: config.tcp_keep_alive,
            connect_timeout: Duration::from_millis(config.cnx_timeout_ms.into()),
            user_timeout: tick(config) * (config.init_limit_ticks + config.sync_limit_ticks),
        },
        ensemble,
        snapshot_size_factor: config.snapshot_size_factor,
    })
}

fn placement(config: &Config) -> Placement {
    let mut allowed = Allowed::of_this_process();
    if let Some(cores) = &config.cores {
        allowed.cpus = cores.iter().map(|core| usize::from(*core)).collect();
        allowed.parallel = allowed.cpus.len();
    }
    let pinning = match config.pin {
        None => Pinning::Auto,
        Some(true) => Pinning::On,
        Some(false) => Pinning::Off,
    };
    let wanted = (config.shards > 0).then_some(config.shards as usize);
    match (config.zab_core, wanted) {
        (ZabCore::Shared, None | Some(1)) => match Placement::choose(&allowed, Some(1), pinning) {
            Placement::Shared { core } => Placement::Shared { core },
            Placement::Separate { zab, .. } => Placement::Shared { core: zab },
        },
        (ZabCore::Dedicated, None) => {
            let shards = allowed.parallel.saturating_sub(2).max(1);
            Placement::choose(&allowed, Some(shards), pinning)
        }
        (_, wanted) => Placement::choose(&allowed, wanted, pinning),
    }
}

fn shard(config: &Config, access: AccessSettings, shards: usize) -> ShardSettings {
    ShardSettings {
        id: ShardId(0),
        payload_bytes_max: config.jute_maxbuffer_bytes,
        session_timeout_min_ms: i32::try_from(config.min_session_timeout_ms).unwrap_or(i32::MAX),
        session_timeout_max_ms: i32::try_from(config.max_session_timeout_ms).unwrap_or(i32::MAX),
        outstanding_max: (config.global_outstanding_limit as usize / shards).max(1),
        large_request_threshold: config.large_request_threshold_bytes.map(|bytes| bytes as usize),
        large_request_bytes_max: large_request_bytes_max(config, shards),
        request_throttle: request_throttle(config, shards),
        sessionless_timeout: Duration::from_millis(u64::from(config.nio_sessionless_cnxn_timeout_ms)),
        touch_report_delay: leases::report_delay(tick(config)),
        extended_types: config.extended_types_enabled,
        auth: AuthSettings {
            digest_algorithm: config.digest_alg,
            super_digest: config.super_digest.as_ref().map(|secret| secret.0.clone()),
            ensemble_names: (!config.ensemble_auth_names.is_empty()).then(|| config.ensemble_auth_names.clone()),
            enforced_schemes: (!config.enforce_auth_schemes.is_empty()).then(|| config.enforce_auth_schemes.clone()),
        },
        access,
    }
}

/// A shard's part of `largeRequestMaxBytes`, though never so little that one frame that fits the whole is refused.
fn large_request_bytes_max(config: &Config, shards: usize) -> usize {
    let whole = config.large_request_max_bytes as usize;
    (whole / shards).max(whole.min(config.jute_maxbuffer_bytes))
}

fn request_throttle(config: &Config, shards: usize) -> Option<RequestThrottle> {
    let (requests_max, op_wait) = (config.request_throttle_max_requests as usize, config.throttled_op_wait_time_ms);
    (requests_max > 0).then(|| RequestThrottle {
        requests_max: (requests_max / shards).max(1),
        op_wait: (op_wait > 0).then(|| Duration::from_millis(u64::from(op_wait))),
        drops_stale: config.request_throttle_drop_stale && config.request_stale_latency_check,
    })
}

fn zab(config: &Config, seed: u64) -> ZabSettings {
    let entry_bytes_max = config.jute_maxbuffer_bytes.saturating_add(config.jute_maxbuffer_extrasize_bytes);
    let stretch = match config.pre_alloc_bytes {
        0 => BLOCK_BYTES as u64,
        bytes => bytes.next_multiple_of(BLOCK_BYTES as u64).min(STRETCH_BYTES),
    };
    ZabSettings {
        server: match config.mode() {
            Mode::Standalone => STANDALONE_ID,
            Mode::Distributed => config.server_id.unwrap_or(STANDALONE_ID),
        },
        tick: tick(config),
        entry_bytes_max,
        snapshots: SnapshotSettings { txns: u64::from(config.snap_count), log_bytes: config.snap_size_limit_bytes },
        containers: ContainerSettings {
            check_interval: Duration::from_millis(config.znode_container_check_interval_ms),
            per_minute_max: config.znode_container_max_per_minute,
            never_used_max: config.znode_container_max_never_used_interval_ms.map(Duration::from_millis),
        },
        log: LogConfig {
            writes_in_flight: config.log_writes_in_flight.max(1) as usize,
            roll_bytes: config.txn_log_size_limit_bytes.unwrap_or(LOG_ROLL_BYTES).min(LOG_ROLL_BYTES),
            stretch_bytes: stretch,
            ahead_bytes: 2 * stretch,
            ..LogConfig::default()
        },
        connection_throttle: connection_throttle(&config.connection_throttle),
        leader_serves: config.leader_serves,
        seed,
    }
}

fn connection_throttle(throttle: &config::ConnectionThrottle) -> ThrottleSettings {
    ThrottleSettings {
        tokens: throttle.tokens,
        fill_time_ms: throttle.fill_time_ms,
        fill_count: throttle.fill_count,
        freeze_time_ms: throttle.freeze_time_ms,
        drop_increase: throttle.drop_increase,
        drop_decrease: throttle.drop_decrease,
        decrease_ratio: throttle.decrease_ratio,
        weights: throttle.weight_enabled.then_some(Weights {
            global_session: throttle.global_session_weight,
            local_session: throttle.local_session_weight,
            renew_session: throttle.renew_session_weight,
        }),
    }
}

fn tick(config: &Config) -> Duration {
    Duration::from_millis(u64::from(config.tick_time_ms))
}

fn status(config: &Config, dirs: &DataDirs) -> StatusSettings {
    let absolute = |path: std::path::PathBuf| std::path::absolute(&path).unwrap_or(path).display().to_string();
    StatusSettings {
        server_id: config.server_id.map_or(0, |id| id.0),
        client_port: -1,
        secure_client_port: -1,
        client_port_listen_backlog: config.client_port_listen_backlog.map_or(-1, |backlog| backlog as i32),
        data_dir: absolute(dirs.snapshots()),
        data_log_dir: absolute(dirs.logs()),
        tick_time_ms: config.tick_time_ms as i32,
        max_client_cnxns: config.max_client_cnxns as i32,
        min_session_timeout_ms: config.min_session_timeout_ms as i32,
        max_session_timeout_ms: config.max_session_timeout_ms as i32,
        ensemble: ensemble_status(config),
    }
}

fn ensemble_status(config: &Config) -> Option<EnsembleStatus> {
    let own = config.own_member().filter(|_| config.mode() == Mode::Distributed)?;
    let text = config.membership.config_text();
    let address = own.addresses.first()?;
    Some(EnsembleStatus {
        init_limit_ticks: config.init_limit_ticks as i32,
        sync_limit_ticks: config.sync_limit_ticks as i32,
        election_port: address.election_port,
        quorum_port: address.quorum_port,
        observer: config.peer_type == Role::Observer,
        members: text.lines().filter(|line| !line.starts_with("version=")).map(str::to_owned).collect(),
        voters: config.membership.participants().count() as u32,
        config_version: config.membership.version,
    })
}

const _: () = assert!(LOG_WRITE_BYTES as usize <= limits::LOG_IN_FLIGHT_BYTES_MAX);
