//! Agreement: which proposals are decided, and by whom.
//! Never: sockets, files, clocks, or the meaning of a txn.
//! Owner: the zab core.
//! Start at `leader.rs`; `quorum.rs` says what "enough servers" means.

pub mod leader;
pub mod leases;
pub mod quorum;
