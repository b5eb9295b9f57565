//! Idleness: what is kept for the next job, for how long, and what is given back then.
//!
//! Keeping a network costs memory that others could use, building one costs the next job time. Kept for as long as its memory is
//! worth one building, it costs at most twice what the best choice would have cost, whenever the next job comes. A second of a
//! whole machine is what a second of building costs; keeping costs the share of the machine's memory that is held.

use super::memory;
use super::service::{Inner, lock};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Bounds of the time that is worked out where none is configured.
const IDLE_MIN: Duration = Duration::from_secs(5);
const IDLE_MAX: Duration = Duration::from_secs(600);

/// Gives back what is kept for the next job, once in each idle time and when that has lasted long enough.
pub(super) fn look(inner: &Inner) {
    let Some(since) = *lock(&inner.idle_since) else {
        inner.rested.store(false, Ordering::Relaxed);
        return;
    };
    let limits = inner.config().nodes;
    let held = memory::resident().saturating_sub(inner.resident_at_start);
    let build = inner.shelf.build_time();
    let after = limits.idle_after.unwrap_or_else(|| worth(build, held, memory::total()));
    let idle = inner.clock.now().saturating_sub(since);
    if idle < after || inner.rested.swap(true, Ordering::Relaxed) {
        return;
    }
    let before = memory::resident();
    inner.shelf.shrink(limits.min);
    restyle_actors::ffmpeg::heap::give_back_pages();
    tracing::info!(
        idle_seconds = idle.as_secs(),
        build_millis = u64::try_from(build.as_millis()).unwrap_or(u64::MAX),
        resident_mib_before = before >> 20,
        resident_mib_after = memory::resident() >> 20,
        networks_kept = inner.shelf.len(),
        "idle: networks and memory were given back"
    );
}

/// How long `held` of `total` bytes are kept for a start that costs `build`.
fn worth(build: Duration, held: u64, total: u64) -> Duration {
    let times = total as f64 / held.max(1) as f64;
    Duration::try_from_secs_f64(build.as_secs_f64() * times).unwrap_or(IDLE_MAX).clamp(IDLE_MIN, IDLE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dear_to_build_and_cheap_to_keep_is_kept_longer() {
        let worth = |millis, held: u64| worth(Duration::from_millis(millis), held << 20, 16 << 30).as_secs();
        assert_eq!(worth(100, 100), 16);
        assert_eq!(worth(2000, 1024), 32);
        assert_eq!(worth(10, 4096), IDLE_MIN.as_secs());
        assert_eq!(worth(60_000, 1), IDLE_MAX.as_secs());
    }
}
