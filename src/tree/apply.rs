//! Txn → change: the one place where the tree is changed, on a leader, on a learner, in recovery and in simulation.
//!
//! Replay is idempotent: a Java snapshot may already hold the effect of txns behind it (fuzzy snapshot), so every
//! rule here says what happens when the change is there already (`DataTree.processTxn`).

use super::Tree;
use super::digest::{is_digested, node_digest};
use super::effects::{Effects, Outcome};
use super::publication::ChangeKind;
use super::store::{DataChange, StoreError, Writer};
use crate::types::acl::AclList;
use crate::types::error_code::ErrorCode;
use crate::types::mutant::{self, Mutant};
use crate::types::path;
use crate::types::stat::{CONTAINER_OWNER, OwnerKind, StatPersisted};
use crate::types::time::WallTime;
use crate::types::zxid::Zxid;
use crate::wire::txn::{NO_PARENT_CVERSION, Txn, TxnHeader};

/// When and where in the order a change happens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub zxid: Zxid,
    pub time: WallTime,
}

/// A create, as its txn says it.
#[derive(Clone, Copy, Debug)]
pub(super) struct CreateChange<'a> {
    pub path: &'a str,
    pub data: Option<&'a [u8]>,
    pub acl: &'a AclList,
    /// Stored form: 0, session, container marker or TTL.
    pub owner: i64,
    /// The parent's counter afterwards, or [`NO_PARENT_CVERSION`].
    pub parent_cversion: i32,
    /// Type create (1): its reply is the path alone, and its replay onto an existing znode still raises the parent's
    /// counter.
    pub is_plain: bool,
}

impl Tree {
    /// Applies a whole txn as the next version and collects its effects.
    pub fn apply(&mut self, header: &TxnHeader, txn: &Txn<'_>, effects: &mut Effects) {
        self.begin(header.zxid);
        match txn {
            Txn::Multi(parts) => match parts.iter().position(|part| matches!(part, Txn::Error { .. })) {
                Some(failed) => effects.outcomes.extend(outcomes_of_refused(parts, failed)),
                None => parts.iter().for_each(|part| self.apply_part(header, part, effects)),
            },
            Txn::Error { .. } => {
                self.apply_part(header, txn, effects);
                effects.is_refused = true;
            }
            _ => self.apply_part(header, txn, effects),
        }
    }

    /// One txn, or one part of a multi, at the open version.
    pub(super) fn apply_part(&mut self, header: &TxnHeader, txn: &Txn<'_>, effects: &mut Effects) {
        let at = Moment { zxid: header.zxid, time: header.time };
        let outcome = match txn {
            Txn::Create(create) | Txn::Create2(create) => {
                let change = CreateChange {
                    path: &create.path,
                    data: create.data.as_deref(),
                    acl: &create.acl,
                    owner: if create.ephemeral { header.session.0 } else { 0 },
                    parent_cversion: create.parent_cversion,
                    is_plain: matches!(txn, Txn::Create(_)),
                };
                self.create(at, change, effects)
            }
            Txn::CreateContainer { path, data, acl, parent_cversion } => {
                let owner = CONTAINER_OWNER;
                self.create(at, special(path, data.as_deref(), acl, owner, *parent_cversion), effects)
            }
            Txn::CreateTtl { path, data, acl, parent_cversion, ttl_ms } => {
                let owner = OwnerKind::ttl_owner(*ttl_ms);
                self.create(at, special(path, data.as_deref(), acl, owner, *parent_cversion), effects)
            }
            Txn::Delete { path } | Txn::DeleteContainer { path } => self.delete(at, path, effects),
            Txn::SetData(set) | Txn::Reconfig(set) => {
                self.set_data(at, &set.path, set.data.as_deref(), set.version, effects)
            }
            Txn::SetAcl { path, acl, version } => self.set_acl(path, acl, *version),
            Txn::CreateSession { timeout_ms } => {
                self.store.set_session(header.session.0, *timeout_ms);
                Outcome::Done
            }
            Txn::CloseSession { paths } => {
                let left_behind = usize::from(mutant::is_active(Mutant::EphemeralLeftBehind));
                for path in paths.iter().flatten().skip(left_behind) {
                    self.delete(at, path, effects);
                }
                self.close_session(at, header.session.0, effects);
                Outcome::Done
            }
            Txn::Check { .. } => Outcome::Done,
            Txn::Error { code } => Outcome::Error(error_of(*code)),
            Txn::Multi(_) => Outcome::Error(ErrorCode::Unimplemented),
        };
        effects.outcomes.push(outcome);
    }

    pub(super) fn create(&mut self, at: Moment, create: CreateChange<'_>, effects: &mut Effects) -> Outcome {
        let Some((parent_path, name)) = path::split(create.path) else { return Outcome::Error(ErrorCode::NoNode) };
        if self.store.get(parent_path).is_none() {
            return Outcome::Error(ErrorCode::NoNode);
        }
        if self.store.get(create.path).is_some() {
            self.recreate(at, &create, parent_path);
            return Outcome::Error(ErrorCode::NodeExists);
        }
        self.raise_parent(at, parent_path, create.parent_cversion);
        let stat = StatPersisted {
            czxid: at.zxid,
            mzxid: at.zxid,
            pzxid: at.zxid,
            ctime: at.time,
            mtime: at.time,
            ephemeral_owner: create.owner,
            ..Default::default()
        };
        self.insert(create.path, create.data, create.acl, &stat);
        self.count_quota(create.path, 1, create.data.map_or(0, |data| data.len() as i64));
        if name == path::QUOTA_STATS {
            self.recount_quota(parent_path);
        }
        let parent_acl = self.store.get(parent_path).map(|parent| parent.acl().clone()).unwrap_or_default();
        let path = effects.changed(ChangeKind::Created, create.path, create.acl.clone(), parent_acl);
        let length = create.data.map_or(0, |data| data.len() as i32);
        let stat = stat.to_stat(length, 0, self.settings.extended_types);
        Outcome::Created { path, stat, is_plain: create.is_plain }
    }

    /// A znode as it is, below a parent that exists: from a create, or from a snapshot.
    ///
    /// Panics where there is no parent or already such a znode: callers look first.
    pub(super) fn insert(&mut self, path: &str, data: Option<&[u8]>, acl: &AclList, stat: &StatPersisted) {
        let owner = self.owner_key(stat.ephemeral_owner);
        self.store.create(path, data, acl, stat, owner).expect("the caller has looked: parent there, znode not");
        self.add_digest(path);
    }

    /// The create is there already: a fuzzy snapshot saw it. Its ACL may be one that the snapshot does not list.
    fn recreate(&mut self, at: Moment, create: &CreateChange<'_>, parent_path: &str) {
        let aversion = self.store.get(create.path).map_or(0, |node| node.stat().aversion);
        self.exchange(create.path, |store| store.set_acl(create.path, create.acl, aversion));
        if create.is_plain {
            self.raise_parent(at, parent_path, create.parent_cversion);
        }
    }

    /// One more create below `parent`: its counter and `pzxid` move unless they already have.
    fn raise_parent(&mut self, at: Moment, parent: &str, parent_cversion: i32) {
        let Some(stat) = self.store.get(parent).map(|node| node.stat()) else { return };
        let cversion =
            if parent_cversion == NO_PARENT_CVERSION { stat.cversion.wrapping_add(1) } else { parent_cversion };
        // The counter wraps like a 32-bit int: "larger" is a question of distance.
        if cversion.wrapping_sub(stat.cversion) > 0 {
            self.set_directory(parent, at.zxid, cversion);
        }
    }

    pub(super) fn set_directory(&mut self, path: &str, pzxid: Zxid, cversion: i32) {
        self.exchange(path, |store| store.set_directory(path, pzxid, cversion));
    }

    /// Changes one znode, and the digest with it.
    pub(super) fn exchange(&mut self, path: &str, change: impl FnOnce(&mut Writer) -> Result<(), StoreError>) {
        self.remove_digest(path);
        change(&mut self.store).expect("the caller has looked: the znode is there");
        self.add_digest(path);
    }

    pub(super) fn add_digest(&mut self, path: &str) {
        self.digest = self.digest.wrapping_add(self.digest_of(path));
    }

    fn remove_digest(&mut self, path: &str) {
        self.digest = self.digest.wrapping_sub(self.digest_of(path));
    }

    fn digest_of(&self, path: &str) -> u64 {
        if !self.settings.digest_enabled || !is_digested(path) {
            return 0;
        }
        self.store.get(path).map_or(0, |node| node_digest(node.prefix_crc(), &node.stat()))
    }

    pub(super) fn delete(&mut self, at: Moment, path: &str, effects: &mut Effects) -> Outcome {
        let parent_path = path::split(path).map(|(parent, _)| parent);
        if let Some(parent_path) = parent_path {
            self.raise_pzxid(at, parent_path);
        }
        let (Some(node), Some(parent_path)) = (self.store.get(path), parent_path) else {
            return Outcome::Error(ErrorCode::NoNode);
        };
        if node.num_children() > 0 {
            return Outcome::Error(ErrorCode::NotEmpty);
        }
        let (acl, length) = (node.acl().clone(), node.data_length() as i64);
        self.remove_digest(path);
        self.store.delete(path).expect("it is there, without children");
        self.count_quota(path, -1, -length);
        let parent_acl = self.store.get(parent_path).map(|parent| parent.acl().clone()).unwrap_or_default();
        effects.changed(ChangeKind::Deleted, path, acl, parent_acl);
        Outcome::Deleted
    }

    /// `pzxid` moves with deletes too, also of a znode that a fuzzy snapshot no longer has.
    fn raise_pzxid(&mut self, at: Moment, parent: &str) {
        let Some(stat) = self.store.get(parent).map(|node| node.stat()) else { return };
        if at.zxid > stat.pzxid {
            self.set_directory(parent, at.zxid, stat.cversion);
        }
    }

    pub(super) fn set_data(
        &mut self,
        at: Moment,
        path: &str,
        data: Option<&[u8]>,
        version: i32,
        effects: &mut Effects,
    ) -> Outcome {
        let Some(node) = self.store.get(path) else { return Outcome::Error(ErrorCode::NoNode) };
        let (old, acl, children) = (node.stat(), node.acl().clone(), node.num_children());
        let grown = data.map_or(0, |d| d.len() as i64) - node.data_length() as i64;
        let new = StatPersisted { version, mzxid: at.zxid, mtime: at.time, ..old };
        let change = DataChange { mzxid: at.zxid, mtime: at.time, version };
        let is_digested = self.settings.digest_enabled && is_digested(path);
        if is_digested {
            // The commonest change of all: its old digest needs no look-up of its own.
            self.digest = self.digest.wrapping_sub(node_digest(node.prefix_crc(), &old));
        }
        self.store.set_data(path, data, change).expect("it was looked up above");
        if is_digested {
            self.add_digest(path);
        }
        if grown != 0 {
            self.count_quota(path, 0, grown);
        }
        effects.changed(ChangeKind::DataChanged, path, acl, AclList::Open);
        let length = data.map_or(0, |data| data.len() as i32);
        Outcome::Stat(new.to_stat(length, children, self.settings.extended_types))
    }

    pub(super) fn set_acl(&mut self, path: &str, acl: &AclList, aversion: i32) -> Outcome {
        let Some(node) = self.store.get(path) else { return Outcome::Error(ErrorCode::NoNode) };
        let (length, children) = (node.data_length() as i32, node.num_children());
        let new = StatPersisted { aversion, ..node.stat() };
        self.exchange(path, |store| store.set_acl(path, acl, aversion));
        Outcome::Stat(new.to_stat(length, children, self.settings.extended_types))
    }

    /// Deletes znodes at the open version: what recovery puts right without a txn.
    pub(super) fn delete_unlogged(&mut self, paths: &[String]) {
        let at = Moment { zxid: self.head, time: WallTime(0) };
        let mut effects = Effects::default();
        for path in paths {
            self.delete(at, path, &mut effects);
        }
    }

    /// Whatever the session still owns goes, then the session.
    fn close_session(&mut self, at: Moment, session: i64, effects: &mut Effects) {
        let left_behind = usize::from(mutant::is_active(Mutant::EphemeralLeftBehind));
        for path in self.owned_paths(session).iter().skip(left_behind) {
            self.delete(at, path, effects);
        }
        if self.store.session(session).is_some() {
            self.store.remove_session(session).expect("it is there");
        }
    }
}

fn error_of(code: i32) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::RuntimeInconsistency)
}

/// What a refused multi answers: nothing was wrong with the parts before the one that failed, and those behind it were not
/// looked at.
fn outcomes_of_refused(parts: &[Txn<'_>], failed: usize) -> impl Iterator<Item = Outcome> {
    parts.iter().enumerate().map(move |(at, part)| {
        Outcome::Error(match part {
            _ if at < failed => ErrorCode::Ok,
            Txn::Error { code } => error_of(*code),
            _ => ErrorCode::RuntimeInconsistency,
        })
    })
}

fn special<'a>(
    path: &'a str,
    data: Option<&'a [u8]>,
    acl: &'a AclList,
    owner: i64,
    parent_cversion: i32,
) -> CreateChange<'a> {
    CreateChange { path, data, acl, owner, parent_cversion, is_plain: false }
}
