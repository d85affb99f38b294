use proptest::prelude::*;

use super::*;

const BYTES_MAX: usize = limits::FRAME_BYTES_MAX + limits::EXTRA_BYTES_MAX;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn packet(kind: PacketType, zxid: Zxid, data: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    put_packet(&mut out, kind, zxid, data);
    out
}

/// Packets of a stream that comes in pieces of `step` bytes, one line each.
fn lines(stream: &[u8], step: usize) -> Result<Vec<String>> {
    let mut packets = PacketStream::new(BYTES_MAX);
    let mut lines = Vec::new();
    for piece in stream.chunks(step.max(1)) {
        packets.push(piece);
        while let Some(packet) = packets.next_packet()? {
            lines.push(format!("{packet} {:?} {:?}", packet.data, packet.auth()));
        }
    }
    assert_eq!(packets.waiting(), 0);
    Ok(lines)
}

// the vectors of the reference, some of them taken from Java 3.8.0.
#[test]
fn packets_are_javas_bytes() {
    let check = |ours: Vec<u8>, java: &str| assert_eq!(ours, bytes(java));
    let mut info = Vec::new();
    LearnerInfo { server: ServerId(3), protocol: PROTOCOL_VERSION, config_version: 0x1_0000_0000, offer: None }
        .put(&mut info);
    check(info.clone(), "0000000000000003 00010000 0000000100000000");
    check(
        packet(PacketType::FollowerInfo, Zxid::new(1, 0), Some(&info)),
        "0000000b 0000000100000000 00000014 0000000000000003 00010000 0000000100000000 ffffffff",
    );
    let mut version = Vec::new();
    put_number_and_extension(&mut version, PROTOCOL_VERSION, None);
    check(
        packet(PacketType::LeaderInfo, Zxid::new(2, 0), Some(&version)),
        "00000011 0000000200000000 00000004 00010000 ffffffff",
    );
    let mut epoch = Vec::new();
    put_number_and_extension(&mut epoch, 1, None);
    check(
        packet(PacketType::AckEpoch, Zxid::new(1, 5), Some(&epoch)),
        "00000012 0000000100000005 00000004 00000001 ffffffff",
    );
    check(packet(PacketType::UpToDate, NO_ZXID, None), "0000000c ffffffffffffffff ffffffff ffffffff");
    check(packet(PacketType::Ping, Zxid::new(2, 7), None), "00000005 0000000200000007 ffffffff ffffffff");
    check(packet(PacketType::Sync, Zxid::ZERO, None), "00000007 0000000000000000 ffffffff ffffffff");
    let mut request = Vec::new();
    RequestBody { session: SessionId(0x11), cxid: 7, op: 9, body: &bytes("00000001 2f") }
        .put_packet(&mut request, &[Id::new("ip", "10.0.0.1")]);
    check(
        request,
        "00000001 ffffffffffffffff 00000015 0000000000000011 00000007 00000009 00000001 2f 00000001 00000002 6970 \
         00000008 31302e302e302e31",
    );
}

#[test]
fn a_proposal_of_java_reads_as_what_it_is() {
    let stream = bytes(
        "00000002 0000000200000001 0000003c 0000000000000011 00000002 0000000200000001 00000000000007d0 00000005 \
         00000002 2f61 00000002 7979 00000001 00000002 0000000000001234 ffffffff",
    );
    let mut packets = PacketStream::new(BYTES_MAX);
    packets.push(&stream);
    let packet = packets.next_packet().unwrap().unwrap();
    assert_eq!((packet.packet_type(), packet.zxid), (Some(PacketType::Proposal), Zxid::new(2, 1)));
    assert_eq!(packet.data.map(<[u8]>::len), Some(0x3c));
    let data = packet.data.unwrap().to_vec();
    let mut again = Vec::new();
    put_packet_with(&mut again, PacketType::Proposal, Zxid::new(2, 1), |out| out.put(&data));
    assert_eq!(again, stream);
}

#[test]
fn the_rest_behind_a_packet_is_handed_out_raw() {
    let mut stream = packet(PacketType::Snap, Zxid::new(1, 1), None);
    stream.extend_from_slice(b"raw");
    let mut packets = PacketStream::new(BYTES_MAX);
    packets.push(&stream);
    assert!(packets.next_packet().unwrap().is_some());
    assert_eq!(packets.take_rest(), b"raw");
    packets.push(&packet(PacketType::UpToDate, NO_ZXID, None));
    assert!(packets.next_packet().unwrap().is_some());
    assert_eq!(packets.waiting(), 0);
}

//
#[test]
fn lengths_beyond_the_limit_are_refused_as_soon_as_they_are_seen() {
    let check = |hex: &str, expected| {
        let mut packets = PacketStream::new(100);
        packets.push(&bytes(hex));
        assert_eq!(packets.next_packet().map(|packet| packet.is_some()), expected, "{hex}");
    };
    check("00000002 0000000200000001 00000064", Ok(false));
    check("00000002 0000000200000001 00000065", Err(JuteError::Unreasonable(101)));
    check("00000002 0000000200000001 fffffffe", Err(JuteError::Unreasonable(-2)));
    check("00000002 0000000200000001 ffffffff 00000100", Err(JuteError::Unreasonable(256)));
    check("00000002 0000000200000001 ffffffff fffffff0", Ok(true));
    check("00000002 0000000200000001 ffffffff 00000001 00000065", Err(JuteError::Unreasonable(101)));
    let long = format!("00000002 0000000200000001 ffffffff 00000002 00000040 {}", "41".repeat(64));
    check(&format!("{long} 00000030 {}", "41".repeat(48)), Err(JuteError::Unreasonable(120)));
}

//
#[test]
fn short_and_long_learner_infos_are_read() {
    let all = bytes("0000000000000003 00010000 0000000100000000 0102030405");
    let check = |len: usize, protocol, config_version| {
        let info = LearnerInfo::read(&all[..len]).unwrap();
        assert_eq!((info.server, info.protocol, info.config_version), (ServerId(3), protocol, config_version));
        assert_eq!(info.offer, None);
    };
    check(8, 1, 0);
    check(12, 0x1_0000, 0);
    check(20, 0x1_0000, 0x1_0000_0000);
    check(25, 0x1_0000, 0x1_0000_0000);
    assert_eq!(LearnerInfo::read(&all[..7]), Err(JuteError::Short));
}

fn features() -> Features {
    Features {
        cumulative_acks: true,
        heartbeats: Some(Heartbeats { interval_ms: 25, timeout_ms: 100 }),
        batched_proposals: false,
        commit_index: true,
        hand_over: true,
    }
}

//
#[test]
fn features_survive_the_way_and_later_tags_are_skipped() {
    let extension = features().to_extension();
    assert_eq!(Features::of(&extension), features());
    assert_eq!(Features::of(&extension.clone().with(999, [1, 2])), features());
    let mut data = Vec::new();
    put_number_and_extension(&mut data, -1, Some(&extension));
    assert_eq!(read_number_and_extension(&data), Ok((-1, Some(extension))));
    assert_eq!(read_number_and_extension(&data[..4]), Ok((-1, None)));
    assert_eq!(read_number_and_extension(&data[..20]), Ok((-1, None)), "a damaged block is that of a Java peer");
    let never = Extension::new().with(tag::FAST_HEARTBEATS, [0, 25, 0, 25]);
    assert_eq!(Features::of(&never).heartbeats, None, "a timeout within the interval");
}

#[test]
fn only_what_both_can_is_used_and_the_leader_sets_the_pace() {
    let leader = Features { heartbeats: Some(Heartbeats { interval_ms: 5, timeout_ms: 50 }), ..features() };
    let learner = Features { commit_index: false, ..features() };
    assert_eq!(leader.and(&learner), Features { commit_index: false, ..leader.clone() });
    assert_eq!(leader.and(&Features::default()), Features::default());
}

proptest! {
    #[test]
    fn packets_are_found_at_any_boundary(
        packets in prop::collection::vec((1..=19_i32, any::<u64>(), prop::option::of(prop::collection::vec(any::<u8>(), 0..50)), 0..3_usize), 1..8),
        step in 1..40_usize,
    ) {
        let mut stream = Vec::new();
        for (kind, zxid, data, ids) in &packets {
            stream.put_i32(*kind);
            stream.put_zxid(Zxid(*zxid));
            stream.put_buffer(data.as_deref());
            stream.put_i32(*ids as i32 - 1);
            for _ in 1..*ids {
                stream.put_string("digest");
                stream.put_string("a:b");
            }
        }
        let whole = lines(&stream, stream.len()).unwrap();
        prop_assert_eq!(whole.len(), packets.len());
        prop_assert_eq!(lines(&stream, step).unwrap(), whole);
    }

    #[test]
    fn no_bytes_panic(junk in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut packets = PacketStream::new(64);
        packets.push(&junk);
        while let Ok(Some(packet)) = packets.next_packet() {
            let _ = (packet.to_string(), packet.auth(), RequestBody::read(&packet));
        }
        let _ = (LearnerInfo::read(&junk), read_number_and_extension(&junk));
        let _ = crate::wire::snapshot_stream::SnapshotScanner::new(64).push(&junk);
    }
}
