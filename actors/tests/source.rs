//! What a source is asked before work begins: what it holds, whether it is accepted, whether it stays the same.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they skip and what they measured")]

mod support;

use std::path::Path;
use std::sync::Arc;

use restyle_actors::storage::MemoryStore;
use restyle_actors::{Blob, DecodeOptions, ErrorKind, FrameDecoder, Location, Rational, SourceInfo, StreamKind, probe};
use restyle_models::pixels::{ColorMatrix, ColorRange, Layout};
use support::{clips, decoder, generate, open, open_and_probe, rest};

/// Opens and probes what must be refused, and checks kind and wording.
fn check_refused(path: &Path, kind: ErrorKind, words: &str) {
    let result = Blob::open(&Location::File(path.to_owned())).and_then(|blob| probe(&Arc::new(blob)));
    let error = match result {
        Ok(_) => panic!("{} was accepted", path.display()),
        Err(error) => error,
    };
    let message = error.to_string();
    assert_eq!(error.kind(), kind, "{message}");
    assert!(message.contains(words), "{message:?} should contain {words:?}");
    assert!(!message.contains('\n') && !message.ends_with('.'), "{message:?} is one line without a full stop");
    assert!(message.contains(path.file_name().unwrap().to_str().unwrap()), "{message:?} names the input");
}

#[test]
fn what_is_no_video_is_refused_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        path
    };
    check_refused(&folder.path().join("missing.mp4"), ErrorKind::InputUnreadable, "no such file");
    check_refused(&write("empty.mp4", b""), ErrorKind::InputUnreadable, "empty (0 bytes)");
    std::fs::create_dir(folder.path().join("folder.mp4")).expect("made");
    check_refused(&folder.path().join("folder.mp4"), ErrorKind::InputUnreadable, "is a folder");
    let text = "the quick brown fox jumps over the lazy dog\n".repeat(100);
    check_refused(&write("text.mp4", text.as_bytes()), ErrorKind::InputUnreadable, "not a video file");
    check_refused(&write("zeros.mp4", &[0; 10_000]), ErrorKind::InputUnreadable, "not a video file");
}

#[test]
fn a_truncated_film_is_refused() {
    let Some(clips) = clips() else { return };
    check_refused(&clips.join("derived-truncated-60pct.mp4"), ErrorKind::InputUnreadable, "moov atom not found");
}

#[test]
fn a_playlist_named_like_a_film_opens_nothing() {
    use std::net::TcpListener;
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("non-blocking");
    let port = listener.local_addr().expect("bound").port();
    let target = format!("http://127.0.0.1:{port}/a.ts");
    let hls = format!("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n");
    let concat = format!("ffconcat version 1.0\nfile '{target}'\n");
    let sdp = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n";
    let dash = format!(
        "<?xml version=\"1.0\"?>\n<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" profiles=\"urn:mpeg:dash:profile:isoff-live:2011\" \
         type=\"static\"><Period><AdaptationSet><Representation id=\"1\"><BaseURL>{target}</BaseURL></Representation>\
         </AdaptationSet></Period></MPD>\n"
    );
    for (name, content) in [("hls.mp4", hls.as_str()), ("concat.mp4", &concat), ("sdp.mp4", sdp), ("dash.mp4", &dash)] {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        let error = probe(&open(&path)).expect_err("a playlist");
        assert!(matches!(error.kind(), ErrorKind::InputRefused | ErrorKind::InputUnreadable), "{name}: {error}");
        eprintln!("{error}");
    }
    let hit = listener.accept();
    assert!(hit.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock), "someone called");
}

#[test]
fn a_film_that_names_other_files_opens_none() {
    // A QuickTime reference movie whose samples lie in another file: the data reference must not be followed.
    let folder = tempfile::tempdir().expect("a folder");
    let source = "-f lavfi -i testsrc2=s=64x48:r=25:d=0.4 -c:v mpeg4 -threads 1";
    let Some(path) = generate(folder.path(), "plain.mov", source) else { return };
    let mut bytes = std::fs::read(&path).expect("read");
    let at = bytes.windows(4).position(|w| w == b"url ").expect("a data reference");
    // Clear "samples are in this file"; the entry then names an external file.
    bytes[at + 7] = 0;
    bytes[at..at + 4].copy_from_slice(b"alis");
    let reference = folder.path().join("reference.mov");
    std::fs::write(&reference, bytes).expect("written");
    let blob = open(&reference);
    if let Ok(info) = probe(&blob) {
        let decoder = FrameDecoder::open(blob, &info, DecodeOptions::default());
        assert!(decoder.is_ok(), "the track is readable from the file itself");
    }
}

#[test]
fn sound_alone_and_covers_are_no_video() {
    let folder = tempfile::tempdir().expect("a folder");
    let sound = "-f lavfi -i sine=d=1 -c:a aac";
    let Some(path) = generate(folder.path(), "sound.mp4", sound) else { return };
    check_refused(&path, ErrorKind::InputUnreadable, "no video stream, only audio");
    let cover = "-f lavfi -i sine=d=1 -f lavfi -i color=red:s=32x32:d=1 -map 0 -map 1 -c:a aac -c:v mjpeg -frames:v 1 \
                 -disposition:v attached_pic";
    let Some(path) = generate(folder.path(), "cover.mp4", cover) else { return };
    check_refused(&path, ErrorKind::InputUnreadable, "no video stream");
}

#[test]
fn a_cover_beside_a_film_is_not_the_film() {
    let folder = tempfile::tempdir().expect("a folder");
    let film = "-f lavfi -i testsrc2=s=64x48:r=10:d=1 -c:v libx264 -threads 1";
    let Some(film) = generate(folder.path(), "film.mp4", film) else { return };
    let cover = "-f lavfi -i color=red:s=32x32:d=1 -frames:v 1 -c:v mjpeg";
    let Some(cover) = generate(folder.path(), "cover.jpg", cover) else { return };
    let inputs = format!("-i {} -i {}", cover.display(), film.display());
    let both = format!("{inputs} -map 0 -map 1 -c copy -disposition:v:0 attached_pic");
    let Some(path) = generate(folder.path(), "both.mp4", &both) else { return };
    let (_, info) = open_and_probe(&path);
    assert_eq!((info.video.width, info.video.height), (64, 48));
    assert!(info.streams.iter().any(|stream| stream.attached_picture));
}

#[test]
fn absurd_sizes_are_refused_before_memory_is_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = "-f lavfi -i testsrc2=s=64x48:r=25:d=0.4 -c:v libx264 -threads 1";
    let Some(path) = generate(folder.path(), "small.mp4", source) else { return };
    let mut bytes = std::fs::read(&path).expect("read");
    // The sample entry: "avc1", 6 reserved, data reference index, 16 of version and reserved, then width and height.
    let at = bytes.windows(4).rposition(|w| w == b"avc1").expect("a sample entry") + 4 + 6 + 2 + 16;
    assert_eq!(bytes[at..at + 4], [0, 64, 0, 48]);
    bytes[at..at + 4].copy_from_slice(&[0x75, 0x30, 0x75, 0x30]);
    let bomb = folder.path().join("bomb.mp4");
    std::fs::write(&bomb, &bytes).expect("written");
    check_refused(&bomb, ErrorKind::InputRefused, "30000x30000");
    // One side alone may be too long.
    let giant = "-f lavfi -i color=black:s=16400x16:r=25 -frames:v 1 -c:v ffv1 -f matroska";
    if let Some(giant) = generate(folder.path(), "giant.mp4", giant) {
        check_refused(&giant, ErrorKind::InputRefused, "16400x16");
    }
    // An image, however large, is no container that is accepted.
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x75\x30\0\0\x75\x30\x08\x02\0\0\0".to_vec();
    png.resize(45_000, 0);
    let picture = folder.path().join("bomb.png.mp4");
    std::fs::write(&picture, png).expect("written");
    check_refused(&picture, ErrorKind::InputRefused, "not accepted as a video");
}

#[test]
fn locations_are_told_apart_and_secrets_in_them_refused() {
    for url in ["s3://bucket/key.mp4", "azblob://container/key.mp4", "gs://bucket/key.mp4"] {
        assert_eq!(Location::parse(url).unwrap().to_string(), url);
    }
    for url in ["gs://bucket/key.mp4?token=secret", "s3://user:secret@host/key"] {
        let error = Location::parse(url).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    assert_eq!(Location::parse("ftp://host/key").unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(Location::parse("").unwrap_err().kind(), ErrorKind::Usage);
    let parsed = Location::parse("file:///tmp/a%20b.mp4").expect("parsed");
    assert_eq!(parsed.as_path(), Some(Path::new("/tmp/a b.mp4")));
    assert_eq!(parsed.extension().as_deref(), Some("mp4"));
    assert!(Location::parse("file://elsewhere/a.mp4").is_err());
    assert_eq!(Location::parse("a:b.mp4").unwrap().as_path(), Some(Path::new("a:b.mp4")));
}

fn whole(info: &SourceInfo, blob: Arc<Blob>) -> restyle_actors::Result<usize> {
    let mut decoder = FrameDecoder::open(blob, info, DecodeOptions::default())?;
    let mut frames = 0;
    while decoder.next_frame()?.is_some() {
        frames += 1;
    }
    Ok(frames)
}

#[test]
fn a_memory_object_decodes_like_a_file() {
    let Some(clips) = clips() else { return };
    let name = "ssa-subs-h264-ac3.mkv";
    let store = MemoryStore::new().expect("a store");
    store.put(name, std::fs::read(clips.join(name)).expect("read")).expect("put");
    let blob = Arc::new(Blob::open(&store.location(name)).expect("opened"));
    let info = probe(&blob).expect("probed");
    assert_eq!(whole(&info, blob).expect("decoded"), 30);
    let missing = Blob::open(&store.location("other")).expect_err("missing");
    assert_eq!(missing.kind(), ErrorKind::InputUnreadable);
}

#[test]
fn a_changed_input_is_noticed() {
    let Some(clips) = clips() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let original = std::fs::read(clips.join("bikes-h264-noaudio-640x272.mp4")).expect("read");
    type Change = fn(&Path, &[u8]);
    let changes: [(&str, Change); 4] = [
        ("grew", |path, _| {
            use std::io::Write as _;
            std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap();
        }),
        ("cut short", |path, bytes| std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap()),
        ("replaced", |path, bytes| {
            let other = path.with_extension("other");
            std::fs::write(&other, bytes).unwrap();
            std::fs::rename(other, path).unwrap();
        }),
        ("removed", |path, _| std::fs::remove_file(path).unwrap()),
    ];
    for (how, change) in changes {
        let path = folder.path().join("input.mp4");
        std::fs::write(&path, &original).expect("written");
        let (blob, info) = open_and_probe(&path);
        change(&path, &original);
        let error = blob.verify().expect_err(how);
        assert_eq!(error.kind(), ErrorKind::InputChanged, "{error}");
        assert!(error.to_string().contains(how), "{error}");
        let error = whole(&info, blob.clone()).expect_err(how);
        assert_eq!(error.kind(), ErrorKind::InputChanged, "{how}: {error}");
        if let Ok(again) = Blob::open(&Location::File(path.clone())) {
            let error = FrameDecoder::open(Arc::new(again), &info, DecodeOptions::default()).expect_err(how);
            assert_eq!(error.kind(), ErrorKind::InputChanged, "{how}: {error}");
        }
    }
}

#[test]
fn the_probe_tells_what_the_clip_holds() {
    let Some(clips) = clips() else { return };
    let info = |name: &str| open_and_probe(&clips.join(name)).1;
    let nasa = info("nasa-2video-2audio-subs.mp4");
    let kinds: Vec<StreamKind> = nasa.streams.iter().map(|stream| stream.kind).collect();
    use StreamKind::{Audio, Subtitle, Video};
    assert_eq!(kinds, [Video, Audio, Subtitle, Video, Audio, Subtitle]);
    assert_eq!((nasa.video.index, nasa.video.width, nasa.video.height), (0, 320, 180));
    let carphone = info("carphone-h264-sar-ntsc-176x144.mp4").video;
    assert_eq!(carphone.sample_aspect_ratio, Some(Rational::new(128, 117)));
    let deep = info("hevc-main10-200x200.mp4").video;
    assert_eq!((deep.format.layout, deep.format.bits, deep.format.range), (Layout::Yuv420, 10, ColorRange::Limited));
    let cockatoo = info("cockatoo-h264-yuv444-mp3mono-14s.mp4").video;
    assert_eq!((cockatoo.format.layout, cockatoo.format.matrix), (Layout::Yuv444, ColorMatrix::Bt601));
    assert!(info("derived-interlaced-tff-h264-aac.mp4").video.interlaced);
    let bbb = info("bbb-h264-aac51-720p.mp4");
    let sound = bbb.streams[1].audio.as_ref().expect("sound");
    assert_eq!((sound.sample_rate, sound.channels, sound.channel_layout.as_str()), (48000, 6, "5.1"));
    assert_eq!(bbb.video.frames_about, Some(132));
    let text = serde_json::to_string(&bbb).expect("json");
    let again: SourceInfo = serde_json::from_str(&text).expect("read back");
    assert_eq!(again, bbb);
}

#[test]
fn hdr_metadata_and_colour_tags_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let master = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)";
    let source = format!(
        "-f lavfi -i testsrc2=s=64x64:r=25:d=0.2 -pix_fmt yuv420p10le -c:v libx265 -x265-params \
         log-level=error:pools=none:frame-threads=1:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:hdr10=1:\
         repeat-headers=1:master-display={master}:max-cll=1000,400 -color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc"
    );
    let Some(path) = generate(folder.path(), "hdr.mkv", &source) else { return };
    let video = open_and_probe(&path).1.video;
    assert_eq!(video.colour.primaries.name, "bt2020");
    assert_eq!(video.colour.transfer.name, "smpte2084");
    assert_eq!(video.colour.matrix.name, "bt2020nc");
    assert_eq!(video.format.matrix, ColorMatrix::Bt2020Ncl);
    let light = video.hdr.content_light.expect("light levels");
    assert_eq!((light.max_cll, light.max_fall), (1000, 400));
    let mastering = video.hdr.mastering.expect("mastering display");
    let luminance = mastering.luminance.expect("luminance");
    assert!((luminance[1].as_f64() - 1000.0).abs() < 1e-6, "{luminance:?}");
    let red = mastering.primaries.expect("primaries")[0];
    assert!((red[0].as_f64() - 0.68).abs() < 1e-6, "{red:?}");
}

#[test]
fn a_cancelled_decoder_stops() {
    let Some(clips) = clips() else { return };
    let (blob, info) = open_and_probe(&clips.join("bikes-h264-noaudio-640x272.mp4"));
    let options = DecodeOptions::default();
    let cancel = options.cancel.clone();
    let mut decoder = FrameDecoder::open(blob, &info, options).expect("opened");
    decoder.next_frame().expect("decoded").expect("a frame");
    cancel.cancel();
    assert_eq!(decoder.next_frame().expect_err("cancelled").kind(), ErrorKind::Cancelled);
}

#[test]
fn the_first_of_two_films_is_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let two = "-f lavfi -i testsrc2=s=64x48:r=10:d=1 -f lavfi -i testsrc2=s=32x24:r=10:d=1 -map 0 -map 1 -c:v libx264 -threads 1";
    let Some(path) = generate(folder.path(), "two.mkv", two) else { return };
    let (_, info) = open_and_probe(&path);
    assert_eq!((info.video.width, info.video.height), (64, 48));
    assert_eq!(rest(&mut decoder(&path, false)).len(), 10);
}
