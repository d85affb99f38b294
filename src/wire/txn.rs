//! Transactions: what a request became, as it lies in the log and travels between servers.
//!
//! ```text
//! payload    TxnHeader, record of its type, TxnDigest (absent in error txns, before 3.6, and when digests are off)
//! TxnHeader  [clientId:i64][cxid:i32][zxid:i64][time:i64][type:i32]
//! TxnDigest  [version:i32][treeDigest:i64]
//! ```
//!
//! Decoded values borrow from the payload: recovery replays a million of them.

use std::borrow::Cow;
use std::fmt;

use super::jute::{JuteError, Reader, Write};
use crate::types::acl::AclList;
use crate::types::error_code::ErrorCode;
use crate::types::ids::SessionId;
use crate::types::time::WallTime;
use crate::types::zxid::Zxid;

/// The `type` of a header and of a multi's sub-records (`ZooDefs.OpCode`).
pub mod txn_type {
    pub const ERROR: i32 = -1;
    pub const CREATE_SESSION: i32 = -10;
    pub const CLOSE_SESSION: i32 = -11;
    pub const CREATE: i32 = 1;
    pub const DELETE: i32 = 2;
    pub const SET_DATA: i32 = 5;
    pub const SET_ACL: i32 = 7;
    pub const CHECK: i32 = 13;
    pub const MULTI: i32 = 14;
    pub const CREATE2: i32 = 15;
    pub const RECONFIG: i32 = 16;
    pub const CREATE_CONTAINER: i32 = 19;
    pub const DELETE_CONTAINER: i32 = 20;
    pub const CREATE_TTL: i32 = 21;
}

/// Bytes of a `TxnHeader`.
pub const HEADER_BYTES: usize = 32;
/// Bytes of a `TxnDigest`.
pub const DIGEST_BYTES: usize = 12;
/// The one version of the digest in use; the trailer of another version is not compared.
pub const DIGEST_VERSION: i32 = 2;
/// `parentCVersion` of logs that do not carry it: the parent's counter goes up by one.
pub const NO_PARENT_CVERSION: i32 = -1;

/// Bytes that are not a txn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TxnError {
    /// A field of the header or of the record.
    Jute(JuteError),
    /// A type that no server writes.
    Unsupported(i32),
    /// A type that no server writes inside a multi.
    UnsupportedInMulti(i32),
    /// Zxids count up from 0 and are signed on the wire: none is below.
    NegativeZxid(i64),
}

impl From<JuteError> for TxnError {
    fn from(error: JuteError) -> TxnError {
        TxnError::Jute(error)
    }
}

impl fmt::Display for TxnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TxnError::Jute(error) => error.fmt(f),
            TxnError::Unsupported(kind) => write!(f, "Unsupported Txn with type={kind}"),
            TxnError::UnsupportedInMulti(kind) => write!(f, "Unsupported Txn with type={kind} inside a multi"),
            TxnError::NegativeZxid(zxid) => write!(f, "the zxid {zxid} of a txn is negative"),
        }
    }
}

impl std::error::Error for TxnError {}

pub type Result<T> = std::result::Result<T, TxnError>;

/// Who asked, which place in the order, when. The type is the txn's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TxnHeader {
    /// The session whose request it was; 0 for deletions of containers and TTL nodes.
    pub session: SessionId,
    /// That session's own count of its requests.
    pub cxid: i32,
    pub zxid: Zxid,
    /// Becomes `ctime` and `mtime`.
    pub time: WallTime,
}

impl TxnHeader {
    /// Reads header and type, and leaves the reader at the record.
    pub fn read(reader: &mut Reader<'_>) -> Result<(TxnHeader, i32)> {
        let header = TxnHeader {
            session: SessionId(reader.i64()?),
            cxid: reader.i32()?,
            zxid: reader.zxid()?,
            time: WallTime(reader.i64()?),
        };
        if header.zxid.as_i64() < 0 {
            return Err(TxnError::NegativeZxid(header.zxid.as_i64()));
        }
        Ok((header, reader.i32()?))
    }

    /// Header and type of a payload whose record is of no interest yet.
    pub fn peek(payload: &[u8]) -> Result<(TxnHeader, i32)> {
        TxnHeader::read(&mut reader_of(payload))
    }

    pub fn write(&self, kind: i32, out: &mut impl Write) {
        out.put_i64(self.session.0);
        out.put_i32(self.cxid);
        out.put_zxid(self.zxid);
        out.put_i64(self.time.0);
        out.put_i32(kind);
    }
}

/// Digest of the whole tree after a txn (jute `TxnDigest`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxnDigest {
    pub version: i32,
    pub tree_digest: u64,
}

impl TxnDigest {
    pub fn new(tree_digest: u64) -> TxnDigest {
        TxnDigest { version: DIGEST_VERSION, tree_digest }
    }

    /// What is left behind a record; bytes too few for a digest are ignored, as by Java.
    fn read(reader: &mut Reader<'_>) -> Option<TxnDigest> {
        if reader.remaining() < DIGEST_BYTES {
            return None;
        }
        Some(TxnDigest { version: reader.i32().ok()?, tree_digest: reader.i64().ok()? as u64 })
    }

    pub fn write(&self, out: &mut impl Write) {
        out.put_i32(self.version);
        out.put_i64(self.tree_digest as i64);
    }
}

/// Jute `CreateTxn`, of types create and create2.
/// Shape: `[path:ustring][data:buffer][acl:vector<ACL>][ephemeral:bool][parentCVersion:i32]`; servers before 3.4
/// wrote no parentCVersion.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateTxn<'a> {
    /// Final: a sequence number is already appended.
    pub path: Cow<'a, str>,
    /// Null and empty are two things.
    pub data: Option<Cow<'a, [u8]>>,
    pub acl: AclList,
    pub ephemeral: bool,
    /// The parent's counter of creates after this one, or [`NO_PARENT_CVERSION`].
    pub parent_cversion: i32,
}

/// Jute `SetDataTxn`, of types setData and reconfig.
/// Shape: `[path:ustring][data:buffer][version:i32]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetDataTxn<'a> {
    pub path: Cow<'a, str>,
    pub data: Option<Cow<'a, [u8]>>,
    /// The znode's version afterwards.
    pub version: i32,
}

/// A change of the replicated state, of one of the types that a server may write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Txn<'a> {
    /// Shape: `[timeOut:i32]`.
    CreateSession {
        timeout_ms: i32,
    },
    /// Shape: `[paths2Delete:vector<ustring>]`, or no byte at all: then every ephemeral of the session goes.
    CloseSession {
        paths: Option<Vec<Cow<'a, str>>>,
    },
    Create(CreateTxn<'a>),
    Create2(CreateTxn<'a>),
    /// Shape: `[path:ustring][data:buffer][acl:vector<ACL>][parentCVersion:i32]`.
    CreateContainer {
        path: Cow<'a, str>,
        data: Option<Cow<'a, [u8]>>,
        acl: AclList,
        parent_cversion: i32,
    },
    /// Shape: `[path:ustring][data:buffer][acl:vector<ACL>][parentCVersion:i32][ttl:i64]`.
    CreateTtl {
        path: Cow<'a, str>,
        data: Option<Cow<'a, [u8]>>,
        acl: AclList,
        parent_cversion: i32,
        ttl_ms: i64,
    },
    /// Shape: `[path:ustring]`.
    Delete {
        path: Cow<'a, str>,
    },
    /// The same, of a container or a TTL node that has served its time.
    DeleteContainer {
        path: Cow<'a, str>,
    },
    SetData(SetDataTxn<'a>),
    Reconfig(SetDataTxn<'a>),
    /// Shape: `[path:ustring][acl:vector<ACL>][version:i32]`; the version is the `aversion` afterwards.
    SetAcl {
        path: Cow<'a, str>,
        acl: AclList,
        version: i32,
    },
    /// Shape: `[path:ustring][version:i32]`, only inside a multi; changes nothing.
    Check {
        path: Cow<'a, str>,
        version: i32,
    },
    /// Shape: `[count:i32]` times `[type:i32][record:buffer]`. One [`Txn::Error`] among them makes the whole a no-op.
    Multi(Vec<Txn<'a>>),
    /// A refused request that had been given a zxid. Shape: `[err:i32]`.
    Error {
        code: i32,
    },
}

/// What a payload holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecodedTxn<'a> {
    pub header: TxnHeader,
    pub txn: Txn<'a>,
    pub digest: Option<TxnDigest>,
}

/// Lengths inside a payload are bounded by the payload itself, which its reader has bounded.
fn reader_of(bytes: &[u8]) -> Reader<'_> {
    Reader::with_limit(bytes, usize::MAX)
}

/// Reads a whole payload: header, record, digest if there is one. Bytes behind that are ignored, as by Java.
pub fn decode(payload: &[u8]) -> Result<DecodedTxn<'_>> {
    let mut reader = reader_of(payload);
    let (header, kind) = TxnHeader::read(&mut reader)?;
    let txn = Txn::read(kind, &mut reader)?;
    let digest = TxnDigest::read(&mut reader);
    Ok(DecodedTxn { header, txn, digest })
}

/// Appends header, record and digest. Error txns and closings without a list carry no digest, whatever is passed: Java
/// gives the former none, and would take the digest of the latter for the list.
pub fn encode(header: &TxnHeader, txn: &Txn<'_>, digest: Option<TxnDigest>, out: &mut impl Write) {
    header.write(txn.kind(), out);
    txn.write(out);
    match (txn, digest) {
        (Txn::Error { .. } | Txn::CloseSession { paths: None }, _) | (_, None) => {}
        (_, Some(digest)) => digest.write(out),
    }
}

impl<'a> Txn<'a> {
    /// The `type` field that announces this record.
    pub fn kind(&self) -> i32 {
        match self {
            Txn::CreateSession { .. } => txn_type::CREATE_SESSION,
            Txn::CloseSession { .. } => txn_type::CLOSE_SESSION,
            Txn::Create(_) => txn_type::CREATE,
            Txn::Create2(_) => txn_type::CREATE2,
            Txn::CreateContainer { .. } => txn_type::CREATE_CONTAINER,
            Txn::CreateTtl { .. } => txn_type::CREATE_TTL,
            Txn::Delete { .. } => txn_type::DELETE,
            Txn::DeleteContainer { .. } => txn_type::DELETE_CONTAINER,
            Txn::SetData(_) => txn_type::SET_DATA,
            Txn::Reconfig(_) => txn_type::RECONFIG,
            Txn::SetAcl { .. } => txn_type::SET_ACL,
            Txn::Check { .. } => txn_type::CHECK,
            Txn::Multi(_) => txn_type::MULTI,
            Txn::Error { .. } => txn_type::ERROR,
        }
    }

    /// A multi that was refused, in the form that is logged: the `failed` operation becomes its error code, those
    /// behind it `RuntimeInconsistency`; those before it stay.
    pub fn failed_multi(mut txns: Vec<Txn<'a>>, failed: usize, code: ErrorCode) -> Txn<'a> {
        for (at, txn) in txns.iter_mut().enumerate().skip(failed) {
            let code = if at == failed { code } else { ErrorCode::RuntimeInconsistency };
            *txn = Txn::Error { code: code.code() };
        }
        Txn::Multi(txns)
    }

    /// Whether it changes nothing because the request, or one operation of the multi, was refused.
    pub fn is_refused(&self) -> bool {
        match self {
            Txn::Error { .. } => true,
            Txn::Multi(txns) => txns.iter().any(|txn| matches!(txn, Txn::Error { .. })),
            _ => false,
        }
    }

    /// Reads the record of a type.
    pub fn read(kind: i32, reader: &mut Reader<'a>) -> Result<Txn<'a>> {
        Ok(match kind {
            txn_type::CREATE_SESSION => Txn::CreateSession { timeout_ms: reader.i32()? },
            txn_type::CLOSE_SESSION => Txn::CloseSession { paths: read_closed_paths(reader)? },
            txn_type::RECONFIG => Txn::Reconfig(SetDataTxn::read(reader)?),
            txn_type::SET_ACL => {
                Txn::SetAcl { path: reader.text()?, acl: read_acl_list(reader)?, version: reader.i32()? }
            }
            txn_type::MULTI => Txn::Multi(read_multi(reader)?),
            _ => Txn::read_single(kind, reader)?.ok_or(TxnError::Unsupported(kind))?,
        })
    }

    /// The types that may stand alone and in a multi; `None` for any other.
    fn read_single(kind: i32, reader: &mut Reader<'a>) -> Result<Option<Txn<'a>>> {
        Ok(Some(match kind {
            txn_type::CREATE => Txn::Create(CreateTxn::read(reader)?),
            txn_type::CREATE2 => Txn::Create2(CreateTxn::read(reader)?),
            txn_type::CREATE_CONTAINER => Txn::CreateContainer {
                path: reader.text()?,
                data: read_data(reader)?,
                acl: read_acl_list(reader)?,
                parent_cversion: reader.i32()?,
            },
            txn_type::CREATE_TTL => Txn::CreateTtl {
                path: reader.text()?,
                data: read_data(reader)?,
                acl: read_acl_list(reader)?,
                parent_cversion: reader.i32()?,
                ttl_ms: reader.i64()?,
            },
            txn_type::DELETE => Txn::Delete { path: reader.text()? },
            txn_type::DELETE_CONTAINER => Txn::DeleteContainer { path: reader.text()? },
            txn_type::SET_DATA => Txn::SetData(SetDataTxn::read(reader)?),
            txn_type::CHECK => Txn::Check { path: reader.text()?, version: reader.i32()? },
            txn_type::ERROR => Txn::Error { code: reader.i32()? },
            _ => return Ok(None),
        }))
    }

    /// Appends the bare record.
    pub fn write(&self, out: &mut impl Write) {
        match self {
            Txn::CreateSession { timeout_ms } => out.put_i32(*timeout_ms),
            Txn::CloseSession { paths: None } => {}
            Txn::CloseSession { paths: Some(paths) } => {
                out.put_i32(paths.len() as i32);
                paths.iter().for_each(|path| out.put_string(path));
            }
            Txn::Create(create) | Txn::Create2(create) => create.write(out),
            Txn::CreateContainer { path, data, acl, parent_cversion } => {
                write_node(path, data.as_deref(), acl, out);
                out.put_i32(*parent_cversion);
            }
            Txn::CreateTtl { path, data, acl, parent_cversion, ttl_ms } => {
                write_node(path, data.as_deref(), acl, out);
                out.put_i32(*parent_cversion);
                out.put_i64(*ttl_ms);
            }
            Txn::Delete { path } | Txn::DeleteContainer { path } => out.put_string(path),
            Txn::SetData(set) | Txn::Reconfig(set) => set.write(out),
            Txn::SetAcl { path, acl, version } => {
                out.put_string(path);
                write_acl_list(acl, out);
                out.put_i32(*version);
            }
            Txn::Check { path, version } => {
                out.put_string(path);
                out.put_i32(*version);
            }
            Txn::Multi(txns) => write_multi(txns, out),
            Txn::Error { code } => out.put_i32(*code),
        }
    }

    /// A copy that borrows from nothing.
    pub fn into_owned(self) -> Txn<'static> {
        match self {
            Txn::CreateSession { timeout_ms } => Txn::CreateSession { timeout_ms },
            Txn::CloseSession { paths } => {
                Txn::CloseSession { paths: paths.map(|paths| paths.into_iter().map(own_path).collect()) }
            }
            Txn::Create(create) => Txn::Create(create.into_owned()),
            Txn::Create2(create) => Txn::Create2(create.into_owned()),
            Txn::CreateContainer { path, data, acl, parent_cversion } => {
                Txn::CreateContainer { path: own_path(path), data: own_data(data), acl, parent_cversion }
            }
            Txn::CreateTtl { path, data, acl, parent_cversion, ttl_ms } => {
                Txn::CreateTtl { path: own_path(path), data: own_data(data), acl, parent_cversion, ttl_ms }
            }
            Txn::Delete { path } => Txn::Delete { path: own_path(path) },
            Txn::DeleteContainer { path } => Txn::DeleteContainer { path: own_path(path) },
            Txn::SetData(set) => Txn::SetData(set.into_owned()),
            Txn::Reconfig(set) => Txn::Reconfig(set.into_owned()),
            Txn::SetAcl { path, acl, version } => Txn::SetAcl { path: own_path(path), acl, version },
            Txn::Check { path, version } => Txn::Check { path: own_path(path), version },
            Txn::Multi(txns) => Txn::Multi(txns.into_iter().map(Txn::into_owned).collect()),
            Txn::Error { code } => Txn::Error { code },
        }
    }
}

impl<'a> CreateTxn<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<CreateTxn<'a>> {
        let path = reader.text()?;
        let data = read_data(reader)?;
        let acl = read_acl_list(reader)?;
        let ephemeral = reader.bool()?;
        let parent_cversion = match reader.remaining() {
            0..4 => NO_PARENT_CVERSION,
            _ => reader.i32()?,
        };
        Ok(CreateTxn { path, data, acl, ephemeral, parent_cversion })
    }

    fn write(&self, out: &mut impl Write) {
        write_node(&self.path, self.data.as_deref(), &self.acl, out);
        out.put_bool(self.ephemeral);
        out.put_i32(self.parent_cversion);
    }

    fn into_owned(self) -> CreateTxn<'static> {
        CreateTxn {
            path: own_path(self.path),
            data: own_data(self.data),
            acl: self.acl,
            ephemeral: self.ephemeral,
            parent_cversion: self.parent_cversion,
        }
    }
}

impl<'a> SetDataTxn<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<SetDataTxn<'a>> {
        Ok(SetDataTxn { path: reader.text()?, data: read_data(reader)?, version: reader.i32()? })
    }

    fn write(&self, out: &mut impl Write) {
        out.put_string(&self.path);
        out.put_buffer(self.data.as_deref());
        out.put_i32(self.version);
    }

    fn into_owned(self) -> SetDataTxn<'static> {
        SetDataTxn { path: own_path(self.path), data: own_data(self.data), version: self.version }
    }
}

fn own_path(path: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(path.into_owned())
}

fn own_data(data: Option<Cow<'_, [u8]>>) -> Option<Cow<'static, [u8]>> {
    data.map(|data| Cow::Owned(data.into_owned()))
}

fn read_data<'a>(reader: &mut Reader<'a>) -> Result<Option<Cow<'a, [u8]>>> {
    Ok(reader.buffer()?.map(Cow::Borrowed))
}

/// The open list, encoded: `world:anyone` with every permission. Nearly every list is this one.
const OPEN_ACL: [u8; 27] = *b"\0\0\0\x01\0\0\0\x1f\0\0\0\x05world\0\0\0\x06anyone";

/// A stored list. A null one reads as the open list, as in Java.
pub fn read_acl_list(reader: &mut Reader<'_>) -> Result<AclList> {
    if let Some(rest) = reader.rest().strip_prefix(&OPEN_ACL) {
        *reader = reader_of(rest);
        return Ok(AclList::Open);
    }
    Ok(reader.vector(Reader::acl)?.map_or(AclList::Open, AclList::from_vec))
}

pub fn write_acl_list(acl: &AclList, out: &mut impl Write) {
    match acl {
        AclList::Open => out.put(&OPEN_ACL),
        AclList::List(list) => out.put_acls(list),
    }
}

fn write_node(path: &str, data: Option<&[u8]>, acl: &AclList, out: &mut impl Write) {
    out.put_string(path);
    out.put_buffer(data);
    write_acl_list(acl, out);
}

/// The list of a closeSession, if it has one. Without one a digest may follow the header directly: those 12 bytes are
/// no list, because two paths are never both empty.
fn read_closed_paths<'a>(reader: &mut Reader<'a>) -> Result<Option<Vec<Cow<'a, str>>>> {
    if reader.remaining() == 0 || is_lone_digest(reader.rest()) {
        return Ok(None);
    }
    let mut ahead = reader.clone();
    match ahead.vector(Reader::text) {
        Ok(paths) => {
            *reader = ahead;
            Ok(paths)
        }
        // Older than the list: what follows is a digest or nothing.
        Err(JuteError::Short) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_lone_digest(rest: &[u8]) -> bool {
    rest.len() == DIGEST_BYTES && rest.starts_with(&DIGEST_VERSION.to_be_bytes())
}

fn read_multi<'a>(reader: &mut Reader<'a>) -> Result<Vec<Txn<'a>>> {
    let count = reader.count()?.ok_or(JuteError::Null)?;
    // Each sub-record takes 8 bytes at least.
    let mut txns = Vec::with_capacity(count.min(reader.remaining() / 8));
    for _ in 0..count {
        let kind = reader.i32()?;
        let record = reader.buffer()?.ok_or(JuteError::Null)?;
        let txn = Txn::read_single(kind, &mut reader_of(record))?;
        txns.push(txn.ok_or(TxnError::UnsupportedInMulti(kind))?);
    }
    Ok(txns)
}

fn write_multi(txns: &[Txn<'_>], out: &mut impl Write) {
    out.put_i32(txns.len() as i32);
    for txn in txns {
        let mut length = Length(0);
        txn.write(&mut length);
        out.put_i32(txn.kind());
        out.put_i32(length.0 as i32);
        txn.write(out);
    }
}

/// Measures a record: cheaper than writing it elsewhere first.
struct Length(usize);

impl Write for Length {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

#[cfg(test)]
mod tests;
