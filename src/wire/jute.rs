//! Jute, ZooKeeper's record encoding: big-endian fields in order, no tags.
//!
//! ```text
//! int, long   4, 8 bytes, big-endian two's complement
//! boolean     1 byte; written 0 or 1, any other value reads as true
//! buffer      [len:i32][bytes]     len -1 is null, which differs from empty
//! ustring     [len:i32][UTF-8]     len -1 is null
//! vector<T>   [count:i32][T…]      -1 is null; any other negative count reads as empty
//! record      its fields
//! ```

use std::borrow::Cow;
use std::fmt;

use crate::types::acl::{Acl, Id};
use crate::types::limits;
use crate::types::stat::{Stat, StatPersisted};
use crate::types::time::WallTime;
use crate::types::zxid::Zxid;

/// Bytes that are not the record they should be. Answered with `MarshallingError` or by closing the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JuteError {
    /// The record ends behind the bytes.
    Short,
    /// A length below -1, or above what `jute.maxbuffer` and its extra size allow.
    Unreasonable(i32),
    /// A field that may not be null is null.
    Null,
}

impl fmt::Display for JuteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JuteError::Short => f.write_str("record is cut short"),
            JuteError::Unreasonable(len) => write!(f, "Unreasonable length = {len}"),
            JuteError::Null => f.write_str("null where a value is needed"),
        }
    }
}

impl std::error::Error for JuteError {}

pub type Result<T> = std::result::Result<T, JuteError>;

/// Reads fields off the front of a byte slice. Never panics, whatever the bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// Largest length of a string or buffer inside the record, bytes.
    bytes_max: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, bytes_max: limits::FRAME_BYTES_MAX + limits::EXTRA_BYTES_MAX }
    }

    /// With another limit for inner lengths, for a changed `jute.maxbuffer`.
    pub fn with_limit(bytes: &'a [u8], bytes_max: usize) -> Reader<'a> {
        Reader { rest: bytes, bytes_max }
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(JuteError::Short)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(JuteError::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub fn bool(&mut self) -> Result<bool> {
        Ok(self.u8()? != 0)
    }

    pub fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub fn zxid(&mut self) -> Result<Zxid> {
        Ok(Zxid::from_i64(self.i64()?))
    }

    /// A buffer: `None` is null.
    pub fn buffer(&mut self) -> Result<Option<&'a [u8]>> {
        match self.i32()? {
            -1 => Ok(None),
            len if len < 0 || len as usize > self.bytes_max => Err(JuteError::Unreasonable(len)),
            len => self.take(len as usize).map(Some),
        }
    }

    /// A string: `None` is null. Malformed UTF-8 becomes U+FFFD, as Java's decoder does; Java's own encoding of
    /// characters above U+FFFF (two 3-byte surrogates) is joined again.
    pub fn string(&mut self) -> Result<Option<Cow<'a, str>>> {
        Ok(self.buffer()?.map(|bytes| match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => Cow::Owned(from_java_utf8(bytes)),
        }))
    }

    /// A string that may not be null.
    pub fn text(&mut self) -> Result<Cow<'a, str>> {
        self.string()?.ok_or(JuteError::Null)
    }

    /// The count of a vector: `None` is null, any other negative count reads as 0. The caller reads the elements and
    /// must not reserve memory for more of them than bytes remain.
    pub fn count(&mut self) -> Result<Option<usize>> {
        Ok(match self.i32()? {
            -1 => None,
            n => Some(n.max(0) as usize),
        })
    }

    /// A vector whose elements `read` takes off one by one; `None` is null.
    pub fn vector<T>(&mut self, mut read: impl FnMut(&mut Self) -> Result<T>) -> Result<Option<Vec<T>>> {
        let Some(count) = self.count()? else { return Ok(None) };
        // Elements take at least one byte each, except empty records, of which jute has none.
        let mut out = Vec::with_capacity(count.min(self.remaining()));
        for _ in 0..count {
            out.push(read(self)?);
        }
        Ok(Some(out))
    }

    /// One `ACL` that was written by a server, whose strings are not null.
    pub fn acl(&mut self) -> Result<Acl> {
        let perms = self.i32()?;
        let (scheme, id) = (self.text()?.into_owned(), self.text()?.into_owned());
        Ok(Acl { perms, id: Id { scheme, id } })
    }

    pub fn stat(&mut self) -> Result<Stat> {
        Ok(Stat {
            czxid: self.zxid()?,
            mzxid: self.zxid()?,
            ctime: WallTime(self.i64()?),
            mtime: WallTime(self.i64()?),
            version: self.i32()?,
            cversion: self.i32()?,
            aversion: self.i32()?,
            ephemeral_owner: self.i64()?,
            data_length: self.i32()?,
            num_children: self.i32()?,
            pzxid: self.zxid()?,
        })
    }

    pub fn stat_persisted(&mut self) -> Result<StatPersisted> {
        Ok(StatPersisted {
            czxid: self.zxid()?,
            mzxid: self.zxid()?,
            ctime: WallTime(self.i64()?),
            mtime: WallTime(self.i64()?),
            version: self.i32()?,
            cversion: self.i32()?,
            aversion: self.i32()?,
            ephemeral_owner: self.i64()?,
            pzxid: self.zxid()?,
        })
    }
}

/// UTF-8 as Java writes and reads it: surrogate pairs may come as two 3-byte sequences; what is malformed becomes
/// U+FFFD.
fn from_java_utf8(bytes: &[u8]) -> String {
    let surrogate = |b: &[u8]| -> Option<u32> {
        match b {
            [0xed, mid @ 0xa0..=0xbf, low @ 0x80..=0xbf, ..] => {
                Some(0xd000 | ((*mid as u32) & 0x3f) << 6 | ((*low as u32) & 0x3f))
            }
            _ => None,
        }
    };
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = surrogate(&bytes[at..]).zip(bytes.get(at + 3..).and_then(surrogate));
        match pair {
            Some((high @ 0xd800..=0xdbff, low @ 0xdc00..=0xdfff)) => {
                let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                let joined = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                plain.extend_from_slice(joined.encode_utf8(&mut [0; 4]).as_bytes());
                at += 6;
            }
            _ => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Appends fields to the caller's buffer.
pub trait Write {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn put_bool(&mut self, value: bool) {
        self.put_u8(value as u8);
    }

    fn put_i32(&mut self, value: i32) {
        self.put(&value.to_be_bytes());
    }

    fn put_i64(&mut self, value: i64) {
        self.put(&value.to_be_bytes());
    }

    fn put_zxid(&mut self, zxid: Zxid) {
        self.put_i64(zxid.as_i64());
    }

    fn put_buffer(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            None => self.put_i32(-1),
            Some(bytes) => {
                self.put_i32(bytes.len() as i32);
                self.put(bytes);
            }
        }
    }

    fn put_string(&mut self, text: &str) {
        self.put_buffer(Some(text.as_bytes()));
    }

    fn put_acls(&mut self, list: &[Acl]) {
        self.put_i32(list.len() as i32);
        for acl in list {
            self.put_i32(acl.perms);
            self.put_string(&acl.id.scheme);
            self.put_string(&acl.id.id);
        }
    }

    fn put_stat(&mut self, stat: &Stat) {
        self.put_zxid(stat.czxid);
        self.put_zxid(stat.mzxid);
        self.put_i64(stat.ctime.0);
        self.put_i64(stat.mtime.0);
        self.put_i32(stat.version);
        self.put_i32(stat.cversion);
        self.put_i32(stat.aversion);
        self.put_i64(stat.ephemeral_owner);
        self.put_i32(stat.data_length);
        self.put_i32(stat.num_children);
        self.put_zxid(stat.pzxid);
    }

    fn put_stat_persisted(&mut self, stat: &StatPersisted) {
        self.put_zxid(stat.czxid);
        self.put_zxid(stat.mzxid);
        self.put_i64(stat.ctime.0);
        self.put_i64(stat.mtime.0);
        self.put_i32(stat.version);
        self.put_i32(stat.cversion);
        self.put_i32(stat.aversion);
        self.put_i64(stat.ephemeral_owner);
        self.put_zxid(stat.pzxid);
    }
}

impl Write for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_empty_are_kept_apart() {
        let mut out = Vec::new();
        out.put_buffer(None);
        out.put_buffer(Some(b""));
        let mut reader = Reader::new(&out);
        assert_eq!(reader.buffer(), Ok(None));
        assert_eq!(reader.buffer(), Ok(Some(&b""[..])));
    }

    #[test]
    fn lengths_are_checked_before_they_are_believed() {
        let check = |bytes: &[u8], expected| assert_eq!(Reader::new(bytes).buffer(), Err(expected));
        check(&[0, 0, 0], JuteError::Short);
        check(&(-2_i32).to_be_bytes(), JuteError::Unreasonable(-2));
        check(&i32::MAX.to_be_bytes(), JuteError::Unreasonable(i32::MAX));
        check(&[0, 0, 0, 4, 1], JuteError::Short);
        let huge = i32::MAX.to_be_bytes();
        assert_eq!(Reader::new(&huge).vector(|r| r.i32()), Err(JuteError::Short));
    }

    #[test]
    fn negative_counts_read_as_empty_and_minus_one_as_null() {
        assert_eq!(Reader::new(&(-1_i32).to_be_bytes()).vector(|r| r.i32()), Ok(None));
        assert_eq!(Reader::new(&(-5_i32).to_be_bytes()).vector(|r| r.i32()), Ok(Some(vec![])));
    }

    #[test]
    fn strings_come_in_as_java_or_plain_utf8() {
        let check = |bytes: &[u8], expected: &str| {
            let mut out = Vec::new();
            out.put_buffer(Some(bytes));
            assert_eq!(Reader::new(&out).text().unwrap(), expected);
        };
        check("/ü€".as_bytes(), "/ü€");
        check(b"/\xff\xfe", "/\u{fffd}\u{fffd}");
        check(b"\xed\xa0\xbd\xed\xb8\x80", "😀");
        check("😀".as_bytes(), "😀");
    }
}
