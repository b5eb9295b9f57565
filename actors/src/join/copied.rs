//! One copied track while it is joined: its packets' times in the output.

use super::timeline::{SampleClock, rescale};
use crate::ffmpeg::demux::Demuxer;
use crate::ffmpeg::mux::{PacketTimes, packet_samples};
use crate::ffmpeg::packet::RawPacket;
use crate::source_info::{Rational, StreamInfo};

/// A track whose packets are copied.
#[derive(Debug)]
pub(super) struct CopiedTrack {
    /// Stream of the source.
    pub(super) index: usize,
    /// Track of the output.
    pub(super) track: usize,
    /// Unit of the source's times.
    pub(super) unit: Rational,
    /// Whether it is sound.
    pub(super) is_audio: bool,
    /// Whether its only packet is a cover picture.
    pub(super) is_cover: bool,
    /// Packets that could not be written.
    pub(super) refused_packets: u64,
    out_unit: Rational,
    shift_ticks: i64,
    samples: Option<SampleClock>,
    equal_dts_allowed: bool,
    last_dts: Option<i64>,
}

impl CopiedTrack {
    pub(super) fn new(stream: &StreamInfo, track: usize) -> Self {
        Self {
            index: stream.index,
            track,
            unit: stream.time_base,
            is_audio: stream.audio.is_some(),
            is_cover: stream.attached_picture,
            refused_packets: 0,
            out_unit: stream.time_base,
            shift_ticks: 0,
            samples: None,
            equal_dts_allowed: false,
            last_dts: None,
        }
    }

    /// Learns the output's unit once the header is written. `shift_ticks` are added to every time, in that unit.
    pub(super) fn begin(&mut self, out_unit: Rational, shift_ticks: i64, equal_dts_allowed: bool) {
        self.out_unit = out_unit;
        self.shift_ticks = shift_ticks;
        self.equal_dts_allowed = equal_dts_allowed;
    }

    /// Makes times fall on samples; for sound in containers that count samples.
    pub(super) fn count_samples(&mut self, padding: i64) {
        self.samples = Some(SampleClock::new(self.unit, self.out_unit, padding));
    }

    /// Time by which a packet is put in order with others, in the track's unit.
    pub(super) fn order_time(packet: &RawPacket) -> Option<i64> {
        packet.dts().or(packet.pts())
    }

    /// Returns the times that a packet gets in the output; `None` where it has none at all.
    pub(super) fn times(&mut self, packet: &RawPacket, source: &Demuxer) -> Option<PacketTimes> {
        if self.is_cover {
            return Some(PacketTimes { pts: Some(0), dts: Some(0), duration: 0 });
        }
        let plain = |ticks: i64| rescale(ticks, self.unit, self.out_unit);
        let mut duration = plain(packet.duration().max(0));
        let (mut pts, mut dts) = (packet.pts().map(plain), packet.dts().map(plain));
        if let Some(clock) = &mut self.samples {
            let samples = packet_samples(source, self.index, packet.data().len());
            let position = clock.position(Self::order_time(packet)?, self.unit, samples);
            (pts, dts) = (Some(position), Some(position));
            duration = samples.filter(|_| self.unit != self.out_unit).unwrap_or(duration);
        }
        let shift = self.shift_ticks;
        let pts = pts.map(|pts| pts + shift);
        let dts = dts.map(|dts| dts + shift).or_else(|| self.guess_dts(pts?, duration));
        let dts = self.grown(dts?);
        Some(PacketTimes { pts: pts.map(|pts| pts.max(dts)), dts: Some(dts), duration })
    }

    /// A decode time for a packet without one, as the first of a film with B-frames are in Matroska: early enough for
    /// the packets that follow.
    fn guess_dts(&self, pts: i64, duration: i64) -> Option<i64> {
        let step = duration.max(1);
        Some(match self.last_dts {
            Some(last) => pts.min(last + 1),
            None => pts - 4 * step,
        })
    }

    fn grown(&mut self, dts: i64) -> i64 {
        let least = self.last_dts.map_or(i64::MIN, |last| last + i64::from(!self.equal_dts_allowed));
        let dts = dts.max(least);
        self.last_dts = Some(dts);
        dts
    }
}
