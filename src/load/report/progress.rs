//! Lines while a run goes on, on standard error.

use std::io::Write;

use super::super::stage::Second;
use super::table::{count, micros, share};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Silent,
    /// One line that is written over.
    Live,
    /// A line each second.
    Lines,
}

#[derive(Debug)]
pub struct Progress {
    mode: Mode,
    /// Notes are wanted even where progress is not.
    notes: bool,
}

impl Progress {
    /// `asked`: also when standard error is no terminal.
    pub fn new(wanted: bool, is_terminal: bool, asked: bool) -> Progress {
        let mode = match (wanted, is_terminal, asked) {
            (true, _, true) => Mode::Lines,
            (true, true, false) => Mode::Live,
            (true, false, false) | (false, ..) => Mode::Silent,
        };
        Progress { mode, notes: wanted }
    }

    pub fn silent() -> Progress {
        Progress { mode: Mode::Silent, notes: false }
    }

    /// Something the reader should know in any case.
    pub fn note(&self, text: &str) {
        if self.notes {
            eprintln!("note: {text}");
        }
    }

    /// What is going on besides measuring.
    pub fn state(&self, text: &str) {
        self.line(&format!("… {text}"));
    }

    pub fn second(&self, second: &Second) {
        let latency = &second.latency_us;
        let mut line = format!("{:>4} s  {:>10} op/s", second.second + 1, count(second.count));
        if second.count > 0 {
            let [p50, p99, max] = [latency.p50, latency.p99, latency.max].map(micros);
            line += &format!("   p50 {p50}  p99 {p99}  max {max}");
        }
        line += &format!("   {} sessions   generator {}", count(second.sessions), share(second.cpu_share));
        if second.errors > 0 {
            line += &format!("   {} errors", count(second.errors));
        }
        if second.lost > 0 {
            line += &format!("   {} connections lost", count(second.lost));
        }
        self.line(&line);
    }

    fn line(&self, text: &str) {
        let mut to = std::io::stderr().lock();
        // A closed standard error is no reason to stop.
        let _ = match self.mode {
            Mode::Silent => Ok(()),
            Mode::Live => write!(to, "\r\x1b[K{text}").and_then(|()| to.flush()),
            Mode::Lines => writeln!(to, "{text}"),
        };
    }

    /// Leaves a clean line for what follows.
    pub fn end(&self) {
        if self.mode == Mode::Live {
            eprint!("\r\x1b[K");
        }
    }
}
