//! Video codecs that can be written: names, encoders, and the sample formats each of them takes.

use std::fmt;

use restyle_models::pixels::Layout;
use serde::{Deserialize, Serialize};

use super::container::Container;
use crate::{ActorError, Result};

/// A video codec of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VideoCodec {
    /// H.264 by libx264.
    H264,
    /// HEVC by libx265.
    Hevc,
    /// VP9 by libvpx.
    Vp9,
    /// AV1 by libaom.
    Av1,
    /// FFV1 version 3, lossless.
    Ffv1,
    /// Apple ProRes, 10 bits, every frame for itself.
    ProRes,
    /// Motion JPEG, every frame for itself, full range.
    Mjpeg,
    /// Ut Video, lossless, 8 bits.
    UtVideo,
    /// H.264 by an NVIDIA card's encoder.
    #[serde(rename = "h264_nvenc")]
    H264Nvenc,
    /// HEVC by an NVIDIA card's encoder.
    #[serde(rename = "hevc_nvenc")]
    HevcNvenc,
}

impl VideoCodec {
    /// Every codec, in the order in which they are named to people.
    pub const ALL: [Self; 10] = [
        Self::H264,
        Self::Hevc,
        Self::Vp9,
        Self::Av1,
        Self::Ffv1,
        Self::ProRes,
        Self::Mjpeg,
        Self::UtVideo,
        Self::H264Nvenc,
        Self::HevcNvenc,
    ];

    /// Parses a name as people write it; FFmpeg's encoder names are taken too.
    ///
    /// # Errors
    /// `Usage` naming the known codecs.
    pub fn parse(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            "h264" | "avc" | "x264" | "libx264" => Ok(Self::H264),
            "hevc" | "h265" | "x265" | "libx265" => Ok(Self::Hevc),
            "vp9" | "libvpx-vp9" => Ok(Self::Vp9),
            "av1" | "libaom-av1" => Ok(Self::Av1),
            "ffv1" => Ok(Self::Ffv1),
            "prores" | "prores_ks" => Ok(Self::ProRes),
            "mjpeg" => Ok(Self::Mjpeg),
            "utvideo" => Ok(Self::UtVideo),
            "h264_nvenc" => Ok(Self::H264Nvenc),
            "hevc_nvenc" => Ok(Self::HevcNvenc),
            _ => {
                let known: Vec<_> = Self::ALL.into_iter().map(Self::name).collect();
                Err(ActorError::Usage(format!("codec {name:?} is not known; use one of {}", known.join(", "))))
            }
        }
    }

    /// Returns the name that people and FFmpeg's codec list use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::Hevc => "hevc",
            Self::Vp9 => "vp9",
            Self::Av1 => "av1",
            Self::Ffv1 => "ffv1",
            Self::ProRes => "prores",
            Self::Mjpeg => "mjpeg",
            Self::UtVideo => "utvideo",
            Self::H264Nvenc => "h264_nvenc",
            Self::HevcNvenc => "hevc_nvenc",
        }
    }

    /// Returns the codec that is in the stream, whoever encodes it: itself but for a card's encoders, which have a
    /// software twin.
    #[must_use]
    pub const fn stream(self) -> Self {
        match self {
            Self::H264Nvenc => Self::H264,
            Self::HevcNvenc => Self::Hevc,
            software => software,
        }
    }

    /// Returns whether a card encodes it.
    #[must_use]
    pub const fn is_on_card(self) -> bool {
        matches!(self, Self::H264Nvenc | Self::HevcNvenc)
    }

    /// Returns how many encoders may be open at once: cards that are sold to consumers allow a few in all processes together.
    #[must_use]
    pub const fn sessions_max(self) -> usize {
        if self.is_on_card() { 2 } else { usize::MAX }
    }

    /// Returns the name of FFmpeg's encoder.
    #[must_use]
    pub const fn encoder(self) -> &'static str {
        match self {
            Self::H264 => "libx264",
            Self::Hevc => "libx265",
            Self::Vp9 => "libvpx-vp9",
            Self::Av1 => "libaom-av1",
            Self::Ffv1 => "ffv1",
            Self::ProRes => "prores_ks",
            Self::Mjpeg => "mjpeg",
            Self::UtVideo => "utvideo",
            Self::H264Nvenc | Self::HevcNvenc => self.name(),
        }
    }

    /// Returns the depths, in bits, that the encoder takes for a layout; empty where it does not take the layout.
    #[must_use]
    pub const fn depths(self, layout: Layout) -> &'static [u8] {
        use Layout as L;
        match (self, layout) {
            (Self::H264, L::Gray | L::Yuv420 | L::Yuv422 | L::Yuv444) => &[8, 10],
            (Self::Hevc, L::Gray | L::Yuv420 | L::Yuv422 | L::Yuv444 | L::Rgb) => &[8, 10, 12],
            (Self::Vp9, L::Yuv420 | L::Yuv422 | L::Yuv444 | L::Yuv440 | L::Rgb) => &[8, 10, 12],
            (Self::Av1, L::Gray | L::Yuv420 | L::Yuv422 | L::Yuv444 | L::Rgb) => &[8, 10, 12],
            (Self::Ffv1, L::Yuv420 | L::Yuv422 | L::Yuv444) => &[8, 9, 10, 12, 14, 16],
            (Self::Ffv1, L::Gray) => &[8, 9, 10, 12, 16],
            (Self::Ffv1, L::Rgb) => &[8, 9, 10, 12, 14, 16],
            (Self::Ffv1, L::Yuv440) => &[8, 10, 12],
            (Self::Ffv1, L::Yuv411 | L::Yuv410) => &[8],
            (Self::ProRes, L::Yuv422 | L::Yuv444) => &[10],
            (Self::Mjpeg, L::Yuv420 | L::Yuv422 | L::Yuv444) => &[8],
            (Self::UtVideo, L::Yuv420 | L::Yuv422 | L::Yuv444 | L::Rgb) => &[8],
            (Self::HevcNvenc, L::Yuv420) => &[8, 10],
            (Self::H264Nvenc, L::Yuv420 | L::Yuv444) | (Self::HevcNvenc, L::Yuv444) => &[8],
            _ => &[],
        }
    }

    /// Returns whether a picture of this size exists in the codec with this layout.
    ///
    /// H.264 and HEVC crop in units of chroma samples, so a side that chroma halves has to be even; so do the two
    /// intermediate codecs whose encoders pad nothing. The others code any size.
    #[must_use]
    pub const fn takes_size(self, layout: Layout, width: u32, height: u32) -> bool {
        match self.stream() {
            Self::H264 | Self::Hevc | Self::UtVideo | Self::ProRes => match layout {
                Layout::Yuv420 => width.is_multiple_of(2) && height.is_multiple_of(2),
                Layout::Yuv422 => width.is_multiple_of(2),
                _ => true,
            },
            _ => true,
        }
    }

    /// Returns the least reordering bound of the codec's streams: libx265 reorders by two frames and does not always say so.
    #[must_use]
    pub const fn reorder_frames_min(self) -> u32 {
        match self {
            Self::Hevc => 2,
            _ => 0,
        }
    }

    /// Returns the least width and height that the encoder takes.
    #[must_use]
    pub const fn side_min(self) -> u32 {
        match self {
            Self::Hevc => 16,
            _ => 1,
        }
    }

    /// Chooses the codec for a container where the user named none.
    ///
    /// H.264 for 8-bit pictures and HEVC for deeper ones, gray and RGB in mp4, mov and mkv; VP9 in webm, and wherever the
    /// container takes it for what the other two cannot express (sizes that are odd under subsampled chroma, 4:4:0).
    #[must_use]
    pub const fn default_for(container: Container, layout: Layout, bits: u8, width: u32, height: u32) -> Self {
        let classic = match layout {
            // Decoders show H.264 without chroma as 4:2:0; HEVC without chroma stays gray.
            Layout::Rgb | Layout::Gray => Self::Hevc,
            _ if bits > 8 => Self::Hevc,
            _ => Self::H264,
        };
        let classic = match classic {
            Self::Hevc if width < Self::Hevc.side_min() || height < Self::Hevc.side_min() => Self::H264,
            other => other,
        };
        match container {
            Container::Webm => Self::Vp9,
            Container::Mov => classic,
            Container::Mp4 | Container::Mkv => {
                let expressible = classic.takes_size(layout, width, height) && !matches!(layout, Layout::Yuv440);
                if expressible || bits > 12 { classic } else { Self::Vp9 }
            }
        }
    }

    /// Returns whether every frame stands for itself, so that quality is not set by `--crf`.
    #[must_use]
    pub const fn is_intermediate(self) -> bool {
        matches!(self, Self::Ffv1 | Self::ProRes | Self::Mjpeg | Self::UtVideo)
    }
}

impl fmt::Display for VideoCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for codec in VideoCodec::ALL {
            assert_eq!(VideoCodec::parse(codec.name()).unwrap(), codec);
            assert_eq!(VideoCodec::parse(codec.encoder()).unwrap(), codec);
        }
        let error = VideoCodec::parse("theora").unwrap_err().to_string();
        assert!(error.contains("theora") && error.contains("utvideo"), "{error}");
    }

    #[test]
    fn default_codec_follows_depth_size_and_container() {
        let check = |container, layout, bits, size: (u32, u32), expected| {
            let codec = VideoCodec::default_for(container, layout, bits, size.0, size.1);
            assert_eq!(codec, expected, "{container:?} {layout:?} {bits} {size:?}");
        };
        use Container as C;
        use Layout as L;
        check(C::Mp4, L::Yuv420, 8, (1280, 720), VideoCodec::H264);
        check(C::Mov, L::Yuv444, 8, (1281, 721), VideoCodec::H264);
        check(C::Mkv, L::Yuv420, 10, (1280, 720), VideoCodec::Hevc);
        check(C::Mp4, L::Yuv420, 12, (1280, 720), VideoCodec::Hevc);
        check(C::Webm, L::Yuv420, 8, (1280, 720), VideoCodec::Vp9);
        check(C::Mp4, L::Yuv420, 8, (161, 121), VideoCodec::Vp9);
        check(C::Mov, L::Yuv420, 8, (161, 121), VideoCodec::H264);
        check(C::Mkv, L::Yuv422, 8, (160, 121), VideoCodec::H264);
        check(C::Mp4, L::Yuv440, 8, (160, 120), VideoCodec::Vp9);
        check(C::Mp4, L::Rgb, 8, (160, 120), VideoCodec::Hevc);
        check(C::Mp4, L::Gray, 8, (160, 121), VideoCodec::Hevc);
        check(C::Mp4, L::Yuv420, 10, (8, 8), VideoCodec::H264);
    }
}
