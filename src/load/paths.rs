//! Where: the znodes below the prefix, in a layout that clean-up recognises.
//!
//! ```text
//! PREFIX/d000012/k00001234     key 1234, a hundred keys to a directory
//! PREFIX/s000003/c000000017    the 17th znode that session 3 created in the mix
//! PREFIX/watched               the znode of the watch workload
//! PREFIX/w000002               the znode of writer 2 in the failover workload
//! ```

/// Keys to a directory, so that `children` has an answer of ordinary size.
pub const KEYS_PER_DIRECTORY: u32 = 100;
/// What 8 digits can name.
pub const KEYS_MAX: u32 = 100_000_000;
/// What 6 digits can name.
pub const SESSIONS_MAX: u32 = 1_000_000;
/// What 9 digits can name.
pub const CREATES_PER_SESSION_MAX: u32 = 1_000_000_000;

/// The two numbers in a path below the prefix, with their digits marked by `#`.
pub const KEY_PATTERN: &str = "d######/k########";
pub const OWN_PATTERN: &str = "s######/c#########";
/// The directory's part of either pattern.
pub const DIRECTORY_PATTERN_BYTES: usize = 7;

const WATCHED: &str = "watched";

/// The prefix and what stands below it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paths {
    /// Valid, neither `/` nor below `/zookeeper`.
    pub prefix: String,
}

impl Paths {
    #[cfg(test)]
    pub fn key(&self, key: u32) -> String {
        format!("{}/k{key:08}", self.key_directory(key / KEYS_PER_DIRECTORY))
    }

    pub fn key_directory(&self, directory: u32) -> String {
        format!("{}/d{directory:06}", self.prefix)
    }

    pub fn own_directory(&self, session: u32) -> String {
        format!("{}/s{session:06}", self.prefix)
    }

    pub fn watched(&self) -> String {
        format!("{}/{WATCHED}", self.prefix)
    }

    /// Those of so many writers.
    pub fn writers(&self, count: u32) -> impl Iterator<Item = String> {
        (0..count).map(|writer| format!("{}/w{writer:06}", self.prefix))
    }

    pub fn key_pattern(&self) -> String {
        format!("{}/{KEY_PATTERN}", self.prefix)
    }

    pub fn own_pattern(&self) -> String {
        format!("{}/{OWN_PATTERN}", self.prefix)
    }
}

/// Whether a child of the prefix is a directory of ours.
pub fn is_directory(name: &str) -> bool {
    is_numbered(name, 'd', 6) || is_own_directory(name)
}

/// Whether it is one for the creates of a session.
pub fn is_own_directory(name: &str) -> bool {
    is_numbered(name, 's', 6)
}

/// Whether a child of the prefix is a single znode of ours.
pub fn is_single(name: &str) -> bool {
    name == WATCHED || is_numbered(name, 'w', 6)
}

/// Whether a child of such a directory is ours.
pub fn is_leaf(name: &str) -> bool {
    is_numbered(name, 'k', 8) || is_numbered(name, 'c', 9)
}

fn is_numbered(name: &str, letter: char, digits: usize) -> bool {
    name.strip_prefix(letter).is_some_and(|rest| rest.len() == digits && rest.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_up_recognises_what_was_made_and_nothing_else() {
        let paths = Paths { prefix: "/bench".into() };
        assert_eq!(paths.key(1234), "/bench/d000012/k00001234");
        assert_eq!(paths.key(KEYS_MAX - 1).len(), paths.key_pattern().len());
        assert_eq!(paths.own_directory(SESSIONS_MAX - 1), "/bench/s999999");
        assert!(is_directory("d000012") && is_directory("s000003") && is_leaf("k00001234") && is_leaf("c000000017"));
        for foreign in ["", "d", "d00001", "d0000012", "k00001234", "data", "dxxxxxx", "d00001é"] {
            assert!(!is_directory(foreign), "{foreign}");
        }
        assert!(!is_leaf("d000012"));
        assert!(paths.writers(3).all(|path| is_single(path.trim_start_matches("/bench/"))) && !is_single("w1"));
    }
}
