//! The styled track of a joined file: packets of all segments in decode order, with their times.

use std::collections::VecDeque;

use super::timeline::DecodeTimes;
use crate::encode::{EncodedPacket, EncodedSegment, EncoderSettings};
use crate::ffmpeg::encoder::StreamHeader;
use crate::source_info::Rational;
use crate::{ActorError, Result};

/// Segments, pulled one at a time.
pub type Segments<'a> = &'a mut dyn Iterator<Item = Result<EncodedSegment>>;

/// A packet of the styled track with its decode time.
#[derive(Debug)]
pub(super) struct StyledPacket {
    pub(super) packet: EncodedPacket,
    pub(super) dts: i64,
}

/// Walks the segments; holds one of them at a time.
pub(super) struct StyledTrack<'a> {
    segments: Segments<'a>,
    header: StreamHeader,
    times: DecodeTimes,
    packets: VecDeque<StyledPacket>,
    first_pts: i64,
    last_pts: Option<i64>,
    joined: u64,
    frames: u64,
}

impl<'a> StyledTrack<'a> {
    /// Pulls the first segment, whose header all others must have.
    pub(super) fn begin(segments: Segments<'a>, settings: &EncoderSettings) -> Result<Self> {
        let first = segments
            .next()
            .ok_or_else(|| ActorError::Codec("there is no segment to join: the source gave no frame".to_owned()))??;
        first.validate()?;
        let rate = settings.frame_rate;
        let lead_ticks = super::timeline::rescale(1, Rational::new(rate.den, rate.num), settings.time_base);
        let mut track = Self {
            segments,
            header: header_of(&first),
            times: DecodeTimes::new(first.reorder_frames, lead_ticks),
            packets: VecDeque::new(),
            first_pts: first.presentation_times()[0],
            last_pts: None,
            joined: 0,
            frames: 0,
        };
        track.take_in(first)?;
        Ok(track)
    }

    pub(super) fn header(&self) -> &StreamHeader {
        &self.header
    }

    /// Time of the first frame.
    pub(super) fn first_pts(&self) -> i64 {
        self.first_pts
    }

    /// Frames given out so far.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    /// Decode time of the next packet; `None` at the end.
    pub(super) fn peek(&mut self) -> Result<Option<i64>> {
        while self.packets.is_empty() {
            match self.segments.next() {
                Some(segment) => self.take_in(segment?)?,
                None => return Ok(None),
            }
        }
        Ok(self.packets.front().map(|packet| packet.dts))
    }

    /// Takes the packet that was peeked at.
    pub(super) fn pop(&mut self) -> Option<StyledPacket> {
        let packet = self.packets.pop_front()?;
        self.frames += 1;
        Some(packet)
    }

    fn take_in(&mut self, segment: EncodedSegment) -> Result<()> {
        segment.validate()?;
        if header_of(&segment) != self.header {
            return Err(ActorError::Codec(format!(
                "segment {} of the output was coded with other headers than the first one (another encoder version or \
                 other settings) and cannot be joined; start over with --fresh",
                self.joined
            )));
        }
        let times = segment.presentation_times();
        if self.last_pts.is_some_and(|last| times[0] <= last) {
            return Err(ActorError::Codec(format!(
                "segment {} of the output begins at tick {}, not after the frame before it; start over with --fresh",
                self.joined, times[0]
            )));
        }
        self.joined += 1;
        self.last_pts = times.last().copied();
        let decode_times = self.times.next_segment(&times);
        self.packets
            .extend(segment.packets.into_iter().zip(decode_times).map(|(packet, dts)| StyledPacket { packet, dts }));
        Ok(())
    }
}

fn header_of(segment: &EncodedSegment) -> StreamHeader {
    StreamHeader {
        extradata: segment.extradata.clone(),
        codec_tag: segment.codec_tag,
        profile: segment.profile,
        level: segment.level,
        reorder_frames: segment.reorder_frames,
    }
}
