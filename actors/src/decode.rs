//! The decoder stage: a source's video stream as frames, and the way back into its middle.
//!
//! What is delivered does not depend on where decoding started. Decoders started in the middle may give other pictures, so
//! [`FrameDecoder::resume_after`] insists on meeting the last frame of the finished part again, by timestamp and hash, and
//! falls back to earlier starts until it does.
//!
//! Damage is never passed off as a picture: a frame that the demuxer or decoder flags is an error that names it, or, where
//! concealment was asked for, a repeat of the last good frame that says so.

pub(crate) mod packets;
pub(crate) mod shape;
pub(crate) mod timeline;

use std::sync::Arc;

use restyle_engine::{CancelToken, Progress};
use restyle_models::pixels::Picture;

use crate::error::{ActorError, ErrorKind, Result};
use crate::ffmpeg::decoder::Decoder;
use crate::ffmpeg::demux::Demuxer;
use crate::ffmpeg::hardware::CardDecoder;
use crate::frame::{Anchor, DecodedFrame, picture_hash};
use crate::source_info::{SourceInfo, VideoInfo};
use crate::storage::Blob;

use packets::PacketDecoder;
use shape::{Content, Shaper, Slot};
use timeline::Timeline;

/// Starts in the middle that a resume tries before it decodes from the beginning.
const SEEKS_MAX: u32 = 5;
/// How far back the first start lies that no key frame suggests, in seconds; four times as far with each further one.
const STEP_BACK_SECONDS: f64 = 1.0;

/// How to decode.
#[derive(Debug, Clone)]
pub struct DecodeOptions {
    /// Repeat the nearest good frame where one is damaged, instead of failing.
    pub conceal: bool,
    /// Threads of the codec, 1 to 16. Pinned, so that what a damaged stream decodes to does not depend on the machine.
    pub threads: u32,
    /// The card that decodes, by its number, where one is to; else the processor does. A card may flag less of what is damaged.
    pub card: Option<usize>,
    /// Ends a call that is under way with [`ActorError::Cancelled`].
    pub cancel: CancelToken,
    /// Ticks with every packet: finding a place in a long clip is work, not a hang.
    pub progress: Progress,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { conceal: false, threads: 1, card: None, cancel: CancelToken::new(), progress: Progress::new() }
    }
}

/// How a resume found its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumeReport {
    /// Frames that were decoded and dropped, the anchor included.
    pub frames_skipped: u64,
    /// Starts that were tried.
    pub starts: u32,
    /// Whether only the beginning of the stream reproduced the anchor.
    pub from_beginning: bool,
}

/// Decodes one source, front to back, from the beginning or from behind a frame.
///
/// Everything blocks: on reads of the source and on the codec. A decoder belongs to one thread at a time and may be moved.
pub struct FrameDecoder {
    blob: Arc<Blob>,
    video: VideoInfo,
    options: DecodeOptions,
    packets: PacketDecoder,
    shaper: Shaper,
    next_index: u64,
    from_beginning: bool,
    ended: bool,
    warnings: Vec<String>,
    warned: Warned,
}

/// What was said already.
#[derive(Debug, Default, Clone, Copy)]
struct Warned {
    dropped: bool,
    moved: bool,
    broke_off: bool,
}

impl std::fmt::Debug for FrameDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameDecoder").field("next_index", &self.next_index).finish_non_exhaustive()
    }
}

impl FrameDecoder {
    /// Opens the chosen video stream and stands at its beginning.
    ///
    /// # Errors
    /// `InputChanged` where the blob is another version than the one probed, and whatever opening the container or the
    /// codec meets.
    pub fn open(blob: Arc<Blob>, source: &SourceInfo, options: DecodeOptions) -> Result<Self> {
        if blob.identity() != &source.identity {
            return Err(ActorError::InputChanged(format!(
                "input {} changed since it was probed; run again to start a new job with the new content",
                blob.location()
            )));
        }
        let video = source.video.clone();
        let packets = open_packets(&blob, &video, &options)?;
        let shaper = Shaper::new(&blob.location().to_string(), &video)?;
        Ok(Self {
            blob,
            video,
            options,
            packets,
            shaper,
            next_index: 0,
            from_beginning: true,
            ended: false,
            warnings: Vec::new(),
            warned: Warned::default(),
        })
    }

    /// Goes back to the beginning: the next frame has index 0.
    ///
    /// # Errors
    /// As for [`FrameDecoder::open`].
    pub fn start_from_beginning(&mut self) -> Result<()> {
        self.packets = open_packets(&self.blob, &self.video, &self.options)?;
        self.shaper = Shaper::new(&self.blob.location().to_string(), &self.video)?;
        self.next_index = 0;
        self.from_beginning = true;
        self.ended = false;
        Ok(())
    }

    /// Goes behind a frame that was delivered before: the next frame is the one after it.
    ///
    /// Tries the key frame at or before the anchor, then up to four earlier starts, at last the beginning; each start must
    /// reproduce the anchor's timestamp and hash. Takes as long as decoding from there.
    ///
    /// # Errors
    /// `Codec` where not even the beginning reproduces the anchor (another version of the decoder, say), `Cancelled`, and
    /// the source's own errors.
    pub fn resume_after(&mut self, anchor: Anchor) -> Result<ResumeReport> {
        let mut frames_skipped = 0;
        let mut target = anchor.pts;
        let mut step_back = ((STEP_BACK_SECONDS / self.video.time_base.as_f64()) as i64).max(1);
        let mut starts = 0;
        while starts < SEEKS_MAX && (starts == 0 || target > self.video.start_pts) {
            starts += 1;
            self.start_from_beginning()?;
            self.from_beginning = false;
            let found = match self.packets.seek_primed(target) {
                Ok(true) => self.find(anchor, &mut frames_skipped),
                Ok(false) => break,
                Err(error) => Err(error),
            };
            match found {
                Ok(true) => return Ok(ResumeReport { frames_skipped, starts, from_beginning: false }),
                Ok(false) => {}
                // A start in the middle may fail where the stream's own beginning does not.
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Codec) => {}
                Err(error) => return Err(error),
            }
            // Before the key frame that was met; some containers seek to packets from which the next key frame is too late.
            target = match self.packets.first_key() {
                Some(key) if key <= target => key - 1,
                _ => target.saturating_sub(step_back),
            };
            step_back = step_back.saturating_mul(4);
        }
        self.start_from_beginning()?;
        starts += 1;
        if self.find(anchor, &mut frames_skipped)? {
            return Ok(ResumeReport { frames_skipped, starts, from_beginning: true });
        }
        Err(ActorError::Codec(format!(
            "input {}: frame {} at {} cannot be reproduced, although it was decoded before; was another ffmpeg used? start \
             the job afresh",
            self.blob.location(),
            anchor.index,
            self.seconds(anchor.pts)
        )))
    }

    /// Returns the next frame; `None` after the last one.
    ///
    /// # Errors
    /// `Damaged` naming the frame, unless damage is concealed (calling again goes on behind it); `InputUnreadable` where
    /// the stream ends without a single good frame; `Cancelled`; and the source's own errors.
    pub fn next_frame(&mut self) -> Result<Option<DecodedFrame>> {
        let Some(slot) = self.next_slot()? else {
            if self.next_index == 0 {
                return Err(self.no_frame());
            }
            return Ok(None);
        };
        let index = self.next_index;
        self.next_index += 1;
        self.deliver(index, slot).map(Some)
    }

    /// Returns and forgets what has to be said about the frames so far: dropped, moved, scaled ones.
    #[must_use]
    pub fn take_warnings(&mut self) -> Vec<String> {
        if self.from_beginning {
            self.note_stream_warnings();
        }
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(self.shaper.take_warnings());
        warnings
    }

    fn next_slot(&mut self) -> Result<Option<Slot>> {
        loop {
            if let Some(slot) = self.shaper.pop() {
                return Ok(Some(slot));
            }
            if self.ended {
                return Ok(None);
            }
            match self.packets.next()? {
                Some(placed) => self.shaper.push(placed)?,
                None => {
                    self.shaper.finish()?;
                    self.ended = true;
                }
            }
        }
    }

    /// Decodes up to and including the anchor; false where this start does not reproduce it.
    fn find(&mut self, anchor: Anchor, skipped: &mut u64) -> Result<bool> {
        while let Some(slot) = self.next_slot()? {
            *skipped += 1;
            if slot.pts < anchor.pts {
                continue;
            }
            let Content::Ready { frame, .. } = slot.content else { return Ok(false) };
            if slot.pts > anchor.pts || picture_hash(&self.shaper.picture(&frame)?) != anchor.hash {
                return Ok(false);
            }
            self.next_index = anchor.index + 1;
            return Ok(true);
        }
        Ok(false)
    }

    fn deliver(&self, index: u64, slot: Slot) -> Result<DecodedFrame> {
        let Slot { pts, duration, content } = slot;
        match content {
            Content::Ready { frame, concealed } => {
                let picture: Picture = self.shaper.picture(&frame)?;
                Ok(DecodedFrame { index, pts, duration, hash: picture_hash(&picture), picture, concealed })
            }
            Content::Damaged { fault } => Err(ActorError::Damaged {
                frames: vec![index],
                message: format!(
                    "input {}: frame {index} at {} is damaged: {fault}; repair the source or use --conceal",
                    self.blob.location(),
                    self.seconds(pts)
                ),
            }),
            Content::Awaited { .. } => unreachable!("slots are taken only when their content is there"),
        }
    }

    fn seconds(&self, pts: i64) -> String {
        format!("{:.3} s", pts as f64 * self.video.time_base.as_f64())
    }

    fn no_frame(&self) -> ActorError {
        no_frame(&self.blob.location().to_string(), self.packets.dropped_before_first().1)
    }

    fn note_stream_warnings(&mut self) {
        let (dropped, why) = self.packets.dropped_before_first();
        if dropped > 0 && self.packets.has_begun() && !self.warned.dropped {
            self.warned.dropped = true;
            let why = why.unwrap_or("no reason given");
            self.warnings.push(format!("dropped {dropped} undecodable frames before the first good one: {why}"));
        }
        if !self.ended {
            return;
        }
        let moved = self.packets.moved_timestamps();
        if moved > 0 && !self.warned.moved {
            self.warned.moved = true;
            self.warnings.push(format!("moved {moved} timestamps that did not grow"));
        }
        if let Some(error) = self.packets.broke_off().filter(|_| !self.warned.broke_off) {
            self.warned.broke_off = true;
            self.warnings.push(format!("the container cannot be followed to its end: {error}"));
        }
    }
}

fn open_packets(blob: &Arc<Blob>, video: &VideoInfo, options: &DecodeOptions) -> Result<PacketDecoder> {
    let demuxer = Demuxer::open(blob)?;
    let card = options.card.map(CardDecoder::open).transpose()?;
    let decoder = Decoder::open(&demuxer, video.index, options.threads, card.as_ref())?;
    let timeline = Timeline::new(options.conceal, nominal_ticks(video));
    Ok(PacketDecoder::new(demuxer, decoder, video.index, timeline, options))
}

/// Returns the ticks of one frame at the stream's rate; a 25th of a second where no rate is known.
fn nominal_ticks(video: &VideoInfo) -> i64 {
    let rate = [video.average_frame_rate, video.real_frame_rate].into_iter().find(|rate| rate.is_positive());
    let rate = rate.map_or(25.0, |rate| rate.as_f64());
    let base = video.time_base.as_f64();
    if base <= 0.0 { 1 } else { ((1.0 / (rate * base)).round() as i64).max(1) }
}

/// Returns the error for a stream of which nothing can be decoded.
pub(crate) fn no_frame(shown: &str, why: Option<&str>) -> ActorError {
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    ActorError::InputUnreadable(format!(
        "input {shown}: not one frame of its video can be decoded{why}; the file is damaged or cut short, copy it again"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoders_may_be_moved_between_threads() {
        fn check<T: Send>() {}
        check::<FrameDecoder>();
        check::<DecodedFrame>();
    }
}
