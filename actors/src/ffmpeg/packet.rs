//! A compressed packet as FFmpeg holds it.

use std::ffi::c_int;
use std::ptr::NonNull;

use ffmpeg_sys_next as ff;

use super::AvError;
use super::raw_frame::known;

/// An owned AVPacket; its data is counted and may be shared.
#[derive(Debug)]
pub struct RawPacket(NonNull<ff::AVPacket>);

// SAFETY: an AVPacket has no thread affinity, its buffer is counted atomically, and this type is its only owner.
unsafe impl Send for RawPacket {}

impl RawPacket {
    /// Allocates an empty packet.
    ///
    /// # Panics
    /// When memory for the small header is gone.
    #[must_use]
    pub fn empty() -> Self {
        // SAFETY: plain allocation.
        Self(NonNull::new(unsafe { ff::av_packet_alloc() }).expect("memory for a packet header"))
    }

    /// Makes another reference to the same data, or a copy where the data is not counted.
    ///
    /// # Errors
    /// `NO_MEMORY` when allocation fails.
    pub fn share(&self) -> Result<Self, AvError> {
        let copy = Self::empty();
        // SAFETY: the source is a live packet, the destination a fresh empty one.
        AvError::check(unsafe { ff::av_packet_ref(copy.as_ptr(), self.as_ptr()) })?;
        Ok(copy)
    }

    /// Returns the pointer for calls of this folder.
    pub(crate) fn as_ptr(&self) -> *mut ff::AVPacket {
        self.0.as_ptr()
    }

    fn get(&self) -> &ff::AVPacket {
        // SAFETY: the packet is live as long as self.
        unsafe { self.0.as_ref() }
    }

    fn has(&self, flag: c_int) -> bool {
        self.get().flags & flag != 0
    }

    /// Which stream it belongs to.
    #[must_use]
    pub fn stream(&self) -> usize {
        self.get().stream_index.max(0) as usize
    }

    /// Presentation timestamp in the stream's ticks.
    #[must_use]
    pub fn pts(&self) -> Option<i64> {
        known(self.get().pts)
    }

    /// Decoding timestamp in the stream's ticks.
    #[must_use]
    pub fn dts(&self) -> Option<i64> {
        known(self.get().dts)
    }

    /// Duration in the stream's ticks, 0 where unknown.
    #[must_use]
    pub fn duration(&self) -> i64 {
        self.get().duration
    }

    /// Whether decoding can begin here.
    #[must_use]
    pub fn is_key(&self) -> bool {
        self.has(ff::AV_PKT_FLAG_KEY)
    }

    /// Whether the demuxer found it damaged.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        self.has(ff::AV_PKT_FLAG_CORRUPT)
    }

    /// Whether an edit list hides what it decodes to.
    #[must_use]
    pub fn is_discarded(&self) -> bool {
        self.has(ff::AV_PKT_FLAG_DISCARD)
    }

    /// The compressed bytes.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        let packet = self.get();
        if packet.data.is_null() || packet.size <= 0 {
            return &[];
        }
        // SAFETY: data points to size readable bytes that live as long as the packet.
        unsafe { std::slice::from_raw_parts(packet.data, packet.size as usize) }
    }
}

impl Drop for RawPacket {
    fn drop(&mut self) {
        let mut packet = self.as_ptr();
        // SAFETY: this is the only owner.
        unsafe { ff::av_packet_free(&mut packet) };
    }
}
