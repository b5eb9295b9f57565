//! From what the source is and what the user asked for to the one set of encoder settings of a job.

use restyle_models::pixels::{ChromaSite, ColorMatrix, ColorRange, Layout, PixelFormat};
use serde::{Deserialize, Serialize};

use super::codec::VideoCodec;
use super::container::Container;
use super::{options, pix_fmt};
use crate::source_info::{ColourTags, HdrInfo, Rational, SourceInfo, VideoInfo};
use crate::{ActorError, Result};

/// What the user said about the output's coding; everything left out is chosen from the source.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EncodeRequest {
    /// The output's file extension, which decides the container.
    pub container: String,
    /// Codec's name.
    pub codec: Option<String>,
    /// Constant quality, lower is better; its range depends on the codec.
    pub crf: Option<f32>,
    /// Speed against size: `ultrafast` to `placebo`.
    pub preset: Option<String>,
    /// FFmpeg's name of a planar pixel format.
    pub pix_fmt: Option<String>,
    /// Whether whatever of the source cannot be kept is an error rather than a warning.
    pub strict: bool,
}

/// Colour codes as written, in FFmpeg's numbers, which are those of ISO/IEC 23091-2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColourCodes {
    /// Primaries, 2 is unspecified.
    pub primaries: i32,
    /// Transfer characteristic, 2 is unspecified.
    pub transfer: i32,
    /// Matrix, 2 is unspecified.
    pub matrix: i32,
    /// 0 unspecified, 1 limited, 2 full.
    pub range: i32,
    /// Place of chroma samples, 0 is unspecified.
    pub chroma_location: i32,
}

/// Everything that decides an encoder's bytes beside the pictures; part of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncoderSettings {
    /// Container of the output.
    pub container: Container,
    /// Codec of the output.
    pub codec: VideoCodec,
    /// Width of every picture.
    pub width: u32,
    /// Height of every picture.
    pub height: u32,
    /// Format that every picture pushed must have.
    pub format: PixelFormat,
    /// FFmpeg's name of that format.
    pub pix_fmt: String,
    /// Unit of every timestamp: the source video stream's.
    pub time_base: Rational,
    /// Nominal rate that rate control and level go by; timestamps do not follow it.
    pub frame_rate: Rational,
    /// Sample aspect ratio, where the source has one.
    pub sample_aspect_ratio: Option<Rational>,
    /// Colour tags.
    pub colour: ColourCodes,
    /// HDR metadata.
    pub hdr: HdrInfo,
    /// Threads of one encoder; pinned, since bytes may depend on it.
    pub threads: u32,
    /// Longest distance of keyframes inside a segment.
    pub gop_frames: u32,
    /// Options for the encoder by name.
    pub options: Vec<(String, String)>,
    /// Whether whatever of the source cannot be kept is an error rather than a warning.
    pub strict: bool,
}

impl EncoderSettings {
    /// Chooses settings for a source and a request; the second part says how the output will differ from the source.
    ///
    /// # Errors
    /// `Usage` where the request names what is not known, what the container does not hold or the codec does not
    /// take, or, in strict mode, where the source's chroma format, depth or range cannot be kept.
    pub fn choose(source: &SourceInfo, request: &EncodeRequest) -> Result<(Self, Vec<String>)> {
        let video = &source.video;
        let (width, height) = video.upright_size();
        let container = Container::of_extension(&request.container)?;
        let asked = request.pix_fmt.as_deref().map(pix_fmt::parse).transpose()?;
        let wanted = asked.unwrap_or((video.format.layout, video.format.bits));
        let codec = match request.codec.as_deref() {
            Some(name) => VideoCodec::parse(name)?,
            None => VideoCodec::default_for(container, wanted.0, wanted.1, width, height),
        };
        refuse_unheld(container, codec)?;
        let size = (width, height);
        let (layout, bits) = match asked {
            Some(asked) => exact(codec, asked, size)?,
            None => nearest(codec, wanted, size)?,
        };
        let format = picture_format(video, codec, layout, bits);
        let mut warnings = Vec::new();
        if asked.is_none() {
            warnings.extend(deviation(codec, container, wanted, (layout, bits), size));
        }
        if format.range != video.format.range && layout != Layout::Rgb && video.format.layout != Layout::Rgb {
            warnings.push(format!("{codec} is written in full range, the source has limited range"));
        }
        if let Some(first) = warnings.first().filter(|_| request.strict) {
            return Err(ActorError::Usage(format!(
                "{first}; strict mode refuses this: name --pix-fmt or another --codec"
            )));
        }
        let settings = Self {
            container,
            codec,
            width,
            height,
            format,
            pix_fmt: pix_fmt::name(layout, bits),
            time_base: video.time_base,
            frame_rate: nominal_rate(video),
            sample_aspect_ratio: video.upright_aspect_ratio().filter(|sar| sar.is_positive()),
            colour: colour_codes(&video.colour, &format),
            hdr: video.hdr.clone(),
            threads: 1,
            gop_frames: options::GOP_FRAMES,
            options: options::choose(
                codec,
                request,
                &video.hdr,
                layout == Layout::Yuv444,
                says_limited(&video.colour),
            )?,
            strict: request.strict,
        };
        Ok((settings, warnings))
    }
}

fn refuse_unheld(container: Container, codec: VideoCodec) -> Result<()> {
    if container.holds(codec) {
        return Ok(());
    }
    let others: Vec<_> = VideoCodec::ALL.into_iter().filter(|c| container.holds(*c)).map(VideoCodec::name).collect();
    Err(ActorError::Usage(format!(
        "{container} does not hold {codec}; use {} in {container}, or an output ending in {}",
        others.join(", "),
        Container::holding(codec)
    )))
}

fn exact(codec: VideoCodec, (layout, bits): (Layout, u8), (width, height): (u32, u32)) -> Result<(Layout, u8)> {
    let name = pix_fmt::name(layout, bits);
    if !codec.depths(layout).contains(&bits) {
        return Err(ActorError::Usage(format!("{codec} does not take {name}; it takes {}", taken_names(codec))));
    }
    if !codec.takes_size(layout, width, height) {
        return Err(ActorError::Usage(format!(
            "{codec} has no {name} for the odd size {width}x{height}; use yuv444p, or vp9 or av1"
        )));
    }
    refuse_small(codec, width, height)?;
    Ok((layout, bits))
}

fn refuse_small(codec: VideoCodec, width: u32, height: u32) -> Result<()> {
    let least = codec.side_min();
    if width >= least && height >= least {
        return Ok(());
    }
    Err(ActorError::Usage(format!(
        "{codec} takes no picture under {least}x{least}, this one is {width}x{height}; use h264, vp9 or ffv1"
    )))
}

fn taken_names(codec: VideoCodec) -> String {
    let layouts = [Layout::Yuv420, Layout::Yuv422, Layout::Yuv444, Layout::Yuv440, Layout::Gray, Layout::Rgb];
    let names = layouts
        .into_iter()
        .flat_map(|layout| codec.depths(layout).iter().map(move |bits| pix_fmt::name(layout, *bits)));
    names.collect::<Vec<_>>().join(", ")
}

/// Chooses what the codec takes that is closest to the source: chroma resolution first, then depth, both rather up.
fn nearest(codec: VideoCodec, (layout, bits): (Layout, u8), (width, height): (u32, u32)) -> Result<(Layout, u8)> {
    use Layout as L;
    refuse_small(codec, width, height)?;
    let order: &[Layout] = match layout {
        L::Gray => &[L::Gray, L::Yuv420, L::Yuv422, L::Yuv444],
        L::Yuv420 => &[L::Yuv420, L::Yuv422, L::Yuv444],
        L::Yuv422 => &[L::Yuv422, L::Yuv444, L::Yuv420],
        L::Yuv444 => &[L::Yuv444, L::Yuv422, L::Yuv420],
        L::Yuv440 => &[L::Yuv440, L::Yuv444, L::Yuv422, L::Yuv420],
        L::Yuv411 => &[L::Yuv411, L::Yuv422, L::Yuv444, L::Yuv420],
        L::Yuv410 => &[L::Yuv410, L::Yuv420, L::Yuv422, L::Yuv444],
        L::Rgb => &[L::Rgb, L::Yuv444, L::Yuv422, L::Yuv420],
    };
    order
        .iter()
        .filter(|candidate| codec.takes_size(**candidate, width, height))
        .find_map(|candidate| {
            let depths = codec.depths(*candidate);
            let depth = depths.iter().find(|depth| **depth >= bits).or(depths.last())?;
            Some((*candidate, *depth))
        })
        .ok_or_else(|| {
            ActorError::Usage(format!("{codec} has no format for a {width}x{height} picture; use h264, vp9 or ffv1"))
        })
}

fn deviation(
    codec: VideoCodec,
    container: Container,
    wanted: (Layout, u8),
    chosen: (Layout, u8),
    (width, height): (u32, u32),
) -> Option<String> {
    if wanted == chosen {
        return None;
    }
    let (from, to) = (pix_fmt::describe(wanted.0, wanted.1), pix_fmt::describe(chosen.0, chosen.1));
    let why = if wanted.0 != chosen.0 && !codec.depths(wanted.0).is_empty() {
        format!("{codec} in {container} has none for the size {width}x{height}")
    } else {
        format!("{codec} has none")
    };
    Some(format!("the source is {from}, the output will be {to}: {why}"))
}

fn picture_format(video: &VideoInfo, codec: VideoCodec, layout: Layout, bits: u8) -> PixelFormat {
    let source = video.format;
    let mut format = PixelFormat { layout, bits, site: output_site(video), ..source };
    match (layout == Layout::Rgb, source.layout == Layout::Rgb) {
        (true, _) => {
            format.matrix = ColorMatrix::Rgb;
            format.range = ColorRange::Full;
        }
        (false, true) => {
            format.matrix = ColorMatrix::Bt709;
            format.range = ColorRange::Limited;
        }
        (false, false) => {}
    }
    if layout != Layout::Rgb && format.matrix == ColorMatrix::Rgb {
        format.matrix = ColorMatrix::Bt709;
    }
    if codec == VideoCodec::Mjpeg {
        format.range = ColorRange::Full;
    }
    format
}

/// The output's chroma lies where the source's tag says, even where turning the picture moved the samples: the scorer
/// makes chroma anew, and the tag is kept as it is.
fn output_site(video: &VideoInfo) -> ChromaSite {
    match video.colour.chroma_location.code {
        1 => ChromaSite::Left,
        2 => ChromaSite::Center,
        3 => ChromaSite::TopLeft,
        4 => ChromaSite::Top,
        5 => ChromaSite::BottomLeft,
        6 => ChromaSite::Bottom,
        _ if video.orientation.is_upright() => video.format.site,
        _ => ChromaSite::Left,
    }
}

fn colour_codes(tags: &ColourTags, format: &PixelFormat) -> ColourCodes {
    const MATRIX_RGB: i32 = 0;
    let rgb = format.layout == Layout::Rgb;
    let matrix = match (rgb, tags.matrix.code) {
        (true, _) => MATRIX_RGB,
        (false, MATRIX_RGB) if format.layout == Layout::Gray => 2,
        (false, MATRIX_RGB) => matrix_code(format.matrix),
        (false, code) => code,
    };
    let range = match (format.range, tags.range.code) {
        (ColorRange::Full, _) => 2,
        (ColorRange::Limited, 2) => 1,
        (ColorRange::Limited, code) => code,
    };
    ColourCodes {
        primaries: tags.primaries.code,
        transfer: tags.transfer.code,
        matrix,
        range,
        chroma_location: tags.chroma_location.code,
    }
}

const fn matrix_code(matrix: ColorMatrix) -> i32 {
    match matrix {
        ColorMatrix::Rgb => 0,
        ColorMatrix::Bt709 => 1,
        ColorMatrix::Fcc => 4,
        ColorMatrix::Bt601 => 6,
        ColorMatrix::Smpte240m => 7,
        ColorMatrix::YCgCo => 8,
        ColorMatrix::Bt2020Ncl => 9,
    }
}

/// A rate that encoders accept: the average, else the guessed one, else 25; between 1 and 480 a second.
fn nominal_rate(video: &VideoInfo) -> Rational {
    let sane = |rate: &Rational| rate.is_positive() && (1.0..=480.0).contains(&rate.as_f64());
    [video.average_frame_rate, video.real_frame_rate].into_iter().find(sane).unwrap_or(Rational::new(25, 1))
}

/// Whether the source says outright that its range is limited (`AVCOL_RANGE_MPEG`), so that the output has to say it as well.
fn says_limited(colour: &ColourTags) -> bool {
    colour.range.code == 1
}
