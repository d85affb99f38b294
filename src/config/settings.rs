//! The table of settings: what a row says, and how a row is found. The rows themselves are in `settings_server.rs`
//! (obeyed), `settings_ensemble.rs` (obeyed by members of an ensemble) and `settings_unused.rs` (not obeyed).

use super::draft::Draft;
use super::{settings_ensemble, settings_server, settings_unused};
use std::fmt;

/// One setting.
pub(super) struct Setting {
    /// The key as in Java. A `*` at the end stands for any text.
    pub name: &'static str,
    pub source: Source,
    pub shape: Shape,
    pub verdict: Verdict,
}

/// Where a setting may be written. K is its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// K in zoo.cfg, nowhere else; read strictly.
    File,
    /// K in zoo.cfg, read strictly, or else `-Dzookeeper.K`.
    FileOrProperty,
    /// K in zoo.cfg, which becomes the property `zookeeper.K`, or else `-Dzookeeper.K`; read leniently.
    PassThrough,
    /// As `PassThrough`, or else `-DK`.
    PassThroughOrBare,
    /// `-DK` only.
    Bare,
    /// `-Dzookeeper.K` only.
    Property,
    /// Our own: K in zoo.cfg, or else `-DK`; read strictly.
    Ours,
}

impl Source {
    pub fn is_strict(self) -> bool {
        match self {
            Source::File | Source::FileOrProperty | Source::Ours => true,
            Source::PassThrough | Source::PassThroughOrBare | Source::Bare | Source::Property => false,
        }
    }

    pub fn is_in_file(self) -> bool {
        match self {
            Source::File | Source::FileOrProperty | Source::PassThrough | Source::PassThroughOrBare | Source::Ours => {
                true
            }
            Source::Bare | Source::Property => false,
        }
    }

    pub fn is_prefixed_property(self) -> bool {
        match self {
            Source::FileOrProperty | Source::PassThrough | Source::PassThroughOrBare | Source::Property => true,
            Source::File | Source::Bare | Source::Ours => false,
        }
    }

    pub fn is_bare_property(self) -> bool {
        match self {
            Source::PassThroughOrBare | Source::Bare | Source::Ours => true,
            Source::File | Source::FileOrProperty | Source::PassThrough | Source::Property => false,
        }
    }
}

/// Type, default, range, and where the value goes. A default is stored before anything is read and need not lie
/// in the range: outside of it, it means "not set".
pub(super) enum Shape {
    Flag { default: bool, store: fn(&mut Draft, bool) },
    Number { default: i64, unit: Unit, range: Range, store: fn(&mut Draft, i64) },
    Real { default: f64, store: fn(&mut Draft, f64) },
    Text { default: &'static str, store: fn(&mut Draft, &str) -> Outcome },
}

/// Bounds, both included, and what happens to a number outside of them.
pub(super) struct Range {
    pub min: i64,
    pub max: i64,
    pub outside: Outside,
}

/// For messages; bounds that are those of a Java `int` are left out.
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (min, max) if min == max => write!(f, ", {min}"),
            (min, max) if min > i64::from(i32::MIN) => write!(f, " from {min} to {max}"),
            (_, max) => write!(f, " up to {max}"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outside {
    /// An error.
    Refused,
    /// The nearest bound is taken, with a warning.
    Clamped,
}

pub(super) const fn within(min: i64, max: i64) -> Range {
    Range { min, max, outside: Outside::Refused }
}

/// From `min` to the largest `int` of Java; beyond is an error.
pub(super) const fn at_least(min: i64) -> Range {
    within(min, i32::MAX as i64)
}

/// From `min` to the largest `int` of Java; the nearest bound is taken beyond.
pub(super) const fn raised_to(min: i64) -> Range {
    Range { min, max: i32::MAX as i64, outside: Outside::Clamped }
}

/// Any `long`.
pub(super) const ANY: Range = Range { min: i64::MIN, max: i64::MAX, outside: Outside::Clamped };

/// What a number counts; for messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    Ms,
    Us,
    Ticks,
    Hours,
    Bytes,
    Kilobytes,
    Port,
    Count,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unit::Ms => "a whole number of milliseconds",
            Unit::Us => "a whole number of microseconds",
            Unit::Ticks => "a whole number of ticks",
            Unit::Hours => "a whole number of hours",
            Unit::Bytes => "a whole number of bytes",
            Unit::Kilobytes => "a whole number of kilobytes",
            Unit::Port => "a port",
            Unit::Count => "a whole number",
        })
    }
}

/// What became of a text.
pub(super) enum Outcome {
    Taken,
    /// Taken, or harmlessly ignored, and worth a warning.
    Warn(String),
    /// Cannot be used; the text says what is wanted.
    Bad(String),
    /// Means something that does not exist here; the text says what to do.
    Refused(String),
}

/// What this server does with a setting that differs from its default.
pub(super) enum Verdict {
    Supported,
    /// Accepted with one warning: why it has no effect.
    Idle(&'static str),
    /// Accepted without a word: for clients, for the JVM, or harmless.
    Silent,
    /// The server does not start: what to do.
    Refused(&'static str),
}

pub(super) const fn flag(name: &'static str, source: Source, default: bool, store: fn(&mut Draft, bool)) -> Setting {
    Setting { name, source, shape: Shape::Flag { default, store }, verdict: Verdict::Supported }
}

pub(super) const fn number(
    name: &'static str,
    source: Source,
    default: i64,
    unit: Unit,
    range: Range,
    store: fn(&mut Draft, i64),
) -> Setting {
    Setting { name, source, shape: Shape::Number { default, unit, range, store }, verdict: Verdict::Supported }
}

pub(super) const fn real(name: &'static str, source: Source, default: f64, store: fn(&mut Draft, f64)) -> Setting {
    Setting { name, source, shape: Shape::Real { default, store }, verdict: Verdict::Supported }
}

/// A text. The default is stored like what is written, unless it is empty.
pub(super) const fn text(
    name: &'static str,
    source: Source,
    default: &'static str,
    store: fn(&mut Draft, &str) -> Outcome,
) -> Setting {
    Setting { name, source, shape: Shape::Text { default, store }, verdict: Verdict::Supported }
}

/// A setting that is read and checked, and has no effect: whoever changes it is told why.
pub(super) const fn idle(setting: Setting, why: &'static str) -> Setting {
    Setting { verdict: Verdict::Idle(why), ..setting }
}

/// A flag that is not obeyed, false unless set.
pub(super) const fn unused_flag(name: &'static str, source: Source, verdict: Verdict) -> Setting {
    Setting { name, source, shape: Shape::Flag { default: false, store: |_, _| {} }, verdict }
}

/// A number that is not obeyed.
pub(super) const fn unused_number(name: &'static str, source: Source, default: i64, verdict: Verdict) -> Setting {
    let shape = Shape::Number { default, unit: Unit::Count, range: ANY, store: |_, _| {} };
    Setting { name, source, shape, verdict }
}

/// A text that is not obeyed; `default` is what may stand there without a word.
pub(super) const fn unused(name: &'static str, source: Source, default: &'static str, verdict: Verdict) -> Setting {
    Setting { name, source, shape: Shape::Text { default, store: |_, _| Outcome::Taken }, verdict }
}

/// Every row.
pub(super) fn all() -> impl Iterator<Item = &'static Setting> {
    settings_server::SETTINGS.iter().chain(settings_ensemble::SETTINGS).chain(settings_unused::SETTINGS)
}

/// The row of a key: the one with exactly this name, else the one whose prefix is the longest.
pub(super) fn find(key: &str) -> Option<&'static Setting> {
    all().find(|row| row.name == key).or_else(|| {
        let prefixed = all().filter(|row| row.name.strip_suffix('*').is_some_and(|prefix| key.starts_with(prefix)));
        prefixed.max_by_key(|row| row.name.len())
    })
}

/// Names that the administrator's guide prints and that do nothing in zoo.cfg, with those that work: the property
/// behind them is called otherwise.
pub(super) const DOCUMENTED_WRONGLY: &[(&str, &str)] = &[
    ("requestThrottleLimit", "request_throttle_max_requests"),
    ("requestThrottleStallTime", "request_throttle_stall_time"),
    ("requestThrottleDropStale", "request_throttle_drop_stale"),
    ("requestStaleLatencyCheck", "request_stale_latency_check"),
    ("requestStaleConnectionCheck", "request_stale_connection_check"),
    ("connectionMaxTokens", "connection_throttle_tokens"),
    ("connectionTokenFillTime", "connection_throttle_fill_time"),
    ("connectionTokenFillCount", "connection_throttle_fill_count"),
    ("connectionFreezeTime", "connection_throttle_freeze_time"),
    ("connectionDropIncrease", "connection_throttle_drop_increase"),
    ("connectionDropDecrease", "connection_throttle_drop_decrease"),
    ("connectionDecreaseRatio", "connection_throttle_decrease_ratio"),
    ("throttledOpWaitTime", "throttled_op_wait_time"),
    ("maxConcurrentSnapSyncs", "leader.maxConcurrentSnapSyncs"),
    ("maxConcurrentDiffSyncs", "leader.maxConcurrentDiffSyncs"),
    ("maxTimeToWaitForEpoch", "leader.maxTimeToWaitForEpoch"),
    ("outstandingHandshake.limit", "netty.server.outstandingHandshake.limit"),
    ("advancedFlowControlEnabled", "netty.advancedFlowControl.enabled"),
];

/// The known name that looks most like `key`, if one is near enough to be meant.
pub(super) fn nearest(key: &str) -> Option<&'static str> {
    const KEY_BYTES_MAX: usize = 100;
    if key.len() > KEY_BYTES_MAX {
        return None;
    }
    let near = key.chars().count() / 4 + 1;
    let names = all().map(|row| row.name).filter(|name| !name.ends_with('*')).chain(["server.1"]);
    let (distance, name) = names.map(|name| (distance(key, name), name)).min()?;
    (distance <= near).then_some(name)
}

/// Letters to insert, remove or change (upper or lower case is no change) to make one text of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().map(|c| c.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().map(|c| c.to_ascii_lowercase()).enumerate() {
        let mut next = vec![i + 1];
        for (left_above, (above, b)) in row.iter().zip(row.iter().skip(1).zip(&b)) {
            let left = next.last().copied().unwrap_or_default();
            next.push((left_above + usize::from(a != *b)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_stands_in_two_rows() {
        let mut names: Vec<_> = all().map(|row| row.name).collect();
        names.sort_unstable();
        for pair in names.windows(2) {
            assert_ne!(pair[0], pair[1]);
        }
    }

    #[test]
    fn defaults_of_strict_numbers_are_in_range_or_mean_not_set() {
        for row in all() {
            if let Shape::Number { default, range, .. } = &row.shape {
                assert!(range.min <= range.max, "{}", row.name);
                let unset = [-1, 0].contains(default);
                assert!(unset || (range.min..=range.max).contains(default), "{}", row.name);
            }
        }
    }

    #[test]
    fn names_that_are_documented_wrongly_are_no_rows_and_point_to_rows() {
        for (wrong, right) in DOCUMENTED_WRONGLY {
            assert!(find(wrong).is_none(), "{wrong}");
            assert!(find(right).is_some(), "{right}");
        }
    }

    #[test]
    fn exact_names_come_before_prefixes_and_long_prefixes_before_short_ones() {
        assert_eq!(find("ssl.crl").map(|row| row.name), Some("ssl.crl"));
        assert_eq!(find("ssl.keyStore.location").map(|row| row.name), Some("ssl.*"));
        assert!(find("nothing").is_none());
    }

    // S-071
    #[test]
    fn the_nearest_name_is_one_that_could_be_meant() {
        for (key, name) in [
            ("ticktime", Some("tickTime")),
            ("maxClientCnxn", Some("maxClientCnxns")),
            ("autopurge.snapRetaincount", Some("autopurge.snapRetainCount")),
            ("sever.1", Some("server.1")),
            ("somethingElseEntirely", None),
            ("", None),
        ] {
            assert_eq!(nearest(key), name, "{key}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
