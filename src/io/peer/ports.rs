//! The election port and the quorum port: bound at the start, and again and again until it succeeds or is given up.
//!
//! ```text
//!  due ──name──► looked up ──► bind ──ok──► bound
//!   ▲                           └──failed──► wait a second, at most `bind_retries_max` times in a row
//!   └───────────────────────────────────────┘
//! ```

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use super::{PeerSettings, names};
use crate::config::HostPort;
use crate::io::bind::{bind_any, bind_to};
use crate::io::ring::ListenerId;
use crate::types::time::Time;
use crate::zab::transport::Port;

/// As Java waits between two attempts.
const BIND_RETRY: Duration = Duration::from_secs(1);
/// Servers that wait to be accepted: all members at once, and more.
const BACKLOG: u32 = 1024;

/// Why the process must end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CannotListen {
    pub port: Port,
    pub at: HostPort,
    pub attempts: u32,
    pub error: String,
}

impl fmt::Display for CannotListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CannotListen { port, at, attempts, error } = self;
        let name = port_name(*port);
        write!(
            f,
            "cannot listen on {at}, this server's {name}, after {attempts} attempts: {error}. Is another server running \
             there, or is the address another machine's? quorumListenOnAllIPs=true listens on all addresses, \
             electionPortBindRetry=0 tries for ever"
        )
    }
}

fn port_name(port: Port) -> &'static str {
    match port {
        Port::Election => "election port",
        Port::Quorum => "quorum port",
    }
}

/// What to do for a port.
pub(super) enum Action {
    LookUp { at: usize, host: String },
    Bind { at: usize, addresses: Vec<SocketAddr> },
}

pub(super) struct Ports {
    all: Vec<Listener>,
    retries_max: Option<u32>,
    fatal: Option<CannotListen>,
}

/// One address of one port.
struct Listener {
    port: Port,
    at: HostPort,
    state: State,
    /// In a row.
    failures: u32,
}

enum State {
    Due(Time),
    LookedUp,
    Found(Vec<SocketAddr>),
    NotFound(String),
    Bound(Vec<(ListenerId, SocketAddr)>),
}

impl Ports {
    pub fn new(settings: &PeerSettings) -> Ports {
        let listener =
            |port| move |at: &HostPort| Listener { port, at: at.clone(), state: State::Due(Time(0)), failures: 0 };
        let election = settings.election.iter().map(listener(Port::Election));
        let all = election.chain(settings.quorum.iter().map(listener(Port::Quorum))).collect();
        Ports { all, retries_max: settings.bind_retries_max, fatal: None }
    }

    pub fn fatal(&self) -> Option<&CannotListen> {
        self.fatal.as_ref()
    }

    pub fn kind_of(&self, id: ListenerId) -> Option<Port> {
        let is_its = |listener: &&Listener| match &listener.state {
            State::Bound(bound) => bound.iter().any(|(its, _)| *its == id),
            State::Due(_) | State::LookedUp | State::Found(_) | State::NotFound(_) => false,
        };
        self.all.iter().find(is_its).map(|listener| listener.port)
    }

    pub fn addresses(&self, port: Port) -> impl Iterator<Item = SocketAddr> + '_ {
        let bound = |listener: &Listener| match &listener.state {
            State::Bound(bound) => bound.iter().map(|(_, address)| *address).collect(),
            State::Due(_) | State::LookedUp | State::Found(_) | State::NotFound(_) => Vec::new(),
        };
        self.all.iter().filter(move |listener| listener.port == port).flat_map(bound)
    }

    pub fn deadline(&self) -> Option<Time> {
        let due = |listener: &Listener| match listener.state {
            State::Due(at) if self.fatal.is_none() => Some(at),
            State::Due(_) | State::LookedUp | State::Found(_) | State::NotFound(_) | State::Bound(_) => None,
        };
        self.all.iter().filter_map(due).min()
    }

    /// What is to be done now; `None` when there is nothing more.
    pub fn next(&mut self, now: Time) -> Option<Action> {
        if self.fatal.is_some() {
            return None;
        }
        for at in 0..self.all.len() {
            let listener = &mut self.all[at];
            match &mut listener.state {
                State::Due(due) if *due <= now => {
                    listener.state = State::LookedUp;
                    let HostPort { host, port } = &listener.at;
                    return Some(match names::literal(host, *port) {
                        Some(address) => Action::Bind { at, addresses: vec![address] },
                        None => Action::LookUp { at, host: host.clone() },
                    });
                }
                State::Found(addresses) => {
                    let addresses = std::mem::take(addresses);
                    listener.state = State::LookedUp;
                    return Some(Action::Bind { at, addresses });
                }
                State::NotFound(error) => {
                    let error = std::mem::take(error);
                    self.on_failure(now, at, error);
                }
                State::Due(_) | State::LookedUp | State::Bound(_) => {}
            }
        }
        None
    }

    pub fn on_found(&mut self, at: usize, found: &io::Result<Vec<SocketAddr>>) {
        let Some(listener) = self.all.get_mut(at) else { return };
        listener.state = match found {
            Ok(addresses) if !addresses.is_empty() => {
                let with_port = |address: &SocketAddr| SocketAddr::new(address.ip(), listener.at.port);
                State::Found(addresses.iter().map(with_port).collect())
            }
            Ok(_) => State::NotFound("the name has no address".to_owned()),
            Err(error) => State::NotFound(format!("the name was not found: {error}")),
        };
    }

    pub fn on_bound(
        &mut self,
        now: Time,
        at: usize,
        bound: io::Result<Vec<TcpListener>>,
        mut add: impl FnMut(TcpListener) -> ListenerId,
    ) {
        match bound {
            Ok(sockets) => {
                let Some(listener) = self.all.get_mut(at) else { return };
                let address = |socket: &TcpListener| socket.local_addr().expect("a bound socket has an address");
                let bound: Vec<_> = sockets.into_iter().map(|socket| (address(&socket), socket)).collect();
                let name = port_name(listener.port);
                for (address, _) in &bound {
                    tracing::info!("{name:<13} {address}");
                }
                listener.state = State::Bound(bound.into_iter().map(|(at, socket)| (add(socket), at)).collect());
            }
            Err(error) => self.on_failure(now, at, error.to_string()),
        }
    }

    fn on_failure(&mut self, now: Time, at: usize, error: String) {
        let Some(listener) = self.all.get_mut(at) else { return };
        listener.failures += 1;
        listener.state = State::Due(now + BIND_RETRY);
        let (port, at, attempts) = (listener.port, listener.at.clone(), listener.failures);
        if self.retries_max.is_some_and(|max| attempts > max) {
            self.fatal = Some(CannotListen { port, at, attempts, error });
            return;
        }
        tracing::warn!(%at, port = port_name(port), error, "cannot listen; trying again in a second");
    }
}

/// Binds one socket for each address, or for all of them if the address is the wildcard. Addresses of other machines, which a
/// name may also have, are passed over as long as one is ours.
pub(super) fn bind(addresses: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    let mut bound = Vec::new();
    let mut foreign = None;
    for address in addresses {
        let listening = match address.ip().is_unspecified() {
            true => bind_any(address.port(), Some(BACKLOG)),
            false => bind_to(*address, Some(BACKLOG)),
        };
        match listening {
            Ok(socket) => bound.push(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => foreign = Some(error),
            Err(error) => return Err(error),
        }
    }
    match foreign {
        Some(error) if bound.is_empty() => Err(error),
        Some(_) | None => Ok(bound),
    }
}
