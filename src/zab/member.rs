//! A member of an ensemble: one role after the other.
//!
//! - A role begins when every write of the one before has landed: of the log (`Settled`) and of the epochs.
//! - With a role end its links: nothing is sent on one whose role is gone, and no timer of it fires (J-18).
//! - Where a vote names the end of the log, that is durable (2.9, 8).

use std::collections::BTreeMap;
use std::time::Duration;

use super::base::{Base, close};
use super::election::Elected;
use super::election_port::{self, ElectionPort};
use super::leader::Leader;
use super::learner::Learner;
use super::quorum::Ensemble;
use super::reason::Leave;
use super::transport::{Port, SocketId, SocketInput};
use super::{Input, Output, Phase, RoleName};
use crate::types::ids::ServerId;
use crate::types::limits;
use crate::types::time::Time;
use crate::types::zxid::Zxid;

enum Role {
    Looking(Looking),
    Leading(Box<Leader>),
    Learning(Box<Learner>),
    Stopped,
}

#[derive(Default)]
struct Looking {
    /// Who leads next, if the last leader said so.
    next: Option<ServerId>,
    /// The election has begun.
    is_begun: bool,
}

pub struct Member {
    pub base: Base,
    port: ElectionPort,
    from_port: Vec<election_port::Output>,
    role: Role,
    early: EarlyLearners,
    /// When we wanted to be woken at the end of the last turn.
    due: Option<Time>,
    is_started: bool,
    /// Voters know that we serve.
    is_joined: bool,
    is_stopping: bool,
}

impl Member {
    pub fn new(mut base: Base, out: &mut Vec<Output>) -> Member {
        let port = ElectionPort::new(base.settings.election.clone(), base.ensemble.clone());
        base.settle(out);
        Member {
            base,
            port,
            from_port: Vec::new(),
            role: Role::Looking(Looking::default()),
            early: EarlyLearners::default(),
            due: None,
            is_started: false,
            is_joined: false,
            is_stopping: false,
        }
    }

    pub fn role(&self) -> RoleName {
        match &self.role {
            Role::Looking(_) | Role::Stopped => RoleName::Looking,
            Role::Leading(_) => RoleName::Leading,
            Role::Learning(learner) => learner.role(),
        }
    }

    pub fn phase(&self) -> Phase {
        match &self.role {
            Role::Looking(_) | Role::Stopped => Phase::Election,
            Role::Leading(leader) => leader.phase(),
            Role::Learning(learner) => learner.phase(),
        }
    }

    pub fn leader(&self) -> Option<ServerId> {
        match &self.role {
            Role::Looking(_) | Role::Stopped => None,
            Role::Leading(_) => Some(self.base.settings.server),
            Role::Learning(learner) => Some(learner.leader()),
        }
    }

    pub fn election(&self) -> &ElectionPort {
        &self.port
    }

    pub fn as_leader(&self) -> Option<&Leader> {
        match &self.role {
            Role::Leading(leader) => Some(leader),
            Role::Looking(_) | Role::Learning(_) | Role::Stopped => None,
        }
    }

    pub fn step(&mut self, now: Time, input: Input<'_>, out: &mut Vec<Output>) {
        match input {
            Input::Socket(input) => self.on_socket(now, input, out),
            Input::Settled { last, committed } => self.on_settled(now, last, committed, out),
            Input::EpochsStored(epochs) => {
                self.base.on_epochs_stored(epochs);
                self.step_role(now, Input::EpochsStored(epochs), out);
            }
            Input::Flushed { upto } => {
                self.base.on_flushed(upto);
                self.step_role(now, Input::Flushed { upto }, out);
            }
            Input::Timeout => {
                if let Some(due) = self.due.take().filter(|due| *due <= now) {
                    self.base.lateness.see(now, now.saturating_since(due));
                }
                self.step_port(now, election_port::Input::Timeout);
                self.early.end(now, out);
                self.step_role(now, Input::Timeout, out);
            }
            Input::Stalled(stall) => {
                self.base.lateness.see(now, stall);
                self.early.push_out(stall);
                self.step_role(now, Input::Stalled(stall), out);
            }
            Input::Stop => {
                self.is_stopping = true;
                self.step_role(now, Input::Stop, out);
            }
            input @ (Input::Installed { .. }
            | Input::LoadFailed { .. }
            | Input::LogRead { .. }
            | Input::SnapshotPiece { .. }
            | Input::Request(_)
            | Input::Revalidate { .. }
            | Input::Revalidated { .. }
            | Input::Sync { .. }
            | Input::Touched { .. }
            | Input::Propose { .. }
            | Input::Resign) => self.step_role(now, input, out),
            Input::EndOfTurn => {
                self.step_role(now, Input::EndOfTurn, out);
                self.carry(now, out);
                // What is due already says nothing about how late we are.
                self.due = self.deadline().filter(|due| *due > now);
            }
        }
        self.carry(now, out);
        self.base.check();
    }

    pub fn reconfigure(&mut self, now: Time, ensemble: Ensemble, out: &mut Vec<Output>) {
        if let Role::Leading(leader) = &mut self.role {
            leader.reconfigure(&ensemble);
        }
        self.base.ensemble = ensemble.clone();
        self.port.reconfigure(now, ensemble, &mut self.from_port);
        self.carry(now, out);
    }

    pub fn deadline(&self) -> Option<Time> {
        let role = match &self.role {
            Role::Looking(_) => None,
            Role::Leading(leader) => leader.deadline(&self.base),
            Role::Learning(learner) => learner.deadline(&self.base),
            Role::Stopped => return None,
        };
        role.into_iter().chain(self.port.deadline()).chain(self.early.deadline()).min()
    }

    fn step_role(&mut self, now: Time, input: Input<'_>, out: &mut Vec<Output>) {
        let done = match &mut self.role {
            Role::Leading(leader) => leader.step(now, input, &mut self.base, out),
            Role::Learning(learner) => learner.step(now, input, &mut self.base, out),
            Role::Looking(_) => step_looking(&input),
            Role::Stopped => Ok(()),
        };
        match done {
            Err(why) => self.leave(now, why, out),
            Ok(()) => self.try_start(now),
        }
    }

    fn step_port(&mut self, now: Time, input: election_port::Input<'_>) {
        self.port.step(now, input, &mut self.from_port);
    }

    /// What the election port says, and what our role says to it, until both are silent.
    fn carry(&mut self, now: Time, out: &mut Vec<Output>) {
        if !self.is_joined && self.phase() == Phase::Broadcast {
            self.is_joined = true;
            let epoch = self.base.epochs.current;
            self.step_port(now, election_port::Input::Joined { epoch });
        }
        while !self.from_port.is_empty() {
            for output in std::mem::take(&mut self.from_port) {
                match output {
                    election_port::Output::Socket(output) => out.push(Output::Socket(output)),
                    election_port::Output::Elected(elected) => self.on_elected(now, &elected, out),
                    election_port::Output::LookingAgain { voter } => match &mut self.role {
                        Role::Leading(leader) => leader.on_looking_again(now, voter),
                        Role::Learning(learner) if learner.leader() == voter => {
                            self.leave(now, Leave::LeaderLooks, out);
                        }
                        Role::Learning(_) | Role::Looking(_) | Role::Stopped => {}
                    },
                    election_port::Output::PeerUp { .. } => {}
                    election_port::Output::PeerDown { peer, is_refused } => {
                        if let Role::Learning(learner) = &self.role
                            && is_refused
                            && learner.leader() == peer
                            && let Err(why) = learner.on_leader_dead()
                        {
                            self.leave(now, why, out);
                        }
                    }
                }
            }
        }
    }

    // Sockets.

    fn on_socket(&mut self, now: Time, input: SocketInput<'_>, out: &mut Vec<Output>) {
        let socket = input.socket();
        let is_election = match input {
            SocketInput::Accepted { port, .. } => port == Port::Election,
            _ => self.port.owns(socket),
        };
        if is_election {
            return self.step_port(now, election_port::Input::Socket(input));
        }
        let is_accepted = matches!(input, SocketInput::Accepted { .. });
        match &mut self.role {
            Role::Leading(leader) if is_accepted || leader.owns(socket) => {
                self.step_role(now, Input::Socket(input), out);
            }
            Role::Learning(learner) if learner.owns(socket) => self.step_role(now, Input::Socket(input), out),
            Role::Looking(_) => self.early.on_socket(now + limits::EARLY_LEARNER_LIMIT, input, out),
            // Whoever thinks that we lead is wrong, unless our leader is about to hand over to us.
            Role::Learning(_) => self.early.on_socket(now + limits::WRONG_LEARNER_LIMIT, input, out),
            Role::Stopped if is_accepted => close(socket, true, out),
            // A last word of a link that is gone.
            Role::Leading(_) | Role::Stopped => {}
        }
    }

    // From role to role.

    fn on_settled(&mut self, now: Time, last: Zxid, committed: Zxid, out: &mut Vec<Output>) {
        self.base.on_settled(last);
        if !self.base.is_settled() {
            return;
        }
        if !std::mem::replace(&mut self.is_started, true) {
            assert!(committed <= last, "{committed} is decided, but the log ends at {last}");
            self.base.committed = committed;
        }
        self.step_role(now, Input::Settled { last, committed }, out);
    }

    /// A role begins once everything of the last one is on the disk.
    fn try_start(&mut self, now: Time) {
        let Role::Looking(looking) = &mut self.role else { return };
        if looking.is_begun || !self.base.is_settled() || self.base.storing.is_some() {
            return;
        }
        looking.is_begun = true;
        match looking.next.take() {
            Some(next) => {
                let (zxid, epoch) = (self.base.history.last(), self.base.epochs.current);
                self.step_port(now, election_port::Input::Appointed { leader: next, zxid, epoch });
            }
            None => {
                let zxid = (!self.base.is_untrusted).then(|| self.base.history.last());
                self.step_port(now, election_port::Input::Look { zxid, epoch: self.base.epochs.current });
            }
        }
    }

    fn on_elected(&mut self, now: Time, elected: &Elected, out: &mut Vec<Output>) {
        if matches!(&self.role, Role::Looking(looking) if looking.is_begun) {
            tracing::info!(leader = %elected.leader, "elected: {:?}", elected.role);
            self.begin(now, elected.leader, out);
        }
    }

    fn begin(&mut self, now: Time, leader: ServerId, out: &mut Vec<Output>) {
        let early = std::mem::take(&mut self.early.waiting);
        if leader != self.base.settings.server {
            early.into_keys().for_each(|socket| close(socket, true, out));
            let is_ours = self.port.extension_of(leader).is_some();
            let learner = Learner::new(now, leader, is_ours, &mut self.base, out);
            self.role = Role::Learning(Box::new(learner));
            return;
        }
        let mut leader = Leader::new(now, &self.base);
        let mut done = Ok(());
        for (socket, Early { bytes, .. }) in early {
            leader.accept(now, socket, &self.base, out);
            done = done.and_then(|()| leader.on_received(now, socket, &bytes, &mut self.base, out));
        }
        self.role = Role::Leading(Box::new(leader));
        match done {
            Ok(()) => self.step_role(now, Input::EndOfTurn, out),
            Err(why) => self.leave(now, why, out),
        }
    }

    fn leave(&mut self, now: Time, why: Leave, out: &mut Vec<Output>) {
        tracing::info!("{:?} no longer: {why}", self.role());
        let is_stop = self.is_stopping || why == Leave::Stopped;
        let is_abrupt = !is_stop && !matches!(why, Leave::HandedOver { .. });
        match &mut self.role {
            Role::Leading(leader) => leader.end(is_abrupt, out),
            Role::Learning(learner) => learner.end(is_abrupt, out),
            Role::Looking(_) | Role::Stopped => {}
        }
        self.is_joined = false;
        if is_stop {
            self.early.waiting.keys().for_each(|socket| close(*socket, true, out));
            self.early.waiting.clear();
            self.role = Role::Stopped;
            out.push(Output::Stopped);
            return;
        }
        let next = match why {
            Leave::HandedOver { to } if self.base.ensemble.quorum().may_lead(to) => Some(to),
            _ => None,
        };
        self.role = Role::Looking(Looking { next, ..Looking::default() });
        self.base.settle(out);
        self.step_port(now, election_port::Input::Left);
    }
}

fn step_looking(input: &Input<'_>) -> Result<(), Leave> {
    match input {
        Input::Stop => Err(Leave::Stopped),
        Input::Propose { zxid, .. } => panic!("{zxid} is proposed without a role"),
        Input::Socket(_)
        | Input::Settled { .. }
        | Input::EpochsStored(_)
        | Input::Flushed { .. }
        | Input::Installed { .. }
        | Input::LoadFailed { .. }
        | Input::LogRead { .. }
        | Input::SnapshotPiece { .. }
        | Input::Request(_)
        | Input::Revalidate { .. }
        | Input::Revalidated { .. }
        | Input::Sync { .. }
        | Input::Touched { .. }
        | Input::EndOfTurn
        | Input::Stalled(_)
        | Input::Timeout
        | Input::Resign => Ok(()),
    }
}

/// Learners that take us for the leader before we know that we are: they wait a little.
#[derive(Default)]
struct EarlyLearners {
    waiting: BTreeMap<SocketId, Early>,
}

struct Early {
    until: Time,
    bytes: Vec<u8>,
}

impl EarlyLearners {
    fn on_socket(&mut self, until: Time, input: SocketInput<'_>, out: &mut Vec<Output>) {
        match input {
            SocketInput::Accepted { socket, .. } if self.waiting.len() < limits::EARLY_LEARNERS_MAX => {
                self.waiting.insert(socket, Early { until, bytes: Vec::new() });
            }
            SocketInput::Accepted { socket, .. } => close(socket, true, out),
            SocketInput::Received { socket, bytes } => {
                let Some(early) = self.waiting.get_mut(&socket) else { return };
                early.bytes.extend_from_slice(bytes);
                if early.bytes.len() > limits::EARLY_LEARNER_BYTES_MAX {
                    self.waiting.remove(&socket);
                    close(socket, true, out);
                }
            }
            SocketInput::Closed { socket, .. } => {
                self.waiting.remove(&socket);
            }
            SocketInput::Connected { .. } | SocketInput::Unsent { .. } => {}
        }
    }

    fn deadline(&self) -> Option<Time> {
        self.waiting.values().map(|early| early.until).min()
    }

    fn end(&mut self, now: Time, out: &mut Vec<Output>) {
        self.waiting.retain(|socket, early| {
            let is_kept = early.until > now;
            if !is_kept {
                close(*socket, true, out);
            }
            is_kept
        });
    }

    fn push_out(&mut self, stall: Duration) {
        self.waiting.values_mut().for_each(|early| early.until = early.until + stall);
    }
}
