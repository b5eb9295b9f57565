//! Moments as they are written down: RFC 3339 in UTC, from the wall clock, for people and logs only.

use restyle_engine::clock::Clock;
use std::time::{Duration, UNIX_EPOCH};

/// Writes a time since 1970 as RFC 3339 with milliseconds.
pub(super) fn rfc3339(unix: Duration) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + unix).to_string()
}

/// Writes the clock's present.
pub(super) fn now(clock: &dyn Clock) -> String {
    rfc3339(clock.unix())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_reads_as_such() {
        assert_eq!(rfc3339(Duration::from_millis(1_500)), "1970-01-01T00:00:01.500Z");
    }
}
