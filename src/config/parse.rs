//! From text to `Config`: which source of a setting wins, what each value becomes, and whether they fit together.

use super::command_line::{PortAndDirectory, SystemProperties};
use super::draft::Draft;
use super::ensemble::is_membership_key;
use super::error::{ConfigError, Origin, Warning};
use super::properties::{Properties, Property, trim};
use super::server::Config;
use super::settings::{self, DOCUMENTED_WRONGLY, Outcome, Outside, Setting, Shape, Source, Verdict};
use super::value;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A zoo.cfg, split into keys and values. What it names, the caller reads next.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConfigFile {
    properties: Properties,
}

impl ConfigFile {
    pub fn parse(bytes: &[u8]) -> Result<ConfigFile, ConfigError> {
        Ok(ConfigFile { properties: Properties::parse(bytes, |line| Origin::File { line })? })
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.properties.get(key).map(|entry| trim(&entry.value))
    }

    /// The path to read into `OtherFiles::dynamic`.
    pub fn dynamic_config_file(&self) -> Option<&str> {
        self.value("dynamicConfigFile")
    }

    /// Where `myid` lies, to be read into `OtherFiles::myid`.
    pub fn data_dir(&self) -> Option<&str> {
        self.value("dataDir")
    }
}

/// Contents of the files that belong to a zoo.cfg; `None` for one that does not exist.
#[derive(Clone, Copy, Debug, Default)]
pub struct OtherFiles<'a> {
    /// `<dataDir>/myid`.
    pub myid: Option<&'a [u8]>,
    /// What `dynamicConfigFile` names.
    pub dynamic: Option<&'a [u8]>,
    /// `<zoo.cfg>.dynamic.next`.
    pub next_dynamic: Option<&'a [u8]>,
}

/// A config and what an operator should know about it; or everything that is wrong with it.
pub type Parsed = Result<(Config, Vec<Warning>), Vec<ConfigError>>;

impl Config {
    /// A server set up by a zoo.cfg (`QuorumPeerConfig.parse`).
    pub fn from_file(file: &ConfigFile, others: &OtherFiles<'_>, properties: &SystemProperties) -> Parsed {
        let mut reader = Reader::new(properties);
        let entries = reader.read_file(file);
        reader.read_properties(properties);
        reader.read_membership(file, &entries, others);
        reader.read_myid(others.myid);
        reader.finish()
    }

    /// A server set up by two to four words: Java's defaults, and no limit of connections (`ServerConfig.parse`).
    pub fn from_words(words: &PortAndDirectory, properties: &SystemProperties) -> Parsed {
        let mut reader = Reader::new(properties);
        reader.read_properties(properties);
        let draft = &mut reader.draft;
        draft.client_port = Some(words.client_port);
        draft.data_dir = Some(PathBuf::from(&words.data_dir));
        draft.config.tick_time_ms = words.tick_time_ms.unwrap_or(draft.config.tick_time_ms);
        draft.config.max_client_cnxns = words.max_client_cnxns.unwrap_or(0);
        reader.finish()
    }

    /// A server that nobody set up: port 2181, data in `./oxkeeper-data`, ticks of two seconds, TTL nodes, old files
    /// purged every hour down to three snapshots, all four-letter words. System properties still count.
    pub fn without_file(properties: &SystemProperties) -> Parsed {
        let mut properties = properties.clone();
        properties.add_default("zookeeper.extendedTypesEnabled", "true");
        properties.add_default("zookeeper.4lw.commands.whitelist", "*");
        let mut reader = Reader::new(&properties);
        reader.read_properties(&properties);
        let draft = &mut reader.draft;
        draft.client_port = Some(2181);
        draft.data_dir = Some(PathBuf::from("./oxkeeper-data"));
        draft.config.tick_time_ms = 2000;
        draft.config.autopurge_purge_interval_hours = Some(1);
        reader.finish()
    }
}

/// Reads all sources into a draft and collects what is wrong or remarkable on the way.
pub(super) struct Reader {
    pub draft: Draft,
    /// Names that zoo.cfg has set: they beat system properties.
    in_file: BTreeSet<String>,
    /// Keys that no row knows.
    pub unknown: Vec<(String, Origin)>,
    pub warnings: Vec<Warning>,
    pub errors: Vec<ConfigError>,
}

impl Reader {
    fn new(properties: &SystemProperties) -> Reader {
        Reader {
            draft: Draft::new(),
            in_file: BTreeSet::new(),
            unknown: Vec::new(),
            warnings: properties.warnings().to_vec(),
            errors: Vec::new(),
        }
    }

    pub fn warn(&mut self, key: &str, origin: Origin, text: impl Into<String>) {
        self.warnings.push(Warning::new(key, origin, text));
    }

    pub fn conflict(&mut self, key: &str, origin: Origin, why: impl Into<String>) {
        self.errors.push(ConfigError::Conflict { key: key.to_owned(), origin, why: why.into() });
    }

    fn unknown_key(&mut self, name: &str, origin: Origin) {
        let text = unknown(name, matches!(origin, Origin::File { .. }));
        self.warn(name, origin, text);
        self.unknown.push((name.to_owned(), origin));
    }

    /// Where zoo.cfg sets `key`.
    pub fn origin_in(entries: &[Property], key: &str) -> Origin {
        entries.iter().find(|entry| entry.key == key).map_or(Origin::Nowhere, |entry| Origin::File { line: entry.line })
    }

    /// Every key of zoo.cfg. Returns the entries that count.
    fn read_file(&mut self, file: &ConfigFile) -> Vec<Property> {
        for (entry, earlier) in file.properties.repeated() {
            let text = format!("set again; line {earlier} is without effect");
            self.warn(trim(&entry.key), Origin::File { line: entry.line }, text);
        }
        let entries = file.properties.effective();
        let has_dynamic_file = file.dynamic_config_file().is_some();
        for entry in &entries {
            let origin = Origin::File { line: entry.line };
            if is_membership_key(&entry.key) {
                if has_dynamic_file && entry.key != "version" {
                    self.conflict(&entry.key, origin, "belongs into the file that dynamicConfigFile names");
                }
                continue;
            }
            match settings::find(&entry.key) {
                Some(row) if row.source.is_in_file() => {
                    self.in_file.insert(entry.key.clone());
                    self.apply(row, &entry.key, trim(&entry.value), origin);
                }
                Some(row) => self.warn(&entry.key, origin, no_effect_in_file(row, &entry.key)),
                None => self.unknown_key(&entry.key, origin),
            }
        }
        entries
    }

    /// Every system property that zoo.cfg has not set.
    fn read_properties(&mut self, properties: &SystemProperties) {
        for (name, text, origin) in properties.iter() {
            let key = name.strip_prefix("zookeeper.").unwrap_or(name);
            let has_prefix = key != name;
            if self.in_file.contains(key) {
                continue;
            }
            let Some(row) = settings::find(key) else {
                if has_prefix || name.starts_with("oxkeeper.") {
                    self.unknown_key(name, origin);
                }
                continue;
            };
            if has_prefix && row.source.is_prefixed_property() {
                self.apply(row, key, trim(text), origin);
            } else if !has_prefix && row.source.is_bare_property() {
                let hidden =
                    row.source == Source::PassThroughOrBare && properties.get(&format!("zookeeper.{key}")).is_some();
                if !hidden {
                    self.apply(row, key, trim(text), origin);
                }
            } else if has_prefix
                || matches!(row.verdict, Verdict::Supported | Verdict::Refused(_)) && !row.name.ends_with('*')
            {
                self.warn(name, origin, format!("has no effect; {}", where_to_write(row, key)));
            }
        }
    }

    /// Stores one value, or does with it what the verdict says.
    fn apply(&mut self, row: &Setting, key: &str, text: &str, origin: Origin) {
        let differs = match &row.shape {
            Shape::Flag { default, store } => self.flag(row, key, text, origin).map(|value| {
                store(&mut self.draft, value);
                value != *default
            }),
            Shape::Number { default, store, .. } => self.number(row, key, text, origin).map(|value| {
                store(&mut self.draft, value);
                value != *default
            }),
            Shape::Real { default, store } => self.real(row, key, text, origin).map(|value| {
                store(&mut self.draft, value);
                value != *default
            }),
            Shape::Text { default, store } => {
                let outcome = store(&mut self.draft, text);
                self.outcome(outcome, key, text, origin);
                Some(text != *default)
            }
        };
        match row.verdict {
            Verdict::Idle(why) if differs == Some(true) => {
                self.warn(key, origin, format!("has no effect: {why}"));
            }
            Verdict::Refused(remedy) if differs == Some(true) => {
                self.errors.push(ConfigError::Refused { key: key.to_owned(), origin, remedy: remedy.to_owned() });
            }
            Verdict::Supported | Verdict::Silent | Verdict::Idle(_) | Verdict::Refused(_) => {}
        }
    }

    fn outcome(&mut self, outcome: Outcome, key: &str, text: &str, origin: Origin) {
        match outcome {
            Outcome::Taken => {}
            Outcome::Warn(text) => self.warn(key, origin, text),
            Outcome::Bad(expected) => self.bad_value(key, text, origin, expected),
            Outcome::Refused(remedy) => {
                self.errors.push(ConfigError::Refused { key: format!("{key}={text}"), origin, remedy });
            }
        }
    }

    pub fn bad_value(&mut self, key: &str, text: &str, origin: Origin, expected: String) {
        self.errors.push(ConfigError::BadValue { key: key.to_owned(), origin, value: text.to_owned(), expected });
    }

    /// `true` or `false`. Elsewhere than in zoo.cfg's own keys everything but `true` is false.
    fn flag(&mut self, row: &Setting, key: &str, text: &str, origin: Origin) -> Option<bool> {
        let value = value::strict_flag(text);
        if value.is_none() && row.source.is_strict() {
            self.bad_value(key, text, origin, "true or false".to_owned());
            return None;
        }
        if value.is_none() {
            self.warn(key, origin, format!("\"{text}\" is neither true nor false and counts as false"));
        }
        Some(value.unwrap_or(false))
    }

    fn number(&mut self, row: &Setting, key: &str, text: &str, origin: Origin) -> Option<i64> {
        let Shape::Number { default, unit, range, .. } = &row.shape else { return None };
        let read = if row.source.is_strict() { value::strict_number(text) } else { value::lenient_number(text) };
        let Some(value) = read else {
            if row.source.is_strict() {
                self.bad_value(key, text, origin, format!("{unit} and nothing else on the line"));
                return None;
            }
            self.warn(key, origin, format!("\"{text}\" is not {unit}; {default} is used"));
            return Some(*default);
        };
        if (range.min..=range.max).contains(&value) {
            return Some(value);
        }
        match range.outside {
            Outside::Refused => {
                self.bad_value(key, text, origin, format!("{unit}{range}"));
                None
            }
            Outside::Clamped => {
                let nearest = value.clamp(range.min, range.max);
                self.warn(key, origin, format!("{value} is out of range; {nearest} is used"));
                Some(nearest)
            }
        }
    }

    fn real(&mut self, row: &Setting, key: &str, text: &str, origin: Origin) -> Option<f64> {
        let Shape::Real { default, .. } = &row.shape else { return None };
        let value = text.parse().ok().filter(|value: &f64| value.is_finite());
        if value.is_none() {
            self.warn(key, origin, format!("\"{text}\" is not a number; {default} is used"));
        }
        Some(value.unwrap_or(*default))
    }
}

/// For a name that no row knows, with the one that may be meant.
fn unknown(name: &str, in_file: bool) -> String {
    let key = name.strip_prefix("zookeeper.").unwrap_or(name);
    match settings::find(key) {
        Some(row) if in_file => return no_effect_in_file(row, key),
        Some(_) | None => {}
    }
    if let Some((_, right)) = DOCUMENTED_WRONGLY.iter().find(|(wrong, _)| *wrong == key) {
        return format!("has no effect, as in ZooKeeper, although its guide says so; write {right}");
    }
    match settings::nearest(key) {
        Some(nearest) => format!("is not known and has no effect; is {nearest} meant?"),
        None => "is not known and has no effect".to_owned(),
    }
}

fn no_effect_in_file(row: &Setting, key: &str) -> String {
    format!("has no effect in this file, as in ZooKeeper; {}", where_to_write(row, key))
}

/// How to write a setting so that it counts.
fn where_to_write(row: &Setting, key: &str) -> String {
    match row.source {
        Source::File => format!("write {key} into zoo.cfg"),
        Source::FileOrProperty | Source::PassThrough | Source::PassThroughOrBare => {
            format!("write {key} into zoo.cfg or give -Dzookeeper.{key}=…")
        }
        Source::Bare => format!("give -D{key}=… on the command line or in SERVER_JVMFLAGS"),
        Source::Property => format!("give -Dzookeeper.{key}=… on the command line or in SERVER_JVMFLAGS"),
        Source::Ours => format!("write {key} into zoo.cfg or give -D{key}=…"),
    }
}
