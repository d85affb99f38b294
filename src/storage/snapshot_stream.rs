//! The tree as a leader sends it to a learner, behind its SNAP packet: written from a version in bounded pieces, and read
//! piece by piece as it comes.
//!
//! ```text
//! [sessions:i32] times [id:i64][timeOut:i32]
//! [lists:i32] times [key:i64][vector<ACL>]
//! nodes: [path:ustring][data:buffer][key:i64][StatPersisted], the root as "", parents before children
//! "/":ustring "BenWasHere":ustring
//! ```
//!
//! The same records as in a snapshot file (`snapshot.rs`), without its header, checksums, digest and zxid: that stands in
//! the packet. Source: `LearnerHandler`, `Learner.syncWithLeader`, `SerializeUtils`.

use super::snapshot::{AclIds, Item, NodeRecord, SnapshotEnd, SnapshotError};
use crate::tree::store::{Reader, Walk};
use crate::types::acl::AclList;
use crate::types::ids::SessionId;
use crate::types::path;
use crate::wire::jute::{self, JuteError, Write};

/// What stands behind the last znode, for the ear of `Learner`.
const SIGNATURE: &str = "BenWasHere";
/// The path that ends the znodes.
const SLASH: &str = "/";
/// What a record may be longer than its path and its data.
const RECORD_EXTRA_BYTES: usize = 1024;
/// Znodes after which the writer says that it holds no reference, so that others' garbage can go.
const REFRESH_EVERY: usize = 1024;

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    SessionCount,
    Sessions { left: usize },
    ListCount,
    Lists { left: usize },
    Nodes,
    Signature,
    Nothing,
}

/// Reads a stream as it comes, holding no more than one record that is not whole.
#[derive(Debug)]
pub struct StreamReader {
    expected: Expected,
    /// The beginning of a record.
    pending: Vec<u8>,
    /// Of the first byte in `pending`.
    offset: u64,
    /// Longest data, path or string, bytes: `jute.maxbuffer` and its extra size.
    bytes_max: usize,
}

impl StreamReader {
    pub fn new(bytes_max: usize) -> StreamReader {
        StreamReader { expected: Expected::SessionCount, pending: Vec::new(), offset: 0, bytes_max }
    }

    /// Takes the next bytes of the stream and hands out every item that is whole, [`Item::End`] last.
    ///
    /// Errors: this is no such stream, or `take` says what is wrong with an item.
    pub fn read(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(Item<'_>) -> Result<(), String>,
    ) -> Result<(), SnapshotError> {
        if self.pending.is_empty() {
            let consumed = self.read_records(bytes, &mut take)?;
            self.pending.extend_from_slice(&bytes[consumed..]);
            return Ok(());
        }
        self.pending.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.pending);
        let consumed = self.read_records(&pending, &mut take)?;
        self.pending = pending;
        self.pending.drain(..consumed);
        Ok(())
    }

    /// Whether the signature has come.
    pub fn is_whole(&self) -> bool {
        self.expected == Expected::Nothing
    }

    /// Reads whole records off the front; returns how many bytes they took.
    fn read_records(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(Item<'_>) -> Result<(), String>,
    ) -> Result<usize, SnapshotError> {
        let mut at = 0;
        while self.expected != Expected::Nothing {
            let offset = self.offset;
            let mut record = jute::Reader::with_limit(&bytes[at..], self.bytes_max);
            let item = match self.read_record(&mut record) {
                Ok(item) => item,
                Err(JuteError::Short) if bytes.len() - at <= 2 * self.bytes_max + RECORD_EXTRA_BYTES => return Ok(at),
                Err(error) => return Err(SnapshotError::Record { offset, error }),
            };
            let consumed = bytes.len() - at - record.remaining();
            if let Some(item) = item {
                take(item).map_err(|what| SnapshotError::Item { offset, what })?;
            }
            at += consumed;
            self.offset += consumed as u64;
        }
        match at == bytes.len() {
            true => Ok(at),
            false => Err(SnapshotError::Item { offset: self.offset, what: "bytes behind the signature".to_owned() }),
        }
    }

    /// One record. `Short`: it is not whole yet, and nothing has changed.
    fn read_record<'a>(&mut self, r: &mut jute::Reader<'a>) -> jute::Result<Option<Item<'a>>> {
        match self.expected {
            Expected::SessionCount => {
                self.expected = Expected::Sessions { left: count(r)? };
                Ok(None)
            }
            Expected::Sessions { left: 0 } => {
                self.expected = Expected::ListCount;
                Ok(None)
            }
            Expected::Sessions { left } => {
                let (id, timeout_ms) = (SessionId(r.i64()?), r.i32()?);
                self.expected = Expected::Sessions { left: left - 1 };
                Ok(Some(Item::Session { id, timeout_ms }))
            }
            Expected::ListCount => {
                self.expected = Expected::Lists { left: count(r)? };
                Ok(None)
            }
            Expected::Lists { left: 0 } => {
                self.expected = Expected::Nodes;
                Ok(None)
            }
            Expected::Lists { left } => {
                let id = r.i64()?;
                let list = r.vector(jute::Reader::acl)?.map_or(AclList::Open, AclList::from_vec);
                self.expected = Expected::Lists { left: left - 1 };
                Ok(Some(Item::Acl { id, list }))
            }
            Expected::Nodes => {
                let path = r.text()?;
                if path == SLASH {
                    self.expected = Expected::Signature;
                    return Ok(None);
                }
                let (data, acl_id, stat) = (r.buffer()?, r.i64()?, r.stat_persisted()?);
                Ok(Some(Item::Node(NodeRecord { path, data, acl_id, stat })))
            }
            Expected::Signature => {
                if r.text()? != SIGNATURE {
                    return Err(JuteError::Null);
                }
                self.expected = Expected::Nothing;
                Ok(Some(Item::End(SnapshotEnd::default())))
            }
            Expected::Nothing => Err(JuteError::Short),
        }
    }
}

fn count(r: &mut jute::Reader<'_>) -> jute::Result<usize> {
    Ok(r.i32()?.max(0) as usize)
}

/// Where the writer is.
enum Written {
    Nothing,
    /// So many sessions, in the order of the store.
    Sessions(u32),
    Lists(usize),
    Nodes(Walk),
    Everything,
}

/// Writes the stream of one version, a piece at a time: on a helper thread, or in the simulator.
pub struct StreamWriter {
    /// Holds its version.
    reader: Reader,
    acls: AclIds,
    written: Written,
}

impl StreamWriter {
    /// The stream of the version that the reader holds.
    pub fn new(reader: Reader) -> StreamWriter {
        StreamWriter { reader, acls: AclIds::default(), written: Written::Nothing }
    }

    /// Appends the next piece, of `bytes` and at most one record more; whether it was the last.
    pub fn write(&mut self, bytes: usize, out: &mut Vec<u8>) -> bool {
        let end = out.len() + bytes;
        while out.len() < end {
            self.written = match std::mem::replace(&mut self.written, Written::Everything) {
                Written::Nothing => {
                    out.put_i32(self.reader.sessions().count() as i32);
                    Written::Sessions(0)
                }
                Written::Sessions(cursor) => self.write_sessions(cursor, end, out),
                Written::Lists(at) => self.write_lists(at, end, out),
                Written::Nodes(walk) => self.write_nodes(walk, end, out),
                Written::Everything => break,
            };
        }
        self.reader.refresh();
        matches!(self.written, Written::Everything)
    }

    fn write_sessions(&mut self, cursor: u32, end: usize, out: &mut Vec<u8>) -> Written {
        let mut sessions = self.reader.sessions_from(cursor);
        while out.len() < end {
            let Some((id, timeout_ms)) = sessions.next() else {
                self.collect_lists();
                out.put_i32(self.acls.lists().len() as i32);
                return Written::Lists(0);
            };
            out.put_i64(id);
            out.put_i32(timeout_ms);
        }
        Written::Sessions(sessions.cursor())
    }

    fn write_lists(&self, at: usize, end: usize, out: &mut Vec<u8>) -> Written {
        let lists = self.acls.lists();
        for (at, list) in lists.iter().enumerate().skip(at) {
            if out.len() >= end {
                return Written::Lists(at);
            }
            out.put_i64(at as i64 + 1);
            out.put_acls(list);
        }
        Written::Nodes(self.reader.walk())
    }

    fn write_nodes(&mut self, mut walk: Walk, end: usize, out: &mut Vec<u8>) -> Written {
        let mut count = 0;
        while out.len() < end {
            let Some(node) = self.reader.walk_on(&mut walk) else {
                out.put_string(SLASH);
                out.put_string(SIGNATURE);
                return Written::Everything;
            };
            out.put_string(if node.path() == path::ROOT { "" } else { node.path() });
            out.put_buffer(node.data());
            out.put_i64(self.acls.get(node.acl()).expect("every list of this version was collected"));
            out.put_stat_persisted(&node.stat());
            count += 1;
            if count % REFRESH_EVERY == 0 {
                self.reader.refresh();
            }
        }
        Written::Nodes(walk)
    }

    /// Every list stands before the znodes that use it.
    fn collect_lists(&mut self) {
        let mut walk = self.reader.walk();
        let mut count = 0;
        while let Some(node) = self.reader.walk_on(&mut walk) {
            self.acls.add(node.acl());
            count += 1;
            if count % REFRESH_EVERY == 0 {
                self.reader.refresh();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Tree;
    use crate::tree::TreeSettings;
    use crate::tree::access::AccessSettings;
    use crate::tree::effects::Effects;
    use crate::types::acl::{Acl, perms};
    use crate::types::time::WallTime;
    use crate::types::zxid::Zxid;
    use crate::wire::txn::{CreateTxn, Txn, TxnHeader};

    const BYTES_MAX: usize = 1 << 20;

    fn tree() -> Tree {
        let mut tree = Tree::fresh(TreeSettings {
            extended_types: false,
            digest_enabled: true,
            close_session_txn: true,
            enforce_quota: false,
            reconfig_enabled: false,
            access: AccessSettings::default(),
        });
        let mut effects = Effects::default();
        let mut apply = |zxid: u64, txn: Txn<'_>| {
            let header = TxnHeader { session: SessionId(7), cxid: 1, zxid: Zxid(zxid), time: WallTime(1000) };
            effects.begin();
            tree.apply(&header, &txn, &mut effects);
        };
        apply(1, Txn::CreateSession { timeout_ms: 4000 });
        for zxid in 2..200_u64 {
            let acl = match zxid % 3 {
                0 => AclList::Open,
                1 => AclList::from_vec(vec![Acl::new(perms::READ, "world", "anyone")]),
                _ => AclList::from_vec(vec![Acl::new(perms::ALL, "digest", &format!("user-{}", zxid % 5))]),
            };
            let data = vec![b'x'; zxid as usize * 3];
            apply(
                zxid,
                Txn::Create(CreateTxn {
                    path: format!("/node-{zxid}").into(),
                    data: (zxid % 7 > 0).then(|| data.into()),
                    acl,
                    ephemeral: zxid % 2 == 0,
                    parent_cversion: -1,
                }),
            );
        }
        tree.publish(Zxid(199));
        tree
    }

    fn stream(piece: usize) -> Vec<u8> {
        let mut writer = StreamWriter::new(tree().reader().expect("the only reader"));
        let mut out = Vec::new();
        loop {
            let before = out.len();
            let is_end = writer.write(piece, &mut out);
            assert!(out.len() - before <= piece + 4096);
            if is_end {
                return out;
            }
        }
    }

    fn read(bytes: &[u8], piece: usize) -> Result<Vec<String>, SnapshotError> {
        let mut reader = StreamReader::new(BYTES_MAX);
        let mut items = Vec::new();
        for piece in bytes.chunks(piece) {
            reader.read(piece, |item| {
                items.push(format!("{item:?}"));
                Ok(())
            })?;
            assert!(reader.pending.len() <= 4096, "no more than a record is kept");
        }
        assert!(reader.is_whole());
        Ok(items)
    }

    #[test]
    fn what_is_written_in_pieces_is_read_in_other_pieces() {
        let whole = stream(usize::MAX / 2);
        for piece in [1, 100, 5000] {
            assert_eq!(stream(piece), whole, "pieces of {piece}");
        }
        let items = read(&whole, whole.len()).unwrap();
        assert_eq!(items.len(), 1 + 6 + 4 + 198 + 1, "a session, lists, znodes, the end");
        for piece in [1, 7, 4096] {
            assert_eq!(read(&whole, piece).unwrap(), items, "pieces of {piece}");
        }
    }

    #[test]
    fn an_empty_tree_is_the_stream_of_the_reference() {
        let tree = Tree::fresh(tree().settings().clone());
        let mut out = Vec::new();
        assert!(StreamWriter::new(tree.reader().expect("the only reader")).write(BYTES_MAX, &mut out));
        let start = [&[0; 4][..], &[0, 0, 0, 1], &[0, 0, 0, 0, 0, 0, 0, 1], &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        assert_eq!(out[..start.len()], start);
        assert!(out.ends_with(b"\0\0\0\x01/\0\0\0\x0aBenWasHere"));
    }

    #[test]
    fn a_stream_that_is_none_is_refused() {
        let whole = stream(BYTES_MAX);
        let mut broken = whole.clone();
        let signature = broken.len() - 1;
        broken[signature] = b'!';
        assert!(matches!(read(&broken, 100), Err(SnapshotError::Record { .. })));
        let longer = [&whole[..], b"x"].concat();
        assert!(matches!(read(&longer, longer.len()), Err(SnapshotError::Item { .. })));
        let huge = [&[0; 8][..], &[0x7f, 0xff, 0xff, 0xff]].concat();
        assert!(matches!(read(&huge, 100), Err(SnapshotError::Record { .. })));
    }
}
