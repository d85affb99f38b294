//! Sockets that listen.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Java's backlog of 50 is too short for a storm of connections; the kernel's own limit is the default here.
const BACKLOG: u32 = 4096;

/// Listens on one address. `backlog`: connections that wait to be accepted.
pub fn bind_to(address: SocketAddr, backlog: Option<u32>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog.unwrap_or(BACKLOG) as i32)?;
    Ok(socket.into())
}

/// Listens on every address of the machine, of both families where the kernel has both.
pub fn bind_any(port: u16, backlog: Option<u32>) -> io::Result<TcpListener> {
    let any6 = SocketAddr::from(([0_u16; 8], port));
    bind_to(any6, backlog).or_else(|_| bind_to(SocketAddr::from(([0_u8; 4], port)), backlog))
}
