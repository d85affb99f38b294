//! Reading at a version: what the writer (at its head) and every reader (at its own) have in common.

use std::sync::atomic::Ordering;

use super::Shared;
use super::arena::{Ref, Space};
use super::index::Tag;
use super::record::{self, AclEntry, Directory, Owned, Owner, Session, Version, Znode};
use super::slots::Slots;
use crate::types::acl::AclList;
use crate::types::stat::StatPersisted;
use crate::types::time::WallTime;
use crate::types::zxid::Zxid;

/// Sees everything, what is not published included.
pub(super) const HEAD: u64 = u64::MAX;

/// Look-ups that are under way at once in a batch.
const STAGE: usize = 16;

/// How far ahead listing asks for znodes.
const LIST_AHEAD: u32 = 8;

static OPEN: AclList = AclList::Open;

/// The store at one version, for as long as `'a` nothing is freed that this version can reach.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    shared: &'a Shared,
    version: u64,
}

impl<'a> View<'a> {
    /// # Safety
    /// During `'a`, nothing that is visible at `version` is unlinked, and nothing that is linked now is freed: the
    /// writer is borrowed, or a reader that is online at this version.
    #[inline]
    pub(super) unsafe fn new(shared: &'a Shared, version: u64) -> View<'a> {
        View { shared, version }
    }

    fn space(self) -> Space {
        self.shared.space
    }

    pub(super) fn znode(self, at: Ref<Znode>) -> &'a Znode {
        // SAFETY: a ref comes from a link, and what was linked is not freed during `'a` (`View::new`).
        unsafe { self.space().get(at) }
    }

    pub(super) fn owner_at(self, at: Ref<Owner>) -> &'a Owner {
        // SAFETY: as for `znode`.
        unsafe { self.space().get(at) }
    }

    pub(super) fn version_at(self, at: Ref<Version>) -> &'a Version {
        // SAFETY: as for `znode`.
        unsafe { self.space().get(at) }
    }

    pub(super) fn data_at(self, at: Ref<Version>) -> Option<&'a [u8]> {
        // SAFETY: as for `znode`.
        unsafe { Version::data(self.space(), at) }
    }

    pub(super) fn directory_at(self, at: Ref<Directory>) -> &'a Directory {
        // SAFETY: as for `znode`.
        unsafe { self.space().get(at) }
    }

    pub(super) fn session_at(self, at: Ref<Session>) -> &'a Session {
        // SAFETY: as for `znode`.
        unsafe { self.space().get(at) }
    }

    /// Writer: the newest version of a znode.
    pub(super) fn head_of(self, at: Ref<Znode>) -> &'a Version {
        self.version_at(self.znode(at).head.load().expect("a znode has a version"))
    }

    /// Writer: the newest data of a znode.
    pub(super) fn head_data_of(self, at: Ref<Znode>) -> Option<&'a [u8]> {
        self.data_at(self.znode(at).head.load()?)
    }

    pub(super) fn owner_of(self, at: Ref<Znode>) -> Option<Ref<Owner>> {
        self.owned_at(self.znode(at).owned?).owner
    }

    fn owned_at(self, at: Ref<Owned>) -> &'a Owned {
        // SAFETY: as for `znode`.
        unsafe { self.space().get(at) }
    }

    fn acl_at(self, at: Option<Ref<AclEntry>>) -> &'a AclList {
        match at {
            // SAFETY: an entry lives as long as the version that uses it.
            Some(at) => &unsafe { self.space().get(at) }.list,
            None => &OPEN,
        }
    }

    pub(super) fn path(self, at: Ref<Znode>) -> &'a str {
        // SAFETY: as for `znode`.
        unsafe { Znode::path(self.space(), at) }
    }

    /// The znode that was last at this path, dead or alive, visible or not.
    #[inline]
    pub(super) fn newest(self, tag: Tag, path: &str) -> Option<Ref<Znode>> {
        // SAFETY: as for `znode`.
        unsafe { self.shared.znodes.find(self.space(), tag) }.find(|&at| self.path(at) == path)
    }

    #[inline]
    fn is_visible(self, znode: &Znode) -> bool {
        // SAFETY: as for `znode`; a death taken back is freed like everything else.
        let died = || znode.death.load().is_some_and(|at| unsafe { self.space().get(at) }.version <= self.version);
        znode.born <= self.version && !died()
    }

    /// The znode at this path, of those that have been there, which this version sees.
    #[inline]
    fn visible_of(self, newest: Ref<Znode>) -> Option<Ref<Znode>> {
        let mut at = newest;
        loop {
            let znode = self.znode(at);
            if znode.born <= self.version {
                return self.is_visible(znode).then_some(at);
            }
            at = znode.previous.load()?;
        }
    }

    #[inline]
    pub(super) fn find(self, path: &str) -> Option<Ref<Znode>> {
        self.visible_of(self.newest(self.shared.tag_of_path(path), path)?)
    }

    #[inline]
    pub(super) fn node(self, path: &str) -> Option<Node<'a>> {
        self.node_at(self.find(path)?)
    }

    /// `None` cannot be: a visible znode has a visible version.
    #[inline]
    fn node_at(self, at: Ref<Znode>) -> Option<Node<'a>> {
        let znode = self.znode(at);
        // SAFETY: as for `znode`.
        let version = unsafe { record::visible(self.space(), &znode.head, self.version) };
        debug_assert!(version.is_some(), "{} has no version at {}", self.path(at), self.version);
        // SAFETY: as for `znode`.
        let directory = unsafe { record::visible(self.space(), &znode.directory, self.version) };
        Some(Node { view: self, at, znode, version_at: version?, directory: directory.map(|at| self.directory_at(at)) })
    }

    pub(super) fn owner(self, key: i64) -> Option<Ref<Owner>> {
        let tag = self.shared.tag_of_key(key);
        // SAFETY: as for `znode`.
        unsafe { self.shared.owners.find(self.space(), tag) }.find(|&at| self.owner_at(at).key == key)
    }

    pub(super) fn session_of(self, owner: &Owner) -> Option<i32> {
        // SAFETY: as for `znode`.
        let session: Ref<Session> = unsafe { record::visible(self.space(), &owner.session, self.version) }?;
        self.session_at(session).timeout_ms()
    }

    pub(super) fn session(self, key: i64) -> Option<i32> {
        self.session_of(self.owner_at(self.owner(key)?))
    }

    pub(super) fn sessions(self, cursor: u32) -> Sessions<'a> {
        Sessions { view: self, cursor }
    }

    pub(super) fn list(self, path: &str, cursor: u32) -> Option<Children<'a>> {
        let at = self.find(path)?;
        let skip = if path.len() == 1 { 1 } else { path.len() + 1 };
        Some(Children { entries: self.entries(self.znode(at).children.load(), cursor), skip })
    }

    pub(super) fn owned(self, key: i64, cursor: u32) -> OwnedPaths<'a> {
        let table = self.owner(key).and_then(|at| self.owner_at(at).owned.load());
        OwnedPaths { entries: self.entries(table, cursor) }
    }

    fn entries(self, table: Option<Ref<Slots<Znode>>>, cursor: u32) -> Entries<'a> {
        // SAFETY: as for `znode`; a table lives as long as what it belongs to.
        let table = table.map(|at| unsafe { self.space().get(at) });
        Entries { view: self, table, cursor, len: table.map_or(0, Slots::len) }
    }

    /// Brings what look-ups of these paths will touch into the cache, many at a time.
    pub(super) fn warm(self, paths: &[&str]) {
        self.staged(paths, |_, _| {});
    }

    pub(super) fn get_many(self, paths: &[&str], out: &mut Vec<Option<Node<'a>>>) {
        out.reserve(paths.len());
        self.staged(paths, |path, tag| {
            let newest = self.newest(tag, path);
            out.push(newest.and_then(|newest| self.visible_of(newest)).and_then(|at| self.node_at(at)));
        });
    }

    /// Index lines, then znodes, then their newest records, then the data of those; then `each` path in order, while all of it is near.
    fn staged(self, paths: &[&str], mut each: impl FnMut(&str, Tag)) {
        for group in paths.chunks(STAGE) {
            let mut tags = [Tag::of(0); STAGE];
            let mut found = [None; STAGE];
            for (tag, path) in tags.iter_mut().zip(group) {
                *tag = self.shared.tag_of_path(path);
                // SAFETY: as for `znode`.
                unsafe { self.shared.znodes.prefetch(self.space(), *tag) };
            }
            for (found, tag) in found.iter_mut().zip(&tags[..group.len()]) {
                // SAFETY: as for `znode`.
                *found = unsafe { self.shared.znodes.find(self.space(), *tag) }.next();
                if let Some(at) = *found {
                    self.space().prefetch_two(at);
                }
            }
            for at in found.iter().flatten() {
                let znode = self.znode(*at);
                if let Some(head) = znode.head.load() {
                    self.space().prefetch_two(head);
                }
                if let Some(directory) = znode.directory.load() {
                    self.space().prefetch(directory);
                }
            }
            for at in found.iter().flatten() {
                if let Some(head) = self.znode(*at).head.load() {
                    self.space().prefetch_rest(head, self.head_of(*at).data_len().unwrap_or(0));
                }
            }
            for (path, tag) in group.iter().zip(&tags) {
                each(path, *tag);
            }
        }
    }

    /// The next znode of a walk.
    fn walk_on(self, stack: &mut Vec<(Ref<Znode>, u32)>) -> Option<Node<'a>> {
        loop {
            let (at, cursor) = stack.last_mut()?;
            let mut entries = self.entries(self.znode(*at).children.load(), *cursor);
            match entries.next() {
                Some(child) => {
                    *cursor = entries.cursor;
                    stack.push((child, 0));
                    return self.node_at(child);
                }
                None => {
                    stack.pop();
                }
            }
        }
    }
}

/// A znode at a version. Everything that it returns lives as long as the borrow of the reader or writer it came from.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    view: View<'a>,
    at: Ref<Znode>,
    znode: &'a Znode,
    version_at: Ref<Version>,
    directory: Option<&'a Directory>,
}

impl<'a> Node<'a> {
    pub(super) fn at(&self) -> Ref<Znode> {
        self.at
    }

    pub fn path(&self) -> &'a str {
        self.view.path(self.at)
    }

    /// `None` is Java's null, which is not the same as empty.
    pub fn data(&self) -> Option<&'a [u8]> {
        self.view.data_at(self.version_at)
    }

    /// 0 for null.
    pub fn data_length(&self) -> usize {
        self.version().data_len().unwrap_or(0)
    }

    pub fn acl(&self) -> &'a AclList {
        self.view.acl_at(self.version().acl)
    }

    pub fn stat(&self) -> StatPersisted {
        let version = self.version();
        StatPersisted {
            czxid: Zxid::from_i64(self.znode.czxid),
            mzxid: Zxid::from_i64(version.mzxid),
            ctime: WallTime(self.znode.ctime),
            mtime: WallTime(version.mtime),
            version: version.version,
            cversion: self.cversion(),
            aversion: version.aversion,
            ephemeral_owner: self.ephemeral_owner(),
            pzxid: self.pzxid(),
        }
    }

    /// As stored: a session, the container mark, a TTL, or 0.
    pub fn ephemeral_owner(&self) -> i64 {
        self.znode.owned.map_or(0, |at| self.view.owned_at(at).ephemeral_owner)
    }

    /// The key under which it is owned.
    pub fn owner_key(&self) -> Option<i64> {
        let owner = self.znode.owned.and_then(|at| self.view.owned_at(at).owner)?;
        Some(self.view.owner_at(owner).key)
    }

    pub fn czxid(&self) -> Zxid {
        Zxid::from_i64(self.znode.czxid)
    }

    pub fn pzxid(&self) -> Zxid {
        Zxid::from_i64(self.directory.map_or(self.znode.czxid, |record| record.pzxid.load(Ordering::Relaxed)))
    }

    /// The internal one: creates below it so far.
    pub fn cversion(&self) -> i32 {
        self.directory.map_or(0, |record| record.cversion.load(Ordering::Relaxed))
    }

    pub fn num_children(&self) -> i32 {
        self.directory.map_or(0, |record| record.num_children.load(Ordering::Relaxed))
    }

    /// CRC-32 of the path (the root's is empty) and the data: where the digest of the znode starts.
    pub fn prefix_crc(&self) -> u32 {
        self.version().prefix_crc
    }

    fn version(&self) -> &'a Version {
        self.view.version_at(self.version_at)
    }
}

/// The visible entries of a table, from a cursor on.
struct Entries<'a> {
    view: View<'a>,
    table: Option<&'a Slots<Znode>>,
    cursor: u32,
    len: u32,
}

impl Iterator for Entries<'_> {
    type Item = Ref<Znode>;

    fn next(&mut self) -> Option<Ref<Znode>> {
        let (table, space) = (self.table?, self.view.space());
        while self.cursor < self.len {
            let at = self.cursor;
            self.cursor += 1;
            // SAFETY: as for `View::znode`; chunks are freed like everything else.
            let (entry, ahead) = unsafe { (table.get(space, at), table.get(space, at.saturating_add(LIST_AHEAD))) };
            if let Some(ahead) = ahead {
                space.prefetch_two(ahead);
            }
            if let Some(entry) = entry.filter(|&entry| self.view.is_visible(self.view.znode(entry))) {
                return Some(entry);
            }
        }
        None
    }
}

/// Names of children, in the order of their slots.
pub struct Children<'a> {
    entries: Entries<'a>,
    skip: usize,
}

impl Children<'_> {
    /// Where to go on later, at this version or another: children that were there all the time are neither missed nor
    /// seen twice.
    pub fn cursor(&self) -> u32 {
        self.entries.cursor
    }
}

impl<'a> Iterator for Children<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let at = self.entries.next()?;
        self.entries.view.path(at).get(self.skip..)
    }
}

/// Full paths of the znodes of one owner, in the order of their slots.
pub struct OwnedPaths<'a> {
    entries: Entries<'a>,
}

impl OwnedPaths<'_> {
    /// As [`Children::cursor`].
    pub fn cursor(&self) -> u32 {
        self.entries.cursor
    }
}

impl<'a> Iterator for OwnedPaths<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let at = self.entries.next()?;
        Some(self.entries.view.path(at))
    }
}

/// Keys and timeouts (ms) of the sessions, in the order of their slots.
pub struct Sessions<'a> {
    view: View<'a>,
    cursor: u32,
}

impl Sessions<'_> {
    /// As [`Children::cursor`].
    pub fn cursor(&self) -> u32 {
        self.cursor
    }
}

impl Iterator for Sessions<'_> {
    type Item = (i64, i32);

    fn next(&mut self) -> Option<(i64, i32)> {
        let (shared, space) = (self.view.shared, self.view.space());
        // SAFETY: as for `View::znode`; the table of owners is never freed.
        let table = unsafe { space.get(shared.owner_table) };
        while self.cursor < table.len() {
            let at = self.cursor;
            self.cursor += 1;
            // SAFETY: as for `View::znode`.
            if let Some(owner) = unsafe { table.get(space, at) } {
                let owner = self.view.owner_at(owner);
                if let Some(timeout_ms) = self.view.session_of(owner) {
                    return Some((owner.key, timeout_ms));
                }
            }
        }
        None
    }
}

/// A place in a walk over all znodes at one version, parents before children. It belongs to the reader and the version
/// where it was begun.
pub struct Walk {
    stack: Vec<(Ref<Znode>, u32)>,
    begun: bool,
    /// Of the reader (a number of its own) and its version.
    of: (u64, u64),
}

impl Walk {
    pub(super) fn new(of: (u64, u64)) -> Walk {
        Walk { stack: Vec::new(), begun: false, of }
    }

    /// `of` is checked: the znodes on the stack are visible at that version, so they outlive any refresh of a reader
    /// that stays there, and nothing else.
    pub(super) fn next<'a>(&mut self, view: View<'a>, of: (u64, u64)) -> Option<Node<'a>> {
        assert_eq!(self.of, of, "a walk goes on where it was begun: same reader, same version");
        if !self.begun {
            self.begun = true;
            self.stack.push((view.shared.root, 0));
            return view.node_at(view.shared.root);
        }
        view.walk_on(&mut self.stack)
    }
}
