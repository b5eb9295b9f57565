//! The service inside another program.

use crate::{Site, until};
use restyle::serve::view::{FrameState, JobFilter, Side};
use restyle::serve::{
    ClientJobId, Created, JobRequest, JobState, ObjectKey, Scope, ServeConfig, Service, ServiceErrorKind, Tenant,
};
use std::time::Duration;

const ROUTE: &str = "[[route]]\nname = \"r\"\ninput = \"in\"\noutput = \"out\"\nlogs = \"logs\"\nstyle = \"tiny.safetensors\"\npoll = \"200ms\"\n";

fn start(site: &Site, config: &str) -> Service {
    let file = site.configure(config);
    Service::start(ServeConfig::read(&file).unwrap()).unwrap()
}

fn id(text: &str) -> ClientJobId {
    ClientJobId::parse(text).unwrap()
}

fn request(input: &str) -> JobRequest {
    serde_json::from_value(serde_json::json!({"input": input})).unwrap()
}

/// Waits until a job is in a state.
fn reach(service: &Service, job: &ClientJobId, state: JobState) -> restyle::serve::view::JobView {
    let look = || service.job(&Scope::All, job).unwrap();
    until(&|| format!("{:?}", look()), || Some(look()).filter(|j| j.state == state))
}

/// Nothing is watched for: the folder holds no name that a route takes.
fn quiet(site: &Site) -> String {
    site.drop_clip("in/clip.mp4");
    format!("nodes = {{ max = 1 }}\n{ROUTE}include = [\"nothing\"]\n")
}

#[test]
fn the_same_request_is_accepted_once() {
    let site = Site::new(4);
    let service = start(&site, &quiet(&site));
    let tenant = Tenant::default();
    let (view, created) = service.create(&tenant, &id("one"), request("clip.mp4")).unwrap();
    assert!(created == Created::New && !view.state.is_ended(), "{view:?}");
    assert_eq!(service.create(&tenant, &id("one"), request("clip.mp4")).unwrap().1, Created::Existing);
    let other = JobRequest { priority: Some(3), ..request("clip.mp4") };
    assert_eq!(service.create(&tenant, &id("one"), other).unwrap_err().kind(), ServiceErrorKind::Conflict);
    assert_eq!(
        service.create(&tenant, &id("two"), request("gone.mp4")).unwrap_err().kind(),
        ServiceErrorKind::NotFound
    );
    let foreign = Tenant::parse("other").unwrap();
    assert_eq!(
        service.create(&foreign, &id("one"), request("clip.mp4")).unwrap_err().kind(),
        ServiceErrorKind::NotFound
    );
    let styled = JobRequest { style: Some("../secret.safetensors".into()), ..request("clip.mp4") };
    assert_eq!(service.create(&tenant, &id("three"), styled).unwrap_err().kind(), ServiceErrorKind::Invalid);
    assert_eq!(service.job(&Scope::Tenant(foreign), &id("one")).unwrap_err().kind(), ServiceErrorKind::NotFound);
    reach(&service, &id("one"), JobState::Finished);
    // Another service over the same work folder knows all of it.
    assert!(service.drain_and_stop(Duration::from_secs(30)));
    drop(service);
    let service = start(&site, &quiet(&site));
    assert_eq!(service.create(&tenant, &id("one"), request("clip.mp4")).unwrap().1, Created::Existing);
    assert_eq!(service.list(&Scope::All, &JobFilter::default()).jobs.len(), 1);
}

#[test]
fn a_finished_job_can_be_looked_at_from_every_side() {
    let site = Site::new(25);
    let service = start(&site, &quiet(&site));
    let job = id("one");
    service.create(&Tenant::default(), &job, request("clip.mp4")).unwrap();
    let stream = service.events(&Scope::All, &job, 0).unwrap();
    let view = reach(&service, &job, JobState::Finished);
    assert_eq!((view.progress.frames_done, view.progress.percent), (25, Some(100.0)));
    let seen: Vec<_> = stream.receiver().iter().collect();
    assert_eq!(seen.iter().map(|e| e.seq).collect::<Vec<_>>(), (1..=seen.len() as u64).collect::<Vec<_>>());
    let replayed: Vec<_> = service.events(&Scope::All, &job, 2).unwrap().receiver().iter().collect();
    // Decimal fractions lose their last bit on the way through the file.
    let telling = |e: &restyle::serve::NumberedEvent| (e.seq, e.at.clone(), e.event);
    assert_eq!(replayed.iter().map(telling).collect::<Vec<_>>(), seen[2..].iter().map(telling).collect::<Vec<_>>());
    let strip = service.frames(&Scope::All, &job).unwrap();
    assert_eq!(strip.frames, 25);
    assert!(strip.runs.iter().all(|r| r.state == FrameState::Encoded), "{strip:?}");
    let before = service.preview(&Scope::All, &job, 24, Side::Before, None).unwrap();
    let after = service.preview(&Scope::All, &job, 24, Side::After, Some(32)).unwrap();
    assert_eq!(((before.width, before.height), (after.width, after.height)), ((64, 48), (32, 24)));
    assert!(before.bytes.starts_with(&[0xff, 0xd8]) && after.bytes.starts_with(&[0xff, 0xd8]));
    let beyond = service.preview(&Scope::All, &job, 25, Side::Before, None).unwrap_err();
    assert_eq!(beyond.kind(), ServiceErrorKind::NotFound);
    let (blob, key) = service.output(&Scope::All, &job).unwrap();
    let report = service.report(&Scope::All, &job).unwrap();
    assert_eq!((report.bytes, key.as_str()), (Some(blob.size()), "clip.tiny.mp4"));
    let summary = service.summary(&Scope::All);
    assert_eq!((summary.jobs.finished, summary.jobs.queued), (1, 0));
}

#[test]
fn quotas_hold_back_and_let_in_again() {
    let site = Site::new(4);
    let config = format!("{}[route.quota]\njobs_queued = 2\n", quiet(&site));
    let service = start(&site, &config);
    let tenant = Tenant::default();
    // Paused jobs wait for as long as a test likes.
    for name in ["one", "two"] {
        service.create(&tenant, &id(name), request("clip.mp4")).unwrap();
    }
    let third = || {
        let output = Some(ObjectKey::parse("third.mp4").unwrap());
        service.create(&tenant, &id("three"), JobRequest { output, ..request("clip.mp4") })
    };
    if let Err(error) = third() {
        assert!(error.retry_after().is_some(), "{error}");
    }
    reach(&service, &id("one"), JobState::Finished);
    reach(&service, &id("two"), JobState::Finished);
    third().unwrap();
    reach(&service, &id("three"), JobState::Finished);
}

#[test]
fn a_sidecar_sets_options_and_never_a_style() {
    let site = Site::new(4);
    std::fs::create_dir_all(site.path("in")).unwrap();
    std::fs::write(site.path("in/bad.mp4.restyle.toml"), "style = \"/etc/passwd\"\n").unwrap();
    std::fs::write(site.path("in/far.mp4.restyle.toml"), "strength = 1.5\n").unwrap();
    let good = "size = 32\nstrength = 0.5\npreserve_color = true\nconceal = true\n";
    std::fs::write(site.path("in/good.mp4.restyle.toml"), good).unwrap();
    let service = start(&site, ROUTE);
    ["in/bad.mp4", "in/far.mp4", "in/good.mp4"].iter().for_each(|name| site.drop_clip(name));
    let jobs = until(&|| "no jobs".into(), || {
        let jobs = service.list(&Scope::All, &JobFilter::default()).jobs;
        (jobs.len() == 3 && jobs.iter().all(|j| j.state.is_ended())).then_some(jobs)
    });
    let of = |name: &str| jobs.iter().find(|j| j.input.as_str() == name).unwrap();
    let error = of("bad.mp4").error.clone().unwrap();
    assert_eq!((of("bad.mp4").state, error.kind.as_str()), (JobState::Failed, "configuration"));
    assert!(error.message.contains("style") && !error.message.contains("passwd"), "{}", error.message);
    let error = of("far.mp4").error.clone().unwrap();
    assert!(error.message.contains("strength is 1.5, expected 0 to 1"), "{}", error.message);
    assert_eq!(of("good.mp4").state, JobState::Finished, "{:?}", of("good.mp4").error);
    assert!(!site.path("out/bad.tiny.mp4").exists() && site.path("out/good.tiny.mp4").exists());
}

#[test]
fn its_own_outputs_are_not_taken() {
    let site = Site::new(4);
    // A blend, whose outputs are named by more than a style's name.
    let route = ROUTE.replace("\"out\"", "\"in\"").replace("tiny.safetensors", "tiny.safetensors:0.7,udnie:0.3");
    let service = start(&site, &route);
    site.drop_clip("in/clip.mp4");
    let clip = until(&|| "no job".into(), || service.list(&Scope::All, &JobFilter::default()).jobs.pop());
    reach(&service, &clip.id, JobState::Finished);
    assert!(site.path("in/clip.tiny-0.7,udnie-0.3.mp4").exists());
    // Another clip comes and goes: by then the output was looked at many times.
    site.drop_clip("in/second.mp4");
    until(&|| "no second job".into(), || {
        let jobs = service.list(&Scope::All, &JobFilter::default()).jobs;
        jobs.iter().all(|j| j.state.is_ended()).then_some(()).filter(|()| jobs.len() >= 2)
    });
    let inputs: Vec<_> = service.list(&Scope::All, &JobFilter::default()).jobs.into_iter().map(|j| j.input).collect();
    assert_eq!(inputs.len(), 2, "{inputs:?}");
}

#[test]
fn jobs_wait_end_and_try_again_as_they_are_told() {
    let site = Site::new(4);
    let service = start(&site, &quiet(&site));
    let (tenant, all, job) = (Tenant::default(), Scope::All, id("one"));
    std::fs::write(site.path("in/broken.mp4"), b"no video at all").unwrap();
    service.create(&tenant, &job, request("broken.mp4")).unwrap();
    let failed = reach(&service, &job, JobState::Failed);
    assert_eq!(failed.error.unwrap().kind, "input_unreadable");
    assert_eq!(service.cancel(&all, &job).unwrap_err().kind(), ServiceErrorKind::Conflict);
    std::fs::copy(site.path("clip.mp4"), site.path("in/broken.mp4")).unwrap();
    service.retry(&all, &job).unwrap();
    assert_eq!(reach(&service, &job, JobState::Finished).attempts, 2);
    assert_eq!(service.retry(&all, &job).unwrap_err().kind(), ServiceErrorKind::Conflict);
    let page = service.list(&all, &JobFilter { states: vec![JobState::Failed], ..JobFilter::default() });
    assert!(page.jobs.is_empty());
}

#[test]
fn an_upload_is_seen_whole_or_not_at_all() {
    let site = Site::new(4);
    let service = start(&site, ROUTE);
    let route = restyle::serve::RouteName::parse("r").unwrap();
    let key = ObjectKey::parse("sub/clip.mp4").unwrap();
    let mut half = service.upload(&Scope::All, &route, &key, 1 << 20).unwrap();
    half.write(b"half").unwrap();
    drop(half);
    assert!(crate::files(&site.path("in")).is_empty());
    let mut whole = service.upload(&Scope::All, &route, &key, 1 << 20).unwrap();
    whole.write(&std::fs::read(site.path("clip.mp4")).unwrap()).unwrap();
    whole.finish().unwrap();
    let again = service.upload(&Scope::All, &route, &key, 1 << 20).unwrap();
    assert_eq!(again.finish().unwrap_err().kind(), ServiceErrorKind::Conflict);
    let job = until(&|| "no job".into(), || service.list(&Scope::All, &JobFilter::default()).jobs.pop());
    reach(&service, &job.id, JobState::Finished);
    assert!(site.path("out/sub/clip.tiny.mp4").exists());
}

#[test]
fn tenants_share_no_work_and_replace_nothing_of_each_other() {
    let site = Site::new(4);
    site.drop_clip("in/clip.mp4");
    let route = |tenant: &str| {
        format!(
            "[[route]]\nname = \"{tenant}\"\ntenant = \"{tenant}\"\ninput = \"in\"\noutput = \"out\"\nlogs = \"logs\"\n\
             style = \"tiny.safetensors\"\ninclude = [\"nothing\"]\n"
        )
    };
    let service = start(&site, &format!("nodes = {{ max = 1 }}\n{}{}", route("a"), route("b")));
    let tenant = |name: &str| Tenant::parse(name).unwrap();
    service.create(&tenant("a"), &id("of-a"), request("clip.mp4")).unwrap();
    let first = reach(&service, &id("of-a"), JobState::Finished);
    let written = || std::fs::metadata(site.path("out/clip.tiny.mp4")).unwrap().modified().unwrap();
    let before = written();
    service.create(&tenant("b"), &id("of-b"), request("clip.mp4")).unwrap();
    let second = reach(&service, &id("of-b"), JobState::Failed);
    let error = second.error.unwrap();
    assert!(error.kind == "usage" && error.message.contains("is there already"), "{error:?}");
    assert!(written() == before && first.job.is_some());
    // What belongs to nobody else is made, as a job of its own.
    let output = Some(ObjectKey::parse("of-b.mp4").unwrap());
    service.create(&tenant("b"), &id("other"), JobRequest { output, ..request("clip.mp4") }).unwrap();
    let third = reach(&service, &id("other"), JobState::Finished);
    assert!(third.job != first.job && third.progress.frames_reused == 0, "{third:?}");
}
