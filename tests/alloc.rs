//! How often a request goes to the heap, once everything that is kept has its size.
//! `cargo test --test alloc -- --nocapture` prints the counts.
//!
//! A shard and the zab core are stepped by hand, with frames as clients send them and a disk that is done at once.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use oxkeeper::server::pipeline::{self, Now, ZabCore, ZabSettings};
use oxkeeper::server::snapshots::{ContainerSettings, SnapshotSettings};
use oxkeeper::shard::auth::AuthSettings;
use oxkeeper::shard::machine::{Input, Output, Shard, ShardSettings};
use oxkeeper::shard::throttle::ThrottleSettings;
use oxkeeper::storage::log::{self, LogConfig};
use oxkeeper::tree::access::AccessSettings;
use oxkeeper::tree::publication::Publisher;
use oxkeeper::tree::{Tree, TreeSettings};
use oxkeeper::types::digest_algorithm::DigestAlgorithm;
use oxkeeper::types::ids::{ConnectionId, PASSWORD_BYTES, ServerId, SessionId, ShardId};
use oxkeeper::types::limits;
use oxkeeper::types::time::{Time, WallTime};
use oxkeeper::types::zxid::Zxid;
use oxkeeper::wire::client::OpCode;
use oxkeeper::wire::client_encode::{self, ConnectRequest};

thread_local! {
    /// Blocks that this thread has asked for, anew or larger ones.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counted.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call is handed on as it came; what is added, a plain thread-local number without a destructor, neither
// allocates nor unwinds.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s promises, which are `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: `block` came from `System` through this allocator, with this layout.
        unsafe { System.realloc(block, layout, bytes) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as for `realloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Runs `work` and counts what it allocates.
fn allocations_of(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two requests.
const PAUSE: Duration = Duration::from_millis(1);
const SHARD: ShardId = ShardId(0);
const PATH: &str = "/znode";

type Buffer = Vec<u8>;

fn tree_settings() -> TreeSettings {
    TreeSettings {
        extended_types: false,
        digest_enabled: true,
        close_session_txn: true,
        enforce_quota: false,
        reconfig_enabled: false,
        access: AccessSettings::default(),
    }
}

fn shard_settings() -> ShardSettings {
    ShardSettings {
        id: SHARD,
        payload_bytes_max: limits::FRAME_BYTES_MAX,
        session_timeout_min_ms: 1,
        session_timeout_max_ms: i32::MAX,
        outstanding_max: 1000,
        sessionless_timeout: Duration::from_secs(10),
        touch_report_delay: Duration::from_millis(500),
        extended_types: false,
        auth: AuthSettings {
            digest_algorithm: DigestAlgorithm::default(),
            super_digest: None,
            ensemble_names: None,
            enforced_schemes: None,
        },
        access: AccessSettings::default(),
        large_request_bytes_max: usize::MAX,
        large_request_threshold: None,
        request_throttle: None,
    }
}

fn zab_settings() -> ZabSettings {
    ZabSettings {
        server: ServerId(1),
        tick: Duration::from_secs(2),
        entry_bytes_max: limits::FRAME_BYTES_MAX + limits::EXTRA_BYTES_MAX,
        snapshots: SnapshotSettings { txns: u64::MAX / 2, log_bytes: None },
        containers: ContainerSettings {
            check_interval: Duration::from_secs(60),
            per_minute_max: 10_000,
            never_used_max: None,
        },
        log: LogConfig { roll_bytes: u64::MAX / 2, ..LogConfig::default() },
        connection_throttle: ThrottleSettings::default(),
        leader_serves: true,
        seed: 1,
    }
}

/// A server without sockets and disk, and a client of each connection.
struct Bench {
    shard: Shard,
    zab: ZabCore<Buffer>,
    now: Now,
    shard_out: Vec<Output>,
    zab_out: Vec<pipeline::Output<Buffer>>,
    log_done: Vec<log::Input<Buffer>>,
    /// Sends that the clients have not taken.
    sent: Vec<(ConnectionId, Vec<u8>)>,
    connections: u64,
    /// Frames that clients were sent.
    answers: u64,
    /// What the shard's steps allocated.
    shard_allocations: u64,
}

impl Bench {
    /// With so many sessions and the znode.
    fn new(connections: u64) -> Bench {
        let tree = Tree::fresh(tree_settings());
        let reader = tree.reader().expect("the first reader");
        let publisher = Publisher::default();
        let shard = Shard::new(shard_settings(), reader, publisher.cursor(), [1, 2, 3, 4]);
        let now = Now { time: Time::from_ms(1000), wall: WallTime(1_700_000_000_000) };
        let mut zab_out = Vec::new();
        let buffers = vec![vec![0; 1 << 20]];
        let zab = ZabCore::standalone(zab_settings(), tree, publisher, buffers, now, &mut zab_out);
        let (shard_out, log_done, sent) = (Vec::new(), Vec::new(), Vec::new());
        let (answers, shard_allocations) = (0, 0);
        let mut bench =
            Bench { shard, zab, now, shard_out, zab_out, log_done, sent, connections, answers, shard_allocations };
        let mut frame = Vec::new();
        let connect = ConnectRequest {
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: SESSION_TIMEOUT.as_millis() as i32,
            session: SessionId::NONE,
            password: [0; PASSWORD_BYTES],
            read_only: false,
        };
        connect.encode(&mut frame);
        for id in 0..connections {
            let (connection, peer) = (ConnectionId(id), SocketAddr::from((Ipv4Addr::LOCALHOST, 4000)));
            bench.step_shard(Input::Accepted { connection, peer, wall: bench.now.wall });
            bench.receive(connection, &frame);
        }
        bench.settle();
        frame.clear();
        client_encode::create(&mut frame, 1, PATH, &[7; 100], 0);
        bench.receive(ConnectionId(0), &frame);
        bench.settle();
        assert_eq!(bench.answers, connections + 1);
        bench
    }

    fn step_shard(&mut self, input: Input<'_>) {
        let before = ALLOCATIONS.get();
        self.shard.step(self.now.time, input, &mut self.shard_out);
        self.shard_allocations += ALLOCATIONS.get() - before;
    }

    fn receive(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.step_shard(Input::Received { connection, bytes });
    }

    /// Turns of both cores until nobody has anything left to do.
    fn settle(&mut self) {
        loop {
            self.step_shard(Input::EndOfTurn);
            self.zab.step(self.now, pipeline::Input::EndOfTurn, &mut self.zab_out);
            if self.shard_out.is_empty() && self.zab_out.is_empty() {
                break;
            }
            self.carry_shard();
            self.carry_zab();
        }
        self.take_sent();
    }

    fn carry_shard(&mut self) {
        let mut out = std::mem::take(&mut self.shard_out);
        for output in out.drain(..) {
            match output {
                Output::Send { connection, bytes } => self.sent.push((connection, bytes)),
                Output::Ask(batch) => {
                    self.zab.step(self.now, pipeline::Input::Batch { shard: SHARD, batch }, &mut self.zab_out);
                }
                other => panic!("nobody asked for {other:?}"),
            }
        }
        self.shard_out = out;
    }

    fn carry_zab(&mut self) {
        let mut out = std::mem::take(&mut self.zab_out);
        for output in out.drain(..) {
            match output {
                pipeline::Output::Log(output) => self.log_done.extend(done(output)),
                pipeline::Output::Published => self.step_shard(Input::Published),
                pipeline::Output::Spent { batch, .. } => self.shard.recycle(batch),
                pipeline::Output::Tell(told) => self.step_shard(Input::Told(told.tell)),
                pipeline::Output::Snapshot(_) => {}
                pipeline::Output::Stopped => panic!("nobody stopped it"),
                pipeline::Output::Socket(_)
                | pipeline::Output::StoreEpochs(_)
                | pipeline::Output::ReadLog { .. }
                | pipeline::Output::ReadSnapshot { .. }
                | pipeline::Output::ReadOn { .. }
                | pipeline::Output::CancelRead { .. }
                | pipeline::Output::Truncate(_)
                | pipeline::Output::Install(_)
                | pipeline::Output::Store { .. } => panic!("it stands alone"),
                pipeline::Output::Fatal { what } => panic!("{what}"),
            }
        }
        self.zab_out = out;
        let mut done = std::mem::take(&mut self.log_done);
        for input in done.drain(..) {
            self.zab.step(self.now, pipeline::Input::Log(input), &mut self.zab_out);
        }
        self.log_done = done;
    }

    /// The clients take what they were sent.
    fn take_sent(&mut self) {
        let mut sent = std::mem::take(&mut self.sent);
        for (connection, buffer) in sent.drain(..) {
            let mut rest = buffer.as_slice();
            while let Some((length, frame)) = rest.split_first_chunk::<4>() {
                rest = &frame[u32::from_be_bytes(*length) as usize..];
                self.answers += 1;
            }
            self.step_shard(Input::Sent { connection, buffer });
        }
        self.sent = sent;
    }

    fn pass(&mut self, span: Duration) {
        self.now.time = self.now.time + span;
        if self.shard.deadline().is_some_and(|at| at <= self.now.time) {
            self.step_shard(Input::Timeout);
        }
        if self.zab.deadline().is_some_and(|at| at <= self.now.time) {
            self.zab.step(self.now, pipeline::Input::Timeout, &mut self.zab_out);
        }
    }

    /// Each connection sends `frames` in each of so many rounds, and has `answers_each` of them answered. What the shard
    /// and what everything allocated meanwhile.
    fn count(&mut self, rounds: u64, frames: &[u8], answers_each: u64) -> (u64, u64) {
        let (answers, shard) = (self.answers, self.shard_allocations);
        let all = allocations_of(|| {
            for _ in 0..rounds {
                for connection in 0..self.connections {
                    self.receive(ConnectionId(connection), frames);
                }
                self.settle();
                self.pass(PAUSE);
            }
        });
        assert_eq!(self.answers - answers, rounds * self.connections * answers_each);
        (self.shard_allocations - shard, all)
    }
}

/// A disk that has done what it was asked.
fn done(output: log::Output<Buffer>) -> Option<log::Input<Buffer>> {
    Some(match output {
        log::Output::Prepare { file, upto } => log::Input::Prepared { file, zeroed_upto: upto },
        log::Output::Name { file, .. } => log::Input::Named { file },
        log::Output::Extend { file, upto, .. } => log::Input::Extended { file, upto },
        log::Output::Write { write, buffer, .. } => log::Input::Written { write, buffer },
        other => panic!("a log that neither rolls nor stops does not say {other}"),
    })
}

/// Longer than a session timeout: whatever is kept for that long has its size.
const WARM_UP_ROUNDS: u64 = 25_000;
const ROUNDS: u64 = 25_000;

/// Reads stay with the shard; the zab core hears twice a second who is there, and looks at each lease once in a timeout.
fn reads_do_not_allocate(what: &str, connections: u64, depth: u64, frame: &[u8]) {
    let mut bench = Bench::new(connections);
    let frames = frame.repeat(depth as usize);
    bench.count(WARM_UP_ROUNDS, &frames, depth);
    let (shard, all) = bench.count(ROUNDS, &frames, depth);
    let requests = ROUNDS * connections * depth;
    println!(
        "{requests} x {what}, {connections} connections at depth {depth}: {shard} allocations by the shard, {all} in all"
    );
    assert_eq!(shard, 0);
    let timeouts = (PAUSE * ROUNDS as u32).as_nanos().div_ceil(SESSION_TIMEOUT.as_nanos()) as u64 + 1;
    assert!(all <= 4 * timeouts * connections, "{all} allocations within {timeouts} session timeouts");
}

#[test]
fn a_get_data_does_not_allocate() {
    let mut frame = Vec::new();
    client_encode::read(&mut frame, 1, OpCode::GetData, PATH, false);
    for (connections, depth) in [(1, 1), (1, 32), (8, 4)] {
        reads_do_not_allocate("getData", connections, depth, &frame);
    }
}

#[test]
fn a_ping_does_not_allocate() {
    let mut frame = Vec::new();
    client_encode::ping(&mut frame);
    for (connections, depth) in [(1, 1), (8, 1)] {
        reads_do_not_allocate("ping", connections, depth, &frame);
    }
}

/// A set alone pays for its block, which shards share and free; sets that come together share one.
#[test]
fn a_set_allocates_a_bounded_few_times() {
    let mut frame = Vec::new();
    client_encode::set_data(&mut frame, 1, PATH, &[8; 100], client_encode::ANY_VERSION);
    for (connections, depth, per_set_max) in [(1, 1, 8.0), (1, 32, 1.0), (8, 4, 1.0)] {
        writes_allocate_at_most("setData", connections, depth, &frame, per_set_max);
    }
}

fn writes_allocate_at_most(what: &str, connections: u64, depth: u64, frame: &[u8], each_max: f64) {
    let mut bench = Bench::new(connections);
    let frames = frame.repeat(depth as usize);
    let rounds = ROUNDS / (connections * depth) + 100;
    bench.count(rounds, &frames, depth);
    let (shard, all) = bench.count(rounds, &frames, depth);
    let writes = rounds * connections * depth;
    let (each, of_shard) = (all as f64 / writes as f64, shard as f64 / writes as f64);
    println!(
        "{writes} x {what}, {connections} connections at depth {depth}: {each:.2} allocations each, {of_shard:.2} of them \
         by the shard"
    );
    assert!(each <= each_max, "{each} allocations per {what}");
}

/// What a write is made of lives in one arena while it is prepared: the parts of a multi, a name with its number. What is
/// left are the ACL of a create as its client sent it, the parts of the txn, and the share of the block.
#[test]
fn parts_of_a_multi_and_sequential_names_do_not_allocate() {
    let (mut multi, mut sequential) = (Vec::new(), Vec::new());
    client_encode::multi_set_data(&mut multi, 1, &vec![PATH.to_owned(); 10], &[8; 100]);
    client_encode::create(&mut sequential, 1, "/n-", b"", 2);
    writes_allocate_at_most("multi of 10 setData", 1, 32, &multi, 2.0);
    writes_allocate_at_most("sequential create", 1, 32, &sequential, 2.0);
}
