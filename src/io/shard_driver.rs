//! One shard's machine, with its sockets and its queues.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ahash::AHashMap;

use super::admission::{Admission, Place, Turned};
use super::clock;
use super::mail::{Newcomer, ToShard, ToZab};
use super::mesh::{Full, Inbox, Outbox};
use super::ring::{Close, Event, Ring};
use crate::ops::four_letter::{self, Whitelist};
use crate::ops::http_hint;
use crate::ops::opening::{self, Opening};
use crate::server::status::Command;
use crate::shard::machine::{Input, Output, Shard};
use crate::types::ids::{ConnectionId, ShardId};
use crate::types::time::Time;

/// Bits of a connection id that count within a shard.
const COUNT_BITS: u32 = 48;

/// The shard's side of the queues.
pub struct ShardQueues {
    pub to_zab: Outbox<ToZab>,
    pub from_zab: Inbox<ToShard>,
    pub newcomers: Inbox<Newcomer>,
}

pub struct ShardDriver {
    id: ShardId,
    shard: Shard,
    out: Vec<Output>,
    queues: ShardQueues,
    /// What the full queue to the zab core did not take.
    unsent: VecDeque<ToZab>,
    /// On the shard that accepts: to every shard, this one included.
    deal: Option<Vec<Outbox<Newcomer>>>,
    next_dealt: usize,
    admission: Arc<Admission>,
    places: AHashMap<ConnectionId, Place>,
    next_connection: u64,
    whitelist: Whitelist,
    is_stopping: bool,
}

impl ShardDriver {
    pub fn new(
        shard: Shard,
        queues: ShardQueues,
        deal: Option<Vec<Outbox<Newcomer>>>,
        admission: Arc<Admission>,
        whitelist: Whitelist,
    ) -> ShardDriver {
        let id = shard.id();
        ShardDriver {
            id,
            shard,
            out: Vec::new(),
            queues,
            unsent: VecDeque::new(),
            deal,
            next_dealt: 0,
            admission,
            places: AHashMap::new(),
            next_connection: u64::from(id.0) << COUNT_BITS,
            whitelist,
            is_stopping: false,
        }
    }

    pub fn deadline(&self) -> Option<Time> {
        self.shard.deadline()
    }

    /// Nothing of others waits to be looked at.
    pub fn nothing_waits(&self) -> bool {
        self.queues.from_zab.is_empty() && self.queues.newcomers.is_empty() && !self.shard.has_news()
    }

    /// Everything was answered and the zab core said that this is the end.
    pub fn has_stopped(&self) -> bool {
        self.is_stopping && !self.shard.is_sending()
    }

    /// The zab core said that this is the end.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// What the zab core and the acceptor have for this shard. Returns whether there was anything.
    pub fn take_mail(&mut self, now: Time, ring: &mut Ring) -> bool {
        let mut any = false;
        if self.shard.has_news() {
            any = true;
            self.step(now, Input::Published, ring);
        }
        while let Some(mail) = self.queues.from_zab.pop() {
            any = true;
            match mail {
                ToShard::Tell(tell) => self.step(now, Input::Told(tell), ring),
                ToShard::Store(store) => self.step(now, Input::Store(store), ring),
                ToShard::Spent(batch) => self.shard.recycle(batch),
                ToShard::Collect { ticket, needs } => {
                    let status = Box::new(self.shard.status(needs, now, clock::wall_now()));
                    self.tell_zab(ToZab::Collected { ticket, status });
                }
                ToShard::Respond { connection, text } => self.step(now, Input::Respond { connection, text }, ring),
                ToShard::Command(Command::ResetConnectionStats) => self.shard.reset_connection_stats(),
                ToShard::Command(Command::ResetServerStats) => self.shard.reset_stats(),
                ToShard::Command(Command::SetTraceMask(_)) => {}
                ToShard::Stop => self.is_stopping = true,
            }
        }
        while let Some(Newcomer { socket, peer }) = self.queues.newcomers.pop() {
            any = true;
            self.welcome(now, socket, peer, ring);
        }
        any
    }

    fn welcome(&mut self, now: Time, socket: OwnedFd, peer: SocketAddr, ring: &mut Ring) {
        match self.admission.admit(peer.ip()) {
            Ok(place) => {
                let connection = ConnectionId(self.next_connection);
                self.next_connection += 1;
                self.places.insert(connection, place);
                ring.add_connection(connection, socket);
                self.step(now, Input::Accepted { connection, peer, wall: clock::wall_now() }, ring);
            }
            Err(turned) => {
                self.shard.count_rejected();
                match turned {
                    Turned::TooManyFromAddress(max) => {
                        tracing::warn!(peer = %peer.ip(), max, "too many connections from this address (maxClientCnxns)");
                    }
                    Turned::TooMany(max) => tracing::warn!(max, "too many connections (maxCnxns)"),
                }
            }
        }
    }

    /// One completion of the ring.
    pub fn on_event(&mut self, now: Time, event: Event, ring: &mut Ring) {
        match event {
            Event::Accepted { socket, peer, .. } => self.deal(now, socket, peer, ring),
            Event::Received { conn, bytes } => {
                let bytes = ring.received(&bytes);
                self.shard.step(now, Input::Received { connection: conn, bytes }, &mut self.out);
                self.carry_out(now, ring);
            }
            Event::EndOfStream { conn } => self.step(now, Input::EndOfStream { connection: conn }, ring),
            Event::Sent { conn, buffer, .. } => self.step(now, Input::Sent { connection: conn, buffer }, ring),
            Event::Closed { conn, .. } => {
                self.places.remove(&conn);
                self.step(now, Input::Closed { connection: conn }, ring);
            }
            // Log writes are the zab core's, and shards connect to nobody.
            Event::Written { .. } | Event::Connected { .. } => {}
        }
    }

    /// Connections go round the shards, so that each has as many.
    fn deal(&mut self, now: Time, socket: OwnedFd, peer: SocketAddr, ring: &mut Ring) {
        let Some(shards) = &mut self.deal else { return };
        let at = self.next_dealt;
        self.next_dealt = (at + 1) % shards.len();
        let newcomer = Newcomer { socket, peer };
        match usize::from(self.id.0) == at {
            true => self.welcome(now, newcomer.socket, newcomer.peer, ring),
            false => match shards[at].push(newcomer) {
                Ok(()) => shards[at].notify(),
                // That shard is busy; this one is not.
                Err(Full(newcomer)) => self.welcome(now, newcomer.socket, newcomer.peer, ring),
            },
        }
    }

    /// Ends the turn: sends, and hands the batch to the zab core.
    pub fn end_turn(&mut self, now: Time, ring: &mut Ring) {
        while let Some(mail) = self.unsent.pop_front() {
            if let Err(Full(mail)) = self.queues.to_zab.push(mail) {
                self.unsent.push_front(mail);
                break;
            }
        }
        self.step(now, Input::ZabIsFull(!self.unsent.is_empty()), ring);
        if self.shard.deadline().is_some_and(|deadline| deadline <= now) {
            self.step(now, Input::Timeout, ring);
        }
        self.step(now, Input::EndOfTurn, ring);
        self.queues.to_zab.notify();
    }

    fn tell_zab(&mut self, mail: ToZab) {
        if !self.unsent.is_empty() {
            return self.unsent.push_back(mail);
        }
        if let Err(Full(mail)) = self.queues.to_zab.push(mail) {
            self.unsent.push_back(mail);
        }
    }

    fn step(&mut self, now: Time, input: Input<'_>, ring: &mut Ring) {
        self.shard.step(now, input, &mut self.out);
        self.carry_out(now, ring);
    }

    fn carry_out(&mut self, now: Time, ring: &mut Ring) {
        if self.out.is_empty() {
            return;
        }
        let mut out = std::mem::take(&mut self.out);
        for output in out.drain(..) {
            match output {
                Output::Send { connection, bytes } => ring.send(connection, bytes),
                Output::Pause(connection) => ring.pause_receiving(connection),
                Output::Resume(connection) => ring.resume_receiving(connection),
                Output::Close(connection) => ring.close(connection, Close::Graceful),
                Output::Abort(connection) => ring.close(connection, Close::Abort),
                Output::Ask(batch) => self.tell_zab(ToZab::Batch(batch)),
                Output::Unframed { connection, bytes } => self.on_unframed(now, connection, &bytes, ring),
            }
        }
        if self.out.is_empty() {
            self.out = out;
        }
    }

    /// The first bytes of a connection are no frame.
    fn on_unframed(&mut self, now: Time, connection: ConnectionId, bytes: &[u8], ring: &mut Ring) {
        let Some((first, rest)) = bytes.split_first_chunk::<4>() else { return };
        let text = match opening::recognise(*first, &self.whitelist) {
            Opening::Word(word) => {
                let argument = rest.first_chunk::<8>().map_or(0, |bytes| i64::from_be_bytes(*bytes));
                let shard = self.id;
                return self.tell_zab(ToZab::Word { shard, connection, word, argument });
            }
            Opening::Refused(word) => four_letter::refusal(word).into_bytes(),
            Opening::Http => http_hint::RESPONSE.as_bytes().to_vec(),
            Opening::Tls => {
                tracing::info!("a TLS client on the plaintext client port: closed");
                Vec::new()
            }
            Opening::Length(_) | Opening::TelnetInterrupt => Vec::new(),
        };
        self.step(now, Input::Respond { connection, text }, ring);
    }
}
