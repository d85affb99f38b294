//! A look at the path of a request before its turn, so that memory can be fetched for many requests at once.

use super::client::OpCode;
use super::txn::HEADER_BYTES;

/// The text at the start of a record whose first field is a path. Nothing is checked that decoding will not check
/// again: a wrong answer costs a useless fetch.
pub fn first_path(record: &[u8]) -> Option<&str> {
    let (length, rest) = record.split_first_chunk::<4>()?;
    let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
    std::str::from_utf8(rest.get(..length)?).ok()
}

/// The path of a txn that stands behind its header, if its first field is one.
pub fn txn_path(payload: &[u8]) -> Option<&str> {
    first_path(payload.get(HEADER_BYTES..)?)
}

/// The path of a read's frame payload, if its first field is one.
pub fn read_path(payload: &[u8]) -> Option<&str> {
    let op = i32::from_be_bytes(*payload.get(4..)?.first_chunk::<4>()?);
    match OpCode::from_i32(op)? {
        OpCode::GetData | OpCode::Exists | OpCode::GetChildren | OpCode::GetChildren2 | OpCode::GetAcl => {
            first_path(&payload[8..])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_read_is_seen_and_nothing_else_is() {
        let get = [0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 2, b'/', b'a', 0];
        assert_eq!(read_path(&get), Some("/a"));
        assert_eq!(read_path(&get[..13]), None);
        assert_eq!(read_path(&[0, 0, 0, 1, 0, 0, 0, 11]), None);
        assert_eq!(first_path(&[255; 8]), None);
    }
}
