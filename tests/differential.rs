//! The same seeded sequence of operations to Debian's Java server and to ours: every reply and every event agree
//! field by field, once zxids, session ids and times are mapped.
//!
//! `SEEDS=1000` runs so many seeds, `SEED=17` that one alone; `FAILURES=50` goes on behind more that differ. `SERVER_UNDER_TEST=java` compares Java with itself.

mod support;

mod differential {
    pub mod decode;
    pub mod deliberate;
    pub mod driver;
    pub mod generate;
    pub mod known;
    pub mod plan;
    pub mod requests;
    pub mod side;
}

use differential::deliberate::DELIBERATE;
use differential::driver::{Coverage, Pair, settings};
use differential::known::KNOWN;
use support::server::{Program, Server};

/// Seeds that run when nothing else is said: under a minute.
const SEEDS_BY_DEFAULT: u64 = 40;

/// After so many seeds that differ, more would not help.
const FAILURES_MAX: u64 = 5;

/// What 40 seeds must meet, or the sequences have become too tame: a reply's operation and error.
const MUST_BE_SEEN: &[&str] = &[
    "addWatch -5",
    "addWatch 0",
    "auth -115",
    "auth 0",
    "checkWatches -121",
    "checkWatches 0",
    "closeSession 0",
    "create -101",
    "create -102",
    "create -108",
    "create -110",
    "create -114",
    "create -5",
    "create -8",
    "create 0",
    "create2 0",
    "createContainer 0",
    "createTTL -8",
    "createTTL 0",
    "delete -101",
    "delete -102",
    "delete -103",
    "delete -111",
    "delete -8",
    "delete 0",
    "event 0",
    "exists -101",
    "exists 0",
    "getACL -101",
    "getACL 0",
    "getAllChildrenNumber 0",
    "getChildren 0",
    "getChildren2 -101",
    "getChildren2 0",
    "getData -101",
    "getData -102",
    "getData 0",
    "getEphemerals 0",
    "multi -5",
    "multi 0",
    "multi 0, part -101",
    "multi 0, part -102",
    "multi 0, part -103",
    "multi 0, part -110",
    "multi 0, part -111",
    "multi 0, part -114",
    "multi 0, part -8",
    "multiRead 0",
    "reconfig -123",
    "removeWatches -121",
    "removeWatches 0",
    "setACL -101",
    "setACL -102",
    "setACL -103",
    "setACL -114",
    "setACL 0",
    "setData -101",
    "setData -102",
    "setData -103",
    "setData 0",
    "setWatches 0",
    "setWatches2 0",
    "sync 0",
    "taken over ",
    "unknown op -6",
    "whoAmI 0",
];

fn number_from_env(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value}: not a number")))
}

#[test]
fn replies_and_events_agree_with_java() {
    let under_test = Program::under_test(env!("CARGO_BIN_EXE_oxkeeper"));
    let seeds = match (number_from_env("SEED"), number_from_env("SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(SEEDS_BY_DEFAULT),
    };
    let failures_max = number_from_env("FAILURES").unwrap_or(FAILURES_MAX);
    let mut coverage = Coverage::default();
    let mut failures = Vec::new();
    let mut pair: Option<(Pair, tempfile::TempDir)> = None;
    for seed in seeds.clone() {
        let (running, _) = pair.get_or_insert_with(|| {
            let directory = tempfile::tempdir().expect("a temporary directory can be made");
            (Pair::start(&under_test, directory.path()), directory)
        });
        if let Err(difference) = running.run_seed(seed, &mut coverage) {
            let log = running.ours().log();
            let log: Vec<_> = log.lines().rev().take(5).collect();
            failures.push(format!(
                "seed {seed}, again with: SEED={seed} cargo test --test differential\n{difference}  last words of ours: {log:#?}\n"
            ));
            // The two have parted ways: begin again from empty directories.
            pair = None;
            if failures.len() as u64 == failures_max {
                break;
            }
        }
    }
    println!("{:#?}", coverage.seen);
    for known in KNOWN {
        let times = coverage.known.get(known.name).copied().unwrap_or(0);
        println!("deliberate: {} ({times} times): {}", known.name, known.reason);
    }
    assert!(failures.is_empty(), "{} of {seeds:?} differ\n{}", failures.len(), failures.join("\n"));
    for kind in MUST_BE_SEEN {
        let is_seen = coverage.seen.contains_key(*kind) || seeds.end - seeds.start < SEEDS_BY_DEFAULT;
        assert!(is_seen, "{kind} was never met: the sequences are too tame");
    }
    if under_test == Program::Java {
        assert!(coverage.known.is_empty(), "Java differs from itself: {:?}", coverage.known);
    }
}

#[test]
fn deliberate_differences_are_as_listed() {
    let play = |program: &Program, expected: fn(&differential::deliberate::Deliberate) -> Option<&'static str>| {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let server = Server::start(program, directory.path(), &settings());
        for deliberate in DELIBERATE {
            if let Some(expected) = expected(deliberate) {
                let seen = (deliberate.play)(server.address);
                assert_eq!(seen, expected, "{program:?}: {}: {}", deliberate.name, deliberate.reason);
            }
        }
    };
    play(&Program::Java, |deliberate| deliberate.java);
    match Program::under_test(env!("CARGO_BIN_EXE_oxkeeper")) {
        Program::Java => {}
        ours => play(&ours, |deliberate| Some(deliberate.ours)),
    }
}
