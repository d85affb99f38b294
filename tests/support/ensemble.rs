//! Several servers as processes that form an ensemble on loopback.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::client::Client;
use super::random::Random;

/// A bound for everything that should happen soon; generous, as machines are shared.
pub const SOON: Duration = Duration::from_secs(40);

/// How many servers, and what differs from their defaults.
#[derive(Clone, Default, Debug)]
pub struct Shape {
    pub servers: u16,
    /// The last so many do not vote.
    pub observers: u16,
    /// Lines of every zoo.cfg.
    pub config: Vec<String>,
    /// As what servers know each other, `127.0.0.1` unless set.
    pub host: Option<String>,
}

impl Shape {
    pub fn of(servers: u16) -> Shape {
        Shape { servers, ..Shape::default() }
    }
}

pub struct Ensemble {
    pub members: Vec<Member>,
    binary: PathBuf,
    _directory: TempDir,
}

/// One server, running or not. Dropping it kills its process.
pub struct Member {
    pub id: u16,
    pub directory: PathBuf,
    pub client: SocketAddr,
    pub election_port: u16,
    child: Option<Child>,
}

impl Ensemble {
    /// Starts all and waits until each serves.
    pub fn start(binary: &str, shape: &Shape) -> Ensemble {
        let mut ensemble = Ensemble::prepare(binary, shape);
        for at in 0..ensemble.members.len() {
            ensemble.start_one(at);
        }
        ensemble.until_all_serve();
        ensemble
    }

    /// Writes directories and configurations.
    pub fn prepare(binary: &str, shape: &Shape) -> Ensemble {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let ports = free_ports(usize::from(shape.servers) * 3);
        let ports: Vec<&[u16]> = ports.chunks_exact(3).collect();
        let servers: Vec<String> = (1..=shape.servers)
            .zip(&ports)
            .map(|(id, ports)| {
                let role = if id > shape.servers - shape.observers { ":observer" } else { "" };
                let host = shape.host.as_deref().unwrap_or("127.0.0.1");
                format!("server.{id}={host}:{}:{}{role}", ports[1], ports[2])
            })
            .collect();
        let members = (1..=shape.servers)
            .zip(&ports)
            .map(|(id, ports)| {
                let its = directory.path().join(format!("server-{id}"));
                write_files(&its, id, ports[0], &servers, &shape.config);
                let client = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[0]));
                Member { id, directory: its, client, election_port: ports[2], child: None }
            })
            .collect();
        Ensemble { members, binary: binary.into(), _directory: directory }
    }

    pub fn start_one(&mut self, at: usize) {
        let binary = self.binary.clone();
        self.members[at].start(&binary);
    }

    pub fn until_all_serve(&self) {
        self.until("every server that runs serves", |ensemble| {
            ensemble.members.iter().all(|member| member.child.is_none() || member.mode().is_some())
        });
    }

    /// Waits until it holds; panics with the last words of all servers if it does not.
    pub fn until(&self, what: &str, mut holds: impl FnMut(&Ensemble) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}\n{}", self.words());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What all of them said last.
    pub fn words(&self) -> String {
        let mut words = String::new();
        for member in &self.members {
            let log = member.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(40)..].join("\n");
            words.push_str(&format!("---- server {} ({:?})\n{tail}\n", member.id, member.mode()));
        }
        words
    }

    /// The place of the leader, once there is one.
    pub fn leader(&self) -> usize {
        let mut leader = None;
        self.until("somebody leads", |ensemble| {
            leader = ensemble.members.iter().position(|member| member.mode().as_deref() == Some("leader"));
            leader.is_some()
        });
        leader.expect("just seen")
    }

    /// The place of a server that follows.
    pub fn follower(&self) -> usize {
        let mut follower = None;
        self.until("somebody follows", |ensemble| {
            follower = ensemble.members.iter().position(|member| member.mode().as_deref() == Some("follower"));
            follower.is_some()
        });
        follower.expect("just seen")
    }

    pub fn kill(&mut self, at: usize) {
        self.members[at].kill();
    }

    /// A session on one server.
    pub fn client(&self, at: usize) -> Client {
        let mut client = None;
        self.until("a session is opened", |ensemble| {
            client = Client::connect(ensemble.members[at].client, 30_000).ok();
            client.is_some()
        });
        client.expect("just opened")
    }
}

impl Member {
    fn start(&mut self, binary: &Path) {
        assert!(self.child.is_none(), "server {} runs", self.id);
        let log = File::options().create(true).append(true).open(self.directory.join("server.log"));
        let log = log.expect("test directory is writable");
        let errors = log.try_clone().expect("a file can be shared");
        let mut command = Command::new(binary);
        command.arg("server").arg(self.directory.join("zoo.cfg")).current_dir(&self.directory);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        self.child = Some(command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")));
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// `SIGTERM` and its like.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().expect("it runs");
        let kill = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
        assert!(kill.is_ok_and(|status| status.success()), "a process may signal its own child");
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("our child can be waited for") {
                return status;
            }
            if start.elapsed() > SOON {
                let _ = child.kill();
                panic!("server {} has not ended within {SOON:?}\n{}", self.id, self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// `leader`, `follower` or `observer`; `None` if it does not serve.
    pub fn mode(&self) -> Option<String> {
        self.child.as_ref()?;
        let answer = self.four_letter("srvr")?;
        answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned)
    }

    /// The answer to a four-letter word; `None` if nobody answers.
    pub fn four_letter(&self, word: &str) -> Option<String> {
        let mut stream = TcpStream::connect_timeout(&self.client, Duration::from_secs(5)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        stream.write_all(word.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// A line of `mntr`.
    pub fn mntr(&self, key: &str) -> Option<String> {
        let answer = self.four_letter("mntr")?;
        let line = answer.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('\t'))?;
        Some(line.trim().to_owned())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("server.log")).unwrap_or_default()
    }

    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

fn write_files(directory: &Path, id: u16, client_port: u16, servers: &[String], config: &[String]) {
    let data = directory.join("data");
    fs::create_dir_all(&data).expect("test directory is writable");
    fs::write(data.join("myid"), id.to_string()).expect("test directory is writable");
    let mut lines = vec![
        "tickTime=2000".to_owned(),
        "initLimit=10".to_owned(),
        "syncLimit=5".to_owned(),
        format!("dataDir={}", data.display()),
        format!("clientPort={client_port}"),
        "clientPortAddress=127.0.0.1".to_owned(),
        "maxClientCnxns=0".to_owned(),
        "4lw.commands.whitelist=*".to_owned(),
        "admin.enableServer=false".to_owned(),
        "oxkeeper.pin=false".to_owned(),
    ];
    lines.extend_from_slice(config);
    lines.extend_from_slice(servers);
    fs::write(directory.join("zoo.cfg"), lines.join("\n") + "\n").expect("test directory is writable");
}

/// Ports that nobody listens on now and that the system gives to no outgoing connection: one of those could otherwise sit on
/// the port of a server that is down, and keep it from coming back.
pub fn free_ports(count: usize) -> Vec<u16> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let mut random = Random::new(now, std::process::id().into());
    let mut held = Vec::new();
    while held.len() < count {
        let port = 10_000 + random.below(20_000) as u16;
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    }
    held.iter().map(|listener| listener.local_addr().expect("bound").port()).collect()
}
