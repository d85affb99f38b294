//! The end of a run: every writer's znode, read from whichever server answers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Failover, Found};
use crate::load::admin::Admin;
use crate::load::error::LoadError;
use crate::load::plan::Plan;

/// How long a server that answers is looked for: an ensemble may be in the middle of an election.
const LIMIT: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(100);

/// Reads all znodes and lets each writer judge its own.
pub fn read_back(plan: &Plan, failover: &mut Failover) {
    let start = Instant::now();
    loop {
        let mut why = None;
        for server in &plan.servers {
            match read_all(*server, plan) {
                Ok(found) => {
                    failover.writers.iter_mut().zip(found).for_each(|(writer, found)| writer.check_final(found));
                    return;
                }
                Err(error) => why = Some(error.to_string()),
            }
        }
        if start.elapsed() > LIMIT {
            failover.unread = why;
            return;
        }
        std::thread::sleep(RETRY);
    }
}

fn read_all(server: SocketAddr, plan: &Plan) -> Result<Vec<Option<Found>>, LoadError> {
    let mut admin = Admin::connect_to(server, plan)?;
    let found: Result<Vec<_>, _> =
        plan.paths.writers(plan.sessions as u32).map(|path| admin.read_latest(&path)).collect();
    admin.close();
    found
}
