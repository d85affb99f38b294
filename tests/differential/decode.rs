//! Frames from a server as named fields, with zxids, session ids and times mapped so that two servers compare.

use std::collections::HashMap;
use std::fmt;

use oxkeeper::types::ids::SessionId;
use oxkeeper::types::stat::Stat;
use oxkeeper::wire::jute::{JuteError, Reader};

use crate::support::link::{Connected, op, xid};

/// One frame, or the end of a connection, as a server's client saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// What it answers, e.g. `create2`, `event`, `closed`.
    pub kind: &'static str,
    pub fields: Vec<Field>,
    /// Paths or names that this reply taught: of a create, or children.
    pub learned: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    pub name: String,
    pub value: String,
}

impl Item {
    pub fn ended(kind: &'static str) -> Item {
        Item { kind, fields: Vec::new(), learned: Vec::new() }
    }

    /// The value of a field, or nothing.
    pub fn get(&self, name: &str) -> &str {
        self.fields.iter().find(|f| f.name == name).map_or("", |f| &f.value)
    }

    /// Of a multi: the error of the part that failed, in words for the summary.
    pub fn first_failure(&self) -> String {
        let codes = self.fields.iter().filter(|f| f.name.ends_with("].code") && f.value != "0");
        codes.map(|f| format!(", part {}", f.value)).next().unwrap_or_default()
    }

    pub fn is_event(&self) -> bool {
        self.kind == "event"
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        self.fields.iter().try_for_each(|field| write!(f, " {}={}", field.name, field.value))
    }
}

/// What is needed to map one server's numbers: it grows as the server answers.
#[derive(Clone, Default, Debug)]
pub struct View {
    /// Zxid at the start of the seed.
    pub base: i64,
    /// Session ids in the order in which they were given out.
    pub sessions: Vec<i64>,
    /// Time of each zxid that a `Stat` showed: all of them must agree.
    times: HashMap<i64, i64>,
    /// Zxid of the last ordinary reply.
    pub last_zxid: i64,
}

impl View {
    /// A zxid as its distance from the start of the seed.
    pub fn zxid(&self, zxid: i64) -> String {
        match zxid {
            -1 | 0 => zxid.to_string(),
            _ if zxid < self.base => "earlier".to_owned(),
            _ => format!("+{}", zxid - self.base),
        }
    }

    pub fn session(&mut self, id: i64, is_new: bool) -> String {
        if is_new && id != 0 && !self.sessions.contains(&id) {
            self.sessions.push(id);
        }
        match self.sessions.iter().position(|known| *known == id) {
            Some(index) => format!("session {index}"),
            None if id == 0 => "0".to_owned(),
            None => format!("{id:#x}"),
        }
    }

    /// Two servers cannot agree on times; but one server's times must agree with its zxids.
    fn time(&mut self, zxid: i64, time: i64) -> String {
        let known = *self.times.entry(zxid).or_insert(time);
        match (zxid, time) {
            (0, 0) => "0".to_owned(),
            _ if known == time => "of its zxid".to_owned(),
            _ => format!("{time}, but {known} elsewhere for this zxid"),
        }
    }

    pub fn connected(&mut self, payload: &[u8]) -> (Item, Option<Connected>) {
        let mut out = Fields::default();
        let Ok(response) = Connected::decode(payload) else {
            out.add("undecodable", hex(payload));
            return (out.into_item("connected"), None);
        };
        let password = match () {
            () if response.password == SessionId(response.session).password() => "of its session".to_owned(),
            () => hex(&response.password),
        };
        out.add("protocol", response.protocol);
        out.add("timeout_ms", response.timeout_ms);
        out.add("session", self.session(response.session, true));
        out.add("password", password);
        out.add("read_only", format!("{:?}", response.read_only));
        out.add("trailing", response.trailing);
        (out.into_item("connected"), Some(response))
    }

    /// A frame behind the first one; `ops` finds the operation that the xid answers.
    pub fn reply(&mut self, payload: &[u8], find_op: impl FnOnce(i32) -> Option<i32>) -> Item {
        let mut out = Fields::default();
        let mut reader = Reader::new(payload);
        let kind = match self.fields(&mut reader, &mut out, find_op) {
            Ok(kind) => kind,
            Err(error) => {
                out.add("undecodable", format!("{error}: {}", hex(payload)));
                "reply"
            }
        };
        if reader.remaining() > 0 {
            out.add("trailing", hex(reader.rest()));
        }
        out.into_item(kind)
    }

    fn fields(
        &mut self,
        reader: &mut Reader<'_>,
        out: &mut Fields,
        find_op: impl FnOnce(i32) -> Option<i32>,
    ) -> Result<&'static str, JuteError> {
        let (reply_xid, zxid, err) = (reader.i32()?, reader.i64()?, reader.i32()?);
        out.add("xid", reply_xid);
        out.add("zxid", self.zxid(zxid));
        out.add("err", err);
        if reply_xid == xid::NOTIFICATION {
            out.add("type", reader.i32()?);
            out.add("state", reader.i32()?);
            out.add_text("path", reader)?;
            return Ok("event");
        }
        if reply_xid > 0 && zxid > 0 {
            self.last_zxid = zxid;
        }
        let Some(op) = find_op(reply_xid) else { return Ok("reply to nothing") };
        if err == 0 {
            self.body(op, reader, out)?;
        }
        Ok(op_name(op))
    }

    fn body(&mut self, op: i32, reader: &mut Reader<'_>, out: &mut Fields) -> Result<(), JuteError> {
        match op {
            op::CREATE => out.add_created(reader)?,
            op::CREATE2 | op::CREATE_CONTAINER | op::CREATE_TTL => {
                out.add_created(reader)?;
                self.stat(reader, out)?;
            }
            op::EXISTS | op::SET_DATA | op::SET_ACL => self.stat(reader, out)?,
            op::GET_DATA | op::RECONFIG => {
                out.add("data", data_text(reader.buffer()?));
                self.stat(reader, out)?;
            }
            op::GET_ACL => {
                out.add_acl(reader)?;
                self.stat(reader, out)?;
            }
            op::GET_CHILDREN => out.add_set("children", reader)?,
            op::GET_CHILDREN2 => {
                out.add_set("children", reader)?;
                self.stat(reader, out)?;
            }
            op::SYNC => out.add_text("path", reader)?,
            op::GET_EPHEMERALS => out.add_set("paths", reader)?,
            op::GET_ALL_CHILDREN_NUMBER => out.add("total", reader.i32()?),
            op::ADD_WATCH => out.add("watch err", reader.i32()?),
            op::WHO_AM_I => {
                let mut ids =
                    reader.vector(|r| Ok(format!("{:?}:{:?}", r.string()?, r.string()?)))?.ok_or(JuteError::Null)?;
                ids.sort();
                out.add("ids", ids.join(" "));
            }
            op::SASL => out.add("token", data_text(reader.buffer()?)),
            op::MULTI | op::MULTI_READ => self.results(reader, out)?,
            _ => {}
        }
        Ok(())
    }

    fn results(&mut self, reader: &mut Reader<'_>, out: &mut Fields) -> Result<(), JuteError> {
        for index in 0.. {
            let (kind, is_done, err) = (reader.i32()?, reader.bool()?, reader.i32()?);
            out.prefix = format!("[{index}].");
            out.add("type", kind);
            out.add("err", err);
            if is_done {
                out.add("done", true);
                break;
            }
            match kind {
                -1 => out.add("code", reader.i32()?),
                op::DELETE | op::CHECK => {}
                _ => self.body(kind, reader, out)?,
            }
        }
        out.prefix.clear();
        Ok(())
    }

    fn stat(&mut self, reader: &mut Reader<'_>, out: &mut Fields) -> Result<(), JuteError> {
        let Stat { czxid, mzxid, ctime, mtime, version, cversion, aversion, .. } = {
            let stat = reader.stat()?;
            out.add("owner", self.session(stat.ephemeral_owner, false));
            out.add("data_length", stat.data_length);
            out.add("num_children", stat.num_children);
            out.add("pzxid", self.zxid(stat.pzxid.as_i64()));
            stat
        };
        out.add("czxid", self.zxid(czxid.as_i64()));
        out.add("mzxid", self.zxid(mzxid.as_i64()));
        out.add("ctime", self.time(czxid.as_i64(), ctime.0));
        out.add("mtime", self.time(mzxid.as_i64(), mtime.0));
        out.add("version", version);
        out.add("cversion", cversion);
        out.add("aversion", aversion);
        Ok(())
    }
}

#[derive(Default)]
struct Fields {
    list: Vec<Field>,
    learned: Vec<String>,
    prefix: String,
}

impl Fields {
    fn add(&mut self, name: &str, value: impl ToString) {
        self.list.push(Field { name: format!("{}{name}", self.prefix), value: value.to_string() });
    }

    fn add_text(&mut self, name: &str, reader: &mut Reader<'_>) -> Result<(), JuteError> {
        let text = reader.string()?;
        self.add(name, format!("{text:?}"));
        Ok(())
    }

    fn add_created(&mut self, reader: &mut Reader<'_>) -> Result<(), JuteError> {
        let path = reader.text()?.into_owned();
        self.add("path", format!("{path:?}"));
        self.learned.push(path);
        Ok(())
    }

    /// Names whose order means nothing.
    fn add_set(&mut self, name: &str, reader: &mut Reader<'_>) -> Result<(), JuteError> {
        let mut names = reader.vector(|r| Ok(r.text()?.into_owned()))?.ok_or(JuteError::Null)?;
        names.sort();
        self.add(name, format!("{names:?}"));
        self.learned.extend(names);
        Ok(())
    }

    /// In order, but for the digest ids: Java expands the scheme `auth` in the order of a hash set.
    fn add_acl(&mut self, reader: &mut Reader<'_>) -> Result<(), JuteError> {
        let mut list =
            reader.vector(|r| Ok(format!("{}:{:?}:{:?}", r.i32()?, r.string()?, r.string()?)))?.unwrap_or_default();
        if list.iter().filter(|entry| entry.contains("digest")).count() > 1 {
            list.sort();
        }
        self.add("acl", list.join(" "));
        Ok(())
    }

    fn into_item(self, kind: &'static str) -> Item {
        Item { kind, fields: self.list, learned: self.learned }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn data_text(data: Option<&[u8]>) -> String {
    match data {
        None => "null".to_owned(),
        Some(bytes) if bytes.len() > 64 => format!("{} bytes, crc {:08x}", bytes.len(), crc32fast::hash(bytes)),
        Some(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
    }
}

pub fn op_name(op: i32) -> &'static str {
    match op {
        op::CREATE => "create",
        op::DELETE => "delete",
        op::EXISTS => "exists",
        op::GET_DATA => "getData",
        op::SET_DATA => "setData",
        op::GET_ACL => "getACL",
        op::SET_ACL => "setACL",
        op::GET_CHILDREN => "getChildren",
        op::SYNC => "sync",
        op::PING => "ping",
        op::GET_CHILDREN2 => "getChildren2",
        op::CHECK => "check",
        op::MULTI => "multi",
        op::CREATE2 => "create2",
        op::RECONFIG => "reconfig",
        op::CHECK_WATCHES => "checkWatches",
        op::REMOVE_WATCHES => "removeWatches",
        op::CREATE_CONTAINER => "createContainer",
        op::DELETE_CONTAINER => "deleteContainer",
        op::CREATE_TTL => "createTTL",
        op::MULTI_READ => "multiRead",
        op::AUTH => "auth",
        op::SET_WATCHES => "setWatches",
        op::SASL => "sasl",
        op::GET_EPHEMERALS => "getEphemerals",
        op::GET_ALL_CHILDREN_NUMBER => "getAllChildrenNumber",
        op::SET_WATCHES2 => "setWatches2",
        op::ADD_WATCH => "addWatch",
        op::WHO_AM_I => "whoAmI",
        op::CREATE_SESSION => "createSession",
        op::CLOSE_SESSION => "closeSession",
        _ => "unknown op",
    }
}
