//! `restyle run`: one job from the command line.

use super::args::{RunArgs, Workers};
use super::output;
use super::progress::Display;
use super::signals::StopRequest;
use crate::config::RawConfig;
use crate::error::{Error, ErrorKind};
use crate::event::{Event, Failed, Finished};
use crate::job::{Job, Overwrite};
use crate::pipeline::{NextEvent, Pipeline, RunningJob};
use std::time::Duration;

/// How often the command looks whether it was told to stop.
const LOOK: Duration = Duration::from_millis(100);

/// How long a drain may take that no signal asked for.
const DRAIN_NOTICE: Duration = Duration::from_secs(7);

/// How long a job that was told to stop may stay silent before the command ends without it: a store or a codec that hangs
/// must not hold the process. What is finished stands in the ledger, as after a kill.
const SILENCE: Duration = Duration::from_millis(9200);

pub(super) fn run(args: RunArgs) -> Result<(), Error> {
    let stop = StopRequest::on_signals();
    let (json, mode) = (args.json, args.progress);
    let notices = args.preempt_notice.clone();
    let running = match begin(args) {
        Ok(Some(running)) => running,
        Ok(None) => return Ok(()),
        Err(error) => {
            // The last line is `finished` or `failed`, however early the job ends.
            if json {
                output::write_json(&Event::Failed(Failed::new(None, &error)))?;
            }
            return Err(error);
        }
    };
    stop.attach(running.control());
    let _watch = match notices {
        Some(source) => Some(stop.on_notice(source)?),
        None => None,
    };
    let mut display = Display::new(mode);
    let mut told = |event: &Event| {
        show(&mut display, event);
        // The lines of `--json` are a contract, and nodes and segments are not in it.
        if json && !matches!(event, Event::Node(_) | Event::Segment(_)) { output::write_json(event) } else { Ok(()) }
    };
    loop {
        match running.next_event(LOOK) {
            NextEvent::Told(event) => {
                // Whoever read the lines is gone: the job ends in good order, as after a signal.
                if let Err(error) = told(&event) {
                    running.control().drain(DRAIN_NOTICE);
                    let _ = running.wait();
                    return Err(error);
                }
            }
            NextEvent::Ended => return running.wait().map(|_| ()),
            NextEvent::Silent if stop.stopped_for().is_none_or(|time| time < SILENCE) => {}
            NextEvent::Silent => {
                let error = Error::new(
                    ErrorKind::Interrupted,
                    "stopped although something did not answer; the same command goes on from here",
                );
                told(&Event::Failed(Failed::new(None, &error)))?;
                return Err(error);
            }
        }
    }
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
        output::write_json(&Event::Planned(planned))?;
    } else {
        let display = Display::new(args.progress);
        planned.warnings.iter().for_each(|warning| display.line(&format!("warning: {warning}")));
        display.planned(&planned);
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
        Event::Node(_) | Event::Segment(_) => {}
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
        blend: args.blend.clone(),
        style_network: args.style_network.clone(),
        strength: args.strength,
        preserve_color: args.preserve_color.then_some(true),
        device: args.device.clone(),
        decode: args.decode.clone(),
        workers: match args.workers {
            Some(Workers::Count(n)) => Some(n),
            Some(Workers::Auto) | None => None,
        },
        work_dir: args.work_dir.clone(),
        size: args.size,
        precision: args.precision.clone(),
        codec: args.codec.clone(),
        crf: args.crf,
        preset: args.preset.clone(),
        pix_fmt: args.pix_fmt.clone(),
        // A flag that is not given says nothing: the file may say true.
        strict: args.strict.then_some(true),
        conceal: args.conceal.then_some(true),
        hang_seconds: None,
        low_priority: None,
        return_seconds: None,
    }
}
