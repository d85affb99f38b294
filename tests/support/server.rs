//! A ZooKeeper server as a child process: Debian's Java one, or ours. Loopback, a free port, its own directory.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const JAVA_JAR: &str = "/usr/share/java/zookeeper.jar";
const JAVA_LOGGER: &str = "/usr/share/java/slf4j-simple.jar";

/// How long a server may take until it serves; a JVM on a busy machine needs several seconds.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Which server to start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Program {
    /// Debian's package `zookeeper`, 3.8.0 in bookworm.
    Java,
    /// Our binary.
    Ours(PathBuf),
}

impl Program {
    /// The server under test: `ours`, unless `SERVER_UNDER_TEST` says `java` or names another binary.
    pub fn under_test(ours: &str) -> Program {
        match std::env::var("SERVER_UNDER_TEST") {
            Ok(value) if value == "java" => Program::Java,
            Ok(value) if !value.is_empty() => Program::Ours(value.into()),
            _ => Program::Ours(ours.into()),
        }
    }

    fn command(&self, directory: &Path, config: &Path, settings: &Settings) -> Command {
        let properties = settings.properties.iter().map(|(key, value)| format!("-D{key}={value}"));
        match self {
            Program::Java => {
                let has_java = Path::new(JAVA_JAR).exists();
                assert!(
                    has_java,
                    "{JAVA_JAR} is missing: apt-get install zookeeper default-jre-headless (tests/run does)"
                );
                let mut command = Command::new("java");
                command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]);
                command.args(["-Dzookeeper.forceSync=no", "-Dzookeeper.jmx.log4j.disable=true"]);
                command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
                command.args(properties);
                command.args(["-cp", &format!("{JAVA_JAR}:{JAVA_LOGGER}")]);
                command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(config);
                command
            }
            Program::Ours(binary) => {
                let mut command = Command::new(binary);
                command.arg("server").arg(config).current_dir(directory);
                command.env("SERVER_JVMFLAGS", properties.collect::<Vec<_>>().join(" "));
                command
            }
        }
    }
}

/// What differs from a server's defaults.
#[derive(Clone, Default, Debug)]
pub struct Settings {
    /// Lines of `zoo.cfg`, beyond the port and the data directory.
    pub config: Vec<String>,
    /// Java's system properties, which our server takes from `SERVER_JVMFLAGS`.
    pub properties: Vec<(String, String)>,
}

/// A running server. Dropping it kills its process; its directory stays with its owner.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    pub directory: PathBuf,
}

impl Server {
    /// Starts on `directory/data` and waits until it serves. Panics with the server's own words if it does not.
    pub fn start(program: &Program, directory: &Path, settings: &Settings) -> Server {
        for attempt in 1.. {
            match Server::try_start(program, directory, settings, free_port()) {
                Ok(server) => return server,
                // Somebody else took the port between our look and the server's bind.
                Err(log) if attempt < 4 && log.to_lowercase().contains("address already in use") => {}
                Err(log) => panic!("{program:?} does not start:\n{log}"),
            }
        }
        unreachable!("the loop returns or panics")
    }

    /// Starts and kills again after `life`, wherever the start has come by then.
    pub fn start_and_kill(program: &Program, directory: &Path, settings: &Settings, life: Duration) {
        let config = write_config(directory, settings, free_port());
        let mut command = program.command(directory, &config, settings);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        std::thread::sleep(life);
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Starts a server that is expected to refuse: its exit code, and what it said.
    pub fn start_refused(program: &Program, directory: &Path, settings: &Settings) -> (Option<i32>, String) {
        let config = write_config(directory, settings, free_port());
        let output = program.command(directory, &config, settings).stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|e| panic!("{program:?}: {e}"));
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Waits until the process has ended of its own accord: its exit code, `None` for a signal.
    pub fn wait_for_end(&mut self) -> Option<i32> {
        let start = Instant::now();
        while start.elapsed() < START_LIMIT {
            if let Some(status) = self.child.try_wait().expect("our child can be waited for") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the process has not ended within {START_LIMIT:?}\n{}", self.log())
    }

    fn try_start(program: &Program, directory: &Path, settings: &Settings, port: u16) -> Result<Server, String> {
        let config = write_config(directory, settings, port);
        let log_path = directory.join("server.log");
        let log = File::options().create(true).append(true).open(&log_path).expect("test directory is writable");
        let log_start = log.metadata().map_or(0, |m| m.len() as usize);
        let errors = log.try_clone().expect("a file can be shared");
        let mut command = program.command(directory, &config, settings);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut server = Server { child, address, directory: directory.to_owned() };
        let words = || String::from_utf8_lossy(&fs::read(&log_path).unwrap_or_default()[log_start..]).into_owned();
        let start = Instant::now();
        while start.elapsed() < START_LIMIT {
            if let Some(status) = server.child.try_wait().expect("our child can be waited for") {
                return Err(format!("exited: {status}\n{}", words()));
            }
            if server.four_letter("srvr").is_some_and(|answer| answer.contains("Mode: ")) {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("does not serve within {START_LIMIT:?}\n{}", words()))
    }

    /// How a start that must fail ends: its exit code and its last words.
    pub fn refused(program: &Program, directory: &Path, settings: &Settings, port: u16) -> (Option<i32>, String) {
        let config = write_config(directory, settings, port);
        let output = program.command(directory, &config, settings).stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|e| panic!("{program:?}: {e}"));
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// SIGTERM, and how it ends.
    pub fn terminate(&mut self) -> Option<i32> {
        let kill = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status();
        assert!(kill.is_ok_and(|status| status.success()), "a process may signal its own child");
        let start = Instant::now();
        while start.elapsed() < START_LIMIT {
            if let Some(status) = self.child.try_wait().expect("our child can be waited for") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not stop:\n{}", self.log());
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The answer to a four-letter word; `None` if nobody answers.
    pub fn four_letter(&self, word: &str) -> Option<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        stream.write_all(word.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What the server has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("server.log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `zoo.cfg` in `directory`, for data in `directory/data`.
fn write_config(directory: &Path, settings: &Settings, port: u16) -> PathBuf {
    let config = directory.join("zoo.cfg");
    let mut lines = vec![
        format!("dataDir={}", directory.join("data").display()),
        format!("clientPort={port}"),
        "clientPortAddress=127.0.0.1".to_owned(),
        "4lw.commands.whitelist=*".to_owned(),
        "admin.enableServer=false".to_owned(),
        "maxClientCnxns=0".to_owned(),
    ];
    lines.extend(settings.config.iter().cloned());
    fs::create_dir_all(directory.join("data")).expect("test directory is writable");
    fs::write(&config, lines.join("\n") + "\n").expect("test directory is writable");
    config
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}
