//! The client protocol, the server's side: requests in, replies out.
//!
//! ```text
//! frame            [len:i32][payload]
//! first frame      ConnectRequest → ConnectResponse, both without header
//! later frames     [xid:i32][op:i32][record] → [xid:i32][zxid:i64][err:i32][record]
//! ```
//!
//! Source: jute `ConnectRequest` … `WhoAmIResponse`, `ZooDefs.OpCode`.

use std::borrow::Cow;

use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;

use super::jute::{JuteError, Reader, Result, Write};
use crate::types::acl::Acl;
use crate::types::error_code::ErrorCode;
use crate::types::ids::{PASSWORD_BYTES, SessionId};
use crate::types::stat::Stat;
use crate::types::zxid::Zxid;

/// xids that do not count requests.
pub mod xid {
    pub const NOTIFICATION: i32 = -1;
    pub const PING: i32 = -2;
    pub const AUTH: i32 = -4;
    pub const SET_WATCHES: i32 = -8;
}

/// `ZooDefs.OpCode`: what a client may send. Internal types (createSession, deleteContainer, error) are not
/// among them and are refused like unknown numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(i32)]
pub enum OpCode {
    Create = 1,
    Delete = 2,
    Exists = 3,
    GetData = 4,
    SetData = 5,
    GetAcl = 6,
    SetAcl = 7,
    GetChildren = 8,
    Sync = 9,
    Ping = 11,
    GetChildren2 = 12,
    Check = 13,
    Multi = 14,
    Create2 = 15,
    Reconfig = 16,
    CheckWatches = 17,
    RemoveWatches = 18,
    CreateContainer = 19,
    CreateTtl = 21,
    MultiRead = 22,
    Auth = 100,
    SetWatches = 101,
    Sasl = 102,
    GetEphemerals = 103,
    GetAllChildrenNumber = 104,
    SetWatches2 = 105,
    AddWatch = 106,
    WhoAmI = 107,
    CloseSession = -11,
}

impl OpCode {
    pub fn from_i32(op: i32) -> Option<OpCode> {
        use OpCode::*;
        Some(match op {
            1 => Create,
            2 => Delete,
            3 => Exists,
            4 => GetData,
            5 => SetData,
            6 => GetAcl,
            7 => SetAcl,
            8 => GetChildren,
            9 => Sync,
            11 => Ping,
            12 => GetChildren2,
            13 => Check,
            14 => Multi,
            15 => Create2,
            16 => Reconfig,
            17 => CheckWatches,
            18 => RemoveWatches,
            19 => CreateContainer,
            21 => CreateTtl,
            22 => MultiRead,
            100 => Auth,
            101 => SetWatches,
            102 => Sasl,
            103 => GetEphemerals,
            104 => GetAllChildrenNumber,
            105 => SetWatches2,
            106 => AddWatch,
            107 => WhoAmI,
            -11 => CloseSession,
            _ => return None,
        })
    }

    /// Goes through the one order and uses a zxid.
    pub fn is_write(self) -> bool {
        use OpCode::*;
        matches!(
            self,
            Create
                | Delete
                | SetData
                | SetAcl
                | Multi
                | Create2
                | Reconfig
                | CreateContainer
                | CreateTtl
                | CloseSession
        )
    }

    /// The short name in `cons` (`Request.op2String`, abbreviated as `ServerCnxn` prints it).
    pub fn short_name(self) -> &'static str {
        use OpCode::*;
        match self {
            Create | Create2 | CreateContainer | CreateTtl => "CREA",
            Delete => "DELE",
            Exists => "EXIS",
            GetData => "GETD",
            SetData => "SETD",
            GetAcl => "GETA",
            SetAcl => "SETA",
            GetChildren | GetChildren2 => "GETC",
            Sync => "SYNC",
            Ping => "PING",
            Check => "CHEC",
            Multi => "MULT",
            Reconfig => "RECO",
            CheckWatches => "CHKW",
            RemoveWatches => "REMW",
            MultiRead => "MLTR",
            Auth => "AUTH",
            SetWatches => "SETW",
            SetWatches2 => "STW2",
            Sasl => "SASL",
            GetEphemerals => "GETE",
            GetAllChildrenNumber => "GETACN",
            AddWatch => "ADDW",
            WhoAmI => "HOMI",
            CloseSession => "CLOS",
        }
    }
}

/// The flags of a create (`CreateMode`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CreateMode {
    pub ephemeral: bool,
    pub sequential: bool,
    pub container: bool,
    pub ttl: bool,
}

impl CreateMode {
    /// `None`: flags outside 0..=6.
    pub fn from_flags(flags: i32) -> Option<CreateMode> {
        let mode = |ephemeral, sequential, container, ttl| Some(CreateMode { ephemeral, sequential, container, ttl });
        match flags {
            0 => mode(false, false, false, false),
            1 => mode(true, false, false, false),
            2 => mode(false, true, false, false),
            3 => mode(true, true, false, false),
            4 => mode(false, false, true, false),
            5 => mode(false, false, false, true),
            6 => mode(false, true, false, true),
            _ => None,
        }
    }
}

/// `[protocolVersion:i32][lastZxidSeen:i64][timeOut:i32][sessionId:i64][passwd:buffer]` and, from 3.4 clients on,
/// `[readOnly:bool]`. Without that byte the reply must lack it too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectRequest<'a> {
    pub last_zxid_seen: i64,
    pub timeout_ms: i32,
    pub session: SessionId,
    pub password: Option<&'a [u8]>,
    pub read_only: Option<bool>,
}

impl<'a> ConnectRequest<'a> {
    pub fn decode(payload: &'a [u8]) -> Result<ConnectRequest<'a>> {
        let mut r = Reader::new(payload);
        r.i32()?;
        Ok(ConnectRequest {
            last_zxid_seen: r.i64()?,
            timeout_ms: r.i32()?,
            session: SessionId(r.i64()?),
            password: r.buffer()?,
            read_only: if r.remaining() > 0 { Some(r.bool()?) } else { None },
        })
    }
}

/// `[xid:i32][op:i32]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestHeader {
    pub xid: i32,
    pub op: i32,
}

impl RequestHeader {
    pub fn decode(r: &mut Reader<'_>) -> Result<RequestHeader> {
        Ok(RequestHeader { xid: r.i32()?, op: r.i32()? })
    }
}

/// One entry of an ACL as a client sent it: nothing is checked yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AclEntry<'a> {
    pub perms: i32,
    pub scheme: Option<Cow<'a, str>>,
    pub id: Option<Cow<'a, str>>,
}

/// The ACL of a create or setACL; `None` is a null vector.
pub type AclEntries<'a> = Option<Vec<AclEntry<'a>>>;

fn acl_entries<'a>(r: &mut Reader<'a>) -> Result<AclEntries<'a>> {
    r.vector(|r| Ok(AclEntry { perms: r.i32()?, scheme: r.string()?, id: r.string()? }))
}

/// A create of any kind; `op` fixes the kind of znode for containers and TTL nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Create<'a> {
    pub op: OpCode,
    pub path: Option<Cow<'a, str>>,
    pub data: Option<&'a [u8]>,
    pub acl: AclEntries<'a>,
    pub flags: i32,
    /// Milliseconds; -1 where the record has no such field.
    pub ttl: i64,
}

/// A request that changes something. A null path where it matters to the error (all but delete) is `None`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WriteRequest<'a> {
    Create(Create<'a>),
    Delete { path: Cow<'a, str>, version: i32 },
    SetData { path: Option<Cow<'a, str>>, data: Option<&'a [u8]>, version: i32 },
    SetAcl { path: Option<Cow<'a, str>>, acl: AclEntries<'a>, version: i32 },
    Check { path: Option<Cow<'a, str>>, version: i32 },
    Multi(ArenaVec<'a, WriteRequest<'a>>),
    Reconfig,
    CloseSession,
}

impl<'a> WriteRequest<'a> {
    /// Reads the record behind the header of a write. What it consists of goes into the arena.
    ///
    /// Errors: the body is not such a record; answered with `MarshallingError`.
    pub fn decode(op: OpCode, r: &mut Reader<'a>, arena: &'a Bump) -> Result<WriteRequest<'a>> {
        Ok(match op {
            OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                WriteRequest::Create(Self::create(op, r)?)
            }
            OpCode::Delete => WriteRequest::Delete { path: r.text()?, version: r.i32()? },
            OpCode::SetData => WriteRequest::SetData { path: r.string()?, data: r.buffer()?, version: r.i32()? },
            OpCode::SetAcl => WriteRequest::SetAcl { path: r.string()?, acl: acl_entries(r)?, version: r.i32()? },
            OpCode::Check => WriteRequest::Check { path: r.string()?, version: r.i32()? },
            OpCode::Multi => WriteRequest::Multi(Self::multi(r, arena)?),
            OpCode::Reconfig => {
                for _ in ["joiningServers", "leavingServers", "newMembers"] {
                    r.string()?;
                }
                r.i64()?;
                WriteRequest::Reconfig
            }
            OpCode::CloseSession => WriteRequest::CloseSession,
            _ => return Err(JuteError::Short),
        })
    }

    fn create(op: OpCode, r: &mut Reader<'a>) -> Result<Create<'a>> {
        Ok(Create {
            op,
            path: r.string()?,
            data: r.buffer()?,
            acl: acl_entries(r)?,
            flags: r.i32()?,
            ttl: if op == OpCode::CreateTtl { r.i64()? } else { -1 },
        })
    }

    /// The operations of a multi. Whatever Java's `MultiOperationRecord` refuses fails the whole request: a type that
    /// is no write, a null path or ACL, flags that are no create mode, TTL flags in a record without a ttl.
    fn multi(r: &mut Reader<'a>, arena: &'a Bump) -> Result<ArenaVec<'a, WriteRequest<'a>>> {
        let mut ops = ArenaVec::new_in(arena);
        loop {
            let header = MultiHeader::decode(r)?;
            if header.done {
                return Ok(ops);
            }
            let op = OpCode::from_i32(header.op).ok_or(JuteError::Null)?;
            ops.push(match op {
                OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                    Self::multi_create(Self::create(op, r)?)?
                }
                OpCode::Delete | OpCode::SetData | OpCode::Check => match Self::decode(op, r, arena)? {
                    WriteRequest::SetData { path: None, .. } | WriteRequest::Check { path: None, .. } => {
                        return Err(JuteError::Null);
                    }
                    request => request,
                },
                _ => return Err(JuteError::Null),
            });
        }
    }

    fn multi_create(mut create: Create<'a>) -> Result<WriteRequest<'a>> {
        let mode = CreateMode::from_flags(create.flags).ok_or(JuteError::Null)?;
        if create.path.is_none() || create.acl.is_none() || (mode.ttl && create.op != OpCode::CreateTtl) {
            return Err(JuteError::Null);
        }
        match create.op {
            OpCode::Create | OpCode::Create2 if mode.container => create.op = OpCode::CreateContainer,
            OpCode::CreateTtl if !mode.ttl => create.op = OpCode::Create,
            _ => {}
        }
        Ok(WriteRequest::Create(create))
    }
}

/// `[type:i32][done:bool][err:i32]`, between the parts of a multi.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MultiHeader {
    pub op: i32,
    pub done: bool,
    pub err: i32,
}

impl MultiHeader {
    /// The type of a result that is an error.
    pub const ERROR: i32 = -1;
    const END: MultiHeader = MultiHeader { op: -1, done: true, err: -1 };

    pub fn decode(r: &mut Reader<'_>) -> Result<MultiHeader> {
        Ok(MultiHeader { op: r.i32()?, done: r.bool()?, err: r.i32()? })
    }

    pub fn encode(self, out: &mut Vec<u8>) {
        out.put_i32(self.op);
        out.put_bool(self.done);
        out.put_i32(self.err);
    }

    /// Closes the list of results.
    pub fn put_end(out: &mut Vec<u8>) {
        Self::END.encode(out);
    }

    /// A result with a record of its own type.
    pub fn put_result(out: &mut Vec<u8>, op: OpCode) {
        MultiHeader { op: op as i32, done: false, err: 0 }.encode(out);
    }

    /// A result that is an error: the code stands in the header and in the record.
    pub fn put_error(out: &mut Vec<u8>, error: ErrorCode) {
        MultiHeader { op: MultiHeader::ERROR, done: false, err: error.code() }.encode(out);
        out.put_i32(error.code());
    }
}

/// One read inside a multiRead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MultiReadOp<'a> {
    GetData(Cow<'a, str>),
    GetChildren(Cow<'a, str>),
}

/// The operations of a multiRead. Watch flags are read and ignored.
pub fn decode_multi_read<'a>(r: &mut Reader<'a>) -> Result<Vec<MultiReadOp<'a>>> {
    let mut ops = Vec::new();
    loop {
        let header = MultiHeader::decode(r)?;
        if header.done {
            return Ok(ops);
        }
        let path = |r: &mut Reader<'a>| -> Result<Cow<'a, str>> {
            let path = r.text()?;
            r.bool()?;
            Ok(path)
        };
        ops.push(match OpCode::from_i32(header.op) {
            Some(OpCode::GetData) => MultiReadOp::GetData(path(r)?),
            Some(OpCode::GetChildren) => MultiReadOp::GetChildren(path(r)?),
            _ => return Err(JuteError::Null),
        });
    }
}

/// `[path:ustring][watch:bool]`: exists, getData, getChildren, getChildren2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathAndWatch<'a> {
    pub path: Cow<'a, str>,
    pub watch: bool,
}

impl<'a> PathAndWatch<'a> {
    pub fn decode(r: &mut Reader<'a>) -> Result<PathAndWatch<'a>> {
        Ok(PathAndWatch { path: r.text()?, watch: r.bool()? })
    }
}

/// `[relativeZxid:i64]` and three (setWatches) or five (setWatches2) vectors of paths; null vectors are refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetWatches<'a> {
    pub relative_zxid: i64,
    pub data: Vec<Cow<'a, str>>,
    pub exist: Vec<Cow<'a, str>>,
    pub child: Vec<Cow<'a, str>>,
    pub persistent: Vec<Cow<'a, str>>,
    pub recursive: Vec<Cow<'a, str>>,
}

impl<'a> SetWatches<'a> {
    pub fn decode(op: OpCode, r: &mut Reader<'a>) -> Result<SetWatches<'a>> {
        let paths = |r: &mut Reader<'a>| r.vector(|r| r.text())?.ok_or(JuteError::Null);
        let relative_zxid = r.i64()?;
        let (data, exist, child) = (paths(r)?, paths(r)?, paths(r)?);
        let (persistent, recursive) =
            if op == OpCode::SetWatches2 { (paths(r)?, paths(r)?) } else { (Vec::new(), Vec::new()) };
        Ok(SetWatches { relative_zxid, data, exist, child, persistent, recursive })
    }
}

/// `[type:i32][scheme:ustring][auth:buffer]`; the type is ignored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthPacket<'a> {
    pub scheme: Option<Cow<'a, str>>,
    pub auth: Option<&'a [u8]>,
}

impl<'a> AuthPacket<'a> {
    pub fn decode(r: &mut Reader<'a>) -> Result<AuthPacket<'a>> {
        r.i32()?;
        Ok(AuthPacket { scheme: r.string()?, auth: r.buffer()? })
    }
}

/// What happened to a watched znode (`Watcher.Event.EventType`), as sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(i32)]
pub enum EventType {
    NodeCreated = 1,
    NodeDeleted = 2,
    NodeDataChanged = 3,
    NodeChildrenChanged = 4,
}

/// `KeeperState.SyncConnected`: the only state that a server sends.
const SYNC_CONNECTED: i32 = 3;

/// Appends one frame: room for its length, then whatever `payload` writes.
pub fn put_frame(out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_i32(0);
    payload(out);
    let length = (out.len() - start - 4) as i32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// `[xid:i32][zxid:i64][err:i32]`.
pub fn put_reply_header(out: &mut Vec<u8>, xid: i32, zxid: i64, error: ErrorCode) {
    out.put_i32(xid);
    out.put_i64(zxid);
    out.put_i32(error.code());
}

/// A reply without a body, framed.
pub fn put_reply(out: &mut Vec<u8>, xid: i32, zxid: i64, error: ErrorCode) {
    put_frame(out, |out| put_reply_header(out, xid, zxid, error));
}

/// `[protocolVersion:i32][timeOut:i32][sessionId:i64][passwd:buffer]` and `[readOnly:bool]` if the request had it, framed.
pub fn put_connect_response(out: &mut Vec<u8>, session: SessionId, timeout_ms: i32, read_only: Option<bool>) {
    put_connect_fields(out, timeout_ms, session.0, &session.password(), read_only);
}

/// The refusal: timeout 0, id 0, a password of zeros.
pub fn put_connect_refusal(out: &mut Vec<u8>, read_only: Option<bool>) {
    put_connect_fields(out, 0, 0, &[0; PASSWORD_BYTES], read_only);
}

fn put_connect_fields(out: &mut Vec<u8>, timeout: i32, id: i64, password: &[u8], read_only: Option<bool>) {
    put_frame(out, |out| {
        out.put_i32(0);
        out.put_i32(timeout);
        out.put_i64(id);
        out.put_buffer(Some(password));
        if read_only.is_some() {
            out.put_bool(false);
        }
    });
}

/// A notification: reply header with xid -1, then `WatcherEvent` `[type:i32][state:i32][path:ustring]`, framed. `zxid` is
/// that of the txn that fired it, or -1 for catch-up events of setWatches.
pub fn put_notification(out: &mut Vec<u8>, zxid: i64, event: EventType, path: &str) {
    put_frame(out, |out| {
        put_reply_header(out, xid::NOTIFICATION, zxid, ErrorCode::Ok);
        out.put_i32(event as i32);
        out.put_i32(SYNC_CONNECTED);
        out.put_string(path);
    });
}

/// What one operation of a write did, as its reply tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpResult<'a> {
    /// create (1): the path only.
    Created {
        path: &'a str,
    },
    /// create2, createContainer, createTTL: path and Stat.
    Created2 {
        path: &'a str,
        stat: Stat,
    },
    /// delete and check.
    Done(OpCode),
    /// setData, setACL.
    Stat {
        op: OpCode,
        stat: Stat,
    },
    Error(ErrorCode),
}

impl OpResult<'_> {
    /// The record of a single write, behind the reply header.
    pub fn put_record(&self, out: &mut Vec<u8>) {
        match self {
            OpResult::Created { path } => out.put_string(path),
            OpResult::Created2 { path, stat } => {
                out.put_string(path);
                out.put_stat(stat);
            }
            OpResult::Stat { stat, .. } => out.put_stat(stat),
            OpResult::Done(_) | OpResult::Error(_) => {}
        }
    }

    /// The same as one result of a multi. Containers and TTL nodes answer as create2.
    pub fn put_multi_result(&self, out: &mut Vec<u8>) {
        let op = match self {
            OpResult::Error(error) => return MultiHeader::put_error(out, *error),
            OpResult::Created { .. } => OpCode::Create,
            OpResult::Created2 { .. } => OpCode::Create2,
            OpResult::Done(op) | OpResult::Stat { op, .. } => *op,
        };
        MultiHeader::put_result(out, op);
        self.put_record(out);
    }
}

/// `vector<ACL>` and Stat (jute `GetACLResponse`).
pub fn put_acl_response(out: &mut Vec<u8>, acl: &[Acl], stat: &Stat) {
    out.put_acls(acl);
    out.put_stat(stat);
}

/// The zxid that a client says it has seen, if it is one that a server can have.
pub fn last_zxid_seen(request: &ConnectRequest<'_>) -> Zxid {
    Zxid::from_i64(request.last_zxid_seen.max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn a_connect_request_is_read_with_and_without_its_last_byte() {
        let long =
            bytes("00000000 0000000000000000 00007530 0000000000000000 00000010 00000000000000000000000000000000 00");
        let request = ConnectRequest::decode(&long).unwrap();
        assert_eq!((request.timeout_ms, request.session, request.read_only), (30000, SessionId::NONE, Some(false)));
        assert_eq!(ConnectRequest::decode(&long[..44]).unwrap().read_only, None);
        assert_eq!(ConnectRequest::decode(&long[..43]), Err(JuteError::Short));
    }

    #[test]
    fn connect_responses_are_those_of_the_reference() {
        let mut out = Vec::new();
        put_connect_response(&mut out, SessionId(0x0100017f3a2b0000), 30000, Some(false));
        assert_eq!(
            out,
            bytes("00000025 00000000 00007530 0100017f3a2b0000 00000010 57b2b9b5984a14dd8d1ec998a1f8b2c4 00")
        );
        out.clear();
        put_connect_refusal(&mut out, Some(false));
        assert_eq!(
            out,
            bytes("00000025 00000000 00000000 0000000000000000 00000010 00000000000000000000000000000000 00")
        );
    }

    #[test]
    fn a_multi_and_its_replies_are_those_of_the_reference() {
        let body = bytes(
            "0000000d 00 ffffffff 00000002 2f61 00000000 00000001 00 ffffffff 00000004 2f612f63 00000000 00000001 0000001f
             00000005 776f726c64 00000006 616e796f6e65 00000000 ffffffff 01 ffffffff",
        );
        let arena = Bump::new();
        let WriteRequest::Multi(ops) = WriteRequest::decode(OpCode::Multi, &mut Reader::new(&body), &arena).unwrap()
        else {
            panic!("a multi");
        };
        assert!(matches!(&ops[0], WriteRequest::Check { path: Some(p), version: 0 } if p == "/a"));
        assert!(matches!(&ops[1], WriteRequest::Create(c) if c.path.as_deref() == Some("/a/c") && c.data == Some(b"")));

        let mut out = Vec::new();
        put_frame(&mut out, |out| {
            put_reply_header(out, 3, 4, ErrorCode::Ok);
            OpResult::Done(OpCode::Check).put_multi_result(out);
            OpResult::Created { path: "/a/c" }.put_multi_result(out);
            MultiHeader::put_end(out);
        });
        assert_eq!(
            out,
            bytes(
                "00000033 00000003 0000000000000004 00000000 0000000d 00 00000000 00000001 00 00000000 00000004 2f612f63 ffffffff 01 ffffffff"
            )
        );
    }

    #[test]
    fn a_notification_is_that_of_the_reference() {
        let mut out = Vec::new();
        put_notification(&mut out, 3, EventType::NodeCreated, "/b");
        assert_eq!(out, bytes("0000001e ffffffff 0000000000000003 00000000 00000001 00000003 00000002 2f62"));
    }

    #[test]
    fn a_multi_with_anything_but_writes_is_refused_whole() {
        let arena = Bump::new();
        let check =
            |hex: &str| assert!(WriteRequest::decode(OpCode::Multi, &mut Reader::new(&bytes(hex)), &arena).is_err());
        check("00000063 00 ffffffff ffffffff 01 ffffffff");
        check("00000004 00 ffffffff 00000002 2f61 00 ffffffff 01 ffffffff");
        check("0000000d 00 ffffffff ffffffff 00000000 ffffffff 01 ffffffff");
        check("0000000d 00 ffffffff");
        check("00000001 00 ffffffff 00000002 2f61 00000000 00000000 00000009 ffffffff 01 ffffffff");
    }
}
