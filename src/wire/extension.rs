//! The block by which two of our servers know each other, in bytes that Java never looks at.
//!
//! ```text
//! ext = [magic:u64][format:u16][length:u32] { [tag:u16][length:u16][value] }*
//! ```
//!
//! It stands behind the configuration text of a notification, and behind the fields of FOLLOWERINFO, LEADERINFO and
//! ACKEPOCH (`QuorumCnxManager` and `LearnerHandler` stop reading before it). Without the magic there is no block, and
//! the peer is Java; what is behind the block's length is ignored. A format is readable for ever once it is released.

use std::collections::BTreeMap;
use std::fmt;

use super::jute::{JuteError, Reader, Write};
use crate::types::limits;

/// `Oxkeeper` in ASCII.
pub const MAGIC: u64 = u64::from_be_bytes(*b"Oxkeeper");

const FORMAT: u16 = 1;

/// What a tag means. Unknown ones are kept, and nobody asks for them.
pub mod tag {
    /// `[boot nonce:u64][build, UTF-8]`: which process this is, and what it was built from.
    pub const IDENTITY: u16 = 0;
    /// One ACK stands for all zxids up to its own on that link.
    pub const CUMULATIVE_ACK: u16 = 1;
    /// PINGs every few tens of milliseconds, both ways.
    pub const FAST_HEARTBEATS: u16 = 2;
    /// Several proposals in one packet.
    pub const BATCHED_PROPOSALS: u16 = 3;
    /// The commit index instead of COMMIT packets.
    pub const COMMIT_INDEX: u16 = 4;
    /// SNAP as compressed frames with a checksum.
    pub const COMPRESSED_SNAPSHOT: u16 = 5;
    /// A refused write of a learner's client gets no txn.
    pub const ERROR_WITHOUT_TXN: u16 = 6;
    /// The leader names its successor before a planned stop.
    pub const LEADERSHIP_TRANSFER: u16 = 7;
}

/// A block that says it is ours and cannot be read. Whoever reads it treats the peer as Java.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExtensionError {
    /// It ends before its own length, or within a value.
    Short,
    /// Of a version that is not known here.
    Format(u16),
    /// More than `EXTENSION_BYTES_MAX`.
    Length(u32),
    /// A tag stands twice.
    Repeated(u16),
}

impl fmt::Display for ExtensionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExtensionError::Short => f.write_str("extension is cut short"),
            ExtensionError::Format(format) => write!(f, "extension of unknown format {format}"),
            ExtensionError::Length(length) => write!(f, "extension of {length} bytes"),
            ExtensionError::Repeated(tag) => write!(f, "extension names tag {tag} twice"),
        }
    }
}

impl std::error::Error for ExtensionError {}

impl From<JuteError> for ExtensionError {
    fn from(_: JuteError) -> ExtensionError {
        ExtensionError::Short
    }
}

/// Tags with their values: what a server can, or what one link will use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Extension {
    tags: BTreeMap<u16, Vec<u8>>,
}

impl Extension {
    pub fn new() -> Extension {
        Extension::default()
    }

    /// Which process speaks: `boot_nonce` differs with every start.
    pub fn with_identity(self, boot_nonce: u64, build: &str) -> Extension {
        let mut value = boot_nonce.to_be_bytes().to_vec();
        value.extend_from_slice(build.as_bytes());
        self.with(tag::IDENTITY, value)
    }

    pub fn with(mut self, tag: u16, value: impl Into<Vec<u8>>) -> Extension {
        self.tags.insert(tag, value.into());
        self
    }

    pub fn has(&self, tag: u16) -> bool {
        self.tags.contains_key(&tag)
    }

    pub fn value(&self, tag: u16) -> Option<&[u8]> {
        self.tags.get(&tag).map(Vec::as_slice)
    }

    pub fn tags(&self) -> impl Iterator<Item = (u16, &[u8])> {
        self.tags.iter().map(|(tag, value)| (*tag, value.as_slice()))
    }

    pub fn boot_nonce(&self) -> Option<u64> {
        let nonce = self.value(tag::IDENTITY)?.first_chunk()?;
        Some(u64::from_be_bytes(*nonce))
    }

    pub fn encode(&self, out: &mut impl Write) {
        let length: usize = self.tags.values().map(|value| 4 + value.len()).sum();
        assert!(length <= limits::EXTENSION_BYTES_MAX, "an extension of {length} bytes");
        out.put(&MAGIC.to_be_bytes());
        out.put(&FORMAT.to_be_bytes());
        out.put_i32(length as i32);
        for (tag, value) in &self.tags {
            out.put(&tag.to_be_bytes());
            out.put(&(value.len() as u16).to_be_bytes());
            out.put(value);
        }
    }

    /// `None`: the bytes do not begin with a block of ours.
    pub fn decode(bytes: &[u8]) -> Result<Option<Extension>, ExtensionError> {
        let Some(block) = bytes.strip_prefix(&MAGIC.to_be_bytes()) else { return Ok(None) };
        let mut reader = Reader::new(block);
        match u16_of(&mut reader)? {
            FORMAT => {}
            format => return Err(ExtensionError::Format(format)),
        }
        let length = reader.i32()? as u32;
        if length as usize > limits::EXTENSION_BYTES_MAX {
            return Err(ExtensionError::Length(length));
        }
        let body = reader.rest().get(..length as usize).ok_or(ExtensionError::Short)?;
        let mut extension = Extension::new();
        let mut reader = Reader::new(body);
        while reader.remaining() > 0 {
            let tag = u16_of(&mut reader)?;
            let length = u16_of(&mut reader)?;
            let (value, rest) = reader.rest().split_at_checked(length.into()).ok_or(ExtensionError::Short)?;
            if extension.tags.insert(tag, value.to_vec()).is_some() {
                return Err(ExtensionError::Repeated(tag));
            }
            reader = Reader::new(rest);
        }
        Ok(Some(extension))
    }
}

fn u16_of(reader: &mut Reader<'_>) -> Result<u16, JuteError> {
    Ok(u16::from_be_bytes([reader.u8()?, reader.u8()?]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(extension: &Extension) -> Vec<u8> {
        let mut out = Vec::new();
        extension.encode(&mut out);
        out
    }

    #[test]
    fn a_block_is_magic_format_length_and_tags_in_order() {
        let extension = Extension::new().with(tag::FAST_HEARTBEATS, [0, 25]).with_identity(0x0102, "ox");
        let expected = [
            b"Oxkeeper".as_slice(),
            &[0, 1, 0, 0, 0, 20],
            &[0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 1, 2, b'o', b'x'],
            &[0, 2, 0, 2, 0, 25],
        ]
        .concat();
        assert_eq!(encoded(&extension), expected);
        assert_eq!(extension.boot_nonce(), Some(0x0102));
        assert_eq!(Extension::decode(&expected), Ok(Some(extension)));
    }

    #[test]
    fn without_the_magic_there_is_no_block_and_behind_it_anything_may_stand() {
        assert_eq!(Extension::decode(b""), Ok(None));
        assert_eq!(Extension::decode(b"Oxkeepe"), Ok(None));
        assert_eq!(Extension::decode(b"oxkeeper\0\x01\0\0\0\0"), Ok(None));
        assert_eq!(Extension::decode(b"Oxkeeper\0\x01\0\0\0\0later"), Ok(Some(Extension::new())));
    }

    #[test]
    fn malformed_blocks_are_errors() {
        let check = |rest: &[u8], expected| {
            assert_eq!(Extension::decode(&[b"Oxkeeper", rest].concat()), Err(expected), "{rest:?}");
        };
        check(&[], ExtensionError::Short);
        check(&[0, 2, 0, 0, 0, 0], ExtensionError::Format(2));
        check(&[0, 1, 0, 0, 0, 1], ExtensionError::Short);
        check(&[0, 1, 0xff, 0xff, 0xff, 0xff], ExtensionError::Length(u32::MAX));
        check(&[0, 1, 0, 0, 0, 4, 0, 1, 0, 1], ExtensionError::Short);
        check(&[0, 1, 0, 0, 0, 8, 0, 1, 0, 0, 0, 1, 0, 0], ExtensionError::Repeated(1));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            tags in prop::collection::btree_map(any::<u16>(), prop::collection::vec(any::<u8>(), 0..60), 0..20),
            behind in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let extension = Extension { tags };
            let mut bytes = encoded(&extension);
            bytes.extend(behind);
            prop_assert_eq!(Extension::decode(&bytes), Ok(Some(extension)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Extension::decode(&[&MAGIC.to_be_bytes(), bytes.as_slice()].concat());
        }
    }
}
