//! How snapshots are packed.

/// `snapshot.compression.method`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compression {
    #[default]
    None,
    Gzip,
    Snappy,
}

impl Compression {
    /// By the setting's value, in any case.
    pub fn parse(method: &str) -> Option<Compression> {
        Some(match method.to_ascii_lowercase().as_str() {
            "" => Compression::None,
            "gz" => Compression::Gzip,
            "snappy" => Compression::Snappy,
            _ => return None,
        })
    }

    /// By the last part of a file name.
    pub fn of_file_name(name: &str) -> Compression {
        match name.rsplit('.').next() {
            Some("gz") => Compression::Gzip,
            Some("snappy") => Compression::Snappy,
            _ => Compression::None,
        }
    }

    /// What follows the zxid in a file name.
    pub fn suffix(self) -> &'static str {
        match self {
            Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Snappy => ".snappy",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_setting_chooses_is_known_again_by_the_name_of_the_file() {
        for method in ["", "gz", "GZ", "snappy", "Snappy"] {
            let compression = Compression::parse(method).expect("a method");
            assert_eq!(Compression::of_file_name(&format!("snapshot.1f{}", compression.suffix())), compression);
        }
        assert_eq!(Compression::parse("zstd"), None);
    }
}
