//! What readers promise and the writer may take from it: which versions are in use, and since when no reference is held.
//!
//! Each reader posts on a cache line of its own:
//! - `floor`: it will never read a version below this one (a reader that walks from version to version);
//! - `held`: it reads this one version only (a snapshot);
//! - `seen`: it holds no reference that it obtained before the writer's epoch reached this number.
//!
//! Adopting moves `floor` and `seen` forward, which needs no fence: each number only makes a promise weaker that was
//! true before. Coming online makes a promise stronger, and needs one: either the writer sees it, or the reader sees all
//! that the writer did before it looked. `tests/store_loom.rs` drives exactly this file.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, fence};

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use crossbeam::utils::CachePadded;

/// Readers that may be registered at once: shard cores, helpers, and room to spare.
pub const READERS_MAX: usize = 64;

/// No promise is made, so none binds the writer.
const FREE: u64 = u64::MAX;

struct Slot {
    taken: AtomicBool,
    floor: AtomicU64,
    held: AtomicU64,
    seen: AtomicU64,
}

/// Shared between the writer and all readers.
pub struct Pins {
    marks: CachePadded<Marks>,
    /// Slots from here on were never taken.
    taken: CachePadded<AtomicUsize>,
    slots: Box<[CachePadded<Slot>]>,
}

/// Written by the writer only.
struct Marks {
    /// Newest version that readers may adopt.
    published: AtomicU64,
    /// Counts the writer's rounds of unlinking. `seen ≤ epoch` for every online reader.
    epoch: AtomicU64,
}

/// What the writer may rely on until it looks again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InUse {
    /// Versions from here on are in use.
    pub floor: u64,
    /// What was unlinked in an epoch before this one can be freed.
    pub seen: u64,
}

impl Pins {
    /// `slots`: how many readers may register.
    pub fn new(published: u64, slots: usize) -> Pins {
        let slot = || Slot {
            taken: AtomicBool::new(false),
            floor: AtomicU64::new(FREE),
            held: AtomicU64::new(FREE),
            seen: AtomicU64::new(FREE),
        };
        Pins {
            marks: CachePadded::new(Marks { published: AtomicU64::new(published), epoch: AtomicU64::new(1) }),
            taken: CachePadded::new(AtomicUsize::new(0)),
            slots: (0..slots).map(|_| CachePadded::new(slot())).collect(),
        }
    }

    /// Acquire: all that was written up to this version is seen.
    pub fn published(&self) -> u64 {
        self.marks.published.load(Acquire)
    }

    /// Writer: readers may adopt up to `version`.
    pub fn publish(&self, version: u64) {
        self.marks.published.store(version, Release);
    }

    /// Writer: all that was unlinked so far was unlinked before `epoch`.
    pub fn begin_epoch(&self, epoch: u64) {
        self.marks.epoch.store(epoch, Release);
    }

    /// A slot for a new reader, offline. `None`: all are taken.
    pub fn claim(&self) -> Option<usize> {
        let is_ours = |slot: &CachePadded<Slot>| slot.taken.compare_exchange(false, true, Acquire, Relaxed).is_ok();
        let slot = self.slots.iter().position(is_ours)?;
        // Before the fence in `online`, as all that the writer has to see.
        self.taken.fetch_max(slot + 1, Relaxed);
        Some(slot)
    }

    /// Gives a slot back. The reader holds no reference.
    pub fn release(&self, slot: usize) {
        self.offline(slot);
        self.slots[slot].taken.store(false, Release);
    }

    /// From now on the reader needs nothing. It holds no reference.
    pub fn offline(&self, slot: usize) {
        let slot = &self.slots[slot];
        slot.floor.store(FREE, Release);
        slot.held.store(FREE, Release);
        slot.seen.store(FREE, Release);
    }

    /// From offline or holding to walking, at the version returned, which is the newest one. It holds no reference.
    pub fn online(&self, slot: usize) -> u64 {
        let slot = &self.slots[slot];
        slot.seen.store(self.marks.epoch.load(Acquire), Relaxed);
        slot.floor.store(self.published(), Relaxed);
        // Pairs with the fence in `in_use`. Either the writer sees the two numbers above, or what follows here sees
        // what the writer had published and unlinked before it looked; both suffice.
        fence(SeqCst);
        let version = self.published();
        slot.floor.store(version, Release);
        slot.held.store(FREE, Release);
        version
    }

    /// From one version to a later published one. The reader holds no reference.
    pub fn adopt(&self, slot: usize, version: u64) {
        let slot = &self.slots[slot];
        let epoch = self.marks.epoch.load(Acquire);
        slot.floor.store(version, Release);
        slot.seen.store(epoch, Release);
    }

    /// The reader holds no reference at this moment, and stays at its version.
    pub fn refresh(&self, slot: usize) {
        let epoch = self.marks.epoch.load(Acquire);
        self.slots[slot].seen.store(epoch, Release);
    }

    /// From walking to holding: of all versions, only this one is needed.
    pub fn hold(&self, slot: usize, version: u64) {
        let slot = &self.slots[slot];
        // In this order: the writer reads `floor` first, so it sees one of the two.
        slot.held.store(version, Release);
        slot.floor.store(FREE, Release);
    }

    /// Writer: the oldest version that a walking reader is at, or what is published if none is.
    pub fn slowest(&self) -> u64 {
        // Pairs with the fence in `online`.
        fence(SeqCst);
        let floors = self.slots.iter().take(self.taken.load(Relaxed)).map(|slot| slot.floor.load(Acquire));
        floors.min().unwrap_or(FREE).min(self.marks.published.load(Relaxed))
    }

    /// Writer: what is in use. `held` becomes the held versions, ascending.
    pub fn in_use(&self, held: &mut Vec<u64>) -> InUse {
        held.clear();
        // Pairs with the fence in `online`.
        fence(SeqCst);
        let mut in_use = InUse { floor: self.marks.published.load(Relaxed), seen: FREE };
        for slot in self.slots.iter().take(self.taken.load(Relaxed)) {
            in_use.seen = in_use.seen.min(slot.seen.load(Acquire));
            in_use.floor = in_use.floor.min(slot.floor.load(Acquire));
            match slot.held.load(Acquire) {
                FREE => {}
                version => held.push(version),
            }
        }
        held.sort_unstable();
        held.dedup();
        in_use
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_follows_what_readers_post() {
        let pins = Pins::new(5, 2);
        let mut held = Vec::new();
        assert_eq!(pins.in_use(&mut held), InUse { floor: 5, seen: FREE });

        let walker = pins.claim().unwrap();
        assert_eq!(pins.online(walker), 5);
        pins.publish(9);
        pins.begin_epoch(2);
        assert_eq!(pins.in_use(&mut held), InUse { floor: 5, seen: 1 });
        pins.adopt(walker, 7);
        assert_eq!(pins.in_use(&mut held), InUse { floor: 7, seen: 2 });

        let holder = pins.claim().unwrap();
        assert_eq!(pins.claim(), None);
        assert_eq!(pins.online(holder), 9);
        pins.hold(holder, 9);
        pins.publish(12);
        pins.adopt(walker, 12);
        assert_eq!(pins.in_use(&mut held), InUse { floor: 12, seen: 2 });
        assert_eq!(held, [9]);

        pins.release(holder);
        pins.offline(walker);
        assert_eq!(pins.in_use(&mut held), InUse { floor: 12, seen: FREE });
        assert!(held.is_empty());
        assert_eq!(pins.claim(), Some(holder));
    }

    #[test]
    fn the_slowest_is_the_walker_furthest_behind_and_no_holder() {
        let pins = Pins::new(5, 3);
        assert_eq!(pins.slowest(), 5);
        let [holder, slow, fast] = [(); 3].map(|()| pins.claim().unwrap());
        for slot in [holder, slow, fast] {
            pins.online(slot);
        }
        pins.hold(holder, 5);
        pins.publish(9);
        assert_eq!(pins.slowest(), 5);
        pins.adopt(slow, 7);
        pins.adopt(fast, 9);
        assert_eq!(pins.slowest(), 7);
        pins.adopt(slow, 9);
        assert_eq!(pins.slowest(), 9);
    }
}
