//! The same scenarios on one thread for all, and on several: what one connection does, another one on another shard sees.

use std::collections::BTreeSet;
use std::thread;

use crate::server::setup::{Running, eventually, header, renewal};
use crate::support::client::{Client, create_body};
use crate::support::link::{op, request};

const OPEN: &[(i32, &str, &str)] = &[(31, "world", "anyone")];
const EPHEMERAL: i32 = 1;
const NODE_CREATED: i32 = 1;
const NODE_DELETED: i32 = 2;
const NODE_DATA_CHANGED: i32 = 3;
const NODE_CHILDREN_CHANGED: i32 = 4;

/// Each scenario, with the shared default (on few CPUs) and with separate threads.
macro_rules! on_every_layout {
    ($($scenario:ident)*) => {
        on_every_layout! { @layout default_layout 0; $($scenario)* }
        on_every_layout! { @layout one_shard 1; $($scenario)* }
        on_every_layout! { @layout two_shards 2; $($scenario)* }
        on_every_layout! { @layout eight_shards 8; $($scenario)* }
    };
    (@layout $layout:ident $shards:literal; $($scenario:ident)*) => {
        mod $layout {
            $(#[test] fn $scenario() { super::$scenario(&super::with_shards($shards), $shards) })*
        }
    };
}

on_every_layout! {
    sessions_move_between_shards
    watches_fire_across_shards
    own_writes_are_seen_and_events_come_before_what_they_tell
    connections_are_spread_evenly
    counters_of_many_writers_agree
    a_stop_is_clean
}

fn with_shards(shards: usize) -> Running {
    Running::new(&[], &[&format!("oxkeeper.shards={shards}")])
}

fn sessions_move_between_shards(server: &Running, _: usize) {
    let (mut link, first) = server.session(30_000);
    link.send(&request(1, op::CREATE, &create_body("/mine", b"", OPEN, EPHEMERAL)));
    assert_eq!(header(&link.receive().unwrap()).2, 0);
    // More moves than shards, so that every pair of neighbours is seen.
    for at in 0..20 {
        let (mut next, renewed) = server.connect(&renewal(first.session, &first.password, 30_000));
        assert_eq!(renewed.session, first.session);
        assert_eq!(link.until_closed(), Ok(vec![]), "the old connection is closed");
        next.send(&request(at, op::CREATE, &create_body(&format!("/n{at}"), b"", OPEN, EPHEMERAL)));
        assert_eq!(header(&next.receive().unwrap()).2, 0);
        link = next;
    }
    link.send(&request(99, op::CLOSE_SESSION, &[]));
    assert_eq!(header(&link.receive().unwrap()).0, 99);
    assert_eq!(server.client().read(op::GET_CHILDREN, "/", false).unwrap().names(), ["zookeeper"]);
}

fn watches_fire_across_shards(server: &Running, _: usize) {
    let mut watchers: Vec<Client> = (0..16).map(|_| server.client()).collect();
    let mut writer = server.client();
    writer.create("/data", b"", 0).unwrap();
    for watcher in &mut watchers {
        watcher.read(op::EXISTS, "/node", true).unwrap();
        watcher.read(op::GET_DATA, "/data", true).unwrap();
        watcher.read(op::GET_CHILDREN, "/", true).unwrap();
    }
    writer.create("/node", b"", 0).unwrap();
    writer.set_data("/data", b"x").unwrap();
    for watcher in &mut watchers {
        let events: Vec<String> = (0..3).map(|_| watcher.next_event().expect("an event")).collect();
        let expected = [
            format!("{NODE_CREATED} /node"),
            format!("{NODE_CHILDREN_CHANGED} /"),
            format!("{NODE_DATA_CHANGED} /data"),
        ];
        assert_eq!(events, expected);
        assert_eq!(watcher.read(op::GET_DATA, "/node", true).unwrap().err, 0);
    }
    writer.delete("/node").unwrap();
    for watcher in &mut watchers {
        assert_eq!(watcher.next_event().expect("an event"), format!("{NODE_DELETED} /node"));
    }
}

/// Each writer reads what it wrote; the watcher that hears of a change reads it at least as new.
fn own_writes_are_seen_and_events_come_before_what_they_tell(server: &Running, _: usize) {
    const ROUNDS: u32 = 200;
    let mut writer = server.client();
    let mut watcher = server.client();
    writer.create("/v", b"0", 0).unwrap();
    watcher.read(op::GET_DATA, "/v", true).unwrap();
    let reader = thread::spawn(move || {
        let mut seen = 0;
        let mut zxid = 0;
        while seen < ROUNDS {
            assert_eq!(watcher.next_event().expect("an event"), format!("{NODE_DATA_CHANGED} /v"));
            let reply = watcher.read(op::GET_DATA, "/v", true).unwrap();
            let value: u32 = String::from_utf8(reply.data()).unwrap().parse().unwrap();
            assert!(value > seen, "an event without a change: {value} after {seen}");
            assert!(reply.zxid >= zxid, "C-043: zxids do not go down");
            (seen, zxid) = (value, reply.zxid);
        }
    });
    for round in 1..=ROUNDS {
        writer.set_data("/v", round.to_string().as_bytes()).unwrap();
        assert_eq!(writer.read(op::GET_DATA, "/v", false).unwrap().data(), round.to_string().as_bytes());
    }
    reader.join().expect("the watcher saw the last change (C-203)");
}

/// Ids of connections carry their shard, and `mntr` sums all; what a shard has shows in nothing but their number.
fn connections_are_spread_evenly(server: &Running, shards: usize) {
    let mut clients: Vec<Client> = (0..32).map(|_| server.client()).collect();
    eventually("all are counted, and the word's own", || server.mntr("zk_num_alive_connections") == 33);
    let cons = server.server.four_letter("cons").expect("cons is answered");
    for client in &clients {
        assert!(cons.contains(&format!("sid=0x{:x}", client.session)), "{cons}");
    }
    assert_eq!(cons.lines().filter(|line| line.contains("sid=0x")).count(), 32, "{cons}");
    // One thread per shard, each with work of its own.
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.server.pid())).expect("it runs").flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    let names: BTreeSet<String> = names.filter(|name| name.starts_with("shard-")).collect();
    if shards > 0 {
        assert_eq!(names.len(), shards, "{names:?}");
    }
    clients.iter_mut().for_each(|client| assert_eq!(client.ping().unwrap().err, 0));
}

fn counters_of_many_writers_agree(server: &Running, _: usize) {
    const WRITERS: usize = 8;
    const WRITES: i32 = 60;
    server.client().create("/log", b"", 0).unwrap();
    let address = server.server.address;
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            thread::spawn(move || {
                let mut client = Client::connect(address, 30_000).expect("a session");
                let mut last = 0;
                for _ in 0..WRITES {
                    let reply = client.create("/log/n", b"", 2).unwrap();
                    assert!(reply.err == 0 && reply.zxid > last);
                    last = reply.zxid;
                    let path = reply.path();
                    assert_eq!(client.read(op::EXISTS, &path, false).unwrap().err, 0, "own write {path}");
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().expect("all writes are seen"));
    let mut client = server.client();
    client.call(op::SYNC, &path_only("/")).unwrap();
    assert_eq!(client.read(op::GET_CHILDREN, "/log", false).unwrap().names().len(), WRITERS * WRITES as usize);
}

fn path_only(path: &str) -> Vec<u8> {
    let mut body = (path.len() as u32).to_be_bytes().to_vec();
    body.extend_from_slice(path.as_bytes());
    body
}

fn a_stop_is_clean(_: &Running, shards: usize) {
    let mut server = with_shards(shards);
    let mut clients: Vec<Client> = (0..9).map(|_| server.client()).collect();
    clients[0].create("/e", b"", EPHEMERAL).unwrap();
    assert_eq!(server.server.terminate(), Some(0), "{}", server.server.log());
    server.crash_and_restart();
    let mut renewed = clients[0].reattach(server.server.address, &clients[0].password).expect("renewed");
    assert_eq!(renewed.read(op::EXISTS, "/e", false).unwrap().err, 0);
}
