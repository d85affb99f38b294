//! What several integration tests share: servers as processes, and the wire as bytes.
//! Never: an expectation. Owner: each test file compiles its own copy. Start at `server.rs`.

// Each test file uses its own part of this.
#![allow(dead_code)]

pub mod client;
pub mod ensemble;
pub mod link;
pub mod random;
pub mod server;
pub mod writers;
