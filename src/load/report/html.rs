//! The report as one page that needs nothing else: plots are inline SVG, no scripts.

use super::super::stage::Second;
use super::plot::{Axis, Plot, Series, escape, put};
use super::table::{count, micros, share};
use super::{Row, StageSummary, Summary};

/// Points of a plot at most: longer runs are put together.
const POINTS_MAX: usize = 400;
/// Colours that the page has.
const COLOURS: usize = 8;
/// A cut last second below this says nothing about the rate.
const LENGTH_MIN_S: f64 = 0.25;

const STYLE: &str = "
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1a2029;--soft:#5d6875;--line:#dfe3e8;--warn:#b42318;--warnbg:#fef1ef;
--c0:#2f6fde;--c1:#e07b1a;--c2:#17936c;--c3:#c2378a;--c4:#7a53d1;--c5:#a38200;--c6:#178ea8;--c7:#c8453a}
@media(prefers-color-scheme:dark){:root{--bg:#12151a;--card:#1a1f26;--ink:#e6e9ee;--soft:#98a3b0;--line:#2d343e;--warn:#ff9b8f;--warnbg:#3a1f1d;
--c0:#6ea4ff;--c1:#ffa94d;--c2:#45cf9f;--c3:#f584c4;--c4:#b397ff;--c5:#e3c341;--c6:#52cbe4;--c7:#ff8a7d}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,\"Segoe UI\",Roboto,sans-serif}
main{max-width:1120px;margin:0 auto;padding:32px 20px 56px}
h1{font-size:26px;line-height:1.25;margin:0 0 4px}
h2{font-size:19px;margin:36px 0 12px}
.sub{color:var(--soft);margin:0 0 24px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(135px,1fr));gap:12px;margin-bottom:16px}
.tile,figure,.panel{background:var(--card);border:1px solid var(--line);border-radius:10px}
.tile{padding:12px 16px}
.tile b{display:block;font-size:22px;font-weight:650;font-variant-numeric:tabular-nums;white-space:nowrap}
.tile span{color:var(--soft);font-size:13px}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:16px}
figure{margin:0;padding:14px 16px 10px;min-width:0}
figcaption{font-weight:600}
.legend{display:flex;flex-wrap:wrap;gap:2px 16px;color:var(--soft);font-size:13px;min-height:20px;margin-bottom:6px}
.legend i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:6px}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font-size:12px;font-variant-numeric:tabular-nums}
svg .end{text-anchor:end}svg .mid{text-anchor:middle}
svg .grid{stroke:var(--line)}svg .axis,svg .tick{stroke:var(--soft)}
svg .hint{fill:var(--ink);fill-opacity:0}svg .hint:hover{fill-opacity:.07}
.panel{padding:6px 16px;overflow-x:auto;margin-top:16px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:7px 0 7px 20px;white-space:nowrap;border-top:1px solid var(--line)}
tr:first-child>*{border-top:0}
th{color:var(--soft);font-weight:500;font-size:13px}
th:first-child,td:first-child{text-align:left;padding-left:0}
tr.total td{font-weight:650}
.warn{background:var(--warnbg);color:var(--warn);border-radius:10px;padding:10px 16px;margin:0 0 16px}
.notes{color:var(--soft);margin:12px 2px 0;padding:0;list-style:none;font-size:14px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 24px;margin:10px 0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
";

/// The whole page.
pub fn render(summary: &Summary) -> String {
    let heading = summary.title.clone().unwrap_or_else(|| format!("oxkeeper bench: {}", summary.settings.workload));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>{0}</title>\n<style>{STYLE}</style></head>\n<body><main>\n<h1>{0}</h1>\n<p class=\"sub\">{1}</p>\n",
        escape(&heading),
        escape(&subtitle(summary)),
    );
    let both = summary.fill.is_some() && summary.run.is_some();
    for (name, stage) in [("Fill", &summary.fill), ("Run", &summary.run)] {
        if let Some(stage) = stage {
            if both {
                put(&mut out, format_args!("<h2>{name}</h2>\n"));
            }
            render_stage(&mut out, stage);
        }
    }
    render_settings(&mut out, summary);
    out.push_str("</main></body></html>\n");
    out
}

fn subtitle(summary: &Summary) -> String {
    let settings = &summary.settings;
    let server = summary.server_version.as_ref().map_or(String::new(), |version| format!("ZooKeeper {version} at "));
    let pace = settings.rate.map_or("closed loop".to_owned(), |rate| format!("{} op/s intended", count(rate as u64)));
    format!(
        "{server}{} · {} · {} sessions × depth {} · {pace}",
        settings.servers.join(", "),
        settings.workload,
        count(settings.sessions as u64),
        count(settings.depth as u64),
    )
}

fn render_stage(out: &mut String, stage: &StageSummary) {
    if stage.generator.may_be_bottleneck {
        let text = "The generator may be the bottleneck: its threads were busy";
        let busy = share(stage.generator.cpu_share);
        put(out, format_args!("<p class=\"warn\">{text} {busy} of the time. Add --threads, and cores.</p>\n"));
    }
    if stage.protocol_violations > 0 {
        let (times, first) = (count(stage.protocol_violations), stage.violations.join("; "));
        put(
            out,
            format_args!("<p class=\"warn\">The server broke the protocol {times} times: {}</p>\n", escape(&first)),
        );
    }
    render_tiles(out, stage);
    out.push_str("<div class=\"plots\">\n");
    // Two points in time are no course of time.
    let has_course = groups(stage).len() > 2;
    if has_course {
        out.push_str(&throughput(stage).render());
        out.push_str(&latency(stage).render());
    }
    out.push_str(&percentiles(stage).render());
    if has_course {
        out.push_str(&generator(stage).render());
    }
    out.push_str("</div>\n");
    render_table(out, stage);
}

fn render_tiles(out: &mut String, stage: &StageSummary) {
    let latency = &stage.total.latency_us;
    let tiles = [
        (count(stage.total.per_second.round() as u64), "op/s"),
        (micros(latency.p50), "p50"),
        (micros(latency.p99), "p99"),
        (micros(latency.p99_9), "p99.9"),
        (micros(latency.max), "longest"),
        (count(stage.total.error_count), "errors"),
        (share(stage.generator.cpu_share), "generator CPU"),
    ];
    out.push_str("<div class=\"tiles\">");
    for (value, name) in tiles {
        put(out, format_args!("<div class=\"tile\"><b>{value}</b><span>{name}</span></div>"));
    }
    out.push_str("</div>\n");
}

/// Seconds that are put together for a plot: from, to (s), and the seconds themselves.
fn groups(stage: &StageSummary) -> Vec<(f64, f64, &[Second])> {
    let told = match stage.seconds.split_last() {
        Some((last, before)) if last.length_s < LENGTH_MIN_S && !before.is_empty() => before,
        _ => stage.seconds.as_slice(),
    };
    let size = told.len().div_ceil(POINTS_MAX).max(1);
    let bounds = |group: &[Second]| {
        let from = group.first().map_or(0.0, |second| second.second as f64);
        let to = group.last().map_or(0.0, |second| second.second as f64 + second.length_s);
        (from, to)
    };
    told.chunks(size).map(|group| (bounds(group), group)).map(|((from, to), group)| (from, to, group)).collect()
}

fn time_axis(stage: &StageSummary) -> Axis {
    let end = groups(stage).last().map_or(1.0, |(_, to, _)| *to);
    Axis::exact(end, |seconds| match seconds {
        s if end >= 7_200.0 => format!("{:.1} h", s / 3_600.0),
        s if end >= 300.0 => format!("{:.0} min", s / 60.0),
        s => format!("{} s", (s * 10.0).round() / 10.0),
    })
}

/// A stairs-free line through the middle of each group, drawn out to both ends.
fn line(groups: &[(f64, f64, &[Second])], value: impl Fn(&[Second], f64) -> f64) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> =
        groups.iter().map(|(from, to, group)| ((from + to) / 2.0, value(group, to - from))).collect();
    if let (Some((from, ..)), Some((_, first))) = (groups.first(), points.first().copied()) {
        points.insert(0, (*from, first));
    }
    if let (Some((_, to, _)), Some((_, last))) = (groups.last(), points.last().copied()) {
        points.push((*to, last));
    }
    points
}

fn throughput(stage: &StageSummary) -> Plot {
    let groups = groups(stage);
    let ops = stage.total_of.iter().filter(|op| stage.ops.iter().any(|row| row.op == **op && row.count > 0));
    let mut base = vec![0.0; groups.len() + 2];
    let mut series = Vec::new();
    for (number, op) in ops.enumerate() {
        let of_op = |group: &[Second]| group.iter().filter_map(|second| second.ops.get(op)).sum::<u64>() as f64;
        let mut points = line(&groups, |group, seconds| of_op(group) / seconds.max(1e-9));
        points.iter_mut().zip(&base).for_each(|((_, y), base)| *y += base);
        let lower = std::mem::replace(&mut base, points.iter().map(|(_, y)| *y).collect());
        series.push(Series { name: (*op).to_owned(), colour: number % COLOURS, points, base: Some(lower) });
    }
    let max = base.iter().copied().fold(0.0, f64::max);
    let hints = groups.iter().map(|(from, to, group)| {
        let all: u64 = group.iter().map(|second| second.count).sum();
        let errors: u64 = group.iter().map(|second| second.errors).sum();
        let rate = count((all as f64 / (to - from).max(1e-9)) as u64);
        (*from, *to, format!("{from:.0}–{to:.0} s: {rate} op/s, {} errors", count(errors)))
    });
    Plot {
        title: "Throughput",
        x: time_axis(stage),
        y: Axis::linear(max, short),
        x_label: "",
        hints: hints.collect(),
        series,
    }
}

/// `1.2 M`, `350 k`.
fn short(value: f64) -> String {
    let round = |value: f64| format!("{}", (value * 100.0).round() / 100.0);
    match value {
        v if v >= 1e6 => format!("{} M", round(v / 1e6)),
        v if v >= 1e3 => format!("{} k", round(v / 1e3)),
        v => round(v),
    }
}

/// A round number of µs.
fn short_micros(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} s", v / 1e6),
        v if v >= 1e3 => format!("{} ms", v / 1e3),
        v => format!("{v} µs"),
    }
}

fn latency(stage: &StageSummary) -> Plot {
    let groups: Vec<_> =
        groups(stage).into_iter().filter(|(.., group)| group.iter().any(|second| second.count > 0)).collect();
    type Of = fn(&Second) -> f64;
    let lines: [(&str, Of); 5] = [
        ("p50", |second| second.latency_us.p50),
        ("p90", |second| second.latency_us.p90),
        ("p99", |second| second.latency_us.p99),
        ("p99.9", |second| second.latency_us.p99_9),
        ("longest", |second| second.latency_us.max),
    ];
    // Of seconds put together the worst is shown: percentiles cannot be averaged.
    let worst = |group: &[Second], of: Of| group.iter().map(of).fold(0.0, f64::max);
    let series: Vec<Series> = lines
        .iter()
        .enumerate()
        .map(|(colour, (name, of))| Series {
            name: (*name).to_owned(),
            colour,
            points: line(&groups, |group, _| worst(group, *of)),
            base: None,
        })
        .collect();
    let values = || series.iter().flat_map(|series| &series.points).map(|(_, y)| *y).filter(|y| *y > 0.0);
    let (min, max) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let hints = groups.iter().map(|(from, to, group)| {
        let texts = lines.map(|(name, of)| format!("{name} {}", micros(worst(group, of))));
        (*from, *to, format!("{from:.0}–{to:.0} s: {}", texts.join(", ")))
    });
    Plot {
        title: "Latency over time",
        x: time_axis(stage),
        y: Axis::log(min, max, short_micros),
        x_label: "",
        hints: hints.collect(),
        series,
    }
}

fn percentiles(stage: &StageSummary) -> Plot {
    let total = stage.has_total().then_some(&stage.total);
    let rows: Vec<&Row> = stage.ops.iter().filter(|row| row.count > 0).chain(total).collect();
    let series = rows.iter().enumerate().map(|(number, row)| Series {
        name: row.op.to_owned(),
        colour: number % COLOURS,
        points: row.curve.clone(),
        base: None,
    });
    let values = || rows.iter().flat_map(|row| &row.curve).map(|(_, y)| *y).filter(|y| *y > 0.0);
    let (min, max) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let most = rows.iter().map(|row| row.count).max().unwrap_or(0);
    Plot {
        title: "Latency by share of answers",
        x: Axis::nines(most),
        y: Axis::log(min, max, short_micros),
        x_label: "",
        series: series.collect(),
        hints: Vec::new(),
    }
}

fn generator(stage: &StageSummary) -> Plot {
    let groups = groups(stage);
    let mean = |group: &[Second]| group.iter().map(|second| second.cpu_share).sum::<f64>() / group.len().max(1) as f64;
    let points = line(&groups, |group, _| mean(group));
    let base = Some(vec![0.0; points.len()]);
    let max = points.iter().map(|(_, y)| *y).fold(1.0, f64::max);
    let hints =
        groups.iter().map(|(from, to, group)| (*from, *to, format!("{from:.0}–{to:.0} s: {}", share(mean(group)))));
    Plot {
        title: "CPU share of the generator",
        x: time_axis(stage),
        y: Axis::linear(max, share),
        x_label: "",
        hints: hints.collect(),
        series: vec![Series { name: threads(stage.generator.threads), colour: 6, points, base }],
    }
}

fn threads(count: usize) -> String {
    if count == 1 { "1 thread".to_owned() } else { format!("{count} threads") }
}

fn render_table(out: &mut String, stage: &StageSummary) {
    out.push_str("<div class=\"panel\"><table><tr><th>operation</th>");
    for head in ["count", "op/s", "mean", "p50", "p90", "p99", "p99.9", "longest", "errors"] {
        put(out, format_args!("<th>{head}</th>"));
    }
    out.push_str("</tr>\n");
    let total = stage.has_total().then_some(&stage.total);
    for row in stage.ops.iter().chain(total) {
        let class = if row.op == stage.total.op { " class=\"total\"" } else { "" };
        let latency = &row.latency_us;
        put(out, format_args!("<tr{class}><td>{}</td>", row.op));
        put(out, format_args!("<td>{}</td><td>{}</td>", count(row.count), count(row.per_second.round() as u64)));
        for time in [latency.mean, latency.p50, latency.p90, latency.p99, latency.p99_9, latency.max] {
            put(out, format_args!("<td>{}</td>", if row.count == 0 { "–".to_owned() } else { micros(time) }));
        }
        put(out, format_args!("<td>{}</td></tr>\n", count(row.error_count)));
    }
    out.push_str("</table></div>\n<ul class=\"notes\">\n");
    super::table::notes(stage).iter().for_each(|note| put(out, format_args!("<li>{}</li>\n", escape(note))));
    out.push_str("</ul>\n");
}

fn render_settings(out: &mut String, summary: &Summary) {
    let settings = &summary.settings;
    let mut rows = vec![
        ("servers", settings.servers.join(", ")),
        ("workload", settings.workload.clone()),
        (
            "sessions",
            format!("{}, timeout {} ms", count(settings.sessions as u64), count(settings.session_timeout_ms as u64)),
        ),
        ("depth", count(settings.depth as u64)),
        ("value size", format!("{} bytes", count(settings.value_size as u64))),
        ("keys", format!("{}, {}", count(settings.keys as u64), settings.key_distribution)),
        ("measured", format!("{} s after {} s of warm-up", settings.duration_s, settings.warmup_s)),
        ("seed", settings.seed.to_string()),
        ("generator", format!("{} {}, {}", summary.tool, summary.version, threads(settings.threads))),
    ];
    if let Some(rate) = settings.rate {
        rows.push(("rate", format!("{} op/s", count(rate as u64))));
    }
    if let Some(opened_s) = summary.opened_s {
        rows.push(("opening", format!("{opened_s:.3} s for all sessions")));
    }
    out.push_str("<h2>Settings</h2>\n<div class=\"panel\"><dl>");
    for (name, value) in rows {
        put(out, format_args!("<dt>{name}</dt><dd>{}</dd>", escape(&value)));
    }
    out.push_str("</dl></div>\n");
}
