//! A stretch as the coordinator sees it: the workers' seconds put together.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

use super::failover::Failover;
use super::stats::{Interval, OpStats};
use super::worker::Report;
use super::workload::Op;
use crate::types::time::Time;

/// CPU time of this process.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cpu {
    /// Seconds in user mode.
    pub user_s: f64,
    /// Seconds in the kernel on our behalf, sockets above all.
    pub system_s: f64,
    /// Worker threads.
    pub threads: usize,
}

impl Cpu {
    pub fn now(threads: usize) -> Cpu {
        let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        match getrusage(UsageWho::RUSAGE_SELF) {
            Ok(usage) => Cpu { user_s: seconds(usage.user_time()), system_s: seconds(usage.system_time()), threads },
            // Only a wrong `who` makes it fail; the share then reads 0.
            Err(_) => Cpu { threads, ..Cpu::default() },
        }
    }

    pub fn since(self, earlier: Cpu) -> Cpu {
        Cpu { user_s: self.user_s - earlier.user_s, system_s: self.system_s - earlier.system_s, threads: self.threads }
    }

    /// Of what the threads could have used in `wall`, 0 to 1.
    pub fn share(&self, wall: Duration) -> f64 {
        let possible = wall.as_secs_f64() * self.threads.max(1) as f64;
        if possible > 0.0 { (self.user_s + self.system_s) / possible } else { 0.0 }
    }
}

/// Percentiles of one second, in µs.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Percentiles {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

impl Percentiles {
    pub fn of(stats: &OpStats) -> Percentiles {
        let Some(latency) = &stats.latency else { return Percentiles::default() };
        let at = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1e3;
        Percentiles {
            mean: latency.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: latency.max() as f64 / 1e3,
        }
    }
}

/// One second of the run, over all workers.
#[derive(Clone, Debug, Serialize)]
pub struct Second {
    /// Whole seconds since measuring began.
    pub second: u32,
    /// 1, but less for a last one that was cut short.
    pub length_s: f64,
    /// Good answers to the operations that the workload is about.
    pub count: u64,
    pub errors: u64,
    pub latency_us: Percentiles,
    /// Good answers by operation.
    pub ops: BTreeMap<&'static str, u64>,
    pub sessions: u64,
    /// Connections lost.
    pub lost: u64,
    /// The generator's CPU share, 0 to 1, over the time since the second before was put together.
    pub cpu_share: f64,
}

#[derive(Debug)]
pub struct Stage {
    /// Which seconds each worker has told, by count; `None` when it is done.
    told: Vec<Option<u32>>,
    pending: BTreeMap<u32, Interval>,
    pub total: Interval,
    pub seconds: Vec<Second>,
    pub unsent: u64,
    pub failover: Option<Box<Failover>>,
    pub cpu: Cpu,
    pub wall: Duration,
    /// What throughput is counted over.
    pub duration: Duration,
    cpu_start: Cpu,
    started: Time,
    cpu_last: (Cpu, std::time::Instant),
    has_ended: bool,
}

impl Stage {
    pub fn new(workers: usize, now: Time) -> Stage {
        let cpu = Cpu::now(workers);
        Stage {
            told: vec![Some(0); workers],
            pending: BTreeMap::new(),
            total: Interval::default(),
            seconds: Vec::new(),
            unsent: 0,
            failover: None,
            cpu: Cpu::default(),
            wall: Duration::ZERO,
            duration: Duration::ZERO,
            cpu_start: cpu,
            started: now,
            cpu_last: (cpu, std::time::Instant::now()),
            has_ended: false,
        }
    }

    pub fn is_done(&self) -> bool {
        self.told.iter().all(Option::is_none)
    }

    pub fn take(&mut self, worker: usize, report: Report) {
        match report {
            Report::Second { second, interval } => {
                let sum = self.pending.entry(second).or_default();
                sum.add(&interval);
                sum.sessions += interval.sessions;
                if let Some(Some(told)) = self.told.get_mut(worker) {
                    *told = second + 1;
                }
            }
            Report::Failover(failover) => self.failover = Some(failover),
            Report::Done { unsent } => {
                self.unsent += unsent;
                if let Some(told) = self.told.get_mut(worker) {
                    *told = None;
                }
            }
            Report::Opened | Report::Failed(_) => {}
        }
    }

    /// The next second that every worker has told, or will not tell any more.
    pub fn next_second(&mut self, counts: &impl Fn(Op) -> bool) -> Option<&Second> {
        let (&second, _) = self.pending.first_key_value()?;
        if self.told.iter().flatten().any(|told| *told <= second) {
            return None;
        }
        let interval = self.pending.remove(&second)?;
        let all = interval.merged(counts);
        let cpu = Cpu::now(self.cpu_start.threads);
        let (last, at) = self.cpu_last;
        self.cpu_last = (cpu, std::time::Instant::now());
        let ops = Op::ALL.into_iter().map(|op| (op.name(), interval.ops[op.index()].count()));
        self.seconds.push(Second {
            second,
            length_s: 1.0,
            count: all.count(),
            errors: all.error_count(),
            latency_us: Percentiles::of(&all),
            ops: ops.filter(|(_, count)| *count > 0).collect(),
            sessions: interval.sessions,
            lost: interval.links.lost,
            cpu_share: cpu.since(last).share(at.elapsed()),
        });
        self.total.add(&interval);
        self.total.sessions = interval.sessions;
        self.seconds.last()
    }

    /// The measured time is over; what follows is waiting for late answers.
    pub fn end_measuring(&mut self, now: Time) {
        if !self.has_ended {
            self.has_ended = true;
            self.cpu = Cpu::now(self.cpu_start.threads).since(self.cpu_start);
            self.wall = now.saturating_since(self.started);
        }
    }

    /// All workers are done. `duration`: what was asked for, if it was not cut short.
    pub fn finish(&mut self, now: Time, duration: Option<Duration>, counts: &impl Fn(Op) -> bool) {
        self.end_measuring(now);
        self.duration = duration.unwrap_or(self.wall).min(self.wall);
        while self.next_second(counts).is_some() {}
        if let Some(last) = self.seconds.last_mut() {
            last.length_s = (self.duration.as_secs_f64() - last.second as f64).clamp(0.0, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: u32, gets: u64) -> Report {
        let mut interval = Box::<Interval>::default();
        (0..gets).for_each(|_| interval.record(Op::Get, Time(0), Time(1_000)));
        interval.sessions = 1;
        Report::Second { second, interval }
    }

    #[test]
    fn a_second_is_told_when_all_workers_told_it() {
        let counts = |op| op == Op::Get;
        let mut stage = Stage::new(2, Time(0));
        stage.take(0, second(0, 3));
        stage.take(0, second(1, 1));
        assert!(stage.next_second(&counts).is_none());
        stage.take(1, second(0, 4));
        assert_eq!(stage.next_second(&counts).map(|second| (second.count, second.sessions)), Some((7, 2)));
        assert!(stage.next_second(&counts).is_none());
        stage.take(1, Report::Done { unsent: 2 });
        assert_eq!(stage.next_second(&counts).map(|second| second.count), Some(1));
        stage.take(0, Report::Done { unsent: 1 });
        assert!(stage.is_done());
        stage.finish(Time::from_ms(2_000), None, &counts);
        assert_eq!((stage.unsent, stage.seconds.len(), stage.duration.as_secs()), (3, 2, 2));
        assert_eq!(stage.total.ops[Op::Get.index()].count(), 8);
    }

    #[test]
    fn the_share_is_of_all_threads() {
        let cpu = Cpu { user_s: 1.0, system_s: 2.0, threads: 2 };
        assert_eq!(cpu.share(Duration::from_secs(3)), 0.5);
        assert_eq!(cpu.share(Duration::ZERO), 0.0);
    }
}
