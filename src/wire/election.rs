//! What goes over the election port: one initial message per connection, then notifications in frames.
//!
//! ```text
//! initial message   [version:i64][sid:i64][n:i32][n bytes: host:port, joined by |]     QuorumCnxManager.InitialMessage
//! frame             [length:i32][payload]                                              length 1 … 524,288
//! notification      [state:i32][leader:i64][zxid:i64][electionEpoch:i64][peerEpoch:i64]
//!                   [version:i32][n:i32][n bytes: configuration text][extension]       FastLeaderElection.buildMsg
//! ```
//!
//! Malformed bytes become errors: of an initial message or a frame they close the connection, of a notification they
//! drop that one alone.

use std::fmt;
use std::net::IpAddr;

use super::extension::Extension;
use super::jute::{JuteError, Reader, Write};
use crate::types::ids::ServerId;
use crate::types::limits;

/// The versions of an initial message: with one address, and with several (`multiAddress.enabled`).
const VERSION_ONE_ADDRESS: i64 = -65536;
const VERSION_ADDRESSES: i64 = -65535;

/// `FastLeaderElection.Notification.CURRENTVERSION`: a configuration text follows.
const NOTIFICATION_VERSION: i32 = 2;

/// The version of a notification without a configuration text.
const NOTIFICATION_VERSION_BARE: i32 = 1;

/// A host as it was told, an IPv6 literal without its brackets, and a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl Address {
    fn parse(text: &str) -> Option<Address> {
        let (host, port) = match text.strip_prefix('[') {
            Some(literal) => literal.split_once("]:")?,
            None => text.split_once(':')?,
        };
        (!host.is_empty()).then_some(())?;
        Some(Address { host: host.to_owned(), port: port.parse().ok()? })
    }

    fn is_wildcard(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }
}

/// `host:port`, an IPv6 host in brackets.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Who connected, and where it listens itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InitialMessage {
    pub sid: ServerId,
    /// Empty if it told none but wildcards: connect to the configured one.
    pub addresses: Vec<Address>,
}

/// An initial message that is none. The connection closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InitialMessageError {
    Version(i64),
    /// Of the text: not 1 … 2048.
    Length(i32),
    /// The text is not a list of `host:port`.
    Address,
}

impl fmt::Display for InitialMessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InitialMessageError::Version(version) => write!(f, "initial message of version {version}"),
            InitialMessageError::Length(length) => write!(f, "initial message with {length} bytes of addresses"),
            InitialMessageError::Address => f.write_str("initial message with a badly formed address"),
        }
    }
}

impl std::error::Error for InitialMessageError {}

impl InitialMessage {
    /// Appends the message to `out`. Java reads its text with one `read`: all of it has to leave in one segment.
    pub fn encode(sid: ServerId, addresses: &[Address], has_many_addresses: bool, out: &mut Vec<u8>) {
        let told = if has_many_addresses { addresses } else { addresses.get(..1).unwrap_or_default() };
        let mut text = String::new();
        for address in told {
            let bar = if text.is_empty() { "" } else { "|" };
            let more = format!("{bar}{address}");
            if text.len() + more.len() <= limits::ELECTION_ADDRESS_BYTES_MAX {
                text.push_str(&more);
            }
        }
        out.put_i64(if has_many_addresses { VERSION_ADDRESSES } else { VERSION_ONE_ADDRESS });
        out.put_i64(sid.0);
        out.put_string(&text);
    }

    /// Reads a message off the front of what has come, and says how many bytes it took. `None`: not all of it is
    /// here yet. Before version 3.5 a bare sid was all.
    pub fn decode(bytes: &[u8]) -> Result<Option<(InitialMessage, usize)>, InitialMessageError> {
        let mut reader = Reader::new(bytes);
        match reader.i64() {
            Err(_) => return Ok(None),
            Ok(sid @ 0..) => return Ok(Some((InitialMessage { sid: ServerId(sid), addresses: Vec::new() }, 8))),
            Ok(VERSION_ONE_ADDRESS | VERSION_ADDRESSES) => {}
            Ok(version) => return Err(InitialMessageError::Version(version)),
        }
        let (Ok(sid), Ok(length)) = (reader.i64(), reader.i32()) else { return Ok(None) };
        let bytes_of_text = match usize::try_from(length) {
            Ok(n @ 1..=limits::ELECTION_ADDRESS_BYTES_MAX) => n,
            Ok(_) | Err(_) => return Err(InitialMessageError::Length(length)),
        };
        let Some(text) = reader.rest().get(..bytes_of_text) else { return Ok(None) };
        let addresses = addresses(&String::from_utf8_lossy(text)).ok_or(InitialMessageError::Address)?;
        let taken = bytes.len() - reader.remaining() + bytes_of_text;
        Ok(Some((InitialMessage { sid: ServerId(sid), addresses }, taken)))
    }
}

/// Trailing bars count for nothing, as Java's `split` has it.
fn addresses(text: &str) -> Option<Vec<Address>> {
    let text = text.trim_end_matches('|');
    if text.is_empty() {
        return Some(Vec::new());
    }
    let all: Vec<Address> = text.split('|').map(Address::parse).collect::<Option<_>>()?;
    Some(all.into_iter().filter(|address| !address.is_wildcard()).collect())
}

/// A frame whose length is not 1 … 524,288. The connection closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameError(pub i32);

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame of {} bytes", self.0)
    }
}

impl std::error::Error for FrameError {}

/// A frame's payload, and the bytes behind it.
pub type Split<'a> = (&'a [u8], &'a [u8]);

/// The first frame of what has come. `None`: not all of it is here yet.
pub fn split_frame(bytes: &[u8]) -> Result<Option<Split<'_>>, FrameError> {
    let mut reader = Reader::new(bytes);
    let Ok(length) = reader.i32() else { return Ok(None) };
    match usize::try_from(length) {
        Ok(n @ 1..=limits::ELECTION_FRAME_BYTES_MAX) => Ok(reader.rest().split_at_checked(n)),
        Ok(_) | Err(_) => Err(FrameError(length)),
    }
}

/// Appends `payload` to `out` as a frame.
pub fn put_frame(payload: &[u8], out: &mut Vec<u8>) {
    assert!((1..=limits::ELECTION_FRAME_BYTES_MAX).contains(&payload.len()), "a frame of {} bytes", payload.len());
    out.put_buffer(Some(payload));
}

/// What the sender of a notification is doing (`QuorumPeer.ServerState`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerState {
    Looking,
    Following,
    Leading,
    Observing,
}

impl PeerState {
    fn from_wire(state: i32) -> Option<PeerState> {
        Some(match state {
            0 => PeerState::Looking,
            1 => PeerState::Following,
            2 => PeerState::Leading,
            3 => PeerState::Observing,
            _ => return None,
        })
    }
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PeerState::Looking => "LOOKING",
            PeerState::Following => "FOLLOWING",
            PeerState::Leading => "LEADING",
            PeerState::Observing => "OBSERVING",
        })
    }
}

/// Who should lead, and why (`Vote`). All fields are signed, and compared so: an observer's vote is all `i64::MIN` but
/// for the round, and a zxid of -1 says that its sender's database cannot be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vote {
    pub leader: ServerId,
    pub zxid: i64,
    /// The round, counted by every server for itself (`electionEpoch`, the logical clock).
    pub round: i64,
    /// The epoch that the proposed leader has joined.
    pub peer_epoch: i64,
}

/// `3 zxid 0x100000005 epoch 1 round 2`.
impl fmt::Display for Vote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.leader.0 {
            i64::MIN => write!(f, "nobody round {}", self.round),
            leader => write!(f, "{leader} zxid {:#x} epoch {} round {}", self.zxid, self.peer_epoch, self.round),
        }
    }
}

/// A notification that is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotificationError {
    /// It ends within a field.
    Short,
    /// The configuration text would be longer than the whole, or shorter than nothing.
    ConfigLength(i32),
    /// Not 0 … 3.
    State(i32),
}

impl fmt::Display for NotificationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotificationError::Short => f.write_str("notification is cut short"),
            NotificationError::ConfigLength(length) => write!(f, "notification with {length} bytes of configuration"),
            NotificationError::State(state) => write!(f, "notification of unknown state {state}"),
        }
    }
}

impl std::error::Error for NotificationError {}

impl From<JuteError> for NotificationError {
    fn from(_: JuteError) -> NotificationError {
        NotificationError::Short
    }
}

/// What one server tells another about the election.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notification<'a> {
    pub state: PeerState,
    pub vote: Vote,
    /// Whether it is 0, which the oldest formats count as, decides how votes are compared.
    pub version: i32,
    /// The sender's committed configuration, if its version tells it. Not checked.
    pub config: Option<&'a [u8]>,
    /// `None`: Java, or a block that cannot be read. The vote counts all the same.
    pub extension: Option<Extension>,
}

impl Notification<'_> {
    /// Reads the payload of a frame. 28 bytes are the format before 3.4, 40 bytes that of 3.4 (without a version,
    /// whatever stands in its place).
    pub fn decode(payload: &[u8]) -> Result<Notification<'_>, NotificationError> {
        let mut reader = Reader::new(payload);
        let state = reader.i32()?;
        let mut vote =
            Vote { leader: ServerId(reader.i64()?), zxid: reader.i64()?, round: reader.i64()?, peer_epoch: 0 };
        vote.peer_epoch = if payload.len() == 28 { vote.zxid >> 32 } else { reader.i64()? };
        let version = if matches!(payload.len(), 28 | 40) { 0 } else { reader.i32()? };
        let mut config = None;
        let mut trailer = reader.rest();
        if version > NOTIFICATION_VERSION_BARE {
            let length = reader.i32()?;
            if length < 0 || length as usize > payload.len() {
                return Err(NotificationError::ConfigLength(length));
            }
            let (text, rest) = reader.rest().split_at_checked(length as usize).ok_or(NotificationError::Short)?;
            (config, trailer) = (Some(text), rest);
        } else if version == NOTIFICATION_VERSION_BARE {
            trailer = trailer.get(BARE_PADDING.len()..).unwrap_or_default();
        }
        let state = PeerState::from_wire(state).ok_or(NotificationError::State(state))?;
        let extension = Extension::decode(trailer).unwrap_or_default();
        Ok(Notification { state, vote, version, config, extension })
    }
}

/// Behind version 1: the message must not be 40 bytes long, or it would be read as one without a version.
const BARE_PADDING: [u8; 4] = [0; 4];

/// The payload of a notification. Without a configuration text it is of version 1, which Java still reads, and needs
/// when there is no text that it could parse.
pub fn encode_notification(state: PeerState, vote: &Vote, config: Option<&str>, extension: &[u8]) -> Vec<u8> {
    let room = limits::ELECTION_FRAME_BYTES_MAX - NOTIFICATION_BYTES - limits::EXTENSION_BYTES_MAX;
    let config = config.filter(|text| text.len() <= room);
    let mut out = Vec::with_capacity(NOTIFICATION_BYTES + config.map_or(0, str::len) + extension.len());
    out.put_i32(match state {
        PeerState::Looking => 0,
        PeerState::Following => 1,
        PeerState::Leading => 2,
        PeerState::Observing => 3,
    });
    out.put_i64(vote.leader.0);
    out.put_i64(vote.zxid);
    out.put_i64(vote.round);
    out.put_i64(vote.peer_epoch);
    match config {
        Some(text) => {
            out.put_i32(NOTIFICATION_VERSION);
            out.put_string(text);
        }
        None => {
            out.put_i32(NOTIFICATION_VERSION_BARE);
            out.put(&BARE_PADDING);
        }
    }
    out.put(extension);
    out
}

/// All but the text and the extension.
const NOTIFICATION_BYTES: usize = 44;

#[cfg(test)]
mod tests;
