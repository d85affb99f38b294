//! Real processes on loopback: an ensemble elects, agrees, loses servers and gets them back.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};
use std::time::Instant;

use support::client::{Answer, Client};
use support::ensemble::{Ensemble, SOON, Shape, free_ports};
use support::link::op;

const OURS: &str = env!("CARGO_BIN_EXE_oxkeeper");

fn three() -> Ensemble {
    Ensemble::start(OURS, &Shape::of(3))
}

/// Three servers with these lines in their zoo.cfg.
fn with(config: &[&str]) -> Ensemble {
    let config = config.iter().map(|line| (*line).to_owned()).collect();
    Ensemble::start(OURS, &Shape { config, ..Shape::of(3) })
}

/// What a server shows of a znode, after a `sync`.
fn read(client: &mut Client, path: &str) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    oxkeeper::wire::jute::Write::put_string(&mut body, path);
    client.call(op::SYNC, &body).ok().filter(|reply| reply.err == 0)?;
    let reply = client.read(op::GET_DATA, path, false).ok()?;
    (reply.err == 0).then(|| reply.data())
}

fn succeeded(answer: &Answer) -> bool {
    answer.as_ref().is_ok_and(|reply| reply.err == 0)
}

#[test]
fn a_write_on_one_server_is_read_on_every_other() {
    let ensemble = three();
    let leader = ensemble.leader();
    let mut clients: Vec<Client> = (0..3).map(|at| ensemble.client(at)).collect();
    for at in 0..3 {
        let path = format!("/from-{at}");
        let created = clients[at].create(&path, path.as_bytes(), 0);
        assert!(succeeded(&created), "server {at}: {created:?}\n{}", ensemble.words());
        for client in &mut clients {
            assert_eq!(read(client, &path).as_deref(), Some(path.as_bytes()), "{}", ensemble.words());
        }
    }
    let modes: Vec<_> = ensemble.members.iter().map(|member| member.mode().expect("it serves")).collect();
    assert_eq!(modes.iter().filter(|mode| *mode == "leader").count(), 1, "{modes:?}");
    assert_eq!(modes.iter().filter(|mode| *mode == "follower").count(), 2, "{modes:?}");
    let leads = &ensemble.members[leader];
    let mntr = |key| leads.mntr(key).unwrap_or_else(|| panic!("{key}"));
    assert_eq!(mntr("zk_peer_state"), "leading - broadcast");
    assert_eq!(
        (mntr("zk_quorum_size"), mntr("zk_synced_followers"), mntr("zk_learners")),
        ("3".into(), "2".into(), "2".into())
    );
}

#[test]
fn killing_the_leader_costs_no_client_of_the_others_its_connection() {
    let mut ensemble = three();
    let leader = ensemble.leader();
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    let mut clients: Vec<Client> = others.iter().map(|at| ensemble.client(*at)).collect();
    assert!(succeeded(&clients[0].create("/a", b"0", 0)));
    assert!(succeeded(&clients[0].create("/mine", b"", 1)), "an ephemeral");
    ensemble.kill(leader);
    let start = Instant::now();
    for (round, client) in clients.iter_mut().enumerate() {
        let set = client.set_data("/a", round.to_string().as_bytes());
        assert!(succeeded(&set), "{set:?} after {:?}\n{}", start.elapsed(), ensemble.words());
    }
    println!("writes were acknowledged again after {:?}", start.elapsed());
    for client in &mut clients {
        assert_eq!(read(client, "/a").as_deref(), Some(&b"1"[..]));
        assert_eq!(read(client, "/mine").as_deref(), Some(&b""[..]), "its session lives");
    }
    ensemble.start_one(leader);
    ensemble.until_all_serve();
    assert_eq!(ensemble.members[leader].mode().as_deref(), Some("follower"));
    assert_eq!(read(&mut ensemble.client(leader), "/a").as_deref(), Some(&b"1"[..]));
}

#[test]
fn a_follower_that_was_away_catches_up_from_the_log() {
    let mut ensemble = three();
    let away = ensemble.follower();
    let mut client = ensemble.client(ensemble.leader());
    assert!(succeeded(&client.create("/a", b"", 0)));
    ensemble.kill(away);
    for round in 0..1200 {
        let set = client.set_data("/a", round.to_string().as_bytes());
        assert!(succeeded(&set), "{set:?}\n{}", ensemble.words());
    }
    ensemble.start_one(away);
    ensemble.until_all_serve();
    assert_eq!(read(&mut ensemble.client(away), "/a").as_deref(), Some(&b"1199"[..]));
}

#[test]
fn a_follower_that_was_away_for_long_gets_what_it_lacks_out_of_the_files() {
    let mut ensemble = with(&["snapshotSizeFactor=1000000"]);
    let (leader, away) = (ensemble.leader(), ensemble.follower());
    let mut client = ensemble.client(leader);
    assert!(succeeded(&client.create("/a", b"", 0)));
    ensemble.kill(away);
    // More than is kept in memory.
    for round in 0..700_u32 {
        let set = client.set_data("/a", &[round.to_be_bytes(); 10_000].concat());
        assert!(succeeded(&set), "{set:?}\n{}", ensemble.words());
    }
    let syncs = |key| ensemble.members[leader].mntr(key).expect("a number");
    assert_eq!((syncs("zk_diff_count"), syncs("zk_snap_count")), ("2".to_owned(), "0".to_owned()));
    ensemble.start_one(away);
    ensemble.until_all_serve();
    assert_eq!(read(&mut ensemble.client(away), "/a"), Some([699_u32.to_be_bytes(); 10_000].concat()));
    let syncs = |key| ensemble.members[leader].mntr(key).expect("a number");
    assert_eq!(
        (syncs("zk_diff_count"), syncs("zk_snap_count")),
        ("3".to_owned(), "0".to_owned()),
        "{}",
        ensemble.words()
    );
}

#[test]
fn a_server_with_an_empty_directory_gets_everything() {
    let mut ensemble = three();
    let away = ensemble.follower();
    let mut client = ensemble.client(ensemble.leader());
    for number in 0..300 {
        assert!(succeeded(&client.create(&format!("/node-{number}"), &[7; 5000], 0)));
    }
    ensemble.kill(away);
    fs::remove_dir_all(ensemble.members[away].data().join("version-2")).expect("ours");
    ensemble.start_one(away);
    ensemble.until_all_serve();
    let mut there = ensemble.client(away);
    for number in [0, 150, 299] {
        assert_eq!(read(&mut there, &format!("/node-{number}")).map(|data| data.len()), Some(5000));
    }
    assert!(succeeded(&there.create("/after", b"", 0)), "{}", ensemble.words());
}

#[test]
fn what_was_acknowledged_survives_the_death_of_all() {
    let mut ensemble = three();
    let mut client = ensemble.client(0);
    for number in 0..50 {
        assert!(succeeded(&client.create(&format!("/n{number}"), b"x", 0)));
    }
    for round in 0..3 {
        (0..3).for_each(|at| ensemble.kill(at));
        (0..3).for_each(|at| ensemble.start_one(at));
        ensemble.until_all_serve();
        for at in 0..3 {
            let mut client = ensemble.client(at);
            for number in [0, 25, 49] {
                assert_eq!(read(&mut client, &format!("/n{number}")).as_deref(), Some(&b"x"[..]), "round {round}");
            }
        }
    }
}

#[test]
fn without_a_quorum_nobody_is_served_and_with_one_everybody_is() {
    let mut ensemble = three();
    let leader = ensemble.leader();
    let followers: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    followers.iter().for_each(|at| ensemble.kill(*at));
    ensemble.until("the leader steps down", |ensemble| ensemble.members[leader].mode().is_none());
    let member = &ensemble.members[leader];
    let answer = member.four_letter("mntr").expect("it answers");
    assert_eq!(answer, "This ZooKeeper instance is not currently serving requests\n");
    assert_eq!(member.four_letter("ruok").as_deref(), Some("imok"));
    ensemble.start_one(followers[0]);
    ensemble.until_all_serve();
    assert!(succeeded(&ensemble.client(leader).create("/again", b"", 0)));
}

#[test]
fn a_planned_stop_of_the_leader_hands_over() {
    let mut ensemble = three();
    let leader = ensemble.leader();
    let other = (leader + 1) % 3;
    let mut client = ensemble.client(other);
    assert!(succeeded(&client.create("/a", b"", 0)));
    ensemble.members[leader].signal("TERM");
    assert_eq!(ensemble.members[leader].wait().code(), Some(0), "{}", ensemble.words());
    assert!(succeeded(&client.set_data("/a", b"1")), "{}", ensemble.words());
}

#[test]
fn an_observer_serves_and_does_not_vote() {
    let mut ensemble = Ensemble::start(OURS, &Shape { observers: 1, ..Shape::of(4) });
    assert_eq!(ensemble.members[3].mode().as_deref(), Some("observer"));
    let mut client = ensemble.client(3);
    assert!(succeeded(&client.create("/seen", b"1", 0)), "{}", ensemble.words());
    assert_eq!(read(&mut ensemble.client(0), "/seen").as_deref(), Some(&b"1"[..]));
    let mntr = ensemble.members[ensemble.leader()].mntr("zk_synced_observers");
    assert_eq!(mntr.as_deref(), Some("1"));
    // Two of three voters are needed, and an observer is none.
    let leader = ensemble.leader();
    (0..3).filter(|at| *at != leader).for_each(|at| ensemble.members[at].kill());
    ensemble.until("nobody leads", |ensemble| ensemble.members[leader].mode().is_none());
}

#[test]
fn everything_works_without_our_own_extensions() {
    let mut ensemble = with(&["oxkeeper.extensions=none"]);
    let leader = ensemble.leader();
    let other = (leader + 1) % 3;
    let mut client = ensemble.client(other);
    assert!(succeeded(&client.create("/a", b"", 0)));
    ensemble.kill(leader);
    assert!(succeeded(&client.set_data("/a", b"1")), "{}", ensemble.words());
}

/// Kills the leader and writes on, on another server.
fn check_failover(ensemble: &mut Ensemble) {
    let leader = ensemble.leader();
    let mut client = ensemble.client((leader + 1) % 3);
    assert!(succeeded(&client.create("/a", b"", 0)), "{}", ensemble.words());
    ensemble.kill(leader);
    assert!(succeeded(&client.set_data("/a", b"1")), "{}", ensemble.words());
    ensemble.start_one(leader);
    ensemble.until_all_serve();
    assert_eq!(read(&mut ensemble.client(leader), "/a").as_deref(), Some(&b"1"[..]));
}

#[test]
fn cores_of_their_own_serve_as_one_thread_does() {
    check_failover(&mut with(&["oxkeeper.shards=2", "oxkeeper.zabCore=dedicated"]));
}

#[test]
fn servers_that_know_each_other_by_name_find_each_other() {
    let config = vec!["quorumListenOnAllIPs=true".to_owned()];
    let host = Some("localhost".to_owned());
    check_failover(&mut Ensemble::start(OURS, &Shape { config, host, ..Shape::of(3) }));
}

#[test]
fn servers_meet_on_ipv6() {
    if TcpListener::bind((std::net::Ipv6Addr::LOCALHOST, 0)).is_err() {
        return eprintln!("this machine has no IPv6");
    }
    let host = Some("[::1]".to_owned());
    check_failover(&mut Ensemble::start(OURS, &Shape { host, ..Shape::of(3) }));
}

#[test]
fn a_leader_that_is_to_serve_nobody_sends_its_clients_elsewhere() {
    let mut ensemble = with(&["leaderServes=no"]);
    let leader = ensemble.leader();
    assert!(Client::connect(ensemble.members[leader].client, 30_000).is_err());
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    let mut clients: Vec<Client> = others.iter().map(|at| ensemble.client(*at)).collect();
    assert!(succeeded(&clients[0].create("/a", b"1", 0)), "{}", ensemble.words());
    ensemble.kill(leader);
    let next = ensemble.leader();
    let (on_leader, on_follower) = if others[0] == next { (0, 1) } else { (1, 0) };
    assert!(clients[on_leader].ping().is_err(), "its client goes elsewhere");
    assert_eq!(read(&mut clients[on_follower], "/a").as_deref(), Some(&b"1"[..]), "{}", ensemble.words());
}

#[test]
fn operators_are_told_about_the_ensemble() {
    let ensemble = three();
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    let mut client = ensemble.client(follower);
    assert!(succeeded(&client.create("/a", b"1", 0)));
    let word = |at: usize, word: &str| ensemble.members[at].four_letter(word).expect("it answers");
    let mntr = |at: usize, key: &str| {
        let value = ensemble.members[at].mntr(key);
        value.unwrap_or_else(|| panic!("{key} in {}", word(at, "mntr"))).parse::<u64>().expect("a number")
    };
    assert!(mntr(leader, "zk_proposal_count") >= 2 && mntr(leader, "zk_commit_count") >= 2);
    assert!(mntr(follower, "zk_learner_proposal_received_count") >= 2);
    for at in [leader, follower] {
        assert_eq!((mntr(at, "zk_looking_count"), mntr(at, "zk_cnt_election_time")), (1, 1));
        assert_eq!((mntr(at, "zk_quorum_size"), mntr(at, "zk_global_sessions")), (3, 1));
    }
    assert_eq!(mntr(follower, "zk_cnt_follower_sync_time"), 1);
    assert!(ensemble.members[follower].mntr("zk_synced_followers").is_none(), "a leader's alone");
    assert!(mntr(leader, "zk_last_proposal_size") > 0);
    assert!(
        word(leader, "srvr").contains("Mode: leader\n")
            && word(leader, "srvr").contains("Proposal sizes last/min/max: ")
    );
    assert!(word(follower, "stat").contains("Mode: follower\n"));
    let conf = word(follower, "conf");
    assert!(conf.contains("initLimit=10\nsyncLimit=5\nelectionAlg=3\n") && conf.ends_with("version=0"), "{conf}");
    assert_eq!(conf.matches("server.").count(), 3);
    assert_eq!(word(follower, "isro"), "rw");
}

#[test]
fn a_member_that_cannot_take_part_says_why() {
    let check = |prepare: &dyn Fn(&Ensemble), code: i32, text: &str| {
        let mut ensemble = Ensemble::prepare(OURS, &Shape::of(3));
        prepare(&ensemble);
        ensemble.start_one(0);
        let status = ensemble.members[0].wait();
        let log = ensemble.members[0].log();
        assert_eq!(status.code(), Some(code), "{log}");
        assert!(log.contains(text), "{text} is not in {log}");
    };
    check(
        &|ensemble| fs::write(ensemble.members[0].data().join("myid"), "4").expect("ours"),
        2,
        "is in no server line",
    );
    check(&|ensemble| fs::remove_file(ensemble.members[0].data().join("myid")).expect("ours"), 2, "myid is not set");
    let epochs = |ensemble: &Ensemble| {
        let version = ensemble.members[0].data().join("version-2");
        fs::create_dir(&version).expect("ours");
        fs::write(version.join("currentEpoch"), "7").expect("ours");
        fs::write(version.join("acceptedEpoch"), "5").expect("ours");
    };
    check(&epochs, 1, "a promise was lost");
}

#[test]
fn a_port_that_stays_taken_ends_the_process_with_14() {
    let config = vec!["electionPortBindRetry=1".to_owned()];
    let mut ensemble = Ensemble::prepare(OURS, &Shape { config, ..Shape::of(3) });
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, ensemble.members[0].election_port)).expect("free a moment ago");
    ensemble.start_one(0);
    assert_eq!(ensemble.members[0].wait().code(), Some(14), "{}", ensemble.words());
    drop(taken);
}

/// Kills what is left of a `dev` when the test fails.
struct Dev(std::process::Child);

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn dev_runs_an_ensemble_that_ends_with_it() {
    let port = free_ports(1)[0];
    let mut command = Command::new(OURS);
    command.args(["dev", "--servers", "3", "--port", &port.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut dev = Dev(command.spawn().expect("our binary"));
    let mut lines = BufReader::new(dev.0.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let seen: Vec<String> = lines.by_ref().take_while(|line| !line.contains("Ctrl-C stops everything")).collect();
    let text = seen.join("\n");
    assert!(text.contains("leader") && text.matches("follower").count() >= 2 && text.contains("kill -9"), "{text}");
    let connect = seen.iter().find_map(|line| line.trim().strip_prefix("connect")).expect("a connect string");
    let addresses: Vec<std::net::SocketAddr> =
        connect.trim().split(',').map(|at| at.parse().expect("an address")).collect();
    assert_eq!(addresses.len(), 3);
    let mut client = Client::connect(addresses[0], 30_000).expect("a session");
    assert!(succeeded(&client.create("/dev", b"1", 0)));
    // Not even the cruellest end leaves servers behind.
    dev.0.kill().expect("ours");
    dev.0.wait().expect("ours");
    let start = Instant::now();
    while addresses.iter().any(|address| std::net::TcpStream::connect(address).is_ok()) {
        assert!(start.elapsed() < SOON, "servers outlive who started them");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
