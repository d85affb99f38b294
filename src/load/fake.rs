//! A server for tests: a set of paths, watches and sessions behind a real socket, with faults on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::types::ids::SessionId;
use crate::types::path;
use crate::types::stat::Stat;
use crate::types::zxid::Zxid;
use crate::wire::client::{MultiHeader, OpCode, xid};
use crate::wire::jute::{Reader, Write};

/// How the server departs from what it should do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    None,
    /// Answers in another protocol.
    NotZooKeeper,
    /// Closes every connection at once.
    Closes,
    /// Wants no sessions.
    Refuses,
    /// Breaks the connection of every so manieth get, `BREAKS_MAX` times.
    Breaks {
        gets: u64,
    },
    /// Forgets all sessions and breaks all connections at this get.
    Expires {
        gets: u64,
    },
    /// Swaps the xids of two replies behind so many requests, once per connection.
    WrongXid {
        after: u32,
    },
    /// The zxid goes back behind so many requests, once per connection.
    WrongZxid {
        after: u32,
    },
    /// Takes requests and never answers behind so many.
    Hangs {
        after: u32,
    },
    /// Sets are refused.
    NoAuth,
    /// Breaks the connection of every so manieth set, `BREAKS_MAX` times, behind the set.
    BreaksBehind {
        sets: u64,
    },
    /// Forgets all sessions and breaks all connections behind this set.
    ExpiresBehind {
        sets: u64,
    },
    /// Says that it has done this set, and has not.
    LosesSet {
        sets: u64,
    },
    /// Does this set twice.
    DoublesSet {
        sets: u64,
    },
}

const BREAKS_MAX: u64 = 10;

#[derive(Debug, Default)]
struct State {
    gets: u64,
    sets: u64,
    /// Those at the server with the fault, if several servers hold this state.
    sets_there: u64,
    /// Data and version of what was set.
    data: BTreeMap<String, (Vec<u8>, i32)>,
    paths: BTreeSet<String>,
    zxid: u64,
    sessions: BTreeSet<i64>,
    last_session: i64,
    /// Connections that watch, by path: number, and whether the watch persists.
    watches: BTreeMap<String, Vec<(u64, bool)>>,
    connections: BTreeMap<u64, TcpStream>,
    last_connection: u64,
}

/// What the server saw.
#[derive(Clone, Debug)]
pub struct Fake {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    fault: Fault,
    timeout_ms: i32,
}

impl Fake {
    pub fn start(fault: Fault) -> Fake {
        Fake::with_timeout(fault, 10_000)
    }

    /// A server on a port of its own, for as long as the process lives.
    pub fn with_timeout(fault: Fault, timeout_ms: i32) -> Fake {
        Fake::start_on(Arc::default(), fault, timeout_ms)
    }

    /// Another server with the same tree and the same sessions.
    pub fn beside(&self, fault: Fault) -> Fake {
        Fake::start_on(self.state.clone(), fault, self.timeout_ms)
    }

    fn start_on(state: Arc<Mutex<State>>, fault: Fault, timeout_ms: i32) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let fake = Fake { address, state, fault, timeout_ms };
        let server = fake.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let server = server.clone();
                std::thread::spawn(move || server.serve(stream.unwrap()));
            }
        });
        fake
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn paths(&self) -> Vec<String> {
        self.lock().paths.iter().cloned().collect()
    }

    pub fn add_path(&self, path: &str) {
        self.lock().paths.insert(path.to_owned());
    }

    pub fn open_sessions(&self) -> usize {
        self.lock().sessions.len()
    }

    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        match self.fault {
            Fault::Closes => return None,
            Fault::NotZooKeeper => {
                frame(&mut stream)?;
                return stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").ok();
            }
            _ => {}
        }
        let first = frame(&mut stream)?;
        let response = self.connect(&first)?;
        stream.write_all(&response).ok()?;
        let number = {
            let mut state = self.lock();
            state.last_connection += 1;
            let number = state.last_connection;
            state.connections.insert(number, stream.try_clone().ok()?);
            number
        };
        let session = i64::from_be_bytes(*response[12..].first_chunk()?);
        self.answer_all(&mut stream, number, SessionId(session));
        self.lock().connections.remove(&number);
        stream.shutdown(Shutdown::Both).ok()
    }

    fn connect(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let mut reader = Reader::new(payload);
        let (_, _, _) = (reader.i32().ok()?, reader.i64().ok()?, reader.i32().ok()?);
        let asked = reader.i64().ok()?;
        let mut state = self.lock();
        let id = match asked {
            _ if self.fault == Fault::Refuses => 0,
            0 => {
                state.last_session += 1;
                let id = state.last_session;
                state.sessions.insert(id);
                id
            }
            asked if state.sessions.contains(&asked) => asked,
            _ => 0,
        };
        let mut out = Vec::new();
        out.put_i32(0);
        out.put_i32(if id == 0 { 0 } else { self.timeout_ms });
        out.put_i64(id);
        out.put_buffer(Some(&if id == 0 { [0; 16] } else { SessionId(id).password() }));
        out.put_bool(false);
        Some(framed(&out))
    }

    fn answer_all(&self, stream: &mut TcpStream, number: u64, session: SessionId) -> Option<()> {
        for count in 0.. {
            let request = frame(stream)?;
            match self.fault {
                Fault::Hangs { after } if count >= after => continue,
                _ => {}
            }
            let mut state = self.lock();
            let mut reader = Reader::new(&request);
            let (mut xid, op) = (reader.i32().ok()?, OpCode::from_i32(reader.i32().ok()?)?);
            state.gets += (op == OpCode::GetData) as u64;
            match self.fault {
                Fault::Breaks { gets }
                    if op == OpCode::GetData && state.gets.is_multiple_of(gets) && state.gets / gets <= BREAKS_MAX =>
                {
                    return None;
                }
                Fault::Expires { gets } if op == OpCode::GetData && state.gets == gets => state.expire_all(),
                _ => {}
            }
            let (err, record) = state.apply(self.fault, number, op, reader)?;
            let is_set_there = op == OpCode::SetData && self.fault != Fault::None;
            state.sets_there += u64::from(is_set_there);
            let there = state.sets_there;
            match self.fault {
                Fault::BreaksBehind { sets }
                    if is_set_there && there.is_multiple_of(sets) && there / sets <= BREAKS_MAX =>
                {
                    return None;
                }
                Fault::ExpiresBehind { sets } if is_set_there && there == sets => state.expire_all(),
                _ => {}
            }
            let mut zxid = state.zxid;
            match self.fault {
                Fault::WrongXid { after } if count == after => xid += 1,
                Fault::WrongZxid { after } if count == after => zxid = 1,
                _ => {}
            }
            let mut out = Vec::new();
            out.put_i32(xid);
            out.put_zxid(Zxid(zxid));
            out.put_i32(err);
            out.put(&record);
            stream.write_all(&framed(&out)).ok()?;
            if op == OpCode::CloseSession {
                state.sessions.remove(&session.0);
                return None;
            }
        }
        None
    }
}

const NO_NODE: i32 = -101;
const NO_AUTH: i32 = -102;
const NODE_EXISTS: i32 = -110;
const NOT_EMPTY: i32 = -111;

impl State {
    /// Error and record of the answer.
    fn apply(&mut self, fault: Fault, number: u64, op: OpCode, mut reader: Reader<'_>) -> Option<(i32, Vec<u8>)> {
        if matches!(op, OpCode::Ping | OpCode::CloseSession) {
            return Some((0, Vec::new()));
        }
        self.zxid +=
            !matches!(op, OpCode::GetData | OpCode::Exists | OpCode::GetChildren | OpCode::Sync | OpCode::AddWatch)
                as u64;
        if op == OpCode::Multi {
            // The end of a multi alone: an empty, good answer.
            let mut out = Vec::new();
            MultiHeader::put_end(&mut out);
            return Some((0, out));
        }
        let path = reader.text().ok()?.into_owned();
        let exists = path == "/" || self.paths.contains(&path);
        let below = format!("{path}/");
        let mut children = self.paths.range(below.clone()..).take_while(|other| other.starts_with(&below)).peekable();
        let mut record = Vec::new();
        let err = match op {
            OpCode::Create if exists => NODE_EXISTS,
            OpCode::Create => match path::split(&path) {
                Some((parent, _)) if parent == "/" || self.paths.contains(parent) => {
                    self.paths.insert(path);
                    0
                }
                _ => NO_NODE,
            },
            _ if !exists => NO_NODE,
            OpCode::Delete if children.peek().is_some() => NOT_EMPTY,
            OpCode::Delete => {
                self.paths.remove(&path);
                self.data.remove(&path);
                0
            }
            OpCode::GetChildren => {
                let names: Vec<&str> = children.filter_map(|child| child.strip_prefix(&below)).collect();
                let names: Vec<&&str> = names.iter().filter(|name| !name.contains('/')).collect();
                record.put_i32(names.len() as i32);
                names.iter().for_each(|name| record.put_string(name));
                0
            }
            OpCode::SetData if fault == Fault::NoAuth => NO_AUTH,
            OpCode::SetData => {
                record.put_stat(&self.set(fault, &path, reader.buffer().ok()?.unwrap_or_default()));
                self.fire(&path);
                0
            }
            OpCode::AddWatch => {
                self.watches.entry(path).or_default().push((number, true));
                0
            }
            OpCode::GetData if reader.bool().ok()? => {
                self.watches.entry(path).or_default().push((number, false));
                0
            }
            OpCode::GetData => {
                let (data, version) = self.data.get(&path).cloned().unwrap_or_default();
                record.put_buffer(Some(&data));
                record.put_stat(&Stat { version, ..Stat::default() });
                0
            }
            _ => 0,
        };
        Some((err, record))
    }

    fn expire_all(&mut self) {
        self.sessions.clear();
        self.connections.values().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    fn set(&mut self, fault: Fault, path: &str, data: &[u8]) -> Stat {
        self.sets += 1;
        let (stands, version) = self.data.entry(path.to_owned()).or_default();
        match fault {
            Fault::LosesSet { sets } if sets == self.sets => {
                return Stat { version: *version + 1, ..Stat::default() };
            }
            Fault::DoublesSet { sets } if sets == self.sets => *version += 2,
            _ => *version += 1,
        }
        *stands = data.to_vec();
        Stat { version: *version, ..Stat::default() }
    }

    fn fire(&mut self, path: &str) {
        let Some(watches) = self.watches.get_mut(path) else { return };
        let mut out = Vec::new();
        out.put_i32(xid::NOTIFICATION);
        out.put_i64(-1);
        out.put_i32(0);
        out.put_i32(3);
        out.put_i32(3);
        out.put_string(path);
        for (number, _) in watches.iter() {
            if let Some(stream) = self.connections.get_mut(number) {
                let _ = stream.write_all(&framed(&out));
            }
        }
        watches.retain(|(_, persists)| *persists);
    }
}

fn frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).ok()?;
    let len = usize::try_from(i32::from_be_bytes(prefix)).ok().filter(|len| *len < 1 << 20)?;
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).ok()?;
    Some(payload)
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_buffer(Some(payload));
    out
}
