//! Virtual time: what happens next, and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::network::Arrival;
use crate::types::time::Time;

/// One of the servers, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServerIndex(pub usize);

/// One of the clients, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientIndex(pub usize);

/// Something that is going to happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A core's thread runs, if this is still the time at which it wanted to.
    Turn { server: ServerIndex, boot: u32, core: usize },
    /// A disk operation is done.
    Disk { server: ServerIndex, boot: u32, operation: u64 },
    /// The helper has written the snapshot.
    Snapshot { server: ServerIndex, boot: u32 },
    /// A piece of what a learner wants has been read.
    Transfer { server: ServerIndex, boot: u32, number: u64 },
    /// The front of a pipe reaches its other end.
    Arrive(Arrival),
    /// A client wants to do something, if this is still the time at which it wanted to.
    Client(ClientIndex),
    /// The next fault of the plan.
    Fault(usize),
    /// A fault ends.
    FaultEnds(usize),
    /// A server is killed at what its disk was doing.
    Caught { server: ServerIndex, boot: u32 },
    /// A server starts.
    Start { server: ServerIndex, boot: u32 },
    /// The next stage of the run.
    Stage,
}

#[derive(PartialEq, Eq)]
struct Entry {
    at: Time,
    number: u64,
    event: Event,
}

/// By time, and by the order of scheduling where times are equal.
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[derive(Default)]
pub struct Scheduler {
    now: Time,
    next: u64,
    heap: BinaryHeap<Reverse<Entry>>,
}

impl Scheduler {
    pub fn now(&self) -> Time {
        self.now
    }

    /// Events so far.
    pub fn count(&self) -> u64 {
        self.next
    }

    /// At `at`, or now if that has passed.
    pub fn at(&mut self, at: Time, event: Event) {
        self.heap.push(Reverse(Entry { at: at.max(self.now), number: self.next, event }));
        self.next += 1;
    }

    /// The next event; time moves on to it.
    pub fn pop(&mut self) -> Option<Event> {
        let Reverse(entry) = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_of_scheduling() {
        let mut scheduler = Scheduler::default();
        scheduler.at(Time(20), Event::Fault(1));
        scheduler.at(Time(10), Event::Fault(2));
        scheduler.at(Time(20), Event::Fault(3));
        let order: Vec<Event> = std::iter::from_fn(|| scheduler.pop()).collect();
        assert_eq!(order, [Event::Fault(2), Event::Fault(1), Event::Fault(3)]);
        scheduler.at(Time(5), Event::Stage);
        assert_eq!(scheduler.pop(), Some(Event::Stage));
        assert_eq!(scheduler.now(), Time(20), "time never goes back");
    }
}
