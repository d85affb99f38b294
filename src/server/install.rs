//! What happens to tree and log between two leaders: they come to rest, are cut, or are replaced as a whole.
//!
//! ```text
//!            ┌──── Truncate ──► ClosingLog ──► io cuts the files, recovers ──► Truncated ──┐
//!  Idle ─────┤                                                                             ├──► Installed ──► Idle
//!            └─ LoadBegin ─► Loading ─LoadEnd─► ClosingLog ─► io writes the snapshot ──────┘
//! ```
//!
//! Clients are frozen all the while: they see neither the old state undone nor the new one half made. The old tree stays until
//! the new one is whole and durable; if the stream breaks off, the old one is still what the log says.

use super::pipeline::{Now, Output, SnapshotJob, ZabCore};
use super::recovery::TruncateJob;
use crate::shard::messages::{NewStore, Tell, Told};
use crate::storage::log;
use crate::storage::snapshot::Item;
use crate::storage::snapshot_stream::StreamReader;
use crate::tree::Tree;
use crate::tree::load::{LoadedNode, Loading};
use crate::tree::publication::Publisher;
use crate::types::ids::ShardId;
use crate::types::zxid::Zxid;
use crate::zab::transport::SocketId;
use crate::zab::{self, RoleName};

/// What is being done to tree and log.
pub(super) enum Install {
    Idle,
    /// A leader's snapshot is coming.
    Loading(Box<Load>),
    /// The log finishes its files before they are worked on.
    ClosingLog(Work),
    /// A snapshot of the old tree is being written still.
    LogClosed(Work),
    /// The files are worked on.
    Working(Work),
}

/// A snapshot on its way in.
pub(super) struct Load {
    zxid: Zxid,
    stream: StreamReader,
    tree: Loading,
}

pub(super) enum Work {
    Truncate(TruncateJob),
    /// Takes the old one's place once it is durable.
    Replace {
        tree: Box<Tree>,
        zxid: Zxid,
    },
}

impl Install {
    pub fn is_idle(&self) -> bool {
        matches!(self, Install::Idle)
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> ZabCore<B> {
    /// There is no leader any more. Clients freeze, what is on its way to the disk lands, and then the log's end is what this
    /// server votes with.
    pub(super) fn on_settle(&mut self, out: &mut Vec<Output<B>>) {
        self.role = RoleName::Looking;
        self.settling += 1;
        self.leases.clear();
        self.no_room_since = None;
        if matches!(self.install, Install::Loading(_)) {
            self.install = Install::Idle;
        }
        self.close_block();
        self.freeze(out);
    }

    pub(super) fn try_to_settle(&mut self, now: Now, out: &mut Vec<Output<B>>) {
        while self.settling > 0 && self.install.is_idle() && self.log.is_settled() {
            self.settling -= 1;
            let settled = zab::Input::Settled { last: self.log.appended(), committed: self.committed };
            self.step_zab(now, settled, out);
            self.carry_out(now, out);
        }
    }

    pub(super) fn freeze(&mut self, out: &mut Vec<Output<B>>) {
        if !self.is_frozen {
            self.is_frozen = true;
            self.tell_all(Tell::Freeze, out);
        }
    }

    fn tell_all(&self, tell: Tell, out: &mut Vec<Output<B>>) {
        out.extend((0..self.shards).map(|shard| Output::Tell(Told { shard: ShardId(shard), tell })));
    }

    /// A leader is established, here or elsewhere: what has no answer by now is not part of history, and never will be.
    pub(super) fn on_established(&mut self, now: Now, role: RoleName, zxid: Zxid, out: &mut Vec<Output<B>>) {
        let is_same_leader = self.has_served && zxid.epoch() == self.epoch_start.epoch();
        (self.role, self.epoch_start, self.has_served) = (role, zxid, true);
        let attached = &self.attached;
        self.pending
            .forget_gone(|session, origin| attached.get(&session).is_some_and(|attached| attached.origin == origin));
        if is_same_leader {
            // It may have the old link's requests in hand still.
            self.give_up_unanswered(out);
        }
        match role {
            RoleName::Leading => {
                self.track_sessions(now);
                for (session, attached) in std::mem::take(&mut self.revalidating) {
                    self.renew_session(now, attached, session, out);
                }
            }
            RoleName::Following | RoleName::Observing => {
                self.hand_over_again(now);
                self.touch_attached(now);
            }
            RoleName::Looking => {}
        }
        if role == RoleName::Leading && !self.settings.leader_serves {
            return self.tell_all(Tell::Shun, out);
        }
        self.is_frozen = false;
        self.tell_all(Tell::Thaw { forwards_syncs: role != RoleName::Leading }, out);
    }

    /// What became of these requests cannot be known: their connections close, as all would in ZooKeeper.
    fn give_up_unanswered(&mut self, out: &mut Vec<Output<B>>) {
        let undecided = self.pending.undecided();
        undecided.iter().for_each(|origin| self.turn_away(*origin, out));
        self.pending.forget_gone(|_, origin| !undecided.contains(&origin));
    }

    /// The leader's history does not have what is behind `to`.
    pub(super) fn on_truncate(&mut self, now: Now, to: Zxid, out: &mut Vec<Output<B>>) {
        if to < self.committed {
            let what = format!("the leader wants the log cut behind {to}, but {} was decided", self.committed);
            return out.push(Output::Fatal { what });
        }
        self.close_block();
        let shown = self.has_served.then(|| self.tree.published());
        self.close_log(now, Work::Truncate(TruncateJob { to, shown }));
    }

    fn close_log(&mut self, now: Now, work: Work) {
        self.install = Install::ClosingLog(work);
        self.log.step(now.time, log::Input::Stop, &mut self.log_out);
    }

    /// The log has finished its files: it is their turn, or the end.
    pub(super) fn on_log_closed(&mut self, out: &mut Vec<Output<B>>) {
        match std::mem::replace(&mut self.install, Install::Idle) {
            Install::ClosingLog(work) => {
                self.install = Install::LogClosed(work);
                self.start_work(out);
            }
            install => {
                self.install = install;
                self.publish_committed(out);
                out.push(Output::Stopped);
            }
        }
    }

    /// A snapshot that was begun is finished first: later it would be one that no log continues.
    pub(super) fn start_work(&mut self, out: &mut Vec<Output<B>>) {
        if self.snapshots.is_running() {
            return;
        }
        match std::mem::replace(&mut self.install, Install::Idle) {
            Install::LogClosed(Work::Truncate(job)) => {
                out.push(Output::Truncate(job));
                self.install = Install::Working(Work::Truncate(job));
            }
            Install::LogClosed(Work::Replace { tree, zxid }) => {
                let digest = tree.settings().digest_enabled.then(|| tree.digest());
                let mut reader = tree.reader().expect("nobody reads it yet");
                reader.hold();
                out.push(Output::Install(SnapshotJob { reader, zxid, digest }));
                self.install = Install::Working(Work::Replace { tree, zxid });
            }
            install => self.install = install,
        }
    }

    /// The files are cut, and the tree that they give takes the old one's place. Connections stay: nothing that was cut had
    /// ever been shown.
    pub(super) fn on_truncated(&mut self, now: Now, tree: Tree, out: &mut Vec<Output<B>>) {
        let Install::Working(Work::Truncate(job)) = &self.install else { return };
        let TruncateJob { to, shown } = *job;
        if tree.head() != to {
            let what = format!("the log was to be cut behind {to}, but ends with {}", tree.head());
            return out.push(Output::Fatal { what });
        }
        self.pending.on_truncated(to);
        self.digests.retain(|(zxid, _)| *zxid <= to);
        self.cut_proposed(to);
        if tree.published() == tree.head() {
            self.committed_digest = tree.digest();
        }
        if shown.is_none_or(|shown| shown == tree.published()) {
            self.take_tree(tree, None, out);
        } else {
            // What clients have seen lies before the oldest version that the files give.
            self.forget_clients(out);
            self.take_tree(tree, Some(Publisher::default()), out);
        }
        self.reopen_log(now, to, out);
    }

    fn cut_proposed(&mut self, to: Zxid) {
        while let Some(last) = self.proposed.back_mut()
            && last.last().is_none_or(|zxid| zxid > to)
        {
            last.split_behind(to);
            if last.txns.is_empty() {
                self.proposed.pop_back();
            }
        }
        if !self.has_served {
            self.proposed.clear();
        }
    }

    /// Shards go over to another store: with a new publisher they close every connection.
    fn take_tree(&mut self, tree: Tree, publisher: Option<Publisher>, out: &mut Vec<Output<B>>) {
        let closes = publisher.is_some();
        if let Some(publisher) = publisher {
            self.publisher = publisher;
        }
        for shard in 0..self.shards {
            let Some(reader) = tree.reader() else {
                return out.push(Output::Fatal { what: "too many readers of a new tree".to_owned() });
            };
            let store = NewStore { reader, cursor: closes.then(|| self.publisher.cursor()) };
            out.push(Output::Store { shard: ShardId(shard), store });
        }
        self.tree = tree;
    }

    /// All connections close: what they asked for is moot.
    fn forget_clients(&mut self, out: &mut Vec<Output<B>>) {
        self.give_back_held(out);
        self.pending.clear();
        self.proposed.clear();
        self.revalidating.clear();
        self.attached.clear();
    }

    fn reopen_log(&mut self, now: Now, last: Zxid, out: &mut Vec<Output<B>>) {
        self.install = Install::Idle;
        self.log.reopen(last, &mut self.log_out);
        self.step_zab(now, zab::Input::Installed { last }, out);
    }

    pub(super) fn on_load_begin(&mut self, zxid: Zxid) {
        let stream = StreamReader::new(self.settings.entry_bytes_max);
        let tree = Loading::new(self.tree.settings().clone());
        self.install = Install::Loading(Box::new(Load { zxid, stream, tree }));
    }

    pub(super) fn on_load_piece(&mut self, now: Now, bytes: &[u8], out: &mut Vec<Output<B>>) {
        let Install::Loading(load) = &mut self.install else { return };
        let Load { stream, tree, .. } = &mut **load;
        let read = stream.read(bytes, |item| match item {
            Item::Session { id, timeout_ms } => {
                tree.session(id, timeout_ms);
                Ok(())
            }
            Item::Acl { id, list } => {
                tree.acl(id, list);
                Ok(())
            }
            Item::Node(node) => {
                tree.node(LoadedNode { path: &node.path, data: node.data, acl: node.acl_id, stat: node.stat })
            }
            Item::End(_) => Ok(()),
        });
        if let Err(error) = read {
            self.fail_load(now, format!("the leader's snapshot cannot be read: {error}"), out);
        }
    }

    /// The stream is over: the tree is made, and becomes a file before anything rests on it.
    pub(super) fn on_load_end(&mut self, now: Now, out: &mut Vec<Output<B>>) {
        let load = match std::mem::replace(&mut self.install, Install::Idle) {
            Install::Loading(load) => load,
            other => return self.install = other,
        };
        let Load { zxid, stream, tree } = *load;
        if !stream.is_whole() {
            return self.fail_load(now, "the leader's snapshot is cut short".to_owned(), out);
        }
        let loaded = tree.finish(zxid);
        if loaded.has_ttl_without_option() {
            let what = "the leader has TTL nodes, but extendedTypesEnabled is off here: set it as on the leader";
            return out.push(Output::Fatal { what: what.to_owned() });
        }
        let mut tree = loaded.into_tree();
        tree.publish(zxid);
        self.close_log(now, Work::Replace { tree: Box::new(tree), zxid });
    }

    fn fail_load(&mut self, now: Now, what: String, out: &mut Vec<Output<B>>) {
        self.install = Install::Idle;
        self.step_zab(now, zab::Input::LoadFailed { what }, out);
    }

    /// The snapshot is a file, and the log holds nothing that it does not stand for.
    pub(super) fn on_installed(&mut self, now: Now, bytes: u64, out: &mut Vec<Output<B>>) {
        let (tree, zxid) = match std::mem::replace(&mut self.install, Install::Idle) {
            Install::Working(Work::Replace { tree, zxid }) => (*tree, zxid),
            other => return self.install = other,
        };
        self.close_block();
        self.forget_clients(out);
        self.digests.clear();
        self.committed = self.committed.max(zxid);
        self.committed_digest = tree.digest();
        self.snapshots.on_installed(bytes);
        self.take_tree(tree, Some(Publisher::default()), out);
        self.reopen_log(now, zxid, out);
    }

    /// A learner is sent the newest committed version. A leader's epoch counts as part of it: the learner's log may end with
    /// txns of an older one that nobody else has.
    pub(super) fn on_read_snapshot(&mut self, socket: SocketId, out: &mut Vec<Output<B>>) {
        let Some(mut reader) = self.tree.reader() else {
            tracing::error!(%socket, "too many readers: this learner has to ask again");
            return;
        };
        reader.hold();
        let zxid = self.tree.published().max(self.epoch_start);
        out.push(Output::ReadSnapshot { socket, job: SnapshotJob { reader, zxid, digest: None } });
    }
}

#[cfg(test)]
mod tests;
