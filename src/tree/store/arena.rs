//! Memory of the store: one reserved stretch of addresses, cut into slabs of equal blocks.
//!
//! Blocks are named by 32-bit [`Ref`]s (units of 16 bytes from the start), half the size of a pointer, so an index
//! word has room for 32 bits of hash. Only the writer allocates and frees; readers only need the start ([`Space`]).

use std::alloc::{Layout, handle_alloc_error};
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Unit of a [`Ref`] and alignment of every block, bytes.
pub(super) const GRANULE: usize = 16;
/// What is handed from one size of blocks to another, bytes.
const SLAB_BYTES: usize = 64 << 10;
const SLAB_GRANULES: u32 = (SLAB_BYTES / GRANULE) as u32;
/// Addresses become usable in steps of one huge page, bytes.
const STEP_BYTES: usize = 2 << 20;
/// Addresses reserved: all that a [`Ref`] can name, bytes. Costs no memory.
const RESERVE_BYTES: usize = (1 << 32) * GRANULE;
/// Where the address space is limited (`RLIMIT_AS`), less is tried, down to this, bytes.
const RESERVE_BYTES_MIN: usize = 256 << 20;
/// Largest block that shares a slab, bytes. Larger ones take whole slabs, a power of two of them.
pub(super) const SMALL_BYTES_MAX: usize = 16 << 10;
/// Blocks of up to this size come in steps of one granule, bytes; larger ones in eight steps per doubling.
const FINE_BYTES_MAX: usize = 1 << 10;
const CLASSES: usize = 64 + 8 * 4;
/// A slab that heads a run of `1 << (class - RUN)` slabs.
const RUN: u8 = 128;
const RUN_ORDERS: usize = 21;
const NONE: u32 = u32::MAX;

const _: () = assert!(FINE_BYTES_MAX / GRANULE == 64 && FINE_BYTES_MAX << 4 == SMALL_BYTES_MAX);
const _: () = assert!(CLASSES < RUN as usize);

/// The name of a block that holds a `T`.
pub(super) struct Ref<T> {
    granule: NonZeroU32,
    of: PhantomData<fn() -> T>,
}

impl<T> Ref<T> {
    pub(super) fn from_bits(bits: u32) -> Option<Ref<T>> {
        NonZeroU32::new(bits).map(|granule| Ref { granule, of: PhantomData })
    }

    pub(super) fn bits(self) -> u32 {
        self.granule.get()
    }

    /// The same block, whatever is in it.
    pub(super) fn block(self) -> Ref<()> {
        Ref { granule: self.granule, of: PhantomData }
    }
}

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Ref<T> {
        *self
    }
}

impl<T> Copy for Ref<T> {}

impl<T> PartialEq for Ref<T> {
    fn eq(&self, other: &Ref<T>) -> bool {
        self.granule == other.granule
    }
}

impl<T> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:x}", self.granule)
    }
}

/// A [`Ref`] or nothing, which the writer changes while readers look.
#[repr(transparent)]
pub(super) struct AtomicRef<T> {
    bits: AtomicU32,
    of: PhantomData<fn() -> T>,
}

impl<T> AtomicRef<T> {
    pub(super) fn new(value: Option<Ref<T>>) -> AtomicRef<T> {
        AtomicRef { bits: AtomicU32::new(value.map_or(0, Ref::bits)), of: PhantomData }
    }

    /// Acquire: what the writer put into the block before it linked it here is seen.
    pub(super) fn load(&self) -> Option<Ref<T>> {
        Ref::from_bits(self.bits.load(Ordering::Acquire))
    }

    /// Release: the block is complete.
    pub(super) fn store(&self, value: Option<Ref<T>>) {
        self.bits.store(value.map_or(0, Ref::bits), Ordering::Release);
    }
}

/// Where the blocks are: the start of the reserved stretch.
#[derive(Clone, Copy)]
pub(super) struct Space {
    start: NonNull<u8>,
}

// SAFETY: a start address; what may be read or written behind it is decided at each access.
unsafe impl Send for Space {}
// SAFETY: as above.
unsafe impl Sync for Space {}

impl Space {
    /// Address of a block.
    #[inline]
    pub(super) fn address<T>(self, at: Ref<T>) -> *mut T {
        self.start.as_ptr().wrapping_add(at.granule.get() as usize * GRANULE).cast()
    }

    /// # Safety
    /// The block holds a complete `T` and is not freed during `'a`.
    #[inline]
    pub(super) unsafe fn get<'a, T>(self, at: Ref<T>) -> &'a T {
        // SAFETY: aligned (16 bytes), complete and alive, as the caller says; the writer changes only atomic fields.
        unsafe { &*self.address(at) }
    }

    #[inline]
    pub(super) fn prefetch<T>(self, at: Ref<T>) {
        prefetch(self.address(at).cast());
    }

    /// The first two cache lines of a block.
    #[inline]
    pub(super) fn prefetch_two<T>(self, at: Ref<T>) {
        prefetch(self.address(at).cast());
        prefetch(self.address(at).cast::<u8>().wrapping_add(64));
    }
}

impl Space {
    /// What `prefetch_two` left out of a block that carries `tail` bytes behind its head, as far as that is worth it.
    #[inline]
    pub(super) fn prefetch_rest<T>(self, at: Ref<T>, tail: usize) {
        let end = (size_of::<T>() + tail).min(PREFETCHED_BYTES_MAX);
        for offset in (128..end).step_by(64) {
            prefetch(self.address(at).cast::<u8>().wrapping_add(offset));
        }
    }
}

/// Beyond this the processor's own prefetching has long set in.
const PREFETCHED_BYTES_MAX: usize = 1024;

/// Asks for a cache line; does nothing where the processor has no stable intrinsic for it.
#[inline]
pub(super) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The reserved stretch itself; unmapped when the last reader and the writer are gone.
pub(super) struct Region {
    map: NonNull<u8>,
    map_bytes: usize,
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: owns a mapping; used through `Space` only.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Reserves addresses without memory. Stops the process where not even the least amount is to be had.
    pub(super) fn reserve() -> Region {
        let mut bytes = RESERVE_BYTES;
        loop {
            let map_bytes = bytes + STEP_BYTES;
            // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
            let map = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    map_bytes,
                    libc::PROT_NONE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                    -1,
                    0,
                )
            };
            if map != libc::MAP_FAILED {
                let map = NonNull::new(map.cast::<u8>()).expect("mmap never returns null without MAP_FIXED");
                let start = map.as_ptr().map_addr(|address| address.next_multiple_of(STEP_BYTES));
                let start = NonNull::new(start).expect("rounded up from a non-null address");
                let region = Region { map, map_bytes, start, bytes };
                region.advise();
                return region;
            }
            bytes /= 2;
            if bytes < RESERVE_BYTES_MIN {
                handle_alloc_error(Layout::new::<[u8; RESERVE_BYTES_MIN]>());
            }
        }
    }

    pub(super) fn space(&self) -> Space {
        Space { start: self.start }
    }

    /// Huge pages from the second step on: an empty store stays small. Advice only, so errors are ignored.
    fn advise(&self) {
        let rest = self.start.as_ptr().wrapping_add(STEP_BYTES);
        // SAFETY: both stretches lie inside the mapping.
        unsafe {
            libc::madvise(self.start.as_ptr().cast(), STEP_BYTES, libc::MADV_NOHUGEPAGE);
            libc::madvise(rest.cast(), self.bytes - STEP_BYTES, libc::MADV_HUGEPAGE);
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: our own mapping; whoever could name a block in it is gone.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.map_bytes) };
    }
}

/// One slab: blocks of one size, some free.
struct Slab {
    /// First free block, linked through their first words. `0 = none`.
    free: u32,
    /// Neighbours in the list of slabs of this class with free blocks, while `listed`.
    before: u32,
    after: u32,
    live: u16,
    /// Blocks handed out at least once; those behind were never touched.
    carved: u16,
    class: u8,
    listed: bool,
}

/// The writer's side: which blocks are free.
pub(super) struct Arena {
    space: Space,
    bytes: usize,
    usable_bytes: usize,
    slabs: Vec<Slab>,
    current: [u32; CLASSES],
    /// Heads of the lists of slabs with free blocks, the current ones not among them.
    partial: [u32; CLASSES],
    /// Free runs of `1 << order` slabs.
    runs: [Vec<u32>; RUN_ORDERS],
    live_bytes: usize,
}

impl Arena {
    pub(super) fn new(region: &Region) -> Arena {
        let mut arena = Arena {
            space: region.space(),
            bytes: region.bytes,
            usable_bytes: 0,
            slabs: Vec::new(),
            current: [NONE; CLASSES],
            partial: [NONE; CLASSES],
            runs: std::array::from_fn(|_| Vec::new()),
            live_bytes: 0,
        };
        // Slab 0 is never used: its first block would be named 0.
        let first = arena.extend(0);
        assert_eq!(first, 0);
        arena
    }

    /// Bytes in blocks that are in use, rounding included.
    pub(super) fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    /// A block of at least `bytes`, uninitialised.
    pub(super) fn allocate<T>(&mut self, bytes: usize) -> Ref<T> {
        debug_assert!(bytes >= size_of::<T>() && align_of::<T>() <= GRANULE);
        let bits =
            if bytes <= SMALL_BYTES_MAX { self.allocate_small(class_of(bytes)) } else { self.allocate_run(bytes) };
        Ref::from_bits(bits).expect("slab 0 is never used")
    }

    #[inline]
    fn allocate_small(&mut self, class: usize) -> u32 {
        self.live_bytes += class_bytes(class);
        loop {
            let at = self.current[class];
            if let Some(slab) = self.slabs.get_mut(at as usize) {
                if slab.free != 0 {
                    let block = slab.free;
                    guard::permit(self.space.start.as_ptr().wrapping_add(block as usize * GRANULE), size_of::<u32>());
                    // SAFETY: a free block starts with the name of the next one; only the writer touches it.
                    slab.free = unsafe { *self.space.start.as_ptr().add(block as usize * GRANULE).cast::<u32>() };
                    slab.live += 1;
                    prefetch(self.space.start.as_ptr().wrapping_add(slab.free as usize * GRANULE));
                    return block;
                }
                if (slab.carved as usize) < SLAB_BYTES / class_bytes(class) {
                    let block = at * SLAB_GRANULES + slab.carved as u32 * (class_bytes(class) / GRANULE) as u32;
                    slab.carved += 1;
                    slab.live += 1;
                    return block;
                }
            }
            self.current[class] = self.next_slab(class);
        }
    }

    /// A slab of this class with free blocks.
    #[cold]
    fn next_slab(&mut self, class: usize) -> u32 {
        let partial = self.partial[class];
        if partial != NONE {
            self.unlist(partial);
            return partial;
        }
        let at = self.take_run(0);
        self.slabs[at as usize] =
            Slab { free: 0, before: NONE, after: NONE, live: 0, carved: 0, class: class as u8, listed: false };
        at
    }

    #[cold]
    fn allocate_run(&mut self, bytes: usize) -> u32 {
        let order = bytes.div_ceil(SLAB_BYTES).next_power_of_two().ilog2() as usize;
        let at = self.take_run(order);
        self.slabs[at as usize].class = RUN + order as u8;
        self.live_bytes += SLAB_BYTES << order;
        at * SLAB_GRANULES
    }

    /// The first of `1 << order` slabs that follow each other and belong to nobody.
    fn take_run(&mut self, order: usize) -> u32 {
        let Some(found) = (order..RUN_ORDERS).find(|&larger| !self.runs[larger].is_empty()) else {
            return self.extend(order);
        };
        let at = self.runs[found].pop().expect("found not empty");
        for smaller in (order..found).rev() {
            self.runs[smaller].push(at + (1 << smaller));
        }
        at
    }

    /// Makes `1 << order` more slabs usable. Stops the process when the reserved addresses or the memory are used up.
    fn extend(&mut self, order: usize) -> u32 {
        let at = self.slabs.len();
        let count = 1 << order;
        let end = (at + count) * SLAB_BYTES;
        if end > self.usable_bytes {
            let grown = end.next_multiple_of(STEP_BYTES);
            let from = self.space.start.as_ptr().wrapping_add(self.usable_bytes);
            // SAFETY: inside the mapping (checked first), and never used before.
            let allowed = grown <= self.bytes
                && unsafe {
                    let rights = libc::PROT_READ | libc::PROT_WRITE;
                    libc::mprotect(from.cast(), grown - self.usable_bytes, rights) == 0
                };
            if !allowed {
                handle_alloc_error(Layout::new::<[u8; SLAB_BYTES]>());
            }
            guard::forbid(from, grown - self.usable_bytes);
            self.usable_bytes = grown;
        }
        self.slabs.extend((0..count).map(|_| Slab {
            free: 0,
            before: NONE,
            after: NONE,
            live: 0,
            carved: 0,
            class: RUN,
            listed: false,
        }));
        at as u32
    }

    /// Takes a block back. Freeing twice or too early is what the pins prevent.
    pub(super) fn free(&mut self, block: Ref<()>) {
        let at = block.bits() / SLAB_GRANULES;
        let class = self.slabs[at as usize].class;
        if class >= RUN {
            self.poison(block, SLAB_BYTES << (class - RUN));
            guard::forbid(self.space.address(block).cast(), SLAB_BYTES << (class - RUN));
            self.live_bytes -= SLAB_BYTES << (class - RUN);
            self.runs[(class - RUN) as usize].push(at);
            return;
        }
        self.poison(block, class_bytes(class as usize));
        self.live_bytes -= class_bytes(class as usize);
        let current = self.current[class as usize] == at;
        let slab = &mut self.slabs[at as usize];
        // SAFETY: the block is free from here on, and only the writer touches free blocks.
        unsafe { *self.space.address(block).cast::<u32>() = slab.free };
        guard::forbid(self.space.address(block).cast(), class_bytes(class as usize));
        slab.free = block.bits();
        slab.live -= 1;
        let (empty, listed) = (slab.live == 0, slab.listed);
        match (current, empty, listed) {
            (true, ..) | (false, false, true) => {}
            (false, true, true) => {
                self.unlist(at);
                self.runs[0].push(at);
            }
            (false, true, false) => self.runs[0].push(at),
            (false, false, false) => self.list(at),
        }
    }

    fn list(&mut self, at: u32) {
        let class = self.slabs[at as usize].class as usize;
        let after = std::mem::replace(&mut self.partial[class], at);
        if let Some(next) = self.slabs.get_mut(after as usize) {
            next.before = at;
        }
        let slab = &mut self.slabs[at as usize];
        (slab.before, slab.after, slab.listed) = (NONE, after, true);
    }

    fn unlist(&mut self, at: u32) {
        let slab = &mut self.slabs[at as usize];
        let (before, after, class) = (slab.before, slab.after, slab.class as usize);
        slab.listed = false;
        match self.slabs.get_mut(before as usize) {
            Some(slab) => slab.after = after,
            None => self.partial[class] = after,
        }
        if let Some(slab) = self.slabs.get_mut(after as usize) {
            slab.before = before;
        }
    }

    /// In debug builds whoever still reads a freed block reads nonsense, and the model test notices.
    fn poison(&self, block: Ref<()>, bytes: usize) {
        if cfg!(debug_assertions) {
            guard::permit(self.space.address(block).cast(), bytes);
            // SAFETY: the block is this long, and nobody may read it any more.
            unsafe { self.space.address(block).cast::<u8>().write_bytes(0xdd, bytes) };
        }
    }
}

/// Tells the address sanitizer which blocks are in use, down to the byte: it knows nothing of our allocation.
/// `RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address --cfg asan" cargo test --target x86_64-unknown-linux-gnu`.
mod guard {
    #[cfg(asan)]
    unsafe extern "C" {
        fn __asan_poison_memory_region(start: *const u8, bytes: usize);
        fn __asan_unpoison_memory_region(start: *const u8, bytes: usize);
    }

    #[inline]
    pub(super) fn forbid(start: *mut u8, bytes: usize) {
        #[cfg(asan)]
        // SAFETY: only marks shadow memory.
        unsafe {
            __asan_poison_memory_region(start, bytes);
        }
        #[cfg(not(asan))]
        let _ = (start, bytes);
    }

    #[inline]
    pub(super) fn permit(start: *mut u8, bytes: usize) {
        #[cfg(asan)]
        // SAFETY: only marks shadow memory.
        unsafe {
            __asan_unpoison_memory_region(start, bytes);
        }
        #[cfg(not(asan))]
        let _ = (start, bytes);
    }
}

fn class_of(bytes: usize) -> usize {
    let bytes = bytes.max(1);
    if bytes <= FINE_BYTES_MAX {
        return (bytes - 1) / GRANULE;
    }
    let doubling = (bytes - 1).ilog2() as usize;
    64 + (doubling - 10) * 8 + ((bytes - 1) >> (doubling - 3)) - 8
}

fn class_bytes(class: usize) -> usize {
    if class < 64 {
        return (class + 1) * GRANULE;
    }
    let (doubling, step) = ((class - 64) / 8, (class - 64) % 8);
    (9 + step) << (7 + doubling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_the_smallest_that_fits() {
        for bytes in 1..=SMALL_BYTES_MAX {
            let class = class_of(bytes);
            assert!(class < CLASSES && class_bytes(class) >= bytes, "{bytes}");
            assert!(class == 0 || class_bytes(class - 1) < bytes, "{bytes}");
        }
    }

    #[test]
    fn blocks_never_overlap_and_are_used_again() {
        let region = Region::reserve();
        let mut arena = Arena::new(&region);
        let sizes = [1, 16, 17, 100, 1024, 1025, 5000, SMALL_BYTES_MAX, SMALL_BYTES_MAX + 1, 300 << 10];
        for _ in 0..3 {
            let mut blocks = Vec::new();
            for i in 0..2000_usize {
                let bytes = sizes[i % sizes.len()];
                let block: Ref<()> = arena.allocate(bytes);
                // SAFETY: just allocated, this long.
                unsafe { arena.space.address(block).cast::<u8>().write_bytes(i as u8, bytes) };
                blocks.push((block, bytes, i as u8));
            }
            for (block, bytes, fill) in blocks {
                // SAFETY: allocated and written above.
                let content = unsafe { std::slice::from_raw_parts(arena.space.address(block).cast::<u8>(), bytes) };
                assert!(content.iter().all(|&b| b == fill));
                arena.free(block);
            }
            assert_eq!(arena.live_bytes(), 0);
        }
        let slabs = arena.slabs.len();
        assert!(slabs * SLAB_BYTES < 160 << 20, "memory is used again: {slabs} slabs");
    }
}
