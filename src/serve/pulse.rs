//! Whether the service lives and takes jobs: the thread that chooses beats, and the work store takes what is put on record.

use super::error::ServiceError;
use super::service::{Inner, Service, lock};
use super::view::Health;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Without a beat for so long the service hangs: longer than any call of a store, with all its attempts, may take.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// How often a store that failed is asked whether it is back.
const ASK: Duration = Duration::from_secs(5);

/// Signs of life.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    state: Mutex<State>,
    /// Whether a device was lost, for good.
    device_lost: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// When the thread that chooses last came by, on the clock.
    beat: Option<Duration>,
    /// What the work store said when it last failed.
    failure: Option<String>,
    asked: Duration,
}

impl Pulse {
    /// Notes what putting something on record came to; only a store that fails is one.
    pub(super) fn stored(&self, error: Option<&ServiceError>) {
        let failure = error.filter(|e| e.kind() == super::ServiceErrorKind::Storage).map(ToString::to_string);
        lock(&self.state).failure = failure;
    }

    /// Notes that a device was lost.
    pub(super) fn lose_device(&self) {
        self.device_lost.store(true, Ordering::SeqCst);
    }

    /// Whether a device was lost: no job is begun any more.
    pub(super) fn is_device_lost(&self) -> bool {
        self.device_lost.load(Ordering::SeqCst)
    }
}

impl Service {
    /// Whether a job lost its last device. Nothing in this process can use it again and no further job is begun: the process
    /// should drain, end, and be started again; then its jobs go on.
    #[must_use]
    pub fn is_device_lost(&self) -> bool {
        self.inner.pulse.is_device_lost()
    }
}

/// The thread that chooses comes by.
pub(super) fn beat(inner: &Inner) {
    let now = inner.clock.now();
    let is_due = {
        let mut state = lock(&inner.pulse.state);
        state.beat = Some(now);
        let is_due = state.failure.is_some() && now.saturating_sub(state.asked) >= ASK;
        if is_due {
            state.asked = now;
        }
        is_due
    };
    if is_due {
        inner.pulse.stored(inner.journal.ask().err().as_ref());
    }
}

/// See [`super::Service::health`].
pub(super) fn health(inner: &Inner) -> Health {
    let ending = inner.draining.load(Ordering::SeqCst);
    let state = lock(&inner.pulse.state);
    let silent = state.beat.is_some_and(|beat| inner.clock.now().saturating_sub(beat) > SILENCE_MAX);
    // What ends need not choose any more.
    let live = ending || !silent;
    let told = [
        ending.then(|| "the service is ending".to_owned()),
        (!live).then(|| "nothing is chosen any more: the service hangs".to_owned()),
        state.failure.clone(),
        inner.pulse.is_device_lost().then(|| "a device was lost: the process has to be started again".to_owned()),
    ];
    let problems: Vec<String> = told.into_iter().flatten().collect();
    Health { live, ready: problems.is_empty(), problems }
}
