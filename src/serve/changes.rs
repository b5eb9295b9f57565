//! Whom to tell when a job is in another state, whichever job it is.

use super::service::{Service, lock};
use super::view::JobView;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use std::sync::Mutex;

/// Changes that a listener may be behind; beyond it they are lost for it, and the list of jobs tells what is.
const BEHIND_MAX: usize = 1_000;

/// Whoever wants to know; produced by whatever changes a job, consumed by webhooks.
#[derive(Default)]
pub(super) struct Changes {
    listeners: Mutex<Vec<Sender<JobView>>>,
}

impl Changes {
    /// Tells everybody; never waits.
    pub(super) fn tell(&self, view: impl FnOnce() -> JobView) {
        let mut listeners = lock(&self.listeners);
        if listeners.is_empty() {
            return;
        }
        let view = view();
        listeners.retain(|listener| match listener.try_send(view.clone()) {
            Err(TrySendError::Disconnected(_)) => false,
            Err(TrySendError::Full(_)) => {
                tracing::warn!(job = %view.id, "a change of a job was not told: its listener is too far behind");
                true
            }
            Ok(()) => true,
        });
    }
}

impl Service {
    /// Returns the jobs that are in another state from now on, as they are then; disconnected when the service has ended.
    #[must_use]
    pub fn changes(&self) -> Receiver<JobView> {
        let (sender, receiver) = crossbeam_channel::bounded(BEHIND_MAX);
        lock(&self.inner.changes.listeners).push(sender);
        receiver
    }
}
