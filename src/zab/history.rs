//! The end of the log, in memory: what learners are served from, each with a cursor of its own.
//!
//! - Entries are contiguous ([`is_next`]), from the one behind `before` to `last`.
//! - Everything that is not known to be decided is here, unless the process began with it: only what is committed is
//!   ever dropped from the front (`Zab` says what that is).
//! - `before` names a txn that this log held or that a snapshot ended with (ZOOKEEPER-4352).
//!
//! A txn's bytes lie in one piece in a chunk shared with its neighbours, so that keeping one costs a copy and no
//! allocation.

use std::collections::VecDeque;

use crate::types::limits;
use crate::types::zxid::Zxid;

/// Whether `next` may stand directly behind `previous`: the next number of the epoch, or the first of a later one.
pub fn is_next(previous: Zxid, next: Zxid) -> bool {
    if next.epoch() == previous.epoch() {
        next.0 == previous.0.wrapping_add(1)
    } else {
        next.epoch() > previous.epoch() && next.counter() == 1
    }
}

/// How much is kept of what is decided: so many txns or so many bytes, whichever reaches further back, but never more
/// than the bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryLimits {
    /// `zookeeper.commitLogCount`.
    pub txns_kept: usize,
    pub bytes_kept: usize,
    pub bytes_max: usize,
}

impl Default for HistoryLimits {
    fn default() -> HistoryLimits {
        HistoryLimits {
            txns_kept: limits::HISTORY_TXNS,
            bytes_kept: limits::HISTORY_BYTES,
            bytes_max: limits::HISTORY_BYTES_MAX,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    zxid: Zxid,
    /// Which chunk, counted from the first one ever.
    chunk: u64,
    at: u32,
    len: u32,
}

#[derive(Debug)]
pub struct History {
    limits: HistoryLimits,
    before: Zxid,
    entries: VecDeque<Entry>,
    chunks: VecDeque<Vec<u8>>,
    /// The number of `chunks[0]`.
    first_chunk: u64,
    /// An emptied chunk, for the next one.
    spare: Option<Vec<u8>>,
    /// Of all entries.
    bytes: usize,
}

impl History {
    /// Nothing yet, behind `before`.
    pub fn new(before: Zxid, limits: HistoryLimits) -> History {
        History {
            limits,
            before,
            entries: VecDeque::new(),
            chunks: VecDeque::new(),
            first_chunk: 0,
            spare: None,
            bytes: 0,
        }
    }

    /// The txn before the first entry.
    pub fn before(&self) -> Zxid {
        self.before
    }

    /// The last entry, or `before` if there is none.
    pub fn last(&self) -> Zxid {
        self.entries.back().map_or(self.before, |entry| entry.zxid)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all txns in it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes of a txn, as they stand in a proposal and in the log.
    pub fn txn(&self, zxid: Zxid) -> Option<&[u8]> {
        let at = self.entries.binary_search_by_key(&zxid, |entry| entry.zxid).ok()?;
        Some(self.bytes_of(self.entries.get(at)?))
    }

    /// Whether the log is known to hold exactly this zxid: an entry, or `before`.
    pub fn knows(&self, zxid: Zxid) -> bool {
        self.at_or_before(zxid) == Some(zxid)
    }

    /// The last zxid of the log that is not behind `zxid`; `None` if that lies before this history.
    pub fn at_or_before(&self, zxid: Zxid) -> Option<Zxid> {
        if zxid < self.before {
            return None;
        }
        let count = self.entries.partition_point(|entry| entry.zxid <= zxid);
        Some(count.checked_sub(1).and_then(|at| self.entries.get(at)).map_or(self.before, |entry| entry.zxid))
    }

    /// Every entry behind `zxid`, in order. `zxid` must not lie before this history.
    pub fn after(&self, zxid: Zxid) -> impl Iterator<Item = (Zxid, &[u8])> {
        assert!(zxid >= self.before, "{zxid} lies before this history, which begins behind {}", self.before);
        let start = self.entries.partition_point(|entry| entry.zxid <= zxid);
        self.entries.range(start..).map(|entry| (entry.zxid, self.bytes_of(entry)))
    }

    fn bytes_of(&self, entry: &Entry) -> &[u8] {
        let chunk = &self.chunks[(entry.chunk - self.first_chunk) as usize];
        &chunk[entry.at as usize..(entry.at + entry.len) as usize]
    }

    /// Appends the next txn.
    pub fn append(&mut self, zxid: Zxid, txn: &[u8]) {
        let last = self.last();
        assert!(is_next(last, zxid), "{zxid} does not follow {last}");
        let len = u32::try_from(txn.len()).expect("a txn is no longer than a packet");
        let has_room = self.chunks.back().is_some_and(|chunk| chunk.capacity() - chunk.len() >= txn.len());
        if !has_room {
            let mut chunk = self.spare.take().unwrap_or_default();
            chunk.reserve_exact(txn.len().max(limits::HISTORY_CHUNK_BYTES));
            self.chunks.push_back(chunk);
        }
        let number = self.first_chunk + self.chunks.len() as u64 - 1;
        let chunk = self.chunks.back_mut().expect("there is one by now");
        self.entries.push_back(Entry { zxid, chunk: number, at: chunk.len() as u32, len });
        chunk.extend_from_slice(txn);
        self.bytes += txn.len();
    }

    /// Cuts everything behind `to` off. If `to` lies before this history nothing is left, and it goes on from there.
    pub fn truncate(&mut self, to: Zxid) {
        if to < self.before {
            return self.restart(to);
        }
        while let Some(entry) = self.entries.back().copied()
            && entry.zxid > to
        {
            self.entries.pop_back();
            self.bytes -= entry.len as usize;
            let chunks = (entry.chunk - self.first_chunk) as usize + 1;
            self.chunks.truncate(chunks);
            self.chunks[chunks - 1].truncate(entry.at as usize);
        }
    }

    /// A whole tree took the place of everything: goes on behind `before`.
    pub fn restart(&mut self, before: Zxid) {
        self.entries.clear();
        self.chunks.clear();
        self.bytes = 0;
        self.before = before;
    }

    /// Moves on without keeping anything, for a server that nobody learns from.
    pub fn skip(&mut self, zxid: Zxid) {
        assert!(self.entries.is_empty() && zxid > self.before, "{zxid} after {}", self.before);
        self.before = zxid;
    }

    fn is_too_long(&self) -> bool {
        let limits = &self.limits;
        self.bytes > limits.bytes_max || (self.entries.len() > limits.txns_kept && self.bytes > limits.bytes_kept)
    }

    /// Drops from the front what is more than the limits allow, as far as it is `decided`.
    pub fn forget(&mut self, decided: Zxid) {
        while let Some(entry) = self.entries.front().copied()
            && entry.zxid <= decided
            && self.is_too_long()
        {
            self.entries.pop_front();
            self.before = entry.zxid;
            self.bytes -= entry.len as usize;
            let first = self.entries.front().map_or(entry.chunk + 1, |first| first.chunk);
            while self.first_chunk < first {
                if let Some(mut chunk) = self.chunks.pop_front() {
                    chunk.clear();
                    self.spare = Some(chunk).filter(|chunk| chunk.capacity() <= limits::HISTORY_CHUNK_BYTES);
                }
                self.first_chunk += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(txns_kept: usize) -> History {
        History::new(Zxid::new(1, 3), HistoryLimits { txns_kept, bytes_kept: 0, bytes_max: 1 << 20 })
    }

    #[test]
    fn zxids_follow_each_other_without_gaps() {
        let check = |previous, next, expected| assert_eq!(is_next(previous, next), expected, "{previous} {next}");
        check(Zxid::new(1, 3), Zxid::new(1, 4), true);
        check(Zxid::new(1, 3), Zxid::new(1, 5), false);
        check(Zxid::new(1, 3), Zxid::new(1, 3), false);
        check(Zxid::new(1, 3), Zxid::new(2, 1), true);
        check(Zxid::new(1, 3), Zxid::new(4, 1), true);
        check(Zxid::new(1, 3), Zxid::new(2, 2), false);
        check(Zxid::new(1, u32::MAX), Zxid::new(2, 0), false);
        check(Zxid::new(2, 0), Zxid::new(2, 1), true);
        check(Zxid::new(2, 1), Zxid::new(1, 2), false);
    }

    #[test]
    fn entries_are_found_by_zxid_and_from_a_cursor() {
        let mut history = history(10);
        history.append(Zxid::new(1, 4), b"four");
        history.append(Zxid::new(1, 5), b"");
        history.append(Zxid::new(3, 1), b"one");
        assert_eq!(history.txn(Zxid::new(1, 4)), Some(&b"four"[..]));
        assert_eq!(history.txn(Zxid::new(1, 5)), Some(&b""[..]));
        assert_eq!(history.txn(Zxid::new(1, 3)), None);
        assert!(history.knows(Zxid::new(1, 3)) && !history.knows(Zxid::new(2, 1)));
        assert_eq!(history.at_or_before(Zxid::new(1, 2)), None);
        assert_eq!(history.at_or_before(Zxid::new(2, 9)), Some(Zxid::new(1, 5)));
        assert_eq!(history.at_or_before(Zxid::new(9, 9)), Some(Zxid::new(3, 1)));
        let after: Vec<_> = history.after(Zxid::new(1, 4)).map(|(zxid, _)| zxid).collect();
        assert_eq!(after, [Zxid::new(1, 5), Zxid::new(3, 1)]);
        assert_eq!(history.last(), Zxid::new(3, 1));
    }

    #[test]
    fn only_what_is_decided_is_forgotten() {
        let mut history = history(2);
        for counter in 4..=9 {
            history.append(Zxid::new(1, counter), &[counter as u8; 3]);
        }
        history.forget(Zxid::new(1, 5));
        assert_eq!((history.before(), history.len(), history.bytes()), (Zxid::new(1, 5), 4, 12));
        history.forget(Zxid::new(1, 9));
        assert_eq!((history.before(), history.len(), history.bytes()), (Zxid::new(1, 7), 2, 6));
        assert_eq!(history.txn(Zxid::new(1, 9)), Some(&[9; 3][..]));
    }

    #[test]
    fn the_tail_is_cut_and_written_anew() {
        let mut history = history(10);
        for counter in 4..=9 {
            history.append(Zxid::new(1, counter), &[counter as u8; 3]);
        }
        history.truncate(Zxid::new(1, 6));
        assert_eq!((history.last(), history.len(), history.bytes()), (Zxid::new(1, 6), 3, 9));
        history.append(Zxid::new(2, 1), b"new");
        assert_eq!(history.txn(Zxid::new(2, 1)), Some(&b"new"[..]));
        assert_eq!(history.txn(Zxid::new(1, 6)), Some(&[6; 3][..]));
        history.truncate(Zxid::new(1, 1));
        assert_eq!((history.last(), history.before(), history.len()), (Zxid::new(1, 1), Zxid::new(1, 1), 0));
        history.append(Zxid::new(1, 2), b"again");
        assert_eq!(history.txn(Zxid::new(1, 2)), Some(&b"again"[..]));
    }

    #[test]
    fn chunks_come_and_go_with_their_entries() {
        let mut history = History::new(Zxid::ZERO, HistoryLimits { txns_kept: 3, bytes_kept: 0, bytes_max: 1 << 30 });
        for counter in 1..=50_u32 {
            let txn = vec![counter as u8; limits::HISTORY_CHUNK_BYTES / 3 + counter as usize];
            history.append(Zxid::new(0, counter), &txn);
            history.forget(Zxid::new(0, counter.saturating_sub(1)));
            assert!(history.chunks.len() <= 3, "{}", history.chunks.len());
            for (zxid, txn) in history.after(history.before()) {
                assert!(txn.iter().all(|byte| *byte == zxid.counter() as u8));
            }
        }
        history.truncate(Zxid::new(0, 48));
        assert_eq!(history.txn(Zxid::new(0, 48)).map(<[u8]>::len), Some(limits::HISTORY_CHUNK_BYTES / 3 + 48));
    }

    #[test]
    #[should_panic(expected = "does not follow")]
    fn a_gap_is_never_appended() {
        history(10).append(Zxid::new(1, 5), b"");
    }
}
