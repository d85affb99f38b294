//! Requests of this server's clients that are under way: handed to a leader, or proposed by this server in an ensemble, and
//! not decided yet.
//!
//! ```text
//! writes, oldest first   [ have their txn, which is not decided │ matched │ have not come back ]
//! syncs, oldest first    each behind the writes that it was handed over behind
//! ```
//!
//! Links and leaders keep order, so a txn of ours is the answer to the first write that has none. What is lost when a
//! leader dies is therefore the end of this list, and can be handed over again in order.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::shard::auth::AuthIds;
use crate::tree::publication::Origin;
use crate::types::acl::Id;
use crate::types::error_code::ErrorCode;
use crate::types::ids::SessionId;
use crate::types::zxid::Zxid;
use crate::wire::client::OpCode;
use crate::wire::txn::{TxnHeader, txn_type};
use crate::zab::LearnerRequest;

/// What a client wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    Write(OpCode),
    /// A new session; its id is chosen already.
    Open {
        timeout_ms: i32,
    },
    /// The leader could not even read it, so this server answers itself, at its place.
    Refused(ErrorCode),
}

/// One request.
#[derive(Clone, Debug)]
pub struct PendingWrite {
    pub origin: Origin,
    pub session: SessionId,
    pub cxid: i32,
    pub wish: Wish,
    /// The ids of the connection when the request was read; a new session has none yet.
    pub auth: Option<Arc<AuthIds>>,
    /// The head when it was handed over: its txn is newer.
    pub since: Zxid,
    /// Its txn, once that has come.
    zxid: Option<Zxid>,
    order: u64,
    /// Counted from the first byte ever.
    body: Range<u64>,
}

impl PendingWrite {
    pub fn new(origin: Origin, session: SessionId, cxid: i32, wish: Wish, since: Zxid) -> PendingWrite {
        PendingWrite { origin, session, cxid, wish, auth: None, since, zxid: None, order: 0, body: 0..0 }
    }

    pub fn with_auth(self, auth: &Arc<AuthIds>) -> PendingWrite {
        PendingWrite { auth: Some(Arc::clone(auth)), ..self }
    }

    /// The operation as it stands in requests and txns.
    pub fn op(&self) -> i32 {
        match self.wish {
            Wish::Write(op) => op as i32,
            Wish::Open { .. } => txn_type::CREATE_SESSION,
            Wish::Refused(_) => txn_type::ERROR,
        }
    }

    pub fn ids(&self) -> &[Id] {
        self.auth.as_ref().map_or(&[], |auth| auth.ids())
    }

    /// Whether this txn is its answer. An error txn carries no operation.
    fn is_answered_by(&self, header: &TxnHeader, kind: i32) -> bool {
        let is_ours = self.session == header.session && self.cxid == header.cxid && header.zxid > self.since;
        is_ours && (kind == self.op() || kind == txn_type::ERROR) && !matches!(self.wish, Wish::Refused(_))
    }
}

/// A `sync` that the leader has not answered.
#[derive(Clone, Debug)]
pub struct PendingSync {
    pub origin: Origin,
    pub session: SessionId,
    pub cxid: i32,
    pub auth: Arc<AuthIds>,
    /// The request's record: the path, which the answer echoes.
    pub body: Box<[u8]>,
    order: u64,
}

impl PendingSync {
    pub fn new(origin: Origin, session: SessionId, cxid: i32, auth: &Arc<AuthIds>, body: &[u8]) -> PendingSync {
        PendingSync { origin, session, cxid, auth: Arc::clone(auth), body: body.into(), order: 0 }
    }

    /// As it goes to the leader.
    pub fn request(&self) -> LearnerRequest<'_> {
        LearnerRequest {
            session: self.session,
            cxid: self.cxid,
            op: OpCode::Sync as i32,
            body: &self.body,
            auth: self.auth.ids(),
        }
    }
}

/// Whose txn came.
#[derive(Clone, Debug)]
pub enum Match {
    Foreign,
    Ours(PendingWrite),
    /// It answers a write that others stand before, whose own txns have been lost: they are taken out, and their clients
    /// will never be answered.
    Skipped {
        ours: PendingWrite,
        lost: Vec<PendingWrite>,
    },
}

/// One of what has to be handed over again.
#[derive(Debug)]
pub enum Unanswered {
    Write(PendingWrite),
    Sync(PendingSync),
}

#[derive(Debug, Default)]
pub struct Pending {
    writes: VecDeque<PendingWrite>,
    /// Of `writes`, those with a txn: all of them stand before all others.
    matched: usize,
    syncs: VecDeque<PendingSync>,
    next_order: u64,
    /// Bodies of `writes`, in order.
    bytes: Vec<u8>,
    /// Number of the first byte in `bytes`.
    bytes_start: u64,
}

/// Bodies that are not needed any more are let go in pieces of at least so many bytes.
const DRAINED_BYTES_MIN: usize = 64 << 10;

impl Pending {
    /// Bytes of requests in it.
    pub fn bytes(&self) -> usize {
        let start = self.writes.front().map_or(self.bytes_start + self.bytes.len() as u64, |write| write.body.start);
        self.bytes.len() - (start - self.bytes_start) as usize
    }

    pub fn len(&self) -> usize {
        self.writes.len() + self.syncs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.syncs.is_empty()
    }

    /// Another write, behind all others.
    pub fn push(&mut self, write: PendingWrite, body: &[u8]) {
        let start = self.bytes_start + self.bytes.len() as u64;
        self.bytes.extend_from_slice(body);
        let order = self.take_order();
        self.writes.push_back(PendingWrite { order, zxid: None, body: start..start + body.len() as u64, ..write });
    }

    /// The same for one that this server, as leader, has proposed.
    pub fn push_proposed(&mut self, write: PendingWrite, body: &[u8], zxid: Zxid) {
        debug_assert_eq!(self.matched, self.writes.len(), "what waits is proposed first");
        self.push(write, body);
        self.set_zxid(self.writes.len() - 1, zxid);
    }

    pub fn push_sync(&mut self, sync: PendingSync) {
        let order = self.take_order();
        self.syncs.push_back(PendingSync { order, ..sync });
    }

    fn take_order(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order
    }

    /// The last write that was pushed, as it goes to the leader.
    pub fn last_request(&self) -> Option<LearnerRequest<'_>> {
        self.writes.back().map(|write| self.request(write))
    }

    fn request<'a>(&'a self, write: &'a PendingWrite) -> LearnerRequest<'a> {
        LearnerRequest {
            session: write.session,
            cxid: write.cxid,
            op: write.op(),
            body: self.body(write),
            auth: write.ids(),
        }
    }

    /// The record behind the request's header.
    pub fn body(&self, write: &PendingWrite) -> &[u8] {
        let at = |offset: u64| (offset - self.bytes_start) as usize;
        &self.bytes[at(write.body.start)..at(write.body.end)]
    }

    fn set_zxid(&mut self, at: usize, zxid: Zxid) {
        if let Some(write) = self.writes.get_mut(at) {
            write.zxid = Some(zxid);
            self.matched = at + 1;
        }
    }

    /// A txn has come: is it the answer to one of ours? If so, that one has its txn from now on. `is_here` says whether a
    /// session has its client here; the txns of others need no second look.
    pub fn on_txn(&mut self, header: &TxnHeader, kind: i32, is_here: impl FnOnce(SessionId) -> bool) -> Match {
        let Some(front) = self.writes.get(self.matched) else { return Match::Foreign };
        if front.is_answered_by(header, kind) {
            let ours = front.clone();
            self.set_zxid(self.matched, header.zxid);
            return Match::Ours(ours);
        }
        if !is_here(header.session) {
            return Match::Foreign;
        }
        let mut waiting = self.writes.range(self.matched..);
        let Some(skipped) = waiting.position(|write| write.is_answered_by(header, kind)) else { return Match::Foreign };
        let lost: Vec<PendingWrite> = self.writes.drain(self.matched..self.matched + skipped).collect();
        let ours = self.writes[self.matched].clone();
        self.set_zxid(self.matched, header.zxid);
        Match::Skipped { ours, lost }
    }

    /// The next write, if it is one that this server answers itself and nothing stands before it: answered at `zxid`.
    pub fn take_refused(&mut self, zxid: Zxid) -> Option<(PendingWrite, ErrorCode)> {
        let write = self.writes.get(self.matched)?;
        let Wish::Refused(error) = write.wish else { return None };
        if self.syncs.front().is_some_and(|sync| sync.order < write.order) {
            return None;
        }
        let write = write.clone();
        self.set_zxid(self.matched, zxid);
        Some((write, error))
    }

    /// The leader has answered the oldest sync.
    pub fn take_sync(&mut self) -> Option<PendingSync> {
        self.syncs.pop_front()
    }

    /// The oldest sync, if a write that was handed over behind it is decided, with all up to `upto`, and that write's zxid.
    /// A leader answers them in order, so it died before its answer arrived.
    pub fn take_overtaken(&mut self, upto: Zxid) -> Option<(PendingSync, Zxid)> {
        let order = self.syncs.front()?.order;
        let overtaker = self.writes.range(..self.matched).find(|write| write.order > order)?;
        let zxid = overtaker.zxid.filter(|zxid| *zxid <= upto)?;
        Some((self.syncs.pop_front()?, zxid))
    }

    /// Everything up to here is decided: answered for good.
    pub fn on_committed(&mut self, upto: Zxid) {
        while self.writes.front().is_some_and(|write| write.zxid.is_some_and(|zxid| zxid <= upto)) {
            self.writes.pop_front();
            self.matched -= 1;
        }
        self.let_go_of_bytes();
    }

    fn let_go_of_bytes(&mut self) {
        let unused = self.bytes.len() - self.bytes();
        if unused == self.bytes.len() {
            self.bytes_start += unused as u64;
            self.bytes.clear();
        } else if unused >= DRAINED_BYTES_MIN && unused >= self.bytes.len() / 2 {
            self.bytes_start += unused as u64;
            self.bytes.drain(..unused);
        }
    }

    /// The log was cut behind `to`: writes whose txns are gone have none again.
    pub fn on_truncated(&mut self, to: Zxid) {
        self.matched = self.writes.iter().take_while(|write| write.zxid.is_some_and(|zxid| zxid <= to)).count();
        for write in self.writes.range_mut(self.matched..) {
            write.zxid = None;
        }
    }

    /// Whether there is anything to hand over again.
    pub fn has_unanswered(&self) -> bool {
        self.matched < self.writes.len() || !self.syncs.is_empty()
    }

    /// The oldest one that has no answer, to be prepared by this server itself: a write, with its body, for which
    /// `on_proposed` follows, or a sync, which is taken.
    pub fn next_unanswered(&mut self, body: &mut Vec<u8>) -> Option<Unanswered> {
        let sync_order = self.syncs.front().map(|sync| sync.order);
        match self.writes.get(self.matched).filter(|write| !matches!(write.wish, Wish::Refused(_))) {
            Some(write) if sync_order.is_none_or(|order| write.order < order) => {
                body.clear();
                body.extend_from_slice(self.body(write));
                Some(Unanswered::Write(write.clone()))
            }
            _ => self.syncs.pop_front().map(Unanswered::Sync),
        }
    }

    /// This server has proposed the oldest write that had no answer.
    pub fn on_proposed(&mut self, zxid: Zxid) {
        self.set_zxid(self.matched, zxid);
    }

    /// The connections whose writes have no answer.
    pub fn undecided(&self) -> BTreeSet<Origin> {
        self.writes.range(self.matched..).map(|write| write.origin).collect()
    }

    /// Drops those without an answer whose connection is gone, by what `is_attached` says.
    pub fn forget_gone(&mut self, is_attached: impl Fn(SessionId, Origin) -> bool) {
        let matched = self.matched;
        let mut at = 0;
        self.writes.retain(|write| {
            at += 1;
            at <= matched || is_attached(write.session, write.origin)
        });
        self.syncs.retain(|sync| is_attached(sync.session, sync.origin));
    }

    /// Everything that has no answer, in the order in which it was handed over, for a new leader. Those that this server
    /// answers itself are not among it. From now on only what is newer than `head` answers it.
    pub fn hand_over(&mut self, head: Zxid, mut hand: impl FnMut(LearnerRequest<'_>)) {
        for write in self.writes.range_mut(self.matched..) {
            write.since = head;
        }
        let mut syncs = self.syncs.iter().peekable();
        for write in self.writes.range(self.matched..) {
            while let Some(sync) = syncs.next_if(|sync| sync.order < write.order) {
                hand(sync.request());
            }
            if !matches!(write.wish, Wish::Refused(_)) {
                hand(self.request(write));
            }
        }
        syncs.for_each(|sync| hand(sync.request()));
    }

    /// All of it is moot.
    pub fn clear(&mut self) {
        let next_order = self.next_order;
        *self = Pending { next_order, ..Pending::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ids::{ConnectionId, ShardId};
    use crate::types::time::WallTime;

    const ORIGIN: Origin = Origin { shard: ShardId(0), connection: ConnectionId(1) };
    const SESSION: SessionId = SessionId(7);
    /// Which sessions have their clients on this server: all that are asked about.
    const HERE: fn(SessionId) -> bool = |_| true;

    fn auth() -> Arc<AuthIds> {
        Arc::new(AuthIds::of_peer(([127, 0, 0, 1], 1).into()))
    }

    fn write(cxid: i32) -> PendingWrite {
        PendingWrite::new(ORIGIN, SESSION, cxid, Wish::Write(OpCode::Create), Zxid(10)).with_auth(&auth())
    }

    fn header(cxid: i32, zxid: u64) -> TxnHeader {
        TxnHeader { session: SESSION, cxid, zxid: Zxid(zxid), time: WallTime(0) }
    }

    fn with_writes(cxids: Range<i32>) -> Pending {
        let mut pending = Pending::default();
        for cxid in cxids {
            pending.push(write(cxid), format!("body {cxid}").as_bytes());
        }
        pending
    }

    /// The cxids of what would be handed over, and the bodies.
    fn handed(pending: &mut Pending, head: u64) -> Vec<(i32, String)> {
        let mut handed = Vec::new();
        pending.hand_over(Zxid(head), |request| {
            handed.push((request.cxid, String::from_utf8_lossy(request.body).into_owned()));
        });
        handed
    }

    #[test]
    fn txns_answer_in_order_and_those_of_others_answer_nobody() {
        let mut pending = with_writes(1..4);
        let foreign = TxnHeader { session: SessionId(8), ..header(1, 11) };
        assert!(matches!(pending.on_txn(&foreign, txn_type::CREATE, HERE), Match::Foreign));
        assert!(matches!(pending.on_txn(&header(1, 11), txn_type::DELETE, HERE), Match::Foreign));
        assert!(
            matches!(pending.on_txn(&header(1, 10), txn_type::CREATE, HERE), Match::Foreign),
            "older than the request"
        );
        assert!(matches!(pending.on_txn(&header(1, 11), txn_type::CREATE, HERE), Match::Ours(ours) if ours.cxid == 1));
        assert!(matches!(pending.on_txn(&header(2, 12), txn_type::ERROR, HERE), Match::Ours(ours) if ours.cxid == 2));
        pending.on_committed(Zxid(11));
        assert_eq!(pending.len(), 2);
        assert_eq!(handed(&mut pending, 12), [(3, "body 3".to_owned())]);
    }

    #[test]
    fn a_skipped_write_is_told_and_forgotten() {
        let mut pending = with_writes(1..4);
        let Match::Skipped { ours, lost } = pending.on_txn(&header(3, 11), txn_type::CREATE, HERE) else { panic!() };
        assert_eq!((ours.cxid, lost.iter().map(|write| write.cxid).collect::<Vec<_>>()), (3, vec![1, 2]));
        pending.on_committed(Zxid(11));
        assert!(pending.is_empty() && pending.bytes() == 0);
    }

    #[test]
    fn a_cut_log_takes_answers_back() {
        let mut pending = with_writes(1..4);
        for cxid in 1..4 {
            assert!(matches!(pending.on_txn(&header(cxid, 10 + cxid as u64), txn_type::CREATE, HERE), Match::Ours(_)));
        }
        assert!(!pending.has_unanswered());
        pending.on_truncated(Zxid(11));
        let bodies: Vec<_> = handed(&mut pending, 11);
        assert_eq!(bodies, [(2, "body 2".to_owned()), (3, "body 3".to_owned())]);
        pending.on_committed(Zxid(11));
        assert_eq!(pending.len(), 2);
    }

    #[test]
    fn syncs_keep_their_place_between_writes() {
        let mut pending = with_writes(1..3);
        pending.push_sync(PendingSync::new(ORIGIN, SESSION, 3, &auth(), b"path"));
        pending.push(write(4), b"body 4");
        assert!(matches!(pending.on_txn(&header(1, 11), txn_type::CREATE, HERE), Match::Ours(_)));
        let cxids = |pending: &mut Pending| handed(pending, 11).into_iter().map(|(cxid, _)| cxid).collect::<Vec<_>>();
        assert_eq!(cxids(&mut pending), [2, 3, 4]);
        let mut body = Vec::new();
        assert!(matches!(pending.next_unanswered(&mut body), Some(Unanswered::Write(write)) if write.cxid == 2));
        assert_eq!(body, b"body 2");
        pending.on_proposed(Zxid(12));
        assert!(matches!(pending.next_unanswered(&mut body), Some(Unanswered::Sync(sync)) if sync.cxid == 3));
        pending.forget_gone(|_, _| false);
        assert!(!pending.has_unanswered());
        assert_eq!(pending.len(), 2, "what has its txn stays until that is decided");
    }

    #[test]
    fn a_sync_is_overtaken_by_a_decided_write_behind_it_only() {
        let mut pending = with_writes(1..2);
        pending.push_sync(PendingSync::new(ORIGIN, SESSION, 2, &auth(), b"path"));
        pending.push(write(3), b"body 3");
        assert!(matches!(pending.on_txn(&header(1, 11), txn_type::CREATE, HERE), Match::Ours(_)));
        assert!(pending.take_overtaken(Zxid(11)).is_none());
        assert!(matches!(pending.on_txn(&header(3, 12), txn_type::CREATE, HERE), Match::Ours(_)));
        assert!(pending.take_overtaken(Zxid(11)).is_none(), "not decided");
        assert!(matches!(pending.take_overtaken(Zxid(12)), Some((sync, Zxid(12))) if sync.cxid == 2));
        assert!(pending.take_overtaken(Zxid(12)).is_none());
    }

    #[test]
    fn a_request_that_no_leader_could_read_is_answered_at_its_place() {
        let mut pending = with_writes(1..2);
        let refused = PendingWrite::new(ORIGIN, SESSION, 2, Wish::Refused(ErrorCode::MarshallingError), Zxid(10));
        pending.push(refused, b"");
        assert!(pending.take_refused(Zxid(10)).is_none(), "not before the one before it");
        assert_eq!(handed(&mut pending, 10).len(), 1);
        assert!(matches!(pending.on_txn(&header(1, 11), txn_type::CREATE, HERE), Match::Ours(_)));
        assert!(matches!(pending.take_refused(Zxid(11)), Some((write, _)) if write.cxid == 2));
        pending.on_committed(Zxid(11));
        assert!(pending.is_empty());

        pending.push_sync(PendingSync::new(ORIGIN, SESSION, 3, &auth(), b"path"));
        pending.push(PendingWrite::new(ORIGIN, SESSION, 4, Wish::Refused(ErrorCode::MarshallingError), Zxid(11)), b"");
        assert!(pending.take_refused(Zxid(11)).is_none(), "nor before a sync");
        pending.take_sync();
        assert!(pending.take_refused(Zxid(11)).is_some());
    }

    #[test]
    fn bodies_are_let_go_of_as_they_are_answered() {
        let mut pending = Pending::default();
        for cxid in 1..1000 {
            pending.push(write(cxid), &[cxid as u8; 1000]);
            let zxid = 10 + cxid as u64;
            assert!(matches!(pending.on_txn(&header(cxid, zxid), txn_type::CREATE, HERE), Match::Ours(_)));
            pending.on_committed(Zxid(zxid - 5));
            assert!(pending.bytes() <= 5_000 && pending.bytes.len() <= 2 * DRAINED_BYTES_MIN + 10_000);
        }
        assert!(pending.writes.iter().all(|write| pending.body(write).iter().all(|byte| *byte == write.cxid as u8)));
    }
}
