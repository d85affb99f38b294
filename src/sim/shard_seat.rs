//! One shard's machine with its queues and its connections, as `io/shard_driver.rs` has them.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::network::{End, Notice};
use super::process::{Around, QUEUE_MAX};
use crate::server::pipeline::Now;
use crate::shard::machine::{Input, Output, Shard};
use crate::shard::messages::{Batch, NewStore, Tell};
use crate::types::ids::ConnectionId;
use crate::types::time::Time;

/// From the zab core.
#[derive(Debug)]
pub enum ToShard {
    Tell(Tell),
    Spent(Batch),
    Store(NewStore),
}

/// What sockets brought since the last turn.
#[derive(Debug)]
enum SocketEvent {
    Accepted(ConnectionId),
    Received(ConnectionId, Vec<u8>),
    Sent(ConnectionId),
    EndOfStream(ConnectionId),
    Closed(ConnectionId),
}

#[derive(Debug)]
struct Connection {
    end: End,
    /// A send is under way.
    is_sending: bool,
}

pub struct ShardSeat {
    shard: Shard,
    out: Vec<Output>,
    pub to_zab: VecDeque<Batch>,
    /// What the full queue did not take.
    unsent: VecDeque<Batch>,
    pub from_zab: VecDeque<ToShard>,
    events: VecDeque<SocketEvent>,
    connections: BTreeMap<ConnectionId, Connection>,
    next_connection: u64,
    /// Something was put into `to_zab` since this was last looked at.
    pub has_asked: bool,
}

impl ShardSeat {
    /// `first_connection`: connections are numbered from there.
    pub fn new(shard: Shard, first_connection: u64) -> ShardSeat {
        ShardSeat {
            shard,
            out: Vec::new(),
            to_zab: VecDeque::new(),
            unsent: VecDeque::new(),
            from_zab: VecDeque::new(),
            events: VecDeque::new(),
            connections: BTreeMap::new(),
            next_connection: first_connection,
            has_asked: false,
        }
    }

    pub fn deadline(&self) -> Option<Time> {
        self.shard.deadline()
    }

    pub fn accept(&mut self, end: End) -> ConnectionId {
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.connections.insert(connection, Connection { end, is_sending: false });
        self.events.push_back(SocketEvent::Accepted(connection));
        connection
    }

    /// Something happened to a connection. `false`: nothing that the machine needs to hear.
    pub fn on_notice(&mut self, connection: ConnectionId, notice: Notice) -> bool {
        let Some(state) = self.connections.get_mut(&connection) else { return false };
        let event = match notice {
            Notice::Connected => return false,
            Notice::Received(bytes) => SocketEvent::Received(connection, bytes),
            Notice::Unsent(0) if state.is_sending => {
                state.is_sending = false;
                SocketEvent::Sent(connection)
            }
            Notice::Unsent(_) => return false,
            Notice::EndOfStream => SocketEvent::EndOfStream(connection),
            Notice::Broken { .. } => {
                self.connections.remove(&connection);
                SocketEvent::Closed(connection)
            }
        };
        self.events.push_back(event);
        true
    }

    /// Publications and what the zab core told. Returns whether there was anything.
    pub fn take_mail(&mut self, now: Now, around: &mut Around<'_>) -> bool {
        let mut any = false;
        if self.shard.has_news() {
            any = true;
            self.step(now, Input::Published, around);
        }
        while let Some(mail) = self.from_zab.pop_front() {
            any = true;
            match mail {
                ToShard::Tell(tell) => self.step(now, Input::Told(tell), around),
                ToShard::Spent(batch) => self.shard.recycle(batch),
                ToShard::Store(store) => self.step(now, Input::Store(store), around),
            }
        }
        any
    }

    /// What the sockets brought.
    pub fn take_events(&mut self, now: Now, around: &mut Around<'_>) {
        while let Some(event) = self.events.pop_front() {
            match event {
                SocketEvent::Accepted(connection) => {
                    let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
                    self.step(now, Input::Accepted { connection, peer, wall: now.wall }, around);
                }
                SocketEvent::Received(connection, bytes) => {
                    self.step(now, Input::Received { connection, bytes: &bytes }, around);
                }
                SocketEvent::Sent(connection) => {
                    self.step(now, Input::Sent { connection, buffer: Vec::new() }, around);
                }
                SocketEvent::EndOfStream(connection) => self.step(now, Input::EndOfStream { connection }, around),
                SocketEvent::Closed(connection) => self.step(now, Input::Closed { connection }, around),
            }
        }
    }

    /// Ends the turn: sends, and hands the batch to the zab core.
    pub fn end_turn(&mut self, now: Now, around: &mut Around<'_>) {
        while self.to_zab.len() < QUEUE_MAX
            && let Some(batch) = self.unsent.pop_front()
        {
            self.to_zab.push_back(batch);
            self.has_asked = true;
        }
        self.step(now, Input::ZabIsFull(!self.unsent.is_empty()), around);
        if self.shard.deadline().is_some_and(|deadline| deadline <= now.time) {
            self.step(now, Input::Timeout, around);
        }
        self.step(now, Input::EndOfTurn, around);
    }

    fn step(&mut self, now: Now, input: Input<'_>, around: &mut Around<'_>) {
        self.shard.step(now.time, input, &mut self.out);
        if self.out.is_empty() {
            return;
        }
        let mut out = std::mem::take(&mut self.out);
        for output in out.drain(..) {
            self.carry_out(now, output, around);
        }
        if self.out.is_empty() {
            self.out = out;
        }
    }

    fn carry_out(&mut self, now: Now, output: Output, around: &mut Around<'_>) {
        match output {
            Output::Send { connection, bytes } => {
                let Some(state) = self.connections.get_mut(&connection) else { return };
                around.trace.mix_bytes(&bytes);
                state.is_sending = true;
                if around.network.send(around.scheduler, state.end, bytes) == 0 {
                    state.is_sending = false;
                    self.events.push_back(SocketEvent::Sent(connection));
                }
            }
            Output::Pause(connection) => self.pause(connection, true, around),
            Output::Resume(connection) => self.pause(connection, false, around),
            Output::Close(connection) => self.close(connection, false, around),
            Output::Abort(connection) => self.close(connection, true, around),
            Output::Ask(batch) => {
                if self.unsent.is_empty() && self.to_zab.len() < QUEUE_MAX {
                    self.to_zab.push_back(batch);
                } else {
                    self.unsent.push_back(batch);
                }
                self.has_asked = true;
            }
            Output::Unframed { connection, .. } => {
                self.step(now, Input::Respond { connection, text: Vec::new() }, around);
            }
        }
    }

    /// Completions of this turn wait for the next one.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    fn pause(&mut self, connection: ConnectionId, is_paused: bool, around: &mut Around<'_>) {
        if let Some(state) = self.connections.get(&connection) {
            around.network.pause(around.scheduler, state.end, is_paused);
        }
    }

    fn close(&mut self, connection: ConnectionId, is_abrupt: bool, around: &mut Around<'_>) {
        if let Some(state) = self.connections.remove(&connection) {
            around.network.close(around.scheduler, state.end, is_abrupt);
        }
        self.events.push_back(SocketEvent::Closed(connection));
    }
}
