//! What the end-to-end tests share: data, a tiny style, the command, and ffprobe as an independent witness.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Returns a file of the shared data, or says that the test is skipped.
pub fn shared(name: &str) -> Option<PathBuf> {
    let base = std::env::var_os("RESTYLE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let path = base.join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there; set RESTYLE_SHARED", path.display());
    None
}

/// A folder of its own for one test, with a tiny style in it.
pub struct Bench {
    pub dir: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tiny.safetensors"), tiny_style(7)).unwrap();
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The command with this folder as its state, no logs and the tiny style at a small width.
    pub fn run(&self, input: &Path, output: &Path) -> Command {
        self.run_in("work", input, output)
    }

    /// The same with a work folder of this name.
    pub fn run_in(&self, work: &str, input: &Path, output: &Path) -> Command {
        let mut command = restyle();
        command.arg("run").arg(input).arg(output);
        command.arg("--style").arg(self.path("tiny.safetensors"));
        command.arg("--work-dir").arg(self.path(work));
        command.args(["--size", "48", "--preset", "ultrafast", "--json", "--progress", "none"]);
        command
    }
}

pub fn restyle() -> Command {
    Command::new(env!("CARGO_BIN_EXE_restyle"))
}

/// Runs to the end and returns exit code, the JSON lines of standard output, and standard error.
pub fn finish(command: &mut Command) -> (i32, Vec<Value>, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let lines = String::from_utf8(stdout).unwrap();
    let events = lines.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{l}: {e}"))).collect();
    (status.code().unwrap_or(-1), events, String::from_utf8_lossy(&stderr).into_owned())
}

/// Runs to success and returns the `finished` event.
pub fn finished(command: &mut Command) -> Value {
    let (code, events, stderr) = finish(command);
    assert_eq!(code, 0, "{command:?}\n{stderr}\n{events:?}");
    let last = events.last().unwrap().clone();
    assert_eq!(last["event"], "finished", "{last}");
    last
}

pub fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Asks ffprobe; `args` choose what.
pub fn ffprobe(path: &Path, args: &[&str]) -> Value {
    let output = Command::new("ffprobe").args(["-v", "error", "-of", "json"]).args(args).arg(path).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("ffprobe {}: {e}", path.display()))
}

/// Runs the ffmpeg command to make test material.
pub fn ffmpeg(args: &[&str]) {
    let status = Command::new("ffmpeg").args(["-v", "error", "-y"]).args(args).status().unwrap();
    assert!(status.success(), "ffmpeg {args:?}");
}

/// A transformer network with 4, 6 and 8 channels and one residual block, deterministic in its seed, as safetensors.
pub fn tiny_style(seed: u32) -> Vec<u8> {
    let mut layers: Vec<(String, Vec<usize>)> = Vec::new();
    let mut conv = |name: &str, output: usize, input: usize, kernel: usize| {
        layers.push((format!("{name}.conv2d.weight"), vec![output, input, kernel, kernel]));
        layers.push((format!("{name}.conv2d.bias"), vec![output]));
    };
    conv("conv1", 4, 3, 9);
    conv("conv2", 6, 4, 3);
    conv("conv3", 8, 6, 3);
    conv("res1.conv1", 8, 8, 3);
    conv("res1.conv2", 8, 8, 3);
    conv("deconv1", 6, 8, 3);
    conv("deconv2", 4, 6, 3);
    conv("deconv3", 3, 4, 9);
    for (name, channels) in
        [("in1", 4), ("in2", 6), ("in3", 8), ("res1.in1", 8), ("res1.in2", 8), ("in4", 6), ("in5", 4)]
    {
        layers.push((format!("{name}.weight"), vec![channels]));
        layers.push((format!("{name}.bias"), vec![channels]));
    }
    safetensors(&layers, seed)
}

fn safetensors(layers: &[(String, Vec<usize>)], seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut random = move || {
        // Numerical Recipes' linear congruential generator; the top bits as -0.5..0.5.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u16::try_from(state >> 16).unwrap()) / 65536.0 - 0.5
    };
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape) in layers {
        let begin = data.len();
        let fan_in: usize = shape[1..].iter().product();
        for _ in 0..shape.iter().product() {
            let value = match name.as_str() {
                n if n.ends_with("deconv3.conv2d.bias") => 128.0,
                n if n.ends_with("deconv3.conv2d.weight") => random() * 12.0,
                n if n.contains("in") && n.ends_with(".weight") && shape.len() == 1 => 1.0 + random() * 0.2,
                _ => random() / (fan_in as f32).sqrt().max(1.0),
            };
            data.extend_from_slice(&f32::to_le_bytes(value));
        }
        header.insert(
            name.clone(),
            serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]}),
        );
    }
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}
