//! The versioned store beside a plain hash map of the same znodes (one owner, no versions): look-up, update,
//! create + delete, one at a time and in staged batches of 16, listing, loading, and resident bytes per znode.
//!
//! `cargo bench --bench tree`, or with a filter: `-- 1000000`. Figures are thread CPU time, because machines are shared;
//! the table at the end gives the ratio to the hash map in the same run.

use std::collections::HashSet;
use std::hint::black_box;
use std::sync::Mutex;
use std::time::Duration;

use criterion::Criterion;
use oxkeeper::tree::store::{DataChange, Reader, Writer};
use oxkeeper::types::acl::AclList;
use oxkeeper::types::path;
use oxkeeper::types::stat::StatPersisted;
use oxkeeper::types::time::WallTime;
use oxkeeper::types::zxid::Zxid;

const BATCH: usize = 16;
const DATA: [u8; 100] = [7; 100];
/// Paths in the order of use; long enough that the cache does not learn it.
const SEQUENCE: usize = 1 << 20;

/// `/dddd/nnnnnnnn`
type Key = [u8; 14];

fn text(key: &Key) -> &str {
    std::str::from_utf8(key).expect("digits and slashes")
}

fn directories(znodes: usize) -> usize {
    (znodes / 1000).max(10)
}

fn key(i: usize, znodes: usize) -> Key {
    let text = format!("/{:04}/{:08}", i % directories(znodes), i);
    text.as_bytes().try_into().expect("14 bytes")
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 32) as usize * end) >> 32
    }
}

fn sequence(znodes: usize) -> Vec<Key> {
    let mut dice = Dice(5);
    (0..SEQUENCE.min(znodes * 8)).map(|_| key(dice.below(znodes), znodes)).collect()
}

fn cpu_time() -> Duration {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every Linux has it");
    Duration::from(now)
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// Best time of each case, ns per operation, for the table at the end.
static BEST: Mutex<Vec<(String, usize, f64)>> = Mutex::new(Vec::new());

fn note(case: &str, znodes: usize, ns: f64) {
    let mut best = BEST.lock().expect("no case panicked");
    match best.iter_mut().find(|at| at.0 == case && at.1 == znodes) {
        Some(at) => at.2 = at.2.min(ns),
        None => best.push((case.to_owned(), znodes, ns)),
    }
}

/// `work(n)` does at least `n` operations and returns how many.
fn case(c: &mut Criterion, name: &str, znodes: usize, mut work: impl FnMut(u64) -> u64) {
    c.bench_function(&format!("{name}/{znodes}"), |b| {
        b.iter_custom(|count| {
            let start = cpu_time();
            let done = work(count);
            let each = (cpu_time() - start).as_nanos() as f64 / done as f64;
            if count >= 256 {
                note(name, znodes, each);
            }
            Duration::from_nanos((each * count as f64) as u64)
        });
    });
}

struct MapNode {
    data: Box<[u8]>,
    stat: StatPersisted,
    // Boxed, so that the many znodes without children are small, as in the store beside it.
    #[allow(clippy::box_collection)]
    children: Option<Box<HashSet<Box<str>, ahash::RandomState>>>,
}

type Map = std::collections::HashMap<Box<str>, MapNode, ahash::RandomState>;

fn map_create(map: &mut Map, path: &str) {
    let stat = StatPersisted::default();
    map.insert(path.into(), MapNode { data: DATA.into(), stat, children: None });
    if let Some((parent, name)) = path::split(path)
        && let Some(parent) = map.get_mut(parent)
    {
        parent.children.get_or_insert_default().insert(name.into());
        parent.stat.cversion += 1;
    }
}

fn map_delete(map: &mut Map, path: &str) {
    map.remove(path);
    if let Some((parent, name)) = path::split(path)
        && let Some(children) = map.get_mut(parent).and_then(|parent| parent.children.as_mut())
    {
        children.remove(name);
    }
}

fn build_map(znodes: usize) -> Map {
    let mut map = Map::default();
    map.insert("/".into(), MapNode { data: [].into(), stat: StatPersisted::default(), children: None });
    (0..directories(znodes)).for_each(|i| map_create(&mut map, &format!("/{i:04}")));
    (0..znodes).for_each(|i| map_create(&mut map, text(&key(i, znodes))));
    map
}

/// A writer, and a reader that adopts whatever is published.
struct Store {
    writer: Writer,
    reader: Reader,
    version: u64,
}

impl Store {
    fn build(znodes: usize) -> Store {
        let mut writer = Writer::with_seed(1);
        let reader = writer.reader().expect("a slot");
        writer.begin(1);
        let mut store = Store { writer, reader, version: 1 };
        (0..directories(znodes)).for_each(|i| store.create(&format!("/{i:04}")));
        (0..znodes).for_each(|i| store.create(text(&key(i, znodes))));
        store.publish();
        while store.writer.reclaim(1 << 20) > 0 {}
        store
    }

    fn begin(&mut self) {
        self.version += 1;
        self.writer.begin(self.version);
    }

    fn publish(&mut self) {
        self.writer.publish(self.version);
        self.reader.adopt_latest();
    }

    fn create(&mut self, path: &str) {
        let zxid = Zxid(self.version);
        let stat = StatPersisted { czxid: zxid, mzxid: zxid, pzxid: zxid, ..Default::default() };
        self.writer.create(path, Some(&DATA), &AclList::Open, &stat, None).expect("it is new");
        let parent = path::split(path).expect("not the root").0;
        let cversion = self.writer.get(parent).expect("it is there").cversion() + 1;
        self.writer.set_directory(parent, zxid, cversion).expect("it is there");
    }

    fn delete(&mut self, path: &str) {
        self.writer.delete(path).expect("it is there");
        let parent = path::split(path).expect("not the root").0;
        let cversion = self.writer.get(parent).expect("it is there").cversion();
        self.writer.set_directory(parent, Zxid(self.version), cversion).expect("it is there");
    }

    fn set_data(&mut self, path: &str) {
        let change = DataChange { mzxid: Zxid(self.version), mtime: WallTime(1), version: 1 };
        self.writer.set_data(path, Some(&DATA), change).expect("it is there");
    }
}

/// Groups of paths without end.
fn groups(keys: &[Key]) -> impl Iterator<Item = &[Key]> {
    std::iter::repeat_with(|| keys.chunks_exact(BATCH)).flatten()
}

fn texts(group: &[Key]) -> [&str; BATCH] {
    std::array::from_fn(|i| text(&group[i]))
}

fn look_up(c: &mut Criterion, znodes: usize, map: &Map, store: &Store) {
    let keys = sequence(znodes);
    let mut order = keys.iter().cycle();
    case(c, "look-up/map", znodes, |count| {
        for key in order.by_ref().take(count as usize) {
            black_box(map.get(text(key)).map(|node| (node.stat.mzxid, node.data[0])));
        }
        count
    });
    let mut order = keys.iter().cycle();
    case(c, "look-up/store", znodes, |count| {
        for key in order.by_ref().take(count as usize) {
            black_box(store.reader.get(text(key)).map(|node| (node.stat().mzxid, node.data().map(|data| data[0]))));
        }
        count
    });
    let (mut order, mut nodes) = (groups(&keys), Vec::new());
    case(c, "look-up/staged", znodes, |count| {
        let rounds = count.div_ceil(BATCH as u64);
        for group in order.by_ref().take(rounds as usize) {
            nodes.clear();
            store.reader.get_many(&texts(group), &mut nodes);
            for node in nodes.iter().flatten() {
                black_box((node.stat().mzxid, node.data().map(|data| data[0])));
            }
        }
        rounds * BATCH as u64
    });
}

fn update(c: &mut Criterion, znodes: usize, map: &mut Map, store: &mut Store) {
    let keys = sequence(znodes);
    let mut order = keys.iter().cycle();
    case(c, "update/map", znodes, |count| {
        for key in order.by_ref().take(count as usize) {
            let node = map.get_mut(text(key)).expect("it is there");
            (node.data, node.stat.version) = (Box::from(black_box(DATA)), node.stat.version + 1);
        }
        count
    });
    let mut order = keys.iter().cycle();
    case(c, "update/store", znodes, |count| {
        for key in order.by_ref().take(count as usize) {
            store.begin();
            store.set_data(text(key));
            store.publish();
            store.writer.reclaim(4);
        }
        count
    });
    let mut order = groups(&keys);
    case(c, "update/staged", znodes, |count| {
        let rounds = count.div_ceil(BATCH as u64);
        for group in order.by_ref().take(rounds as usize) {
            let paths = texts(group);
            store.writer.warm(&paths);
            for path in paths {
                store.begin();
                store.set_data(path);
            }
            store.publish();
            store.writer.reclaim(4 * BATCH);
        }
        rounds * BATCH as u64
    });
}

/// Which of `keys` are there at the moment: the first `live`.
struct Population {
    keys: Vec<Key>,
    live: usize,
    dice: Dice,
}

impl Population {
    fn new(znodes: usize) -> Population {
        let keys = (0..znodes + znodes / 8).map(|i| key(i, znodes)).collect();
        Population { keys, live: znodes, dice: Dice(9) }
    }

    /// One to create and one to delete.
    fn pair(&mut self) -> (Key, Key) {
        let born = self.live + self.dice.below(self.keys.len() - self.live);
        let dead = self.dice.below(self.live);
        self.keys.swap(born, dead);
        (self.keys[dead], self.keys[born])
    }
}

fn create_delete(c: &mut Criterion, znodes: usize, map: &mut Map, store: &mut Store) {
    let mut population = Population::new(znodes);
    case(c, "create+delete/map", znodes, |count| {
        for _ in 0..count.div_ceil(2) {
            let (born, dead) = population.pair();
            map_create(map, text(&born));
            map_delete(map, text(&dead));
        }
        count.div_ceil(2) * 2
    });
    let mut population = Population::new(znodes);
    case(c, "create+delete/store", znodes, |count| {
        for _ in 0..count.div_ceil(2) {
            let (born, dead) = population.pair();
            store.begin();
            store.create(text(&born));
            store.begin();
            store.delete(text(&dead));
            store.publish();
            store.writer.reclaim(16);
        }
        count.div_ceil(2) * 2
    });
    case(c, "create+delete/staged", znodes, |count| {
        let rounds = count.div_ceil(BATCH as u64);
        for _ in 0..rounds {
            let pairs: [_; BATCH / 2] = std::array::from_fn(|_| population.pair());
            let paths: [&str; BATCH] =
                std::array::from_fn(|i| if i % 2 == 0 { text(&pairs[i / 2].0) } else { text(&pairs[i / 2].1) });
            store.writer.warm(&paths);
            for (i, path) in paths.iter().enumerate() {
                store.begin();
                if i % 2 == 0 { store.create(path) } else { store.delete(path) }
            }
            store.publish();
            store.writer.reclaim(8 * BATCH);
        }
        rounds * BATCH as u64
    });
}

fn list(c: &mut Criterion, znodes: usize, map: &Map, store: &Store) {
    let paths: Vec<String> = (0..directories(znodes)).map(|i| format!("/{i:04}")).collect();
    let mut order = paths.iter().cycle();
    case(c, "list/map", znodes, |count| {
        for path in order.by_ref().take(count as usize) {
            let children = map.get(path.as_str()).and_then(|node| node.children.as_ref()).expect("it has children");
            black_box(children.iter().map(|name| name.len()).sum::<usize>());
        }
        count
    });
    let mut order = paths.iter().cycle();
    case(c, "list/store", znodes, |count| {
        for path in order.by_ref().take(count as usize) {
            black_box(store.reader.list(path).expect("it is there").map(str::len).sum::<usize>());
        }
        count
    });
}

fn all(c: &mut Criterion, znodes: usize) {
    let (start, before) = (cpu_time(), resident_bytes());
    let mut store = Store::build(znodes);
    let (took, bytes) = (cpu_time() - start, resident_bytes().saturating_sub(before));
    let each = |total: f64| total / znodes as f64;
    let live = each(store.writer.live_bytes() as f64);
    println!(
        "{znodes} store: built in {took:.0?} ({:.0} ns per znode), {:.0} resident bytes per znode, {live:.0} in use",
        each(took.as_nanos() as f64),
        each(bytes as f64)
    );
    let (start, before) = (cpu_time(), resident_bytes());
    let mut map = build_map(znodes);
    let (took, bytes) = (cpu_time() - start, resident_bytes().saturating_sub(before));
    println!(
        "{znodes} map: built in {took:.0?} ({:.0} ns per znode), {:.0} resident bytes per znode",
        each(took.as_nanos() as f64),
        each(bytes as f64)
    );
    look_up(c, znodes, &map, &store);
    update(c, znodes, &mut map, &mut store);
    list(c, znodes, &map, &store);
    create_delete(c, znodes, &mut map, &mut store);
}

fn table() {
    let best = BEST.lock().expect("no case panicked");
    println!("\n{:<24}{:>9}{:>12}{:>8}", "case", "znodes", "ns", "of map");
    for (case, znodes, ns) in best.iter() {
        let group = case.split('/').next().unwrap_or_default();
        let map = best.iter().find(|at| at.0 == format!("{group}/map") && at.1 == *znodes).map_or(f64::NAN, |at| at.2);
        println!("{case:<24}{znodes:>9}{ns:>12.0}{:>7.2}x", ns / map);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let is_test = arguments.iter().any(|argument| argument == "--test");
    let mut c = Criterion::default()
        .configure_from_args()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    for znodes in [1_000, 10_000, 100_000, 1_000_000] {
        let wanted = arguments.iter().skip(1).all(|a| a.parse::<usize>().map_or(true, |only| only == znodes));
        if wanted && (!is_test || znodes == 1_000) {
            all(&mut c, znodes);
        }
    }
    table();
    c.final_summary();
}
