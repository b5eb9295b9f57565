//! A daemon with a tiny clip and a tiny style, in a folder of its own.

use crate::{HANG, support};
use restyle_engine::clock::SystemClock;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

pub(crate) struct Site {
    dir: tempfile::TempDir,
    daemon: Option<Child>,
    /// A viewer's, where the configuration names a token file.
    pub(crate) token: String,
}

const ROUTE: &str = "[[route]]\nname = \"main\"\ninput = \"in\"\noutput = \"out\"\nlogs = \"logs\"\nstyle = \"tiny.safetensors\"\n\
                     poll = \"300ms\"\n[route.options]\npreset = \"ultrafast\"\n";

impl Site {
    /// Starts a daemon with one route; `frames` frames of 64x48 at 10 a second lie in `clip.mp4`.
    pub(crate) fn start(frames: u32, top: &str, faults: &str) -> Self {
        let mut site = Self { dir: tempfile::tempdir().unwrap(), daemon: None, token: String::new() };
        let source = format!("testsrc=size=64x48:rate=10:duration={}", f64::from(frames) / 10.0);
        let clip = site.path("clip.mp4");
        support::ffmpeg(&["-f", "lavfi", "-i", &source, "-pix_fmt", "yuv420p", clip.to_str().unwrap()]);
        std::fs::write(site.path("tiny.safetensors"), support::tiny_style(7)).unwrap();
        let head = "work = \"work\"\nlisten = \"127.0.0.1:0\"\ndevice = \"cpu\"\n";
        std::fs::write(site.path("serve.toml"), format!("{head}{top}\n{ROUTE}")).unwrap();
        if top.contains("tokens") {
            // Before the daemon reads them: it looks for new ones once a second only.
            site.token = site.issue("anna", "viewer");
        }
        let log = std::fs::File::create(site.path("daemon.log")).unwrap();
        let mut command = support::restyle();
        command.arg("serve").arg("--config").arg(site.path("serve.toml")).stdout(Stdio::null()).stderr(log);
        if !faults.is_empty() {
            command.env("RESTYLE_FAULTS", faults);
        }
        site.daemon = Some(command.spawn().unwrap());
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn issue(&self, name: &str, role: &str) -> String {
        let mut command = support::restyle();
        command.args(["token", "new", name, "--role", role, "--file"]).arg(self.path("tokens.json"));
        let made = command.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }

    /// Copies a file into the route's input, as people do.
    pub(crate) fn drop_in(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path("in").join(name), bytes).unwrap();
    }

    pub(crate) fn clip(&self) -> Vec<u8> {
        std::fs::read(self.path("clip.mp4")).unwrap()
    }

    /// Waits until the daemon listens; returns the address of its pages.
    pub(crate) fn address(&self) -> String {
        let clock = SystemClock::shared();
        let begun = clock.now();
        loop {
            let said = std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default();
            let line = said.lines().find(|line| line.contains("restyle serves"));
            if let Some((_, rest)) = line.and_then(|line| line.split_once("127.0.0.1:")) {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                return format!("http://127.0.0.1:{port}/");
            }
            assert!(clock.now() - begun < HANG, "the daemon never listened: {said}");
            clock.sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
