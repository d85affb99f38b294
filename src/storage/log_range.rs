//! A stretch of the log's files, for a server that was away.

use std::fs::File;
use std::io;

use super::files::{self, DataDirs, NamedFile};
use super::log_file::{LogReader, OpenError};
use crate::types::zxid::Zxid;

/// Txns that follow each other without a gap, as payloads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stretch {
    /// The last txn of the log that is not behind where the reading began: what `txns` continue.
    pub previous: Zxid,
    pub txns: Vec<(Zxid, Vec<u8>)>,
}

/// What is wanted of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The last txn that somebody has; it need not be one of ours.
    pub after: Zxid,
    /// Durable already: the end of the newest file is being written while it is read.
    pub upto: Zxid,
    /// Payloads of about so many bytes are enough, and one txn at least.
    pub bytes: usize,
    /// More than so many bytes of files are not worth reading.
    pub file_bytes_max: u64,
    /// `jute.maxbuffer` and its extra size.
    pub payload_bytes_max: usize,
}

/// A place in the files, from which a reading that goes on need not search.
pub struct Cursor {
    /// Not opened yet, newest first.
    files: Vec<NamedFile>,
    reader: Option<LogReader<File>>,
    /// The last txn that was read, or what the oldest file continues.
    before: Option<Zxid>,
}

impl Cursor {
    /// The last txn that it has passed.
    pub fn passed(&self) -> Option<Zxid> {
        self.before
    }
}

/// Reads what lies behind `after`, and where it can go on. `None`: the files do not reach back so far, a txn is missing, there is
/// too much to read, or nothing behind `after` is there at all. Errors: a file could not be read.
pub fn read(dirs: &DataDirs, wanted: &Wanted) -> io::Result<Option<(Stretch, Option<Cursor>)>> {
    let mut files = files::list_logs(&dirs.logs())?;
    let (first, before) = match files.iter().rposition(|log| log.zxid <= wanted.after) {
        Some(first) => (first, None),
        None => match previous_of(dirs, &files, wanted)? {
            Some(previous) => (0, Some(previous)),
            None => return Ok(None),
        },
    };
    files.drain(..first);
    let mut file_bytes = 0;
    for log in &files {
        file_bytes += log.path.metadata()?.len();
    }
    if file_bytes > wanted.file_bytes_max {
        return Ok(None);
    }
    files.reverse();
    read_on(Cursor { files, reader: None, before }, wanted)
}

/// What the oldest log continues, if all of it is newer than `after`: `after` itself, because zxids have no gaps, or the
/// newest snapshot that is not newer, because logs that continue a snapshot are kept with it.
fn previous_of(dirs: &DataDirs, logs: &[NamedFile], wanted: &Wanted) -> io::Result<Option<Zxid>> {
    let Some(oldest) = logs.first() else { return Ok(None) };
    if oldest.zxid.counter() > 1 {
        return Ok(Some(wanted.after).filter(|after| after.next() == oldest.zxid));
    }
    let snapshots = files::list_snapshots(&dirs.snapshots())?;
    let snapshot = snapshots.iter().map(|snapshot| snapshot.zxid).find(|zxid| *zxid <= wanted.after);
    Ok(snapshot.filter(|zxid| follows(*zxid, oldest.zxid)))
}

/// As `read`, from a place that has not passed `after` yet. What was written since the cursor came there may be missing: then
/// only a new reading finds it.
pub fn read_on(mut cursor: Cursor, wanted: &Wanted) -> io::Result<Option<(Stretch, Option<Cursor>)>> {
    let (mut stretch, mut length) = (Stretch { previous: Zxid::ZERO, txns: Vec::new() }, 0);
    let whole = |stretch: Stretch| Some((stretch, None)).filter(|(stretch, _)| !stretch.txns.is_empty());
    loop {
        let reader = match &mut cursor.reader {
            Some(reader) => reader,
            None => {
                let Some(log) = cursor.files.pop() else { return Ok(whole(stretch)) };
                match LogReader::open(File::open(&log.path)?, wanted.payload_bytes_max) {
                    Ok(reader) => cursor.reader.insert(reader),
                    Err(OpenError::Io(error)) => return Err(error),
                    Err(OpenError::Empty | OpenError::ShortHeader(_) | OpenError::Magic(_)) => {
                        return Ok(whole(stretch));
                    }
                }
            }
        };
        let Ok(entry) = reader.next_entry()? else {
            cursor.reader = None;
            continue;
        };
        let zxid = entry.header.zxid;
        if zxid > wanted.upto {
            return Ok(whole(stretch));
        }
        let before = cursor.before.replace(zxid);
        if before.is_some_and(|before| !follows(before, zxid)) {
            return Ok(None);
        }
        if zxid <= wanted.after {
            continue;
        }
        let Some(before) = before else { return Ok(None) };
        if stretch.txns.is_empty() {
            stretch.previous = before;
        }
        length += entry.payload.len();
        stretch.txns.push((zxid, entry.payload.to_vec()));
        if zxid == wanted.upto || length >= wanted.bytes {
            return Ok(Some((stretch, Some(cursor))));
        }
    }
}

/// Whether no txn can be missing between the two.
fn follows(before: Zxid, zxid: Zxid) -> bool {
    before.0.checked_add(1) == Some(zxid.0) || (zxid.epoch() > before.epoch() && zxid.counter() == 1)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::storage::log_file::{EntryWriter, FILE_HEADER, PAYLOAD_BYTES_MAX};
    use crate::types::ids::SessionId;
    use crate::types::time::WallTime;
    use crate::wire::txn::{Txn, TxnHeader, encode};

    struct Bench {
        dirs: DataDirs,
        _directory: tempfile::TempDir,
    }

    /// Files with these zxids, each followed by zeros.
    fn bench(logs: &[&[Zxid]]) -> Bench {
        let directory = tempfile::tempdir().expect("a directory");
        let dirs = DataDirs::new(directory.path(), None);
        fs::create_dir(dirs.logs()).expect("a directory");
        for zxids in logs {
            let mut bytes = FILE_HEADER.to_vec();
            for zxid in *zxids {
                let write = |payload: &mut Vec<u8>| {
                    let header = TxnHeader { session: SessionId(1), cxid: 0, zxid: *zxid, time: WallTime(0) };
                    encode(&header, &Txn::CreateSession { timeout_ms: 1 }, None, payload);
                };
                EntryWriter::default().append(&mut bytes, write).expect("short");
            }
            bytes.extend([0; 5000]);
            fs::write(dirs.logs().join(files::log_file_name(zxids[0])), bytes).expect("a file");
        }
        Bench { dirs, _directory: directory }
    }

    fn wanted(after: Zxid, upto: Zxid, bytes: usize) -> Wanted {
        Wanted { after, upto, bytes, file_bytes_max: u64::MAX, payload_bytes_max: PAYLOAD_BYTES_MAX }
    }

    /// Reads on until `upto`: what lies before the first txn, and all zxids.
    fn read_all(bench: &Bench, after: Zxid, upto: Zxid, bytes: usize) -> Option<(Zxid, Vec<Zxid>)> {
        let mut zxids: Vec<Zxid> = Vec::new();
        let (mut first, mut cursor) = (None, None);
        loop {
            let from = zxids.last().copied().unwrap_or(after);
            let (stretch, at) = match cursor.take() {
                Some(cursor) => read_on(cursor, &wanted(from, upto, bytes)).expect("readable")?,
                None => read(&bench.dirs, &wanted(from, upto, bytes)).expect("readable")?,
            };
            // Every other reading goes on, the others begin anew.
            cursor = at.filter(|at| {
                at.passed() == stretch.txns.last().map(|(zxid, _)| *zxid) && zxids.len().is_multiple_of(2)
            });
            first.get_or_insert(stretch.previous);
            assert!(!stretch.txns.is_empty() && zxids.last().is_none_or(|last| *last == stretch.previous));
            for (zxid, payload) in stretch.txns {
                assert_eq!(TxnHeader::peek(&payload).expect("a txn").0.zxid, zxid);
                zxids.push(zxid);
            }
            if zxids.last() == Some(&upto) {
                return first.map(|first| (first, zxids));
            }
        }
    }

    const A: [Zxid; 3] = [Zxid::new(0, 1), Zxid::new(0, 2), Zxid::new(0, 3)];
    const B: [Zxid; 3] = [Zxid::new(0, 4), Zxid::new(2, 1), Zxid::new(2, 2)];
    const C: [Zxid; 1] = [Zxid::new(2, 3)];

    #[test]
    fn any_part_of_the_log_can_be_read_across_files_and_epochs() {
        let bench = bench(&[&A, &B, &C]);
        fs::write(bench.dirs.snapshots().join("snapshot.0"), "").expect("a file");
        let all: Vec<Zxid> = [&A[..], &B, &C].concat();
        for from in 0..all.len() {
            for to in from + 1..=all.len() {
                let after = if from == 0 { Zxid::ZERO } else { all[from - 1] };
                for piece in [1, 100, 1 << 20] {
                    let got = read_all(&bench, after, all[to - 1], piece);
                    assert_eq!(got, Some((after, all[from..to].to_vec())), "behind {after} in pieces of {piece}");
                }
            }
        }
    }

    #[test]
    fn who_has_what_is_not_ours_hears_where_our_history_goes_on() {
        let bench = bench(&[&A, &B, &C]);
        let (behind, all) = (B[0], vec![B[1], B[2], C[0]]);
        for after in [Zxid::new(0, 7), Zxid::new(1, 0), Zxid::new(1, 9), Zxid::new(2, 0)] {
            assert_eq!(read_all(&bench, after, C[0], 1), Some((behind, all.clone())), "{after}");
        }
    }

    #[test]
    fn what_the_oldest_file_continues_is_a_snapshot_or_the_zxid_before() {
        let from_b = bench(&[&B, &C]);
        assert_eq!(read_all(&from_b, A[1], C[0], 100), None, "before the oldest file");
        assert_eq!(read_all(&from_b, A[2], C[0], 100).map(|(previous, _)| previous), Some(A[2]));
        let from_c = bench(&[&[Zxid::new(2, 1), Zxid::new(2, 2)], &C]);
        assert_eq!(read_all(&from_c, B[0], C[0], 100), None, "who knows what came between");
        fs::write(from_c.dirs.snapshots().join("snapshot.4"), "").expect("a file");
        for after in [B[0], Zxid::new(1, 3), Zxid::new(2, 0)] {
            assert_eq!(read_all(&from_c, after, C[0], 100).map(|(previous, _)| previous), Some(B[0]), "{after}");
        }
        assert_eq!(read_all(&from_c, A[2], C[0], 100), None, "before the snapshot");
    }

    #[test]
    fn gaps_dear_reads_and_nothing_at_all_are_no_stretch() {
        let gap = bench(&[&[A[0], A[2]], &B]);
        assert_eq!(read_all(&gap, A[0], B[0], 100), None);
        let missing = bench(&[&A, &C]);
        assert_eq!(read_all(&missing, A[0], C[0], 1000), None, "a file was removed");
        let all = bench(&[&A, &B]);
        assert!(read(&all.dirs, &wanted(B[2], C[0], 100)).expect("readable").is_none(), "nothing behind it yet");
        let dear = Wanted { file_bytes_max: 5000, ..wanted(A[0], B[0], 100) };
        assert!(read(&all.dirs, &dear).expect("readable").is_none());
        assert!(read(&bench(&[]).dirs, &wanted(A[0], B[0], 100)).expect("readable").is_none());
    }
}
