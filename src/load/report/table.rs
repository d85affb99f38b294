//! The summary for a terminal.

use std::fmt::Write;

use super::{Row, Settings, StageSummary, Summary};

/// The whole text, ending with a newline.
pub fn render(summary: &Summary) -> String {
    let mut out = String::new();
    let settings = &summary.settings;
    if let Some(title) = &summary.title {
        line(&mut out, title);
    }
    let server = summary.server_version.as_ref().map_or(String::new(), |version| format!(", ZooKeeper {version}"));
    line(&mut out, &format!("server     {}{server}", settings.servers.join(", ")));
    line(&mut out, &format!("workload   {}", workload(settings)));
    if let Some(opened_s) = summary.opened_s {
        let rate = settings.sessions as f64 / opened_s.max(1e-9);
        line(&mut out, &format!("opened     {:.2} s ({} sessions/s)", opened_s, count(rate as u64)));
    }
    for stage in [&summary.fill, &summary.run].into_iter().flatten() {
        render_stage(&mut out, stage);
    }
    if let Some(failover) = &summary.failover {
        failover.render(&mut out);
    }
    out
}

/// What was done, without what this workload does not use.
fn workload(settings: &Settings) -> String {
    let count = |number: usize| count(number as u64);
    let pace = settings.rate.map_or("closed loop".to_owned(), |rate| format!("{rate} op/s"));
    let (name, sessions, bytes) = (&settings.workload, count(settings.sessions), count(settings.value_size));
    let seconds = settings.duration_s;
    match name.as_str() {
        "idle" => format!("{name}, {sessions} sessions, {seconds} s"),
        "storm" => format!("{name}, {sessions} sessions at once, {pace}, {seconds} s"),
        "watch" => format!("{name}, {sessions} watchers, {bytes} bytes, {pace}, {seconds} s"),
        "failover" => format!("{name}, a writer at each server, {bytes} bytes, {pace} each, {seconds} s"),
        "fill" => format!("{name}, {sessions} sessions × depth {}, {bytes} bytes, {pace}", count(settings.depth)),
        mix => format!(
            "{mix}, {sessions} sessions × depth {}, {bytes} bytes, {} keys {}, {pace}, {seconds} s",
            count(settings.depth),
            count(settings.keys as usize),
            settings.key_distribution
        ),
    }
}

pub fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn render_stage(out: &mut String, stage: &StageSummary) {
    let head = ["", "count", "op/s", "mean", "p50", "p90", "p99", "p99.9", "max", "errors"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(stage.ops.iter().map(cells));
    if stage.has_total() {
        rows.push(cells(&stage.total));
    }
    out.push('\n');
    columns(out, &rows);
    out.push('\n');
    render_notes(out, stage);
}

/// The first column to the left, the others to the right.
pub fn columns<const N: usize>(out: &mut String, rows: &[[String; N]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let mut text = format!("{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(widths).skip(1) {
            // Writing into a string cannot fail.
            let _ = write!(text, "   {cell:>width$}");
        }
        line(out, text.trim_end());
    }
}

fn cells(row: &Row) -> [String; 10] {
    let latency = &row.latency_us;
    let time = |value: f64| if row.count == 0 { "–".to_owned() } else { micros(value) };
    [
        row.op.to_owned(),
        count(row.count),
        count(row.per_second.round() as u64),
        time(latency.mean),
        time(latency.p50),
        time(latency.p90),
        time(latency.p99),
        time(latency.p99_9),
        time(latency.max),
        count(row.error_count),
    ]
}

/// What else is worth knowing, a sentence each.
pub fn notes(stage: &StageSummary) -> Vec<String> {
    let mut notes = Vec::new();
    for row in stage.ops.iter().filter(|row| row.error_count > 0) {
        let errors: Vec<String> = row.errors.iter().map(|(name, n)| format!("{name} {}", count(*n))).collect();
        notes.push(format!("errors of {}: {}", row.op, errors.join(", ")));
    }
    if stage.connections_lost > 0 || stage.sessions_expired > 0 {
        notes.push(format!(
            "connections lost {}, sessions resumed {}, expired {}",
            count(stage.connections_lost),
            count(stage.sessions_resumed),
            count(stage.sessions_expired)
        ));
    }
    notes.push(format!("longest time without an answer: {}", micros(stage.longest_gap_ms * 1e3)));
    if stage.unsent > 0 {
        // A few are always due in the very last moment.
        let is_behind = stage.unsent > stage.total.count / 1_000;
        let meaning = if is_behind { ": the server does not keep up with --rate" } else { "" };
        notes.push(format!("{} operations were due and not sent{meaning}", count(stage.unsent)));
    }
    let generator = &stage.generator;
    let plural = if generator.threads == 1 { "" } else { "s" };
    notes.push(format!("generator: {} of {} thread{plural}", share(generator.cpu_share), generator.threads));
    notes
}

fn render_notes(out: &mut String, stage: &StageSummary) {
    notes(stage).iter().for_each(|note| line(out, note));
    if stage.generator.may_be_bottleneck {
        line(out, "WARNING: the generator may be the bottleneck; add --threads (and cores)");
    }
    if stage.protocol_violations > 0 {
        line(out, &format!("WARNING: the server broke the protocol {} times:", count(stage.protocol_violations)));
        stage.violations.iter().for_each(|what| line(out, &format!("  {what}")));
    }
}

/// `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A time in µs, in the unit that reads best, with three digits.
pub fn micros(micros: f64) -> String {
    let (value, unit) = match micros {
        m if m < 1_000.0 => (m, "µs"),
        m if m < 1_000_000.0 => (m / 1e3, "ms"),
        m => (m / 1e6, "s"),
    };
    match value {
        v if v < 9.995 => format!("{v:.2} {unit}"),
        v if v < 99.95 => format!("{v:.1} {unit}"),
        v => format!("{v:.0} {unit}"),
    }
}

/// `87 %`.
pub fn share(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        let times = [0.5, 12.34, 123.4, 1_234.0, 99_950.0, 1_500_000.0].map(micros);
        assert_eq!(times, ["0.50 µs", "12.3 µs", "123 µs", "1.23 ms", "100 ms", "1.50 s"]);
        assert_eq!(share(0.874), "87 %");
    }
}
