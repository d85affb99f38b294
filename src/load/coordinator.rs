//! The whole run: set-up, workers, stretches, clean-up, reports.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use mio::{Poll, Waker};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::admin::{self, Admin};
use super::args::BenchArgs;
use super::error::{LoadError, code_name};
use super::failover::{self, read_back::read_back};
use super::fan_out::FanOut;
use super::paths::KEYS_PER_DIRECTORY;
use super::plan::Plan;
use super::report::progress::Progress;
use super::report::{self, Summary};
use super::requests::value;
use super::schedule::Schedule;
use super::stage::Stage;
use super::worker::{Clock, Command, Report, Share, Stretch, WAKE, Work, Worker};
use super::workload::{Op, Workload};
use crate::types::error_code::ErrorCode;
use crate::types::time::Time;

/// Time for all workers to hear of a stretch before it starts.
const LEAD: Duration = Duration::from_millis(20);
/// Longest silence of all workers before they are held for dead: longer than any drain.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// How often an interrupt is looked for.
const LOOK: Duration = Duration::from_millis(100);
/// How often removing is begun, when connections are lost on the way.
const CLEAN_UP_ATTEMPTS: u32 = 5;
/// Descriptors besides those of sessions.
const SPARE_DESCRIPTORS: u64 = 64;

/// Runs the command. Success means that the run took place, whatever the numbers; but a server that lost an acknowledged
/// write or applied one twice is no success.
pub fn run(args: BenchArgs) -> ExitCode {
    let written = bench(&args).and_then(|summary| report::write(&args, &summary).map(|()| summary));
    match written {
        Ok(Summary { failover: Some(failover), .. }) if !failover.is_sound() => {
            eprint!("{}", failover.accusation());
            ExitCode::FAILURE
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("oxkeeper bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The whole run but for writing reports.
pub fn bench(args: &BenchArgs) -> Result<Summary, LoadError> {
    let plan = Arc::new(Plan::new(args)?);
    let progress = Progress::new(!args.quiet, std::io::stderr().is_terminal(), args.progress);
    raise_descriptors(&plan)?;
    if plan.exceeds_default_frame() {
        progress.note("requests may exceed jute.maxbuffer (1 MB unless set): a server then closes the connection");
    }
    let started_at = SystemTime::now();
    let mut admin = Admin::connect(&plan)?;
    let version = admin::server_version(admin.server());
    let made = prepare(&plan, &mut admin)?;
    admin.close();
    let mut crew = Crew::start(&plan, Interrupt::catch()?)?;
    let mut outcome = crew.work(&progress);
    if let Ok(Outcome { run: Some(Stage { failover: Some(failover), .. }), .. }) = &mut outcome {
        progress.state("reading back what was written");
        read_back(&plan, failover);
    }
    if !plan.keep && outcome.is_ok() {
        progress.state("cleaning up");
        crew.remove_keys(&progress);
    }
    crew.close();
    // What was measured is worth more than a clean server: trouble in cleaning up is told and no more. A run that
    // failed has tried the server long enough.
    let attempts = if outcome.is_ok() { CLEAN_UP_ATTEMPTS } else { 1 };
    if !plan.keep
        && let Err(error) = clean_up(&plan, &made, attempts)
        && outcome.is_ok()
    {
        let prefix = &plan.paths.prefix;
        progress.note(&format!("znodes may be left below {prefix}: {error}"));
    }
    progress.end();
    let outcome = outcome?;
    Ok(Summary::new(args, &plan, version, started_at, &outcome))
}

/// Each session is a descriptor.
fn raise_descriptors(plan: &Plan) -> Result<(), LoadError> {
    let local = |why: String| LoadError::Local { doing: "raising the limit of open files", why };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| local(error.to_string()))?;
    let needed = plan.sessions as u64 + SPARE_DESCRIPTORS;
    if hard < needed {
        return Err(local(format!(
            "{needed} are needed for {} sessions, {hard} are allowed; `ulimit -Hn {needed}` as root, or fewer --sessions",
            plan.sessions
        )));
    }
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(|error| local(error.to_string()))?;
    }
    Ok(())
}

/// Makes what must stand before the workers come. Tells which znodes of the prefix were not there before.
fn prepare(plan: &Plan, admin: &mut Admin) -> Result<Vec<String>, LoadError> {
    let paths = &plan.paths;
    let made = admin.make_prefix(&paths.prefix)?;
    let directories = plan.prepared_keys().div_ceil(KEYS_PER_DIRECTORY);
    if plan.workload.creates() {
        // What an earlier run kept would be in the way of this one's creates.
        admin.sweep_own(&paths.prefix)?;
        admin.make((0..plan.sessions as u32).map(|session| paths.own_directory(session)), b"")?;
    }
    admin.make((0..directories).map(|directory| paths.key_directory(directory)), b"")?;
    if plan.workload == Workload::Watch {
        admin.make(std::iter::once(paths.watched()), &value(plan.value_size, plan.seed))?;
    }
    if plan.workload == Workload::Failover {
        // Fresh ones: their versions count from 0.
        admin.remove(paths.writers(plan.sessions as u32))?;
        admin.make(paths.writers(plan.sessions as u32), b"")?;
    }
    Ok(made)
}

/// Removes what the run made. Begins again when the connection is lost on the way: removing is idempotent.
fn clean_up(plan: &Plan, made: &[String], attempts: u32) -> Result<(), LoadError> {
    let mut outcome = Ok(());
    for _ in 0..attempts {
        outcome = try_clean_up(plan, made);
        match &outcome {
            Err(LoadError::Closed { .. } | LoadError::Unreachable { .. }) => {}
            Ok(()) | Err(_) => break,
        }
    }
    outcome
}

fn try_clean_up(plan: &Plan, made: &[String]) -> Result<(), LoadError> {
    let mut admin = Admin::connect(plan)?;
    admin.sweep(&plan.paths.prefix)?;
    for path in made.iter().rev() {
        admin.remove(std::iter::once(path.clone()))?;
    }
    admin.close();
    Ok(())
}

/// Ctrl-C and SIGTERM: the first ends the run early, the second the process at once.
#[derive(Clone, Debug)]
struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    fn catch() -> Result<Interrupt, LoadError> {
        const EXIT_STATUS: i32 = 130;
        let came = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, EXIT_STATUS, came.clone())
                .and_then(|_| flag::register(signal, came.clone()))
                .map_err(|error| LoadError::Local { doing: "catching signals", why: error.to_string() })?;
        }
        Ok(Interrupt(came))
    }

    fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a run gave.
#[derive(Debug)]
pub struct Outcome {
    /// How long it took until all sessions stood, and how many those are; `None` in a storm.
    pub opened: Option<(usize, Duration)>,
    pub fill: Option<Stage>,
    pub run: Option<Stage>,
}

/// The workers, seen from the starting thread.
struct Crew {
    plan: Arc<Plan>,
    clock: Clock,
    hands: Vec<Hand>,
    reports: Receiver<(usize, Report)>,
    sessions: usize,
    interrupt: Interrupt,
}

struct Hand {
    commands: Sender<Command>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Hand {
    fn tell(&self, command: Command) {
        // A worker that is gone has reported why.
        let _ = self.commands.send(command);
        let _ = self.waker.wake();
    }
}

impl Crew {
    fn start(plan: &Arc<Plan>, interrupt: Interrupt) -> Result<Crew, LoadError> {
        let local = |error: std::io::Error| LoadError::Local { doing: "starting the workers", why: error.to_string() };
        let clock = Clock::start();
        let has_writer = plan.workload == Workload::Watch;
        let sessions = plan.sessions + has_writer as usize;
        let (sender, reports) = channel();
        let mut hands = Vec::new();
        for worker in 0..plan.threads {
            let poll = Poll::new().map_err(local)?;
            let waker = Arc::new(Waker::new(poll.registry(), WAKE).map_err(local)?);
            let (commands, receiver) = channel();
            let bound = |worker: usize| (sessions * worker / plan.threads) as u32;
            let share = Share {
                worker,
                sessions: bound(worker)..bound(worker + 1),
                has_writer: has_writer && worker + 1 == plan.threads,
            };
            let worker = Worker::new(plan.clone(), share, clock, poll, receiver, sender.clone()).map_err(local)?;
            let thread = std::thread::Builder::new().name("bench".into()).spawn(move || worker.run()).map_err(local)?;
            hands.push(Hand { commands, waker, thread: Some(thread) });
        }
        Ok(Crew { plan: plan.clone(), clock, hands, reports, sessions, interrupt })
    }

    fn work(&mut self, progress: &Progress) -> Result<Outcome, LoadError> {
        let plan = self.plan.clone();
        let opening = Instant::now();
        progress.state(&format!("opening {} sessions", self.sessions));
        self.all_opened()?;
        let opens = plan.workload != Workload::Storm || plan.fill.is_some();
        let opened = opens.then(|| (self.sessions, opening.elapsed()));
        let fill = match plan.prepared_keys() {
            0 => None,
            keys => Some(self.fill(keys, progress)?),
        };
        // Only a fill that was asked for is news.
        let fill = fill.filter(|_| plan.fill.is_some());
        let run = match self.main_work() {
            Some(_) if self.interrupt.came() && fill.is_none() => return Err(LoadError::Interrupted),
            Some(work) if !self.interrupt.came() => {
                let fixed = Some(Fixed { warmup: plan.warmup, duration: plan.duration });
                // Each writer of a failover has a schedule of its own.
                let rate = plan.rate.filter(|_| plan.workload != Workload::Failover);
                let order = Order { work, fixed, rate, may_be_cut: true };
                Some(self.stretch(order, |op| plan.workload.counts(op), progress)?)
            }
            Some(_) | None => None,
        };
        Ok(Outcome { opened, fill, run })
    }

    /// The bulk of clean-up, by all sessions; what is left falls to the sweep.
    fn remove_keys(&mut self, progress: &Progress) {
        let keys = 0..self.plan.prepared_keys();
        if !keys.is_empty() {
            let order = Order { work: Work::Remove(keys), fixed: None, rate: None, may_be_cut: false };
            if let Err(error) = self.stretch(order, |_| false, &Progress::silent()) {
                progress.note(&format!("removing znodes: {error}"));
            }
        }
    }

    fn fill(&mut self, keys: u32, progress: &Progress) -> Result<Stage, LoadError> {
        progress.state(&format!("creating {keys} znodes"));
        let rate = self.plan.rate.filter(|_| self.plan.workload == Workload::Fill);
        let order = Order { work: Work::Fill(0..keys), fixed: None, rate, may_be_cut: true };
        let stage = self.stretch(order, |op| op == Op::Fill, progress)?;
        let fine = [ErrorCode::NodeExists.code(), super::error::CONNECTION_LOSS];
        match stage.total.ops[Op::Fill.index()].errors.iter().find(|(code, _)| !fine.contains(code)) {
            None => Ok(stage),
            Some((code, count)) => Err(LoadError::Answer {
                doing: format!("creating {keys} znodes"),
                error: format!("{} ({count} times)", code_name(*code)),
            }),
        }
    }

    fn main_work(&self) -> Option<Work> {
        match self.plan.workload {
            Workload::Fill => None,
            Workload::Mix(_) => Some(Work::Mix),
            Workload::Storm => Some(Work::Storm),
            Workload::Idle => Some(Work::Idle),
            Workload::Failover => Some(Work::Failover { rate: self.plan.rate.unwrap_or(failover::RATE_DEFAULT) }),
            Workload::Watch => {
                // The writer is the last session of the last worker.
                let writer = self.hands.last()?.waker.clone();
                Some(Work::Watch(Arc::new(FanOut::new(self.plan.sessions, writer))))
            }
        }
    }

    fn next_report(&self, within: Duration) -> Result<Option<(usize, Report)>, LoadError> {
        match self.reports.recv_timeout(within) {
            Ok((_, Report::Failed(error))) => Err(error),
            Ok(report) => Ok(Some(report)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(LoadError::Local { doing: "waiting for the workers", why: "they are gone".to_owned() })
            }
        }
    }

    fn all_opened(&self) -> Result<(), LoadError> {
        let mut missing = self.hands.len();
        while missing > 0 {
            if let Some((_, Report::Opened)) = self.next_report(LOOK)? {
                missing -= 1;
            }
            if self.interrupt.came() {
                return Err(LoadError::Interrupted);
            }
        }
        Ok(())
    }

    /// One stretch on all workers, from telling them to the last answer.
    fn stretch(&mut self, order: Order, counts: impl Fn(Op) -> bool, progress: &Progress) -> Result<Stage, LoadError> {
        let (measure_from, until) = self.tell(&order);
        let is_cut = || order.may_be_cut && self.interrupt.came();
        if order.fixed.is_some_and(|fixed| !fixed.warmup.is_zero()) {
            progress.state("warming up");
        }
        while self.clock.now() < measure_from && !is_cut() {
            std::thread::sleep(measure_from.saturating_since(self.clock.now()).min(LOOK));
        }
        let mut stage = Stage::new(self.hands.len(), self.clock.now());
        let (mut heard_at, mut was_cut) = (Instant::now(), false);
        while !stage.is_done() {
            let to_end = until.map_or(LOOK, |until| until.saturating_since(self.clock.now()));
            let wait = if to_end.is_zero() { LOOK } else { to_end.min(LOOK) };
            if let Some((worker, report)) = self.next_report(wait)? {
                heard_at = Instant::now();
                stage.take(worker, report);
            } else if heard_at.elapsed() > SILENCE_LIMIT {
                let why = format!("no word from them for {} s", SILENCE_LIMIT.as_secs());
                return Err(LoadError::Local { doing: "waiting for the workers", why });
            }
            let now = self.clock.now();
            if !was_cut && is_cut() {
                was_cut = true;
                self.hands.iter().for_each(|hand| hand.tell(Command::End));
            }
            if was_cut || until.is_some_and(|until| now >= until) {
                stage.end_measuring(now);
            }
            while let Some(second) = stage.next_second(&counts) {
                progress.second(second);
            }
        }
        stage.finish(self.clock.now(), order.fixed.map(|fixed| fixed.duration), &counts);
        Ok(stage)
    }

    /// Tells every worker its share. Gives from when and until when is measured.
    fn tell(&self, order: &Order) -> (Time, Option<Time>) {
        let workers = self.hands.len();
        let start = self.clock.now() + LEAD;
        let measure_from = order.fixed.map_or(start, |fixed| start + fixed.warmup);
        let until = order.fixed.map(|fixed| measure_from + fixed.duration);
        let is_watch = matches!(order.work, Work::Watch(_));
        for (worker, hand) in self.hands.iter().enumerate() {
            let schedule = match order.rate {
                None => None,
                // Only the worker that has the writer paces rounds of watches.
                Some(rate) if is_watch => (worker + 1 == workers).then(|| Schedule::new(start, rate, 0, 1)),
                Some(rate) => Some(Schedule::new(start, rate / workers as f64, worker, workers)),
            };
            let work = work_of(&order.work, worker, workers);
            hand.tell(Command::Begin(Stretch { work, start, measure_from, until, schedule }));
        }
        (measure_from, until)
    }

    fn close(mut self) {
        self.hands.iter().for_each(|hand| hand.tell(Command::Close));
        for hand in &mut self.hands {
            if let Some(thread) = hand.thread.take() {
                // A worker that panicked has taken the process with it.
                let _ = thread.join();
            }
        }
    }
}

/// What all workers together do in a stretch.
#[derive(Debug)]
struct Order {
    work: Work,
    /// `None`: until the work is done.
    fixed: Option<Fixed>,
    /// In total.
    rate: Option<f64>,
    /// Ctrl-C ends it early.
    may_be_cut: bool,
}

/// A stretch that ends by the clock.
#[derive(Clone, Copy, Debug)]
struct Fixed {
    warmup: Duration,
    duration: Duration,
}

/// One worker's share of the work.
fn work_of(work: &Work, worker: usize, workers: usize) -> Work {
    let share = |keys: &std::ops::Range<u32>| {
        let bound =
            |worker: usize| keys.start + ((keys.end - keys.start) as u64 * worker as u64 / workers as u64) as u32;
        bound(worker)..bound(worker + 1)
    };
    match work {
        Work::Fill(keys) => Work::Fill(share(keys)),
        Work::Remove(keys) => Work::Remove(share(keys)),
        Work::Mix | Work::Watch(_) | Work::Storm | Work::Idle | Work::Failover { .. } => work.clone(),
    }
}
