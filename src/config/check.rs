//! Whether settings fit together: ports, timeouts, server lines, `myid`. ZooKeeper's fatal combinations are fatal here.

use super::ensemble::{HostPort, Membership, Role, is_membership_key, version_in_file_name};
use super::error::{ConfigError, Origin};
use super::parse::{ConfigFile, OtherFiles, Parsed, Reader};
use super::properties::{Properties, Property};
use super::server::{Config, Mode};
use crate::types::ids::ServerId;
use std::path::PathBuf;

/// Where files lie below `dataDir` and `dataLogDir`.
const VERSION_DIR: &str = "version-2";

impl Reader {
    /// Server lines, from the dynamic file if there is one, else from zoo.cfg.
    pub fn read_membership(&mut self, file: &ConfigFile, entries: &[Property], others: &OtherFiles<'_>) {
        let multi = self.draft.config.multi_address_enabled;
        let membership = match file.dynamic_config_file() {
            None => Membership::parse(entries, multi, |line| Origin::File { line }),
            Some(name) => {
                let origin = Reader::origin_in(entries, "dynamicConfigFile");
                dynamic_membership((name, origin), others.dynamic, multi)
            }
        };
        match membership {
            Ok(membership) => self.draft.config.membership = membership,
            Err(error) => self.errors.push(error),
        }
        if let (Some(_), Some(bytes)) = (file.dynamic_config_file(), others.next_dynamic) {
            let origin = |line| Origin::DynamicFile { line };
            let next = Properties::parse(bytes, origin);
            let next = next.and_then(|next| Membership::parse(&next.effective(), multi, origin));
            match next {
                Ok(membership) => self.draft.config.last_seen_membership = Some(membership),
                Err(error) => self.errors.push(error),
            }
        }
        self.check_client_port_address(entries);
        self.check_session_timeouts(entries);
        self.check_participants(entries);
    }

    fn check_client_port_address(&mut self, entries: &[Property]) {
        if self.draft.client_port.is_none() && self.draft.client_port_address.is_some() && !self.in_error("clientPort")
        {
            let origin = Reader::origin_in(entries, "clientPortAddress");
            self.conflict("clientPortAddress", origin, "needs a clientPort beside it");
        }
        if self.draft.client_port == Some(0) {
            let origin = Reader::origin_in(entries, "clientPort");
            self.warn("clientPort", origin, "0 lets the kernel choose a port (ZooKeeper 3.8 opens none)");
        }
    }

    fn check_session_timeouts(&mut self, entries: &[Property]) {
        let (min, max) = self.draft.session_timeouts_ms();
        if min > max {
            let origin =
                Reader::origin_in(entries, "minSessionTimeout").max(Reader::origin_in(entries, "maxSessionTimeout"));
            let why = format!("{min} ms is more than maxSessionTimeout, {max} ms; make one of them fit the other");
            self.conflict("minSessionTimeout", origin, why);
        }
    }

    /// Whether the key has been complained about already.
    fn in_error(&self, name: &str) -> bool {
        self.errors.iter().any(|error| matches!(error, ConfigError::BadValue { key, .. } if key == name))
    }

    /// `QuorumPeerConfig.parseDynamicConfig`: which numbers of voters and observers make sense.
    fn check_participants(&mut self, entries: &[Property]) {
        let config = &self.draft.config;
        let (voters, observers) = (config.membership.participants().count(), config.membership.observers().count());
        let standalone = config.standalone_enabled;
        let servers = Reader::origin_in(entries, "standaloneEnabled");
        match voters {
            0 if !standalone => {
                self.conflict("standaloneEnabled", servers, "false needs at least one server line of a participant");
            }
            0 if observers > 0 => {
                self.conflict("server", Origin::Nowhere, "there are observers but no participants; add participants");
            }
            1 if standalone && observers > 0 => {
                let why =
                    "one participant with observers is no ensemble; add participants or set standaloneEnabled=false";
                self.conflict("server", Origin::Nowhere, why);
            }
            1 if standalone => {
                self.warn("server", Origin::Nowhere, "a single server line: the server runs standalone");
            }
            1 | 2 => {
                self.warn("server", Origin::Nowhere, "no server may fail; an ensemble needs at least 3 participants")
            }
            _ if voters > 0 && voters % 2 == 0 => {
                let text =
                    format!("{voters} participants bear no more failures than {}; use an odd number", voters - 1);
                self.warn("server", Origin::Nowhere, text);
            }
            _ => {}
        }
    }

    /// `myid`, and what our own server line then decides.
    pub fn read_myid(&mut self, myid: Option<&[u8]>) {
        if let Some(bytes) = myid {
            let line = bytes.split(|b| matches!(b, b'\n' | b'\r')).next().unwrap_or_default();
            let text = String::from_utf8_lossy(line);
            match text.parse() {
                Ok(id) => self.draft.config.server_id = Some(ServerId(id)),
                Err(_) => {
                    let expected = "the server's number alone on the first line of the file myid in dataDir".to_owned();
                    self.bad_value("myid", &text, Origin::Nowhere, expected);
                    return;
                }
            }
        }
        self.set_client_address();
        self.set_peer_type();
        if self.draft.config.mode() == Mode::Distributed {
            self.check_distributed();
            self.check_failover();
            self.check_not_yet();
        }
    }

    /// `QuorumPeerConfig.setupClientPort`: zoo.cfg and our server line must agree on where clients are served.
    fn set_client_address(&mut self) {
        let from_file = self.draft.client_port.map(|port| match &self.draft.client_port_address {
            Some(host) => HostPort::new(host, port),
            None => HostPort::wildcard(port),
        });
        self.draft.config.client_port_address = from_file.clone();
        let config = &mut self.draft.config;
        let Some(member) = config.server_id.and_then(|id| config.membership.members.get_mut(&id)) else { return };
        let name = format!("server.{}", member.id);
        if member.secure_client.is_some() {
            let remedy = "its third part opens a TLS port; remove it, or keep the Java server until TLS is there";
            self.errors.push(ConfigError::Refused { key: name, origin: Origin::Nowhere, remedy: remedy.to_owned() });
            return;
        }
        let Some(in_line) = member.client.clone() else {
            member.client = from_file;
            member.client_is_static = true;
            return;
        };
        config.client_port_address = Some(in_line.clone());
        let Some(from_file) = from_file else { return };
        match agree(&from_file, &in_line) {
            Some(true) => {}
            Some(false) => {
                let why = format!("{in_line} for clients is not {from_file}, which clientPort says; remove clientPort");
                self.conflict(&name, Origin::Nowhere, why);
            }
            None => {
                let text = format!("{in_line} is used for clients; clientPortAddress says {from_file}");
                self.warn(&name, Origin::Nowhere, text);
            }
        }
    }

    /// `QuorumPeerConfig.setupPeerType`.
    fn set_peer_type(&mut self) {
        let listed = self.draft.config.own_member().map_or(Role::Participant, |member| member.role);
        let said = std::mem::replace(&mut self.draft.config.peer_type, listed);
        if listed != said {
            self.warn("peerType", Origin::Nowhere, format!("{said} does not fit the server lines; {listed} is used"));
        }
    }

    fn check_distributed(&mut self) {
        let config = &self.draft.config;
        let mut missing = Vec::new();
        if config.init_limit_ticks == 0 {
            missing.push(("initLimit", "an ensemble needs it; initLimit=10 is usual"));
        }
        if config.sync_limit_ticks == 0 {
            missing.push(("syncLimit", "an ensemble needs it; syncLimit=5 is usual"));
        }
        let mut conflict = None;
        match config.server_id {
            None => missing.push(("myid", "write this server's number into the file myid in dataDir")),
            Some(id) if config.own_member().is_none() => {
                conflict = Some(format!("{id} is in no server line; correct the file myid, or add server.{id}"));
            }
            Some(ServerId(id)) if config.extended_types_enabled && id > 254 => {
                conflict = Some(format!("{id} is above 254, which extendedTypesEnabled=true does not allow"));
            }
            Some(_) => {}
        }
        self.errors.extend(missing.into_iter().map(|(key, remedy)| ConfigError::Missing { key, remedy }));
        if let Some(why) = conflict {
            self.conflict("myid", Origin::Nowhere, why);
        }
    }

    /// Times that cannot work: a server would be taken for dead before it could be heard, or never.
    fn check_failover(&mut self) {
        let config = &self.draft.config;
        let (every, after) = (config.heartbeat_ms, config.heartbeat_timeout_ms);
        let limit = config.sync_limit_ticks.saturating_mul(config.tick_time_ms);
        if !config.extensions.heartbeats || limit == 0 {
            return;
        }
        let key = "oxkeeper.heartbeatTimeoutMillis";
        if u64::from(after) < 3 * u64::from(every) {
            let why = format!(
                "{after} ms is less than three heartbeats of oxkeeper.heartbeatMillis={every}: one that is late would end a leader"
            );
            self.conflict(key, Origin::Nowhere, why);
        } else if after > limit {
            let why = format!(
                "{after} ms is more than syncLimit, {limit} ms, which ends a link anyway; set a smaller one, or \
                 oxkeeper.extensions=-heartbeats"
            );
            self.conflict(key, Origin::Nowhere, why);
        }
    }

    /// What members of an ensemble of Java's can do and ours cannot yet.
    fn check_not_yet(&mut self) {
        let config = &self.draft.config;
        let mut warnings = Vec::new();
        if config.reconfig_enabled {
            warnings.push((
                "reconfigEnabled",
                "reconfiguration is refused for now; change the server lines and restart one by one",
            ));
        }
        if config.last_seen_membership.is_some() {
            warnings.push(("dynamicConfigFile", "the proposed members in its .next file are not looked at"));
        }
        if config.read_only_mode_enabled {
            warnings.push(("readonlymode.enabled", "a member without a quorum serves nobody for now"));
        }
        if config.observer_master_port.is_some() {
            warnings.push(("observerMasterPort", "observers follow the leader for now"));
        }
        for (key, text) in warnings {
            self.warn(key, Origin::Nowhere, text);
        }
    }

    /// `AuthenticationHelper.validateConfiguredProperties`: enforced schemes must exist.
    fn check_enforced_schemes(&mut self) {
        if !self.draft.enforce_auth_enabled {
            return;
        }
        if self.draft.enforce_auth_schemes.is_empty() {
            let remedy = "enforce.auth.enabled=true needs a list of schemes";
            self.errors.push(ConfigError::Missing { key: "enforce.auth.schemes", remedy });
        }
        let digest = self.draft.config.digest_auth_enabled || self.draft.digest_auth_registered;
        let ensemble = self.draft.config.ensemble_auth_enabled;
        for scheme in self.draft.enforce_auth_schemes.clone() {
            let known = match scheme.as_str() {
                "ip" => true,
                "digest" => digest,
                "ensemble" => ensemble,
                _ => false,
            };
            if !known {
                let remedy = "nobody could authenticate; use ip or digest, or keep the Java server for now".to_owned();
                let key = format!("enforce.auth.schemes={scheme}");
                self.errors.push(ConfigError::Refused { key, origin: Origin::Nowhere, remedy });
            }
        }
    }

    /// Names of an ensemble need the scheme to be compared under.
    fn check_ensemble_auth(&mut self) {
        let config = &self.draft.config;
        if !config.ensemble_auth_names.is_empty() && !config.ensemble_auth_enabled {
            let text =
                "has no effect without authProvider.1=org.apache.zookeeper.server.auth.EnsembleAuthenticationProvider";
            self.warn("ensembleAuthName", Origin::Nowhere, text);
        }
    }

    /// `oxkeeper.strict`: what nobody knows is an error.
    fn check_unknown(&mut self) {
        if self.draft.strict {
            for (key, origin) in std::mem::take(&mut self.unknown) {
                self.conflict(&key, origin, "is not known, which oxkeeper.strict=true does not allow; remove it");
            }
        }
    }

    pub fn finish(mut self) -> Parsed {
        if self.draft.data_dir.is_none() && !self.in_error("dataDir") {
            let remedy = "write dataDir=<directory>, where snapshots and logs are kept";
            self.errors.push(ConfigError::Missing { key: "dataDir", remedy });
        }
        self.check_enforced_schemes();
        self.check_ensemble_auth();
        self.check_unknown();
        if self.draft.config.client_port_address.is_none() {
            self.draft.config.client_port_address = self.draft.client_port.map(HostPort::wildcard);
        }
        if self.draft.config.client_port_address.is_none() {
            self.warn("clientPort", Origin::Nowhere, "is not set: no client can connect to this server");
        }
        if self.errors.is_empty() { Ok((self.draft.resolve(), self.warnings)) } else { Err(self.errors) }
    }
}

impl Config {
    /// Snapshots and epochs.
    pub fn snap_dir(&self) -> PathBuf {
        self.data_dir.join(VERSION_DIR)
    }

    /// Txn logs; often the same as `snap_dir`.
    pub fn log_dir(&self) -> PathBuf {
        self.data_log_dir.join(VERSION_DIR)
    }

    /// Whether somebody changed `dataLogDir` without moving the files (`FileTxnSnapLog.checkLogDir`,
    /// `checkSnapDir`). Takes the names of all files in `snap_dir` and in `log_dir`.
    pub fn check_directories<S: AsRef<str>>(&self, in_snap_dir: &[S], in_log_dir: &[S]) -> Result<(), ConfigError> {
        let (snap_dir, log_dir) = (self.snap_dir(), self.log_dir());
        if snap_dir == log_dir {
            return Ok(());
        }
        let first = |names: &[S], prefix| {
            names.iter().map(AsRef::as_ref).find(|name: &&str| name.starts_with(prefix)).map(str::to_owned)
        };
        let misplaced = |path, name, right: PathBuf| {
            let problem = format!("holds {name}; move all files of that kind to {}", right.display());
            Err(ConfigError::Directory { path, problem })
        };
        if let Some(name) = first(in_log_dir, "snapshot.") {
            return misplaced(log_dir, name, snap_dir);
        }
        match first(in_snap_dir, "log.") {
            Some(name) => misplaced(snap_dir, name, log_dir),
            None => Ok(()),
        }
    }
}

/// Whether zoo.cfg's address and that of the server line are the same, as far as that shows without resolving
/// names.
fn agree(from_file: &HostPort, in_line: &HostPort) -> Option<bool> {
    if from_file.port != in_line.port {
        return Some(false);
    }
    if from_file.is_wildcard() || from_file.host.eq_ignore_ascii_case(&in_line.host) {
        return Some(true);
    }
    match (from_file.ip(), in_line.ip()) {
        (Some(_), Some(_)) => Some(false),
        (Some(_), None) | (None, Some(_)) | (None, None) => None,
    }
}

/// Members in the file that `dynamicConfigFile` names, whose version is in its name.
fn dynamic_membership(
    (name, named_in): (&str, Origin),
    bytes: Option<&[u8]>,
    multi_address_enabled: bool,
) -> Result<Membership, ConfigError> {
    let Some(bytes) = bytes else {
        let why = format!("{name} cannot be read; write the server lines into it, or into zoo.cfg instead");
        return Err(ConfigError::Conflict { key: "dynamicConfigFile".to_owned(), origin: named_in, why });
    };
    let origin = |line| Origin::DynamicFile { line };
    let entries = Properties::parse(bytes, origin)?.effective();
    for entry in &entries {
        let why = match entry.key.as_str() {
            "version" => "belongs into the name of the file, as in zoo.cfg.dynamic.100000000",
            key if is_membership_key(key) => continue,
            _ => "only server.<n>, group.<n> and weight.<n> may stand here; move it to zoo.cfg",
        };
        let (key, why) = (entry.key.clone(), why.to_owned());
        return Err(ConfigError::Conflict { key, origin: origin(entry.line), why });
    }
    let mut membership = Membership::parse(&entries, multi_address_enabled, origin)?;
    membership.version = version_in_file_name(name);
    Ok(membership)
}
