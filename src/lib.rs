//! Oxkeeper: Apache ZooKeeper, built again for bare metal. One process, a core for each job, no pauses.
//!
//! ```text
//!    clients, peers, disk, clock
//!                │
//!               io/    sockets, io_uring, files, cores            thin: carries, never decides
//!                │
//!        Input ▼   ▲ Output
//!            server/   shard/   zab/   storage/                   machines: step(now, input, out)
//!                      tree/                                      state: prepare, apply, versions
//!                      wire/                                      bytes ⇄ values
//!                      types/                                     words
//! ```
//!
//! Everything that *decides* is deterministic: no clock, no dice, no disk inside a machine. Everything that touches
//! the world is in `io/`, the only place with sockets, files and threads.
//!
//! # Cores
//!
//! A *shard core* owns the connections dealt to it, the sessions behind them and every watch they set; nothing on it is
//! locked, because nothing on it is shared. The *zab core* owns the one order: it prepares, logs, decides and publishes,
//! and is the only writer of the tree. Cores talk in batches over bounded queues and wake each other only when the
//! other side sleeps. On up to three CPUs one thread is both (`io/cores.rs`).
//!
//! # The life of a write
//!
//! 1. `shard/machine.rs` takes the frame off the socket's buffer, notes it in the connection's line of waiting requests,
//!    and adds it to this turn's batch.
//! 2. `server/leading.rs` decodes it and checks it at the *head*, the newest version (`tree/prepare.rs`), which gives a
//!    txn; the txn is applied at once (`tree/apply.rs`), which gives the next head; its bytes go to the log
//!    (`storage/log.rs`) and its reply and changes into a block (`tree/publication.rs`). On a learner it goes to the leader
//!    first (`server/learning.rs`), and comes back as that txn.
//! 3. One durable write carries everything that arrived while the last one was under way (`io/ring/log.rs`).
//! 4. The flush is this server's own ack; with a quorum of acks (`zab/acks.rs`; an ensemble of one is a quorum of
//!    itself) the block is committed and published.
//! 5. Each shard walks the block (`shard/follow.rs`): for each txn it fires watches, then sends the reply if the request
//!    was one of its own, then serves, at exactly that version, the reads of that session that waited behind the write.
//!
//! # Without a leader
//!
//! Shards freeze (`shard/freeze.rs`): clients hear answers to pings and nothing else. What they had asked for waits
//! (`server/pending.rs`). Once a leader is established, each request either has its txn in the history that all have by
//! then, and is answered with it, or is handed to the new leader, in order; where that cannot be told, its connection closes.
//!
//! # The life of a read
//!
//! A read with nothing before it is answered in the turn that received it, from the version that the shard has adopted
//! (`shard/read.rs`, `tree/store/`), without a lock and without a message to another core. Registering a watch and reading
//! belong to the same version, because a shard does one thing at a time.
//!
//! # What holds
//!
//! - `committed ≤ head`; the head is the end of the log; what is published is committed.
//! - An ack leaves only after `Flushed`. A durable write that fails is never tried again: the process stops. It also stops
//!   when one does not end (`limits::FLUSH_LIMIT`), or when a shard does not move (`limits::SHARD_STALL_LIMIT`).
//! - Zxids of one epoch have no gaps: what is refused is an error txn in its place.
//! - A version, once published, never changes; a shard's version only rises; no client is told of a newer version than the
//!   one that its next read is served from.
//! - Nobody is shown what may still be undone: a member publishes what its leader has committed, and writes snapshots of that.
//! - Every queue, buffer and table has a bound in `types/limits.rs`; reaching one has a defined, visible effect.
//!
//! # Where this differs from the first design
//!
//! - A log file is made ahead under a temporary name and named when its first entry is written, in parallel with
//!   that write; its first flush waits for both. A name chosen ahead would leave, after a crash, a header-only `log.X`
//!   that makes Java skip entries of the file before it.
//! - Damage within the bytes that may be in flight is cut only if it looks like a torn write (a hole of zeros, a record
//!   that the file's end cuts off): a flipped bit in a small log is refused like any other rot.
//!
//! # Reading order
//!
//! The modules below stand in it. Each `mod.rs` says what its part is, what it never does, which core owns it, and
//! where to start. The table of who may use whom is `tests/tidy.rs`.

pub mod types;

pub mod config;

pub mod wire;

pub mod tree;

pub mod storage;

pub mod zab;

pub mod shard;

pub mod server;

pub mod ops;

pub mod sim;

pub mod io;

pub mod load;

pub mod dev;

pub mod cli;
