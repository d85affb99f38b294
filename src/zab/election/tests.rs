use super::*;
use crate::config::{Member, Membership, QuorumGroups};
use crate::types::ids::ServerId;

mod golden;
mod rules;

/// Servers 1 to `voters` vote, those behind up to `members` observe.
fn ensemble(voters: i64, members: i64) -> Ensemble {
    ensemble_with(voters, members, None)
}

fn ensemble_with(voters: i64, members: i64, groups: Option<QuorumGroups>) -> Ensemble {
    let line = |id: i64| {
        let role = if id <= voters { "participant" } else { "observer" };
        Member::parse(ServerId(id), &format!("10.0.0.{id}:2888:3888:{role}"), false).expect("a server line")
    };
    let members = (1..=members).map(|id| (ServerId(id), line(id))).collect();
    Ensemble::new(Membership { members, groups, version: 0 }).expect("somebody votes")
}

fn settings(me: i64, is_observer: bool) -> Settings {
    Settings {
        me: ServerId(me),
        is_observer,
        grace: Duration::from_millis(15),
        notification_interval_min: Duration::from_millis(200),
        notification_interval_max: Duration::from_millis(60_000),
        extension: None,
    }
}

fn vote(leader: i64, zxid: i64, round: i64, peer_epoch: i64) -> Vote {
    Vote { leader: ServerId(leader), zxid, round, peer_epoch }
}

/// One machine with a clock in milliseconds; what it says is text.
struct One {
    machine: Election,
    now_ms: u64,
}

impl One {
    /// Server `me` of `voters`, with one observer more, links up to everybody.
    fn of(me: i64, voters: i64) -> One {
        let mut one = One::with(settings(me, me > voters), ensemble(voters, voters + 1));
        (1..=voters + 1).filter(|id| *id != me).for_each(|id| one.link_up(id));
        one
    }

    fn with(settings: Settings, ensemble: Ensemble) -> One {
        One { machine: Election::new(settings, ensemble), now_ms: 10_000 }
    }

    fn step(&mut self, input: Input<'_>) -> Vec<String> {
        let mut out = Vec::new();
        self.machine.step(Time::from_ms(self.now_ms), input, &mut out);
        out.iter().map(Output::to_string).collect()
    }

    fn look(&mut self, zxid: u64, epoch: u32) -> Vec<String> {
        self.step(Input::Look { zxid: Some(Zxid(zxid)), epoch })
    }

    fn hear(&mut self, from: i64, state: PeerState, vote: Vote) -> Vec<String> {
        let payload = encode_notification(state, &vote, Some("version=0"), &[]);
        self.step(Input::Received { from: ServerId(from), payload: &payload })
    }

    fn link_up(&mut self, peer: i64) {
        assert_eq!(self.step(Input::LinkUp { peer: ServerId(peer) }), NOTHING);
    }

    fn link_down(&mut self, peer: i64, is_refused: bool) -> Vec<String> {
        self.step(Input::LinkDown { peer: ServerId(peer), is_refused })
    }

    /// Goes to the next deadline.
    fn wait(&mut self) -> Vec<String> {
        let deadline = self.machine.deadline().expect("it waits for something");
        self.now_ms = deadline.as_ms().max(self.now_ms);
        self.step(Input::Timeout)
    }
}

const NOTHING: [&str; 0] = [];
