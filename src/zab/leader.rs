//! The leader (`Leader`, `LearnerHandler`; spec actions `Leader…`).
//!
//! ```text
//! DISCOVERY        Gathering ─quorum came, epoch found─► StoringAccepted ─stored, LEADERINFO─► Promised ─quorum of ACKEPOCH─►
//! SYNCHRONIZATION  StoringCurrent ─stored─► Synchronizing ─quorum has all that we began with─►
//! BROADCAST        Established ─Resign, Stop, or the counter is worn─► (draining) ─► the role ends
//! ```
//!
//! - The epoch is later than whatever a quorum, and everybody else who came, had promised; it is durable here before
//!   anybody is told (2.9, 1), and no quorum is complete without acks of it.
//! - Nobody of the quorum that acked the epoch has a history that ours does not cover.
//! - Our own history is durable when the role begins, and counts as acked once `current` is durable as well (2.9, 3).
//! - Nothing is proposed before a quorum has all that we began with; then that is decided, and each later txn as soon as
//!   a quorum has it durable, over links that are up, in order.
//! - `committed` of this role is never behind what any learner was told over a live link.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::acks::Acks;
use super::base::{Base, close};
use super::link::{LearnerLink, LinkState};
use super::quorum::Ensemble;
use super::reason::{Leave, LinkEnd};
use super::sync::Source;
use super::transport::{Port, SocketId, SocketInput};
use super::{Epochs, Input, LearnerRequest, LogRead, Output, OwnedRequest, Phase, RoleName};
use crate::types::ids::{ServerId, SessionId};
use crate::types::limits;
use crate::types::time::Time;
use crate::types::zxid::Zxid;
use crate::wire::jute::Reader;
use crate::wire::quorum::{
    Features, LearnerInfo, NO_ZXID, PROTOCOL_VERSION, PacketStream, PacketType, QuorumPacket, RequestBody,
    read_number_and_extension,
};

/// A supporter that looks again may have said so before it heard of us: it gets this long to come.
const DOUBT_LIMIT: Duration = Duration::from_millis(30);

/// How long a quorum may be missing with slow heartbeats, in ticks, and the least with fast ones.
const QUORUM_GRACE_MIN: Duration = Duration::from_millis(80);

/// How long the last proposals may take to be decided before a planned end.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// A voter that can only join the next epoch ends this one, but not sooner than so long after its beginning.
const REIGN_MIN: Duration = Duration::from_secs(2);

/// No epoch is later: Java keeps it in the upper half of a signed number.
const EPOCH_MAX: u32 = 0x7fff_ffff;

enum State {
    Gathering,
    StoringAccepted,
    Promised,
    StoringCurrent,
    Synchronizing,
    Established { acks: Acks, since: Time },
}

/// A planned end.
struct Draining {
    until: Time,
    /// Our own writes have landed.
    is_settled: bool,
    is_stop: bool,
}

pub struct Leader {
    state: State,
    epoch: u32,
    /// The epoch that we had joined when the role began.
    joined: u32,
    /// Where our history ended then.
    initial: Zxid,
    links: BTreeMap<SocketId, LearnerLink>,
    /// Voters that have made our epoch's promise durable, from ACKEPOCH on.
    promised: BTreeSet<ServerId>,
    /// When the wait of this state is over.
    until: Time,
    doubt: Option<(Time, ServerId)>,
    /// Since when those who count are no quorum.
    lost: Option<Time>,
    draining: Option<Draining>,
    anonymous: i64,
}

impl Leader {
    /// Begins to lead, from a history that is durable to its end.
    pub fn new(now: Time, base: &Base) -> Leader {
        assert_eq!(base.flushed, base.history.last(), "writes have landed before a role begins");
        assert!(base.storing.is_none(), "epochs have landed before a role begins");
        Leader {
            state: State::Gathering,
            epoch: 0,
            joined: base.epochs.current,
            initial: base.history.last(),
            links: BTreeMap::new(),
            promised: BTreeSet::new(),
            until: now + base.settings.discovery_limit,
            doubt: None,
            lost: None,
            draining: None,
            anonymous: 0,
        }
    }

    pub fn phase(&self) -> Phase {
        match self.state {
            State::Gathering | State::StoringAccepted | State::Promised => Phase::Discovery,
            State::StoringCurrent | State::Synchronizing => Phase::Synchronization,
            State::Established { .. } => Phase::Broadcast,
        }
    }

    pub fn links(&self) -> impl Iterator<Item = &LearnerLink> {
        self.links.values()
    }

    pub fn owns(&self, socket: SocketId) -> bool {
        self.links.contains_key(&socket)
    }

    /// Others decide from here on.
    pub fn reconfigure(&mut self, ensemble: &Ensemble) {
        let quorum = ensemble.quorum();
        for link in self.links.values_mut().filter(|link| link.state != LinkState::Silent) {
            link.is_voter = !link.is_observer && quorum.contains(link.server);
        }
        self.promised.retain(|server| quorum.contains(*server));
        if let State::Established { acks, .. } = &mut self.state {
            acks.set_quorum(quorum.clone());
        }
    }

    fn is_established(&self) -> bool {
        matches!(self.state, State::Established { .. })
    }

    pub fn step(&mut self, now: Time, input: Input<'_>, base: &mut Base, out: &mut Vec<Output>) -> Result<(), Leave> {
        match input {
            Input::Socket(input) => self.on_socket(now, input, base, out)?,
            Input::Flushed { .. } => self.on_own_flush(base, out),
            Input::EpochsStored(_) => self.on_epochs_stored(now, base),
            Input::LogRead { socket, read } => self.on_log_read(socket, read, base, out),
            Input::SnapshotPiece { socket, zxid, bytes, is_end } => {
                let source = source(&self.state, (self.epoch, self.initial), base);
                if let Some(link) = self.links.get_mut(&socket) {
                    link.on_snapshot_piece(zxid, &bytes, is_end, &source, out);
                }
            }
            Input::Revalidated { socket, session, is_alive } => {
                if let Some(link) = self.links.get_mut(&socket) {
                    let mut answer = session.0.to_be_bytes().to_vec();
                    answer.push(is_alive.into());
                    link.put(PacketType::Revalidate, NO_ZXID, Some(&answer));
                }
            }
            Input::Sync { .. } if self.draining.is_some() => {}
            Input::Sync { socket } => {
                let last = base.history.last();
                let done = self.links.get_mut(&socket).map(|link| link.on_sync(last));
                self.end_link_if(socket, done.unwrap_or(Ok(())), out);
            }
            Input::Propose { zxid, txn } => self.on_propose(zxid, txn, base),
            Input::EndOfTurn => return self.end_turn(now, base, out),
            Input::Stalled(stall) => self.push_out(stall),
            Input::Timeout => return self.on_timeout(now, base, out),
            Input::Resign => self.drain(now, false, base, out),
            Input::Stop if self.is_established() => self.drain(now, true, base, out),
            Input::Stop => return Err(Leave::Stopped),
            Input::Settled { .. } => {
                let draining = self.draining.as_mut().expect("only who drains has asked for it");
                draining.is_settled = true;
            }
            Input::Installed { .. }
            | Input::LoadFailed { .. }
            | Input::Request(_)
            | Input::Revalidate { .. }
            | Input::Touched { .. } => {}
        }
        self.advance(now, base, out);
        Ok(())
    }

    // Links.

    fn on_socket(
        &mut self,
        now: Time,
        input: SocketInput<'_>,
        base: &mut Base,
        out: &mut Vec<Output>,
    ) -> Result<(), Leave> {
        match input {
            SocketInput::Accepted { socket, port: Port::Quorum } => self.accept(now, socket, base, out),
            SocketInput::Received { socket, bytes } => self.on_received(now, socket, bytes, base, out)?,
            SocketInput::Unsent { socket, bytes } => {
                if let Some(link) = self.links.get_mut(&socket) {
                    link.on_unsent(now, bytes);
                }
            }
            SocketInput::Closed { socket, .. } => self.forget_link(socket, &LinkEnd::Closed, out),
            SocketInput::Accepted { port: Port::Election, .. } | SocketInput::Connected { .. } => {}
        }
        Ok(())
    }

    pub fn accept(&mut self, now: Time, socket: SocketId, base: &Base, out: &mut Vec<Output>) {
        if self.links.len() >= limits::LEARNER_LINKS_MAX {
            tracing::warn!(%socket, "{}", LinkEnd::TooManyLinks);
            return close(socket, true, out);
        }
        self.links.insert(socket, LearnerLink::new(now, socket, base.settings.packet_bytes_max));
    }

    pub fn on_received(
        &mut self,
        now: Time,
        socket: SocketId,
        bytes: &[u8],
        base: &mut Base,
        out: &mut Vec<Output>,
    ) -> Result<(), Leave> {
        let Some(link) = self.links.get_mut(&socket) else { return Ok(()) };
        link.on_heard(now);
        let mut stream = std::mem::replace(&mut link.stream, PacketStream::new(0));
        stream.push(bytes);
        let mut done = Ok(());
        while done.is_ok() {
            match stream.next_packet() {
                Ok(Some(packet)) => done = self.on_packet(now, socket, &packet, base, out)?,
                Ok(None) => break,
                Err(error) => done = Err(LinkEnd::Packet(error)),
            }
        }
        if let Some(link) = self.links.get_mut(&socket) {
            link.stream = stream;
        }
        self.end_link_if(socket, done, out);
        Ok(())
    }

    fn end_link_if(&mut self, socket: SocketId, done: Result<(), LinkEnd>, out: &mut Vec<Output>) {
        if let Err(why) = done {
            self.end_link(socket, &why, out);
        }
    }

    fn end_link(&mut self, socket: SocketId, why: &LinkEnd, out: &mut Vec<Output>) {
        if self.links.contains_key(&socket) {
            close(socket, true, out);
            self.forget_link(socket, why, out);
        }
    }

    fn forget_link(&mut self, socket: SocketId, why: &LinkEnd, out: &mut Vec<Output>) {
        let Some(mut link) = self.links.remove(&socket) else { return };
        tracing::info!(server = %link.server, %socket, "link of a learner: {why}");
        link.cancel(out);
        if let State::Established { acks, .. } = &mut self.state
            && link.is_voter
        {
            acks.forget(link.server);
        }
        out.push(Output::LinkClosed { socket });
    }

    /// Ends all links, those of a leader that hands over after what was sent has left.
    pub fn end(&mut self, is_abrupt: bool, out: &mut Vec<Output>) {
        while let Some((socket, mut link)) = self.links.pop_first() {
            link.cancel(out);
            close(socket, is_abrupt, out);
            out.push(Output::LinkClosed { socket });
        }
    }

    // Packets.

    /// The inner result is about the link, the outer one about the role.
    fn on_packet(
        &mut self,
        now: Time,
        socket: SocketId,
        packet: &QuorumPacket<'_>,
        base: &mut Base,
        out: &mut Vec<Output>,
    ) -> Result<Result<(), LinkEnd>, Leave> {
        let Some(link) = self.links.get(&socket) else { return Ok(Ok(())) };
        let kind = packet.packet_type();
        Ok(match (link.state, kind) {
            (LinkState::Silent, Some(PacketType::FollowerInfo | PacketType::ObserverInfo)) => {
                return self.on_learner_info(now, socket, packet, base, out);
            }
            (LinkState::Promising, Some(PacketType::AckEpoch)) => {
                return self.on_ack_epoch(socket, packet, base);
            }
            (LinkState::Newcomer | LinkState::Synced | LinkState::Live, Some(PacketType::Ack)) => {
                self.on_ack(now, socket, packet.zxid, base, out)
            }
            // Whoever leads next is asked again: nothing more is proposed, so nothing more may be answered.
            (LinkState::Live, Some(PacketType::Request)) if self.draining.is_some() => Ok(()),
            (LinkState::Live, Some(PacketType::Request)) => on_request(socket, packet, out),
            (LinkState::Live, Some(PacketType::Revalidate)) => on_revalidate(socket, packet, out),
            (LinkState::Newcomer | LinkState::Synced | LinkState::Live, Some(PacketType::Ping)) => on_ping(packet, out),
            // Before the handshake is over nothing else may come, and never what only a leader says.
            (LinkState::Silent | LinkState::Known | LinkState::Promising, _) => Err(LinkEnd::OutOfPhase(packet.kind)),
            (_, Some(PacketType::Request | PacketType::Revalidate)) => Err(LinkEnd::OutOfPhase(packet.kind)),
            _ => {
                tracing::debug!(server = %link.server, "ignored: {packet}");
                Ok(())
            }
        })
    }

    /// `LeaderProcessFOLLOWERINFO`.
    fn on_learner_info(
        &mut self,
        now: Time,
        socket: SocketId,
        packet: &QuorumPacket<'_>,
        base: &mut Base,
        out: &mut Vec<Output>,
    ) -> Result<Result<(), LinkEnd>, Leave> {
        let info = match packet.data.map(LearnerInfo::read) {
            None => {
                self.anonymous -= 1;
                let server = ServerId(self.anonymous);
                LearnerInfo { server, protocol: PROTOCOL_VERSION, config_version: 0, offer: None }
            }
            Some(Ok(info)) => info,
            Some(Err(error)) => return Ok(Err(LinkEnd::Packet(error))),
        };
        let accepted = packet.zxid.epoch();
        if info.protocol < PROTOCOL_VERSION {
            return Ok(Err(LinkEnd::OldProtocol(info.protocol)));
        }
        if info.config_version > base.ensemble.membership().version {
            return Ok(Err(LinkEnd::ConfigAhead(info.config_version)));
        }
        if accepted >= EPOCH_MAX || info.server == base.settings.server {
            return Ok(Err(LinkEnd::OutOfPhase(packet.kind)));
        }
        let is_observer = packet.packet_type() == Some(PacketType::ObserverInfo);
        let is_voter = !is_observer && base.ensemble.quorum().contains(info.server);
        let older = self.links.values().find(|link| link.server == info.server && link.socket != socket);
        if let Some(older) = older.map(|link| link.socket) {
            self.end_link(older, &LinkEnd::Replaced, out);
        }
        if accepted > self.epoch && !matches!(self.state, State::Gathering) {
            return self.on_later_promise(now, info.server, is_voter, accepted, base);
        }
        let own = base.extension().map(|_| base.settings.features.clone());
        if let Some(link) = self.links.get_mut(&socket) {
            link.server = info.server;
            (link.is_observer, link.is_voter, link.accepted) = (is_observer, is_voter, accepted);
            link.features = own.zip(info.offer).map(|(own, offer)| own.and(&Features::of(&offer)));
            link.state = LinkState::Known;
            if matches!(self.state, State::Gathering | State::StoringAccepted) {
                return Ok(Ok(()));
            }
            link.put_leader_info(self.epoch, &base.settings);
        }
        Ok(Ok(()))
    }

    /// It can never join this epoch (N5).
    fn on_later_promise(
        &mut self,
        now: Time,
        server: ServerId,
        is_voter: bool,
        accepted: u32,
        base: &mut Base,
    ) -> Result<Result<(), LinkEnd>, Leave> {
        base.epoch_floor = base.epoch_floor.max(accepted);
        let is_idle = base.committed == base.history.last();
        let may_end = match &self.state {
            State::Established { since, .. } => is_idle && now >= *since + REIGN_MIN && self.draining.is_none(),
            State::Gathering
            | State::StoringAccepted
            | State::Promised
            | State::StoringCurrent
            | State::Synchronizing => true,
        };
        if is_voter && may_end {
            return Err(Leave::LaterEpochPromised(server));
        }
        Ok(Err(LinkEnd::LaterEpochPromised(accepted)))
    }

    /// `LeaderProcessACKEPOCH`.
    fn on_ack_epoch(
        &mut self,
        socket: SocketId,
        packet: &QuorumPacket<'_>,
        base: &mut Base,
    ) -> Result<Result<(), LinkEnd>, Leave> {
        let Some(link) = self.links.get_mut(&socket) else { return Ok(Ok(())) };
        let Some(Ok((current, echo))) = packet.data.map(read_number_and_extension) else {
            return Ok(Err(LinkEnd::OutOfPhase(packet.kind)));
        };
        link.features = link.features.take().zip(echo).map(|(chosen, echo)| chosen.and(&Features::of(&echo)));
        let last = packet.zxid;
        // Not counted, but synchronised: it had promised this epoch before.
        if let Ok(current) = u32::try_from(current) {
            let is_ahead = (current, last) > (self.joined, self.initial) && last != NO_ZXID;
            let is_open = matches!(self.state, State::Promised);
            if is_ahead && link.is_voter && is_open && base.ensemble.quorum().may_lead(link.server) {
                return Err(Leave::VoterAhead(link.server));
            }
            if is_ahead {
                tracing::info!(server = %link.server, %last, "a learner has what was never decided");
            }
            if link.is_voter && !is_ahead && last != NO_ZXID {
                self.promised.insert(link.server);
            }
        }
        link.state = LinkState::Waiting { last, is_later: false };
        debug_assert!(base.epochs.accepted == self.epoch, "LEADERINFO left only then");
        Ok(Ok(()))
    }

    /// `LeaderProcessACKLD` and `LeaderProcessACK`.
    fn on_ack(
        &mut self,
        now: Time,
        socket: SocketId,
        zxid: Zxid,
        base: &mut Base,
        out: &mut Vec<Output>,
    ) -> Result<(), LinkEnd> {
        let Some(link) = self.links.get_mut(&socket) else { return Ok(()) };
        if zxid.counter() == 0 {
            if zxid.epoch() != self.epoch {
                return Err(LinkEnd::NeverProposed(zxid));
            }
            // The one that Java sends again after UPTODATE says nothing.
            if link.state == LinkState::Newcomer {
                link.state = LinkState::Synced;
            }
            return Ok(());
        }
        link.on_ack(now, zxid)?;
        if !link.is_live() || !link.is_voter {
            // Java before 3.8.5 acks txns of the synchronisation, which are decided without that.
            return Ok(());
        }
        if let State::Established { acks, .. } = &mut self.state
            && zxid.epoch() == self.epoch
            && let Some(upto) = acks.on_ack(link.server, zxid)
        {
            base.commit(upto, out);
        }
        Ok(())
    }

    // Our own log.

    fn on_own_flush(&mut self, base: &mut Base, out: &mut Vec<Output>) {
        if let State::Established { acks, .. } = &mut self.state
            && base.flushed.epoch() == self.epoch
            && let Some(upto) = acks.on_ack(base.settings.server, base.flushed)
        {
            base.commit(upto, out);
        }
    }

    fn on_propose(&mut self, zxid: Zxid, txn: &[u8], base: &mut Base) {
        let State::Established { acks, .. } = &mut self.state else {
            panic!("{zxid} is proposed by a leader that is not established");
        };
        let is_frozen = self.draining.is_some();
        assert!(!is_frozen, "{zxid} is proposed by a leader that hands over");
        assert_eq!(zxid.epoch(), self.epoch, "{zxid} is proposed in another epoch");
        base.history.append(zxid, txn);
        acks.on_proposed(zxid);
    }

    fn on_log_read(&mut self, socket: SocketId, read: Option<LogRead>, base: &Base, out: &mut Vec<Output>) {
        let source = source(&self.state, (self.epoch, self.initial), base);
        let done = self.links.get_mut(&socket).map(|link| link.on_log_read(read, &source, out));
        self.end_link_if(socket, done.unwrap_or(Ok(())), out);
    }

    // From state to state.

    /// Goes on as far as it can.
    fn advance(&mut self, now: Time, base: &mut Base, out: &mut Vec<Output>) {
        let quorum = base.ensemble.quorum();
        let me = base.settings.server;
        match &self.state {
            State::Gathering if quorum.is_quorum(|server| server == me || self.has_voter(server, |_| true)) => {
                let promised = self.links.values().map(|link| link.accepted).max().unwrap_or(0);
                let highest = promised.max(base.epochs.accepted).max(base.epoch_floor);
                self.epoch = highest + 1;
                self.state = State::StoringAccepted;
                base.store_epochs(Epochs { accepted: self.epoch, current: base.epochs.current }, out);
            }
            State::Promised if quorum.is_quorum(|server| server == me || self.promised.contains(&server)) => {
                self.state = State::StoringCurrent;
                base.store_epochs(Epochs { accepted: self.epoch, current: self.epoch }, out);
            }
            State::Synchronizing
                if quorum.is_quorum(|server| server == me || self.has_voter(server, LearnerLink::is_synced)) =>
            {
                self.establish(now, base, out);
            }
            State::Gathering
            | State::StoringAccepted
            | State::Promised
            | State::StoringCurrent
            | State::Synchronizing
            | State::Established { .. } => {}
        }
        if self.is_established() {
            for link in self.links.values_mut().filter(|link| link.state == LinkState::Synced) {
                link.put_up_to_date(now);
            }
        }
    }

    /// Whether a voter's link is there, has said who it is, and `is` so.
    fn has_voter(&self, server: ServerId, is: impl Fn(&LearnerLink) -> bool) -> bool {
        self.links.values().any(|link| link.is_voter && link.server == server && is(link))
    }

    fn on_epochs_stored(&mut self, now: Time, base: &Base) {
        match self.state {
            State::StoringAccepted => {
                assert_eq!(base.epochs.accepted, self.epoch, "LEADERINFO comes after the promise is durable");
                self.state = State::Promised;
                self.until = now + base.settings.init_limit;
                for link in self.links.values_mut().filter(|link| link.state == LinkState::Known) {
                    link.put_leader_info(self.epoch, &base.settings);
                }
            }
            State::StoringCurrent => {
                assert_eq!(base.epochs.current, self.epoch, "our own ack comes after the epoch is durable");
                self.state = State::Synchronizing;
                self.until = now + base.settings.init_limit;
            }
            State::Gathering | State::Promised | State::Synchronizing | State::Established { .. } => {
                panic!("nothing was to be stored")
            }
        }
    }

    fn establish(&mut self, now: Time, base: &mut Base, out: &mut Vec<Output>) {
        assert_eq!(base.history.last(), self.initial, "nothing is proposed before");
        assert_eq!(base.flushed, self.initial, "our own history is durable");
        assert_eq!(base.epochs, Epochs { accepted: self.epoch, current: self.epoch });
        let acks = Acks::new(base.ensemble.quorum().clone(), self.initial);
        self.state = State::Established { acks, since: now };
        self.lost = None;
        base.commit(self.initial, out);
        let (leader, zxid) = (base.settings.server, Zxid::new(self.epoch, 0));
        out.push(Output::Established { role: RoleName::Leading, leader, zxid });
    }

    // The end of a turn, and time.

    fn end_turn(&mut self, now: Time, base: &mut Base, out: &mut Vec<Output>) -> Result<(), Leave> {
        self.advance(now, base, out);
        self.pump(now, base, out);
        self.check_quorum(now, base)?;
        self.end_draining(now, base, out)?;
        for link in self.links.values_mut() {
            link.flush(now, out);
        }
        Ok(())
    }

    fn pump(&mut self, now: Time, base: &Base, out: &mut Vec<Output>) {
        if self.phase() < Phase::Synchronization {
            return;
        }
        let (mut diffs, mut snapshots) = self.links.values().fold((0, 0), |(diffs, snapshots), link| {
            let (is_diff, is_snapshot) = link.syncs_with();
            (diffs + usize::from(is_diff), snapshots + usize::from(is_snapshot))
        });
        let source = source(&self.state, (self.epoch, self.initial), base);
        let settings = &base.settings;
        let mut ended = Vec::new();
        for (socket, link) in &mut self.links {
            let was = link.syncs_with();
            let mut done = link.pump(now, &source, out);
            let is = link.syncs_with();
            diffs += usize::from(is.0 && !was.0);
            snapshots += usize::from(is.1 && !was.1);
            let is_too_many = diffs > settings.diff_syncs_max || snapshots > settings.snapshot_syncs_max;
            if is != was && is_too_many && link.is_observer {
                done = done.and(Err(LinkEnd::TooManySyncs));
            }
            link.ping(now, base.history.last(), settings);
            if let Err(why) = done {
                ended.push((*socket, why));
            }
        }
        for (socket, why) in ended {
            self.end_link(socket, &why, out);
        }
    }

    /// Those without whom this reign cannot go on.
    fn is_carried(&self, base: &Base) -> bool {
        let me = base.settings.server;
        base.ensemble.quorum().is_quorum(|server| {
            server == me
                || match &self.state {
                    State::Gathering => true,
                    State::StoringAccepted | State::Promised => {
                        // Who had promised this very epoch before is not counted in it.
                        self.promised.contains(&server)
                            || self.has_voter(server, |link| {
                                link.accepted < self.epoch
                                    && matches!(link.state, LinkState::Known | LinkState::Promising)
                            })
                    }
                    State::StoringCurrent | State::Synchronizing => self.has_voter(server, |_| true),
                    State::Established { .. } => self.has_voter(server, LearnerLink::is_synced),
                }
        })
    }

    fn quorum_grace(&self, base: &Base) -> Duration {
        match base.settings.features.heartbeats {
            Some(heartbeats) if self.links.values().all(|link| !link.is_voter || link.features.is_some()) => {
                (heartbeats.timeout() * 4 / 5).max(QUORUM_GRACE_MIN)
            }
            _ => base.settings.tick,
        }
    }

    fn check_quorum(&mut self, now: Time, base: &Base) -> Result<(), Leave> {
        if self.is_carried(base) {
            self.lost = None;
            return Ok(());
        }
        let lost = *self.lost.get_or_insert(now);
        if now >= lost + self.quorum_grace(base) { Err(Leave::QuorumLost) } else { Ok(()) }
    }

    /// A voter that had elected us looks again (`Leader.reportLookingSid`, ZOOKEEPER-3109).
    pub fn on_looking_again(&mut self, now: Time, voter: ServerId) {
        if matches!(self.state, State::Gathering) && !self.has_voter(voter, |_| true) {
            self.doubt.get_or_insert((now + DOUBT_LIMIT, voter));
        }
    }

    fn on_timeout(&mut self, now: Time, base: &mut Base, out: &mut Vec<Output>) -> Result<(), Leave> {
        let silent = self
            .links
            .iter()
            .filter_map(|(socket, link)| Some((*socket, link.end(now, &base.settings, &base.lateness)?)));
        for (socket, why) in silent.collect::<Vec<_>>() {
            self.end_link(socket, &why, out);
        }
        if let (State::Gathering, Some((at, voter))) = (&self.state, self.doubt)
            && now >= at
        {
            if !self.has_voter(voter, |_| true) {
                return Err(Leave::SupporterLooks(voter));
            }
            self.doubt = None;
        }
        if now >= self.until && !self.is_established() {
            return Err(Leave::NoQuorum);
        }
        self.check_quorum(now, base)
    }

    pub fn deadline(&self, base: &Base) -> Option<Time> {
        let links = self.links.values().map(|link| link.deadline(&base.settings, &base.lateness));
        let phase = (!self.is_established()).then_some(self.until);
        let lost = self.lost.map(|lost| lost + self.quorum_grace(base));
        let doubt = self.doubt.map(|(at, _)| at).filter(|_| matches!(self.state, State::Gathering));
        let draining = self.draining.as_ref().map(|draining| draining.until);
        links.chain(phase).chain(lost).chain(doubt).chain(draining).min()
    }

    fn push_out(&mut self, stall: Duration) {
        self.links.values_mut().for_each(|link| link.push_out(stall));
        self.until = self.until + stall;
        self.lost = self.lost.map(|lost| lost + stall);
        self.doubt = self.doubt.map(|(at, voter)| (at + stall, voter));
        if let Some(draining) = &mut self.draining {
            draining.until = draining.until + stall;
        }
    }

    // A planned end.

    /// Nothing more is proposed; what is under way is decided first.
    fn drain(&mut self, now: Time, is_stop: bool, base: &mut Base, out: &mut Vec<Output>) {
        if let Some(draining) = &mut self.draining {
            draining.is_stop |= is_stop;
        } else if self.is_established() && (is_stop || self.links.values().any(LearnerLink::can_hand_over)) {
            self.draining = Some(Draining { until: now + DRAIN_LIMIT, is_settled: false, is_stop });
            base.settle(out);
        }
    }

    fn end_draining(&mut self, now: Time, base: &mut Base, out: &mut Vec<Output>) -> Result<(), Leave> {
        let State::Established { acks, .. } = &self.state else { return Ok(()) };
        let last = base.history.last();
        let is_quiet = base.committed == last;
        let Some(draining) = &self.draining else {
            let counter = if last.epoch() == self.epoch { last.counter() } else { 0 };
            if counter >= limits::COUNTER_SPENT || (counter >= limits::COUNTER_WORN && is_quiet) {
                if self.links.values().any(LearnerLink::can_hand_over) && counter < limits::COUNTER_SPENT {
                    self.drain(now, false, base, out);
                    return Ok(());
                }
                return Err(Leave::CounterSpent);
            }
            return Ok(());
        };
        if !(draining.is_settled && is_quiet) && now < draining.until {
            return Ok(());
        }
        let is_stop = draining.is_stop;
        // Whoever has everything may lead at once; among these the one that would win an election.
        let has_all = |link: &&LearnerLink| {
            let acked = acks.acked(link.server).unwrap_or(self.initial);
            link.is_live() && link.is_voter && link.can_hand_over() && acked >= last
        };
        let may_lead = |link: &&LearnerLink| base.ensemble.quorum().may_lead(link.server);
        let next = self.links.values().filter(has_all).filter(may_lead).map(|link| link.server).max();
        let end = match next {
            Some(to) if is_quiet => {
                for link in self.links.values_mut().filter(|link| link.is_live() && link.can_hand_over()) {
                    link.put(PacketType::HandOver, Zxid::new(self.epoch, 0), Some(&to.0.to_be_bytes()));
                }
                Leave::HandedOver { to }
            }
            _ => Leave::QuorumLost,
        };
        for link in self.links.values_mut() {
            link.flush(now, out);
        }
        Err(if is_stop { Leave::Stopped } else { end })
    }
}

/// What learners are served from.
fn source<'a>(state: &State, (epoch, initial): (u32, Zxid), base: &'a Base) -> Source<'a> {
    Source {
        history: &base.history,
        epoch,
        initial,
        is_established: matches!(state, State::Established { .. }),
        committed: base.committed,
        force_snapshot: base.settings.force_snapshot_sync,
    }
}

fn on_request(socket: SocketId, packet: &QuorumPacket<'_>, out: &mut Vec<Output>) -> Result<(), LinkEnd> {
    let request = RequestBody::read(packet).map_err(LinkEnd::Packet)?;
    let auth = packet.auth().map_err(LinkEnd::Packet)?;
    let request = LearnerRequest {
        session: request.session,
        cxid: request.cxid,
        op: request.op,
        body: request.body,
        auth: &auth,
    };
    out.push(Output::Request { socket, request: Box::new(OwnedRequest::from(&request)) });
    Ok(())
}

fn on_revalidate(socket: SocketId, packet: &QuorumPacket<'_>, out: &mut Vec<Output>) -> Result<(), LinkEnd> {
    let read = || {
        let mut reader = packet.body()?;
        Ok((SessionId(reader.i64()?), reader.i32()?))
    };
    let (session, timeout_ms) = read().map_err(LinkEnd::Packet)?;
    out.push(Output::Revalidate { socket, session, timeout_ms });
    Ok(())
}

/// An answer, or a sign of life that nobody asked for: the sessions that were heard of.
fn on_ping(packet: &QuorumPacket<'_>, out: &mut Vec<Output>) -> Result<(), LinkEnd> {
    let mut touched = Reader::new(packet.data.unwrap_or_default());
    while touched.remaining() > 0 {
        let mut read = || Ok((SessionId(touched.i64()?), touched.i32()?));
        let (session, timeout_ms) = read().map_err(LinkEnd::Packet)?;
        out.push(Output::Touch { session, timeout_ms });
    }
    Ok(())
}
