//! Decoders and encoders that panic or hang: everything that is under way is begun again, a few times. And segments that are damaged between
//! scoring and joining.

use crate::rehearsal::{FRAMES, Rehearsal, SEGMENT_FRAMES, SLOW, in_flight};
use std::time::{Duration, Instant};

/// What may be scored again when all that is under way is begun again: two open segments without packs, and what is in flight.
fn under_way() -> u64 {
    2 * SEGMENT_FRAMES + in_flight(2)
}

#[test]
fn a_decoder_or_an_encoder_that_panics_once_is_begun_again() {
    for point in ["decode:frame:60", "encode:frame:60"] {
        let rehearsal = Rehearsal::new();
        rehearsal.finishes(&format!("{point}=1*panic"));
        assert!(rehearsal.scored_ever() <= FRAMES + under_way(), "{point}: {}", rehearsal.scored_ever());
    }
}

#[test]
fn a_decoder_or_an_encoder_that_hangs_once_is_left_behind() {
    for point in ["decode:frame:60", "encode:frame:60"] {
        let rehearsal = Rehearsal { hang_seconds: 2, ..Rehearsal::new() };
        rehearsal.finishes(&format!("{point}=1*pause"));
        assert!(rehearsal.scored_ever() <= FRAMES + under_way(), "{point}: {}", rehearsal.scored_ever());
    }
}

#[test]
fn an_encoder_that_hangs_for_a_while_and_then_goes_on_does_no_harm() {
    let rehearsal = Rehearsal { hang_seconds: 1, ..Rehearsal::new() };
    rehearsal.finishes(&format!("encode:frame:20=1*delay(3500);{SLOW}"));
    assert_eq!(rehearsal.objects("seg").len(), 3);
}

#[test]
fn a_frame_that_the_encoder_never_gets_through_is_named() {
    for (action, hang_seconds) in [("panic", 60), ("pause", 1)] {
        let rehearsal = Rehearsal { hang_seconds, ..Rehearsal::new() };
        let (code, last, stderr) = rehearsal.ends(&format!("encode:frame:60={action}"));
        assert_eq!((code, last["kind"].as_str()), (1, Some("job_failed")), "{action}: {last} {stderr}");
        assert_eq!(last["frames"], serde_json::json!([60]), "{action}: {last}");
        assert!(!rehearsal.output.exists());
        let done = rehearsal.finishes("");
        assert!(done["segments_reused"].as_u64().unwrap() >= 1, "{action}: finished segments are kept: {done}");
    }
}

#[test]
fn a_frame_that_the_decoder_never_gets_through_is_named() {
    for (action, hang_seconds) in [("panic", 60), ("pause", 1)] {
        let rehearsal = Rehearsal { hang_seconds, ..Rehearsal::new() };
        let (code, last, stderr) = rehearsal.ends(&format!("decode:frame:60={action}"));
        assert_eq!((code, last["kind"].as_str()), (1, Some("job_failed")), "{action}: {last} {stderr}");
        assert!(last["message"].as_str().unwrap().contains("the decoder"), "{last}");
        assert_eq!(last["frames"], serde_json::json!([60]), "{action}: {last}");
        rehearsal.finishes("");
    }
}

#[test]
fn row_17_a_segment_that_is_damaged_before_it_is_joined_is_made_again() {
    let rehearsal = Rehearsal::new();
    let mut run = rehearsal.started("publish:begin=1*delay(2500)");
    let begun = Instant::now();
    while rehearsal.objects("seg").len() < 3 {
        assert!(begun.elapsed() < Duration::from_secs(60), "three segments in a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
    // The last look at all segments comes right after the last commit.
    std::thread::sleep(Duration::from_millis(500));
    let middle = &rehearsal.objects("seg")[1];
    let whole = std::fs::metadata(middle).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(middle).unwrap().set_len(whole / 2).unwrap();
    assert_eq!(run.wait().code(), Some(0));
    rehearsal.is_identical();
    assert!(rehearsal.scored_ever() > FRAMES, "a segment was scored again");
    let done = rehearsal.finishes("");
    assert_eq!(done["frames_scored"], 0, "{done}");
}
