//! `restyle submit`: a file or a key becomes a job of a running service.

use super::client::{Client, escaped};
use super::client_args::SubmitArgs;
use super::{output, remote_jobs};
use crate::error::{Error, ErrorKind};
use crate::serve::OptionsRequest;
use restyle_engine::clock::{Clock, SystemClock};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// How often a job that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long a service may be away while a job of it is waited for: long enough for a restart.
const AWAY_MAX: Duration = Duration::from_secs(120);

pub(super) fn submit(args: &SubmitArgs) -> Result<(), Error> {
    if let Some(said) = args.blend.as_deref() {
        crate::styles::shares(said)?;
    }
    let client = Client::open(&args.server)?;
    let path = Path::new(&args.input);
    let route = match (&args.route, path.is_file()) {
        (None, true) => Some(only_route(&client)?),
        (said, _) => said.clone(),
    };
    let key = match (&route, path.is_file()) {
        (Some(route), true) => send(&client, route, path, args.key.as_deref())?,
        _ => args.input.clone(),
    };
    let id = args.id.clone().map_or_else(|| made_up(&key), Ok)?;
    let wanted = [
        ("route", route.map(Value::from)),
        ("style", args.style.clone().or_else(|| args.blend.clone()).map(Value::from)),
        ("output", args.output.clone().map(Value::from)),
        ("priority", args.priority.map(Value::from)),
        ("options", options(args)),
    ];
    let mut request = json!({"input": key});
    for (name, value) in wanted {
        if let Some(value) = value {
            request[name] = value;
        }
    }
    let mut job = client.put(&format!("/v1/jobs/{}", escaped(&id)), &request)?;
    if args.wait {
        job = wait(&client, &id)?;
    }
    remote_jobs::show(&job, args.json)?;
    if args.wait { remote_jobs::verdict(&job) } else { Ok(()) }
}

/// What the result is like, where anything of it was said; the rest is the route's.
fn options(args: &SubmitArgs) -> Option<Value> {
    let options = OptionsRequest {
        size: args.size,
        strength: args.strength,
        // A flag that is not given says nothing: the route may say true.
        preserve_color: args.preserve_color.then_some(true),
        ..OptionsRequest::default()
    };
    (options != OptionsRequest::default()).then(|| json!(options))
}

fn only_route(client: &Client) -> Result<String, Error> {
    let routes = client.get("/v1/routes")?;
    let names: Vec<&str> = routes.as_array().into_iter().flatten().filter_map(|r| r["name"].as_str()).collect();
    match names[..] {
        [only] => Ok(only.to_owned()),
        _ => {
            let message = format!("name a route with --route; there are: {}", names.join(", "));
            Err(Error::new(ErrorKind::Usage, message))
        }
    }
}

/// Sends a file into a route's input and returns its key.
fn send(client: &Client, route: &str, file: &Path, key: Option<&str>) -> Result<String, Error> {
    let name = file.file_name().and_then(|name| name.to_str());
    let key = key.or(name).ok_or_else(|| Error::new(ErrorKind::Usage, "the file's name is not unicode: give --key"))?;
    client.send_file(&format!("/v1/routes/{}/files/{}", escaped(route), escaped(key)), file)?;
    output::say(&format!("{key} was sent to route {route}"));
    Ok(key.to_owned())
}

/// An id that nobody else makes up: the name of the input, and chance.
fn made_up(key: &str) -> Result<String, Error> {
    let name = key.rsplit('/').next().unwrap_or(key);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let legal = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    let chance =
        getrandom::u64().map_err(|e| Error::new(ErrorKind::JobFailed, format!("no id can be made up: {e}")))?;
    Ok(format!("{}-{chance:016x}", stem.chars().take(60).map(legal).collect::<String>()))
}

/// Follows a job to its end. A service that is away for a moment is waited for: its jobs outlive it.
fn wait(client: &Client, id: &str) -> Result<Value, Error> {
    let clock = SystemClock::new();
    let (mut away_since, mut last) = (None, None);
    loop {
        match client.get(&format!("/v1/jobs/{}", escaped(id))) {
            Ok(job) => {
                away_since = None;
                if matches!(job["state"].as_str(), Some("finished" | "failed" | "cancelled")) {
                    return Ok(job);
                }
                let percent = job["progress"]["percent"].as_f64().map(|p| p as u64);
                let phase = job["progress"]["phase"].as_str().unwrap_or_default().to_owned();
                let now = Some((percent, phase.clone()));
                if now != last {
                    output::say(&format!("{phase} {}", percent.map(|p| format!("{p} %")).unwrap_or_default()));
                    last = now;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::Configuration | ErrorKind::Interrupted) => {
                let since = *away_since.get_or_insert(clock.now());
                if clock.now() - since > AWAY_MAX {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        clock.sleep(LOOK);
    }
}
