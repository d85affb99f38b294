//! The client's side of the client port: requests into bytes, replies out of them.
//!
//! ```text
//! frame      [len:i32][payload]                      both directions
//! request    [xid:i32][type:i32][record]             the first frame is a bare ConnectRequest
//! reply      [xid:i32][zxid:i64][err:i32][record]    the first frame is a bare ConnectResponse
//! ```

use std::borrow::Cow;

use super::client::{MultiHeader, OpCode, put_frame, xid};
use super::jute::{JuteError, Reader, Result, Write};
use crate::types::acl::perms;
use crate::types::ids::{PASSWORD_BYTES, SessionId};
use crate::types::zxid::Zxid;

/// Length prefix of every frame, bytes.
pub const FRAME_PREFIX_BYTES: usize = 4;
/// `ReplyHeader`, bytes.
pub const REPLY_HEADER_BYTES: usize = 16;
/// Where a request's xid stands in its frame, prefix included.
pub const XID_AT: usize = FRAME_PREFIX_BYTES;

/// Version argument that matches any version.
pub const ANY_VERSION: i32 = -1;

/// Jute `ConnectRequest`: `[0:i32][last zxid:i64][timeout:i32][session:i64][password:buffer][read only:bool]`.
#[derive(Clone, Copy, Debug)]
pub struct ConnectRequest {
    pub last_zxid_seen: Zxid,
    /// Wished session timeout.
    pub timeout_ms: i32,
    /// `SessionId::NONE` asks for a new session.
    pub session: SessionId,
    pub password: [u8; PASSWORD_BYTES],
    /// A read-only server will do.
    pub read_only: bool,
}

impl ConnectRequest {
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_frame(out, |out| {
            out.put_i32(0);
            out.put_zxid(self.last_zxid_seen);
            out.put_i32(self.timeout_ms);
            out.put_i64(self.session.0);
            out.put_buffer(Some(&self.password));
            out.put_bool(self.read_only);
        });
    }
}

/// Jute `ConnectResponse`: `[0:i32][timeout:i32][session:i64][password:buffer][read only:bool]`, the last byte only
/// from servers since 3.4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectResponse {
    /// Negotiated timeout; not positive: the session is refused or has expired.
    pub timeout_ms: i32,
    pub session: SessionId,
    pub password: [u8; PASSWORD_BYTES],
    pub read_only: bool,
}

impl ConnectResponse {
    /// From a frame's payload. Errors: bytes that are no `ConnectResponse`, so what answered is no ZooKeeper.
    pub fn decode(payload: &[u8]) -> Result<ConnectResponse> {
        let mut reader = Reader::new(payload);
        let version = reader.i32()?;
        if version != 0 {
            return Err(JuteError::Unreasonable(version));
        }
        let timeout_ms = reader.i32()?;
        let session = SessionId(reader.i64()?);
        let password = reader.buffer()?.ok_or(JuteError::Null)?;
        let password = password.try_into().map_err(|_| JuteError::Unreasonable(password.len() as i32))?;
        let read_only = reader.remaining() > 0 && reader.bool()?;
        Ok(ConnectResponse { timeout_ms, session, password, read_only })
    }

    pub fn is_refused(&self) -> bool {
        self.timeout_ms <= 0
    }
}

/// Jute `ReplyHeader`: `[xid:i32][zxid:i64][err:i32]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyHeader {
    pub xid: i32,
    pub zxid: Zxid,
    /// 0 or an `ErrorCode`; kept as a number, because servers may know more codes than we do.
    pub err: i32,
}

impl ReplyHeader {
    /// From the front of a frame's payload.
    pub fn decode(payload: &[u8]) -> Result<ReplyHeader> {
        let mut reader = Reader::new(payload);
        Ok(ReplyHeader { xid: reader.i32()?, zxid: reader.zxid()?, err: reader.i32()? })
    }
}

/// Jute `WatcherEvent`: `[type:i32][state:i32][path:ustring]`, the record of a notification.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatcherEvent<'a> {
    pub kind: i32,
    pub state: i32,
    pub path: Cow<'a, str>,
}

impl<'a> WatcherEvent<'a> {
    pub fn decode(record: &'a [u8]) -> Result<WatcherEvent<'a>> {
        let mut reader = Reader::new(record);
        Ok(WatcherEvent { kind: reader.i32()?, state: reader.i32()?, path: reader.text()? })
    }
}

/// A whole request: prefix, header, and the record that `record` writes.
pub fn request(out: &mut Vec<u8>, xid: i32, op: i32, record: impl FnOnce(&mut Vec<u8>)) {
    put_frame(out, |out| {
        out.put_i32(xid);
        out.put_i32(op);
        record(out);
    });
}

pub fn ping(out: &mut Vec<u8>) {
    request(out, xid::PING, OpCode::Ping as i32, |_| {});
}

pub fn close_session(out: &mut Vec<u8>, xid: i32) {
    request(out, xid, OpCode::CloseSession as i32, |_| {});
}

/// `GetDataRequest`, `ExistsRequest` and `GetChildrenRequest` are one shape: `[path:ustring][watch:bool]`.
pub fn read(out: &mut Vec<u8>, xid: i32, op: OpCode, path: &str, watch: bool) {
    request(out, xid, op as i32, |out| {
        out.put_string(path);
        out.put_bool(watch);
    });
}

pub fn sync(out: &mut Vec<u8>, xid: i32, path: &str) {
    request(out, xid, OpCode::Sync as i32, |out| out.put_string(path));
}

pub fn create(out: &mut Vec<u8>, xid: i32, path: &str, data: &[u8], flags: i32) {
    request(out, xid, OpCode::Create as i32, |out| create_record(out, path, data, flags));
}

/// `CreateRequest` with the open ACL: `[path:ustring][data:buffer][acl:vector<ACL>][flags:i32]`.
fn create_record(out: &mut Vec<u8>, path: &str, data: &[u8], flags: i32) {
    out.put_string(path);
    out.put_buffer(Some(data));
    out.put_i32(1);
    out.put_i32(perms::ALL);
    out.put_string("world");
    out.put_string("anyone");
    out.put_i32(flags);
}

pub fn delete(out: &mut Vec<u8>, xid: i32, path: &str, version: i32) {
    request(out, xid, OpCode::Delete as i32, |out| {
        out.put_string(path);
        out.put_i32(version);
    });
}

pub fn set_data(out: &mut Vec<u8>, xid: i32, path: &str, data: &[u8], version: i32) {
    request(out, xid, OpCode::SetData as i32, |out| set_data_record(out, path, data, version));
}

/// `SetDataRequest`: `[path:ustring][data:buffer][version:i32]`.
fn set_data_record(out: &mut Vec<u8>, path: &str, data: &[u8], version: i32) {
    out.put_string(path);
    out.put_buffer(Some(data));
    out.put_i32(version);
}

/// `AddWatchRequest`: `[path:ustring][mode:i32]`, mode 0 persistent, 1 persistent recursive. Servers since 3.6.
pub fn add_watch(out: &mut Vec<u8>, xid: i32, path: &str, mode: i32) {
    request(out, xid, OpCode::AddWatch as i32, |out| {
        out.put_string(path);
        out.put_i32(mode);
    });
}

/// A multi of one `setData` per path, all with the same data.
pub fn multi_set_data(out: &mut Vec<u8>, xid: i32, paths: &[String], data: &[u8]) {
    request(out, xid, OpCode::Multi as i32, |out| {
        for path in paths {
            MultiHeader { op: OpCode::SetData as i32, done: false, err: -1 }.encode(out);
            set_data_record(out, path, data, ANY_VERSION);
        }
        MultiHeader::put_end(out);
    });
}

/// The first error inside a multi's reply, 0 when there is none. A failed multi answers with header error 0 and
/// error results only, where 0 stands before the operation that failed.
pub fn multi_error(record: &[u8]) -> Result<i32> {
    let mut reader = Reader::new(record);
    loop {
        let header = MultiHeader::decode(&mut reader)?;
        if header.done || header.op != MultiHeader::ERROR {
            return Ok(0);
        }
        match reader.i32()? {
            0 => {}
            err => return Ok(err),
        }
    }
}

/// The version in a `SetDataResponse`.
pub fn set_version(record: &[u8]) -> Result<i32> {
    Ok(Reader::new(record).stat()?.version)
}

/// Data and version of a `GetDataResponse`; null data is empty.
pub fn data_and_version(record: &[u8]) -> Result<(&[u8], i32)> {
    let mut reader = Reader::with_limit(record, record.len());
    let data = reader.buffer()?.unwrap_or_default();
    Ok((data, reader.stat()?.version))
}

/// Names of a `GetChildrenResponse`.
pub fn children(record: &[u8]) -> Result<Vec<Cow<'_, str>>> {
    let mut reader = Reader::with_limit(record, record.len());
    Ok(reader.vector(|r| r.text())?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|b| *b != b' ').collect();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect()
    }

    /// Expected bytes are those of the protocol reference, section 12, where it has the frame.
    fn check(expected: &str, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        encode(&mut out);
        assert_eq!(hex(&out), expected.replace(' ', ""));
    }

    #[test]
    fn a_connect_request_is_byte_exact() {
        let request = ConnectRequest {
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: 30_000,
            session: SessionId::NONE,
            password: [0; PASSWORD_BYTES],
            read_only: false,
        };
        let expected = "0000002d 00000000 0000000000000000 00007530 0000000000000000 00000010 \
                        00000000000000000000000000000000 00";
        check(expected, |out| request.encode(out));
    }

    #[test]
    fn requests_are_byte_exact() {
        check("00000008 fffffffe 0000000b", ping);
        check("00000008 00000005 fffffff5", |out| close_session(out, 5));
        check("0000000f 00000002 00000003 00000002 2f62 01", |out| read(out, 2, OpCode::Exists, "/b", true));
        check(
            "00000033 00000001 00000001 00000002 2f61 00000002 6869 00000001 0000001f 00000005 776f726c64 00000006 \
             616e796f6e65 00000000",
            |out| create(out, 1, "/a", b"hi", 0),
        );
        check(
            "0000002a 00000003 0000000e 00000005 00 ffffffff 00000002 2f61 00000002 6869 ffffffff ffffffff 01 ffffffff",
            |out| multi_set_data(out, 3, &["/a".to_owned()], b"hi"),
        );
    }

    #[test]
    fn connect_responses_are_read_with_and_without_the_last_byte() {
        let text = "00000000 00007530 0100017f3a2b0000 00000010 57b2b9b5984a14dd8d1ec998a1f8b2c4 00";
        let session = SessionId(0x0100_017f_3a2b_0000);
        let expected = ConnectResponse { timeout_ms: 30_000, session, password: session.password(), read_only: false };
        let payload = bytes(text);
        assert_eq!(ConnectResponse::decode(&payload), Ok(expected));
        assert_eq!(ConnectResponse::decode(&payload[..36]), Ok(expected));
        assert_eq!(ConnectResponse::decode(&payload[..35]), Err(JuteError::Short));
        assert!(ConnectResponse::decode(b"HTTP/1.1 400 Bad Request\r\n\r\n").is_err());
    }

    #[test]
    fn reply_headers_and_events_are_read() {
        let header = ReplyHeader::decode(&bytes("00000002 0000000000000002 ffffff9b"));
        assert_eq!(header, Ok(ReplyHeader { xid: 2, zxid: Zxid(2), err: -101 }));
        let event = WatcherEvent { kind: 1, state: 3, path: "/b".into() };
        assert_eq!(WatcherEvent::decode(&bytes("00000001 00000003 00000002 2f62")), Ok(event));
    }

    #[test]
    fn the_error_of_a_multi_is_the_first_that_is_not_zero() {
        let failed = "ffffffff 00 00000000 00000000 ffffffff 00 ffffff92 ffffff92 ffffffff 00 fffffffe fffffffe \
                      ffffffff 01 ffffffff";
        assert_eq!(multi_error(&bytes(failed)), Ok(-110));
        let fine = "0000000d 00 00000000 00000001 00 00000000 00000004 2f612f63 ffffffff 01 ffffffff";
        assert_eq!(multi_error(&bytes(fine)), Ok(0));
        assert_eq!(multi_error(&bytes("ffffffff 00")), Err(JuteError::Short));
    }
}
