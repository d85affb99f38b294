//! `oxkeeper sim`: many seeds, and what a person sees of them.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::args::SimArgs;
use super::ensemble::{self, Report};
use super::scenario::Wish;
use super::trace::Reading;
use crate::types::mutant::{self, Mutant};

/// Lines of the trace that are shown of a seed that fails.
const TAIL: usize = 60;

const NO_MUTANTS: &str = "this build has no mutants: use a debug build, or --features mutants";

/// What all seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub seeds: u64,
    pub events: u64,
    pub operations: u64,
    pub answered: u64,
    pub faults: u64,
    pub txns: u64,
    /// Seeds that found something, in order.
    pub failed: Vec<Report>,
}

impl Totals {
    fn add(&mut self, report: Report) {
        self.seeds += 1;
        self.events += report.events;
        self.operations += report.operations as u64;
        self.answered += report.answered as u64;
        self.faults += report.faults as u64;
        self.txns += report.txns as u64;
        if report.violation.is_some() {
            self.failed.push(report);
        }
    }
}

/// Runs seeds on some threads, until one fails unless `keep_going`.
pub fn run_seeds(seeds: Range<u64>, wish: Wish, threads: usize, mutant: Option<Mutant>, keep_going: bool) -> Totals {
    let next = AtomicU64::new(seeds.start);
    let is_over = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    let work = || {
        mutant::activate(mutant);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || is_over.load(Ordering::Relaxed) {
                break;
            }
            let report = run_caught(seed, wish);
            if report.violation.is_some() && !keep_going {
                is_over.store(true, Ordering::Relaxed);
            }
            totals.lock().expect("nobody panics while adding").add(report);
        }
        mutant::activate(None);
    };
    std::thread::scope(|scope| {
        (0..threads.max(1)).for_each(|_| drop(scope.spawn(work)));
    });
    let mut totals = totals.into_inner().expect("nobody panics while adding");
    totals.failed.sort_by_key(|report| report.seed);
    totals
}

/// A failed assertion of a machine is a find like any other, where panics can be caught.
fn run_caught(seed: u64, wish: Wish) -> Report {
    std::panic::catch_unwind(|| ensemble::run(seed, wish, Reading::Nobody)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("of an unknown kind");
        Report { seed, violation: Some(format!("panic: {text}")), ..Report::default() }
    })
}

/// The subcommand.
pub fn run(args: SimArgs) -> ExitCode {
    match try_run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(what) => {
            eprintln!("oxkeeper sim: {what}");
            ExitCode::from(2)
        }
    }
}

fn try_run(args: &SimArgs) -> Result<bool, String> {
    if args.mutant.as_deref() == Some("list") {
        Mutant::ALL.iter().for_each(|mutant| println!("{mutant}"));
        return Ok(true);
    }
    let seeds = parse_seeds(&args.seeds)?;
    if args.mutants {
        return hunt_mutants(args, &seeds);
    }
    let mutant = args.mutant.as_deref().map(parse_mutant).transpose()?;
    let wish =
        Wish { servers: args.servers, observers: args.observers, faults_for: Duration::from_secs(args.seconds.max(1)) };
    say_which_seed_panics();
    if args.trace {
        mutant::activate(mutant);
        let report = ensemble::run(seeds.start, wish, Reading::Printed(0));
        mutant::activate(None);
        println!("seed {} hash {:016x}", report.seed, report.hash);
        report.violation.iter().for_each(|violation| println!("violation: {violation}"));
        return Ok(report.violation.is_none());
    }
    let start = Instant::now();
    let totals = run_seeds(seeds, wish, args.threads, mutant, args.keep_going);
    print(&totals, start.elapsed(), args.threads);
    for report in &totals.failed {
        explain(report, wish, mutant);
    }
    Ok(totals.failed.is_empty())
}

/// Puts back one bug after the other, each in a process of its own: a failed assertion ends it.
fn hunt_mutants(args: &SimArgs, seeds: &Range<u64>) -> Result<bool, String> {
    if !mutant::IS_SWITCHABLE {
        return Err(NO_MUTANTS.to_owned());
    }
    let program = std::env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    let mut all_found = true;
    for mutant in Mutant::ALL {
        let mut command = std::process::Command::new(&program);
        command.args(["sim", "--mutant", &mutant.to_string(), "--seeds", &format!("{}..{}", seeds.start, seeds.end)]);
        command.args(["--seconds", &args.seconds.to_string()]);
        if let Some(servers) = args.servers {
            command.args(["--servers", &servers.to_string()]);
        }
        let output = command.output().map_err(|error| format!("{}: {error}", program.display()))?;
        let (found, what) = (!output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned());
        let taken = match what.split_once(" seeds in ") {
            Some((count, _)) => count.to_owned(),
            // It ended in the middle, and said where.
            None => said_seed(&String::from_utf8_lossy(&output.stderr)),
        };
        let violation = what.lines().find_map(|line| line.strip_prefix("violation: ")).unwrap_or("a failed assertion");
        match found {
            true => println!("{:<24} {taken:>5} seeds: {}", mutant.to_string(), shortened(violation)),
            false => println!("{:<24} not found in {taken} seeds", mutant.to_string()),
        }
        all_found &= found;
    }
    Ok(all_found)
}

fn said_seed(text: &str) -> String {
    let seed = text.split_once("in seed ").and_then(|(_, rest)| rest.split(':').next());
    seed.unwrap_or("?").to_owned()
}

fn shortened(text: &str) -> String {
    text.chars().take(110).collect()
}

/// A failed assertion ends the process, so it has to say where it was.
fn say_which_seed_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        usual(info);
        ensemble::with_current_seed(|seed| eprintln!("in seed {seed}: oxkeeper sim --seeds {seed} --trace replays it"));
    }));
}

fn print(totals: &Totals, took: Duration, threads: usize) {
    let each = |sum: u64| sum / totals.seeds.max(1);
    let per_minute = totals.seeds as f64 * 60.0 / took.as_secs_f64() / threads.max(1) as f64;
    println!(
        "{} seeds in {:.1} s, {per_minute:.0} per thread and minute; each with {} operations ({} answered), {} faults, \
         {} txns, {} events",
        totals.seeds,
        took.as_secs_f64(),
        each(totals.operations),
        each(totals.answered),
        each(totals.faults),
        each(totals.txns),
        each(totals.events)
    );
}

/// A failing seed once more, with its trace.
fn explain(report: &Report, wish: Wish, mutant: Option<Mutant>) {
    mutant::activate(mutant);
    let again = ensemble::run(report.seed, wish, Reading::Tail(TAIL));
    mutant::activate(None);
    println!();
    again.tail.iter().for_each(|line| println!("{line}"));
    let mut flags = format!(" --seconds {}", wish.faults_for.as_secs());
    flags.extend(wish.servers.map(|servers| format!(" --servers {servers}")));
    println!("seed {} fails; replay: oxkeeper sim --seeds {}{flags} --trace", report.seed, report.seed);
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is no seed: give N or A..B"));
    match text.split_once("..") {
        None => number(text).map(|seed| seed..seed + 1),
        Some((first, end)) => Ok(number(first)?..number(end)?),
    }
}

fn parse_mutant(name: &str) -> Result<Mutant, String> {
    if !mutant::IS_SWITCHABLE {
        return Err(NO_MUTANTS.to_owned());
    }
    Mutant::from_name(name).ok_or_else(|| format!("no mutant {name}; --mutant list shows them"))
}
