//! Clients without a leader: they wait instead of being disconnected.
//!
//! Pings are answered, with the zxid of the last txn whose events are out; nothing else is read. Whoever has waited for a
//! quarter of its session timeout is let go, while it still has time to go elsewhere. ZooKeeper disconnects everybody at
//! once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::connection::{Connection, Frame, Phase, split_frame};
use super::machine::{Desk, Next, Output, Shard};
use super::messages::NewStore;
use crate::tree::zxid_of;
use crate::types::error_code::ErrorCode;
use crate::types::ids::ConnectionId;
use crate::types::time::Time;
use crate::wire::client::{self, OpCode, RequestHeader, xid};
use crate::wire::jute::Reader;

/// The part of a session timeout that a client waits for a leader.
const PATIENCE_DIVISOR: u32 = 4;

/// Since when, and who has to be let go when. Forgotten as a whole at the thaw.
#[derive(Debug, Default)]
pub(super) struct Freeze {
    since: Option<Time>,
    /// Nobody waits: this server is not the one to wait for.
    shuns: bool,
    deadlines: BinaryHeap<Reverse<(Time, ConnectionId)>>,
}

impl Freeze {
    pub fn is_frozen(&self) -> bool {
        self.since.is_some()
    }

    pub fn deadline(&self) -> Option<Time> {
        self.deadlines.peek().map(|Reverse((at, _))| *at)
    }

    /// Until when a client with this timeout waits.
    fn patience(&self, now: Time, timeout_ms: i32) -> Time {
        if self.shuns {
            return now;
        }
        let patience = std::time::Duration::from_millis(timeout_ms.max(0) as u64) / PATIENCE_DIVISOR;
        self.since.unwrap_or(now) + patience
    }

    fn let_go_at(&mut self, at: Time, id: ConnectionId) {
        self.deadlines.push(Reverse((at, id)));
    }
}

impl Shard {
    pub(super) fn on_freeze(&mut self, now: Time) {
        let freeze = &mut self.desk.freeze;
        freeze.since.get_or_insert(now);
        freeze.shuns = false;
        for (id, connection) in &self.connections {
            if let Phase::Established { timeout_ms, .. } = connection.phase {
                let until = freeze.patience(now, timeout_ms);
                freeze.let_go_at(until, *id);
            }
        }
    }

    pub(super) fn on_shun(&mut self, now: Time, out: &mut Vec<Output>) {
        self.on_freeze(now);
        self.desk.freeze.shuns = true;
        let clients = self.connections.values().filter(|connection| connection.session().is_some());
        let clients: Vec<ConnectionId> = clients.map(|connection| connection.id).collect();
        for id in clients {
            self.carry_out(id, Next::Close, out);
        }
    }

    /// Lets go of those who have waited for long enough.
    pub(super) fn close_frozen(&mut self, now: Time, out: &mut Vec<Output>) {
        while let Some(Reverse((at, id))) = self.desk.freeze.deadlines.peek().copied()
            && at <= now
        {
            self.desk.freeze.deadlines.pop();
            if self.connections.contains_key(&id) {
                self.carry_out(id, Next::Close, out);
            }
        }
    }

    /// Everything of the old store is followed first: what was published is shown in its order.
    pub(super) fn on_store(&mut self, now: Time, store: NewStore, out: &mut Vec<Output>) {
        self.follow(now, out);
        self.desk.reader = store.reader;
        self.desk.followed = zxid_of(self.desk.reader.version());
        let Some(cursor) = store.cursor else { return };
        self.desk.cursor = cursor;
        let is_client = |phase: Phase| !matches!(phase, Phase::New | Phase::Command);
        let clients = self.connections.iter().filter(|(_, connection)| is_client(connection.phase));
        let mut clients: Vec<ConnectionId> = clients.map(|(id, _)| *id).collect();
        clients.sort_unstable();
        for id in clients {
            self.carry_out(id, Next::Close, out);
        }
    }
}

impl Desk {
    /// Answers pings off the front of `bytes`, and holds whatever else comes; returns how much it took.
    pub(super) fn serve_frozen(&mut self, now: Time, c: &mut Connection, bytes: &[u8]) -> (usize, Next) {
        let mut at = 0;
        loop {
            match split_frame(&bytes[at..], self.settings.payload_bytes_max) {
                Frame::Whole(payload) if is_ping(payload) => {
                    self.answer_ping(now, c);
                    at += 4 + payload.len();
                }
                Frame::Whole(_) => return (at, Next::Hold),
                Frame::Incomplete => return (at, Next::Done),
                Frame::Bad => return (at, Next::Close),
            }
        }
    }

    /// It overtakes whatever waits: clients tell an answer to a ping by its xid.
    fn answer_ping(&mut self, now: Time, c: &mut Connection) {
        c.stats.packets_received += 1;
        self.stats.packets_received += 1;
        self.touch(now, c);
        client::put_reply(&mut c.out, xid::PING, self.followed.as_i64(), ErrorCode::Ok);
        self.count_answer(c, OpCode::Ping, xid::PING, self.followed, now, now);
        self.mark_dirty(c);
    }

    /// A client that comes now is heard as soon as there is a leader, or sent elsewhere in time.
    pub(super) fn hold_handshake(&mut self, now: Time, c: &Connection, timeout_ms: i32) -> Next {
        let until = self.freeze.patience(now, timeout_ms);
        if until <= now {
            return Next::Close;
        }
        self.freeze.let_go_at(until, c.id);
        Next::Hold
    }
}

fn is_ping(payload: &[u8]) -> bool {
    let header = RequestHeader::decode(&mut Reader::new(payload));
    header.is_ok_and(|header| header.op == OpCode::Ping as i32)
}

#[cfg(test)]
mod tests;
