//! A shard between a client and a zab core that the tests play.

use std::net::Ipv4Addr;

use super::*;
use crate::tree::effects::Effects;
use crate::tree::publication::{Origin, PublishedTxn, Publisher};
use crate::tree::{Tree, TreeSettings};
use crate::types::acl::{Acl, AclList, perms};
use crate::types::digest_algorithm::DigestAlgorithm;
use crate::types::zxid::Zxid;
use crate::wire::client::EventType;
use crate::wire::client_encode::{self, ConnectRequest};
use crate::wire::txn::{CreateTxn, Txn, TxnHeader};

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
        request_throttle: None,
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
    tree: Tree,
    publisher: Publisher,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(settings())
    }

    fn with(settings: ShardSettings) -> Bench {
        let tree = tree();
        let publisher = Publisher::default();
        let reader = tree.reader().expect("the first reader");
        let shard = Shard::new(settings, reader, publisher.cursor(), [1, 2, 3, 4]);
        let mut bench = Bench { shard, tree, publisher };
        bench.connect(CONNECTION, SESSION, Ipv4Addr::LOCALHOST);
        bench
    }

    fn connect(&mut self, connection: ConnectionId, session: SessionId, from: Ipv4Addr) {
        let peer = SocketAddr::from((from, 4000));
        self.step(0, Input::Accepted { connection, peer, wall: WallTime(0) });
        let connect = ConnectRequest {
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: TIMEOUT_MS as i32,
            session,
            password: session.password(),
            read_only: false,
        };
        let mut frame = Vec::new();
        connect.encode(&mut frame);
        self.step(0, Input::Received { connection, bytes: &frame });
        let tell = Tell::Renewed { connection, session, timeout_ms: TIMEOUT_MS as i32, is_alive: true };
        self.step(0, Input::Told(tell));
        let out = self.step(0, Input::EndOfTurn);
        self.take(0, out);
    }

    /// Somebody else creates a znode.
    fn create(&mut self, path: &str, acl: AclList) {
        self.publish(path, acl, None);
    }

    /// A client's own create is committed.
    fn commit(&mut self, connection: ConnectionId, xid: i32) {
        self.publish(&format!("/n{xid}"), AclList::Open, Some((connection, xid)));
    }

    fn publish(&mut self, path: &str, acl: AclList, asked: Option<(ConnectionId, i32)>) {
        let zxid = self.tree.head().next();
        let header = TxnHeader { zxid, ..TxnHeader::default() };
        let create = CreateTxn { path: path.into(), data: None, acl, ephemeral: false, parent_cversion: 1 };
        let mut effects = Effects::default();
        let mark = effects.begin();
        self.tree.apply(&header, &Txn::Create(create), &mut effects);
        let changes = effects.changes_since(mark);
        let mut txn = PublishedTxn { zxid, changes, ..PublishedTxn::default() };
        if let Some((connection, xid)) = asked {
            let start = effects.block.bytes.len();
            client::put_reply(&mut effects.block.bytes, xid, zxid.as_i64(), ErrorCode::Ok);
            txn.reply = Span::new(start..effects.block.bytes.len());
            txn.origin = Some(Origin { shard: ShardId(0), connection });
        }
        effects.block.txns.push(txn);
        self.tree.publish(zxid);
        self.publisher.publish(effects.block);
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

    /// The client takes what it was sent. Returns what comes of that.
    fn take(&mut self, ms: u64, out: Vec<Output>) -> Vec<Output> {
        let mut then = Vec::new();
        for output in out {
            if let Output::Send { connection, bytes } = output {
                then.extend(self.step(ms, Input::Sent { connection, buffer: bytes }));
            }
        }
        then
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

fn sent(out: &[Output]) -> Vec<u8> {
    let bytes = out.iter().filter_map(|output| match output {
        Output::Send { bytes, .. } => Some(bytes.as_slice()),
        _ => None,
    });
    bytes.collect::<Vec<_>>().concat()
}

#[test]
fn who_asks_for_a_watch_that_has_no_room_is_disconnected_without_an_answer() {
    let mut bench = Bench::new();
    bench.shard.desk.watches.path_bytes_max = "/zookeeper".len() - 1;
    let mut frames = Vec::new();
    client_encode::read(&mut frames, 1, OpCode::GetData, "/zookeeper", false);
    client_encode::read(&mut frames, 2, OpCode::GetData, "/zookeeper", true);
    client_encode::read(&mut frames, 3, OpCode::GetData, "/zookeeper", false);
    bench.step(1, Input::Received { connection: CONNECTION, bytes: &frames });
    let out = bench.step(1, Input::EndOfTurn);
    assert_eq!(sent(&out)[4..8], 1_i32.to_be_bytes());
    assert_eq!(u32::from_be_bytes(*sent(&out).first_chunk().unwrap()) as usize + 4, sent(&out).len(), "one reply");
    let out = bench.take(2, out);
    assert!(matches!(out.as_slice(), [Output::Close(CONNECTION)]), "{out:?}");
}

#[test]
fn who_restores_watches_that_have_no_room_is_disconnected() {
    let mut bench = Bench::new();
    bench.shard.desk.watches.path_bytes_max = 20;
    let mut frame = Vec::new();
    client_encode::request(&mut frame, -8, OpCode::SetWatches as i32, |out| {
        out.put_i64(0);
        out.put_i32(3);
        ["/zookeeper", "/zookeeper/quota", "/zookeeper/config"].into_iter().for_each(|path| out.put_string(path));
        out.put_i32(0);
        out.put_i32(0);
    });
    bench.step(1, Input::Received { connection: CONNECTION, bytes: &frame });
    let out = bench.step(1, Input::EndOfTurn);
    assert!(matches!(out.as_slice(), [Output::Close(CONNECTION), ..]), "{out:?}");
    assert_eq!(bench.shard.desk.watches.paths(), 0, "and what it had goes with it");
}

#[test]
fn all_who_watch_get_the_same_event_but_for_those_who_may_not_read() {
    let mut bench = Bench::new();
    let near = (1..4).map(|n| (ConnectionId(n), Ipv4Addr::new(10, 0, 0, n as u8)));
    let clients: Vec<_> = near.chain([(CONNECTION, Ipv4Addr::LOCALHOST)]).collect();
    for (connection, from) in &clients {
        if *connection != CONNECTION {
            bench.connect(*connection, SessionId(SESSION.0 + connection.0 as i64), *from);
        }
        let mut frames = Vec::new();
        client_encode::read(&mut frames, 1, OpCode::Exists, "/secret", true);
        client_encode::read(&mut frames, 2, OpCode::GetChildren, "/", true);
        bench.step(1, Input::Received { connection: *connection, bytes: &frames });
    }
    let out = bench.step(1, Input::EndOfTurn);
    bench.take(1, out);
    let nearby = AclList::from_vec(vec![Acl::new(perms::READ, "ip", "10.0.0.0/8")]);
    bench.create("/secret", nearby);
    bench.step(2, Input::Published);
    let out = bench.step(2, Input::EndOfTurn);
    let event = |kind, path| {
        let mut frame = Vec::new();
        client::put_notification(&mut frame, 1, kind, path);
        frame
    };
    let (created, children) = (event(EventType::NodeCreated, "/secret"), event(EventType::NodeChildrenChanged, "/"));
    assert_eq!(out.len(), clients.len());
    for output in out {
        let Output::Send { connection, bytes } = output else { panic!("{output:?}") };
        let expected = if connection == CONNECTION { children.clone() } else { [&created[..], &children].concat() };
        assert_eq!(bytes, expected, "{connection:?}");
    }
}

const OTHER: ConnectionId = ConnectionId(8);

/// One request at a time, and two clients.
fn throttled(op_wait_ms: Option<u64>) -> Bench {
    let op_wait = op_wait_ms.map(Duration::from_millis);
    let throttle = RequestThrottle { requests_max: 1, op_wait, drops_stale: true };
    let mut bench = Bench::with(ShardSettings { request_throttle: Some(throttle), ..settings() });
    bench.connect(OTHER, SessionId(SESSION.0 + 1), Ipv4Addr::LOCALHOST);
    bench
}

/// Xids of the writes that a turn handed to the zab core; xids and errors of the replies that it sent, and to whom.
fn turn(bench: &mut Bench, ms: u64) -> (Vec<i32>, Vec<(ConnectionId, i32, i32)>) {
    let (mut asked, mut replies) = (Vec::new(), Vec::new());
    let out = bench.step(ms, Input::EndOfTurn);
    for output in &out {
        match output {
            Output::Ask(batch) => asked.extend(batch.asks.iter().filter_map(|ask| match ask {
                Ask::Write(write) => Some(write.xid),
                _ => None,
            })),
            Output::Send { connection, bytes } => {
                let mut bytes = bytes.as_slice();
                while let Frame::Whole(payload) = split_frame(bytes, limits::FRAME_BYTES_MAX) {
                    let header = client_encode::ReplyHeader::decode(payload).expect("a reply");
                    replies.push((*connection, header.xid, header.err));
                    bytes = &bytes[4 + payload.len()..];
                }
            }
            _ => {}
        }
    }
    bench.take(ms, out);
    (asked, replies)
}

fn creates(xids: std::ops::Range<i32>) -> Vec<u8> {
    let mut frames = Vec::new();
    xids.for_each(|xid| client_encode::create(&mut frames, xid, &format!("/n{xid}"), b"", 0));
    frames
}

#[test]
fn beyond_the_request_throttle_requests_wait_in_the_order_in_which_they_came() {
    let mut bench = throttled(None);
    bench.step(1, Input::Received { connection: CONNECTION, bytes: &creates(1..4) });
    bench.step(1, Input::Received { connection: OTHER, bytes: &creates(11..13) });
    assert_eq!(turn(&mut bench, 1), (vec![1], vec![]));
    let mut order = vec![];
    let mut in_process = (CONNECTION, 1);
    for ms in 2..6 {
        bench.commit(in_process.0, in_process.1);
        bench.step(ms, Input::Published);
        let (asked, replies) = turn(&mut bench, ms);
        assert_eq!(replies, [(in_process.0, in_process.1, 0)]);
        let [xid] = asked[..] else { panic!("one at a time: {asked:?}") };
        order.push(xid);
        in_process = (if xid > 10 { OTHER } else { CONNECTION }, xid);
    }
    assert_eq!(order, [2, 11, 3, 12], "whoever was served goes behind the other");
    bench.commit(OTHER, 12);
    bench.step(6, Input::Published);
    assert_eq!(turn(&mut bench, 6), (vec![], vec![(OTHER, 12, 0)]));
    assert_eq!(bench.shard.desk.stats.request_throttle_wait_count, 2);
}

#[test]
fn c_179_what_waited_too_long_is_refused_in_order_and_not_executed() {
    let mut bench = throttled(Some(100));
    bench.step(0, Input::Received { connection: CONNECTION, bytes: &creates(1..2) });
    turn(&mut bench, 0);
    let mut frames = creates(11..12);
    client_encode::read(&mut frames, 12, OpCode::GetData, "/zookeeper", false);
    client_encode::ping(&mut frames);
    frames.extend_from_slice(&creates(13..14));
    client_encode::close_session(&mut frames, 14);
    bench.step(0, Input::Received { connection: OTHER, bytes: &frames });
    assert_eq!(turn(&mut bench, 0), (vec![], vec![]), "they wait");
    bench.commit(CONNECTION, 1);
    bench.step(101, Input::Published);
    let (asked, replies) = turn(&mut bench, 101);
    let throttled = ErrorCode::ThrottledOp.code();
    let expected =
        [(CONNECTION, 1, 0), (OTHER, 11, throttled), (OTHER, 12, throttled), (OTHER, -2, 0), (OTHER, 13, throttled)];
    assert_eq!(replies, expected);
    assert_eq!(asked, [14], "the session ends all the same");
    assert_eq!(bench.shard.desk.stats.throttled_ops, 3);
}

#[test]
fn a_refusal_of_the_throttle_waits_for_the_writes_before_it() {
    let mut bench = throttled(Some(100));
    bench.shard.desk.settings.request_throttle.as_mut().expect("set").requests_max = 2;
    bench.step(0, Input::Received { connection: OTHER, bytes: &creates(11..13) });
    bench.step(0, Input::Received { connection: CONNECTION, bytes: &creates(1..2) });
    assert_eq!(turn(&mut bench, 0).0, [11, 12]);
    bench.commit(OTHER, 11);
    bench.step(50, Input::Published);
    assert_eq!(turn(&mut bench, 50).0, [1], "in time");
    bench.step(51, Input::Received { connection: CONNECTION, bytes: &creates(2..3) });
    turn(&mut bench, 51);
    bench.commit(OTHER, 12);
    bench.step(200, Input::Published);
    assert_eq!(turn(&mut bench, 200), (vec![], vec![(OTHER, 12, 0)]), "the refusal of 2 stands behind 1");
    bench.commit(CONNECTION, 1);
    bench.step(201, Input::Published);
    let throttled = ErrorCode::ThrottledOp.code();
    assert_eq!(turn(&mut bench, 201), (vec![], vec![(CONNECTION, 1, 0), (CONNECTION, 2, throttled)]));
    assert_eq!(bench.shard.desk.waiting_reads, 0);
}

#[test]
fn what_waited_longer_than_its_session_may_be_silent_closes_the_connection() {
    let mut bench = throttled(None);
    bench.step(0, Input::Received { connection: CONNECTION, bytes: &creates(1..2) });
    bench.step(0, Input::Received { connection: OTHER, bytes: &creates(11..12) });
    turn(&mut bench, 0);
    bench.commit(CONNECTION, 1);
    bench.step(TIMEOUT_MS + 1, Input::Published);
    let out = bench.step(TIMEOUT_MS + 1, Input::EndOfTurn);
    assert!(out.iter().any(|output| matches!(output, Output::Close(OTHER))), "{out:?}");
    assert_eq!(bench.shard.desk.stats.stale_requests_dropped, 1);
}
