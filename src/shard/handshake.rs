//! From ConnectRequest to session (`ZooKeeperServer.processConnectRequest`).

use super::connection::{Connection, Phase};
use super::machine::{Desk, Next};
use super::messages::Ask;
use crate::types::ids::SessionId;
use crate::types::mutant::{self, Mutant};
use crate::types::time::Time;
use crate::wire::client::{self, ConnectRequest};

impl Desk {
    /// The order of checks decides what a client sees: one that has seen more than this server has is turned away
    /// before anything happens to its session.
    pub(super) fn on_connect_request(&mut self, now: Time, c: &mut Connection, payload: &[u8]) -> Next {
        let Ok(request) = ConnectRequest::decode(payload) else { return Next::Close };
        let settings = &self.settings;
        let timeout_ms = request.timeout_ms.clamp(settings.session_timeout_min_ms, settings.session_timeout_max_ms);
        if self.freeze.is_frozen() {
            return self.hold_handshake(now, c, timeout_ms);
        }
        let seen = client::last_zxid_seen(&request);
        if seen > self.published() {
            tracing::info!(peer = %c.peer, %seen, "client has seen a newer zxid than this server has; it has to try another");
            return Next::Close;
        }
        if seen > self.version() && !mutant::is_active(Mutant::LastZxidSeenIgnored) {
            return Next::Hold;
        }
        c.stats.packets_received += 1;
        self.stats.packets_received += 1;
        if request.session == SessionId::NONE {
            self.ask(Ask::OpenSession { connection: c.id, timeout_ms });
        } else if request.password != Some(&request.session.password()) {
            tracing::info!(peer = %c.peer, session = %request.session, "wrong session password");
            client::put_connect_refusal(&mut c.out, request.read_only);
            return Next::CloseWhenSent;
        } else {
            self.ask(Ask::RenewSession { connection: c.id, session: request.session, timeout_ms });
        }
        c.phase = Phase::Connecting { read_only: request.read_only };
        Next::Done
    }

    /// A new session is committed, or an old one is this connection's now.
    pub(super) fn establish(&mut self, c: &mut Connection, session: SessionId, timeout_ms: i32) {
        let Phase::Connecting { read_only } = c.phase else { return };
        client::put_connect_response(&mut c.out, session, timeout_ms, read_only);
        c.stats.packets_sent += 1;
        self.stats.packets_sent += 1;
        c.phase = Phase::Established { session, timeout_ms };
        self.sessions.insert(session, c.id);
        self.is_moving = true;
        self.mark_dirty(c);
    }

    pub(super) fn on_renewed(
        &mut self,
        c: &mut Connection,
        session: SessionId,
        timeout_ms: i32,
        is_alive: bool,
    ) -> Next {
        if is_alive {
            self.establish(c, session, timeout_ms);
            return Next::Done;
        }
        if let Phase::Connecting { read_only } = c.phase {
            client::put_connect_refusal(&mut c.out, read_only);
        }
        Next::CloseWhenSent
    }
}
