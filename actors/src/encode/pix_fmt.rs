//! FFmpeg's names of the planar formats that are written.

use restyle_models::pixels::Layout;

use crate::{ActorError, Result};

const STEMS: [(Layout, &str); 8] = [
    (Layout::Gray, "gray"),
    (Layout::Yuv420, "yuv420p"),
    (Layout::Yuv422, "yuv422p"),
    (Layout::Yuv444, "yuv444p"),
    (Layout::Yuv440, "yuv440p"),
    (Layout::Yuv411, "yuv411p"),
    (Layout::Yuv410, "yuv410p"),
    (Layout::Rgb, "gbrp"),
];

/// Returns FFmpeg's name: `yuv420p`, `yuv422p10le`, `gbrp`, `gray16le`.
#[must_use]
pub fn name(layout: Layout, bits: u8) -> String {
    let stem = STEMS.iter().find(|(known, _)| *known == layout).map_or("gray", |(_, stem)| stem);
    if bits == 8 { stem.to_owned() } else { format!("{stem}{bits}le") }
}

/// Parses such a name; the ending `le` may be left out.
///
/// # Errors
/// `Usage` showing the pattern where the name is no planar format of 8 to 16 bits without alpha.
pub fn parse(text: &str) -> Result<(Layout, u8)> {
    let lower = text.to_ascii_lowercase();
    STEMS
        .iter()
        .find_map(|(layout, stem)| {
            let depth = lower.strip_prefix(stem)?;
            let bits = match depth.strip_suffix("le").unwrap_or(depth) {
                "" if depth.is_empty() => 8,
                digits => digits.parse().ok().filter(|bits| (9..=16).contains(bits))?,
            };
            Some((*layout, bits))
        })
        .ok_or_else(|| {
            ActorError::Usage(format!(
                "pixel format {text:?} is not known; expected a planar one such as yuv420p, yuv422p10le, yuv444p, gray or gbrp"
            ))
        })
}

/// Names chroma and depth for people: `4:2:0 10-bit`.
#[must_use]
pub fn describe(layout: Layout, bits: u8) -> String {
    let chroma = match layout {
        Layout::Gray => "gray",
        Layout::Yuv420 => "4:2:0",
        Layout::Yuv422 => "4:2:2",
        Layout::Yuv444 => "4:4:4",
        Layout::Yuv440 => "4:4:0",
        Layout::Yuv411 => "4:1:1",
        Layout::Yuv410 => "4:1:0",
        Layout::Rgb => "RGB",
    };
    format!("{chroma} {bits}-bit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for (layout, _) in STEMS {
            for bits in [8, 10, 12, 16] {
                assert_eq!(parse(&name(layout, bits)).unwrap(), (layout, bits));
            }
        }
        assert_eq!(parse("yuv420p10").unwrap(), (Layout::Yuv420, 10));
    }

    #[test]
    fn other_names_are_refused() {
        for text in ["", "nv12", "yuva420p", "yuv420p7", "yuv420ple", "gbrap", "yuv420p17le", "rgb24"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
