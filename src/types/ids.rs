//! Ids of servers, sessions and shards, and the session password.

use std::fmt;

/// `myid`. Standalone servers use 1 in session ids (`ZooKeeperServer.getServerId`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServerId(pub i64);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Shape: `[server id:8 bits][millisecond clock:40 bits][counter:16 bits]`, 0 is "no session".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub i64);

/// Length of every session password, in bytes.
pub const PASSWORD_BYTES: usize = 16;

impl SessionId {
    pub const NONE: SessionId = SessionId(0);

    /// Where a server's session counter starts (`SessionTrackerImpl.initializeNextSessionId`).
    /// The one value that would mark a container node as its owner is stepped over.
    pub fn first(server: ServerId, wall_ms: i64) -> SessionId {
        let start = (((wall_ms as u64) << 24 >> 8) & 0x00ff_ffff_ffff_ffff) as i64;
        let id = start & !0xffff | (server.0 & 0xff) << 56;
        SessionId(if id == i64::MIN { id + 1 } else { id })
    }

    pub fn next(self) -> SessionId {
        SessionId(self.0.wrapping_add(1))
    }

    /// The 16 bytes that every server of every ensemble derives from the id: the first four words of
    /// `java.util.Random` seeded with `id ^ 0xB3415C00`, each low byte first. A checksum, not a secret.
    pub fn password(self) -> [u8; PASSWORD_BYTES] {
        const MULTIPLIER: u64 = 0x5_DEEC_E66D;
        const MASK: u64 = (1 << 48) - 1;
        let mut state = ((self.0 as u64 ^ 0xB341_5C00) ^ MULTIPLIER) & MASK;
        let mut password = [0; PASSWORD_BYTES];
        for word in password.chunks_exact_mut(4) {
            state = (state.wrapping_mul(MULTIPLIER) + 0xB) & MASK;
            word.copy_from_slice(&((state >> 16) as u32).to_le_bytes());
        }
        password
    }
}

/// `0x100003adfd40000`: as Java prints session ids.
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

/// Which shard core of this server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

/// A connection of one shard. Never reused while the process lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ConnectionId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn passwords_are_those_of_java_util_random() {
        for (id, expected) in [
            (0x0100000000000000_u64, "f22acd4a97e69d6d20a49bb638eadb38"),
            (0x0100017f3a2b0000, "57b2b9b5984a14dd8d1ec998a1f8b2c4"),
            (0x00000002000000ab, "4eabb119fb9bce90de5c1f29a558daaa"),
            (0xff00000000000001, "054cc74a37327db215e702e20c73f005"),
        ] {
            assert_eq!(hex(&SessionId(id as i64).password()), expected);
        }
    }

    #[test]
    fn the_first_session_id_carries_the_server_id_on_top() {
        let id = SessionId::first(ServerId(1), 0x1a1_fae2_5535);
        assert_eq!(id.0 >> 56, 1);
        assert_eq!(id.0 & 0xffff, 0);
        assert_eq!((id.0 >> 16) & 0xff_ffff_ffff, 0xa1_fae2_5535);
        assert_eq!(SessionId::first(ServerId(0x80), 0).0, i64::MIN + 1);
    }
}
