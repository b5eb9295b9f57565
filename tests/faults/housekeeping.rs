//! What is deleted and what is not: `jobs prune`, and the leftovers of other finished jobs, in a folder and in an object store.
#![allow(clippy::disallowed_methods, reason = "a test waits for another process in real time")]

use crate::rehearsal::{PACKED, Rehearsal, Running};
use crate::remote::Remote;
use crate::support::{finish, finished, restyle};
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Short enough to wait for it: a lease that stands still for so long belongs to nobody.
const TIMES: (&str, &str) = ("RESTYLE_STORE_TIMES", "lease=4500");

fn listed(command: &mut Command) -> Vec<(String, u64)> {
    let (code, jobs, stderr) = finish(command);
    assert_eq!(code, 0, "{stderr}");
    let state = |job: &Value| (job["state"].as_str().unwrap().to_owned(), job["segments"].as_u64().unwrap());
    let mut states: Vec<_> = jobs.iter().map(state).collect();
    states.sort();
    states
}

fn pruned(command: &mut Command) -> String {
    let (code, _, stderr) = finish(command);
    assert_eq!(code, 0, "{stderr}");
    stderr.trim().to_owned()
}

/// `restyle jobs` on the folder of a rehearsal.
fn jobs(rehearsal: &Rehearsal, args: &[&str]) -> Command {
    let mut command = restyle();
    command.arg("jobs").args(args).arg("--work-dir").arg(rehearsal.bench.path("work"));
    command
}

/// `restyle jobs` on the work store of a remote rehearsal, from another machine.
fn jobs_elsewhere(remote: &Remote, args: &[&str]) -> Command {
    let mut command = restyle();
    command.arg("jobs").args(args).args(["--work-dir", &remote.url("work/")]);
    command.envs(remote.env.iter().map(|(k, v)| (k, v)));
    command.env("XDG_STATE_HOME", remote.bench.path("elsewhere")).env(TIMES.0, TIMES.1);
    command
}

fn state(state: &str, segments: u64) -> (String, u64) {
    (state.to_owned(), segments)
}

#[test]
fn prune_deletes_finished_jobs_and_with_all_unfinished_ones_but_none_that_is_worked_on() {
    let rehearsal = Rehearsal::new();
    rehearsal.finishes("");
    let mut command = rehearsal.bench.run(&rehearsal.input, &rehearsal.bench.path("second.mp4"));
    command
        .env("RESTYLE_FAULTS", "scorer:before_process=20*pause;scorer:before_process=21*pause")
        .arg("--workers")
        .arg("2");
    let mut live = Running { child: command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap() };
    until(|| listed(&mut jobs(&rehearsal, &["list", "--json"])).contains(&state("running", 0)));
    assert_eq!(pruned(&mut jobs(&rehearsal, &["prune"])), "1 jobs deleted, 1 kept");
    assert_eq!(pruned(&mut jobs(&rehearsal, &["prune", "--all"])), "0 jobs deleted, 1 kept");
    assert!(live.is_running());
    drop(live);
    assert_eq!(listed(&mut jobs(&rehearsal, &["list", "--json"])), [state("unfinished", 0)]);
    assert_eq!(pruned(&mut jobs(&rehearsal, &["prune"])), "0 jobs deleted, 1 kept");
    assert_eq!(pruned(&mut jobs(&rehearsal, &["prune", "--all"])), "1 jobs deleted, 0 kept");
    assert_eq!(listed(&mut jobs(&rehearsal, &["list", "--json"])), []);
    let left = std::fs::read_dir(rehearsal.bench.path("work")).unwrap().flatten().map(|e| e.file_name());
    assert!(left.into_iter().all(|name| name == ".tmp" || name == "jobs"));
}

fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "not within a minute");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_finished_job_deletes_the_segments_of_other_finished_jobs_and_leaves_live_ones_alone() {
    let rehearsal = Rehearsal::new();
    // Its output stands on record, and its process is not done yet.
    let live = rehearsal.until("out:after=1*pause", "out:after");
    let other = |name: &str| finished(&mut rehearsal.bench.run(&rehearsal.input, &rehearsal.bench.path(name)));
    other("second.mp4");
    assert_eq!(listed(&mut jobs(&rehearsal, &["list", "--json"])), [state("finished", 3), state("running", 3)]);
    live.kill();
    other("third.mp4");
    let states = listed(&mut jobs(&rehearsal, &["list", "--json"]));
    assert_eq!(states, [state("finished", 0), state("finished", 0), state("finished", 3)]);
    // What was collected needs no scoring as long as its output stands.
    assert_eq!(other("second.mp4")["nothing_to_do"], true);
}

#[test]
fn a_job_of_a_lost_machine_is_listed_as_unfinished_and_pruned_and_a_live_one_is_not() {
    let Some(remote) = Remote::new("prune") else { return };
    let mut first = remote.run(PACKED);
    first.env(TIMES.0, TIMES.1).stdout(Stdio::null()).stderr(Stdio::null());
    let mut live = Running { child: first.spawn().unwrap() };
    until(|| remote.scored_ever() > 0);
    assert_eq!(listed(&mut jobs_elsewhere(&remote, &["list", "--json"])), [state("running", 0)]);
    assert_eq!(pruned(&mut jobs_elsewhere(&remote, &["prune", "--all"])), "0 jobs deleted, 1 kept");
    assert!(live.is_running());
    // The machine is gone, with its state folder.
    live.kill();
    assert_eq!(listed(&mut jobs_elsewhere(&remote, &["list", "--json"])), [state("unfinished", 0)]);
    assert_eq!(pruned(&mut jobs_elsewhere(&remote, &["prune", "--all"])), "1 jobs deleted, 0 kept");
    assert_eq!(listed(&mut jobs_elsewhere(&remote, &["list", "--json"])), []);
}

#[test]
fn what_a_lost_machine_left_of_a_finished_job_is_collected_by_a_later_one() {
    let Some(remote) = Remote::new("collect") else { return };
    let (code, ..) = finish(remote.run("out:after=1*abort").env(TIMES.0, TIMES.1));
    assert_eq!(code, -1);
    // Slow enough that the lost machine's lease is seen to stand still.
    let places = [remote.url("in/clip.mp4"), remote.url("out/other.mp4"), remote.url("work/")];
    let mut other = remote.run_between(places, "scorer:before_process=delay(100)");
    finished(other.env(TIMES.0, TIMES.1).env("XDG_STATE_HOME", remote.bench.path("elsewhere")));
    let states = listed(&mut jobs_elsewhere(&remote, &["list", "--json"]));
    assert_eq!(states, [state("finished", 0), state("finished", 3)]);
}
