//! Looking up host names, each in a thread of its own, so that a name server that does not answer delays nobody else.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;

use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::config::HostPort;
use crate::io::mesh::Doorbell;
use crate::types::limits;
use crate::zab::transport::SocketId;

/// What a name is looked up for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// To listen there; the place in the list of ports.
    Listen(usize),
    /// To connect to it, at this port.
    Connect(SocketId, u16),
}

/// A host and its addresses, with port 0.
type Found = (String, io::Result<Vec<SocketAddr>>);

/// Look-ups under way: at most one, and one thread, for each name. Nothing is remembered, because addresses move.
pub(super) struct Names {
    waiting: BTreeMap<String, Vec<Purpose>>,
    /// As many as there are threads at most.
    found: Receiver<Found>,
    sender: Sender<Found>,
    doorbell: Doorbell,
}

impl Names {
    pub fn new(doorbell: Doorbell) -> Names {
        let (sender, found) = unbounded();
        Names { waiting: BTreeMap::new(), found, sender, doorbell }
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Starts a look-up, or joins the one of that name. False if there are too many.
    pub fn look_up(&mut self, host: &str, purpose: Purpose) -> bool {
        if let Some(purposes) = self.waiting.get_mut(host) {
            purposes.push(purpose);
            return true;
        }
        if self.waiting.len() >= limits::LOOK_UPS_MAX {
            return false;
        }
        let (sender, doorbell, name) = (self.sender.clone(), self.doorbell.clone(), host.to_owned());
        let look_up = move || {
            let found = (name.as_str(), 0).to_socket_addrs().map(Iterator::collect);
            // Nobody waits any more if the server is stopping.
            let _ = sender.send((name, found));
            doorbell.ring();
        };
        if thread::Builder::new().name("name".to_owned()).spawn(look_up).is_err() {
            return false;
        }
        self.waiting.insert(host.to_owned(), vec![purpose]);
        true
    }

    /// The next answer, and for whom it is.
    pub fn pop(&mut self) -> Option<(Vec<Purpose>, io::Result<Vec<SocketAddr>>)> {
        let (host, found) = self.found.try_recv().ok()?;
        if let Err(error) = &found {
            tracing::debug!(host, %error, "a name of a server was not found");
        }
        Some((self.waiting.remove(&host).unwrap_or_default(), found))
    }
}

/// The address, if the host is one and no name.
pub(super) fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    let ip = HostPort { host: host.to_owned(), port }.ip()?;
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::io::mesh::Sleeper;

    #[test]
    fn one_answer_is_for_all_who_asked_for_the_name() {
        let sleeper = Sleeper::new().expect("an eventfd");
        let mut names = Names::new(sleeper.doorbell());
        let [a, b] = [Purpose::Connect(SocketId(2), 1), Purpose::Listen(0)];
        assert!(names.look_up("localhost", a) && names.look_up("localhost", b));
        let limit = Instant::now() + Duration::from_secs(20);
        let (purposes, found) = loop {
            if let Some(answer) = names.pop() {
                break answer;
            }
            assert!(Instant::now() < limit, "no answer");
            thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(purposes, [a, b]);
        assert!(found.expect("every machine knows it").iter().all(|address| address.ip().is_loopback()));
    }

    #[test]
    fn literals_need_no_look_up() {
        assert_eq!(literal("127.0.0.1", 7), Some("127.0.0.1:7".parse().expect("an address")));
        assert_eq!(literal("0:0:0:0:0:0:0:1", 7), Some("[::1]:7".parse().expect("an address")));
        assert_eq!(literal("localhost", 7), None);
    }
}
