//! `restyle train` as a command: a killed training goes on to the same file, and what does not fit ends with the right code.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they skip and what they measured")]

mod support;

use image_free::write_png;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Pictures without an encoder of pictures: PNG with stored blocks (RFC 1950, 1951; PNG 1.2).
mod image_free {
    use std::path::Path;

    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
        })
    }

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let body = [kind, data].concat();
        [&(data.len() as u32).to_be_bytes()[..], &body, &crc(&body).to_be_bytes()].concat()
    }

    /// Writes an RGB picture whose sample at a place and channel is `colour`'s.
    pub(super) fn write_png(path: &Path, side: u32, colour: impl Fn(u32, u32, u32) -> u8) {
        let row = |y: u32| std::iter::once(0).chain((0..3 * side).map(|i| colour(i / 3, y, i % 3)).collect::<Vec<_>>());
        let raw: Vec<u8> = (0..side).flat_map(row).collect();
        let mut packed = vec![0x78, 0x01];
        let last = raw.chunks(65_535).count() - 1;
        for (index, block) in raw.chunks(65_535).enumerate() {
            let len = block.len() as u16;
            packed.push(u8::from(index == last));
            packed.extend([len.to_le_bytes(), (!len).to_le_bytes()].concat());
            packed.extend(block);
        }
        let (a, b) = raw.iter().fold((1_u32, 0_u32), |(a, b), &byte| {
            let a = (a + u32::from(byte)) % 65_521;
            (a, (b + a) % 65_521)
        });
        packed.extend((b << 16 | a).to_be_bytes());
        let size = side.to_be_bytes();
        let header = [&size[..], &size, &[8, 2, 0, 0, 0]].concat();
        let file =
            [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &header), chunk(b"IDAT", &packed), chunk(b"IEND", b"")];
        std::fs::write(path, file.concat()).unwrap();
    }
}

/// The reference test's small feature network, so that nothing but this repository is needed.
const FEATURES: &[u8] = include_bytes!("../models/tests/train_reference.safetensors");

/// A painting, two photos and the features.
struct Studio {
    dir: tempfile::TempDir,
    features: PathBuf,
}

impl Studio {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let features = dir.path().join("features.safetensors");
        std::fs::write(&features, FEATURES).unwrap();
        std::fs::create_dir(dir.path().join("photos")).unwrap();
        write_png(&dir.path().join("painting.png"), 96, |x, y, c| ((x * 7) ^ (y * (3 + c))) as u8);
        write_png(&dir.path().join("photos/a.png"), 100, |x, y, c| (x + y * c) as u8);
        write_png(
            &dir.path().join("photos/b.png"),
            110,
            |x, y, c| if (x / 9 + y / 11 + c) % 2 == 0 { 210 } else { 40 },
        );
        Self { dir, features }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, out: &Path) -> Command {
        let mut command = support::restyle();
        command.arg("train").arg("--style").arg(self.path("painting.png")).arg("--photos").arg(self.path("photos"));
        command.arg("--features").arg(&self.features).arg("--out").arg(out).arg("--json");
        command.arg("--preview").arg(self.path("photos/a.png"));
        command.args([
            "--crop",
            "64",
            "--style-size",
            "64",
            "--width",
            "4",
            "--iterations",
            "24",
            "--preview-every",
            "2",
        ]);
        command.args(["--steady-iterations", "8", "--checkpoint-every", "3"]);
        command
    }

    fn out(&self, folder: &str) -> PathBuf {
        std::fs::create_dir_all(self.path(folder)).unwrap();
        self.path(folder).join("style.safetensors")
    }
}

#[test]
fn a_killed_training_ends_in_the_same_file() {
    let studio = Studio::open();
    let (whole, killed) = (studio.out("whole"), studio.out("killed"));
    let (code, lines, said) = support::finish(&mut studio.command(&whole));
    assert_eq!(code, 0, "{said}");
    let last = lines.last().unwrap();
    assert_eq!((last["event"].as_str(), last["iterations"].as_u64()), (Some("finished"), Some(32)));
    assert!(lines[0]["eta_seconds"].is_number() && lines[0]["mean"]["style"].is_number(), "{}", lines[0]);

    let mut child = studio.command(&killed).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let reached = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap()["iteration"].as_u64().unwrap())
        .find(|iteration| *iteration >= 6);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(reached.is_some() && !killed.exists(), "killed on its way, at iteration {reached:?}");
    let (code, lines, said) = support::finish(&mut studio.command(&killed));
    assert_eq!(code, 0, "{said}");
    assert!(lines[0]["iteration"].as_u64() > Some(3), "went on from the checkpoint: {}", lines[0]);
    assert_eq!(std::fs::read(&whole).unwrap(), std::fs::read(&killed).unwrap());
    let shown = support::finish(support::restyle().args(["styles", "show", "--json"]).arg(&whole));
    assert_eq!(shown.0, 0, "the file is a style: {}", shown.2);
}

#[test]
fn what_does_not_fit_ends_with_its_code() {
    let studio = Studio::open();
    let out = studio.out("out");
    let check = |code: i32, event: &str, command: &mut Command| {
        let (found, lines, said) = support::finish(command);
        assert_eq!(found, code, "{said}");
        let last = lines.last().unwrap();
        assert_eq!((last["event"].as_str(), last["kind"].as_str()), (Some("failed"), Some(event)), "{said}");
    };
    check(2, "usage", studio.command(&out).args(["--seed", "2", "--rate", "0"]));
    check(2, "usage", studio.command(&out).args(["--no-such-option"]));
    check(2, "usage", studio.command(&out).args(["--device", "gpu"]));
    // A refused device forgets no checkpoint.
    let checkpoint = studio.path("out/style.safetensors.checkpoint");
    std::fs::write(&checkpoint, b"kept").unwrap();
    check(6, "device", studio.command(&out).args(["--device", "cuda:4711", "--fresh"]));
    std::fs::remove_file(&checkpoint).unwrap();
    check(3, "input_unreadable", studio.command(&out).args(["--start", "nowhere.safetensors"]));
    let mut wrong = studio.command(&out);
    wrong.arg("--features").arg(studio.path("painting.png"));
    // clap takes one value only; a command of its own names the wrong file.
    assert_eq!(support::finish(&mut wrong).0, 2);
    let studio = Studio { features: studio.path("painting.png"), ..studio };
    check(4, "configuration", &mut studio.command(&out));
}
