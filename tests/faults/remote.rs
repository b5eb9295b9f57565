//! Rows 6, 11 to 15 and 28 with input, output and work store in object stores, on real servers.
#![allow(clippy::disallowed_methods, reason = "a test waits for another process in real time")]

use crate::rehearsal::{FRAMES, PACKED, Running, SLOW, clip_and_output, in_flight, make_clip};
use crate::scorers::peak_kib;
use crate::servers::{Azurite, Proxy, SeaweedFs, Treatment, http};
use crate::support::{Bench, finish, finished, restyle};
use rustix::process::Signal;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

fn seaweedfs() -> Option<&'static SeaweedFs> {
    static SERVER: OnceLock<Option<SeaweedFs>> = OnceLock::new();
    SERVER.get_or_init(SeaweedFs::start).as_ref()
}

/// A job whose every place is in an object store.
pub(crate) struct Remote {
    pub(crate) bench: Bench,
    server: &'static SeaweedFs,
    bucket: String,
    pub(crate) env: Vec<(&'static str, String)>,
}

impl Remote {
    pub(crate) fn new(name: &str) -> Option<Self> {
        let server = seaweedfs()?;
        let bucket = server.bucket(name);
        server.put(&bucket, "in/clip.mp4", clip_and_output().0);
        Some(Self { bench: Bench::new(), server, bucket, env: server.env() })
    }

    pub(crate) fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    pub(crate) fn run_between(&self, places: [String; 3], faults: &str) -> Command {
        let [input, output, work] = places;
        let mut command = restyle();
        command.args(["run", &input, &output, "--work-dir", &work, "--workers", "2"]);
        command.arg("--style").arg(self.bench.path("tiny.safetensors"));
        command.args(["--size", "48", "--preset", "ultrafast", "--json", "--progress", "none"]);
        command.envs(self.env.iter().map(|(k, v)| (k, v))).env("XDG_STATE_HOME", self.bench.path("state"));
        command.env("RESTYLE_FAULTS", faults);
        command
    }

    pub(crate) fn run(&self, faults: &str) -> Command {
        self.run_between([self.url("in/clip.mp4"), self.url("out/styled.mp4"), self.url("work/")], faults)
    }

    fn is_identical(&self) {
        let output = self.server.get(&self.bucket, "out/styled.mp4");
        assert!(
            output.is_some_and(|o| o == clip_and_output().1),
            "the output differs from the undisturbed local run's"
        );
    }

    /// How often a frame was scored, over all runs with this state folder.
    pub(crate) fn scored_ever(&self) -> u64 {
        self.scored_ever_in("state")
    }

    /// The same with another state folder.
    fn scored_ever_in(&self, state: &str) -> u64 {
        let jobs: PathBuf = self.bench.path(state).join("restyle/remote/jobs");
        let logs = std::fs::read_dir(jobs).into_iter().flatten().flatten();
        logs.map(|job| std::fs::metadata(job.path().join("scored.log")).map_or(0, |log| log.len() / 8)).sum()
    }
}

fn started(command: &mut Command) -> Running {
    Running { child: command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap() }
}

/// Waits until something is so, while a run is under way.
fn until(run: &mut Running, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(run.is_running(), "it ended too early");
        assert!(begun.elapsed() < Duration::from_secs(90), "not within a minute and a half");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn count(done: &Value, key: &str) -> u64 {
    done[key].as_u64().unwrap_or_else(|| panic!("{key} in {done}"))
}

#[test]
fn from_store_to_store_is_byte_identical_and_running_again_resumes() {
    let Some(remote) = Remote::new("whole") else { return };
    let done = finished(&mut remote.run(""));
    assert_eq!((count(&done, "frames"), count(&done, "frames_scored")), (FRAMES, FRAMES));
    remote.is_identical();
    let again = finished(&mut remote.run(""));
    assert_eq!((count(&again, "frames_scored"), &again["nothing_to_do"]), (0, &Value::Bool(true)), "{again}");
    // Each place by itself: what is kept in the store serves a local output too, as another job.
    let local = remote.bench.path("local.mp4");
    let places =
        [remote.url("in/clip.mp4"), local.display().to_string(), remote.bench.path("work").display().to_string()];
    finished(&mut remote.run_between(places, ""));
    assert!(std::fs::read(&local).unwrap() == clip_and_output().1);
    let mut jobs = restyle();
    jobs.args(["jobs", "list", "--json", "--work-dir", &remote.url("work/")]);
    jobs.envs(remote.env.iter().map(|(k, v)| (k, v))).env("XDG_STATE_HOME", remote.bench.path("state"));
    let (code, listed, stderr) = finish(&mut jobs);
    assert_eq!((code, listed.len()), (0, 1), "{stderr}");
    assert_eq!((listed[0]["state"].as_str(), listed[0]["frames"].as_u64()), (Some("finished"), Some(FRAMES)));
    let (code, refused, _) = finish(
        &mut remote.run_between([remote.url("in/clip.mp4"), remote.url("in/clip.mp4"), remote.url("work/")], ""),
    );
    assert_eq!((code, refused.last().unwrap()["kind"].as_str()), (2, Some("usage")));
}

#[test]
fn row_6_a_kill_costs_what_was_not_sealed_and_the_next_process_takes_over_at_once() {
    let Some(remote) = Remote::new("killed") else { return };
    let mut child = started(&mut remote.run(PACKED));
    let begun = Instant::now();
    while remote.scored_ever() < 64 {
        assert!(child.is_running(), "it ended too early");
        assert!(begun.elapsed() < Duration::from_secs(90), "no 64 frames");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(child);
    let scored = remote.scored_ever();
    let done = finished(&mut remote.run(""));
    remote.is_identical();
    let again = count(&done, "frames_rescored");
    // Unsealed: five seconds of two scorers that take a quarter of a second a frame.
    let bound = in_flight(2) + 5 * 2 * 4;
    println!("{scored} scored before the kill, {again} of at most {bound} scored again");
    assert!(again <= bound && again < scored, "{done}");
    assert!(
        count(&done, "frames_reused") > 0 && count(&done, "frames_scored") == FRAMES - count(&done, "frames_reused")
    );
}

#[test]
fn rows_11_to_14_a_store_that_fails_before_and_after_gives_the_same_bytes() {
    let Some(remote) = Remote::new("storm") else { return };
    let script = "create@%200=after(timeout);create@%200=before(503);get@%150=before(429);list@%150=before(409)";
    let done = finished(remote.run("").env("RESTYLE_STORE_FAULTS", script));
    remote.is_identical();
    assert_eq!(count(&done, "frames_scored"), FRAMES, "{done}");
}

#[test]
fn rows_13_and_14_lost_answers_and_refusals_on_the_wire_give_the_same_bytes() {
    let Some(mut remote) = Remote::new("wire") else { return };
    let proxy = Proxy::start(remote.server.s3, |line, n| match n % 7 {
        2 if line.starts_with("PUT") => Treatment::LoseAnswer,
        3 => Treatment::Refuse(503),
        5 => Treatment::Refuse(429),
        _ => Treatment::Pass,
    });
    remote.env = SeaweedFs::env_at(&proxy.endpoint());
    let done = finished(&mut remote.run(""));
    remote.is_identical();
    println!("{} of {} requests mistreated: {done}", proxy.mistreated(), proxy.seen());
    assert!(proxy.mistreated() > 5);
}

#[test]
fn row_28_a_process_of_another_machine_waits_and_then_finds_nothing_to_do() {
    let Some(remote) = Remote::new("two") else { return };
    let first = started(&mut remote.run(SLOW));
    let begun = Instant::now();
    while remote.scored_ever() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is scored");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Another state folder: no lock of the file system is shared.
    let mut second = remote.run("");
    second.env("XDG_STATE_HOME", remote.bench.path("other"));
    let (code, events, stderr) = finish(&mut second);
    assert_eq!(code, 0, "{stderr}");
    let waited = |e: &Value| e["message"].as_str().is_some_and(|m| m.contains("works on this job"));
    assert!(events.iter().any(waited), "{events:?}");
    assert_eq!(count(events.last().unwrap(), "frames_scored"), 0, "{events:?}");
    remote.is_identical();
    drop(first);
}

#[test]
fn row_8_a_process_that_was_stopped_for_longer_than_a_lease_shares_the_job_with_who_took_it() {
    let Some(remote) = Remote::new("zombie") else { return };
    let times = ("RESTYLE_STORE_TIMES", "lease=2400");
    let mut first = started(remote.run(SLOW).env(times.0, times.1));
    until(&mut first, || remote.scored_ever() >= 10);
    first.signal(Signal::STOP);
    let mut second = remote.run("scorer:before_process=delay(90)");
    second.env(times.0, times.1).env("XDG_STATE_HOME", remote.bench.path("other"));
    let mut second = started(&mut second);
    until(&mut second, || remote.scored_ever_in("other") >= 10);
    first.signal(Signal::CONT);
    // Both write now: what one has finished, the other finds and takes.
    let ended = [first.ended(), second.ended()];
    for (code, events) in &ended {
        assert_eq!(*code, 0, "{events:?}");
    }
    remote.is_identical();
    let job = ended[0].1.last().unwrap()["job"].as_str().unwrap();
    let stands = |name: &str| remote.server.get(&remote.bucket, &format!("work/jobs/{job}/{name}")).is_some();
    for segment in 0..3 {
        assert!(stands(&format!("s/{segment}/seg")) && !stands(&format!("s/{segment}/seg.1")), "segment {segment}");
        assert!(!stands(&format!("s/{segment}/dead")), "nobody died");
    }
    assert!(stands("out.json") && !stands("out.json.1"));
    let scored = [remote.scored_ever(), remote.scored_ever_in("other")];
    println!("{scored:?} frames scored by the two");
    assert!(scored[0] > 10, "the first never worked again: {scored:?}");
}

/// The largest memory of a run on a work store behind a proxy, in KiB, and how many requests were refused.
fn stormy(remote: &Remote, name: &str, storm: Duration) -> (u64, u64) {
    let clip = remote.bench.path("large.mp4");
    if !clip.exists() {
        make_clip(&clip, "640x360", "6");
    }
    // The storm begins with the first segment, when everything is under way.
    let began: OnceLock<Instant> = OnceLock::new();
    let proxy = Proxy::start(remote.server.s3, move |line, _| {
        if line.starts_with("PUT") && line.contains("/seg") {
            began.get_or_init(Instant::now);
        }
        match began.get() {
            Some(began) if began.elapsed() < storm => Treatment::Refuse(503),
            _ => Treatment::Pass,
        }
    });
    let output = remote.bench.path(name);
    let places = [clip.display().to_string(), output.display().to_string(), remote.url(&format!("work-{name}/"))];
    let mut command = remote.run_between(places, "");
    command.envs(SeaweedFs::env_at(&proxy.endpoint()));
    let peak = peak_kib(&mut command);
    (peak, proxy.mistreated())
}

#[test]
fn row_14_a_storm_of_five_seconds_is_outlived_without_filling_memory() {
    let Some(remote) = Remote::new("long-storm") else { return };
    let (calm, refused) = stormy(&remote, "calm.mp4", Duration::ZERO);
    assert_eq!(refused, 0);
    let (peak, refused) = stormy(&remote, "storm.mp4", Duration::from_secs(5));
    let read = |name: &str| std::fs::read(remote.bench.path(name)).unwrap();
    assert!(read("calm.mp4") == read("storm.mp4"));
    println!("{calm} KiB in calm, {peak} KiB in a storm that refused {refused} requests");
    // A store that refuses is asked again by few and ever more rarely.
    assert!((4..200).contains(&refused), "{refused} requests refused");
    // The frames behind the first segment, decoded and scored, would be 67 MiB.
    assert!(peak < calm + 20 * 1024, "{calm} KiB in calm, {peak} KiB in a storm");
}

#[test]
fn azure_from_store_to_store_is_byte_identical() {
    let Some(azurite) = Azurite::start() else { return };
    assert!(azurite.container("films"));
    let remote = Bench::new();
    let clip = remote.path("clip.mp4");
    std::fs::write(&clip, clip_and_output().0).unwrap();
    // The first job puts its output where the second has its input, so that both directions are used.
    let run = |input: &str, output: &str, style: u32| {
        std::fs::write(remote.path("tiny.safetensors"), crate::support::tiny_style(style)).unwrap();
        let mut command = restyle();
        command.args(["run", input, output, "--work-dir", "azblob://films/work", "--workers", "2"]);
        command.arg("--style").arg(remote.path("tiny.safetensors"));
        command.args(["--size", "48", "--preset", "ultrafast", "--json", "--progress", "none"]);
        command.envs(azurite.env()).env("XDG_STATE_HOME", remote.path("state"));
        finished(&mut command)
    };
    let done = run(clip.to_str().unwrap(), "azblob://films/out/a.mp4", 7);
    assert_eq!(done["blake3"], blake3::hash(clip_and_output().1).to_hex().as_str());
    let local = remote.path("b.mp4");
    run("azblob://films/out/a.mp4", local.to_str().unwrap(), 8);
    assert!(
        http(azurite.blob, "GET", "/devstoreaccount1/films/out/a.mp4", &[], b"")
            .is_some_and(|(s, _)| s == 404 || s == 403)
    );
    let again = run("azblob://films/out/a.mp4", "azblob://films/out/b.mp4", 8);
    assert_eq!(again["blake3"], blake3::hash(&std::fs::read(local).unwrap()).to_hex().as_str());
}

#[test]
fn planted_secrets_are_shown_nowhere() {
    let Some(remote) = Remote::new("secrets") else { return };
    let shown = |command: &mut Command| {
        let output = command.env("RUST_LOG", "trace").output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains("plantedsecret"), "{text}");
        (output.status.code(), text)
    };
    let mut wrong = remote.run("");
    wrong.env("AWS_SECRET_ACCESS_KEY", "plantedsecret").env("AWS_SESSION_TOKEN", "plantedsecret");
    let (code, text) = shown(&mut wrong);
    assert!(code == Some(3) && text.contains("AWS_SECRET_ACCESS_KEY"), "{code:?} {text}");
    for (input, expected) in [
        ("azblob://devstoreaccount1:plantedsecret@box/a.mp4", 4),
        ("s3://b/a.mp4?AWS_SECRET_ACCESS_KEY=plantedsecret", 4),
        ("azblob://box/a.mp4?sv=2021-06-08&sig=plantedsecret", 5),
    ] {
        let places = [input.to_owned(), remote.url("out/x.mp4"), remote.url("work/")];
        let mut command = remote.run_between(places, "");
        // Nobody listens there.
        command.env("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:9/box").env("AZURE_STORAGE_ACCOUNT_NAME", "box");
        let (code, text) = shown(&mut command);
        assert_eq!(code, Some(expected), "{input}: {text}");
    }
}
