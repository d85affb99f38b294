//! Whole elections as text, one line for each message: `tests/zab/election_*.txt`. `UPDATE_GOLDEN=1` rewrites them.

use std::collections::VecDeque;
use std::fmt::Write;

use super::*;

/// Machines that hear each other at once and in order.
struct Room {
    servers: BTreeMap<ServerId, Election>,
    /// On their way: from, to, payload.
    messages: VecDeque<(ServerId, ServerId, Vec<u8>)>,
    trace: String,
    now_ms: u64,
}

impl Room {
    fn new(voters: i64) -> Room {
        let machine = |id| (ServerId(id), Election::new(settings(id, false), ensemble(voters, voters)));
        let servers = (1..=voters).map(machine).collect();
        Room { servers, messages: VecDeque::new(), trace: String::new(), now_ms: 0 }
    }

    fn step(&mut self, server: i64, input: Input<'_>) {
        let server = ServerId(server);
        let machine = self.servers.get_mut(&server).expect("a server of the room");
        writeln!(self.trace, "{:>5} ms  server {server}  {input}", self.now_ms).expect("a string takes all");
        let mut out = Vec::new();
        machine.step(Time::from_ms(self.now_ms), input, &mut out);
        for output in out {
            writeln!(self.trace, "                    → {output}").expect("a string takes all");
            if let Output::Send { to, payload } = output {
                self.messages.push_back((server, to, payload));
            }
        }
    }

    fn look(&mut self, server: i64, zxid: Zxid, epoch: u32) {
        self.step(server, Input::Look { zxid: Some(zxid), epoch });
    }

    /// Carries all messages; those of and to servers that are `away` are lost.
    fn carry(&mut self, away: &[i64]) {
        while let Some((from, to, payload)) = self.messages.pop_front() {
            if !away.contains(&from.0) && !away.contains(&to.0) {
                self.step(to.0, Input::Received { from, payload: &payload });
            }
        }
    }

    fn wait(&mut self) {
        let deadlines = self.servers.iter().filter_map(|(id, machine)| Some((machine.deadline()?, id.0)));
        let (deadline, server) = deadlines.min().expect("somebody waits");
        self.now_ms = deadline.as_ms();
        self.step(server, Input::Timeout);
    }

    fn check(&self, name: &str) {
        let directory = format!("{}/tests/zab", env!("CARGO_MANIFEST_DIR"));
        let path = format!("{directory}/{name}.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(directory).expect("a directory of our own");
            std::fs::write(&path, &self.trace).expect("the golden file can be written");
        }
        let golden = std::fs::read_to_string(&path).expect("the golden file can be read");
        assert_eq!(self.trace, golden, "{path} differs: UPDATE_GOLDEN=1 rewrites it, then read the difference");
    }
}

#[test]
fn three_servers_elect_the_one_with_the_longest_history() {
    let mut room = Room::new(3);
    room.look(1, Zxid::new(1, 6), 1);
    room.look(2, Zxid::new(1, 5), 1);
    room.look(3, Zxid::new(1, 5), 1);
    room.carry(&[]);
    room.check("election_of_three");
}

#[test]
fn two_servers_elect_after_their_leader_died() {
    let mut room = Room::new(3);
    (1..=3).for_each(|id| room.look(id, Zxid::new(1, 5), 1));
    room.carry(&[]);
    room.trace.clear();
    room.now_ms = 1000;
    room.step(1, Input::Joined { epoch: 2 });
    room.step(2, Input::Joined { epoch: 2 });
    room.step(1, Input::Left);
    room.look(1, Zxid::new(2, 7), 2);
    room.step(1, Input::LinkDown { peer: ServerId(3), is_refused: true });
    room.carry(&[3]);
    room.step(2, Input::Left);
    room.step(2, Input::LinkDown { peer: ServerId(3), is_refused: true });
    room.look(2, Zxid::new(2, 8), 2);
    room.carry(&[3]);
    room.check("election_after_leader_died");
}

#[test]
fn a_late_server_joins_those_who_have_settled() {
    let mut room = Room::new(3);
    room.look(2, Zxid::new(1, 5), 1);
    room.look(3, Zxid::new(1, 5), 1);
    room.carry(&[1]);
    room.wait();
    room.wait();
    room.step(2, Input::Joined { epoch: 2 });
    room.step(3, Input::Joined { epoch: 2 });
    room.now_ms = 60_000;
    room.look(1, Zxid::new(1, 9), 1);
    room.carry(&[]);
    room.check("election_late_joiner");
}
