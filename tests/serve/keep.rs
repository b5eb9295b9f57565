//! How long jobs are kept, and what is left of them after that.

use crate::{Site, files, until};
use restyle::serve::view::{JobFilter, JobView};
use restyle::serve::{JobState, Scope, ServeConfig, Service};
use std::time::Duration;

fn start(site: &Site, keep: &str) -> Service {
    let text = format!(
        "{keep}\nnodes = {{ max = 1 }}\n[[route]]\nname = \"r\"\ninput = \"in\"\noutput = \"out\"\nlogs = \"logs\"\n\
         style = \"tiny.safetensors\"\npoll = \"200ms\"\n"
    );
    Service::start(ServeConfig::read(&site.configure(&text)).unwrap()).unwrap()
}

fn jobs(service: &Service) -> Vec<JobView> {
    service.list(&Scope::All, &JobFilter::default()).jobs
}

#[test]
fn only_so_many_jobs_are_kept_and_none_is_done_twice() {
    let site = Site::new(4);
    let service = start(&site, "keep_jobs_max = 1");
    (0..3).for_each(|k| site.drop_clip(&format!("in/clip-{k}.mp4")));
    let said = || format!("{:?}", jobs(&service));
    until(&said, || (site.reports("logs").len() == 3 && jobs(&service).len() == 1).then_some(()));
    let kept = jobs(&service).remove(0);
    let in_work = |part: &str| files(&site.path("work")).iter().filter(|p| p.to_string_lossy().contains(part)).count();
    until(&said, || (in_work("/service/jobs/") <= 3 && in_work("/service-logs/") == 1).then_some(()));
    assert_eq!(in_work("/service/marks/"), 2);
    let written = || {
        let mut outputs = files(&site.path("out"));
        outputs.sort();
        outputs.iter().map(|p| std::fs::metadata(p).unwrap().modified().unwrap()).collect::<Vec<_>>()
    };
    let before = written();
    assert_eq!(before.len(), 3);
    assert!(service.drain_and_stop(Duration::from_secs(30)));
    drop(service);
    // What was forgotten lies there still, and is not taken again; not by another process either.
    let service = start(&site, "keep_jobs_max = 1");
    let looked = || service.routes(&Scope::All)[0].looked_at.clone();
    let first = until(&|| "no look".into(), looked);
    restyle_engine::clock::Clock::sleep(&restyle_engine::clock::SystemClock::new(), Duration::from_secs(2));
    until(&|| "no later look".into(), || looked().filter(|at| *at > first));
    assert_eq!((jobs(&service).len(), jobs(&service)[0].id.clone()), (1, kept.id));
    assert!(written() == before, "something was done twice");
    // A newer upload of the same name replaces what the forgotten job made.
    let forgotten = (0..3).map(|k| format!("clip-{k}.mp4")).find(|name| kept.input.as_str() != name).unwrap();
    let longer = Site::new(6);
    std::fs::copy(longer.path("clip.mp4"), site.path("in/new.part")).unwrap();
    std::fs::rename(site.path("in/new.part"), site.path("in").join(&forgotten)).unwrap();
    let done = until(&|| format!("{:?}", jobs(&service)), || {
        jobs(&service).into_iter().find(|j| j.input.as_str() == forgotten && j.state.is_ended())
    });
    assert_eq!((done.state, done.progress.frames_done), (JobState::Finished, 6), "{done:?}");
}

#[test]
fn jobs_are_kept_for_a_time() {
    let site = Site::new(4);
    let service = start(&site, "keep_jobs = \"2s\"");
    site.drop_clip("in/clip.mp4");
    let said = || format!("{:?}", jobs(&service));
    until(&said, || (jobs(&service).first()?.state == JobState::Finished).then_some(()));
    until(&said, || jobs(&service).is_empty().then_some(()));
    assert_eq!(site.reports("logs").len(), 1, "its report stays");
}
