//! What one core serves to clients: connections, their sessions, their reads and their watches.
//! Never: changes the tree, orders anything, touches a socket.
//! Owner: one shard core each; nothing in it is shared.
//! Start at `machine.rs`, then `connection.rs`; a write's way back is in `follow.rs`.

pub mod auth;
pub mod connection;
pub mod follow;
pub mod freeze;
pub mod handshake;
pub mod machine;
pub mod messages;
pub mod read;
pub mod report;
pub mod stats;
pub mod status;
pub mod throttle;
pub mod watch;
