//! A table of entries that never move, so an entry's number is a cursor that stays valid.
//!
//! Chunk `k` holds entries `4 << k` to `8 << k`; the first four lie in the table itself. A number is used again once
//! nobody can see the entry that had it.

use std::sync::atomic::{AtomicU32, Ordering};

use super::arena::{AtomicRef, Ref, Space};
use super::heap::{Garbage, Heap};

const FIRST: u32 = 4;
const CHUNKS: usize = 26;
/// How far one insertion looks for a free number, so that none takes long.
const SWEEP: u32 = 64;

#[repr(C)]
pub(super) struct Slots<T> {
    /// Entries from here on are free.
    len: AtomicU32,
    /// For the writer: how many below `len` are free, and where to look for one.
    free: AtomicU32,
    sweep: AtomicU32,
    first: [AtomicRef<T>; FIRST as usize],
    chunks: [AtomicRef<AtomicRef<T>>; CHUNKS],
}

impl<T> Slots<T> {
    pub(super) fn new() -> Slots<T> {
        Slots {
            len: AtomicU32::new(0),
            free: AtomicU32::new(0),
            sweep: AtomicU32::new(0),
            first: std::array::from_fn(|_| AtomicRef::new(None)),
            chunks: std::array::from_fn(|_| AtomicRef::new(None)),
        }
    }

    /// Entries with this number or a higher one do not exist.
    pub(super) fn len(&self) -> u32 {
        self.len.load(Ordering::Acquire)
    }

    /// Writer: nothing is in the table.
    pub(super) fn is_vacant(&self) -> bool {
        self.len() == self.free.load(Ordering::Relaxed)
    }

    /// The entry, if its chunk is (still) there.
    ///
    /// # Safety
    /// The table is alive, and chunks are not freed while the caller looks.
    #[inline]
    unsafe fn entry(&self, space: Space, at: u32) -> Option<&AtomicRef<T>> {
        if at < FIRST {
            return self.first.get(at as usize);
        }
        let chunk = chunk_of(at);
        let block = self.chunks.get(chunk)?.load()?;
        // SAFETY: the chunk holds `4 << chunk` entries, all initialised.
        Some(unsafe { &*space.address(block).add((at - (FIRST << chunk)) as usize) })
    }

    /// What the entry refers to.
    ///
    /// # Safety
    /// As for `entry`.
    #[inline]
    pub(super) unsafe fn get(&self, space: Space, at: u32) -> Option<Ref<T>> {
        // SAFETY: as the caller says.
        unsafe { self.entry(space, at) }?.load()
    }

    /// Writer: puts an entry where there is room, and says where.
    ///
    /// # Safety
    /// The table is alive and the heap's own.
    pub(super) unsafe fn insert(&self, heap: &mut Heap, value: Ref<T>) -> u32 {
        let (len, free) = (self.len(), self.free.load(Ordering::Relaxed));
        if free > 0 && free >= len / 4 {
            let mut at = self.sweep.load(Ordering::Relaxed);
            for _ in 0..SWEEP.min(len) {
                at = if at + 1 < len { at + 1 } else { 0 };
                // SAFETY: as the caller says; `at < len`.
                let entry = unsafe { self.entry(heap.space(), at) }.expect("chunks below len exist");
                if entry.load().is_none() {
                    self.sweep.store(at, Ordering::Relaxed);
                    self.free.store(free - 1, Ordering::Relaxed);
                    entry.store(Some(value));
                    return at;
                }
            }
            self.sweep.store(at, Ordering::Relaxed);
        }
        self.ensure_chunk(heap, len);
        // SAFETY: the chunk is there now.
        unsafe { self.entry(heap.space(), len) }.expect("chunk ensured").store(Some(value));
        self.len.store(len + 1, Ordering::Release);
        len
    }

    fn ensure_chunk(&self, heap: &mut Heap, at: u32) {
        if at < FIRST {
            return;
        }
        let chunk = chunk_of(at);
        // 2^28 children of one znode need a gigabyte of names alone.
        let place = self.chunks.get(chunk).expect("more entries than a table can hold");
        if place.load().is_none() {
            let count = (FIRST as usize) << chunk;
            let block = heap.allocate::<AtomicRef<T>>(count * size_of::<AtomicRef<T>>());
            // SAFETY: just allocated, this long; zero is a null entry.
            unsafe { heap.space().address(block).write_bytes(0, count) };
            place.store(Some(block));
        }
    }

    /// Writer: frees an entry and its number.
    ///
    /// # Safety
    /// The table is alive and the heap's own; the entry is in use.
    pub(super) unsafe fn remove(&self, heap: &mut Heap, at: u32) {
        // SAFETY: as the caller says.
        unsafe { self.entry(heap.space(), at) }.expect("the entry is in use").store(None);
        let (mut len, mut free) = (self.len(), self.free.load(Ordering::Relaxed) + 1);
        let old_len = len;
        if free == len {
            (len, free) = (0, 0);
        }
        for _ in 0..SWEEP.min(len) {
            // SAFETY: as the caller says; `len - 1 < len`.
            if unsafe { self.get(heap.space(), len - 1) }.is_some() {
                break;
            }
            (len, free) = (len - 1, free - 1);
        }
        self.free.store(free, Ordering::Relaxed);
        if len < old_len {
            self.len.store(len, Ordering::Release);
            self.trim(heap, len, old_len);
        }
    }

    /// Gives back chunks that lie far behind the end.
    fn trim(&self, heap: &mut Heap, len: u32, old_len: u32) {
        // One chunk beyond the end is kept, so that a table whose length swings does not allocate.
        let (keep, last) = (chunk_of(len.max(FIRST)) + 1, chunk_of(old_len.max(FIRST)) + 1);
        for place in self.chunks.iter().take(last + 1).skip(keep + 1) {
            if let Some(block) = place.load() {
                place.store(None);
                heap.retire(Garbage::Block(block.block()));
            }
        }
    }

    /// Writer: the blocks of a table that nobody can reach any more.
    pub(super) fn free_chunks(&self, mut free: impl FnMut(Ref<()>)) {
        for place in &self.chunks {
            if let Some(block) = place.load() {
                free(block.block());
            }
        }
    }
}

fn chunk_of(at: u32) -> usize {
    (at / FIRST).ilog2() as usize
}
