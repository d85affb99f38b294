//! Between two leaders: what clients asked for is neither lost nor done twice, and tree, log and clients agree again.

use std::time::Duration;

use super::*;
use crate::server::bench::{Bench, FIRST, TIMEOUT_MS, tree_settings, tree_upto};
use crate::server::pipeline::Input;
use crate::shard::messages::Ask;
use crate::storage::snapshot_stream::StreamWriter;
use crate::types::ids::{ConnectionId, SessionId};
use crate::types::limits;
use crate::wire::client::OpCode;
use crate::wire::txn::Txn;

fn zxid(counter: u32) -> Zxid {
    Zxid::new(3, counter)
}

/// With a client whose session was the first txn of epoch 3.
fn member(role: RoleName) -> (Bench, SessionId) {
    let mut bench = Bench::established(role, 3);
    if role == RoleName::Leading {
        let session = bench.open(FIRST);
        bench.settle();
        bench.commit(zxid(1));
        bench.forget();
        return (bench, session);
    }
    let session = bench.with_client(FIRST, zxid(1));
    (bench, session)
}

fn requests(bench: &mut Bench) -> Vec<String> {
    let heard = bench.zab_heard();
    let requests = heard.iter().filter(|line| line.starts_with("request"));
    requests.filter_map(|line| line.split(' ').nth(2)).map(str::to_owned).collect()
}

#[test]
fn clients_freeze_until_a_leader_is_established_and_what_they_ask_waits() {
    let (mut bench, session) = member(RoleName::Following);
    bench.say([zab::Output::Settle]);
    assert_eq!(bench.tells, [Tell::Freeze]);
    bench.write(FIRST, session, 1..3);
    bench.ask(vec![Ask::OpenSession { connection: ConnectionId(2), timeout_ms: TIMEOUT_MS }]);
    assert!(requests(&mut bench).is_empty());
    bench.establish(RoleName::Following, 4);
    assert_eq!(bench.tells, [Tell::Freeze, Tell::Thaw { forwards_syncs: true }]);
    assert_eq!(requests(&mut bench), ["cxid=1", "cxid=2", "cxid=0"]);
}

#[test]
fn batches_that_wait_for_a_leader_are_bounded() {
    let (mut bench, session) = member(RoleName::Following);
    bench.say([zab::Output::Settle]);
    for xid in 1..=limits::HELD_BATCHES_MAX as i32 {
        assert!(bench.core.takes_batches());
        bench.write(FIRST, session, xid..xid + 1);
    }
    assert!(!bench.core.takes_batches());
    bench.establish(RoleName::Leading, 4);
    bench.settle();
    assert!(bench.core.takes_batches());
}

#[test]
fn what_a_lost_leader_had_not_proposed_goes_to_the_next_one_in_order() {
    let (mut bench, session) = member(RoleName::Following);
    bench.write(FIRST, session, 1..4);
    bench.request(FIRST, session, 4, OpCode::Sync, &[0, 0, 0, 1, b'/']);
    bench.write(FIRST, session, 5..6);
    bench.append_create(session, 1, zxid(2));
    bench.say([zab::Output::Settle]);
    // The next leader's history has one more of them.
    bench.append_create(session, 2, zxid(3));
    bench.settle();
    bench.forget();
    bench.say([zab::Output::Commit { upto: zxid(3) }]);
    assert_eq!(bench.heard.iter().map(|(_, what, _)| what.as_str()).collect::<Vec<_>>(), ["1 0", "2 0"]);
    bench.establish(RoleName::Following, 4);
    assert_eq!(requests(&mut bench), ["cxid=3", "cxid=4", "cxid=5"]);
}

#[test]
fn a_request_whose_client_is_gone_is_not_handed_over() {
    let (mut bench, session) = member(RoleName::Following);
    let other = bench.with_client(ConnectionId(2), zxid(2));
    bench.write(FIRST, session, 1..2);
    bench.write(ConnectionId(2), other, 1..2);
    bench.say([zab::Output::Settle]);
    bench.write(FIRST, session, 2..3);
    bench.ask(vec![Ask::Detached { connection: FIRST, session }]);
    bench.forget();
    bench.establish(RoleName::Following, 4);
    let heard = bench.zab_heard();
    let touched = format!("touched session={other} timeout_ms={TIMEOUT_MS}");
    assert_eq!(heard, [format!("request session={other} cxid=1 op=1"), touched]);
}

/// The next leader gave every session its full time when it was established, which may be long ago for a server that comes
/// late, and nobody else has heard of its clients meanwhile.
#[test]
fn a_server_that_joins_a_leader_tells_who_is_connected() {
    let (mut bench, session) = member(RoleName::Leading);
    let gone = bench.open(ConnectionId(2));
    bench.settle();
    bench.commit(zxid(2));
    bench.say([zab::Output::Settle]);
    bench.ask(vec![Ask::Detached { connection: ConnectionId(2), session: gone }]);
    bench.forget();
    bench.establish(RoleName::Following, 4);
    assert_eq!(bench.zab_heard(), [format!("touched session={session} timeout_ms={TIMEOUT_MS}")]);
}

#[test]
fn the_same_leader_may_have_the_request_still_so_its_client_is_let_go() {
    let (mut bench, session) = member(RoleName::Following);
    let other = bench.with_client(ConnectionId(2), zxid(2));
    bench.write(FIRST, session, 1..2);
    bench.request(ConnectionId(2), other, 1, OpCode::Sync, &[0, 0, 0, 1, b'/']);
    bench.say([zab::Output::Settle]);
    bench.forget();
    bench.establish(RoleName::Following, 3);
    assert_eq!(bench.tells, [Tell::Undecided { connection: FIRST }, Tell::Thaw { forwards_syncs: true }]);
    assert_eq!(requests(&mut bench), ["cxid=1"], "a sync may be asked twice");
}

#[test]
fn a_follower_that_is_elected_prepares_what_it_had_forwarded() {
    let (mut bench, session) = member(RoleName::Following);
    bench.write(FIRST, session, 1..3);
    bench.request(FIRST, session, 3, OpCode::Sync, &[0, 0, 0, 1, b'/']);
    bench.request(FIRST, session, 4, OpCode::Create, b"not a create");
    bench.say([zab::Output::Settle]);
    bench.write(FIRST, session, 5..6);
    bench.forget();
    bench.establish(RoleName::Leading, 4);
    assert_eq!(bench.tells.last(), Some(&Tell::Thaw { forwards_syncs: false }));
    bench.commit(Zxid::new(4, 3));
    let heard: Vec<(&str, Zxid)> = bench.heard.iter().map(|(_, what, zxid)| (what.as_str(), *zxid)).collect();
    let at = |counter| Zxid::new(4, counter);
    assert_eq!(heard, [("1 0", at(1)), ("2 0", at(2)), ("3 0", at(2)), ("4 -5", at(2)), ("5 0", at(3))]);
    assert!(bench.core.pending.is_empty());
}

#[test]
fn proposals_of_a_former_leader_that_nobody_has_go_to_the_next_one() {
    let (mut bench, session) = member(RoleName::Leading);
    bench.write(FIRST, session, 1..4);
    bench.settle();
    bench.say([zab::Output::Settle]);
    assert!(bench.zab_heard().contains(&"settled last=0x300000004 committed=0x300000001".to_owned()));
    bench.say([zab::Output::Truncate { to: zxid(2) }]);
    bench.settle();
    assert_eq!(bench.told, ["truncate to 0x300000002, shown Some(0x300000001)"]);
    let tree = rebuilt(&bench, session);
    bench.step(Input::Truncated { tree: Box::new(tree) });
    assert!(bench.told[1].ends_with("closes=false"), "{:?}", bench.told);
    assert!(bench.zab_heard().contains(&"installed 0x300000002".to_owned()));
    bench.settle();
    bench.commit(zxid(2));
    assert_eq!(bench.heard.iter().map(|(_, what, _)| what.as_str()).collect::<Vec<_>>(), ["1 0"]);
    assert_eq!(bench.changed, ["/n1"]);
    bench.establish(RoleName::Following, 4);
    assert_eq!(requests(&mut bench), ["cxid=2", "cxid=3"]);
    bench.append_create(session, 2, Zxid::new(4, 1));
    bench.settle();
    bench.commit(Zxid::new(4, 1));
    assert_eq!(bench.heard.last(), Some(&(FIRST.0, "2 0".to_owned(), Zxid::new(4, 1))));
}

/// The tree as the files give it: the session and `/n1`, the first of which was shown.
fn rebuilt(bench: &Bench, session: SessionId) -> Tree {
    let mut tree = Tree::fresh(tree_settings());
    let mut effects = crate::tree::effects::Effects::default();
    let mut apply = |cxid, counter, txn: Txn<'_>| {
        let time = bench.now().wall;
        let header = crate::wire::txn::TxnHeader { session, cxid, zxid: zxid(counter), time };
        effects.begin();
        tree.apply(&header, &txn, &mut effects);
        if counter == 1 {
            tree.publish(zxid(1));
        }
    };
    apply(0, 1, Txn::CreateSession { timeout_ms: TIMEOUT_MS });
    apply(1, 2, crate::server::bench::create("/n1"));
    tree
}

#[test]
fn the_log_is_at_rest_before_a_server_votes_with_it() {
    let (mut bench, session) = member(RoleName::Leading);
    bench.write(FIRST, session, 1..3);
    bench.forget();
    bench.say([zab::Output::Settle]);
    assert!(bench.zab_heard().is_empty(), "a write is under way");
    bench.settle();
    assert_eq!(bench.zab_heard(), ["settled last=0x300000003 committed=0x300000001"]);
}

#[test]
fn nothing_that_was_decided_is_cut() {
    let (mut bench, _) = member(RoleName::Following);
    bench.say([zab::Output::Settle, zab::Output::Truncate { to: Zxid::new(2, 9) }]);
    assert!(bench.told[0].starts_with("fatal the leader wants the log cut"), "{:?}", bench.told);
}

#[test]
fn a_member_that_has_served_nobody_is_cut_without_closing_anything() {
    let mut bench = Bench::new();
    for counter in 1..4 {
        bench.append(SessionId(99), 1, Zxid::new(1, counter), &crate::server::bench::create(&format!("/x{counter}")));
    }
    bench.settle();
    bench.say([zab::Output::Settle, zab::Output::Truncate { to: Zxid::new(1, 1) }]);
    bench.settle();
    assert_eq!(bench.told, ["truncate to 0x100000001, shown None"]);
    bench.step(Input::Truncated { tree: Box::new(tree_upto(1, 1)) });
    assert!(bench.told[1].ends_with("closes=false"));
    assert_eq!(bench.core.log.appended(), Zxid::new(1, 1));
    bench.settle();
    bench.append(SessionId(99), 1, Zxid::new(4, 1), &crate::server::bench::create("/y"));
    bench.commit(Zxid::new(4, 1));
    assert_eq!(bench.changed, ["/y"], "nothing of what was never shown");
}

fn stream(tree: &Tree) -> Vec<u8> {
    let mut bytes = Vec::new();
    assert!(StreamWriter::new(tree.reader().expect("the only reader")).write(1 << 20, &mut bytes));
    bytes
}

fn load(bench: &mut Bench, at: Zxid, bytes: &[u8]) {
    bench.say([zab::Output::LoadBegin { zxid: at }]);
    for piece in bytes.chunks(50) {
        bench.say([zab::Output::LoadPiece { bytes: piece.to_vec() }]);
    }
}

#[test]
fn a_leaders_snapshot_takes_the_place_of_everything() {
    let (mut bench, session) = member(RoleName::Following);
    bench.write(FIRST, session, 1..2);
    bench.say([zab::Output::Settle]);
    bench.write(FIRST, session, 2..3);
    bench.forget();
    let theirs = tree_upto(5, 5);
    let at = Zxid::new(4, 0);
    load(&mut bench, at, &stream(&theirs));
    bench.say([zab::Output::LoadEnd]);
    bench.settle();
    assert_eq!(bench.told, ["install 0x400000000"]);
    assert!(bench.core.tree().head() < at, "not before it is durable");
    bench.step(Input::Installed { bytes: 100 });
    assert!(bench.told[1].ends_with("closes=true"), "{:?}", bench.told);
    assert_eq!(bench.zab_heard(), ["installed 0x400000000"]);
    assert_eq!((bench.core.tree().head(), bench.core.tree().published()), (at, at));
    assert_eq!(bench.core.tree().digest(), theirs.digest());
    bench.settle();
    bench.establish(RoleName::Following, 4);
    assert!(requests(&mut bench).is_empty(), "whoever asked is disconnected");
    bench.append(SessionId(99), 1, Zxid::new(4, 1), &crate::server::bench::create("/y"));
    bench.commit(Zxid::new(4, 1));
    assert_eq!((bench.changed.clone(), bench.core.log.appended()), (vec!["/y".to_owned()], Zxid::new(4, 1)));
}

#[test]
fn a_snapshot_that_breaks_off_leaves_everything_as_it_was() {
    let (mut bench, _) = member(RoleName::Following);
    bench.say([zab::Output::Settle]);
    bench.settle();
    bench.forget();
    let bytes = stream(&tree_upto(5, 5));
    load(&mut bench, Zxid::new(4, 0), &bytes[..bytes.len() / 2]);
    bench.say([zab::Output::Settle]);
    assert_eq!(bench.zab_heard(), ["settled last=0x300000001 committed=0x300000001"]);
    assert_eq!(bench.core.tree().head(), zxid(1));

    load(&mut bench, Zxid::new(4, 0), &bytes[..bytes.len() - 1]);
    bench.say([zab::Output::LoadEnd]);
    assert_eq!(bench.zab_heard(), ["load_failed the leader's snapshot is cut short"]);
    load(
        &mut bench,
        Zxid::new(4, 0),
        b"\x7f\xff\xff\xff nothing of the kind, and nothing that could become a snapshot either",
    );
    assert_eq!(bench.core.tree().head(), zxid(1));
}

#[test]
fn no_snapshot_is_taken_of_what_is_not_decided() {
    let mut bench = Bench::new();
    assert!(!bench.core.may_take_snapshot());
    bench.say([zab::Output::Settle]);
    bench.append(SessionId(99), 1, zxid(1), &crate::server::bench::create("/x"));
    bench.settle();
    bench.establish(RoleName::Following, 3);
    bench.commit(zxid(1));
    assert!(bench.core.may_take_snapshot());
    assert_eq!(bench.core.tree().published(), zxid(1));
}

#[test]
fn a_stop_hands_over_first_and_closes_the_log_behind_it() {
    let (mut bench, session) = member(RoleName::Leading);
    bench.write(FIRST, session, 1..2);
    bench.settle();
    bench.step(Input::Stop);
    assert!(bench.zab_heard().contains(&"stop".to_owned()));
    assert!(bench.told.is_empty());
    bench.commit(zxid(2));
    assert_eq!(bench.heard.len(), 1, "what was on its way is still decided");
    bench.say([zab::Output::Stopped]);
    bench.settle();
    assert_eq!(bench.told, ["stopped"]);
}

#[test]
fn frozen_leases_do_not_run_out() {
    let (mut bench, session) = member(RoleName::Leading);
    bench.say([zab::Output::Settle]);
    bench.time = bench.time + Duration::from_secs(600);
    bench.step(Input::Timeout);
    bench.establish(RoleName::Following, 4);
    assert!(bench.core.tree().sessions().any(|(id, _)| id == session));
    assert!(bench.core.deadline().is_none_or(|at| at > bench.time));
}
