//! What the writer owns: blocks, blocks waiting until no reader can be in them, and what blocks refer to outside.

use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::arena::{Arena, AtomicRef, Ref, Region, Space};
use super::queue::Queue;
use super::record::{
    AclEntry, Content, Directory, Linked, NEAR_DATA_BYTES_MAX, NewVersion, NewZnode, Owner, Version, Znode,
};
use crate::types::acl::AclList;

/// Something that was unlinked.
pub(super) enum Garbage {
    /// A block that refers to nothing.
    Block(Ref<()>),
    Version(Ref<Version>),
    /// With all that only it refers to.
    Znode(Ref<Znode>),
    /// With all that only it refers to.
    Owner(Ref<Owner>),
}

pub(super) struct Heap {
    arena: Arena,
    space: Space,
    /// Unlinked in this epoch, oldest first.
    limbo: Queue<(u64, Garbage)>,
    epoch: u64,
    outside: Outside,
}

/// What blocks refer to outside the arena, which outlives the writer as long as there are readers.
#[derive(Default)]
pub(super) struct Outside {
    /// By the address of the shared list. Dropped in place when the space goes.
    acls: HashMap<usize, Ref<AclEntry>, ahash::RandomState>,
    space: Option<Space>,
    far: Vec<Option<NonNull<[u8]>>>,
    far_free: Vec<u32>,
}

// SAFETY: owns its far blocks like boxes; ACL lists may be dropped on any thread.
unsafe impl Send for Outside {}

impl Outside {
    fn put_far(&mut self, data: &[u8]) -> (NonNull<u8>, u32) {
        let block = NonNull::from(Box::leak(Box::<[u8]>::from(data)));
        let id = match self.far_free.pop() {
            Some(id) => id,
            None => {
                self.far.push(None);
                (self.far.len() - 1) as u32
            }
        };
        self.far[id as usize] = Some(block);
        (block.cast(), id)
    }

    fn free_far(&mut self, id: u32) {
        if let Some(block) = self.far[id as usize].take() {
            // SAFETY: came from a leaked box, and is taken out only once.
            drop(unsafe { Box::from_raw(block.as_ptr()) });
            self.far_free.push(id);
        }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        for id in 0..self.far.len() as u32 {
            self.free_far(id);
        }
        let Some(space) = self.space else { return };
        for at in self.acls.values() {
            // SAFETY: complete entries, each listed once; the space is unmapped after this.
            unsafe { space.address(*at).drop_in_place() };
        }
    }
}

impl Heap {
    pub(super) fn new(region: &Region) -> Heap {
        let mut outside = Outside::default();
        outside.space = Some(region.space());
        Heap { arena: Arena::new(region), space: region.space(), limbo: Queue::new(), epoch: 1, outside }
    }

    pub(super) fn space(&self) -> Space {
        self.space
    }

    /// What must live as long as the space does, when the writer goes.
    pub(super) fn take_outside(&mut self) -> Outside {
        std::mem::take(&mut self.outside)
    }

    /// Bytes in blocks in use, of those waiting too.
    pub(super) fn live_bytes(&self) -> usize {
        self.arena.live_bytes()
    }

    /// A block of at least `bytes`, uninitialised.
    pub(super) fn allocate<T>(&mut self, bytes: usize) -> Ref<T> {
        self.arena.allocate(bytes)
    }

    pub(super) fn put<T>(&mut self, value: T) -> Ref<T> {
        const { assert!(!std::mem::needs_drop::<T>()) };
        let at = self.arena.allocate::<T>(size_of::<T>());
        // SAFETY: just allocated, large enough.
        unsafe { self.space.address(at).write(value) };
        at
    }

    pub(super) fn put_znode(&mut self, new: NewZnode, path: &str) -> Ref<Znode> {
        let at = self.arena.allocate(Znode::bytes(path));
        // SAFETY: just allocated, this long.
        unsafe { Znode::write(self.space, at, new, path) };
        at
    }

    /// Takes over the use of `new.acl`.
    pub(super) fn put_version(&mut self, new: &NewVersion, data: Option<&[u8]>) -> Ref<Version> {
        let at = self.arena.allocate(Version::bytes(data));
        let content = match data {
            None => Content::Null,
            Some(data) if data.len() <= NEAR_DATA_BYTES_MAX => Content::Near(data),
            Some(data) => {
                let (block, id) = self.outside.put_far(data);
                Content::Far(block, id)
            }
        };
        // SAFETY: just allocated, this long.
        unsafe { Version::write(self.space, at, new, content, data.map_or(0, <[u8]>::len) as u32) };
        at
    }

    /// One more use of an entry for this list.
    pub(super) fn use_acl(&mut self, list: &AclList) -> Option<Ref<AclEntry>> {
        let AclList::List(shared) = list else { return None };
        let address = Arc::as_ptr(shared).addr();
        if let Some(&at) = self.outside.acls.get(&address) {
            return self.use_acl_again(Some(at));
        }
        let at = self.arena.allocate::<AclEntry>(size_of::<AclEntry>());
        // SAFETY: just allocated, large enough. Dropped in place when its last use ends.
        unsafe { self.space.address(at).write(AclEntry { list: list.clone(), uses: 1.into() }) };
        self.outside.acls.insert(address, at);
        Some(at)
    }

    pub(super) fn use_acl_again(&self, acl: Option<Ref<AclEntry>>) -> Option<Ref<AclEntry>> {
        if let Some(at) = acl {
            // SAFETY: an entry lives as long as it has uses.
            unsafe { self.space.get(at) }.uses.fetch_add(1, Ordering::Relaxed);
        }
        acl
    }

    fn end_use_of_acl(&mut self, at: Ref<AclEntry>) {
        // SAFETY: an entry lives as long as it has uses.
        let entry = unsafe { self.space.get(at) };
        if entry.uses.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        if let AclList::List(shared) = &entry.list {
            self.outside.acls.remove(&Arc::as_ptr(shared).addr());
        }
        // SAFETY: its last use ended with the grace period of the version that used it.
        unsafe { self.space.address(at).drop_in_place() };
        self.arena.free(at.block());
    }

    /// Frees it once no reader can be in it.
    pub(super) fn retire(&mut self, garbage: Garbage) {
        self.limbo.push_back((self.epoch, garbage));
    }

    /// Pieces of garbage that wait.
    pub(super) fn waiting(&self) -> usize {
        self.limbo.len()
    }

    /// Pieces of garbage that can be freed when all readers have come as far as epoch `seen`. An upper bound.
    pub(super) fn ready(&self, seen: u64) -> usize {
        if self.limbo.front().is_some_and(|(epoch, _)| *epoch < seen) { self.limbo.len() } else { 0 }
    }

    /// Begins the next epoch, and returns its number.
    pub(super) fn next_epoch(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch
    }

    /// Frees up to `budget` pieces that were unlinked before epoch `seen`. Returns how many.
    pub(super) fn free_unseen(&mut self, seen: u64, budget: usize) -> usize {
        let mut freed = 0;
        while freed < budget && self.limbo.front().is_some_and(|(epoch, _)| *epoch < seen) {
            if let Some((_, garbage)) = self.limbo.pop_front() {
                self.free(garbage);
                freed += 1;
            }
        }
        freed
    }

    fn free(&mut self, garbage: Garbage) {
        match garbage {
            Garbage::Block(at) => self.arena.free(at),
            Garbage::Version(at) => self.free_version(at),
            Garbage::Znode(at) => self.free_znode(at),
            Garbage::Owner(at) => self.free_owner(at),
        }
    }

    fn free_version(&mut self, at: Ref<Version>) {
        // SAFETY: alive until the end of this function.
        let (acl, far) = unsafe { (self.space.get(at).acl, Version::far_id(self.space, at)) };
        if let Some(id) = far {
            self.outside.free_far(id);
        }
        if let Some(acl) = acl {
            self.end_use_of_acl(acl);
        }
        self.arena.free(at.block());
    }

    fn free_znode(&mut self, at: Ref<Znode>) {
        // SAFETY: alive until the end of this function.
        let znode = unsafe { self.space.get(at) };
        self.free_chain(&znode.head, Heap::free_version);
        self.free_chain(&znode.directory, |heap, record: Ref<Directory>| heap.arena.free(record.block()));
        if let Some(children) = znode.children.load() {
            // SAFETY: as above; the table belongs to this znode alone.
            unsafe { self.space.get(children) }.free_chunks(|chunk| self.arena.free(chunk));
            self.arena.free(children.block());
        }
        if let Some(death) = znode.death.load() {
            self.arena.free(death.block());
        }
        if let Some(owned) = znode.owned {
            self.arena.free(owned.block());
        }
        self.arena.free(at.block());
    }

    fn free_owner(&mut self, at: Ref<Owner>) {
        // SAFETY: alive until the end of this function.
        let owner = unsafe { self.space.get(at) };
        self.free_chain(&owner.session, |heap, record| heap.arena.free(record.block()));
        if let Some(owned) = owner.owned.load() {
            // SAFETY: as above; the table belongs to this owner alone.
            unsafe { self.space.get(owned) }.free_chunks(|chunk| self.arena.free(chunk));
            self.arena.free(owned.block());
        }
        self.arena.free(at.block());
    }

    fn free_chain<T: Linked>(&mut self, head: &AtomicRef<T>, mut free: impl FnMut(&mut Heap, Ref<T>)) {
        let mut next = head.load();
        while let Some(at) = next {
            // SAFETY: alive until it is freed below.
            next = unsafe { self.space.get(at) }.link().older.load();
            free(self, at);
        }
    }
}
