//! The turn of a core: completions in, machines stepped, wishes out, then sleep.
//!
//! ```text
//! drain the ring ─► durable writes ─► zab core publishes ─► shard follows ─► what sockets brought ─► batch ─► zab core
//!       ▲                                                                                                  │
//!       └── sleep, unless somebody has mail ◄── one submit: sends, log writes, receives ◄── end of turn ◄──┘
//! ```
//!
//! A thread has a shard, the zab core, or both: then what one tells the other needs no wake-up.

use std::time::Duration;

use super::clock;
use super::executor::Tasks;
use super::mesh::Sleeper;
use super::ring::{Event, Ring};
use super::shard_driver::ShardDriver;
use super::zab_driver::ZabDriver;
use crate::server::pauses::Pauses;
use crate::server::pipeline::Now;
use crate::types::time::Time;

/// How long a core may spin before it sleeps is a setting; a pause longer than this between two turns is a stall, and told.
const TOLERATED_PAUSE: Duration = Duration::from_millis(200);
/// The same for a member, quietly: what a busy machine takes from this process must not count as the silence of others, whom
/// it gives up after a tenth of a second.
const MEMBER_TOLERATED_PAUSE: Duration = Duration::from_millis(15);
/// Answers that clients do not take must not keep a stopping server.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Why a core ended.
#[derive(Debug)]
pub enum Ended {
    Stopped,
    Fatal(Fatal),
}

/// Why the process must end, and with which code (storage reference 1.17).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fatal {
    pub what: String,
    pub exit_code: i32,
}

impl From<String> for Fatal {
    /// An unexpected error.
    fn from(what: String) -> Fatal {
        Fatal { what, exit_code: 1 }
    }
}

pub struct Core {
    pub ring: Ring,
    pub sleeper: Sleeper,
    pub shard: Option<ShardDriver>,
    pub zab: Option<ZabDriver>,
    /// `oxkeeper.spinMicros`.
    pub spin: Duration,
}

impl Core {
    /// Runs until the server stops. The main task of this core's executor.
    pub async fn run(mut self) -> Ended {
        let tasks = Tasks::default();
        let (mut events, mut for_zab) = (Vec::new(), Vec::new());
        let is_member = self.zab.as_ref().is_some_and(|zab| zab.is_member());
        let tolerated = if is_member { MEMBER_TOLERATED_PAUSE } else { TOLERATED_PAUSE };
        let mut stalls = Pauses::new(clock::now(), tolerated);
        let mut stop_by: Option<Time> = None;
        if let Some(zab) = &mut self.zab {
            zab.start(&mut self.ring);
        }
        loop {
            let now = read_clocks();
            if let (Some(stall), Some(zab)) = (stalls.on_turn(now.time), &mut self.zab) {
                if stall > TOLERATED_PAUSE {
                    tracing::warn!(
                        stall_ms = stall.as_millis() as u64,
                        "this process was stopped for a while; sessions get the time back"
                    );
                }
                zab.on_stall(now, stall, &mut self.ring);
            }
            self.turn(now, &mut events, &mut for_zab);
            if let Some(ended) = self.ended(now.time, &mut stop_by) {
                if let (Ended::Fatal(_), Some(zab)) = (&ended, &mut self.zab) {
                    zab.abandon_helpers();
                }
                return ended;
            }
            let deadline = self.deadline(stop_by);
            self.sleep(&tasks, &mut stalls, deadline).await;
        }
    }

    fn turn(&mut self, now: Now, events: &mut Vec<Event>, for_zab: &mut Vec<Event>) {
        self.ring.drain(events);
        // Durable writes and peers first: what they publish is there for the requests of this turn.
        if let Some(zab) = &mut self.zab {
            for_zab.extend(events.extract_if(.., |event| zab.concerns(event)));
            for event in for_zab.drain(..) {
                zab.on_event(now, event, &mut self.ring);
            }
        }
        self.take_mail(now);
        for event in events.drain(..) {
            if let Some(shard) = &mut self.shard {
                shard.on_event(now.time, event, &mut self.ring);
            }
        }
        // What the shard asks is the zab core's mail, and what that answers is the shard's: until nothing moves.
        loop {
            if let Some(shard) = &mut self.shard {
                shard.end_turn(now.time, &mut self.ring);
            }
            let mut moved = false;
            if let Some(zab) = &mut self.zab {
                moved |= zab.take_mail(now, &mut self.ring);
                zab.end_turn(now, &mut self.ring);
            }
            if let Some(shard) = &mut self.shard {
                moved |= shard.take_mail(now.time, &mut self.ring);
            }
            if !moved {
                return;
            }
        }
    }

    fn take_mail(&mut self, now: Now) {
        if let Some(zab) = &mut self.zab {
            zab.take_mail(now, &mut self.ring);
        }
        if let Some(shard) = &mut self.shard {
            shard.take_mail(now.time, &mut self.ring);
        }
    }

    fn ended(&self, now: Time, stop_by: &mut Option<Time>) -> Option<Ended> {
        if let Some(fatal) = self.zab.as_ref().and_then(|zab| zab.fatal()) {
            return Some(Ended::Fatal(fatal));
        }
        let zab_is_done = self.zab.as_ref().is_none_or(|zab| zab.has_stopped());
        let shard_is_told = self.shard.as_ref().is_none_or(|shard| shard.is_stopping());
        if !zab_is_done || !shard_is_told {
            return None;
        }
        let limit = *stop_by.get_or_insert(now + STOP_LIMIT);
        let shard_is_done = self.shard.as_ref().is_none_or(|shard| shard.has_stopped());
        (shard_is_done || now >= limit).then_some(Ended::Stopped)
    }

    fn deadline(&self, stop_by: Option<Time>) -> Option<Time> {
        let shard = self.shard.as_ref().and_then(|shard| shard.deadline());
        let zab = self.zab.as_ref().and_then(|zab| zab.deadline());
        [shard, zab, stop_by].into_iter().flatten().min()
    }

    fn nothing_waits(&self) -> bool {
        self.shard.as_ref().is_none_or(|shard| shard.nothing_waits())
            && self.zab.as_ref().is_none_or(|zab| zab.nothing_waits())
    }

    async fn sleep(&mut self, tasks: &Tasks, stalls: &mut Pauses, deadline: Option<Time>) {
        if !self.spin.is_zero() {
            self.ring.submit();
            let until = clock::now() + self.spin;
            while clock::now() < until {
                if self.ring.has_events() || !self.nothing_waits() {
                    return;
                }
                std::hint::spin_loop();
            }
        }
        if self.sleeper.prepare_to_sleep(|| {
            self.shard.as_ref().is_none_or(|shard| shard.nothing_waits())
                && self.zab.as_ref().is_none_or(|zab| zab.nothing_waits())
        }) {
            stalls.on_sleep(deadline);
            tasks.sleep(&mut self.ring, deadline).await;
            self.sleeper.awake();
        } else {
            self.ring.submit();
        }
    }
}

fn read_clocks() -> Now {
    Now { time: clock::now(), wall: clock::wall_now() }
}
