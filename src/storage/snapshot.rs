//! The format of a snapshot, `snapshot.<zxid>[.gz|.snappy]`: the whole state at one zxid.
//!
//! ```text
//! [magic "ZKSN":i32][version 2:i32][dbid -1:i64]
//! [sessions:i32] times [id:i64][timeOut:i32]
//! [lists:i32] times [aclId:i64][vector<ACL>]
//! nodes: [path:ustring][data:buffer][aclId:i64][StatPersisted], the root as "", parents before children
//! "/":ustring SEAL
//! [zxid:i64][digestVersion 2:i32][digest:i64] SEAL      since 3.6, if digests are on
//! [lastProcessedZxid:i64] SEAL                          since 3.9, if it is on
//! SEAL = [Adler-32 of every uncompressed byte before:i64]["/":ustring]
//! ```
//!
//! Source: `FileSnap`, `SerializeUtils`, `DataTree.serialize`. The zxid of a snapshot is the one in its name.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use super::window::Window;
use crate::types::acl::{Acl, AclList};
use crate::types::ids::SessionId;
use crate::types::stat::StatPersisted;
use crate::types::zxid::Zxid;
use crate::wire::jute::{JuteError, Reader, Write as _};
use crate::wire::txn::{self, TxnDigest};

/// `ZKSN`, version 2, dbid -1.
const FILE_HEADER: [u8; 16] = *b"ZKSN\0\0\0\x02\xff\xff\xff\xff\xff\xff\xff\xff";
const MAGIC_BYTES: usize = 4;
/// Bytes of a `StatPersisted`.
const STAT_BYTES: usize = 60;
/// Bytes of a seal.
const SEAL_BYTES: usize = 13;
/// Digest section with its seal.
const DIGEST_SECTION_BYTES: usize = 20 + SEAL_BYTES;
/// Section of the last processed zxid with its seal.
const LAST_ZXID_SECTION_BYTES: usize = 8 + SEAL_BYTES;
/// The string `/`, which no node has as its path, ends the nodes.
const SLASH: [u8; 5] = *b"\0\0\0\x01/";
/// `aclId` of the open list.
pub const OPEN_ACL_ID: i64 = -1;
/// Bytes that the writer collects before it passes them on.
const WRITE_BYTES: usize = 256 << 10;

/// Why a file is not a snapshot.
#[derive(Debug)]
pub enum SnapshotError {
    /// The file could not be read, or ends too early.
    Io(io::Error),
    /// It does not start as a snapshot does.
    Magic([u8; 4]),
    /// A record that is none, at an offset of the uncompressed bytes.
    Record { offset: u64, error: JuteError },
    /// The bytes up to here are not those that were written.
    Seal { offset: u64 },
    /// What the receiver says about an item, for instance a node without its parent.
    Item { offset: u64, what: String },
}

impl From<io::Error> for SnapshotError {
    fn from(error: io::Error) -> SnapshotError {
        SnapshotError::Io(error)
    }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::Io(error) => error.fmt(f),
            SnapshotError::Magic(magic) => write!(f, "the file starts with {magic:02x?} instead of ZKSN"),
            SnapshotError::Record { offset, error } => write!(f, "{error} at offset {offset}"),
            SnapshotError::Seal { offset } => write!(f, "CRC corruption before offset {offset}"),
            SnapshotError::Item { offset, what } => write!(f, "{what} at offset {offset}"),
        }
    }
}

impl std::error::Error for SnapshotError {}

pub type Result<T> = std::result::Result<T, SnapshotError>;

/// Digest of the tree when its list of nodes was finished, which in Java's fuzzy snapshots is later than the name says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotDigest {
    pub zxid: Zxid,
    pub digest: TxnDigest,
}

/// One znode as it lies in a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeRecord<'a> {
    /// Empty for the root.
    pub path: Cow<'a, str>,
    /// Null and empty are two things.
    pub data: Option<&'a [u8]>,
    /// [`OPEN_ACL_ID`], or one of the lists; Java's fuzzy snapshots also name lists that are missing.
    pub acl_id: i64,
    pub stat: StatPersisted,
}

/// What a snapshot holds, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item<'a> {
    Session { id: SessionId, timeout_ms: i32 },
    Acl { id: i64, list: AclList },
    Node(NodeRecord<'a>),
    End(SnapshotEnd),
}

/// The sections behind the nodes; older servers write neither.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SnapshotEnd {
    pub digest: Option<SnapshotDigest>,
    pub last_processed: Option<Zxid>,
}

/// What the reader expects next.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Sessions { left: usize },
    AclCount,
    Acls { left: usize },
    Nodes,
    Ended(SnapshotEnd),
}

/// Reads a snapshot from the front, in bounded memory.
pub struct SnapshotReader<R> {
    window: Window<R>,
    /// Bytes at the front of the window that are read, but not yet in the checksum.
    at: usize,
    adler: simd_adler32::Adler32,
    phase: Phase,
    /// Longest data, path or list, bytes.
    bytes_max: usize,
}

impl<R: Read> SnapshotReader<R> {
    /// Reads up to the count of sessions. `bytes_max`: `jute.maxbuffer` and its extra size.
    pub fn open(source: R, bytes_max: usize) -> Result<SnapshotReader<R>> {
        let mut reader = SnapshotReader {
            window: Window::new(source),
            at: 0,
            adler: simd_adler32::Adler32::new(),
            phase: Phase::Nodes,
            bytes_max,
        };
        let header = reader.need(FILE_HEADER.len())?;
        if let Some(&magic) = header.first_chunk::<MAGIC_BYTES>()
            && magic != FILE_HEADER[..MAGIC_BYTES]
        {
            return Err(SnapshotError::Magic(magic));
        }
        reader.at += FILE_HEADER.len();
        reader.phase = Phase::Sessions { left: reader.take_count()? };
        Ok(reader)
    }

    /// The next item; after [`Item::End`] only that one.
    pub fn next_item(&mut self) -> Result<Item<'_>> {
        loop {
            let phase = self.phase;
            match phase {
                Phase::Sessions { left: 0 } => self.phase = Phase::AclCount,
                Phase::Sessions { left } => {
                    self.phase = Phase::Sessions { left: left - 1 };
                    return self.take_session();
                }
                Phase::AclCount => self.phase = Phase::Acls { left: self.take_count()? },
                Phase::Acls { left: 0 } => self.phase = Phase::Nodes,
                Phase::Acls { left } => {
                    self.phase = Phase::Acls { left: left - 1 };
                    return self.take_acl();
                }
                Phase::Nodes if self.need(SLASH.len())? == SLASH => {
                    self.at += SLASH.len();
                    self.phase = Phase::Ended(self.take_end()?);
                }
                Phase::Nodes => return self.take_node(),
                Phase::Ended(end) => return Ok(Item::End(end)),
            }
        }
    }

    /// Position in the uncompressed bytes.
    pub fn offset(&self) -> u64 {
        self.window.offset() + self.at as u64
    }

    /// Reads ahead as far as `len`; `false` if the file ends before. What leaves the window goes into the checksum.
    fn fill(&mut self, len: usize) -> Result<bool> {
        if self.window.bytes().len() - self.at >= len {
            return Ok(true);
        }
        self.checksum();
        Ok(self.window.fill(len)?)
    }

    /// The next `len` bytes, which stay unread.
    fn need(&mut self, len: usize) -> Result<&[u8]> {
        if !self.fill(len)? {
            return Err(self.record_error(JuteError::Short));
        }
        Ok(&self.window.bytes()[self.at..self.at + len])
    }

    /// The checksum of everything that is read.
    fn checksum(&mut self) -> u64 {
        self.adler.write(&self.window.bytes()[..self.at]);
        self.window.consume(self.at);
        self.at = 0;
        u64::from(self.adler.finish())
    }

    fn record_error(&self, error: JuteError) -> SnapshotError {
        SnapshotError::Record { offset: self.offset(), error }
    }

    /// The `i32` that lies `skip` bytes ahead.
    fn peek_i32(&mut self, skip: usize) -> Result<i32> {
        let bytes = self.need(skip + 4)?;
        Ok(bytes[skip..].first_chunk().map_or(0, |word| i32::from_be_bytes(*word)))
    }

    /// Bytes of the string or buffer that starts `skip` bytes ahead, its length field included.
    fn peek_len(&mut self, skip: usize) -> Result<usize> {
        match self.peek_i32(skip)? {
            -1 => Ok(4),
            len if len < 0 || len as usize > self.bytes_max => Err(self.record_error(JuteError::Unreasonable(len))),
            len => Ok(4 + len as usize),
        }
    }

    fn take_count(&mut self) -> Result<usize> {
        let count = self.peek_i32(0)?;
        self.at += 4;
        Ok(count.max(0) as usize)
    }

    /// Reads a record of `len` bytes.
    fn take<'a, T>(
        &'a mut self,
        len: usize,
        read: impl FnOnce(&mut Reader<'a>) -> std::result::Result<T, JuteError>,
    ) -> Result<T> {
        self.need(len)?;
        let offset = self.offset();
        let from = self.at;
        self.at += len;
        let mut reader = Reader::with_limit(&self.window.bytes()[from..from + len], usize::MAX);
        read(&mut reader).map_err(|error| SnapshotError::Record { offset, error })
    }

    fn take_session(&mut self) -> Result<Item<'_>> {
        self.take(12, |r| Ok(Item::Session { id: SessionId(r.i64()?), timeout_ms: r.i32()? }))
    }

    fn take_acl(&mut self) -> Result<Item<'_>> {
        let count = self.peek_i32(8)?;
        let mut len = 12;
        for _ in 0..count.max(0) {
            for skip in [4, 0] {
                len += skip;
                len += self.peek_len(len)?;
            }
            if len > self.bytes_max {
                return Err(self.record_error(JuteError::Unreasonable(count)));
            }
        }
        self.take(len, |r| {
            let id = r.i64()?;
            let list = r.vector(Reader::acl)?.map_or(AclList::Open, AclList::from_vec);
            Ok(Item::Acl { id, list })
        })
    }

    fn take_node(&mut self) -> Result<Item<'_>> {
        let path = self.peek_len(0)?;
        let data = self.peek_len(path)?;
        self.take(path + data + 8 + STAT_BYTES, |r| {
            Ok(Item::Node(NodeRecord {
                path: r.text()?,
                data: r.buffer()?,
                acl_id: r.i64()?,
                stat: r.stat_persisted()?,
            }))
        })
    }

    fn take_seal(&mut self) -> Result<()> {
        let checksum = self.checksum();
        let offset = self.offset();
        let seal = self.take(SEAL_BYTES, |r| Ok((r.i64()? as u64, r.rest() == SLASH)))?;
        if seal == (checksum, true) { Ok(()) } else { Err(SnapshotError::Seal { offset }) }
    }

    /// First seal and the sections behind it. Which ones there are shows in what is left: Java trusts its settings.
    fn take_end(&mut self) -> Result<SnapshotEnd> {
        self.take_seal()?;
        let mut end = SnapshotEnd::default();
        if self.fill(DIGEST_SECTION_BYTES)? {
            end.digest = self.take_digest()?;
            self.take_seal()?;
        }
        if self.fill(LAST_ZXID_SECTION_BYTES)? {
            end.last_processed = Some(self.take(8, |r| r.zxid())?);
            self.take_seal()?;
        }
        match self.fill(1)? {
            false => Ok(end),
            true => Err(self.record_error(JuteError::Short)),
        }
    }

    /// The betas of 3.6 wrote version 1 and a string; such a digest is not compared.
    fn take_digest(&mut self) -> Result<Option<SnapshotDigest>> {
        let (zxid, version) = self.take(12, |r| Ok((r.zxid()?, r.i32()?)))?;
        if version < txn::DIGEST_VERSION {
            let len = self.peek_len(0)?;
            self.need(len)?;
            self.at += len;
            return Ok(None);
        }
        let tree_digest = self.take(8, |r| r.i64())? as u64;
        Ok(Some(SnapshotDigest { zxid, digest: TxnDigest { version, tree_digest } }))
    }
}

/// The ids under which a snapshot lists the ACLs in use. Every id used by a node is listed, unlike in Java.
#[derive(Debug, Default)]
pub struct AclIds {
    ids: HashMap<Arc<[Acl]>, i64>,
    /// In order of their ids, which start at 1.
    lists: Vec<Arc<[Acl]>>,
}

impl AclIds {
    /// Gives ids to the distinct lists among these.
    pub fn new<'a>(lists: impl IntoIterator<Item = &'a AclList>) -> AclIds {
        let mut ids = AclIds::default();
        for list in lists {
            ids.add(list);
        }
        ids
    }

    /// The id of a list, a new one if it is new.
    pub fn add(&mut self, list: &AclList) -> i64 {
        let AclList::List(list) = list else { return OPEN_ACL_ID };
        if let Some(&id) = self.ids.get(list) {
            return id;
        }
        self.lists.push(list.clone());
        let id = self.lists.len() as i64;
        self.ids.insert(list.clone(), id);
        id
    }

    /// All lists but the open one, in order of their ids, which start at 1.
    pub fn lists(&self) -> &[Arc<[Acl]>] {
        &self.lists
    }

    /// The id of a list; `None` if it was never added.
    pub fn get(&self, list: &AclList) -> Option<i64> {
        match list {
            AclList::Open => Some(OPEN_ACL_ID),
            AclList::List(list) => self.ids.get(list).copied(),
        }
    }
}

/// Writes a snapshot from the front: sessions, ACL lists, nodes, end.
pub struct SnapshotWriter<'a, W> {
    sink: W,
    acls: &'a AclIds,
    adler: simd_adler32::Adler32,
    buffer: Vec<u8>,
}

impl<'a, W: Write> SnapshotWriter<'a, W> {
    /// Writes everything before the nodes.
    pub fn begin(
        sink: W,
        sessions: impl ExactSizeIterator<Item = (SessionId, i32)>,
        acls: &'a AclIds,
    ) -> io::Result<SnapshotWriter<'a, W>> {
        let buffer = Vec::with_capacity(WRITE_BYTES + 4096);
        let mut writer = SnapshotWriter { sink, acls, adler: simd_adler32::Adler32::new(), buffer };
        writer.buffer.put(&FILE_HEADER);
        let announced = sessions.len();
        writer.buffer.put_i32(announced as i32);
        let mut written = 0;
        for (id, timeout_ms) in sessions {
            writer.buffer.put_i64(id.0);
            writer.buffer.put_i32(timeout_ms);
            written += 1;
            writer.pass_on(WRITE_BYTES)?;
        }
        assert_eq!(written, announced, "an iterator that miscounts would make the snapshot unreadable");
        writer.buffer.put_i32(acls.lists.len() as i32);
        for (at, list) in acls.lists.iter().enumerate() {
            writer.buffer.put_i64(at as i64 + 1);
            writer.buffer.put_acls(list);
            writer.pass_on(WRITE_BYTES)?;
        }
        Ok(writer)
    }

    /// Writes a znode; the root, with the empty path, comes first, and every parent before its children.
    pub fn node(&mut self, path: &str, data: Option<&[u8]>, acl: &AclList, stat: &StatPersisted) -> io::Result<()> {
        assert!(path != "/", "the path that ends the nodes");
        let Some(acl_id) = self.acls.get(acl) else {
            return Err(io::Error::other(format!("the ACL of {path} is not among the snapshot's lists")));
        };
        self.buffer.put_string(path);
        self.buffer.put_buffer(data);
        self.buffer.put_i64(acl_id);
        self.buffer.put_stat_persisted(stat);
        self.pass_on(WRITE_BYTES)
    }

    /// Writes what stands behind the nodes, and hands the sink back. Nothing is flushed to disk here.
    pub fn finish(mut self, end: &SnapshotEnd) -> io::Result<W> {
        self.buffer.put(&SLASH);
        self.seal()?;
        if let Some(SnapshotDigest { zxid, digest }) = end.digest {
            self.buffer.put_zxid(zxid);
            digest.write(&mut self.buffer);
            self.seal()?;
        }
        if let Some(zxid) = end.last_processed {
            self.buffer.put_zxid(zxid);
            self.seal()?;
        }
        self.pass_on(0)?;
        Ok(self.sink)
    }

    fn seal(&mut self) -> io::Result<()> {
        self.pass_on(0)?;
        self.buffer.put_i64(i64::from(self.adler.finish()));
        self.buffer.put(&SLASH);
        Ok(())
    }

    /// Writes the buffer out when it holds more than `above` bytes.
    fn pass_on(&mut self, above: usize) -> io::Result<()> {
        if self.buffer.len() > above {
            self.adler.write(&self.buffer);
            self.sink.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }
}
