//! The versioned store against a copy of a `BTreeMap` per version: random changes, rollbacks, readers pinned at
//! different versions, reclaiming with tiny budgets at any time. Freed blocks are poisoned in debug builds.
//!
//! A failing run prints its seed; `STORE_SEED=<seed> cargo test --test store_model` runs it alone.
#![cfg(not(loom))]

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use oxkeeper::tree::store::{CONTAINERS, DataChange, Node, Reader, StoreError, TTL_NODES, Walk, Writer};
use oxkeeper::types::acl::{Acl, AclList};
use oxkeeper::types::path;
use oxkeeper::types::stat::StatPersisted;
use oxkeeper::types::time::WallTime;
use oxkeeper::types::zxid::Zxid;

/// A small generator of our own, so that a seed means the same run for ever.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

#[derive(Clone, PartialEq, Debug)]
struct ModelNode {
    data: Option<Rc<[u8]>>,
    acl: AclList,
    stat: StatPersisted,
    owner_key: Option<i64>,
}

#[derive(Clone, Default)]
struct Model {
    nodes: BTreeMap<String, ModelNode>,
    sessions: BTreeMap<i64, i32>,
}

impl Model {
    fn children(&self, parent: &str) -> BTreeSet<&str> {
        self.nodes.keys().filter_map(|path| path::split(path)).filter(|at| at.0 == parent).map(|at| at.1).collect()
    }

    fn owned(&self, key: i64) -> BTreeSet<&str> {
        self.nodes.iter().filter(|(_, node)| node.owner_key == Some(key)).map(|(path, _)| path.as_str()).collect()
    }
}

const KEYS: [i64; 6] = [1, 2, 0x0100_0000_0000_0007, -5, CONTAINERS, TTL_NODES];

fn data_of(dice: &mut Dice) -> Option<Vec<u8>> {
    let fill = dice.roll() as u8;
    match dice.below(20) {
        0 => None,
        1 => Some(Vec::new()),
        2 => Some(vec![fill; dice.between(16 << 10, 40 << 10) as usize]),
        3 => Some(vec![fill; dice.between(16_000, 16_500) as usize]),
        _ => Some(vec![fill; dice.below(200) as usize]),
    }
}

fn check_node(node: Option<Node<'_>>, path: &str, model: &Model) {
    let expected = model.nodes.get(path);
    let Some(node) = node else {
        assert!(expected.is_none(), "{path} is missing");
        return;
    };
    let Some(expected) = expected else { panic!("{path} should not be there") };
    assert_eq!(node.path(), path);
    assert_eq!(node.data(), expected.data.as_deref(), "data of {path}");
    assert_eq!(node.data_length(), expected.data.as_ref().map_or(0, |data| data.len()));
    assert_eq!(node.acl(), &expected.acl, "acl of {path}");
    assert_eq!(node.stat(), expected.stat, "stat of {path}");
    assert_eq!(node.owner_key(), expected.owner_key);
    assert_eq!(node.num_children() as usize, model.children(path).len(), "children of {path}");
    let mut crc = crc32fast::Hasher::new();
    crc.update(if path == "/" { b"" } else { path.as_bytes() });
    crc.update(expected.data.as_deref().unwrap_or_default());
    assert_eq!(node.prefix_crc(), crc.finalize(), "crc of {path}");
}

/// Lists by pages of random length, so that cursors are used.
fn pages<'a>(dice: &mut Dice, mut page: impl FnMut(u32, usize) -> (Vec<&'a str>, u32)) -> BTreeSet<&'a str> {
    let (mut all, mut cursor) = (BTreeSet::new(), 0);
    loop {
        let (names, next) = page(cursor, dice.between(1, 40) as usize);
        if names.is_empty() {
            return all;
        }
        for name in names {
            assert!(all.insert(name), "{name} twice");
        }
        cursor = next;
    }
}

fn check_reader(dice: &mut Dice, reader: &Reader, model: &Model, paths: &[String]) {
    for path in paths {
        if dice.chance(30) {
            check_node(reader.get(path), path, model);
        }
    }
    let some: Vec<&str> = paths.iter().filter(|_| dice.chance(30)).map(String::as_str).collect();
    let mut nodes = Vec::new();
    reader.get_many(&some, &mut nodes);
    for (path, node) in some.iter().zip(nodes) {
        check_node(node, path, model);
    }
    for path in model.nodes.keys() {
        let names = pages(dice, |cursor, limit| {
            let mut list = reader.list_from(path, cursor).expect("it is there");
            (list.by_ref().take(limit).collect(), list.cursor())
        });
        assert_eq!(names, model.children(path), "list of {path}");
    }
    for key in KEYS {
        let names = pages(dice, |cursor, limit| {
            let mut list = reader.owned_from(key, cursor);
            (list.by_ref().take(limit).collect(), list.cursor())
        });
        assert_eq!(names, model.owned(key), "owned by {key}");
        assert_eq!(reader.session(key), model.sessions.get(&key).copied());
    }
    assert_eq!(reader.sessions().collect::<BTreeMap<_, _>>(), model.sessions);
    let mut walk = reader.walk();
    check_walk(reader, &mut walk, &mut BTreeSet::new(), model, usize::MAX);
}

/// Goes on with a walk; at its end, nothing was left out.
fn check_walk(reader: &Reader, walk: &mut Walk, seen: &mut BTreeSet<String>, model: &Model, limit: usize) -> bool {
    for _ in 0..limit {
        let Some(node) = reader.walk_on(walk) else {
            assert!(seen.iter().eq(model.nodes.keys()), "the walk saw {} of {}", seen.len(), model.nodes.len());
            return true;
        };
        check_node(Some(node), node.path(), model);
        let parent = path::split(node.path()).map(|at| at.0);
        assert!(parent.is_none_or(|parent| seen.contains(parent)), "{} before its parent", node.path());
        assert!(seen.insert(node.path().to_owned()), "{} twice", node.path());
    }
    false
}

struct Watched {
    reader: Reader,
    holding: bool,
    walk: Option<(Walk, BTreeSet<String>)>,
}

/// The writer and its model.
struct Side {
    dice: Dice,
    writer: Writer,
    head: Model,
    /// At the end of each version begun.
    versions: BTreeMap<u64, Rc<Model>>,
    /// Models below this version are not needed.
    oldest: u64,
    paths: Vec<String>,
    acls: Vec<AclList>,
}

struct Run {
    side: Side,
    readers: Vec<Watched>,
}

fn universe() -> Vec<String> {
    let mut paths = vec!["/".to_owned()];
    for a in ["a", "b", "c", "dd"] {
        paths.push(format!("/{a}"));
        for b in ["x", "y", "zz"] {
            paths.push(format!("/{a}/{b}"));
            for c in ["1", "2"] {
                paths.push(format!("/{a}/{b}/{c}"));
            }
        }
    }
    paths.extend((0..60).map(|i| format!("/a/child-{i:010}")));
    paths.push(format!("/b/{}", "long".repeat(30)));
    paths
}

impl Side {
    fn new(seed: u64) -> Side {
        let writer = Writer::with_seed(seed);
        let mut head = Model::default();
        let root =
            ModelNode { data: Some(Rc::from([])), acl: AclList::Open, stat: StatPersisted::default(), owner_key: None };
        head.nodes.insert("/".to_owned(), root);
        let acls = (0..4).map(|i| AclList::from_vec(vec![Acl::new(i, "digest", &format!("user{i}"))]));
        let acls = std::iter::once(AclList::Open).chain(acls).collect();
        let versions = BTreeMap::from([(0, Rc::new(head.clone()))]);
        Side { dice: Dice(seed), writer, head, versions, oldest: 0, paths: universe(), acls }
    }

    fn model_at(&self, version: u64) -> Rc<Model> {
        self.versions.range(..=version).next_back().expect("kept as long as it is needed").1.clone()
    }

    fn acl(&mut self) -> AclList {
        match self.dice.below(10) {
            0 => AclList::from_vec(vec![Acl::new(self.dice.below(31) as i32, "ip", "10.0.0.1")]),
            _ => self.dice.pick(&self.acls).clone(),
        }
    }

    /// One change of the open version, here and in the model.
    fn change(&mut self) {
        let version = self.writer.head();
        let path = self.dice.pick(&self.paths).clone();
        let zxid = Zxid(version);
        match self.dice.below(100) {
            0..40 => self.create(&path, zxid),
            40..62 => self.delete(&path),
            62..80 => {
                let data = data_of(&mut self.dice);
                let change = DataChange { mzxid: zxid, mtime: WallTime(self.dice.roll() as i64), version: 7 };
                let result = self.writer.set_data(&path, data.as_deref(), change);
                let Some(node) = self.head.nodes.get_mut(&path) else {
                    assert_eq!(result, Err(StoreError::NoNode));
                    return;
                };
                node.data = data.map(Rc::from);
                (node.stat.mzxid, node.stat.mtime, node.stat.version) = (zxid, change.mtime, 7);
                assert_eq!(result, Ok(()));
            }
            80..86 => {
                let (acl, aversion) = (self.acl(), self.dice.roll() as i32);
                let result = self.writer.set_acl(&path, &acl, aversion);
                let Some(node) = self.head.nodes.get_mut(&path) else {
                    assert_eq!(result, Err(StoreError::NoNode));
                    return;
                };
                (node.acl, node.stat.aversion) = (acl, aversion);
                assert_eq!(result, Ok(()));
            }
            86..90 => self.set_directory(&path, zxid),
            90..96 => {
                let (key, timeout) = (*self.dice.pick(&KEYS), self.dice.roll() as i32);
                self.writer.set_session(key, timeout);
                self.head.sessions.insert(key, timeout);
            }
            _ => {
                let key = *self.dice.pick(&KEYS);
                let expected = self.head.sessions.remove(&key).map(|_| ()).ok_or(StoreError::NoSession);
                assert_eq!(self.writer.remove_session(key), expected);
            }
        }
    }

    fn create(&mut self, path: &str, zxid: Zxid) {
        let owner_key = self.dice.chance(30).then(|| *self.dice.pick(&KEYS));
        let restored = self.dice.chance(10);
        let stat = StatPersisted {
            czxid: zxid,
            mzxid: zxid,
            ctime: WallTime(self.dice.roll() as i64),
            mtime: WallTime(5),
            version: self.dice.below(3) as i32,
            cversion: if restored { 9 } else { 0 },
            aversion: self.dice.below(3) as i32,
            ephemeral_owner: owner_key.unwrap_or(0),
            pzxid: if restored { Zxid(3) } else { zxid },
        };
        let (data, acl) = (data_of(&mut self.dice), self.acl());
        let result = self.writer.create(path, data.as_deref(), &acl, &stat, owner_key);
        let expected = match path::split(path) {
            None => Err(StoreError::BadPath),
            Some(_) if self.head.nodes.contains_key(path) => Err(StoreError::NodeExists),
            Some((parent, _)) if !self.head.nodes.contains_key(parent) => Err(StoreError::NoParent),
            Some(_) => Ok(()),
        };
        assert_eq!(result, expected, "create {path}");
        if result.is_ok() {
            let node = ModelNode { data: data.map(Rc::from), acl, stat, owner_key };
            self.head.nodes.insert(path.to_owned(), node);
            if self.dice.chance(80) {
                self.set_directory(path::split(path).expect("it was created").0, zxid);
            }
        }
    }

    fn set_directory(&mut self, path: &str, pzxid: Zxid) {
        let result = self.writer.set_directory(path, pzxid, pzxid.0 as i32);
        let Some(node) = self.head.nodes.get_mut(path) else {
            assert_eq!(result, Err(StoreError::NoNode));
            return;
        };
        (node.stat.pzxid, node.stat.cversion) = (pzxid, pzxid.0 as i32);
        assert_eq!(result, Ok(()));
    }

    fn delete(&mut self, path: &str) {
        let result = self.writer.delete(path);
        if !self.head.nodes.contains_key(path) {
            assert_eq!(result, Err(StoreError::NoNode));
        } else if !self.head.children(path).is_empty() {
            assert_eq!(result, Err(StoreError::NotEmpty));
        } else if path == "/" {
            assert_eq!(result, Err(StoreError::BadPath));
        } else {
            assert_eq!(result, Ok(()));
            self.head.nodes.remove(path);
        }
    }

    fn version(&mut self) {
        let version = self.writer.head() + self.dice.between(1, 3);
        let before = self.head.clone();
        self.writer.begin(version);
        for _ in 0..self.dice.between(0, 6) {
            self.change();
        }
        if self.dice.chance(15) {
            self.writer.abandon();
            self.head = before;
        } else {
            self.versions.insert(version, Rc::new(self.head.clone()));
        }
    }

    fn roll_back(&mut self) {
        let target = self.dice.between(self.writer.published(), self.writer.head());
        self.writer.roll_back(target);
        self.versions.split_off(&(target + 1));
        self.head = (*self.model_at(target)).clone();
    }

    fn check_head(&mut self) {
        let (writer, model) = (&self.writer, &self.head);
        for path in &self.paths {
            check_node(writer.get(path), path, model);
            let names = writer.list(path, 0).map(|list| list.collect::<BTreeSet<_>>());
            assert_eq!(names, model.nodes.get(path).map(|_| model.children(path)));
        }
        for key in KEYS {
            assert_eq!(writer.owned(key, 0).collect::<BTreeSet<_>>(), model.owned(key));
            assert_eq!(writer.owned_count(key) as usize, model.owned(key).len());
            assert_eq!(writer.session(key), model.sessions.get(&key).copied());
        }
        assert_eq!(writer.sessions(0).collect::<BTreeMap<_, _>>(), model.sessions);
        let counts = writer.counts();
        assert_eq!(counts.znodes as usize, model.nodes.len());
        assert_eq!(counts.sessions as usize, model.sessions.len());
        let bytes = model.nodes.iter().map(|(path, node)| path.len() + node.data.as_ref().map_or(0, |data| data.len()));
        assert_eq!(counts.bytes as usize, bytes.sum::<usize>());
        let is_ephemeral = |node: &&ModelNode| node.owner_key.is_some_and(|key| key != CONTAINERS && key != TTL_NODES);
        assert_eq!(counts.ephemerals as usize, model.nodes.values().filter(is_ephemeral).count());
    }

    fn step(&mut self) {
        match self.dice.below(80) {
            0..40 => self.version(),
            40..43 => self.roll_back(),
            43..60 => {
                let version = self.dice.between(self.writer.published(), self.writer.head());
                self.writer.publish(version);
                let first = *self.versions.range(..=version.min(self.oldest)).next_back().expect("kept").0;
                self.versions = self.versions.split_off(&first);
            }
            60..75 => {
                let budget = if self.dice.chance(20) { 1000 } else { self.dice.below(6) as usize };
                self.writer.reclaim(budget);
            }
            _ => self.check_head(),
        }
    }
}

impl Run {
    fn step(&mut self) {
        self.side.oldest = self.readers.iter().map(|watched| watched.reader.version()).min().unwrap_or(u64::MAX);
        match self.side.dice.below(100) {
            0..75 => self.side.step(),
            75..80 => self.references_outlive_the_writers_work(),
            _ => self.reader_turn(),
        }
    }

    /// What a reader was given stays as it is, whatever the writer does.
    fn references_outlive_the_writers_work(&mut self) {
        let side = &mut self.side;
        let Some(watched) = self.readers.iter().find(|watched| watched.reader.is_online() && side.dice.chance(50))
        else {
            return;
        };
        let (reader, model) = (&watched.reader, side.model_at(watched.reader.version()));
        let paths: Vec<String> = side.paths.iter().filter(|_| side.dice.chance(20)).cloned().collect();
        let nodes: Vec<_> = paths.iter().map(|path| reader.get(path)).collect();
        let parent = side.dice.pick(&["/", "/a", "/b", "/c"]);
        let key = *side.dice.pick(&KEYS);
        let (mut list, mut owned) = (reader.list(parent), reader.owned(key));
        let mut names: BTreeSet<&str> = list.iter_mut().flatten().take(3).collect();
        let mut owned_paths: BTreeSet<&str> = owned.by_ref().take(2).collect();
        for _ in 0..side.dice.between(1, 12) {
            side.step();
        }
        for (path, node) in paths.iter().zip(nodes) {
            check_node(node, path, &model);
        }
        names.extend(list.iter_mut().flatten());
        owned_paths.extend(owned);
        assert_eq!(names, model.children(parent));
        assert_eq!(owned_paths, model.owned(key));
    }

    fn reader_turn(&mut self) {
        if self.readers.is_empty() || (self.readers.len() < 10 && self.side.dice.chance(10)) {
            let reader = self.side.writer.reader().expect("a free slot");
            assert_eq!(reader.version(), self.side.writer.published());
            self.readers.push(Watched { reader, holding: false, walk: None });
        }
        let at = self.side.dice.below(self.readers.len() as u64) as usize;
        if self.side.dice.chance(4) {
            self.readers.swap_remove(at);
            return;
        }
        let (dice, watched) = (&mut self.side.dice, &mut self.readers[at]);
        let reader = &mut watched.reader;
        match dice.below(12) {
            0..3 if !watched.holding && reader.is_online() => {
                let version = dice.between(reader.version(), reader.published());
                reader.adopt(version);
                watched.walk = None;
            }
            3..5 if !watched.holding && reader.is_online() => {
                assert_eq!(reader.adopt_latest(), self.side.writer.published());
                watched.walk = None;
            }
            5 | 9 if !watched.holding && reader.is_online() => {
                reader.hold();
                watched.holding = true;
            }
            5 | 9 if watched.holding => {
                assert_eq!(reader.release(), self.side.writer.published());
                (watched.holding, watched.walk) = (false, None);
            }
            6 if dice.chance(20) => {
                reader.offline();
                (watched.holding, watched.walk) = (false, None);
            }
            6 | 7 if !reader.is_online() => {
                assert_eq!(reader.online(), self.side.writer.published());
            }
            7 | 8 => reader.refresh(),
            _ => {}
        }
        if !self.readers[at].reader.is_online() {
            return;
        }
        let model = self.side.model_at(self.readers[at].reader.version());
        let watched = &mut self.readers[at];
        if self.side.dice.chance(30) {
            check_reader(&mut self.side.dice, &watched.reader, &model, &self.side.paths);
        }
        let reader = &watched.reader;
        let (walk, seen) = watched.walk.get_or_insert_with(|| (reader.walk(), BTreeSet::new()));
        if check_walk(reader, walk, seen, &model, 3) {
            watched.walk = None;
        }
    }

    /// Empties the store: nothing is left of what was.
    fn end(self) {
        let Run { mut side, readers } = self;
        side.check_head();
        let version = side.writer.head() + 1;
        side.writer.begin(version);
        for path in side.head.nodes.keys().rev().filter(|path| *path != "/") {
            assert_eq!(side.writer.delete(path), Ok(()), "{path}");
        }
        for key in side.head.sessions.keys() {
            assert_eq!(side.writer.remove_session(*key), Ok(()));
        }
        let root = DataChange { mzxid: Zxid(1), mtime: WallTime(0), version: 0 };
        assert_eq!(side.writer.set_data("/", None, root), Ok(()));
        assert_eq!(side.writer.set_acl("/", &AclList::Open, 0), Ok(()));
        side.writer.publish(version);
        drop(readers);
        while side.writer.reclaim(50) > 0 {}
        let left = side.writer.live_bytes() as i64 - Writer::with_seed(1).live_bytes() as i64;
        assert!(left.abs() < 512, "{left} bytes are left");
        let shared: Vec<Arc<[Acl]>> = side.acls.iter().filter_map(shared_list).collect();
        drop(side);
        for list in shared {
            assert_eq!(Arc::strong_count(&list), 1, "an ACL list was not given back");
        }
    }
}

fn shared_list(acl: &AclList) -> Option<Arc<[Acl]>> {
    match acl {
        AclList::Open => None,
        AclList::List(list) => Some(list.clone()),
    }
}

fn run(seed: u64, steps: u64) {
    struct Name(u64);
    impl Drop for Name {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("replay with: STORE_SEED={} cargo test --test store_model", self.0);
            }
        }
    }
    let _name = Name(seed);
    let mut run = Run { side: Side::new(seed), readers: Vec::new() };
    for _ in 0..steps {
        run.step();
    }
    run.end();
}

#[test]
fn every_version_equals_its_copy_of_a_map() {
    if let Some(seed) = std::env::var("STORE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return run(seed, 3_000);
    }
    let until = Instant::now() + Duration::from_secs(std::env::var("STORE_SECONDS").map_or(6, |s| s.parse().unwrap()));
    let mut seed = 1;
    while Instant::now() < until {
        run(seed, 3_000);
        seed += 1;
    }
    println!("{} seeds", seed - 1);
}

/// Enough znodes for the index and the tables of children to grow, and to shrink again, under a reader that stays and one
/// that follows.
#[test]
fn a_wave_of_znodes_comes_and_goes() {
    let mut dice = Dice(23);
    let mut writer = Writer::with_seed(23);
    let (mut model, mut version) = (BTreeSet::new(), 1);
    writer.begin(1);
    let stat = StatPersisted::default();
    for parent in ["/a", "/b"] {
        writer.create(parent, None, &AclList::Open, &stat, None).unwrap();
    }
    writer.publish(1);
    let (mut walker, mut holder) = (writer.reader().unwrap(), writer.reader().unwrap());
    holder.hold();
    let mut held = model.clone();
    let check = |reader: &Reader, model: &BTreeSet<String>| {
        let listed = ["/a", "/b"].map(|parent| {
            let names = reader.list(parent).unwrap();
            names.map(|name| format!("{parent}/{name}")).collect::<BTreeSet<_>>()
        });
        assert!(listed.iter().flatten().eq(model.iter()), "{} listed, {} expected", listed[0].len(), model.len());
        assert!(model.iter().all(|path| reader.get(path).is_some_and(|node| node.path() == path)));
        assert_eq!(reader.owned(7).count(), model.len());
    };
    for wave in 0..40_u64 {
        let before = model.clone();
        version += 1;
        writer.begin(version);
        let growing = wave % 20 < 10;
        for _ in 0..1_000 {
            let path = format!("/{}/{}", if dice.chance(70) { "a" } else { "b" }, dice.below(12_000));
            if growing && model.insert(path.clone()) {
                writer.create(&path, Some(path.as_bytes()), &AclList::Open, &stat, Some(7)).unwrap();
            }
            let from = format!("/a/{}", dice.below(12_000));
            let victim = if growing { None } else { model.range(from..).next().or(model.first()).cloned() };
            if let Some(path) = victim {
                writer.delete(&path).unwrap();
                model.remove(&path);
            }
        }
        if dice.chance(20) {
            writer.abandon();
            version -= 1;
            model = before;
        } else {
            writer.publish(version);
        }
        walker.adopt_latest();
        while dice.chance(90) && writer.reclaim(500) > 0 {}
        check(&walker, &model);
        if wave % 5 == 0 {
            check(&holder, &held);
        }
        if wave % 11 == 10 {
            holder.release();
            holder.hold();
            held = model.clone();
        }
        holder.refresh();
    }
    assert_eq!(writer.counts().znodes as usize, model.len() + 3);
}

#[test]
fn readers_on_other_threads_see_whole_versions() {
    const ZNODES: u64 = 200;
    let mut writer = Writer::with_seed(3);
    writer.begin(1);
    let stat =
        |zxid: u64| StatPersisted { czxid: Zxid(zxid), mzxid: Zxid(zxid), pzxid: Zxid(zxid), ..Default::default() };
    writer.create("/d", None, &AclList::Open, &stat(1), None).unwrap();
    writer.create("/wave", None, &AclList::Open, &stat(1), None).unwrap();
    for i in 0..ZNODES {
        writer.create(&format!("/n{i}"), Some(&1_u64.to_le_bytes()), &AclList::Open, &stat(1), None).unwrap();
    }
    writer.publish(1);

    let stop = AtomicBool::new(false);
    let checked = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for kind in 0..3_u64 {
            let (factory, stop, checked) = (writer.readers(), &stop, &checked);
            scope.spawn(move || torture_reader(kind, factory.reader().expect("a slot"), stop, checked));
        }
        torture_writer(&mut writer, ZNODES, Instant::now() + Duration::from_secs(3));
        stop.store(true, Ordering::Relaxed);
    });
    while writer.reclaim(1 << 20) > 0 {}
    println!("{} versions, {} checked", writer.published(), checked.load(Ordering::Relaxed));
    assert!(checked.load(Ordering::Relaxed) > 0);
}

/// Grows to some thousands and shrinks again, so that the index and the tables of children are rebuilt under readers.
fn torture_wave(writer: &mut Writer, dice: &mut Dice, wave: &mut Vec<u64>, grows: &mut bool) {
    let (path, stat) = (|i| format!("/wave/{i}"), StatPersisted::default());
    if *grows {
        let i = wave.last().map_or(writer.head() << 16, |last| last + 1);
        writer.create(&path(i), None, &AclList::Open, &stat, None).unwrap();
        wave.push(i);
    } else if !wave.is_empty() {
        let i = wave.swap_remove(dice.below(wave.len() as u64) as usize);
        writer.delete(&path(i)).unwrap();
    }
    *grows = if *grows { wave.len() < 3_000 } else { wave.is_empty() };
}

/// Each version sets two znodes to its own number, creates or deletes a child of `/d` whose name it will find again,
/// and sometimes is rolled back instead of published.
fn torture_writer(writer: &mut Writer, znodes: u64, until: Instant) {
    let mut dice = Dice(11);
    let mut version = 1;
    let (mut wave, mut grows) = (Vec::new(), true);
    while Instant::now() < until {
        let first = version + 1;
        let (wave_before, grew) = (wave.clone(), grows);
        for _ in 0..dice.between(1, 32) {
            version += 1;
            writer.begin(version);
            let change = DataChange { mzxid: Zxid(version), mtime: WallTime(0), version: 0 };
            let data = version.to_le_bytes().repeat(dice.between(1, 40) as usize);
            let at = dice.below(znodes / 2) * 2;
            writer.set_data(&format!("/n{at}"), Some(&data), change).unwrap();
            writer.set_data(&format!("/n{}", at + 1), Some(&data), change).unwrap();
            let child = format!("/d/c{}", dice.below(300));
            if writer.delete(&child).is_err() {
                let stat = StatPersisted { czxid: Zxid(version), pzxid: Zxid(version), ..Default::default() };
                writer.create(&child, Some(&data), &AclList::Open, &stat, Some(4)).unwrap();
            }
            writer.set_directory("/d", Zxid(version), 0).unwrap();
            for _ in 0..4 {
                torture_wave(writer, &mut dice, &mut wave, &mut grows);
            }
        }
        if dice.chance(10) {
            version = first - 1;
            writer.roll_back(version);
            (wave, grows) = (wave_before, grew);
        }
        writer.publish(version);
        writer.reclaim(dice.below(400) as usize);
    }
}

fn torture_reader(kind: u64, mut reader: Reader, stop: &AtomicBool, checked: &AtomicU64) {
    let mut dice = Dice(100 + kind);
    while !stop.load(Ordering::Relaxed) {
        match kind {
            0 => drop(reader.adopt_latest()),
            1 => {
                let version = dice.between(reader.version(), reader.published());
                reader.adopt(version);
            }
            _ if dice.chance(50) => {
                reader.offline();
                std::thread::yield_now();
                reader.online();
            }
            _ => {
                reader.adopt_latest();
                reader.hold();
            }
        }
        for _ in 0..20 {
            check_torture(&mut dice, &reader);
            if kind == 2 {
                reader.refresh();
            }
        }
        if kind == 2 {
            reader.online();
        }
        checked.fetch_add(1, Ordering::Relaxed);
    }
}

fn check_torture(dice: &mut Dice, reader: &Reader) {
    let at = dice.below(100) * 2;
    let (one, two) = (reader.get(&format!("/n{at}")).unwrap(), reader.get(&format!("/n{}", at + 1)).unwrap());
    assert_eq!(one.data(), two.data(), "a version is seen whole");
    let mzxid = one.stat().mzxid.0;
    assert!(mzxid <= reader.version());
    assert!(one.data().unwrap().chunks(8).all(|chunk| chunk == mzxid.to_le_bytes()));
    let directory = reader.get("/d").unwrap();
    let names = reader.list("/d").unwrap().count();
    assert_eq!(names, directory.num_children() as usize);
    assert_eq!(reader.owned(4).count(), names);
    if dice.chance(3) {
        let wave = reader.get("/wave").unwrap().num_children() as usize;
        assert_eq!(reader.list("/wave").unwrap().count(), wave);
    }
    assert!(directory.pzxid().0 <= reader.version());
}
