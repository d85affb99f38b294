//! Inputs and outputs on one line each: the trace, the golden files and the debug log.

use std::fmt;

use super::transport::{Port, SocketId, SocketInput, SocketOutput};
use super::{Input, Output, RoleName};

/// `#4`.
impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Port::Election => "election",
            Port::Quorum => "quorum",
        })
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RoleName::Looking => "LOOKING",
            RoleName::Leading => "LEADING",
            RoleName::Following => "FOLLOWING",
            RoleName::Observing => "OBSERVING",
        })
    }
}

impl fmt::Display for SocketInput<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketInput::Accepted { socket, port } => write!(f, "accepted {socket} port={port}"),
            SocketInput::Connected { socket } => write!(f, "connected {socket}"),
            SocketInput::Received { socket, bytes } => write!(f, "received {socket} bytes={}", bytes.len()),
            SocketInput::Unsent { socket, bytes } => write!(f, "unsent {socket} bytes={bytes}"),
            SocketInput::Closed { socket, is_refused } => write!(f, "closed {socket} is_refused={is_refused}"),
        }
    }
}

impl fmt::Display for SocketOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketOutput::Connect { socket, addresses } => {
                write!(f, "connect {socket}")?;
                addresses.iter().try_for_each(|address| write!(f, " {address}"))
            }
            SocketOutput::Send { socket, bytes } => write!(f, "send {socket} bytes={}", bytes.len()),
            SocketOutput::Hold { socket, is_held } => write!(f, "hold {socket} is_held={is_held}"),
            SocketOutput::Close { socket, is_abrupt } => write!(f, "close {socket} is_abrupt={is_abrupt}"),
        }
    }
}

impl fmt::Display for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Socket(input) => input.fmt(f),
            Input::Settled { last, committed } => write!(f, "settled last={last} committed={committed}"),
            Input::Flushed { upto } => write!(f, "flushed {upto}"),
            Input::EpochsStored(epochs) => {
                write!(f, "epochs_stored accepted={} current={}", epochs.accepted, epochs.current)
            }
            Input::Installed { last } => write!(f, "installed {last}"),
            Input::LoadFailed { what } => write!(f, "load_failed {what}"),
            Input::LogRead { socket, read: None } => write!(f, "log_read {socket} nothing"),
            Input::LogRead { socket, read: Some(read) } => {
                write!(f, "log_read {socket} previous={} txns={}", read.previous, read.txns.len())
            }
            Input::SnapshotPiece { socket, zxid, bytes, is_end } => {
                write!(f, "snapshot_piece {socket} zxid={zxid} bytes={} is_end={is_end}", bytes.len())
            }
            Input::Request(request) => {
                write!(f, "request session={} cxid={} op={}", request.session, request.cxid, request.op)
            }
            Input::Revalidate { session, timeout_ms } => {
                write!(f, "revalidate session={session} timeout_ms={timeout_ms}")
            }
            Input::Revalidated { socket, session, is_alive } => {
                write!(f, "revalidated {socket} session={session} is_alive={is_alive}")
            }
            Input::Sync { socket } => write!(f, "sync {socket}"),
            Input::Touched { session, timeout_ms } => write!(f, "touched session={session} timeout_ms={timeout_ms}"),
            Input::Propose { zxid, txn } => write!(f, "propose {zxid} bytes={}", txn.len()),
            Input::EndOfTurn => f.write_str("end_of_turn"),
            Input::Stalled(stall) => write!(f, "stalled ms={}", stall.as_millis()),
            Input::Timeout => f.write_str("timeout"),
            Input::Resign => f.write_str("resign"),
            Input::Stop => f.write_str("stop"),
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::Socket(output) => output.fmt(f),
            Output::Settle => f.write_str("settle"),
            Output::StoreEpochs(epochs) => {
                write!(f, "store_epochs accepted={} current={}", epochs.accepted, epochs.current)
            }
            Output::Append { zxid } => write!(f, "append {zxid}"),
            Output::Commit { upto } => write!(f, "commit {upto}"),
            Output::Truncate { to } => write!(f, "truncate to={to}"),
            Output::LoadBegin { zxid } => write!(f, "load_begin {zxid}"),
            Output::LoadPiece { bytes } => write!(f, "load_piece bytes={}", bytes.len()),
            Output::LoadEnd => f.write_str("load_end"),
            Output::Established { role, leader, zxid } => write!(f, "established {role} leader={leader} zxid={zxid}"),
            Output::Request { socket, request } => {
                write!(f, "request {socket} session={} cxid={} op={}", request.session, request.cxid, request.op)
            }
            Output::Touch { session, timeout_ms } => write!(f, "touch session={session} timeout_ms={timeout_ms}"),
            Output::Revalidate { socket, session, timeout_ms } => {
                write!(f, "revalidate {socket} session={session} timeout_ms={timeout_ms}")
            }
            Output::Revalidated { session, is_alive } => {
                write!(f, "revalidated session={session} is_alive={is_alive}")
            }
            Output::Synced => f.write_str("synced"),
            Output::LinkClosed { socket } => write!(f, "link_closed {socket}"),
            Output::ReadLog { socket, after, upto } => write!(f, "read_log {socket} after={after} upto={upto}"),
            Output::ReadSnapshot { socket } => write!(f, "read_snapshot {socket}"),
            Output::ReadOn { socket } => write!(f, "read_on {socket}"),
            Output::CancelRead { socket } => write!(f, "cancel_read {socket}"),
            Output::Stopped => f.write_str("stopped"),
            Output::Fatal { what } => write!(f, "fatal {what}"),
        }
    }
}
