//! The load generator: sessions that keep a server busy, and the numbers that come of it.
//! Never: the server's own code; it speaks the client port only, so any ZooKeeper can be driven.
//! Owner: its own threads, a worker each with an epoll loop; the starting thread gathers and reports.
//! Start at `args.rs`, then `session.rs` and `worker.rs`.

pub mod args;

mod admin;
mod coordinator;
mod error;
mod failover;
mod fan_out;
mod keys;
mod paths;
mod plan;
mod recorder;
mod report;
mod requests;
mod schedule;
mod session;
mod stage;
mod stats;
mod timer;
mod worker;
mod workload;

pub use coordinator::run;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
