//! Whether a peer is still there: how long it has been silent, and how long it may be.
//!
//! Silences of a peer that was alive after all stretch the patience with it for a while, up to a bound: on a busy machine
//! a process does not run for some tens of milliseconds now and then, and that is no reason for an election.

use std::time::Duration;

use crate::types::time::Time;

/// The longest silence seen is forgotten within about this time.
const MEMORY: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug)]
pub struct Pulse {
    heard: Time,
    /// The longest silence that ended, decaying.
    longest: Duration,
}

impl Pulse {
    pub fn new(now: Time) -> Pulse {
        Pulse { heard: now, longest: Duration::ZERO }
    }

    /// Something came.
    pub fn hear(&mut self, now: Time) {
        let silence = now.saturating_since(self.heard);
        let decay = self.longest.mul_f64(silence.as_secs_f64() / MEMORY.as_secs_f64());
        self.longest = self.longest.saturating_sub(decay).max(silence);
        self.heard = self.heard.max(now);
    }

    pub fn heard(&self) -> Time {
        self.heard
    }

    /// We did not listen for so long.
    pub fn push_out(&mut self, stall: Duration) {
        self.heard = self.heard + stall;
    }

    /// What came before counts no longer as a measure: another pace begins.
    pub fn begin(&mut self, now: Time) {
        *self = Pulse::new(now);
    }

    /// When it is taken for dead, if silence may last for `base`, or twice the longest of late, but not more than 1.6
    /// times `base`.
    pub fn dead_at(&self, base: Duration) -> Time {
        self.heard + (self.longest * 2).clamp(base, base * 8 / 5)
    }
}

/// How late our own process runs. On a machine where we wait for a core, so do our peers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lateness {
    worst: Duration,
    seen: Time,
}

impl Lateness {
    /// A deadline was met so much later, or we did not run for so long.
    pub fn see(&mut self, now: Time, late: Duration) {
        // Who was stopped for longer learns nothing from it about how soon a process gets a core here.
        let late = if late > LATENESS_MAX { Duration::ZERO } else { late };
        let decay = self.worst.mul_f64((now.saturating_since(self.seen).as_secs_f64() / MEMORY.as_secs_f64()).min(1.0));
        self.worst = self.worst.saturating_sub(decay).max(late);
        self.seen = now;
    }

    /// What a silence may last longer for that, but not more than four times `base`.
    pub fn slack(&self, base: Duration) -> Duration {
        // A few milliseconds are nothing: timers and wake-ups take that anywhere.
        self.worst.saturating_sub(LATENESS_ORDINARY).saturating_mul(3).min(base * 4)
    }
}

const LATENESS_ORDINARY: Duration = Duration::from_millis(5);

/// More than this is a pause, and no measure of what comes.
const LATENESS_MAX: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(100);

    #[test]
    fn patience_grows_with_the_silences_that_ended_and_shrinks_again() {
        let mut pulse = Pulse::new(Time::from_ms(0));
        pulse.hear(Time::from_ms(25));
        assert_eq!(pulse.dead_at(BASE), Time::from_ms(125));
        pulse.hear(Time::from_ms(95));
        assert_eq!(pulse.dead_at(BASE), Time::from_ms(95 + 140));
        pulse.hear(Time::from_ms(190));
        assert_eq!(pulse.dead_at(BASE), Time::from_ms(190 + 160));
        for at in (200..80_000).step_by(25) {
            pulse.hear(Time::from_ms(at));
        }
        assert_eq!(pulse.dead_at(BASE), pulse.heard() + BASE);
    }

    #[test]
    fn a_stall_of_our_own_is_nobodys_silence() {
        let mut pulse = Pulse::new(Time::from_ms(0));
        pulse.push_out(Duration::from_millis(900));
        assert_eq!(pulse.dead_at(BASE), Time::from_ms(1000));
        pulse.hear(Time::from_ms(920));
        assert_eq!(pulse.dead_at(BASE), Time::from_ms(1020));
    }

    #[test]
    fn who_runs_late_is_patient_for_a_while() {
        let mut lateness = Lateness::default();
        lateness.see(Time::from_ms(1000), Duration::from_millis(4));
        assert_eq!(lateness.slack(BASE), Duration::ZERO);
        lateness.see(Time::from_ms(1020), Duration::from_millis(65));
        assert_eq!(lateness.slack(BASE), Duration::from_millis(180));
        lateness.see(Time::from_ms(1100), Duration::from_secs(3));
        assert!(lateness.slack(BASE) <= Duration::from_millis(180), "stopped is not late");
        lateness.see(Time::from_ms(1100), Duration::from_millis(190));
        assert_eq!(lateness.slack(BASE), BASE * 4);
        for at in (1100..120_000).step_by(25) {
            lateness.see(Time::from_ms(at), Duration::ZERO);
        }
        assert_eq!(lateness.slack(BASE), Duration::ZERO);
    }
}
