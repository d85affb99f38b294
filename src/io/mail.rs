//! What the cores put into each other's queues.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::ops::four_letter::Word;
use crate::server::status::Command;
use crate::shard::messages::{Batch, NewStore, Tell};
use crate::shard::status::{Needs, ShardStatus};
use crate::types::ids::{ConnectionId, ShardId};

/// From a shard to the zab core.
pub enum ToZab {
    Batch(Batch),
    /// A four-letter word that needs to know about the whole server.
    Word {
        shard: ShardId,
        connection: ConnectionId,
        word: Word,
        argument: i64,
    },
    /// One shard's part of an answer.
    Collected {
        ticket: u64,
        status: Box<ShardStatus>,
    },
}

/// From the zab core to a shard.
pub enum ToShard {
    Tell(Tell),
    Store(NewStore),
    /// A batch that was worked off, for its memory.
    Spent(Batch),
    Collect {
        ticket: u64,
        needs: Needs,
    },
    Respond {
        connection: ConnectionId,
        text: Vec<u8>,
    },
    Command(Command),
    /// Everything is published: send what is left and end.
    Stop,
}

/// From the shard that accepts to the one that serves.
pub struct Newcomer {
    pub socket: OwnedFd,
    pub peer: SocketAddr,
}
