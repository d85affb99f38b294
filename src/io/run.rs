//! Starts a server: directories, recovery, cores; and ends it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel as outcomes};
use std::time::{Duration, Instant};

use glommio::ExecutorJoinHandle;

use super::admission::Admission;
use super::bind::{bind_any, bind_to};
use super::clock;
use super::cores::{Core, Ended, Fatal};
use super::disk::Disk;
use super::executor::start_core;
use super::log_driver::LogDriver;
use super::mail::{Newcomer, ToShard, ToZab};
use super::member::{MemberPlan, MemberSettings};
use super::mesh::{Doorbell, Inbox, Outbox, Sleeper, channel};
use super::placement::{self, Placement};
use super::process::Process;
use super::recovered::{self, Recovered, RecoveredMember};
use super::ring::{ForceSync, LogBuffer, Ring, RingSettings};
use super::ring_refused::RingRefused;
use super::shard_driver::{ShardDriver, ShardQueues};
use super::snapshot_writer::{SnapshotHelper, SnapshotWriterSettings};
use super::zab_driver::{ZabDriver, ZabQueues};
use crate::ops::four_letter::Whitelist;
use crate::server::pipeline::{Member, Now, Output as ZabOutput, ZabCore, ZabSettings};
use crate::server::status::Settings as StatusSettings;
use crate::shard::machine::{Shard, ShardSettings};
use crate::storage::epochs::EpochError;
use crate::storage::files::{DataDirs, DirLocks};
use crate::storage::recovery::RecoveryError;
use crate::tree::publication::Publisher;
use crate::tree::{Tree, TreeSettings};
use crate::types::ids::ShardId;
use crate::types::limits;
use crate::types::zxid::Zxid;
use crate::zab::{self, Zab};

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
    /// `None` for a server that stands alone.
    pub member: Option<MemberSettings>,
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
    Epochs(EpochError),
    Io {
        doing: String,
        error: io::Error,
    },
    Fatal(Fatal),
}

impl ServerError {
    /// Of the process (storage reference 1.17; 1 is "unexpected error").
    pub fn exit_code(&self) -> i32 {
        match self {
            ServerError::Recovery(error) => error.exit_code(),
            ServerError::Ring(_) => i32::from(super::ring_refused::EXIT_CODE),
            ServerError::TtlWithoutOption
            | ServerError::Epochs(_)
            | ServerError::Bind { .. }
            | ServerError::Io { .. } => 1,
            ServerError::Fatal(fatal) => fatal.exit_code,
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
            ServerError::Epochs(error) => error.fmt(f),
            ServerError::Io { doing, error } => write!(f, "{doing}: {error}"),
            ServerError::Fatal(fatal) => f.write_str(&fatal.what),
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
        let locks = recovered::open_directories(&settings)?;
        let Recovered { tree, member } = recovered::recover_state(&settings)?;
        let recovered_in = start.elapsed();
        let listener = settings.listen.as_ref().map(|at| listen(at, settings.listen_backlog)).transpose()?;
        let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let counts = tree.counts();
        let started =
            Started { address, zxid: tree.head(), znodes: counts.znodes, sessions: counts.sessions, recovered_in };
        let mut status = settings.status.clone();
        status.client_port = address.map_or(-1, |address| i32::from(address.port()));
        let plan = Plan::new(settings, tree, member, listener, status, dirs, files_max)?;
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
            thread.join().map_err(|error| ServerError::Fatal(format!("a core ended: {error}").into()))?;
        }
        Ok(())
    }
}

/// The port of a server that was killed is free by then.
const FREED_WITHIN: Duration = Duration::from_secs(2);

fn listen((host, port): &(String, u16), backlog: Option<u32>) -> Result<TcpListener, ServerError> {
    let name = if host.is_empty() { format!("port {port}") } else { format!("{host}:{port}") };
    let bind = || -> io::Result<TcpListener> {
        if host.is_empty() || host == "0.0.0.0" || host == "::" {
            return bind_any(*port, backlog);
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
    let until = Instant::now() + FREED_WITHIN;
    loop {
        match bind() {
            // The kernel takes the rings of a killed process apart after it is gone, and their sockets with them: whoever
            // starts the next server at once would find the port of the last one.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            bound => return bound.map_err(|error| ServerError::Bind { address: name, error }),
        }
    }
}

/// Queues between two cores hold so many messages; shards are bounded by their outstanding requests besides.
const MAIL_MAX: usize = limits::BATCHES_PER_SHARD_MAX;
const NEWCOMERS_MAX: usize = 256;
/// Buffers for what peers send, on a zab core that has no shard beside it.
const PEER_RECEIVE_BUFFERS: u16 = 128;

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
    member: Option<(MemberPlan, Member)>,
}

impl Plan {
    fn new(
        settings: ServerSettings,
        tree: Tree,
        member: Option<RecoveredMember>,
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
            let reader = tree.reader().ok_or_else(|| ServerError::Fatal("too many shards".to_owned().into()))?;
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
        let member = member.map(|member| plan_member(&settings, member, count as u16, zab_doorbell)).transpose()?;
        let zab = ZabPlan {
            tree,
            publisher,
            queues: ZabQueues { from_shards, to_shards, disk, snapshots },
            disk: Disk::start(disk_events).map_err(io("the disk helper"))?,
            snapshots: SnapshotHelper::start(settings.snapshots.clone(), snapshot_events)
                .map_err(io("the snapshot helper"))?,
            member,
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
            .map_err(|error| ServerError::Fatal(format!("core {name} could not be started: {error}").into()))
    }

    /// On the thread itself: a ring belongs to the thread that made it.
    fn sit_down(
        self,
        sleeper: Sleeper,
        settings: &ServerSettings,
        process: &Arc<Process>,
    ) -> Result<Core, RingRefused> {
        let log_buffers = if self.zab.is_some() { settings.ring.log_buffers } else { 0 };
        let receive_buffers = match (&self.shard, &settings.member) {
            (Some(_), _) => settings.ring.receive_buffers,
            (None, Some(_)) => PEER_RECEIVE_BUFFERS,
            (None, None) => 8,
        };
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
        let (zab, member) = match self.member {
            None => {
                let zab = ZabCore::standalone(settings.zab.clone(), self.tree, self.publisher, buffers, now, &mut out);
                (zab, None)
            }
            Some((plan, member)) => {
                let settings = settings.zab.clone();
                let zab = ZabCore::member(settings, member, self.tree, self.publisher, buffers, now, &mut out);
                (zab, Some(plan.sit_down(ring)))
            }
        };
        ZabDriver::new(zab, out, self.queues, log, self.snapshots, member, Arc::clone(process))
    }
}

/// The agreement machine of a member, and what it needs outside.
fn plan_member(
    settings: &ServerSettings,
    recovered: RecoveredMember,
    shards: u16,
    doorbell: Doorbell,
) -> Result<(MemberPlan, Member), ServerError> {
    let member = settings.member.clone().expect("recovered as a member");
    let epoch = |epoch: i64| u32::try_from(epoch.max(0)).unwrap_or(u32::MAX);
    let stored = recovered.epochs;
    let epochs = zab::Epochs { accepted: epoch(stored.accepted), current: epoch(stored.current) };
    let mut zab_out = Vec::new();
    let mut zab = Zab::member(member.zab.clone(), member.ensemble.clone(), recovered.history, epochs, &mut zab_out);
    if !recovered.is_trusted {
        zab.distrust();
    }
    let (options, tree, snapshots) = (recovered::options(settings), settings.tree.clone(), settings.snapshots.clone());
    let plan = MemberPlan::new(member, stored, options, tree, snapshots, doorbell)
        .map_err(|error| ServerError::Io { doing: "the helpers of a member".to_owned(), error })?;
    Ok((plan, Member { zab, zab_out, shards, committed: recovered.committed }))
}
