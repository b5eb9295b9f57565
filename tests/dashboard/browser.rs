//! A headless browser, driven over the DevTools protocol: messages of JSON through two pipes, each ended by a zero byte.

use crate::HANG;
use crossbeam_channel::{Receiver, unbounded};
use restyle_engine::clock::SystemClock;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

/// Names that Debian and others give to the browser.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];

/// The browser reads descriptor 3 and writes descriptor 4; nothing here may hand over more than the first three.
const PIPES: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null"#;

/// Finds the browser, or says that the test is skipped.
fn program() -> Option<PathBuf> {
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let found = NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|p| p.is_file());
    let found = named.or(found);
    if found.is_none() {
        println!("skipped: no Chromium is installed; CHROMIUM names one elsewhere");
    }
    found
}

/// A browser with one page; it ends when this is dropped.
pub(crate) struct Browser {
    process: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: Option<String>,
    last: u64,
    /// What the page complained of: errors of scripts, and what the content security policy refused.
    complaints: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser of this size in pixels; `None` where there is none.
    pub(crate) fn start(width: u32, height: u32) -> Option<Self> {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", PIPES]).arg(program()?);
        command.args(["--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu"]);
        // Tests run as root in containers, where the browser's own sandbox cannot be had; it sees pages of this machine only.
        command.args(["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-sync"]);
        command.arg(format!("--window-size={width},{height}"));
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, out) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (sender, from) = unbounded();
        std::thread::spawn(move || {
            let mut out = BufReader::new(out);
            let mut message = Vec::new();
            while out.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let (session, complaints) = (None, Vec::new());
        let mut browser = Self { process, to, from, session, last: 0, complaints, _profile: profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = browser.call("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}));
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "DOM"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        let screen = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        browser.call("Emulation.setDeviceMetricsOverride", screen);
        Some(browser)
    }

    /// Sends a command and waits for its answer.
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = session.clone().into();
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        self.to.write_all(&bytes).unwrap();
        loop {
            let said = self.from.recv_timeout(HANG).unwrap_or_else(|_| panic!("the browser does not answer {method}"));
            if said["id"] == self.last {
                assert!(said["error"].is_null(), "{method}: {}", said["error"]);
                return said["result"].clone();
            }
            self.note(&said);
        }
    }

    fn note(&mut self, said: &Value) {
        let details = &said["params"];
        match said["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.complaints.push(details["exceptionDetails"].to_string()),
            // A refused request is written there as well; what a test provokes is no fault of the page.
            Some("Log.entryAdded")
                if details["entry"]["level"] == "error" && details["entry"]["source"] != "network" =>
            {
                self.complaints.push(details["entry"]["text"].to_string());
            }
            _ => {}
        }
    }

    pub(crate) fn open(&mut self, address: &str) {
        self.call("Page.navigate", json!({"url": address}));
    }

    /// What an expression comes to in the page.
    pub(crate) fn tell(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let told = self.call("Runtime.evaluate", asked);
        assert!(told["exceptionDetails"].is_null(), "{expression}: {}", told["exceptionDetails"]);
        told["result"]["value"].clone()
    }

    /// Waits until an expression comes to something that counts as true, and returns it.
    pub(crate) fn until(&mut self, expression: &str) -> Value {
        let clock = SystemClock::shared();
        let begun = clock.now();
        loop {
            // Between two pages there is nothing to ask.
            let value = self.tell(&format!("(() => {{ try {{ return {expression} }} catch {{ return null }} }})()"));
            if !matches!(value, Value::Null | Value::Bool(false)) && value != json!("") && value != json!(0) {
                return value;
            }
            assert!(clock.now() - begun < HANG, "it never came: {expression}; the page says {}", self.text());
            clock.sleep(Duration::from_millis(40));
        }
    }

    /// Waits for an element and clicks it.
    pub(crate) fn click(&mut self, selector: &str) {
        let element = format!("document.querySelector({})", json!(selector));
        self.until(&format!("{element} && !{element}.disabled"));
        self.tell(&format!("{element}.click()"));
    }

    /// Types into a field, as a keyboard does.
    pub(crate) fn write(&mut self, selector: &str, text: &str) {
        let element = format!("document.querySelector({})", json!(selector));
        self.until(&format!("!!{element}"));
        self.tell(&format!("{element}.focus()"));
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Chooses a file in a field.
    pub(crate) fn choose(&mut self, selector: &str, file: &Path) {
        self.until(&format!("!!document.querySelector({})", json!(selector)));
        let root = self.call("DOM.getDocument", json!({}))["root"]["nodeId"].clone();
        let found = self.call("DOM.querySelector", json!({"nodeId": root, "selector": selector}));
        self.call("DOM.setFileInputFiles", json!({"nodeId": found["nodeId"], "files": [file]}));
    }

    /// Everything that can be read on the page.
    pub(crate) fn text(&mut self) -> String {
        self.tell("document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Fails where the page complained of anything, or is wider than the screen.
    pub(crate) fn check(&mut self) {
        let overflow = self.tell("document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(overflow, 0, "the page is wider than the screen");
        assert!(self.complaints.is_empty(), "{:?}", self.complaints);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
