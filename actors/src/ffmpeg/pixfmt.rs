//! FFmpeg's pixel formats and ours: which canonical planar format each one becomes, and back.
//!
//! Canonical means planar, native endian, value in the low bits, no alpha. Bit depth and chroma subsampling are never
//! reduced; depths below 8 are widened to 8.

use std::ffi::c_int;

use ffmpeg_sys_next as ff;
use restyle_models::pixels::{ChromaSite, ColorMatrix, ColorRange, Layout, PixelFormat};

use super::{c_text, owned_text};

/// A pixel format of FFmpeg by its number; -1 is "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PixFmt(pub c_int);

/// One component of a pixel, as FFmpeg describes where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Component {
    /// Which data pointer.
    pub plane: usize,
    /// Bytes from one pixel's to the next one's.
    pub step: usize,
    /// Bytes before the first pixel's; -1 occurs in big-endian formats.
    pub offset: isize,
    /// Bits below the value.
    pub shift: u32,
    /// Bits of the value.
    pub depth: u32,
}

/// What FFmpeg knows about a pixel format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PixFmtDescription {
    /// Name, such as `yuv420p10le`.
    pub name: String,
    /// Components in the order Y U V or R G B, alpha last.
    pub components: Vec<Component>,
    /// log2 of how much narrower chroma is.
    pub chroma_shift_x: u32,
    /// log2 of how much lower chroma is.
    pub chroma_shift_y: u32,
    flags: u64,
}

/// Colour codes of a stream or frame, as FFmpeg numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColourCodes {
    /// `AVCOL_PRI_*`.
    pub primaries: c_int,
    /// `AVCOL_TRC_*`.
    pub transfer: c_int,
    /// `AVCOL_SPC_*`.
    pub matrix: c_int,
    /// `AVCOL_RANGE_*`.
    pub range: c_int,
    /// `AVCHROMA_LOC_*`.
    pub chroma_location: c_int,
}

impl Default for ColourCodes {
    fn default() -> Self {
        Self { primaries: 2, transfer: 2, matrix: 2, range: 0, chroma_location: 0 }
    }
}

impl PixFmtDescription {
    fn has(&self, flag: c_int) -> bool {
        self.flags & flag as u64 != 0
    }

    /// Whether samples are bytes in a palette.
    #[must_use]
    pub fn is_palette(&self) -> bool {
        self.has(ff::AV_PIX_FMT_FLAG_PAL)
    }

    /// Whether samples are single bits, many to a byte.
    #[must_use]
    pub fn is_bitstream(&self) -> bool {
        self.has(ff::AV_PIX_FMT_FLAG_BITSTREAM)
    }

    /// Whether words are big endian.
    #[must_use]
    pub fn is_big_endian(&self) -> bool {
        self.has(ff::AV_PIX_FMT_FLAG_BE)
    }

    /// Whether there is an alpha component that carries a picture's transparency (a palette's is not counted).
    #[must_use]
    pub fn has_alpha(&self) -> bool {
        self.has(ff::AV_PIX_FMT_FLAG_ALPHA) && !self.is_palette()
    }

    /// Whether components are red, green and blue.
    #[must_use]
    pub fn is_rgb(&self) -> bool {
        self.has(ff::AV_PIX_FMT_FLAG_RGB) || self.is_palette()
    }

    /// Returns the layout of the canonical format, `None` where there is none.
    fn layout(&self) -> Option<Layout> {
        if self.has(ff::AV_PIX_FMT_FLAG_HWACCEL)
            || self.has(ff::AV_PIX_FMT_FLAG_FLOAT)
            || self.has(ff::AV_PIX_FMT_FLAG_BAYER)
            || self.name.starts_with("xyz")
            // Its luma samples do not lie at equal distances, so no descriptor can say where they are.
            || self.name == "uyyvyy411"
        {
            return None;
        }
        if self.is_bitstream() {
            return self.name.starts_with("mono").then_some(Layout::Gray);
        }
        if self.is_rgb() {
            return Some(Layout::Rgb);
        }
        match (self.components.len(), self.chroma_shift_x, self.chroma_shift_y) {
            (1 | 2, ..) => Some(Layout::Gray),
            (_, 1, 1) => Some(Layout::Yuv420),
            (_, 1, 0) => Some(Layout::Yuv422),
            (_, 0, 0) => Some(Layout::Yuv444),
            (_, 0, 1) => Some(Layout::Yuv440),
            (_, 2, 0) => Some(Layout::Yuv411),
            (_, 2, 2) => Some(Layout::Yuv410),
            _ => None,
        }
    }
}

impl PixFmt {
    /// No format.
    pub const NONE: Self = Self(-1);

    /// Looks a format up by FFmpeg's name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let name = c_text(name);
        // SAFETY: the name is a terminated string; the result is only read as its integer value.
        let format = unsafe { ff::av_get_pix_fmt(name.as_ptr()) } as c_int;
        (format >= 0).then_some(Self(format))
    }

    /// Returns the raw number as FFmpeg's enum, `None` for "none" and for numbers that the headers do not name.
    pub(crate) fn as_av(self) -> Option<ff::AVPixelFormat> {
        if !(0..ff::AVPixelFormat::AV_PIX_FMT_NB as c_int).contains(&self.0) {
            return None;
        }
        // SAFETY: the C enum is contiguous from 0 to AV_PIX_FMT_NB, and the Rust enum was made from the same header.
        Some(unsafe { std::mem::transmute::<c_int, ff::AVPixelFormat>(self.0) })
    }

    /// Describes the format; `None` for "none" and for numbers that the linked library does not know.
    #[must_use]
    pub fn describe(self) -> Option<PixFmtDescription> {
        // SAFETY: a pure look-up; the result is null or a static constant of the library.
        let raw = unsafe { ff::av_pix_fmt_desc_get(self.as_av()?).as_ref() }?;
        let components = raw.comp[..usize::from(raw.nb_components)]
            .iter()
            .map(|c| Component {
                plane: c.plane as usize,
                step: c.step as usize,
                offset: c.offset as isize,
                shift: c.shift as u32,
                depth: c.depth as u32,
            })
            .collect();
        Some(PixFmtDescription {
            // SAFETY: the name of a static descriptor is a terminated constant.
            name: unsafe { owned_text(raw.name) },
            components,
            chroma_shift_x: u32::from(raw.log2_chroma_w),
            chroma_shift_y: u32::from(raw.log2_chroma_h),
            flags: raw.flags,
        })
    }

    /// Returns the format's name, "none" where it has none.
    #[must_use]
    pub fn name(self) -> String {
        self.describe().map_or_else(|| "none".to_owned(), |d| d.name)
    }

    /// Returns the canonical planar format of pictures in this one; `None` where samples cannot be read without loss
    /// (hardware frames, floats, Bayer, XYZ).
    ///
    /// An unspecified matrix counts as BT.601, as in FFmpeg's own scaler; an unspecified range as limited for YUV (full
    /// for the `yuvj` names) and full for RGB and gray.
    #[must_use]
    pub fn canonical(self, colour: ColourCodes) -> Option<PixelFormat> {
        let description = self.describe()?;
        let layout = description.layout()?;
        let depth = description.components.iter().take(3).map(|c| c.depth).max()?;
        if depth > 16 {
            return None;
        }
        let jpeg = description.name.starts_with("yuvj");
        Some(PixelFormat {
            layout,
            bits: depth.max(8) as u8,
            range: range_of(layout, jpeg, &description, colour.range),
            matrix: matrix_of(layout, colour.matrix),
            site: site_of(layout, jpeg, colour.chroma_location),
        })
    }

    /// Returns FFmpeg's planar, native-endian format for ours, `None` where FFmpeg has none of that depth.
    #[must_use]
    pub fn of(format: PixelFormat) -> Option<Self> {
        let base = match format.layout {
            Layout::Gray => "gray",
            Layout::Yuv420 => "yuv420p",
            Layout::Yuv422 => "yuv422p",
            Layout::Yuv444 => "yuv444p",
            Layout::Yuv440 => "yuv440p",
            Layout::Yuv411 => "yuv411p",
            Layout::Yuv410 => "yuv410p",
            Layout::Rgb => "gbrp",
        };
        let endian = if cfg!(target_endian = "big") { "be" } else { "le" };
        match format.bits {
            8 => Self::by_name(base),
            bits => Self::by_name(&format!("{base}{bits}{endian}")),
        }
    }
}

fn range_of(layout: Layout, jpeg: bool, description: &PixFmtDescription, code: c_int) -> ColorRange {
    if layout == Layout::Rgb || jpeg || description.is_bitstream() {
        return ColorRange::Full;
    }
    match code {
        1 => ColorRange::Limited,
        2 => ColorRange::Full,
        _ if layout == Layout::Gray => ColorRange::Full,
        _ => ColorRange::Limited,
    }
}

fn matrix_of(layout: Layout, code: c_int) -> ColorMatrix {
    if layout == Layout::Rgb {
        return ColorMatrix::Rgb;
    }
    match code {
        1 => ColorMatrix::Bt709,
        4 => ColorMatrix::Fcc,
        7 => ColorMatrix::Smpte240m,
        8 => ColorMatrix::YCgCo,
        // The constant-luminance and perceptual ones have no linear inverse here; the nearest linear one stands in,
        // the same way to RGB and back.
        9 | 10 | 13 | 14 => ColorMatrix::Bt2020Ncl,
        _ => ColorMatrix::Bt601,
    }
}

fn site_of(layout: Layout, jpeg: bool, code: c_int) -> ChromaSite {
    if layout.chroma_factors() == (1, 1) {
        return ChromaSite::Center;
    }
    match code {
        1 => ChromaSite::Left,
        2 => ChromaSite::Center,
        3 => ChromaSite::TopLeft,
        4 => ChromaSite::Top,
        5 => ChromaSite::BottomLeft,
        6 => ChromaSite::Bottom,
        _ if jpeg => ChromaSite::Center,
        _ => ChromaSite::Left,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(name: &str) -> Option<PixelFormat> {
        PixFmt::by_name(name).expect("known name").canonical(ColourCodes::default())
    }

    #[test]
    fn packed_and_semi_planar_formats_become_planar_of_equal_depth() {
        for (name, layout, bits) in [
            ("yuv420p", Layout::Yuv420, 8),
            ("nv12", Layout::Yuv420, 8),
            ("p010le", Layout::Yuv420, 10),
            ("yuyv422", Layout::Yuv422, 8),
            ("yuv444p16be", Layout::Yuv444, 16),
            ("yuva420p", Layout::Yuv420, 8),
            ("bgra", Layout::Rgb, 8),
            ("rgb48be", Layout::Rgb, 16),
            ("gbrp12le", Layout::Rgb, 12),
            ("pal8", Layout::Rgb, 8),
            ("rgb565le", Layout::Rgb, 8),
            ("gray10le", Layout::Gray, 10),
            ("ya8", Layout::Gray, 8),
            ("monob", Layout::Gray, 8),
            ("yuv410p", Layout::Yuv410, 8),
        ] {
            let format = canonical(name).unwrap_or_else(|| panic!("{name} has a canonical format"));
            assert_eq!((format.layout, format.bits), (layout, bits), "{name}");
            format.validate().unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }

    #[test]
    fn formats_without_a_lossless_reading_are_refused() {
        for name in ["vaapi", "grayf32le", "bayer_bggr8", "xyz12le"] {
            assert_eq!(canonical(name), None, "{name}");
        }
    }

    #[test]
    fn planar_formats_map_back_to_themselves() {
        for name in ["yuv420p", "yuv420p10le", "yuv422p12le", "yuv444p16le", "gbrp", "gbrp10le", "gray", "gray16le"] {
            let format = canonical(name).expect("canonical");
            assert_eq!(PixFmt::of(format).expect("known").name(), name);
        }
    }

    #[test]
    fn colour_defaults_follow_ffmpeg() {
        assert_eq!(canonical("yuv420p").unwrap().range, ColorRange::Limited);
        assert_eq!(canonical("yuvj420p").unwrap().range, ColorRange::Full);
        assert_eq!(canonical("yuv420p").unwrap().matrix, ColorMatrix::Bt601);
        assert_eq!(canonical("gbrp").unwrap().matrix, ColorMatrix::Rgb);
        assert_eq!(canonical("gray").unwrap().range, ColorRange::Full);
    }
}
