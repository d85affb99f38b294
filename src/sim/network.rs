//! Byte streams between hosts, as TCP keeps them: in order, at any boundary, or broken; never reordered within one.
//!
//! A stream is two pipes. What waits in a pipe reaches the other end one segment after the other, each after the
//! link's delay. While the link is cut a segment is tried again, later and later, as TCP would, so a silence heals without
//! a loss; a process that is gone answers with a reset, a host that is gone with nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::dice::Dice;
use super::scheduler::{ClientIndex, Event, Scheduler, ServerIndex};
use crate::types::ids::ConnectionId;
use crate::types::time::Time;
use crate::zab::transport::{Port, SocketId};

/// Bytes that the kernels of both sides take before a sender has to keep its own.
const WINDOW_BYTES: usize = 64 << 10;
/// A segment that finds the link cut is tried again after this, and then after twice as long, up to `RETRY_MAX`.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_millis(1600);
/// A segment that never arrives breaks the stream (`TCP_USER_TIMEOUT`).
const GIVE_UP: Duration = Duration::from_secs(20);

/// A machine with an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Host {
    Server(ServerIndex),
    Client(ClientIndex),
}

/// Who holds one end of a stream. A server's ends are those of one run of its process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    Client(ClientIndex),
    /// A connection on the client port, once it is dealt.
    ClientPort {
        server: ServerIndex,
        boot: u32,
        connection: ConnectionId,
    },
    /// A connection between servers.
    Peer {
        server: ServerIndex,
        boot: u32,
        socket: SocketId,
    },
}

/// What is connected to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Listener {
    Client,
    Peer(Port),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub u64);

/// Which end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Side {
    Opener,
    Acceptor,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Opener => Side::Acceptor,
            Side::Acceptor => Side::Opener,
        }
    }
}

/// One end of a stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct End {
    pub stream: StreamId,
    pub side: Side,
}

/// The front of the pipe towards this end is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival(End);

/// What an end's owner hears.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    Connected,
    Received(Vec<u8>),
    /// So many bytes wait in the owner's own memory. Comes when some have left.
    Unsent(usize),
    /// The other side sends no more.
    EndOfStream,
    /// Broken, or never made. `is_reset`: the other host said so.
    Broken {
        is_reset: bool,
    },
}

/// What comes of an arrival.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Nothing,
    Notice(Owner, End, Notice),
    /// Somebody connects: call `accept` or `refuse`.
    Knock {
        server: ServerIndex,
        listener: Listener,
        end: End,
        from: Host,
    },
}

#[derive(Debug)]
enum Segment {
    Syn,
    SynAck,
    Data(Vec<u8>),
    Fin,
    Reset,
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    /// On their way, each with the time at which it is due.
    way: VecDeque<(Time, Segment)>,
    way_bytes: usize,
    /// Does not fit into the kernels' buffers.
    unsent: VecDeque<Vec<u8>>,
    unsent_bytes: usize,
    /// A Fin follows once everything is sent.
    ends: bool,
    is_scheduled: bool,
    /// The receiver does not read.
    is_paused: bool,
    /// Since when the front does not get through, and the next pause.
    stuck: Option<(Time, Duration)>,
}

#[derive(Debug)]
struct StreamEnd {
    host: Host,
    /// `None`: closed, or its process is gone.
    owner: Option<Owner>,
    is_connected: bool,
}

#[derive(Debug)]
struct Stream {
    target: (ServerIndex, Listener),
    opener: StreamEnd,
    acceptor: StreamEnd,
    to_opener: Pipe,
    to_acceptor: Pipe,
}

impl Stream {
    fn end(&mut self, side: Side) -> &mut StreamEnd {
        match side {
            Side::Opener => &mut self.opener,
            Side::Acceptor => &mut self.acceptor,
        }
    }

    fn pipe_to(&mut self, side: Side) -> &mut Pipe {
        match side {
            Side::Opener => &mut self.to_opener,
            Side::Acceptor => &mut self.to_acceptor,
        }
    }
}

/// How a link behaves at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Link {
    is_cut: bool,
    /// Added to every delay.
    lag: Duration,
}

pub struct Network {
    dice: Dice,
    next: u64,
    streams: BTreeMap<StreamId, Stream>,
    /// Links that are not as they should be, by direction.
    links: BTreeMap<(Host, Host), Link>,
    /// Without power: they hear and say nothing.
    dark: BTreeSet<Host>,
}

impl Network {
    pub fn new(dice: Dice) -> Network {
        Network { dice, next: 0, streams: BTreeMap::new(), links: BTreeMap::new(), dark: BTreeSet::new() }
    }

    /// Somebody opens a connection to a server.
    pub fn connect(&mut self, scheduler: &mut Scheduler, owner: Owner, to: ServerIndex, listener: Listener) -> End {
        let id = StreamId(self.next);
        self.next += 1;
        let end = |host, owner| StreamEnd { host, owner, is_connected: false };
        let stream = Stream {
            target: (to, listener),
            opener: end(host_of(owner), Some(owner)),
            acceptor: end(Host::Server(to), None),
            to_opener: Pipe::default(),
            to_acceptor: Pipe::default(),
        };
        self.streams.insert(id, stream);
        self.push(scheduler, End { stream: id, side: Side::Acceptor }, Segment::Syn);
        End { stream: id, side: Side::Opener }
    }

    /// The listener takes a connection that knocked.
    pub fn accept(&mut self, scheduler: &mut Scheduler, end: End, owner: Owner) {
        let Some(stream) = self.streams.get_mut(&end.stream) else { return };
        let acceptor = stream.end(Side::Acceptor);
        (acceptor.owner, acceptor.is_connected) = (Some(owner), true);
        self.push(scheduler, End { stream: end.stream, side: Side::Opener }, Segment::SynAck);
    }

    /// Nobody listens there.
    pub fn refuse(&mut self, scheduler: &mut Scheduler, end: End) {
        self.push(scheduler, End { stream: end.stream, side: Side::Opener }, Segment::Reset);
    }

    /// Hands bytes over at one end. Returns how many of all so far do not fit into the kernel yet.
    pub fn send(&mut self, scheduler: &mut Scheduler, from: End, bytes: Vec<u8>) -> usize {
        let to = End { stream: from.stream, side: from.side.other() };
        let Some(pipe) = self.streams.get_mut(&from.stream).map(|stream| stream.pipe_to(to.side)) else { return 0 };
        pipe.unsent_bytes += bytes.len();
        pipe.unsent.push_back(bytes);
        self.fill(scheduler, to)
    }

    /// Moves what fits from the sender's memory onto the way. Returns what is left.
    fn fill(&mut self, scheduler: &mut Scheduler, to: End) -> usize {
        loop {
            let Some(pipe) = self.streams.get_mut(&to.stream).map(|stream| stream.pipe_to(to.side)) else { return 0 };
            if pipe.way_bytes >= WINDOW_BYTES {
                return pipe.unsent_bytes;
            }
            let Some(bytes) = pipe.unsent.pop_front() else {
                if std::mem::take(&mut pipe.ends) {
                    self.push(scheduler, to, Segment::Fin);
                }
                return 0;
            };
            let room = WINDOW_BYTES - pipe.way_bytes;
            let (now, later) = bytes.split_at(bytes.len().min(room));
            if !later.is_empty() {
                pipe.unsent.push_front(later.to_vec());
            }
            pipe.unsent_bytes -= now.len();
            pipe.way_bytes += now.len();
            self.push_data(scheduler, to, now);
        }
    }

    /// Streams have no borders: now and then one write arrives as two.
    fn push_data(&mut self, scheduler: &mut Scheduler, to: End, bytes: &[u8]) {
        let cut = if self.dice.one_in(10) { self.dice.index(bytes.len() + 1) } else { 0 };
        for part in [&bytes[..cut], &bytes[cut..]] {
            if !part.is_empty() {
                self.push(scheduler, to, Segment::Data(part.to_vec()));
            }
        }
    }

    fn push(&mut self, scheduler: &mut Scheduler, to: End, segment: Segment) {
        let Some(stream) = self.streams.get_mut(&to.stream) else { return };
        let (from, host) = (stream.end(to.side.other()).host, stream.end(to.side).host);
        let lag = self.links.get(&(from, host)).map_or(Duration::ZERO, |link| link.lag);
        let usual = if self.dice.one_in(100) { 1000..=30_000 } else { 20..=150 };
        let pipe = stream.pipe_to(to.side);
        let at = scheduler.now() + self.dice.spread(usual) + lag;
        let at = pipe.way.back().map_or(at, |(before, _)| at.max(*before));
        pipe.way.push_back((at, segment));
        if !pipe.is_scheduled {
            pipe.is_scheduled = true;
            scheduler.at(at, Event::Arrive(Arrival(to)));
        }
    }

    /// An end closes. Gracefully: what was sent arrives first. The owner hears nothing more.
    pub fn close(&mut self, scheduler: &mut Scheduler, end: End, is_abrupt: bool) {
        let Some(stream) = self.streams.get_mut(&end.stream) else { return };
        if stream.end(end.side).owner.take().is_none() {
            return;
        }
        let to = End { stream: end.stream, side: end.side.other() };
        stream.pipe_to(end.side).is_paused = false;
        let pipe = stream.pipe_to(to.side);
        if is_abrupt {
            (pipe.unsent_bytes, pipe.ends) = (0, false);
            pipe.unsent.clear();
            self.push(scheduler, to, Segment::Reset);
        } else {
            pipe.ends = true;
            self.fill(scheduler, to);
        }
        self.forget_if_over(end.stream);
    }

    /// The receiver stops or resumes reading.
    pub fn pause(&mut self, scheduler: &mut Scheduler, end: End, is_paused: bool) {
        let Some(stream) = self.streams.get_mut(&end.stream) else { return };
        let pipe = stream.pipe_to(end.side);
        pipe.is_paused = is_paused;
        if !is_paused && !pipe.is_scheduled && !pipe.way.is_empty() {
            pipe.is_scheduled = true;
            scheduler.at(scheduler.now(), Event::Arrive(Arrival(end)));
        }
    }

    /// A process ends: its host closes its streams, with or without what was not sent; a host without power does not.
    pub fn process_ended(&mut self, scheduler: &mut Scheduler, host: Host) {
        let of_host: Vec<End> = self.streams.iter().flat_map(|(id, stream)| ends_of(*id, stream, host)).collect();
        let is_dark = self.dark.contains(&host);
        for end in of_host {
            if is_dark {
                if let Some(stream) = self.streams.get_mut(&end.stream) {
                    stream.end(end.side).owner = None;
                    let pipe = stream.pipe_to(end.side.other());
                    (pipe.unsent_bytes, pipe.ends) = (0, false);
                    pipe.unsent.clear();
                }
                self.forget_if_over(end.stream);
            } else {
                let is_abrupt = self.dice.one_in(2);
                self.close(scheduler, end, is_abrupt);
            }
        }
    }

    /// A host loses its power, or has it again.
    pub fn set_dark(&mut self, host: Host, is_dark: bool) {
        if is_dark {
            self.dark.insert(host);
        } else {
            self.dark.remove(&host);
        }
    }

    /// Cuts or heals one direction of a link.
    pub fn set_cut(&mut self, from: Host, to: Host, is_cut: bool) {
        self.links.entry((from, to)).or_default().is_cut = is_cut;
    }

    pub fn set_lag(&mut self, from: Host, to: Host, lag: Duration) {
        self.links.entry((from, to)).or_default().lag = lag;
    }

    /// All links are as they should be.
    pub fn heal(&mut self) {
        self.links.clear();
        self.dark.clear();
    }

    fn is_cut(&self, from: Host, to: Host) -> bool {
        self.dark.contains(&from)
            || self.dark.contains(&to)
            || self.links.get(&(from, to)).is_some_and(|link| link.is_cut)
    }

    /// The front of a pipe is due at its end.
    pub fn arrive(&mut self, scheduler: &mut Scheduler, Arrival(end): Arrival) -> Outcome {
        let Some(stream) = self.streams.get_mut(&end.stream) else { return Outcome::Nothing };
        let (from, to) = (stream.end(end.side.other()).host, stream.end(end.side).host);
        if self.is_cut(from, to) {
            return self.try_again(scheduler, end);
        }
        let Some(stream) = self.streams.get_mut(&end.stream) else { return Outcome::Nothing };
        let pipe = stream.pipe_to(end.side);
        pipe.stuck = None;
        let is_data = matches!(pipe.way.front(), Some((_, Segment::Data(_))));
        if pipe.way.is_empty() || (pipe.is_paused && is_data) {
            pipe.is_scheduled = false;
            return Outcome::Nothing;
        }
        let Some((_, segment)) = pipe.way.pop_front() else { return Outcome::Nothing };
        match pipe.way.front() {
            Some((at, _)) => scheduler.at(*at, Event::Arrive(Arrival(end))),
            None => pipe.is_scheduled = false,
        }
        self.deliver(scheduler, end, from, segment)
    }

    fn deliver(&mut self, scheduler: &mut Scheduler, end: End, from: Host, segment: Segment) -> Outcome {
        let Some(stream) = self.streams.get_mut(&end.stream) else { return Outcome::Nothing };
        let owner = stream.end(end.side).owner;
        match (segment, owner) {
            (Segment::Syn, _) => {
                let (server, listener) = stream.target;
                if stream.opener.owner.is_none() {
                    self.streams.remove(&end.stream);
                    return Outcome::Nothing;
                }
                Outcome::Knock { server, listener, end, from }
            }
            (Segment::SynAck, Some(owner)) => {
                stream.end(end.side).is_connected = true;
                Outcome::Notice(owner, end, Notice::Connected)
            }
            (Segment::Data(bytes), Some(owner)) => {
                stream.pipe_to(end.side).way_bytes -= bytes.len();
                Outcome::Notice(owner, end, Notice::Received(bytes))
            }
            // Whoever sends to a process that is gone is told so.
            (Segment::Data(_) | Segment::SynAck, None) => {
                let back = End { stream: end.stream, side: end.side.other() };
                if stream.end(back.side).owner.is_some() {
                    self.push(scheduler, back, Segment::Reset);
                }
                self.forget_if_over(end.stream);
                Outcome::Nothing
            }
            (Segment::Fin, Some(owner)) => Outcome::Notice(owner, end, Notice::EndOfStream),
            (Segment::Reset, Some(owner)) => {
                stream.end(end.side).owner = None;
                self.forget_if_over(end.stream);
                Outcome::Notice(owner, end, Notice::Broken { is_reset: true })
            }
            (Segment::Fin | Segment::Reset, None) => {
                self.forget_if_over(end.stream);
                Outcome::Nothing
            }
        }
    }

    /// After a delivery the sender may have room again. Returns its owner and what is left, if some left.
    pub fn refill(&mut self, scheduler: &mut Scheduler, received: End) -> Option<(Owner, End, usize)> {
        let stream = self.streams.get_mut(&received.stream)?;
        if stream.pipe_to(received.side).unsent_bytes == 0 {
            return None;
        }
        let before = stream.pipe_to(received.side).unsent_bytes;
        let sender = End { stream: received.stream, side: received.side.other() };
        let owner = stream.end(sender.side).owner;
        let left = self.fill(scheduler, received);
        (left < before).then_some(owner?).map(|owner| (owner, sender, left))
    }

    fn try_again(&mut self, scheduler: &mut Scheduler, end: End) -> Outcome {
        let now = scheduler.now();
        let Some(stream) = self.streams.get_mut(&end.stream) else { return Outcome::Nothing };
        let pipe = stream.pipe_to(end.side);
        let (since, pause) = pipe.stuck.unwrap_or((now, RETRY_MIN));
        if now.saturating_since(since) > GIVE_UP {
            // Both sides give up; they hear of it only if they are there.
            pipe.way.clear();
            pipe.is_scheduled = false;
            let sender = End { stream: end.stream, side: end.side.other() };
            let owner = stream.end(sender.side).owner.take();
            self.forget_if_over(end.stream);
            let broken = |owner| Outcome::Notice(owner, sender, Notice::Broken { is_reset: false });
            return owner.map_or(Outcome::Nothing, broken);
        }
        pipe.stuck = Some((since, (pause * 2).min(RETRY_MAX)));
        scheduler.at(now + pause, Event::Arrive(Arrival(end)));
        Outcome::Nothing
    }

    /// Nobody holds an end and nothing is on its way.
    fn forget_if_over(&mut self, id: StreamId) {
        let is_over = self.streams.get(&id).is_some_and(|stream| {
            let nobody = stream.opener.owner.is_none() && stream.acceptor.owner.is_none();
            nobody && stream.to_opener.way.is_empty() && stream.to_acceptor.way.is_empty()
        });
        if is_over {
            self.streams.remove(&id);
        }
    }
}

fn host_of(owner: Owner) -> Host {
    match owner {
        Owner::Client(client) => Host::Client(client),
        Owner::ClientPort { server, .. } | Owner::Peer { server, .. } => Host::Server(server),
    }
}

fn ends_of(id: StreamId, stream: &Stream, host: Host) -> Vec<End> {
    let is_its = |end: &StreamEnd| end.host == host && end.owner.is_some();
    let mut ends = Vec::new();
    if is_its(&stream.opener) {
        ends.push(End { stream: id, side: Side::Opener });
    }
    if is_its(&stream.acceptor) {
        ends.push(End { stream: id, side: Side::Acceptor });
    }
    ends
}
