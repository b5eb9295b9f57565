//! What a demuxer has learned, copied out into plain data.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int};

use ffmpeg_sys_next as ff;

use super::demux::Demuxer;
use super::owned_text;
use super::pixfmt::{ColourCodes, PixFmt};
use super::raw_frame::{RawFrame, content_light, known, mastering_display, native_word};
use crate::source_info::{AudioInfo, ChapterInfo, HdrInfo, Rational, StreamInfo, StreamKind};

/// Facts of the whole container.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerFacts {
    /// Short names, separated by commas.
    pub name: String,
    /// Name for people.
    pub title: String,
    /// First timestamp in microseconds.
    pub start_micros: Option<i64>,
    /// Length in microseconds.
    pub duration_micros: Option<i64>,
    /// Bits per second.
    pub bit_rate: Option<i64>,
    /// Tags of the file.
    pub tags: BTreeMap<String, String>,
    /// Chapters.
    pub chapters: Vec<ChapterInfo>,
}

/// Facts of a video stream beyond those of every stream.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoFacts {
    /// Width in pixels as claimed.
    pub width: u32,
    /// Height in pixels as claimed.
    pub height: u32,
    /// Pixel format as claimed.
    pub pix_fmt: PixFmt,
    /// Colour codes as claimed.
    pub colour: ColourCodes,
    /// `AV_FIELD_*`.
    pub field_order: c_int,
    /// Average frame rate.
    pub average_frame_rate: Rational,
    /// Base frame rate, a guess.
    pub real_frame_rate: Rational,
    /// The display matrix's upper left 2x2, row by row: what x and y become.
    pub display_matrix: Option<[i32; 4]>,
    /// HDR metadata of the container.
    pub hdr: HdrInfo,
    /// Whether the container announces Dolby Vision.
    pub dolby_vision: bool,
}

fn fraction(value: ff::AVRational) -> Rational {
    Rational::new(value.num, value.den)
}

fn positive(value: i64) -> Option<i64> {
    (value > 0).then_some(value)
}

/// Reads a C enum field as the integer that it is.
macro_rules! code_of {
    ($field:expr) => {
        (&raw const $field).cast::<c_int>().read()
    };
}

impl Demuxer {
    /// Copies the container's facts.
    #[must_use]
    pub fn container_facts(&self) -> ContainerFacts {
        let context = self.as_ptr();
        // SAFETY: the context is live and opened, so its format is set; strings and dictionaries are copied.
        unsafe {
            ContainerFacts {
                name: owned_text((*(*context).iformat).name),
                title: owned_text((*(*context).iformat).long_name),
                start_micros: known((*context).start_time),
                duration_micros: known((*context).duration).and_then(positive),
                bit_rate: positive((*context).bit_rate),
                tags: super::owned_tags((*context).metadata),
                chapters: self.chapters(),
            }
        }
    }

    fn chapters(&self) -> Vec<ChapterInfo> {
        let context = self.as_ptr();
        // SAFETY: the context is live and its array holds nb_chapters valid pointers.
        unsafe {
            (0..(*context).nb_chapters as usize)
                .map(|index| {
                    let chapter = *(*context).chapters.add(index);
                    ChapterInfo {
                        id: (*chapter).id,
                        time_base: fraction((*chapter).time_base),
                        start: (*chapter).start,
                        end: (*chapter).end,
                        tags: super::owned_tags((*chapter).metadata),
                    }
                })
                .collect()
        }
    }

    /// Copies a stream's facts; `None` past the last one.
    #[must_use]
    pub fn stream_info(&self, index: usize) -> Option<StreamInfo> {
        let stream = self.stream_ptr(index)?.as_ptr();
        // SAFETY: the stream and its parameters are live; enums are read as integers; strings are copied.
        unsafe {
            let parameters = (*stream).codecpar;
            let kind = kind_of(code_of!((*parameters).codec_type));
            let disposition = (*stream).disposition;
            Some(StreamInfo {
                index,
                id: (*stream).id,
                kind,
                codec: codec_name(parameters),
                codec_tag: fourcc((*parameters).codec_tag),
                profile: profile_name(parameters),
                time_base: fraction((*stream).time_base),
                start_pts: known((*stream).start_time),
                duration: known((*stream).duration).and_then(positive),
                frames: positive((*stream).nb_frames),
                bit_rate: positive((*parameters).bit_rate),
                disposition: disposition_names(disposition),
                tags: super::owned_tags((*stream).metadata),
                attached_picture: disposition & ff::AV_DISPOSITION_ATTACHED_PIC != 0,
                width: u32::try_from((*parameters).width).ok().filter(|_| kind == StreamKind::Video),
                height: u32::try_from((*parameters).height).ok().filter(|_| kind == StreamKind::Video),
                audio: (kind == StreamKind::Audio).then(|| audio_info(parameters)),
            })
        }
    }

    /// Copies a video stream's facts; `None` where the stream is no video.
    #[must_use]
    pub fn video_facts(&self, index: usize) -> Option<VideoFacts> {
        use ff::AVPacketSideDataType as Side;
        let stream = self.stream_ptr(index)?.as_ptr();
        // SAFETY: the stream and its parameters are live; enums are read as integers.
        unsafe {
            let parameters = (*stream).codecpar;
            if kind_of(code_of!((*parameters).codec_type)) != StreamKind::Video {
                return None;
            }
            let side = |kind| side_data(stream, kind);
            Some(VideoFacts {
                width: u32::try_from((*parameters).width).unwrap_or(0),
                height: u32::try_from((*parameters).height).unwrap_or(0),
                pix_fmt: PixFmt((*parameters).format),
                colour: ColourCodes {
                    primaries: code_of!((*parameters).color_primaries),
                    transfer: code_of!((*parameters).color_trc),
                    matrix: code_of!((*parameters).color_space),
                    range: code_of!((*parameters).color_range),
                    chroma_location: code_of!((*parameters).chroma_location),
                },
                field_order: code_of!((*parameters).field_order),
                average_frame_rate: fraction((*stream).avg_frame_rate),
                real_frame_rate: fraction((*stream).r_frame_rate),
                display_matrix: side(Side::AV_PKT_DATA_DISPLAYMATRIX).and_then(display_matrix),
                hdr: HdrInfo {
                    mastering: side(Side::AV_PKT_DATA_MASTERING_DISPLAY_METADATA).and_then(mastering_display),
                    content_light: side(Side::AV_PKT_DATA_CONTENT_LIGHT_LEVEL).and_then(content_light),
                },
                dolby_vision: side(Side::AV_PKT_DATA_DOVI_CONF).is_some(),
            })
        }
    }

    /// Returns a stream's sample aspect ratio, the container's before the frame's, as players take it.
    #[must_use]
    pub fn sample_aspect_ratio(&self, index: usize, frame: Option<&RawFrame>) -> Option<Rational> {
        let stream = self.stream_ptr(index)?;
        let frame = frame.map_or(std::ptr::null_mut(), RawFrame::as_ptr);
        // SAFETY: context and stream are live, the frame null or live.
        let ratio = unsafe { ff::av_guess_sample_aspect_ratio(self.as_ptr(), stream.as_ptr(), frame) };
        Some(fraction(ratio)).filter(|ratio| ratio.is_positive())
    }
}

fn kind_of(code: c_int) -> StreamKind {
    use ff::AVMediaType as Media;
    const VIDEO: c_int = Media::AVMEDIA_TYPE_VIDEO as c_int;
    const AUDIO: c_int = Media::AVMEDIA_TYPE_AUDIO as c_int;
    const SUBTITLE: c_int = Media::AVMEDIA_TYPE_SUBTITLE as c_int;
    const DATA: c_int = Media::AVMEDIA_TYPE_DATA as c_int;
    const ATTACHMENT: c_int = Media::AVMEDIA_TYPE_ATTACHMENT as c_int;
    match code {
        VIDEO => StreamKind::Video,
        AUDIO => StreamKind::Audio,
        SUBTITLE => StreamKind::Subtitle,
        DATA => StreamKind::Data,
        ATTACHMENT => StreamKind::Attachment,
        _ => StreamKind::Unknown,
    }
}

/// # Safety
/// The parameters are live.
unsafe fn codec_name(parameters: *const ff::AVCodecParameters) -> String {
    // SAFETY: the caller vouches for the parameters; codec ids come from the library that is asked; names are constants.
    unsafe {
        let descriptor = ff::avcodec_descriptor_get((*parameters).codec_id);
        if descriptor.is_null() { "unknown".to_owned() } else { owned_text((*descriptor).name) }
    }
}

/// # Safety
/// The parameters are live.
unsafe fn profile_name(parameters: *const ff::AVCodecParameters) -> Option<String> {
    // SAFETY: as for the codec's name; the result is null or a constant.
    let name = unsafe { owned_text(ff::avcodec_profile_name((*parameters).codec_id, (*parameters).profile)) };
    (!name.is_empty()).then_some(name)
}

fn fourcc(tag: u32) -> String {
    if tag == 0 {
        return String::new();
    }
    let mut text = [0 as c_char; 32];
    // SAFETY: the buffer has the AV_FOURCC_MAX_STRING_SIZE (32) bytes that the call asks for, and is terminated by it.
    unsafe { owned_text(ff::av_fourcc_make_string(text.as_mut_ptr(), tag)) }
}

/// # Safety
/// The parameters are live.
unsafe fn audio_info(parameters: *const ff::AVCodecParameters) -> AudioInfo {
    let mut layout = [0 as c_char; 128];
    // SAFETY: the caller vouches for the parameters; the buffer is writable for its length and stays terminated, since it
    // begins as zeros and one byte is kept back.
    unsafe {
        ff::av_channel_layout_describe(&(*parameters).ch_layout, layout.as_mut_ptr(), layout.len() - 1);
        AudioInfo {
            sample_rate: (*parameters).sample_rate,
            channels: (*parameters).ch_layout.nb_channels,
            channel_layout: owned_text(layout.as_ptr()),
        }
    }
}

fn disposition_names(disposition: c_int) -> Vec<String> {
    (0..31)
        .map(|bit| 1 << bit)
        .filter(|flag| disposition & flag != 0)
        // SAFETY: a pure look-up; the result is null or a constant.
        .map(|flag| unsafe { owned_text(ff::av_disposition_to_string(flag)) })
        .filter(|name| !name.is_empty())
        .collect()
}

/// # Safety
/// The stream is live, and the bytes are not used after it.
unsafe fn side_data<'a>(stream: *const ff::AVStream, kind: ff::AVPacketSideDataType) -> Option<&'a [u8]> {
    let mut size = 0;
    // SAFETY: the caller vouches for the stream; the size is written by the call.
    let data = unsafe { ff::av_stream_get_side_data(stream, kind, &mut size) };
    // SAFETY: side data is a buffer of the size that the call told, owned by the stream.
    (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data, size) })
}

fn display_matrix(data: &[u8]) -> Option<[i32; 4]> {
    let word = |index: usize| native_word(data, index);
    word(8)?;
    Some([word(0)?, word(1)?, word(3)?, word(4)?])
}
