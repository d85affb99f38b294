//! The glommio executor of a core thread, and sleep that its ring and its other tasks share.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future;
use glommio::timer::Timer;
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement, PoolPlacement};

use super::clock;
use super::kernel::readable::readable;
use super::ring::Ring;
use crate::types::time::Time;

/// Entries of each of the executor's own three rings: they see a few file operations and timers.
const EXECUTOR_RING_ENTRIES: usize = 16;
/// Memory for file operations through the executor, in bytes. It is locked.
const EXECUTOR_IO_MEMORY: usize = 64 << 10;
/// Tasks other than the turn loop wait at most so long for their share of a busy core.
const PREEMPT_AFTER: Duration = Duration::from_millis(10);

/// Starts a core thread: `name` for `top -H`, pinned to `cpu` unless None.
pub fn start_core<G, F, T>(name: &str, cpu: Option<usize>, main: G) -> glommio::Result<ExecutorJoinHandle<T>, ()>
where
    G: FnOnce() -> F + Send + 'static,
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
    LocalExecutorBuilder::new(placement)
        .name(name)
        .ring_depth(EXECUTOR_RING_ENTRIES)
        .io_memory(EXECUTOR_IO_MEMORY)
        .preempt_timer(PREEMPT_AFTER)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
        .spawn(main)
}

/// The tasks of one executor besides its turn loop: how many there are decides how the loop sleeps.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    live: Rc<Cell<usize>>,
}

/// Counts one task, however it ends.
struct Live(Rc<Cell<usize>>);

impl Live {
    fn new(live: &Rc<Cell<usize>>) -> Live {
        live.set(live.get() + 1);
        Live(Rc::clone(live))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Tasks {
    /// Runs `task` on this executor beside the turn loop. Tasks that are spawned in other ways may not run while the loop sleeps.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let live = Live::new(&self.live);
        glommio::spawn_local(async move {
            task.await;
            drop(live);
        })
        .detach();
    }

    pub fn live(&self) -> usize {
        self.live.get()
    }

    /// Submits what was asked of the ring and sleeps until it has events, somebody wakes it, or `deadline` passes.
    ///
    /// With no other task alive it sleeps in the ring itself, which costs one system call a turn. Otherwise the executor
    /// sleeps, on its own rings and this one, and the other tasks run first.
    pub async fn sleep(&self, ring: &mut Ring, deadline: Option<Time>) {
        if self.live.get() == 0 {
            return ring.wait(deadline);
        }
        ring.submit();
        glommio::executor().yield_task_queue_now().await;
        // Without an eventfd to spare the ring is asked again and again: slow, but nobody waits for ever.
        if let Ok(Some(counter)) = ring.sleep_elsewhere() {
            match ring.earliest(deadline) {
                None => readable(&*counter).await,
                Some(deadline) => {
                    let left = deadline.saturating_since(clock::now());
                    future::or(readable(&*counter), async {
                        Timer::new(left).await;
                    })
                    .await;
                }
            }
        }
        ring.awake();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::io::ring::{RingSettings, Waker};

    /// What a core thread does between two sleeps, and how often it slept before `until`.
    async fn sleep_until(tasks: &Tasks, ring: &mut Ring, until: Time) -> usize {
        let mut sleeps = 0;
        while clock::now() < until {
            tasks.sleep(ring, Some(until)).await;
            ring.drain(&mut Vec::new());
            sleeps += 1;
        }
        sleeps
    }

    #[test]
    fn a_deadline_ends_the_sleep_with_and_without_other_tasks() {
        let core = start_core("test", None, || async {
            let mut ring = Ring::new(RingSettings::default()).expect("a ring");
            let tasks = Tasks::default();
            let alone = sleep_until(&tasks, &mut ring, clock::now() + Duration::from_millis(30)).await;
            tasks.spawn(std::future::pending());
            assert_eq!(tasks.live(), 1);
            let beside = sleep_until(&tasks, &mut ring, clock::now() + Duration::from_millis(30)).await;
            (alone, beside)
        });
        let (alone, beside) = core.expect("a thread").join().expect("no panic");
        assert!((1..=3).contains(&alone) && (1..=5).contains(&beside), "slept {alone} and {beside} times");
    }

    #[test]
    fn other_tasks_run_while_the_turn_loop_sleeps() {
        let waker = Waker::new().expect("an eventfd");
        let other = waker.clone();
        let core = start_core("test", None, move || async move {
            let mut ring = Ring::with_waker(RingSettings::default(), waker).expect("a ring");
            let tasks = Tasks::default();
            let steps = Rc::new(Cell::new(0));
            let counted = Rc::clone(&steps);
            tasks.spawn(async move {
                for _ in 0..3 {
                    Timer::new(Duration::from_millis(5)).await;
                    counted.set(counted.get() + 1);
                }
                other.wake();
            });
            tasks.sleep(&mut ring, None).await;
            steps.get()
        });
        assert_eq!(core.expect("a thread").join().expect("no panic"), 3);
    }

    #[test]
    fn another_thread_ends_the_sleep_beside_other_tasks() {
        let waker = Waker::new().expect("an eventfd");
        let other = waker.clone();
        let (woken, awake) = std::sync::mpsc::channel();
        let core = start_core("test", None, move || async move {
            let mut ring = Ring::with_waker(RingSettings::default(), waker).expect("a ring");
            let tasks = Tasks::default();
            tasks.spawn(std::future::pending());
            for _ in 0..2 {
                tasks.sleep(&mut ring, None).await;
                ring.drain(&mut Vec::new());
                woken.send(()).expect("the test waits");
            }
        });
        for _ in 0..2 {
            thread::sleep(Duration::from_millis(20));
            other.wake();
            awake.recv().expect("the core wakes");
        }
        core.expect("a thread").join().expect("no panic");
    }
}
