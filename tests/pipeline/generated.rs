//! Cases that no clip at hand has, made with the ffmpeg command.

use crate::fidelity::check;
use crate::support::{Bench, ffmpeg, finish, finished};
use crate::witness::Witness;

const PICTURE: &str = "testsrc2=size=96x64:rate=25";

/// Makes a clip from ffmpeg arguments, styles it and compares everything.
fn kept(name: &str, extension: &str, args: &[&str]) -> Witness {
    let bench = Bench::new();
    let input = bench.path(&format!("in.{extension}"));
    ffmpeg(&[args, &[input.to_str().unwrap()]].concat());
    let output = bench.path(&format!("out.{extension}"));
    check(&bench, name, &input, &output, None, false);
    Witness::of(&output)
}

#[test]
fn one_frame() {
    let seen = kept(
        "one frame",
        "mp4",
        &["-f", "lavfi", "-i", PICTURE, "-frames:v", "1", "-c:v", "libx264", "-pix_fmt", "yuv420p"],
    );
    assert_eq!(seen.times.len(), 1);
}

#[test]
fn a_last_segment_of_one_frame() {
    let seen = kept(
        "51 frames",
        "mp4",
        &["-f", "lavfi", "-i", PICTURE, "-frames:v", "51", "-c:v", "libx264", "-pix_fmt", "yuv420p"],
    );
    assert_eq!(seen.times.len(), 51);
}

#[test]
fn no_audio_and_audio_that_starts_late() {
    kept("no audio", "mkv", &["-f", "lavfi", "-i", PICTURE, "-t", "1", "-c:v", "libx264", "-pix_fmt", "yuv420p"]);
    kept(
        "late audio",
        "mp4",
        &[
            "-f",
            "lavfi",
            "-i",
            PICTURE,
            "-itsoffset",
            "0.7",
            "-f",
            "lavfi",
            "-i",
            "sine=sample_rate=48000",
            "-t",
            "3",
            "-c:v",
            "libx264",
            "-pix_fmt",
            "yuv420p",
            "-c:a",
            "aac",
        ],
    );
}

#[test]
fn two_video_streams_and_cover_art() {
    kept(
        "two videos",
        "mkv",
        &[
            "-f",
            "lavfi",
            "-i",
            PICTURE,
            "-f",
            "lavfi",
            "-i",
            "mandelbrot=size=64x64:rate=25",
            "-t",
            "1",
            "-map",
            "0",
            "-map",
            "1",
            "-c:v",
            "libx264",
            "-pix_fmt",
            "yuv420p",
        ],
    );
    let bench = Bench::new();
    let cover = bench.path("cover.png");
    ffmpeg(&["-f", "lavfi", "-i", "testsrc=size=32x32", "-frames:v", "1", cover.to_str().unwrap()]);
    kept(
        "cover art",
        "mp4",
        &[
            "-f",
            "lavfi",
            "-i",
            PICTURE,
            "-i",
            cover.to_str().unwrap(),
            "-t",
            "1",
            "-map",
            "0",
            "-map",
            "1",
            "-c:v:0",
            "libx264",
            "-pix_fmt:v:0",
            "yuv420p",
            "-c:v:1",
            "png",
            "-disposition:v:1",
            "attached_pic",
        ],
    );
}

#[test]
fn b_frames_open_gops_and_an_edit_list() {
    let b_frames =
        ["-f", "lavfi", "-i", PICTURE, "-t", "5", "-c:v", "libx264", "-bf", "3", "-g", "60", "-pix_fmt", "yuv420p"];
    kept("b-frame tail", "mp4", &b_frames);
    kept("open GOP", "mkv", &[&b_frames[..], &["-x264-params", "open-gop=1:keyint=20"]].concat());
    // Cutting without re-encoding in the middle of a GOP leaves an edit list that hides the frames before the cut.
    let bench = Bench::new();
    let whole = bench.path("whole.mp4");
    ffmpeg(&[&b_frames[..], &[whole.to_str().unwrap()]].concat());
    kept("edit list", "mp4", &["-ss", "1.3", "-i", whole.to_str().unwrap(), "-c", "copy"]);
}

#[test]
fn variable_frame_rate_with_b_frames_across_a_join() {
    let drop = "select='not(mod(n\\,7)*mod(n\\,3))+gt(n\\,60)',setpts=PTS+0.004*random(0)/TB";
    kept(
        "vfr",
        "mp4",
        &[
            "-f",
            "lavfi",
            "-i",
            PICTURE,
            "-vf",
            drop,
            "-t",
            "6",
            "-vsync",
            "passthrough",
            "-enc_time_base",
            "1/12800",
            "-c:v",
            "libx264",
            "-bf",
            "2",
            "-pix_fmt",
            "yuv420p",
        ],
    );
}

#[test]
fn a_long_gap_leaves_segments_empty() {
    let gap = "settb=1/25,setpts='if(lt(N,10),N,N+200)'";
    let seen = kept(
        "gap",
        "mp4",
        &[
            "-f",
            "lavfi",
            "-i",
            PICTURE,
            "-vf",
            gap,
            "-frames:v",
            "30",
            "-vsync",
            "passthrough",
            "-c:v",
            "libx264",
            "-pix_fmt",
            "yuv420p",
        ],
    );
    assert!(seen.times.last().unwrap() - seen.times[0] > 8.0);
}

#[test]
fn chapters_tags_languages_and_attachments() {
    let bench = Bench::new();
    let meta = bench.path("meta.txt");
    std::fs::write(&meta, ";FFMETADATA1\ntitle=Test title\nartist=Somebody\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=1000\ntitle=One\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=1000\nEND=2000\ntitle=Two\n").unwrap();
    let note = bench.path("note.txt");
    std::fs::write(&note, "an attachment").unwrap();
    let subtitles = bench.path("sub.srt");
    std::fs::write(&subtitles, "1\n00:00:00,500 --> 00:00:01,500\nHello\n").unwrap();
    let base = [
        "-f",
        "lavfi",
        "-i",
        PICTURE,
        "-f",
        "lavfi",
        "-i",
        "sine=sample_rate=48000",
        "-i",
        subtitles.to_str().unwrap(),
        "-i",
        meta.to_str().unwrap(),
        "-t",
        "2",
        "-map",
        "0",
        "-map",
        "1",
        "-map",
        "2",
        "-map_metadata",
        "3",
        "-map_chapters",
        "3",
        "-c:v",
        "libx264",
        "-pix_fmt",
        "yuv420p",
        "-c:a",
        "aac",
        "-metadata:s:a:0",
        "language=deu",
    ];
    kept("mp4 with chapters", "mp4", &[&base[..], &["-c:s", "mov_text"]].concat());
    kept(
        "mkv with attachment",
        "mkv",
        &[&base[..], &["-c:s", "srt", "-attach", note.to_str().unwrap(), "-metadata:s:t", "mimetype=text/plain"]]
            .concat(),
    );
}

#[test]
fn sample_aspect_ratio_turns_with_a_rotation() {
    let bench = Bench::new();
    let (flat, input, output) = (bench.path("flat.mp4"), bench.path("in.mp4"), bench.path("out.mp4"));
    ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        PICTURE,
        "-t",
        "0.4",
        "-vf",
        "setsar=2/1",
        "-c:v",
        "libx264",
        "-pix_fmt",
        "yuv420p",
        flat.to_str().unwrap(),
    ]);
    ffmpeg(&["-i", flat.to_str().unwrap(), "-c", "copy", "-metadata:s:v:0", "rotate=90", input.to_str().unwrap()]);
    finished(&mut bench.run(&input, &output));
    let seen = Witness::of(&output);
    assert_eq!((&seen.main_video()["width"], &seen.main_video()["height"]), (&64.into(), &96.into()));
    assert_eq!(seen.main_video()["sample_aspect_ratio"], "1:2");
}

#[test]
fn colours_and_range_are_kept() {
    let tags =
        ["-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc", "-color_range", "tv"];
    let base = ["-f", "lavfi", "-i", PICTURE, "-t", "0.4"];
    kept(
        "hdr10",
        "mp4",
        &[
            &base[..],
            &["-c:v", "libx265", "-x265-params", "log-level=error", "-pix_fmt", "yuv420p10le", "-tag:v", "hvc1"],
            &tags,
        ]
        .concat(),
    );
    kept(
        "full range",
        "mp4",
        &[&base[..], &["-c:v", "libx264", "-pix_fmt", "yuv420p", "-color_range", "pc", "-vf", "scale=out_range=full"]]
            .concat(),
    );
    kept("4:2:2", "mov", &[&base[..], &["-c:v", "libx264", "-pix_fmt", "yuv422p"]].concat());
    kept("gray", "mkv", &[&base[..], &["-c:v", "libx264", "-pix_fmt", "gray"]].concat());
}

#[test]
fn damage_in_the_middle_fails_with_its_frames_or_is_concealed() {
    let bench = Bench::new();
    let (input, output) = (bench.path("in.ts"), bench.path("out.mp4"));
    ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=320x240:rate=25",
        "-t",
        "4",
        "-c:v",
        "libx264",
        "-g",
        "25",
        "-bf",
        "0",
        "-pix_fmt",
        "yuv420p",
        input.to_str().unwrap(),
    ]);
    let mut bytes = std::fs::read(&input).unwrap();
    let middle = bytes.len() / 2;
    // Payload bytes of whole transport packets; their headers stay.
    for packet in bytes[middle / 188 * 188..].chunks_mut(188).take(12) {
        packet[20..180].fill(0x5a);
    }
    std::fs::write(&input, bytes).unwrap();
    let (code, events, stderr) = finish(&mut bench.run(&input, &output));
    let last = events.last().unwrap();
    assert_eq!((code, last["event"].as_str()), (1, Some("failed")), "{stderr}");
    assert!(!last["frames"].as_array().unwrap().is_empty(), "{last}");
    assert!(!output.exists());
    let (code, events, stderr) = finish(bench.run(&input, &output).arg("--conceal"));
    assert_eq!(code, 0, "{stderr}");
    assert!(
        events.iter().any(|e| e["event"] == "warning" && e["message"].as_str().unwrap().contains("conceal")),
        "{events:?}"
    );
}
