//! Encoding: every codec and format gives equal bytes each time, segments join, and players read back what was meant.

mod media;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use media::{check_decode_times, described, encoded, frame_times, generate, gradient, joined, packets, probed, quiet};
use restyle_actors::encode::pix_fmt;
use restyle_actors::{
    Blob, ContentLight, EncodeRequest, EncodedSegment, EncoderSettings, ErrorKind, HdrInfo, MasteringDisplay, Rational,
    SourceInfo, probe,
};
use restyle_models::pixels::{ChromaSite, ColorMatrix, ColorRange, Layout, PixelFormat, Samples};

/// A source of one silent track to change at will.
struct Bench {
    folder: tempfile::TempDir,
    blob: Arc<Blob>,
    source: SourceInfo,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path =
            generate(folder.path(), "in.mp4", "-f lavfi -i testsrc2=s=64x48:r=25:d=0.2 -c:v libx264 -preset ultrafast");
        let blob = media::open(&path);
        let mut source = probe(&blob).unwrap();
        source.video.time_base = Rational::new(1, 12_800);
        Self { folder, blob, source }
    }

    fn of(layout: Layout, bits: u8, (width, height): (u32, u32)) -> Self {
        let mut bench = Self::new();
        let rgb = layout == Layout::Rgb;
        bench.source.video.format = PixelFormat {
            layout,
            bits,
            range: if rgb { ColorRange::Full } else { ColorRange::Limited },
            matrix: if rgb { ColorMatrix::Rgb } else { ColorMatrix::Bt709 },
            site: ChromaSite::Left,
        };
        (bench.source.video.width, bench.source.video.height) = (width, height);
        bench
    }

    fn choose(&self, request: &EncodeRequest) -> (EncoderSettings, Vec<String>) {
        EncoderSettings::choose(&self.source, request).unwrap_or_else(|e| panic!("{e}"))
    }

    fn join(&self, settings: &EncoderSettings, segments: Vec<EncodedSegment>, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        let report =
            joined(&self.blob, &self.source, settings, segments, &path).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(report.warnings, Vec::<String>::new(), "{name}");
        assert_eq!(report.bytes, std::fs::metadata(&path).unwrap().len());
        path
    }
}

fn request(container: &str, codec: &str, pix_fmt: &str) -> EncodeRequest {
    let fast = matches!(codec, "h264" | "hevc" | "vp9" | "av1").then(|| "ultrafast".to_owned());
    EncodeRequest {
        container: container.to_owned(),
        codec: (!codec.is_empty()).then(|| codec.to_owned()),
        pix_fmt: (!pix_fmt.is_empty()).then(|| pix_fmt.to_owned()),
        preset: fast,
        ..EncodeRequest::default()
    }
}

const TIMES: [i64; 9] = [0, 512, 1024, 1536, 2048, 2560, 3072, 3584, 4096];

fn check_format(container: &str, codec: &str, name: &str) {
    let label = format!("{codec} {name} in {container}");
    let (layout, bits) = pix_fmt::parse(name).unwrap();
    let bench = Bench::of(layout, bits, (72, 40));
    let (settings, warnings) = bench.choose(&request(container, codec, name));
    assert!(warnings.iter().all(|w| w.contains("full range")), "{label}: {warnings:?}");
    let segments = encoded(&settings, &TIMES, &[5, 1]);
    assert_eq!(segments, encoded(&settings, &TIMES, &[5, 1]), "{label}: equal pictures, equal bytes");
    assert!(segments.iter().all(|s| s.packets[0].key), "{label}");
    let path = bench.join(&settings, segments.clone(), &format!("a.{container}"));
    let again = bench.join(&settings, segments, &format!("b.{container}"));
    assert!(std::fs::read(&path).unwrap() == std::fs::read(again).unwrap(), "{label}: equal segments, equal file");
    let stream = &described(&path)["streams"][0];
    assert_eq!(stream["codec_name"], codec, "{label}");
    let tag = stream["codec_tag_string"].as_str().unwrap();
    match (container, codec, layout) {
        ("mov", "prores", Layout::Yuv422) => assert_eq!(tag, "apch", "{label}"),
        ("mov", "prores", _) => assert_eq!(tag, "ap4h", "{label}"),
        ("mp4" | "mov", "hevc", _) => assert_eq!(tag, "hvc1", "{label}"),
        _ => {}
    }
    assert_eq!((stream["width"].as_i64(), stream["height"].as_i64()), (Some(72), Some(40)), "{label}");
    let shown = stream["pix_fmt"].as_str().unwrap().replace("yuvj", "yuv").replace("bgr0", "gbrp");
    // Decoders show H.264 without chroma as 4:2:0.
    let expected = match (codec, name) {
        ("h264", "gray") => "yuv420p",
        // The decoder shows every 4:4:4 ProRes with 12 bits.
        ("prores", "yuv444p10le") => "yuv444p12le",
        _ => name,
    };
    assert_eq!(shown, expected, "{label}");
    check_times(&path, &TIMES, 12_800.0, &label);
    quiet("ffmpeg", &["-v", "error", "-i", path.to_str().unwrap(), "-f", "null", "-"]);
}

/// Compares frame times in seconds with ticks of a unit; exact in mp4 and mov, to half a tick elsewhere.
fn check_times(path: &Path, ticks: &[i64], per_second: f64, label: &str) {
    let base = &described(path)["streams"][0]["time_base"];
    let unit = base.as_str().unwrap().parse::<Rational>().unwrap().as_f64();
    let times = frame_times(path, 0);
    assert_eq!(times.len(), ticks.len(), "{label}");
    let exact = !path.to_str().unwrap().ends_with("mkv") && !path.to_str().unwrap().ends_with("webm");
    let allowed = if exact { 1e-9 } else { unit / 2.0 + 1e-9 };
    for (shown, tick) in times.iter().zip(ticks) {
        let difference = (*shown as f64 * unit - *tick as f64 / per_second).abs();
        assert!(difference <= allowed, "{label}: {times:?} should be {ticks:?} / {per_second}");
    }
    check_decode_times(&packets(path, 0), label);
}

#[test]
fn h264_takes_its_formats() {
    for name in ["yuv420p", "yuv422p", "yuv444p", "gray", "yuv420p10le", "yuv444p10le"] {
        check_format("mp4", "h264", name);
    }
    check_format("mov", "h264", "yuv420p");
    check_format("mkv", "h264", "yuv420p");
}

#[test]
fn hevc_takes_its_formats() {
    for name in ["yuv420p", "yuv422p10le", "yuv444p12le", "gray", "gbrp", "gbrp10le", "yuv420p12le"] {
        check_format("mp4", "hevc", name);
    }
    check_format("mov", "hevc", "yuv420p10le");
    check_format("mkv", "hevc", "yuv420p10le");
}

#[test]
fn vp9_takes_its_formats() {
    for name in ["yuv420p", "yuv422p", "yuv444p", "yuv440p", "yuv420p10le", "yuv444p12le", "gbrp"] {
        check_format("webm", "vp9", name);
    }
    check_format("mp4", "vp9", "yuv420p");
    check_format("mkv", "vp9", "yuv420p10le");
}

#[test]
fn av1_takes_its_formats() {
    for name in ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "gbrp"] {
        check_format("mkv", "av1", name);
    }
    check_format("mp4", "av1", "yuv420p10le");
    check_format("webm", "av1", "yuv420p");
}

#[test]
fn intermediates_take_their_formats() {
    for name in [
        "yuv420p",
        "yuv422p10le",
        "yuv444p16le",
        "gray",
        "gray16le",
        "gbrp",
        "gbrp12le",
        "yuv440p",
        "yuv411p",
        "yuv410p",
    ] {
        check_format("mkv", "ffv1", name);
    }
    check_format("mov", "prores", "yuv422p10le");
    check_format("mov", "prores", "yuv444p10le");
    check_format("mov", "mjpeg", "yuv420p");
    check_format("mkv", "mjpeg", "yuv444p");
    for name in ["yuv420p", "yuv422p", "yuv444p", "gbrp"] {
        check_format("mkv", "utvideo", name);
    }
}

#[test]
fn lossless_keeps_every_sample() {
    for name in ["gbrp", "gbrp10le", "yuv420p", "yuv422p10le", "yuv444p16le", "gray12le"] {
        let (layout, bits) = pix_fmt::parse(name).unwrap();
        let bench = Bench::of(layout, bits, (33, 17));
        let (settings, _) = bench.choose(&request("mkv", "ffv1", name));
        let path = bench.join(&settings, encoded(&settings, &TIMES[..3], &[]), "out.mkv");
        let raw =
            quiet("ffmpeg", &["-v", "error", "-i", path.to_str().unwrap(), "-f", "rawvideo", "-pix_fmt", name, "-"]);
        let mut expected = Vec::new();
        for number in 0..3 {
            let picture = gradient(settings.format, 33, 17, number);
            let order: &[usize] = if layout == Layout::Rgb { &[1, 2, 0] } else { &[0, 1, 2] };
            for plane in order.iter().filter_map(|at| picture.planes.get(*at)) {
                match &plane.samples {
                    Samples::U8(samples) => expected.extend_from_slice(samples),
                    Samples::U16(samples) => expected.extend(samples.iter().flat_map(|s| s.to_le_bytes())),
                }
            }
        }
        assert!(raw == expected, "{name}");
    }
}

#[test]
fn odd_sizes_keep_their_size() {
    let check = |container: &str, layout, size: (u32, u32), codec: &str, shown: &str, warned: bool| {
        let label = format!("{layout:?} {size:?} in {container}");
        let bench = Bench::of(layout, 8, size);
        let (settings, warnings) = bench.choose(&request(container, "", ""));
        assert_eq!(!warnings.is_empty(), warned, "{label}: {warnings:?}");
        let path = bench.join(&settings, encoded(&settings, &TIMES[..4], &[2]), &format!("out.{container}"));
        let stream = &described(&path)["streams"][0];
        assert_eq!(stream["codec_name"], codec, "{label}");
        assert_eq!(stream["pix_fmt"], shown, "{label}");
        assert_eq!(
            (stream["width"].as_u64(), stream["height"].as_u64()),
            (Some(size.0.into()), Some(size.1.into())),
            "{label}"
        );
        check_times(&path, &TIMES[..4], 12_800.0, &label);
    };
    check("mp4", Layout::Yuv420, (35, 21), "vp9", "yuv420p", false);
    check("mkv", Layout::Yuv420, (34, 21), "vp9", "yuv420p", false);
    check("webm", Layout::Yuv420, (1, 1), "vp9", "yuv420p", false);
    check("mov", Layout::Yuv420, (35, 21), "h264", "yuv444p", true);
    check("mp4", Layout::Yuv422, (35, 20), "vp9", "yuv422p", false);
    check("mp4", Layout::Yuv444, (35, 21), "h264", "yuv444p", false);
    check("mp4", Layout::Yuv420, (8, 2), "h264", "yuv420p", false);
}

#[test]
fn small_deep_pictures_find_a_codec() {
    let bench = Bench::of(Layout::Yuv420, 10, (8, 8));
    let (settings, _) = bench.choose(&request("mp4", "", ""));
    let path = bench.join(&settings, encoded(&settings, &TIMES[..2], &[]), "out.mp4");
    assert_eq!(described(&path)["streams"][0]["pix_fmt"], "yuv420p10le");
}

#[test]
fn one_frame_is_a_film() {
    for (container, codec) in [("mp4", "h264"), ("mkv", "hevc"), ("webm", "vp9"), ("mp4", "av1"), ("mov", "prores")] {
        let bench = Bench::of(Layout::Yuv422, 10, (64, 48));
        let (settings, _) = bench.choose(&request(container, codec, ""));
        let path = bench.join(&settings, encoded(&settings, &[2560], &[]), &format!("out.{container}"));
        check_times(&path, &[2560], 12_800.0, &format!("{codec} in {container}"));
    }
}

#[test]
fn variable_times_with_b_frames_cross_segments() {
    let times: Vec<i64> = (0..40)
        .scan(977, |at, n| {
            *at += 1 + (n * n * 37) % 4000;
            Some(*at)
        })
        .collect();
    for (container, codec) in [("mp4", "h264"), ("mov", "hevc"), ("mkv", "h264"), ("webm", "vp9")] {
        let label = format!("{codec} in {container}");
        let bench = Bench::of(Layout::Yuv420, 8, (64, 48));
        let settings = bench.choose(&EncodeRequest { preset: None, ..request(container, codec, "") }).0;
        // One frame in the last segment, and one alone in the middle.
        let segments = encoded(&settings, &times, &[15, 1, 23]);
        assert_eq!(segments.last().unwrap().packets.len(), 1);
        let reordered = segments[0].packets.windows(2).any(|pair| pair[0].pts > pair[1].pts);
        assert_eq!(reordered, codec != "vp9", "{label}: B-frames are on");
        let path = bench.join(&settings, segments, &format!("out.{container}"));
        check_times(&path, &times, 12_800.0, &label);
    }
}

#[test]
fn colours_aspect_and_hdr_are_written() {
    let point = |x: i32, y: i32| [Rational::new(x, 50_000), Rational::new(y, 50_000)];
    for (container, codec) in
        [("mp4", "hevc"), ("mkv", "hevc"), ("mov", "hevc"), ("mp4", "av1"), ("webm", "vp9"), ("mkv", "h264")]
    {
        let label = format!("{codec} in {container}");
        let mut bench = Bench::of(Layout::Yuv420, 10, (66, 48));
        let video = &mut bench.source.video;
        video.sample_aspect_ratio = Some(Rational::new(4, 3));
        video.format.matrix = ColorMatrix::Bt2020Ncl;
        for (tag, code) in [
            (&mut video.colour.primaries, 9),
            (&mut video.colour.transfer, 16),
            (&mut video.colour.matrix, 9),
            (&mut video.colour.range, 1),
        ] {
            tag.code = code;
        }
        video.hdr = HdrInfo {
            mastering: Some(MasteringDisplay {
                primaries: Some([point(35_400, 14_600), point(8_500, 39_850), point(6_550, 2_300)]),
                white_point: Some(point(15_635, 16_450)),
                luminance: Some([Rational::new(1, 10_000), Rational::new(1000, 1)]),
            }),
            content_light: Some(ContentLight { max_cll: 1000, max_fall: 400 }),
        };
        let (settings, _) = bench.choose(&request(container, codec, ""));
        let path = bench.join(&settings, encoded(&settings, &TIMES, &[4]), &format!("out.{container}"));
        let answer = probed(&path, "-show_streams -show_frames -read_intervals %+#1");
        let stream = &answer["streams"][0];
        assert_eq!(stream["sample_aspect_ratio"], "4:3", "{label}");
        assert_eq!(stream["color_primaries"], "bt2020", "{label}");
        assert_eq!(stream["color_transfer"], "smpte2084", "{label}");
        assert_eq!(stream["color_space"], "bt2020nc", "{label}");
        assert_eq!(stream["color_range"], "tv", "{label}");
        let side = format!("{}{}", stream["side_data_list"], answer["frames"][0]["side_data_list"]);
        assert!(
            (side.contains("35400/50000") || side.contains("177/250")) && side.contains("\"max_content\":1000"),
            "{label}: {side}"
        );
    }
}

#[test]
fn full_range_and_unspecified_tags_stay_what_they_are() {
    for (range, shown) in [(0, None), (1, Some("tv")), (2, Some("pc"))] {
        for (container, codec) in [("mp4", "h264"), ("mkv", "h264"), ("mp4", "hevc"), ("webm", "vp9")] {
            let mut bench = Bench::of(Layout::Yuv420, 8, (64, 48));
            bench.source.video.colour.range.code = range;
            if range == 2 {
                bench.source.video.format.range = ColorRange::Full;
            }
            let (settings, warnings) = bench.choose(&request(container, codec, ""));
            assert!(warnings.is_empty(), "{warnings:?}");
            let path = bench.join(&settings, encoded(&settings, &TIMES[..2], &[]), &format!("out.{container}"));
            let stream = &described(&path)["streams"][0];
            let is_limited_by_definition = range == 0 || (range == 1 && container == "mp4" && codec != "vp9");
            match stream["color_range"].as_str() {
                None | Some("tv") if is_limited_by_definition || codec == "vp9" && range == 0 => {}
                found => assert_eq!(found, shown, "range {range} of {codec} in {container}"),
            }
            assert!(stream["color_primaries"].is_null(), "{codec} in {container}: {stream}");
        }
    }
}

#[test]
fn requests_that_make_no_sense_are_usage_errors() {
    let bench = Bench::of(Layout::Yuv420, 8, (64, 48));
    let check = |request: EncodeRequest, text: &str| {
        let error = EncoderSettings::choose(&bench.source, &request).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        assert!(error.to_string().contains(text), "{error} should say {text}");
    };
    check(request("avi", "", ""), ".webm");
    check(request("webm", "h264", ""), "vp9, av1");
    check(request("mov", "vp9", ""), "mp4, mkv, webm");
    check(request("mp4", "theora", ""), "h264");
    check(request("mp4", "h264", "yuv420p12le"), "yuv420p10le");
    check(request("mp4", "", "nv12"), "yuv420p");
    check(EncodeRequest { preset: Some("fastest".into()), ..request("mp4", "h264", "") }, "veryfast");
    check(EncodeRequest { crf: Some(99.0), ..request("mp4", "h264", "") }, "51");
    check(EncodeRequest { crf: Some(9.0), ..request("mkv", "ffv1", "") }, "--crf");
    let odd = Bench::of(Layout::Yuv420, 8, (35, 21));
    let strict = EncodeRequest { strict: true, ..request("mov", "", "") };
    assert_eq!(EncoderSettings::choose(&odd.source, &strict).unwrap_err().kind(), ErrorKind::Usage);
    assert!(EncoderSettings::choose(&odd.source, &request("mp4", "h264", "yuv420p")).is_err());
}

#[test]
fn pictures_and_times_that_do_not_fit_are_refused() {
    let bench = Bench::of(Layout::Yuv420, 8, (64, 48));
    let (settings, _) = bench.choose(&request("mp4", "h264", ""));
    let mut encoder = restyle_actors::SegmentEncoder::new(&settings).unwrap();
    encoder.push(&gradient(settings.format, 64, 48, 0), 100, 10).unwrap();
    let error = encoder.push(&gradient(settings.format, 64, 48, 1), 100, 10).unwrap_err();
    assert!(error.to_string().contains("100"), "{error}");
    let error = encoder.push(&gradient(settings.format, 64, 46, 1), 110, 10).unwrap_err();
    assert!(error.to_string().contains("64x46"), "{error}");
    assert!(restyle_actors::SegmentEncoder::new(&settings).unwrap().finish().is_err());
}

#[test]
fn segments_that_do_not_fit_are_refused_and_leave_nothing() {
    let bench = Bench::of(Layout::Yuv420, 8, (64, 48));
    let (settings, _) = bench.choose(&request("mp4", "h264", ""));
    let path = bench.folder.path().join("out.mp4");
    let segments = encoded(&settings, &TIMES, &[5]);
    let check = |segments: Vec<EncodedSegment>, text: &str| {
        let error = joined(&bench.blob, &bench.source, &settings, segments, &path).unwrap_err();
        assert!(error.to_string().contains(text), "{error} should say {text}");
        assert!(!path.exists());
    };
    let other =
        bench.choose(&EncodeRequest { crf: Some(30.0), preset: Some("medium".into()), ..request("mp4", "h264", "") }).0;
    check(vec![segments[0].clone(), encoded(&other, &TIMES, &[5])[1].clone()], "headers");
    check(vec![segments[1].clone(), segments[0].clone()], "begins at tick 0");
    check(vec![segments[0].clone(), segments[0].clone()], "begins at tick 0");
    check(vec![], "no segment");
    let read_back = segments.iter().map(|s| EncodedSegment::from_bytes(&s.to_bytes()).unwrap()).collect();
    bench.join(&settings, read_back, "out.mp4");
}

#[test]
fn cut_of_segments_does_not_change_times() {
    let bench = Bench::of(Layout::Yuv420, 8, (64, 48));
    let (settings, _) = bench.choose(&EncodeRequest { preset: None, ..request("mp4", "h264", "") });
    let times = |lengths: &[usize]| {
        let path = bench.join(&settings, encoded(&settings, &TIMES, lengths), "out.mp4");
        packets(&path, 0).iter().map(|p| p.dts.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(times(&[]), times(&[1, 4, 3]));
}
