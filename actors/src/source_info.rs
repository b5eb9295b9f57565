//! What a source holds, as data: the answer of the probe and a part of every plan.
//!
//! These types only describe. Numbers that FFmpeg defines (colour codes, field orders) keep FFmpeg's values, which are
//! those of ISO/IEC 23091-2 where that standard has them, and carry their name along for people.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use restyle_models::pixels::PixelFormat;
use serde::{Deserialize, Serialize};

use crate::storage::SourceIdentity;

/// A fraction; written `num/den` in JSON. A zero denominator means "unknown".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Rational {
    /// Numerator.
    pub num: i32,
    /// Denominator.
    pub den: i32,
}

impl Rational {
    /// Builds `num/den` as it is, unreduced.
    #[must_use]
    pub const fn new(num: i32, den: i32) -> Self {
        Self { num, den }
    }

    /// Returns whether both parts are positive.
    #[must_use]
    pub const fn is_positive(self) -> bool {
        self.num > 0 && self.den > 0
    }

    /// Returns the value as a float; 0 where the denominator is 0.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        if self.den == 0 { 0.0 } else { f64::from(self.num) / f64::from(self.den) }
    }

    /// Returns `den/num`.
    #[must_use]
    pub const fn inverted(self) -> Self {
        Self { num: self.den, den: self.num }
    }
}

impl fmt::Display for Rational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.num, self.den)
    }
}

impl From<Rational> for String {
    fn from(value: Rational) -> Self {
        value.to_string()
    }
}

impl FromStr for Rational {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('/').and_then(|(n, d)| Some((n.parse().ok()?, d.parse().ok()?)));
        let (num, den) = parts.ok_or_else(|| format!("expected a fraction like 1/25, got {text:?}"))?;
        Ok(Self { num, den })
    }
}

impl TryFrom<String> for Rational {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// What a source holds: container, tracks, and the one video stream that will be styled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// Which object this is; later reads insist on it.
    pub identity: SourceIdentity,
    /// FFmpeg's name of the container, possibly a list of names ("mov,mp4,m4a,3gp,3g2,mj2").
    pub container: String,
    /// The container's name for people.
    pub container_title: String,
    /// First timestamp of the whole file in microseconds.
    pub start_micros: Option<i64>,
    /// Length of the whole file in microseconds, as the container claims or FFmpeg estimates.
    pub duration_micros: Option<i64>,
    /// Bits per second of the whole file.
    pub bit_rate: Option<i64>,
    /// Tags of the file.
    pub tags: BTreeMap<String, String>,
    /// Chapters in file order.
    pub chapters: Vec<ChapterInfo>,
    /// Every track, in stream order.
    pub streams: Vec<StreamInfo>,
    /// The video stream that will be styled: the first that is not an attached picture.
    pub video: VideoInfo,
    /// What will not come through or had to be guessed, one line each.
    pub warnings: Vec<String>,
}

/// One chapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChapterInfo {
    /// The container's id of it.
    pub id: i64,
    /// Unit of start and end in seconds.
    pub time_base: Rational,
    /// First tick.
    pub start: i64,
    /// One past the last tick.
    pub end: i64,
    /// Tags, mostly a title.
    pub tags: BTreeMap<String, String>,
}

/// What a track carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamKind {
    /// Moving pictures, or an attached one.
    Video,
    /// Sound.
    Audio,
    /// Text or pictures over the video.
    Subtitle,
    /// Timed data.
    Data,
    /// A file, such as a font.
    Attachment,
    /// Anything else.
    Unknown,
}

/// One track of the source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamInfo {
    /// Position in the file, from 0.
    pub index: usize,
    /// The container's id of it (a PID or track number).
    pub id: i32,
    /// What it carries.
    pub kind: StreamKind,
    /// FFmpeg's codec name; "unknown" where it has none.
    pub codec: String,
    /// The four-character code as the file has it; empty where none.
    pub codec_tag: String,
    /// Codec profile's name, where known.
    pub profile: Option<String>,
    /// Unit of timestamps in seconds.
    pub time_base: Rational,
    /// First timestamp in ticks.
    pub start_pts: Option<i64>,
    /// Length in ticks.
    pub duration: Option<i64>,
    /// Packets or frames that the container claims.
    pub frames: Option<i64>,
    /// Bits per second.
    pub bit_rate: Option<i64>,
    /// Names of the disposition flags that are set ("default", "attached_pic").
    pub disposition: Vec<String>,
    /// Tags, among them "language".
    pub tags: BTreeMap<String, String>,
    /// Whether this is a cover picture rather than a film.
    pub attached_picture: bool,
    /// Width in pixels, for video.
    pub width: Option<u32>,
    /// Height in pixels, for video.
    pub height: Option<u32>,
    /// Sound parameters, for audio.
    pub audio: Option<AudioInfo>,
}

/// Parameters of a sound track.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioInfo {
    /// Samples per second and channel.
    pub sample_rate: i32,
    /// Number of channels.
    pub channels: i32,
    /// Channel layout as FFmpeg writes it ("5.1").
    pub channel_layout: String,
}

/// A numeric code of ISO/IEC 23091-2 (as FFmpeg numbers it) with its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodePoint {
    /// The code; 2 (0 for range and chroma location) means unspecified.
    pub code: i32,
    /// FFmpeg's name of it; "unknown" where unspecified.
    pub name: String,
}

impl CodePoint {
    /// Names a code of colour primaries.
    #[must_use]
    pub fn primaries(code: i32) -> Self {
        Self::named(
            code,
            match code {
                1 => "bt709",
                2 => "unknown",
                4 => "bt470m",
                5 => "bt470bg",
                6 => "smpte170m",
                7 => "smpte240m",
                8 => "film",
                9 => "bt2020",
                10 => "smpte428",
                11 => "smpte431",
                12 => "smpte432",
                22 => "ebu3213",
                _ => "reserved",
            },
        )
    }

    /// Names a code of a transfer characteristic.
    #[must_use]
    pub fn transfer(code: i32) -> Self {
        Self::named(
            code,
            match code {
                1 => "bt709",
                2 => "unknown",
                4 => "bt470m",
                5 => "bt470bg",
                6 => "smpte170m",
                7 => "smpte240m",
                8 => "linear",
                9 => "log100",
                10 => "log316",
                11 => "iec61966-2-4",
                12 => "bt1361e",
                13 => "iec61966-2-1",
                14 => "bt2020-10",
                15 => "bt2020-12",
                16 => "smpte2084",
                17 => "smpte428",
                18 => "arib-std-b67",
                _ => "reserved",
            },
        )
    }

    /// Names a code of a matrix.
    #[must_use]
    pub fn matrix(code: i32) -> Self {
        Self::named(
            code,
            match code {
                0 => "gbr",
                1 => "bt709",
                2 => "unknown",
                4 => "fcc",
                5 => "bt470bg",
                6 => "smpte170m",
                7 => "smpte240m",
                8 => "ycgco",
                9 => "bt2020nc",
                10 => "bt2020c",
                11 => "smpte2085",
                12 => "chroma-derived-nc",
                13 => "chroma-derived-c",
                14 => "ictcp",
                _ => "reserved",
            },
        )
    }

    /// Names a code of a range.
    #[must_use]
    pub fn range(code: i32) -> Self {
        Self::named(code, ["unknown", "tv", "pc"].get(code as usize).copied().unwrap_or("reserved"))
    }

    /// Names a code of a chroma location.
    #[must_use]
    pub fn chroma_location(code: i32) -> Self {
        let names = ["unspecified", "left", "center", "topleft", "top", "bottomleft", "bottom"];
        Self::named(code, names.get(code as usize).copied().unwrap_or("reserved"))
    }

    fn named(code: i32, name: &str) -> Self {
        Self { code, name: name.to_owned() }
    }
}

/// Colour tags exactly as the source has them, unspecified ones included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColourTags {
    /// Primaries (`AVCOL_PRI_*`).
    pub primaries: CodePoint,
    /// Transfer characteristic (`AVCOL_TRC_*`).
    pub transfer: CodePoint,
    /// Matrix (`AVCOL_SPC_*`).
    pub matrix: CodePoint,
    /// Range (`AVCOL_RANGE_*`).
    pub range: CodePoint,
    /// Where chroma samples sit (`AVCHROMA_LOC_*`).
    pub chroma_location: CodePoint,
}

/// SMPTE ST 2086 mastering display colour volume, as exact fractions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasteringDisplay {
    /// CIE 1931 xy of red, green and blue, where given.
    pub primaries: Option<[[Rational; 2]; 3]>,
    /// CIE 1931 xy of white, where given.
    pub white_point: Option<[Rational; 2]>,
    /// Minimum and maximum luminance in cd/m², where given.
    pub luminance: Option<[Rational; 2]>,
}

/// CTA-861.3 content light level in cd/m².
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentLight {
    /// Brightest pixel of the film.
    pub max_cll: u32,
    /// Brightest frame average of the film.
    pub max_fall: u32,
}

/// High dynamic range metadata that holds for the whole stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HdrInfo {
    /// The display it was mastered on.
    pub mastering: Option<MasteringDisplay>,
    /// Light levels.
    pub content_light: Option<ContentLight>,
}

/// How decoded pixels have to be turned to stand upright: first quarter turns clockwise, then a horizontal flip.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Orientation {
    /// Quarter turns clockwise, 0 to 3.
    pub quarter_turns: u8,
    /// Whether left and right change places after turning.
    pub flip: bool,
}

impl Orientation {
    /// Returns whether width and height change places.
    #[must_use]
    pub const fn swaps_sides(self) -> bool {
        self.quarter_turns % 2 == 1
    }

    /// Returns whether nothing has to be done.
    #[must_use]
    pub const fn is_upright(self) -> bool {
        self.quarter_turns == 0 && !self.flip
    }
}

/// The video stream that will be styled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VideoInfo {
    /// Which of the streams it is.
    pub index: usize,
    /// FFmpeg's codec name.
    pub codec: String,
    /// Codec profile's name, where known.
    pub profile: Option<String>,
    /// Width of the decoded picture before rotation, in pixels.
    pub width: u32,
    /// Height of the decoded picture before rotation, in pixels.
    pub height: u32,
    /// Sample aspect ratio before rotation; `None` where the source does not say.
    pub sample_aspect_ratio: Option<Rational>,
    /// What rotation the pixels will get.
    pub orientation: Orientation,
    /// FFmpeg's name of the decoder's pixel format.
    pub pix_fmt: String,
    /// The canonical planar format that frames are delivered in.
    pub format: PixelFormat,
    /// Unit of timestamps in seconds.
    pub time_base: Rational,
    /// Timestamp of the first frame that is delivered, in ticks.
    pub start_pts: i64,
    /// Length in ticks, as the container claims.
    pub duration: Option<i64>,
    /// Average frame rate; 0/0 where unknown.
    pub average_frame_rate: Rational,
    /// Lowest rate that can represent all timestamps; a guess, 0/0 where unknown.
    pub real_frame_rate: Rational,
    /// About how many frames there are; packets are not frames, so this is never exact.
    pub frames_about: Option<u64>,
    /// "progressive", "tt", "bb", "tb", "bt" or "unknown", as the stream says.
    pub field_order: String,
    /// Whether interlaced frames are to be expected; they are deinterlaced one in, one out.
    pub interlaced: bool,
    /// Colour tags as they are.
    pub colour: ColourTags,
    /// HDR metadata that is carried over.
    pub hdr: HdrInfo,
    /// Whether there is Dolby Vision metadata (dropped with a warning).
    pub dolby_vision: bool,
    /// Whether there is alpha (dropped with a warning).
    pub alpha: bool,
}

impl VideoInfo {
    /// Returns width and height of delivered pictures, rotation applied.
    #[must_use]
    pub const fn upright_size(&self) -> (u32, u32) {
        if self.orientation.swaps_sides() { (self.height, self.width) } else { (self.width, self.height) }
    }

    /// Returns the sample aspect ratio of delivered pictures, turned with them.
    #[must_use]
    pub fn upright_aspect_ratio(&self) -> Option<Rational> {
        self.sample_aspect_ratio.map(|sar| if self.orientation.swaps_sides() { sar.inverted() } else { sar })
    }
}
