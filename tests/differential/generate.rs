//! From a seed to what clients do. What is deliberately different (`known.rs`) and changes what follows is not
//! generated; each has its own test.

use super::plan::{Body, LastZxid, Password, Request, Step};
use super::requests::Requests;
use crate::support::link::{op, xid};
use crate::support::random::Random;

/// Clients that the generator plays; one more belongs to the driver.
pub const SLOTS: usize = 3;

/// How a client stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    NoSession,
    Connected,
    /// The session lives, without a connection.
    Dropped,
}

/// What a seed is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    Watches,
    Acls,
    Multis,
    Quotas,
}

impl Profile {
    pub fn of(seed: u64) -> Profile {
        match seed % 5 {
            0 | 3 => Profile::Watches,
            1 => Profile::Acls,
            2 => Profile::Multis,
            _ => Profile::Quotas,
        }
    }
}

#[derive(Debug)]
pub struct Generator {
    random: Random,
    profile: Profile,
    requests: Requests,
    next_xid: i32,
}

impl Generator {
    /// `root` is the node below which this seed works.
    pub fn new(seed: u64, root: &str) -> Generator {
        let requests = Requests::new(seed, Profile::of(seed), root);
        Generator { random: Random::new(seed, 0xd1ff), profile: Profile::of(seed), requests, next_xid: 1 }
    }

    /// A path that came back from a create.
    pub fn learn(&mut self, path: &str) {
        self.requests.paths.learn(path);
    }

    pub fn step(&mut self, slots: &[Slot]) -> Step {
        let slot = self.random.below(SLOTS);
        match slots[slot] {
            Slot::NoSession => Step::Connect {
                slot,
                timeout_ms: self.random.pick(&[-1, 0, 30_000, 40_000, 1_000_000]),
                read_only: self.random.pick(&[Some(false), Some(false), Some(true), None]),
            },
            Slot::Dropped => self.reattach(slot),
            Slot::Connected => match self.random.weighted(&[92, 3, 2, 3]) {
                0 => self.burst(slot),
                1 => Step::Drop { slot },
                2 => self.take_over(slot),
                _ => self.last_words(slot),
            },
        }
    }

    /// A good password takes over; Java cuts the old connection before it looks at a bad one, and we look first.
    fn take_over(&mut self, slot: usize) -> Step {
        Step::Reattach { slot, timeout_ms: 30_000, password: Password::Right, last_zxid: LastZxid::Seen }
    }

    fn reattach(&mut self, slot: usize) -> Step {
        let random = &mut self.random;
        let password = match random.weighted(&[88, 4, 4, 4]) {
            0 => Password::Right,
            1 => Password::Wrong,
            2 => Password::Short,
            _ => Password::Null,
        };
        let last_zxid = random.pick(&[LastZxid::Seen, LastZxid::Seen, LastZxid::Seen, LastZxid::Zero, LastZxid::Ahead]);
        let timeout_ms = random.pick(&[30_000, 40_000, 1]);
        Step::Reattach { slot, timeout_ms, password, last_zxid }
    }

    fn burst(&mut self, slot: usize) -> Step {
        // Replies to auth may overtake others, so that it goes alone.
        if self.random.percent(self.requests.auth_percent()) {
            let body = self.requests.auth();
            return Step::Burst { slot, requests: vec![self.request(xid::AUTH, op::AUTH, body)] };
        }
        // Hard quotas look at what is applied, so that what a burst may do depends on how fast it is.
        let alone = self.profile == Profile::Quotas || self.random.percent(70);
        let len = if alone { 1 } else { 2 + self.random.below(7) };
        Step::Burst { slot, requests: self.some(slot, len) }
    }

    /// Behind a multi or setACL only reads are pipelined, because Java judges a write behind them as it happens:
    /// a failed multi puts back the pending changes of other requests, too (`PrepRequestProcessor.rollbackPendingChanges`),
    /// and a setACL that is still pending has not changed the ACL that the next write is checked against.
    fn some(&mut self, slot: usize, len: usize) -> Vec<Request> {
        let mut requests: Vec<Request> = Vec::with_capacity(len);
        for _ in 0..len {
            let only_reads = requests.iter().any(|r| matches!(r.op, op::MULTI | op::SET_ACL));
            requests.push(self.one(slot, only_reads));
        }
        requests
    }

    fn one(&mut self, slot: usize, is_read: bool) -> Request {
        let (op, body) = if is_read { self.requests.read(slot) } else { self.requests.any(slot) };
        let watches = matches!(op, op::SET_WATCHES | op::SET_WATCHES2);
        let xid = match () {
            () if watches => xid::SET_WATCHES,
            () if self.random.percent(2) => self.random.pick(&[0, -7, i32::MIN, i32::MAX]),
            () => self.fresh_xid(),
        };
        let mut request = self.request(xid, op, body);
        if watches {
            request.zxid_back = Some(self.random.below(12) as i64);
        }
        if self.random.percent(3) {
            self.damage(&mut request);
        }
        request
    }

    /// A body that is cut short, which is refused, or has bytes behind it, which are ignored. A createTTL could become
    /// one that stops Java; for an unreadable reconfig alone Java takes no zxid.
    fn damage(&mut self, request: &mut Request) {
        if self.random.percent(50) {
            request.body.extend_from_slice(b"behind");
            request.text += " + 6 bytes";
        } else if !request.body.is_empty() && !matches!(request.op, op::CREATE_TTL | op::RECONFIG) {
            let keep = self.random.below(request.body.len());
            request.body.truncate(keep);
            request.text += &format!(" cut to {keep} bytes");
        }
    }

    /// What ends a connection: closeSession, an unknown operation, bytes that are no frame.
    fn last_words(&mut self, slot: usize) -> Step {
        match self.random.below(4) {
            0 => {
                let op = self.random.pick(&[0, -1, 10, 23, 99, 108, 1_000, i32::MIN, i32::MAX]);
                let xid = self.fresh_xid();
                Step::Burst { slot, requests: vec![self.request(xid, op, Body::default().note(op))] }
            }
            1 => {
                let lengths = [-1, -5, i32::MIN, i32::MAX, 0x10_0000, 0, 4, 7];
                let len = self.random.pick(&lengths);
                let mut bytes = len.to_be_bytes().to_vec();
                bytes.resize(4 + len.clamp(0, 8) as usize, 0);
                Step::Garbage { slot, bytes }
            }
            _ => {
                let before = if self.profile == Profile::Quotas { 0 } else { self.random.below(3) };
                let mut requests = self.some(slot, before);
                let xid = self.fresh_xid();
                requests.push(self.request(xid, op::CLOSE_SESSION, Body::default()));
                Step::Burst { slot, requests }
            }
        }
    }

    pub fn request(&mut self, xid: i32, op: i32, body: Body) -> Request {
        Request { xid, op, body: body.bytes, zxid_back: None, text: body.text }
    }

    pub fn fresh_xid(&mut self) -> i32 {
        self.next_xid += 1;
        self.next_xid
    }
}
