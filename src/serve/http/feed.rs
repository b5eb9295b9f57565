//! Everything that a caller sees, as it changes: one stream for whoever looks at the whole service.

use super::api::Api;
use super::body::{ClientGone, PieceWriter};
use super::caller::Caller;
use super::problem::Problem;
use super::sse::event_stream;
use crate::serve::ident::{ClientJobId, Scope, Tenant};
use crate::serve::job::JobState;
use crate::serve::service::Service;
use crate::serve::view::{JobFilter, JobView};
use actix_web::web::Bytes;
use actix_web::{HttpResponse, web};
use crossbeam_channel::{Receiver, select, tick};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// How often running jobs, nodes and the summary are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Looks without news before a comment is sent: proxies close connections that say nothing.
const QUIET_LOOKS: u32 = 15;
/// Pieces that wait for a slow client before its thread waits too.
const DEPTH: usize = 64;
/// A client that takes nothing for so long is let go; it comes back and is told what is then.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Running jobs that are told of; far more than run side by side.
const RUNNING_MAX: usize = 500;

/// The jobs, nodes and numbers that the caller sees, as they change: `job` a JobView, `nodes` a list of NodeView, `summary` a Summary. Running jobs
/// are told once a second, others when their state changes; a new connection is told what is, not what was.
#[utoipa::path(get, path = "/v1/events", tag = "service", responses(
    (status = 200, content_type = "text/event-stream", body = String),
))]
pub(super) async fn feed(api: web::Data<Api>, caller: Caller) -> Result<HttpResponse, Problem> {
    let permit = api.pipe()?;
    let service = api.service().clone();
    let (changes, scope) = (service.changes(), caller.scope());
    let (writer, pieces) = PieceWriter::new(DEPTH, STALL_MAX);
    let ending = api.ending();
    let feed = Feed { service, scope, writer, jobs: BTreeMap::new(), said: BTreeMap::new() };
    std::thread::Builder::new()
        .name("restyle-feed".to_owned())
        .spawn(move || feed.run(&changes, &ending, permit))
        .map_err(|e| Problem::busy(format!("no thread can be had for a stream: {e}")))?;
    Ok(event_stream(pieces))
}

/// One caller's stream.
struct Feed {
    service: Service,
    scope: Scope,
    writer: PieceWriter,
    /// What was last said of each job that runs.
    jobs: BTreeMap<(Tenant, ClientJobId), String>,
    /// What was last said of the rest, by the name of the event.
    said: BTreeMap<&'static str, String>,
}

impl Feed {
    fn run(mut self, changes: &Receiver<JobView>, ending: &Receiver<()>, _room: OwnedSemaphorePermit) {
        // The client is gone: there is nobody to tell.
        let _ = self.carry(changes, ending);
    }

    fn carry(&mut self, changes: &Receiver<JobView>, ending: &Receiver<()>) -> Result<(), ClientGone> {
        self.writer.write(Bytes::from_static(b"retry: 2000\n\n"))?;
        self.look()?;
        let (looks, mut quiet) = (tick(LOOK), 0);
        while !self.writer.is_abandoned() {
            select! {
                recv(changes) -> job => match job {
                    Ok(job) => self.changed(&job)?,
                    Err(_) => return Ok(()),
                },
                recv(ending) -> _ => return Ok(()),
                recv(looks) -> _ => quiet = if self.look()? { 0 } else { quiet + 1 },
            }
            if quiet >= QUIET_LOOKS {
                self.writer.write(Bytes::from_static(b": still here\n\n"))?;
                quiet = 0;
            }
        }
        Ok(())
    }

    /// Tells of a job that is in another state.
    fn changed(&mut self, job: &JobView) -> Result<(), ClientGone> {
        if !self.scope.sees(&job.tenant) {
            return Ok(());
        }
        let (key, said) = ((job.tenant.clone(), job.id.clone()), json(job));
        self.writer.write(piece("job", &said))?;
        if job.state == JobState::Running {
            self.jobs.insert(key, said)
        } else {
            self.jobs.remove(&key)
        };
        Ok(())
    }

    /// Tells what is not as it was at the last look; says whether anything was.
    fn look(&mut self) -> Result<bool, ClientGone> {
        let filter = JobFilter { states: vec![JobState::Running], limit: RUNNING_MAX, ..JobFilter::default() };
        let (mut running, mut is_news) = (BTreeMap::new(), false);
        for job in self.service.list(&self.scope, &filter).jobs {
            let (key, said) = ((job.tenant.clone(), job.id.clone()), json(&job));
            if self.jobs.get(&key) != Some(&said) {
                self.writer.write(piece("job", &said))?;
                is_news = true;
            }
            running.insert(key, said);
        }
        self.jobs = running;
        let nodes = json(&self.service.nodes(&self.scope));
        let summary = json(&self.service.summary(&self.scope));
        Ok(self.say("nodes", nodes)? | self.say("summary", summary)? | is_news)
    }

    fn say(&mut self, event: &'static str, now: String) -> Result<bool, ClientGone> {
        if self.said.get(event) == Some(&now) {
            return Ok(false);
        }
        self.writer.write(piece(event, &now))?;
        self.said.insert(event, now);
        Ok(true)
    }
}

fn json(value: &impl Serialize) -> String {
    // Plain data of this program: it can be written.
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

fn piece(event: &str, data: &str) -> Bytes {
    Bytes::from(format!("event: {event}\ndata: {data}\n\n"))
}
