//! Tags of the file and of its tracks: which are the source's own, and which the container can hold.

use super::Carriage;
use crate::encode::Container;
use crate::ffmpeg::mux::Tags;
use crate::source_info::{SourceInfo, StreamInfo, StreamKind};

/// Keys that describe the source's container, not the film.
const CONTAINER_KEYS: [&str; 4] = ["major_brand", "minor_version", "compatible_brands", "encoder"];
/// Keys that describe the source's video coding.
const CODING_KEYS: [&str; 2] = ["encoder", "rotate"];
/// Beginnings of keys that measure the source's packets, as some Matroska writers leave them.
const STATISTICS: [&str; 6] = ["bps", "duration", "number_of_frames", "number_of_bytes", "_statistics", "source_id"];
/// Track keys that mp4 and mov hold in boxes of their own, or that say nothing outside of their container.
const MOV_TRACK_KEYS: [&str; 10] = [
    "language",
    "title",
    "handler_name",
    "vendor_id",
    "creation_time",
    "timecode",
    "reel_name",
    "encoder",
    "filename",
    "mimetype",
];
/// File keys that FFmpeg's mp4 muxer writes the way other players read them.
const MP4_KEYS: [&str; 28] = [
    "title",
    "artist",
    "album_artist",
    "composer",
    "album",
    "date",
    "encoding_tool",
    "comment",
    "genre",
    "copyright",
    "grouping",
    "lyrics",
    "description",
    "synopsis",
    "show",
    "episode_id",
    "network",
    "keywords",
    "episode_sort",
    "season_number",
    "media_type",
    "hd_video",
    "gapless_playback",
    "compilation",
    "track",
    "disc",
    "creation_time",
    "location",
];
/// File keys that FFmpeg's mov muxer writes the way other players read them.
const MOV_KEYS: [&str; 13] = [
    "artist",
    "title",
    "author",
    "album",
    "date",
    "comment",
    "genre",
    "copyright",
    "make",
    "model",
    "location",
    "keywords",
    "creation_time",
];

/// Tags of the file, and how they have to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTags {
    /// The tags.
    pub tags: Tags,
    /// Whether mp4 and mov write them as free keys, since some are none that players know.
    pub free_keys: bool,
    /// Keys that get lost.
    pub lost: Vec<String>,
}

/// Chooses the tags of the file; `has_cover` says that mp4 will hold a cover picture, which excludes free keys.
#[must_use]
pub fn of_file(source: &SourceInfo, container: Container, has_cover: bool) -> FileTags {
    let mut tags: Tags = source
        .tags
        .iter()
        .filter(|(key, _)| !CONTAINER_KEYS.iter().any(|own| key.eq_ignore_ascii_case(own)))
        .map(|(key, value)| (key.clone(), normalized(key, value)))
        .collect();
    let known: &[&str] = match container {
        Container::Mp4 => &MP4_KEYS,
        Container::Mov => &MOV_KEYS,
        Container::Mkv | Container::Webm => return FileTags { tags, free_keys: false, lost: Vec::new() },
    };
    tags.retain(|key, _| !is_statistic(key));
    let strange: Vec<String> =
        tags.keys().filter(|key| !is_known(key, known) && !key.eq_ignore_ascii_case("timecode")).cloned().collect();
    let free_keys = !strange.is_empty() && !has_cover;
    let lost = if free_keys { Vec::new() } else { strange };
    FileTags { tags, free_keys, lost }
}

/// Chooses the tags of a track and names those that get lost.
pub(super) fn of_track(stream: &StreamInfo, carriage: &Carriage, container: Container) -> (Tags, Vec<String>) {
    let mut tags = stream.tags.clone();
    match carriage {
        Carriage::Implied | Carriage::Dropped(_) => return (Tags::new(), Vec::new()),
        Carriage::Styled => {
            tags.retain(|key, _| !is_statistic(key) && !CODING_KEYS.iter().any(|own| key.eq_ignore_ascii_case(own)))
        }
        Carriage::Attached => name_picture(stream, &mut tags),
        Carriage::Copied => tags.retain(|key, _| !key.to_ascii_lowercase().starts_with("duration")),
    }
    if container.is_mov_like() {
        tags.retain(|key, _| !is_statistic(key));
    }
    tags = tags
        .into_iter()
        .map(|(key, value)| {
            let value = normalized(&key, &value);
            (key, value)
        })
        .collect();
    let lost = if container.is_mov_like() && !stream.attached_picture {
        tags.keys()
            .filter(|key| !is_known(key, &MOV_TRACK_KEYS) && !stream_key_is_technical(stream, key))
            .cloned()
            .collect()
    } else {
        Vec::new()
    };
    (tags, lost)
}

fn stream_key_is_technical(stream: &StreamInfo, key: &str) -> bool {
    stream.kind == StreamKind::Video && key.eq_ignore_ascii_case("rotate")
}

fn name_picture(stream: &StreamInfo, tags: &mut Tags) {
    let Some((mimetype, extension)) = picture_mimetype(&stream.codec) else { return };
    tags.entry("mimetype".to_owned()).or_insert_with(|| mimetype.to_owned());
    tags.entry("filename".to_owned()).or_insert_with(|| format!("cover.{extension}"));
}

/// Returns mimetype and extension of a picture codec that Matroska readers take for a cover.
pub(super) fn picture_mimetype(codec: &str) -> Option<(&'static str, &'static str)> {
    match codec {
        "mjpeg" => Some(("image/jpeg", "jpg")),
        "png" => Some(("image/png", "png")),
        "gif" => Some(("image/gif", "gif")),
        "tiff" => Some(("image/tiff", "tif")),
        _ => None,
    }
}

fn is_known(key: &str, known: &[&str]) -> bool {
    let key = key.to_ascii_lowercase();
    let base = key.rsplit_once('-').filter(|(_, language)| language.len() == 3).map_or(key.as_str(), |(base, _)| base);
    known.contains(&base)
}

fn is_statistic(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    STATISTICS.iter().any(|start| key.starts_with(start))
}

/// Writes a time without a zone as UTC: FFmpeg would read it in the zone of the machine.
fn normalized(key: &str, value: &str) -> String {
    let bytes = value.as_bytes();
    let digits = |range: std::ops::Range<usize>| bytes[range].iter().all(u8::is_ascii_digit);
    let is_bare = key.eq_ignore_ascii_case("creation_time")
        && bytes.len() == 19
        && matches!(bytes[10], b' ' | b'T')
        && [0..4, 5..7, 8..10, 11..13, 14..16, 17..19].into_iter().all(digits);
    if is_bare { format!("{}T{}.000000Z", &value[..10], &value[11..]) } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_times_become_utc() {
        let check = |value: &str, expected: &str| assert_eq!(normalized("CREATION_TIME", value), expected);
        check("2016-05-31 17:01:35", "2016-05-31T17:01:35.000000Z");
        check("2016-05-31T17:01:35", "2016-05-31T17:01:35.000000Z");
        check("2016-05-31T17:01:35.000000Z", "2016-05-31T17:01:35.000000Z");
        check("yesterday evening, 7pm", "yesterday evening, 7pm");
        assert_eq!(normalized("title", "2016-05-31 17:01:35"), "2016-05-31 17:01:35");
    }

    #[test]
    fn language_suffixes_belong_to_their_key() {
        assert!(is_known("location-eng", &MP4_KEYS));
        assert!(is_known("Title", &MP4_KEYS));
        assert!(!is_known("com.apple.quicktime.make", &MOV_KEYS));
        assert!(is_statistic("BPS-eng") && is_statistic("_STATISTICS_TAGS-eng") && !is_statistic("title"));
    }
}
