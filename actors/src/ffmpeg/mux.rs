//! Containers being written: streams declared, a header, packets, a trailer.
//!
//! The muxer here is bit-exact and shifts no time: what a packet is told is what is written, rescaled by the caller to
//! the track's time base. The same type writes to nowhere, which answers whether a container takes a stream.

use std::ffi::{CString, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

use ffmpeg_sys_next as ff;

use super::demux::Demuxer;
use super::encoder::{ColourEnums, StreamHeader, colour_enums, frame_format};
use super::packet::RawPacket;
use super::pixfmt::PixFmt;
use super::{AvError, Options, c_text, log};
use crate::encode::{Container, EncoderSettings, VideoCodec};
use crate::source_info::{ChapterInfo, Rational};

/// Tags in the order in which they are written.
pub type Tags = std::collections::BTreeMap<String, String>;

/// Times of one packet in its track's time base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketTimes {
    /// Presentation time.
    pub pts: Option<i64>,
    /// Decode time.
    pub dts: Option<i64>,
    /// Duration, 0 where unknown.
    pub duration: i64,
}

/// A container being written.
#[derive(Debug)]
pub struct Muxer {
    context: NonNull<ff::AVFormatContext>,
    packet: RawPacket,
    to_file: bool,
    began: bool,
}

impl Muxer {
    /// Makes a muxer that writes a new file, or nowhere where no path is given.
    ///
    /// # Errors
    /// FFmpeg's, such as those of the file system.
    pub fn create(container: Container, path: Option<&Path>) -> Result<Self, AvError> {
        log::capture();
        let _ = log::take_last_error();
        let name = c_text(container.muxer());
        let mut url = b"file:".to_vec();
        url.extend_from_slice(path.map_or(b"".as_slice(), |path| path.as_os_str().as_bytes()));
        let url = CString::new(url).map_err(|_| AvError(-ff::EINVAL))?;
        let mut context = std::ptr::null_mut();
        // SAFETY: the out pointer and both strings are live for the call.
        let code =
            unsafe { ff::avformat_alloc_output_context2(&mut context, std::ptr::null(), name.as_ptr(), url.as_ptr()) };
        AvError::check(code)?;
        let context = NonNull::new(context).ok_or(AvError::NO_MEMORY)?;
        let muxer = Self { context, packet: RawPacket::empty(), to_file: path.is_some(), began: false };
        // SAFETY: the context is live and ours; its pb becomes ours too and is closed in drop.
        let code = unsafe {
            let raw = context.as_ptr();
            (*raw).flags |= ff::AVFMT_FLAG_BITEXACT;
            (*raw).avoid_negative_ts = ff::AVFMT_AVOID_NEG_TS_DISABLED;
            // Lossless tracks and opus are fine in mp4; the standard-minded default would refuse some of them.
            (*raw).strict_std_compliance = ff::FF_COMPLIANCE_EXPERIMENTAL;
            if muxer.to_file {
                ff::avio_open(&mut (*raw).pb, url.as_ptr(), ff::AVIO_FLAG_WRITE)
            } else {
                ff::avio_open_dyn_buf(&mut (*raw).pb)
            }
        };
        AvError::check(code)?;
        Ok(muxer)
    }

    fn new_stream(&mut self) -> Result<NonNull<ff::AVStream>, AvError> {
        // SAFETY: the context is live; the stream is owned by it.
        NonNull::new(unsafe { ff::avformat_new_stream(self.context.as_ptr(), std::ptr::null()) })
            .ok_or(AvError::NO_MEMORY)
    }

    /// Declares the track of styled frames and returns its number.
    ///
    /// # Errors
    /// FFmpeg's, when memory is gone.
    pub fn add_styled(
        &mut self,
        settings: &EncoderSettings,
        header: &StreamHeader,
        average_rate: Rational,
    ) -> Result<usize, AvError> {
        let stream = self.new_stream()?.as_ptr();
        let sar = settings.sample_aspect_ratio.unwrap_or(Rational::new(0, 1));
        let ColourEnums { primaries, transfer, matrix, range, location } = colour_enums(settings);
        let is_mov = settings.container.is_mov_like();
        // SAFETY: the stream and its parameters are live and ours until the header is written; extradata is allocated by
        // FFmpeg with the padding it asks for.
        unsafe {
            let parameters = (*stream).codecpar;
            (*parameters).codec_type = ff::AVMediaType::AVMEDIA_TYPE_VIDEO;
            (*parameters).codec_id = codec_id(settings.codec);
            (*parameters).codec_tag = header.codec_tag;
            if is_mov && settings.codec.stream() == VideoCodec::Hevc {
                // Headers are out of band, which is what this tag promises; some players insist on it.
                (*parameters).codec_tag = u32::from_le_bytes(*b"hvc1");
            }
            (*parameters).format = frame_format(settings).unwrap_or(PixFmt::NONE).0;
            (*parameters).width = settings.width as c_int;
            (*parameters).height = settings.height as c_int;
            (*parameters).profile = header.profile;
            (*parameters).level = header.level;
            (*parameters).video_delay = header.reorder_frames as c_int;
            (*parameters).field_order = ff::AVFieldOrder::AV_FIELD_PROGRESSIVE;
            (*parameters).bits_per_raw_sample = c_int::from(settings.format.bits);
            (*parameters).color_primaries = primaries;
            (*parameters).color_trc = transfer;
            (*parameters).color_space = matrix;
            (*parameters).color_range = range;
            (*parameters).chroma_location = location;
            (*parameters).sample_aspect_ratio = rational(sar);
            set_extradata(parameters, &header.extradata)?;
            self.keep_codec_tag(parameters);
            (*stream).sample_aspect_ratio = rational(sar);
            (*stream).time_base = rational(settings.time_base);
            if average_rate.is_positive() {
                (*stream).avg_frame_rate = rational(average_rate);
            }
            super::hdr::add(stream, &settings.hdr)?;
            Ok((*stream).index as usize)
        }
    }

    /// Declares a track whose packets will be copied from a source's and returns its number.
    ///
    /// Parameters, dispositions, rates and side data are the source's; tags are not and have to be set.
    ///
    /// # Errors
    /// FFmpeg's, when memory is gone or the source has no such stream.
    pub fn add_copied(&mut self, source: &Demuxer, index: usize) -> Result<usize, AvError> {
        let from = source.stream_ptr(index).ok_or(AvError(-ff::EINVAL))?.as_ptr();
        let stream = self.new_stream()?.as_ptr();
        // SAFETY: both streams are live; the parameters are copied deeply; side data is copied byte by byte into memory
        // that the new stream owns.
        unsafe {
            AvError::check(ff::avcodec_parameters_copy((*stream).codecpar, (*from).codecpar))?;
            self.keep_codec_tag((*stream).codecpar);
            (*stream).time_base = (*from).time_base;
            (*stream).disposition = (*from).disposition;
            (*stream).sample_aspect_ratio = (*from).sample_aspect_ratio;
            (*stream).avg_frame_rate = (*from).avg_frame_rate;
            (*stream).r_frame_rate = (*from).r_frame_rate;
            for at in 0..usize::try_from((*from).nb_side_data).unwrap_or(0) {
                let side = (*from).side_data.add(at);
                let copy = ff::av_stream_new_side_data(stream, (*side).type_, (*side).size);
                if copy.is_null() {
                    return Err(AvError::NO_MEMORY);
                }
                std::ptr::copy_nonoverlapping((*side).data, copy, (*side).size);
            }
            Ok((*stream).index as usize)
        }
    }

    /// Drops a copied codec tag that means another codec in this container.
    ///
    /// # Safety
    /// The parameters are those of a stream of this muxer.
    unsafe fn keep_codec_tag(&self, parameters: *mut ff::AVCodecParameters) {
        // SAFETY: the output format is a static descriptor, its tag table null or terminated; ids are compared as integers.
        unsafe {
            let table = (*(*self.context.as_ptr()).oformat).codec_tag;
            if table.is_null() {
                return;
            }
            let mut tag = 0;
            let meant = ff::av_codec_get_id(table, (*parameters).codec_tag) as c_int;
            let has_own = ff::av_codec_get_tag2(table, (*parameters).codec_id, &mut tag) != 0;
            if meant != (*parameters).codec_id as c_int && has_own {
                (*parameters).codec_tag = 0;
            }
        }
    }

    /// Declares a file attached to the container (a font, a cover) with the bytes of a source's attached picture.
    ///
    /// # Errors
    /// FFmpeg's, when memory is gone or the stream holds no picture.
    pub fn add_picture_as_attachment(&mut self, source: &Demuxer, index: usize) -> Result<usize, AvError> {
        let from = source.stream_ptr(index).ok_or(AvError(-ff::EINVAL))?.as_ptr();
        let stream = self.new_stream()?.as_ptr();
        // SAFETY: both streams are live; the picture's data has the stated size.
        unsafe {
            let picture = &(*from).attached_pic;
            if picture.data.is_null() || picture.size <= 0 {
                return Err(AvError::INVALID_DATA);
            }
            let parameters = (*stream).codecpar;
            (*parameters).codec_type = ff::AVMediaType::AVMEDIA_TYPE_ATTACHMENT;
            (*parameters).codec_id = (*(*from).codecpar).codec_id;
            set_extradata(parameters, std::slice::from_raw_parts(picture.data, picture.size as usize))?;
            Ok((*stream).index as usize)
        }
    }

    /// Sets the disposition flags of a track from a source's stream.
    pub fn copy_disposition(&mut self, track: usize, source: &Demuxer, index: usize) {
        if let (Some(stream), Some(from)) = (self.stream(track), source.stream_ptr(index)) {
            // SAFETY: both streams are live.
            unsafe { (*stream.as_ptr()).disposition = (*from.as_ptr()).disposition };
        }
    }

    /// Sets the tags of the file, or of one track.
    pub fn set_tags(&mut self, track: Option<usize>, tags: &Tags) {
        let stream = track.and_then(|track| self.stream(track));
        for (key, value) in tags {
            let (key, value) = (c_text(key), c_text(value));
            // SAFETY: context and stream are live; the dictionary copies both strings.
            unsafe {
                let dictionary = match (track, stream) {
                    (None, _) => &raw mut (*self.context.as_ptr()).metadata,
                    (Some(_), Some(stream)) => &raw mut (*stream.as_ptr()).metadata,
                    (Some(_), None) => return,
                };
                ff::av_dict_set(dictionary, key.as_ptr(), value.as_ptr(), 0);
            }
        }
    }

    /// Sets the chapters of the file, all at once and once.
    ///
    /// # Errors
    /// FFmpeg's, when memory is gone.
    pub fn set_chapters(&mut self, chapters: &[ChapterInfo]) -> Result<(), AvError> {
        if chapters.is_empty() {
            return Ok(());
        }
        // SAFETY: the context is live and has no chapters yet; array and chapters are allocated by FFmpeg's allocator,
        // zeroed, and freed with the context, which counts those that are complete.
        unsafe {
            let context = self.context.as_ptr();
            assert!((*context).chapters.is_null(), "chapters are set once");
            let array = ff::av_calloc(chapters.len(), size_of::<*mut ff::AVChapter>()).cast::<*mut ff::AVChapter>();
            if array.is_null() {
                return Err(AvError::NO_MEMORY);
            }
            (*context).chapters = array;
            for (at, chapter) in chapters.iter().enumerate() {
                let raw = ff::av_mallocz(size_of::<ff::AVChapter>()).cast::<ff::AVChapter>();
                if raw.is_null() {
                    return Err(AvError::NO_MEMORY);
                }
                *array.add(at) = raw;
                (*context).nb_chapters += 1;
                (*raw).id = chapter.id;
                (*raw).time_base = rational(chapter.time_base);
                (*raw).start = chapter.start;
                (*raw).end = chapter.end;
                for (key, value) in &chapter.tags {
                    let (key, value) = (c_text(key), c_text(value));
                    ff::av_dict_set(&raw mut (*raw).metadata, key.as_ptr(), value.as_ptr(), 0);
                }
            }
        }
        Ok(())
    }

    /// Writes the header; afterwards each track's time base is what the container uses.
    ///
    /// # Errors
    /// FFmpeg's, where the container does not take a stream or an option.
    pub fn begin(&mut self, options: &[(&str, String)]) -> Result<(), AvError> {
        let mut dictionary = Options::new();
        for (key, value) in options {
            dictionary.set(key, value);
        }
        // SAFETY: the context is live and has a place to write to.
        let code = unsafe { ff::avformat_write_header(self.context.as_ptr(), dictionary.as_mut_ptr()) };
        AvError::check(code)?;
        self.began = true;
        Ok(())
    }

    /// Returns the unit of a track's timestamps.
    #[must_use]
    pub fn time_base(&self, track: usize) -> Rational {
        self.stream(track).map_or(Rational::new(1, 1), |stream| {
            // SAFETY: the stream is live.
            let base = unsafe { (*stream.as_ptr()).time_base };
            Rational::new(base.num, base.den)
        })
    }

    /// Writes one packet of bytes; FFmpeg holds it back until packets of other tracks are there to be put in order.
    ///
    /// # Errors
    /// FFmpeg's, such as those of the file system.
    pub fn write_bytes(&mut self, track: usize, times: PacketTimes, key: bool, data: &[u8]) -> Result<(), AvError> {
        let size = c_int::try_from(data.len()).map_err(|_| AvError::NO_MEMORY)?;
        let packet = self.packet.as_ptr();
        // SAFETY: the packet is ours and blank: writing always leaves it so. Its new data has `size` bytes.
        unsafe {
            AvError::check(ff::av_new_packet(packet, size))?;
            std::ptr::copy_nonoverlapping(data.as_ptr(), (*packet).data, data.len());
            (*packet).flags = if key { ff::AV_PKT_FLAG_KEY } else { 0 };
        }
        self.write(track, times)
    }

    /// Writes a copied packet with its flags and side data.
    ///
    /// # Errors
    /// FFmpeg's, such as those of the file system, or of a repackaging that the packet does not suit.
    pub fn write_copied(&mut self, track: usize, times: PacketTimes, packet: &RawPacket) -> Result<(), AvError> {
        // SAFETY: ours is blank, the source's is live; the reference is counted.
        AvError::check(unsafe { ff::av_packet_ref(self.packet.as_ptr(), packet.as_ptr()) })?;
        self.write(track, times)
    }

    fn write(&mut self, track: usize, times: PacketTimes) -> Result<(), AvError> {
        assert!(self.began, "packets come after the header");
        let packet = self.packet.as_ptr();
        // SAFETY: packet and context are live; the call takes the packet's data and leaves it blank, on errors too.
        let code = unsafe {
            (*packet).stream_index = track as c_int;
            (*packet).pts = times.pts.unwrap_or(ff::AV_NOPTS_VALUE);
            (*packet).dts = times.dts.unwrap_or(ff::AV_NOPTS_VALUE);
            (*packet).duration = times.duration;
            (*packet).pos = -1;
            (*packet).time_base = ff::AVRational { num: 0, den: 1 };
            ff::av_interleaved_write_frame(self.context.as_ptr(), packet)
        };
        AvError::check(code).map(|_| ())
    }

    /// Writes out what is held back for ordering, so that a track that ended early holds nothing back any more.
    ///
    /// # Errors
    /// FFmpeg's, such as those of the file system.
    pub fn flush(&mut self) -> Result<(), AvError> {
        // SAFETY: the context is live; a null packet flushes.
        let code = unsafe { ff::av_interleaved_write_frame(self.context.as_ptr(), std::ptr::null_mut()) };
        AvError::check(code).map(|_| ())
    }

    /// Writes the trailer and closes the file.
    ///
    /// # Errors
    /// FFmpeg's, such as a disk that filled up.
    pub fn finish(mut self) -> Result<(), AvError> {
        assert!(self.began, "the trailer comes after the header");
        self.began = false;
        // SAFETY: the context is live and its header was written.
        let code = unsafe { ff::av_write_trailer(self.context.as_ptr()) };
        let closed = self.close();
        AvError::check(code)?;
        closed
    }

    fn stream(&self, track: usize) -> Option<NonNull<ff::AVStream>> {
        // SAFETY: the context is live and its array holds nb_streams valid pointers.
        unsafe {
            let context = self.context.as_ref();
            (track < context.nb_streams as usize).then(|| NonNull::new(*context.streams.add(track)))?
        }
    }

    fn close(&mut self) -> Result<(), AvError> {
        // SAFETY: the pb is ours or null already; closing sets it to null.
        unsafe {
            let context = self.context.as_ptr();
            if self.to_file {
                return AvError::check(ff::avio_closep(&raw mut (*context).pb)).map(|_| ());
            }
            if !(*context).pb.is_null() {
                let mut buffer = std::ptr::null_mut();
                ff::avio_close_dyn_buf((*context).pb, &mut buffer);
                (*context).pb = std::ptr::null_mut();
                ff::av_free(buffer.cast());
            }
        }
        Ok(())
    }
}

impl Drop for Muxer {
    fn drop(&mut self) {
        let _ = self.close();
        // SAFETY: this is the only owner; a context whose header was written but not its trailer is freed in full too.
        unsafe { ff::avformat_free_context(self.context.as_ptr()) };
    }
}

/// Tells whether a source's stream is left out by the demuxer itself, as the text track behind mov chapters is.
#[must_use]
pub fn is_left_out(source: &Demuxer, index: usize) -> bool {
    source.stream_ptr(index).is_some_and(|stream| {
        // SAFETY: the stream is live; the value is read as an integer.
        let discard = unsafe { (&raw const (*stream.as_ptr()).discard).cast::<c_int>().read() };
        discard >= ff::AVDiscard::AVDISCARD_ALL as c_int
    })
}

/// Samples that a packet of an audio stream decodes to, by its header; `None` where FFmpeg cannot tell.
#[must_use]
pub fn packet_samples(source: &Demuxer, index: usize, bytes: usize) -> Option<i64> {
    let stream = source.stream_ptr(index)?;
    // SAFETY: the stream and its parameters are live; the call only reads them.
    let samples = unsafe { ff::av_get_audio_frame_duration2((*stream.as_ptr()).codecpar, bytes as c_int) };
    (samples > 0).then_some(i64::from(samples))
}

/// Samples that a decoder gives before the first that is meant to be heard, as the source's stream says.
#[must_use]
pub fn initial_padding(source: &Demuxer, index: usize) -> i64 {
    source.stream_ptr(index).map_or(0, |stream| {
        // SAFETY: the stream and its parameters are live.
        i64::from(unsafe { (*(*stream.as_ptr()).codecpar).initial_padding })
    })
}

const fn rational(value: Rational) -> ff::AVRational {
    ff::AVRational { num: value.num, den: value.den }
}

const fn codec_id(codec: VideoCodec) -> ff::AVCodecID {
    match codec {
        VideoCodec::H264 | VideoCodec::H264Nvenc => ff::AVCodecID::AV_CODEC_ID_H264,
        VideoCodec::Hevc | VideoCodec::HevcNvenc => ff::AVCodecID::AV_CODEC_ID_HEVC,
        VideoCodec::Vp9 => ff::AVCodecID::AV_CODEC_ID_VP9,
        VideoCodec::Av1 => ff::AVCodecID::AV_CODEC_ID_AV1,
        VideoCodec::Ffv1 => ff::AVCodecID::AV_CODEC_ID_FFV1,
        VideoCodec::ProRes => ff::AVCodecID::AV_CODEC_ID_PRORES,
        VideoCodec::Mjpeg => ff::AVCodecID::AV_CODEC_ID_MJPEG,
        VideoCodec::UtVideo => ff::AVCodecID::AV_CODEC_ID_UTVIDEO,
    }
}

/// Gives parameters a padded copy of codec headers.
///
/// # Safety
/// The parameters are live and have no extradata yet.
unsafe fn set_extradata(parameters: *mut ff::AVCodecParameters, bytes: &[u8]) -> Result<(), AvError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let size = c_int::try_from(bytes.len()).map_err(|_| AvError::NO_MEMORY)?;
    // SAFETY: the allocation is checked and has room for the bytes and the zeroed padding that FFmpeg reads past them.
    unsafe {
        let copy = ff::av_mallocz(bytes.len() + ff::AV_INPUT_BUFFER_PADDING_SIZE as usize).cast::<u8>();
        if copy.is_null() {
            return Err(AvError::NO_MEMORY);
        }
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), copy, bytes.len());
        (*parameters).extradata = copy;
        (*parameters).extradata_size = size;
    }
    Ok(())
}
