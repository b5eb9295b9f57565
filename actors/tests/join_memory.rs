//! A join's memory does not grow with the film; alone in its process, since it measures the process.

mod media;

use media::{encoded, generate, open};
use restyle_actors::encode::{EncodeRequest, EncoderSettings};
use restyle_actors::join::{JoinRequest, join};
use restyle_actors::probe;
use restyle_engine::CancelToken;

#[test]
fn memory_of_a_join_does_not_grow_with_the_film() {
    let folder = tempfile::tempdir().unwrap();
    let path = generate(
        folder.path(),
        "in.mp4",
        "-f lavfi -i testsrc2=s=64x48:r=25:d=1 -f lavfi -i sine=d=60 -c:v libx264 -preset ultrafast -c:a aac",
    );
    let blob = open(&path);
    let source = probe(&blob).unwrap();
    let request =
        EncodeRequest { container: "mp4".into(), preset: Some("ultrafast".into()), ..EncodeRequest::default() };
    let (settings, _) = EncoderSettings::choose(&source, &request).unwrap();
    let times: Vec<i64> = (0..25).map(|number| number * 512).collect();
    // The same segment at ever later times, made only when it is asked for, each with half a megabyte of ballast.
    let template = encoded(&settings, &times, &[]).remove(0);
    let mut segments = (0..120i64).map(|number| {
        let mut segment = template.clone();
        segment.packets.iter_mut().for_each(|p| p.pts += number * 12_800);
        segment.packets[1].data.extend(std::iter::repeat_n(0, 1 << 19));
        Ok(segment)
    });
    let staged = folder.path().join("out.mp4");
    let cancel = CancelToken::new();
    let before = most_resident_bytes();
    let request = JoinRequest {
        blob: &blob,
        source: &source,
        settings: &settings,
        segments: &mut segments,
        staged: &staged,
        cancel: &cancel,
    };
    let report = join(request).unwrap();
    assert!(report.bytes > 60 << 20);
    let grown = most_resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "a join of {} bytes grew memory by {grown}", report.bytes);
}

/// Most memory that this process ever had resident.
fn most_resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}
