//! One TCP connection that speaks frames, and the few requests that every test needs.

use std::io::{self, Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use oxkeeper::wire::jute::{Reader, Write};

/// How long a reply may take before the test calls it silence.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A blocking connection with whole frames in both directions.
#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    /// Read but not yet handed out.
    bytes: Vec<u8>,
}

/// What came instead of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The server closed or reset the connection.
    Closed,
    /// Nothing came within `PATIENCE`.
    Silent,
    /// The server does not know the session, or not with this password.
    Refused,
}

impl Link {
    pub fn open(address: SocketAddr) -> io::Result<Link> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Link { stream, bytes: Vec::new() })
    }

    pub fn set_patience(&mut self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("a positive timeout is accepted");
    }

    /// Sends bytes as they are. A server that has closed already is noticed when reading.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Everything that comes until the server closes the connection.
    pub fn until_closed(&mut self) -> Result<Vec<u8>, Ended> {
        loop {
            match self.read_more() {
                Ok(()) => {}
                Err(Ended::Closed) => return Ok(std::mem::take(&mut self.bytes)),
                Err(ended @ (Ended::Silent | Ended::Refused)) => return Err(ended),
            }
        }
    }

    /// The next `len` bytes, as they are.
    pub fn receive_bytes(&mut self, len: usize) -> Result<Vec<u8>, Ended> {
        while self.bytes.len() < len {
            self.read_more()?;
        }
        Ok(self.bytes.drain(..len).collect())
    }

    /// This side sends no more.
    pub fn end_stream(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Sends as much as the server takes before `PATIENCE` is over; returns how much that was.
    pub fn send_while_taken(&mut self, bytes: &[u8], patience: Duration) -> usize {
        self.stream.set_write_timeout(Some(patience)).expect("a positive timeout is accepted");
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(n) if n > 0 => sent += n,
                _ => break,
            }
        }
        sent
    }

    /// The payload of the next frame.
    pub fn receive(&mut self) -> Result<Vec<u8>, Ended> {
        loop {
            if let Some((head, rest)) = self.bytes.split_first_chunk::<4>() {
                let len = i32::from_be_bytes(*head);
                let len = usize::try_from(len).expect("the server sent a negative frame length");
                if rest.len() >= len {
                    let frame = rest[..len].to_vec();
                    self.bytes.drain(..4 + len);
                    return Ok(frame);
                }
            }
            self.read_more()?;
        }
    }

    fn read_more(&mut self) -> Result<(), Ended> {
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(Ended::Closed),
            Ok(n) => {
                self.bytes.extend_from_slice(&chunk[..n]);
                Ok(())
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Err(Ended::Silent),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(_) => Err(Ended::Closed),
        }
    }
}

/// `payload` with its length in front.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 4);
    out.put_i32(payload.len() as i32);
    out.put(payload);
    out
}

/// A request: header, then `body`, as a whole frame.
pub fn request(xid: i32, op: i32, body: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(body.len() + 8);
    payload.put_i32(xid);
    payload.put_i32(op);
    payload.put(body);
    frame(&payload)
}

/// Jute `ConnectRequest`. `read_only` is the byte that clients before 3.4 do not send.
#[derive(Clone, Debug)]
pub struct Connect {
    pub last_zxid_seen: i64,
    pub timeout_ms: i32,
    pub session: i64,
    pub password: Option<Vec<u8>>,
    pub read_only: Option<bool>,
}

impl Connect {
    pub fn new_session(timeout_ms: i32) -> Connect {
        Connect { last_zxid_seen: 0, timeout_ms, session: 0, password: Some(vec![0; 16]), read_only: Some(false) }
    }

    pub fn to_frame(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        payload.put_i32(0);
        payload.put_i64(self.last_zxid_seen);
        payload.put_i32(self.timeout_ms);
        payload.put_i64(self.session);
        payload.put_buffer(self.password.as_deref());
        if let Some(read_only) = self.read_only {
            payload.put_bool(read_only);
        }
        frame(&payload)
    }
}

/// Jute `ConnectResponse`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connected {
    pub protocol: i32,
    pub timeout_ms: i32,
    pub session: i64,
    pub password: Vec<u8>,
    pub read_only: Option<bool>,
    pub trailing: usize,
}

impl Connected {
    pub fn decode(payload: &[u8]) -> Result<Connected, oxkeeper::wire::jute::JuteError> {
        let mut reader = Reader::new(payload);
        Ok(Connected {
            protocol: reader.i32()?,
            timeout_ms: reader.i32()?,
            session: reader.i64()?,
            password: reader.buffer()?.unwrap_or_default().to_vec(),
            read_only: if reader.remaining() > 0 { Some(reader.bool()?) } else { None },
            trailing: reader.remaining(),
        })
    }
}

/// Opcodes of the client protocol.
pub mod op {
    pub const CREATE: i32 = 1;
    pub const DELETE: i32 = 2;
    pub const EXISTS: i32 = 3;
    pub const GET_DATA: i32 = 4;
    pub const SET_DATA: i32 = 5;
    pub const GET_ACL: i32 = 6;
    pub const SET_ACL: i32 = 7;
    pub const GET_CHILDREN: i32 = 8;
    pub const SYNC: i32 = 9;
    pub const PING: i32 = 11;
    pub const GET_CHILDREN2: i32 = 12;
    pub const CHECK: i32 = 13;
    pub const MULTI: i32 = 14;
    pub const CREATE2: i32 = 15;
    pub const RECONFIG: i32 = 16;
    pub const CHECK_WATCHES: i32 = 17;
    pub const REMOVE_WATCHES: i32 = 18;
    pub const CREATE_CONTAINER: i32 = 19;
    pub const DELETE_CONTAINER: i32 = 20;
    pub const CREATE_TTL: i32 = 21;
    pub const MULTI_READ: i32 = 22;
    pub const AUTH: i32 = 100;
    pub const SET_WATCHES: i32 = 101;
    pub const SASL: i32 = 102;
    pub const GET_EPHEMERALS: i32 = 103;
    pub const GET_ALL_CHILDREN_NUMBER: i32 = 104;
    pub const SET_WATCHES2: i32 = 105;
    pub const ADD_WATCH: i32 = 106;
    pub const WHO_AM_I: i32 = 107;
    pub const CREATE_SESSION: i32 = -10;
    pub const CLOSE_SESSION: i32 = -11;
}

/// Xids with a meaning.
pub mod xid {
    pub const NOTIFICATION: i32 = -1;
    pub const PING: i32 = -2;
    pub const AUTH: i32 = -4;
    pub const SET_WATCHES: i32 = -8;
}
