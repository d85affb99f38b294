//! The replicated state: znodes, sessions, and what a txn does to them.
//! Never: IO, clocks, or a word to a client.
//! Owner: the zab core writes; every shard reads versions that the zab core has published.
//! Start at `apply.rs` (txn → change), then `prepare.rs` (request → txn).

pub mod publication;
