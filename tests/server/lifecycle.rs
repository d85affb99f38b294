//! Starts, stops, crashes, and what a server costs.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::server::setup::{Running, eventually, header, ours, settings};
use crate::support::client::{Client, create_body};
use crate::support::link::{Ended, Link, op, request};
use crate::support::server::{Server, free_port};
use oxkeeper::wire::jute::Write;

const OPEN: &[(i32, &str, &str)] = &[(31, "world", "anyone")];
const EPHEMERAL: i32 = 1;

#[test]
fn s_067_a_second_server_on_the_same_directory_is_refused() {
    let server = Running::new(&[], &[]);
    let (code, said) = Server::refused(&ours(), server.directory.path(), &settings(&[], &[]), free_port());
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("oxkeeper: "), "{said}");
    assert_eq!(server.client().ping().unwrap().err, 0);
}

#[test]
fn s_070_exit_codes_say_what_kind_of_trouble_it_was() {
    let check = |config: &[&str], port: u16, code: i32, word: &str| {
        let directory = tempfile::tempdir().unwrap();
        let (exit, said) = Server::refused(&ours(), directory.path(), &settings(config, &[]), port);
        assert_eq!(exit, Some(code), "{config:?}: {said}");
        assert!(said.contains(word), "{config:?}: {said}");
    };
    let port = free_port();
    check(&["tickTime=soon"], port, 2, "tickTime");
    check(&["minSessionTimeout=9000", "maxSessionTimeout=4000"], port, 2, "minSessionTimeout");
    check(&["secureClientPort=2281"], port, 2, "secureClientPort");
    check(&["server.1=a:1:2", "server.2=b:1:2", "server.3=c:1:2"], port, 2, "");
    check(&["datadir.autocreate=false"], port, 3, "version-2");
    check(&["dataDir=/proc/nothing/here"], port, 3, "/proc/nothing/here");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    check(&[], taken.local_addr().unwrap().port(), 1, "clientPort");
    check(&["db.autocreate=false"], port, 1, "initialize");
}

#[test]
fn settings_without_effect_are_named_in_the_log() {
    let server = Running::new(
        &["localSessionsEnabled=true", "enableEagerACLCheck=true", "flushDelay=5", "request_throttle_stall_time=7"],
        &[],
    );
    let log = server.server.log();
    for key in ["localSessionsEnabled", "enableEagerACLCheck", "flushDelay", "request_throttle_stall_time"] {
        assert!(log.contains(&format!("{key}: has no effect: ")), "{key} in\n{log}");
    }
}

fn files(server: &Running, prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(server.directory.path().join("data/version-2")).expect("the server's directory");
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names
}

#[test]
fn s_058_and_s_059_snapshots_are_taken_at_a_start_and_after_snap_count() {
    let mut server = Running::new(&["snapCount=100"], &[]);
    eventually("a snapshot of the empty tree", || files(&server, "snapshot.") == ["snapshot.0"]);
    let mut client = server.client();
    for at in 0..100 {
        client.create(&format!("/n{at}"), &[b'x'; 500], 0).unwrap();
    }
    eventually("a snapshot after 50 to 100 txns", || files(&server, "snapshot.").len() == 2);
    let newest = files(&server, "snapshot.").pop().unwrap();
    let zxid = i64::from_str_radix(newest.trim_start_matches("snapshot."), 16).unwrap();
    assert!((50..=102).contains(&zxid), "{newest}");
    assert!(files(&server, "log.").len() >= 2, "the log was rolled: {:?}", files(&server, "log."));
    let last = client.ping().unwrap().zxid;
    server.crash_and_restart();
    let named = format!("snapshot.{last:x}");
    eventually("a snapshot at the start, named by the last zxid", || files(&server, "snapshot.").contains(&named));
}

#[test]
fn sigterm_answers_what_was_accepted_and_ends_with_0() {
    let mut server = Running::new(&[], &[]);
    let (mut link, _) = server.session(30_000);
    let mut bytes = Vec::new();
    for at in 0..500 {
        bytes.extend(request(at, op::CREATE, &create_body(&format!("/n{at}"), b"", OPEN, 0)));
    }
    link.send(&bytes);
    assert_eq!(header(&link.receive().unwrap()).0, 0);
    assert_eq!(server.server.terminate(), Some(0), "{}", server.server.log());
    let mut answered = 1;
    loop {
        match link.receive() {
            Ok(reply) => {
                assert_eq!(header(&reply), (answered, i64::from(answered) + 2, 0));
                answered += 1;
            }
            Err(ended) => break assert_eq!(ended, Ended::Closed),
        }
    }
    server.crash_and_restart();
    let mut client = server.client();
    for at in 0..answered {
        assert_eq!(client.read(op::EXISTS, &format!("/n{at}"), false).unwrap().err, 0, "/n{at}");
    }
}

#[test]
fn c_201_acknowledged_writes_survive_kill() {
    let mut server = Running::new(&[], &[]);
    let mut next = 0;
    for _ in 0..3 {
        let address = server.server.address;
        let first = next;
        let writer = thread::spawn(move || {
            let mut client = Client::connect(address, 30_000).expect("a session");
            let mut at = first;
            // The last one may be there or not.
            while client.create(&format!("/n{at}"), b"", 0).is_ok_and(|reply| reply.err == 0) {
                at += 1;
            }
            at
        });
        eventually("some writes", || {
            server.client().read(op::EXISTS, &format!("/n{}", first + 50), false).unwrap().err == 0
        });
        server.server.kill();
        next = writer.join().expect("the writer ends");
        server.crash_and_restart();
        let mut client = server.client();
        for at in first..next {
            assert_eq!(client.read(op::EXISTS, &format!("/n{at}"), false).unwrap().err, 0, "/n{at} of {next}");
        }
        next += 1;
    }
}

fn memory_kilobytes(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).expect("VmRSS")
}

/// `requests` is sent to a server with 900 kB in `/big` by a client that reads nothing. Returns how much memory the
/// server took at most until it disconnected the client.
fn memory_for_a_deaf_client(requests: &[u8]) -> u64 {
    let server = Running::new(&["tickTime=500"], &[]);
    server.client().create("/big", &vec![1; 900_000], 0).unwrap();
    let before = memory_kilobytes(&server.server);
    let (mut deaf, _) = server.session(1);
    deaf.send_while_taken(requests, Duration::from_millis(500));
    let mut most = 0;
    eventually("the client is disconnected", || {
        most = most.max(memory_kilobytes(&server.server));
        server.mntr("zk_num_alive_connections") == 1
    });
    most.saturating_sub(before)
}

fn get_big() -> Vec<u8> {
    let mut body = Vec::new();
    body.put_string("/big");
    body.put_bool(false);
    request(1, op::GET_DATA, &body)
}

#[test]
fn a_client_that_never_reads_is_disconnected_and_memory_stays_bounded() {
    let taken = memory_for_a_deaf_client(&get_big().repeat(2000));
    assert!(taken < 100 << 10, "{taken} kB");
}

/// Reads that wait behind a write are answered together.
#[test]
fn reads_behind_a_write_for_a_client_that_never_reads_stay_bounded() {
    let mut requests = request(1, op::CREATE, &create_body("/w", b"", OPEN, 0));
    requests.extend(get_big().repeat(2000));
    requests.extend(request(2, op::CREATE, &create_body("/v", b"", OPEN, 0)));
    requests.extend(get_big().repeat(1000));
    let taken = memory_for_a_deaf_client(&requests);
    assert!(taken < 200 << 10, "{taken} kB");
}

/// 3000 times 900 kB: no frame could hold it.
#[test]
fn a_multi_read_of_more_than_a_client_may_be_owed_is_an_error() {
    let server = Running::new(&[], &[]);
    let mut client = server.client();
    client.create("/big", &vec![1; 900_000], 0).unwrap();
    let before = memory_kilobytes(&server.server);
    let mut body = Vec::new();
    let header = |body: &mut Vec<u8>, op: i32, is_done: bool| {
        body.put_i32(op);
        body.put_bool(is_done);
        body.put_i32(-1);
    };
    for _ in 0..3000 {
        header(&mut body, op::GET_DATA, false);
        body.put_string("/big");
        body.put_bool(false);
    }
    header(&mut body, -1, true);
    let reply = client.call(op::MULTI_READ, &body).unwrap();
    assert_eq!((reply.err, reply.body), (-5, vec![]));
    assert!(memory_kilobytes(&server.server) < before + (200 << 10));
    assert_eq!(client.ping().unwrap().err, 0);
}

/// A client that does read gets everything, however much stands behind one write.
#[test]
fn many_large_reads_behind_a_write_are_all_answered() {
    let server = Running::new(&[], &[]);
    server.client().create("/big", &vec![1; 900_000], 0).unwrap();
    let (mut link, _) = server.session(30_000);
    let mut requests = request(1, op::CREATE, &create_body("/w", b"", OPEN, 0));
    requests.extend(get_big().repeat(150));
    link.send(&requests);
    assert_eq!(header(&link.receive().unwrap()).2, 0);
    for at in 0..150 {
        assert!(link.receive().unwrap_or_else(|ended| panic!("{ended:?} at {at}")).len() > 900_000);
    }
}

/// A read that was kept back for a slow client does not see the write behind it.
#[test]
fn c_197_reads_kept_back_between_two_writes_see_the_first_and_not_the_second() {
    let server = Running::new(&[], &[]);
    let mut client = server.client();
    client.create("/big", &vec![1; 900_000], 0).unwrap();
    client.create("/v", b"0", 0).unwrap();
    let set = |value: &[u8]| {
        let mut body = Vec::new();
        body.put_string("/v");
        body.put_buffer(Some(value));
        body.put_i32(-1);
        request(2, op::SET_DATA, &body)
    };
    let mut get = Vec::new();
    get.put_string("/v");
    get.put_bool(false);
    let get = request(3, op::GET_DATA, &get);
    let (mut link, _) = server.session(30_000);
    link.send(&[set(b"1"), get_big().repeat(20), get.clone(), set(b"2"), get].concat());
    let replies: Vec<Vec<u8>> = (0..24).map(|_| link.receive().unwrap()).collect();
    let values: Vec<u8> = replies.iter().filter(|reply| header(reply).0 == 3).map(|reply| reply[20]).collect();
    assert_eq!(values, *b"12");
    let xids: Vec<i32> = replies.iter().map(|reply| header(reply).0).collect();
    assert_eq!(xids, [vec![2], vec![1; 20], vec![3, 2, 3]].concat(), "in order");
    assert!(replies.windows(2).all(|pair| header(&pair[0]).1 <= header(&pair[1]).1), "C-043");
}

#[test]
fn two_thousand_connections_are_served() {
    const CONNECTIONS: usize = 2000;
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("readable").1;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, limit, limit).expect("the hard limit");
    let server = Running::new(&[], &[]);
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| server.client()).collect();
    assert_eq!(server.mntr("zk_num_alive_connections"), CONNECTIONS as i64 + 1);
    clients.iter_mut().for_each(|client| client.send(op::PING, &[]));
    for client in &mut clients {
        assert_eq!(header(&client.link().receive().unwrap()).2, 0);
    }
    drop(clients);
    eventually("all are gone", || server.mntr("zk_num_alive_connections") == 1);
}

/// Clock ticks of 10 ms, user and system.
fn cpu_ticks(server: &Server) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("it runs");
    let fields = stat.rsplit(')').next().expect("the name is in brackets");
    fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

fn check_idle(server: &Running, what: &str) {
    // What the start left to do is done.
    let start = Instant::now();
    let mut before = cpu_ticks(&server.server);
    loop {
        thread::sleep(Duration::from_secs(2));
        let after = cpu_ticks(&server.server);
        if after - before <= 2 {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(9), "{what}: {} ticks in 2 s", after - before);
        before = after;
    }
}

#[test]
fn an_idle_server_uses_no_cpu() {
    for shards in ["0", "2"] {
        let server = Running::new(&[], &[&format!("oxkeeper.shards={shards}")]);
        check_idle(&server, "without sessions");
        let mut clients: Vec<Client> = (0..20).map(|_| server.client_for(40_000)).collect();
        clients[0].create("/e", b"", EPHEMERAL).unwrap();
        clients[1].read(op::GET_DATA, "/e", true).unwrap();
        check_idle(&server, "with sessions");
        let _silent = Link::open(server.server.address).unwrap();
        check_idle(&server, "with a connection that says nothing");
    }
}
