//! What a seed decides before anything happens: how many servers, how they are set, who their clients are.

use std::collections::BTreeMap;
use std::time::Duration;

use super::client::ClientSettings;
use super::dice::{Dice, Salt};
use super::scheduler::ServerIndex;
use crate::config::{Member, Membership, Role};
use crate::server::pipeline::ZabSettings;
use crate::server::snapshots::{ContainerSettings, SnapshotSettings};
use crate::shard::auth::AuthSettings;
use crate::shard::machine::ShardSettings;
use crate::shard::throttle::ThrottleSettings;
use crate::storage::log::{BLOCK_BYTES, LogConfig};
use crate::tree::TreeSettings;
use crate::tree::access::AccessSettings;
use crate::types::digest_algorithm::DigestAlgorithm;
use crate::types::ids::{ServerId, ShardId};
use crate::types::limits;
use crate::wire::quorum::{Features, Heartbeats};
use crate::zab::history::HistoryLimits;
use crate::zab::leases;
use crate::zab::quorum::Ensemble;
use crate::zab::transport::Port;
use crate::zab::{self, election, election_links, election_port};

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
    /// `None`: it stands alone.
    pub member: Option<MemberScenario>,
}

/// What a member of an ensemble is told besides.
#[derive(Clone, Debug)]
pub struct MemberScenario {
    pub ensemble: Ensemble,
    server: ServerId,
    is_observer: bool,
    tick: Duration,
    features: Features,
    /// It says that it is one of ours.
    has_extensions: bool,
    history: HistoryLimits,
    grace: Duration,
}

impl MemberScenario {
    /// For one run of its process.
    pub fn settings(&self, boot_nonce: u64) -> zab::settings::Settings {
        let extension = self.features.to_extension().with_identity(boot_nonce, "simulated");
        let settings = zab::settings::Settings {
            server: self.server,
            is_observer: self.is_observer,
            tick: self.tick,
            init_limit: self.tick * 10,
            sync_limit: self.tick * 5,
            connect_limit: self.tick * 10,
            connect_retry: Duration::from_millis(15),
            discovery_limit: Duration::from_secs(3).min(self.tick * 10),
            packet_bytes_max: limits::FRAME_BYTES_MAX + limits::EXTRA_BYTES_MAX,
            history: self.history,
            features: self.features.clone(),
            boot_nonce,
            force_snapshot_sync: false,
            snapshot_syncs_max: 10,
            diff_syncs_max: 100,
            election: election_port::Settings {
                election: election::Settings {
                    me: self.server,
                    is_observer: self.is_observer,
                    grace: self.grace,
                    notification_interval_min: Duration::from_millis(200),
                    notification_interval_max: Duration::from_secs(60),
                    extension: Some(extension),
                },
                links: election_links::Settings {
                    me: self.server,
                    has_many_addresses: false,
                    connect_limit: CONNECT_LIMIT,
                },
            },
        };
        if self.has_extensions { settings } else { settings.without_extensions() }
    }

    /// After so long a learner knows that it has lost its leader, and a leader that it has lost a learner.
    pub fn notices_within(&self) -> Duration {
        match self.features.heartbeats.as_ref().filter(|_| self.has_extensions) {
            Some(heartbeats) => heartbeats.timeout() * 2,
            None => self.tick * 6,
        }
    }
}

/// Shorter runs are for those who wait for them.
const LONG: Duration = Duration::from_secs(20);
/// `cnxTimeout`.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const QUORUM_PORT: u16 = 2888;
const ELECTION_PORT: u16 = 3888;

/// Which server listens at a host and port.
pub type Addresses = BTreeMap<(String, u16), (ServerIndex, Port)>;

/// Voters first, then observers, counted from 1.
fn membership(voters: usize, observers: usize) -> Membership {
    let mut membership = Membership::default();
    for index in 0..voters + observers {
        let id = ServerId(index as i64 + 1);
        let line = format!("{}:{QUORUM_PORT}:{ELECTION_PORT}", host(index));
        let mut member = Member::parse(id, &line, false).expect("a line as in zoo.cfg");
        member.role = if index < voters { Role::Participant } else { Role::Observer };
        membership.members.insert(id, member);
    }
    membership
}

fn host(index: usize) -> String {
    format!("server-{index}")
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
    pub addresses: Addresses,
    /// `None`: a single server, without an ensemble.
    pub ensemble: Option<Ensemble>,
}

impl Scenario {
    pub fn new(seed: u64, wish: Wish) -> Scenario {
        let mut dice = Dice::new(seed, Salt::Scenario, 0);
        let voters = wish.servers.unwrap_or_else(|| dice.weighted(&[(10, 1), (60, 3), (22, 5), (8, 7)]) as usize);
        let drawn = dice.weighted(&[(6, 0), (3, 1), (1, 2)]) as usize;
        let observers = if voters == 1 { 0 } else { wish.observers.unwrap_or(drawn) };
        let servers = voters + observers;
        let tick = Duration::from_millis(*dice.pick(&[200, 400, 1000]));
        let ensemble = (voters > 1).then(|| Ensemble::new(membership(voters, observers)).expect("somebody votes"));
        let close_session_txn = dice.percent(80);
        let mut features = Features {
            cumulative_acks: dice.percent(85),
            heartbeats: None,
            batched_proposals: dice.percent(85),
            commit_index: dice.percent(85),
            hand_over: dice.percent(85),
        };
        let interval_ms = *dice.pick(&[25, 25, 50]);
        let heartbeats = Heartbeats { interval_ms, timeout_ms: 4 * interval_ms };
        features.heartbeats = dice.percent(85).then_some(heartbeats);
        let is_mixed = dice.one_in(4);
        let has_extensions = dice.percent(80);
        let scenarios = (0..servers)
            .map(|index| {
                let mut server = server(seed, index, tick, &mut dice);
                server.tree.close_session_txn = close_session_txn;
                let has_extensions = if is_mixed { dice.one_in(2) } else { has_extensions };
                server.member = ensemble.clone().map(|ensemble| MemberScenario {
                    ensemble,
                    server: ServerId(index as i64 + 1),
                    is_observer: index >= voters,
                    tick,
                    features: features.clone(),
                    has_extensions,
                    history: HistoryLimits {
                        txns_kept: *dice.pick(&[0, 8, 100, 500]),
                        bytes_kept: *dice.pick(&[0, 10_000, 1 << 20]),
                        bytes_max: *dice.pick(&[20_000, 1 << 20]),
                    },
                    grace: Duration::from_millis(*dice.pick(&[5, 15, 100])),
                });
                server
            })
            .collect();
        let addresses = (0..servers)
            .flat_map(|index| {
                let at = |port, of| ((host(index), port), (ServerIndex(index), of));
                [at(QUORUM_PORT, Port::Quorum), at(ELECTION_PORT, Port::Election)]
            })
            .collect();
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
            faults: (dice.within(10..=18) * wish.faults_for.as_secs()).div_ceil(42).max(4) as usize,
            faults_for: wish.faults_for,
            recovers_within: Duration::from_secs(if wish.faults_for < LONG { 7 } else { 9 }),
            ends_within: Duration::from_secs(if wish.faults_for < LONG { 6 } else { 9 }),
            addresses,
            ensemble,
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
            close_session_txn: true,
            enforce_quota: false,
            reconfig_enabled: false,
            access,
        },
        retain: dice.one_in(2).then_some(3),
        member: None,
    }
}

fn zab(seed: u64, index: usize, tick: Duration, dice: &mut Dice) -> ZabSettings {
    let stretch = BLOCK_BYTES as u64 * *dice.pick(&[2, 8, 32]);
    ZabSettings {
        server: ServerId(index as i64 + 1),
        tick,
        entry_bytes_max: limits::FRAME_BYTES_MAX + limits::EXTRA_BYTES_MAX,
        leader_serves: true,
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
        request_throttle: None,
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
