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

/// What writes are made of is put together in an arena, which is kept for the next write up to this size, bytes.
pub const KEPT_ARENA_BYTES: usize = 64 << 10;

/// Bytes of the log that may be on their way to the disk; also the distance from the end of a log within which
/// damage is a torn tail and beyond which it is rot.
pub const LOG_IN_FLIGHT_BYTES_MAX: usize = 8 << 20;

/// Decided txns that stay in memory for learners that are behind (`zookeeper.commitLogCount`).
pub const HISTORY_TXNS: usize = 500;

/// Bytes of decided txns that stay in memory even if they are more than that: at 100,000 small txns a second, 500 are
/// five milliseconds, and a learner that is a flush behind is not to be served from files.
pub const HISTORY_BYTES: usize = 16 << 20;

/// Bytes of decided txns beyond which even fewer stay: large txns shorten the stretch rather than cost memory.
pub const HISTORY_BYTES_MAX: usize = 64 << 20;

/// Txns in memory lie together in pieces of so many bytes.
pub const HISTORY_CHUNK_BYTES: usize = 256 << 10;

/// Bytes of txns that are read from the log's files at once for a learner that is behind them: a piece of work that
/// nobody notices, and more than a socket takes.
pub const LOG_READ_BYTES: usize = 1 << 20;

/// Bytes of a snapshot that are made at once for a learner.
pub const SNAPSHOT_PIECE_BYTES: usize = 256 << 10;

/// Bytes of clients' requests that a member keeps until they are decided, to hand them to the next leader. Beyond it no
/// batch is taken, and the shards stop reading.
pub const PENDING_BYTES_MAX: usize = 64 << 20;

/// Batches that are kept while there is no leader. Frozen shards read no requests, so they are those that were on their
/// way; beyond it their queues fill.
pub const HELD_BATCHES_MAX: usize = 256;

/// Wishes of the agreement machine that may wait for room in the log, and the bytes of requests among them. Beyond it
/// nothing is read from peers.
pub const ZAB_WAITING_MAX: usize = 4096;
pub const ZAB_WAITING_BYTES_MAX: usize = 16 << 20;

/// A durable write that takes longer, while this process runs, stops it: whoever waits for the write has long gone
/// elsewhere.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(60);

/// Connections with other servers, of both ports, attempts included: two for each member, and as many for those who come
/// without being asked. One more is closed.
pub const PEER_SOCKETS_MAX: usize = 1024;

/// Bytes on their way to one server that does not take them. Beyond it the connection is closed, and that server comes back
/// for what it missed; whoever fills a link on purpose (a snapshot, a log) stays far below.
pub const PEER_UNSENT_BYTES_MAX: usize = 64 << 20;

/// Host names of servers that are looked up at the same time, each in a thread of its own.
pub const LOOK_UPS_MAX: usize = 64;

/// Addresses of one host name that are tried.
pub const ADDRESSES_PER_NAME_MAX: usize = 8;

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

/// Payload of a frame on the election port, bytes (`QuorumCnxManager.PACKETMAXSIZE`). Longer: the connection closes.
pub const ELECTION_FRAME_BYTES_MAX: usize = 512 << 10;

/// Text of the addresses in an initial message, bytes (`QuorumCnxManager.maxBuffer`).
pub const ELECTION_ADDRESS_BYTES_MAX: usize = 2048;

/// All tags and values that one of our servers tells another, bytes. Longer: no extensions with that peer.
pub const EXTENSION_BYTES_MAX: usize = 4096;

/// Connections to the election port that have not said yet who they are. One more closes the oldest of them.
pub const ELECTION_GREETINGS_MAX: usize = 64;

/// Bytes of notifications on one election link that may wait in the kernel or the driver. Beyond it only the newest
/// notification is kept: an older vote is of no use.
pub const ELECTION_UNSENT_BYTES: usize = 16 << 10;

/// Learners of one leader. One more is turned away.
pub const LEARNER_LINKS_MAX: usize = 1024;

/// A connection to the quorum port that does not say in this time who it is, is closed.
pub const FIRST_PACKET_LIMIT: Duration = Duration::from_secs(2);

/// Connections to the quorum port that may wait for us to become the leader, each for so long and with so many bytes.
pub const EARLY_LEARNERS_MAX: usize = 64;
pub const EARLY_LEARNER_LIMIT: Duration = Duration::from_secs(1);
pub const EARLY_LEARNER_BYTES_MAX: usize = 8 << 10;

/// Who takes a follower for the leader waits only so long: perhaps it was told sooner than we that we lead next.
pub const WRONG_LEARNER_LIMIT: Duration = Duration::from_millis(50);

/// Bytes that may be on their way to one learner: beyond it nothing is taken out of the history for it.
pub const LINK_UNSENT_BYTES: usize = 2 << 20;

/// Bytes of answers that a learner asked for and does not take, on top of these. Beyond it the link closes.
pub const LINK_UNSENT_BYTES_MAX: usize = 16 << 20;

/// Bytes of proposals in one packet between our own servers.
pub const PROPOSALS_BYTES_MAX: usize = 256 << 10;

/// Syncs of one link that wait for a commit: a server lets so many requests wait in all. Beyond it the link closes.
pub const LINK_SYNCS_MAX: usize = 64 << 10;

/// Sessions in one answer to a ping, so that its packet stays below the smallest limit that a leader may have.
pub const TOUCHES_PER_PING_MAX: usize = 40_000;

/// Bytes that came from a leader while a tree is installed, and were read before its socket was held.
pub const HELD_BYTES_MAX: usize = 64 << 20;

/// The counter of an epoch at which its leader looks for a quiet moment to begin the next one, and at which it does not
/// wait for one any more. What has been proposed in that turn has room behind it.
pub const COUNTER_WORN: u32 = 0xfff0_0000;
pub const COUNTER_SPENT: u32 = 0xffff_0000;

const _: () = assert!(COUNTER_WORN < COUNTER_SPENT);
const _: () = assert!(LINK_UNSENT_BYTES < LINK_UNSENT_BYTES_MAX);
const _: () = assert!(STOP_ON_FULL_DISK_LIMIT.as_secs() < FLUSH_LIMIT.as_secs());
const _: () = assert!(FLUSH_LIMIT.as_secs() < STOP_LIMIT.as_secs());
const _: () = assert!(UNSENT_BYTES_PAUSE < UNSENT_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX <= LOG_IN_FLIGHT_BYTES_MAX);
