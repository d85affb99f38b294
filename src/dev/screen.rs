//! What a person sees of a local ensemble.

use std::time::Duration;

use super::servers::{Mode, Servers};

pub struct Screen {
    is_temporary: bool,
    count: usize,
}

impl Screen {
    pub fn new(servers: &Servers, is_temporary: bool) -> Screen {
        Screen { is_temporary, count: servers.ids().count() }
    }

    pub fn starting(&self) {
        println!("oxkeeper: starting {} servers on this machine …", self.count);
    }

    pub fn stopping(&self) {
        println!("stopping all servers …");
    }

    /// Everything that one wants to know, once there is a leader.
    pub fn first(&self, servers: &Servers) {
        self.table(servers);
        let directory = servers.directory().display();
        let fate = if self.is_temporary { ", which goes with this command" } else { "" };
        println!("  connect   {}", servers.connect_string());
        println!("  data      {directory}{fate}");
        println!();
        println!("Try next, in another terminal or here:");
        if let Some((leader, pid)) = servers.leader().and_then(|id| Some((id, servers.pid(id)?))) {
            println!("  kill -9 {pid:<18} the leader dies: watch another one take over");
            println!("  start {leader:<20} (typed here) brings it back, and it catches up");
        }
        println!("  status                     who is what now; also: kill N, stop N, start N, quit");
        println!("  tail -f {directory}/server-*/server.log");
        println!("Ctrl-C stops everything.");
        println!();
    }

    pub fn table(&self, servers: &Servers) {
        println!();
        println!("  server  clients                pid      mode");
        for (id, mode) in servers.modes() {
            let client = servers.client(id).map_or(String::new(), |address| address.to_string());
            let pid = servers.pid(id).map_or("-".to_owned(), |pid| pid.to_string());
            let mode = match &mode {
                Mode::Down => "not running",
                Mode::NotServing => "looking for a leader",
                Mode::Serving(mode) => mode,
            };
            println!("  {id:<7} {client:<22} {pid:<8} {mode}");
        }
        println!();
    }

    pub fn ended(&self, id: u16, how: &str) {
        println!("server {id} has ended ({how}); `start {id}` brings it back");
    }

    pub fn leads(&self, id: u16, after: Duration) {
        println!("server {id} leads, {} ms later", after.as_millis());
    }

    pub fn nobody_leads(&self, servers: &Servers) {
        let running = servers.modes().iter().filter(|(_, mode)| *mode != Mode::Down).count();
        if 2 * running > self.count {
            println!("nobody leads: an election is on");
        } else {
            println!("nobody leads: {running} of {} servers are no quorum, start another one", self.count);
        }
    }

    pub fn help(&self) {
        println!("status, kill N, stop N, start N, quit");
    }
}
