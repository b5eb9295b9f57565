//! What travels between the stages of a pass.

use crate::frame::DecodedFrame;
use restyle_engine::item::{Item, SegmentIndex};
use restyle_engine::link::{LinkReceiver, LinkSender};
use restyle_models::pixels::Picture;

/// A decoded frame on its way to a scorer, with the way on to its segment.
pub struct FrameTask {
    /// The frame.
    pub frame: DecodedFrame,
    /// 0-based number of the frame in the whole video.
    pub number: u64,
    /// Where the scored frame goes: the assembler of its segment.
    pub route: LinkSender<Arrival>,
}

/// What a scorer made of a frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Scored {
    /// A picture of the frame's size, in the encoder's pixel format.
    Picture(Picture),
    /// A description of the frame.
    Record(serde_json::Value),
}

/// A scored frame, ready for its segment.
#[derive(Debug)]
pub struct ScoredFrame {
    /// 0-based number of the frame in the whole video.
    pub number: u64,
    /// Presentation time in the source stream's time base.
    pub pts: i64,
    /// Duration in the same time base; 0 where unknown.
    pub duration: i64,
    /// Hash of the source frame that was scored.
    pub hash: u128,
    /// What the scorer made of it.
    pub scored: Scored,
    /// Whether it was scored by an earlier pass and comes from a pack.
    pub adopted: bool,
}

impl ScoredFrame {
    /// Joins a task's identity with its result.
    #[must_use]
    pub fn of(task: &FrameTask, scored: Scored) -> Self {
        Self {
            number: task.number,
            pts: task.frame.pts,
            duration: task.frame.duration,
            hash: task.frame.hash,
            scored,
            adopted: false,
        }
    }
}

/// What arrives at the assembler of a segment, in any order.
pub enum Arrival {
    /// A frame was scored.
    Scored(Item<ScoredFrame>),
    /// A frame cannot be scored; its segment is lost for this pass.
    Failed {
        /// 0-based number of the frame in the whole video.
        number: u64,
        /// Why.
        message: String,
    },
    /// The decoder has seen the whole segment.
    End(SegmentEnd),
}

/// What the decoder knows when it has passed a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentEnd {
    /// Frames of the segment; at least 1.
    pub frames: u32,
    /// The next segment that holds a frame; `None` at the end of the stream.
    pub next: Option<SegmentIndex>,
}

/// A segment whose frames are on their way; handed from the decoder to the assembler that takes it.
///
/// When every sender is gone and no [`Arrival::End`] came, the segment is abandoned: nothing of it is committed.
pub struct OpenSegment {
    /// Which segment.
    pub segment: SegmentIndex,
    /// The segment before it that holds a frame; `None` for the first.
    pub previous: Option<SegmentIndex>,
    /// Number of its first frame in the whole video.
    pub first_frame: u64,
    /// The attempt on record that begins with it.
    pub attempt: u32,
    /// Its frames.
    pub arrivals: LinkReceiver<Arrival>,
}
