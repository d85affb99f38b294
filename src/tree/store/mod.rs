//! The versioned store of znodes, sessions and what they own: one writer, many readers, no locks, no counters.
//! Never: knows what a request, a txn or a digest is; waits for a reader; frees what one can see.
//! Owner: the zab core holds the [`Writer`]; every shard core and the snapshot helper a [`Reader`] of its own.
//! Start at `writer.rs`, then `view.rs`, `record.rs` and `reclaim.rs`.
//!
//! ```text
//!  path ─► index ─► Znode ─► Version ─► Version ─► …      data, ACL; newest first, each says since which version
//!                     │ └───► Directory ─► …              pzxid, cversion, number of children
//!                     ├─────► Slots ─► children           numbers that never move: cursors
//!                     ├─────► Death                       since which version it is gone
//!                     └─────► previous Znode              at the same path, as long as someone may see it
//!  key ──► index ─► Owner ─► Session ─► …                 and Slots of the znodes that it owns
//! ```
//!
//! # Rules
//!
//! 1. *Visible* at version `v` is a znode with `born ≤ v` and no death `≤ v`, and of each chain the newest record
//!    `≤ v`. Only published versions are adopted, and what belongs to a published version never changes again.
//! 2. *Unlinking*: a record that was replaced in version `r` leaves its chain once `r ≤ floor` (no reader walks below)
//!    and no held version lies in `born..r`. The same for a znode that died in `r`; by then its children are gone.
//!    What is unlinked before it is published (a rollback) was visible to nobody.
//! 3. *Freeing*: what was unlinked in epoch `e` is freed when every reader online has said, after the writer began a
//!    later epoch, that it holds no reference. A reader follows only links, so it cannot come by it again.
//! 4. The writer alone changes anything. It publishes a block by a Release store of its name, and readers follow names
//!    by Acquire loads.

#![allow(unsafe_code)]

mod arena;
mod heap;
mod index;
pub mod pins;
mod queue;
mod reader;
mod reclaim;
mod record;
mod slots;
mod view;
mod writer;

use std::hash::{BuildHasher, Hasher};
use std::sync::Mutex;

pub use reader::{Reader, ReaderFactory};
pub use view::{Children, Node, OwnedPaths, Sessions, Walk};
pub use writer::{Counts, DataChange, StoreError, Writer};

use arena::{Ref, Region, Space};
use heap::{Heap, Outside};
use index::{Index, Tag};
use pins::{Pins, READERS_MAX};
use record::{Owner, Znode};
use slots::Slots;

/// Owner key of containers. The same bits as their `ephemeralOwner`.
pub const CONTAINERS: i64 = crate::types::stat::CONTAINER_OWNER;
/// Owner key of TTL nodes: the TTL mark with a TTL of zero, which no znode and no session has.
pub const TTL_NODES: i64 = 0xff00_0000_0000_0000_u64 as i64;

/// What the writer and all readers reach.
struct Shared {
    pins: Pins,
    znodes: Index<Znode>,
    owners: Index<Owner>,
    owner_table: Ref<Slots<Owner>>,
    root: Ref<Znode>,
    hasher: ahash::RandomState,
    space: Space,
    /// Left here by the writer when it goes before the readers. Dropped before the region that it refers to.
    remains: Mutex<Outside>,
    _region: Region,
}

impl Shared {
    /// An empty store whose root has `root_version` as its only version.
    fn new(hasher: ahash::RandomState, new_root: impl FnOnce(&mut Heap) -> Ref<Znode>) -> (Shared, Heap) {
        let region = Region::reserve();
        let mut heap = Heap::new(&region);
        let root = new_root(&mut heap);
        let shared = Shared {
            pins: Pins::new(0, READERS_MAX),
            znodes: Index::new(&mut heap),
            owners: Index::new(&mut heap),
            owner_table: heap.put(Slots::new()),
            root,
            hasher,
            space: region.space(),
            remains: Mutex::new(Outside::default()),
            _region: region,
        };
        shared.znodes.insert(&mut heap, shared.tag_of_path(crate::types::path::ROOT), root);
        (shared, heap)
    }

    #[inline]
    fn tag_of_path(&self, path: &str) -> Tag {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(path.as_bytes());
        Tag::of(hasher.finish())
    }

    #[inline]
    fn tag_of_key(&self, key: i64) -> Tag {
        Tag::of(self.hasher.hash_one(key))
    }
}
