//! Everything that takes bytes from outside, each as a function of those bytes: for the fuzzer's targets and for
//! `tests/no_panic.rs`. Whatever the bytes are, each must return, soon, without a panic and in bounded memory.

// Each target uses one of them.
#![allow(dead_code)]

use std::fs::File;
use std::io::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use bumpalo::Bump;
use oxkeeper::config::{Config, ConfigFile, OtherFiles, SystemProperties};
use oxkeeper::io::run::ServerSettings;
use oxkeeper::io::settings::resolve;
use oxkeeper::server::pipeline::{self, Now, ZabCore};
use oxkeeper::server::recovery::TreeReplay;
use oxkeeper::shard::machine::{self, Shard};
use oxkeeper::storage::log;
use oxkeeper::storage::log_file::{self, LogReader};
use oxkeeper::storage::recovery::Replay;
use oxkeeper::storage::snapshot::{Item, NodeRecord};
use oxkeeper::storage::snapshot_file;
use oxkeeper::storage::snapshot_stream::StreamReader;
use oxkeeper::tree::Tree;
use oxkeeper::tree::publication::Publisher;
use oxkeeper::tree::quota::{QuotaLimits, QuotaUsage};
use oxkeeper::types::ids::{ConnectionId, SessionId, ShardId};
use oxkeeper::types::time::{Time, WallTime};
use oxkeeper::types::zxid::Zxid;
use oxkeeper::wire::client::{self, AuthPacket, ConnectRequest, OpCode, PathAndWatch, SetWatches, WriteRequest};
use oxkeeper::wire::client_encode;
use oxkeeper::wire::election::{self, InitialMessage, Notification};
use oxkeeper::wire::extension::Extension;
use oxkeeper::wire::jute::Reader;
use oxkeeper::wire::quorum::{self, Features, LearnerInfo, PacketStream, QuorumPacket, RequestBody};
use oxkeeper::wire::snapshot_stream::SnapshotScanner;
use oxkeeper::wire::txn;

/// Takes any bytes, and must come back.
type EntryPoint = fn(&[u8]);

/// A name for each, for messages.
pub const ALL: &[(&str, EntryPoint)] = &[
    ("client_records", client_records),
    ("client_stream", client_stream),
    ("log_file", log_file),
    ("snapshot", snapshot),
    ("txns", txns),
    ("config", config),
    ("quota", quota),
    ("election_stream", election_stream),
    ("peer_stream", peer_stream),
    ("snapshot_stream", snapshot_stream),
];

/// Every record of the client protocol, its opcode being the first byte.
pub fn client_records(bytes: &[u8]) {
    let _ = ConnectRequest::decode(bytes);
    let Some((op, body)) = bytes.split_first() else { return };
    let _ = AuthPacket::decode(&mut Reader::new(body));
    let _ = PathAndWatch::decode(&mut Reader::new(body));
    let _ = client::decode_multi_read(&mut Reader::new(body));
    let _ = SetWatches::decode(OpCode::SetWatches, &mut Reader::new(body));
    let _ = SetWatches::decode(OpCode::SetWatches2, &mut Reader::new(body));
    let arena = Bump::new();
    if let Some(op) = OpCode::from_i32(i32::from(*op as i8)) {
        let _ = WriteRequest::decode(op, &mut Reader::new(body), &arena);
    }
    let _ = WriteRequest::decode(OpCode::Multi, &mut Reader::new(body), &arena);
}

/// Bytes from a client's socket, through the shard, the zab core and the tree. The first byte says in which form the
/// rest comes: a raw stream; one behind a session's opening; or pieces of `[op][length]` that become whole requests.
pub fn client_stream(bytes: &[u8]) {
    let Some((form, rest)) = bytes.split_first() else { return };
    let mut server = Server::new();
    if form % 3 > 0 {
        server.receive(&connect_frame());
        server.turn();
    }
    if form % 3 == 2 {
        return server.receive_requests(rest);
    }
    // In two pieces, so that frames are cut.
    let (first, second) = rest.split_at(rest.len() / 2);
    server.receive(first);
    server.turn();
    server.receive(second);
    server.turn();
    server.turn();
}

/// A file of entries, and how it is judged where it stops.
pub fn log_file(bytes: &[u8]) {
    let payload_bytes_max = 1 << 20;
    let Ok(mut reader) = LogReader::open(bytes, payload_bytes_max) else { return };
    let mut last = Zxid::ZERO;
    let stop = loop {
        match reader.next_entry().expect("memory can be read") {
            Ok(entry) => last = entry.header.zxid,
            Err(stop) => break stop,
        }
    };
    let file = temporary_file(bytes);
    let _ = log_file::judge(&file, &stop, last, 8 << 20).expect("the file can be read");
}

/// A snapshot, packed as its first byte says, into a tree.
pub fn snapshot(bytes: &[u8]) {
    let Some((kind, content)) = bytes.split_first() else { return };
    let home = temporary_directory();
    let path = home.join(format!("snapshot.1-{}{}", std::process::id(), ["", ".gz", ".snappy"][usize::from(kind % 3)]));
    std::fs::write(&path, content).expect("a temporary file can be written");
    let mut replay = TreeReplay::new(settings().tree.clone());
    let loaded = load(&path, &mut replay);
    std::fs::remove_file(&path).expect("it was written");
    if loaded.is_some() {
        let _ = replay.finish().0.finish();
    }
}

fn load(path: &std::path::Path, replay: &mut TreeReplay) -> Option<()> {
    let mut reader = snapshot_file::open(path, 1 << 20).ok()?;
    loop {
        match reader.next_item().ok()? {
            Item::Session { id, timeout_ms } => replay.load_session(id, timeout_ms),
            Item::Acl { id, list } => replay.load_acl(id, list),
            Item::Node(node) => load_node(replay, node).ok()?,
            Item::End(end) => {
                replay.snapshot_loaded(Zxid(1), end.digest);
                return Some(());
            }
        }
    }
}

fn load_node(replay: &mut TreeReplay, node: NodeRecord<'_>) -> Result<(), String> {
    replay.load_node(node)
}

/// Payloads of log entries whose checksums are right, `[length:u16]` before each, onto a fresh tree.
pub fn txns(bytes: &[u8]) {
    let _ = txn::decode(bytes);
    let mut replay = TreeReplay::new(settings().tree.clone());
    replay.snapshot_loaded(Zxid::ZERO, None);
    let mut rest = bytes;
    let mut last = Zxid::ZERO;
    while let Some((payload, behind)) = take_piece(rest) {
        rest = behind;
        // Recovery hands on what decodes and what follows the txn before.
        if let Ok(decoded) = txn::decode(payload)
            && decoded.header.zxid > last
        {
            last = decoded.header.zxid;
            if replay.apply(decoded).is_err() {
                return;
            }
        }
    }
    let _ = replay.finish().0.finish();
}

fn take_piece(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    Some(rest.split_at(length))
}

/// Bytes from the socket of a server that wants to elect: who it is, then notifications.
pub fn election_stream(bytes: &[u8]) {
    let mut rest = match InitialMessage::decode(bytes) {
        Ok(Some((_, length))) => bytes.get(length..).expect("no more than there is"),
        Ok(None) | Err(_) => bytes,
    };
    while let Ok(Some((payload, behind))) = election::split_frame(rest) {
        let _ = Notification::decode(payload);
        rest = behind;
    }
    let _ = Extension::decode(bytes);
}

/// Bytes from the socket of a leader or a learner, in two pieces, and whatever each packet could be.
pub fn peer_stream(bytes: &[u8]) {
    let mut stream = PacketStream::new(1 << 20);
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for piece in [first, second] {
        stream.push(piece);
        while let Ok(Some(packet)) = stream.next_packet() {
            look_at(&packet);
        }
    }
    let _ = stream.take_rest();
}

fn look_at(packet: &QuorumPacket<'_>) {
    let (_, _) = (packet.to_string(), packet.auth());
    let _ = RequestBody::read(packet);
    if let Some(data) = packet.data {
        let _ = LearnerInfo::read(data);
        let _ = txn::decode(data);
        if let Ok((_, Some(extension))) = quorum::read_number_and_extension(data) {
            let _ = Features::of(&extension).and(&Features::of(&extension));
        }
    }
}

/// A snapshot as a leader sends it, in pieces as long as its first byte says: what passes the bytes on and what reads
/// them agree about where it ends.
pub fn snapshot_stream(bytes: &[u8]) {
    let Some((length, content)) = bytes.split_first() else { return };
    let mut scanner = SnapshotScanner::new(1 << 20);
    let mut reader = StreamReader::new(1 << 20);
    let mut replay = TreeReplay::new(settings().tree.clone());
    for piece in content.chunks(usize::from(*length) + 1) {
        let Ok(passed) = scanner.push(piece) else { return };
        let taken = reader.read(&piece[..passed], |item| {
            match item {
                Item::Session { id, timeout_ms } => replay.load_session(id, timeout_ms),
                Item::Acl { id, list } => replay.load_acl(id, list),
                Item::Node(node) => return load_node(&mut replay, node),
                Item::End(_) => {}
            }
            Ok(())
        });
        if taken.is_err() {
            return;
        }
        assert_eq!(scanner.is_end(), reader.is_whole());
        if scanner.is_end() {
            replay.snapshot_loaded(Zxid(1), None);
            let _ = replay.finish().0.finish();
            return;
        }
    }
}

/// A zoo.cfg; behind a zero byte, a dynamic file and `myid` as well.
pub fn config(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0);
    let (file, dynamic, myid) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let Ok(file) = ConfigFile::parse(file) else { return };
    let (_, _) = (file.dynamic_config_file(), file.data_dir());
    let others = OtherFiles { myid, dynamic, next_dynamic: dynamic };
    let properties = SystemProperties::new(dynamic.and_then(|text| std::str::from_utf8(text).ok()), None, &[]);
    match Config::from_file(&file, &others, &properties) {
        Ok((_, warnings)) => warnings.iter().for_each(|warning| drop(warning.to_string())),
        Err(errors) => errors.iter().for_each(|error| drop(error.to_string())),
    }
}

/// The text of a quota, and what it is compared with.
pub fn quota(bytes: &[u8]) {
    let (_, usage) = (QuotaLimits::parse(bytes), QuotaUsage::parse(bytes));
    if let Ok(usage) = usage {
        let _ = usage.plus(usage);
    }
}

/// What a server without a configuration has.
fn settings() -> &'static ServerSettings {
    static SETTINGS: OnceLock<ServerSettings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let (config, _) = Config::without_file(&SystemProperties::new(None, None, &[])).expect("defaults are valid");
        resolve(&config, 1)
    })
}

fn temporary_directory() -> &'static std::path::Path {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { memory } else { std::path::Path::new("/tmp") }
}

fn temporary_file(bytes: &[u8]) -> File {
    let path =
        temporary_directory().join(format!("oxkeeper-fuzz-{}-{:?}", std::process::id(), std::thread::current().id()));
    let mut file =
        File::options().read(true).write(true).create(true).truncate(true).open(&path).expect("a temporary file");
    std::fs::remove_file(&path).expect("it was made");
    file.write_all(bytes).expect("a temporary file can be written");
    file
}

fn connect_frame() -> Vec<u8> {
    let mut frame = Vec::new();
    let request = client_encode::ConnectRequest {
        last_zxid_seen: Zxid::ZERO,
        timeout_ms: 30_000,
        session: SessionId::NONE,
        password: Default::default(),
        read_only: false,
    };
    request.encode(&mut frame);
    frame
}

const CONNECTION: ConnectionId = ConnectionId(1);

/// A shard and a zab core whose disk and sockets do everything at once.
struct Server {
    shard: Shard,
    zab: ZabCore<Vec<u8>>,
    from_shard: Vec<machine::Output>,
    from_zab: Vec<pipeline::Output<Vec<u8>>>,
    now: Now,
}

impl Server {
    fn new() -> Server {
        let settings = settings();
        let tree = Tree::fresh(settings.tree.clone());
        let publisher = Publisher::default();
        let reader = tree.reader().expect("the first reader");
        let shard = Shard::new(settings.shard.clone(), reader, publisher.cursor(), [1, 2, 3, 4]);
        let now = Now { time: Time(1_000_000_000), wall: WallTime(1_700_000_000_000) };
        let mut from_zab = Vec::new();
        let buffers = vec![vec![0; 64 << 10]; settings.zab.log.writes_in_flight];
        let zab = ZabCore::standalone(settings.zab.clone(), tree, publisher, buffers, now, &mut from_zab);
        let mut server = Server { shard, zab, from_shard: Vec::new(), from_zab, now };
        server.carry_out();
        let peer = ([127, 0, 0, 1], 9).into();
        let accepted = machine::Input::Accepted { connection: CONNECTION, peer, wall: now.wall };
        server.shard.step(now.time, accepted, &mut server.from_shard);
        server
    }

    fn receive(&mut self, bytes: &[u8]) {
        let input = machine::Input::Received { connection: CONNECTION, bytes };
        self.shard.step(self.now.time, input, &mut self.from_shard);
    }

    fn receive_requests(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        let mut xid = 0;
        while let Some((op, behind)) = rest.split_first() {
            let Some((body, behind)) = take_piece(behind) else { return };
            rest = behind;
            xid += 1;
            let mut frame = Vec::new();
            client_encode::request(&mut frame, xid, i32::from(*op as i8), |out| out.extend_from_slice(body));
            self.receive(&frame);
            self.turn();
        }
    }

    /// One turn of a core, until nothing moves.
    fn turn(&mut self) {
        self.now.time = self.now.time + Duration::from_millis(10);
        for _ in 0..4 {
            let now = self.now;
            if self.shard.deadline().is_some_and(|deadline| deadline <= now.time) {
                self.shard.step(now.time, machine::Input::Timeout, &mut self.from_shard);
            }
            self.shard.step(now.time, machine::Input::EndOfTurn, &mut self.from_shard);
            self.carry_out();
            if self.zab.deadline().is_some_and(|deadline| deadline <= now.time) {
                self.zab.step(now, pipeline::Input::Timeout, &mut self.from_zab);
            }
            self.zab.step(now, pipeline::Input::EndOfTurn, &mut self.from_zab);
            self.carry_out();
            self.shard.step(now.time, machine::Input::Published, &mut self.from_shard);
        }
    }

    fn carry_out(&mut self) {
        while !(self.from_shard.is_empty() && self.from_zab.is_empty()) {
            for output in std::mem::take(&mut self.from_shard) {
                self.carry_out_shard(output);
            }
            for output in std::mem::take(&mut self.from_zab) {
                self.carry_out_zab(output);
            }
        }
    }

    fn carry_out_shard(&mut self, output: machine::Output) {
        let now = self.now.time;
        let input = match output {
            machine::Output::Send { connection, bytes } => machine::Input::Sent { connection, buffer: bytes },
            machine::Output::Close(connection) | machine::Output::Abort(connection) => {
                machine::Input::Closed { connection }
            }
            machine::Output::Unframed { connection, .. } => {
                machine::Input::Respond { connection, text: b"imok".to_vec() }
            }
            machine::Output::Ask(batch) => {
                let input = pipeline::Input::Batch { shard: ShardId(0), batch };
                return self.zab.step(self.now, input, &mut self.from_zab);
            }
            machine::Output::Pause(_) | machine::Output::Resume(_) => return,
        };
        self.shard.step(now, input, &mut self.from_shard);
    }

    fn carry_out_zab(&mut self, output: pipeline::Output<Vec<u8>>) {
        let done = match output {
            pipeline::Output::Log(log::Output::Prepare { file, upto }) => {
                log::Input::Prepared { file, zeroed_upto: upto }
            }
            pipeline::Output::Log(log::Output::Name { file, .. }) => log::Input::Named { file },
            pipeline::Output::Log(log::Output::Extend { file, upto, .. }) => log::Input::Extended { file, upto },
            pipeline::Output::Log(log::Output::Write { write, buffer, .. }) => log::Input::Written { write, buffer },
            pipeline::Output::Tell(told) => {
                let input = machine::Input::Told(told.tell);
                return self.shard.step(self.now.time, input, &mut self.from_shard);
            }
            pipeline::Output::Spent { batch, .. } => return self.shard.recycle(batch),
            pipeline::Output::Published => {
                return self.shard.step(self.now.time, machine::Input::Published, &mut self.from_shard);
            }
            pipeline::Output::Fatal { what } => panic!("{what}"),
            pipeline::Output::Log(_) | pipeline::Output::Snapshot(_) | pipeline::Output::Stopped => return,
            // Of members of an ensemble only.
            pipeline::Output::Store { .. }
            | pipeline::Output::Socket(_)
            | pipeline::Output::StoreEpochs(_)
            | pipeline::Output::ReadLog { .. }
            | pipeline::Output::ReadSnapshot { .. }
            | pipeline::Output::ReadOn { .. }
            | pipeline::Output::CancelRead { .. }
            | pipeline::Output::Truncate(_)
            | pipeline::Output::Install(_) => unreachable!("this server stands alone"),
        };
        self.zab.step(self.now, pipeline::Input::Log(done), &mut self.from_zab);
    }
}
