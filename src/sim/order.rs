//! The one order, as the logs and the commits of all servers show it, and the rules that bind them at every step.

use std::collections::BTreeMap;

use super::scheduler::ServerIndex;
use crate::types::zxid::Zxid;

/// What must never be.
pub type Violation = String;

/// What is known about every txn that any server ever gave to its log.
#[derive(Debug)]
pub struct Order {
    /// There is one server only: what it loses in a crash, nobody has.
    is_alone: bool,
    known: BTreeMap<Zxid, Known>,
    /// Decided, in order.
    committed: Vec<Zxid>,
    /// What each server has given to its log last.
    logged: BTreeMap<ServerIndex, Zxid>,
    /// Up to where each server shows it to its clients.
    shown: BTreeMap<ServerIndex, Zxid>,
    /// Who was established as the leader of an epoch.
    leaders: BTreeMap<u32, ServerIndex>,
}

#[derive(Debug)]
struct Known {
    payload: Vec<u8>,
    /// Of the tree behind it, once some server has it as its head.
    digest: Option<u64>,
}

impl Order {
    pub fn new(is_alone: bool) -> Order {
        Order {
            is_alone,
            known: BTreeMap::new(),
            committed: Vec::new(),
            logged: BTreeMap::new(),
            shown: BTreeMap::new(),
            leaders: BTreeMap::new(),
        }
    }

    /// A server gives a txn to its log.
    pub fn on_logged(&mut self, server: ServerIndex, zxid: Zxid, payload: &[u8]) -> Result<(), Violation> {
        if let Some(last) = self.logged.insert(server, zxid).filter(|last| !follows(*last, zxid)) {
            return Err(format!("J-08: server {} logs {zxid} behind {last}", server.0));
        }
        match self.known.get(&zxid) {
            Some(known) if is_same(&known.payload, payload) => {}
            Some(_) if !self.is_alone || zxid <= self.decided() => {
                return Err(format!("I-10: server {} logs another txn as {zxid} than was proposed", server.0));
            }
            _ => {
                self.known.insert(zxid, Known { payload: payload.to_vec(), digest: None });
            }
        }
        Ok(())
    }

    /// What a server gives to its log next may follow on anything.
    pub fn on_log_changed(&mut self, server: ServerIndex) {
        self.logged.remove(&server);
    }

    /// A server's tree has this digest at its head.
    pub fn on_head(&mut self, server: ServerIndex, zxid: Zxid, digest: u64) -> Result<(), Violation> {
        // What is not known is on its way to the log.
        let Some(known) = self.known.get_mut(&zxid) else { return Ok(()) };
        match known.digest {
            Some(before) if before != digest => {
                Err(format!("J-17: server {} has digest {digest:x} at {zxid}, where {before:x} was", server.0))
            }
            _ => {
                known.digest = Some(digest);
                Ok(())
            }
        }
    }

    /// A server is established as the leader of an epoch.
    pub fn on_leader(&mut self, server: ServerIndex, epoch: u32) -> Result<(), Violation> {
        match self.leaders.insert(epoch, server) {
            Some(before) if before != server => {
                Err(format!("I-08: servers {} and {} both led epoch {epoch}", before.0, server.0))
            }
            _ => Ok(()),
        }
    }

    /// A server shows its clients everything up to here. `is_durable`: whether enough disks hold a txn at this moment.
    pub fn on_shown(
        &mut self,
        server: ServerIndex,
        upto: Zxid,
        is_durable: impl Fn(Zxid) -> bool,
    ) -> Result<(), Violation> {
        let before = self.shown.insert(server, upto).unwrap_or_default();
        if upto < before {
            return Err(format!("server {} went back from {before} to {upto}", server.0));
        }
        let decided = self.decided();
        // A tree that came as a snapshot may be named after the beginning of an epoch, which is no txn.
        if upto <= decided || upto.counter() == 0 {
            return Ok(());
        }
        if !self.known.contains_key(&upto) {
            return Err(format!("I-10: server {} shows {upto}, which is in nobody's log", server.0));
        }
        // What is on too few disks belongs to a history that nobody led on with.
        let new: Vec<Zxid> = self
            .known
            .range(Zxid(decided.0 + 1)..=upto)
            .map(|(zxid, _)| *zxid)
            .filter(|zxid| is_durable(*zxid))
            .collect();
        if new.last() != Some(&upto) {
            return Err(format!("J-03: server {} shows {upto}, which is not durable on enough disks", server.0));
        }
        for zxid in new {
            let last = self.decided();
            if !follows(last, zxid) {
                return Err(format!("J-03, J-08: server {} shows {zxid} behind {last}", server.0));
            }
            self.committed.push(zxid);
        }
        Ok(())
    }

    /// A server starts from its disk. Alone, all it has is decided.
    pub fn on_started(&mut self, server: ServerIndex, head: Zxid) -> Result<(), Violation> {
        self.shown.remove(&server);
        self.on_log_changed(server);
        if !self.is_alone {
            return Ok(());
        }
        let decided = self.decided();
        if head < decided {
            return Err(format!("J-09: server {} comes back with {head}, and {decided} was decided", server.0));
        }
        // What it lost was never decided: those zxids are used again.
        self.known.retain(|zxid, _| *zxid <= head);
        self.on_shown(server, head, |_| true)
    }

    /// The newest decided txn.
    pub fn decided(&self) -> Zxid {
        self.committed.last().copied().unwrap_or_default()
    }

    /// All decided txns with their payloads, in order.
    pub fn txns(&self) -> impl Iterator<Item = (Zxid, &[u8])> {
        self.txns_behind(Zxid::ZERO)
    }

    /// The same, behind a zxid.
    pub fn txns_behind(&self, zxid: Zxid) -> impl Iterator<Item = (Zxid, &[u8])> {
        let from = self.committed.partition_point(|committed| *committed <= zxid);
        self.committed[from..].iter().filter_map(|zxid| Some((*zxid, self.known.get(zxid)?.payload.as_slice())))
    }
}

/// Two log entries of one txn may be padded differently.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.starts_with(short) && long[short.len()..].iter().all(|byte| *byte == 0)
}

/// Within an epoch the next number; a new epoch begins with 1.
fn follows(last: Zxid, next: Zxid) -> bool {
    next == last.next() || (next.epoch() > last.epoch() && next.counter() == 1)
}
