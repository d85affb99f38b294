//! Who watches one path, in the order of registration, in four bytes each.

use std::mem;

use hashbrown::HashTable;

/// What one connection watches at one path: a set of modes in the two tables of ZooKeeper.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Modes(pub u8);

impl Modes {
    pub const NONE: Modes = Modes(0);
    pub const DATA_STANDARD: Modes = Modes(1);
    pub const DATA_PERSISTENT: Modes = Modes(2);
    pub const DATA_RECURSIVE: Modes = Modes(4);
    pub const CHILD_STANDARD: Modes = Modes(8);
    pub const CHILD_PERSISTENT: Modes = Modes(16);

    /// Every mode of the data table.
    pub const DATA: Modes = Modes(1 | 2 | 4);
    /// Every mode of the child table.
    pub const CHILD: Modes = Modes(8 | 16);
    /// The modes that firing uses up.
    pub const STANDARD: Modes = Modes(1 | 8);
    pub const ALL: Modes = Modes(31);

    pub const fn with(self, more: Modes) -> Modes {
        Modes(self.0 | more.0)
    }

    pub const fn without(self, less: Modes) -> Modes {
        Modes(self.0 & !less.0)
    }

    pub const fn and(self, other: Modes) -> Modes {
        Modes(self.0 & other.0)
    }

    pub const fn meets(self, other: Modes) -> bool {
        self.0 & other.0 != 0
    }

    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// Bits of a `Watch` that hold its modes.
const MODE_BITS: u32 = 5;

/// Slots must stay below this: what is left of a `Watch` after its modes.
pub const SLOTS_MAX: u32 = 1 << (32 - MODE_BITS);

const _: () = assert!((Modes::ALL.0 as u32) < 1 << MODE_BITS);

/// Shape: `[slot of the connection:27 bits][modes:5 bits]`. Without modes it is a hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Watch(u32);

impl Watch {
    const HOLE: Watch = Watch(0);

    fn new(slot: u32, modes: Modes) -> Watch {
        debug_assert!(slot < SLOTS_MAX);
        Watch(slot << MODE_BITS | modes.0 as u32)
    }

    fn slot(self) -> u32 {
        self.0 >> MODE_BITS
    }

    fn modes(self) -> Modes {
        Modes(self.0 as u8 & Modes::ALL.0)
    }

    fn is_hole(self) -> bool {
        self.modes().is_none()
    }
}

/// Watches that fit into the list itself.
const INLINE_MAX: usize = 3;

/// Longest list that is searched from the front; longer ones keep an index of positions.
const FEW_MAX: usize = 32;

/// The watches of one path, in the order of registration: at most one for each connection, which carries all its
/// modes. Only `Many` has holes, and they are at most half of its list.
#[derive(Debug)]
enum Repr {
    Inline(u8, [Watch; INLINE_MAX]),
    Few(Vec<Watch>),
    Many(Box<Many>),
}

/// A list with an index, so that finding one watch of ten thousand costs the same as finding one of ten.
#[derive(Debug)]
struct Many {
    list: Vec<Watch>,
    /// Where in `list` a slot's watch is. Hashed by slot; holes are not in it.
    positions: HashTable<u32>,
    holes: usize,
}

impl Many {
    fn of(list: Vec<Watch>) -> Many {
        let mut many = Many { list, positions: HashTable::new(), holes: 0 };
        many.index();
        many
    }

    /// Rebuilds the index over a list without holes.
    fn index(&mut self) {
        let Many { list, positions, .. } = self;
        positions.clear();
        if positions.capacity() > 4 * list.len() {
            *positions = HashTable::new();
        }
        positions.reserve(list.len(), |&at| slot_hash(list[at as usize].slot()));
        for (at, watch) in list.iter().enumerate() {
            positions.insert_unique(slot_hash(watch.slot()), at as u32, |&at| slot_hash(list[at as usize].slot()));
        }
    }

    fn position(&self, slot: u32) -> Option<usize> {
        let at = self.positions.find(slot_hash(slot), |&at| self.list[at as usize].slot() == slot)?;
        Some(*at as usize)
    }

    fn push(&mut self, watch: Watch) {
        let Many { list, positions, .. } = self;
        let at = list.len() as u32;
        list.push(watch);
        positions.insert_unique(slot_hash(watch.slot()), at, |&at| slot_hash(list[at as usize].slot()));
    }

    fn remove(&mut self, at: usize) {
        let Many { list, positions, holes } = self;
        let hash = slot_hash(list[at].slot());
        if let Ok(entry) = positions.find_entry(hash, |&p| p as usize == at) {
            entry.remove();
        }
        list[at] = Watch::HOLE;
        *holes += 1;
    }
}

/// Slots are small numbers of our own making, so a multiplication spreads them well enough.
fn slot_hash(slot: u32) -> u64 {
    (slot as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The watches of one path.
#[derive(Debug)]
pub struct Watchers(Repr);

impl Default for Watchers {
    fn default() -> Watchers {
        Watchers(Repr::Inline(0, [Watch::HOLE; INLINE_MAX]))
    }
}

impl Watchers {
    fn as_slice(&self) -> &[Watch] {
        match &self.0 {
            Repr::Inline(len, list) => &list[..*len as usize],
            Repr::Few(list) => list,
            Repr::Many(many) => &many.list,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Watch] {
        match &mut self.0 {
            Repr::Inline(len, list) => &mut list[..*len as usize],
            Repr::Few(list) => list,
            Repr::Many(many) => &mut many.list,
        }
    }

    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Repr::Inline(len, _) => *len == 0,
            Repr::Few(list) => list.is_empty(),
            Repr::Many(many) => many.list.len() == many.holes,
        }
    }

    /// Slots and their modes, in the order of registration.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Modes)> {
        self.as_slice().iter().filter(|watch| !watch.is_hole()).map(|watch| (watch.slot(), watch.modes()))
    }

    fn position(&self, slot: u32) -> Option<usize> {
        match &self.0 {
            Repr::Many(many) => many.position(slot),
            _ => self.as_slice().iter().position(|watch| watch.slot() == slot),
        }
    }

    pub fn get(&self, slot: u32) -> Modes {
        self.position(slot).map_or(Modes::NONE, |at| self.as_slice()[at].modes())
    }

    /// Adds modes to those of a slot; answers what it had before.
    pub fn add(&mut self, slot: u32, modes: Modes) -> Modes {
        match self.position(slot) {
            Some(at) => {
                let watch = &mut self.as_mut_slice()[at];
                let before = watch.modes();
                *watch = Watch::new(slot, before.with(modes));
                before
            }
            None => {
                self.push(Watch::new(slot, modes));
                Modes::NONE
            }
        }
    }

    fn push(&mut self, watch: Watch) {
        match &mut self.0 {
            Repr::Inline(len, list) if (*len as usize) < INLINE_MAX => {
                list[*len as usize] = watch;
                *len += 1;
            }
            Repr::Inline(_, list) => {
                let mut longer = Vec::with_capacity(2 * INLINE_MAX);
                longer.extend_from_slice(list);
                longer.push(watch);
                self.0 = Repr::Few(longer);
            }
            Repr::Few(list) if list.len() < FEW_MAX => list.push(watch),
            Repr::Few(list) => {
                let mut many = Many::of(mem::take(list));
                many.push(watch);
                self.0 = Repr::Many(Box::new(many));
            }
            Repr::Many(many) => many.push(watch),
        }
    }

    /// Takes modes away from a slot; answers what it had before.
    pub fn remove(&mut self, slot: u32, modes: Modes) -> Modes {
        let Some(at) = self.position(slot) else { return Modes::NONE };
        let before = self.as_slice()[at].modes();
        let after = before.without(modes);
        if !after.is_none() {
            self.as_mut_slice()[at] = Watch::new(slot, after);
            return before;
        }
        match &mut self.0 {
            Repr::Inline(len, list) => {
                list.copy_within(at + 1..*len as usize, at);
                *len -= 1;
            }
            Repr::Few(list) => {
                list.remove(at);
            }
            Repr::Many(many) => {
                many.remove(at);
                if many.holes > many.list.len() / 2 {
                    self.sweep();
                }
            }
        }
        before
    }

    /// Visits every watch that has one of `asked`, and takes `used_up` from it: `visit(slot, before, after)`.
    pub fn fire(&mut self, asked: Modes, used_up: Modes, mut visit: impl FnMut(u32, Modes, Modes)) {
        let mut emptied = false;
        for watch in self.as_mut_slice() {
            let before = watch.modes();
            if !before.meets(asked) {
                continue;
            }
            let after = before.without(used_up);
            visit(watch.slot(), before, after);
            if after != before {
                *watch = Watch::new(watch.slot(), after);
                emptied |= after.is_none();
            }
        }
        if emptied {
            self.sweep();
        }
    }

    /// Closes the gaps that are left by watches without modes.
    fn sweep(&mut self) {
        match &mut self.0 {
            Repr::Inline(len, list) => {
                let mut kept = 0;
                for at in 0..*len as usize {
                    if !list[at].is_hole() {
                        list[kept] = list[at];
                        kept += 1;
                    }
                }
                *len = kept as u8;
            }
            Repr::Few(list) => list.retain(|watch| !watch.is_hole()),
            Repr::Many(many) => {
                many.list.retain(|watch| !watch.is_hole());
                many.holes = 0;
                if many.list.len() <= FEW_MAX / 2 {
                    many.list.shrink_to(FEW_MAX);
                    self.0 = Repr::Few(mem::take(&mut many.list));
                } else {
                    let len = many.list.len();
                    many.list.shrink_to(2 * len);
                    many.index();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(watchers: &Watchers) -> Vec<u32> {
        watchers.iter().map(|(slot, _)| slot).collect()
    }

    #[test]
    fn a_list_takes_three_words_whatever_its_length() {
        assert_eq!(size_of::<Watchers>(), 24);
        assert_eq!(size_of::<Watch>(), 4);
    }

    #[test]
    fn order_of_registration_survives_growth_and_removal() {
        let mut watchers = Watchers::default();
        for slot in (0..500).rev() {
            assert_eq!(watchers.add(slot, Modes::DATA_STANDARD), Modes::NONE);
        }
        for slot in (0..500).filter(|slot| slot % 3 != 0) {
            assert_eq!(watchers.remove(slot, Modes::ALL), Modes::DATA_STANDARD);
        }
        let expected: Vec<u32> = (0..500).rev().filter(|slot| slot % 3 == 0).collect();
        assert_eq!(slots(&watchers), expected);
        for slot in 0..500 {
            let modes = if slot % 3 == 0 { Modes::DATA_STANDARD } else { Modes::NONE };
            assert_eq!(watchers.get(slot), modes, "{slot}");
        }
        watchers.fire(Modes::DATA, Modes::STANDARD, |_, _, _| {});
        assert!(watchers.is_empty());
        assert!(matches!(watchers.0, Repr::Few(_)), "an emptied list lets its index go");
    }

    #[test]
    fn holes_are_at_most_half_of_a_list() {
        let mut watchers = Watchers::default();
        for slot in 0..10_000 {
            watchers.add(slot, Modes::CHILD_STANDARD);
            watchers.remove(slot.saturating_sub(100), Modes::ALL);
        }
        assert!(watchers.as_slice().len() <= 2 * slots(&watchers).len() + 2);
    }
}
