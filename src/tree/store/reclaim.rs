//! Undoing what was not published, and taking back what nobody can see any more.

use std::sync::atomic::Ordering;

use super::arena::Ref;
use super::heap::Garbage;
use super::pins::InUse;
use super::queue::Queue;
use super::record::{self, Owner, Znode};
use super::writer::{Change, What, Writer};

/// How far ahead of reclaiming records are asked for.
const AHEAD: usize = 8;

/// What reclaiming remembers from call to call.
pub(super) struct Reclaim {
    /// Changes whose garbage a held version still needs, oldest first.
    kept: Queue<Change>,
    /// Every change in `kept` is needed by one of these, or is about to be looked at again.
    kept_for: Vec<u64>,
    /// Changes in `kept` to be looked at again, because a held version was let go. None but these are processed
    /// meanwhile: a znode leaves after all that belongs to it.
    again: usize,
    /// Versions below it are in use by nobody, but for those in `held`.
    floor: u64,
    held: Vec<u64>,
}

impl Reclaim {
    pub(super) fn new() -> Reclaim {
        Reclaim { kept: Queue::new(), kept_for: Vec::new(), again: 0, floor: 0, held: Vec::new() }
    }
}

impl Writer {
    /// Takes back what no reader can see, up to `budget` records: after each publication, and when idle as long as it
    /// returns more than 0, an upper bound of the records that another call could take now. What readers keep does not
    /// count.
    pub fn reclaim(&mut self, budget: usize) -> usize {
        let mut held = std::mem::take(&mut self.reclaim.held);
        let InUse { floor, seen } = self.shared.pins.in_use(&mut held);
        (self.reclaim.floor, self.reclaim.held) = (floor, held);

        let mut left = budget - self.heap.free_unseen(seen, budget);
        let before = self.heap.waiting();
        left = self.look_again(left);
        if !self.is_looking_again() {
            self.take_published(left);
        }
        if self.heap.waiting() > before || before > 0 {
            let epoch = self.heap.next_epoch();
            self.shared.pins.begin_epoch(epoch);
        }
        self.heap.ready(seen) + self.pending()
    }

    /// Some kept change may not be needed any more. Until all have been looked at, no later change is processed.
    fn is_looking_again(&self) -> bool {
        let reclaim = &self.reclaim;
        reclaim.again > 0 || reclaim.kept_for.iter().any(|version| !reclaim.held.contains(version))
    }

    /// Changes that are next: an upper bound that costs nothing to know.
    fn pending(&self) -> usize {
        if self.is_looking_again() {
            return self.reclaim.kept.len();
        }
        let is_next = self.changes.front().is_some_and(|change| change.version <= self.reclaim.floor);
        if is_next { self.changes.len() } else { 0 }
    }

    /// Goes through the kept changes when one of the versions that they were kept for is gone.
    fn look_again(&mut self, mut budget: usize) -> usize {
        if !self.is_looking_again() {
            return budget;
        }
        let reclaim = &mut self.reclaim;
        if reclaim.again == 0 {
            // A version that was held after a change became garbage never needs it, so the new set is enough.
            reclaim.kept_for.clone_from(&reclaim.held);
            reclaim.again = reclaim.kept.len();
        }
        while budget > 0 && self.reclaim.again > 0 {
            let Some(change) = self.reclaim.kept.pop_front() else { break };
            self.reclaim.again -= 1;
            budget -= 1;
            if self.is_needed(change, &self.reclaim.kept_for) {
                self.reclaim.kept.push_back(change);
            } else {
                self.take(change);
            }
        }
        budget
    }

    fn take_published(&mut self, mut budget: usize) {
        if self.reclaim.kept.len() == 0 {
            self.reclaim.kept_for.clear();
        }
        while budget > 0 && self.changes.front().is_some_and(|change| change.version <= self.reclaim.floor) {
            if let Some(ahead) = self.changes.ahead(AHEAD) {
                self.prefetch(*ahead);
            }
            let Some(change) = self.changes.pop_front() else { return };
            budget -= 1;
            if self.is_needed(change, &self.reclaim.held) {
                self.keep(change);
            } else {
                self.take(change);
            }
        }
    }

    fn keep(&mut self, change: Change) {
        let reclaim = &mut self.reclaim;
        for version in &reclaim.held {
            if !reclaim.kept_for.contains(version) {
                reclaim.kept_for.push(*version);
            }
        }
        reclaim.kept.push_back(change);
    }

    fn prefetch(&self, change: Change) {
        let space = self.space();
        match change.what {
            What::Created(_) | What::Directory(_, None) | What::Session(_, None) => {}
            What::Deleted(at) => space.prefetch_two(at),
            What::Data(_, old) => space.prefetch(old),
            What::Directory(_, Some(old)) => space.prefetch(old),
            What::Session(_, Some(old)) => space.prefetch(old),
        }
    }

    /// Some held version sees what this change replaced.
    fn is_needed(&self, change: Change, held: &[u64]) -> bool {
        if held.is_empty() {
            return false;
        }
        let view = self.view();
        let born = match change.what {
            What::Created(_) | What::Directory(_, None) | What::Session(_, None) => return false,
            What::Deleted(at) => view.znode(at).born,
            What::Data(_, old) => view.version_at(old).link.version,
            What::Directory(_, Some(old)) => view.directory_at(old).link.version,
            What::Session(_, Some(old)) => view.session_at(old).link.version,
        };
        held.iter().any(|held| (born..change.version).contains(held))
    }

    /// Unlinks what a change replaced.
    fn take(&mut self, change: Change) {
        let space = self.space();
        match change.what {
            What::Created(_) | What::Directory(_, None) => {}
            What::Deleted(at) => self.unlink_znode(at),
            What::Data(_, old) => {
                // SAFETY: replaced by this change, and its znode is still there: deletions are later changes.
                unsafe { record::unlink(space, old) };
                self.heap.retire(Garbage::Version(old));
            }
            What::Directory(_, Some(old)) => {
                // SAFETY: as above.
                unsafe { record::unlink(space, old) };
                self.heap.retire(Garbage::Block(old.block()));
            }
            What::Session(owner, old) => {
                if let Some(old) = old {
                    // SAFETY: as above; an owner goes after its last session record.
                    unsafe { record::unlink(space, old) };
                    self.heap.retire(Garbage::Block(old.block()));
                }
                self.end_session_change(owner);
            }
        }
    }

    fn end_session_change(&mut self, at: Ref<Owner>) {
        self.view().owner_at(at).changes.fetch_sub(1, Ordering::Relaxed);
        self.drop_owner_if_unused(at);
    }

    /// Takes a znode out of everything that leads to it.
    fn unlink_znode(&mut self, at: Ref<Znode>) {
        let space = self.space();
        // SAFETY: the znode is linked, so alive, and so is what it refers to; its parent leaves after it.
        unsafe {
            let znode = space.get(at);
            if let Some(children) = znode.parent.and_then(|parent| space.get(parent).children.load()) {
                space.get(children).remove(&mut self.heap, znode.slot.load(Ordering::Relaxed));
            }
            let older = znode.previous.load();
            let newer = znode.death.load().and_then(|death| space.get(death).newer.load());
            match (newer, older) {
                (Some(newer), older) => space.get(newer).previous.store(older),
                (None, Some(older)) => self.shared.znodes.replace(space, self.tag_of(at), at, older),
                (None, None) => self.shared.znodes.remove(space, self.tag_of(at), at),
            }
            if let Some(death) = older.and_then(|older| space.get(older).death.load()) {
                space.get(death).newer.store(newer);
            }
            if let Some(owned) = znode.owned.map(|owned| space.get(owned))
                && let Some(owner) = owned.owner
            {
                if let Some(table) = space.get(owner).owned.load() {
                    space.get(table).remove(&mut self.heap, owned.slot.load(Ordering::Relaxed));
                }
                self.drop_owner_if_unused(owner);
            }
        }
        self.heap.retire(Garbage::Znode(at));
    }

    fn tag_of(&self, at: Ref<Znode>) -> super::index::Tag {
        self.shared.tag_of_path(self.view().path(at))
    }

    /// An owner goes when it owns nothing, not even for a reader of the past, has no session, and no change refers to it:
    /// then nobody sees that it ever had one, and none can come back in a rollback.
    fn drop_owner_if_unused(&mut self, at: Ref<Owner>) {
        let space = self.space();
        // SAFETY: the owner is linked, so alive, and so is what it refers to.
        unsafe {
            let owner = space.get(at);
            let owns = owner.owned.load().is_some_and(|table| !space.get(table).is_vacant());
            let is_session = owner.session.load().is_some_and(|session| space.get(session).timeout_ms().is_some());
            if owns || is_session || owner.changes.load(Ordering::Relaxed) > 0 {
                return;
            }
            space.get(self.shared.owner_table).remove(&mut self.heap, owner.slot.load(Ordering::Relaxed));
            self.shared.owners.remove(space, self.shared.tag_of_key(owner.key), at);
        }
        self.heap.retire(Garbage::Owner(at));
    }

    /// Takes one change of an unpublished version back. Changes are undone newest first.
    pub(super) fn undo(&mut self, what: What) {
        let space = self.space();
        match what {
            What::Created(at) => {
                let data_len = self.view().head_of(at).data_len().unwrap_or(0);
                self.count(at, self.view().path(at).len(), data_len, false);
                self.unlink_znode(at);
            }
            What::Deleted(at) => {
                let data_len = self.view().head_of(at).data_len().unwrap_or(0);
                self.count(at, self.view().path(at).len(), data_len, true);
                let death = &self.view().znode(at).death;
                if let Some(record) = death.load() {
                    death.store(None);
                    self.heap.retire(Garbage::Block(record.block()));
                }
            }
            What::Data(at, _) => {
                let data_len = |writer: &Writer| writer.view().head_of(at).data_len().unwrap_or(0) as u64;
                self.counts.bytes -= data_len(self);
                // SAFETY: the znode is linked, so alive.
                if let Some(new) = unsafe { record::pop(space, &space.get(at).head) } {
                    self.heap.retire(Garbage::Version(new));
                }
                self.counts.bytes += data_len(self);
            }
            What::Directory(at, _) => {
                // SAFETY: as above.
                if let Some(new) = unsafe { record::pop(space, &space.get(at).directory) } {
                    self.heap.retire(Garbage::Block(new.block()));
                }
            }
            What::Session(at, _) => self.undo_session(at),
        }
    }

    fn undo_session(&mut self, at: Ref<Owner>) {
        let space = self.space();
        let had = |writer: &Writer| u64::from(writer.view().session_of(writer.view().owner_at(at)).is_some());
        self.counts.sessions -= had(self);
        // SAFETY: the owner is linked, so alive.
        if let Some(new) = unsafe { record::pop(space, &space.get(at).session) } {
            self.heap.retire(Garbage::Block(new.block()));
        }
        self.counts.sessions += had(self);
        self.end_session_change(at);
    }
}
