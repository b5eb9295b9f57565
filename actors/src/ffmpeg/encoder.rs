//! One open video encoder: pictures in, packets out.
//!
//! Time is counted in frames here: a picture's timestamp is its position in the segment. What the encoder writes then
//! depends on the pictures alone, whatever their true times, and the caller puts those back by position.

use std::ffi::c_int;
use std::ptr::NonNull;

use ffmpeg_sys_next as ff;
use restyle_models::pixels::{Layout, Picture};

use super::pixfmt::PixFmt;
use super::{AvError, Options, c_text, fill, log};
use crate::encode::EncoderSettings;
use crate::encode::codec::VideoCodec;
use crate::{ActorError, Result};

/// One coded frame as the encoder gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodedFrame {
    /// Position of its frame in the segment.
    pub frame: u64,
    /// Whether decoding can start here.
    pub key: bool,
    /// The coded bytes.
    pub data: Vec<u8>,
}

/// What an open encoder says of its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamHeader {
    /// Codec headers.
    pub extradata: Vec<u8>,
    /// The encoder's name of its variant of the codec; 0 where none.
    pub codec_tag: u32,
    /// Codec profile.
    pub profile: i32,
    /// Codec level.
    pub level: i32,
    /// Frames that may be reordered past a frame.
    pub reorder_frames: u32,
}

/// An open encoder. Built, used and dropped on one thread.
#[derive(Debug)]
pub struct VideoEncoder {
    context: NonNull<ff::AVCodecContext>,
    frame: NonNull<ff::AVFrame>,
    packet: NonNull<ff::AVPacket>,
    settings: EncoderSettings,
    sent: u64,
    /// Codec headers that came with the first packet, from encoders that know them no sooner.
    late_headers: Vec<u8>,
}

impl VideoEncoder {
    /// Opens an encoder.
    ///
    /// # Errors
    /// `Config` where this FFmpeg has no such encoder, `Codec` where it refuses the settings.
    pub fn open(settings: &EncoderSettings) -> Result<Self> {
        log::capture();
        let format = frame_format(settings)
            .and_then(PixFmt::as_av)
            .ok_or_else(|| ActorError::Config(format!("this FFmpeg has no pixel format {}", settings.pix_fmt)))?;
        let name = settings.codec.encoder();
        let name_c = c_text(name);
        // SAFETY: the name is a terminated string; the result is null or a static codec.
        let codec = unsafe { ff::avcodec_find_encoder_by_name(name_c.as_ptr()) };
        if codec.is_null() {
            return Err(ActorError::Config(format!(
                "this FFmpeg has no encoder {name}; install one that has, or choose another --codec"
            )));
        }
        let encoder = Self::allocate(codec, settings).map_err(|error| refused(settings, error))?;
        // SAFETY: the context is ours and not open yet; plain fields are set before opening.
        unsafe { encoder.set_up(format) };
        let mut options = Options::new();
        for (key, value) in &settings.options {
            options.set(key, value);
        }
        let _ = log::take_last_error();
        // SAFETY: context and codec are live and belong together; the call takes the options that it knows.
        let code = unsafe { ff::avcodec_open2(encoder.context.as_ptr(), codec, options.as_mut_ptr()) };
        AvError::check(code).map_err(|error| refused(settings, error))?;
        // SAFETY: the dictionary is the one passed above, live or null.
        let left = unsafe { super::owned_tags(*options.as_mut_ptr()) };
        if let Some(option) = left.keys().next() {
            return Err(ActorError::Config(format!("encoder {name} of this FFmpeg does not know the option {option}")));
        }
        Ok(encoder)
    }

    fn allocate(codec: *const ff::AVCodec, settings: &EncoderSettings) -> Result<Self, AvError> {
        // SAFETY: plain allocations; each is checked, and what was made is freed where a later one fails.
        unsafe {
            let context = NonNull::new(ff::avcodec_alloc_context3(codec));
            let frame = NonNull::new(ff::av_frame_alloc());
            let packet = NonNull::new(ff::av_packet_alloc());
            if let (Some(context), Some(frame), Some(packet)) = (context, frame, packet) {
                return Ok(Self {
                    context,
                    frame,
                    packet,
                    settings: settings.clone(),
                    sent: 0,
                    late_headers: Vec::new(),
                });
            }
            let raw = |p: Option<NonNull<_>>| p.map_or(std::ptr::null_mut(), NonNull::as_ptr);
            ff::avcodec_free_context(&mut raw(context));
            ff::av_frame_free(&mut frame.map_or(std::ptr::null_mut(), NonNull::as_ptr));
            ff::av_packet_free(&mut packet.map_or(std::ptr::null_mut(), NonNull::as_ptr));
        }
        Err(AvError::NO_MEMORY)
    }

    /// Sets what every encoder needs to know.
    ///
    /// # Safety
    /// The context is not open yet.
    unsafe fn set_up(&self, format: ff::AVPixelFormat) {
        let (settings, context) = (&self.settings, self.context.as_ptr());
        let rate = settings.frame_rate;
        // SAFETY: the context is live and exclusively ours; colour codes are checked before they become enums.
        unsafe {
            (*context).width = settings.width as c_int;
            (*context).height = settings.height as c_int;
            (*context).pix_fmt = format;
            (*context).time_base = ff::AVRational { num: rate.den, den: rate.num };
            (*context).framerate = ff::AVRational { num: rate.num, den: rate.den };
            if let Some(sar) = settings.sample_aspect_ratio {
                (*context).sample_aspect_ratio = ff::AVRational { num: sar.num, den: sar.den };
            }
            let colour = colour_enums(settings);
            (*context).color_primaries = colour.primaries;
            (*context).color_trc = colour.transfer;
            (*context).colorspace = colour.matrix;
            (*context).color_range = colour.range;
            (*context).chroma_sample_location = colour.location;
            (*context).gop_size = settings.gop_frames as c_int;
            (*context).thread_count = settings.threads as c_int;
            (*context).flags |= (ff::AV_CODEC_FLAG_GLOBAL_HEADER | ff::AV_CODEC_FLAG_BITEXACT) as c_int;
            if !settings.codec.is_intermediate() {
                (*context).flags |= ff::AV_CODEC_FLAG_CLOSED_GOP as c_int;
            }
            // Full-range pictures under plain names, and formats that a standard does not mention.
            (*context).strict_std_compliance = ff::FF_COMPLIANCE_EXPERIMENTAL;
        }
    }

    /// Codes one more picture and appends the packets that are ready.
    ///
    /// # Errors
    /// `Codec` where the picture is not of the settings' size and format, or the encoder fails.
    pub fn push(&mut self, picture: &Picture, packets: &mut Vec<CodedFrame>) -> Result<()> {
        let settings = &self.settings;
        if (picture.width, picture.height, picture.format) != (settings.width, settings.height, settings.format) {
            return Err(ActorError::Codec(format!(
                "frame {} of the segment is {}x{} {:?}, the encoder was set up for {}x{} {:?}",
                self.sent,
                picture.width,
                picture.height,
                picture.format,
                settings.width,
                settings.height,
                settings.format
            )));
        }
        self.fill(picture).map_err(|error| self.failed(error))?;
        // SAFETY: context and frame are live; the encoder takes its own reference of the frame.
        let code = unsafe { ff::avcodec_send_frame(self.context.as_ptr(), self.frame.as_ptr()) };
        AvError::check(code).map_err(|error| self.failed(error))?;
        self.sent += 1;
        self.receive(packets)
    }

    /// Ends the stream and appends what is left.
    ///
    /// # Errors
    /// `Codec` where the encoder fails.
    pub fn finish(&mut self, packets: &mut Vec<CodedFrame>) -> Result<()> {
        // SAFETY: the context is live; a null frame asks for the rest.
        let code = unsafe { ff::avcodec_send_frame(self.context.as_ptr(), std::ptr::null()) };
        AvError::check(code).map_err(|error| self.failed(error))?;
        self.receive(packets)
    }

    /// Returns what the stream's header says; complete once the stream has ended.
    #[must_use]
    pub fn header(&self) -> StreamHeader {
        // SAFETY: the context is live; extradata is null or has the stated size.
        unsafe {
            let context = self.context.as_ref();
            let size = usize::try_from(context.extradata_size).unwrap_or(0);
            let extradata = if context.extradata.is_null() || size == 0 {
                self.late_headers.clone()
            } else {
                std::slice::from_raw_parts(context.extradata, size).to_vec()
            };
            StreamHeader {
                extradata,
                codec_tag: context.codec_tag,
                profile: context.profile,
                level: context.level,
                reorder_frames: u32::try_from(context.has_b_frames)
                    .unwrap_or(0)
                    .max(self.settings.codec.reorder_frames_min()),
            }
        }
    }

    fn receive(&mut self, packets: &mut Vec<CodedFrame>) -> Result<()> {
        loop {
            // SAFETY: context and packet are live; the call unreferences what the packet held.
            let code = unsafe { ff::avcodec_receive_packet(self.context.as_ptr(), self.packet.as_ptr()) };
            match AvError::check(code) {
                Ok(_) => {}
                Err(AvError::AGAIN | AvError::EOF) => return Ok(()),
                Err(error) => return Err(self.failed(error)),
            }
            // SAFETY: the packet was just filled: its data and side data have the stated sizes.
            let packet = unsafe {
                let packet = self.packet.as_ref();
                let (mut size, kind) = (0, ff::AVPacketSideDataType::AV_PKT_DATA_NEW_EXTRADATA);
                let headers = ff::av_packet_get_side_data(packet, kind, &mut size);
                if !headers.is_null() && self.late_headers.is_empty() {
                    self.late_headers = std::slice::from_raw_parts(headers, size).to_vec();
                }
                CodedFrame {
                    frame: u64::try_from(packet.pts).unwrap_or(u64::MAX),
                    key: packet.flags & ff::AV_PKT_FLAG_KEY != 0,
                    data: std::slice::from_raw_parts(packet.data, packet.size as usize).to_vec(),
                }
            };
            packets.push(packet);
        }
    }

    /// Copies a picture into the frame, whose planes are ours alone after the call.
    fn fill(&mut self, picture: &Picture) -> Result<(), AvError> {
        let frame = self.frame.as_ptr();
        // SAFETY: frame and context are live; the frame either has no buffer yet or one of the same size and format.
        unsafe {
            if (*frame).buf[0].is_null() {
                (*frame).format = (*self.context.as_ptr()).pix_fmt as c_int;
                (*frame).width = self.settings.width as c_int;
                (*frame).height = self.settings.height as c_int;
                AvError::check(ff::av_frame_get_buffer(frame, 0))?;
            } else {
                AvError::check(ff::av_frame_make_writable(frame))?;
            }
            (*frame).pts = self.sent as i64;
            (*frame).sample_aspect_ratio = (*self.context.as_ptr()).sample_aspect_ratio;
            let colour = colour_enums(&self.settings);
            (*frame).color_primaries = colour.primaries;
            (*frame).color_trc = colour.transfer;
            (*frame).colorspace = colour.matrix;
            (*frame).color_range = colour.range;
            (*frame).chroma_location = colour.location;
        }
        // SAFETY: the frame was just made writable, with the settings' size and a format of `frame_format`.
        unsafe { fill::fill(frame, picture) };
        Ok(())
    }

    fn failed(&self, error: AvError) -> ActorError {
        let detail = log::take_last_error().map_or_else(String::new, |line| format!(" ({line})"));
        ActorError::Codec(format!(
            "encoder {} failed after {} frames: {error}{detail}",
            self.settings.codec.encoder(),
            self.sent
        ))
    }
}

impl Drop for VideoEncoder {
    fn drop(&mut self) {
        // SAFETY: all three are ours and freed once.
        unsafe {
            ff::avcodec_free_context(&mut self.context.as_ptr());
            ff::av_frame_free(&mut self.frame.as_ptr());
            ff::av_packet_free(&mut self.packet.as_ptr());
        }
    }
}

/// Whether the encoder takes the settings' RGB only interleaved: FFV1 has no planar RGB of 8 bits.
fn is_packed_rgb(settings: &EncoderSettings) -> bool {
    settings.codec == VideoCodec::Ffv1 && settings.format.layout == Layout::Rgb && settings.format.bits == 8
}

/// Returns the format of the frames that the encoder gets. A card's encoder takes 10 bits with both chroma planes interleaved.
pub(super) fn frame_format(settings: &EncoderSettings) -> Option<PixFmt> {
    if is_packed_rgb(settings) {
        PixFmt::by_name("bgr0")
    } else if settings.codec.is_on_card() && settings.format.bits == 10 {
        PixFmt::by_name("p010le")
    } else {
        PixFmt::of(settings.format)
    }
}

/// Colour codes as FFmpeg's enums; codes that the headers do not name become "unspecified".
#[derive(Debug, Clone, Copy)]
pub(crate) struct ColourEnums {
    pub(crate) primaries: ff::AVColorPrimaries,
    pub(crate) transfer: ff::AVColorTransferCharacteristic,
    pub(crate) matrix: ff::AVColorSpace,
    pub(crate) range: ff::AVColorRange,
    pub(crate) location: ff::AVChromaLocation,
}

pub(crate) fn colour_enums(settings: &EncoderSettings) -> ColourEnums {
    use ff::AVColorTransferCharacteristic as Trc;
    use ff::{AVChromaLocation as Loc, AVColorPrimaries as Pri, AVColorRange as Range, AVColorSpace as Spc};
    let codes = settings.colour;
    let primaries = [
        Pri::AVCOL_PRI_BT709,
        Pri::AVCOL_PRI_BT470M,
        Pri::AVCOL_PRI_BT470BG,
        Pri::AVCOL_PRI_SMPTE170M,
        Pri::AVCOL_PRI_SMPTE240M,
        Pri::AVCOL_PRI_FILM,
        Pri::AVCOL_PRI_BT2020,
        Pri::AVCOL_PRI_SMPTE428,
        Pri::AVCOL_PRI_SMPTE431,
        Pri::AVCOL_PRI_SMPTE432,
    ];
    let transfers = [
        Trc::AVCOL_TRC_BT709,
        Trc::AVCOL_TRC_GAMMA22,
        Trc::AVCOL_TRC_GAMMA28,
        Trc::AVCOL_TRC_SMPTE170M,
        Trc::AVCOL_TRC_SMPTE240M,
        Trc::AVCOL_TRC_LINEAR,
        Trc::AVCOL_TRC_LOG,
        Trc::AVCOL_TRC_LOG_SQRT,
        Trc::AVCOL_TRC_IEC61966_2_4,
        Trc::AVCOL_TRC_BT1361_ECG,
        Trc::AVCOL_TRC_IEC61966_2_1,
        Trc::AVCOL_TRC_BT2020_10,
        Trc::AVCOL_TRC_BT2020_12,
        Trc::AVCOL_TRC_SMPTE2084,
        Trc::AVCOL_TRC_SMPTE428,
        Trc::AVCOL_TRC_ARIB_STD_B67,
    ];
    let matrices = [
        Spc::AVCOL_SPC_RGB,
        Spc::AVCOL_SPC_BT709,
        Spc::AVCOL_SPC_FCC,
        Spc::AVCOL_SPC_BT470BG,
        Spc::AVCOL_SPC_SMPTE170M,
        Spc::AVCOL_SPC_SMPTE240M,
        Spc::AVCOL_SPC_YCGCO,
        Spc::AVCOL_SPC_BT2020_NCL,
        Spc::AVCOL_SPC_BT2020_CL,
        Spc::AVCOL_SPC_SMPTE2085,
        Spc::AVCOL_SPC_CHROMA_DERIVED_NCL,
        Spc::AVCOL_SPC_CHROMA_DERIVED_CL,
        Spc::AVCOL_SPC_ICTCP,
    ];
    let locations = [
        Loc::AVCHROMA_LOC_LEFT,
        Loc::AVCHROMA_LOC_CENTER,
        Loc::AVCHROMA_LOC_TOPLEFT,
        Loc::AVCHROMA_LOC_TOP,
        Loc::AVCHROMA_LOC_BOTTOMLEFT,
        Loc::AVCHROMA_LOC_BOTTOM,
    ];
    let ranges = [Range::AVCOL_RANGE_MPEG, Range::AVCOL_RANGE_JPEG];
    ColourEnums {
        primaries: primaries.into_iter().find(|v| *v as i32 == codes.primaries).unwrap_or(Pri::AVCOL_PRI_UNSPECIFIED),
        transfer: transfers.into_iter().find(|v| *v as i32 == codes.transfer).unwrap_or(Trc::AVCOL_TRC_UNSPECIFIED),
        matrix: matrices.into_iter().find(|v| *v as i32 == codes.matrix).unwrap_or(Spc::AVCOL_SPC_UNSPECIFIED),
        range: ranges.into_iter().find(|v| *v as i32 == codes.range).unwrap_or(Range::AVCOL_RANGE_UNSPECIFIED),
        location: locations
            .into_iter()
            .find(|v| *v as i32 == codes.chroma_location)
            .unwrap_or(Loc::AVCHROMA_LOC_UNSPECIFIED),
    }
}

fn refused(settings: &EncoderSettings, error: AvError) -> ActorError {
    let detail = log::take_last_error().map_or_else(String::new, |line| format!(" ({line})"));
    ActorError::Codec(format!(
        "encoder {} refuses {}x{} {}: {error}{detail}",
        settings.codec.encoder(),
        settings.width,
        settings.height,
        settings.pix_fmt
    ))
}
