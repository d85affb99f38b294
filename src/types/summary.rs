//! Averages, extremes and percentiles, as ZooKeeper reports them.

use std::fmt;

use hdrhistogram::Histogram;

/// A number with at most four decimals, in ten-thousandths: how Java's servers report averages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Decimal(pub u64);

impl Decimal {
    /// `sum / count` as Java computes it: a double, rounded HALF_UP to four decimals
    /// (`AvgMinMaxCounter.getAvg`). 0 of nothing is 0.
    pub fn average(sum: u64, count: u64) -> Decimal {
        if count == 0 {
            return Decimal(0);
        }
        // HALF_UP looks at the fifth decimal of the double's exact value, so print enough to read it off.
        let text = format!("{:.25}", sum as f64 / count as f64);
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let digits =
            |text: &str| text.bytes().fold(0_u64, |n, b| n.saturating_mul(10).saturating_add((b - b'0').into()));
        let kept = digits(whole).saturating_mul(10_000).saturating_add(digits(fraction.get(..4).unwrap_or("")));
        let half_up = fraction.as_bytes().get(4).is_some_and(|&digit| digit >= b'5');
        Decimal(kept.saturating_add(half_up.into()))
    }
}

/// `0.0`, `2.8636`: a Java double, except that it is never in the form `5.0E-4`.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:04}", self.0 % 10_000);
        let fraction = fraction.trim_end_matches('0');
        write!(f, "{}.{}", self.0 / 10_000, if fraction.is_empty() { "0" } else { fraction })
    }
}

/// The five numbers of a BASIC summary, in the unit that ZooKeeper's name promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SummaryValues {
    pub average: Decimal,
    pub min: u64,
    pub max: u64,
    pub count: u64,
    pub sum: u64,
}

/// A summary of counts or bytes (`AvgMinMaxCounter`). `min ≤ max` once `count > 0`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
}

impl Default for Summary {
    fn default() -> Summary {
        Summary { count: 0, sum: 0, min: u64::MAX, max: 0 }
    }
}

impl Summary {
    pub fn record(&mut self, value: u64) {
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    pub fn merge(&mut self, other: &Summary) {
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    pub fn values(&self) -> SummaryValues {
        SummaryValues {
            average: Decimal::average(self.sum, self.count),
            min: if self.count == 0 { 0 } else { self.min },
            max: self.max,
            count: self.count,
            sum: self.sum,
        }
    }
}

/// A summary of times: recorded in microseconds, reported in whole milliseconds as Java's (the average keeps its
/// decimals, so that it says something about a server that answers in microseconds).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LatencySummary {
    count: u64,
    sum_us: u64,
    /// Saturates at 71 minutes, and so does `max_us`.
    min_us: u32,
    max_us: u32,
}

impl Default for LatencySummary {
    fn default() -> LatencySummary {
        LatencySummary { count: 0, sum_us: 0, min_us: u32::MAX, max_us: 0 }
    }
}

impl LatencySummary {
    pub fn record(&mut self, us: u32) {
        self.record_many(us, 1);
    }

    /// As many samples at once: requests that came and were answered together waited equally long.
    pub fn record_many(&mut self, us: u32, samples: u64) {
        if samples == 0 {
            return;
        }
        self.count += samples;
        self.sum_us = self.sum_us.saturating_add(u64::from(us).saturating_mul(samples));
        self.min_us = self.min_us.min(us);
        self.max_us = self.max_us.max(us);
    }

    pub fn merge(&mut self, other: &LatencySummary) {
        self.count += other.count;
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self.min_us = self.min_us.min(other.min_us);
        self.max_us = self.max_us.max(other.max_us);
    }

    /// In milliseconds.
    pub fn values(&self) -> SummaryValues {
        SummaryValues {
            average: Decimal::average(self.sum_us, self.count.saturating_mul(1_000)),
            min: if self.count == 0 { 0 } else { u64::from(self.min_us) / 1_000 },
            max: u64::from(self.max_us) / 1_000,
            count: self.count,
            sum: self.sum_us / 1_000,
        }
    }

    /// Whole milliseconds, rounded down: the form of a connection's `avglat`.
    pub fn average_whole_ms(&self) -> u64 {
        self.sum_us.checked_div(self.count).unwrap_or(0) / 1_000
    }
}

/// Longest time that percentiles tell apart, in µs; longer ones count as this long.
const PERCENTILE_US_MAX: u64 = 60_000_000;
/// Decimal digits that percentiles keep: one percent. 16 KiB per summary that has ever been fed.
const PERCENTILE_DIGITS: u8 = 2;

/// An ADVANCED summary: a `LatencySummary` and its percentiles, over all samples since the last reset
/// (Java draws 4096 of them). The histogram is made with the first sample.
#[derive(Clone, Debug, Default)]
pub struct PercentileSummary {
    summary: LatencySummary,
    histogram: Option<Box<Histogram<u64>>>,
}

impl PercentileSummary {
    pub fn record(&mut self, us: u32) {
        self.record_many(us, 1);
    }

    pub fn record_many(&mut self, us: u32, samples: u64) {
        self.summary.record_many(us, samples);
        self.histogram.get_or_insert_with(new_histogram).saturating_record_n(u64::from(us), samples);
    }

    pub fn merge(&mut self, other: &PercentileSummary) {
        self.summary.merge(&other.summary);
        if let Some(theirs) = &other.histogram {
            let ours = self.histogram.get_or_insert_with(new_histogram);
            ours.add(theirs.as_ref()).expect("all histograms have the bounds of new_histogram");
        }
    }

    pub fn summary(&self) -> &LatencySummary {
        &self.summary
    }

    /// Milliseconds that so large a share of the samples (0.5, 0.99) did not exceed; 0 without samples.
    pub fn quantile_ms(&self, quantile: f64) -> u64 {
        self.histogram.as_ref().map_or(0, |h| h.value_at_quantile(quantile).min(self.summary.max_us.into()) / 1_000)
    }
}

fn new_histogram() -> Box<Histogram<u64>> {
    let bounded = Histogram::new_with_bounds(1, PERCENTILE_US_MAX, PERCENTILE_DIGITS);
    Box::new(bounded.expect("the constant bounds are valid"))
}

/// Last, smallest and largest of some buffers' sizes in bytes; −1 before the first (`BufferStats`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SizeStats {
    pub last: i32,
    pub min: i32,
    pub max: i32,
}

impl Default for SizeStats {
    fn default() -> SizeStats {
        SizeStats { last: -1, min: -1, max: -1 }
    }
}

impl SizeStats {
    pub fn record(&mut self, bytes: usize) {
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        self.last = bytes;
        self.min = if self.min < 0 { bytes } else { self.min.min(bytes) };
        self.max = self.max.max(bytes);
    }

    /// Which core was the last to send is not known: a later merge wins.
    pub fn merge(&mut self, other: &SizeStats) {
        if other.last < 0 {
            return;
        }
        self.last = other.last;
        self.min = if self.min < 0 { other.min } else { self.min.min(other.min) };
        self.max = self.max.max(other.max);
    }
}

/// `last/min/max`, as in `srvr` of a leader.
impl fmt::Display for SizeStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.last, self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_round_half_up_as_a_java_double_does() {
        for (sum, count, expected) in [
            (0, 0, "0.0"),
            (0, 5, "0.0"),
            (22, 1, "22.0"),
            (63, 22, "2.8636"),
            (115, 16, "7.1875"),
            (1, 32, "0.0313"),
            (1, 20_000, "0.0001"),
            (3, 20_000, "0.0001"), // 0.00015 is a little less as a double
            (1, 100_000, "0.0"),
            (10, 20_000, "0.0005"),
            (25, 100, "0.25"),
            (99_999, 100_000, "1.0"),
            (u64::MAX, 1, "1844674407370955.1615"),
        ] {
            assert_eq!(Decimal::average(sum, count).to_string(), expected, "{sum}/{count}");
        }
    }

    #[test]
    fn times_are_reported_in_milliseconds_and_their_average_keeps_decimals() {
        let mut summary = LatencySummary::default();
        assert_eq!(summary.values(), SummaryValues::default());
        summary.record_many(150, 3);
        summary.record(12_999);
        let values = summary.values();
        assert_eq!((values.min, values.max, values.count, values.sum), (0, 12, 4, 13));
        assert_eq!(values.average.to_string(), "3.3622");
        assert_eq!(summary.average_whole_ms(), 3);
    }

    #[test]
    fn merging_cores_gives_what_one_core_would_have_counted() {
        let (mut one, mut other, mut both) = <(PercentileSummary, PercentileSummary, PercentileSummary)>::default();
        for us in 0..1_000 {
            let core = if us % 3 == 0 { &mut one } else { &mut other };
            core.record(us * 100);
            both.record(us * 100);
        }
        one.merge(&PercentileSummary::default());
        one.merge(&other);
        assert_eq!(one.summary(), both.summary());
        for quantile in [0.5, 0.95, 0.99, 0.999] {
            assert_eq!(one.quantile_ms(quantile), both.quantile_ms(quantile));
            assert!(one.quantile_ms(quantile).abs_diff((quantile * 100.0) as u64) <= 1, "{quantile}");
        }
    }

    #[test]
    fn times_beyond_a_minute_and_empty_summaries_have_percentiles_too() {
        let mut summary = PercentileSummary::default();
        assert_eq!(summary.quantile_ms(0.999), 0);
        summary.record(u32::MAX);
        assert_eq!(summary.quantile_ms(0.5) / 1_000, 60);
        assert_eq!(summary.summary().values().max, 4_294_967);
    }

    #[test]
    fn sizes_are_minus_one_before_the_first() {
        let mut sizes = SizeStats::default();
        assert_eq!(sizes.to_string(), "-1/-1/-1");
        sizes.record(48);
        sizes.record(319);
        let mut merged = SizeStats::default();
        merged.merge(&sizes);
        merged.merge(&SizeStats::default());
        assert_eq!(merged.to_string(), "319/48/319");
    }
}
