//! An NVIDIA card's decoder (NVDEC): FFmpeg's own decoders hand the work to it, and frames come back to memory.
//!
//! FFmpeg is given the card's primary context, which is the one that scoring uses; it sets that context's flags and takes no
//! context with others, so the first opening has to come before scoring's, when the job is planned. A stream of a kind that the card does
//! not decode is decoded in software by the same FFmpeg decoder. Not yet run on a card: only that a missing one is told.

use std::ffi::CString;
use std::ptr::NonNull;

use ffmpeg_sys_next as ff;

use super::pixfmt::PixFmt;
use super::raw_frame::RawFrame;
use super::unpack::unpack;
use super::{AvError, log};
use crate::error::{ActorError, Result};

/// Codecs whose standards fix every bit of a decoded picture, and whose FFmpeg decoders can hand the work to a card.
const CODECS: [&str; 3] = ["h264", "hevc", "vp9"];

/// A card that is open for decoding.
#[derive(Debug)]
pub struct CardDecoder(NonNull<ff::AVBufferRef>);

impl CardDecoder {
    /// Opens card number `ordinal`.
    ///
    /// # Errors
    /// `Device` with the driver's reason where there is no such card or no driver.
    pub fn open(ordinal: usize) -> Result<Self> {
        log::capture();
        let _ = log::take_last_error();
        let name = CString::new(ordinal.to_string()).expect("digits hold no zero byte");
        let (mut device, kind) = (std::ptr::null_mut(), ff::AVHWDeviceType::AV_HWDEVICE_TYPE_CUDA);
        // SAFETY: the name is a terminated string; the call sets the pointer where it succeeds.
        let code = unsafe {
            let options = std::ptr::null_mut();
            ff::av_hwdevice_ctx_create(&mut device, kind, name.as_ptr(), options, ff::AV_CUDA_USE_PRIMARY_CONTEXT)
        };
        let opened = AvError::check(code).and_then(|_| NonNull::new(device).ok_or(AvError::NO_MEMORY));
        opened.map(Self).map_err(|error| {
            let detail = log::take_last_error().map_or_else(String::new, |line| format!(" ({line})"));
            ActorError::Device(format!("the decoder of cuda:{ordinal} cannot be used: {error}{detail}"))
        })
    }

    /// Returns whether streams of a codec, in FFmpeg's name, are given to a card.
    #[must_use]
    pub fn serves(codec: &str) -> bool {
        CODECS.contains(&codec)
    }

    /// Has a decoder use the card for what it can do.
    ///
    /// # Safety
    /// The context is live and not open yet.
    pub(super) unsafe fn attach(&self, context: *mut ff::AVCodecContext) -> Result<(), AvError> {
        // SAFETY: the device is live; the reference made here belongs to the context, which frees it.
        unsafe {
            (*context).hw_device_ctx = ff::av_buffer_ref(self.0.as_ptr());
            if (*context).hw_device_ctx.is_null() { Err(AvError::NO_MEMORY) } else { Ok(()) }
        }
    }
}

impl Drop for CardDecoder {
    fn drop(&mut self) {
        // SAFETY: this is the only owner of this reference.
        unsafe { ff::av_buffer_unref(&mut self.0.as_ptr()) };
    }
}

/// Brings a frame that lies on a card to memory, as software decoding would have given it; others stay as they are.
pub(super) fn fetch(frame: RawFrame) -> Result<RawFrame, AvError> {
    // SAFETY: the frame is live.
    if unsafe { (*frame.as_ptr()).hw_frames_ctx.is_null() } {
        return Ok(frame);
    }
    let fetched = RawFrame::empty();
    // SAFETY: both frames are live; the empty one is given buffers and a format that the card can be read in.
    AvError::check(unsafe { ff::av_hwframe_transfer_data(fetched.as_ptr(), frame.as_ptr(), 0) })?;
    planar(&fetched, &frame)
}

/// Cards give NV12 and P010, software decoders planes; timestamps, flags and tags are those of `original`.
fn planar(fetched: &RawFrame, original: &RawFrame) -> Result<RawFrame, AvError> {
    let format = fetched.pix_fmt().canonical(original.colour()).ok_or(AvError::INVALID_DATA)?;
    let picture = unpack(fetched, format).map_err(|_| AvError::INVALID_DATA)?;
    let planar = RawFrame::of(&picture, PixFmt::of(format).ok_or(AvError::INVALID_DATA)?)?;
    // SAFETY: both frames are live.
    AvError::check(unsafe { ff::av_frame_copy_props(planar.as_ptr(), original.as_ptr()) })?;
    Ok(planar)
}

#[cfg(test)]
mod tests {
    use restyle_models::pixels::{Picture, PixelFormat};

    use super::*;

    #[test]
    fn a_card_that_is_not_there_is_refused_with_the_reason() {
        let message = CardDecoder::open(4711).unwrap_err().to_string();
        assert!(message.starts_with("the decoder of cuda:4711 cannot be used: ") && message.contains('('), "{message}");
    }

    #[test]
    fn what_a_card_gives_becomes_what_software_gives() {
        let format = PixelFormat { bits: 10, ..PixelFormat::YUV420P8 };
        let picture = Picture::zeroed(format, 34, 18).unwrap();
        let mut given = RawFrame::of(&picture, PixFmt::by_name("p010le").unwrap()).unwrap();
        given.set_pts(77);
        let planar = planar(&given, &given).unwrap();
        assert_eq!((planar.pix_fmt().name().as_str(), planar.pts()), ("yuv420p10le", Some(77)));
        assert!(unpack(&planar, format).unwrap() == picture);
    }

    #[test]
    fn frames_in_memory_stay_as_they_are() {
        let picture = Picture::zeroed(PixelFormat::YUV420P8, 8, 8).unwrap();
        let frame = RawFrame::of(&picture, PixFmt::by_name("yuv420p").unwrap()).unwrap();
        let address = frame.as_ptr();
        assert_eq!(fetch(frame).unwrap().as_ptr(), address);
    }
}
