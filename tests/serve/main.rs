//! The daemon, end to end: as a process that is killed and restarted, and as a service inside this one.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they skip and what they measured")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/servers.rs"]
mod servers;

mod daemon;
mod elastic;
mod keep;
mod remote;
mod secrets;
mod service;

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

/// How long anything may take before a test gives up on it.
const HANG: Duration = Duration::from_secs(120);

/// A folder with a tiny clip, a tiny style and a configuration.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
}

impl Site {
    /// `frames` frames of 64x48 at 10 a second, in `clip.mp4`.
    pub(crate) fn new(frames: u32) -> Self {
        Self::sized(frames, "64x48")
    }

    pub(crate) fn sized(frames: u32, size: &str) -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap() };
        let source = format!("testsrc=size={size}:rate=10:duration={}", f64::from(frames) / 10.0);
        let clip = site.path("clip.mp4");
        support::ffmpeg(&["-f", "lavfi", "-i", &source, "-pix_fmt", "yuv420p", clip.to_str().unwrap()]);
        std::fs::write(site.path("tiny.safetensors"), support::tiny_style(7)).unwrap();
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes `serve.toml` with a work folder of its own.
    pub(crate) fn configure(&self, text: &str) -> PathBuf {
        let file = self.path("serve.toml");
        let head = "work = \"work\"\nlisten = \"127.0.0.1:0\"\ndevice = \"cpu\"\n";
        std::fs::write(&file, format!("{head}{text}")).unwrap();
        file
    }

    /// Copies the clip into a watched folder, as people do.
    pub(crate) fn drop_clip(&self, name: &str) {
        let target = self.path(name);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(self.path("clip.mp4"), target).unwrap();
    }

    pub(crate) fn daemon(&self, faults: &str) -> Daemon {
        self.daemon_with(faults, &[])
    }

    pub(crate) fn daemon_with(&self, faults: &str, env: &[(&str, String)]) -> Daemon {
        let mut command = support::restyle();
        command.arg("serve").arg("--config").arg(self.path("serve.toml"));
        command.envs(env.iter().map(|(name, value)| (name, value)));
        if !faults.is_empty() {
            command.env("RESTYLE_FAULTS", faults);
        }
        let log = std::fs::File::options().append(true).create(true).open(self.path("daemon.log")).unwrap();
        Daemon(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    pub(crate) fn reports(&self, folder: &str) -> Vec<serde_json::Value> {
        files(&self.path(folder))
            .iter()
            .filter(|p| p.to_string_lossy().ends_with(".report.json"))
            .map(|p| serde_json::from_slice(&std::fs::read(p).unwrap()).unwrap())
            .collect()
    }

    /// What the daemon logged, for messages of tests that fail.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }
}

/// A daemon that does not outlive its test.
pub(crate) struct Daemon(pub(crate) Child);

impl Daemon {
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    pub(crate) fn exit_code(&mut self) -> i32 {
        self.0.wait().unwrap().code().unwrap_or(-1)
    }

    /// Resident memory in MiB.
    pub(crate) fn resident(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.0.id())).unwrap();
        text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4 / 1024
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every file below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()) {
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

/// Where the daemon that was started last listens.
pub(crate) fn listens(site: &Site) -> std::net::SocketAddr {
    until(&|| site.said(), || {
        let said = site.said();
        let line = said.lines().rev().find(|l| l.contains("restyle serves"))?;
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        line["listen"].as_str()?.parse().ok()
    })
}

/// Waits until something is so; fails with `said` when it never is.
pub(crate) fn until<T>(said: &dyn Fn() -> String, mut look: impl FnMut() -> Option<T>) -> T {
    let clock = restyle_engine::clock::SystemClock::shared();
    let begun = clock.now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(clock.now() - begun < HANG, "it never came: {}", said());
        clock.sleep(Duration::from_millis(20));
    }
}
