//! From data directory to tree: what storage finds is loaded and replayed here.

use std::fmt;

use crate::storage::recovery::{self, RecoveryError, RecoveryOptions, Replay};
use crate::storage::snapshot::{NodeRecord, SnapshotDigest};
use crate::tree::effects::Effects;
use crate::tree::load::{Loaded, LoadedNode, Loading};
use crate::tree::{Tree, TreeSettings};
use crate::types::acl::AclList;
use crate::types::ids::SessionId;
use crate::types::zxid::Zxid;
use crate::wire::txn::{DIGEST_VERSION, DecodedTxn};
use crate::zab::history::{self, History, HistoryLimits};

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
    /// See [`Loaded::publish_upto`].
    publish_upto: Option<Zxid>,
    /// The end of the log, for a member of an ensemble.
    history: Option<History>,
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
            publish_upto: None,
            history: None,
        }
    }

    /// The same for a member, which also keeps the last txns of the log: others may learn them from it.
    pub fn of_member(settings: TreeSettings) -> TreeReplay {
        let history = Some(History::new(Zxid::ZERO, HistoryLimits::default()));
        TreeReplay { history, ..TreeReplay::new(settings) }
    }

    /// What [`TreeReplay::of_member`] kept. It ends where the tree does.
    pub fn take_history(&mut self) -> Option<History> {
        let last = match &self.stage {
            Stage::Empty => Zxid::ZERO,
            Stage::Loading(_) => self.zxid,
            Stage::Replaying(loaded) => loaded.tree.head(),
        };
        let mut history = self.history.take()?;
        if history.last() != last {
            // The snapshot is newer than everything in the log.
            history.restart(last);
        }
        Some(history)
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
            Stage::Empty => Stage::Replaying(self.loaded(Loaded::fresh(self.settings.clone()))),
            Stage::Loading(loading) => Stage::Replaying(self.loaded(loading.finish(self.zxid))),
            replaying @ Stage::Replaying(_) => replaying,
        };
        match &mut self.stage {
            Stage::Replaying(loaded) => loaded,
            Stage::Empty | Stage::Loading(_) => unreachable!("set just above"),
        }
    }

    fn loaded(&self, mut loaded: Loaded) -> Loaded {
        if let Some(upto) = self.publish_upto {
            loaded.publish_upto(upto);
        }
        loaded
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
        self.zxid = Zxid::ZERO;
    }

    fn passed(&mut self, zxid: Zxid, payload: &[u8]) {
        let Some(history) = &mut self.history else { return };
        let is_behind_snapshot = zxid > self.zxid;
        if is_behind_snapshot && history.last() < self.zxid {
            // The log does not hold what the snapshot ends with.
            history.restart(self.zxid);
        }
        // A new epoch may have begun with a leader's snapshot that took the place of what this log does not hold: only
        // behind the newest snapshot that cannot be.
        let is_known = is_behind_snapshot || zxid.epoch() == history.last().epoch();
        if is_known && history::is_next(history.last(), zxid) {
            history.append(zxid, payload);
            history.forget(zxid);
        } else {
            history.restart(zxid);
        }
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
        if let Some(history) = &mut self.history {
            history.restart(zxid);
        }
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

/// A leader's order to cut the log, on its way to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TruncateJob {
    /// The last txn that stays.
    pub to: Zxid,
    /// What shards have shown; the versions behind it are not to be published yet. `None`: nobody was shown anything.
    pub shown: Option<Zxid>,
}

/// Why a log could not be cut.
#[derive(Debug)]
pub enum TruncateError {
    Recovery(RecoveryError),
    /// The log does not hold the txn that it was to end with.
    NotThere {
        to: Zxid,
        found: Zxid,
    },
}

impl fmt::Display for TruncateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TruncateError::Recovery(error) => error.fmt(f),
            TruncateError::NotThere { to, found } => write!(
                f,
                "the leader ordered the log to end with {to}, which is not in it: it ends with {found} now. Move version-2 \
                 of this member away and let it sync from the others"
            ),
        }
    }
}

impl std::error::Error for TruncateError {}

/// Cuts the log and builds the tree as it was then, anew from the files: what memory knows of the txns that go is not
/// trusted (ZOOKEEPER-5094). Snapshots that are newer go first (ZOOKEEPER-4837). Nobody else writes to the directories
/// meanwhile.
pub fn truncate(options: &RecoveryOptions, settings: &TreeSettings, job: TruncateJob) -> Result<Tree, TruncateError> {
    recovery::truncate_logs(options, job.to).map_err(TruncateError::Recovery)?;
    let mut replay = TreeReplay { publish_upto: job.shown, ..TreeReplay::new(settings.clone()) };
    let recovered = recovery::recover(options, &mut replay).map_err(TruncateError::Recovery)?;
    recovered.notes.iter().for_each(|note| tracing::warn!("{note}"));
    let (loaded, _) = replay.finish();
    let (mut tree, _) = loaded.finish();
    if tree.head() != job.to {
        return Err(TruncateError::NotThere { to: job.to, found: tree.head() });
    }
    if job.shown.is_none_or(|shown| tree.head() <= shown) {
        tree.publish(tree.head());
    }
    Ok(tree)
}

#[cfg(test)]
mod tests;
