use super::*;
use restyle_engine::clock::SystemClock;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

/// Serves answers, one a connection, in order; returns the requests' heads.
fn serve(answers: Vec<(&'static str, String)>) -> (SocketAddr, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let serve = move || {
        let answer = |(status, body): (&str, String)| {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            head.join("\n")
        };
        answers.into_iter().map(answer).collect()
    };
    (at, std::thread::spawn(serve))
}

fn poll(source: NoticeSource) -> NoticePoll {
    NoticePoll::new(source, SystemClock::shared())
}

#[test]
fn sources_are_read_from_their_names() {
    assert_eq!(NoticeSource::parse("file:/tmp/x").unwrap(), NoticeSource::File("/tmp/x".into()));
    assert_eq!(NoticeSource::parse("azure").unwrap(), NoticeSource::Azure("169.254.169.254:80".parse().unwrap()));
    for said in ["", "file:", "http://evil", "AWS"] {
        assert_eq!(NoticeSource::parse(said).unwrap_err().kind(), crate::ErrorKind::Usage, "{said:?}");
    }
}

#[test]
fn a_file_that_appears_is_a_notice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evict");
    let poll = poll(NoticeSource::File(path.clone()));
    assert_eq!(poll.ask().unwrap(), None);
    std::fs::write(&path, "").unwrap();
    assert!(poll.ask().unwrap().unwrap().said.contains("evict"));
}

#[test]
fn azure_scheduled_events_name_this_machine_or_another() {
    let event = |kind: &str, status: &str, machine: &str| {
        let text = format!(
            r#"{{"DocumentIncarnation": 3, "Events": [{{"EventId": "A123BC45-1234-5678-AB90-ABCDEF123456",
            "EventStatus": "{status}", "EventType": "{kind}", "ResourceType": "VirtualMachine", "Resources": ["{machine}"],
            "NotBefore": "Tue, 25 Nov 2025 10:00:00 GMT", "Description": "", "EventSource": "Platform", "DurationInSeconds": -1}}]}}"#
        );
        ("200 OK", text)
    };
    let (at, requests) = serve(vec![
        ("200 OK", "FrontEnd_IN_0".into()),
        ("200 OK", r#"{"DocumentIncarnation": 1, "Events": []}"#.into()),
        event("Preempt", "Scheduled", "FrontEnd_IN_1"),
        event("Freeze", "Scheduled", "FrontEnd_IN_0"),
        event("Preempt", "Completed", "FrontEnd_IN_0"),
        event("Preempt", "Scheduled", "FrontEnd_IN_0"),
    ]);
    let poll = poll(NoticeSource::Azure(at));
    for _ in 0..4 {
        assert_eq!(poll.ask().unwrap(), None);
    }
    assert_eq!(poll.ask().unwrap().unwrap().said, "Azure Scheduled Events Preempt");
    let requests = requests.join().unwrap();
    assert!(requests[1].starts_with("GET /metadata/scheduledevents?api-version=2020-07-01 HTTP/1.1"), "{requests:?}");
    assert!(requests.iter().all(|head| head.contains("Metadata: true")), "{requests:?}");
}

#[test]
fn aws_instance_actions_are_asked_for_with_a_token() {
    let (at, requests) = serve(vec![
        ("200 OK", "TOKEN==".into()),
        ("404 Not Found", "<html/>".into()),
        ("401 Unauthorized", String::new()),
        ("200 OK", "OTHER==".into()),
        ("200 OK", r#"{"action": "terminate", "time": "2025-11-25T08:22:00Z"}"#.into()),
    ]);
    let poll = poll(NoticeSource::Aws(at));
    assert_eq!(poll.ask().unwrap(), None);
    assert_eq!(poll.ask().unwrap(), None, "a token that ran out is no notice");
    assert_eq!(poll.ask().unwrap().unwrap().said, "AWS spot instance action terminate");
    let requests = requests.join().unwrap();
    assert!(requests[0].starts_with("PUT /latest/api/token HTTP/1.1"), "{requests:?}");
    assert!(requests[0].contains("X-aws-ec2-metadata-token-ttl-seconds: 21600"), "{requests:?}");
    assert!(requests[1].starts_with("GET /latest/meta-data/spot/instance-action HTTP/1.1"), "{requests:?}");
    assert!(requests[1].contains("X-aws-ec2-metadata-token: TOKEN=="), "{requests:?}");
    assert!(requests[4].contains("X-aws-ec2-metadata-token: OTHER=="), "{requests:?}");
}

#[test]
fn gcp_says_true_or_false() {
    let (at, requests) = serve(vec![("200 OK", "FALSE".into()), ("200 OK", "TRUE".into())]);
    let poll = poll(NoticeSource::Gcp(at));
    assert_eq!(poll.ask().unwrap(), None);
    assert_eq!(poll.ask().unwrap().unwrap().said, "GCP metadata preempted");
    let requests = requests.join().unwrap();
    assert!(requests[0].starts_with("GET /computeMetadata/v1/instance/preempted HTTP/1.1"), "{requests:?}");
    assert!(requests[0].contains("Metadata-Flavor: Google"), "{requests:?}");
}

#[test]
fn a_service_that_is_not_there_or_talks_nonsense_is_an_error_and_no_notice() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(poll(NoticeSource::Gcp(gone)).ask().is_err());
    let (at, _requests) = serve(vec![("500 Oops", String::new()), ("200 OK", "x".repeat(100_000))]);
    let poll = poll(NoticeSource::Gcp(at));
    assert!(poll.ask().is_err());
    assert!(poll.ask().is_err(), "an answer without end");
}

#[test]
fn a_watch_tells_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evict");
    std::fs::write(&path, "").unwrap();
    let (told, notices) = crossbeam_channel::unbounded();
    let tell = move |notice: Notice| told.send(notice).unwrap();
    let _watch = NoticeWatch::start(NoticeSource::File(path), SystemClock::shared(), tell).unwrap();
    assert!(notices.recv_timeout(Duration::from_secs(20)).is_ok());
    assert!(notices.recv_timeout(Duration::from_secs(20)).is_err(), "the watch has ended");
}
