//! Encoder: ordered frames to one closed segment.
//!
//! An encoder's output is a function of its settings and its pictures: one pinned thread, bit-exact flags, no
//! information that names the machine. Times are put on packets by frame position, so that whatever the source's
//! timestamps do cannot disturb rate control. Nothing here knows of other segments, files or other tracks; the join does.

pub mod codec;
pub mod container;
pub mod pix_fmt;
pub mod segment;
pub mod settings;

mod options;

pub use codec::VideoCodec;
pub use container::Container;
pub use segment::{EncodedPacket, EncodedSegment};
pub use settings::{ColourCodes, EncodeRequest, EncoderSettings};

use restyle_models::pixels::Picture;

use crate::ffmpeg::encoder::{CodedFrame, VideoEncoder};
use crate::source_info::SourceInfo;
use crate::{ActorError, Result};

/// Chooses the settings of a job; where they name a card's encoder that does not open here, its software twin takes its
/// place and a warning says why. Opens and closes that encoder.
///
/// # Errors
/// As [`EncoderSettings::choose`].
pub fn settle(source: &SourceInfo, request: &EncodeRequest) -> Result<(EncoderSettings, Vec<String>)> {
    let (settings, warnings) = EncoderSettings::choose(source, request)?;
    if !settings.codec.is_on_card() {
        return Ok((settings, warnings));
    }
    let Err(why) = VideoEncoder::open(&settings) else { return Ok((settings, warnings)) };
    let software = settings.codec.stream();
    let request = EncodeRequest { codec: Some(software.name().to_owned()), ..request.clone() };
    let (settings, mut warnings) = EncoderSettings::choose(source, &request)?;
    warnings.push(format!("{why}; {} encodes instead", software.encoder()));
    Ok((settings, warnings))
}

/// Codes the frames of one segment; built, used and dropped on the thread that encodes.
///
/// Memory is bounded by the encoder's look-ahead (see the settings' options) plus the coded bytes of the segment.
#[derive(Debug)]
pub struct SegmentEncoder {
    encoder: VideoEncoder,
    times: Vec<(i64, i64)>,
    packets: Vec<CodedFrame>,
}

impl SegmentEncoder {
    /// Opens an encoder for one segment.
    ///
    /// # Errors
    /// `Config` where this FFmpeg lacks the encoder or an option, `Codec` where the encoder refuses the settings.
    pub fn new(settings: &EncoderSettings) -> Result<Self> {
        Ok(Self { encoder: VideoEncoder::open(settings)?, times: Vec::new(), packets: Vec::new() })
    }

    /// Returns how many frames were pushed.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.times.len()
    }

    /// Codes the next frame; blocks for as long as coding takes.
    ///
    /// `pts` and `duration` count in the settings' time base; times must grow strictly from frame to frame.
    ///
    /// # Errors
    /// `Codec` where the picture does not fit the settings, its time does not grow, or the encoder fails.
    pub fn push(&mut self, picture: &Picture, pts: i64, duration: i64) -> Result<()> {
        if let Some((last, _)) = self.times.last().filter(|(last, _)| *last >= pts) {
            return Err(ActorError::Codec(format!(
                "frame {} of the segment is timed {pts}, not after the {last} before it",
                self.times.len()
            )));
        }
        self.times.push((pts, duration.max(0)));
        self.encoder.push(picture, &mut self.packets)
    }

    /// Ends the segment.
    ///
    /// # Errors
    /// `Codec` where no frame was pushed, the encoder fails, or it did not give one packet for each frame, a keyframe
    /// first.
    pub fn finish(mut self) -> Result<EncodedSegment> {
        if self.times.is_empty() {
            return Err(ActorError::Codec("a segment without frames was to be encoded".into()));
        }
        self.encoder.finish(&mut self.packets)?;
        let header = self.encoder.header();
        let mut taken = vec![false; self.times.len()];
        let mut packets = Vec::with_capacity(self.times.len());
        for packet in self.packets {
            let at = usize::try_from(packet.frame).ok().filter(|at| taken.get(*at) == Some(&false));
            let at = at.ok_or_else(|| {
                ActorError::Codec(format!(
                    "the encoder gave a packet for frame {}, which is none or coded already",
                    packet.frame
                ))
            })?;
            taken[at] = true;
            let (pts, duration) = self.times[at];
            packets.push(EncodedPacket { pts, duration, key: packet.key, data: packet.data });
        }
        if let Some(missing) = taken.iter().position(|taken| !taken) {
            return Err(ActorError::Codec(format!("the encoder gave no packet for frame {missing} of the segment")));
        }
        let segment = EncodedSegment {
            extradata: header.extradata,
            codec_tag: header.codec_tag,
            profile: header.profile,
            level: header.level,
            reorder_frames: header.reorder_frames,
            packets,
        };
        segment.validate().map_err(|error| ActorError::Codec(format!("the encoder broke a promise: {error}")))?;
        Ok(segment)
    }
}
