//! The log on the real disk: how long a durable write takes that carries 1, 16 or 512 txns.
//! `cargo bench --bench log`
//!
//! The log machine, its driver and a ring of their own, in a directory below `target/`, as on a zab core. Beside it: the
//! same bytes through `write` and `fdatasync`, the floor that the disk sets for those who do it one by one.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use oxkeeper::io::clock;
use oxkeeper::io::disk::{Disk, DiskEvent};
use oxkeeper::io::log_driver::LogDriver;
use oxkeeper::io::mesh::{Inbox, Sleeper, channel};
use oxkeeper::io::ring::{Event, ForceSync, LogBuffer, Ring, RingSettings};
use oxkeeper::storage::log::{Input, Log, LogConfig, Output};
use oxkeeper::storage::log_file::EntryWriter;
use oxkeeper::types::zxid::Zxid;
use oxkeeper::wire::txn::{SetDataTxn, Txn, TxnHeader, encode};
use tempfile::TempDir;

const TXNS_PER_WRITE: [u64; 3] = [1, 16, 512];
const DATA: [u8; 100] = [7; 100];
/// How long the driver sleeps while the helper prepares files.
const NAP: Duration = Duration::from_millis(1);

fn directory() -> TempDir {
    tempfile::tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/target")).expect("a directory below target/")
}

/// The part of a zab core that writes.
struct Bench {
    log: Log<LogBuffer>,
    driver: LogDriver,
    ring: Ring,
    disk_events: Inbox<DiskEvent>,
    out: Vec<Output<LogBuffer>>,
    events: Vec<Event>,
    entry: Vec<u8>,
    _directory: TempDir,
}

impl Bench {
    fn new() -> Bench {
        let directory = directory();
        let sleeper = Sleeper::new().expect("an eventfd");
        let (reports, disk_events) = channel(64, &sleeper.doorbell());
        let disk = Disk::start(reports).expect("a thread");
        let settings = RingSettings { log_buffers: 1, log_buffer_bytes: 1 << 20, ..RingSettings::default() };
        let mut ring = Ring::with_waker(settings, sleeper.waker()).expect("a kernel with io_uring");
        let warn_after = Duration::from_secs(60);
        let driver = LogDriver::new(directory.path().to_owned(), ForceSync::Yes, warn_after, disk);
        let buffer = ring.log_buffer(1 << 20).expect("memory");
        let mut out = Vec::new();
        let log = Log::new(LogConfig::default(), Zxid::ZERO, vec![buffer], &mut out);
        let (events, entry) = (Vec::new(), Vec::new());
        let mut bench = Bench { log, driver, ring, disk_events, out, events, entry, _directory: directory };
        bench.carry_out();
        // The first write waits for the file.
        bench.commit(1);
        bench
    }

    fn carry_out(&mut self) {
        while !self.out.is_empty() {
            for output in std::mem::take(&mut self.out) {
                if let Output::Fatal { what } = &output {
                    panic!("{what}");
                }
                self.driver.carry_out(&mut self.ring, output).expect("the helper keeps up");
            }
        }
    }

    fn step(&mut self, input: Input<LogBuffer>) {
        self.log.step(clock::now(), input, &mut self.out);
        self.carry_out();
    }

    /// Appends so many txns and waits until they are durable.
    fn commit(&mut self, txns: u64) {
        for _ in 0..txns {
            let zxid = self.log.appended().next();
            let header = TxnHeader { zxid, ..TxnHeader::default() };
            let set = SetDataTxn { path: "/znode".into(), data: Some(DATA.as_slice().into()), version: 1 };
            self.entry.clear();
            let appended = EntryWriter::default()
                .append(&mut self.entry, |payload| encode(&header, &Txn::SetData(set), None, payload));
            appended.expect("a short txn");
            self.log.append(zxid, &self.entry, &mut self.out);
        }
        self.step(Input::Submit);
        while self.log.flushed() < self.log.appended() {
            self.ring.wait(Some(clock::now() + NAP));
            self.turn();
        }
    }

    fn turn(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        self.ring.drain(&mut events);
        for event in events.drain(..) {
            if let Event::Written { token, buffer, result } = event
                && let Some(input) = self.driver.on_written(token, buffer, result)
            {
                self.step(input);
            }
        }
        self.events = events;
        while let Some(event) = self.disk_events.pop() {
            if let Some(input) = self.driver.on_disk(&mut self.ring, event) {
                self.step(input);
            }
        }
    }
}

fn group_commit(c: &mut Criterion) {
    let mut bench = Bench::new();
    let mut group = c.benchmark_group("durable write");
    group.sample_size(20);
    for txns in TXNS_PER_WRITE {
        group.throughput(Throughput::Elements(txns));
        group.bench_function(BenchmarkId::new("txns in it", txns), |b| b.iter(|| bench.commit(txns)));
    }
    group.finish();
}

fn floor(c: &mut Criterion) {
    let directory = directory();
    let mut file = File::create(directory.path().join("file")).expect("a file");
    let mut group = c.benchmark_group("fdatasync");
    group.sample_size(20);
    file.write_all(&vec![0; 64 << 20]).and_then(|()| file.sync_all()).expect("space");
    file.rewind().expect("a file");
    let mut at = 0;
    group.bench_function("4096 bytes in place", |b| {
        b.iter(|| {
            file.write_all_at(&[1; 4096], at).and_then(|()| file.sync_data()).expect("a disk");
            at = (at + 4096) % (64 << 20);
        })
    });
    group.finish();
}

criterion_group!(benches, group_commit, floor);
criterion_main!(benches);
