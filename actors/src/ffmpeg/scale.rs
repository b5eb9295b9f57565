//! A scaler from one size and format to another, for sources that change in the middle.

use std::ptr::{NonNull, null, null_mut};

use ffmpeg_sys_next as ff;

use super::AvError;
use super::pixfmt::PixFmt;
use super::raw_frame::RawFrame;

/// Size and pixel format of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Pixel format.
    pub format: PixFmt,
}

impl Shape {
    /// Returns the shape of a frame.
    #[must_use]
    pub fn of(frame: &RawFrame) -> Self {
        Self { width: frame.width(), height: frame.height(), format: frame.pix_fmt() }
    }
}

/// FFmpeg's software scaler, bicubic, with exact arithmetic so that every CPU gives the same pixels.
#[derive(Debug)]
pub struct Scaler {
    context: NonNull<ff::SwsContext>,
    from: Shape,
    to: Shape,
}

// SAFETY: the context runs without threads of its own and is only reached through this owner.
unsafe impl Send for Scaler {}

impl Scaler {
    /// Makes one.
    ///
    /// # Errors
    /// `INVALID_DATA` where there is no way between the two.
    pub fn new(from: Shape, to: Shape) -> Result<Self, AvError> {
        let (Some(from_format), Some(to_format)) = (from.format.as_av(), to.format.as_av()) else {
            return Err(AvError::INVALID_DATA);
        };
        let flags = ff::SWS_BICUBIC | ff::SWS_ACCURATE_RND | ff::SWS_BITEXACT | ff::SWS_FULL_CHR_H_INT;
        // SAFETY: a plain constructor; sizes were checked against the limits when the frames were decoded.
        let context = unsafe {
            ff::sws_getContext(
                from.width as i32,
                from.height as i32,
                from_format,
                to.width as i32,
                to.height as i32,
                to_format,
                flags,
                null_mut(),
                null_mut(),
                null(),
            )
        };
        NonNull::new(context).map(|context| Self { context, from, to }).ok_or(AvError::INVALID_DATA)
    }

    /// Returns whether this one goes from one shape to the other.
    #[must_use]
    pub fn fits(&self, from: Shape, to: Shape) -> bool {
        (self.from, self.to) == (from, to)
    }

    /// Scales a frame; its properties are carried over.
    ///
    /// # Errors
    /// What FFmpeg says, mostly that memory is gone.
    ///
    /// # Panics
    /// When the frame is not of the shape that the scaler was made for.
    pub fn scale(&mut self, frame: &RawFrame) -> Result<RawFrame, AvError> {
        assert_eq!(Shape::of(frame), self.from, "a frame of another shape");
        let out = RawFrame::empty();
        // SAFETY: the output is a fresh frame of which only size and format are set before its buffers are made; the
        // source has the shape that the scaler was made for, and the output has the other.
        unsafe {
            let raw = out.as_ptr();
            (*raw).width = self.to.width as i32;
            (*raw).height = self.to.height as i32;
            (*raw).format = self.to.format.0;
            AvError::check(ff::av_frame_get_buffer(raw, 0))?;
            AvError::check(ff::av_frame_copy_props(raw, frame.as_ptr()))?;
            AvError::check(ff::sws_scale(
                self.context.as_ptr(),
                (&raw const (*frame.as_ptr()).data).cast(),
                (&raw const (*frame.as_ptr()).linesize).cast(),
                0,
                self.from.height as i32,
                (&raw const (*raw).data).cast(),
                (&raw const (*raw).linesize).cast(),
            ))?;
        }
        Ok(out)
    }
}

impl Drop for Scaler {
    fn drop(&mut self) {
        // SAFETY: this is the only owner.
        unsafe { ff::sws_freeContext(self.context.as_ptr()) };
    }
}
