//! Settings that members of an ensemble obey. On a single server they are as without effect as in Java.

use super::ensemble::Role;
use super::server::Extensions;
use super::settings::Outcome::{Bad, Taken, Warn};
use super::settings::Source::{Bare, File, FileOrProperty, Ours, PassThrough};
use super::settings::{ANY, Setting, Unit, at_least, flag, idle, number, raised_to, real, text, within};
use super::value::{positive, unsigned};

const NEVER_DELAYED: &str = "nothing between servers is held back to be sent with more";

pub(super) const SETTINGS: &[Setting] = &[
    number("initLimit", File, 0, Unit::Ticks, at_least(0), |d, v| d.config.init_limit_ticks = unsigned(v)),
    number("syncLimit", File, 0, Unit::Ticks, at_least(0), |d, v| d.config.sync_limit_ticks = unsigned(v)),
    number("connectToLearnerMasterLimit", File, 0, Unit::Ticks, at_least(0), |d, v| {
        d.config.connect_to_learner_master_limit_ticks = unsigned(v);
    }),
    number("electionAlg", File, 3, Unit::Count, within(3, 3), |_, _| {}),
    text("peerType", File, "", |d, v| match Role::parse(v) {
        Some(role) => {
            d.config.peer_type = role;
            Taken
        }
        None => Bad("participant or observer".to_owned()),
    }),
    text("dynamicConfigFile", File, "", |_, _| Taken),
    flag("standaloneEnabled", File, true, |d, v| d.config.standalone_enabled = v),
    flag("quorumListenOnAllIPs", File, false, |d, v| d.config.quorum_listen_on_all_ips = v),
    flag("syncEnabled", File, true, |d, v| d.config.sync_enabled = v),
    text("observer.syncEnabled", PassThrough, "", |d, v| {
        d.observer_sync_enabled = Some(v.eq_ignore_ascii_case("true"));
        Taken
    }),
    number("observerMasterPort", File, 0, Unit::Port, within(i32::MIN as i64, 65535), |d, v| {
        d.config.observer_master_port = u16::try_from(v).ok().filter(|&port| port > 0);
    }),
    text("leaderServes", PassThrough, "yes", |d, v| {
        d.config.leader_serves = v != "no";
        match v {
            "yes" | "no" => Taken,
            _ => Warn(format!("only the lower-case word no has an effect; {v} means yes")),
        }
    }),
    number("cnxTimeout", PassThrough, 5000, Unit::Ms, raised_to(1), |d, v| d.config.cnx_timeout_ms = unsigned(v)),
    number("quorumCnxnTimeoutMs", PassThrough, -1, Unit::Ms, ANY, |d, v| d.config.quorum_cnxn_timeout_ms = positive(v)),
    number("electionPortBindRetry", PassThrough, 3, Unit::Count, raised_to(0), |d, v| {
        d.config.election_port_bind_retry = unsigned(v);
    }),
    flag("tcpKeepAlive", PassThrough, false, |d, v| d.config.tcp_keep_alive = v),
    idle(flag("leader.nodelay", Bare, true, |d, v| d.config.leader_nodelay = v), NEVER_DELAYED),
    idle(flag("follower.nodelay", Bare, true, |d, v| d.config.follower_nodelay = v), NEVER_DELAYED),
    number("fastleader.minNotificationInterval", PassThrough, 200, Unit::Ms, raised_to(1), |d, v| {
        d.config.fastleader_min_notification_interval_ms = unsigned(v);
    }),
    number("fastleader.maxNotificationInterval", PassThrough, 60_000, Unit::Ms, raised_to(1), |d, v| {
        d.config.fastleader_max_notification_interval_ms = unsigned(v);
    }),
    number("leader.maxTimeToWaitForEpoch", PassThrough, -1, Unit::Ms, ANY, |d, v| {
        d.config.leader_max_time_to_wait_for_epoch_ms = u32::try_from(v).ok();
    }),
    number("leader.maxConcurrentSnapSyncs", PassThrough, 10, Unit::Count, raised_to(1), |d, v| {
        d.config.leader_max_concurrent_snap_syncs = unsigned(v);
    }),
    number("leader.maxConcurrentDiffSyncs", PassThrough, 100, Unit::Count, raised_to(1), |d, v| {
        d.config.leader_max_concurrent_diff_syncs = unsigned(v);
    }),
    number("leaderConnectDelayDuringRetryMs", PassThrough, 100, Unit::Ms, raised_to(0), |d, v| {
        d.config.leader_connect_delay_during_retry_ms = unsigned(v);
    }),
    number("observer.reconnectDelayMs", PassThrough, 0, Unit::Ms, raised_to(0), |d, v| {
        d.config.observer_reconnect_delay_ms = unsigned(v);
    }),
    number("observer.election.DelayMs", PassThrough, 200, Unit::Ms, raised_to(0), |d, v| {
        d.config.observer_election_delay_ms = unsigned(v);
    }),
    number("observerMaster.sizeLimit", PassThrough, 33_554_432, Unit::Bytes, raised_to(0), |d, v| {
        d.config.observer_master_size_limit_bytes = unsigned(v);
    }),
    flag("forceSnapshotSync", PassThrough, false, |d, v| d.config.force_snapshot_sync = v),
    number("commitLogCount", PassThrough, 500, Unit::Count, raised_to(500), |d, v| {
        d.config.commit_log_count = unsigned(v);
    }),
    real("snapshotSizeFactor", PassThrough, 0.33, |d, v| d.config.snapshot_size_factor = Some(v).filter(|&v| v >= 0.0)),
    flag("multiAddress.enabled", FileOrProperty, false, |d, v| d.config.multi_address_enabled = v),
    flag("multiAddress.reachabilityCheckEnabled", FileOrProperty, true, |d, v| {
        d.config.multi_address_reachability_check_enabled = v;
    }),
    // Ours alone.
    text("oxkeeper.extensions", Ours, "all", |d, v| match Extensions::parse(v) {
        Some(extensions) => {
            d.config.extensions = extensions;
            Taken
        }
        None => Bad(format!("all, none, or a list of {}; -name takes one out of all", Extensions::NAMES.join(", "))),
    }),
    number("oxkeeper.heartbeatMillis", Ours, 25, Unit::Ms, within(5, 20_000), |d, v| {
        d.config.heartbeat_ms = unsigned(v);
    }),
    number("oxkeeper.heartbeatTimeoutMillis", Ours, 100, Unit::Ms, within(15, 60_000), |d, v| {
        d.config.heartbeat_timeout_ms = unsigned(v);
    }),
    number("oxkeeper.electionGraceMillis", Ours, 15, Unit::Ms, within(0, 60_000), |d, v| {
        d.config.election_grace_ms = unsigned(v);
    }),
    number("multiAddress.reachabilityCheckTimeoutMs", FileOrProperty, 1000, Unit::Ms, at_least(1), |d, v| {
        d.config.multi_address_reachability_check_timeout_ms = unsigned(v);
    }),
];
