//! Which files can be written, and which codecs each of them holds.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::codec::VideoCodec;
use crate::{ActorError, Result};

/// A kind of output file, chosen by the output's extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    /// MPEG-4 part 14 (`.mp4`, `.m4v`).
    Mp4,
    /// QuickTime (`.mov`).
    Mov,
    /// Matroska (`.mkv`).
    Mkv,
    /// WebM (`.webm`).
    Webm,
}

impl Container {
    /// Every container, in the order in which they are named to people.
    pub const ALL: [Self; 4] = [Self::Mp4, Self::Mov, Self::Mkv, Self::Webm];

    /// Chooses the container by a file extension without its dot, in any case.
    ///
    /// # Errors
    /// `Usage` naming the supported extensions where it is empty or another one.
    pub fn of_extension(extension: &str) -> Result<Self> {
        match extension.to_ascii_lowercase().as_str() {
            "mp4" | "m4v" => Ok(Self::Mp4),
            "mov" => Ok(Self::Mov),
            "mkv" => Ok(Self::Mkv),
            "webm" => Ok(Self::Webm),
            "" => Err(ActorError::Usage(
                "the output has no extension to choose a container by; use one of .mp4 .m4v .mov .mkv .webm".to_owned(),
            )),
            other => Err(ActorError::Usage(format!(
                "the output's extension .{other} is none that can be written; use one of .mp4 .m4v .mov .mkv .webm"
            ))),
        }
    }

    /// Returns the name of FFmpeg's muxer.
    #[must_use]
    pub const fn muxer(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4",
            Self::Mov => "mov",
            Self::Mkv => "matroska",
            Self::Webm => "webm",
        }
    }

    /// Returns the extension without a dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4",
            Self::Mov => "mov",
            Self::Mkv => "mkv",
            Self::Webm => "webm",
        }
    }

    /// Returns whether this is one of the two QuickTime-like containers.
    #[must_use]
    pub const fn is_mov_like(self) -> bool {
        matches!(self, Self::Mp4 | Self::Mov)
    }

    /// Returns whether FFmpeg's muxer takes this video codec.
    #[must_use]
    pub const fn holds(self, codec: VideoCodec) -> bool {
        use VideoCodec as V;
        let codec = codec.stream();
        match self {
            Self::Mp4 => matches!(codec, V::H264 | V::Hevc | V::Vp9 | V::Av1),
            Self::Mov => matches!(codec, V::H264 | V::Hevc | V::ProRes | V::Mjpeg),
            Self::Mkv => true,
            Self::Webm => matches!(codec, V::Vp9 | V::Av1),
        }
    }

    /// Returns the containers that hold this codec, as extensions for people.
    #[must_use]
    pub fn holding(codec: VideoCodec) -> String {
        let names: Vec<_> = Self::ALL.into_iter().filter(|c| c.holds(codec)).map(Self::extension).collect();
        names.join(", ")
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.extension())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extension_decides() {
        let check = |text: &str, expected| assert_eq!(Container::of_extension(text).unwrap(), expected, "{text}");
        check("mp4", Container::Mp4);
        check("M4V", Container::Mp4);
        check("MOV", Container::Mov);
        check("mkv", Container::Mkv);
        check("webm", Container::Webm);
    }

    #[test]
    fn other_extensions_are_refused_by_name() {
        for text in ["avi", "", "part", ".mp4"] {
            let error = Container::of_extension(text).unwrap_err();
            assert!(matches!(error, ActorError::Usage(_)), "{text}: {error}");
            assert!(error.to_string().contains(".webm"), "{error}");
        }
    }
}
