//! Session leases: who is alive, decided in one place, the leader's machine (`SessionTrackerImpl`).
//!
//! Deadlines are kept in buckets and moved lazily: a touch writes one number, and a bucket that falls due puts
//! the sessions that were touched meanwhile into later buckets.

use std::collections::BTreeMap;
use std::time::Duration;

use ahash::AHashMap;

use super::transport::SocketId;
use crate::types::error_code::ErrorCode;
use crate::types::ids::{ConnectionId, SessionId, ShardId};
use crate::types::mutant::{self, Mutant};
use crate::types::time::Time;

/// Who speaks for a session: set when it is opened or re-attached. A write that comes another way is refused
/// (`SessionTrackerImpl.checkSession`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Owner {
    /// Nobody yet, behind this leader: whoever writes first.
    #[default]
    Unknown,
    /// A client of this server.
    Here { shard: ShardId, connection: ConnectionId },
    /// A client of the learner behind this link.
    There(SocketId),
}

#[derive(Debug)]
struct Lease {
    owner: Owner,
    timeout: Duration,
    /// Expires when the clock reaches it. Never earlier than the last touch + `timeout`.
    deadline: Time,
    /// The bucket that holds this session: `bucket ≤ deadline`.
    bucket: Time,
    /// A closeSession is on its way; later requests are refused.
    closing: bool,
}

/// How often shards report whom they heard from.
pub fn report_delay(tick: Duration) -> Duration {
    tick / 4
}

/// What a request's session is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionState {
    Live,
    Closing,
    Unknown,
}

/// All sessions that this server decides about.
#[derive(Debug)]
pub struct Leases {
    leases: AHashMap<SessionId, Lease>,
    buckets: BTreeMap<Time, Vec<SessionId>>,
    /// Deadlines are rounded up to multiples of this.
    granularity: Duration,
    /// Shards report touches in batches: a touch may be as old as this when it arrives here.
    report_delay: Duration,
}

impl Leases {
    /// `tick`: ZooKeeper's tickTime. A session expires strictly after its timeout and at most one tick later, of which
    /// half is rounding and a quarter waits for touches that the shards have not reported yet.
    pub fn new(tick: Duration) -> Leases {
        Leases {
            leases: AHashMap::new(),
            buckets: BTreeMap::new(),
            granularity: (tick / 2).max(Duration::from_millis(1)),
            report_delay: report_delay(tick),
        }
    }

    pub fn len(&self) -> usize {
        self.leases.len()
    }

    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    pub fn state(&self, session: SessionId) -> SessionState {
        match self.leases.get(&session) {
            None => SessionState::Unknown,
            Some(lease) if lease.closing => SessionState::Closing,
            Some(_) => SessionState::Live,
        }
    }

    /// A new session, or one of a recovered table: it gets its full timeout.
    pub fn open(&mut self, now: Time, session: SessionId, timeout: Duration) {
        let deadline = self.deadline(now, timeout);
        let lease = Lease { owner: Owner::Unknown, timeout, deadline, bucket: deadline, closing: false };
        self.leases.insert(session, lease);
        self.buckets.entry(deadline).or_default().push(session);
    }

    /// This is where the session's client is now.
    pub fn set_owner(&mut self, session: SessionId, owner: Owner) {
        if let Some(lease) = self.leases.get_mut(&session) {
            lease.owner = owner;
        }
    }

    /// A link is gone: where the clients behind it turn up again is open.
    pub fn forget_link(&mut self, link: SocketId) {
        for lease in self.leases.values_mut().filter(|lease| lease.owner == Owner::There(link)) {
            lease.owner = Owner::Unknown;
        }
    }

    /// A write of this session, which is a touch as well. Errors: the answer to the client.
    pub fn claim(&mut self, now: Time, session: SessionId, owner: Owner) -> Result<(), ErrorCode> {
        let (granularity, report_delay) = (self.granularity, self.report_delay);
        match self.leases.get_mut(&session) {
            Some(lease) if !lease.closing => {
                if lease.owner == Owner::Unknown {
                    lease.owner = owner;
                } else if lease.owner != owner {
                    return Err(ErrorCode::SessionMoved);
                }
                lease.deadline = lease.deadline.max(round_up(now, lease.timeout, granularity, report_delay));
                Ok(())
            }
            _ => Err(ErrorCode::SessionExpired),
        }
    }

    /// Heard from a client. Unknown and closing sessions are left alone. Returns whether the session lives.
    pub fn touch(&mut self, now: Time, session: SessionId) -> bool {
        let (granularity, report_delay) = (self.granularity, self.report_delay);
        match self.leases.get_mut(&session) {
            Some(lease) if !lease.closing && mutant::is_active(Mutant::TouchesIgnored) => true,
            Some(lease) if !lease.closing => {
                lease.deadline = lease.deadline.max(round_up(now, lease.timeout, granularity, report_delay));
                true
            }
            _ => false,
        }
    }

    /// A learner heard from a client, whose connection has this timeout.
    pub fn touch_for(&mut self, now: Time, session: SessionId, timeout: Duration) {
        let deadline = self.deadline(now, timeout);
        if let Some(lease) = self.leases.get_mut(&session).filter(|lease| !lease.closing) {
            lease.timeout = timeout;
            lease.deadline = lease.deadline.max(deadline);
        }
    }

    /// A client re-attached with another timeout, which counts from now on.
    pub fn renew(&mut self, now: Time, session: SessionId, timeout: Duration) -> bool {
        let deadline = self.deadline(now, timeout);
        match self.leases.get_mut(&session) {
            Some(lease) if !lease.closing => {
                lease.timeout = timeout;
                lease.deadline = deadline;
                if deadline < lease.bucket {
                    lease.bucket = deadline;
                    self.buckets.entry(deadline).or_default().push(session);
                }
                true
            }
            _ => false,
        }
    }

    /// Another server decides from here on.
    pub fn clear(&mut self) {
        self.leases.clear();
        self.buckets.clear();
    }

    /// A closeSession is on its way.
    pub fn set_closing(&mut self, session: SessionId) {
        if let Some(lease) = self.leases.get_mut(&session) {
            lease.closing = true;
        }
    }

    /// The closeSession is applied.
    pub fn remove(&mut self, session: SessionId) {
        if mutant::is_active(Mutant::SessionClosedTwice) {
            return self.reopen(session);
        }
        self.leases.remove(&session);
    }

    /// The mutant's way to remove a session.
    fn reopen(&mut self, session: SessionId) {
        if let Some(lease) = self.leases.get_mut(&session) {
            lease.closing = false;
            self.buckets.entry(lease.bucket).or_default().push(session);
        }
    }

    /// When `expire` wants to be called.
    pub fn next_deadline(&self) -> Option<Time> {
        self.buckets.keys().next().copied()
    }

    /// The sessions whose time is up, at most `max` at once; they are closing from now on.
    pub fn expire(&mut self, now: Time, max: usize, expired: &mut Vec<SessionId>) {
        while let Some(mut entry) = self.buckets.first_entry() {
            let bucket = *entry.key();
            if bucket > now || expired.len() >= max {
                return;
            }
            let Some(session) = entry.get_mut().pop() else {
                entry.remove();
                continue;
            };
            match self.leases.get_mut(&session) {
                // Stale entries: the session is gone, or a later entry stands for it.
                None => {}
                Some(lease) if lease.bucket != bucket || lease.closing => {}
                Some(lease) if lease.deadline > now => {
                    lease.bucket = lease.deadline;
                    self.buckets.entry(lease.deadline).or_default().push(session);
                }
                Some(lease) => {
                    lease.closing = true;
                    expired.push(session);
                }
            }
        }
    }

    /// A stall of our own is nobody's silence: every lease is pushed out by it.
    pub fn push_out(&mut self, stall: Duration) {
        if mutant::is_active(Mutant::StallCountsAsSilence) {
            return;
        }
        for lease in self.leases.values_mut() {
            lease.deadline = lease.deadline + stall;
        }
    }

    /// Sessions by deadline, for `dump`.
    pub fn deadlines(&self) -> BTreeMap<Time, Vec<SessionId>> {
        let mut by_deadline: BTreeMap<Time, Vec<SessionId>> = BTreeMap::new();
        for (session, lease) in &self.leases {
            by_deadline.entry(lease.deadline).or_default().push(*session);
        }
        by_deadline.values_mut().for_each(|sessions| sessions.sort_unstable());
        by_deadline
    }

    fn deadline(&self, now: Time, timeout: Duration) -> Time {
        round_up(now, timeout, self.granularity, self.report_delay)
    }
}

/// `now + timeout`, up to the next multiple of the granularity, plus the touches' delay.
fn round_up(now: Time, timeout: Duration, granularity: Duration, report_delay: Duration) -> Time {
    let granularity = granularity.as_nanos() as u64;
    let earliest = (now + timeout).0;
    Time((earliest / granularity + 1).saturating_mul(granularity)) + report_delay
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(2000);
    const TIMEOUT: Duration = Duration::from_millis(4000);

    fn expired_at(leases: &mut Leases, ms: u64) -> Vec<SessionId> {
        let mut out = Vec::new();
        leases.expire(Time::from_ms(ms), 100, &mut out);
        out
    }

    #[test]
    fn a_session_expires_after_its_timeout_and_at_most_a_tick_later() {
        for start in [0, 1, 499, 999, 1000, 1999] {
            let mut leases = Leases::new(TICK);
            leases.open(Time::from_ms(start), SessionId(7), TIMEOUT);
            assert_eq!(expired_at(&mut leases, start + 4000), [], "start {start}");
            assert_eq!(expired_at(&mut leases, start + 6000), [SessionId(7)], "start {start}");
            assert_eq!(leases.state(SessionId(7)), SessionState::Closing);
        }
    }

    #[test]
    fn a_session_is_spoken_for_by_whoever_attached_it_last() {
        let mut leases = Leases::new(TICK);
        let (here, there) = (Owner::Here { shard: ShardId(0), connection: ConnectionId(1) }, Owner::There(SocketId(3)));
        leases.open(Time::from_ms(0), SessionId(7), TIMEOUT);
        assert_eq!(leases.claim(Time::from_ms(1), SessionId(7), there), Ok(()), "the first one adopts it");
        assert_eq!(leases.claim(Time::from_ms(1), SessionId(7), here), Err(ErrorCode::SessionMoved));
        leases.set_owner(SessionId(7), here);
        assert_eq!(leases.claim(Time::from_ms(1), SessionId(7), there), Err(ErrorCode::SessionMoved));
        leases.set_owner(SessionId(7), there);
        leases.forget_link(SocketId(3));
        assert_eq!(leases.claim(Time::from_ms(2), SessionId(7), here), Ok(()));
        assert_eq!(leases.claim(Time::from_ms(2), SessionId(8), here), Err(ErrorCode::SessionExpired));
        leases.set_closing(SessionId(7));
        assert_eq!(leases.claim(Time::from_ms(2), SessionId(7), here), Err(ErrorCode::SessionExpired));
    }

    #[test]
    fn a_touch_moves_the_deadline_out() {
        let mut leases = Leases::new(TICK);
        leases.open(Time::from_ms(0), SessionId(7), TIMEOUT);
        assert!(leases.touch(Time::from_ms(3000), SessionId(7)));
        assert_eq!(expired_at(&mut leases, 7000), []);
        assert_eq!(expired_at(&mut leases, 9000), [SessionId(7)]);
        assert!(!leases.touch(Time::from_ms(9000), SessionId(7)));
    }

    #[test]
    fn a_renewal_with_a_shorter_timeout_counts_from_then_on() {
        let mut leases = Leases::new(TICK);
        leases.open(Time::from_ms(0), SessionId(7), Duration::from_millis(40_000));
        assert!(leases.renew(Time::from_ms(1000), SessionId(7), TIMEOUT));
        assert_eq!(expired_at(&mut leases, 7000), [SessionId(7)]);
        leases.remove(SessionId(7));
        assert_eq!(expired_at(&mut leases, 60_000), []);
        assert!(!leases.renew(Time::from_ms(60_000), SessionId(7), TIMEOUT));
        assert_eq!(leases.next_deadline(), None);
    }
}
