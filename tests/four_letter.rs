//! Four-letter words: golden answers of a fixed `Status`, and the same answers held against what Debian's Java
//! ZooKeeper 3.8.0 said in the same state (`tests/four_letter/java-3.8.0-<role>-<word>.txt`).
//!
//! `UPDATE_GOLDEN=1 cargo test --test four_letter` rewrites the golden files: read the diff.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use oxkeeper::ops::four_letter::{Answer, Word, answer};
use oxkeeper::server::status::{
    Command, EnsembleStatus, Environment, LeaderStatus, Mode, ProcessStatus, QuotaStatus, SessionStatus, Settings,
    Status, ZabStatus,
};
use oxkeeper::shard::stats::{ConnectionStats, OpKind, Response};
use oxkeeper::shard::status::{ConnectionStatus, ShardStatus};
use oxkeeper::types::ids::SessionId;
use oxkeeper::types::time::WallTime;
use oxkeeper::types::zxid::Zxid;

const ONE: SessionId = SessionId(0x1000010946b0004);
const TWO: SessionId = SessionId(0x1000010946b0005);

fn settings() -> Settings {
    Settings {
        server_id: 0,
        client_port: 22181,
        secure_client_port: -1,
        client_port_listen_backlog: -1,
        data_dir: "/tmp/data/version-2".into(),
        data_log_dir: "/tmp/log/version-2".into(),
        tick_time_ms: 2_000,
        max_client_cnxns: 0,
        min_session_timeout_ms: 4_000,
        max_session_timeout_ms: 40_000,
        ensemble: None,
    }
}

fn ensemble(observer: bool) -> EnsembleStatus {
    EnsembleStatus {
        init_limit_ticks: 20,
        sync_limit_ticks: 10,
        election_port: 22913,
        quorum_port: 22813,
        observer,
        members: vec![
            "server.1=127.0.0.1:22811:22911:participant".into(),
            "server.2=127.0.0.1:22812:22912:participant".into(),
            "server.3=127.0.0.1:22813:22913:participant".into(),
            "server.4=127.0.0.1:22814:22914:observer".into(),
        ],
        voters: 3,
        config_version: 0,
    }
}

fn environment() -> Environment {
    Environment {
        host_name: "localhost".into(),
        os_name: "Linux".into(),
        os_arch: "amd64".into(),
        os_version: "6.1.0".into(),
        user_name: "zookeeper".into(),
        user_home: "/var/lib/zookeeper".into(),
        user_dir: "/".into(),
        temp_dir: "/tmp".into(),
        memory_free_mb: 363,
        memory_max_mb: 1_024,
        memory_total_mb: 12,
    }
}

fn connection(port: u16, session: SessionId, interest: u8, received: u64, sent: u64) -> ConnectionStatus {
    let mut stats = ConnectionStats { packets_received: received, packets_sent: sent, ..ConnectionStats::default() };
    if session != SessionId::NONE {
        let response = Response { op: OpKind::Create, cxid: 9, zxid: 0x33a, now_ms: 1_150_564, latency_us: 5_100 };
        stats.record_response(&response);
        let op = if session == TWO { OpKind::GetChildren } else { OpKind::GetData };
        stats.record_response(&Response { op, cxid: 0x19a, latency_us: 900, ..response });
    }
    ConnectionStatus {
        peer: format!("127.0.0.1:{port}").parse().expect("an address"),
        secure: false,
        session,
        interest,
        queued: 0,
        stats,
        established: WallTime(1_795_274_461_415),
        timeout_ms: if session == TWO { 10_000 } else { 20_000 },
        expires_at: WallTime(if session == ONE { 1_795_274_489_000 } else { 1_795_274_479_000 }),
    }
}

/// One asking connection and two sessions: the state in which Java was asked, on two shards.
fn shards() -> [ShardStatus; 2] {
    let mut first = ShardStatus {
        connections_alive: 2,
        watch_count: 2,
        connections: vec![connection(41_658, SessionId::NONE, 0, 1, 0), connection(41_552, ONE, 1, 411, 411)],
        watches: BTreeMap::from([(ONE, vec!["/app/x".to_owned(), "/nope".to_owned()])]),
        ..ShardStatus::default()
    };
    first.stats.packets_received = 412;
    first.stats.packets_sent = 411;
    first.stats.client_response_size.record(93);
    first.stats.updatelatency.record_many(460, 400);
    first.stats.updatelatency.record(13_200);
    first.stats.op_counts.record(OpKind::SetWatches2);
    let mut second = ShardStatus {
        connections_alive: 1,
        watch_count: 2,
        connections: vec![connection(41_564, TWO, 1, 4, 4)],
        watches: BTreeMap::from([(TWO, vec!["/app/x".to_owned()])]),
        ..ShardStatus::default()
    };
    second.stats.packets_received = 4;
    second.stats.packets_sent = 4;
    second.stats.readlatency.record_many(45, 4);
    [first, second]
}

fn sample(mode: Mode) -> Status {
    let mut zab = ZabStatus {
        mode,
        zxid: Zxid(0x33a),
        znode_count: 13,
        ephemerals_count: 3,
        approximate_data_bytes: 120,
        global_sessions: 2,
        sessions: vec![
            SessionStatus { session: ONE, timeout_ms: 20_000, expires_at: WallTime(1_795_274_481_500) },
            SessionStatus { session: TWO, timeout_ms: 10_000, expires_at: WallTime(1_795_274_471_500) },
        ],
        ephemerals: BTreeMap::from([
            (ONE, vec!["/locks/a".to_owned(), "/locks/b".to_owned()]),
            (TWO, vec!["/locks/c".to_owned()]),
        ]),
        digests: vec![
            (Zxid(0x80), 15_043_561_586),
            (Zxid(0x100), 11_706_361_899),
            (Zxid(0x180), 14_648_318_925),
            (Zxid(0x200), 10_535_768_577),
            (Zxid(0x280), 10_897_186_469),
            (Zxid(0x300), 11_199_300_705),
        ],
        ..ZabStatus::default()
    };
    zab.stats.fsynctime.record_many(120, 826);
    zab.stats.sync_processor_batch_size.record(3);
    let mut settings = settings();
    if mode != Mode::Standalone {
        settings.server_id = 3;
        settings.ensemble = Some(ensemble(matches!(mode, Mode::Observer { .. })));
        zab.stats.proposal_size.record(48);
        zab.stats.proposal_size.record(141);
        zab.stats.proposal_size.record(61);
        let quota = QuotaStatus { count_limit: 100, bytes_limit: 1_000, count_usage: 3, bytes_usage: 3 };
        zab.quotas.insert("app".into(), quota);
    }
    let process = ProcessStatus {
        wall_now: WallTime(1_795_274_463_000),
        uptime_ms: 64_057,
        open_file_descriptors: 41,
        max_file_descriptors: 20_000,
        data_dir_bytes: 67_109_337,
        log_dir_bytes: 67_109_337,
        trace_mask: 306,
    };
    let mut status = Status::collect(settings, environment(), process, zab, shards());
    // Golden files must not change with every release.
    status.version = "3.9.5-oxkeeper-0.0.0, built on 2026-11-21 00:00 UTC".into();
    status
}

fn leader() -> Mode {
    Mode::Leader(LeaderStatus {
        learners: 3,
        synced_followers: 2,
        synced_observers: 1,
        synced_non_voting_followers: 0,
        pending_syncs: 0,
        leader_uptime_ms: 28_987,
    })
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/four_letter").join(name)
}

fn text(word: Word, status: &Status) -> String {
    answer(word, 306, status).text
}

fn check_golden(role: &str, word: Word, status: &Status) {
    let path = file(&format!("{role}-{}.txt", word.name()));
    let actual = text(word, status);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &actual).expect("golden file is writable");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(actual == expected, "{} differs (UPDATE_GOLDEN=1 rewrites it); now:\n{actual}", path.display());
}

#[test]
fn every_word_of_a_standalone_server_has_its_golden_answer() {
    for word in Word::ALL {
        check_golden("standalone", word, &sample(Mode::Standalone));
    }
}

#[test]
fn what_depends_on_the_role_has_its_golden_answer() {
    let roles = [
        ("leader", leader()),
        ("follower", Mode::Follower),
        ("observer", Mode::Observer { master: 3 }),
        ("read-only", Mode::ReadOnly),
    ];
    for (role, mode) in roles {
        for word in [Word::Srvr, Word::Conf, Word::Dump, Word::Isro, Word::Mntr] {
            check_golden(role, word, &sample(mode));
        }
    }
}

#[test]
fn a_server_that_does_not_serve_says_so_except_where_java_does_not() {
    let status = sample(Mode::NotServing);
    let refused = "This ZooKeeper instance is not currently serving requests";
    for word in Word::ALL {
        let Answer { text, command } = answer(word, 7, &status);
        let expected = match word {
            Word::Ruok => "imok".to_owned(),
            Word::Isro => "null".to_owned(),
            Word::Gtmk => "306".to_owned(),
            Word::Stmk => "7".to_owned(),
            Word::Hash => refused.to_owned(),
            Word::Envi => text.clone(),
            _ => format!("{refused}\n"),
        };
        assert_eq!(text, expected, "{}", word.name());
        assert_eq!(command, (word == Word::Stmk).then_some(Command::SetTraceMask(7)), "{}", word.name());
    }
}

#[test]
fn words_that_change_something_return_what() {
    let status = sample(Mode::Standalone);
    for word in Word::ALL {
        let expected = match word {
            Word::Crst => Some(Command::ResetConnectionStats),
            Word::Srst => Some(Command::ResetServerStats),
            Word::Stmk => Some(Command::SetTraceMask(-1)),
            _ => None,
        };
        assert_eq!(answer(word, -1, &status).command, expected);
    }
    assert_eq!(answer(Word::Stmk, -1, &status).text, "-1");
}

/// Numbers become `0`, dates and addresses keep their shape: what must be equal between two servers.
fn masked(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let run = |set: fn(&char) -> bool, text: &str| text.chars().take_while(set).count();
        if rest.starts_with("0x") {
            out.push_str("0x0");
            rest = &rest[2 + run(char::is_ascii_hexdigit, &rest[2..])..];
        } else if c.is_ascii_digit() {
            out.push('0');
            rest = &rest[run(char::is_ascii_digit, rest)..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// Lines of a captured answer, with what may differ from server to server taken out.
fn comparable(text: &str) -> Vec<String> {
    let own = |line: &str| line.contains("ookeeper version") || line.contains("zookeeper.version");
    // Java also lists the ticks at which nothing expires.
    let empty_tick = |line: &str| line.starts_with("0 expire at");
    let place = |line: &str| {
        let line = line.replace("/tmp/opsj/data/version-2", "/tmp/data/version-2");
        if line.starts_with("dataLogDir=") { "dataLogDir=/tmp/log/version-2".to_owned() } else { line }
    };
    text.split('\n').filter(|line| !own(line) && !empty_tick(line)).map(|line| masked(&place(line))).collect()
}

fn java(role: &str, word: Word) -> String {
    let path = file(&format!("java-3.8.0-{role}-{}.txt", word.name()));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn answers_equal_javas_in_the_same_state() {
    let status = sample(Mode::Standalone);
    for word in [Word::Srvr, Word::Stat, Word::Cons, Word::Conf, Word::Dirs, Word::Hash, Word::Wchs] {
        assert_eq!(comparable(&text(word, &status)), comparable(&java("standalone", word)), "{}", word.name());
    }
    for word in [Word::Hash, Word::Wchs, Word::Wchc, Word::Wchp, Word::Dirs] {
        assert_eq!(text(word, &status), java("standalone", word), "{}", word.name());
    }
    assert_eq!(comparable(&text(Word::Srvr, &sample(leader()))), comparable(&java("leader", Word::Srvr)));
}

/// Sessions and sets have no order in Java, so here lines are compared as a bag.
#[test]
fn dumps_have_javas_lines() {
    for (role, mode) in [("standalone", Mode::Standalone), ("follower", Mode::Follower)] {
        let kinds = |text: &str| {
            let mut lines: Vec<_> = comparable(text).into_iter().map(|line| weekday_out(&line)).collect();
            lines.retain(|line| !line.starts_with("\t/"));
            lines.sort();
            lines.dedup();
            lines
        };
        assert_eq!(kinds(&text(Word::Dump, &sample(mode))), kinds(&java(role, Word::Dump)), "{role}");
    }
}

/// `0 expire at Sat Nov 0 0:0:0 UTC 0:` without the two names.
fn weekday_out(line: &str) -> String {
    match line.split_once(" expire at ") {
        Some((count, date)) => format!("{count} expire at {}", date.split(' ').skip(2).collect::<Vec<_>>().join(" ")),
        None => line.to_owned(),
    }
}

fn keys(text: &str, separator: char) -> Vec<String> {
    text.lines().map(|line| line.split(separator).next().unwrap_or(line).to_owned()).collect()
}

#[test]
fn envi_and_conf_have_javas_keys_in_javas_order() {
    let status = sample(Mode::Standalone);
    assert_eq!(keys(&text(Word::Envi, &status), '='), keys(&java("standalone", Word::Envi), '='));
    for (role, mode) in [("leader", leader()), ("observer", Mode::Observer { master: 3 })] {
        let (ours, java) = (text(Word::Conf, &sample(mode)), java(role, Word::Conf));
        assert_eq!(keys(&ours, '='), keys(&java, '='), "{role}");
        assert!(!ours.ends_with('\n') && !java.ends_with('\n'));
        assert_eq!(ours.lines().find(|l| l.starts_with("peerType")), java.lines().find(|l| l.starts_with("peerType")));
    }
}

#[test]
fn mntr_has_javas_keys_in_javas_order_and_later_versions_behind_them() {
    let roles = [
        ("standalone", Mode::Standalone),
        ("leader", leader()),
        ("follower", Mode::Follower),
        ("observer", Mode::Observer { master: 3 }),
    ];
    for (role, mode) in roles {
        let mut ours = keys(&text(Word::Mntr, &sample(mode)), '\t');
        let mut java = keys(&java(role, Word::Mntr), '\t');
        // Sets of summaries (by namespace, by learner) appear with their first key; none are kept yet.
        java.retain(|key| {
            !key.ends_with("read_per_namespace") && !key.ends_with("write_per_namespace") && !key.contains("handler_qp")
        });
        let added = |key: &String| {
            ["zk_op_count_", "zk_ttl_node_", "zk_snapshot_", "zk_restore_"].iter().any(|p| key.starts_with(p))
                || key.ends_with("_restore_time")
        };
        assert_eq!(ours.iter().filter(|key| added(key)).count(), 4 + 24 + 2 + 5, "{role}");
        ours.retain(|key| !added(key));
        assert_eq!(ours, java, "{role}");
    }
}

#[test]
fn every_mntr_line_can_be_read_by_telegraf() {
    let mut status = sample(leader());
    status.zab.quotas.insert("naïve, app".into(), QuotaStatus::default());
    status.zab.stats.quota_exceeded_error_per_namespace.insert("a\tb\nc".into(), 1);
    for line in text(Word::Mntr, &status).lines() {
        let (key, value) = line.split_once('\t').expect("a tab");
        let name = key.strip_prefix("zk_").expect("zk_");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
        assert!(value.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.'), "{line}");
    }
}

#[test]
fn the_version_begins_with_the_zookeeper_that_it_stands_for() {
    let version = oxkeeper::server::status::version_text();
    assert!(version.starts_with("3.9.5-oxkeeper-") && version.contains(", built on "), "{version}");
}
