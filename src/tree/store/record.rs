//! What lies in the blocks: znodes, their versions, directory records, owners and session records.
//!
//! Plain fields are written once, before the block is linked where a reader can find it. Atomic fields are changed by
//! the writer only.

use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, Ordering};

use super::arena::{AtomicRef, Ref, SMALL_BYTES_MAX, Space};
use super::slots::Slots;
use crate::types::acl::AclList;

/// Ties the records of one thing into a chain, newest first.
#[repr(C)]
pub(super) struct Link<T> {
    /// In which version the record came to be.
    pub(super) version: u64,
    pub(super) older: AtomicRef<T>,
    /// For the writer: whoever replaced this record, so that it can leave the middle of the chain.
    pub(super) newer: AtomicRef<T>,
}

impl<T> Link<T> {
    pub(super) fn new(version: u64) -> Link<T> {
        Link { version, older: AtomicRef::new(None), newer: AtomicRef::new(None) }
    }
}

/// A record of a chain. Visible at `v` is the newest one with `link.version ≤ v`.
pub(super) trait Linked: Sized {
    fn link(&self) -> &Link<Self>;
}

/// One znode from its creation to its deletion; one created again at the same path is another. 60 bytes and the path.
#[repr(C)]
pub(super) struct Znode {
    /// Visible from this version on, until `death`.
    pub(super) born: u64,
    pub(super) czxid: i64,
    pub(super) ctime: i64,
    pub(super) head: AtomicRef<Version>,
    /// Null until something differs from (czxid, 0, 0 children).
    pub(super) directory: AtomicRef<Directory>,
    /// Null until the first child.
    pub(super) children: AtomicRef<Slots<Znode>>,
    /// The znode that was at this path before and may still be visible to someone.
    pub(super) previous: AtomicRef<Znode>,
    pub(super) death: AtomicRef<Death>,
    pub(super) parent: Option<Ref<Znode>>,
    pub(super) owned: Option<Ref<Owned>>,
    /// For the writer: where it is among its parent's children.
    pub(super) slot: AtomicU32,
    path_len: u32,
}

/// When a znode was deleted.
#[repr(C)]
pub(super) struct Death {
    pub(super) version: u64,
    /// For the writer: the znode that was created at this path afterwards.
    pub(super) newer: AtomicRef<Znode>,
}

/// What only znodes with an owner have.
#[repr(C)]
pub(super) struct Owned {
    pub(super) ephemeral_owner: i64,
    pub(super) owner: Option<Ref<Owner>>,
    /// For the writer: where it is among what the owner owns.
    pub(super) slot: AtomicU32,
}

/// Data, ACL and what changes with them. 52 bytes and the data, or where the data is.
#[repr(C)]
pub(super) struct Version {
    pub(super) link: Link<Version>,
    pub(super) mzxid: i64,
    pub(super) mtime: i64,
    /// Null is `AclList::Open`.
    pub(super) acl: Option<Ref<AclEntry>>,
    pub(super) version: i32,
    pub(super) aversion: i32,
    pub(super) prefix_crc: u32,
    data_len: u32,
}

/// What creating and deleting children changes in their parent. 32 bytes.
#[repr(C)]
pub(super) struct Directory {
    pub(super) link: Link<Directory>,
    pub(super) pzxid: AtomicI64,
    pub(super) cversion: AtomicI32,
    pub(super) num_children: AtomicI32,
}

/// A session or a marker, and the znodes that it owns.
#[repr(C)]
pub(super) struct Owner {
    pub(super) key: i64,
    pub(super) session: AtomicRef<Session>,
    pub(super) owned: AtomicRef<Slots<Znode>>,
    /// For the writer: where it is in the table of all owners.
    pub(super) slot: AtomicU32,
    /// For the writer: znodes owned at the head.
    pub(super) count: AtomicU32,
    /// For the writer: changes of its session that may still have to be undone or reclaimed.
    pub(super) changes: AtomicU32,
}

#[repr(C)]
pub(super) struct Session {
    pub(super) link: Link<Session>,
    timeout_ms: AtomicI64,
}

/// A list in use by so many versions.
#[repr(C)]
pub(super) struct AclEntry {
    pub(super) list: AclList,
    pub(super) uses: AtomicU32,
}

impl Linked for Version {
    fn link(&self) -> &Link<Version> {
        &self.link
    }
}

impl Linked for Directory {
    fn link(&self) -> &Link<Directory> {
        &self.link
    }
}

impl Linked for Session {
    fn link(&self) -> &Link<Session> {
        &self.link
    }
}

const PATH_AT: usize = offset_of!(Znode, path_len) + 4;
const DATA_AT: usize = offset_of!(Version, data_len) + 4;
/// Where a pointer to data elsewhere is, and behind it its number in the writer's table.
const FAR_AT: usize = DATA_AT.next_multiple_of(8);
const FAR_ID_AT: usize = DATA_AT;
const NULL_DATA: u32 = u32::MAX;
/// Longest data that is stored behind its header, bytes.
pub(super) const NEAR_DATA_BYTES_MAX: usize = SMALL_BYTES_MAX - DATA_AT;

const _: () = assert!(PATH_AT == 60 && DATA_AT == 52 && FAR_AT == 56);
const _: () = assert!(size_of::<Directory>() == 32 && size_of::<Owned>() == 16 && size_of::<Death>() == 16);

/// The part of a znode that is not known from its place.
pub(super) struct NewZnode {
    pub(super) born: u64,
    pub(super) czxid: i64,
    pub(super) ctime: i64,
    pub(super) head: Ref<Version>,
    pub(super) directory: Option<Ref<Directory>>,
    pub(super) previous: Option<Ref<Znode>>,
    pub(super) parent: Option<Ref<Znode>>,
    pub(super) owned: Option<Ref<Owned>>,
}

impl Znode {
    pub(super) fn bytes(path: &str) -> usize {
        (PATH_AT + path.len()).max(size_of::<Znode>())
    }

    /// Fills a block of `Znode::bytes(path)`.
    ///
    /// # Safety
    /// The block is allocated, this long, and nobody else knows it.
    pub(super) unsafe fn write(space: Space, at: Ref<Znode>, new: NewZnode, path: &str) {
        let znode = Znode {
            born: new.born,
            czxid: new.czxid,
            ctime: new.ctime,
            head: AtomicRef::new(Some(new.head)),
            directory: AtomicRef::new(new.directory),
            children: AtomicRef::new(None),
            previous: AtomicRef::new(new.previous),
            death: AtomicRef::new(None),
            parent: new.parent,
            owned: new.owned,
            slot: AtomicU32::new(0),
            path_len: path.len() as u32,
        };
        let block = space.address(at);
        // SAFETY: long enough by `bytes`, ours alone. The path goes last: it starts in the struct's padding.
        unsafe {
            block.write(znode);
            block.cast::<u8>().add(PATH_AT).copy_from_nonoverlapping(path.as_ptr(), path.len());
        }
    }

    /// # Safety
    /// As [`Space::get`].
    #[inline]
    pub(super) unsafe fn path<'a>(space: Space, at: Ref<Znode>) -> &'a str {
        // SAFETY: `write` put a `str` of this length there.
        unsafe {
            let start = space.address(at).cast::<u8>().add(PATH_AT);
            let len = space.get(at).path_len as usize;
            std::str::from_utf8_unchecked(std::slice::from_raw_parts(start, len))
        }
    }
}

/// Where the data of a version is.
pub(super) enum Content<'a> {
    Null,
    Near(&'a [u8]),
    /// In a heap block of its own, which has this number in the writer's table.
    Far(NonNull<u8>, u32),
}

/// The header of a new version.
pub(super) struct NewVersion {
    pub(super) born: u64,
    pub(super) mzxid: i64,
    pub(super) mtime: i64,
    pub(super) acl: Option<Ref<AclEntry>>,
    pub(super) version: i32,
    pub(super) aversion: i32,
    pub(super) prefix_crc: u32,
}

impl Version {
    pub(super) fn bytes(data: Option<&[u8]>) -> usize {
        match data {
            Some(data) if data.len() > NEAR_DATA_BYTES_MAX => FAR_AT + size_of::<*mut u8>(),
            Some(data) => (DATA_AT + data.len()).max(size_of::<Version>()),
            None => size_of::<Version>(),
        }
    }

    /// Fills a block of `Version::bytes`. `content` and `data_len` belong together.
    ///
    /// # Safety
    /// The block is allocated, this long, and nobody else knows it.
    pub(super) unsafe fn write(space: Space, at: Ref<Version>, new: &NewVersion, content: Content<'_>, data_len: u32) {
        let version = Version {
            link: Link::new(new.born),
            mzxid: new.mzxid,
            mtime: new.mtime,
            acl: new.acl,
            version: new.version,
            aversion: new.aversion,
            prefix_crc: new.prefix_crc,
            data_len: if matches!(content, Content::Null) { NULL_DATA } else { data_len },
        };
        let block = space.address(at);
        // SAFETY: long enough by `bytes`, ours alone. The tail goes last: it starts in the struct's padding.
        unsafe {
            block.write(version);
            let bytes = block.cast::<u8>();
            match content {
                Content::Null => {}
                Content::Near(data) => bytes.add(DATA_AT).copy_from_nonoverlapping(data.as_ptr(), data.len()),
                Content::Far(data, id) => {
                    bytes.add(FAR_ID_AT).cast::<u32>().write(id);
                    bytes.add(FAR_AT).cast::<NonNull<u8>>().write(data);
                }
            }
        }
    }

    pub(super) fn data_len(&self) -> Option<usize> {
        (self.data_len != NULL_DATA).then_some(self.data_len as usize)
    }

    /// The number of its far data.
    ///
    /// # Safety
    /// As [`Space::get`].
    pub(super) unsafe fn far_id(space: Space, at: Ref<Version>) -> Option<u32> {
        // SAFETY: `write` put the number there exactly when the data is too long to be near.
        unsafe {
            let len = space.get(at).data_len();
            let id = space.address(at).cast::<u8>().add(FAR_ID_AT).cast::<u32>();
            len.is_some_and(|len| len > NEAR_DATA_BYTES_MAX).then(|| id.read())
        }
    }

    /// # Safety
    /// As [`Space::get`].
    #[inline]
    pub(super) unsafe fn data<'a>(space: Space, at: Ref<Version>) -> Option<&'a [u8]> {
        // SAFETY: `write` put so many bytes there, or a pointer to them, which lives as long as the version.
        unsafe {
            let len = space.get(at).data_len()?;
            let bytes = space.address(at).cast::<u8>();
            let start = if len > NEAR_DATA_BYTES_MAX {
                bytes.add(FAR_AT).cast::<NonNull<u8>>().read().as_ptr()
            } else {
                bytes.add(DATA_AT)
            };
            Some(std::slice::from_raw_parts(start, len))
        }
    }
}

impl Directory {
    pub(super) fn new(version: u64, pzxid: i64, cversion: i32, num_children: i32) -> Directory {
        Directory {
            link: Link::new(version),
            pzxid: AtomicI64::new(pzxid),
            cversion: AtomicI32::new(cversion),
            num_children: AtomicI32::new(num_children),
        }
    }
}

impl Death {
    pub(super) fn new(version: u64) -> Death {
        Death { version, newer: AtomicRef::new(None) }
    }
}

impl Owner {
    pub(super) fn new(key: i64) -> Owner {
        Owner {
            key,
            session: AtomicRef::new(None),
            owned: AtomicRef::new(None),
            slot: AtomicU32::new(0),
            count: AtomicU32::new(0),
            changes: AtomicU32::new(0),
        }
    }
}

/// A session record that says: there is no such session.
const NO_SESSION: i64 = i64::MIN;

impl Session {
    pub(super) fn new(version: u64, timeout_ms: Option<i32>) -> Session {
        let session = Session { link: Link::new(version), timeout_ms: AtomicI64::new(NO_SESSION) };
        session.set(timeout_ms);
        session
    }

    pub(super) fn timeout_ms(&self) -> Option<i32> {
        i32::try_from(self.timeout_ms.load(Ordering::Relaxed)).ok()
    }

    pub(super) fn set(&self, timeout_ms: Option<i32>) {
        self.timeout_ms.store(timeout_ms.map_or(NO_SESSION, i64::from), Ordering::Relaxed);
    }
}

/// The record of a chain that is visible at `version`.
///
/// # Safety
/// Nothing that is visible at `version`, or was linked when the caller last held no reference, is freed.
#[inline]
pub(super) unsafe fn visible<T: Linked>(space: Space, head: &AtomicRef<T>, version: u64) -> Option<Ref<T>> {
    let mut at = head.load();
    while let Some(record) = at {
        // SAFETY: reached through links, so not freed, as the caller says.
        let link = unsafe { space.get(record) }.link();
        if link.version <= version {
            return Some(record);
        }
        at = link.older.load();
    }
    None
}

/// Writer: a record becomes the newest of a chain.
///
/// # Safety
/// All records of the chain are alive; the new one is complete and in no chain.
pub(super) unsafe fn push<T: Linked>(space: Space, head: &AtomicRef<T>, new: Ref<T>) {
    let newest = head.load();
    // SAFETY: as the caller says.
    unsafe {
        space.get(new).link().older.store(newest);
        if let Some(newest) = newest {
            space.get(newest).link().newer.store(Some(new));
        }
    }
    head.store(Some(new));
}

/// Writer: a record takes the place of the newest of a chain.
///
/// # Safety
/// All records of the chain are alive; the new one is complete and in no chain.
pub(super) unsafe fn replace<T: Linked>(space: Space, head: &AtomicRef<T>, new: Ref<T>) {
    // SAFETY: as the caller says.
    unsafe {
        let older = head.load().and_then(|newest| space.get(newest).link().older.load());
        space.get(new).link().older.store(older);
        if let Some(older) = older {
            space.get(older).link().newer.store(Some(new));
        }
    }
    head.store(Some(new));
}

/// Writer: takes the newest record off a chain.
///
/// # Safety
/// All records of the chain are alive.
pub(super) unsafe fn pop<T: Linked>(space: Space, head: &AtomicRef<T>) -> Option<Ref<T>> {
    let newest = head.load()?;
    // SAFETY: as the caller says.
    unsafe {
        let older = space.get(newest).link().older.load();
        if let Some(older) = older {
            space.get(older).link().newer.store(None);
        }
        head.store(older);
    }
    Some(newest)
}

/// Writer: takes a record that was replaced out of its chain.
///
/// # Safety
/// All records of the chain are alive, and this one is not its newest.
pub(super) unsafe fn unlink<T: Linked>(space: Space, at: Ref<T>) {
    // SAFETY: as the caller says.
    unsafe {
        let link = space.get(at).link();
        let (older, newer) = (link.older.load(), link.newer.load().expect("a replaced record knows by which"));
        space.get(newer).link().older.store(older);
        if let Some(older) = older {
            space.get(older).link().newer.store(Some(newer));
        }
    }
}
