//! A shard between a client and a zab core that the tests play.

use std::net::Ipv4Addr;

use super::*;
use crate::shard::auth::DigestAlgorithm;
use crate::tree::publication::Publisher;
use crate::tree::{Tree, TreeSettings};
use crate::types::zxid::Zxid;
use crate::wire::client_encode::{self, ConnectRequest};

const CONNECTION: ConnectionId = ConnectionId(7);
const SESSION: SessionId = SessionId(1 << 56);
const TIMEOUT_MS: u64 = 10_000;
const REPORT_MS: u64 = 500;

fn settings() -> ShardSettings {
    ShardSettings {
        id: ShardId(0),
        payload_bytes_max: limits::FRAME_BYTES_MAX,
        session_timeout_min_ms: 1,
        session_timeout_max_ms: i32::MAX,
        outstanding_max: 1000,
        large_request_threshold: None,
        large_request_bytes_max: 0,
        sessionless_timeout: Duration::from_secs(3600),
        touch_report_delay: Duration::from_millis(REPORT_MS),
        extended_types: false,
        auth: AuthSettings {
            digest_algorithm: DigestAlgorithm::default(),
            super_digest: None,
            ensemble_names: None,
            enforced_schemes: None,
        },
        access: AccessSettings::default(),
    }
}

fn tree() -> Tree {
    Tree::fresh(TreeSettings {
        extended_types: false,
        digest_enabled: true,
        close_session_txn: true,
        enforce_quota: false,
        reconfig_enabled: false,
        access: AccessSettings::default(),
    })
}

/// A shard with one established session, at 0 ms.
struct Bench {
    shard: Shard,
    _tree: Tree,
}

impl Bench {
    fn new() -> Bench {
        let tree = tree();
        let reader = tree.reader().expect("the first reader");
        let shard = Shard::new(settings(), reader, Publisher::default().cursor(), [1, 2, 3, 4]);
        let mut bench = Bench { shard, _tree: tree };
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 4000));
        bench.step(0, Input::Accepted { connection: CONNECTION, peer, wall: WallTime(0) });
        let connect = ConnectRequest {
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: TIMEOUT_MS as i32,
            session: SESSION,
            password: SESSION.password(),
            read_only: false,
        };
        let mut frame = Vec::new();
        connect.encode(&mut frame);
        bench.step(0, Input::Received { connection: CONNECTION, bytes: &frame });
        let tell =
            Tell::Renewed { connection: CONNECTION, session: SESSION, timeout_ms: TIMEOUT_MS as i32, is_alive: true };
        bench.step(0, Input::Told(tell));
        let out = bench.step(0, Input::EndOfTurn);
        bench.take(0, out);
        bench
    }

    fn step(&mut self, ms: u64, input: Input<'_>) -> Vec<Output> {
        let mut out = Vec::new();
        self.shard.step(Time::from_ms(ms), input, &mut out);
        out
    }

    /// A ping, and what the turn brings.
    fn ping(&mut self, ms: u64) -> Vec<Output> {
        let mut frame = Vec::new();
        client_encode::ping(&mut frame);
        self.step(ms, Input::Received { connection: CONNECTION, bytes: &frame });
        self.step(ms, Input::EndOfTurn)
    }

    /// The client takes what it was sent.
    fn take(&mut self, ms: u64, out: Vec<Output>) {
        for output in out {
            if let Output::Send { connection, bytes } = output {
                self.step(ms, Input::Sent { connection, buffer: bytes });
            }
        }
    }
}

#[test]
fn a_client_that_takes_nothing_for_a_session_timeout_is_disconnected() {
    let mut bench = Bench::new();
    for ms in (100..16_000).step_by(100) {
        if bench.shard.deadline().is_some_and(|at| at <= Time::from_ms(ms)) {
            assert!(bench.step(ms, Input::Timeout).is_empty());
        }
        let out = bench.ping(ms);
        bench.take(ms, out);
        assert!(bench.shard.desk.sending.len() <= 1, "one date per connection");
    }
    let out = bench.ping(16_000);
    assert!(out.iter().any(|output| matches!(output, Output::Send { .. })));
    for ms in (16_100..16_000 + TIMEOUT_MS).step_by(100) {
        bench.step(ms, Input::EndOfTurn);
        assert!(bench.step(ms, Input::Timeout).is_empty(), "too early: {ms} ms");
    }
    let out = bench.step(16_000 + TIMEOUT_MS, Input::Timeout);
    assert!(matches!(out.as_slice(), [Output::Abort(CONNECTION)]), "{out:?}");
}

#[test]
fn a_connection_that_sends_nothing_costs_no_timer() {
    let mut bench = Bench::new();
    bench.step(TIMEOUT_MS, Input::EndOfTurn);
    bench.step(TIMEOUT_MS, Input::Timeout);
    assert!(bench.shard.desk.sending.is_empty());
}

#[test]
fn a_spent_batch_does_not_replace_what_waits_for_the_zab_core() {
    let mut bench = Bench::new();
    let out = bench.ping(1);
    bench.take(1, out);
    bench.step(2, Input::ZabIsFull(true));
    assert!(bench.step(1 + REPORT_MS, Input::EndOfTurn).is_empty());
    bench.shard.recycle(Batch::default());
    bench.step(2 + REPORT_MS, Input::ZabIsFull(false));
    let out = bench.step(2 + REPORT_MS, Input::EndOfTurn);
    let [Output::Ask(batch)] = out.as_slice() else { panic!("{out:?}") };
    assert_eq!(batch.touched, [SESSION]);
}
