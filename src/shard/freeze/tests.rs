//! A shard without a leader, stepped by hand.

use std::time::Duration;

use super::*;
use crate::shard::auth::AuthSettings;
use crate::shard::machine::{Input, ShardSettings};
use crate::shard::messages::{Ask, Tell};
use crate::tree::access::AccessSettings;
use crate::tree::publication::{Block, Origin, PublishedTxn, Publisher, SessionChange};
use crate::tree::{Tree, TreeSettings};
use crate::types::digest_algorithm::DigestAlgorithm;
use crate::types::ids::{PASSWORD_BYTES, SessionId, ShardId};
use crate::types::time::WallTime;
use crate::types::zxid::Zxid;
use crate::wire::client_encode::{self, ConnectRequest};
use crate::wire::txn::{Txn, TxnHeader};

const CONNECTION: ConnectionId = ConnectionId(1);
const SESSION: SessionId = SessionId(7);
const TIMEOUT_MS: i32 = 4000;

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

struct Bench {
    tree: Tree,
    publisher: Publisher,
    shard: Shard,
    out: Vec<Output>,
    now: Time,
}

impl Bench {
    /// With one client.
    fn new() -> Bench {
        let tree = Tree::fresh(tree_settings());
        let publisher = Publisher::default();
        let settings = ShardSettings {
            id: ShardId(0),
            payload_bytes_max: 1 << 20,
            session_timeout_min_ms: 1000,
            session_timeout_max_ms: 40_000,
            outstanding_max: 1000,
            large_request_threshold: None,
            large_request_bytes_max: usize::MAX,
            request_throttle: None,
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
        };
        let reader = tree.reader().expect("the first reader");
        let shard = Shard::new(settings, reader, publisher.cursor(), [1, 2, 3, 4]);
        let mut bench = Bench { tree, publisher, shard, out: Vec::new(), now: Time::from_ms(1000) };
        bench.connect(CONNECTION);
        bench.publish(Txn::CreateSession { timeout_ms: TIMEOUT_MS }, b"", Some(CONNECTION));
        assert_eq!(bench.frames(CONNECTION).len(), 1, "the session is granted");
        bench
    }

    fn connect(&mut self, connection: ConnectionId) {
        let peer = ([127, 0, 0, 1], 4000).into();
        self.step(Input::Accepted { connection, peer, wall: WallTime(0) });
        let mut frame = Vec::new();
        ConnectRequest {
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: TIMEOUT_MS,
            session: SessionId::NONE,
            password: [0; PASSWORD_BYTES],
            read_only: false,
        }
        .encode(&mut frame);
        self.receive(connection, &frame);
    }

    fn step(&mut self, input: Input<'_>) {
        self.shard.step(self.now, input, &mut self.out);
    }

    fn tell(&mut self, tell: Tell) {
        self.step(Input::Told(tell));
        self.step(Input::EndOfTurn);
    }

    fn receive(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.step(Input::Received { connection, bytes });
        self.step(Input::EndOfTurn);
    }

    /// The next txn, with a reply to a connection.
    fn publish(&mut self, txn: Txn<'_>, reply: &[u8], to: Option<ConnectionId>) {
        let header = TxnHeader { session: SESSION, zxid: self.tree.head().next(), ..TxnHeader::default() };
        let mut effects = crate::tree::effects::Effects::default();
        effects.begin();
        self.tree.apply(&header, &txn, &mut effects);
        self.tree.publish(header.zxid);
        let session = match txn {
            Txn::CreateSession { timeout_ms } => SessionChange::Opened { session: SESSION, timeout_ms },
            _ => SessionChange::None,
        };
        let mut block = Block { bytes: reply.to_vec(), ..Block::default() };
        let reply = crate::tree::publication::Span::new(0..reply.len());
        let origin = to.map(|connection| Origin { shard: ShardId(0), connection });
        block.txns.push(PublishedTxn { zxid: header.zxid, session, origin, reply, ..PublishedTxn::default() });
        self.publisher.publish(block);
        self.step(Input::Published);
        self.step(Input::EndOfTurn);
    }

    /// What was sent to a connection since the last look: xid and zxid of each frame.
    fn frames(&mut self, connection: ConnectionId) -> Vec<(i32, i64)> {
        let mut frames = Vec::new();
        for output in std::mem::take(&mut self.out) {
            match output {
                Output::Send { connection: to, bytes } => {
                    let mut rest = bytes.as_slice();
                    while let Some((length, frame)) = rest.split_first_chunk::<4>() {
                        let (frame, others) = frame.split_at(u32::from_be_bytes(*length) as usize);
                        let mut reader = Reader::new(frame);
                        if to == connection {
                            frames.push((reader.i32().unwrap(), reader.i64().unwrap()));
                        }
                        rest = others;
                    }
                    self.step(Input::Sent { connection: to, buffer: bytes });
                }
                output => self.out.push(output),
            }
        }
        frames
    }

    fn is_closed(&self, connection: ConnectionId) -> bool {
        self.out.iter().any(|output| matches!(output, Output::Close(id) if *id == connection))
    }

    fn asks(&mut self) -> Vec<String> {
        let mut asks = Vec::new();
        for output in std::mem::take(&mut self.out) {
            match output {
                Output::Ask(batch) => asks.extend(batch.asks.iter().map(|ask| match ask {
                    Ask::Write(request) => format!("{:?} {}", request.op, request.xid),
                    Ask::OpenSession { .. } => "open".to_owned(),
                    Ask::RenewSession { .. } => "renew".to_owned(),
                    Ask::Detached { .. } => "detached".to_owned(),
                })),
                output => self.out.push(output),
            }
        }
        asks
    }
}

fn ping() -> Vec<u8> {
    let mut frame = Vec::new();
    client_encode::ping(&mut frame);
    frame
}

fn set_data(cxid: i32) -> Vec<u8> {
    let mut frame = Vec::new();
    client_encode::set_data(&mut frame, cxid, "/a", b"x", -1);
    frame
}

fn get_data(cxid: i32) -> Vec<u8> {
    let mut frame = Vec::new();
    client_encode::read(&mut frame, cxid, OpCode::GetData, "/", false);
    frame
}

#[test]
fn a_frozen_client_hears_answers_to_pings_and_nothing_else() {
    let mut bench = Bench::new();
    bench.receive(CONNECTION, &set_data(1));
    assert_eq!(bench.asks(), ["open", "SetData 1"]);
    bench.tell(Tell::Freeze);
    bench.receive(CONNECTION, &ping());
    assert_eq!(bench.frames(CONNECTION), [(xid::PING, 1)], "although a write waits, and at what is decided");
    bench.receive(CONNECTION, &[get_data(2), ping()].concat());
    assert!(bench.frames(CONNECTION).is_empty());
    assert!(bench.out.iter().any(|output| matches!(output, Output::Pause(CONNECTION))));
    assert!(bench.asks().is_empty());
}

#[test]
fn what_waited_is_served_after_the_thaw_in_its_order() {
    let mut bench = Bench::new();
    bench.receive(CONNECTION, &set_data(1));
    bench.tell(Tell::Freeze);
    bench.receive(CONNECTION, &[get_data(2), set_data(3)].concat());
    bench.asks();
    bench.publish(Txn::Error { code: -101 }, &[0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2], Some(CONNECTION));
    assert_eq!(bench.frames(CONNECTION), [(1, 2)], "an answer that is decided is an answer");
    bench.tell(Tell::Thaw { forwards_syncs: true });
    assert_eq!(bench.frames(CONNECTION), [(2, 2)]);
    assert_eq!(bench.asks(), ["SetData 3"]);
    assert_eq!(bench.shard.deadline(), Some(Time::from_ms(1500)), "the report of touches only");
}

#[test]
fn whoever_waited_for_a_quarter_of_the_timeout_is_let_go() {
    let mut bench = Bench::new();
    bench.tell(Tell::Freeze);
    bench.now = bench.now + Duration::from_millis(999);
    bench.step(Input::Timeout);
    assert!(!bench.is_closed(CONNECTION));
    bench.now = bench.now + Duration::from_millis(1);
    bench.step(Input::Timeout);
    assert!(bench.is_closed(CONNECTION));
    bench.step(Input::EndOfTurn);
    assert_eq!(bench.asks(), ["open", "detached"]);
}

#[test]
fn a_handshake_waits_for_the_thaw_and_is_turned_away_when_that_takes_too_long() {
    let mut bench = Bench::new();
    bench.asks();
    bench.tell(Tell::Freeze);
    bench.connect(ConnectionId(2));
    assert!(bench.asks().is_empty());
    bench.tell(Tell::Thaw { forwards_syncs: false });
    assert_eq!(bench.asks(), ["open"]);

    bench.tell(Tell::Freeze);
    bench.connect(ConnectionId(3));
    bench.now = bench.now + Duration::from_millis(1000);
    bench.step(Input::Timeout);
    assert!(bench.is_closed(ConnectionId(3)));
    bench.connect(ConnectionId(4));
    assert!(bench.is_closed(ConnectionId(4)), "at once, as ZooKeeper does without a leader");
}

#[test]
fn a_sync_is_a_question_to_a_leader_elsewhere() {
    let mut bench = Bench::new();
    let mut frame = Vec::new();
    client_encode::sync(&mut frame, 5, "/");
    bench.asks();
    bench.receive(CONNECTION, &frame);
    assert_eq!(bench.frames(CONNECTION), [(5, 1)]);
    bench.tell(Tell::Thaw { forwards_syncs: true });
    bench.receive(CONNECTION, &frame);
    assert!(bench.frames(CONNECTION).is_empty());
    assert_eq!(bench.asks(), ["Sync 5"]);
}

#[test]
fn an_empty_reply_closes_without_a_word() {
    let mut bench = Bench::new();
    bench.receive(CONNECTION, &set_data(1));
    bench.publish(Txn::Error { code: -118 }, b"", Some(CONNECTION));
    assert!(bench.frames(CONNECTION).is_empty());
    assert!(bench.is_closed(CONNECTION));
}

#[test]
fn another_store_is_read_from_where_the_old_one_was_left() {
    let mut bench = Bench::new();
    let rebuilt = Tree::fresh(tree_settings());
    let same = NewStore { reader: rebuilt.reader().expect("the first reader"), cursor: None };
    bench.step(Input::Store(same));
    assert!(!bench.is_closed(CONNECTION));
    bench.receive(CONNECTION, &get_data(2));
    assert_eq!(bench.frames(CONNECTION), [(2, 0)]);

    let other = Tree::fresh(tree_settings());
    let cursor = Some(Publisher::default().cursor());
    bench.connect(ConnectionId(2));
    bench.step(Input::Accepted { connection: ConnectionId(3), peer: ([127, 0, 0, 1], 1).into(), wall: WallTime(0) });
    bench.step(Input::Store(NewStore { reader: other.reader().expect("the first reader"), cursor }));
    assert!(bench.is_closed(CONNECTION) && bench.is_closed(ConnectionId(2)));
    assert!(!bench.is_closed(ConnectionId(3)), "nobody has told it anything");
}
