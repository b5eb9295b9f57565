//! What the linked FFmpeg can do, for people and for the numeric class.

use serde::Serialize;

/// The linked FFmpeg.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// `libavcodec` as `major.minor.micro`.
    pub avcodec: String,
    /// `libavformat`.
    pub avformat: String,
    /// `libavfilter`.
    pub avfilter: String,
    /// `libswscale`.
    pub swscale: String,
    /// Licence of the build: `GPL version 2 or later` and the like.
    pub license: String,
    /// Encoders that restyle uses, and whether this build has them.
    pub encoders: Vec<(&'static str, bool)>,
}

const ENCODERS: [&str; 9] =
    ["libx264", "libx265", "libvpx-vp9", "libsvtav1", "libaom-av1", "ffv1", "prores_ks", "h264_nvenc", "hevc_nvenc"];

impl Capabilities {
    /// Asks the linked libraries.
    #[must_use]
    pub fn read() -> Self {
        Self {
            avcodec: dotted(ffmpeg_next::codec::version()),
            avformat: dotted(ffmpeg_next::format::version()),
            avfilter: dotted(ffmpeg_next::filter::version()),
            swscale: dotted(ffmpeg_next::software::scaling::version()),
            license: ffmpeg_next::codec::license().to_owned(),
            encoders: ENCODERS.map(|name| (name, ffmpeg_next::encoder::find_by_name(name).is_some())).to_vec(),
        }
    }
}

/// FFmpeg packs a version as `major << 16 | minor << 8 | micro`.
fn dotted(version: u32) -> String {
    format!("{}.{}.{}", version >> 16, version >> 8 & 0xff, version & 0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_unpacked() {
        assert_eq!(dotted(59 << 16 | 37 << 8 | 100), "59.37.100");
    }

    #[test]
    fn the_lossless_encoder_is_always_there() {
        assert!(Capabilities::read().encoders.contains(&("ffv1", true)));
    }
}
