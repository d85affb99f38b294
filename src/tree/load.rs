//! The tree as a snapshot and a log hold it: loading, and what is put right before serving.

use std::collections::BTreeSet;

use ahash::AHashMap;

use super::effects::Effects;
use super::store::{DataChange, TTL_NODES};
use super::{Tree, TreeSettings};
use crate::types::acl::{Acl, AclList};
use crate::types::ids::SessionId;
use crate::types::path;
use crate::types::stat::{OwnerKind, StatPersisted};
use crate::types::zxid::Zxid;
use crate::wire::txn::{Txn, TxnHeader};

/// One znode of a snapshot. The root has the empty path.
#[derive(Clone, Copy, Debug)]
pub struct LoadedNode<'a> {
    pub path: &'a str,
    pub data: Option<&'a [u8]>,
    /// Into the snapshot's lists; -1 is the open list.
    pub acl: i64,
    pub stat: StatPersisted,
}

/// Every so many replayed txns memory is given back, more records than those txns make.
const TXNS_PER_RECLAIM: usize = 64;
const RECLAIMED_AT_ONCE: usize = 16 * TXNS_PER_RECLAIM;

/// `aclId` of the open list.
const OPEN_ACL: i64 = -1;

/// Fills a tree from a snapshot.
pub struct Loading {
    tree: Tree,
    acls: AHashMap<i64, AclList>,
    /// Znodes whose list the snapshot does not have: a txn behind it sets it right, or nobody may touch them.
    unresolved: Vec<String>,
    owners: Owners,
}

/// Every key that ever owned a znode here. Most znodes have the same as the one before.
#[derive(Default)]
struct Owners {
    keys: BTreeSet<i64>,
    last: Option<i64>,
}

impl Owners {
    fn add(&mut self, key: i64) {
        if self.last != Some(key) {
            self.keys.insert(key);
            self.last = Some(key);
        }
    }
}

impl Loading {
    pub fn new(settings: TreeSettings) -> Loading {
        Loading {
            tree: Tree::empty(settings),
            acls: AHashMap::new(),
            unresolved: Vec::new(),
            owners: Owners::default(),
        }
    }

    pub fn session(&mut self, session: SessionId, timeout_ms: i32) {
        self.tree.store.set_session(session.0, timeout_ms);
    }

    pub fn acl(&mut self, id: i64, list: AclList) {
        self.acls.insert(id, list);
    }

    /// Znodes with these paths are next.
    pub fn warm(&self, paths: &[&str]) {
        self.tree.warm(paths);
    }

    /// Errors: the snapshot is not valid.
    pub fn node(&mut self, node: LoadedNode<'_>) -> Result<(), String> {
        let acl = match self.acls.get(&node.acl) {
            Some(list) => list.clone(),
            None if node.acl == OPEN_ACL => AclList::Open,
            None => {
                self.unresolved.push(node.path.to_owned());
                nobody()
            }
        };
        if node.path.is_empty() {
            self.root(&node, &acl);
            return Ok(());
        }
        let owner = self.tree.owner_key(node.stat.ephemeral_owner);
        if let Some(owner) = owner {
            self.owners.add(owner);
        }
        self.tree
            .store
            .create(node.path, node.data, &acl, &node.stat, owner)
            .map_err(|error| format!("znode {}: {error:?}", node.path))?;
        self.tree.add_digest(node.path);
        Ok(())
    }

    fn root(&mut self, node: &LoadedNode<'_>, acl: &AclList) {
        let stat = node.stat;
        let change = DataChange { mzxid: stat.mzxid, mtime: stat.mtime, version: stat.version };
        self.tree.exchange(path::ROOT, |store| {
            store.set_data(path::ROOT, node.data, change)?;
            store.set_acl(path::ROOT, acl, stat.aversion)?;
            store.set_directory(path::ROOT, stat.pzxid, stat.cversion)
        });
    }

    /// The snapshot is whole: its state is that of `zxid`, and txns behind it can be applied.
    pub fn finish(mut self, zxid: Zxid) -> Loaded {
        self.tree.recount_quotas();
        if zxid > Zxid::ZERO {
            self.tree.begin(zxid);
        }
        let (unresolved, owners) = (self.unresolved, self.owners);
        Loaded { tree: self.tree, publish_upto: None, unresolved, owners, applied: 0 }
    }
}

/// A tree from a snapshot, to which the log's txns are applied.
pub struct Loaded {
    pub tree: Tree,
    /// Versions behind this one are not published: what shards have shown ends here. `None`: nobody was shown anything.
    publish_upto: Option<Zxid>,
    unresolved: Vec<String>,
    owners: Owners,
    /// Txns since memory was last given back.
    applied: usize,
}

/// What was put right, or has to be told, before a recovered tree serves.
#[derive(Debug, Default)]
pub struct Repairs {
    /// Paths whose ACL could not be found anywhere: only a super user gets at them.
    pub without_acl: Vec<String>,
    /// Ephemerals of sessions that nobody knows: deleted, without a txn, as Java does.
    pub orphans: Vec<String>,
}

impl Loaded {
    /// A tree without a history.
    pub fn fresh(settings: TreeSettings) -> Loaded {
        let tree = Tree::fresh(settings);
        Loaded { tree, publish_upto: None, unresolved: Vec::new(), owners: Owners::default(), applied: 0 }
    }

    /// A txn of the log.
    pub fn apply(&mut self, header: &TxnHeader, txn: &Txn<'_>, effects: &mut Effects) {
        if matches!(txn, Txn::Create(_) | Txn::Create2(_) | Txn::CreateTtl { .. } | Txn::Multi(_)) {
            self.owners.add(header.session.0);
        }
        // The newest version stays open: what `finish` puts right becomes part of it.
        if self.publish_upto.is_none_or(|upto| self.tree.head() <= upto) {
            self.tree.publish(self.tree.head());
        }
        let mark = effects.begin();
        self.tree.apply(header, txn, effects);
        effects.take_back(mark);
        self.applied += 1;
        if self.applied.is_multiple_of(TXNS_PER_RECLAIM) {
            self.tree.reclaim(RECLAIMED_AT_ONCE);
        }
    }

    /// Keeps every version behind this one unpublished, so that it can be followed txn by txn.
    pub fn publish_upto(&mut self, zxid: Zxid) {
        self.publish_upto = Some(zxid);
    }

    /// The tree of a snapshot that is a leader's, as it is: what looks odd in it is put right by txns that follow.
    pub fn into_tree(self) -> Tree {
        self.tree
    }

    /// An owner that is a TTL node's while `extendedTypesEnabled` is off: it would be taken for an ephemeral of nobody
    /// and deleted.
    pub fn has_ttl_without_option(&self) -> bool {
        let is_ttl = |owner: &i64| matches!(OwnerKind::of(*owner, true), OwnerKind::Ttl(_));
        !self.tree.settings.extended_types && self.owners.keys.iter().any(is_ttl)
    }

    /// The log is replayed: deletes orphans at the head.
    pub fn finish(mut self) -> (Tree, Repairs) {
        let tree = &self.tree;
        self.unresolved.retain(|path| tree.store.get(path).is_some_and(|node| *node.acl() == nobody()));
        let is_unknown = |owner: &i64| {
            let kind = OwnerKind::of(*owner, tree.settings.extended_types);
            *owner != TTL_NODES && matches!(kind, OwnerKind::Session(_)) && tree.store.session(*owner).is_none()
        };
        let unknown: Vec<i64> = self.owners.keys.iter().copied().filter(is_unknown).collect();
        let orphans: Vec<String> = unknown.into_iter().flat_map(|owner| self.tree.owned_paths(owner)).collect();
        self.tree.delete_unlogged(&orphans);
        (self.tree, Repairs { without_acl: self.unresolved, orphans })
    }
}

/// An ACL that grants nothing: only a super user gets past it.
fn nobody() -> AclList {
    AclList::from_vec(vec![Acl::new(0, "world", "anyone")])
}
