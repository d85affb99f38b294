//! A reader: sees the store at a version of its own choice while the writer goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Shared;
use super::view::{Children, Node, OwnedPaths, Sessions, View, Walk};

/// Numbers readers, of whatever store.
static READERS: AtomicU64 = AtomicU64::new(0);

/// What a reader posts at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// Moves from version to version; all from its own on stay readable.
    Walking,
    /// Stays at one version, the only one kept for it.
    Holding,
    /// Keeps nothing back.
    Offline,
}

/// Makes readers on any thread.
#[derive(Clone)]
pub struct ReaderFactory {
    pub(super) shared: Arc<Shared>,
}

impl ReaderFactory {
    /// A reader at the newest published version. `None`: [`READERS_MAX`](super::pins::READERS_MAX) are registered.
    pub fn reader(&self) -> Option<Reader> {
        let slot = self.shared.pins.claim()?;
        let version = self.shared.pins.online(slot);
        let id = READERS.fetch_add(1, Ordering::Relaxed);
        Some(Reader { shared: self.shared.clone(), slot, version, mode: Mode::Walking, id })
    }
}

/// One thread's way to read. What it returns borrows from it, and adopting another version needs `&mut`, so no reference
/// outlives the version that it was read at.
pub struct Reader {
    shared: Arc<Shared>,
    slot: usize,
    version: u64,
    mode: Mode,
    id: u64,
}

impl Reader {
    /// The version that is read.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The newest version that may be adopted.
    pub fn published(&self) -> u64 {
        self.shared.pins.published()
    }

    /// Goes on to a later version: `version() ≤ version ≤ published()`. Not while holding.
    pub fn adopt(&mut self, version: u64) {
        assert!(self.mode == Mode::Walking, "a reader that is {:?} adopts nothing", self.mode);
        assert!(version >= self.version, "versions go forward: {version} after {}", self.version);
        let published = self.published();
        assert!(version <= published, "version {version} is not published, {published} is");
        self.shared.pins.adopt(self.slot, version);
        self.version = version;
    }

    /// Goes on to the newest published version and returns it.
    pub fn adopt_latest(&mut self) -> u64 {
        let version = self.published();
        self.adopt(version);
        version
    }

    /// From now on only this one version is kept for the reader (a snapshot that takes minutes), until `release`.
    pub fn hold(&mut self) {
        assert!(self.mode == Mode::Walking, "a reader that is {:?} holds nothing", self.mode);
        self.shared.pins.hold(self.slot, self.version);
        self.mode = Mode::Holding;
    }

    /// Lets the held version go, adopts the newest one and returns it.
    pub fn release(&mut self) -> u64 {
        assert!(self.mode == Mode::Holding, "a reader that is {:?} has nothing to release", self.mode);
        self.online()
    }

    /// Says that no reference is held, without moving on. A holding reader does this every now and then, or what others
    /// are done with cannot be freed.
    pub fn refresh(&mut self) {
        if self.mode != Mode::Offline {
            self.shared.pins.refresh(self.slot);
        }
    }

    /// Keeps nothing back until `online`: for a core that goes to sleep. Nothing can be read meanwhile.
    pub fn offline(&mut self) {
        self.shared.pins.offline(self.slot);
        self.mode = Mode::Offline;
    }

    /// Comes back, or goes on, at the newest published version, and returns it.
    pub fn online(&mut self) -> u64 {
        self.version = self.shared.pins.online(self.slot);
        self.mode = Mode::Walking;
        self.version
    }

    pub fn is_online(&self) -> bool {
        self.mode != Mode::Offline
    }

    #[inline]
    fn view(&self) -> View<'_> {
        assert!(self.mode != Mode::Offline, "an offline reader reads nothing");
        // SAFETY: online at this version, and the borrow keeps it there.
        unsafe { View::new(&self.shared, self.version) }
    }

    #[inline]
    pub fn get(&self, path: &str) -> Option<Node<'_>> {
        self.view().node(path)
    }

    /// Appends what `get` returns for each path. Many at once cost a fraction of one after the other.
    pub fn get_many<'a>(&'a self, paths: &[&str], out: &mut Vec<Option<Node<'a>>>) {
        self.view().get_many(paths, out);
    }

    /// Prepares look-ups that follow soon.
    pub fn warm(&self, paths: &[&str]) {
        self.view().warm(paths);
    }

    /// Names of the children. `None`: no such znode.
    pub fn list(&self, path: &str) -> Option<Children<'_>> {
        self.list_from(path, 0)
    }

    /// The same from a cursor on; 0 is the start.
    pub fn list_from(&self, path: &str, cursor: u32) -> Option<Children<'_>> {
        self.view().list(path, cursor)
    }

    /// Paths of what the key owns.
    pub fn owned(&self, owner_key: i64) -> OwnedPaths<'_> {
        self.owned_from(owner_key, 0)
    }

    /// The same from a cursor on; 0 is the start.
    pub fn owned_from(&self, owner_key: i64, cursor: u32) -> OwnedPaths<'_> {
        self.view().owned(owner_key, cursor)
    }

    /// Timeout in ms. `None`: no such session.
    pub fn session(&self, owner_key: i64) -> Option<i32> {
        self.view().session(owner_key)
    }

    /// All sessions.
    pub fn sessions(&self) -> Sessions<'_> {
        self.sessions_from(0)
    }

    /// The same from a cursor on; 0 is the start.
    pub fn sessions_from(&self, cursor: u32) -> Sessions<'_> {
        self.view().sessions(cursor)
    }

    /// Begins a walk over all znodes.
    pub fn walk(&self) -> Walk {
        Walk::new((self.id, self.version))
    }

    /// The next znode of a walk, parents before children. The walk goes on after `refresh`, and not after `adopt`.
    pub fn walk_on(&self, walk: &mut Walk) -> Option<Node<'_>> {
        walk.next(self.view(), (self.id, self.version))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.pins.release(self.slot);
    }
}
