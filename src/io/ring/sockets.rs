//! Connections: receiving with back pressure, one send at a time, and an orderly end.
//!
//! ```text
//!   Open ── close(Graceful) ──► Finishing: send in flight ends ──► FIN out, received bytes dropped until the peer's FIN ──┐
//!    ├──── close(Abort), error, limit passed ──► Ending: receive and send given up ─────────────────────────────────────┴─► gone
//! ```
//!
//! A connection keeps its place in the table until the kernel has completed all its operations, so a completion always
//! finds the connection that it belongs to.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::{Event, Received, Ring, Tag};
use crate::io::clock;
use crate::io::kernel::uring::{Completed, Held, Key, Operation};
use crate::types::ids::ConnectionId;
use crate::types::time::Time;

/// How long a graceful close may take: the rest of what is being sent, and the peer's own FIN.
pub const LINGER_LIMIT: Duration = Duration::from_secs(2);

/// How to close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Close {
    /// What is being sent arrives first; a peer that is still sending does not lose it to an RST.
    Graceful,
    /// At once, with an RST: what is being sent may be lost.
    Abort,
}

/// Why a connection is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The owner asked for it.
    Asked,
    /// It was asked for, but the peer did not play along within `LINGER_LIMIT`.
    LingerLimit,
    /// The peer, or the network between, ended it (ECONNRESET, EPIPE).
    Reset,
    /// The peer acknowledged nothing for `RingSettings::user_timeout`, or answered no keep-alive probes.
    TimedOut,
    /// Anything else, as an errno: ECONNREFUSED, EHOSTUNREACH, …
    Failed(i32),
}

impl CloseReason {
    fn of(errno: i32) -> CloseReason {
        match errno {
            libc::ECONNRESET | libc::EPIPE => CloseReason::Reset,
            libc::ETIMEDOUT => CloseReason::TimedOut,
            errno => CloseReason::Failed(errno),
        }
    }
}

#[derive(Default)]
pub(super) struct Sockets {
    table: Vec<Option<Connection>>,
    free: Vec<u32>,
    places: HashMap<ConnectionId, u32, ahash::RandomState>,
    /// Connections whose receiving ended for want of buffers.
    starved: Vec<u32>,
    /// When graceful closes end at the latest, in order.
    lingering: VecDeque<(Time, ConnectionId)>,
}

struct Connection {
    id: ConnectionId,
    socket: OwnedFd,
    receiving: Option<Key>,
    /// The owner (or a graceful close) wants what arrives.
    wanted: bool,
    /// The peer's FIN has come.
    ended: bool,
    /// Not connected yet: `sending` is the attempt.
    connecting: bool,
    sending: Option<Sending>,
    state: State,
}

struct Sending {
    key: Key,
    sent: usize,
}

enum State {
    Open,
    Finishing,
    Ending(CloseReason),
}

impl Sockets {
    fn get(&mut self, id: ConnectionId) -> Option<(u32, &mut Connection)> {
        let place = *self.places.get(&id)?;
        self.table[place as usize].as_mut().map(|connection| (place, connection))
    }

    fn add(&mut self, id: ConnectionId, socket: OwnedFd) -> u32 {
        let connection = Connection {
            id,
            socket,
            receiving: None,
            wanted: true,
            ended: false,
            connecting: false,
            sending: None,
            state: State::Open,
        };
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.table.push(None);
                (self.table.len() - 1) as u32
            }
        };
        self.table[place as usize] = Some(connection);
        let before = self.places.insert(id, place);
        assert!(before.is_none(), "connection ids are never used twice");
        place
    }

    fn at(&mut self, place: u32) -> &mut Connection {
        self.table[place as usize].as_mut().expect("a connection stays in its place until its last completion")
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.lingering.front().map(|(until, _)| *until)
    }
}

impl Ring {
    /// Takes over an accepted socket and starts to receive from it. `conn` must never have been used before.
    pub fn add_connection(&mut self, conn: ConnectionId, socket: OwnedFd) {
        let place = self.sockets.add(conn, socket);
        self.receive(place);
    }

    /// Connects `socket` to `to`; `Connected` or `Closed` follows. It may take minutes: `close` gives up.
    pub fn connect(&mut self, conn: ConnectionId, socket: Socket, to: SocketAddr) {
        let to = Box::new(SockAddr::from(to));
        let place = self.sockets.add(conn, OwnedFd::from(socket));
        let operation = Operation::Connect { socket: self.sockets.at(place).socket.as_raw_fd(), to };
        let key = self.uring.start(Tag::Connect(place), operation);
        let connection = self.sockets.at(place);
        connection.connecting = true;
        connection.sending = Some(Sending { key, sent: 0 });
    }

    /// A socket for `connect`, with this ring's options. Errors: the kernel makes none of that kind.
    pub fn socket_for(&self, to: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        self.set_options(&socket)?;
        Ok(socket)
    }

    /// Sets TCP_USER_TIMEOUT of one connection. It also ends one whose peer reads nothing for so long.
    pub fn set_user_timeout(&mut self, conn: ConnectionId, timeout: Duration) {
        if let Some((_, connection)) = self.sockets.get(conn) {
            // On a socket that has just been reset the old one matters no more either.
            let _ = SockRef::from(&connection.socket).set_tcp_user_timeout(Some(timeout));
        }
    }

    /// Connections that the kernel still holds something of.
    pub fn connections(&self) -> usize {
        self.sockets.places.len()
    }

    /// Receives no more from the peer, whose sending TCP then stops. What was taken from the socket before still arrives;
    /// that the peer has gone shows in a send or after `resume_receiving`.
    pub fn pause_receiving(&mut self, conn: ConnectionId) {
        let Some((_, connection)) = self.sockets.get(conn) else { return };
        if let State::Open = connection.state {
            connection.wanted = false;
            if let Some(key) = connection.receiving {
                self.uring.cancel(key);
            }
        }
    }

    pub fn resume_receiving(&mut self, conn: ConnectionId) {
        let Some((place, connection)) = self.sockets.get(conn) else { return };
        if let State::Open = connection.state {
            connection.wanted = true;
            self.receive(place);
        }
    }

    /// Sends all of `bytes`; `Sent` says when. One at a time: the connection must have no other send in flight.
    /// On a connection that is closing or gone the bytes are dropped: `Closed` has come or will.
    pub fn send(&mut self, conn: ConnectionId, bytes: Vec<u8>) {
        let Some((place, connection)) = self.sockets.get(conn) else { return };
        let State::Open = connection.state else { return };
        assert!(connection.sending.is_none(), "one send at a time: {conn:?}");
        assert!(!bytes.is_empty());
        let operation = Operation::Send { socket: connection.socket.as_raw_fd(), bytes, from: 0 };
        let key = self.uring.start(Tag::Send(place), operation);
        self.sockets.at(place).sending = Some(Sending { key, sent: 0 });
    }

    /// How much of the send in flight the kernel has taken; None if there is none. It shows whether a slow peer reads at all.
    pub fn sent_so_far(&mut self, conn: ConnectionId) -> Option<usize> {
        let (_, connection) = self.sockets.get(conn)?;
        connection.sending.as_ref().map(|sending| sending.sent)
    }

    /// Ends a connection; `Closed` follows once. Closing again only matters if it is `Abort` after `Graceful`.
    pub fn close(&mut self, conn: ConnectionId, how: Close) {
        let Some((place, connection)) = self.sockets.get(conn) else { return };
        let how = if connection.connecting { Close::Abort } else { how };
        match (how, &connection.state) {
            (_, State::Ending(_)) | (Close::Graceful, State::Finishing) => {}
            (Close::Abort, State::Open | State::Finishing) => {
                // Without unsent data this cannot fail on a TCP socket; if it does, a FIN goes out instead of the RST.
                let _ = SockRef::from(&connection.socket).set_linger(Some(Duration::ZERO));
                self.end(place, CloseReason::Asked);
            }
            (Close::Graceful, State::Open) => {
                connection.state = State::Finishing;
                connection.wanted = true;
                self.sockets.lingering.push_back((clock::now() + LINGER_LIMIT, conn));
                self.receive(place);
                self.finish(place);
            }
        }
        let closed = self.forget_if_done(place);
        self.ready.extend(closed);
    }

    /// The send in flight is through (if there was one): our FIN goes out, and with the peer's FIN the connection ends.
    fn finish(&mut self, place: u32) {
        let connection = self.sockets.at(place);
        if connection.sending.is_some() {
            return;
        }
        // ENOTCONN: the peer has reset it; receiving will say so.
        let _ = SockRef::from(&connection.socket).shutdown(Shutdown::Write);
        if connection.ended {
            connection.state = State::Ending(CloseReason::Asked);
        }
    }

    /// Gives up whatever is in flight.
    fn end(&mut self, place: u32, reason: CloseReason) {
        let connection = self.sockets.at(place);
        connection.state = State::Ending(reason);
        connection.wanted = false;
        let keys = [connection.receiving, connection.sending.as_ref().map(|sending| sending.key)];
        for key in keys.into_iter().flatten() {
            self.uring.cancel(key);
        }
    }

    /// Nothing is in flight any more on a connection that ends: the socket is closed, its place is free.
    fn forget_if_done(&mut self, place: u32) -> Option<Event> {
        let connection = self.sockets.at(place);
        let State::Ending(reason) = connection.state else { return None };
        if connection.receiving.is_some() || connection.sending.is_some() {
            return None;
        }
        let conn = connection.id;
        self.sockets.table[place as usize] = None;
        self.sockets.places.remove(&conn);
        self.sockets.free.push(place);
        Some(Event::Closed { conn, reason })
    }

    fn receive(&mut self, place: u32) {
        let connection = self.sockets.at(place);
        if connection.wanted && !connection.ended && !connection.connecting && connection.receiving.is_none() {
            let operation = Operation::ReceiveEach(connection.socket.as_raw_fd());
            connection.receiving = Some(self.uring.start(Tag::Receive(place), operation));
        }
    }

    /// Buffers have been given back: those that found none try again.
    pub(super) fn receive_again(&mut self) {
        let starved = mem::take(&mut self.sockets.starved);
        for place in starved {
            if self.sockets.table[place as usize].is_some() {
                self.receive(place);
            }
        }
    }

    pub(super) fn on_connect(&mut self, place: u32, completed: Completed<Tag>, events: &mut Vec<Event>) {
        let connection = self.sockets.at(place);
        connection.sending = None;
        connection.connecting = false;
        if completed.result < 0 {
            self.on_error(place, -completed.result);
        } else if is_to_itself(&connection.socket) {
            let _ = SockRef::from(&connection.socket).set_linger(Some(Duration::ZERO));
            self.on_error(place, libc::ECONNREFUSED);
        } else if let State::Open = connection.state {
            events.push(Event::Connected { conn: connection.id });
            self.receive(place);
        }
        events.extend(self.forget_if_done(place));
    }

    pub(super) fn on_receive(&mut self, place: u32, completed: Completed<Tag>, events: &mut Vec<Event>) {
        let connection = self.sockets.at(place);
        if !completed.more {
            connection.receiving = None;
        }
        let conn = connection.id;
        let open = matches!(connection.state, State::Open);
        if let Held::Received(buffer) = completed.held {
            match u32::try_from(completed.result) {
                Ok(length @ 1..) if open => {
                    self.lent.push(buffer);
                    events.push(Event::Received { conn, bytes: Received { buffer, length, drain: self.drains } });
                }
                _ => self.uring.give_back(buffer),
            }
        }
        match completed.result {
            1.. => self.receive(place),
            0 => self.on_end_of_stream(place, events),
            error => self.on_receive_error(place, -error),
        }
        events.extend(self.forget_if_done(place));
    }

    fn on_end_of_stream(&mut self, place: u32, events: &mut Vec<Event>) {
        let connection = self.sockets.at(place);
        connection.ended = true;
        match connection.state {
            State::Open => events.push(Event::EndOfStream { conn: connection.id }),
            State::Finishing => self.finish(place),
            State::Ending(_) => {}
        }
    }

    fn on_receive_error(&mut self, place: u32, errno: i32) {
        match errno {
            libc::ENOBUFS => self.sockets.starved.push(place),
            // Given up on request, which may have been taken back meanwhile; or interrupted.
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => self.receive(place),
            errno => self.on_error(place, errno),
        }
    }

    fn on_error(&mut self, place: u32, errno: i32) {
        match self.sockets.at(place).state {
            State::Open => self.end(place, CloseReason::of(errno)),
            State::Finishing => self.end(place, CloseReason::Asked),
            State::Ending(_) => {}
        }
    }

    pub(super) fn on_send(&mut self, place: u32, completed: Completed<Tag>, events: &mut Vec<Event>) {
        let Held::Bytes(bytes) = completed.held else { unreachable!("a send hands its bytes back") };
        let connection = self.sockets.at(place);
        let mut sending = connection.sending.take().expect("a send was in flight");
        let ending = matches!(connection.state, State::Ending(_));
        match usize::try_from(completed.result) {
            Ok(taken) => {
                sending.sent += taken;
                if sending.sent == bytes.len() {
                    self.on_sent(place, bytes, events);
                } else if !ending {
                    let socket = connection.socket.as_raw_fd();
                    let operation = Operation::Send { socket, bytes, from: sending.sent };
                    let key = self.uring.start(Tag::Send(place), operation);
                    self.sockets.at(place).sending = Some(Sending { key, ..sending });
                }
            }
            Err(_) => self.on_error(place, -completed.result),
        }
        events.extend(self.forget_if_done(place));
    }

    fn on_sent(&mut self, place: u32, buffer: Vec<u8>, events: &mut Vec<Event>) {
        let connection = self.sockets.at(place);
        match connection.state {
            State::Open => events.push(Event::Sent { conn: connection.id, bytes: buffer.len(), buffer }),
            State::Finishing => self.finish(place),
            State::Ending(_) => {}
        }
    }

    pub(super) fn end_lingering(&mut self, now: Time, events: &mut Vec<Event>) {
        while let Some((until, conn)) = self.sockets.lingering.front().copied() {
            let finishing = match self.sockets.get(conn) {
                Some((place, connection)) if matches!(connection.state, State::Finishing) => Some(place),
                _ => None,
            };
            if finishing.is_some() && until > now {
                return;
            }
            self.sockets.lingering.pop_front();
            if let Some(place) = finishing {
                self.end(place, CloseReason::LingerLimit);
                events.extend(self.forget_if_done(place));
            }
        }
    }
}

/// Whoever connects to a port of this machine on which nobody listens may be given that very port for his own end, and then
/// TCP connects it with itself: nobody is there, and a server that wants to listen there would find its port taken.
fn is_to_itself(socket: &OwnedFd) -> bool {
    let socket = SockRef::from(socket);
    match (socket.local_addr(), socket.peer_addr()) {
        (Ok(local), Ok(peer)) => local.as_socket() == peer.as_socket(),
        _ => false,
    }
}
