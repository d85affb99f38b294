//! Before and after: makes the directories a run needs and removes what it left, over one plain session.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::error::{LoadError, code_name};
use super::failover::Found;
use super::paths;
use super::plan::Plan;
use super::session::{Heard, Phase, Session, Violation};
use super::workload::Op;
use crate::types::error_code::ErrorCode;
use crate::types::path;
use crate::types::time::Time;
use crate::wire::client::OpCode;
use crate::wire::client_encode::{self as encode, ANY_VERSION};

/// Requests in flight while directories are made and znodes removed.
const WINDOW: usize = 512;
/// Silence after which a server is given up, in connect timeouts: work on disk takes longer than a handshake.
const ANSWER_LIMIT: u32 = 6;
const RETRY: Duration = Duration::from_millis(100);

const OK: i32 = ErrorCode::Ok.code();
const NO_NODE: i32 = ErrorCode::NoNode.code();
const NODE_EXISTS: i32 = ErrorCode::NodeExists.code();
const NOT_EMPTY: i32 = ErrorCode::NotEmpty.code();
const MARSHALLING: i32 = ErrorCode::MarshallingError.code();

/// A blocking session. Requests are few here; simplicity goes before speed.
#[derive(Debug)]
pub struct Admin {
    server: SocketAddr,
    stream: TcpStream,
    session: Session,
    buffer: Vec<u8>,
}

/// A reply: its error and its record.
type Answer = (i32, Vec<u8>);

impl Admin {
    /// A session with the first server that gives one. Tries for `connect_timeout`; when none does, what is no
    /// ZooKeeper is told at once.
    pub fn connect(plan: &Plan) -> Result<Admin, LoadError> {
        let start = Instant::now();
        loop {
            let mut last = None;
            for server in &plan.servers {
                match Admin::connect_to(*server, plan) {
                    Ok(admin) => return Ok(admin),
                    Err(error) => last = Some(error),
                }
            }
            match last {
                Some(error @ LoadError::NotZooKeeper { .. }) => return Err(error),
                Some(error) if start.elapsed() >= plan.connect_timeout => return Err(error),
                _ => std::thread::sleep(RETRY),
            }
        }
    }

    pub fn connect_to(server: SocketAddr, plan: &Plan) -> Result<Admin, LoadError> {
        let unreachable = |error: std::io::Error| LoadError::Unreachable { server, why: error.to_string() };
        let stream = TcpStream::connect_timeout(&server, plan.connect_timeout).map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        stream.set_read_timeout(Some(plan.connect_timeout)).map_err(unreachable)?;
        let session = Session::new(plan.session_timeout_ms, WINDOW);
        let mut admin = Admin { server, stream, session, buffer: vec![0; 64 << 10] };
        admin.session.open(Time(0));
        while admin.session.phase() == Phase::Handshake {
            admin.exchange(|_| {})?;
        }
        if !admin.session.is_up() {
            return Err(LoadError::Answer {
                doing: format!("opening a session with {server}"),
                error: "that it wants none (timeout 0)".to_owned(),
            });
        }
        admin.stream.set_read_timeout(Some(plan.connect_timeout * ANSWER_LIMIT)).map_err(unreachable)?;
        Ok(admin)
    }

    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// Writes all that waits and takes in what one read gives.
    fn exchange(&mut self, on: impl FnMut(Heard<'_>)) -> Result<(), LoadError> {
        let server = self.server;
        let failed = |error: std::io::Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                LoadError::NotZooKeeper { server, why: "it accepts connections but does not answer".to_owned() }
            }
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => LoadError::Closed { server, sessions: 0 },
            _ => LoadError::Unreachable { server, why: error.to_string() },
        };
        let unsent = self.session.unsent().len();
        self.stream.write_all(self.session.unsent()).map_err(failed)?;
        self.session.sent(unsent, Time(0));
        match self.stream.read(&mut self.buffer).map_err(failed)? {
            0 => Err(LoadError::Closed { server, sessions: 0 }),
            n => self
                .session
                .receive(&self.buffer[..n], Time(0), on)
                .map_err(|violation: Violation| LoadError::NotZooKeeper { server, why: violation.to_string() }),
        }
    }

    fn call(&mut self, encode: impl FnOnce(&mut Vec<u8>, i32)) -> Result<Answer, LoadError> {
        self.ask(encode);
        let mut answer = None;
        while answer.is_none() {
            self.exchange(|heard| {
                if let Heard::Reply { err, record, .. } = heard {
                    answer = Some((err, record.to_vec()));
                }
            })?;
        }
        Ok(answer.unwrap_or_default())
    }

    fn ask(&mut self, encode: impl FnOnce(&mut Vec<u8>, i32)) {
        self.session.ask(Time(0), None, |out, xid| {
            encode(out, xid);
            Op::Sync
        });
    }

    /// Many requests, pipelined. Answers with how often each error came.
    fn all(
        &mut self,
        mut items: impl Iterator<Item = String>,
        encode: impl Fn(&mut Vec<u8>, i32, &str),
    ) -> Result<BTreeMap<i32, u64>, LoadError> {
        let mut errors = BTreeMap::new();
        loop {
            while self.session.in_flight() < WINDOW
                && let Some(item) = items.next()
            {
                self.ask(|out, xid| encode(out, xid, &item));
            }
            if self.session.in_flight() == 0 {
                return Ok(errors);
            }
            self.exchange(|heard| {
                if let Heard::Reply { err, .. } = heard {
                    *errors.entry(err).or_default() += 1;
                }
            })?;
        }
    }

    /// Creates the prefix and its ancestors; tells those that were not there, the deepest last.
    pub fn make_prefix(&mut self, prefix: &str) -> Result<Vec<String>, LoadError> {
        let mut ancestors: Vec<&str> = path::self_and_ancestors(prefix).filter(|path| *path != path::ROOT).collect();
        ancestors.reverse();
        let mut made = Vec::new();
        for path in ancestors {
            match self.call(|out, xid| encode::create(out, xid, path, b"", 0))?.0 {
                OK => made.push(path.to_owned()),
                NODE_EXISTS => {}
                err => return Err(LoadError::Answer { doing: format!("creating {path}"), error: code_name(err) }),
            }
        }
        Ok(made)
    }

    /// Creates these, unless they are there.
    pub fn make(&mut self, items: impl Iterator<Item = String>, data: &[u8]) -> Result<(), LoadError> {
        let errors = self.all(items, |out, xid, path| encode::create(out, xid, path, data, 0))?;
        tolerate("creating znodes below the prefix", &errors, &[OK, NODE_EXISTS])
    }

    /// Removes what runs made below the prefix, and nothing else.
    pub fn sweep(&mut self, prefix: &str) -> Result<(), LoadError> {
        self.sweep_only(prefix, |name| paths::is_directory(name) || paths::is_single(name))
    }

    /// Removes what sessions of earlier runs created in their mix.
    pub fn sweep_own(&mut self, prefix: &str) -> Result<(), LoadError> {
        self.sweep_only(prefix, paths::is_own_directory)
    }

    fn sweep_only(&mut self, prefix: &str, is_ours: impl Fn(&str) -> bool) -> Result<(), LoadError> {
        let mut ours = self.children(prefix)?;
        ours.retain(|name| is_ours(name));
        for directory in ours.iter().filter(|name| paths::is_directory(name)) {
            let directory = format!("{prefix}/{directory}");
            let leaves = self.children(&directory)?;
            let leaves = leaves.iter().filter(|name| paths::is_leaf(name)).map(|name| format!("{directory}/{name}"));
            self.remove(leaves)?;
        }
        self.remove(ours.iter().map(|name| format!("{prefix}/{name}")))
    }

    /// Removes these, unless they are gone or something of others stands below them.
    pub fn remove(&mut self, items: impl Iterator<Item = String>) -> Result<(), LoadError> {
        let errors = self.all(items, |out, xid, path| encode::delete(out, xid, path, ANY_VERSION))?;
        tolerate("removing znodes", &errors, &[OK, NO_NODE, NOT_EMPTY])
    }

    /// The znode as the leader knows it; `None`: there is none.
    pub fn read_latest(&mut self, path: &str) -> Result<Option<Found>, LoadError> {
        let answer = |err: i32| LoadError::Answer { doing: format!("reading {path}"), error: code_name(err) };
        let (err, _) = self.call(|out, xid| encode::sync(out, xid, path))?;
        if err != OK {
            return Err(answer(err));
        }
        let (err, record) = self.call(|out, xid| encode::read(out, xid, OpCode::GetData, path, false))?;
        match err {
            OK => {
                let (data, version) = encode::data_and_version(&record).map_err(|_| answer(MARSHALLING))?;
                Ok(Some(Found { data: data.to_vec(), version }))
            }
            NO_NODE => Ok(None),
            err => Err(answer(err)),
        }
    }

    fn children(&mut self, path: &str) -> Result<Vec<String>, LoadError> {
        let (err, record) = self.call(|out, xid| encode::read(out, xid, OpCode::GetChildren, path, false))?;
        match err {
            OK => {
                let names = encode::children(&record).map_err(|error| LoadError::Answer {
                    doing: format!("listing {path}"),
                    error: error.to_string(),
                })?;
                Ok(names.into_iter().map(|name| name.into_owned()).collect())
            }
            NO_NODE => Ok(Vec::new()),
            err => Err(LoadError::Answer { doing: format!("listing {path}"), error: code_name(err) }),
        }
    }

    /// Ends the session, so that the server need not wait for it to expire.
    pub fn close(mut self) {
        self.session.close(Time(0));
        // Nothing depends on the answer: the session would expire by itself.
        let _ = self.exchange(|_| {});
    }
}

fn tolerate(doing: &str, errors: &BTreeMap<i32, u64>, fine: &[i32]) -> Result<(), LoadError> {
    match errors.iter().find(|(err, _)| !fine.contains(err)) {
        None => Ok(()),
        Some((err, count)) => {
            Err(LoadError::Answer { doing: doing.to_owned(), error: format!("{} ({count} times)", code_name(*err)) })
        }
    }
}

/// What the server calls itself (`srvr`): version and mode, if it tells.
pub fn server_version(server: SocketAddr) -> Option<String> {
    const LIMIT: Duration = Duration::from_millis(500);
    const TEXT_BYTES_MAX: u64 = 16 << 10;
    let mut stream = TcpStream::connect_timeout(&server, LIMIT).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    stream.write_all(b"srvr").ok()?;
    let mut text = Vec::new();
    stream.take(TEXT_BYTES_MAX).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let version = value("Zookeeper version:")?;
    // A build without its commit says "3.8.0-${mvngit.commit.id}".
    let version = version.split([',', ' ', '$']).next().unwrap_or(version).trim_end_matches('-');
    Some(match value("Mode:") {
        Some(mode) => format!("{version} ({mode})"),
        None => version.to_owned(),
    })
}
