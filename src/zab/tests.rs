mod golden;

use super::testing::World;
use super::*;

#[test]
fn a_standalone_server_commits_what_it_flushed() {
    let mut zab = Zab::standalone(ServerId(1), Zxid(5));
    let mut out = Vec::new();
    zab.step(Time(0), Input::Propose { zxid: Zxid(6), txn: b"six" }, &mut out);
    zab.step(Time(0), Input::EndOfTurn, &mut out);
    assert!(out.is_empty());
    assert_eq!((zab.role(), zab.phase(), zab.committed()), (RoleName::Leading, Phase::Broadcast, Zxid(5)));
    zab.step(Time(0), Input::Flushed { upto: Zxid(6) }, &mut out);
    assert_eq!(out.iter().map(Output::to_string).collect::<Vec<_>>(), ["commit 0x6"]);
    assert_eq!((zab.committed(), zab.history().last(), zab.deadline()), (Zxid(6), Zxid(6), None));
}

fn started(voters: i64, observers: i64, seed: u64) -> World {
    let mut world = World::new(voters, observers, seed);
    (1..=voters + observers).for_each(|id| world.start(id));
    world.run_until("a leader serves", |world| world.leader().is_some());
    world
}

/// Every server that runs has all that was decided, and knows it.
fn is_even(world: &World) -> bool {
    let last = world.decided.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid);
    let is_up = |id: i64| world.is_up(id) && world.zab(id).phase() == Phase::Broadcast;
    world.servers.keys().all(|id| !world.is_up(*id) || (is_up(*id) && world.servers[id].published >= last))
}

/// Writes until so many more txns are decided, by whoever leads.
fn write(world: &mut World, count: usize) {
    let goal = world.decided.len() + count;
    for _ in 0..2000 {
        if world.decided.len() >= goal {
            return;
        }
        if let Some(leader) = world.leader() {
            let undecided = world.servers[&leader].txns().len().saturating_sub(world.decided.len());
            for _ in undecided..goal - world.decided.len() {
                world.propose(leader);
            }
        }
        world.run(20);
    }
    panic!("never: {count} txns more are decided");
}

#[test]
fn three_servers_elect_one_and_decide() {
    let mut world = started(3, 0, 1);
    write(&mut world, 100);
    world.run_until("all have it", is_even);
    assert_eq!(world.decided.len(), 100);
    assert_eq!(world.zab(world.leader().unwrap()).role(), RoleName::Leading);
}

#[test]
fn a_dead_leader_is_followed_by_another_soon() {
    for seed in 0..20 {
        let mut world = started(3, 0, seed);
        write(&mut world, 10);
        let (old, at) = (world.leader().unwrap(), world.now);
        world.crash(old);
        world.run_until("another leads", |world| world.leader().is_some_and(|id| id != old));
        let pause = world.now.saturating_since(at);
        assert!(pause < Duration::from_millis(60), "seed {seed}: {pause:?}");
        write(&mut world, 10);
        world.start(old);
        world.run_until("it has caught up", is_even);
    }
}

#[test]
fn a_silent_leader_is_left_and_comes_back_as_a_follower() {
    for seed in 0..10 {
        let mut world = started(3, 0, seed);
        write(&mut world, 10);
        let old = world.leader().unwrap();
        world.propose(old);
        for other in (1..=3).filter(|id| *id != old) {
            world.cut_off(old, other);
        }
        world.run_until("another leads", |world| world.leader().is_some_and(|id| id != old));
        write(&mut world, 3);
        world.cut.clear();
        world.run_until("the old one follows", is_even);
        assert_eq!(world.zab(old).role(), RoleName::Following, "seed {seed}");
    }
}

#[test]
fn whoever_was_away_gets_a_diff_from_memory_or_files_or_a_snapshot() {
    for (missed, purges) in [(3, false), (50, false), (50, true)] {
        let mut world = started(3, 1, 7);
        write(&mut world, 5);
        world.run_until("all have it", is_even);
        let leader = world.leader().unwrap();
        let away = (1..=3).find(|id| *id != leader).unwrap();
        world.crash(away);
        world.crash(4);
        write(&mut world, missed);
        if purges {
            (1..=3).for_each(|id| world.purge(id));
        }
        world.start(away);
        world.start(4);
        world.run_until("they have caught up", is_even);
        assert_eq!(world.servers[&away].txns(), world.decided);
        assert_eq!(world.servers[&4].txns(), world.decided);
        assert_eq!(world.zab(4).role(), RoleName::Observing);
    }
}

#[test]
fn what_learners_pass_on_is_answered_once_and_in_order() {
    for has_extensions in [true, false] {
        let mut world = World::new(3, 1, 11);
        world.has_extensions = has_extensions;
        (1..=4).for_each(|id| world.start(id));
        world.run_until("all serve", |world| world.leader().is_some() && is_even(world));
        let leader = world.leader().unwrap();
        let learners: Vec<_> = (1..=4).filter(|id| *id != leader).collect();
        for round in 0..200 {
            for id in &learners {
                world.request(*id, if round % 3 == 0 { 9 } else { 5 });
            }
            world.run(round % 2);
        }
        world.run_until("all is answered", |world| learners.iter().all(|id| world.servers[id].answered == 200));
    }
}

#[test]
fn a_planned_stop_hands_over() {
    for seed in 0..10 {
        let mut world = started(3, 0, seed);
        write(&mut world, 10);
        world.run_until("all have it", is_even);
        let (old, at) = (world.leader().unwrap(), world.now);
        world.propose(old);
        world.input(old, Input::Stop);
        world.run_until("another leads", |world| world.leader().is_some_and(|id| id != old));
        let pause = world.now.saturating_since(at);
        assert!(pause < Duration::from_millis(30), "seed {seed}: {pause:?}");
        assert_eq!(world.decided.len(), 11, "what was under way is decided first");
        write(&mut world, 3);
        world.run_until("all have it", is_even);
    }
}

#[test]
fn a_leader_that_resigns_becomes_a_follower() {
    let mut world = started(3, 1, 3);
    write(&mut world, 10);
    let old = world.leader().unwrap();
    world.run_until("all have it", is_even);
    world.input(old, Input::Resign);
    world.run_until("another leads", |world| world.leader().is_some_and(|id| id != old));
    world.run_until("all follow", is_even);
    assert_eq!(world.zab(old).role(), RoleName::Following);
}

/// Crashes, cuts, purges and writes at random, then peace.
fn storm(voters: i64, observers: i64, seed: u64, has_extensions: bool) {
    let mut world = World::new(voters, observers, seed);
    world.has_extensions = has_extensions;
    world.prints = std::env::var_os("ZAB_SEED").is_some();
    let all = voters + observers;
    (1..=all).for_each(|id| world.start(id));
    for _ in 0..60 {
        let pause = world.random.below(120);
        world.run(pause);
        let id = 1 + world.random.below(all as u64) as i64;
        let other = 1 + world.random.below(all as u64) as i64;
        match world.random.below(10) {
            0 if world.is_up(id) => world.crash(id),
            0..=2 if !world.is_up(id) => world.start(id),
            3 if id != other => world.cut_off(id, other),
            4 | 5 => world.cut.clear(),
            6 => world.purge(id),
            7 if world.is_up(id) => world.input(id, Input::Resign),
            8 => {
                for _ in 0..world.random.below(20) {
                    let op = if world.random.below(3) == 0 { 9 } else { 5 };
                    world.request(id, op);
                    world.request(other, 5);
                }
            }
            _ => {
                for _ in 0..world.random.below(20) {
                    if let Some(leader) = world.leader() {
                        world.propose(leader);
                    }
                }
            }
        }
    }
    world.cut.clear();
    (1..=all).filter(|id| !world.is_up(*id)).collect::<Vec<_>>().into_iter().for_each(|id| world.start(id));
    world.run_until("a leader serves again", |world| world.leader().is_some());
    world.run(100);
    world.run_until("a leader serves again", |world| world.leader().is_some());
    write(&mut world, 5);
    world.run_until("all are even", is_even);
    world.run_until("nothing undecided is left", |world| {
        world.servers.values().all(|server| server.txns() == world.decided)
    });
}

/// `ZAB_SEED` picks one and prints all of it; `ZAB_STORMS` says how many.
fn storms(first: u64, count: u64, has_extensions: bool) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("ZAB_SEED") {
        Some(only) => only..only + 1,
        None => first..first + number("ZAB_STORMS").unwrap_or(count),
    };
    for seed in seeds {
        if number("ZAB_SEED").is_some() {
            let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_test_writer().try_init();
        }
        let (voters, observers) = [(3, 0), (3, 1), (5, 0), (4, 1)][(seed % 4) as usize];
        let done = std::panic::catch_unwind(|| storm(voters, observers, seed, has_extensions));
        if done.is_err() {
            panic!("seed {seed} fails; replay it alone with ZAB_SEED={seed}");
        }
    }
}

#[test]
fn nothing_decided_is_lost_in_a_storm() {
    storms(0, 48, true);
}

#[test]
fn nothing_decided_is_lost_in_a_storm_without_extensions() {
    storms(1000, 24, false);
}
