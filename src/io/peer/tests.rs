//! Servers on loopback, each with a ring, in one thread; and awkward ones made of plain sockets.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Instant;

use super::*;
use crate::io::mesh::Sleeper;
use crate::io::ring::RingSettings;

/// What a server heard.
#[derive(Default)]
struct Heard {
    accepted: Vec<(SocketId, Port)>,
    connected: Vec<SocketId>,
    received: BTreeMap<SocketId, Vec<u8>>,
    unsent: BTreeMap<SocketId, Vec<usize>>,
    closed: BTreeMap<SocketId, bool>,
}

struct Server {
    ring: Ring,
    peers: Peers,
    _sleeper: Sleeper,
    next: u64,
    takes_bytes: bool,
    heard: Heard,
}

fn local(port: u16) -> HostPort {
    HostPort::new("127.0.0.1", port)
}

fn settings() -> PeerSettings {
    PeerSettings {
        election: vec![local(0)],
        quorum: vec![local(0)],
        bind_retries_max: Some(3),
        keep_alive: true,
        connect_timeout: Duration::from_secs(5),
        user_timeout: Duration::from_secs(20),
    }
}

impl Server {
    fn start(settings: PeerSettings) -> Server {
        let sleeper = Sleeper::new().expect("an eventfd");
        let mut ring = Ring::with_waker(RingSettings::default(), sleeper.waker()).expect("a kernel with io_uring");
        let peers = Peers::new(settings, sleeper.doorbell(), &mut ring);
        Server { ring, peers, _sleeper: sleeper, next: 2, takes_bytes: true, heard: Heard::default() }
    }

    fn at(&self, port: Port) -> HostPort {
        local(self.peers.addresses(port).next().expect("it listens").port())
    }

    fn connect(&mut self, addresses: Vec<HostPort>) -> SocketId {
        let socket = SocketId(self.next);
        self.next += 2;
        self.peers.carry_out(SocketOutput::Connect { socket, addresses }, &mut self.ring);
        socket
    }

    fn send(&mut self, socket: SocketId, bytes: &[u8]) {
        self.peers.carry_out(SocketOutput::Send { socket, bytes: bytes.to_vec() }, &mut self.ring);
    }

    fn close(&mut self, socket: SocketId, is_abrupt: bool) {
        self.peers.carry_out(SocketOutput::Close { socket, is_abrupt }, &mut self.ring);
    }

    fn turn(&mut self) {
        self.peers.end_turn(self.takes_bytes, &mut self.ring);
        self.ring.wait(Some(clock::now() + Duration::from_millis(2)));
        let mut events = Vec::new();
        self.ring.drain(&mut events);
        for event in events {
            assert!(self.peers.concerns(&event));
            if let Some(input) = self.peers.on_event(event, self.takes_bytes, &mut self.ring) {
                self.heard.hear(input);
            }
        }
        while let Some(news) = self.peers.take_news(clock::now(), self.takes_bytes, &mut self.ring) {
            self.heard.hear(news.as_input());
        }
    }
}

impl Heard {
    fn hear(&mut self, input: SocketInput<'_>) {
        match input {
            SocketInput::Accepted { socket, port } => self.accepted.push((socket, port)),
            SocketInput::Connected { socket } => self.connected.push(socket),
            SocketInput::Unsent { socket, bytes } => self.unsent.entry(socket).or_default().push(bytes),
            SocketInput::Closed { socket, is_refused } => {
                assert_eq!(self.closed.insert(socket, is_refused), None, "closed once");
            }
            SocketInput::Received { socket, bytes } => {
                assert!(!self.closed.contains_key(&socket), "nothing comes behind Closed");
                self.received.entry(socket).or_default().extend_from_slice(bytes);
            }
        }
    }
}

fn until<const N: usize>(what: &str, mut servers: [&mut Server; N], mut done: impl FnMut([&Server; N]) -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !done(servers.each_ref().map(|server| &**server)) {
        assert!(Instant::now() < limit, "{what}");
        servers.iter_mut().for_each(|server| server.turn());
    }
}

/// Two servers, the second connected to the first, with the socket of each.
fn pair() -> (Server, SocketId, Server, SocketId) {
    let (mut a, mut b) = (Server::start(settings()), Server::start(settings()));
    let at = a.at(Port::Quorum);
    let ours = b.connect(vec![at]);
    until("connected", [&mut a, &mut b], |[a, b]| a.heard.accepted.len() == 1 && b.heard.connected.len() == 1);
    assert_eq!(a.heard.accepted[0].1, Port::Quorum);
    let theirs = a.heard.accepted[0].0;
    assert!(theirs.0 % 2 == 1 && ours.0 % 2 == 0);
    (a, theirs, b, ours)
}

#[test]
fn bytes_go_both_ways_in_order_and_what_is_left_is_told() {
    let (mut a, theirs, mut b, ours) = pair();
    let sent: Vec<u8> = (0..400_000_u32).flat_map(u32::to_be_bytes).collect();
    for piece in sent.chunks(7001) {
        b.send(ours, piece);
    }
    assert_eq!(b.peers.unsent(ours), sent.len());
    a.send(theirs, b"hello");
    until("received", [&mut a, &mut b], |[a, b]| {
        a.heard.received.get(&theirs).is_some_and(|bytes| bytes.len() == sent.len())
            && b.heard.received.contains_key(&ours)
    });
    assert!(a.heard.received[&theirs] == sent && b.heard.received[&ours] == b"hello");
    until("all left", [&mut b], |[b]| b.peers.unsent(ours) == 0);
    let told = &b.heard.unsent[&ours];
    assert!(told.is_sorted_by(|a, b| a > b) && told.last() == Some(&0), "{told:?}");
    assert_eq!(a.heard.unsent[&theirs], [0]);
}

#[test]
fn both_ports_are_told_apart_and_names_are_looked_up() {
    let (mut a, mut b) = (Server::start(settings()), Server::start(settings()));
    let election = HostPort::new("localhost", a.at(Port::Election).port);
    b.connect(vec![election]);
    until("connected", [&mut a, &mut b], |[a, b]| a.heard.accepted.len() == 1 && b.heard.connected.len() == 1);
    assert_eq!(a.heard.accepted[0].1, Port::Election);
}

#[test]
fn a_port_where_nobody_listens_is_a_refusal_and_a_name_that_nobody_knows_is_none() {
    let mut a = Server::start(settings());
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|it| it.local_addr()).expect("a port");
    let refused = a.connect(vec![local(nobody.port())]);
    let unknown = a.connect(vec![HostPort::new("no-such-host.invalid", 1)]);
    let nowhere = a.connect(Vec::new());
    until("closed", [&mut a], |[a]| a.heard.closed.len() == 3);
    assert!(a.heard.closed[&refused] && !a.heard.closed[&unknown] && !a.heard.closed[&nowhere]);
    assert!(a.peers.links.is_empty() && a.peers.of_connection.is_empty());
}

#[test]
fn the_first_address_that_answers_is_taken() {
    let (mut a, mut b) = (Server::start(settings()), Server::start(settings()));
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|it| it.local_addr()).expect("a port");
    // TEST-NET-1: nobody answers, or the network is unreachable.
    let addresses = vec![HostPort::new("192.0.2.1", 9), local(nobody.port()), a.at(Port::Quorum)];
    let ours = b.connect(addresses);
    until("connected", [&mut a, &mut b], |[a, b]| a.heard.accepted.len() == 1 && b.heard.connected == [ours]);
    until("the others are given up", [&mut b], |[b]| b.ring.connections() == 1);
    assert!(b.heard.closed.is_empty());
}

#[test]
fn an_attempt_can_be_given_up() {
    let mut a = Server::start(settings());
    let socket = a.connect(vec![HostPort::new("192.0.2.1", 9), HostPort::new("localhost", 9)]);
    a.close(socket, false);
    until("given up", [&mut a], |[a]| a.ring.connections() == 0 && a.peers.names.is_empty());
    assert!(a.heard.closed.is_empty() && a.peers.links.is_empty());
}

#[test]
fn what_was_sent_before_a_close_arrives() {
    let (mut a, theirs, mut b, ours) = pair();
    let sent = vec![7; 3 << 20];
    b.send(ours, &sent);
    b.close(ours, false);
    until("received", [&mut a, &mut b], |[a, _]| a.heard.closed.contains_key(&theirs));
    assert!(a.heard.received[&theirs] == sent && !a.heard.closed[&theirs]);
    until("gone", [&mut a, &mut b], |[a, b]| a.ring.connections() + b.ring.connections() == 0);
    assert!(b.heard.closed.is_empty(), "nothing comes from a socket that was closed");
}

#[test]
fn an_abrupt_close_resets() {
    let (mut a, theirs, mut b, ours) = pair();
    b.close(ours, true);
    until("reset", [&mut a, &mut b], |[a, _]| a.heard.closed.contains_key(&theirs));
    assert!(a.heard.closed[&theirs], "a reset counts as a refusal");
}

#[test]
fn a_peer_that_reads_nothing_is_disconnected_at_the_bound_and_closing_does_not_wait_for_ever() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let at = local(listener.local_addr().expect("bound").port());
    let mut a = Server::start(settings());
    let (deaf, closing) = (a.connect(vec![at.clone()]), a.connect(vec![at]));
    a.turn();
    let _silent = [listener.accept().expect("a connection"), listener.accept().expect("a connection")];
    until("connected", [&mut a], |[a]| a.heard.connected.len() == 2);
    a.send(closing, &vec![0; 16 << 20]);
    a.close(closing, false);
    let piece = vec![0; 1 << 20];
    for _ in 0..=limits::PEER_UNSENT_BYTES_MAX / piece.len() {
        a.send(deaf, &piece);
    }
    until("closed", [&mut a], |[a]| a.heard.closed.contains_key(&deaf));
    until("gone", [&mut a], |[a]| a.ring.connections() == 0);
    assert!(!a.heard.closed[&deaf] && !a.heard.closed.contains_key(&closing));
}

#[test]
fn messages_of_one_turn_are_one_write() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let mut a = Server::start(settings());
    let ours = a.connect(vec![local(listener.local_addr().expect("bound").port())]);
    a.turn();
    let (mut peer, _) = listener.accept().expect("a connection");
    until("connected", [&mut a], |[a]| a.heard.connected.len() == 1);
    for byte in 0..100 {
        a.send(ours, &[byte; 10]);
    }
    until("sent", [&mut a], |[a]| a.peers.unsent(ours) == 0);
    let mut bytes = [0; 2000];
    assert_eq!(peer.read(&mut bytes).expect("bytes"), 1000);
    peer.write_all(b"x").expect("open");
    drop(peer);
    until("gone", [&mut a], |[a]| a.heard.closed.contains_key(&ours));
    assert_eq!(
        (a.heard.received[&ours].as_slice(), a.heard.closed[&ours]),
        (&b"x"[..], false),
        "an orderly end is no refusal"
    );
}

#[test]
fn a_taken_port_is_bound_once_it_is_free() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let at = local(taken.local_addr().expect("bound").port());
    let mut a = Server::start(PeerSettings { quorum: vec![at.clone()], ..settings() });
    assert_eq!((a.peers.addresses(Port::Election).count(), a.peers.addresses(Port::Quorum).count()), (1, 0));
    drop(taken);
    until("bound", [&mut a], |[a]| a.peers.addresses(Port::Quorum).count() == 1);
    assert_eq!(a.peers.fatal(), None);
    TcpStream::connect(("127.0.0.1", at.port)).expect("it listens");
    until("accepted", [&mut a], |[a]| a.heard.accepted.len() == 1);
}

#[test]
fn a_port_that_stays_taken_is_given_up() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let at = local(taken.local_addr().expect("bound").port());
    let mut a = Server::start(PeerSettings { election: vec![at.clone()], bind_retries_max: Some(1), ..settings() });
    until("given up", [&mut a], |[a]| a.peers.fatal().is_some());
    let fatal = a.peers.fatal().expect("just seen");
    assert_eq!((fatal.port, &fatal.at, fatal.attempts), (Port::Election, &at, 2));
    assert!(a.peers.deadline().is_none());
}

#[test]
fn all_addresses_of_the_machine_are_one_socket() {
    let a = Server::start(PeerSettings { quorum: vec![HostPort::wildcard(0)], ..settings() });
    let at = a.peers.addresses(Port::Quorum).next().expect("it listens");
    TcpStream::connect(("127.0.0.1", at.port())).expect("on IPv4");
    if at.is_ipv6() {
        TcpStream::connect(("::1", at.port())).expect("on IPv6");
    }
}

#[test]
fn bytes_wait_while_nothing_is_taken_and_come_before_the_end_of_their_connection() {
    let (mut a, theirs, mut b, ours) = pair();
    let sent: Vec<u8> = (0..32_000_000_u32).map(|at| at as u8).collect();
    b.send(ours, &sent);
    b.send(ours, b"end");
    b.close(ours, false);
    // The first bytes come before there is time to stop receiving.
    b.turn();
    a.peers.end_turn(true, &mut a.ring);
    a.ring.wait(Some(clock::now() + Duration::from_secs(20)));
    let mut events = Vec::new();
    a.ring.drain(&mut events);
    a.takes_bytes = false;
    for event in events {
        assert_eq!(a.peers.on_event(event, false, &mut a.ring), None);
    }
    let limit = Instant::now() + Duration::from_millis(100);
    until("a while", [&mut a, &mut b], |_| Instant::now() > limit);
    assert!(a.heard.received.is_empty() && a.heard.closed.is_empty());
    let kept = a.peers.links.values().filter_map(|link| match &link.state {
        State::Open { kept, .. } | State::Gone { kept, .. } => Some(kept.len()),
        State::Connecting(_) | State::Closing { .. } => None,
    });
    assert!(kept.sum::<usize>() < sent.len() / 4, "what waits, waits with the kernel");
    assert!(a.peers.nothing_waits(false) && !a.peers.nothing_waits(true));
    a.takes_bytes = true;
    until("closed", [&mut a, &mut b], |[a, _]| a.heard.closed.contains_key(&theirs));
    assert!(a.heard.received[&theirs] == [&sent[..], b"end"].concat());
}

#[test]
fn a_connection_that_is_held_is_not_read() {
    let (mut a, theirs, mut b, ours) = pair();
    a.peers.carry_out(SocketOutput::Hold { socket: theirs, is_held: true }, &mut a.ring);
    let sent = vec![5; 8 << 20];
    b.send(ours, &sent);
    let limit = Instant::now() + Duration::from_millis(100);
    until("a while", [&mut a, &mut b], |_| Instant::now() > limit);
    assert!(b.peers.unsent(ours) > 0);
    a.peers.carry_out(SocketOutput::Hold { socket: theirs, is_held: false }, &mut a.ring);
    until("all", [&mut a, &mut b], |[a, _]| a.heard.received.get(&theirs).is_some_and(|bytes| *bytes == sent));
}
