use super::*;
use crate::types::acl::Acl;
use proptest::prelude::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn header(cxid: i32, zxid: u64, time: i64) -> TxnHeader {
    TxnHeader { session: SessionId(0x0100003adfd40000), cxid, zxid: Zxid(zxid), time: WallTime(time) }
}

fn check(bytes: &str, header: TxnHeader, txn: Txn<'_>, digest: Option<u64>) {
    let bytes = hex(bytes);
    let digest = digest.map(TxnDigest::new);
    assert_eq!(decode(&bytes), Ok(DecodedTxn { header, txn: txn.clone(), digest }));
    let mut out = Vec::new();
    encode(&header, &txn, digest, &mut out);
    assert_eq!(out, bytes);
}

fn check_record(kind: i32, bytes: &str, txn: Txn<'_>) {
    let bytes = hex(bytes);
    assert_eq!(Txn::read(kind, &mut Reader::new(&bytes)), Ok(txn.clone()));
    assert_eq!(txn.kind(), kind);
    let mut out = Vec::new();
    txn.write(&mut out);
    assert_eq!(out, bytes);
}

fn create<'a>(path: &'a str, data: &'a [u8]) -> CreateTxn<'a> {
    CreateTxn { path: path.into(), data: Some(data.into()), acl: AclList::Open, ephemeral: false, parent_cversion: 1 }
}

#[test]
fn a_session_and_its_znodes_are_the_bytes_of_java() {
    check(
        "0100003adfd40000 00000000 0000000000000001 000001a1fae25535 fffffff6 00002710 00000002 0000000051c6d660",
        header(0, 1, 0x1a1fae25535),
        Txn::CreateSession { timeout_ms: 10000 },
        Some(1371985504),
    );
    check(
        "0100003adfd40000 00000001 0000000000000002 000001a1fae2553d 00000001 00000002 2f61 00000002 6869 00000001
         0000001f 00000005 776f726c64 00000006 616e796f6e65 00 00000001 00000002 00000000a4b6fd45",
        header(1, 2, 0x1a1fae2553d),
        Txn::Create(create("/a", b"hi")),
        Some(2763455813),
    );
    check(
        "0100003adfd40000 00000003 0000000000000004 000001a1fae255ac fffffff5 00000001 00000004 2f612f65
         00000002 000000008b835808",
        header(3, 4, 0x1a1fae255ac),
        Txn::CloseSession { paths: Some(vec!["/a/e".into()]) },
        Some(2340640776),
    );
}

#[test]
fn every_other_record_has_its_shape() {
    check_record(
        txn_type::CREATE_TTL,
        "00000002 2f61 ffffffff 00000001 00000001 00000006 646967657374 00000003 613a62 00000007 00000000000003e8",
        Txn::CreateTtl {
            path: "/a".into(),
            data: None,
            acl: AclList::from_vec(vec![Acl::new(1, "digest", "a:b")]),
            parent_cversion: 7,
            ttl_ms: 1000,
        },
    );
    check_record(
        txn_type::CREATE_CONTAINER,
        "00000002 2f61 00000000 00000000 00000007",
        Txn::CreateContainer {
            path: "/a".into(),
            data: Some(Cow::Borrowed(b"")),
            acl: AclList::List([].into()),
            parent_cversion: 7,
        },
    );
    check_record(
        txn_type::SET_ACL,
        "00000002 2f61 00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00000003",
        Txn::SetAcl { path: "/a".into(), acl: AclList::Open, version: 3 },
    );
    let set = || SetDataTxn { path: "/a".into(), data: Some(b"x"[..].into()), version: 4 };
    check_record(txn_type::SET_DATA, "00000002 2f61 00000001 78 00000004", Txn::SetData(set()));
    check_record(txn_type::RECONFIG, "00000002 2f61 00000001 78 00000004", Txn::Reconfig(set()));
    check_record(txn_type::DELETE, "00000002 2f61", Txn::Delete { path: "/a".into() });
    check_record(txn_type::DELETE_CONTAINER, "00000002 2f61", Txn::DeleteContainer { path: "/a".into() });
    check_record(txn_type::ERROR, "ffffff9a", Txn::Error { code: -102 });
}

#[test]
fn a_refused_multi_keeps_what_came_before_and_marks_the_rest() {
    let txns = vec![
        Txn::Delete { path: "/a".into() },
        Txn::Check { path: "/b".into(), version: 3 },
        Txn::Delete { path: "/c".into() },
    ];
    let txn = Txn::failed_multi(txns, 1, ErrorCode::BadVersion);
    assert!(txn.is_refused());
    check_record(
        txn_type::MULTI,
        "00000003 00000002 00000006 00000002 2f61 ffffffff 00000004 ffffff99 ffffffff 00000004 fffffffe",
        txn,
    );
    check_record(
        txn_type::MULTI,
        "00000001 0000000d 0000000a 00000002 2f62 00000004",
        Txn::Multi(vec![Txn::Check { path: "/b".into(), version: 4 }]),
    );
}

#[test]
fn creates_of_the_first_servers_have_no_parent_cversion() {
    let mut bytes = Vec::new();
    encode(&header(1, 2, 3), &Txn::Create(create("/a", b"hi")), None, &mut bytes);
    bytes.truncate(bytes.len() - 4);
    let expected = CreateTxn { parent_cversion: NO_PARENT_CVERSION, ..create("/a", b"hi") };
    assert_eq!(decode(&bytes).unwrap().txn, Txn::Create(expected));
}

#[test]
fn a_closing_without_a_list_is_told_from_its_digest() {
    let closing = Txn::CloseSession { paths: None };
    let mut bytes = Vec::new();
    encode(&header(1, 2, 3), &closing, Some(TxnDigest::new(7)), &mut bytes);
    assert_eq!(bytes.len(), HEADER_BYTES);
    assert_eq!(decode(&bytes).unwrap().txn, closing);
    TxnDigest::new(7).write(&mut bytes);
    let decoded = decode(&bytes).unwrap();
    assert_eq!((decoded.txn, decoded.digest), (closing, Some(TxnDigest::new(7))));
}

#[test]
fn unknown_types_are_named() {
    let mut bytes = Vec::new();
    header(1, 2, 3).write(99, &mut bytes);
    assert_eq!(decode(&bytes), Err(TxnError::Unsupported(99)));
    let nested = hex("00000001 0000000e 00000004 00000000");
    assert_eq!(
        Txn::read(txn_type::MULTI, &mut Reader::new(&nested)),
        Err(TxnError::UnsupportedInMulti(txn_type::MULTI))
    );
}

/// Found by fuzzing: the last of all numbers overflowed the version that a txn makes.
#[test]
fn a_negative_zxid_is_refused() {
    for zxid in [-1, i64::MIN] {
        let mut bytes = Vec::new();
        encode(&header(1, zxid as u64, 3), &Txn::Error { code: -101 }, None, &mut bytes);
        assert_eq!(decode(&bytes), Err(TxnError::NegativeZxid(zxid)));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in -12..24_i32) {
        let _ = decode(&bytes);
        if bytes.len() >= HEADER_BYTES {
            bytes[28..32].copy_from_slice(&kind.to_be_bytes());
            // A zxid that may be.
            bytes[12] &= 0x7f;
            if let Ok(decoded) = decode(&bytes) {
                let mut out = Vec::new();
                encode(&decoded.header, &decoded.txn, decoded.digest, &mut out);
                prop_assert_eq!(decode(&out).unwrap().txn, decoded.txn.into_owned());
            }
        }
    }
}
