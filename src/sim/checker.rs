//! The end: the decided txns are replayed into a plain model, and everything that any client was told must agree with it.

use std::collections::BTreeMap;

use super::history::{History, Operation, OperationIndex, Reply};
use super::model::{Changes, Model, Timeline};
use super::order::{Order, Violation};
use super::request::{Part, Request};
use super::watches;
use crate::types::error_code::ErrorCode;
use crate::types::ids::SessionId;
use crate::types::zxid::Zxid;
use crate::wire::client_encode::multi_error;
use crate::wire::jute::{JuteError, Reader};
use crate::wire::txn::{self, Txn, TxnHeader};

/// Checks a whole run.
pub fn check(history: &History, order: &Order) -> Result<(), Violation> {
    let mut replay = Replay::new(history);
    replay.reads(Zxid::ZERO)?;
    for (zxid, payload) in order.txns() {
        let decoded = txn::decode(payload).map_err(|error| format!("the txn {zxid} cannot be read: {error}"))?;
        replay.txn(&decoded.header, &decoded.txn)?;
    }
    if let Some((zxid, operations)) = replay.by_zxid.first_key_value() {
        let Operation { client, request, .. } = history.get(operations[0]);
        return Err(format!("client {} was told of {zxid} ({request}), which was never decided", client.0));
    }
    if let Some((session, _)) = replay.model.sessions.first_key_value() {
        return Err(format!("session {} is still there at the end", SessionId(*session)));
    }
    watches::check(history, &replay.timeline)
}

struct Replay<'a> {
    history: &'a History,
    model: Model,
    timeline: Timeline,
    /// What was answered at each version.
    by_zxid: BTreeMap<Zxid, Vec<OperationIndex>>,
    /// Which txn each write became, by what it left in the tree.
    done: BTreeMap<OperationIndex, Zxid>,
}

impl Replay<'_> {
    fn new(history: &History) -> Replay<'_> {
        let mut by_zxid: BTreeMap<Zxid, Vec<OperationIndex>> = BTreeMap::new();
        for (index, operation) in history.operations.iter().enumerate() {
            if let Some(reply) = &operation.reply {
                by_zxid.entry(reply.zxid).or_default().push(OperationIndex(index));
            }
        }
        Replay { history, model: Model::fresh(), timeline: Timeline::default(), by_zxid, done: BTreeMap::new() }
    }

    fn txn(&mut self, header: &TxnHeader, txn: &Txn<'_>) -> Result<(), Violation> {
        let zxid = header.zxid;
        self.note_tags(header, txn)?;
        if let Txn::CloseSession { paths: Some(paths) } = txn {
            let mut listed: Vec<&str> = paths.iter().map(AsRef::as_ref).collect();
            listed.sort_unstable();
            let owned = self.model.owned(header.session.0);
            // A closing without a list, padded in its log entry, reads like one with an empty list.
            if !listed.is_empty() && listed != owned {
                return Err(format!("{zxid} closes {} with {listed:?}, it owns {owned:?}", header.session));
            }
        }
        let own = self.own_write(header)?;
        if let Some(index) = own {
            self.judge(index, header, txn)?;
        }
        let mut changes = Changes::new();
        self.model.apply(header, txn, &mut changes);
        self.timeline.add(zxid, &changes);
        if let Some(index) = own {
            self.answer(index, &changes)?;
        }
        self.reads(zxid)
    }

    /// The acknowledged write that this txn was. There is at most one, and it is of this session.
    fn own_write(&self, header: &TxnHeader) -> Result<Option<OperationIndex>, Violation> {
        let Some(at) = self.by_zxid.get(&header.zxid) else { return Ok(None) };
        let is_numbered_write = |index: &&OperationIndex| {
            let operation = self.history.get(**index);
            let is_numbered = operation.reply.as_ref().is_some_and(|r| r.err != ErrorCode::NotReadOnly.code());
            operation.request.is_write() && is_numbered
        };
        let writes: Vec<&OperationIndex> = at.iter().filter(is_numbered_write).collect();
        let Some(first) = writes.first() else { return Ok(None) };
        let operation = self.history.get(**first);
        if writes.len() > 1 || (operation.session, operation.xid) != (header.session, header.cxid) {
            return Err(format!(
                "{} is the txn of {} xid {}, but client {} was told that it was its {}",
                header.zxid, header.session, header.cxid, operation.client.0, operation.request
            ));
        }
        Ok(Some(**first))
    }

    /// Every write leaves its number in the tree: it may do so once.
    fn note_tags(&mut self, header: &TxnHeader, txn: &Txn<'_>) -> Result<(), Violation> {
        let mut tags = Vec::new();
        collect_tags(txn, &mut tags);
        tags.dedup();
        for tag in tags {
            let index = OperationIndex(tag);
            if tag >= self.history.operations.len() {
                return Err(format!("{} holds the data of operation {tag}, which nobody asked for", header.zxid));
            }
            let operation = self.history.get(index);
            if (operation.session, operation.xid) != (header.session, header.cxid) {
                return Err(format!("{} holds the data of operation {tag} of another session", header.zxid));
            }
            if let Some(before) = self.done.insert(index, header.zxid) {
                return Err(format!("J-11: operation {tag} was done twice, at {before} and {}", header.zxid));
            }
        }
        Ok(())
    }

    /// Whether the outcome is the one that the tree before it asks for.
    fn judge(&mut self, index: OperationIndex, header: &TxnHeader, txn: &Txn<'_>) -> Result<(), Violation> {
        let operation = self.history.get(index);
        let Some(reply) = &operation.reply else { return Ok(()) };
        let wrong = |what: String| Err(format!("operation {} ({}): {what}", index.0, operation.request));
        let told = match &operation.request {
            Request::Multi(_) if reply.err == 0 => multi_error(&reply.body).unwrap_or(-1),
            _ => reply.err,
        };
        // A session that has ended meanwhile is told so, whatever it asked.
        if told == ErrorCode::SessionExpired.code() {
            return Ok(());
        }
        let expected = self.outcome(operation, header);
        if expected.err().map_or(0, ErrorCode::code) != told {
            return wrong(format!("told {told}, the tree says {expected:?}"));
        }
        let is_refused = txn.is_refused();
        if is_refused != expected.is_err() {
            return wrong(format!("the txn {txn:?} is not what became of it"));
        }
        let leaves_tag =
            operation.request.parts().iter().any(|part| !matches!(part, Part::Delete { .. } | Part::Check { .. }));
        if told == 0 && leaves_tag && self.done.get(&index) != Some(&header.zxid) {
            return wrong(format!("acknowledged at {}, which holds nothing of it", header.zxid));
        }
        Ok(())
    }

    fn outcome(&mut self, operation: &Operation, header: &TxnHeader) -> Result<(), ErrorCode> {
        let parts = operation.request.parts();
        let mut kept = self.model.keep(parts);
        let mut outcome = Ok(());
        for part in parts {
            outcome = self.model.judge(part);
            if outcome.is_err() || parts.len() == 1 {
                break;
            }
            // A sequential name is known only now.
            let created = match part {
                Part::Create { path, flags, .. } if flags & 2 != 0 => {
                    let counter =
                        self.model.nodes.get(super::model::split(path).0).map_or(0, |node| node.stat.cversion);
                    Some(format!("{path}{counter:010}"))
                }
                _ => None,
            };
            kept.extend(created.map(|path| (path.clone(), self.model.nodes.get(&path).cloned())));
            self.model.grant(header, part);
        }
        self.model.put_back(kept);
        outcome
    }

    /// What a granted write was told must be what it did.
    fn answer(&self, index: OperationIndex, changes: &Changes) -> Result<(), Violation> {
        let operation = self.history.get(index);
        let Some(reply) = operation.reply.as_ref().filter(|reply| reply.err == 0) else { return Ok(()) };
        let check = || -> Result<bool, JuteError> {
            let mut reader = Reader::new(&reply.body);
            match &operation.request {
                Request::Write { part: Part::Create { .. }, with_stat } => {
                    let path = reader.text()?;
                    let Some(node) = self.model.nodes.get(path.as_ref()) else { return Ok(false) };
                    let is_made = changes.iter().any(|(changed, _)| *changed == path);
                    Ok(is_made && (!with_stat || reader.stat()? == node.visible()))
                }
                Request::Write { part: Part::Set { path, .. }, .. } => {
                    let stat = reader.stat()?;
                    Ok(self.model.nodes.get(path).is_some_and(|node| node.visible() == stat))
                }
                _ => Ok(true),
            }
        };
        match check() {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("operation {} ({}) was told what it did not do", index.0, operation.request)),
            Err(error) => Err(format!("the reply to operation {} cannot be read: {error}", index.0)),
        }
    }

    /// Everything that was read at this version.
    fn reads(&mut self, zxid: Zxid) -> Result<(), Violation> {
        for index in self.by_zxid.remove(&zxid).unwrap_or_default() {
            let operation = self.history.get(index);
            let Some(reply) = &operation.reply else { continue };
            let is_right = self.read(operation, reply);
            let Operation { client, request, .. } = operation;
            match is_right {
                Ok(true) => {}
                Ok(false) => {
                    return Err(format!(
                        "client {} operation {} ({request}) was told something else than what {zxid} holds",
                        client.0, index.0
                    ));
                }
                Err(error) => return Err(format!("the reply to operation {} cannot be read: {error}", index.0)),
            }
        }
        Ok(())
    }

    fn read(&self, operation: &Operation, reply: &Reply) -> Result<bool, JuteError> {
        let mut reader = Reader::new(&reply.body);
        let (path, kind) = match &operation.request {
            Request::Get { path, .. } => (path, 0),
            Request::Exists { path, .. } => (path, 1),
            Request::Children { path, .. } => (path, 2),
            // A leader that does not know yet that there is a newer one answers with what it has (ZOOKEEPER-1675).
            Request::Sync { .. } => {
                let is_of_older_epoch = reply.zxid.epoch() < operation.told_before.epoch();
                return Ok(reply.err == 0 && (reply.zxid >= operation.told_before || is_of_older_epoch));
            }
            Request::Write { .. } | Request::Multi(_) | Request::SetWatches { .. } | Request::Close => return Ok(true),
        };
        let Some(node) = self.model.nodes.get(path) else { return Ok(reply.err == ErrorCode::NoNode.code()) };
        if reply.err != 0 {
            return Ok(false);
        }
        let is_same = match kind {
            0 => reader.buffer()?.unwrap_or_default() == node.data,
            1 => true,
            _ => {
                let mut names = reader.vector(|reader| reader.text())?.unwrap_or_default();
                names.sort_unstable();
                names.iter().map(AsRef::as_ref).eq(node.children.iter().map(String::as_str))
            }
        };
        Ok(is_same && reader.stat()? == node.visible())
    }
}

/// The operations whose data a txn holds.
fn collect_tags(txn: &Txn<'_>, tags: &mut Vec<usize>) {
    let data = match txn {
        Txn::Create(create) | Txn::Create2(create) => create.data.as_deref(),
        Txn::SetData(set) => set.data.as_deref(),
        Txn::Multi(parts) if !txn.is_refused() => return parts.iter().for_each(|part| collect_tags(part, tags)),
        _ => None,
    };
    let text = data.and_then(|data| data.split(|byte| *byte == b'.').next());
    tags.extend(text.and_then(|text| std::str::from_utf8(text).ok()).and_then(|text| text.parse::<usize>().ok()));
}
