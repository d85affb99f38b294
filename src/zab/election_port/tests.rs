mod network;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::QuorumGroups;
use crate::types::ids::ServerId;
use crate::types::zxid::Zxid;
use network::Network;

const MS: Duration = Duration::from_millis(1);

/// `servers` with random histories.
fn network(seed: u64, servers: i64, groups: Option<QuorumGroups>) -> Network {
    with_observers(seed, servers, 0, groups)
}

fn with_observers(seed: u64, voters: i64, observers: i64, groups: Option<QuorumGroups>) -> Network {
    let servers = voters + observers;
    let mut network = Network::new(seed, voters, servers, groups);
    for id in 1..=servers {
        let epoch = network.dice.pick(1..4) as u32;
        let zxid = Zxid::new(epoch, network.dice.pick(0..4) as u32);
        network.set_history(id, zxid, epoch);
    }
    network
}

/// Everybody in `ids` looks within so many milliseconds.
fn look(network: &mut Network, ids: impl IntoIterator<Item = i64>, within_ms: u64) {
    for id in ids {
        let delay = Duration::from_micros(network.dice.pick(0..within_ms * 1000));
        network.look_at(id, delay);
    }
}

fn elect(network: &mut Network, servers: i64, limit: Duration) -> i64 {
    look(network, 1..=servers, 3);
    network.run(limit, "one leader", |network| network.leader(&[]).is_some());
    network.leader(&[]).expect("that is what ended the run")
}

#[test]
fn the_best_vote_wins_when_all_look_at_the_same_time() {
    for seed in 0..150 {
        let servers = [3, 5, 7][seed as usize % 3];
        let mut network = network(seed, servers, None);
        let leader = elect(&mut network, servers, 40 * MS);
        assert_eq!(leader, network.best(), "seed {seed}, {servers} servers");
    }
}

#[test]
fn links_that_break_delay_an_election_and_never_prevent_it() {
    for seed in 0..150 {
        let servers = [3, 5, 7][seed as usize % 3];
        let mut network = network(seed, servers, None);
        network.breaks = 50;
        network.delay_us = 50..5000;
        let within = network.dice.pick(1..200);
        look(&mut network, 1..=servers, within);
        network.run(10_000 * MS, &format!("one leader, seed {seed}"), |network| network.leader(&[]).is_some());
    }
}

#[test]
fn observers_find_their_leader_whatever_breaks() {
    for seed in 0..60 {
        let mut network = with_observers(seed, 3, 3, None);
        network.breaks = 100;
        let within = network.dice.pick(1..200);
        look(&mut network, 1..=6, within);
        network.run(20_000 * MS, &format!("all agree, seed {seed}"), |network| network.leader(&[]).is_some());
        let leader = network.leader(&[]).expect("that is what ended the run");
        assert!(leader <= 3, "seed {seed}");
    }
}

#[test]
fn observers_are_told_at_once_how_an_election_ended() {
    for seed in 0..30 {
        let mut network = with_observers(seed, 3, 2, None);
        elect(&mut network, 5, 60 * MS);
        network.run_for(2000 * MS);
        network.crash(network.best());
        let survivors: Vec<i64> = (1..=5).filter(|id| network.is_running(*id)).collect();
        look(&mut network, survivors, 2);
        network.run(12 * MS, &format!("all agree, seed {seed}"), |network| network.leader(&[]).is_some());
    }
}

#[test]
fn a_dead_leader_is_replaced_without_any_wait() {
    for seed in 0..60 {
        let servers = [3, 5, 7][seed as usize % 3];
        let mut network = network(seed, servers, None);
        let leader = elect(&mut network, servers, 40 * MS);
        network.run_for(2000 * MS);
        network.crash(leader);
        let survivors: Vec<i64> = (1..=servers).filter(|id| *id != leader).collect();
        look(&mut network, survivors, 2);
        // Two milliseconds of looking, and messages of at most one each.
        network.run(10 * MS, &format!("a new leader, seed {seed}"), |network| network.leader(&[]).is_some());
        assert_eq!(network.leader(&[]), Some(network.best()), "seed {seed}");
    }
}

#[test]
fn a_candidate_that_dies_is_given_up_at_once() {
    for seed in 0..60 {
        let servers = [5, 7][seed as usize % 2];
        let mut network = network(seed, servers, None);
        let leader = elect(&mut network, servers, 40 * MS);
        network.run_for(2000 * MS);
        network.crash(leader);
        let survivors: Vec<i64> = (1..=servers).filter(|id| *id != leader).collect();
        look(&mut network, survivors, 1);
        let so_far = Duration::from_micros(network.dice.pick(0..3000));
        network.run_for(so_far);
        network.crash(network.best());
        // Those who had elected it already find out by themselves.
        network.run(150 * MS, &format!("a new leader, seed {seed}"), |network| network.leader(&[]).is_some());
    }
}

//
#[test]
fn a_leader_that_vanished_costs_the_grace() {
    for seed in 0..60 {
        let servers = [3, 5, 7][seed as usize % 3];
        let mut network = network(seed, servers, None);
        let leader = elect(&mut network, servers, 40 * MS);
        network.run_for(2000 * MS);
        (1..=servers).filter(|id| *id != leader).for_each(|id| network.block(id, leader));
        let survivors: Vec<i64> = (1..=servers).filter(|id| *id != leader).collect();
        look(&mut network, survivors, 2);
        network.run(25 * MS, &format!("a new leader, seed {seed}"), |network| network.leader(&[leader]).is_some());
        // It comes back, and follows. Both sides try anew every second.
        network.heal();
        network.run(5000 * MS, &format!("all agree, seed {seed}"), |network| network.leader(&[]).is_some());
    }
}

//
#[test]
fn without_a_quorum_nothing_burns_and_it_recovers_within_a_second() {
    for seed in 0..10 {
        let mut network = network(seed, 3, None);
        (2..=3).for_each(|other| network.block(1, other));
        network.block(2, 3);
        look(&mut network, 1..=3, 3);
        network.run_for(600_000 * MS);
        assert!((1..=3).all(|id| !network.has_elected(id)));
        // Six attempts at a time, of 800 ms and more each.
        assert!(network.connects < 6 * 600_000 / 2000, "{} attempts in ten minutes", network.connects);
        network.heal();
        let limit = 5100 * MS;
        network.run(limit, &format!("one leader, seed {seed}"), |network| network.leader(&[]).is_some());
    }
}

/// Design: elections are rate-limited under flapping links.
#[test]
fn a_flapping_link_disturbs_nobody_else() {
    let mut network = network(7, 3, None);
    network.set_history(3, Zxid::new(9, 9), 9);
    assert_eq!(elect(&mut network, 3, 40 * MS), 3);
    network.run_for(2000 * MS);
    let (rounds, looks, connects) = ([2, 3].map(|id| network.round(id)), network.looks, network.connects);
    network.flap(1, 3);
    network.crash_link(1, 3);
    network.run_for(60_000 * MS);
    assert_eq!([2, 3].map(|id| network.round(id)), rounds, "the others stay");
    let (looks, connects) = (network.looks - looks, network.connects - connects);
    assert!((30..=400).contains(&connects), "{connects} attempts in a minute");
    assert!(looks <= 305, "{looks} elections in a minute");
}

/// Three groups of three, every server of weight 1 but for those in `weightless`.
fn groups(weightless: &[i64]) -> QuorumGroups {
    let group_of: BTreeMap<ServerId, i64> = (1..=9).map(|id| (ServerId(id), (id + 2) / 3)).collect();
    let weight = |id: ServerId| if weightless.contains(&id.0) { 0 } else { 1 };
    let weight_of = group_of.keys().map(|id| (*id, weight(*id))).collect();
    QuorumGroups { group_of, weight_of }
}

//
#[test]
fn nine_servers_in_three_groups_elect_as_long_as_two_groups_do() {
    for seed in 0..30 {
        let mut network = network(seed, 9, Some(groups(&[])));
        let leader = elect(&mut network, 9, 40 * MS);
        assert_eq!(leader, network.best(), "seed {seed}");
        // A whole group dies, and one server of each other group.
        let dead = [1, 4, 7, 8, 9];
        dead.iter().for_each(|id| network.crash(*id));
        look(&mut network, [2, 3, 5, 6], 2);
        network.run(100 * MS, &format!("a new leader, seed {seed}"), |network| network.leader(&dead).is_some());
        // One more, and only one group can agree, although three of four living servers do.
        network.crash(2);
        look(&mut network, [3, 5, 6], 2);
        network.run_for(1000 * MS);
        assert_eq!(network.leader(&dead), None, "seed {seed}");
    }
}

//
#[test]
fn a_server_without_weight_never_leads() {
    for seed in 0..30 {
        let mut network = network(seed, 9, Some(groups(&[3, 9])));
        network.set_history(9, Zxid::new(9, 9), 9);
        let leader = elect(&mut network, 9, 40 * MS);
        assert_eq!(leader, network.best(), "seed {seed}");
        assert!(![3, 9].contains(&leader), "seed {seed}");
    }
}
