//! One run of a server: the machines that ship, wired as `io/` wires them, on virtual threads.
//!
//! A *seat* is a thread: the zab core's, a shard's, or both in one. What arrives waits in its inbox until the thread's next
//! turn, which goes through everything in the order of `io/cores.rs`. What one thread puts into another's queue is there at
//! once, but that thread sees it at its own next turn, a seeded moment later: so races between cores replay.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::dice::Dice;
use super::disk::{Disk, Ended, Operation};
use super::faults::Caught;
use super::log_files::{LogFiles, Started};
use super::logged::Logged;
use super::member::{Member, MemberInput};
use super::network::{End, Network, Notice};
use super::order::{Order, Violation};
use super::restart::{Recovered, RecoveredMember, Scratch};
use super::scenario::{Addresses, ServerScenario};
use super::scheduler::{Event, Scheduler, ServerIndex};
use super::shard_seat::{ShardSeat, ToShard};
use super::snapshots::serialize;
use super::trace::Trace;
use crate::server::pauses::Pauses;
use crate::server::pipeline::{self, Input, Now, Output, SnapshotJob, ZabCore};
use crate::shard::machine::{Shard, ShardSettings};
use crate::shard::messages::Batch;
use crate::storage::files::snapshot_file_name;
use crate::storage::log;
use crate::tree::publication::Publisher;
use crate::types::compression::Compression;
use crate::types::ids::{ConnectionId, ShardId};
use crate::types::limits;
use crate::types::time::{Time, WallTime};
use crate::types::zxid::Zxid;
use crate::zab::transport::{Port, SocketId, SocketInput};
use crate::zab::{Phase, RoleName, Zab};

/// As in `io/cores.rs`.
const TOLERATED_PAUSE: Duration = Duration::from_millis(200);
/// A process that stops waits so long for its sockets.
const LAST_WORDS: Duration = Duration::from_millis(5);
/// What the world's clocks showed at the start of a run, ms since 1970.
const WALL_START_MS: i64 = 1_700_000_000_000;
/// Bits of a connection id that count within a shard.
const COUNT_BITS: u32 = 48;

type Buffer = Vec<u8>;

/// Everything around one process.
pub struct Around<'a> {
    pub server: ServerIndex,
    pub scenario: &'a ServerScenario,
    pub scratch: &'a Scratch,
    pub scheduler: &'a mut Scheduler,
    pub network: &'a mut Network,
    pub disk: &'a mut Disk,
    pub logged: &'a mut Logged,
    pub order: &'a mut Order,
    pub trace: &'a mut Trace,
    pub dice: &'a mut Dice,
    /// The process is killed while its disk is at this.
    pub caught: &'a mut Option<Caught>,
}

impl Around<'_> {
    pub fn reborrow(&mut self) -> Around<'_> {
        Around {
            server: self.server,
            scenario: self.scenario,
            scratch: self.scratch,
            scheduler: self.scheduler,
            network: self.network,
            disk: self.disk,
            logged: self.logged,
            order: self.order,
            trace: self.trace,
            dice: self.dice,
            caught: self.caught,
        }
    }

    /// A disk operation has started.
    pub fn schedule_disk(&mut self, boot: u32, number: u64, done: Time, kind: Option<Caught>) {
        let server = self.server;
        self.scheduler.at(done, Event::Disk { server, boot, operation: number });
        if kind.is_some() && *self.caught == kind {
            *self.caught = None;
            let left = done.saturating_since(self.scheduler.now()).as_micros() as u64;
            let at = self.scheduler.now() + self.dice.micros(0..=left);
            self.scheduler.at(at, Event::Caught { server, boot });
        }
    }
}

/// A thread.
#[derive(Debug)]
struct Seat {
    has_zab: bool,
    shard: Option<usize>,
    /// When it wants to run.
    next_turn: Option<Time>,
    stalls: Pauses,
}

/// How a process ended by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exit {
    /// It was asked to.
    Stopped,
    /// It could not go on.
    Fatal(String),
}

/// A server's clocks: its monotonic one starts anywhere, its wall clock is set by people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    pub since_boot: Duration,
    pub wall_offset_ms: i64,
}

pub struct Process {
    pub boot: u32,
    pub clock: Clock,
    zab: ZabCore<Buffer>,
    zab_out: Vec<Output<Buffer>>,
    /// Durable writes that are done: they go before everything else.
    written: VecDeque<log::Input<Buffer>>,
    /// What the helper did.
    helped: VecDeque<log::Input<Buffer>>,
    snapshot_done: Option<u64>,
    shards: Vec<ShardSeat>,
    seats: Vec<Seat>,
    files: LogFiles,
    /// `None` for a server that stands alone.
    member: Option<Member>,
    addresses: Arc<Addresses>,
    /// The version that the helper is writing down.
    snapshot: Option<SnapshotJob>,
    /// The disk operation that makes it durable.
    snapshot_put: Option<u64>,
    next_dealt: usize,
    wants_stop: bool,
    is_stopping: bool,
    /// Everything is durable and published; until then the answers have time to leave.
    ends_at: Option<Time>,
    paused_until: Option<Time>,
    pub exit: Option<Exit>,
    /// Clients may be shown more than before.
    pub has_published: bool,
    pub violation: Option<Violation>,
}

impl Process {
    /// Starts on what was recovered.
    pub fn start(
        boot: u32,
        clock: Clock,
        recovered: Recovered,
        addresses: &Arc<Addresses>,
        around: &mut Around<'_>,
    ) -> Process {
        let (scenario, tree) = (around.scenario, recovered.tree);
        let publisher = Publisher::default();
        let seed = around.dice.next();
        let shards = (0..scenario.shards)
            .map(|at| {
                let settings = ShardSettings { id: ShardId(at as u16), ..scenario.shard.clone() };
                let reader = tree.reader().expect("fewer shards than readers");
                let shard = Shard::new(settings, reader, publisher.cursor(), [seed, !seed, seed << 1, seed >> 1]);
                ShardSeat::new(shard, (u64::from(boot) << 32) | (at as u64) << COUNT_BITS)
            })
            .collect();
        let now = at_clock(clock, around.scheduler.now());
        let buffers =
            (0..scenario.zab.log.writes_in_flight).map(|_| vec![0; scenario.log_buffer_bytes]).collect::<Vec<_>>();
        let mut zab_out = Vec::new();
        let settings = scenario.zab.clone();
        let (zab, member) = match recovered.member {
            None => (ZabCore::standalone(settings, tree, publisher, buffers, now, &mut zab_out), None),
            Some(recovered) => {
                let stored = recovered.epochs;
                let member = join(scenario, recovered, around.dice.next());
                let zab = ZabCore::member(settings, member, tree, publisher, buffers, now, &mut zab_out);
                (zab, Some(Member::new(boot, stored)))
            }
        };
        let seat =
            |has_zab, shard| Seat { has_zab, shard, next_turn: None, stalls: Pauses::new(now.time, TOLERATED_PAUSE) };
        let seats = match scenario.is_shared {
            true => vec![seat(true, Some(0))],
            false => std::iter::once(seat(true, None))
                .chain((0..scenario.shards).map(|shard| seat(false, Some(shard))))
                .collect(),
        };
        let mut process = Process {
            boot,
            clock,
            zab,
            zab_out,
            written: VecDeque::new(),
            helped: VecDeque::new(),
            snapshot_done: None,
            shards,
            seats,
            files: LogFiles::default(),
            member,
            addresses: Arc::clone(addresses),
            snapshot: None,
            snapshot_put: None,
            next_dealt: 0,
            wants_stop: false,
            is_stopping: false,
            ends_at: None,
            paused_until: None,
            exit: None,
            has_published: true,
            violation: None,
        };
        process.carry_out_zab(around);
        for seat in 0..process.seats.len() {
            process.wake(seat, around);
        }
        process
    }

    pub fn zab(&self) -> &ZabCore<Buffer> {
        &self.zab
    }

    /// Every thread stands still until then.
    pub fn pause(&mut self, until: Time) {
        self.paused_until = Some(until);
    }

    /// SIGTERM.
    pub fn stop(&mut self, around: &mut Around<'_>) {
        self.wants_stop = true;
        self.wake(0, around);
    }

    fn seat_of_shard(&self, shard: usize) -> usize {
        self.seats.iter().position(|seat| seat.shard == Some(shard)).unwrap_or(0)
    }

    /// The thread runs soon.
    fn wake(&mut self, seat: usize, around: &mut Around<'_>) {
        let delay = if around.dice.one_in(40) { 50..=2000 } else { 1..=20 };
        let at = around.scheduler.now() + around.dice.spread(delay);
        self.run_at(seat, at, around);
    }

    fn run_at(&mut self, seat: usize, at: Time, around: &mut Around<'_>) {
        let seat_now = &mut self.seats[seat];
        if seat_now.next_turn.is_none_or(|next| at < next) {
            seat_now.next_turn = Some(at);
            let turn = Event::Turn { server: around.server, boot: self.boot, core: seat };
            around.scheduler.at(at, turn);
        }
    }

    /// A connection on the client port. The kernel takes it, also while the process stands still.
    pub fn on_knock(&mut self, end: End, around: &mut Around<'_>) -> ConnectionId {
        let shard = self.next_dealt;
        self.next_dealt = (shard + 1) % self.shards.len();
        let connection = self.shards[shard].accept(end);
        self.wake(self.seat_of_shard(shard), around);
        connection
    }

    /// Something came for a connection.
    pub fn on_connection(&mut self, connection: ConnectionId, notice: Notice, around: &mut Around<'_>) {
        let shard = shard_of(connection);
        if self.shards[shard].on_notice(connection, notice) {
            self.wake(self.seat_of_shard(shard), around);
        }
    }

    /// A disk operation is done.
    pub fn on_disk(&mut self, number: u64, around: &mut Around<'_>) {
        let Some((operation, ended)) = around.disk.finish(number) else { return };
        around.trace.mix(number ^ (ended as u64) << 60);
        if self.snapshot_put == Some(number) {
            self.snapshot_put = None;
            self.snapshot_done = Some(match (operation, ended) {
                (Operation::Put { bytes, .. }, Ended::Done) => bytes.len() as u64,
                _ => 0,
            });
        } else if let Some(done) = self.member.as_mut().and_then(|member| member.on_disk(number, ended, around)) {
            self.violation = self.violation.take().or(done.err());
        } else if let Some(input) = self.files.on_ended(number, ended) {
            match input {
                log::Input::Written { .. } => self.written.push_back(input),
                _ => self.helped.push_back(input),
            }
        } else {
            return;
        }
        self.wake(0, around);
    }

    /// A piece for a learner is read.
    pub fn on_transfer(&mut self, number: u64, around: &mut Around<'_>) {
        let Some(member) = &mut self.member else { return };
        if let Err(what) = member.on_transfer(number, around) {
            self.violation = Some(what);
        }
        self.wake(0, around);
    }

    /// Another server has connected.
    pub fn on_peer_knock(&mut self, end: End, port: Port, around: &mut Around<'_>) -> Option<SocketId> {
        let socket = self.member.as_mut()?.accept(end, port);
        self.wake(0, around);
        Some(socket)
    }

    /// Something happened to a connection with another server.
    pub fn on_peer(&mut self, socket: SocketId, notice: Notice, around: &mut Around<'_>) {
        let Some(member) = &mut self.member else { return };
        if member.on_notice(socket, notice, around) {
            self.wake(0, around);
        }
    }

    /// It is killed: what its helper was at may be half done.
    pub fn leave_half_done(&mut self, around: &mut Around<'_>) {
        if let Some(member) = &mut self.member
            && let Err(what) = member.leave_half_done(around)
        {
            self.violation = Some(what);
        }
    }

    /// The helper has walked the version that it holds: now the file is made durable.
    pub fn on_snapshot(&mut self, around: &mut Around<'_>) {
        let Some(job) = self.snapshot.take() else { return };
        let zxid = job.zxid;
        match serialize(job) {
            Ok(bytes) => {
                let name = snapshot_file_name(zxid, Compression::None);
                around.trace.line(around.scheduler.now(), "disk", format_args!("{name} of {} bytes", bytes.len()));
                let (number, done) =
                    around.disk.start(around.scheduler.now(), Operation::Put { name: name.clone(), bytes });
                self.snapshot_put = Some(number);
                around.schedule_disk(self.boot, number, done, Some(Caught::Snapshotting));
            }
            Err(error) => self.violation = Some(format!("a snapshot cannot be written: {error}")),
        }
    }

    /// The thread's time has come. `false`: it wanted to run at another time.
    pub fn turn(&mut self, seat: usize, around: &mut Around<'_>) -> bool {
        let now = around.scheduler.now();
        if self.ends_at.is_some_and(|at| at <= now) {
            self.exit.get_or_insert(Exit::Stopped);
        }
        if self.seats[seat].next_turn != Some(now) || self.exit.is_some() {
            return false;
        }
        self.seats[seat].next_turn = None;
        if let Some(until) = self.paused_until.filter(|until| now < *until) {
            self.run_at(seat, until, around);
            return false;
        }
        let local = at_clock(self.clock, now);
        if let Some(stall) = self.seats[seat].stalls.on_turn(local.time)
            && self.seats[seat].has_zab
        {
            self.step_zab(local, Input::Stalled(stall), around);
        }
        self.work(seat, local, around);
        if self.seats[seat].shard.is_some_and(|shard| self.shards[shard].has_events()) {
            self.wake(seat, around);
        }
        let deadline = self.deadline(seat);
        self.seats[seat].stalls.on_sleep(deadline);
        if let Some(deadline) = deadline {
            let at = Time(deadline.0.saturating_sub(self.clock.since_boot.as_nanos() as u64));
            self.run_at(seat, at.max(now + Duration::from_micros(1)), around);
        }
        true
    }

    /// The order of `io/cores.rs`.
    fn work(&mut self, seat: usize, now: Now, around: &mut Around<'_>) {
        let (has_zab, shard) = (self.seats[seat].has_zab, self.seats[seat].shard);
        if has_zab {
            while let Some(input) = self.written.pop_front() {
                self.step_zab(now, Input::Log(input), around);
            }
            self.take_zab_mail(now, around);
        }
        if let Some(shard) = shard {
            self.take_shard_mail(shard, now, around);
            self.shards[shard].take_events(now, around);
            self.after_shard(shard, around);
        }
        loop {
            if let Some(shard) = shard {
                self.shards[shard].end_turn(now, around);
                self.after_shard(shard, around);
            }
            let mut moved = false;
            if has_zab {
                moved |= self.take_zab_mail(now, around);
                self.end_zab_turn(now, around);
            }
            if let Some(shard) = shard {
                moved |= self.take_shard_mail(shard, now, around);
            }
            if !moved || self.exit.is_some() {
                return;
            }
        }
    }

    fn take_zab_mail(&mut self, now: Now, around: &mut Around<'_>) -> bool {
        let mut any = false;
        while let Some(input) = self.helped.pop_front() {
            any = true;
            self.step_zab(now, Input::Log(input), around);
        }
        if let Some(bytes) = self.snapshot_done.take() {
            any = true;
            self.step_zab(now, Input::SnapshotDone { bytes }, around);
        }
        while let Some(input) = self.member.as_mut().and_then(|member| member.next(self.zab.takes_sockets())) {
            any = true;
            self.on_member(now, input, around);
        }
        for shard in 0..self.shards.len() {
            while self.zab.takes_batches()
                && let Some(batch) = self.shards[shard].to_zab.pop_front()
            {
                any = true;
                self.step_zab(now, Input::Batch { shard: ShardId(shard as u16), batch }, around);
            }
        }
        if self.wants_stop && !self.is_stopping {
            any = true;
            self.is_stopping = true;
            self.step_zab(now, Input::Stop, around);
        }
        any
    }

    fn on_member(&mut self, now: Now, input: MemberInput, around: &mut Around<'_>) {
        let input = match &input {
            MemberInput::Accepted { socket, port } => SocketInput::Accepted { socket: *socket, port: *port },
            MemberInput::Connected { socket } => SocketInput::Connected { socket: *socket },
            MemberInput::Received { socket, bytes } => SocketInput::Received { socket: *socket, bytes },
            MemberInput::Unsent { socket, bytes } => SocketInput::Unsent { socket: *socket, bytes: *bytes },
            MemberInput::Closed { socket, is_refused } => {
                SocketInput::Closed { socket: *socket, is_refused: *is_refused }
            }
            _ => return self.on_answer(now, input, around),
        };
        self.step_zab(now, Input::Socket(input), around);
    }

    fn on_answer(&mut self, now: Now, input: MemberInput, around: &mut Around<'_>) {
        let input = match input {
            MemberInput::EpochsStored(epochs) => Input::EpochsStored(epochs),
            MemberInput::LogRead { socket, read } => Input::LogRead { socket, read },
            MemberInput::SnapshotPiece { socket, zxid, bytes, is_end } => {
                Input::SnapshotPiece { socket, zxid, bytes, is_end }
            }
            MemberInput::Truncated { tree } => Input::Truncated { tree },
            MemberInput::Installed { bytes } => Input::Installed { bytes },
            MemberInput::Accepted { .. }
            | MemberInput::Connected { .. }
            | MemberInput::Received { .. }
            | MemberInput::Unsent { .. }
            | MemberInput::Closed { .. } => unreachable!("of a socket"),
        };
        self.step_zab(now, input, around);
    }

    fn end_zab_turn(&mut self, now: Now, around: &mut Around<'_>) {
        if self.zab.deadline().is_some_and(|deadline| deadline <= now.time) {
            self.step_zab(now, Input::Timeout, around);
        }
        self.step_zab(now, Input::EndOfTurn, around);
        let head = self.zab.tree().head();
        if let Err(violation) = around.order.on_head(around.server, head, self.zab.tree().digest()) {
            self.violation = Some(violation);
        }
        if self.zab.role() == RoleName::Leading
            && self.member.is_some()
            && let Err(what) = around.order.on_leader(around.server, self.zab.zab().epochs().current)
        {
            self.violation = Some(what);
        }
    }

    /// Whether it serves clients, so that what they say reaches a leader.
    pub fn serves(&self) -> bool {
        self.zab.role() != RoleName::Looking && self.zab.zab().phase() == Phase::Broadcast
    }

    /// The epoch that it has joined.
    pub fn epoch(&self) -> u32 {
        self.zab.zab().epochs().current
    }

    /// Whether it stands still.
    pub fn is_paused(&self, now: Time) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    fn take_shard_mail(&mut self, shard: usize, now: Now, around: &mut Around<'_>) -> bool {
        let any = self.shards[shard].take_mail(now, around);
        self.after_shard(shard, around);
        any
    }

    /// A shard has put something into the zab core's queue, which may have been full.
    fn after_shard(&mut self, shard: usize, around: &mut Around<'_>) {
        if std::mem::take(&mut self.shards[shard].has_asked) && self.seats[0].shard != Some(shard) {
            self.wake(0, around);
        }
    }

    fn step_zab(&mut self, now: Now, input: Input<'_, Buffer>, around: &mut Around<'_>) {
        self.zab.step(now, input, &mut self.zab_out);
        self.carry_out_zab(around);
    }

    fn carry_out_zab(&mut self, around: &mut Around<'_>) {
        let mut out = std::mem::take(&mut self.zab_out);
        for output in out.drain(..) {
            match output {
                Output::Log(output) => self.carry_out_log(output, around),
                Output::Tell(told) => self.tell(usize::from(told.shard.0), ToShard::Tell(told.tell), around),
                Output::Published => {
                    self.on_published(around);
                    for shard in 0..self.shards.len() {
                        self.wake_shard(shard, around);
                    }
                }
                Output::Spent { shard, batch } => self.recycle(usize::from(shard.0), batch),
                Output::Store { shard, store } => self.tell(usize::from(shard.0), ToShard::Store(store), around),
                Output::Snapshot(job) => {
                    self.snapshot = Some(job);
                    let at = around.scheduler.now() + around.dice.spread(500..=300_000);
                    around.scheduler.at(at, Event::Snapshot { server: around.server, boot: self.boot });
                }
                Output::Stopped => {
                    let at = around.scheduler.now() + LAST_WORDS;
                    self.ends_at = Some(at);
                    around.scheduler.at(at, Event::Turn { server: around.server, boot: self.boot, core: 0 });
                }
                Output::Socket(_)
                | Output::StoreEpochs(_)
                | Output::ReadLog { .. }
                | Output::ReadSnapshot { .. }
                | Output::ReadOn { .. }
                | Output::CancelRead { .. }
                | Output::Truncate(_)
                | Output::Install(_) => {
                    if let Some(member) = &mut self.member {
                        member.carry_out(output, &self.addresses, around);
                    }
                }
                Output::Fatal { what } => self.exit = Some(Exit::Fatal(what)),
            }
        }
        self.zab_out = out;
    }

    fn carry_out_log(&mut self, output: log::Output<Buffer>, around: &mut Around<'_>) {
        around.trace.line(around.scheduler.now(), "log", format_args!("{output}"));
        let kind = match output {
            log::Output::Write { .. } => Some(Caught::Writing),
            log::Output::Name { .. } => Some(Caught::Naming),
            log::Output::Prepare { .. } | log::Output::Extend { .. } => Some(Caught::Preparing),
            _ => None,
        };
        let (order, server) = (&mut *around.order, around.server);
        let mut violation = None;
        let tell = |zxid: Zxid, payload: &[u8]| {
            if let Err(what) = order.on_logged(server, zxid, payload) {
                violation = Some(what);
            }
        };
        let started = self.files.carry_out(around.scheduler.now(), output, around.disk, around.logged, tell);
        if let Some(Started { number, done }) = started {
            around.schedule_disk(self.boot, number, done, kind);
        }
        self.violation = self.violation.take().or(violation);
    }

    /// What clients may be told from now on must be decided.
    fn on_published(&mut self, around: &mut Around<'_>) {
        let published = self.zab.tree().published();
        around.trace.line(around.scheduler.now(), "zab", format_args!("{} published {published}", around.server.0));
        around.trace.mix(published.0);
        self.has_published = true;
    }

    fn recycle(&mut self, shard: usize, batch: Batch) {
        self.shards[shard].from_zab.push_back(ToShard::Spent(batch));
    }

    fn tell(&mut self, shard: usize, mail: ToShard, around: &mut Around<'_>) {
        self.shards[shard].from_zab.push_back(mail);
        self.wake_shard(shard, around);
    }

    /// A shard in the same thread hears it in this turn.
    fn wake_shard(&mut self, shard: usize, around: &mut Around<'_>) {
        let seat = self.seat_of_shard(shard);
        if !self.seats[seat].has_zab {
            self.wake(seat, around);
        }
    }

    fn deadline(&self, seat: usize) -> Option<Time> {
        let zab = if self.seats[seat].has_zab { self.zab.deadline() } else { None };
        let shard = self.seats[seat].shard.and_then(|shard| self.shards[shard].deadline());
        [zab, shard].into_iter().flatten().min()
    }
}

fn shard_of(connection: ConnectionId) -> usize {
    (connection.0 >> COUNT_BITS) as usize
}

/// The agreement machine of a member.
fn join(scenario: &ServerScenario, recovered: RecoveredMember, boot_nonce: u64) -> pipeline::Member {
    let member = scenario.member.as_ref().expect("recovered as a member");
    let settings = member.settings(boot_nonce);
    let mut zab_out = Vec::new();
    let zab = Zab::member(settings, member.ensemble.clone(), recovered.history, recovered.epochs, &mut zab_out);
    pipeline::Member { zab, zab_out, shards: scenario.shards as u16, committed: recovered.committed }
}

/// What a server's clocks show.
fn at_clock(clock: Clock, now: Time) -> Now {
    let wall = WALL_START_MS + now.as_ms() as i64 + clock.wall_offset_ms;
    Now { time: now + clock.since_boot, wall: WallTime(wall) }
}

/// Batches that may wait for the zab core.
pub const QUEUE_MAX: usize = limits::BATCHES_PER_SHARD_MAX;
