//! What is known about a znode besides its data.

use super::time::WallTime;
use super::zxid::Zxid;

/// Jute `Stat`, 68 bytes on the wire, as a client sees it: `cversion` is the visible one
/// (`2 × counter − numChildren`) and `ephemeral_owner` is 0 for containers and TTL nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stat {
    pub czxid: Zxid,
    pub mzxid: Zxid,
    pub ctime: WallTime,
    pub mtime: WallTime,
    pub version: i32,
    pub cversion: i32,
    pub aversion: i32,
    pub ephemeral_owner: i64,
    pub data_length: i32,
    pub num_children: i32,
    pub pzxid: Zxid,
}

/// Jute `StatPersisted`, 60 bytes on disk: `cversion` is the internal count of creates below the znode, and
/// `ephemeral_owner` the stored value, which also tells containers and TTL nodes (`EphemeralType`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StatPersisted {
    pub czxid: Zxid,
    pub mzxid: Zxid,
    pub ctime: WallTime,
    pub mtime: WallTime,
    pub version: i32,
    pub cversion: i32,
    pub aversion: i32,
    pub ephemeral_owner: i64,
    pub pzxid: Zxid,
}

impl StatPersisted {
    /// The client's view. `extended` is `extendedTypesEnabled`: without it a TTL owner is an ordinary session id.
    pub fn to_stat(&self, data_length: i32, num_children: i32, extended: bool) -> Stat {
        let ephemeral_owner = match OwnerKind::of(self.ephemeral_owner, extended) {
            OwnerKind::Session(owner) => owner,
            OwnerKind::None | OwnerKind::Container | OwnerKind::Ttl(_) => 0,
        };
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            cversion: self.cversion.wrapping_mul(2).wrapping_sub(num_children),
            aversion: self.aversion,
            ephemeral_owner,
            data_length,
            num_children,
            pzxid: self.pzxid,
        }
    }
}

/// `ephemeralOwner` of a container.
pub const CONTAINER_OWNER: i64 = i64::MIN;
/// Longest TTL that fits the owner field, in ms (40 bits).
pub const TTL_MAX_MS: i64 = (1 << 40) - 1;

/// What the stored `ephemeralOwner` says about a znode (`EphemeralType.get`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnerKind {
    /// Persistent.
    None,
    /// Ephemeral, of this session.
    Session(i64),
    Container,
    /// Removed when childless and unmodified for so many ms.
    Ttl(i64),
}

impl OwnerKind {
    pub fn of(owner: i64, extended: bool) -> OwnerKind {
        match owner {
            0 => OwnerKind::None,
            CONTAINER_OWNER => OwnerKind::Container,
            _ if extended && (owner as u64) >> 40 == 0xff_0000 => OwnerKind::Ttl(owner & TTL_MAX_MS),
            _ => OwnerKind::Session(owner),
        }
    }

    /// The stored form of a TTL.
    pub fn ttl_owner(ttl_ms: i64) -> i64 {
        debug_assert!((1..=TTL_MAX_MS).contains(&ttl_ms));
        (0xff00_0000_0000_0000_u64 as i64) | ttl_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_field_tells_the_kind() {
        assert_eq!(OwnerKind::of(0, true), OwnerKind::None);
        assert_eq!(OwnerKind::of(i64::MIN, false), OwnerKind::Container);
        let ttl = OwnerKind::ttl_owner(TTL_MAX_MS);
        assert_eq!(OwnerKind::of(ttl, true), OwnerKind::Ttl(TTL_MAX_MS));
        assert_eq!(OwnerKind::of(ttl, false), OwnerKind::Session(ttl));
        assert_eq!(OwnerKind::of(0x0100_0000_0000_0001, true), OwnerKind::Session(0x0100_0000_0000_0001));
    }

    #[test]
    fn the_visible_cversion_counts_creates_and_deletes() {
        let stat = StatPersisted { cversion: 5, ..Default::default() };
        assert_eq!(stat.to_stat(0, 3, false).cversion, 7);
        assert_eq!(StatPersisted::default().to_stat(0, 1, false).cversion, -1);
    }
}
