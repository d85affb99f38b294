//! Where the raw stream behind a SNAP packet ends, found without building anything.
//!
//! ```text
//! [n:i32] n × {[session:i64][timeout ms:i32]}
//! [m:i32] m × {[key:i64][ACLs:vector<{[perms:i32][scheme:ustring][id:ustring]}>]}
//! nodes: {[path:ustring][data:buffer][acl key:i64][StatPersisted:60 bytes]}*, never with path "/"
//! [path:ustring = "/"][signature:ustring = "BenWasHere"]
//! ```
//!
//! The stream has neither length nor frame, so whoever stands behind it in the same connection must walk it
//! (`DataTree.deserialize`).

use std::fmt;

/// Behind the key of its ACL.
const STAT_PERSISTED_BYTES: u64 = 60;
const SIGNATURE: &[u8] = b"BenWasHere";

/// Bytes that are no such stream. The link closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotStreamError {
    Length(i32),
    Signature,
}

impl fmt::Display for SnapshotStreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotStreamError::Length(len) => write!(f, "a snapshot with a length of {len} in it"),
            SnapshotStreamError::Signature => f.write_str("a snapshot without its signature"),
        }
    }
}

impl std::error::Error for SnapshotStreamError {}

/// What the next number is about. Counts say how many of the same kind are still to come.
#[derive(Clone, Copy, Debug)]
enum Next {
    SessionCount,
    AclMapCount,
    /// The vector of an entry of the ACL map.
    AclCount {
        entries: u32,
    },
    Scheme {
        acls: u32,
        entries: u32,
    },
    Id {
        acls: u32,
        entries: u32,
    },
    Path,
    /// The path of one byte that came ended the nodes if it is a slash.
    OneBytePath,
    Data,
    SignatureLen,
    Signature,
    End,
}

/// Walks the stream as its bytes come.
#[derive(Debug)]
pub struct SnapshotScanner {
    next: Next,
    /// Bytes to be passed over before the next field.
    skip: u64,
    /// The field at hand, as far as it is here.
    field: [u8; SIGNATURE.len()],
    filled: usize,
    /// Largest length of a string or of data.
    bytes_max: usize,
}

impl SnapshotScanner {
    pub fn new(bytes_max: usize) -> SnapshotScanner {
        SnapshotScanner { next: Next::SessionCount, skip: 0, field: Default::default(), filled: 0, bytes_max }
    }

    pub fn is_end(&self) -> bool {
        matches!(self.next, Next::End)
    }

    /// Walks on. Returns how many of these bytes belong to the stream: all, unless it ends among them.
    pub fn push(&mut self, bytes: &[u8]) -> Result<usize, SnapshotStreamError> {
        let mut rest = bytes;
        while !self.is_end() && !rest.is_empty() {
            if self.skip > 0 {
                let passed = usize::try_from(self.skip).unwrap_or(usize::MAX).min(rest.len());
                self.skip -= passed as u64;
                rest = &rest[passed..];
                continue;
            }
            let needed = self.field_bytes();
            let taken = (needed - self.filled).min(rest.len());
            let (head, behind) = rest.split_at(taken);
            self.field[self.filled..self.filled + taken].copy_from_slice(head);
            self.filled += taken;
            rest = behind;
            if self.filled == needed {
                self.filled = 0;
                self.on_field()?;
            }
        }
        Ok(bytes.len() - rest.len())
    }

    fn field_bytes(&self) -> usize {
        match self.next {
            Next::OneBytePath => 1,
            Next::Signature => SIGNATURE.len(),
            _ => 4,
        }
    }

    fn number(&self) -> i32 {
        let [a, b, c, d, ..] = self.field;
        i32::from_be_bytes([a, b, c, d])
    }

    /// The field is complete: what comes behind it?
    fn on_field(&mut self) -> Result<(), SnapshotStreamError> {
        self.next = match self.next {
            Next::SessionCount => {
                self.skip = u64::from(self.count()?) * 12;
                Next::AclMapCount
            }
            Next::AclMapCount => self.behind_acl_entry(self.count()?),
            Next::AclCount { entries } => self.behind_acl(self.count()?, entries),
            Next::Scheme { acls, entries } => {
                self.skip = self.len()?;
                Next::Id { acls, entries }
            }
            Next::Id { acls, entries } => {
                let len = self.len()?;
                let next = self.behind_acl(acls - 1, entries);
                self.skip += len;
                next
            }
            Next::Path => match self.len()? {
                1 => Next::OneBytePath,
                len => {
                    self.skip = len;
                    Next::Data
                }
            },
            Next::OneBytePath if self.field[0] == b'/' => Next::SignatureLen,
            Next::OneBytePath => Next::Data,
            Next::Data => {
                self.skip = if self.number() == -1 { 0 } else { self.len()? } + 8 + STAT_PERSISTED_BYTES;
                Next::Path
            }
            Next::SignatureLen if self.number() == SIGNATURE.len() as i32 => Next::Signature,
            Next::Signature if self.field == SIGNATURE => Next::End,
            Next::SignatureLen | Next::Signature => return Err(SnapshotStreamError::Signature),
            Next::End => Next::End,
        };
        Ok(())
    }

    fn behind_acl_entry(&mut self, entries: u32) -> Next {
        match entries {
            0 => Next::Path,
            entries => {
                self.skip += 8;
                Next::AclCount { entries }
            }
        }
    }

    fn behind_acl(&mut self, acls: u32, entries: u32) -> Next {
        match acls {
            0 => self.behind_acl_entry(entries - 1),
            acls => {
                self.skip += 4;
                Next::Scheme { acls, entries }
            }
        }
    }

    /// A count: what is negative reads as nothing.
    fn count(&self) -> Result<u32, SnapshotStreamError> {
        Ok(self.number().max(0) as u32)
    }

    /// The length of a string or of data.
    fn len(&self) -> Result<u64, SnapshotStreamError> {
        let len = self.number();
        match u64::try_from(len) {
            Ok(bytes) if bytes <= self.bytes_max as u64 => Ok(bytes),
            _ => Err(SnapshotStreamError::Length(len)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::jute::Write;

    const BYTES_MAX: usize = 1 << 20;

    fn node(out: &mut Vec<u8>, path: &str, data: Option<&[u8]>) {
        out.put_string(path);
        out.put_buffer(data);
        out.put_i64(1);
        out.put(&[7; STAT_PERSISTED_BYTES as usize]);
    }

    /// Two sessions, two ACL lists (one empty), four nodes.
    fn stream() -> Vec<u8> {
        let mut out = Vec::new();
        out.put_i32(2);
        out.put(&[1; 24]);
        out.put_i32(2);
        out.put_i64(1);
        out.put_i32(2);
        for (scheme, id) in [("world", "anyone"), ("digest", "")] {
            out.put_i32(31);
            out.put_string(scheme);
            out.put_string(id);
        }
        out.put_i64(2);
        out.put_i32(0);
        node(&mut out, "", None);
        node(&mut out, "/a", Some(b""));
        node(&mut out, "/a/BenWasHere", Some(b"/"));
        node(&mut out, "/b", Some(&[0; 300]));
        out.put_string("/");
        out.put_string("BenWasHere");
        out
    }

    #[test]
    fn the_end_is_found_at_every_boundary() {
        let mut bytes = stream();
        let len = bytes.len();
        bytes.extend_from_slice(b"the next packet");
        for step in [1, 2, 3, 5, 7, 11, 64, bytes.len()] {
            let mut scanner = SnapshotScanner::new(BYTES_MAX);
            let mut used = 0;
            for piece in bytes.chunks(step) {
                used += scanner.push(piece).unwrap();
            }
            assert_eq!((used, scanner.is_end()), (len, true), "step {step}");
        }
        let mut scanner = SnapshotScanner::new(BYTES_MAX);
        assert_eq!(scanner.push(&bytes[..len - 1]), Ok(len - 1));
        assert!(!scanner.is_end());
    }

    #[test]
    fn an_empty_database_as_java_writes_it() {
        let hex = "00000000 00000001 0000000000000001 00000001 00000001 00000005 776f726c64 00000006 616e796f6e65";
        let digits: Vec<u8> = hex.bytes().filter(|c| *c != b' ').collect();
        let mut bytes: Vec<u8> =
            digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
        for path in ["", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"] {
            node(&mut bytes, path, Some(b""));
        }
        bytes.put_string("/");
        bytes.put_string("BenWasHere");
        let mut scanner = SnapshotScanner::new(BYTES_MAX);
        assert_eq!(scanner.push(&bytes), Ok(bytes.len()));
        assert!(scanner.is_end());
    }

    #[test]
    fn lengths_and_signature_are_checked() {
        let check = |bytes: &[u8], expected| {
            assert_eq!(SnapshotScanner::new(BYTES_MAX).push(bytes), Err(expected));
        };
        let mut bytes = vec![0; 8];
        bytes.put_i32(-1);
        check(&bytes, SnapshotStreamError::Length(-1));
        let mut bytes = vec![0; 8];
        bytes.put_i32(BYTES_MAX as i32 + 1);
        check(&bytes, SnapshotStreamError::Length(BYTES_MAX as i32 + 1));
        let mut bytes = vec![0; 8];
        bytes.put_string("/");
        bytes.put_string("BenWasThere");
        check(&bytes, SnapshotStreamError::Signature);
        let mut bytes = vec![0; 8];
        bytes.put_string("/");
        bytes.put_string("BenWasHerE");
        check(&bytes, SnapshotStreamError::Signature);
    }
}
