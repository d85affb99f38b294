//! The command line of `oxkeeper sim`.

use clap::Args;

/// Runs whole servers with their disks, networks, clocks and clients from seeds, breaks them, and checks everything that
/// their clients were told. A seed replays exactly.
#[derive(Args, Clone, Debug)]
pub struct SimArgs {
    /// Seeds to run: one, or FIRST..END (END is not run)
    #[arg(long, default_value = "1..101", value_name = "A..B")]
    pub seeds: String,

    /// Voting servers; the seed chooses without it
    #[arg(long, value_name = "N")]
    pub servers: Option<usize>,

    /// Observers; the seed chooses without it
    #[arg(long, value_name = "N")]
    pub observers: Option<usize>,

    /// Simulated seconds in which things go wrong; what is repaired and checked then takes some more
    #[arg(long, default_value_t = 42, value_name = "SECONDS")]
    pub seconds: u64,

    /// Print everything that happens
    #[arg(long)]
    pub trace: bool,

    /// Threads, a seed on each at a time
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub threads: usize,

    /// Put a known bug back (a build with debug assertions or with the feature `mutants`), or `list` them
    #[arg(long, value_name = "NAME")]
    pub mutant: Option<String>,

    /// Put back all known bugs, one after the other, and print how many seeds it took to find each
    #[arg(long)]
    pub mutants: bool,

    /// Go on after a seed that fails
    #[arg(long)]
    pub keep_going: bool,
}
