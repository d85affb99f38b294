//! The writer: makes the next version, publishes it or takes it back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::arena::{Ref, Space};
use super::heap::{Garbage, Heap};
use super::queue::Queue;
use super::reader::{Reader, ReaderFactory};
use super::reclaim::Reclaim;
use super::record::{self, Death, Directory, NewVersion, NewZnode, Owned, Owner, Session, Version, Znode};
use super::slots::Slots;
use super::view::{Children, HEAD, Node, OwnedPaths, Sessions, View};
use super::{CONTAINERS, Shared, TTL_NODES};
use crate::types::acl::AclList;
use crate::types::path;
use crate::types::stat::StatPersisted;
use crate::types::time::WallTime;
use crate::types::zxid::Zxid;

/// Why the store refused. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreError {
    /// Not absolute, ends with a slash, or names the root where it cannot be meant.
    BadPath,
    NoNode,
    NodeExists,
    NoParent,
    /// It has children.
    NotEmpty,
    NoSession,
}

/// What the head holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// The root included, once.
    pub znodes: u64,
    /// Of all paths (the root's is `/`) and data: Java's `approximate_data_size`.
    pub bytes: u64,
    /// Owned by sessions; neither containers nor TTL nodes.
    pub ephemerals: u64,
    pub sessions: u64,
}

/// The stat fields that come with new data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataChange {
    pub mzxid: Zxid,
    pub mtime: WallTime,
    pub version: i32,
}

/// One change of the head: undone when its version is rolled back; once it is published, what it replaced is garbage.
#[derive(Clone, Copy)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) what: What,
}

#[derive(Clone, Copy)]
pub(super) enum What {
    Created(Ref<Znode>),
    Deleted(Ref<Znode>),
    /// Data or ACL, and the version that was visible before.
    Data(Ref<Znode>, Ref<Version>),
    Directory(Ref<Znode>, Option<Ref<Directory>>),
    Session(Ref<Owner>, Option<Ref<Session>>),
}

/// The only one who changes the store. Every change belongs to the version opened last.
pub struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) heap: Heap,
    /// `version` ascends; behind the published ones are those that can be undone.
    pub(super) changes: Queue<Change>,
    pub(super) reclaim: Reclaim,
    pub(super) counts: Counts,
    /// Newest version begun and not rolled back. `published ≤ head`.
    head: u64,
    /// The head before the open version.
    before: u64,
    is_open: bool,
    published: u64,
}

impl Writer {
    /// An empty store at version 0, hashed with a key that no client can know.
    pub fn new() -> Writer {
        Writer::with_hasher(ahash::RandomState::new())
    }

    /// The same with a hash key made from a seed: for runs that must repeat to the last bit.
    pub fn with_seed(seed: u64) -> Writer {
        Writer::with_hasher(ahash::RandomState::with_seeds(seed, !seed, seed.rotate_left(32), 0x6f78_6b65_6570_6572))
    }

    fn with_hasher(hasher: ahash::RandomState) -> Writer {
        let (shared, heap) = Shared::new(hasher, new_root);
        Writer {
            shared: Arc::new(shared),
            heap,
            changes: Queue::new(),
            reclaim: Reclaim::new(),
            counts: Counts { znodes: 1, bytes: 1, ..Counts::default() },
            head: 0,
            before: 0,
            is_open: false,
            published: 0,
        }
    }

    /// For other threads to make readers.
    pub fn readers(&self) -> ReaderFactory {
        ReaderFactory { shared: self.shared.clone() }
    }

    /// As [`ReaderFactory::reader`].
    pub fn reader(&self) -> Option<Reader> {
        self.readers().reader()
    }

    /// Opens a version: `version > head()`.
    pub fn begin(&mut self, version: u64) {
        assert!(version > self.head, "versions go forward: {version} after {}", self.head);
        assert!(version < HEAD, "the last number means the head");
        (self.before, self.head, self.is_open) = (self.head, version, true);
    }

    /// The newest version begun and not rolled back.
    pub fn head(&self) -> u64 {
        self.head
    }

    pub fn published(&self) -> u64 {
        self.published
    }

    /// Lets readers adopt all versions up to this one: `published() ≤ version ≤ head()`. They can no longer be undone.
    pub fn publish(&mut self, version: u64) {
        assert!(version <= self.head, "version {version} was not begun, {} was", self.head);
        assert!(version >= self.published, "version {version} after {} is published", self.published);
        if version == self.head {
            self.is_open = false;
        }
        self.published = version;
        self.shared.pins.publish(version);
    }

    /// The oldest version that a walking reader is at, or the published one.
    pub fn adopted_by_all(&self) -> u64 {
        self.shared.pins.slowest()
    }

    /// Undoes every version after this one: `published() ≤ version`. Their numbers may be used again. Costs what they
    /// changed. A version must be opened before anything else is changed.
    pub fn roll_back(&mut self, version: u64) {
        assert!(version >= self.published, "version {} is published, {version} is before it", self.published);
        self.is_open = false;
        self.head = self.head.min(version);
        while self.changes.back().is_some_and(|change| change.version > version) {
            if let Some(change) = self.changes.pop_back() {
                self.undo(change.what);
            }
        }
    }

    /// Undoes the open version only (a multi that failed). The head is again what it was before `begin`.
    pub fn abandon(&mut self) {
        assert!(self.is_open, "no version is open");
        self.roll_back(self.before.max(self.published));
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes of the store's own memory in use, garbage that waits included; data beyond 16 KiB is not.
    pub fn live_bytes(&self) -> usize {
        self.heap.live_bytes()
    }

    /// What the head sees.
    #[inline]
    pub(super) fn view(&self) -> View<'_> {
        // SAFETY: the writer is borrowed, and it alone unlinks and frees.
        unsafe { View::new(&self.shared, HEAD) }
    }

    pub(super) fn space(&self) -> Space {
        self.heap.space()
    }

    #[inline]
    pub fn get(&self, path: &str) -> Option<Node<'_>> {
        self.view().node(path)
    }

    /// Appends what `get` returns for each path. Many at once cost a fraction of one after the other.
    pub fn get_many<'a>(&'a self, paths: &[&str], out: &mut Vec<Option<Node<'a>>>) {
        self.view().get_many(paths, out);
    }

    /// Prepares look-ups and changes that follow soon.
    pub fn warm(&self, paths: &[&str]) {
        self.view().warm(paths);
    }

    /// Names of the children from a cursor on; 0 is the start. `None`: no such znode.
    pub fn list(&self, path: &str, cursor: u32) -> Option<Children<'_>> {
        self.view().list(path, cursor)
    }

    /// Paths of what the key owns, from a cursor on; 0 is the start.
    pub fn owned(&self, owner_key: i64, cursor: u32) -> OwnedPaths<'_> {
        self.view().owned(owner_key, cursor)
    }

    /// How many znodes the key owns.
    pub fn owned_count(&self, owner_key: i64) -> u32 {
        let owner = self.view().owner(owner_key);
        owner.map_or(0, |at| self.view().owner_at(at).count.load(Ordering::Relaxed))
    }

    /// Timeout in ms. `None`: no such session.
    pub fn session(&self, owner_key: i64) -> Option<i32> {
        self.view().session(owner_key)
    }

    /// Sessions from a cursor on; 0 is the start.
    pub fn sessions(&self, cursor: u32) -> Sessions<'_> {
        self.view().sessions(cursor)
    }

    fn open_version(&self) -> u64 {
        assert!(self.is_open, "no version is open");
        self.head
    }

    pub(super) fn log(&mut self, what: What) {
        self.changes.push_back(Change { version: self.head, what });
    }

    /// Creates a znode. Its parent gets one more child; what else changes there is for `set_directory`. With an
    /// `owner_key` it is among what that key owns.
    pub fn create(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: &AclList,
        stat: &StatPersisted,
        owner_key: Option<i64>,
    ) -> Result<(), StoreError> {
        let born = self.open_version();
        let (parent_path, name) = path::split(path).ok_or(StoreError::BadPath)?;
        if name.is_empty() || !path.starts_with('/') {
            return Err(StoreError::BadPath);
        }
        let tag = self.shared.tag_of_path(path);
        let previous = self.view().newest(tag, path);
        if previous.is_some_and(|at| self.view().znode(at).death.load().is_none()) {
            return Err(StoreError::NodeExists);
        }
        let parent = self.view().find(parent_path).ok_or(StoreError::NoParent)?;

        let new = NewVersion {
            born,
            mzxid: stat.mzxid.as_i64(),
            mtime: stat.mtime.0,
            acl: self.heap.use_acl(acl),
            version: stat.version,
            aversion: stat.aversion,
            prefix_crc: prefix_crc(path, data),
        };
        let head = self.heap.put_version(&new, data);
        let plain = stat.pzxid == stat.czxid && stat.cversion == 0;
        let own_directory =
            (!plain).then(|| self.heap.put(Directory::new(born, stat.pzxid.as_i64(), stat.cversion, 0)));
        let owned = (owner_key.is_some() || stat.ephemeral_owner != 0).then(|| {
            let owner = owner_key.map(|key| self.owner_or_new(key));
            self.heap.put(Owned { ephemeral_owner: stat.ephemeral_owner, owner, slot: 0.into() })
        });
        let new = NewZnode {
            born,
            czxid: stat.czxid.as_i64(),
            ctime: stat.ctime.0,
            head,
            directory: own_directory,
            previous,
            parent: Some(parent),
            owned,
        };
        let at = self.heap.put_znode(new, path);
        self.link_znode(at, parent, previous);
        match previous {
            Some(old) => self.shared.znodes.replace(self.heap.space(), tag, old, at),
            None => self.shared.znodes.insert(&mut self.heap, tag, at),
        }
        self.add_children(parent, 1);
        self.log(What::Created(at));
        self.count(at, path.len(), data.map_or(0, <[u8]>::len), true);
        Ok(())
    }

    /// Puts a new znode where it is found by other ways than its path.
    fn link_znode(&mut self, at: Ref<Znode>, parent: Ref<Znode>, previous: Option<Ref<Znode>>) {
        let space = self.space();
        // SAFETY: alive: just created, found at the head, and known to the new znode.
        unsafe {
            let (znode, parent) = (space.get(at), space.get(parent));
            let children = table_of(&mut self.heap, &parent.children);
            znode.slot.store(space.get(children).insert(&mut self.heap, at), Ordering::Relaxed);
            if let Some(owned) = znode.owned {
                let owned = space.get(owned);
                if let Some(owner) = owned.owner {
                    let table = table_of(&mut self.heap, &space.get(owner).owned);
                    owned.slot.store(space.get(table).insert(&mut self.heap, at), Ordering::Relaxed);
                }
            }
            if let Some(death) = previous.and_then(|old| space.get(old).death.load()) {
                space.get(death).newer.store(Some(at));
            }
        }
    }

    /// Counts a znode in or out.
    pub(super) fn count(&mut self, at: Ref<Znode>, path_len: usize, data_len: usize, added: bool) {
        let by = if added { 1_u64 } else { 1_u64.wrapping_neg() };
        let bytes = (path_len + data_len) as u64;
        self.counts.znodes = self.counts.znodes.wrapping_add(by);
        self.counts.bytes = self.counts.bytes.wrapping_add(bytes.wrapping_mul(by));
        let owner = self.view().owner_of(at);
        if let Some(owner) = owner.map(|owner| self.view().owner_at(owner)) {
            if added {
                owner.count.fetch_add(1, Ordering::Relaxed);
            } else {
                owner.count.fetch_sub(1, Ordering::Relaxed);
            }
            if owner.key != CONTAINERS && owner.key != TTL_NODES {
                self.counts.ephemerals = self.counts.ephemerals.wrapping_add(by);
            }
        }
    }

    /// Deletes a znode without children. Its parent gets one child less.
    pub fn delete(&mut self, path: &str) -> Result<(), StoreError> {
        let version = self.open_version();
        let node = self.get(path).ok_or(StoreError::NoNode)?;
        let (at, data_len) = (node.at(), node.data_length());
        if node.num_children() != 0 {
            return Err(StoreError::NotEmpty);
        }
        let parent = self.view().znode(at).parent.ok_or(StoreError::BadPath)?;
        let death = self.heap.put(Death::new(version));
        self.view().znode(at).death.store(Some(death));
        self.add_children(parent, -1);
        self.log(What::Deleted(at));
        self.count(at, path.len(), data_len, false);
        Ok(())
    }

    /// New data. Costs one record with this data.
    pub fn set_data(&mut self, path: &str, data: Option<&[u8]>, change: DataChange) -> Result<(), StoreError> {
        let born = self.open_version();
        let at = self.view().find(path).ok_or(StoreError::NoNode)?;
        let old = self.view().head_of(at);
        let new = NewVersion {
            born,
            mzxid: change.mzxid.as_i64(),
            mtime: change.mtime.0,
            acl: self.heap.use_acl_again(old.acl),
            version: change.version,
            aversion: old.aversion,
            prefix_crc: prefix_crc(path, data),
        };
        let old_len = old.data_len().unwrap_or(0) as u64;
        let record = self.heap.put_version(&new, data);
        self.put_head(at, record);
        self.counts.bytes = self.counts.bytes - old_len + data.map_or(0, |data| data.len() as u64);
        Ok(())
    }

    /// A new ACL. Costs one record with the old data.
    pub fn set_acl(&mut self, path: &str, acl: &AclList, aversion: i32) -> Result<(), StoreError> {
        let born = self.open_version();
        let at = self.view().find(path).ok_or(StoreError::NoNode)?;
        let acl = self.heap.use_acl(acl);
        // SAFETY: the writer is borrowed, and it alone unlinks and frees; the heap is another field.
        let view = unsafe { View::new(&self.shared, HEAD) };
        let (old, data) = (view.head_of(at), view.head_data_of(at));
        let new = NewVersion {
            born,
            mzxid: old.mzxid,
            mtime: old.mtime,
            acl,
            version: old.version,
            aversion,
            prefix_crc: old.prefix_crc,
        };
        let record = self.heap.put_version(&new, data);
        self.put_head(at, record);
        Ok(())
    }

    fn put_head(&mut self, at: Ref<Znode>, new: Ref<Version>) {
        let space = self.space();
        // SAFETY: found at the head, so alive; the writer alone frees.
        unsafe {
            let head = &space.get(at).head;
            let old = head.load().expect("a znode has a version");
            if space.get(old).link.version == self.head {
                // Nobody will ever see the old one, and nothing can be rolled back to it.
                record::replace(space, head, new);
                self.heap.retire(Garbage::Version(old));
            } else {
                record::push(space, head, new);
                self.log(What::Data(at, old));
            }
        }
    }

    /// The directory record of a znode: what creating below it changes.
    pub fn set_directory(&mut self, path: &str, pzxid: Zxid, cversion: i32) -> Result<(), StoreError> {
        self.open_version();
        let at = self.view().find(path).ok_or(StoreError::NoNode)?;
        let record = self.directory_to_change(at);
        record.pzxid.store(pzxid.as_i64(), Ordering::Relaxed);
        record.cversion.store(cversion, Ordering::Relaxed);
        Ok(())
    }

    fn add_children(&mut self, parent: Ref<Znode>, by: i32) {
        self.directory_to_change(parent).num_children.fetch_add(by, Ordering::Relaxed);
    }

    /// The record of the open version, as long as no reader looks into it.
    fn directory_to_change(&mut self, at: Ref<Znode>) -> &Directory {
        let space = self.space();
        // SAFETY: found at the head, so alive; the writer alone frees, and is borrowed.
        unsafe {
            let znode = space.get(at);
            let old = znode.directory.load();
            let new = match old.map(|old| space.get(old)) {
                Some(record) if record.link.version == self.head => return record,
                Some(record) => Directory::new(
                    self.head,
                    record.pzxid.load(Ordering::Relaxed),
                    record.cversion.load(Ordering::Relaxed),
                    record.num_children.load(Ordering::Relaxed),
                ),
                None => Directory::new(self.head, znode.czxid, 0, 0),
            };
            let new = self.heap.put(new);
            record::push(space, &znode.directory, new);
            self.log(What::Directory(at, old));
            space.get(new)
        }
    }

    fn owner_or_new(&mut self, key: i64) -> Ref<Owner> {
        if let Some(at) = self.view().owner(key) {
            return at;
        }
        let (at, space) = (self.heap.put(Owner::new(key)), self.space());
        // SAFETY: just created; the table of owners always exists.
        unsafe {
            let slot = space.get(self.shared.owner_table).insert(&mut self.heap, at);
            space.get(at).slot.store(slot, Ordering::Relaxed);
        }
        self.shared.owners.insert(&mut self.heap, self.shared.tag_of_key(key), at);
        at
    }

    /// Opens a session or changes its timeout.
    pub fn set_session(&mut self, owner_key: i64, timeout_ms: i32) {
        self.open_version();
        let at = self.owner_or_new(owner_key);
        if self.put_session(at, Some(timeout_ms)).is_none() {
            self.counts.sessions += 1;
        }
    }

    /// Ends a session. What it owns stays until it is deleted.
    pub fn remove_session(&mut self, owner_key: i64) -> Result<(), StoreError> {
        self.open_version();
        let at = self.view().owner(owner_key).ok_or(StoreError::NoSession)?;
        if self.view().session(owner_key).is_none() {
            return Err(StoreError::NoSession);
        }
        self.put_session(at, None);
        self.counts.sessions -= 1;
        Ok(())
    }

    /// Returns what was there before.
    fn put_session(&mut self, at: Ref<Owner>, timeout_ms: Option<i32>) -> Option<i32> {
        let space = self.space();
        // SAFETY: in the index, so alive; the writer alone frees.
        unsafe {
            let chain = &space.get(at).session;
            let old = chain.load();
            let before = old.and_then(|old| space.get(old).timeout_ms());
            if let Some(record) = old.map(|old| space.get(old))
                && record.link.version == self.head
            {
                record.set(timeout_ms);
                return before;
            }
            let new = self.heap.put(Session::new(self.head, timeout_ms));
            record::push(space, chain, new);
            space.get(at).changes.fetch_add(1, Ordering::Relaxed);
            self.log(What::Session(at, old));
            before
        }
    }
}

impl Default for Writer {
    fn default() -> Writer {
        Writer::new()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let outside = self.heap.take_outside();
        match self.shared.remains.lock() {
            Ok(mut remains) => *remains = outside,
            // Nothing panics under this lock; should it have, a leak is better than a use after free.
            Err(_) => std::mem::forget(outside),
        }
    }
}

/// The root as Java has it: empty data, open to the world, all zeros.
fn new_root(heap: &mut Heap) -> Ref<Znode> {
    let data: Option<&[u8]> = Some(&[]);
    let version = NewVersion {
        born: 0,
        mzxid: 0,
        mtime: 0,
        acl: None,
        version: 0,
        aversion: 0,
        prefix_crc: prefix_crc(path::ROOT, data),
    };
    let head = heap.put_version(&version, data);
    let new =
        NewZnode { born: 0, czxid: 0, ctime: 0, head, directory: None, previous: None, parent: None, owned: None };
    heap.put_znode(new, path::ROOT)
}

/// The root's path counts as empty (`DigestCalculator`).
fn prefix_crc(path: &str, data: Option<&[u8]>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    if path != path::ROOT {
        crc.update(path.as_bytes());
    }
    crc.update(data.unwrap_or_default());
    crc.finalize()
}

/// The table, made if there is none.
fn table_of<T>(heap: &mut Heap, place: &super::arena::AtomicRef<Slots<T>>) -> Ref<Slots<T>> {
    place.load().unwrap_or_else(|| {
        let table = heap.put(Slots::new());
        place.store(Some(table));
        table
    })
}
