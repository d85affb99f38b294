//! One client: a session that follows it from server to server, as ZooKeeper's own clients do it.
//!
//! ```text
//! Away ──time──► Connecting ──► Greeting ──ConnectResponse──► Attached ──broken, silent, bored──► Away
//! ```
//!
//! It sends nothing twice. What was not answered when a connection breaks has an unknown outcome for ever.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::dice::Dice;
use super::history::{History, Operation, OperationIndex, Reply, Seen};
use super::network::End;
use super::request::{Part, Request, SET_WATCHES_XID};
use super::scheduler::{ClientIndex, ServerIndex};
use super::workload::Workload;
use crate::types::error_code::ErrorCode;
use crate::types::ids::{PASSWORD_BYTES, SessionId};
use crate::types::time::Time;
use crate::types::zxid::Zxid;
use crate::wire::client::xid;
use crate::wire::client_encode::{ConnectRequest, ConnectResponse, ReplyHeader, WatcherEvent, ping};
use crate::wire::jute::Reader;

/// Requests in flight at most.
const PIPELINE_MAX: usize = 24;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    pub servers: usize,
    /// What it asks for.
    pub session_timeout_ms: i32,
    /// Between two bursts of requests, on average.
    pub pause: Duration,
    /// Once in so many bursts: it leaves without a word and comes back, to the same session or with a new one.
    pub leaves_one_in: u64,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    Connected(End),
    Received(End, Vec<u8>),
    Broken(End),
    Wake,
}

/// What to do.
#[derive(PartialEq, Eq, Debug)]
pub enum Output {
    Connect(ServerIndex),
    Send(End, Vec<u8>),
    Close(End, bool),
    /// The server has broken a promise that can be seen at once.
    Violation(String),
}

#[derive(Debug)]
enum Link {
    Away { until: Time },
    Connecting { since: Time },
    Greeting { end: End, since: Time },
    Attached { end: End },
}

/// A session as its client knows it.
#[derive(Clone, Copy, Debug)]
struct Session {
    id: SessionId,
    password: [u8; PASSWORD_BYTES],
    timeout_ms: i32,
}

/// What kind of watch a client believes to have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum WatchKind {
    Data,
    Exist,
    Child,
}

#[derive(Debug)]
pub struct Client {
    pub index: ClientIndex,
    settings: ClientSettings,
    dice: Dice,
    workload: Workload,
    link: Link,
    session: Option<Session>,
    /// It is still the one that got the session: it has its watches and remembers the last zxid.
    remembers: bool,
    last_zxid: Zxid,
    next_xid: i32,
    attachment: u32,
    inbound: Vec<u8>,
    waiting: VecDeque<OperationIndex>,
    watches: BTreeMap<(WatchKind, String), ()>,
    next_burst: Time,
    last_sent: Time,
    last_heard: Time,
    /// How much of the opening is done.
    opening: usize,
    /// Everything is healed: it asks for a write until one is answered.
    must_write: bool,
    /// It only waits for its answers, and then closes its session.
    is_quiet: bool,
    pub is_over: bool,
    /// When a write of its own was last given its place in the order, also if it was refused there.
    pub acknowledged_at: Option<Time>,
    /// What was agreed on each session that it has had.
    pub agreed: BTreeMap<SessionId, Agreed>,
    /// How much of what it saw is in the trace.
    pub seen_traced: usize,
}

/// What a client and the servers have agreed on about a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreed {
    pub timeout: Duration,
    /// Its client has asked for its end.
    pub is_closing: bool,
}

impl Client {
    pub fn new(index: ClientIndex, settings: ClientSettings, mut dice: Dice) -> Client {
        let until = Time(0) + dice.millis(1..=2000);
        Client {
            index,
            settings,
            dice,
            workload: Workload::default(),
            link: Link::Away { until },
            session: None,
            remembers: false,
            last_zxid: Zxid::ZERO,
            next_xid: 1,
            attachment: 0,
            inbound: Vec::new(),
            waiting: VecDeque::new(),
            watches: BTreeMap::new(),
            next_burst: Time(0),
            last_sent: Time(0),
            last_heard: Time(0),
            opening: 0,
            must_write: false,
            is_quiet: false,
            is_over: false,
            acknowledged_at: None,
            agreed: BTreeMap::new(),
            seen_traced: 0,
        }
    }

    /// From now on it must be possible to write.
    pub fn expect_progress(&mut self) {
        self.must_write = true;
    }

    /// No more requests of its own choice: it closes its session, or is gone without a word.
    pub fn finish(&mut self, now: Time, closes: bool, history: &mut History) -> Option<Output> {
        self.is_quiet = true;
        self.next_burst = now;
        if closes {
            return None;
        }
        let close = self.end().map(|end| Output::Close(end, true));
        self.leave(now, history);
        self.is_over = true;
        close
    }

    /// The session of a connection that is up.
    pub fn attached_session(&self) -> Option<SessionId> {
        match self.link {
            Link::Attached { .. } => self.session.map(|session| session.id),
            Link::Away { .. } | Link::Connecting { .. } | Link::Greeting { .. } => None,
        }
    }

    /// When `Wake` should come.
    pub fn deadline(&self) -> Option<Time> {
        if self.is_over {
            return None;
        }
        Some(match &self.link {
            Link::Away { until } => *until,
            Link::Connecting { since } | Link::Greeting { since, .. } => *since + self.connect_timeout(),
            Link::Attached { .. } => {
                let timeout = self.timeout();
                let ping = self.last_sent + timeout / 3;
                self.next_burst.min(ping).min(self.last_heard + timeout * 2 / 3)
            }
        })
    }

    fn timeout(&self) -> Duration {
        let timeout_ms = self.session.map_or(self.settings.session_timeout_ms, |session| session.timeout_ms);
        Duration::from_millis(timeout_ms.max(1) as u64)
    }

    fn connect_timeout(&self) -> Duration {
        self.timeout() / self.settings.servers.max(2) as u32
    }

    pub fn step(&mut self, now: Time, input: Input, history: &mut History, out: &mut Vec<Output>) {
        if self.is_over {
            return;
        }
        match input {
            Input::Connected(end) => self.on_connected(now, end, out),
            Input::Received(end, bytes) => self.on_received(now, end, &bytes, history, out),
            Input::Broken(end) => {
                if self.end() == Some(end) || matches!(self.link, Link::Connecting { .. }) {
                    self.leave(now, history);
                }
            }
            Input::Wake => self.on_wake(now, history, out),
        }
    }

    fn end(&self) -> Option<End> {
        match self.link {
            Link::Greeting { end, .. } | Link::Attached { end } => Some(end),
            Link::Away { .. } | Link::Connecting { .. } => None,
        }
    }

    fn on_wake(&mut self, now: Time, history: &mut History, out: &mut Vec<Output>) {
        match self.link {
            Link::Away { until } if until <= now => {
                self.link = Link::Connecting { since: now };
                out.push(Output::Connect(ServerIndex(self.dice.index(self.settings.servers))));
            }
            Link::Connecting { since } | Link::Greeting { since, .. } if since + self.connect_timeout() <= now => {
                out.extend(self.end().map(|end| Output::Close(end, true)));
                self.leave(now, history);
            }
            Link::Attached { end } => self.on_attached_wake(now, end, history, out),
            Link::Away { .. } | Link::Connecting { .. } | Link::Greeting { .. } => {}
        }
    }

    fn on_attached_wake(&mut self, now: Time, end: End, history: &mut History, out: &mut Vec<Output>) {
        if self.last_heard + self.timeout() * 2 / 3 <= now {
            // A server that says nothing is not there.
            out.push(Output::Close(end, true));
            return self.leave(now, history);
        }
        if self.next_burst <= now {
            self.burst(now, end, history, out);
        }
        if self.last_sent + self.timeout() / 3 <= now {
            let mut bytes = Vec::new();
            ping(&mut bytes);
            self.send(now, end, bytes, out);
        }
    }

    fn burst(&mut self, now: Time, end: End, history: &mut History, out: &mut Vec<Output>) {
        let pause = self.settings.pause.as_micros() as u64;
        self.next_burst = now + self.dice.micros(pause / 4..=pause * 7 / 4);
        let mut bytes = Vec::new();
        if self.is_quiet {
            if self.waiting.is_empty() {
                self.ask(now, Request::Close, history, &mut bytes);
                self.note_closing();
                self.next_burst = now + Duration::from_secs(3600);
                self.send(now, end, bytes, out);
            }
            return;
        }
        if self.opening > 0 && !self.must_write && self.dice.one_in(self.settings.leaves_one_in) {
            return self.depart(now, end, history, out);
        }
        for _ in 0..self.dice.weighted(&[(50, 1), (20, 2), (20, 5), (10, 14)]) {
            if self.waiting.len() >= PIPELINE_MAX {
                break;
            }
            let index = history.next_index();
            let request = match self.workload.opening(self.opening, index, &mut self.dice) {
                Some(request) => {
                    self.opening += 1;
                    request
                }
                None if self.must_write => self.workload.set(index, &mut self.dice),
                None => self.workload.next(index, &mut self.dice),
            };
            self.ask(now, request, history, &mut bytes);
        }
        if !bytes.is_empty() {
            self.send(now, end, bytes, out);
        }
    }

    /// Leaves of its own accord, in one of the ways in which processes end.
    fn depart(&mut self, now: Time, end: End, history: &mut History, out: &mut Vec<Output>) {
        match self.dice.below(4) {
            // A close that is asked for is answered, and then a new session begins.
            0 => {
                let mut bytes = Vec::new();
                self.ask(now, Request::Close, history, &mut bytes);
                self.note_closing();
                self.next_burst = now + Duration::from_secs(3600);
                return self.send(now, end, bytes, out);
            }
            // Another process takes the session over: it knows id and password and nothing else.
            1 => self.forget_all(),
            // The process is gone; another one begins anew, and the session is left to expire.
            2 => {
                self.forget_all();
                self.session = None;
            }
            // It goes to another server.
            _ => {}
        }
        out.push(Output::Close(end, self.dice.one_in(2)));
        self.leave(now, history);
    }

    fn forget_all(&mut self) {
        self.remembers = false;
        self.watches.clear();
        self.last_zxid = Zxid::ZERO;
        self.next_xid = 1;
    }

    fn note_closing(&mut self) {
        if let Some(agreed) = self.session.and_then(|session| self.agreed.get_mut(&session.id)) {
            agreed.is_closing = true;
        }
    }

    /// Notes a request and appends its bytes.
    fn ask(&mut self, now: Time, request: Request, history: &mut History, bytes: &mut Vec<u8>) {
        let Some(session) = self.session else { return };
        let xid = match request {
            Request::SetWatches { .. } => SET_WATCHES_XID,
            _ => {
                self.next_xid += 1;
                self.next_xid - 1
            }
        };
        request.encode(xid, bytes);
        let operation = Operation {
            client: self.index,
            session: session.id,
            attachment: self.attachment,
            xid,
            request,
            sent: now,
            told_before: history.told,
            reply: None,
        };
        self.waiting.push_back(history.push(operation));
    }

    fn send(&mut self, now: Time, end: End, bytes: Vec<u8>, out: &mut Vec<Output>) {
        self.last_sent = now;
        out.push(Output::Send(end, bytes));
    }

    fn leave(&mut self, now: Time, history: &mut History) {
        if let Link::Attached { .. } = self.link {
            history.saw(self.index, Seen::Detached);
        }
        self.waiting.clear();
        self.inbound.clear();
        let pause = if self.dice.one_in(10) { self.dice.millis(500..=3000) } else { self.dice.millis(1..=200) };
        self.link = Link::Away { until: now + pause };
    }

    fn on_connected(&mut self, now: Time, end: End, out: &mut Vec<Output>) {
        let Link::Connecting { since } = self.link else {
            out.push(Output::Close(end, true));
            return;
        };
        self.link = Link::Greeting { end, since };
        self.inbound.clear();
        let mut bytes = Vec::new();
        let request = ConnectRequest {
            last_zxid_seen: self.last_zxid,
            timeout_ms: self.settings.session_timeout_ms,
            session: self.session.map_or(SessionId::NONE, |session| session.id),
            password: self.session.map_or([0; PASSWORD_BYTES], |session| session.password),
            read_only: false,
        };
        request.encode(&mut bytes);
        self.send(now, end, bytes, out);
    }

    fn on_received(&mut self, now: Time, end: End, bytes: &[u8], history: &mut History, out: &mut Vec<Output>) {
        if self.end() != Some(end) {
            return;
        }
        self.inbound.extend_from_slice(bytes);
        let mut inbound = std::mem::take(&mut self.inbound);
        let mut at = 0;
        while let Some(length) = inbound[at..].first_chunk::<4>().map(|length| i32::from_be_bytes(*length)) {
            let Some(payload) = usize::try_from(length).ok().and_then(|len| inbound[at + 4..].get(..len)) else {
                break;
            };
            at += 4 + payload.len();
            self.on_frame(now, end, payload, history, out);
            if self.end() != Some(end) {
                return;
            }
        }
        inbound.drain(..at);
        self.inbound = inbound;
    }

    fn on_frame(&mut self, now: Time, end: End, payload: &[u8], history: &mut History, out: &mut Vec<Output>) {
        self.last_heard = now;
        if let Link::Greeting { .. } = self.link {
            return match ConnectResponse::decode(payload) {
                Ok(response) => self.on_greeted(now, end, response, history, out),
                Err(error) => out.push(Output::Violation(format!("no ConnectResponse: {error}"))),
            };
        }
        let Ok(header) = ReplyHeader::decode(payload) else {
            return out.push(Output::Violation("a reply without a header".to_owned()));
        };
        let body = payload.get(16..).unwrap_or_default();
        match header.xid {
            xid::NOTIFICATION => self.on_event(header, body, history, out),
            xid::PING => {}
            _ => self.on_reply(now, end, header, body, history, out),
        }
    }

    fn on_greeted(
        &mut self,
        now: Time,
        end: End,
        response: ConnectResponse,
        history: &mut History,
        out: &mut Vec<Output>,
    ) {
        if response.is_refused() {
            if let Some(session) = self.session.take() {
                history.saw(self.index, Seen::Expired(session.id));
            }
            self.forget_all();
            out.push(Output::Close(end, false));
            self.leave(now, history);
            self.is_over = self.is_quiet;
            return;
        }
        let ConnectResponse { session: id, password, timeout_ms, .. } = response;
        if self.session.is_none() {
            self.forget_all();
        }
        let remembers = std::mem::replace(&mut self.remembers, true);
        self.session = Some(Session { id, password, timeout_ms });
        let timeout = Duration::from_millis(timeout_ms.max(1) as u64);
        self.agreed.entry(id).or_insert(Agreed { timeout, is_closing: false }).timeout = timeout;
        self.attachment += 1;
        let attachment = self.attachment;
        history.saw(self.index, Seen::Attached { session: id, attachment, remembers });
        self.link = Link::Attached { end };
        self.next_burst = now + self.dice.millis(1..=100);
        if !self.watches.is_empty() {
            let paths = |wanted: WatchKind| {
                self.watches.keys().filter(|(kind, _)| *kind == wanted).map(|(_, path)| path.clone()).collect()
            };
            let (data, exist, child) = (paths(WatchKind::Data), paths(WatchKind::Exist), paths(WatchKind::Child));
            let mut bytes = Vec::new();
            let relative = self.last_zxid;
            self.ask(now, Request::SetWatches { relative, data, exist, child }, history, &mut bytes);
            self.send(now, end, bytes, out);
        }
    }

    fn on_event(&mut self, header: ReplyHeader, body: &[u8], history: &mut History, out: &mut Vec<Output>) {
        let Ok(event) = WatcherEvent::decode(body) else {
            return out.push(Output::Violation("an event that is none".to_owned()));
        };
        let path = event.path.into_owned();
        let gone: &[WatchKind] = match event.kind {
            1 | 3 => &[WatchKind::Data, WatchKind::Exist],
            2 => &[WatchKind::Data, WatchKind::Exist, WatchKind::Child],
            _ => &[WatchKind::Child],
        };
        for kind in gone {
            self.watches.remove(&(*kind, path.clone()));
        }
        self.last_zxid = self.last_zxid.max(Zxid(header.zxid.as_i64().max(0) as u64));
        history.saw(self.index, Seen::Event { zxid: header.zxid.as_i64(), kind: event.kind, path });
    }

    fn on_reply(
        &mut self,
        now: Time,
        end: End,
        header: ReplyHeader,
        body: &[u8],
        history: &mut History,
        out: &mut Vec<Output>,
    ) {
        let Some(index) = self.waiting.pop_front() else {
            return out.push(Output::Violation(format!("a reply to nothing, xid {}", header.xid)));
        };
        let expected = history.get(index).xid;
        if expected != header.xid {
            let text = format!("replies out of order: xid {} came, {expected} was to come", header.xid);
            return out.push(Output::Violation(text));
        }
        self.last_zxid = self.last_zxid.max(header.zxid);
        history.told = history.told.max(header.zxid);
        history.operations[index.0].reply =
            Some(Reply { at: now, zxid: header.zxid, err: header.err, body: body.to_vec() });
        history.saw(self.index, Seen::Reply(index));
        let request = history.get(index).request.clone();
        self.learn(&request, header.err, body);
        if request.is_write() && header.err != ErrorCode::NotReadOnly.code() {
            self.acknowledged_at = Some(now);
            self.must_write = false;
        }
        if request == Request::Close {
            self.session = None;
            self.forget_all();
            out.push(Output::Close(end, false));
            self.leave(now, history);
            self.is_over = self.is_quiet;
        }
    }

    /// What a client keeps in mind for later.
    fn learn(&mut self, request: &Request, err: i32, body: &[u8]) {
        let mut watch = |kind, path: &str| {
            self.watches.insert((kind, path.to_owned()), ());
        };
        match request {
            Request::Get { path, watch: true } if err == 0 => watch(WatchKind::Data, path),
            Request::Exists { path, watch: true } if err == 0 => watch(WatchKind::Data, path),
            Request::Exists { path, watch: true } if err == ErrorCode::NoNode.code() => watch(WatchKind::Exist, path),
            Request::Children { path, watch: true } if err == 0 => watch(WatchKind::Child, path),
            _ => {}
        }
        let mut reader = Reader::new(body);
        match request {
            Request::Write { part: Part::Set { path, .. }, .. } | Request::Exists { path, .. } if err == 0 => {
                if let Ok(stat) = reader.stat() {
                    self.workload.learn(path, stat.version);
                }
            }
            Request::Write { part: Part::Create { flags: 1.., .. }, .. } if err == 0 => {
                if let Ok(path) = reader.text() {
                    self.workload.made(&path);
                }
            }
            Request::Get { path, .. } if err == 0 => {
                if let (Ok(_), Ok(stat)) = (reader.buffer().map(|_| ()), reader.stat()) {
                    self.workload.learn(path, stat.version);
                }
            }
            _ => {}
        }
    }
}
