//! The four-letter words: which there are, who may ask, and what is answered.
//!
//! Texts are those of Java's servers byte for byte (`org.apache.zookeeper.server.command`), up to line ends that are
//! missing there too. Lists of connections, sessions and watches are in `lists`, the numbers of `mntr` in `metrics`.

use std::fmt::Write;

use super::{lists, metrics};
use crate::server::status::{Command, Environment, Mode, Settings, Status};
use crate::shard::status::Needs;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    Conf,
    Cons,
    Crst,
    Dirs,
    Dump,
    Envi,
    Gtmk,
    Hash,
    Isro,
    Mntr,
    Ruok,
    Srst,
    Srvr,
    Stat,
    Stmk,
    Wchc,
    Wchp,
    Wchs,
}

impl Word {
    pub const ALL: [Word; 18] = [
        Word::Conf,
        Word::Cons,
        Word::Crst,
        Word::Dirs,
        Word::Dump,
        Word::Envi,
        Word::Gtmk,
        Word::Hash,
        Word::Isro,
        Word::Mntr,
        Word::Ruok,
        Word::Srst,
        Word::Srvr,
        Word::Stat,
        Word::Stmk,
        Word::Wchc,
        Word::Wchp,
        Word::Wchs,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Word::Conf => "conf",
            Word::Cons => "cons",
            Word::Crst => "crst",
            Word::Dirs => "dirs",
            Word::Dump => "dump",
            Word::Envi => "envi",
            Word::Gtmk => "gtmk",
            Word::Hash => "hash",
            Word::Isro => "isro",
            Word::Mntr => "mntr",
            Word::Ruok => "ruok",
            Word::Srst => "srst",
            Word::Srvr => "srvr",
            Word::Stat => "stat",
            Word::Stmk => "stmk",
            Word::Wchc => "wchc",
            Word::Wchp => "wchp",
            Word::Wchs => "wchs",
        }
    }

    pub fn parse(bytes: [u8; 4]) -> Option<Word> {
        Word::ALL.into_iter().find(|word| word.name().as_bytes() == bytes)
    }

    /// Bytes that belong to the word and must be read before it is answered: the mask of `stmk`, big-endian.
    pub const fn argument_bytes(self) -> usize {
        if matches!(self, Word::Stmk) { 8 } else { 0 }
    }

    /// What must be collected before `answer`.
    pub fn needs(self) -> Needs {
        let nothing = Needs::default();
        match self {
            Word::Stat | Word::Cons => Needs { connections: true, ..nothing },
            Word::Dump => Needs { connections: true, sessions: true, ephemerals: true, ..nothing },
            Word::Wchs | Word::Wchc | Word::Wchp => Needs { watches: true, ..nothing },
            Word::Conf | Word::Dirs => Needs { directories: true, ..nothing },
            Word::Hash => Needs { digests: true, ..nothing },
            Word::Crst | Word::Envi | Word::Gtmk | Word::Isro | Word::Mntr => nothing,
            Word::Ruok | Word::Srst | Word::Srvr | Word::Stmk => nothing,
        }
    }
}

/// `4lw.commands.whitelist`: which words are answered. `srvr` always is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Whitelist {
    /// One bit for each of `Word::ALL`.
    words: u32,
}

impl Whitelist {
    /// A comma list, blanks around its entries ignored, and entries that are no words too; `*` is all of them.
    /// Where read-only mode is enabled, clients look for such servers with `isro`, so it is answered as well.
    pub fn parse(list: &str, read_only_mode: bool) -> Whitelist {
        let mut whitelist = Whitelist { words: 0 };
        whitelist.add(Word::Srvr);
        if read_only_mode {
            whitelist.add(Word::Isro);
        }
        for entry in list.split(',').map(str::trim) {
            if entry == "*" {
                Word::ALL.into_iter().for_each(|word| whitelist.add(word));
            }
            if let Some(word) = Word::ALL.into_iter().find(|word| word.name() == entry) {
                whitelist.add(word);
            }
        }
        whitelist
    }

    fn add(&mut self, word: Word) {
        self.words |= 1 << word as u32;
    }

    pub fn allows(&self, word: Word) -> bool {
        self.words & 1 << word as u32 != 0
    }
}

/// What a word gets that the whitelist does not have. Solr and others match this text.
pub fn refusal(word: Word) -> String {
    format!("{} is not executed because it is not in the whitelist.\n", word.name())
}

/// What is sent before the connection closes, and what the cores must do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub text: String,
    pub command: Option<Command>,
}

const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests";

/// `argument` is the mask of `stmk` and ignored for every other word.
pub fn answer(word: Word, argument: i64, status: &Status) -> Answer {
    let mut out = String::new();
    let command = write_answer(word, argument, status, &mut out).expect("a String takes whatever is written");
    Answer { text: out, command }
}

fn write_answer(
    word: Word,
    argument: i64,
    status: &Status,
    out: &mut String,
) -> Result<Option<Command>, std::fmt::Error> {
    match word {
        // These answer whatever state the server is in.
        Word::Ruok => out.push_str("imok"),
        Word::Envi => environment(&status.version, &status.environment, out)?,
        Word::Gtmk => write!(out, "{}", status.process.trace_mask)?,
        Word::Stmk => {
            write!(out, "{argument}")?;
            return Ok(Some(Command::SetTraceMask(argument)));
        }
        Word::Isro if !status.is_serving() => out.push_str("null"),
        Word::Hash if !status.is_serving() => out.push_str(NOT_SERVING),
        _ if !status.is_serving() => writeln!(out, "{NOT_SERVING}")?,
        Word::Isro => out.push_str(if status.zab.mode == Mode::ReadOnly { "ro" } else { "rw" }),
        Word::Crst => {
            out.push_str("Connection stats reset.\n");
            return Ok(Some(Command::ResetConnectionStats));
        }
        Word::Srst => {
            out.push_str("Server stats reset.\n");
            return Ok(Some(Command::ResetServerStats));
        }
        Word::Dirs => directories(status, out)?,
        Word::Hash => {
            for (zxid, digest) in &status.zab.digests {
                writeln!(out, "{:x}: {digest}", zxid.0)?;
            }
        }
        Word::Srvr => server(status, false, out)?,
        Word::Stat => server(status, true, out)?,
        Word::Conf => settings(&status.settings, status, out)?,
        Word::Cons => lists::connections(status, out)?,
        Word::Dump => lists::dump(status, out)?,
        Word::Wchs => lists::watch_summary(&status.shards.watches, out)?,
        Word::Wchc => lists::watches_by_session(&status.shards.watches, out)?,
        Word::Wchp => lists::watches_by_path(&status.shards.watches, out)?,
        Word::Mntr => metrics::monitor(status, out)?,
    }
    Ok(None)
}

/// `srvr`, and with the connections in it `stat` (`StatCommand`).
fn server(status: &Status, with_clients: bool, out: &mut String) -> std::fmt::Result {
    let (zab, shards) = (&status.zab, &status.shards);
    let latency = status.latency().values();
    writeln!(out, "Zookeeper version: {}", status.version)?;
    if zab.mode == Mode::ReadOnly {
        writeln!(out, "READ-ONLY mode; serving only read-only clients")?;
    }
    if with_clients {
        writeln!(out, "Clients:")?;
        lists::connections_brief(status, out)?;
        writeln!(out)?;
    }
    writeln!(out, "Latency min/avg/max: {}/{}/{}", latency.min, latency.average, latency.max)?;
    writeln!(out, "Received: {}", shards.stats.packets_received)?;
    writeln!(out, "Sent: {}", shards.stats.packets_sent)?;
    writeln!(out, "Connections: {}", shards.connections_alive)?;
    writeln!(out, "Outstanding: {}", shards.outstanding)?;
    writeln!(out, "Zxid: {}", zab.zxid)?;
    writeln!(out, "Mode: {}", zab.mode.name())?;
    writeln!(out, "Node count: {}", zab.znode_count)?;
    if let Mode::Leader(_) = zab.mode {
        writeln!(out, "Proposal sizes last/min/max: {}", zab.stats.proposal_size)?;
    }
    Ok(())
}

fn directories(status: &Status, out: &mut String) -> std::fmt::Result {
    writeln!(out, "datadir_size: {}", status.process.data_dir_bytes)?;
    writeln!(out, "logdir_size: {}", status.process.log_dir_bytes)
}

/// `conf` (`ZooKeeperServerConf`). Solr reads it as `key=value` and knows one exception, so nothing is added.
fn settings(settings: &Settings, status: &Status, out: &mut String) -> std::fmt::Result {
    writeln!(out, "clientPort={}", settings.client_port)?;
    writeln!(out, "secureClientPort={}", settings.secure_client_port)?;
    writeln!(out, "dataDir={}", settings.data_dir)?;
    writeln!(out, "dataDirSize={}", status.process.data_dir_bytes)?;
    writeln!(out, "dataLogDir={}", settings.data_log_dir)?;
    writeln!(out, "dataLogSize={}", status.process.log_dir_bytes)?;
    writeln!(out, "tickTime={}", settings.tick_time_ms)?;
    writeln!(out, "maxClientCnxns={}", settings.max_client_cnxns)?;
    writeln!(out, "minSessionTimeout={}", settings.min_session_timeout_ms)?;
    writeln!(out, "maxSessionTimeout={}", settings.max_session_timeout_ms)?;
    writeln!(out, "clientPortListenBacklog={}", settings.client_port_listen_backlog)?;
    writeln!(out, "serverId={}", settings.server_id)?;
    let Some(ensemble) = &settings.ensemble else { return Ok(()) };
    writeln!(out, "initLimit={}", ensemble.init_limit_ticks)?;
    writeln!(out, "syncLimit={}", ensemble.sync_limit_ticks)?;
    writeln!(out, "electionAlg=3")?;
    writeln!(out, "electionPort={}", ensemble.election_port)?;
    writeln!(out, "quorumPort={}", ensemble.quorum_port)?;
    writeln!(out, "peerType={}", u8::from(ensemble.observer))?;
    if status.zab.mode == Mode::ReadOnly {
        return Ok(());
    }
    writeln!(out, "membership: ")?;
    for member in &ensemble.members {
        writeln!(out, "{member}")?;
    }
    write!(out, "version={:x}", ensemble.config_version)
}

/// `envi` (`Environment.list`). What only a JVM has is `<NA>`, Java's own text for an absent property.
fn environment(version: &str, environment: &Environment, out: &mut String) -> std::fmt::Result {
    const ABSENT: &str = "<NA>";
    writeln!(out, "Environment:")?;
    for (key, value) in [
        ("zookeeper.version", version),
        ("host.name", &environment.host_name),
        ("java.version", ABSENT),
        ("java.vendor", ABSENT),
        ("java.home", ABSENT),
        ("java.class.path", ABSENT),
        ("java.library.path", ABSENT),
        ("java.io.tmpdir", &environment.temp_dir),
        ("java.compiler", ABSENT),
        ("os.name", &environment.os_name),
        ("os.arch", &environment.os_arch),
        ("os.version", &environment.os_version),
        ("user.name", &environment.user_name),
        ("user.home", &environment.user_home),
        ("user.dir", &environment.user_dir),
    ] {
        writeln!(out, "{key}={value}")?;
    }
    writeln!(out, "os.memory.free={}MB", environment.memory_free_mb)?;
    writeln!(out, "os.memory.max={}MB", environment.memory_max_mb)?;
    writeln!(out, "os.memory.total={}MB", environment.memory_total_mb)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(list: &str, read_only_mode: bool) -> Vec<&'static str> {
        let whitelist = Whitelist::parse(list, read_only_mode);
        Word::ALL.into_iter().filter(|&word| whitelist.allows(word)).map(Word::name).collect()
    }

    #[test]
    fn words_are_their_own_positions_in_the_list_of_all() {
        for (i, word) in Word::ALL.into_iter().enumerate() {
            assert_eq!(word as usize, i);
            let name: [u8; 4] = word.name().as_bytes().try_into().expect("four letters");
            assert_eq!(Word::parse(name), Some(word));
        }
    }

    #[test]
    fn the_whitelist_is_read_as_java_reads_it() {
        assert_eq!(allowed("", false), ["srvr"]);
        assert_eq!(allowed("", true), ["isro", "srvr"]);
        assert_eq!(allowed(" ruok, mntr ,,nope,STAT", false), ["mntr", "ruok", "srvr"]);
        assert_eq!(allowed("ruok, *", false).len(), Word::ALL.len());
        assert_eq!(refusal(Word::Conf), "conf is not executed because it is not in the whitelist.\n");
    }

    #[test]
    fn only_the_mask_is_an_argument() {
        let with_argument: Vec<_> = Word::ALL.into_iter().filter(|word| word.argument_bytes() > 0).collect();
        assert_eq!(with_argument, [Word::Stmk]);
    }
}
