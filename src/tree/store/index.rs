//! From a hash to what has it: segments of linear-probed words, under a directory that doubles.
//!
//! A word is `[hash:32 bits][ref:32 bits]`, so a full segment is split, and almost every probe decided, without
//! touching a znode. Readers probe without locks: words are only set, replaced or marked deleted; a split or rebuilt
//! segment is another block, and the old one stays as it was until no reader can be in it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::arena::{AtomicRef, Ref, Space, prefetch};
use super::heap::{Garbage, Heap};

const WORDS: usize = 504;
/// Words in use (deleted ones included) beyond which a segment is split or rebuilt.
const FULL: u32 = 400;
/// Deleted words from which a full segment is rebuilt and not split.
const STALE: u32 = 100;
/// Deeper than the hash bits that a word carries beside those that choose the place in a segment.
const DEPTH_MAX: u32 = 24;
/// A word whose entry was removed while words behind it may still be in use.
const DELETED: u64 = 1 << 32;

/// One page.
#[repr(C)]
struct Segment {
    used: AtomicU32,
    deleted: AtomicU32,
    depth: AtomicU32,
    unused: [u32; 13],
    words: [AtomicU64; WORDS],
}

const _: () = assert!(size_of::<Segment>() == 4096);

/// `1 << depth` names of segments follow.
#[repr(C)]
struct Segments {
    depth: u32,
}

pub(super) struct Index<T> {
    segments: AtomicRef<Segments>,
    of: std::marker::PhantomData<fn() -> T>,
}

/// The 32 bits of a hash that the index uses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(u32);

impl Tag {
    pub(super) fn of(hash: u64) -> Tag {
        Tag((hash >> 32) as u32)
    }

    /// The low bits choose the place, the high bits the segment.
    fn home(self) -> usize {
        ((self.0 & 0xfff) as usize * WORDS) >> 12
    }

    fn segment(self, depth: u32) -> usize {
        (u64::from(self.0) << depth >> 32) as usize
    }
}

fn word<T>(tag: Tag, at: Ref<T>) -> u64 {
    u64::from(tag.0) << 32 | u64::from(at.bits())
}

/// The entries that have a tag, or may have had it.
pub(super) struct Candidates<'a, T> {
    segment: &'a Segment,
    tag: Tag,
    place: usize,
    left: usize,
    of: std::marker::PhantomData<fn() -> T>,
}

impl<T> Iterator for Candidates<'_, T> {
    type Item = Ref<T>;

    #[inline]
    fn next(&mut self) -> Option<Ref<T>> {
        while self.left > 0 {
            let word = self.segment.words[self.place].load(Ordering::Acquire);
            if word == 0 {
                return None;
            }
            self.left -= 1;
            self.place = following(self.place);
            if (word >> 32) as u32 == self.tag.0 {
                // A deleted word names nothing, whatever its tag.
                if let Some(at) = Ref::from_bits(word as u32) {
                    return Some(at);
                }
            }
        }
        None
    }
}

fn following(place: usize) -> usize {
    if place + 1 < WORDS { place + 1 } else { 0 }
}

impl<T> Index<T> {
    pub(super) fn new(heap: &mut Heap) -> Index<T> {
        let segment = new_segment(heap, 0);
        let segments = new_segments(heap, 0);
        // SAFETY: just allocated with room for one name.
        unsafe { name(heap.space(), segments, 0) }.store(Some(segment));
        Index { segments: AtomicRef::new(Some(segments)), of: std::marker::PhantomData }
    }

    /// # Safety
    /// What was in the index when the caller last held no reference is not freed, during `'a`.
    #[inline]
    unsafe fn segment<'a>(&self, space: Space, tag: Tag) -> &'a Segment {
        // SAFETY: as the caller says; a directory names `1 << depth` segments.
        unsafe { space.get(self.segment_ref(space, tag)) }
    }

    /// # Safety
    /// As for `segment`.
    #[inline]
    unsafe fn segment_ref(&self, space: Space, tag: Tag) -> Ref<Segment> {
        let segments = self.segments.load().expect("the directory always exists");
        // SAFETY: as the caller says.
        unsafe {
            let depth = space.get(segments).depth;
            name(space, segments, tag.segment(depth)).load().expect("every name is set")
        }
    }

    /// # Safety
    /// What was in the index when the caller last held no reference is not freed, during `'a`.
    #[inline]
    pub(super) unsafe fn find<'a>(&self, space: Space, tag: Tag) -> Candidates<'a, T> {
        // SAFETY: as the caller says.
        let segment = unsafe { self.segment(space, tag) };
        Candidates { segment, tag, place: tag.home(), left: WORDS, of: std::marker::PhantomData }
    }

    /// Asks for the line that a look-up starts on.
    ///
    /// # Safety
    /// As for `find`.
    #[inline]
    pub(super) unsafe fn prefetch(&self, space: Space, tag: Tag) {
        // SAFETY: as the caller says.
        let segment = unsafe { self.segment(space, tag) };
        prefetch((&raw const segment.words[tag.home()]).cast());
    }

    /// Writer: adds an entry that is not in the index.
    pub(super) fn insert(&self, heap: &mut Heap, tag: Tag, at: Ref<T>) {
        loop {
            // SAFETY: the writer frees nothing while it is in here.
            let segment = unsafe { self.segment(heap.space(), tag) };
            if segment.used.load(Ordering::Relaxed) < FULL {
                put(segment, word(tag, at));
                return;
            }
            self.make_room(heap, tag);
        }
    }

    /// Writer: what was found under this tag is now something else.
    pub(super) fn replace(&self, space: Space, tag: Tag, old: Ref<T>, new: Ref<T>) {
        // SAFETY: the writer frees nothing while it is in here.
        let segment = unsafe { self.segment(space, tag) };
        let place = place_of(segment, tag, word(tag, old));
        segment.words[place].store(word(tag, new), Ordering::Release);
    }

    /// Writer: takes an entry out.
    pub(super) fn remove(&self, space: Space, tag: Tag, at: Ref<T>) {
        // SAFETY: the writer frees nothing while it is in here.
        let segment = unsafe { self.segment(space, tag) };
        let mut place = place_of(segment, tag, word(tag, at));
        if segment.words[following(place)].load(Ordering::Relaxed) != 0 {
            segment.words[place].store(DELETED, Ordering::Release);
            segment.deleted.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // Nothing follows, so no probe needs this word, nor deleted ones before it.
        segment.words[place].store(0, Ordering::Release);
        segment.used.fetch_sub(1, Ordering::Relaxed);
        loop {
            place = if place == 0 { WORDS - 1 } else { place - 1 };
            if segment.words[place].load(Ordering::Relaxed) != DELETED {
                return;
            }
            segment.words[place].store(0, Ordering::Release);
            segment.used.fetch_sub(1, Ordering::Relaxed);
            segment.deleted.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[cold]
    fn make_room(&self, heap: &mut Heap, tag: Tag) {
        let space = heap.space();
        // SAFETY: the writer frees nothing while it is in here.
        let old = unsafe { self.segment_ref(space, tag) };
        // SAFETY: as above.
        let segment = unsafe { space.get(old) };
        let depth = segment.depth.load(Ordering::Relaxed);
        let stale = segment.deleted.load(Ordering::Relaxed) >= STALE;
        let new_depth = if stale { depth } else { depth + 1 };
        assert!(new_depth <= DEPTH_MAX, "hashes are not spread: is the hash keyed?");
        let low = new_segment(heap, new_depth);
        let high = if stale { low } else { new_segment(heap, new_depth) };
        for word in segment.words.iter().map(|word| word.load(Ordering::Relaxed)).filter(|&word| word as u32 != 0) {
            let upper = Tag((word >> 32) as u32).segment(new_depth) & 1 == 1;
            // SAFETY: both were just allocated.
            put(unsafe { space.get(if upper { high } else { low }) }, word);
        }
        self.rename(heap, tag, new_depth, (low, high), depth);
        heap.retire(Garbage::Block(old.block()));
    }

    /// Puts `low` and `high` in the place of the segment that has `tag` and had `depth`.
    fn rename(&self, heap: &mut Heap, tag: Tag, new_depth: u32, (low, high): (Ref<Segment>, Ref<Segment>), depth: u32) {
        let space = heap.space();
        let mut segments = self.segments.load().expect("the directory always exists");
        // SAFETY: the writer frees nothing while it is in here.
        let mut whole = unsafe { space.get(segments) }.depth;
        if new_depth > whole {
            let doubled = new_segments(heap, whole + 1);
            for i in 0..2_usize << whole {
                // SAFETY: the old directory has `1 << whole` names, the new one twice as many.
                unsafe { name(space, doubled, i).store(name(space, segments, i / 2).load()) };
            }
            self.segments.store(Some(doubled));
            heap.retire(Garbage::Block(segments.block()));
            (segments, whole) = (doubled, whole + 1);
        }
        let count = 1 << (whole - depth);
        let first = tag.segment(depth) * count;
        for i in first..first + count {
            let upper = new_depth > depth && (i >> (whole - new_depth)) & 1 == 1;
            // SAFETY: `i` is below `1 << whole`.
            unsafe { name(space, segments, i) }.store(Some(if upper { high } else { low }));
        }
    }
}

/// The `i`th name in a directory.
///
/// # Safety
/// The directory is alive during `'a`, and `i` is below its `1 << depth`.
#[inline]
unsafe fn name<'a>(space: Space, segments: Ref<Segments>, i: usize) -> &'a AtomicRef<Segment> {
    // SAFETY: names follow the header, as `new_segments` allocated them.
    unsafe { &*space.address(segments).add(1).cast::<AtomicRef<Segment>>().add(i) }
}

fn new_segments(heap: &mut Heap, depth: u32) -> Ref<Segments> {
    let names = 1_usize << depth;
    let at = heap.allocate::<Segments>(size_of::<Segments>() + names * size_of::<AtomicRef<Segment>>());
    let block = heap.space().address(at);
    // SAFETY: just allocated, this long; zero is a null name.
    unsafe {
        block.write(Segments { depth });
        block.add(1).cast::<AtomicRef<Segment>>().write_bytes(0, names);
    }
    at
}

fn new_segment(heap: &mut Heap, depth: u32) -> Ref<Segment> {
    let at = heap.allocate::<Segment>(size_of::<Segment>());
    // SAFETY: just allocated, this long; all zeros are an empty segment.
    unsafe {
        heap.space().address(at).write_bytes(0, 1);
        heap.space().get(at).depth.store(depth, Ordering::Relaxed);
    }
    at
}

/// Puts a word into the first place from its home on that is free.
fn put(segment: &Segment, word: u64) {
    let mut place = Tag((word >> 32) as u32).home();
    loop {
        match segment.words[place].load(Ordering::Relaxed) {
            0 => {
                segment.used.fetch_add(1, Ordering::Relaxed);
                break;
            }
            DELETED => {
                segment.deleted.fetch_sub(1, Ordering::Relaxed);
                break;
            }
            _ => place = following(place),
        }
    }
    segment.words[place].store(word, Ordering::Release);
}

fn place_of(segment: &Segment, tag: Tag, word: u64) -> usize {
    let mut place = tag.home();
    for _ in 0..WORDS {
        if segment.words[place].load(Ordering::Relaxed) == word {
            return place;
        }
        place = following(place);
    }
    panic!("the entry is not in the index")
}
