//! Every other track of the source: whether the output's container holds it, and under which tags.
//!
//! Nothing is ever transcoded. What cannot be held is named, track by track; the caller decides whether that is a
//! warning or an error. Whether a container takes a stream is asked of the muxer itself, by writing a header to nowhere.

pub mod tags;

use crate::encode::{Container, EncoderSettings};
use crate::ffmpeg::demux::Demuxer;
use crate::ffmpeg::mux::{Muxer, Tags, is_left_out};
use crate::source_info::{SourceInfo, StreamInfo, StreamKind};

/// What becomes of one stream of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carriage {
    /// Its frames are styled.
    Styled,
    /// Its packets are copied.
    Copied,
    /// Its picture becomes a file attached to the output.
    Attached,
    /// Something else in the output says the same: a chapter text track, a timecode track.
    Implied,
    /// It is not in the output, for this reason.
    Dropped(String),
}

/// The plan for one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackPlan {
    /// Stream of the source.
    pub index: usize,
    /// What becomes of it.
    pub carriage: Carriage,
    /// Tags of the output's track.
    pub tags: Tags,
}

/// Plans all streams in source order; the second part says what gets lost, one line each.
#[must_use]
pub fn plan(source: &SourceInfo, demuxer: &Demuxer, settings: &EncoderSettings) -> (Vec<TrackPlan>, Vec<String>) {
    let container = settings.container;
    let mut warnings = Vec::new();
    let plans = source
        .streams
        .iter()
        .map(|stream| {
            let carriage = carriage(source, stream, demuxer, container);
            if let Carriage::Dropped(reason) = &carriage {
                warnings.push(format!("{} is not carried: {reason}", describe(stream)));
            }
            let (tags, lost) = tags::of_track(stream, &carriage, container);
            if !lost.is_empty() {
                warnings.push(format!(
                    "{} loses its tags {}: {container} does not hold them",
                    describe(stream),
                    lost.join(", ")
                ));
            }
            TrackPlan { index: stream.index, carriage, tags }
        })
        .collect();
    (plans, warnings)
}

fn carriage(source: &SourceInfo, stream: &StreamInfo, demuxer: &Demuxer, container: Container) -> Carriage {
    if stream.index == source.video.index {
        return Carriage::Styled;
    }
    if is_left_out(demuxer, stream.index) && !source.chapters.is_empty() {
        return Carriage::Implied;
    }
    if stream.attached_picture {
        return cover_carriage(stream, container);
    }
    if stream.codec_tag == "tmcd" && timecode(source).is_some() {
        return Carriage::Implied;
    }
    if stream.kind == StreamKind::Attachment && container != Container::Mkv {
        return Carriage::Dropped(format!("{container} holds no attached files"));
    }
    let known_video = stream.kind == StreamKind::Video && (stream.width == Some(0) || stream.height == Some(0));
    if known_video {
        return Carriage::Dropped("its size is not known".to_owned());
    }
    if takes(demuxer, stream.index, container) {
        Carriage::Copied
    } else {
        Carriage::Dropped(format!("{container} does not hold {}", stream.codec))
    }
}

/// Returns the timecode of the styled track, from which mov and mp4 make a timecode track and Matroska a tag.
fn timecode(source: &SourceInfo) -> Option<&String> {
    source.streams.iter().find(|stream| stream.index == source.video.index)?.tags.get("timecode")
}

fn cover_carriage(stream: &StreamInfo, container: Container) -> Carriage {
    let is_known = tags::picture_mimetype(&stream.codec).is_some();
    match container {
        Container::Mp4 if matches!(stream.codec.as_str(), "mjpeg" | "png" | "bmp") => Carriage::Copied,
        Container::Mkv if is_known => Carriage::Attached,
        _ => Carriage::Dropped(format!("{container} holds no cover picture of this kind")),
    }
}

/// Asks the muxer whether it takes a stream.
fn takes(demuxer: &Demuxer, index: usize, container: Container) -> bool {
    let attempt = || {
        let mut trial = Muxer::create(container, None)?;
        let track = trial.add_copied(demuxer, index)?;
        let own = [("filename", "a"), ("mimetype", "application/octet-stream")];
        trial.set_tags(Some(track), &own.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        trial.begin(&[])
    };
    attempt().is_ok()
}

/// Names a track for people.
#[must_use]
pub fn describe(stream: &StreamInfo) -> String {
    let kind = match stream.kind {
        StreamKind::Video if stream.attached_picture => "cover picture",
        StreamKind::Video => "video",
        StreamKind::Audio => "audio",
        StreamKind::Subtitle => "subtitles",
        StreamKind::Data => "data",
        StreamKind::Attachment => "attachment",
        StreamKind::Unknown => "unknown",
    };
    let detail = [stream.tags.get("language"), stream.tags.get("title"), stream.tags.get("filename")];
    let detail: Vec<_> = detail.into_iter().flatten().filter(|text| *text != "und").map(String::as_str).collect();
    let detail = if detail.is_empty() { String::new() } else { format!(", {}", detail.join(", ")) };
    format!("track {} ({} {kind}{detail})", stream.index, stream.codec)
}
