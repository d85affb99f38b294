//! The binary on disks that are full, that fail, and that come back changed.
//!
//! Needs root: a file system of its own is mounted for each test that fills one.

mod support;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::client::Client;
use support::link::{Ended, PATIENCE, op};
use support::server::{Program, Server, Settings};

const NOT_READ_ONLY: i32 = -119;
const DISK_BYTES: u64 = 48 << 20;
/// Files that have not got their names yet.
const TMP_PREFIX: &str = "tmp-";
/// How long a change of the disk may take to be noticed. The log tries again once a second.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);

fn ours() -> Program {
    Program::Ours(env!("CARGO_BIN_EXE_oxkeeper").into())
}

fn run(command: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(command).args(arguments).output().map_err(|error| format!("{command}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// A small file system, mounted at `path`. Dropping it takes it away again.
struct SmallDisk {
    path: PathBuf,
    _home: tempfile::TempDir,
}

impl SmallDisk {
    /// ext4 in a file; where there are no loop devices, a tmpfs. Panics with both reasons where neither can be mounted.
    fn mount() -> SmallDisk {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let (image, path) = (home.path().join("image"), home.path().join("disk"));
        fs::create_dir(&path).expect("an empty directory");
        let file = File::create(&image).expect("a file");
        file.set_len(DISK_BYTES).expect("a sparse file");
        let (image, at) = (image.display().to_string(), path.display().to_string());
        let ext4 =
            run("mkfs.ext4", &["-q", "-m", "0", &image]).and_then(|()| run("mount", &["-o", "loop", &image, &at]));
        if let Err(no_ext4) = ext4 {
            let size = format!("size={DISK_BYTES}");
            if let Err(no_tmpfs) = run("mount", &["-t", "tmpfs", "-o", &size, "none", &at]) {
                panic!("a full disk needs a small file system, so run this as root: {no_ext4}; {no_tmpfs}");
            }
        }
        SmallDisk { path, _home: home }
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    /// Takes all space but about `left` bytes.
    fn fill_but(&self, left: u64) {
        let mut filler = File::create(self.filler()).expect("a file");
        let (mut bytes, chunk) = (0, vec![0x5a; 64 << 10]);
        while filler.write_all(&chunk).and_then(|()| filler.sync_data()).is_ok() {
            bytes += chunk.len() as u64;
        }
        filler.set_len(bytes.saturating_sub(left)).expect("a shorter file");
        filler.sync_all().expect("less than before");
    }

    fn free(&self) {
        fs::remove_file(self.filler()).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the server of a failed test may still be there.
        if let Err(error) = run("umount", &["-l", &self.path.display().to_string()]) {
            eprintln!("{error}");
        }
    }
}

fn connect(server: &Server) -> Client {
    Client::connect(server.address, 30_000).expect("the server accepts sessions")
}

fn wait_until(what: &str, server: &Server, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < NOTICED_WITHIN, "not within {NOTICED_WITHIN:?}: {what}\n{}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn data_of(number: usize) -> Vec<u8> {
    let mut data = vec![number as u8; 100_000];
    data[..8].copy_from_slice(&(number as u64).to_be_bytes());
    data
}

/// Writes until the server refuses. Returns how many were acknowledged.
fn create_until_refused(client: &mut Client, prefix: &str) -> usize {
    for number in 0..10_000 {
        let reply = client.create(&format!("{prefix}{number}"), &data_of(number), 0).expect("an answer, not silence");
        match reply.err {
            0 => {}
            NOT_READ_ONLY => return number,
            other => panic!("error {other} for create {number}"),
        }
    }
    panic!("the disk is never full");
}

fn assert_all_there(client: &mut Client, prefix: &str, count: usize) {
    for number in 0..count {
        let reply = client.read(op::GET_DATA, &format!("{prefix}{number}"), false).expect("an answer");
        assert_eq!(reply.err, 0, "{prefix}{number} was acknowledged");
        assert!(reply.data() == data_of(number), "{prefix}{number} has other data");
    }
}

fn files_in(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    let mut files: Vec<_> = entries.filter(named).collect();
    files.sort();
    files
}

fn version_2(server_directory: &Path) -> PathBuf {
    server_directory.join("data/version-2")
}

#[test]
fn a_full_disk_refuses_writes_and_nothing_else_until_there_is_space() {
    let disk = SmallDisk::mount();
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let log_dir = disk.path.join("log");
    let settings = Settings { config: vec![format!("dataLogDir={}", log_dir.display())], properties: Vec::new() };
    let mut server = Server::start(&ours(), home.path(), &settings);
    let mut idle = connect(&server);
    let mut leaving = connect(&server);
    let mut writer = connect(&server);
    assert_eq!(leaving.create("/ephemeral", b"", 1).expect("an answer").err, 0);
    disk.fill_but(12 << 20);
    let before = create_until_refused(&mut writer, "/a");
    assert!(before > 0);
    wait_until("a line for the operator", &server, || server.log().contains("the log's disk is full"));

    assert_eq!(writer.set_data("/a0", b"x").expect("an answer").err, NOT_READ_ONLY);
    assert_eq!(idle.ping().expect("an answer").err, 0);
    assert_all_there(&mut idle, "/a", before);
    assert_eq!(leaving.call(op::CLOSE_SESSION, &[]).expect("a session can end").err, 0);
    assert_eq!(idle.read(op::EXISTS, "/ephemeral", false).expect("an answer").err, -101, "its ephemeral goes with it");
    assert_eq!(connect(&server).ping().expect("even a new session fits into the reserve").err, 0);

    disk.free();
    wait_until("writes are accepted again", &server, || {
        writer.create("/again", b"", 0).expect("an answer").err != NOT_READ_ONLY
    });
    for number in 0..20 {
        assert_eq!(writer.create(&format!("/b{number}"), &data_of(number), 0).expect("an answer").err, 0);
    }
    assert!(server.log().contains("has space again"));

    server.kill();
    let server = Server::start(&ours(), home.path(), &settings);
    let mut client = connect(&server);
    assert_all_there(&mut client, "/a", before);
    assert_all_there(&mut client, "/b", 20);
    assert_eq!(client.read(op::EXISTS, "/again", false).expect("an answer").err, 0);
    assert_eq!(client.read(op::EXISTS, "/ephemeral", false).expect("an answer").err, -101);
    drop(server);
}

#[test]
fn a_server_that_starts_on_a_full_disk_serves_once_there_is_space() {
    let disk = SmallDisk::mount();
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let log_dir = disk.path.join("log");
    let settings = Settings { config: vec![format!("dataLogDir={}", log_dir.display())], properties: Vec::new() };
    let mut server = Server::start(&ours(), home.path(), &settings);
    assert_eq!(connect(&server).create("/kept", b"", 0).expect("an answer").err, 0);
    // Cleanly: what a killed one leaves is room for the next.
    run("kill", &["-TERM", &server.pid().to_string()]).expect("it runs");
    assert_eq!(server.wait_for_end(), Some(0));
    disk.fill_but(0);
    let server = Server::start(&ours(), home.path(), &settings);
    wait_until("a line for the operator", &server, || server.log().contains("the log's disk is full"));
    let refused = Client::connect(server.address, 30_000).expect_err("there is no room for a session");
    assert_eq!(refused, Ended::Closed);
    disk.free();
    let mut client = None;
    wait_until("sessions are opened", &server, || {
        client = Client::connect(server.address, 30_000).ok();
        client.is_some()
    });
    let mut client = client.expect("waited for");
    assert_eq!(client.read(op::EXISTS, "/kept", false).expect("an answer").err, 0);
    wait_until("writes are accepted", &server, || client.create("/new", b"", 0).expect("an answer").err == 0);
}

/// What expires on a disk that is full has no room in the log: the stop goes without it.
#[test]
fn a_stop_on_a_full_disk_ends_soon_and_what_it_had_no_room_for_happens_again() {
    let disk = SmallDisk::mount();
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let log_dir = disk.path.join("log");
    let config = vec![format!("dataLogDir={}", log_dir.display()), "tickTime=500".to_owned()];
    let settings = Settings { config, properties: Vec::new() };
    let mut server = Server::start(&ours(), home.path(), &settings);
    let mut leaving = Client::connect(server.address, 1000).expect("the server accepts sessions");
    assert_eq!(leaving.create("/ephemeral", b"", 1).expect("an answer").err, 0);
    assert_eq!(server.terminate(), Some(0));
    disk.fill_but(0);
    let mut server = Server::start(&ours(), home.path(), &settings);
    wait_until("the session's end", &server, || server.log().contains("session expired"));
    let start = Instant::now();
    assert_eq!(server.terminate(), Some(0), "{}", server.log());
    assert!(start.elapsed() < NOTICED_WITHIN, "stopped after {:?}", start.elapsed());
    disk.free();
    let server = Server::start(&ours(), home.path(), &settings);
    let mut client = connect(&server);
    wait_until("the ephemeral goes with its session", &server, || {
        client.read(op::EXISTS, "/ephemeral", false).expect("an answer").err == -101
    });
}

#[test]
fn a_snapshot_that_finds_no_space_leaves_nothing_and_the_next_one_works() {
    let disk = SmallDisk::mount();
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    // The log has a disk with space.
    let data = disk.path.join("data");
    let (config, log) = (home.path().join("log"), format!("dataDir={}", data.display()));
    let config = vec![log, format!("dataLogDir={}", config.display()), "snapCount=100".to_owned()];
    let settings = Settings { config, properties: Vec::new() };
    let server = Server::start(&ours(), home.path(), &settings);
    let snapshots = data.join("version-2");
    let mut client = connect(&server);
    assert_eq!(client.create("/big", &data_of(0), 0).expect("an answer").err, 0);
    wait_until("the first snapshots", &server, || !files_in(&snapshots, "snapshot.").is_empty());
    disk.fill_but(0);
    let known = files_in(&snapshots, "snapshot.");
    let mut write_until = |what: &str, is_so: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < NOTICED_WITHIN, "{what}\n{}", server.log());
            assert_eq!(client.set_data("/big", &data_of(0)).expect("an answer").err, 0);
        }
    };
    write_until("the failure is told", &|| server.log().contains("snapshot could not be written"));
    assert_eq!(files_in(&snapshots, "snapshot."), known);
    let leftovers = files_in(&snapshots, TMP_PREFIX);
    assert!(leftovers.is_empty(), "{leftovers:?}");
    disk.free();
    write_until("the next one works", &|| files_in(&snapshots, "snapshot.").len() > known.len());
}

#[test]
fn a_write_that_fails_ends_the_process_before_anything_more_is_acknowledged() {
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let mut server = Server::start(&ours(), home.path(), &Settings::default());
    let mut client = connect(&server);
    for number in 0..3 {
        assert_eq!(client.create(&format!("/a{number}"), &data_of(number), 0).expect("an answer").err, 0);
    }
    // The helper's zeros are there, so that the write itself is what fails.
    let log = only(home.path(), "log.");
    wait_until("zeros ahead", &server, || {
        let metadata = fs::metadata(&log).expect("a log");
        let rests =
            metadata.modified().expect("a time").elapsed().is_ok_and(|since| since > Duration::from_millis(500));
        metadata.len() > 8 << 20 && rests
    });
    // From here on the kernel refuses every byte of any file of this process beyond this, zeroed already or not.
    let limit = format!("--fsize={}", 512 << 10);
    run("prlimit", &["--pid", &server.pid().to_string(), &limit]).expect("prlimit is part of util-linux");
    let mut acknowledged = 3;
    let ended = loop {
        match client.create(&format!("/a{acknowledged}"), &data_of(acknowledged), 0) {
            Ok(reply) => assert_eq!(reply.err, 0),
            Err(ended) => break ended,
        }
        acknowledged += 1;
        assert!(acknowledged < 6, "this was beyond the limit");
    };
    assert_eq!(ended, Ended::Closed, "the process is gone within {PATIENCE:?}");
    assert_eq!(server.wait_for_end(), Some(1));
    let words = server.log();
    assert!(words.contains(&log.display().to_string()) && words.contains("not tried again"), "{words}");

    let server = Server::start(&ours(), home.path(), &Settings::default());
    assert_all_there(&mut connect(&server), "/a", acknowledged);
}

#[test]
fn a_clean_stop_leaves_a_log_without_a_tail() {
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let mut server = Server::start(&ours(), home.path(), &Settings::default());
    let mut client = connect(&server);
    assert_eq!(client.create("/a0", &data_of(0), 0).expect("an answer").err, 0);
    run("kill", &["-TERM", &server.pid().to_string()]).expect("it runs");
    assert_eq!(server.wait_for_end(), Some(0), "{}", server.log());
    let logs = files_in(&version_2(home.path()), "log.");
    assert_eq!(logs.len(), 1, "{logs:?}");
    let bytes = fs::read(&logs[0]).expect("a log");
    assert!(bytes.len() < 200_000 && bytes.last() == Some(&b'B'), "cut behind the last entry: {} bytes", bytes.len());
    assert!(files_in(&version_2(home.path()), TMP_PREFIX).is_empty());
    let said = server.log().len();
    let server = Server::start(&ours(), home.path(), &Settings::default());
    assert_all_there(&mut connect(&server), "/a", 1);
    let repairs: Vec<_> =
        server.log()[said..].lines().filter(|line| line.contains("WARN")).map(str::to_owned).collect();
    assert!(!repairs.iter().any(|line| line.contains("removed") || line.contains(" cut ")), "{repairs:?}");
}

/// A data directory with a snapshot and ten txns in one log, by a server that stopped cleanly.
fn data_directory() -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let mut server = Server::start(&ours(), home.path(), &Settings::default());
    let mut client = connect(&server);
    for number in 0..10 {
        assert_eq!(client.create(&format!("/a{number}"), &data_of(number), 0).expect("an answer").err, 0);
    }
    run("kill", &["-TERM", &server.pid().to_string()]).expect("it runs");
    assert_eq!(server.wait_for_end(), Some(0));
    home
}

fn only(home: &Path, prefix: &str) -> PathBuf {
    files_in(&version_2(home), prefix).pop().expect("one such file")
}

fn flip(path: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(path).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("within the file");
    file.write_all_at(&[byte[0] ^ 1], offset).expect("within the file");
}

fn check_refused(home: &Path, words: &[&str]) {
    let (code, said) = Server::start_refused(&ours(), home, &Settings::default());
    assert_eq!(code, Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in\n{said}");
    }
}

#[test]
fn a_flipped_bit_in_the_log_is_refused_with_file_and_offset() {
    let home = data_directory();
    let log = only(home.path(), "log.");
    flip(&log, 350_000);
    let before = fs::read(&log).expect("a log");
    check_refused(home.path(), &[&log.display().to_string(), "damaged at offset", "behind zxid"]);
    assert!(fs::read(&log).expect("a log") == before, "what is refused is left as it is");
}

#[test]
fn a_torn_last_entry_is_cut_and_the_rest_is_there() {
    let home = data_directory();
    let log = only(home.path(), "log.");
    let length = fs::metadata(&log).expect("a log").len();
    File::options().write(true).open(&log).expect("a log").set_len(length - 30_000).expect("a shorter file");
    let server = Server::start(&ours(), home.path(), &Settings::default());
    assert!(server.log().contains("ended in writes that never finished"), "{}", server.log());
    let mut client = connect(&server);
    assert_all_there(&mut client, "/a", 9);
    assert_eq!(client.read(op::EXISTS, "/a9", false).expect("an answer").err, -101);
    assert_eq!(client.create("/a9", &data_of(9), 0).expect("an answer").err, 0);
    drop(server);
    let server = Server::start(&ours(), home.path(), &Settings::default());
    assert_all_there(&mut connect(&server), "/a", 10);
}

#[test]
fn a_log_header_of_something_else_is_refused_with_its_name() {
    let home = data_directory();
    let log = only(home.path(), "log.");
    flip(&log, 0);
    check_refused(home.path(), &[&log.display().to_string(), "is no transaction log"]);
}

/// A second snapshot, so that an older one stands behind it.
fn with_two_snapshots() -> (tempfile::TempDir, PathBuf) {
    let home = data_directory();
    let first = only(home.path(), "snapshot.");
    let mut server = Server::start(&ours(), home.path(), &Settings::default());
    wait_until("a snapshot at start", &server, || only(home.path(), "snapshot.") != first);
    run("kill", &["-TERM", &server.pid().to_string()]).expect("it runs");
    assert_eq!(server.wait_for_end(), Some(0));
    let newest = files_in(&version_2(home.path()), "snapshot.").into_iter().find(|path| *path != first);
    (home, newest.expect("a second one"))
}

fn check_older_snapshot_serves(damage: impl Fn(&Path)) {
    let (home, newest) = with_two_snapshots();
    damage(&newest);
    let server = Server::start(&ours(), home.path(), &Settings::default());
    let words = server.log();
    assert!(words.contains(&newest.display().to_string()) && words.contains("trying an older one"), "{words}");
    assert_all_there(&mut connect(&server), "/a", 10);
}

#[test]
fn a_flipped_bit_in_a_snapshot_makes_the_one_before_it_serve() {
    check_older_snapshot_serves(|path| flip(path, 500_000));
}

#[test]
fn a_torn_snapshot_makes_the_one_before_it_serve() {
    check_older_snapshot_serves(|path| {
        File::options().write(true).open(path).expect("a snapshot").set_len(400_000).expect("a shorter file");
    });
}

#[test]
fn a_server_without_a_whole_snapshot_is_refused() {
    let (home, newest) = with_two_snapshots();
    for path in files_in(&version_2(home.path()), "snapshot.") {
        flip(&path, 20);
    }
    check_refused(home.path(), &[&newest.display().to_string(), "Not able to find valid snapshots"]);
}
