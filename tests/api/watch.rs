//! Jobs as a terminal shows them.

use crate::bench::Bench;
use crate::support::{self, restyle};
use serde_json::json;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// A command that goes on until it is told to end.
struct Watching(Child);

impl Watching {
    fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Reads lines until one holds all of `words`.
    fn until(&mut self, words: &[&str]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut out = BufReader::new(self.0.stdout.as_mut().unwrap());
        loop {
            let mut line = String::new();
            assert!(out.read_line(&mut line).unwrap() > 0, "it ended: {lines:?}");
            let is_last = words.iter().all(|word| line.contains(word));
            lines.push(line);
            if is_last {
                return lines;
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_service_is_watched_in_plain_lines_where_there_is_no_terminal() {
    let bench = Bench::start("", "");
    bench.clip("clip.mp4", 10);
    let server = format!("http://{}", bench.address());
    let mut watching =
        Watching::start(restyle().args(["jobs", "--watch", "--server", &server]).env_remove("RESTYLE_TOKEN"));
    assert_eq!(bench.put_json("/v1/jobs/one", &json!({"input": "clip.mp4"})).status, 202);
    let lines = watching.until(&["one ", "finished", "100%", "10/10 frames"]);
    assert!(lines.iter().all(|line| line.starts_with("one ") && !line.contains('\u{1b}')), "{lines:?}");
    // A job that is as it was is not told again: the next line is another one's.
    assert_eq!(bench.put_json("/v1/jobs/two", &json!({"input": "clip.mp4", "output": "two.mp4"})).status, 202);
    let lines = watching.until(&["two ", "finished"]);
    assert!(lines.iter().all(|line| line.starts_with("two ")), "{lines:?}");
}

#[test]
fn jobs_of_a_work_store_are_watched_without_a_service() {
    let bench = support::Bench::new();
    let clip = bench.path("clip.mp4");
    let source = "testsrc=size=64x48:rate=10:duration=1";
    support::ffmpeg(&["-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p", clip.to_str().unwrap()]);
    support::finished(&mut bench.run(&clip, &bench.path("out.mp4")));
    let mut command = restyle();
    command.args(["jobs", "list", "--watch", "--work-dir"]).arg(bench.path("work"));
    let lines = Watching::start(&mut command).until(&["out.mp4", "finished", "100%"]);
    assert_eq!(lines.len(), 1, "{lines:?}");
}
