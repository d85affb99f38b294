//! A member's files: what it learns from them about its history, and what a leader's orders make of them.

use super::*;
use crate::server::bench::{create, tree_settings};
use crate::storage::files::{self, DataDirs};
use crate::storage::log_file::{EntryWriter, FILE_HEADER};
use crate::storage::snapshot::{AclIds, SnapshotEnd, SnapshotWriter};
use crate::storage::snapshot_file;
use crate::types::compression::Compression;
use crate::types::path;
use crate::wire::txn::{self, TxnHeader};

/// Txns 1 to 5 of epoch 1 and 1 to 3 of epoch 2, in a file each, behind `snapshot.0`.
struct Dir {
    _dir: tempfile::TempDir,
    dirs: DataDirs,
}

fn zxids(epoch: u32, counters: std::ops::RangeInclusive<u32>) -> Vec<Zxid> {
    counters.map(|counter| Zxid::new(epoch, counter)).collect()
}

impl Dir {
    fn new() -> Dir {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
        let dirs = DataDirs::new(dir.path(), None);
        dirs.prepare(true).expect("directories");
        let dir = Dir { _dir: dir, dirs };
        dir.put_snapshot(&Tree::fresh(tree_settings()));
        for zxids in [zxids(1, 1..=5), zxids(2, 1..=3)] {
            dir.put_log(&zxids);
        }
        dir
    }

    fn put_log(&self, zxids: &[Zxid]) {
        let mut bytes = FILE_HEADER.to_vec();
        for zxid in zxids {
            EntryWriter::default()
                .append(&mut bytes, |out| out.extend_from_slice(&payload(*zxid)))
                .expect("it is short");
        }
        std::fs::write(self.dirs.logs().join(files::log_file_name(zxids[0])), bytes).expect("a log");
    }

    fn put_snapshot(&self, tree: &Tree) {
        let reader = tree.reader().expect("the only reader");
        let mut acls = AclIds::default();
        let mut walk = reader.walk();
        while let Some(node) = reader.walk_on(&mut walk) {
            acls.add(node.acl());
        }
        let sessions: Vec<_> = tree.sessions().collect();
        snapshot_file::write(&self.dirs.snapshots(), tree.published(), Compression::None, |sink| {
            let mut writer = SnapshotWriter::begin(sink, sessions.into_iter(), &acls)?;
            let mut walk = reader.walk();
            while let Some(node) = reader.walk_on(&mut walk) {
                let path = if node.path() == path::ROOT { "" } else { node.path() };
                writer.node(path, node.data(), node.acl(), &node.stat())?;
            }
            writer.finish(&SnapshotEnd::default())
        })
        .expect("a snapshot");
    }

    fn options(&self) -> RecoveryOptions {
        RecoveryOptions::new(self.dirs.clone())
    }

    fn recover(&self) -> (Tree, History) {
        let mut replay = TreeReplay::of_member(tree_settings());
        recovery::recover(&self.options(), &mut replay).unwrap_or_else(|error| panic!("{error}"));
        let history = replay.take_history().expect("kept for a member");
        let (mut tree, _) = replay.finish().0.finish();
        tree.publish(tree.head());
        (tree, history)
    }

    fn truncate(&self, to: Zxid, shown: Option<Zxid>) -> Result<Tree, TruncateError> {
        truncate(&self.options(), &tree_settings(), TruncateJob { to, shown })
    }

    fn names(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.dirs.logs()).expect("a directory");
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn payload(zxid: Zxid) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = TxnHeader { zxid, ..TxnHeader::default() };
    txn::encode(&header, &create(&format!("/n{zxid}")), None, &mut bytes);
    bytes
}

#[test]
fn a_member_keeps_the_end_of_its_log_for_others() {
    let dir = Dir::new();
    let (tree, history) = dir.recover();
    assert_eq!((tree.head(), history.last()), (Zxid::new(2, 3), Zxid::new(2, 3)));
    assert_eq!(history.before(), Zxid::ZERO);
    let kept: Vec<Zxid> = history.after(history.before()).map(|(zxid, _)| zxid).collect();
    assert_eq!(kept, [zxids(1, 1..=5), zxids(2, 1..=3)].concat());
    assert_eq!(history.txn(Zxid::new(2, 1)), Some(payload(Zxid::new(2, 1)).as_slice()));
}

#[test]
fn a_history_goes_on_behind_a_snapshot_that_is_newer_than_the_log() {
    let dir = Dir::new();
    let (mut tree, _) = dir.recover();
    let mut effects = Effects::default();
    effects.begin();
    tree.apply(&TxnHeader { zxid: Zxid::new(4, 1), ..TxnHeader::default() }, &create("/x"), &mut effects);
    tree.publish(tree.head());
    dir.put_snapshot(&tree);
    let (tree, history) = dir.recover();
    assert_eq!((tree.head(), history.last(), history.len()), (Zxid::new(4, 1), Zxid::new(4, 1), 0));
}

/// A leader's snapshot may have taken the place of txns that this log never held, and an epoch begins at 1 all the same.
#[test]
fn no_history_is_made_up_where_a_snapshot_stands_between() {
    let dir = Dir::new();
    let (mut tree, _) = dir.recover();
    let mut effects = Effects::default();
    let mut snapshot_at = |zxid: Zxid| {
        effects.begin();
        tree.apply(&TxnHeader { zxid, ..TxnHeader::default() }, &create(&format!("/s{zxid}")), &mut effects);
        tree.publish(zxid);
        dir.put_snapshot(&tree);
    };
    // Behind the newest snapshot every txn is this server's own.
    snapshot_at(Zxid::new(2, 9));
    dir.put_log(&zxids(3, 1..=2));
    let (_, history) = dir.recover();
    assert_eq!((history.before(), history.len()), (Zxid::new(2, 9), 2));
    // Before it, what lies between two epochs is not known.
    snapshot_at(Zxid::new(3, 3));
    dir.put_log(&zxids(3, 3..=4));
    let (_, history) = dir.recover();
    assert_eq!((history.before(), history.last()), (Zxid::new(3, 3), Zxid::new(3, 4)));
}

#[test]
fn a_cut_takes_log_and_newer_snapshots_and_gives_the_tree_as_it_was() {
    for to in [Zxid::new(1, 3), Zxid::new(1, 5), Zxid::new(2, 1)] {
        let dir = Dir::new();
        let (newer, _) = dir.recover();
        dir.put_snapshot(&newer);
        let tree = dir.truncate(to, None).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((tree.head(), tree.published()), (to, to));
        let logs = if to.epoch() == 1 { vec!["log.100000001"] } else { vec!["log.100000001", "log.200000001"] };
        assert_eq!(dir.names(), [logs, vec!["snapshot.0"]].concat());
        let (again, history) = dir.recover();
        assert_eq!((again.head(), again.digest(), history.last()), (to, tree.digest(), to));
    }
}

#[test]
fn what_shards_have_not_shown_stays_unpublished_in_the_tree_that_is_cut() {
    let dir = Dir::new();
    let shown = Zxid::new(1, 2);
    let mut tree = dir.truncate(Zxid::new(1, 4), Some(shown)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((tree.head(), tree.published()), (Zxid::new(1, 4), shown));
    let mut reader = tree.reader().expect("the first reader");
    assert!(reader.get("/n0x100000002").is_some() && reader.get("/n0x100000003").is_none());
    tree.publish(Zxid::new(1, 3));
    reader.adopt(crate::tree::version_of(Zxid::new(1, 3)));
    assert!(reader.get("/n0x100000003").is_some() && reader.get("/n0x100000004").is_none());
}

#[test]
fn a_cut_behind_a_txn_that_is_not_there_is_refused() {
    let dir = Dir::new();
    let Err(TruncateError::NotThere { to, found }) = dir.truncate(Zxid::new(1, 9), None) else { panic!() };
    assert_eq!((to, found), (Zxid::new(1, 9), Zxid::new(1, 5)));
}
