//! Requests through a real server on loopback: one and eight connections, one and 32 requests in flight on each.
//! `cargo bench --bench end_to_end`; `oxkeeper bench` measures under load.
//!
//! The client is one blocking thread, so that what is measured is a round: all connections send, then all are answered.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use oxkeeper::types::ids::{PASSWORD_BYTES, SessionId};
use oxkeeper::types::zxid::Zxid;
use oxkeeper::wire::client::OpCode;
use oxkeeper::wire::client_encode::{self, ANY_VERSION, ConnectRequest, ConnectResponse, ReplyHeader};
use tempfile::TempDir;

const PATH: &str = "/znode";
const DATA: [u8; 100] = [7; 100];
const START_MAX: Duration = Duration::from_secs(30);

struct Server {
    process: Child,
    port: u16,
    _directory: TempDir,
}

impl Server {
    fn start() -> Server {
        let directory = tempfile::tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/target")).expect("a directory");
        let port = free_port();
        let config = directory.path().join("zoo.cfg");
        let data = directory.path().join("data");
        let text = format!("tickTime=2000\ndataDir={}\nclientPort={port}\nadmin.enableServer=false\n", data.display());
        fs::write(&config, text).expect("a file");
        let process = Command::new(env!("CARGO_BIN_EXE_oxkeeper"))
            .arg("server")
            .arg(&config)
            .env("RUST_LOG", "error")
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the server was built with this");
        Server { process, port, _directory: directory }
    }

    fn connect(&mut self) -> Session {
        let begun = Instant::now();
        loop {
            if let Ok(socket) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) {
                return Session::open(socket);
            }
            assert!(self.process.try_wait().is_ok_and(|ended| ended.is_none()), "the server has ended");
            assert!(begun.elapsed() < START_MAX, "the server does not listen");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

struct Session {
    socket: TcpStream,
    reader: BufReader<TcpStream>,
    frame: Vec<u8>,
}

impl Session {
    fn open(socket: TcpStream) -> Session {
        socket.set_nodelay(true).expect("a socket");
        let reader = BufReader::with_capacity(64 << 10, socket.try_clone().expect("a descriptor"));
        let mut session = Session { socket, reader, frame: Vec::new() };
        let connect = ConnectRequest {
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: 40_000,
            session: SessionId::NONE,
            password: [0; PASSWORD_BYTES],
            read_only: false,
        };
        let mut frame = Vec::new();
        connect.encode(&mut frame);
        session.send(&frame);
        session.receive();
        let response = ConnectResponse::decode(&session.frame).expect("a ConnectResponse");
        assert!(!response.is_refused());
        session
    }

    fn send(&mut self, frames: &[u8]) {
        self.socket.write_all(frames).expect("the server listens");
    }

    fn receive(&mut self) {
        let mut length = [0; 4];
        self.reader.read_exact(&mut length).expect("the server answers");
        self.frame.resize(u32::from_be_bytes(length) as usize, 0);
        self.reader.read_exact(&mut self.frame).expect("the whole of it");
    }

    fn take_answers(&mut self, count: usize) {
        for _ in 0..count {
            self.receive();
            assert_eq!(ReplyHeader::decode(&self.frame).expect("a ReplyHeader").err, 0);
        }
    }
}

fn requests(c: &mut Criterion) {
    let mut server = Server::start();
    let mut sessions: Vec<Session> = (0..8).map(|_| server.connect()).collect();
    let mut create = Vec::new();
    client_encode::create(&mut create, 1, PATH, &DATA, 0);
    sessions[0].send(&create);
    sessions[0].take_answers(1);
    let (mut get, mut set) = (Vec::new(), Vec::new());
    client_encode::read(&mut get, 1, OpCode::GetData, PATH, false);
    client_encode::set_data(&mut set, 1, PATH, &DATA, ANY_VERSION);
    for (name, frame) in [("getData", &get), ("setData", &set)] {
        let mut group = c.benchmark_group(name);
        group.sample_size(20);
        for (connections, depth) in [(1, 1), (1, 32), (8, 1), (8, 32)] {
            let frames = frame.repeat(depth);
            let sessions = &mut sessions[..connections];
            group.throughput(Throughput::Elements((connections * depth) as u64));
            group.bench_function(BenchmarkId::new(format!("{connections} connections, depth"), depth), |b| {
                b.iter(|| {
                    sessions.iter_mut().for_each(|session| session.send(&frames));
                    sessions.iter_mut().for_each(|session| session.take_answers(depth));
                })
            });
        }
        group.finish();
    }
}

criterion_group!(benches, requests);
criterion_main!(benches);
