//! The servers of a local ensemble: their directories, ports and processes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::DevSettings;

/// Set for a server that stops when its standard input ends, so that it never outlives who started it.
pub const STOPS_WITH_STDIN: &str = "OXKEEPER_STOPS_WITH_STDIN";

/// From the client port to the others, as in every example of a zoo.cfg: 2181, 2888, 3888.
const TO_QUORUM_PORT: u16 = 2888 - 2181;
const TO_ELECTION_PORT: u16 = 3888 - 2181;
/// How long a server may take to answer `srvr`: it is on this machine.
const ANSWER_LIMIT: Duration = Duration::from_millis(200);
/// How long servers get to stop by themselves.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How many servers one command may start: more voters than seven never helped anybody.
pub const SERVERS_MAX: u16 = 9;

/// What a server says it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mode {
    /// No process.
    Down,
    /// A process that does not serve: starting or electing.
    NotServing,
    /// `leader`, `follower`.
    Serving(String),
}

/// How a process ended, for a person.
pub type Ending = String;

struct Server {
    directory: PathBuf,
    client: SocketAddr,
    child: Option<Child>,
    mode: Mode,
}

/// All of them, by id.
pub struct Servers {
    binary: PathBuf,
    directory: PathBuf,
    is_temporary: bool,
    all: BTreeMap<u16, Server>,
}

#[derive(Clone, Copy)]
struct Ports {
    client: u16,
    quorum: u16,
    election: u16,
}

impl Servers {
    /// Makes directories and configurations. What a given directory holds already is kept, and its ports are set anew.
    pub fn prepare(settings: &DevSettings) -> io::Result<Servers> {
        let directory = match &settings.directory {
            Some(directory) => directory.clone(),
            None => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
                std::env::temp_dir().join(format!("oxkeeper-dev-{}-{now:x}", std::process::id()))
            }
        };
        fs::create_dir_all(&directory)?;
        let directory = directory.canonicalize()?;
        let ports = choose_ports(settings)?;
        let lines: Vec<String> = (1..)
            .zip(&ports)
            .map(|(id, ports)| format!("server.{id}=127.0.0.1:{}:{}", ports.quorum, ports.election))
            .collect();
        let mut all = BTreeMap::new();
        for (id, ports) in (1..).zip(&ports) {
            let its = directory.join(format!("server-{id}"));
            write_files(&its, id, ports.client, &lines)?;
            let client = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.client));
            all.insert(id, Server { directory: its, client, child: None, mode: Mode::Down });
        }
        let binary = std::env::current_exe()?;
        Ok(Servers { binary, directory, is_temporary: settings.directory.is_none(), all })
    }

    pub fn ids(&self) -> impl Iterator<Item = u16> + use<> {
        self.all.keys().copied().collect::<Vec<_>>().into_iter()
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What clients are given.
    pub fn connect_string(&self) -> String {
        let addresses: Vec<String> = self.all.values().map(|server| server.client.to_string()).collect();
        addresses.join(",")
    }

    pub fn client(&self, id: u16) -> Option<SocketAddr> {
        self.all.get(&id).map(|server| server.client)
    }

    pub fn pid(&self, id: u16) -> Option<u32> {
        self.all.get(&id)?.child.as_ref().map(Child::id)
    }

    pub fn modes(&self) -> Vec<(u16, Mode)> {
        self.all.iter().map(|(id, server)| (*id, server.mode.clone())).collect()
    }

    pub fn leader(&self) -> Option<u16> {
        let leads = |server: &Server| matches!(&server.mode, Mode::Serving(mode) if mode == "leader");
        self.all.iter().find(|(_, server)| leads(server)).map(|(id, _)| *id)
    }

    /// Starts a server that does not run.
    pub fn start(&mut self, id: u16) -> io::Result<()> {
        let Some(server) = self.all.get_mut(&id).filter(|server| server.child.is_none()) else { return Ok(()) };
        let log = File::options().create(true).append(true).open(server.directory.join("server.log"))?;
        let mut command = Command::new(&self.binary);
        command.arg("server").arg(server.directory.join("zoo.cfg")).env(STOPS_WITH_STDIN, "1");
        // A Ctrl-C is for this process alone: it stops the others in its own way.
        command.process_group(0).stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        server.child = Some(command.spawn()?);
        server.mode = Mode::NotServing;
        Ok(())
    }

    /// As `kill -9`.
    pub fn kill(&mut self, id: u16) {
        if let Some(child) = self.all.get_mut(&id).and_then(|server| server.child.as_mut()) {
            // It has ended already.
            let _ = child.kill();
        }
    }

    /// Asks one to stop.
    pub fn stop_one(&mut self, id: u16) {
        if let Some(child) = self.all.get_mut(&id).and_then(|server| server.child.as_mut()) {
            child.stdin = None;
        }
    }

    /// Processes that have ended since the last time, and the last words of those that were not killed.
    pub fn ended(&mut self) -> Vec<(u16, Ending)> {
        let mut ended = Vec::new();
        for (id, server) in &mut self.all {
            let Some(child) = &mut server.child else { continue };
            if let Ok(Some(status)) = child.try_wait() {
                let words = match status.code() {
                    Some(0) | None => String::new(),
                    Some(_) => last_line(&server.directory.join("server.log")),
                };
                ended.push((*id, format!("{status}{words}")));
                server.child = None;
                server.mode = Mode::Down;
            }
        }
        ended
    }

    /// Asks every server that runs what it is.
    pub fn look(&mut self) {
        for server in self.all.values_mut().filter(|server| server.child.is_some()) {
            server.mode = mode_of(server.client);
        }
    }

    /// Stops all and waits for it; whoever takes too long is killed. A temporary directory goes.
    pub fn stop(&mut self) {
        for id in self.ids() {
            self.stop_one(id);
        }
        let limit = Instant::now() + STOP_LIMIT;
        while self.all.values().any(|server| server.child.is_some()) && Instant::now() < limit {
            self.ended();
            std::thread::sleep(Duration::from_millis(5));
        }
        for server in self.all.values_mut() {
            if let Some(mut child) = server.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        if self.is_temporary
            && let Err(error) = fs::remove_dir_all(&self.directory)
        {
            tracing::warn!(path = %self.directory.display(), %error, "the temporary directory is left behind");
        }
        self.is_temporary = false;
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop();
    }
}

fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().last().map_or(String::new(), |line| format!(": {line}"))
}

fn mode_of(client: SocketAddr) -> Mode {
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&client, ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(b"srvr")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().unwrap_or_default();
    match answer.lines().find_map(|line| line.strip_prefix("Mode: ")) {
        Some(mode) => Mode::Serving(mode.to_owned()),
        None => Mode::NotServing,
    }
}

fn choose_ports(settings: &DevSettings) -> io::Result<Vec<Ports>> {
    if settings.port == 0 {
        return free_ports(settings.servers);
    }
    let too_high =
        || io::Error::new(io::ErrorKind::InvalidInput, "the ports would lie above 65535: choose a smaller one");
    let ports = |at: u16| -> Option<Ports> {
        let client = settings.port.checked_add(at)?;
        Some(Ports {
            client,
            quorum: client.checked_add(TO_QUORUM_PORT)?,
            election: client.checked_add(TO_ELECTION_PORT)?,
        })
    };
    (0..settings.servers).map(|at| ports(at).ok_or_else(too_high)).collect()
}

/// Ports that nobody listens on now, all different because they are held until all are found.
fn free_ports(servers: u16) -> io::Result<Vec<Ports>> {
    let mut held = Vec::new();
    let mut free = || -> io::Result<u16> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        held.push(listener);
        Ok(port)
    };
    (0..servers).map(|_| Ok(Ports { client: free()?, quorum: free()?, election: free()? })).collect()
}

fn write_files(directory: &Path, id: u16, client_port: u16, servers: &[String]) -> io::Result<()> {
    let data = directory.join("data");
    fs::create_dir_all(&data)?;
    fs::write(data.join("myid"), id.to_string())?;
    let mut lines = vec![
        "tickTime=2000".to_owned(),
        "initLimit=10".to_owned(),
        "syncLimit=5".to_owned(),
        format!("dataDir={}", escaped(&data)),
        format!("clientPort={client_port}"),
        "clientPortAddress=127.0.0.1".to_owned(),
        "maxClientCnxns=0".to_owned(),
        "4lw.commands.whitelist=*".to_owned(),
        "extendedTypesEnabled=true".to_owned(),
        "admin.enableServer=false".to_owned(),
        // They would all choose the same CPUs.
        "oxkeeper.pin=false".to_owned(),
    ];
    lines.extend_from_slice(servers);
    fs::write(directory.join("zoo.cfg"), lines.join("\n") + "\n")
}

/// A path as a value of a Java properties file.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace('\\', "\\\\")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigFile, Mode as ConfigMode, OtherFiles, SystemProperties};

    #[test]
    fn what_is_written_is_a_configuration_of_an_ensemble_without_warnings() {
        let directory = tempfile::tempdir().expect("a directory");
        let settings = DevSettings { servers: 3, port: 0, directory: Some(directory.path().to_owned()) };
        let servers = Servers::prepare(&settings).expect("writable");
        for id in servers.ids() {
            let its = directory.path().join(format!("server-{id}"));
            let file = ConfigFile::parse(&fs::read(its.join("zoo.cfg")).expect("written")).expect("readable");
            let myid = fs::read(its.join("data/myid")).expect("written");
            let others = OtherFiles { myid: Some(&myid), ..OtherFiles::default() };
            let properties = SystemProperties::new(None, None, &[]);
            let (config, warnings) = Config::from_file(&file, &others, &properties).expect("valid");
            assert_eq!(config.mode(), ConfigMode::Distributed);
            assert_eq!(config.membership.members.len(), 3);
            assert!(warnings.is_empty(), "{warnings:?}");
        }
    }

    #[test]
    fn ports_follow_each_other_and_do_not_overflow() {
        let settings = |servers, port| DevSettings { servers, port, directory: None };
        let ports = choose_ports(&settings(3, 2181)).expect("small enough");
        let third = ports[2];
        assert_eq!((third.client, third.quorum, third.election), (2183, 2890, 3890));
        assert!(choose_ports(&settings(3, 65_000)).is_err());
        let mut free: Vec<u16> = choose_ports(&settings(9, 0))
            .expect("free ports")
            .iter()
            .flat_map(|p| [p.client, p.quorum, p.election])
            .collect();
        free.sort_unstable();
        free.dedup();
        assert_eq!(free.len(), 27);
    }
}
