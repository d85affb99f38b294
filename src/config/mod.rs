//! Everything that decides how a server is set up: zoo.cfg, system properties, the command line, the ensemble.
//! Never: reads a file, the environment or a name server; the caller hands in what it has read.
//! Owner: none; read once before the cores start, then a plain value that every core may hold.
//! Start at `parse.rs`, then `settings.rs`, the table with one row per setting.

mod check;
mod command_line;
mod draft;
mod ensemble;
mod error;
mod parse;
mod properties;
mod server;
mod settings;
mod settings_ensemble;
mod settings_server;
mod settings_unused;
mod value;

pub use command_line::{Arguments, PortAndDirectory, Start, SystemProperties};
pub use ensemble::{HostPort, Member, Membership, QuorumGroups, Role, ServerAddress};
pub use error::{ConfigError, Origin, Warning};
pub use parse::{ConfigFile, OtherFiles, Parsed};
pub use properties::{Properties, Property};
pub use server::{Config, ConnectionThrottle, Extensions, FourLetterWhitelist, Mode, Secret, ZabCore};
