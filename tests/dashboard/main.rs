//! The dashboard as a person sees it: `restyle serve` as a process, and a headless Chromium that clicks.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests say what they skip and what they measured")]

#[path = "../support/mod.rs"]
mod support;

mod browser;
mod site;

use browser::Browser;
use serde_json::json;
use site::Site;
use std::time::Duration;

/// How long anything may take before a test gives up on it.
pub(crate) const HANG: Duration = Duration::from_secs(120);

/// What the badge of the page's job says.
const STATE: &str = "document.querySelector('h1 .badge')?.textContent";

fn row(name: &str) -> String {
    format!(
        "[...document.querySelectorAll('.row')].find((row) => row.querySelector('.name').textContent.startsWith({name:?}))"
    )
}

fn node(name: &str) -> String {
    format!(
        "[...document.querySelectorAll('.node')].find((node) => node.querySelector('.name').textContent === {name:?})"
    )
}

#[test]
fn a_clip_is_sent_by_the_form_and_seen_to_finish() {
    let Some(mut browser) = Browser::start(1280, 900) else { return };
    let site = Site::start(12, "", "");
    browser.open(&format!("{}#/submit", site.address()));
    browser.choose("input[type=file]", &site.path("clip.mp4"));
    let styles = browser
        .until("document.querySelectorAll('.tile img').length >= 6 && document.querySelectorAll('.tile').length");
    assert_eq!(styles, 8, "seven built-in styles and the route's");
    assert_eq!(browser.tell("document.querySelector('.tile input:checked').value"), "tiny");
    browser.click(".tile input[value=the-scream]");
    browser.click("form.submit .primary");
    browser.until("location.hash.startsWith('#/jobs/default/clip-')");
    browser.until(&format!("{STATE} === 'finished'"));
    assert_eq!(browser.tell("document.querySelector('.percent').innerText.replace(/\\s/g, '')"), "100%");
    browser.until("document.querySelector('canvas').getAttribute('aria-label') === '12 frames: 12 encoded'");
    browser.until("document.querySelectorAll('.compare img').length === 2 && [...document.querySelectorAll('.compare img')].every((one) => one.naturalWidth === 64)");
    browser.until("document.querySelector('.scroll').innerText.includes('12 frames in')");
    let saved = browser.tell("fetch(document.querySelector('a[download]').href).then(async (r) => [r.status, (await r.arrayBuffer()).byteLength])");
    let output = std::fs::metadata(site.path("out/clip.the-scream.mp4")).unwrap();
    assert_eq!(saved, json!([200, output.len()]));
    browser.check();
    // The watcher, which looks every 300 ms, left alone what the form had asked for.
    browser.click(".brand");
    browser.until(&format!("{}.querySelector('.badge').textContent === 'finished'", row("clip-")));
    assert_eq!(browser.tell("document.querySelectorAll('.row').length"), 1);
    browser.check();
}

#[test]
fn a_pre_empted_node_is_taken_over_and_the_job_ends() {
    let Some(mut browser) = Browser::start(1280, 900) else { return };
    let site = Site::start(40, "nodes = { max = 2 }", "score=delay(150)");
    let address = site.address();
    site.drop_in("clip.mp4", &site.clip());
    browser.open(&format!("{address}#/nodes"));
    let [gone, left] = ["cpu-0", "cpu-1"].map(node);
    let works = |node: &str| format!("{node}.querySelector('.badge').textContent === 'running'");
    browser.until(&format!("{} && {}", works(&gone), works(&left)));
    browser.click(".node [aria-label='Preempt cpu-0']");
    browser.until(&format!("{gone}.querySelector('.badge').textContent === 'preempted'"));
    browser.until(&format!("{gone}.querySelector('[data-verb=resume]')"));
    let scored = format!("Number({gone}.querySelector('dd').textContent)");
    let before = browser.tell(&scored).as_u64().unwrap();
    browser.click(".card h2 a");
    browser.until(&format!("{STATE} === 'running'"));
    browser.until("document.querySelector('canvas').getAttribute('aria-label').includes('decoding')");
    browser.until(&format!("{STATE} === 'finished'"));
    assert!(before < 40, "the node that went away had done everything");
    browser.until("document.querySelector('.scroll').innerText.includes('40 frames in')");
    let log = browser.tell("document.querySelector('.scroll').innerText");
    let log = log.as_str().unwrap();
    assert!(log.contains("cpu-0 will be taken away") && log.contains("cpu-0 ended: pre-empted"), "{log}");
    assert!(!log.contains("started again"), "the other node did the rest: {log}");
    assert!(log.contains("40 scored, 0 re-used"), "{log}");
    browser.check();
}

#[test]
fn a_failed_job_is_found_by_the_filter_and_says_why() {
    let Some(mut browser) = Browser::start(390, 844) else { return };
    let site = Site::start(6, "", "");
    browser.open(&site.address());
    browser.until("document.querySelector('.chip.failed')");
    site.drop_in("good.mp4", &site.clip());
    let mut torn = site.clip();
    torn.truncate(900);
    site.drop_in("torn.mp4", &torn);
    // The list was empty when it was opened: jobs come by themselves.
    browser.until(&format!("{}.querySelector('.badge').textContent === 'finished'", row("good")));
    browser.until(&format!("{}.querySelector('.badge').textContent === 'failed'", row("torn")));
    browser.check();
    browser.click(".chip.failed");
    browser.until("document.querySelectorAll('.row').length === 1 && location.hash.includes('state=failed')");
    let why = browser.until(&format!("{}.querySelector('.why').textContent", row("torn")));
    let why = why.as_str().unwrap();
    assert!(why.contains("torn.mp4") && why.contains("cannot open"), "{why}");
    browser.click(".row .name");
    let alert = browser.until("document.querySelector('.failure[role=alert]').innerText");
    assert!(alert.as_str().unwrap().contains(why) && alert.as_str().unwrap().contains("attempt 1"), "{alert}");
    browser.click("[data-verb=retry]");
    browser.until("document.querySelector('.failure')?.innerText.includes('attempt 2')");
    browser.check();
}

#[test]
fn a_viewer_signs_in_and_finds_nothing_that_acts() {
    let Some(mut browser) = Browser::start(1280, 900) else { return };
    let site = Site::start(60, "tokens = \"tokens.json\"", "score=delay(400)");
    let token = site.token.clone();
    let address = site.address();
    site.drop_in("clip.mp4", &site.clip());
    browser.open(&address);
    browser.write("input[name=token]", "rst_wrong");
    browser.click(".login .primary");
    browser.until("document.querySelector('#refused')");
    browser.write("input[name=token]", &token);
    browser.click(".login .primary");
    browser.until(&format!("{}.querySelector('.badge').textContent === 'running'", row("clip")));
    assert!(browser.text().contains("anna"));
    // Whatever can be pressed, but what looks only: signing out, turning pages, a notice's end.
    let acting = "[...document.querySelectorAll('main button, main .primary, a[href=\"#/submit\"], form')].map((one) => one.innerText)";
    assert_eq!(browser.tell(acting), json!([]));
    browser.click(".row .name");
    browser.until(&format!("{STATE} === 'running' && document.querySelectorAll('.node').length > 0"));
    assert_eq!(browser.tell(acting), json!([]));
    browser.click("nav a[href='#/nodes']");
    browser
        .until("document.querySelector('h1').textContent === 'Nodes' && document.querySelectorAll('.node').length > 0");
    assert_eq!(browser.tell(acting), json!([]));
    browser.tell("location.hash = '#/submit'");
    browser.until("document.querySelector('main').innerText.includes('may look only')");
    assert_eq!(browser.tell(acting), json!([]));
    // The token is kept for this tab and nowhere else, and no address holds it.
    let kept = browser
        .tell("[Object.values(sessionStorage), localStorage.length, document.cookie, location.href.includes('rst_')]");
    assert_eq!(kept, json!([[token], 0, "", false]));
    browser.click(".account .quiet");
    browser.until("document.querySelector('input[name=token]')");
    assert_eq!(browser.tell("sessionStorage.length"), 0);
    browser.check();
}
