//! The zab core over a log whose disk answers when the test says so.

use std::sync::Arc;

use super::*;
use crate::shard::auth::AuthIds;
use crate::shard::messages::Forwarded;
use crate::shard::throttle::ThrottleSettings;
use crate::tree::TreeSettings;
use crate::tree::access::AccessSettings;
use crate::tree::publication::{Cursor, Span};
use crate::types::ids::ConnectionId;
use crate::wire::client::OpCode;
use crate::wire::client_encode;

type Buffer = Vec<u8>;

const ENTRY_BYTES_MAX: usize = 2 << 20;

struct Bench {
    core: ZabCore<Buffer>,
    cursor: Cursor,
    out: Vec<Output<Buffer>>,
    /// What the disk was asked for and has not done.
    asked: Vec<log::Input<Buffer>>,
    spent: usize,
    /// Xids of the replies that were published.
    replies: Vec<i32>,
    time: Time,
    /// What has to stop the process.
    fatal: Vec<String>,
}

impl Bench {
    fn new() -> Bench {
        Bench::with_entries_of(ENTRY_BYTES_MAX)
    }

    fn with_entries_of(entry_bytes_max: usize) -> Bench {
        let access = AccessSettings { skip_acl: false, digest_enabled: true, ensemble_enabled: true };
        let tree = TreeSettings {
            extended_types: false,
            digest_enabled: true,
            close_session_txn: true,
            enforce_quota: false,
            reconfig_enabled: false,
            access,
        };
        let settings = ZabSettings {
            server: ServerId(0),
            tick: Duration::from_secs(2),
            entry_bytes_max,
            snapshots: SnapshotSettings { txns: 1_000_000, log_bytes: None },
            containers: ContainerSettings {
                check_interval: Duration::from_secs(60),
                per_minute_max: 10_000,
                never_used_max: None,
            },
            log: LogConfig { stretch_bytes: 64 << 20, ahead_bytes: 0, ..LogConfig::default() },
            connection_throttle: ThrottleSettings::default(),
            leader_serves: true,
            seed: 1,
        };
        let publisher = Publisher::default();
        let cursor = publisher.cursor();
        let mut out = Vec::new();
        let time = Time(1_000_000_000);
        let now = Now { time, wall: WallTime(1_700_000_000_000) };
        let tree = Tree::fresh(tree);
        let core = ZabCore::standalone(settings, tree, publisher, vec![vec![0; 1 << 20]], now, &mut out);
        let mut bench =
            Bench { core, cursor, out, asked: Vec::new(), spent: 0, replies: Vec::new(), time, fatal: Vec::new() };
        bench.carry_out();
        bench
    }

    fn with_session() -> (Bench, SessionId) {
        Bench::new().and_session()
    }

    fn and_session(self) -> (Bench, SessionId) {
        let mut bench = self;
        bench.settle();
        let session = bench.core.next_session;
        bench.open_session();
        (bench, session)
    }

    fn open_session(&mut self) {
        let open = Ask::OpenSession { connection: ConnectionId(1), timeout_ms: 4_000 };
        self.step(Input::Batch { shard: ShardId(0), batch: Batch { asks: vec![open], ..Batch::default() } });
        self.step(Input::EndOfTurn);
        self.settle();
        (self.spent, self.replies) = (0, Vec::new());
    }

    fn step(&mut self, input: Input<'_, Buffer>) {
        let now = Now { time: self.time, wall: WallTime(1_700_000_000_000) };
        self.core.step(now, input, &mut self.out);
        let unflushed = self.core.log.unflushed_bytes();
        assert!(unflushed <= limits::LOG_IN_FLIGHT_BYTES_MAX, "{unflushed} bytes in flight");
        self.carry_out();
    }

    fn carry_out(&mut self) {
        for output in std::mem::take(&mut self.out) {
            match output {
                Output::Log(log::Output::Prepare { file, upto }) => {
                    self.asked.push(log::Input::Prepared { file, zeroed_upto: upto });
                }
                Output::Log(log::Output::Name { file, .. }) => self.asked.push(log::Input::Named { file }),
                Output::Log(log::Output::Extend { file, upto, .. }) => {
                    self.asked.push(log::Input::Extended { file, upto });
                }
                Output::Log(log::Output::Write { write, buffer, .. }) => {
                    self.asked.push(log::Input::Written { write, buffer });
                }
                Output::Log(_) | Output::Tell(_) | Output::Snapshot(_) | Output::Stopped => {}
                Output::Socket(_)
                | Output::StoreEpochs(_)
                | Output::ReadLog { .. }
                | Output::ReadSnapshot { .. }
                | Output::ReadOn { .. }
                | Output::CancelRead { .. }
                | Output::Truncate(_)
                | Output::Install(_)
                | Output::Store { .. } => panic!("it stands alone"),
                Output::Spent { .. } => self.spent += 1,
                Output::Published => self.follow(),
                Output::Fatal { what } => self.fatal.push(what),
            }
        }
    }

    fn follow(&mut self) {
        while self.cursor.advance() {
            let block = self.cursor.block();
            for txn in block.txns.iter().filter(|txn| txn.origin.is_some()) {
                if let Some(xid) = block.reply(txn).get(4..8).and_then(|bytes| bytes.first_chunk::<4>()) {
                    self.replies.push(i32::from_be_bytes(*xid));
                }
            }
        }
    }

    /// Wakes the machine when it wants to be, for so long.
    fn wait(&mut self, span: Duration) {
        let end = self.time + span;
        while let Some(at) = self.core.deadline().filter(|at| *at <= end) {
            self.time = self.time.max(at);
            self.step(Input::Timeout);
            self.step(Input::EndOfTurn);
        }
        self.time = end;
    }

    /// The disk does what it was asked for, and what comes of that.
    fn settle(&mut self) {
        while !self.asked.is_empty() {
            let done = self.asked.remove(0);
            self.step(Input::Log(done));
            self.step(Input::EndOfTurn);
        }
    }
}

fn batch(session: SessionId, xids: std::ops::Range<i32>, data: &[u8]) -> Batch {
    creates(session, xids, data, 0)
}

fn creates(session: SessionId, xids: std::ops::Range<i32>, data: &[u8], flags: i32) -> Batch {
    let auth = Arc::new(AuthIds::of_peer(([127, 0, 0, 1], 1).into()));
    let mut batch = Batch::default();
    for xid in xids {
        let mut frame = Vec::new();
        client_encode::create(&mut frame, xid, &format!("/n{xid}"), data, flags);
        let start = batch.bytes.len();
        // Behind the length and the header.
        batch.bytes.extend_from_slice(&frame[12..]);
        batch.asks.push(Ask::Write(Forwarded {
            connection: ConnectionId(1),
            session,
            xid,
            op: OpCode::Create,
            body: Span::new(start..batch.bytes.len()),
            auth: Arc::clone(&auth),
        }));
    }
    batch
}

#[test]
fn a_log_that_falls_behind_keeps_the_rest_of_the_batch_waiting_and_loses_none() {
    let (mut bench, session) = Bench::with_session();
    assert!(bench.core.takes_batches());
    bench.step(Input::Batch { shard: ShardId(0), batch: batch(session, 1..41, &[7; 500_000]) });
    bench.step(Input::EndOfTurn);
    assert_eq!(bench.spent, 0, "twenty megabytes are more than may be on their way");
    assert!(!bench.core.takes_batches());
    assert!(bench.replies.is_empty());
    bench.settle();
    assert!(bench.core.takes_batches());
    assert_eq!((bench.spent, bench.replies.clone()), (1, (1..41).collect()));
}

#[test]
fn nothing_is_taken_before_the_log_has_its_first_file() {
    let mut bench = Bench::new();
    assert!(!bench.core.takes_batches());
    bench.settle();
    assert!(bench.core.takes_batches());
}

#[test]
fn a_full_disk_takes_batches_to_refuse_them() {
    let mut bench = Bench::new();
    let prepared = bench.asked.remove(0);
    let log::Input::Prepared { file, .. } = prepared else { panic!("{prepared}") };
    bench.step(Input::Log(log::Input::NoSpace { file }));
    assert!(bench.core.takes_batches());
    bench.step(Input::Batch { shard: ShardId(0), batch: batch(SessionId(7), 1..3, b"") });
    bench.step(Input::EndOfTurn);
    assert_eq!((bench.spent, bench.replies.clone()), (1, vec![1, 2]));
}

#[test]
fn no_session_expires_while_the_log_keeps_clients_from_being_heard() {
    let (mut bench, busy) = Bench::with_session();
    bench.open_session();
    bench.step(Input::Batch { shard: ShardId(0), batch: batch(busy, 1..41, &[7; 500_000]) });
    bench.step(Input::EndOfTurn);
    bench.time = bench.time + Duration::from_secs(60);
    bench.step(Input::Timeout);
    bench.settle();
    bench.step(Input::Timeout);
    assert_eq!(bench.core.leases().len(), 2, "it gets the minute back");
    bench.time = bench.time + Duration::from_secs(60);
    bench.step(Input::Timeout);
    bench.step(Input::EndOfTurn);
    bench.settle();
    assert_eq!(bench.core.leases().len(), 0);
}

#[test]
fn a_stop_lets_go_of_what_waits() {
    let (mut bench, session) = Bench::with_session();
    bench.step(Input::Batch { shard: ShardId(0), batch: batch(session, 1..41, &[7; 500_000]) });
    bench.step(Input::Stop);
    assert_eq!(bench.spent, 1);
    bench.settle();
    let done = bench.replies.len();
    assert!(0 < done && done < 40 && bench.replies == (1..=done as i32).collect::<Vec<_>>());
}

/// Closes a session whose list of ephemerals is longer than an entry may be.
fn check_long_closing(close: impl FnOnce(&mut Bench, SessionId)) {
    let (mut bench, session) = Bench::with_entries_of(2_000).and_session();
    let znodes = bench.core.tree().counts().znodes;
    bench.step(Input::Batch { shard: ShardId(0), batch: creates(session, 1..501, b"", 1) });
    bench.step(Input::EndOfTurn);
    bench.settle();
    assert_eq!(bench.core.tree().counts().znodes, znodes + 500);
    close(&mut bench, session);
    bench.step(Input::EndOfTurn);
    let closing = bench.core.entry.clone();
    bench.settle();
    assert_eq!((bench.core.leases().len(), bench.core.tree().counts().sessions), (0, 0));
    assert_eq!(bench.core.tree().counts().znodes, znodes, "its ephemerals go with it");
    let header = crate::wire::txn::HEADER_BYTES;
    let payload = crate::storage::log_file::payload_of(&closing).expect("a whole entry");
    assert_eq!(payload.len(), header, "neither a list nor a digest: Java would take one for the other");
}

#[test]
fn a_session_whose_list_of_ephemerals_is_too_long_for_the_log_can_be_closed() {
    check_long_closing(|bench, session| {
        let mut batch = creates(session, 501..502, b"", 1);
        for ask in &mut batch.asks {
            let Ask::Write(request) = ask else { panic!("a write") };
            (request.op, request.body) = (OpCode::CloseSession, Span::default());
        }
        bench.replies.clear();
        bench.step(Input::Batch { shard: ShardId(0), batch });
        bench.step(Input::EndOfTurn);
    });
}

#[test]
fn a_session_whose_list_of_ephemerals_is_too_long_for_the_log_expires() {
    check_long_closing(|bench, _| {
        bench.time = bench.time + Duration::from_secs(60);
        bench.step(Input::Timeout);
    });
}

#[test]
fn a_shard_that_does_not_move_stops_the_process_and_one_that_sleeps_does_not() {
    let mut bench = Bench::new();
    let mut shard = bench.core.tree().reader().expect("a reader");
    bench.settle();
    bench.open_session();
    shard.adopt_latest();
    bench.wait(Duration::from_secs(3));
    assert_eq!(bench.core.stalls.deadline(), None, "it has everything");
    bench.open_session();
    bench.wait(Duration::from_secs(2));
    bench.settle();
    bench.wait(limits::SHARD_STALL_LIMIT - Duration::from_secs(5));
    assert!(bench.fatal.is_empty(), "{:?}", bench.fatal);
    bench.wait(Duration::from_secs(10));
    bench.settle();
    assert!(bench.fatal.first().is_some_and(|what| what.contains("a shard has not moved")), "{:?}", bench.fatal);
}

#[test]
fn a_snapshot_that_takes_long_is_no_shard_that_does_not_move() {
    let mut bench = Bench::new();
    let mut out = Vec::new();
    bench.core.start_snapshot(&mut out);
    bench.settle();
    bench.open_session();
    bench.wait(2 * limits::SHARD_STALL_LIMIT);
    bench.settle();
    assert!(matches!(out.as_slice(), [Output::Snapshot(_)]) && bench.fatal.is_empty(), "{:?}", bench.fatal);
}

#[test]
fn a_disk_that_is_full_from_the_start_opens_no_sessions() {
    let mut bench = Bench::new();
    let prepared = bench.asked.remove(0);
    let log::Input::Prepared { file, .. } = prepared else { panic!("{prepared}") };
    bench.step(Input::Log(log::Input::NoSpace { file }));
    let open = Ask::OpenSession { connection: ConnectionId(1), timeout_ms: 4_000 };
    let mut out = Vec::new();
    let input = Input::Batch { shard: ShardId(0), batch: Batch { asks: vec![open], ..Batch::default() } };
    bench.core.step(Now { time: bench.time, wall: WallTime(0) }, input, &mut out);
    let turned_away = Told { shard: ShardId(0), tell: Tell::TurnedAway { connection: ConnectionId(1) } };
    assert!(matches!(&out[..], [Output::Tell(told), Output::Spent { .. }] if *told == turned_away));
    assert_eq!(bench.core.leases().len(), 0);
}
