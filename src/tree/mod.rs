//! The replicated state: znodes, sessions, and what a txn does to them.
//! Never: IO, clocks, or a word to a client.
//! Owner: the zab core writes; every shard reads versions that the zab core has published.
//! Start at `apply.rs` (txn → change), then `prepare.rs` (request → txn).

pub mod access;
pub mod apply;
pub mod containers;
pub mod digest;
pub mod effects;
pub mod load;
pub mod prepare;
pub mod publication;
pub mod quota;
pub mod quotas;
pub mod store;

use access::AccessSettings;
use store::{Counts, Reader, TTL_NODES, Writer};

use crate::types::acl::{Acl, AclList, perms};
use crate::types::ids::SessionId;
use crate::types::path;
use crate::types::stat::{CONTAINER_OWNER, OwnerKind, StatPersisted};
use crate::types::zxid::Zxid;

/// The store counts versions from 1, zxids start at 0.
pub fn version_of(zxid: Zxid) -> u64 {
    zxid.0 + 1
}

/// The zxid whose effect a version of the store shows.
pub fn zxid_of(version: u64) -> Zxid {
    Zxid(version.saturating_sub(1))
}

/// What of the configuration decides about the tree. The same on every server of an ensemble.
#[derive(Clone, Debug)]
pub struct TreeSettings {
    /// `extendedTypesEnabled`: TTL nodes.
    pub extended_types: bool,
    /// `digest.enabled`.
    pub digest_enabled: bool,
    /// `closeSessionTxn.enabled`.
    pub close_session_txn: bool,
    /// `enforceQuota`.
    pub enforce_quota: bool,
    /// `reconfigEnabled`.
    pub reconfig_enabled: bool,
    pub access: AccessSettings,
}

/// The writer's side of the replicated state: its head is the end of the log.
pub struct Tree {
    store: Writer,
    settings: TreeSettings,
    /// Digest of the head.
    digest: u64,
    /// Zxid of the head.
    head: Zxid,
    /// The head before the open version, to go back to.
    before: Before,
    /// While a multi is prepared: quota roots whose usage its parts have changed, with the usage before it.
    usage_before_multi: Vec<(String, quota::QuotaUsage)>,
    is_in_multi: bool,
}

/// What `undo` restores beside the store.
#[derive(Clone, Copy)]
struct Before {
    head: Zxid,
    digest: u64,
}

impl Tree {
    /// The tree of a fresh data directory, at zxid 0.
    pub fn fresh(settings: TreeSettings) -> Tree {
        let mut tree = Tree::empty(settings);
        let read_only = AclList::from_vec(vec![Acl::new(perms::READ, "world", "anyone")]);
        let zero = StatPersisted::default();
        for (path, acl, aversion) in
            [(path::ZOOKEEPER, &AclList::Open, 0), (path::QUOTA, &AclList::Open, 0), (path::CONFIG, &read_only, -1)]
        {
            tree.insert(path, Some(b""), acl, &StatPersisted { aversion, ..zero });
        }
        tree.publish(Zxid::ZERO);
        tree
    }

    /// Only the root, open for what a snapshot holds.
    fn empty(settings: TreeSettings) -> Tree {
        let mut store = Writer::new();
        store.begin(version_of(Zxid::ZERO));
        let digest = store.get(path::ROOT).map_or(0, |root| digest::node_digest(root.prefix_crc(), &root.stat()));
        Tree {
            store,
            settings,
            digest,
            head: Zxid::ZERO,
            before: Before { head: Zxid::ZERO, digest },
            usage_before_multi: Vec::new(),
            is_in_multi: false,
        }
    }

    /// Zxid of the newest version: the end of the log.
    pub fn head(&self) -> Zxid {
        self.head
    }

    /// Digest of the head.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    pub fn settings(&self) -> &TreeSettings {
        &self.settings
    }

    /// What the head holds.
    pub fn counts(&self) -> Counts {
        self.store.counts()
    }

    /// Opens the next version.
    fn begin(&mut self, zxid: Zxid) {
        self.before = Before { head: self.head, digest: self.digest };
        self.store.begin(version_of(zxid));
        self.head = zxid;
    }

    /// Takes back the open version; its zxid may be used again.
    pub fn undo(&mut self) {
        self.store.abandon();
        (self.head, self.digest) = (self.before.head, self.before.digest);
    }

    /// Readers may adopt every version up to `zxid`.
    pub fn publish(&mut self, zxid: Zxid) {
        self.store.publish(version_of(zxid));
    }

    /// The newest version that readers may adopt.
    pub fn published(&self) -> Zxid {
        zxid_of(self.store.published())
    }

    /// The newest version that every reader has reached, those that hold on to one left out.
    pub fn adopted_by_all(&self) -> Zxid {
        zxid_of(self.store.adopted_by_all())
    }

    /// Frees what no reader can see any more, at most `budget` records; whether there is more.
    pub fn reclaim(&mut self, budget: usize) -> bool {
        self.store.reclaim(budget) > 0
    }

    /// Fetches what requests for these paths will need from memory, all at once: one after the other they would wait for
    /// each.
    pub fn warm(&self, paths: &[&str]) {
        self.store.warm(paths);
    }

    /// Another reader, for a shard or a snapshot, at the published version. `None`: there are too many.
    pub fn reader(&self) -> Option<Reader> {
        self.store.reader()
    }

    /// Sessions of the head with their timeouts in ms.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, i32)> + '_ {
        self.store.sessions(0).map(|(id, timeout_ms)| (SessionId(id), timeout_ms))
    }

    /// Full paths of what a session owns, in the order of their creation.
    pub fn owned_paths(&self, session: i64) -> Vec<String> {
        self.store.owned(session, 0).map(str::to_owned).collect()
    }

    /// Under which owner a znode is listed: its session, all containers, all TTL nodes, or none.
    fn owner_key(&self, owner: i64) -> Option<i64> {
        match OwnerKind::of(owner, self.settings.extended_types) {
            OwnerKind::None => None,
            OwnerKind::Session(session) => Some(session),
            OwnerKind::Container => Some(CONTAINER_OWNER),
            OwnerKind::Ttl(_) => Some(TTL_NODES),
        }
    }
}
