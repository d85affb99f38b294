//! The subcommands, and what a person sees of them.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;

use crate::config::{
    Arguments, Config, ConfigError, ConfigFile, Origin, OtherFiles, Parsed, PortAndDirectory, Start, SystemProperties,
    Warning,
};
use crate::dev::{self, DevSettings};
use crate::io::placement::Placement;
use crate::io::process::Process;
use crate::io::run::{Server, ServerSettings, Started};
use crate::io::settings::resolve;
use crate::load;
use crate::server::status::version_text;
use crate::sim;
use crate::types::limits;

#[derive(Parser)]
#[command(name = "oxkeeper", version, about = "Apache ZooKeeper, built again: a drop-in server for Linux and NVMe.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a server: with a zoo.cfg, or with nothing at all (port 2181, data in ./oxkeeper-data).
    Server(ServerArgs),
    /// Run a throw-away server, or a whole ensemble on this machine: empty, in a temporary directory that goes with it.
    Dev(DevArgs),
    /// Drive any ZooKeeper server with load, and report.
    Bench(Box<load::args::BenchArgs>),
    /// Run whole servers and their clients from seeds, break them, and check what clients were told.
    Sim(sim::args::SimArgs),
}

#[derive(Args)]
struct ServerArgs {
    /// The path of a zoo.cfg; or, as for Java, <clientPort> <dataDir> [tickTime] [maxClientCnxns]. Java's system
    /// properties may be given as -Dname=value.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "zoo.cfg")]
    words: Vec<String>,
}

#[derive(Args)]
struct DevArgs {
    /// How many servers: 3 bear the loss of one, 5 that of two.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(dev::SERVERS_MAX)))]
    servers: u16,
    /// Client port, of the first server if there are several; 0 lets the system choose.
    #[arg(long, default_value_t = 2181)]
    port: u16,
    /// Where data is kept, and stays. Default: a temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// What stands before a start that failed.
struct Failure {
    text: String,
    code: i32,
}

pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Server(args) => server(&args.words),
        Command::Dev(args) if args.servers > 1 => dev_ensemble(&args),
        Command::Dev(args) => dev_server(&args),
        Command::Bench(args) => return load::run(*args),
        Command::Sim(args) => return sim::run::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("oxkeeper: {}", failure.text);
            ExitCode::from(u8::try_from(failure.code).unwrap_or(1))
        }
    }
}

/// Logs go to stderr; `RUST_LOG` says which (`info` by default).
fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,glommio=error"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
}

fn server(words: &[String]) -> Result<(), Failure> {
    start_logging();
    let (config, warnings) = read_config(words)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    serve(resolve(&config, seed()))
}

fn dev_server(args: &DevArgs) -> Result<(), Failure> {
    start_logging();
    let temporary = std::env::temp_dir().join(format!("oxkeeper-dev-{}-{:x}", std::process::id(), seed()));
    let dir = args.dir.as_ref().unwrap_or(&temporary);
    let words = PortAndDirectory {
        client_port: args.port,
        data_dir: dir.display().to_string(),
        tick_time_ms: Some(2000),
        max_client_cnxns: None,
    };
    let mut properties = SystemProperties::new(None, None, &[]);
    for property in ["-Dzookeeper.extendedTypesEnabled=true", "-Dzookeeper.4lw.commands.whitelist=*"] {
        properties.add_word(property, Origin::CommandLine);
    }
    let (config, _) = Config::from_words(&words, &properties).map_err(config_failure)?;
    let outcome = serve(resolve(&config, seed()));
    if args.dir.is_none()
        && let Err(error) = std::fs::remove_dir_all(dir)
    {
        tracing::warn!(path = %dir.display(), %error, "the temporary directory is left behind");
    }
    outcome
}

fn dev_ensemble(args: &DevArgs) -> Result<(), Failure> {
    let settings = DevSettings { servers: args.servers, port: args.port, directory: args.dir.clone() };
    let mut signals = signals()?;
    let on_stop = |stopper: dev::Stopper| {
        std::thread::spawn(move || {
            for _ in signals.forever() {
                stopper.stop();
            }
        });
    };
    dev::run(&settings, on_stop)
        .map_err(|error| Failure { text: format!("the local ensemble could not be run: {error}"), code: 1 })
}

fn signals() -> Result<Signals, Failure> {
    Signals::new([SIGTERM, SIGINT]).map_err(|error| Failure { text: format!("signal handlers: {error}"), code: 1 })
}

/// Ends a server whose standard input ends, if it is meant to: it was started by somebody who has gone.
fn stop_with_stdin(process: Arc<Process>) {
    if std::env::var_os(dev::STOPS_WITH_STDIN).is_some() {
        std::thread::spawn(move || {
            // An error is an end, too.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            process.stop();
        });
    }
}

/// Runs until somebody ends it.
fn serve(settings: ServerSettings) -> Result<(), Failure> {
    let banner = settings.clone();
    let fail = |error: crate::io::run::ServerError| Failure { code: error.exit_code(), text: error.to_string() };
    let mut signals = signals()?;
    // A file size limit is to be an error of the write that meets it, which names the file, not a silent death.
    signal_hook::flag::register(SIGXFSZ, Arc::default())
        .map_err(|error| Failure { text: format!("signal handlers: {error}"), code: 1 })?;
    let server = Server::start(settings).map_err(fail)?;
    print_banner(&banner, &server.started);
    let process = server.process();
    stop_with_stdin(server.process());
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            tracing::info!(signal, "stopping: what was accepted is finished first");
            process.stop();
            std::thread::sleep(limits::STOP_LIMIT);
            let seconds = limits::STOP_LIMIT.as_secs();
            tracing::error!("the stop has taken {seconds} s: what is not finished now is left to the next start");
            std::process::exit(1);
        }
    });
    server.join().map_err(fail)?;
    tracing::info!("stopped");
    Ok(())
}

/// Everything that one wants to know at a start, on one screen.
fn print_banner(settings: &ServerSettings, started: &Started) {
    let version = version_text();
    let address = started.address.map_or("none".to_owned(), |address| address.to_string());
    let cores = match &settings.placement {
        Placement::Shared { core } => format!("1 thread, shard and zab core together{}", pinned(core.as_slice())),
        Placement::Separate { zab, shards } => {
            let cpus: Vec<usize> = zab.iter().chain(shards.iter().flatten()).copied().collect();
            format!("zab core and {} shard cores{}", shards.len(), pinned(&cpus))
        }
    };
    tracing::info!("oxkeeper {version}");
    if let Some(member) = &settings.member {
        let members: Vec<String> = member.ensemble.members().map(|id| id.to_string()).collect();
        tracing::info!("member        server {} of {}", member.zab.server, members.join(", "));
    }
    tracing::info!("client port   {address}");
    tracing::info!("cores         {cores}");
    tracing::info!("data          {}", settings.status.data_dir);
    if settings.status.data_log_dir != settings.status.data_dir {
        tracing::info!("log           {}", settings.status.data_log_dir);
    }
    let durability = if settings.force_sync {
        "each write is on disk before its answer"
    } else {
        "OFF (forceSync=no): a power cut loses acknowledged writes"
    };
    tracing::info!("durability    {durability}");
    if settings.tree.access.skip_acl {
        tracing::warn!("skipACL=yes: everybody may do everything");
    }
    tracing::info!(
        "recovered     zxid {}, {} znodes, {} sessions in {} ms",
        started.zxid,
        started.znodes,
        started.sessions,
        started.recovered_in.as_millis()
    );
}

fn pinned(cpus: &[usize]) -> String {
    if cpus.is_empty() { String::new() } else { format!(", pinned to CPUs {cpus:?}") }
}

fn read_config(words: &[String]) -> Result<(Config, Vec<Warning>), Failure> {
    let arguments = Arguments::parse(words).map_err(|error| config_failure(vec![error]))?;
    let variable = |name: &str| std::env::var(name).ok();
    let properties = SystemProperties::new(
        variable("SERVER_JVMFLAGS").as_deref(),
        variable("JVMFLAGS").as_deref(),
        &arguments.properties,
    );
    let parsed = match &arguments.start {
        Start::File(path) => read_file_config(Path::new(path), &properties)?,
        Start::Words(words) => Config::from_words(words, &properties),
        Start::WithoutFile => Config::without_file(&properties),
    };
    parsed.map_err(config_failure)
}

fn read_file_config(path: &Path, properties: &SystemProperties) -> Result<Parsed, Failure> {
    let unreadable = |path: &Path, error: std::io::Error| Failure {
        text: format!("cannot read {}: {error}. `oxkeeper server` without a file starts with defaults", path.display()),
        code: 2,
    };
    let bytes = std::fs::read(path).map_err(|error| unreadable(path, error))?;
    let file = ConfigFile::parse(&bytes).map_err(|error| config_failure(vec![error]))?;
    let optional = |path: PathBuf| match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(&path, error)),
    };
    let myid = file.data_dir().map(|dir| optional(Path::new(dir).join("myid"))).transpose()?.flatten();
    let dynamic = file.dynamic_config_file().map(|path| optional(PathBuf::from(path))).transpose()?.flatten();
    let next = optional(PathBuf::from(format!("{}.dynamic.next", path.display())))?;
    let others = OtherFiles { myid: myid.as_deref(), dynamic: dynamic.as_deref(), next_dynamic: next.as_deref() };
    Ok(Config::from_file(&file, &others, properties))
}

fn config_failure(errors: Vec<ConfigError>) -> Failure {
    let code = errors.first().map_or(2, ConfigError::exit_code);
    let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Failure { text: format!("invalid configuration\n  {}", text.join("\n  ")), code }
}

/// From the clock: nothing that must not be guessed depends on it.
fn seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
