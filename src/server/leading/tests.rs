//! A leader of an ensemble whose learners the test plays.

use super::*;
use crate::server::bench::{Bench, FIRST, TIMEOUT_MS};
use crate::server::pipeline::Input;
use crate::shard::messages::Ask;
use crate::types::ids::ConnectionId;
use crate::wire::client_encode;
use crate::zab::leases::SessionState;

const EPOCH: u32 = 5;
const LINK: SocketId = SocketId(3);

fn zxid(counter: u32) -> Zxid {
    Zxid::new(EPOCH, counter)
}

fn leader() -> (Bench, SessionId) {
    let mut bench = Bench::established(RoleName::Leading, EPOCH);
    let session = bench.open(FIRST);
    bench.settle();
    bench.commit(zxid(1));
    bench.forget();
    (bench, session)
}

fn request(session: SessionId, cxid: i32, op: i32, body: &[u8]) -> zab::Output {
    let request = OwnedRequest { session, cxid, op, body: body.to_vec(), auth: Vec::new() };
    zab::Output::Request { socket: LINK, request: Box::new(request) }
}

fn create(session: SessionId, cxid: i32) -> zab::Output {
    let mut frame = Vec::new();
    client_encode::create(&mut frame, cxid, &format!("/n{cxid}"), b"data", 0);
    request(session, cxid, OpCode::Create as i32, &frame[12..])
}

/// Zxids of what was proposed since the last look.
fn proposed(bench: &mut Bench) -> Vec<String> {
    let heard = bench.zab_heard();
    let proposed = heard.iter().filter_map(|line| line.strip_prefix("propose "));
    proposed.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn an_epoch_begins_at_one_and_its_txns_are_published_when_they_are_decided() {
    let mut bench = Bench::established(RoleName::Leading, EPOCH);
    let session = bench.open(FIRST);
    assert_eq!(proposed(&mut bench), ["0x500000001"]);
    bench.write(FIRST, session, 1..3);
    bench.settle();
    assert!(bench.heard.is_empty(), "its own disk is not a quorum");
    bench.commit(zxid(2));
    let heard = |what: &str, counter| (FIRST.0, what.to_owned(), zxid(counter));
    assert_eq!(bench.heard, [heard("opened", 1), heard("1 0", 2)]);
    bench.commit(zxid(3));
    assert_eq!(bench.heard.last(), Some(&heard("2 0", 3)));
    assert!(bench.core.pending.is_empty());
}

#[test]
fn requests_of_learners_become_txns_in_their_order_and_refused_ones_too() {
    let (mut bench, _) = leader();
    let session = SessionId(0x0300_0000_0000_0001);
    bench.say([
        request(session, 0, txn_type::CREATE_SESSION, &TIMEOUT_MS.to_be_bytes()),
        create(session, 1),
        create(session, 1),
        request(session, 2, OpCode::Create as i32, b"not a create"),
        request(session, 3, OpCode::Sync as i32, b""),
        request(session, 4, OpCode::Check as i32, b""),
        request(session, 5, OpCode::CloseSession as i32, b""),
        create(session, 6),
    ]);
    let heard: Vec<String> = bench.zab_heard();
    let what: Vec<&str> = heard.iter().map(|line| line.split(" bytes").next().unwrap_or_default()).collect();
    assert_eq!(
        what,
        [
            "propose 0x500000002",
            "propose 0x500000003",
            "propose 0x500000004",
            "propose 0x500000005",
            "sync #3",
            "propose 0x500000006",
            "propose 0x500000007",
            "propose 0x500000008",
        ]
    );
    assert_eq!(bench.core.session_state(session), SessionState::Closing);
    bench.commit(zxid(8));
    assert_eq!(bench.core.session_state(session), SessionState::Unknown);
    assert_eq!(
        bench.changed,
        ["/n1"],
        "the second create, the garbage, the check and what came behind the close were refused"
    );
    assert!(bench.heard.is_empty(), "the learner answers");
}

#[test]
fn a_session_speaks_from_one_place_only() {
    let (mut bench, session) = leader();
    bench.say([create(session, 1)]);
    bench.settle();
    bench.commit(zxid(2));
    assert!(bench.changed.is_empty(), "its client is here");
    bench.say([zab::Output::Revalidate { socket: LINK, session, timeout_ms: 5000 }]);
    assert!(bench.zab_heard().contains(&format!("revalidated #3 session={session} is_alive=true")));
    bench.say([create(session, 2)]);
    bench.write(FIRST, session, 3..4);
    bench.settle();
    bench.commit(zxid(4));
    assert_eq!(bench.changed, ["/n2"]);
    assert_eq!(bench.heard, [(FIRST.0, "closed".to_owned(), zxid(4))]);
    bench.say([zab::Output::Revalidate { socket: LINK, session: SessionId(77), timeout_ms: 5000 }]);
    assert!(bench.zab_heard().contains(&"revalidated #3 session=0x4d is_alive=false".to_owned()));
}

#[test]
fn a_link_that_is_gone_takes_what_waits_and_its_claims_with_it() {
    let (mut bench, session) = leader();
    bench.say([zab::Output::Revalidate { socket: LINK, session, timeout_ms: 5000 }]);
    bench.say([create(session, 1), zab::Output::LinkClosed { socket: LINK }]);
    assert!(proposed(&mut bench).is_empty(), "it asks again over another link");
    bench.write(FIRST, session, 2..3);
    bench.settle();
    bench.commit(zxid(2));
    assert_eq!(bench.heard, [(FIRST.0, "2 0".to_owned(), zxid(2))], "whoever writes first has it");
}

#[test]
fn learners_touches_keep_sessions_alive_and_a_new_leader_gives_everybody_the_full_time() {
    let (mut bench, session) = leader();
    for _ in 0..5 {
        bench.time = bench.time + Duration::from_millis(3000);
        bench.say([zab::Output::Touch { session, timeout_ms: TIMEOUT_MS }]);
    }
    assert_eq!(bench.core.session_state(session), SessionState::Live);
    bench.say([zab::Output::Settle]);
    bench.time = bench.time + Duration::from_secs(60);
    bench.step(Input::Timeout);
    bench.establish(RoleName::Leading, EPOCH + 1);
    bench.time = bench.time + Duration::from_millis(TIMEOUT_MS as u64);
    bench.step(Input::Timeout);
    assert_eq!(bench.core.session_state(session), SessionState::Live);
    bench.time = bench.time + Duration::from_millis(2500);
    bench.forget();
    bench.step(Input::Timeout);
    assert_eq!(bench.core.session_state(session), SessionState::Closing);
    assert_eq!(proposed(&mut bench), ["0x600000001"]);
}

#[test]
fn a_client_of_the_leader_that_comes_back_needs_no_question() {
    let (mut bench, session) = leader();
    let again = ConnectionId(2);
    bench.ask(vec![Ask::RenewSession { connection: again, session, timeout_ms: 6000 }]);
    let renewed = Tell::Renewed { connection: again, session, timeout_ms: 6000, is_alive: true };
    assert_eq!(bench.tells, [Tell::Detach { connection: FIRST }, renewed]);
    bench.write(FIRST, session, 1..2);
    assert_eq!(bench.tells.last(), Some(&Tell::Undecided { connection: FIRST }));
}

#[test]
fn a_snapshot_for_a_learner_shows_what_is_decided_and_counts_the_epoch() {
    let mut bench = Bench::established(RoleName::Leading, EPOCH);
    bench.say([zab::Output::ReadSnapshot { socket: LINK }]);
    assert_eq!(bench.told, ["read #3 at 0x500000000"]);
    bench.open(FIRST);
    bench.settle();
    bench.say([zab::Output::ReadSnapshot { socket: LINK }]);
    bench.commit(zxid(1));
    bench.say([zab::Output::ReadSnapshot { socket: LINK }]);
    assert_eq!(bench.told[1..], ["read #3 at 0x500000000", "read #3 at 0x500000001"]);
}
