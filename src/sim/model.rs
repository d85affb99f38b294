//! The tree as a plain map: too simple to be wrong in the same way as the one that ships.

use std::collections::{BTreeMap, BTreeSet};

use super::request::Part;
use crate::types::error_code::ErrorCode;
use crate::types::stat::{CONTAINER_OWNER, OwnerKind, Stat, StatPersisted};
use crate::types::zxid::Zxid;
use crate::wire::txn::{CreateTxn, SetDataTxn, Txn, TxnHeader};

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    pub data: Vec<u8>,
    pub stat: StatPersisted,
    /// Their names.
    pub children: BTreeSet<String>,
}

impl Node {
    /// As a client sees it.
    pub fn visible(&self) -> Stat {
        self.stat.to_stat(self.data.len() as i32, self.children.len() as i32, true)
    }
}

/// What happened to a path, by the number of the event that tells it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Change {
    Created = 1,
    Deleted = 2,
    DataChanged = 3,
}

/// Changes of a txn: path and what happened, in order.
pub type Changes = Vec<(String, Change)>;

#[derive(Clone, Debug)]
pub struct Model {
    pub nodes: BTreeMap<String, Node>,
    /// Timeouts in ms.
    pub sessions: BTreeMap<i64, i32>,
}

impl Model {
    /// As a server starts without any history.
    pub fn fresh() -> Model {
        let mut model = Model { nodes: BTreeMap::new(), sessions: BTreeMap::new() };
        model.nodes.insert("/".to_owned(), Node::default());
        for path in ["/zookeeper", "/zookeeper/config", "/zookeeper/quota"] {
            model.link(path);
            model.nodes.insert(path.to_owned(), Node::default());
        }
        model
    }

    fn link(&mut self, path: &str) {
        let (parent, name) = split(path);
        if let Some(parent) = self.nodes.get_mut(parent) {
            parent.children.insert(name.to_owned());
        }
    }

    /// Paths of a session's ephemerals.
    pub fn owned(&self, session: i64) -> Vec<String> {
        let is_its = |node: &Node| OwnerKind::of(node.stat.ephemeral_owner, true) == OwnerKind::Session(session);
        self.nodes.iter().filter(|(_, node)| is_its(node)).map(|(path, _)| path.clone()).collect()
    }

    /// Whether a request of this part would be granted.
    pub fn judge(&self, part: &Part) -> Result<(), ErrorCode> {
        let version = |path: &str, version: i32| {
            let node = self.nodes.get(path).ok_or(ErrorCode::NoNode)?;
            let fits = version == -1 || version == node.stat.version;
            if fits { Ok(node) } else { Err(ErrorCode::BadVersion) }
        };
        match part {
            Part::Create { path, flags, .. } => {
                let parent = self.nodes.get(split(path).0).ok_or(ErrorCode::NoNode)?;
                if flags & 2 == 0 && self.nodes.contains_key(path) {
                    return Err(ErrorCode::NodeExists);
                }
                match OwnerKind::of(parent.stat.ephemeral_owner, true) {
                    OwnerKind::Session(_) => Err(ErrorCode::NoChildrenForEphemerals),
                    OwnerKind::None | OwnerKind::Container | OwnerKind::Ttl(_) => Ok(()),
                }
            }
            Part::Set { path, version: expected, .. } | Part::Check { path, version: expected } => {
                version(path, *expected).map(|_| ())
            }
            Part::Delete { path, version: expected } => {
                let node = version(path, *expected)?;
                if node.children.is_empty() { Ok(()) } else { Err(ErrorCode::NotEmpty) }
            }
        }
    }

    /// Applies a txn.
    pub fn apply(&mut self, header: &TxnHeader, txn: &Txn<'_>, changes: &mut Changes) {
        match txn {
            Txn::CreateSession { timeout_ms } => {
                self.sessions.insert(header.session.0, *timeout_ms);
            }
            Txn::CloseSession { .. } => {
                self.sessions.remove(&header.session.0);
                for path in self.owned(header.session.0) {
                    self.delete(header, &path, changes);
                }
            }
            Txn::Create(create) | Txn::Create2(create) => {
                let CreateTxn { path, data, ephemeral, parent_cversion, .. } = create;
                let owner = if *ephemeral { header.session.0 } else { 0 };
                self.create(header, path, data.as_deref(), owner, *parent_cversion, changes);
            }
            Txn::CreateContainer { path, data, parent_cversion, .. } => {
                self.create(header, path, data.as_deref(), CONTAINER_OWNER, *parent_cversion, changes);
            }
            Txn::CreateTtl { path, data, parent_cversion, ttl_ms, .. } => {
                let owner = OwnerKind::ttl_owner(*ttl_ms);
                self.create(header, path, data.as_deref(), owner, *parent_cversion, changes);
            }
            Txn::Delete { path } | Txn::DeleteContainer { path } => self.delete(header, path, changes),
            Txn::SetData(set) | Txn::Reconfig(set) => self.set(header, set, changes),
            Txn::SetAcl { path, version, .. } => {
                if let Some(node) = self.nodes.get_mut(path.as_ref()) {
                    node.stat.aversion = *version;
                }
            }
            Txn::Multi(parts) if !txn.is_refused() => {
                parts.iter().for_each(|part| self.apply(header, part, changes));
            }
            Txn::Multi(_) | Txn::Check { .. } | Txn::Error { .. } => {}
        }
    }

    fn create(
        &mut self,
        header: &TxnHeader,
        path: &str,
        data: Option<&[u8]>,
        owner: i64,
        parent_cversion: i32,
        changes: &mut Changes,
    ) {
        let (zxid, time) = (header.zxid, header.time);
        let (parent, name) = split(path);
        if let Some(parent) = self.nodes.get_mut(parent) {
            parent.children.insert(name.to_owned());
            (parent.stat.cversion, parent.stat.pzxid) = (parent_cversion, zxid);
        }
        let stat = StatPersisted {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime: time,
            mtime: time,
            ephemeral_owner: owner,
            ..Default::default()
        };
        let data = data.unwrap_or_default().to_vec();
        self.nodes.insert(path.to_owned(), Node { data, stat, children: BTreeSet::new() });
        changes.push((path.to_owned(), Change::Created));
    }

    fn delete(&mut self, header: &TxnHeader, path: &str, changes: &mut Changes) {
        let (parent, name) = split(path);
        if self.nodes.remove(path).is_some() {
            changes.push((path.to_owned(), Change::Deleted));
        }
        if let Some(parent) = self.nodes.get_mut(parent) {
            parent.children.remove(name);
            parent.stat.pzxid = parent.stat.pzxid.max(header.zxid);
        }
    }

    fn set(&mut self, header: &TxnHeader, set: &SetDataTxn<'_>, changes: &mut Changes) {
        let SetDataTxn { path, data, version } = set;
        if let Some(node) = self.nodes.get_mut(path.as_ref()) {
            node.data = data.as_deref().unwrap_or_default().to_vec();
            node.stat.version = *version;
            (node.stat.mzxid, node.stat.mtime) = (header.zxid, header.time);
            changes.push((path.to_string(), Change::DataChanged));
        }
    }

    /// What of the tree a txn may touch, to put back later.
    pub fn keep(&self, parts: &[Part]) -> Vec<(String, Option<Node>)> {
        let paths = parts.iter().flat_map(|part| [part.path(), split(part.path()).0]);
        paths.map(|path| (path.to_owned(), self.nodes.get(path).cloned())).collect()
    }

    pub fn put_back(&mut self, kept: Vec<(String, Option<Node>)>) {
        for (path, node) in kept {
            match node {
                Some(node) => self.nodes.insert(path, node),
                None => self.nodes.remove(&path),
            };
        }
    }

    /// Grants a request's part as if it were alone in its txn; for looking ahead within a multi.
    pub fn grant(&mut self, header: &TxnHeader, part: &Part) {
        let mut changes = Changes::new();
        match part {
            Part::Create { path, data, flags } => {
                let Some(parent) = self.nodes.get(split(path).0) else { return };
                let counter = parent.stat.cversion;
                let path = if flags & 2 == 0 { path.clone() } else { format!("{path}{counter:010}") };
                self.create(header, &path, Some(data), 0, counter + 1, &mut changes);
            }
            Part::Set { path, version, .. } => {
                let _ = version;
                if let Some(node) = self.nodes.get_mut(path) {
                    node.stat.version += 1;
                }
            }
            Part::Delete { path, .. } => self.delete(header, path, &mut changes),
            Part::Check { .. } => {}
        }
    }
}

/// Parent and name.
pub fn split(path: &str) -> (&str, &str) {
    match path.rfind('/') {
        Some(0) => ("/", &path[1..]),
        Some(at) => (&path[..at], &path[at + 1..]),
        None => ("/", path),
    }
}

/// When what happened to which path, for watches.
#[derive(Debug, Default)]
pub struct Timeline {
    /// Events of data watches.
    data: BTreeMap<String, Vec<(Zxid, i32)>>,
    /// Events of child watches.
    child: BTreeMap<String, Vec<(Zxid, i32)>>,
}

/// `NodeChildrenChanged`.
const CHILDREN_CHANGED: i32 = 4;

impl Timeline {
    pub fn add(&mut self, zxid: Zxid, changes: &Changes) {
        for (path, change) in changes {
            self.data.entry(path.clone()).or_default().push((zxid, *change as i32));
            if *change == Change::Deleted {
                self.child.entry(path.clone()).or_default().push((zxid, *change as i32));
            }
            if *change != Change::DataChanged {
                let parent = split(path).0;
                self.child.entry(parent.to_owned()).or_default().push((zxid, CHILDREN_CHANGED));
            }
        }
    }

    /// The first event that a watch set at `since` has to fire: zxid and kind.
    pub fn first_after(&self, is_child: bool, path: &str, since: Zxid) -> Option<(Zxid, i32)> {
        let events = if is_child { &self.child } else { &self.data }.get(path)?;
        events.get(events.partition_point(|(zxid, _)| *zxid <= since)).copied()
    }

    /// Whether the znode is there at a version.
    pub fn exists(&self, path: &str, at: Zxid) -> bool {
        let Some(events) = self.data.get(path) else { return false };
        let last = events.partition_point(|(zxid, _)| *zxid <= at).checked_sub(1);
        last.is_some_and(|last| events[last].1 != Change::Deleted as i32)
    }
}
