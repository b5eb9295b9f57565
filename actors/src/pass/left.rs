//! Why no scorer is left, from how each of them ended.

use crate::error::ActorError;
use restyle_engine::stage::Status;
use restyle_engine::supervise::StageReport;
use restyle_engine::worker::ExitReason;

/// Names every node that failed; a lost device weighs more than a missing one, and that more than anything else.
pub(super) fn nobody_left(report: &StageReport) -> ActorError {
    let why: Vec<String> = report.failures().map(|(node, exit)| format!("{node} {exit}")).collect();
    let message = format!("no scorer is left: {}", why.join("; "));
    let any = |is: fn(&ExitReason) -> bool| report.failures().any(|(_, exit)| is(exit));
    if any(|exit| matches!(exit, ExitReason::DeviceLost(_))) {
        ActorError::DeviceLost(message)
    } else if any(|exit| matches!(exit, ExitReason::NotStarted { status: Status::DeviceLost, .. })) {
        ActorError::Device(message)
    } else {
        ActorError::Codec(message)
    }
}
