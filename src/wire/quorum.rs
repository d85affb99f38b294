//! The quorum port: packets between a leader and its learners (`QuorumPacket`, `LearnerInfo`).
//!
//! ```text
//! packet       [type:i32][zxid:i64][data:buffer][authinfo:vector<Id>]     no frames: packets follow each other
//! FOLLOWERINFO data = LearnerInfo ‖ ext        `extension.rs` has ext; LearnerInfo = [sid:i64][protocol:i32][config version:i64]
//! LEADERINFO   data = [protocol:i32] ‖ ext
//! ACKEPOCH     data = [current epoch:i32, or -1] ‖ ext
//! REQUEST      data = [session:i64][cxid:i32][op:i32][the record behind the client's header]
//! REVALIDATE   data = [session:i64][timeout ms:i32], its answer [session:i64][is valid:bool]
//! PING         data of an answer = {[session:i64][timeout ms:i32]}*
//! PROPOSALS    data = [commit index:i64] {[zxid:i64][txn:buffer]}*        only between our own servers (tag 3)
//! ```

use std::fmt;
use std::time::Duration;

use super::extension::{Extension, tag};
use super::jute::{JuteError, Reader, Result, Write};
use crate::types::acl::Id;
use crate::types::ids::{ServerId, SessionId};
use crate::types::limits;
use crate::types::zxid::Zxid;

/// The only learner protocol that is spoken since 3.4 (`LearnerInfo.protocolVersion`).
pub const PROTOCOL_VERSION: i32 = 0x1_0000;

/// The zxid of packets that carry none.
pub const NO_ZXID: Zxid = Zxid(u64::MAX);

/// Bytes of a packet around its data, without ids.
pub const PACKET_EXTRA_BYTES: usize = 4 + 8 + 4 + 4;

/// `Leader`'s packet types. The last two are ours, and sent only where they were negotiated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(i32)]
pub enum PacketType {
    Request = 1,
    Proposal = 2,
    Ack = 3,
    Commit = 4,
    Ping = 5,
    Revalidate = 6,
    Sync = 7,
    Inform = 8,
    CommitAndActivate = 9,
    NewLeader = 10,
    FollowerInfo = 11,
    UpToDate = 12,
    Diff = 13,
    Trunc = 14,
    Snap = 15,
    ObserverInfo = 16,
    LeaderInfo = 17,
    AckEpoch = 18,
    InformAndActivate = 19,
    /// Several proposals at once (tag 3).
    Proposals = 100,
    /// Who leads next (tag 7).
    HandOver = 103,
}

impl PacketType {
    const ALL: [PacketType; 21] = [
        PacketType::Request,
        PacketType::Proposal,
        PacketType::Ack,
        PacketType::Commit,
        PacketType::Ping,
        PacketType::Revalidate,
        PacketType::Sync,
        PacketType::Inform,
        PacketType::CommitAndActivate,
        PacketType::NewLeader,
        PacketType::FollowerInfo,
        PacketType::UpToDate,
        PacketType::Diff,
        PacketType::Trunc,
        PacketType::Snap,
        PacketType::ObserverInfo,
        PacketType::LeaderInfo,
        PacketType::AckEpoch,
        PacketType::InformAndActivate,
        PacketType::Proposals,
        PacketType::HandOver,
    ];

    pub fn from_i32(value: i32) -> Option<PacketType> {
        PacketType::ALL.into_iter().find(|kind| *kind as i32 == value)
    }

    pub fn name(self) -> &'static str {
        match self {
            PacketType::Request => "REQUEST",
            PacketType::Proposal => "PROPOSAL",
            PacketType::Ack => "ACK",
            PacketType::Commit => "COMMIT",
            PacketType::Ping => "PING",
            PacketType::Revalidate => "REVALIDATE",
            PacketType::Sync => "SYNC",
            PacketType::Inform => "INFORM",
            PacketType::CommitAndActivate => "COMMITANDACTIVATE",
            PacketType::NewLeader => "NEWLEADER",
            PacketType::FollowerInfo => "FOLLOWERINFO",
            PacketType::UpToDate => "UPTODATE",
            PacketType::Diff => "DIFF",
            PacketType::Trunc => "TRUNC",
            PacketType::Snap => "SNAP",
            PacketType::ObserverInfo => "OBSERVERINFO",
            PacketType::LeaderInfo => "LEADERINFO",
            PacketType::AckEpoch => "ACKEPOCH",
            PacketType::InformAndActivate => "INFORMANDACTIVATE",
            PacketType::Proposals => "PROPOSALS",
            PacketType::HandOver => "HANDOVER",
        }
    }
}

/// One packet, in somebody's buffer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuorumPacket<'a> {
    /// As it came: unknown ones are ignored after the handshake.
    pub kind: i32,
    pub zxid: Zxid,
    pub data: Option<&'a [u8]>,
    /// The records behind the count; see [`QuorumPacket::auth`].
    auth: Option<&'a [u8]>,
    auth_count: usize,
}

impl<'a> QuorumPacket<'a> {
    pub fn packet_type(&self) -> Option<PacketType> {
        PacketType::from_i32(self.kind)
    }

    /// The data, of a packet that must have some.
    pub fn body(&self) -> Result<Reader<'a>> {
        self.data.map(|data| Reader::with_limit(data, data.len())).ok_or(JuteError::Null)
    }

    /// The ids behind a request.
    pub fn auth(&self) -> Result<Vec<Id>> {
        let Some(bytes) = self.auth else { return Ok(Vec::new()) };
        let mut reader = Reader::with_limit(bytes, bytes.len());
        let mut ids = Vec::with_capacity(self.auth_count.min(bytes.len() / ID_BYTES_MIN));
        for _ in 0..self.auth_count {
            ids.push(Id { scheme: reader.text()?.into_owned(), id: reader.text()?.into_owned() });
        }
        Ok(ids)
    }
}

/// `PROPOSAL 0x100000001 60 bytes`.
impl fmt::Display for QuorumPacket<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.packet_type() {
            Some(kind) => f.write_str(kind.name())?,
            None => write!(f, "type {}", self.kind)?,
        }
        match self.zxid {
            NO_ZXID => f.write_str(" -1")?,
            zxid => write!(f, " {zxid}")?,
        }
        match self.data {
            None => Ok(()),
            Some(data) => write!(f, " bytes={}", data.len()),
        }
    }
}

/// Two empty strings.
const ID_BYTES_MIN: usize = 8;

/// Cuts a byte stream into packets, whatever its boundaries.
#[derive(Debug)]
pub struct PacketStream {
    bytes: Vec<u8>,
    /// So many of them are done with.
    used: usize,
    /// Largest length of data, of a string, and of all ids together.
    bytes_max: usize,
}

impl PacketStream {
    /// `bytes_max`: `jute.maxbuffer` plus `jute.maxbuffer.extrasize`.
    pub fn new(bytes_max: usize) -> PacketStream {
        PacketStream { bytes: Vec::new(), used: 0, bytes_max }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if self.used > 0 {
            self.bytes.drain(..self.used);
            self.used = 0;
        }
        if self.bytes.is_empty() && self.bytes.capacity() > limits::KEPT_BUFFER_BYTES {
            self.bytes = Vec::new();
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next packet, if all of it is here. After an error the stream is worth nothing.
    pub fn next_packet(&mut self) -> Result<Option<QuorumPacket<'_>>> {
        let bytes = &self.bytes[self.used..];
        let Some((packet, len)) = split_packet(bytes, self.bytes_max)? else { return Ok(None) };
        self.used += len;
        Ok(Some(packet))
    }

    /// What came behind the last packet: the beginning of a raw stream.
    pub fn take_rest(&mut self) -> Vec<u8> {
        let rest = self.bytes.split_off(self.used);
        self.bytes.clear();
        self.used = 0;
        rest
    }

    /// Bytes that wait for the rest of their packet.
    pub fn waiting(&self) -> usize {
        self.bytes.len() - self.used
    }
}

/// The packet at the front of `bytes` and its length; `None` if it is not complete.
fn split_packet(bytes: &[u8], bytes_max: usize) -> Result<Option<(QuorumPacket<'_>, usize)>> {
    match read_packet(bytes, bytes_max) {
        Ok(found) => Ok(Some(found)),
        Err(JuteError::Short) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `Short` as long as bytes are missing; a length that may not be is found as soon as it is there.
fn read_packet(bytes: &[u8], bytes_max: usize) -> Result<(QuorumPacket<'_>, usize)> {
    let mut reader = Reader::with_limit(bytes, bytes_max);
    let (kind, zxid, data) = (reader.i32()?, reader.zxid()?, reader.buffer()?);
    let count = reader.count()?;
    let ids = reader.rest();
    let auth_count = count.unwrap_or(0);
    if auth_count > bytes_max / ID_BYTES_MIN {
        return Err(JuteError::Unreasonable(i32::try_from(auth_count).unwrap_or(i32::MAX)));
    }
    for _ in 0..2 * auth_count {
        reader.buffer()?;
        let so_far = ids.len() - reader.remaining();
        if so_far > bytes_max {
            return Err(JuteError::Unreasonable(so_far as i32));
        }
    }
    let auth = count.map(|_| &ids[..ids.len() - reader.remaining()]);
    let packet = QuorumPacket { kind, zxid, data, auth, auth_count };
    Ok((packet, bytes.len() - reader.remaining()))
}

/// Appends a packet without ids.
pub fn put_packet(out: &mut Vec<u8>, kind: PacketType, zxid: Zxid, data: Option<&[u8]>) {
    out.put_i32(kind as i32);
    out.put_zxid(zxid);
    out.put_buffer(data);
    out.put_i32(-1);
}

/// Appends a packet whose data `fill` writes.
pub fn put_packet_with(out: &mut Vec<u8>, kind: PacketType, zxid: Zxid, fill: impl FnOnce(&mut Vec<u8>)) {
    out.put_i32(kind as i32);
    out.put_zxid(zxid);
    let at = out.len();
    out.put_i32(0);
    fill(out);
    let len = (out.len() - at - 4) as i32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
    out.put_i32(-1);
}

/// Who a learner is, and what it offers: the data of FOLLOWERINFO and OBSERVERINFO.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LearnerInfo {
    pub server: ServerId,
    pub protocol: i32,
    /// The version of its committed configuration.
    pub config_version: i64,
    pub offer: Option<Extension>,
}

impl LearnerInfo {
    pub fn put(&self, out: &mut Vec<u8>) {
        out.put_i64(self.server.0);
        out.put_i32(self.protocol);
        out.put_i64(self.config_version);
        if let Some(offer) = &self.offer {
            offer.encode(out);
        }
    }

    /// Short forms are those of old learners: without a protocol version it is 1, without a configuration version 0.
    pub fn read(data: &[u8]) -> Result<LearnerInfo> {
        let mut reader = Reader::new(data);
        let server = ServerId(reader.i64()?);
        let protocol = reader.i32().unwrap_or(1);
        let config_version = reader.i64().unwrap_or(0);
        Ok(LearnerInfo { server, protocol, config_version, offer: read_extension(reader.rest()) })
    }
}

/// The data of LEADERINFO and ACKEPOCH: a number, and what of the offer is used.
pub fn put_number_and_extension(out: &mut Vec<u8>, number: i32, extension: Option<&Extension>) {
    out.put_i32(number);
    if let Some(extension) = extension {
        extension.encode(out);
    }
}

/// The reverse of [`put_number_and_extension`].
pub fn read_number_and_extension(data: &[u8]) -> Result<(i32, Option<Extension>)> {
    let mut reader = Reader::new(data);
    let number = reader.i32()?;
    Ok((number, read_extension(reader.rest())))
}

/// A write that a learner passes on: the data of REQUEST.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestBody<'a> {
    pub session: SessionId,
    pub cxid: i32,
    pub op: i32,
    pub body: &'a [u8],
}

impl<'a> RequestBody<'a> {
    pub fn read(packet: &QuorumPacket<'a>) -> Result<RequestBody<'a>> {
        let mut reader = packet.body()?;
        let session = SessionId(reader.i64()?);
        Ok(RequestBody { session, cxid: reader.i32()?, op: reader.i32()?, body: reader.rest() })
    }

    /// Appends the whole REQUEST packet.
    pub fn put_packet(&self, out: &mut Vec<u8>, auth: &[Id]) {
        out.put_i32(PacketType::Request as i32);
        out.put_zxid(NO_ZXID);
        out.put_i32((8 + 4 + 4 + self.body.len()) as i32);
        out.put_i64(self.session.0);
        out.put_i32(self.cxid);
        out.put_i32(self.op);
        out.put(self.body);
        out.put_i32(auth.len() as i32);
        for id in auth {
            out.put_string(&id.scheme);
            out.put_string(&id.id);
        }
    }
}

/// What two of our servers agree on beyond ZooKeeper's protocol, link by link, in an [`Extension`] block.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Features {
    /// Tag 1: ACK(z) covers everything up to z on that link.
    pub cumulative_acks: bool,
    /// Tag 2.
    pub heartbeats: Option<Heartbeats>,
    /// Tag 3: PROPOSALS.
    pub batched_proposals: bool,
    /// Tag 4: COMMIT(z) covers everything up to z, and PING and PROPOSALS carry a commit index.
    pub commit_index: bool,
    /// Tag 7: HANDOVER.
    pub hand_over: bool,
}

/// How often the leader is heard of, and after which silence it is gone: `[interval ms:u16][timeout ms:u16]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heartbeats {
    pub interval_ms: u16,
    pub timeout_ms: u16,
}

impl Features {
    pub fn to_extension(&self) -> Extension {
        let mut extension = Extension::new();
        for (tag, is_on) in [
            (tag::CUMULATIVE_ACK, self.cumulative_acks),
            (tag::BATCHED_PROPOSALS, self.batched_proposals),
            (tag::COMMIT_INDEX, self.commit_index),
            (tag::LEADERSHIP_TRANSFER, self.hand_over),
        ] {
            if is_on {
                extension = extension.with(tag, []);
            }
        }
        match self.heartbeats {
            None => extension,
            Some(Heartbeats { interval_ms, timeout_ms }) => {
                let value = [interval_ms.to_be_bytes(), timeout_ms.to_be_bytes()].concat();
                extension.with(tag::FAST_HEARTBEATS, value)
            }
        }
    }

    pub fn of(extension: &Extension) -> Features {
        Features {
            cumulative_acks: extension.has(tag::CUMULATIVE_ACK),
            heartbeats: extension.value(tag::FAST_HEARTBEATS).and_then(Heartbeats::read),
            batched_proposals: extension.has(tag::BATCHED_PROPOSALS),
            commit_index: extension.has(tag::COMMIT_INDEX),
            hand_over: extension.has(tag::LEADERSHIP_TRANSFER),
        }
    }

    /// What both sides can. Times are those of `self`, who decides.
    pub fn and(&self, other: &Features) -> Features {
        Features {
            cumulative_acks: self.cumulative_acks && other.cumulative_acks,
            heartbeats: self.heartbeats.filter(|_| other.heartbeats.is_some()),
            batched_proposals: self.batched_proposals && other.batched_proposals,
            commit_index: self.commit_index && other.commit_index,
            hand_over: self.hand_over && other.hand_over,
        }
    }
}

impl Heartbeats {
    pub fn interval(self) -> Duration {
        Duration::from_millis(self.interval_ms.into())
    }

    pub fn timeout(self) -> Duration {
        Duration::from_millis(self.timeout_ms.into())
    }

    fn read(value: &[u8]) -> Option<Heartbeats> {
        let [a, b, c, d] = *value.first_chunk()?;
        let (interval_ms, timeout_ms) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        (interval_ms > 0 && timeout_ms > interval_ms).then_some(Heartbeats { interval_ms, timeout_ms })
    }
}

/// The block at the front of `bytes`; nothing if whoever wrote them is not one of ours, or wrote what we cannot read.
fn read_extension(bytes: &[u8]) -> Option<Extension> {
    match Extension::decode(bytes) {
        Ok(extension) => extension,
        Err(error) => {
            tracing::warn!(%error, "an extension cannot be read; the peer is taken for Java");
            None
        }
    }
}

#[cfg(test)]
mod tests;
