//! What the log and the agreement machine want done, carried out in order.
//!
//! What concerns sockets and other files leaves at once. What concerns tree, log and sessions waits in line: an entry needs room
//! in the log, and while the files themselves are worked on nothing else may happen to them.

use smallvec::SmallVec;

use super::pipeline::{Now, Output, ZabCore};
use crate::storage::log;
use crate::types::limits;
use crate::types::time::Time;
use crate::types::zxid::Zxid;
use crate::wire::peek;
use crate::zab::transport::SocketId;
use crate::zab::{self, RoleName, Zab};

/// The agreement machine, with what it has said and nobody has looked at yet.
pub(super) struct Agreement {
    pub machine: Zab,
    pub out: Vec<zab::Output>,
    /// It was told something since the last `EndOfTurn`, and may have something to send.
    has_news: bool,
    /// The test speaks in its place.
    #[cfg(test)]
    pub script: Option<Script>,
}

/// An agreement machine that a test plays.
#[cfg(test)]
#[derive(Default)]
pub(super) struct Script {
    /// What it was told, one line each.
    pub heard: Vec<String>,
    pub txns: std::collections::BTreeMap<Zxid, Vec<u8>>,
}

impl Agreement {
    pub fn new(machine: Zab, out: Vec<zab::Output>) -> Agreement {
        Agreement {
            machine,
            out,
            has_news: true,
            #[cfg(test)]
            script: None,
        }
    }

    pub fn step(&mut self, now: Time, input: zab::Input<'_>) {
        self.has_news = true;
        #[cfg(test)]
        if let Some(script) = &mut self.script {
            return script.heard.push(input.to_string());
        }
        self.machine.step(now, input, &mut self.out);
    }

    /// The bytes of a txn at the end of the log.
    pub fn txn(&self, zxid: Zxid) -> Option<&[u8]> {
        #[cfg(test)]
        if let Some(script) = &self.script {
            return script.txns.get(&zxid).map(Vec::as_slice);
        }
        self.machine.history().txn(zxid)
    }

    /// Everything that came is stepped; whether that was anything.
    pub fn end_turn(&mut self, now: Time) -> bool {
        let had_news = std::mem::take(&mut self.has_news);
        if had_news {
            self.machine.step(now, zab::Input::EndOfTurn, &mut self.out);
        }
        had_news
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> ZabCore<B> {
    /// Steps the agreement machine. What it wants done with tree, log and sessions waits its turn in `carry_out`.
    pub(super) fn step_zab(&mut self, now: Now, input: zab::Input<'_>, out: &mut Vec<Output<B>>) {
        self.zab.step(now.time, input);
        self.sort_zab_out(out);
    }

    fn sort_zab_out(&mut self, out: &mut Vec<Output<B>>) {
        let mut outputs = std::mem::take(&mut self.zab.out);
        for output in outputs.drain(..) {
            match output {
                zab::Output::Socket(output) => out.push(Output::Socket(output)),
                zab::Output::StoreEpochs(epochs) => out.push(Output::StoreEpochs(epochs)),
                zab::Output::ReadLog { socket, after, upto } => out.push(Output::ReadLog { socket, after, upto }),
                zab::Output::ReadOn { socket } => out.push(Output::ReadOn { socket }),
                zab::Output::CancelRead { socket } => {
                    self.forget_waiting(
                        |waiting| matches!(waiting, zab::Output::ReadSnapshot { socket: of } if *of == socket),
                    );
                    out.push(Output::CancelRead { socket });
                }
                zab::Output::LinkClosed { socket } => {
                    // Whoever is behind it asks again over another link, so nothing of this one may take effect any more.
                    self.forget_waiting(|waiting| is_request_of(waiting, socket));
                    self.waiting.push_back(zab::Output::LinkClosed { socket });
                }
                zab::Output::Fatal { what } => out.push(Output::Fatal { what }),
                output @ zab::Output::Settle => {
                    // Whoever asked a leader that is none any more asks the next one.
                    self.forget_waiting(is_asked_of_leader);
                    self.waiting.push_back(output);
                }
                output => {
                    self.waiting_bytes += bytes_of(&output);
                    self.waiting.push_back(output);
                }
            }
        }
        self.zab.out = outputs;
    }

    fn forget_waiting(&mut self, is_moot: impl Fn(&zab::Output) -> bool) {
        self.waiting.retain(|waiting| !is_moot(waiting));
        self.waiting_bytes = self.waiting.iter().map(bytes_of).sum();
    }

    /// Does what log and agreement machine want, until there is nothing left that can be done now.
    pub(super) fn carry_out(&mut self, now: Now, out: &mut Vec<Output<B>>) {
        loop {
            if !self.zab.out.is_empty() {
                self.sort_zab_out(out);
            } else if !self.log_out.is_empty() {
                self.drain_log(now, out);
            } else if let Some(output) = self.next_waiting() {
                self.on_zab(now, output, out);
            } else {
                break;
            }
        }
        self.publish_committed(out);
        self.try_to_settle(now, out);
    }

    /// The next wish of the agreement machine, if it can be fulfilled now.
    fn next_waiting(&mut self) -> Option<zab::Output> {
        if self.waiting.len() > 1 && self.warmed == 0 {
            self.warm_waiting();
        }
        let can_be_done = match self.waiting.front()? {
            zab::Output::Append { .. } | zab::Output::Request { .. } => self.install.is_idle() && self.has_room(),
            zab::Output::LoadPiece { .. } | zab::Output::LoadEnd | zab::Output::Settle => true,
            _ => self.install.is_idle(),
        };
        let output = if can_be_done { self.waiting.pop_front()? } else { return None };
        self.waiting_bytes -= bytes_of(&output);
        self.warmed = self.warmed.saturating_sub(1);
        Some(output)
    }

    /// Fetches from memory what the next txns and requests will look at.
    fn warm_waiting(&mut self) {
        let path = |output| match output {
            &zab::Output::Append { zxid } => peek::txn_path(self.zab.txn(zxid)?),
            zab::Output::Request { request, .. } => peek::first_path(&request.body),
            _ => None,
        };
        let next = self.waiting.iter().take(limits::WARMED_AT_ONCE);
        let paths: SmallVec<[&str; limits::WARMED_AT_ONCE]> = next.filter_map(path).collect();
        if paths.len() > 1 {
            self.tree.warm(&paths);
        }
        self.warmed = self.waiting.len().min(limits::WARMED_AT_ONCE);
    }

    fn on_zab(&mut self, now: Now, output: zab::Output, out: &mut Vec<Output<B>>) {
        match output {
            zab::Output::Append { zxid } => self.on_append(zxid, out),
            zab::Output::Commit { upto } => {
                self.committed = self.committed.max(upto);
                self.publish_committed(out);
            }
            zab::Output::Request { socket, request } => self.on_learner_request(now, socket, &request, out),
            zab::Output::Touch { session, timeout_ms } => self.on_touch(now, session, timeout_ms),
            zab::Output::Revalidate { socket, session, timeout_ms } => {
                self.on_revalidate(now, socket, session, timeout_ms, out);
            }
            zab::Output::Revalidated { session, is_alive } => self.on_revalidated(session, is_alive, out),
            zab::Output::LinkClosed { socket } => self.leases.forget_link(socket),
            zab::Output::Synced => self.on_synced(out),
            zab::Output::Settle => self.on_settle(out),
            zab::Output::Established { role, leader, zxid } => {
                self.leader = leader;
                self.on_established(now, role, zxid, out);
            }
            zab::Output::Truncate { to } => self.on_truncate(now, to, out),
            zab::Output::LoadBegin { zxid } => self.on_load_begin(zxid),
            zab::Output::LoadPiece { bytes } => self.on_load_piece(now, &bytes, out),
            zab::Output::LoadEnd => self.on_load_end(now, out),
            zab::Output::ReadSnapshot { socket } => self.on_read_snapshot(socket, out),
            zab::Output::Stopped => self.on_zab_stopped(now, out),
            zab::Output::Socket(_)
            | zab::Output::StoreEpochs(_)
            | zab::Output::ReadLog { .. }
            | zab::Output::ReadOn { .. }
            | zab::Output::CancelRead { .. }
            | zab::Output::Fatal { .. } => unreachable!("carried out when they came"),
        }
    }

    /// Hands the log's wishes on, and its flushes to the agreement machine.
    fn drain_log(&mut self, now: Now, out: &mut Vec<Output<B>>) {
        let mut outputs = std::mem::take(&mut self.log_out);
        for output in outputs.drain(..) {
            match output {
                log::Output::Flushed { upto } => self.step_zab(now, zab::Input::Flushed { upto }, out),
                log::Output::Fatal { what } => out.push(Output::Fatal { what }),
                log::Output::Full(is_full) => self.on_full_disk(now, is_full, out),
                log::Output::Stopped => self.on_log_closed(out),
                output @ (log::Output::Prepare { .. }
                | log::Output::Name { .. }
                | log::Output::Extend { .. }
                | log::Output::Write { .. }
                | log::Output::Finish { .. }
                | log::Output::Discard { .. }) => out.push(Output::Log(output)),
            }
        }
        if self.log_out.is_empty() {
            self.log_out = outputs;
        }
    }

    fn on_full_disk(&mut self, now: Now, is_full: bool, out: &mut Vec<Output<B>>) {
        if is_full {
            tracing::error!("the log's disk is full: writes are refused with NotReadOnly until there is space again");
        } else {
            tracing::warn!("the log's disk has space again: writes are accepted");
        }
        if is_full && self.role == RoleName::Leading {
            self.step_zab(now, zab::Input::Resign, out);
        }
    }
}

/// Whether this is something that only a leader does.
fn is_asked_of_leader(output: &zab::Output) -> bool {
    matches!(
        output,
        zab::Output::Request { .. }
            | zab::Output::Touch { .. }
            | zab::Output::Revalidate { .. }
            | zab::Output::LinkClosed { .. }
    )
}

fn is_request_of(output: &zab::Output, link: SocketId) -> bool {
    matches!(output, zab::Output::Request { socket, .. } | zab::Output::Revalidate { socket, .. } if *socket == link)
}

/// What it holds in memory of its own.
fn bytes_of(output: &zab::Output) -> usize {
    match output {
        zab::Output::Request { request, .. } => request.body.len(),
        zab::Output::LoadPiece { bytes } => bytes.len(),
        _ => 0,
    }
}
