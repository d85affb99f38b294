//! Each rule of the election for itself.

use super::*;
use PeerState::{Following, Leading, Looking, Observing};

/// Server 2 of three looks with zxid 5 in epoch 1: its round is `round`.
fn two_looks(round: i64) -> One {
    let mut two = One::of(2, 3);
    two.machine.round = round - 1;
    assert_eq!(two.look(5, 1), told(&format!("2 zxid 0x5 epoch 1 round {round}")));
    two
}

/// What server 2 says to both others.
fn told(vote: &str) -> [String; 2] {
    [1, 3].map(|id| format!("Notmsg to {id}: LOOKING {vote}"))
}

//
#[test]
fn a_vote_holds_the_durable_zxid_and_the_current_epoch_and_an_observers_holds_nothing() {
    two_looks(1);
    let mut observer = One::of(4, 3);
    let out = observer.look(5, 1);
    assert_eq!(out, [1, 2, 3].map(|id| format!("Notmsg to {id}: LOOKING nobody round 1")));
    assert_eq!(observer.machine.vote(), Some(&vote(i64::MIN, i64::MIN, 1, i64::MIN)));
}

//
#[test]
fn a_higher_round_is_taken_over_and_begins_anew() {
    let mut two = two_looks(1);
    two.hear(1, Looking, vote(1, 9, 1, 1));
    assert_eq!(two.machine.vote(), Some(&vote(1, 9, 1, 1)));
    // The better of what is heard and our own vote, not of what we proposed in the round before.
    assert_eq!(two.hear(3, Looking, vote(3, 5, 7, 1)), told("3 zxid 0x5 epoch 1 round 7"));
    let mut two = two_looks(1);
    two.hear(1, Looking, vote(1, 9, 1, 1));
    assert_eq!(two.hear(3, Looking, vote(3, 4, 7, 1)), told("2 zxid 0x5 epoch 1 round 7"));
}

//
#[test]
fn a_lower_round_is_answered_and_does_not_count() {
    let mut two = two_looks(5);
    let answer = ["Notmsg to 3: LOOKING 2 zxid 0x5 epoch 1 round 5"];
    assert_eq!(two.hear(3, Looking, vote(3, 9, 4, 1)), answer);
    assert_eq!(two.hear(3, Looking, vote(3, 9, 4, 1)), answer);
    assert_eq!(two.machine.vote(), Some(&vote(2, 5, 5, 1)));
}

//
#[test]
fn a_better_vote_of_the_same_round_is_taken_over() {
    let check = |heard: Vote, expected: &[String]| {
        let mut two = two_looks(1);
        assert_eq!(two.hear(3, Looking, heard), expected, "{heard}");
    };
    check(vote(3, 5, 1, 1), &told("3 zxid 0x5 epoch 1 round 1"));
    check(vote(1, 6, 1, 1), &told("1 zxid 0x6 epoch 1 round 1"));
    check(vote(1, 0, 1, 2), &told("1 zxid 0x0 epoch 2 round 1"));
    // Not a member, an observer, and one that does not trust its database.
    check(vote(9, 99, 1, 9), &[]);
    check(vote(4, 99, 1, 9), &[]);
    check(vote(3, -1, 1, 9), &[]);
}

//
#[test]
fn a_worse_vote_of_the_same_round_is_answered_once() {
    let mut two = two_looks(1);
    let answer = ["Notmsg to 1: LOOKING 2 zxid 0x5 epoch 1 round 1"];
    assert_eq!(two.hear(1, Looking, vote(1, 5, 1, 1)), answer);
    assert_eq!(two.hear(1, Looking, vote(1, 5, 1, 1)), NOTHING);
    assert_eq!(two.hear(1, Looking, vote(1, 4, 1, 1)), answer);
    // On a new link it may have missed the answer.
    two.link_down(1, false);
    two.link_up(1);
    assert_eq!(two.hear(1, Looking, vote(1, 4, 1, 1)), answer);
}

#[test]
fn it_is_over_at_once_when_everybody_agrees() {
    let mut two = two_looks(1);
    assert_eq!(two.hear(1, Looking, vote(2, 5, 1, 1)), NOTHING);
    let over = ["Forget", "Elected 2, Leading: 2 zxid 0x5 epoch 1 round 1 by 1 2 3"];
    assert_eq!(two.hear(3, Looking, vote(2, 5, 1, 1)), over);
    assert_eq!(two.machine.deadline(), None);
}

#[test]
fn it_is_over_at_once_when_who_is_missing_is_dead() {
    let over = ["Forget", "Elected 2, Leading: 2 zxid 0x5 epoch 1 round 1 by 1 2"];
    let mut two = two_looks(1);
    two.link_down(3, true);
    assert_eq!(two.hear(1, Looking, vote(2, 5, 1, 1)), over);
    // The news may come later than the vote.
    let mut two = two_looks(1);
    assert_eq!(two.hear(1, Looking, vote(2, 5, 1, 1)), NOTHING);
    assert_eq!(two.link_down(3, false), NOTHING);
    assert_eq!(two.link_down(3, true), over);
}

#[test]
fn a_quorum_waits_a_little_for_who_may_be_alive() {
    let mut two = two_looks(1);
    two.hear(1, Looking, vote(2, 5, 1, 1));
    assert_eq!(two.wait(), ["Forget", "Elected 2, Leading: 2 zxid 0x5 epoch 1 round 1 by 1 2"]);
    assert_eq!(two.now_ms, 10_015);
    // A better vote within that time counts, and begins a new wait.
    let mut two = two_looks(1);
    two.hear(1, Looking, vote(2, 5, 1, 1));
    two.now_ms += 10;
    assert_eq!(two.hear(3, Looking, vote(3, 5, 1, 1)), told("3 zxid 0x5 epoch 1 round 1"));
    assert_eq!(two.wait(), ["Forget", "Elected 3, Following: 3 zxid 0x5 epoch 1 round 1 by 2 3"]);
    assert_eq!(two.now_ms, 10_025);
}

/// Server 2 follows 3, elected in round 4 with votes of epoch 1.
fn two_follows() -> One {
    let mut two = two_looks(4);
    two.hear(3, Looking, vote(3, 5, 4, 1));
    assert_eq!(two.wait(), ["Forget", "Elected 3, Following: 3 zxid 0x5 epoch 1 round 4 by 2 3"]);
    two
}

//
#[test]
fn a_voter_that_looks_is_answered_with_the_vote_that_won() {
    let mut two = two_follows();
    for round in [1, 4, 9] {
        let answer = ["Notmsg to 1: FOLLOWING 3 zxid 0x5 epoch 1 round 4"];
        assert_eq!(two.hear(1, Looking, vote(1, 9, round, 1)), answer);
    }
    two.step(Input::Joined { epoch: 2 });
    let answer = ["Notmsg to 1: FOLLOWING 3 zxid 0x5 epoch 2 round 4"];
    assert_eq!(two.hear(1, Looking, vote(1, 9, 1, 1)), answer);
    for state in [Following, Leading, Observing] {
        assert_eq!(two.hear(1, state, vote(1, 9, 9, 9)), NOTHING);
    }
}

//
#[test]
fn who_has_no_vote_is_answered_in_every_state() {
    let mut two = two_looks(4);
    two.hear(3, Looking, vote(3, 5, 4, 1));
    // As in Java the answer holds our own vote, not what we propose by now.
    let answer = ["Notmsg to 4: LOOKING 2 zxid 0x5 epoch 1 round 4"];
    assert_eq!(two.hear(4, Looking, vote(i64::MIN, i64::MIN, 1, i64::MIN)), answer);
    // It asked while we looked: it is told how that ended.
    let answer = ["Notmsg to 4: FOLLOWING 3 zxid 0x5 epoch 1 round 4"];
    assert_eq!(two.wait()[1..2], answer);
    for state in [Looking, Following, Observing] {
        assert_eq!(two.hear(4, state, vote(i64::MIN, i64::MIN, 1, i64::MIN)), answer);
    }
    // Its leader died, and it asked a little before we knew.
    assert_eq!(two.step(Input::Left), NOTHING);
    two.look(5, 2);
    two.link_down(3, true);
    let told = "Notmsg to 4: LEADING 2 zxid 0x5 epoch 2 round 5";
    assert_eq!(two.hear(1, Looking, vote(2, 5, 5, 2))[..2], ["Forget", told]);
    // Strangers never get so far.
    assert_eq!(two.hear(9, Looking, vote(9, 9, 9, 9)), NOTHING);
}

//
#[test]
fn an_ensemble_that_settled_in_our_round_is_joined() {
    let mut two = two_looks(4);
    assert_eq!(two.hear(1, Following, vote(3, 9, 4, 1)), NOTHING);
    let over = ["Forget", "Elected 3, Following: 3 zxid 0x9 epoch 1 round 4 by 1 3"];
    assert_eq!(two.hear(3, Leading, vote(3, 9, 4, 1)), over);
}

//
#[test]
fn an_ensemble_that_settled_in_another_round_is_joined_and_its_round_taken_over() {
    for (first, second) in [(1, 3), (3, 1)] {
        let mut two = two_looks(9);
        let mut heard = |from| match from {
            3 => two.hear(3, Leading, vote(3, 9, 4, 2)),
            _ => two.hear(from, Following, vote(3, 7, 4, 2)),
        };
        assert_eq!(heard(first), NOTHING);
        let out = heard(second);
        assert!(out[1].starts_with("Elected 3, Following: 3 zxid") && out[1].ends_with("round 4 by 1 3"), "{out:?}");
        assert_eq!(two.machine.round, 4);
    }
}

//
#[test]
fn without_the_leaders_own_word_nobody_is_joined() {
    // Of five, three follow 5, in our round and in another.
    for round in [4, 3] {
        let mut two = One::of(2, 5);
        two.machine.round = 3;
        two.look(5, 1);
        for follower in [1, 3, 4] {
            assert_eq!(two.hear(follower, Following, vote(5, 9, round, 1)), NOTHING);
        }
        let out = two.hear(5, Leading, vote(5, 9, round, 1));
        assert_eq!(out[1], format!("Elected 5, Following: 5 zxid 0x9 epoch 1 round {round} by 1 3 4 5"));
    }
}

//
#[test]
fn we_lead_if_others_follow_us_in_this_round_only() {
    let mut two = two_looks(4);
    assert_eq!(two.hear(1, Following, vote(2, 5, 3, 1)), NOTHING);
    assert_eq!(two.hear(3, Following, vote(2, 5, 3, 1)), NOTHING);
    let mut two = two_looks(4);
    assert_eq!(two.hear(1, Following, vote(2, 5, 4, 1))[1], "Elected 2, Leading: 2 zxid 0x5 epoch 1 round 4 by 1 2");
}

//
#[test]
fn a_vote_without_a_version_agrees_by_its_leader_alone() {
    let mut two = two_looks(9);
    let mut old = encode_notification(Following, &vote(3, 1, 1, 7), None, &[]);
    old.truncate(40);
    assert_eq!(two.step(Input::Received { from: ServerId(1), payload: &old }), NOTHING);
    let out = two.hear(3, Leading, vote(3, 9, 4, 2));
    assert_eq!(out[1], "Elected 3, Following: 3 zxid 0x9 epoch 2 round 4 by 1 3");
    // With versions on both sides their epochs differ.
    let mut two = two_looks(9);
    two.hear(1, Following, vote(3, 1, 1, 7));
    assert_eq!(two.hear(3, Leading, vote(3, 9, 4, 2)), NOTHING);
}

#[test]
fn who_does_not_trust_its_database_joins_and_never_votes() {
    let mut two = One::of(2, 3);
    let out = two.step(Input::Look { zxid: None, epoch: 0 });
    assert_eq!(out, told("2 zxid 0xffffffffffffffff epoch 0 round 1"));
    assert_eq!(two.hear(1, Looking, vote(3, 5, 1, 1)), NOTHING);
    assert_eq!(two.hear(3, Looking, vote(3, 5, 1, 1)), NOTHING);
    two.hear(1, Following, vote(3, 5, 1, 1));
    assert_eq!(two.hear(3, Leading, vote(3, 5, 1, 1))[1], "Elected 3, Following: 3 zxid 0x5 epoch 1 round 1 by 1 3");
}

#[test]
fn an_observer_follows_the_votes_of_others() {
    let mut observer = One::of(4, 3);
    observer.look(5, 1);
    observer.hear(1, Following, vote(3, 5, 8, 1));
    let over = ["Forget", "Elected 3, Observing: 3 zxid 0x5 epoch 1 round 8 by 1 3"];
    assert_eq!(observer.hear(3, Leading, vote(3, 5, 8, 1)), over);
    // Or counts those that look.
    let mut observer = One::of(4, 3);
    observer.look(5, 1);
    observer.hear(1, Looking, vote(3, 5, 8, 1));
    observer.hear(3, Looking, vote(3, 5, 8, 1));
    assert_eq!(observer.wait(), over);
}

#[test]
fn an_ensemble_of_one_elects_itself() {
    let mut one = One::with(settings(1, false), ensemble(1, 1));
    assert_eq!(one.look(5, 1), ["Forget", "Elected 1, Leading: 1 zxid 0x5 epoch 1 round 1 by 1"]);
}

//
#[test]
fn who_weighs_nothing_never_leads() {
    let mut groups = QuorumGroups::default();
    for id in 1..=4 {
        groups.group_of.insert(ServerId(id), 1);
        groups.weight_of.insert(ServerId(id), if id < 4 { 1 } else { 0 });
    }
    let of = |me| One::with(settings(me, false), ensemble_with(4, 4, Some(groups.clone())));
    let mut two = of(2);
    two.look(5, 1);
    assert_eq!(two.hear(4, Looking, vote(4, 99, 1, 9)), ["Notmsg to 4: LOOKING 2 zxid 0x5 epoch 1 round 1"]);
    // It takes over even a vote that its own would beat.
    let mut four = of(4);
    four.look(99, 9);
    let out = four.hear(2, Looking, vote(2, 5, 1, 1));
    assert_eq!(out, [1, 2, 3].map(|id| format!("Notmsg to {id}: LOOKING 2 zxid 0x5 epoch 1 round 1")));
    four.hear(1, Looking, vote(2, 5, 1, 1));
    assert_eq!(four.wait()[1], "Elected 2, Following: 2 zxid 0x5 epoch 1 round 1 by 1 2 4");
}

#[test]
fn a_vote_that_came_before_we_looked_counts() {
    let mut two = two_follows();
    two.hear(1, Looking, vote(1, 9, 5, 1));
    assert_eq!(two.step(Input::Left), NOTHING);
    // Between two roles nobody is answered.
    assert_eq!(two.hear(3, Looking, vote(3, 6, 5, 1)), NOTHING);
    assert_eq!(two.hear(4, Looking, vote(i64::MIN, 0, 5, 1)), NOTHING);
    two.now_ms += 5;
    assert_eq!(two.look(6, 1), told("1 zxid 0x9 epoch 1 round 5"));
    // Long ago is too long ago.
    let mut two = two_follows();
    two.hear(1, Looking, vote(1, 9, 5, 1));
    two.now_ms += 1000;
    assert_eq!(two.look(6, 1), told("2 zxid 0x6 epoch 1 round 5"));
}

//
#[test]
fn a_leader_hears_that_a_voter_of_its_own_looks_again() {
    let mut two = two_looks(1);
    two.hear(1, Looking, vote(2, 5, 1, 1));
    assert_eq!(two.wait()[1], "Elected 2, Leading: 2 zxid 0x5 epoch 1 round 1 by 1 2");
    let answer = |id| format!("Notmsg to {id}: LEADING 2 zxid 0x5 epoch 1 round 1");
    assert_eq!(two.hear(3, Looking, vote(3, 5, 1, 1)), [answer(3)]);
    assert_eq!(two.hear(1, Looking, vote(2, 5, 1, 1)), [answer(1)]);
    assert_eq!(two.hear(1, Looking, vote(1, 5, 2, 1)), ["LookingAgain 1".to_owned(), answer(1)]);
    assert_eq!(two.hear(1, Looking, vote(3, 5, 1, 1)), ["LookingAgain 1".to_owned(), answer(1)]);
}

#[test]
fn who_follows_hears_that_its_leader_does_not_lead() {
    let answer = "Notmsg to 3: FOLLOWING 3 zxid 0x5 epoch 1 round 4";
    let mut two = two_follows();
    assert_eq!(two.hear(3, Looking, vote(3, 5, 4, 1)), [answer]);
    assert_eq!(two.hear(3, Looking, vote(3, 5, 3, 1)), [answer]);
    assert_eq!(two.hear(3, Looking, vote(1, 6, 4, 1)), ["LookingAgain 3", answer]);
    assert_eq!(two.hear(3, Looking, vote(3, 5, 5, 1)), ["LookingAgain 3", answer]);
}

#[test]
fn a_candidate_that_dies_is_given_up() {
    let mut two = two_looks(1);
    two.hear(3, Looking, vote(3, 5, 1, 1));
    assert_eq!(two.link_down(3, false), NOTHING);
    assert_eq!(two.link_down(3, true), told("2 zxid 0x5 epoch 1 round 2"));
    assert_eq!(two.hear(1, Looking, vote(3, 5, 2, 1)), NOTHING);
    let over = ["Forget", "Elected 2, Leading: 2 zxid 0x5 epoch 1 round 2 by 1 2"];
    assert_eq!(two.hear(1, Looking, vote(2, 5, 2, 1)), over);
    // Its word that it leads dies with it, and counts again when it is back.
    let mut two = two_looks(4);
    assert_eq!(two.hear(3, Leading, vote(3, 5, 2, 1)), NOTHING);
    two.link_down(3, true);
    assert_eq!(two.hear(1, Following, vote(3, 5, 2, 1)), NOTHING);
    two.link_up(3);
    assert_eq!(two.hear(3, Leading, vote(3, 5, 2, 1))[1], "Elected 3, Following: 3 zxid 0x5 epoch 1 round 2 by 1 3");
}

//
#[test]
fn silence_is_broken_after_400_ms_towards_java_and_200_ms_between_our_own() {
    let mut two = One::of(2, 3);
    let mut ours = Vec::new();
    Extension::new().with_identity(7, "x").encode(&mut ours);
    // Server 3 is ours, as its last word before we looked shows.
    let payload = encode_notification(Looking, &vote(3, 1, 0, 0), None, &ours);
    two.step(Input::Received { from: ServerId(3), payload: &payload });
    assert_eq!(two.machine.extension_of(ServerId(3)).and_then(Extension::boot_nonce), Some(7));
    assert_eq!(two.machine.extension_of(ServerId(1)), None);
    two.look(5, 1);
    let mut sent = Vec::new();
    for _ in 0..7 {
        let out = two.wait();
        sent.extend(
            out.iter().filter_map(|line| Some((line.strip_prefix("Notmsg to ")?.to_owned(), two.now_ms - 10_000))),
        );
    }
    let at = |to: &str| sent.iter().filter(|(line, _)| line.starts_with(to)).map(|(_, at)| *at).collect::<Vec<_>>();
    assert_eq!(at("1"), [400, 1200, 2800]);
    assert_eq!(at("3"), [200, 600, 1400, 3000]);
    // The waits grow to a minute, and nothing is sent where there is no link.
    for _ in 0..20 {
        two.wait();
    }
    let before = two.now_ms;
    two.wait();
    two.wait();
    assert_eq!(two.now_ms - before, 60_000);
    two.link_down(1, true);
    two.link_down(3, true);
    assert_eq!(two.machine.deadline(), None);
}

/// Design: elections are rate-limited under flapping links.
#[test]
fn elections_that_follow_closely_wait_for_their_turn() {
    let mut two = One::of(2, 3);
    for round in 1..=5 {
        assert_eq!(two.look(5, 1).len(), 2, "round {round}");
        two.step(Input::Left);
    }
    assert_eq!(two.look(5, 1), NOTHING);
    // A vote that comes meanwhile counts when we begin.
    assert_eq!(two.hear(3, Looking, vote(3, 5, 6, 1)), NOTHING);
    assert_eq!(two.wait(), told("3 zxid 0x5 epoch 1 round 6"));
    assert_eq!(two.now_ms, 10_200);
}

//
#[test]
fn malformed_notifications_change_nothing() {
    let mut two = two_looks(1);
    for payload in [&[][..], &[0; 20], &[0xff; 60]] {
        assert_eq!(two.step(Input::Received { from: ServerId(3), payload }), NOTHING);
    }
    let mut unknown_state = encode_notification(Looking, &vote(3, 9, 9, 9), Some(""), &[]);
    unknown_state[3] = 4;
    assert_eq!(two.step(Input::Received { from: ServerId(3), payload: &unknown_state }), NOTHING);
    assert_eq!(two.machine.vote(), Some(&vote(2, 5, 1, 1)));
}

//
#[test]
fn a_newer_configuration_elsewhere_restarts_nothing() {
    let mut two = two_looks(1);
    let payload = encode_notification(Looking, &vote(1, 5, 1, 1), Some("server.1=a:1:2\nversion=100000000"), &[]);
    two.step(Input::Received { from: ServerId(1), payload: &payload });
    assert_eq!(two.machine.newest_foreign_version, 0x1_0000_0000);
    assert_eq!(two.machine.round, 1);
    assert_eq!(version_of(b"version=x"), None);
    assert_eq!(version_of(b"\xff"), None);
}

#[test]
fn new_voters_count_in_a_running_election() {
    let mut two = One::with(settings(2, false), ensemble(3, 3));
    two.look(5, 1);
    two.hear(1, Looking, vote(2, 5, 1, 1));
    let mut out = Vec::new();
    two.machine.reconfigure(Time::from_ms(two.now_ms), ensemble(5, 5), &mut out);
    assert_eq!(out.len(), 4);
    // Two of five are no quorum.
    two.now_ms += 100;
    assert_eq!(two.step(Input::Timeout), NOTHING);
    assert_eq!(two.hear(4, Looking, vote(2, 5, 1, 1)), NOTHING);
    assert_eq!(two.wait()[1], "Elected 2, Leading: 2 zxid 0x5 epoch 1 round 1 by 1 2 4");
}
