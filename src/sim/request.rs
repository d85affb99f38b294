//! What simulated clients ask, and its bytes.

use std::fmt;

use crate::types::acl::perms;
use crate::types::zxid::Zxid;
use crate::wire::client::{MultiHeader, OpCode};
use crate::wire::client_encode as encode;
use crate::wire::jute::Write;

/// xid of the `SetWatches` that a client sends when it is back.
pub const SET_WATCHES_XID: i32 = -8;

/// One operation inside a multi.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    Create { path: String, data: Vec<u8>, flags: i32 },
    Set { path: String, data: Vec<u8>, version: i32 },
    Delete { path: String, version: i32 },
    Check { path: String, version: i32 },
}

impl Part {
    pub fn path(&self) -> &str {
        match self {
            Part::Create { path, .. }
            | Part::Set { path, .. }
            | Part::Delete { path, .. }
            | Part::Check { path, .. } => path,
        }
    }
}

/// One request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// create, create2 if `with_stat`.
    Write {
        part: Part,
        with_stat: bool,
    },
    Multi(Vec<Part>),
    Get {
        path: String,
        watch: bool,
    },
    Exists {
        path: String,
        watch: bool,
    },
    Children {
        path: String,
        watch: bool,
    },
    Sync {
        path: String,
    },
    SetWatches {
        relative: Zxid,
        data: Vec<String>,
        exist: Vec<String>,
        child: Vec<String>,
    },
    Close,
}

impl Request {
    pub fn is_write(&self) -> bool {
        match self {
            Request::Write { .. } | Request::Multi(_) | Request::Close => true,
            Request::Get { .. }
            | Request::Exists { .. }
            | Request::Children { .. }
            | Request::Sync { .. }
            | Request::SetWatches { .. } => false,
        }
    }

    /// The operations of a write, in order.
    pub fn parts(&self) -> &[Part] {
        match self {
            Request::Write { part, .. } => std::slice::from_ref(part),
            Request::Multi(parts) => parts,
            Request::Get { .. }
            | Request::Exists { .. }
            | Request::Children { .. }
            | Request::Sync { .. }
            | Request::SetWatches { .. }
            | Request::Close => &[],
        }
    }

    /// Appends the framed request.
    pub fn encode(&self, xid: i32, out: &mut Vec<u8>) {
        match self {
            Request::Write { part, with_stat } => {
                encode::request(out, xid, part_op(part, *with_stat), |out| put_part(out, part));
            }
            Request::Multi(parts) => encode::request(out, xid, OpCode::Multi as i32, |out| {
                for part in parts {
                    MultiHeader { op: part_op(part, false), done: false, err: -1 }.encode(out);
                    put_part(out, part);
                }
                MultiHeader::put_end(out);
            }),
            Request::Get { path, watch } => encode::read(out, xid, OpCode::GetData, path, *watch),
            Request::Exists { path, watch } => encode::read(out, xid, OpCode::Exists, path, *watch),
            Request::Children { path, watch } => encode::read(out, xid, OpCode::GetChildren2, path, *watch),
            Request::Sync { path } => encode::sync(out, xid, path),
            Request::SetWatches { relative, data, exist, child } => {
                encode::request(out, xid, OpCode::SetWatches as i32, |out| {
                    out.put_zxid(*relative);
                    for list in [data, exist, child] {
                        out.put_i32(list.len() as i32);
                        list.iter().for_each(|path| out.put_string(path));
                    }
                });
            }
            Request::Close => encode::close_session(out, xid),
        }
    }
}

fn part_op(part: &Part, with_stat: bool) -> i32 {
    let op = match part {
        Part::Create { .. } if with_stat => OpCode::Create2,
        Part::Create { .. } => OpCode::Create,
        Part::Set { .. } => OpCode::SetData,
        Part::Delete { .. } => OpCode::Delete,
        Part::Check { .. } => OpCode::Check,
    };
    op as i32
}

fn put_part(out: &mut Vec<u8>, part: &Part) {
    out.put_string(part.path());
    match part {
        Part::Create { data, flags, .. } => {
            out.put_buffer(Some(data));
            out.put_i32(1);
            out.put_i32(perms::ALL);
            out.put_string("world");
            out.put_string("anyone");
            out.put_i32(*flags);
        }
        Part::Set { data, version, .. } => {
            out.put_buffer(Some(data));
            out.put_i32(*version);
        }
        Part::Delete { version, .. } | Part::Check { version, .. } => out.put_i32(*version),
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Create { path, data, flags } => write!(f, "create {path} {} bytes flags={flags}", data.len()),
            Part::Set { path, data, version } => write!(f, "set {path} {} bytes version={version}", data.len()),
            Part::Delete { path, version } => write!(f, "delete {path} version={version}"),
            Part::Check { path, version } => write!(f, "check {path} version={version}"),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let watched = |watch: &bool| if *watch { " watch" } else { "" };
        match self {
            Request::Write { part, .. } => part.fmt(f),
            Request::Multi(parts) => {
                f.write_str("multi")?;
                parts.iter().try_for_each(|part| write!(f, " [{part}]"))
            }
            Request::Get { path, watch } => write!(f, "get {path}{}", watched(watch)),
            Request::Exists { path, watch } => write!(f, "exists {path}{}", watched(watch)),
            Request::Children { path, watch } => write!(f, "children {path}{}", watched(watch)),
            Request::Sync { path } => write!(f, "sync {path}"),
            Request::SetWatches { relative, data, exist, child } => {
                write!(f, "setWatches since {relative} data={data:?} exist={exist:?} child={child:?}")
            }
            Request::Close => f.write_str("closeSession"),
        }
    }
}
