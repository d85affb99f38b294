//! The command line, checked and in numbers.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use super::args::BenchArgs;
use super::error::LoadError;
use super::failover;
use super::keys::KeyDistribution;
use super::paths::{KEYS_MAX, Paths, SESSIONS_MAX};
use super::workload::Workload;
use crate::types::limits::FRAME_BYTES_MAX;
use crate::types::path;

/// Keys when nobody says how many.
const KEYS_DEFAULT: u32 = 1000;
const DEPTH_MAX: usize = 100_000;
const THREADS_MAX: usize = 256;
const MULTI_SIZE_MAX: usize = 10_000;
/// Servers may be configured for frames larger than ours, up to this.
const VALUE_BYTES_MAX: usize = 64 << 20;
const TIME_MAX: Duration = Duration::from_secs(30 * 86_400);

/// What will be done, by whom and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    pub servers: Vec<SocketAddr>,
    pub sessions: usize,
    pub depth: usize,
    pub workload: Workload,
    pub value_size: usize,
    /// Keys that the mix draws from: at least 1.
    pub keys: u32,
    pub distribution: KeyDistribution,
    pub duration: Duration,
    pub warmup: Duration,
    /// Operations per second in total; of each writer in `Workload::Failover`, where it is always there.
    pub rate: Option<f64>,
    /// Never more than sessions.
    pub threads: usize,
    pub paths: Paths,
    /// Znodes whose creation is reported.
    pub fill: Option<u32>,
    pub multi_size: usize,
    pub persistent_watches: bool,
    pub session_timeout_ms: i32,
    pub connect_timeout: Duration,
    pub seed: u64,
    pub keep: bool,
}

impl Plan {
    pub fn new(args: &BenchArgs) -> Result<Plan, LoadError> {
        let workload = Workload::parse(args.workload.as_deref().unwrap_or(&args.mix))?;
        let servers = servers(&args.servers)?;
        let stays = workload == Workload::Failover;
        let sessions = match stays {
            true => servers.len(),
            false => in_range("--sessions", args.sessions, SESSIONS_MAX as usize)?,
        };
        // The writers of all servers share a thread, so that the time of one acknowledgement is that of all.
        let threads = if stays { 1 } else { in_range("--threads", args.threads, THREADS_MAX)?.min(sessions) };
        let value_size = args.value_size;
        if value_size > VALUE_BYTES_MAX {
            return Err(argument("--value-size", value_size, &format!("at most {VALUE_BYTES_MAX} bytes")));
        }
        let fill = match (args.fill, &workload) {
            (None, Workload::Fill) => Some(args.keys.unwrap_or(KEYS_DEFAULT)),
            (fill, _) => fill,
        };
        let keys = args.keys.or(fill).unwrap_or(KEYS_DEFAULT);
        if keys == 0 || keys > KEYS_MAX || fill.is_some_and(|fill| fill == 0 || fill > KEYS_MAX) {
            return Err(argument("--keys or --fill", keys, &format!("between 1 and {KEYS_MAX}")));
        }
        if args.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0 || rate > 1e9) {
            return Err(argument("--rate", args.rate.unwrap_or(0.0), "above 0, in operations per second"));
        }
        let session_timeout = duration("--session-timeout", &args.session_timeout)?;
        Ok(Plan {
            servers,
            sessions,
            depth: in_range("--depth", args.depth, DEPTH_MAX)?,
            workload,
            value_size,
            keys,
            distribution: KeyDistribution::parse(&args.key_distribution)?,
            duration: not_zero("--duration", &args.duration)?,
            warmup: duration("--warmup", &args.warmup)?,
            rate: args.rate.or(stays.then_some(failover::RATE_DEFAULT)),
            threads,
            paths: Paths { prefix: prefix(&args.prefix)? },
            fill,
            multi_size: in_range("--multi-size", args.multi_size, MULTI_SIZE_MAX)?,
            persistent_watches: args.persistent_watches,
            session_timeout_ms: i32::try_from(session_timeout.as_millis()).unwrap_or(i32::MAX),
            connect_timeout: not_zero("--connect-timeout", &args.connect_timeout)?,
            seed: args.seed,
            keep: args.keep,
        })
    }

    /// Znodes that must stand before the mix starts.
    pub fn prepared_keys(&self) -> u32 {
        let needed = if self.workload.needs_keys() { self.keys } else { 0 };
        needed.max(self.fill.unwrap_or(0))
    }

    /// Whether a request may be larger than a server of default settings reads.
    pub fn exceeds_default_frame(&self) -> bool {
        let sets = if self.workload.name().contains("multi") { self.multi_size } else { 1 };
        sets.saturating_mul(self.value_size + self.paths.prefix.len() + 64) > FRAME_BYTES_MAX
    }
}

fn argument(name: &'static str, value: impl ToString, why: &str) -> LoadError {
    LoadError::Argument { name, text: value.to_string(), why: why.to_owned() }
}

fn in_range(name: &'static str, value: usize, max: usize) -> Result<usize, LoadError> {
    if (1..=max).contains(&value) { Ok(value) } else { Err(argument(name, value, &format!("between 1 and {max}"))) }
}

/// Text: a number and its unit, `ms`, `s`, `m` or `h`; seconds when there is no unit.
fn duration(name: &'static str, text: &str) -> Result<Duration, LoadError> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds_per_unit = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(argument(name, text, "a time is a number and a unit: 500ms, 5s, 2m, 1h")),
    };
    let number: f64 = number.parse().map_err(|_| argument(name, text, "a time is a number and a unit: 5s"))?;
    let time = Duration::try_from_secs_f64(number * seconds_per_unit).unwrap_or(Duration::MAX);
    if time > TIME_MAX { Err(argument(name, text, "at most 30 days")) } else { Ok(time) }
}

fn not_zero(name: &'static str, text: &str) -> Result<Duration, LoadError> {
    match duration(name, text)? {
        Duration::ZERO => Err(argument(name, text, "more than nothing")),
        time => Ok(time),
    }
}

/// Text: `HOST:PORT[,HOST:PORT…]`; port 2181 when there is none. A chroot behind the list is refused by name.
fn servers(text: &str) -> Result<Vec<SocketAddr>, LoadError> {
    const NAME: &str = "--servers";
    let mut servers = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        if part.contains('/') {
            return Err(argument(NAME, part, "a path has no place here; --prefix says where to work"));
        }
        let has_port = part.parse::<SocketAddr>().is_ok()
            || part.rsplit_once(':').is_some_and(|(host, port)| !host.contains(':') && port.parse::<u16>().is_ok());
        let with_port = if has_port { part.to_owned() } else { format!("{part}:2181") };
        let found = with_port.to_socket_addrs().map_err(|error| {
            argument(NAME, part, &format!("no address for it ({error}); it is HOST:PORT, as in 127.0.0.1:2181"))
        })?;
        servers.extend(found);
    }
    if servers.is_empty() {
        return Err(argument(NAME, text, "at least one HOST:PORT"));
    }
    Ok(servers)
}

/// Clean-up deletes below the prefix, so it may not be the root or ZooKeeper's own.
fn prefix(text: &str) -> Result<String, LoadError> {
    const NAME: &str = "--prefix";
    path::validate(text).map_err(|why| argument(NAME, text, why))?;
    if text == path::ROOT || text == path::ZOOKEEPER || text.starts_with("/zookeeper/") {
        return Err(argument(NAME, text, "a znode of its own, as in /bench: neither / nor /zookeeper"));
    }
    if text.len() > 4096 || text.contains('#') {
        return Err(argument(NAME, text, "at most 4096 bytes and no #"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn plan(line: &str) -> Result<Plan, LoadError> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        Plan::new(&Cli::try_parse_from(words).unwrap().args)
    }

    #[test]
    fn defaults_are_a_plan() {
        let plan = plan("").unwrap();
        assert_eq!(plan.servers, ["127.0.0.1:2181".parse().unwrap()]);
        assert_eq!((plan.keys, plan.prepared_keys(), plan.threads), (1000, 1000, 1));
    }

    #[test]
    fn failover_has_a_writer_for_each_server_and_a_pace() {
        let plan = plan("--workload failover --servers 127.0.0.1:1,127.0.0.1:2,127.0.0.1:3 --threads 4").unwrap();
        assert_eq!((plan.sessions, plan.threads, plan.rate), (3, 1, Some(250.0)));
        assert_eq!(plan.prepared_keys(), 0);
    }

    #[test]
    fn fill_gives_the_keys_unless_they_are_told() {
        let keys = |line| plan(line).map(|plan| (plan.keys, plan.prepared_keys())).unwrap();
        assert_eq!(keys("--fill 50"), (50, 50));
        assert_eq!(keys("--fill 50 --keys 20"), (20, 50));
        assert_eq!(keys("--workload fill --keys 20"), (20, 20));
        assert_eq!(keys("--workload idle"), (1000, 0));
        assert_eq!(keys("--mix create=1"), (1000, 0));
    }

    #[test]
    fn times_have_units() {
        let check = |text, ms| assert_eq!(duration("--duration", text).unwrap().as_millis(), ms, "{text}");
        check("500ms", 500);
        check("5s", 5_000);
        check("1.5", 1_500);
        check("2m", 120_000);
        for wrong in ["", "s", "5 days", "-1s", "1e9s", "99999999h", "1.2.3s"] {
            assert!(duration("--duration", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn servers_are_found_with_and_without_a_port() {
        let found = servers("127.0.0.1:2182, 127.0.0.2,[::1]:7").unwrap();
        assert_eq!(
            found.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["127.0.0.1:2182", "127.0.0.2:2181", "[::1]:7"]
        );
        assert!(servers("").is_err());
        assert!(servers("127.0.0.1:2181/app").unwrap_err().to_string().contains("--prefix"));
    }

    #[test]
    fn what_would_destroy_or_mean_nothing_is_refused() {
        let wrong = ["--prefix /", "--prefix /zookeeper", "--prefix bench", "--depth 0", "--sessions 0", "--rate 0"];
        let more = ["--keys 0", "--duration 0s", "--mix put=1", "--rate nan", "--fill 200000000", "--threads 0"];
        for line in wrong.into_iter().chain(more) {
            assert!(plan(line).is_err(), "{line}");
        }
    }
}
