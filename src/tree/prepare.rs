//! Request → txn, checked against the newest version (`PrepRequestProcessor`).
//!
//! The checks stand in ZooKeeper's order: the first that fails decides the answer. A txn is applied as soon as it is
//! prepared, so every later request, and every later part of the same multi, sees it.

use std::borrow::Cow;
use std::fmt::Write as _;

use bumpalo::Bump;
use bumpalo::collections::String as ArenaString;

use super::access::{self, AccessSettings};
use super::effects::{Effects, Mark, Outcome};
use super::store::Node;
use super::{Tree, quota};
use crate::types::acl::{AclList, Id, perms};
use crate::types::error_code::ErrorCode;
use crate::types::limits;
use crate::types::mutant::{self, Mutant};
use crate::types::path;
use crate::types::stat::{OwnerKind, TTL_MAX_MS};
use crate::wire::client::{AclEntries, Create, CreateMode, OpCode, WriteRequest};
use crate::wire::txn::{self, CreateTxn, SetDataTxn, Txn, TxnDigest, TxnHeader};

/// Who asks, when, and what is known about the session.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext<'a> {
    pub header: TxnHeader,
    /// The ids of the connection when the request was read.
    pub auth: &'a [Id],
    /// What is wrong with the session, if anything: closing, unknown, local.
    pub session_error: Option<ErrorCode>,
    /// For what the txn is made of and the request does not hold.
    pub arena: &'a Bump,
}

impl Tree {
    /// Makes the next txn out of a request, applies it, and appends its log payload. A refused request becomes an error
    /// txn: it uses its zxid all the same.
    pub fn process(
        &mut self,
        context: &RequestContext<'_>,
        request: &WriteRequest<'_>,
        payload: &mut Vec<u8>,
        effects: &mut Effects,
    ) {
        self.begin(context.header.zxid);
        let mark = effects.begin();
        let txn = match request {
            WriteRequest::Multi(parts) => {
                self.is_in_multi = true;
                let txn = self.process_multi(context, parts, mark, effects);
                self.is_in_multi = false;
                self.usage_before_multi.clear();
                txn
            }
            _ => match self.prepare(context, request) {
                Ok(txn) => {
                    self.apply_part(&context.header, &txn, effects);
                    txn
                }
                Err(error) => refused(error, effects),
            },
        };
        self.encode(&context.header, &txn, payload);
    }

    /// A request that could not even be read, or that must not be looked at: an error txn.
    pub fn refuse(&mut self, header: &TxnHeader, error: ErrorCode, payload: &mut Vec<u8>, effects: &mut Effects) {
        self.begin(header.zxid);
        effects.begin();
        let txn = refused(error, effects);
        self.encode(header, &txn, payload);
    }

    /// A txn of our own making: sessions, and the removal of containers and TTL nodes.
    pub fn process_internal(
        &mut self,
        header: &TxnHeader,
        txn: &Txn<'_>,
        payload: &mut Vec<u8>,
        effects: &mut Effects,
    ) {
        effects.begin();
        self.apply(header, txn, effects);
        self.encode(header, txn, payload);
    }

    fn encode(&self, header: &TxnHeader, txn: &Txn<'_>, payload: &mut Vec<u8>) {
        let digest = self.settings.digest_enabled.then(|| TxnDigest::new(self.digest));
        txn::encode(header, txn, digest, payload);
    }

    /// All or nothing. The parts before the one that fails are applied and rolled back with the version.
    fn process_multi<'a>(
        &mut self,
        context: &RequestContext<'a>,
        parts: &'a [WriteRequest<'a>],
        mark: Mark,
        effects: &mut Effects,
    ) -> Txn<'a> {
        let mut txns = Vec::with_capacity(parts.len());
        for (at, part) in parts.iter().enumerate() {
            match self.prepare(context, part) {
                Ok(txn) => {
                    self.apply_part(&context.header, &txn, effects);
                    txns.push(txn);
                }
                Err(error) => {
                    if !mutant::is_active(Mutant::MultiHalfApplied) {
                        self.undo();
                        self.begin(context.header.zxid);
                    }
                    effects.take_back(mark);
                    // What Java meets with an exception of no ZooKeeper code has no result of its own.
                    if error == ErrorCode::MarshallingError {
                        return refused(error, effects);
                    }
                    txns.resize(parts.len(), Txn::Error { code: error.code() });
                    effects.outcomes.extend((0..parts.len()).map(|part| {
                        Outcome::Error(match part.cmp(&at) {
                            std::cmp::Ordering::Less => ErrorCode::Ok,
                            std::cmp::Ordering::Equal => error,
                            std::cmp::Ordering::Greater => ErrorCode::RuntimeInconsistency,
                        })
                    }));
                    return Txn::failed_multi(txns, at, error);
                }
            }
        }
        Txn::Multi(txns)
    }

    /// Checks one operation at the head.
    fn prepare<'a>(&self, context: &RequestContext<'a>, request: &'a WriteRequest<'a>) -> Result<Txn<'a>, ErrorCode> {
        match request {
            WriteRequest::Create(create) => self.prepare_create(context, create),
            WriteRequest::Delete { path, version } => {
                session(context)?;
                self.prepare_delete(context, path, *version)
            }
            WriteRequest::SetData { path, data, version } => {
                session(context)?;
                let path = fully_valid(path.as_deref())?;
                let node = self.store.get(path).ok_or(ErrorCode::NoNode)?;
                self.allow(&node, perms::WRITE, context)?;
                self.check_quota_of_set(path, &node, *data)?;
                let version = next_version(node.stat().version, *version)?;
                Ok(Txn::SetData(SetDataTxn { path: path.into(), data: data.map(Cow::Borrowed), version }))
            }
            WriteRequest::SetAcl { path, acl, version } => {
                session(context)?;
                let path = fully_valid(path.as_deref())?;
                let acl = self.fix_up(acl, context)?;
                let node = self.store.get(path).ok_or(ErrorCode::NoNode)?;
                self.allow(&node, perms::ADMIN, context)?;
                let version = next_version(node.stat().aversion, *version)?;
                Ok(Txn::SetAcl { path: path.into(), acl, version })
            }
            WriteRequest::Check { path, version } => {
                session(context)?;
                let path = fully_valid(path.as_deref())?;
                let node = self.store.get(path).ok_or(ErrorCode::NoNode)?;
                self.allow(&node, perms::READ, context)?;
                let version = next_version(node.stat().version, *version)?;
                Ok(Txn::Check { path: path.into(), version })
            }
            WriteRequest::CloseSession => Ok(self.close_session_txn(context.header.session.0, context.arena)),
            WriteRequest::Reconfig => {
                if !self.settings.reconfig_enabled {
                    return Err(ErrorCode::ReconfigDisabled);
                }
                session(context)?;
                Err(ErrorCode::Unimplemented)
            }
            WriteRequest::Multi(_) => Err(ErrorCode::MarshallingError),
        }
    }

    fn prepare_create<'a>(&self, context: &RequestContext<'a>, create: &'a Create<'a>) -> Result<Txn<'a>, ErrorCode> {
        let mode = CreateMode::from_flags(create.flags).ok_or(ErrorCode::BadArguments)?;
        self.check_ttl(create, mode)?;
        session(context)?;
        let asked = create.path.as_deref().ok_or(ErrorCode::MarshallingError)?;
        if !path::is_weakly_valid(asked) {
            return Err(ErrorCode::BadArguments);
        }
        let acl = self.fix_up(&create.acl, context)?;
        let parent_path = parent_text(asked);
        let parent = self.store.get(parent_path).ok_or(ErrorCode::NoNode)?;
        self.allow(&parent, perms::CREATE, context)?;
        let counter = parent.stat().cversion;
        let path: Cow<'a, str> = match mode.sequential {
            true => Cow::Borrowed(numbered(asked, counter, context.arena)),
            false => Cow::Borrowed(asked),
        };
        path::validate(&path).map_err(|_| ErrorCode::BadArguments)?;
        if self.store.get(&path).is_some() {
            return Err(ErrorCode::NodeExists);
        }
        if matches!(self.owner_kind(&parent), OwnerKind::Session(_)) {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        self.check_quota_of_create(&path, create.data)?;
        let parent_cversion = counter.wrapping_add(1);
        let data = create.data.map(Cow::Borrowed);
        Ok(match create.op {
            OpCode::CreateContainer => Txn::CreateContainer { path, data, acl, parent_cversion },
            OpCode::CreateTtl => Txn::CreateTtl { path, data, acl, parent_cversion, ttl_ms: create.ttl },
            op => {
                let txn = CreateTxn { path, data, acl, ephemeral: mode.ephemeral, parent_cversion };
                if op == OpCode::Create2 { Txn::Create2(txn) } else { Txn::Create(txn) }
            }
        })
    }

    /// TTL flags need the option and a ttl in range; a createTTL without them is refused, because Java would fail
    /// while applying it.
    fn check_ttl(&self, create: &Create<'_>, mode: CreateMode) -> Result<(), ErrorCode> {
        if mode.ttl && !self.settings.extended_types {
            return Err(ErrorCode::Unimplemented);
        }
        let is_right = match create.op {
            OpCode::CreateTtl => mode.ttl && (1..=TTL_MAX_MS).contains(&create.ttl),
            _ => !mode.ttl,
        };
        if is_right { Ok(()) } else { Err(ErrorCode::BadArguments) }
    }

    fn prepare_delete<'a>(
        &self,
        context: &RequestContext<'_>,
        path: &'a str,
        version: i32,
    ) -> Result<Txn<'a>, ErrorCode> {
        if !path::is_weakly_valid(path) || path::is_system(path) {
            return Err(ErrorCode::BadArguments);
        }
        let parent = self.store.get(parent_text(path)).ok_or(ErrorCode::NoNode)?;
        self.allow(&parent, perms::DELETE, context)?;
        let node = self.store.get(path).ok_or(ErrorCode::NoNode)?;
        next_version(node.stat().version, version)?;
        if node.num_children() > 0 {
            return Err(ErrorCode::NotEmpty);
        }
        Ok(Txn::Delete { path: Cow::Borrowed(path) })
    }

    /// The closing of a session, with the znodes that go with it. A list that Java could not read back from its log is
    /// left out: every version then deletes what the session owns.
    pub fn close_session_txn<'a>(&self, session: i64, arena: &'a Bump) -> Txn<'a> {
        if !self.settings.close_session_txn {
            return Txn::CloseSession { paths: None };
        }
        let copied = |path: &str| Cow::Borrowed(&*arena.alloc_str(path));
        let paths: Vec<Cow<'a, str>> = self.store.owned(session, 0).map(copied).collect();
        let bytes: usize = paths.iter().map(|path| path.len() + 4).sum();
        let fits = bytes + txn::HEADER_BYTES + txn::DIGEST_BYTES + 4 <= limits::FRAME_BYTES_MAX;
        Txn::CloseSession { paths: fits.then_some(paths) }
    }

    fn fix_up(&self, acl: &AclEntries<'_>, context: &RequestContext<'_>) -> Result<AclList, ErrorCode> {
        access::fix_up(acl, context.auth, &self.settings.access)
    }

    fn allow(&self, node: &Node<'_>, perm: i32, context: &RequestContext<'_>) -> Result<(), ErrorCode> {
        allow(node.acl(), perm, context.auth, &self.settings.access)
    }

    fn owner_kind(&self, node: &Node<'_>) -> OwnerKind {
        OwnerKind::of(node.stat().ephemeral_owner, self.settings.extended_types)
    }

    fn check_quota_of_create(&self, path: &str, data: Option<&[u8]>) -> Result<(), ErrorCode> {
        match self.enforced_quota(path) {
            None => Ok(()),
            Some((limits, usage)) => quota::check_create(&limits, &usage, data.map_or(0, |d| d.len() as i64)),
        }
    }

    fn check_quota_of_set(&self, path: &str, node: &Node<'_>, data: Option<&[u8]>) -> Result<(), ErrorCode> {
        let length = |data: Option<&[u8]>| data.map_or(0, |d| d.len() as i64);
        match self.enforced_quota(path) {
            None => Ok(()),
            Some((limits, usage)) => quota::check_set_data(&limits, &usage, length(data) - length(node.data())),
        }
    }
}

fn allow(acl: &AclList, perm: i32, auth: &[Id], settings: &AccessSettings) -> Result<(), ErrorCode> {
    if access::check(acl, perm, auth, settings) { Ok(()) } else { Err(ErrorCode::NoAuth) }
}

fn refused(error: ErrorCode, effects: &mut Effects) -> Txn<'static> {
    effects.outcomes.push(Outcome::Error(error));
    effects.is_refused = true;
    Txn::Error { code: error.code() }
}

fn session(context: &RequestContext<'_>) -> Result<(), ErrorCode> {
    context.session_error.map_or(Ok(()), Err)
}

fn fully_valid(path: Option<&str>) -> Result<&str, ErrorCode> {
    let path = path.ok_or(ErrorCode::BadArguments)?;
    path::validate(path).map_err(|_| ErrorCode::BadArguments)?;
    Ok(path)
}

/// The text before the last slash; nothing before it is the root. Not a path rule: `/a//b` has the parent `/a/`.
fn parent_text(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => path::ROOT,
        Some(slash) => &path[..slash],
    }
}

/// A sequential znode's path.
fn numbered<'a>(asked: &str, counter: i32, arena: &'a Bump) -> &'a str {
    // The digits of an `i32` with its sign.
    const NUMBER_BYTES_MAX: usize = 11;
    let mut path = ArenaString::with_capacity_in(asked.len() + NUMBER_BYTES_MAX, arena);
    write!(path, "{asked}{counter:010}").expect("a string takes all");
    path.into_bump_str()
}

/// The version after a change, if the expected one fits: -1 always does.
fn next_version(current: i32, expected: i32) -> Result<i32, ErrorCode> {
    if expected != -1 && expected != current { Err(ErrorCode::BadVersion) } else { Ok(current.wrapping_add(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_wrap_and_minus_one_always_fits() {
        assert_eq!(next_version(3, 3), Ok(4));
        assert_eq!(next_version(3, -1), Ok(4));
        assert_eq!(next_version(3, 2), Err(ErrorCode::BadVersion));
        assert_eq!(next_version(i32::MAX, -1), Ok(i32::MIN));
    }

    #[test]
    fn a_sequential_name_has_ten_digits_at_least_and_may_be_negative() {
        let arena = Bump::new();
        assert_eq!(numbered("/a-", 7, &arena), "/a-0000000007");
        assert_eq!(numbered("/a-", i32::MAX, &arena), "/a-2147483647");
        assert_eq!(numbered("/a-", i32::MIN, &arena), "/a--2147483648");
    }

    #[test]
    fn the_parent_is_the_text_before_the_last_slash() {
        assert_eq!(parent_text("/"), "/");
        assert_eq!(parent_text("/a"), "/");
        assert_eq!(parent_text("/a/"), "/a");
        assert_eq!(parent_text("/a//b"), "/a/");
        assert_eq!(parent_text("a/b"), "a");
    }
}
