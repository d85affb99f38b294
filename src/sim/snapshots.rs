//! A snapshot as bytes, from the version that a job holds.

use std::io;

use crate::server::pipeline::SnapshotJob;
use crate::storage::snapshot::{AclIds, SnapshotDigest, SnapshotEnd, SnapshotWriter};
use crate::types::ids::SessionId;
use crate::types::path;
use crate::wire::txn::TxnDigest;

/// The whole file.
pub fn serialize(job: SnapshotJob) -> io::Result<Vec<u8>> {
    let reader = &job.reader;
    let mut acls = AclIds::default();
    let mut walk = reader.walk();
    while let Some(node) = reader.walk_on(&mut walk) {
        acls.add(node.acl());
    }
    let sessions: Vec<_> = reader.sessions().map(|(id, timeout_ms)| (SessionId(id), timeout_ms)).collect();
    let digest = job.digest.map(|digest| SnapshotDigest { zxid: job.zxid, digest: TxnDigest::new(digest) });
    let mut writer = SnapshotWriter::begin(Vec::new(), sessions.into_iter(), &acls)?;
    let mut walk = reader.walk();
    while let Some(node) = reader.walk_on(&mut walk) {
        let path = if node.path() == path::ROOT { "" } else { node.path() };
        writer.node(path, node.data(), node.acl(), &node.stat())?;
    }
    writer.finish(&SnapshotEnd { digest, last_processed: Some(job.zxid) })
}
