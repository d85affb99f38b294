//! Connections, sessions, ephemerals and watches, one per line.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Result, Write};
use std::net::SocketAddr;

use super::date::java_date;
use crate::server::status::{Mode, Status};
use crate::shard::status::{ConnectionStatus, Watches};
use crate::types::ids::SessionId;
use crate::types::time::WallTime;

/// `/127.0.0.1:2181`, `/[0:0:0:0:0:0:0:1]:2181`: `InetSocketAddress.toString` of an address without a name.
struct JavaAddress(SocketAddr);

impl std::fmt::Display for JavaAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> Result {
        // A dual-stack socket reports IPv4 peers as mapped; Java shows what they are.
        match self.0.ip().to_canonical() {
            std::net::IpAddr::V4(ip) => write!(f, "/{ip}:{}", self.0.port()),
            std::net::IpAddr::V6(ip) => {
                let [a, b, c, d, e, g, h, i] = ip.segments();
                write!(f, "/[{a:x}:{b:x}:{c:x}:{d:x}:{e:x}:{g:x}:{h:x}:{i:x}]:{}", self.0.port())
            }
        }
    }
}

/// Those of the client port first, then those of the TLS port, each in the order collected.
fn in_order(connections: &[ConnectionStatus]) -> impl Iterator<Item = &ConnectionStatus> {
    let of = move |secure| connections.iter().filter(move |connection| connection.secure == secure);
    of(false).chain(of(true))
}

/// The part of `stat` that lists clients.
pub fn connections_brief(status: &Status, out: &mut String) -> Result {
    for connection in in_order(&status.shards.connections) {
        connection_counts(connection, out)?;
        writeln!(out, ")")?;
    }
    Ok(())
}

/// `cons`.
pub fn connections(status: &Status, out: &mut String) -> Result {
    for connection in in_order(&status.shards.connections) {
        connection_counts(connection, out)?;
        if connection.session != SessionId::NONE {
            connection_session(connection, out)?;
        }
        writeln!(out, ")")?;
    }
    writeln!(out)
}

fn connection_counts(connection: &ConnectionStatus, out: &mut String) -> Result {
    let ConnectionStatus { peer, interest, queued, stats, .. } = connection;
    write!(out, " {}[{interest:x}](queued={queued}", JavaAddress(*peer))?;
    write!(out, ",recved={},sent={}", stats.packets_received, stats.packets_sent)
}

fn connection_session(connection: &ConnectionStatus, out: &mut String) -> Result {
    let stats = &connection.stats;
    let latency = stats.latency.values();
    write!(out, ",sid={}", connection.session)?;
    write!(out, ",lop={}", stats.last_op.map_or("NA", |op| op.short_name()))?;
    write!(out, ",est={},to={}", connection.established.0, connection.timeout_ms)?;
    if let Some(cxid) = stats.last_cxid {
        write!(out, ",lcxid=0x{cxid:x}")?;
    }
    write!(out, ",lzxid=0x{:x}", stats.last_zxid.unwrap_or(-1))?;
    write!(out, ",lresp={},llat={}", stats.last_response_ms, stats.last_latency_us / 1_000)?;
    write!(out, ",minlat={},avglat={},maxlat={}", latency.min, stats.latency.average_whole_ms(), latency.max)
}

/// `dump`: sessions by when they expire, ephemerals by session, connections by when they are closed.
pub fn dump(status: &Status, out: &mut String) -> Result {
    let tick_ms = status.settings.tick_time_ms;
    writeln!(out, "SessionTracker dump:")?;
    match status.zab.mode {
        Mode::NotServing | Mode::Standalone | Mode::Leader(_) => {
            let sessions = status.zab.sessions.iter().map(|s| (s.expires_at, s.session.to_string()));
            expiry_sets("Session Sets", tick_ms, sessions, out)?;
        }
        // Whoever does not expire sessions does not know when they would.
        Mode::Follower | Mode::Observer { .. } | Mode::ReadOnly => {
            writeln!(out, "Global Sessions({}):", status.zab.sessions.len())?;
            for session in &status.zab.sessions {
                writeln!(out, "{}\t{}ms", session.session, session.timeout_ms)?;
            }
        }
    }
    writeln!(out, "ephemeral nodes dump:")?;
    writeln!(out, "Sessions with Ephemerals ({}):", status.zab.ephemerals.len())?;
    for (session, paths) in &status.zab.ephemerals {
        writeln!(out, "{session}:")?;
        for path in paths {
            writeln!(out, "\t{path}")?;
        }
    }
    writeln!(out, "Connections dump:")?;
    let connections = in_order(&status.shards.connections)
        .map(|c| (c.expires_at, format!("ip: {} sessionId: {}", JavaAddress(c.peer), c.session)));
    expiry_sets("Connections Sets", tick_ms, connections, out)
}

/// `ExpiryQueue.dump`: members in buckets of a tick, a bucket being the tick behind its members' time.
fn expiry_sets(
    title: &str,
    tick_ms: i32,
    members: impl Iterator<Item = (WallTime, String)>,
    out: &mut String,
) -> Result {
    let tick_ms = i64::from(tick_ms.max(1));
    let mut buckets: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    let mut count = 0;
    for (expires_at, member) in members {
        let bucket = expires_at.0.div_euclid(tick_ms).saturating_add(1).saturating_mul(tick_ms);
        buckets.entry(bucket).or_default().push(member);
        count += 1;
    }
    writeln!(out, "{title} ({})/({count}):", buckets.len())?;
    for (expires_at, members) in buckets {
        writeln!(out, "{} expire at {}:", members.len(), java_date(WallTime(expires_at)))?;
        for member in members {
            writeln!(out, "\t{member}")?;
        }
    }
    Ok(())
}

/// `wchs`.
pub fn watch_summary(watches: &Watches, out: &mut String) -> Result {
    let total: usize = watches.values().map(Vec::len).sum();
    let paths: BTreeSet<&String> = watches.values().flatten().collect();
    writeln!(out, "{} connections watching {} paths", watches.len(), paths.len())?;
    writeln!(out, "Total watches:{total}")
}

/// `wchc`.
pub fn watches_by_session(watches: &Watches, out: &mut String) -> Result {
    for (session, paths) in watches {
        writeln!(out, "{session}")?;
        for path in paths {
            writeln!(out, "\t{path}")?;
        }
    }
    writeln!(out)
}

/// `wchp`.
pub fn watches_by_path(watches: &Watches, out: &mut String) -> Result {
    let mut by_path: BTreeMap<&String, Vec<SessionId>> = BTreeMap::new();
    for (&session, paths) in watches {
        for path in paths {
            by_path.entry(path).or_default().push(session);
        }
    }
    for (path, sessions) in by_path {
        writeln!(out, "{path}")?;
        for session in sessions {
            writeln!(out, "\t{session}")?;
        }
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, expected: &str) {
        assert_eq!(JavaAddress(address.parse().expect("an address")).to_string(), expected);
    }

    #[test]
    fn addresses_read_like_javas() {
        check("127.0.0.1:42592", "/127.0.0.1:42592");
        check("[::1]:2181", "/[0:0:0:0:0:0:0:1]:2181");
        check("[::ffff:10.0.0.1]:2181", "/10.0.0.1:2181");
    }
}
