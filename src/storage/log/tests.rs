use super::*;
use crate::storage::log_file::{EntryWriter, FILE_HEADER, LogReader, PAYLOAD_BYTES_MAX, Why};
use crate::wire::txn::{Txn, TxnHeader, encode};
use proptest::prelude::*;
use std::collections::BTreeMap;

type Buffer = Vec<u8>;

fn entry(zxid: u64, data_bytes: usize) -> Vec<u8> {
    let header = TxnHeader { zxid: Zxid(zxid), ..Default::default() };
    let set = crate::wire::txn::SetDataTxn { path: "/a".into(), data: Some(vec![b'x'; data_bytes].into()), version: 1 };
    let mut out = Vec::new();
    EntryWriter::default().append(&mut out, |out| encode(&header, &Txn::SetData(set), None, out)).unwrap();
    out
}

/// A disk and a helper that do what they are told when they are told to go on.
struct Bench {
    log: Log<Buffer>,
    out: Vec<Output<Buffer>>,
    /// Everything that was put out, in order.
    trace: Vec<String>,
    files: BTreeMap<FileId, Vec<u8>>,
    names: BTreeMap<FileId, Zxid>,
    helper: Vec<Input<Buffer>>,
    writes: Vec<(WriteId, FileId, u64, usize, Buffer)>,
    flushed: Zxid,
    space: bool,
    /// What has to stop the process.
    fatal: Vec<String>,
}

fn config() -> LogConfig {
    LogConfig { roll_bytes: 64 << 10, stretch_bytes: 16 << 10, ahead_bytes: 8 << 10, ..Default::default() }
}

impl Bench {
    fn new(config: LogConfig) -> Bench {
        let mut out = Vec::new();
        let buffers = vec![vec![0; 16 << 10]; config.writes_in_flight];
        let log = Log::new(config, Zxid::ZERO, buffers, &mut out);
        let mut bench = Bench {
            log,
            out,
            trace: Vec::new(),
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            helper: Vec::new(),
            writes: Vec::new(),
            flushed: Zxid::ZERO,
            space: true,
            fatal: Vec::new(),
        };
        bench.carry_out();
        bench
    }

    fn step(&mut self, input: Input<Buffer>) {
        self.step_at(Time(0), input);
    }

    fn step_at(&mut self, now: Time, input: Input<Buffer>) {
        self.log.step(now, input, &mut self.out);
        self.carry_out();
    }

    fn append(&mut self, zxid: u64, data_bytes: usize) {
        self.log.append(Zxid(zxid), &entry(zxid, data_bytes), &mut self.out);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        for output in std::mem::take(&mut self.out) {
            self.trace.push(output.to_string());
            match output {
                Output::Prepare { file, upto } if self.space => {
                    let mut content = FILE_HEADER.to_vec();
                    content.resize(upto as usize, 0);
                    self.files.insert(file, content);
                    self.helper.push(Input::Prepared { file, zeroed_upto: upto });
                }
                Output::Name { file, first } => {
                    self.names.insert(file, first);
                    self.helper.push(Input::Named { file });
                }
                Output::Extend { file, from, upto } if self.space => {
                    let content = self.files.get_mut(&file).unwrap();
                    content.resize((upto as usize).max(content.len()), 0);
                    content[from as usize..upto as usize].fill(0);
                    self.helper.push(Input::Extended { file, upto });
                }
                Output::Prepare { file, .. } | Output::Extend { file, .. } => self.helper.push(Input::NoSpace { file }),
                Output::Write { write, file, offset, len, buffer } => {
                    assert_eq!((offset % BLOCK, len % BLOCK_BYTES), (0, 0));
                    let touches = |&(_, f, o, l, _): &(WriteId, FileId, u64, usize, Buffer)| {
                        f == file && o < offset + len as u64 && offset < o + l as u64
                    };
                    assert!(!self.writes.iter().any(touches), "two writes on one block");
                    self.writes.push((write, file, offset, len, buffer));
                }
                Output::Flushed { upto } => {
                    assert!(upto > self.flushed);
                    self.flushed = upto;
                }
                Output::Finish { file, used } => self.files.get_mut(&file).unwrap().truncate(used as usize),
                Output::Discard { file } => drop(self.files.remove(&file)),
                Output::Full(_) | Output::Stopped => {}
                Output::Fatal { what } => self.fatal.push(what),
            }
        }
    }

    /// Wakes the machine when it wants to be, until then.
    fn wait_until(&mut self, end: Time) {
        while let Some(at) = self.log.deadline().filter(|at| *at <= end) {
            self.step_at(at, Input::Timeout);
        }
    }

    fn help(&mut self, at: usize) {
        let done = self.helper.remove(at);
        self.step(done);
    }

    fn complete(&mut self, at: usize) {
        let (write, file, offset, len, buffer) = self.writes.remove(at);
        let content = self.files.get_mut(&file).unwrap();
        content.resize(content.len().max(offset as usize + len), 0);
        content[offset as usize..offset as usize + len].copy_from_slice(&buffer[..len]);
        self.step(Input::Written { write, buffer });
    }

    fn settle(&mut self) {
        while !self.helper.is_empty() || !self.writes.is_empty() {
            if self.helper.is_empty() { self.complete(0) } else { self.help(0) }
        }
    }

    /// What the disk holds now, by file names, without gaps.
    fn durable(&self) -> Vec<u64> {
        let mut zxids = Vec::new();
        for (file, first) in &self.names {
            let content = &self.files[file];
            let mut reader = LogReader::open(&content[..], PAYLOAD_BYTES_MAX).unwrap();
            let mut in_file = Vec::new();
            let stop = loop {
                match reader.next_entry().unwrap() {
                    Ok(entry) => in_file.push(entry.header.zxid.0),
                    Err(stop) => break stop,
                }
            };
            if let Some(&found) = in_file.first() {
                assert_eq!(found, first.0);
            }
            zxids.extend(in_file);
            if stop.why != Why::End {
                break;
            }
        }
        zxids
    }
}

#[test]
fn entries_that_arrive_during_a_write_share_the_next_one() {
    let mut bench = Bench::new(config());
    bench.help(0);
    bench.append(1, 10);
    bench.step(Input::Submit);
    for zxid in 2..=4 {
        bench.append(zxid, 10);
        bench.step(Input::Submit);
    }
    assert_eq!(bench.writes.len(), 1);
    bench.settle();
    assert_eq!(bench.durable(), [1, 2, 3, 4]);
    assert_eq!(
        bench.trace,
        [
            "prepare file=0 upto=16384",
            "name file=0 first=0x1",
            "prepare file=1 upto=16384",
            "write write=0 file=0 offset=0 len=4096",
            "flushed upto=0x1",
            "write write=1 file=0 offset=0 len=4096",
            "flushed upto=0x4",
        ]
    );
}

#[test]
fn nothing_is_flushed_before_its_file_has_a_name() {
    let mut bench = Bench::new(config());
    bench.append(1, 10);
    bench.step(Input::Submit);
    bench.help(0);
    assert_eq!((bench.writes.len(), bench.flushed), (1, Zxid(0)));
    bench.complete(0);
    assert_eq!(bench.flushed, Zxid(0));
    assert_eq!(bench.helper[0], Input::Named { file: FileId(0) });
    bench.help(0);
    assert_eq!(bench.flushed, Zxid(1));
}

#[test]
fn a_file_rolls_by_size_and_on_request_and_is_cut_behind_its_last_entry() {
    let mut bench = Bench::new(config());
    bench.settle();
    for zxid in 1..=20 {
        bench.append(zxid, 7000);
        bench.step(Input::Submit);
        bench.settle();
        if zxid == 4 {
            bench.step(Input::Roll);
        }
    }
    assert_eq!(bench.durable(), (1..=20).collect::<Vec<_>>());
    let firsts: Vec<u64> = bench.names.values().map(|zxid| zxid.0).collect();
    assert_eq!(firsts, [1, 5, 14]);
    bench.step(Input::Stop);
    assert!(bench.trace.ends_with(&["finish file=2 used=49429".into(), "stopped".into()]), "{:?}", bench.trace);
    assert!(bench.trace.contains(&"discard file=3".to_owned()));
}

#[test]
fn a_slow_helper_holds_up_neither_writes_nor_the_roll() {
    let mut bench = Bench::new(config());
    bench.help(0);
    for zxid in 1..=20 {
        bench.append(zxid, 7000);
        bench.step(Input::Submit);
        while !bench.writes.is_empty() {
            bench.complete(0);
        }
    }
    // Only the name is waited for, and zeros that are under way where a write wants to go.
    assert_eq!(bench.flushed, Zxid(0));
    bench.settle();
    assert_eq!(bench.flushed, Zxid(20));
    assert_eq!(bench.durable(), (1..=20).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_is_known_while_a_reserve_is_left_and_ends_by_itself() {
    let mut bench = Bench::new(config());
    bench.settle();
    bench.space = false;
    let mut zxid = 0;
    while bench.log.accepts_writes() {
        zxid += 1;
        bench.append(zxid, 3000);
        bench.step(Input::Submit);
        bench.settle();
    }
    assert!(bench.log.reserve_bytes() > 4096, "{}", bench.log.reserve_bytes());
    zxid += 1;
    bench.append(zxid, 10);
    bench.step(Input::Submit);
    bench.settle();
    assert_eq!(bench.flushed, Zxid(zxid));
    bench.space = true;
    let retry = bench.log.deadline().unwrap();
    bench.step_at(retry, Input::Timeout);
    bench.settle();
    assert!(bench.log.accepts_writes());
    assert_eq!(bench.log.deadline(), None);
    assert_eq!(
        bench.trace.iter().filter(|line| line.starts_with("full")).collect::<Vec<_>>(),
        ["full true", "full false"]
    );
}

#[test]
fn a_stop_on_a_full_disk_ends_once_there_is_space() {
    let mut bench = Bench::new(config());
    bench.settle();
    bench.space = false;
    let mut zxid = 0;
    // More than the reserve takes: closings are never refused.
    while bench.log.accepts_writes() || bench.flushed == Zxid(zxid) {
        zxid += 1;
        bench.append(zxid, 3000);
        bench.step(Input::Submit);
        bench.settle();
    }
    bench.step(Input::Stop);
    bench.settle();
    assert!(!bench.trace.contains(&"stopped".to_owned()));
    bench.space = true;
    let retry = bench.log.deadline().unwrap();
    bench.step_at(retry, Input::Timeout);
    bench.settle();
    assert_eq!(bench.flushed, Zxid(zxid));
    assert_eq!(bench.trace.last().unwrap(), "stopped");
}

#[test]
fn on_a_full_disk_nothing_is_written_beyond_what_is_allocated() {
    let mut bench = Bench::new(config());
    bench.settle();
    bench.space = false;
    for zxid in 1..=20 {
        bench.append(zxid, 3000);
        bench.step(Input::Submit);
        bench.settle();
    }
    assert_eq!(bench.flushed, Zxid(5));
    assert_eq!(bench.files[&FileId(0)].len(), 16 << 10);
    bench.space = true;
    bench.step_at(bench.log.deadline().unwrap(), Input::Timeout);
    bench.settle();
    assert_eq!(bench.flushed, Zxid(20));
}

#[test]
fn stopping_before_the_first_file_is_there_leaves_nothing() {
    let mut bench = Bench::new(config());
    bench.step(Input::Stop);
    bench.settle();
    assert_eq!(bench.trace, ["prepare file=0 upto=16384", "discard file=0", "stopped"]);
    let mut bench = Bench::new(config());
    bench.append(1, 10);
    bench.step(Input::Stop);
    bench.settle();
    assert_eq!(bench.durable(), [1]);
    assert_eq!(bench.trace.last().unwrap(), "stopped");
}

proptest! {
    #[test]
    fn whatever_the_disk_does_first_flushed_is_a_durable_prefix(
        writes_in_flight in 1_usize..5,
        moves in proptest::collection::vec((0_u8..6, 0_usize..5, 1_usize..20000), 1..150),
    ) {
        let mut bench = Bench::new(LogConfig { writes_in_flight, ..config() });
        let mut zxid = 0;
        for (kind, at, bytes) in moves {
            match kind {
                0 | 1 => {
                    zxid += 1;
                    bench.append(zxid, if kind == 0 { bytes } else { bytes % 100 });
                    bench.step(Input::Submit);
                }
                2 | 3 if at < bench.writes.len() => bench.complete(at),
                4 if at < bench.helper.len() => bench.help(at),
                5 if at == 0 => bench.step(Input::Roll),
                _ => bench.step(Input::Submit),
            }
            let durable = bench.durable();
            prop_assert!(durable.len() as u64 >= bench.flushed.0);
            prop_assert!(durable.iter().copied().eq(1..=durable.len() as u64));
        }
        bench.settle();
        prop_assert_eq!(bench.flushed, Zxid(zxid));
        prop_assert_eq!(bench.log.unflushed_bytes(), 0);
        bench.step(Input::Stop);
        bench.settle();
        prop_assert_eq!(bench.trace.last().map(String::as_str), Some("stopped"));
        prop_assert_eq!(bench.durable(), (1..=zxid).collect::<Vec<_>>());
        prop_assert!(bench.fatal.is_empty());
    }
}

#[test]
fn there_is_room_where_the_disk_has_space_already_and_on_a_full_disk_for_what_must_not_be_refused() {
    let mut bench = Bench::new(config());
    assert!(!bench.log.has_room(100), "no file yet");
    bench.help(0);
    assert!(bench.log.has_room(4 << 10));
    bench.append(1, 10 << 10);
    assert!(bench.log.has_room(4 << 10));
    assert!(!bench.log.has_room(8 << 10), "behind the zeros");
    bench.space = false;
    bench.step(Input::Submit);
    bench.settle();
    assert!(!bench.log.accepts_writes());
    assert!(bench.log.has_room(8 << 10));
}

#[test]
fn a_write_that_does_not_end_within_its_limit_stops_the_process() {
    let mut bench = Bench::new(config());
    bench.settle();
    bench.append(1, 10);
    bench.step(Input::Submit);
    bench.wait_until(Time(0) + FLUSH_LIMIT - Duration::from_secs(1));
    assert!(bench.fatal.is_empty(), "{:?}", bench.fatal);
    bench.wait_until(Time(0) + FLUSH_LIMIT);
    assert!(bench.fatal[0].contains("has not ended within 60 s"), "{:?}", bench.fatal);
}

#[test]
fn a_file_that_does_not_get_its_name_within_the_limit_of_a_write_stops_the_process() {
    let mut bench = Bench::new(config());
    bench.help(0);
    bench.append(1, 10);
    bench.step(Input::Submit);
    bench.complete(0);
    bench.wait_until(Time(0) + FLUSH_LIMIT);
    assert_eq!((bench.flushed, bench.fatal.len()), (Zxid(0), 1));
}

#[test]
fn a_slow_disk_that_goes_on_and_a_pause_of_the_process_are_no_reason_to_stop() {
    let mut bench = Bench::new(config());
    bench.settle();
    for zxid in 1..=20 {
        bench.append(zxid, 10);
        let now = Time::from_ms(10_000 * zxid);
        bench.step_at(now, Input::Submit);
        bench.wait_until(now + Duration::from_secs(9));
        bench.settle();
    }
    bench.append(21, 10);
    bench.step_at(Time::from_ms(300_000), Input::Submit);
    bench.step_at(Time::from_ms(900_000), Input::Timeout);
    assert!(bench.fatal.is_empty(), "{:?}", bench.fatal);
    bench.settle();
    assert_eq!(bench.log.deadline(), None);
}

#[test]
fn a_stop_on_a_full_disk_goes_without_what_has_no_room() {
    let mut bench = Bench::new(config());
    bench.settle();
    bench.space = false;
    for zxid in 1..=20 {
        bench.append(zxid, 3000);
        bench.step(Input::Submit);
        bench.settle();
    }
    bench.step(Input::Stop);
    for second in 1..STOP_ON_FULL_DISK_LIMIT.as_secs() {
        bench.wait_until(Time::from_ms(1000 * second));
        bench.settle();
        assert_ne!(bench.trace.last().map(String::as_str), Some("stopped"), "there may be space soon");
    }
    bench.wait_until(Time(0) + 2 * STOP_ON_FULL_DISK_LIMIT);
    bench.settle();
    assert_eq!(bench.trace.last().map(String::as_str), Some("stopped"));
    assert_eq!((bench.flushed, bench.durable()), (Zxid(5), vec![1, 2, 3, 4, 5]));
}

#[test]
fn a_stop_on_a_full_disk_that_gets_space_in_time_loses_nothing() {
    let mut bench = Bench::new(config());
    bench.settle();
    bench.space = false;
    for zxid in 1..=20 {
        bench.append(zxid, 3000);
        bench.step(Input::Submit);
        bench.settle();
    }
    bench.step(Input::Stop);
    bench.space = true;
    bench.wait_until(Time::from_ms(1500));
    bench.settle();
    assert_eq!(bench.trace.last().map(String::as_str), Some("stopped"));
    assert_eq!(bench.durable(), (1..=20).collect::<Vec<_>>());
}

#[test]
fn a_stop_of_a_log_that_never_got_a_file_ends() {
    let mut bench = Bench::new(config());
    bench.helper.clear();
    bench.space = false;
    bench.step(Input::NoSpace { file: FileId(0) });
    bench.append(1, 10);
    bench.step(Input::Stop);
    bench.settle();
    assert_ne!(bench.trace.last().map(String::as_str), Some("stopped"));
    bench.wait_until(Time(0) + 2 * STOP_ON_FULL_DISK_LIMIT);
    bench.settle();
    assert_eq!(bench.trace.last().map(String::as_str), Some("stopped"));
}

#[test]
fn on_a_full_disk_the_second_half_of_the_reserve_is_not_for_new_sessions() {
    let mut bench = Bench::new(config());
    bench.settle();
    assert!(bench.log.accepts_sessions());
    bench.space = false;
    let mut zxid = 0;
    let mut append = |bench: &mut Bench, bytes| {
        zxid += 1;
        bench.append(zxid, bytes);
        bench.step(Input::Submit);
        bench.settle();
    };
    while bench.log.accepts_writes() {
        append(&mut bench, 3000);
    }
    let reserve = bench.log.reserve_bytes();
    assert!(reserve > 4096 && bench.log.accepts_sessions());
    while bench.log.accepts_sessions() {
        append(&mut bench, 100);
    }
    assert!((reserve / 2 - 200..=reserve / 2).contains(&bench.log.reserve_bytes()), "{}", bench.log.reserve_bytes());
    bench.space = true;
    bench.step_at(bench.log.deadline().unwrap(), Input::Timeout);
    bench.settle();
    assert!(bench.log.accepts_sessions());
}
