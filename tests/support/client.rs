//! A small blocking client: one session, one request at a time, events collected on the way.

use std::net::SocketAddr;

use oxkeeper::wire::jute::{Reader, Write};

use super::link::{Connect, Connected, Ended, Link, op, request, xid};

impl Reply {
    /// The path that a create gave.
    pub fn path(&self) -> String {
        Reader::new(&self.body).text().unwrap_or_default().into_owned()
    }

    /// The data that getData gave; null is empty.
    pub fn data(&self) -> Vec<u8> {
        Reader::new(&self.body).buffer().ok().flatten().unwrap_or_default().to_vec()
    }

    /// The names that getChildren gave.
    pub fn names(&self) -> Vec<String> {
        let names = Reader::new(&self.body).vector(|r| Ok(r.text()?.into_owned()));
        names.ok().flatten().unwrap_or_default()
    }
}

/// A reply, or how the connection ended.
pub type Answer = Result<Reply, Ended>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    pub zxid: i64,
    pub err: i32,
    pub body: Vec<u8>,
}

#[derive(Debug)]
pub struct Client {
    link: Link,
    next_xid: i32,
    pub session: i64,
    pub password: Vec<u8>,
    /// Events so far, as `type path`.
    pub events: Vec<String>,
}

impl Client {
    pub fn connect(address: SocketAddr, timeout_ms: i32) -> Result<Client, Ended> {
        Client::open(address, &Connect::new_session(timeout_ms))
    }

    /// Another connection for the session of `self`, which the server then closes for `self`.
    pub fn reattach(&self, address: SocketAddr, password: &[u8]) -> Result<Client, Ended> {
        let connect =
            Connect { session: self.session, password: Some(password.to_vec()), ..Connect::new_session(30_000) };
        Client::open(address, &connect)
    }

    pub fn open(address: SocketAddr, connect: &Connect) -> Result<Client, Ended> {
        let mut link = Link::open(address).map_err(|_| Ended::Closed)?;
        link.send(&connect.to_frame());
        let response = Connected::decode(&link.receive()?).map_err(|_| Ended::Closed)?;
        if response.timeout_ms <= 0 {
            return Err(Ended::Refused);
        }
        Ok(Client { link, next_xid: 0, session: response.session, password: response.password, events: Vec::new() })
    }

    /// The connection itself, for what a well-behaved client does not do.
    pub fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    /// Ends the session.
    pub fn close(&mut self) -> Answer {
        self.call(op::CLOSE_SESSION, &[])
    }

    /// Waits for the next event and returns it as `type path`.
    pub fn next_event(&mut self) -> Result<String, Ended> {
        while self.events.is_empty() {
            let frame = self.link.receive()?;
            let mut reader = Reader::new(&frame);
            if reader.i32().map_err(|_| Ended::Closed)? == xid::NOTIFICATION {
                let _header = (reader.i64(), reader.i32());
                let kind = reader.i32().and_then(|kind| reader.i32().map(|_| kind)).unwrap_or(0);
                self.events.push(format!("{kind} {}", reader.text().unwrap_or_default()));
            }
        }
        Ok(self.events.remove(0))
    }

    pub fn call(&mut self, op: i32, body: &[u8]) -> Answer {
        self.next_xid += 1;
        let xid = match op {
            op::PING => xid::PING,
            op::AUTH => xid::AUTH,
            op::SET_WATCHES | op::SET_WATCHES2 => xid::SET_WATCHES,
            _ => self.next_xid,
        };
        self.link.send(&request(xid, op, body));
        self.await_reply(xid)
    }

    /// Sends without waiting, for what may never be answered.
    pub fn send(&mut self, op: i32, body: &[u8]) {
        self.next_xid += 1;
        self.link.send(&request(self.next_xid, op, body));
    }

    fn await_reply(&mut self, expected: i32) -> Answer {
        loop {
            let frame = self.link.receive()?;
            let mut reader = Reader::new(&frame);
            let mut header = || Ok((reader.i32()?, reader.i64()?, reader.i32()?));
            let (xid, zxid, err) = header().map_err(|_: oxkeeper::wire::jute::JuteError| Ended::Closed)?;
            if xid == xid::NOTIFICATION {
                let kind = reader.i32().and_then(|kind| reader.i32().map(|_| kind)).unwrap_or(0);
                let path = reader.text().unwrap_or_default().into_owned();
                self.events.push(format!("{kind} {path}"));
            } else if xid == expected {
                return Ok(Reply { zxid, err, body: reader.rest().to_vec() });
            }
        }
    }

    pub fn ping(&mut self) -> Answer {
        self.call(op::PING, &[])
    }

    pub fn create(&mut self, path: &str, data: &[u8], flags: i32) -> Answer {
        self.call(op::CREATE, &create_body(path, data, &[(31, "world", "anyone")], flags))
    }

    pub fn create_with(&mut self, path: &str, acl: &[(i32, &str, &str)]) -> Answer {
        self.call(op::CREATE, &create_body(path, b"", acl, 0))
    }

    pub fn set_data(&mut self, path: &str, data: &[u8]) -> Answer {
        let mut body = Vec::new();
        body.put_string(path);
        body.put_buffer(Some(data));
        body.put_i32(-1);
        self.call(op::SET_DATA, &body)
    }

    /// Sets both or none, in a multi.
    pub fn set_both(&mut self, paths: [&str; 2], data: &[u8]) -> Answer {
        let mut body = Vec::new();
        let header = |body: &mut Vec<u8>, op: i32, is_done: bool| {
            body.put_i32(op);
            body.put_bool(is_done);
            body.put_i32(-1);
        };
        for path in paths {
            header(&mut body, op::SET_DATA, false);
            body.put_string(path);
            body.put_buffer(Some(data));
            body.put_i32(-1);
        }
        header(&mut body, -1, true);
        self.call(op::MULTI, &body)
    }

    pub fn delete(&mut self, path: &str) -> Answer {
        self.path_and_int(op::DELETE, path, -1)
    }

    /// exists, getData, getChildren: a path and whether to watch it.
    pub fn read(&mut self, op: i32, path: &str, watch: bool) -> Answer {
        let mut body = Vec::new();
        body.put_string(path);
        body.put_bool(watch);
        self.call(op, &body)
    }

    /// delete, check, addWatch, removeWatches: a path and a number.
    pub fn path_and_int(&mut self, op: i32, path: &str, value: i32) -> Answer {
        self.call(op, &path_and_int(path, value))
    }

    pub fn auth(&mut self, scheme: &str, auth: &str) -> Answer {
        let mut body = Vec::new();
        body.put_i32(0);
        body.put_string(scheme);
        body.put_string(auth);
        self.call(op::AUTH, &body)
    }
}

pub fn path_and_int(path: &str, value: i32) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_string(path);
    body.put_i32(value);
    body
}

pub fn create_body(path: &str, data: &[u8], acl: &[(i32, &str, &str)], flags: i32) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_string(path);
    body.put_buffer(Some(data));
    body.put_i32(acl.len() as i32);
    for (perms, scheme, id) in acl {
        body.put_i32(*perms);
        body.put_string(scheme);
        body.put_string(id);
    }
    body.put_i32(flags);
    body
}
