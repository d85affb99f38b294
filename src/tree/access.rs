//! Who may do what: ACL checks, and what becomes of an ACL that a client sets (`ZooKeeperServer.checkACL`,
//! `PrepRequestProcessor.fixupACL`).
//!
//! Shards check reads and watches with it, the writer checks writes: one answer for both.

use std::collections::BTreeSet;

use crate::types::acl::{Acl, AclList, Id, perms};
use crate::types::error_code::ErrorCode;
use crate::types::limits;
use crate::wire::client::{AclEntries, AclEntry};

mod network;
#[cfg(test)]
mod tests;

use network::Network;

/// What of the configuration decides about access.
#[derive(Clone, Debug)]
pub struct AccessSettings {
    /// `skipACL=yes`: every check passes. Lists that are set must be valid all the same.
    pub skip_acl: bool,
    /// `DigestAuthenticationProvider.enabled`.
    pub digest_enabled: bool,
    /// `authProvider.…=…EnsembleAuthenticationProvider`.
    pub ensemble_enabled: bool,
}

impl Default for AccessSettings {
    fn default() -> AccessSettings {
        AccessSettings { skip_acl: false, digest_enabled: true, ensemble_enabled: false }
    }
}

/// A scheme that this server can judge. `sasl` and `x509` are not among them yet: such entries are kept where they are
/// and match nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Provider {
    Ip,
    Digest,
    Ensemble,
}

impl AccessSettings {
    /// The provider of a scheme; `world`, `auth` and `super` have none.
    pub fn provider(&self, scheme: &str) -> Option<Provider> {
        match scheme {
            "ip" => Some(Provider::Ip),
            "digest" if self.digest_enabled => Some(Provider::Digest),
            "ensemble" if self.ensemble_enabled => Some(Provider::Ensemble),
            _ => None,
        }
    }
}

impl Provider {
    /// Whether an id of this scheme says who somebody is, so that `auth` stands for it (`isAuthenticated`).
    fn identifies_creators(self) -> bool {
        match self {
            Provider::Digest => true,
            Provider::Ip | Provider::Ensemble => false,
        }
    }

    /// `isValid`. Errors: Java runs into a null id of schemes that look at it.
    fn accepts(self, id: Option<&str>) -> Result<bool, ErrorCode> {
        match (self, id) {
            (Provider::Ensemble, _) => Ok(false),
            (Provider::Ip | Provider::Digest, None) => Err(ErrorCode::MarshallingError),
            (Provider::Ip, Some(id)) => Ok(Network::parse(id).is_some()),
            // Two parts at the colon, where empty parts at the end do not count and the first may be empty.
            (Provider::Digest, Some(id)) => Ok(id.trim_end_matches(':').split(':').count() == 2),
        }
    }

    fn matches(self, id: &str, acl_id: &str) -> bool {
        match self {
            Provider::Ip => Network::parse(acl_id).is_some_and(|network| network.contains(id)),
            Provider::Digest => id == acl_id,
            Provider::Ensemble => false,
        }
    }
}

/// Whether someone with these ids has one of the permissions in `perm`. An empty list allows everything.
#[inline]
pub fn check(acl: &AclList, perm: i32, ids: &[Id], settings: &AccessSettings) -> bool {
    match acl {
        AclList::Open => perm & perms::ALL != 0 || settings.skip_acl || is_super(ids),
        AclList::List(list) => check_list(list, perm, ids, settings),
    }
}

fn check_list(list: &[Acl], perm: i32, ids: &[Id], settings: &AccessSettings) -> bool {
    settings.skip_acl || list.is_empty() || is_super(ids) || list.iter().any(|acl| grants(acl, perm, ids, settings))
}

fn is_super(ids: &[Id]) -> bool {
    ids.iter().any(|id| id.scheme == "super")
}

fn grants(acl: &Acl, perm: i32, ids: &[Id], settings: &AccessSettings) -> bool {
    let Acl { perms, id: Id { scheme, id: acl_id } } = acl;
    if perms & perm == 0 {
        return false;
    }
    if scheme == "world" && acl_id == "anyone" {
        return true;
    }
    let Some(provider) = settings.provider(scheme) else { return false };
    ids.iter().any(|id| id.scheme == *scheme && provider.matches(&id.id, acl_id))
}

/// What `getACL` answers: everything to who may change it, without the hashes to who may only read it.
///
/// Errors: `NoAuth` without READ and ADMIN.
pub fn visible(acl: &AclList, ids: &[Id], settings: &AccessSettings) -> Result<AclList, ErrorCode> {
    if !check(acl, perms::READ | perms::ADMIN, ids, settings) {
        return Err(ErrorCode::NoAuth);
    }
    match acl {
        AclList::List(list) if !check(acl, perms::ADMIN, ids, settings) => {
            Ok(AclList::from_vec(list.iter().map(masked).collect()))
        }
        AclList::Open | AclList::List(_) => Ok(acl.clone()),
    }
}

fn masked(acl: &Acl) -> Acl {
    match acl.id.id.split_once(':') {
        Some((user, _)) if acl.id.scheme == "digest" => Acl::new(acl.perms, "digest", &format!("{user}:x")),
        _ => acl.clone(),
    }
}

/// The list that is stored when somebody with these ids sets `entries`: without exact duplicates, and with `auth`
/// replaced by who they are.
///
/// Errors: `InvalidAcl` for an empty list or an entry that no provider accepts; `MarshallingError` where Java stumbles
/// over a null.
pub fn fix_up(entries: &AclEntries<'_>, ids: &[Id], settings: &AccessSettings) -> Result<AclList, ErrorCode> {
    let mut fixed = Fixed::default();
    match entries.as_deref().unwrap_or_default() {
        [] => return Err(ErrorCode::InvalidAcl),
        [only] if is_open(only) => return Ok(AclList::Open),
        [only] => fixed.push_entry(only, ids, settings)?,
        several => {
            for entry in without_duplicates(several)? {
                fixed.push_entry(entry, ids, settings)?;
            }
        }
    }
    Ok(AclList::from_vec(fixed.list))
}

/// `world:anyone` with all permissions: what nearly every client sends.
fn is_open(entry: &AclEntry<'_>) -> bool {
    entry.perms == perms::ALL && entry.scheme.as_deref() == Some("world") && entry.id.as_deref() == Some("anyone")
}

/// The first of each, in order. Java compares permissions, scheme and id, and stumbles when it gets as far as a null
/// scheme or id of the later entry.
fn without_duplicates<'a, 'b>(entries: &'a [AclEntry<'b>]) -> Result<Vec<&'a AclEntry<'b>>, ErrorCode> {
    // Sorted, because a frame can hold 80,000 entries.
    let mut seen = BTreeSet::new();
    let mut kept = Vec::with_capacity(entries.len());
    for entry in entries {
        let key = (entry.perms, entry.scheme.as_deref(), entry.id.as_deref());
        let mut like_it = seen.range((key.0, key.1, None)..).take_while(|(perms, _, _)| *perms == key.0);
        let stumbles = match key {
            (_, None, _) => like_it.next().is_some(),
            (_, scheme, None) => like_it.next().is_some_and(|(_, other, _)| *other == scheme),
            (_, Some(_), Some(_)) => false,
        };
        if stumbles {
            return Err(ErrorCode::MarshallingError);
        }
        if seen.insert(key) {
            kept.push(entry);
        }
    }
    Ok(kept)
}

#[derive(Default)]
struct Fixed {
    list: Vec<Acl>,
    /// Bytes that the list takes in a txn.
    bytes: usize,
}

impl Fixed {
    fn push_entry(&mut self, entry: &AclEntry<'_>, ids: &[Id], settings: &AccessSettings) -> Result<(), ErrorCode> {
        let id = entry.id.as_deref();
        match entry.scheme.as_deref().ok_or(ErrorCode::InvalidAcl)? {
            "world" if id.ok_or(ErrorCode::MarshallingError)? == "anyone" => self.push(entry.perms, "world", "anyone"),
            "auth" => self.push_creators(entry.perms, ids, settings),
            scheme => {
                let provider = settings.provider(scheme).ok_or(ErrorCode::InvalidAcl)?;
                match id {
                    id if !provider.accepts(id)? => Err(ErrorCode::InvalidAcl),
                    None => Err(ErrorCode::InvalidAcl),
                    Some(id) => self.push(entry.perms, scheme, id),
                }
            }
        }
    }

    fn push_creators(&mut self, perms: i32, ids: &[Id], settings: &AccessSettings) -> Result<(), ErrorCode> {
        let len = self.list.len();
        for id in ids {
            if settings.provider(&id.scheme).is_some_and(Provider::identifies_creators) {
                self.push(perms, &id.scheme, &id.id)?;
            }
        }
        if self.list.len() > len { Ok(()) } else { Err(ErrorCode::InvalidAcl) }
    }

    /// A list that outgrows every frame (many `auth` entries, many ids) could not be read back from the log; Java has
    /// no bound here.
    fn push(&mut self, perms: i32, scheme: &str, id: &str) -> Result<(), ErrorCode> {
        self.bytes += 12 + scheme.len() + id.len();
        if self.bytes > limits::FRAME_BYTES_MAX {
            return Err(ErrorCode::InvalidAcl);
        }
        self.list.push(Acl::new(perms, scheme, id));
        Ok(())
    }
}
