//! How often a caller may ask: a bucket for each address and each token, in bounded memory.

use restyle_engine::clock::Clock;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Callers that are remembered; beyond it, new ones share one bucket until others have run empty.
const CALLERS_MAX: usize = 10_000;
/// A caller who was silent may ask for so many seconds' worth at once: a dashboard loads a page.
const BURST_SECONDS: u32 = 2;

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Caller {
    /// Everyone at an address; an IPv6 customer has a /64 at least.
    Address(IpAddr),
    /// Whoever holds a token, from wherever.
    Token(String),
    /// All that there is no room to remember.
    Others,
}

impl Caller {
    pub(super) fn at(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => Self::Address(IpAddr::from((u128::from(v6) >> 64 << 64).to_be_bytes())),
            v4 => Self::Address(v4),
        }
    }
}

/// Buckets by caller: each request moves the time at which the bucket is empty again (GCRA).
pub(super) struct RateLimit {
    clock: Arc<dyn Clock>,
    empty_at: Mutex<HashMap<Caller, Duration>>,
}

impl RateLimit {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, empty_at: Mutex::default() }
    }

    /// Counts a request; on refusal returns when asking again makes sense.
    pub(super) fn take(&self, caller: Caller, per_second: u32) -> Result<(), Duration> {
        let now = self.clock.now();
        let each = Duration::from_secs(1) / per_second.max(1);
        let depth = Duration::from_secs(u64::from(BURST_SECONDS));
        let mut buckets = self.empty_at.lock().unwrap_or_else(PoisonError::into_inner);
        let caller = room(&mut buckets, caller, now);
        let empty_at = buckets.entry(caller).or_insert(now);
        let next = (*empty_at).max(now) + each;
        if next - now > depth {
            return Err(next - now - depth);
        }
        *empty_at = next;
        Ok(())
    }
}

fn room(buckets: &mut HashMap<Caller, Duration>, caller: Caller, now: Duration) -> Caller {
    if buckets.len() >= CALLERS_MAX && !buckets.contains_key(&caller) {
        buckets.retain(|_, empty_at| *empty_at > now);
        if buckets.len() >= CALLERS_MAX {
            return Caller::Others;
        }
    }
    caller
}

#[cfg(test)]
mod tests {
    use super::*;
    use restyle_engine::clock::ManualClock;

    fn address(n: u32) -> Caller {
        Caller::at(IpAddr::from(n.to_be_bytes()))
    }

    #[test]
    fn a_burst_then_the_rate_and_others_are_not_held_back() {
        let clock = ManualClock::shared();
        let limit = RateLimit::new(clock.clone());
        let granted = |caller: &Caller| (0..100).filter(|_| limit.take(caller.clone(), 10).is_ok()).count();
        assert_eq!(granted(&address(1)), 20);
        assert_eq!(limit.take(address(1), 10), Err(Duration::from_millis(100)));
        assert_eq!(granted(&address(2)), 20);
        clock.advance(Duration::from_millis(500));
        assert_eq!(granted(&address(1)), 5);
        clock.advance(Duration::from_secs(60));
        assert_eq!(granted(&address(1)), 20, "silence was saved up beyond the burst");
    }

    #[test]
    fn many_callers_take_bounded_memory_and_share_the_rest() {
        let clock = ManualClock::shared();
        let limit = RateLimit::new(clock.clone());
        for n in 0..2 * CALLERS_MAX as u32 {
            let _ = limit.take(address(n), 10);
        }
        assert!(limit.empty_at.lock().unwrap().len() <= CALLERS_MAX + 1);
        assert!(limit.take(address(u32::MAX), 10).is_err(), "strangers were given a bucket each");
        clock.advance(Duration::from_secs(1));
        assert!(limit.take(address(u32::MAX), 10).is_ok());
    }

    #[test]
    fn neighbours_in_ipv6_share_a_bucket() {
        let at = |text: &str| Caller::at(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
    }
}
