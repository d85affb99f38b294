//! What a shard counts while it serves.
//!
//! Every core adds to its own plain numbers; nobody locks, nobody shares. An answer to an operator is the
//! `merge` of all of them. `srst` is `reset` on each.

use crate::types::summary::{LatencySummary, PercentileSummary, SizeStats, Summary};
use crate::wire::client::OpCode;

/// What a request is, as `cons` (`lop=`) and the `op_count_*` metrics tell it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpKind {
    CreateSession,
    CloseSession,
    Ping,
    /// All four: `create`, `create2`, `createContainer`, `createTTL`.
    Create,
    Delete,
    Exists,
    GetData,
    SetData,
    GetAcl,
    SetAcl,
    /// Both: `getChildren` and `getChildren2`.
    GetChildren,
    GetAllChildrenNumber,
    GetEphemerals,
    Sync,
    Check,
    Multi,
    MultiRead,
    SetWatches,
    SetWatches2,
    AddWatch,
    CheckWatches,
    RemoveWatches,
    Reconfig,
    WhoAmI,
}

impl OpKind {
    /// What a client's request counts as; auth and SASL packets belong to the connection and count as nothing.
    pub const fn of(op: OpCode) -> Option<OpKind> {
        Some(match op {
            OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => OpKind::Create,
            OpCode::Delete => OpKind::Delete,
            OpCode::Exists => OpKind::Exists,
            OpCode::GetData => OpKind::GetData,
            OpCode::SetData => OpKind::SetData,
            OpCode::GetAcl => OpKind::GetAcl,
            OpCode::SetAcl => OpKind::SetAcl,
            OpCode::GetChildren | OpCode::GetChildren2 => OpKind::GetChildren,
            OpCode::GetAllChildrenNumber => OpKind::GetAllChildrenNumber,
            OpCode::GetEphemerals => OpKind::GetEphemerals,
            OpCode::Sync => OpKind::Sync,
            OpCode::Ping => OpKind::Ping,
            OpCode::Check => OpKind::Check,
            OpCode::Multi => OpKind::Multi,
            OpCode::MultiRead => OpKind::MultiRead,
            OpCode::Reconfig => OpKind::Reconfig,
            OpCode::SetWatches => OpKind::SetWatches,
            OpCode::SetWatches2 => OpKind::SetWatches2,
            OpCode::AddWatch => OpKind::AddWatch,
            OpCode::CheckWatches => OpKind::CheckWatches,
            OpCode::RemoveWatches => OpKind::RemoveWatches,
            OpCode::WhoAmI => OpKind::WhoAmI,
            OpCode::CloseSession => OpKind::CloseSession,
            OpCode::Auth | OpCode::Sasl => return None,
        })
    }

    pub const COUNT: usize = 24;

    /// ZooKeeper's abbreviation (`FinalRequestProcessor`, `lastOp`).
    pub const fn short_name(self) -> &'static str {
        match self {
            OpKind::CreateSession => "SESS",
            OpKind::CloseSession => "CLOS",
            OpKind::Ping => "PING",
            OpKind::Create => "CREA",
            OpKind::Delete => "DELE",
            OpKind::Exists => "EXIS",
            OpKind::GetData => "GETD",
            OpKind::SetData => "SETD",
            OpKind::GetAcl => "GETA",
            OpKind::SetAcl => "SETA",
            OpKind::GetChildren => "GETC",
            OpKind::GetAllChildrenNumber => "GETACN",
            OpKind::GetEphemerals => "GETE",
            OpKind::Sync => "SYNC",
            OpKind::Check => "CHEC",
            OpKind::Multi => "MULT",
            OpKind::MultiRead => "MLTR",
            OpKind::SetWatches => "SETW",
            OpKind::SetWatches2 => "STW2",
            OpKind::AddWatch => "ADDW",
            OpKind::CheckWatches => "CHKW",
            OpKind::RemoveWatches => "REMW",
            OpKind::Reconfig => "RECO",
            OpKind::WhoAmI => "HOMI",
        }
    }
}

const _: () = assert!(OpKind::WhoAmI as usize + 1 == OpKind::COUNT);

/// Requests by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpCounts([u64; OpKind::COUNT]);

impl OpCounts {
    pub fn record(&mut self, kind: OpKind) {
        self.0[kind as usize] += 1;
    }

    pub fn of(&self, kind: OpKind) -> u64 {
        self.0[kind as usize]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub fn merge(&mut self, other: &OpCounts) {
        for (ours, theirs) in self.0.iter_mut().zip(other.0) {
            *ours += theirs;
        }
    }
}

/// Counts of one connection, kept by its shard; `cons` shows them and `crst` resets them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConnectionStats {
    pub packets_received: u64,
    pub packets_sent: u64,
    /// `None`: `NA`.
    pub last_op: Option<OpKind>,
    /// Of the last request that had one: pings and the like do not. `None` is not shown.
    pub last_cxid: Option<i32>,
    /// Of the last answer; shown as −1 before it.
    pub last_zxid: Option<i64>,
    /// Monotonic milliseconds of the last answer, 0 before it.
    pub last_response_ms: u64,
    pub last_latency_us: u32,
    pub latency: LatencySummary,
}

/// One answered request, as it is told to a connection's counts (`ServerCnxn.updateStatsForResponse`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Response {
    pub op: OpKind,
    pub cxid: i32,
    pub zxid: i64,
    /// Monotonic.
    pub now_ms: u64,
    pub latency_us: u32,
}

impl ConnectionStats {
    pub fn record_response(&mut self, response: &Response) {
        // Special xids (pings, auth) leave the last cxid alone, as in Java.
        if response.cxid >= 0 {
            self.last_cxid = Some(response.cxid);
        }
        self.last_op = Some(response.op);
        self.last_zxid = Some(response.zxid);
        self.last_response_ms = response.now_ms;
        self.last_latency_us = response.latency_us;
        self.latency.record(response.latency_us);
    }

    /// `crst`.
    pub fn reset(&mut self) {
        *self = ConnectionStats::default();
    }
}

/// What one shard core counts. Names are ZooKeeper's metric names.
#[derive(Clone, Debug, Default)]
pub struct ShardStats {
    pub packets_received: u64,
    pub packets_sent: u64,
    pub bytes_received_count: u64,
    pub response_bytes: u64,
    pub watch_bytes: u64,
    pub client_response_size: SizeStats,
    pub op_counts: OpCounts,
    /// Received to answered, of requests that changed nothing. Half of the server's latency in `srvr`.
    pub readlatency: PercentileSummary,
    /// The other half: requests that became a txn.
    pub updatelatency: PercentileSummary,
    pub connection_request_count: u64,
    pub connection_rejected: u64,
    pub connection_drop_count: u64,
    pub connection_revalidate_count: u64,
    pub cnxn_closed_without_zk_server_running: u64,
    pub sessionless_connections_expired: u64,
    pub large_requests_rejected: u64,
    pub request_throttle_wait_count: u64,
    pub stale_requests: u64,
    pub stale_requests_dropped: u64,
    pub stale_replies: u64,
    pub throttled_ops: u64,
    pub tls_handshake_exceeded: u64,
    pub unsuccessful_handshake: u64,
    pub insecure_admin_count: u64,
    pub socket_closing_time: LatencySummary,
    /// Watches that one event fired, by what happened to the znode.
    pub node_created_watch_count: Summary,
    pub node_deleted_watch_count: Summary,
    pub node_changed_watch_count: Summary,
    pub node_children_watch_count: Summary,
    /// A gauge in ZooKeeper, so it outlives `srst`.
    pub auth_failed_count: u64,
}

impl ShardStats {
    pub fn merge(&mut self, other: &ShardStats) {
        self.packets_received += other.packets_received;
        self.packets_sent += other.packets_sent;
        self.bytes_received_count += other.bytes_received_count;
        self.response_bytes += other.response_bytes;
        self.watch_bytes += other.watch_bytes;
        self.client_response_size.merge(&other.client_response_size);
        self.op_counts.merge(&other.op_counts);
        self.readlatency.merge(&other.readlatency);
        self.updatelatency.merge(&other.updatelatency);
        self.merge_refusals(other);
        self.socket_closing_time.merge(&other.socket_closing_time);
        self.node_created_watch_count.merge(&other.node_created_watch_count);
        self.node_deleted_watch_count.merge(&other.node_deleted_watch_count);
        self.node_changed_watch_count.merge(&other.node_changed_watch_count);
        self.node_children_watch_count.merge(&other.node_children_watch_count);
    }

    fn merge_refusals(&mut self, other: &ShardStats) {
        self.connection_request_count += other.connection_request_count;
        self.connection_rejected += other.connection_rejected;
        self.connection_drop_count += other.connection_drop_count;
        self.connection_revalidate_count += other.connection_revalidate_count;
        self.cnxn_closed_without_zk_server_running += other.cnxn_closed_without_zk_server_running;
        self.sessionless_connections_expired += other.sessionless_connections_expired;
        self.large_requests_rejected += other.large_requests_rejected;
        self.request_throttle_wait_count += other.request_throttle_wait_count;
        self.stale_requests += other.stale_requests;
        self.stale_requests_dropped += other.stale_requests_dropped;
        self.stale_replies += other.stale_replies;
        self.throttled_ops += other.throttled_ops;
        self.tls_handshake_exceeded += other.tls_handshake_exceeded;
        self.unsuccessful_handshake += other.unsuccessful_handshake;
        self.insecure_admin_count += other.insecure_admin_count;
        self.auth_failed_count += other.auth_failed_count;
    }

    /// `srst`.
    pub fn reset(&mut self) {
        *self = ShardStats { auth_failed_count: self.auth_failed_count, ..ShardStats::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_server_keeps_only_its_gauges() {
        let mut stats = ShardStats { packets_received: 7, auth_failed_count: 2, ..ShardStats::default() };
        stats.op_counts.record(OpKind::Ping);
        stats.reset();
        assert_eq!((stats.packets_received, stats.op_counts.total(), stats.auth_failed_count), (0, 0, 2));
    }

    #[test]
    fn shards_add_up() {
        let mut sum = ShardStats::default();
        for packets in [3, 4] {
            let mut shard = ShardStats { packets_sent: packets, ..ShardStats::default() };
            shard.op_counts.record(OpKind::GetData);
            shard.readlatency.record(2_000);
            sum.merge(&shard);
        }
        assert_eq!(sum.packets_sent, 7);
        assert_eq!(sum.op_counts.of(OpKind::GetData), 2);
        assert_eq!(sum.readlatency.summary().values().sum, 4);
    }

    #[test]
    fn a_ping_is_the_last_op_but_not_the_last_cxid() {
        let mut stats = ConnectionStats::default();
        let response = Response { op: OpKind::Create, cxid: 9, zxid: 5, now_ms: 77, latency_us: 1_500 };
        stats.record_response(&response);
        stats.record_response(&Response { op: OpKind::Ping, cxid: -2, ..response });
        assert_eq!((stats.last_cxid, stats.last_op, stats.last_zxid), (Some(9), Some(OpKind::Ping), Some(5)));
    }
}
