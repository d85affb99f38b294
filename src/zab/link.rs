//! One learner, as its leader sees it: how far it has come, and what it is to be sent.
//!
//! ```text
//! Silent ─FOLLOWERINFO─► Known ─LEADERINFO►─ Promising ─ACKEPOCH─► Waiting ─► Diff ───────────► Newcomer ─ACK─► Synced ─► Live
//!                                                                    │          ▲  NEWLEADER ►     UPTODATE ►
//!                                                                    ├► FirstLog ┤
//!                                                                    └► Snapshot ┘
//! ```
//!
//! What it gets is computed from cursors over the history when its socket has room, so a slow learner costs no memory.
//!
//! - `committed_sent ≤ sent ≤ history.last()`: nothing is decided here that was not proposed here (rule 5).
//! - Up to UPTODATE it gets what its synchronisation is made of and nothing else; each of it proposed and decided at once,
//!   because a learner may forget till then what it was not told to be decided (reference 0.4), and no COMMIT
//!   between NEWLEADER and UPTODATE (ZOOKEEPER-4394).
//! - A SYNC leaves behind the COMMIT of the last txn that was proposed before it, and before the next one (rule 9).

use std::collections::VecDeque;
use std::time::Duration;

use super::history::{History, is_next};
use super::pulse::{Lateness, Pulse};
use super::reason::LinkEnd;
use super::settings::Settings;
use super::sync::{Plan, Source};
use super::transport::{SocketId, SocketOutput};
use super::{LogRead, Output};
use crate::types::ids::ServerId;
use crate::types::limits;
use crate::types::time::Time;
use crate::types::zxid::Zxid;
use crate::wire::jute::Write;
use crate::wire::quorum::{
    Features, NO_ZXID, PROTOCOL_VERSION, PacketStream, PacketType, put_number_and_extension, put_packet,
    put_packet_with,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkState {
    /// Connected, and has not said who it is.
    Silent,
    /// Waits for the epoch.
    Known,
    /// Was told the epoch.
    Promising,
    /// Its log ends at `last`; waits for its synchronisation to begin. `is_later`: not before we are established.
    Waiting {
        last: Zxid,
        is_later: bool,
    },
    /// The files were asked what they know of `last`.
    FirstLog {
        last: Zxid,
    },
    /// Gets a whole tree, which replaces a log that ends at `last`. The SNAP packet leaves with the first piece.
    Snapshot {
        last: Zxid,
        is_begun: bool,
    },
    /// Gets what it lacks, up to `target`.
    Diff {
        target: Zxid,
    },
    /// Has all of it, and NEWLEADER. Its ACK says that it is durable there.
    Newcomer,
    /// Durable; waits for UPTODATE.
    Synced,
    Live,
}

pub struct LearnerLink {
    pub socket: SocketId,
    pub stream: PacketStream,
    pub state: LinkState,
    /// Who it says it is, from `Known` on.
    pub server: ServerId,
    /// It asked to observe: INFORM instead of PROPOSAL and COMMIT.
    pub is_observer: bool,
    /// Its acks count.
    pub is_voter: bool,
    /// What it had promised when it came.
    pub accepted: u32,
    /// One of ours: what was agreed on.
    pub features: Option<Features>,
    /// Txns up to here have been written to it, or it had them when it came.
    sent: Zxid,
    /// Up to here it was told that they are decided.
    committed_sent: Zxid,
    /// Each waits for the txn that was the last one proposed when it was asked for.
    syncs: VecDeque<Zxid>,
    /// Files or a snapshot are being read for it.
    is_reading: bool,
    /// Proposals in one packet end with the one that reaches this, bytes.
    batch_bytes: usize,
    /// Leaves at the end of the turn.
    out: Vec<u8>,
    /// Has not left yet, as the driver says, and what was handed over since.
    unsent: usize,
    pulse: Pulse,
    opened: Time,
    wrote: Time,
    pinged: Time,
    /// What it was sent needs no ack up to here.
    acked: Zxid,
    /// The newest proposal that had been sent when the last wait for an ack began, and when.
    unacked: Option<(Zxid, Time)>,
}

impl LearnerLink {
    pub fn new(now: Time, socket: SocketId, packet_bytes_max: usize) -> LearnerLink {
        LearnerLink {
            socket,
            stream: PacketStream::new(packet_bytes_max),
            state: LinkState::Silent,
            server: ServerId(i64::MIN),
            is_observer: false,
            is_voter: false,
            accepted: 0,
            features: None,
            sent: Zxid::ZERO,
            committed_sent: Zxid::ZERO,
            syncs: VecDeque::new(),
            is_reading: false,
            batch_bytes: limits::PROPOSALS_BYTES_MAX.min(packet_bytes_max) / 2,
            out: Vec::new(),
            unsent: 0,
            pulse: Pulse::new(now),
            opened: now,
            wrote: now,
            pinged: now,
            acked: Zxid::ZERO,
            unacked: None,
        }
    }

    /// Whether it is told that txns are decided, and may be asked to decide.
    pub fn is_live(&self) -> bool {
        self.state == LinkState::Live
    }

    /// Whether all that we began with is durable there.
    pub fn is_synced(&self) -> bool {
        matches!(self.state, LinkState::Synced | LinkState::Live)
    }

    /// Whether it occupies a place among those that synchronise, and with a snapshot.
    pub fn syncs_with(&self) -> (bool, bool) {
        match self.state {
            LinkState::Snapshot { .. } => (false, true),
            LinkState::Diff { .. } | LinkState::FirstLog { .. } => (true, false),
            LinkState::Silent
            | LinkState::Known
            | LinkState::Promising
            | LinkState::Waiting { .. }
            | LinkState::Newcomer
            | LinkState::Synced
            | LinkState::Live => (false, false),
        }
    }

    pub fn sent(&self) -> Zxid {
        self.sent
    }

    /// Syncs that came over it and are not answered.
    pub fn pending_syncs(&self) -> usize {
        self.syncs.len()
    }

    pub fn committed_sent(&self) -> Zxid {
        self.committed_sent
    }

    pub fn can_hand_over(&self) -> bool {
        self.features.as_ref().is_some_and(|features| features.hand_over)
    }

    fn has_room(&self) -> bool {
        self.unsent + self.out.len() < limits::LINK_UNSENT_BYTES
    }

    // What came.

    pub fn on_heard(&mut self, now: Time) {
        self.pulse.hear(now);
    }

    pub fn on_unsent(&mut self, now: Time, bytes: usize) {
        // Who takes what it is sent is alive, though it may have nothing to say for a long time.
        if bytes < self.unsent && !self.is_synced() {
            self.pulse.begin(now);
        }
        self.unsent = bytes;
    }

    pub fn on_ack(&mut self, now: Time, zxid: Zxid) -> Result<(), LinkEnd> {
        if zxid > self.sent {
            return Err(LinkEnd::NeverProposed(zxid));
        }
        self.acked = self.acked.max(zxid);
        if self.unacked.is_some_and(|(waited_for, _)| zxid >= waited_for) {
            self.unacked = (self.acked < self.sent).then_some((self.sent, now));
        }
        Ok(())
    }

    pub fn on_sync(&mut self, last: Zxid) -> Result<(), LinkEnd> {
        if self.syncs.len() >= limits::LINK_SYNCS_MAX {
            return Err(LinkEnd::Overrun);
        }
        self.syncs.push_back(last);
        Ok(())
    }

    pub fn push_out(&mut self, stall: Duration) {
        self.pulse.push_out(stall);
        if let Some((_, since)) = &mut self.unacked {
            *since = *since + stall;
        }
    }

    // What is to be sent, in the order of the protocol.

    pub fn put(&mut self, kind: PacketType, zxid: Zxid, data: Option<&[u8]>) {
        put_packet(&mut self.out, kind, zxid, data);
    }

    pub fn put_leader_info(&mut self, epoch: u32, settings: &Settings) {
        let extension = self
            .features
            .as_ref()
            .map(|features| features.to_extension().with_identity(settings.boot_nonce, env!("CARGO_PKG_VERSION")));
        put_packet_with(&mut self.out, PacketType::LeaderInfo, Zxid::new(epoch, 0), |out| {
            put_number_and_extension(out, PROTOCOL_VERSION, extension.as_ref());
        });
        self.state = LinkState::Promising;
    }

    /// Begins the synchronisation, if it can begin.
    pub fn begin_sync(&mut self, source: &Source<'_>, out: &mut Vec<Output>) -> Result<(), LinkEnd> {
        let LinkState::Waiting { last, is_later } = self.state else { return Ok(()) };
        if is_later && !source.is_established {
            return Ok(());
        }
        self.follow(last, source.plan(last), source, out)
    }

    fn follow(&mut self, last: Zxid, plan: Plan, source: &Source<'_>, out: &mut Vec<Output>) -> Result<(), LinkEnd> {
        let target = source.target();
        match plan {
            Plan::Diff { after } => {
                self.put(PacketType::Diff, target, None);
                self.begin_diff(after.max(last), target);
            }
            Plan::Trunc { to } => {
                self.put(PacketType::Trunc, to, None);
                self.begin_diff(to, target);
            }
            Plan::Snap => {
                self.state = LinkState::Snapshot { last, is_begun: false };
                self.is_reading = true;
                out.push(Output::ReadSnapshot { socket: self.socket });
            }
            Plan::AskLog => {
                self.state = LinkState::FirstLog { last };
                self.read_log(last, source.history, out);
            }
            Plan::Wait => self.state = LinkState::Waiting { last, is_later: !source.is_established },
            Plan::Refuse => return Err(LinkEnd::NeverProposed(last)),
        }
        Ok(())
    }

    fn begin_diff(&mut self, from: Zxid, target: Zxid) {
        (self.sent, self.committed_sent) = (from, from);
        self.state = LinkState::Diff { target };
    }

    fn read_log(&mut self, after: Zxid, history: &History, out: &mut Vec<Output>) {
        assert!(!self.is_reading, "one reading at a time");
        self.is_reading = true;
        out.push(Output::ReadLog { socket: self.socket, after, upto: history.before() });
    }

    /// What the files know.
    pub fn on_log_read(
        &mut self,
        read: Option<LogRead>,
        source: &Source<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), LinkEnd> {
        if !std::mem::take(&mut self.is_reading) {
            return Ok(());
        }
        let read = read.filter(|read| is_contiguous(read) && !read.txns.is_empty());
        match (self.state, read) {
            // Nobody knows what it has: what there is for everybody is a snapshot.
            (LinkState::FirstLog { last }, None) => self.follow(last, Plan::Snap, source, out),
            (LinkState::FirstLog { last }, Some(read)) if read.previous <= last => {
                let next = read.txns.iter().map(|(zxid, _)| *zxid).find(|zxid| *zxid > last);
                self.follow(last, source.beside(last, read.previous, next), source, out)?;
                if let LinkState::Diff { .. } = self.state {
                    self.put_read(&read, source)?;
                }
                Ok(())
            }
            (LinkState::Diff { .. } | LinkState::Live, Some(read)) if read.previous <= self.sent => {
                self.put_read(&read, source)
            }
            (LinkState::FirstLog { .. } | LinkState::Diff { .. } | LinkState::Live, _) => {
                Err(LinkEnd::LogGone(self.sent))
            }
            (
                LinkState::Silent
                | LinkState::Known
                | LinkState::Promising
                | LinkState::Waiting { .. }
                | LinkState::Snapshot { .. }
                | LinkState::Newcomer
                | LinkState::Synced,
                _,
            ) => Ok(()),
        }
    }

    /// Txns of the files, from the cursor on.
    fn put_read(&mut self, read: &LogRead, source: &Source<'_>) -> Result<(), LinkEnd> {
        let limit = match self.state {
            LinkState::Diff { target } => target,
            _ => source.committed,
        };
        let before = self.sent;
        for (zxid, txn) in read.txns.iter().filter(|(zxid, _)| *zxid > before && *zxid <= limit) {
            if !is_next(self.sent, *zxid) {
                return Err(LinkEnd::LogGone(self.sent));
            }
            match self.state {
                LinkState::Diff { .. } => self.put_decided(*zxid, txn),
                _ if self.is_observer => self.put_inform(*zxid, txn),
                _ => self.put_proposal(*zxid, txn),
            }
        }
        // Nothing new, though the history begins later than the cursor: there is a hole between the two.
        if self.sent == before && self.sent < source.history.before() {
            return Err(LinkEnd::LogGone(self.sent));
        }
        Ok(())
    }

    /// The next piece of the tree.
    pub fn on_snapshot_piece(
        &mut self,
        zxid: Zxid,
        bytes: &[u8],
        is_end: bool,
        source: &Source<'_>,
        out: &mut Vec<Output>,
    ) {
        let LinkState::Snapshot { last, is_begun } = self.state else { return };
        self.is_reading = false;
        if !is_begun {
            let is_ours = self.features.is_some();
            let name = source.snapshot_name(zxid, is_ours);
            if !is_ours && last != NO_ZXID && name < last {
                // Java would keep the end of its log. Once we are established the image is newer.
                out.push(Output::CancelRead { socket: self.socket });
                self.state = LinkState::Waiting { last, is_later: true };
                return;
            }
            self.put(PacketType::Snap, name, None);
            (self.sent, self.committed_sent) = (name, name);
            self.state = LinkState::Snapshot { last, is_begun: true };
        }
        self.out.extend_from_slice(bytes);
        if is_end {
            self.state = LinkState::Diff { target: source.target().max(self.sent) };
        }
    }

    /// Takes out of the history whatever has room.
    pub fn pump(&mut self, now: Time, source: &Source<'_>, out: &mut Vec<Output>) -> Result<(), LinkEnd> {
        self.begin_sync(source, out)?;
        match self.state {
            LinkState::Snapshot { is_begun: true, .. } if !self.is_reading && self.has_room() => {
                self.is_reading = true;
                out.push(Output::ReadOn { socket: self.socket });
            }
            LinkState::Diff { target } => self.pump_diff(now, target, source, out),
            LinkState::Live if self.is_observer => self.pump_informs(source, out),
            LinkState::Live => {
                self.pump_commits(source);
                self.pump_proposals(source, out);
            }
            LinkState::Silent
            | LinkState::Known
            | LinkState::Promising
            | LinkState::Waiting { .. }
            | LinkState::FirstLog { .. }
            | LinkState::Snapshot { .. }
            | LinkState::Newcomer
            | LinkState::Synced => {}
        }
        assert!(self.committed_sent <= self.sent, "{} decided, {} proposed", self.committed_sent, self.sent);
        if self.unacked.is_none() && self.is_live() && self.is_voter && self.sent > self.acked {
            self.unacked = Some((self.sent, now));
        }
        match self.unsent + self.out.len() {
            waiting if waiting > limits::LINK_UNSENT_BYTES_MAX + limits::LOG_READ_BYTES => Err(LinkEnd::Overrun),
            _ => Ok(()),
        }
    }

    fn pump_diff(&mut self, now: Time, target: Zxid, source: &Source<'_>, out: &mut Vec<Output>) {
        if self.is_reading {
            return;
        }
        if self.sent < source.history.before() && self.sent < target {
            if self.has_room() {
                self.read_log(self.sent, source.history, out);
            }
            return;
        }
        if self.sent < target {
            for (zxid, txn) in source.history.after(self.sent) {
                if zxid > target || !self.has_room() {
                    break;
                }
                self.put_decided(zxid, txn);
            }
        }
        // What is behind the cursor and not in our history is an image's counter 0.
        if self.sent >= target || source.history.after(self.sent).next().is_none_or(|(zxid, _)| zxid > target) {
            self.put(PacketType::NewLeader, Zxid::new(source.epoch, 0), None);
            self.state = LinkState::Newcomer;
            self.pinged = now;
        }
    }

    /// It may serve clients from here on.
    pub fn put_up_to_date(&mut self, now: Time) {
        assert_eq!(self.state, LinkState::Synced, "only after the ACK of NEWLEADER");
        self.put(PacketType::UpToDate, NO_ZXID, None);
        self.state = LinkState::Live;
        self.acked = self.sent;
        self.pulse.begin(now);
    }

    fn pump_proposals(&mut self, source: &Source<'_>, out: &mut Vec<Output>) {
        if self.is_reading || !self.has_room() {
            return;
        }
        if self.sent < source.history.before() {
            return self.read_log(self.sent, source.history, out);
        }
        let is_batched = self.features.as_ref().is_some_and(|features| features.batched_proposals);
        let mut batch = Batch::default();
        for (zxid, txn) in source.history.after(self.sent) {
            if self.unsent + self.out.len() + batch.bytes.len() >= limits::LINK_UNSENT_BYTES {
                break;
            }
            if !is_batched || txn.len() > self.batch_bytes / 2 {
                self.put_batch(&mut batch);
                self.put_proposal(zxid, txn);
                continue;
            }
            batch.add(zxid, txn);
            if batch.bytes.len() >= self.batch_bytes {
                self.put_batch(&mut batch);
            }
        }
        self.put_batch(&mut batch);
    }

    fn put_batch(&mut self, batch: &mut Batch) {
        let Some(last) = batch.last.take() else { return };
        let committed = self.committed_sent;
        put_packet_with(&mut self.out, PacketType::Proposals, last, |out| {
            out.put_zxid(committed);
            out.put(&batch.bytes);
        });
        batch.bytes.clear();
        self.sent = last;
    }

    /// Tells what is decided, each SYNC in its place.
    fn pump_commits(&mut self, source: &Source<'_>) {
        let upto = source.committed.min(self.sent);
        let is_cumulative = self.features.as_ref().is_some_and(|features| features.commit_index);
        while self.committed_sent < upto && self.has_room() {
            self.put_syncs();
            let next = match (is_cumulative, self.syncs.front()) {
                (true, None) => upto,
                (true, Some(sync)) => upto.min(*sync),
                (false, _) => next_in(source.epoch, self.committed_sent),
            };
            assert!(next > self.committed_sent && next <= upto, "{} < {next} ≤ {upto}", self.committed_sent);
            self.put(PacketType::Commit, next, None);
            self.committed_sent = next;
        }
        self.put_syncs();
    }

    /// Answers what waits for nothing more.
    fn put_syncs(&mut self) {
        while self.syncs.front().is_some_and(|last| *last <= self.committed_sent) {
            self.syncs.pop_front();
            self.put(PacketType::Sync, Zxid::ZERO, None);
        }
    }

    fn pump_informs(&mut self, source: &Source<'_>, out: &mut Vec<Output>) {
        self.put_syncs();
        if self.is_reading || self.sent >= source.committed || !self.has_room() {
            return;
        }
        if self.sent < source.history.before() {
            return self.read_log(self.sent, source.history, out);
        }
        for (zxid, txn) in source.history.after(self.sent) {
            if zxid > source.committed || !self.has_room() {
                break;
            }
            self.put_inform(zxid, txn);
        }
    }

    fn put_proposal(&mut self, zxid: Zxid, txn: &[u8]) {
        self.put(PacketType::Proposal, zxid, Some(txn));
        self.sent = zxid;
    }

    fn put_inform(&mut self, zxid: Zxid, txn: &[u8]) {
        self.put(PacketType::Inform, zxid, Some(txn));
        (self.sent, self.committed_sent) = (zxid, zxid);
        self.put_syncs();
    }

    /// Within the synchronisation, also for observers.
    fn put_decided(&mut self, zxid: Zxid, txn: &[u8]) {
        self.put(PacketType::Proposal, zxid, Some(txn));
        self.put(PacketType::Commit, zxid, None);
        (self.sent, self.committed_sent) = (zxid, zxid);
    }

    // Time.

    fn heartbeats(&self) -> Option<(Duration, Duration)> {
        let heartbeats = self.features.as_ref()?.heartbeats?;
        Some((heartbeats.interval(), heartbeats.timeout()))
    }

    /// From NEWLEADER on it must hear of us (N15), and not before the first packet of its synchronisation.
    fn is_pinged(&self) -> bool {
        matches!(self.state, LinkState::Newcomer | LinkState::Synced | LinkState::Live)
    }

    fn ping_at(&self, settings: &Settings) -> Option<Time> {
        if !self.is_pinged() {
            return None;
        }
        // What its clients did comes with the answers, so there is one now and then whatever else goes to and fro.
        let for_touches = self.pinged + settings.tick / 2;
        Some(match self.heartbeats() {
            None => for_touches,
            Some((interval, _)) => {
                let quiet_since = self.wrote.min(self.pulse.heard()).max(self.pinged);
                for_touches.min(quiet_since + interval)
            }
        })
    }

    pub fn ping(&mut self, now: Time, last: Zxid, settings: &Settings) {
        if self.ping_at(settings).is_none_or(|at| at > now) {
            return;
        }
        self.pinged = now;
        let tells_commits = self.is_live() && self.features.as_ref().is_some_and(|features| features.commit_index);
        let committed = self.committed_sent.as_i64().to_be_bytes();
        self.put(PacketType::Ping, last, tells_commits.then_some(&committed[..]));
    }

    /// When it is given up, and why.
    fn end_at(&self, settings: &Settings, lateness: &Lateness) -> (Time, LinkEnd) {
        let silent_at = match self.state {
            LinkState::Silent => self.opened + limits::FIRST_PACKET_LIMIT.min(settings.init_limit),
            LinkState::Known
            | LinkState::Promising
            | LinkState::Waiting { .. }
            | LinkState::FirstLog { .. }
            | LinkState::Snapshot { .. }
            | LinkState::Diff { .. }
            | LinkState::Newcomer => self.pulse.heard() + settings.init_limit,
            LinkState::Synced | LinkState::Live => match self.heartbeats() {
                None => self.pulse.heard() + settings.sync_limit,
                // Sooner than the learner would give us up: what we promised must be over by then.
                Some((_, timeout)) => self.pulse.dead_at(timeout * 4 / 5) + lateness.slack(timeout),
            },
        };
        match self.unacked {
            Some((zxid, since)) if since + settings.sync_limit < silent_at => {
                (since + settings.sync_limit, LinkEnd::Unacked(zxid))
            }
            _ => (silent_at, LinkEnd::Silent),
        }
    }

    /// Why it is given up, if it is.
    pub fn end(&self, now: Time, settings: &Settings, lateness: &Lateness) -> Option<LinkEnd> {
        let (at, why) = self.end_at(settings, lateness);
        (at <= now).then_some(why)
    }

    pub fn deadline(&self, settings: &Settings, lateness: &Lateness) -> Time {
        let (end, _) = self.end_at(settings, lateness);
        self.ping_at(settings).map_or(end, |ping| ping.min(end))
    }

    /// Everything that this turn has put leaves.
    pub fn flush(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.out.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.out);
        self.unsent += bytes.len();
        self.wrote = now;
        out.push(Output::Socket(SocketOutput::Send { socket: self.socket, bytes }));
    }

    /// Nobody reads for it any more.
    pub fn cancel(&mut self, out: &mut Vec<Output>) {
        let is_open = matches!(self.state, LinkState::Snapshot { .. });
        if std::mem::take(&mut self.is_reading) || is_open {
            out.push(Output::CancelRead { socket: self.socket });
        }
    }
}

/// Proposals for one packet.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    last: Option<Zxid>,
}

impl Batch {
    fn add(&mut self, zxid: Zxid, txn: &[u8]) {
        self.bytes.put_zxid(zxid);
        self.bytes.put_buffer(Some(txn));
        self.last = Some(zxid);
    }
}

/// The txn of `epoch` behind `zxid`.
pub fn next_in(epoch: u32, zxid: Zxid) -> Zxid {
    if zxid.epoch() == epoch { zxid.next() } else { Zxid::new(epoch, 1) }
}

/// Whether the files have no hole there.
fn is_contiguous(read: &LogRead) -> bool {
    let mut previous = read.previous;
    read.txns.iter().all(|(zxid, _)| is_next(std::mem::replace(&mut previous, *zxid), *zxid))
}
