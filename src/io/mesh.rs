//! What one core tells another: bounded queues with one producer each, and wake-ups only for those who sleep.
//!
//! A wake-up is never lost. The sleeper raises its flag, *then* looks into its queues once more; the producer pushes,
//! *then* looks at the flag. A sequentially consistent fence stands between the two steps on either side, so at least one
//! of them sees what the other did.
//!
//! Before the cores start: one `Sleeper` for each, and a `channel` for each direction in which two of them talk.

use std::io;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

use super::ring::Waker;

/// The queue is full: back pressure. Carries what did not fit.
#[derive(PartialEq, Eq, Debug)]
pub struct Full<T>(pub T);

/// The flag of one sleeper.
#[derive(Debug)]
struct Asleep(CachePadded<AtomicBool>);

impl Asleep {
    fn new() -> Asleep {
        Asleep(CachePadded::new(AtomicBool::new(false)))
    }

    /// The sleeper looks into its queues after this.
    fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    fn lower(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// A producer asks after its push: true for one of them if the sleeper sleeps, and that one has to wake it.
    fn take(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

/// One core's side of going to sleep. Its ring is made with its `waker`.
#[derive(Debug)]
pub struct Sleeper {
    doorbell: Doorbell,
}

/// How others end that core's sleep.
#[derive(Clone, Debug)]
pub struct Doorbell {
    asleep: Arc<Asleep>,
    waker: Waker,
}

impl Sleeper {
    pub fn new() -> io::Result<Sleeper> {
        Ok(Sleeper { doorbell: Doorbell { asleep: Arc::new(Asleep::new()), waker: Waker::new()? } })
    }

    /// For `Ring::with_waker` on this core.
    pub fn waker(&self) -> Waker {
        self.doorbell.waker.clone()
    }

    /// For the `channel`s that lead to this core.
    pub fn doorbell(&self) -> Doorbell {
        self.doorbell.clone()
    }

    /// True if the core may sleep: from here on whoever pushes wakes it. `nothing_waits` looks into all its inboxes.
    /// Call `awake` afterwards, unless this returned false.
    pub fn prepare_to_sleep(&self, nothing_waits: impl FnOnce() -> bool) -> bool {
        self.doorbell.asleep.raise();
        let may_sleep = nothing_waits();
        if !may_sleep {
            self.doorbell.asleep.lower();
        }
        may_sleep
    }

    /// Pushes need no wake-up while the core is awake.
    pub fn awake(&self) {
        self.doorbell.asleep.lower();
    }
}

impl Doorbell {
    /// Wakes the core if it sleeps. For those who told it something otherwise than through an `Outbox`.
    pub fn ring(&self) {
        if self.asleep.take() {
            self.waker.wake();
        }
    }
}

/// A queue of at most `capacity` messages to the core behind `to`.
pub fn channel<T>(capacity: usize, to: &Doorbell) -> (Outbox<T>, Inbox<T>) {
    let queue = Arc::new(ArrayQueue::new(capacity));
    (Outbox { queue: Arc::clone(&queue), to: to.clone(), told: true }, Inbox { queue })
}

/// The only producer of a queue.
pub struct Outbox<T> {
    queue: Arc<ArrayQueue<T>>,
    to: Doorbell,
    /// Nothing was pushed since the last `notify`.
    told: bool,
}

impl<T> Outbox<T> {
    /// Queues a message. `notify` must follow before this core's turn ends.
    pub fn push(&mut self, message: T) -> Result<(), Full<T>> {
        self.queue.push(message).map_err(Full)?;
        self.told = false;
        Ok(())
    }

    /// Wakes the other side if it sleeps and something was pushed: once for all that was.
    pub fn notify(&mut self) {
        if !self.told {
            self.told = true;
            self.to.ring();
        }
    }

    /// Messages for which there is room now. Only this side makes it less.
    pub fn room(&self) -> usize {
        self.queue.capacity() - self.queue.len()
    }
}

/// The only consumer of a queue.
pub struct Inbox<T> {
    queue: Arc<ArrayQueue<T>>,
}

impl<T> Inbox<T> {
    pub fn pop(&mut self) -> Option<T> {
        self.queue.pop()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;

    use super::*;
    use crate::io::clock;
    use crate::io::ring::{Ring, RingSettings};

    #[test]
    fn a_full_queue_gives_the_message_back() {
        let sleeper = Sleeper::new().expect("an eventfd");
        let (mut outbox, mut inbox) = channel(2, &sleeper.doorbell());
        assert_eq!((outbox.push(1), outbox.push(2), outbox.push(3)), (Ok(()), Ok(()), Err(Full(3))));
        assert_eq!(outbox.room(), 0);
        assert_eq!((inbox.pop(), inbox.pop(), inbox.pop()), (Some(1), Some(2), None));
        assert_eq!(outbox.room(), 2);
    }

    #[test]
    fn sleep_is_refused_while_something_waits() {
        let sleeper = Sleeper::new().expect("an eventfd");
        let (mut outbox, mut inbox) = channel(2, &sleeper.doorbell());
        outbox.push(1).expect("room");
        assert!(!sleeper.prepare_to_sleep(|| inbox.is_empty()));
        assert_eq!(inbox.pop(), Some(1));
        assert!(sleeper.prepare_to_sleep(|| inbox.is_empty()));
        sleeper.awake();
    }

    /// Two threads throw a ball; each sleeps without a deadline that would hide a lost wake-up.
    #[test]
    fn a_ball_thrown_between_sleeping_rings_is_never_lost() {
        let sleepers = [(); 2].map(|()| Sleeper::new().expect("an eventfd"));
        let (to_b, from_a) = channel(4, &sleepers[1].doorbell());
        let (to_a, from_b) = channel(4, &sleepers[0].doorbell());
        let [a, b] = sleepers;
        let other = thread::spawn(move || play(b, to_a, from_a, None));
        play(a, to_b, from_b, Some(0));
        other.join().expect("no panic");
    }

    const THROWS: u32 = 20_000;

    fn play(sleeper: Sleeper, mut outbox: Outbox<u32>, mut inbox: Inbox<u32>, ball: Option<u32>) {
        let mut ring = Ring::with_waker(RingSettings::default(), sleeper.waker()).expect("a ring");
        let mut ball = ball;
        let start = clock::now();
        loop {
            if let Some(count) = ball.take() {
                outbox.push(count + 1).expect("room for one ball");
                outbox.notify();
                if count + 1 >= THROWS {
                    return;
                }
            }
            ball = inbox.pop();
            if ball.is_none() && sleeper.prepare_to_sleep(|| inbox.is_empty()) {
                ring.wait(Some(start + std::time::Duration::from_secs(60)));
                sleeper.awake();
                ring.drain(&mut Vec::new());
                assert!(clock::now().saturating_since(start).as_secs() < 60, "a wake-up was lost");
            }
            if ball.is_some_and(|count| count > THROWS) {
                return;
            }
        }
    }
}

/// `RUSTFLAGS="--cfg loom" cargo test --release --lib loom_` (into a target directory of its own).
#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    use super::*;

    /// The queue is the weakest there is: a count that is published with Release and read with Acquire.
    fn check(producers: usize) {
        loom::model(move || {
            let asleep = Arc::new(Asleep::new());
            let queue = Arc::new(AtomicUsize::new(0));
            let woken = Arc::new(AtomicUsize::new(0));
            let threads: Vec<_> = (0..producers)
                .map(|_| {
                    let (asleep, queue, woken) = (Arc::clone(&asleep), Arc::clone(&queue), Arc::clone(&woken));
                    thread::spawn(move || {
                        queue.fetch_add(1, Ordering::Release);
                        if asleep.take() {
                            woken.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            asleep.raise();
            let seen = queue.load(Ordering::Acquire);
            for thread in threads {
                thread.join().expect("no panic");
            }
            let wakes = woken.load(Ordering::Relaxed);
            assert!(seen == producers || wakes == 1, "seen {seen} of {producers}, woken {wakes} times");
        });
    }

    #[test]
    fn loom_one_producer_is_never_missed() {
        check(1);
    }

    #[test]
    fn loom_one_of_two_producers_wakes_and_none_is_missed() {
        check(2);
    }
}
