//! `restyle run`: one job from the command line.

use super::args::{RunArgs, Workers};
use super::output;
use super::progress::Display;
use super::signals;
use crate::config::RawConfig;
use crate::error::{Error, ErrorKind};
use crate::event::{Event, Failed, Finished};
use crate::job::{Job, Overwrite};
use crate::pipeline::{Pipeline, RunningJob};
use std::time::Duration;

/// How long a drain may take before what is in flight is abandoned; the contract says ten seconds for all of it.
const DRAIN_NOTICE: Duration = Duration::from_secs(8);

pub(super) fn run(args: RunArgs) -> Result<(), Error> {
    let (json, mode) = (args.json, args.progress);
    let running = match begin(args) {
        Ok(Some(running)) => running,
        Ok(None) => return Ok(()),
        Err(error) => {
            // The last line is `finished` or `failed`, however early the job ends.
            if json {
                output::write_event(&Event::Failed(Failed::new(None, &error)))?;
            }
            return Err(error);
        }
    };
    let control = running.control();
    signals::on_stop(move || control.drain(DRAIN_NOTICE));
    let mut display = Display::new(mode);
    for event in running.events() {
        if json {
            output::write_event(&event)?;
        }
        show(&mut display, &event);
    }
    running.wait().map(|_| ())
}

/// Checks the request and starts the job; `None` when only a plan was asked for.
fn begin(args: RunArgs) -> Result<Option<RunningJob>, Error> {
    let file = match &args.config {
        Some(path) => read_config(path)?,
        None => RawConfig::default(),
    };
    let (config, options) = flags(&args).or(file).check()?;
    let job = Job {
        input: args.input,
        output: args.output,
        options,
        fresh: args.fresh,
        overwrite: if args.overwrite { Overwrite::Allowed } else { Overwrite::Refused },
    };
    let pipeline = Pipeline::new(config)?;
    if !args.dry_run {
        return pipeline.submit(job).map(Some);
    }
    let planned = pipeline.plan(&job)?;
    if args.json {
        output::write_event(&Event::Planned(planned))?;
    } else {
        Display::new(args.progress).planned(&planned);
    }
    Ok(None)
}

fn show(display: &mut Display, event: &Event) {
    match event {
        Event::Planned(planned) => display.planned(planned),
        Event::Progress(progress) => display.progress(progress),
        Event::Warning { message } => display.line(&format!("warning: {message}")),
        Event::Finished(finished) => {
            display.end();
            display.line(&summary(finished));
        }
        Event::Failed(_) => display.end(),
    }
}

fn summary(done: &Finished) -> String {
    if done.nothing_to_do {
        return format!("{} is up to date: {} frames, nothing to do", done.output, done.frames);
    }
    let reused = if done.frames_reused == 0 { String::new() } else { format!(", {} reused", done.frames_reused) };
    format!(
        "{}: {} frames ({} scored{reused}) in {:.1} s, {:.2} fps",
        done.output, done.frames, done.frames_scored, done.wall_seconds, done.fps
    )
}

fn read_config(path: &std::path::Path) -> Result<RawConfig, Error> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Error::new(ErrorKind::Configuration, format!("cannot read the configuration file {}: {e}", path.display()))
    })?;
    RawConfig::from_toml(&text, &path.display().to_string())
}

fn flags(args: &RunArgs) -> RawConfig {
    RawConfig {
        style: args.style.clone(),
        device: args.device.clone(),
        workers: match args.workers {
            Some(Workers::Count(n)) => Some(n),
            Some(Workers::Auto) | None => None,
        },
        work_dir: args.work_dir.clone(),
        size: args.size,
        codec: args.codec.clone(),
        crf: args.crf,
        preset: args.preset.clone(),
        pix_fmt: args.pix_fmt.clone(),
        // A flag that is not given says nothing: the file may say true.
        strict: args.strict.then_some(true),
        conceal: args.conceal.then_some(true),
        hang_seconds: None,
    }
}
