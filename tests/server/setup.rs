//! A server for one test, and the few requests that several tests need.

use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::link::{Connect, Connected, Link};
use crate::support::server::{Program, Server, Settings};
use tempfile::TempDir;

/// A bound for everything that should happen soon; generous, as machines are shared.
pub const SOON: Duration = Duration::from_secs(20);

pub fn ours() -> Program {
    Program::Ours(env!("CARGO_BIN_EXE_oxkeeper").into())
}

/// Lines of zoo.cfg and Java properties (`key=value`).
pub fn settings(config: &[&str], properties: &[&str]) -> Settings {
    let pair = |text: &&str| text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    Settings {
        config: config.iter().map(|line| (*line).to_owned()).collect(),
        properties: properties.iter().map(|text| pair(text).expect("key=value")).collect(),
    }
}

/// A running server with its directory, both gone at the end of the test.
pub struct Running {
    pub server: Server,
    pub directory: TempDir,
    settings: Settings,
}

impl Running {
    pub fn new(config: &[&str], properties: &[&str]) -> Running {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let settings = settings(config, properties);
        let server = Server::start(&ours(), directory.path(), &settings);
        Running { server, directory, settings }
    }

    /// Kills it and starts it again on the same directory.
    pub fn crash_and_restart(&mut self) {
        self.server.kill();
        self.server = Server::start(&ours(), self.directory.path(), &self.settings);
    }

    pub fn client(&self) -> Client {
        self.client_for(30_000)
    }

    pub fn client_for(&self, timeout_ms: i32) -> Client {
        Client::connect(self.server.address, timeout_ms).expect("a new session")
    }

    pub fn link(&self) -> Link {
        Link::open(self.server.address).expect("the server listens")
    }

    /// A connection with a session of its own, frame by frame.
    pub fn session(&self, timeout_ms: i32) -> (Link, Connected) {
        self.connect(&Connect::new_session(timeout_ms))
    }

    pub fn connect(&self, connect: &Connect) -> (Link, Connected) {
        let mut link = self.link();
        link.send(&connect.to_frame());
        let connected = Connected::decode(&link.receive().expect("a ConnectResponse")).expect("a whole one");
        (link, connected)
    }

    /// A number of `mntr`.
    pub fn mntr(&self, key: &str) -> i64 {
        let answer = self.server.four_letter("mntr").expect("mntr is answered");
        let line = answer.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('\t'));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("{key} in\n{answer}"))
    }
}

/// Another connection for the same session.
pub fn renewal(session: i64, password: &[u8], timeout_ms: i32) -> Connect {
    Connect { session, password: Some(password.to_vec()), ..Connect::new_session(timeout_ms) }
}

/// Waits until it holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `"0000 002d"` as bytes.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("a hexadecimal digit") as u8;
    digits.chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// A reply's xid, zxid and error.
pub fn header(payload: &[u8]) -> (i32, i64, i32) {
    let int = |at: usize| i32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
    (int(0), i64::from_be_bytes(payload[4..12].try_into().expect("eight bytes")), int(12))
}
