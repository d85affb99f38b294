//! The words: zxids, ids, paths, ACLs, stats, error codes, times, limits.
//! Never: IO, protocol bytes, or anything that decides.
//! Owner: none; plain values that every core may hold.
//! Start at `zxid.rs`, then `limits.rs`.

pub mod acl;
pub mod compression;
pub mod digest_algorithm;
pub mod error_code;
pub mod ids;
pub mod limits;
pub mod mutant;
pub mod path;
pub mod stat;
pub mod summary;
pub mod time;
pub mod zxid;
