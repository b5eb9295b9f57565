//! The scorer's side of a job: what a scorer is, and the one that paints with a style network.

use crate::frame::DecodedFrame;
use crate::scored_log::ScoredLog;
use crate::task::{Arrival, FrameTask, Scored, ScoredFrame};
use restyle_engine::fault;
use restyle_engine::link::LinkSender;
use restyle_engine::stage::{Stage, StageError, Status};
use restyle_models::pixels::Picture;
use restyle_models::style::{StyleModel, StylizeOptions};
use std::sync::Arc;

/// Scores decoded frames: paints a picture for each, or describes it in a record.
///
/// A scorer is built on the thread that uses it and never leaves it. It must be a pure function of the frame: the same frame
/// gives the same result whatever came before it, else a resumed job would differ from an undisturbed one.
pub trait Scorer {
    /// Returns the most frames that one call takes; at least 1.
    fn batch_frames_max(&self) -> usize {
        1
    }

    /// Scores frames of equal shape and returns one result a frame, in their order.
    ///
    /// # Errors
    /// One a frame; [`Status::Poison`] condemns that frame alone, anything else this scorer.
    fn score(&mut self, frames: &[&DecodedFrame]) -> Vec<Result<Scored, StageError>>;
}

/// Paints frames with a style network.
pub struct StyleScorer {
    model: Box<dyn StyleModel>,
    options: StylizeOptions,
    batch_frames_max: usize,
}

impl StyleScorer {
    /// Wraps a model built on this thread; `batch_frames_max` is what its device digests at once.
    #[must_use]
    pub fn new(model: Box<dyn StyleModel>, options: StylizeOptions, batch_frames_max: usize) -> Self {
        Self { model, options, batch_frames_max: batch_frames_max.max(1) }
    }
}

impl Scorer for StyleScorer {
    fn batch_frames_max(&self) -> usize {
        self.batch_frames_max
    }

    fn score(&mut self, frames: &[&DecodedFrame]) -> Vec<Result<Scored, StageError>> {
        let pictures: Vec<&Picture> = frames.iter().map(|f| &f.picture).collect();
        match self.model.stylize(&pictures, &self.options) {
            Ok(painted) => painted.into_iter().map(|p| Ok(Scored::Picture(p))).collect(),
            Err(error) => {
                let failed = crate::error::ActorError::from(error);
                let failed = StageError::new(failed.status(), failed.to_string());
                frames.iter().map(|_| Err(failed.clone())).collect()
            }
        }
    }
}

/// A scored frame and the way to its segment.
pub struct Delivery {
    /// The frame.
    pub frame: ScoredFrame,
    /// The assembler of its segment.
    pub route: LinkSender<Arrival>,
}

/// The engine's view of a scorer: batches of tasks in, scored frames out.
pub struct ScoreStage {
    scorer: Box<dyn Scorer>,
    log: Arc<ScoredLog>,
}

impl ScoreStage {
    /// Wraps a scorer built on this thread; `log` notes every frame that was scored.
    #[must_use]
    pub fn new(scorer: Box<dyn Scorer>, log: Arc<ScoredLog>) -> Self {
        Self { scorer, log }
    }

    fn deliver(&self, task: &FrameTask, scored: Scored) -> Delivery {
        self.log.note(task.number);
        Delivery { frame: ScoredFrame::of(task, scored), route: task.route.clone() }
    }
}

impl Stage<FrameTask, Delivery> for ScoreStage {
    fn batch_items_max(&self) -> usize {
        self.scorer.batch_frames_max()
    }

    fn compatible(&self, a: &FrameTask, b: &FrameTask) -> bool {
        let (a, b) = (&a.frame.picture, &b.frame.picture);
        (a.width, a.height, a.format) == (b.width, b.height, b.format)
    }

    fn process(&mut self, tasks: &[&FrameTask]) -> Vec<Result<Delivery, StageError>> {
        for task in tasks {
            fault::numbered("score", task.number);
        }
        if let Err(fault) = fault::fallible("scorer:device") {
            let lost = StageError::new(Status::DeviceLost, fault.to_string());
            return tasks.iter().map(|_| Err(lost.clone())).collect();
        }
        let frames: Vec<&DecodedFrame> = tasks.iter().map(|t| &t.frame).collect();
        let results = self.scorer.score(&frames);
        if results.len() != tasks.len() {
            let wrong = format!("the scorer gave {} results for {} frames", results.len(), tasks.len());
            return tasks.iter().map(|_| Err(StageError::new(Status::Fatal, wrong.clone()))).collect();
        }
        std::iter::zip(tasks, results).map(|(task, result)| result.map(|scored| self.deliver(task, scored))).collect()
    }
}
