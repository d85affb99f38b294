//! What a client asks next.

use std::collections::BTreeMap;

use super::dice::Dice;
use super::history::OperationIndex;
use super::request::{Part, Request};
use crate::wire::client_encode::ANY_VERSION;

/// Znodes that everybody writes.
const REGISTERS: u64 = 6;
/// Znodes that come and go.
const GUESTS: u64 = 6;
/// Parents that every client makes first.
pub const PARENTS: [&str; 3] = ["/queue", "/members", "/guests"];
/// Two znodes that are only ever set together.
const PAIR: [&str; 2] = ["/pair-a", "/pair-b"];

/// Flags of a create.
mod flags {
    pub const PERSISTENT: i32 = 0;
    pub const EPHEMERAL: i32 = 1;
    pub const SEQUENTIAL: i32 = 2;
    pub const EPHEMERAL_SEQUENTIAL: i32 = 3;
}

/// Draws requests. Data of writes begins with a number that no other write has, so that each can be told from all
/// others, wherever it turns up.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    /// What this client believes the versions to be.
    versions: BTreeMap<String, i32>,
    /// Sequential znodes that this client has made and not deleted.
    made: Vec<String>,
}

impl Workload {
    /// A client told what it saw of a znode.
    pub fn learn(&mut self, path: &str, version: i32) {
        self.versions.insert(path.to_owned(), version);
    }

    pub fn made(&mut self, path: &str) {
        if self.made.len() < 20 {
            self.made.push(path.to_owned());
        }
    }

    /// What a new client makes sure of.
    pub fn opening(&self, at: usize, index: OperationIndex, dice: &mut Dice) -> Option<Request> {
        let paths: Vec<String> =
            PARENTS.iter().chain(&PAIR).map(|path| (*path).to_owned()).chain((0..REGISTERS).map(register)).collect();
        let path = paths.get(at)?.clone();
        Some(write(Part::Create { path, data: data(index, 0, dice), flags: flags::PERSISTENT }, dice))
    }

    pub fn next(&mut self, index: OperationIndex, dice: &mut Dice) -> Request {
        match dice.weighted(&[(30, 0), (8, 1), (10, 2), (10, 3), (8, 4), (20, 5), (8, 6), (8, 7), (3, 8)]) {
            0 => self.set(index, dice),
            1 => self.make(index, dice),
            2 => self.guest(index, dice),
            3 => self.multi(index, dice),
            4 => self.unmake(index, dice),
            5 => Request::Get { path: any(dice), watch: dice.percent(30) },
            6 => Request::Exists { path: any(dice), watch: dice.percent(40) },
            7 => Request::Children { path: (*dice.pick(&PARENTS)).to_owned(), watch: dice.percent(40) },
            _ => Request::Sync { path: "/".to_owned() },
        }
    }

    fn version(&self, path: &str, dice: &mut Dice) -> i32 {
        match self.versions.get(path) {
            Some(version) if dice.one_in(2) => *version,
            _ => ANY_VERSION,
        }
    }

    pub fn set(&mut self, index: OperationIndex, dice: &mut Dice) -> Request {
        let path = register(dice.below(REGISTERS));
        let version = self.version(&path, dice);
        write(Part::Set { path, data: data(index, 0, dice), version }, dice)
    }

    /// A sequential znode, or an ephemeral one, or both.
    fn make(&mut self, index: OperationIndex, dice: &mut Dice) -> Request {
        let (path, flags) = match dice.below(3) {
            0 => ("/queue/n-".to_owned(), flags::SEQUENTIAL),
            1 => ("/members/m-".to_owned(), flags::EPHEMERAL_SEQUENTIAL),
            _ => (format!("/members/fixed-{}", dice.below(4)), flags::EPHEMERAL),
        };
        write(Part::Create { path, data: data(index, 0, dice), flags }, dice)
    }

    fn unmake(&mut self, index: OperationIndex, dice: &mut Dice) -> Request {
        if self.made.is_empty() {
            return self.make(index, dice);
        }
        let at = dice.index(self.made.len());
        write(Part::Delete { path: self.made.swap_remove(at), version: ANY_VERSION }, dice)
    }

    fn guest(&mut self, index: OperationIndex, dice: &mut Dice) -> Request {
        let path = guest(dice.below(GUESTS));
        if dice.one_in(2) {
            let version = if dice.one_in(4) { 0 } else { ANY_VERSION };
            return write(Part::Delete { path, version }, dice);
        }
        write(Part::Create { path, data: data(index, 0, dice), flags: flags::PERSISTENT }, dice)
    }

    /// Both of the pair, or several things of which the last may fail.
    fn multi(&mut self, index: OperationIndex, dice: &mut Dice) -> Request {
        if dice.one_in(2) {
            let set = |(part, path): (u64, &&str)| {
                let path = (**path).to_owned();
                Part::Set { path, data: tag(index, part), version: ANY_VERSION }
            };
            return Request::Multi((0..).zip(&PAIR).map(set).collect());
        }
        let (first, second) = (guest(dice.below(GUESTS)), register(dice.below(REGISTERS)));
        let version = self.version(&second, dice);
        Request::Multi(vec![
            Part::Create { path: "/queue/m-".to_owned(), data: tag(index, 0), flags: flags::SEQUENTIAL },
            Part::Set { path: second.clone(), data: data(index, 1, dice), version },
            if dice.one_in(2) {
                Part::Delete { path: first, version: ANY_VERSION }
            } else {
                Part::Check { path: second, version: dice.below(20) as i32 }
            },
        ])
    }
}

fn write(part: Part, dice: &mut Dice) -> Request {
    let with_stat = matches!(part, Part::Create { .. }) && dice.one_in(3);
    Request::Write { part, with_stat }
}

fn register(number: u64) -> String {
    format!("/register-{number}")
}

fn guest(number: u64) -> String {
    format!("/guests/g-{number}")
}

fn any(dice: &mut Dice) -> String {
    match dice.below(4) {
        0 => guest(dice.below(GUESTS)),
        1 => (*dice.pick(&PAIR)).to_owned(),
        _ => register(dice.below(REGISTERS)),
    }
}

/// What no other write has: `<operation>.<part>;`.
pub fn tag(index: OperationIndex, part: u64) -> Vec<u8> {
    format!("{}.{part};", index.0).into_bytes()
}

/// A tag and some more, seldom much: entries should end anywhere in a block, and some fill several.
fn data(index: OperationIndex, part: u64, dice: &mut Dice) -> Vec<u8> {
    let mut data = tag(index, part);
    let more = match dice.below(100) {
        0..60 => dice.below(40),
        60..97 => dice.below(700),
        _ => dice.below(20_000),
    };
    let letter = b'a' + dice.below(26) as u8;
    data.resize(data.len() + more as usize, letter);
    data
}
