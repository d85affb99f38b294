//! What the zab core counts while it serves. Shards count in `shard/stats.rs`.

use std::collections::BTreeMap;

use crate::types::summary::{LatencySummary, PercentileSummary, SizeStats, Summary};

/// What the zab core counts: agreement, the log, snapshots. Names are ZooKeeper's metric names; those that describe a
/// stage of Java's pipeline are fed by what does that stage's work here.
#[derive(Clone, Debug, Default)]
pub struct ZabStats {
    pub proposal_count: u64,
    pub commit_count: u64,
    pub learner_proposal_received_count: u64,
    pub learner_commit_received_count: u64,
    pub looking_count: u64,
    pub diff_count: u64,
    pub snap_count: u64,
    pub revalidate_count: u64,
    pub quit_leading_due_to_disloyal_voter: u64,
    pub ensemble_auth_success: u64,
    pub ensemble_auth_fail: u64,
    pub ensemble_auth_skip: u64,
    /// Requests that reached prepare, and those that reached the log.
    pub prep_processor_request_queued: u64,
    pub sync_processor_request_queued: u64,
    pub stale_sessions_expired: u64,
    pub ttl_node_created_count: u64,
    pub ttl_node_deleted_count: u64,
    pub digest_mismatches_count: u64,
    pub unrecoverable_error_count: u64,
    pub snapshot_error_count: u64,
    pub snapshot_rate_limited_count: u64,
    pub restore_error_count: u64,
    pub restore_rate_limited_count: u64,
    /// Durable writes slower than `fsync.warningthresholdms`.
    pub fsync_threshold_exceed_count: u64,
    /// Writes beyond a quota, by the first component of their path.
    pub quota_exceeded_error_per_namespace: BTreeMap<Box<str>, u64>,
    pub proposal_size: SizeStats,

    /// One sample per durable write of the log.
    pub fsynctime: LatencySummary,
    pub sync_process_time: LatencySummary,
    /// Txns that one durable write carried.
    pub sync_processor_batch_size: Summary,
    pub sync_processor_queue_flush_time_ms: PercentileSummary,
    pub sync_processor_queue_and_flush_time_ms: PercentileSummary,
    pub prep_process_time: LatencySummary,
    pub close_session_prep_time: PercentileSummary,
    pub proposal_latency: PercentileSummary,
    pub quorum_ack_latency: PercentileSummary,
    pub propagation_latency: PercentileSummary,
    pub commit_propagation_latency: PercentileSummary,
    pub proposal_ack_creation_latency: PercentileSummary,
    pub election_time: LatencySummary,
    pub leader_unavailable_time: LatencySummary,
    pub unavailable_time: LatencySummary,
    pub follower_sync_time: LatencySummary,
    pub observer_sync_time: LatencySummary,
    pub inflight_snap_count: Summary,
    pub inflight_diff_count: Summary,
    pub dbinittime: LatencySummary,
    pub startup_snap_load_time: LatencySummary,
    pub startup_txns_load_time: LatencySummary,
    pub startup_txns_loaded: Summary,
    pub snapshottime: LatencySummary,
    pub restore_time: LatencySummary,
}

impl ZabStats {
    /// `srst`.
    pub fn reset(&mut self) {
        *self = ZabStats::default();
    }
}
