//! The two promises of an ensemble member, `currentEpoch` and `acceptedEpoch`: one decimal number each.
//!
//! They lie beside the snapshots and are replaced by rename. A standalone server neither reads nor writes them.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use super::files;
use crate::types::zxid::Zxid;

/// What both files hold while the database is empty and not trusted.
pub const NO_EPOCH: i64 = -1;

/// One of the two files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EpochFile {
    /// The last epoch whose leader was followed.
    Current,
    /// The last epoch that was promised.
    Accepted,
}

impl EpochFile {
    fn name(self) -> &'static str {
        match self {
            EpochFile::Current => "currentEpoch",
            EpochFile::Accepted => "acceptedEpoch",
        }
    }

    fn tmp_name(self) -> String {
        format!("{}.tmp", self.name())
    }

    /// `None`: there is no such file. Errors: unreadable, or not a number.
    pub fn read(self, dir: &Path) -> io::Result<Option<i64>> {
        read_epoch(&dir.join(self.name()))
    }

    /// Replaces the file; durable on return.
    pub fn write(self, dir: &Path, epoch: i64) -> io::Result<()> {
        replace(dir, &[(self, epoch)])
    }

    fn write_tmp(self, dir: &Path, epoch: i64) -> io::Result<()> {
        let mut file = File::create(dir.join(self.tmp_name()))?;
        file.write_all(epoch.to_string().as_bytes())?;
        file.sync_all()
    }
}

/// Replaces several files, in their order; durable on return. A crash in between leaves the first few replaced, so
/// `Accepted` stands before `Current`: the promise is never behind what was joined.
pub fn replace(dir: &Path, epochs: &[(EpochFile, i64)]) -> io::Result<()> {
    for (file, epoch) in epochs {
        file.write_tmp(dir, *epoch)?;
    }
    for (file, _) in epochs {
        fs::rename(dir.join(file.tmp_name()), dir.join(file.name()))?;
    }
    files::sync_dir(dir)
}

fn read_epoch(path: &Path) -> io::Result<Option<i64>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let line = text.lines().next().unwrap_or_default();
    let epoch = line
        .parse()
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, format!("{} does not hold a number", path.display())))?;
    Ok(Some(epoch))
}

/// What the files say when they agree with the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Epochs {
    pub current: i64,
    pub accepted: i64,
}

/// Why a member must not take part. The process exits with 1.
#[derive(Debug)]
pub enum EpochError {
    Io(io::Error),
    /// The log holds txns of an epoch that was never joined.
    CurrentBehindLog {
        current: i64,
        last: Zxid,
    },
    AcceptedBehindCurrent(Epochs),
}

impl From<io::Error> for EpochError {
    fn from(error: io::Error) -> EpochError {
        EpochError::Io(error)
    }
}

impl fmt::Display for EpochError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EpochError::Io(error) => error.fmt(f),
            EpochError::CurrentBehindLog { current, last } => write!(
                f,
                "The current epoch, {current:x}, is older than the last zxid, {last}, and the accepted epoch as well: this \
                 log is not of this member. {ADVICE}"
            ),
            EpochError::AcceptedBehindCurrent(Epochs { current, accepted }) => write!(
                f,
                "The accepted epoch, {accepted:x} is less than the current epoch, {current:x}: a promise was lost. {ADVICE}"
            ),
        }
    }
}

/// What an operator does about it.
const ADVICE: &str = "Move version-2 of this member away and let it sync from the others";

impl std::error::Error for EpochError {}

/// Reads both files at the start of an ensemble member and makes the missing ones. `last`: the last zxid of the database,
/// `None` if it is empty and not trusted. Source: `QuorumPeer.loadDataBase`.
///
/// A log without a gap that holds a txn of an epoch holds the whole history with which that epoch began: its member was about
/// to join and is taken to have joined, if it had promised to (ZOOKEEPER-1653). Java looks for a temporary file instead.
pub fn load(dir: &Path, last: Option<Zxid>) -> Result<Epochs, EpochError> {
    let of_log = last.map_or(NO_EPOCH, |last| i64::from(last.epoch()));
    let read_or_make = |file: EpochFile| match file.read(dir)? {
        Some(epoch) => Ok::<i64, io::Error>(epoch),
        None => file.write(dir, of_log).map(|()| of_log),
    };
    let mut current = read_or_make(EpochFile::Current)?;
    let accepted = read_or_make(EpochFile::Accepted)?;
    if of_log > current {
        if accepted < of_log {
            return Err(EpochError::CurrentBehindLog { current, last: last.unwrap_or_default() });
        }
        EpochFile::Current.write(dir, of_log)?;
        current = of_log;
    }
    let epochs = Epochs { current, accepted };
    if accepted < current {
        return Err(EpochError::AcceptedBehindCurrent(epochs));
    }
    Ok(epochs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], last: Option<Zxid>, expected: Option<(i64, i64)>) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let found = load(dir.path(), last).ok();
        assert_eq!(found.map(|epochs| (epochs.current, epochs.accepted)), expected, "{files:?}");
        if let Some((current, accepted)) = expected {
            let read = |name| fs::read_to_string(dir.path().join(name)).unwrap();
            assert_eq!((read("currentEpoch"), read("acceptedEpoch")), (current.to_string(), accepted.to_string()));
        }
    }

    #[test]
    fn missing_epochs_come_from_the_last_zxid() {
        check(&[], Some(Zxid::new(3, 7)), Some((3, 3)));
        check(&[], Some(Zxid::ZERO), Some((0, 0)));
        check(&[], None, Some((-1, -1)));
        check(&[("currentEpoch", "2")], Some(Zxid::new(2, 7)), Some((2, 2)));
    }

    #[test]
    fn epochs_that_contradict_the_log_or_each_other_are_refused() {
        check(&[("currentEpoch", "2"), ("acceptedEpoch", "3")], Some(Zxid::new(2, 7)), Some((2, 3)));
        check(&[("currentEpoch", "2"), ("acceptedEpoch", "2")], Some(Zxid::new(3, 1)), None);
        check(&[("currentEpoch", "2"), ("currentEpoch.tmp", "3"), ("acceptedEpoch", "2")], Some(Zxid::new(3, 1)), None);
        check(&[("currentEpoch", "2"), ("acceptedEpoch", "1")], Some(Zxid::new(2, 7)), None);
        check(&[("currentEpoch", "x"), ("acceptedEpoch", "1")], Some(Zxid::new(2, 7)), None);
    }

    // ZOOKEEPER-1653
    #[test]
    fn a_member_that_was_about_to_join_an_epoch_has_joined_it() {
        let last = Some(Zxid::new(3, 1));
        check(&[("currentEpoch", "2"), ("acceptedEpoch", "3")], last, Some((3, 3)));
        check(&[("currentEpoch", "2"), ("acceptedEpoch", "4")], last, Some((3, 4)));
        check(&[("currentEpoch", "2"), ("currentEpoch.tmp", ""), ("acceptedEpoch", "3")], last, Some((3, 3)));
    }

    #[test]
    fn both_files_are_replaced_together() {
        let dir = tempfile::tempdir().unwrap();
        replace(dir.path(), &[(EpochFile::Accepted, 8), (EpochFile::Current, 7)]).unwrap();
        let read = |file: EpochFile| file.read(dir.path()).unwrap();
        assert_eq!((read(EpochFile::Accepted), read(EpochFile::Current)), (Some(8), Some(7)));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file is left");
    }
}
