//! Decoders and encoders that hang or panic end their pass.
//!
//! Their threads cannot be ended and may hold the segment for ever, so the whole generation is given up: what was packed stands, and the next pass
//! begins with new threads what is not finished. A thread that wakes up later can do no harm: everything it writes is created once.

use super::{Pass, PassNews, Running, SEALING};
use crate::assemble::Attempt;
use crate::error::ActorError;
use restyle_engine::clock::Clock;
use restyle_engine::item::ItemIndex;
use restyle_engine::ledger::AttemptEnd;
use restyle_engine::supervise::{StageHandle, SupervisionEventKind};
use restyle_engine::worker::{ExitReason, NodeId};
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Pass<'_> {
    /// Tells whether a decoder or an encoder hangs, and puts on record which segment it hangs at.
    pub(super) fn has_hung(&mut self, running: &Running) -> bool {
        let decoder = hung(&running.decoder).map(|_| self.decoder_crashed("hangs"));
        let encoder = hung(&running.encoders).map(|node| self.encoder_hangs(&node));
        let before = self.report.failures.len();
        self.report.failures.extend(decoder.into_iter().chain(encoder));
        self.report.failures.len() > before
    }

    /// Leaves behind what did not end within the notice: a frame in a scorer counts as in flight.
    pub(super) fn abandon(&mut self, running: &Running, on_news: &mut dyn FnMut(PassNews<'_>)) {
        self.stop.cancel();
        let _ = running.scorers.stop(Duration::ZERO);
        self.give_up.cancel();
        // The packs of open segments are sealed by their assemblers, which wait for nothing any more.
        let deadline = self.work.clock.now() + SEALING;
        let left = |clock: &dyn Clock| deadline.saturating_sub(clock.now());
        while let Ok(assembled) = running.assembled.recv_timeout(left(&*self.work.clock)) {
            self.segment_ended(assembled, on_news);
        }
    }

    /// Says at which frame.
    pub(super) fn decoder_crashed(&self, how: &str) -> ActorError {
        let frame = self.decoding.load(Ordering::Relaxed);
        ActorError::Crashed { frames: vec![frame], message: format!("the decoder {how} at frame {frame}") }
    }

    fn encoder_hangs(&self, node: &NodeId) -> ActorError {
        let Some(Attempt { segment, number, first_frame, written }) = self.under_way.of(node) else {
            let message = format!("{node} hangs between two segments");
            return ActorError::Crashed { frames: Vec::new(), message };
        };
        let frame = first_frame + u64::from(written);
        let message = format!("encoding segment {segment} hangs at frame {frame}");
        let failed = AttemptEnd::Failed { message: message.clone(), items: vec![ItemIndex(written)] };
        // Before the segment is given up: the first explanation stands.
        if let Err(error) = self.work.segments.ledger().end_attempt(segment, number, &failed) {
            tracing::warn!(%segment, %error, "the end of an attempt could not be recorded");
        }
        ActorError::Crashed { frames: vec![frame], message }
    }
}

/// Returns the node of a stage that was given up with its thread still there.
fn hung(stage: &StageHandle) -> Option<NodeId> {
    stage.events().try_iter().find_map(|event| match event.kind {
        SupervisionEventKind::WorkerExited { node, reason: ExitReason::Hung, .. } => Some(node),
        _ => None,
    })
}
