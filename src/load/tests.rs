//! Whole runs against the fake server: real sockets, short times.

use clap::Parser;

use super::args::BenchArgs;
use super::coordinator::bench;
use super::error::LoadError;
use super::fake::{Fake, Fault};
use super::report::{FailoverSummary, Row, StageSummary, Summary};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: BenchArgs,
}

fn run_on(servers: &[&Fake], line: &str) -> Result<Summary, LoadError> {
    let servers: Vec<String> = servers.iter().map(|fake| fake.address.to_string()).collect();
    let servers = servers.join(",");
    // What the line says comes last and wins.
    let defaults =
        "bench --quiet --sessions 3 --depth 4 --keys 150 --duration 300ms --warmup 50ms --connect-timeout 1s";
    let words = defaults.split_whitespace().chain(["--servers", &servers]).chain(line.split_whitespace());
    bench(&Cli::command_with_overrides(words))
}

impl Cli {
    fn command_with_overrides<'a>(words: impl Iterator<Item = &'a str>) -> BenchArgs {
        use clap::{CommandFactory, FromArgMatches};
        let command = Cli::command().args_override_self(true);
        Cli::from_arg_matches(&command.get_matches_from(words)).unwrap().args
    }
}

fn run(fault: Fault, line: &str) -> (Fake, StageSummary) {
    let fake = Fake::start(fault);
    let summary = run_on(&[&fake], line).unwrap();
    (fake, summary.run.unwrap())
}

fn row<'a>(stage: &'a StageSummary, op: &str) -> &'a Row {
    let row = stage.ops.iter().find(|row| row.op == op);
    row.unwrap_or_else(|| panic!("{op} did not occur: {:?}", stage.ops.iter().map(|row| row.op).collect::<Vec<_>>()))
}

#[test]
fn every_operation_is_answered_and_nothing_is_left() {
    let mix = "get,exists,set,create,delete,children,multi,sync";
    let (fake, stage) = run(Fault::None, &format!("--mix {mix}"));
    for op in mix.split(',') {
        assert!(row(&stage, op).count > 0, "{op}");
        assert_eq!(row(&stage, op).error_count, 0, "{op}");
    }
    assert_eq!(stage.total.count, stage.ops.iter().map(|row| row.count).sum::<u64>());
    assert_eq!(stage.protocol_violations, 0);
    assert_eq!(fake.paths(), Vec::<String>::new());
    assert_eq!(fake.open_sessions(), 0);
}

#[test]
fn what_others_made_below_the_prefix_stays() {
    let fake = Fake::start(Fault::None);
    fake.add_path("/bench");
    fake.add_path("/bench/mine");
    run_on(&[&fake], "--mix create,set").unwrap();
    assert_eq!(fake.paths(), ["/bench", "/bench/mine"]);
}

#[test]
fn kept_znodes_stay_and_the_next_run_clears_them() {
    let fake = Fake::start(Fault::None);
    run_on(&[&fake], "--mix create --keep").unwrap();
    assert!(fake.paths().iter().any(|path| path.starts_with("/bench/s000000/c")));
    let summary = run_on(&[&fake], "--mix create").unwrap();
    assert_eq!(summary.run.unwrap().total.error_count, 0, "the kept ones were in the way");
    assert_eq!(fake.paths(), ["/bench"], "the first run made it, the second found it");
}

#[test]
fn a_fill_creates_what_was_asked() {
    let fake = Fake::start(Fault::None);
    let summary = run_on(&[&fake], "--workload fill --keys 1234 --threads 2 --keep").unwrap();
    let fill = summary.fill.unwrap();
    assert_eq!((fill.total.count, fill.total.error_count), (1234, 0));
    assert!(summary.run.is_none());
    assert_eq!(fake.paths().len(), 1 + 13 + 1234);
}

#[test]
fn a_fixed_rate_is_kept() {
    let (_, stage) = run(Fault::None, "--rate 1000 --threads 2 --duration 500ms");
    let count = stage.total.count + stage.unsent;
    // What was due just before measuring began may be answered within it.
    assert!((499..=504).contains(&count), "{count}");
}

#[test]
fn a_server_that_hangs_shows_in_what_was_not_sent_and_not_answered() {
    let (_, stage) = run(Fault::Hangs { after: 100 }, "--mix exists --rate 2000 --sessions 2 --keys 1 --keep");
    assert!(stage.unsent > 0);
    assert_eq!(row(&stage, "exists").errors.get("Unfinished"), Some(&8), "depth 4 on two sessions");
}

#[test]
fn each_watcher_gets_each_event() {
    for line in ["--workload watch", "--workload watch --persistent-watches --threads 2"] {
        let (_, stage) = run(Fault::None, &format!("{line} --sessions 5"));
        let rounds = row(&stage, "last-event").count;
        assert!(rounds > 0, "{line}");
        // The first and the last round may be cut by the measured time.
        let events = row(&stage, "event").count;
        assert!(events.abs_diff(rounds * 5) <= 5, "{line}: {events} events in {rounds} rounds");
        assert_eq!(stage.total.count, events);
    }
}

#[test]
fn a_storm_opens_and_closes_sessions() {
    for line in ["--workload storm", "--workload storm --rate 100"] {
        let (fake, stage) = run(Fault::None, line);
        let (opened, closed) = (row(&stage, "connect").count, row(&stage, "close").count);
        assert!(opened > 0 && opened.abs_diff(closed) <= 3, "{line}: {opened}, {closed}");
        assert_eq!(fake.open_sessions(), 0, "{line}");
    }
}

#[test]
fn idle_sessions_are_kept_alive_by_pings() {
    let fake = Fake::with_timeout(Fault::None, 1_000);
    let stage = run_on(&[&fake], "--workload idle --sessions 20 --duration 700ms").unwrap().run.unwrap();
    assert!(row(&stage, "ping").count >= 20, "{}", row(&stage, "ping").count);
    assert_eq!((stage.connections_lost, stage.sessions_at_end), (0, 20));
}

#[test]
fn sessions_go_on_over_new_connections() {
    let (fake, stage) = run(Fault::Breaks { gets: 50 }, "--mix get,create,delete --warmup 0s");
    assert!(stage.connections_lost > 0);
    assert_eq!(stage.sessions_resumed, stage.connections_lost);
    assert!(stage.total.errors.contains_key("ConnectionLoss"));
    assert_eq!(stage.protocol_violations, 0);
    assert_eq!(fake.paths(), Vec::<String>::new());
}

#[test]
fn expired_sessions_are_replaced() {
    let (_, stage) = run(Fault::Expires { gets: 50 }, "--mix get --warmup 0s");
    assert_eq!((stage.connections_lost, stage.sessions_expired, stage.sessions_at_end), (3, 3, 3));
}

#[test]
fn a_server_that_is_gone_is_replaced_by_the_next() {
    let (gone, here) = (Fake::start(Fault::Closes), Fake::start(Fault::None));
    let stage = run_on(&[&gone, &here], "").unwrap().run.unwrap();
    assert!(stage.total.count > 0);
    assert_eq!(stage.total.error_count, 0);
}

#[test]
fn broken_promises_are_counted_and_told() {
    for fault in [Fault::WrongXid { after: 100 }, Fault::WrongZxid { after: 100 }] {
        let (_, stage) = run(fault, "--keys 1 --keep");
        assert!(stage.protocol_violations > 0, "{fault:?}");
        assert!(!stage.violations.is_empty(), "{fault:?}");
    }
}

#[test]
fn errors_are_counted_by_name() {
    let (_, stage) = run(Fault::NoAuth, "--mix set,get");
    assert_eq!(row(&stage, "set").count, 0);
    assert_eq!(row(&stage, "set").errors.get("NoAuth"), Some(&row(&stage, "set").error_count));
    assert_eq!(row(&stage, "get").error_count, 0);
}

#[test]
fn what_keeps_a_run_from_running_is_told() {
    let check = |fault, words: &str| {
        let error = run_on(&[&Fake::start(fault)], "--connect-timeout 200ms").unwrap_err().to_string();
        assert!(error.contains(words), "{fault:?}: {error}");
    };
    check(Fault::NotZooKeeper, "does not speak ZooKeeper's protocol");
    check(Fault::Closes, "maxClientCnxns");
    check(Fault::Refuses, "wants none");
    check(Fault::Hangs { after: 0 }, "does not answer");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let words = ["bench".to_owned(), format!("--servers={nobody}"), "--connect-timeout=200ms".to_owned()];
    let error = bench(&Cli::parse_from(words).args).unwrap_err().to_string();
    assert!(error.contains("cannot connect") && error.contains("Is a server running there?"), "{error}");
}

/// Long enough for what is to happen on the busiest of machines.
const FAILOVER: &str = "--workload failover --depth 1 --rate 500 --duration 2s";

fn failover(fault: Fault) -> FailoverSummary {
    let broken = Fake::start(fault);
    let fine = broken.beside(Fault::None);
    let summary = run_on(&[&broken, &fine], FAILOVER).unwrap();
    assert_eq!(fine.paths(), Vec::<String>::new(), "{fault:?}: something is left");
    summary.failover.unwrap()
}

#[test]
fn a_writer_at_each_server_keeps_its_pace() {
    let first = Fake::start(Fault::None);
    let others = [first.beside(Fault::None), first.beside(Fault::None)];
    let line = format!("{FAILOVER} --duration 300ms");
    let summary = run_on(&[&first, &others[0], &others[1]], &line).unwrap();
    let failover = summary.failover.unwrap();
    assert!(failover.is_sound(), "{}", failover.accusation());
    assert_eq!(failover.writers.len(), 3);
    for writer in &failover.writers {
        let due = writer.acknowledged + writer.skipped;
        assert!(due <= 176, "{due} of 350 ms at 500/s");
        assert_eq!((writer.disconnects, writer.unknown, writer.expired), (0, 0, 0));
        assert!(writer.longest_gap.length_ms > 0.0);
        assert!(writer.pause_of_others.unwrap().length_ms <= writer.longest_gap.length_ms.max(350.0));
    }
    assert_eq!(summary.run.unwrap().ops[0].op, "set");
}

#[test]
fn a_writer_comes_back_to_its_own_server_and_resumes_its_session() {
    let failover = failover(Fault::BreaksBehind { sets: 20 });
    let [broken, fine] = &failover.writers[..] else { panic!("two writers") };
    assert!(broken.disconnects > 0);
    assert_eq!(broken.resumed, broken.disconnects);
    assert_eq!((broken.unknown, broken.unknown_applied), (broken.disconnects, broken.disconnects));
    assert_eq!((fine.disconnects, fine.unknown), (0, 0));
    assert!(failover.is_sound(), "{}", failover.accusation());
}

#[test]
fn an_expired_session_is_counted_and_replaced() {
    let failover = failover(Fault::ExpiresBehind { sets: 60 });
    for writer in &failover.writers {
        assert_eq!((writer.disconnects, writer.expired, writer.resumed), (1, 1, 0));
    }
    assert!(failover.is_sound(), "{}", failover.accusation());
}

#[test]
fn a_lost_set_and_a_doubled_one_are_told() {
    let check = |fault, lost, doubled| {
        let fake = Fake::start(fault);
        let failover = run_on(&[&fake], FAILOVER).unwrap().failover.unwrap();
        assert_eq!((failover.lost, failover.doubled), (lost, doubled), "{fault:?}");
        assert!(!failover.is_sound());
        let accusation = failover.accusation();
        assert!(accusation.contains(if lost > 0 { "LOST: 1" } else { "DOUBLED: 1" }), "{accusation}");
        assert!(accusation.contains("writer 0: set"), "{accusation}");
    };
    check(Fault::LosesSet { sets: 60 }, 1, 0);
    check(Fault::DoublesSet { sets: 60 }, 0, 1);
}
