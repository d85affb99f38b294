//! From data directory to tree: what storage finds is loaded and replayed here.

use crate::storage::recovery::Replay;
use crate::storage::snapshot::{NodeRecord, SnapshotDigest};
use crate::tree::TreeSettings;
use crate::tree::effects::Effects;
use crate::tree::load::{Loaded, LoadedNode, Loading};
use crate::types::acl::AclList;
use crate::types::ids::SessionId;
use crate::types::zxid::Zxid;
use crate::wire::txn::{DIGEST_VERSION, DecodedTxn};

/// How far a recovery is.
enum Stage {
    /// Not even a snapshot: a fresh tree, if it comes to that.
    Empty,
    Loading(Loading),
    Replaying(Loaded),
}

/// Takes what storage reads and makes a tree of it.
pub struct TreeReplay {
    settings: TreeSettings,
    stage: Stage,
    effects: Effects,
    /// Of the snapshot that was loaded.
    zxid: Zxid,
    /// Digests are compared behind this zxid: a fuzzy snapshot has its own only there.
    compared_from: Option<Zxid>,
    mismatches: u64,
}

impl TreeReplay {
    pub fn new(settings: TreeSettings) -> TreeReplay {
        TreeReplay {
            settings,
            stage: Stage::Empty,
            effects: Effects::default(),
            zxid: Zxid::ZERO,
            compared_from: None,
            mismatches: 0,
        }
    }

    /// What was recovered, and how many txns did not lead to the digest that their writer had.
    pub fn finish(self) -> (Loaded, u64) {
        let loaded = match self.stage {
            Stage::Empty => Loaded::fresh(self.settings),
            Stage::Loading(loading) => loading.finish(self.zxid),
            Stage::Replaying(loaded) => loaded,
        };
        (loaded, self.mismatches)
    }

    fn loading(&mut self) -> &mut Loading {
        if !matches!(self.stage, Stage::Loading(_)) {
            self.stage = Stage::Loading(Loading::new(self.settings.clone()));
        }
        match &mut self.stage {
            Stage::Loading(loading) => loading,
            Stage::Empty | Stage::Replaying(_) => unreachable!("set just above"),
        }
    }

    fn replaying(&mut self) -> &mut Loaded {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Empty) {
            Stage::Empty => Stage::Replaying(Loaded::fresh(self.settings.clone())),
            Stage::Loading(loading) => Stage::Replaying(loading.finish(self.zxid)),
            replaying @ Stage::Replaying(_) => replaying,
        };
        match &mut self.stage {
            Stage::Replaying(loaded) => loaded,
            Stage::Empty | Stage::Loading(_) => unreachable!("set just above"),
        }
    }

    fn compare(&mut self, zxid: Zxid, digest: u64, expected: u64) {
        if digest != expected {
            if self.mismatches == 0 {
                tracing::warn!(%zxid, digest, expected, "the tree's digest differs from the one in the log");
            }
            self.mismatches += 1;
        }
    }
}

impl Replay for TreeReplay {
    fn reset(&mut self) {
        self.stage = Stage::Empty;
        self.compared_from = None;
    }

    fn load_session(&mut self, id: SessionId, timeout_ms: i32) {
        self.loading().session(id, timeout_ms);
    }

    fn load_acl(&mut self, id: i64, list: AclList) {
        self.loading().acl(id, list);
    }

    fn load_node(&mut self, node: NodeRecord<'_>) -> Result<(), String> {
        let loaded = LoadedNode { path: &node.path, data: node.data, acl: node.acl_id, stat: node.stat };
        self.loading().node(loaded)
    }

    fn warm(&mut self, paths: &[&str]) {
        match &self.stage {
            Stage::Empty => {}
            Stage::Loading(loading) => loading.warm(paths),
            Stage::Replaying(loaded) => loaded.tree.warm(paths),
        }
    }

    fn snapshot_loaded(&mut self, zxid: Zxid, digest: Option<SnapshotDigest>) {
        self.loading();
        self.zxid = zxid;
        let digest = digest.filter(|digest| digest.digest.version == DIGEST_VERSION);
        self.compared_from = digest.map(|digest| digest.zxid.max(zxid));
        let loaded = self.replaying();
        let (tree_digest, is_digesting) = (loaded.tree.digest(), loaded.tree.settings().digest_enabled);
        if let Some(digest) = digest.filter(|digest| digest.zxid == zxid && is_digesting) {
            self.compare(zxid, tree_digest, digest.digest.tree_digest);
        }
    }

    fn apply(&mut self, txn: DecodedTxn<'_>) -> Result<(), String> {
        let zxid = txn.header.zxid;
        let mut effects = std::mem::take(&mut self.effects);
        let loaded = self.replaying();
        loaded.apply(&txn.header, &txn.txn, &mut effects);
        let digest = loaded.tree.digest();
        let is_digesting = loaded.tree.settings().digest_enabled;
        self.effects = effects;
        if is_digesting
            && let Some(expected) = txn.digest.filter(|expected| expected.version == DIGEST_VERSION)
            && self.compared_from.is_none_or(|from| zxid > from)
        {
            self.compare(zxid, digest, expected.tree_digest);
        }
        Ok(())
    }
}
