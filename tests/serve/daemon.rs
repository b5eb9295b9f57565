//! `restyle serve` as a process.

use crate::{Site, files, until};
use std::collections::BTreeMap;

const ROUTE: &str = "[[route]]\ninput = \"in\"\noutput = \"out\"\nlogs = \"logs\"\nstyle = \"tiny.safetensors\"\n";

#[test]
fn five_lines_style_what_is_copied_in_and_leave_a_log() {
    let site = Site::new(12);
    site.configure("[[route]]\ninput = \"in\"\noutput = \"out\"\nlogs = \"logs\"\nstyle = \"starry-night\"\n");
    let mut daemon = site.daemon("");
    until(&|| site.said(), || site.path("in").is_dir().then_some(()));
    site.drop_clip("in/clip.mp4");
    let report = until(&|| site.said(), || site.reports("logs").pop());
    assert_eq!(report["job"]["state"], "finished", "{report}");
    assert_eq!((&report["frames"], &report["frames_scored"]), (&12.into(), &12.into()));
    assert!(report["job"]["cost"]["node_seconds"]["dedicated"].is_f64());
    let styled = site.path("out/clip.starry-night.mp4");
    let frames = crate::support::ffprobe(&styled, &["-count_frames", "-show_entries", "stream=nb_read_frames"]);
    assert_eq!(frames["streams"][0]["nb_read_frames"], "12");
    let log = files(&site.path("logs")).into_iter().find(|p| p.to_string_lossy().ends_with(".log.ndjson")).unwrap();
    let log = std::fs::read_to_string(log).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let words: Vec<&str> = lines.iter().filter_map(|l| l["event"].as_str()).collect();
    assert!(words.contains(&"planned") && words.last() == Some(&"finished"), "{words:?}");
    let numbers: Vec<u64> = lines.iter().filter_map(|l| l["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=lines.len() as u64).collect::<Vec<_>>());
    daemon.signal("-TERM");
    assert_eq!(daemon.exit_code(), 0, "{}", site.said());
}

#[test]
fn a_kill_loses_nothing_that_was_finished() {
    let site = Site::new(40);
    site.configure(&format!("nodes = {{ max = 1 }}\n{ROUTE}"));
    site.drop_clip("in/clip.mp4");
    // The scorer stands still in the second segment: what is killed is a job half done.
    let daemon = site.daemon("score:30=pause");
    let is_segment = |p: &std::path::PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("seg"));
    until(&|| site.said(), || files(&site.path("work/jobs")).iter().any(is_segment).then_some(()));
    // Dropping kills as `kill -9` does.
    drop(daemon);
    assert!(files(&site.path("out")).is_empty() && site.reports("logs").is_empty());
    let mut daemon = site.daemon("");
    let report = until(&|| site.said(), || site.reports("logs").pop());
    let number = |key: &str| report[key].as_u64().unwrap();
    assert_eq!((&report["job"]["state"], &report["job"]["attempts"]), (&"finished".into(), &2.into()), "{report}");
    assert_eq!(number("frames"), 40);
    assert!(number("frames_reused") >= 20, "{report}");
    assert_eq!(number("frames_scored") + number("frames_reused"), 40);
    // Started a third time, it finds everything done and does nothing.
    daemon.signal("-TERM");
    assert_eq!(daemon.exit_code(), 0);
    let outputs = files(&site.path("out"));
    assert_eq!(outputs.len(), 1, "{outputs:?}");
    let written = std::fs::metadata(&outputs[0]).unwrap().modified().unwrap();
    let daemon = site.daemon("");
    until(&|| site.said(), || (site.said().matches("restyle serves").count() == 3).then_some(()));
    restyle_engine::clock::SystemClock::shared().sleep(std::time::Duration::from_secs(3));
    drop(daemon);
    assert_eq!(std::fs::metadata(&outputs[0]).unwrap().modified().unwrap(), written);
    assert_eq!(site.reports("logs").len(), 1);
}

#[test]
fn a_lost_device_ends_the_daemon_with_its_own_code_and_the_next_one_goes_on() {
    let site = Site::new(40);
    site.configure(&format!("nodes = {{ max = 1 }}\n{ROUTE}"));
    site.drop_clip("in/clip.mp4");
    let mut daemon = site.daemon("scorer:device=30*error");
    assert_eq!(daemon.exit_code(), 6, "{}", site.said());
    assert!(files(&site.path("out")).is_empty() && site.reports("logs").is_empty());
    let _daemon = site.daemon("");
    let report = until(&|| site.said(), || site.reports("logs").pop());
    assert_eq!((&report["job"]["state"], &report["job"]["attempts"]), (&"finished".into(), &2.into()), "{report}");
}

#[test]
fn fifty_jobs_of_two_tenants_finish_by_turns_in_flat_memory() {
    let site = Site::new(4);
    let route = |tenant: &str| {
        format!(
            "[[route]]\nname = \"{tenant}\"\ntenant = \"{tenant}\"\ninput = \"in/{tenant}\"\noutput = \"out/{tenant}\"\n\
             logs = \"logs/{tenant}\"\nstyle = \"tiny.safetensors\"\npoll = \"300ms\"\n"
        )
    };
    site.configure(&format!("jobs_at_once = 2\nnodes = {{ max = 2 }}\n{}{}", route("a"), route("b")));
    for tenant in ["a", "b"] {
        (0..25).for_each(|k| site.drop_clip(&format!("in/{tenant}/clip-{k:02}.mp4")));
    }
    let daemon = site.daemon("");
    let resident_after =
        |done: usize| until(&|| site.said(), || (site.reports("logs").len() >= done).then(|| daemon.resident()));
    let early = resident_after(10);
    let late = resident_after(50);
    println!("resident after 10 jobs {early} MiB, after 50 jobs {late} MiB");
    assert!(late < early + 48, "memory grew from {early} to {late} MiB");
    let mut ends: BTreeMap<(String, String), String> = BTreeMap::new();
    for report in site.reports("logs") {
        let text = |key: &str| report["job"][key].as_str().unwrap().to_owned();
        assert_eq!(text("state"), "finished", "{report}");
        ends.insert((text("ended_at"), text("id")), text("tenant"));
    }
    assert_eq!(files(&site.path("out")).len(), 50);
    // Both had everything waiting nearly from the start: neither is ever far ahead.
    let order: Vec<&str> = ends.values().map(String::as_str).collect();
    let mut lead = 0i32;
    for (k, tenant) in order.iter().enumerate() {
        lead += if *tenant == "a" { 1 } else { -1 };
        assert!(lead.abs() <= 6, "after {k} jobs one tenant is {lead} ahead: {order:?}");
    }
}

#[test]
fn a_changed_file_is_read_again_only_if_it_is_valid() {
    let site = Site::new(4);
    site.configure(ROUTE);
    let mut daemon = site.daemon("");
    until(&|| site.said(), || site.said().contains("restyle serves").then_some(()));
    site.configure("nonsense = 1\n");
    daemon.signal("-HUP");
    until(&|| site.said(), || site.said().contains("stays in force").then_some(()));
    site.configure(&ROUTE.replace("\"in\"", "\"other\""));
    daemon.signal("-HUP");
    until(&|| site.said(), || site.path("other").is_dir().then_some(()));
    site.drop_clip("other/clip.mp4");
    until(&|| site.said(), || site.reports("logs").pop());
    daemon.signal("-TERM");
    assert_eq!(daemon.exit_code(), 0);
}

#[test]
fn a_configuration_is_checked_without_being_used() {
    let site = Site::new(4);
    let file = site.configure(ROUTE);
    let check = |file: &std::path::Path| {
        let mut command = crate::support::restyle();
        command.args(["config", "check"]).arg(file).output().unwrap().status.code()
    };
    assert_eq!(check(&file), Some(0));
    assert!(!site.path("in").exists(), "checking makes nothing");
    let file = site.configure(&format!("{ROUTE}account_key = \"x\"\n"));
    assert_eq!(check(&file), Some(4));
    for (style, code) in [("gone.safetensors", 4), ("udnie:1,tiny.safetensors:1", 0), ("udnie:1,gone.safetensors:1", 4)]
    {
        let file = site.configure(&ROUTE.replace("tiny.safetensors", style));
        assert_eq!(check(&file), Some(code), "{style}");
    }
}

/// What a service manager hears, and the socket that it may hand over.
#[test]
fn a_service_manager_is_told_and_its_socket_is_taken() {
    use std::os::unix::net::UnixDatagram;
    let site = Site::new(4);
    let file = site.configure(ROUTE);
    let heard = UnixDatagram::bind(site.path("notify")).unwrap();
    heard.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // As systemd does it: the socket is descriptor 3, and the numbers are in the environment.
    let script = r#"exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@""#;
    let log = std::fs::File::create(site.path("daemon.log")).unwrap();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_restyle"), "serve", "--config"]).arg(&file);
    command.env("NOTIFY_SOCKET", site.path("notify")).env("WATCHDOG_USEC", "300000");
    command.stdin(std::os::fd::OwnedFd::from(listener)).stdout(std::process::Stdio::null()).stderr(log);
    let mut daemon = crate::Daemon(command.spawn().unwrap());
    let hear = |wanted: &str| {
        let mut buffer = [0; 1024];
        loop {
            let count =
                heard.recv(&mut buffer).unwrap_or_else(|e| panic!("{wanted} was not told: {e}\n{}", site.said()));
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if text.contains(wanted) {
                return;
            }
        }
    };
    hear("READY=1");
    hear("WATCHDOG=1");
    let alive = crate::servers::http(address, "GET", "/livez", &[], b"").unwrap();
    assert_eq!(alive.0, 200, "{}", String::from_utf8_lossy(&alive.1));
    daemon.signal("-HUP");
    hear("RELOADING=1");
    hear("READY=1");
    daemon.signal("-TERM");
    hear("STOPPING=1");
    assert_eq!(daemon.exit_code(), 0, "{}", site.said());
}
