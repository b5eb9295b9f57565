//! A job under faults, and the same job undisturbed to compare with.

use crate::support::{Bench, ffmpeg, finish, finished};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Frames of the clip: five seconds, three segments.
pub(crate) const FRAMES: u64 = 125;

/// Frames of a whole segment of it: two seconds.
pub(crate) const SEGMENT_FRAMES: u64 = 50;

/// Every scored frame takes so long that a segment takes more than the five seconds that may be lost, so that frames are packed.
pub(crate) const PACKED: &str = "scorer:before_process=delay(250)";

/// Scoring is slow enough to be caught at it, and fast enough to go without packs.
pub(crate) const SLOW: &str = "scorer:before_process=delay(60)";

/// Frames that may be on their way at once with two scorers: one a credit.
pub(crate) fn in_flight(workers: u64) -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    workers * 2 + (cores / 2).clamp(2, 16) * 2
}

/// A clip and what an undisturbed run makes of it.
pub(crate) struct Oracle {
    clip: Vec<u8>,
    output: Vec<u8>,
    frames: u64,
}

impl Oracle {
    fn of(bench: &Bench, clip: &Path) -> Self {
        // Another container's name would be another job; another work folder keeps this one's store empty.
        let output = bench.path("undisturbed.mp4");
        let done = finished(&mut bench.run_in("undisturbed", clip, &output));
        let frames = done["frames"].as_u64().unwrap();
        Self { clip: std::fs::read(clip).unwrap(), output: std::fs::read(output).unwrap(), frames }
    }
}

/// Made once a process.
fn oracle() -> &'static Arc<Oracle> {
    static ORACLE: OnceLock<Arc<Oracle>> = OnceLock::new();
    ORACLE.get_or_init(|| {
        let bench = Bench::new();
        let clip = bench.path("in.mp4");
        make_clip(&clip, "96x64", "5");
        let oracle = Oracle::of(&bench, &clip);
        assert_eq!(oracle.frames, FRAMES);
        Arc::new(oracle)
    })
}

/// The clip of every rehearsal, and what an undisturbed run makes of it.
pub(crate) fn clip_and_output() -> (&'static [u8], &'static [u8]) {
    (&oracle().clip, &oracle().output)
}

pub(crate) fn make_clip(path: &Path, size: &str, seconds: &str) {
    let video = format!("testsrc2=size={size}:rate=25");
    let mut args = vec!["-f", "lavfi", "-i", &video, "-f", "lavfi", "-i", "sine=440:sample_rate=48000", "-t", seconds];
    args.extend(["-c:v", "libx264", "-preset", "fast", "-g", "40", "-pix_fmt", "yuv420p", "-c:a", "aac"]);
    args.push(path.to_str().unwrap());
    ffmpeg(&args);
}

pub(crate) struct Rehearsal {
    pub(crate) bench: Bench,
    pub(crate) input: PathBuf,
    pub(crate) output: PathBuf,
    /// When a scorer is taken for hung; long, so that a busy machine makes no hangs of its own.
    pub(crate) hang_seconds: u32,
    pub(crate) oracle: Arc<Oracle>,
}

impl Rehearsal {
    pub(crate) fn new() -> Self {
        let bench = Bench::new();
        let (input, output) = (bench.path("in.mp4"), bench.path("out.mp4"));
        std::fs::write(&input, &oracle().clip).unwrap();
        Self { bench, input, output, hang_seconds: 60, oracle: Arc::clone(oracle()) }
    }

    /// The same on a clip of one's own.
    pub(crate) fn on(clip: &Path) -> Self {
        let bench = Bench::new();
        let (input, output) = (bench.path("in.mp4"), bench.path("out.mp4"));
        std::fs::copy(clip, &input).unwrap();
        let oracle = Arc::new(Oracle::of(&bench, &input));
        Self { bench, input, output, hang_seconds: 60, oracle }
    }

    /// Frames of the clip.
    pub(crate) fn frames(&self) -> u64 {
        self.oracle.frames
    }

    /// The command under a script of faults, with two scorers.
    pub(crate) fn run(&self, faults: &str) -> Command {
        let config = self.bench.path("config.toml");
        std::fs::write(&config, format!("hang-seconds = {}\n", self.hang_seconds)).unwrap();
        let mut command = self.bench.run(&self.input, &self.output);
        command.args(["--workers", "2", "--config"]).arg(config);
        // Backtraces of panics that are asked for take longer than the panics.
        command.env("RESTYLE_FAULTS", faults).env("RUST_BACKTRACE", "0");
        command
    }

    /// Runs to success and compares every byte with the undisturbed run.
    pub(crate) fn finishes(&self, faults: &str) -> Value {
        let done = finished(&mut self.run(faults));
        self.is_identical();
        let count = |key: &str| done[key].as_u64().unwrap();
        assert_eq!(count("frames"), self.frames());
        assert_eq!(count("frames_scored") + count("frames_reused"), self.frames(), "{done}");
        done
    }

    pub(crate) fn is_identical(&self) {
        assert!(
            std::fs::read(&self.output).unwrap() == self.oracle.output,
            "the output differs from the undisturbed run's"
        );
    }

    /// Runs to its end whatever that is; the last event.
    pub(crate) fn ends(&self, faults: &str) -> (i32, Value, String) {
        let (code, mut events, stderr) = finish(&mut self.run(faults));
        (code, events.pop().unwrap_or_default(), stderr)
    }

    /// Starts the command and returns when its standard error says something.
    pub(crate) fn until(&self, faults: &str, says: &str) -> Running {
        Self::until_says(&mut self.run(faults), says)
    }

    /// Starts any command and returns when its standard error says something.
    pub(crate) fn until_says(command: &mut Command, says: &str) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        loop {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended without saying {says:?}");
            if line.contains(says) {
                break;
            }
        }
        // What else it says must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Running { child }
    }

    /// Starts the command and returns when so many frames were scored.
    pub(crate) fn until_scored(&self, faults: &str, frames: u64) -> Running {
        let mut running = self.started(faults);
        let begun = Instant::now();
        while self.scored_ever() < frames {
            assert!(running.child.try_wait().unwrap().is_none(), "it ended before {frames} frames were scored");
            assert!(begun.elapsed() < Duration::from_secs(60), "no {frames} frames in a minute");
            std::thread::sleep(Duration::from_millis(5));
        }
        running
    }

    /// Starts the command.
    pub(crate) fn started(&self, faults: &str) -> Running {
        Running { child: self.run(faults).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap() }
    }

    /// The folder of the only job.
    pub(crate) fn job_folder(&self) -> Option<PathBuf> {
        let mut jobs = std::fs::read_dir(self.bench.path("work/jobs")).ok()?.flatten();
        jobs.next().map(|entry| entry.path())
    }

    /// How often a frame was scored, over all runs.
    pub(crate) fn scored_ever(&self) -> u64 {
        let log = self.job_folder().and_then(|folder| std::fs::metadata(folder.join("scored.log")).ok());
        log.map_or(0, |log| log.len() / 8)
    }

    /// The objects of the job whose name begins like this, in the order of their paths.
    pub(crate) fn objects(&self, name: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders: Vec<PathBuf> = self.job_folder().into_iter().collect();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                match path.is_dir() {
                    true => folders.push(path),
                    false if entry.file_name().to_string_lossy().starts_with(name) => found.push(path),
                    false => {}
                }
            }
        }
        found.sort();
        found
    }
}

/// A run that is under way; killed with the test.
pub(crate) struct Running {
    pub(crate) child: Child,
}

impl Running {
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Waits for its end; its exit code and events.
    pub(crate) fn ended(&mut self) -> (i32, Vec<Value>) {
        let stdout = BufReader::new(self.child.stdout.take().expect("standard output is piped"));
        let events = stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
        (self.child.wait().unwrap().code().unwrap_or(-1), events)
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A seeded choice.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
