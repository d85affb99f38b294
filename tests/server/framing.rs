//! Bytes as they are: frames, headers, and what becomes of bad ones.

use crate::server::setup::{Running, header, hex, renewal};
use crate::support::client::{create_body, path_and_int};
use crate::support::link::{Connect, Connected, Ended, frame, op, request, xid};
use oxkeeper::types::ids::SessionId;
use oxkeeper::wire::jute::Write;

const OPEN: &[(i32, &str, &str)] = &[(31, "world", "anyone")];
const MAX_BUFFER: usize = 0xf_ffff;
const MARSHALLING_ERROR: i32 = -5;
const UNIMPLEMENTED: i32 = -6;
const NO_NODE: i32 = -101;
const PING: &str = "00000008 fffffffe 0000000b";

fn path_and_watch(path: &str, watch: u8) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_string(path);
    body.put(&[watch]);
    body
}

/// Section 12 of the client protocol, on a fresh server.
#[test]
fn c_001_frames_are_those_of_the_reference_byte_by_byte() {
    let server = Running::new(&[], &[]);
    let mut link = server.link();
    link.send(&hex("0000002d 00000000 0000000000000000 00007530 0000000000000000 00000010 \
                    00000000000000000000000000000000 00"));
    let response = link.receive_bytes(41).unwrap();
    let session = i64::from_be_bytes(response[12..20].try_into().unwrap());
    let mut expected = hex("00000025 00000000 00007530");
    expected.put_i64(session);
    expected.put_buffer(Some(&SessionId(session).password()));
    expected.put(&[0]);
    assert_eq!(response, expected);
    assert_eq!(response[12], 1, "the server's id");
    let mut check = |request: &str, reply: &str| {
        link.send(&hex(request));
        let reply = hex(reply);
        assert_eq!(link.receive_bytes(reply.len()), Ok(reply), "{request}");
    };
    check(PING, "00000010 fffffffe 0000000000000001 00000000");
    check(
        "00000033 00000001 00000001 00000002 2f61 00000002 6869 00000001 0000001f 00000005 776f726c64 00000006 \
         616e796f6e65 00000000",
        "00000016 00000001 0000000000000002 00000000 00000002 2f61",
    );
    check("0000000f 00000002 00000003 00000002 2f62 01", "00000010 00000002 0000000000000002 ffffff9b");
    check(
        "00000024 fffffffc 00000064 00000000 00000006 646967657374 0000000a 626f623a736563726574",
        "00000010 fffffffc 0000000000000000 00000000",
    );
    check(
        "00000031 00000007 00000001 00000002 2f62 00000000 00000001 0000001f 00000005 776f726c64 00000006 \
         616e796f6e65 00000000",
        "0000001e ffffffff 0000000000000003 00000000 00000001 00000003 00000002 2f62 \
         00000016 00000007 0000000000000003 00000000 00000002 2f62",
    );
    check(
        "00000058 00000003 0000000e 0000000d 00 ffffffff 00000002 2f61 00000000 00000001 00 ffffffff 00000004 2f612f63 \
         00000000 00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00000000 ffffffff 01 ffffffff",
        "00000033 00000003 0000000000000004 00000000 0000000d 00 00000000 00000001 00 00000000 00000004 2f612f63 \
         ffffffff 01 ffffffff",
    );
    check(
        "00000028 fffffff8 00000065 0000000000000002 00000001 00000002 2f61 00000001 00000002 2f7a 00000000",
        "00000010 fffffff8 0000000000000004 00000000",
    );
    check("00000008 00000005 fffffff5", "00000010 00000005 0000000000000005 00000000");
    assert_eq!(link.until_closed(), Ok(vec![]), "C-028: end of stream behind closeSession");
}

#[test]
fn c_013_the_response_has_the_read_only_byte_if_the_request_has() {
    let server = Running::new(&[], &[]);
    let old = Connect { read_only: None, ..Connect::new_session(30_000) };
    let (_link, connected) = server.connect(&old);
    assert_eq!((connected.read_only, connected.trailing, connected.protocol), (None, 0, 0));
    let mut versioned = Connect::new_session(30_000).to_frame();
    versioned[7] = 7;
    let mut link = server.link();
    link.send(&versioned);
    let connected = Connected::decode(&link.receive().unwrap()).unwrap();
    assert_eq!((connected.protocol, connected.read_only, connected.trailing), (0, Some(false), 0));
}

#[test]
fn c_002_and_c_004_bad_lengths_close_without_a_byte_and_leave_the_session() {
    let server = Running::new(&[], &[]);
    let too_long = ((MAX_BUFFER + 1) as u32).to_be_bytes().to_vec();
    for bytes in [hex("ffffffff"), too_long, hex("00000000"), hex("00000004 00000001")] {
        let mut link = server.link();
        link.send(&bytes);
        assert_eq!(link.until_closed(), Ok(vec![]), "{bytes:?} as first frame");
        let (mut link, connected) = server.session(30_000);
        link.send(&bytes);
        assert_eq!(link.until_closed(), Ok(vec![]), "{bytes:?} in a session");
        let (_, renewed) = server.connect(&renewal(connected.session, &connected.password, 30_000));
        assert_eq!(renewed.session, connected.session);
    }
}

#[test]
fn c_003_a_frame_may_be_as_long_as_jute_maxbuffer_and_no_longer() {
    let server = Running::new(&[], &[]);
    let (mut link, _) = server.session(30_000);
    let empty = create_body("/big", b"", OPEN, 0).len() + 8;
    let body = create_body("/big", &vec![7; MAX_BUFFER - empty], OPEN, 0);
    assert_eq!(body.len() + 8, MAX_BUFFER);
    link.send(&request(1, op::CREATE, &body));
    assert_eq!(header(&link.receive().unwrap()), (1, 2, 0));
    link.send(&request(2, op::GET_DATA, &path_and_watch("/big", 0)));
    assert!(link.receive().unwrap().len() > MAX_BUFFER - empty);
    link.send(&request(3, op::CREATE, &create_body("/more", &vec![7; MAX_BUFFER - empty], OPEN, 0)));
    assert_eq!(link.until_closed(), Ok(vec![]));
    assert_eq!(server.client().read(op::EXISTS, "/more", false).unwrap().err, NO_NODE);
}

#[test]
fn c_005_a_body_that_cannot_be_read_is_an_error_and_the_connection_stays() {
    let server = Running::new(&[], &[]);
    let (mut link, _) = server.session(30_000);
    let mut long = 1000_u32.to_be_bytes().to_vec();
    long.extend_from_slice(&[b'/'; 16]);
    let bodies: [(i32, &[u8]); 6] = [
        (op::CREATE, &[0, 0, 0]),
        (op::GET_DATA, &long),
        (op::SET_DATA, &[255, 255, 255, 254]),
        (op::MULTI, &[0]),
        (op::SET_WATCHES, &[1, 2, 3]),
        (op::DELETE, b""),
    ];
    for (at, (op, body)) in bodies.into_iter().enumerate() {
        link.send(&request(at as i32, op, body));
        let (xid, _, err) = header(&link.receive().unwrap());
        assert_eq!((xid, err), (at as i32, MARSHALLING_ERROR), "op {op}");
        link.send(&hex(PING));
        assert_eq!(header(&link.receive().unwrap()).0, xid::PING);
    }
}

#[test]
fn c_006_and_c_008_what_stands_behind_a_record_is_ignored_and_any_byte_is_true() {
    let server = Running::new(&[], &[]);
    let (mut link, _) = server.session(30_000);
    let mut body = path_and_watch("/watched", 2);
    body.extend_from_slice(&[9; 5]);
    link.send(&request(1, op::EXISTS, &body));
    assert_eq!(header(&link.receive().unwrap()).2, NO_NODE);
    server.client().create("/watched", b"", 0).unwrap();
    assert_eq!(header(&link.receive().unwrap()).0, xid::NOTIFICATION);
}

#[test]
fn c_009_a_path_that_is_no_utf_8_is_refused() {
    let server = Running::new(&[], &[]);
    let (mut link, _) = server.session(30_000);
    let mut body = create_body("/xy", b"", OPEN, 0);
    body[5..7].copy_from_slice(&[0xff, 0xfe]);
    link.send(&request(1, op::CREATE, &body));
    assert_eq!(header(&link.receive().unwrap()).2, -8);
}

#[test]
fn c_010_frames_arrive_split_or_joined_at_any_byte() {
    let server = Running::new(&[], &[]);
    let mut link = server.link();
    let mut bytes = Connect::new_session(30_000).to_frame();
    bytes.extend(request(1, op::CREATE, &create_body("/slow", b"data", OPEN, 0)));
    bytes.extend(request(2, op::GET_DATA, &path_and_watch("/slow", 0)));
    for byte in bytes {
        link.send(&[byte]);
    }
    assert_eq!(link.receive().unwrap().len(), 37);
    assert_eq!(header(&link.receive().unwrap()).0, 1);
    assert_eq!(header(&link.receive().unwrap()), (2, 2, 0));
    let mut joined = Vec::new();
    for at in 0..100 {
        let path = format!("/joined{at}");
        match at % 2 {
            0 => joined.extend(request(at, op::CREATE, &create_body(&path, b"", OPEN, 0))),
            _ => joined.extend(request(at, op::EXISTS, &path_and_watch(&format!("/joined{}", at - 1), 0))),
        }
    }
    link.send(&joined);
    for at in 0..100 {
        let (xid, _, err) = header(&link.receive().unwrap());
        assert_eq!((xid, err), (at, 0), "C-197, C-198: in order, and own writes are seen");
    }
}

#[test]
fn c_011_a_reply_longer_than_jute_maxbuffer_is_sent_whole() {
    const CHILDREN: i32 = 20_000;
    let server = Running::new(&[], &[]);
    let (mut link, _) = server.session(30_000);
    let name = "n".repeat(54);
    for batch in 0..CHILDREN / 1000 {
        let mut bytes = Vec::new();
        for at in batch * 1000..(batch + 1) * 1000 {
            bytes.extend(request(at, op::CREATE, &create_body(&format!("/{name}{at:06}"), b"", OPEN, 0)));
        }
        link.send(&bytes);
        for _ in 0..1000 {
            assert_eq!(header(&link.receive().unwrap()).2, 0);
        }
    }
    link.send(&request(1, op::GET_CHILDREN, &path_and_watch("/", 0)));
    let reply = link.receive().unwrap();
    assert!(reply.len() > CHILDREN as usize * 64, "{}", reply.len());
}

#[test]
fn c_012_requests_behind_the_connect_request_wait_for_the_session() {
    let server = Running::new(&[], &[]);
    let mut link = server.link();
    let mut auth = Vec::new();
    auth.put_i32(0);
    auth.put_string("digest");
    auth.put_string("bob:secret");
    let mut bytes = Connect::new_session(30_000).to_frame();
    bytes.extend(request(xid::AUTH, op::AUTH, &auth));
    bytes.extend(request(1, op::CREATE, &create_body("/own", b"x", &[(31, "auth", "")], 0)));
    bytes.extend(request(2, op::GET_DATA, &path_and_watch("/own", 0)));
    link.send(&bytes);
    assert_eq!(link.receive().unwrap().len(), 37);
    let headers: Vec<_> = (0..3).map(|_| header(&link.receive().unwrap())).collect();
    assert_eq!(headers, [(xid::AUTH, 0, 0), (1, 2, 0), (2, 2, 0)]);
}

#[test]
fn c_037_to_c_044_headers_say_what_happened() {
    let server = Running::new(&[], &[]);
    let (mut link, _) = server.session(30_000);
    let mut ask = |xid, op, body: &[u8]| {
        link.send(&request(xid, op, body));
        let reply = link.receive().unwrap();
        (header(&reply), reply.len())
    };
    let create = create_body("/h", b"", OPEN, 0);
    assert_eq!(ask(1, op::CREATE, &create).0, (1, 2, 0), "C-039");
    assert_eq!(ask(i32::MAX, op::CREATE, &create), ((i32::MAX, 3, -110), 16), "C-037, C-040, C-044");
    assert_eq!(ask(7, op::EXISTS, &path_and_watch("/none", 0)), ((7, 3, NO_NODE), 16), "C-041, C-044");
    assert_eq!(ask(55, op::PING, &[]).0, (xid::PING, 3, 0), "C-038");
    assert_eq!(ask(8, op::DELETE, &path_and_int("/h", 9)), ((8, 4, -103), 16));
    assert_eq!(ask(9, op::DELETE, &path_and_int("/h", 0)), ((9, 5, 0), 16), "a refused write uses up its zxid");
    assert_eq!(ask(0, op::EXISTS, &path_and_watch("/", 0)).0, (0, 5, 0));
}

#[test]
fn c_046_to_c_048_opcodes_that_are_not_for_clients_end_the_connection() {
    let server = Running::new(&[], &[]);
    server.client().create("/kept", b"", 0).unwrap();
    for op in [888, 0, -1, 23, op::CHECK] {
        let (mut link, _) = server.session(30_000);
        link.send(&request(3, op, &path_and_int("/kept", -1)));
        assert_eq!(header(&link.receive().unwrap()), (3, -1, UNIMPLEMENTED), "op {op}");
        assert_eq!(link.until_closed(), Ok(vec![]), "op {op}");
    }
    for op in [op::DELETE_CONTAINER, op::CREATE_SESSION] {
        let (mut link, _) = server.session(30_000);
        link.send(&request(3, op, &path_and_int("/kept", -1)));
        match link.receive() {
            Ok(reply) => assert_ne!(header(&reply).2, 0, "op {op}"),
            Err(ended) => assert_eq!(ended, Ended::Closed, "op {op}"),
        }
    }
    assert_eq!(server.client().read(op::EXISTS, "/kept", false).unwrap().err, 0);
}

/// Nothing that is sent first, or within a session, stops the server from serving others.
#[test]
fn garbage_harms_nobody_else() {
    let server = Running::new(&[], &[]);
    let mut dice = crate::support::random::Random::new(7, 1);
    for round in 0..60 {
        let bytes: Vec<u8> = (0..dice.below(200)).map(|_| dice.next() as u8).collect();
        let mut link = match round % 3 {
            0 => server.link(),
            _ => server.session(4000).0,
        };
        match round % 3 {
            1 => link.send(&frame(&bytes)),
            2 => link.send(&request(1, dice.pick(&[1, 2, 5, 7, 14, 22, 101, 105, 106, 100]), &bytes)),
            _ => link.send(&bytes),
        }
        link.end_stream();
        link.until_closed().expect("the server closes behind the end of the stream");
    }
    assert_eq!(server.client().ping().unwrap().err, 0);
}
