//! How ZooKeeper reads a flag or a number: strictly where its parser knows the key, leniently elsewhere.

/// `QuorumPeerConfig.parseBoolean`: `true` or `false` in any case, nothing else.
pub(super) fn strict_flag(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// `Integer.parseInt`: decimal with an optional sign.
pub(super) fn strict_number(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// `Integer.decode`: decimal, `0x…`, `#…` or octal with a leading 0, with an optional sign.
pub(super) fn lenient_number(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let hexadecimal = ["0x", "0X", "#"].iter().find_map(|prefix| digits.strip_prefix(prefix));
    let (digits, radix) = match (hexadecimal, digits.strip_prefix('0')) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) if !digits.is_empty() => (digits, 8),
        (None, _) => (digits, 10),
    };
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

/// Java's number as one that is never negative: what is below 0 becomes 0.
pub(super) fn unsigned(value: i64) -> u32 {
    u32::try_from(value.max(0)).unwrap_or(u32::MAX)
}

/// As `unsigned`, for a `long`.
pub(super) fn unsigned_long(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Java's number where 0 and below mean "off".
pub(super) fn positive(value: i64) -> Option<u32> {
    Some(unsigned(value)).filter(|&value| value > 0)
}

/// As `positive`, for a `long`.
pub(super) fn positive_long(value: i64) -> Option<u64> {
    Some(unsigned_long(value)).filter(|&value| value > 0)
}

/// A list such as `0-3,5`: sorted, each once. `None` if it cannot be read or names a core beyond 4095.
pub(super) fn core_list(text: &str) -> Option<Vec<u16>> {
    const CORES_MAX: u16 = 4096;
    let mut cores = std::collections::BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: u16 = first.trim().parse().ok()?;
        let last: u16 = last.trim().parse().ok()?;
        if first > last || last >= CORES_MAX {
            return None;
        }
        cores.extend(first..=last);
    }
    Some(cores.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_known_keys_are_true_or_false_in_any_case() {
        for (text, expected) in [("true", Some(true)), ("FALSE", Some(false)), ("yes", None), ("", None), ("1", None)] {
            assert_eq!(strict_flag(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_of_properties_may_be_hexadecimal_or_octal() {
        for (text, expected) in [
            ("10", Some(10)),
            ("+10", Some(10)),
            ("-1", Some(-1)),
            ("0", Some(0)),
            ("010", Some(8)),
            ("0x10", Some(16)),
            ("-0X10", Some(-16)),
            ("#ff", Some(255)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("08", None),
            ("0x", None),
            ("0x-1", None),
            ("--1", None),
            ("", None),
            ("-", None),
            ("1 # x", None),
        ] {
            assert_eq!(lenient_number(text), expected, "{text}");
        }
    }

    #[test]
    fn core_lists_are_ranges_and_numbers() {
        for (text, expected) in [
            ("0-3,5", Some(vec![0, 1, 2, 3, 5])),
            ("2, 1,2", Some(vec![1, 2])),
            ("7", Some(vec![7])),
            ("3-1", None),
            ("", None),
            ("0-4096", None),
            ("a", None),
        ] {
            assert_eq!(core_list(text), expected, "{text}");
        }
    }
}
