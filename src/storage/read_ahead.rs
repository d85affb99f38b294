//! A second thread reads and checks a file while the first works on what came before: a start uses two cores.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Bytes of a batch from which on it is handed over.
const BATCH_BYTES: usize = 128 << 10;
/// Items from which on it is handed over.
const BATCH_ITEMS: usize = 1024;
/// Batches under way beside the ones being filled and worked on.
const BATCHES_AHEAD: usize = 4;

/// A stretch of a file: items, and what they refer to.
pub(super) struct Batch<T> {
    pub items: Vec<T>,
    pub text: String,
    pub bytes: Vec<u8>,
}

impl<T> Default for Batch<T> {
    fn default() -> Batch<T> {
        Batch { items: Vec::new(), text: String::new(), bytes: Vec::new() }
    }
}

impl<T> Batch<T> {
    pub fn is_full(&self) -> bool {
        self.items.len() >= BATCH_ITEMS || self.bytes.len() + self.text.len() >= BATCH_BYTES
    }

    fn clear(&mut self) {
        self.items.clear();
        self.text.clear();
        self.bytes.clear();
    }
}

/// Calls `fill` on a second thread, until it says how the source ended, and `work` here with each batch, in order.
/// Errors: the first one of either side.
pub(super) fn read_ahead<T: Send, R: Send, E: Send>(
    fill: impl FnMut(&mut Batch<T>) -> Result<Option<R>, E> + Send,
    mut work: impl FnMut(&Batch<T>) -> Result<(), E>,
) -> Result<R, E> {
    let (filled, to_do) = sync_channel(BATCHES_AHEAD);
    let (spent, spare) = sync_channel(BATCHES_AHEAD + 2);
    // The ends of the channels go with this closure: a reader that nobody listens to any more gives up.
    thread::scope(move |scope| {
        let reader = scope.spawn(move || read(fill, &filled, &spare));
        while let Ok(mut batch) = to_do.recv() {
            work(&batch)?;
            batch.clear();
            // A reader that has ended needs no more.
            let _ = spent.send(batch);
        }
        match reader.join() {
            Ok(Ok(Some(end))) => Ok(end),
            Ok(Ok(None)) => unreachable!("only an error here makes the reader give up"),
            Ok(Err(error)) => Err(error),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// `None`: nobody wants any more.
fn read<T, R, E>(
    mut fill: impl FnMut(&mut Batch<T>) -> Result<Option<R>, E>,
    filled: &SyncSender<Batch<T>>,
    spare: &Receiver<Batch<T>>,
) -> Result<Option<R>, E> {
    loop {
        let mut batch = spare.try_recv().unwrap_or_default();
        let end = fill(&mut batch);
        // What was read before an error is worked on, so that the error is told with everything before it done.
        if filled.send(batch).is_err() {
            return Ok(None);
        }
        if let Some(end) = end? {
            return Ok(Some(end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(to: u32) -> impl FnMut(&mut Batch<u32>) -> Result<Option<u32>, String> + Send {
        let mut next = 0;
        move |batch| {
            while !batch.is_full() {
                if next == to {
                    return Ok(Some(next));
                }
                batch.items.push(next);
                next += 1;
            }
            Ok(None)
        }
    }

    #[test]
    fn everything_comes_once_and_in_order() {
        let mut seen = Vec::new();
        let end = read_ahead(counting(100_000), |batch| {
            seen.extend_from_slice(&batch.items);
            Ok(())
        });
        assert_eq!(end, Ok(100_000));
        assert!(seen.into_iter().eq(0..100_000));
    }

    #[test]
    fn an_error_of_the_worker_ends_the_reader() {
        let end = read_ahead(counting(1_000_000), |batch| match batch.items.first() {
            Some(&first) if first > 5000 => Err("enough".to_owned()),
            _ => Ok(()),
        });
        assert_eq!(end, Err("enough".to_owned()));
    }

    #[test]
    fn an_error_of_the_reader_comes_after_what_it_read() {
        let mut seen = 0;
        let fill = |batch: &mut Batch<u32>| {
            batch.items.push(7);
            Err::<Option<()>, _>("broken")
        };
        let end = read_ahead(fill, |batch| {
            seen += batch.items.len();
            Ok(())
        });
        assert_eq!(end, Err("broken"));
        assert_eq!(seen, 1);
    }
}
