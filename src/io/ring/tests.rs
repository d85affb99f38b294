//! Real sockets on loopback and real files, with peers as awkward as clients are.

use std::collections::HashMap;
use std::io::Read;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use socket2::SockRef;

use super::*;

/// A ring that listens, counts what happens and, if asked, echoes.
struct Server {
    ring: Ring,
    address: SocketAddr,
    events: Vec<Event>,
    next: u64,
    echo: bool,
    received: HashMap<ConnectionId, Vec<u8>>,
    sent: HashMap<ConnectionId, usize>,
    unsent: HashMap<ConnectionId, Vec<u8>>,
    connected: Vec<ConnectionId>,
    ended: Vec<ConnectionId>,
    closed: Vec<(ConnectionId, CloseReason)>,
}

fn server(settings: RingSettings) -> Server {
    let mut ring = Ring::new(settings).expect("a kernel with io_uring");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("its address");
    ring.add_listener(listener);
    Server {
        ring,
        address,
        events: Vec::new(),
        next: 1,
        echo: true,
        received: HashMap::new(),
        sent: HashMap::new(),
        unsent: HashMap::new(),
        connected: Vec::new(),
        ended: Vec::new(),
        closed: Vec::new(),
    }
}

impl Server {
    fn turn(&mut self) {
        self.ring.wait(Some(clock::now() + Duration::from_millis(10)));
        let mut events = std::mem::take(&mut self.events);
        self.ring.drain(&mut events);
        for event in events.drain(..) {
            self.on_event(event);
        }
        self.events = events;
        let waiting: Vec<ConnectionId> = self.unsent.keys().copied().collect();
        for conn in waiting {
            if !self.sent.contains_key(&conn) {
                let bytes = self.unsent.remove(&conn).expect("it is there");
                self.sent.insert(conn, bytes.len());
                self.ring.send(conn, bytes);
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Accepted { socket, peer, local, .. } => {
                assert_eq!(local, self.address);
                assert!(peer.ip().is_loopback());
                let conn = ConnectionId(self.next);
                self.next += 1;
                self.ring.add_connection(conn, socket);
            }
            Event::Connected { conn } => {
                self.alive(conn);
                self.connected.push(conn);
            }
            Event::Received { conn, bytes } => {
                self.alive(conn);
                let bytes = self.ring.received(&bytes);
                self.received.entry(conn).or_default().extend_from_slice(bytes);
                if self.echo {
                    self.unsent.entry(conn).or_default().extend_from_slice(bytes);
                }
            }
            Event::EndOfStream { conn } => {
                self.alive(conn);
                self.ended.push(conn);
            }
            Event::Sent { conn, buffer, bytes } => {
                self.alive(conn);
                assert_eq!(buffer.len(), bytes);
                assert_eq!(self.sent.remove(&conn), Some(bytes));
            }
            Event::Closed { conn, reason } => {
                self.alive(conn);
                self.sent.remove(&conn);
                self.unsent.remove(&conn);
                self.closed.push((conn, reason));
            }
            Event::Written { .. } => panic!("nothing was written"),
        }
    }

    /// No event may come after `Closed`, nor for a connection that was never added.
    fn alive(&self, conn: ConnectionId) {
        assert!(conn.0 < self.next);
        assert!(self.closed.iter().all(|(closed, _)| *closed != conn), "{conn:?} is closed already");
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Server) -> bool) {
        let limit = Instant::now() + Duration::from_secs(20);
        while !done(self) {
            assert!(Instant::now() < limit, "{what}");
            self.turn();
        }
    }

    fn connect_out(&mut self, conn: ConnectionId, to: SocketAddr) {
        let socket = self.ring.socket_for(to).expect("a socket");
        self.ring.connect(conn, socket, to);
    }

    fn connect(&mut self) -> (ConnectionId, TcpStream) {
        let client = TcpStream::connect(self.address).expect("a listener");
        let conn = ConnectionId(self.next);
        self.until("accepted", |server| server.next > conn.0);
        (conn, client)
    }

    fn received(&self, conn: ConnectionId) -> usize {
        self.received.get(&conn).map_or(0, Vec::len)
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

#[test]
fn what_is_sent_comes_back() {
    let mut server = server(RingSettings::default());
    let (conn, mut client) = server.connect();
    client.write_all(b"hello").expect("connected");
    server.until("echoed", |server| server.received(conn) == 5 && server.sent.is_empty());
    let mut answer = [0; 5];
    client.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"hello");
}

#[test]
fn a_sender_of_single_bytes_is_heard_in_order() {
    let mut server = server(RingSettings::default());
    let (conn, mut client) = server.connect();
    client.set_nodelay(true).expect("a TCP socket");
    let text = pattern(500);
    for byte in &text {
        client.write_all(&[*byte]).expect("connected");
        server.ring.submit();
        server.turn();
    }
    server.until("all of it", |server| server.received(conn) == 500);
    assert_eq!(server.received[&conn], text);
}

#[test]
fn more_than_all_buffers_hold_arrives_whole() {
    let settings = RingSettings { receive_buffers: 4, receive_buffer_bytes: 1024, ..RingSettings::default() };
    let mut server = server(settings);
    server.echo = false;
    let (first, client) = server.connect();
    let (second, other) = server.connect();
    let text = pattern(3_000_000);
    let senders: Vec<_> = [client, other]
        .into_iter()
        .map(|mut client| {
            let text = text.clone();
            thread::spawn(move || client.write_all(&text).map(|()| client))
        })
        .collect();
    server.until("all of it", |server| server.received(first) == text.len() && server.received(second) == text.len());
    assert!(server.received[&first] == text && server.received[&second] == text);
    for sender in senders {
        sender.join().expect("no panic").expect("sent");
    }
}

#[test]
fn pausing_holds_the_peer_back_and_loses_nothing() {
    let mut server = server(RingSettings::default());
    server.echo = false;
    let (conn, mut client) = server.connect();
    let text = pattern(40_000_000);
    let expected = text.clone();
    let sender = thread::spawn(move || client.write_all(&text).map(|()| client));
    for round in 1..=20 {
        let goal = round * 1_000_000;
        server.until("a million more", |server| server.received(conn) >= goal);
        server.ring.pause_receiving(conn);
        // Pausing and resuming in one turn must not lose the place either.
        server.ring.resume_receiving(conn);
        server.ring.pause_receiving(conn);
        (0..3).for_each(|_| server.turn());
        let before = server.received(conn);
        (0..3).for_each(|_| server.turn());
        assert_eq!(server.received(conn), before, "nothing arrives while paused");
        server.ring.resume_receiving(conn);
    }
    server.until("all of it", |server| server.received(conn) == expected.len());
    assert!(server.received[&conn] == expected);
    sender.join().expect("no panic").expect("sent");
}

#[test]
fn a_big_answer_to_a_slow_reader_arrives_whole() {
    let mut server = server(RingSettings::default());
    let (conn, mut client) = server.connect();
    let text = pattern(20_000_000);
    server.sent.insert(conn, text.len());
    server.ring.send(conn, text.clone());
    let reader = thread::spawn(move || {
        let mut all = vec![0; 20_000_000];
        client.read_exact(&mut all).map(|()| all)
    });
    let mut progress = Vec::new();
    server.until("sent", |server| {
        progress.extend(server.ring.sent_so_far(conn));
        server.sent.is_empty()
    });
    assert!(progress.is_sorted());
    assert!(reader.join().expect("no panic").expect("read") == text);
}

#[test]
fn one_that_never_reads_stops_only_itself() {
    let mut server = server(RingSettings::default());
    let (deaf, _client) = server.connect();
    server.sent.insert(deaf, 50_000_000);
    server.ring.send(deaf, pattern(50_000_000));
    let (conn, mut other) = server.connect();
    other.write_all(b"hello").expect("connected");
    server.until("the other is served", |server| server.received(conn) == 5 && !server.sent.contains_key(&conn));
    assert!(server.ring.sent_so_far(deaf).is_some_and(|sent| sent < 50_000_000));
    server.ring.close(deaf, Close::Abort);
    server.until("closed", |server| server.closed == [(deaf, CloseReason::Asked)]);
}

#[test]
fn a_graceful_close_delivers_what_is_being_sent() {
    let mut server = server(RingSettings::default());
    let (conn, mut client) = server.connect();
    // The client has sent what nobody will read: a plain close would answer with RST.
    client.write_all(&pattern(100_000)).expect("connected");
    server.sent.insert(conn, 5_000_000);
    server.ring.send(conn, pattern(5_000_000));
    server.ring.close(conn, Close::Graceful);
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        client.read_to_end(&mut all).map(|_| all)
    });
    server.until("closed", |server| server.closed == [(conn, CloseReason::Asked)]);
    assert!(reader.join().expect("no panic").expect("no RST") == pattern(5_000_000));
    assert_eq!(server.ring.connections(), 0);
}

#[test]
fn a_graceful_close_of_a_peer_that_stays_ends_after_the_limit() {
    let mut server = server(RingSettings::default());
    let (conn, _client) = server.connect();
    server.ring.close(conn, Close::Graceful);
    server.until("closed", |server| server.closed == [(conn, CloseReason::LingerLimit)]);
}

#[test]
fn an_abort_is_an_rst() {
    let mut server = server(RingSettings::default());
    let (conn, mut client) = server.connect();
    server.ring.close(conn, Close::Abort);
    server.ring.close(conn, Close::Graceful);
    server.until("closed", |server| server.closed == [(conn, CloseReason::Asked)]);
    let error = client.read(&mut [0; 8]).expect_err("reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_half_open_peer_still_gets_its_answer() {
    let mut server = server(RingSettings::default());
    let (conn, mut client) = server.connect();
    client.write_all(b"ruok").expect("connected");
    client.shutdown(Shutdown::Write).expect("half closed");
    server.until("echoed", |server| server.ended == [conn] && server.received(conn) == 4 && server.sent.is_empty());
    assert!(server.closed.is_empty(), "the owner closes, nobody else");
    server.ring.close(conn, Close::Graceful);
    let mut answer = Vec::new();
    server.until("closed", |server| server.closed == [(conn, CloseReason::Asked)]);
    client.read_to_end(&mut answer).expect("an answer");
    assert_eq!(answer, b"ruok");
}

#[test]
fn a_peer_that_vanishes_is_reported_once() {
    let mut server = server(RingSettings::default());
    server.echo = false;
    let (conn, client) = server.connect();
    server.sent.insert(conn, 50_000_000);
    server.ring.send(conn, pattern(50_000_000));
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
    drop(client);
    server.until("closed", |server| !server.closed.is_empty());
    (0..5).for_each(|_| server.turn());
    assert_eq!(server.closed, [(conn, CloseReason::Reset)]);
    // Late calls are harmless.
    server.ring.send(conn, vec![1]);
    server.ring.close(conn, Close::Graceful);
    server.ring.pause_receiving(conn);
    server.turn();
}

#[test]
fn two_thousand_connections_are_served() {
    crate::io::placement::raise_open_files().expect("allowed for everybody");
    let mut server = server(RingSettings::default());
    let address = server.address;
    let clients = thread::spawn(move || {
        let mut all: Vec<TcpStream> = (0..2000).map(|_| TcpStream::connect(address).expect("a listener")).collect();
        for (i, client) in all.iter_mut().enumerate() {
            client.write_all(&(i as u64).to_be_bytes()).expect("connected");
        }
        for (i, client) in all.iter_mut().enumerate() {
            let mut answer = [0; 8];
            client.read_exact(&mut answer).expect("an answer");
            assert_eq!(u64::from_be_bytes(answer), i as u64);
        }
    });
    server.until("all have gone", |server| server.ended.len() == 2000);
    clients.join().expect("no panic");
    for conn in 1..=2000 {
        server.ring.close(ConnectionId(conn), Close::Graceful);
    }
    server.until("all are closed", |server| server.closed.len() == 2000);
    assert_eq!(server.ring.connections(), 0);
}

/// Connections come and go in every way there is; each client sends a number of its own, so an event that reached the wrong
/// connection would show.
#[test]
fn no_event_of_an_old_connection_reaches_a_new_one() {
    const CLIENTS: u64 = 4;
    const ROUNDS: u64 = 250;
    let mut server = server(RingSettings { receive_buffers: 8, receive_buffer_bytes: 256, ..RingSettings::default() });
    let address = server.address;
    let clients: Vec<_> = (0..CLIENTS).map(|client| thread::spawn(move || storm(address, client, ROUNDS))).collect();
    // A client that has reset its connection before it was accepted is never heard of: so not all may have been counted.
    server.until("all have come and gone", |server| {
        for conn in 1..server.next {
            let conn = ConnectionId(conn);
            let how = if conn.0.is_multiple_of(3) { Close::Abort } else { Close::Graceful };
            if server.received(conn) >= 64 || server.ended.contains(&conn) {
                server.ring.close(conn, how);
            }
        }
        let all_gone = server.closed.len() as u64 + 1 == server.next;
        all_gone && clients.iter().all(thread::JoinHandle::is_finished)
    });
    assert!(server.closed.len() as u64 > CLIENTS * ROUNDS / 2);
    assert_eq!(server.ring.connections(), 0);
    for client in clients {
        client.join().expect("no panic");
    }
    for bytes in server.received.values() {
        let number = bytes.chunks_exact(8).next();
        assert!(bytes.chunks_exact(8).all(|chunk| Some(chunk) == number), "bytes of one client only");
    }
}

fn storm(address: SocketAddr, client: u64, rounds: u64) {
    for round in 0..rounds {
        let mut stream = TcpStream::connect(address).expect("a listener");
        let number = (client << 32 | round).to_be_bytes();
        // The server may abort at any time: errors are part of the storm.
        let _ = stream.write_all(&number.repeat(1 + (round % 16) as usize));
        match round % 4 {
            0 => SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket"),
            1 => drop(stream.shutdown(Shutdown::Write)),
            2 => drop(stream.read(&mut [0; 16])),
            _ => {}
        }
    }
}

#[test]
fn another_thread_ends_the_sleep() {
    let mut ring = Ring::new(RingSettings::default()).expect("a ring");
    let waker = ring.waker();
    for _ in 0..3 {
        let waker = waker.clone();
        let start = Instant::now();
        let other = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            waker.wake();
        });
        ring.wait(Some(clock::now() + Duration::from_secs(10)));
        assert!(start.elapsed() < Duration::from_secs(5));
        ring.drain(&mut Vec::new());
        other.join().expect("no panic");
    }
}

#[test]
fn a_deadline_ends_the_sleep() {
    let mut ring = Ring::new(RingSettings::default()).expect("a ring");
    let deadline = clock::now() + Duration::from_millis(30);
    while clock::now() < deadline {
        ring.wait(Some(deadline));
    }
    assert!(clock::now().saturating_since(deadline) < Duration::from_secs(1));
}

#[test]
fn a_paused_listener_accepts_after_it_is_resumed() {
    let mut server = server(RingSettings::default());
    server.turn();
    server.ring.pause_accepting(ListenerId(0));
    (0..3).for_each(|_| server.turn());
    let _client = TcpStream::connect(server.address).expect("the backlog");
    (0..3).for_each(|_| server.turn());
    assert_eq!(server.next, 1);
    server.ring.resume_accepting(ListenerId(0));
    server.until("accepted", |server| server.next == 2);
}

/// Runs itself again with few descriptors: the limit is the process's, and other tests need theirs.
#[test]
fn running_out_of_descriptors_pauses_accepting_without_a_spin() {
    const NAME: &str = "OXKEEPER_TEST_FEW_DESCRIPTORS";
    if std::env::var_os(NAME).is_none() {
        let this = std::env::current_exe().expect("this test's binary");
        let run = "ulimit -n 64 && exec \"$0\" --exact io::ring::tests::running_out_of_descriptors_pauses_accepting_without_a_spin";
        let status = std::process::Command::new("sh").args(["-c", run]).arg(this).env(NAME, "1").status();
        assert!(status.expect("a shell").success());
        return;
    }
    let mut server = server(RingSettings::default());
    server.turn();
    let mut clients = Vec::new();
    while let Ok(client) = TcpStream::connect(server.address) {
        clients.push(client);
    }
    // None is left for the server's side of any connection.
    let mut turns = 0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(450) {
        server.ring.wait(Some(clock::now() + Duration::from_millis(500)));
        server.ring.drain(&mut server.events);
        turns += 1;
    }
    assert!(server.events.is_empty());
    assert!((2..=10).contains(&turns), "{turns} turns");
    // Half of the clients go: the backlog of the others, and theirs, can be accepted.
    let half = clients.len() / 2;
    clients.truncate(half);
    server.until("accepted", |server| server.next as usize > half);
}

#[test]
fn a_ring_connects_to_another() {
    let mut server = server(RingSettings::default());
    server.echo = false;
    let conn = ConnectionId(server.next);
    server.next += 1;
    server.connect_out(conn, server.address);
    server.until("connected", |server| server.connected == [conn]);
    server.until("accepted", |server| server.next == 3);
    server.sent.insert(conn, 5);
    server.ring.send(conn, b"hello".to_vec());
    server.until("received", |server| server.received(ConnectionId(2)) == 5);
}

#[test]
fn refused_and_abandoned_connections_are_closed() {
    let mut server = server(RingSettings::default());
    let nobody =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).expect("a port");
    server.next = 3;
    server.connect_out(ConnectionId(1), nobody);
    server.until("refused", |server| server.closed == [(ConnectionId(1), CloseReason::Failed(libc::ECONNREFUSED))]);
    server.connect_out(ConnectionId(2), server.address);
    server.ring.close(ConnectionId(2), Close::Graceful);
    server.until("abandoned", |server| server.closed.len() == 2);
    assert_eq!(server.closed[1], (ConnectionId(2), CloseReason::Asked));
}

#[test]
fn a_connection_with_itself_is_a_refusal() {
    let mut server = server(RingSettings::default());
    server.next = 2;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = server.ring.socket_for(any).expect("a socket");
    socket.bind(&any.into()).expect("a free port");
    let own = socket.local_addr().expect("bound").as_socket().expect("of the internet");
    server.ring.connect(ConnectionId(1), socket, own);
    server.until("refused", |server| server.closed == [(ConnectionId(1), CloseReason::Failed(libc::ECONNREFUSED))]);
    std::net::TcpListener::bind(own).expect("the port is free again");
}

/// Writes three blocks, the later before the earlier, and reads them back.
fn check_log_writes(directory: &std::path::Path, direct: bool, sync: ForceSync) {
    use std::os::unix::fs::OpenOptionsExt;
    let directory = tempfile::tempdir_in(directory).expect("a writable directory");
    let path = directory.path().join("log.1");
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    if direct {
        options.custom_flags(libc::O_DIRECT);
    }
    let file = options.open(&path).expect("a new file");
    let mut ring = Ring::new(RingSettings { log_buffers: 2, ..RingSettings::default() }).expect("a ring");
    let log = ring.add_log(file, sync);
    let mut waiting = HashMap::new();
    for (block, length) in [(2_u64, 4096), (0, 8192), (3, 1 << 20)] {
        let mut buffer = ring.log_buffer(length).expect("memory");
        buffer[..length].fill(b'a' + block as u8);
        let token = ring.write_log(log, block * 4096, buffer, length);
        waiting.insert(token, length);
    }
    assert_eq!(ring.log_writes_in_flight(), 3);
    let mut events = Vec::new();
    while !waiting.is_empty() {
        ring.wait(None);
        ring.drain(&mut events);
        for event in events.drain(..) {
            let Event::Written { token, buffer, result } = event else { panic!("unexpected {event:?}") };
            result.expect("written");
            assert!(waiting.remove(&token).is_some_and(|length| buffer.len() >= length));
            ring.give_back_log_buffer(buffer);
        }
    }
    drop(ring.remove_log(log));
    let bytes = std::fs::read(&path).expect("the file");
    let expected = [vec![b'a'; 8192], vec![b'c'; 4096], vec![b'd'; 1 << 20]].concat();
    assert!(bytes == expected);
}

#[test]
fn log_writes_reach_the_disk() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    check_log_writes(&here, true, ForceSync::Yes);
    check_log_writes(&here, false, ForceSync::Yes);
    check_log_writes(&here, true, ForceSync::No);
}

#[test]
fn log_writes_reach_a_file_system_in_memory() {
    check_log_writes(std::path::Path::new("/dev/shm"), false, ForceSync::Yes);
}

#[test]
fn a_write_that_fails_says_so() {
    let file = File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).expect("this package");
    let mut ring = Ring::new(RingSettings::default()).expect("a ring");
    let log = ring.add_log(file, ForceSync::Yes);
    let buffer = ring.log_buffer(4096).expect("memory");
    ring.write_log(log, 0, buffer, 4096);
    let mut events = Vec::new();
    while events.is_empty() {
        ring.wait(None);
        ring.drain(&mut events);
    }
    let Some(Event::Written { result: Err(error), .. }) = events.pop() else { panic!("an error") };
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
}
