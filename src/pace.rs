//! How fast a job goes, and when to say so.

use crate::event::Progress;
use restyle_actors::source_info::SourceInfo;
use restyle_engine::clock::Clock;
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

/// How often progress is told at most.
const INTERVAL: Duration = Duration::from_millis(250);

/// Measures a job from the moment its first pass began.
pub(crate) struct Pace {
    clock: Arc<dyn Clock>,
    started: Duration,
    told: Cell<Option<Duration>>,
    reused: u64,
    frames_about: Option<u64>,
    frames_per_second: f64,
}

impl Pace {
    /// Starts measuring; `reused` frames are there already and do not count as speed.
    pub(crate) fn start(clock: Arc<dyn Clock>, source: &SourceInfo, reused: u64) -> Self {
        let started = clock.now();
        Self {
            clock,
            started,
            told: Cell::new(None),
            reused,
            frames_about: source.video.frames_about,
            frames_per_second: source.video.average_frame_rate.as_f64(),
        }
    }

    /// Returns what to tell when `scored` frames were scored since the start and `adopted` came from packs; `None` when the last time was just now.
    pub(crate) fn progress(&self, scored: u64, adopted: u64) -> Option<Progress> {
        let now = self.clock.now();
        if self.told.get().is_some_and(|last| now - last < INTERVAL) {
            return None;
        }
        self.told.set(Some(now));
        Some(self.describe(scored, adopted, (now - self.started).as_secs_f64()))
    }

    fn describe(&self, scored: u64, adopted: u64, seconds: f64) -> Progress {
        let fps = if seconds > 0.0 { scored as f64 / seconds } else { 0.0 };
        let done = self.reused + adopted + scored;
        let left = self.frames_about.map(|about| about.saturating_sub(done));
        Progress {
            frames_done: done,
            frames_about: self.frames_about,
            fps,
            speed: (self.frames_per_second > 0.0).then(|| fps / self.frames_per_second),
            eta_seconds: left.filter(|_| fps > 0.0).map(|left| left as f64 / fps),
            phase: "scoring",
        }
    }
}
