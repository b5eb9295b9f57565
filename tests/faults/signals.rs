//! Row 5: SIGTERM at any phase ends with 75 within ten seconds, and nothing finished is scored again. Row 28: two processes, one job.

use crate::rehearsal::{FRAMES, PACKED, Rehearsal, SLOW};
use rustix::process::Signal;
use std::io::Read;
use std::time::{Duration, Instant};

/// Sends SIGTERM when a point is reached and returns what the next run says.
fn terminated_at(point: &str, script: &str) -> serde_json::Value {
    let rehearsal = Rehearsal::new();
    let mut run = rehearsal.until(script, &format!("fault injected at {point}:"));
    let begun = Instant::now();
    run.signal(Signal::TERM);
    let code = run.wait().code();
    let took = begun.elapsed();
    assert_eq!(code, Some(75), "{point}");
    assert!(took < Duration::from_secs(10), "{point}: {took:?}");
    let mut said = String::new();
    run.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["kind"]), (&"failed".into(), &"interrupted".into()), "{point}");
    println!("{point}: 75 after {} ms", took.as_millis());
    let done = rehearsal.finishes("");
    assert!(rehearsal.scored_ever() <= FRAMES + done["frames_rescored"].as_u64().unwrap());
    done
}

#[test]
fn row_5_sigterm_while_something_is_slow() {
    for point in ["plan:before", "plan:after", "decode:frame", "assemble:before_commit", "join:before"] {
        let done = terminated_at(point, &format!("{point}=1*delay(800);{SLOW}"));
        assert_eq!(done["frames_rescored"], 0, "{point}: {done}");
    }
}

#[test]
fn row_5_sigterm_while_scoring() {
    let done = terminated_at("score:30", &format!("score:30=1*delay(300);{SLOW}"));
    assert_eq!(done["frames_rescored"], 0, "{done}");
    assert!(done["frames_reused"].as_u64().unwrap() >= 28, "{done}");
}

#[test]
fn row_5_sigterm_while_the_publisher_stands_still() {
    let done = terminated_at("publish:before", "publish:before=1*pause");
    assert_eq!((&done["frames_scored"], &done["frames_rescored"]), (&0.into(), &0.into()), "{done}");
}

#[test]
fn row_5_sigterm_while_a_scorer_stands_still() {
    // Until the hang limit a paused scorer looks busy; its frame is abandoned at the end of the notice.
    let done = terminated_at("score:30", &format!("score:30=1*pause;{PACKED}"));
    assert_eq!(done["frames_rescored"], 0, "{done}");
}

#[test]
fn row_28_a_second_process_waits_for_the_first_and_does_nothing_again() {
    let rehearsal = Rehearsal::new();
    let mut first = rehearsal.until_scored(SLOW, 5);
    let (code, last, _) = rehearsal.ends("");
    assert_eq!(code, 0, "{last}");
    assert_eq!(last["nothing_to_do"], true, "{last}");
    assert_eq!(first.wait().code(), Some(0));
    rehearsal.is_identical();
    assert_eq!(rehearsal.scored_ever(), FRAMES);
}

#[test]
fn row_28_a_second_process_takes_over_when_the_first_is_killed() {
    let rehearsal = Rehearsal::new();
    let first = rehearsal.until_scored(SLOW, 5);
    let mut second = rehearsal.run("").stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(400));
    assert!(second.try_wait().unwrap().is_none(), "the second did not wait");
    first.kill();
    assert!(second.wait().unwrap().success());
    rehearsal.is_identical();
}
