//! How many iterations each stage has: as said, or as many as a length in time is found to allow.

use std::time::Duration;

use super::config::Length;

/// Iterations that are timed before a length in time becomes a number of iterations.
const TIMED: u32 = 24;
/// Cost of a steady iteration in main ones.
const STEADY_COST: f64 = 1.6;
/// Share of the time that the steady stage takes.
const STEADY_SHARE: f64 = 0.33;

/// The lengths of the main and the steady stage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    length: Length,
    fixed: Option<(u32, u32)>,
}

impl Schedule {
    pub(super) fn new(length: Length) -> Self {
        let fixed = match length {
            Length::Iterations { main, steady } => Some((main, steady)),
            Length::Time(_) => None,
        };
        Self { length, fixed }
    }

    /// Goes on with the lengths that a checkpoint holds.
    pub(super) fn resume(&mut self, stages: (u32, u32)) {
        self.fixed = Some(stages);
    }

    /// Iterations of the main and the steady stage; while a length in time is not fixed, a main stage without end.
    pub(super) fn stages(&self) -> (u32, u32) {
        self.fixed.unwrap_or((u32::MAX / 2, 0))
    }

    /// Whether the lengths are fixed.
    pub(super) fn is_fixed(&self) -> bool {
        self.fixed.is_some()
    }

    /// What to tell of the whole length: the iterations, or, not known yet, those that are timed.
    pub(super) fn told(&self) -> (u32, u32) {
        self.fixed.unwrap_or((TIMED, 0))
    }

    /// Fixes a length in time once enough iterations were timed.
    pub(super) fn observe(&mut self, iterations: u32, iteration_time: Duration) {
        if iterations >= TIMED {
            self.fix(iteration_time);
        }
    }

    /// Fixes a length in time by what an iteration took so far.
    pub(super) fn fix(&mut self, iteration_time: Duration) {
        if let (None, Length::Time(time)) = (self.fixed, self.length) {
            let whole = time.as_secs_f64() / iteration_time.as_secs_f64().max(1e-4);
            let steady = (whole * STEADY_SHARE / STEADY_COST) as u32;
            self.fixed = Some((((whole * (1.0 - STEADY_SHARE)) as u32).max(TIMED), steady));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_in_time_is_fixed_once_it_was_timed_and_never_again() {
        let mut schedule = Schedule::new(Length::Time(Duration::from_secs(100)));
        schedule.observe(TIMED - 1, Duration::from_millis(100));
        assert!(!schedule.is_fixed());
        assert_eq!(schedule.told(), (TIMED, 0));
        schedule.observe(TIMED, Duration::from_millis(100));
        let (main, steady) = schedule.stages();
        assert!(main.abs_diff(670) <= 1 && steady.abs_diff(206) <= 1, "{main} and {steady}");
        schedule.observe(TIMED + 1, Duration::from_millis(10));
        assert_eq!(schedule.stages(), (main, steady));
    }

    #[test]
    fn iterations_are_taken_as_said() {
        let schedule = Schedule::new(Length::Iterations { main: 3, steady: 2 });
        assert!(schedule.is_fixed());
        assert_eq!((schedule.stages(), schedule.told()), ((3, 2), (3, 2)));
    }
}
