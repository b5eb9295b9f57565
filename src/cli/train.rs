//! `restyle train`: a painting and some photos in, a style file out.

use super::args::TrainArgs;
use super::output;
use super::signals::StopRequest;
use crate::error::{Error, ErrorKind};
use restyle_engine::clock::SystemClock;
use restyle_models::train::{
    Control, Length, LossWeights, Losses, Progress, TrainConfig, TrainDevice, TrainError, TrainErrorKind, TrainReport,
    checkpoint_path, run,
};
use serde::Serialize;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// A line of `--json`; the last one is `finished` or `failed`.
#[derive(Serialize)]
struct Line<'a> {
    schema: u32,
    #[serde(flatten)]
    event: TrainEvent<'a>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum TrainEvent<'a> {
    Progress {
        iteration: u32,
        iterations: u32,
        steady: bool,
        losses: &'a Losses,
        mean: &'a Losses,
        seconds_per_iteration: f64,
        eta_seconds: f64,
        preview: Option<&'a PathBuf>,
        preview_failed: Option<&'a str>,
    },
    Finished {
        output: &'a Path,
        iterations: u32,
        mean: &'a Losses,
        digest: &'a str,
    },
    Failed {
        kind: &'static str,
        message: String,
    },
}

pub(super) fn train(args: &TrainArgs) -> Result<(), Error> {
    let done = train_from(args);
    if let (Err(error), true) = (&done, args.json) {
        tell(TrainEvent::Failed { kind: error.kind().name(), message: error.to_string() })?;
    }
    done
}

fn train_from(args: &TrainArgs) -> Result<(), Error> {
    let config = config(args)?;
    let stop = StopRequest::on_signals();
    let clock = SystemClock::shared();
    let origin = clock.now();
    let elapsed = || clock.now().saturating_sub(origin);
    let mut told_at = Duration::ZERO;
    let mut deaf = None;
    let report = run(&config, &command(std::env::args_os()), &elapsed, &mut |progress| {
        let is_due = elapsed() >= told_at + TELL_EVERY || progress.preview.is_some();
        if is_due || progress.iteration == progress.iterations {
            told_at = elapsed();
            // Whoever read the lines is gone: what is done is kept, as after a signal.
            deaf = deaf.take().or(tell_progress(progress, args.json).err());
        }
        if stop.stopped_for().is_some() || deaf.is_some() { Control::Stop } else { Control::Continue }
    });
    let report = report.map_err(|error| told_error(error, &config))?;
    match deaf {
        Some(error) => Err(error),
        None => tell_end(&report, &config.out, args.json),
    }
}

fn config(args: &TrainArgs) -> Result<TrainConfig, Error> {
    let stem = args.out.file_stem().unwrap_or_default().to_string_lossy();
    let name = args.name.as_deref().unwrap_or(&stem);
    let proven =
        TrainConfig::new(name, args.style.clone(), args.photos.clone(), args.features.clone(), args.out.clone());
    let length =
        match args.minutes {
            Some(minutes) => Length::Time(Duration::try_from_secs_f64(60.0 * minutes).map_err(|_| {
                Error::new(ErrorKind::Usage, format!("minutes is {minutes}, expected a positive number"))
            })?),
            None => Length::Iterations { main: args.iterations, steady: args.steady_iterations },
        };
    let weights = LossWeights {
        content: args.content_weight,
        style: args.style_weight,
        style_levels: args.style_levels.clone(),
        variation: args.variation_weight,
        range: args.range_weight,
        steadiness: args.steadiness_weight,
    };
    let config = TrainConfig {
        any: args.any,
        start: args.start.clone(),
        width: args.width,
        crop: args.crop,
        style_size: args.style_size,
        length,
        seed: args.seed,
        rate: args.rate,
        steady_rate: args.steady_rate,
        steady_noise: args.steadiness_noise,
        weights,
        checkpoint_every: args.checkpoint_every,
        preview: args.preview.clone(),
        preview_every: args.preview_every,
        fresh: args.fresh,
        device: TrainDevice::parse(&args.device).map_err(|error| Error::new(ErrorKind::Usage, error.to_string()))?,
        ..proven
    };
    config.check().map_err(|error| Error::new(ErrorKind::Usage, error.to_string()))?;
    config.device.check().map_err(|error| Error::new(ErrorKind::Device, error.to_string()))?;
    Ok(config)
}

/// The command for the card: folders are left out, they say nothing elsewhere.
fn command(arguments: impl Iterator<Item = OsString>) -> String {
    let base = |path: &str| Path::new(path).file_name().map_or(path.to_owned(), |n| n.to_string_lossy().into_owned());
    let short = |argument: OsString| {
        let said = argument.to_string_lossy();
        match said.split_once('=') {
            Some((option, path)) if option.starts_with("--") => format!("{option}={}", base(path)),
            _ => base(&said),
        }
    };
    arguments.map(short).collect::<Vec<_>>().join(" ")
}

fn told_error(error: TrainError, config: &TrainConfig) -> Error {
    let is_output = |path: &Path| path == config.out || path == checkpoint_path(&config.out);
    let kind = match (&error, error.kind()) {
        (TrainError::Io { path, .. }, _) if is_output(path) => ErrorKind::Storage,
        (_, TrainErrorKind::Io) => ErrorKind::InputUnreadable,
        (TrainError::Features(_), _) | (_, TrainErrorKind::Checkpoint) => ErrorKind::Configuration,
        (_, TrainErrorKind::Input) => ErrorKind::InputUnreadable,
        (_, TrainErrorKind::Config) => ErrorKind::Usage,
        (_, TrainErrorKind::Device) => ErrorKind::Device,
        (_, TrainErrorKind::Diverged | TrainErrorKind::Internal) => ErrorKind::JobFailed,
    };
    let advice = if error.kind() == TrainErrorKind::Checkpoint { "; --fresh begins anew" } else { "" };
    Error::new(kind, format!("{error}{advice}"))
}

fn tell(event: TrainEvent<'_>) -> Result<(), Error> {
    output::write_json(&Line { schema: crate::event::SCHEMA, event })
}

fn tell_progress(progress: &Progress, json: bool) -> Result<(), Error> {
    if json {
        return tell(TrainEvent::Progress {
            iteration: progress.iteration,
            iterations: progress.iterations,
            steady: progress.steady,
            losses: &progress.losses,
            mean: &progress.mean,
            seconds_per_iteration: progress.iteration_time.as_secs_f64(),
            eta_seconds: progress.remaining.as_secs_f64(),
            preview: progress.preview.as_ref().and_then(|written| written.as_ref().ok()),
            preview_failed: progress.preview.as_ref().and_then(|written| written.as_ref().err()).map(String::as_str),
        });
    }
    let (mean, left) = (&progress.mean, progress.remaining.as_secs());
    output::say(&format!(
        "iteration {}/{} {:.3} s each ETA {}:{:02}: content {:.3} style {:.4} variation {:.4} range {:.4} steadiness {:.5}",
        progress.iteration,
        progress.iterations,
        progress.iteration_time.as_secs_f64(),
        left / 60,
        left % 60,
        mean.content,
        mean.style,
        mean.variation,
        mean.range,
        mean.steadiness,
    ));
    match &progress.preview {
        Some(Ok(preview)) => output::say(&format!("preview {}", preview.display())),
        Some(Err(reason)) => output::say(&format!("warning: no preview: {reason}")),
        None => {}
    }
    Ok(())
}

fn tell_end(report: &TrainReport, out: &Path, json: bool) -> Result<(), Error> {
    let Some(digest) = report.digest.as_deref().filter(|_| report.finished) else {
        let message = format!("stopped at iteration {}; the same command goes on from there", report.iterations);
        return Err(Error::new(ErrorKind::Interrupted, message));
    };
    if json {
        return tell(TrainEvent::Finished { output: out, iterations: report.iterations, mean: &report.mean, digest });
    }
    output::say(&format!("{}: {} iterations, blake3 {digest}", out.display(), report.iterations));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::command;

    #[test]
    fn the_card_names_options_and_files_but_no_folder() {
        let said = ["/opt/restyle", "train", "--style=/a/b.jpg", "--photos", "/c/d/", "--rate", "1e-3"];
        let told = "restyle train --style=b.jpg --photos d --rate 1e-3";
        assert_eq!(command(said.into_iter().map(Into::into)), told);
    }
}
