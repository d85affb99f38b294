//! What the directories hold when a server starts: a tree; and for a member of an ensemble the end of its log and its promises.

use crate::server::pipeline::{SnapshotJob, in_flight_bytes_max};
use crate::server::recovery::TreeReplay;
use crate::storage::epochs::{self, Epochs};
use crate::storage::files::DirLocks;
use crate::storage::recovery::{RecoveredState, RecoveryOptions, recover};
use crate::tree::Tree;
use crate::types::zxid::Zxid;
use crate::zab::history::History;

use super::run::{ServerError, ServerSettings};

pub struct Recovered {
    pub tree: Tree,
    pub member: Option<RecoveredMember>,
}

/// What a member knows besides.
pub struct RecoveredMember {
    /// Ends where the tree does.
    pub history: History,
    pub epochs: Epochs,
    /// Of the newest snapshot: everything up to here is decided.
    pub committed: Zxid,
    /// False: there is nothing, and nobody has said that there may be.
    pub is_trusted: bool,
}

/// Makes what may be made, and keeps everybody else out.
pub fn open_directories(settings: &ServerSettings) -> Result<DirLocks, ServerError> {
    settings.dirs.prepare(settings.datadir_autocreate).map_err(|error| ServerError::Recovery(error.into()))?;
    settings.dirs.lock().map_err(|error| ServerError::Recovery(error.into()))
}

/// How this server reads, and cuts, its own files.
pub fn options(settings: &ServerSettings) -> RecoveryOptions {
    RecoveryOptions {
        trust_empty_snapshot: settings.trust_empty_snapshot,
        db_autocreate: settings.db_autocreate,
        payload_bytes_max: settings.zab.entry_bytes_max,
        in_flight_bytes_max: in_flight_bytes_max(settings.zab.entry_bytes_max) as u64,
        ..RecoveryOptions::new(settings.dirs.clone())
    }
}

/// The newest state that the directories hold. Of an ensemble of one all of it is committed: there is nobody else to ask.
pub fn recover_state(settings: &ServerSettings) -> Result<Recovered, ServerError> {
    let marked = settings.dirs.take_initialize_marker();
    let marked = marked.map_err(|error| ServerError::Io { doing: "the marker file initialize".to_owned(), error })?;
    let mut options = options(settings);
    options.db_autocreate |= marked;
    let is_member = settings.member.is_some();
    let tree_settings = settings.tree.clone();
    let mut replay = if is_member { TreeReplay::of_member(tree_settings) } else { TreeReplay::new(tree_settings) };
    let recovered = recover(&options, &mut replay).map_err(ServerError::Recovery)?;
    recovered.notes.iter().for_each(|note| tracing::warn!("{note}"));
    let history = replay.take_history();
    let mut tree = finish(replay)?;
    tree.publish(tree.head());
    let (is_trusted, committed) = match &recovered.state {
        RecoveredState::Empty { trusted } => (*trusted, Zxid::ZERO),
        RecoveredState::Loaded { snapshot, .. } => (true, snapshot.as_ref().map_or(Zxid::ZERO, |file| file.zxid)),
    };
    if let RecoveredState::Empty { .. } = recovered.state {
        match is_trusted {
            // A log without a snapshot would be refused, by us and by Java: this one is there before the first txn.
            true => write_first_snapshot(settings, &tree)?,
            false if is_member => {
                tracing::warn!("the database is empty and not trusted: this member waits for a leader to fill it")
            }
            false => return Err(ServerError::Fatal(NOT_TRUSTED.to_owned().into())),
        }
    }
    let Some(history) = history else { return Ok(Recovered { tree, member: None }) };
    let last = is_trusted.then(|| tree.head());
    let epochs = epochs::load(&settings.dirs.snapshots(), last).map_err(ServerError::Epochs)?;
    let member = RecoveredMember { history, epochs, committed: committed.min(tree.head()), is_trusted };
    Ok(Recovered { tree, member: Some(member) })
}

const NOT_TRUSTED: &str = "the database is empty, db.autocreate is false and there is no file `initialize` beside version-2: this \
                           server does not start from nothing. Create the file if it is meant to";

fn finish(replay: TreeReplay) -> Result<Tree, ServerError> {
    let (loaded, mismatches) = replay.finish();
    if mismatches > 0 {
        tracing::warn!(mismatches, "txns did not lead to the digest that their writer had");
    }
    if loaded.has_ttl_without_option() {
        return Err(ServerError::TtlWithoutOption);
    }
    let (tree, repairs) = loaded.finish();
    for path in &repairs.without_acl {
        tracing::error!(path, "this znode's ACL is not in the data directory: only a super user can reach it");
    }
    for path in &repairs.orphans {
        tracing::warn!(path, "ephemeral of an unknown session deleted");
    }
    Ok(tree)
}

fn write_first_snapshot(settings: &ServerSettings, tree: &Tree) -> Result<(), ServerError> {
    let mut reader = tree.reader().expect("nobody else reads yet");
    reader.hold();
    let job =
        SnapshotJob { reader, zxid: tree.head(), digest: tree.settings().digest_enabled.then_some(tree.digest()) };
    let written = super::snapshot_writer::write(&settings.snapshots, job);
    written.map(|_| ()).map_err(|error| ServerError::Io { doing: "writing the first snapshot".to_owned(), error })
}
