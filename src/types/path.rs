//! Path rules (`PathUtils.validatePath`) and the parts of a path.
//!
//! Paths travel as `&str`; a frame's path is validated where ZooKeeper validates it, which is not everywhere.

/// The one path that both `""` and `"/"` name.
pub const ROOT: &str = "/";
pub const ZOOKEEPER: &str = "/zookeeper";
pub const QUOTA: &str = "/zookeeper/quota";
pub const CONFIG: &str = "/zookeeper/config";
/// Last component of the node that holds a quota's limits.
pub const QUOTA_LIMITS: &str = "zookeeper_limits";
/// Last component of the node that holds a quota's usage.
pub const QUOTA_STATS: &str = "zookeeper_stats";

/// Nodes that nobody may delete.
pub fn is_system(path: &str) -> bool {
    matches!(path, ROOT | ZOOKEEPER | QUOTA | CONFIG)
}

/// Full validation. Errors: the first rule broken, in words for the log.
pub fn validate(path: &str) -> Result<(), &'static str> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err(if path.is_empty() { "path is empty" } else { "path does not start with /" });
    };
    if rest.is_empty() {
        return Ok(());
    }
    if rest.ends_with('/') {
        return Err("path ends with /");
    }
    // One pass over the bytes: writes come by here several hundred thousand times a second.
    let mut is_plain = true;
    let mut start = 0;
    for (at, byte) in rest.bytes().chain([b'/']).enumerate() {
        if byte == b'/' {
            match &rest.as_bytes()[start..at] {
                b"" => return Err("empty component"),
                b"." | b".." => return Err("relative component"),
                _ => start = at + 1,
            }
        }
        is_plain &= matches!(byte, 0x20..0x7f);
    }
    if is_plain || rest.chars().all(is_allowed) { Ok(()) } else { Err("forbidden character") }
}

/// Java looks at UTF-16 units, so everything above U+FFFF (a surrogate pair) is forbidden as well.
fn is_allowed(c: char) -> bool {
    !matches!(c as u32, 0..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..)
}

/// What delete and create (before its suffix) ask of a path: a slash somewhere and no NUL.
pub fn is_weakly_valid(path: &str) -> bool {
    path.contains('/') && !path.contains('\0')
}

/// Parent and last component. The parent of `/a` is `/`. `None` for the root and for text without a slash.
pub fn split(path: &str) -> Option<(&str, &str)> {
    let slash = path.rfind('/')?;
    let name = &path[slash + 1..];
    match slash {
        0 if name.is_empty() => None,
        0 => Some((ROOT, name)),
        _ => Some((&path[..slash], name)),
    }
}

/// The path itself, then each ancestor up to `/`.
pub fn self_and_ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |p| split(p).map(|(parent, _)| parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validation_follows_path_utils() {
        for good in ["/", "/a", "/a/b", "/.a", "/a.", "/..a", "/...", "/a\u{a0}", "/\u{f900}", "/\u{ffef}", "/a b~"] {
            assert_eq!(validate(good), Ok(()), "{good:?}");
        }
        for bad in [
            "",
            "a",
            "/a/",
            "//",
            "/a//b",
            "/.",
            "/a/..",
            "/a/./b",
            "/\u{1}",
            "/\u{7f}",
            "/\u{9f}",
            "/\u{e000}",
            "/\u{f8ff}",
            "/\u{fff0}",
            "/\u{fffd}",
            "/\u{10000}",
            "/\0",
        ] {
            assert!(validate(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn splitting_names_the_parent() {
        assert_eq!(split("/"), None);
        assert_eq!(split("/a"), Some(("/", "a")));
        assert_eq!(split("/a/b"), Some(("/a", "b")));
        assert_eq!(split("/a/"), Some(("/a", "")));
        assert_eq!(split("a"), None);
        assert_eq!(self_and_ancestors("/a/b").collect::<Vec<_>>(), ["/a/b", "/a", "/"]);
    }
}
