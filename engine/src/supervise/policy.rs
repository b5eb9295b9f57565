//! What follows the exit of a worker.

use std::time::Duration;

use crate::stage::Status;
use crate::worker::ExitReason;

/// How a stage treats workers that end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Restarts after failures in a row; a worker that did a piece of work begins a new row.
    pub restarts_max: u32,
    /// Wait before the first restart of a row; doubles with each.
    pub backoff_first: Duration,
    /// Longest wait before a restart.
    pub backoff_max: Duration,
    /// When a pre-empted node comes back by itself; `None`: when it is resumed.
    pub preempted_return_after: Option<Duration>,
    /// Threads of one node that were given up and still live, beyond which it is not restarted.
    pub zombies_max: u32,
}

/// What follows an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The node has done its part.
    End,
    /// A new worker after this wait.
    Restart(Duration),
    /// Nothing until somebody resumes the node.
    Wait,
    /// Nothing any more: the stage goes on with the other nodes.
    GiveUp,
}

impl RestartPolicy {
    /// For scorers: five restarts in a row, 100 ms to 10 s apart, at most four zombies a node.
    pub fn restarting() -> RestartPolicy {
        RestartPolicy {
            restarts_max: 5,
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            preempted_return_after: None,
            zombies_max: 4,
        }
    }

    /// For decoders and encoders: exits are reported, and whoever owns the stage begins anew.
    pub fn never() -> RestartPolicy {
        RestartPolicy { restarts_max: 0, zombies_max: 0, ..RestartPolicy::restarting() }
    }

    /// The wait before restart number `restart` of a row, from 0.
    pub fn backoff(&self, restart: u32) -> Duration {
        let doubled = 2u32.checked_pow(restart).and_then(|factor| self.backoff_first.checked_mul(factor));
        doubled.unwrap_or(self.backoff_max).min(self.backoff_max)
    }

    /// `failures` in a row, this one included; `zombies` of the node, this one included.
    pub(super) fn verdict(&self, exit: &ExitReason, failures: u32, zombies: u32) -> Verdict {
        let restart = |after| if zombies > self.zombies_max { Verdict::GiveUp } else { Verdict::Restart(after) };
        match exit {
            ExitReason::Finished | ExitReason::Drained | ExitReason::Stopped => Verdict::End,
            ExitReason::Preempted => self.preempted_return_after.map_or(Verdict::Wait, restart),
            // A lost device is lost for the whole process.
            ExitReason::DeviceLost(_)
            | ExitReason::NotStarted { status: Status::DeviceLost, .. }
            | ExitReason::Failed { status: Status::DeviceLost, .. } => Verdict::GiveUp,
            ExitReason::Panicked(_) | ExitReason::Hung | ExitReason::NotStarted { .. } | ExitReason::Failed { .. } => {
                if failures > self.restarts_max {
                    Verdict::GiveUp
                } else {
                    restart(self.backoff(failures.saturating_sub(1)))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn policy() -> RestartPolicy {
        RestartPolicy {
            restarts_max: 3,
            backoff_first: 10 * MS,
            backoff_max: 35 * MS,
            preempted_return_after: None,
            zombies_max: 1,
        }
    }

    #[test]
    fn back_off_doubles_up_to_its_limit_and_ends() {
        let panicked = ExitReason::Panicked("x".into());
        let verdicts: Vec<_> = (1..=4).map(|failures| policy().verdict(&panicked, failures, 0)).collect();
        let waits = [10 * MS, 20 * MS, 35 * MS].map(Verdict::Restart);
        assert_eq!(verdicts, [&waits[..], &[Verdict::GiveUp]].concat());
        assert_eq!(policy().backoff(u32::MAX), 35 * MS);
    }

    #[test]
    fn each_exit_has_its_consequence() {
        let failed = |status| ExitReason::Failed { status, message: String::new() };
        let not_started = |status| ExitReason::NotStarted { status, message: String::new() };
        for (exit, zombies, verdict) in [
            (ExitReason::Finished, 0, Verdict::End),
            (ExitReason::Drained, 0, Verdict::End),
            (ExitReason::Stopped, 0, Verdict::End),
            (ExitReason::Preempted, 0, Verdict::Wait),
            (ExitReason::Hung, 1, Verdict::Restart(10 * MS)),
            (ExitReason::Hung, 2, Verdict::GiveUp),
            (ExitReason::DeviceLost(String::new()), 0, Verdict::GiveUp),
            (failed(Status::DeviceLost), 0, Verdict::GiveUp),
            (not_started(Status::DeviceLost), 0, Verdict::GiveUp),
            (not_started(Status::Transient), 0, Verdict::Restart(10 * MS)),
            (failed(Status::Fatal), 0, Verdict::Restart(10 * MS)),
        ] {
            assert_eq!(policy().verdict(&exit, 1, zombies), verdict, "{exit}");
        }
        let returning = RestartPolicy { preempted_return_after: Some(MS), ..policy() };
        assert_eq!(returning.verdict(&ExitReason::Preempted, 0, 1), Verdict::Restart(MS));
        assert_eq!(RestartPolicy::never().verdict(&ExitReason::Hung, 1, 0), Verdict::GiveUp);
    }
}
