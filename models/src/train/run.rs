//! A whole training from files to a style file: resume, progress, previews and the card.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::checkpoint::{checkpoint_path, write_whole};
use super::config::{Length, TrainConfig};
use super::error::TrainError;
use super::export::export;
use super::photo::{Photo, PhotoSet};
use super::trainer::{Losses, Trainer};
use crate::vgg::FeatureNetwork;

/// Iterations that are timed before a length in time becomes a number of iterations.
const TIMED: u32 = 24;
/// Cost of a steady iteration in main ones.
const STEADY_COST: f64 = 1.6;
/// Share of the time that the steady stage takes.
const STEADY_SHARE: f64 = 0.33;

/// How a training stands after an iteration.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Iterations made.
    pub iteration: u32,
    /// Iterations of the whole training; an estimate while a length in time is not fixed yet.
    pub iterations: u32,
    /// Whether the steadiness term is on.
    pub steady: bool,
    /// The last iteration's losses.
    pub losses: Losses,
    /// Running means of the losses.
    pub mean: Losses,
    /// Mean time of an iteration of this process.
    pub iteration_time: Duration,
    /// About how long it still takes.
    pub remaining: Duration,
    /// The preview picture, where one was just written.
    pub preview: Option<PathBuf>,
}

/// What the caller wants after an iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    Continue,
    /// Write a checkpoint and return.
    Stop,
}

/// How a training ended.
#[derive(Debug, Clone)]
pub struct TrainReport {
    /// Iterations made, those before a resume included.
    pub iterations: u32,
    /// Whether it ended, or was stopped and can be resumed.
    pub finished: bool,
    /// Running means of the losses at the end.
    pub mean: Losses,
    /// BLAKE3 of the style file, as hex; `None` when stopped.
    pub digest: Option<String>,
}

/// Trains a style as configured; goes on from the checkpoint beside the output where one lies. Blocks until done.
///
/// `now` is a monotonic clock (times feed progress, and a length in time; never the weights of a length in iterations);
/// `command` is what the card says made the file; `observe` is called after every iteration.
///
/// # Errors
/// When a file does not fit or cannot be read or written, or training diverges.
pub fn run(
    config: &TrainConfig,
    command: &str,
    now: &dyn Fn() -> Duration,
    observe: &mut dyn FnMut(&Progress) -> Control,
) -> Result<TrainReport, TrainError> {
    config.check()?;
    let bytes = std::fs::read(&config.features).map_err(|source| TrainError::io(&config.features, source))?;
    let features = FeatureNetwork::load(&bytes)?;
    let photos = PhotoSet::read(&config.photos)?;
    let preview = config.preview.as_ref().map(|path| Photo::read(path, None)).transpose()?;
    let mut trainer = if config.any {
        Trainer::any(config.clone(), features, PhotoSet::read(&config.style)?, photos)?
    } else {
        let painting = Photo::read(&config.style, Some(config.style_size))?;
        Trainer::new(config.clone(), features, &painting, photos)?
    };
    if let Some(start) = &config.start {
        trainer.start_from(&std::fs::read(start).map_err(|source| TrainError::io(start, source))?)?;
    }
    let saved = checkpoint_path(&config.out);
    let mut lengths = match config.length {
        Length::Iterations { main, steady } => Some((main, steady)),
        Length::Time(_) => None,
    };
    if saved.exists() {
        lengths = Some(trainer.restore(&saved)?);
    }
    let (start, first) = (now(), trainer.iteration());
    loop {
        let (main, steady) = lengths.unwrap_or((u32::MAX / 2, 0));
        if trainer.iteration() >= main + steady {
            break;
        }
        let losses = trainer.step(main, steady)?;
        let done = trainer.iteration() - first;
        let iteration_time = now().saturating_sub(start) / done.max(1);
        if let (None, Length::Time(time)) = (lengths, config.length)
            && trainer.iteration() >= TIMED
        {
            lengths = Some(lengths_for(time, iteration_time));
        }
        let (main, steady) = lengths.unwrap_or((TIMED, 0));
        let written = write_preview(&trainer, preview.as_ref())?;
        let due = config.checkpoint_every > 0 && trainer.iteration().is_multiple_of(config.checkpoint_every);
        if due && lengths.is_some() {
            trainer.save(&saved, (main, steady))?;
        }
        let progress = Progress {
            iteration: trainer.iteration(),
            iterations: main + steady,
            steady: trainer.iteration() > main,
            losses,
            mean: trainer.mean(),
            iteration_time,
            remaining: iteration_time * (main + steady).saturating_sub(trainer.iteration()),
            preview: written,
        };
        if observe(&progress) == Control::Stop {
            trainer.save(&saved, (main, steady))?;
            let (iterations, mean) = (trainer.iteration(), trainer.mean());
            return Ok(TrainReport { iterations, finished: false, mean, digest: None });
        }
    }
    finish(&trainer, command, &saved)
}

fn lengths_for(time: Duration, iteration_time: Duration) -> (u32, u32) {
    let whole = time.as_secs_f64() / iteration_time.as_secs_f64().max(1e-4);
    let steady = (whole * STEADY_SHARE / STEADY_COST) as u32;
    (((whole * (1.0 - STEADY_SHARE)) as u32).max(TIMED), steady)
}

fn write_preview(trainer: &Trainer, preview: Option<&Photo>) -> Result<Option<PathBuf>, TrainError> {
    let config = &trainer.config;
    let due = config.preview_every > 0 && trainer.iteration().is_multiple_of(config.preview_every);
    let Some(photo) = preview.filter(|_| due) else { return Ok(None) };
    let styled = trainer.learner.preview(&photo.to_tensor()?)?.detach();
    let path = config.out.with_extension(format!("{:06}.png", trainer.iteration()));
    Photo::write(&styled, &path)?;
    Ok(Some(path))
}

fn finish(trainer: &Trainer, command: &str, saved: &std::path::Path) -> Result<TrainReport, TrainError> {
    let config = &trainer.config;
    let file_name = |path: &std::path::Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let card = json!({
        "name": config.name,
        "any": config.any,
        "painting": file_name(&config.style),
        "command": command,
        "seed": config.seed,
        "start_blake3": trainer.start(),
        "width": config.width,
        "crop": config.crop,
        "style_size": config.style_size,
        "iterations": trainer.iteration(),
        "weights": config.weights,
        "losses": trainer.mean(),
        "photos": trainer.photos().len(),
        "photos_blake3": trainer.photos().digest(),
        "features_blake3": trainer.features().digest(),
        "training": trainer.fingerprint(),
    });
    let bytes = export(trainer.variables(), &card)?;
    write_whole(&config.out, &bytes)?;
    if saved.exists() {
        std::fs::remove_file(saved).map_err(|source| TrainError::io(saved, source))?;
    }
    Ok(TrainReport {
        iterations: trainer.iteration(),
        finished: true,
        mean: trainer.mean(),
        digest: Some(blake3::hash(&bytes).to_hex().to_string()),
    })
}
