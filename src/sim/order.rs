//! The one order, as the logs and the commits of all servers show it, and the rules that bind them at every step.

use std::collections::BTreeMap;

use super::scheduler::ServerIndex;
use crate::types::zxid::Zxid;

/// What is known about every txn that any server ever gave to its log.
#[derive(Debug, Default)]
pub struct Order {
    known: BTreeMap<Zxid, Known>,
    /// Decided, in order.
    committed: Vec<Zxid>,
    /// How much of it each server has applied for its clients.
    applied: BTreeMap<ServerIndex, Zxid>,
}

#[derive(Debug)]
struct Known {
    payload: Vec<u8>,
    /// Of the tree behind it, once some server has it as its head.
    digest: Option<u64>,
}

/// What must never be.
pub type Violation = String;

impl Order {
    /// A server gives a txn to its log. A txn that was not decided may be another one after a crash of the only server.
    pub fn on_logged(&mut self, server: ServerIndex, zxid: Zxid, payload: &[u8]) -> Result<(), Violation> {
        let decided = self.decided();
        match self.known.get_mut(&zxid) {
            Some(known) if is_same(&known.payload, payload) => {}
            Some(_) if zxid <= decided => {
                return Err(format!("I-09: server {} logs another txn as {zxid} than the one decided", server.0));
            }
            _ => {
                self.known.insert(zxid, Known { payload: payload.to_vec(), digest: None });
            }
        }
        Ok(())
    }

    /// A server's tree has this digest at its head.
    pub fn on_head(&mut self, server: ServerIndex, zxid: Zxid, digest: u64) -> Result<(), Violation> {
        let decided = self.decided();
        match self.known.get_mut(&zxid) {
            // It is on its way to the log.
            None => Ok(()),
            Some(known) => match known.digest {
                Some(before) if before != digest && zxid <= decided => {
                    Err(format!("J-17: server {} has digest {digest:x} at {zxid}, where {before:x} was", server.0))
                }
                _ => {
                    known.digest = Some(digest);
                    Ok(())
                }
            },
        }
    }

    /// A server serves everything up to here. `is_durable`: whether enough disks hold a txn at this moment.
    pub fn on_committed(
        &mut self,
        server: ServerIndex,
        upto: Zxid,
        mut is_durable: impl FnMut(Zxid) -> bool,
    ) -> Result<(), Violation> {
        let before = self.applied.get(&server).copied().unwrap_or_default();
        if upto < before {
            return Err(format!("server {} went back from {before} to {upto}", server.0));
        }
        self.applied.insert(server, upto);
        let decided = self.decided();
        if upto <= decided {
            return match self.committed.binary_search(&upto) {
                Ok(_) => Ok(()),
                Err(_) if upto == Zxid::ZERO => Ok(()),
                Err(_) => Err(format!("I-09: server {} serves {upto}, which was never decided", server.0)),
            };
        }
        let new: Vec<Zxid> = self.known.range(Zxid(decided.0 + 1)..=upto).map(|(zxid, _)| *zxid).collect();
        if new.last() != Some(&upto) {
            return Err(format!("I-10: server {} serves {upto}, which is in nobody's log", server.0));
        }
        for zxid in new {
            let last = self.decided();
            if !follows(last, zxid) {
                return Err(format!("J-08: {zxid} is decided behind {last}"));
            }
            if !is_durable(zxid) {
                return Err(format!("J-03: server {} serves {zxid}, which is not durable on enough disks", server.0));
            }
            self.committed.push(zxid);
        }
        Ok(())
    }

    /// A server starts from its disk alone. `is_committed`: there is nobody else to ask, so all it has is decided.
    pub fn on_started(&mut self, server: ServerIndex, head: Zxid) -> Result<(), Violation> {
        let decided = self.decided();
        if head < decided {
            return Err(format!("J-09: server {} comes back with {head}, and {decided} was decided", server.0));
        }
        // What it lost was never decided: those zxids are used again.
        self.known.retain(|zxid, _| *zxid <= head);
        self.applied.insert(server, decided);
        self.on_committed(server, head, |_| true)
    }

    /// The newest decided txn.
    pub fn decided(&self) -> Zxid {
        self.committed.last().copied().unwrap_or_default()
    }

    /// All decided txns with their payloads, in order.
    pub fn txns(&self) -> impl Iterator<Item = (Zxid, &[u8])> {
        self.committed.iter().filter_map(|zxid| Some((*zxid, self.known.get(zxid)?.payload.as_slice())))
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
