//! Messages to webhooks: where to is the operator's configuration alone, never a client's word.
//!
//! Each webhook has a thread and a bounded queue of its own, so that a slow receiver holds back nothing else. A message is signed, sent
//! again with growing pauses, and given up at last: the list of jobs stays the truth, a message is a hint to look.

use super::api::Api;
use super::metrics::Delivery;
use crate::serve::access::AccessError;
use crate::serve::config::Webhook;
use crate::serve::job::JobState;
use crate::serve::view::JobView;
use crossbeam_channel::{Receiver, RecvTimeoutError, select};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::redirect::Policy;
use restyle_engine::clock::{Clock, SystemClock};
use serde::Serialize;
use sha2::Sha256;
use std::fmt::Write as _;
use std::time::Duration;

/// Pauses before each further attempt; after the last one the message is given up.
const PAUSES: [Duration; 7] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(300),
];
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// A secret shorter than this could be guessed.
const SECRET_BYTES_MIN: usize = 16;

/// What is sent.
#[derive(Debug, Serialize)]
struct Message<'a> {
    /// Stays the same when it is sent again: receivers drop what they know.
    id: &'a str,
    /// `job.finished`, `job.failed`, or `job.state` for other changes.
    #[serde(rename = "type")]
    kind: &'a str,
    job: &'a JobView,
}

/// Starts a thread for each configured webhook; they end with the service or when `api` ends its streams.
///
/// # Errors
/// [`AccessError`] when a secret cannot be read or is too short, or no thread can be had.
pub(super) fn start(api: &Api) -> Result<(), AccessError> {
    for hook in &api.service().config().webhooks {
        let sender = Sender::new(api, hook)?;
        let (changes, ending) = (api.service().changes(), api.ending());
        std::thread::Builder::new()
            .name("restyle-webhook".to_owned())
            .spawn(move || sender.run(&changes, &ending))
            .map_err(|e| AccessError::Invalid(format!("cannot start a thread for a webhook: {e}")))?;
    }
    Ok(())
}

struct Sender {
    api: Api,
    url: String,
    secret: Option<Vec<u8>>,
    events: Vec<String>,
    clock: SystemClock,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Sender {
    fn new(api: &Api, hook: &Webhook) -> Result<Self, AccessError> {
        let invalid = |why: String| AccessError::Invalid(format!("webhook: {why}"));
        let secret = hook.secret_file.as_deref().map(|path| {
            let text = std::fs::read_to_string(path).map_err(|e| AccessError::file("webhook secret", path, e))?;
            let secret = text.trim().as_bytes().to_vec();
            if secret.len() < SECRET_BYTES_MIN {
                return Err(invalid(format!("{} holds fewer than {SECRET_BYTES_MIN} bytes", path.display())));
            }
            Ok(secret)
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let client = reqwest::Client::builder()
            // An answer that points elsewhere is not followed: messages go where the operator said.
            .redirect(Policy::none())
            .timeout(ATTEMPT_TIMEOUT)
            .user_agent(concat!("restyle/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self {
            api: api.clone(),
            url: hook.url.clone(),
            secret: secret.transpose()?,
            events: hook.events.clone(),
            clock: SystemClock::new(),
            client: client.map_err(|e| invalid(e.without_url().to_string()))?,
            runtime: runtime.map_err(|e| invalid(e.to_string()))?,
        })
    }

    fn run(&self, changes: &Receiver<JobView>, ending: &Receiver<()>) {
        loop {
            select! {
                recv(changes) -> job => match job {
                    Ok(job) => self.tell(&job, ending),
                    Err(_) => return,
                },
                recv(ending) -> _ => return,
            }
        }
    }

    fn tell(&self, job: &JobView, ending: &Receiver<()>) {
        let kind = match job.state {
            JobState::Finished => "finished",
            JobState::Failed => "failed",
            _ => "state",
        };
        if !self.events.iter().any(|wanted| wanted == kind || wanted == "state") {
            return;
        }
        let id = message_id(job);
        let kind = format!("job.{kind}");
        let Ok(body) = serde_json::to_vec(&Message { id: &id, kind: &kind, job }) else { return };
        let delivery = self.deliver(&id, &body, ending);
        self.api.metrics().note_webhook(delivery);
        if delivery == Delivery::GivenUp {
            tracing::warn!(message = id, job = %job.id, "a webhook did not take a message");
        }
    }

    fn deliver(&self, id: &str, body: &[u8], ending: &Receiver<()>) -> Delivery {
        for pause in PAUSES.iter().map(Some).chain([None]) {
            match self.runtime.block_on(self.attempt(id, body)) {
                Attempt::Taken => return Delivery::Delivered,
                Attempt::Refused => return Delivery::GivenUp,
                Attempt::Later => {}
            }
            let Some(pause) = pause else { break };
            if ending.recv_timeout(*pause) == Err(RecvTimeoutError::Disconnected) {
                return Delivery::Dropped;
            }
        }
        Delivery::GivenUp
    }

    async fn attempt(&self, id: &str, body: &[u8]) -> Attempt {
        let at = self.clock.unix().as_secs();
        let mut request = self
            .client
            .post(&self.url)
            .header("content-type", "application/json")
            .header("restyle-delivery", id)
            .header("restyle-timestamp", at)
            .body(body.to_vec());
        if let Some(secret) = &self.secret {
            request = request.header("restyle-signature", signature(secret, at, body));
        }
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Attempt::Taken,
            Ok(answer) if is_passing(answer.status().as_u16()) => Attempt::Later,
            Ok(_) => Attempt::Refused,
            Err(_) => Attempt::Later,
        }
    }
}

/// What an attempt came to.
enum Attempt {
    Taken,
    /// The receiver will never take it.
    Refused,
    Later,
}

/// A receiver that is late, busy or broken may be well again; one that refuses will refuse again.
fn is_passing(status: u16) -> bool {
    status >= 500 || matches!(status, 408 | 425 | 429)
}

/// The same change has the same id, whoever asks.
fn message_id(job: &JobView) -> String {
    let at = job.ended_at.as_deref().or(job.started_at.as_deref()).unwrap_or(&job.created_at);
    let text = format!("{}/{}/{}/{}/{at}", job.tenant, job.id, job.state.name(), job.attempts);
    blake3::hash(text.as_bytes()).to_hex().as_str()[..32].to_owned()
}

/// `v1=` and the HMAC-SHA256 of the timestamp, a dot and the body: who checks the timestamp as well cannot be sent old messages.
fn signature(secret: &[u8], at: u64, body: &[u8]) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(format!("{at}.").as_bytes());
    mac.update(body);
    mac.finalize().into_bytes().iter().fold("v1=".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_hmac_sha256_of_timestamp_and_body() {
        // Reference: printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let expected = "v1=9eb18f493f8ec135d9eb2dad817c369bb4e9cbfa818657897a7437c1cd8c3a23";
        assert_eq!(signature(b"0123456789abcdef", 1_700_000_000, b"{\"a\":1}"), expected);
        assert_ne!(signature(b"0123456789abcdef", 1_700_000_001, b"{\"a\":1}"), expected);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for status in [408, 425, 429, 500, 503] {
            assert!(is_passing(status), "{status}");
        }
        for status in [301, 400, 401, 404, 410] {
            assert!(!is_passing(status), "{status}");
        }
    }
}
