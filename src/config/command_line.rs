//! The words behind `oxkeeper server`, and Java's system properties: from those words and from the flag variables.

use super::error::{ConfigError, Origin, Warning};
use super::value::unsigned;
use std::collections::BTreeMap;

/// What to start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    /// No words: `Config::without_file`.
    WithoutFile,
    /// One word, the path of a zoo.cfg.
    File(String),
    /// Two to four words: always standalone.
    Words(PortAndDirectory),
}

/// `<clientPort> <dataDir> [tickTime] [maxClientCnxns]` (`ServerConfig.parse`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortAndDirectory {
    pub client_port: u16,
    pub data_dir: String,
    pub tick_time_ms: Option<u32>,
    pub max_client_cnxns: Option<u32>,
}

/// The words, sorted out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arguments {
    pub start: Start,
    /// The `-D…` words in their order, for `SystemProperties::add_word`.
    pub properties: Vec<String>,
}

impl Arguments {
    /// `words` are those behind `server`. Those that begin with `-X` are meant for a JVM and ignored.
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Arguments, ConfigError> {
        let mut properties = Vec::new();
        let mut plain = Vec::new();
        for word in words {
            let word = word.as_ref();
            let is_option = word.strip_prefix('-').is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()));
            if word.starts_with("-D") {
                properties.push(word.to_owned());
            } else if !is_option {
                plain.push(word);
            } else if !word.starts_with("-X") {
                let problem = format!("{word} is not known here; properties are written -Dkey=value");
                return Err(ConfigError::Arguments { problem });
            }
        }
        let start = match plain.as_slice() {
            [] => Start::WithoutFile,
            [file] => Start::File((*file).to_owned()),
            [port, dir, rest @ ..] if rest.len() <= 2 => Start::Words(PortAndDirectory {
                client_port: number("clientPort", port)?,
                data_dir: (*dir).to_owned(),
                tick_time_ms: rest.first().map(|word| tick_time_ms(word)).transpose()?,
                max_client_cnxns: rest.get(1).map(|word| number("maxClientCnxns", word).map(unsigned)).transpose()?,
            }),
            _ => {
                let problem = format!(
                    "{} words given: expected nothing, the path of a zoo.cfg, or <clientPort> <dataDir> [tickTime] \
                     [maxClientCnxns]",
                    plain.len()
                );
                return Err(ConfigError::Arguments { problem });
            }
        };
        Ok(Arguments { start, properties })
    }
}

fn number<T: TryFrom<i64>>(key: &str, word: &str) -> Result<T, ConfigError> {
    super::value::strict_number(word).and_then(|n| T::try_from(n).ok()).ok_or_else(|| bad(key, word))
}

fn bad(key: &str, word: &str) -> ConfigError {
    ConfigError::BadValue {
        key: key.to_owned(),
        origin: Origin::CommandLine,
        value: word.to_owned(),
        expected: "a whole number in the form <clientPort> <dataDir> [tickTime] [maxClientCnxns]".to_owned(),
    }
}

fn tick_time_ms(word: &str) -> Result<u32, ConfigError> {
    match number("tickTime", word)? {
        0 => Err(bad("tickTime", word)),
        ms => Ok(ms),
    }
}

/// Java's system properties, as the command line and the flag variables set them.
#[derive(Clone, Debug, Default)]
pub struct SystemProperties {
    values: BTreeMap<String, (String, Origin)>,
    warnings: Vec<Warning>,
}

impl SystemProperties {
    /// All of them, in the order in which zkServer.sh gives them to Java, so that later ones win: the variables
    /// `SERVER_JVMFLAGS` and `JVMFLAGS`, then `words` of our own command line.
    pub fn new(server_jvmflags: Option<&str>, jvmflags: Option<&str>, words: &[String]) -> SystemProperties {
        let mut properties = SystemProperties::default();
        properties.add_flags("SERVER_JVMFLAGS", server_jvmflags.unwrap_or_default());
        properties.add_flags("JVMFLAGS", jvmflags.unwrap_or_default());
        for word in words {
            properties.add_word(word, Origin::CommandLine);
        }
        properties
    }

    /// Takes every `-Dkey=value` out of a flag variable. As in zkServer.sh, which leaves the splitting to the
    /// shell, blanks separate words and quotes are nothing special; `-X…` and other words are ignored.
    fn add_flags(&mut self, variable: &'static str, flags: &str) {
        let origin = Origin::Environment(variable);
        for word in flags.split_ascii_whitespace() {
            self.add_word(word, origin);
            if let Some(word) = word.strip_prefix("-D").filter(|word| word.contains(['"', '\''])) {
                let key = word.split('=').next().unwrap_or_default();
                let text = "the quotes are part of the value, as zkServer.sh passes them on; leave them out";
                self.warnings.push(Warning::new(key, origin, text));
            }
        }
    }

    /// `-Dkey=value`; without `=value` the value is empty. Other words are ignored.
    pub fn add_word(&mut self, word: &str, origin: Origin) {
        if let Some(definition) = word.strip_prefix("-D") {
            let (key, value) = definition.split_once('=').unwrap_or((definition, ""));
            self.values.insert(key.to_owned(), (value.to_owned(), origin));
        }
    }

    /// Sets a property that nobody has set yet.
    pub(super) fn add_default(&mut self, key: &str, value: &str) {
        self.values.entry(key.to_owned()).or_insert_with(|| (value.to_owned(), Origin::Nowhere));
    }

    pub fn get(&self, key: &str) -> Option<(&str, Origin)> {
        self.values.get(key).map(|(value, origin)| (value.as_str(), *origin))
    }

    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, Origin)> {
        self.values.iter().map(|(key, (value, origin))| (key.as_str(), value.as_str(), *origin))
    }

    pub(super) fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&str], expected: Option<Start>) {
        assert_eq!(Arguments::parse(words).ok().map(|arguments| arguments.start), expected, "{words:?}");
    }

    // S-100
    #[test]
    fn the_words_are_nothing_a_file_or_port_and_directory() {
        check(&[], Some(Start::WithoutFile));
        check(&["-Dzookeeper.snapCount=5", "conf/zoo.cfg", "-Xmx1g"], Some(Start::File("conf/zoo.cfg".into())));
        let words = |tick_time_ms, max_client_cnxns| {
            let words = PortAndDirectory { client_port: 2181, data_dir: "/d".into(), tick_time_ms, max_client_cnxns };
            Some(Start::Words(words))
        };
        check(&["2181", "/d"], words(None, None));
        check(&["2181", "/d", "500"], words(Some(500), None));
        check(&["2181", "/d", "500", "0"], words(Some(500), Some(0)));
        check(&["2181", "/d", "500", "-1"], words(Some(500), Some(0)));
        for bad in [
            &["2181", "/d", "500", "0", "1"][..],
            &["70000", "/d"],
            &["port", "/d"],
            &["2181", "/d", "0"],
            &["-1", "/d"],
            &["2181", "/d", "500", "x"],
            &["--port", "2181"],
        ] {
            check(bad, None);
            assert_eq!(Arguments::parse(bad).map_err(|e| e.exit_code()), Err(2));
        }
    }

    // S-074
    #[test]
    fn later_definitions_win_and_flags_for_the_jvm_are_ignored() {
        let words = ["-Dzookeeper.c=line".to_owned(), "-Dempty".to_owned()];
        let properties = SystemProperties::new(
            Some("-Xmx1000m  -Dzookeeper.a=server -Dzookeeper.b=server\n-Dzookeeper.c=server"),
            Some("-XX:+UseG1GC -Dzookeeper.b=both -Dk=v=w agentlib:x"),
            &words,
        );
        let got: Vec<_> = properties.iter().collect();
        assert_eq!(
            got,
            [
                ("empty", "", Origin::CommandLine),
                ("k", "v=w", Origin::Environment("JVMFLAGS")),
                ("zookeeper.a", "server", Origin::Environment("SERVER_JVMFLAGS")),
                ("zookeeper.b", "both", Origin::Environment("JVMFLAGS")),
                ("zookeeper.c", "line", Origin::CommandLine),
            ]
        );
        assert!(properties.warnings().is_empty());
    }

    // S-074
    #[test]
    fn quotes_in_a_flag_variable_are_kept_and_mentioned() {
        let properties = SystemProperties::new(None, Some("-Da=\"x"), &[]);
        assert_eq!(properties.get("a"), Some(("\"x", Origin::Environment("JVMFLAGS"))));
        assert_eq!(properties.warnings().len(), 1);
    }
}
