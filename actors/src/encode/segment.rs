//! A finished segment and its compact bytes.
//!
//! The bytes carry no checksum: the work store seals every object. Reading is still bounded at every step, so that a
//! hostile or torn object gives an error and never a large allocation.

use crate::{ActorError, Result};

const MAGIC: [u8; 4] = *b"rsg2";
/// Bytes that one packet's entry takes in the table: pts, duration, length, flags.
const ENTRY_BYTES: usize = 8 + 8 + 4 + 1;

/// One coded frame, in decode order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPacket {
    /// Presentation time in the settings' time base.
    pub pts: i64,
    /// How long the frame is shown, in the same ticks.
    pub duration: i64,
    /// Whether decoding can start here.
    pub key: bool,
    /// The coded bytes.
    pub data: Vec<u8>,
}

/// One segment: a run of frames coded as closed groups of pictures that begins with a keyframe.
///
/// Packets are in decode order and one to a frame. Decode times are not kept: they depend on the frames of the segment
/// before, so the join makes them anew from all presentation times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedSegment {
    /// Codec headers; equal in all segments of a job, or they do not join.
    pub extradata: Vec<u8>,
    /// Four-character code by which the encoder names its variant of the codec, as a little-endian number; 0 where none.
    pub codec_tag: u32,
    /// FFmpeg's number of the codec profile.
    pub profile: i32,
    /// The codec level as the encoder says it.
    pub level: i32,
    /// How many frames may follow a frame in decode order and precede it in presentation, at most.
    pub reorder_frames: u32,
    /// The frames.
    pub packets: Vec<EncodedPacket>,
}

impl EncodedSegment {
    /// Returns presentation times in presentation order.
    #[must_use]
    pub fn presentation_times(&self) -> Vec<i64> {
        let mut times: Vec<_> = self.packets.iter().map(|packet| packet.pts).collect();
        times.sort_unstable();
        times
    }

    /// Serializes the segment: little endian, a table of packets, then their bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let payload: usize = self.packets.iter().map(|packet| packet.data.len()).sum();
        let mut bytes = Vec::with_capacity(28 + self.extradata.len() + self.packets.len() * ENTRY_BYTES + payload);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.codec_tag.to_le_bytes());
        bytes.extend_from_slice(&self.profile.to_le_bytes());
        bytes.extend_from_slice(&self.level.to_le_bytes());
        bytes.extend_from_slice(&self.reorder_frames.to_le_bytes());
        bytes.extend_from_slice(&(self.extradata.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.packets.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.extradata);
        for packet in &self.packets {
            bytes.extend_from_slice(&packet.pts.to_le_bytes());
            bytes.extend_from_slice(&packet.duration.to_le_bytes());
            bytes.extend_from_slice(&(packet.data.len() as u32).to_le_bytes());
            bytes.push(u8::from(packet.key));
        }
        for packet in &self.packets {
            bytes.extend_from_slice(&packet.data);
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote; allocates no more than the bytes given.
    ///
    /// # Errors
    /// `Storage` saying what does not fit where the bytes are cut short, too long or inconsistent.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader { rest: bytes };
        if reader.take(4)? != MAGIC {
            return Err(torn("it does not begin as a segment"));
        }
        let codec_tag = reader.u32()?;
        let (profile, level) = (reader.u32()?.cast_signed(), reader.u32()?.cast_signed());
        let reorder_frames = reader.u32()?;
        let (extradata_len, count) = (reader.u32()? as usize, reader.u32()? as usize);
        let extradata = reader.take(extradata_len)?.to_vec();
        let table_len = count.checked_mul(ENTRY_BYTES).ok_or_else(|| torn("its packet table is too long"))?;
        let mut table = Reader { rest: reader.take(table_len)? };
        let mut packets = Vec::with_capacity(count);
        for _ in 0..count {
            let (pts, duration) = (table.i64()?, table.i64()?);
            let len = table.u32()? as usize;
            let key = match table.take(1)? {
                [0] => false,
                [1] => true,
                _ => return Err(torn("a packet has unknown flags")),
            };
            packets.push(EncodedPacket { pts, duration, key, data: reader.take(len)?.to_vec() });
        }
        if !reader.rest.is_empty() {
            return Err(torn("bytes follow its end"));
        }
        let segment = Self { extradata, codec_tag, profile, level, reorder_frames, packets };
        segment.validate()?;
        Ok(segment)
    }

    /// Checks what every segment promises: a keyframe first, distinct times, reordering within its bound.
    ///
    /// # Errors
    /// `Storage` naming the first promise that does not hold.
    pub fn validate(&self) -> Result<()> {
        if !self.packets.first().is_some_and(|packet| packet.key) {
            return Err(torn("it does not begin with a keyframe"));
        }
        let times = self.presentation_times();
        if times.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(torn("two of its frames have the same time"));
        }
        let depth = self.reorder_frames as usize;
        let late = self.packets.iter().enumerate().any(|(at, packet)| at >= depth && times[at - depth] > packet.pts);
        if late {
            return Err(torn("a frame comes later in decode order than its reordering bound allows"));
        }
        Ok(())
    }
}

fn torn(what: &str) -> ActorError {
    ActorError::storage(format!("a segment in the work store cannot be used: {what}"))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| torn("it is cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes were taken")))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes were taken")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segments() -> impl Strategy<Value = EncodedSegment> {
        let data = proptest::collection::vec(any::<u8>(), 0..40);
        let packets = proptest::collection::vec((any::<i32>(), 0..1000i64, any::<bool>(), data), 1..30);
        (proptest::collection::vec(any::<u8>(), 0..50), -99..200i32, 0..70i32, packets).prop_map(
            |(extradata, profile, level, rows)| {
                let mut packets: Vec<_> = rows
                    .into_iter()
                    .map(|(pts, duration, key, data)| EncodedPacket { pts: i64::from(pts), duration, key, data })
                    .collect();
                packets.sort_by_key(|packet| packet.pts);
                packets.dedup_by_key(|packet| packet.pts);
                packets[0].key = true;
                EncodedSegment { extradata, codec_tag: 0x3043_5641, profile, level, reorder_frames: 2, packets }
            },
        )
    }

    proptest! {
        #[test]
        fn bytes_come_back(segment in segments()) {
            prop_assert_eq!(EncodedSegment::from_bytes(&segment.to_bytes()).unwrap(), segment);
        }

        #[test]
        fn cut_bytes_are_refused(segment in segments(), cut in any::<prop::sample::Index>()) {
            let bytes = segment.to_bytes();
            prop_assert!(EncodedSegment::from_bytes(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), magic in any::<bool>()) {
            if magic && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&MAGIC);
            }
            let _ = EncodedSegment::from_bytes(&bytes);
        }
    }

    fn check_refused(change: impl FnOnce(&mut EncodedSegment), expected: &str) {
        let packet = |pts, key| EncodedPacket { pts, duration: 1, key, data: vec![1] };
        let mut segment = EncodedSegment {
            extradata: vec![],
            codec_tag: 0,
            profile: 0,
            level: 0,
            reorder_frames: 1,
            packets: vec![packet(0, true), packet(2, false), packet(1, false)],
        };
        segment.validate().unwrap();
        change(&mut segment);
        let message = EncodedSegment::from_bytes(&segment.to_bytes()).unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} should contain {expected:?}");
    }

    #[test]
    fn broken_promises_are_named() {
        check_refused(|s| s.packets[0].key = false, "keyframe");
        check_refused(|s| s.packets.clear(), "keyframe");
        check_refused(|s| s.packets[1].pts = 1, "same time");
        check_refused(|s| s.reorder_frames = 0, "decode order");
    }

    #[test]
    fn promised_length_allocates_nothing() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[0; 16]);
        bytes.extend_from_slice(&0u32.to_le_bytes());
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(EncodedSegment::from_bytes(&bytes).is_err());
    }
}
