//! The probe: what a source holds, and whether it can be styled at all.
//!
//! One frame is decoded, since headers are claims: size, pixel format, colour and fields are taken from it. Work is
//! bounded: so many bytes to learn the streams, so many packets to meet the first good frame.

use std::sync::Arc;

use restyle_models::pixels::{Picture, PixelFormat};

use crate::decode::packets::{PacketDecoder, Shared};
use crate::decode::shape::unreadable_format;
use crate::decode::timeline::{Placed, Timeline};
use crate::decode::{DecodeOptions, no_frame};
use crate::error::{ActorError, Result};
use crate::ffmpeg::decoder::Decoder;
use crate::ffmpeg::demux::{Demuxer, check_picture_size};
use crate::ffmpeg::describe::VideoFacts;
use crate::ffmpeg::pixfmt::ColourCodes;
use crate::source_info::{
    CodePoint, ColourTags, HdrInfo, Orientation, Rational, SourceInfo, StreamInfo, StreamKind, VideoInfo,
};
use crate::storage::Blob;

/// Packets, of all streams, within which the first good frame must come.
const PACKETS_BEFORE_FIRST_FRAME_MAX: u64 = 20_000;

/// Opens a source's container, picks the video stream and decodes its first frame. Blocks on reads of the blob.
///
/// The video stream is the first one that is not an attached picture.
///
/// # Errors
/// `InputUnreadable` for what is no video, is cut short or cannot be decoded at all; `InputRefused` for containers,
/// codecs, sizes and pixel formats that are not served; `InputChanged` and `Storage` from reading.
pub fn probe(blob: &Arc<Blob>) -> Result<SourceInfo> {
    let shown = blob.location().to_string();
    let demuxer = Demuxer::open(blob)?;
    let facts = demuxer.container_facts();
    let streams: Vec<StreamInfo> = (0..demuxer.streams()).filter_map(|index| demuxer.stream_info(index)).collect();
    let chosen = choose_video(&shown, &streams)?;
    let claims = demuxer.video_facts(chosen).ok_or_else(|| no_video(&shown, &streams))?;
    let (first, pts, packets) = first_frame(&shown, demuxer, chosen)?;
    let (video, warnings) = describe_video(&shown, &streams[chosen], &claims, &first, pts, packets.demuxer())?;
    let mut info = SourceInfo {
        identity: blob.identity().clone(),
        container: facts.name,
        container_title: facts.title,
        start_micros: facts.start_micros,
        duration_micros: facts.duration_micros,
        bit_rate: facts.bit_rate,
        tags: facts.tags,
        chapters: facts.chapters,
        streams,
        video,
        warnings,
    };
    if let (dropped @ 1.., why) = packets.dropped_before_first() {
        let why = why.unwrap_or("no reason given");
        info.warnings.push(format!("{dropped} frames before the first good one cannot be decoded: {why}"));
    }
    Ok(info)
}

fn choose_video(shown: &str, streams: &[StreamInfo]) -> Result<usize> {
    let film = |stream: &&StreamInfo| stream.kind == StreamKind::Video && !stream.attached_picture;
    streams.iter().find(film).map(|stream| stream.index).ok_or_else(|| no_video(shown, streams))
}

fn no_video(shown: &str, streams: &[StreamInfo]) -> ActorError {
    let mut kinds: Vec<String> = streams
        .iter()
        .map(|s| if s.attached_picture { "cover picture".to_owned() } else { format!("{:?}", s.kind).to_lowercase() })
        .collect();
    kinds.dedup();
    let found = if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") };
    ActorError::InputUnreadable(format!(
        "input {shown} has no video stream, only {found}; give a file with moving pictures"
    ))
}

/// Decodes up to the first good frame.
fn first_frame(shown: &str, demuxer: Demuxer, stream: usize) -> Result<(Shared, i64, PacketDecoder)> {
    let decoder = Decoder::open(&demuxer, stream, 1, None)?;
    let timeline = Timeline::new(false, 1);
    let mut packets = PacketDecoder::new(demuxer, decoder, stream, timeline, &DecodeOptions::default())
        .with_patience(PACKETS_BEFORE_FIRST_FRAME_MAX);
    while let Some(placed) = packets.next()? {
        if let Placed::Frame { payload, pts, .. } = placed {
            return Ok((payload, pts, packets));
        }
    }
    Err(no_frame(shown, packets.dropped_before_first().1))
}

fn describe_video(
    shown: &str,
    stream: &StreamInfo,
    claims: &VideoFacts,
    first: &Shared,
    start_pts: i64,
    demuxer: &Demuxer,
) -> Result<(VideoInfo, Vec<String>)> {
    let mut warnings = Vec::new();
    let (width, height) = (first.width(), first.height());
    check_picture_size(shown, i64::from(width), i64::from(height))?;
    let pix_fmt = first.pix_fmt();
    let colour = merged_colour(first.colour(), claims.colour);
    let decoded = pix_fmt.canonical(colour).ok_or_else(|| unreadable_format(shown, &pix_fmt.name()))?;
    let orientation = claims.display_matrix.map_or(Some(Orientation::default()), orientation_of).unwrap_or_else(|| {
        warnings.push("the display matrix is no quarter turn and is ignored".to_owned());
        Orientation::default()
    });
    let dolby_vision = claims.dolby_vision || first.has_dolby_vision();
    if dolby_vision {
        warnings.push("dolby vision metadata is dropped".to_owned());
    }
    warnings.extend(first.unserved_side_data().into_iter().map(|what| format!("{what} will be dropped")));
    let alpha = pix_fmt.describe().is_some_and(|d| d.has_alpha());
    if alpha {
        warnings.push("transparency (alpha) is dropped".to_owned());
    }
    if matches!(colour.matrix, 10 | 13 | 14) {
        let name = CodePoint::matrix(colour.matrix).name;
        warnings.push(format!("the colour matrix {name} is treated as bt2020nc while styling"));
    }
    let frame_hdr = first.hdr();
    let video = VideoInfo {
        index: stream.index,
        codec: stream.codec.clone(),
        profile: stream.profile.clone(),
        width,
        height,
        sample_aspect_ratio: demuxer.sample_aspect_ratio(stream.index, Some(first)),
        orientation,
        pix_fmt: pix_fmt.name(),
        format: upright_format(decoded, orientation),
        time_base: stream.time_base,
        start_pts,
        duration: stream.duration,
        average_frame_rate: claims.average_frame_rate,
        real_frame_rate: claims.real_frame_rate,
        frames_about: frames_about(stream, claims.average_frame_rate, demuxer.container_facts().duration_micros),
        field_order: field_order_name(claims.field_order).to_owned(),
        interlaced: first.is_interlaced() || matches!(claims.field_order, 2..=5),
        colour: tags_of(colour),
        hdr: HdrInfo {
            mastering: claims.hdr.mastering.clone().or(frame_hdr.mastering),
            content_light: claims.hdr.content_light.or(frame_hdr.content_light),
        },
        dolby_vision,
        alpha,
    };
    Ok((video, warnings))
}

/// Takes each code from the frame where it is specified there, else from the container.
fn merged_colour(frame: ColourCodes, container: ColourCodes) -> ColourCodes {
    let pick = |unknown: i32, frame: i32, container: i32| if frame == unknown { container } else { frame };
    ColourCodes {
        primaries: pick(2, frame.primaries, container.primaries),
        transfer: pick(2, frame.transfer, container.transfer),
        matrix: pick(2, frame.matrix, container.matrix),
        range: pick(0, frame.range, container.range),
        chroma_location: pick(0, frame.chroma_location, container.chroma_location),
    }
}

fn tags_of(colour: ColourCodes) -> ColourTags {
    ColourTags {
        primaries: CodePoint::primaries(colour.primaries),
        transfer: CodePoint::transfer(colour.transfer),
        matrix: CodePoint::matrix(colour.matrix),
        range: CodePoint::range(colour.range),
        chroma_location: CodePoint::chroma_location(colour.chroma_location),
    }
}

/// Reads a display matrix's upper left part: x becomes `a x + c y`, y becomes `b x + d y`, with y pointing down.
///
/// `None` where it is no quarter turn, with or without a flip.
fn orientation_of([a, b, c, d]: [i32; 4]) -> Option<Orientation> {
    if [a, b, c, d] == [0; 4] {
        return Some(Orientation::default());
    }
    let small = |value: i32, large: i32| i64::from(value).abs() * 100 <= i64::from(large).abs();
    let signs = if small(b, a) && small(c, d) {
        (a.signum(), 0, 0, d.signum())
    } else if small(a, b) && small(d, c) {
        (0, b.signum(), c.signum(), 0)
    } else {
        return None;
    };
    let (quarter_turns, flip) = match signs {
        (1, 0, 0, 1) => (0, false),
        (-1, 0, 0, 1) => (0, true),
        (0, 1, -1, 0) => (1, false),
        (0, 1, 1, 0) => (1, true),
        (-1, 0, 0, -1) => (2, false),
        (1, 0, 0, -1) => (2, true),
        (0, -1, 1, 0) => (3, false),
        (0, -1, -1, 0) => (3, true),
        _ => return None,
    };
    Some(Orientation { quarter_turns, flip })
}

/// Returns the format after turning: 4:2:2 turned on its side is 4:4:0, and chroma keeps its place in the scene.
fn upright_format(decoded: PixelFormat, orientation: Orientation) -> PixelFormat {
    Picture::zeroed(decoded, 8, 8)
        .and_then(|picture| picture.rotated(orientation.quarter_turns, orientation.flip))
        .map_or(decoded, |picture| picture.format)
}

fn frames_about(stream: &StreamInfo, rate: Rational, duration_micros: Option<i64>) -> Option<u64> {
    if let Some(frames) = stream.frames {
        return u64::try_from(frames).ok();
    }
    let own = stream.duration.map(|ticks| ticks as f64 * stream.time_base.as_f64());
    let seconds = own.or(duration_micros.map(|micros| micros as f64 / 1e6))?;
    let frames = seconds * rate.as_f64();
    (1.0..1e12).contains(&frames).then_some(frames.round() as u64)
}

fn field_order_name(code: i32) -> &'static str {
    match code {
        1 => "progressive",
        2 => "tt",
        3 => "bb",
        4 => "tb",
        5 => "bt",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: i32 = 65536;

    fn check(matrix: [i32; 4], quarter_turns: u8, flip: bool) {
        assert_eq!(orientation_of(matrix), Some(Orientation { quarter_turns, flip }), "{matrix:?}");
    }

    #[test]
    fn display_matrices_are_quarter_turns_and_flips() {
        check([ONE, 0, 0, ONE], 0, false);
        check([0, ONE, -ONE, 0], 1, false);
        check([-ONE, 0, 0, -ONE], 2, false);
        check([0, -ONE, ONE, 0], 3, false);
        check([-ONE, 0, 0, ONE], 0, true);
        check([ONE, 0, 0, -ONE], 2, true);
        check([0, 0, 0, 0], 0, false);
        assert_eq!(orientation_of([46341, 46341, -46341, 46341]), None);
    }
}
