//! Sockets between servers: both listeners, the connections that come in and those that the zab machine asks for.
//! Never: framing, a retry, or a word about who may speak. Bytes go in and out; what became of a socket is told.
//! Owner: the zab core, through its thread's ring, which on few CPUs is a shard's as well.
//! Start at `Peers::carry_out` and `Peers::on_event`; `ports.rs` listens, `names.rs` looks up hosts, `link.rs` is one connection.
//!
//! A dead host, a slow name server or a peer that does not read never delays another socket: attempts are the kernel's,
//! look-ups have threads of their own, and each connection has a queue of its own.

mod link;
mod names;
mod ports;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::SockRef;

use super::clock;
use super::mesh::Doorbell;
use super::ring::{Close, CloseReason, Event, ListenerId, Ring};
use crate::config::HostPort;
use crate::types::ids::ConnectionId;
use crate::types::limits;
use crate::types::time::Time;
use crate::zab::transport::{Port, SocketId, SocketInput, SocketOutput};
use link::{Attempts, Link, State};
use names::{Names, Purpose};
pub use ports::CannotListen;
use ports::{Action, Ports};

/// Set in the connection ids of peers, so that nobody takes them for a client's.
const PEER_BIT: u64 = 1 << 63;
/// The next address of a name is tried when the one before has not answered for so long.
const STAGGER: Duration = Duration::from_millis(200);
/// What was sent before a close must have left within this time.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// What of the configuration the sockets between servers need.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerSettings {
    /// Where to listen. With `quorumListenOnAllIPs` one wildcard each.
    pub election: Vec<HostPort>,
    pub quorum: Vec<HostPort>,
    /// `electionPortBindRetry`: failures in a row before the process ends. `None`: it never does.
    pub bind_retries_max: Option<u32>,
    /// `tcpKeepAlive`.
    pub keep_alive: bool,
    /// An attempt to connect that nobody answers for so long has failed (`cnxTimeout`).
    pub connect_timeout: Duration,
    /// Data that nobody acknowledges, or that a peer does not take, for so long ends the connection: longer than a learner may
    /// be busy with a snapshot.
    pub user_timeout: Duration,
}

/// All sockets to other servers.
pub struct Peers {
    settings: PeerSettings,
    ports: Ports,
    names: Names,
    links: BTreeMap<SocketId, Link>,
    /// Which socket a connection of the ring belongs to. Those that were given up are not in here.
    of_connection: HashMap<ConnectionId, SocketId, ahash::RandomState>,
    connections: u64,
    accepted: u64,
    /// Sockets with bytes for the ring at the end of the turn.
    to_send: BTreeSet<SocketId>,
    /// What no event of the ring stands for.
    heard: VecDeque<SocketInput<'static>>,
    /// Nothing is received from anybody for now.
    is_receiving: bool,
}

/// What happened otherwise than in the ring, or earlier.
#[derive(PartialEq, Eq, Debug)]
pub enum News {
    Input(SocketInput<'static>),
    /// Bytes that came while nothing was taken.
    Received {
        socket: SocketId,
        bytes: Vec<u8>,
    },
}

impl News {
    pub fn as_input(&self) -> SocketInput<'_> {
        match self {
            News::Input(input) => input.clone(),
            News::Received { socket, bytes } => SocketInput::Received { socket: *socket, bytes },
        }
    }
}

impl Peers {
    /// Listens as soon as it can: `doorbell` wakes the core when a host name was looked up.
    pub fn new(settings: PeerSettings, doorbell: Doorbell, ring: &mut Ring) -> Peers {
        let mut peers = Peers {
            ports: Ports::new(&settings),
            settings,
            names: Names::new(doorbell),
            links: BTreeMap::new(),
            of_connection: HashMap::default(),
            connections: 0,
            accepted: 0,
            to_send: BTreeSet::new(),
            heard: VecDeque::new(),
            is_receiving: true,
        };
        peers.open_ports(clock::now(), ring);
        peers
    }

    /// Whether an event of the ring is for a peer's socket or listener.
    pub fn concerns(&self, event: &Event) -> bool {
        match event {
            Event::Accepted { listener, .. } => self.ports.kind_of(*listener).is_some(),
            Event::Connected { conn }
            | Event::Received { conn, .. }
            | Event::EndOfStream { conn }
            | Event::Sent { conn, .. }
            | Event::Closed { conn, .. } => conn.0 & PEER_BIT != 0,
            Event::Written { .. } => false,
        }
    }

    /// Where this server listens so far.
    pub fn addresses(&self, port: Port) -> impl Iterator<Item = SocketAddr> + '_ {
        self.ports.addresses(port)
    }

    /// Why the process must end: a port could not be bound as often as the settings allow.
    pub fn fatal(&self) -> Option<&CannotListen> {
        self.ports.fatal()
    }

    /// Bytes of a socket that have not left yet.
    pub fn unsent(&self, socket: SocketId) -> usize {
        self.links.get(&socket).map_or(0, Link::unsent)
    }

    /// Nothing has come but through the ring. `takes_bytes`: as for `take_news`.
    pub fn nothing_waits(&self, takes_bytes: bool) -> bool {
        self.heard.is_empty() && self.names.is_empty() && (!takes_bytes || !self.links.values().any(Link::has_kept))
    }

    /// When `take_news` should be called.
    pub fn deadline(&self) -> Option<Time> {
        self.links.values().filter_map(Link::deadline).chain(self.ports.deadline()).min()
    }

    /// What happened otherwise than in the ring, one at a time: names that were found, time that has passed, bytes that were
    /// kept back. While `takes_bytes` is false bytes wait, and so does the end of a connection behind them.
    pub fn take_news(&mut self, now: Time, takes_bytes: bool, ring: &mut Ring) -> Option<News> {
        while let Some((purposes, found)) = self.names.pop() {
            for purpose in purposes {
                match purpose {
                    Purpose::Listen(at) => self.ports.on_found(at, &found),
                    Purpose::Connect(socket, port) => self.on_found(now, socket, port, &found, ring),
                }
            }
        }
        self.open_ports(now, ring);
        self.on_deadlines(now, ring);
        if takes_bytes && let Some(news) = self.take_kept() {
            return Some(news);
        }
        self.heard.pop_front().map(News::Input)
    }

    fn take_kept(&mut self) -> Option<News> {
        let (socket, link) = self.links.iter_mut().find(|(_, link)| link.has_kept())?;
        let socket = *socket;
        match &mut link.state {
            State::Open { kept, .. } => Some(News::Received { socket, bytes: std::mem::take(kept) }),
            State::Gone { kept, .. } if !kept.is_empty() => {
                Some(News::Received { socket, bytes: std::mem::take(kept) })
            }
            State::Gone { is_refused, .. } => {
                let is_refused = *is_refused;
                self.links.remove(&socket);
                Some(News::Input(SocketInput::Closed { socket, is_refused }))
            }
            State::Connecting(_) | State::Closing { .. } => None,
        }
    }

    /// One event of the ring that `concerns` peers. `takes_bytes`: as for `take_news`.
    pub fn on_event<'r>(&mut self, event: Event, takes_bytes: bool, ring: &'r mut Ring) -> Option<SocketInput<'r>> {
        match event {
            Event::Accepted { listener, socket, peer, .. } => self.on_accepted(listener, socket, peer, ring),
            Event::Connected { conn } => self.on_connected(conn, ring),
            Event::Received { conn, bytes } => {
                let socket = *self.of_connection.get(&conn)?;
                let State::Open { kept, .. } = &mut self.links.get_mut(&socket)?.state else { return None };
                if takes_bytes && kept.is_empty() {
                    return Some(SocketInput::Received { socket, bytes: ring.received(&bytes) });
                }
                kept.extend_from_slice(ring.received(&bytes));
                ring.pause_receiving(conn);
                self.is_receiving = false;
                None
            }
            Event::EndOfStream { conn } => self.on_end_of_stream(conn, ring),
            Event::Sent { conn, .. } => self.on_sent(conn, ring),
            Event::Closed { conn, reason } => self.on_closed(conn, reason, ring),
            Event::Written { .. } => None,
        }
    }

    /// Does what the machine wants. Bytes leave with `end_turn`.
    pub fn carry_out(&mut self, output: SocketOutput, ring: &mut Ring) {
        match output {
            SocketOutput::Connect { socket, addresses } => self.connect(socket, addresses, ring),
            SocketOutput::Send { socket, bytes } => self.send(socket, bytes, ring),
            SocketOutput::Hold { socket, is_held } => self.hold(socket, is_held, ring),
            SocketOutput::Close { socket, is_abrupt } => self.close(socket, is_abrupt, ring),
        }
    }

    /// Hands to the ring what was sent in this turn: many small messages are one write. While `takes_bytes` is false, nothing
    /// is received: the peers' own TCP holds them back.
    pub fn end_turn(&mut self, takes_bytes: bool, ring: &mut Ring) {
        if self.is_receiving != takes_bytes {
            self.is_receiving = takes_bytes;
            for link in self.links.values() {
                match &link.state {
                    State::Open { conn, is_held: false, .. } if takes_bytes => ring.resume_receiving(*conn),
                    State::Open { conn, .. } if !takes_bytes => ring.pause_receiving(*conn),
                    State::Open { .. } | State::Connecting(_) | State::Closing { .. } | State::Gone { .. } => {}
                }
            }
        }
        for socket in std::mem::take(&mut self.to_send) {
            if let Some(link) = self.links.get_mut(&socket) {
                link.send_next(ring);
            }
        }
    }

    fn connect(&mut self, socket: SocketId, addresses: Vec<HostPort>, ring: &mut Ring) {
        assert!(socket.0.is_multiple_of(2), "odd ids are those of sockets that come in");
        if self.links.len() >= limits::PEER_SOCKETS_MAX {
            return self.heard.push_back(SocketInput::Closed { socket, is_refused: false });
        }
        let before = self.links.insert(socket, Link::connecting(Attempts::default()));
        assert!(before.is_none(), "socket ids are never used twice");
        for HostPort { host, port } in addresses {
            match names::literal(&host, port) {
                Some(address) => self.attempt(socket, address, ring),
                None => {
                    if self.names.look_up(&host, Purpose::Connect(socket, port))
                        && let Some(attempts) = self.attempts(socket)
                    {
                        attempts.look_ups += 1;
                    }
                }
            }
        }
        self.close_if_hopeless(socket);
    }

    fn attempts(&mut self, socket: SocketId) -> Option<&mut Attempts> {
        match &mut self.links.get_mut(&socket)?.state {
            State::Connecting(attempts) => Some(attempts),
            State::Open { .. } | State::Closing { .. } | State::Gone { .. } => None,
        }
    }

    fn attempt(&mut self, socket: SocketId, address: SocketAddr, ring: &mut Ring) {
        let conn = self.next_connection();
        let made = ring.socket_for(address).and_then(|made| {
            self.set_options(&SockRef::from(&made), self.settings.connect_timeout)?;
            Ok(made)
        });
        let Some(attempts) = self.attempts(socket) else { return };
        match made {
            Ok(made) => {
                attempts.under_way.push(conn);
                self.of_connection.insert(conn, socket);
                ring.connect(conn, made, address);
            }
            // No such family, or no descriptors: one address less.
            Err(error) => tracing::debug!(%address, %error, "no socket for a peer"),
        }
    }

    fn on_found(
        &mut self,
        now: Time,
        socket: SocketId,
        port: u16,
        found: &io::Result<Vec<SocketAddr>>,
        ring: &mut Ring,
    ) {
        let Some(attempts) = self.attempts(socket) else { return };
        attempts.look_ups -= 1;
        let found = found.as_deref().unwrap_or_default();
        let mut found = found.iter().map(|address| SocketAddr::new(address.ip(), port));
        let first = found.next();
        attempts.waiting.extend(found.take(limits::ADDRESSES_PER_NAME_MAX));
        if !attempts.waiting.is_empty() {
            attempts.next_at = Some(now + STAGGER);
        }
        if let Some(first) = first {
            self.attempt(socket, first, ring);
        }
        self.close_if_hopeless(socket);
    }

    /// Every attempt has failed and no look-up is out: nothing will come of it.
    fn close_if_hopeless(&mut self, socket: SocketId) {
        if let Some(attempts) = self.attempts(socket)
            && attempts.is_hopeless()
        {
            let is_refused = attempts.is_refused;
            self.links.remove(&socket);
            self.heard.push_back(SocketInput::Closed { socket, is_refused });
        }
    }

    fn on_connected(&mut self, conn: ConnectionId, ring: &mut Ring) -> Option<SocketInput<'static>> {
        let socket = *self.of_connection.get(&conn)?;
        let attempts = std::mem::take(self.attempts(socket)?);
        for other in attempts.under_way {
            if other != conn {
                self.of_connection.remove(&other);
                ring.close(other, Close::Abort);
            }
        }
        ring.set_user_timeout(conn, self.settings.user_timeout);
        self.links.insert(socket, Link::open(conn));
        Some(SocketInput::Connected { socket })
    }

    fn on_accepted(
        &mut self,
        listener: ListenerId,
        accepted: OwnedFd,
        peer: SocketAddr,
        ring: &mut Ring,
    ) -> Option<SocketInput<'static>> {
        let port = self.ports.kind_of(listener)?;
        if self.links.len() >= limits::PEER_SOCKETS_MAX {
            tracing::warn!(%peer, ?port, "too many connections between servers; this one is closed");
            return None;
        }
        // A peer that has gone again already.
        self.set_options(&SockRef::from(&accepted), self.settings.user_timeout).ok()?;
        tracing::debug!(%peer, ?port, "a server connects");
        let socket = SocketId(2 * self.accepted + 1);
        self.accepted += 1;
        let conn = self.next_connection();
        self.of_connection.insert(conn, socket);
        self.links.insert(socket, Link::open(conn));
        ring.add_connection(conn, accepted);
        Some(SocketInput::Accepted { socket, port })
    }

    fn set_options(&self, socket: &SockRef<'_>, user_timeout: Duration) -> io::Result<()> {
        socket.set_tcp_nodelay(true)?;
        socket.set_keepalive(self.settings.keep_alive)?;
        socket.set_tcp_user_timeout(Some(user_timeout))
    }

    fn next_connection(&mut self) -> ConnectionId {
        self.connections += 1;
        ConnectionId(PEER_BIT | self.connections)
    }

    fn send(&mut self, socket: SocketId, bytes: Vec<u8>, ring: &mut Ring) {
        let Some(Link { state: State::Open { queue, .. } }) = self.links.get_mut(&socket) else { return };
        queue.push(bytes);
        if queue.unsent() > limits::PEER_UNSENT_BYTES_MAX {
            tracing::warn!(bytes = queue.unsent(), "a server takes nothing of what is sent to it: disconnected");
            self.close(socket, true, ring);
            return self.heard.push_back(SocketInput::Closed { socket, is_refused: false });
        }
        self.to_send.insert(socket);
    }

    fn on_sent(&mut self, conn: ConnectionId, ring: &mut Ring) -> Option<SocketInput<'static>> {
        let socket = *self.of_connection.get(&conn)?;
        let link = self.links.get_mut(&socket)?;
        let is_closing = link.on_sent();
        if is_closing && link.unsent() == 0 {
            self.forget(socket);
            ring.close(conn, Close::Graceful);
            return None;
        }
        link.send_next(ring);
        (!is_closing).then(|| SocketInput::Unsent { socket, bytes: link.unsent() })
    }

    fn hold(&mut self, socket: SocketId, is_held: bool, ring: &mut Ring) {
        let Some(Link { state: State::Open { conn, is_held: its, .. } }) = self.links.get_mut(&socket) else { return };
        *its = is_held;
        if is_held {
            ring.pause_receiving(*conn);
        } else if self.is_receiving {
            ring.resume_receiving(*conn);
        }
    }

    fn close(&mut self, socket: SocketId, is_abrupt: bool, ring: &mut Ring) {
        let Some(link) = self.links.get_mut(&socket) else { return };
        let how = if is_abrupt { Close::Abort } else { Close::Graceful };
        let conn = match &mut link.state {
            State::Connecting(attempts) => {
                for conn in std::mem::take(&mut attempts.under_way) {
                    self.of_connection.remove(&conn);
                    ring.close(conn, Close::Abort);
                }
                self.links.remove(&socket);
                return;
            }
            State::Gone { .. } => {
                self.links.remove(&socket);
                return;
            }
            State::Open { conn, queue, .. } if !is_abrupt && queue.unsent() > 0 => {
                let (conn, queue) = (*conn, std::mem::take(queue));
                link.state = State::Closing { conn, queue, until: clock::now() + FLUSH_LIMIT };
                link.send_next(ring);
                return;
            }
            State::Open { conn, .. } | State::Closing { conn, .. } => *conn,
        };
        self.forget(socket);
        ring.close(conn, how);
    }

    /// The socket is no longer the machine's: what the ring still says of its connection means nothing.
    fn forget(&mut self, socket: SocketId) {
        if let Some(conn) = self.links.remove(&socket).and_then(|link| link.connection()) {
            self.of_connection.remove(&conn);
        }
        self.to_send.remove(&socket);
    }

    /// The peer sends no more: a server that speaks this protocol has gone then.
    fn on_end_of_stream(&mut self, conn: ConnectionId, ring: &mut Ring) -> Option<SocketInput<'static>> {
        let socket = *self.of_connection.get(&conn)?;
        ring.close(conn, Close::Graceful);
        self.lose(socket, false)
    }

    /// A connection has ended from the other side. Told now, or behind the bytes that were kept back.
    fn lose(&mut self, socket: SocketId, is_refused: bool) -> Option<SocketInput<'static>> {
        let (was_open, kept) = match self.links.get_mut(&socket).map(|link| &mut link.state) {
            Some(State::Open { kept, .. }) => (true, std::mem::take(kept)),
            Some(State::Connecting(_) | State::Closing { .. } | State::Gone { .. }) | None => (false, Vec::new()),
        };
        self.forget(socket);
        if !kept.is_empty() {
            self.links.insert(socket, Link { state: State::Gone { kept, is_refused } });
            return None;
        }
        was_open.then_some(SocketInput::Closed { socket, is_refused })
    }

    fn on_closed(&mut self, conn: ConnectionId, reason: CloseReason, ring: &mut Ring) -> Option<SocketInput<'static>> {
        let socket = self.of_connection.remove(&conn)?;
        let is_refused = match reason {
            CloseReason::Reset | CloseReason::Failed(libc::ECONNREFUSED) => true,
            CloseReason::Asked | CloseReason::LingerLimit | CloseReason::TimedOut | CloseReason::Failed(_) => false,
        };
        match &mut self.links.get_mut(&socket)?.state {
            State::Connecting(attempts) => {
                attempts.under_way.retain(|other| *other != conn);
                attempts.is_refused |= is_refused;
                if let Some(address) = attempts.waiting.pop_front() {
                    self.attempt(socket, address, ring);
                }
                self.close_if_hopeless(socket);
                None
            }
            State::Open { .. } | State::Closing { .. } => self.lose(socket, is_refused),
            State::Gone { .. } => None,
        }
    }

    fn on_deadlines(&mut self, now: Time, ring: &mut Ring) {
        let due = |(socket, link): (&SocketId, &Link)| link.deadline().filter(|at| *at <= now).map(|_| *socket);
        let due: Vec<SocketId> = self.links.iter().filter_map(due).collect();
        for socket in due {
            let Some(attempts) = self.attempts(socket) else {
                // What it was still to get does not leave.
                self.close(socket, true, ring);
                continue;
            };
            let next = attempts.waiting.pop_front();
            attempts.next_at = (!attempts.waiting.is_empty()).then(|| now + STAGGER);
            if let Some(address) = next {
                self.attempt(socket, address, ring);
            }
            self.close_if_hopeless(socket);
        }
    }

    /// Binds what is due.
    fn open_ports(&mut self, now: Time, ring: &mut Ring) {
        while let Some(action) = self.ports.next(now) {
            match action {
                Action::LookUp { at, host } => {
                    if !self.names.look_up(&host, Purpose::Listen(at)) {
                        self.ports.on_found(at, &Err(io::ErrorKind::NotFound.into()));
                    }
                }
                Action::Bind { at, addresses } => {
                    let bound = ports::bind(&addresses);
                    self.ports.on_bound(now, at, bound, |socket| ring.add_listener(socket));
                }
            }
        }
    }
}
