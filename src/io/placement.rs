//! How many cores this process may use, and which thread goes where.

use std::io;
use std::thread;

use super::kernel::calls;

/// With so few CPUs one thread is shard and zab core at once: what the two tell each other is then a call, while two threads
/// that sleep cost each other 50 µs a round trip, a third of a durable write (measurements.md §3).
const SHARED_UP_TO: usize = 3;

/// More shards than this have not been measured; what they would wait for is the one zab core.
const SHARDS_MAX: usize = 16;

/// What the operating system allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Allowed {
    /// CPUs of the affinity mask (taskset, cpuset), ascending.
    pub cpus: Vec<usize>,
    /// How many of them may be busy at a time: fewer than `cpus` under a cgroup quota.
    pub parallel: usize,
}

impl Allowed {
    pub fn of_this_process() -> Allowed {
        let mut cpus: Vec<usize> =
            core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
        cpus.sort_unstable();
        // Affinity mask and cgroup quota, versions 1 and 2, rounded down but never to 0.
        let parallel = thread::available_parallelism().map_or(1, usize::from);
        Allowed { cpus, parallel }
    }
}

/// Whether threads are bound to CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Pinning {
    /// If there are enough CPUs and no quota, which the scheduler serves better when it may move threads.
    #[default]
    Auto,
    On,
    /// For several servers on one machine, which would all choose the same CPUs.
    Off,
}

/// Which threads to start, and the CPU of each if it is pinned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Placement {
    /// One thread is the zab core and the only shard.
    Shared { core: Option<usize> },
    /// The zab core has a thread of its own.
    Separate { zab: Option<usize>, shards: Vec<Option<usize>> },
}

impl Placement {
    /// `shards`: as many as a setting asks for; None leaves it to what is allowed. With 4 CPUs or more one is the zab core's, one
    /// is left to helper threads and the network's interrupts, and each of the others is a shard, up to 16.
    pub fn choose(allowed: &Allowed, shards: Option<usize>, pinning: Pinning) -> Placement {
        let usable = allowed.parallel.max(1);
        let pinned = match pinning {
            Pinning::On => true,
            Pinning::Off => false,
            Pinning::Auto => usable > SHARED_UP_TO && usable >= allowed.cpus.len(),
        };
        // The lowest CPU is the one that interrupts and everybody else prefer: it is used last.
        let mut cpus = allowed.cpus.iter().copied().filter(|_| pinned).skip(1).chain(allowed.cpus.first().copied());
        let mut next = || if pinned { cpus.next() } else { None };
        let wanted = match shards {
            None if usable <= SHARED_UP_TO => return Placement::Shared { core: next() },
            None => usable - 2,
            Some(shards) => shards,
        };
        let zab = next();
        Placement::Separate { zab, shards: (0..wanted.clamp(1, SHARDS_MAX)).map(|_| next()).collect() }
    }
}

/// Raises the limit of open descriptors to what it may be, and returns it: every connection needs one.
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = calls::open_files_limit()?;
    if soft < hard {
        calls::set_open_files_limit(hard, hard)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        cpus: std::ops::Range<usize>,
        parallel: usize,
        shards: Option<usize>,
        pinning: Pinning,
        expected: Placement,
    ) {
        let allowed = Allowed { cpus: cpus.collect(), parallel };
        assert_eq!(Placement::choose(&allowed, shards, pinning), expected);
    }

    fn separate(zab: Option<usize>, shards: &[Option<usize>]) -> Placement {
        Placement::Separate { zab, shards: shards.to_vec() }
    }

    #[test]
    fn few_cpus_are_shared_by_one_thread() {
        for parallel in 1..=3 {
            check(0..parallel, parallel, None, Pinning::Auto, Placement::Shared { core: None });
        }
        check(0..64, 2, None, Pinning::Auto, Placement::Shared { core: None });
        check(4..6, 2, None, Pinning::On, Placement::Shared { core: Some(5) });
        check(4..5, 1, None, Pinning::On, Placement::Shared { core: Some(4) });
    }

    #[test]
    fn the_zab_core_is_alone_when_there_are_enough() {
        check(0..4, 4, None, Pinning::Auto, separate(Some(1), &[Some(2), Some(3)]));
        check(0..4, 4, None, Pinning::Off, separate(None, &[None, None]));
        check(0..8, 4, None, Pinning::Auto, separate(None, &[None, None]));
    }

    #[test]
    fn a_setting_says_how_many_shards() {
        check(0..2, 2, Some(1), Pinning::Auto, separate(None, &[None]));
        check(0..2, 2, Some(2), Pinning::On, separate(Some(1), &[Some(0), None]));
        let Placement::Separate { shards, .. } =
            Placement::choose(&Allowed { cpus: (0..96).collect(), parallel: 96 }, None, Pinning::Auto)
        else {
            panic!("enough CPUs");
        };
        assert_eq!(shards.len(), SHARDS_MAX);
    }

    #[test]
    fn this_process_may_use_something() {
        let allowed = Allowed::of_this_process();
        assert!(!allowed.cpus.is_empty());
        assert!((1..=allowed.cpus.len()).contains(&allowed.parallel));
    }

    #[test]
    fn the_limit_of_descriptors_is_raised_to_the_hard_one() {
        let limit = raise_open_files().expect("allowed for everybody");
        assert_eq!(calls::open_files_limit().expect("readable"), (limit, limit));
    }
}
