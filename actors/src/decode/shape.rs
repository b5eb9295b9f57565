//! From placed frames to pictures: one size, progressive, planar, upright.

use std::collections::VecDeque;
use std::sync::Arc;

use restyle_models::pixels::{Picture, PixelFormat};

use super::packets::Shared;
use super::timeline::Placed;
use crate::error::{ActorError, Result};
use crate::ffmpeg::AvError;
use crate::ffmpeg::filter::Deinterlacer;
use crate::ffmpeg::pixfmt::{ColourCodes, PixFmt};
use crate::ffmpeg::scale::{Scaler, Shape};
use crate::ffmpeg::unpack::unpack;
use crate::source_info::{ColourTags, VideoInfo};

/// Codecs that never carry fields in one frame, so that no frame has to wait for its successor.
const PROGRESSIVE_CODECS: &[&str] = &["av1", "vp8", "vp9", "gif", "png", "apng", "webp", "hevc", "theora"];

/// A frame on its way through the deinterlacer, or the news that one is damaged.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) pts: i64,
    pub(super) duration: i64,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    /// Waits for the deinterlacer.
    Awaited { concealed: Option<String> },
    /// Can be unpacked.
    Ready { frame: Shared, concealed: Option<String> },
    /// There is no picture.
    Damaged { fault: String },
}

/// Brings frames into the shape that the source was announced with.
pub(super) struct Shaper {
    shown: String,
    shape: Shape,
    decoded: PixelFormat,
    orientation: crate::source_info::Orientation,
    /// The format to deinterlace in where the decoder's own cannot be.
    planar: Option<PixFmt>,
    deinterlace: bool,
    deinterlacer: Option<(Shape, Deinterlacer)>,
    scaler: Option<Scaler>,
    slots: VecDeque<Slot>,
    /// Slots before this one have their content.
    filled: usize,
    warnings: Vec<String>,
    warned_of_size: bool,
    warned_of_fields: bool,
}

impl Shaper {
    pub(super) fn new(shown: &str, video: &VideoInfo) -> Result<Self> {
        let format = PixFmt::by_name(&video.pix_fmt);
        let decoded = format.and_then(|f| f.canonical(codes_of(&video.colour)));
        let (Some(format), Some(decoded)) = (format, decoded) else {
            return Err(unreadable_format(shown, &video.pix_fmt));
        };
        let shape = Shape { width: video.width, height: video.height, format };
        let may_have_fields = !PROGRESSIVE_CODECS.contains(&video.codec.as_str());
        let direct = may_have_fields && Deinterlacer::new(video.width, video.height, format).is_ok();
        // Formats that the deinterlacer cannot read are only converted where fields were announced.
        let planar = (may_have_fields && !direct && video.interlaced).then(|| PixFmt::of(decoded)).flatten();
        Ok(Self {
            shown: shown.to_owned(),
            shape,
            decoded,
            orientation: video.orientation,
            planar,
            deinterlace: direct || planar.is_some(),
            deinterlacer: None,
            scaler: None,
            slots: VecDeque::new(),
            filled: 0,
            warnings: Vec::new(),
            warned_of_size: false,
            warned_of_fields: false,
        })
    }

    /// Takes a placed frame in.
    pub(super) fn push(&mut self, placed: Placed<Shared>) -> Result<()> {
        match placed {
            Placed::Damaged { pts, fault } => {
                self.slots.push_back(Slot { pts, duration: 0, content: Content::Damaged { fault } });
            }
            Placed::Frame { payload, pts, duration, concealed } => {
                let frame = self.fit(payload)?;
                if self.deinterlace {
                    self.slots.push_back(Slot { pts, duration, content: Content::Awaited { concealed } });
                    self.pass_through_deinterlacer(&frame)?;
                } else {
                    if frame.is_interlaced() && !self.warned_of_fields {
                        self.warned_of_fields = true;
                        self.warnings.push(format!(
                            "interlaced frames of pixel format {} are not deinterlaced",
                            frame.pix_fmt().name()
                        ));
                    }
                    self.slots.push_back(Slot { pts, duration, content: Content::Ready { frame, concealed } });
                }
            }
        }
        Ok(())
    }

    /// Says that no more will come: what waits for a successor comes out.
    pub(super) fn finish(&mut self) -> Result<()> {
        let Some((_, mut deinterlacer)) = self.deinterlacer.take() else { return Ok(()) };
        deinterlacer.push(None).map_err(|e| self.filter_failed(e))?;
        self.collect(&mut deinterlacer)
    }

    /// Returns the next frame that is complete.
    pub(super) fn pop(&mut self) -> Option<Slot> {
        match self.slots.front()?.content {
            Content::Awaited { .. } => None,
            _ => {
                self.filled = self.filled.saturating_sub(1);
                self.slots.pop_front()
            }
        }
    }

    /// Unpacks a frame and turns it upright.
    pub(super) fn picture(&self, frame: &Shared) -> Result<Picture> {
        let codec = |why: String| ActorError::Codec(format!("input {}: {why}", self.shown));
        let picture = unpack(frame, self.decoded).map_err(codec)?;
        if self.orientation.is_upright() {
            return Ok(picture);
        }
        picture.rotated(self.orientation.quarter_turns, self.orientation.flip).map_err(|e| codec(e.to_string()))
    }

    /// Returns and forgets what has to be said.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Brings a frame to the announced size, and to a planar format where that is needed.
    fn fit(&mut self, frame: Shared) -> Result<Shared> {
        let from = Shape::of(&frame);
        let same_samples = |format: PixFmt| {
            let canonical = format.canonical(frame.colour());
            canonical.is_some_and(|c| (c.layout, c.bits) == (self.decoded.layout, self.decoded.bits))
        };
        if from.format != self.shape.format && !same_samples(from.format) {
            return Err(ActorError::InputRefused(format!(
                "input {}: the pixel format changes from {} to {} in the middle; split the video there",
                self.shown,
                self.shape.format.name(),
                from.format.name()
            )));
        }
        let to = Shape { format: self.planar.unwrap_or(from.format), ..self.shape };
        if from == to {
            return Ok(frame);
        }
        if (from.width, from.height) != (to.width, to.height) && !self.warned_of_size {
            self.warned_of_size = true;
            self.warnings.push(format!(
                "the picture size changes from {}x{} to {}x{} in the middle; such frames are scaled to the first size",
                to.width, to.height, from.width, from.height
            ));
        }
        if !self.scaler.as_ref().is_some_and(|scaler| scaler.fits(from, to)) {
            self.scaler = Some(Scaler::new(from, to).map_err(|e| self.scaler_failed(from, to, e))?);
        }
        let scaler = self.scaler.as_mut().expect("just made");
        let scaled = scaler.scale(&frame);
        scaled.map(Arc::new).map_err(|e| self.scaler_failed(from, to, e))
    }

    fn pass_through_deinterlacer(&mut self, frame: &Shared) -> Result<()> {
        let shape = Shape::of(frame);
        if self.deinterlacer.as_ref().is_some_and(|(made_for, _)| *made_for != shape) {
            self.finish()?;
        }
        let mut deinterlacer = match self.deinterlacer.take() {
            Some((_, deinterlacer)) => deinterlacer,
            None => Deinterlacer::new(shape.width, shape.height, shape.format).map_err(|e| self.filter_failed(e))?,
        };
        let copy = frame.share().map_err(|e| self.filter_failed(e))?;
        deinterlacer.push(Some(copy)).map_err(|e| self.filter_failed(e))?;
        self.collect(&mut deinterlacer)?;
        self.deinterlacer = Some((shape, deinterlacer));
        Ok(())
    }

    /// Gives what the deinterlacer has ready to the slots that wait, in order.
    fn collect(&mut self, deinterlacer: &mut Deinterlacer) -> Result<()> {
        loop {
            let frame = match deinterlacer.pull() {
                Ok(frame) => Arc::new(frame),
                Err(AvError::AGAIN | AvError::EOF) => return Ok(()),
                Err(error) => return Err(self.filter_failed(error)),
            };
            let waiting = |slot: &Slot| matches!(slot.content, Content::Awaited { .. });
            while self.slots.get(self.filled).is_some_and(|slot| !waiting(slot)) {
                self.filled += 1;
            }
            let slot = self.slots.get_mut(self.filled).ok_or_else(|| {
                ActorError::Codec(format!("input {}: the deinterlacer gave a frame that nothing waits for", self.shown))
            })?;
            if let Content::Awaited { concealed } = &mut slot.content {
                slot.content = Content::Ready { frame, concealed: concealed.take() };
            }
            self.filled += 1;
        }
    }

    fn filter_failed(&self, error: AvError) -> ActorError {
        ActorError::Codec(format!("input {}: deinterlacing failed: {error}", self.shown))
    }

    fn scaler_failed(&self, from: Shape, to: Shape, error: AvError) -> ActorError {
        ActorError::Codec(format!(
            "input {}: cannot bring {}x{} {} to {}x{} {}: {error}",
            self.shown,
            from.width,
            from.height,
            from.format.name(),
            to.width,
            to.height,
            to.format.name()
        ))
    }
}

/// Returns the error for a pixel format whose samples cannot be read without loss.
pub(crate) fn unreadable_format(shown: &str, name: &str) -> ActorError {
    ActorError::InputRefused(format!(
        "input {shown}: pictures of pixel format {name} are not served; convert it to a yuv or rgb format of 8 to 16 bits"
    ))
}

fn codes_of(colour: &ColourTags) -> ColourCodes {
    ColourCodes {
        primaries: colour.primaries.code,
        transfer: colour.transfer.code,
        matrix: colour.matrix.code,
        range: colour.range.code,
        chroma_location: colour.chroma_location.code,
    }
}
