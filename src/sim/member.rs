//! What only a member of an ensemble has, as `io/member.rs`: peers' sockets, the epoch files, transfers to learners, and the
//! work on its own files that a leader orders.

use std::collections::{BTreeMap, VecDeque};

use super::disk::{Ended, Operation};
use super::network::{End, Listener, Notice, Owner};
use super::process::Around;
use super::restart;
use super::scenario::Addresses;
use super::scheduler::Event;
use crate::server::pipeline::{Output, SnapshotJob};
use crate::server::recovery::TruncateJob;
use crate::storage::log_range::{self, Wanted};
use crate::storage::snapshot_stream::StreamWriter;
use crate::tree::Tree;
use crate::types::limits;
use crate::types::zxid::Zxid;
use crate::zab::transport::{Port, SocketId, SocketOutput};
use crate::zab::{Epochs, LogRead};

/// Something for the zab core.
pub enum MemberInput {
    Accepted { socket: SocketId, port: Port },
    Connected { socket: SocketId },
    Received { socket: SocketId, bytes: Vec<u8> },
    Unsent { socket: SocketId, bytes: usize },
    Closed { socket: SocketId, is_refused: bool },
    EpochsStored(Epochs),
    LogRead { socket: SocketId, read: Option<LogRead> },
    SnapshotPiece { socket: SocketId, zxid: Zxid, bytes: Vec<u8>, is_end: bool },
    Truncated { tree: Box<Tree> },
    Installed { bytes: u64 },
}

impl MemberInput {
    /// The socket that it came from, if it came from one.
    fn is_of_socket(&self) -> bool {
        match self {
            MemberInput::Accepted { .. }
            | MemberInput::Connected { .. }
            | MemberInput::Received { .. }
            | MemberInput::Unsent { .. }
            | MemberInput::Closed { .. } => true,
            MemberInput::EpochsStored(_)
            | MemberInput::LogRead { .. }
            | MemberInput::SnapshotPiece { .. }
            | MemberInput::Truncated { .. }
            | MemberInput::Installed { .. } => false,
        }
    }
}

/// What a disk operation is to a member.
enum Doing {
    Epochs(Epochs),
    Truncate(TruncateJob),
    Install(SnapshotJob),
}

/// Something that is read for a learner.
enum Transfer {
    Log { after: Zxid, upto: Zxid },
    Snapshot { zxid: Zxid, writer: Box<StreamWriter> },
}

pub struct Member {
    boot: u32,
    sockets: BTreeMap<SocketId, End>,
    accepted: u64,
    /// Oldest first.
    inbox: VecDeque<MemberInput>,
    doing: BTreeMap<u64, Doing>,
    /// What the epoch files hold.
    stored: Epochs,
    /// What is read for whom; the number tells it from what the same link asked for before.
    transfers: BTreeMap<SocketId, (u64, Transfer)>,
    next_transfer: u64,
}

impl Member {
    pub fn new(boot: u32, stored: Epochs) -> Member {
        Member {
            boot,
            sockets: BTreeMap::new(),
            accepted: 0,
            inbox: VecDeque::new(),
            doing: BTreeMap::new(),
            stored,
            transfers: BTreeMap::new(),
            next_transfer: 0,
        }
    }

    /// The next thing for the zab core. While it takes nothing from sockets, what they brought waits.
    pub fn next(&mut self, takes_sockets: bool) -> Option<MemberInput> {
        let at = self.inbox.iter().position(|input| takes_sockets || !input.is_of_socket())?;
        self.inbox.remove(at)
    }

    /// Somebody has connected.
    pub fn accept(&mut self, end: End, port: Port) -> SocketId {
        let socket = SocketId(2 * self.accepted + 1);
        self.accepted += 1;
        self.sockets.insert(socket, end);
        self.inbox.push_back(MemberInput::Accepted { socket, port });
        socket
    }

    /// Something happened to a socket. `false`: nothing for the machine.
    pub fn on_notice(&mut self, socket: SocketId, notice: Notice, around: &mut Around<'_>) -> bool {
        let Some(end) = self.sockets.get(&socket).copied() else { return false };
        let mut gone = |is_refused| {
            self.sockets.remove(&socket);
            MemberInput::Closed { socket, is_refused }
        };
        let input = match notice {
            Notice::Connected => MemberInput::Connected { socket },
            Notice::Received(bytes) => MemberInput::Received { socket, bytes },
            Notice::Unsent(bytes) => MemberInput::Unsent { socket, bytes },
            Notice::EndOfStream => {
                around.network.close(around.scheduler, end, false);
                gone(false)
            }
            Notice::Broken { is_reset } => gone(is_reset),
        };
        self.inbox.push_back(input);
        true
    }

    /// Does what the core wants of peers and files.
    pub fn carry_out(&mut self, output: Output<Vec<u8>>, addresses: &Addresses, around: &mut Around<'_>) {
        match output {
            Output::Socket(output) => self.carry_out_socket(output, addresses, around),
            Output::StoreEpochs(epochs) => self.store(epochs, around),
            Output::ReadLog { socket, after, upto } => self.begin(socket, Transfer::Log { after, upto }, around),
            Output::ReadSnapshot { socket, job } => {
                let (zxid, writer) = (job.zxid, Box::new(StreamWriter::new(job.reader)));
                self.begin(socket, Transfer::Snapshot { zxid, writer }, around);
            }
            Output::ReadOn { socket } => {
                if let Some((number, _)) = self.transfers.get(&socket) {
                    self.schedule(*number, around);
                }
            }
            Output::CancelRead { socket } => _ = self.transfers.remove(&socket),
            Output::Truncate(job) => self.start(Operation::Errand, Doing::Truncate(job), around),
            Output::Install(job) => self.start(Operation::Errand, Doing::Install(job), around),
            Output::Log(_)
            | Output::Tell(_)
            | Output::Store { .. }
            | Output::Published
            | Output::Spent { .. }
            | Output::Snapshot(_)
            | Output::Stopped
            | Output::Fatal { .. } => unreachable!("not for a member alone"),
        }
    }

    fn carry_out_socket(&mut self, output: SocketOutput, addresses: &Addresses, around: &mut Around<'_>) {
        around.trace.line(around.scheduler.now(), "peer", format_args!("{output}"));
        match output {
            SocketOutput::Connect { socket, addresses: to } => {
                let found = to.iter().find_map(|address| addresses.get(&(address.host.clone(), address.port)));
                let Some((server, port)) = found.copied() else {
                    return self.inbox.push_back(MemberInput::Closed { socket, is_refused: false });
                };
                let owner = Owner::Peer { server: around.server, boot: self.boot, socket };
                let end = around.network.connect(around.scheduler, owner, server, Listener::Peer(port));
                self.sockets.insert(socket, end);
            }
            SocketOutput::Send { socket, bytes } => {
                let Some(end) = self.sockets.get(&socket).copied() else { return };
                around.trace.mix_bytes(&bytes);
                let bytes = around.network.send(around.scheduler, end, bytes);
                self.inbox.push_back(MemberInput::Unsent { socket, bytes });
            }
            SocketOutput::Hold { socket, is_held } => {
                if let Some(end) = self.sockets.get(&socket) {
                    around.network.pause(around.scheduler, *end, is_held);
                }
            }
            SocketOutput::Close { socket, is_abrupt } => {
                if let Some(end) = self.sockets.remove(&socket) {
                    around.network.close(around.scheduler, end, is_abrupt);
                }
                // Nothing more comes from it, also of what has come already.
                self.inbox.retain(|input| input.socket() != Some(socket));
            }
        }
    }

    /// Only what has changed is written.
    fn store(&mut self, epochs: Epochs, around: &mut Around<'_>) {
        let wanted = [
            ("acceptedEpoch", epochs.accepted, self.stored.accepted),
            ("currentEpoch", epochs.current, self.stored.current),
        ];
        let changed = wanted.into_iter().filter(|(_, new, old)| new != old);
        let files = changed.map(|(name, new, _)| (name.to_owned(), new.to_string().into_bytes())).collect();
        self.start(Operation::PutEpochs { files }, Doing::Epochs(epochs), around);
    }

    fn start(&mut self, operation: Operation, doing: Doing, around: &mut Around<'_>) {
        let (number, done) = around.disk.start(around.scheduler.now(), operation);
        self.doing.insert(number, doing);
        around.schedule_disk(self.boot, number, done, None);
    }

    fn begin(&mut self, socket: SocketId, transfer: Transfer, around: &mut Around<'_>) {
        self.next_transfer += 1;
        self.transfers.insert(socket, (self.next_transfer, transfer));
        self.schedule(self.next_transfer, around);
    }

    fn schedule(&self, number: u64, around: &mut Around<'_>) {
        let at = around.scheduler.now() + around.dice.spread(100..=10_000);
        around.scheduler.at(at, Event::Transfer { server: around.server, boot: self.boot, number });
    }

    /// The next piece for a learner is read.
    ///
    /// Errors: what must never be.
    pub fn on_transfer(&mut self, number: u64, around: &mut Around<'_>) -> Result<(), String> {
        let found = self.transfers.iter_mut().find(|(_, (of, _))| *of == number);
        let Some((socket, (_, transfer))) = found else { return Ok(()) };
        let socket = *socket;
        let (input, is_end) = match transfer {
            Transfer::Log { after, upto } => {
                let read = read_log(*after, *upto, around)?;
                (MemberInput::LogRead { socket, read }, true)
            }
            Transfer::Snapshot { zxid, writer } => {
                let mut bytes = Vec::new();
                let is_end = writer.write(around.dice.within(1..=3000) as usize, &mut bytes);
                (MemberInput::SnapshotPiece { socket, zxid: *zxid, bytes, is_end }, is_end)
            }
        };
        if is_end {
            self.transfers.remove(&socket);
        }
        self.inbox.push_back(input);
        Ok(())
    }

    /// A disk operation has ended. `None`: it was none of a member's.
    ///
    /// Errors: what must never be.
    pub fn on_disk(&mut self, number: u64, ended: Ended, around: &mut Around<'_>) -> Option<Result<(), String>> {
        let input = match self.doing.remove(&number)? {
            Doing::Epochs(epochs) => {
                debug_assert_eq!(ended, Ended::Done);
                self.stored = epochs;
                Ok(MemberInput::EpochsStored(epochs))
            }
            errand => work(errand, around),
        };
        Some(input.map(|input| self.inbox.push_back(input)))
    }

    /// The process is killed while its helper works on the files: any beginning of that work may have been done.
    pub fn leave_half_done(&mut self, around: &mut Around<'_>) -> Result<(), String> {
        let front = around.disk.helper_front();
        let Some(errand) = front.and_then(|number| self.doing.remove(&number)) else { return Ok(()) };
        if let Doing::Epochs(_) = errand {
            return Ok(());
        }
        let mut changed = around.disk.clone();
        let mut half = Around { disk: &mut changed, ..around.reborrow() };
        work(errand, &mut half)?;
        around.disk.change_partly(&changed);
        Ok(())
    }
}

impl MemberInput {
    fn socket(&self) -> Option<SocketId> {
        match self {
            MemberInput::Accepted { socket, .. }
            | MemberInput::Connected { socket }
            | MemberInput::Received { socket, .. }
            | MemberInput::Unsent { socket, .. }
            | MemberInput::Closed { socket, .. } => Some(*socket),
            MemberInput::EpochsStored(_)
            | MemberInput::LogRead { .. }
            | MemberInput::SnapshotPiece { .. }
            | MemberInput::Truncated { .. }
            | MemberInput::Installed { .. } => None,
        }
    }
}

fn read_log(after: Zxid, upto: Zxid, around: &mut Around<'_>) -> Result<Option<LogRead>, String> {
    let io = |error: std::io::Error| format!("the log could not be read for a learner: {error}");
    around.disk.write_out(&around.scratch.directory()).map_err(io)?;
    let wanted = Wanted {
        after,
        upto,
        bytes: around.dice.within(1..=20_000) as usize,
        file_bytes_max: if around.dice.one_in(4) { 0 } else { u64::MAX },
        payload_bytes_max: around.scenario.zab.entry_bytes_max,
    };
    let read = log_range::read(around.scratch.dirs(), &wanted).map_err(io)?;
    Ok(read.map(|(stretch, _)| LogRead { previous: stretch.previous, txns: stretch.txns }))
}

/// The helper's work on the files, all of it.
fn work(errand: Doing, around: &mut Around<'_>) -> Result<MemberInput, String> {
    match errand {
        Doing::Truncate(job) => {
            let tree = restart::truncate(around.scratch, around.disk, around.scenario, job)?;
            around.logged.rebuild(around.disk, |_, _| {});
            around.order.on_log_changed(around.server);
            Ok(MemberInput::Truncated { tree: Box::new(tree) })
        }
        Doing::Install(job) => {
            let bytes = restart::install(around.scratch, around.disk, around.scenario, job)?;
            around.logged.rebuild(around.disk, |_, _| {});
            around.order.on_log_changed(around.server);
            Ok(MemberInput::Installed { bytes })
        }
        Doing::Epochs(epochs) => Ok(MemberInput::EpochsStored(epochs)),
    }
}

/// Pieces of a snapshot as small as these cut records anywhere.
const _: () = assert!(limits::SNAPSHOT_PIECE_BYTES > 3000);
