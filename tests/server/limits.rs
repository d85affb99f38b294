//! Limits, throttles, and strangers on the client port.

use std::time::{Duration, Instant};

use oxkeeper::wire::jute::{Reader, Write};

use crate::server::setup::{Running, header};
use crate::support::client::{Client, create_body};
use crate::support::link::{Connect, op, request};

const OPEN: &[(i32, &str, &str)] = &[(31, "world", "anyone")];

/// `write_config` says 0; the last line of a key counts.
#[test]
fn c_174_connections_of_one_address_are_limited() {
    let server = Running::new(&["maxClientCnxns=3"], &[]);
    let mut kept: Vec<Client> = (0..3).map(|_| server.client()).collect();
    let mut one_more = server.link();
    one_more.send(&Connect::new_session(30_000).to_frame());
    assert_eq!(one_more.until_closed(), Ok(vec![]));
    kept.iter_mut().for_each(|client| assert_eq!(client.ping().unwrap().err, 0));
    kept.pop();
    crate::server::setup::eventually("the place is free again", || {
        Client::connect(server.server.address, 30_000).is_ok()
    });
}

#[test]
fn c_175_connections_are_limited_in_all() {
    let server = Running::new(&["maxCnxns=2"], &[]);
    let _kept: Vec<Client> = (0..2).map(|_| server.client()).collect();
    let mut one_more = server.link();
    one_more.send(&Connect::new_session(30_000).to_frame());
    assert_eq!(one_more.until_closed(), Ok(vec![]));
}

#[test]
fn c_176_above_the_outstanding_limit_nothing_is_refused_and_the_order_is_kept() {
    const REQUESTS: i32 = 3000;
    let server = Running::new(&["globalOutstandingLimit=1"], &[]);
    let (mut link, _) = server.session(30_000);
    let mut bytes = Vec::new();
    for at in 0..REQUESTS {
        bytes.extend(request(at, op::CREATE, &create_body(&format!("/n{at}"), b"", OPEN, 0)));
    }
    link.send(&bytes);
    for at in 0..REQUESTS {
        let (xid, zxid, err) = header(&link.receive().unwrap());
        assert_eq!((xid, zxid, err), (at, i64::from(at) + 2, 0));
    }
}

#[test]
fn c_177_without_a_token_a_connect_request_is_closed_and_a_later_one_passes() {
    let throttle = ["connection_throttle_tokens=1", "connection_throttle_fill_time=1500"];
    for shards in [&["oxkeeper.shards=1"], &["oxkeeper.shards=8"]] {
        let server = Running::new(&throttle, shards);
        let start = Instant::now();
        let _first = server.client();
        let mut second = server.link();
        second.send(&Connect::new_session(30_000).to_frame());
        assert_eq!(second.until_closed(), Ok(vec![]), "the limit is the server's, not a shard's");
        crate::server::setup::eventually("a token comes", || Client::connect(server.server.address, 30_000).is_ok());
        assert!(start.elapsed() >= Duration::from_millis(1400), "{:?}", start.elapsed());
        assert!(server.mntr("zk_connection_drop_count") >= 1);
    }
}

#[test]
fn c_178_large_requests_beyond_the_budget_close_their_connection() {
    let server = Running::new(&["largeRequestThreshold=100000", "largeRequestMaxBytes=150000"], &[]);
    let mut client = server.client();
    assert_eq!(client.create("/fits", &[1; 140_000], 0).unwrap().err, 0);
    assert_eq!(client.create("/again", &[1; 140_000], 0).unwrap().err, 0, "the budget was given back");
    assert_eq!(client.create("/small", &[1; 90_000], 0).unwrap().err, 0);
    // Its length alone is enough.
    client.link().send(&200_000_u32.to_be_bytes());
    assert_eq!(client.link().until_closed(), Ok(vec![]));
    // Two at once, which each would fit.
    let (mut link, _) = server.session(30_000);
    let mut bytes = request(1, op::CREATE, &create_body("/one", &[1; 120_000], OPEN, 0));
    bytes.extend(request(2, op::CREATE, &create_body("/two", &[1; 120_000], OPEN, 0)));
    link.send(&bytes);
    let mut answered = 0;
    while let Ok(reply) = link.receive() {
        answered += 1;
        assert_eq!(header(&reply).2, 0);
        if answered == 2 {
            // The first one was done before the second had come: allowed.
            break;
        }
    }
    assert_eq!(server.client().ping().unwrap().err, 0);
    assert!(server.mntr("zk_large_requests_rejected") >= 1);
}

#[test]
fn above_the_request_throttle_nothing_is_refused_and_every_order_is_kept() {
    const REQUESTS: i32 = 200;
    for shards in [&["oxkeeper.shards=1"], &["oxkeeper.shards=3"]] {
        let server = Running::new(&["request_throttle_max_requests=1"], shards);
        let mut links: Vec<_> = (0..4).map(|_| server.session(30_000).0).collect();
        for (at, link) in links.iter_mut().enumerate() {
            let create = |xid| request(xid, op::CREATE, &create_body(&format!("/n{at}-{xid}"), b"", OPEN, 0));
            let bytes: Vec<Vec<u8>> = (0..REQUESTS).map(create).collect();
            link.send(&bytes.concat());
        }
        for xid in 0..REQUESTS {
            for link in &mut links {
                let (got, _, err) = header(&link.receive().unwrap());
                assert_eq!((got, err), (xid, 0));
            }
        }
        assert!(server.mntr("zk_request_throttle_wait_count") >= 1);
        assert_eq!(server.mntr("zk_throttled_ops"), 0);
    }
}

#[test]
fn c_179_what_waited_longer_than_the_throttle_lets_it_is_refused_in_order_and_not_executed() {
    const REQUESTS: i32 = 500;
    const THROTTLED: i32 = -127;
    let server = Running::new(&["request_throttle_max_requests=1", "throttled_op_wait_time=1"], &[]);
    server.client().create("/counted", b"", 0).unwrap();
    let (mut link, _) = server.session(30_000);
    let mut body = Vec::new();
    body.put_string("/counted");
    body.put_buffer(Some(b"1"));
    body.put_i32(-1);
    let sets: Vec<Vec<u8>> = (0..REQUESTS).map(|xid| request(xid, op::SET_DATA, &body)).collect();
    link.send(&sets.concat());
    link.send(&request(REQUESTS, op::CLOSE_SESSION, &[]));
    let first = header(&link.receive().unwrap());
    assert_eq!((first.0, first.2), (0, 0), "nothing is before it");
    let (mut done, mut last) = (1, first.1);
    for xid in 1..REQUESTS {
        let (got, zxid, err) = header(&link.receive().unwrap());
        assert!(got == xid && (err == 0 || err == THROTTLED), "{got} {err}");
        assert_eq!(zxid - last, i64::from(err == 0), "a refusal uses no zxid");
        done += i32::from(err == 0);
        last = zxid;
    }
    assert_eq!(header(&link.receive().unwrap()), (REQUESTS, last + 1, 0));
    assert!(done < REQUESTS, "one at a time takes longer than a millisecond");
    let stat = server.client().read(op::EXISTS, "/counted", false).unwrap();
    assert_eq!(Reader::new(&stat.body).stat().unwrap().version, done);
    assert_eq!(server.mntr("zk_throttled_ops"), i64::from(REQUESTS - done));
}

const REFUSAL: &str = " is not executed because it is not in the whitelist.\n";

#[test]
fn c_184_and_s_101_only_listed_words_are_answered() {
    let server = Running::new(&["4lw.commands.whitelist="], &[]);
    for word in [
        "conf", "cons", "crst", "dirs", "dump", "envi", "gtmk", "ruok", "stmk", "srst", "stat", "wchc", "wchp", "wchs",
        "mntr", "isro", "hash",
    ] {
        assert_eq!(server.server.four_letter(word), Some(format!("{word}{REFUSAL}")));
    }
    assert!(server.server.four_letter("srvr").is_some_and(|answer| answer.contains("Mode: standalone\n")));
}

#[test]
fn s_104_and_s_118_words_are_answered_as_they_are_and_strangers_not_at_all() {
    let server = Running::new(&[], &[]);
    let answer = |bytes: &[u8]| {
        let mut link = server.link();
        link.send(bytes);
        link.until_closed().expect("closed")
    };
    assert_eq!(answer(b"ruok"), b"imok");
    assert_eq!(answer(b"isro"), b"rw");
    assert_eq!(answer(b"gtmk"), b"306");
    assert_eq!(answer(b"stmk\0\0\0\0\0\0\x01\x32"), b"306");
    assert_eq!(answer(b"ruok\n and more that nobody reads"), b"imok");
    assert_eq!(answer(b"nope"), b"");
    assert_eq!(answer(&[0xff, 0xf4, 0xff, 0xfd]), b"");
    assert_eq!(answer(&[0x16, 3, 1, 2, 0, 1, 0, 1]), b"", "TLS");
    assert!(answer(b"GET / HTTP/1.1\r\n\r\n").starts_with(b"HTTP/1.1 400 Bad Request\r\n"));
    // As `echo ruok | nc` does: the end of the stream with the word, or the word in pieces.
    let mut link = server.link();
    for byte in b"ruok" {
        link.send(&[*byte]);
    }
    link.end_stream();
    assert_eq!(link.until_closed(), Ok(b"imok".to_vec()));
}
