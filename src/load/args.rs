//! The command line of `oxkeeper bench`.

use std::path::PathBuf;

use clap::Args;

/// Drives any server that speaks ZooKeeper's client protocol, and reports throughput and latencies.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// Client ports, HOST:PORT[,HOST:PORT…]; sessions are spread over them and fail over between them (failover: one
    /// writer for each, which stays with it)
    #[arg(long, default_value = "127.0.0.1:2181", value_name = "HOST:PORT,…")]
    pub servers: String,

    /// Sessions, each on a connection of its own (watch: the watchers; storm: how many open and close at once)
    #[arg(long, default_value_t = 16)]
    pub sessions: usize,

    /// Requests that each session keeps in flight
    #[arg(long, default_value_t = 1)]
    pub depth: usize,

    /// Operations and weights (get, exists, set, create, delete, children, multi, sync), or one of the workloads
    /// fill, watch, storm, idle, failover
    #[arg(long, default_value = "get=70,set=30", value_name = "OP=WEIGHT,…")]
    pub mix: String,

    /// The same as --mix, for the workloads that stand alone
    #[arg(long, value_name = "fill|watch|storm|idle|failover", conflicts_with = "mix")]
    pub workload: Option<String>,

    /// Bytes of data in each znode
    #[arg(long, default_value_t = 256, value_name = "BYTES")]
    pub value_size: usize,

    /// Znodes that the mix works on, made before it starts [default: those of --fill, else 1000]
    #[arg(long)]
    pub keys: Option<u32>,

    /// How keys are drawn: uniform, zipf, zipf:EXPONENT or sequential
    #[arg(long, default_value = "uniform", value_name = "NAME")]
    pub key_distribution: String,

    /// How long to measure: 5s, 500ms, 2m
    #[arg(long, default_value = "5s", value_name = "TIME")]
    pub duration: String,

    /// How long to run before measuring
    #[arg(long, default_value = "2s", value_name = "TIME")]
    pub warmup: String,

    /// Operations per second in total, latency counted from the intended time; without it each session sends as soon
    /// as it is answered (failover: of each writer, 250 unless told)
    #[arg(long, value_name = "OPS/S")]
    pub rate: Option<f64>,

    /// Threads of the generator
    #[arg(long, default_value_t = 1)]
    pub threads: usize,

    /// Everything is made below this znode
    #[arg(long, default_value = "/bench", value_name = "PATH")]
    pub prefix: String,

    /// Create so many znodes first and report how fast
    #[arg(long, value_name = "ZNODES")]
    pub fill: Option<u32>,

    /// Sets in each multi
    #[arg(long, default_value_t = 4, value_name = "SETS")]
    pub multi_size: usize,

    /// Use persistent watches (servers since 3.6) in the watch workload, instead of setting each anew when it fired
    #[arg(long)]
    pub persistent_watches: bool,

    /// Session timeout to ask for
    #[arg(long, default_value = "30s", value_name = "TIME")]
    pub session_timeout: String,

    /// How long to wait for a first connection and session
    #[arg(long, default_value = "5s", value_name = "TIME")]
    pub connect_timeout: String,

    /// Seed of keys, mix and values
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Leave the znodes there
    #[arg(long)]
    pub keep: bool,

    /// Write all numbers as JSON (- is standard output)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write a report with plots as one HTML file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// A title for the reports, for telling runs apart
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,

    /// A line each second, also when standard error is no terminal
    #[arg(long)]
    pub progress: bool,

    /// No progress and no table
    #[arg(long, conflicts_with = "progress")]
    pub quiet: bool,
}
