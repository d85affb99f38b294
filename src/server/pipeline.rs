//! The zab core: a write's whole way, from the shard's batch to the publication, in every role.
//!
//! ```text
//! leading    Batch ─► prepare at the head, apply ─► log, Propose ─► durable, acks ─► Commit ─► publish
//! learning   Batch ─► Request ─► … leader … ─► Append ─► apply at the head, log ─► Commit ─► publish
//! looking    Batch ─► waits, and its clients are frozen, until a leader is established
//! ```
//!
//! The head is the end of the log; *committed* is a second mark behind it. What is published is committed. `leading.rs`
//! and `learning.rs` are the roles, `install.rs` what happens to tree and log between two of them, `publishing.rs` what
//! shards follow, `pending.rs` what clients wait for.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ahash::AHashMap;
use bumpalo::Bump;
use smallvec::SmallVec;

use super::errands::Agreement;
use super::install::Install;
use super::pending::Pending;
use super::reaper::Reaper;
use super::recovery::TruncateJob;
use super::snapshots::{ContainerSettings, SnapshotSchedule, SnapshotSettings, random_fraction};
use super::stalls::ShardStalls;
use crate::shard::messages::{Ask, Batch, NewStore, Tell, Told};
use crate::shard::throttle::{Admission, ConnectionThrottle, ThrottleSettings};
use crate::storage::log::{self, BLOCK_BYTES, Log, LogConfig};
use crate::storage::log_file::ENTRY_EXTRA_BYTES;
use crate::tree::Tree;
use crate::tree::effects::Effects;
use crate::tree::publication::{Block, Origin, Publisher};
use crate::tree::store::Reader as TreeReader;
use crate::types::ids::{ServerId, SessionId, ShardId};
use crate::types::limits;
use crate::types::summary::SizeStats;
use crate::types::time::{Time, WallTime};
use crate::types::zxid::Zxid;
use crate::wire::peek;
use crate::zab::leases::{Leases, SessionState};
use crate::zab::transport::{SocketId, SocketInput, SocketOutput};
use crate::zab::{self, Epochs, LogRead, RoleName, Zab};

/// The history of digests (`DataTree`): every 128th zxid, so many of them.
pub(super) const DIGEST_EVERY_MASK: u64 = 0x7f;
pub(super) const DIGESTS_MAX: usize = 1024;

/// A log that has no room for longer than this has kept clients from being heard.
const TOLERATED_PAUSE: Duration = Duration::from_millis(200);

/// Both clocks, read once per turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    pub time: Time,
    pub wall: WallTime,
}

/// What of the configuration the zab core needs.
#[derive(Clone, Debug)]
pub struct ZabSettings {
    pub server: ServerId,
    pub tick: Duration,
    /// `jute.maxbuffer` plus `jute.maxbuffer.extrasize`, bytes: longer log entries could not be read back.
    pub entry_bytes_max: usize,
    pub snapshots: SnapshotSettings,
    pub containers: ContainerSettings,
    pub log: LogConfig,
    pub connection_throttle: ThrottleSettings,
    /// `leaderServes`: a leader has clients of its own.
    pub leader_serves: bool,
    /// Seeds what is drawn at random.
    pub seed: u64,
}

/// What a member of an ensemble has besides.
pub struct Member {
    /// Its history ends where the tree does.
    pub zab: Zab,
    /// What the machine wants from its making.
    pub zab_out: Vec<zab::Output>,
    /// How many shards there are.
    pub shards: u16,
    /// What is known to be decided: the zxid of the newest snapshot.
    pub committed: Zxid,
}

/// What happened.
pub enum Input<'a, B> {
    Batch {
        shard: ShardId,
        batch: Batch,
    },
    Log(log::Input<B>),
    /// Peers.
    Socket(SocketInput<'a>),
    EpochsStored(Epochs),
    LogRead {
        socket: SocketId,
        read: Option<LogRead>,
    },
    SnapshotPiece {
        socket: SocketId,
        zxid: Zxid,
        bytes: Vec<u8>,
        is_end: bool,
    },
    /// Answer to `Truncate`: the log ends where it was to, durable, and this is the tree that the files give.
    Truncated {
        tree: Box<Tree>,
    },
    /// Answer to `Install`: the snapshot is durable under its name, and nothing behind it is left of the log.
    Installed {
        bytes: u64,
    },
    /// Everything that came with this wake-up has been stepped.
    EndOfTurn,
    SnapshotDone {
        bytes: u64,
    },
    /// This process did not run for so long: nobody's lease is to suffer for it.
    Stalled(Duration),
    Timeout,
    /// Finish what was accepted, then stop.
    Stop,
}

/// What to do.
pub enum Output<B> {
    Log(log::Output<B>),
    Tell(Told),
    /// A shard serves from another store from here on.
    Store {
        shard: ShardId,
        store: NewStore,
    },
    /// Shards have something to follow.
    Published,
    /// A spent batch goes back to its shard.
    Spent {
        shard: ShardId,
        batch: Batch,
    },
    Snapshot(SnapshotJob),
    /// Peers.
    Socket(SocketOutput),
    StoreEpochs(Epochs),
    ReadLog {
        socket: SocketId,
        after: Zxid,
        upto: Zxid,
    },
    /// Make the stream of this version, and answer with its first piece.
    ReadSnapshot {
        socket: SocketId,
        job: SnapshotJob,
    },
    /// The next piece.
    ReadOn {
        socket: SocketId,
    },
    /// Let go of what is read for this link.
    CancelRead {
        socket: SocketId,
    },
    /// After everything that was asked about files before: cut the log and recover the tree ([`super::recovery::truncate`]).
    /// The log machine has closed its files.
    Truncate(TruncateJob),
    /// After everything that was asked about files before: make the snapshot durable, cut the log behind it, give the
    /// snapshot its name, in this order. The log machine has closed its files.
    Install(SnapshotJob),
    /// Everything accepted is durable and published.
    Stopped,
    Fatal {
        what: String,
    },
}

/// A version to be written down, held by a reader of its own.
pub struct SnapshotJob {
    pub reader: TreeReader,
    pub zxid: Zxid,
    pub digest: Option<u64>,
}

/// A batch of which the log has no room for the rest, or that came while there was no leader.
pub(super) struct HeldBatch {
    shard: ShardId,
    batch: Batch,
    /// The first of its asks that waits.
    next: usize,
}

/// Where a session's client is, on this server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Attached {
    pub origin: Origin,
    pub timeout_ms: i32,
}

pub struct ZabCore<B> {
    pub(super) settings: ZabSettings,
    pub(super) tree: Tree,
    pub(super) log: Log<B>,
    pub(super) log_out: Vec<log::Output<B>>,
    pub(super) zab: Agreement,
    /// What the agreement machine wants done with tree, log and sessions, in order: room in the log may be lacking.
    pub(super) waiting: VecDeque<zab::Output>,
    /// Of the requests among them.
    pub(super) waiting_bytes: usize,
    /// So many of the next ones have what they need close at hand.
    pub(super) warmed: usize,
    pub(super) role: RoleName,
    /// The last one that was established.
    pub(super) leader: ServerId,
    /// A member of an ensemble, rather than one alone.
    pub(super) is_member: bool,
    pub(super) shards: u16,
    /// Whether there has ever been anything for clients to see.
    pub(super) has_served: bool,
    /// Shards were told to freeze.
    pub(super) is_frozen: bool,
    /// How often the agreement machine waits for the log to come to rest.
    pub(super) settling: u32,
    pub(super) install: Install,
    /// Txns of the leader that is established come behind this one.
    pub(super) epoch_start: Zxid,
    /// Everything up to here is decided.
    pub(super) committed: Zxid,
    /// Requests of own clients that are not decided: kept by members only.
    pub(super) pending: Pending,
    /// The body of one of them.
    pub(super) body: Vec<u8>,
    /// Sessions whose clients want to re-attach here, which the leader decides about.
    pub(super) revalidating: BTreeMap<SessionId, Attached>,
    pub(super) leases: Leases,
    pub(super) publisher: Publisher,
    /// The connection that each session was last attached with.
    pub(super) attached: AHashMap<SessionId, Attached>,
    pub(super) next_session: SessionId,
    /// Every shard's ConnectRequests come by here, so the limit is the server's.
    pub(super) throttle: ConnectionThrottle,
    pub(super) effects: Effects,
    pub(super) entry: Vec<u8>,
    /// For the write at hand; empty between two.
    pub(super) arena: Bump,
    pub(super) reply: Vec<u8>,
    /// At the head and not published, oldest first.
    pub(super) proposed: VecDeque<Block>,
    pub(super) committed_digest: u64,
    /// Every 128th zxid with the digest behind it, newest last (`hash`).
    pub(super) digests: VecDeque<(Zxid, u64)>,
    /// Txns that did not lead to the digest that the leader had.
    pub(super) digest_mismatches: u64,
    /// Of the txns that were proposed here, as payloads.
    pub(super) proposal_size: SizeStats,
    pub(super) snapshots: SnapshotSchedule,
    pub(super) reaper: Reaper,
    pub(super) expired: Vec<SessionId>,
    /// There is garbage, and perhaps no turn of its own accord.
    pub(super) reclaim_at: Option<Time>,
    /// While the log has no room, at most one.
    pub(super) held: VecDeque<HeldBatch>,
    /// Since when the log has had no room.
    pub(super) no_room_since: Option<Time>,
    pub(super) stalls: ShardStalls,
    pub(super) is_stopping: bool,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> ZabCore<B> {
    /// Leads an ensemble of one from a recovered tree. Every session gets its full timeout.
    pub fn standalone(
        settings: ZabSettings,
        tree: Tree,
        publisher: Publisher,
        buffers: Vec<B>,
        now: Now,
        out: &mut Vec<Output<B>>,
    ) -> ZabCore<B> {
        let head = tree.head();
        let zab = Agreement::new(Zab::standalone(settings.server, head), Vec::new());
        let mut core = ZabCore::new(settings, zab, tree, publisher, buffers, now);
        (core.role, core.has_served, core.committed) = (RoleName::Leading, true, head);
        core.track_sessions(now);
        core.start_snapshot(out);
        core.carry_out(now, out);
        core
    }

    /// Joins an ensemble. What the tree holds may be undone again, so nobody is shown anything until a leader is
    /// established.
    pub fn member(
        settings: ZabSettings,
        member: Member,
        tree: Tree,
        publisher: Publisher,
        buffers: Vec<B>,
        now: Now,
        out: &mut Vec<Output<B>>,
    ) -> ZabCore<B> {
        let zab = Agreement::new(member.zab, member.zab_out);
        let mut core = ZabCore::new(settings, zab, tree, publisher, buffers, now);
        (core.is_member, core.shards, core.committed) = (true, member.shards, member.committed);
        core.freeze(out);
        core.carry_out(now, out);
        core
    }

    fn new(
        settings: ZabSettings,
        zab: Agreement,
        tree: Tree,
        publisher: Publisher,
        buffers: Vec<B>,
        now: Now,
    ) -> ZabCore<B> {
        let head = tree.head();
        assert_eq!(tree.published(), head, "a recovered tree is published to its end");
        let mut log_out = Vec::new();
        let log = Log::new(settings.log.clone(), head, buffers, &mut log_out);
        let (committed_digest, leader) = (tree.digest(), settings.server);
        ZabCore {
            leases: Leases::new(settings.tick),
            snapshots: SnapshotSchedule::new(settings.snapshots, settings.seed),
            reaper: Reaper::new(settings.containers, now.time),
            next_session: SessionId::first(settings.server, now.wall.0),
            throttle: ConnectionThrottle::new(settings.connection_throttle, now.time),
            settings,
            tree,
            log,
            log_out,
            zab,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            warmed: 0,
            role: RoleName::Looking,
            leader,
            is_member: false,
            shards: 0,
            has_served: false,
            is_frozen: false,
            settling: 0,
            install: Install::Idle,
            epoch_start: Zxid::ZERO,
            committed: Zxid::ZERO,
            pending: Pending::default(),
            body: Vec::new(),
            revalidating: BTreeMap::new(),
            publisher,
            attached: AHashMap::new(),
            effects: Effects::default(),
            entry: Vec::new(),
            arena: Bump::new(),
            reply: Vec::new(),
            proposed: VecDeque::new(),
            committed_digest,
            digests: VecDeque::new(),
            digest_mismatches: 0,
            proposal_size: SizeStats::default(),
            expired: Vec::new(),
            reclaim_at: None,
            held: VecDeque::new(),
            no_room_since: None,
            stalls: ShardStalls::default(),
            is_stopping: false,
        }
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    pub fn zab(&self) -> &Zab {
        &self.zab.machine
    }

    pub fn role(&self) -> RoleName {
        self.role
    }

    /// Everything up to here is decided.
    pub fn committed(&self) -> Zxid {
        self.committed
    }

    pub fn digests(&self) -> impl Iterator<Item = (Zxid, u64)> + '_ {
        self.digests.iter().copied()
    }

    /// `srst`.
    pub fn reset_stats(&mut self) {
        self.proposal_size = SizeStats::default();
    }

    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    pub fn step(&mut self, now: Now, input: Input<'_, B>, out: &mut Vec<Output<B>>) {
        match input {
            Input::Batch { shard, batch } => self.on_batch(now, shard, batch, out),
            Input::Log(input) => self.log.step(now.time, input, &mut self.log_out),
            Input::Socket(input) => self.step_zab(now, zab::Input::Socket(input), out),
            Input::EpochsStored(epochs) => self.step_zab(now, zab::Input::EpochsStored(epochs), out),
            Input::LogRead { socket, read } => self.step_zab(now, zab::Input::LogRead { socket, read }, out),
            Input::SnapshotPiece { socket, zxid, bytes, is_end } => {
                self.step_zab(now, zab::Input::SnapshotPiece { socket, zxid, bytes, is_end }, out);
            }
            Input::Truncated { tree } => self.on_truncated(now, *tree, out),
            Input::Installed { bytes } => self.on_installed(now, bytes, out),
            Input::EndOfTurn => {
                self.end_turn(now, out);
                return self.look_at_shards(now, out);
            }
            Input::SnapshotDone { bytes } => {
                self.snapshots.on_done(bytes);
                self.start_work(out);
            }
            Input::Stalled(stall) => {
                self.leases.push_out(stall);
                self.step_zab(now, zab::Input::Stalled(stall), out);
            }
            Input::Timeout => self.on_timeout(now, out),
            Input::Stop => self.on_stop(now, out),
        }
        self.carry_out(now, out);
        self.go_on(now, out);
        self.look_at_shards(now, out);
    }

    /// What is published has to be followed.
    fn look_at_shards(&mut self, now: Now, out: &mut Vec<Output<B>>) {
        if self.stalls.is_stuck(now.time, self.tree.published(), || self.tree.adopted_by_all()) {
            let seconds = limits::SHARD_STALL_LIMIT.as_secs();
            let what =
                format!("a shard has not moved for {seconds} s although there is something to follow: it is dead");
            out.push(Output::Fatal { what });
        }
    }

    /// Whether a batch may come. While the log has no room their queues fill and the shards stop reading; the log's own
    /// inputs make room again.
    pub fn takes_batches(&self) -> bool {
        match self.role {
            _ if self.is_stopping => true,
            RoleName::Looking => self.held.len() < limits::HELD_BATCHES_MAX,
            RoleName::Leading => {
                self.held.is_empty() && self.waiting.is_empty() && self.has_room() && self.pending_has_room()
            }
            RoleName::Following | RoleName::Observing => self.held.is_empty() && self.pending_has_room(),
        }
    }

    /// Whether anything may come from peers. What they send waits in the kernels meanwhile.
    pub fn takes_sockets(&self) -> bool {
        self.waiting.len() < limits::ZAB_WAITING_MAX && self.waiting_bytes < limits::ZAB_WAITING_BYTES_MAX
    }

    fn pending_has_room(&self) -> bool {
        self.pending.bytes() < limits::PENDING_BYTES_MAX
    }

    pub(super) fn has_room(&self) -> bool {
        self.log.has_room(self.settings.entry_bytes_max + ENTRY_EXTRA_BYTES)
    }

    /// When `Timeout` should come.
    pub fn deadline(&self) -> Option<Time> {
        // What a stopping server would no longer do must not wake it.
        let logged = match self.role == RoleName::Leading && self.has_room() && !self.is_stopping {
            true => [self.leases.next_deadline(), Some(self.reaper.deadline())],
            false => [None, None],
        };
        let others = [self.log.deadline(), self.reclaim_at, self.stalls.deadline(), self.zab.machine.deadline()];
        logged.into_iter().chain(others).flatten().min()
    }

    fn on_batch(&mut self, now: Now, shard: ShardId, mut batch: Batch, out: &mut Vec<Output<B>>) {
        self.on_touched(now, &batch.touched);
        if self.role != RoleName::Looking || self.is_stopping {
            return self.work_off(now, HeldBatch { shard, batch, next: 0 }, out);
        }
        // Who is gone is known at once: what it asked for is not handed over to the next leader.
        let mut waits = false;
        for ask in &batch.asks {
            match *ask {
                Ask::Detached { connection, session } => self.detach(Origin { shard, connection }, session),
                Ask::Write(_) | Ask::OpenSession { .. } | Ask::RenewSession { .. } => waits = true,
            }
        }
        if waits {
            return self.held.push_back(HeldBatch { shard, batch, next: 0 });
        }
        batch.clear();
        out.push(Output::Spent { shard, batch });
    }

    fn on_touched(&mut self, now: Now, touched: &[SessionId]) {
        match self.role {
            RoleName::Leading => touched.iter().for_each(|session| _ = self.leases.touch(now.time, *session)),
            RoleName::Following | RoleName::Observing => self.pass_touches_on(now, touched),
            RoleName::Looking => {}
        }
    }

    /// Works a batch off, as far as the log has room. A few bytes of request can become a long entry (the ephemerals of
    /// a session, the ids behind `auth`), so each is looked at alone.
    fn work_off(&mut self, now: Now, held: HeldBatch, out: &mut Vec<Output<B>>) {
        let HeldBatch { shard, mut batch, next } = held;
        for (at, ask) in batch.asks.iter().enumerate().skip(next) {
            if (at - next) % limits::WARMED_AT_ONCE == 0 {
                self.warm(&batch, at);
            }
            if !self.zab.out.is_empty() {
                self.carry_out(now, out);
            }
            if !self.may_work(now) {
                self.held.push_front(HeldBatch { shard, batch, next: at });
                return;
            }
            match ask {
                Ask::Write(request) => {
                    let origin = Origin { shard, connection: request.connection };
                    self.on_write(now, origin, request, &batch.bytes[request.body.range()], out);
                }
                &Ask::OpenSession { connection, timeout_ms } => {
                    let origin = Origin { shard, connection };
                    if self.lets_in(now, origin, Admission::GlobalSession, out) {
                        self.open_session(now, Attached { origin, timeout_ms });
                    }
                }
                &Ask::RenewSession { connection, session, timeout_ms } => {
                    let origin = Origin { shard, connection };
                    if self.lets_in(now, origin, Admission::RenewSession, out) {
                        self.renew_session(now, Attached { origin, timeout_ms }, session, out);
                    }
                }
                &Ask::Detached { connection, session } => self.detach(Origin { shard, connection }, session),
            }
        }
        batch.clear();
        out.push(Output::Spent { shard, batch });
    }

    /// Whether the next ask may be looked at.
    fn may_work(&mut self, now: Now) -> bool {
        match self.role {
            _ if self.is_stopping => true,
            RoleName::Looking => false,
            RoleName::Following | RoleName::Observing => true,
            RoleName::Leading => {
                let has_room = self.has_room();
                if !has_room {
                    self.no_room_since.get_or_insert(now.time);
                }
                has_room
            }
        }
    }

    fn detach(&mut self, origin: Origin, session: SessionId) {
        if self.is_attached(session, origin) {
            self.attached.remove(&session);
        }
    }

    /// Whether this connection is where the session was last attached.
    pub(super) fn is_attached(&self, session: SessionId, origin: Origin) -> bool {
        self.attached.get(&session).is_some_and(|attached| attached.origin == origin)
    }

    /// Fetches from memory what the writes from `at` on will look at.
    fn warm(&self, batch: &Batch, at: usize) {
        let path = |ask: &Ask| match ask {
            Ask::Write(request) => peek::first_path(&batch.bytes[request.body.range()]),
            Ask::OpenSession { .. } | Ask::RenewSession { .. } | Ask::Detached { .. } => None,
        };
        if self.role != RoleName::Leading {
            return;
        }
        // Parents of creates are few and at hand; what is not there costs one look at the index.
        let paths: SmallVec<[&str; limits::WARMED_AT_ONCE]> =
            SmallVec::from_iter(batch.asks[at..].iter().take(limits::WARMED_AT_ONCE).filter_map(path));
        if paths.len() > 1 {
            self.tree.warm(&paths);
        }
    }

    /// Goes on with what waited: for the log, or for a leader. Who could not be heard meanwhile gets the time back.
    fn go_on(&mut self, now: Now, out: &mut Vec<Output<B>>) {
        if !self.is_stopping && self.role == RoleName::Leading && !self.has_room() {
            self.no_room_since.get_or_insert(now.time);
            return;
        }
        if let Some(since) = self.no_room_since.take() {
            let pause = now.time.saturating_since(since);
            if pause > TOLERATED_PAUSE {
                tracing::warn!(pause_ms = pause.as_millis() as u64, "the log took nothing; sessions get the time back");
                self.leases.push_out(pause);
            }
        }
        if self.role == RoleName::Leading && self.pending.has_unanswered() {
            self.prepare_again(now, out);
        }
        // Whatever is held again is put in front.
        let mut left = self.held.len();
        while left > 0 && self.may_take_held(now) {
            left -= 1;
            let Some(held) = self.held.pop_front() else { return };
            self.work_off(now, held, out);
        }
    }

    /// Nobody waits any more for what they ask.
    pub(super) fn give_back_held(&mut self, out: &mut Vec<Output<B>>) {
        for HeldBatch { shard, mut batch, .. } in self.held.drain(..) {
            batch.clear();
            out.push(Output::Spent { shard, batch });
        }
    }

    fn may_take_held(&mut self, now: Now) -> bool {
        let waits_for_others = self.role == RoleName::Leading && self.pending.has_unanswered();
        self.is_stopping || (!waits_for_others && self.may_work(now))
    }

    /// Who is turned away hears nothing: its connection closes, and it tries again elsewhere or later.
    fn lets_in(&mut self, now: Now, origin: Origin, admission: Admission, out: &mut Vec<Output<B>>) -> bool {
        // A session that is opened has to be closed as well, and both go into the log.
        let has_space = admission != Admission::GlobalSession || self.log.accepts_sessions();
        let is_let_in =
            has_space && self.throttle.admit(now.time, admission, || random_fraction(&mut self.settings.seed));
        if !is_let_in {
            let tell = Tell::TurnedAway { connection: origin.connection };
            out.push(Output::Tell(Told { shard: origin.shard, tell }));
        }
        is_let_in
    }

    fn end_turn(&mut self, now: Now, out: &mut Vec<Output<B>>) {
        self.close_block();
        self.log.step(now.time, log::Input::Submit, &mut self.log_out);
        self.carry_out(now, out);
        if self.snapshots.is_due() && self.may_take_snapshot() {
            self.start_snapshot(out);
            self.log.step(now.time, log::Input::Roll, &mut self.log_out);
            self.carry_out(now, out);
        }
        // What the end of a turn brings about may give peers something to hear in its turn.
        while self.is_member && self.zab.end_turn(now.time) {
            self.carry_out(now, out);
        }
        self.reclaim(now);
    }

    fn on_timeout(&mut self, now: Now, out: &mut Vec<Output<B>>) {
        self.step_zab(now, zab::Input::Timeout, out);
        self.log.step(now.time, log::Input::Timeout, &mut self.log_out);
        self.carry_out(now, out);
        self.go_on(now, out);
        if self.role == RoleName::Leading && !self.is_stopping {
            self.expire(now, out);
        }
    }

    fn on_stop(&mut self, now: Now, out: &mut Vec<Output<B>>) {
        self.is_stopping = true;
        self.close_block();
        match self.is_member {
            // What is on its way may still be decided; the log is closed when nobody needs it any more.
            true => self.step_zab(now, zab::Input::Stop, out),
            false => self.log.step(now.time, log::Input::Stop, &mut self.log_out),
        }
    }

    pub(super) fn on_zab_stopped(&mut self, now: Now, out: &mut Vec<Output<B>>) {
        match self.install.is_idle() {
            true => self.log.step(now.time, log::Input::Stop, &mut self.log_out),
            // What is being done to the files can be broken off at any time.
            false => out.push(Output::Stopped),
        }
    }

    /// What a session is worth, for those who ask from outside.
    pub fn session_state(&self, session: SessionId) -> SessionState {
        self.leases.state(session)
    }
}

/// Bytes of the log that may be on their way to the disk, for recovery: more than [`limits::LOG_IN_FLIGHT_BYTES_MAX`]
/// only if a single entry may be longer (`jute.maxbuffer`).
pub fn in_flight_bytes_max(entry_bytes_max: usize) -> usize {
    limits::LOG_IN_FLIGHT_BYTES_MAX.max(entry_bytes_max + ENTRY_EXTRA_BYTES + 2 * BLOCK_BYTES)
}

#[cfg(test)]
mod tests;
