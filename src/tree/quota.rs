//! Quotas: the texts of their two znodes, and whether a change fits (`StatsTrack`, `ZooKeeperServer.checkQuota`).
//!
//! For a quota on `/a` the limits are in `/zookeeper/quota/a/zookeeper_limits` and the usage in
//! `/zookeeper/quota/a/zookeeper_stats`. Text: `count=<n>,bytes=<n>`, and behind a further `=`, which made older parsers
//! stop, `;byteHardLimit=<n>;countHardLimit=<n>`. -1 is no limit.

use std::fmt;

use crate::types::error_code::ErrorCode;
use crate::types::path;

/// The text is not what a quota's znode should hold. Java fails the request that comes across it while it is prepared,
/// and stops when that happens while it applies one; the callers here answer `MarshallingError` and take zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MalformedQuota;

/// What a quota allows: znodes in the subtree, its root included, and bytes of their data. -1 is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuotaLimits {
    /// Soft: exceeding it is worth a line in the log.
    pub count: i64,
    pub bytes: i64,
    /// Hard: refused, if `enforceQuota` says so.
    pub count_hard: i64,
    pub bytes_hard: i64,
}

/// What a subtree holds, or by how much that changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QuotaUsage {
    pub count: i64,
    pub bytes: i64,
}

impl QuotaLimits {
    pub const NONE: QuotaLimits = QuotaLimits { count: -1, bytes: -1, count_hard: -1, bytes_hard: -1 };

    pub fn parse(text: &[u8]) -> Result<QuotaLimits, MalformedQuota> {
        let mut limits = QuotaLimits::NONE;
        each_pair(text, |key, value| match key {
            "count" => limits.count = value,
            "bytes" => limits.bytes = value,
            "countHardLimit" => limits.count_hard = value,
            "byteHardLimit" => limits.bytes_hard = value,
            _ => {}
        })?;
        Ok(limits)
    }
}

impl QuotaUsage {
    /// A missing key reads as -1, as Java counts on from it.
    pub fn parse(text: &[u8]) -> Result<QuotaUsage, MalformedQuota> {
        let QuotaLimits { count, bytes, .. } = QuotaLimits::parse(text)?;
        Ok(QuotaUsage { count, bytes })
    }

    /// The usage after a change.
    pub fn plus(self, change: QuotaUsage) -> QuotaUsage {
        QuotaUsage { count: self.count.saturating_add(change.count), bytes: self.bytes.saturating_add(change.bytes) }
    }
}

/// Splits at runs of commas and semicolons, each part at `=`: key, number, and anything behind another `=` is ignored.
/// An empty number is -1; the last of equal keys counts.
fn each_pair(text: &[u8], mut take: impl FnMut(&str, i64)) -> Result<(), MalformedQuota> {
    let text = String::from_utf8_lossy(text);
    // Java drops empty parts at the end, and stumbles over one at the start.
    let text = text.trim_end_matches([',', ';']);
    if text.is_empty() {
        return Ok(());
    }
    if text.starts_with([',', ';']) {
        return Err(MalformedQuota);
    }
    for part in text.split([',', ';']).filter(|part| !part.is_empty()) {
        let (key, rest) = part.trim_end_matches('=').split_once('=').ok_or(MalformedQuota)?;
        match rest.split('=').next().unwrap_or_default() {
            "" => take(key, -1),
            number => take(key, number.parse().map_err(|_| MalformedQuota)?),
        }
    }
    Ok(())
}

impl fmt::Display for QuotaLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "count={},bytes={}", self.count, self.bytes)?;
        if self.count_hard == -1 && self.bytes_hard == -1 {
            return Ok(());
        }
        f.write_str("=")?;
        for (key, limit) in [("byteHardLimit", self.bytes_hard), ("countHardLimit", self.count_hard)] {
            if limit != -1 {
                write!(f, ";{key}={limit}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for QuotaUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "count={},bytes={}", self.count, self.bytes)
    }
}

/// How a change stands to a quota.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Fits,
    /// Above a soft limit where there is no hard one: log it, at a bounded rate.
    AboveSoftLimit,
    /// Refuse it, if quotas are enforced.
    AboveHardLimit,
}

/// Count first, then bytes; each only if it changes. Where there is a hard limit it alone decides. A znode that shrinks
/// while the subtree stays above its limit is refused too, as in Java.
pub fn judge(limits: &QuotaLimits, usage: &QuotaUsage, change: QuotaUsage) -> Verdict {
    let after = usage.plus(change);
    let count = judge_one(change.count, after.count, limits.count, limits.count_hard);
    let bytes = judge_one(change.bytes, after.bytes, limits.bytes, limits.bytes_hard);
    match (count, bytes) {
        (Verdict::AboveHardLimit, _) | (_, Verdict::AboveHardLimit) => Verdict::AboveHardLimit,
        (Verdict::AboveSoftLimit, _) | (_, Verdict::AboveSoftLimit) => Verdict::AboveSoftLimit,
        (Verdict::Fits, Verdict::Fits) => Verdict::Fits,
    }
}

fn judge_one(change: i64, after: i64, soft: i64, hard: i64) -> Verdict {
    if change == 0 {
        Verdict::Fits
    } else if hard > -1 {
        if after > hard { Verdict::AboveHardLimit } else { Verdict::Fits }
    } else if soft > -1 && after > soft {
        Verdict::AboveSoftLimit
    } else {
        Verdict::Fits
    }
}

/// Whether another znode with so many bytes of data is allowed.
pub fn check_create(limits: &QuotaLimits, usage: &QuotaUsage, bytes: i64) -> Result<(), ErrorCode> {
    enforce(judge(limits, usage, QuotaUsage { count: 1, bytes }))
}

/// Whether data may grow by so many bytes (shrink, if negative).
pub fn check_set_data(limits: &QuotaLimits, usage: &QuotaUsage, grown: i64) -> Result<(), ErrorCode> {
    enforce(judge(limits, usage, QuotaUsage { count: 0, bytes: grown }))
}

fn enforce(verdict: Verdict) -> Result<(), ErrorCode> {
    match verdict {
        Verdict::Fits | Verdict::AboveSoftLimit => Ok(()),
        Verdict::AboveHardLimit => Err(ErrorCode::QuotaExceeded),
    }
}

/// The root of the quota whose limits and usage lie below `parent`: `/zookeeper/quota/a` speaks of `/a`. `None` for any
/// other znode, and for `/zookeeper/quota` itself: a quota on the root has no effect.
pub fn root_of(parent: &str) -> Option<&str> {
    parent.strip_prefix(path::QUOTA).filter(|root| root.len() > 1 && root.starts_with('/'))
}

/// The znode with the limits of the quota on `root`.
pub fn limits_path(root: &str) -> String {
    format!("{}{root}/{}", path::QUOTA, path::QUOTA_LIMITS)
}

/// The znode with the usage of the quota on `root`.
pub fn stats_path(root: &str) -> String {
    format!("{}{root}/{}", path::QUOTA, path::QUOTA_STATS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn c_172_texts_are_parsed_as_stats_track_does() {
        let limits = |count, bytes, count_hard, bytes_hard| Ok(QuotaLimits { count, bytes, count_hard, bytes_hard });
        for (text, expected) in [
            ("count=10,bytes=100", limits(10, 100, -1, -1)),
            ("count=10,bytes=100=;byteHardLimit=200;countHardLimit=20", limits(10, 100, 20, 200)),
            ("", limits(-1, -1, -1, -1)),
            (",", limits(-1, -1, -1, -1)),
            ("count=1", limits(1, -1, -1, -1)),
            ("count=1,", limits(1, -1, -1, -1)),
            ("count=1;;,bytes=2", limits(1, 2, -1, -1)),
            ("count=+3,bytes=-0", limits(3, 0, -1, -1)),
            ("count=1=2", limits(1, -1, -1, -1)),
            ("count=1,count=2", limits(2, -1, -1, -1)),
            ("bytes==5", limits(-1, -1, -1, -1)),
            ("=5", limits(-1, -1, -1, -1)),
            ("zz=5,count=1", limits(1, -1, -1, -1)),
            ("byteHardLimit=7", limits(-1, -1, -1, 7)),
        ] {
            assert_eq!(QuotaLimits::parse(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn c_173_garbage_is_an_error_and_no_panic() {
        for text in [
            "garbage",
            "count",
            "=",
            "bytes=",
            ",count=1",
            "count= 3",
            "count=abc",
            "zz=abc",
            "count=9223372036854775808",
            "\0",
        ] {
            assert_eq!(QuotaLimits::parse(text.as_bytes()), Err(MalformedQuota), "{text:?}");
        }
        assert_eq!(QuotaUsage::parse(b"\xff\xfe=\xff"), Err(MalformedQuota));
        assert_eq!(
            QuotaUsage::parse(b"count=9223372036854775807").unwrap().plus(QuotaUsage { count: 1, bytes: 1 }).bytes,
            0
        );
    }

    #[test]
    fn texts_are_written_as_stats_track_does() {
        let mut limits = QuotaLimits { count: 10, bytes: 100, ..QuotaLimits::NONE };
        assert_eq!(limits.to_string(), "count=10,bytes=100");
        limits.bytes_hard = 7;
        assert_eq!(limits.to_string(), "count=10,bytes=100=;byteHardLimit=7");
        limits.count_hard = 20;
        assert_eq!(limits.to_string(), "count=10,bytes=100=;byteHardLimit=7;countHardLimit=20");
        assert_eq!(QuotaLimits::parse(limits.to_string().as_bytes()), Ok(limits));
        assert_eq!(QuotaUsage { count: 3, bytes: 0 }.to_string(), "count=3,bytes=0");
    }

    #[test]
    fn c_168_soft_limits_never_refuse() {
        let limits = QuotaLimits { count: 1, bytes: 1, ..QuotaLimits::NONE };
        let usage = QuotaUsage { count: 5, bytes: 5 };
        assert_eq!(check_create(&limits, &usage, 100), Ok(()));
        assert_eq!(check_set_data(&limits, &usage, 100), Ok(()));
        assert_eq!(judge(&limits, &usage, QuotaUsage { count: 1, bytes: 0 }), Verdict::AboveSoftLimit);
        let both = QuotaLimits { count_hard: 100, ..limits };
        assert_eq!(judge(&both, &usage, QuotaUsage { count: 1, bytes: 0 }), Verdict::Fits, "the hard one decides");
    }

    #[test]
    fn c_169_hard_limits_refuse_what_goes_beyond_them() {
        let limits = QuotaLimits { count_hard: 5, bytes_hard: 100, ..QuotaLimits::NONE };
        let check = |count, bytes, length, expected| {
            assert_eq!(
                check_create(&limits, &QuotaUsage { count, bytes }, length),
                expected,
                "{count} {bytes} {length}"
            );
        };
        check(4, 0, 0, Ok(()));
        check(5, 0, 0, Err(ErrorCode::QuotaExceeded));
        check(1, 90, 10, Ok(()));
        check(1, 90, 11, Err(ErrorCode::QuotaExceeded));
        check(1, 200, 0, Ok(()));
        check(-1, i64::MAX, 1, Err(ErrorCode::QuotaExceeded));
        let usage = QuotaUsage { count: 9, bytes: 90 };
        assert_eq!(check_set_data(&limits, &usage, 10), Ok(()));
        assert_eq!(check_set_data(&limits, &usage, 11), Err(ErrorCode::QuotaExceeded));
        let zero = QuotaLimits { count_hard: 0, ..QuotaLimits::NONE };
        assert_eq!(check_create(&zero, &QuotaUsage::default(), 0), Err(ErrorCode::QuotaExceeded));
    }

    #[test]
    fn c_170_the_same_length_passes_above_the_limit_and_shrinking_does_not() {
        let limits = QuotaLimits { bytes_hard: 100, ..QuotaLimits::NONE };
        let usage = QuotaUsage { count: 1, bytes: 150 };
        assert_eq!(check_set_data(&limits, &usage, 0), Ok(()));
        assert_eq!(check_set_data(&limits, &usage, -10), Err(ErrorCode::QuotaExceeded));
        assert_eq!(check_set_data(&limits, &usage, -50), Ok(()));
    }

    #[test]
    fn quota_znodes_speak_of_what_their_path_says() {
        assert_eq!(root_of("/zookeeper/quota/a/b"), Some("/a/b"));
        for other in ["/zookeeper/quota", "/zookeeper/quota/", "/zookeeper/quotax/a", "/zookeeper", "/a", ""] {
            assert_eq!(root_of(other), None, "{other:?}");
        }
        assert_eq!(limits_path("/a"), "/zookeeper/quota/a/zookeeper_limits");
        assert_eq!(stats_path("/a/b"), "/zookeeper/quota/a/b/zookeeper_stats");
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = QuotaLimits::parse(&text);
        }

        #[test]
        fn what_is_written_can_be_read(count: i64, bytes: i64, count_hard: i64, bytes_hard: i64) {
            let limits = QuotaLimits { count, bytes, count_hard, bytes_hard };
            prop_assert_eq!(QuotaLimits::parse(limits.to_string().as_bytes()), Ok(limits));
        }
    }
}
