//! One-way cancellation that wakes blocked waits.

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::sync::Mutex;
use crate::wake::{Subscription, Wake, WakeSet};

/// A flag that, once set, stays set and wakes every wait that was given it.
///
/// Clones share the flag. Anything that blocks in this crate takes a token or a [`Signal`](crate::signal::Signal).
#[derive(Clone)]
pub struct CancelToken {
    shared: Arc<Shared>,
    /// Keeps a child subscribed to its parent for as long as any clone of it lives.
    _parent: Option<Arc<Subscription>>,
}

struct Shared {
    cancelled: AtomicBool,
    waits: Arc<WakeSet>,
    /// Dropped on cancellation, which disconnects `ended`.
    open: Mutex<Option<Sender<Infallible>>>,
    ended: Receiver<Infallible>,
}

/// A wait ended because its token was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

impl CancelToken {
    /// A token that nobody has cancelled.
    pub fn new() -> CancelToken {
        let (open, ended) = crossbeam_channel::bounded(0);
        let shared =
            Shared { cancelled: AtomicBool::new(false), waits: Arc::default(), open: Mutex::new(Some(open)), ended };
        CancelToken { shared: Arc::new(shared), _parent: None }
    }

    /// A token that is cancelled with this one, and can be cancelled alone.
    pub fn child(&self) -> CancelToken {
        let mut child = CancelToken::new();
        let weak: Weak<dyn Wake> = Arc::downgrade(&child.shared) as Weak<dyn Wake>;
        child._parent = Some(Arc::new(self.subscribe(weak)));
        if self.is_cancelled() {
            child.cancel();
        }
        child
    }

    /// Sets the flag and wakes every blocked wait; further calls do nothing.
    pub fn cancel(&self) {
        self.shared.cancel();
    }

    /// Whether the flag is set.
    pub fn is_cancelled(&self) -> bool {
        self.shared.cancelled.load(Ordering::Acquire)
    }

    /// `Err` once cancelled; for `?` between two steps of a loop.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }

    /// A channel that never carries a message and disconnects on cancellation; for `crossbeam_channel::select!`.
    pub fn ended(&self) -> &Receiver<Infallible> {
        &self.shared.ended
    }

    /// Blocks until cancelled.
    pub fn wait(&self) {
        // A channel without messages ends its wait only by being disconnected.
        let _ = self.shared.ended.recv();
    }

    /// Blocks until cancelled, at most for `timeout` of real time; true if cancelled.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        match self.shared.ended.recv_timeout(timeout) {
            Ok(never) => match never {},
            Err(RecvTimeoutError::Timeout) => self.is_cancelled(),
            Err(RecvTimeoutError::Disconnected) => true,
        }
    }

    /// Has `wake` called at cancellation while the subscription lives.
    pub(crate) fn subscribe(&self, wake: Weak<dyn Wake>) -> Subscription {
        self.shared.waits.subscribe(wake)
    }
}

impl Default for CancelToken {
    fn default() -> CancelToken {
        CancelToken::new()
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}

impl Shared {
    fn cancel(&self) {
        if !self.cancelled.swap(true, Ordering::AcqRel) {
            drop(self.open.lock().take());
            self.waits.wake_all();
        }
    }
}

/// A child's view of its parent: the parent's cancellation is its own.
impl Wake for Shared {
    fn wake(&self) {
        self.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn cancelling_is_for_ever_and_for_all_clones() {
        let token = CancelToken::new();
        let clone = token.clone();
        assert_eq!(clone.check(), Ok(()));
        token.cancel();
        token.cancel();
        assert!(clone.is_cancelled());
        assert_eq!(clone.check(), Err(Cancelled));
        assert!(clone.wait_timeout(LONG));
    }

    #[test]
    fn a_child_follows_its_parent_and_not_the_reverse() {
        let parent = CancelToken::new();
        let (first, second) = (parent.child(), parent.child());
        first.cancel();
        assert!(first.is_cancelled() && !parent.is_cancelled() && !second.is_cancelled());
        let grandchild = second.child();
        parent.cancel();
        assert!(second.is_cancelled() && grandchild.is_cancelled());
        assert!(parent.child().is_cancelled());
    }

    #[test]
    fn a_blocked_wait_is_woken() {
        let token = CancelToken::new();
        let waiter = std::thread::spawn({
            let token = token.clone();
            move || token.wait_timeout(LONG)
        });
        token.cancel();
        assert!(waiter.join().unwrap());
    }

    #[test]
    fn a_wait_that_nobody_cancels_times_out() {
        assert!(!CancelToken::new().wait_timeout(Duration::from_millis(1)));
    }
}
