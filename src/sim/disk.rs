//! One server's disk: files whose bytes and names are durable, and operations under way, of which a crash keeps some.
//!
//! The driver of the real server makes durable whatever it reports as done (`RWF_DSYNC`, fsync of file and directory), so an
//! operation takes effect as a whole when it is finished. Until then nothing of it counts, and a crash leaves any part of
//! it: of a write, any of its sectors; of a rename, the old name or the new one; of a new file, nothing, or a temporary one.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::Path;

use super::dice::Dice;
use crate::storage::files::TMP_PREFIX;
use crate::storage::log_file::FILE_HEADER;
use crate::types::time::Time;
use crate::types::zxid::Zxid;

/// What a disk writes as a whole or not at all, bytes.
const SECTOR_BYTES: usize = 512;

/// A file, whatever its name. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Inode(u64);

/// Something under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// A log under a temporary name, with its header and zeros up to an offset.
    MakeLog {
        inode: Inode,
        name: String,
        zeroed: u64,
    },
    /// Zeros behind everything that was written.
    Zero {
        inode: Inode,
        from: u64,
        upto: u64,
    },
    Truncate {
        inode: Inode,
        length: u64,
    },
    Rename {
        from: String,
        to: String,
    },
    Remove {
        name: String,
    },
    /// A whole file, under a temporary name first.
    Put {
        name: String,
        bytes: Vec<u8>,
    },
    /// Small files, one after the other, each as a whole.
    PutEpochs {
        files: Vec<(String, Vec<u8>)>,
    },
    /// The helper has got as far as something that is done elsewhere.
    Errand,
    /// A durable write to a log.
    Write {
        inode: Inode,
        offset: u64,
        bytes: Vec<u8>,
    },
}

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    Done,
    /// There is no space.
    Full,
    /// The disk says that it could not.
    Failed,
}

/// What is wrong with the disk at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Condition {
    pub is_full: bool,
    /// Everything takes so many times as long.
    pub slowness: u32,
    /// The next durable write fails.
    pub fails_next_write: bool,
}

#[derive(Clone)]
pub struct Disk {
    dice: Dice,
    files: BTreeMap<Inode, Vec<u8>>,
    names: BTreeMap<String, Inode>,
    next_inode: u64,
    next_operation: u64,
    /// Durable writes, and files of other helpers: any of them may be finished first.
    writes: BTreeMap<u64, Operation>,
    /// The helper's work, one after the other.
    helper: VecDeque<(u64, Operation)>,
    /// When the helper is done with all of it.
    helper_free: Time,
    pub condition: Condition,
}

impl Disk {
    pub fn new(dice: Dice) -> Disk {
        Disk {
            dice,
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            next_inode: 0,
            next_operation: 0,
            writes: BTreeMap::new(),
            helper: VecDeque::new(),
            helper_free: Time(0),
            condition: Condition::default(),
        }
    }

    /// A number for a file that is about to be made.
    pub fn new_inode(&mut self) -> Inode {
        self.next_inode += 1;
        Inode(self.next_inode)
    }

    /// Starts an operation; tells its number and when it will be done.
    pub fn start(&mut self, now: Time, operation: Operation) -> (u64, Time) {
        let number = self.next_operation;
        self.next_operation += 1;
        let slowness = self.condition.slowness.max(1);
        match operation {
            Operation::Write { .. } => {
                // A good disk takes 60 µs; now and then it does something else first.
                let usual = if self.dice.one_in(50) { 500..=20_000 } else { 50..=400 };
                let at = now + self.dice.spread(usual) * slowness;
                self.writes.insert(number, operation);
                (number, at)
            }
            Operation::Put { .. } | Operation::PutEpochs { .. } => {
                let at = now + self.dice.spread(300..=20_000) * slowness;
                self.writes.insert(number, operation);
                (number, at)
            }
            Operation::MakeLog { .. }
            | Operation::Zero { .. }
            | Operation::Truncate { .. }
            | Operation::Rename { .. }
            | Operation::Remove { .. }
            | Operation::Errand => {
                let at = now.max(self.helper_free) + self.dice.spread(200..=10_000) * slowness;
                self.helper_free = at;
                self.helper.push_back((number, operation));
                (number, at)
            }
        }
    }

    /// Ends an operation. `None`: a crash has ended it before.
    pub fn finish(&mut self, number: u64) -> Option<(Operation, Ended)> {
        if let Some(write) = self.writes.remove(&number) {
            let ended = match write {
                Operation::Put { .. } if self.condition.is_full => Ended::Full,
                Operation::Write { .. } if std::mem::take(&mut self.condition.fails_next_write) => Ended::Failed,
                _ => Ended::Done,
            };
            match ended {
                Ended::Done => self.apply(&write),
                Ended::Full | Ended::Failed => self.apply_part(&write),
            }
            return Some((write, ended));
        }
        if self.helper.front().is_none_or(|(front, _)| *front != number) {
            return None;
        }
        let (_, operation) = self.helper.pop_front()?;
        let needs_space = matches!(operation, Operation::MakeLog { .. } | Operation::Zero { .. });
        if needs_space && self.condition.is_full {
            return Some((operation, Ended::Full));
        }
        self.apply(&operation);
        Some((operation, Ended::Done))
    }

    /// The process is gone, or the power: of what was under way any part may have happened.
    pub fn crash(&mut self) {
        for write in std::mem::take(&mut self.writes).into_values() {
            self.apply_part(&write);
        }
        if let Some((_, operation)) = std::mem::take(&mut self.helper).pop_front() {
            self.apply_part(&operation);
        }
        self.helper_free = Time(0);
        self.condition.fails_next_write = false;
        let named: Vec<Inode> = self.names.values().copied().collect();
        self.files.retain(|inode, _| named.contains(inode));
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::MakeLog { inode, name, zeroed } => {
                let mut bytes = FILE_HEADER.to_vec();
                bytes.resize(*zeroed as usize, 0);
                self.files.insert(*inode, bytes);
                self.names.insert(name.clone(), *inode);
            }
            Operation::Zero { inode, from: _, upto } => self.grow(*inode, *upto),
            Operation::Truncate { inode, length } => {
                if let Some(file) = self.files.get_mut(inode) {
                    file.truncate(*length as usize);
                }
            }
            Operation::Rename { from, to } => {
                if let Some(inode) = self.names.remove(from) {
                    self.names.insert(to.clone(), inode);
                }
            }
            Operation::Remove { name } => {
                self.names.remove(name);
            }
            Operation::Put { name, bytes } => self.put(name, bytes.clone()),
            Operation::PutEpochs { files } => files.iter().for_each(|(name, bytes)| self.put(name, bytes.clone())),
            Operation::Errand => {}
            Operation::Write { inode, offset, bytes } => {
                self.grow(*inode, offset + bytes.len() as u64);
                if let Some(file) = self.files.get_mut(inode) {
                    file[*offset as usize..][..bytes.len()].copy_from_slice(bytes);
                }
            }
        }
    }

    /// What a crash, or a disk that fails, leaves of an operation.
    fn apply_part(&mut self, operation: &Operation) {
        if self.dice.one_in(3) {
            return self.apply(operation);
        }
        match operation {
            Operation::Zero { inode, from, upto } => {
                let upto = self.dice.within(*from..=*upto);
                self.grow(*inode, upto);
            }
            Operation::Write { inode, offset, bytes } => self.tear(*inode, *offset, bytes),
            Operation::MakeLog { name, .. } | Operation::Put { name, .. } => {
                if self.dice.one_in(2) {
                    let left = self.dice.below(5000) as usize;
                    self.put(&format!("{TMP_PREFIX}{name}.new"), vec![0; left]);
                }
            }
            Operation::PutEpochs { files } => {
                let done = self.dice.index(files.len() + 1);
                files[..done].iter().for_each(|(name, bytes)| self.put(name, bytes.clone()));
            }
            Operation::Truncate { .. } | Operation::Rename { .. } | Operation::Remove { .. } | Operation::Errand => {}
        }
    }

    /// The operation that the helper works on.
    pub fn helper_front(&self) -> Option<u64> {
        self.helper.front().map(|(number, _)| *number)
    }

    /// Work on whole files was broken off: only a beginning of what led to `changed` has happened. First go snapshots, then
    /// logs from the newest on, and what is new comes last.
    pub fn change_partly(&mut self, changed: &Disk) {
        let is_changed = |name: &&String| {
            let new = changed.names.get(*name).map(|inode| changed.bytes(*inode));
            new != Some(self.bytes(self.names[*name]))
        };
        let mut steps: Vec<String> = self.names.keys().filter(is_changed).cloned().collect();
        steps.sort_by_key(|name| (!name.starts_with("snapshot."), std::cmp::Reverse((name.len(), name.clone()))));
        steps.extend(changed.names.keys().filter(|name| !self.names.contains_key(*name)).cloned());
        let done = self.dice.index(steps.len() + 1);
        for name in &steps[..done] {
            match changed.names.get(name) {
                Some(inode) => self.put(name, changed.bytes(*inode).to_vec()),
                None => _ = self.names.remove(name),
            }
        }
    }

    /// Any of the sectors of a write: all but some, some, or as far as it came.
    fn tear(&mut self, inode: Inode, offset: u64, bytes: &[u8]) {
        let sectors = bytes.len().div_ceil(SECTOR_BYTES);
        let style = self.dice.below(4);
        let upto = self.dice.index(sectors + 1);
        for (at, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
            let is_written = match style {
                0 => false,
                1 => at < upto,
                2 => self.dice.one_in(2),
                _ => !self.dice.one_in(8),
            };
            if is_written {
                let start = offset as usize + at * SECTOR_BYTES;
                self.grow(inode, (start + sector.len()) as u64);
                if let Some(file) = self.files.get_mut(&inode) {
                    file[start..][..sector.len()].copy_from_slice(sector);
                }
            }
        }
    }

    fn grow(&mut self, inode: Inode, upto: u64) {
        if let Some(file) = self.files.get_mut(&inode)
            && file.len() < upto as usize
        {
            file.resize(upto as usize, 0);
        }
    }

    fn put(&mut self, name: &str, bytes: Vec<u8>) {
        let inode = self.new_inode();
        self.files.insert(inode, bytes);
        if let Some(old) = self.names.insert(name.to_owned(), inode) {
            self.files.remove(&old);
        }
    }

    /// The durable bytes of a file.
    pub fn bytes(&self, inode: Inode) -> &[u8] {
        self.files.get(&inode).map_or(&[], Vec::as_slice)
    }

    /// Names that would be found after a crash.
    pub fn names(&self) -> impl Iterator<Item = (&str, Inode)> {
        self.names.iter().map(|(name, inode)| (name.as_str(), *inode))
    }

    pub fn name_of(&self, inode: Inode) -> Option<&str> {
        self.names().find(|(_, named)| *named == inode).map(|(name, _)| name)
    }

    /// The zxid of the newest snapshot.
    pub fn newest_snapshot(&self) -> Option<Zxid> {
        let zxid = |name: &str| u64::from_str_radix(name.strip_prefix("snapshot.")?, 16).ok();
        self.names.keys().filter_map(|name| zxid(name)).max().map(Zxid)
    }

    /// Makes a directory of this disk, for code that reads real ones.
    pub fn write_out(&self, directory: &Path) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if !path.is_dir() {
                fs::remove_file(path)?;
            }
        }
        for (name, inode) in self.names() {
            fs::write(directory.join(name), self.bytes(inode))?;
        }
        Ok(())
    }

    /// What that code has made of it, all of it durable. Files that are as they were keep their numbers.
    pub fn read_back(&mut self, directory: &Path) -> io::Result<()> {
        let mut names = BTreeMap::new();
        let mut files = BTreeMap::new();
        let mut found: Vec<_> = fs::read_dir(directory)?.collect::<io::Result<_>>()?;
        found.sort_by_key(|entry| entry.file_name());
        for entry in found {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if entry.path().is_dir() || !is_kept(&name) {
                continue;
            }
            let bytes = fs::read(entry.path())?;
            let inode = match self.names.get(&name) {
                Some(inode) => *inode,
                None => self.new_inode(),
            };
            names.insert(name, inode);
            files.insert(inode, bytes);
        }
        (self.names, self.files) = (names, files);
        Ok(())
    }
}

/// Locks are the process's.
fn is_kept(name: &str) -> bool {
    !name.ends_with(".lock")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::dice::Salt;

    fn disk(seed: u64) -> (Disk, Inode) {
        let mut disk = Disk::new(Dice::new(seed, Salt::Disk, 0));
        let inode = disk.new_inode();
        let (number, _) = disk.start(Time(0), Operation::MakeLog { inode, name: "tmp-log-0".into(), zeroed: 8192 });
        assert!(matches!(disk.finish(number), Some((_, Ended::Done))));
        (disk, inode)
    }

    #[test]
    fn what_is_finished_survives_a_crash_whole() {
        for seed in 0..50 {
            let (mut disk, inode) = disk(seed);
            let write = Operation::Write { inode, offset: 4096, bytes: vec![7; 4096] };
            let (number, _) = disk.start(Time(0), write);
            disk.finish(number);
            disk.crash();
            assert_eq!(disk.bytes(inode)[4096..], [7; 4096]);
        }
    }

    #[test]
    fn a_crash_tears_what_is_under_way_at_sector_borders() {
        let mut torn = 0;
        for seed in 0..200 {
            let (mut disk, inode) = disk(seed);
            disk.start(Time(0), Operation::Write { inode, offset: 0, bytes: vec![7; 8192] });
            disk.start(Time(0), Operation::Rename { from: "tmp-log-0".into(), to: "log.1".into() });
            disk.crash();
            let sectors: Vec<bool> = disk.bytes(inode).chunks(SECTOR_BYTES).map(|sector| sector[511] == 7).collect();
            for (sector, is_new) in disk.bytes(inode).chunks(SECTOR_BYTES).zip(&sectors) {
                assert!(sector[20..].iter().all(|byte| (*byte == 7) == *is_new));
            }
            torn += u32::from(sectors.contains(&true) && sectors.contains(&false));
            assert!(matches!(disk.name_of(inode), Some("tmp-log-0" | "log.1")));
        }
        assert!(torn > 20, "{torn}");
    }

    #[test]
    fn a_full_disk_refuses_what_needs_space_and_takes_the_rest() {
        let (mut disk, inode) = disk(1);
        disk.condition.is_full = true;
        let (zero, _) = disk.start(Time(0), Operation::Zero { inode, from: 8192, upto: 16384 });
        let (write, _) = disk.start(Time(0), Operation::Write { inode, offset: 0, bytes: vec![7; 4096] });
        assert!(matches!(disk.finish(write), Some((_, Ended::Done))));
        assert!(matches!(disk.finish(zero), Some((_, Ended::Full))));
        assert_eq!(disk.bytes(inode).len(), 8192);
    }
}
