//! What is let in: ConnectRequests by a token bucket (`BlueThrottle`), large requests by a budget
//! (`largeRequestThreshold`), and requests of all kinds by their number (`RequestThrottler`).

use std::time::Duration;

use super::connection::{Connection, Phase, Waiting};
use super::machine::{Desk, Next};
use crate::types::error_code::ErrorCode;
use crate::types::time::Time;
use crate::wire::client::{self, OpCode};

/// `zookeeper.connection_throttle_*`. The defaults let everything pass.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ThrottleSettings {
    /// `tokens`: how many are saved up at most; 0 is no limit.
    pub tokens: u32,
    pub fill_time_ms: u32,
    /// Tokens that come in for each `fill_time_ms`.
    pub fill_count: u32,
    /// `freeze_time`: how often the drop probability moves, at most. `None` (-1): nothing is dropped by chance.
    pub freeze_time_ms: Option<u32>,
    pub drop_increase: f64,
    pub drop_decrease: f64,
    /// `decrease_ratio`: the part of the tokens that may be missing while the drop probability goes down.
    pub decrease_ratio: f64,
    /// `weight_enabled`: sessions cost what `weights` says, and tokens and fill count are multiplied by the dearest.
    pub weights: Option<Weights>,
}

impl Default for ThrottleSettings {
    fn default() -> ThrottleSettings {
        ThrottleSettings {
            tokens: 0,
            fill_time_ms: 1,
            fill_count: 1,
            freeze_time_ms: None,
            drop_increase: 0.02,
            drop_decrease: 0.002,
            decrease_ratio: 0.0,
            weights: None,
        }
    }
}

/// What each kind of ConnectRequest costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weights {
    pub global_session: u32,
    pub local_session: u32,
    pub renew_session: u32,
}

impl Default for Weights {
    fn default() -> Weights {
        Weights { global_session: 3, local_session: 1, renew_session: 2 }
    }
}

/// What a ConnectRequest asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    GlobalSession,
    LocalSession,
    RenewSession,
}

/// A bucket of tokens that every ConnectRequest takes from, with a drop probability that rises while it is empty.
#[derive(Clone, Debug)]
pub struct ConnectionThrottle {
    settings: ThrottleSettings,
    /// `0 ≤ tokens ≤ tokens_max`
    tokens: u64,
    tokens_max: u64,
    fill_count: u64,
    filled: Time,
    moved: Time,
    drop_probability: f64,
}

impl ConnectionThrottle {
    /// A full bucket.
    pub fn new(settings: ThrottleSettings, now: Time) -> ConnectionThrottle {
        let factor = settings.weights.map_or(1, |weights| weights.global_session) as u64;
        let tokens_max = settings.tokens as u64 * factor;
        ConnectionThrottle {
            settings,
            tokens: tokens_max,
            tokens_max,
            fill_count: settings.fill_count as u64 * factor,
            filled: now,
            moved: now,
            drop_probability: 0.0,
        }
    }

    /// `connection_drop_probability`.
    pub fn drop_probability(&self) -> f64 {
        self.drop_probability
    }

    /// `connection_token_deficit`: tokens that are missing from the bucket.
    pub fn deficit(&self) -> u64 {
        self.tokens_max - self.tokens
    }

    /// Whether a ConnectRequest may pass; if not, its connection closes without a reply. `dice` is asked for a number
    /// from 0 up to but not including 1, and only where chance decides.
    pub fn admit(&mut self, now: Time, admission: Admission, dice: impl FnOnce() -> f64) -> bool {
        if self.tokens_max == 0 {
            return true;
        }
        self.refill(now);
        self.move_probability(now);
        if self.drop_probability > 0.0 && dice() < self.drop_probability {
            return false;
        }
        let cost = self.cost(admission);
        match self.tokens.checked_sub(cost) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }

    fn cost(&self, admission: Admission) -> u64 {
        let cost = self.settings.weights.map_or(1, |weights| match admission {
            Admission::GlobalSession => weights.global_session,
            Admission::LocalSession => weights.local_session,
            Admission::RenewSession => weights.renew_session,
        });
        cost as u64
    }

    /// Nothing comes in before more than one fill time has passed; parts of a fill time count in proportion.
    fn refill(&mut self, now: Time) {
        let passed_ms = millis(now, self.filled);
        if passed_ms <= self.settings.fill_time_ms as u64 {
            return;
        }
        let refill = passed_ms.saturating_mul(self.fill_count) / (self.settings.fill_time_ms.max(1) as u64);
        self.tokens = self.tokens.saturating_add(refill).min(self.tokens_max);
        self.filled = now;
    }

    fn move_probability(&mut self, now: Time) {
        let Some(freeze_ms) = self.settings.freeze_time_ms else { return };
        if millis(now, self.moved) <= freeze_ms as u64 {
            return;
        }
        if self.tokens == 0 {
            self.drop_probability = (self.drop_probability + self.settings.drop_increase).min(1.0);
        } else if self.deficit() <= (self.tokens_max as f64 * self.settings.decrease_ratio).round() as u64 {
            self.drop_probability = (self.drop_probability - self.settings.drop_decrease).max(0.0);
        }
        self.moved = now;
    }
}

fn millis(now: Time, since: Time) -> u64 {
    Time(now.0.saturating_sub(since.0)).as_ms()
}

/// The bytes of large requests in process. Its threshold keeps small requests free of any counting.
#[derive(Clone, Debug)]
pub struct LargeRequests {
    /// `largeRequestThreshold`: longer frames count. `None` (-1): none does.
    threshold: Option<usize>,
    /// `largeRequestMaxBytes`
    bytes_max: usize,
    /// `bytes ≤ bytes_max`
    bytes: usize,
}

impl LargeRequests {
    pub fn new(threshold: Option<usize>, bytes_max: usize) -> LargeRequests {
        LargeRequests { threshold, bytes_max, bytes: 0 }
    }

    /// Whether a frame that announces itself with `len` bytes could be taken in now.
    pub fn has_room_for(&self, len: usize) -> bool {
        !self.is_large(len) || self.bytes.checked_add(len).is_some_and(|bytes| bytes <= self.bytes_max)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn is_large(&self, len: usize) -> bool {
        self.threshold.is_some_and(|threshold| len > threshold)
    }

    /// Whether a frame of `len` bytes may be taken in; if not, its connection closes without a reply.
    #[must_use]
    pub fn begin(&mut self, len: usize) -> bool {
        let has_room = self.has_room_for(len);
        if has_room && self.is_large(len) {
            self.bytes += len;
        }
        has_room
    }

    /// The frame of `len` bytes that `begin` let in is answered or gone.
    pub fn end(&mut self, len: usize) {
        if self.is_large(len) {
            debug_assert!(self.bytes >= len);
            self.bytes = self.bytes.saturating_sub(len);
        }
    }
}

/// `request_throttle_*` and `throttled_op_wait_time`. While as many requests as may be are in process, others stay with
/// their connections, whose sockets are not read, and wait in the order in which they came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestThrottle {
    /// This shard's part of `request_throttle_max_requests`.
    pub requests_max: usize,
    /// `throttled_op_wait_time`: who waited longer is answered and not served. `None` (0): everybody is served.
    pub op_wait: Option<Duration>,
    /// `request_throttle_drop_stale` with `request_stale_latency_check`.
    pub drops_stale: bool,
}

/// What becomes of a request that had to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waited {
    InTime,
    /// `ThrottledOp`, in its place in the order.
    TooLong,
    /// Longer than its session may be silent: the connection closes.
    Stale,
}

impl RequestThrottle {
    /// A closeSession always does its work, and a ping is never refused.
    pub fn judge(&self, op: OpCode, waited: Duration, session_timeout: Duration) -> Waited {
        if op == OpCode::CloseSession {
            return Waited::InTime;
        }
        if self.drops_stale && waited > session_timeout {
            return Waited::Stale;
        }
        match self.op_wait {
            Some(limit) if waited > limit && op != OpCode::Ping => Waited::TooLong,
            Some(_) | None => Waited::InTime,
        }
    }
}

impl Desk {
    /// Whether the request throttle keeps this connection's requests: as many as may be are in process, or others have
    /// been waiting for longer.
    pub(super) fn throttles(&mut self, now: Time, c: &mut Connection) -> bool {
        let Some(throttle) = &self.settings.request_throttle else { return false };
        if !matches!(c.phase, Phase::Established { .. }) {
            return false;
        }
        let is_behind_others = !self.is_looking_at_held && !self.held.is_empty();
        self.is_moving |= is_behind_others;
        let is_kept = is_behind_others || self.outstanding + self.waiting_reads >= throttle.requests_max;
        if is_kept && c.throttled_since.is_none() {
            c.throttled_since = Some(now);
            self.stats.request_throttle_wait_count += 1;
        }
        is_kept
    }

    /// What is left for a request that the throttle has kept for so long, if anything but to serve it.
    pub(super) fn judge_throttled(&mut self, now: Time, c: &mut Connection, op: OpCode, xid: i32) -> Option<Next> {
        let (since, throttle) = (c.throttled_since?, self.settings.request_throttle?);
        let Phase::Established { timeout_ms, .. } = c.phase else { return None };
        let timeout = Duration::from_millis(timeout_ms.max(0) as u64);
        match throttle.judge(op, now.saturating_since(since), timeout) {
            Waited::InTime => None,
            Waited::Stale => {
                self.stats.stale_requests += 1;
                self.stats.stale_requests_dropped += 1;
                Some(Next::Close)
            }
            Waited::TooLong => {
                self.stats.throttled_ops += 1;
                if c.is_waiting() {
                    c.wait(Waiting::Throttled { op, xid, since: now });
                    self.waiting_reads += 1;
                } else {
                    self.refuse_throttled(now, c, op, xid, now);
                }
                Some(Next::Done)
            }
        }
    }

    /// The answer takes its place in the order, without a zxid of its own.
    pub(super) fn refuse_throttled(&mut self, now: Time, c: &mut Connection, op: OpCode, xid: i32, since: Time) {
        let zxid = self.version();
        client::put_reply(&mut c.out, xid, zxid.as_i64(), ErrorCode::ThrottledOp);
        self.count_answer(c, op, xid, zxid, since, now);
        self.mark_dirty(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_ms(1000 + ms)
    }

    fn throttle(settings: ThrottleSettings) -> ConnectionThrottle {
        ConnectionThrottle::new(settings, at(0))
    }

    fn no_dice() -> f64 {
        panic!("chance has no say here")
    }

    fn admit(throttle: &mut ConnectionThrottle, ms: u64) -> bool {
        throttle.admit(at(ms), Admission::GlobalSession, no_dice)
    }

    #[test]
    fn without_tokens_everything_passes() {
        let mut throttle = throttle(ThrottleSettings::default());
        assert!((0..10_000).all(|_| admit(&mut throttle, 0)));
    }

    #[test]
    fn c_177_an_empty_bucket_refuses_and_fills_with_time() {
        let settings = ThrottleSettings { tokens: 2, fill_time_ms: 100, ..ThrottleSettings::default() };
        let mut throttle = throttle(settings);
        let passed: Vec<bool> = [0, 0, 0, 100, 101, 101, 5000, 5000, 5000].map(|ms| admit(&mut throttle, ms)).into();
        assert_eq!(passed, [true, true, false, false, true, false, true, true, false]);
        assert_eq!(throttle.deficit(), 2);
    }

    #[test]
    fn sessions_cost_what_their_weight_says() {
        let weights = Some(Weights::default());
        let settings = ThrottleSettings { tokens: 2, fill_time_ms: 1000, weights, ..ThrottleSettings::default() };
        let mut throttle = throttle(settings);
        let mut cost = |admission| {
            let before = throttle.deficit();
            throttle.admit(at(0), admission, no_dice).then(|| throttle.deficit() - before)
        };
        assert_eq!(cost(Admission::RenewSession), Some(2));
        assert_eq!(cost(Admission::GlobalSession), Some(3));
        assert_eq!(cost(Admission::RenewSession), None);
        assert_eq!(cost(Admission::LocalSession), Some(1));
        assert_eq!(cost(Admission::LocalSession), None);
    }

    #[test]
    fn an_empty_bucket_raises_the_drop_probability_and_a_full_one_lowers_it() {
        let settings = ThrottleSettings {
            tokens: 1,
            fill_time_ms: 1000,
            freeze_time_ms: Some(10),
            drop_increase: 0.5,
            drop_decrease: 0.25,
            ..ThrottleSettings::default()
        };
        let mut throttle = throttle(settings);
        let mut step = |ms, dice: f64| {
            let admitted = throttle.admit(at(ms), Admission::GlobalSession, || dice);
            (admitted, throttle.drop_probability())
        };
        assert_eq!(step(0, 0.0), (true, 0.0));
        assert_eq!(step(10, 0.0), (false, 0.0));
        assert_eq!(step(11, 0.9), (false, 0.5));
        assert_eq!(step(15, 0.9), (false, 0.5), "frozen");
        assert_eq!(step(22, 0.9), (false, 1.0));
        assert_eq!(step(5000, 0.74), (false, 0.75));
        assert_eq!(step(5001, 0.75), (true, 0.75));
    }

    #[test]
    fn a_clock_far_ahead_fills_the_bucket_once() {
        let settings = ThrottleSettings { tokens: u32::MAX, fill_count: u32::MAX, ..ThrottleSettings::default() };
        let mut throttle = throttle(settings);
        assert!(throttle.admit(Time(u64::MAX), Admission::GlobalSession, no_dice));
        assert_eq!(throttle.deficit(), 1);
    }

    #[test]
    fn c_178_large_requests_share_a_budget() {
        let mut large = LargeRequests::new(Some(100), 250);
        assert!(large.begin(100) && large.begin(101) && large.begin(149));
        assert!(!large.begin(101));
        assert_eq!(large.bytes(), 250);
        large.end(100);
        large.end(101);
        assert!(large.begin(101) && !large.begin(usize::MAX));
        let mut off = LargeRequests::new(None, 0);
        assert!(off.begin(usize::MAX));
    }

    #[test]
    fn what_waited_too_long_is_refused_but_for_pings_and_the_end_of_a_session() {
        let timeout = Duration::from_secs(10);
        let throttle = RequestThrottle { requests_max: 1, op_wait: Some(Duration::from_secs(1)), drops_stale: true };
        let judge = |op, ms| throttle.judge(op, Duration::from_millis(ms), timeout);
        assert_eq!(judge(OpCode::Create, 1000), Waited::InTime);
        assert_eq!(judge(OpCode::Create, 1001), Waited::TooLong);
        assert_eq!(judge(OpCode::GetData, 10_001), Waited::Stale);
        assert_eq!((judge(OpCode::Ping, 1001), judge(OpCode::Ping, 10_001)), (Waited::InTime, Waited::Stale));
        assert_eq!(judge(OpCode::CloseSession, 10_001), Waited::InTime);
        let patient = RequestThrottle { op_wait: None, drops_stale: false, ..throttle };
        assert_eq!(patient.judge(OpCode::Create, timeout * 2, timeout), Waited::InTime);
    }
}
