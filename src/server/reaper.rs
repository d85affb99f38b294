//! Containers without children and TTL nodes whose time is up (`ContainerManager`).

use std::collections::VecDeque;
use std::time::Duration;

use super::snapshots::ContainerSettings;
use crate::tree::Tree;
use crate::types::time::{Time, WallTime};

/// Looks for candidates at an interval and hands them out evenly spaced.
#[derive(Debug)]
pub struct Reaper {
    settings: ContainerSettings,
    check_at: Time,
    candidates: VecDeque<String>,
    next_at: Time,
}

impl Reaper {
    pub fn new(settings: ContainerSettings, now: Time) -> Reaper {
        Reaper { settings, check_at: now + settings.check_interval, candidates: VecDeque::new(), next_at: now }
    }

    pub fn deadline(&self) -> Time {
        if self.candidates.is_empty() { self.check_at } else { self.next_at }
    }

    /// The next znode to delete, if one is due now. It is looked at once more before it is named.
    pub fn next(&mut self, now: Time, wall: WallTime, tree: &Tree) -> Option<String> {
        if self.candidates.is_empty() && now >= self.check_at {
            self.check_at = now + self.settings.check_interval;
            self.candidates.extend(tree.reapable(wall, self.settings.never_used_max));
            self.next_at = now;
        }
        while now >= self.next_at {
            let path = self.candidates.pop_front()?;
            if tree.is_reapable(&path, wall, self.settings.never_used_max) {
                self.next_at = now + Duration::from_secs(60) / self.settings.per_minute_max.max(1);
                return Some(path);
            }
        }
        None
    }
}
