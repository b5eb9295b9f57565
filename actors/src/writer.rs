//! What becomes of the scored frames of a segment: packets of a video, or lines of records.

use crate::encode::SegmentEncoder;
use crate::error::{ActorError, Result};
use crate::task::{Scored, ScoredFrame};
use std::sync::Arc;

/// Writes the frames of one segment into the payload of its object.
pub trait SegmentWriter {
    /// Takes the next frame in order.
    ///
    /// # Errors
    /// The codec's, or a kind of result that this writer does not write.
    fn push(&mut self, frame: &ScoredFrame) -> Result<()>;

    /// Ends the segment and returns its payload.
    ///
    /// # Errors
    /// The codec's.
    fn finish(self: Box<Self>) -> Result<Vec<u8>>;
}

/// Builds a writer on the thread that uses it, one a segment.
pub type WriterFactory = Arc<dyn Fn() -> Result<Box<dyn SegmentWriter>> + Send + Sync>;

/// Encodes pictures into a closed group of pictures.
pub struct VideoWriter {
    encoder: SegmentEncoder,
}

impl VideoWriter {
    /// Wraps an encoder built on this thread.
    #[must_use]
    pub fn new(encoder: SegmentEncoder) -> Self {
        Self { encoder }
    }
}

impl SegmentWriter for VideoWriter {
    fn push(&mut self, frame: &ScoredFrame) -> Result<()> {
        match &frame.scored {
            Scored::Picture(picture) => self.encoder.push(picture, frame.pts, frame.duration),
            Scored::Record(_) => {
                Err(ActorError::Codec(format!("frame {} was described, a video needs a picture", frame.number)))
            }
        }
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>> {
        Ok(self.encoder.finish()?.to_bytes())
    }
}

/// Writes records as JSON lines: `{"frame": number, "pts": ticks, "record": ...}`.
#[derive(Default)]
pub struct RecordWriter {
    lines: Vec<u8>,
}

impl SegmentWriter for RecordWriter {
    fn push(&mut self, frame: &ScoredFrame) -> Result<()> {
        let Scored::Record(record) = &frame.scored else {
            return Err(ActorError::Codec(format!(
                "frame {} was painted, a list of records needs a record",
                frame.number
            )));
        };
        let line = serde_json::json!({"frame": frame.number, "pts": frame.pts, "record": record});
        self.lines.extend_from_slice(line.to_string().as_bytes());
        self.lines.push(b'\n');
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>> {
        Ok(self.lines)
    }
}
