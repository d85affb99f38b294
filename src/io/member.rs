//! What only a member of an ensemble has: peers' sockets, the epoch files, transfers to learners, and the rare work on its own
//! files that a leader orders. One `MemberDriver` belongs to the zab core's driver.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, unbounded};

use super::cores::Fatal;
use super::disk::Errand;
use super::epoch_writer::{EpochWriter, EpochsWritten};
use super::mesh::{Doorbell, Inbox, channel};
use super::peer::{News, PeerSettings, Peers};
use super::ring::{Event, Ring};
use super::snapshot_writer::{self, SnapshotWriterSettings};
use super::transfers::{Answer, TransferSettings, Transfers};
use crate::server::pipeline::SnapshotJob;
use crate::server::recovery::{self, TruncateJob};
use crate::storage::epochs;
use crate::storage::recovery::RecoveryOptions;
use crate::storage::snapshot_stream::StreamWriter;
use crate::tree::{Tree, TreeSettings};
use crate::types::limits;
use crate::types::time::Time;
use crate::types::zxid::Zxid;
use crate::zab::quorum::Ensemble;
use crate::zab::transport::{SocketId, SocketInput, SocketOutput};
use crate::zab::{self, Epochs, LogRead};

/// Changes of the epochs that may be on their way to the disk: the machine asks for one at a time.
const EPOCHS_MAX: usize = 4;

/// They usually take a few milliseconds.
const SLOW_EPOCHS: Duration = Duration::from_millis(250);

/// What the process exits with when a leader's order to cut the log cannot be obeyed, and when a port cannot be bound.
const TRUNCATION_FAILED: i32 = 13;
const CANNOT_LISTEN: i32 = 14;

/// What of the configuration it needs.
#[derive(Clone, Debug)]
pub struct MemberSettings {
    pub zab: zab::settings::Settings,
    pub ensemble: Ensemble,
    pub peers: PeerSettings,
    pub snapshot_size_factor: Option<f64>,
}

/// Something for the zab core.
pub enum MemberInput {
    News(News),
    EpochsStored(Epochs),
    LogRead {
        socket: SocketId,
        read: Option<LogRead>,
    },
    SnapshotPiece {
        socket: SocketId,
        zxid: Zxid,
        bytes: Vec<u8>,
        is_end: bool,
    },
    Truncated {
        tree: Box<Tree>,
    },
    Installed {
        bytes: u64,
    },
    /// The process must end.
    Fatal(Fatal),
}

/// What became of an errand.
type ErrandDone = Result<MemberInput, Fatal>;

/// How to work on the directories.
struct Files {
    recovery: RecoveryOptions,
    tree: TreeSettings,
    snapshots: SnapshotWriterSettings,
}

/// Everything that can be made before the core's thread runs.
pub struct MemberPlan {
    settings: MemberSettings,
    epochs: EpochWriter,
    epochs_written: Inbox<EpochsWritten>,
    transfers: Transfers,
    files: Arc<Files>,
    doorbell: Doorbell,
}

impl MemberPlan {
    /// `stored`: what the epoch files hold. `doorbell` wakes the zab core.
    pub fn new(
        settings: MemberSettings,
        stored: epochs::Epochs,
        recovery: RecoveryOptions,
        tree: TreeSettings,
        snapshots: SnapshotWriterSettings,
        doorbell: Doorbell,
    ) -> io::Result<MemberPlan> {
        let (done, epochs_written) = channel(EPOCHS_MAX, &doorbell);
        let transfers = TransferSettings {
            dirs: recovery.dirs.clone(),
            payload_bytes_max: recovery.payload_bytes_max,
            snapshot_size_factor: settings.snapshot_size_factor,
        };
        Ok(MemberPlan {
            settings,
            epochs: EpochWriter::start(recovery.dirs.snapshots(), stored, done)?,
            epochs_written,
            transfers: Transfers::start(transfers, doorbell.clone())?,
            files: Arc::new(Files { recovery, tree, snapshots }),
            doorbell,
        })
    }

    /// On the core's thread.
    pub fn sit_down(self, ring: &mut Ring) -> MemberDriver {
        let (errand_done, errands_done) = unbounded();
        MemberDriver {
            peers: Peers::new(self.settings.peers, self.doorbell.clone(), ring),
            epochs: self.epochs,
            epochs_written: self.epochs_written,
            transfers: self.transfers,
            files: self.files,
            errand_done,
            errands_done,
            doorbell: self.doorbell,
        }
    }
}

pub struct MemberDriver {
    peers: Peers,
    epochs: EpochWriter,
    epochs_written: Inbox<EpochsWritten>,
    transfers: Transfers,
    files: Arc<Files>,
    /// One at a time.
    errand_done: Sender<ErrandDone>,
    errands_done: Receiver<ErrandDone>,
    doorbell: Doorbell,
}

impl MemberDriver {
    pub fn concerns(&self, event: &Event) -> bool {
        self.peers.concerns(event)
    }

    /// One event that concerns it. `takes_sockets`: see `ZabCore::takes_sockets`.
    pub fn on_event<'r>(&mut self, event: Event, takes_sockets: bool, ring: &'r mut Ring) -> Option<SocketInput<'r>> {
        self.peers.on_event(event, takes_sockets, ring)
    }

    /// What has come from helpers and otherwise than through the ring, one at a time.
    pub fn next(&mut self, now: Time, takes_sockets: bool, ring: &mut Ring) -> Option<MemberInput> {
        if let Some(written) = self.epochs_written.pop() {
            return Some(on_epochs(written));
        }
        if let Ok(done) = self.errands_done.try_recv() {
            return Some(done.unwrap_or_else(MemberInput::Fatal));
        }
        if let Some(answer) = self.transfers.pop() {
            return Some(match answer {
                Answer::LogRead { socket, read } => MemberInput::LogRead { socket, read },
                Answer::SnapshotPiece { socket, zxid, bytes, is_end } => {
                    MemberInput::SnapshotPiece { socket, zxid, bytes, is_end }
                }
            });
        }
        self.peers.take_news(now, takes_sockets, ring).map(MemberInput::News)
    }

    pub fn nothing_waits(&self, takes_sockets: bool) -> bool {
        self.epochs_written.is_empty()
            && self.errands_done.is_empty()
            && self.transfers.nothing_waits()
            && self.peers.nothing_waits(takes_sockets)
    }

    pub fn deadline(&self) -> Option<Time> {
        self.peers.deadline()
    }

    /// A port could not be bound, however often it was tried.
    pub fn fatal(&self) -> Option<Fatal> {
        self.peers.fatal().map(|what| Fatal { what: what.to_string(), exit_code: CANNOT_LISTEN })
    }

    /// For the end after a failure.
    pub fn abandon_helpers(&mut self) {
        self.epochs.abandon();
    }

    pub fn end_turn(&mut self, takes_sockets: bool, ring: &mut Ring) {
        self.peers.end_turn(takes_sockets, ring);
    }

    pub fn carry_out(&mut self, output: SocketOutput, ring: &mut Ring) {
        self.peers.carry_out(output, ring);
    }

    pub fn store_epochs(&self, epochs: Epochs) {
        self.epochs.store(epochs);
    }

    pub fn read_log(&mut self, socket: SocketId, after: Zxid, upto: Zxid) {
        self.transfers.read_log(socket, after, upto);
    }

    /// Errors: the system gives no thread.
    pub fn read_snapshot(&mut self, socket: SocketId, job: SnapshotJob) -> Result<(), String> {
        let zxid = job.zxid;
        let mut writer = StreamWriter::new(job.reader);
        let next = move |out: &mut Vec<u8>| writer.write(limits::SNAPSHOT_PIECE_BYTES, out);
        let begun = self.transfers.read_snapshot(socket, zxid, Box::new(next));
        begun.map_err(|error| format!("no thread to read a snapshot for a learner: {error}"))
    }

    pub fn read_on(&mut self, socket: SocketId) {
        self.transfers.read_on(socket);
    }

    pub fn cancel_read(&mut self, socket: SocketId) {
        self.transfers.cancel(socket);
    }

    /// Cuts the log and builds the tree anew.
    pub fn truncate(&self, job: TruncateJob) -> Errand {
        self.errand(move |files| match recovery::truncate(&files.recovery, &files.tree, job) {
            Ok(tree) => Ok(MemberInput::Truncated { tree: Box::new(tree) }),
            Err(error) => {
                let what = format!("the log could not be cut behind {}: {error}", job.to);
                Err(Fatal { what, exit_code: TRUNCATION_FAILED })
            }
        })
    }

    /// Makes a leader's snapshot ours.
    pub fn install(&self, job: SnapshotJob) -> Errand {
        self.errand(move |files| match snapshot_writer::install(&files.snapshots, &files.recovery, job) {
            Ok(bytes) => Ok(MemberInput::Installed { bytes }),
            Err(error) => Err(format!("the leader's snapshot could not be written: {error}").into()),
        })
    }

    fn errand(&self, work: impl FnOnce(&Files) -> ErrandDone + Send + 'static) -> Errand {
        let (files, done, doorbell) = (Arc::clone(&self.files), self.errand_done.clone(), self.doorbell.clone());
        Errand(Box::new(move || {
            // Nobody waits any more if the server is stopping.
            let _ = done.send(work(&files));
            doorbell.ring();
        }))
    }
}

fn on_epochs(written: EpochsWritten) -> MemberInput {
    let EpochsWritten { epochs, result, took } = written;
    match result {
        Ok(()) => {
            if took > SLOW_EPOCHS {
                tracing::warn!(
                    took_ms = took.as_millis() as u64,
                    "writing the epoch files took long; every change of leader waits for it: look at the disk"
                );
            }
            tracing::debug!(
                accepted = epochs.accepted,
                current = epochs.current,
                took_us = took.as_micros() as u64,
                "epochs stored"
            );
            MemberInput::EpochsStored(epochs)
        }
        Err(error) => MemberInput::Fatal(
            format!(
                "the epochs {} and {} could not be written to acceptedEpoch and currentEpoch: {error}. Nothing was promised, \
                 and it is not tried again: look at the disk, then start anew",
                epochs.accepted, epochs.current
            )
            .into(),
        ),
    }
}
