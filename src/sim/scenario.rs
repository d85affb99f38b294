//! What a seed decides before anything happens: how many servers, how they are set, who their clients are.

use std::time::Duration;

use super::client::ClientSettings;
use super::dice::{Dice, Salt};
use crate::server::pipeline::ZabSettings;
use crate::server::snapshots::{ContainerSettings, SnapshotSettings};
use crate::shard::auth::{AuthSettings, DigestAlgorithm};
use crate::shard::machine::ShardSettings;
use crate::shard::throttle::ThrottleSettings;
use crate::storage::log::{BLOCK_BYTES, LogConfig};
use crate::tree::TreeSettings;
use crate::tree::access::AccessSettings;
use crate::types::ids::{ServerId, ShardId};
use crate::types::limits;
use crate::zab::leases;

/// What the command line fixes; the seed decides the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wish {
    /// Voting servers.
    pub servers: Option<usize>,
    pub observers: Option<usize>,
    /// How long faults go on, clients too.
    pub faults_for: Duration,
}

impl Default for Wish {
    fn default() -> Wish {
        Wish { servers: None, observers: None, faults_for: Duration::from_secs(42) }
    }
}

/// One server of the ensemble.
#[derive(Clone, Debug)]
pub struct ServerScenario {
    pub zab: ZabSettings,
    /// Its shards are alike.
    pub shard: ShardSettings,
    pub shards: usize,
    /// One thread is both zab core and shard.
    pub is_shared: bool,
    /// Bytes of one durable write.
    pub log_buffer_bytes: usize,
    pub tree: TreeSettings,
    /// Snapshots that a purge leaves; `None`: nothing is purged.
    pub retain: Option<usize>,
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub servers: Vec<ServerScenario>,
    pub clients: Vec<ClientSettings>,
    pub faults: usize,
    pub faults_for: Duration,
    /// After the healing, until every client must have had a write acknowledged.
    pub recovers_within: Duration,
    /// After that, until no session may be left.
    pub ends_within: Duration,
}

impl Scenario {
    pub fn new(seed: u64, wish: Wish) -> Scenario {
        let mut dice = Dice::new(seed, Salt::Scenario, 0);
        let servers = wish.servers.unwrap_or(1);
        let tick = Duration::from_millis(*dice.pick(&[200, 400, 1000]));
        let scenarios = (0..servers).map(|index| server(seed, index, tick, &mut dice)).collect();
        let clients = dice.within(5..=9) as usize;
        let timeout_max_ms = 20 * tick.as_millis() as i32;
        let client = |dice: &mut Dice| ClientSettings {
            servers,
            session_timeout_ms: (dice.within(800..=4000) as i32).min(timeout_max_ms),
            pause: Duration::from_millis(dice.within(100..=1500)),
            leaves_one_in: dice.within(8..=60),
        };
        Scenario {
            seed,
            servers: scenarios,
            clients: (0..clients).map(|_| client(&mut dice)).collect(),
            faults: (dice.within(10..=18) * wish.faults_for.as_secs()).div_ceil(42) as usize,
            faults_for: wish.faults_for,
            recovers_within: Duration::from_secs(9),
            ends_within: Duration::from_secs(9),
        }
    }
}

fn server(seed: u64, index: usize, tick: Duration, dice: &mut Dice) -> ServerScenario {
    let access = AccessSettings::default();
    let is_shared = dice.one_in(2);
    let shards = if is_shared { 1 } else { dice.within(1..=2) as usize };
    ServerScenario {
        zab: zab(seed, index, tick, dice),
        shard: shard(tick, &access),
        shards,
        is_shared,
        log_buffer_bytes: BLOCK_BYTES * *dice.pick(&[1, 2, 8, 64]),
        tree: TreeSettings {
            extended_types: true,
            digest_enabled: true,
            close_session_txn: dice.percent(80),
            enforce_quota: false,
            reconfig_enabled: false,
            access,
        },
        retain: dice.one_in(2).then_some(3),
    }
}

fn zab(seed: u64, index: usize, tick: Duration, dice: &mut Dice) -> ZabSettings {
    let stretch = BLOCK_BYTES as u64 * *dice.pick(&[2, 8, 32]);
    ZabSettings {
        server: ServerId(index as i64 + 1),
        tick,
        entry_bytes_max: limits::FRAME_BYTES_MAX + limits::EXTRA_BYTES_MAX,
        snapshots: SnapshotSettings { txns: dice.within(40..=1500), log_bytes: None },
        containers: ContainerSettings {
            check_interval: Duration::from_secs(60),
            per_minute_max: 10_000,
            never_used_max: None,
        },
        log: LogConfig {
            writes_in_flight: dice.within(1..=4) as usize,
            roll_bytes: *dice.pick(&[64 << 10, 256 << 10, 4 << 20]),
            stretch_bytes: stretch,
            ahead_bytes: stretch * dice.within(1..=3),
            retry_after: Duration::from_millis(dice.within(100..=1000)),
        },
        connection_throttle: ThrottleSettings::default(),
        seed: seed ^ (index as u64).rotate_left(32),
    }
}

fn shard(tick: Duration, access: &AccessSettings) -> ShardSettings {
    let tick_ms = tick.as_millis() as i32;
    ShardSettings {
        id: ShardId(0),
        payload_bytes_max: limits::FRAME_BYTES_MAX,
        session_timeout_min_ms: 2 * tick_ms,
        session_timeout_max_ms: 20 * tick_ms,
        outstanding_max: 1000,
        large_request_threshold: None,
        large_request_bytes_max: 100 << 20,
        sessionless_timeout: Duration::from_secs(10),
        touch_report_delay: leases::report_delay(tick),
        extended_types: true,
        auth: AuthSettings {
            digest_algorithm: DigestAlgorithm::Sha1,
            super_digest: None,
            ensemble_names: None,
            enforced_schemes: None,
        },
        access: access.clone(),
    }
}
