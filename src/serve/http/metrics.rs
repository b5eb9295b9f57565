//! `/metrics` for Prometheus, on a listener of its own.
//!
//! Label values come from closed lists of this program, never from a client, a job or a tenant: a scrape stays small and names nobody.

use super::api::Api;
use super::problem::Problem;
use super::resource;
use crate::serve::Handed;
use crate::serve::ident::Scope;
use crate::serve::service::Service;
use crate::serve::view::NodeState;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpResponse, Resource, web};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use restyle_engine::clock::{Clock, SystemClock};
use std::fmt;
use std::time::Duration;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of request times in seconds: an answer from memory, from disk, a preview, a long upload.
const SECONDS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    status: &'static str,
}

/// What the HTTP side counts itself.
#[derive(Debug)]
pub(super) struct HttpMetrics {
    clock: SystemClock,
    requests: Family<RequestLabels, Counter>,
    seconds: Histogram,
    open: Gauge,
    webhooks: Family<OutcomeLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// What became of a message to a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// It was taken.
    Delivered,
    /// It was given up after every attempt.
    GivenUp,
    /// There was no room to keep it.
    Dropped,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        let webhooks = Family::<OutcomeLabels, Counter>::default();
        for outcome in ["delivered", "given_up", "dropped"] {
            // From zero on, so that the first one is seen as an increase.
            drop(webhooks.get_or_create(&OutcomeLabels { outcome }));
        }
        Self {
            clock: SystemClock::new(),
            requests: Family::default(),
            seconds: Histogram::new(SECONDS),
            open: Gauge::default(),
            webhooks,
        }
    }
}

impl HttpMetrics {
    /// Notes that a request came in; returns when.
    pub(super) fn begin(&self) -> Duration {
        self.open.inc();
        self.clock.now()
    }

    /// Notes how it was answered; returns how many microseconds that took.
    pub(super) fn end(&self, began: Duration, method: &Method, status: StatusCode) -> u64 {
        let took = self.clock.now().saturating_sub(began);
        let labels = RequestLabels { method: method_label(method), status: status_label(status) };
        self.requests.get_or_create(&labels).inc();
        self.seconds.observe(took.as_secs_f64());
        self.open.dec();
        u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
    }

    /// Notes what became of a message to a webhook.
    pub(super) fn note_webhook(&self, delivery: Delivery) {
        let outcome = match delivery {
            Delivery::Delivered => "delivered",
            Delivery::GivenUp => "given_up",
            Delivery::Dropped => "dropped",
        };
        self.webhooks.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("restyle_http_requests", "Requests answered", self.requests.clone());
        registry.register("restyle_http_request_seconds", "Time until the answer began", self.seconds.clone());
        registry.register("restyle_http_open_requests", "Requests without an answer yet", self.open.clone());
        registry.register("restyle_webhook_messages", "Messages to webhooks by outcome", self.webhooks.clone());
    }
}

/// A method that nobody here serves is not a label of its own: clients make them up.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        _ => "other",
    }
}

fn status_label(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

/// Reads the service when it is scraped.
struct Observed(Service);

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observed")
    }
}

impl Collector for Observed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let summary = self.0.summary(&Scope::All);
        let jobs = [
            ("queued", summary.jobs.queued),
            ("running", summary.jobs.running),
            ("paused", summary.jobs.paused),
            ("finished", summary.jobs.finished),
            ("failed", summary.jobs.failed),
            ("cancelled", summary.jobs.cancelled),
        ];
        gauges(&mut encoder, "restyle_jobs", "Jobs by state", "state", &jobs)?;
        let nodes = self.0.nodes(&Scope::All);
        let count = |state: NodeState| nodes.iter().filter(|node| node.state == state).count() as u64;
        let states = NODE_STATES.map(|(name, state)| (name, count(state)));
        gauges(&mut encoder, "restyle_nodes", "Scorer nodes of running jobs by state", "state", &states)?;
        count_work(&mut encoder, &self.0)?;
        gauge(&mut encoder, "restyle_frames_per_second", "Frames a second of all running jobs", summary.fps)?;
        let ready = f64::from(u8::from(self.0.health().ready));
        gauge(&mut encoder, "restyle_ready", "Whether jobs are taken", ready)
    }
}

/// What was done since the service started.
fn count_work(encoder: &mut DescriptorEncoder<'_>, service: &Service) -> Result<(), fmt::Error> {
    let tallied = service.tallied();
    let frames = [
        ("scored", tallied.frames_scored as f64),
        ("reused", tallied.frames_reused as f64),
        ("redone", tallied.frames_redone as f64),
        ("failed", tallied.frames_failed as f64),
    ];
    counters(encoder, "restyle_score_frames", "Frames by outcome", "outcome", &frames)?;
    let attempts = [("finished", tallied.attempts_finished as f64), ("failed", tallied.attempts_failed as f64)];
    counters(encoder, "restyle_job_attempts", "Attempts at jobs by outcome", "outcome", &attempts)?;
    let events = [
        ("preempted", tallied.preemptions as f64),
        ("restarted", tallied.restarts as f64),
        ("failed", tallied.node_failures as f64),
    ];
    counters(encoder, "restyle_node_events", "What happened to scorer nodes", "event", &events)?;
    let used = tallied.node_seconds;
    let seconds = [("dedicated", used.dedicated), ("low-priority", used.low_priority)];
    counters(encoder, "restyle_node_seconds", "Seconds that scorer nodes worked, by class", "class", &seconds)?;
    let stores = [("work", tallied.store_micros as f64)];
    counters(encoder, "restyle_store_call_micros", "Microseconds in calls of a store", "store", &stores)?;
    let full = [("work", tallied.storage_full_waits as f64)];
    counters(encoder, "restyle_store_full_waits", "Times that a store without room was waited for", "store", &full)?;
    let damaged = [("work", tallied.objects_damaged as f64)];
    counters(encoder, "restyle_store_damaged_objects", "Damaged objects that were made again", "store", &damaged)?;
    let phases: Vec<(&str, f64)> = service.phase_seconds().into_iter().collect();
    counters(encoder, "restyle_job_phase_seconds", "Seconds that jobs spent, by phase", "phase", &phases)?;
    count_hand_offs(encoder, service)
}

/// What went from stage to stage, what lies between them now, and how long who hands on had to wait.
fn count_hand_offs(encoder: &mut DescriptorEncoder<'_>, service: &Service) -> Result<(), fmt::Error> {
    let fills: Vec<(&str, u64)> = service.in_hand().into_iter().collect();
    gauges(encoder, "restyle_link_fill_frames", "Frames in hand-offs between stages", "link", &fills)?;
    let handed = service.handed();
    let each = |of: fn(&Handed) -> u64| handed.iter().map(|(name, h)| (*name, of(h) as f64)).collect::<Vec<_>>();
    counters(encoder, "restyle_link_in_frames", "Frames that went into hand-offs", "link", &each(|h| h.entered))?;
    counters(encoder, "restyle_link_out_frames", "Frames that came out of hand-offs", "link", &each(|h| h.left))?;
    counters(encoder, "restyle_link_stall_micros", "Time waited for room", "link", &each(|h| h.stall_micros))
}

const NODE_STATES: [(&str, NodeState); 9] = [
    ("starting", NodeState::Starting),
    ("running", NodeState::Running),
    ("draining", NodeState::Draining),
    ("preempted", NodeState::Preempted),
    ("restarting", NodeState::Restarting),
    ("paused", NodeState::Paused),
    ("unusable", NodeState::Unusable),
    ("ended", NodeState::Ended),
    ("wanted", NodeState::Wanted),
];

fn gauges(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: &[(&str, u64)],
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (word, value) in values {
        let value = ConstGauge::new(i64::try_from(*value).unwrap_or(i64::MAX));
        value.encode(family.encode_family(&[(label, *word)])?)?;
    }
    Ok(())
}

fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: &[(&str, f64)],
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (word, value) in values {
        ConstCounter::new(*value).encode(family.encode_family(&[(label, *word)])?)?;
    }
    Ok(())
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> Result<(), fmt::Error> {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

pub(super) fn resource_of_metrics() -> Resource {
    resource("/metrics", [(Method::GET, web::to(answer))])
}

async fn answer(api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let written = api.get_ref().clone();
    let page = api.call(move |_| Ok(page(&written))).await?;
    let page = page.map_err(|_| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR))?;
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, OPENMETRICS)).body(page))
}

/// Writes everything; waits for no more than the service's own locks.
fn page(api: &Api) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    api.metrics().register(&mut registry);
    registry.register_collector(Box::new(Observed(api.service().clone())));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}
