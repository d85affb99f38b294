//! The helper thread that makes the two epoch files durable. An ensemble waits for it at each change of leader.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::mesh::Outbox;
use crate::storage::epochs::{self, EpochFile};
use crate::zab::Epochs;

/// What was asked for is on stable storage, or will never be known to be.
#[derive(Debug)]
pub struct EpochsWritten {
    pub epochs: Epochs,
    pub result: io::Result<()>,
    pub took: Duration,
}

/// The handle. Dropping it waits for what was asked.
pub struct EpochWriter {
    jobs: Option<Sender<Epochs>>,
    thread: Option<JoinHandle<()>>,
}

impl EpochWriter {
    /// `dir`: where snapshots lie. `stored`: what the files hold now.
    pub fn start(dir: PathBuf, stored: epochs::Epochs, done: Outbox<EpochsWritten>) -> io::Result<EpochWriter> {
        let (jobs, receiver) = channel();
        let helper = Helper { dir, accepted: stored.accepted, current: stored.current, done };
        let thread = thread::Builder::new().name("epochs".to_owned()).spawn(move || helper.run(&receiver))?;
        Ok(EpochWriter { jobs: Some(jobs), thread: Some(thread) })
    }

    /// The machine asks for one change at a time.
    pub fn store(&self, epochs: Epochs) {
        if let Some(jobs) = &self.jobs {
            // The helper ends only when this handle goes.
            let _ = jobs.send(epochs);
        }
    }

    /// Lets go of the helper without waiting for it.
    pub fn abandon(&mut self) {
        self.thread = None;
    }
}

impl Drop for EpochWriter {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Helper {
    dir: PathBuf,
    accepted: i64,
    current: i64,
    done: Outbox<EpochsWritten>,
}

impl Helper {
    fn run(mut self, jobs: &Receiver<Epochs>) {
        while let Ok(epochs) = jobs.recv() {
            let start = Instant::now();
            let result = self.write(epochs);
            // One change at a time, so there is room.
            let _ = self.done.push(EpochsWritten { epochs, result, took: start.elapsed() });
            self.done.notify();
        }
    }

    /// What did not change is not written: three of the five syncs of a round go with it.
    fn write(&mut self, epochs: Epochs) -> io::Result<()> {
        assert!(epochs.current <= epochs.accepted, "{epochs:?}: joined without a promise");
        let wanted = [
            (EpochFile::Accepted, i64::from(epochs.accepted), self.accepted),
            (EpochFile::Current, i64::from(epochs.current), self.current),
        ];
        let changed: Vec<_> =
            wanted.iter().filter(|(_, new, old)| new != old).map(|(file, new, _)| (*file, *new)).collect();
        if !changed.is_empty() {
            epochs::replace(&self.dir, &changed)?;
        }
        (self.accepted, self.current) = (epochs.accepted.into(), epochs.current.into());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::mesh::{Inbox, Sleeper, channel as queue};

    fn next(done: &mut Inbox<EpochsWritten>) -> EpochsWritten {
        let limit = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(written) = done.pop() {
                return written;
            }
            assert!(Instant::now() < limit, "no answer");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn changes_are_on_disk_before_they_are_told_and_failures_are_told() {
        let directory = tempfile::tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/target")).expect("a directory");
        let dir = directory.path().join("version-2");
        std::fs::create_dir(&dir).expect("a directory");
        let sleeper = Sleeper::new().expect("an eventfd");
        let (outbox, mut done) = queue(4, &sleeper.doorbell());
        let stored = epochs::load(&dir, None).expect("made");
        let writer = EpochWriter::start(dir.clone(), stored, outbox).expect("a thread");
        let mut took = Vec::new();
        for epoch in 1..50 {
            for epochs in [Epochs { accepted: epoch, current: epoch - 1 }, Epochs { accepted: epoch, current: epoch }] {
                writer.store(epochs);
                let written = next(&mut done);
                assert!(written.result.is_ok() && written.epochs == epochs);
                took.push(written.took);
                let read = |file: EpochFile| file.read(&dir).expect("readable").expect("there");
                let on_disk = (read(EpochFile::Accepted), read(EpochFile::Current));
                assert_eq!(on_disk, (epochs.accepted.into(), epochs.current.into()));
            }
        }
        took.sort();
        println!("one change takes {:?} in the median, {:?} at most", took[took.len() / 2], took[took.len() - 1]);
        std::fs::remove_dir_all(&dir).expect("ours");
        writer.store(Epochs { accepted: 60, current: 60 });
        assert!(next(&mut done).result.is_err());
    }
}
