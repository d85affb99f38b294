//! One of the two servers, with its clients' connections.

use std::collections::VecDeque;
use std::path::Path;

use super::decode::{Item, View, op_name};
use super::plan::{LastZxid, Password, Step};
use crate::support::link::{Connect, Ended, Link, op, request, xid};
use crate::support::server::{Program, Server, Settings};

/// A client of one server.
#[derive(Default, Debug)]
struct Client {
    link: Option<Link>,
    session: i64,
    password: Vec<u8>,
    /// What has been asked on this connection and not been answered: xid of the reply, operation.
    pending: VecDeque<(i32, i32)>,
    /// What came since it was last taken.
    items: Vec<Item>,
}

#[derive(Debug)]
pub struct Side {
    pub server: Server,
    pub view: View,
    clients: Vec<Client>,
}

impl Side {
    pub fn start(program: &Program, directory: &Path, settings: &Settings, clients: usize) -> Side {
        let server = Server::start(program, directory, settings);
        let clients = (0..clients).map(|_| Client::default()).collect();
        Side { server, view: View::default(), clients }
    }

    /// Zxids count from here, and the sessions of earlier seeds are forgotten.
    pub fn begin_seed(&mut self, keep: usize) {
        self.view.base = self.view.last_zxid;
        self.view.sessions = vec![self.clients[keep].session];
    }

    /// The first half of a step: everything is sent, nothing awaited.
    pub fn send(&mut self, step: &Step) {
        let last_zxid = self.view.last_zxid;
        match step {
            Step::Connect { slot, timeout_ms, read_only } => {
                let connect = Connect { read_only: *read_only, ..Connect::new_session(*timeout_ms) };
                self.open(*slot, &connect);
            }
            Step::Reattach { slot, timeout_ms, password, last_zxid: seen } => {
                let client = &self.clients[*slot];
                let mut wrong = client.password.clone();
                wrong.iter_mut().for_each(|byte| *byte ^= 0x5a);
                let connect = Connect {
                    last_zxid_seen: match seen {
                        LastZxid::Zero => 0,
                        LastZxid::Seen => last_zxid,
                        LastZxid::Ahead => last_zxid + 1_000,
                    },
                    timeout_ms: *timeout_ms,
                    session: client.session,
                    password: match password {
                        Password::Right => Some(client.password.clone()),
                        Password::Wrong => Some(wrong),
                        Password::Short => Some(vec![1; 4]),
                        Password::Null => None,
                    },
                    read_only: Some(false),
                };
                self.open(*slot, &connect);
            }
            Step::Drop { slot } => self.clients[*slot].link = None,
            Step::Burst { slot, requests } => {
                let client = &mut self.clients[*slot];
                let mut bytes = Vec::new();
                for request in requests {
                    client.pending.push_back((request.reply_xid(), request.op));
                    bytes.extend(request.to_frame(last_zxid));
                }
                client.send(&bytes);
            }
            Step::Garbage { slot, bytes } => self.clients[*slot].send(bytes),
        }
    }

    fn open(&mut self, slot: usize, connect: &Connect) {
        let mut link = Link::open(self.server.address).expect("the server listens");
        link.send(&connect.to_frame());
        let client = &mut self.clients[slot];
        client.pending.clear();
        if let Some(mut old) = client.link.replace(link) {
            // The session moves to the new connection: the server closes the old one.
            let ended = loop {
                if let Err(ended) = old.receive() {
                    break ended;
                }
            };
            client.items.push(Item::ended(if ended == Ended::Closed { "taken over" } else { "not taken over" }));
        }
    }

    /// The second half: replies, in order. Whether the connection is open afterwards.
    pub fn finish(&mut self, step: &Step) -> bool {
        let Side { view, clients, .. } = self;
        let client = &mut clients[step.slot()];
        match step {
            Step::Connect { .. } | Step::Reattach { .. } => client.receive_connected(view),
            Step::Drop { .. } => {}
            Step::Burst { .. } => client.receive_replies(view),
            Step::Garbage { .. } => client.receive_end(view),
        }
        client.link.is_some()
    }

    /// Asks every connected client's connection for a ping, behind which all events have come.
    pub fn send_pings(&mut self) {
        for client in self.clients.iter_mut().filter(|c| c.link.is_some()) {
            client.pending.push_back((xid::PING, op::PING));
            client.send(&request(xid::PING, op::PING, &[]));
        }
    }

    /// Everything since the last call, by client.
    pub fn finish_pings(&mut self) -> Vec<Vec<Item>> {
        let Side { view, clients, .. } = self;
        clients.iter_mut().for_each(|client| client.receive_replies(view));
        clients.iter_mut().map(|client| std::mem::take(&mut client.items)).collect()
    }
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        self.link.as_mut().expect("a step for a connected client").send(bytes);
    }

    fn end(&mut self, ended: Ended) {
        self.link = None;
        self.items.push(Item::ended(match ended {
            Ended::Closed => "closed",
            Ended::Silent => "silence",
            Ended::Refused => "refused",
        }));
    }

    fn receive_connected(&mut self, view: &mut View) {
        let link = self.link.as_mut().expect("just opened");
        match link.receive() {
            Err(ended) => self.end(ended),
            Ok(payload) => {
                let (item, response) = view.connected(&payload);
                self.items.push(item);
                match response {
                    Some(response) if response.timeout_ms > 0 => {
                        self.session = response.session;
                        self.password = response.password;
                    }
                    _ => self.receive_end(view),
                }
            }
        }
    }

    /// Until nothing is pending, or the connection ends.
    fn receive_replies(&mut self, view: &mut View) {
        let mut is_last = false;
        while !self.pending.is_empty() && !is_last {
            match self.receive_one(view) {
                Ok(last) => is_last = last,
                Err(ended) => return self.end(ended),
            }
        }
        if is_last {
            self.receive_end(view);
        }
    }

    /// One frame. Whether the server must close behind it.
    fn receive_one(&mut self, view: &mut View) -> Result<bool, Ended> {
        let Client { link, pending, items, .. } = self;
        let Some(link) = link.as_mut() else {
            pending.clear();
            return Ok(false);
        };
        let mut answered = None;
        let item = view.reply(&link.receive()?, |reply_xid| {
            let at = pending.iter().position(|(xid, _)| *xid == reply_xid)?;
            answered = pending.remove(at).map(|(_, op)| op);
            answered
        });
        let is_last = match answered {
            Some(op::CLOSE_SESSION) => true,
            Some(op::AUTH) => item.get("err") != "0",
            Some(op) => op_name(op) == "unknown op",
            None => false,
        };
        items.push(item);
        Ok(is_last)
    }

    /// Until the server closes.
    fn receive_end(&mut self, view: &mut View) {
        self.pending.clear();
        while let Some(link) = self.link.as_mut() {
            match link.receive() {
                Ok(payload) => self.items.push(view.reply(&payload, |_| None)),
                Err(ended) => self.end(ended),
            }
        }
    }
}
