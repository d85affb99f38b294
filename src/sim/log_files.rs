//! Carries the log machine's wishes to the simulated disk, and their results back.

use std::collections::BTreeMap;

use super::disk::{Disk, Ended, Inode, Operation};
use super::logged::Logged;
use crate::storage::files::{log_file_name, tmp_log_file_name};
use crate::storage::log::{self, FileId, WriteId};
use crate::types::mutant::{self, Mutant};
use crate::types::time::Time;
use crate::types::zxid::Zxid;

/// What an operation under way is to the log.
#[derive(Debug)]
enum Doing {
    Prepare {
        file: FileId,
        zeroed: u64,
    },
    Name(FileId),
    Extend {
        file: FileId,
        upto: u64,
    },
    Write {
        write: WriteId,
        buffer: Vec<u8>,
    },
    /// Cutting and removing: nobody waits for it.
    Tidying,
}

#[derive(Debug)]
struct OpenFile {
    inode: Inode,
    name: String,
}

/// The files that one run of a server has open.
#[derive(Debug, Default)]
pub struct LogFiles {
    files: BTreeMap<FileId, OpenFile>,
    doing: BTreeMap<u64, Doing>,
}

/// An operation has started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Started {
    pub number: u64,
    pub done: Time,
}

impl LogFiles {
    /// Starts what the machine asks for. `tell` hears of every entry that is on its way to the disk.
    pub fn carry_out(
        &mut self,
        now: Time,
        output: log::Output<Vec<u8>>,
        disk: &mut Disk,
        logged: &mut Logged,
        tell: impl FnMut(Zxid, &[u8]),
    ) -> Option<Started> {
        let (operation, doing) = match output {
            log::Output::Prepare { file, upto } => {
                let (inode, name) = (disk.new_inode(), tmp_log_file_name(file.0));
                self.files.insert(file, OpenFile { inode, name: name.clone() });
                (Operation::MakeLog { inode, name, zeroed: upto }, Doing::Prepare { file, zeroed: upto })
            }
            log::Output::Name { file, first } => {
                let to = log_file_name(first);
                let from = std::mem::replace(&mut self.files.get_mut(&file)?.name, to.clone());
                (Operation::Rename { from, to }, Doing::Name(file))
            }
            log::Output::Extend { file, from, upto } => {
                let inode = self.files.get(&file)?.inode;
                (Operation::Zero { inode, from, upto }, Doing::Extend { file, upto })
            }
            log::Output::Write { write, file, offset, len, buffer } => {
                let inode = self.files.get(&file)?.inode;
                let bytes = buffer[..len].to_vec();
                logged.on_write(inode, offset, &bytes, tell);
                (Operation::Write { inode, offset, bytes }, Doing::Write { write, buffer })
            }
            log::Output::Finish { file, used } => {
                let inode = self.files.remove(&file)?.inode;
                (Operation::Truncate { inode, length: used }, Doing::Tidying)
            }
            log::Output::Discard { file } => {
                let name = self.files.remove(&file)?.name;
                (Operation::Remove { name }, Doing::Tidying)
            }
            log::Output::Flushed { .. } | log::Output::Full(_) | log::Output::Stopped | log::Output::Fatal { .. } => {
                return None;
            }
        };
        let (number, done) = disk.start(now, operation);
        self.doing.insert(number, doing);
        Some(Started { number, done })
    }

    /// An operation has ended. `None`: it was none of the log's, or nobody waits for it.
    pub fn on_ended(&mut self, number: u64, ended: Ended) -> Option<log::Input<Vec<u8>>> {
        let doing = self.doing.remove(&number)?;
        let (file, done) = match doing {
            Doing::Tidying => return None,
            Doing::Write { write, buffer } => {
                return Some(match ended {
                    Ended::Done => log::Input::Written { write, buffer },
                    Ended::Failed if mutant::is_active(Mutant::FailedFlushIgnored) => {
                        log::Input::Written { write, buffer }
                    }
                    Ended::Full | Ended::Failed => log::Input::Failed { what: format!("write {}", write.0) },
                });
            }
            Doing::Prepare { file, zeroed } => (file, log::Input::Prepared { file, zeroed_upto: zeroed }),
            Doing::Name(file) => (file, log::Input::Named { file }),
            Doing::Extend { file, upto } => (file, log::Input::Extended { file, upto }),
        };
        Some(match ended {
            Ended::Done => done,
            Ended::Full => log::Input::NoSpace { file },
            Ended::Failed => log::Input::Failed { what: format!("file {}", file.0) },
        })
    }
}
