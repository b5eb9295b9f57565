//! What a worker is told to do.
//!
//! The supervisor turns the signal; the worker looks at it between two pieces of work, and every wait of this crate that
//! takes a signal ends when it turns. Nothing here can interrupt code that never looks.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::cancel::CancelToken;
use crate::sync::{Condvar, Mutex};
use crate::wake::{Subscription, Wake, WakeSet};

/// The order in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SignalState {
    /// Work.
    #[default]
    Running,
    /// Finish what was begun, then wait.
    Paused,
    /// Finish what was begun, begin nothing, end.
    Draining {
        /// When what is not finished is abandoned, on the pass's clock.
        deadline: Duration,
    },
    /// End at once; results of what was begun are refused.
    Stop,
}

impl SignalState {
    /// The order in force after `order` is given in this state.
    ///
    /// An order to end is never taken back, and of two deadlines the earlier one holds.
    #[must_use]
    pub fn after(self, order: SignalState) -> SignalState {
        use SignalState::{Draining, Paused, Running, Stop};
        match (self, order) {
            (Stop, _) | (_, Stop) => Stop,
            (Draining { deadline }, Draining { deadline: other }) => Draining { deadline: deadline.min(other) },
            (draining @ Draining { .. }, Running | Paused) => draining,
            (Running | Paused, order) => order,
        }
    }
}

/// A worker's standing order; clones share it.
#[derive(Clone)]
pub struct Signal {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<SignalState>,
    turned: Condvar,
    waits: Arc<WakeSet>,
    draining: CancelToken,
    stopped: CancelToken,
}

impl Signal {
    /// A signal that says [`SignalState::Running`].
    pub fn new() -> Signal {
        let shared = Shared {
            state: Mutex::default(),
            turned: Condvar::default(),
            waits: Arc::default(),
            draining: CancelToken::new(),
            stopped: CancelToken::new(),
        };
        Signal { shared: Arc::new(shared) }
    }

    /// The order in force.
    pub fn state(&self) -> SignalState {
        *self.shared.state.lock()
    }

    /// Gives an order and wakes the waits it concerns; returns the order now in force, by [`SignalState::after`].
    pub fn set(&self, order: SignalState) -> SignalState {
        let mut state = self.shared.state.lock();
        *state = state.after(order);
        let now = *state;
        drop(state);
        self.shared.turned.notify_all();
        if matches!(now, SignalState::Draining { .. } | SignalState::Stop) {
            self.shared.draining.cancel();
        }
        if now == SignalState::Stop {
            self.shared.stopped.cancel();
        }
        self.shared.waits.wake_all();
        now
    }

    /// Blocks while the order is to pause; returns the order that ended the wait.
    pub fn wait_while_paused(&self) -> SignalState {
        let mut state = self.shared.state.lock();
        while *state == SignalState::Paused {
            state = self.shared.turned.wait(state);
        }
        *state
    }

    /// A token cancelled as soon as the worker shall begin nothing new: for producers, which stop when drained.
    pub fn drain_token(&self) -> &CancelToken {
        &self.shared.draining
    }

    /// A token cancelled when the worker shall end at once: for consumers, which finish what comes while drained.
    pub fn stop_token(&self) -> &CancelToken {
        &self.shared.stopped
    }

    /// Has `wake` called whenever the order may have changed, while the subscription lives.
    pub(crate) fn subscribe(&self, wake: Weak<dyn Wake>) -> Subscription {
        self.shared.waits.subscribe(wake)
    }
}

impl Default for Signal {
    fn default() -> Signal {
        Signal::new()
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signal").field(&self.state()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::SignalState::{Draining, Paused, Running, Stop};
    use super::*;

    const SOON: SignalState = Draining { deadline: Duration::from_secs(1) };
    const LATE: SignalState = Draining { deadline: Duration::from_secs(9) };

    #[test]
    fn an_order_to_end_is_never_taken_back() {
        for (state, order, then) in [
            (Running, Paused, Paused),
            (Paused, Running, Running),
            (Paused, LATE, LATE),
            (LATE, SOON, SOON),
            (SOON, LATE, SOON),
            (SOON, Running, SOON),
            (SOON, Paused, SOON),
            (SOON, Stop, Stop),
            (Stop, Running, Stop),
            (Stop, SOON, Stop),
        ] {
            assert_eq!(state.after(order), then, "{state:?} after {order:?}");
        }
    }

    #[test]
    fn tokens_follow_the_order() {
        let signal = Signal::new();
        signal.set(Paused);
        assert!(!signal.drain_token().is_cancelled());
        signal.set(SOON);
        assert!(signal.drain_token().is_cancelled() && !signal.stop_token().is_cancelled());
        signal.set(Stop);
        assert!(signal.stop_token().is_cancelled());
    }

    #[test]
    fn a_paused_worker_wakes_when_resumed_or_stopped() {
        for order in [Running, SOON, Stop] {
            let signal = Signal::new();
            signal.set(Paused);
            let worker = std::thread::spawn({
                let signal = signal.clone();
                move || signal.wait_while_paused()
            });
            signal.set(order);
            assert_eq!(worker.join().unwrap(), order);
        }
    }
}
