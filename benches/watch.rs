//! Watches: registration, firing, closing, and how much memory one takes.
//! `cargo bench --bench watch`

use std::hint::black_box;
use std::process::Command;
use std::{env, fs};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group};
use oxkeeper::shard::watch::{Fired, WatchKind, WatchTable};
use oxkeeper::tree::publication::ChangeKind;
use oxkeeper::types::ids::ConnectionId;

const SEED: [u64; 4] = [1, 2, 3, 4];

fn table() -> WatchTable {
    WatchTable::new(SEED)
}

/// Paths of some 40 bytes, as service discovery and locks have them.
fn paths(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("/services/region-{}/instances/{n:010}", n % 7)).collect()
}

/// `connections` connections with a data watch on each path.
fn watched(paths: &[String], connections: u64) -> WatchTable {
    let mut table = table();
    for path in paths {
        for connection in 0..connections {
            table.add(WatchKind::Data, path, ConnectionId(connection)).expect("there is room");
        }
    }
    table
}

fn registration(c: &mut Criterion) {
    let mut group = c.benchmark_group("register");
    for (name, path_count, connections) in
        [("10000 paths, 1 connection", 10_000, 1), ("1 path, 10000 connections", 1, 10_000), ("100 x 100", 100, 100)]
    {
        let paths = paths(path_count);
        group.throughput(Throughput::Elements(path_count as u64 * connections));
        group.bench_function(name, |b| b.iter_with_large_drop(|| watched(&paths, connections)));
    }
    group.finish();
}

fn fire(c: &mut Criterion) {
    let paths = paths(100_000);
    let mut fired = Fired::default();
    let mut group = c.benchmark_group("fire");
    let mut fire = |name: &str, table: &mut WatchTable, change, path: &str| {
        group.bench_function(name, |b| {
            b.iter(|| {
                fired.clear();
                table.fire(change, black_box(path), &mut fired);
                black_box(&fired).is_empty()
            })
        });
    };
    let path = "/services/region-3/leader";
    fire("nothing is watched", &mut table(), ChangeKind::Created, path);
    let mut others = watched(&paths, 1);
    fire("data change, 100000 other paths are", &mut others, ChangeKind::DataChanged, path);
    others.add(WatchKind::Child, "/elsewhere", ConnectionId(1)).expect("there is room");
    fire("create, 100000 other paths are", &mut others, ChangeKind::Created, path);
    others.add(WatchKind::PersistentRecursive, "/elsewhere", ConnectionId(1)).expect("there is room");
    fire("create, and one recursively", &mut others, ChangeKind::Created, path);
    others.add(WatchKind::PersistentRecursive, "/services", ConnectionId(1)).expect("there is room");
    fire("create, seen by one recursive watch", &mut others, ChangeKind::Created, path);
    let mut persistent = table();
    for connection in 0..10_000 {
        persistent.add(WatchKind::Persistent, path, ConnectionId(connection)).expect("there is room");
    }
    fire("data change, 10000 persistent watches", &mut persistent, ChangeKind::DataChanged, path);
    group.finish();
}

fn one_shot(c: &mut Criterion) {
    let mut group = c.benchmark_group("register, fire");
    let path = "/services/region-3/leader";
    for connections in [1_u64, 10, 100, 10_000] {
        group.throughput(Throughput::Elements(connections));
        group.bench_function(BenchmarkId::from_parameter(connections), |b| {
            let (mut table, mut fired) = (table(), Fired::default());
            b.iter(|| {
                for connection in 0..connections {
                    table.add(WatchKind::Data, path, ConnectionId(connection)).expect("there is room");
                }
                fired.clear();
                table.fire(ChangeKind::DataChanged, path, &mut fired);
                assert_eq!(fired.steps().map(|step| step.connections.len()).sum::<usize>(), connections as usize);
            })
        });
    }
    group.finish();
}

fn close(c: &mut Criterion) {
    let mut group = c.benchmark_group("close");
    let paths = paths(1000);
    for (name, path_count, connections) in [
        ("1000 paths of its own", 1000, 1),
        ("1 of 10000 on one path", 1, 10_000),
        ("100 paths, 100 others on each", 100, 100),
    ] {
        group.bench_function(name, |b| {
            let setup = || watched(&paths[..path_count], connections);
            let close = |mut table: WatchTable| {
                table.close(ConnectionId(connections / 2));
                table
            };
            b.iter_batched(setup, close, BatchSize::LargeInput)
        });
    }
    group.finish();
}

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// What an argument to this program means: measure the memory of so many paths, each watched by so many connections.
const MEASURE: &str = "--bytes-per-watch";

/// Prints what a watch takes of resident memory, its share of paths and connections included. 0 connections: each path
/// has one of its own.
fn print_bytes_per_watch(path_count: usize, connections: u64) {
    let paths = paths(path_count);
    let before = resident();
    let mut watched = watched(&paths, connections);
    if connections == 0 {
        for (n, path) in paths.iter().enumerate() {
            watched.add(WatchKind::Data, path, ConnectionId(n as u64)).expect("there is room");
        }
    }
    let bytes = resident().saturating_sub(before) as f64 / watched.counts().total() as f64;
    match connections {
        0 => println!("{path_count} paths, each with a connection of its own: {bytes:.1} bytes per watch"),
        _ => println!("{path_count} paths x {connections} connections: {bytes:.1} bytes per watch"),
    }
    black_box(watched);
}

/// A million watches in several shapes, each in a process of its own: an allocator keeps what it once had.
fn measure_memory() {
    let this = env::current_exe().expect("a running program has a path");
    for (paths, connections) in
        [(1_000_000, 1), (1_000_000, 0), (100_000, 10), (10_000, 100), (1000, 1000), (100, 10_000), (1, 1_000_000)]
    {
        let args = [MEASURE.to_owned(), paths.to_string(), connections.to_string()];
        let status = Command::new(&this).args(args).status().expect("it runs again");
        assert!(status.success());
    }
}

criterion_group!(benches, registration, fire, one_shot, close);

fn main() {
    let args: Vec<String> = env::args().collect();
    if let [_, what, paths, connections] = args.as_slice()
        && what == MEASURE
    {
        let count = |text: &String| text.parse().expect("a number");
        return print_bytes_per_watch(count(paths) as usize, count(connections));
    }
    // `cargo test` runs every benchmark once, and needs no million watches.
    if args.iter().any(|arg| arg == "--bench") {
        measure_memory();
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
