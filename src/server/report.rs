//! What an operator asks of the zab core.

use std::collections::BTreeMap;

use super::pipeline::{Now, ZabCore};
use super::stats::ZabStats;
use super::status::{LeaderStatus, Mode, SessionStatus, ZabStatus};
use crate::shard::status::Needs;
use crate::types::ids::SessionId;
use crate::types::time::WallTime;
use crate::zab::RoleName;

impl<B: AsRef<[u8]> + AsMut<[u8]>> ZabCore<B> {
    /// `stats`: what is counted outside this machine.
    pub fn status(&self, needs: Needs, now: Now, stats: ZabStats) -> ZabStatus {
        let counts = self.tree().counts();
        ZabStatus {
            mode: self.mode(),
            zxid: self.tree().published(),
            stats: ZabStats {
                digest_mismatches_count: self.digest_mismatches,
                proposal_size: self.proposal_size,
                ..stats
            },
            // The root stands in Java's map twice.
            znode_count: counts.znodes + 1,
            ephemerals_count: counts.ephemerals,
            approximate_data_bytes: counts.bytes as i64,
            global_sessions: counts.sessions,
            local_sessions: 0,
            quotas: BTreeMap::new(),
            sessions: if needs.sessions { self.sessions(now) } else { Vec::new() },
            ephemerals: if needs.ephemerals { self.ephemerals() } else { BTreeMap::new() },
            digests: if needs.digests { self.digests().collect() } else { Vec::new() },
        }
    }

    fn mode(&self) -> Mode {
        match self.role {
            _ if !self.is_member => Mode::Standalone,
            RoleName::Looking => Mode::NotServing,
            RoleName::Leading => Mode::Leader(LeaderStatus::default()),
            RoleName::Following => Mode::Follower,
            RoleName::Observing => Mode::Observer { master: self.leader.0 },
        }
    }

    fn sessions(&self, now: Now) -> Vec<SessionStatus> {
        let timeouts: BTreeMap<SessionId, i32> = self.tree().sessions().collect();
        let by_deadline = self.leases().deadlines();
        let statuses = by_deadline.into_iter().flat_map(|(deadline, sessions)| {
            let left_ms = deadline.saturating_since(now.time).as_millis() as i64;
            let expires_at = WallTime(now.wall.0 + left_ms);
            sessions.into_iter().map(move |session| (session, expires_at))
        });
        statuses
            .map(|(session, expires_at)| SessionStatus {
                session,
                timeout_ms: timeouts.get(&session).copied().unwrap_or(0),
                expires_at,
            })
            .collect()
    }

    fn ephemerals(&self) -> BTreeMap<SessionId, Vec<String>> {
        let owned = self.tree().sessions().map(|(session, _)| (session, self.tree().owned_paths(session.0)));
        owned.filter(|(_, paths)| !paths.is_empty()).collect()
    }
}
