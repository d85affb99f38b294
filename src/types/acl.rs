//! Who may do what: ids, permissions, lists.

use std::sync::Arc;

/// Jute `Id`: `[scheme:ustring][id:ustring]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Id {
    pub scheme: String,
    pub id: String,
}

impl Id {
    pub fn new(scheme: &str, id: &str) -> Id {
        Id { scheme: scheme.to_owned(), id: id.to_owned() }
    }
}

/// Permission bits. Other bits are stored and returned unchanged.
pub mod perms {
    pub const READ: i32 = 1;
    pub const WRITE: i32 = 2;
    pub const CREATE: i32 = 4;
    pub const DELETE: i32 = 8;
    pub const ADMIN: i32 = 16;
    pub const ALL: i32 = 31;
}

/// Jute `ACL`: `[perms:i32][Id]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Acl {
    pub perms: i32,
    pub id: Id,
}

impl Acl {
    pub fn new(perms: i32, scheme: &str, id: &str) -> Acl {
        Acl { perms, id: Id::new(scheme, id) }
    }

    /// `OPEN_ACL_UNSAFE`: world:anyone may do everything.
    pub fn is_open_to_world(&self) -> bool {
        self.perms == perms::ALL && self.id.scheme == "world" && self.id.id == "anyone"
    }
}

/// The ACL of a znode. `Open` is `world:anyone` with all permissions, by far the most common list, and needs
/// no heap block; equal lists are shared (`tree::acl_table`). A null list inside Java also answers as `Open`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum AclList {
    #[default]
    Open,
    List(Arc<[Acl]>),
}

impl AclList {
    pub fn from_vec(list: Vec<Acl>) -> AclList {
        match list.as_slice() {
            [only] if only.is_open_to_world() => AclList::Open,
            _ => AclList::List(list.into()),
        }
    }

    /// The entries as they are stored and sent.
    pub fn to_vec(&self) -> Vec<Acl> {
        match self {
            AclList::Open => vec![Acl::new(perms::ALL, "world", "anyone")],
            AclList::List(list) => list.to_vec(),
        }
    }
}
