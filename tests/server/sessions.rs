//! Sessions: their ids, renewal, expiry and end.

use std::thread;
use std::time::{Duration, Instant};

use crate::server::setup::{Running, eventually, header, renewal};
use crate::support::client::{Answer, Client, create_body};
use crate::support::link::{Connect, Ended, op, request, xid};
use oxkeeper::types::ids::SessionId;

const OPEN: &[(i32, &str, &str)] = &[(31, "world", "anyone")];
const EPHEMERAL: i32 = 1;
const NO_AUTH: i32 = -102;
const NO_NODE: i32 = -101;
const NODE_DELETED: i32 = 2;
/// Two ticks are the shortest session.
const TICK_MS: i32 = 200;
const SHORTEST: Duration = Duration::from_millis(2 * TICK_MS as u64);
/// How late an expiry may be beyond timeout and tick on a machine that others use too.
const LATE: Duration = Duration::from_secs(2);

#[test]
fn c_014_the_timeout_is_clamped() {
    let defaults = Running::new(&["tickTime=1000"], &[]);
    let own = Running::new(&["tickTime=1000", "minSessionTimeout=500", "maxSessionTimeout=9000"], &[]);
    let granted = |server: &Running, wish| server.session(wish).1.timeout_ms;
    for wish in [-5, 0, 1] {
        assert_eq!((granted(&defaults, wish), granted(&own, wish)), (2000, 500));
    }
    assert_eq!((granted(&defaults, 10_000), granted(&own, 8000)), (10_000, 8000));
    assert_eq!((granted(&defaults, 10_000_000), granted(&own, i32::MAX)), (20_000, 9000));
}

#[test]
fn c_015_to_c_017_ids_rise_by_one_and_opening_and_closing_take_a_zxid() {
    let server = Running::new(&[], &[]);
    let mut first = server.client();
    let mut second = server.client();
    assert_eq!(second.session, first.session + 1);
    assert_eq!(first.session >> 56, 1);
    assert_eq!(first.password, SessionId(first.session).password(), "C-016");
    assert_eq!(first.ping().unwrap().zxid, 2);
    assert_eq!(second.close().unwrap().zxid, 3);
    let mut renewed = first.reattach(server.server.address, &first.password).expect("renewed");
    assert_eq!(renewed.create("/a", b"", 0).unwrap().zxid, 4, "renewal takes none");
}

#[test]
fn c_018_to_c_020_renewal_keeps_the_id_and_closes_the_older_connection() {
    let server = Running::new(&[], &[]);
    let (mut old, connected) = server.session(30_000);
    let (_new, renewed) = server.connect(&renewal(connected.session, &connected.password, 8000));
    assert_eq!((renewed.session, renewed.timeout_ms), (connected.session, 8000));
    assert_eq!(renewed.password, connected.password);
    assert_eq!(old.until_closed(), Ok(vec![]), "closed without a word");
}

#[test]
fn c_019_a_renewal_that_does_not_fit_is_refused_and_closed() {
    let server = Running::new(&[], &[]);
    let (_link, connected) = server.session(30_000);
    let right = connected.password.clone();
    let unknown = SessionId(connected.session + 1000);
    let with = |session, password: Option<Vec<u8>>| Connect { session, password, ..Connect::new_session(30_000) };
    let variants = [
        with(connected.session, Some(vec![1; 16])),
        with(connected.session, Some(right[..15].to_vec())),
        with(connected.session, None),
        with(unknown.0, Some(unknown.password().to_vec())),
    ];
    for connect in variants {
        let (mut link, refused) = server.connect(&connect);
        assert_eq!((refused.timeout_ms, refused.session, refused.read_only), (0, 0, Some(false)), "{connect:?}");
        assert_eq!(refused.password, [0; 16]);
        assert_eq!(link.until_closed(), Ok(vec![]));
    }
}

#[test]
fn c_022_a_client_from_the_future_is_closed_and_its_session_is_not_touched() {
    let server = Running::new(&[], &[]);
    let (mut link, connected) = server.session(30_000);
    let future = Connect { last_zxid_seen: 1 << 62, ..renewal(connected.session, &connected.password, 30_000) };
    let mut other = server.link();
    other.send(&future.to_frame());
    assert_eq!(other.until_closed(), Ok(vec![]));
    link.send(&request(1, op::PING, &[]));
    assert_eq!(header(&link.receive().unwrap()).0, xid::PING, "the first connection is still the session's");
}

#[test]
fn c_023_watches_and_ids_stay_with_the_connection() {
    let server = Running::new(&[], &[]);
    let mut first = server.client();
    first.auth("digest", "bob:secret").unwrap();
    first.create_with("/secret", &[(31, "auth", "")]).unwrap();
    first.create("/a", b"", 0).unwrap();
    first.read(op::GET_DATA, "/a", true).unwrap();
    let mut second = first.reattach(server.server.address, &first.password).expect("renewed");
    assert_eq!(second.read(op::GET_DATA, "/secret", false).unwrap().err, NO_AUTH);
    second.set_data("/a", b"x").unwrap();
    second.ping().unwrap();
    assert!(second.events.is_empty(), "{:?}", second.events);
}

/// How long after `since` the watcher hears of the deletion.
fn await_deletion(watcher: &mut Client, path: &str, since: Instant) -> Duration {
    assert_eq!(watcher.next_event().expect("the session expires"), format!("{NODE_DELETED} {path}"));
    since.elapsed()
}

#[test]
fn c_025_to_c_027_a_silent_session_expires_after_its_timeout_and_not_before() {
    let server = Running::new(&[&format!("tickTime={TICK_MS}")], &[]);
    let mut watcher = server.client_for(20 * TICK_MS);
    for round in 0..5 {
        let mut silent = server.client_for(1);
        let path = format!("/e{round}");
        silent.create(&path, b"", EPHEMERAL).unwrap();
        watcher.read(op::EXISTS, &path, true).unwrap();
        let touched = Instant::now();
        silent.ping().unwrap();
        let lived = await_deletion(&mut watcher, &path, touched);
        let most = SHORTEST + Duration::from_millis(TICK_MS as u64) + LATE;
        assert!(lived >= SHORTEST && lived <= most, "{lived:?}");
        assert_eq!(silent.link().until_closed(), Ok(vec![]), "closed without a word");
        assert_eq!(silent.reattach(server.server.address, &silent.password).err(), Some(Ended::Refused), "refused");
        watcher.ping().unwrap();
    }
}

/// Asks again and again for five timeouts. A session that ends although it was asked in time is a failure; one that
/// ends because this machine kept the test itself from running is not.
fn stays_alive(server: &Running, ask: fn(&mut Client) -> Answer) -> bool {
    let mut client = server.client_for(1);
    let end = Instant::now() + 5 * SHORTEST;
    let mut asked = Instant::now();
    while Instant::now() < end {
        thread::sleep(SHORTEST / 8);
        if let Err(ended) = ask(&mut client) {
            let silent = asked.elapsed();
            assert!(silent >= SHORTEST, "{ended:?} {silent:?} after it was heard from");
            return false;
        }
        asked = Instant::now();
    }
    true
}

#[test]
fn c_024_any_request_keeps_a_session() {
    let server = Running::new(&[&format!("tickTime={TICK_MS}")], &[]);
    eventually("pings keep it", || stays_alive(&server, Client::ping));
    eventually("reads keep it", || stays_alive(&server, |client| client.read(op::EXISTS, "/", false)));
}

#[test]
fn c_030_the_end_of_a_connection_is_not_that_of_its_session() {
    let server = Running::new(&[&format!("tickTime={TICK_MS}")], &[]);
    let mut watcher = server.client_for(20 * TICK_MS);
    let mut owner = server.client_for(1);
    owner.create("/e", b"", EPHEMERAL).unwrap();
    watcher.read(op::EXISTS, "/e", true).unwrap();
    let dropped = Instant::now();
    drop(owner);
    assert!(await_deletion(&mut watcher, "/e", dropped) + Duration::from_millis(50) >= SHORTEST);
}

#[test]
fn c_028_and_c_029_close_session_takes_its_ephemerals_and_whatever_stands_behind_it() {
    let server = Running::new(&[], &[]);
    let mut other = server.client();
    let (mut link, connected) = server.session(30_000);
    let mut bytes = request(1, op::CREATE, &create_body("/e", b"", OPEN, EPHEMERAL));
    bytes.extend(request(2, op::CLOSE_SESSION, &[]));
    bytes.extend(request(3, op::CREATE, &create_body("/late", b"", OPEN, EPHEMERAL)));
    bytes.extend(request(4, op::CREATE, &create_body("/later", b"", OPEN, 0)));
    link.send(&bytes);
    assert_eq!(header(&link.receive().unwrap()), (1, 3, 0));
    let closed = link.receive().unwrap();
    assert_eq!((header(&closed), closed.len()), ((2, 4, 0), 16));
    for path in ["/e", "/late", "/later"] {
        assert_eq!(other.read(op::EXISTS, path, false).unwrap().err, NO_NODE, "{path}");
    }
    assert_eq!(link.until_closed(), Ok(vec![]));
    let (_, refused) = server.connect(&renewal(connected.session, &connected.password, 30_000));
    assert_eq!(refused.session, 0);
}

#[test]
fn c_031_sessions_survive_a_crash_with_their_whole_timeout() {
    let mut server = Running::new(&[&format!("tickTime={TICK_MS}")], &[]);
    let mut kept = server.client_for(4 * TICK_MS);
    let mut lost = server.client_for(4 * TICK_MS);
    kept.create("/kept", b"", EPHEMERAL).unwrap();
    lost.create("/lost", b"", EPHEMERAL).unwrap();
    server.crash_and_restart();
    let up = Instant::now();
    let mut watcher = server.client_for(20 * TICK_MS);
    assert_eq!(watcher.read(op::EXISTS, "/lost", true).unwrap().err, 0, "a fresh timeout for all");
    let mut renewed = kept.reattach(server.server.address, &kept.password).expect("renewed");
    eventually("the other session expires", || {
        renewed.ping().expect("the renewed session lives");
        watcher.ping().expect("so does the watcher's");
        !watcher.events.is_empty()
    });
    assert_eq!(watcher.events, [format!("{NODE_DELETED} /lost")]);
    // The server was up a little before this test saw it.
    assert!(up.elapsed() + Duration::from_millis(300) >= Duration::from_millis(4 * TICK_MS as u64));
    assert_eq!(renewed.read(op::EXISTS, "/kept", false).unwrap().err, 0);
}

#[test]
fn c_032_a_connection_without_a_connect_request_is_closed() {
    let server = Running::new(&["nio.sessionlessCnxnTimeout=300"], &[]);
    let start = Instant::now();
    let mut silent = server.link();
    let mut begun = server.link();
    begun.send(&[0, 0, 0, 45, 0]);
    let (mut established, _) = server.session(30_000);
    assert_eq!(silent.until_closed(), Ok(vec![]));
    assert_eq!(begun.until_closed(), Ok(vec![]));
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    established.send(&request(1, op::PING, &[]));
    assert_eq!(header(&established.receive().unwrap()).0, xid::PING);
}
