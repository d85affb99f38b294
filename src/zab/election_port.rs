//! The election port as a whole: who shall lead (`election.rs`) over links with all members (`election_links.rs`).
//!
//! How to use it:
//!
//! - give it every `SocketInput` of `Port::Election` and of sockets that it `owns`, and carry out its `SocketOutput`s;
//! - say `Look` once nothing is in flight to the disk any more, and take the role that `Elected` names;
//! - say `Left` as soon as a role has ended, and then `Look` again when its writes have landed;
//! - say `Joined` when synchronisation is done, so that late servers see the same vote everywhere;
//! - `PeerDown` with `is_refused` for the server that was elected means that its process died: do not wait for it.

use super::election::{self, Elected, Election};
use super::election_links::{self, ElectionLinks};
use super::quorum::Ensemble;
use super::transport::{SocketId, SocketInput, SocketOutput};
use crate::types::ids::ServerId;
use crate::types::time::Time;
use crate::types::zxid::Zxid;
use crate::wire::extension::Extension;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    pub election: election::Settings,
    pub links: election_links::Settings,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input<'a> {
    Socket(SocketInput<'a>),
    /// As `election::Input::Look`.
    Look {
        zxid: Option<Zxid>,
        epoch: u32,
    },
    /// As `election::Input::Appointed`.
    Appointed {
        leader: ServerId,
        zxid: Zxid,
        epoch: u32,
    },
    /// As `election::Input::Left`.
    Left,
    /// As `election::Input::Joined`.
    Joined {
        epoch: u32,
    },
    Timeout,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    Socket(SocketOutput),
    Elected(Elected),
    /// As `election::Output::LookingAgain`.
    LookingAgain {
        voter: ServerId,
    },
    PeerUp {
        peer: ServerId,
    },
    /// `is_refused`: nobody listens there, so that process is dead, or has not started.
    PeerDown {
        peer: ServerId,
        is_refused: bool,
    },
}

#[derive(Debug)]
pub struct ElectionPort {
    election: Election,
    links: ElectionLinks,
    /// Empty between steps.
    from_links: Vec<election_links::Output>,
    from_election: Vec<election::Output>,
}

impl ElectionPort {
    pub fn new(settings: Settings, ensemble: Ensemble) -> ElectionPort {
        ElectionPort {
            links: ElectionLinks::new(settings.links, &ensemble),
            election: Election::new(settings.election, ensemble),
            from_links: Vec::new(),
            from_election: Vec::new(),
        }
    }

    pub fn step(&mut self, now: Time, input: Input<'_>, out: &mut Vec<Output>) {
        match input {
            Input::Socket(input) => self.step_links(now, election_links::Input::Socket(input)),
            Input::Look { zxid, epoch } => self.step_election(now, election::Input::Look { zxid, epoch }),
            Input::Appointed { leader, zxid, epoch } => {
                self.step_election(now, election::Input::Appointed { leader, zxid, epoch });
            }
            Input::Left => self.step_election(now, election::Input::Left),
            Input::Joined { epoch } => self.step_election(now, election::Input::Joined { epoch }),
            Input::Timeout => {
                self.step_links(now, election_links::Input::Timeout);
                self.step_election(now, election::Input::Timeout);
            }
        }
        self.carry(now, out);
    }

    /// When to step with `Timeout`.
    pub fn deadline(&self) -> Option<Time> {
        self.links.deadline().into_iter().chain(self.election.deadline()).min()
    }

    /// Whether this socket is one of the election links.
    pub fn owns(&self, socket: SocketId) -> bool {
        self.links.owns(socket)
    }

    pub fn election(&self) -> &Election {
        &self.election
    }

    /// What `peer` can, if it is one of ours and its link is up.
    pub fn extension_of(&self, peer: ServerId) -> Option<&Extension> {
        self.election.extension_of(peer)
    }

    /// The configuration has changed.
    pub fn reconfigure(&mut self, now: Time, ensemble: Ensemble, out: &mut Vec<Output>) {
        self.links.reconfigure(now, &ensemble, &mut self.from_links);
        self.election.reconfigure(now, ensemble, &mut self.from_election);
        self.carry(now, out);
    }

    fn step_links(&mut self, now: Time, input: election_links::Input<'_>) {
        self.links.step(now, input, &mut self.from_links);
    }

    fn step_election(&mut self, now: Time, input: election::Input<'_>) {
        self.election.step(now, input, &mut self.from_election);
    }

    /// Hands what one half says to the other, until both are silent: a notification makes the links send, and that
    /// makes the election say nothing.
    fn carry(&mut self, now: Time, out: &mut Vec<Output>) {
        while !self.from_links.is_empty() || !self.from_election.is_empty() {
            for output in std::mem::take(&mut self.from_links) {
                match output {
                    election_links::Output::Socket(output) => out.push(Output::Socket(output)),
                    election_links::Output::Received { from, payload } => {
                        self.step_election(now, election::Input::Received { from, payload: &payload });
                    }
                    election_links::Output::Up { peer } => {
                        out.push(Output::PeerUp { peer });
                        self.step_election(now, election::Input::LinkUp { peer });
                    }
                    election_links::Output::Down { peer, is_refused } => {
                        out.push(Output::PeerDown { peer, is_refused });
                        self.step_election(now, election::Input::LinkDown { peer, is_refused });
                    }
                }
            }
            for output in std::mem::take(&mut self.from_election) {
                match output {
                    election::Output::Send { to, payload } => {
                        self.step_links(now, election_links::Input::Send { to, payload });
                    }
                    election::Output::Forget => self.step_links(now, election_links::Input::Forget),
                    election::Output::Elected(elected) => out.push(Output::Elected(elected)),
                    election::Output::LookingAgain { voter } => out.push(Output::LookingAgain { voter }),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
