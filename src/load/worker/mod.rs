//! One thread of the generator: its sessions, their sockets, and the stretch that is going on.
//! Never: adding up or printing; it tells the coordinator each second what happened.
//! Owner: itself; everything in here belongs to one thread, but for the rounds of `fan_out`.
//! Start at `Worker::run`; then `traffic.rs` for bytes and `issue.rs` for what is asked.
//!
//! The loop drains what the sockets have, answers each reply with the next request while the pipeline has room, and
//! writes once per session and turn. In steady state it allocates nothing per operation.

mod connections;
mod issue;
mod stay;
mod stretch;
mod traffic;

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Poll, Token};

use super::error::LoadError;
use super::failover::Failover;
use super::fan_out::{FanOut, Watch};
use super::keys::{Dice, KeyChooser};
use super::plan::Plan;
use super::recorder::Recorder;
use super::requests::{Generator, OwnZnodes, Templates, value};
use super::schedule::Schedule;
use super::session::{Phase, Session};
use super::stats::Interval;
use super::timer::Timer;
use super::workload::Workload;
use crate::types::time::Time;

/// Tokens above those of sessions.
pub const WAKE: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);

/// What one read may take from a socket, bytes.
const READ_BYTES: usize = 256 << 10;
const EVENTS_PER_TURN: usize = 1024;
/// Connections that one worker opens at the same time: a backlog of 50, Java's default, should not overflow.
const HANDSHAKES_MAX: usize = 48;
/// How often pings, silence and stuck handshakes are looked at, at least; more often when sessions time out soon.
const HOUSEKEEPING: Duration = Duration::from_millis(250);
const HOUSEKEEPING_MIN: Duration = Duration::from_millis(5);
/// How often within a session timeout.
const HOUSEKEEPINGS_PER_TIMEOUT: u32 = 16;
/// How long answers are waited for when a phase has ended.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// How long closing of sessions may take at the very end.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);
/// Longest wait between two rounds of attempts to connect: short against what a failover may take.
const RETRY_MS_MAX: u64 = 100;
/// How long work that must be done goes on without any answer.
const STALL_LIMIT: Duration = Duration::from_secs(20);
/// Why a connection ended, as told to `lose`.
const CLOSED_BY_SERVER: &str = "closed by the server";

/// Monotonic time, the same for all threads of a run.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    pub fn now(&self) -> Time {
        Time(self.0.elapsed().as_nanos() as u64)
    }
}

/// What a phase does.
#[derive(Clone, Debug)]
pub enum Work {
    /// Create these keys and end.
    Fill(Range<u32>),
    /// Delete these keys and end.
    Remove(Range<u32>),
    Mix,
    Watch(Arc<FanOut>),
    Storm,
    Idle,
    /// One writer for each slot; sets per second of each.
    Failover {
        rate: f64,
    },
}

/// A stretch of the run.
#[derive(Clone, Debug)]
pub struct Stretch {
    pub work: Work,
    pub start: Time,
    /// Measured from here: `start ≤ measure_from ≤ until`.
    pub measure_from: Time,
    /// `None`: until the work is done.
    pub until: Option<Time>,
    /// This worker's share of the fixed rate, as its schedule from `start`.
    pub schedule: Option<Schedule>,
}

#[derive(Debug)]
pub enum Command {
    Begin(Stretch),
    /// Stop sending now.
    End,
    /// Close all sessions; the worker ends.
    Close,
}

#[derive(Debug)]
pub enum Report {
    /// All sessions stand.
    Opened,
    Failed(LoadError),
    Second {
        second: u32,
        interval: Box<Interval>,
    },
    /// What became of the writers, before `Done`.
    Failover(Box<Failover>),
    /// The stretch is over and drained; under a fixed rate, how many operations were due and never sent.
    Done {
        unsent: u64,
    },
}

/// A session with its socket.
#[derive(Debug)]
struct Slot {
    session: Session,
    /// The phase under which it is counted in `handshakes` or `up`.
    counted: Phase,
    stream: Option<TcpStream>,
    /// Index of the server that it is or was connected to.
    server: usize,
    /// Attempts in a row that led to no session.
    failures: u32,
    /// When the present connection was begun, or meant to be.
    since: Time,
    own: OwnZnodes,
    watch: Watch,
}

/// A thread's state. Sessions are named by their index in `slots`, which is also their token.
#[derive(Debug)]
pub struct Worker {
    plan: Arc<Plan>,
    clock: Clock,
    commands: Receiver<Command>,
    reports: Sender<(usize, Report)>,
    /// This worker's number.
    number: usize,
    poll: Poll,
    timer: Timer,
    buffer: Vec<u8>,
    slots: Vec<Slot>,
    /// Slots that want a connection, and when.
    down: BTreeSet<(Time, usize)>,
    /// The slot that sets in the watch workload.
    writer: Option<usize>,
    /// Slots of a storm that wait for their turn in the schedule.
    parked: Vec<usize>,
    handshakes: usize,
    up: usize,
    has_opened: bool,
    is_closing: bool,
    /// When the opening or closing of sessions last got on.
    progress_at: Time,
    /// When a request was last answered, or the stretch began.
    answered_at: Time,
    /// Why a connection was last lost.
    last_loss: Option<String>,
    housekeeping_at: Time,
    housekeeping: Duration,
    stretch: Option<Stretch>,
    started: bool,
    draining_since: Option<Time>,
    /// The set of a round of watches was lost with its connection: its events may never come.
    set_was_lost: bool,
    /// Keys of a fill that were lost with a connection.
    again: Vec<u32>,
    recorder: Recorder,
    /// The writers of a failover, one to each slot, while it goes on.
    failover: Option<Box<Failover>>,
    /// Their znodes, and room for a value.
    own_paths: Vec<String>,
    own_value: Vec<u8>,
    generator: Option<Generator>,
    templates: Templates,
    value: Vec<u8>,
    watched: String,
    /// Where the search for a session with room goes on.
    round_robin: usize,
    /// Sessions that were dealt something in this turn.
    dealt: Vec<usize>,
}

/// Which sessions a worker has: global numbers, and whether the last is the writer of the watch workload.
#[derive(Clone, Debug)]
pub struct Share {
    pub worker: usize,
    pub sessions: Range<u32>,
    pub has_writer: bool,
}

impl Worker {
    pub fn new(
        plan: Arc<Plan>,
        share: Share,
        clock: Clock,
        poll: Poll,
        commands: Receiver<Command>,
        reports: Sender<(usize, Report)>,
    ) -> io::Result<Worker> {
        let timer = Timer::new(poll.registry(), TIMER)?;
        let value = value(plan.value_size, plan.seed);
        let slots = share.sessions.clone().map(|number| Slot {
            session: Session::new(plan.session_timeout_ms, plan.depth),
            counted: Phase::Down,
            stream: None,
            server: number as usize % plan.servers.len(),
            failures: 0,
            since: Time(0),
            own: OwnZnodes { session: number, created: 0, deleted: 0 },
            watch: Watch::Unarmed,
        });
        let first_key = (plan.keys as u64 * share.worker as u64 / plan.threads as u64) as u32;
        let generator = match &plan.workload {
            Workload::Mix(mix) => Some(Generator {
                mix: mix.clone(),
                dice: Dice::new(plan.seed, share.worker as u64 + 1),
                keys: KeyChooser::new(plan.distribution, plan.keys, first_key),
            }),
            Workload::Fill | Workload::Watch | Workload::Storm | Workload::Idle | Workload::Failover => None,
        };
        Ok(Worker {
            slots: slots.collect(),
            clock,
            commands,
            reports,
            number: share.worker,
            timer,
            poll,
            buffer: vec![0; READ_BYTES],
            down: BTreeSet::new(),
            writer: if share.has_writer { share.sessions.len().checked_sub(1) } else { None },
            parked: Vec::new(),
            handshakes: 0,
            up: 0,
            has_opened: false,
            is_closing: false,
            progress_at: clock.now(),
            answered_at: clock.now(),
            last_loss: None,
            housekeeping_at: Time(0),
            housekeeping: HOUSEKEEPING,
            stretch: None,
            started: false,
            draining_since: None,
            set_was_lost: false,
            again: Vec::new(),
            recorder: Recorder::default(),
            failover: None,
            own_paths: plan.paths.writers(plan.servers.len() as u32).collect(),
            own_value: Vec::new(),
            generator,
            templates: Templates::new(&plan.paths, &value, plan.multi_size),
            value,
            watched: plan.paths.watched(),
            round_robin: 0,
            dealt: Vec::new(),
            plan,
        })
    }

    /// Runs until it was told to close and has closed.
    pub fn run(mut self) {
        if self.plan.workload != Workload::Storm || self.plan.fill.is_some() {
            self.down = (0..self.slots.len()).map(|slot| (Time(0), slot)).collect();
        }
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while !self.turn() {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return self.fail(LoadError::Local { doing: "waiting for sockets", why: error.to_string() });
                }
                Err(_) | Ok(()) => {}
            }
            for event in &events {
                match event.token() {
                    WAKE => {}
                    TIMER => self.timer.clear(),
                    Token(slot) => self.on_ready(slot, event.is_read_closed()),
                }
            }
        }
    }

    fn report(&self, report: Report) {
        // The coordinator may be gone already; then nobody needs to know.
        let _ = self.reports.send((self.number, report));
    }

    fn fail(&self, error: LoadError) {
        self.report(Report::Failed(error));
    }

    fn timeout(&self) -> Duration {
        let now = self.clock.now();
        let mut at = self.housekeeping_at;
        if let Some(stretch) = &self.stretch {
            at = at.min(self.recorder.boundary());
            if !self.started {
                at = at.min(stretch.start);
            }
            if let (Some(until), None) = (stretch.until, self.draining_since) {
                at = at.min(until);
            }
        }
        if let Some((retry, _)) = self.down.first()
            && self.handshakes < self.handshakes_max()
        {
            at = at.min(*retry);
        }
        at.saturating_since(now)
    }

    /// What time brings, as opposed to sockets. True: the worker has ended.
    fn turn(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Begin(stretch) => self.begin(stretch),
                Command::End => self.draining_since = self.draining_since.or_else(|| Some(self.clock.now())),
                Command::Close => self.close_all(),
            }
        }
        let now = self.clock.now();
        self.connect_due(now);
        if self.stretch.is_some() {
            self.go_on(now);
        }
        if now >= self.housekeeping_at {
            self.housekeeping_at = now + self.housekeeping;
            self.keep_house(now);
        }
        let is_closed = self.up == 0 && self.handshakes == 0;
        if self.is_closing && (is_closed || now.saturating_since(self.progress_at) > CLOSE_LIMIT) {
            return true;
        }
        false
    }
}
