//! Quotas of the tree: which one a path falls under, and what is used of it.
//!
//! Usage is kept in the data of `zookeeper_stats`, in memory, on each server for itself: without a txn, a version or an
//! event. Only the deepest quota on a path counts.

use super::Tree;
use super::quota::{self, QuotaLimits, QuotaUsage};
use super::store::DataChange;
use crate::types::path;

impl Tree {
    /// The deepest quota root at or above a path.
    fn quota_root<'a>(&self, path: &'a str) -> Option<&'a str> {
        // Without any quota this is one look-up of a znode that is always at hand.
        if self.store.get(path::QUOTA)?.num_children() == 0 {
            return None;
        }
        let mut roots = path::self_and_ancestors(path).take_while(|root| *root != path::ROOT);
        roots.find(|root| self.store.get(&quota::limits_path(root)).is_some())
    }

    /// Limits and usage for a path, if quotas are enforced and one applies.
    pub(super) fn enforced_quota(&self, path: &str) -> Option<(QuotaLimits, QuotaUsage)> {
        if !self.settings.enforce_quota {
            return None;
        }
        let root = self.quota_root(path)?;
        let limits = self.store.get(&quota::limits_path(root))?;
        let limits = QuotaLimits::parse(limits.data().unwrap_or_default()).ok()?;
        // Java judges every part of a multi by what was used before it.
        let before = self.usage_before_multi.iter().find(|(changed, _)| changed == root);
        Some((limits, before.map_or_else(|| self.quota_usage(root), |(_, usage)| *usage)))
    }

    /// Text that cannot be read counts as nothing used.
    fn quota_usage(&self, root: &str) -> QuotaUsage {
        let stats = self.store.get(&quota::stats_path(root));
        let parsed = stats.and_then(|node| QuotaUsage::parse(node.data().unwrap_or_default()).ok());
        parsed.unwrap_or(QuotaUsage { count: 0, bytes: 0 })
    }

    /// So many znodes and bytes more, or less, at a path.
    pub(super) fn count_quota(&mut self, path: &str, count: i64, bytes: i64) {
        if let Some(root) = self.quota_root(path) {
            let usage = self.quota_usage(root).plus(QuotaUsage { count, bytes });
            self.put_quota_usage(root, usage);
        }
    }

    /// Data without a new version: no client can tell when it changed.
    fn put_quota_usage(&mut self, root: &str, usage: QuotaUsage) {
        if self.is_in_multi && !self.usage_before_multi.iter().any(|(changed, _)| changed == root) {
            let usage = self.quota_usage(root);
            self.usage_before_multi.push((root.to_owned(), usage));
        }
        let path = quota::stats_path(root);
        let Some(stat) = self.store.get(&path).map(|node| node.stat()) else { return };
        let change = DataChange { mzxid: stat.mzxid, mtime: stat.mtime, version: stat.version };
        let text = usage.to_string();
        self.exchange(&path, |store| store.set_data(&path, Some(text.as_bytes()), change));
    }

    /// Counts what a quota has used so far. `parent` holds its limits and stats.
    pub(super) fn recount_quota(&mut self, parent: &str) {
        let Some(root) = quota::root_of(parent) else { return };
        let mut usage = QuotaUsage { count: 0, bytes: 0 };
        let mut unvisited = vec![root.to_owned()];
        while let Some(path) = unvisited.pop() {
            let Some(node) = self.store.get(&path) else { continue };
            usage = usage.plus(QuotaUsage { count: 1, bytes: node.data_length() as i64 });
            for name in self.store.list(&path, 0).into_iter().flatten() {
                unvisited.push(format!("{path}/{name}"));
            }
        }
        self.put_quota_usage(root, usage);
    }

    /// Every quota from scratch, after a snapshot was loaded.
    pub(super) fn recount_quotas(&mut self) {
        let mut unvisited = vec![path::QUOTA.to_owned()];
        while let Some(parent) = unvisited.pop() {
            let names: Vec<String> = self.store.list(&parent, 0).into_iter().flatten().map(str::to_owned).collect();
            if names.iter().any(|name| name == path::QUOTA_LIMITS) {
                self.recount_quota(&parent);
            }
            unvisited.extend(names.into_iter().map(|name| format!("{parent}/{name}")));
        }
    }
}
