//! What the samples of a picture mean: layout, depth, range, matrix and chroma site.

use crate::ModelError;
use serde::{Deserialize, Serialize};

/// The largest width or height of a picture, in pixels.
pub const DIMENSION_MAX: u32 = 32_768;

/// Which planes a picture has and how the second and third are subsampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// One plane of luma.
    Gray,
    /// Chroma at half width and half height.
    Yuv420,
    /// Chroma at half width.
    Yuv422,
    /// Chroma at full size.
    Yuv444,
    /// Chroma at half height.
    Yuv440,
    /// Chroma at a quarter of the width.
    Yuv411,
    /// Chroma at a quarter of the width and of the height.
    Yuv410,
    /// Three full planes in the order red, green, blue.
    Rgb,
}

impl Layout {
    /// Returns the number of planes.
    pub fn planes(self) -> usize {
        if self == Self::Gray { 1 } else { 3 }
    }

    /// Returns how many luma samples lie to one chroma sample, across and down.
    pub fn chroma_factors(self) -> (u32, u32) {
        match self {
            Self::Gray | Self::Yuv444 | Self::Rgb => (1, 1),
            Self::Yuv420 => (2, 2),
            Self::Yuv422 => (2, 1),
            Self::Yuv440 => (1, 2),
            Self::Yuv411 => (4, 1),
            Self::Yuv410 => (4, 4),
        }
    }

    /// Tells whether the planes are luma and chroma.
    pub fn is_yuv(self) -> bool {
        !matches!(self, Self::Gray | Self::Rgb)
    }
}

/// Which codes stand for black and white.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColorRange {
    /// 16 to 235 for luma and RGB, 16 to 240 for chroma, at 8 bits.
    Limited,
    /// All codes.
    Full,
}

/// How luma and chroma are made from red, green and blue (ITU-T H.273, matrix coefficients).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColorMatrix {
    /// No matrix: the planes are red, green and blue.
    Rgb,
    /// BT.601, 525 and 625 lines.
    Bt601,
    /// BT.709.
    Bt709,
    /// BT.2020, non-constant luminance.
    Bt2020Ncl,
    /// SMPTE 240M.
    Smpte240m,
    /// FCC Title 47.
    Fcc,
    /// Luma, green difference, orange difference.
    YCgCo,
}

/// Where a subsampled chroma sample lies among its luma samples (ITU-T H.273, chroma sample location).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChromaSite {
    /// On the left column, between the rows: MPEG-2, H.264 default.
    Left,
    /// In the middle: JPEG, MPEG-1.
    Center,
    /// On the first luma sample: UHD.
    TopLeft,
    /// Between the columns, on the first row.
    Top,
    /// On the left column, on the last row.
    BottomLeft,
    /// Between the columns, on the last row.
    Bottom,
}

/// Where along one axis a chroma sample lies within its luma samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AxisSite {
    First,
    Middle,
    Last,
}

impl AxisSite {
    /// Returns the distance from the group's first luma sample, in luma samples.
    pub(crate) fn offset(self, factor: u32) -> f32 {
        match self {
            Self::First => 0.0,
            Self::Middle => (factor as f32 - 1.0) / 2.0,
            Self::Last => factor as f32 - 1.0,
        }
    }

    /// Returns the site seen from the other end.
    pub(crate) fn mirrored(self) -> Self {
        match self {
            Self::First => Self::Last,
            Self::Middle => Self::Middle,
            Self::Last => Self::First,
        }
    }
}

impl ChromaSite {
    /// Splits the site into its place across and its place down.
    pub(crate) fn axes(self) -> (AxisSite, AxisSite) {
        match self {
            Self::Left => (AxisSite::First, AxisSite::Middle),
            Self::Center => (AxisSite::Middle, AxisSite::Middle),
            Self::TopLeft => (AxisSite::First, AxisSite::First),
            Self::Top => (AxisSite::Middle, AxisSite::First),
            Self::BottomLeft => (AxisSite::First, AxisSite::Last),
            Self::Bottom => (AxisSite::Middle, AxisSite::Last),
        }
    }

    /// Joins two places into a site; none of the sites lies on the right column.
    pub(crate) fn from_axes(across: AxisSite, down: AxisSite) -> Option<Self> {
        match (across, down) {
            (AxisSite::First, AxisSite::Middle) => Some(Self::Left),
            (AxisSite::Middle, AxisSite::Middle) => Some(Self::Center),
            (AxisSite::First, AxisSite::First) => Some(Self::TopLeft),
            (AxisSite::Middle, AxisSite::First) => Some(Self::Top),
            (AxisSite::First, AxisSite::Last) => Some(Self::BottomLeft),
            (AxisSite::Middle, AxisSite::Last) => Some(Self::Bottom),
            (AxisSite::Last, _) => None,
        }
    }
}

/// The meaning of a picture's samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PixelFormat {
    /// Planes and subsampling.
    pub layout: Layout,
    /// Bits of each sample, 8 to 16; 8 is stored in bytes, more in the low bits of 16-bit words.
    pub bits: u8,
    /// Codes of black and white.
    pub range: ColorRange,
    /// Luma and chroma from RGB; `Rgb` exactly where the layout is `Rgb`, of no meaning for `Gray`.
    pub matrix: ColorMatrix,
    /// Place of the chroma samples; of no meaning where nothing is subsampled.
    pub site: ChromaSite,
}

impl PixelFormat {
    /// 8-bit RGB planes with all codes.
    pub const RGB8: Self = Self {
        layout: Layout::Rgb,
        bits: 8,
        range: ColorRange::Full,
        matrix: ColorMatrix::Rgb,
        site: ChromaSite::Center,
    };

    /// 8-bit 4:2:0, BT.709, limited range, as H.264 writes it by default.
    pub const YUV420P8: Self = Self {
        layout: Layout::Yuv420,
        bits: 8,
        range: ColorRange::Limited,
        matrix: ColorMatrix::Bt709,
        site: ChromaSite::Left,
    };

    /// Returns the bytes of one stored sample, 1 or 2.
    pub fn sample_bytes(self) -> usize {
        if self.bits == 8 { 1 } else { 2 }
    }

    /// Returns the largest code.
    pub fn code_max(self) -> u16 {
        ((1u32 << self.bits) - 1) as u16
    }

    /// Returns width and height of a plane of a picture of `width` x `height`; chroma sizes round up.
    pub fn plane_size(self, plane: usize, width: u32, height: u32) -> (u32, u32) {
        if plane == 0 {
            return (width, height);
        }
        let (across, down) = self.layout.chroma_factors();
        (width.div_ceil(across), height.div_ceil(down))
    }

    /// Returns the bytes of all planes of a picture of `width` x `height`.
    pub fn picture_bytes(self, width: u32, height: u32) -> usize {
        (0..self.layout.planes())
            .map(|plane| {
                let (w, h) = self.plane_size(plane, width, height);
                w as usize * h as usize * self.sample_bytes()
            })
            .sum()
    }

    /// Checks that the parts go together.
    ///
    /// # Errors
    /// `Picture` where the depth is outside 8 to 16 or the matrix does not fit the layout.
    pub fn validate(self) -> Result<(), ModelError> {
        if !(8..=16).contains(&self.bits) {
            return Err(ModelError::Picture(format!("pixel format has {} bits a sample, expected 8 to 16", self.bits)));
        }
        let rgb_layout = self.layout == Layout::Rgb;
        let rgb_matrix = self.matrix == ColorMatrix::Rgb;
        if self.layout != Layout::Gray && rgb_layout != rgb_matrix {
            return Err(ModelError::Picture(format!(
                "pixel format joins layout {:?} with matrix {:?}, expected rgb with rgb or yuv with a yuv matrix",
                self.layout, self.matrix
            )));
        }
        Ok(())
    }
}
