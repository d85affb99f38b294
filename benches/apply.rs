//! Request → txn → change: `Tree::process` for each kind of write, in small and in large trees.
//! `cargo bench --bench apply`, or with a filter: `-- /1000$`.
//!
//! Each operation is published and what it left behind reclaimed, as a server without readers would.

use std::env;

use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use oxkeeper::tree::access::AccessSettings;
use oxkeeper::tree::effects::Effects;
use oxkeeper::tree::prepare::RequestContext;
use oxkeeper::tree::{Tree, TreeSettings};
use oxkeeper::types::ids::SessionId;
use oxkeeper::types::limits;
use oxkeeper::types::time::WallTime;
use oxkeeper::wire::client::{AclEntry, Create, OpCode, WriteRequest};
use oxkeeper::wire::txn::TxnHeader;

const DATA: [u8; 100] = [7; 100];
/// Znodes below one parent.
const CHILDREN: usize = 1000;

/// `cargo test` runs each once, and needs no million znodes.
fn sizes() -> &'static [usize] {
    if env::args().any(|arg| arg == "--bench") { &[1_000, 1_000_000] } else { &[1_000] }
}

fn sets<'a>(paths: &'a [String], arena: &'a Bump) -> WriteRequest<'a> {
    WriteRequest::Multi(ArenaVec::from_iter_in(paths.iter().map(|path| set(path)), arena))
}

struct Bench {
    tree: Tree,
    effects: Effects,
    payload: Vec<u8>,
    paths: Vec<String>,
    next: usize,
}

fn create(path: &str) -> WriteRequest<'_> {
    let open = AclEntry { perms: 31, scheme: Some("world".into()), id: Some("anyone".into()) };
    WriteRequest::Create(Create {
        op: OpCode::Create,
        path: Some(path.into()),
        data: Some(&DATA),
        acl: Some(vec![open]),
        flags: 0,
        ttl: -1,
    })
}

fn set(path: &str) -> WriteRequest<'_> {
    WriteRequest::SetData { path: Some(path.into()), data: Some(&DATA), version: -1 }
}

impl Bench {
    fn new(znodes: usize) -> Bench {
        let settings = TreeSettings {
            extended_types: false,
            digest_enabled: true,
            close_session_txn: true,
            enforce_quota: false,
            reconfig_enabled: false,
            access: AccessSettings::default(),
        };
        let paths: Vec<String> = (0..znodes).map(|n| format!("/parent-{}/znode-{n:010}", n / CHILDREN)).collect();
        let tree = Tree::fresh(settings);
        let mut bench = Bench { tree, effects: Effects::default(), payload: Vec::new(), paths, next: 0 };
        for parent in 0..znodes.div_ceil(CHILDREN) {
            process(&mut bench.tree, &mut bench.effects, &mut bench.payload, &create(&format!("/parent-{parent}")));
        }
        for path in &bench.paths {
            process(&mut bench.tree, &mut bench.effects, &mut bench.payload, &create(path));
        }
        bench
    }

    /// One write, made of the next few paths in an order that no cache likes.
    fn step<'a>(&'a mut self, count: usize, request: impl FnOnce(&'a [String]) -> WriteRequest<'a>) {
        // 7919 is prime to every number of groups here, so that all are visited.
        self.next = (self.next + 7919) % (self.paths.len() / count);
        let start = self.next * count;
        let Bench { tree, effects, payload, paths, .. } = self;
        process(tree, effects, payload, &request(&paths[start..start + count]));
    }
}

fn process(tree: &mut Tree, effects: &mut Effects, payload: &mut Vec<u8>, request: &WriteRequest<'_>) {
    let zxid = tree.head().next();
    let header = TxnHeader { session: SessionId(1), cxid: 1, zxid, time: WallTime(1_700_000_000_000) };
    let context = RequestContext { header, auth: &[], session_error: None, arena: &Bump::new() };
    payload.clear();
    effects.block.changes.clear();
    effects.block.bytes.clear();
    tree.process(&context, request, payload, effects);
    assert!(!effects.is_refused, "{:?}", effects.outcomes);
    tree.publish(zxid);
    tree.reclaim(limits::RECLAIMED_PER_TURN);
}

fn process_each(c: &mut Criterion) {
    for &znodes in sizes() {
        let mut bench = Bench::new(znodes);
        let mut group = c.benchmark_group("process");
        let id = |name: &str| BenchmarkId::new(name.to_owned(), znodes);
        group.bench_function(id("setData"), |b| b.iter(|| bench.step(1, |paths| set(&paths[0]))));
        group.bench_function(id("multi of 10 sets"), |b| {
            b.iter(|| {
                let arena = Bump::new();
                bench.step(10, |paths| sets(paths, &arena))
            })
        });
        group.bench_function(id("delete and create"), |b| {
            b.iter(|| {
                bench.step(1, |paths| WriteRequest::Delete { path: paths[0].as_str().into(), version: -1 });
                let again = bench.paths[bench.next].clone();
                process(&mut bench.tree, &mut bench.effects, &mut bench.payload, &create(&again));
            })
        });
        group.bench_function(id("a refused create"), |b| {
            b.iter(|| {
                let zxid = bench.tree.head().next();
                let header = TxnHeader { session: SessionId(1), cxid: 1, zxid, time: WallTime(0) };
                let context = RequestContext { header, auth: &[], session_error: None, arena: &Bump::new() };
                bench.payload.clear();
                bench.tree.process(&context, &create(&bench.paths[0]), &mut bench.payload, &mut bench.effects);
                assert!(bench.effects.is_refused);
                bench.tree.publish(zxid);
            })
        });
        group.finish();
    }
}

criterion_group!(benches, process_each);
criterion_main!(benches);
