//! Plays a seed to both servers and compares what comes back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::decode::{Item, op_name};
use super::generate::{Generator, Profile, SLOTS, Slot};
use super::known::explain;
use super::plan::{Body, Entry, LastZxid, Password, Request, Step};
use super::side::Side;
use crate::support::link::{op, xid};
use crate::support::server::{Program, Settings};

/// The client that makes and removes each seed's root, as super user.
const ADMIN: usize = SLOTS;

/// Steps of a seed.
const STEPS: usize = 120;

/// Steps shown in front of the one that differed.
const HISTORY: usize = 12;

/// `super:test`.
pub const SUPER_DIGEST: &str = "super:D/InIHSb7yEEbrWz8b9l71RjZJU=";

/// What both servers are told: sessions that do not expire while a test is slow, and no clean-up of containers and
/// TTL znodes, whose moment no test can foresee.
pub fn settings() -> Settings {
    let config = ["tickTime=2000", "minSessionTimeout=30000", "maxSessionTimeout=60000"];
    let more = ["extendedTypesEnabled=true", "enforceQuota=true"];
    let properties = [
        ("zookeeper.DigestAuthenticationProvider.superDigest", SUPER_DIGEST),
        ("znode.container.checkIntervalMs", "1000000000"),
    ];
    Settings {
        config: config.iter().chain(&more).map(|line| line.to_string()).collect(),
        properties: properties.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
    }
}

/// What was met, for the summary and to see that the generator is good.
#[derive(Default, Debug)]
pub struct Coverage {
    /// Replies and events, by kind and error.
    pub seen: BTreeMap<String, usize>,
    /// Deliberate differences, by name.
    pub known: BTreeMap<&'static str, usize>,
}

/// Both servers, from fresh directories.
#[derive(Debug)]
pub struct Pair {
    java: Side,
    ours: Side,
    slots: Vec<Slot>,
    history: Vec<String>,
}

impl Pair {
    pub fn start(under_test: &Program, directory: &Path) -> Pair {
        let start = |program: &Program, name: &str| {
            let directory = directory.join(name);
            std::fs::create_dir_all(&directory).expect("test directory is writable");
            Side::start(program, &directory, &settings(), SLOTS + 1)
        };
        let slots = vec![Slot::NoSession; SLOTS + 1];
        Pair { java: start(&Program::Java, "java"), ours: start(under_test, "ours"), slots, history: Vec::new() }
    }

    /// The server under test, to look at it by other means.
    pub fn ours(&self) -> &crate::support::server::Server {
        &self.ours.server
    }

    /// Errors: the first difference, with what led to it. The pair is of no use afterwards.
    pub fn run_seed(&mut self, seed: u64, coverage: &mut Coverage) -> Result<(), String> {
        self.history.clear();
        let root = format!("/d{seed}");
        let mut generator = Generator::new(seed, &root);
        self.enter(seed, &mut generator, &root, coverage)?;
        for _ in 0..STEPS {
            let step = generator.step(&self.slots);
            let learned = self.step(&step, coverage)?;
            learned.iter().for_each(|path| generator.learn(path));
        }
        self.leave(&mut generator, &root, coverage)
    }

    fn enter(
        &mut self,
        seed: u64,
        generator: &mut Generator,
        root: &str,
        coverage: &mut Coverage,
    ) -> Result<(), String> {
        if self.slots[ADMIN] == Slot::NoSession {
            self.step(&Step::Connect { slot: ADMIN, timeout_ms: 60_000, read_only: Some(false) }, coverage)?;
            let auth = Body::default().int("type", 0).path(Some(b"digest")).data(Some(b"super:test"));
            let requests = vec![generator.request(xid::AUTH, op::AUTH, auth)];
            self.step(&Step::Burst { slot: ADMIN, requests }, coverage)?;
        }
        self.java.begin_seed(ADMIN);
        self.ours.begin_seed(ADMIN);
        let open = [Entry::new(31, "world", "anyone")];
        let body = Body::default().path(Some(root.as_bytes())).data(None).acl(Some(&open)).int("flags", 0);
        self.admin(generator, op::CREATE, body, coverage)?;
        if Profile::of(seed) == Profile::Quotas {
            let quota = format!("/zookeeper/quota{root}");
            let limits = format!("{quota}/zookeeper_limits");
            let stats = format!("{quota}/zookeeper_stats");
            let hard = format!("count=3,bytes=9=;byteHardLimit={};countHardLimit={}", 40 * seed, 2 + seed % 20);
            for (path, data) in [(&quota, ""), (&limits, &hard), (&stats, "count=0,bytes=0")] {
                let body = Body::default().path(Some(path.as_bytes())).data(Some(data.as_bytes()));
                self.admin(generator, op::CREATE2, body.acl(Some(&open)).int("flags", 0), coverage)?;
            }
        }
        Ok(())
    }

    /// Closes all sessions, compares the whole tree and removes it.
    fn leave(&mut self, generator: &mut Generator, root: &str, coverage: &mut Coverage) -> Result<(), String> {
        for slot in 0..SLOTS {
            if self.slots[slot] == Slot::Dropped {
                let (password, last_zxid) = (Password::Right, LastZxid::Zero);
                self.step(&Step::Reattach { slot, timeout_ms: 30_000, password, last_zxid }, coverage)?;
            }
            if self.slots[slot] == Slot::Connected {
                let requests = vec![generator.request(generator_xid(slot), op::CLOSE_SESSION, Body::default())];
                self.step(&Step::Burst { slot, requests }, coverage)?;
            }
        }
        self.remove_tree(generator, root, coverage)?;
        self.remove_tree(generator, &format!("/zookeeper/quota{root}"), coverage)
    }

    fn remove_tree(&mut self, generator: &mut Generator, top: &str, coverage: &mut Coverage) -> Result<(), String> {
        let mut found = vec![top.to_owned()];
        let mut at = 0;
        while let Some(path) = found.get(at).cloned() {
            at += 1;
            for op in [op::GET_DATA, op::GET_ACL, op::GET_CHILDREN2] {
                let mut body = Body::default().path(Some(path.as_bytes()));
                if op != op::GET_ACL {
                    body = body.bool("watch", false);
                }
                let names = self.admin(generator, op, body, coverage)?;
                found.extend(names.iter().map(|name| format!("{path}/{name}")));
            }
        }
        for path in found.iter().rev() {
            let body = Body::default().path(Some(path.as_bytes())).int("version", -1);
            self.admin(generator, op::DELETE, body, coverage)?;
        }
        Ok(())
    }

    fn admin(
        &mut self,
        generator: &mut Generator,
        op: i32,
        body: Body,
        coverage: &mut Coverage,
    ) -> Result<Vec<String>, String> {
        let xid = generator.fresh_xid();
        let requests = vec![generator.request(xid, op, body)];
        self.step(&Step::Burst { slot: ADMIN, requests }, coverage)
    }

    /// Plays one step and compares. Returns what Java's replies to this client taught.
    fn step(&mut self, step: &Step, coverage: &mut Coverage) -> Result<Vec<String>, String> {
        self.history.push(step.to_string());
        self.java.send(step);
        self.ours.send(step);
        let is_open = self.java.finish(step);
        self.ours.finish(step);
        self.java.send_pings();
        self.ours.send_pings();
        let (mut java, mut ours) = (self.java.finish_pings(), self.ours.finish_pings());
        if closes_session(step) {
            java.iter_mut().chain(&mut ours).for_each(|items| sort_events(items));
        }
        // Whoever acted comes first: what others see follows from it.
        let others = (0..self.slots.len()).filter(|slot| *slot != step.slot());
        for slot in std::iter::once(step.slot()).chain(others) {
            self.compare(step, slot, &java[slot], &ours[slot], coverage)?;
        }
        let slot = step.slot();
        self.slots[slot] = match (is_open, step) {
            (true, Step::Connect { .. } | Step::Reattach { .. } | Step::Burst { .. }) => Slot::Connected,
            (_, Step::Connect { .. }) => Slot::NoSession,
            _ if closes_session(step) => Slot::NoSession,
            _ => Slot::Dropped,
        };
        Ok(java.swap_remove(slot).into_iter().flat_map(|item| item.learned).collect())
    }

    fn compare(
        &self,
        step: &Step,
        slot: usize,
        java: &[Item],
        ours: &[Item],
        coverage: &mut Coverage,
    ) -> Result<(), String> {
        let mut is_same = java.len() == ours.len();
        for (java, ours) in java.iter().zip(ours) {
            *coverage.seen.entry(format!("{} {}{}", java.kind, java.get("err"), java.first_failure())).or_default() +=
                1;
            if (java.kind, &java.fields) != (ours.kind, &ours.fields) {
                match explain(request_of(step, java), java, ours) {
                    Some(known) => *coverage.known.entry(known.name).or_default() += 1,
                    None => is_same = false,
                }
            }
        }
        if is_same { Ok(()) } else { Err(self.report(slot, java, ours)) }
    }

    fn report(&self, slot: usize, java: &[Item], ours: &[Item]) -> String {
        let mut out = String::new();
        let from = self.history.len().saturating_sub(HISTORY);
        for (index, step) in self.history.iter().enumerate().skip(from) {
            let _ = writeln!(out, "  {index:3} {step}");
        }
        let _ = writeln!(out, "  client {slot} received:");
        for index in 0..java.len().max(ours.len()) {
            match (java.get(index), ours.get(index)) {
                (Some(java), Some(ours)) if java.fields == ours.fields && java.kind == ours.kind => {
                    let _ = writeln!(out, "    both {java}");
                }
                (java, ours) => {
                    let shown = |item: Option<&Item>| item.map_or("nothing".to_owned(), Item::to_string);
                    let _ = writeln!(out, "    java {}\n    ours {}", shown(java), shown(ours));
                    let _ = writeln!(out, "         differ in: {}", differing_fields(java, ours).join(", "));
                }
            }
        }
        out
    }
}

fn differing_fields(java: Option<&Item>, ours: Option<&Item>) -> Vec<String> {
    let (Some(java), Some(ours)) = (java, ours) else { return vec!["being there".to_owned()] };
    let mut names: Vec<_> = java.fields.iter().chain(&ours.fields).map(|f| f.name.clone()).collect();
    names.sort();
    names.dedup();
    names.retain(|name| java.get(name) != ours.get(name));
    names
}

/// An xid for the last request of a client.
fn generator_xid(slot: usize) -> i32 {
    1_000_000 + slot as i32
}

fn closes_session(step: &Step) -> bool {
    matches!(step, Step::Burst { requests, .. } if requests.iter().any(|r| r.op == op::CLOSE_SESSION))
}

/// Java lists the ephemerals of a closing session in the order of a hash set, so that their events come in no order.
fn sort_events(items: &mut [Item]) {
    for run in items.chunk_by_mut(|a, b| a.is_event() == b.is_event()) {
        if run.first().is_some_and(Item::is_event) {
            run.sort_by_key(|item| format!("{} {}", item.get("type"), item.get("path")));
        }
    }
}

/// The request that an item answers.
fn request_of<'a>(step: &'a Step, item: &Item) -> Option<&'a Request> {
    let Step::Burst { requests, .. } = step else { return None };
    requests.iter().find(|r| op_name(r.op) == item.kind && r.reply_xid().to_string() == item.get("xid"))
}
