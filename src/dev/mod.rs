//! A whole ensemble on this machine in one command, for trying things out: `oxkeeper dev --servers 3`.
//! Never: anything that a server on a real host does not have. Each server is a process of its own with a zoo.cfg of its own.
//! Owner: the process that was started; its servers stop with it, however it ends.
//! Start at `run`; `servers.rs` has the processes, `screen.rs` what a person sees.

mod screen;
mod servers;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use screen::Screen;
use servers::{Mode, Servers};
pub use servers::{SERVERS_MAX, STOPS_WITH_STDIN};

/// What is asked for on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DevSettings {
    /// Two or more.
    pub servers: u16,
    /// Of the first server's clients; the others follow. 0 lets the system choose all of them.
    pub port: u16,
    /// Kept afterwards. `None`: a temporary directory that goes with the command.
    pub directory: Option<PathBuf>,
}

/// What comes from outside.
enum Event {
    Line(String),
    Stop,
}

/// How often servers are asked for their mode: when all is well, and while there is no leader.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const LOOK_CLOSELY: Duration = Duration::from_millis(5);

/// Runs until `stop` says so or the person does. `stop` gets a function that ends it, from any thread.
pub fn run(settings: &DevSettings, on_stop: impl FnOnce(Stopper)) -> io::Result<()> {
    let (sender, events) = channel();
    on_stop(Stopper(sender.clone()));
    thread::Builder::new().name("stdin".to_owned()).spawn(move || read_lines(&sender))?;
    let mut servers = Servers::prepare(settings)?;
    let screen = Screen::new(&servers, settings.directory.is_none());
    for id in servers.ids() {
        servers.start(id)?;
    }
    screen.starting();
    let outcome = watch(&mut servers, &screen, &events);
    screen.stopping();
    servers.stop();
    outcome
}

/// Ends `run`.
#[derive(Clone, Debug)]
pub struct Stopper(Sender<Event>);

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Event::Line(line) => write!(f, "Line({line})"),
            Event::Stop => f.write_str("Stop"),
        }
    }
}

impl Stopper {
    pub fn stop(&self) {
        // It has ended already.
        let _ = self.0.send(Event::Stop);
    }
}

/// What the person types. The end of the input is no wish: in scripts there never was any.
fn read_lines(events: &Sender<Event>) {
    for line in io::stdin().lines() {
        let Ok(line) = line else { return };
        if events.send(Event::Line(line)).is_err() {
            return;
        }
    }
}

fn watch(servers: &mut Servers, screen: &Screen, events: &Receiver<Event>) -> io::Result<()> {
    let (mut leader, mut without_since, mut is_shown) = (None, Instant::now(), false);
    loop {
        let wait = if leader.is_some() { LOOK_EVERY } else { LOOK_CLOSELY };
        match events.recv_timeout(wait) {
            Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Ok(Event::Line(line)) => {
                if !obey(line.trim(), servers, screen)? {
                    return Ok(());
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        for (id, how) in servers.ended() {
            screen.ended(id, &how);
            if leader == Some(id) {
                (leader, without_since) = (None, Instant::now());
            }
        }
        servers.look();
        let leads = servers.leader();
        if leads != leader {
            match leads {
                Some(id) if is_shown => screen.leads(id, without_since.elapsed()),
                None if is_shown => screen.nobody_leads(servers),
                Some(_) | None => {}
            }
            if leads.is_none() {
                without_since = Instant::now();
            }
            leader = leads;
        }
        if !is_shown && leader.is_some() && servers.modes().iter().all(|(_, mode)| *mode != Mode::NotServing) {
            is_shown = true;
            screen.first(servers);
        }
    }
}

/// False: it is to end.
fn obey(line: &str, servers: &mut Servers, screen: &Screen) -> io::Result<bool> {
    let mut words = line.split_whitespace();
    let (word, id) = (words.next().unwrap_or_default(), words.next().and_then(|id| id.parse().ok()));
    let id = id.filter(|id| servers.ids().any(|known| known == *id));
    match (word, id) {
        ("kill", Some(id)) => servers.kill(id),
        ("stop", Some(id)) => servers.stop_one(id),
        ("start", Some(id)) => servers.start(id)?,
        ("status" | "", _) => {
            servers.look();
            screen.table(servers);
        }
        ("quit" | "exit", _) => return Ok(false),
        _ => screen.help(),
    }
    Ok(true)
}
