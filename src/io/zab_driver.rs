//! The zab core's machine, with its log, its helpers and its queues.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::clock;
use super::cores::Fatal;
use super::disk::DiskEvent;
use super::log_driver::LogDriver;
use super::mail::{ToShard, ToZab};
use super::member::{MemberDriver, MemberInput};
use super::mesh::{Full, Inbox, Outbox};
use super::process::Process;
use super::ring::{Event, LogBuffer, Ring};
use super::snapshot_writer::{SnapshotDone, SnapshotHelper};
use crate::ops::four_letter::{self, Word};
use crate::server::pipeline::{Input, Now, Output, ZabCore};
use crate::server::reigns::Reigns;
use crate::server::stats::ZabStats;
use crate::server::status::{Command, Mode, Status, ZabStatus};
use crate::shard::status::{Needs, ShardStatus};
use crate::types::ids::{ConnectionId, ShardId};
use crate::types::time::Time;

/// Four-letter words that may be worked on at once. One more is closed without an answer.
const TICKETS_MAX: usize = 64;

/// A four-letter word whose parts are being collected.
struct Ticket {
    number: u64,
    shard: ShardId,
    connection: ConnectionId,
    word: Word,
    argument: i64,
    parts: Vec<ShardStatus>,
}

/// The zab core's side of the queues, one of each per shard.
pub struct ZabQueues {
    pub from_shards: Vec<Inbox<ToZab>>,
    pub to_shards: Vec<Outbox<ToShard>>,
    pub disk: Inbox<DiskEvent>,
    pub snapshots: Inbox<SnapshotDone>,
}

pub struct ZabDriver {
    zab: ZabCore<LogBuffer>,
    out: Vec<Output<LogBuffer>>,
    queues: ZabQueues,
    /// What a shard's full queue did not take. Bounded by what that shard has asked.
    unsent: Vec<VecDeque<ToShard>>,
    log: LogDriver,
    snapshots: SnapshotHelper,
    /// `None` for a server that stands alone.
    member: Option<MemberDriver>,
    reigns: Option<Reigns>,
    process: Arc<Process>,
    stats: ZabStats,
    tickets: Vec<Ticket>,
    next_ticket: u64,
    is_stopping: bool,
    has_stopped: bool,
    /// Why the process must end.
    fatal: Option<Fatal>,
}

impl ZabDriver {
    pub fn new(
        zab: ZabCore<LogBuffer>,
        out: Vec<Output<LogBuffer>>,
        queues: ZabQueues,
        log: LogDriver,
        snapshots: SnapshotHelper,
        member: Option<MemberDriver>,
        process: Arc<Process>,
    ) -> ZabDriver {
        let mut stats = ZabStats::default();
        let reigns = member.is_some().then(|| Reigns::new(clock::now(), zab.zab(), &mut stats));
        let unsent = queues.to_shards.iter().map(|_| VecDeque::new()).collect();
        ZabDriver {
            zab,
            out,
            queues,
            unsent,
            log,
            snapshots,
            member,
            reigns,
            process,
            stats,
            tickets: Vec::new(),
            next_ticket: 0,
            is_stopping: false,
            has_stopped: false,
            fatal: None,
        }
    }

    pub fn deadline(&self) -> Option<Time> {
        let member = self.member.as_ref().and_then(MemberDriver::deadline);
        [self.zab.deadline(), member].into_iter().flatten().min()
    }

    pub fn is_member(&self) -> bool {
        self.member.is_some()
    }

    /// Whether an event of the ring is for this driver.
    pub fn concerns(&self, event: &Event) -> bool {
        matches!(event, Event::Written { .. }) || self.member.as_ref().is_some_and(|member| member.concerns(event))
    }

    pub fn nothing_waits(&self) -> bool {
        let queues = &self.queues;
        // What the log has no room for waits for the log, whose writes and helper wake this core.
        (!self.zab.takes_batches() || queues.from_shards.iter().all(Inbox::is_empty))
            && queues.disk.is_empty()
            && queues.snapshots.is_empty()
            && self.member.as_ref().is_none_or(|member| member.nothing_waits(self.zab.takes_sockets()))
            && (self.is_stopping || !self.process.is_stopping())
    }

    pub fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    /// For the end after a failure: a helper that is stuck in a broken disk must not keep the process.
    pub fn abandon_helpers(&mut self) {
        self.log.abandon_helper();
        self.snapshots.abandon();
        if let Some(member) = &mut self.member {
            member.abandon_helpers();
        }
    }

    /// Why the process must end now, if it must.
    pub fn fatal(&self) -> Option<Fatal> {
        self.fatal.clone().or_else(|| self.member.as_ref()?.fatal())
    }

    /// The machine's first wishes, from its making.
    pub fn start(&mut self, ring: &mut Ring) {
        self.carry_out(ring);
    }

    /// A stall of this process is nobody's silence.
    pub fn on_stall(&mut self, now: Now, stall: Duration, ring: &mut Ring) {
        self.step(now, Input::Stalled(stall), ring);
    }

    /// What shards and helpers have for the zab core. Returns whether there was anything.
    pub fn take_mail(&mut self, now: Now, ring: &mut Ring) -> bool {
        let mut any = false;
        while let Some(event) = self.queues.disk.pop() {
            any = true;
            if let Some(input) = self.log.on_disk(ring, event) {
                self.step(now, Input::Log(input), ring);
            }
        }
        while let Some(done) = self.queues.snapshots.pop() {
            any = true;
            self.on_snapshot_done(now, &done, ring);
        }
        while let Some(member) = &mut self.member
            && let Some(input) = member.next(now.time, self.zab.takes_sockets(), ring)
        {
            any = true;
            self.on_member(now, input, ring);
        }
        for shard in 0..self.queues.from_shards.len() {
            // Back pressure: what is left fills the queue, and its shard stops reading.
            while self.zab.takes_batches()
                && let Some(mail) = self.queues.from_shards[shard].pop()
            {
                any = true;
                self.on_mail(now, ShardId(shard as u16), mail, ring);
            }
        }
        if self.process.is_stopping() && !self.is_stopping {
            any = true;
            self.is_stopping = true;
            self.step(now, Input::Stop, ring);
        }
        any
    }

    fn on_mail(&mut self, now: Now, shard: ShardId, mail: ToZab, ring: &mut Ring) {
        match mail {
            ToZab::Batch(batch) => self.step(now, Input::Batch { shard, batch }, ring),
            ToZab::Word { shard, connection, word, argument } => self.on_word(shard, connection, word, argument),
            ToZab::Collected { ticket, status } => self.on_collected(now, ticket, *status),
        }
    }

    /// One completion of the ring that `concerns` this driver.
    pub fn on_event(&mut self, now: Now, event: Event, ring: &mut Ring) {
        if let Event::Written { token, buffer, result } = event {
            if let Some(input) = self.log.on_written(token, buffer, result) {
                self.step(now, Input::Log(input), ring);
            }
        } else if let Some(member) = &mut self.member
            && let Some(input) = member.on_event(event, self.zab.takes_sockets(), ring)
        {
            self.zab.step(now, Input::Socket(input), &mut self.out);
            self.carry_out(ring);
        }
    }

    fn on_member(&mut self, now: Now, input: MemberInput, ring: &mut Ring) {
        let input = match input {
            MemberInput::News(news) => return self.step(now, Input::Socket(news.as_input()), ring),
            MemberInput::EpochsStored(epochs) => Input::EpochsStored(epochs),
            MemberInput::LogRead { socket, read } => Input::LogRead { socket, read },
            MemberInput::SnapshotPiece { socket, zxid, bytes, is_end } => {
                Input::SnapshotPiece { socket, zxid, bytes, is_end }
            }
            MemberInput::Truncated { tree } => Input::Truncated { tree },
            MemberInput::Installed { bytes } => Input::Installed { bytes },
            MemberInput::Fatal(fatal) => {
                self.fatal = Some(fatal);
                return;
            }
        };
        self.step(now, input, ring);
    }

    /// Ends the turn: what was proposed goes to the log.
    pub fn end_turn(&mut self, now: Now, ring: &mut Ring) {
        if self.zab.deadline().is_some_and(|deadline| deadline <= now.time) {
            self.step(now, Input::Timeout, ring);
        }
        self.step(now, Input::EndOfTurn, ring);
        if let Some(member) = &mut self.member {
            member.end_turn(self.zab.takes_sockets(), ring);
        }
        if let Some(reigns) = &mut self.reigns {
            reigns.on_turn(now.time, self.zab.zab(), &mut self.stats);
        }
        for (shard, unsent) in self.unsent.iter_mut().enumerate() {
            while let Some(mail) = unsent.pop_front() {
                if let Err(Full(mail)) = self.queues.to_shards[shard].push(mail) {
                    unsent.push_front(mail);
                    break;
                }
            }
            self.queues.to_shards[shard].notify();
        }
    }

    fn on_snapshot_done(&mut self, now: Now, done: &SnapshotDone, ring: &mut Ring) {
        match &done.result {
            Ok(bytes) => {
                self.stats.snapshottime.record(u32::try_from(done.took.as_micros()).unwrap_or(u32::MAX));
                tracing::info!(bytes, took_ms = done.took.as_millis() as u64, "snapshot written");
                self.step(now, Input::SnapshotDone { bytes: *bytes }, ring);
            }
            Err(error) => {
                self.stats.snapshot_error_count += 1;
                tracing::error!(%error, "snapshot could not be written; the log keeps everything, the next one is tried later");
                self.step(now, Input::SnapshotDone { bytes: 0 }, ring);
            }
        }
    }

    fn on_word(&mut self, shard: ShardId, connection: ConnectionId, word: Word, argument: i64) {
        if self.tickets.len() >= TICKETS_MAX {
            return self.tell(shard, ToShard::Respond { connection, text: Vec::new() });
        }
        let number = self.next_ticket;
        self.next_ticket += 1;
        self.tickets.push(Ticket { number, shard, connection, word, argument, parts: Vec::new() });
        for shard in 0..self.queues.to_shards.len() {
            self.tell(ShardId(shard as u16), ToShard::Collect { ticket: number, needs: word.needs() });
        }
    }

    fn on_collected(&mut self, now: Now, number: u64, part: ShardStatus) {
        let Some(at) = self.tickets.iter().position(|ticket| ticket.number == number) else { return };
        self.tickets[at].parts.push(part);
        if self.tickets[at].parts.len() < self.queues.to_shards.len() {
            return;
        }
        let Ticket { shard, connection, word, argument, parts, .. } = self.tickets.swap_remove(at);
        let needs = word.needs();
        let status = Status::collect(
            self.process.settings.clone(),
            self.process.environment.clone(),
            self.process.status(needs, now),
            self.zab_status(needs, now),
            parts,
        );
        let answer = four_letter::answer(word, argument, &status);
        self.tell(shard, ToShard::Respond { connection, text: answer.text.into_bytes() });
        if let Some(command) = answer.command {
            self.carry_out_command(command);
        }
    }

    fn zab_status(&self, needs: Needs, now: Now) -> ZabStatus {
        let mut status = self.zab.status(needs, now, self.stats());
        if let (Mode::Leader(leader), Some(reigns)) = (&mut status.mode, &self.reigns) {
            *leader = reigns.leader_status(now.time, self.zab.zab());
        }
        status
    }

    fn carry_out_command(&mut self, command: Command) {
        match command {
            Command::ResetServerStats => {
                self.stats.reset();
                self.zab.reset_stats();
                self.log.times = Default::default();
            }
            Command::SetTraceMask(mask) => self.process.set_trace_mask(mask),
            Command::ResetConnectionStats => {}
        }
        for shard in 0..self.queues.to_shards.len() {
            self.tell(ShardId(shard as u16), ToShard::Command(command));
        }
    }

    fn stats(&self) -> ZabStats {
        ZabStats {
            fsynctime: self.log.times.fsync,
            fsync_threshold_exceed_count: self.log.times.threshold_exceeded,
            ..self.stats.clone()
        }
    }

    fn tell(&mut self, shard: ShardId, mail: ToShard) {
        let at = usize::from(shard.0);
        if self.unsent[at].is_empty() {
            if let Err(Full(mail)) = self.queues.to_shards[at].push(mail) {
                self.unsent[at].push_back(mail);
            }
        } else {
            self.unsent[at].push_back(mail);
        }
    }

    fn step(&mut self, now: Now, input: Input<'_, LogBuffer>, ring: &mut Ring) {
        self.zab.step(now, input, &mut self.out);
        self.carry_out(ring);
    }

    fn carry_out(&mut self, ring: &mut Ring) {
        if self.out.is_empty() {
            return;
        }
        let mut out = std::mem::take(&mut self.out);
        for output in out.drain(..) {
            match output {
                Output::Log(output) => {
                    if let Err(what) = self.log.carry_out(ring, output) {
                        self.fatal = Some(what.into());
                    }
                }
                Output::Tell(told) => self.tell(told.shard, ToShard::Tell(told.tell)),
                Output::Store { shard, store } => self.tell(shard, ToShard::Store(store)),
                Output::Published => self.process.ring_shards(),
                Output::Spent { shard, batch } => self.tell(shard, ToShard::Spent(batch)),
                Output::Snapshot(job) => self.snapshots.write(job),
                Output::Stopped => {
                    self.has_stopped = true;
                    for shard in 0..self.queues.to_shards.len() {
                        self.tell(ShardId(shard as u16), ToShard::Stop);
                    }
                }
                Output::Socket(_)
                | Output::StoreEpochs(_)
                | Output::ReadLog { .. }
                | Output::ReadSnapshot { .. }
                | Output::ReadOn { .. }
                | Output::CancelRead { .. }
                | Output::Truncate(_)
                | Output::Install(_) => {
                    if let Err(what) = self.carry_out_for_member(output, ring) {
                        self.fatal = Some(what.into());
                    }
                }
                Output::Fatal { what } => self.fatal = Some(what.into()),
            }
        }
        self.out = out;
    }

    fn carry_out_for_member(&mut self, output: Output<LogBuffer>, ring: &mut Ring) -> Result<(), String> {
        let Some(member) = &mut self.member else {
            return Err("a server that stands alone has no peers".to_owned());
        };
        match output {
            Output::Socket(output) => member.carry_out(output, ring),
            Output::StoreEpochs(epochs) => member.store_epochs(epochs),
            Output::ReadLog { socket, after, upto } => member.read_log(socket, after, upto),
            Output::ReadSnapshot { socket, job } => member.read_snapshot(socket, job)?,
            Output::ReadOn { socket } => member.read_on(socket),
            Output::CancelRead { socket } => member.cancel_read(socket),
            Output::Truncate(job) => self.log.run_errand(member.truncate(job))?,
            Output::Install(job) => self.log.run_errand(member.install(job))?,
            Output::Log(_)
            | Output::Tell(_)
            | Output::Store { .. }
            | Output::Published
            | Output::Spent { .. }
            | Output::Snapshot(_)
            | Output::Stopped
            | Output::Fatal { .. } => unreachable!("not for a member alone"),
        }
        Ok(())
    }
}
