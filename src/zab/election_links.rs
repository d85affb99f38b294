//! The links of the election port: one with each member that there is something to say to (`QuorumCnxManager`).
//!
//! A link always runs from the higher sid to the lower, so that two servers that connect at the same time end up
//! with one. Whoever has the lower sid connects to say where it listens, closes, and is connected to:
//!
//! ```text
//!  Down ──Send, or a kept link was lost──► Connecting ──connected, my sid is higher──► Up
//!   ▲  ▲                                       │                                       │
//!   │  └── failed; connected, my sid is lower ─┘                                       │
//!   └───────────── closed, a bad frame, their link replaces ours ──────────────────────┘
//!  any ──accepted, their sid is higher──► Up           any ──accepted, theirs is lower──► Connecting (to where they say)
//! ```
//!
//! Three things differ from Java, none of them visible on the wire: links with voters are kept up once they were needed,
//! because a lost one is news, and a refused one even more; reconnecting is limited, so that a link that flaps costs
//! little; and who is no member is turned away.

use std::collections::BTreeMap;
use std::time::Duration;

use super::quorum::{Ensemble, Standing};
use super::transport::{Port, SocketId, SocketInput, SocketOutput};
use crate::config::HostPort;
use crate::types::ids::ServerId;
use crate::types::limits;
use crate::types::time::Time;
use crate::wire::election::{Address, InitialMessage, put_frame, split_frame};

/// A connection that does not say in this time who it is, is closed.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(1);

/// A first attempt to connect may take so long; the next ones twice as long each, up to `Settings::connect_limit`, and
/// then from the start again. Short attempts find a host that came back sooner than the kernel's own retries do.
const ATTEMPT_LIMIT: Duration = Duration::from_millis(800);
const ATTEMPT_LIMIT_DOUBLINGS: u32 = 3;

/// Between two attempts, from start to start: doubled with each that failed and each link that did not hold.
const RETRY_DELAY: Duration = Duration::from_millis(20);
const RETRY_DELAY_MAX: Duration = Duration::from_millis(640);

/// A link that was up for so long has held: when it breaks, the first attempt comes at once.
const HOLDS_AFTER: Duration = Duration::from_secs(1);

/// A lower sid's request to connect to it resets a link that is up. It is made, and granted, at most this often.
const REQUEST_GAP: Duration = Duration::from_millis(200);

/// At most one line about turned away connections in this time.
const COMPLAINT_GAP: Duration = Duration::from_secs(1);

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    pub me: ServerId,
    /// `multiAddress.enabled`: tell all own addresses.
    pub has_many_addresses: bool,
    /// `zookeeper.cnxTimeout`.
    pub connect_limit: Duration,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input<'a> {
    /// Of `Port::Election`, or of a socket that this machine `owns`.
    Socket(SocketInput<'a>),
    /// The payload of a notification. It replaces one for the same peer that has not left yet.
    Send {
        to: ServerId,
        payload: Vec<u8>,
    },
    /// What was sent so far is no longer true: nothing is sent again on fresh links.
    Forget,
    Timeout,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    Socket(SocketOutput),
    /// The payload of a notification.
    Received {
        from: ServerId,
        payload: Vec<u8>,
    },
    Up {
        peer: ServerId,
    },
    /// Told once per change. `is_refused`: nobody listens there, so that process is dead, or has not started.
    Down {
        peer: ServerId,
        is_refused: bool,
    },
}

/// All connections of the election port.
#[derive(Debug)]
pub struct ElectionLinks {
    settings: Settings,
    initial_message: Vec<u8>,
    peers: BTreeMap<ServerId, Peer>,
    sockets: BTreeMap<SocketId, Socket>,
    /// Multiples of four: the learner's own connections take the other even numbers.
    next_socket: u64,
    deadline: Option<Time>,
    complaints: Complaints,
}

#[derive(Debug)]
enum Socket {
    /// Accepted; the initial message is not complete.
    Greeting { since: Time, received: Vec<u8> },
    /// The one socket of that peer's `Link`.
    Of(ServerId),
}

#[derive(Debug)]
struct Peer {
    addresses: Vec<HostPort>,
    is_voter: bool,
    link: Link,
    /// What was told about it last.
    told: Told,
    /// The newest payload, sent again on a fresh link.
    latest: Option<Vec<u8>>,
    /// `latest` has been handed to the link that is up.
    has_left: bool,
    /// It votes, and a link was needed once: a lost one is replaced.
    is_kept: bool,
    /// Attempts that failed and links that did not hold, since one that did.
    failures: u32,
    retry_at: Time,
    /// When its last request to be connected to was granted.
    granted_at: Option<Time>,
}

#[derive(Debug)]
enum Link {
    Down,
    Connecting { socket: SocketId, since: Time, until: Time },
    Up { socket: SocketId, since: Time, received: Vec<u8>, unsent: usize },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Up,
    Down,
    Refused,
}

impl ElectionLinks {
    pub fn new(settings: Settings, ensemble: &Ensemble) -> ElectionLinks {
        let mut links = ElectionLinks {
            settings,
            initial_message: Vec::new(),
            peers: BTreeMap::new(),
            sockets: BTreeMap::new(),
            next_socket: 4,
            deadline: None,
            complaints: Complaints::default(),
        };
        links.set_members(ensemble);
        links
    }

    /// The configuration has changed: links of those who left are closed.
    pub fn reconfigure(&mut self, now: Time, ensemble: &Ensemble, out: &mut Vec<Output>) {
        let gone: Vec<ServerId> = self.peers.keys().copied().filter(|peer| !ensemble.has(*peer)).collect();
        for peer in gone {
            self.drop_link(peer, out);
            self.tell(peer, Told::Down, out);
            self.peers.remove(&peer);
        }
        self.set_members(ensemble);
        self.connect_due(now, out);
    }

    fn set_members(&mut self, ensemble: &Ensemble) {
        let me = self.settings.me;
        let own = ensemble.election_addresses(me).into_iter();
        let own: Vec<Address> = own.map(|HostPort { host, port }| Address { host, port }).collect();
        self.initial_message.clear();
        InitialMessage::encode(me, &own, self.settings.has_many_addresses, &mut self.initial_message);
        for id in ensemble.members().filter(|id| *id != me) {
            let peer = self.peers.entry(id).or_insert_with(Peer::new);
            peer.addresses = ensemble.election_addresses(id);
            peer.is_voter = ensemble.standing(id) == Standing::Voter;
        }
    }

    /// Whether `socket` is one of these links, or will be.
    pub fn owns(&self, socket: SocketId) -> bool {
        self.sockets.contains_key(&socket)
    }

    pub fn step(&mut self, now: Time, input: Input<'_>, out: &mut Vec<Output>) {
        match input {
            Input::Socket(SocketInput::Accepted { socket, port: Port::Election }) => {
                self.on_accepted(now, socket, out);
            }
            Input::Socket(SocketInput::Accepted { socket, port: Port::Quorum }) => {
                assert!(!self.owns(socket), "{socket:?} is a learner's");
            }
            Input::Socket(SocketInput::Connected { socket }) => self.on_connected(now, socket, out),
            Input::Socket(SocketInput::Received { socket, bytes }) => self.on_received(now, socket, bytes, out),
            Input::Socket(SocketInput::Unsent { socket, bytes }) => self.on_unsent(socket, bytes, out),
            Input::Socket(SocketInput::Closed { socket, is_refused }) => {
                self.on_closed(now, socket, is_refused, out);
            }
            Input::Send { to, payload } => self.on_send(to, payload, out),
            Input::Forget => self.peers.values_mut().for_each(|peer| peer.latest = None),
            Input::Timeout => self.on_timeout(now, out),
        }
        self.connect_due(now, out);
    }

    pub fn deadline(&self) -> Option<Time> {
        self.deadline
    }

    fn on_accepted(&mut self, now: Time, socket: SocketId, out: &mut Vec<Output>) {
        let greetings = self.sockets.iter().filter_map(|(socket, state)| match state {
            Socket::Greeting { since, .. } => Some((*since, *socket)),
            Socket::Of(_) => None,
        });
        let (count, oldest) = (greetings.clone().count(), greetings.min());
        if let Some((_, oldest)) = oldest.filter(|_| count >= limits::ELECTION_GREETINGS_MAX) {
            self.refuse(now, oldest, "too many connections that do not say who they are", out);
        }
        self.sockets.insert(socket, Socket::Greeting { since: now, received: Vec::new() });
    }

    fn on_connected(&mut self, now: Time, socket: SocketId, out: &mut Vec<Output>) {
        let Some(Socket::Of(id)) = self.sockets.get(&socket) else { return };
        let id = *id;
        if id < self.settings.me {
            return self.up(now, id, socket, self.initial_message.clone(), out);
        }
        out.push(Output::Socket(SocketOutput::Send { socket, bytes: self.initial_message.clone() }));
        out.push(Output::Socket(SocketOutput::Close { socket, is_abrupt: false }));
        self.sockets.remove(&socket);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.link = Link::Down;
            peer.failures += 1;
            peer.retry_at = now + REQUEST_GAP.max(peer.retry_delay());
        }
        self.tell(id, Told::Down, out);
    }

    fn on_received(&mut self, now: Time, socket: SocketId, bytes: &[u8], out: &mut Vec<Output>) {
        match self.sockets.get_mut(&socket) {
            None => {}
            Some(Socket::Of(id)) => {
                let id = *id;
                self.on_frames(now, id, bytes, out);
            }
            Some(Socket::Greeting { received, .. }) => {
                received.extend_from_slice(bytes);
                match InitialMessage::decode(received) {
                    Ok(None) => {}
                    Ok(Some((message, taken))) => {
                        let behind = received.split_off(taken);
                        self.on_greeted(now, socket, &message, &behind, out);
                    }
                    Err(error) => self.refuse(now, socket, &error.to_string(), out),
                }
            }
        }
    }

    /// The tie-break (`QuorumCnxManager.handleConnection`).
    fn on_greeted(
        &mut self,
        now: Time,
        socket: SocketId,
        message: &InitialMessage,
        behind: &[u8],
        out: &mut Vec<Output>,
    ) {
        let sid = message.sid;
        if sid == self.settings.me {
            let why = format!("server {sid} is this one: another server has the same myid");
            return self.refuse(now, socket, &why, out);
        }
        let Some(peer) = self.peers.get_mut(&sid) else {
            return self.refuse(now, socket, &format!("server {sid} is no member of this ensemble"), out);
        };
        if sid > self.settings.me {
            self.drop_link(sid, out);
            self.up(now, sid, socket, Vec::new(), out);
            return self.on_frames(now, sid, behind, out);
        }
        self.sockets.remove(&socket);
        out.push(Output::Socket(SocketOutput::Close { socket, is_abrupt: false }));
        // What was just begun is what it asks for; and a peer that flaps waits for its turn.
        let is_fresh = match &peer.link {
            Link::Down => false,
            Link::Connecting { since, .. } | Link::Up { since, .. } => now < *since + REQUEST_GAP,
        };
        if is_fresh || peer.granted_at.is_some_and(|granted_at| now < granted_at + REQUEST_GAP) {
            return;
        }
        peer.granted_at = Some(now);
        self.drop_link(sid, out);
        self.tell(sid, Told::Down, out);
        let told = message.addresses.iter().map(|address| HostPort::new(&address.host, address.port)).collect();
        self.connect(now, sid, told, out);
    }

    /// Bytes of a link that is up.
    fn on_frames(&mut self, now: Time, id: ServerId, bytes: &[u8], out: &mut Vec<Output>) {
        let Some(Link::Up { received, .. }) = self.peers.get_mut(&id).map(|peer| &mut peer.link) else { return };
        received.extend_from_slice(bytes);
        let mut rest = received.as_slice();
        let error = loop {
            match split_frame(rest) {
                Ok(None) => break None,
                Ok(Some((payload, behind))) => {
                    out.push(Output::Received { from: id, payload: payload.to_vec() });
                    rest = behind;
                }
                Err(error) => break Some(error),
            }
        };
        *received = rest.to_vec();
        if let Some(error) = error {
            self.complaints.add(now, &format!("server {id} sent a {error}: its link is closed"));
            self.drop_link(id, out);
            self.lost(now, id, Told::Down, out);
        }
    }

    fn on_unsent(&mut self, socket: SocketId, bytes: usize, out: &mut Vec<Output>) {
        let Some(Socket::Of(id)) = self.sockets.get(&socket) else { return };
        let Some(peer) = self.peers.get_mut(id) else { return };
        if let Link::Up { unsent, .. } = &mut peer.link {
            *unsent = bytes;
            peer.flush(Vec::new(), out);
        }
    }

    fn on_closed(&mut self, now: Time, socket: SocketId, is_refused: bool, out: &mut Vec<Output>) {
        let Some(Socket::Of(id)) = self.sockets.remove(&socket) else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        // A link that was up and was reset may have been replaced at the other end: only a refused attempt is proof.
        let was_attempt = matches!(peer.link, Link::Connecting { .. });
        self.lost(now, id, if was_attempt && is_refused { Told::Refused } else { Told::Down }, out);
    }

    fn on_send(&mut self, to: ServerId, payload: Vec<u8>, out: &mut Vec<Output>) {
        // Who is no member any more is told nothing.
        let Some(peer) = self.peers.get_mut(&to) else { return };
        peer.latest = Some(payload);
        peer.has_left = false;
        peer.is_kept |= peer.is_voter;
        peer.flush(Vec::new(), out);
    }

    fn on_timeout(&mut self, now: Time, out: &mut Vec<Output>) {
        let silent: Vec<SocketId> = self
            .sockets
            .iter()
            .filter(|(_, state)| matches!(state, Socket::Greeting { since, .. } if *since + HANDSHAKE_LIMIT <= now))
            .map(|(socket, _)| *socket)
            .collect();
        for socket in silent {
            self.refuse(now, socket, "it does not say who it is", out);
        }
        let late: Vec<ServerId> = self
            .peers
            .iter()
            .filter(|(_, peer)| matches!(peer.link, Link::Connecting { until, .. } if until <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.drop_socket(id, out);
            self.lost(now, id, Told::Down, out);
        }
    }

    /// A link with `id` is there: whatever there was before is gone already.
    fn up(&mut self, now: Time, id: ServerId, socket: SocketId, first: Vec<u8>, out: &mut Vec<Output>) {
        self.sockets.insert(socket, Socket::Of(id));
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.link = Link::Up { socket, since: now, received: Vec::new(), unsent: 0 };
        peer.has_left = false;
        peer.is_kept |= peer.is_voter;
        peer.told = Told::Up;
        out.push(Output::Up { peer: id });
        peer.flush(first, out);
    }

    /// The link with `id`, or the attempt to make one, has ended without our doing. Its socket is forgotten already.
    fn lost(&mut self, now: Time, id: ServerId, told: Told, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let since = match std::mem::replace(&mut peer.link, Link::Down) {
            Link::Down => now,
            Link::Connecting { since, .. } => {
                peer.failures += 1;
                since
            }
            Link::Up { since, .. } => {
                peer.failures = if since + HOLDS_AFTER <= now { 0 } else { peer.failures + 1 };
                since
            }
        };
        peer.retry_at = now.max(since + peer.retry_delay());
        self.tell(id, told, out);
    }

    fn tell(&mut self, id: ServerId, told: Told, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.told != told {
            peer.told = told;
            out.push(Output::Down { peer: id, is_refused: told == Told::Refused });
        }
    }

    /// Closes the link with `id`, or the attempt to make one.
    fn drop_link(&mut self, id: ServerId, out: &mut Vec<Output>) {
        self.drop_socket(id, out);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.link = Link::Down;
        }
    }

    fn drop_socket(&mut self, id: ServerId, out: &mut Vec<Output>) {
        let Some(Link::Connecting { socket, .. } | Link::Up { socket, .. }) =
            self.peers.get(&id).map(|peer| &peer.link)
        else {
            return;
        };
        self.sockets.remove(socket);
        out.push(Output::Socket(SocketOutput::Close { socket: *socket, is_abrupt: true }));
    }

    fn refuse(&mut self, now: Time, socket: SocketId, why: &str, out: &mut Vec<Output>) {
        self.sockets.remove(&socket);
        out.push(Output::Socket(SocketOutput::Close { socket, is_abrupt: true }));
        self.complaints.add(now, &format!("a connection to the election port is refused: {why}"));
    }

    /// Connects to `addresses`, or where the configuration says if there are none.
    fn connect(&mut self, now: Time, id: ServerId, addresses: Vec<HostPort>, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let addresses = if addresses.is_empty() { peer.addresses.clone() } else { addresses };
        let doublings = peer.failures % (ATTEMPT_LIMIT_DOUBLINGS + 1);
        let limit = (ATTEMPT_LIMIT * 2_u32.pow(doublings)).min(self.settings.connect_limit);
        let socket = SocketId(self.next_socket);
        self.next_socket += 4;
        self.sockets.insert(socket, Socket::Of(id));
        peer.link = Link::Connecting { socket, since: now, until: now + limit };
        out.push(Output::Socket(SocketOutput::Connect { socket, addresses }));
    }

    /// Begins every attempt whose time has come, and finds out when the next thing happens.
    fn connect_due(&mut self, now: Time, out: &mut Vec<Output>) {
        let due = self.peers.iter().filter(|(_, peer)| peer.wants_link() && peer.retry_at <= now);
        let due: Vec<ServerId> = due.map(|(id, _)| *id).collect();
        for id in due {
            self.connect(now, id, Vec::new(), out);
        }
        let greetings = self.sockets.values().filter_map(|state| match state {
            Socket::Greeting { since, .. } => Some(*since + HANDSHAKE_LIMIT),
            Socket::Of(_) => None,
        });
        let links = self.peers.values().filter_map(|peer| match peer.link {
            Link::Connecting { until, .. } => Some(until),
            Link::Down | Link::Up { .. } => peer.wants_link().then_some(peer.retry_at),
        });
        self.deadline = greetings.chain(links).min();
    }
}

impl Peer {
    fn new() -> Peer {
        Peer {
            addresses: Vec::new(),
            is_voter: false,
            link: Link::Down,
            told: Told::Down,
            latest: None,
            has_left: false,
            is_kept: false,
            failures: 0,
            retry_at: Time::default(),
            granted_at: None,
        }
    }

    fn wants_link(&self) -> bool {
        let has_news = self.latest.is_some() && !self.has_left;
        matches!(self.link, Link::Down) && (self.is_kept || has_news)
    }

    fn retry_delay(&self) -> Duration {
        match self.failures {
            0 => Duration::ZERO,
            n => (RETRY_DELAY * 2_u32.pow((n - 1).min(10))).min(RETRY_DELAY_MAX),
        }
    }

    /// Hands `bytes`, and behind them the newest payload, to the link, unless too much waits there already.
    fn flush(&mut self, mut bytes: Vec<u8>, out: &mut Vec<Output>) {
        let Link::Up { socket, unsent, .. } = &mut self.link else { return };
        if !self.has_left && *unsent < limits::ELECTION_UNSENT_BYTES {
            if let Some(payload) = &self.latest {
                put_frame(payload, &mut bytes);
            }
            self.has_left = true;
        }
        if !bytes.is_empty() {
            *unsent += bytes.len();
            out.push(Output::Socket(SocketOutput::Send { socket: *socket, bytes }));
        }
    }
}

/// Lines in the log about what strangers do, however often they do it.
#[derive(Debug, Default)]
struct Complaints {
    next: Time,
    kept_back: u64,
}

impl Complaints {
    fn add(&mut self, now: Time, what: &str) {
        if now < self.next {
            self.kept_back += 1;
            return;
        }
        tracing::warn!(more = self.kept_back, "{what}");
        self.next = now + COMPLAINT_GAP;
        self.kept_back = 0;
    }
}

#[cfg(test)]
mod tests;
