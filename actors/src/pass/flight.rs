//! How many frames are under way at once: enough that no stage waits for another, few enough that memory stays bounded.

use super::PassWork;

/// Frames that a card takes in one call and has to take next.
const CARD_FRAMES: usize = 16;
/// Bytes that frames of a job on a card may take beside that. A card is faster than one encoder, so that several segments have to be
/// encoded at the same time, although frames arrive in order: whole segments lie between the card and the encoders.
const CARD_BYTES: u64 = 2 << 30;

/// Frames from the decoder to the writers, for the credits of a pass.
pub(super) fn frames(work: &PassWork) -> usize {
    if work.nodes.iter().all(|node| node.device == "cpu") {
        // Every scorer has a frame in hand and one to take next, and every open segment can hold one back.
        return work.nodes.len() * 2 + work.assemblers * 2;
    }
    let room = CARD_BYTES / work.frame_bytes.max(1) / work.assemblers.max(1) as u64;
    let each = u64::from(segment_frames(work)).min(room).max(2);
    work.nodes.len() * CARD_FRAMES + work.assemblers * usize::try_from(each).unwrap_or(usize::MAX)
}

/// Frames of a segment, by the mean rate that the container names; at least one.
pub(super) fn segment_frames(work: &PassWork) -> u32 {
    let video = &work.source.video;
    let seconds = work.segment_ticks as f64 * video.time_base.as_f64();
    (seconds * video.average_frame_rate.as_f64()).clamp(1.0, f64::from(u32::MAX)) as u32
}
