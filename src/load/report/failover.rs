//! What the writers of the failover workload went through, as a table and as JSON.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use serde::Serialize;

use super::super::error::code_name;
use super::super::failover::{Failover, GAP_TOLD, Gap, Writer};
use super::super::plan::Plan;
use super::super::stage::Stage;
use super::table::{columns, count, line, micros};

/// All writers. Times are in ms.
#[derive(Clone, Debug, Serialize)]
pub struct FailoverSummary {
    /// Since 1970, by the clock on the wall: where the `start_ms` of every gap counts from.
    pub measured_from_ms: f64,
    /// Sets per second of each writer.
    pub rate: f64,
    /// Gaps of a writer from here on are listed: two writers' pause is where their gaps meet.
    pub gap_told_ms: f64,
    /// The longest time in which no writer had a set acknowledged.
    pub pause: GapSummary,
    pub writers: Vec<WriterSummary>,
    /// Acknowledged sets that are not there.
    pub lost: u64,
    /// Sets that were applied more often than asked.
    pub doubled: u64,
    /// Why what was written could not be read back.
    pub unread: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct GapSummary {
    pub start_ms: f64,
    pub length_ms: f64,
    /// The start by the clock on the wall, since 1970.
    pub wall_ms: f64,
}

/// A writer; warm-up included, but for the gaps.
#[derive(Clone, Debug, Serialize)]
pub struct WriterSummary {
    pub server: String,
    pub acknowledged: u64,
    /// The longest time between two of its acknowledgements.
    pub longest_gap: GapSummary,
    /// The longest time in which none of the others had a set acknowledged; null when there is no other.
    pub pause_of_others: Option<GapSummary>,
    pub disconnects: u64,
    pub resumed: u64,
    pub expired: u64,
    /// Sets in flight when a connection was lost, or not answered until the end.
    pub unknown: u64,
    pub unknown_applied: u64,
    /// Sets that were due and let go, since the one before was not answered.
    pub skipped: u64,
    pub errors: BTreeMap<String, u64>,
    pub lost: u64,
    pub doubled: u64,
    /// What cannot be, in words.
    pub findings: Vec<String>,
    /// As (start, length).
    pub gaps: Vec<(f64, f64)>,
    /// Gaps that are not in the list, because it is full.
    pub gaps_left_out: u64,
}

impl FailoverSummary {
    pub fn of(plan: &Plan, stage: &Stage) -> Option<FailoverSummary> {
        let failover = stage.failover.as_deref()?;
        let servers = plan.servers.iter().map(ToString::to_string);
        let alone = failover.writers.len() == 1;
        let writers = failover.writers.iter().zip(servers);
        Some(FailoverSummary {
            measured_from_ms: from_wall_ms(failover),
            rate: plan.rate.unwrap_or(0.0),
            gap_told_ms: GAP_TOLD.as_secs_f64() * 1e3,
            pause: GapSummary::of(failover, failover.silence.longest()),
            writers: writers.map(|(writer, server)| WriterSummary::of(failover, writer, server, alone)).collect(),
            lost: failover.lost(),
            doubled: failover.doubled(),
            unread: failover.unread.clone(),
        })
    }

    /// Whether every acknowledged set is there, and each one once.
    pub fn is_sound(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.unread.is_none()
    }

    /// What is wrong, a line each.
    pub fn accusation(&self) -> String {
        let mut out = String::new();
        let is_or_are = |count: u64| if count == 1 { "set" } else { "sets" };
        if self.lost > 0 {
            line(&mut out, &format!("LOST: {} acknowledged {}", count(self.lost), is_or_are(self.lost)));
        }
        if self.doubled > 0 {
            let what = is_or_are(self.doubled);
            line(&mut out, &format!("DOUBLED: {} {what} applied once more than asked", count(self.doubled)));
        }
        if let Some(why) = &self.unread {
            line(&mut out, &format!("NOT CHECKED: what was written could not be read back: {why}"));
        }
        self.writers.iter().flat_map(|writer| &writer.findings).for_each(|what| line(&mut out, &format!("  {what}")));
        out
    }

    /// The part of the table for a terminal.
    pub fn render(&self, out: &mut String) {
        let head = [
            "writer at",
            "acknowledged",
            "longest gap",
            "from",
            "pause of the others",
            "disconnects",
            "resumed",
            "expired",
            "unknown",
            "applied",
            "errors",
            "lost",
            "doubled",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(self.writers.iter().map(WriterSummary::cells));
        out.push('\n');
        columns(out, &rows);
        out.push('\n');
        let GapSummary { start_ms, length_ms, wall_ms } = self.pause;
        let (length, start) = (millis(length_ms), millis(start_ms));
        line(out, &format!("pause of all: {length}, {start} behind the start ({wall_ms:.0} ms since 1970)"));
        match self.is_sound() {
            true => line(out, "every acknowledged set is there, once"),
            false => out.push_str(&self.accusation()),
        }
    }
}

impl WriterSummary {
    fn of(failover: &Failover, writer: &Writer, server: String, alone: bool) -> WriterSummary {
        let counts = &writer.counts;
        let gap = |gap: Gap| GapSummary::of(failover, gap);
        WriterSummary {
            server,
            acknowledged: counts.acknowledged,
            longest_gap: gap(writer.silence.longest()),
            pause_of_others: (!alone).then(|| gap(writer.silence_without.longest())),
            disconnects: counts.disconnects,
            resumed: counts.resumed,
            expired: counts.expired,
            unknown: counts.unknown,
            unknown_applied: counts.unknown_applied,
            skipped: counts.skipped,
            errors: counts.errors.iter().map(|(code, count)| (code_name(*code), *count)).collect(),
            lost: counts.lost,
            doubled: counts.doubled,
            findings: writer.findings.clone(),
            gaps: writer.gaps.iter().map(|told| gap(*told)).map(|told| (told.start_ms, told.length_ms)).collect(),
            gaps_left_out: counts.gaps_left_out,
        }
    }

    fn cells(&self) -> [String; 13] {
        [
            self.server.clone(),
            count(self.acknowledged),
            millis(self.longest_gap.length_ms),
            millis(self.longest_gap.start_ms),
            self.pause_of_others.map_or("–".to_owned(), |pause| millis(pause.length_ms)),
            count(self.disconnects),
            count(self.resumed),
            count(self.expired),
            count(self.unknown),
            count(self.unknown_applied),
            count(self.errors.values().sum()),
            count(self.lost),
            count(self.doubled),
        ]
    }
}

impl GapSummary {
    fn of(failover: &Failover, gap: Gap) -> GapSummary {
        let start_ms = gap.from.saturating_since(failover.from).as_secs_f64() * 1e3;
        let length_ms = gap.length().as_secs_f64() * 1e3;
        // To a µs: more digits than the clock has say nothing.
        let round = |ms: f64| (ms * 1e3).round() / 1e3;
        GapSummary {
            start_ms: round(start_ms),
            length_ms: round(length_ms),
            wall_ms: round(from_wall_ms(failover) + start_ms),
        }
    }
}

fn from_wall_ms(failover: &Failover) -> f64 {
    failover.from_wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1e3
}

fn millis(ms: f64) -> String {
    micros(ms * 1e3)
}
