//! The machines of one server, wired: how a request becomes a txn, is made durable, is decided and is published.
//! Never: IO or clocks, which arrive as inputs; text for people, which is `ops/`.
//! Owner: the zab core; the shards' machines stand in `shard/`, and what cores count is merged from plain values.
//! Start at `pipeline.rs`, then `leading.rs`, `learning.rs` and `install.rs`.

#[cfg(test)]
mod bench;
pub mod errands;
pub mod install;
pub mod leading;
pub mod learning;
pub mod pauses;
pub mod pending;
pub mod pipeline;
pub mod publishing;
pub mod reaper;
pub mod recovery;
pub mod reigns;
pub mod reply;
pub mod report;
pub mod snapshots;
pub mod stalls;
pub mod stats;
pub mod status;
pub mod trace;
