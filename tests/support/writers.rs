//! Paced writers at every server of an ensemble, which go on while something happens to one: `oxkeeper bench`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use super::ensemble::{Ensemble, SOON};

/// `oxkeeper bench --workload failover`: a paced writer at each server, in a process of its own. Dropping it kills that.
#[derive(Debug)]
pub struct Writers {
    /// Until `end`.
    child: Option<Child>,
    /// Acknowledged writes of each second, as it ends.
    seconds: Receiver<u64>,
    /// Those of the first.
    first: u64,
}

impl Writers {
    /// Starts them and waits until a second of writes has been acknowledged. `depth`: writes that each keeps in flight.
    pub fn start(binary: &str, ensemble: &Ensemble, depth: usize) -> Writers {
        let servers: Vec<String> = ensemble.members.iter().map(|member| member.client.to_string()).collect();
        let mut command = Command::new(binary);
        command.args(["bench", "--workload", "failover", "--servers", &servers.join(","), "--depth"]);
        command.args([&depth.to_string(), "--duration", "10m", "--warmup", "0s", "--progress", "--json", "-"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let (sender, seconds) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                match count_of_second(&line) {
                    // The test may be over.
                    Some(count) => drop(sender.send(count)),
                    None => println!("bench: {line}"),
                }
            }
        });
        let mut writers = Writers { child: Some(child), seconds, first: 0 };
        writers.first = writers.wait_second();
        writers
    }

    /// What was acknowledged in the second that ends next.
    fn wait_second(&mut self) -> u64 {
        match self.seconds.recv_timeout(SOON) {
            Ok(count) => count,
            Err(RecvTimeoutError::Timeout) => panic!("bench is silent"),
            Err(RecvTimeoutError::Disconnected) => {
                panic!("bench has ended: {:?}", self.child.as_mut().map(Child::wait))
            }
        }
    }

    /// Waits for a whole second in which `servers` of `of` acknowledge half of what they did in the first one, or more.
    pub fn wait_recovered(&mut self, servers: usize, of: usize) {
        let floor = self.first * servers as u64 / of as u64 / 2;
        while self.seconds.try_recv().is_ok() {}
        // The one that is under way began before.
        self.wait_second();
        let start = Instant::now();
        while self.wait_second() < floor {
            assert!(start.elapsed() < SOON, "{floor} writes a second are not reached any more");
        }
    }

    /// Ends them and gives their report.
    pub fn end(mut self) -> serde_json::Value {
        let child = self.child.take().expect("it is taken here only");
        let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(kill.is_ok_and(|status| status.success()), "a process may signal its own child");
        let output = child.wait_with_output().expect("our child can be waited for");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {:?}, {:?}", output.status, String::from_utf8_lossy(&output.stdout))
        });
        json["failover"].clone()
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `  12 s       1,500 op/s   …`.
fn count_of_second(line: &str) -> Option<u64> {
    let (second, rest) = line.split_once(" s ")?;
    second.trim().parse::<u64>().ok()?;
    let count = rest.split_once(" op/s")?.0;
    count.trim().replace(',', "").parse().ok()
}
