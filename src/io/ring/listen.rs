//! Accepting connections, and not accepting when descriptors run out.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use socket2::{SockRef, Socket};

use super::{Event, ListenerId, Ring, Tag};
use crate::io::clock;
use crate::io::kernel::uring::{Completed, Held, Key, Operation};
use crate::types::time::Time;

/// How long accepting rests when there are no descriptors or no memory left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct Listeners {
    all: Vec<Listener>,
    /// Some listener rests until then.
    pub(super) retry_at: Option<Time>,
}

struct Listener {
    socket: TcpListener,
    accepting: Option<Key>,
    /// The owner wants connections.
    wanted: bool,
    /// So that running out of descriptors is said once, not ten times a second.
    said: bool,
}

impl Ring {
    /// Accepts from a socket that is bound and listening; each connection becomes an `Accepted` event.
    pub fn add_listener(&mut self, socket: TcpListener) -> ListenerId {
        let id = u16::try_from(self.listeners.all.len()).expect("a server has a handful of listeners");
        self.listeners.all.push(Listener { socket, accepting: None, wanted: true, said: false });
        self.accept(id);
        ListenerId(id)
    }

    /// Stops accepting. What the kernel has accepted already still arrives.
    pub fn pause_accepting(&mut self, id: ListenerId) {
        let listener = &mut self.listeners.all[usize::from(id.0)];
        listener.wanted = false;
        if let Some(key) = listener.accepting {
            self.uring.cancel(key);
        }
    }

    pub fn resume_accepting(&mut self, id: ListenerId) {
        self.listeners.all[usize::from(id.0)].wanted = true;
        self.accept(id.0);
    }

    fn accept(&mut self, id: u16) {
        let listener = &mut self.listeners.all[usize::from(id)];
        if listener.wanted && listener.accepting.is_none() {
            let operation = Operation::AcceptEach(listener.socket.as_raw_fd());
            listener.accepting = Some(self.uring.start(Tag::Accept(id), operation));
        }
    }

    pub(super) fn accept_again(&mut self, now: Time) {
        if self.listeners.retry_at.is_some_and(|at| at <= now) {
            self.listeners.retry_at = None;
            for id in 0..self.listeners.all.len() {
                self.accept(id as u16);
            }
        }
    }

    pub(super) fn on_accept(&mut self, id: u16, completed: Completed<Tag>, events: &mut Vec<Event>) {
        let listener = &mut self.listeners.all[usize::from(id)];
        if !completed.more {
            listener.accepting = None;
        }
        if let Held::Accepted(socket) = completed.held {
            listener.said = false;
            // An error here is a peer that has gone again: nobody to talk to.
            if let Ok(event) = self.accepted(ListenerId(id), socket) {
                events.push(event);
            }
        } else if let libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM = -completed.result {
            if !listener.said {
                listener.said = true;
                let error = io::Error::from_raw_os_error(-completed.result);
                tracing::warn!(%error, "accepting no connections until there is room again (ulimit -n, LimitNOFILE=)");
            }
            self.listeners.retry_at.get_or_insert(clock::now() + ACCEPT_RETRY);
            return;
        }
        self.accept(id);
    }

    fn accepted(&self, listener: ListenerId, socket: OwnedFd) -> io::Result<Event> {
        let options = SockRef::from(&socket);
        self.set_options(&options)?;
        let not_internet = || io::Error::from(io::ErrorKind::Unsupported);
        let peer = options.peer_addr()?.as_socket().ok_or_else(not_internet)?;
        let local = options.local_addr()?.as_socket().ok_or_else(not_internet)?;
        Ok(Event::Accepted { listener, socket, peer, local })
    }

    pub(super) fn set_options(&self, socket: &Socket) -> io::Result<()> {
        socket.set_tcp_nodelay(true)?;
        socket.set_keepalive(self.settings.keep_alive)?;
        if !self.settings.user_timeout.is_zero() {
            socket.set_tcp_user_timeout(Some(self.settings.user_timeout))?;
        }
        Ok(())
    }
}
