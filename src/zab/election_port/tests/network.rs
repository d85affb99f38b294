//! A network in memory: connections that are FIFO, take their time, break, are refused or vanish, all from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use super::super::*;
use crate::config::{Member, Membership, QuorumGroups};
use crate::zab::RoleName;
use crate::zab::quorum::Standing;
use crate::zab::transport::Port;

/// How long after an election a server finds out whether its leader leads, or its followers follow.
const DISCOVERY: Duration = Duration::from_millis(60);

/// One end of a connection: whose, and how that server calls it.
type End = (i64, SocketId);

#[derive(Debug)]
enum Event {
    Accept(End),
    Connected(End),
    Bytes(End, Vec<u8>),
    Unsent(End),
    Closed {
        end: End,
        is_refused: bool,
    },
    /// Both of this server, and void if it has had an election since the one that ended then.
    Look(i64, Time),
    Discovery(i64, Time),
}

struct Server {
    port: ElectionPort,
    /// What it votes with.
    zxid: Zxid,
    epoch: u32,
    is_running: bool,
    elected: Option<Elected>,
    elected_at: Time,
    /// Its own links with these break as soon as they are up.
    flaps_with: BTreeSet<i64>,
}

/// splitmix64.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn pick(&mut self, range: Range<u64>) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        range.start + (z ^ (z >> 31)) % (range.end - range.start)
    }
}

pub struct Network {
    pub now: Time,
    pub dice: Dice,
    /// One way, microseconds.
    pub delay_us: Range<u64>,
    /// Of a thousand messages so many break their connection.
    pub breaks: u64,
    /// Attempts to connect, elections begun.
    pub connects: u64,
    pub looks: u64,
    ensemble: Ensemble,
    events: BTreeMap<(Time, u64), Event>,
    sequence: u64,
    servers: BTreeMap<i64, Server>,
    /// The other end, and when what was sent there last arrives.
    ends: BTreeMap<End, (End, Time)>,
    blocked: BTreeSet<(i64, i64)>,
}

impl Network {
    /// Servers 1 to `voters` vote, those behind up to `servers` observe.
    pub fn new(seed: u64, voters: i64, servers: i64, groups: Option<QuorumGroups>) -> Network {
        let line = |id: i64| {
            let role = if id <= voters { "participant" } else { "observer" };
            Member::parse(ServerId(id), &format!("10.0.0.{id}:2888:3888:{role}"), false).expect("a line")
        };
        let members = (1..=servers).map(|id| (ServerId(id), line(id))).collect();
        let ensemble = Ensemble::new(Membership { members, groups, version: 0 }).expect("somebody votes");
        let mut network = Network {
            now: Time::from_ms(1000),
            dice: Dice::new(seed),
            delay_us: 50..1000,
            breaks: 0,
            connects: 0,
            looks: 0,
            ensemble,
            events: BTreeMap::new(),
            sequence: 0,
            servers: BTreeMap::new(),
            ends: BTreeMap::new(),
            blocked: BTreeSet::new(),
        };
        for id in 1..=servers {
            let (zxid, epoch) = (Zxid::new(1, 1), 1);
            let (port, flaps_with) = (network.port(id), BTreeSet::new());
            let elected_at = Time::default();
            let server = Server { port, zxid, epoch, is_running: true, elected: None, elected_at, flaps_with };
            network.servers.insert(id, server);
        }
        network
    }

    fn port(&self, id: i64) -> ElectionPort {
        let settings = Settings {
            election: election::Settings {
                me: ServerId(id),
                is_observer: self.ensemble.standing(ServerId(id)) == Standing::Observer,
                grace: Duration::from_millis(15),
                notification_interval_min: Duration::from_millis(200),
                notification_interval_max: Duration::from_secs(60),
                extension: Some(Extension::new().with_identity(id as u64, "test")),
            },
            links: election_links::Settings {
                me: ServerId(id),
                has_many_addresses: false,
                connect_limit: Duration::from_secs(5),
            },
        };
        ElectionPort::new(settings, self.ensemble.clone())
    }

    pub fn set_history(&mut self, id: i64, zxid: Zxid, epoch: u32) {
        let server = self.server(id);
        (server.zxid, server.epoch) = (zxid, epoch);
    }

    /// The server whose vote beats all others'.
    pub fn best(&self) -> i64 {
        let voters = self
            .servers
            .iter()
            .filter(|(id, server)| server.is_running && self.ensemble.quorum().may_lead(ServerId(**id)));
        *voters.max_by_key(|(id, server)| (server.epoch, server.zxid, **id)).expect("somebody may lead").0
    }

    pub fn look_at(&mut self, id: i64, delay: Duration) {
        let after = self.servers[&id].elected_at;
        self.later(self.now + delay, Event::Look(id, after));
    }

    /// As if killed: its connections are closed by its kernel, and nobody listens.
    pub fn crash(&mut self, id: i64) {
        self.server(id).is_running = false;
        let ends: Vec<End> = self.ends.keys().copied().filter(|end| end.0 == id).collect();
        ends.into_iter().for_each(|end| self.close(end));
    }

    /// The connections between these two break.
    pub fn crash_link(&mut self, a: i64, b: i64) {
        let between = |(near, (far, _)): &(&End, &(End, Time))| near.0 == a && far.0 == b;
        let ends: Vec<(End, End)> = self.ends.iter().filter(between).map(|(near, (far, _))| (*near, *far)).collect();
        for end in ends.into_iter().flat_map(|(near, far)| [near, far]) {
            self.later(self.now, Event::Closed { end, is_refused: false });
        }
    }

    /// Between these two nothing arrives any more, and nobody is told.
    pub fn block(&mut self, a: i64, b: i64) {
        self.blocked.extend([(a, b), (b, a)]);
    }

    pub fn heal(&mut self) {
        self.blocked.clear();
    }

    /// Every link between these two breaks as soon as it is up, and server `a` takes that for the loss of its leader.
    pub fn flap(&mut self, a: i64, b: i64) {
        self.server(a).flaps_with.insert(b);
    }

    /// Runs until `done` holds; panics when it does not in `limit`.
    pub fn run(&mut self, limit: Duration, what: &str, done: impl Fn(&Network) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            assert!(self.now < end, "not in {limit:?}: {what}");
            self.turn();
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.turn();
        }
    }

    /// The leader whom a quorum follows, and all that are not in `but`, if it is one.
    pub fn leader(&self, but: &[i64]) -> Option<i64> {
        let running = self.servers.iter().filter(|(id, server)| server.is_running && !but.contains(id));
        let mut leaders: Vec<_> = running.map(|(_, server)| server.elected.as_ref().map(|e| e.leader)).collect();
        leaders.dedup();
        let [Some(leader)] = leaders[..] else { return None };
        let is_followed = self.ensemble.quorum().is_quorum(|id| self.follows(id.0, leader));
        (self.leads(leader.0) && is_followed).then_some(leader.0)
    }

    pub fn is_running(&self, id: i64) -> bool {
        self.servers[&id].is_running
    }

    pub fn has_elected(&self, id: i64) -> bool {
        self.servers[&id].elected.is_some()
    }

    pub fn round(&self, id: i64) -> i64 {
        self.servers[&id].elected.as_ref().map_or(-1, |elected| elected.vote.round)
    }

    fn follows(&self, id: i64, leader: ServerId) -> bool {
        let server = &self.servers[&id];
        server.is_running && server.elected.as_ref().is_some_and(|elected| elected.leader == leader)
    }

    fn leads(&self, id: i64) -> bool {
        self.servers[&id].elected.as_ref().is_some_and(|elected| elected.role == RoleName::Leading)
            && self.servers[&id].is_running
    }

    fn server(&mut self, id: i64) -> &mut Server {
        self.servers.get_mut(&id).expect("a server of this network")
    }

    fn later(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    fn delay(&mut self) -> Duration {
        Duration::from_micros(self.dice.pick(self.delay_us.clone()))
    }

    /// The next thing happens.
    fn turn(&mut self) {
        let running = self.servers.iter().filter(|(_, server)| server.is_running);
        let timer = running.filter_map(|(id, server)| Some((server.port.deadline()?, *id))).min();
        let event_at = self.events.keys().next().map(|(at, _)| *at);
        match (timer, event_at) {
            (Some((at, id)), event_at) if event_at.is_none_or(|event_at| at < event_at) => {
                self.now = self.now.max(at);
                self.step(id, Input::Timeout);
                let next = self.servers[&id].port.deadline();
                assert!(next.is_none_or(|next| next > self.now), "server {id} wants to be woken at once, again");
            }
            (_, None) => self.now = self.now + Duration::from_millis(10),
            (_, Some(_)) => {
                let ((at, _), event) = self.events.pop_first().expect("there is one");
                self.now = self.now.max(at);
                self.happen(event);
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Look(id, after) if self.servers[&id].elected_at == after => self.look(id),
            Event::Discovery(id, after) if self.servers[&id].elected_at == after => self.on_discovery(id),
            Event::Look(..) | Event::Discovery(..) => {}
            Event::Accept(end) => self.socket(end, SocketInput::Accepted { socket: end.1, port: Port::Election }),
            Event::Connected(end) => {
                self.socket(end, SocketInput::Connected { socket: end.1 });
                let other = self.ends.get(&end).map(|(other, _)| other.0);
                if let Some(other) = other.filter(|other| self.flap_with(end.0, *other)) {
                    self.close(end);
                    let follower = if self.servers[&end.0].flaps_with.contains(&other) { end.0 } else { other };
                    self.server(follower).elected = None;
                    self.look(follower);
                }
            }
            Event::Bytes(end, bytes) => {
                self.socket(end, SocketInput::Received { socket: end.1, bytes: &bytes });
            }
            Event::Unsent(end) => self.socket(end, SocketInput::Unsent { socket: end.1, bytes: 0 }),
            Event::Closed { end, is_refused } => {
                self.socket(end, SocketInput::Closed { socket: end.1, is_refused });
                self.ends.remove(&end);
            }
        }
    }

    fn flap_with(&self, a: i64, b: i64) -> bool {
        self.servers[&a].flaps_with.contains(&b) || self.servers[&b].flaps_with.contains(&a)
    }

    /// Leaves its role, if it has one, and looks, unless it does already.
    fn look(&mut self, id: i64) {
        let server = self.server(id);
        let is_looking = server.port.election().is_looking();
        if server.is_running && !is_looking {
            let (zxid, epoch) = (server.zxid, server.epoch);
            server.elected = None;
            self.looks += 1;
            self.step(id, Input::Left);
            self.step(id, Input::Look { zxid: Some(zxid), epoch });
        }
    }

    fn on_discovery(&mut self, id: i64) {
        let Some(leader) = self.servers[&id].elected.as_ref().map(|elected| elected.leader) else { return };
        let is_followed = self.ensemble.quorum().is_quorum(|other| self.follows(other.0, leader));
        let is_reached = leader.0 == id || !self.blocked.contains(&(id, leader.0));
        if self.leads(leader.0) && is_reached && (leader.0 != id || is_followed) {
            self.later(self.now + DISCOVERY, Event::Discovery(id, self.servers[&id].elected_at));
        } else {
            self.look(id);
        }
    }

    /// Gives an input to a socket that still is one.
    fn socket(&mut self, end: End, input: SocketInput<'_>) {
        if self.ends.contains_key(&end) && self.servers[&end.0].is_running {
            self.step(end.0, Input::Socket(input));
        }
    }

    fn step(&mut self, id: i64, input: Input<'_>) {
        let now = self.now;
        let mut out = Vec::new();
        self.server(id).port.step(now, input, &mut out);
        for output in out {
            match output {
                Output::Socket(SocketOutput::Connect { socket, addresses }) => self.connect(id, socket, &addresses),
                Output::Socket(SocketOutput::Send { socket, bytes }) => self.send((id, socket), bytes),
                Output::Socket(SocketOutput::Close { socket, is_abrupt: _ }) => self.close((id, socket)),
                Output::Socket(SocketOutput::Hold { socket, .. }) => panic!("an election link is held: {socket:?}"),
                Output::Elected(elected) => {
                    let server = self.server(id);
                    (server.elected, server.elected_at) = (Some(elected), now);
                    self.later(now + DISCOVERY, Event::Discovery(id, now));
                }
                Output::LookingAgain { .. } | Output::PeerUp { .. } | Output::PeerDown { .. } => {}
            }
        }
    }

    fn connect(&mut self, from: i64, socket: SocketId, addresses: &[crate::config::HostPort]) {
        self.connects += 1;
        assert!(socket.0.is_multiple_of(4) && !self.ends.contains_key(&(from, socket)), "{socket:?}");
        let to: i64 = addresses[0].host.strip_prefix("10.0.0.").and_then(|id| id.parse().ok()).expect("a member");
        let there = self.now + self.delay();
        let back = there + self.delay();
        self.sequence += 1;
        let (near, far) = ((from, socket), (to, SocketId(2 * self.sequence + 1)));
        self.ends.insert(near, (far, there));
        if self.blocked.contains(&(from, to)) {
            return;
        }
        if !self.servers[&to].is_running {
            return self.later(back, Event::Closed { end: near, is_refused: true });
        }
        self.ends.insert(far, (near, back));
        self.later(there, Event::Accept(far));
        self.later(back, Event::Connected(near));
    }

    fn send(&mut self, end: End, bytes: Vec<u8>) {
        if self.dice.pick(0..1000) < self.breaks {
            let Some((far, _)) = self.ends.get(&end) else { return };
            let (far, at) = (*far, self.now + Duration::from_micros(10));
            self.later(at, Event::Closed { end, is_refused: false });
            return self.later(at, Event::Closed { end: far, is_refused: true });
        }
        if let Some((far, at)) = self.arrival(end) {
            self.later(at, Event::Bytes(far, bytes));
        }
        self.later(self.now + Duration::from_micros(5), Event::Unsent(end));
    }

    fn close(&mut self, end: End) {
        if let Some((far, at)) = self.arrival(end) {
            self.later(at, Event::Closed { end: far, is_refused: false });
        }
        self.ends.remove(&end);
    }

    /// Where and when the next thing that leaves `end` arrives, in order.
    fn arrival(&mut self, end: End) -> Option<(End, Time)> {
        let at = self.now + self.delay();
        let (far, last) = self.ends.get_mut(&end)?;
        *last = at.max(*last + Duration::from_nanos(1));
        (!self.blocked.contains(&(end.0, far.0))).then_some((*far, *last))
    }
}
