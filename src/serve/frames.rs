//! What the frames of a job have come to, the fill of its hand-offs, and single frames as pictures.

use super::entry::Entry;
use super::error::ServiceError;
use super::ident::{ClientJobId, Scope};
use super::service::Service;
use super::view::{FrameRun, FrameState, FrameStrip, LinkView};
use restyle_actors::board::FrameMark;

impl Service {
    /// Returns what each frame of a job has come to.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn frames(&self, scope: &Scope, id: &ClientJobId) -> Result<FrameStrip, ServiceError> {
        Ok(strip(&*self.inner.find(scope, id)?))
    }

    /// Returns the hand-offs between the stages of a running job; none of one that does not run.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn links(&self, scope: &Scope, id: &ClientJobId) -> Result<Vec<LinkView>, ServiceError> {
        let control = self.inner.find(scope, id)?.lock().live.control.clone();
        let readings = control.map(|c| c.links()).unwrap_or_default();
        let view = |link: restyle_actors::control::LinkReading| LinkView {
            name: link.name.to_owned(),
            fill: link.fill,
            capacity: link.capacity,
            entered: link.entered,
            left: link.left,
            stall_micros: link.stall_micros,
        };
        Ok(readings.into_iter().map(view).collect())
    }
}

fn strip(entry: &Entry) -> FrameStrip {
    let state = entry.lock();
    if let Some(done) = &state.record.done {
        let all = FrameRun { first: 0, last: done.frames.saturating_sub(1), state: FrameState::Encoded };
        let runs = if state.live.strip.is_empty() { vec![all] } else { state.live.strip.clone() };
        return FrameStrip { frames: done.frames, runs };
    }
    let control = state.live.control.clone();
    let (about, kept) = (state.live.progress.frames_about.unwrap_or(0), state.live.strip.clone());
    drop(state);
    let mut runs = control.map_or(kept, |c| runs(&c));
    let marked = runs.last().map_or(0, |run| run.last + 1);
    if about > marked {
        runs.push(FrameRun { first: marked, last: about - 1, state: FrameState::Planned });
    }
    FrameStrip { frames: about.max(marked), runs }
}

/// What the pipeline knows of a job's frames, in the words of the service.
pub(super) fn runs(control: &crate::JobControl) -> Vec<FrameRun> {
    let view = |run: restyle_actors::board::MarkRun| FrameRun {
        first: run.first,
        last: run.last,
        state: match run.mark {
            FrameMark::Planned => FrameState::Planned,
            FrameMark::Decoded => FrameState::Decoding,
            FrameMark::Scored => FrameState::Scored,
            FrameMark::Encoded => FrameState::Encoded,
            FrameMark::Redone => FrameState::Redone,
        },
    };
    control.frames().into_iter().map(view).collect()
}
