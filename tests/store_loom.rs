//! Publication, adopting and grace periods under every interleaving: `tree::store::pins`, driven by loom.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test --release --test store_loom` (in a target directory of its own, or
//! everything is built again afterwards). Without `--cfg loom` this file is empty. Interleavings with more than three
//! preemptions (two, with three threads that claim a slot) are left out; `LOOM_MAX_PREEMPTIONS` overrides.
//!
//! The model is one znode whose chain holds two records. The writer replaces the older one and frees it as
//! `tree::store::reclaim` does; loom's `UnsafeCell` fails the run when a record is freed while a reader may be in it.
#![cfg(loom)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;
use oxkeeper::tree::store::pins::Pins;
use std::sync::atomic::Ordering::{Acquire, Release};

const NONE: usize = usize::MAX;
const FREED: u64 = 0xdead;

struct Record {
    version: u64,
    older: AtomicUsize,
    /// The version again, or `FREED`.
    value: UnsafeCell<u64>,
}

struct Store {
    pins: Pins,
    head: AtomicUsize,
    records: [Record; 2],
}

// SAFETY: this is what the model is about; loom checks every access to the cells.
unsafe impl Sync for Store {}
// SAFETY: as above.
unsafe impl Send for Store {}

impl Store {
    fn new(readers: usize) -> Store {
        let record = |version| Record { version, older: AtomicUsize::new(NONE), value: UnsafeCell::new(version) };
        Store { pins: Pins::new(1, readers), head: AtomicUsize::new(0), records: [record(1), record(2)] }
    }

    /// As `record::visible`.
    fn read(&self, version: u64) {
        let mut at = self.head.load(Acquire);
        while at != NONE && self.records[at].version > version {
            at = self.records[at].older.load(Acquire);
        }
        assert_ne!(at, NONE, "nothing is visible at {version}");
        // SAFETY: read only while no one writes, which loom verifies.
        let value = self.records[at].value.with(|value| unsafe { *value });
        assert_eq!(value, if version >= 2 { 2 } else { 1 });
    }

    /// Version 2 replaces the record of version 1.
    fn write(&self) {
        self.records[1].older.store(0, Release);
        self.head.store(1, Release);
        self.pins.publish(2);
    }

    /// Two rounds of `Writer::reclaim`: unlink what no version needs, then free it after the grace period.
    fn reclaim(&self) {
        let mut held = Vec::new();
        if self.pins.in_use(&mut held).floor < 2 || held.contains(&1) {
            return;
        }
        self.records[1].older.store(NONE, Release);
        self.pins.begin_epoch(2);
        if self.pins.in_use(&mut held).seen >= 2 {
            // SAFETY: written only while no one reads, which loom verifies.
            self.records[0].value.with_mut(|value| unsafe { *value = FREED });
        }
    }
}

fn check(preemptions: usize, of: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.check(of);
}

fn model(readers: usize, of_reader: fn(&Store, usize), before: fn(&Store, usize)) {
    check(3, move || {
        let store = Arc::new(Store::new(readers));
        let threads: Vec<_> = (0..readers)
            .map(|_| {
                let slot = store.pins.claim().expect("a slot for each");
                before(&store, slot);
                let store = store.clone();
                thread::spawn(move || of_reader(&store, slot))
            })
            .collect();
        store.write();
        store.reclaim();
        for thread in threads {
            thread.join().expect("no reader failed");
        }
    });
}

#[test]
fn a_reader_that_walks_sees_each_version_whole() {
    fn walk(store: &Store, slot: usize) {
        store.read(1);
        // Twice: once for the record to be unlinked, once more for its grace period to end.
        for _ in 0..2 {
            let version = store.pins.published();
            store.pins.adopt(slot, version);
            store.read(version);
        }
        store.pins.offline(slot);
    }
    model(1, walk, |store, slot| assert_eq!(store.pins.online(slot), 1));
}

#[test]
fn a_reader_that_comes_online_is_seen_or_sees() {
    fn come_and_go(store: &Store, slot: usize) {
        let version = store.pins.online(slot);
        store.read(version);
        store.pins.offline(slot);
    }
    model(1, come_and_go, |_, _| {});
}

#[test]
fn a_held_version_stays_through_grace_periods() {
    fn hold(store: &Store, slot: usize) {
        store.pins.hold(slot, 1);
        store.read(1);
        store.pins.refresh(slot);
        store.read(1);
        let version = store.pins.online(slot);
        store.read(version);
    }
    model(1, hold, |store, slot| assert_eq!(store.pins.online(slot), 1));
}

#[test]
fn a_reader_that_slept_and_one_that_walks_do_not_disturb_each_other() {
    fn once(store: &Store, slot: usize) {
        if slot == 0 {
            let version = store.pins.online(slot);
            store.read(version);
        } else {
            let version = store.pins.published();
            store.pins.adopt(slot, version);
            store.read(version);
        }
    }
    fn before(store: &Store, slot: usize) {
        if slot == 1 {
            assert_eq!(store.pins.online(slot), 1);
        }
    }
    model(2, once, before);
}

#[test]
fn a_slot_is_given_to_one_reader_at_a_time() {
    check(2, || {
        let store = Arc::new(Store::new(1));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let store = store.clone();
                thread::spawn(move || {
                    if let Some(slot) = store.pins.claim() {
                        let version = store.pins.online(slot);
                        store.read(version);
                        store.pins.release(slot);
                    }
                })
            })
            .collect();
        store.write();
        store.reclaim();
        for thread in threads {
            thread.join().expect("no reader failed");
        }
    });
}
