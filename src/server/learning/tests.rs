//! A follower whose leader the test plays.

use super::*;
use crate::server::bench::{Bench, FIRST, create};
use crate::shard::messages::{Ask, Tell};
use crate::types::ids::ConnectionId;
use crate::types::limits;
use crate::wire::txn::{TxnHeader, txn_type};
use crate::zab::RoleName;

const EPOCH: u32 = 3;

fn zxid(counter: u32) -> Zxid {
    Zxid::new(EPOCH, counter)
}

fn heard(connection: ConnectionId, what: &str, counter: u32) -> (u64, String, Zxid) {
    (connection.0, what.to_owned(), zxid(counter))
}

/// With one client, whose session was the first txn.
fn follower() -> (Bench, SessionId) {
    let mut bench = Bench::established(RoleName::Following, EPOCH);
    let session = bench.with_client(FIRST, zxid(1));
    (bench, session)
}

#[test]
fn a_new_session_is_the_leaders_to_create_and_gets_an_id_of_this_server() {
    let mut bench = Bench::established(RoleName::Following, EPOCH);
    let session = bench.open(FIRST);
    assert_eq!(session.0 >> 56, 2);
    assert_eq!(bench.zab_heard(), [format!("request session={session} cxid=0 op=-10")]);
    bench.append(session, 0, zxid(1), &Txn::CreateSession { timeout_ms: 4000 });
    assert!(bench.heard.is_empty(), "not before it is decided");
    bench.commit(zxid(1));
    assert_eq!(bench.heard, [heard(FIRST, "opened", 1)]);
}

#[test]
fn a_write_goes_to_the_leader_and_is_answered_when_its_txn_is_decided() {
    let (mut bench, session) = follower();
    bench.write(FIRST, session, 1..3);
    assert_eq!(
        bench.zab_heard(),
        [format!("request session={session} cxid=1 op=1"), format!("request session={session} cxid=2 op=1")]
    );
    bench.append_create(session, 1, zxid(2));
    bench.append_create(session, 2, zxid(3));
    bench.settle();
    assert!(bench.heard.is_empty() && bench.changed.is_empty());
    bench.commit(zxid(2));
    assert_eq!((bench.heard.clone(), bench.changed.clone()), (vec![heard(FIRST, "1 0", 2)], vec!["/n1".to_owned()]));
    bench.commit(zxid(3));
    assert_eq!(bench.heard, [heard(FIRST, "1 0", 2), heard(FIRST, "2 0", 3)]);
    assert!(bench.core.pending.is_empty());
}

#[test]
fn what_is_decided_is_published_also_in_the_middle_of_what_came_together() {
    let (mut bench, session) = follower();
    bench.write(FIRST, session, 1..4);
    for counter in 2..5 {
        let header = TxnHeader { session, cxid: counter as i32 - 1, zxid: zxid(counter), ..TxnHeader::default() };
        let mut bytes = Vec::new();
        txn::encode(&header, &create(&format!("/n{}", counter - 1)), None, &mut bytes);
        bench.script().txns.insert(zxid(counter), bytes);
    }
    bench.say((2..5).map(|counter| zab::Output::Append { zxid: zxid(counter) }));
    bench.commit(zxid(3));
    assert_eq!(bench.heard, [heard(FIRST, "1 0", 2), heard(FIRST, "2 0", 3)]);
    assert_eq!(bench.core.tree.published(), zxid(3));
    bench.commit(zxid(4));
    assert_eq!(bench.heard.last(), Some(&heard(FIRST, "3 0", 4)));
}

#[test]
fn txns_of_others_change_the_tree_and_answer_nobody() {
    let (mut bench, session) = follower();
    bench.write(FIRST, session, 1..2);
    bench.append(SessionId(99), 1, zxid(2), &create("/other"));
    bench.commit(zxid(2));
    assert_eq!((bench.heard.len(), bench.changed.clone()), (0, vec!["/other".to_owned()]));
    bench.append(session, 1, zxid(3), &Txn::Error { code: ErrorCode::NodeExists.code() });
    bench.commit(zxid(3));
    assert_eq!(bench.heard, [heard(FIRST, "1 -110", 3)]);
}

#[test]
fn a_session_that_has_moved_is_closed_here_without_a_word() {
    let (mut bench, session) = follower();
    bench.write(FIRST, session, 1..2);
    bench.append(session, 1, zxid(2), &Txn::Error { code: ErrorCode::SessionMoved.code() });
    bench.commit(zxid(2));
    assert_eq!(bench.heard, [heard(FIRST, "closed", 2)]);
    bench.write(ConnectionId(9), session, 2..3);
    assert_eq!(bench.tells, [Tell::Undecided { connection: ConnectionId(9) }], "nor does it speak from elsewhere");
}

#[test]
fn a_refused_multi_answers_as_on_the_leader() {
    let (mut bench, session) = follower();
    let multi = [0, 0, 0, 13, 0, 255, 255, 255, 255, 0, 0, 0, 2, b'/', b'a', 255, 255, 255, 255];
    let end = [255, 255, 255, 255, 1, 255, 255, 255, 255];
    bench.request(FIRST, session, 1, OpCode::Multi, &[&multi[..], &end].concat());
    let refused = Txn::failed_multi(vec![Txn::Check { path: "/a".into(), version: 1 }], 0, ErrorCode::NoNode);
    bench.append(session, 1, zxid(2), &refused);
    bench.commit(zxid(2));
    assert_eq!(bench.heard, [heard(FIRST, "1 0", 2)], "a success on the outside");
    assert_eq!(bench.core.effects.outcomes.len(), 1);
}

#[test]
fn what_no_leader_could_read_is_answered_here_at_its_place() {
    let (mut bench, session) = follower();
    bench.write(FIRST, session, 1..2);
    bench.request(FIRST, session, 2, OpCode::Create, b"not a create");
    bench.write(FIRST, session, 3..4);
    assert_eq!(bench.zab_heard().len(), 2, "the leader hears of the other two");
    bench.append_create(session, 1, zxid(2));
    bench.commit(zxid(2));
    assert_eq!(bench.heard, [heard(FIRST, "1 0", 2), heard(FIRST, "2 -5", 2)]);
    bench.append_create(session, 3, zxid(3));
    bench.commit(zxid(3));
    bench.request(FIRST, session, 4, OpCode::Create, b"");
    bench.settle();
    assert_eq!(bench.heard[2..], [heard(FIRST, "3 0", 3), heard(FIRST, "4 -5", 3)], "at once when nothing waits");
}

#[test]
fn a_sync_is_answered_behind_what_was_decided_before_it() {
    let (mut bench, session) = follower();
    bench.write(FIRST, session, 1..2);
    bench.request(FIRST, session, 2, OpCode::Sync, &[0, 0, 0, 1, b'/']);
    bench.write(FIRST, session, 3..4);
    assert_eq!(bench.zab_heard()[1], format!("request session={session} cxid=2 op=9"));
    bench.append_create(session, 1, zxid(2));
    bench.append_create(session, 3, zxid(3));
    bench.say([zab::Output::Commit { upto: zxid(2) }, zab::Output::Synced, zab::Output::Commit { upto: zxid(3) }]);
    assert_eq!(bench.heard, [heard(FIRST, "1 0", 2), heard(FIRST, "2 0", 2), heard(FIRST, "3 0", 3)]);
}

#[test]
fn a_client_that_comes_back_is_the_leaders_to_judge() {
    let (mut bench, session) = follower();
    let again = ConnectionId(2);
    bench.ask(vec![Ask::RenewSession { connection: again, session, timeout_ms: 6000 }]);
    assert_eq!(bench.zab_heard(), [format!("revalidate session={session} timeout_ms=6000")]);
    bench.say([zab::Output::Revalidated { session, is_alive: true }]);
    let renewed = Tell::Renewed { connection: again, session, timeout_ms: 6000, is_alive: true };
    assert_eq!(bench.tells, [Tell::Detach { connection: FIRST }, renewed]);
    bench.zab_heard();
    bench.step(crate::server::pipeline::Input::Batch {
        shard: crate::types::ids::ShardId(0),
        batch: crate::shard::messages::Batch { touched: vec![session, SessionId(5)], ..Default::default() },
    });
    assert_eq!(bench.zab_heard(), [format!("touched session={session} timeout_ms=6000")]);
}

#[test]
fn a_session_that_ends_is_forgotten_when_that_is_decided() {
    let (mut bench, session) = follower();
    bench.append(session, 0, zxid(2), &Txn::CloseSession { paths: None });
    assert!(bench.core.attached.contains_key(&session));
    bench.commit(zxid(2));
    assert!(!bench.core.attached.contains_key(&session));
}

#[test]
fn another_digest_than_the_leaders_is_counted_and_does_not_stop_anything() {
    let (mut bench, session) = follower();
    let header = TxnHeader { session, cxid: 1, zxid: zxid(2), ..TxnHeader::default() };
    let mut bytes = Vec::new();
    txn::encode(&header, &create("/a"), Some(TxnDigest::new(1)), &mut bytes);
    bench.script().txns.insert(zxid(2), bytes);
    bench.say([zab::Output::Append { zxid: zxid(2) }, zab::Output::Commit { upto: zxid(2) }]);
    assert_eq!(bench.core.digest_mismatches, 1);
    assert_eq!(bench.changed, ["/a"]);
}

#[test]
fn an_answer_out_of_turn_disconnects_those_that_were_passed_over() {
    let (mut bench, session) = follower();
    let other = bench.with_client(ConnectionId(2), zxid(2));
    bench.write(FIRST, session, 1..2);
    bench.write(ConnectionId(2), other, 1..2);
    bench.append_create(other, 1, zxid(3));
    bench.commit(zxid(3));
    assert_eq!(bench.tells, [Tell::Undecided { connection: FIRST }]);
    assert_eq!(bench.heard, [heard(ConnectionId(2), "1 0", 3)]);
}

#[test]
fn a_txn_that_cannot_be_read_stops_the_process() {
    let (mut bench, _) = follower();
    let mut other = Vec::new();
    txn::encode(&TxnHeader::default(), &create("/a"), None, &mut other);
    bench.script().txns.insert(zxid(2), other);
    bench.say([zab::Output::Append { zxid: zxid(2) }]);
    assert!(bench.told[0].starts_with("fatal txn 0x300000002 says that it is 0x0"), "{:?}", bench.told);
    let mut unknown = Vec::new();
    TxnHeader { zxid: zxid(3), ..TxnHeader::default() }.write(txn_type::CHECK + 100, &mut unknown);
    bench.script().txns.insert(zxid(3), unknown);
    bench.say([zab::Output::Append { zxid: zxid(3) }]);
    assert!(bench.told[1].contains("cannot be read"), "{:?}", bench.told);
}

#[test]
fn a_leader_that_is_faster_than_the_disk_waits() {
    let mut bench = Bench::established(RoleName::Following, EPOCH);
    let data = vec![7; 900_000];
    for counter in 1..40 {
        let txn = Txn::Create(crate::wire::txn::CreateTxn {
            path: format!("/n{counter}").into(),
            data: Some(data.as_slice().into()),
            acl: Default::default(),
            ephemeral: false,
            parent_cversion: -1,
        });
        bench.append(SessionId(99), counter as i32, zxid(counter), &txn);
    }
    assert!(bench.core.tree.head() < zxid(20));
    assert!(bench.core.log.unflushed_bytes() <= limits::LOG_IN_FLIGHT_BYTES_MAX);
    bench.settle();
    assert_eq!(bench.core.tree.head(), zxid(39));
    assert!(bench.core.takes_sockets());
}
