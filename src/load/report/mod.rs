//! What a person or a program gets to see of a run: lines while it goes on, a table, JSON, an HTML page.
//! Never: measuring. Everything here is made from one `Summary`, except the lines.
//! Owner: the starting thread.
//! Start at `Summary`, whose fields are those of the JSON.

mod failover;
mod html;
mod plot;
pub mod progress;
mod table;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

pub use failover::FailoverSummary;
use serde::Serialize;

use super::args::BenchArgs;
use super::coordinator::Outcome;
use super::error::{LoadError, code_name};
use super::plan::Plan;
use super::stage::{Percentiles, Second, Stage};
use super::stats::OpStats;
use super::workload::{Op, Workload};

/// The share above which the generator itself may be what limits the numbers.
const BOTTLENECK_SHARE: f64 = 0.9;

/// All of a run. Latencies are in µs and of good answers only; throughput counts good answers only.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// `oxkeeper bench`.
    pub tool: &'static str,
    pub version: &'static str,
    pub title: Option<String>,
    /// Milliseconds since 1970.
    pub started_at_ms: u64,
    /// What the first server calls itself, if `srvr` told.
    pub server_version: Option<String>,
    pub settings: Settings,
    /// Seconds until all sessions stood.
    pub opened_s: Option<f64>,
    /// Of `--fill`.
    pub fill: Option<StageSummary>,
    /// Of the mix or workload.
    pub run: Option<StageSummary>,
    /// What the writers of `failover` went through.
    pub failover: Option<FailoverSummary>,
}

/// What was asked for, with defaults filled in.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    pub servers: Vec<String>,
    pub workload: String,
    pub sessions: usize,
    pub depth: usize,
    pub value_size: usize,
    pub keys: u32,
    pub key_distribution: String,
    pub duration_s: f64,
    pub warmup_s: f64,
    /// Operations per second; null is a closed loop.
    pub rate: Option<f64>,
    pub threads: usize,
    pub prefix: String,
    pub fill: Option<u32>,
    pub multi_size: usize,
    pub persistent_watches: bool,
    pub session_timeout_ms: i32,
    pub seed: u64,
}

/// A measured stretch.
#[derive(Clone, Debug, Serialize)]
pub struct StageSummary {
    /// What throughput is counted over.
    pub duration_s: f64,
    /// The operations that the workload is about, together.
    pub total: Row,
    /// Which those are.
    pub total_of: Vec<&'static str>,
    /// Each operation that occurred.
    pub ops: Vec<Row>,
    /// Operations that a fixed rate made due and that were never sent.
    pub unsent: u64,
    /// Connections that ended without being asked to.
    pub connections_lost: u64,
    /// Sessions that went on over a new connection.
    pub sessions_resumed: u64,
    /// Sessions that servers no longer knew.
    pub sessions_expired: u64,
    /// Sessions that stood at the end.
    pub sessions_at_end: u64,
    /// Connections dropped because a server broke the protocol: replies out of order, zxids going back, bad frames.
    pub protocol_violations: u64,
    /// The first of them, in words.
    pub violations: Vec<String>,
    /// Longest time without any good answer on any session of one generator thread, ms.
    pub longest_gap_ms: f64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub generator: Generator,
    pub seconds: Vec<Second>,
}

/// What the load generator itself took.
#[derive(Clone, Debug, Serialize)]
pub struct Generator {
    pub threads: usize,
    pub user_s: f64,
    pub system_s: f64,
    pub wall_s: f64,
    /// Of what its threads could have used, 0 to 1.
    pub cpu_share: f64,
    /// Above 0.9: the numbers may be the generator's rather than the server's.
    pub may_be_bottleneck: bool,
}

/// One operation.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub op: &'static str,
    /// Good answers.
    pub count: u64,
    pub per_second: f64,
    pub latency_us: Percentiles,
    pub error_count: u64,
    /// By name of the error; `ConnectionLoss`: the connection went before the answer came, `Unfinished`: no answer
    /// within 5 s after the end.
    pub errors: BTreeMap<String, u64>,
    /// The whole distribution as (share of answers, µs).
    pub curve: Vec<(f64, f64)>,
}

impl Row {
    fn new(op: &'static str, stats: &OpStats, duration_s: f64) -> Row {
        let count = stats.count();
        Row {
            op,
            count,
            per_second: if duration_s > 0.0 { count as f64 / duration_s } else { 0.0 },
            latency_us: Percentiles::of(stats),
            error_count: stats.error_count(),
            errors: stats.errors.iter().map(|(code, count)| (code_name(*code), *count)).collect(),
            curve: curve(stats),
        }
    }
}

/// The distribution at shares that halve the rest a few times per step, down to one answer.
fn curve(stats: &OpStats) -> Vec<(f64, f64)> {
    const STEPS_PER_HALF: i32 = 4;
    let Some(latency) = &stats.latency else { return Vec::new() };
    let mut points = Vec::new();
    for step in 0.. {
        let rest = 0.5_f64.powf(step as f64 / STEPS_PER_HALF as f64);
        points.push((1.0 - rest, latency.value_at_quantile(1.0 - rest) as f64 / 1e3));
        if rest * (latency.len() as f64) < 1.0 {
            return points;
        }
    }
    points
}

impl StageSummary {
    /// Whether the total says more than a single operation's row.
    fn has_total(&self) -> bool {
        self.ops.iter().filter(|row| self.total_of.contains(&row.op)).count() > 1
    }

    fn new(stage: &Stage, counts: impl Fn(Op) -> bool) -> StageSummary {
        let duration_s = stage.duration.as_secs_f64();
        let total = &stage.total;
        let occurred = |op: &Op| total.ops[op.index()].count() + total.ops[op.index()].error_count() > 0;
        let row = |op: Op| Row::new(op.name(), &total.ops[op.index()], duration_s);
        let cpu_share = stage.cpu.share(stage.wall);
        StageSummary {
            duration_s,
            total: Row::new("total", &total.merged(&counts), duration_s),
            total_of: Op::ALL.into_iter().filter(|op| counts(*op)).map(Op::name).collect(),
            ops: Op::ALL.into_iter().filter(occurred).map(row).collect(),
            unsent: stage.unsent,
            connections_lost: total.links.lost,
            sessions_resumed: total.links.resumed,
            sessions_expired: total.links.expired,
            sessions_at_end: total.sessions,
            protocol_violations: total.links.violations,
            violations: total.violations.clone(),
            longest_gap_ms: total.gap_ns_max as f64 / 1e6,
            received_bytes: total.received_bytes,
            sent_bytes: total.sent_bytes,
            generator: Generator {
                threads: stage.cpu.threads,
                user_s: stage.cpu.user_s,
                system_s: stage.cpu.system_s,
                wall_s: stage.wall.as_secs_f64(),
                cpu_share,
                may_be_bottleneck: cpu_share > BOTTLENECK_SHARE,
            },
            seconds: stage.seconds.clone(),
        }
    }
}

impl Summary {
    pub fn new(
        args: &BenchArgs,
        plan: &Plan,
        server_version: Option<String>,
        started_at: SystemTime,
        outcome: &Outcome,
    ) -> Summary {
        let since_1970 = started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Summary {
            tool: "oxkeeper bench",
            version: env!("CARGO_PKG_VERSION"),
            title: args.title.clone(),
            started_at_ms: since_1970.as_millis() as u64,
            server_version,
            settings: Settings {
                servers: plan.servers.iter().map(ToString::to_string).collect(),
                workload: plan.workload.name(),
                sessions: plan.sessions,
                depth: plan.depth,
                value_size: plan.value_size,
                keys: plan.keys,
                key_distribution: plan.distribution.to_string(),
                duration_s: plan.duration.as_secs_f64(),
                warmup_s: plan.warmup.as_secs_f64(),
                rate: plan.rate,
                threads: plan.threads,
                prefix: plan.paths.prefix.clone(),
                fill: plan.fill,
                multi_size: plan.multi_size,
                persistent_watches: plan.persistent_watches,
                session_timeout_ms: plan.session_timeout_ms,
                seed: plan.seed,
            },
            opened_s: outcome.opened.map(|(_, took)| took.as_secs_f64()),
            fill: outcome.fill.as_ref().map(|stage| StageSummary::new(stage, |op| Workload::Fill.counts(op))),
            run: outcome.run.as_ref().map(|stage| StageSummary::new(stage, |op| plan.workload.counts(op))),
            failover: outcome.run.as_ref().and_then(|stage| FailoverSummary::of(plan, stage)),
        }
    }
}

/// Puts the summary where the command line wants it.
pub fn write(args: &BenchArgs, summary: &Summary) -> Result<(), LoadError> {
    let json_to_stdout = args.json.as_deref().is_some_and(|path| path == Path::new("-"));
    if !args.quiet && !json_to_stdout {
        print!("{}", table::render(summary));
    }
    let to_file = |path: &Path, text: String| {
        std::fs::write(path, text).map_err(|error| LoadError::Local {
            doing: "writing the report",
            why: format!("{}: {error}", path.display()),
        })
    };
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(summary)
            .map_err(|error| LoadError::Local { doing: "writing the report", why: error.to_string() })?;
        match json_to_stdout {
            true => println!("{json}"),
            false => to_file(path, json + "\n")?,
        }
    }
    if let Some(path) = &args.html {
        to_file(path, html::render(summary))?;
    }
    Ok(())
}
