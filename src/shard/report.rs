//! What an operator asks of a shard.

use std::time::Duration;

use super::connection::{Connection, Phase};
use super::machine::Shard;
use super::status::{ConnectionStatus, Needs, ShardStatus, Watches};
use crate::types::ids::{SessionId, ShardId};
use crate::types::time::{Time, WallTime};

/// `SelectionKey.OP_READ` and `OP_WRITE`, as `stat` prints them.
const INTEREST_READ: u8 = 1;
const INTEREST_WRITE: u8 = 4;

impl Shard {
    pub fn status(&self, needs: Needs, now: Time, wall: WallTime) -> ShardStatus {
        let mut connections = Vec::new();
        if needs.connections {
            connections.extend(self.connections.values().map(|c| (c.id, connection_status(c, now, wall))));
            connections.sort_unstable_by_key(|(id, _)| *id);
        }
        ShardStatus {
            stats: self.desk.stats.clone(),
            connections_alive: self.connections.len() as u64,
            outstanding: self.connections.values().map(|c| c.outstanding() as u64).sum(),
            watch_count: self.desk.watches.counts().total(),
            outstanding_tls_handshake: 0,
            connections: connections.into_iter().map(|(_, status)| status).collect(),
            watches: if needs.watches { self.watches() } else { Watches::new() },
        }
    }

    fn watches(&self) -> Watches {
        let mut watches = Watches::new();
        for (connection, paths) in self.desk.watches.data_watches_by_connection() {
            let session = self.connections.get(&connection).and_then(|c| c.session()).unwrap_or(SessionId::NONE);
            watches.entry(session).or_default().extend(paths.into_iter().map(str::to_owned));
        }
        watches
    }

    pub fn id(&self) -> ShardId {
        self.desk.settings.id
    }

    /// `crst`.
    pub fn reset_connection_stats(&mut self) {
        self.connections.values_mut().for_each(|connection| connection.stats.reset());
    }

    /// `srst`.
    pub fn reset_stats(&mut self) {
        self.desk.stats.reset();
    }

    /// A connection was turned away before it came here.
    pub fn count_rejected(&mut self) {
        self.desk.stats.connection_rejected += 1;
    }

    /// Something was published that this shard has not followed.
    pub fn has_news(&self) -> bool {
        self.desk.cursor.has_next()
    }

    /// Answers are still on their way to clients.
    pub fn is_sending(&self) -> bool {
        self.connections.values().any(|c| c.sending_since.is_some() || !c.out.is_empty())
    }
}

fn connection_status(c: &Connection, now: Time, wall: WallTime) -> ConnectionStatus {
    let timeout_ms = match c.phase {
        Phase::Established { timeout_ms, .. } => timeout_ms,
        Phase::New | Phase::Connecting { .. } | Phase::Closing { .. } | Phase::Command => 0,
    };
    let reads = if c.is_paused { 0 } else { INTEREST_READ };
    let writes = if c.sending_since.is_some() { INTEREST_WRITE } else { 0 };
    let idle = now.saturating_since(Time::from_ms(c.stats.last_response_ms));
    let left = Duration::from_millis(timeout_ms.max(0) as u64).saturating_sub(idle);
    ConnectionStatus {
        peer: c.peer,
        secure: false,
        session: c.session().unwrap_or(SessionId::NONE),
        interest: if c.phase == Phase::Command { 0 } else { reads | writes },
        queued: c.outstanding() as u32,
        stats: c.stats,
        established: c.established,
        timeout_ms,
        expires_at: WallTime(wall.0 + left.as_millis() as i64),
    }
}
