//! Golden bytes: what Java writes we read, and what we write is what Java would have written.

mod storage_model;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use oxkeeper::storage::epochs::EpochFile;
use oxkeeper::storage::files::{self, DataDirs, DirError};
use oxkeeper::storage::log_file::{EntryWriter, FILE_HEADER, LogReader, PAYLOAD_BYTES_MAX, Stop, Why};
use oxkeeper::storage::recovery::{RecoveredState, RecoveryOptions, recover};
use oxkeeper::storage::snapshot::{
    AclIds, Item, NodeRecord, SnapshotDigest, SnapshotEnd, SnapshotReader, SnapshotWriter,
};
use oxkeeper::storage::snapshot_file;
use oxkeeper::types::acl::AclList;
use oxkeeper::types::compression::Compression;
use oxkeeper::types::ids::SessionId;
use oxkeeper::types::zxid::Zxid;
use oxkeeper::wire::txn::{self, TxnDigest};
use storage_model::Model;

/// The first log of a server of 3.10, `preAllocSize=1`: session, `/a`, ephemeral `/a/e`, session closed.
const LOG: &str = "
    5a4b4c47 00000002 0000000000000000
    00000000ed9a0b71 00000030
        0100003adfd40000 00000000 0000000000000001 000001a1fae25535 fffffff6
        00002710 00000002 0000000051c6d660 42
    0000000029fe0de4 00000058
        0100003adfd40000 00000001 0000000000000002 000001a1fae2553d 00000001
        00000002 2f61 00000002 6869 00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00 00000001
        00000002 00000000a4b6fd45 42
    0000000023bc0ddb 00000058
        0100003adfd40000 00000002 0000000000000003 000001a1fae25542 00000001
        00000004 2f612f65 00000000 00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 01 00000001
        00000002 00000000e6b48f9f 42
    000000004fdd0c00 00000038
        0100003adfd40000 00000003 0000000000000004 000001a1fae255ac fffffff5
        00000001 00000004 2f612f65 00000002 000000008b835808 42";

/// A snapshot of the same server while that session was alive.
const SNAPSHOT: &str = "
    5a4b534e 00000002 ffffffffffffffff
    00000001 0100003adfd40000 00002710
    00000002
        0000000000000001 00000001 00000001 00000005 776f726c64 00000006 616e796f6e65
        0000000000000002 00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65
    00000000 00000000 ffffffffffffffff
        0000000000000000 0000000000000000 0000000000000000 0000000000000000
        00000000 00000001 00000000 0000000000000000 0000000000000002
    00000002 2f61 00000002 6869 0000000000000002
        0000000000000002 0000000000000002 000001a1fae2553d 000001a1fae2553d
        00000000 00000001 00000000 0000000000000000 0000000000000003
    00000004 2f612f65 00000000 0000000000000002
        0000000000000003 0000000000000003 000001a1fae25542 000001a1fae25542
        00000000 00000000 00000000 0100003adfd40000 0000000000000003
    0000000a 2f7a6f6f6b6565706572 00000000 ffffffffffffffff
        0000000000000000 0000000000000000 0000000000000000 0000000000000000
        00000000 00000000 00000000 0000000000000000 0000000000000000
    00000011 2f7a6f6f6b65657065722f636f6e666967 00000000 0000000000000001
        0000000000000000 0000000000000000 0000000000000000 0000000000000000
        00000000 00000000 ffffffff 0000000000000000 0000000000000000
    00000010 2f7a6f6f6b65657065722f71756f7461 00000000 ffffffffffffffff
        0000000000000000 0000000000000000 0000000000000000 0000000000000000
        00000000 00000000 00000000 0000000000000000 0000000000000000
    00000001 2f
    00000000c8a5532c 00000001 2f
    0000000000000003 00000002 00000000e6b48f9f
    00000000c37e5815 00000001 2f
    0000000000000003
    000000001a8459f6 00000001 2f";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/storage").join(name)
}

/// A copy that a test may change.
fn copy_of(name: &str) -> (tempfile::TempDir, DataDirs) {
    let dir = tempfile::tempdir().unwrap();
    let dirs = DataDirs::new(dir.path(), None);
    fs::create_dir_all(dirs.logs()).unwrap();
    for entry in fs::read_dir(fixture(name).join("version-2")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dirs.logs().join(entry.file_name())).unwrap();
    }
    (dir, dirs)
}

/// Decodes every entry and writes it again: the file must come out as it went in.
fn check_log_is_rewritten(bytes: &[u8]) -> usize {
    let mut out = FILE_HEADER.to_vec();
    let mut reader = LogReader::open(bytes, PAYLOAD_BYTES_MAX).unwrap();
    let mut entries = 0;
    let stop = loop {
        match reader.next_entry().unwrap() {
            Err(stop) => break stop,
            Ok(entry) => {
                let decoded = txn::decode(entry.payload).unwrap();
                assert_eq!(decoded.header, entry.header);
                EntryWriter::default()
                    .append(&mut out, |out| txn::encode(&decoded.header, &decoded.txn, decoded.digest, out))
                    .unwrap();
                assert_eq!(out.len() as u64, entry.end, "{decoded:?}");
                entries += 1;
            }
        }
    };
    assert_eq!((stop.why, stop.offset), (Why::End, out.len() as u64));
    assert!(bytes.starts_with(&out));
    entries
}

#[test]
fn the_annotated_log_is_read_and_written_byte_for_byte() {
    let mut bytes = hex(LOG);
    assert_eq!(check_log_is_rewritten(&bytes), 4);
    bytes.resize(4112, 0);
    assert_eq!(check_log_is_rewritten(&bytes), 4);
}

#[test]
fn logs_of_java_are_rewritten_byte_for_byte() {
    let mut entries = 0;
    for log in files::list_logs(&fixture("java-3.8.0/version-2")).unwrap() {
        entries += check_log_is_rewritten(&fs::read(log.path).unwrap());
    }
    assert_eq!(entries, 0x3b);
}

/// Reads every item and writes it again. Java lists the open list under an id where a client gave it, and so does this;
/// ours writes -1 for it.
fn rewrite_snapshot(bytes: &[u8]) -> Vec<u8> {
    let mut reader = SnapshotReader::open(bytes, PAYLOAD_BYTES_MAX).unwrap();
    let (mut sessions, mut lists, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
    let end = loop {
        match reader.next_item().unwrap() {
            Item::Session { id, timeout_ms } => sessions.push((id, timeout_ms)),
            Item::Acl { id, list } => lists.push((id, AclList::List(list.to_vec().into()))),
            Item::Node(NodeRecord { path, data, acl_id, stat }) => {
                nodes.push((path.into_owned(), data.map(<[u8]>::to_vec), acl_id, stat));
            }
            Item::End(end) => break end,
        }
    };
    let ids = AclIds::new(lists.iter().map(|(_, list)| list));
    let mut writer = SnapshotWriter::begin(Vec::new(), sessions.into_iter(), &ids).unwrap();
    for (path, data, acl_id, stat) in nodes {
        let list = lists.iter().find(|(id, _)| *id == acl_id).map_or(AclList::Open, |(_, list)| list.clone());
        writer.node(&path, data.as_deref(), &list, &stat).unwrap();
    }
    writer.finish(&end).unwrap()
}

#[test]
fn the_annotated_snapshot_is_read_and_its_seals_hold() {
    let bytes = hex(SNAPSHOT);
    assert_eq!(bytes.len(), 685);
    assert!(rewrite_snapshot(&bytes) == bytes);
    let mut reader = SnapshotReader::open(&bytes[..], PAYLOAD_BYTES_MAX).unwrap();
    let end = loop {
        if let Item::End(end) = reader.next_item().unwrap() {
            break end;
        }
    };
    let digest = SnapshotDigest { zxid: Zxid(3), digest: TxnDigest::new(3870592927) };
    assert_eq!(end, SnapshotEnd { digest: Some(digest), last_processed: Some(Zxid(3)) });
}

#[test]
fn snapshots_of_java_are_rewritten_byte_for_byte() {
    for snapshot in files::list_snapshots(&fixture("java-3.8.0/version-2")).unwrap() {
        let bytes = fs::read(&snapshot.path).unwrap();
        assert!(rewrite_snapshot(&bytes) == bytes, "{snapshot:?}");
    }
}

#[test]
fn a_directory_of_java_is_recovered_completely_with_every_digest_matching() {
    let (_dir, dirs) = copy_of("java-3.8.0");
    let mut model = Model::default();
    let recovered = recover(&RecoveryOptions::new(dirs.clone()), &mut model).unwrap();
    let RecoveredState::Loaded { snapshot, zxid, txns } = recovered.state else { panic!("{recovered:?}") };
    assert_eq!((snapshot.unwrap().zxid, zxid, txns), (Zxid(0x22), Zxid(0x3b), 0x19));
    assert_eq!(recovered.notes, []);
    assert_eq!(model.mismatch, None);
    assert!(model.digests_matched > 15, "{}", model.digests_matched);
    check_against_dump(&model);
    assert_eq!(model.sessions.len(), 3);

    // From the first snapshot on, the same state must come out.
    for newer in files::list_snapshots(&dirs.snapshots()).unwrap().iter().filter(|s| s.zxid != Zxid(0)) {
        fs::remove_file(&newer.path).unwrap();
        let mut older = Model::default();
        recover(&RecoveryOptions::new(dirs.clone()), &mut older).unwrap();
        assert_eq!(older.mismatch, None);
        check_against_dump(&older);
        assert_eq!(older.sessions, model.sessions);
    }
}

/// What a client saw before the server was killed.
fn check_against_dump(model: &Model) {
    let expected = fs::read_to_string(fixture("java-3.8.0/expected.txt")).unwrap();
    let mut count = 0;
    for line in expected.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let path = if fields[0] == "/" { "" } else { fields[0] };
        let node = model.nodes.get(path).unwrap_or_else(|| panic!("{path}"));
        let data = node.data.as_ref().map(|data| data.iter().map(|b| format!("{b:02x}")).collect::<String>());
        // Quota usage is kept in memory and recomputed by whoever applies, not here.
        if !path.ends_with("zookeeper_stats") {
            assert_eq!(data.as_deref().map_or("null", |data| if data.is_empty() { "-" } else { data }), fields[1]);
        }
        let stat = node.stat.to_stat(node.data.as_ref().map_or(0, Vec::len) as i32, model.children(path), true);
        let (czxid, mzxid, pzxid) = (stat.czxid.0, stat.mzxid.0, stat.pzxid.0);
        let found = format!(
            "{czxid} {mzxid} {} {} {} {} {} {} {} {} {pzxid}",
            stat.ctime.0,
            stat.mtime.0,
            stat.version,
            stat.cversion,
            stat.aversion,
            stat.ephemeral_owner,
            stat.data_length,
            stat.num_children,
        );
        assert_eq!(found, fields[2..].join(" "), "{path}");
        count += 1;
    }
    assert_eq!(model.nodes.len(), count);
}

#[test]
fn compressed_snapshots_of_java_are_read() {
    for name in ["java-3.8.0-gz", "java-3.8.0-snappy"] {
        let (_dir, dirs) = copy_of(name);
        let mut model = Model::default();
        let recovered = recover(&RecoveryOptions::new(dirs), &mut model).unwrap();
        assert_eq!(recovered.notes, [], "{name}");
        assert_eq!(model.zxid, Zxid(0x19));
        assert_eq!(model.nodes["/a"].data.as_deref(), Some(&b"ho"[..]));
        assert_eq!(model.nodes["/null"].data, None);
    }
}

#[test]
fn snapshots_are_packed_and_unpacked_under_their_final_name_only() {
    let (_dir, dirs) = copy_of("java-3.8.0");
    let mut model = Model::default();
    recover(&RecoveryOptions::new(dirs.clone()), &mut model).unwrap();
    // More than one block of snappy.
    for i in 0..2000 {
        let node = storage_model::Node { data: Some(vec![i as u8; i % 90]), ..Default::default() };
        model.nodes.insert(format!("/w/more-{i}"), node);
    }
    for compression in [Compression::None, Compression::Gzip, Compression::Snappy] {
        let out = tempfile::tempdir().unwrap();
        let ids = AclIds::default();
        let path = snapshot_file::write(out.path(), Zxid(0x3b), compression, |sink| {
            let sessions = model.sessions.iter().map(|(id, timeout_ms)| (SessionId(*id), *timeout_ms));
            let mut writer = SnapshotWriter::begin(sink, sessions, &ids)?;
            for (path, node) in &model.nodes {
                writer.node(path, node.data.as_deref(), &AclList::Open, &node.stat)?;
            }
            assert_eq!(files::list_snapshots(out.path())?, []);
            writer.finish(&SnapshotEnd { digest: None, last_processed: Some(Zxid(0x3b)) })
        })
        .unwrap();
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
        assert!(files::looks_like_snapshot(&path).unwrap());
        let mut reader = snapshot_file::open(&path, PAYLOAD_BYTES_MAX).unwrap();
        let mut nodes = 0;
        loop {
            match reader.next_item().unwrap() {
                Item::Node(node) => {
                    assert_eq!(node.data, model.nodes[node.path.as_ref()].data.as_deref());
                    nodes += 1;
                }
                Item::End(end) => break assert_eq!(end.last_processed, Some(Zxid(0x3b))),
                Item::Session { .. } | Item::Acl { .. } => {}
            }
        }
        assert_eq!(nodes, model.nodes.len());
    }
}

#[test]
fn a_snapshot_that_cannot_be_finished_leaves_nothing_behind() {
    let out = tempfile::tempdir().unwrap();
    let result =
        snapshot_file::write(out.path(), Zxid(1), Compression::None, |_| Err(std::io::Error::other("no space")));
    assert!(result.is_err());
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
}

#[test]
fn file_names_are_parsed_as_java_parses_them() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "log.zz",
        "log.1F",
        "log.1f.bak",
        "log",
        "log.",
        "xlog.1",
        "tmp-log.2",
        "log.100000001",
        "log.-1",
        "snapshot.20.tmp",
        "snapshot.20.gz",
        "snapshot.zz",
        "oxkeeper.lock",
        "tmp-snapshot.30",
    ] {
        File::create(dir.path().join(name)).unwrap();
    }
    fs::create_dir(dir.path().join("log.77")).unwrap();
    let names = |files: Vec<files::NamedFile>| -> Vec<(u64, String)> {
        files.into_iter().map(|f| (f.zxid.0, f.path.file_name().unwrap().to_str().unwrap().to_owned())).collect()
    };
    assert_eq!(
        names(files::list_logs(dir.path()).unwrap()),
        [(0x1f, "log.1F".into()), (0x1f, "log.1f.bak".into()), (0x100000001, "log.100000001".into())]
    );
    assert_eq!(
        names(files::list_snapshots(dir.path()).unwrap()),
        [(0x20, "snapshot.20.tmp".into()), (0x20, "snapshot.20.gz".into())]
    );
    assert_eq!(files::log_file_name(Zxid(0x1F)), "log.1f");
    assert_eq!(files::snapshot_file_name(Zxid(0xAB), Compression::Gzip), "snapshot.ab.gz");
}

#[test]
fn directories_that_are_missing_mixed_or_in_use_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = DataDirs::new(dir.path().join("data"), Some(dir.path().join("log")));
    assert!(matches!(dirs.prepare(false), Err(DirError::Missing(_))));
    dirs.prepare(true).unwrap();
    let lock = dirs.lock().unwrap();
    assert!(matches!(dirs.lock(), Err(DirError::InUse(_))));
    drop(lock);
    dirs.lock().unwrap();
    File::create(dirs.logs().join("snapshot.5")).unwrap();
    assert!(matches!(dirs.prepare(true), Err(DirError::SnapshotInLogDir(_))));
    fs::remove_file(dirs.logs().join("snapshot.5")).unwrap();
    File::create(dirs.snapshots().join("log.zz")).unwrap();
    assert!(matches!(dirs.prepare(true), Err(DirError::LogInSnapshotDir(_))));
    DataDirs::new(dir.path().join("data"), None).prepare(true).unwrap();
    assert!(dirs.sizes().is_ok());
}

#[test]
fn epochs_and_ids_are_single_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = DataDirs::new(dir.path(), None);
    assert_eq!(EpochFile::Current.read(dir.path()).unwrap(), None);
    EpochFile::Current.write(dir.path(), 1).unwrap();
    assert_eq!(fs::read(dir.path().join("currentEpoch")).unwrap(), b"1");
    assert_eq!(EpochFile::Current.read(dir.path()).unwrap(), Some(1));
    fs::write(dir.path().join("acceptedEpoch"), "x").unwrap();
    assert!(EpochFile::Accepted.read(dir.path()).is_err());
    assert!(dirs.read_myid().unwrap_err().contains("myid file is missing"));
    for (text, expected) in [("3", Some(3)), ("3\r\n", Some(3)), ("-3\nx", Some(-3)), (" 3", None), ("", None)] {
        fs::write(dir.path().join("myid"), text).unwrap();
        assert_eq!(dirs.read_myid().ok(), expected, "{text:?}");
    }
}

#[test]
fn a_purge_keeps_what_the_oldest_kept_snapshot_needs() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = DataDirs::new(dir.path(), None);
    dirs.prepare(true).unwrap();
    for zxid in [1, 0xf, 0x20, 0x2a, 0x36, 0x42] {
        File::create(dirs.logs().join(format!("log.{zxid:x}"))).unwrap();
    }
    for zxid in [0, 0xd, 0x1e, 0x29, 0x35, 0x41] {
        fs::write(dirs.snapshots().join(format!("snapshot.{zxid:x}")), b"xxxxxxxxxx\0\0\0\x01/").unwrap();
    }
    File::create(dirs.snapshots().join("snapshot.50")).unwrap();
    let removed = |retain| -> Vec<String> {
        let mut names: Vec<String> = files::find_purgeable(&dirs, retain)
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(removed(3), ["log.1", "log.f", "snapshot.0", "snapshot.1e", "snapshot.d"]);
    assert_eq!(removed(0), removed(3));
    assert_eq!(removed(4), ["log.1", "snapshot.0", "snapshot.d"]);
}

#[test]
fn a_reader_that_has_stopped_stays_where_it_is() {
    let bytes = hex(LOG);
    let mut reader = LogReader::open(&bytes[..0x100], PAYLOAD_BYTES_MAX).unwrap();
    for _ in 0..2 {
        reader.next_entry().unwrap().unwrap();
    }
    let stop = Stop { offset: 0xb2, end: 0x100, why: Why::Short };
    for _ in 0..3 {
        assert_eq!(reader.next_entry().unwrap().unwrap_err(), stop);
    }
}
