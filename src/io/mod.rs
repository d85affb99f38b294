//! The only code that touches the kernel: sockets, the log's writes, files, clocks, cores and what they tell each other.
//! Never: a decision of the protocol. It carries inputs to the machines and outputs from them.
//! Owner: one `Ring` per core thread; `disk` has a helper thread of its own.
//! Start at `ring/mod.rs`, then `mesh.rs`; `member.rs` and `peer/` are what members of an ensemble have besides; everything `unsafe` is
//! in `kernel/`.

pub mod admission;
pub mod bind;
pub mod clock;
pub mod cores;
pub mod disk;
pub mod epoch_writer;
pub mod executor;
mod kernel;
pub mod log_driver;
pub mod mail;
pub mod member;
pub mod mesh;
pub mod peer;
pub mod placement;
pub mod process;
pub mod recovered;
pub mod ring;
pub mod ring_refused;
pub mod run;
pub mod settings;
pub mod shard_driver;
pub mod snapshot_writer;
pub mod transfers;
pub mod zab_driver;
