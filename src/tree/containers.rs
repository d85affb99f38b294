//! Which containers and TTL nodes have served their time.

use std::time::Duration;

use super::Tree;
use super::store::TTL_NODES;
use crate::types::stat::{CONTAINER_OWNER, OwnerKind};
use crate::types::time::WallTime;

impl Tree {
    /// Every container and TTL node that may go at `wall`.
    pub fn reapable(&self, wall: WallTime, never_used_max: Option<Duration>) -> Vec<String> {
        let paths = self.store.owned(CONTAINER_OWNER, 0).chain(self.store.owned(TTL_NODES, 0));
        paths.filter(|path| self.is_reapable(path, wall, never_used_max)).map(str::to_owned).collect()
    }

    /// Childless, and: a container that had a child once, one that never had any and was left alone for too long, or a
    /// TTL node that was not written for longer than its ttl.
    pub fn is_reapable(&self, path: &str, wall: WallTime, never_used_max: Option<Duration>) -> bool {
        let Some(node) = self.store.get(path) else { return false };
        if node.num_children() > 0 {
            return false;
        }
        let stat = node.stat();
        let idle_ms = wall.0.saturating_sub(stat.mtime.0);
        match OwnerKind::of(stat.ephemeral_owner, self.settings.extended_types) {
            OwnerKind::Container if stat.cversion > 0 => true,
            OwnerKind::Container => never_used_max.is_some_and(|max| idle_ms > max.as_millis() as i64),
            OwnerKind::Ttl(ttl_ms) => idle_ms > ttl_ms,
            OwnerKind::None | OwnerKind::Session(_) => false,
        }
    }
}
