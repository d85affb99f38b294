//! Settings of a single server: obeyed, or read and known to have no effect.

use super::draft::Draft;
use super::server::{FourLetterWhitelist, Secret, ZabCore};
use super::settings::Outcome::{Bad, Refused, Taken, Warn};
use super::settings::Source::{Bare, File, Ours, PassThrough, PassThroughOrBare};
use super::settings::{
    ANY, Outcome, Outside, Range, Setting, Unit, at_least, flag, idle, number, raised_to, real, text, within,
};
use super::value::{positive, positive_long, unsigned, unsigned_long};
use crate::types::compression::Compression;
use crate::types::digest_algorithm::DigestAlgorithm;
use std::path::PathBuf;

const NO_WAITING_FOR_FLUSHES: &str =
    "one durable write carries everything that came during the last one; nothing waits longer";
const NO_NAPS: &str = "requests that wait are looked at again as soon as another has been answered";
const NO_CLOSED_CONNECTIONS: &str = "what was read from a connection goes with it";
const GLOBAL_SESSIONS_ONLY: &str = "a single server has global sessions only, as ZooKeeper's";
const ACL_CHECKED_AT_ONCE: &str = "a single server has no leader to spare: it checks each ACL itself";

const KILOBYTE: u64 = 1024;

/// Kilobytes as bytes; `None` for 0 and below.
fn kilobytes(value: i64) -> Option<u64> {
    positive_long(value).map(|value| value.saturating_mul(KILOBYTE))
}

fn words(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn directory(store: fn(&mut Draft, PathBuf), draft: &mut Draft, path: &str) -> Outcome {
    if path.is_empty() {
        return Bad("the path of a directory".to_owned());
    }
    store(draft, PathBuf::from(path));
    if path.starts_with('/') || path.starts_with("./") {
        return Taken;
    }
    Warn(format!("{path} is relative to where the server is started; begin it with / (or with ./ if that is meant)"))
}

/// A word other than the one that changes something; Java takes any other for the default.
fn yes_or_no(value: &str, effect: &str, otherwise: &str) -> Outcome {
    match value {
        "yes" | "no" => Taken,
        _ => Warn(format!("only the lower-case word {effect} has an effect; {value} {otherwise}")),
    }
}

pub(super) const SETTINGS: &[Setting] = &[
    // Directories.
    text("dataDir", File, "", |d, v| directory(|d, path| d.data_dir = Some(path), d, v)),
    text("dataLogDir", File, "", |d, v| directory(|d, path| d.data_log_dir = Some(path), d, v)),
    flag("datadir.autocreate", PassThrough, true, |d, v| d.config.datadir_autocreate = v),
    flag("db.autocreate", PassThrough, true, |d, v| d.config.db_autocreate = v),
    // The log.
    number("preAllocSize", PassThrough, 65536, Unit::Kilobytes, ANY, |d, v| {
        d.config.pre_alloc_bytes = kilobytes(v).unwrap_or(0);
    }),
    text("forceSync", PassThrough, "yes", |d, v| {
        d.config.force_sync = v != "no";
        if d.config.force_sync {
            return yes_or_no(v, "no", "means yes");
        }
        Warn("WRITES ARE NOT FORCED TO DISK: a crash of the machine loses acknowledged writes".to_owned())
    }),
    number("fsync.warningthresholdms", PassThroughOrBare, 1000, Unit::Ms, ANY, |d, v| {
        d.config.fsync_warning_threshold_ms = unsigned_long(v);
    }),
    number("txnLogSizeLimitInKb", PassThrough, -1, Unit::Kilobytes, ANY, |d, v| {
        d.config.txn_log_size_limit_bytes = kilobytes(v);
    }),
    idle(
        number("flushDelay", PassThrough, 0, Unit::Ms, ANY, |d, v| d.config.flush_delay_ms = unsigned_long(v)),
        NO_WAITING_FOR_FLUSHES,
    ),
    idle(
        number("maxWriteQueuePollTime", PassThrough, -1, Unit::Ms, ANY, |d, v| {
            d.max_write_queue_poll_time_ms = u64::try_from(v).ok();
        }),
        NO_WAITING_FOR_FLUSHES,
    ),
    idle(
        number("maxBatchSize", PassThrough, 1000, Unit::Count, raised_to(0), |d, v| {
            d.config.max_batch_size = unsigned(v)
        }),
        NO_WAITING_FOR_FLUSHES,
    ),
    // Snapshots and the tree.
    number("snapCount", PassThrough, 100_000, Unit::Count, raised_to(2), |d, v| d.config.snap_count = unsigned(v)),
    number("snapSizeLimitInKb", PassThrough, 4_194_304, Unit::Kilobytes, ANY, |d, v| {
        d.config.snap_size_limit_bytes = kilobytes(v);
    }),
    text("snapshot.compression.method", PassThrough, "", |d, v| {
        let Some(compression) = Compression::parse(v) else {
            return Warn(format!("{v} is not known; snapshots are not compressed. Write gz, snappy or nothing"));
        };
        d.config.snapshot_compression = compression;
        Taken
    }),
    flag("snapshot.trust.empty", PassThrough, false, |d, v| d.config.snapshot_trust_empty = v),
    flag("serializeLastProcessedZxid.enabled", PassThrough, true, |d, v| d.config.serialize_last_processed_zxid = v),
    flag("digest.enabled", PassThrough, true, |d, v| d.config.digest_enabled = v),
    flag("closeSessionTxn.enabled", PassThrough, true, |d, v| d.config.close_session_txn_enabled = v),
    flag("extendedTypesEnabled", PassThrough, false, |d, v| d.config.extended_types_enabled = v),
    flag("enforceQuota", PassThrough, false, |d, v| d.config.enforce_quota = v),
    number(
        "autopurge.snapRetainCount",
        File,
        3,
        Unit::Count,
        Range { min: 3, max: i32::MAX as i64, outside: Outside::Clamped },
        |d, v| d.config.autopurge_snap_retain_count = unsigned(v),
    ),
    number("autopurge.purgeInterval", File, 0, Unit::Hours, within(i32::MIN as i64, i32::MAX as i64), |d, v| {
        d.config.autopurge_purge_interval_hours = positive(v);
    }),
    number("znode.container.checkIntervalMs", Bare, 60_000, Unit::Ms, raised_to(1), |d, v| {
        d.config.znode_container_check_interval_ms = unsigned_long(v);
    }),
    number("znode.container.maxPerMinute", Bare, 10_000, Unit::Count, raised_to(1), |d, v| {
        d.config.znode_container_max_per_minute = unsigned(v);
    }),
    number("znode.container.maxNeverUsedIntervalMs", Bare, 0, Unit::Ms, ANY, |d, v| {
        d.config.znode_container_max_never_used_interval_ms = positive_long(v);
    }),
    // Clients.
    number("clientPort", File, -1, Unit::Port, within(0, 65535), |d, v| d.client_port = u16::try_from(v).ok()),
    text("clientPortAddress", File, "", |d, v| {
        d.client_port_address = Some(v.to_owned());
        Taken
    }),
    number("clientPortListenBacklog", File, -1, Unit::Count, at_least(i32::MIN as i64), |d, v| {
        d.config.client_port_listen_backlog = positive(v);
    }),
    flag("clientTcpKeepAlive", PassThrough, false, |d, v| d.config.client_tcp_keep_alive = v),
    number("tickTime", File, 3000, Unit::Ms, at_least(1), |d, v| d.config.tick_time_ms = unsigned(v)),
    number("minSessionTimeout", File, -1, Unit::Ms, at_least(-1), |d, v| {
        d.min_session_timeout_ms = u32::try_from(v).ok()
    }),
    number("maxSessionTimeout", File, -1, Unit::Ms, at_least(-1), |d, v| {
        d.max_session_timeout_ms = u32::try_from(v).ok()
    }),
    number("maxClientCnxns", File, 60, Unit::Count, within(i32::MIN as i64, i32::MAX as i64), |d, v| {
        d.config.max_client_cnxns = unsigned(v);
    }),
    number("maxCnxns", PassThrough, 0, Unit::Count, ANY, |d, v| d.config.max_cnxns = unsigned(v)),
    number("nio.sessionlessCnxnTimeout", PassThrough, 10_000, Unit::Ms, raised_to(1), |d, v| {
        d.config.nio_sessionless_cnxn_timeout_ms = unsigned(v);
    }),
    idle(flag("localSessionsEnabled", File, false, |d, v| d.config.local_sessions_enabled = v), GLOBAL_SESSIONS_ONLY),
    idle(
        flag("localSessionsUpgradingEnabled", File, false, |d, v| d.config.local_sessions_upgrading_enabled = v),
        GLOBAL_SESSIONS_ONLY,
    ),
    number("jute.maxbuffer", Bare, 0xf_ffff, Unit::Bytes, raised_to(1), |d, v| {
        d.config.jute_maxbuffer_bytes = usize::try_from(v).unwrap_or(0);
    }),
    number("jute.maxbuffer.extrasize", PassThrough, -1, Unit::Bytes, raised_to(1024), |d, v| {
        d.jute_maxbuffer_extrasize_bytes = usize::try_from(v).ok();
    }),
    number("globalOutstandingLimit", PassThrough, 1000, Unit::Count, raised_to(0), |d, v| {
        d.config.global_outstanding_limit = unsigned(v);
    }),
    number("request_throttle_max_requests", PassThrough, 0, Unit::Count, raised_to(0), |d, v| {
        d.config.request_throttle_max_requests = unsigned(v);
    }),
    idle(
        number("request_throttle_stall_time", PassThrough, 100, Unit::Ms, raised_to(1), |d, v| {
            d.config.request_throttle_stall_time_ms = unsigned(v);
        }),
        NO_NAPS,
    ),
    flag("request_throttle_drop_stale", PassThrough, true, |d, v| d.config.request_throttle_drop_stale = v),
    flag("request_stale_latency_check", PassThrough, false, |d, v| d.config.request_stale_latency_check = v),
    idle(
        flag("request_stale_connection_check", PassThrough, true, |d, v| d.config.request_stale_connection_check = v),
        NO_CLOSED_CONNECTIONS,
    ),
    number("throttled_op_wait_time", PassThrough, 0, Unit::Ms, raised_to(0), |d, v| {
        d.config.throttled_op_wait_time_ms = unsigned(v);
    }),
    number("largeRequestMaxBytes", PassThrough, 104_857_600, Unit::Bytes, raised_to(1), |d, v| {
        d.config.large_request_max_bytes = unsigned(v);
    }),
    number("largeRequestThreshold", PassThrough, -1, Unit::Bytes, ANY, |d, v| {
        d.config.large_request_threshold_bytes = positive(v);
    }),
    number("connection_throttle_tokens", PassThrough, 0, Unit::Count, raised_to(0), |d, v| {
        d.config.connection_throttle.tokens = unsigned(v);
    }),
    number("connection_throttle_fill_time", PassThrough, 1, Unit::Ms, raised_to(1), |d, v| {
        d.config.connection_throttle.fill_time_ms = unsigned(v);
    }),
    number("connection_throttle_fill_count", PassThrough, 1, Unit::Count, raised_to(1), |d, v| {
        d.config.connection_throttle.fill_count = unsigned(v);
    }),
    number("connection_throttle_freeze_time", PassThrough, -1, Unit::Ms, ANY, |d, v| {
        d.config.connection_throttle.freeze_time_ms = u32::try_from(v).ok();
    }),
    real("connection_throttle_drop_increase", PassThrough, 0.02, |d, v| d.config.connection_throttle.drop_increase = v),
    real("connection_throttle_drop_decrease", PassThrough, 0.002, |d, v| {
        d.config.connection_throttle.drop_decrease = v
    }),
    real("connection_throttle_decrease_ratio", PassThrough, 0.0, |d, v| {
        d.config.connection_throttle.decrease_ratio = v
    }),
    flag("connection_throttle_weight_enabled", PassThrough, false, |d, v| {
        d.config.connection_throttle.weight_enabled = v;
    }),
    number("connection_throttle_global_session_weight", PassThrough, 3, Unit::Count, raised_to(1), |d, v| {
        d.config.connection_throttle.global_session_weight = unsigned(v);
    }),
    number("connection_throttle_local_session_weight", PassThrough, 1, Unit::Count, raised_to(1), |d, v| {
        d.config.connection_throttle.local_session_weight = unsigned(v);
    }),
    number("connection_throttle_renew_session_weight", PassThrough, 2, Unit::Count, raised_to(1), |d, v| {
        d.config.connection_throttle.renew_session_weight = unsigned(v);
    }),
    text("serverCnxnFactory", PassThrough, "", |_, v| match v {
        ""
        | "org.apache.zookeeper.server.NIOServerCnxnFactory"
        | "org.apache.zookeeper.server.NettyServerCnxnFactory" => Taken,
        _ => Refused("Java classes cannot be loaded; remove it".to_owned()),
    }),
    // Who may do what.
    text("skipACL", PassThrough, "no", |d, v| {
        d.config.skip_acl = v == "yes";
        if d.config.skip_acl {
            return Warn("ACLS ARE NOT CHECKED: everybody may do everything".to_owned());
        }
        yes_or_no(v, "yes", "means no")
    }),
    idle(
        flag("enableEagerACLCheck", PassThrough, false, |d, v| d.config.enable_eager_acl_check = v),
        ACL_CHECKED_AT_ONCE,
    ),
    flag("DigestAuthenticationProvider.enabled", PassThrough, true, |d, v| d.config.digest_auth_enabled = v),
    text("DigestAuthenticationProvider.superDigest", PassThrough, "", |d, v| {
        d.config.super_digest = Some(Secret(v.to_owned())).filter(|digest| !digest.0.is_empty());
        Taken
    }),
    text("DigestAuthenticationProvider.digestAlg", PassThrough, "", |d, v| match DigestAlgorithm::parse(v) {
        Some(algorithm) => {
            d.config.digest_alg = algorithm;
            Taken
        }
        None => Refused(
            "write SHA1, SHA-256, SHA-384, SHA-512 or SHA3-256, the one that the ACLs were made with".to_owned(),
        ),
    }),
    text("authProvider.*", PassThrough, "", auth_provider),
    text("ensembleAuthName", PassThrough, "", |d, v| {
        d.config.ensemble_auth_names = words(v);
        Taken
    }),
    flag("enforce.auth.enabled", PassThrough, false, |d, v| d.enforce_auth_enabled = v),
    text("enforce.auth.schemes", PassThrough, "", |d, v| {
        d.enforce_auth_schemes = words(v);
        Taken
    }),
    // Operators.
    text("4lw.commands.whitelist", PassThrough, "", |d, v| {
        let words = words(v);
        d.config.four_letter_whitelist = if words.iter().any(|word| word == "*") {
            FourLetterWhitelist::All
        } else {
            FourLetterWhitelist::Only(words)
        };
        Taken
    }),
    flag("readonlymode.enabled", Bare, false, |d, v| d.config.read_only_mode_enabled = v),
    flag("reconfigEnabled", File, false, |d, v| d.config.reconfig_enabled = v),
    // Ours alone.
    flag("oxkeeper.strict", Ours, false, |d, v| d.strict = v),
    number("oxkeeper.shards", Ours, 0, Unit::Count, within(0, 1024), |d, v| d.config.shards = unsigned(v)),
    text("oxkeeper.cores", Ours, "", |d, v| {
        if v.is_empty() {
            return Taken;
        }
        d.config.cores = super::value::core_list(v);
        if d.config.cores.is_some() { Taken } else { Bad("a list of CPUs such as 0-3,5".to_owned()) }
    }),
    text("oxkeeper.zabCore", Ours, "", |d, v| {
        d.config.zab_core = match v {
            "auto" => ZabCore::Auto,
            "dedicated" => ZabCore::Dedicated,
            "shared" => ZabCore::Shared,
            _ => return Bad("auto, dedicated or shared".to_owned()),
        };
        Taken
    }),
    text("oxkeeper.pin", Ours, "", |d, v| {
        d.config.pin = match v {
            "auto" => None,
            "true" => Some(true),
            "false" => Some(false),
            _ => return Bad("auto, true or false".to_owned()),
        };
        Taken
    }),
    number("oxkeeper.spinMicros", Ours, 0, Unit::Us, within(0, 1_000_000), |d, v| d.config.spin_us = unsigned(v)),
    number("oxkeeper.logWritesInFlight", Ours, 0, Unit::Count, within(0, 64), |d, v| {
        d.config.log_writes_in_flight = unsigned(v);
    }),
];

/// The value is the class of a provider; what stands behind the dot of the key means nothing.
fn auth_provider(draft: &mut Draft, class: &str) -> Outcome {
    match class.strip_prefix("org.apache.zookeeper.server.auth.") {
        Some("IPAuthenticationProvider") => Taken,
        Some("DigestAuthenticationProvider") => {
            draft.digest_auth_registered = true;
            Taken
        }
        Some("EnsembleAuthenticationProvider") => {
            draft.config.ensemble_auth_enabled = true;
            Taken
        }
        Some("SASLAuthenticationProvider") => Refused(
            "without SASL nobody could use what sasl ACLs protect; remove it, or keep the Java server for now".to_owned(),
        ),
        Some("X509AuthenticationProvider") => Refused(
            "without TLS nobody could use what x509 ACLs protect; remove it, or keep the Java server for now".to_owned(),
        ),
        Some(_) | None => Refused(
            "only the providers of the schemes ip, digest and ensemble are built in; remove it, or keep the Java server"
                .to_owned(),
        ),
    }
}
