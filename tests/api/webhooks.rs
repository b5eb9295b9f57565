//! Messages to the operator's webhooks.

use crate::bench::Bench;
use crate::client::PATIENCE;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

const SECRET: &str = "a secret of the operator's";

/// Takes one message and answers with `status`; returns head and body.
pub fn receive(listener: &TcpListener, status: &str) -> (String, Vec<u8>) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut piece).unwrap();
        bytes.extend_from_slice(&piece[..read]);
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if bytes.len() >= end + 4 + length.parse::<usize>().unwrap() {
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\nlocation: http://192.0.2.1/\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).unwrap();
            return (head, bytes[end + 4..].to_vec());
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    head.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .unwrap_or_else(|| panic!("no {name}: {head}"))
}

#[test]
fn ends_are_told_signed_and_again_until_they_are_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let route = "[[route]]\ninput = \"in\"\noutput = \"out\"\nlogs = \"logs\"\nstyle = \"tiny.safetensors\"\ninclude = [\"x\"]\noptions = { size = 48 }";
    let hook = format!("[[webhook]]\nurl = \"{url}\"\nsecret_file = \"secret\"\n{route}");
    let bench = Bench::start_with("", &hook, |dir| std::fs::write(dir.join("secret"), format!("{SECRET}\n")).unwrap());
    bench.clip("clip.mp4", 5);
    assert_eq!(bench.put_json("/v1/jobs/one", &json!({"input": "clip.mp4"})).status, 202);

    let (head, body) = receive(&listener, "503 Service Unavailable");
    let (again, same) = receive(&listener, "204 No Content");
    assert!(body == same, "another message was sent instead");
    assert_eq!(header(&head, "restyle-delivery"), header(&again, "restyle-delivery"));
    let message: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&message["type"], &message["job"]["id"]), (&json!("job.finished"), &json!("one")));
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{}.", header(&again, "restyle-timestamp")).as_bytes());
    mac.update(&body);
    let expected: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(header(&again, "restyle-signature"), format!("v1={expected}"));

    // A refusal is final, and one that points elsewhere is not followed.
    assert_eq!(bench.put_json("/v1/jobs/two", &json!({"input": "clip.mp4", "output": "two.mp4"})).status, 202);
    let (_, body) = receive(&listener, "302 Found");
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["job"]["id"], "two");
}
