//! Row 33: a frame that kills its process every time ends in quarantine, with everything else kept.

use crate::rehearsal::{FRAMES, Rehearsal};

/// Runs again and again, as an init system would, until the job ends by itself; how many runs died.
fn restarted_until_it_ends(rehearsal: &Rehearsal, script: &str) -> (u32, serde_json::Value) {
    for deaths in 0..24 {
        let (code, last, stderr) = rehearsal.ends(script);
        if code != -1 {
            assert_eq!((code, last["kind"].as_str()), (1, Some("job_failed")), "{last} {stderr}");
            return (deaths, last);
        }
    }
    panic!("24 runs died and the job goes on");
}

#[test]
fn row_33_a_frame_that_aborts_scoring_is_named_and_the_rest_is_kept() {
    let rehearsal = Rehearsal::new();
    let (deaths, last) = restarted_until_it_ends(&rehearsal, "score:60=abort");
    println!("{deaths} deaths, then {last}");
    assert!(deaths >= 5, "two deaths and three strikes, not {deaths}");
    assert_eq!(last["frames"], serde_json::json!([60]), "{last}");
    assert!(!rehearsal.output.exists());
    assert_eq!(rehearsal.objects("dead").len(), 1);
    assert_eq!(rehearsal.objects("seg").len(), 2, "the other segments are finished");
    // A new run lifts the quarantine; the cause is gone.
    let done = rehearsal.finishes("");
    assert_eq!(done["segments_reused"], 2, "{done}");
    assert!(done["frames_scored"].as_u64().unwrap() <= 50, "{done}");
    assert_eq!(rehearsal.objects("dead").len(), 0);
}

#[test]
fn row_33_a_frame_that_aborts_decoding_is_named_and_what_was_finished_is_kept() {
    let rehearsal = Rehearsal::new();
    let (deaths, last) = restarted_until_it_ends(&rehearsal, "decode:frame:60=abort");
    println!("{deaths} deaths, then {last}");
    assert_eq!(last["frames"], serde_json::json!([60]), "{last}");
    assert!(!rehearsal.objects("seg").is_empty(), "what lies before it is finished");
    let done = rehearsal.finishes("");
    assert!(done["frames_scored"].as_u64().unwrap() < FRAMES, "{done}");
}
