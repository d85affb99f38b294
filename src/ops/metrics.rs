//! The numbers of `mntr`, under ZooKeeper's names and in the order of Java's servers.
//!
//! The order is that of hash maps in Java; 3.8.0's is kept because it costs nothing (`tests/four_letter/java-3.8.0`
//! has it), and what came later stands behind it, kind by kind. A row whose value is a constant describes a part of
//! Java's pipeline that does not exist here: dashboards find the name, and nothing has happened.

use std::fmt::{Display, Result, Write};

use crate::server::status::{LeaderStatus, Mode, QuotaStatus, Status};
use crate::shard::stats::OpKind;
use crate::types::summary::{Decimal, PercentileSummary, SummaryValues};

/// A gauge's value. `None`: this server has no such gauge in its present role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gauge {
    Integer(i64),
    Decimal(Decimal),
    None,
}

impl From<u64> for Gauge {
    fn from(value: u64) -> Gauge {
        Gauge::Integer(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<i32> for Gauge {
    fn from(value: i32) -> Gauge {
        Gauge::Integer(value.into())
    }
}

fn leading(status: &Status, value: fn(&LeaderStatus) -> u64) -> Gauge {
    match &status.zab.mode {
        Mode::Leader(leader) => value(leader).into(),
        Mode::NotServing | Mode::Standalone | Mode::Follower | Mode::Observer { .. } | Mode::ReadOnly => Gauge::None,
    }
}

fn proposal_size(status: &Status, value: i32) -> Gauge {
    if let Mode::Leader(_) = status.zab.mode { value.into() } else { Gauge::None }
}

type GaugeRow = (&'static str, fn(&Status) -> Gauge);

pub const GAUGES: &[GaugeRow] = &[
    ("ephemerals_count", |s| s.zab.ephemerals_count.into()),
    ("num_alive_connections", |s| s.shards.connections_alive.into()),
    ("avg_latency", |s| Gauge::Decimal(s.latency().values().average)),
    ("min_proposal_size", |s| proposal_size(s, s.zab.stats.proposal_size.min)),
    ("outstanding_requests", |s| s.shards.outstanding.into()),
    ("znode_count", |s| s.zab.znode_count.into()),
    ("global_sessions", |s| s.zab.global_sessions.into()),
    ("non_mtls_remote_conn_count", |_| 0.into()),
    ("last_client_response_size", |s| s.shards.stats.client_response_size.last.into()),
    ("packets_sent", |s| s.shards.stats.packets_sent.into()),
    ("packets_received", |s| s.shards.stats.packets_received.into()),
    ("max_proposal_size", |s| proposal_size(s, s.zab.stats.proposal_size.max)),
    ("max_client_response_size", |s| s.shards.stats.client_response_size.max.into()),
    ("synced_followers", |s| leading(s, |leader| leader.synced_followers.into())),
    ("connection_drop_probability", |_| Gauge::Decimal(Decimal(0))),
    ("watch_count", |s| s.shards.watch_count.into()),
    ("synced_non_voting_followers", |s| leading(s, |leader| leader.synced_non_voting_followers.into())),
    ("synced_observers", |s| leading(s, |leader| leader.synced_observers.into())),
    ("auth_failed_count", |s| s.shards.stats.auth_failed_count.into()),
    ("min_latency", |s| s.latency().values().min.into()),
    ("max_file_descriptor_count", |s| s.process.max_file_descriptors.into()),
    ("approximate_data_size", |s| Gauge::Integer(s.zab.approximate_data_bytes)),
    ("open_file_descriptor_count", |s| s.process.open_file_descriptors.into()),
    ("last_proposal_size", |s| proposal_size(s, s.zab.stats.proposal_size.last)),
    ("pending_syncs", |s| leading(s, |leader| leader.pending_syncs.into())),
    ("leader_uptime", |s| leading(s, |leader| leader.leader_uptime_ms)),
    ("local_sessions", |s| s.zab.local_sessions.into()),
    ("uptime", |s| s.process.uptime_ms.into()),
    ("max_latency", |s| s.latency().values().max.into()),
    ("outstanding_tls_handshake", |s| s.shards.outstanding_tls_handshake.into()),
    ("learners", |s| leading(s, |leader| leader.learners.into())),
    ("min_client_response_size", |s| s.shards.stats.client_response_size.min.into()),
    ("non_mtls_local_conn_count", |_| 0.into()),
    ("quorum_size", |s| s.settings.ensemble.as_ref().map_or(Gauge::None, |e| u64::from(e.voters).into())),
];

type QuotaRow = (&'static str, fn(&QuotaStatus) -> i64);

/// Gauge sets: one line for each namespace that has a quota.
pub const QUOTAS: &[QuotaRow] = &[
    ("quota_bytes_limit_per_namespace", |quota| quota.bytes_limit),
    ("quota_count_usage_per_namespace", |quota| quota.count_usage),
    ("quota_count_limit_per_namespace", |quota| quota.count_limit),
    ("quota_bytes_usage_per_namespace", |quota| quota.bytes_usage),
];

type CounterRow = (&'static str, fn(&Status) -> u64);

pub const COUNTERS: &[CounterRow] = &[
    ("proposal_count", |s| s.zab.stats.proposal_count),
    ("watch_bytes", |s| s.shards.stats.watch_bytes),
    ("outstanding_changes_removed", |_| 0),
    ("throttled_ops", |s| s.shards.stats.throttled_ops),
    ("stale_requests_dropped", |s| s.shards.stats.stale_requests_dropped),
    ("large_requests_rejected", |s| s.shards.stats.large_requests_rejected),
    ("insecure_admin_count", |s| s.shards.stats.insecure_admin_count),
    ("connection_rejected", |s| s.shards.stats.connection_rejected),
    ("cnxn_closed_without_zk_server_running", |s| s.shards.stats.cnxn_closed_without_zk_server_running),
    ("sessionless_connections_expired", |s| s.shards.stats.sessionless_connections_expired),
    ("looking_count", |s| s.zab.stats.looking_count),
    ("dead_watchers_queued", |_| 0),
    ("stale_requests", |s| s.shards.stats.stale_requests),
    ("connection_drop_count", |s| s.shards.stats.connection_drop_count),
    ("learner_proposal_received_count", |s| s.zab.stats.learner_proposal_received_count),
    ("digest_mismatches_count", |s| s.zab.stats.digest_mismatches_count),
    ("dead_watchers_cleared", |_| 0),
    ("response_packet_cache_hits", |_| 0),
    ("bytes_received_count", |s| s.shards.stats.bytes_received_count),
    ("add_dead_watcher_stall_time", |_| 0),
    ("request_throttle_wait_count", |s| s.shards.stats.request_throttle_wait_count),
    ("requests_not_forwarded_to_commit_processor", |_| 0),
    ("response_packet_cache_misses", |_| 0),
    ("ensemble_auth_success", |s| s.zab.stats.ensemble_auth_success),
    ("prep_processor_request_queued", |s| s.zab.stats.prep_processor_request_queued),
    ("learner_commit_received_count", |s| s.zab.stats.learner_commit_received_count),
    ("stale_replies", |s| s.shards.stats.stale_replies),
    ("connection_request_count", |s| s.shards.stats.connection_request_count),
    ("response_bytes", |s| s.shards.stats.response_bytes),
    ("ensemble_auth_fail", |s| s.zab.stats.ensemble_auth_fail),
    ("diff_count", |s| s.zab.stats.diff_count),
    ("response_packet_get_children_cache_misses", |_| 0),
    ("connection_revalidate_count", |s| s.shards.stats.connection_revalidate_count),
    ("quit_leading_due_to_disloyal_voter", |s| s.zab.stats.quit_leading_due_to_disloyal_voter),
    ("snap_count", |s| s.zab.stats.snap_count),
    ("unrecoverable_error_count", |s| s.zab.stats.unrecoverable_error_count),
    ("unsuccessful_handshake", |s| s.shards.stats.unsuccessful_handshake),
    ("commit_count", |s| s.zab.stats.commit_count),
    ("stale_sessions_expired", |s| s.zab.stats.stale_sessions_expired),
    ("response_packet_get_children_cache_hits", |_| 0),
    ("sync_processor_request_queued", |s| s.zab.stats.sync_processor_request_queued),
    ("outstanding_changes_queued", |_| 0),
    ("request_commit_queued", |_| 0),
    ("ensemble_auth_skip", |s| s.zab.stats.ensemble_auth_skip),
    ("skip_learner_request_to_next_processor_count", |_| 0),
    ("tls_handshake_exceeded", |s| s.shards.stats.tls_handshake_exceeded),
    ("revalidate_count", |s| s.zab.stats.revalidate_count),
];

/// Counters that 3.8.0 does not have.
pub const COUNTERS_ADDED: &[CounterRow] = &[
    // 3.9
    ("snapshot_error_count", |s| s.zab.stats.snapshot_error_count),
    ("snapshot_rate_limited_count", |s| s.zab.stats.snapshot_rate_limited_count),
    ("restore_error_count", |s| s.zab.stats.restore_error_count),
    ("restore_rate_limited_count", |s| s.zab.stats.restore_rate_limited_count),
    // 3.10
    ("op_count_add_watch", |s| s.op_count(OpKind::AddWatch)),
    ("op_count_check", |s| s.op_count(OpKind::Check)),
    ("op_count_check_watches", |s| s.op_count(OpKind::CheckWatches)),
    ("op_count_close_session", |s| s.op_count(OpKind::CloseSession)),
    ("op_count_create", |s| s.op_count(OpKind::Create)),
    ("op_count_create_session", |s| s.op_count(OpKind::CreateSession)),
    ("op_count_delete", |s| s.op_count(OpKind::Delete)),
    ("op_count_exists", |s| s.op_count(OpKind::Exists)),
    ("op_count_get_acl", |s| s.op_count(OpKind::GetAcl)),
    ("op_count_get_all_children_number", |s| s.op_count(OpKind::GetAllChildrenNumber)),
    ("op_count_get_children", |s| s.op_count(OpKind::GetChildren)),
    ("op_count_get_data", |s| s.op_count(OpKind::GetData)),
    ("op_count_get_ephemerals", |s| s.op_count(OpKind::GetEphemerals)),
    ("op_count_multi", |s| s.op_count(OpKind::Multi)),
    ("op_count_multi_read", |s| s.op_count(OpKind::MultiRead)),
    ("op_count_ping", |s| s.op_count(OpKind::Ping)),
    ("op_count_reconfig", |s| s.op_count(OpKind::Reconfig)),
    ("op_count_remove_watches", |s| s.op_count(OpKind::RemoveWatches)),
    ("op_count_set_acl", |s| s.op_count(OpKind::SetAcl)),
    ("op_count_set_data", |s| s.op_count(OpKind::SetData)),
    ("op_count_set_watches", |s| s.op_count(OpKind::SetWatches)),
    ("op_count_sync", |s| s.op_count(OpKind::Sync)),
    ("op_count_total", |s| s.shards.stats.op_counts.total()),
    ("op_count_who_am_i", |s| s.op_count(OpKind::WhoAmI)),
    ("ttl_node_created_count", |s| s.zab.stats.ttl_node_created_count),
    ("ttl_node_deleted_count", |s| s.zab.stats.ttl_node_deleted_count),
];

/// A summary that nothing feeds.
const NONE: SummaryValues = SummaryValues { average: Decimal(0), min: 0, max: 0, count: 0, sum: 0 };

type SummaryRow = (&'static str, fn(&Status) -> SummaryValues);

/// Summaries of detail level BASIC.
pub const SUMMARIES: &[SummaryRow] = &[
    ("socket_closing_time", |s| s.shards.stats.socket_closing_time.values()),
    ("proposal_process_time", |_| NONE),
    ("leader_unavailable_time", |s| s.zab.stats.leader_unavailable_time.values()),
    ("node_created_watch_count", |s| s.shards.stats.node_created_watch_count.values()),
    ("session_queues_drained", |_| NONE),
    ("write_commit_proc_req_queued", |_| NONE),
    ("connection_token_deficit", |_| NONE),
    ("read_commit_proc_req_queued", |_| NONE),
    ("node_deleted_watch_count", |s| s.shards.stats.node_deleted_watch_count.values()),
    ("startup_txns_load_time", |s| s.zab.stats.startup_txns_load_time.values()),
    ("sync_processor_queue_size", |_| NONE),
    ("follower_sync_time", |s| s.zab.stats.follower_sync_time.values()),
    ("prep_processor_queue_size", |_| NONE),
    ("fsynctime", |s| s.zab.stats.fsynctime.values()),
    ("inflight_snap_count", |s| s.zab.stats.inflight_snap_count.values()),
    ("reads_issued_from_session_queue", |_| NONE),
    ("learner_request_processor_queue_size", |_| NONE),
    ("snapshottime", |s| s.zab.stats.snapshottime.values()),
    ("unavailable_time", |s| s.zab.stats.unavailable_time.values()),
    ("startup_txns_loaded", |s| s.zab.stats.startup_txns_loaded.values()),
    ("reads_after_write_in_session_queue", |_| NONE),
    ("requests_in_session_queue", |_| NONE),
    ("write_commit_proc_issued", |_| NONE),
    ("prep_process_time", |s| s.zab.stats.prep_process_time.values()),
    ("pending_session_queue_size", |_| NONE),
    ("time_waiting_empty_pool_in_commit_processor_read_ms", |_| NONE),
    ("commit_process_time", |_| NONE),
    ("dbinittime", |s| s.zab.stats.dbinittime.values()),
    ("inflight_diff_count", |s| s.zab.stats.inflight_diff_count.values()),
    ("netty_queued_buffer_capacity", |_| NONE),
    ("election_time", |s| s.zab.stats.election_time.values()),
    ("commit_commit_proc_req_queued", |_| NONE),
    ("sync_processor_batch_size", |s| s.zab.stats.sync_processor_batch_size.values()),
    ("node_children_watch_count", |s| s.shards.stats.node_children_watch_count.values()),
    ("write_batch_time_in_commit_processor", |_| NONE),
    ("read_commit_proc_issued", |_| NONE),
    ("concurrent_request_processing_in_commit_processor", |_| NONE),
    ("observer_sync_time", |s| s.zab.stats.observer_sync_time.values()),
    ("node_changed_watch_count", |s| s.shards.stats.node_changed_watch_count.values()),
    ("sync_process_time", |s| s.zab.stats.sync_process_time.values()),
    ("startup_snap_load_time", |s| s.zab.stats.startup_snap_load_time.values()),
];

/// Summaries that 3.8.0 does not have.
pub const SUMMARIES_ADDED: &[SummaryRow] = &[("restore_time", |s| s.zab.stats.restore_time.values())];

type PercentileRow = (&'static str, fn(&Status) -> Option<&PercentileSummary>);

/// Summaries of detail level ADVANCED.
pub const PERCENTILE_SUMMARIES: &[PercentileRow] = &[
    ("prep_processor_queue_time_ms", |_| None),
    ("jvm_pause_time_ms", |_| None),
    ("close_session_prep_time", |s| Some(&s.zab.stats.close_session_prep_time)),
    ("read_commitproc_time_ms", |_| None),
    ("updatelatency", |s| Some(&s.shards.stats.updatelatency)),
    ("local_write_committed_time_ms", |_| None),
    ("request_throttle_queue_time_ms", |_| None),
    ("readlatency", |s| Some(&s.shards.stats.readlatency)),
    ("quorum_ack_latency", |s| Some(&s.zab.stats.quorum_ack_latency)),
    ("om_commit_process_time_ms", |_| None),
    ("read_final_proc_time_ms", |_| None),
    ("commit_propagation_latency", |s| Some(&s.zab.stats.commit_propagation_latency)),
    ("dead_watchers_cleaner_latency", |_| None),
    ("write_final_proc_time_ms", |_| None),
    ("proposal_ack_creation_latency", |s| Some(&s.zab.stats.proposal_ack_creation_latency)),
    ("proposal_latency", |s| Some(&s.zab.stats.proposal_latency)),
    ("om_proposal_process_time_ms", |_| None),
    ("sync_processor_queue_and_flush_time_ms", |s| Some(&s.zab.stats.sync_processor_queue_and_flush_time_ms)),
    ("propagation_latency", |s| Some(&s.zab.stats.propagation_latency)),
    ("server_write_committed_time_ms", |_| None),
    ("sync_processor_queue_time_ms", |_| None),
    ("sync_processor_queue_flush_time_ms", |s| Some(&s.zab.stats.sync_processor_queue_flush_time_ms)),
    ("write_commitproc_time_ms", |_| None),
];

/// Each with its prefix.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999)];

/// `mntr` (`MonitorCommand`): `zk_<key>\t<value>`, one per line.
pub fn monitor(status: &Status, out: &mut String) -> Result {
    line("", "version", &status.version, out)?;
    line("", "server_state", status.zab.mode.name(), out)?;
    if let Some(peer_state) = status.zab.mode.peer_state() {
        line("", "peer_state", peer_state, out)?;
    }
    if let Mode::Observer { master } = status.zab.mode {
        line("", "observer_master_id", master, out)?;
    }
    gauges(status, out)?;
    for (name, value) in COUNTERS.iter().chain(COUNTERS_ADDED) {
        line("", name, value(status), out)?;
    }
    for (namespace, count) in &status.zab.stats.quota_exceeded_error_per_namespace {
        set_line(namespace, "quota_exceeded_error_per_namespace", count, out)?;
    }
    for (name, values) in SUMMARIES.iter().chain(SUMMARIES_ADDED) {
        summary(name, &values(status), out)?;
    }
    for (name, percentiles) in PERCENTILE_SUMMARIES {
        let percentiles = percentiles(status);
        summary(name, &percentiles.map_or(NONE, |p| p.summary().values()), out)?;
        for (prefix, quantile) in QUANTILES {
            line(prefix, name, percentiles.map_or(0, |p| p.quantile_ms(quantile)), out)?;
        }
    }
    Ok(())
}

fn gauges(status: &Status, out: &mut String) -> Result {
    for (name, value) in GAUGES {
        match value(status) {
            Gauge::Integer(value) => line("", name, value, out)?,
            Gauge::Decimal(value) => line("", name, value, out)?,
            Gauge::None => (),
        }
    }
    for (name, value) in QUOTAS {
        for (namespace, quota) in &status.zab.quotas {
            set_line(namespace, name, value(quota), out)?;
        }
    }
    Ok(())
}

fn summary(name: &str, values: &SummaryValues, out: &mut String) -> Result {
    line("avg", name, values.average, out)?;
    line("min", name, values.min, out)?;
    line("max", name, values.max, out)?;
    line("cnt", name, values.count, out)?;
    line("sum", name, values.sum, out)
}

fn line(prefix: &str, name: &str, value: impl Display, out: &mut String) -> Result {
    let separator = if prefix.is_empty() { "" } else { "_" };
    writeln!(out, "zk_{prefix}{separator}{name}\t{value}")
}

/// A namespace is the first component of a path, so clients choose it; a key that is no word would make Telegraf
/// drop the whole scrape, so its other characters become `_` (Java prints them).
fn set_line(namespace: &str, name: &str, value: impl Display, out: &mut String) -> Result {
    let key: String = namespace.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    line(&key, name, value, out)
}
