//! A job's events as a stream.

use crate::bench::Bench;
use crate::client::{Answer, answer, connect, request};
use serde_json::{Value, json};
use std::io::{Read, Write as _};

/// Events of a stream: number, kind, data.
fn parse(text: &str) -> Vec<(u64, String, Value)> {
    let field = |block: &str, name: &str| {
        block
            .lines()
            .find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")))
            .map(str::to_owned)
    };
    let event = |block: &str| {
        let (id, kind, data) = (field(block, "id")?, field(block, "event")?, field(block, "data")?);
        Some((id.parse().unwrap(), kind, serde_json::from_str(&data).unwrap()))
    };
    text.split("\n\n").filter_map(event).collect()
}

#[test]
fn events_come_live_end_with_the_job_and_are_replayed_from_any_number() {
    let bench = Bench::start("", "");
    bench.clip("clip.mp4", 25);
    assert_eq!(bench.put_json("/v1/jobs/one", &json!({"input": "clip.mp4"})).status, 202);
    let mut live = connect(bench.address());
    live.write_all(&request(bench.address(), "GET", "/v1/jobs/one/events", &[], b"")).unwrap();
    let live = answer(&mut live).unwrap();
    assert_eq!((live.status, live.header("content-type")), (200, Some("text/event-stream")));
    let events = parse(&live.text());
    let numbers: Vec<u64> = events.iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "a number is missing");
    let kinds: Vec<&str> = events.iter().map(|(_, kind, _)| kind.as_str()).collect();
    assert_eq!(kinds[0], "state");
    assert!(kinds.contains(&"planned") && kinds.contains(&"finished"), "{kinds:?}");
    assert_eq!(events.last().unwrap().2["state"], "finished");
    bench.wait_for("one", &["finished"]);

    let last = *numbers.last().unwrap();
    for after in [0, 1, last - 1] {
        let header = after.to_string();
        let replay = bench.ask("GET", "/v1/jobs/one/events", &[("last-event-id", &header)], b"");
        assert_eq!(parse(&replay.text()), events[after as usize..], "after {after}");
        let query = bench.get(&format!("/v1/jobs/one/events?after={after}"));
        assert_eq!(parse(&query.text()), events[after as usize..]);
    }
    let header = last.to_string();
    let nothing = bench.ask("GET", "/v1/jobs/one/events", &[("last-event-id", &header)], b"");
    assert_eq!(nothing.status, 204, "a browser would come back for ever");
    bench.ask("GET", "/v1/jobs/one/events", &[("last-event-id", "x")], b"").problem(400);
    assert_eq!(bench.get("/v1/jobs/none/events").problem(404), "not_found");
}

#[test]
fn a_stream_ends_when_the_listeners_do() {
    let bench = Bench::start("jobs_at_once = 1", "");
    bench.clip("long.mp4", 400);
    for n in 0..2 {
        let request = json!({"input": "long.mp4", "output": format!("o{n}.mp4")});
        assert_eq!(bench.put_json(&format!("/v1/jobs/j{n}"), &request).status, 202);
    }
    let address = bench.address();
    let mut stream = connect(address);
    stream.write_all(&request(address, "GET", "/v1/jobs/j1/events", &[], b"")).unwrap();
    // Its first event has come: the stream is open.
    let mut first = [0; 16];
    std::io::Read::read_exact(&mut stream, &mut first).unwrap();
    bench.server.stop(std::time::Duration::from_secs(30));
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut stream, &mut rest);
    assert!(std::net::TcpStream::connect(address).is_err(), "somebody still listens");
}

/// Reads a stream without end until it said something.
struct Until<R> {
    stream: R,
    said: String,
    wanted: String,
}

impl<R: Read> Read for Until<R> {
    fn read(&mut self, piece: &mut [u8]) -> std::io::Result<usize> {
        if self.said.contains(&self.wanted) {
            return Ok(0);
        }
        let read = self.stream.read(piece)?;
        self.said += &String::from_utf8_lossy(&piece[..read]);
        Ok(read)
    }
}

/// What the service's own stream says until it says `wanted`.
pub fn opening(bench: &Bench, wanted: &str) -> Answer {
    let mut stream = connect(bench.address());
    stream.write_all(&request(bench.address(), "GET", "/v1/events", &[], b"")).unwrap();
    answer(&mut Until { stream, said: String::new(), wanted: wanted.to_owned() }).unwrap()
}

#[test]
fn one_stream_tells_of_every_job_node_and_number() {
    let bench = Bench::start("nodes = { max = 2 }", "");
    bench.clip("clip.mp4", 25);
    let first = opening(&bench, "event: summary");
    assert_eq!((first.status, first.header("content-type")), (200, Some("text/event-stream")));
    assert!(first.text().contains("event: nodes\ndata: []"), "{}", first.text());
    // It is open before there is a job.
    let mut stream = connect(bench.address());
    stream.write_all(&request(bench.address(), "GET", "/v1/events", &[], b"")).unwrap();
    assert_eq!(bench.put_json("/v1/jobs/one", &json!({"input": "clip.mp4"})).status, 202);
    let wanted = "\"state\":\"finished\"".to_owned();
    let told = answer(&mut Until { stream, said: String::new(), wanted }).unwrap().text();
    assert!(told.contains("event: job\ndata: {\"id\":\"one\"") && told.contains("\"state\":\"running\""), "{told}");
}
