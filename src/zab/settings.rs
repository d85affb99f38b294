//! How a member of an ensemble behaves.

use std::time::Duration;

use super::history::HistoryLimits;
use super::{election, election_links, election_port};
use crate::config::{Config, Extensions, Role};
use crate::types::ids::ServerId;
use crate::wire::quorum::{Features, Heartbeats};

/// Between two attempts to reach a leader whose port is not bound yet.
const CONNECT_RETRY: Duration = Duration::from_millis(15);

/// How long a new leader waits for a quorum to come: longer than a Java follower needs to leave its last role.
const DISCOVERY_LIMIT: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
pub struct Settings {
    pub server: ServerId,
    /// `peerType=observer`.
    pub is_observer: bool,
    /// `tickTime`.
    pub tick: Duration,
    /// `initLimit` in time: for whatever ends with UPTODATE.
    pub init_limit: Duration,
    /// `syncLimit` in time: a silence, or a proposal without its ack.
    pub sync_limit: Duration,
    /// `connectToLearnerMasterLimit` in time.
    pub connect_limit: Duration,
    pub connect_retry: Duration,
    /// A new leader that no quorum has come to looks again, at the latest after `init_limit`.
    pub discovery_limit: Duration,
    /// `jute.maxbuffer` plus `jute.maxbuffer.extrasize`, bytes.
    pub packet_bytes_max: usize,
    pub history: HistoryLimits,
    /// What is offered to, and accepted from, others of ours.
    pub features: Features,
    /// Tells this process from the one before it.
    pub boot_nonce: u64,
    /// `zookeeper.forceSnapshotSync`.
    pub force_snapshot_sync: bool,
    /// `zookeeper.leader.maxConcurrentSnapSyncs`: observers beyond it are refused.
    pub snapshot_syncs_max: usize,
    /// `zookeeper.leader.maxConcurrentDiffSyncs`: likewise.
    pub diff_syncs_max: usize,
    pub election: election_port::Settings,
}

impl Settings {
    /// What a configuration file says. `server`: its `myid`.
    pub fn of(config: &Config, server: ServerId, boot_nonce: u64) -> Settings {
        let tick = Duration::from_millis(config.tick_time_ms.into());
        let init_limit = tick * config.init_limit_ticks;
        let connect_limit = match config.connect_to_learner_master_limit_ticks {
            0 => init_limit,
            ticks => tick * ticks,
        };
        let is_observer = config.peer_type == Role::Observer;
        let wanted = config.extensions;
        let ms = |ms: u32| u16::try_from(ms).unwrap_or(u16::MAX);
        let heartbeats =
            Heartbeats { interval_ms: ms(config.heartbeat_ms), timeout_ms: ms(config.heartbeat_timeout_ms) };
        let features = Features {
            cumulative_acks: wanted.cumulative_acks,
            heartbeats: wanted.heartbeats.then_some(heartbeats),
            batched_proposals: wanted.batched_proposals,
            commit_index: wanted.commit_index,
            hand_over: wanted.leadership_transfer,
        };
        let extension = features.to_extension().with_identity(boot_nonce, env!("CARGO_PKG_VERSION"));
        let is_ours = wanted != Extensions::default();
        Settings {
            server,
            is_observer,
            tick,
            init_limit,
            sync_limit: tick * config.sync_limit_ticks,
            connect_limit,
            connect_retry: CONNECT_RETRY,
            discovery_limit: DISCOVERY_LIMIT.min(init_limit),
            packet_bytes_max: config.jute_maxbuffer_bytes + config.jute_maxbuffer_extrasize_bytes,
            history: HistoryLimits { txns_kept: config.commit_log_count as usize, ..HistoryLimits::default() },
            features,
            boot_nonce,
            force_snapshot_sync: config.force_snapshot_sync,
            snapshot_syncs_max: config.leader_max_concurrent_snap_syncs as usize,
            diff_syncs_max: config.leader_max_concurrent_diff_syncs as usize,
            election: election_port::Settings {
                election: election::Settings {
                    me: server,
                    is_observer,
                    grace: Duration::from_millis(config.election_grace_ms.into()),
                    notification_interval_min: Duration::from_millis(
                        config.fastleader_min_notification_interval_ms.into(),
                    ),
                    notification_interval_max: Duration::from_millis(
                        config.fastleader_max_notification_interval_ms.into(),
                    ),
                    extension: is_ours.then_some(extension),
                },
                links: election_links::Settings {
                    me: server,
                    has_many_addresses: config.multi_address_enabled,
                    connect_limit: Duration::from_millis(config.cnx_timeout_ms.into()),
                },
            },
        }
    }

    /// As Java: nothing is offered to anybody.
    pub fn without_extensions(mut self) -> Settings {
        self.features = Features::default();
        self.election.election.extension = None;
        self
    }

    /// Whether it can work at all. The text says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.tick.is_zero() || self.init_limit.is_zero() || self.sync_limit.is_zero() {
            return Err("tickTime, initLimit and syncLimit must be above 0".to_owned());
        }
        let Some(heartbeats) = self.features.heartbeats else { return Ok(()) };
        let (interval, timeout) = (heartbeats.interval(), heartbeats.timeout());
        if interval < HEARTBEAT_MIN {
            return Err(format!("a heartbeat every {interval:?} keeps a core busy; take at least {HEARTBEAT_MIN:?}"));
        }
        if timeout < interval * HEARTBEATS_PER_TIMEOUT_MIN {
            let least = interval * HEARTBEATS_PER_TIMEOUT_MIN;
            return Err(format!(
                "a timeout of {timeout:?} with heartbeats every {interval:?} ends in elections without need; take at \
                 least {least:?}"
            ));
        }
        if timeout > self.sync_limit {
            let limit = self.sync_limit;
            return Err(format!("a timeout of {timeout:?} is longer than syncLimit, {limit:?}"));
        }
        Ok(())
    }
}

const HEARTBEAT_MIN: Duration = Duration::from_millis(5);

/// One lost to a busy core must not end a reign.
const HEARTBEATS_PER_TIMEOUT_MIN: u32 = 3;

#[cfg(test)]
mod tests {
    use super::super::testing::settings;
    use super::*;

    #[test]
    fn heartbeats_that_cannot_work_are_refused() {
        let check = |interval_ms, timeout_ms, expected| {
            let mut settings = settings(1);
            settings.features.heartbeats = Some(Heartbeats { interval_ms, timeout_ms });
            assert_eq!(settings.check().is_ok(), expected, "{interval_ms} {timeout_ms}");
        };
        check(25, 100, true);
        check(5, 15, true);
        check(4, 100, false);
        check(25, 74, false);
        check(25, 60_000, false);
        assert!(settings(1).without_extensions().check().is_ok());
    }
}
