//! What goes into the zab core and what comes out, on one line each.

use std::fmt;

use super::pipeline::{Input, Output};

impl<B> fmt::Display for Input<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Batch { shard, batch } => write!(f, "{batch} of shard {}", shard.0),
            Input::Log(input) => write!(f, "log {input}"),
            Input::Socket(input) => input.fmt(f),
            Input::EpochsStored(epochs) => {
                write!(f, "epochs_stored accepted={} current={}", epochs.accepted, epochs.current)
            }
            Input::LogRead { socket, read: None } => write!(f, "log_read {socket} nothing"),
            Input::LogRead { socket, read: Some(read) } => {
                write!(f, "log_read {socket} previous={} txns={}", read.previous, read.txns.len())
            }
            Input::SnapshotPiece { socket, zxid, bytes, is_end } => {
                write!(f, "snapshot_piece {socket} zxid={zxid} bytes={} is_end={is_end}", bytes.len())
            }
            Input::Truncated { tree } => write!(f, "truncated head={} published={}", tree.head(), tree.published()),
            Input::Installed { bytes } => write!(f, "installed bytes={bytes}"),
            Input::EndOfTurn => f.write_str("end_of_turn"),
            Input::SnapshotDone { bytes } => write!(f, "snapshot_done bytes={bytes}"),
            Input::Stalled(stall) => write!(f, "stalled ms={}", stall.as_millis()),
            Input::Timeout => f.write_str("timeout"),
            Input::Stop => f.write_str("stop"),
        }
    }
}

impl<B> fmt::Display for Output<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::Log(output) => write!(f, "log {output}"),
            Output::Tell(told) => write!(f, "tell shard {} {}", told.shard.0, told.tell),
            Output::Store { shard, store } => write!(f, "store for shard {}: {store:?}", shard.0),
            Output::Published => f.write_str("published"),
            Output::Spent { shard, .. } => write!(f, "spent of shard {}", shard.0),
            Output::Snapshot(job) => write!(f, "snapshot {}", job.zxid),
            Output::Socket(output) => output.fmt(f),
            Output::StoreEpochs(epochs) => {
                write!(f, "store_epochs accepted={} current={}", epochs.accepted, epochs.current)
            }
            Output::ReadLog { socket, after, upto } => write!(f, "read_log {socket} after={after} upto={upto}"),
            Output::ReadSnapshot { socket, job } => write!(f, "read_snapshot {socket} zxid={}", job.zxid),
            Output::ReadOn { socket } => write!(f, "read_on {socket}"),
            Output::CancelRead { socket } => write!(f, "cancel_read {socket}"),
            Output::Truncate(job) => match job.shown {
                Some(shown) => write!(f, "truncate to={} shown={shown}", job.to),
                None => write!(f, "truncate to={} shown=nothing", job.to),
            },
            Output::Install(job) => write!(f, "install {}", job.zxid),
            Output::Stopped => f.write_str("stopped"),
            Output::Fatal { what } => write!(f, "fatal {what}"),
        }
    }
}
