//! A video decoder: packets in, frames out.

use std::ffi::c_int;
use std::ptr::NonNull;

use ffmpeg_sys_next as ff;

use super::demux::{Demuxer, PICTURE_PIXELS_MAX};
use super::hardware::{CardDecoder, fetch};
use super::packet::RawPacket;
use super::raw_frame::RawFrame;
use super::{AvError, Options, owned_text};
use crate::error::{ActorError, Result};

/// A decoder of one video stream.
///
/// Frames that the decoder holds to be corrupt are given out and flagged, since what is hidden cannot be reported.
#[derive(Debug)]
pub struct Decoder(NonNull<ff::AVCodecContext>);

// SAFETY: the context is only reached through this owner; FFmpeg's decoders bind to no thread, and those that use a card make its
// context current around every call.
unsafe impl Send for Decoder {}

impl Decoder {
    /// Opens a decoder for a stream with a pinned number of threads, which gives its work to a card where one is named.
    ///
    /// # Errors
    /// `InputRefused` where this FFmpeg has no decoder for the codec, `Codec` where it cannot be opened.
    pub fn open(demuxer: &Demuxer, stream: usize, threads: u32, card: Option<&CardDecoder>) -> Result<Self> {
        let shown = demuxer.shown();
        let stream = demuxer
            .stream_ptr(stream)
            .ok_or_else(|| ActorError::InputUnreadable(format!("input {shown} has no stream {stream} any more")))?;
        // SAFETY: the stream and its parameters live as long as the demuxer; the context made here is ours. The codec id is
        // only passed back to the library that gave it.
        unsafe {
            let parameters = (*stream.as_ptr()).codecpar;
            let codec = ff::avcodec_find_decoder((*parameters).codec_id);
            if codec.is_null() {
                let name = owned_text(ff::avcodec_get_name((*parameters).codec_id));
                return Err(ActorError::InputRefused(format!(
                    "input {shown}: this ffmpeg has no decoder for {name}; convert the video or use a build that has one"
                )));
            }
            let context =
                NonNull::new(ff::avcodec_alloc_context3(codec)).ok_or_else(|| failed(shown, AvError::NO_MEMORY))?;
            let decoder = Self(context);
            let context = context.as_ptr();
            AvError::check(ff::avcodec_parameters_to_context(context, parameters)).map_err(|e| failed(shown, e))?;
            (*context).pkt_timebase = (*stream.as_ptr()).time_base;
            (*context).framerate = (*stream.as_ptr()).avg_frame_rate;
            (*context).thread_count = threads.clamp(1, 16) as c_int;
            (*context).flags |= ff::AV_CODEC_FLAG_OUTPUT_CORRUPT as c_int;
            if let Some(card) = card {
                card.attach(context).map_err(|e| failed(shown, e))?;
            }
            let mut options = Options::new();
            options.set("max_pixels", &PICTURE_PIXELS_MAX.to_string());
            AvError::check(ff::avcodec_open2(context, codec, options.as_mut_ptr())).map_err(|e| failed(shown, e))?;
            Ok(decoder)
        }
    }

    /// Hands a packet in; `None` says that no more will come.
    ///
    /// # Errors
    /// `AGAIN` where frames have to be taken first, `EOF` after the end was said, else what the decoder made of it.
    pub fn send(&mut self, packet: Option<&RawPacket>) -> Result<(), AvError> {
        let packet = packet.map_or(std::ptr::null_mut(), RawPacket::as_ptr);
        // SAFETY: the context is live, the packet null or live.
        AvError::check(unsafe { ff::avcodec_send_packet(self.0.as_ptr(), packet) }).map(|_| ())
    }

    /// Takes a frame.
    ///
    /// # Errors
    /// `AGAIN` where packets are wanted first, `EOF` after the last frame, else what went wrong in decoding.
    pub fn receive(&mut self) -> Result<RawFrame, AvError> {
        let frame = RawFrame::empty();
        // SAFETY: the context and the frame are live.
        AvError::check(unsafe { ff::avcodec_receive_frame(self.0.as_ptr(), frame.as_ptr()) })?;
        fetch(frame)
    }

    /// Forgets everything but what the decoder has learned from the stream's headers.
    pub fn flush(&mut self) {
        // SAFETY: the context is live and opened.
        unsafe { ff::avcodec_flush_buffers(self.0.as_ptr()) };
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        let mut context = self.0.as_ptr();
        // SAFETY: this is the only owner.
        unsafe { ff::avcodec_free_context(&mut context) };
    }
}

fn failed(shown: &str, error: AvError) -> ActorError {
    ActorError::Codec(format!("cannot open a decoder for {shown}: {error}"))
}
