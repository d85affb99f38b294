use super::*;
use crate::wire::extension::tag;
use proptest::prelude::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn address(host: &str, port: u16) -> Address {
    Address { host: host.to_owned(), port }
}

fn initial(sid: i64, addresses: &[Address], has_many_addresses: bool) -> Vec<u8> {
    let mut out = Vec::new();
    InitialMessage::encode(ServerId(sid), addresses, has_many_addresses, &mut out);
    out
}

//
#[test]
fn initial_messages_have_javas_bytes() {
    let one = initial(3, &[address("127.0.0.1", 3888), address("zk3", 1)], false);
    assert_eq!(one, bytes("ffffffffffff0000 0000000000000003 0000000e 3132372e302e302e313a33383838"));
    let many = initial(3, &[address("a", 1), address("::1", 2)], true);
    assert_eq!(many, bytes("ffffffffffff0001 0000000000000003 0000000b 613a317c5b3a3a315d3a32"));
}

//
#[test]
fn initial_messages_of_both_versions_are_read_with_lists_literals_and_wildcards() {
    let check = |text: &str, expected: &[Address]| {
        for version in [VERSION_ONE_ADDRESS, VERSION_ADDRESSES] {
            let mut message = version.to_be_bytes().to_vec();
            message.put_i64(7);
            message.put_string(text);
            let length = message.len();
            message.extend_from_slice(b"frame");
            let decoded = InitialMessage { sid: ServerId(7), addresses: expected.to_vec() };
            assert_eq!(InitialMessage::decode(&message), Ok(Some((decoded, length))), "{text}");
            for cut in 0..length {
                assert_eq!(InitialMessage::decode(&message[..cut]), Ok(None), "{text} cut at {cut}");
            }
        }
    };
    check("zk1:3888", &[address("zk1", 3888)]);
    check("zk1:3888|zk1b:3889|", &[address("zk1", 3888), address("zk1b", 3889)]);
    check("[2001:db8::4]:3888", &[address("2001:db8::4", 3888)]);
    check("0.0.0.0:3888|zk1:1", &[address("zk1", 1)]);
    check("[0:0:0:0:0:0:0:0]:3888", &[]);
}

//
#[test]
fn a_bare_sid_of_old_is_read() {
    let decoded = InitialMessage { sid: ServerId(5), addresses: vec![] };
    assert_eq!(InitialMessage::decode(&bytes("0000000000000005 0000002c")), Ok(Some((decoded, 8))));
}

//
#[test]
fn malformed_initial_messages_are_errors() {
    let check = |hex: &str, expected| assert_eq!(InitialMessage::decode(&bytes(hex)), Err(expected), "{hex}");
    check("ffffffffffffffff", InitialMessageError::Version(-1));
    check("fffffffffffe0000", InitialMessageError::Version(-131072));
    check("ffffffffffff0000 0000000000000001 00000000", InitialMessageError::Length(0));
    check("ffffffffffff0000 0000000000000001 ffffffff", InitialMessageError::Length(-1));
    check("ffffffffffff0000 0000000000000001 00000801", InitialMessageError::Length(2049));
    for text in ["zk1", "zk1:", "zk1:x", "zk1:70000", ":1", "a:1||b:2", "[::1", "[::1]3888", "a:1:2"] {
        let mut message = VERSION_ADDRESSES.to_be_bytes().to_vec();
        message.put_i64(1);
        message.put_string(text);
        assert_eq!(InitialMessage::decode(&message), Err(InitialMessageError::Address), "{text}");
    }
}

//
#[test]
fn frames_are_1_to_524288_bytes() {
    let check = |hex: &str, expected| assert_eq!(split_frame(&bytes(hex)), expected, "{hex}");
    check("000000", Ok(None));
    check("00000001", Ok(None));
    check("00000002 aabb cc", Ok(Some((&[0xaa, 0xbb], &[0xcc]))));
    check("00000000", Err(FrameError(0)));
    check("ffffffff", Err(FrameError(-1)));
    check("00080000", Ok(None));
    check("00080001", Err(FrameError(524_289)));
}

fn vote() -> Vote {
    Vote { leader: ServerId(3), zxid: 0x1_0000_0005, round: 1, peer_epoch: 1 }
}

const FIELDS: &str = "00000000 0000000000000003 0000000100000005 0000000000000001";

//
#[test]
fn notifications_have_javas_bytes() {
    let payload = encode_notification(PeerState::Looking, &vote(), Some(""), &[]);
    let mut framed = Vec::new();
    put_frame(&payload, &mut framed);
    assert_eq!(framed, bytes(&format!("0000002c {FIELDS} 0000000000000001 00000002 00000000")));
    let payload = encode_notification(PeerState::Observing, &vote(), Some("version=0"), &[]);
    assert_eq!(payload.first_chunk(), Some(&[0, 0, 0, 3]));
    assert_eq!(payload[40..], bytes("00000009 76657273696f6e3d30"));
}

#[test]
fn what_java_could_not_parse_is_left_out_and_the_version_says_so() {
    let extension = Extension::new().with(tag::FAST_HEARTBEATS, [1]);
    let mut trailer = Vec::new();
    extension.encode(&mut trailer);
    let payload = encode_notification(PeerState::Leading, &vote(), None, &trailer);
    assert_eq!(payload[36..44], bytes("00000001 00000000"));
    let decoded = Notification::decode(&payload).unwrap();
    assert_eq!((decoded.version, decoded.config, decoded.extension), (1, None, Some(extension)));
    let too_long = "x".repeat(limits::ELECTION_FRAME_BYTES_MAX);
    assert_eq!(encode_notification(PeerState::Leading, &vote(), Some(&too_long), &trailer), payload);
}

//
#[test]
fn old_formats_are_read() {
    let check = |hex: &str, version, peer_epoch, config: Option<&str>| {
        let payload = bytes(hex);
        let expected = Notification {
            state: PeerState::Looking,
            vote: Vote { peer_epoch, ..vote() },
            version,
            config: config.map(str::as_bytes),
            extension: None,
        };
        assert_eq!(Notification::decode(&payload), Ok(expected), "{hex}");
    };
    check(FIELDS, 0, 1, None);
    check(&format!("{FIELDS} 0000000000000007 00000001"), 0, 7, None);
    check(&format!("{FIELDS} 0000000000000007 00000000 0000"), 0, 7, None);
    check(&format!("{FIELDS} 0000000000000007 00000001 aabb"), 1, 7, None);
    check(&format!("{FIELDS} 0000000000000007 00000002 00000000"), 2, 7, Some(""));
    check(&format!("{FIELDS} 0000000000000007 00000009 00000002 6869 ff00ff"), 9, 7, Some("hi"));
}

//
#[test]
fn malformed_notifications_are_errors() {
    let check = |hex: &str, expected| assert_eq!(Notification::decode(&bytes(hex)), Err(expected), "{hex}");
    check("", NotificationError::Short);
    check(&FIELDS[..FIELDS.len() - 2], NotificationError::Short);
    check(&format!("{FIELDS} 00"), NotificationError::Short);
    check(&format!("{FIELDS} 0000000000000007 000000"), NotificationError::Short);
    check(&format!("{FIELDS} 0000000000000007 00000002 0000"), NotificationError::Short);
    check(&format!("{FIELDS} 0000000000000007 00000002 00000001"), NotificationError::Short);
    check(&format!("{FIELDS} 0000000000000007 00000002 ffffffff"), NotificationError::ConfigLength(-1));
    check(&format!("{FIELDS} 0000000000000007 00000002 0000002d"), NotificationError::ConfigLength(45));
    check(&FIELDS.replacen("00000000", "00000004", 1), NotificationError::State(4));
    check(&FIELDS.replacen("00000000", "ffffffff", 1), NotificationError::State(-1));
}

#[test]
fn a_trailer_that_cannot_be_read_costs_no_vote() {
    let payload = encode_notification(PeerState::Looking, &vote(), Some("x"), b"Oxkeeper\0\x07");
    let decoded = Notification::decode(&payload).unwrap();
    assert_eq!((decoded.vote, decoded.extension), (vote(), None));
}

fn any_state() -> impl Strategy<Value = PeerState> {
    prop::sample::select(vec![PeerState::Looking, PeerState::Following, PeerState::Leading, PeerState::Observing])
}

proptest! {
    #[test]
    fn notifications_read_back(
        state in any_state(),
        (leader, zxid, round, peer_epoch) in any::<(i64, i64, i64, i64)>(),
        config in prop::option::of("[ -~]{0,50}"),
        nonce in prop::option::of(any::<u64>()),
    ) {
        let vote = Vote { leader: ServerId(leader), zxid, round, peer_epoch };
        let extension = nonce.map(|nonce| Extension::new().with_identity(nonce, "build"));
        let mut trailer = Vec::new();
        if let Some(extension) = &extension {
            extension.encode(&mut trailer);
        }
        let payload = encode_notification(state, &vote, config.as_deref(), &trailer);
        let version = if config.is_some() { 2 } else { 1 };
        let expected = Notification { state, vote, version, config: config.as_deref().map(str::as_bytes), extension };
        prop_assert_eq!(Notification::decode(&payload), Ok(expected));
    }

    #[test]
    fn initial_messages_read_back(
        sid in any::<i64>(),
        hosts in prop::collection::vec(("[a-z][a-z0-9.-]{0,20}", any::<u16>()), 1..5),
        has_many in any::<bool>(),
    ) {
        let mut addresses: Vec<Address> = hosts.iter().map(|(host, port)| address(host, *port)).collect();
        let message = initial(sid, &addresses, has_many);
        if !has_many {
            addresses.truncate(1);
        }
        let expected = InitialMessage { sid: ServerId(sid), addresses };
        prop_assert_eq!(InitialMessage::decode(&message), Ok(Some((expected, message.len()))));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..90)) {
        let _ = Notification::decode(&bytes);
        let _ = InitialMessage::decode(&bytes);
        let _ = InitialMessage::decode(&[&VERSION_ADDRESSES.to_be_bytes(), bytes.as_slice()].concat());
        let _ = split_frame(&bytes);
    }
}
