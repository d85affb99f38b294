//! A learner: follower or observer (`Learner`, `Follower`, `Observer`; spec actions `Follower…`).
//!
//! ```text
//!                  Connecting ─connected, FOLLOWERINFO►
//! DISCOVERY        Asking ─LEADERINFO─► Promising ─stored, ACKEPOCH►
//! SYNCHRONIZATION  Promised ─DIFF─► Syncing ─NEWLEADER─► Hardening ─flushed─► Joining ─stored, ACK►─ Joined ─UPTODATE─►
//!                     ├─TRUNC─► Installing ─┘ ▲                                                             BROADCAST: Serving
//!                     └─SNAP─► Loading ─► Installing
//! ```
//!
//! - What comes continues what we have: the next zxid, or the first of a later epoch. Everything else ends the role.
//! - The promise is durable before ACKEPOCH (2.9, 2); all that came before NEWLEADER, and then `current`, before its
//!   ACK (2.9, 4 and 5); a txn before its ACK (2.9, 6).
//! - Between ACKEPOCH and the ACK of NEWLEADER nothing is sent (rule 7), nothing of clients before UPTODATE.
//! - Nothing counts as decided before UPTODATE: until a quorum has acked NEWLEADER, history may still change.
//! - What is decided is never given up: neither TRUNC nor SNAP goes back behind it.
//! - `decided ≤ history.last()`, and each COMMIT names the oldest txn behind `decided`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::base::{Base, close};
use super::history::is_next;
use super::link::next_in;
use super::pulse::Pulse;
use super::reason::Leave;
use super::transport::{SocketId, SocketInput, SocketOutput};
use super::{Epochs, Input, LearnerRequest, Output, Phase, RoleName};
use crate::types::ids::{ServerId, SessionId};
use crate::types::limits;
use crate::types::time::Time;
use crate::types::zxid::Zxid;
use crate::wire::jute::{JuteError, Reader, Write};
use crate::wire::quorum::{
    Features, LearnerInfo, NO_ZXID, PROTOCOL_VERSION, PacketStream, PacketType, QuorumPacket, RequestBody,
    put_number_and_extension, put_packet, put_packet_with, read_number_and_extension,
};
use crate::wire::snapshot_stream::SnapshotScanner;
use crate::wire::txn;

/// The quorum port of one of ours is always bound: who cannot be reached in this time is not there.
const OURS_CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// Who closes the link so often without a word does not know that it leads, and will not learn it from us.
const TURNED_AWAY_MAX: u32 = 3;

enum State {
    /// `retry_at`: the last attempt failed.
    Connecting {
        retry_at: Option<Time>,
    },
    Asking,
    /// The promise of the epoch is on its way to the disk. `is_counted`: it was not made before.
    Promising {
        is_counted: bool,
    },
    Promised,
    Loading {
        zxid: Zxid,
        scanner: Box<SnapshotScanner>,
    },
    /// The core cuts its log, or writes a tree down.
    Installing {
        is_cut: bool,
    },
    Syncing,
    /// NEWLEADER came; the history up to here is on its way to the disk.
    Hardening {
        upto: Zxid,
    },
    /// `current` is on its way to the disk.
    Joining,
    Joined,
    Serving,
}

pub struct Learner {
    state: State,
    leader: ServerId,
    /// As the election port has learnt.
    is_ours: bool,
    is_observer: bool,
    socket: SocketId,
    is_open: bool,
    stream: PacketStream,
    /// The epoch that the leader told.
    epoch: u32,
    /// The leader is one of ours: what was agreed on.
    features: Option<Features>,
    /// Where the synchronisation began: what the DIFF, TRUNC or SNAP packet says that we have.
    start: Zxid,
    /// It began with an image, which may show txns that come again.
    is_from_image: bool,
    /// The leader said of everything up to here that it is decided.
    decided: Zxid,
    /// The last txn that we have acked, or that needs no ack.
    acked: Zxid,
    /// Sessions that were heard of since the last answer to a ping, with their timeouts.
    touched: BTreeMap<SessionId, i32>,
    /// Leaves at the end of the turn.
    out: Vec<u8>,
    pulse: Pulse,
    /// When an attempt to connect is the last one.
    until: Time,
    /// How often it closed the link before it said anything.
    turned_away: u32,
}

impl Learner {
    pub fn new(now: Time, leader: ServerId, is_ours: bool, base: &mut Base, out: &mut Vec<Output>) -> Learner {
        assert_eq!(base.flushed, base.history.last(), "writes have landed before a role begins");
        assert!(base.storing.is_none(), "epochs have landed before a role begins");
        let mut learner = Learner {
            state: State::Connecting { retry_at: None },
            leader,
            is_ours,
            is_observer: base.settings.is_observer,
            socket: SocketId(0),
            is_open: false,
            stream: PacketStream::new(base.settings.packet_bytes_max),
            epoch: 0,
            features: None,
            start: Zxid::ZERO,
            is_from_image: false,
            decided: Zxid::ZERO,
            acked: Zxid::ZERO,
            touched: BTreeMap::new(),
            out: Vec::new(),
            pulse: Pulse::new(now),
            until: now
                + if is_ours {
                    OURS_CONNECT_LIMIT.min(base.settings.connect_limit)
                } else {
                    base.settings.connect_limit
                },
            turned_away: 0,
        };
        learner.connect(base, out);
        learner
    }

    pub fn leader(&self) -> ServerId {
        self.leader
    }

    pub fn owns(&self, socket: SocketId) -> bool {
        self.socket == socket
    }

    pub fn phase(&self) -> Phase {
        match self.state {
            State::Connecting { .. } | State::Asking | State::Promising { .. } => Phase::Discovery,
            State::Promised
            | State::Loading { .. }
            | State::Installing { .. }
            | State::Syncing
            | State::Hardening { .. }
            | State::Joining
            | State::Joined => Phase::Synchronization,
            State::Serving => Phase::Broadcast,
        }
    }

    pub fn role(&self) -> RoleName {
        if self.is_observer { RoleName::Observing } else { RoleName::Following }
    }

    pub fn step(&mut self, now: Time, input: Input<'_>, base: &mut Base, out: &mut Vec<Output>) -> Result<(), Leave> {
        match input {
            Input::Socket(input) => self.on_socket(now, input, base, out)?,
            Input::Flushed { .. } => self.on_flushed(now, base, out),
            Input::EpochsStored(_) => self.on_epochs_stored(now, base),
            Input::Installed { last } => self.on_installed(now, last, base, out)?,
            Input::LoadFailed { what } => match self.state {
                State::Loading { .. } | State::Installing { .. } => {
                    // The log is still the old one, wherever that ends.
                    base.is_end_unknown = true;
                    base.wants_snapshot = matches!(self.state, State::Installing { is_cut: true });
                    return Err(Leave::Load(what));
                }
                _ => {}
            },
            Input::Request(request) => self.on_request(&request),
            Input::Revalidate { session, timeout_ms } => self.on_revalidate(session, timeout_ms),
            Input::Touched { session, timeout_ms } => {
                self.touched.insert(session, timeout_ms);
            }
            Input::EndOfTurn => self.end_turn(base, out),
            Input::Stalled(stall) => {
                self.pulse.push_out(stall);
                self.until = self.until + stall;
            }
            Input::Timeout => self.on_timeout(now, base, out)?,
            Input::Stop => return Err(Leave::Stopped),
            Input::Propose { zxid, .. } => panic!("{zxid} is proposed by a learner"),
            Input::Settled { .. }
            | Input::LogRead { .. }
            | Input::SnapshotPiece { .. }
            | Input::Revalidated { .. }
            | Input::Sync { .. }
            | Input::Resign => {}
        }
        Ok(())
    }

    // The link.

    fn connect(&mut self, base: &mut Base, out: &mut Vec<Output>) {
        self.socket = base.new_socket();
        self.is_open = true;
        self.state = State::Connecting { retry_at: None };
        let addresses = base.ensemble.quorum_addresses(self.leader);
        out.push(Output::Socket(SocketOutput::Connect { socket: self.socket, addresses }));
    }

    /// What was to be said leaves, and the link with it.
    pub fn end(&mut self, is_abrupt: bool, out: &mut Vec<Output>) {
        if self.is_open {
            self.flush(out);
            close(self.socket, is_abrupt, out);
        }
    }

    fn on_socket(
        &mut self,
        now: Time,
        input: SocketInput<'_>,
        base: &mut Base,
        out: &mut Vec<Output>,
    ) -> Result<(), Leave> {
        match input {
            SocketInput::Connected { .. } => self.on_connected(now, base),
            SocketInput::Received { bytes, .. } => {
                self.pulse.hear(now);
                self.on_received(now, bytes, base, out)?;
            }
            SocketInput::Closed { .. } => {
                self.is_open = false;
                return self.on_closed(now, base);
            }
            SocketInput::Unsent { .. } | SocketInput::Accepted { .. } => {}
        }
        Ok(())
    }

    fn on_closed(&mut self, now: Time, base: &Base) -> Result<(), Leave> {
        match self.state {
            // Its port is not bound yet, or it does not know yet that it leads.
            State::Connecting { .. } | State::Asking => {
                self.turned_away += u32::from(matches!(self.state, State::Asking));
                if now >= self.until || self.turned_away >= TURNED_AWAY_MAX {
                    return Err(Leave::Unreachable);
                }
                self.stream = PacketStream::new(base.settings.packet_bytes_max);
                self.out.clear();
                self.state = State::Connecting { retry_at: Some(now + base.settings.connect_retry) };
            }
            State::Promising { .. }
            | State::Promised
            | State::Loading { .. }
            | State::Installing { .. }
            | State::Syncing
            | State::Hardening { .. }
            | State::Joining
            | State::Joined
            | State::Serving => return Err(Leave::LeaderClosed),
        }
        Ok(())
    }

    /// `ConnectAndFollowerSendFOLLOWERINFO`.
    fn on_connected(&mut self, now: Time, base: &Base) {
        let kind = if self.is_observer { PacketType::ObserverInfo } else { PacketType::FollowerInfo };
        let info = LearnerInfo {
            server: base.settings.server,
            protocol: PROTOCOL_VERSION,
            config_version: base.ensemble.membership().version,
            offer: base.extension(),
        };
        put_packet_with(&mut self.out, kind, Zxid::new(base.epochs.accepted, 0), |out| info.put(out));
        self.state = State::Asking;
        self.pulse.begin(now);
    }

    fn on_received(&mut self, now: Time, bytes: &[u8], base: &mut Base, out: &mut Vec<Output>) -> Result<(), Leave> {
        let mut stream = std::mem::replace(&mut self.stream, PacketStream::new(0));
        stream.push(bytes);
        let done = self.take_packets(now, &mut stream, base, out);
        self.stream = stream;
        done
    }

    /// Takes packets off the stream as long as they may be taken.
    fn take_packets(
        &mut self,
        now: Time,
        stream: &mut PacketStream,
        base: &mut Base,
        out: &mut Vec<Output>,
    ) -> Result<(), Leave> {
        loop {
            match &mut self.state {
                // While a tree is installed the leader goes on sending: what was read already waits here.
                State::Installing { .. } if stream.waiting() > limits::HELD_BYTES_MAX => {
                    return Err(Leave::Malformed("more than was asked for"));
                }
                State::Installing { .. } => return Ok(()),
                State::Loading { zxid, scanner } => {
                    let mut bytes = stream.take_rest();
                    if bytes.is_empty() {
                        return Ok(());
                    }
                    let used = scanner.push(&bytes).map_err(Leave::Snapshot)?;
                    let (zxid, is_end) = (*zxid, scanner.is_end());
                    stream.push(&bytes[used..]);
                    bytes.truncate(used);
                    out.push(Output::LoadPiece { bytes });
                    if is_end {
                        self.on_loaded(zxid, base, out);
                    }
                }
                _ => match stream.next_packet().map_err(Leave::Packet)? {
                    None => return Ok(()),
                    Some(packet) => self.on_packet(now, &packet, base, out)?,
                },
            }
        }
    }

    // Packets.

    fn on_packet(
        &mut self,
        now: Time,
        packet: &QuorumPacket<'_>,
        base: &mut Base,
        out: &mut Vec<Output>,
    ) -> Result<(), Leave> {
        use PacketType as P;
        let zxid = packet.zxid;
        match (&self.state, packet.packet_type()) {
            (State::Asking, Some(P::LeaderInfo)) => self.on_leader_info(packet, base, out),
            (State::Promised, Some(P::Diff)) => self.on_diff(base),
            (State::Promised, Some(P::Trunc)) => self.on_trunc(zxid, base, out),
            (State::Promised, Some(P::Snap)) => self.on_snap(zxid, base, out),
            (State::Connecting { .. } | State::Asking | State::Promising { .. } | State::Promised, _) => {
                Err(Leave::OutOfPhase(packet.kind))
            }
            (State::Syncing, Some(P::NewLeader)) => self.on_new_leader(now, zxid, base, out),
            (State::Joined, Some(P::UpToDate)) => self.on_up_to_date(now, base, out),
            (_, Some(P::Proposal)) => self.on_proposal(zxid, packet.data, base, out),
            (_, Some(P::Proposals)) if self.has(|features| features.batched_proposals) => {
                self.on_proposals(packet, base, out)
            }
            (_, Some(P::Commit)) => self.on_commit(zxid, base, out),
            (_, Some(P::Inform)) => {
                self.on_proposal(zxid, packet.data, base, out)?;
                self.on_commit(zxid, base, out)
            }
            (State::Joined | State::Serving, Some(P::Ping)) => self.on_ping(packet, base, out),
            // No answer before the ACK of NEWLEADER.
            (_, Some(P::Ping)) => Ok(()),
            (State::Serving, Some(P::Revalidate)) => on_revalidated(packet, out),
            (State::Serving, Some(P::Sync)) => {
                out.push(Output::Synced);
                Ok(())
            }
            (State::Serving, Some(P::HandOver)) if self.has(|features| features.hand_over) => {
                let to = packet.body().and_then(|mut body| body.i64()).map_err(Leave::Packet)?;
                Err(Leave::HandedOver { to: ServerId(to) })
            }
            // Reconfiguration is not known here: what it decides would be lost.
            (_, Some(P::CommitAndActivate | P::InformAndActivate)) => Err(Leave::OutOfPhase(packet.kind)),
            (_, Some(P::NewLeader | P::UpToDate | P::Diff | P::Trunc | P::Snap | P::LeaderInfo)) => {
                Err(Leave::OutOfPhase(packet.kind))
            }
            _ => {
                tracing::debug!("ignored: {packet}");
                Ok(())
            }
        }
    }

    fn has(&self, feature: impl Fn(&Features) -> bool) -> bool {
        self.features.as_ref().is_some_and(feature)
    }

    /// `FollowerProcessLEADERINFO`.
    fn on_leader_info(
        &mut self,
        packet: &QuorumPacket<'_>,
        base: &mut Base,
        out: &mut Vec<Output>,
    ) -> Result<(), Leave> {
        let data = packet.data.ok_or(Leave::Packet(JuteError::Null))?;
        let (_, chosen) = read_number_and_extension(data).map_err(Leave::Packet)?;
        self.features = base.extension().zip(chosen).map(|(_, chosen)| Features::of(&chosen));
        self.epoch = packet.zxid.epoch();
        let Epochs { accepted, current } = base.epochs;
        if self.epoch < accepted || self.epoch > i32::MAX as u32 {
            return Err(Leave::OldEpoch(self.epoch));
        }
        let is_counted = self.epoch > accepted;
        self.state = State::Promising { is_counted };
        if is_counted {
            base.store_epochs(Epochs { accepted: self.epoch, current }, out);
        } else {
            self.ack_epoch(false, base);
        }
        Ok(())
    }

    fn on_epochs_stored(&mut self, now: Time, base: &Base) {
        match self.state {
            State::Promising { is_counted } => self.ack_epoch(is_counted, base),
            State::Joining => self.put_join(now, base),
            State::Connecting { .. }
            | State::Asking
            | State::Promised
            | State::Loading { .. }
            | State::Installing { .. }
            | State::Syncing
            | State::Hardening { .. }
            | State::Joined
            | State::Serving => panic!("nothing was to be stored"),
        }
    }

    fn ack_epoch(&mut self, is_counted: bool, base: &Base) {
        assert_eq!(base.epochs.accepted, self.epoch, "the promise is durable");
        let last = base.history.last();
        assert_eq!(base.flushed, last, "ACKEPOCH names what is durable");
        // Without a zxid there is no DIFF and no TRUNC, and no ack that counts.
        let is_known = !base.is_untrusted && !base.wants_snapshot;
        let last = if is_known { last } else { NO_ZXID };
        let current = if is_counted && is_known { base.epochs.current as i32 } else { -1 };
        let extension = self.features.as_ref().map(Features::to_extension);
        put_packet_with(&mut self.out, PacketType::AckEpoch, last, |out| {
            put_number_and_extension(out, current, extension.as_ref());
        });
        self.state = State::Promised;
    }

    // Synchronisation.

    fn begin_sync(&mut self, start: Zxid, is_from_image: bool) {
        (self.start, self.decided, self.acked) = (start, start, start);
        self.is_from_image = is_from_image;
        self.state = State::Syncing;
    }

    fn on_diff(&mut self, base: &mut Base) -> Result<(), Leave> {
        if base.wants_snapshot {
            return Err(Leave::Malformed("a DIFF, where only a SNAP will do"));
        }
        base.is_untrusted = false;
        self.begin_sync(base.history.last(), false);
        Ok(())
    }

    fn on_trunc(&mut self, to: Zxid, base: &mut Base, out: &mut Vec<Output>) -> Result<(), Leave> {
        let (last, committed) = (base.history.last(), base.committed);
        if to < committed {
            return Err(Leave::BelowCommitted { zxid: to, committed });
        }
        if to > last {
            return Err(Leave::Gap { last, next: to });
        }
        self.begin_sync(to, false);
        if to < last {
            base.history.truncate(to);
            base.flushed = base.flushed.min(to);
            out.push(Output::Truncate { to });
            self.install(true, out);
        }
        Ok(())
    }

    fn on_snap(&mut self, zxid: Zxid, base: &Base, out: &mut Vec<Output>) -> Result<(), Leave> {
        let committed = base.committed;
        if zxid < committed {
            return Err(Leave::BelowCommitted { zxid, committed });
        }
        let scanner = Box::new(SnapshotScanner::new(base.settings.packet_bytes_max));
        self.state = State::Loading { zxid, scanner };
        out.push(Output::LoadBegin { zxid });
        Ok(())
    }

    /// The whole stream has come.
    fn on_loaded(&mut self, zxid: Zxid, base: &mut Base, out: &mut Vec<Output>) {
        out.push(Output::LoadEnd);
        base.history.restart(zxid);
        base.flushed = base.flushed.min(zxid);
        self.begin_sync(zxid, true);
        self.install(false, out);
    }

    fn install(&mut self, is_cut: bool, out: &mut Vec<Output>) {
        self.state = State::Installing { is_cut };
        out.push(Output::Socket(SocketOutput::Hold { socket: self.socket, is_held: true }));
    }

    fn on_installed(&mut self, now: Time, last: Zxid, base: &mut Base, out: &mut Vec<Output>) -> Result<(), Leave> {
        if !matches!(self.state, State::Installing { .. }) {
            return Ok(());
        }
        if last != base.history.last() {
            return Err(Leave::Gap { last, next: base.history.last() });
        }
        base.flushed = last;
        (base.is_untrusted, base.wants_snapshot) = (false, false);
        self.state = State::Syncing;
        out.push(Output::Socket(SocketOutput::Hold { socket: self.socket, is_held: false }));
        self.pulse.begin(now);
        self.on_received(now, &[], base, out)
    }

    /// `FollowerProcessPROPOSAL`, also `…InSync`.
    fn on_proposal(
        &mut self,
        zxid: Zxid,
        data: Option<&[u8]>,
        base: &mut Base,
        out: &mut Vec<Output>,
    ) -> Result<(), Leave> {
        let txn = data.ok_or(Leave::Packet(JuteError::Null))?;
        let last = base.history.last();
        if zxid <= last {
            return match base.history.txn(zxid) {
                // Java goes on while it writes an image: what that shows already may come again.
                _ if self.is_from_image && zxid <= self.start => Ok(()),
                Some(ours) if ours == txn => Ok(()),
                _ => Err(Leave::OtherTxn(zxid)),
            };
        }
        if !is_next(last, zxid) || zxid.epoch() > self.epoch {
            return Err(Leave::Gap { last, next: zxid });
        }
        match txn::decode(txn) {
            Ok(decoded) if decoded.header.zxid == zxid => {}
            _ => return Err(Leave::Malformed("a txn that cannot be read")),
        }
        base.history.append(zxid, txn);
        out.push(Output::Append { zxid });
        Ok(())
    }

    fn on_proposals(&mut self, packet: &QuorumPacket<'_>, base: &mut Base, out: &mut Vec<Output>) -> Result<(), Leave> {
        let mut body = packet.body().map_err(Leave::Packet)?;
        let committed = body.zxid().map_err(Leave::Packet)?;
        while body.remaining() > 0 {
            let zxid = body.zxid().map_err(Leave::Packet)?;
            let txn = body.buffer().map_err(Leave::Packet)?;
            self.on_proposal(zxid, txn, base, out)?;
        }
        self.on_commit_index(committed, base, out)
    }

    /// `FollowerProcessCOMMIT`, also `…InSync`.
    fn on_commit(&mut self, zxid: Zxid, base: &mut Base, out: &mut Vec<Output>) -> Result<(), Leave> {
        if zxid <= self.start && self.is_from_image {
            return Ok(());
        }
        let expected = base.history.after(self.decided).next().map(|(zxid, _)| zxid);
        let is_live = matches!(self.state, State::Serving);
        let is_covered = self.has(|features| features.commit_index) && is_live && base.history.knows(zxid);
        if expected != Some(zxid) && !is_covered {
            return Err(Leave::CommitMismatch { expected, commit: zxid });
        }
        self.decide(zxid, base, out);
        Ok(())
    }

    /// A COMMIT that comes with something else, and perhaps again.
    fn on_commit_index(&mut self, zxid: Zxid, base: &mut Base, out: &mut Vec<Output>) -> Result<(), Leave> {
        if zxid <= self.decided || !matches!(self.state, State::Serving) {
            return Ok(());
        }
        self.on_commit(zxid, base, out)
    }

    fn decide(&mut self, zxid: Zxid, base: &mut Base, out: &mut Vec<Output>) {
        self.decided = self.decided.max(zxid);
        if matches!(self.state, State::Serving) {
            base.commit(self.decided, out);
        } else {
            // It stays undecided here, but a long synchronisation must not fill the memory.
            base.forget(self.decided);
        }
    }

    /// `FollowerProcessNEWLEADER`.
    fn on_new_leader(&mut self, now: Time, zxid: Zxid, base: &mut Base, out: &mut Vec<Output>) -> Result<(), Leave> {
        if zxid != Zxid::new(self.epoch, 0) {
            return Err(Leave::OldEpoch(zxid.epoch()));
        }
        self.state = State::Hardening { upto: base.history.last() };
        self.on_flushed(now, base, out);
        Ok(())
    }

    fn on_flushed(&mut self, now: Time, base: &mut Base, out: &mut Vec<Output>) {
        if let State::Hardening { upto } = self.state
            && base.flushed >= upto
        {
            self.state = State::Joining;
            let current = self.epoch;
            if base.epochs.current < current {
                base.store_epochs(Epochs { current, ..base.epochs }, out);
            } else {
                // We had joined it already, and lost the link since.
                self.put_join(now, base);
            }
        }
    }

    fn put_join(&mut self, now: Time, base: &Base) {
        self.pulse.begin(now);
        assert_eq!(base.epochs.current, self.epoch, "the epoch is durable");
        self.put(PacketType::Ack, Zxid::new(self.epoch, 0), None);
        self.state = State::Joined;
        // What the leader said to be decided needs no ack of ours.
        self.acked = self.decided;
    }

    /// `FollowerProcessUPTODATE`.
    fn on_up_to_date(&mut self, now: Time, base: &mut Base, out: &mut Vec<Output>) -> Result<(), Leave> {
        self.state = State::Serving;
        self.pulse.begin(now);
        base.commit(self.decided, out);
        let zxid = Zxid::new(self.epoch, 0);
        self.put(PacketType::Ack, zxid, None);
        out.push(Output::Established { role: self.role(), leader: self.leader, zxid });
        Ok(())
    }

    // What is said to the leader.

    fn put(&mut self, kind: PacketType, zxid: Zxid, data: Option<&[u8]>) {
        put_packet(&mut self.out, kind, zxid, data);
    }

    fn put_acks(&mut self, base: &Base) {
        if self.is_observer || !matches!(self.state, State::Joined | State::Serving) {
            return;
        }
        let upto = base.flushed;
        assert!(upto <= base.history.last());
        if self.has(|features| features.cumulative_acks) {
            if upto > self.acked {
                self.put(PacketType::Ack, upto, None);
                self.acked = upto;
            }
            return;
        }
        while self.acked < upto {
            let next = match self.acked >= base.history.before() {
                true => base.history.after(self.acked).next().map(|(zxid, _)| zxid),
                false => Some(next_in(self.epoch, self.acked)),
            };
            let Some(next) = next.filter(|next| *next <= upto) else { return };
            self.put(PacketType::Ack, next, None);
            self.acked = next;
        }
    }

    fn on_ping(&mut self, packet: &QuorumPacket<'_>, base: &mut Base, out: &mut Vec<Output>) -> Result<(), Leave> {
        if let Some(data) = packet.data
            && self.has(|features| features.commit_index)
        {
            let committed = Reader::new(data).zxid().map_err(Leave::Packet)?;
            self.on_commit_index(committed, base, out)?;
        }
        self.put_touches(packet.zxid);
        while !self.touched.is_empty() {
            self.put_touches(packet.zxid);
        }
        Ok(())
    }

    /// One packet full of sessions that were heard of, or an empty one: never without data (rule 10).
    fn put_touches(&mut self, zxid: Zxid) {
        let touched = &mut self.touched;
        put_packet_with(&mut self.out, PacketType::Ping, zxid, |out| {
            for _ in 0..limits::TOUCHES_PER_PING_MAX {
                let Some((session, timeout_ms)) = touched.pop_first() else { return };
                out.put_i64(session.0);
                out.put_i32(timeout_ms);
            }
        });
    }

    fn on_request(&mut self, request: &LearnerRequest<'_>) {
        if !matches!(self.state, State::Serving) {
            return;
        }
        let LearnerRequest { session, cxid, op, body, auth } = *request;
        RequestBody { session, cxid, op, body }.put_packet(&mut self.out, auth);
    }

    fn on_revalidate(&mut self, session: SessionId, timeout_ms: i32) {
        if !matches!(self.state, State::Serving) {
            return;
        }
        put_packet_with(&mut self.out, PacketType::Revalidate, NO_ZXID, |out| {
            out.put_i64(session.0);
            out.put_i32(timeout_ms);
        });
    }

    fn end_turn(&mut self, base: &Base, out: &mut Vec<Output>) {
        assert!(self.decided <= base.history.last() || self.phase() < Phase::Synchronization);
        self.put_acks(base);
        self.flush(out);
    }

    fn flush(&mut self, out: &mut Vec<Output>) {
        if !self.out.is_empty() {
            let bytes = std::mem::take(&mut self.out);
            out.push(Output::Socket(SocketOutput::Send { socket: self.socket, bytes }));
        }
    }

    // Time.

    /// When the leader is given up. While its socket is held it cannot be heard.
    fn dead_at(&self, base: &Base) -> Option<Time> {
        let settings = &base.settings;
        let heartbeats = self.features.as_ref().and_then(|features| features.heartbeats);
        Some(match (&self.state, heartbeats) {
            (State::Installing { .. }, _) => return None,
            (State::Connecting { .. }, _) => self.until,
            // One of ours gives up after its own wait, and says so by closing the link.
            (State::Asking, _) if self.is_ours => self.pulse.heard() + settings.discovery_limit * 2,
            // It pings from NEWLEADER on.
            (State::Joined | State::Serving, Some(heartbeats)) => {
                self.pulse.dead_at(heartbeats.timeout()) + base.lateness.slack(heartbeats.timeout())
            }
            (State::Serving, None) => self.pulse.heard() + settings.sync_limit,
            // Java sends nothing at all until a quorum has come (N15).
            _ => self.pulse.heard() + settings.init_limit,
        })
    }

    fn on_timeout(&mut self, now: Time, base: &mut Base, out: &mut Vec<Output>) -> Result<(), Leave> {
        if let State::Connecting { retry_at: Some(at) } = self.state
            && at <= now
        {
            self.connect(base, out);
        }
        if self.dead_at(base).is_none_or(|dead| now < dead) {
            return Ok(());
        }
        Err(match self.state {
            State::Connecting { .. } => Leave::Unreachable,
            _ => Leave::LeaderSilent,
        })
    }

    pub fn deadline(&self, base: &Base) -> Option<Time> {
        let dead = self.dead_at(base);
        match self.state {
            State::Connecting { retry_at: Some(at) } => dead.map(|dead| dead.min(at)),
            _ => dead,
        }
    }

    /// Its process is dead, as the election port has learnt.
    pub fn on_leader_dead(&self) -> Result<(), Leave> {
        match self.state {
            State::Connecting { .. } | State::Asking => Err(Leave::Unreachable),
            // The link says so itself.
            _ => Ok(()),
        }
    }
}

fn on_revalidated(packet: &QuorumPacket<'_>, out: &mut Vec<Output>) -> Result<(), Leave> {
    let read = || {
        let mut body = packet.body()?;
        Ok((SessionId(body.i64()?), body.bool()?))
    };
    let (session, is_alive) = read().map_err(Leave::Packet)?;
    out.push(Output::Revalidated { session, is_alive });
    Ok(())
}

const _: () = assert!(limits::TOUCHES_PER_PING_MAX * 12 < limits::FRAME_BYTES_MAX);
