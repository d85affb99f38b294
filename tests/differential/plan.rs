//! What a client does to a server, told once and played to both.

use std::fmt;

use oxkeeper::wire::jute::Write;

use super::decode::op_name;
use crate::support::link::{op, request, xid};

/// One act of one client. `slot` names the client; each has at most one session at a time.
#[derive(Clone, Debug)]
pub enum Step {
    /// Opens a connection and a new session.
    Connect { slot: usize, timeout_ms: i32, read_only: Option<bool> },
    /// Opens a connection for the session that the slot has; an open one is taken over.
    Reattach { slot: usize, timeout_ms: i32, password: Password, last_zxid: LastZxid },
    /// Closes the connection and keeps the session.
    Drop { slot: usize },
    /// Sends requests in one write, then reads all replies.
    Burst { slot: usize, requests: Vec<Request> },
    /// Sends bytes that are no request; the server closes.
    Garbage { slot: usize, bytes: Vec<u8> },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Password {
    Right,
    Wrong,
    Short,
    Null,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LastZxid {
    Zero,
    Seen,
    /// Further than the server has come: it closes without a word.
    Ahead,
}

#[derive(Clone, Debug)]
pub struct Request {
    pub xid: i32,
    pub op: i32,
    pub body: Vec<u8>,
    /// The body starts with a zxid so far behind the last one seen, which differs between servers.
    pub zxid_back: Option<i64>,
    /// For people.
    pub text: String,
}

impl Request {
    /// The frame for a server whose last zxid is `last_zxid`.
    pub fn to_frame(&self, last_zxid: i64) -> Vec<u8> {
        let mut body = self.body.clone();
        if let (Some(back), Some(head)) = (self.zxid_back, body.first_chunk_mut::<8>()) {
            *head = (last_zxid - back).to_be_bytes();
        }
        request(self.xid, self.op, &body)
    }

    /// The xid that the reply will carry.
    pub fn reply_xid(&self) -> i32 {
        if self.op == op::PING { xid::PING } else { self.xid }
    }
}

impl Step {
    pub fn slot(&self) -> usize {
        match self {
            Step::Connect { slot, .. }
            | Step::Reattach { slot, .. }
            | Step::Drop { slot }
            | Step::Burst { slot, .. }
            | Step::Garbage { slot, .. } => *slot,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Connect { slot, timeout_ms, read_only } => {
                write!(f, "client {slot}: connect, {timeout_ms} ms, read_only {read_only:?}")
            }
            Step::Reattach { slot, timeout_ms, password, last_zxid } => {
                write!(f, "client {slot}: reattach, {timeout_ms} ms, password {password:?}, last zxid {last_zxid:?}")
            }
            Step::Drop { slot } => write!(f, "client {slot}: drop connection"),
            Step::Burst { slot, requests } => {
                write!(f, "client {slot}:")?;
                requests.iter().try_for_each(|r| write!(f, "\n      #{} {} {}", r.xid, op_name(r.op), r.text))
            }
            Step::Garbage { slot, bytes } => {
                write!(f, "client {slot}: garbage {} bytes {:02x?}", bytes.len(), &bytes[..bytes.len().min(16)])
            }
        }
    }
}

/// One entry of an ACL list, whose strings may be null.
#[derive(Clone, Debug)]
pub struct Entry {
    pub perms: i32,
    pub scheme: Option<String>,
    pub id: Option<String>,
}

impl Entry {
    pub fn new(perms: i32, scheme: &str, id: &str) -> Entry {
        Entry { perms, scheme: Some(scheme.to_owned()), id: Some(id.to_owned()) }
    }
}

/// A request's body, together with its description.
#[derive(Default, Debug)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub text: String,
}

impl Body {
    pub fn note(mut self, text: impl fmt::Display) -> Body {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text += &text.to_string();
        self
    }

    pub fn path(mut self, path: Option<&[u8]>) -> Body {
        self.bytes.put_buffer(path);
        match path {
            Some(path) => self.note(format_args!("{:?}", String::from_utf8_lossy(path))),
            None => self.note("null"),
        }
    }

    pub fn data(mut self, data: Option<&[u8]>) -> Body {
        self.bytes.put_buffer(data);
        match data {
            Some(data) if data.len() > 32 => self.note(format_args!("data {} bytes", data.len())),
            Some(data) => self.note(format_args!("data {:?}", String::from_utf8_lossy(data))),
            None => self.note("data null"),
        }
    }

    pub fn int(mut self, name: &str, value: i32) -> Body {
        self.bytes.put_i32(value);
        self.note(format_args!("{name} {value}"))
    }

    pub fn long(mut self, name: &str, value: i64) -> Body {
        self.bytes.put_i64(value);
        self.note(format_args!("{name} {value}"))
    }

    pub fn bool(mut self, name: &str, value: bool) -> Body {
        self.bytes.put_bool(value);
        if value { self.note(name) } else { self }
    }

    pub fn acl(mut self, list: Option<&[Entry]>) -> Body {
        let Some(list) = list else {
            self.bytes.put_i32(-1);
            return self.note("acl null");
        };
        self.bytes.put_i32(list.len() as i32);
        for entry in list {
            self.bytes.put_i32(entry.perms);
            self.bytes.put_buffer(entry.scheme.as_deref().map(str::as_bytes));
            self.bytes.put_buffer(entry.id.as_deref().map(str::as_bytes));
        }
        let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "null".to_owned());
        let list: Vec<_> = list.iter().map(|e| format!("{}:{}:{}", e.perms, shown(&e.scheme), shown(&e.id))).collect();
        self.note(format_args!("acl {list:?}"))
    }

    pub fn paths(mut self, name: &str, paths: &[Vec<u8>]) -> Body {
        self.bytes.put_i32(paths.len() as i32);
        for path in paths {
            self.bytes.put_buffer(Some(path));
        }
        let shown: Vec<_> = paths.iter().map(|p| String::from_utf8_lossy(p)).collect();
        self.note(format_args!("{name} {shown:?}"))
    }

    /// The header in front of each part of a multi, and behind the last.
    pub fn part(mut self, kind: i32, is_done: bool) -> Body {
        self.bytes.put_i32(kind);
        self.bytes.put_bool(is_done);
        self.bytes.put_i32(-1);
        if is_done { self } else { self.note(format_args!("\n          {}", op_name(kind))) }
    }

    pub fn append(mut self, other: Body) -> Body {
        self.bytes.extend_from_slice(&other.bytes);
        self.note(other.text)
    }
}
