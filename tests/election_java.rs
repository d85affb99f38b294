//! Elections together with Debian's Java servers: our machines, on sockets of this test, are one of three members.
//! Java must understand what we send, and we what it sends, byte for byte.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use oxkeeper::config::{HostPort, Member, Membership};
use oxkeeper::types::ids::ServerId;
use oxkeeper::types::time::Time;
use oxkeeper::types::zxid::Zxid;
use oxkeeper::wire::election::{Address, InitialMessage, Notification, PeerState, split_frame};
use oxkeeper::wire::extension::Extension;
use oxkeeper::zab::RoleName;
use oxkeeper::zab::election::{self, Elected};
use oxkeeper::zab::election_links;
use oxkeeper::zab::election_port::{ElectionPort, Input, Output, Settings};
use oxkeeper::zab::quorum::Ensemble;
use oxkeeper::zab::transport::{Port, SocketId, SocketInput, SocketOutput};
use support::server::{self, Program, Server, free_port};
use tempfile::TempDir;

/// A JVM on a busy machine, and Java's own waits.
const LIMIT: Duration = Duration::from_secs(90);

/// The three members: where each listens, on loopback.
struct Three {
    /// Quorum port and election port.
    ports: BTreeMap<i64, (u16, u16)>,
    directory: TempDir,
}

impl Three {
    fn new() -> Three {
        let ports = (1..=3).map(|id| (id, (free_port(), free_port()))).collect();
        Three { ports, directory: TempDir::new().expect("a temporary directory") }
    }

    fn line(&self, id: i64) -> String {
        let (quorum, election) = self.ports[&id];
        format!("127.0.0.1:{quorum}:{election}")
    }

    fn ensemble(&self) -> Ensemble {
        let member = |id| (ServerId(id), Member::parse(ServerId(id), &self.line(id), false).expect("a server line"));
        let members = (1..=3).map(member).collect();
        Ensemble::new(Membership { members, ..Membership::default() }).expect("somebody votes")
    }

    /// Starts a Java member. The thread ends when it serves, for which it needs a quorum.
    fn start_java(&self, id: i64) -> JoinHandle<Server> {
        let directory = self.directory.path().join(id.to_string());
        fs::create_dir_all(directory.join("data")).expect("a directory of our own");
        fs::write(directory.join("data/myid"), id.to_string()).expect("a directory of our own");
        let mut config: Vec<String> = (1..=3).map(|id| format!("server.{id}={}", self.line(id))).collect();
        config.extend(["tickTime=2000", "initLimit=10", "syncLimit=5"].map(str::to_owned));
        let settings = server::Settings { config, properties: Vec::new() };
        std::thread::spawn(move || Server::start(&Program::Java, &directory, &settings))
    }
}

/// A connection with what still has to leave.
struct Socket {
    stream: TcpStream,
    unsent: Vec<u8>,
    is_closing: bool,
    /// Everything that came.
    received: Vec<u8>,
}

/// Our member: the election port on real sockets, in one thread that never blocks.
struct Ours {
    me: i64,
    port: ElectionPort,
    listener: TcpListener,
    sockets: BTreeMap<SocketId, Socket>,
    accepted: u64,
    start: Instant,
    elected: Option<Elected>,
    refused: Vec<i64>,
    /// What came over connections that are gone.
    history: Vec<Vec<u8>>,
}

impl Ours {
    fn new(me: i64, three: &Three) -> Ours {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, three.ports[&me].1)).expect("the port is free");
        listener.set_nonblocking(true).expect("a socket of our own");
        let settings = Settings {
            election: election::Settings {
                me: ServerId(me),
                is_observer: false,
                grace: Duration::from_millis(15),
                notification_interval_min: Duration::from_millis(200),
                notification_interval_max: Duration::from_secs(60),
                extension: Some(Extension::new().with_identity(7, "test")),
            },
            links: election_links::Settings {
                me: ServerId(me),
                has_many_addresses: false,
                connect_limit: Duration::from_secs(5),
            },
        };
        Ours {
            me,
            port: ElectionPort::new(settings, three.ensemble()),
            listener,
            sockets: BTreeMap::new(),
            accepted: 0,
            start: Instant::now(),
            elected: None,
            refused: Vec::new(),
            history: Vec::new(),
        }
    }

    fn step(&mut self, input: Input<'_>) {
        let now = Time(self.start.elapsed().as_nanos() as u64);
        let mut out = Vec::new();
        self.port.step(now, input, &mut out);
        for output in out {
            match output {
                Output::Socket(output) => self.carry_out(output),
                Output::Elected(elected) => self.elected = Some(elected),
                Output::PeerDown { peer, is_refused: true } => self.refused.push(peer.0),
                Output::PeerDown { .. } | Output::PeerUp { .. } | Output::LookingAgain { .. } => {}
            }
        }
    }

    fn carry_out(&mut self, output: SocketOutput) {
        match output {
            SocketOutput::Connect { socket, addresses } => match connect(&addresses[0]) {
                Ok(stream) => {
                    self.add(socket, stream);
                    self.step(Input::Socket(SocketInput::Connected { socket }));
                }
                Err(error) => {
                    let is_refused = error.kind() == ErrorKind::ConnectionRefused;
                    self.step(Input::Socket(SocketInput::Closed { socket, is_refused }));
                }
            },
            SocketOutput::Send { socket, bytes } => {
                if let Some(socket) = self.sockets.get_mut(&socket) {
                    socket.unsent.extend(bytes);
                }
                self.write(socket);
            }
            SocketOutput::Hold { socket, .. } => panic!("an election link is never held: {socket:?}"),
            SocketOutput::Close { socket, is_abrupt: _ } => {
                if let Some(socket) = self.sockets.get_mut(&socket) {
                    socket.is_closing = true;
                }
                self.write(socket);
            }
        }
    }

    fn add(&mut self, id: SocketId, stream: TcpStream) {
        stream.set_nonblocking(true).expect("a socket of our own");
        stream.set_nodelay(true).expect("a socket of our own");
        self.sockets.insert(id, Socket { stream, unsent: Vec::new(), is_closing: false, received: Vec::new() });
    }

    /// Writes what goes; says what remains.
    fn write(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let before = socket.unsent.len();
        while let Ok(written @ 1..) = socket.stream.write(&socket.unsent) {
            socket.unsent.drain(..written);
        }
        let remains = socket.unsent.len();
        if socket.is_closing {
            if remains == 0 {
                self.forget(id);
            }
        } else if remains < before {
            self.step(Input::Socket(SocketInput::Unsent { socket: id, bytes: remains }));
        }
    }

    fn forget(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.remove(&id) {
            self.history.push(socket.received);
        }
    }

    fn read(&mut self, id: SocketId) {
        let mut bytes = [0; 4096];
        loop {
            let Some(socket) = self.sockets.get_mut(&id).filter(|socket| !socket.is_closing) else { return };
            match socket.stream.read(&mut bytes) {
                Ok(n @ 1..) => {
                    socket.received.extend(&bytes[..n]);
                    self.step(Input::Socket(SocketInput::Received { socket: id, bytes: &bytes[..n] }));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                ended => {
                    self.forget(id);
                    let is_refused = ended.is_err();
                    return self.step(Input::Socket(SocketInput::Closed { socket: id, is_refused }));
                }
            }
        }
    }

    /// Everything that has happened, once.
    fn turn(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            self.accepted += 1;
            let socket = SocketId(2 * self.accepted + 1);
            self.add(socket, stream);
            self.step(Input::Socket(SocketInput::Accepted { socket, port: Port::Election }));
        }
        for socket in self.sockets.keys().copied().collect::<Vec<_>>() {
            self.read(socket);
            self.write(socket);
        }
        let now = Time(self.start.elapsed().as_nanos() as u64);
        if self.port.deadline().is_some_and(|deadline| deadline <= now) {
            self.step(Input::Timeout);
        }
        std::thread::sleep(Duration::from_millis(1));
    }

    fn look(&mut self, zxid: Option<Zxid>, epoch: u32) {
        self.elected = None;
        self.step(Input::Left);
        self.step(Input::Look { zxid, epoch });
    }

    fn run<T>(&mut self, what: &str, mut done: impl FnMut(&Ours) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(value) = done(self) {
                println!("server {}: {what} after {:?}", self.me, start.elapsed());
                return value;
            }
            assert!(start.elapsed() < LIMIT, "not in {LIMIT:?}: {what}; elected {:?}", self.elected);
            self.turn();
        }
    }

    fn elect(&mut self, what: &str) -> Elected {
        self.run(what, |ours| ours.elected.clone())
    }

    /// Everything that came over each connection.
    fn conversations(&self) -> impl Iterator<Item = &[u8]> {
        let open = self.sockets.values().map(|socket| &socket.received);
        self.history.iter().chain(open).map(Vec::as_slice)
    }
}

fn connect(to: &HostPort) -> std::io::Result<TcpStream> {
    let address = SocketAddr::new(to.ip().expect("loopback is an address"), to.port);
    TcpStream::connect_timeout(&address, Duration::from_secs(5))
}

/// Who sent FOLLOWERINFO on a connection to our quorum port: `[11:i32][zxid:i64][length:i32][sid:i64]…`.
fn follower(stream: &mut TcpStream) -> i64 {
    stream.set_nonblocking(false).expect("a socket of our own");
    stream.set_read_timeout(Some(LIMIT)).expect("a socket of our own");
    let mut packet = [0; 24];
    stream.read_exact(&mut packet).expect("FOLLOWERINFO");
    assert_eq!(packet[..4], 11_i32.to_be_bytes(), "FOLLOWERINFO is packet 11");
    i64::from_be_bytes(packet[16..].try_into().expect("eight bytes"))
}

/// Java's own bytes are what we would have sent in its place: initial messages, and notifications with configuration.
/// Returns how many of each there were.
fn compare_bytes(ours: &Ours, three: &Three) -> (usize, usize) {
    let text = three.ensemble().text_for_peers().expect("three voters have a text");
    let (mut initial_messages, mut notifications) = (0, 0);
    for conversation in ours.conversations() {
        let mut rest = conversation;
        if let [0xff, ..] = rest {
            let (message, taken) = InitialMessage::decode(rest).expect("an initial message").expect("all of it");
            let told = Address { host: "127.0.0.1".to_owned(), port: three.ports[&message.sid.0].1 };
            let mut expected = Vec::new();
            InitialMessage::encode(message.sid, &[told], false, &mut expected);
            assert_eq!(&rest[..taken], expected);
            initial_messages += 1;
            rest = &rest[taken..];
        }
        while let Some((payload, behind)) = split_frame(rest).expect("frames") {
            let Notification { state, vote, version, config, extension } =
                Notification::decode(payload).expect("a notification");
            assert_eq!((version, config, extension), (2, Some(text.as_bytes()), None));
            let expected = oxkeeper::wire::election::encode_notification(state, &vote, Some(&text), &[]);
            assert_eq!(payload, expected);
            notifications += 1;
            rest = behind;
        }
    }
    (initial_messages, notifications)
}

/// Servers 1 and 2 are Java, 3 is ours: its links are made by us.
#[test]
fn java_elects_us_and_we_elect_java() {
    let three = Three::new();
    let quorum_port = TcpListener::bind((Ipv4Addr::LOCALHOST, three.ports[&3].0)).expect("the port is free");
    quorum_port.set_nonblocking(true).expect("a socket of our own");
    let java = [three.start_java(1), three.start_java(2)];
    let mut ours = Ours::new(3, &three);

    // Equal histories: the highest sid wins, and both others come to be led.
    ours.look(Some(Zxid::ZERO), 0);
    let elected = ours.elect("elected");
    assert_eq!((elected.leader, elected.role), (ServerId(3), RoleName::Leading));
    let mut followers = Vec::new();
    let accepted = |followers: &mut Vec<TcpStream>| {
        followers.extend(quorum_port.accept().map(|(stream, _)| stream));
        (followers.len() == 2).then_some(())
    };
    ours.run("both Java servers follow us", |_| accepted(&mut followers));
    let mut ids: Vec<i64> = followers.iter_mut().map(follower).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);

    // We give up, and have a database that nobody may trust: they elect without us, and we join them.
    drop((followers, quorum_port));
    ours.look(None, 0);
    let elected = ours.elect("joined");
    assert_eq!((elected.leader, elected.role), (ServerId(2), RoleName::Following));
    let [mut one, mut two] = java.map(|java| {
        ours.run("a Java server serves", |_| java.is_finished().then_some(()));
        java.join().expect("it serves")
    });
    assert_eq!([mode(&one), mode(&two)], ["follower", "leader"]);

    // Late, with nothing: we join at once.
    let (initial_messages, notifications) = compare_bytes(&ours, &three);
    println!("{initial_messages} initial messages and {notifications} notifications compared");
    assert!(notifications >= 6, "{notifications} notifications of Java");
    drop(ours);
    let start = Instant::now();
    let mut ours = loop {
        let mut ours = Ours::new(3, &three);
        ours.look(Some(Zxid::ZERO), 0);
        let elected = ours.elect("joined late");
        assert_eq!((elected.leader, elected.role), (ServerId(2), RoleName::Following));
        // Java serves a moment before it puts the new epoch into its vote.
        if elected.vote.peer_epoch == 1 {
            break ours;
        }
        assert!(start.elapsed() < LIMIT, "they never vote with their epoch: {elected}");
    };

    // Their leader dies: what is left are Java's 1, with a history, and we, without.
    two.kill();
    ours.run("the death is known", |ours| ours.refused.contains(&2).then_some(()));
    ours.look(Some(Zxid::ZERO), 0);
    let elected = ours.elect("elected after the leader's death");
    assert_eq!((elected.leader, elected.role), (ServerId(1), RoleName::Following));
    let leader = HostPort::new("127.0.0.1", three.ports[&1].0);
    ours.run("Java leads", |_| connect(&leader).ok());
    one.kill();
}

fn mode(server: &Server) -> String {
    let answer = server.four_letter("srvr").expect("it serves");
    let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "));
    mode.unwrap_or_else(|| panic!("no mode in {answer}")).to_owned()
}

/// Server 1 is ours, 2 and 3 are Java: its links are made by them.
#[test]
fn java_connects_to_the_lower_sid_that_asks() {
    let three = Three::new();
    let java = [three.start_java(2), three.start_java(3)];
    let mut ours = Ours::new(1, &three);
    ours.look(Some(Zxid::ZERO), 0);
    // Which of them leads depends on who of them was there first.
    let elected = ours.elect("elected");
    assert_eq!(elected.role, RoleName::Following);
    let _serving = java.map(|java| {
        ours.run("a Java server serves", |_| java.is_finished().then_some(()));
        java.join().expect("it serves")
    });
    let states = ours.conversations().flat_map(|bytes| {
        let frames = bytes.strip_prefix(&[0xff]).map_or(bytes, |_| {
            let taken = InitialMessage::decode(bytes).expect("an initial message").map_or(0, |(_, taken)| taken);
            &bytes[taken..]
        });
        split_frame(frames).expect("a frame").map(|(payload, _)| Notification::decode(payload).expect("a vote").state)
    });
    assert!(states.collect::<Vec<_>>().contains(&PeerState::Looking));
    let (initial_messages, notifications) = compare_bytes(&ours, &three);
    assert!(initial_messages >= 2 && notifications >= 2, "{initial_messages} {notifications}, {elected}");
}
