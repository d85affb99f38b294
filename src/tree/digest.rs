//! The tree digest (`DigestCalculator`, version 2): it tells whether two servers hold the same tree.
//!
//! ```text
//! node   CRC-32 over path, data, then 60 bytes:
//!        [czxid:i64][mzxid:i64][pzxid:i64][ctime:i64][mtime:i64][version:i32][cversion:i32][aversion:i32][owner:i64]
//! tree   sum of the node digests modulo 2^64; the root counts with the empty path, `/zookeeper/…` not at all
//! ```

use crc32fast::Hasher;

use crate::types::path;
use crate::types::stat::StatPersisted;
use crate::wire::jute::Write;

/// Digest of one znode. `prefix_crc` is the CRC-32 of path and data, which the store keeps; `cversion` is the internal counter.
pub fn node_digest(prefix_crc: u32, stat: &StatPersisted) -> u64 {
    let mut fields = Fields { bytes: [0; 60], at: 0 };
    fields.put_zxid(stat.czxid);
    fields.put_zxid(stat.mzxid);
    fields.put_zxid(stat.pzxid);
    fields.put_i64(stat.ctime.0);
    fields.put_i64(stat.mtime.0);
    fields.put_i32(stat.version);
    fields.put_i32(stat.cversion);
    fields.put_i32(stat.aversion);
    fields.put_i64(stat.ephemeral_owner);
    let mut hasher = Hasher::new_with_initial(prefix_crc);
    hasher.update(&fields.bytes);
    u64::from(hasher.finalize())
}

/// Whether a znode counts: quota and configuration differ between servers that hold the same tree.
pub fn is_digested(path: &str) -> bool {
    !path.strip_prefix(path::ZOOKEEPER).is_some_and(|rest| rest.starts_with('/'))
}

/// Exactly the 60 bytes of the fixed fields, without a heap block.
struct Fields {
    bytes: [u8; 60],
    at: usize,
}

impl Write for Fields {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_tree_has_javas_digest() {
        let zero = StatPersisted::default();
        let root = node_digest(0, &zero);
        let zookeeper = node_digest(crc32fast::hash(b"/zookeeper"), &zero);
        assert_eq!(root.wrapping_add(zookeeper), 1371985504);
        assert!(is_digested("/zookeeper") && is_digested("/zookeeperx"));
        assert!(!is_digested("/zookeeper/quota"));
    }
}
