//! Verbs that look at and steer the jobs and nodes of a running service.

use super::client::{Client, escaped};
use super::client_args::{JobArgs, ListArgs, LogsArgs, NodeVerb};
use super::output;
use super::watch::{of_service, watch};
use crate::error::{Error, ErrorKind};
use serde_json::{Value, json};

/// Jobs that the service lists at once.
const PAGE: u32 = 500;

/// Tells a job to do `verb`: cancel, retry, pause or resume.
pub(super) fn steer(args: &JobArgs, verb: &str) -> Result<(), Error> {
    let job = Client::open(&args.server)?.post(&format!("/v1/jobs/{}/{verb}", escaped(&args.id)), &json!({}))?;
    show(&job, args.json)
}

pub(super) fn status(args: &JobArgs) -> Result<(), Error> {
    show(&Client::open(&args.server)?.get(&format!("/v1/jobs/{}", escaped(&args.id)))?, args.json)
}

/// Prints the log, and with `--follow` what happens from then on, as lines of JSON.
pub(super) fn logs(args: &LogsArgs) -> Result<(), Error> {
    let client = Client::open(&args.server)?;
    let id = escaped(&args.id);
    if !args.follow {
        let print = |piece: &[u8]| output::write(&String::from_utf8_lossy(piece));
        return client.read(&format!("/v1/jobs/{id}/log"), whole_lines(print));
    }
    let mut event = json!({});
    let take = whole_lines(|lines| {
        for line in String::from_utf8_lossy(lines).lines() {
            match line.split_once(": ") {
                Some(("id", seq)) => event["seq"] = seq.parse::<u64>().unwrap_or_default().into(),
                Some(("event", kind)) => event["event"] = kind.into(),
                Some(("data", data)) => {
                    event["data"] = serde_json::from_str(data).unwrap_or_default();
                    output::write(&format!("{event}\n"))?;
                }
                _ => {}
            }
        }
        Ok(())
    });
    client.read(&format!("/v1/jobs/{id}/events"), take)
}

/// Hands on what arrives a line or more at a time: a piece may end inside a letter.
fn whole_lines(mut take: impl FnMut(&[u8]) -> Result<(), Error>) -> impl FnMut(&[u8]) -> Result<(), Error> {
    let mut held = Vec::new();
    move |piece| {
        held.extend_from_slice(piece);
        match held.iter().rposition(|b| *b == b'\n') {
            Some(end) => {
                let rest = held.split_off(end + 1);
                take(&std::mem::replace(&mut held, rest))
            }
            None => Ok(()),
        }
    }
}

pub(super) fn list(args: &ListArgs) -> Result<(), Error> {
    let client = Client::open(&args.server)?;
    if !args.watch {
        return jobs(&client, args)?.iter().try_for_each(|job| match args.json {
            true => output::write_json(job),
            false => output::write(&line(job)),
        });
    }
    watch(|| Ok(jobs(&client, args)?.iter().map(of_service).collect()))
}

fn jobs(client: &Client, args: &ListArgs) -> Result<Vec<Value>, Error> {
    let mut filter = String::new();
    for (name, value) in [("state", &args.state), ("route", &args.route)] {
        if let Some(value) = value {
            filter += &format!("&{name}={}", escaped(value));
        }
    }
    if args.failed {
        filter += "&failed=true";
    }
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let left = args.limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX)).min(PAGE);
        if left == 0 {
            return Ok(found);
        }
        let mut page = client.get(&format!("/v1/jobs?limit={left}{filter}{cursor}"))?;
        if let Some(jobs) = page["jobs"].as_array_mut() {
            found.append(jobs);
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={}", escaped(next)),
            None => return Ok(found),
        }
    }
}

pub(super) fn node(verb: &NodeVerb) -> Result<(), Error> {
    let order = |server, node: &str, verb: &str, body: &Value| {
        let view = Client::open(server)?.post(&format!("/v1/nodes/{}/{verb}", escaped(node)), body)?;
        output::write(&node_line(&view))
    };
    match verb {
        NodeVerb::List { json, server } => {
            let nodes = Client::open(server)?.get("/v1/nodes")?;
            nodes.as_array().into_iter().flatten().try_for_each(|node| match json {
                true => output::write_json(node),
                false => output::write(&node_line(node)),
            })
        }
        NodeVerb::Preempt { node, notice, server } => {
            order(server, node, "preempt", &json!({"notice_seconds": notice}))
        }
        NodeVerb::Drain { node, server } => order(server, node, "drain", &json!({})),
        NodeVerb::Resume { node, server } => order(server, node, "resume", &json!({})),
    }
}

/// Prints a job.
pub(super) fn show(job: &Value, as_json: bool) -> Result<(), Error> {
    if as_json { output::write_json(job) } else { output::write(&line(job)) }
}

/// The end of a job as this command's own.
pub(super) fn verdict(job: &Value) -> Result<(), Error> {
    match job["state"].as_str() {
        Some("failed") => {
            let kind = ErrorKind::named(job["error"]["kind"].as_str().unwrap_or_default());
            Err(Error::new(kind.unwrap_or(ErrorKind::JobFailed), text(&job["error"]["message"])))
        }
        Some("cancelled") => Err(Error::new(ErrorKind::Interrupted, "the job was cancelled; retry it to go on")),
        _ => Ok(()),
    }
}

fn text(value: &Value) -> String {
    // What comes from elsewhere must not steer the terminal.
    value
        .as_str()
        .unwrap_or("-")
        .chars()
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

fn line(job: &Value) -> String {
    let percent = job["progress"]["percent"].as_f64().map_or_else(String::new, |p| format!("{p:.0} %"));
    let eta = job["progress"]["eta_seconds"].as_f64().map_or_else(String::new, |s| format!(", {s:.0} s left"));
    let error =
        job["error"]["message"].as_str().map_or_else(String::new, |_| format!("  {}", text(&job["error"]["message"])));
    format!(
        "{:<40}  {:<9}  {percent:>5}{eta}  {} -> {}{error}\n",
        text(&job["id"]),
        text(&job["state"]),
        text(&job["input"]),
        text(&job["output"])
    )
}

fn node_line(node: &Value) -> String {
    let error = node["last_error"].as_str().map_or_else(String::new, |_| format!("  {}", text(&node["last_error"])));
    format!(
        "{:<32}  {:<10}  {:<12}  {} frames  {}{error}\n",
        text(&node["id"]),
        text(&node["state"]),
        text(&node["class"]),
        node["items_done"],
        text(&node["job"])
    )
}
