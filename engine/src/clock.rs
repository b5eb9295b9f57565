//! Time as a parameter.
//!
//! Everything that asks what time it is, or waits for a time, takes a [`Clock`]; so tests and the simulator decide how
//! fast time goes. This is the only file that may call the system's clocks.
#![allow(clippy::disallowed_methods)]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::sync::{Condvar, Mutex};

/// A source of time.
pub trait Clock: Send + Sync {
    /// Time since an arbitrary origin; never goes backwards.
    fn now(&self) -> Duration;
    /// Wall-clock time since the Unix epoch; may jump. For people and logs, never for a decision.
    fn unix(&self) -> Duration;
    /// Blocks the calling thread for `duration` of this clock's time.
    fn sleep(&self, duration: Duration);
}

/// The machine's own clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose origin is now.
    pub fn new() -> SystemClock {
        SystemClock { origin: Instant::now() }
    }

    /// The same, shared and without its type.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(SystemClock::new())
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn unix(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// A clock that stands still until it is told to advance.
///
/// `now` starts at zero. A thread inside [`Clock::sleep`] blocks until another advances the clock far enough.
#[derive(Debug, Default)]
pub struct ManualClock {
    state: Mutex<ManualState>,
    advanced: Condvar,
}

#[derive(Debug, Default)]
struct ManualState {
    now: Duration,
    unix_at_origin: Duration,
    sleeping: usize,
}

impl ManualClock {
    /// A shared clock that shows zero on both faces.
    pub fn shared() -> Arc<ManualClock> {
        Arc::new(ManualClock::default())
    }

    /// Moves time forward and wakes the sleepers whose time has come.
    pub fn advance(&self, by: Duration) {
        self.state.lock().now += by;
        self.advanced.notify_all();
    }

    /// Moves the wall clock alone, as an operator or NTP would.
    pub fn set_unix(&self, unix: Duration) {
        let mut state = self.state.lock();
        state.unix_at_origin = unix.saturating_sub(state.now);
    }

    /// How many threads are inside `sleep`.
    pub fn sleeping(&self) -> usize {
        self.state.lock().sleeping
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        self.state.lock().now
    }

    fn unix(&self) -> Duration {
        let state = self.state.lock();
        state.unix_at_origin + state.now
    }

    fn sleep(&self, duration: Duration) {
        let mut state = self.state.lock();
        let until = state.now + duration;
        state.sleeping += 1;
        while state.now < until {
            state = self.advanced.wait(state);
        }
        state.sleeping -= 1;
    }
}

/// Microseconds of a duration, saturated to what a counter holds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_clock_never_goes_back() {
        let clock = SystemClock::new();
        let before = clock.now();
        clock.sleep(Duration::from_millis(1));
        assert!(clock.now() >= before + Duration::from_millis(1));
        assert!(clock.unix() > Duration::from_secs(1_500_000_000));
    }

    #[test]
    fn manual_sleep_ends_when_advanced_far_enough() {
        let clock = ManualClock::shared();
        let sleeper = std::thread::spawn({
            let clock = clock.clone();
            move || {
                clock.sleep(Duration::from_secs(10));
                clock.now()
            }
        });
        while clock.sleeping() == 0 {
            std::thread::yield_now();
        }
        clock.advance(Duration::from_secs(4));
        clock.advance(Duration::from_secs(7));
        assert_eq!(sleeper.join().unwrap(), Duration::from_secs(11));
        assert_eq!(clock.sleeping(), 0);
    }

    #[test]
    fn wall_clock_of_a_manual_clock_moves_alone() {
        let clock = ManualClock::default();
        clock.advance(Duration::from_secs(5));
        clock.set_unix(Duration::from_secs(1000));
        assert_eq!(clock.unix(), Duration::from_secs(1000));
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.unix(), Duration::from_secs(1001));
        assert_eq!(clock.now(), Duration::from_secs(6));
    }
}
