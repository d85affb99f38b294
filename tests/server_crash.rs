//! `kill -9` again and again: whatever the server has acknowledged is there after its restart.
//!
//! `ROUNDS=300` for a long run, `SEED=7` for other moments of death, `SERVER_UNDER_TEST=java` for the baseline.

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::client::{Answer, Client, Reply};
use support::link::{Connect, Ended, op};
use support::random::Random;
use support::server::{Program, Server, Settings};

const ROUNDS_BY_DEFAULT: u64 = 10;
const WRITERS: usize = 4;

/// Longest life of a server under load, in ms.
const LIFE_MS_MAX: usize = 600;

/// Sessions must outlive a slow restart.
const TIMEOUT_MS: i32 = 120_000;

/// Flags of a create.
const EPHEMERAL: i32 = 1;
const SEQUENTIAL: i32 = 2;

fn settings() -> Settings {
    // Small: so that deaths meet snapshots and the files that begin behind them.
    let config = ["tickTime=2000", "minSessionTimeout=60000", "maxSessionTimeout=240000", "snapCount=300"];
    Settings { config: config.map(str::to_owned).to_vec(), properties: Vec::new() }
}

/// A write whose answer did not come: it may have happened or not.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Pending {
    Nothing,
    Set,
    SetBoth,
    Create,
    Delete(String),
}

/// One session, and what the server has acknowledged to it.
#[derive(Debug)]
struct Writer {
    root: String,
    random: Random,
    session: i64,
    password: Vec<u8>,
    /// Zxid of the last acknowledged write.
    zxid: i64,
    /// Value of `root`, and of both nodes of the pair. Each write sets the next number.
    value: u64,
    both: u64,
    /// Names of sequential znodes that were created and not deleted.
    names: BTreeSet<String>,
    deleted: BTreeSet<String>,
    pending: Pending,
    acknowledged: u64,
}

/// A reply that must say OK. Errors: how the connection ended.
fn ok(answer: Answer) -> Result<Reply, Ended> {
    answer.inspect(|reply| assert_eq!(reply.err, 0, "a write that must succeed"))
}

impl Writer {
    fn new(address: SocketAddr, index: usize, seed: u64) -> Writer {
        let mut client = Client::connect(address, TIMEOUT_MS).expect("a session is given");
        let root = format!("/w{index}");
        let paths = [root.clone(), format!("{root}/a"), format!("{root}/b"), format!("{root}/names")];
        for path in &paths {
            ok(client.create(path, b"0", 0)).expect("nobody kills yet");
        }
        let zxid = ok(client.create(&format!("{root}/mine"), b"", EPHEMERAL)).expect("nobody kills yet").zxid;
        Writer {
            root,
            random: Random::new(seed, 0xc0a5 + index as u64),
            session: client.session,
            password: client.password,
            zxid,
            value: 0,
            both: 0,
            names: BTreeSet::new(),
            deleted: BTreeSet::new(),
            pending: Pending::Nothing,
            acknowledged: 0,
        }
    }

    /// Goes on with its session.
    fn attach(&self, address: SocketAddr) -> Result<Client, Ended> {
        let connect = Connect {
            session: self.session,
            password: Some(self.password.clone()),
            last_zxid_seen: self.zxid,
            ..Connect::new_session(TIMEOUT_MS)
        };
        let client = Client::open(address, &connect);
        assert!(!matches!(client, Err(Ended::Refused)), "{}: session {:#x} is lost", self.root, self.session);
        client
    }

    /// Writes until the server is gone.
    fn write(&mut self, address: SocketAddr, is_dead: &AtomicBool) {
        let mut client = self.attach(address);
        loop {
            match client.as_mut().map_err(|ended| *ended).and_then(|client| self.write_one(client)) {
                Ok(reply) => {
                    assert!(reply.zxid > self.zxid, "{}: zxids of one client's writes rise", self.root);
                    self.zxid = reply.zxid;
                    self.pending = Pending::Nothing;
                    self.acknowledged += 1;
                }
                Err(ended) => {
                    assert!(is_dead.load(Ordering::SeqCst), "{}: {ended:?} while the server should live", self.root);
                    return;
                }
            }
        }
    }

    /// What is acknowledged is entered into the model; what is under way stands in `pending`.
    fn write_one(&mut self, client: &mut Client) -> Result<Reply, Ended> {
        let root = &self.root;
        let [a, b, names] = ["a", "b", "names"].map(|name| format!("{root}/{name}"));
        let deletes = if self.names.is_empty() { 0 } else { 2 };
        match self.random.weighted(&[4, 3, 5, deletes]) {
            0 => {
                self.pending = Pending::Set;
                let reply = ok(client.set_data(root, (self.value + 1).to_string().as_bytes()))?;
                self.value += 1;
                Ok(reply)
            }
            1 => {
                self.pending = Pending::SetBoth;
                let reply = ok(client.set_both([&a, &b], (self.both + 1).to_string().as_bytes()))?;
                self.both += 1;
                Ok(reply)
            }
            2 => {
                self.pending = Pending::Create;
                let data = vec![b'x'; self.random.below(2_000)];
                let reply = ok(client.create(&format!("{names}/n-"), &data, SEQUENTIAL))?;
                let name = reply.path().rsplit('/').next().unwrap_or_default().to_owned();
                assert!(self.names.insert(name), "{root}: a name is given once");
                Ok(reply)
            }
            _ => {
                let at = self.random.below(self.names.len());
                let name = self.names.iter().nth(at).expect("at is below the length").clone();
                self.pending = Pending::Delete(name.clone());
                let reply = ok(client.delete(&format!("{names}/{name}")))?;
                self.names.remove(&name);
                self.deleted.insert(name);
                Ok(reply)
            }
        }
    }

    /// All that was acknowledged is there, and nothing that was not asked for. Then what is there is the model.
    fn verify(&mut self, address: SocketAddr) {
        let mut client = self.attach(address).expect("the server serves");
        let root = self.root.clone();
        let mut value = |path: &str| -> u64 {
            let reply = client.read(op::GET_DATA, path, false).expect("the server serves");
            assert_eq!(reply.err, 0, "{path} is gone");
            String::from_utf8_lossy(&reply.data()).parse().expect("a number was written")
        };
        let found = value(&root);
        let may_be = [self.value, self.value + (self.pending == Pending::Set) as u64];
        assert!(may_be.contains(&found), "{root}: {found}, acknowledged {}, pending {:?}", self.value, self.pending);
        self.value = found;
        let (a, b) = (value(&format!("{root}/a")), value(&format!("{root}/b")));
        let may_be = [self.both, self.both + (self.pending == Pending::SetBoth) as u64];
        assert!(a == b && may_be.contains(&a), "{root}: multi {a} {b}, acknowledged {}, {:?}", self.both, self.pending);
        self.both = a;

        let reply = client.read(op::GET_CHILDREN, &format!("{root}/names"), false).expect("the server serves");
        let found: BTreeSet<String> = reply.names().into_iter().collect();
        for name in self.names.difference(&found) {
            assert_eq!(self.pending, Pending::Delete(name.clone()), "{root}: {name} was acknowledged and is gone");
            self.deleted.insert(name.clone());
        }
        let new: Vec<_> = found.difference(&self.names).collect();
        assert!(new.len() <= (self.pending == Pending::Create) as usize, "{root}: nobody created {new:?}");
        assert!(found.is_disjoint(&self.deleted), "{root}: deleted znodes are back");
        self.names = found;
        self.pending = Pending::Nothing;

        let mine = client.read(op::EXISTS, &format!("{root}/mine"), false).expect("the server serves");
        assert_eq!(mine.err, 0, "{root}: the session lives and its ephemeral is gone");
    }
}

/// Lets all write until the server is killed.
fn run_and_kill(server: &mut Server, writers: &mut [Writer], life: Duration) {
    let is_dead = AtomicBool::new(false);
    let address = server.address;
    std::thread::scope(|scope| {
        for writer in writers {
            let is_dead = &is_dead;
            scope.spawn(move || writer.write(address, is_dead));
        }
        std::thread::sleep(life);
        is_dead.store(true, Ordering::SeqCst);
        server.kill();
    });
}

fn number_from_env(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value}: not a number")))
}

fn crash_loop(program: &Program, directory: &Path, rounds: u64, seed: u64) {
    let mut random = Random::new(seed, 0xdead);
    let mut server = Server::start(program, directory, &settings());
    let mut writers: Vec<_> = (0..WRITERS).map(|index| Writer::new(server.address, index, seed)).collect();
    for round in 0..rounds {
        run_and_kill(&mut server, &mut writers, Duration::from_millis(random.below(LIFE_MS_MAX) as u64));
        // Recovery itself may be killed, too.
        while random.percent(25) {
            let life = Duration::from_millis(random.below(LIFE_MS_MAX) as u64);
            Server::start_and_kill(program, directory, &settings(), life);
        }
        server = Server::start(program, directory, &settings());
        writers.iter_mut().for_each(|writer| writer.verify(server.address));
        let total: u64 = writers.iter().map(|writer| writer.acknowledged).sum();
        println!("round {round}: {total} acknowledged writes so far");
    }
    let total: u64 = writers.iter().map(|writer| writer.acknowledged).sum();
    assert!(total > rounds, "hardly anything was written: {total}");
}

#[test]
fn acknowledged_writes_survive_kill_9() {
    let program = Program::under_test(env!("CARGO_BIN_EXE_oxkeeper"));
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let rounds = number_from_env("ROUNDS").unwrap_or(ROUNDS_BY_DEFAULT);
    let seed = number_from_env("SEED").unwrap_or(1);
    println!("again with: SEED={seed} ROUNDS={rounds} cargo test --test server_crash");
    crash_loop(&program, directory.path(), rounds, seed);
}
