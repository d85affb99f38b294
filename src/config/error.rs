//! What can be wrong with a configuration, and what is merely worth saying.

use std::fmt;
use std::path::PathBuf;

/// Where a setting came from. Lines count from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// zoo.cfg.
    File { line: u32 },
    /// The file that `dynamicConfigFile` names, or the `.dynamic.next` beside it.
    DynamicFile { line: u32 },
    /// A `-Dkey=value` word, or a word of the form `<port> <dataDir> …`.
    CommandLine,
    /// A `-Dkey=value` inside the environment variable of this name.
    Environment(&'static str),
    /// Nobody wrote it: a default, or something that is missing.
    Nowhere,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { line } => write!(f, "line {line}: "),
            Origin::DynamicFile { line } => write!(f, "dynamic file, line {line}: "),
            Origin::CommandLine => f.write_str("command line: "),
            Origin::Environment(name) => write!(f, "{name}: "),
            Origin::Nowhere => Ok(()),
        }
    }
}

/// Why a server does not start. Each names the key, where it stands, and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigError {
    /// The value cannot be read, or lies outside its range.
    BadValue { key: String, origin: Origin, value: String, expected: String },
    /// Something that must be set is not.
    Missing { key: &'static str, remedy: &'static str },
    /// Two settings contradict each other.
    Conflict { key: String, origin: Origin, why: String },
    /// Obeying is not possible yet and ignoring it would be unsafe.
    Refused { key: String, origin: Origin, remedy: String },
    /// The words behind `oxkeeper server` make no sense.
    Arguments { problem: String },
    /// A directory is missing, not writable, or holds what belongs in the other one.
    Directory { path: PathBuf, problem: String },
}

impl ConfigError {
    /// What the process exits with (`ExitCode.INVALID_INVOCATION`, `ExitCode.UNABLE_TO_ACCESS_DATADIR`).
    pub fn exit_code(&self) -> i32 {
        match self {
            ConfigError::BadValue { .. }
            | ConfigError::Missing { .. }
            | ConfigError::Conflict { .. }
            | ConfigError::Refused { .. }
            | ConfigError::Arguments { .. } => 2,
            ConfigError::Directory { .. } => 3,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::BadValue { key, origin, value, expected } => {
                write!(f, "{origin}{key}={value} cannot be used: wants {expected}")
            }
            ConfigError::Missing { key, remedy } => write!(f, "{key} is not set: {remedy}"),
            ConfigError::Conflict { key, origin, why } => write!(f, "{origin}{key}: {why}"),
            ConfigError::Refused { key, origin, remedy } => write!(f, "{origin}{key} is not supported yet: {remedy}"),
            ConfigError::Arguments { problem } => write!(f, "{problem}"),
            ConfigError::Directory { path, problem } => write!(f, "{}: {problem}", path.display()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Something that an operator should know although the server starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Warning {
    pub key: String,
    pub origin: Origin,
    pub text: String,
}

impl Warning {
    pub(super) fn new(key: &str, origin: Origin, text: impl Into<String>) -> Warning {
        Warning { key: key.to_owned(), origin, text: text.into() }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}: {}", self.origin, self.key, self.text)
    }
}
