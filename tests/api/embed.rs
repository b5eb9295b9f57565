//! The example that embeds the service, run as it is.

#[path = "../../examples/embed.rs"]
mod example;

use crate::bench::wait;
use crate::client::ask;
use crate::support;
use serde_json::json;
use std::net::TcpListener;

#[test]
fn the_example_serves_its_own_pages_and_the_service_under_a_prefix() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tiny.safetensors"), support::tiny_style(7)).unwrap();
    let configuration = "work = \"work\"\ndevice = \"cpu\"\n[[route]]\nname = \"studio\"\ninput = \"in\"\noutput = \"out\"\nlogs = \"logs\"\n\
                         style = \"tiny.safetensors\"\ninclude = [\"watched/*\"]\noptions = { size = 48 }";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let folder = dir.path().to_owned();
    let server = std::thread::spawn(move || {
        let started = move |address, handle| tell.send((address, handle)).unwrap();
        example::run(&folder, configuration, listener, started).map_err(|e| e.to_string())
    });
    let (address, handle) = told.recv().unwrap();
    let get = |path: &str| ask(address, "GET", path, &[], b"");
    assert!(get("/hello").text().starts_with("hello"));
    assert_eq!(get("/v1/jobs").status, 404, "the prefix is not needed");

    let clip = dir.path().join("in/clip.mp4");
    let args = [
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=96x64:rate=25",
        "-frames:v",
        "5",
        "-c:v",
        "libx264",
        "-pix_fmt",
        "yuv420p",
    ];
    support::ffmpeg(&[&args[..], &[clip.to_str().unwrap()]].concat());
    let body = json!({"input": "clip.mp4"}).to_string();
    let json_type = [("content-type", "application/json")];
    assert_eq!(ask(address, "PUT", "/restyle/v1/jobs/one", &json_type, body.as_bytes()).status, 202);
    let job = wait(|| Some(get("/restyle/v1/jobs/one").json()).filter(|job| job["state"] == "finished"));
    assert!(dir.path().join("out").join(job["output"].as_str().unwrap()).exists());
    assert_eq!(get("/restyle/livez").status, 200);

    drop(handle.stop(true));
    server.join().unwrap().unwrap();
}
