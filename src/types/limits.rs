//! Every bound of the server, with unit and reason. Reaching one has a defined, visible effect.

use std::time::Duration;

/// `jute.maxbuffer`: largest accepted frame payload, bytes. Longer: the connection closes.
pub const FRAME_BYTES_MAX: usize = 0xf_ffff;

/// Bytes that a frame of a txn may add to the client's own (`jute.maxbuffer.extrasize`), so that what a client
/// may send can always be read back.
pub const EXTRA_BYTES_MAX: usize = FRAME_BYTES_MAX;

/// Smallest frame: a `RequestHeader`.
pub const REQUEST_HEADER_BYTES: usize = 8;

/// Bytes waiting for a client that does not read. Beyond it the shard stops reading requests from that connection;
/// a client that then takes nothing for one session timeout is disconnected.
pub const UNSENT_BYTES_PAUSE: usize = 4 << 20;

/// Bytes waiting for one client beyond which it is disconnected at once: events keep coming although requests are no
/// longer read, and reads that stand before a write are answered before it is. A multiRead of more is an error.
pub const UNSENT_BYTES_MAX: usize = 64 << 20;

/// Requests of one connection that may wait for their turn (`globalOutstandingLimit` bounds all of them together).
pub const PENDING_PER_CONNECTION_MAX: usize = 4096;

/// Bytes of requests of one connection that may wait for their turn.
pub const PENDING_BYTES_PER_CONNECTION_MAX: usize = 8 << 20;

/// Batches that a shard may have on their way to the zab core. A full queue stops reading sockets.
pub const BATCHES_PER_SHARD_MAX: usize = 64;

/// Bytes of requests in one batch from a shard to the zab core: a batch is sent when it reaches this.
pub const BATCH_BYTES_MAX: usize = 256 << 10;

/// Memory of the ids that auth packets add to one connection, bytes. The packet beyond it fails, as one that no
/// provider accepts: every id is compared in every check, and none is ever taken away.
pub const AUTH_BYTES_PER_CONNECTION_MAX: usize = 64 << 10;

/// Length of all paths watched in one shard, bytes. Beyond it, whoever asks for another is disconnected: clients may
/// watch any number of paths of any length, and ZooKeeper itself would run out of memory.
pub const WATCHED_PATH_BYTES_MAX: usize = 4 << 30;
/// Bytes of paths and replies in one publication: beyond it the next txn starts another.
pub const BLOCK_BYTES_MAX: usize = 1 << 20;

/// Requests whose memory is fetched at once: as many misses as a core can wait for in parallel, and a few more.
pub const WARMED_AT_ONCE: usize = 16;

/// Send buffers that a shard keeps for the next replies: how many, and up to which size, bytes.
pub const KEPT_BUFFERS: usize = 256;
pub const KEPT_BUFFER_BYTES: usize = 64 << 10;

/// Bytes of the log that may be on their way to the disk; also the distance from the end of a log within which
/// damage is a torn tail and beyond which it is rot.
pub const LOG_IN_FLIGHT_BYTES_MAX: usize = 8 << 20;

/// A durable write that takes longer, while this process runs, stops it: whoever waits for the write has long gone
/// elsewhere.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(60);

/// What a full disk has no room for is given up so long after the wish to stop. None of it was acknowledged.
pub const STOP_ON_FULL_DISK_LIMIT: Duration = Duration::from_secs(5);

/// A stop that takes longer, for whatever reason (a snapshot that is being written, a disk that hangs), is cut short:
/// what was acknowledged is durable, and the rest is what recovery is for.
pub const STOP_LIMIT: Duration = Duration::from_secs(90);

/// Txns that recovery, reclaiming or a scan may handle before it lets other work on its core go first.
pub const SLICE_TXNS: usize = 1024;

/// Records of the tree's store that one turn may free: a turn seldom makes half as many, and they cost about a
/// tenth of a millisecond.
pub const RECLAIMED_PER_TURN: usize = 4096;

/// A shard that has not adopted a publication for so long, while this process runs, is a dead thread: the process stops.
pub const SHARD_STALL_LIMIT: Duration = Duration::from_secs(30);

const _: () = assert!(STOP_ON_FULL_DISK_LIMIT.as_secs() < FLUSH_LIMIT.as_secs());
const _: () = assert!(FLUSH_LIMIT.as_secs() < STOP_LIMIT.as_secs());
const _: () = assert!(UNSENT_BYTES_PAUSE < UNSENT_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX <= LOG_IN_FLIGHT_BYTES_MAX);
