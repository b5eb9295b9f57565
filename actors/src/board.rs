//! What each frame of a job has come to in this run, for onlookers: a hint that nothing depends on.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Frames beyond this are not shown: a day of video at 60 frames a second fits.
const FRAMES_MAX: u64 = 6_000_000;

/// What a frame has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameMark {
    /// Nothing yet.
    Planned,
    /// It is decoded, and waits for a scorer or is with one.
    Decoded,
    /// It is scored and not encoded yet.
    Scored,
    /// It is encoded.
    Encoded,
    /// It is encoded, after it had been scored in an earlier run and lost.
    Redone,
}

/// Frames next to each other that have come to the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkRun {
    /// The first one, 0-based.
    pub first: u64,
    /// The last one, included.
    pub last: u64,
    /// What.
    pub mark: FrameMark,
}

/// The frames of one job; a byte each.
#[derive(Debug, Default)]
pub struct FrameBoard {
    frames: Mutex<Vec<Cell>>,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    mark: FrameMark,
    again: bool,
}

const EMPTY: Cell = Cell { mark: FrameMark::Planned, again: false };

impl FrameBoard {
    /// Marks a frame as decoded.
    pub fn decoded(&self, frame: u64) {
        self.change(frame, |cell| cell.mark = FrameMark::Decoded);
    }

    /// Marks a frame as scored; `again` when an earlier run had scored it.
    pub fn scored(&self, frame: u64, again: bool) {
        self.change(frame, |cell| *cell = Cell { mark: FrameMark::Scored, again });
    }

    /// Marks a frame as encoded.
    pub fn encoded(&self, frame: u64) {
        self.change(frame, |cell| cell.mark = if cell.again { FrameMark::Redone } else { FrameMark::Encoded });
    }

    /// Marks frames of a finished segment, unless they are known better.
    pub fn finished(&self, first: u64, frames: u64) {
        for frame in first..first.saturating_add(frames).min(FRAMES_MAX) {
            self.change(frame, |cell| {
                if cell.mark != FrameMark::Redone {
                    cell.mark = FrameMark::Encoded;
                }
            });
        }
    }

    /// Forgets what was in flight when a pass ended: it is decoded again.
    pub fn pass_ended(&self) {
        for cell in self.lock().iter_mut() {
            if matches!(cell.mark, FrameMark::Decoded | FrameMark::Scored) {
                cell.mark = FrameMark::Planned;
            }
        }
    }

    /// Returns all frames in order and without gaps, up to the last that is marked.
    #[must_use]
    pub fn runs(&self) -> Vec<MarkRun> {
        let mut runs: Vec<MarkRun> = Vec::new();
        for (number, cell) in self.lock().iter().enumerate() {
            let number = number as u64;
            match runs.last_mut().filter(|run| run.mark == cell.mark) {
                Some(run) => run.last = number,
                None => runs.push(MarkRun { first: number, last: number, mark: cell.mark }),
            }
        }
        runs
    }

    fn change(&self, frame: u64, change: impl FnOnce(&mut Cell)) {
        if frame >= FRAMES_MAX {
            return;
        }
        let (mut frames, at) = (self.lock(), frame as usize);
        if frames.len() <= at {
            frames.resize(at + 1, EMPTY);
        }
        change(&mut frames[at]);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Cell>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_everything_in_order() {
        let board = FrameBoard::default();
        board.finished(0, 3);
        board.decoded(4);
        board.scored(5, true);
        board.encoded(5);
        board.scored(6, false);
        let marks: Vec<_> = board.runs().iter().map(|r| (r.first, r.last, r.mark)).collect();
        use FrameMark as M;
        assert_eq!(
            marks,
            [(0, 2, M::Encoded), (3, 3, M::Planned), (4, 4, M::Decoded), (5, 5, M::Redone), (6, 6, M::Scored)]
        );
        board.pass_ended();
        board.finished(5, 1);
        assert_eq!(board.runs().len(), 4, "{:?}", board.runs());
        board.encoded(u64::MAX);
    }
}
