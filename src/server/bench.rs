//! A member's core whose disk, shards and agreement machine a test plays.

use std::sync::Arc;
use std::time::Duration;

use super::errands::Script;
use super::pipeline::{Input, Member, Now, Output, ZabCore, ZabSettings};
use super::snapshots::{ContainerSettings, SnapshotSettings};
use crate::shard::auth::AuthIds;
use crate::shard::messages::{Ask, Batch, Forwarded, Tell};
use crate::shard::throttle::ThrottleSettings;
use crate::storage::log::{self, LogConfig};
use crate::tree::access::AccessSettings;
use crate::tree::effects::Effects;
use crate::tree::publication::{Cursor, Publisher, SessionChange, Span};
use crate::tree::{Tree, TreeSettings};
use crate::types::ids::{ConnectionId, ServerId, SessionId, ShardId};
use crate::types::time::{Time, WallTime};
use crate::types::zxid::Zxid;
use crate::wire::client::OpCode;
use crate::wire::client_encode;
use crate::wire::txn::{self, CreateTxn, Txn, TxnHeader};
use crate::zab::{self, RoleName, Zab};

type Buffer = Vec<u8>;

pub const FIRST: ConnectionId = ConnectionId(1);
pub const TIMEOUT_MS: i32 = 4_000;

/// One reply or session that was published: the connection, what it hears (a xid, or that it is closed or attached), and at
/// which zxid.
pub type Heard = (u64, String, Zxid);

pub struct Bench {
    pub core: ZabCore<Buffer>,
    pub cursor: Cursor,
    pub out: Vec<Output<Buffer>>,
    /// What the disk was asked for and has not done.
    pub asked: Vec<log::Input<Buffer>>,
    pub heard: Vec<Heard>,
    /// Paths whose change was published, in order.
    pub changed: Vec<String>,
    pub tells: Vec<Tell>,
    /// Everything else that was put out, in few words.
    pub told: Vec<String>,
    pub time: Time,
}

pub fn tree_settings() -> TreeSettings {
    TreeSettings {
        extended_types: false,
        digest_enabled: true,
        close_session_txn: true,
        enforce_quota: false,
        reconfig_enabled: false,
        access: AccessSettings { skip_acl: false, digest_enabled: true, ensemble_enabled: true },
    }
}

fn settings() -> ZabSettings {
    ZabSettings {
        server: ServerId(2),
        tick: Duration::from_secs(2),
        entry_bytes_max: 2 << 20,
        snapshots: SnapshotSettings { txns: 1_000_000, log_bytes: None },
        containers: ContainerSettings {
            check_interval: Duration::from_secs(600),
            per_minute_max: 10_000,
            never_used_max: None,
        },
        log: LogConfig { stretch_bytes: 64 << 20, ahead_bytes: 0, ..LogConfig::default() },
        connection_throttle: ThrottleSettings::default(),
        leader_serves: true,
        seed: 1,
    }
}

impl Bench {
    /// A member that has just started, with nothing but a fresh tree.
    pub fn new() -> Bench {
        let publisher = Publisher::default();
        let cursor = publisher.cursor();
        let tree = Tree::fresh(tree_settings());
        let zab = Zab::standalone(ServerId(2), tree.head());
        let member = Member { zab, zab_out: Vec::new(), shards: 1, committed: Zxid::ZERO };
        let (mut out, time) = (Vec::new(), Time::from_ms(1000));
        let now = Now { time, wall: WallTime(1_700_000_000_000) };
        let buffers = vec![vec![0; 1 << 20]];
        let mut core = ZabCore::member(settings(), member, tree, publisher, buffers, now, &mut out);
        core.zab.script = Some(Script::default());
        let mut bench = Bench {
            core,
            cursor,
            out,
            asked: Vec::new(),
            heard: Vec::new(),
            changed: Vec::new(),
            tells: Vec::new(),
            told: Vec::new(),
            time,
        };
        bench.carry_out();
        bench.settle();
        bench
    }

    /// A member of an ensemble with a leader, after it has come to rest once.
    pub fn established(role: RoleName, epoch: u32) -> Bench {
        let mut bench = Bench::new();
        bench.say([zab::Output::Settle]);
        bench.establish(role, epoch);
        bench.forget();
        bench
    }

    pub fn establish(&mut self, role: RoleName, epoch: u32) {
        let zxid = Zxid::new(epoch, 0);
        self.say([zab::Output::Established { role, leader: ServerId(1), zxid }]);
        self.settle();
    }

    /// Forgets what was put out.
    pub fn forget(&mut self) {
        self.heard.clear();
        self.changed.clear();
        self.tells.clear();
        self.told.clear();
        self.script().heard.clear();
    }

    pub fn script(&mut self) -> &mut Script {
        self.core.zab.script.as_mut().expect("set at the start")
    }

    /// What the agreement machine was told since the last look, without turns and flushes.
    pub fn zab_heard(&mut self) -> Vec<String> {
        let heard = std::mem::take(&mut self.script().heard);
        let is_news = |line: &String| !line.starts_with("flushed") && !line.starts_with("timeout");
        heard.into_iter().filter(is_news).collect()
    }

    pub fn now(&self) -> Now {
        Now { time: self.time, wall: WallTime(1_700_000_000_000) }
    }

    pub fn step(&mut self, input: Input<'_, Buffer>) {
        self.core.step(self.now(), input, &mut self.out);
        self.carry_out();
    }

    /// The agreement machine wants something, and the turn ends.
    pub fn say(&mut self, wishes: impl IntoIterator<Item = zab::Output>) {
        self.core.zab.out.extend(wishes);
        let now = self.now();
        self.core.carry_out(now, &mut self.out);
        self.carry_out();
        self.step(Input::Timeout);
        self.step(Input::EndOfTurn);
    }

    pub fn carry_out(&mut self) {
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
                Output::Log(_) | Output::Snapshot(_) | Output::Spent { .. } => {}
                Output::Tell(told) => self.tells.push(told.tell),
                Output::Published => self.follow(),
                Output::Store { store, .. } => {
                    self.told.push(format!("{store:?}"));
                    if let Some(cursor) = store.cursor {
                        self.cursor = cursor;
                    }
                }
                Output::Truncate(job) => self.told.push(format!("truncate to {}, shown {:?}", job.to, job.shown)),
                Output::Install(job) => self.told.push(format!("install {}", job.zxid)),
                Output::ReadSnapshot { socket, job } => self.told.push(format!("read {socket} at {}", job.zxid)),
                Output::Stopped => self.told.push("stopped".to_owned()),
                Output::Fatal { what } => self.told.push(format!("fatal {what}")),
                Output::Socket(_)
                | Output::StoreEpochs(_)
                | Output::ReadLog { .. }
                | Output::ReadOn { .. }
                | Output::CancelRead { .. } => {}
            }
        }
    }

    fn follow(&mut self) {
        while self.cursor.advance() {
            let block = self.cursor.block();
            for txn in &block.txns {
                self.changed.extend(block.changes(txn).iter().map(|change| block.path(change).to_owned()));
                let Some(origin) = txn.origin else { continue };
                let reply = block.reply(txn);
                let what = match (txn.session, reply.get(4..8).and_then(|bytes| bytes.first_chunk::<4>())) {
                    (SessionChange::Opened { .. }, _) => "opened".to_owned(),
                    (_, None) => "closed".to_owned(),
                    (_, Some(xid)) => {
                        let error = reply.get(16..20).and_then(|bytes| bytes.first_chunk::<4>());
                        let error = error.map_or(0, |bytes| i32::from_be_bytes(*bytes));
                        format!("{} {error}", i32::from_be_bytes(*xid))
                    }
                };
                self.heard.push((origin.connection.0, what, txn.zxid));
            }
        }
    }

    /// The disk does what it was asked for, and what comes of that.
    pub fn settle(&mut self) {
        self.step(Input::EndOfTurn);
        while !self.asked.is_empty() {
            let done = self.asked.remove(0);
            self.step(Input::Log(done));
            self.step(Input::EndOfTurn);
        }
    }

    pub fn ask(&mut self, asks: Vec<Ask>) {
        self.step(Input::Batch { shard: ShardId(0), batch: Batch { asks, ..Batch::default() } });
        self.step(Input::EndOfTurn);
    }

    /// A client connects; the id that its session will have.
    pub fn open(&mut self, connection: ConnectionId) -> SessionId {
        let session = self.core.next_session;
        self.ask(vec![Ask::OpenSession { connection, timeout_ms: TIMEOUT_MS }]);
        session
    }

    /// A client with a session, by way of the leader that the test plays. Uses one txn.
    pub fn with_client(&mut self, connection: ConnectionId, zxid: Zxid) -> SessionId {
        let session = self.open(connection);
        self.append(session, 0, zxid, &Txn::CreateSession { timeout_ms: TIMEOUT_MS });
        self.say([zab::Output::Commit { upto: zxid }]);
        self.settle();
        self.forget();
        session
    }

    pub fn write(&mut self, connection: ConnectionId, session: SessionId, xids: std::ops::Range<i32>) {
        let mut batch = Batch::default();
        for xid in xids {
            let mut frame = Vec::new();
            client_encode::create(&mut frame, xid, &format!("/n{xid}"), b"data", 0);
            // Behind the length and the header.
            add(&mut batch, connection, session, xid, OpCode::Create, &frame[12..]);
        }
        self.step(Input::Batch { shard: ShardId(0), batch });
        self.step(Input::EndOfTurn);
    }

    pub fn request(&mut self, connection: ConnectionId, session: SessionId, xid: i32, op: OpCode, body: &[u8]) {
        let mut batch = Batch::default();
        add(&mut batch, connection, session, xid, op, body);
        self.step(Input::Batch { shard: ShardId(0), batch });
        self.step(Input::EndOfTurn);
    }

    /// A txn of the leader.
    pub fn append(&mut self, session: SessionId, cxid: i32, zxid: Zxid, txn: &Txn<'_>) {
        let header = TxnHeader { session, cxid, zxid, time: WallTime(1000) };
        let mut bytes = Vec::new();
        txn::encode(&header, txn, None, &mut bytes);
        self.script().txns.insert(zxid, bytes);
        self.say([zab::Output::Append { zxid }]);
    }

    pub fn append_create(&mut self, session: SessionId, cxid: i32, zxid: Zxid) {
        self.append(session, cxid, zxid, &create(&format!("/n{cxid}")));
    }

    pub fn commit(&mut self, upto: Zxid) {
        self.say([zab::Output::Commit { upto }]);
    }
}

pub fn create(path: &str) -> Txn<'static> {
    Txn::Create(CreateTxn {
        path: path.to_owned().into(),
        data: Some(b"data".into()),
        acl: crate::types::acl::AclList::Open,
        ephemeral: false,
        parent_cversion: -1,
    })
}

fn add(batch: &mut Batch, connection: ConnectionId, session: SessionId, xid: i32, op: OpCode, body: &[u8]) {
    let start = batch.bytes.len();
    batch.bytes.extend_from_slice(body);
    let body = Span::new(start..batch.bytes.len());
    let auth = Arc::new(AuthIds::of_peer(([127, 0, 0, 1], 1).into()));
    batch.asks.push(Ask::Write(Forwarded { connection, session, xid, op, body, auth }));
}

/// A tree with so many txns of epoch 1 behind a fresh one: what a leader sends, or what the files give.
pub fn tree_upto(counter: u32, published: u32) -> Tree {
    let mut tree = Tree::fresh(tree_settings());
    let mut effects = Effects::default();
    for counter in 1..=counter {
        let zxid = Zxid::new(1, counter);
        let header = TxnHeader { zxid, ..TxnHeader::default() };
        effects.begin();
        tree.apply(&header, &create(&format!("/old-{counter}")), &mut effects);
        if counter <= published {
            tree.publish(zxid);
        }
    }
    tree
}
