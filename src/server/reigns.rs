//! How long elections, synchronisations and times without a leader took, and what was proposed and decided, for the metrics: seen
//! from outside the agreement machine, by where it stands from turn to turn.

use std::collections::BTreeMap;
use std::time::Duration;

use super::stats::ZabStats;
use super::status::LeaderStatus;
use crate::types::time::Time;
use crate::types::zxid::Zxid;
use crate::zab::link::LearnerLink;
use crate::zab::transport::SocketId;
use crate::zab::{Phase, RoleName, Zab};

/// How often a member that serves nobody says so.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// Where a member stood when it was last looked at.
#[derive(Debug)]
pub struct Reigns {
    role: RoleName,
    phase: Phase,
    /// When the role, and the phase, began.
    role_since: Time,
    phase_since: Time,
    /// Clients are not served since then.
    unavailable_since: Option<Time>,
    /// When that was complained about last.
    said: Time,
    head: Zxid,
    committed: Zxid,
    /// Learners that have what we began with, and whether they came to it by a snapshot.
    learners: BTreeMap<SocketId, Progress>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Progress {
    had_snapshot: bool,
    is_synced: bool,
}

impl Reigns {
    /// Of a member that begins to look for a leader.
    pub fn new(now: Time, zab: &Zab, stats: &mut ZabStats) -> Reigns {
        stats.looking_count += 1;
        Reigns {
            role: zab.role(),
            phase: zab.phase(),
            role_since: now,
            phase_since: now,
            unavailable_since: Some(now),
            said: now,
            head: zab.history().last(),
            committed: zab.committed(),
            learners: BTreeMap::new(),
        }
    }

    /// To be called once a turn.
    pub fn on_turn(&mut self, now: Time, zab: &Zab, stats: &mut ZabStats) {
        self.complain(now);
        let (role, phase) = (zab.role(), zab.phase());
        if role != self.role {
            self.on_role(now, role, stats);
        }
        if phase != self.phase {
            self.on_phase(now, phase, stats);
        }
        self.count_txns(zab, stats);
        if role == RoleName::Leading {
            self.count_syncs(zab, stats);
        }
    }

    /// A member that is without a leader for long says so, again and again.
    fn complain(&mut self, now: Time) {
        if let Some(since) = self.unavailable_since
            && now >= self.said + COMPLAIN_EVERY
            && now >= since + COMPLAIN_EVERY
        {
            self.said = now;
            let seconds = now.saturating_since(since).as_secs();
            tracing::warn!(
                seconds,
                phase = ?self.phase,
                "no client is served: there is no leader, or it is out of reach. A majority of the voters must run and reach \
                 each other on their election and quorum ports"
            );
        }
    }

    fn on_role(&mut self, now: Time, role: RoleName, stats: &mut ZabStats) {
        match (self.role, role) {
            (RoleName::Looking, _) => stats.election_time.record(micros(now, self.role_since)),
            (_, RoleName::Looking) => {
                stats.looking_count += 1;
                self.unavailable_since.get_or_insert(now);
            }
            (RoleName::Leading | RoleName::Following | RoleName::Observing, _) => {}
        }
        (self.role, self.role_since) = (role, now);
        self.learners.clear();
    }

    fn on_phase(&mut self, now: Time, phase: Phase, stats: &mut ZabStats) {
        if phase == Phase::Broadcast {
            if let Some(since) = self.unavailable_since.take() {
                let without_ms = now.saturating_since(since).as_millis() as u64;
                tracing::info!(role = self.role_name(), without_ms, "clients are served");
                stats.unavailable_time.record(micros(now, since));
                stats.leader_unavailable_time.record(micros(now, since));
            }
            if self.phase == Phase::Synchronization {
                match self.role {
                    RoleName::Following => stats.follower_sync_time.record(micros(now, self.phase_since)),
                    RoleName::Observing => stats.observer_sync_time.record(micros(now, self.phase_since)),
                    RoleName::Leading | RoleName::Looking => {}
                }
            }
        }
        (self.phase, self.phase_since) = (phase, now);
    }

    fn role_name(&self) -> &'static str {
        match self.role {
            RoleName::Looking => "looking",
            RoleName::Leading => "leader",
            RoleName::Following => "follower",
            RoleName::Observing => "observer",
        }
    }

    fn count_txns(&mut self, zab: &Zab, stats: &mut ZabStats) {
        let (head, committed) = (zab.history().last(), zab.committed());
        let (proposed, decided) = (between(self.head, head), between(self.committed, committed));
        (self.head, self.committed) = (head, committed);
        match self.role {
            RoleName::Leading => {
                stats.proposal_count += proposed;
                stats.commit_count += decided;
            }
            RoleName::Following | RoleName::Observing => {
                stats.learner_proposal_received_count += proposed;
                stats.learner_commit_received_count += decided;
            }
            RoleName::Looking => {}
        }
    }

    fn count_syncs(&mut self, zab: &Zab, stats: &mut ZabStats) {
        let before = std::mem::take(&mut self.learners);
        for link in zab.links() {
            let mut progress = before.get(&link.socket).copied().unwrap_or_default();
            let (_, is_snapshot) = link.syncs_with();
            if is_snapshot && !progress.had_snapshot {
                progress.had_snapshot = true;
                stats.snap_count += 1;
            }
            if link.is_synced() && !progress.is_synced {
                progress.is_synced = true;
                stats.diff_count += u64::from(!progress.had_snapshot);
            }
            self.learners.insert(link.socket, progress);
        }
    }

    /// What exists only while leading.
    pub fn leader_status(&self, now: Time, zab: &Zab) -> LeaderStatus {
        let synced = |is_of_kind: fn(&LearnerLink) -> bool| {
            zab.links().filter(|link| link.is_synced() && is_of_kind(link)).count() as u32
        };
        LeaderStatus {
            learners: zab.links().count() as u32,
            synced_followers: synced(|link| link.is_voter),
            synced_observers: synced(|link| link.is_observer),
            synced_non_voting_followers: synced(|link| !link.is_voter && !link.is_observer),
            pending_syncs: zab.links().map(LearnerLink::pending_syncs).sum::<usize>() as u32,
            leader_uptime_ms: now.saturating_since(self.phase_since).as_millis() as u64,
        }
    }
}

fn micros(now: Time, since: Time) -> u32 {
    u32::try_from(now.saturating_since(since).as_micros()).unwrap_or(u32::MAX)
}

/// Txns from one zxid to the next. Of an epoch that ended in between only the last is looked at.
fn between(before: Zxid, after: Zxid) -> u64 {
    match before.epoch() == after.epoch() {
        true => after.0.saturating_sub(before.0),
        false if after > before => after.counter().into(),
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn txns_are_counted_within_an_epoch_and_from_its_beginning() {
        for (before, after, expected) in [
            (Zxid::new(1, 5), Zxid::new(1, 5), 0),
            (Zxid::new(1, 5), Zxid::new(1, 9), 4),
            (Zxid::new(1, 5), Zxid::new(2, 0), 0),
            (Zxid::new(1, 5), Zxid::new(3, 2), 2),
            (Zxid::new(1, 5), Zxid::new(1, 2), 0),
            (Zxid::new(2, 1), Zxid::new(1, 9), 0),
        ] {
            assert_eq!(between(before, after), expected, "{before} to {after}");
        }
    }

    #[test]
    fn an_election_and_a_synchronisation_are_timed() {
        let zab = Zab::standalone(crate::types::ids::ServerId(1), Zxid(5));
        let mut stats = ZabStats::default();
        let mut reigns = Reigns::new(Time::from_ms(100), &zab, &mut stats);
        (reigns.role, reigns.phase) = (RoleName::Looking, Phase::Election);
        reigns.on_role(Time::from_ms(130), RoleName::Following, &mut stats);
        reigns.on_phase(Time::from_ms(130), Phase::Discovery, &mut stats);
        reigns.on_phase(Time::from_ms(140), Phase::Synchronization, &mut stats);
        reigns.on_phase(Time::from_ms(160), Phase::Broadcast, &mut stats);
        let values = [&stats.election_time, &stats.follower_sync_time, &stats.unavailable_time];
        assert_eq!(values.map(|summary| (summary.values().count, summary.values().max)), [(1, 30), (1, 20), (1, 60)]);
        reigns.on_role(Time::from_ms(500), RoleName::Looking, &mut stats);
        reigns.on_phase(Time::from_ms(500), Phase::Election, &mut stats);
        reigns.on_role(Time::from_ms(510), RoleName::Leading, &mut stats);
        reigns.on_phase(Time::from_ms(520), Phase::Broadcast, &mut stats);
        assert_eq!(
            (stats.looking_count, stats.unavailable_time.values().count, stats.election_time.values().min),
            (2, 2, 10)
        );
    }
}
