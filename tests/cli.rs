//! What the command says and returns when things are not as they should be.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they skip and what they measured")]

mod support;

use serde_json::Value;
use std::path::Path;
use support::{Bench, ffmpeg, ffprobe, finish, finished, restyle, shared};

/// A short clip with sound.
fn clip(bench: &Bench) -> std::path::PathBuf {
    let path = bench.path("in.mp4");
    ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=96x64:rate=25",
        "-f",
        "lavfi",
        "-i",
        "sine=440:sample_rate=48000",
        "-t",
        "1",
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-pix_fmt",
        "yuv420p",
        "-c:a",
        "aac",
        path.to_str().unwrap(),
    ]);
    path
}

/// Runs a job that must be refused: the exit code, a single clear line, nothing at OUTPUT.
fn refused(bench: &Bench, input: &Path, code: i32, kind: &str, says: &str) {
    let output = bench.path("refused.mp4");
    let (exit, events, stderr) = finish(&mut bench.run(input, &output));
    assert_eq!(exit, code, "{}: {stderr}", input.display());
    let last = events.last().expect("the last line is there however early the job ends");
    assert_eq!((last["event"].as_str(), last["kind"].as_str()), (Some("failed"), Some(kind)), "{last}");
    let message = last["message"].as_str().unwrap();
    assert!(message.contains(says), "{message:?} does not say {says:?}");
    assert_eq!(stderr.lines().filter(|l| l.starts_with("restyle: ")).count(), 1, "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert!(!output.exists());
}

#[test]
fn inputs_that_are_no_video_are_refused_with_3() {
    let bench = Bench::new();
    let write = |name: &str, bytes: &[u8]| {
        let path = bench.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    refused(&bench, &bench.path("missing.mp4"), 3, "input_unreadable", "missing.mp4");
    refused(&bench, bench.dir.path(), 3, "input_unreadable", "");
    refused(&bench, &write("empty.mp4", b""), 3, "input_unreadable", "empty.mp4");
    refused(&bench, &write("text.mp4", b"hello, this is no video\n"), 3, "input_unreadable", "text.mp4");
    let clip = clip(&bench);
    let whole = std::fs::read(&clip).unwrap();
    refused(&bench, &write("cut.mp4", &whole[..whole.len() / 2]), 3, "input_unreadable", "cut.mp4");
    let audio = bench.path("audio.mp4");
    ffmpeg(&["-f", "lavfi", "-i", "sine", "-t", "0.2", "-c:a", "aac", audio.to_str().unwrap()]);
    refused(&bench, &audio, 3, "input_unreadable", "video");
}

#[test]
fn a_playlist_named_mp4_opens_no_other_file() {
    let bench = Bench::new();
    let clip = clip(&bench);
    for (name, text) in [
        ("hls.mp4", format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n", clip.display())),
        ("concat.mp4", format!("ffconcat version 1.0\nfile '{}'\n", clip.display())),
    ] {
        let path = bench.path(name);
        std::fs::write(&path, text).unwrap();
        let (code, events, _) = finish(&mut bench.run(&path, &bench.path("out.mp4")));
        assert_eq!(code, 3, "{name}: {events:?}");
        assert!(!bench.path("out.mp4").exists());
    }
}

#[test]
fn a_playlist_named_mp4_opens_no_network() {
    let bench = Bench::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let path = bench.path("net.mp4");
    std::fs::write(&path, format!("#EXTM3U\n#EXTINF:1,\nhttp://{address}/a.ts\n#EXT-X-ENDLIST\n")).unwrap();
    let (code, ..) = finish(&mut bench.run(&path, &bench.path("out.mp4")));
    assert_eq!(code, 3);
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody connected");
}

#[test]
fn usage_and_configuration_have_their_codes() {
    let bench = Bench::new();
    let input = clip(&bench);
    let check = |args: &[&str], code: i32, says: &str| {
        let (exit, events, stderr) = finish(
            restyle().args(["run", "--json", "--progress", "none", "--work-dir"]).arg(bench.path("work")).args(args),
        );
        assert_eq!(exit, code, "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr:?} does not say {says:?}");
        if exit != 2 || !events.is_empty() {
            assert_eq!(events.last().unwrap()["event"], "failed", "{args:?}");
        }
    };
    let (input, out) = (input.to_str().unwrap().to_owned(), bench.path("out.mp4").to_str().unwrap().to_owned());
    let tiny = bench.path("tiny.safetensors").to_str().unwrap().to_owned();
    check(&[&input, &out], 2, "style");
    check(&[&input, &input, "--style", &tiny], 2, "output");
    check(&[&input, &bench.path("out.xyz").to_string_lossy(), "--style", &tiny], 2, "mkv");
    check(&[&input, &out, "--style", "no-such-style"], 4, "starry-night");
    check(&[&input, &out, "--style", &input], 4, "style");
    check(&[&input, &out, "--style", &tiny, "--size", "3"], 2, "32..=8192");
    check(&[&input, &out, "--style", &tiny, "--workers", "many"], 2, "1 to 256");
    check(&[&input, &out, "--style", &tiny, "--codec", "no-such-codec"], 2, "codec");
    check(&[&input, &out, "--style", &tiny, "--decode", "gpu"], 2, "cuda");
    check(&[&input, &bench.path("no/such/folder/out.mp4").to_string_lossy(), "--style", &tiny], 5, "folder");
}

#[test]
fn a_card_that_is_not_there_is_refused_before_any_work() {
    let bench = Bench::new();
    let (input, out) = (clip(&bench), bench.path("out.mp4"));
    // A number that is missing where there are cards as well.
    let (exit, events, stderr) = finish(bench.run(&input, &out).args(["--device", "cuda:4711"]));
    let failed = events.last().unwrap();
    assert_eq!((exit, failed["event"].as_str(), failed["kind"].as_str()), (6, Some("failed"), Some("device")));
    let why = if cfg!(feature = "cuda") { "CUDA device" } else { "build with --features cuda" };
    for says in ["cuda:4711", why, "--device cpu"] {
        assert!(stderr.contains(says), "{stderr:?} does not say {says:?}");
    }
    assert!(!out.exists() && !bench.path("work").exists(), "something was begun");
}

#[test]
fn auto_is_the_processor_where_no_card_answers() {
    let bench = Bench::new();
    let (input, auto, cpu) = (clip(&bench), bench.path("auto.mp4"), bench.path("cpu.mp4"));
    let (exit, events, stderr) = finish(bench.run(&input, &auto).args(["--device", "auto"]));
    assert_eq!(exit, 0, "{stderr}");
    let planned = events.iter().find(|e| e["event"] == "planned").unwrap();
    if planned["device"] != "cpu" {
        println!("skipped: a card answers here");
        return;
    }
    finished(bench.run(&input, &cpu).args(["--device", "cpu"]));
    assert!(std::fs::read(auto).unwrap() == std::fs::read(cpu).unwrap(), "auto and cpu give the same bytes");
}

#[test]
fn what_a_card_would_decode_and_encode_the_processor_does_with_a_note() {
    let bench = Bench::new();
    let (input, card, cpu) = (clip(&bench), bench.path("card.mp4"), bench.path("cpu.mp4"));
    let (exit, events, stderr) =
        finish(bench.run(&input, &card).args(["--codec", "h264_nvenc", "--decode", "cuda", "--device", "cpu"]));
    assert_eq!(exit, 0, "{stderr}");
    let says = |what: &str| events.iter().any(|e| e["message"].as_str().is_some_and(|m| m.ends_with(what)));
    if !says("the processor decodes instead") || !says("libx264 encodes instead") {
        println!("skipped: a card answers here: {events:?}");
        return;
    }
    let done = finished(bench.run(&input, &cpu).args(["--codec", "h264", "--device", "cpu"]));
    assert_ne!(done["job"], events.last().unwrap()["job"], "another codec is another job");
    assert!(std::fs::read(card).unwrap() == std::fs::read(cpu).unwrap(), "software gives the same bytes");
}

#[test]
fn wrong_tensors_are_named() {
    let bench = Bench::new();
    let input = clip(&bench);
    let good = support::tiny_style(1);
    let header = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let text = String::from_utf8(good[8..8 + header].to_vec())
        .unwrap()
        .replace("res1.conv1.conv2d.weight", "res9.conv1.conv2d.weight");
    let renamed = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &good[8 + header..]].concat();
    for (name, bytes) in [("renamed", renamed), ("cut", good[..good.len() - 100].to_vec()), ("noise", vec![0xff; 4096])]
    {
        let weights = bench.path(&format!("{name}.safetensors"));
        std::fs::write(&weights, bytes).unwrap();
        let mut command = restyle();
        command.arg("run").arg(&input).arg(bench.path("out.mp4")).arg("--style").arg(&weights);
        let (code, _, stderr) =
            finish(command.args(["--json", "--progress", "none", "--work-dir"]).arg(bench.path("work")));
        assert_eq!(code, 4, "{name}: {stderr}");
        assert!(stderr.contains(name), "{stderr}");
    }
}

#[test]
fn a_foreign_output_is_refused_and_an_own_one_is_up_to_date() {
    let bench = Bench::new();
    let (input, output) = (clip(&bench), bench.path("out.mp4"));
    std::fs::write(&output, b"somebody's only copy").unwrap();
    let (code, _, stderr) = finish(&mut bench.run(&input, &output));
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("--overwrite"), "{stderr}");
    assert_eq!(std::fs::read(&output).unwrap(), b"somebody's only copy");
    let first = finished(bench.run(&input, &output).arg("--overwrite"));
    assert_eq!((first["frames"].as_u64(), first["frames_scored"].as_u64()), (Some(25), Some(25)));
    let bytes = std::fs::read(&output).unwrap();
    let again = finished(&mut bench.run(&input, &output));
    assert_eq!(
        (again["nothing_to_do"].as_bool(), again["frames_scored"].as_u64(), again["frames_reused"].as_u64()),
        (Some(true), Some(0), Some(25))
    );
    std::fs::remove_file(&output).unwrap();
    let republished = finished(&mut bench.run(&input, &output));
    assert_eq!(republished["frames_scored"], 0, "a lost output is published again");
    assert_eq!(std::fs::read(&output).unwrap(), bytes);
}

#[test]
fn a_dry_run_does_nothing() {
    let bench = Bench::new();
    let (code, events, stderr) = finish(bench.run(&clip(&bench), &bench.path("out.mp4")).arg("--dry-run"));
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(events.len(), 1);
    assert_eq!((events[0]["event"].as_str(), events[0]["schema"].as_u64()), (Some("planned"), Some(1)));
    assert!(!bench.path("out.mp4").exists());
    assert!(!bench.path("work").exists());
}

#[test]
fn every_json_line_has_a_schema_and_an_event() {
    let bench = Bench::new();
    let (code, events, _) = finish(&mut bench.run(&clip(&bench), &bench.path("out.mp4")));
    assert_eq!(code, 0);
    assert!(events.iter().all(|e| e["schema"] == 1 && e["event"].is_string()), "{events:?}");
    assert_eq!(events[0]["event"], "planned");
    let last = events.last().unwrap();
    for field in [
        "job",
        "frames",
        "frames_scored",
        "frames_reused",
        "frames_rescored",
        "segments",
        "segments_reused",
        "wall_seconds",
        "fps",
        "output",
    ] {
        assert!(!last[field].is_null(), "{field} is missing in {last}");
    }
}

#[test]
fn people_read_progress_and_programs_read_probe() {
    let bench = Bench::new();
    let input = clip(&bench);
    let output = bench.path("out.mp4");
    let mut command = restyle();
    command.arg("run").arg(&input).arg(&output).arg("--style").arg(bench.path("tiny.safetensors"));
    let told = command.arg("--work-dir").arg(bench.path("work")).args(["--size", "48"]).output().unwrap();
    let stderr = String::from_utf8(told.stderr).unwrap();
    assert!(told.status.success() && told.stdout.is_empty(), "{stderr}");
    assert!(stderr.contains("frame ") && stderr.contains("25 frames"), "{stderr}");
    let probed = restyle().arg("probe").arg(&input).arg("--json").output().unwrap();
    let probed: Value = serde_json::from_slice(&probed.stdout).unwrap();
    assert_eq!((probed["video"]["width"].as_u64(), probed["video"]["height"].as_u64()), (Some(96), Some(64)));
    let text = restyle().arg("probe").arg(&input).output().unwrap();
    assert!(String::from_utf8(text.stdout).unwrap().contains("96x64"));
}

#[test]
fn the_other_verbs_answer() {
    let bench = Bench::new();
    for args in [
        &["styles", "list"][..],
        &["styles", "list", "--json"],
        &["styles", "verify"],
        &["completions", "bash"],
        &["man"],
    ] {
        let told = restyle().args(args).output().unwrap();
        assert!(
            told.status.success() && !told.stdout.is_empty(),
            "{args:?}: {}",
            String::from_utf8_lossy(&told.stderr)
        );
    }
    let doctor = restyle().args(["doctor", "--json", "--work-dir"]).arg(bench.path("work")).output().unwrap();
    let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    assert!(report["cores"].as_u64().unwrap() > 0 && report["ffmpeg"]["avcodec"].is_string(), "{report}");
    let jobs = restyle().args(["jobs", "list", "--work-dir"]).arg(bench.path("nothing")).output().unwrap();
    assert!(jobs.status.success() && jobs.stdout.is_empty());
}

#[test]
fn a_converted_style_replaces_nothing_unasked() {
    let bench = Bench::new();
    let (input, output) = (bench.path("net.pth"), bench.path("mine.safetensors"));
    let checkpoint = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tests/import/zip.pth")).unwrap();
    std::fs::write(&input, &checkpoint).unwrap();
    let convert = |into: &Path, more: &[&str]| {
        let told = restyle().args(["styles", "convert"]).arg(&input).arg(into).args(more).output().unwrap();
        (told.status.code(), String::from_utf8(told.stderr).unwrap())
    };
    assert_eq!(convert(&output, &[]).0, Some(0));
    let made = std::fs::read(&output).unwrap();
    std::fs::write(&output, b"somebody's").unwrap();
    let (code, stderr) = convert(&output, &[]);
    assert!(code == Some(2) && stderr.contains("--overwrite"), "{stderr}");
    assert_eq!(std::fs::read(&output).unwrap(), b"somebody's");
    assert_eq!(convert(&output, &["--overwrite"]).0, Some(0));
    assert_eq!(std::fs::read(&output).unwrap(), made);
    let link = bench.path("link.pth");
    std::os::unix::fs::symlink(&input, &link).unwrap();
    for same in [&input, &link] {
        let (code, stderr) = convert(same, &["--overwrite"]);
        assert!(code == Some(2) && stderr.contains("both"), "{stderr}");
    }
    let folder = bench.path("folder");
    std::fs::create_dir(&folder).unwrap();
    assert_eq!(convert(&folder, &["--overwrite"]).0, Some(2));
    assert_eq!(std::fs::read(&input).unwrap(), checkpoint);
}

#[test]
fn verify_says_what_it_compares() {
    let told = restyle().args(["styles", "verify"]).output().unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    assert!(told.status.success() && text.contains("any picture"), "{text}");
    for line in text.lines() {
        assert!(line.ends_with("is the BLAKE3 that this program was made with"), "{line}");
    }
}

#[test]
fn the_truncated_clip_is_refused_and_the_one_without_a_keyframe_is_styled() {
    let bench = Bench::new();
    let Some(cut) = shared("media-dev/derived-truncated-60pct.mp4") else { return };
    refused(&bench, &cut, 3, "input_unreadable", "truncated");
    let Some(late) = shared("media-dev/broken-no-initial-keyframe.ts") else { return };
    let output = bench.path("late.mp4");
    let (code, events, stderr) = finish(&mut bench.run(&late, &output));
    assert_eq!(code, 0, "{stderr}");
    assert!(events.iter().any(|e| e["event"] == "warning"), "{events:?}");
    assert_eq!(events.last().unwrap()["frames"], 15);
    let counted =
        ffprobe(&output, &["-select_streams", "v:0", "-count_frames", "-show_entries", "stream=nb_read_frames"]);
    assert_eq!(counted["streams"][0]["nb_read_frames"], "15");
}

#[test]
fn a_fresh_run_that_is_refused_forgets_nothing() {
    let bench = Bench::new();
    let (input, output) = (clip(&bench), bench.path("out.mp4"));
    finished(&mut bench.run(&input, &output));
    let bytes = std::fs::read(&output).unwrap();
    let fresh = finished(bench.run(&input, &output).arg("--fresh"));
    assert_eq!((fresh["frames_scored"].as_u64(), fresh["frames_rescored"].as_u64()), (Some(25), Some(0)));
    assert_eq!(std::fs::read(&output).unwrap(), bytes);
    std::fs::write(&output, b"somebody else's").unwrap();
    let (code, ..) = finish(bench.run(&input, &output).arg("--fresh"));
    assert_eq!(code, 2);
    std::fs::remove_file(&output).unwrap();
    assert_eq!(finished(&mut bench.run(&input, &output))["frames_scored"], 0, "the refusal threw finished work away");
}

#[test]
fn a_leftover_of_publishing_is_never_written_through() {
    let bench = Bench::new();
    let (input, output, kept) = (clip(&bench), bench.path("out.mp4"), bench.path("kept.mp4"));
    let done = finished(&mut bench.run(&input, &output));
    // As if killed right after the output got its name: the staged file is the output.
    let staged = bench.path("work").join("jobs").join(done["job"].as_str().unwrap()).join("staged");
    std::fs::hard_link(&output, &staged).unwrap();
    std::fs::rename(&output, &kept).unwrap();
    let before = std::fs::metadata(&kept).unwrap().modified().unwrap();
    finished(&mut bench.run(&input, &output));
    assert_eq!(std::fs::metadata(&kept).unwrap().modified().unwrap(), before);
}

#[test]
fn the_same_input_by_another_path_is_the_same_job() {
    let bench = Bench::new();
    let (input, output) = (clip(&bench), bench.path("out.mp4"));
    finished(&mut bench.run(&input, &output));
    let other = bench.dir.path().join("../").join(bench.dir.path().file_name().unwrap()).join("in.mp4");
    assert_eq!(finished(&mut bench.run(&other, &output))["nothing_to_do"], true);
}

#[test]
fn a_dangling_link_at_the_output_is_refused_before_any_work() {
    let bench = Bench::new();
    let output = bench.path("out.mp4");
    std::os::unix::fs::symlink(bench.path("nowhere"), &output).unwrap();
    let (code, _, stderr) = finish(&mut bench.run(&clip(&bench), &output));
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("link"), "{stderr}");
}
