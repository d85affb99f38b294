//! A small ensemble in memory: whole machines, a network that delays, disks that forget what was not flushed, and a fake
//! core without a tree. Checks after every step what must hold between servers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::history::{History, HistoryLimits};
use super::quorum::Ensemble;
use super::settings::Settings;
use super::transport::{Port, SocketId, SocketInput, SocketOutput};
use super::{
    Epochs, Input, LearnerRequest, LogRead, Output, OwnedRequest, RoleName, Zab, election, election_links,
    election_port,
};
use crate::config::{HostPort, Member, Membership, Role};
use crate::types::acl::Id;
use crate::types::ids::{ServerId, SessionId};
use crate::types::time::{Time, WallTime};
use crate::types::zxid::Zxid;
use crate::wire;
use crate::wire::jute::{Reader, Write};
use crate::wire::quorum::{Features, Heartbeats};
use crate::wire::txn::TxnHeader;

mod trace;

pub use trace::Trace;

pub const QUORUM_PORT: u16 = 2888;
pub const ELECTION_PORT: u16 = 3888;

/// As `Settings::of` makes them for an ordinary zoo.cfg.
pub fn settings(server: i64) -> Settings {
    let me = ServerId(server);
    let features = Features {
        cumulative_acks: true,
        heartbeats: Some(Heartbeats { interval_ms: 25, timeout_ms: 100 }),
        batched_proposals: true,
        commit_index: true,
        hand_over: true,
    };
    let extension = features.to_extension().with_identity(server as u64, "test");
    Settings {
        server: me,
        is_observer: false,
        tick: Duration::from_secs(2),
        init_limit: Duration::from_secs(20),
        sync_limit: Duration::from_secs(10),
        connect_limit: Duration::from_secs(20),
        connect_retry: Duration::from_millis(15),
        discovery_limit: Duration::from_secs(3),
        packet_bytes_max: 2 << 20,
        history: HistoryLimits::default(),
        features,
        boot_nonce: server as u64,
        force_snapshot_sync: false,
        snapshot_syncs_max: 10,
        diff_syncs_max: 100,
        election: election_port::Settings {
            election: election::Settings {
                me,
                is_observer: false,
                grace: Duration::from_millis(15),
                notification_interval_min: Duration::from_millis(200),
                notification_interval_max: Duration::from_secs(60),
                extension: Some(extension),
            },
            links: election_links::Settings { me, has_many_addresses: false, connect_limit: Duration::from_secs(5) },
        },
    }
}

/// Voters `1..=voters`, then observers.
pub fn ensemble(voters: i64, observers: i64) -> Ensemble {
    let mut membership = Membership::default();
    for id in 1..=voters + observers {
        let line = format!("s{id}:{QUORUM_PORT}:{ELECTION_PORT}");
        let mut member = Member::parse(ServerId(id), &line, false).unwrap();
        member.role = if id > voters { Role::Observer } else { Role::Participant };
        membership.members.insert(ServerId(id), member);
    }
    Ensemble::new(membership).unwrap()
}

/// A txn that every decoder reads and that no other is equal to.
fn txn(zxid: Zxid, session: SessionId, cxid: i32, salt: i64) -> Vec<u8> {
    let header = TxnHeader { session, cxid, zxid, time: WallTime(salt) };
    let mut out = Vec::new();
    header.write(-1, &mut out);
    out.put_i32(-101);
    out
}

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

pub type Txns = Vec<(Zxid, Vec<u8>)>;

/// What a server has on its disk, and what is on its way there.
#[derive(Default)]
struct Disk {
    /// A snapshot up to this zxid, as the txns that made it.
    image: (Zxid, Txns),
    log: Txns,
    /// So many entries of the log are durable.
    durable: usize,
    epochs: Epochs,
}

impl Disk {
    fn last(&self) -> Zxid {
        self.log.last().map_or(self.image.0, |(zxid, _)| *zxid)
    }

    fn all(&self) -> impl Iterator<Item = &(Zxid, Vec<u8>)> {
        self.image.1.iter().chain(&self.log)
    }

    fn durable(&self) -> impl Iterator<Item = &(Zxid, Vec<u8>)> {
        self.image.1.iter().chain(&self.log[..self.durable])
    }
}

pub struct Server {
    pub zab: Option<Zab>,
    disk: Disk,
    /// Counts starts: what belongs to an earlier one is dropped.
    boot: u64,
    /// Published, as the core of this boot says.
    pub published: Zxid,
    /// The next txn, while it leads and serves.
    pub next: Option<Zxid>,
    pub is_frozen: bool,
    loading: Option<(Zxid, Vec<u8>)>,
    /// Pieces of a tree that wait to be asked for, by link.
    reading: BTreeMap<SocketId, (Zxid, Vec<u8>)>,
    next_accepted: u64,
    timer: Option<Time>,
    /// Writes under way, in order.
    busy_until: Time,
    wants_end: bool,
    /// What it passed on for its clients and has no answer to, oldest first.
    pending: VecDeque<(i32, i32)>,
    next_cxid: i32,
    pub answered: usize,
}

enum Event {
    Timer,
    EndOfTurn,
    Accepted { socket: SocketId, port: Port },
    Connected { socket: SocketId },
    Received { socket: SocketId, bytes: Vec<u8> },
    Unsent { socket: SocketId },
    Closed { socket: SocketId, is_refused: bool },
    Flushed { entries: usize },
    Settled,
    EpochsStored(Epochs),
    Installed,
    LoadFailed,
    LogRead { socket: SocketId, read: Option<LogRead> },
    Piece { socket: SocketId },
}

/// One end of a connection.
struct End {
    peer: (i64, SocketId),
    /// What is sent next arrives no sooner.
    arrives: Time,
    unsent: usize,
}

pub struct World {
    pub now: Time,
    pub servers: BTreeMap<i64, Server>,
    pub ensemble: Ensemble,
    pub random: Random,
    events: BTreeMap<(Time, u64), (i64, u64, Event)>,
    sequence: u64,
    ends: BTreeMap<(i64, SocketId), End>,
    /// Pairs that cannot reach each other: what they send waits.
    pub cut: BTreeSet<(i64, i64)>,
    /// Everything that was ever decided, in order.
    pub decided: Txns,
    leaders: BTreeMap<u32, i64>,
    salt: i64,
    pub has_extensions: bool,
    pub limits: HistoryLimits,
    /// Says every input and output.
    pub prints: bool,
    /// The same, kept, with the packets of the quorum port instead of bytes.
    pub trace: Option<Trace>,
}

impl World {
    pub fn new(voters: i64, observers: i64, seed: u64) -> World {
        let servers = (1..=voters + observers).map(|id| (id, Server::new())).collect();
        World {
            now: Time::from_ms(1000),
            servers,
            ensemble: ensemble(voters, observers),
            random: Random(seed),
            events: BTreeMap::new(),
            sequence: 0,
            ends: BTreeMap::new(),
            cut: BTreeSet::new(),
            decided: Vec::new(),
            leaders: BTreeMap::new(),
            salt: 0,
            has_extensions: true,
            limits: HistoryLimits { txns_kept: 8, bytes_kept: 0, bytes_max: 1 << 20 },
            prints: false,
            trace: None,
        }
    }

    pub fn start(&mut self, id: i64) {
        let mut settings = settings(id);
        settings.history = self.limits;
        settings.is_observer = !self.ensemble.quorum().contains(ServerId(id));
        settings.election.election.is_observer = settings.is_observer;
        if !self.has_extensions {
            settings = settings.without_extensions();
        }
        let server = self.servers.get_mut(&id).unwrap();
        assert!(server.zab.is_none());
        server.boot += 1;
        server.disk.durable = server.disk.log.len();
        // What a crash between the history and the epoch leaves behind (reference, part B).
        let epochs = &mut server.disk.epochs;
        let epoch = server.disk.log.last().map_or(server.disk.image.0, |(zxid, _)| *zxid).epoch();
        epochs.current = epochs.current.max(epoch);
        assert!(epochs.current <= epochs.accepted, "{id}: {epochs:?}");
        server.published = server.disk.last();
        let mut history = History::new(server.disk.image.0, settings.history);
        server.disk.log.iter().for_each(|(zxid, txn)| history.append(*zxid, txn));
        let mut out = Vec::new();
        let epochs = server.disk.epochs;
        server.zab = Some(Zab::member(settings, self.ensemble.clone(), history, epochs, &mut out));
        server.is_frozen = true;
        server.busy_until = self.now;
        self.carry_out(id, out);
    }

    /// The process is gone, and with it what was not flushed.
    pub fn crash(&mut self, id: i64) {
        let server = self.servers.get_mut(&id).unwrap();
        server.zab = None;
        server.next = None;
        server.timer = None;
        server.loading = None;
        server.reading.clear();
        let durable = server.disk.durable;
        server.disk.log.truncate(durable);
        server.boot += 1;
        let open: Vec<_> = self.ends.keys().filter(|(owner, _)| *owner == id).copied().collect();
        for end in open {
            self.close(end, true);
        }
    }

    pub fn is_up(&self, id: i64) -> bool {
        self.servers[&id].zab.is_some()
    }

    pub fn zab(&self, id: i64) -> &Zab {
        self.servers[&id].zab.as_ref().expect("it runs")
    }

    /// Who serves as the leader.
    pub fn leader(&self) -> Option<i64> {
        let serves = |server: &Server| server.next.is_some() && !server.is_frozen;
        self.servers.iter().filter(|(_, server)| serves(server)).map(|(id, _)| *id).next_back()
    }

    pub fn propose(&mut self, id: i64) -> Option<Zxid> {
        self.propose_for(id, SessionId(0), 0)
    }

    fn propose_for(&mut self, id: i64, session: SessionId, cxid: i32) -> Option<Zxid> {
        self.salt += 1;
        let salt = self.salt;
        let server = self.servers.get_mut(&id)?;
        let zxid = server.next.filter(|_| !server.is_frozen)?;
        server.next = Some(zxid.next());
        let bytes = txn(zxid, session, cxid, salt);
        server.disk.log.push((zxid, bytes.clone()));
        self.write(id);
        self.step(id, Input::Propose { zxid, txn: &bytes });
        Some(zxid)
    }

    /// A client of a learner asks for a write or, with op 9, for a sync.
    pub fn request(&mut self, id: i64, op: i32) {
        let server = self.servers.get_mut(&id).unwrap();
        if server.is_frozen || server.next.is_some() || server.zab.is_none() {
            return;
        }
        let cxid = server.next_cxid;
        server.next_cxid += 1;
        server.pending.push_back((cxid, op));
        let request = LearnerRequest { session: SessionId(id), cxid, op, body: b"", auth: &[Id::new("ip", "::1")] };
        self.step(id, Input::Request(request));
    }

    /// What a learner's client asked for has its turn.
    fn on_request(&mut self, id: i64, socket: SocketId, request: &OwnedRequest) {
        if request.op == 9 {
            self.step(id, Input::Sync { socket });
        } else {
            self.propose_for(id, request.session, request.cxid);
        }
    }

    /// Answers come in the order of the requests (J-11, rules 8 and 9).
    fn answer(&mut self, id: i64, is_answer: impl Fn(&(i32, i32)) -> bool) {
        let server = self.servers.get_mut(&id).unwrap();
        if server.pending.iter().any(&is_answer) {
            let first = server.pending.pop_front();
            assert!(first.as_ref().is_some_and(is_answer), "{id}: {first:?} is answered out of its turn");
            server.answered += 1;
        }
    }

    /// Old entries of the log make way for an image of what is decided.
    pub fn purge(&mut self, id: i64) {
        let server = self.servers.get_mut(&id).unwrap();
        let Some(zab) = &server.zab else { return };
        let upto = zab.committed().min(server.published);
        let disk = &mut server.disk;
        let count = disk.log[..disk.durable].iter().take_while(|(zxid, _)| *zxid <= upto).count();
        if count == 0 || server.loading.is_some() {
            return;
        }
        disk.image.1.extend(disk.log.drain(..count));
        disk.image.0 = disk.image.1.last().unwrap().0;
        disk.durable -= count;
    }

    pub fn run(&mut self, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        while let Some((&(at, _), _)) = self.events.first_key_value()
            && at <= until
        {
            let ((at, _), (id, boot, event)) = self.events.pop_first().unwrap();
            self.now = self.now.max(at);
            if self.servers[&id].boot == boot {
                self.happen(id, event);
            }
        }
        self.now = until;
    }

    /// Runs until `is` so. Panics if it does not become so.
    pub fn run_until(&mut self, what: &str, is: impl Fn(&World) -> bool) {
        for _ in 0..20_000 {
            if is(self) {
                return;
            }
            self.run(2);
        }
        panic!("never: {what}");
    }

    pub fn input(&mut self, id: i64, input: Input<'_>) {
        self.step(id, input);
    }

    // Machinery.

    fn at(&mut self, at: Time, id: i64, event: Event) {
        self.sequence += 1;
        let boot = self.servers[&id].boot;
        self.events.insert((at.max(self.now), self.sequence), (id, boot, event));
    }

    fn micros(&mut self, least: u64, spread: u64) -> Duration {
        Duration::from_micros(least + self.random.below(spread))
    }

    /// Everything logged so far is flushed a little later.
    fn write(&mut self, id: i64) {
        let took = self.micros(100, 1500);
        let server = self.servers.get_mut(&id).unwrap();
        let done = server.busy_until.max(self.now) + took;
        server.busy_until = done;
        let entries = server.disk.log.len();
        self.at(done, id, Event::Flushed { entries });
    }

    fn step(&mut self, id: i64, input: Input<'_>) {
        let is_end = matches!(input, Input::EndOfTurn);
        if self.prints && !is_end {
            println!("{} {id} < {input}", self.now.0 / 1000);
        }
        if let Some(trace) = &mut self.trace {
            trace.on_input(self.now, id, &input);
        }
        let Some(server) = self.servers.get_mut(&id) else { return };
        let Some(zab) = &mut server.zab else { return };
        let mut out = Vec::new();
        zab.step(self.now, input, &mut out);
        self.carry_out(id, out);
        let server = self.servers.get_mut(&id).unwrap();
        if !is_end && !std::mem::replace(&mut server.wants_end, true) {
            self.at(self.now, id, Event::EndOfTurn);
        }
        self.set_timer(id);
        self.check();
    }

    fn set_timer(&mut self, id: i64) {
        let server = self.servers.get_mut(&id).unwrap();
        let deadline = server.zab.as_ref().and_then(Zab::deadline);
        if deadline != server.timer {
            server.timer = deadline;
            if let Some(at) = deadline {
                self.at(at, id, Event::Timer);
            }
        }
    }

    fn happen(&mut self, id: i64, event: Event) {
        match event {
            Event::Timer => {
                let server = self.servers.get_mut(&id).unwrap();
                if server.timer.is_some_and(|at| at <= self.now) {
                    server.timer = None;
                    self.step(id, Input::Timeout);
                }
            }
            Event::EndOfTurn => {
                self.servers.get_mut(&id).unwrap().wants_end = false;
                self.step(id, Input::EndOfTurn);
            }
            Event::Accepted { socket, port } => {
                self.step(id, Input::Socket(SocketInput::Accepted { socket, port }));
            }
            Event::Connected { socket } => self.step(id, Input::Socket(SocketInput::Connected { socket })),
            Event::Received { socket, bytes } => {
                if self.ends.contains_key(&(id, socket)) {
                    self.step(id, Input::Socket(SocketInput::Received { socket, bytes: &bytes }));
                }
            }
            Event::Unsent { socket } => {
                if let Some(end) = self.ends.get_mut(&(id, socket)) {
                    end.unsent = 0;
                    self.step(id, Input::Socket(SocketInput::Unsent { socket, bytes: 0 }));
                }
            }
            Event::Closed { socket, is_refused } => {
                self.ends.remove(&(id, socket));
                self.step(id, Input::Socket(SocketInput::Closed { socket, is_refused }));
            }
            Event::Flushed { entries } => {
                let disk = &mut self.servers.get_mut(&id).unwrap().disk;
                let entries = entries.min(disk.log.len());
                if entries > disk.durable {
                    disk.durable = entries;
                    let upto = disk.log[entries - 1].0;
                    self.step(id, Input::Flushed { upto });
                }
            }
            Event::Settled => {
                let server = self.servers.get_mut(&id).unwrap();
                server.disk.durable = server.disk.log.len();
                let (last, committed) = (server.disk.last(), server.disk.image.0);
                self.step(id, Input::Settled { last, committed });
            }
            Event::EpochsStored(epochs) => {
                self.servers.get_mut(&id).unwrap().disk.epochs = epochs;
                self.step(id, Input::EpochsStored(epochs));
            }
            Event::Installed => {
                let last = self.servers[&id].disk.last();
                self.step(id, Input::Installed { last });
            }
            Event::LoadFailed => self.step(id, Input::LoadFailed { what: "too old".to_owned() }),
            Event::LogRead { socket, read } => self.step(id, Input::LogRead { socket, read }),
            Event::Piece { socket } => {
                let server = self.servers.get_mut(&id).unwrap();
                let Some((zxid, bytes)) = server.reading.get_mut(&socket) else { return };
                let (zxid, rest) = (*zxid, bytes.split_off(bytes.len().min(200)));
                let bytes = std::mem::replace(bytes, rest);
                let is_end = server.reading[&socket].1.is_empty();
                self.step(id, Input::SnapshotPiece { socket, zxid, bytes, is_end });
            }
        }
    }

    fn carry_out(&mut self, id: i64, out: Vec<Output>) {
        for output in out {
            if self.prints {
                println!("{} {id} > {output}", self.now.0 / 1000);
            }
            if let Some(trace) = &mut self.trace {
                trace.on_output(self.now, id, &output);
            }
            match output {
                Output::Socket(output) => self.on_socket_output(id, output),
                Output::Settle => {
                    let server = self.servers.get_mut(&id).unwrap();
                    server.is_frozen = true;
                    server.next = None;
                    server.pending.clear();
                    server.loading = None;
                    let at = server.busy_until.max(self.now);
                    self.at(at, id, Event::Settled);
                }
                Output::StoreEpochs(epochs) => {
                    let at = self.now + self.micros(100, 1500);
                    self.at(at, id, Event::EpochsStored(epochs));
                }
                Output::Append { zxid } => {
                    let server = self.servers.get_mut(&id).unwrap();
                    let bytes = server.zab.as_ref().unwrap().history().txn(zxid).unwrap().to_vec();
                    server.disk.log.push((zxid, bytes));
                    self.write(id);
                }
                Output::Commit { upto } => self.on_commit(id, upto),
                Output::Truncate { to } => self.on_truncate(id, to),
                Output::LoadBegin { zxid } => self.servers.get_mut(&id).unwrap().loading = Some((zxid, Vec::new())),
                Output::LoadPiece { bytes } => {
                    let loading = &mut self.servers.get_mut(&id).unwrap().loading;
                    loading.as_mut().expect("a load has begun").1.extend(bytes);
                }
                Output::LoadEnd => self.on_load_end(id),
                Output::Established { role, zxid, .. } => self.on_established(id, role, zxid),
                Output::ReadLog { socket, after, upto } => {
                    let read = self.read_log(id, after, upto);
                    let at = self.now + self.micros(100, 1000);
                    self.at(at, id, Event::LogRead { socket, read });
                }
                Output::ReadSnapshot { socket } => {
                    let server = self.servers.get_mut(&id).unwrap();
                    let upto = if server.next.is_none() { server.disk.last() } else { server.published };
                    let image = server.disk.all().filter(|(zxid, _)| *zxid <= upto);
                    let stream = (upto, image_stream(image));
                    server.reading.insert(socket, stream);
                    self.at(self.now, id, Event::Piece { socket });
                }
                Output::ReadOn { socket } => self.at(self.now, id, Event::Piece { socket }),
                Output::CancelRead { socket } => {
                    self.servers.get_mut(&id).unwrap().reading.remove(&socket);
                }
                Output::Stopped => self.crash(id),
                Output::Fatal { what } => panic!("{what}"),
                Output::Request { socket, request } => self.on_request(id, socket, &request),
                Output::Revalidate { socket, session, .. } => {
                    self.step(id, Input::Revalidated { socket, session, is_alive: session.0 > 0 });
                }
                Output::Synced => self.answer(id, |(_, op)| *op == 9),
                Output::Touch { .. } | Output::Revalidated { .. } | Output::LinkClosed { .. } => {}
            }
        }
    }

    fn on_truncate(&mut self, id: i64, to: Zxid) {
        let server = self.servers.get_mut(&id).unwrap();
        let disk = &mut server.disk;
        if to < disk.image.0 {
            return self.at(self.now, id, Event::LoadFailed);
        }
        disk.log.retain(|(zxid, _)| *zxid <= to);
        disk.durable = disk.log.len();
        server.published = server.published.min(to);
        let at = self.now + self.micros(500, 5000);
        self.at(at, id, Event::Installed);
    }

    fn on_load_end(&mut self, id: i64) {
        let server = self.servers.get_mut(&id).unwrap();
        let (zxid, bytes) = server.loading.take().expect("a load has begun");
        server.disk.image = (zxid, image_of(&bytes));
        server.disk.log.clear();
        server.disk.durable = 0;
        server.published = zxid;
        let at = self.now + self.micros(500, 5000);
        self.at(at, id, Event::Installed);
    }

    fn read_log(&self, id: i64, after: Zxid, upto: Zxid) -> Option<LogRead> {
        let disk = &self.servers[&id].disk;
        let (previous, _) =
            disk.log.iter().rfind(|(zxid, _)| *zxid <= after).cloned().unwrap_or((disk.image.0, vec![]));
        let txns = disk.log.iter().filter(|(zxid, _)| *zxid > after && *zxid <= upto).take(3).cloned().collect();
        (previous <= after).then_some(LogRead { previous, txns })
    }

    fn on_established(&mut self, id: i64, role: RoleName, zxid: Zxid) {
        let server = self.servers.get_mut(&id).unwrap();
        server.is_frozen = false;
        server.next = (role == RoleName::Leading).then(|| zxid.next());
        if role == RoleName::Leading {
            let first = *self.leaders.entry(zxid.epoch()).or_insert(id);
            assert_eq!(first, id, "two leaders of epoch {} (Leadership2)", zxid.epoch());
            let all: Txns = server.disk.all().cloned().collect();
            assert!(all.starts_with(&self.decided), "{id} leads without all that is decided (PrimaryIntegrity)");
        }
    }

    /// What is decided is durable on a quorum, and the same everywhere.
    fn on_commit(&mut self, id: i64, upto: Zxid) {
        let before = std::mem::replace(&mut self.servers.get_mut(&id).unwrap().published, upto);
        let all: Txns = self.servers[&id].disk.all().filter(|(zxid, _)| *zxid <= upto).cloned().collect();
        let known = all.len().min(self.decided.len());
        assert_eq!(all[..known], self.decided[..known], "{id} decides another history (PrefixConsistency)");
        for entry in &all[known..] {
            let has = |server: ServerId| {
                self.servers.get(&server.0).is_some_and(|server| server.disk.durable().any(|other| other == entry))
            };
            assert!(self.ensemble.quorum().is_quorum(has), "{id} decides {}, which no quorum has (J-03)", entry.0);
        }
        self.decided.extend_from_slice(&all[known..]);
        for (_, txn) in all.iter().filter(|(zxid, _)| *zxid > before) {
            let header = wire::txn::decode(txn).unwrap().header;
            if header.session == SessionId(id) {
                self.answer(id, |(cxid, op)| *cxid == header.cxid && *op != 9);
            }
        }
    }

    fn check(&self) {
        for (id, server) in &self.servers {
            let Some(zab) = &server.zab else { continue };
            if server.loading.is_none() {
                assert!(zab.committed() <= zab.history().last(), "{id}");
            }
            let epochs = server.disk.epochs;
            assert!(epochs.current <= epochs.accepted, "{id}: J-01");
        }
    }

    // The network.

    fn is_cut(&self, a: i64, b: i64) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    /// Cuts a pair off from each other. Their connections break, each end at once.
    pub fn cut_off(&mut self, a: i64, b: i64) {
        self.cut.insert((a.min(b), a.max(b)));
        let between = |end: &(&(i64, SocketId), &End)| end.0.0 == a && end.1.peer.0 == b;
        let open: Vec<_> = self.ends.iter().filter(between).map(|(end, _)| *end).collect();
        for end in open {
            self.close(end, true);
            self.at(self.now, end.0, Event::Closed { socket: end.1, is_refused: false });
        }
    }

    fn on_socket_output(&mut self, id: i64, output: SocketOutput) {
        match output {
            SocketOutput::Connect { socket, addresses } => self.connect(id, socket, &addresses),
            SocketOutput::Send { socket, bytes } => {
                let took = self.micros(50, 300);
                let Some(end) = self.ends.get_mut(&(id, socket)) else { return };
                end.arrives = end.arrives.max(self.now + took);
                end.unsent += bytes.len();
                let ((peer, peer_socket), at) = (end.peer, end.arrives);
                if self.ends.contains_key(&(peer, peer_socket)) {
                    // Boundaries of writes mean nothing.
                    let cut = self.random.below(bytes.len() as u64 + 1) as usize;
                    let (head, tail) = bytes.split_at(cut);
                    for part in [head, tail].into_iter().filter(|part| !part.is_empty()) {
                        self.at(at, peer, Event::Received { socket: peer_socket, bytes: part.to_vec() });
                    }
                    self.at(at, id, Event::Unsent { socket });
                }
            }
            SocketOutput::Hold { .. } => {}
            SocketOutput::Close { socket, .. } => self.close((id, socket), false),
        }
    }

    fn connect(&mut self, id: i64, socket: SocketId, addresses: &[HostPort]) {
        let address = addresses.first().expect("a member has an address");
        let peer: i64 = address.host[1..].parse().unwrap();
        let at = self.now + self.micros(50, 300);
        if self.is_cut(id, peer) {
            return self.at(at, id, Event::Closed { socket, is_refused: false });
        }
        if !self.is_up(peer) {
            return self.at(at, id, Event::Closed { socket, is_refused: true });
        }
        let port = if address.port == QUORUM_PORT { Port::Quorum } else { Port::Election };
        let server = self.servers.get_mut(&peer).unwrap();
        let accepted = SocketId(server.next_accepted);
        server.next_accepted += 2;
        if let Some(trace) = &mut self.trace
            && port == Port::Quorum
        {
            trace.on_link((id, socket), (peer, accepted));
        }
        self.ends.insert((id, socket), End { peer: (peer, accepted), arrives: at, unsent: 0 });
        self.ends.insert((peer, accepted), End { peer: (id, socket), arrives: at, unsent: 0 });
        self.at(at, peer, Event::Accepted { socket: accepted, port });
        self.at(at, id, Event::Connected { socket });
    }

    /// The owner closes; the other end hears of it behind what was sent.
    fn close(&mut self, end: (i64, SocketId), is_refused: bool) {
        let Some(mine) = self.ends.remove(&end) else { return };
        let (peer, socket) = mine.peer;
        if self.ends.contains_key(&mine.peer) && self.is_up(peer) {
            let at = mine.arrives.max(self.now + Duration::from_micros(50));
            self.at(at, peer, Event::Closed { socket, is_refused });
        }
    }
}

impl Server {
    fn new() -> Server {
        Server {
            zab: None,
            disk: Disk::default(),
            boot: 0,
            published: Zxid::ZERO,
            next: None,
            is_frozen: true,
            loading: None,
            reading: BTreeMap::new(),
            next_accepted: 1,
            timer: None,
            busy_until: Time(0),
            wants_end: false,
            pending: VecDeque::new(),
            next_cxid: 1,
            answered: 0,
        }
    }

    pub fn txns(&self) -> Txns {
        self.disk.all().cloned().collect()
    }
}

/// A snapshot stream whose nodes are txns.
fn image_stream<'a>(txns: impl Iterator<Item = &'a (Zxid, Vec<u8>)>) -> Vec<u8> {
    let mut out = vec![0; 8];
    for (zxid, txn) in txns {
        out.put_string(&format!("/{:x}", zxid.0));
        out.put_buffer(Some(txn));
        out.put(&[0; 68]);
    }
    out.put_string("/");
    out.put_string("BenWasHere");
    out
}

fn image_of(bytes: &[u8]) -> Txns {
    let mut reader = Reader::new(&bytes[8..]);
    let mut txns = Vec::new();
    loop {
        let path = reader.text().unwrap();
        let name = path[1..].to_owned();
        let data = reader.buffer().unwrap().unwrap().to_vec();
        if name.is_empty() {
            assert_eq!(reader.remaining(), 0, "the stream ends with its signature");
            return txns;
        }
        for _ in 0..17 {
            reader.i32().unwrap();
        }
        txns.push((Zxid(u64::from_str_radix(&name, 16).unwrap()), data));
    }
}
