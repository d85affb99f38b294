//! A tree that is plain enough to be believed: what the storage tests replay into.

// Each test crate uses its own share of it.
#![allow(dead_code)]

use std::collections::BTreeMap;

use oxkeeper::storage::recovery::Replay;
use oxkeeper::storage::snapshot::{NodeRecord, SnapshotDigest};
use oxkeeper::types::acl::AclList;
use oxkeeper::types::ids::SessionId;
use oxkeeper::types::path;
use oxkeeper::types::stat::{CONTAINER_OWNER, OwnerKind, StatPersisted};
use oxkeeper::types::zxid::Zxid;
use oxkeeper::wire::txn::{CreateTxn, DecodedTxn, SetDataTxn, Txn, TxnHeader};

#[derive(Clone, PartialEq, Debug, Default)]
pub struct Node {
    pub data: Option<Vec<u8>>,
    pub acl_id: i64,
    pub stat: StatPersisted,
}

/// Sessions and znodes by path, the root as "".
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Model {
    pub sessions: BTreeMap<i64, i32>,
    pub nodes: BTreeMap<String, Node>,
    pub acls: BTreeMap<i64, AclList>,
    pub zxid: Zxid,
    pub applied: Vec<Zxid>,
    /// Txns whose digest is that of the tree after them.
    pub digests_matched: usize,
    /// Set if a digest is not.
    pub mismatch: Option<Zxid>,
    /// Until a fuzzy snapshot has been caught up with, digests say nothing.
    fuzzy_until: Zxid,
}

impl Replay for Model {
    fn reset(&mut self) {
        *self = Model::default();
    }

    fn load_session(&mut self, id: SessionId, timeout_ms: i32) {
        self.sessions.insert(id.0, timeout_ms);
    }

    fn load_acl(&mut self, id: i64, list: AclList) {
        self.acls.insert(id, list);
    }

    fn load_node(&mut self, node: NodeRecord<'_>) -> Result<(), String> {
        if !node.path.is_empty() && !self.nodes.contains_key(parent(&node.path)) {
            return Err(format!("unable to find parent of {}", node.path));
        }
        let data = node.data.map(<[u8]>::to_vec);
        self.nodes.insert(node.path.into_owned(), Node { data, acl_id: node.acl_id, stat: node.stat });
        Ok(())
    }

    fn snapshot_loaded(&mut self, zxid: Zxid, digest: Option<SnapshotDigest>) {
        self.zxid = zxid;
        if let Some(digest) = digest {
            self.fuzzy_until = digest.zxid;
            if digest.zxid == zxid && zxid != Zxid::ZERO {
                assert_eq!(digest.digest.tree_digest, self.digest(), "of snapshot {zxid}");
            }
        }
    }

    fn apply(&mut self, DecodedTxn { header, txn, digest }: DecodedTxn<'_>) -> Result<(), String> {
        if !txn.is_refused() {
            self.apply_txn(&header, &txn);
        }
        self.zxid = header.zxid;
        self.applied.push(header.zxid);
        if let Some(digest) = digest
            && header.zxid >= self.fuzzy_until
        {
            if digest.tree_digest == self.digest() {
                self.digests_matched += 1;
            } else {
                self.mismatch.get_or_insert(header.zxid);
            }
        }
        Ok(())
    }
}

fn parent(path: &str) -> &str {
    match path::split(path) {
        Some((path::ROOT, _)) | None => "",
        Some((parent, _)) => parent,
    }
}

impl Model {
    /// As a server starts without any history.
    pub fn fresh() -> Model {
        let mut model = Model::default();
        for path in ["", "/zookeeper", "/zookeeper/quota"] {
            model.nodes.insert(path.to_owned(), Node { data: Some(vec![]), acl_id: -1, ..Default::default() });
        }
        model
    }

    fn apply_txn(&mut self, header: &TxnHeader, txn: &Txn<'_>) {
        match txn {
            Txn::CreateSession { timeout_ms } => drop(self.sessions.insert(header.session.0, *timeout_ms)),
            Txn::CloseSession { paths } => {
                self.sessions.remove(&header.session.0);
                let mut gone: Vec<String> = paths.iter().flatten().map(|path| path.to_string()).collect();
                let owned = self.nodes.iter().filter(|(_, node)| node.stat.ephemeral_owner == header.session.0);
                gone.extend(owned.map(|(path, _)| path.clone()).collect::<Vec<_>>());
                gone.iter().for_each(|path| self.delete(header, path));
            }
            Txn::Create(create) | Txn::Create2(create) => {
                let CreateTxn { path, data, ephemeral, parent_cversion, .. } = create;
                let owner = if *ephemeral { header.session.0 } else { 0 };
                self.create(header, path, data.as_deref(), owner, *parent_cversion);
            }
            Txn::CreateContainer { path, data, parent_cversion, .. } => {
                self.create(header, path, data.as_deref(), CONTAINER_OWNER, *parent_cversion);
            }
            Txn::CreateTtl { path, data, parent_cversion, ttl_ms, .. } => {
                self.create(header, path, data.as_deref(), OwnerKind::ttl_owner(*ttl_ms), *parent_cversion);
            }
            Txn::Delete { path } | Txn::DeleteContainer { path } => self.delete(header, path),
            Txn::SetData(set) | Txn::Reconfig(set) => {
                let SetDataTxn { path, data, version } = set;
                if let Some(node) = self.nodes.get_mut(path.as_ref()) {
                    node.data = data.as_ref().map(|data| data.to_vec());
                    node.stat.version = *version;
                    (node.stat.mzxid, node.stat.mtime) = (header.zxid, header.time);
                }
            }
            Txn::SetAcl { path, version, .. } => {
                if let Some(node) = self.nodes.get_mut(path.as_ref()) {
                    node.stat.aversion = *version;
                }
            }
            Txn::Multi(txns) => txns.iter().for_each(|txn| self.apply_txn(header, txn)),
            Txn::Check { .. } | Txn::Error { .. } => {}
        }
    }

    fn create(&mut self, header: &TxnHeader, path: &str, data: Option<&[u8]>, owner: i64, parent_cversion: i32) {
        let Some(above) = self.nodes.get_mut(parent(path)) else { return };
        if parent_cversion > above.stat.cversion {
            above.stat.cversion = parent_cversion;
            above.stat.pzxid = header.zxid;
        }
        let (zxid, time) = (header.zxid, header.time);
        let stat = StatPersisted {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime: time,
            mtime: time,
            ephemeral_owner: owner,
            ..Default::default()
        };
        let node = Node { data: data.map(<[u8]>::to_vec), acl_id: 0, stat };
        self.nodes.entry(path.to_owned()).or_insert(node);
    }

    fn delete(&mut self, header: &TxnHeader, path: &str) {
        self.nodes.remove(path);
        if let Some(above) = self.nodes.get_mut(parent(path)) {
            above.stat.pzxid = above.stat.pzxid.max(header.zxid);
        }
    }

    /// The tree's digest, from nothing.
    pub fn digest(&self) -> u64 {
        let counted = self.nodes.iter().filter(|(path, _)| !path.starts_with("/zookeeper/"));
        counted.map(|(path, node)| node_digest(path, node)).fold(0, u64::wrapping_add)
    }

    pub fn children(&self, path: &str) -> i32 {
        self.nodes.keys().filter(|other| !other.is_empty() && parent(other) == path).count() as i32
    }
}

fn node_digest(path: &str, node: &Node) -> u64 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(path.as_bytes());
    crc.update(node.data.as_deref().unwrap_or_default());
    let stat = &node.stat;
    for field in [stat.czxid.as_i64(), stat.mzxid.as_i64(), stat.pzxid.as_i64(), stat.ctime.0, stat.mtime.0] {
        crc.update(&field.to_be_bytes());
    }
    for field in [stat.version, stat.cversion, stat.aversion] {
        crc.update(&field.to_be_bytes());
    }
    crc.update(&stat.ephemeral_owner.to_be_bytes());
    u64::from(crc.finalize())
}
