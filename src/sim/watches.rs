//! Each client's own view: versions never go back, and an event comes before anything that shows its change.

use std::collections::BTreeMap;

use super::history::{History, Operation, Reply, Seen};
use super::model::Timeline;
use super::order::Violation;
use super::request::Request;
use super::scheduler::ClientIndex;
use crate::types::error_code::ErrorCode;
use crate::types::zxid::Zxid;

/// A watch that a client has, by path and whether it is one of children.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Watch {
    /// The version at which it was set.
    since: Zxid,
    /// The server knows of it; not so after a reconnect, until `SetWatches` is answered.
    is_active: bool,
}

/// One client's way through its history.
struct View<'a> {
    timeline: &'a Timeline,
    history: &'a History,
    watches: BTreeMap<(bool, String), Watch>,
    /// The newest zxid that this client remembers.
    last: Zxid,
}

/// Walks every client's history.
pub fn check(history: &History, timeline: &Timeline) -> Result<(), Violation> {
    for client in 0..history.seen.len() {
        let client = ClientIndex(client);
        let mut view = View { timeline, history, watches: BTreeMap::new(), last: Zxid::ZERO };
        for (at, seen) in history.seen[client.0].iter().enumerate() {
            view.see(seen).map_err(|what| format!("client {} at its {at}th event: {what}", client.0))?;
        }
    }
    Ok(())
}

impl View<'_> {
    fn see(&mut self, seen: &Seen) -> Result<(), Violation> {
        match seen {
            Seen::Attached { remembers, .. } => {
                if !remembers {
                    (self.watches, self.last) = (BTreeMap::new(), Zxid::ZERO);
                }
                Ok(())
            }
            Seen::Detached => {
                self.watches.values_mut().for_each(|watch| watch.is_active = false);
                Ok(())
            }
            Seen::Expired(_) => {
                (self.watches, self.last) = (BTreeMap::new(), Zxid::ZERO);
                Ok(())
            }
            Seen::Event { zxid, kind, path } => self.on_event(*zxid, *kind, path),
            Seen::Reply(index) => {
                let operation = self.history.get(*index);
                let Some(reply) = &operation.reply else { return Ok(()) };
                self.on_reply(operation, reply).map_err(|what| {
                    let Operation { xid, request, session, .. } = operation;
                    format!("operation {} ({request}, xid {xid} of session {session}): {what}", index.0)
                })
            }
        }
    }

    fn on_event(&mut self, zxid: i64, kind: i32, path: &str) -> Result<(), Violation> {
        let tables: &[bool] = match kind {
            1 | 3 => &[false],
            2 => &[false, true],
            _ => &[true],
        };
        let mut is_expected = false;
        for is_child in tables {
            let key = (*is_child, path.to_owned());
            let Some(watch) = self.watches.get(&key).copied() else { continue };
            // What a reconnect catches up with is told without a zxid.
            let due = self.timeline.first_after(*is_child, path, watch.since);
            is_expected |= match due {
                Some((at, what)) if watch.is_active => at.as_i64() == zxid && what == kind,
                _ => !watch.is_active && zxid == -1,
            };
            self.watches.remove(&key);
        }
        if !is_expected {
            return Err(format!("event {kind} for {path} at {zxid:#x}, which no watch asks for"));
        }
        if zxid >= 0 {
            self.rise(Zxid(zxid as u64), false)?;
        }
        Ok(())
    }

    /// A write is newer than everything before it; nothing is older.
    fn rise(&mut self, zxid: Zxid, is_write: bool) -> Result<(), Violation> {
        if zxid < self.last || (is_write && zxid == self.last) {
            return Err(format!("zxid {zxid} after {} was seen", self.last));
        }
        self.last = zxid;
        Ok(())
    }

    fn on_reply(&mut self, operation: &Operation, reply: &Reply) -> Result<(), Violation> {
        // An answer that has no place of its own in the order tells the zxid before it.
        let is_numbered = reply.err != ErrorCode::NotReadOnly.code();
        for ((is_child, path), watch) in self.watches.iter().filter(|(_, watch)| watch.is_active) {
            if let Some((due, kind)) = self.timeline.first_after(*is_child, path, watch.since)
                && due <= reply.zxid
            {
                return Err(format!("answered at {}, but event {kind} for {path} of {due} has not come", reply.zxid));
            }
        }
        // Events of its own write come before the write's answer and carry its zxid.
        let is_own_event = operation.request.is_write() && self.last == reply.zxid;
        self.rise(reply.zxid, operation.request.is_write() && is_numbered && !is_own_event)?;
        if operation.request.is_write() && is_numbered && reply.zxid <= operation.told_before {
            return Err(format!(
                "a write at {}, and {} was known before it was sent",
                reply.zxid, operation.told_before
            ));
        }
        self.register(&operation.request, reply)
    }

    fn register(&mut self, request: &Request, reply: &Reply) -> Result<(), Violation> {
        let (is_child, path) = match request {
            Request::Get { path, watch: true } | Request::Exists { path, watch: true } if reply.err == 0 => {
                (false, path)
            }
            Request::Exists { path, watch: true } if reply.err == ErrorCode::NoNode.code() => (false, path),
            Request::Children { path, watch: true } if reply.err == 0 => (true, path),
            Request::SetWatches { relative, data, exist, child } => {
                return self.restore(*relative, [data, exist, child], reply);
            }
            Request::Get { .. }
            | Request::Exists { .. }
            | Request::Children { .. }
            | Request::Sync { .. }
            | Request::Write { .. }
            | Request::Multi(_)
            | Request::Close => return Ok(()),
        };
        self.watches.insert((is_child, path.clone()), Watch { since: reply.zxid, is_active: true });
        Ok(())
    }

    /// What is left of the watches is set again, and must have nothing to tell.
    fn restore(
        &mut self,
        relative: Zxid,
        [data, exist, child]: [&Vec<String>; 3],
        reply: &Reply,
    ) -> Result<(), Violation> {
        let missed = |is_child, path: &str| {
            let due = self.timeline.first_after(is_child, path, relative);
            due.filter(|(due, _)| *due <= reply.zxid)
        };
        for (is_child, path) in data.iter().map(|path| (false, path)).chain(child.iter().map(|path| (true, path))) {
            let is_left = self.watches.contains_key(&(is_child, path.clone()));
            if let Some((due, kind)) = missed(is_child, path).filter(|_| is_left) {
                return Err(format!("event {kind} for {path} of {due} was missed and not caught up with"));
            }
        }
        for path in exist {
            if self.watches.contains_key(&(false, path.clone())) && self.timeline.exists(path, reply.zxid) {
                return Err(format!("{path} is there, and the watch for its creation was not told"));
            }
        }
        for watch in self.watches.values_mut().filter(|watch| !watch.is_active) {
            *watch = Watch { since: reply.zxid, is_active: true };
        }
        Ok(())
    }
}
