//! Puts items back in order within a window.
//!
//! Owned by one consumer, filled and emptied by it; bounded by its window, which is at least the number of credits, so
//! that whatever is in flight finds a place.

use std::collections::VecDeque;
use std::fmt;

use crate::item::ItemIndex;

/// A window of items that wait for an earlier one.
#[derive(Debug)]
pub struct Reorder<T> {
    /// Index of the first place of `places`: the next to pop.
    next: u64,
    window: usize,
    places: VecDeque<Option<T>>,
    waiting: usize,
}

/// Why an item found no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// Its index was popped already.
    Behind,
    /// Its index is taken.
    Duplicate,
    /// Its index lies beyond the window.
    Beyond,
}

/// An item that found no place, and why.
#[derive(thiserror::Error)]
#[error("item {index} is {reason:?}: the window holds {next} to {last}")]
pub struct Refused<T> {
    /// Its index.
    pub index: ItemIndex,
    /// Why it was refused.
    pub reason: RefusalReason,
    /// First index of the window.
    pub next: u64,
    /// Last index of the window.
    pub last: u64,
    /// The item.
    pub item: T,
}

impl<T> fmt::Debug for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("index", &self.index).field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<T> Reorder<T> {
    /// An empty window of `window` places whose first item is `first`.
    ///
    /// # Panics
    /// If the window has no place.
    pub fn new(first: ItemIndex, window: usize) -> Reorder<T> {
        assert!(window > 0, "a window without a place");
        Reorder { next: u64::from(first.0), window, places: VecDeque::new(), waiting: 0 }
    }

    /// Puts an item in its place.
    ///
    /// # Errors
    /// The item comes back if its index was there before or lies beyond the window; nothing changes then.
    pub fn insert(&mut self, index: ItemIndex, item: T) -> Result<(), Refused<T>> {
        let last = self.next + self.window as u64 - 1;
        let refuse = |reason, item| Err(Refused { index, reason, next: self.next, last, item });
        let Some(offset) = u64::from(index.0).checked_sub(self.next) else {
            return refuse(RefusalReason::Behind, item);
        };
        if offset >= self.window as u64 {
            return refuse(RefusalReason::Beyond, item);
        }
        let offset = offset as usize;
        if self.places.get(offset).is_some_and(Option::is_some) {
            return refuse(RefusalReason::Duplicate, item);
        }
        if self.places.len() <= offset {
            self.places.resize_with(offset + 1, || None);
        }
        self.places[offset] = Some(item);
        self.waiting += 1;
        Ok(())
    }

    /// The next item in order, if it is there.
    pub fn pop(&mut self) -> Option<T> {
        self.places.front()?.as_ref()?;
        self.next += 1;
        self.waiting -= 1;
        self.places.pop_front().flatten()
    }

    /// Index of the item that [`pop`](Reorder::pop) gives next; one past `u32::MAX` after the last.
    pub fn next_index(&self) -> u64 {
        self.next
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_has_no_place_and_changes_nothing() {
        let mut reorder = Reorder::new(ItemIndex(5), 3);
        reorder.insert(ItemIndex(6), 'b').unwrap();
        for (index, reason) in [(4, RefusalReason::Behind), (6, RefusalReason::Duplicate), (8, RefusalReason::Beyond)] {
            let refused = reorder.insert(ItemIndex(index), 'x').unwrap_err();
            assert_eq!((refused.reason, refused.item), (reason, 'x'));
        }
        assert_eq!(reorder.pop(), None);
        reorder.insert(ItemIndex(5), 'a').unwrap();
        assert_eq!((reorder.pop(), reorder.pop(), reorder.pop()), (Some('a'), Some('b'), None));
        assert_eq!((reorder.next_index(), reorder.len()), (7, 0));
        assert_eq!(reorder.insert(ItemIndex(5), 'x').unwrap_err().reason, RefusalReason::Behind);
    }

    #[test]
    fn the_last_index_has_a_place() {
        let mut reorder = Reorder::new(ItemIndex(u32::MAX), 4);
        reorder.insert(ItemIndex(u32::MAX), ()).unwrap();
        assert_eq!(reorder.pop(), Some(()));
        assert_eq!(reorder.pop(), None);
    }

    proptest! {
        /// Any order in, with pops anywhere between: the one order out, nothing lost, nothing twice.
        #[test]
        fn any_order_in_one_order_out(
            first in 0u32..1000,
            keys in prop::collection::vec(any::<u16>(), 0..80),
            pops in prop::collection::vec(any::<bool>(), 80),
        ) {
            let mut order: Vec<u32> = (0..keys.len() as u32).collect();
            order.sort_by_key(|index| keys[*index as usize]);
            let mut reorder = Reorder::new(ItemIndex(first), keys.len().max(1));
            let mut out = Vec::new();
            for (index, pop) in order.iter().zip(pops) {
                reorder.insert(ItemIndex(first + index), *index).unwrap();
                prop_assert!(reorder.insert(ItemIndex(first + index), *index).is_err());
                if pop {
                    out.extend(reorder.pop());
                }
            }
            out.extend(std::iter::from_fn(|| reorder.pop()));
            prop_assert_eq!(out, (0..keys.len() as u32).collect::<Vec<_>>());
            prop_assert!(reorder.is_empty());
        }
    }
}
