//! What lies on disk, and in which order it gets there: logs, snapshots, epochs, in ZooKeeper's own formats.
//! Never: sockets, the meaning of a txn, or an acknowledgement before its bytes are durable.
//! Owner: `log` the zab core; snapshots and purging a helper thread; recovery whoever starts the server.
//! Start at `log_file.rs`, then `log.rs` and `recovery.rs`.

pub mod compression;
pub mod epochs;
pub mod files;
pub mod log;
pub mod log_file;
pub mod log_range;
mod read_ahead;
pub mod recovery;
pub mod snapshot;
pub mod snapshot_file;
pub mod snapshot_stream;
mod window;
