//! Notices that this machine is about to be taken away, from where its owner announces them.
//!
//! A source is asked every few seconds; the first notice is told once. What cannot be asked is no notice: a machine without such a service
//! works on, and says so in its log. Addresses are the link-local ones that the clouds document, never taken from a request.

mod http;

use crate::error::{ActorError, Result};
use http::{Answer, Request};
use restyle_engine::cancel::CancelToken;
use restyle_engine::clock::Clock;
use serde::Deserialize;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where all three clouds serve a machine's metadata.
const METADATA: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);

/// How often a source is asked; the shortest notice that a cloud gives is 30 seconds.
const POLL: Duration = Duration::from_secs(2);

/// Seconds that an AWS session token lives; the longest there is.
const TOKEN_SECONDS: &str = "21600";

/// Who announces a pre-emption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticeSource {
    /// A file that appears.
    File(PathBuf),
    /// Azure Scheduled Events.
    Azure(SocketAddr),
    /// AWS spot instance actions, over version 2 of the metadata service.
    Aws(SocketAddr),
    /// Google Cloud's `preempted` metadata value.
    Gcp(SocketAddr),
}

impl NoticeSource {
    /// Reads `file:PATH`, `azure`, `aws` or `gcp`.
    ///
    /// # Errors
    /// `Usage` for anything else.
    pub fn parse(said: &str) -> Result<Self> {
        match said {
            "azure" => Ok(Self::Azure(METADATA)),
            "aws" => Ok(Self::Aws(METADATA)),
            "gcp" => Ok(Self::Gcp(METADATA)),
            _ => match said.strip_prefix("file:").filter(|path| !path.is_empty()) {
                Some(path) => Ok(Self::File(path.into())),
                None => Err(ActorError::Usage(format!(
                    "pre-emption notices come from file:PATH, azure, aws or gcp, not from {said:?}"
                ))),
            },
        }
    }
}

impl fmt::Display for NoticeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Azure(_) => f.write_str("Azure Scheduled Events"),
            Self::Aws(_) => f.write_str("AWS spot instance action"),
            Self::Gcp(_) => f.write_str("GCP metadata"),
        }
    }
}

/// This machine will be taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Who says so, and in which words.
    pub said: String,
}

/// Asks one source; belongs to one thread.
pub struct NoticePoll {
    source: NoticeSource,
    clock: Arc<dyn Clock>,
    /// AWS: the session's token. Azure: this machine's name.
    known: RefCell<Option<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ScheduledEvents {
    events: Vec<ScheduledEvent>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ScheduledEvent {
    event_type: String,
    #[serde(default)]
    event_status: String,
    #[serde(default)]
    resources: Vec<String>,
}

#[derive(Deserialize)]
struct InstanceAction {
    action: String,
}

impl NoticePoll {
    /// Prepares to ask; asks nothing yet.
    #[must_use]
    pub fn new(source: NoticeSource, clock: Arc<dyn Clock>) -> Self {
        Self { source, clock, known: RefCell::new(None) }
    }

    /// Asks once; blocks for a few seconds at most.
    ///
    /// # Errors
    /// `Storage` when the source cannot be asked or does not answer as documented.
    pub fn ask(&self) -> Result<Option<Notice>> {
        let said = match &self.source {
            NoticeSource::File(path) => path.exists().then(String::new),
            NoticeSource::Azure(at) => self.ask_azure(*at)?,
            NoticeSource::Aws(at) => self.ask_aws(*at)?,
            NoticeSource::Gcp(at) => self.ask_gcp(*at)?,
        };
        Ok(said.map(|said| Notice { said: format!("{} {said}", self.source).trim_end().to_owned() }))
    }

    /// Events of other machines of the same scale set are listed as well; what names no machine is taken as ours.
    fn ask_azure(&self, at: SocketAddr) -> Result<Option<String>> {
        const METADATA_HEADER: (&str, &str) = ("Metadata", "true");
        let name = self.remembered(|| {
            let path = "/metadata/instance/compute/name?api-version=2021-02-01&format=text";
            Ok(self.get(at, path, METADATA_HEADER)?.ok_or_else(|| self.odd("no machine name"))?.trim().to_owned())
        });
        let path = "/metadata/scheduledevents?api-version=2020-07-01";
        let body = self.get(at, path, METADATA_HEADER)?.ok_or_else(|| self.odd("no such document"))?;
        let document: ScheduledEvents = serde_json::from_str(&body).map_err(|e| self.odd(&e.to_string()))?;
        let is_ours = |event: &ScheduledEvent| match &name {
            Ok(name) => event.resources.is_empty() || event.resources.contains(name),
            Err(_) => true,
        };
        let ends_us = |event: &&ScheduledEvent| {
            matches!(event.event_type.as_str(), "Preempt" | "Terminate" | "Reboot" | "Redeploy")
                && matches!(event.event_status.as_str(), "Scheduled" | "Started")
                && is_ours(event)
        };
        Ok(document.events.iter().find(ends_us).map(|event| event.event_type.clone()))
    }

    fn ask_aws(&self, at: SocketAddr) -> Result<Option<String>> {
        let token = self.remembered(|| {
            let request = Request {
                method: "PUT",
                path: "/latest/api/token",
                header: ("X-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS),
            };
            self.text(self.send(at, &request)?)?.ok_or_else(|| self.odd("no token service"))
        })?;
        let request = Request {
            method: "GET",
            path: "/latest/meta-data/spot/instance-action",
            header: ("X-aws-ec2-metadata-token", &token),
        };
        let answer = self.send(at, &request)?;
        if answer.status == 401 {
            // The token has run out; the next time asks for another.
            self.known.replace(None);
            return Ok(None);
        }
        let Some(body) = self.text(answer)? else { return Ok(None) };
        let action: InstanceAction = serde_json::from_str(&body).map_err(|e| self.odd(&e.to_string()))?;
        Ok(Some(action.action))
    }

    fn ask_gcp(&self, at: SocketAddr) -> Result<Option<String>> {
        let path = "/computeMetadata/v1/instance/preempted";
        let body = self.get(at, path, ("Metadata-Flavor", "Google"))?.ok_or_else(|| self.odd("no such value"))?;
        Ok((body.trim() == "TRUE").then(|| "preempted".to_owned()))
    }

    fn remembered(&self, learn: impl FnOnce() -> Result<String>) -> Result<String> {
        if let Some(known) = self.known.borrow().clone() {
            return Ok(known);
        }
        let learnt = learn()?;
        self.known.replace(Some(learnt.clone()));
        Ok(learnt)
    }

    fn get(&self, at: SocketAddr, path: &str, header: (&str, &str)) -> Result<Option<String>> {
        self.text(self.send(at, &Request { method: "GET", path, header })?)
    }

    fn send(&self, at: SocketAddr, request: &Request<'_>) -> Result<Answer> {
        http::send(at, request, &*self.clock).map_err(|e| self.odd(&e.to_string()))
    }

    /// The body of a success; `None` where there is no such thing.
    fn text(&self, answer: Answer) -> Result<Option<String>> {
        match answer.status {
            200 => String::from_utf8(answer.body).map(Some).map_err(|_| self.odd("a body that is no text")),
            404 => Ok(None),
            status => Err(self.odd(&format!("status {status}"))),
        }
    }

    fn odd(&self, what: &str) -> ActorError {
        ActorError::Storage { message: format!("{} cannot be asked: {what}", self.source), transient: true }
    }
}

/// Watches a source on a thread of its own until it is dropped.
pub struct NoticeWatch {
    stop: CancelToken,
}

impl NoticeWatch {
    /// Starts watching; `on_notice` is called once, on the watching thread.
    ///
    /// # Errors
    /// `Storage` when no thread can be had.
    pub fn start(
        source: NoticeSource,
        clock: Arc<dyn Clock>,
        on_notice: impl FnOnce(Notice) + Send + 'static,
    ) -> Result<Self> {
        let stop = CancelToken::new();
        let stopped = stop.clone();
        let watch = move || {
            let poll = NoticePoll::new(source, clock);
            let complained = Cell::new(false);
            loop {
                match poll.ask() {
                    Ok(Some(notice)) => return on_notice(notice),
                    Ok(None) => complained.set(false),
                    Err(error) if !complained.replace(true) => tracing::warn!(%error, "pre-emption notices"),
                    Err(_) => {}
                }
                if stopped.wait_timeout(POLL) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("restyle-notice".into()).spawn(watch);
        thread.map_err(|e| ActorError::storage(format!("cannot start a thread for pre-emption notices: {e}")))?;
        Ok(Self { stop })
    }
}

impl Drop for NoticeWatch {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests;
