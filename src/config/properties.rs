//! Java's `Properties` syntax, on bytes in ISO-8859-1, with the line of each key kept.

use super::error::{ConfigError, Origin};

/// One key with its value, escapes resolved, not trimmed. `line` counts from 1 and is where the key stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Property {
    pub key: String,
    pub value: String,
    pub line: u32,
}

/// All keys of a file in its order. A key that stands twice is here twice: the last one counts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Properties {
    entries: Vec<Property>,
}

impl Properties {
    /// Reads a whole file; `origin` makes an `Origin` of a line. The only error is a `\u` without four hexadecimal
    /// digits behind it.
    pub fn parse(bytes: &[u8], origin: fn(u32) -> Origin) -> Result<Properties, ConfigError> {
        let mut entries = Vec::new();
        let mut lines = LogicalLines { rest: bytes, number: 0 };
        while let Some((line, text)) = lines.next() {
            let (key, value) = split(&text);
            let unescape = |raw: &[u8]| {
                unescape(raw).ok_or_else(|| ConfigError::BadValue {
                    key: latin1(key),
                    origin: origin(line),
                    value: latin1(raw),
                    expected: "four hexadecimal digits after \\u (a path with backslashes needs each one doubled)"
                        .to_owned(),
                })
            };
            entries.push(Property { key: unescape(key)?, value: unescape(value)?, line });
        }
        Ok(Properties { entries })
    }

    /// The keys that count: the last of each, in the order of the file, keys trimmed as ZooKeeper trims them.
    pub fn effective(&self) -> Vec<Property> {
        let mut last = std::collections::BTreeMap::new();
        for (i, entry) in self.entries.iter().enumerate() {
            last.insert(trim(&entry.key), i);
        }
        let mut order: Vec<_> = last.into_iter().collect();
        order.sort_by_key(|&(_, i)| i);
        order
            .iter()
            .filter_map(|&(key, i)| Some(Property { key: key.to_owned(), ..self.entries.get(i)?.clone() }))
            .collect()
    }

    /// The value that counts for `key`, not trimmed.
    pub fn get(&self, key: &str) -> Option<&Property> {
        self.entries.iter().rev().find(|entry| trim(&entry.key) == key)
    }

    /// Every key as it stands, also those that a later line overrides.
    pub fn iter(&self) -> impl Iterator<Item = &Property> {
        self.entries.iter()
    }

    /// Keys that stand more than once, with the line of the one that counts and the line of the one before it.
    pub fn repeated(&self) -> Vec<(Property, u32)> {
        let mut seen = std::collections::BTreeMap::new();
        let mut repeated = Vec::new();
        for entry in &self.entries {
            if let Some(line) = seen.insert(trim(&entry.key), entry.line) {
                repeated.push((entry.clone(), line));
            }
        }
        repeated
    }
}

/// `String.trim` of Java: everything up to and including the blank.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(|c| c <= ' ')
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0c)
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| char::from(b)).collect()
}

/// Lines of the file with comments and empty ones left out and continued ones joined.
struct LogicalLines<'a> {
    rest: &'a [u8],
    number: u32,
}

impl<'a> LogicalLines<'a> {
    /// The next line of the file without its end (`\n`, `\r` or `\r\n`).
    fn natural(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        self.number = self.number.saturating_add(1);
        let end = self.rest.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(self.rest.len());
        let (line, mut rest) = self.rest.split_at(end);
        rest = rest.strip_prefix(b"\r\n").or_else(|| rest.get(1..)).unwrap_or_default();
        self.rest = rest;
        Some(line)
    }

    /// A key with all lines of its value, and the number of the first one.
    fn next(&mut self) -> Option<(u32, Vec<u8>)> {
        let mut number = 0;
        let mut text = Vec::new();
        loop {
            let Some(line) = self.natural() else {
                return Some((number, text)).filter(|(_, text)| !text.is_empty());
            };
            let line = line.trim_blank_start();
            if text.is_empty() {
                number = self.number;
                if line.is_empty() || matches!(line.first(), Some(b'#' | b'!')) {
                    continue;
                }
            }
            match continued(line) {
                Some(head) => text.extend_from_slice(head),
                None => {
                    text.extend_from_slice(line);
                    return Some((number, text));
                }
            }
        }
    }
}

/// The line without its last backslash, if that one joins the next line to it: an odd number of them ends it.
fn continued(line: &[u8]) -> Option<&[u8]> {
    let backslashes = line.iter().rev().take_while(|&&b| b == b'\\').count();
    if backslashes % 2 == 1 { line.strip_suffix(b"\\") } else { None }
}

trait TrimBlank {
    fn trim_blank_start(&self) -> &Self;
}

impl TrimBlank for [u8] {
    fn trim_blank_start(&self) -> &[u8] {
        let start = self.iter().position(|&b| !is_blank(b)).unwrap_or(self.len());
        self.get(start..).unwrap_or_default()
    }
}

/// Key and value, still escaped: the key ends before the first `=`, `:` or blank that no backslash precedes.
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let mut escaped = false;
    let end = line.iter().position(|&b| {
        let ends = !escaped && (is_blank(b) || matches!(b, b'=' | b':'));
        escaped = b == b'\\' && !escaped;
        ends
    });
    let (key, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_blank_start();
    let value = rest.strip_prefix(b"=").or_else(|| rest.strip_prefix(b":")).unwrap_or(rest);
    (key, value.trim_blank_start())
}

/// Resolves `\t \n \r \f \uXXXX`; any other escaped byte stands for itself. `None` if a `\u` is malformed.
/// Half of a surrogate pair alone becomes U+FFFD.
fn unescape(raw: &[u8]) -> Option<String> {
    let mut units: Vec<u16> = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            units.push(u16::from(byte));
            continue;
        }
        let Some(escaped) = bytes.next() else { break };
        units.push(match escaped {
            b'u' => {
                let mut unit = 0_u16;
                for _ in 0..4 {
                    let digit = char::from(bytes.next()?).to_digit(16)?;
                    unit = unit << 4 | u16::try_from(digit).ok()?;
                }
                unit
            }
            b't' => u16::from(b'\t'),
            b'n' => u16::from(b'\n'),
            b'r' => u16::from(b'\r'),
            b'f' => 0x0c,
            other => u16::from(other),
        });
    }
    Some(char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &[u8]) -> Result<Properties, ConfigError> {
        Properties::parse(text, |line| Origin::File { line })
    }

    fn check(text: &[u8], expected: &[(&str, &str, u32)]) {
        let properties = parse(text).expect("no bad \\u in this test");
        let got: Vec<_> = properties.iter().map(|p| (p.key.as_str(), p.value.as_str(), p.line)).collect();
        assert_eq!(got, expected, "{:?}", String::from_utf8_lossy(text));
    }

    // S-068
    #[test]
    fn keys_end_at_the_first_equals_sign_colon_or_blank() {
        check(
            b"a=1\nb:2\nc 3\nd\t=\t4\ne = : 5\nf",
            &[("a", "1", 1), ("b", "2", 2), ("c", "3", 3), ("d", "4", 4), ("e", ": 5", 5), ("f", "", 6)],
        );
        check(b"=x\n:y\n", &[("", "x", 1), ("", "y", 2)]);
        check(b"a\\=b\\ c\\:d=1 \n", &[("a=b c:d", "1 ", 1)]);
        check(b"a=b=c\nserver.1=h:1:2;3", &[("a", "b=c", 1), ("server.1", "h:1:2;3", 2)]);
    }

    // S-068, S-069
    #[test]
    fn comments_are_whole_lines_only() {
        check(b"# a=1\n  ! b=2\n\n \t\n;c=3\ntickTime=2000 # x\n", &[(";c", "3", 5), ("tickTime", "2000 # x", 6)]);
        check(b"# never continued \\\na=1", &[("a", "1", 2)]);
    }

    // S-068
    #[test]
    fn an_odd_number_of_backslashes_continues_the_line() {
        check(b"a=1\\\n   2\\\n3\nb=4", &[("a", "123", 1), ("b", "4", 4)]);
        check(b"a=1\\\\\nb=2", &[("a", "1\\", 1), ("b", "2", 2)]);
        check(b"a=1\\\n\nb=2", &[("a", "1", 1), ("b", "2", 3)]);
        check(b"a=1\\\n# b=2", &[("a", "1# b=2", 1)]);
        check(b"a=1\\", &[("a", "1", 1)]);
        check(b"\\\n\\\na=1\n\\\n# b=2", &[("a", "1", 3)]);
    }

    // S-068
    #[test]
    fn every_kind_of_line_end_counts_once() {
        check(b"a=1\r\nb=2\rc=3\n\rd=4\\\r\n5", &[("a", "1", 1), ("b", "2", 2), ("c", "3", 3), ("d", "45", 5)]);
    }

    // S-068
    #[test]
    fn bytes_are_latin_1_and_escapes_are_utf_16() {
        check(b"a=\xe4\nb=\\u00e4\\t\\n\\r\\f\\q\\\\", &[("a", "ä", 1), ("b", "ä\t\n\r\u{c}q\\", 2)]);
        check(b"a=\\ud83d\\ude00\nb=\\ud83d!", &[("a", "😀", 1), ("b", "\u{fffd}!", 2)]);
        assert!(parse(b"dataDir=c:\\users").is_err());
        assert!(parse(b"a=\\u12").is_err());
    }

    // S-068
    #[test]
    fn the_last_line_with_a_key_counts() {
        let properties = parse(b"a=1\nb=2\na=3\n").unwrap();
        assert_eq!(properties.get("a").map(|p| (p.value.as_str(), p.line)), Some(("3", 3)));
        let order: Vec<_> = properties.effective().into_iter().map(|p| (p.key, p.value)).collect();
        assert_eq!(order, [("b".into(), "2".into()), ("a".into(), "3".into())]);
        let repeated = properties.repeated();
        assert_eq!((repeated.len(), repeated[0].0.line, repeated[0].1), (1, 3, 1));
    }

    /// As `Properties.store` writes it.
    fn escape(text: &str, key: bool) -> String {
        let mut out = String::new();
        for (i, unit) in text.encode_utf16().enumerate() {
            match char::from_u32(u32::from(unit)) {
                Some(' ') if key || i == 0 => out.push_str("\\ "),
                Some('\t') => out.push_str("\\t"),
                Some('\n') => out.push_str("\\n"),
                Some('\r') => out.push_str("\\r"),
                Some('\x0c') => out.push_str("\\f"),
                Some(c @ ('\\' | '=' | ':' | '#' | '!')) => out.extend(['\\', c]),
                Some(c @ ' '..='~') => out.push(c),
                Some(_) | None => out.push_str(&format!("\\u{unit:04x}")),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn what_java_writes_is_read_back(pairs in prop::collection::vec((".{1,20}", ".{0,40}"), 0..8)) {
            let text: String = pairs.iter().map(|(k, v)| format!("{}={}\n", escape(k, true), escape(v, false))).collect();
            let properties = parse(text.as_bytes()).unwrap();
            let got: Vec<_> = properties.iter().map(|p| (p.key.clone(), p.value.clone())).collect();
            prop_assert_eq!(got, pairs);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_backslashes_make_it_panic(text in "[\\\\u0a=: \n\r#]{0,60}") {
            let _ = parse(text.as_bytes());
        }
    }
}
