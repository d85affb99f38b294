//! What learners get from the log's files or from the tree: prepared on helper threads, and handed over a piece at a time as the
//! machine asks for it, so that memory is bounded by the number of learners.

use std::collections::BTreeMap;
use std::io;
use std::thread;

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};

use super::mesh::Doorbell;
use crate::storage::files::{self, DataDirs};
use crate::storage::log_range::{self, Cursor, Wanted};
use crate::types::limits;
use crate::types::zxid::Zxid;
use crate::zab::LogRead;
use crate::zab::transport::SocketId;

/// Where files lie, and what of them is worth reading.
#[derive(Clone, PartialEq, Debug)]
pub struct TransferSettings {
    pub dirs: DataDirs,
    /// `jute.maxbuffer` and its extra size.
    pub payload_bytes_max: usize,
    /// `snapshotSizeFactor`: log files up to this share of the newest snapshot's size are read, larger ones are dearer than a
    /// snapshot. `None`: files are never read.
    pub snapshot_size_factor: Option<f64>,
}

/// What was asked for.
#[derive(Debug)]
pub enum Answer {
    LogRead { socket: SocketId, read: Option<LogRead> },
    SnapshotPiece { socket: SocketId, zxid: Zxid, bytes: Vec<u8>, is_end: bool },
}

impl Answer {
    fn socket(&self) -> SocketId {
        match self {
            Answer::LogRead { socket, .. } | Answer::SnapshotPiece { socket, .. } => *socket,
        }
    }
}

/// Appends the next piece of a snapshot, and says whether it was the last.
pub type NextPiece = Box<dyn FnMut(&mut Vec<u8>) -> bool + Send>;

struct LogJob {
    number: u64,
    socket: SocketId,
    after: Zxid,
    upto: Zxid,
}

/// Everything that is under way for learners.
pub struct Transfers {
    live: BTreeMap<SocketId, Transfer>,
    /// Tells a job from one that the same link asked for before.
    number: u64,
    log_jobs: Sender<LogJob>,
    answers: Receiver<(u64, Answer)>,
    sender: Sender<(u64, Answer)>,
    doorbell: Doorbell,
}

struct Transfer {
    number: u64,
    /// Asks the thread of a snapshot for its next piece; it ends when this goes.
    more: Option<Sender<()>>,
}

impl Transfers {
    pub fn start(settings: TransferSettings, doorbell: Doorbell) -> io::Result<Transfers> {
        // One question of each link at a time; its answers are as many.
        let ((log_jobs, jobs), (sender, answers)) = (unbounded(), unbounded());
        let mut helper = LogHelper { settings, cursors: BTreeMap::new() };
        let (to, bell) = (sender.clone(), doorbell.clone());
        thread::Builder::new().name("log-reader".to_owned()).spawn(move || helper.run(&jobs, &to, &bell))?;
        Ok(Transfers { live: BTreeMap::new(), number: 0, log_jobs, answers, sender, doorbell })
    }

    pub fn nothing_waits(&self) -> bool {
        self.answers.is_empty()
    }

    pub fn pop(&mut self) -> Option<Answer> {
        loop {
            let (number, answer) = self.answers.try_recv().ok()?;
            let socket = answer.socket();
            if self.live.get(&socket).is_none_or(|live| live.number != number) {
                continue;
            }
            if !matches!(answer, Answer::SnapshotPiece { is_end: false, .. }) {
                self.live.remove(&socket);
            }
            return Some(answer);
        }
    }

    pub fn read_log(&mut self, socket: SocketId, after: Zxid, upto: Zxid) {
        let number = self.begin(socket, None);
        // The thread ends only when this handle goes.
        let _ = self.log_jobs.send(LogJob { number, socket, after, upto });
    }

    /// Streams a snapshot; the first piece comes by itself.
    pub fn read_snapshot(&mut self, socket: SocketId, zxid: Zxid, mut next: NextPiece) -> io::Result<()> {
        let (more, asked) = bounded(1);
        let number = self.begin(socket, Some(more));
        let (answers, doorbell) = (self.sender.clone(), self.doorbell.clone());
        let stream = move || {
            // Each piece is made before it is asked for.
            loop {
                let mut bytes = Vec::with_capacity(limits::SNAPSHOT_PIECE_BYTES);
                let is_end = next(&mut bytes);
                if asked.recv().is_err() {
                    return;
                }
                // Nobody waits any more if the server is stopping.
                let _ = answers.send((number, Answer::SnapshotPiece { socket, zxid, bytes, is_end }));
                doorbell.ring();
                if is_end {
                    return;
                }
            }
        };
        thread::Builder::new().name("snapshot-out".to_owned()).spawn(stream)?;
        self.read_on(socket);
        Ok(())
    }

    /// The next piece of the snapshot.
    pub fn read_on(&mut self, socket: SocketId) {
        if let Some(more) = self.live.get(&socket).and_then(|live| live.more.as_ref()) {
            // Asked twice is asked once.
            let _ = more.try_send(());
        }
    }

    pub fn cancel(&mut self, socket: SocketId) {
        self.live.remove(&socket);
    }

    fn begin(&mut self, socket: SocketId, more: Option<Sender<()>>) -> u64 {
        self.number += 1;
        self.live.insert(socket, Transfer { number: self.number, more });
        self.number
    }
}

/// Reads the log for all links, one after the other.
struct LogHelper {
    settings: TransferSettings,
    /// Where readings go on that are not at their end, newest links last.
    cursors: BTreeMap<SocketId, Cursor>,
}

/// Readings that can go on without a search; each keeps a file open.
const CURSORS_MAX: usize = 8;

impl LogHelper {
    fn run(&mut self, jobs: &Receiver<LogJob>, answers: &Sender<(u64, Answer)>, doorbell: &Doorbell) {
        while let Ok(job) = jobs.recv() {
            let read = match self.read(&job) {
                Ok(read) => read,
                Err(error) => {
                    tracing::warn!(%error, "the log's files could not be read for a learner; it gets a snapshot");
                    None
                }
            };
            let answer = Answer::LogRead { socket: job.socket, read };
            if answers.send((job.number, answer)).is_err() {
                return;
            }
            doorbell.ring();
        }
    }

    fn read(&mut self, job: &LogJob) -> io::Result<Option<LogRead>> {
        let Some(factor) = self.settings.snapshot_size_factor else { return Ok(None) };
        let mut wanted = Wanted {
            after: job.after,
            upto: job.upto,
            bytes: limits::LOG_READ_BYTES - self.settings.payload_bytes_max.min(limits::LOG_READ_BYTES / 2),
            file_bytes_max: u64::MAX,
            payload_bytes_max: self.settings.payload_bytes_max,
        };
        if let Some(cursor) = self.cursors.remove(&job.socket).filter(|cursor| cursor.passed() == Some(job.after))
            && let Some(read) = log_range::read_on(cursor, &wanted)?
        {
            return Ok(Some(self.keep(job.socket, read)));
        }
        wanted.file_bytes_max = self.file_bytes_max(factor)?;
        Ok(log_range::read(&self.settings.dirs, &wanted)?.map(|read| self.keep(job.socket, read)))
    }

    fn keep(&mut self, socket: SocketId, (stretch, cursor): (log_range::Stretch, Option<Cursor>)) -> LogRead {
        if let Some(cursor) = cursor {
            while self.cursors.len() >= CURSORS_MAX {
                self.cursors.pop_first();
            }
            self.cursors.insert(socket, cursor);
        }
        LogRead { previous: stretch.previous, txns: stretch.txns }
    }

    /// A log without any snapshot is read however long it is (`ZKDatabase.calculateTxnLogSizeLimit`).
    fn file_bytes_max(&self, factor: f64) -> io::Result<u64> {
        let Some(snapshot) = files::find_snapshots(&self.settings.dirs.snapshots(), 1)?.pop() else {
            return Ok(u64::MAX);
        };
        Ok((snapshot.path.metadata()?.len() as f64 * factor) as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::io::mesh::Sleeper;

    fn transfers(factor: Option<f64>) -> (Transfers, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a directory");
        let dirs = DataDirs::new(directory.path(), None);
        std::fs::create_dir(dirs.logs()).expect("a directory");
        let settings = TransferSettings { dirs, payload_bytes_max: 1 << 20, snapshot_size_factor: factor };
        let sleeper = Sleeper::new().expect("an eventfd");
        (Transfers::start(settings, sleeper.doorbell()).expect("a thread"), directory)
    }

    fn next(transfers: &mut Transfers) -> Answer {
        let limit = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(answer) = transfers.pop() {
                return answer;
            }
            assert!(Instant::now() < limit, "no answer");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Pieces of one byte that count up to `last`.
    fn counting(last: u8) -> NextPiece {
        let mut at = 0;
        Box::new(move |out| {
            at += 1;
            out.push(at);
            at == last
        })
    }

    #[test]
    fn a_snapshot_comes_in_pieces_and_only_those_that_were_asked_for() {
        let (mut transfers, _directory) = transfers(Some(0.33));
        let [a, b] = [SocketId(1), SocketId(3)];
        transfers.read_snapshot(a, Zxid(7), counting(3)).expect("a thread");
        for expected in 1..=3 {
            let Answer::SnapshotPiece { socket, zxid, bytes, is_end } = next(&mut transfers) else { panic!("a piece") };
            assert_eq!((socket, zxid, bytes, is_end), (a, Zxid(7), vec![expected], expected == 3));
            thread::sleep(Duration::from_millis(10));
            assert!(transfers.pop().is_none(), "not asked for");
            transfers.read_on(a);
        }
        assert!(transfers.live.is_empty());
        transfers.read_snapshot(b, Zxid(8), counting(9)).expect("a thread");
        transfers.cancel(b);
        transfers.read_snapshot(b, Zxid(9), counting(1)).expect("a thread");
        let answer = next(&mut transfers);
        assert!(matches!(answer, Answer::SnapshotPiece { zxid: Zxid(9), is_end: true, .. }), "{answer:?}");
    }

    #[test]
    fn a_log_that_is_not_there_is_told_as_such() {
        let (mut transfers, _directory) = transfers(Some(0.33));
        transfers.read_log(SocketId(1), Zxid(4), Zxid(9));
        assert!(matches!(next(&mut transfers), Answer::LogRead { socket: SocketId(1), read: None }));
        transfers.read_log(SocketId(3), Zxid(4), Zxid(9));
        transfers.cancel(SocketId(3));
        transfers.read_log(SocketId(5), Zxid(4), Zxid(9));
        assert!(matches!(next(&mut transfers), Answer::LogRead { socket: SocketId(5), read: None }));
    }
}
