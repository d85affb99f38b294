//! The watches of one shard: who is told when which znode changes (`WatchManager`).
//!
//! ZooKeeper keeps a data table and a child table. Here one entry per path holds both, because a change asks for both:
//!
//! ```text
//! paths       hash of path ─► path id                    8 bytes each, hashed by a seed
//! nodes       path id      ─► path, watchers             watcher: [slot][modes] in 4 bytes, order of registration
//! recursive   hash of path ─► path id                    the few that are watched with all that is below them
//! slots       connection   ─► slot                       slot: number of a connection that watches
//! watching    slot         ─► connection, path ids       path ids may be stale; swept when half of them are
//! ```
//!
//! A change of an unwatched path costs one look-up for it and one for its parent, or none when nothing is watched;
//! ancestors are walked only while somebody watches recursively.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::mem;

use ahash::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::tree::publication::{Change, ChangeKind};
use crate::types::acl::AclList;
use crate::types::ids::ConnectionId;
use crate::types::limits;
use crate::types::mutant::{self, Mutant};
use crate::types::path;
use crate::types::zxid::Zxid;
use crate::wire::client::EventType;

#[cfg(test)]
mod tests;
mod watchers;

use watchers::{Modes, SLOTS_MAX, Watchers};

/// What a client asks to be told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WatchKind {
    /// `getData`, `exists`: the next event of the znode itself.
    Data,
    /// `getChildren`: the next change of its children, or its end.
    Child,
    /// `addWatch` mode 0: every event of the znode and every change of its children.
    Persistent,
    /// `addWatch` mode 1: every event of the znode and of all below it, but no `NodeChildrenChanged`.
    PersistentRecursive,
}

impl WatchKind {
    /// The mode of an `AddWatchRequest`.
    pub const fn from_add_mode(mode: i32) -> Option<WatchKind> {
        match mode {
            0 => Some(WatchKind::Persistent),
            1 => Some(WatchKind::PersistentRecursive),
            _ => None,
        }
    }

    const fn modes(self) -> Modes {
        match self {
            WatchKind::Data => Modes::DATA_STANDARD,
            WatchKind::Child => Modes::CHILD_STANDARD,
            WatchKind::Persistent => Modes::DATA_PERSISTENT.with(Modes::CHILD_PERSISTENT),
            WatchKind::PersistentRecursive => Modes::DATA_RECURSIVE,
        }
    }
}

/// What `removeWatches` and `checkWatches` mean (`Watcher.WatcherType`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WatcherType {
    Children,
    Data,
    Any,
    Persistent,
    PersistentRecursive,
}

impl WatcherType {
    pub const fn from_code(code: i32) -> Option<WatcherType> {
        match code {
            1 => Some(WatcherType::Children),
            2 => Some(WatcherType::Data),
            3 => Some(WatcherType::Any),
            4 => Some(WatcherType::Persistent),
            5 => Some(WatcherType::PersistentRecursive),
            _ => None,
        }
    }

    const fn removed(self) -> Modes {
        match self {
            WatcherType::Children => Modes::CHILD_STANDARD,
            WatcherType::Data => Modes::DATA_STANDARD,
            WatcherType::Any => Modes::ALL,
            WatcherType::Persistent => Modes::DATA_PERSISTENT.with(Modes::CHILD_PERSISTENT),
            WatcherType::PersistentRecursive => Modes::DATA_RECURSIVE,
        }
    }

    /// Java looks for persistent watches in the data table only.
    const fn checked(self) -> Modes {
        match self {
            WatcherType::Persistent => Modes::DATA_PERSISTENT,
            other => other.removed(),
        }
    }
}

/// The notifications of one or more changes, in the order in which they must be sent. The caller clears and reuses it.
#[derive(Debug, Default)]
pub struct Fired {
    connections: Vec<ConnectionId>,
    steps: Vec<StepEnd>,
    text: String,
}

#[derive(Debug)]
struct StepEnd {
    event: EventType,
    connections: usize,
    text: usize,
}

/// One event for many connections, each of them once.
///
/// Who has no READ by `Step::acl` is not told; the watch is gone all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step<'a> {
    pub event: EventType,
    pub path: &'a str,
    /// In the order of registration; those who watch an ancestor recursively follow, nearest ancestor first.
    pub connections: &'a [ConnectionId],
}

impl Step<'_> {
    /// Whose READ each connection needs, of the change that fired this: the parent's for `NodeChildrenChanged`, else the
    /// znode's own (for `NodeDeleted` the one that it had).
    pub fn acl<'c>(&self, change: &'c Change) -> &'c AclList {
        match self.event {
            EventType::NodeChildrenChanged => &change.parent_acl,
            EventType::NodeCreated | EventType::NodeDeleted | EventType::NodeDataChanged => &change.acl,
        }
    }
}

impl Fired {
    pub fn clear(&mut self) {
        self.connections.clear();
        self.steps.clear();
        self.text.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        let (mut connections, mut text) = (0, 0);
        self.steps.iter().map(move |step| {
            let from = (mem::replace(&mut connections, step.connections), mem::replace(&mut text, step.text));
            Step {
                event: step.event,
                path: &self.text[from.1..step.text],
                connections: &self.connections[from.0..step.connections],
            }
        })
    }

    /// Everything pushed since the last step becomes a step, unless it is nothing.
    fn close_step(&mut self, event: EventType, path: &str) {
        if self.connections.len() > self.steps.last().map_or(0, |step| step.connections) {
            self.text.push_str(path);
            self.steps.push(StepEnd { event, connections: self.connections.len(), text: self.text.len() });
        }
    }
}

/// The shard has no room for another watched path (`limits::WATCHED_PATH_BYTES_MAX`, 2^32 paths) or another connection
/// that watches (2^27). The caller closes the connection that asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyWatches;

/// How much is watched. A watch is a pair of path and connection in one of the two tables, whatever its modes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WatchCounts {
    pub data_watches: u64,
    pub child_watches: u64,
    /// Connections with a data watch.
    pub data_connections: u64,
    /// Watches, of `data_watches`, that see what is below their path.
    pub recursive_watches: u64,
}

impl WatchCounts {
    /// `watch_count`.
    pub fn total(&self) -> u64 {
        self.data_watches + self.child_watches
    }
}

#[derive(Debug, Default)]
struct Node {
    path: Box<str>,
    /// Empty: the id is free.
    watchers: Watchers,
}

#[derive(Clone, Copy, Debug)]
struct PathEntry {
    hash: u32,
    id: u32,
}

impl PathEntry {
    fn spread(&self) -> u64 {
        spread(self.hash)
    }
}

/// A path that is watched recursively. Its hash is taken component by component, so that one pass over a path yields
/// the hashes of all its ancestors.
#[derive(Clone, Copy, Debug)]
struct RecursiveEntry {
    hash: u32,
    id: u32,
    /// Connections that watch it so. Never 0.
    watchers: u32,
}

impl RecursiveEntry {
    fn spread(&self) -> u64 {
        spread(self.hash)
    }
}

/// The table takes its tag from the top bits and its bucket from the low ones.
fn spread(hash: u32) -> u64 {
    (hash as u64) << 32 | hash as u64
}

#[derive(Debug, Default)]
struct Watching {
    connection: ConnectionId,
    /// The last step that this connection was told.
    told: u64,
    /// Ids of watched paths, all of them; perhaps also some that are no longer watched, and some twice.
    /// `paths.len() ≤ 2 × watched + STALE_MIN` when the last one came.
    paths: SmallVec<[u32; 2]>,
    /// Paths that this connection watches.
    watched: u32,
    /// Paths that this connection watches in the data table.
    data: u32,
}

impl Watching {
    /// Forgets the ids of paths that `slot` no longer watches.
    fn sweep(&mut self, slot: u32, nodes: &[Node]) {
        self.paths.sort_unstable();
        self.paths.dedup();
        self.paths.retain(|id| !nodes[*id as usize].watchers.get(slot).is_none());
        if self.paths.capacity() > 4 * self.paths.len() {
            self.paths.shrink_to_fit();
        }
        debug_assert_eq!(self.paths.len(), self.watched as usize);
    }
}

/// Stale path ids that are not worth a sweep.
const STALE_MIN: usize = 8;

/// All watches of one shard.
#[derive(Debug)]
pub struct WatchTable {
    hasher: RandomState,
    paths: HashTable<PathEntry>,
    nodes: Vec<Node>,
    free_nodes: Vec<u32>,
    recursive: HashTable<RecursiveEntry>,
    /// No path in `recursive` is longer.
    recursive_len_max: usize,
    /// Length of all watched paths together.
    path_bytes: usize,
    /// `path_bytes ≤ path_bytes_max`: `limits::WATCHED_PATH_BYTES_MAX`, but in tests.
    pub(super) path_bytes_max: usize,
    slots: HashMap<ConnectionId, u32, RandomState>,
    watching: Vec<Watching>,
    free_slots: Vec<u32>,
    counts: WatchCounts,
    /// Number of the step being fired; a connection is told once in each.
    step: u64,
}

impl WatchTable {
    /// `seed` keeps clients from choosing paths that collide; it never shows in any order.
    pub fn new(seed: [u64; 4]) -> WatchTable {
        let hasher = RandomState::with_seeds(seed[0], seed[1], seed[2], seed[3]);
        WatchTable {
            slots: HashMap::with_hasher(hasher.clone()),
            hasher,
            paths: HashTable::new(),
            nodes: Vec::new(),
            free_nodes: Vec::new(),
            recursive: HashTable::new(),
            recursive_len_max: 0,
            path_bytes: 0,
            path_bytes_max: limits::WATCHED_PATH_BYTES_MAX,
            watching: Vec::new(),
            free_slots: Vec::new(),
            counts: WatchCounts::default(),
            step: 0,
        }
    }

    pub fn counts(&self) -> WatchCounts {
        self.counts
    }

    /// Paths with a watch in either table.
    pub fn paths(&self) -> usize {
        self.paths.len()
    }

    /// Registers a watch. Doing it twice has no further effect; kinds coexist.
    pub fn add(&mut self, kind: WatchKind, path: &str, connection: ConnectionId) -> Result<(), TooManyWatches> {
        let slot = self.slot_for(connection)?;
        let id = self.id_for(path)?;
        let before = self.nodes[id as usize].watchers.add(slot, kind.modes());
        let watching = &mut self.watching[slot as usize];
        recount(&mut self.counts, watching, before, before.with(kind.modes()));
        if before.is_none() {
            watching.paths.push(id);
            if watching.paths.len() > 2 * watching.watched as usize + STALE_MIN {
                watching.sweep(slot, &self.nodes);
            }
        }
        if kind == WatchKind::PersistentRecursive && !before.meets(Modes::DATA_RECURSIVE) {
            self.add_recursive(id);
        }
        Ok(())
    }

    /// `removeWatches`: whether there was anything to remove.
    pub fn remove(&mut self, kind: WatcherType, path: &str, connection: ConnectionId) -> bool {
        let (Some(slot), Some(id)) = (self.slots.get(&connection).copied(), self.find(path)) else { return false };
        self.take_away(id, slot, kind.removed())
    }

    /// `checkWatches`.
    pub fn contains(&self, kind: WatcherType, path: &str, connection: ConnectionId) -> bool {
        match (self.slots.get(&connection), self.find(path)) {
            (Some(slot), Some(id)) => self.nodes[id as usize].watchers.get(*slot).meets(kind.checked()),
            _ => false,
        }
    }

    /// Forgets a connection that has closed. Costs what it has watched lately, whoever else watches those paths.
    pub fn close(&mut self, connection: ConnectionId) {
        let Some(slot) = self.slots.remove(&connection) else { return };
        for id in mem::take(&mut self.watching[slot as usize].paths) {
            self.take_away(id, slot, Modes::ALL);
        }
        debug_assert_eq!(self.watching[slot as usize].watched, 0);
        self.watching[slot as usize] = Watching::default();
        self.free_slots.push(slot);
    }

    /// Uses up the standard watches that a change triggers, and appends to `out` who is to be told what, in order:
    /// the znode's own event, then `NodeChildrenChanged` of its parent. The two steps of Java's delete, first the
    /// data table and then the child table without those already told, have one event and are one step here.
    pub fn fire(&mut self, change: ChangeKind, path: &str, out: &mut Fired) {
        if self.paths.is_empty() {
            return;
        }
        match change {
            ChangeKind::Created => {
                self.fire_node(EventType::NodeCreated, path, out);
                self.fire_parent(path, out);
            }
            ChangeKind::Deleted => {
                self.fire_node(EventType::NodeDeleted, path, out);
                self.fire_parent(path, out);
            }
            ChangeKind::DataChanged => self.fire_node(EventType::NodeDataChanged, path, out),
        }
    }

    fn fire_node(&mut self, event: EventType, path: &str, out: &mut Fired) {
        self.step += 1;
        let id = self.find(path);
        if let Some(id) = id {
            self.tell(id, Modes::DATA, out);
        }
        if !self.recursive.is_empty() {
            for id in self.recursive_ancestors(path) {
                self.tell(id, Modes::DATA_RECURSIVE, out);
            }
        }
        if let Some(id) = id {
            if event == EventType::NodeDeleted {
                self.tell(id, Modes::CHILD, out);
            }
            self.free_if_unwatched(id);
        }
        out.close_step(event, path);
    }

    fn fire_parent(&mut self, path: &str, out: &mut Fired) {
        if self.counts.child_watches == 0 {
            return;
        }
        let Some((parent, _)) = path::split(path) else { return };
        let Some(id) = self.find(parent) else { return };
        self.step += 1;
        self.tell(id, Modes::CHILD, out);
        self.free_if_unwatched(id);
        out.close_step(EventType::NodeChildrenChanged, parent);
    }

    /// Appends the connections that watch a path in one of the modes and were not told in this step. Their standard
    /// watches in the same table are used up either way; an ancestor is only asked for its recursive ones.
    fn tell(&mut self, id: u32, asked: Modes, out: &mut Fired) {
        let WatchTable { nodes, watching, counts, step, .. } = self;
        nodes[id as usize].watchers.fire(asked, asked.and(Modes::STANDARD), |slot, before, after| {
            let watching = &mut watching[slot as usize];
            if watching.told != *step {
                watching.told = *step;
                out.connections.push(watching.connection);
            }
            if after != before {
                recount(counts, watching, before, after);
            }
        });
    }

    /// Data watches by path (`wchp`): paths in the order of their ids, connections in the order of registration.
    pub fn data_watches(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = ConnectionId>)> {
        self.nodes.iter().filter(|node| node.watchers.iter().any(|(_, modes)| modes.meets(Modes::DATA))).map(|node| {
            let watchers = node.watchers.iter().filter(|(_, modes)| modes.meets(Modes::DATA));
            (&*node.path, watchers.map(|(slot, _)| self.watching[slot as usize].connection))
        })
    }

    /// Data watches by connection (`wchc`): connections in the order of their slots, paths in the order of their ids.
    pub fn data_watches_by_connection(&self) -> impl Iterator<Item = (ConnectionId, Vec<&str>)> {
        self.watching.iter().enumerate().filter(|(_, watching)| watching.data > 0).map(|(slot, watching)| {
            let mut ids = watching.paths.clone();
            ids.sort_unstable();
            ids.dedup();
            let nodes = ids.into_iter().map(|id| &self.nodes[id as usize]);
            let paths = nodes.filter(|node| node.watchers.get(slot as u32).meets(Modes::DATA));
            (watching.connection, paths.map(|node| &*node.path).collect())
        })
    }

    fn hash(&self, path: &str) -> u32 {
        self.hasher.hash_one(path) as u32
    }

    fn find(&self, path: &str) -> Option<u32> {
        self.find_hashed(path, self.hash(path))
    }

    fn find_hashed(&self, path: &str, hash: u32) -> Option<u32> {
        let is_it = |entry: &PathEntry| entry.hash == hash && *self.nodes[entry.id as usize].path == *path;
        self.paths.find(spread(hash), is_it).map(|entry| entry.id)
    }

    fn id_for(&mut self, path: &str) -> Result<u32, TooManyWatches> {
        let hash = self.hash(path);
        if let Some(id) = self.find_hashed(path, hash) {
            return Ok(id);
        }
        if self.path_bytes + path.len() > self.path_bytes_max {
            return Err(TooManyWatches);
        }
        let node = Node { path: path.into(), watchers: Watchers::default() };
        let id = match self.free_nodes.pop() {
            Some(id) => {
                self.nodes[id as usize] = node;
                id
            }
            None => {
                let id = u32::try_from(self.nodes.len()).map_err(|_| TooManyWatches)?;
                self.nodes.push(node);
                id
            }
        };
        self.path_bytes += path.len();
        self.paths.insert_unique(spread(hash), PathEntry { hash, id }, PathEntry::spread);
        Ok(id)
    }

    fn slot_for(&mut self, connection: ConnectionId) -> Result<u32, TooManyWatches> {
        if let Some(slot) = self.slots.get(&connection) {
            return Ok(*slot);
        }
        let slot = match self.free_slots.pop() {
            Some(slot) => slot,
            None if self.watching.len() < SLOTS_MAX as usize => {
                self.watching.push(Watching::default());
                (self.watching.len() - 1) as u32
            }
            None => return Err(TooManyWatches),
        };
        self.watching[slot as usize].connection = connection;
        self.slots.insert(connection, slot);
        Ok(slot)
    }

    /// Those above `path` that are watched recursively, the nearest first. Linear in the length of the path.
    fn recursive_ancestors(&self, path: &str) -> SmallVec<[u32; 8]> {
        let mut found = SmallVec::new();
        if path.len() > path::ROOT.len() {
            found.extend(self.find_recursive(path::ROOT, self.chained_hash(path::ROOT)));
        }
        let (mut state, mut from) = (self.hasher.build_hasher(), 0);
        for end in inner_slashes(path).take_while(|end| *end <= self.recursive_len_max) {
            state.write(&path.as_bytes()[from..end]);
            found.extend(self.find_recursive(&path[..end], state.finish() as u32));
            from = end;
        }
        found.reverse();
        found
    }

    fn find_recursive(&self, path: &str, hash: u32) -> Option<u32> {
        let is_it = |entry: &RecursiveEntry| entry.hash == hash && *self.nodes[entry.id as usize].path == *path;
        self.recursive.find(spread(hash), is_it).map(|entry| entry.id)
    }

    fn chained_hash(&self, path: &str) -> u32 {
        let (mut state, mut from) = (self.hasher.build_hasher(), 0);
        for end in inner_slashes(path).chain([path.len()]) {
            state.write(&path.as_bytes()[from..end]);
            from = end;
        }
        state.finish() as u32
    }

    fn add_recursive(&mut self, id: u32) {
        let path = &self.nodes[id as usize].path;
        let hash = self.chained_hash(path);
        self.recursive_len_max = self.recursive_len_max.max(path.len());
        match self.recursive.find_mut(spread(hash), |entry| entry.id == id) {
            Some(entry) => entry.watchers += 1,
            None => {
                let entry = RecursiveEntry { hash, id, watchers: 1 };
                self.recursive.insert_unique(spread(hash), entry, RecursiveEntry::spread);
            }
        }
    }

    fn remove_recursive(&mut self, id: u32) {
        let hash = self.chained_hash(&self.nodes[id as usize].path);
        let Ok(mut entry) = self.recursive.find_entry(spread(hash), |entry| entry.id == id) else { return };
        entry.get_mut().watchers -= 1;
        if entry.get().watchers == 0 {
            entry.remove();
            if self.recursive.is_empty() {
                self.recursive_len_max = 0;
            }
        }
    }

    /// Whether there was anything to take away.
    fn take_away(&mut self, id: u32, slot: u32, modes: Modes) -> bool {
        let before = self.nodes[id as usize].watchers.remove(slot, modes);
        if !before.meets(modes) {
            return false;
        }
        recount(&mut self.counts, &mut self.watching[slot as usize], before, before.without(modes));
        if before.and(modes).meets(Modes::DATA_RECURSIVE) {
            self.remove_recursive(id);
        }
        self.free_if_unwatched(id);
        true
    }

    fn free_if_unwatched(&mut self, id: u32) {
        let node = &mut self.nodes[id as usize];
        if !node.watchers.is_empty() {
            return;
        }
        let path = mem::take(node).path;
        self.path_bytes -= path.len();
        let hash = self.hash(&path);
        if let Ok(entry) = self.paths.find_entry(spread(hash), |entry| entry.id == id) {
            entry.remove();
        }
        self.free_nodes.push(id);
    }
}

/// Where the ancestors of a path end, but for the root: at every slash that is not its first byte.
fn inner_slashes(path: &str) -> impl Iterator<Item = usize> {
    path.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'/').map(|(at, _)| at)
}

/// Keeps the counts true when the modes of one connection at one path change.
fn recount(counts: &mut WatchCounts, watching: &mut Watching, before: Modes, after: Modes) {
    let change = |table: Modes| after.meets(table) as i64 - before.meets(table) as i64;
    let data = change(Modes::DATA);
    counts.data_watches = counts.data_watches.wrapping_add_signed(data);
    counts.child_watches = counts.child_watches.wrapping_add_signed(change(Modes::CHILD));
    counts.recursive_watches = counts.recursive_watches.wrapping_add_signed(change(Modes::DATA_RECURSIVE));
    watching.watched = watching.watched.wrapping_add_signed(change(Modes::ALL) as i32);
    let watched_data = watching.data > 0;
    watching.data = watching.data.wrapping_add_signed(data as i32);
    let connections = (watching.data > 0) as i64 - watched_data as i64;
    counts.data_connections = counts.data_connections.wrapping_add_signed(connections);
}

/// The five lists of `setWatches` and `setWatches2`, in the order in which they are worked through.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Restored {
    Data,
    Exist,
    Child,
    Persistent,
    PersistentRecursive,
}

/// What becomes of a watch that a client brings along after a reconnect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CatchUp {
    /// It would have fired: send this with zxid -1, without asking the ACL, and do not register it.
    Send(EventType),
    Register(WatchKind),
}

/// `relative` is the last zxid that the client saw; `znode` the mzxid and pzxid of the path, if it exists.
pub fn catch_up(list: Restored, znode: Option<(Zxid, Zxid)>, relative: i64) -> CatchUp {
    let relative = if mutant::is_active(Mutant::WatchCatchUpSkipped) { i64::MAX } else { relative };
    let is_newer = |zxid: Zxid| zxid.as_i64() > relative;
    match (list, znode) {
        (Restored::Data | Restored::Child, None) => CatchUp::Send(EventType::NodeDeleted),
        (Restored::Data, Some((mzxid, _))) if is_newer(mzxid) => CatchUp::Send(EventType::NodeDataChanged),
        (Restored::Data, Some(_)) => CatchUp::Register(WatchKind::Data),
        (Restored::Exist, Some(_)) => CatchUp::Send(EventType::NodeCreated),
        (Restored::Exist, None) => CatchUp::Register(WatchKind::Data),
        (Restored::Child, Some((_, pzxid))) if is_newer(pzxid) => CatchUp::Send(EventType::NodeChildrenChanged),
        (Restored::Child, Some(_)) => CatchUp::Register(WatchKind::Child),
        (Restored::Persistent, _) => CatchUp::Register(WatchKind::Persistent),
        (Restored::PersistentRecursive, _) => CatchUp::Register(WatchKind::PersistentRecursive),
    }
}
