//! Whole servers, their disks, networks, clocks and clients in one thread, from one seed.
//! Never: a model of the server; what runs here is the code that ships, behind other drivers than those of `io/`.
//! Owner: a thread per simulation; nothing is shared between two.
//! Start at `ensemble.rs`, which has the loop; then `process.rs`, a server's run, and `checker.rs`, what must hold.
//!
//! ```text
//! seed ─► scenario ─► ensemble: next event ─► a server's turn ─► disk, network ─► later events
//!                         │                       └─► order: what was logged, decided, served       every step
//!                         └─► clients ─► history ─► checker: against a plain model of the tree        at the end
//! ```

pub mod args;
pub mod ensemble;
pub mod run;

mod checker;
mod client;
mod dice;
mod disk;
mod faults;
mod history;
mod log_files;
mod logged;
mod member;
mod model;
mod network;
mod order;
mod process;
mod request;
mod restart;
pub mod scenario;
mod scheduler;
mod server;
mod shard_seat;
mod snapshots;
pub mod trace;
mod watches;
mod workload;
