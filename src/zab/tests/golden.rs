//! Golden traces of every exchange on the quorum port, named after the actions of ZooKeeper's system specification.
//! `UPDATE_GOLDEN=1` writes them anew: read the difference.

use std::path::Path;

use super::super::testing::{Trace, World};
use super::*;

/// Compares with the file, or writes it.
fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zab").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == text, "{} differs; UPDATE_GOLDEN=1 writes it anew. Now:\n{text}", path.display());
}

/// An ensemble whose election is over, or any other beginning that is told elsewhere.
fn world(voters: i64, observers: i64, has_extensions: bool) -> World {
    let mut world = World::new(voters, observers, 5);
    world.has_extensions = has_extensions;
    world.trace = Some(Trace::default());
    world
}

/// What happens in `act`, until everybody who runs is even again.
fn trace(world: &mut World, act: impl FnOnce(&mut World)) -> String {
    let taken = |world: &mut World| world.trace.as_mut().map(Trace::take).unwrap_or_default();
    taken(world);
    act(world);
    taken(world)
}

fn settle_down(world: &mut World) {
    world.run_until("all are even", |world| world.leader().is_some() && is_even(world));
    world.run(10);
}

fn start_all(world: &mut World) {
    let all: Vec<_> = world.servers.keys().copied().filter(|id| !world.is_up(*id)).collect();
    all.into_iter().for_each(|id| world.start(id));
    settle_down(world);
}

#[test]
fn leader_process_follower_info_and_ack_epoch() {
    for (name, has_extensions) in [("LeaderProcessFOLLOWERINFO", true), ("LeaderProcessFOLLOWERINFO.java", false)] {
        let mut world = world(3, 0, has_extensions);
        check(name, &trace(&mut world, start_all));
    }
}

#[test]
fn leader_process_request_and_follower_process_commit() {
    for (name, has_extensions) in [("LeaderProcessRequest", true), ("LeaderProcessRequest.java", false)] {
        let mut world = world(3, 1, has_extensions);
        trace(&mut world, start_all);
        let text = trace(&mut world, |world| {
            let leader = world.leader().unwrap();
            for _ in 0..3 {
                world.propose(leader).unwrap();
            }
            world.run(8);
        });
        check(name, &text);
    }
}

#[test]
fn leader_sync_follower_with_diff() {
    for (name, has_extensions) in [("LeaderSyncFollower.DIFF", true), ("LeaderSyncFollower.DIFF.java", false)] {
        let mut world = world(3, 0, has_extensions);
        trace(&mut world, start_all);
        let away = (1..=3).find(|id| Some(*id) != world.leader()).unwrap();
        write(&mut world, 2);
        settle_down(&mut world);
        world.crash(away);
        write(&mut world, 3);
        let text = trace(&mut world, |world| {
            world.start(away);
            settle_down(world);
        });
        check(name, &text);
    }
}

#[test]
fn leader_sync_follower_from_the_log_and_with_snap() {
    for (name, purges) in [("LeaderSyncFollower.DIFF.log", false), ("LeaderSyncFollower.SNAP", true)] {
        let mut world = world(3, 0, true);
        trace(&mut world, start_all);
        let away = (1..=3).find(|id| Some(*id) != world.leader()).unwrap();
        world.crash(away);
        write(&mut world, 14);
        if purges {
            (1..=3).for_each(|id| world.purge(id));
        }
        let text = trace(&mut world, |world| {
            world.start(away);
            settle_down(world);
        });
        check(name, &text);
    }
}

#[test]
fn leader_sync_follower_with_trunc() {
    let mut world = world(3, 0, true);
    trace(&mut world, start_all);
    write(&mut world, 2);
    settle_down(&mut world);
    let old = world.leader().unwrap();
    // What nobody else hears of.
    (1..=3).filter(|id| *id != old).for_each(|id| world.cut_off(old, id));
    for _ in 0..2 {
        world.propose(old).unwrap();
    }
    world.run(5);
    world.crash(old);
    world.cut.clear();
    world.run_until("another leads", |world| world.leader().is_some());
    write(&mut world, 1);
    let text = trace(&mut world, |world| {
        world.start(old);
        settle_down(world);
    });
    check("LeaderSyncFollower.TRUNC", &text);
}

#[test]
fn observers_learn() {
    let mut world = world(3, 1, true);
    (1..=3).for_each(|id| world.start(id));
    settle_down(&mut world);
    write(&mut world, 2);
    let text = trace(&mut world, |world| {
        world.start(4);
        settle_down(world);
        let leader = world.leader().unwrap();
        for _ in 0..2 {
            world.propose(leader).unwrap();
        }
        world.run(8);
    });
    check("LeaderSyncObserver", &text);
}

#[test]
fn requests_syncs_and_sessions_of_learners() {
    for (name, has_extensions) in [("FollowerProcessRequest", true), ("FollowerProcessRequest.java", false)] {
        let mut world = world(3, 0, has_extensions);
        trace(&mut world, start_all);
        let follower = (1..=3).find(|id| Some(*id) != world.leader()).unwrap();
        let text = trace(&mut world, |world| {
            world.request(follower, 9);
            world.request(follower, 5);
            world.request(follower, 9);
            world.request(follower, 5);
            world.input(follower, Input::Revalidate { session: SessionId(77), timeout_ms: 4000 });
            world.input(follower, Input::Revalidate { session: SessionId(-1), timeout_ms: 4000 });
            world.input(follower, Input::Touched { session: SessionId(77), timeout_ms: 4000 });
            world.run(if world.has_extensions { 30 } else { 1030 });
        });
        check(name, &text);
    }
}

#[test]
fn a_leader_crashes() {
    let mut world = world(3, 0, true);
    trace(&mut world, start_all);
    write(&mut world, 2);
    settle_down(&mut world);
    let old = world.leader().unwrap();
    let text = trace(&mut world, |world| {
        world.propose(old);
        world.run(1);
        world.crash(old);
        settle_down(world);
    });
    check("NodeCrash", &text);
}

#[test]
fn a_leader_hands_over() {
    let mut world = world(3, 0, true);
    trace(&mut world, start_all);
    write(&mut world, 2);
    settle_down(&mut world);
    let old = world.leader().unwrap();
    let text = trace(&mut world, |world| {
        world.propose(old);
        world.input(old, Input::Stop);
        settle_down(world);
    });
    check("LeaderHandOver", &text);
}
