//! Who is in the ensemble: `server.N`, `group.N` and `weight.N` lines, and the text they are written back as.

use super::error::{ConfigError, Origin};
use super::properties::{Property, trim};
use crate::types::ids::ServerId;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A host as it was written (names are resolved by whoever connects) and a port. An IPv6 literal is kept without
/// brackets in Java's expanded form, an IPv4 one as it is.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

impl HostPort {
    pub fn new(host: &str, port: u16) -> HostPort {
        HostPort { host: canonical_host(host), port }
    }

    /// Every address of the machine. Java's wildcard listens on IPv4 and IPv6 alike.
    pub fn wildcard(port: u16) -> HostPort {
        HostPort { host: "0.0.0.0".to_owned(), port }
    }

    /// The host as an address, if it is one and not a name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    pub fn is_wildcard(&self) -> bool {
        self.ip().is_some_and(|ip| ip.is_unspecified())
    }
}

/// `host:port`, an IPv6 host in brackets (`QuorumServer.delimitedHostString`).
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Delimited(&self.host), self.port)
    }
}

struct Delimited<'a>(&'a str);

impl fmt::Display for Delimited<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') { write!(f, "[{}]", self.0) } else { f.write_str(self.0) }
    }
}

/// An IPv6 literal as `InetAddress.getHostAddress` writes it: eight groups, nothing left out. A mapped IPv4
/// address becomes that address, no host at all this machine. Anything else stays.
fn canonical_host(host: &str) -> String {
    if host.is_empty() {
        return "localhost".to_owned();
    }
    let (address, zone) = match host.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (host, None),
    };
    let Ok(ip) = address.parse::<Ipv6Addr>() else { return host.to_owned() };
    if let Some(mapped) = ip.to_ipv4_mapped() {
        return mapped.to_string();
    }
    let mut text = ip.segments().map(|group| format!("{group:x}")).join(":");
    if let Some(zone) = zone {
        text = format!("{text}%{zone}");
    }
    text
}

/// Voter or not. The words are those of a server line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Role {
    #[default]
    Participant,
    Observer,
}

impl Role {
    pub(super) fn parse(text: &str) -> Option<Role> {
        match trim(text) {
            word if word.eq_ignore_ascii_case("participant") => Some(Role::Participant),
            word if word.eq_ignore_ascii_case("observer") => Some(Role::Observer),
            _ => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Participant => "participant",
            Role::Observer => "observer",
        })
    }
}

/// `<host>:<quorumPort>:<electionPort>` of a server line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerAddress {
    pub host: String,
    pub quorum_port: u16,
    pub election_port: u16,
}

/// One server line (`QuorumPeer.QuorumServer`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    pub id: ServerId,
    /// At least one; more only with `multiAddress.enabled`.
    pub addresses: Vec<ServerAddress>,
    pub role: Role,
    /// Where this member serves clients, if its line says so or, for our own line, if zoo.cfg does.
    pub client: Option<HostPort>,
    pub secure_client: Option<HostPort>,
    /// `client` comes from zoo.cfg's `clientPort`: the canonical text leaves it out.
    pub client_is_static: bool,
}

const SERVER_FORM: &str = "host:quorumPort:electionPort[:participant|:observer][;[clientHost:]clientPort] \
                           (more addresses of the same server behind | before the first ;)";

impl Member {
    /// Reads what stands behind `server.<id>=`. The text says what is wrong.
    pub fn parse(id: ServerId, line: &str, multi_address_enabled: bool) -> Result<Member, String> {
        let parts = split_java(trim(line), ';');
        let (servers, clients) = parts.split_first().ok_or(SERVER_FORM)?;
        let client = clients.first().filter(|part| !part.is_empty()).map(|part| client_part(part)).transpose()?;
        let secure = match clients {
            [_, secure] if !secure.is_empty() => Some(client_part(secure)?),
            _ => None,
        };
        let mut addresses: Vec<ServerAddress> = Vec::new();
        let mut role = None;
        for server in split_java(servers, '|') {
            let (address, its_role) = server_part(server)?;
            if let (Some(role), Some(its_role)) = (role, its_role)
                && role != its_role
            {
                return Err("one role for all addresses of a server".to_owned());
            }
            role = role.or(its_role);
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(SERVER_FORM.to_owned());
        }
        if addresses.len() > 1 && !multi_address_enabled {
            return Err("one address; several behind | need multiAddress.enabled=true".to_owned());
        }
        let role = role.unwrap_or_default();
        Ok(Member { id, addresses, role, client, secure_client: secure, client_is_static: false })
    }
}

/// The canonical form, without `server.<id>=` (`QuorumServer.toString`).
impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut addresses: Vec<_> = self.addresses.iter().collect();
        addresses.sort_by(|a, b| a.host.cmp(&b.host));
        for (i, address) in addresses.iter().enumerate() {
            let bar = if i == 0 { "" } else { "|" };
            write!(f, "{bar}{}:{}:{}", Delimited(&address.host), address.quorum_port, address.election_port)?;
        }
        write!(f, ":{}", self.role)?;
        let client = self.client.as_ref().filter(|_| !self.client_is_static);
        match (client, &self.secure_client) {
            (Some(client), Some(secure)) => write!(f, ";{client};{secure}"),
            (Some(client), None) => write!(f, ";{client}"),
            (None, Some(secure)) => write!(f, ";;{secure}"),
            (None, None) => Ok(()),
        }
    }
}

/// `String.split`: trailing empty parts are dropped, but at least one part remains.
fn split_java(text: &str, separator: char) -> Vec<&str> {
    text.trim_end_matches(separator).split(separator).collect()
}

/// `[host]:a:b` or `host:a:b`, cut at the colons (`ConfigUtils.getHostAndPort`).
fn host_and_rest(text: &str) -> Result<Vec<&str>, String> {
    let Some(literal) = text.strip_prefix('[') else { return Ok(split_java(text, ':')) };
    let (host, rest) = literal.split_once(']').ok_or("a ] behind the IPv6 address")?;
    let mut parts = vec![host];
    if let Some(rest) = rest.strip_prefix(':') {
        parts.extend(split_java(rest, ':'));
    } else if !rest.is_empty() {
        return Err("a colon behind the ] of the IPv6 address".to_owned());
    }
    Ok(parts)
}

fn port(text: &str) -> Result<u16, String> {
    let port = super::value::strict_number(text).and_then(|port| u16::try_from(port).ok());
    port.ok_or_else(|| format!("a port from 0 to 65535 where \"{text}\" stands"))
}

fn client_part(text: &str) -> Result<HostPort, String> {
    match host_and_rest(text)?.as_slice() {
        [port_text] => Ok(HostPort::wildcard(port(port_text)?)),
        [host, port_text] => Ok(HostPort::new(host, port(port_text)?)),
        _ => Err(SERVER_FORM.to_owned()),
    }
}

fn server_part(text: &str) -> Result<(ServerAddress, Option<Role>), String> {
    let parts = host_and_rest(text)?;
    let (host, quorum, election, role) = match parts.as_slice() {
        [host, quorum, election] => (host, quorum, election, None),
        [host, quorum, election, role] => (host, quorum, election, Some(role)),
        _ => return Err(SERVER_FORM.to_owned()),
    };
    let address =
        ServerAddress { host: canonical_host(host), quorum_port: port(quorum)?, election_port: port(election)? };
    if address.quorum_port == address.election_port {
        return Err("two different ports, for the quorum and for elections".to_owned());
    }
    let role = match role {
        None => None,
        Some(word) => {
            Some(Role::parse(word).ok_or_else(|| format!("participant or observer where \"{word}\" stands"))?)
        }
    };
    Ok((address, role))
}

/// Hierarchical quorums (`QuorumHierarchical`): a quorum is more than half of the weight in more than half of the
/// groups. Groups whose members all weigh nothing do not count.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QuorumGroups {
    /// Which group a server is in. Every participant is in exactly one.
    pub group_of: BTreeMap<ServerId, i64>,
    /// What its vote weighs. Every participant has one, 1 unless it is set.
    pub weight_of: BTreeMap<ServerId, i64>,
}

/// All members at one version.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Membership {
    pub members: BTreeMap<ServerId, Member>,
    /// `Some` as soon as any key begins with `group` or `weight`; else a quorum is a majority.
    pub groups: Option<QuorumGroups>,
    /// The zxid of the configuration's txn; 0 before the first one.
    pub version: i64,
}

impl Membership {
    /// Takes the keys that concern it out of a file and leaves all others alone. `origin` makes an `Origin` of a
    /// line.
    pub fn parse(
        entries: &[Property],
        multi_address_enabled: bool,
        origin: fn(u32) -> Origin,
    ) -> Result<Membership, ConfigError> {
        let mut membership = Membership::default();
        for entry in entries.iter().filter(|entry| is_membership_key(&entry.key)) {
            membership.add(entry, multi_address_enabled).map_err(|expected| ConfigError::BadValue {
                key: entry.key.clone(),
                origin: origin(entry.line),
                value: trim(&entry.value).to_owned(),
                expected,
            })?;
        }
        let line_of =
            |key: &str| entries.iter().rfind(|entry| entry.key.starts_with(key)).map_or(0, |entry| entry.line);
        membership.check_groups().map_err(|why| ConfigError::Conflict {
            key: "group".to_owned(),
            origin: origin(line_of("group").max(line_of("weight"))),
            why,
        })?;
        Ok(membership)
    }

    fn add(&mut self, entry: &Property, multi_address_enabled: bool) -> Result<(), String> {
        let value = trim(&entry.value);
        if entry.key == "version" {
            let version = i64::from_str_radix(value, 16);
            self.version = version.map_err(|_| "a hexadecimal number".to_owned())?;
            return Ok(());
        }
        let id = entry.key.split_once('.').map_or(entry.key.as_str(), |(_, id)| id);
        let id: i64 = id.parse().map_err(|_| "a number behind the dot of the key, as in server.1".to_owned())?;
        if entry.key.starts_with("server.") {
            let member = Member::parse(ServerId(id), value, multi_address_enabled)?;
            self.members.insert(ServerId(id), member);
            return Ok(());
        }
        let groups = self.groups.get_or_insert_default();
        if entry.key.starts_with("weight") {
            let weight: i64 = value.parse().map_err(|_| "a whole number".to_owned())?;
            groups.weight_of.insert(ServerId(id), weight);
            return Ok(());
        }
        for part in split_java(value, ':') {
            let server = part.parse().map(ServerId).map_err(|_| "server ids with colons between them".to_owned())?;
            if groups.group_of.insert(server, id).is_some() {
                return Err(format!("each server in one group only; server {server} is in two"));
            }
        }
        Ok(())
    }

    /// Every participant is in a group, and every server in a group has a weight.
    fn check_groups(&mut self) -> Result<(), String> {
        let Some(groups) = &mut self.groups else { return Ok(()) };
        for member in self.members.values().filter(|member| member.role == Role::Participant) {
            if !groups.group_of.contains_key(&member.id) {
                return Err(format!("server.{} is in no group; add it to a group.<n> line", member.id));
            }
            groups.weight_of.entry(member.id).or_insert(1);
        }
        match groups.group_of.keys().find(|id| !groups.weight_of.contains_key(id)) {
            Some(id) => Err(format!("server {id} is in a group but is no participant; add weight.{id} or remove it")),
            None => Ok(()),
        }
    }

    pub fn participants(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.role == Role::Participant)
    }

    pub fn observers(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.role == Role::Observer)
    }

    /// The lines of the canonical form, ascending by id, without the version.
    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.members.values().map(|member| format!("server.{}={member}", member.id)).collect();
        if let Some(groups) = &self.groups {
            let mut ids: BTreeMap<i64, Vec<String>> = BTreeMap::new();
            for (server, group) in &groups.group_of {
                ids.entry(*group).or_default().push(server.to_string());
            }
            lines.extend(ids.iter().map(|(group, ids)| format!("group.{group}={}", ids.join(":"))));
            lines.extend(groups.weight_of.iter().map(|(server, weight)| format!("weight.{server}={weight}")));
        }
        lines
    }

    /// The data of `/zookeeper/config` (`QuorumVerifier.toString`): one line each, the version last and without a
    /// newline. Java's order is that of a hash map, which is ascending for ids below 16.
    pub fn config_text(&self) -> String {
        let mut text = String::new();
        for line in self.lines() {
            text.push_str(&line);
            text.push('\n');
        }
        text.push_str(&format!("version={:x}", self.version));
        text
    }

    /// The content of a `zoo.cfg.dynamic.<version>`: the lines sorted as text, no newline at the end, no version.
    pub fn dynamic_file_text(&self) -> String {
        let mut lines = self.lines();
        lines.sort_unstable();
        lines.join("\n")
    }
}

/// Keys that `QuorumMaj` and `QuorumHierarchical` look at.
pub(super) fn is_membership_key(key: &str) -> bool {
    key.starts_with("server.") || key.starts_with("group") || key.starts_with("weight") || key == "version"
}

/// The version in the name of a dynamic file (`QuorumPeerConfig.getVersionFromFilename`): its last part in
/// hexadecimal, else 0.
pub(super) fn version_in_file_name(name: &str) -> i64 {
    name.rsplit_once('.').and_then(|(_, version)| i64::from_str_radix(version, 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::properties::Properties;
    use super::*;

    fn check(line: &str, expected: &str) {
        let canonical = Member::parse(ServerId(1), line, true).map(|member| member.to_string());
        assert_eq!(canonical.as_deref(), Ok(expected), "{line}");
        let again = Member::parse(ServerId(1), expected, true).map(|member| member.to_string());
        assert_eq!(again.as_deref(), Ok(expected), "the canonical form of {line} reads as itself");
    }

    fn check_bad(line: &str) {
        let member = Member::parse(ServerId(1), line, true);
        assert!(member.is_err(), "{line}: {member:?}");
    }

    // S-076
    #[test]
    fn server_lines_print_canonically() {
        check("zk1:2888:3888", "zk1:2888:3888:participant");
        check("zk1:2888:3888 ", "zk1:2888:3888:participant");
        check("zk1:2888:3888:OBSERVER", "zk1:2888:3888:observer");
        check("zk1:2888:3888;2181", "zk1:2888:3888:participant;0.0.0.0:2181");
        check("zk1:2888:3888:observer;10.0.0.1:2181", "zk1:2888:3888:observer;10.0.0.1:2181");
        check("zk1:2888:3888;", "zk1:2888:3888:participant");
        check("zk1:2888:3888:;2181;", "zk1:2888:3888:participant;0.0.0.0:2181");
        check("zk1:0:3888", "zk1:0:3888:participant");
        check(":2888:3888", "localhost:2888:3888:participant");
    }

    // S-077
    #[test]
    fn ipv6_is_written_in_full_and_addresses_are_sorted_by_host() {
        check("[::1]:2888:3888;[::]:2181", "[0:0:0:0:0:0:0:1]:2888:3888:participant;[0:0:0:0:0:0:0:0]:2181");
        check("[2001:DB8::7]:1:2", "[2001:db8:0:0:0:0:0:7]:1:2:participant");
        check("[::ffff:10.0.0.1]:1:2", "10.0.0.1:1:2:participant");
        check("b:1:2|a:3:4:observer;5", "a:3:4|b:1:2:observer;0.0.0.0:5");
        check("a:1:2|a:1:2", "a:1:2:participant");
    }

    // S-078
    #[test]
    fn the_third_part_is_the_secure_port() {
        check("a:1:2;3;4", "a:1:2:participant;0.0.0.0:3;0.0.0.0:4");
        check("a:1:2;;h:4", "a:1:2:participant;;h:4");
        check("a:1:2;3;h:4", "a:1:2:participant;0.0.0.0:3;h:4");
    }

    // S-076
    #[test]
    fn malformed_server_lines_are_refused() {
        for line in [
            "",
            ";2181",
            "zk1",
            "zk1:2888",
            "zk1:2888:2888",
            "zk1:2888:3888:leader",
            "zk1:2888:3888:observer:x",
            "zk1:x:3888",
            "zk1:2888:70000",
            "zk1:-1:3888",
            "::1:2888:3888",
            "[::1:2888:3888",
            "[::1]2888:3888",
            "zk1:2888:3888;a:b:1",
            "zk1:2888:3888;x",
            "a:1:2:observer|b:1:2:participant",
        ] {
            check_bad(line);
        }
        assert!(Member::parse(ServerId(1), "a:1:2|b:1:2", false).is_err(), "multiAddress.enabled=false");
    }

    fn membership(text: &str) -> Result<Membership, ConfigError> {
        let entries = Properties::parse(text.as_bytes(), |line| Origin::File { line })?.effective();
        Membership::parse(&entries, false, |line| Origin::File { line })
    }

    // S-076
    #[test]
    fn the_config_text_ends_with_the_version() {
        let text = "server.10=c:1:2\nserver.2=b:1:2;2181\ntickTime=5\nversion=100000000\n";
        let membership = membership(text).unwrap();
        assert_eq!(
            membership.config_text(),
            "server.2=b:1:2:participant;0.0.0.0:2181\nserver.10=c:1:2:participant\nversion=100000000"
        );
        assert_eq!(
            membership.dynamic_file_text(),
            "server.10=c:1:2:participant\nserver.2=b:1:2:participant;0.0.0.0:2181"
        );
        assert_eq!(Membership::default().config_text(), "version=0");
    }

    // S-076
    #[test]
    fn groups_and_weights_are_checked_and_printed() {
        let servers = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\nserver.4=d:1:2:observer\n";
        let good = membership(&format!("{servers}group.1=1:2\ngroup.2=3\nweight.3=0")).unwrap();
        assert_eq!(
            good.config_text(),
            "server.1=a:1:2:participant\nserver.2=b:1:2:participant\nserver.3=c:1:2:participant\n\
             server.4=d:1:2:observer\ngroup.1=1:2\ngroup.2=3\nweight.1=1\nweight.2=1\nweight.3=0\nversion=0"
        );
        for bad in
            ["group.1=1:2", "group.1=1:2:3\ngroup.2=3", "group.1=1:2:3:4", "group.x=1:2:3", "groups=1", "weight.1=x"]
        {
            let error = membership(&format!("{servers}{bad}")).expect_err(bad);
            assert!(error.to_string().starts_with("line "), "{error}");
        }
        assert!(membership(&format!("{servers}group.1=1:2:3:4\nweight.4=1")).is_ok());
        assert!(membership("server.x=a:1:2").is_err());
        assert!(membership("server.realm=EXAMPLE").is_err());
    }

    // S-095
    #[test]
    fn the_version_of_a_dynamic_file_is_in_its_name() {
        for (name, version) in
            [("zoo.cfg.dynamic.100000000", 0x1_0000_0000), ("zoo.cfg.dynamic", 0), ("zoo", 0), ("a.ff", 255)]
        {
            assert_eq!(version_in_file_name(name), version, "{name}");
        }
    }
}
