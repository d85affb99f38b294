//! `oxkeeper`: see `cli.rs` for the subcommands and `lib.rs` for the map.

use std::process::ExitCode;

fn main() -> ExitCode {
    oxkeeper::cli::run()
}
