//! How a worker shows that it is alive, for a supervisor that only counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A worker's progress counters; clones share them. Every call is one atomic operation.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    ticks: AtomicU64,
    waiting: AtomicUsize,
    waits_ended: AtomicU64,
}

/// What a supervisor sees of a worker's progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProgressReading {
    /// Pieces of work done.
    pub ticks: u64,
    /// Whether it waits for somebody else; then standing still is no hang.
    pub waiting: bool,
    /// Waits that ended.
    pub waits_ended: u64,
}

impl Progress {
    /// Counters at zero.
    pub fn new() -> Progress {
        Progress::default()
    }

    /// Says that a piece of work was done. A worker that neither ticks nor waits for long is taken to hang.
    pub fn tick(&self) {
        self.counts.ticks.fetch_add(1, Ordering::Release);
    }

    /// Says, while the guard lives, that the worker waits for work or for orders.
    pub fn waiting_upstream(&self) -> WaitGuard {
        self.waiting()
    }

    /// Says, while the guard lives, that the worker waits for room, credits or storage behind it.
    pub fn waiting_downstream(&self) -> WaitGuard {
        self.waiting()
    }

    /// The counters.
    pub fn read(&self) -> ProgressReading {
        ProgressReading {
            ticks: self.counts.ticks.load(Ordering::Acquire),
            waiting: self.counts.waiting.load(Ordering::Acquire) > 0,
            waits_ended: self.counts.waits_ended.load(Ordering::Acquire),
        }
    }

    fn waiting(&self) -> WaitGuard {
        self.counts.waiting.fetch_add(1, Ordering::AcqRel);
        WaitGuard { counts: self.counts.clone() }
    }
}

/// A worker waits while this lives.
#[derive(Debug)]
#[must_use = "the wait ends when the guard is dropped"]
pub struct WaitGuard {
    counts: Arc<Counts>,
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        // In this order a reader that no longer sees the wait sees that it ended.
        self.counts.waits_ended.fetch_add(1, Ordering::AcqRel);
        self.counts.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_nest_and_leave_a_trace() {
        let progress = Progress::new();
        let outer = progress.waiting_downstream();
        let inner = progress.waiting_upstream();
        drop(outer);
        assert!(progress.read().waiting);
        drop(inner);
        progress.tick();
        assert_eq!(progress.read(), ProgressReading { ticks: 1, waiting: false, waits_ended: 2 });
    }
}
