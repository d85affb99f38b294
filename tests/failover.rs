//! Three real servers, a paced writer at each of them, and something that happens to one: nobody at the others notices.
//! Nothing is lost, nothing is doubled, no connection breaks, no outcome is unknown, no session expires.
//!
//! Nothing is said about time here; `perf/failover` measures it. `ROUNDS=50` for a long run, `SEED=7` for other moments.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::ensemble::{Ensemble, Shape};
use support::random::Random;
use support::writers::Writers;

const OURS: &str = env!("CARGO_BIN_EXE_oxkeeper");
const ROUNDS_BY_DEFAULT: u64 = 1;
const SERVERS: u16 = 3;
/// Writes that each writer keeps in flight: pending ones must be answered, too, and in their order.
const DEPTH: usize = 4;
/// The moment lies within a second of writes.
const MOMENT_MS: usize = 1000;

fn number_from_env(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value}: not a number")))
}

/// What happens to a server, and what makes it well again: while the writers go on, or when they have ended.
struct Break {
    /// Otherwise it is a follower.
    hits_leader: bool,
    harm: fn(&mut Ensemble, usize),
    heal_early: fn(&mut Ensemble, usize),
    heal: fn(&mut Ensemble, usize),
}

fn nothing(_: &mut Ensemble, _: usize) {}

/// Every acknowledged write is there, and all writers but that of the victim had a quiet day.
fn check(report: &Value, victim: usize, ensemble: &Ensemble) {
    let words = || format!("something happened to server {}\n{report:#}\n{}", victim + 1, ensemble.words());
    assert_eq!((report["lost"].as_u64(), report["doubled"].as_u64()), (Some(0), Some(0)), "{}", words());
    assert!(report["unread"].is_null(), "{}", words());
    let writers = report["writers"].as_array().expect("a list");
    assert_eq!(writers.len(), usize::from(SERVERS));
    for (number, writer) in writers.iter().enumerate().filter(|(number, _)| *number != victim) {
        for what in ["disconnects", "unknown", "expired"] {
            assert_eq!(writer[what].as_u64(), Some(0), "{what} at server {}: {}", number + 1, words());
        }
        let errors = writer["errors"].as_object().expect("a map");
        assert!(errors.is_empty(), "errors at server {}: {}", number + 1, words());
    }
    assert_eq!(writers[victim]["expired"].as_u64(), Some(0), "{}", words());
}

/// Waits until one leads and all others follow; tells who leads.
fn healthy(ensemble: &Ensemble) -> usize {
    ensemble.until("one leads and the others follow", |ensemble| {
        let modes: Vec<_> = ensemble.members.iter().filter_map(|member| member.mode()).collect();
        let count = |name: &str| modes.iter().filter(|mode| *mode == name).count();
        (count("leader"), count("follower")) == (1, usize::from(SERVERS) - 1)
    });
    ensemble.leader()
}

fn one_round(ensemble: &mut Ensemble, random: &mut Random, how: &Break) {
    let servers = usize::from(SERVERS);
    let leader = healthy(ensemble);
    let victim = if how.hits_leader { leader } else { (leader + 1 + random.below(servers - 1)) % servers };
    let mut writers = Writers::start(OURS, ensemble, DEPTH);
    std::thread::sleep(Duration::from_millis(random.below(MOMENT_MS) as u64));
    (how.harm)(ensemble, victim);
    writers.wait_recovered(servers - 1, servers);
    (how.heal_early)(ensemble, victim);
    writers.wait_recovered(servers - 1, servers);
    let report = writers.end();
    check(&report, victim, ensemble);
    (how.heal)(ensemble, victim);
}

fn rounds(how: &Break) {
    let count = number_from_env("ROUNDS").unwrap_or(ROUNDS_BY_DEFAULT);
    let mut random = Random::new(number_from_env("SEED").unwrap_or(1), 0xfa11);
    let mut ensemble = Ensemble::start(OURS, &Shape::of(SERVERS));
    for round in 0..count {
        println!("round {round}");
        one_round(&mut ensemble, &mut random, how);
    }
    healthy(&ensemble);
}

#[test]
fn nobody_notices_that_the_leader_was_killed() {
    let harm = Ensemble::kill;
    rounds(&Break { hits_leader: true, harm, heal_early: Ensemble::start_one, heal: nothing });
}

#[test]
fn nobody_notices_that_the_leader_is_frozen_nor_that_it_wakes() {
    let freeze = |ensemble: &mut Ensemble, at: usize| ensemble.members[at].signal("STOP");
    let thaw = |ensemble: &mut Ensemble, at: usize| ensemble.members[at].signal("CONT");
    rounds(&Break { hits_leader: true, harm: freeze, heal_early: thaw, heal: nothing });
}

#[test]
fn nobody_notices_that_the_leader_is_stopped() {
    let stop = |ensemble: &mut Ensemble, at: usize| {
        ensemble.members[at].signal("TERM");
        let status = ensemble.members[at].wait();
        assert!(status.success(), "a planned stop ends well: {status}");
    };
    rounds(&Break { hits_leader: true, harm: stop, heal_early: nothing, heal: Ensemble::start_one });
}

#[test]
fn nobody_notices_that_a_follower_was_killed() {
    let harm = Ensemble::kill;
    rounds(&Break { hits_leader: false, harm, heal_early: Ensemble::start_one, heal: nothing });
}
