//! Starts a server: directories, recovery, cores; and ends it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel as outcomes};
use std::time::{Duration, Instant};

use glommio::ExecutorJoinHandle;
use socket2::{Domain, Protocol, Socket, Type};

use super::admission::Admission;
use super::clock;
use super::cores::{Core, Ended};
use super::disk::Disk;
use super::executor::start_core;
use super::log_driver::LogDriver;
use super::mail::{Newcomer, ToShard, ToZab};
use super::mesh::{Inbox, Outbox, Sleeper, channel};
use super::placement::{self, Placement};
use super::process::Process;
use super::ring::{ForceSync, LogBuffer, Ring, RingSettings};
use super::ring_refused::RingRefused;
use super::shard_driver::{ShardDriver, ShardQueues};
use super::snapshot_writer::{SnapshotHelper, SnapshotWriterSettings};
use super::zab_driver::{ZabDriver, ZabQueues};
use crate::ops::four_letter::Whitelist;
use crate::server::pipeline::{Now, Output as ZabOutput, ZabCore, ZabSettings, in_flight_bytes_max};
use crate::server::recovery::TreeReplay;
use crate::server::status::Settings as StatusSettings;
use crate::shard::machine::{Shard, ShardSettings};
use crate::storage::files::{DataDirs, DirLocks};
use crate::storage::recovery::{RecoveredState, RecoveryError, RecoveryOptions, recover};
use crate::tree::publication::Publisher;
use crate::tree::{Tree, TreeSettings};
use crate::types::ids::ShardId;
use crate::types::limits;
use crate::types::zxid::Zxid;

/// Everything that a server is made from, resolved from its configuration.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    pub dirs: DataDirs,
    pub datadir_autocreate: bool,
    pub db_autocreate: bool,
    pub trust_empty_snapshot: bool,
    pub tree: TreeSettings,
    pub shard: ShardSettings,
    pub zab: ZabSettings,
    pub snapshots: SnapshotWriterSettings,
    pub ring: RingSettings,
    pub force_sync: bool,
    pub fsync_warning_threshold: Duration,
    /// `None`: no listener.
    pub listen: Option<(String, u16)>,
    pub listen_backlog: Option<u32>,
    pub connections_per_address_max: u32,
    pub connections_max: u32,
    pub whitelist: Whitelist,
    pub placement: Placement,
    pub spin: Duration,
    pub status: StatusSettings,
}

/// Why a server did not start, or had to end.
#[derive(Debug)]
pub enum ServerError {
    Recovery(RecoveryError),
    /// TTL nodes would be deleted.
    TtlWithoutOption,
    Bind {
        address: String,
        error: io::Error,
    },
    Ring(RingRefused),
    Io {
        doing: String,
        error: io::Error,
    },
    Fatal(String),
}

impl ServerError {
    /// Of the process (storage reference 1.17; 1 is "unexpected error").
    pub fn exit_code(&self) -> i32 {
        match self {
            ServerError::Recovery(error) => error.exit_code(),
            ServerError::Ring(_) => i32::from(super::ring_refused::EXIT_CODE),
            ServerError::TtlWithoutOption
            | ServerError::Bind { .. }
            | ServerError::Io { .. }
            | ServerError::Fatal(_) => 1,
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerError::Recovery(error) => error.fmt(f),
            ServerError::TtlWithoutOption => f.write_str(
                "the data directory holds TTL nodes, but extendedTypesEnabled is off: they would be taken for ephemerals \
                 of an unknown session and deleted. Set extendedTypesEnabled=true",
            ),
            ServerError::Bind { address, error } => write!(
                f,
                "cannot listen on {address}: {error}. Is another server running there? clientPort sets another port"
            ),
            ServerError::Ring(refused) => refused.fmt(f),
            ServerError::Io { doing, error } => write!(f, "{doing}: {error}"),
            ServerError::Fatal(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for ServerError {}

/// A server that runs.
pub struct Server {
    process: Arc<Process>,
    cores: Cores,
    /// What it found and where it listens, for the first screen.
    pub started: Started,
    _locks: DirLocks,
}

/// How a core ended.
type Outcome = Result<Ended, RingRefused>;

/// The threads of a server, and how each of them ended. A thread that has said so may take for ever to go: the kernel does
/// not let go of one whose write hangs.
struct Cores {
    threads: Vec<ExecutorJoinHandle<()>>,
    outcomes: Receiver<Outcome>,
}

/// What a start came to.
#[derive(Clone, Debug)]
pub struct Started {
    pub address: Option<SocketAddr>,
    pub zxid: Zxid,
    pub znodes: u64,
    pub sessions: u64,
    pub recovered_in: Duration,
}

impl Server {
    /// Recovers, binds, and starts the cores.
    pub fn start(settings: ServerSettings) -> Result<Server, ServerError> {
        let start = Instant::now();
        let files_max = placement::raise_open_files().unwrap_or(0);
        let dirs = settings.dirs.clone();
        let locks = open_directories(&settings)?;
        let tree = recover_tree(&settings)?;
        let recovered_in = start.elapsed();
        let listener = settings.listen.as_ref().map(|at| listen(at, settings.listen_backlog)).transpose()?;
        let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let counts = tree.counts();
        let started =
            Started { address, zxid: tree.head(), znodes: counts.znodes, sessions: counts.sessions, recovered_in };
        let mut status = settings.status.clone();
        status.client_port = address.map_or(-1, |address| i32::from(address.port()));
        let plan = Plan::new(settings, tree, listener, status, dirs, files_max)?;
        let process = Arc::clone(&plan.process);
        let cores = plan.launch()?;
        Ok(Server { process, cores, started, _locks: locks })
    }

    /// For whoever wants it to end.
    pub fn process(&self) -> Arc<Process> {
        Arc::clone(&self.process)
    }

    /// Waits until it has stopped.
    pub fn join(self) -> Result<(), ServerError> {
        for outcome in self.cores.outcomes {
            match outcome {
                Ok(Ended::Stopped) => {}
                Ok(Ended::Fatal(what)) => return Err(ServerError::Fatal(what)),
                Err(refused) => return Err(ServerError::Ring(refused)),
            }
        }
        for thread in self.cores.threads {
            thread.join().map_err(|error| ServerError::Fatal(format!("a core ended: {error}")))?;
        }
        Ok(())
    }
}

fn open_directories(settings: &ServerSettings) -> Result<DirLocks, ServerError> {
    settings.dirs.prepare(settings.datadir_autocreate).map_err(|error| ServerError::Recovery(error.into()))?;
    settings.dirs.lock().map_err(|error| ServerError::Recovery(error.into()))
}

/// The newest state that the directories hold, all of it committed: an ensemble of one has nobody else to ask.
fn recover_tree(settings: &ServerSettings) -> Result<Tree, ServerError> {
    let marked = settings.dirs.take_initialize_marker();
    let marked = marked.map_err(|error| ServerError::Io { doing: "the marker file initialize".to_owned(), error })?;
    let options = RecoveryOptions {
        trust_empty_snapshot: settings.trust_empty_snapshot,
        db_autocreate: settings.db_autocreate || marked,
        payload_bytes_max: settings.zab.entry_bytes_max,
        in_flight_bytes_max: in_flight_bytes_max(settings.zab.entry_bytes_max) as u64,
        ..RecoveryOptions::new(settings.dirs.clone())
    };
    let mut replay = TreeReplay::new(settings.tree.clone());
    let recovered = recover(&options, &mut replay).map_err(ServerError::Recovery)?;
    recovered.notes.iter().for_each(|note| tracing::warn!("{note}"));
    let (loaded, mismatches) = replay.finish();
    if mismatches > 0 {
        tracing::warn!(mismatches, "txns did not lead to the digest that their writer had");
    }
    if loaded.has_ttl_without_option() {
        return Err(ServerError::TtlWithoutOption);
    }
    let (mut tree, repairs) = loaded.finish();
    for path in &repairs.without_acl {
        tracing::error!(path, "this znode's ACL is not in the data directory: only a super user can reach it");
    }
    for path in &repairs.orphans {
        tracing::warn!(path, "ephemeral of an unknown session deleted");
    }
    match recovered.state {
        RecoveredState::Empty { trusted: false } => {
            return Err(ServerError::Fatal(
                "the database is empty, db.autocreate is false and there is no file `initialize` beside version-2: this \
                 server does not start from nothing. Create the file if it is meant to"
                    .to_owned(),
            ));
        }
        // A log without a snapshot would be refused, by us and by Java: this one is there before the first txn.
        RecoveredState::Empty { trusted: true } => {
            tree.publish(tree.head());
            write_first_snapshot(settings, &tree)?;
        }
        RecoveredState::Loaded { .. } => tree.publish(tree.head()),
    }
    Ok(tree)
}

fn write_first_snapshot(settings: &ServerSettings, tree: &Tree) -> Result<(), ServerError> {
    let mut reader = tree.reader().expect("nobody else reads yet");
    reader.hold();
    let job = crate::server::pipeline::SnapshotJob {
        reader,
        zxid: tree.head(),
        digest: tree.settings().digest_enabled.then_some(tree.digest()),
    };
    let written = super::snapshot_writer::write(&settings.snapshots, job);
    written.map(|_| ()).map_err(|error| ServerError::Io { doing: "writing the first snapshot".to_owned(), error })
}

fn listen((host, port): &(String, u16), backlog: Option<u32>) -> Result<TcpListener, ServerError> {
    let name = if host.is_empty() { format!("port {port}") } else { format!("{host}:{port}") };
    let bind = || -> io::Result<TcpListener> {
        if host.is_empty() || host == "0.0.0.0" || host == "::" {
            // Both families where the kernel has both.
            let any6 = SocketAddr::from(([0_u16; 8], *port));
            return bind_to(any6, backlog).or_else(|_| bind_to(SocketAddr::from(([0_u8; 4], *port)), backlog));
        }
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in (host.as_str(), *port).to_socket_addrs()? {
            match bind_to(address, backlog) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    bind().map_err(|error| ServerError::Bind { address: name, error })
}

/// Java's backlog of 50 is too short for a storm of connections; the kernel's own limit is the default here.
const BACKLOG: u32 = 4096;

fn bind_to(address: SocketAddr, backlog: Option<u32>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog.unwrap_or(BACKLOG) as i32)?;
    Ok(socket.into())
}

/// Queues between two cores hold so many messages; shards are bounded by their outstanding requests besides.
const MAIL_MAX: usize = limits::BATCHES_PER_SHARD_MAX;
const NEWCOMERS_MAX: usize = 256;

/// A server, ready to be put on its threads.
struct Plan {
    settings: ServerSettings,
    process: Arc<Process>,
    sleepers: Vec<Sleeper>,
    shards: Vec<ShardPlan>,
    zab: ZabPlan,
    listener: Option<TcpListener>,
}

struct ShardPlan {
    shard: Shard,
    queues: ShardQueues,
    admission: Arc<Admission>,
    /// The first shard accepts for all.
    deal: Option<Vec<Outbox<Newcomer>>>,
}

struct ZabPlan {
    tree: Tree,
    publisher: Publisher,
    queues: ZabQueues,
    disk: Disk,
    snapshots: SnapshotHelper,
}

impl Plan {
    fn new(
        settings: ServerSettings,
        tree: Tree,
        listener: Option<TcpListener>,
        status: StatusSettings,
        dirs: DataDirs,
        files_max: u64,
    ) -> Result<Plan, ServerError> {
        let io = |doing: &str| {
            let doing = doing.to_owned();
            move |error| ServerError::Io { doing, error }
        };
        // Sleeper 0 is the zab core's; where threads are shared it is the shard's as well.
        let (count, is_shared) = match &settings.placement {
            Placement::Shared { .. } => (1, true),
            Placement::Separate { shards, .. } => (shards.len(), false),
        };
        let threads = if is_shared { 1 } else { count + 1 };
        let sleepers: Vec<Sleeper> =
            (0..threads).map(|_| Sleeper::new()).collect::<io::Result<_>>().map_err(io("an eventfd per core"))?;
        let doorbell_of = |shard: usize| sleepers[if is_shared { 0 } else { shard + 1 }].doorbell();
        let zab_doorbell = sleepers[0].doorbell();
        let publisher = Publisher::default();
        let admission = Admission::new(settings.connections_per_address_max, settings.connections_max);
        let newcomers: Vec<(Outbox<Newcomer>, Inbox<Newcomer>)> =
            (0..count).map(|shard| channel(NEWCOMERS_MAX, &doorbell_of(shard))).collect();
        let (deal, newcomers): (Vec<_>, Vec<_>) = newcomers.into_iter().unzip();
        let mut deal = Some(deal);
        let (mut from_shards, mut to_shards, mut shards) = (Vec::new(), Vec::new(), Vec::new());
        for (at, newcomers) in newcomers.into_iter().enumerate() {
            let (to_zab, from_shard) = channel::<ToZab>(MAIL_MAX, &zab_doorbell);
            let (to_shard, from_zab) = channel::<ToShard>(MAIL_MAX, &doorbell_of(at));
            from_shards.push(from_shard);
            to_shards.push(to_shard);
            let reader = tree.reader().ok_or_else(|| ServerError::Fatal("too many shards".to_owned()))?;
            let shard_settings = ShardSettings { id: ShardId(at as u16), ..settings.shard.clone() };
            let seed = clock::now().0 ^ settings.zab.seed;
            let shard = Shard::new(shard_settings, reader, publisher.cursor(), [seed, !seed, seed << 1, seed >> 1]);
            let queues = ShardQueues { to_zab, from_zab, newcomers };
            shards.push(ShardPlan { shard, queues, admission: Arc::clone(&admission), deal: deal.take() });
        }
        let (disk_events, disk) = channel(MAIL_MAX, &zab_doorbell);
        let (snapshot_events, snapshots) = channel(MAIL_MAX, &zab_doorbell);
        let process = Process::new(
            status,
            dirs,
            clock::now(),
            files_max,
            zab_doorbell.clone(),
            (0..count).map(doorbell_of).collect(),
        );
        let zab = ZabPlan {
            tree,
            publisher,
            queues: ZabQueues { from_shards, to_shards, disk, snapshots },
            disk: Disk::start(disk_events).map_err(io("the disk helper"))?,
            snapshots: SnapshotHelper::start(settings.snapshots.clone(), snapshot_events)
                .map_err(io("the snapshot helper"))?,
        };
        Ok(Plan { settings, process: Arc::new(process), sleepers, shards, zab, listener })
    }

    /// Puts everything on its threads.
    fn launch(self) -> Result<Cores, ServerError> {
        let Plan { settings, process, sleepers, shards, zab, listener } = self;
        let settings = Arc::new(settings);
        let mut sleepers = sleepers.into_iter();
        let mut next_sleeper = || sleepers.next().expect("one sleeper per thread");
        let mut shards = shards.into_iter();
        let (tell, outcomes) = outcomes();
        let mut threads = Vec::new();
        match settings.placement.clone() {
            Placement::Shared { core } => {
                let seat = Seat { shard: shards.next(), zab: Some(zab), listener };
                threads.push(seat.launch("core", core, next_sleeper(), &settings, &process, tell)?);
            }
            Placement::Separate { zab: zab_cpu, shards: cpus } => {
                let seat = Seat { shard: None, zab: Some(zab), listener: None };
                threads.push(seat.launch("zab", zab_cpu, next_sleeper(), &settings, &process, tell.clone())?);
                let mut listener = listener;
                for (at, cpu) in cpus.into_iter().enumerate() {
                    let seat = Seat { shard: shards.next(), zab: None, listener: listener.take() };
                    let name = format!("shard-{at}");
                    threads.push(seat.launch(&name, cpu, next_sleeper(), &settings, &process, tell.clone())?);
                }
            }
        }
        Ok(Cores { threads, outcomes })
    }
}

/// What one thread gets.
struct Seat {
    shard: Option<ShardPlan>,
    zab: Option<ZabPlan>,
    listener: Option<TcpListener>,
}

impl Seat {
    fn launch(
        self,
        name: &str,
        cpu: Option<usize>,
        sleeper: Sleeper,
        settings: &Arc<ServerSettings>,
        process: &Arc<Process>,
        tell: Sender<Outcome>,
    ) -> Result<ExecutorJoinHandle<()>, ServerError> {
        let (settings, process) = (Arc::clone(settings), Arc::clone(process));
        let main = move || async move {
            let outcome = match self.sit_down(sleeper, &settings, &process) {
                Err(refused) => Err(refused),
                Ok(mut core) => {
                    core.ring.submit();
                    Ok(core.run().await)
                }
            };
            if matches!(outcome, Ok(Ended::Fatal(_))) {
                process.stop();
            }
            // Nobody listens any more if another core has ended the server.
            let _ = tell.send(outcome);
        };
        start_core(name, cpu, main)
            .map_err(|error| ServerError::Fatal(format!("core {name} could not be started: {error}")))
    }

    /// On the thread itself: a ring belongs to the thread that made it.
    fn sit_down(
        self,
        sleeper: Sleeper,
        settings: &ServerSettings,
        process: &Arc<Process>,
    ) -> Result<Core, RingRefused> {
        let log_buffers = if self.zab.is_some() { settings.ring.log_buffers } else { 0 };
        let receive_buffers = if self.shard.is_some() { settings.ring.receive_buffers } else { 8 };
        let ring_settings = RingSettings { log_buffers, receive_buffers, ..settings.ring.clone() };
        let mut ring = Ring::with_waker(ring_settings, sleeper.waker())?;
        if let Some(listener) = self.listener {
            ring.add_listener(listener);
        }
        let zab = self.zab.map(|zab| zab.sit_down(settings, process, &mut ring));
        let shard = self
            .shard
            .map(|plan| ShardDriver::new(plan.shard, plan.queues, plan.deal, plan.admission, settings.whitelist));
        Ok(Core { ring, sleeper, shard, zab, spin: settings.spin })
    }
}

impl ZabPlan {
    fn sit_down(self, settings: &ServerSettings, process: &Arc<Process>, ring: &mut Ring) -> ZabDriver {
        let sync = if settings.force_sync { ForceSync::Yes } else { ForceSync::No };
        let log = LogDriver::new(settings.dirs.logs(), sync, settings.fsync_warning_threshold, self.disk);
        let buffers: Vec<LogBuffer> = (0..settings.zab.log.writes_in_flight)
            .map(|_| ring.log_buffer(settings.ring.log_buffer_bytes as usize).expect("a buffer for the log"))
            .collect();
        let now = Now { time: clock::now(), wall: clock::wall_now() };
        let mut out: Vec<ZabOutput<LogBuffer>> = Vec::new();
        let zab = ZabCore::standalone(settings.zab.clone(), self.tree, self.publisher, buffers, now, &mut out);
        ZabDriver::new(zab, out, self.queues, log, self.snapshots, Arc::clone(process))
    }
}
