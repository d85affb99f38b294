//! Whole servers from seeds: `src/sim/` runs and checks them, this says which.
//!
//! A seed that fails prints how to replay it, and the last lines of its trace.

use std::time::Duration;

use oxkeeper::sim::ensemble::{self, Report};
use oxkeeper::sim::run::{Totals, run_seeds};
use oxkeeper::sim::scenario::Wish;
use oxkeeper::sim::trace::Reading;
use oxkeeper::types::mutant::Mutant;

/// Two cores, as CI has them.
const THREADS: usize = 2;

/// Shorter than from the command line, so that a thousand seeds fit into the inner gate.
fn short() -> Wish {
    Wish { faults_for: Duration::from_secs(6), ..Wish::default() }
}

/// The lines that explain a failure.
fn explain(report: &Report, wish: Wish) -> String {
    let again = ensemble::run(report.seed, wish, Reading::Tail(80));
    let seconds = wish.faults_for.as_secs();
    format!("{}\nreplay: oxkeeper sim --seeds {} --seconds {seconds} --trace", again.tail.join("\n"), report.seed)
}

fn check(totals: &Totals, wish: Wish) {
    if let Some(report) = totals.failed.first() {
        panic!("{} of {} seeds fail, the first:\n{}", totals.failed.len(), totals.seeds, explain(report, wish));
    }
}

#[test]
fn a_thousand_seeds_keep_every_promise() {
    let totals = run_seeds(1..1001, short(), THREADS, None, false);
    check(&totals, short());
    assert_eq!(totals.seeds, 1000);
    assert!(totals.answered > 100 * totals.seeds, "clients get something done: {totals:?}");
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 7, 1234] {
        let run = || ensemble::run(seed, short(), Reading::Nobody);
        let (first, second) = (run(), run());
        assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed}");
        assert_eq!(
            ensemble::run(seed, short(), Reading::Tail(10)).hash,
            first.hash,
            "whether somebody reads it or not"
        );
    }
}

/// Bugs that a simulator must find, or it finds nothing. The whole list, with the seeds that each took:
/// `oxkeeper sim --mutants`.
#[test]
fn known_bugs_are_found_when_they_are_put_back() {
    let bugs = [
        Mutant::AckBeforeFlush,
        Mutant::ReplyBeforeEvents,
        Mutant::ReadsBehindWriteJump,
        Mutant::MultiHalfApplied,
        Mutant::TouchesIgnored,
    ];
    for bug in bugs {
        let totals = run_seeds(1..200, short(), THREADS, Some(bug), false);
        assert!(!totals.failed.is_empty(), "{bug} is not found in {} seeds", totals.seeds);
    }
}
