//! What a member keeps through all its roles.
//!
//! - `flushed ≤ history.last()`; `committed ≤ history.last()`; both only rise, but for a TRUNC, which takes `flushed` back.
//! - `epochs.current ≤ epochs.accepted`, and neither ever falls.
//! - At most one write of the epochs is under way, and no role begins before it has landed.

use super::history::History;
use super::pulse::Lateness;
use super::quorum::Ensemble;
use super::settings::Settings;
use super::transport::{SocketId, SocketOutput};
use super::{Epochs, Output};
use crate::types::zxid::Zxid;
use crate::wire::extension::Extension;

pub struct Base {
    pub settings: Settings,
    pub ensemble: Ensemble,
    pub history: History,
    /// Decided. A learner learns it with UPTODATE, not before.
    pub committed: Zxid,
    /// On stable storage.
    pub flushed: Zxid,
    /// On stable storage.
    pub epochs: Epochs,
    /// On its way there.
    pub storing: Option<Epochs>,
    /// Somebody has promised this epoch: the next one that we found is later.
    pub epoch_floor: u32,
    /// The database is not to be trusted: it is empty, and nobody said that it may be.
    pub is_untrusted: bool,
    /// The log cannot be cut where a leader wanted it: nothing but a whole tree helps.
    pub wants_snapshot: bool,
    /// A load has failed behind its end: where the log ends now comes with `Settled`.
    pub is_end_unknown: bool,
    /// How late we run ourselves.
    pub lateness: Lateness,
    /// `Settled` comes so many times yet.
    settling: u32,
    next_socket: u64,
}

impl Base {
    pub fn new(settings: Settings, ensemble: Ensemble, history: History, epochs: Epochs) -> Base {
        assert!(epochs.current <= epochs.accepted, "{epochs:?}");
        let flushed = history.last();
        Base {
            settings,
            ensemble,
            committed: Zxid::ZERO,
            flushed,
            history,
            epochs,
            storing: None,
            epoch_floor: 0,
            is_untrusted: false,
            wants_snapshot: false,
            is_end_unknown: false,
            lateness: Lateness::default(),
            settling: 0,
            next_socket: 2,
        }
    }

    /// For a connection that we ask for: even, but no multiple of 4, which are the election port's.
    pub fn new_socket(&mut self) -> SocketId {
        let socket = SocketId(self.next_socket);
        self.next_socket += 4;
        socket
    }

    /// Asks for the end of all writes.
    pub fn settle(&mut self, out: &mut Vec<Output>) {
        self.settling += 1;
        out.push(Output::Settle);
    }

    /// Whether nobody waits for that any more.
    pub fn is_settled(&self) -> bool {
        self.settling == 0
    }

    /// Where the log ends, all of it durable, unless a later `Settled` says so again.
    pub fn on_settled(&mut self, last: Zxid) {
        assert!(self.settling > 0, "nobody asked for `Settled`");
        self.settling -= 1;
        if self.settling > 0 {
            return;
        }
        if std::mem::take(&mut self.is_end_unknown) && last != self.history.last() {
            self.history.restart(last);
        }
        assert_eq!(last, self.history.last(), "the log and its end in memory are one");
        self.flushed = last;
    }

    pub fn store_epochs(&mut self, epochs: Epochs, out: &mut Vec<Output>) {
        assert!(self.storing.is_none(), "{:?} is still on its way", self.storing);
        assert!(epochs.current <= epochs.accepted, "{epochs:?}");
        assert!(epochs.accepted >= self.epochs.accepted, "{epochs:?} after {:?}", self.epochs);
        assert!(epochs.current >= self.epochs.current, "{epochs:?} after {:?}", self.epochs);
        self.storing = Some(epochs);
        out.push(Output::StoreEpochs(epochs));
    }

    pub fn on_epochs_stored(&mut self, epochs: Epochs) {
        assert_eq!(self.storing.take(), Some(epochs), "what was stored is what was asked for");
        self.epochs = epochs;
    }

    pub fn on_flushed(&mut self, upto: Zxid) {
        let last = self.history.last();
        assert!(upto <= last, "{upto} is flushed, but the history ends at {last}");
        self.flushed = self.flushed.max(upto);
        self.forget(self.committed);
    }

    /// Drops what learners hardly need any more: decided, and durable here, so nobody asks for its bytes.
    pub fn forget(&mut self, decided: Zxid) {
        self.history.forget(decided.min(self.flushed));
    }

    /// Everything up to here is decided.
    pub fn commit(&mut self, upto: Zxid, out: &mut Vec<Output>) {
        assert!(upto <= self.history.last(), "{upto} is decided, but the history ends at {}", self.history.last());
        if upto > self.committed {
            self.committed = upto;
            out.push(Output::Commit { upto });
            self.forget(upto);
        }
    }

    /// What is offered to a leader, or told to a learner that offered something.
    pub fn extension(&self) -> Option<Extension> {
        let extension = self.settings.election.election.extension.as_ref()?;
        Some(extension.clone())
    }

    pub fn check(&self) {
        let last = self.history.last();
        assert!(self.committed <= last, "{} is decided, but the history ends at {last}", self.committed);
        assert!(self.flushed <= last, "{} is flushed, but the history ends at {last}", self.flushed);
    }
}

/// A socket's last wish.
pub fn close(socket: SocketId, is_abrupt: bool, out: &mut Vec<Output>) {
    out.push(Output::Socket(SocketOutput::Close { socket, is_abrupt }));
}
