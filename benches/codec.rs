//! Bytes ⇄ values: jute records, txns as the log holds them, frames of clients.
//! `cargo bench --bench codec`

use std::hint::black_box;

use bumpalo::Bump;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use oxkeeper::types::acl::AclList;
use oxkeeper::types::error_code::ErrorCode;
use oxkeeper::types::ids::SessionId;
use oxkeeper::types::stat::Stat;
use oxkeeper::types::time::WallTime;
use oxkeeper::types::zxid::Zxid;
use oxkeeper::wire::client::{self, OpCode, PathAndWatch, RequestHeader, WriteRequest};
use oxkeeper::wire::client_encode;
use oxkeeper::wire::jute::{Reader, Write};
use oxkeeper::wire::txn::{self, CreateTxn, SetDataTxn, Txn, TxnDigest, TxnHeader};

/// As service discovery and locks have them.
const PATH: &str = "/services/region-3/instances/0000000017";
const DATA: [u8; 256] = [7; 256];

fn stat(c: &mut Criterion) {
    let mut group = c.benchmark_group("jute stat");
    let mut bytes = Vec::new();
    group.bench_function("encode", |b| {
        b.iter(|| {
            bytes.clear();
            bytes.put_stat(black_box(&Stat::default()));
            bytes.len()
        })
    });
    group.bench_function("decode", |b| b.iter(|| Reader::new(black_box(&bytes)).stat()));
    group.finish();
}

fn set(path: &str) -> Txn<'_> {
    Txn::SetData(SetDataTxn { path: path.into(), data: Some(DATA.as_slice().into()), version: 4 })
}

fn txns(c: &mut Criterion) {
    let create = CreateTxn {
        path: PATH.into(),
        data: Some(DATA.as_slice().into()),
        acl: AclList::Open,
        ephemeral: false,
        parent_cversion: 9,
    };
    let txns = [
        ("create", Txn::Create2(create)),
        ("setData", set(PATH)),
        ("delete", Txn::Delete { path: PATH.into() }),
        ("multi of 10 sets", Txn::Multi((0..10).map(|_| set(PATH)).collect())),
    ];
    let header =
        TxnHeader { session: SessionId(1 << 56), cxid: 3, zxid: Zxid(1 << 32), time: WallTime(1_700_000_000_000) };
    let mut group = c.benchmark_group("txn");
    for (name, txn) in &txns {
        let mut payload = Vec::new();
        txn::encode(&header, txn, Some(TxnDigest::new(5)), &mut payload);
        group.throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_function(format!("decode {name}"), |b| b.iter(|| txn::decode(black_box(&payload)).is_ok()));
        group.bench_function(format!("encode {name}"), |b| {
            b.iter(|| {
                payload.clear();
                txn::encode(&header, black_box(txn), Some(TxnDigest::new(5)), &mut payload);
                payload.len()
            })
        });
    }
    group.finish();
}

/// What stands behind the length of a frame.
fn payload(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = Vec::new();
    encode(&mut frame);
    frame.split_off(client_encode::FRAME_PREFIX_BYTES)
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("request");
    let get = payload(|out| client_encode::read(out, 1, OpCode::GetData, PATH, false));
    group.bench_function("decode getData", |b| {
        b.iter(|| {
            let mut body = Reader::new(black_box(&get));
            RequestHeader::decode(&mut body).is_ok() && PathAndWatch::decode(&mut body).is_ok()
        })
    });
    let ten = vec![PATH.to_owned(); 10];
    let writes = [
        ("create", OpCode::Create, payload(|out| client_encode::create(out, 1, PATH, &DATA, 0))),
        ("setData", OpCode::SetData, payload(|out| client_encode::set_data(out, 1, PATH, &DATA, -1))),
        ("multi of 10 sets", OpCode::Multi, payload(|out| client_encode::multi_set_data(out, 1, &ten, &DATA))),
    ];
    let mut arena = Bump::new();
    for (name, op, bytes) in writes {
        group.bench_function(format!("decode {name}"), |b| {
            b.iter(|| {
                let mut body = Reader::new(black_box(&bytes));
                let is_ok =
                    RequestHeader::decode(&mut body).is_ok() && WriteRequest::decode(op, &mut body, &arena).is_ok();
                arena.reset();
                is_ok
            })
        });
    }
    group.finish();
}

fn replies(c: &mut Criterion) {
    let mut group = c.benchmark_group("reply");
    let mut out = Vec::new();
    group.bench_function("encode getData", |b| {
        b.iter(|| {
            out.clear();
            client::put_frame(&mut out, |out| {
                client::put_reply_header(out, 1, 2, ErrorCode::Ok);
                out.put_buffer(Some(black_box(&DATA)));
                out.put_stat(&Stat::default());
            });
            out.len()
        })
    });
    group.bench_function("encode a notification", |b| {
        b.iter(|| {
            out.clear();
            client::put_notification(&mut out, 2, client::EventType::NodeDataChanged, black_box(PATH));
            out.len()
        })
    });
    group.finish();
}

criterion_group!(benches, stat, txns, requests, replies);
criterion_main!(benches);
