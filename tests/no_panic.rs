//! Bytes from outside, at random: no decoder and no machine behind one panics. A few seconds of what the fuzzer's
//! targets (`tests/fuzz/`) do for longer, and the inputs that they have found.

#[path = "fuzz/entry_points.rs"]
mod entry_points;

use proptest::prelude::*;

/// Lengths and counts that mean something, opcodes, and noise: jute records are made of such pieces.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (0..40_i32).prop_map(|value| value.to_be_bytes().to_vec()),
        prop::sample::select(vec![-1_i32, -2, -4, -8, -10, -11, 100, 101, 105, 106, i32::MAX, i32::MIN])
            .prop_map(|value| value.to_be_bytes().to_vec()),
        prop::sample::select(vec![
            "/",
            "/a",
            "/a/b",
            "/zookeeper/quota",
            "world",
            "anyone",
            "digest",
            "auth",
            "\0",
            "é"
        ])
        .prop_map(|text| [&(text.len() as i32).to_be_bytes(), text.as_bytes()].concat()),
        any::<i64>().prop_map(|value| value.to_be_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..20),
    ]
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "server.1=",
        "server.",
        "host:1:2",
        ":participant;",
        "[::1]:",
        "group.1=1:2\n",
        "weight.1=",
        "tickTime=",
        "dataDir=/x\n",
        "count=",
        "bytes=",
        "-1",
        "99999999999999999999",
        ",",
        "=",
        "\\u00e",
        "\\",
        "\n",
        "#",
        "!",
        ":",
        "clientPort=",
        "hardLimit=",
        ";",
        "|",
        "\0",
    ]);
    prop::collection::vec(word, 0..30).prop_map(|words| words.concat().into_bytes())
}

fn head() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![
        b"".to_vec(),
        b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0".to_vec(),
        b"\0ZKSN\0\0\0\x02\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"\x01\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec(),
        b"\x02\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec(),
        vec![0],
        vec![1],
        vec![2],
    ])
}

fn records() -> impl Strategy<Value = Vec<u8>> {
    (head(), prop::collection::vec(piece(), 0..30)).prop_map(|(head, pieces)| [head, pieces.concat()].concat())
}

/// Whole requests, as `client_stream` takes them in its third form.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let op = prop_oneof![0..24_u8, 100..108_u8, Just(-11_i8 as u8)];
    let request = (op, prop::collection::vec(piece(), 0..8)).prop_map(|(op, pieces)| {
        let body = pieces.concat();
        [&[op], &(body.len() as u16).to_le_bytes()[..], &body].concat()
    });
    prop::collection::vec(request, 0..10).prop_map(|requests| [vec![2], requests.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_from_outside_make_anything_panic(bytes in prop_oneof![records(), text(), requests()]) {
        for (_, entry_point) in entry_points::ALL {
            entry_point(&bytes);
        }
    }

    #[test]
    fn no_requests_make_the_server_panic(bytes in requests()) {
        entry_points::client_stream(&bytes);
    }
}
