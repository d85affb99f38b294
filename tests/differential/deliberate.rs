//! Deliberate differences that would change all that follows, so that random sequences leave them out: each is
//! played by itself and both answers are asserted as they are.

use std::net::SocketAddr;
use std::time::Instant;

use oxkeeper::wire::jute::{Reader, Write};

use crate::support::client::{Answer, Client, Reply, create_body, path_and_int};
use crate::support::link::{Ended, PATIENCE, op, request};

/// Timeouts of these sessions: long enough for a slow machine.
const TIMEOUT_MS: i32 = 30_000;

pub struct Deliberate {
    pub name: &'static str,
    pub reason: &'static str,
    /// Plays it to a server. Returns what was seen.
    pub play: fn(SocketAddr) -> String,
    /// `None`: Java does not survive it, or leaves its answer to chance.
    pub java: Option<&'static str>,
    pub ours: &'static str,
}

/// An answer in one word.
fn word(answer: Answer) -> String {
    match answer {
        Ok(reply) => reply.err.to_string(),
        Err(Ended::Closed) => "closed".to_owned(),
        Err(Ended::Silent) => "silence".to_owned(),
        Err(Ended::Refused) => "refused".to_owned(),
    }
}

fn client(address: SocketAddr) -> Client {
    Client::connect(address, TIMEOUT_MS).expect("a session is given")
}

/// Of a znode, from a reply that is its Stat.
fn version(stat: &Reply) -> i32 {
    Reader::new(&stat.body).stat().map_or(-1, |stat| stat.version)
}

/// A request whose reply is perhaps left out, then a ping.
fn then_ping(client: &mut Client, op: i32, body: &[u8]) -> String {
    client.send(op, body);
    word(client.ping())
}

pub const DELIBERATE: &[Deliberate] = &[
    Deliberate {
        name: "check outside a multi",
        reason: "refused since 3.8.5 (ZOOKEEPER-4790 and others); before, a success was never answered",
        play: |address| then_ping(&mut client(address), op::CHECK, &path_and_int("/", -1)),
        java: Some("0"),
        ours: "closed",
    },
    Deliberate {
        name: "deleteContainer from a client",
        reason: "it asks for no permission: since 3.9 anyone can delete any childless znode so",
        play: |address| {
            let mut client = client(address);
            let _ = client.create("/deliberate-container", b"", 0);
            let mut bytes = Vec::new();
            bytes.put_string("/deliberate-container");
            let answer = then_ping(&mut client, op::DELETE_CONTAINER, &bytes);
            let mut other = self::client(address);
            answer + " " + &word(other.read(op::EXISTS, "/deliberate-container", false))
        },
        java: Some("0 0"),
        ours: "closed 0",
    },
    Deliberate {
        name: "createSession from a client",
        reason: "the timeout of a session is not for a request to choose",
        play: |address| then_ping(&mut client(address), op::CREATE_SESSION, &TIMEOUT_MS.to_be_bytes()),
        java: None,
        ours: "closed",
    },
    Deliberate {
        name: "createTTL without a TTL flag and ttl -1",
        reason: "Java accepts it and stops while applying it",
        play: |address| {
            let mut body = create_body("/deliberate-ttl", b"", &[(31, "world", "anyone")], 0);
            body.put_i64(-1);
            word(client(address).call(op::CREATE_TTL, &body))
        },
        java: None,
        ours: "-8",
    },
    Deliberate {
        name: "a quota on the root",
        reason: "Java stops when it is created",
        play: |address| {
            let mut client = client(address);
            let first = word(client.create("/zookeeper/quota/zookeeper_limits", b"count=1,bytes=1", 0));
            first + " " + &word(client.delete("/zookeeper/quota/zookeeper_limits"))
        },
        java: None,
        ours: "0 0",
    },
    Deliberate {
        name: "createContainer in a multi, with the flags of an ephemeral",
        reason: "it makes a container; before 3.8.2 the flags decided",
        play: |address| {
            let mut client = client(address);
            let create = create_body("/deliberate-box", b"", &[(31, "world", "anyone")], 1);
            let mut body = Vec::new();
            for (kind, part) in [(op::CREATE_CONTAINER, &create[..]), (-1, &[])] {
                body.put_i32(kind);
                body.put_bool(kind == -1);
                body.put_i32(-1);
                body.put(part);
            }
            let _ = client.call(op::MULTI, &body);
            // Only what is no ephemeral may have children.
            word(client.create("/deliberate-box/child", b"", 0))
        },
        java: Some("-108"),
        ours: "0",
    },
    Deliberate {
        name: "IPv6 in an ip ACL",
        reason: "accepted since 3.9.4",
        play: |address| word(client(address).create_with("/deliberate-ipv6", &[(31, "ip", "::1/64")])),
        java: Some("-114"),
        ours: "0",
    },
    Deliberate {
        name: "removeWatches of persistent watches by their type",
        reason: "types 4 and 5 came with 3.9.0",
        play: |address| {
            let mut client = client(address);
            let _ = client.path_and_int(op::ADD_WATCH, "/deliberate-type", 0);
            word(client.path_and_int(op::REMOVE_WATCHES, "/deliberate-type", 4))
        },
        java: Some("-5"),
        ours: "0",
    },
    Deliberate {
        name: "a data watch beside a persistent one",
        reason: "since 3.9.0 modes live side by side; before, the last one set replaced the others",
        play: |address| {
            let mut client = client(address);
            let _ = client.create("/deliberate-modes", b"", 0);
            let _ = client.path_and_int(op::ADD_WATCH, "/deliberate-modes", 0);
            let _ = client.read(op::GET_DATA, "/deliberate-modes", true);
            let _ = client.set_data("/deliberate-modes", b"1");
            let _ = client.set_data("/deliberate-modes", b"2");
            client.events.join(", ")
        },
        java: Some("3 /deliberate-modes"),
        ours: "3 /deliberate-modes, 3 /deliberate-modes",
    },
    Deliberate {
        name: "a wrong password for a connected session",
        reason: "Java closes the old connection before it looks at the password; we look first",
        play: |address| {
            let mut client = client(address);
            let refused = client.reattach(address, &[1; 16]).is_err();
            format!("{refused} {}", word(client.ping()))
        },
        java: Some("true closed"),
        ours: "true 0",
    },
    Deliberate {
        name: "72 MB of reads between two writes, and a client that takes none of it",
        reason: "nobody is buffered for without end: reads before a write are answered before it is, up to 64 MB",
        play: |address| {
            const READS: usize = 80;
            let mut other = client(address);
            let _ = other.create("/deliberate-big", &vec![7; 900_000], 0);
            let _ = other.create("/deliberate-count", b"", 0);
            let mut greedy = client(address);
            let mut set = Vec::new();
            set.put_string("/deliberate-count");
            set.put_buffer(None);
            set.put_i32(-1);
            let mut get = Vec::new();
            get.put_string("/deliberate-big");
            get.put_bool(false);
            let (set, get) = (request(1, op::SET_DATA, &set), request(2, op::GET_DATA, &get));
            greedy.link().send(&[set.clone(), get.repeat(READS), set].concat());
            let start = Instant::now();
            while other.read(op::EXISTS, "/deliberate-count", false).is_ok_and(|reply| version(&reply) < 2) {
                assert!(start.elapsed() < PATIENCE, "the second write is done, whoever reads");
            }
            let replies = (0..READS + 2).map_while(|_| greedy.link().receive().ok()).count();
            (if replies == READS + 2 { "answered" } else { "closed" }).to_owned()
        },
        java: Some("answered"),
        ours: "closed",
    },
];
