//! What a server has given to its log, read from the bytes that it writes: the machines are not asked.

use std::collections::BTreeMap;

use super::disk::{Disk, Inode};
use crate::storage::log_file::{ENTRY_EXTRA_BYTES, ENTRY_HEAD_BYTES, ENTRY_MARK, FILE_HEADER_BYTES};
use crate::types::zxid::Zxid;
use crate::wire::txn::TxnHeader;

/// Where an entry lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    inode: Inode,
    start: usize,
    end: usize,
}

/// A log file as the server means it to be once all writes have landed.
#[derive(Debug, Default)]
struct Image {
    bytes: Vec<u8>,
    /// Everything before was read.
    parsed: usize,
}

/// The entries of one server's log.
#[derive(Debug, Default)]
pub struct Logged {
    places: BTreeMap<Zxid, Place>,
    images: BTreeMap<Inode, Image>,
}

impl Logged {
    /// A write has started. Tells every entry that is whole with it.
    pub fn on_write(&mut self, inode: Inode, offset: u64, bytes: &[u8], mut tell: impl FnMut(Zxid, &[u8])) {
        let image = self.images.entry(inode).or_default();
        let offset = offset as usize;
        if image.bytes.len() < offset + bytes.len() {
            image.bytes.resize(offset + bytes.len(), 0);
        }
        image.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        let start = image.parsed.max(FILE_HEADER_BYTES);
        image.parsed = parse(&image.bytes, start, |zxid, payload, from, upto| {
            self.places.insert(zxid, Place { inode, start: from, end: upto });
            tell(zxid, payload);
        });
    }

    /// The server starts: what its disk holds, and nothing else.
    pub fn rebuild(&mut self, disk: &Disk, mut tell: impl FnMut(Zxid, &[u8])) {
        *self = Logged::default();
        for (name, inode) in disk.names() {
            if !is_log(name) {
                continue;
            }
            let bytes = disk.bytes(inode).to_vec();
            let parsed = parse(&bytes, FILE_HEADER_BYTES, |zxid, payload, start, end| {
                self.places.insert(zxid, Place { inode, start, end });
                tell(zxid, payload);
            });
            self.images.insert(inode, Image { bytes, parsed });
        }
    }

    /// The last txn up to which a crash at this moment would leave everything whole, from `after` on.
    pub fn durable_end(&self, disk: &Disk, after: Zxid) -> Zxid {
        let behind = self.places.range(Zxid(after.0 + 1)..).map(|(zxid, _)| *zxid);
        behind.take_while(|zxid| self.is_durable(disk, *zxid)).last().unwrap_or(after)
    }

    /// Whether a crash at this moment would leave the entry of this zxid whole, in a file that recovery finds.
    pub fn is_durable(&self, disk: &Disk, zxid: Zxid) -> bool {
        let Some(place) = self.places.get(&zxid) else { return false };
        let Some(image) = self.images.get(&place.inode) else { return false };
        let is_there = disk.bytes(place.inode).get(place.start..place.end) == image.bytes.get(place.start..place.end);
        is_there && disk.name_of(place.inode).is_some_and(is_log)
    }
}

fn is_log(name: &str) -> bool {
    name.starts_with("log.")
}

/// Reads entries from `start` on; returns where the last whole one ends.
fn parse(bytes: &[u8], start: usize, mut tell: impl FnMut(Zxid, &[u8], usize, usize)) -> usize {
    let mut at = start;
    loop {
        let Some(head) = bytes.get(at..at + ENTRY_HEAD_BYTES) else { return at };
        let Some(length) = head.last_chunk::<4>().map(|length| i32::from_be_bytes(*length)) else { return at };
        if length <= 0 {
            return at;
        }
        let end = at + length as usize + ENTRY_EXTRA_BYTES;
        let Some(entry) = bytes.get(at..end).filter(|entry| entry.last() == Some(&ENTRY_MARK)) else { return at };
        let payload = &entry[ENTRY_HEAD_BYTES..entry.len() - 1];
        let Ok((header, _)) = TxnHeader::peek(payload) else { return at };
        tell(header.zxid, payload, at, end);
        at = end;
    }
}
