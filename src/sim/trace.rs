//! What happened, as a number that two runs of a seed must agree on, and as lines for whoever wants to read them.

use std::fmt::{Arguments, Write};

use crate::types::time::Time;

/// Collects what happened. The hash covers every line that would be printed by what it is made from, so formatting costs
/// only those who read.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    /// `None`: nobody reads.
    lines: Option<Lines>,
}

#[derive(Debug)]
struct Lines {
    /// The newest ones, as one text each.
    kept: std::collections::VecDeque<String>,
    keep: usize,
    print: bool,
}

/// Who reads a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    Nobody,
    /// The newest so many lines are kept.
    Tail(usize),
    /// Every line goes to standard output, and the newest so many are kept.
    Printed(usize),
}

impl Trace {
    pub fn new(reading: Reading) -> Trace {
        let lines = |keep, print| Some(Lines { kept: Default::default(), keep, print });
        let lines = match reading {
            Reading::Nobody => None,
            Reading::Tail(keep) => lines(keep, false),
            Reading::Printed(keep) => lines(keep, true),
        };
        Trace { hash: 0xcbf2_9ce4_8422_2325, lines }
    }

    /// What two runs of a seed agree on.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Mixes a number into the hash.
    pub fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    /// Mixes bytes into the hash.
    pub fn mix_bytes(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64 ^ u64::from(crc32fast::hash(bytes)) << 32);
    }

    pub fn is_read(&self) -> bool {
        self.lines.is_some()
    }

    /// One line. `who`: a server or a client.
    pub fn line(&mut self, now: Time, who: &str, what: Arguments<'_>) {
        let Some(lines) = &mut self.lines else { return };
        let mut text = String::new();
        let micros = now.0 / 1000;
        write!(text, "{:>4}.{:06} {who:<6} {what}", micros / 1_000_000, micros % 1_000_000)
            .expect("a string takes all");
        if lines.print {
            println!("{text}");
        }
        if lines.kept.len() == lines.keep {
            lines.kept.pop_front();
        }
        if lines.keep > 0 {
            lines.kept.push_back(text);
        }
    }

    /// The newest lines, oldest first.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().flat_map(|lines| lines.kept.iter().map(String::as_str))
    }
}
