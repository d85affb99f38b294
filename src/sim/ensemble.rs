//! The world: servers, clients, a network between them, and the loop that moves time on.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::checker;
use super::client::{self, Client};
use super::dice::{Dice, Salt};
use super::disk::Condition;
use super::faults::{self, Fault, Planned};
use super::history::History;
use super::network::{End, Host, Listener, Network, Notice, Outcome, Owner, StreamId};
use super::order::{Order, Violation};
use super::process::{Around, Exit, Process};
use super::restart::{Recovered, Scratch, recover_state};
use super::scenario::{Addresses, Scenario, Wish};
use super::scheduler::{ClientIndex, Event, Scheduler, ServerIndex};
use super::server::Server;
use super::trace::{Reading, Trace};
use crate::types::ids::SessionId;
use crate::types::time::Time;
use crate::types::zxid::Zxid;
use crate::wire::txn::{TxnHeader, txn_type};

/// A server that ended by itself is started again after this.
const RESTART_AFTER: Duration = Duration::from_millis(300);
/// What is not heard of a frame that was cut in two, and of one on a slow link.
const HEARING_TOLERANCE: Duration = Duration::from_millis(500);

/// A busy ensemble has a few thousand events in a second.
const EVENTS_PER_SECOND_MAX: u32 = 100_000;

/// What a seed came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub seed: u64,
    /// Two runs of a seed have the same.
    pub hash: u64,
    pub events: u64,
    pub operations: usize,
    pub answered: usize,
    pub faults: usize,
    pub txns: usize,
    pub violation: Option<Violation>,
    /// The last lines of the trace, if it was kept.
    pub tail: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Things go wrong.
    Faults,
    /// Everything is repaired: it must work again.
    Recovery,
    /// Clients close or leave.
    Ending,
    Over,
}

pub struct Ensemble {
    scenario: Scenario,
    scheduler: Scheduler,
    network: Network,
    servers: Vec<Server>,
    clients: Vec<Client>,
    /// When each client wants to be woken.
    wakes: Vec<Option<Time>>,
    /// Whose connection a stream is.
    streams: BTreeMap<StreamId, ClientIndex>,
    /// When a server's host last received something for a session.
    arrived: BTreeMap<SessionId, Time>,
    history: History,
    order: Order,
    addresses: Arc<Addresses>,
    faults: Vec<Planned>,
    trace: Trace,
    scratch: Scratch,
    stage: Stage,
    /// The second at hand, and its events so far.
    busy: (u64, u32),
    violation: Option<Violation>,
}

thread_local! {
    /// For whoever has to say where a panic came from.
    static CURRENT_SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Tells the seed that this thread is running, if it is.
pub fn with_current_seed(tell: impl FnOnce(u64)) {
    if let Some(seed) = CURRENT_SEED.get() {
        tell(seed);
    }
}

/// Runs one seed.
pub fn run(seed: u64, wish: Wish, reading: Reading) -> Report {
    CURRENT_SEED.set(Some(seed));
    let mut ensemble = Ensemble::new(Scenario::new(seed, wish), reading);
    ensemble.run();
    ensemble.report()
}

impl Ensemble {
    fn new(scenario: Scenario, reading: Reading) -> Ensemble {
        let seed = scenario.seed;
        let server = |(index, scenario)| Server::new(seed, index, scenario);
        let client =
            |(index, settings)| Client::new(ClientIndex(index), settings, Dice::new(seed, Salt::Client, index as u64));
        let servers: Vec<Server> = scenario.servers.iter().cloned().enumerate().map(server).collect();
        let clients: Vec<Client> = scenario.clients.iter().cloned().enumerate().map(client).collect();
        let mut ensemble = Ensemble {
            scheduler: Scheduler::default(),
            network: Network::new(Dice::new(seed, Salt::Network, 0)),
            servers,
            wakes: vec![None; clients.len()],
            streams: BTreeMap::new(),
            arrived: BTreeMap::new(),
            history: History::new(clients.len()),
            clients,
            order: Order::new(scenario.ensemble.is_none()),
            addresses: Arc::new(scenario.addresses.clone()),
            faults: faults::plan(&scenario),
            trace: Trace::new(reading),
            scratch: Scratch::new().expect("a directory in memory"),
            stage: Stage::Faults,
            busy: (0, 0),
            violation: None,
            scenario,
        };
        ensemble.begin();
        ensemble
    }

    fn begin(&mut self) {
        for server in 0..self.servers.len() {
            self.start_at(ServerIndex(server), Time(0));
        }
        for client in 0..self.clients.len() {
            self.schedule_client(ClientIndex(client));
        }
        for (at, planned) in self.faults.iter().enumerate() {
            self.scheduler.at(planned.at, Event::Fault(at));
        }
        self.scheduler.at(Time(0) + self.scenario.faults_for, Event::Stage);
    }

    /// A thread that never sleeps is a bug of its own.
    fn count_event(&mut self) {
        let second = self.scheduler.now().as_ms() / 1000;
        if second != self.busy.0 {
            self.busy = (second, 0);
        }
        self.busy.1 += 1;
        if self.busy.1 > EVENTS_PER_SECOND_MAX {
            self.violate(format!("more than {EVENTS_PER_SECOND_MAX} events in a second: somebody spins"));
        }
    }

    fn run(&mut self) {
        while self.stage != Stage::Over
            && self.violation.is_none()
            && let Some(event) = self.scheduler.pop()
        {
            self.trace.mix(self.scheduler.now().0);
            self.count_event();
            self.on_event(event);
        }
        if self.violation.is_none() {
            self.violation = checker::check(&self.history, &self.order).err();
        }
    }

    fn report(&self) -> Report {
        let mut tail: Vec<String> = self.trace.tail().map(str::to_owned).collect();
        if let Some(violation) = &self.violation {
            tail.push(format!("violation: {violation}"));
        }
        Report {
            seed: self.scenario.seed,
            hash: self.trace.hash(),
            events: self.scheduler.count(),
            operations: self.history.operations.len(),
            answered: self.history.answered(),
            faults: self.faults.len(),
            txns: self.order.txns().count(),
            violation: self.violation.clone(),
            tail,
        }
    }

    fn violate(&mut self, what: impl Into<Violation>) {
        self.violation.get_or_insert(what.into());
    }

    fn line(&mut self, who: &str, what: std::fmt::Arguments<'_>) {
        self.trace.line(self.scheduler.now(), who, what);
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Turn { server, boot, core } => {
                self.with_process(server, boot, |process, around| {
                    process.turn(core, around);
                });
            }
            Event::Disk { server, boot, operation } => {
                self.with_process(server, boot, |process, around| process.on_disk(operation, around));
            }
            Event::Transfer { server, boot, number } => {
                self.with_process(server, boot, |process, around| process.on_transfer(number, around));
            }
            Event::Snapshot { server, boot } => self.with_process(server, boot, Process::on_snapshot),
            Event::Arrive(arrival) => {
                let outcome = self.network.arrive(&mut self.scheduler, arrival);
                self.on_outcome(outcome);
            }
            Event::Client(client) => self.wake_client(client),
            Event::Fault(at) => self.on_fault(at),
            Event::FaultEnds(at) => self.on_fault_ends(at),
            Event::Caught { server, boot } => {
                if self.is_running(server, boot) {
                    let away = self.servers[server.0].caught.take().map_or(RESTART_AFTER, |(_, away)| away);
                    self.kill(server, away, "killed at its disk", false);
                }
            }
            Event::Start { server, boot } => {
                if self.servers[server.0].process.is_none() && self.servers[server.0].boots == boot {
                    self.start(server);
                }
            }
            Event::Stage => self.next_stage(),
        }
    }

    fn is_running(&self, server: ServerIndex, boot: u32) -> bool {
        self.servers[server.0].process.as_ref().is_some_and(|process| process.boot == boot)
    }

    /// Lets a process do something, if it is still the same one, and looks at what has become of it.
    fn with_process(&mut self, index: ServerIndex, boot: u32, work: impl FnOnce(&mut Process, &mut Around<'_>)) {
        let server = &mut self.servers[index.0];
        let Some(mut process) = server.process.take_if(|process| process.boot == boot) else { return };
        let mut kind = server.caught.map(|(kind, _)| kind);
        let mut around = Around {
            server: index,
            scenario: &server.scenario,
            scratch: &self.scratch,
            scheduler: &mut self.scheduler,
            network: &mut self.network,
            disk: &mut server.disk,
            logged: &mut server.logged,
            order: &mut self.order,
            trace: &mut self.trace,
            dice: &mut server.dice,
            caught: &mut kind,
        };
        work(&mut process, &mut around);
        let violation = process.violation.take();
        let exit = process.exit.clone();
        let shown = std::mem::take(&mut process.has_published).then(|| process.zab().tree().published());
        server.process = Some(process);
        if let Some(violation) = violation {
            self.violate(violation);
        }
        if let Some(shown) = shown {
            self.on_shown(index, shown);
        }
        match exit {
            None => {}
            Some(Exit::Stopped) => self.kill(index, RESTART_AFTER, "stopped", false),
            Some(Exit::Fatal(what)) => {
                if !std::mem::take(&mut self.servers[index.0].must_end) {
                    self.violate(format!("server {} ended by itself: {what}", index.0));
                }
                self.kill(index, RESTART_AFTER, &format!("ended: {what}"), false);
            }
        }
    }

    /// A server shows its clients everything up to here: it must be decided, and will be for ever.
    fn on_shown(&mut self, index: ServerIndex, upto: Zxid) {
        let is_serving = self.servers[index.0].process.as_ref().is_some_and(|process| process.serves());
        if !is_serving {
            return;
        }
        let decided = self.order.decided();
        let (servers, scenario) = (&self.servers, &self.scenario);
        let is_durable = |zxid| match &scenario.ensemble {
            None => servers[index.0].has_durable(zxid),
            Some(ensemble) => ensemble.quorum().is_quorum(|id| servers[id.0 as usize - 1].has_durable(zxid)),
        };
        if let Err(what) = self.order.on_shown(index, upto, is_durable) {
            self.violate(what);
        }
        if self.order.decided() > decided {
            self.check_expiries(decided);
        }
    }

    /// A session ends by itself only when its server has heard nothing of it for its whole timeout.
    fn check_expiries(&mut self, before: Zxid) {
        let now = self.scheduler.now();
        let members = self.scenario.servers.iter().filter_map(|server| server.member.as_ref());
        let notices_within = members.map(|member| member.notices_within()).max().unwrap_or_default();
        let tolerance = HEARING_TOLERANCE + notices_within;
        let mut violation = None;
        for (zxid, payload) in self.order.txns_behind(before) {
            let Ok((header, txn_type::CLOSE_SESSION)) = TxnHeader::peek(payload) else { continue };
            let heard = self.clients.iter().find_map(|client| client.agreed.get(&header.session));
            let (Some(agreed), Some(arrived)) = (heard, self.arrived.get(&header.session)) else { continue };
            if !agreed.is_closing && now + tolerance < *arrived + agreed.timeout {
                let silent_ms = now.saturating_since(*arrived).as_millis();
                violation = Some(format!(
                    "session {} expired at {zxid} after {silent_ms} ms of silence, its timeout is {:?}",
                    header.session, agreed.timeout
                ));
            }
        }
        if let Some(violation) = violation {
            self.violate(violation);
        }
    }

    fn start_at(&mut self, server: ServerIndex, at: Time) {
        let boot = self.servers[server.0].boots;
        self.scheduler.at(at, Event::Start { server, boot });
    }

    fn start(&mut self, index: ServerIndex) {
        let server = &mut self.servers[index.0];
        self.network.set_dark(Host::Server(index), false);
        let recovered = match recover_state(&self.scratch, &mut server.disk, &server.scenario) {
            Ok(recovered) => recovered,
            Err(what) => return self.violate(format!("server {}: {what}", index.0)),
        };
        server.boots += 1;
        let (boot, head, durable) = (server.boots, recovered.tree.head(), server.durable);
        for note in &recovered.notes {
            self.trace.line(self.scheduler.now(), "start", format_args!("{note}"));
        }
        self.trace.line(self.scheduler.now(), "start", format_args!("server {} boot {boot} at {head}", index.0));
        self.trace.mix(head.0);
        server.logged.rebuild(&server.disk, |_, _| {});
        if head < durable {
            self.violate(format!("J-09: server {} comes back with {head}, and {durable} was durable", index.0));
        }
        if let Err(what) = self.order.on_started(index, head) {
            self.violate(what);
        }
        self.start_process(index, recovered);
    }

    fn start_process(&mut self, index: ServerIndex, recovered: Recovered) {
        let server = &mut self.servers[index.0];
        let clock = server.next_clock();
        let mut around = Around {
            server: index,
            scenario: &server.scenario,
            scratch: &self.scratch,
            scheduler: &mut self.scheduler,
            network: &mut self.network,
            disk: &mut server.disk,
            logged: &mut server.logged,
            order: &mut self.order,
            trace: &mut self.trace,
            dice: &mut server.dice,
            caught: &mut None,
        };
        let process = Process::start(server.boots, clock, recovered, &self.addresses, &mut around);
        server.process = Some(Box::new(process));
    }

    fn kill(&mut self, index: ServerIndex, away: Duration, why: &str, is_dark: bool) {
        let Some(boot) = self.servers[index.0].process.as_ref().map(|process| process.boot) else { return };
        // What is durable before the crash is there after it, whatever happens to what is under way.
        let server = &mut self.servers[index.0];
        server.note_durable();
        if let Some(process) = &mut server.process {
            // It is over: nothing of what follows is its own doing.
            process.exit = None;
        }
        self.with_process(index, boot, Process::leave_half_done);
        let server = &mut self.servers[index.0];
        server.process = None;
        server.disk.crash();
        (server.caught, server.must_end) = (None, false);
        self.line("kill", format_args!("server {} {why}, away for {away:?}", index.0));
        let host = Host::Server(index);
        self.network.set_dark(host, is_dark);
        self.network.process_ended(&mut self.scheduler, host);
        let away = if self.stage == Stage::Faults { away } else { RESTART_AFTER };
        self.start_at(index, self.scheduler.now() + away);
    }

    fn on_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Nothing => {}
            Outcome::Knock { server, listener, end, .. } => self.on_knock(server, listener, end),
            Outcome::Notice(owner, end, notice) => {
                let is_data = matches!(notice, Notice::Received(_));
                self.notify(owner, end, notice);
                if is_data && let Some((owner, sender, left)) = self.network.refill(&mut self.scheduler, end) {
                    self.notify(owner, sender, Notice::Unsent(left));
                }
            }
        }
    }

    fn on_knock(&mut self, server: ServerIndex, listener: Listener, end: End) {
        let Some(boot) = self.servers[server.0].process.as_ref().map(|process| process.boot) else {
            return self.network.refuse(&mut self.scheduler, end);
        };
        match listener {
            Listener::Client => self.with_process(server, boot, |process, around| {
                let connection = process.on_knock(end, around);
                let owner = Owner::ClientPort { server, boot, connection };
                around.network.accept(around.scheduler, end, owner);
            }),
            Listener::Peer(port) => {
                self.with_process(server, boot, |process, around| match process.on_peer_knock(end, port, around) {
                    Some(socket) => {
                        let owner = Owner::Peer { server, boot, socket };
                        around.network.accept(around.scheduler, end, owner);
                    }
                    None => around.network.refuse(around.scheduler, end),
                })
            }
        }
    }

    fn notify(&mut self, owner: Owner, end: End, notice: Notice) {
        match owner {
            Owner::Client(client) => {
                let input = match notice {
                    Notice::Connected => client::Input::Connected(end),
                    Notice::Received(bytes) => client::Input::Received(end, bytes),
                    Notice::Unsent(_) => return,
                    Notice::EndOfStream | Notice::Broken { .. } => client::Input::Broken(end),
                };
                self.step_client(client, input);
            }
            Owner::ClientPort { server, boot, connection } => {
                if let (Notice::Received(_), Some(client)) = (&notice, self.streams.get(&end.stream))
                    && let Some(session) = self.clients[client.0].attached_session()
                    && self.hears_clients(server)
                {
                    self.arrived.insert(session, self.scheduler.now());
                }
                self.with_process(server, boot, |process, around| process.on_connection(connection, notice, around));
            }
            Owner::Peer { server, boot, socket } => {
                self.with_process(server, boot, |process, around| process.on_peer(socket, notice, around));
            }
        }
    }

    /// Whether what clients say there reaches whoever decides about their sessions: not while the server follows a leader
    /// that does not know yet that there is a newer one. A single server hears it after a pause.
    fn hears_clients(&self, server: ServerIndex) -> bool {
        let now = self.scheduler.now();
        let Some(process) = &self.servers[server.0].process else { return false };
        let serving =
            self.servers.iter().filter_map(|server| server.process.as_ref()).filter(|process| process.serves());
        let newest = serving.map(|process| process.epoch()).max();
        let is_heard = || process.serves() && !process.is_paused(now) && newest == Some(process.epoch());
        self.scenario.ensemble.is_none() || is_heard()
    }

    fn wake_client(&mut self, client: ClientIndex) {
        if self.wakes[client.0] == Some(self.scheduler.now()) {
            self.wakes[client.0] = None;
            self.step_client(client, client::Input::Wake);
        }
    }

    fn step_client(&mut self, index: ClientIndex, input: client::Input) {
        let mut out = Vec::new();
        let operations = self.history.operations.len();
        self.clients[index.0].step(self.scheduler.now(), input, &mut self.history, &mut out);
        if self.trace.is_read() {
            self.trace_client(index, operations);
        }
        for output in out {
            match output {
                client::Output::Connect(server) => {
                    let owner = Owner::Client(index);
                    let end = self.network.connect(&mut self.scheduler, owner, server, Listener::Client);
                    self.streams.insert(end.stream, index);
                }
                client::Output::Send(end, bytes) => {
                    self.trace.mix_bytes(&bytes);
                    self.network.send(&mut self.scheduler, end, bytes);
                }
                client::Output::Close(end, is_abrupt) => {
                    self.network.close(&mut self.scheduler, end, is_abrupt);
                }
                client::Output::Violation(what) => self.violate(format!("client {}: {what}", index.0)),
            }
        }
        self.schedule_client(index);
    }

    fn trace_client(&mut self, index: ClientIndex, operations: usize) {
        let now = self.scheduler.now();
        let who = format!("c{}", index.0);
        for (number, operation) in self.history.operations.iter().enumerate().skip(operations) {
            self.trace.line(now, &who, format_args!("asks {number} xid={} {}", operation.xid, operation.request));
        }
        let seen = self.clients[index.0].seen_traced;
        for what in &self.history.seen[index.0][seen..] {
            match what {
                super::history::Seen::Reply(operation) => {
                    let reply = self.history.get(*operation).reply.as_ref();
                    let text = reply.map(|reply| format!("zxid={} err={}", reply.zxid, reply.err));
                    self.trace.line(now, &who, format_args!("told {} {}", operation.0, text.unwrap_or_default()));
                }
                what => self.trace.line(now, &who, format_args!("{what:?}")),
            }
        }
        self.clients[index.0].seen_traced = self.history.seen[index.0].len();
    }

    fn schedule_client(&mut self, client: ClientIndex) {
        let Some(at) = self.clients[client.0].deadline() else { return };
        let at = at.max(self.scheduler.now() + Duration::from_micros(1));
        if self.wakes[client.0] != Some(at) {
            self.wakes[client.0] = Some(at);
            self.scheduler.at(at, Event::Client(client));
        }
    }

    fn on_fault(&mut self, at: usize) {
        if self.stage != Stage::Faults {
            return;
        }
        let planned = self.faults[at];
        self.line("fault", format_args!("{planned}"));
        self.scheduler.at(self.scheduler.now() + planned.lasts, Event::FaultEnds(at));
        let now = self.scheduler.now();
        match planned.fault {
            Fault::Kill { server } => self.kill(server, planned.lasts, "killed", false),
            Fault::PowerCut { server } => self.kill(server, planned.lasts, "without power", true),
            Fault::KillAt { server, caught } => self.servers[server.0].caught = Some((caught, planned.lasts)),
            Fault::Stop { server } => {
                if let Some(boot) = self.servers[server.0].process.as_ref().map(|process| process.boot) {
                    self.with_process(server, boot, Process::stop);
                }
            }
            Fault::Pause { server } => {
                if let Some(process) = &mut self.servers[server.0].process {
                    process.pause(now + planned.lasts);
                }
            }
            Fault::SlowDisk { server, times } => self.servers[server.0].disk.condition.slowness = times,
            Fault::FullDisk { server } => self.servers[server.0].disk.condition.is_full = true,
            Fault::FailedWrite { server } => {
                if self.servers[server.0].process.is_some() {
                    self.servers[server.0].disk.condition.fails_next_write = true;
                    self.servers[server.0].must_end = true;
                }
            }
            Fault::Cut { client, server, there, back } => self.cut(client, server, [there, back], true),
            Fault::Lag { client, server, lag } => self.lag(client, server, lag),
            Fault::Part { one, other, there, back } => self.part(one, other, [there, back], true),
            Fault::Isolate { server, hears, is_heard } => self.isolate(server, [!is_heard, !hears], true),
            Fault::SlowLink { one, other, lag } => self.slow_link(one, other, lag),
            Fault::ClockJump { server, by_ms } => {
                self.servers[server.0].wall_offset_ms += by_ms;
                let offset = self.servers[server.0].wall_offset_ms;
                if let Some(process) = &mut self.servers[server.0].process {
                    process.clock.wall_offset_ms = offset;
                }
            }
        }
    }

    fn on_fault_ends(&mut self, at: usize) {
        match self.faults[at].fault {
            Fault::SlowDisk { server, .. } => self.servers[server.0].disk.condition.slowness = 0,
            Fault::FullDisk { server } => self.servers[server.0].disk.condition.is_full = false,
            Fault::KillAt { server, .. } => self.servers[server.0].caught = None,
            Fault::Cut { client, server, there, back } => self.cut(client, server, [there, back], false),
            Fault::Lag { client, server, .. } => self.lag(client, server, Duration::ZERO),
            Fault::Part { one, other, there, back } => self.part(one, other, [there, back], false),
            Fault::Isolate { server, hears, is_heard } => self.isolate(server, [!is_heard, !hears], false),
            Fault::SlowLink { one, other, .. } => self.slow_link(one, other, Duration::ZERO),
            Fault::Kill { .. }
            | Fault::PowerCut { .. }
            | Fault::Stop { .. }
            | Fault::Pause { .. }
            | Fault::FailedWrite { .. }
            | Fault::ClockJump { .. } => {}
        }
    }

    fn cut(&mut self, client: ClientIndex, server: ServerIndex, [there, back]: [bool; 2], is_cut: bool) {
        let (client, server) = (Host::Client(client), Host::Server(server));
        if there {
            self.network.set_cut(client, server, is_cut);
        }
        if back {
            self.network.set_cut(server, client, is_cut);
        }
    }

    fn part(&mut self, one: ServerIndex, other: ServerIndex, [there, back]: [bool; 2], is_cut: bool) {
        let (one, other) = (Host::Server(one), Host::Server(other));
        if there {
            self.network.set_cut(one, other, is_cut);
        }
        if back {
            self.network.set_cut(other, one, is_cut);
        }
    }

    fn isolate(&mut self, server: ServerIndex, ways: [bool; 2], is_cut: bool) {
        for other in (0..self.servers.len()).map(ServerIndex).filter(|other| *other != server) {
            self.part(server, other, ways, is_cut);
        }
    }

    fn slow_link(&mut self, one: ServerIndex, other: ServerIndex, lag: Duration) {
        self.network.set_lag(Host::Server(one), Host::Server(other), lag);
        self.network.set_lag(Host::Server(other), Host::Server(one), lag);
    }

    fn lag(&mut self, client: ClientIndex, server: ServerIndex, lag: Duration) {
        self.network.set_lag(Host::Client(client), Host::Server(server), lag);
        self.network.set_lag(Host::Server(server), Host::Client(client), lag);
    }

    fn next_stage(&mut self) {
        let now = self.scheduler.now();
        let stage = self.stage;
        self.line("stage", format_args!("{stage:?} is over"));
        match self.stage {
            Stage::Faults => {
                self.stage = Stage::Recovery;
                self.heal();
                self.scheduler.at(now + self.scenario.recovers_within, Event::Stage);
            }
            Stage::Recovery => {
                let healed = Time(0) + self.scenario.faults_for;
                let stuck = self.clients.iter().find(|client| client.acknowledged_at.is_none_or(|at| at < healed));
                if let Some(client) = stuck {
                    let within = self.scenario.recovers_within;
                    let what = format!("J-16: client {} had no write acknowledged within {within:?}", client.index.0);
                    self.violate(what);
                }
                self.stage = Stage::Ending;
                for client in 0..self.clients.len() {
                    if let Some(client::Output::Close(end, is_abrupt)) =
                        self.clients[client].finish(now, client % 2 == 0, &mut self.history)
                    {
                        self.network.close(&mut self.scheduler, end, is_abrupt);
                    }
                    self.schedule_client(ClientIndex(client));
                }
                self.scheduler.at(now + self.scenario.ends_within, Event::Stage);
            }
            Stage::Ending => {
                self.stage = Stage::Over;
                self.check_end();
            }
            Stage::Over => {}
        }
    }

    fn heal(&mut self) {
        let now = self.scheduler.now();
        self.clients.iter_mut().for_each(Client::expect_progress);
        self.network.heal();
        for server in 0..self.servers.len() {
            let state = &mut self.servers[server];
            state.disk.condition = Condition::default();
            (state.caught, state.must_end) = (None, false);
            match &mut state.process {
                Some(process) => process.pause(now),
                None => self.start_at(ServerIndex(server), now + RESTART_AFTER),
            }
        }
    }

    /// Every server that runs has the same tree, and it is that of the order.
    fn check_end(&mut self) {
        let decided = self.order.decided();
        for server in 0..self.servers.len() {
            let what = match &self.servers[server].process {
                None => format!("J-16: server {server} does not run at the end"),
                Some(process) => match process.zab().tree().published() {
                    published if published == decided => continue,
                    published => format!("J-16: server {server} serves {published} at the end, {decided} is decided"),
                },
            };
            self.violate(what);
        }
    }
}
