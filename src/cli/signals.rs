//! Ctrl-C and SIGTERM: the first drains, the second aborts.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Installs the handler: `drain` runs at the first signal, on a thread of its own; the second ends the process at once.
pub(super) fn on_stop(drain: impl Fn() + Send + 'static) {
    let seen = AtomicUsize::new(0);
    let installed = ctrlc::set_handler(move || {
        if seen.fetch_add(1, Ordering::SeqCst) == 0 {
            super::output::say("restyle: stopping; what is finished is kept, a second signal aborts");
            drain();
        } else {
            std::process::exit(75);
        }
    });
    if let Err(e) = installed {
        tracing::warn!(error = %e, "signals cannot be handled: an interruption loses the frames in flight");
    }
}
