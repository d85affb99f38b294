//! A queue that gives memory back as it empties: bulk loading puts millions of entries through it.

use std::collections::VecDeque;

/// Entries per block.
const BLOCK: usize = 1024;

pub(super) struct Queue<T> {
    /// Never empty; only the last may be short, only the first partly consumed.
    blocks: VecDeque<VecDeque<T>>,
    /// The block that was emptied last, for the next one.
    spare: Option<VecDeque<T>>,
    len: usize,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Queue<T> {
        Queue { blocks: VecDeque::from([VecDeque::new()]), spare: None, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push_back(&mut self, value: T) {
        if self.blocks.back().is_none_or(|block| block.len() >= BLOCK) {
            let block = self.spare.take().unwrap_or_else(|| VecDeque::with_capacity(BLOCK));
            self.blocks.push_back(block);
        }
        if let Some(block) = self.blocks.back_mut() {
            block.push_back(value);
            self.len += 1;
        }
    }

    pub(super) fn front(&self) -> Option<&T> {
        self.ahead(0)
    }

    /// The entry so many places behind the first, if it is near.
    pub(super) fn ahead(&self, places: usize) -> Option<&T> {
        self.blocks.front()?.get(places)
    }

    pub(super) fn back(&self) -> Option<&T> {
        self.blocks.back()?.back()
    }

    pub(super) fn pop_front(&mut self) -> Option<T> {
        let block = self.blocks.front_mut()?;
        let value = block.pop_front()?;
        self.len -= 1;
        if block.is_empty() && self.blocks.len() > 1 {
            self.spare = self.blocks.pop_front();
        }
        Some(value)
    }

    pub(super) fn pop_back(&mut self) -> Option<T> {
        let block = self.blocks.back_mut()?;
        let value = block.pop_back()?;
        self.len -= 1;
        if block.is_empty() && self.blocks.len() > 1 {
            self.blocks.pop_back();
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_agree_with_a_plain_deque() {
        let (mut queue, mut model) = (Queue::new(), VecDeque::new());
        let mut dice = 7_u64;
        for i in 0..200_000_u64 {
            dice = dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            match (dice >> 33) % if i % 40_000 < 20_000 { 4 } else { 2 } {
                0 => assert_eq!(queue.pop_front(), model.pop_front()),
                1 => assert_eq!(queue.pop_back(), model.pop_back()),
                _ => {
                    queue.push_back(i);
                    model.push_back(i);
                }
            }
            assert_eq!((queue.len(), queue.front(), queue.back()), (model.len(), model.front(), model.back()));
        }
    }
}
