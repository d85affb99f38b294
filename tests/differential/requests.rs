//! Bodies of requests: mostly sensible, sometimes not.

use super::generate::Profile;
use super::plan::{Body, Entry};
use crate::support::link::op;
use crate::support::random::Random;

/// Paths below a seed's root, and odd ones.
#[derive(Debug)]
pub struct Paths {
    root: String,
    /// Created by somebody, perhaps deleted since.
    known: Vec<String>,
    may_be_null: bool,
}

impl Paths {
    pub fn learn(&mut self, path: &str) {
        if self.known.len() < 64 && path.starts_with(&self.root) && !self.known.iter().any(|known| known == path) {
            self.known.push(path.to_owned());
        }
    }

    /// A well-formed path, often of a znode that exists.
    fn plain(&self, random: &mut Random) -> String {
        if !self.known.is_empty() && random.percent(60) {
            return random.pick(&self.known);
        }
        let mut path = self.root.clone();
        for _ in 0..random.below(4) {
            path += random.pick(&["/a", "/b", "/c"]);
        }
        path
    }

    /// Where a create might succeed: a known parent or the root, and a name.
    fn fresh(&self, random: &mut Random) -> String {
        let parent = if random.percent(50) { self.root.clone() } else { self.plain(random) };
        parent + random.pick(&["/a", "/b", "/c", "/d", "/n", "/…", "/x y"])
    }

    fn odd(&self, random: &mut Random) -> Option<Vec<u8>> {
        let root = &self.root;
        let odd = match random.below(18) {
            0 if self.may_be_null => return None,
            0 | 1 => String::new(),
            2 => "/".to_owned(),
            3 => "abc".to_owned(),
            4 => format!("{root}/"),
            5 => format!("{root}//a"),
            6 => format!("{root}/."),
            7 => format!("{root}/.."),
            8 => format!("{root}/a/./b"),
            9 => format!("{root}/a\0b"),
            10 => format!("{root}/\u{1}"),
            11 => format!("{root}/\u{e000}"),
            12 => format!("{root}/\u{1f600}"),
            13 => return Some([root.as_bytes(), b"/\xff\xfe"].concat()),
            14 => "//".to_owned(),
            15 => format!("{root}/a/"),
            16 => "/zookeeper/config".to_owned(),
            _ => "/zookeeper".to_owned(),
        };
        Some(odd.into_bytes())
    }
}

/// Which kind of watch a client uses on a path. Since 3.9 several live side by side; before, the last one set
/// replaced the others, so that only one kind per client and path compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WatchKind {
    Standard,
    Persistent,
    Recursive,
}

#[derive(Debug)]
pub struct Requests {
    random: Random,
    profile: Profile,
    seed: u64,
    pub paths: Paths,
    /// Nothing is done wrong on purpose, so that a multi of several parts has a chance.
    is_friendly: bool,
}

impl Requests {
    pub fn new(seed: u64, profile: Profile, root: &str) -> Requests {
        let paths = Paths { root: root.to_owned(), known: vec![root.to_owned()], may_be_null: true };
        Requests { random: Random::new(seed, 0x4e9), profile, seed, paths, is_friendly: false }
    }

    pub fn auth_percent(&self) -> usize {
        if self.profile == Profile::Acls { 12 } else { 2 }
    }

    pub fn auth(&mut self) -> Body {
        let (scheme, auth): (&str, Option<&[u8]>) = match self.random.weighted(&[5, 4, 3, 1, 1, 1, 1, 1]) {
            0 => ("digest", Some(b"alice:a")),
            1 => ("digest", Some(b"bob:b")),
            2 if self.profile == Profile::Acls => ("digest", Some(b"super:test")),
            3 => ("ip", Some(b"10.0.0.1")),
            4 => ("unknown", Some(b"x")),
            5 => ("world", Some(b"anyone")),
            6 => ("digest", None),
            _ => ("digest", Some(b"nocolon")),
        };
        Body::default().int("type", 0).path(Some(scheme.as_bytes())).data(auth)
    }

    /// Any request that leaves the connection open.
    pub fn any(&mut self, slot: usize) -> (i32, Body) {
        //  create, delete, setData, setACL, multi, read, multiRead, watch operations, other, quota
        let weights = match self.profile {
            Profile::Watches => [24, 14, 12, 3, 5, 22, 1, 14, 5, 0],
            Profile::Acls => [24, 10, 10, 14, 6, 24, 3, 8, 7, 0],
            Profile::Multis => [14, 8, 6, 3, 40, 12, 7, 4, 4, 0],
            Profile::Quotas => [24, 14, 18, 2, 8, 14, 1, 3, 4, 12],
        };
        match self.random.weighted(&weights) {
            0 => self.create(),
            1 => (op::DELETE, self.delete()),
            2 => (op::SET_DATA, self.set_data()),
            3 => (op::SET_ACL, self.set_acl()),
            4 => (op::MULTI, self.multi()),
            5 => self.read(slot),
            6 => (op::MULTI_READ, self.multi_read()),
            7 => self.watch(slot),
            8 => self.other(),
            _ => self.quota(),
        }
    }

    fn path(&mut self) -> Option<Vec<u8>> {
        match !self.is_friendly && self.random.percent(4) {
            true => self.paths.odd(&mut self.random),
            false => Some(self.paths.plain(&mut self.random).into_bytes()),
        }
    }

    fn fresh_path(&mut self) -> Option<Vec<u8>> {
        match !self.is_friendly && self.random.percent(4) {
            true => self.paths.odd(&mut self.random),
            false => Some(self.paths.fresh(&mut self.random).into_bytes()),
        }
    }

    fn data(&mut self) -> Option<Vec<u8>> {
        match self.random.weighted(&[2, 2, 10, 1]) {
            0 => None,
            1 => Some(Vec::new()),
            2 => Some(format!("data {}", self.random.below(1_000)).into_bytes()),
            _ => Some(vec![b'x'; 1 + self.random.below(60_000)]),
        }
    }

    fn version(&mut self) -> i32 {
        if self.is_friendly {
            return -1;
        }
        self.random.pick(&[-1, -1, -1, -1, 0, 0, 1, 2, 3, -2, i32::MAX, i32::MIN])
    }

    pub fn create(&mut self) -> (i32, Body) {
        let op = match self.random.weighted(&[10, 10, 2, 4]) {
            0 => op::CREATE,
            1 => op::CREATE2,
            2 => op::CREATE_CONTAINER,
            _ => op::CREATE_TTL,
        };
        (op, self.create_body(op, 3))
    }

    /// `odd_percent` says how often flags that cannot be are used.
    fn create_body(&mut self, op: i32, odd_percent: usize) -> Body {
        let path = self.fresh_path();
        let (data, acl) = (self.data(), self.acl());
        let body = Body::default().path(path.as_deref()).data(data.as_deref()).acl(acl.as_deref());
        if op == op::CREATE_TTL {
            // Another flag with a TTL of -1 passes Java's checks and then stops its process.
            let flags = self.random.pick(&[5, 5, 5, 6, 6, 6, 0, 1, 2]);
            let ttl = match flags {
                5 | 6 => self.random.pick(&[1, 60_000, 60_000, 60_000, (1 << 40) - 1, 1 << 40, 0, -1, i64::MAX]),
                _ => self.random.pick(&[0, 1, 60_000]),
            };
            return body.int("flags", flags).long("ttl", ttl);
        }
        let flags = match self.random.percent(odd_percent) {
            true => self.random.pick(&[-1, 5, 6, 7, 8, 100, i32::MIN]),
            false => self.random.pick(&[0, 0, 0, 0, 1, 1, 2, 2, 3, 4]),
        };
        body.int("flags", flags)
    }

    /// Of a multi: with other flags Java made what these say, until 3.8.2.
    fn container_body(&mut self) -> Body {
        let path = self.fresh_path();
        let (data, acl) = (self.data(), self.acl());
        let body = Body::default().path(path.as_deref()).data(data.as_deref()).acl(acl.as_deref());
        body.int("flags", 4)
    }

    fn delete(&mut self) -> Body {
        let path = self.path();
        Body::default().path(path.as_deref()).int("version", self.version())
    }

    fn set_data(&mut self) -> Body {
        let (path, data) = (self.path(), self.data());
        Body::default().path(path.as_deref()).data(data.as_deref()).int("version", self.version())
    }

    /// Never on `/` or below `/zookeeper`: what one seed locks there, all later ones would miss.
    fn set_acl(&mut self) -> Body {
        let (path, acl) = (self.paths.plain(&mut self.random), self.acl());
        Body::default().path(Some(path.as_bytes())).acl(acl.as_deref()).int("version", self.version())
    }

    fn acl(&mut self) -> Option<Vec<Entry>> {
        let entry = Entry::new;
        if self.is_friendly {
            return Some(vec![entry(31, "world", "anyone")]);
        }
        let list = match self.random.weighted(&[60, 8, 6, 2, 2, 2, 2, 2, 2, 2, 12, 1]) {
            0 => vec![entry(31, "world", "anyone")],
            1 => vec![entry(1, "world", "anyone"), entry(31, "auth", "")],
            2 => vec![entry(self.random.pick(&[1, 3, 5, 9, 17, 33]), "world", "anyone")],
            3 => vec![entry(31, "world", "anyone"), entry(1, "ip", "10.0.0.0/8"), entry(31, "world", "anyone")],
            4 => vec![],
            5 => return None,
            6 => vec![entry(31, "world", "anyone"), entry(31, "world", "somebody")],
            7 => vec![entry(31, "ip", self.random.pick(&["127.0.0.1", "127.0.0.0/8", "127.0.0.0/33", "1.2.3", "x"]))],
            8 => vec![entry(31, "unknown", "x"), entry(31, "world", "anyone")],
            9 => {
                let scheme = self.random.pick(&[None, Some("world"), Some("digest"), Some("auth"), Some("unknown")]);
                vec![entry(1, "world", "anyone"), Entry { perms: 31, scheme: scheme.map(str::to_owned), id: None }]
            }
            10 if self.profile == Profile::Acls => self.private_acl(),
            10 => vec![entry(31, "world", "anyone"), entry(31, "digest", ALICE)],
            _ => vec![entry(31, "digest", self.random.pick(&["", "a", "a:", "a:b:c"]))],
        };
        Some(list)
    }

    /// A list that shuts somebody out.
    fn private_acl(&mut self) -> Vec<Entry> {
        let perms = self.random.pick(&[31, 31, 30, 15, 16, 1, 2, 4, 8, 0, -1]);
        match self.random.below(6) {
            0 => vec![Entry::new(perms, "world", "anyone")],
            1 => vec![Entry::new(31, "auth", "ignored")],
            2 => vec![Entry::new(perms, "digest", ALICE), Entry::new(1, "digest", BOB)],
            3 => vec![Entry::new(perms, "digest", BOB), Entry::new(4, "world", "anyone")],
            4 => vec![Entry::new(perms, "ip", "10.1.2.3"), Entry::new(31, "digest", ALICE)],
            _ => vec![Entry::new(perms, "digest", "a:b:"), Entry::new(perms, "ip", "127.0.0.1/32")],
        }
    }

    pub fn read(&mut self, slot: usize) -> (i32, Body) {
        let path = self.path();
        let kinds = [op::EXISTS, op::GET_DATA, op::GET_CHILDREN, op::GET_CHILDREN2, op::GET_ACL];
        let op = self.random.pick(&kinds);
        // Before 3.8.4 exists asked for no permission, so that its watch stayed where ours is refused.
        let watched = self.profile != Profile::Acls || op != op::EXISTS;
        let may_watch = watched && path.as_ref().is_some_and(|p| self.watch_kind(slot, p) == WatchKind::Standard);
        let body = Body::default().path(path.as_deref());
        if op == op::GET_ACL {
            return (op, body);
        }
        (op, body.bool("watch", may_watch && self.random.percent(60)))
    }

    /// Without null paths: for these Java takes a zxid without making a transaction, and we make one.
    fn multi(&mut self) -> Body {
        self.paths.may_be_null = false;
        self.is_friendly = self.random.percent(50);
        let body = self.any_multi();
        self.is_friendly = false;
        self.paths.may_be_null = true;
        body
    }

    fn any_multi(&mut self) -> Body {
        let mut body = Body::default();
        for _ in 0..self.random.weighted(&[1, 6, 8, 6, 4, 2, 1]) {
            let (kind, part) = match self.random.weighted(&[10, 5, 1, 1, 6, 8, 5]) {
                0 => (op::CREATE, self.create_body(op::CREATE, 0)),
                1 => (op::CREATE2, self.create_body(op::CREATE2, 0)),
                2 => (op::CREATE_CONTAINER, self.container_body()),
                3 => (op::CREATE_TTL, self.create_body(op::CREATE_TTL, 0)),
                4 => (op::DELETE, self.delete()),
                5 => (op::SET_DATA, self.set_data()),
                _ => {
                    let path = self.path();
                    (op::CHECK, Body::default().path(path.as_deref()).int("version", self.version()))
                }
            };
            body = body.part(kind, false).append(part);
        }
        if !self.is_friendly && self.random.percent(2) {
            let kind = self.random.pick(&[op::GET_DATA, op::SET_ACL, op::GET_CHILDREN, 0, 99]);
            body = body.part(kind, false).path(Some(b"/")).bool("watch", false);
        }
        body.part(-1, true)
    }

    fn multi_read(&mut self) -> Body {
        let mut body = Body::default();
        for _ in 0..1 + self.random.below(4) {
            let kind = self.random.pick(&[op::GET_DATA, op::GET_CHILDREN]);
            let path = self.path();
            body = body.part(kind, false).path(path.as_deref()).bool("watch", false);
        }
        if self.random.percent(4) {
            let part = self.delete();
            body = body.part(op::DELETE, false).append(part);
        }
        body.part(-1, true)
    }

    fn watch_kind(&self, slot: usize, path: &[u8]) -> WatchKind {
        let hash = crc32fast::hash(&[path, &[slot as u8, self.seed as u8]].concat());
        match hash % 4 {
            0 => WatchKind::Persistent,
            1 => WatchKind::Recursive,
            _ => WatchKind::Standard,
        }
    }

    fn watch(&mut self, slot: usize) -> (i32, Body) {
        match self.random.weighted(&[10, 4, 6, 3, 3]) {
            0 => (op::ADD_WATCH, self.add_watch(slot)),
            1 => (op::CHECK_WATCHES, self.named_watch(slot)),
            2 => (op::REMOVE_WATCHES, self.named_watch(slot)),
            3 => (op::SET_WATCHES, self.set_watches(slot, false)),
            _ => (op::SET_WATCHES2, self.set_watches(slot, true)),
        }
    }

    fn add_watch(&mut self, slot: usize) -> Body {
        let path = self.paths.plain(&mut self.random).into_bytes();
        let mode = match self.watch_kind(slot, &path) {
            WatchKind::Persistent => 0,
            WatchKind::Recursive => 1,
            WatchKind::Standard => self.random.pick(&[-1, 2, 3, i32::MAX]),
        };
        Body::default().path(Some(&path)).int("mode", mode)
    }

    /// Types 4 and 5 came with 3.9. Types 1 and 2 met persistent watches too before it.
    fn named_watch(&mut self, slot: usize) -> Body {
        let path = self.paths.plain(&mut self.random).into_bytes();
        let kind = match self.watch_kind(slot, &path) {
            WatchKind::Standard => self.random.pick(&[1, 1, 2, 2, 3, 0, 6, -1]),
            WatchKind::Persistent | WatchKind::Recursive => 3,
        };
        Body::default().path(Some(&path)).int("type", kind)
    }

    fn set_watches(&mut self, slot: usize, with_persistent: bool) -> Body {
        let mut lists: [Vec<Vec<u8>>; 5] = Default::default();
        for _ in 0..self.random.below(6) {
            let path = self.paths.plain(&mut self.random).into_bytes();
            match self.watch_kind(slot, &path) {
                WatchKind::Standard => lists[self.random.below(3)].push(path),
                WatchKind::Persistent => lists[3].push(path),
                WatchKind::Recursive => lists[4].push(path),
            }
        }
        let mut body = Body::default().long("zxid", 0);
        for (list, name) in lists.iter().zip(["data", "exist", "child", "persistent", "recursive"]) {
            if with_persistent || !matches!(name, "persistent" | "recursive") {
                body = body.paths(name, list);
            }
        }
        body
    }

    fn other(&mut self) -> (i32, Body) {
        match self.random.below(7) {
            0 => (op::PING, Body::default()),
            1 | 2 => {
                let path = self.path();
                (op::SYNC, Body::default().path(path.as_deref()))
            }
            3 => {
                let paths =
                    [Some(self.paths.root.clone()), None, Some(" ".into()), Some("/".into()), Some("/x".into())];
                let prefix = self.random.pick(&paths);
                (op::GET_EPHEMERALS, Body::default().path(prefix.as_deref().map(str::as_bytes)))
            }
            4 => {
                let path = self.path();
                (op::GET_ALL_CHILDREN_NUMBER, Body::default().path(path.as_deref()))
            }
            5 => (op::WHO_AM_I, Body::default()),
            _ => (op::RECONFIG, Body::default().path(None).path(None).path(Some(b"server.1=x:1:2")).long("config", -1)),
        }
    }

    /// Limits and usage of a quota on a path of this seed. Always well-formed: Java stops on what is not.
    fn quota(&mut self) -> (i32, Body) {
        let below = format!("/zookeeper/quota{}", self.paths.root);
        let open = [Entry::new(31, "world", "anyone")];
        let node = match self.random.below(3) {
            0 => "",
            1 => "/a",
            _ => "/b",
        };
        let limits = self.random.pick(&["count=5,bytes=500", "count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=3"]);
        let (leaf, data) = match self.random.below(6) {
            0 | 1 => ("", ""),
            2 | 3 => ("/zookeeper_limits", limits),
            _ => ("/zookeeper_stats", "count=0,bytes=0"),
        };
        let path = format!("{below}{node}{leaf}");
        match self.random.weighted(&[10, 3, 6, 2]) {
            0 => {
                let body = Body::default().path(Some(path.as_bytes())).data(Some(data.as_bytes()));
                (op::CREATE2, body.acl(Some(&open)).int("flags", 0))
            }
            1 if leaf == "/zookeeper_limits" => {
                (op::DELETE, Body::default().path(Some(path.as_bytes())).int("version", -1))
            }
            2 => (op::GET_DATA, Body::default().path(Some(path.as_bytes())).bool("watch", false)),
            3 if leaf == "/zookeeper_limits" => {
                let body = Body::default().path(Some(path.as_bytes())).data(Some(limits.as_bytes()));
                (op::SET_DATA, body.int("version", -1))
            }
            _ => (op::GET_CHILDREN2, Body::default().path(Some(path.as_bytes())).bool("watch", false)),
        }
    }
}

/// `alice:a` and `bob:b` as digest ids.
const ALICE: &str = "alice:AIueg8ag5ALfqeEyKdLnva1Wvi0=";
const BOB: &str = "bob:LcrmCNs/wfVD+i5a5yaz89GyjIM=";
