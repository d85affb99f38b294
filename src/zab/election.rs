//! Who shall lead (`FastLeaderElection`).
//!
//! ```text
//!             ┌───────────────────── Left: the role is over ─────────────────────┐
//!             ▼                                                                  │
//!         Between ──Look──► Looking ──a quorum agrees──► Settled (FOLLOWING, LEADING or OBSERVING)
//!             └──Look, too soon──► Held ──the time has come──► Looking
//! ```
//!
//! Whoever looks tells all voters its vote, takes over each better one it hears of, and is done when a quorum holds the
//! same. A round is one attempt, and a higher one overrides. Servers that have settled answer whoever looks with
//! where they stand, so that a late one joins.
//!
//! Where Java waits 200 ms for better votes, this is done at once when every voter that is not known to be dead agrees,
//! and after `Settings::grace` otherwise: a wrong early decision costs an aborted discovery, never an update.
//! A Java peer that waits is started over by every message, so nobody is told anything without need: a peer hears from
//! us when we begin to look, when our vote changes, when it asks, and after long silence.
//!
//! `election_port.rs` wires this to its links.

mod ballots;
mod pacing;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::RoleName;
use super::quorum::{Ensemble, Standing};
use crate::types::ids::ServerId;
use crate::types::time::Time;
use crate::types::zxid::Zxid;
use crate::wire::election::{Notification, PeerState, Vote, encode_notification};
use crate::wire::extension::Extension;
use ballots::{Ballot, Ballots, is_better};
use pacing::Pacing;

/// To a Java peer nothing is repeated sooner: it must not be disturbed within the 200 ms that it waits.
const JAVA_SILENCE: Duration = Duration::from_millis(400);

/// What arrived while we had a role still counts if we look within this time: others may lose their leader before us.
const EARLY_LIMIT: Duration = Duration::from_millis(250);

/// The vote of who must not lead: an observer, or a server that is not listed.
const NOBODY: ServerId = ServerId(i64::MIN);

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    pub me: ServerId,
    /// `peerType=observer`.
    pub is_observer: bool,
    /// How long a quorum waits for better votes of voters that may be alive. 10–20 ms.
    pub grace: Duration,
    /// `zookeeper.fastleader.minNotificationInterval` and `maxNotificationInterval`.
    pub notification_interval_min: Duration,
    pub notification_interval_max: Duration,
    /// What others of ours are told about us. `None`: nothing, as if we were Java.
    pub extension: Option<Extension>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input<'a> {
    /// There is no leader any more: find one. The log ends durably at `zxid`, and the epoch that was joined last is
    /// durable as well. `None`: the database is not to be trusted; wait for others to elect, then join them.
    Look {
        zxid: Option<Zxid>,
        epoch: u32,
    },
    /// The role is over, and `Look` follows as soon as writes have landed. Till then nobody is answered.
    Left,
    /// The last leader has handed over to `leader`, who has all that it had: no votes are needed. As `Look` otherwise.
    Appointed {
        leader: ServerId,
        zxid: Zxid,
        epoch: u32,
    },
    /// The payload of a notification.
    Received {
        from: ServerId,
        payload: &'a [u8],
    },
    LinkUp {
        peer: ServerId,
    },
    /// `is_refused`: that process is dead.
    LinkDown {
        peer: ServerId,
        is_refused: bool,
    },
    /// We have finished synchronisation with our leader, or began to serve as one: late ones must see equal votes.
    Joined {
        epoch: u32,
    },
    Timeout,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    Send {
        to: ServerId,
        payload: Vec<u8>,
    },
    /// What was sent is no longer true.
    Forget,
    Elected(Elected),
    /// LEADING: a voter that had elected us looks again (`Leader.reportLookingSid`, ZOOKEEPER-3109).
    LookingAgain {
        voter: ServerId,
    },
}

/// The end of an election.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Elected {
    pub leader: ServerId,
    /// What we are now.
    pub role: RoleName,
    pub vote: Vote,
    /// Whose votes made the quorum.
    pub supporters: BTreeSet<ServerId>,
}

#[derive(Debug)]
pub struct Election {
    settings: Settings,
    ensemble: Ensemble,
    /// The configuration text and the extension that end every notification.
    config: Option<String>,
    trailer: Vec<u8>,
    /// `logicalclock`.
    round: i64,
    state: State,
    peers: BTreeMap<ServerId, Peer>,
    pacing: Pacing,
    /// A configuration newer than ours was told, and said so.
    newest_foreign_version: i64,
}

#[derive(Debug)]
enum State {
    Between,
    Held { candidate: Candidate, until: Time },
    Looking(Looking),
    Settled(Elected),
}

/// What `Look` said.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    zxid: Option<Zxid>,
    epoch: u32,
}

#[derive(Debug)]
struct Looking {
    /// Where every round begins. Its own round is not kept up to date.
    own: Vote,
    is_trusted: bool,
    proposal: Vote,
    /// Votes of this round, and of members that settled in it.
    recvset: Ballots,
    /// Votes of members that have settled in whatever round.
    outofelection: Ballots,
    /// A quorum holds the proposal: it is decided then, unless a better one comes.
    grace_until: Option<Time>,
    since: Time,
}

#[derive(Debug, Default)]
struct Peer {
    is_up: bool,
    is_dead: bool,
    extension: Option<Extension>,
    /// When it is sent our vote again, while we look, and how long it will have waited.
    repeat_at: Time,
    interval: Duration,
    /// Its last vote that we answered although it was of our round.
    answered: Option<Vote>,
    /// Its newest vote while we had a role, and when that came.
    early: Option<(Time, Vote)>,
    /// When it asked last, if it has no vote: it is told how the next election ends.
    asked: Option<Time>,
}

/// What a vote of this round has changed.
#[derive(PartialEq, Eq)]
enum Counted {
    /// Our proposal or round: all voters are to be told.
    Changed,
    /// Nothing.
    Same,
    /// Nothing, and it is worse than ours: its sender does not know ours.
    Worse,
}

impl Election {
    pub fn new(settings: Settings, ensemble: Ensemble) -> Election {
        let mut trailer = Vec::new();
        if let Some(extension) = &settings.extension {
            extension.encode(&mut trailer);
        }
        let mut election = Election {
            settings,
            config: ensemble.text_for_peers(),
            ensemble,
            trailer,
            round: 0,
            state: State::Between,
            peers: BTreeMap::new(),
            pacing: Pacing::default(),
            newest_foreign_version: 0,
        };
        election.set_peers();
        election
    }

    /// The configuration has changed. A running election goes on with the new voters.
    pub fn reconfigure(&mut self, now: Time, ensemble: Ensemble, out: &mut Vec<Output>) {
        self.config = ensemble.text_for_peers();
        self.ensemble = ensemble;
        self.set_peers();
        if matches!(self.state, State::Looking(_)) {
            self.broadcast(now, out);
            self.decide(now, out);
        }
    }

    fn set_peers(&mut self) {
        let (me, ensemble) = (self.settings.me, &self.ensemble);
        self.peers.retain(|peer, _| ensemble.has(*peer));
        for peer in ensemble.members().filter(|peer| *peer != me) {
            self.peers.entry(peer).or_default();
        }
    }

    /// What `peer` can, if it is one of ours and its link is up.
    pub fn extension_of(&self, peer: ServerId) -> Option<&Extension> {
        self.peers.get(&peer)?.extension.as_ref()
    }

    /// Whether `Look` was said and nobody is elected yet.
    pub fn is_looking(&self) -> bool {
        matches!(self.state, State::Held { .. } | State::Looking(_))
    }

    /// The current vote: that of the last election, or what we propose in this one.
    pub fn vote(&self) -> Option<&Vote> {
        match &self.state {
            State::Between | State::Held { .. } => None,
            State::Looking(looking) => Some(&looking.proposal),
            State::Settled(elected) => Some(&elected.vote),
        }
    }

    pub fn step(&mut self, now: Time, input: Input<'_>, out: &mut Vec<Output>) {
        match input {
            Input::Look { zxid, epoch } => self.on_look(now, Candidate { zxid, epoch }, out),
            Input::Appointed { leader, zxid, epoch } => self.on_appointed(now, leader, zxid, epoch, out),
            Input::Left => self.state = State::Between,
            Input::Received { from, payload } => self.on_received(now, from, payload, out),
            Input::LinkUp { peer } => self.on_link_up(now, peer),
            Input::LinkDown { peer, is_refused } => self.on_link_down(now, peer, is_refused, out),
            Input::Joined { epoch } => self.on_joined(epoch),
            Input::Timeout => self.on_timeout(now, out),
        }
    }

    pub fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Between | State::Settled(_) => None,
            State::Held { until, .. } => Some(*until),
            State::Looking(looking) => {
                let repeats = self.repeating().map(|(_, peer)| peer.repeat_at);
                repeats.chain(looking.grace_until).min()
            }
        }
    }

    /// Voters whose link is up: they may have missed what they were sent.
    fn repeating(&self) -> impl Iterator<Item = (ServerId, &Peer)> {
        let quorum = self.ensemble.quorum();
        self.peers.iter().map(|(id, peer)| (*id, peer)).filter(|(id, peer)| peer.is_up && quorum.contains(*id))
    }

    fn on_look(&mut self, now: Time, candidate: Candidate, out: &mut Vec<Output>) {
        assert!(!self.is_looking(), "one election at a time");
        let start = self.pacing.start(now);
        if start > now {
            self.state = State::Held { candidate, until: start };
        } else {
            self.begin(now, candidate, out);
        }
    }

    /// Enters LOOKING (`lookForLeader`).
    fn begin(&mut self, now: Time, candidate: Candidate, out: &mut Vec<Output>) {
        let me = self.settings.me;
        self.round = self.round.saturating_add(1);
        let leader = if self.ensemble.standing(me) == Standing::Voter { me } else { NOBODY };
        let (zxid, peer_epoch) = match candidate.zxid {
            _ if self.settings.is_observer => (i64::MIN, i64::MIN),
            None => (-1, candidate.epoch.into()),
            Some(zxid) => (zxid.as_i64(), candidate.epoch.into()),
        };
        let own = Vote { leader, zxid, round: self.round, peer_epoch };
        self.state = State::Looking(Looking {
            own,
            is_trusted: self.settings.is_observer || candidate.zxid.is_some(),
            proposal: own,
            recvset: Ballots::default(),
            outofelection: Ballots::default(),
            grace_until: None,
            since: now,
        });
        for (from, vote) in self.take_early(now) {
            self.count(from, vote);
        }
        self.broadcast(now, out);
        self.decide(now, out);
    }

    /// Votes of servers that began to look a little before us.
    fn take_early(&mut self, now: Time) -> Vec<(ServerId, Vote)> {
        let mut early = Vec::new();
        for (id, peer) in &mut self.peers {
            peer.answered = None;
            early.extend(
                peer.early
                    .take()
                    .filter(|(at, _)| now.saturating_since(*at) <= EARLY_LIMIT)
                    .map(|(_, vote)| (*id, vote)),
            );
        }
        early
    }

    fn on_received(&mut self, now: Time, from: ServerId, payload: &[u8], out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let notification = match Notification::decode(payload) {
            Ok(notification) => notification,
            Err(error) => {
                tracing::debug!(%from, %error, "a notification is dropped");
                return;
            }
        };
        peer.is_dead = false;
        let Notification { state, vote, version, config, extension } = notification;
        peer.extension = extension;
        self.note_configuration(from, config);
        if !self.ensemble.quorum().contains(from) {
            self.answer_non_voter(now, from, out);
        } else if let State::Looking(_) = self.state {
            // Only voters can be elected.
            if self.ensemble.quorum().contains(vote.leader) {
                self.on_vote(now, from, Ballot { vote, state, version }, out);
            } else if state == PeerState::Looking {
                self.answer_if_behind(now, from, &vote, out);
            }
        } else if state == PeerState::Looking {
            self.on_early(now, from, vote, out);
        } else if let Some(peer) = self.peers.get_mut(&from) {
            peer.early = None;
        }
    }

    /// Another server has a configuration that we do not have: without reconfiguration that is a mistake of whoever
    /// wrote them. Said once for each version.
    fn note_configuration(&mut self, from: ServerId, config: Option<&[u8]>) {
        let Some(version) = config.and_then(version_of) else { return };
        if version > self.ensemble.membership().version.max(self.newest_foreign_version) {
            self.newest_foreign_version = version;
            tracing::warn!(%from, version, "another server has a newer configuration of the ensemble");
        }
    }

    /// An observer or joiner asks: it learns where we stand, whatever it said.
    fn answer_non_voter(&mut self, now: Time, from: ServerId, out: &mut Vec<Output>) {
        let round = self.round;
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.asked = Some(now);
        }
        match &self.state {
            State::Between | State::Held { .. } => {}
            State::Looking(looking) => {
                let vote = Vote { round, ..looking.own };
                self.send(now, from, PeerState::Looking, &vote, out);
            }
            State::Settled(elected) => {
                let (state, vote) = (peer_state(elected.role), Vote { round, ..elected.vote });
                self.send(now, from, state, &vote, out);
            }
        }
    }

    /// A voter looks while we have a role: it learns ours. Its vote is kept for when we look as well.
    fn on_early(&mut self, now: Time, from: ServerId, heard: Vote, out: &mut Vec<Output>) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.early = Some((now, heard));
        }
        let State::Settled(elected) = &self.state else { return };
        let (role, vote) = (elected.role, elected.vote);
        let is_ours = match role {
            RoleName::Leading => elected.supporters.contains(&from),
            RoleName::Following | RoleName::Observing | RoleName::Looking => from == vote.leader,
        };
        // A late copy of the vote that made this election is no news.
        if is_ours && (heard.leader != vote.leader || heard.round > vote.round) {
            out.push(Output::LookingAgain { voter: from });
        }
        self.send(now, from, peer_state(role), &vote, out);
    }

    /// A voter that is in an earlier round cannot use what we told it then.
    fn answer_if_behind(&mut self, now: Time, from: ServerId, vote: &Vote, out: &mut Vec<Output>) {
        if vote.round < self.round {
            self.send_proposal(now, from, out);
        }
    }

    fn on_vote(&mut self, now: Time, from: ServerId, ballot: Ballot, out: &mut Vec<Output>) {
        match ballot.state {
            PeerState::Looking => {
                self.answer_if_behind(now, from, &ballot.vote, out);
                match self.count(from, ballot.vote) {
                    Counted::Changed => self.broadcast(now, out),
                    Counted::Worse => self.answer_worse(now, from, ballot.vote, out),
                    Counted::Same => {}
                }
                self.decide(now, out);
            }
            PeerState::Following | PeerState::Leading => self.on_established(now, from, ballot, out),
            PeerState::Observing => {}
        }
    }

    /// Java leaves a worse vote of the same round unanswered, and its sender finds out by its timer. Once for each
    /// vote: whoever asks again has had its answer.
    fn answer_worse(&mut self, now: Time, from: ServerId, vote: Vote, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if peer.answered.replace(vote) != Some(vote) {
            self.send_proposal(now, from, out);
        }
    }

    /// Counts the vote of a server that looks.
    fn count(&mut self, from: ServerId, vote: Vote) -> Counted {
        let quorum = self.ensemble.quorum();
        let State::Looking(looking) = &mut self.state else { return Counted::Same };
        if !looking.is_trusted || vote.zxid == -1 || vote.round < self.round || !quorum.contains(vote.leader) {
            return Counted::Same;
        }
        let mut counted = Counted::Same;
        if vote.round > self.round {
            self.round = vote.round;
            looking.recvset.clear();
            looking.proposal = Vote { round: vote.round, ..looking.own };
            counted = Counted::Changed;
        }
        let is_dead = self.peers.get(&vote.leader).is_some_and(|peer| peer.is_dead);
        if !is_dead && is_better(quorum, &vote, &looking.proposal) {
            looking.proposal = vote;
            counted = Counted::Changed;
        } else if counted == Counted::Same && is_better(quorum, &looking.proposal, &vote) {
            counted = Counted::Worse;
        }
        if counted == Counted::Changed {
            looking.grace_until = None;
        }
        looking.recvset.put(from, Ballot::looking(vote));
        counted
    }

    /// Over, once a quorum holds our proposal and nobody else can have a better one, or had time to say so
    /// (`finalizeWait`).
    fn decide(&mut self, now: Time, out: &mut Vec<Output>) {
        let (me, quorum) = (self.settings.me, self.ensemble.quorum());
        let State::Looking(looking) = &mut self.state else { return };
        if quorum.contains(me) && looking.is_trusted {
            looking.recvset.put(me, Ballot::looking(looking.proposal));
        }
        let Some(supporters) = looking.recvset.quorum_for(&Ballot::looking(looking.proposal), quorum) else {
            looking.grace_until = None;
            return;
        };
        let is_dead = |voter: &ServerId| self.peers.get(voter).is_some_and(|peer| peer.is_dead);
        let grace_until = *looking.grace_until.get_or_insert(now + self.settings.grace);
        if grace_until <= now || quorum.voters().all(|voter| supporters.contains(&voter) || is_dead(&voter)) {
            let vote = looking.proposal;
            self.settle(now, vote, supporters, out);
        }
    }

    /// The vote of a server that has a leader, or is one.
    fn on_established(&mut self, now: Time, from: ServerId, ballot: Ballot, out: &mut Vec<Output>) {
        let (me, round, quorum) = (self.settings.me, self.round, self.ensemble.quorum());
        let State::Looking(looking) = &mut self.state else { return };
        let vote = ballot.vote;
        // Whether the leader itself says so too (`checkLeader`).
        let is_confirmed = |ballots: &Ballots| match vote.leader == me {
            true => vote.round == round,
            false => ballots.is_leading(vote.leader),
        };
        let mut supporters = None;
        if vote.round == round {
            looking.recvset.put(from, Ballot { version: 0, ..ballot });
            supporters = looking.recvset.quorum_for(&ballot, quorum).filter(|_| is_confirmed(&looking.recvset));
        }
        if supporters.is_none() {
            looking.outofelection.put(from, ballot);
            let found = looking.outofelection.quorum_for(&ballot, quorum);
            supporters = found.filter(|_| is_confirmed(&looking.outofelection));
        }
        match supporters {
            Some(supporters) => {
                self.round = vote.round;
                self.settle(now, vote, supporters, out);
            }
            None => self.decide(now, out),
        }
    }

    fn settle(&mut self, now: Time, vote: Vote, supporters: BTreeSet<ServerId>, out: &mut Vec<Output>) {
        let role = match vote.leader == self.settings.me {
            true => RoleName::Leading,
            false if self.settings.is_observer => RoleName::Observing,
            false => RoleName::Following,
        };
        let elected = Elected { leader: vote.leader, role, vote, supporters };
        let before = std::mem::replace(&mut self.state, State::Settled(elected.clone()));
        out.push(Output::Forget);
        if let State::Looking(looking) = before {
            self.tell_who_asked(now, looking.since, role, &vote, out);
        }
        out.push(Output::Elected(elected));
    }

    /// Observers ask when they lose their leader, and most of them do so before the voters have another.
    fn tell_who_asked(&mut self, now: Time, since: Time, role: RoleName, vote: &Vote, out: &mut Vec<Output>) {
        let mut asked = Vec::new();
        for (id, peer) in &mut self.peers {
            asked.extend(peer.asked.take().filter(|at| *at + EARLY_LIMIT >= since).map(|_| *id));
        }
        for id in asked {
            self.send(now, id, peer_state(role), vote, out);
        }
    }

    /// As if all voters had agreed: whoever comes late finds servers with the same leader.
    fn on_appointed(&mut self, now: Time, leader: ServerId, zxid: Zxid, epoch: u32, out: &mut Vec<Output>) {
        assert!(!self.is_looking(), "one election at a time");
        self.round = self.round.saturating_add(1);
        let vote = Vote { leader, zxid: zxid.as_i64(), round: self.round, peer_epoch: epoch.into() };
        let supporters = self.ensemble.quorum().voters().collect();
        self.settle(now, vote, supporters, out);
    }

    fn on_joined(&mut self, epoch: u32) {
        if let State::Settled(elected) = &mut self.state {
            elected.vote.peer_epoch = epoch.into();
        }
    }

    fn on_link_up(&mut self, now: Time, peer: ServerId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.is_up = true;
            peer.is_dead = false;
            // The links send our newest vote again by themselves.
            peer.repeat_at = now + peer.interval;
        }
    }

    fn on_link_down(&mut self, now: Time, peer: ServerId, is_refused: bool, out: &mut Vec<Output>) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            *peer = Peer { is_dead: is_refused, interval: peer.interval, ..Peer::default() };
        }
        if is_refused {
            self.on_dead(now, peer, out);
        }
        self.decide(now, out);
    }

    /// The dead neither vote nor win: if we proposed `server`, a new round begins. Java elects it, fails to reach it, and
    /// then begins one.
    fn on_dead(&mut self, now: Time, server: ServerId, out: &mut Vec<Output>) {
        let State::Looking(looking) = &mut self.state else { return };
        looking.recvset.remove(server);
        looking.outofelection.remove(server);
        if looking.proposal.leader == server {
            self.round = self.round.saturating_add(1);
            looking.recvset.clear();
            looking.proposal = Vote { round: self.round, ..looking.own };
            looking.grace_until = None;
            self.broadcast(now, out);
        }
    }

    fn on_timeout(&mut self, now: Time, out: &mut Vec<Output>) {
        if let State::Held { candidate, until } = self.state
            && until <= now
        {
            self.begin(now, candidate, out);
        }
        if !matches!(self.state, State::Looking(_)) {
            return;
        }
        let due: Vec<ServerId> = self.repeating().filter(|(_, peer)| peer.repeat_at <= now).map(|(id, _)| id).collect();
        for id in due {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.interval = (peer.interval * 2).min(self.settings.notification_interval_max);
            }
            self.send_proposal(now, id, out);
        }
        self.decide(now, out);
    }

    /// Tells all voters what we propose now (`sendNotifications`). Repeats begin anew.
    fn broadcast(&mut self, now: Time, out: &mut Vec<Output>) {
        let voters: Vec<ServerId> = self.ensemble.quorum().voters().collect();
        let asks_in_vain = self.ensemble.standing(self.settings.me) != Standing::Voter;
        for id in voters {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            // Java's wait is not disturbed by who has no vote.
            let may_be_disturbed = peer.extension.is_some() || asks_in_vain;
            let silence = if may_be_disturbed { Duration::ZERO } else { JAVA_SILENCE };
            peer.interval = self.settings.notification_interval_min.max(silence);
            self.send_proposal(now, id, out);
        }
    }

    fn send_proposal(&mut self, now: Time, to: ServerId, out: &mut Vec<Output>) {
        let State::Looking(looking) = &self.state else { return };
        let proposal = looking.proposal;
        self.send(now, to, PeerState::Looking, &proposal, out);
    }

    fn send(&mut self, now: Time, to: ServerId, state: PeerState, vote: &Vote, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        peer.repeat_at = now + peer.interval;
        let payload = encode_notification(state, vote, self.config.as_deref(), &self.trailer);
        out.push(Output::Send { to, payload });
    }
}

fn peer_state(role: RoleName) -> PeerState {
    match role {
        RoleName::Looking => PeerState::Looking,
        RoleName::Leading => PeerState::Leading,
        RoleName::Following => PeerState::Following,
        RoleName::Observing => PeerState::Observing,
    }
}

/// The number in the last line of a configuration text that begins with `version=`.
fn version_of(config: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(config).ok()?;
    let version = text.lines().rev().find_map(|line| line.strip_prefix("version="))?;
    i64::from_str_radix(version.trim(), 16).ok()
}

/// `FLEReceiveNotmsg from 2: LOOKING 3 zxid 0x100000005 epoch 1 round 2`; the names are those of ZooKeeper's system
/// specification, where it has one.
impl fmt::Display for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Look { zxid: Some(zxid), epoch } => write!(f, "Look zxid {zxid} epoch {epoch}"),
            Input::Look { zxid: None, epoch } => write!(f, "Look zxid untrusted epoch {epoch}"),
            Input::Appointed { leader, zxid, epoch } => write!(f, "Appointed {leader} zxid {zxid} epoch {epoch}"),
            Input::Left => f.write_str("Left"),
            Input::Received { from, payload } => write!(f, "FLEReceiveNotmsg from {from}: {}", Payload(payload)),
            Input::LinkUp { peer } => write!(f, "LinkUp {peer}"),
            Input::LinkDown { peer, is_refused: false } => write!(f, "LinkDown {peer}"),
            Input::LinkDown { peer, is_refused: true } => write!(f, "LinkDown {peer} refused"),
            Input::Joined { epoch } => write!(f, "Joined epoch {epoch}"),
            Input::Timeout => f.write_str("FLENotmsgTimeout"),
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::Send { to, payload } => write!(f, "Notmsg to {to}: {}", Payload(payload)),
            Output::Forget => f.write_str("Forget"),
            Output::Elected(elected) => elected.fmt(f),
            Output::LookingAgain { voter } => write!(f, "LookingAgain {voter}"),
        }
    }
}

/// `Elected 3, Following: 3 zxid 0x5 epoch 1 round 1 by 1 3`.
impl fmt::Display for Elected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Elected { leader, role, vote, supporters } = self;
        write!(f, "Elected {leader}, {role:?}: {vote} by")?;
        supporters.iter().try_for_each(|supporter| write!(f, " {supporter}"))
    }
}

/// A notification's payload, for people.
struct Payload<'a>(&'a [u8]);

impl fmt::Display for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Notification::decode(self.0) {
            Ok(notification) => write!(f, "{} {}", notification.state, notification.vote),
            Err(error) => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
