//! Traces in OTLP, for whoever follows work over several programs: a span a job's attempt, and below it a span a segment.
//!
//! Off unless the configuration names a collector. Spans are hints: a collector that is slow or gone costs spans and never a job.

use super::entry::Entry;
use super::error::ServiceError;
use super::time;
use crate::event::SegmentCommitted;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use reqwest::redirect::Policy;
use restyle_engine::clock::Clock;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Spans that wait to be sent; produced by the threads that follow jobs, consumed by the one that sends. What does not fit is left out.
const WAITING_MAX: usize = 4096;
/// Spans that go in one request.
const BATCH_MAX: usize = 256;
/// How long a span waits for others to go with it.
const GATHER: Duration = Duration::from_secs(2);
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses before a batch is sent again; after the last one it is left out.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// Takes spans; clones of it send to the same collector.
#[derive(Clone)]
pub(super) struct Tracer {
    clock: Arc<dyn Clock>,
    spans: Sender<Value>,
}

/// An attempt at a job, while it runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttemptSpan {
    trace: [u8; 16],
    id: [u8; 8],
    began: Duration,
}

impl Tracer {
    /// Starts the thread that sends to the collector at `endpoint`, such as `http://127.0.0.1:4318`.
    ///
    /// # Errors
    /// `Storage` when no thread or connection can be had.
    pub(super) fn start(endpoint: &str, clock: Arc<dyn Clock>) -> Result<Self, ServiceError> {
        let failed = |e: &dyn std::fmt::Display| ServiceError::storage(format!("traces cannot be sent: {e}"));
        let (spans, waiting) = bounded(WAITING_MAX);
        let client = reqwest::Client::builder()
            .redirect(Policy::none())
            .timeout(SEND_TIMEOUT)
            .user_agent(concat!("restyle/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| failed(&e.without_url()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| failed(&e))?;
        let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let sending = Sending { url, client, runtime, clock: Arc::clone(&clock) };
        std::thread::Builder::new()
            .name("restyle-traces".to_owned())
            .spawn(move || sending.run(&waiting))
            .map_err(|e| failed(&e))?;
        Ok(Self { clock, spans })
    }

    /// Notes that an attempt begins; every attempt at a job is in one trace.
    pub(super) fn begin(&self, entry: &Entry) -> AttemptSpan {
        let state = entry.lock();
        let (accepted, attempt) = (&state.record.accepted, state.record.attempts);
        let job = format!("{}/{}/{}", accepted.tenant, accepted.id, accepted.created_at);
        let trace = cut(&job);
        AttemptSpan { trace, id: cut(&format!("{job}/{attempt}")), began: self.clock.unix() }
    }

    /// Tells of a segment that stands.
    pub(super) fn segment(&self, attempt: &AttemptSpan, segment: &SegmentCommitted) {
        let ended = self.clock.unix();
        let began = ended.saturating_sub(Duration::from_secs_f64(segment.seconds));
        let attributes = [
            ("restyle.segment", json!({"intValue": segment.segment.to_string()})),
            ("restyle.frames", json!({"intValue": segment.frames.to_string()})),
            ("restyle.frames_reused", json!({"intValue": segment.frames_reused.to_string()})),
        ];
        let id: [u8; 8] = cut(&format!("{}/{}", hex(&attempt.id), segment.segment));
        let mut span = span("segment", &attempt.trace, &id, began, ended, &attributes);
        span["parentSpanId"] = hex(&attempt.id).into();
        self.send(span);
    }

    /// Tells what an attempt came to.
    pub(super) fn end(&self, attempt: &AttemptSpan, entry: &Entry) {
        let state = entry.lock();
        let (record, live) = (&state.record, &state.live);
        let text = |value: &str| json!({"stringValue": value});
        let mut attributes = vec![
            ("restyle.job", text(record.accepted.id.as_str())),
            ("restyle.tenant", text(record.accepted.tenant.as_str())),
            ("restyle.route", text(record.accepted.route.as_str())),
            ("restyle.style", text(&record.accepted.style)),
            ("restyle.state", text(record.state.name())),
            ("restyle.attempt", json!({"intValue": record.attempts.to_string()})),
            ("restyle.frames", json!({"intValue": live.progress.frames_done.to_string()})),
        ];
        let error = record.error.as_ref();
        attributes.extend(error.map(|e| ("error.type", text(&e.kind))));
        let mut span = span("job", &attempt.trace, &attempt.id, attempt.began, self.clock.unix(), &attributes);
        // 1 is well, 2 is an error, and what was stopped is neither.
        span["status"] = match (error, record.done.is_some()) {
            (Some(error), _) => json!({"code": 2, "message": error.message}),
            (None, true) => json!({"code": 1}),
            (None, false) => json!({}),
        };
        drop(state);
        self.send(span);
    }

    fn send(&self, span: Value) {
        if self.spans.try_send(span).is_err() {
            tracing::debug!("a span was left out: the collector is slow");
        }
    }
}

fn span(name: &str, trace: &[u8], id: &[u8], began: Duration, ended: Duration, attributes: &[(&str, Value)]) -> Value {
    let attributes: Vec<Value> = attributes.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
    json!({
        "traceId": hex(trace),
        "spanId": hex(id),
        "name": name,
        "kind": 1,
        "startTimeUnixNano": began.as_nanos().to_string(),
        "endTimeUnixNano": ended.as_nanos().to_string(),
        "attributes": attributes,
    })
}

/// The first bytes of a digest: the same after a restart.
fn cut<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..N]);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The thread that sends.
struct Sending {
    url: String,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    clock: Arc<dyn Clock>,
}

impl Sending {
    fn run(&self, waiting: &Receiver<Value>) {
        while let Ok(first) = waiting.recv() {
            let due = self.clock.now() + GATHER;
            let mut batch = vec![first];
            let mut is_over = false;
            while batch.len() < BATCH_MAX && !is_over {
                match waiting.recv_timeout(due.saturating_sub(self.clock.now())) {
                    Ok(span) => batch.push(span),
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => is_over = true,
                }
            }
            self.deliver(batch);
        }
    }

    fn deliver(&self, spans: Vec<Value>) {
        let count = spans.len();
        let service = json!([{"key": "service.name", "value": {"stringValue": "restyle"}},
            {"key": "service.version", "value": {"stringValue": env!("CARGO_PKG_VERSION")}}]);
        let scope = json!({"scope": {"name": "restyle.serve"}, "spans": spans});
        let body = json!({"resourceSpans": [{"resource": {"attributes": service}, "scopeSpans": [scope]}]}).to_string();
        for pause in PAUSES.iter().map(Some).chain([None]) {
            let request = self.client.post(&self.url).header("content-type", "application/json").body(body.clone());
            let why = match self.runtime.block_on(async { request.send().await }) {
                Ok(answer) if answer.status().is_success() => return,
                Ok(answer) => answer.status().to_string(),
                Err(error) => error.without_url().to_string(),
            };
            match pause {
                Some(pause) => self.clock.sleep(*pause),
                None => tracing::warn!(spans = count, why, at = time::now(&*self.clock), "the collector took no spans"),
            }
        }
    }
}
