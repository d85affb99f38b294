//! Bytes ⇄ values: jute, the client protocol, transactions.
//! Never: sockets, files, or an opinion about what a request should do.
//! Owner: none; called on whichever core holds the bytes.
//! Start at `jute.rs`, then `client.rs`.

pub mod client;
pub mod client_encode;
pub mod election;
pub mod extension;
pub mod jute;
pub mod peek;
pub mod quorum;
pub mod snapshot_stream;
pub mod txn;
