//! A whole training from files to a style file: resume, progress, previews and the card.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::checkpoint::{RECIPE, checkpoint_path, try_writing, write_whole};
use super::config::TrainConfig;
use super::error::TrainError;
use super::export::export;
use super::photo::{PREVIEW_SIDE_MAX, Photo, PhotoSet};
use super::schedule::Schedule;
use super::trainer::{Losses, Trainer};
use crate::vgg::FeatureNetwork;

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
    /// The preview picture, where one was just written, or why it could not be; a training goes on without.
    pub preview: Option<Result<PathBuf, String>>,
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
    try_writing(&config.out)?;
    let preview = match &config.preview {
        Some(path) => Some(Photo::read_at_most(path, PREVIEW_SIDE_MAX)?),
        None => None,
    };
    let mut trainer = prepare(config)?;
    let saved = checkpoint_path(&config.out);
    let mut schedule = Schedule::new(config.length);
    if saved.exists() && config.fresh {
        std::fs::remove_file(&saved).map_err(|source| TrainError::io(&saved, source))?;
    } else if saved.exists() {
        schedule.resume(trainer.restore(&saved)?);
    }
    let (start, first) = (now(), trainer.iteration());
    while trainer.iteration() < iterations(schedule.stages()) {
        let (main, steady) = schedule.stages();
        let losses = trainer.step(main, steady)?;
        let iteration_time = now().saturating_sub(start) / (trainer.iteration() - first).max(1);
        schedule.observe(trainer.iteration(), iteration_time);
        let due = config.checkpoint_every > 0 && trainer.iteration().is_multiple_of(config.checkpoint_every);
        if due && schedule.is_fixed() {
            trainer.save(&saved, schedule.stages())?;
        }
        let stages = schedule.told();
        let progress = Progress {
            iteration: trainer.iteration(),
            iterations: iterations(stages),
            steady: trainer.iteration() > stages.0,
            losses,
            mean: trainer.mean(),
            iteration_time,
            remaining: iteration_time * iterations(stages).saturating_sub(trainer.iteration()),
            preview: write_preview(&trainer, preview.as_ref()),
        };
        if observe(&progress) == Control::Stop {
            // A length in time that was not fixed yet is now: the checkpoint holds the whole training, not its beginning.
            schedule.fix(iteration_time);
            trainer.save(&saved, schedule.stages())?;
            let (iterations, mean) = (trainer.iteration(), trainer.mean());
            return Ok(TrainReport { iterations, finished: false, mean, digest: None });
        }
    }
    let finished = finish(&trainer, schedule.stages(), command, &saved);
    if finished.is_err() {
        // What is trained is worth more than what refused it: the same command writes it once there is room again.
        trainer.save(&saved, schedule.stages())?;
    }
    finished
}

fn iterations((main, steady): (u32, u32)) -> u32 {
    main + steady
}

/// Reads everything that a training needs.
fn prepare(config: &TrainConfig) -> Result<Trainer, TrainError> {
    let read = |path: &Path| std::fs::read(path).map_err(|source| TrainError::io(path, source));
    let features = FeatureNetwork::load(&read(&config.features)?)?;
    let photos = PhotoSet::read(&config.photos, config.crop)?;
    let mut trainer = if config.any {
        Trainer::any(config.clone(), features, PhotoSet::read(&config.style, config.crop)?, photos)?
    } else {
        let painting = Photo::read(&config.style, Some(config.style_size))?;
        Trainer::new(config.clone(), features, &painting, photos)?
    };
    if let Some(start) = &config.start {
        trainer.start_from(&read(start)?)?;
    }
    Ok(trainer)
}

fn write_preview(trainer: &Trainer, preview: Option<&Photo>) -> Option<Result<PathBuf, String>> {
    let config = &trainer.config;
    let due = config.preview_every > 0 && trainer.iteration().is_multiple_of(config.preview_every);
    let photo = preview.filter(|_| due)?;
    let path = config.out.with_extension(format!("{:06}.png", trainer.iteration()));
    let styled = photo.to_tensor().and_then(|photo| trainer.learner.preview(&photo));
    let written = styled.and_then(|styled| Photo::write(&styled.detach(), &path));
    Some(written.map(|()| path).map_err(|error| error.to_string()))
}

fn finish(
    trainer: &Trainer,
    (main, steady): (u32, u32),
    command: &str,
    saved: &Path,
) -> Result<TrainReport, TrainError> {
    let config = &trainer.config;
    let file_name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let card = json!({
        "name": config.name,
        "any": config.any,
        "painting": file_name(&config.style),
        "style_blake3": trainer.style_digest(),
        "command": command,
        "seed": config.seed,
        "start_blake3": trainer.start(),
        "device": config.device.to_string(),
        "width": config.width,
        "crop": config.crop,
        "style_size": config.style_size,
        "recipe": RECIPE,
        "iterations": trainer.iteration(),
        "main_iterations": main,
        "steady_iterations": steady,
        "rate": config.rate,
        "steady_rate": config.steady_rate,
        "steady_noise": config.steady_noise,
        "clip": config.clip,
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
