//! `restyle probe`: what an input holds.

use super::args::ProbeArgs;
use super::output;
use crate::error::Error;
use restyle_actors::source_info::{SourceInfo, StreamInfo};

pub(super) fn probe(args: &ProbeArgs) -> Result<(), Error> {
    let info = crate::source::probe(&args.input)?;
    if args.json { output::write_json(&info) } else { output::write(&describe(&info)) }
}

fn describe(info: &SourceInfo) -> String {
    let video = &info.video;
    let (width, height) = video.upright_size();
    let seconds = info.duration_micros.map_or_else(|| "unknown".to_owned(), |d| format!("{:.3} s", d as f64 / 1e6));
    let frames = video.frames_about.map_or_else(|| "unknown".to_owned(), |n| format!("about {n}"));
    let mut text = format!("container  {} ({})\nduration   {seconds}\n", info.container, info.container_title);
    text += &format!("video      stream {}: {} {width}x{height} {}", video.index, video.codec, video.pix_fmt);
    text += &format!(", {:.3} fps, {frames} frames\n", video.average_frame_rate.as_f64());
    if let Some(aspect) = video.upright_aspect_ratio() {
        text += &format!("           sample aspect ratio {}:{}\n", aspect.num, aspect.den);
    }
    if !video.orientation.is_upright() {
        let flip = if video.orientation.flip { ", mirrored" } else { "" };
        text += &format!("           turned by {} degrees{flip}\n", u32::from(video.orientation.quarter_turns) * 90);
    }
    if video.interlaced {
        text += &format!("           interlaced ({})\n", video.field_order);
    }
    for stream in info.streams.iter().filter(|s| s.index != video.index) {
        text += &track(stream);
    }
    for chapter in &info.chapters {
        let title = chapter.tags.get("title").map_or("", String::as_str);
        text += &format!("chapter    {:.3} s {title}\n", chapter.start as f64 * chapter.time_base.as_f64());
    }
    for (key, value) in &info.tags {
        text += &format!("tag        {key}: {value}\n");
    }
    for warning in &info.warnings {
        text += &format!("warning    {warning}\n");
    }
    text
}

fn track(stream: &StreamInfo) -> String {
    let kind = format!("{:?}", stream.kind).to_lowercase();
    let language = stream.tags.get("language").map(|l| format!(" [{l}]")).unwrap_or_default();
    let audio = stream.audio.as_ref();
    let audio = audio.map(|a| format!(", {} Hz, {}", a.sample_rate, a.channel_layout)).unwrap_or_default();
    format!("{kind:<10} stream {}: {}{language}{audio}\n", stream.index, stream.codec)
}
