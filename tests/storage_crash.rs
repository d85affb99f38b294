//! What recovery makes of files that a crash, a power cut or a bad disk has left: every prefix, every torn sector.

mod storage_model;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use oxkeeper::storage::files::{self, DataDirs};
use oxkeeper::storage::log::{FileId, Input, Log, LogConfig, Output, WriteId};
use oxkeeper::storage::log_file::{EntryWriter, FILE_HEADER, Why};
use oxkeeper::storage::recovery::{
    Note, Recovered, RecoveredState, RecoveryError, RecoveryOptions, recover, truncate_logs,
};
use oxkeeper::storage::snapshot::{AclIds, SnapshotEnd, SnapshotWriter};
use oxkeeper::storage::snapshot_file;
use oxkeeper::types::acl::AclList;
use oxkeeper::types::compression::Compression;
use oxkeeper::types::ids::SessionId;
use oxkeeper::types::time::{Time, WallTime};
use oxkeeper::types::zxid::Zxid;
use oxkeeper::wire::txn::{CreateTxn, Txn, TxnHeader, encode, txn_type};
use proptest::prelude::*;
use storage_model::{Model, Node};

const SECTOR: usize = 512;

/// A directory with `snapshot.0` of a fresh tree.
struct Dir {
    _dir: tempfile::TempDir,
    dirs: DataDirs,
}

impl Dir {
    fn new() -> Dir {
        // In memory where there is such a place: recovery makes each cut durable, and here it cuts a thousand times.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let dirs = DataDirs::new(dir.path(), None);
        dirs.prepare(true).unwrap();
        let dir = Dir { _dir: dir, dirs };
        dir.put("snapshot.0", &snapshot(&Model::fresh(), 0));
        dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dirs.logs().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    fn options(&self) -> RecoveryOptions {
        RecoveryOptions::new(self.dirs.clone())
    }

    fn recover(&self) -> Result<(Recovered, Model), RecoveryError> {
        let mut model = Model::default();
        Ok((recover(&self.options(), &mut model)?, model))
    }

    /// Recovers and expects exactly the txns up to here.
    fn check(&self, last: u64) -> Vec<Note> {
        let (recovered, model) = self.recover().unwrap_or_else(|error| panic!("{error}"));
        let RecoveredState::Loaded { zxid, .. } = recovered.state else { panic!("{recovered:?}") };
        assert_eq!(zxid, Zxid(last));
        assert_eq!(model.zxid, Zxid(last));
        assert!(model.nodes.len() as u64 == 3 + last, "{} nodes at {last}", model.nodes.len());
        recovered.notes
    }

    fn refused(&self) -> RecoveryError {
        match self.recover() {
            Ok((recovered, _)) => panic!("{recovered:?}"),
            Err(error) => error,
        }
    }
}

fn entry(zxid: u64, data: &[u8]) -> Vec<u8> {
    let path = format!("/n{zxid}").into();
    let header =
        TxnHeader { session: SessionId(7), cxid: zxid as i32, zxid: Zxid(zxid), time: WallTime(1_795_275_850_050) };
    let create = CreateTxn {
        path,
        data: Some(data.into()),
        acl: AclList::Open,
        ephemeral: false,
        parent_cversion: zxid as i32 + 1,
    };
    let mut out = Vec::new();
    EntryWriter::default().append(&mut out, |out| encode(&header, &Txn::Create(create), None, out)).unwrap();
    out
}

/// Data without a zero in it, so that a zero is a hole.
fn data(zxid: u64, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (zxid as usize * 7 + i) as u8 | 1).collect()
}

/// A log and where its entries end.
fn log(zxids: std::ops::RangeInclusive<u64>, data_bytes: impl Fn(u64) -> usize) -> (Vec<u8>, Vec<(u64, usize)>) {
    let mut bytes = FILE_HEADER.to_vec();
    let mut ends = Vec::new();
    for zxid in zxids {
        bytes.extend(entry(zxid, &data(zxid, data_bytes(zxid))));
        ends.push((zxid, bytes.len()));
    }
    (bytes, ends)
}

/// The last txn that is whole in the first `len` bytes.
fn last_whole(ends: &[(u64, usize)], len: usize) -> u64 {
    ends.iter().rev().find(|(_, end)| *end <= len).map_or(0, |(zxid, _)| *zxid)
}

fn snapshot(model: &Model, end: u64) -> Vec<u8> {
    let ids = AclIds::default();
    let sessions = model.sessions.iter().map(|(id, timeout_ms)| (SessionId(*id), *timeout_ms));
    let mut writer = SnapshotWriter::begin(Vec::new(), sessions, &ids).unwrap();
    for (path, Node { data, stat, .. }) in &model.nodes {
        writer.node(path, data.as_deref(), &AclList::Open, stat).unwrap();
    }
    writer.finish(&SnapshotEnd { digest: None, last_processed: Some(Zxid(end)) }).unwrap()
}

#[test]
fn every_prefix_of_the_last_log_keeps_exactly_the_whole_entries() {
    let dir = Dir::new();
    let (bytes, ends) = log(1..=5, |_| 20);
    for len in 16..=bytes.len() {
        let expected = last_whole(&ends, len);
        let is_whole = len == 16 || ends.iter().any(|(_, end)| *end == len);
        for zeros in [0, 5000] {
            let mut cut = bytes[..len].to_vec();
            cut.resize(len + zeros, 0);
            dir.put("log.1", &cut);
            let notes = dir.check(expected);
            if is_whole && expected > 0 {
                assert_eq!(notes, [], "{len}");
            }
            if expected == 0 {
                assert!(!dir.path("log.1").exists());
            } else {
                let end = ends[expected as usize - 1].1;
                assert_eq!(dir.read("log.1"), bytes[..end], "{len}");
                assert_eq!(dir.check(expected), []);
            }
        }
    }
}

#[test]
fn an_entry_of_which_any_sector_was_not_written_is_cut() {
    let dir = Dir::new();
    let (bytes, ends) = log(1..=4, |zxid| if zxid == 3 { 5000 } else { 30 });
    let (start, end) = (ends[1].1, ends[2].1);
    for sector in start / SECTOR..=(end - 1) / SECTOR {
        // A sector is lost as a whole or, where it had been written before, from the end of what was there.
        let from = (sector * SECTOR).max(start);
        let to = ((sector + 1) * SECTOR).min(bytes.len());
        let mut torn = bytes.clone();
        torn[from..to].fill(0);
        torn.resize(32 << 10, 0);
        dir.put("log.1", &torn);
        let notes = dir.check(2);
        assert!(matches!(notes[..], [Note::TornTail { offset, .. }] if offset == start as u64), "{sector}: {notes:?}");
        assert_eq!(dir.read("log.1").len(), start);
    }
}

#[test]
fn whole_entries_behind_a_hole_are_cut_with_it() {
    let dir = Dir::new();
    let (bytes, ends) = log(1..=40, |_| 300);
    let hole = 8 * SECTOR;
    let mut torn = bytes.clone();
    torn[hole..hole + 4096].fill(0);
    torn.resize(64 << 10, 0);
    dir.put("log.1", &torn);
    let last = last_whole(&ends, hole);
    let notes = dir.check(last);
    let Note::TornTail { bytes: cut, offset, .. } = notes[0].clone() else { panic!("{notes:?}") };
    assert_eq!(offset + cut, bytes.len() as u64);
    assert!(notes[0].to_string().contains("never finished"), "{}", notes[0]);
}

#[test]
fn a_hole_further_from_the_end_than_writes_can_be_in_flight_is_rot() {
    let dir = Dir::new();
    let (mut bytes, ends) = log(1..=40, |_| 300);
    let hole = 8 * SECTOR;
    bytes[hole..hole + 4096].fill(0);
    dir.put("log.1", &bytes);
    let options = RecoveryOptions { in_flight_bytes_max: 4096, ..dir.options() };
    let error = recover(&options, &mut Model::default()).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let last = last_whole(&ends, hole);
    let text = error.to_string();
    assert!(text.contains("log.1") && text.contains(&format!("zxid 0x{last:x}:")), "{text}");
    assert!(text.contains(&format!("offset {}", ends[last as usize - 1].1)), "{text}");
    // It is refused, not changed.
    assert_eq!(dir.read("log.1"), bytes);
}

#[test]
fn a_flipped_bit_in_a_payload_is_refused_with_file_offset_and_zxid() {
    let dir = Dir::new();
    let (bytes, ends) = log(1..=5, |_| 600);
    for (entry, start) in [(2_u64, ends[1].1), (4, ends[3].1)] {
        for at in (start + 12..start + 640).step_by(37) {
            let mut rotten = bytes.clone();
            rotten[at] ^= 0x10;
            dir.put("log.1", &rotten);
            let error = dir.refused();
            let RecoveryError::Damaged { stop, last, .. } = &error else { panic!("{error}") };
            assert_eq!((stop.offset, stop.why, *last), (start as u64, Why::Checksum, Zxid(entry)));
            assert!(error.to_string().contains("CRC check failed"), "{error}");
        }
    }
}

#[test]
fn no_flipped_bit_anywhere_loses_an_entry_behind_it_silently() {
    let dir = Dir::new();
    let (bytes, ends) = log(1..=4, |_| 20);
    let last_start = ends[2].1;
    for at in 0..bytes.len() {
        for bit in [0, 7] {
            let mut rotten = bytes.clone();
            rotten[at] ^= 1 << bit;
            dir.put("log.1", &rotten);
            match dir.recover() {
                Err(error) => assert!(!(4..16).contains(&at), "{at}: {error}"),
                // Neither version nor dbid is looked at.
                Ok((_, model)) if model.zxid == Zxid(4) => assert!((4..16).contains(&at), "{at}"),
                // Length or mark of the very last entry: the same as a write that did not finish, for Java as well.
                Ok((_, model)) => assert!(model.zxid == Zxid(3) && at >= last_start, "{at}: {:?}", model.zxid),
            }
        }
    }
}

#[test]
fn a_loss_in_a_log_that_is_not_the_last_is_refused() {
    let dir = Dir::new();
    let (first, ends) = log(1..=4, |_| 20);
    let (second, _) = log(5..=8, |_| 20);
    dir.put("log.5", &second);
    for len in [16, ends[1].1, ends[3].1 - 1] {
        dir.put("log.1", &first[..len]);
        let error = dir.refused();
        assert!(matches!(error, RecoveryError::Gap { found: Zxid(5), .. }), "{len}: {error}");
    }
    fs::remove_file(dir.path("log.1")).unwrap();
    assert!(matches!(dir.refused(), RecoveryError::Gap { .. }));
}

#[test]
fn torn_bytes_that_a_later_log_supersedes_do_no_harm() {
    let dir = Dir::new();
    let (first, ends) = log(1..=4, |_| 20);
    let (second, _) = log(4..=8, |_| 20);
    dir.put("log.4", &second);
    for len in ends[2].1..ends[3].1 {
        dir.put("log.1", &first[..len]);
        assert_eq!(dir.check(8), []);
    }
}

#[test]
fn a_newest_log_without_entries_is_removed_and_others_are_refused() {
    let dir = Dir::new();
    let (bytes, _) = log(1..=4, |_| 20);
    let mut padded = FILE_HEADER.to_vec();
    padded.resize(9000, 0);
    // Ours names a file only once it has a header; its zxid may lie ahead of what came to be.
    for empty in [&b""[..], &FILE_HEADER, &padded] {
        dir.put("log.1", &bytes);
        dir.put("log.9", empty);
        assert_eq!(dir.check(4), [Note::EmptyLogRemoved { path: dir.path("log.9") }]);
        assert!(!dir.path("log.9").exists());
    }
    for (older, newer) in [(&b""[..], &bytes[..]), (&FILE_HEADER[..7], &bytes), (b"ZKSN0000000000000000", &bytes)] {
        dir.put("log.0", older);
        dir.put("log.1", newer);
        assert_eq!(dir.check(4), [], "not needed, as the next one starts at 1");
        fs::remove_file(dir.path("log.0")).unwrap();
        dir.put("log.1", older);
        dir.put("log.2", newer);
        assert!(matches!(dir.refused(), RecoveryError::Open { .. }));
        fs::remove_file(dir.path("log.2")).unwrap();
    }
    dir.put("log.1", &bytes);
    dir.put("log.5", &FILE_HEADER[..7]);
    assert!(matches!(dir.refused(), RecoveryError::Open { .. }));
}

#[test]
fn an_empty_log_named_ahead_never_hides_the_entries_before_it() {
    let dir = Dir::new();
    let (bytes, _) = log(1..=8, |_| 20);
    dir.put("log.1", &bytes);
    dir.put("log.6", &FILE_HEADER);
    let mut model = Model::fresh();
    for zxid in 1..=6 {
        model.nodes.insert(format!("/n{zxid}"), Node::default());
    }
    dir.put("snapshot.6", &snapshot(&model, 6));
    dir.check(8);
}

#[test]
fn every_truncation_and_bit_flip_of_a_snapshot_falls_back_to_the_one_before() {
    let dir = Dir::new();
    let (bytes, _) = log(1..=4, |_| 20);
    dir.put("log.1", &bytes);
    let (_, mut model) = dir.recover().unwrap();
    model.sessions.insert(99, 1000);
    model.nodes.retain(|path, _| path != "/n4");
    let whole = snapshot(&model, 3);
    dir.put("snapshot.3", &whole);
    let last_seal = whole.len() - 21;
    for len in 0..whole.len() {
        dir.put("snapshot.3", &whole[..len]);
        let (recovered, model) = dir.recover().unwrap();
        assert_eq!(model.zxid, Zxid(4));
        // Behind its first seal a snapshot is whole: older servers end there.
        if len == last_seal {
            assert_eq!(recovered.notes, []);
            continue;
        }
        assert!(matches!(recovered.notes[..], [Note::SnapshotInvalid { .. }]), "{len}");
        assert!(model.sessions.is_empty(), "of the candidate that failed");
    }
    for at in (0..whole.len()).filter(|at| !(4..16).contains(at)) {
        let mut rotten = whole.clone();
        rotten[at] ^= 0x40;
        dir.put("snapshot.3", &rotten);
        let (recovered, model) = dir.recover().unwrap();
        assert!(matches!(recovered.notes[..], [Note::SnapshotInvalid { .. }]), "{at}");
        assert!(model.sessions.is_empty());
    }
}

#[test]
fn snapshots_none_of_which_is_valid_are_refused() {
    let dir = Dir::new();
    let (bytes, _) = log(1..=4, |_| 20);
    dir.put("log.1", &bytes);
    let whole = snapshot(&Model::fresh(), 0);
    dir.put("snapshot.2", &whole[..50]);
    dir.put("snapshot.0", &whole[..50]);
    let error = dir.refused();
    assert!(error.to_string().contains("Not able to find valid snapshots in"), "{error}");
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn a_first_start_that_was_killed_starts_again() {
    let dir = Dir::new();
    dir.put("snapshot.0", b"ZKSN");
    let (recovered, _) = dir.recover().unwrap();
    assert_eq!(recovered.state, RecoveredState::Empty { trusted: true });
}

#[test]
fn a_parent_that_is_missing_makes_a_snapshot_invalid() {
    let dir = Dir::new();
    let mut model = Model::fresh();
    model.nodes.insert("/a/b".into(), Node::default());
    dir.put("snapshot.5", &snapshot(&model, 5));
    let (recovered, _) = dir.recover().unwrap();
    let text = recovered.notes[0].to_string();
    assert!(text.contains("unable to find parent of /a/b"), "{text}");
}

#[test]
fn logs_without_a_snapshot_need_trust() {
    let dir = Dir::new();
    fs::remove_file(dir.path("snapshot.0")).unwrap();
    let (bytes, _) = log(1..=4, |_| 20);
    dir.put("log.1", &bytes);
    assert!(dir.refused().to_string().contains("No snapshot found, but there are log entries"));
    let options = RecoveryOptions { trust_empty_snapshot: true, ..dir.options() };
    let mut model = Model::default();
    let recovered = recover(&options, &mut model).unwrap();
    assert_eq!(recovered.state, RecoveredState::Loaded { snapshot: None, zxid: Zxid(4), txns: 4 });
    assert_eq!(model.applied.len(), 4);
}

#[test]
fn an_empty_database_is_trusted_by_setting_or_by_marker() {
    let dir = Dir::new();
    fs::remove_file(dir.path("snapshot.0")).unwrap();
    let state = |db_autocreate| {
        let options = RecoveryOptions { db_autocreate, ..dir.options() };
        recover(&options, &mut Model::default()).unwrap().state
    };
    assert_eq!(state(true), RecoveredState::Empty { trusted: true });
    assert_eq!(state(false), RecoveredState::Empty { trusted: false });
    fs::write(dir.dirs.data.join("initialize"), b"").unwrap();
    assert_eq!(state(false), RecoveredState::Empty { trusted: true });
    assert_eq!(state(false), RecoveredState::Empty { trusted: false });
}

#[test]
fn a_gap_behind_the_snapshot_is_refused_and_a_new_epoch_is_none() {
    let dir = Dir::new();
    let (bytes, _) = log(2..=4, |_| 20);
    dir.put("log.2", &bytes);
    assert!(matches!(dir.refused(), RecoveryError::Gap { last: Zxid(0), found: Zxid(2), .. }));
    fs::remove_file(dir.path("log.2")).unwrap();

    let (mut bytes, _) = log(1..=2, |_| 20);
    bytes.extend(entry(0x2_0000_0001, b"x"));
    bytes.extend(entry(0x2_0000_0002, b"x"));
    dir.put("log.1", &bytes);
    let (_, model) = dir.recover().unwrap();
    assert_eq!(model.applied, [1, 2, 0x2_0000_0001, 0x2_0000_0002].map(Zxid));
    bytes.extend(entry(0x4_0000_0002, b"x"));
    dir.put("log.1", &bytes);
    assert!(matches!(dir.refused(), RecoveryError::Gap { last: Zxid(0x2_0000_0002), .. }));
}

#[test]
fn an_unknown_type_is_refused_by_its_number() {
    let dir = Dir::new();
    let mut bytes = FILE_HEADER.to_vec();
    let header = TxnHeader { zxid: Zxid(1), ..Default::default() };
    EntryWriter::default().append(&mut bytes, |out| header.write(77, out)).unwrap();
    dir.put("log.1", &bytes);
    let text = dir.refused().to_string();
    assert!(text.contains("Unsupported Txn with type=77") && text.contains("zxid 0x1"), "{text}");
}

#[test]
fn a_record_cut_short_is_refused() {
    let dir = Dir::new();
    let mut bytes = FILE_HEADER.to_vec();
    let header = TxnHeader { zxid: Zxid(1), ..Default::default() };
    EntryWriter::default().append(&mut bytes, |out| header.write(txn_type::SET_DATA, out)).unwrap();
    dir.put("log.1", &bytes);
    assert!(matches!(dir.refused(), RecoveryError::Txn { zxid: Zxid(1), .. }));
}

#[test]
fn a_check_changes_nothing_on_disk() {
    let dir = Dir::new();
    let (bytes, ends) = log(1..=4, |_| 20);
    let torn = &bytes[..ends[3].1 - 3];
    dir.put("log.1", torn);
    dir.put("log.9", &FILE_HEADER);
    dir.put("tmp-log-0", b"x");
    let options = RecoveryOptions { read_only: true, ..dir.options() };
    let recovered = recover(&options, &mut Model::default()).unwrap();
    assert_eq!(recovered.notes.len(), 2, "{recovered:?}");
    assert_eq!(dir.read("log.1"), torn);
    assert!(dir.path("log.9").exists() && dir.path("tmp-log-0").exists());
    assert_eq!(dir.check(3).len(), 3);
    assert!(!dir.path("log.9").exists() && !dir.path("tmp-log-0").exists());
}

#[test]
fn truncation_cuts_behind_the_last_txn_that_stays() {
    let dir = Dir::new();
    let (first, ends) = log(1..=4, |_| 20);
    let (second, _) = log(5..=8, |_| 20);
    let (third, _) = log(9..=9, |_| 20);
    let fill = || {
        dir.put("log.1", &first);
        dir.put("log.5", &second);
        dir.put("log.9", &third);
    };
    for last in 0..=9 {
        fill();
        truncate_logs(&dir.options(), Zxid(last)).unwrap();
        dir.check(last);
        let logs = files::list_logs(&dir.dirs.logs()).unwrap();
        assert_eq!(logs.len(), [0, 1, 1, 1, 1, 2, 2, 2, 2, 3][last as usize], "{last}");
        if (1..=4).contains(&last) {
            assert_eq!(dir.read("log.1").len(), ends[last as usize - 1].1);
        }
    }
    // Java keeps one txn too many when the zxid itself is not there.
    fill();
    truncate_logs(&dir.options(), Zxid(0x1_0000_0000)).unwrap();
    dir.check(9);
    // A snapshot that is newer holds what has to go.
    dir.put("snapshot.7", &snapshot(&Model::fresh(), 7));
    truncate_logs(&dir.options(), Zxid(5)).unwrap();
    assert!(!dir.path("snapshot.7").exists());
    dir.check(5);
}

/// The znodes of a tree at a zxid, as [`Dir::check`] counts them.
fn model_upto(last: u64) -> Model {
    let dir = Dir::new();
    dir.put("log.1", &log(1..=last, |_| 20).0);
    dir.recover().unwrap_or_else(|error| panic!("{error}")).1
}

#[test]
fn a_leaders_snapshot_is_durable_before_the_log_behind_it_is_cut_and_named_after() {
    let write = |bytes: Vec<u8>| {
        move |mut sink: oxkeeper::storage::compression::Sink| {
            std::io::Write::write_all(&mut sink, &bytes)?;
            Ok(sink)
        }
    };
    let bytes = snapshot(&model_upto(3), 3);
    let dir = Dir::new();
    dir.put("log.1", &log(1..=5, |_| 20).0);

    // A crash before it has its name: all of the old history.
    let unnamed = snapshot_file::write_unnamed(&dir.dirs.snapshots(), Zxid(3), Compression::None, write(bytes.clone()));
    drop(unnamed.unwrap());
    dir.check(5);

    // A crash behind the cut: what no leader has is gone.
    let unnamed = snapshot_file::write_unnamed(&dir.dirs.snapshots(), Zxid(3), Compression::None, write(bytes.clone()));
    truncate_logs(&dir.options(), Zxid(3)).unwrap();
    drop(unnamed.unwrap());
    dir.check(3);

    dir.put("log.1", &log(1..=5, |_| 20).0);
    snapshot_file::install(&dir.options(), Zxid(3), Compression::None, write(bytes)).unwrap();
    dir.check(3);
    let (recovered, _) = dir.recover().unwrap();
    assert!(matches!(recovered.state, RecoveredState::Loaded { snapshot: Some(file), .. } if file.zxid == Zxid(3)));
    assert!(files::list_logs(&dir.dirs.logs()).unwrap().is_empty(), "what is written next does not follow it");
    assert_eq!(files::list_snapshots(&dir.dirs.snapshots()).unwrap().len(), 1);
}

/// A write that the disk has not confirmed.
struct InFlight {
    write: WriteId,
    file: FileId,
    offset: usize,
    len: usize,
    buffer: Vec<u8>,
}

/// A disk between the log machine and recovery: what it has not confirmed may be lost by sectors, and names as a whole.
#[derive(Default)]
struct Disk {
    files: BTreeMap<FileId, Vec<u8>>,
    names: BTreeMap<FileId, Zxid>,
    writes: Vec<InFlight>,
    /// What the helper is asked for and has not done.
    helper: Vec<Output<Vec<u8>>>,
    flushed: Zxid,
}

impl Disk {
    fn take(&mut self, out: &mut Vec<Output<Vec<u8>>>) {
        for output in out.drain(..) {
            match output {
                Output::Write { write, file, offset, len, buffer } => {
                    self.writes.push(InFlight { write, file, offset: offset as usize, len, buffer });
                }
                Output::Flushed { upto } => self.flushed = upto,
                Output::Finish { file, used } => self.files.get_mut(&file).unwrap().truncate(used as usize),
                other => self.helper.push(other),
            }
        }
    }

    fn help(&mut self) -> Option<Input<Vec<u8>>> {
        if self.helper.is_empty() {
            return None;
        }
        Some(match self.helper.remove(0) {
            Output::Prepare { file, upto } => {
                let mut content = FILE_HEADER.to_vec();
                content.resize(upto as usize, 0);
                self.files.insert(file, content);
                Input::Prepared { file, zeroed_upto: upto }
            }
            Output::Name { file, first } => {
                self.names.insert(file, first);
                Input::Named { file }
            }
            Output::Extend { file, from, upto } => {
                let content = self.files.get_mut(&file).unwrap();
                content.resize(content.len().max(upto as usize), 0);
                content[from as usize..upto as usize].fill(0);
                Input::Extended { file, upto }
            }
            other => panic!("{other}"),
        })
    }

    fn apply(&mut self, write: &InFlight, sector_survives: impl Fn(usize) -> bool) {
        let content = self.files.get_mut(&write.file).unwrap();
        content.resize(content.len().max(write.offset + write.len), 0);
        for sector in (0..write.len).step_by(SECTOR).filter(|at| sector_survives(at / SECTOR)) {
            let at = write.offset + sector;
            content[at..at + SECTOR].copy_from_slice(&write.buffer[sector..sector + SECTOR]);
        }
    }

    fn complete(&mut self, at: usize) -> Option<Input<Vec<u8>>> {
        if at >= self.writes.len() {
            return None;
        }
        let write = self.writes.remove(at);
        self.apply(&write, |_| true);
        Some(Input::Written { write: write.write, buffer: write.buffer })
    }

    /// The power goes: each sector under way is there or not, as the dice say.
    fn crash(mut self, dir: &Dir, dice: u64) {
        for (n, write) in std::mem::take(&mut self.writes).iter().enumerate() {
            self.apply(write, |sector| (dice >> ((n * 11 + sector) % 61)) & 1 == 1);
        }
        if let Some(Output::Name { file, first }) = self.helper.first()
            && dice & 2 == 2
        {
            self.names.insert(*file, *first);
        }
        for (file, content) in self.files {
            match self.names.get(&file) {
                Some(&first) => dir.put(&files::log_file_name(first), &content),
                None => dir.put(&files::tmp_log_file_name(file.0), &content),
            }
        }
    }
}

/// One life of a server: appends, writes, and a crash. Returns what it was told to be durable and what it had appended.
fn live(dir: &Dir, last: u64, writes_in_flight: usize, moves: &[(u8, usize, usize)], dice: u64) -> (u64, u64) {
    let config = LogConfig {
        writes_in_flight,
        roll_bytes: 40 << 10,
        stretch_bytes: 16 << 10,
        ahead_bytes: 8 << 10,
        ..Default::default()
    };
    let buffers = vec![vec![0; 16 << 10]; writes_in_flight];
    let (mut out, mut disk, mut zxid) = (Vec::new(), Disk { flushed: Zxid(last), ..Default::default() }, last);
    let mut log = Log::new(config, Zxid(last), buffers, &mut out);
    for &(kind, at, bytes) in moves {
        disk.take(&mut out);
        let input = match kind {
            0..=2 => {
                zxid += 1;
                let data = if at == 0 { vec![0; bytes] } else { data(zxid, bytes % 700) };
                log.append(Zxid(zxid), &entry(zxid, &data), &mut out);
                Some(Input::Submit)
            }
            3..=5 => disk.complete(at),
            6 => disk.help(),
            _ => Some(Input::Roll),
        };
        disk.take(&mut out);
        if let Some(input) = input {
            log.step(Time(0), input, &mut out);
        }
    }
    disk.take(&mut out);
    let flushed = disk.flushed.0;
    disk.crash(dir, dice);
    (flushed, zxid)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn after_any_power_cut_what_was_flushed_is_there_and_the_server_starts(
        writes_in_flight in 1_usize..5,
        lives in proptest::collection::vec(
            (proptest::collection::vec((0_u8..8, 0_usize..4, 0_usize..9000), 1..80), any::<u64>()),
            1..4,
        ),
    ) {
        let dir = Dir::new();
        let mut last = 0;
        for (moves, dice) in lives {
            let (flushed, appended) = live(&dir, last, writes_in_flight, &moves, dice);
            let (_, model) = dir.recover().unwrap_or_else(|error| panic!("{error}"));
            prop_assert!((flushed..=appended).contains(&model.zxid.0), "{flushed} {:?} {appended}", model.zxid);
            prop_assert!(model.applied.iter().map(|zxid| zxid.0).eq(1..=model.zxid.0));
            last = model.zxid.0;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_bytes_in_a_log_make_recovery_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        at in 0_usize..400,
    ) {
        let dir = Dir::new();
        let (mut bytes, _) = log(1..=4, |_| 20);
        bytes.resize(bytes.len().max(at + noise.len()), 0);
        bytes[at..at + noise.len()].copy_from_slice(&noise);
        dir.put("log.1", &bytes);
        let _ = dir.recover();
    }

    #[test]
    fn no_bytes_in_a_snapshot_make_recovery_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        at in 0_usize..300,
        suffix in prop_oneof![Just(""), Just(".gz"), Just(".snappy")],
    ) {
        let dir = Dir::new();
        let mut bytes = match suffix {
            ".gz" => b"\x1f\x8b\x08\0\0\0\0\0\0\0".to_vec(),
            ".snappy" => b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec(),
            _ => snapshot(&Model::fresh(), 3),
        };
        let at = at.min(bytes.len());
        bytes.resize(bytes.len().max(at + noise.len()), 0);
        bytes[at..at + noise.len()].copy_from_slice(&noise);
        bytes.extend(b"\0\0\0\x01/");
        dir.put(&format!("snapshot.3{suffix}"), &bytes);
        let _ = dir.recover();
    }
}
